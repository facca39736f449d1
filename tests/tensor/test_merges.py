"""Merges of merges made one: what the pass does to programs, and what comes out of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

import polyai as pa
from polyai.frontend.trace import trace
from polyai.tensor.nodes import Join, Program
from polyai.tensor.passes import canonical, fuse, merges
from polyai.tensor.show import show
from polyai.tensor.verify import verify

Fn = Callable[..., Any]
RNG = np.random.default_rng(7)


def matrix(n: int, m: int, density: float, format: str = "csr") -> Any:
    values = sp.random_array((n, m), density=density, format="csr", rng=RNG)
    values.data = RNG.integers(-3, 4, values.nnz).astype(np.float64)
    return values.asformat(format)


def merged(fn: Fn) -> Program:
    a, b, c = (matrix(5, 6, 0.4) for _ in range(3))
    program = fuse.run(canonical.run(trace(fn, (a, b, c)).program))
    out = merges.run(program)
    verify(out)
    assert merges.run(out) == out
    return out


def joins(program: Program) -> list[str]:
    return [line.partition("= join ")[2] for line in show(program).splitlines() if "= join " in line]


@pytest.mark.parametrize(
    ("fn", "count"),
    [
        (lambda a, b, c: a + b + c, 1),
        (lambda a, b, c: (a + b) * c, 1),
        (lambda a, b, c: 2 * a - 3 * b + abs(c), 1),
        (lambda a, b, c: (a - b) * (a - b + c), 1),
        (lambda a, b, c: a * b * c, 1),
        (lambda a, b, c: a * b + c, 2),  # two merges are faster
        (lambda a, b, c: (a + b) * np.arange(6.0) + c, 1),
        (lambda a, b, c: a + b + c + a.T.T, 1),
    ],
    ids=["sum", "sum times", "scaled", "products of sums", "product", "product plus", "weighted", "again"],
)
def test_how_many_merges_are_left(fn: Fn, count: int) -> None:
    assert len(joins(merged(fn))) == count


def test_what_somebody_else_reads_stays() -> None:
    assert len(joins(merged(lambda a, b, c: (a + b, a + b + c)))) == 2
    assert len(joins(merged(lambda a, b, c: (a + b) / pa.sum(a + b, axis=1)[:, None] + c))) == 2
    assert len(joins(merged(lambda a, b, c: (a + b).sum(axis=0) * c + (a + b)))) >= 2


def test_a_factor_that_may_be_infinite_keeps_its_pattern() -> None:
    """Where neither a nor b is stored nothing is multiplied, whatever x is."""
    x = np.array([np.inf, 1, np.nan, 2, 3, -np.inf])
    a, b, c = (matrix(5, 6, 0.3) for _ in range(3))
    stored = (sp.csr_array((np.ones(a.nnz), a.indices, a.indptr), shape=a.shape) + sp.csr_array((np.ones(b.nnz), b.indices, b.indptr), shape=b.shape)).toarray() > 0
    got = pa.jit(lambda a, b, c, x: (a + b) * x + c)(a, b, c, x).toarray()
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(got, np.where(stored, (a + b).toarray() * x, 0) + c.toarray())


def test_at_most_three_parts() -> None:
    a, b, c = (matrix(5, 6, 0.4) for _ in range(3))
    d = matrix(5, 6, 0.4)
    program = merges.run(fuse.run(canonical.run(trace(lambda a, b, c, d: a + b + c + d, (a, b, c, d)).program)))
    assert sorted(len(s.parts) for s in program.body if isinstance(s, Join)) == [2, 3]
    np.testing.assert_array_equal(pa.jit(lambda a, b, c, d: a + b + c + d)(a, b, c, d).toarray(), (a + b + c + d).toarray())


@pytest.mark.parametrize("formats", ["csr csr csr", "csc csc csc", "csr coo csc"])
@pytest.mark.parametrize(
    "fn",
    [
        lambda a, b, c: a + b + c,
        lambda a, b, c: (a + b) * c,
        lambda a, b, c: (a - b) * (b - c),
        lambda a, b, c: (a + b) * (a + b + c),
        lambda a, b, c: a * b + c,
        lambda a, b, c: a + b + a * b,
        lambda a, b, c: abs(a - b) + 2 * c,
        lambda a, b, c: (a + b) * (a + b) + c,
        lambda a, b, c: a * (b + c) + b,
    ],
)
def test_results_equal_scipy(fn: Fn, formats: str) -> None:
    function = pa.jit(fn)
    for n, m, density in ((5, 6, 0.4), (30, 20, 0.2), (3, 3, 0.0), (4, 4, 1.0), (60, 60, 0.05)):
        given = [matrix(n, m, density, f) for f in formats.split()]
        for _ in range(2):
            got = function(*given)
            np.testing.assert_array_equal(got.toarray(), fn(*(g.toarray() for g in given)))
            assert got.has_sorted_indices
