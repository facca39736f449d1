"""Elements of buffers that a loop reduces into live in registers meanwhile.

Before::                                       After::

    for q in a..b:                               if a < b:
      T[r, e] = T[r, e] + w[q, r] * V[q, e]        alloc T_at: f32 register
                                                   T_at = T[r, e]
                                                   for q in a..b:
                                                     T_at = T_at + w[q, r] * V[q, e]
                                                   T[r, e] = T_at

Only for buffers, one element of which the loop touches, always the same one: those of one thread, and in loops in lanes, which only add up
in registers, those of the kernel, too. Where the loop does not run, nothing is touched. An element that all copies of a jammed loop, or all lanes of
one around, add to stays in memory: each would add to what was there before.
Assumes that no other iteration of a parallel loop touches an element that one writes; the scheduler proved it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from polyai.loop import build as b
from polyai.loop.nodes import Alloc, Block, Check, For, If, Kernel, Kind, Let, Load, LoopExpr, MaskedLoad, Space, Stmt, Store
from polyai.loop.passes.depend import depends, varying
from polyai.loop.walks import all_exprs, all_stmts, expressions, map_operands, map_stmt, supply
from polyai.term.names import Names


def promote(kernel: Kernel) -> Kernel:
    """`kernel` with such elements in registers."""
    buffers = {s.name: s for s in all_stmts(kernel.body) if isinstance(s, Alloc) and s.space is not Space.REGISTER}
    return dataclasses.replace(kernel, body=_stmt(kernel.body, buffers, supply(kernel), ())) if buffers else kernel


def _stmt(s: Stmt, buffers: dict[str, Alloc], names: Names, copies: tuple[set[str], ...]) -> Stmt:
    """`copies`: what differs between the copies of each loop around that runs in copies side by side."""
    match s:
        case Block(stmts):
            return Block(tuple(_stmt(x, buffers, names, copies) for x in stmts))
        case For(kind=kind):
            inner = (*copies, varying(s.body, s.var)) if kind in (Kind.JAM, Kind.VECTOR) else copies
            return _loop(dataclasses.replace(s, body=_stmt(s.body, buffers, names, inner)), buffers, names, copies)
        case If(condition, then, orelse):
            return If(condition, _stmt(then, buffers, names, copies), None if orelse is None else _stmt(orelse, buffers, names, copies))
        case _:
            return s


def _loop(loop: For, buffers: dict[str, Alloc], names: Names, copies: tuple[set[str], ...]) -> Stmt:
    inside = [s for s in all_stmts(loop.body) if not isinstance(s, Block)]
    lanes = loop.kind is Kind.VECTOR
    if not (lanes or loop.kind is Kind.SERIAL) or not all(isinstance(s, (Let, Store)) or (lanes and isinstance(s, Check)) for s in inside):
        return loop
    own = {loop.var, *(s.name for s in inside if isinstance(s, Let))}
    before: list[Stmt] = []
    after: list[Stmt] = []
    body = loop.body
    for array in dict.fromkeys(s.array for s in inside if isinstance(s, Store) and s.array in buffers and (lanes or buffers[s.array].space is Space.THREAD)):
        at = _only_place(array, inside)
        if at is None or any(depends(i, own) for i in at) or not all(any(depends(i, differing) for i in at) for differing in copies):
            continue
        register, dtype = names.fresh(f"{array}_at"), buffers[array].dtype
        before += [Alloc(register, dtype, (), Space.REGISTER), Store(register, (), b.load(array, at, dtype))]
        after.append(Store(array, at, Load(register, (), dtype)))
        body = _moved(body, array, register)
    if not before:
        return loop
    return If(b.compare("lt", loop.lower, loop.upper), Block((*before, dataclasses.replace(loop, body=body), *after)))


def _only_place(array: str, stmts: Sequence[Stmt]) -> tuple[LoopExpr, ...] | None:
    """The indices of all accesses of `array`, if they are the same, none is masked, and it is read."""
    places: set[tuple[LoopExpr, ...]] = set()
    read = False
    for s in stmts:
        if isinstance(s, Store) and s.array == array:
            if s.mask is not None:
                return None
            places.add(s.indices)
        for e in expressions(s):
            for x in all_exprs(e):
                if isinstance(x, MaskedLoad) and x.array == array:
                    return None
                if isinstance(x, Load) and x.array == array:
                    read = True
                    places.add(x.indices)
    return next(iter(places)) if len(places) == 1 and read else None


def _moved(body: Stmt, array: str, register: str) -> Stmt:
    def expr(e: LoopExpr) -> LoopExpr:
        return Load(register, (), e.dtype) if isinstance(e, Load) and e.array == array else map_operands(e, expr)

    def stmt(s: Stmt) -> Stmt:
        if isinstance(s, Block):
            return Block(tuple(map(stmt, s.stmts)))
        moved = map_stmt(s, expr)
        return Store(register, (), moved.value) if isinstance(moved, Store) and moved.array == array else moved

    return stmt(body)
