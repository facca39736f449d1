"""In a loop over one piece, the number of the piece and the place in it are known.

Before::                                            After::

    for c in 0..(n - 1) // 32 + 1:                      for c in 0..(n - 1) // 32 + 1:
      for j in c * 32..min(n - 1, c * 32 + 31) + 1:       for j in c * 32..min(n - 1, c * 32 + 31) + 1:
        Y[j] = P[j // 32, k, j % 32]                        Y[j] = P[c, k, j - c * 32]

So that an array stored in pieces is read along memory. Proves what it does: the bounds of the loop say which piece it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from polyai.loop import build as b
from polyai.loop.nodes import Apply, Block, Const, For, If, Kernel, LoopExpr, Stmt, Var, While
from polyai.loop.walks import all_exprs, expressions, map_operands, map_stmt

Pieces = Mapping[tuple[str, int], LoopExpr]
"""(loop variable, length) -> the number of the piece of that length that the variable stays in."""


def quotients(kernel: Kernel) -> Kernel:
    """`kernel` without quotients and remainders that loops tell."""
    return dataclasses.replace(kernel, body=_stmt(kernel.body, {}))


def _stmt(s: Stmt, known: Pieces) -> Stmt:
    match s:
        case Block(stmts):
            return Block(tuple(_stmt(x, known) for x in stmts))
        case For():
            inner = {key: piece for key, piece in known.items() if key[0] != s.var}
            found = piece_of(s)
            if found is not None:
                inner[s.var, found[0]] = found[1]
            lower, upper = (_expr(e, known) for e in (s.lower, s.upper))
            return dataclasses.replace(s, lower=lower, upper=upper, body=_stmt(s.body, inner))
        case While(condition, body):
            return While(_expr(condition, known), _stmt(body, known))
        case If(condition, then, orelse):
            return If(_expr(condition, known), _stmt(then, known), None if orelse is None else _stmt(orelse, known))
        case _:
            if not known or not any(isinstance(x, Apply) and x.op in ("floordiv", "mod") for e in expressions(s) for x in all_exprs(e)):
                return s
            return map_stmt(s, lambda e: _expr(e, known))


def _expr(expr: LoopExpr, known: Pieces) -> LoopExpr:
    match expr:
        case Apply("floordiv" | "mod" as op, (Var(name), Const(value))) if isinstance(value, int) and (name, value) in known:
            piece = known[name, value]
            return piece if op == "floordiv" else b.sub(b.var(name), b.mul(piece, b.const(value)))
        case _:
            return map_operands(expr, lambda e: _expr(e, known)) if known else expr


def piece_of(loop: For) -> tuple[int, LoopExpr] | None:
    """(length, number) of the piece that holds all iterations; None if the bounds name none."""
    match loop.lower:
        case Apply("mul", (piece, Const() as factor)):
            length = b.number(factor)
        case _:
            return None
    if length is None or length < 1:
        return None
    end = b.add(loop.lower, b.const(length))
    match loop.upper:
        case Apply("add", (Apply("min", limits), Const() as one)) if b.number(one) == 1:
            inside = b.add(loop.lower, b.const(length - 1)) in limits
        case Apply("min", limits):
            inside = end in limits
        case upper:
            inside = upper == end
    return (length, piece) if inside else None
