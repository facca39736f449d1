"""Rows that list the same coordinates run together: the result is that of the rows one by one, whatever the rows are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from polyai.loop.interp import run
from polyai.loop.nodes import For, Kernel, Load
from polyai.loop.passes.order import lower_loops
from polyai.loop.passes.twins import NEAR, twins
from polyai.loop.verify import verify
from polyai.loop.walks import all_exprs, all_stmts, expressions
from polyai.sparse.samples import GROUPS, LEAST, rows_alike
from tests.loop import kernels

KERNELS = {"spmm": kernels.spmm, "sddmm": kernels.sddmm, "spmv": kernels.spmv}


def in_groups(rows: int, columns: int, height: int, seed: int) -> Any:
    """CSR whose rows come in groups of `height` with the same coordinates; some groups are empty, in some one row differs."""
    rng = np.random.default_rng(seed)
    dense = np.repeat(rng.random((-(-rows // height), columns)) < 0.4, height, axis=0)[:rows]
    dense[:height] = False
    for i in range(2 * height + 1, rows, 3 * height):
        dense[i, rng.integers(columns)] ^= True
    a = sp.csr_array(dense.astype(float))
    a.data = rng.standard_normal(a.nnz)
    return a


def arguments(name: str, a: Any) -> tuple[dict[str, Any], str, np.ndarray]:
    rng = np.random.default_rng(1)
    (m, n), w = a.shape, 5
    value = np.float64 if name == "spmv" else np.float32
    given = {"A.nnz": a.nnz, "m": m, "n": n, "A.pos1": a.indptr.astype(np.int32), "A.crd1": a.indices.astype(np.int32), "A.val": a.data.astype(value)}
    if name == "spmv":
        x = rng.standard_normal(n)
        return {**given, "x": x, "y": np.zeros(m)}, "y", a @ x
    X = rng.standard_normal((n, w)).astype(value)
    if name == "sddmm":
        U = rng.standard_normal((m, w)).astype(value)
        row = np.repeat(np.arange(m), np.diff(a.indptr))
        return {**given, "w": w, "U": U, "X": X, "Y": np.zeros(a.nnz, value)}, "Y", (U[row] * X[a.indices]).sum(axis=1)
    bias = rng.standard_normal(w).astype(value)
    return {**given, "w": w, "X": X, "bias": bias, "Y": np.zeros((m, w), value)}, "Y", np.maximum(a @ X + bias, 0)


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("height", [2, 3, 4])
@pytest.mark.parametrize("rows", [0, 1, 3, 4, 9, 31, 64])
def test_the_result_is_that_of_the_rows_one_by_one(name: str, height: int, rows: int) -> None:
    kernel, hints = KERNELS[name](), {"A_alike1": height, "A.nnz": 100}
    for step, change in enumerate((lambda k: twins(k, hints, 16), lambda k: lower_loops(k, vector_bits=256, registers=16, sizes=hints))):
        new = change(kernel)
        verify(new, flat=step == 1)
        for backwards in (False, True):
            args, out, expected = arguments(name, in_groups(rows, 24, height, rows))
            assert run(new, args, backwards=backwards) == 0
            np.testing.assert_allclose(args[out], expected, rtol=1e-5, atol=1e-5)


def gathers(kernel: Kernel, array: str) -> int:
    """How often the text reads `array`."""
    return sum(isinstance(x, Load) and x.array == array for s in all_stmts(kernel.body) for e in expressions(s) for x in all_exprs(e))


def test_a_row_that_is_named_is_read_once_for_the_group() -> None:
    new = twins(kernels.spmm(), {"A_alike1": 4}, 16)
    assert gathers(new, "X") == gathers(kernels.spmm(), "X") + 1
    assert gathers(new, "A.val") == gathers(kernels.spmm(), "A.val") + 4


@pytest.mark.parametrize("hints", [{}, {"A_alike1": 1}, {"B_alike1": 4}])
def test_other_loops_stay(hints: dict[str, int]) -> None:
    assert twins(kernels.spmm(), hints, 16) == kernels.spmm()
    assert twins(kernels.matmul(), {"A_alike1": 4}, 16) == kernels.matmul()


@pytest.mark.parametrize("pos", [[0, 3, 6, 9, 13], [0, 3, 2, 9, 12], [0, -3, -6, -9, -12], [-12, -9, -6, -3, 0], [2**31 - 4, 2**31 - 3, 2**31 - 2, 2**31 - 1, -1]])
def test_broken_positions_are_reported(pos: list[int]) -> None:
    a = sp.csr_array(np.ones((4, 3)))
    args, _, _ = arguments("spmm", a)
    args["A.pos1"] = np.array(pos, np.int32)
    args["A.nnz"] = 12
    assert run(lower_loops(kernels.spmm(), vector_bits=256, sizes={"A_alike1": 4}), args) == 1


def test_a_coordinate_out_of_range_is_reported() -> None:
    args, _, _ = arguments("spmm", sp.csr_array(np.ones((4, 3))))
    args["A.crd1"][[1, 4, 7, 10]] = 3
    assert run(lower_loops(kernels.spmm(), vector_bits=256, sizes={"A_alike1": 4}), args) == 2


def test_loops_over_rows_of_groups_step_by_them() -> None:
    steps = {s.step for s in all_stmts(twins(kernels.spmm(), {"A_alike1": 3}, 16).body) if isinstance(s, For)}
    assert 3 in steps


def test_single_elements_of_large_matrices_are_read_row_by_row() -> None:
    spmv = kernels.spmv()
    assert twins(spmv, {"A_alike1": 4, "A.nnz": NEAR}, 16) != spmv
    assert twins(spmv, {"A_alike1": 4, "A.nnz": 2 * NEAR}, 16) == spmv
    assert twins(kernels.spmm(), {"A_alike1": 4, "A.nnz": 2 * NEAR}, 16) != kernels.spmm()


@pytest.mark.parametrize("height", GROUPS)
def test_samples_see_groups(height: int) -> None:
    block = sp.csr_array(np.ones((height, 2)))
    whole = sp.csr_array(sp.kron(sp.random_array((200, 100), density=0.1, rng=np.random.default_rng(0)), block))
    whole.sort_indices()
    assert rows_alike(whole.indptr, whole.indices) == height


def test_few_rows_have_no_groups() -> None:
    a = sp.csr_array(np.ones((4 * LEAST, 3)))
    assert rows_alike(a.indptr, a.indices) == 4
    assert rows_alike(a.indptr[: 4 * LEAST], a.indices) == 1


@pytest.mark.parametrize("pos", [[], [0], [0, 0], [0, 0, 0, 0, 0], [0, 1, 2, 3, 4], [0, 9, 18, 27, 36], [5, 4, 3, 2, 1], [-4, -3, -2, -1, 0], [-(2**31), 2**31 - 1, 0, 3, 2**31 - 1]])
def test_samples_read_nothing_outside(pos: list[int]) -> None:
    crd = np.array([0, 1, 2, 3], np.int32)
    assert rows_alike(np.array(pos * 16, np.int32), crd) == 1


def test_rows_without_groups_have_none() -> None:
    a = sp.random_array((500, 500), density=0.02, format="csr", rng=np.random.default_rng(3))
    assert rows_alike(a.indptr, a.indices) == 1
