"""Sizes that data decide: masks, nonzero, repeat, unique, sort, inside compiled functions and outside, against NumPy and SciPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import polyai as pa
from polyai.errors import DTypeError, ShapeError, TraceError, UnsupportedError

RNG = np.random.default_rng(11)
LENGTHS = (9, 0, 1, 2, 5000, 8193)


def vectors() -> list[np.ndarray]:
    out = [RNG.standard_normal(n) for n in LENGTHS]
    return [*out, np.ones(7), -np.ones(7)]


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(initial=-np.inf))
    return np.asarray(e / e.sum())


def written(x: np.ndarray) -> np.ndarray:
    out = x.copy()
    out[x > 0] = np.cumsum(x[x > 0])
    return out


ON_VECTORS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "returned": (lambda x: x[x > 0], lambda x: x[x > 0]),
    "reduced": (lambda x: pa.sum(x[x > 0] ** 2), lambda x: np.sum(x[x > 0] ** 2)),
    "softmax": (lambda x: pa.softmax(x[x > -9]), lambda x: softmax(x[x > -9])),
    "two sizes": (lambda x: (x[x > 0], 2 * x[x < 0.5]), lambda x: (x[x > 0], 2 * x[x < 0.5])),
    "a mask of what a mask gives": (lambda x: (lambda y: y[y < 1])(x[x > 0]), lambda x: (lambda y: y[y < 1])(x[x > 0])),
    "masks alike": (lambda x: x[x > 0] * x[x > 0] + x[x > 0], lambda x: x[x > 0] * x[x > 0] + x[x > 0]),
    "a product": (lambda x: x[x > 0] @ x[x > 0], lambda x: x[x > 0] @ x[x > 0]),
    "an outer product": (lambda x: pa.outer(x[x > 1], x[x < -1]), lambda x: np.outer(x[x > 1], x[x < -1])),
    "the size": (lambda x: x[x > 0].shape[0] * 2 + 1, lambda x: x[x > 0].shape[0] * 2 + 1),
    "zeros of the size": (lambda x: pa.zeros(x[x > 0].shape[0]), lambda x: np.zeros(x[x > 0].shape[0])),
    "a running sum": (lambda x: pa.cumsum(x[x > 0]), lambda x: np.cumsum(x[x > 0])),
    "a scan": (lambda x: pa.scan(lambda c, y: (c + y, c), 0.0, x[x > 0])[0], lambda x: x[x > 0].sum()),
    "masks in a scan": (lambda x: pa.scan(lambda c, y: (c + pa.sum(x[x > y]), c), 0.0, x)[0], lambda x: sum((x[x > y].sum() for y in x), np.float64(0))),
    "slices": (lambda x: (x[x > 0][:3], x[x > 0][-2:], x[x > 0][1::2]), lambda x: (x[x > 0][:3], x[x > 0][-2:], x[x > 0][1::2])),
    "backwards": (lambda x: x[x > 0][::-1], lambda x: x[x > 0][::-1]),
    "concat": (lambda x: pa.concat([x[x > 0], x]), lambda x: np.concatenate([x[x > 0], x])),
    "nonzero": (lambda x: pa.nonzero(pa.trunc(x)), lambda x: np.nonzero(np.trunc(x))),
    "flatnonzero": (lambda x: np.flatnonzero(x > 0), lambda x: np.flatnonzero(x > 0)),
    "argwhere": (lambda x: np.argwhere(x > 0), lambda x: np.argwhere(x > 0)),
    "compress": (lambda x: x.compress(x > 0), lambda x: x.compress(x > 0)),
    "extract": (lambda x: np.extract(x > 0, x), lambda x: np.extract(x > 0, x)),
    "np.where": (lambda x: np.where(x > 0), lambda x: np.where(x > 0)),
    "added where it is selected": (lambda x: x.at[x > 0].add(x[x > 0] * 2), lambda x: np.where(x > 0, 3 * x, x)),
    "written where it is selected": (lambda x: x.at[x > 0].set(pa.cumsum(x[x > 0])), written),
    "where it is selected": (lambda x: x.at[pa.nonzero(x > 0)[0]].set(0), lambda x: np.where(x > 0, 0, x)),
    "count": (lambda x: pa.sum(x[x > 0]) / x[x > 0].size if x.shape[0] else x, lambda x: np.sum(x[x > 0]) / max((x > 0).sum(), 0) if len(x) else x),
}


def same(got: Any, want: Any) -> None:
    for g, w in zip(got if isinstance(got, tuple) else (got,), want if isinstance(want, tuple) else (want,), strict=True):
        assert np.shape(g) == np.shape(w) and np.asarray(g).dtype == np.asarray(w).dtype
        np.testing.assert_allclose(g, w, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("what", ON_VECTORS)
def test_masks_of_vectors(what: str) -> None:
    fn, oracle = ON_VECTORS[what]
    compiled = pa.jit(fn)
    for x in vectors():
        with np.errstate(all="ignore"):
            same(compiled(x), oracle(x))


ON_MATRICES: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "rows": (lambda x: x[x[:, 0] > 0], lambda x: x[x[:, 0] > 0]),
    "columns": (lambda x: x[:, x[0] > 0], lambda x: x[:, x[0] > 0]),
    "rows, then a slice": (lambda x: x[x[:, 0] > 0, 1:3], lambda x: x[x[:, 0] > 0, 1:3]),
    "rows, then a column": (lambda x: x[x[:, 0] > 0, 2], lambda x: x[x[:, 0] > 0, 2]),
    "an ellipsis": (lambda x: x[..., x[0] > 0], lambda x: x[..., x[0] > 0]),
    "elements": (lambda x: x[x > 0], lambda x: x[x > 0]),
    "elements summed": (lambda x: pa.sum(x[x > 0]), lambda x: np.sum(x[x > 0])),
    "a layer": (lambda x: pa.maximum(x[x[:, 0] > 0] @ x.T, 0), lambda x: np.maximum(x[x[:, 0] > 0] @ x.T, 0)),
    "a gram matrix": (lambda x: x[x[:, 0] > 0].T @ x[x[:, 0] > 0], lambda x: x[x[:, 0] > 0].T @ x[x[:, 0] > 0]),
    "sums": (lambda x: (x[x[:, 0] > 0].sum(0), x[x[:, 0] > 0].sum(1)), lambda x: (x[x[:, 0] > 0].sum(0), x[x[:, 0] > 0].sum(1))),
    "places": (lambda x: pa.nonzero(x > 0), lambda x: np.nonzero(x > 0)),
    "flat places": (lambda x: pa.flatnonzero(x > 0), lambda x: np.flatnonzero(x > 0)),
    "places in three dimensions": (lambda x: pa.nonzero(x[:, :, None] > pa.asarray(np.arange(3.0) - 1)), lambda x: np.nonzero(x[:, :, None] > np.arange(3.0) - 1)),
    "compress": (lambda x: np.compress(x[0] > 0, x, axis=1), lambda x: np.compress(x[0] > 0, x, axis=1)),
    "find": (lambda x: pa.find(pa.maximum(x, 0)), lambda x: (*np.nonzero(np.maximum(x, 0)), x[x > 0])),
}


@pytest.mark.parametrize("what", ON_MATRICES)
def test_masks_of_matrices(what: str) -> None:
    fn, oracle = ON_MATRICES[what]
    compiled = pa.jit(fn)
    for shape in ((6, 4), (1, 4), (300, 4)):
        x = RNG.standard_normal(shape)
        same(compiled(x), oracle(x))


def test_one_compilation_serves_every_number_of_elements() -> None:
    f = pa.jit(lambda x, mask: pa.softmax(x[mask] * 1.25))
    before = pa.stats()["compiles"]
    x = RNG.standard_normal(4100)
    masks = [RNG.random(4100) < p for p in np.linspace(0, 1, 20)]
    for mask in (*masks, np.zeros(4100, bool), np.ones(4100, bool)):
        np.testing.assert_allclose(f(x, mask), softmax(1.25 * x[mask]), rtol=1e-12)
    for n in (0, 1, 2, 17):
        np.testing.assert_allclose(f(x[:n], masks[9][:n]), softmax(1.25 * x[:n][masks[9][:n]]), rtol=1e-12)
    report = f.report()
    assert len(report.kernels) == 1 and report.hits == 26 and pa.stats()["compiles"] - before <= 3, "a kernel each to count, to store and to go on"
    assert "count_nonzero(mask) <= x.shape[0]" in str(report)


def test_what_is_only_reduced_is_not_stored() -> None:
    f = pa.jit(lambda x: pa.mean(x[x > 0]))
    explained = f.explain(np.ones(9))
    text = str(explained)
    assert "only reduced, so what is selected is not stored" in text
    assert "chosen.nnz: count_nonzero(x > 0.0), at least 0, at most x.shape[0]" in text
    assert "crd1" not in text, "no kernel stores places"
    kept = str(pa.jit(lambda x: (pa.mean(x[x > 0]), x[x > 0])).explain(np.ones(9)))
    assert "crd1" in kept and "only reduced" not in kept


@pytest.mark.parametrize("kind", ["csr", "csc", "coo"])
def test_of_sparse_matrices(kind: str) -> None:
    a = sp.random_array((30, 20), density=0.2, rng=np.random.default_rng(1), format="csr")
    a.data[::5] = 0
    a, x = a.asformat(kind), RNG.standard_normal((20, 3))
    rows, columns = RNG.random(30) < 0.5, RNG.random(20) < 0.5
    full = a.toarray()
    same(tuple(pa.jit(lambda a, m: a[m])(a, rows).toarray().T), tuple(full[rows].T))
    same(pa.jit(lambda a, m: a[:, m])(a, columns).toarray(), full[:, columns])
    same(pa.jit(lambda a, m, x: a[m] @ x)(a, rows, x), full[rows] @ x)
    same(pa.jit(lambda a, x: a[pa.sum(a, axis=1) > 1] @ x)(a, x), full[full.sum(axis=1) > 1] @ x)
    same(pa.jit(lambda a: a[a > 0.5])(a.tocsr()), a.tocsr()[a.tocsr() > 0.5])
    same(pa.jit(lambda a, d: a[d > 0.5])(a, full), full[full > 0.5])
    for got in (pa.jit(lambda a: a.nonzero())(a), pa.nonzero(a)):
        same(got, a.nonzero())
    same(pa.jit(pa.find)(a), sp.find(a))
    same(pa.jit(lambda a: pa.nonzero(pa.tril(a)))(a), sp.tril(a.tocsr()).nonzero())
    same(pa.jit(lambda a: pa.nonzero(a + a))(a), a.tocsr().nonzero())
    same(pa.jit(lambda a: pa.sum(a[a > 0.5]))(a), a.tocsr()[a.tocsr() > 0.5].sum())


def test_formats_that_are_converted() -> None:
    a = sp.random_array((6, 6), density=0.4, rng=np.random.default_rng(2), format="csr")
    for kind in ("bsr", "dia", "lil"):
        same(tuple(map(np.sort, pa.jit(pa.nonzero)(a.asformat(kind)))), tuple(map(np.sort, a.nonzero())))


COUNTS = [(RNG.standard_normal(n), RNG.integers(0, 4, n)) for n in (9, 0, 1, 5000)] + [(np.ones(3), np.zeros(3, np.int64))]
REPEATS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "repeat": (lambda x, c: pa.repeat(x, c), np.repeat),
    "a method": (lambda x, c: x.repeat(c), np.repeat),
    "summed": (lambda x, c: pa.sum(pa.repeat(x, c) ** 2), lambda x, c: np.sum(np.repeat(x, c) ** 2)),
    "of what a mask gives": (lambda x, c: pa.repeat(x[c > 1], c[c > 1]), lambda x, c: np.repeat(x[c > 1], c[c > 1])),
    "masked": (lambda x, c: (lambda y: y[y > 0])(pa.repeat(x, c)), lambda x, c: (lambda y: y[y > 0])(np.repeat(x, c))),
    "segments": (
        lambda x, c: pa.segment_sum(pa.repeat(x, c), pa.repeat(pa.arange(x.shape[0]), c), x.shape[0]),
        lambda x, c: x * c,
    ),
    "rows": (lambda x, c: pa.repeat(pa.stack([x, 2 * x], axis=1), c, axis=0), lambda x, c: np.repeat(np.stack([x, 2 * x], axis=1), c, axis=0)),
}


@pytest.mark.parametrize("what", REPEATS)
def test_repeat_with_a_count_for_each_element(what: str) -> None:
    fn, oracle = REPEATS[what]
    compiled = pa.jit(fn)
    for x, counts in COUNTS:
        same(compiled(x, counts), oracle(x, counts))
    assert len(compiled.report().kernels) == 1


def test_repeat_with_counts_that_are_known() -> None:
    x = np.arange(3.0)
    same(pa.jit(lambda x: pa.repeat(x, [1, 2, 0]))(x), np.repeat(x, [1, 2, 0]))
    same(pa.jit(lambda x: pa.repeat(x, np.array([3])))(x), np.repeat(x, 3))
    same(pa.repeat(x, np.array([2, 0, 1], np.uint8)), np.repeat(x, [2, 0, 1]))


@pytest.mark.parametrize("dtype", ["f8", "f4", "u8", "i4", "u1", "bool"])
def test_order(dtype: str) -> None:
    f = pa.jit(lambda x: (pa.sort(x), pa.argsort(x), pa.unique(x)))
    for n in (40, 0, 1):
        x = (RNG.standard_normal(n) * 9).astype(dtype)
        same(f(x), (np.sort(x), np.argsort(x, kind="stable"), np.unique(x)))
    assert len(f.report().kernels) == 1


def test_order_of_floats_that_are_special() -> None:
    x = np.array([np.nan, 1.0, -0.0, 0.0, np.inf, -np.inf, -np.nan, -3.0, 5e-324])
    np.testing.assert_array_equal(pa.sort(x), np.sort(x))
    np.testing.assert_array_equal(pa.argsort(x), np.argsort(x, kind="stable"))
    np.testing.assert_array_equal(pa.unique(x), np.unique(x))
    np.testing.assert_array_equal(pa.sort(x[1:6], descending=True), np.sort(x[1:6])[::-1])


@pytest.mark.parametrize("axis", [0, 1, -1, None])
def test_order_along_an_axis(axis: int | None) -> None:
    x = RNG.integers(-3, 4, (7, 5)).astype("i1")
    same(pa.jit(lambda x: pa.sort(x, axis=axis))(x), np.sort(x, axis=axis))
    same(pa.jit(lambda x: pa.argsort(x, axis=axis))(x), np.argsort(x, axis=axis, kind="stable"))


def test_unique_with_everything() -> None:
    f = pa.jit(lambda x: pa.unique(x, return_index=True, return_inverse=True, return_counts=True))
    for shape in ((12,), (3, 4), (0,), (1,)):
        x = RNG.integers(-3, 4, shape).astype(np.int16)
        same(f(x), np.unique(x, return_index=True, return_inverse=True, return_counts=True))
    same(pa.jit(lambda x: pa.unique(x[x > 0]))(np.array([3, -1, 3, 2], np.int8)), np.array([2, 3], np.int8))


MASKED = {dtype: pa.jit(lambda x, m: (x[m], pa.nonzero(m), pa.sum(x[m]))) for dtype in ("f8", "f4", "i8", "u1")}


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_any_mask(data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(sorted(MASKED)))
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=2, min_side=0, max_side=9))
    x = data.draw(hnp.arrays(np.dtype(dtype), shape, elements=st.integers(0, 90)))
    mask = data.draw(hnp.arrays(np.bool_, shape))
    values, places, total = MASKED[dtype](x, mask)
    np.testing.assert_array_equal(values, x[mask])
    for got, want in zip(places, np.nonzero(mask), strict=True):
        np.testing.assert_array_equal(got, want)
    assert total == x[mask].sum()


REPEATED = pa.jit(lambda x, c: pa.repeat(x, c))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(-9, 9), st.integers(0, 5)), max_size=20))
def test_any_counts(pairs: list[tuple[int, int]]) -> None:
    x, counts = np.array([p[0] for p in pairs], np.float64), np.array([p[1] for p in pairs], np.int64)
    np.testing.assert_array_equal(REPEATED(x, counts), np.repeat(x, counts))


def test_outside_of_compiled_functions() -> None:
    x = RNG.standard_normal((4, 5))
    same(pa.nonzero(x > 0), np.nonzero(x > 0))
    same(pa.compress(x[:, 0] > 0, x, axis=0), np.compress(x[:, 0] > 0, x, axis=0))
    same(pa.extract(x > 0, x), np.extract(x > 0, x))
    same(pa.argwhere(x > 0), np.argwhere(x > 0))


def test_results_own_their_memory() -> None:
    a = sp.random_array((5, 5), density=0.5, rng=np.random.default_rng(3), format="csr")
    before = a.copy()
    for part in pa.jit(lambda a: (*pa.nonzero(a), *pa.find(a)))(a):
        part[:] = 0
    same(a.toarray(), before.toarray())
    x = np.arange(4.0)
    f = pa.jit(lambda x: (x[x > -1], pa.nonzero(x > -1)[0]))
    for part in f(x):
        part[:] = 0
    same(f(x), (np.arange(4.0), np.arange(4)))


def test_threads_agree() -> None:
    x = RNG.standard_normal(100_000)
    f = pa.jit(lambda x: (x[x > 0.3], pa.sum(x[x > 0.3])))
    with pa.options(num_threads=1):
        one = f(x)
    with pa.options(num_threads=3):
        three = f(x)
    for a, b in zip(one, three):
        np.testing.assert_array_equal(a, b)


# -- what is refused

X = np.arange(6.0)
REFUSED: dict[str, tuple[type[Exception], str, Callable[[], Any]]] = {
    "a mask that is too short": (ShapeError, "a mask of shape", lambda: pa.jit(lambda x, m: x[m])(X, np.ones(5, bool))),
    "a mask of too many dimensions": (ShapeError, "a mask of shape", lambda: pa.jit(lambda x, m: x[m])(X, np.ones((6, 1), bool))),
    "a known mask that is too long": (ShapeError, "a mask of shape", lambda: pa.jit(lambda x: x[np.ones(7, bool)])(X)),
    "a mask of floats": (TraceError, "an index array of type f64", lambda: pa.jit(lambda x, m: x[m])(X, np.ones(6))),
    "True as an index": (TraceError, "a boolean as an index", lambda: pa.jit(lambda x: x[True])(X)),
    "nonzero of a scalar": (ShapeError, "nonzero of a scalar", lambda: pa.jit(lambda x: pa.nonzero(pa.sum(x)))(X)),
    "sizes that differ": (ShapeError, r"count_nonzero\(x > 1.0\) == count_nonzero\(x > 2.0\) does not hold: 4 == 3", lambda: pa.jit(lambda x: x[x > 1] + x[x > 2])(X)),
    "another size": (ShapeError, r"count_nonzero\(x > 1.0\) == 3 does not hold: 4 == 3", lambda: pa.jit(lambda x: x[x > 1] + np.ones(3))(X)),
    "the largest of none": (ShapeError, r"count_nonzero\(x > 9.0\) >= 1 does not hold", lambda: pa.jit(lambda x: pa.max(x[x > 9]))(X)),
    "the first of none": (ShapeError, "does not hold", lambda: pa.jit(lambda x: x[x > 9][0])(X)),
    "a decision": (TraceError, "is known only when the kernel runs", lambda: pa.jit(lambda x: x if x[x > 1].shape[0] > 2 else -x)(X)),
    "a Python loop": (TraceError, "data decide the size", lambda: pa.jit(lambda x: sum(v for v in x[x > 1]))(X)),
    "a while loop": (UnsupportedError, "outside of the loop", lambda: pa.jit(lambda x: pa.fori_loop(0, 3, lambda i, s: s + pa.sum(pa.repeat(x, pa.astype(x, int))), pa.sum(x)))(X)),
    "negative counts": (ShapeError, "count -1 for element 1", lambda: pa.jit(pa.repeat)(np.ones(3), np.array([2, -1, 2]))),
    "known negative counts": (ShapeError, "count -1", lambda: pa.jit(lambda x: pa.repeat(x, np.array([2, -1, 2])))(np.ones(3))),
    "counts that overflow": (ShapeError, r"2\*\*63", lambda: pa.jit(pa.repeat)(np.ones(3), np.full(3, 1 << 62))),
    "counts beyond memory": (ShapeError, "bytes", lambda: pa.jit(pa.repeat)(np.ones(3), np.array([1 << 58, 1, 1]))),
    "too few counts": (ShapeError, "one count for each element", lambda: pa.jit(pa.repeat)(np.ones(3), np.ones(2, int))),
    "counts of floats": (DTypeError, "counts are integers", lambda: pa.jit(pa.repeat)(np.ones(3), np.ones(3))),
    "counts in a matrix": (ShapeError, "vector", lambda: pa.jit(pa.repeat)(np.ones(3), np.ones((3, 1), int))),
    "a long condition": (ShapeError, "compress", lambda: pa.jit(pa.compress)(np.ones(7, bool), X)),
    "order of complex numbers": (DTypeError, "complex numbers have no order", lambda: pa.jit(pa.sort)(X + 1j)),
    "an array for a result": (ShapeError, "out cannot receive", lambda: pa.jit(lambda x: x[x > 1])(X, out=np.zeros(4))),
    "a pattern of a mask": (UnsupportedError, "selects by values", lambda: pa.pattern(lambda a: a[pa.sum(a, axis=1) > 0] @ a, sp.eye_array(3, format="csr"))),
    "order of a scalar": (ShapeError, "argsort of a scalar", lambda: pa.jit(lambda x: pa.argsort(pa.sum(x)))(X)),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_bad_input(what: str) -> None:
    error, text, call = REFUSED[what]
    with pytest.raises(error, match=text) as found:
        call()
    assert "try: " in str(found.value)


def test_a_call_after_a_refused_one() -> None:
    f = pa.jit(lambda x: pa.max(x[x > 1]))
    for _ in range(2):
        with pytest.raises(ShapeError):
            f(-X)
        assert f(X) == 5.0
    assert len(f.report().kernels) == 1


@pytest.mark.parametrize("kind", ["dia", "bsr", "ell", "coo"])
def test_selections_beside_matrices_of_other_formats(kind: str) -> None:
    """What a phase counts is a size to the next one, which need not know the tensor that was counted."""
    rng = np.random.default_rng(5)
    a = sp.random_array((12, 12), density=0.3, format="csr", rng=rng)
    b, mask, x = sp.random_array((12, 5), density=0.4, format="csr", rng=rng), rng.random(12) < 0.5, rng.random(12)
    given = pa.asformat(a, kind) if kind == "ell" else a.asformat(kind)
    product, chosen = pa.jit(lambda a, b, mask, x: (a @ x, b[mask]))(given, b, mask, x)
    np.testing.assert_allclose(product, a @ x)
    np.testing.assert_array_equal(chosen.toarray(), b.toarray()[mask])
