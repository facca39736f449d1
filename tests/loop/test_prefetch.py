"""Hints for rows that an index array names: there where they pay, in range, and gone where arrays are small."""

from __future__ import annotations

import pytest

from polyai.loop.nodes import Kind, Prefetch
from polyai.loop.passes.order import lower_loops
from polyai.loop.show import show
from polyai.loop.walks import all_stmts
from tests.loop import kernels


def hints(sizes: dict[str, int]) -> list[Prefetch]:
    kernel = lower_loops(kernels.spmm(), sizes=sizes)
    return [s for s in all_stmts(kernel.body) if isinstance(s, Prefetch)]


def test_rows_of_a_large_operand_are_asked_for() -> None:
    found = hints({})
    assert found and {s.array for s in found} == {"X"}


def test_small_operands_get_no_hints() -> None:
    sizes = {p.name: 8 for p in kernels.spmm().params if p.extents is None}
    assert hints(sizes) == []


def test_the_early_coordinate_stays_inside_its_array() -> None:
    text = show(lower_loops(kernels.spmm(), sizes={}))
    early = [line for line in text.splitlines() if "_soon" in line and ".crd1[" in line]
    assert early and all("min(" in line and "- 1" in line for line in early)


def test_a_line_is_asked_for_once_however_narrow_the_vectors() -> None:
    found = {bits: [s for s in all_stmts(lower_loops(kernels.spmm(), vector_bits=bits, sizes={}).body) if isinstance(s, Prefetch)] for bits in (512, 256)}
    text = show(lower_loops(kernels.spmm(), vector_bits=256, sizes={}))
    assert len(found[256]) <= len(found[512]) and "_soon + 8]" not in text and "_soon + 16]" in text


LARGE = {"m": 10_000, "n": 10_000, "A.nnz": 1_000_000}


@pytest.mark.parametrize(("width", "lines"), [(64, 4), (65, 5), (128, 8)])
def test_a_row_that_a_loop_inside_reads_is_asked_for_as_a_whole(width: int, lines: int) -> None:
    text = show(lower_loops(kernels.sddmm(), vector_bits=256, sizes={**LARGE, "w": width}))
    body = text[text.index("for q in 0..q_at step 4") : text.index("for q in q_at")]
    assert body.count("prefetch X[") == 4 * lines  # four rows at once
    assert body.index("prefetch X[k_soon + 16]") < body.index("for e in 0..")
    assert "prefetch" not in body[body.index("for e in 0..") :]
    assert "+ q + 16, A.nnz - 1)" in body  # as far ahead as where one row is read at once, or twice that


@pytest.mark.parametrize("sizes", [LARGE, {**LARGE, "w": 1000}])
def test_long_rows_and_those_of_unknown_length_are_asked_for_line_by_line(sizes: dict[str, int]) -> None:
    text = show(lower_loops(kernels.sddmm(), vector_bits=256, sizes=sizes))
    body = text[text.index("for q in 0..q_at step 4") : text.index("for q in q_at")]
    assert "prefetch X[" not in body[: body.index("for e in 0..")] and "prefetch X[" in body


def test_where_a_run_begins_is_no_coordinate() -> None:
    text = show(lower_loops(kernels.sddmm(rows=Kind.SERIAL), vector_bits=256, sizes={**LARGE, "w": 64}))
    assert "A_begin1_soon" not in text and "prefetch X[" in text
