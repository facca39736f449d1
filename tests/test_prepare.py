"""A prepared matrix gives the results of the matrix it was made from, whatever layout was chosen, and does not change any more."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

import polyai as pa
from polyai.api.preparing import LAYOUTS
from polyai.datasets import stencil
from polyai.runtime.dispatch import calls_of
from polyai.sparse import choose, inspector
from polyai.sparse.layouts import GAPS, REPEATS, diagonals_layout
from polyai.sparse.owned import frozen
from polyai.sparse.prepared import Prepared
from polyai.sparse.stats import rows_of
from tests.structured_matrices import MATRICES, blocks, many_diagonals, ragged, scattered, varied


@pytest.fixture(autouse=True, scope="module")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pa.options(cache_dir=str(tmp_path_factory.mktemp("cache"))):
        yield


COLUMNS = (1, 5, 7, 8, 33)


def close(got: Any, matrix: Any, x: Any) -> None:
    """`got` is matrix @ x up to the rounding of its sums."""
    exact = matrix.astype(np.float64) @ x.astype(np.float64)
    bound = abs(matrix.astype(np.float64)) @ abs(x.astype(np.float64))
    terms = max(1, int(np.diff(matrix.indptr).max(initial=0)))
    np.testing.assert_array_less(abs(np.asarray(got, np.float64) - exact), (terms + 2) * np.finfo(matrix.dtype).eps * bound + 1e-300)


@pa.jit
def product(A: Any, x: Any) -> Any:
    return A @ x


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", MATRICES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_that_can_hold_it_gives_the_same_product(layout: str, name: str, dtype: Any) -> None:
    matrix = MATRICES[name](dtype)
    rng = np.random.default_rng(1)
    try:
        prepared = pa.prepare(matrix, layout=layout, measure=False)
    except pa.errors.OptionError as error:
        if layout == "narrow rows":
            assert name == "wide", error  # more columns than 16 bits can number, and more than one value
            return
        assert layout.endswith("diagonals") and (layout == "sliced diagonals" or name not in ("stencil", "banded", "one", "varied", "many diagonals")), error
        assert layout == "diagonals" or name not in ("stencil", "banded", "blocks", "triangle", "varied", "many diagonals"), error
        return
    assert prepared.choice.best.layout == ("slices" if layout == "sorted slices" else layout) and prepared.choice.forced
    for threads in (1, 2):
        with pa.options(num_threads=threads):
            x = rng.standard_normal(matrix.shape[1]).astype(dtype)
            close(product(prepared, x), matrix, x)
            X = rng.standard_normal((matrix.shape[1], COLUMNS[len(name) % len(COLUMNS)])).astype(dtype)
            np.testing.assert_allclose(product(prepared, X), matrix @ X, rtol=1e-3 if dtype == np.float32 else 1e-10, atol=1e-4)


def test_the_measured_choice_is_one_of_the_candidates_and_says_what_it_cost() -> None:
    matrix = ragged(np.float64)
    prepared = pa.prepare(matrix, threads=1)
    choice = prepared.choice
    assert choice.best in choice.candidates and choice.best.measured is not None and choice.seconds > 0
    assert choice.best.seconds == min(c.seconds for c in choice.candidates if c.measured is not None)
    assert choice.unprepared is not None and 0 < choice.compiling < choice.seconds
    gain = choice.unprepared - choice.best.seconds
    for after, cost in ((choice.break_even, choice.seconds - choice.compiling), (choice.break_even_cold, choice.seconds)):
        assert after is None if gain <= 0 else (after - 1) * gain < cost <= after * gain * (1 + 1e-9)
    assert "<- chosen" in str(choice) and ("paid back after" in str(choice) or "paid back never" in str(choice))
    close(product(prepared, np.ones(90)), matrix, np.ones(90))


def test_explain_shows_the_candidates_and_the_program_of_the_layout() -> None:
    prepared = pa.prepare(stencil(5, (20, 20)), layout="diagonals", measure=False)
    shown = pa.explain(product, prepared, np.ones(400))
    assert "<- chosen, as asked" in shown["prepared"] and "not known when that is paid back" in shown["prepared"]
    assert "paid back" in pa.explain(product, pa.prepare(stencil(5, (20, 20))), np.ones(400))["prepared"]
    assert "A_constants" in shown["mathematics"] and "check" not in shown["tidy"]


def test_other_operations_use_the_rows() -> None:
    matrix = ragged(np.float64)
    prepared = pa.prepare(matrix, layout="sorted slices", measure=False)
    rng = np.random.default_rng(3)
    d, x, b = rng.standard_normal((321, 1)), rng.standard_normal(90), rng.standard_normal(321)

    @pa.jit
    def scaled(A: Any, d: Any) -> Any:
        return A * d

    @pa.jit
    def layer(A: Any, x: Any, b: Any) -> Any:
        return pa.relu(A @ x + b)

    @pa.jit
    def weights(A: Any) -> Any:
        return pa.softmax(A)

    np.testing.assert_allclose(scaled(prepared, d).toarray(), matrix.toarray() * d)
    np.testing.assert_allclose(layer(prepared, x, b), np.maximum(matrix @ x + b, 0), atol=1e-12)
    np.testing.assert_allclose(weights(prepared).toarray(), weights(matrix).toarray())
    np.testing.assert_allclose(layer(b=b, x=x, A=prepared), np.maximum(matrix @ x + b, 0), atol=1e-12)
    out = np.empty(321)
    assert product(prepared, x, out=out) is out
    close(out, matrix, x)


SPARSE_OPERATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "A + B": lambda A, B: A + B,
    "A * B": lambda A, B: A * B,
    "A - 2 * B": lambda A, B: A - 2 * B,
    "A @ B.T": lambda A, B: A @ B.T,
    "A.T @ B": lambda A, B: A.T @ B,
    "A + A": lambda A, B: A + A,
    "(A + B) @ A.T": lambda A, B: (A + B) @ A.T,
}


@pytest.mark.parametrize("which", ["both", "left", "right"])
@pytest.mark.parametrize("text", SPARSE_OPERATIONS)
def test_sparse_results_are_those_of_the_matrices_it_was_made_from(text: str, which: str) -> None:
    f = SPARSE_OPERATIONS[text]
    for seed, (n, m, density) in enumerate([(61, 47, 0.1), (5, 300, 0.02), (1, 1, 1.0), (30, 4, 0.0)]):
        A, B = scattered(n, m, density, np.float64, seed), scattered(n, m, 0.1, np.float64, seed + 10)
        given = [pa.prepare(M, layout="sorted slices" if M.nnz else None, measure=False) if which in ("both", side) else M for M, side in ((A, "left"), (B, "right"))]
        got = pa.jit(f)(*given)
        np.testing.assert_allclose(got.toarray(), f(A, B).toarray(), rtol=1e-12, atol=1e-12)
        assert not any(np.may_share_memory(mine, theirs) for mine in (got.indptr, got.indices, got.data) for theirs in (A.data, A.indices, B.data, B.indices))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_transposed_it_multiplies_vectors_and_matrices(layout: str) -> None:
    matrix = stencil(5, (9, 8)) if layout.endswith("diagonals") else ragged(np.float64)
    prepared = pa.prepare(matrix, layout=layout, measure=False)
    rng = np.random.default_rng(4)
    x, X = rng.standard_normal(matrix.shape[0]), rng.standard_normal((matrix.shape[0], 3))
    for f in (lambda A, x: A.T @ x, lambda A, x: x.T @ A):
        np.testing.assert_allclose(pa.jit(f)(prepared, x), f(matrix, x), rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(pa.jit(f)(prepared, X), f(matrix, X), rtol=1e-12, atol=1e-12)


def test_a_result_along_its_pattern_does_not_share_its_arrays() -> None:
    matrix = ragged(np.float64)
    prepared = pa.prepare(matrix, layout="rows", measure=False)
    twice = pa.jit(lambda A: A * 2.0)(prepared)
    twice.indices[:] = 0
    twice.data[:] = 0
    np.testing.assert_array_equal(prepared.matrix.indices, matrix.indices)
    np.testing.assert_allclose(pa.jit(lambda A: A * 2.0)(prepared).toarray(), 2 * matrix.toarray())


def test_its_kernels_are_reported_warmed_and_bound_by_relations() -> None:
    matrix = ragged(np.float64)
    prepared = pa.prepare(matrix, layout="sorted slices", measure=False)
    n, k = pa.dim("n", max=100), pa.dim("k")
    f = pa.jit(lambda A, x: A @ x, name="f", dynamic={"A": {0: k, 1: n}, "x": {0: n}}, where=[n <= k])
    assert len(f.warm(prepared, np.ones(90)).kernels) == 1
    np.testing.assert_allclose(f(prepared, np.ones(90)), matrix @ np.ones(90))
    assert len(f.reasons) == 1 and "1 kernels" in repr(f) and f.guards
    wide = pa.prepare(scattered(20, 90, 0.1, np.float64), layout="sorted slices", measure=False)
    with pytest.raises(pa.errors.GuardError, match="n <= k"):
        f(wide, np.ones(90))


def test_patterns_are_assembled_once_for_it_and_masks_select() -> None:
    A, B, M = (scattered(40, 40, 0.1, np.float64, seed) for seed in range(3))
    prepared = [pa.prepare(X, layout="sorted slices", measure=False) for X in (A, B, M)]
    again = pa.pattern(lambda A, B: A @ B, prepared[0], B)
    np.testing.assert_allclose(again(prepared[0], 3 * B).toarray(), 3 * (A @ B).toarray(), rtol=1e-12, atol=1e-12)
    with pytest.raises(pa.errors.SparseStructureError, match="A is stored as"):
        again(A, B)  # its kernels would trust arrays that anybody may change
    masked = pa.jit(lambda A, B, M: pa.matmul(A, B, mask=M))(*prepared)
    np.testing.assert_allclose(masked.toarray(), (A @ B).toarray() * (M.toarray() != 0), rtol=1e-12, atol=1e-12)


def test_operands_of_other_formats_meet_it() -> None:
    A, B = scattered(40, 30, 0.1, np.float64, 1), scattered(40, 30, 0.1, np.float64, 2)
    prepared = pa.prepare(A, layout="sorted slices", measure=False)
    unsorted = sp.csr_array((B.data[::-1].copy(), B.indices[::-1].copy(), np.concatenate([[0], np.cumsum(np.diff(B.indptr)[::-1])])), shape=B.shape)
    others = [B.asformat(kind) for kind in ("csc", "coo", "dia", "bsr")]
    for other in (*others, B.tobsr((2, 2)), unsorted):
        got = pa.jit(lambda A, B: A + B)(prepared, other)
        B = other.tocsr()
        np.testing.assert_allclose(got.toarray(), (A + B).toarray(), rtol=1e-12, atol=1e-12)


def test_it_converts() -> None:
    matrix = ragged(np.float64)
    prepared = pa.prepare(matrix, layout="slices", measure=False)
    np.testing.assert_array_equal(pa.asformat(prepared, "csc").toarray(), matrix.toarray())

@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_change_of_the_original_does_not_reach_it(layout: str) -> None:
    matrix = stencil(5, (12, 12))
    x = np.random.default_rng(0).standard_normal(144)
    prepared = pa.prepare(matrix, layout=layout, measure=False)
    before = np.asarray(product(prepared, x)).copy()
    matrix.data[:] = np.nan
    matrix.indices[:] = 10**6
    matrix.indptr[1:-1] = -5
    np.testing.assert_array_equal(product(prepared, x), before)


def test_its_arrays_cannot_be_made_writable() -> None:
    prepared = pa.prepare(ragged(np.float64), layout="sorted slices", measure=False)
    arrays = [prepared.matrix.indptr, prepared.matrix.indices, prepared.matrix.data, *(a for n, a in prepared.layout.arrays if isinstance(a, np.ndarray))]
    for array in arrays:
        assert not array.flags.writeable
        with pytest.raises(ValueError):
            array.flags.writeable = True
    original = np.arange(5)
    assert not np.may_share_memory(frozen(original), original)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_infinite_and_nan_elements_stay_in_the_rows_that_store_them(layout: str) -> None:
    matrix = blocks(np.float64) if layout == "sliced diagonals" else stencil(5, (6, 6)) if layout == "diagonals" else ragged(np.float64)
    infinite_stays(matrix, layout)
    if layout == "diagonals":
        infinite_stays(varied(np.float64), layout)


def infinite_stays(matrix: Any, layout: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        prepared = pa.prepare(matrix, layout=layout, measure=False)
        for value in (np.inf, np.nan):
            for place in range(0, matrix.shape[1], 5):  # 5: a diagonal has a gap there, at the boundary of the grid
                x = np.ones(matrix.shape[1])
                x[place] = value
                np.testing.assert_array_equal(np.isfinite(np.asarray(product(prepared, x))), np.isfinite(matrix @ x))


def test_a_diagonal_of_equal_entries_takes_one_value_and_one_with_gaps_a_bit_a_row() -> None:
    layout = pa.prepare(varied(np.float64), layout="diagonals", measure=False).layout
    arrays = dict(layout.arrays)
    assert layout.numbers == (-9, GAPS, -2, REPEATS, 0, 0, 1, REPEATS + GAPS, 25, REPEATS + GAPS, 30, 0)
    assert arrays["values"].shape == (3, 150) and arrays["constants"].tolist() == [1.5] * 3 and arrays["rest"].nnz == 1
    assert arrays["present"].dtype == np.uint8 and arrays["present"][:9].max() < 8
    wide = dict(pa.prepare(many_diagonals(np.float32), layout="diagonals", measure=False).layout.arrays)
    assert wide["present"].dtype == np.uint64
    corners = sp.csr_array(([1.0, 2.0, 2.0], ([0, 149, 4], [169, 0, 4])), shape=(150, 170))
    made = diagonals_layout(rows_of(corners), (-149, 169))
    assert made.numbers == (-149, REPEATS, 169, REPEATS) and dict(made.arrays)["rest"].nnz == 1


def test_elements_of_x_at_diagonals_are_read_without_masks() -> None:
    """The bits of gaps say nothing about where x ends: inside the matrix whole vectors are read, and gaps selected away after."""
    for matrix in (stencil(5, (40, 40)), many_diagonals(np.float64)):
        shown = pa.explain(product, pa.prepare(matrix, layout="diagonals", measure=False), np.ones(matrix.shape[1]))["tidy"]
        inner = shown.split("step", 1)[1].split("else:", 1)[0]
        assert "x[ramp(" in inner and ")] if " not in inner


def test_a_zero_that_is_stored_is_an_entry() -> None:
    matrix = stencil(5, (6, 6))
    matrix.data[7] = 0.0
    x = np.full(36, np.inf)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        got = np.asarray(product(pa.prepare(matrix, layout="diagonals", measure=False), x))
        np.testing.assert_array_equal(np.isnan(got), np.isnan(matrix @ x))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("layout", ["narrow rows", "slices", "sorted slices", "sliced diagonals"])
def test_equal_entries_are_stored_once(layout: str, dtype: Any) -> None:
    for name in ("ragged", "blocks", "wide"):
        if layout == "sliced diagonals" and name != "blocks":
            continue
        matrix = MATRICES[name](dtype)
        matrix.data[:] = 0.3
        prepared = pa.prepare(matrix, layout=layout, measure=False)
        assert [n for n, _ in prepared.layout.arrays if "value" in n] == ["value"]
        x = np.random.default_rng(2).standard_normal(matrix.shape[1]).astype(dtype)
        close(product(prepared, x), matrix, x)
        matrix.data[1] = -0.3
        if layout == "narrow rows" and name == "wide":
            continue
        assert "value" not in dict(pa.prepare(matrix, layout=layout, measure=False).layout.arrays)


def test_repeated_and_unsorted_entries_are_added() -> None:
    twice = sp.coo_array((np.array([1.0, 2.0, 4.0, 8.0]), ([0, 0, 1, 0], [1, 1, 0, 0])), shape=(2, 2))
    unsorted = sp.csr_array((np.array([1.0, 2.0]), np.array([1, 0]), np.array([0, 2, 2])), shape=(2, 2))
    x = np.array([1.0, 10.0])
    for layout in ("rows", "slices", "sorted slices"):
        np.testing.assert_array_equal(product(pa.prepare(twice, layout=layout, measure=False), x), [38.0, 4.0])
        np.testing.assert_array_equal(product(pa.prepare(unsorted, layout=layout, measure=False), x), [12.0, 0.0])


@pytest.mark.parametrize("kind", ["csr", "csc", "coo", "bsr", "dia", "lil", "dok"])
def test_every_kind_of_scipy_is_taken(kind: str) -> None:
    matrix = scattered(40, 30, 0.2, np.float64)
    x = np.random.default_rng(0).standard_normal(30)
    close(product(pa.prepare(matrix.asformat(kind), layout="slices", measure=False), x), matrix, x)


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (5, 0), (4, 4)])
def test_nothing_stored(shape: tuple[int, int]) -> None:
    prepared = pa.prepare(sp.csr_array(shape), measure=False)
    np.testing.assert_array_equal(product(prepared, np.ones(shape[1])), np.zeros(shape[0]))


def test_bad_input() -> None:
    matrix = scattered(6, 6, 0.5, np.float64)
    with pytest.raises(pa.errors.ShapeError, match="prepare needs a sparse matrix"):
        pa.prepare(np.eye(3))
    with pytest.raises(pa.errors.DTypeError, match="elements of type i64"):
        pa.prepare(matrix.astype(np.int64))
    with pytest.raises(pa.errors.OptionError, match="layout 'blue'"):
        pa.prepare(matrix, layout="blue")
    with pytest.raises(pa.errors.OptionError, match="cannot hold this matrix"):
        pa.prepare(scattered(60, 60, 0.1, np.float64), layout="diagonals")
    with pytest.raises(pa.errors.OptionError, match="prepare for 'gemm'"):
        pa.prepare(matrix, "gemm")
    with pytest.raises(pa.errors.OptionError, match="threads=0"):
        pa.prepare(matrix, threads=0)
    broken = matrix.copy()
    broken.indices[0] = 99
    with pytest.raises(pa.errors.SparseStructureError):
        pa.prepare(broken)
    prepared = pa.prepare(matrix, layout="slices", measure=False)
    with pytest.raises(pa.errors.ShapeError, match="6 are needed"):
        product(prepared, np.ones(7))
    with pytest.raises(pa.errors.UnsupportedError, match="argument of compiled functions"):
        prepared @ np.ones(6)
    with pytest.raises(pa.errors.TraceError, match="inside a container"):
        pa.jit(lambda p: p["A"] @ p["x"])({"A": prepared, "x": np.ones(6)})


def test_one_kernel_serves_all_matrices_of_a_layout() -> None:
    @pa.jit
    def fresh(A: Any, x: Any) -> Any:
        return A @ x + 1.0

    first = pa.prepare(scattered(149, 90, 0.1, np.float64, 9), layout="sorted slices", measure=False)
    fresh(first, np.ones(90))
    before = pa.stats()["compiles"]
    for seed in range(3):
        matrix = scattered(150 + seed, 80, 0.1, np.float64, seed)
        prepared = pa.prepare(matrix, layout="sorted slices", measure=False)
        np.testing.assert_allclose(fresh(prepared, np.ones(80)), matrix @ np.ones(80) + 1.0)
    assert pa.stats()["compiles"] == before


def test_rows_that_name_what_is_near_ask_for_nothing_early() -> None:
    matrix = stencil(5, (100, 120), dtype=np.float32)
    X = np.random.default_rng(4).standard_normal((12000, 32)).astype(np.float32)
    for layout, hints in (("rows", True), ("near rows", False)):
        prepared = pa.prepare(matrix, "spmm", layout=layout, measure=False)
        assert ("prefetch" in pa.explain(product, prepared, X)["tidy"]) == hints
        np.testing.assert_allclose(product(prepared, X), matrix @ X, rtol=1e-4, atol=1e-4)
    choice = pa.prepare(matrix, "spmm").choice
    assert [c.layout for c in choice.candidates] == ["rows", "near rows"] and all(c.measured for c in choice.candidates)
    assert choice.unprepared is not None


@pytest.mark.parametrize("native", [True, False])
def test_calls_with_it_are_dispatched_like_plain_ones(native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("polyai.runtime.dispatch.layout_holds", lambda: native)
    f = pa.jit(lambda A, x, b: A @ x + b, name="shifted")
    matrix = MATRICES["ragged"](np.float64)
    x, b = np.random.default_rng(3).standard_normal(matrix.shape[1]), np.ones(matrix.shape[0])
    made = {layout: pa.prepare(matrix, layout=layout, measure=False) for layout in ("rows", "narrow rows", "slices")}
    f(made["slices"], x, b)
    before = calls_of(f._fast)
    for _ in range(3):
        np.testing.assert_allclose(f(made["slices"], x, b), matrix @ x + 1, rtol=1e-12)
    out = np.empty(matrix.shape[0])
    assert f(made["slices"], x, b, out=out) is out
    np.testing.assert_allclose(out, matrix @ x + 1, rtol=1e-12)
    assert calls_of(f._fast) == (before[0] + 4, before[1])
    for _ in range(2):  # several layouts, the matrix itself, and another of the same layout meet one function
        for A in (*made.values(), matrix, pa.prepare(2 * matrix, layout="slices", measure=False)):
            np.testing.assert_allclose(f(A, x, b), (A.matrix.data[0] / matrix.data[0] if isinstance(A, Prepared) else 1) * (matrix @ x) + 1, rtol=1e-12)
    assert sum(k.hits for k in f.report().kernels) >= 14
    with pytest.raises(pa.errors.ShapeError):
        f(made["slices"], x[1:], b)


def test_many_threads_may_use_and_make_it() -> None:
    matrix = ragged(np.float64)
    prepared = pa.prepare(matrix, layout="sorted slices", measure=False)
    x = np.random.default_rng(0).standard_normal(90)
    wanted = np.asarray(product(prepared, x)).copy()
    failures: list[Any] = []

    def work() -> None:
        try:
            mine = pa.prepare(matrix, layout="slices", measure=False)
            for _ in range(20):
                if not np.array_equal(product(prepared, x), wanted):
                    failures.append("another result")
                close(product(mine, x), matrix, x)
        except Exception as error:  # the thread's failure is the test's
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failures


def test_few_candidates_are_measured_and_kernels_are_made_once_for_all_matrices() -> None:
    first = pa.prepare(scattered(400, 300, 0.1, np.float64)).choice
    kept = [c for c in first.candidates if c.measured is not None]
    assert 1 <= len(kept) <= choose.FEW and max(c.predicted for c in kept) <= choose.CLOSE * min(c.predicted for c in first.candidates)
    assert all((c.building is None) == (c.measured is None) for c in first.candidates)
    before = pa.stats()["compiles"]
    second = pa.prepare(scattered(410, 290, 0.1, np.float64, 1)).choice
    assert pa.stats()["compiles"] == before or {c.name for c in second.candidates if c.measured} != {c.name for c in kept}
    assert second.compiling < first.compiling


def test_the_model_prefers_what_the_structure_offers() -> None:
    def best(matrix: Any) -> str:
        return choose.in_question(choose.candidates(rows_of(matrix), 1))[0].name

    assert best(stencil(7, (20, 20, 20))) == "diagonals"
    assert best(scattered(4000, 4000, 0.002, np.float64)).startswith("slices")
    assert choose.dense_diagonals(rows_of(stencil(5, (9, 9)))) == ((-9, 72, 72), (-1, 72, 80), (0, 81, 81), (1, 72, 80), (9, 72, 72))
    assert choose.dense_diagonals(rows_of(ragged(np.float64))) == ()


@pytest.mark.parametrize("lanes", [1, 4, 8, 16])
@pytest.mark.parametrize("name", ["blocks", "banded", "ragged", "triangle", "empty rows"])
def test_runs_are_the_diagonals_that_all_rows_of_a_slice_store(name: str, lanes: int) -> None:
    rows = rows_of(MATRICES[name](np.float64))
    row = np.repeat(np.arange(rows.rows), rows.lengths)
    stored = set(zip(row.tolist(), rows.crd.tolist()))
    wanted = []
    for i, j in zip(row.tolist(), rows.crd.tolist()):
        first = i // lanes * lanes
        wanted.append(all((first + c, j - i + first + c) in stored for c in range(lanes)))
    np.testing.assert_array_equal(inspector.in_runs(row, rows.crd, lanes), wanted)


def test_the_results_of_slices_are_written_in_their_loop() -> None:
    """One parallel loop, without an array for all slices, although three sums meet there."""
    matrix = blocks(np.float64)
    prepared = pa.prepare(matrix, layout="sliced diagonals", measure=False)
    shown = pa.explain(product, prepared, np.ones(matrix.shape[1]))
    assert "product: in the loop over" in shown["decisions"]
    assert shown["tidy"].count(" parallel") == 1 and " kernel\n" not in shown["tidy"]
    assert "check" not in shown["tidy"]


def test_short_chains_of_sums_are_several_in_products_with_few_columns() -> None:
    matrix = scattered(40, 300, 0.4, np.float32)
    rng = np.random.default_rng(2)
    for columns in (1, 2, 8, 11, 16, 40):
        X = rng.standard_normal((300, columns)).astype(np.float32)
        close_to = matrix.astype(np.float64) @ X.astype(np.float64)
        bound = 130 * np.finfo(np.float32).eps * (abs(matrix) @ abs(X))
        for A in (matrix, pa.prepare(matrix, "spmm", measure=False)):
            assert (abs(np.asarray(product(A, X), np.float64) - close_to) <= bound).all()
    assert "step 4" in pa.explain(product, matrix, X)["tidy"]


def test_a_function_says_what_for(tmp_path: Path) -> None:
    matrix = stencil(5, (10, 10))
    assert pa.prepare(matrix, product, measure=False).choice.use == "spmv"
    assert pa.prepare(matrix, "spmm", measure=False).choice.best.layout == "near rows"  # a band
    assert pa.prepare(scattered(2000, 2000, 0.01, np.float64), "spmm", measure=False).choice.best.layout == "rows"
