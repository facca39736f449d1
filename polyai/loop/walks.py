"""Walks over loop programs that passes share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from operator import is_
from typing import assert_never

from polyai.loop.build import apply, load
from polyai.loop.nodes import (
    Alloc,
    Apply,
    Block,
    Call,
    Cast,
    Check,
    Const,
    For,
    Horizontal,
    If,
    Kernel,
    Let,
    Load,
    LoopExpr,
    MaskedLoad,
    Pack,
    Prefetch,
    Ramp,
    Stmt,
    Store,
    Turn,
    Var,
    While,
)
from polyai.term.names import Names

Change = Callable[[LoopExpr], LoopExpr]


def map_operands(expr: LoopExpr, change: Change) -> LoopExpr:
    """`expr` with `change` applied to its operands; the same object if none changed."""
    kind = type(expr)
    if kind is Const or kind is Var:
        return expr
    match expr:
        case Apply(op, args, dtype):
            new = tuple(change(a) for a in args)
            return expr if all(map(is_, new, args)) else apply(op, new, dtype)
        case Load(array, indices, dtype):
            new = tuple(change(i) for i in indices)
            return expr if all(map(is_, new, indices)) else load(array, new, dtype)
        case Cast(arg, dtype):
            inner = change(arg)
            return expr if inner is arg else Cast(inner, dtype)  # type: ignore[arg-type]
        case MaskedLoad(array, at, mask, dtype):
            return MaskedLoad(array, tuple(change(i) for i in at), change(mask), dtype)
        case Ramp(base, stride, lanes):
            return Ramp(change(base), stride, lanes)
        case Pack(values, dtype):
            return Pack(tuple(change(v) for v in values), dtype)
        case Horizontal(monoid, value, dtype):
            return Horizontal(monoid, change(value), dtype)
        case _:
            return expr


def operands(expr: LoopExpr) -> tuple[LoopExpr, ...]:
    """The expressions one step below."""
    if type(expr) is Const or type(expr) is Var:
        return ()
    if type(expr) is Apply:  # the most frequent ones before the match, which asks one class after another
        return expr.args
    if type(expr) is Load:
        return expr.indices
    match expr:
        case Cast(arg, _):
            return (arg,)
        case MaskedLoad(_, indices, mask, _):
            return (*indices, mask)
        case Ramp(base, _, _):
            return (base,)
        case Pack(values, _):
            return values
        case Horizontal(_, value, _):
            return (value,)
        case _:
            return ()


def map_stmt(stmt: Stmt, change: Change) -> Stmt:
    """`stmt` with `change` applied to each whole expression in it, at any depth."""
    match stmt:
        case Block(stmts):
            return Block(tuple(map_stmt(s, change) for s in stmts))
        case For(var, lower, upper, body, kind, step, weight, cost, jam, stretch):
            return For(var, change(lower), change(upper), map_stmt(body, change), kind, step, weight, cost, jam, stretch)
        case While(condition, body):
            return While(change(condition), map_stmt(body, change))
        case If(condition, then, orelse):
            return If(change(condition), map_stmt(then, change), None if orelse is None else map_stmt(orelse, change))
        case Let(name, value):
            return Let(name, change(value))
        case Alloc(extents=extents):
            return dataclasses.replace(stmt, extents=tuple(change(e) for e in extents)) if extents else stmt
        case Store(array, indices, value, mask):
            return Store(array, tuple(change(i) for i in indices), change(value), None if mask is None else change(mask))
        case Check(ok, site, culprit):
            return Check(change(ok), site, None if culprit is None else change(culprit))
        case Call(function, args):
            return Call(function, tuple(a if isinstance(a, str) else change(a) for a in args))
        case Turn(register, turns, counts, at, count, pieces):
            return Turn(register, turns, counts, change(at), change(count), change(pieces))
        case Prefetch(array, index, near):
            return Prefetch(array, change(index), near)
        case _:
            assert_never(stmt)


def parts(stmt: Stmt) -> tuple[Stmt, ...]:
    """The statements one step below."""
    match stmt:
        case Block(stmts):
            return stmts
        case For(body=body) | While(_, body):
            return (body,)
        case If(_, then, orelse):
            return (then,) if orelse is None else (then, orelse)
        case _:
            return ()


def expressions(stmt: Stmt) -> tuple[LoopExpr, ...]:
    """The whole expressions of `stmt` itself."""
    match stmt:
        case Store(_, indices, value, mask):
            return (*indices, value) if mask is None else (*indices, value, mask)
        case Let(_, value):
            return (value,)
        case For(lower=lower, upper=upper):
            return lower, upper
        case While(condition, _) | If(condition, _, _):
            return (condition,)
        case Alloc(_, _, extents, _, _):
            return extents
        case Check(ok, _, culprit):
            return (ok,) if culprit is None else (ok, culprit)
        case Call(_, args):
            return tuple(a for a in args if not isinstance(a, str))
        case Turn(_, _, _, at, count, pieces):
            return (at, count, pieces)
        case Prefetch(_, index):
            return (index,)
        case _:
            return ()


def all_stmts(stmt: Stmt) -> Iterator[Stmt]:
    """`stmt` and all below it, in the order of the text."""
    stack = [stmt]
    while stack:
        s = stack.pop()
        yield s
        kind = type(s)
        if kind is Block or kind is For or kind is If or kind is While:
            stack.extend(parts(s)[::-1])


def all_exprs(expr: LoopExpr) -> Iterator[LoopExpr]:
    """`expr` and all below it."""
    stack = [expr]
    while stack:
        e = stack.pop()
        yield e
        kind = type(e)
        if kind is not Var and kind is not Const:
            stack.extend(operands(e))


def written(stmt: Stmt) -> set[str]:
    """Arrays and registers that `stmt` may write, and those it declares."""
    out: set[str] = set()
    for s in all_stmts(stmt):
        if isinstance(s, Store):
            out.add(s.array)
        elif isinstance(s, Turn):
            out.update((s.register, s.turns, s.counts))
        elif isinstance(s, Alloc):
            out.add(s.name)
        elif isinstance(s, Call):
            out.update(a for a in s.args if isinstance(a, str))
    return out


def supply(kernel: Kernel) -> Names:
    """Fresh names for `kernel`. Passes that find nothing to do never ask for one."""
    return Names(_taken(kernel))


def _taken(kernel: Kernel) -> Iterator[str]:
    yield from (p.name for p in kernel.params)
    for s in all_stmts(kernel.body):
        if isinstance(s, (Let, Alloc)):
            yield s.name
        elif isinstance(s, For):
            yield s.var
            if s.stretch is not None:
                yield s.stretch


def arrays_of(stmt: Stmt) -> set[str]:
    """Names of the arrays that a statement reads, writes or passes on."""
    out: set[str] = set()
    for s in all_stmts(stmt):
        match s:
            case Store(array=name) | Prefetch(array=name):
                out.add(name)
            case Call(args=args):
                out.update(a for a in args if isinstance(a, str))
            case Turn(register, turns, counts):
                out.update((register, turns, counts))
            case For(weight=str() as name):
                out.add(name)
            case _:
                pass
        for e in expressions(s):
            for x in all_exprs(e):
                if isinstance(x, (Load, MaskedLoad)):
                    out.add(x.array)
    return out


def decided(stmt: Stmt, condition: LoopExpr, holds: bool) -> Stmt:
    """`stmt` where it is known whether `condition` holds: the branches on it are gone."""
    match stmt:
        case Block(stmts):
            return Block(tuple(decided(s, condition, holds) for s in stmts))
        case For(body=body) | While(body=body):
            return dataclasses.replace(stmt, body=decided(body, condition, holds))
        case If(test, then, orelse):
            if test == condition:
                return decided(then if holds else orelse or Block(()), condition, holds)
            return If(test, decided(then, condition, holds), None if orelse is None else decided(orelse, condition, holds))
        case _:
            return stmt


def with_names(stmt: Stmt, names: Mapping[str, str]) -> Stmt:
    """`stmt` with other names for some arrays."""

    def expr(e: LoopExpr) -> LoopExpr:
        e = map_operands(e, expr)
        return dataclasses.replace(e, array=names[e.array]) if isinstance(e, (Load, MaskedLoad)) and e.array in names else e

    match stmt:
        case Block(stmts):
            return Block(tuple(with_names(s, names) for s in stmts))
        case For(lower=lower, upper=upper, body=body, weight=weight):
            weight = names.get(weight, weight) if weight is not None else None
            return dataclasses.replace(stmt, lower=expr(lower), upper=expr(upper), body=with_names(body, names), weight=weight)
        case While(condition, body):
            return While(expr(condition), with_names(body, names))
        case If(condition, then, orelse):
            return If(expr(condition), with_names(then, names), None if orelse is None else with_names(orelse, names))
        case Store(name, indices, value, mask) if name in names:
            return Store(names[name], tuple(map(expr, indices)), expr(value), None if mask is None else expr(mask))
        case Prefetch(name, index, near) if name in names:
            return Prefetch(names[name], expr(index), near)
        case Turn(register, turns, counts, at, count, pieces):
            own, first, second = (names.get(n, n) for n in (register, turns, counts))
            return Turn(own, first, second, expr(at), expr(count), expr(pieces))
        case Call(function, args):
            return Call(function, tuple(names.get(a, a) if isinstance(a, str) else expr(a) for a in args))
        case _:
            return map_stmt(stmt, expr)
