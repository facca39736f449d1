"""The last tile of rows is whole where buffers have room for it: the same sums, one version of the tile."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from polyai.loop import build as b
from polyai.loop.interp import run
from polyai.loop.nodes import Alloc, Block, For, Kernel, Kind, Param, Space, Stmt, Store
from polyai.loop.passes.jam import jam
from polyai.loop.passes.order import passes
from polyai.loop.passes.spare import spare
from polyai.loop.verify import verify
from polyai.loop.walks import all_stmts
from polyai.scalar import dtype as dt

F = dt.f32
ROWS, TILE = 12, 6


def _sums(room: int = ROWS, tile: int = TILE, shift: int = 0) -> Kernel:
    """Y[i] = sum of x[i, k], in blocks of 12 rows, whose sums are in a buffer of `room` rows, `shift` rows after its start."""
    i, k, m, n, block = (b.var(name) for name in ("i", "k", "m", "n", "block"))
    start = b.mul(block, b.const(ROWS))
    upper = b.add(b.smallest(b.sub(m, b.ONE), b.add(start, b.const(ROWS - 1))), b.ONE)
    row = b.add(b.sub(i, start), b.const(shift))
    mine = b.load("T", (row,), F)
    clear = For("i", start, upper, Store("T", (row,), b.load("zero", (), F)))
    sums = Store("T", (row,), b.apply("add", (mine, b.load("x", (i, k), F)), F))
    tiles = For("i", start, upper, For("k", b.ZERO, n, sums), Kind.JAM, jam=tile)
    out = For("i", start, upper, Store("y", (i,), mine))
    zero = (Alloc("zero", F, (), Space.REGISTER), Store("zero", (), b.apply("sub", (b.load("x", (b.ZERO, b.ZERO), F),) * 2, F)))
    body = Block((*zero, Alloc("T", F, (b.const(room),), Space.THREAD), clear, tiles, out))
    blocks = b.floordiv(b.add(m, b.const(ROWS - 1)), b.const(ROWS))
    params = (Param("m", dt.i64, "size"), Param("n", dt.i64, "size"), Param("x", F, "input", (m, n)), Param("y", F, "output", (m,)))
    return Kernel("sums", params, For("block", b.ZERO, blocks, body, Kind.PARALLEL))


def _jams(stmt: Stmt) -> list[For]:
    return [s for s in all_stmts(stmt) if isinstance(s, For) and s.kind is Kind.JAM]


def _tiles(kernel: Kernel) -> list[For]:
    return [s for s in all_stmts(kernel.body) if isinstance(s, For) and s.step == TILE]


@pytest.mark.parametrize("m", [1, 5, 6, 7, 11, 12, 13, 24, 29])
def test_sums_are_the_same_after_every_pass(m: int) -> None:
    x = np.random.default_rng(m).standard_normal((m, 9)).astype(np.float32)
    kernel = _sums()
    for name, change in (("", lambda k: k), *passes(vector_bits=256)):
        kernel = change(kernel)
        verify(kernel, flat=name not in ("", "simplify", "quotients", "spare", "gathered", "stretch", "heavy", "staged", "twins"))
        y = np.full(m, np.nan, np.float32)
        assert run(kernel, {"m": m, "n": 9, "x": x, "y": y}) == 0
        np.testing.assert_allclose(y, x.astype(float).sum(axis=1), rtol=1e-4, atol=1e-5, err_msg=name)


def test_one_version_serves_any_number_of_rows() -> None:
    kernel = spare(_sums())
    assert [(s.lower, s.upper) for s in _jams(kernel.body)] == [(b.ZERO, b.const(TILE))]
    assert len(_tiles(kernel)) == 1
    sums = [s for s in all_stmts(jam(kernel).body) if isinstance(s, Store) and s.array == "T" and s.value != b.load("zero", (), F)]
    assert len(sums) == TILE


@pytest.mark.parametrize(
    "kernel",
    [
        _sums(room=ROWS - 1),  # the last tile would leave the buffer
        _sums(tile=5),  # tiles end beyond the block
        _sums(room=ROWS + 1, shift=1),  # rows do not start where the buffer does
    ],
    ids=["short", "odd", "moved"],
)
def test_rows_stay_where_there_is_no_room(kernel: Kernel) -> None:
    assert spare(kernel) == kernel


def test_a_tile_that_stores_a_result_keeps_its_rows() -> None:
    kernel = _sums()

    def moved(s: Stmt) -> Stmt:
        if isinstance(s, Block):
            return Block(tuple(map(moved, s.stmts)))
        if isinstance(s, For):
            return dataclasses.replace(s, body=moved(s.body))
        return dataclasses.replace(s, array="y", indices=(b.var("i"),)) if isinstance(s, Store) and s.array == "T" else s

    changed = dataclasses.replace(kernel, body=moved(kernel.body))
    assert spare(changed) == changed
