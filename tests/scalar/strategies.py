"""Random typed expressions over a few variables and arrays."""

import numpy as np
from hypothesis import strategies as st

from polyai.errors import DTypeError
from polyai.scalar import dtype as dt
from polyai.scalar.build import apply, cast, const
from polyai.scalar.expr import Load, Var
from polyai.scalar.ops import OPS

TYPES = (dt.bool_, dt.i32, dt.i64, dt.u8, dt.f32, dt.f64)
UNARY = [o for o in OPS.values() if o.arity == 1 and o.name != "erf"]
BINARY = [o for o in OPS.values() if o.arity == 2 and o.name not in ("pow", "shl", "shr")]
POINTS = 7


@st.composite
def leaves(draw):
    dtype = draw(st.sampled_from(TYPES))
    match draw(st.integers(0, 3)):
        case 0:
            return Var(f"v_{dtype}", dtype)
        case 1:
            return Load(f"a_{dtype}", (Var("i", dt.i64),), dtype)
        case _ if dtype.is_float:
            return const(draw(st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0, 0.5, 3.0, 0.1, float("inf"), float("nan")])), dtype)
        case _:
            return const(draw(st.sampled_from([0, 1, 2, 3, 7])), dtype)


@st.composite
def _grown(draw, inner):
    def attempt(op, *args):
        try:
            return apply(op, *args)
        except DTypeError:
            return args[0]

    a, b, c = draw(inner), draw(inner), draw(inner)
    match draw(st.integers(0, 5)):
        case 0:
            return attempt(draw(st.sampled_from(UNARY)).name, a)
        case 1:
            return cast(a, draw(st.sampled_from([dt.bool_, dt.i64, dt.f32, dt.f64]))) if not a.dtype.is_float else cast(a, dt.f64)
        case 2:
            return attempt("where", apply("ne", c, const(0, c.dtype)), a, b)
        case _:
            return attempt(draw(st.sampled_from(BINARY)).name, a, b)


expressions = st.recursive(leaves(), _grown, max_leaves=10)


def environment(seed):
    """Values for every variable and array that `leaves` may use: small numbers, zeros, infinities."""
    rng = np.random.default_rng(seed)
    env = {"i": np.arange(POINTS)}
    arrays = {}
    for dtype in TYPES:
        for name, into in ((f"v_{dtype}", env), (f"a_{dtype}", arrays)):
            values = rng.integers(0 if dtype.kind in "bu" else -4, 5, POINTS).astype(dt.to_numpy(dtype))
            if dtype.is_float:
                values[:4] = [np.nan, -0.0, np.inf, 0.37]
            into[name] = values
    return env, arrays
