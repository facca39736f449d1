"""A program is cut where the size of a sparse result must be known: what each phase counts, fills, takes and hands on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from polyai import pipeline
from polyai.frontend.surface import functions as pa
from polyai.frontend.trace import trace
from polyai.machine.cpu import host
from polyai.options import Options
from polyai.tensor.nodes import targets_of, types_of
from polyai.tensor.passes import phases
from polyai.tensor.show import show
from polyai.tensor.verify import verify
from tests.programs import PROGRAMS

A, B = (sp.csr_array(np.eye(6)) for _ in range(2))
X = np.ones((6, 3))


def cut(fn: Callable[..., Any], *args: Any, how: str = "counted") -> tuple[phases.Phase, ...]:
    """The phases as the pipeline makes them; each is a well-formed program."""
    build = pipeline.Build(trace(fn, args, {}, name="f").program, (), Options(), host())
    for stage in pipeline.STAGES:
        if stage.name == pipeline.FIRST_OF_A_PHASE:
            break
        build = stage.run(build)
    found = phases.run(build.program, how=how)
    for phase in found:
        verify(phase.program)
    return found


def text(found: tuple[phases.Phase, ...]) -> str:
    return "\n".join(f"counts {p.counts or '-'}, fills {p.fills or '-'}: {show(p.program)}" for p in found)


GOLDEN: list[tuple[str, Callable[..., Any], tuple[Any, ...], str]] = [
    ("A + B", lambda A, B: A + B, (A, B), """\
counts joined, fills -: program f_0
  input A[A_d0, A_d1] f64 csr
  input B[A_d0, A_d1] f64 csr
  joined[i_1: A_d0, j_1: A_d1] csr = join A(i_1, j_1) | B(i_1, j_1)
  joined.count[i_2: A_d0] i64 = sum(j_2: A_d1) 1   within joined(i_2, j_2)
  joined.pos1[p: A_d0 + 1] i64 = where(p > 0, joined.pos1[p - 1] + joined.count[p - 1], 0)
  output joined.pos1
counts -, fills joined: program f_1
  input A[A_d0, A_d1] f64 csr
  input B[A_d0, A_d1] f64 csr
  joined[i_1: A_d0, j_1: A_d1] csr = join A(i_1, j_1) | B(i_1, j_1)
  add[i: A_d0, j: A_d1 within joined(i, j)] f64 = A[i, j] + B[i, j]
  joined.crd1[i_3: A_d0, j_3: A_d1 within joined(i_3, j_3)] i32 = i32(j_3)
  output joined.crd1, add"""),
    ("A @ B", lambda A, B: A @ B, (A, B), """\
counts matmul, fills -: program f_0
  input A[A_d0, A_d1] f64 csr
  input B[A_d1, B_d1] f64 csr
  matmul[i_1, j_1] bool |= True   for [i_1: A_d0, j_1: B_d1, k_1: A_d1 within A(i_1, k_1), B(k_1, j_1)] from [A_d0, B_d1] bool csr
  matmul.count[i: A_d0] i64 = sum(j: B_d1) 1   within matmul(i, j)
  matmul.pos1[p: A_d0 + 1] i64 = where(p > 0, matmul.pos1[p - 1] + matmul.count[p - 1], 0)
  output matmul.pos1
counts -, fills matmul: program f_1
  input A[A_d0, A_d1] f64 csr
  input B[A_d1, B_d1] f64 csr
  matmul[i_1, j_1] f64 += A[i_1, k_1] * B[k_1, j_1]   for [i_1: A_d0, j_1: B_d1, k_1: A_d1 within A(i_1, k_1), B(k_1, j_1)] from [A_d0, B_d1] f64 csr
  matmul.crd1[i_2: A_d0, j_2: B_d1 within matmul(i_2, j_2)] i32 = i32(j_2)
  matmul.val[i_3: A_d0, j_3: B_d1 within matmul(i_3, j_3)] f64 = matmul[i_3, j_3]
  output matmul.crd1, matmul.val, matmul"""),
    ("relu(A @ B)", lambda A, B: pa.relu(A @ B), (A, B), """\
counts matmul, fills -: program f_0
  input A[A_d0, A_d1] f64 csr
  input B[A_d1, B_d1] f64 csr
  matmul[i_1, j_1] bool |= True   for [i_1: A_d0, j_1: B_d1, k_1: A_d1 within A(i_1, k_1), B(k_1, j_1)] from [A_d0, B_d1] bool csr
  matmul.count[i: A_d0] i64 = sum(j: B_d1) 1   within matmul(i, j)
  matmul.pos1[p: A_d0 + 1] i64 = where(p > 0, matmul.pos1[p - 1] + matmul.count[p - 1], 0)
  output matmul.pos1
