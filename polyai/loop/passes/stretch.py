"""A thread runs neighbouring pieces of a loop as one piece, where each piece repeats the work of loops around it.

Before::                                            After::

    for c in 0..m // 16 parallel:                       for c in 0..m // 16 parallel stretch=c_end:
      for k in 0..n:                                      for k in 0..n:
        ... reads of row k, the same for every piece        ... once for all pieces of a thread
        for j in c * 16..min(m - 1, c * 16 + 15) + 1:       for j in c * 16..min(m, c_end * 16):
          Y[crd[k], j] = ...                                  Y[crd[k], j] = ...

So one thread makes one pass, and several share the pieces evenly. The order of what happens to one element stays. Proves what
it does: the iterations of a parallel loop may run in any order, mixed with each other, and nothing in the body but the bounds
of the loop over the piece names the piece.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from polyai.loop import build as b
from polyai.loop.nodes import Alloc, Apply, Block, For, If, Kernel, Kind, LoopExpr, Space, Stmt, Var, While
from polyai.loop.walks import all_exprs, all_stmts, expressions, supply
from polyai.scalar.expr import Const
from polyai.term.names import Names

UNKNOWN = 16
"""Iterations of a loop whose bounds typical sizes do not tell."""


def stretch(kernel: Kernel, sizes: Mapping[str, int]) -> Kernel:
    """`kernel` with stretches for its parallel loops over pieces; `sizes` are typical values of sizes and of fibres' lengths."""
    return dataclasses.replace(kernel, body=_stmt(kernel.body, supply(kernel), sizes))


def _stmt(s: Stmt, names: Names, sizes: Mapping[str, int]) -> Stmt:
    match s:
        case Block(stmts):
            return Block(tuple(_stmt(x, names, sizes) for x in stmts))
        case For(kind=Kind.PARALLEL):
            return _parallel(s, names, sizes)
        case For():
            return dataclasses.replace(s, body=_stmt(s.body, names, sizes))
        case While(condition, body):
            return While(condition, _stmt(body, names, sizes))
        case If(condition, then, orelse):
            return If(condition, _stmt(then, names, sizes), None if orelse is None else _stmt(orelse, names, sizes))
        case _:
            return s


def _parallel(loop: For, names: Names, sizes: Mapping[str, int]) -> For:
    if loop.weight is not None or loop.step != 1 or loop.stretch is not None or any(isinstance(s, For) for s in b.statements(loop.body)) is False:
        return loop
    pieces = {id(s): e for s in all_stmts(loop.body) if isinstance(s, For) and (e := _piece(s, loop.var)) is not None}
    outer = [s for s in b.statements(loop.body) if isinstance(s, For)]
    repeats = any(id(s) not in pieces for s in outer)
    if not pieces or not repeats or not _only_pieces_name(loop, set(pieces)):
        return loop
    if any(isinstance(s, Alloc) and s.space is not Space.REGISTER for s in all_stmts(loop.body)):
        return loop
    end = names.fresh(f"{loop.var}_end")
    body = _widened(loop.body, pieces, b.var(end))
    return dataclasses.replace(loop, body=body, stretch=end, cost=max(loop.cost, cost(loop.body, pieces, sizes)))


def _piece(loop: For, piece: str) -> tuple[int, LoopExpr] | None:
    """(length, end of the whole) of a loop over piece * length..min(whole - 1, piece * length + length - 1) + 1."""
    match loop.lower:
        case Apply("mul", (Var(name), Const() as factor)) if name == piece and loop.step == 1:
            length = b.number(factor)
        case _:
            return None
    match loop.upper:
        case Apply("add", (Apply("min", (last, mine)), Const() as one)) if length is not None and b.number(one) == 1:
            start = b.mul(b.var(piece), b.const(length))
            if mine == b.add(start, b.const(length - 1)):
                return length, b.add(last, b.ONE)
    return None


def _only_pieces_name(loop: For, pieces: set[int]) -> bool:
    """Whether nothing else in the body names the piece."""
    for s in all_stmts(loop.body):
        if id(s) not in pieces and any(isinstance(x, Var) and x.name == loop.var for e in expressions(s) for x in all_exprs(e)):
            return False
    return True


def _widened(s: Stmt, pieces: Mapping[int, tuple[int, LoopExpr]], end: LoopExpr) -> Stmt:
    match s:
        case Block(stmts):
            return Block(tuple(_widened(x, pieces, end) for x in stmts))
        case For():
            body = _widened(s.body, pieces, end)
            if id(s) not in pieces:
                return dataclasses.replace(s, body=body)
            length, whole = pieces[id(s)]
            return dataclasses.replace(s, upper=b.smallest(whole, b.mul(end, b.const(length))), body=body)
        case While(condition, body):
            return While(condition, _widened(body, pieces, end))
        case If(condition, then, orelse):
            return If(condition, _widened(then, pieces, end), None if orelse is None else _widened(orelse, pieces, end))
        case _:
            return s


def cost(s: Stmt, pieces: Mapping[int, tuple[int, LoopExpr]], sizes: Mapping[str, int]) -> int:
    """Scalar operations of one piece at typical sizes."""
    match s:
        case Block(stmts):
            return sum(cost(x, pieces, sizes) for x in stmts)
        case For(lower=lower, upper=upper, body=body):
            trips = pieces[id(s)][0] if id(s) in pieces else value(b.sub(upper, lower), sizes)
            return max(1, UNKNOWN if trips is None else trips) * cost(body, pieces, sizes)
        case If(_, then, orelse):
            return max(cost(then, pieces, sizes), 0 if orelse is None else cost(orelse, pieces, sizes))
        case While(_, body):
            return UNKNOWN * cost(body, pieces, sizes)
        case _:
            return 1


def value(expr: LoopExpr, sizes: Mapping[str, int]) -> int | None:
    """A number of iterations or elements at typical sizes; None if they do not tell."""
    match expr:
        case Const():
            return b.number(expr)
        case Var(name):
            return sizes.get(name)
        case Apply("max" | "min", (Const(), other) | (other, Const())):
            return value(other, sizes)
        case Apply("add" | "sub" | "mul" as op, (x, y)):
            left, right = value(x, sizes), value(y, sizes)
            if left is None or right is None:
                return None
            return left + right if op == "add" else left - right if op == "sub" else left * right
        case _:
            return None
