"""Native calls of several kernels: the same results as SciPy's, whatever the arguments are, and nothing lost where they do not fit."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

import polyai as pa
from polyai.calls import phased
from polyai.errors import IndexOutOfRangeError, ShapeError, SparseStructureError
from polyai.runtime import staging
from polyai.runtime.cpython import layout_holds
from polyai.runtime.dispatch import calls_of

pytestmark = pytest.mark.skipif(not layout_holds(), reason="this interpreter lays out its objects in another way")

Fn = Callable[..., Any]
CASES: dict[str, tuple[Fn, Fn, str]] = {
    "sum": (lambda a, b: a + b, lambda a, b: a + b, "csr csr"),
    "sum of columns": (lambda a, b: a + b, lambda a, b: a + b, "csc csc"),
    "sum of lists": (lambda a, b: a + b, lambda a, b: a + b, "coo coo"),
    "mixed": (lambda a, b: a - b, lambda a, b: a - b, "coo csr"),
    "product of elements": (lambda a, b: a * b, lambda a, b: a * b, "csr csr"),
    "product": (lambda a, b: a @ b, lambda a, b: a @ b, "csr csr"),
    "product with the transpose": (lambda a, b: a @ b.T, lambda a, b: a @ b.T, "csr csr"),
    "three": (lambda a, b: a @ b @ a, lambda a, b: a @ b @ a, "csr csr"),
    "several merges": (lambda a, b: a + b + a * b, lambda a, b: a + b + a * b, "csr csr"),
    "to columns": (lambda a, b: pa.asformat(a, "csc"), lambda a, b: a, "csr csr"),
    "to rows": (lambda a, b: pa.asformat(a, "csr"), lambda a, b: a, "coo csr"),
    "rows": (lambda a, b: a[1:3], lambda a, b: a.tocsr()[1:3], "csr csr"),
    "triangle": (lambda a, b: pa.tril(a), lambda a, b: sp.tril(a), "csr csr"),
    "comparison": (lambda a, b: a > b, lambda a, b: a.tocsr() > b.tocsr(), "csr csr"),
    "sums of rows": (lambda a, b: (a @ b).sum(axis=1), lambda a, b: (a @ b).sum(axis=1), "csr csr"),
    "sum of all": (lambda a, b: (a @ b).sum(), lambda a, b: (a @ b).sum(), "csr csr"),
}


class Made:
    """Native functions that were made, with how many calls fitted them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.functions: list[Any] = []
        original = phased.make_phases

        def make(*args: Any, **kwargs: Any) -> Any:
            self.functions.append(original(*args, **kwargs))
            return self.functions[-1]

        monkeypatch.setattr(phased, "make_phases", make)

    def calls(self) -> tuple[int, int]:
        """Calls that fitted, and calls that were handed on."""
        pairs = [calls_of(f) for f in self.functions if f is not None]
        return sum(fast for fast, _ in pairs), sum(slow for _, slow in pairs)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Made:
    return Made(monkeypatch)


def square(n: int, density: float, seed: int, format: str, dtype: Any = np.float64) -> Any:
    rng = np.random.default_rng(seed)
    matrix = sp.random_array((n, n), density=density, format="csr", rng=rng, dtype=np.float64)
    matrix.data = np.round(matrix.data * 8 + 1).astype(dtype)
    return matrix.astype(dtype).asformat(format)


def plain(value: Any) -> Any:
    return value.toarray() if sp.issparse(value) else np.asarray(value)


def check(got: Any, want: Any) -> None:
    np.testing.assert_array_equal(plain(got), plain(want))
    if sp.issparse(got):
        assert got.indptr[0] == 0 and got.indptr[-1] == len(got.indices) == len(got.data) and got.has_sorted_indices
        copy = got.copy()
        copy.has_canonical_format = False
        copy.sum_duplicates()
        assert copy.nnz == got.nnz


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64])
@pytest.mark.parametrize("name", CASES)
def test_calls_are_native_and_equal_scipy(name: str, dtype: Any, made: Made) -> None:
    fn, reference, formats = CASES[name]
    function = pa.jit(fn)
    count = 0
    for n, density in ((5, 0.4), (40, 0.1), (300, 0.05), (3, 1.0), (6, 0.0), (300, 0.3)):
        a, b = (square(n, density, seed, f, dtype) for seed, f in enumerate(formats.split()))
        want = reference(a, b)
        for threads in (1, 2):
            with pa.options(num_threads=threads):
                for _ in range(3):
                    check(function(a, b), want)
                    count += 1
    fast, handed_on = made.calls()
    assert fast >= count // 2, (fast, handed_on, count)


def test_repeated_coordinates_are_added_up(made: Made) -> None:
    function = pa.jit(lambda a: pa.asformat(a, "csr"))
    rows, columns = np.array([2, 0, 2, 2, 1, 0]), np.array([1, 3, 1, 0, 2, 3])
    a = sp.coo_array((np.arange(1.0, 7), (rows.astype(np.int32), columns.astype(np.int32))), shape=(3, 4))
    for _ in range(4):
        got = function(a)
        check(got, a)
        assert got.nnz == 4
    assert made.calls()[0] >= 2


