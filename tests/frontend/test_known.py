"""What is known of sizes, held against all values that the ranges and facts allow."""

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyai.frontend.known import RELATIONS, Knowledge
from polyai.shapes import expr as sx
from polyai.shapes.expr import floordiv, mod, symbol

n, m = symbol("n"), symbol("m")


def known(**ranges: tuple[int, int | None]) -> Knowledge:
    out = Knowledge()
    for name, (low, high) in ranges.items():
        out.add(name, low, high)
    return out


def test_ranges_decide() -> None:
    k = known(n=(1, 8), m=(0, None))
    assert k.decide(n + m, ">") is True
    assert k.decide(n - 9, ">=") is False
    assert k.decide(n - m, ">=") is None
    assert k.decide(m + 1, "==") is False


def test_a_fact_narrows_the_range_of_a_symbol() -> None:
    k = known(n=(0, None))
    assert k.decide(n - 3, ">") is None
    k.learn(n - 4, ">=")
    assert k.decide(n - 3, ">") is True
    k.learn(n - 4, "<=")
    assert k.decide(n - 4, "==") is True


def test_an_equality_writes_the_younger_symbol_by_the_older_one() -> None:
    k = known(n=(2, 5), m=(0, 8))
    k.learn(m - 2 * n, "==")
    assert k.resolve(m + 1) == 2 * n + 1
    assert k.decide(k.resolve(m) - 3, ">") is True
    assert k.decide(8 - 2 * n, ">=") is True  # what was known of m holds of 2 * n


def test_a_multiple_makes_quotients_exact() -> None:
    k = known(n=(0, None))
    zero = floordiv(n, 8) * 8 - n
    assert k.decide(zero, "==") is None and not k.equal(floordiv(n, 8) * 8, n)
    k.divisible(n, 8)
    assert k.decide(zero, "==") is True and k.equal(floordiv(n, 8) * 8, n)
    assert k.decide(mod(n, 4), "==") is True


@pytest.mark.parametrize("relation", RELATIONS)
def test_what_is_learnt_is_decided(relation: str) -> None:
    k = known(n=(0, None), m=(0, None))
    k.learn(n - m, relation)
    if relation != "!=":
        assert k.decide(k.resolve(n) - k.resolve(m), relation) is True


def _combined(parts: tuple[sx.Size, sx.Size, str]) -> sx.Size:
    a, b, op = parts
    match op:
        case "+":
            return a + b
        case "-":
            return a - b
        case "*":
            return a * b
    divisor = abs(b) + 1 if isinstance(b, int) else 3
    return floordiv(a, divisor) if op == "//" else mod(a, divisor)


sizes = st.recursive(
    st.sampled_from([n, m]) | st.integers(-3, 5),
    lambda inner: st.tuples(inner, inner, st.sampled_from(["+", "-", "*", "//", "%"])).map(_combined),
    max_leaves=5,
)


@settings(max_examples=300, deadline=None)
@given(sizes, st.sampled_from(list(RELATIONS)), st.lists(st.tuples(sizes, st.sampled_from(list(RELATIONS))), max_size=2))
def test_nothing_false_is_decided(asked: sx.Size, relation: str, learnt: list[tuple[sx.Size, str]]) -> None:
    """Whatever is learnt: an answer holds for all values in the ranges for which what was learnt holds."""
    k = known(n=(0, 6), m=(1, 5))
    allowed = [v for v in ({"n": a, "m": b} for a, b in product(range(7), range(1, 6))) if all(RELATIONS[r](sx.evaluate(e, v), 0) for e, r in learnt)]
    if not allowed:
        return  # a contradiction: nothing is asked then
    for e, r in learnt:
        k.learn(k.resolve(e), r)
    decided = k.decide(k.resolve(asked), relation)
    if decided is not None:
        assert {RELATIONS[relation](sx.evaluate(asked, v), 0) for v in allowed} == {decided}
