"""Random sizes over n, m, k and ranges small enough to try every value."""

import itertools

from hypothesis import strategies as st

from polyai.shapes.dim import Dim
from polyai.shapes.expr import floordiv, maximum, minimum, mod, symbol

NAMES = ("n", "m", "k")


@st.composite
def _grown(draw, inner):
    a, b = draw(inner), draw(inner)
    number = draw(st.integers(1, 5))
    match draw(st.integers(0, 7)):
        case 0:
            return a - b
        case 1:
            return floordiv(a, number)
        case 2:
            return mod(a, number)
        case 3:
            return maximum(a, b)
        case 4:
            return minimum(a, b)
        case 5:
            return a * draw(st.integers(-3, 3))
        case 6:
            return a * b
        case _:
            return a + b


sizes = st.recursive(st.one_of(st.integers(-5, 9), st.sampled_from(NAMES).map(symbol)), _grown, max_leaves=5)


@st.composite
def dims(draw):
    out = []
    for name in NAMES:
        multiple = draw(st.sampled_from([1, 1, 2, 3]))
        low = draw(st.integers(0, 2)) * multiple
        out.append(Dim(name, low, low + multiple * draw(st.integers(0, 3)), multiple))
    return tuple(out)


def values(declared):
    """Every assignment that the declared dimensions admit."""
    ranges = [[v for v in range(d.max + 1) if d.admits(v)] for d in declared]
    return [dict(zip((d.name for d in declared), point)) for point in itertools.product(*ranges)]