counts -, fills matmul: program f_1
  input A[A_d0, A_d1] f64 csr
  input B[A_d1, B_d1] f64 csr
  matmul[i_1, j_1] f64 += A[i_1, k_1] * B[k_1, j_1]   for [i_1: A_d0, j_1: B_d1, k_1: A_d1 within A(i_1, k_1), B(k_1, j_1)] from [A_d0, B_d1] f64 csr
  relu[i_2: A_d0, j_2: B_d1 within matmul(i_2, j_2)] f64 = max(matmul[i_2, j_2], 0.0)
  matmul.crd1[i_3: A_d0, j_3: B_d1 within matmul(i_3, j_3)] i32 = i32(j_3)
  output matmul.crd1, relu"""),
]  # fmt: skip


@pytest.mark.parametrize(("fn", "args", "wanted"), [g[1:] for g in GOLDEN], ids=[g[0] for g in GOLDEN])
def test_counted_then_filled(fn: Callable[..., Any], args: tuple[Any, ...], wanted: str) -> None:
    assert text(cut(fn, *args)) == wanted


BOUNDED: list[tuple[str, Callable[..., Any], tuple[Any, ...], str]] = [
    ("A + B", lambda A, B: A + B, (A, B), """\
  input A.pos1[A_d0 + 1] i32
  input B.pos1[A_d0 + 1] i32
  joined.pos1[p: A_d0 + 1] i64 = i64(A.pos1[p]) + i64(B.pos1[p])
  output joined.pos1"""),
    ("A * B", lambda A, B: A * B, (A, B), """\
  input A.pos1[A_d0 + 1] i32
  joined.pos1[p: A_d0 + 1] i64 = i64(A.pos1[p])
  output joined.pos1"""),
    ("A @ B", lambda A, B: A @ B, (A, B), """\
  input B.pos1[A_d1 + 1] i32
  matmul.length[r: A_d1] i64 = i64(B.pos1[r + 1]) - i64(B.pos1[r])
  matmul.points[i_2: A_d0] i64 = sum(k: A_d1) matmul.length[k]   within A(i_2, k)
  matmul.pos1[p: A_d0 + 1] i64 = where(p > 0, matmul.pos1[p - 1] + min(matmul.points[p - 1], B_d1), 0)
  output matmul.pos1"""),
    ("A.T @ B", lambda A, B: A.T @ B, (sp.csc_array(A), B), """\
  input B.pos1[A_d0 + 1] i32
  matmul.length[r: A_d0] i64 = i64(B.pos1[r + 1]) - i64(B.pos1[r])
  matmul.points[i_1: A_d1] i64 = sum(k: A_d0) matmul.length[k]   within A(k, i_1)
  matmul.pos1[p: A_d1 + 1] i64 = where(p > 0, matmul.pos1[p - 1] + min(matmul.points[p - 1], B_d1), 0)
  output matmul.pos1"""),
]  # fmt: skip


@pytest.mark.parametrize(("fn", "args", "wanted"), [g[1:] for g in BOUNDED], ids=[g[0] for g in BOUNDED])
def test_bounds_of_rows(fn: Callable[..., Any], args: tuple[Any, ...], wanted: str) -> None:
    bounds, fill = cut(fn, *args, how="packed")
    made = bounds.bounds
    assert made and (bounds.counts, bounds.fills, fill.fills, fill.bounds) == ("", "", made, "")
    assert fill.program.packed == fill.program.assembled == (made,)
    operands = ("  input A[", "  input B[", "program")
    assert "\n".join(line for line in show(bounds.program).splitlines() if not line.startswith(operands)) == wanted


def test_a_chain_counts_and_fills_each_product_in_turn() -> None:
    found = cut(lambda A: A @ A @ A, A)
    assert [(p.counts, p.fills) for p in found] == [("matmul", ""), ("", "matmul"), ("matmul_1", ""), ("", "matmul_1")]
    assert [p.program.assembled for p in found] == [(), ("matmul",), (), ("matmul_1",)]
    assert [[i.name for i in p.program.inputs] for p in found] == [["A"], ["A"], ["A", "matmul"], ["A", "matmul"]]
    assert [p.program.outputs[:2] for p in found] == [("matmul.pos1",), ("matmul.crd1", "matmul.val"), ("matmul_1.pos1",), ("matmul_1.crd1", "matmul_1.val")]
    first, second = found[1].program, found[2].program
    assert types_of(second)["matmul"].format == types_of(first)["matmul"].format
    assert "matmul" not in {name for step in second.body for name in targets_of(step)}, "what is assembled is not computed again"


def test_what_counts_a_product_computes_no_values() -> None:
    counting = cut(lambda A, B: pa.relu(A @ B), A, B)[0].program
    scatter = counting.body[0]
    assert str(scatter.type.dtype) == "bool"
    assert "*" not in show(counting)


@pytest.mark.parametrize(
    "fn", [lambda A, B, X: (A * B).sum(), lambda A, B, X: (A + B).sum(axis=1), lambda A, B, X: A @ (B @ X)], ids=["dot", "sums", "chain"]
)
def test_a_merge_within_a_sum_is_not_assembled(fn: Callable[..., Any]) -> None:
    (only,) = cut(fn, A, B, X)
    assert (only.counts, only.fills, only.program.assembled) == ("", "", ())


def test_equal_merges_are_counted_once() -> None:
    found = cut(lambda A, B: (A + B, A - B), A, B)
    assert [(p.counts, p.fills) for p in found] == [("joined", ""), ("", "joined")]
    assert len(found[1].program.outputs) == 3


def test_a_dense_result_beside_a_sparse_one() -> None:
    """It is computed by one phase only, and every output by some phase."""
    found = cut(lambda A, B: (A + B, (A + B).sum(axis=1)), A, B)
    outputs = [o for p in found for o in p.program.outputs]
    assert len(outputs) == len(set(outputs))
    assert any(o.startswith("sum") for o in outputs)


def test_what_is_dear_is_handed_on() -> None:
    """A dense product that both phases need is computed by the first and read by the second."""
    found = cut(lambda A, B, X: A @ (B * (X @ X.T)), A, B, X)
    for number, phase in enumerate(found):
        made = {name for step in phase.program.body for name in targets_of(step)}
        before = {name for p in found[:number] for name in p.program.outputs}
        assert not (made & before & set(phase.program.outputs))


@pytest.mark.parametrize("name", list(PROGRAMS))
def test_a_program_without_sparse_results_of_its_own_is_one_phase(name: str) -> None:
    written = PROGRAMS[name]().program
    assert phases.run(written) == (phases.Phase(written),)


def test_a_mask_is_counted_then_stored() -> None:
    """A block at a time; what follows reads the places as an array."""
    found = cut(lambda x, y: pa.exp(x[y > 0]), np.ones(3), np.ones(3))
    assert [(p.counts, p.fills) for p in found] == [("chosen", ""), ("", "chosen"), ("", "")]
    assert [p.program.outputs for p in found] == [("chosen.pos1",), ("chosen.crd1",), ("exp",)]
    assert [i.name for i in found[2].program.inputs] == ["x", "y", "chosen.crd1"]
    assert "sum(t_1: 4096)" in show(found[0].program), "counts are sums, which lanes add up"


def test_what_must_hold_of_a_size_is_asked_where_it_is_counted() -> None:
    found = cut(lambda x, y: x[x > 0] + y[y > 0], np.ones(3), np.ones(3))
    assert [(p.counts, [g.text for g in p.requires]) for p in found if p.counts] == [
        ("chosen", []), ("chosen_1", ["count_nonzero(x > 0.0) == count_nonzero(y > 0.0)"])
    ]  # fmt: skip


def test_counts_are_spread_without_coordinates() -> None:
    counts, stored = cut(lambda x, c: pa.sum(pa.repeat(x, c)), np.ones(3), np.ones(3, int))[:2]
    assert (counts.counts, counts.program.outputs, stored.program.outputs) == ("repeated", ("repeated.pos1",), ("repeat",))
    assert not any("crd1" in o for p in (counts, stored) for o in p.program.outputs)


def test_a_pass_of_a_sort_stores_places_only() -> None:
    found = cut(lambda x: pa.argsort(x), np.ones(3, np.uint8))
    assert [p.program.outputs for p in found] == [("sorted.pos1",), ("sorted.val",)]
    assert found[1].aliases == (("listed", "sorted.val"),), "the order is what the pattern stores"


def test_values_of_a_mask_are_stored_at_once() -> None:
    """Nobody wants the places: the values take theirs. Where somebody does, they are read through the places."""
    found = cut(lambda x: x[x > 0] * 2, np.ones(3))
    assert [p.program.outputs for p in found] == [("chosen.pos1",), ("chosen.val",)]
    assert found[1].aliases == (("multiply", "chosen.val"),)
    both = cut(lambda x: (x[x > 0], pa.nonzero(x > 0)[0]), np.ones(3))
    assert [p.program.outputs for p in both] == [("chosen.pos1",), ("chosen.crd1",), ("index",)]
    dear = cut(lambda x: pa.exp(x[x > 0]), np.ones(3))
    assert [p.program.outputs for p in dear] == [("chosen.pos1",), ("chosen.crd1",), ("exp",)], "exp runs in vectors"
