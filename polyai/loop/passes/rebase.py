"""Loops in lanes over a fibre count the positions themselves: one number says where every array is read.

Before::                                      After::

    let len = end - begin                         let len = end - begin
    for q in 0..len vector:                       for q in begin..end vector:
      T = T + a[begin + q] * x[crd[begin + q]]      T = T + a[q] * x[crd[q]]

Only for loops whose variable stands in sums with one and the same name, which no step inside defines.
Proves what it does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from polyai.loop import build as b
from polyai.loop.nodes import Apply, Block, For, If, Kernel, Kind, Let, LoopExpr, Stmt, Var, While
from polyai.loop.walks import all_exprs, all_stmts, expressions, map_operands, map_stmt
from polyai.scalar import dtype as dt


def rebase(kernel: Kernel) -> Kernel:
    """`kernel` with such loops counted from where their fibres begin."""
    return dataclasses.replace(kernel, body=_stmt(kernel.body, {}))


def _stmt(s: Stmt, ends: Mapping[tuple[str, str], str]) -> Stmt:
    """`ends`: (begin, length) -> end."""
    match s:
        case Block(stmts):
            out, here = [], dict(ends)
            for one in stmts:
                if isinstance(one, Let):
                    here = {key: end for key, end in here.items() if one.name not in (*key, end)}
                match one:
                    case Let(length, Apply("sub", (Var(end), Var(begin)), dt.i64)):
                        here[begin, length] = end
                    case _:
                        pass
                out.append(_stmt(one, here))
            return Block(tuple(out))
        case For(kind=Kind.VECTOR):
            return _rebased(s, ends)
        case For():
            return dataclasses.replace(s, body=_stmt(s.body, ends))
        case If(condition, then, orelse):
            return If(condition, _stmt(then, ends), None if orelse is None else _stmt(orelse, ends))
        case While(condition, body):
            return While(condition, _stmt(body, ends))
        case _:
            return s


def _rebased(loop: For, ends: Mapping[tuple[str, str], str]) -> For:
    if loop.lower != b.ZERO or loop.step != 1 or not isinstance(loop.upper, Var):
        return loop
    used = [x for s in all_stmts(loop.body) for e in expressions(s) for x in all_exprs(e)]
    begins = {begin for x in used if (begin := _begin(x, loop.var)) is not None}
    counted = sum(isinstance(x, Var) and x.name == loop.var for x in used)
    begin = next(iter(begins), "")
    end = ends.get((begin, loop.upper.name))
    inside = {s.name for s in all_stmts(loop.body) if isinstance(s, Let)} | {s.var for s in all_stmts(loop.body) if isinstance(s, For)}
    if len(begins) != 1 or counted != sum(_begin(x, loop.var) == begin for x in used) or end is None or inside & {begin, end, loop.var}:
        return loop
    here = b.var(loop.var)

    def moved(expr: LoopExpr) -> LoopExpr:
        return here if _begin(expr, loop.var) == begin else map_operands(expr, moved)

    return dataclasses.replace(loop, lower=b.var(begin), upper=b.var(end), body=_forwarded(map_stmt(loop.body, moved), loop.var))


def _begin(expr: LoopExpr, variable: str) -> str | None:
    """x of x + variable."""
    match expr:
        case Apply("add", (Var(x), Var(y)), dt.i64) if variable in (x, y) and x != y:
            return y if x == variable else x
        case _:
            return None


def _forwarded(body: Stmt, variable: str) -> Stmt:
    """`body` with the variable in place of names that only repeat it."""
    same = {s.name for s in all_stmts(body) if isinstance(s, Let) and s.value == b.var(variable)}

    def named(expr: LoopExpr) -> LoopExpr:
        return b.var(variable) if isinstance(expr, Var) and expr.name in same else map_operands(expr, named)

    def without(s: Stmt) -> Stmt:
        match s:
            case Block(stmts):
                return Block(tuple(without(x) for x in stmts if not (isinstance(x, Let) and x.name in same)))
            case For() | While():
                return dataclasses.replace(s, body=without(s.body))
            case If(condition, then, orelse):
                return If(condition, without(then), None if orelse is None else without(orelse))
            case _:
                return s

    return map_stmt(without(body), named)
