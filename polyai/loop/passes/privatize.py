"""Sums that are scattered run in parallel: each piece of the loop has its own copy of the result, and copies are added in order.

Before::                                        After::

    for j in 0..m:                                  alloc Y_own: f64[4 * n] kernel
      for q in 0..len:                              for t in 0..4 parallel:
        let c = i64(crd[begin + q])                   for i in 0..n vector: Y_own[t * n + i] = 0.0
        check c < n                                   for j in t * m // 4..(t + 1) * m // 4:
        Y[c] = Y[c] + val[begin + q] * x[j]             for q in 0..len:
                                                          let c = ...; check c < n
                                                          Y_own[t * n + c] = Y_own[t * n + c] + val[begin + q] * x[j]
                                                    for b in 0..n // 4096 parallel:
                                                      for i in b * 4096..min(n, b * 4096 + 4096) vector:
                                                        Y[i] = Y[i] + Y_own[i] + Y_own[n + i] + ...

How many pieces there are depends on typical sizes only: as many as the sums outweigh making and adding copies. So a result has
the same bits with any number of threads. Proves what it does: nothing in the loop is stored but by adding to Y, and nothing else
reads Y. Assumes that the monoid may be reassociated, as all of the table may.
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
    MaskedLoad,
    Space,
    Stmt,
    Store,
)
from polyai.loop.passes.stretch import cost, value
from polyai.loop.walks import all_exprs, all_stmts, expressions, map_operands, map_stmt, supply
from polyai.scalar.dtype import DType
from polyai.scalar.ops import MONOIDS
from polyai.term.names import Names

LITTLE = 1 << 16
"""Operations that are not worth several threads and copies."""
MOST = 8
"""Pieces at most."""
SHARE = 16
"""Operations of a piece for each element of its copy, at least."""
CHUNK = 4096
"""Elements that one task adds up."""
_MONOID_OF = {m.op: m.name for m in MONOIDS.values()}


def privatize(kernel: Kernel, sizes: Mapping[str, int]) -> Kernel:
    """`kernel` with pieces for its serial loops that scatter sums; `sizes` are typical values of sizes and fibres' lengths."""
    extents = {p.name: p.extents[0] for p in kernel.params if p.role == "output" and p.extents is not None and len(p.extents) == 1}
    work = _Privatize(extents, supply(kernel), sizes)
    return dataclasses.replace(kernel, body=work.stmt(kernel.body)) if extents else kernel


