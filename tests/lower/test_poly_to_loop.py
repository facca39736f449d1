"""Scheduled scops become loops with the same meaning, and every index from memory is checked before it is used."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from polyai.errors import VerifyError
from polyai.loop.nodes import For, Kernel, Kind
from polyai.loop.passes.order import lower_loops
from polyai.loop.show import show
from polyai.loop.verify import verify
from polyai.loop.walks import all_stmts
from polyai.lower import tensor_to_poly
from polyai.lower.poly_to_loop import lower
from polyai.poly import tree as st
from polyai.poly.deps import dependences
from polyai.poly.legal import check
from polyai.poly.passes.contract import run as contract
from polyai.poly.passes.schedule import scheduled
from polyai.scalar import dtype as dt
from polyai.scalar.expr import Var
from polyai.sparse.format import Format, coo, csf, csr, dcsr
from polyai.tensor.interp import SparseValue
from polyai.tensor.nodes import Input, Program
from tests.lower import scops
from tests.lower.meaning import call, full
from tests.poly.meaning import straight
from tests.programs import PROGRAMS, Case
from tests.words import at, d, define, dense, lit, m, mul, n, op, program, reduce, sparse, v, where, within

HINTS = [{}, dict.fromkeys(("n", "m", "c", "p", "d", "h"), 4000)]


@pytest.mark.parametrize("name", list(PROGRAMS))
def test_loops_keep_the_meaning(name: str) -> None:
    case = PROGRAMS[name]()
    program = straight(case.program)
    scop = tensor_to_poly.lower(program)
    for hints in HINTS:
        done = contract(scheduled(scop, hints)[0])
        kernel = lower(done, program)
        verify(kernel)
        forms = [kernel, lower_loops(kernel), lower_loops(kernel, vector_bits=128, registers=16)]
        for k in forms:
            verify(k, flat=k is not kernel)
            code, outputs = call(k, case, program, backwards=True)
            assert code == 0
            for key, value in full(outputs, case, program).items():
                np.testing.assert_allclose(value, case.expected[key], rtol=2e-4, atol=1e-5)


def kernel_of(program: Program, hints: dict[str, int] | None = None) -> tuple[Kernel, Program]:
    program = straight(program)
    kernel = lower(contract(scheduled(tensor_to_poly.lower(program), hints or {})[0]), program)
    verify(kernel)
    return kernel, program


def test_a_kernel_reads_like_the_loops_one_would_write() -> None:
    kernel, _ = kernel_of(PROGRAMS["spmm_bias_relu"]().program)
    assert show(kernel) == """\
kernel spmm_bias_relu(n, m, c, A.nnz, input A.pos1: i32[n + 1], input A.crd1: i32[A.nnz], input A.val: f32[A.nnz], input X: f32[c, m], input b: f32[m], output Y: f32[n, m]):
  for i in 0..n parallel weight=A.pos1:
    let A_begin1 = i64(A.pos1[i])
    let A_end1 = i64(A.pos1[i + 1])
    check u64(A_begin1) <= u64(A_end1) and u64(A_end1) <= u64(A.nnz) else site 0 (A_end1)
    let A_len1 = A_end1 - A_begin1
    for j in 0..m vector:
      alloc T: f32 register
      T = f32(0.0)
      for q in 0..A_len1:
        let A_crd1 = i64(A.crd1[A_begin1 + q])
        check u64(A_crd1) < u64(c) else site 1 (A_crd1)
        T = T + A.val[A_begin1 + q] * X[A_crd1, j]
      Y[i, j] = max(T + b[j], f32(0.0))
