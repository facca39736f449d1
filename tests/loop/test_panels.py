"""Arrays stored in panels: known quotients, tiles that repeat a row, hints for the next panel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from polyai.loop import build as b
from polyai.loop.interp import run
from polyai.loop.nodes import Alloc, Const, For, Kernel, Kind, Load, LoopExpr, Prefetch, Space, Store
from polyai.loop.passes import ahead, tiles
from polyai.loop.passes.jam import jam
from polyai.loop.passes.order import lower_loops
from polyai.loop.passes.quotients import quotients
from polyai.loop.show import show
from polyai.loop.verify import verify
from polyai.loop.walks import all_stmts
from polyai.scalar import dtype as dt
from tests.loop import kernels

WIDTH = 16


def product(depth: int, piece: int = WIDTH, start: int = WIDTH, last: int = WIDTH - 1, rows: int = 6, known: int | None = None) -> Kernel:
    """Y[i, j] = sum(k: X[i, k] * P[j // 16, k, j % 16]) in pieces of columns; `start` and `last` spoil the bounds of a piece. The number of
    rows is `known`, or a parameter."""
    m, n, c, i, j, k = (b.var(name) for name in "mncijk")
    m = m if known is None else b.const(known)
    count = b.floordiv(b.add(n, b.const(piece - 1)), b.const(piece))
    panel = b.load("P", (b.floordiv(j, b.const(piece)), k, b.mod(j, b.const(piece))), dt.f32)
    body = b.block(
        Alloc("T", dt.f32, (), Space.REGISTER),
        Store("T", (), Const(0.0, dt.f32)),
        For("k", b.ZERO, b.const(depth), kernels.acc("T", dt.f32, kernels.op("mul", Load("X", (i, k), dt.f32), panel))),
        Store("Y", (i, j), Load("T", (), dt.f32)),
    )
    lower = b.mul(c, b.const(start))
    upper = b.add(b.smallest(b.sub(n, b.ONE), b.add(b.mul(c, b.const(start)), b.const(last))), b.ONE)
    nest = For("c", b.ZERO, count, For("i", b.ZERO, m, For("j", lower, upper, body, Kind.VECTOR), Kind.JAM, jam=rows))
    arrays = (
        kernels.array("X", dt.f32, m, b.const(depth)),
        kernels.array("P", dt.f32, count, b.const(depth), b.const(piece)),
        kernels.array("Y", dt.f32, m, n, role="output"),
    )
    return Kernel("product", (kernels.size("m"), kernels.size("n"), *arrays), nest)


def arguments(m: int, n: int, depth: int) -> tuple[dict[str, Any], np.ndarray]:
    rng = np.random.default_rng(100 * m + n)
    x, w = rng.standard_normal((m, depth)).astype(np.float32), rng.standard_normal((depth, n)).astype(np.float32)
    panels = np.zeros((-(-n // WIDTH), depth, WIDTH), np.float32)
    for j in range(n):
        panels[j // WIDTH, :, j % WIDTH] = w[:, j]
    return {"m": m, "n": n, "X": x, "P": panels, "Y": np.full((m, n), np.nan, np.float32)}, x.astype(np.float64) @ w


def test_the_piece_of_a_loop_is_known() -> None:
    text = show(quotients(product(3)))
    assert "P[c, k, j - c * 16]" in text and "j //" not in text and "%" not in text


@pytest.mark.parametrize(("start", "last"), [(WIDTH, WIDTH), (8, WIDTH - 1), (24, 23), (WIDTH, 2 * WIDTH - 1)])
def test_other_bounds_tell_nothing(start: int, last: int) -> None:
    kernel = product(3, start=start, last=last)
    assert quotients(kernel) == kernel


@pytest.mark.parametrize("m", [0, 1, 2, 5, 6, 7, 13])
@pytest.mark.parametrize("n", [1, 15, 16, 33])
def test_tiles_and_tails(m: int, n: int) -> None:
    for bits in (128, 256):
        args, want = arguments(m, n, 5)
        new = lower_loops(product(5), vector_bits=bits, registers=16)
        verify(new, flat=True)
        assert run(new, args, backwards=True) == 0
        np.testing.assert_allclose(args["Y"], want, atol=1e-5)


def test_the_last_tile_repeats_a_row() -> None:
    text = show(jam(quotients(product(3))))
    assert "for i in 0..m step 6:" in text and "min(i_start + 5, i_last)" in text and "let i_last = min(i_start + i_each, m) - 1" in text
    assert text.count("for k in") == 1


@pytest.mark.parametrize("m", [*range(21), 37, 64])
def test_any_rows_in_tiles_of_about_one_height(m: int) -> None:
    """As few tiles as can be, of which none but the last has more than one row in vain."""
    args, want = arguments(m, 33, 5)
    new = lower_loops(product(5), vector_bits=256, registers=16)
    verify(new, flat=True)
    assert run(new, args, backwards=True) == 0
    np.testing.assert_allclose(args["Y"], want, atol=1e-5)
    each, count = rows_of_a_tile(m), -(-m // 6)
    assert each <= 6 and m <= each * count < m + max(count, 1)


def rows_of_a_tile(m: int) -> int:
    args = {"m": m, "Y": np.zeros(1, np.int64)}
    kernel = Kernel("rows", (kernels.size("m"), kernels.array("Y", dt.i64, b.ONE, role="output")), Store("Y", (b.ZERO,), tiles.each(b.var("m"), 6)))
    assert run(kernel, args) == 0
    return int(args["Y"][0])


@pytest.mark.parametrize("m", [*range(1, 40), 64, 100, 255, 600])
def test_known_rows_are_divided_among_fitting_tiles(m: int) -> None:
    found = tiles.heights(m, 6)
    covered = sum(height * count for height, count in found)
    assert m <= covered <= max(m + 1, m * 1.04) or (m == 7 and covered == 8)
    assert len(found) <= 2 and all(count > 0 for _, count in found)
    assert covered - m < found[-1][0], "a tile without a row"
    if m < 40:
        args, want = arguments(m, 17, 5)
        new = lower_loops(product(5, known=m), vector_bits=256, registers=16)
        verify(new, flat=True)
        assert run(new, args, backwards=True) == 0
        np.testing.assert_allclose(args["Y"], want, atol=1e-5)


def test_a_second_height_is_made_where_it_saves_something() -> None:
    assert tiles.heights(8, 6) == ((4, 2),) and tiles.heights(13, 6) == ((5, 1), (4, 2))
    assert tiles.heights(600, 6) == ((6, 100),) == tiles.heights(599, 6)
    assert tiles.heights(3, 6) == ((3, 1),) and tiles.heights(9, 4) == ((4, 3),)


def test_rows_that_are_one_tile_ask_for_what_comes_soon() -> None:
    """The panel is passed once: there is no other tile to fetch the next one in."""
    text = show(lower_loops(product(512, known=6), vector_bits=256, registers=16))
    assert text.count("prefetch") == 1 and f"+ {ahead.DISTANCE // 4}" in text and "next_panel" not in text


def test_what_adds_to_memory_is_not_repeated() -> None:
    i, j, k = (b.var(name) for name in "ijk")
    value: LoopExpr = kernels.op("add", Load("Y", (i, j), dt.f32), Load("X", (k, j), dt.f32))
    body = For("j", b.ZERO, b.var("n"), For("k", b.ZERO, b.var("l"), Store("Y", (i, j), value)), Kind.VECTOR)
    sizes = tuple(kernels.size(name) for name in "mnl")
    arrays = (kernels.array("X", dt.f32, b.var("l"), b.var("n")), kernels.array("Y", dt.f32, b.var("m"), b.var("n"), role="output"))
    kernel = Kernel("adds", (*sizes, *arrays), For("i", b.ZERO, b.var("m"), body, Kind.JAM, jam=4))
    assert "min(" not in show(jam(kernel))
    args: dict[str, Any] = {"m": 7, "n": 5, "l": 3, "X": np.ones((3, 5), np.float32), "Y": np.zeros((7, 5), np.float32)}
    assert run(lower_loops(kernel, vector_bits=128), args) == 0
    np.testing.assert_array_equal(args["Y"], np.full((7, 5), 3.0))


@pytest.mark.parametrize(("depth", "hints"), [(512, 1), (64, 0)])
def test_the_next_panel_is_fetched_if_it_is_large(depth: int, hints: int) -> None:
    kernel = lower_loops(product(depth), vector_bits=256, registers=16)
    found = [s for s in all_stmts(kernel.body) if isinstance(s, Prefetch)]
    assert len(found) == hints and not any(s.near for s in found)
    if hints:
        text = show(kernel)
        assert f"+ {depth * WIDTH}" in text and "share = (max((m + 5) // 6, 1) + 15) // max((m + 5) // 6, 1)" in text


def test_each_line_of_the_next_panel_is_asked_for() -> None:
    """The lines that hints name over all tiles, as the pass counts them, and none far behind the panel."""
    depth, line = 512, 16
    for m in (1, 6, 12, 13, 40, 256, 5000):
        tiles = -(-m // 6)
        share = (tiles + line - 1) // tiles
        named = {(min(t, line) * depth + k) * share // line for t in range(tiles) for k in range(depth)}
        assert set(range(depth)) <= named and max(named) <= depth * (1 + 2 / line) * max(1, tiles * share / line)
