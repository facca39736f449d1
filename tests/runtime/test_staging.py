"""Calls of several kernels: room for what was counted, errors where there is none, and the disk cache."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

import polyai as pa
from polyai.calls import phased
from polyai.errors import PolyAIError, ShapeError, SparseStructureError, UnsupportedError, VerifyError
from polyai.machine import parallel
from polyai.options import Options
from polyai.runtime import staging
from polyai.runtime.kernel import Kernel
from polyai.runtime.launch import Runtime

ROOT = Path(__file__).parent.parent.parent
RNG = np.random.default_rng(8)


def matrix(n: int = 30, m: int = 30, density: float = 0.2) -> Any:
    return sp.csr_array(np.where(RNG.random((n, m)) < density, RNG.standard_normal((n, m)), 0))


OPS: dict[str, Callable[..., Any]] = {
    "sum": lambda a, b: a + b,
    "intersection": lambda a, b: a * b,
    "product": lambda a, b: a @ b,
    "chain": lambda a, b: a @ b @ a,
}
CHAINS: dict[str, Callable[..., Any]] = {**OPS, "gram": lambda a, b: a.T @ b, "turned": lambda a, b: a + b.T}


def plan(bits: int, counts: str = "J") -> staging.Plan:
    return staging.Plan(2, counts, "", 1, bits, {})


@pytest.mark.parametrize("total", [2**31 - 1, 2**31, 2**40])
def test_more_elements_than_narrow_indices_count_are_refused(total: int) -> None:
    arrays: dict[str, Any] = {"J.pos1": np.array([0, total], np.int64)}
    values: dict[str, int] = {}
    if total == 2**31 - 1:
        staging._counted(plan(32), arrays, values)
        assert arrays["J.pos1"].dtype == np.int32 and arrays["J.pos1"].tolist() == [0, total]
    else:
        with pytest.raises(UnsupportedError, match=f"the result would store {total} elements") as found:
            staging._counted(plan(32), arrays, values)
        assert "int64" in found.value.remedy
        staging._counted(plan(64), arrays, values)
        assert arrays["J.pos1"].dtype == np.int64
    assert values["J.nnz"] == total


@pytest.mark.parametrize("op", OPS)
def test_a_result_that_memory_cannot_hold_is_an_error_before_it_is_allocated(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = matrix(), matrix()
    monkeypatch.setattr(staging, "SMALL", 0)  # native calls hand on what is larger
    function = pa.jit(OPS[op])
    function(a, b)
    monkeypatch.setattr(staging, "LARGE", 0)
    free = iter([10, 1 << 30])  # not enough for the bounds; then the row pointers fit, what is stored does not
    monkeypatch.setattr(staging, "memory_available", lambda: next(free, 10))
    with pytest.raises(ShapeError, match=r"would take [0-9,]+ bytes") as found:
        function(a, b)
    assert "10 bytes of memory are free" in str(found.value)
    monkeypatch.setattr(staging, "memory_available", lambda: None)  # a system that does not say
    np.testing.assert_allclose(function(a, b).toarray(), OPS[op](a, b).toarray(), atol=1e-12)


@pytest.mark.parametrize("op", OPS)
def test_patterns_whose_bounds_need_too_much_room_are_counted(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound of a row is what its operands store, or every product: the result fits in memory that this would fill."""
    a, b = matrix(60, 60), matrix(60, 60)
    monkeypatch.setattr(staging, "SMALL", 0)
    wanted, ran = OPS[op](a, b), []
    original = Runtime.launch

    def launch(self: Runtime, kernel: Kernel, *rest: Any) -> Any:
        plan = staging.plan_of(kernel)
        ran.append("packed" if any(p.name.endswith(".cuts") for p in kernel.signature.parameters) else "counts" if plan and plan.counts else "fills")
        return original(self, kernel, *rest)

    monkeypatch.setattr(Runtime, "launch", launch)
    function = pa.jit(OPS[op])
    for free, packed in ((1 << 40, True), (max(wanted.nnz * 12, 61 * 8) + 1, False)):
        monkeypatch.setattr(staging, "memory_available", lambda free=free: free)
        ran.clear()
        before = pa.stats().get("counted_first", 0)
        found = function(a, b)
        np.testing.assert_allclose(found.toarray(), wanted.toarray(), atol=1e-12)
        assert ("packed" in ran) is packed
        assert (pa.stats().get("counted_first", 0) > before) is not packed


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("op", OPS)
def test_parts_of_the_rows_leave_no_gap(op: str, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of very different length, in as many parts as there are rows: positions and elements are SciPy's."""
    monkeypatch.setattr(staging, "PART", 1)
    a, b = (np.where(RNG.random((40, 40)) < np.linspace(0, 1, 40)[::step, None] ** 4, RNG.integers(1, 9, (40, 40)), 0) for step in (1, -1))
    a[3:9] = 0
    x, y = sp.csr_array(a.astype(float)), sp.csr_array(b.astype(float))
    with pa.options(num_threads=threads):
        found, wanted = pa.jit(OPS[op])(x, y), OPS[op](x, y)
    wanted.sort_indices()
    np.testing.assert_array_equal(found.indptr, wanted.indptr)
    np.testing.assert_array_equal(found.indices, wanted.indices)
    np.testing.assert_array_equal(found.data, wanted.data)


@pytest.mark.parametrize("op", OPS)
def test_results_of_many_parts(op: str) -> None:
    """Parts that are finished in any order stand in the order of the rows."""
    a, b = (sp.random_array((2000, 2000), density=0.01, format="csr", rng=seed) for seed in (1, 2))
    b.data[:] = np.round(b.data * 8)
    with pa.options(num_threads=4):
        found, wanted = pa.jit(OPS[op])(a, b), OPS[op](a, b)
    wanted.sort_indices()
    assert found.nnz >= wanted.nnz and (op == "intersection" or found.nnz * 12 > 40 * 4096)
    assert abs(found - wanted).max() < 1e-9
    assert found.has_sorted_indices and (np.diff(found.indptr) >= 0).all()


@pytest.mark.parametrize("alike", [False, True])
def test_parts_that_nobody_waits_for_go_to_their_place_afterwards(alike: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every part is late: no turn is ever found to have come."""
    monkeypatch.setattr(parallel, "PATIENCE", 0)
    never = parallel.TURN.replace("br i1 %ready, label %go, label %patient", "br label %patient")
    assert never != parallel.TURN
    monkeypatch.setattr(parallel, "TURN", never)
    monkeypatch.setattr(staging, "PART", 200)
    scale = 1.25 + alike  # a program of its own: others are compiled with patience
    functions = (pa.jit(lambda a, b: a * scale + b), pa.jit(lambda a, b: (a @ b) * scale))
    with pa.options(num_threads=4):
        for seed in range(15):
            a, b = (sp.random_array((300, 300), density=0.05, format="csr", rng=seed + (0 if alike else n)) for n in (0, 100))
            for function, wanted in zip(functions, (a * scale + b, (a @ b) * scale)):
                found = function(a, b)
                wanted.sort_indices()
                np.testing.assert_array_equal(found.indptr, wanted.indptr)
                np.testing.assert_array_equal(found.indices, wanted.indices)
                np.testing.assert_allclose(found.data, wanted.data, rtol=1e-13)


@pytest.mark.parametrize("row", [0, 3, 20, 39])
def test_parts_that_wait_for_one_that_fails_are_let_go(row: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "PART", 1)
    add = pa.jit(lambda a, b: a + b)
    with pa.options(num_threads=4):
        for again in range(20):
            a, b = (sp.csr_array(RNG.random((40, 40)) + 1) for _ in range(2))
            add(a, b)
            place = 40 * row + again
            a.indices[place] = 1 << 30
            with pytest.raises(SparseStructureError, match=str(1 << 30)):
                add(a, b)
            a.indices[place] = again
            np.testing.assert_allclose(add(a, b).toarray(), a.toarray() + b.toarray())


@pytest.mark.parametrize("threads", [1, 3])
def test_operands_of_the_same_pattern(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts whose rows are alike run as one; in a part with a row that is not, each row is merged."""
    monkeypatch.setattr(staging, "PART", 60)
    dense = np.where(RNG.random((50, 37)) < 0.4, 1.0, 0.0)
    dense[[4, 5, 17, 49]] = 0
    functions = [pa.jit(f) for f in (lambda a, b: a + 2 * b, lambda a, b: a * b, lambda a, b: pa.maximum(a, b) - a)]
    with pa.options(num_threads=threads):
        for different in (0, 1, 7):
            other = dense.copy()
            for k in range(different):
                row = int(RNG.integers(50))
                other[row] = np.roll(other[row], 1) if k % 2 else 0
            a, b = (sp.csr_array(np.where(p != 0, RNG.random(p.shape) + 1, 0)) for p in (dense, other))
            x, y = a.toarray(), b.toarray()
            for function, wanted in zip(functions, (x + 2 * y, x * y, np.maximum(x, y) - x)):
                found = function(a, b)
                np.testing.assert_allclose(found.toarray(), wanted, atol=1e-15)
                assert found.has_canonical_format and (np.diff(found.indptr) >= 0).all()
                for lower, upper in zip(found.indptr, found.indptr[1:]):
                    assert (np.diff(found.indices[lower:upper]) > 0).all()
            if not different:
                assert np.array_equal(functions[0](a, b).indices, a.indices) and np.array_equal(functions[0](a, b).indptr, a.indptr)


@pytest.mark.parametrize("spoil", ["descending", "repeated", "negative", "outside", "pointer"])
def test_operands_that_are_alike_and_broken_are_refused(spoil: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "PART", 60)
    a = sp.csr_array(np.where(RNG.random((40, 30)) < 0.5, 1.0, 0.0))
    row = 21
    first, last = a.indptr[row], a.indptr[row + 1]
    assert last - first > 2
    if spoil == "descending":
        a.indices[first : first + 2] = a.indices[first : first + 2][::-1].copy()
    elif spoil == "repeated":
        a.indices[first + 1] = a.indices[first]
    elif spoil == "negative":
        a.indices[first] = -1
    elif spoil == "outside":
        a.indices[last - 1] = 30
    else:
        a.indptr[row] = a.indptr[row + 1] + 1
    add = pa.jit(lambda a, b: a + b)
    if spoil in ("descending", "repeated"):  # put right in a copy
        np.testing.assert_allclose(add(a, a).toarray(), 2 * a.toarray())
    else:
        with pytest.raises(SparseStructureError):
            add(a, a.copy())


def test_what_memory_is_free_is_a_positive_number() -> None:
    free = staging.memory_available()
    assert free is None or free > 1 << 20


Change = Callable[[Any], None]


def _more(a: Any) -> None:
    """Columns that were nowhere before."""
    a.indices[:] = (a.indices + 1) % a.shape[1]
    a.sort_indices()


def _outside(a: Any) -> None:
    a.indices[-1] = 2**30


def _backwards(a: Any) -> None:
    a.indices[:] = a.indices[::-1].copy()


def _rows(a: Any) -> None:
    a.indptr[1:-1] = a.indptr[-1]


def _pointers(a: Any) -> None:
    a.indptr[5] = -7


@pytest.mark.parametrize("alike", [False, True])
@pytest.mark.parametrize("op", CHAINS)
@pytest.mark.parametrize("change", [_more, _outside, _backwards, _rows, _pointers])
def test_an_operand_that_changes_between_the_phases_is_reported_and_does_no_harm(
    op: str, change: Change, alike: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever indices hold when the second kernel reads them: an error, or a result whose structure is sound."""
    a = matrix()
    b = a.copy() if alike else matrix()
    calls, armed = [0], [False]
    launch = Runtime.launch

    def strike(kernel: Kernel) -> None:
        phase = staging.plan_of(kernel)
        if armed[0] and phase is not None and phase.fills and not calls[0]:
            calls[0] += 1
            change(a)

    def launched(self: Runtime, kernel: Kernel, *rest: Any) -> Any:
        strike(kernel)
        return launch(self, kernel, *rest)

    monkeypatch.setattr(Runtime, "launch", launched)
    monkeypatch.setattr(phased, "native", lambda *_: None)  # calls of one kernel after another, in Python
    function = pa.jit(CHAINS[op])
    function(a, b)
    function(a, b)
    armed[0] = True
    try:
        found = function(a, b)
    except PolyAIError as error:
        assert isinstance(error, SparseStructureError) or "index" in str(error)
    else:
        assert found.shape == (30, 30)
        assert found.indptr[0] == 0 and found.indptr[-1] == len(found.indices) == len(found.data) and (np.diff(found.indptr) >= 0).all()
        assert found.nnz == 0 or (found.indices.min() >= 0 and found.indices.max() < 30)
    assert calls == [1]
    monkeypatch.undo()
    c = matrix()
    np.testing.assert_allclose(function(c, b).toarray(), CHAINS[op](c, b).toarray(), atol=1e-12)


@pytest.mark.parametrize(
    "op",
    [
        lambda a, b: a.T @ b,
        lambda a, b: a + b.T,
        lambda a, b: (a + b) @ a,
        lambda a, b: a * (a @ b),
        lambda a, b: a + b + a @ b,
        lambda a, b: (a @ b).T / 3,
    ],
)
@pytest.mark.parametrize("listed", [False, True])
def test_patterns_that_are_made_of_others_take_the_quick_way(op: Callable[..., Any], listed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """One pattern after another, each by kernels that read what was made before: called with nothing in between."""
    a, b = matrix(), matrix(density=0.1)
    given = a.tocoo() if listed else a
    want = op(a, b)
    function = pa.jit(op)
    function(given, b)
    monkeypatch.setattr(staging, "run", None)
    for _again in range(2):
        got = function(given, b)
        got.check_format(full_check=True)
        assert got.has_canonical_format and got.shape == want.shape
        np.testing.assert_allclose(got.toarray(), want.toarray(), atol=1e-12)
        b.data[:] *= 2.0
        want = op(a, b)


def test_a_longer_row_than_was_counted_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = sp.csr_array(np.eye(4)), sp.csr_array(np.eye(4))
    monkeypatch.setattr(phased, "native", lambda *_: None)
    function = pa.jit(lambda a, b: a + b)
    function(a, b)
    original = Runtime.cuts

    def cuts(*args: Any) -> Any:
        a.indptr[1] += 1  # also when the call is tried again
        return original(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Runtime, "cuts", cuts)
        with pytest.raises(SparseStructureError):
            function(a, b)


@pytest.mark.parametrize("rows, parts", [(0, 1), (1, 1), (1, 4), (7, 3), (1000, 1), (1000, 2), (1000, 37), (5, 12)])
def test_rows_are_cut_where_equal_shares_begin(rows: int, parts: int, tmp_path: Path) -> None:
    runtime = Runtime(Options(cache_dir=str(tmp_path)))
    for lengths in (RNG.integers(0, 9, rows), np.zeros(rows, np.int64), np.eye(1, rows, rows // 2, dtype=np.int64)[0] * 500):
        bounds = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        cuts, most = runtime.cuts(bounds, int(bounds[-1]), parts)
        inner = np.searchsorted(bounds, np.arange(1, parts) * (int(bounds[-1]) // parts))
        np.testing.assert_array_equal(cuts, [0, *inner, rows])
        assert most == np.diff(bounds[cuts]).max()
        shifted = bounds.copy()
        shifted[0] -= 7  # as a broken matrix has it: no part may be larger than its room
        cuts, most = runtime.cuts(shifted, int(bounds[-1]), parts)
        assert most >= np.diff(shifted[cuts]).max()


def test_metadata_of_another_make_is_refused() -> None:
    @dataclasses.dataclass
    class Fake:
        extra: dict[str, Any]
        plan: Any = None

    assert staging.plan_of(Fake({})) is None  # type: ignore[arg-type]
    for data in ({}, {"of": "x", "counts": "", "fills": "", "rows": 0, "index_bits": 32, "shapes": {}}, {"of": 1}):
        with pytest.raises(VerifyError, match="metadata of a phase"):
            staging.plan_of(Fake({"phase": data}))  # type: ignore[arg-type]


def test_repeated_and_unsorted_coordinates_are_put_right_in_a_counted_copy() -> None:
    a = sp.csr_array((np.array([1.0, 2.0, 3.0, 4.0]), np.array([1, 0, 1, 1]), np.array([0, 3, 4])), shape=(2, 2))
    b = sp.csr_array(np.eye(2))
    for op in (lambda a, b: a + b, lambda a, b: a * b):
        function = pa.jit(op)
        for _ in range(2):
            before = pa.stats()["copies"]
            found = function(a, b)
            np.testing.assert_array_equal(found.toarray(), op(a, b).toarray())
            assert found.has_canonical_format and pa.stats()["copies"] == before + 1
            assert a.indices.tolist() == [1, 0, 1, 1]
    for op in (lambda a, b: a @ b, lambda a, b: a @ a):
        found = pa.jit(op)(a, b)
        np.testing.assert_array_equal(found.toarray(), op(a, b).toarray())
        assert found.has_canonical_format


SCRIPT = """
    import numpy as np, scipy.sparse as sp, polyai as pa

    @pa.jit
    def both(A, B):
        return pa.relu(A @ B), A + B

    A = sp.csr_array(np.array([[1.0, 0, 2], [0, 0, 3], [4, 0, 0]]))
    B = sp.csr_array(np.array([[0, -1.0, 0], [5, 0, 0], [0, 0, 6]]))
    product, total = both(A, B)
    np.testing.assert_array_equal(product.toarray(), np.maximum((A @ B).toarray(), 0))
    np.testing.assert_array_equal(total.toarray(), (A + B).toarray())
    print(pa.stats()["compiles"], pa.stats()["cache_hits"])
"""


def test_all_kernels_of_a_program_come_back_from_disk_in_another_process(tmp_path: Path) -> None:
    script = tmp_path / "both.py"
    script.write_text(textwrap.dedent(SCRIPT))
    environment = {"PYTHONPATH": str(ROOT), "POLYAI_CACHE_DIR": str(tmp_path / "cache"), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}

    def run() -> list[int]:
        done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stderr
        return [int(x) for x in done.stdout.split()]

    assert run()[0] > 0
    assert run()[0] == 0
