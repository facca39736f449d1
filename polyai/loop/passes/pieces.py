"""Sums over everything run in parallel: the loop is cut into pieces, each with sums of its own, which are added in order.

Before::                                            After::

    for i in 0..n:                                      let n_pieces = max(1, min(16, n // each))
      for q in ...:                                     let m_then = m
        s = s + (val[begin + q] - m) * x[i]             for t in 0..n_pieces parallel:
                                                          s_own = 0.0
                                                          for i in t * n // n_pieces..(t + 1) * n // n_pieces:
                                                            for q in ...:
                                                              s_own = s_own + (val[begin + q] - m_then) * x[i]
                                                          s_each[t] = s_own
                                                        for t in 0..n_pieces:
                                                          s = s + s_each[t]

How many pieces there are depends on sizes only, so a result has the same bits with any number of threads; a short loop is one piece.
Proves what it does: nothing in the loop is stored but by adding to registers, and nothing in it reads these. Assumes that the
monoid may be reassociated, as all of the table may.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from polyai.loop import build as b
from polyai.loop.nodes import (
    Alloc,
    Apply,
    Block,
    Call,
    Const,
    For,
    If,
    Kernel,
    Kind,
    Let,
    Load,
    LoopExpr,
    Space,
    Stmt,
    Store,
    Turn,
    While,
)
from polyai.loop.passes.stretch import cost, value
from polyai.loop.walks import all_exprs, all_stmts, expressions, map_operands, map_stmt, supply, with_names
from polyai.scalar.dtype import DType
from polyai.scalar.expr import Var
from polyai.scalar.ops import MONOIDS
from polyai.term.names import Names

MOST = 16
"""Pieces at most."""
LEAST = 1 << 15
"""Operations of a piece, at least."""
_MONOID_OF = {m.op: m.name for m in MONOIDS.values()}


def pieces(kernel: Kernel, sizes: Mapping[str, int]) -> Kernel:
    """`kernel` with pieces for its loops that reduce into registers and are in no other loop; `sizes` are typical values of sizes."""
    scalars = [s for s in b.statements(kernel.body) if isinstance(s, Alloc) and s.space is Space.REGISTER and not s.extents and s.lanes == 1]
    registers = {s.name for s in all_stmts(kernel.body) if isinstance(s, Alloc) and s.space is Space.REGISTER}
    work = _Pieces({s.name: s.dtype for s in scalars}, registers, supply(kernel), sizes)
    body = work.stmt(kernel.body)
    return dataclasses.replace(kernel, body=Block((*work.each, *b.statements(body)))) if work.each else kernel


class _Pieces:
    def __init__(self, scalars: Mapping[str, DType], registers: set[str], names: Names, sizes: Mapping[str, int]) -> None:
        self.scalars, self.registers, self.names, self.sizes = scalars, registers, names, sizes
        self.each: list[Stmt] = []

    def stmt(self, s: Stmt) -> Stmt:
        match s:
            case Block(stmts):
                return Block(tuple(map(self.stmt, stmts)))
            case If(condition, then, orelse):
                return If(condition, self.stmt(then), None if orelse is None else self.stmt(orelse))
            case For(kind=Kind.SERIAL | Kind.JAM | Kind.VECTOR, step=1):
                sums = self._sums(s)
                trips = value(b.sub(s.upper, s.lower), self.sizes)
                if not sums or (trips is not None and b.number(b.sub(s.upper, s.lower)) is not None and trips * cost(s.body, {}, self.sizes) < 2 * LEAST):
                    return s
                return self._cut(s, sums)
            case _:
                return s

    def _sums(self, loop: For) -> dict[str, str]:
        """The monoid of each register that the loop reduces into; none if it does anything else."""
        found: dict[str, str] = {}
        reads: dict[str, int] = {}
        own = {s.name for s in all_stmts(loop.body) if isinstance(s, Alloc)}
        for s in all_stmts(loop.body):
            if isinstance(s, (Call, While, Turn)) or (isinstance(s, Alloc) and s.space is not Space.REGISTER) or (isinstance(s, For) and s.kind is Kind.PARALLEL):
                return {}
            for e in expressions(s):
                for x in all_exprs(e):
                    if isinstance(x, Load) and x.array in self.registers - own:
                        if x.array not in self.scalars:
                            return {}
                        reads[x.array] = reads.get(x.array, 0) + 1
            match s:
                case Store(array) if array in own:
                    pass
                case Store(array, (), Apply(op, (Load() as old, _), dtype), None) if old == Load(array, (), dtype) and array in self.scalars:
                    if _MONOID_OF.get(op) is None or found.setdefault(array, _MONOID_OF[op]) != _MONOID_OF[op]:
                        return {}
                    reads[array] -= 1
                case Store():
                    return {}
        bounds = {x.array for e in expressions(loop) for x in all_exprs(e) if isinstance(x, Load) and x.array in self.registers}
        return found if not any(reads.get(array, 0) for array in found) and bounds <= self.scalars.keys() - found.keys() else {}

    def _cut(self, loop: For, sums: Mapping[str, str]) -> Stmt:
        piece, count = self.names.fresh("piece"), self.names.fresh("pieces")
        each = {array: self.names.fresh(f"{array}_each") for array in sums}
        own = {array: self.names.fresh(f"{array}_own") for array in sums}
        types = {array: self.scalars[array] for array in sums}
        self.each += [Alloc(each[a], types[a], (b.const(MOST),), Space.KERNEL) for a in sums]
        others = {x.array for s in all_stmts(loop) for e in expressions(s) for x in all_exprs(e) if isinstance(x, Load) and x.array in self.scalars} - set(sums)
        then = {array: self.names.fresh(f"{array}_then") for array in sorted(others)}
        trips = b.sub(loop.upper, loop.lower)
        least = max(1, LEAST // max(1, cost(loop.body, {}, self.sizes)))
        lower, upper = (b.add(loop.lower, b.floordiv(b.mul(at, trips), b.var(count))) for at in (b.var(piece), b.add(b.var(piece), b.ONE)))

        def change(e: LoopExpr) -> LoopExpr:
            e = map_operands(e, change)
            return Var(then[e.array], e.dtype) if isinstance(e, Load) and e.array in then else e

        starts = [x for a in sums for x in (Alloc(own[a], types[a], (), Space.REGISTER), Store(own[a], (), Const(MONOIDS[sums[a]].identity(types[a]), types[a])))]
        inner = dataclasses.replace(loop, lower=change(lower), upper=change(upper), body=with_names(map_stmt(loop.body, change), own))
        ends = [Store(each[a], (b.var(piece),), b.load(own[a], (), types[a])) for a in sums]
        joined = [
            Store(a, (), b.apply(MONOIDS[sums[a]].op, (b.load(a, (), types[a]), b.load(each[a], (b.var(piece),), types[a])), types[a])) for a in sums
        ]
        return b.block(
            *(Let(then[a], b.load(a, (), self.scalars[a])) for a in then),
            Let(count, b.largest(b.ONE, b.smallest(b.const(MOST), b.floordiv(trips, b.const(least))))),
            For(piece, b.ZERO, b.var(count), b.block(*starts, inner, *ends), Kind.PARALLEL, cost=LEAST),
            For(piece, b.ZERO, b.var(count), b.block(*joined)),
        )
