"""The steps of a row run for several rows each, one step after another: what a step leaves in a buffer has time to get there.

Before::                                    After::

    for i in 0..n parallel weight=A.pos1:       for i_block in 0..n step 8 parallel weight=A.pos1:
      alloc S: f32[m] thread                      alloc S: f32[8, m] thread
      let begin = A.pos1[i] ...                   for i in i_block..min(i_block + 8, n):
      for q in 0..len:                              let begin = A.pos1[i] ...
        S[q] = ...                                  for q in 0..len:
      T = 0.0                                         S[i - i_block, q] = ...
      for q in 0..len:                            for i in i_block..min(i_block + 8, n):
        T = T + S[q] * X[crd[begin + q]]            let begin = A.pos1[i] ...
      y[i] = T                                      T = 0.0
                                                    for q in 0..len:
                                                      T = T + S[i - i_block, q] * X[crd[begin + q]]
                                                    y[i] = T

A step waits for all of the one before; meanwhile the machine works on the next row. What neighbouring rows read is read again by the
same step while it is near, before the next step reads something else. The loop is cut only where no register holds a value for
later, and a buffer does. Lets and checks before the steps are done in each.
Assumes that the iterations of a parallel loop may run in any order; the scheduler proved it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from polyai.loop import build as b
from polyai.loop.nodes import (
    Alloc,
    Block,
    Call,
    Check,
    For,
    If,
    Kernel,
    Kind,
    Let,
    Load,
    LoopExpr,
    MaskedLoad,
    Prefetch,
    Space,
    Stmt,
    Store,
    Turn,
    Var,
    While,
)
from polyai.loop.passes.stretch import value as typical
from polyai.loop.passes.twins import group
from polyai.loop.walks import all_exprs, all_stmts, arrays_of, expressions, map_operands, supply, written
from polyai.term.names import Names

ROWS = 8
"""Rows in a block: as many as hide the steps of one, few enough that what they read stays near."""
SHORTEST, LONGEST = 64, 512
"""Elements of a typical row. The steps of shorter ones cost less than to begin them once more, longer ones leave the first-level cache."""
LEAST = 32
"""Blocks that are enough for the threads."""


def staged(kernel: Kernel, sizes: Mapping[str, int]) -> Kernel:
    """`kernel` with its parallel loops over rows in steps; `sizes` are typical values of sizes and of fibres' lengths."""
    return dataclasses.replace(kernel, body=_stmt(kernel.body, supply(kernel), sizes))


def _stmt(s: Stmt, names: Names, sizes: Mapping[str, int]) -> Stmt:
    match s:
        case Block(stmts):
            return Block(tuple(_stmt(x, names, sizes) for x in stmts))
        case For(kind=Kind.PARALLEL):
            return _parallel(s, names, sizes)
        case For() | While():
            return dataclasses.replace(s, body=_stmt(s.body, names, sizes))
        case If(condition, then, orelse):
            return If(condition, _stmt(then, names, sizes), None if orelse is None else _stmt(orelse, names, sizes))
        case _:
            return s


def _parallel(loop: For, names: Names, sizes: Mapping[str, int]) -> For:
    if loop.weight is None or loop.step != 1 or loop.stretch is not None or not _pays(loop, sizes):
        return loop
    if any(isinstance(s, (Call, While, Turn, Prefetch)) or (isinstance(s, Alloc) and s.zero) for s in all_stmts(loop.body)):
        return loop
    stmts = b.statements(loop.body)
    changed = written(loop.body)
    own = {loop.var} | {s.name for s in stmts if isinstance(s, Let)}
    allocs = [s for s in stmts if isinstance(s, Alloc)]
    buffers = {s.name: s.extents for s in allocs if s.space is Space.THREAD and not any(_uses(e, own) for e in s.extents)}
    if any(isinstance(s, Alloc) and s.space is not Space.REGISTER and s.name not in buffers for s in all_stmts(loop.body)):
        return loop
    known = [s for s in stmts if isinstance(s, (Let, Check)) and not any(_reads(e) & changed for e in expressions(s))]
    steps = _sunk([s for s in stmts if not isinstance(s, Alloc) and s not in known], changed)
    registers = {s.name for s in allocs if s.space is Space.REGISTER} | {s.name for s in steps if isinstance(s, Let)}
    stages = _stages(steps, registers, set(buffers))
    if len(stages) < 2:
        return loop
    block = names.fresh(f"{loop.var}_block")
    row = b.sub(b.var(loop.var), b.var(block))
    rows = ROWS // (alike := group(loop.weight, sizes)) * alike
    upper = b.smallest(b.add(b.var(block), b.const(rows)), loop.upper)
    body: list[Stmt] = [dataclasses.replace(s, extents=(b.const(rows), *s.extents)) for s in allocs if s.name in buffers]
    for stage in stages:
        used = {name for s in stage for name in _names(s)}
        mine = [s for s in allocs if s.name not in buffers and s.name in used]
        steps_of = (_placed(s, buffers, row) for s in stage)
        body.append(For(loop.var, b.var(block), upper, Block((*mine, *known, *steps_of))))
    return dataclasses.replace(loop, var=block, step=rows, body=Block(tuple(body)))