class _Privatize:
    def __init__(self, extents: Mapping[str, LoopExpr], names: Names, sizes: Mapping[str, int]) -> None:
        self.extents, self.names, self.sizes = extents, names, sizes

    def stmt(self, s: Stmt) -> Stmt:
        """`s`, which no loop is around."""
        match s:
            case Block(stmts):
                return Block(tuple(map(self.stmt, stmts)))
            case If(condition, then, orelse):
                return If(condition, self.stmt(then), None if orelse is None else self.stmt(orelse))
            case For(kind=Kind.SERIAL, step=1):
                found = _scattered(s)
                if found is None or found[0] not in self.extents:
                    return s
                pieces = self._pieces(s, self.extents[found[0]])
                return s if pieces < 2 else self._split(s, *found, pieces)
            case _:
                return s

    def _pieces(self, loop: For, extent: LoopExpr) -> int:
        """How many pieces pay; a power of two."""
        work, length = cost(loop, {}, self.sizes), value(extent, self.sizes)
        pieces = 1
        while work >= LITTLE and length is not None and pieces < MOST and work >= 2 * pieces * SHARE * length:
            pieces *= 2
        return pieces

    def _split(self, loop: For, array: str, monoid: str, dtype: DType, pieces: int) -> Stmt:
        extent, op = self.extents[array], MONOIDS[monoid].op
        own, piece, i, block = (self.names.fresh(n) for n in (f"{array}_own", "piece", "i", "i_block"))

        def moved(expr: LoopExpr) -> LoopExpr:
            expr = map_operands(expr, moved)
            if isinstance(expr, Load) and expr.array == array:
                return b.load(own, (b.add(b.mul(b.var(piece), extent), expr.indices[0]),), dtype)
            return expr

        start = For(
            i, b.ZERO, extent, Store(own, (b.add(b.mul(b.var(piece), extent), b.var(i)),), Const(MONOIDS[monoid].identity(dtype), dtype)), Kind.VECTOR
        )
        trips = b.sub(loop.upper, loop.lower)
        lower, upper = (b.add(loop.lower, b.floordiv(b.mul(at, trips), b.const(pieces))) for at in (b.var(piece), b.add(b.var(piece), b.ONE)))
        body = _renamed(map_stmt(loop.body, moved), array, own, b.mul(b.var(piece), extent))
        inner = dataclasses.replace(loop, lower=lower, upper=upper, body=body)
        each = max(1, cost(loop, {}, self.sizes) // pieces)
        total: LoopExpr = b.load(array, (b.var(i),), dtype)
        for k in range(pieces):
            total = b.apply(op, (total, b.load(own, (b.add(b.mul(b.const(k), extent), b.var(i)),), dtype)), dtype)
        first = b.mul(b.var(block), b.const(CHUNK))
        added = For(i, first, b.smallest(extent, b.add(first, b.const(CHUNK))), Store(array, (b.var(i),), total), Kind.VECTOR)
        blocks = b.floordiv(b.add(extent, b.const(CHUNK - 1)), b.const(CHUNK))
        return Block((
            Alloc(own, dtype, (b.mul(b.const(pieces), extent),), Space.KERNEL),
            For(piece, b.ZERO, b.const(pieces), Block((start, inner)), Kind.PARALLEL, cost=each),
            For(block, b.ZERO, blocks, added, Kind.PARALLEL, cost=CHUNK * (pieces + 1)),
        ))  # fmt: skip


def _scattered(loop: For) -> tuple[str, str, DType] | None:
    """(array, monoid, type) if all that the loop does is to combine elements of one array with values that do not read it."""
    found: tuple[str, str, DType] | None = None
    inner = {s.name for s in all_stmts(loop.body) if isinstance(s, (Alloc, Let))}
    reads = stores = 0
    for s in all_stmts(loop.body):
        if isinstance(s, (Call, Alloc)) or (isinstance(s, For) and s.kind is Kind.PARALLEL):
            return None
        if isinstance(s, Store):
            match s:
                case Store(array, (at,), Apply(op, (Load() as old, _), dtype), None) if old == Load(array, (at,), dtype) and op in _MONOID_OF:  # type: ignore[arg-type]
                    if found not in (None, (array, _MONOID_OF[op], dtype)):
                        return None
                    found = array, _MONOID_OF[op], dtype
                    stores += 1
                case _:
                    return None
    if found is None or found[0] in inner or not _by_memory(loop, found[0]):
        return None
    for s in all_stmts(loop.body):
        for e in expressions(s):
            reads += sum(isinstance(x, (Load, MaskedLoad)) and x.array == found[0] for x in all_exprs(e))
    return found if reads == stores else None


def _by_memory(loop: For, array: str) -> bool:
    """Whether a place in `array` is read from memory: others would be scheduled without copies."""
    known = {s.name for s in all_stmts(loop.body) if isinstance(s, Let) and any(isinstance(x, Load) for x in all_exprs(s.value))}
    places = [e for s in all_stmts(loop.body) if isinstance(s, Store) and s.array == array for i in s.indices for e in all_exprs(i)]
    return any(isinstance(e, Load) or getattr(e, "name", None) in known for e in places)


def _renamed(s: Stmt, array: str, own: str, offset: LoopExpr) -> Stmt:
    """`s` with its stores to `array` going to `own`, `offset` further on."""
    match s:
        case Block(stmts):
            return Block(tuple(_renamed(x, array, own, offset) for x in stmts))
        case For():
            return dataclasses.replace(s, body=_renamed(s.body, array, own, offset))
        case If(condition, then, orelse):
            return If(condition, _renamed(then, array, own, offset), None if orelse is None else _renamed(orelse, array, own, offset))
        case Store(name, (at,), what) if name == array:
            return Store(own, (b.add(offset, at),), what)
        case _:
            return s


