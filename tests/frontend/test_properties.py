"""Properties over random shapes, slices and subscripts: traced once, right for every call whose guards hold."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from polyai.frontend.surface import functions as pa
from polyai.frontend.trace import trace
from polyai.frontend.traced import Traced
from tests.frontend.helpers import execute, same

quick = settings(deadline=None, max_examples=60, derandomize=True)
sizes = st.integers(0, 5)
shapes = st.lists(sizes, max_size=3).map(tuple)


def numbers(shape: tuple[int, ...], seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape)


def holds(traced: Traced, *args: Any) -> bool:
    return traced.broken_guard(traced.values(traced.arguments(args, {}))) is None


@st.composite
def broadcastable(draw: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    whole = draw(shapes)
    out = []
    for _ in range(2):
        cut = draw(st.integers(0, len(whole)))
        out.append(tuple(1 if draw(st.booleans()) else n for n in whole[cut:]))
    return out[0], out[1]


@quick
@given(broadcastable(), broadcastable())
def test_broadcasting(first: Any, second: Any) -> None:
    def f(a: Any, b: Any) -> Any:
        return a * b - b

    x, y = numbers(first[0]), numbers(first[1], 1)
    traced = trace(f, (x, y), {})
    same(execute(traced, (x, y)), f(x, y))
    u, v = numbers(second[0]), numbers(second[1], 1)
    if (u.ndim, v.ndim) == (x.ndim, y.ndim) and holds(traced, u, v):
        same(execute(traced, (u, v)), f(u, v))


bounds = st.none() | st.integers(-7, 7)
steps = st.none() | st.sampled_from([1, 2, 3, -1, -2])
keys = st.one_of(st.builds(slice, bounds, bounds, steps), st.just(None), st.just(Ellipsis))


@quick
@given(st.lists(keys, max_size=3).filter(lambda k: k.count(Ellipsis) < 2 and sum(isinstance(x, slice) for x in k) < 3), sizes, sizes, sizes, sizes)
def test_slices(key: list[Any], n: int, m: int, n2: int, m2: int) -> None:
    def f(a: Any) -> Any:
        return a[tuple(key)] * 2

    x, y = numbers((n, m)), numbers((n2, m2))
    traced = trace(f, (x,), {})
    same(execute(traced, (x,)), f(x))
    if holds(traced, y):
        same(execute(traced, (y,)), f(y))


@st.composite
def reshapes(draw: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    factors = draw(st.lists(st.integers(1, 4), max_size=4))

    def grouped() -> tuple[int, ...]:
        out, rest = [], list(factors)
        while rest:
            take = draw(st.integers(0, len(rest)))
            out.append(math.prod(rest[:take]))
            rest = rest[take:] if take else rest
            if len(out) > 5:
                return (*out[:5], math.prod(rest))
        return tuple(out)

    return grouped(), grouped()


@quick
@given(reshapes(), st.integers(0, 4), st.booleans())
def test_reshapes(pair: Any, place: int, unknown: bool) -> None:
    old, new = pair
    if math.prod(old) != math.prod(new):
        new = (math.prod(old),)
    target = list(new)
    if unknown and target:
        target[place % len(target)] = -1
    x = numbers(old)
    traced = trace(lambda a: a.reshape(tuple(target)), (x,), {})
    same(execute(traced, (x,)), x.reshape(new))


@st.composite
def einsums(draw: Any) -> tuple[str, list[tuple[int, ...]]]:
    extent = {c: draw(st.integers(0, 3)) for c in "abcd"}
    terms = draw(st.lists(st.text("abcd", min_size=0, max_size=3), min_size=1, max_size=3))
    seen = sorted({c for t in terms for c in t})
    out = "".join(draw(st.permutations(draw(st.lists(st.sampled_from(seen), unique=True))))) if seen else ""
    arrow = f"->{out}" if draw(st.booleans()) else ""
    return ",".join(terms) + arrow, [tuple(extent[c] for c in t) for t in terms]


@quick
@given(einsums())
def test_einsums(case: Any) -> None:
    text, given_shapes = case
    operands = [numbers(s, n) for n, s in enumerate(given_shapes)]
    traced = trace(lambda *xs: pa.einsum(text, *xs), tuple(operands), {})
    same(execute(traced, tuple(operands)), np.asarray(np.einsum(text, *operands)))


@quick
@given(shapes.filter(len), st.integers(-6, 6), st.integers(0, 2))
def test_rolls_flips_and_running_sums(shape: tuple[int, ...], shift: int, axis: int) -> None:
    along = axis % len(shape)

    def f(a: Any) -> Any:
        return np.roll(a, shift, along), np.flip(a, along), np.cumsum(a, along), np.repeat(a, 2, along), np.diff(a, axis=along) if a.shape[along] else a

    x = numbers(shape)
    same(execute(trace(f, (x,), {}), (x,)), f(x))