def test_what_does_not_fit_is_looked_at_in_python(made: Made) -> None:
    function = pa.jit(lambda a, b: a + b)
    a, b = square(50, 0.1, 0, "csr"), square(50, 0.1, 1, "csr")
    for _ in range(3):
        function(a, b)
    others = [
        (a.astype(np.float32), b),
        (a.tocsc(), b),
        (sp.csr_matrix(a), sp.csr_matrix(b)),
        (sp.csr_array((a.data, a.indices.astype(np.int64), a.indptr.astype(np.int64)), shape=a.shape), b),
    ]
    for one, other in others:
        for _ in range(2):
            check(function(one, other), one + other)
    with pytest.raises(ShapeError):
        function(a, square(51, 0.1, 1, "csr"))
    check(function(a, b), a + b)


def test_results_larger_than_native_calls_take(monkeypatch: pytest.MonkeyPatch, made: Made) -> None:
    monkeypatch.setattr(staging, "SMALL", 4000)
    for name in ("sum", "product", "to columns", "triangle"):
        fn, reference, _ = CASES[name]
        function = pa.jit(fn)
        for n in (10, 200):
            a, b = square(n, 0.1, 0, "csr"), square(n, 0.1, 1, "csr")
            for _ in range(3):
                check(function(a, b), reference(a, b))
    fast, handed_on = made.calls()
    assert fast and handed_on


@pytest.mark.parametrize("name", ["sum", "product of elements", "product", "to columns"])
def test_broken_operands_are_errors_in_native_calls_too(name: str, made: Made) -> None:
    fn, reference, _ = CASES[name]
    function = pa.jit(fn)
    a, b = square(60, 0.1, 0, "csr"), square(60, 0.1, 1, "csr")
    for _ in range(3):
        function(a, b)
    good = a.copy()
    a.indices[7] = 2**30
    with pytest.raises((IndexOutOfRangeError, SparseStructureError)):
        function(a, b)
    a.indices[7] = -1
    with pytest.raises((IndexOutOfRangeError, SparseStructureError)):
        function(a, b)
    a = good.copy()
    a.indptr[30] = a.indptr[-1] + 1
    with pytest.raises((IndexOutOfRangeError, SparseStructureError)):
        function(a, b)
    a = good.copy()
    a.indptr[-1] += 1
    with pytest.raises((IndexOutOfRangeError, SparseStructureError)):
        function(a, b)
    check(function(good, b), reference(good, b))
    assert made.calls()[0] >= 2


def test_nothing_is_kept_of_a_call(made: Made) -> None:
    """Neither arguments nor results, nor what was made on the way."""
    function = pa.jit(lambda a, b: a @ b.T + a)
    a, b = square(120, 0.1, 0, "csr"), square(120, 0.1, 1, "csr")
    for _ in range(4):
        result = function(a, b)
    watched = [a, b, a.data, a.indices, a.indptr, result.data.dtype, result.indices.dtype, sys.getrefcount]
    gc.collect()
    before = [sys.getrefcount(x) for x in watched]
    for _ in range(200):
        result = function(a, b)
    gc.collect()
    assert [abs(sys.getrefcount(x) - n) < 20 for x, n in zip(watched, before)] == [True] * len(watched)
    assert all(sys.getrefcount(x) <= 4 for x in (result.data, result.indices, result.indptr))
    assert made.calls()[0] >= 200


def test_results_own_their_memory(made: Made) -> None:
    function = pa.jit(lambda a, b: a + b)
    a, b = square(400, 0.2, 0, "csr"), square(400, 0.2, 1, "csr")
    for _ in range(3):
        function(a, b)
    first = function(a, b)
    kept = first.toarray()
    for _ in range(20):
        function(b, b)
    np.testing.assert_array_equal(first.toarray(), kept)
    assert first.data.flags.owndata and first.data.flags.writeable
    assert made.calls()[0] >= 20


def test_several_threads_call_at_once(made: Made) -> None:
    function = pa.jit(lambda a, b: a + b)
    pairs = [(square(n, 0.2, n, "csr"), square(n, 0.1, n + 1, "csr")) for n in (10, 80, 200, 333)]
    wants = [(a + b).toarray() for a, b in pairs]
    for a, b in pairs:
        function(a, b)
    wrong: list[Any] = []

    def work(k: int) -> None:
        try:
            for n in range(60):
                (a, b), want = pairs[(n + k) % 4], wants[(n + k) % 4]
                if not np.array_equal(function(a, b).toarray(), want):
                    wrong.append((n, k))
        except BaseException as error:
            wrong.append(error)

    workers = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong
    assert made.calls()[0] >= 200