site 0: SparseStructureError: indptr of A holds {value}, which is out of order or out of range
site 1: SparseStructureError: column index {value} of A is outside 0 <= index < c
"""


SPARSE = [name for name, build in PROGRAMS.items() if any(i.type.is_sparse for i in build().program.inputs)]
BAD = [-(2**31), -1, 0, 1, 2, 7, 100, 2**31 - 1]


@pytest.mark.parametrize("name", [*SPARSE, "gather_embedding", "scatter_add"])
def test_damaged_indices_never_reach_memory(name: str) -> None:
    """The interpreter raises VerifyError for an access out of range: here it must not, whatever an index array holds."""
    case = PROGRAMS[name]()
    kernel, program = kernel_of(case.program)
    rng = np.random.default_rng(len(name))
    refused = 0
    for k in (kernel, lower_loops(kernel)):
        for _ in range(12):

            def damage(args: dict[str, Any]) -> None:
                arrays = [a for a in args.values() if a.dtype.kind == "i" and a.size]
                for a in [arrays[p] for p in rng.integers(0, len(arrays), 2)]:
                    a.reshape(-1)[rng.integers(a.size)] = rng.choice(BAD)

            code, _ = call(k, case, program, change=damage)
            refused += code != 0
            assert 0 <= code <= len(kernel.sites)
    assert refused > 4


@pytest.mark.parametrize("form", [dcsr(), csf(2), coo(), csr(64), Format("dense-rows", (1, 0), csf(2).levels)])
def test_formats(form: Format) -> None:
    """y = A x and the row sums of A * A, for formats whose rows may be compressed."""
    rng = np.random.default_rng(4)
    mask = rng.random((9, 7)) < 0.4
    mask[3] = False
    at_ = np.nonzero(mask) if form.order == (0, 1) else np.nonzero(mask.T)[::-1]
    values = rng.standard_normal(len(at_[0])).astype(np.float32)
    whole = np.zeros((9, 7), np.float32)
    whole[at_] = values
    x = rng.standard_normal(7).astype(np.float32)
    body = [
        define("y", {"i": n}, reduce("add", {"k": m}, mul(at("A", "i", "k"), at("x", "k")))),
        define("s", {"r": n}, reduce("add", {"t": m}, mul(at("A", "r", "t"), at("A", "r", "t")))),
    ]
    written = program("formats", [sparse("A", form, n, m), Input("x", dense(m))], body, "y", "s")
    case = Case(written, {"A": SparseValue((at_[0], at_[1]), values, (9, 7)), "x": x}, {"y": whole @ x, "s": (whole * whole).sum(1)})
    kernel, lowered = kernel_of(written)
    for k in (kernel, lower_loops(kernel)):
        code, outputs = call(k, case, lowered, backwards=True)
        assert code == 0
        for key, value in case.expected.items():
            np.testing.assert_allclose(outputs[key], value, rtol=1e-5, atol=1e-6)


def test_a_row_buffer_is_as_long_as_the_longest_fibre() -> None:
    kernel, _ = kernel_of(PROGRAMS["sparse_softmax"]().program)
    text = show(kernel)
    assert "A_max1_so_far = max(A_max1_so_far, i64(A.pos1[r + 1]) - i64(A.pos1[r]))" in text
    assert "f32[A_max1] thread" in text
    assert "check u64(A_len1) <= u64(A_max1) else site 0 (A_len1)" in text


def test_a_lazy_branch_masks_what_it_guards() -> None:
    index = at("p", "i", dtype=dt.i64)
    inside = op("and", op("ge", index, lit(0, dt.i64)), op("lt", index, v("m")))
    value = where(inside, at("x", index), lit(-1.0))
    written = program("guarded", [Input("p", dense(n, dtype=dt.i64)), Input("x", dense(m))], [define("y", {"i": n}, value)], "y")
    kernel, lowered = kernel_of(written)
    assert "y[i] = where(inside, (x[p[i]] if inside), f32(-1.0))" in show(kernel)
    p = np.array([2, -5, 0, 900, 1])
    case = Case(written, {"p": p, "x": np.array([10.0, 20.0, 30.0], np.float32)}, {})
    for k in (kernel, lower_loops(kernel)):
        code, outputs = call(k, case, lowered)
        assert code == 0
        assert outputs["y"].tolist() == [30.0, -1.0, 10.0, -1.0, 20.0]


def test_padding_masks_and_known_accesses_do_not() -> None:
    j = v("j")
    shifted = where(op("ge", j, lit(1, dt.i64)), at("x", op("sub", j, lit(1, dt.i64))), at("x", "j"))
    written = program("shift", [Input("x", dense(m))], [define("y", {"j": m}, shifted)], "y")
    kernel, lowered = kernel_of(written)
    text = show(kernel)
    assert "(x[j - 1] if inside)" in text
    assert ", x[j])" in text
    case = Case(written, {"x": np.arange(1.0, 20.0).astype(np.float32)}, {})
    code, outputs = call(lower_loops(kernel), case, lowered)
    assert code == 0
    assert outputs["y"].tolist() == [1.0, *range(1, 19)]


def test_a_mark_does_not_slip_to_the_loop_below_one_that_runs_once() -> None:
    """The piece j // 8 is one piece, so isl leaves its loop out; its mark must not land on the loop over j."""
    kernel = lower(scops.scheduled(tensor_to_poly.lower(scops.spmm_program(columns=3)), scops.cut_tree(8)), scops.spmm_program(columns=3))
    loops = {s.var: s.kind for s in all_stmts(kernel.body) if isinstance(s, For)}
    assert loops == {"i": Kind.PARALLEL, "j": Kind.SERIAL, "q": Kind.SERIAL}