def _pays(loop: For, sizes: Mapping[str, int]) -> bool:
    """Whether there are many rows, of the length that this is for."""
    rows = typical(b.sub(loop.upper, loop.lower), sizes)
    tensor, _, level = str(loop.weight).rpartition(".pos")
    return rows is not None and rows >= ROWS * LEAST and SHORTEST <= sizes.get(f"{tensor}_len{level}", 0) <= LONGEST


def _sunk(steps: Sequence[Stmt], changed: set[str]) -> list[Stmt]:
    """`steps`, where what only starts a register stands just before the next step that names it."""
    out: list[Stmt] = []
    for s in reversed(steps):
        at = 0
        if isinstance(s, Store) and not s.indices and not _reads(s.value) & changed:
            at = next((n for n, t in enumerate(out) if s.array in _names(t)), 0)
        out.insert(at, s)
    return out


def _stages(steps: Sequence[Stmt], registers: set[str], buffers: set[str]) -> list[list[Stmt]]:
    """The steps in groups: between two groups no register holds a value for later, but a buffer does."""
    touched = [_names(s) for s in steps]
    made = [written(s) | ({s.name} if isinstance(s, Let) else set()) for s in steps]
    out: list[list[Stmt]] = [[]]
    for n, s in enumerate(steps):
        before = {name for names in touched[:n] for name in names}
        after = {name for names in touched[n:] for name in names}
        filled = {name for names in made[:n] for name in names} & after
        heavy = any(isinstance(t, For) for t in out[-1]) and any(isinstance(t, For) for t in steps[n:])
        if heavy and filled & buffers and not registers & before & after:
            out.append([])
        out[-1].append(s)
    return out


def _names(s: Stmt) -> set[str]:
    """Arrays, registers and values that a statement names or declares."""
    values = {x.name for t in all_stmts(s) for e in expressions(t) for x in all_exprs(e) if isinstance(x, Var)}
    return arrays_of(s) | values | {t.name for t in all_stmts(s) if isinstance(t, (Let, Alloc))}


def _reads(expr: LoopExpr) -> set[str]:
    return {x.array for x in all_exprs(expr) if isinstance(x, (Load, MaskedLoad))}


def _uses(expr: LoopExpr, names: set[str]) -> bool:
    return any(isinstance(x, Var) and x.name in names for x in all_exprs(expr))


def _placed(s: Stmt, buffers: Mapping[str, object], row: LoopExpr) -> Stmt:
    """`s` where the buffers have a row for each iteration."""

    def expr(e: LoopExpr) -> LoopExpr:
        e = map_operands(e, expr)
        if isinstance(e, Load) and e.array in buffers:
            return b.load(e.array, (row, *e.indices), e.dtype)
        return MaskedLoad(e.array, (row, *e.indices), e.mask, e.dtype) if isinstance(e, MaskedLoad) and e.array in buffers else e

    match s:
        case Block(stmts):
            return Block(tuple(_placed(x, buffers, row) for x in stmts))
        case For():
            return dataclasses.replace(s, lower=expr(s.lower), upper=expr(s.upper), body=_placed(s.body, buffers, row))
        case If(condition, then, orelse):
            return If(expr(condition), _placed(then, buffers, row), None if orelse is None else _placed(orelse, buffers, row))
        case Store(array, indices, value, mask):
            at = (row, *map(expr, indices)) if array in buffers else tuple(map(expr, indices))
            return Store(array, at, expr(value), None if mask is None else expr(mask))
        case Let(name, value):
            return Let(name, expr(value))
        case Check(ok, site, culprit):
            return Check(expr(ok), site, None if culprit is None else expr(culprit))
        case _:
            return s
