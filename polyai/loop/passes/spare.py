"""The last tile of rows is a whole one where all that it writes has rows to spare.

Before::                                            After::

    alloc T: f32[12, 1040] thread                       alloc T: f32[12, 1040] thread
    for i in c * 12..min(m, c * 12 + 12) jam=6:         for t in c * 12..min(m, c * 12 + 12) step 6:
      for j in 0..n vector:                               for u in 0..6 jam=6:
        T[i - c * 12, j] = ... A[i, k]                      let place = t + u - c * 12
                                                            let row = min(t + u, min(m, c * 12 + 12) - 1)
                                                            for j in 0..n vector:
                                                              T[place, j] = ... A[row, k]

So one version of the tile serves any number of rows. Proves what it does: what is read elsewhere is what the last row reads,
and the rows beyond it lie inside the buffer, whose other indices stay as they are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from polyai.loop import build as b
from polyai.loop.nodes import (
    Alloc,
    Block,
    Call,
    For,
    If,
    Kernel,
    Kind,
    Let,
    Load,
    LoopExpr,
    MaskedLoad,
    Space,
    Stmt,
    Store,
    Var,
    While,
)
from polyai.loop.passes.depend import depends, varying
from polyai.loop.passes.quotients import piece_of
from polyai.loop.walks import all_exprs, all_stmts, expressions, map_operands, map_stmt, supply
from polyai.term.names import Names

Buffers = Mapping[str, tuple[LoopExpr, ...]]


def spare(kernel: Kernel) -> Kernel:
    """`kernel` with whole tiles of rows, where buffers have room for them."""
    buffers = {s.name: s.extents for s in all_stmts(kernel.body) if isinstance(s, Alloc) and s.space is Space.THREAD}
    return dataclasses.replace(kernel, body=_stmt(kernel.body, buffers, supply(kernel))) if buffers else kernel


def _stmt(s: Stmt, buffers: Buffers, names: Names) -> Stmt:
    match s:
        case Block(stmts):
            return Block(tuple(_stmt(x, buffers, names) for x in stmts))
        case For(kind=Kind.JAM) if _has_room(s, buffers):
            return _in_whole_tiles(s, buffers, names)
        case For():
            return dataclasses.replace(s, body=_stmt(s.body, buffers, names))
        case While(condition, body):
            return While(condition, _stmt(body, buffers, names))
        case If(condition, then, orelse):
            return If(condition, _stmt(then, buffers, names), None if orelse is None else _stmt(orelse, buffers, names))
        case _:
            return s


def _has_room(loop: For, buffers: Buffers) -> bool:
    """True if whole tiles write nothing but rows of buffers, counted from the start of the loop, and all of those exist."""
    piece = piece_of(loop)
    if loop.jam == 1 or loop.step != 1 or piece is None or piece[0] % loop.jam:
        return False
    changing = varying(loop.body, loop.var)
    for s in all_stmts(loop.body):
        if isinstance(s, (Call, While)) or (isinstance(s, Alloc) and s.space is not Space.REGISTER):
            return False
        if isinstance(s, Store) and s.indices and (s.array not in buffers or not _is_row(loop, s.indices, buffers[s.array], piece[0], changing)):
            return False
        for e in expressions(s):
            for x in all_exprs(e):
                if isinstance(x, (Load, MaskedLoad)) and x.array in buffers and not _is_row(loop, x.indices, buffers[x.array], piece[0], changing):
                    return False
    return True


def _is_row(loop: For, indices: tuple[LoopExpr, ...], extents: tuple[LoopExpr, ...], rows: int, changing: set[str]) -> bool:
    """True if one index is the place of the loop's variable in its piece, has `rows` values, and no other depends on it."""
    mine = [n for n, index in enumerate(indices) if index == _place(loop)]
    if len(mine) != 1 or any(depends(index, changing) for n, index in enumerate(indices) if n != mine[0]):
        return False
    extent = b.number(extents[mine[0]])
    return extent is not None and extent >= rows


def _place(loop: For) -> LoopExpr:
    return b.sub(b.var(loop.var), loop.lower)


def _in_whole_tiles(loop: For, buffers: Buffers, names: Names) -> For:
    tile, copy, place, row = (names.fresh(f"{loop.var}_{what}") for what in ("tile", "copy", "place", "row"))

    def clamped(e: LoopExpr) -> LoopExpr:
        if isinstance(e, Var):
            return b.var(row) if e.name == loop.var else e
        if isinstance(e, (Load, MaskedLoad)) and e.array in buffers:
            indices = placed(e.indices)
            return b.load(e.array, indices, e.dtype) if isinstance(e, Load) else MaskedLoad(e.array, indices, clamped(e.mask), e.dtype)
        return map_operands(e, clamped)

    def placed(indices: tuple[LoopExpr, ...]) -> tuple[LoopExpr, ...]:
        return tuple(b.var(place) if i == _place(loop) else clamped(i) for i in indices)

    def stmt(s: Stmt) -> Stmt:
        match s:
            case Block(stmts):
                return Block(tuple(map(stmt, stmts)))
            case For():
                return dataclasses.replace(s, lower=clamped(s.lower), upper=clamped(s.upper), body=stmt(s.body))
            case If(condition, then, orelse):
                return If(clamped(condition), stmt(then), None if orelse is None else stmt(orelse))
            case Store(array, indices, value, mask) if array in buffers:
                return Store(array, placed(indices), clamped(value), None if mask is None else clamped(mask))
            case _:
                return map_stmt(s, clamped)

    here, last = b.add(b.var(tile), b.var(copy)), b.sub(loop.upper, b.ONE)
    known = (Let(place, b.sub(here, loop.lower)), Let(row, b.smallest(here, last)))
    inner = For(copy, b.ZERO, b.const(loop.jam), Block((*known, *b.statements(stmt(loop.body)))), Kind.JAM, jam=loop.jam)
    return For(tile, loop.lower, loop.upper, inner, step=loop.jam)
