"""Arithmetic on numbers is done, loops that run once or never go, values that nobody reads go.

Before::                                After::

    let a = n * 1 + 0                       for i in 0..n:
    for i in 0..a:                            Y[i] = 0.0
      let b = X[i]
      for j in 0..1:
        Y[i * 1 + j] = 0.0

Proves what it does: numbers are computed, nothing is assumed about sizes but that parameters are not negative.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from polyai.loop import build as b
from polyai.loop.nodes import (
    Alloc,
    Apply,
    Block,
    Cast,
    Check,
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
    Turn,
    Var,
    While,
)
from polyai.loop.walks import expressions, map_operands, map_stmt, operands
from polyai.scalar import dtype as dt

_FOLD: dict[str, Callable[[LoopExpr, LoopExpr], LoopExpr]] = {
    "add": b.add, "sub": b.sub, "mul": b.mul, "floordiv": b.floordiv, "mod": b.mod, "min": b.smallest, "max": b.largest,
}  # fmt: skip
_LOGIC: dict[str, Callable[[LoopExpr, LoopExpr], LoopExpr]] = {"and": b.both, "or": b.either}
_COMPARISONS = frozenset(("lt", "le", "gt", "ge", "eq", "ne"))


def simplify(kernel: Kernel) -> Kernel:
    """`kernel` with less to do."""
    body = _Folder().stmt(kernel.body)
    return dataclasses.replace(kernel, body=_living(body, set()) or Block(()))


def prune(kernel: Kernel) -> Kernel:
    """`kernel` without values and registers that nobody reads."""
    return dataclasses.replace(kernel, body=_living(kernel.body, set()) or Block(()))


class _Folder:
    """`known`: Lets that are numbers or other names. `ends`: variables of loops from 0, and numbers that they stay below."""

    def __init__(self) -> None:
        self.known: dict[str, LoopExpr] = {}
        self.ends: dict[str, int] = {}

    def expr(self, expr: LoopExpr) -> LoopExpr:
        if type(expr) is Var:
            return self.known.get(expr.name, expr)
        if type(expr) is Const:
            return expr
        expr = map_operands(expr, self.expr)
        if isinstance(expr, Apply):
            return self._small(fold(expr))
        if isinstance(expr, MaskedLoad) and expr.mask == b.TRUE:
            return b.load(expr.array, expr.indices, expr.dtype)
        return expr

    def _small(self, expr: LoopExpr) -> LoopExpr:
        """i % n is i where i stays below n."""
        match expr:
            case Apply("mod", (Var(name) as small, Const(int(n)))) if self.ends.get(name, n + 1) <= n:
                return small
            case _:
                return expr

    def stmt(self, stmt: Stmt) -> Stmt:
        match stmt:
            case Block(stmts):
                outer = dict(self.known)
                out: list[Stmt] = []
                for s in stmts:
                    new = self.stmt(s)
                    if isinstance(new, Block) and not any(isinstance(x, (Let, Alloc)) for x in new.stmts):
                        out.extend(new.stmts)
                    elif not (isinstance(new, Block) and not new.stmts):
                        out.append(new)
                self.known = outer
                return Block(tuple(out))
            case Let(name, value):
                found = self.expr(value)
                if isinstance(found, (Const, Var)):
                    self.known[name] = found
                return Let(name, found)
            case Check(ok, site, culprit):
                test = self.expr(ok)
                return Block(()) if test == b.TRUE else Check(test, site, None if culprit is None else self.expr(culprit))
            case If(condition, then, orelse):
                test = self.expr(condition)
                if isinstance(test, Const):
                    return self.stmt(then) if test.value else Block(()) if orelse is None else self.stmt(orelse)
                other = None if orelse is None else self.stmt(orelse)
                return If(test, self.stmt(then), None if other == Block(()) else other)
            case For():
                return self._for(stmt)
            case While(condition, body):
                return While(self.expr(condition), self.stmt(body))
            case _:
                return map_stmt(stmt, self.expr)

    def _for(self, loop: For) -> Stmt:
        lower, upper = self.expr(loop.lower), self.expr(loop.upper)
        trips = b.number(b.sub(upper, lower))
        if trips is not None and trips <= 0:
            return Block(())
        if trips is not None and trips <= loop.step and loop.kind is not Kind.PARALLEL:
            return self.stmt(b.block(Let(loop.var, lower), loop.body))
        outer = dict(self.ends)
        self.ends.pop(loop.var, None)
        most = b.most(upper)
        if lower == b.ZERO and most is not None:
            self.ends[loop.var] = most
        body = self.stmt(loop.body)
        self.ends = outer
        return dataclasses.replace(loop, lower=lower, upper=upper, body=body)


def fold(expr: Apply) -> LoopExpr:
    """`expr` computed as far as its numbers allow."""
    op, args = expr.op, expr.args
    if len(args) == 2:
        if expr.dtype == dt.i64:
            known = _FOLD.get(op)
            return expr if known is None else known(*args)
        if op in _LOGIC and expr.dtype == dt.bool_:
            return _LOGIC[op](*args)
        if op in _COMPARISONS:
            x, y = (a.arg if isinstance(a, Cast) and a.dtype == dt.u64 else a for a in args)
            left, right = b.number(x), b.number(y)
            if left is not None and right is not None and min(left, right) >= 0:
                return b.compare(op, x, y)
        return expr
    if op == "not":
        return b.negation(args[0])
    if op == "where" and isinstance(args[0], Const):
        return args[1] if args[0].value else args[2]
    return expr


def _living(stmt: Stmt, used: set[str]) -> Stmt | None:
    """`stmt` without Lets and registers that are not in `used` afterwards; adds what it reads to `used`."""
    match stmt:
        case Block(stmts):
            kept: list[Stmt] = []
            for s in reversed(stmts):
                if isinstance(s, Let) and s.name not in used:
                    continue
                if isinstance(s, Alloc) and s.space is Space.REGISTER and s.name not in used:
                    continue
                new = _living(s, used)
                if new is not None:
                    kept.append(new)
            return Block(tuple(reversed(kept))) if kept else None
        case For(body=body):
            inner = _living(body, used)
            if inner is None:
                return None
            _read(stmt, used)
            return stmt if inner is body else dataclasses.replace(stmt, body=inner)
        case If(condition, then, orelse):
            taken, other = _living(then, used), None if orelse is None else _living(orelse, used)
            if taken is None and other is None:
                return None
            _read(stmt, used)
            return If(condition, taken or Block(()), other)
        case While(condition, body):
            _read(stmt, used)
            return While(condition, _living(body, used) or Block(()))
        case _:
            _read(stmt, used)
            return stmt


def _read(stmt: Stmt, used: set[str]) -> None:
    if isinstance(stmt, Store):
        used.add(stmt.array)
    elif isinstance(stmt, Turn):
        used.update((stmt.register, stmt.turns, stmt.counts))
    stack = list(expressions(stmt))
    while stack:
        e = stack.pop()
        kind = type(e)
        if kind is Var:
            used.add(e.name)  # type: ignore[union-attr]
        elif kind is not Const:
            if kind is Load:
                used.add(e.array)  # type: ignore[union-attr]
            stack.extend(operands(e))
    if isinstance(stmt, For) and stmt.weight is not None:
        used.add(stmt.weight)
