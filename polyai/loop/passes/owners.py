"""Sums that memory scatters over many rows are shared by rows: each thread passes over the whole list and takes the elements of its rows.

Before::                                                After::

    for c in 0..(w - 1) // 16 + 1 parallel stretch:         for p in 0..64 parallel stretch=p_end:
      for q in 0..n:                                          let low = p * rows // 64; let high = p_end * rows // 64
        let i = crd0[q]; check i < rows                       for q in 0..n:
        let k = crd1[q]; check k < columns                      let i = crd0[q]; check i < rows
        for j in c * 16..min(w - 1, c * 16 + 15) + 1 vector:    if low <= i and i < high:
          Y[i * w + j] = Y[i * w + j]                             let k = crd1[q]; check k < columns
                       + val[q] * X[k * w + j]                    for j in 0..w vector: Y[i * w + j] = ...

where rows are too narrow to be shared by columns. To look at a coordinate costs little beside a row of products, and nothing is copied: the
order in which elements are added to a row is that of the list, whatever the number of threads. Proves what it does: rows do not
overlap, and each element is stored to by the thread whose row it is in.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from polyai.loop import build as b
from polyai.loop.nodes import Apply, Block, Cast, Check, For, If, Kernel, Kind, Let, Load, LoopExpr, Stmt, Store, Var
from polyai.loop.passes.depend import depends
from polyai.loop.passes.stretch import value as typical
from polyai.loop.walks import all_exprs, expressions, supply
from polyai.scalar.ops import MONOIDS
from polyai.term.names import Names

PIECES = 64
"""Into how many pieces rows are cut, neighbours of which one thread takes at once."""
WIDE = 64
"""Elements of a row from which its columns are shared."""
_OPS = frozenset(m.op for m in MONOIDS.values())


def owners(kernel: Kernel, sizes: Mapping[str, int]) -> Kernel:
    """`kernel` with its narrow scattered sums shared by rows; `sizes` are typical values of sizes and lengths."""
    return dataclasses.replace(kernel, body=_stmt(kernel.body, supply(kernel), sizes))


def _stmt(s: Stmt, names: Names, sizes: Mapping[str, int]) -> Stmt:
    match s:
        case Block(stmts):
            return Block(tuple(_stmt(x, names, sizes) for x in stmts))
        case If(condition, then, orelse):
            return If(condition, _stmt(then, names, sizes), None if orelse is None else _stmt(orelse, names, sizes))
        case For(kind=Kind.PARALLEL):
            return _shared(s, names, sizes) or s
        case _:
            return s


def _shared(loop: For, names: Names, sizes: Mapping[str, int]) -> For | None:
    """`loop`, over pieces of columns, as one over pieces of rows; None if it is something else, or wide."""
    match b.statements(loop.body):
        case (For(kind=Kind.SERIAL, step=1) as walk,) if loop.stretch is not None and loop.lower == b.ZERO:
            pass
        case _:
            return None
    *steps, lanes = b.statements(walk.body) or (Block(()),)
    if not isinstance(lanes, For) or lanes.kind is not Kind.VECTOR or not all(isinstance(s, (Let, Check)) for s in steps):
        return None
    width = _whole(lanes, loop)
    match b.statements(lanes.body):
        case (Store(array, (at,), Apply(op, (old, value), dtype), None),) if old == Load(array, (at,), dtype) and op in _OPS:  # type: ignore[arg-type]
            row = None if width is None else _row(at, lanes.var, width)
        case _:
            return None
    if width is None or row is None or any(isinstance(x, Load) and x.array == array for x in all_exprs(value)):
        return None
    first = [n for n, s in enumerate(steps) if (isinstance(s, Let) and s.name == row) or (isinstance(s, Check) and depends(s.ok, {row}))]
    rows = next((_bound(s, row) for s in steps if isinstance(s, Check) and _bound(s, row) is not None), None)
    wide = typical(width, sizes)
    if rows is None or wide is None or wide >= WIDE or any(depends(e, _names(steps, first)) for n in first for e in expressions(steps[n])):
        return None
    piece, end, low, high = (names.fresh(n) for n in ("piece", "piece_end", "low", "high"))
    mine = b.both(b.compare("le", b.var(low), b.var(row)), b.compare("lt", b.var(row), b.var(high)))
    rest = tuple(s for n, s in enumerate(steps) if n not in first)
    body = Block((*(steps[n] for n in first), If(mine, Block((*rest, dataclasses.replace(lanes, lower=b.ZERO, upper=width))))))
    bounds = tuple(Let(n, b.floordiv(b.mul(b.var(p), rows), b.const(PIECES))) for n, p in ((low, piece), (high, end)))
    walked = dataclasses.replace(walk, body=body)
    each = max(1, loop.cost * max(1, -(-wide // 16)) // PIECES)
    return dataclasses.replace(loop, var=piece, upper=b.const(PIECES), body=Block((*bounds, walked)), stretch=end, cost=each)


def _whole(lanes: For, loop: For) -> LoopExpr | None:
    """How far a loop over pieces of columns goes in all: its end is the smaller one of that and of the pieces' end."""
    match lanes.upper:
        case Apply("min", (x, y)):
            own = [e for e in (x, y) if loop.stretch is not None and not depends(e, {loop.var, loop.stretch})]
            return own[0] if len(own) == 1 else None
        case _:
            return None


def _row(at: LoopExpr, column: str, width: LoopExpr) -> str | None:
    """The name of the row in row * width + column."""
    match at:
        case Apply("add", (Apply("mul", (Var(row), w)), Var(j))) if j == column and w == width:
            return row
        case _:
            return None


def _bound(s: Stmt, name: str) -> LoopExpr | None:
    """The extent that a Check says `name` stays below."""
    match s:
        case Check(Apply("lt", (Cast(Var(x)), Cast(bound)))) if x == name:
            return bound
        case _:
            return None


def _names(steps: list[Stmt], but: list[int]) -> set[str]:
    """What the other steps define."""
    return {s.name for n, s in enumerate(steps) if isinstance(s, Let) and n not in but}
