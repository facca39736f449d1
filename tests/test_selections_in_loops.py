"""Masks that are only reduced, inside branches and loop bodies: nothing is stored whose size data decide."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import polyai as pa
from polyai.errors import UnsupportedError

x = np.random.default_rng(0).random(37)
X = np.random.default_rng(1).random((5, 7))

REDUCED: dict[str, tuple[Callable[[Any, Any], Any], Callable[[Any, Any], Any]]] = {
    "sum": (lambda xs, v: pa.sum(xs[xs > v]), lambda xs, v: xs[xs > v].sum()),
    "of a map": (lambda xs, v: pa.sum(xs[xs > v] ** 2 + v), lambda xs, v: (xs[xs > v] ** 2 + v).sum()),
    "product": (lambda xs, v: pa.prod(xs[xs > v]), lambda xs, v: xs[xs > v].prod()),
    "any": (lambda xs, v: pa.any(xs[xs > v] > 0.95) * 1.0, lambda xs, v: float((xs[xs > v] > 0.95).any())),
    "count": (lambda xs, v: xs[xs > v].shape[0] * 1.0, lambda xs, v: float((xs > v).sum())),
    "mean": (lambda xs, v: pa.mean(xs[xs >= v]), lambda xs, v: xs[xs >= v].mean()),
    "variance": (lambda xs, v: pa.var(xs[xs >= v]), lambda xs, v: xs[xs >= v].var()),
    "two masks": (lambda xs, v: pa.sum(xs[xs > v]) - pa.sum(xs[xs <= v]), lambda xs, v: xs[xs > v].sum() - xs[xs <= v].sum()),
    "none": (lambda xs, v: pa.sum(xs[xs > v + 2]), lambda xs, v: 0.0),
}


@pytest.mark.parametrize("name", REDUCED)
def test_in_a_scan(name: str) -> None:
    ours, theirs = REDUCED[name]
    _, found = pa.jit(lambda xs: pa.scan(lambda c, v: (c, ours(xs, v)), 0.0, xs))(x)
    np.testing.assert_allclose(found, [theirs(x, v) for v in x], atol=1e-12)


@pytest.mark.parametrize("name", REDUCED)
def test_in_a_branch(name: str) -> None:
    ours, theirs = REDUCED[name]
    fn = pa.jit(lambda xs, v: pa.cond(v > 0.5, lambda xs: ours(xs, v), lambda xs: -ours(xs, v / 2), xs))
    for v in (0.25, 0.75):
        np.testing.assert_allclose(fn(x, np.float64(v)), theirs(x, v) if v > 0.5 else -theirs(x, v / 2), atol=1e-12)


def test_of_a_matrix() -> None:
    _, found = pa.jit(lambda m, xs: pa.scan(lambda c, v: (c, pa.sum(m[m > v])), 0.0, xs))(X, x)
    np.testing.assert_allclose(found, [X[v < X].sum() for v in x])


def test_two_means_move_until_they_stand() -> None:
    def round_of(xs: Any, c: Any) -> Any:
        near = abs(xs - c[0]) <= abs(xs - c[1])
        return pa.stack([pa.mean(xs[near]), pa.mean(xs[~near])])

    found = pa.jit(lambda xs, start: pa.fori_loop(0, 5, lambda i, c: round_of(xs, c), start))(x, np.array([0.2, 0.8]))
    c = np.array([0.2, 0.8])
    for _ in range(5):
        near = abs(x - c[0]) <= abs(x - c[1])
        c = np.array([x[near].mean(), x[~near].mean()])
    np.testing.assert_allclose(found, c)


REFUSED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "returned": (lambda xs: pa.cond(xs[0] > 0.5, lambda: xs[xs > 0.5], lambda: xs[xs < 0.5]), "select outside"),
    "stored": (lambda xs: pa.scan(lambda c, v: (c, pa.sum(pa.cumulative_sum(xs[xs > v]))), 0.0, xs)[1], "select outside"),
    "sorted": (lambda xs: pa.scan(lambda c, v: (c, pa.sum(pa.sort(xs[xs > v]))), 0.0, xs)[1], "sort outside"),
    "largest of what may be none": (lambda xs: pa.scan(lambda c, v: (c, pa.max(xs[xs > v])), 0.0, xs)[1], "-inf"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_must_be_stored_is_refused(name: str) -> None:
    fn, remedy = REFUSED[name]
    with pytest.raises(UnsupportedError, match=remedy):
        pa.jit(fn)(x)
