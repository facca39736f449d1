"""Hints for rows that an index array names: there where they pay, in range, and gone where arrays are small."""

from __future__ import annotations

from polyai.loop.nodes import Prefetch
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