def test_a_parallel_loop_that_is_jammed_runs_blocks_of_rows() -> None:
    written = scops.spmm_program()
    kernel = lower(scops.scheduled(tensor_to_poly.lower(written), scops.jammed_tree(3)), written)
    verify(kernel)
    assert "for i in i_block * 3..min(i_block * 3 + 3, m) jam=3:" in show(kernel)


def test_without_a_schedule_there_is_no_order() -> None:
    written = scops.spmm_program()
    with pytest.raises(VerifyError, match="has no schedule"):
        lower(tensor_to_poly.lower(written), written)


def test_messages_name_the_matrix_and_the_remedy() -> None:
    kernel, _ = kernel_of(PROGRAMS["gather_embedding"]().program)
    (site,) = kernel.sites
    assert site.error == "IndexOutOfRangeError"
    assert "index {value} is out of range for dimension 0 of" in site.what
    assert site.remedy == "indices must lie in -extent <= index < extent"
    kernel, _ = kernel_of(PROGRAMS["spmm_csc"]().program)
    assert any(s.what.startswith("row index {value} of A is outside 0 <= index < n") for s in kernel.sites)


def test_a_loop_that_runs_past_the_rows_reads_no_pointer_past_the_last() -> None:
    """isl may run a loop for statements of different extents: fibres beyond the last row are empty."""
    rows = define("y", {"i": n}, reduce("add", {"k": m}, at("A", "i", "k"), within("A", "i", "k")))
    p = program("two", [sparse("A", csr(), n, m), Input("X", dense(d))], [rows, define("z", {"j": d}, mul(lit(2.0), at("X", "j")))], "y", "z")
    scop = tensor_to_poly.lower(p)
    one = [(s.name, Var(s.dims[0], dt.i64)) for s in scop.statements]
    walk = st.Band((("y_upd", Var("q", dt.i64)),), st.Leaf("y_upd"))
    parts = [walk if s.name == "y_upd" else st.Leaf(s.name) for s in scop.statements]
    tree = st.Band(tuple(one), st.Bind("A", 1, st.Sequence(tuple(parts))))
    done = dataclasses.replace(scop, schedule=st.render(scop, tree))
    check(done, dependences(scop))
    kernel = lower(contract(done), p)
    verify(kernel)
    a = SparseValue((np.array([0, 0, 2]), np.array([1, 3, 0])), np.array([1, 2, 4], np.float32), (3, 4))
    for extent in (1, 3, 9):
        case = Case(p, {"A": a, "X": np.ones(extent, np.float32)}, {})
        for k in (kernel, lower_loops(kernel)):
            code, outputs = call(k, case, p)
            assert code == 0
            np.testing.assert_array_equal(outputs["y"], [3, 0, 4])
            np.testing.assert_array_equal(outputs["z"], np.full(extent, 2))
