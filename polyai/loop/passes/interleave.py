"""A short chain of sums becomes several: a loop that adds to few vectors waits for each addition before the next.

Before::                                  After::

    for q in 0..len:                        let q_at = len // 4 * 4
      T = T + a[q] * X[ramp(k * w, 8)]      if 0 < q_at:
                                              alloc T_1, T_2, T_3: f32 x 8 register; ... = 0.0
                                              for q in 0..q_at step 4:
                                                T = T + a[q] * X[...]
                                                T_1 = T_1 + a[q + 1] * X[...] ...
                                              T = T + T_2; T_1 = T_1 + T_3; T = T + T_1
                                            for q in q_at..len:
                                              T = T + a[q] * X[ramp(k * w, 8)]

Only for innermost loops that do nothing but reduce floating-point numbers into vectors, from places that memory names: others
share enough work between rows, and where vectors are packed from scalars there is enough to do. Partial sums are combined in a
fixed tree. Loops that are known to be short stay as they are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from polyai.loop import build as b
from polyai.loop.nodes import (
    Alloc,
    Block,
    Check,
    Const,
    For,
    If,
    Kernel,
    Kind,
    Let,
    Load,
    LoopExpr,
    Pack,
    Space,
    Stmt,
    Store,
    Var,
)
from polyai.loop.passes.depend import reductions, varying
from polyai.loop.passes.jam import Copies
from polyai.loop.passes.levels import Levels, rebuild
from polyai.loop.walks import all_exprs, all_stmts, expressions, written
from polyai.scalar.dtype import DType
from polyai.scalar.ops import MONOIDS
from polyai.term.node import node

CHAINS = 8
"""Sums at once that keep the adders busy: two additions start per cycle, and each takes four."""
MOST = 4
"""Copies of a loop."""


@node
class _Sum:
    """A vector register that a loop reduces into."""

    name: str
    monoid: str
    dtype: DType
    lanes: int


def interleave(kernel: Kernel, sizes: Mapping[str, int] | None = None) -> Kernel:
    """`kernel`, in lanes, with more sums at once in loops that have few. `sizes`: likely values of sizes and lengths."""
    levels = Levels(kernel)
    vectors = {s.name: s for s in all_stmts(kernel.body) if isinstance(s, Alloc) and s.space is Space.REGISTER and s.lanes > 1}

    def special(loop: For) -> bool:
        sums = _sums(loop, vectors)
        copies = min(MOST, CHAINS // len(sums)) if sums else 1
        if copies < 2 or _is_short(loop, copies, sizes or {}):
            return False
        _versions(loop, sums, copies, levels)
        return True

    rebuild(kernel.body, levels, special)
    return dataclasses.replace(kernel, body=levels.pop())


def _sums(loop: For, vectors: Mapping[str, Alloc]) -> list[_Sum]:
    """What the loop reduces into, if it does nothing else; else nothing."""
    if loop.kind is not Kind.SERIAL or loop.step != 1:
        return []
    stored = [s for s in all_stmts(loop.body) if isinstance(s, Store)]
    plain = all(isinstance(s, (Block, Let, Check, Store)) for s in all_stmts(loop.body))
    if not plain or not _follows_memory(loop.body) or any(s.array not in vectors or not vectors[s.array].dtype.is_float for s in stored):
        return []
    found = reductions(loop.body, {s.array for s in stored}) or {}
    return [_Sum(name, monoid, vectors[name].dtype, vectors[name].lanes) for name, (monoid, _) in found.items()]


def _follows_memory(body: Stmt) -> bool:
    """True if an index array says what is read, a whole vector at once."""
    read = [x for s in all_stmts(body) for e in expressions(s) for x in all_exprs(e)]
    return any(isinstance(x, Load) and x.dtype.is_integer and x.indices for x in read) and not any(isinstance(x, Pack) for x in read)


def _is_short(loop: For, copies: int, sizes: Mapping[str, int]) -> bool:
    """True if the loop is known to run fewer times than it has copies."""
    trips = b.number(b.sub(loop.upper, loop.lower))
    if trips is None and isinstance(loop.upper, Var) and loop.lower == b.ZERO:
        trips = sizes.get(loop.upper.name)
    return trips is not None and trips < 2 * copies


def _versions(loop: For, sums: list[_Sum], copies: int, levels: Levels) -> None:
    lower, upper = levels.let(f"{loop.var}_from", loop.lower), levels.let(f"{loop.var}_to", loop.upper)
    at = levels.positions(loop.var, lower, upper, [copies])[0]
    body = Copies(loop.var, varying(loop.body, loop.var) | {s.name for s in sums}, levels.names, tuple(range(copies)), 1, written(loop.body))
    levels.push()
    for s in sums:
        body.arrays[s.name, 0] = s.name
        for c in range(1, copies):
            mine = body.arrays[s.name, c] = levels.names.fresh(s.name)
            levels.emit(Alloc(mine, s.dtype, (), Space.REGISTER, s.lanes))
            levels.emit(Store(mine, (), Const(MONOIDS[s.monoid].identity(s.dtype), s.dtype)))
    levels.emit(For(loop.var, lower, at, body.block(loop.body), step=copies))
    for s in sums:
        for stmt in _merged(s, [body.arrays[s.name, c] for c in range(copies)]):
            levels.emit(stmt)
    several = levels.pop()
    trips = b.number(b.sub(at, lower))
    levels.emit(several if trips is not None else If(b.compare("lt", lower, at), several))
    levels.push(loop=True)
    levels.define(loop.var)
    rebuild(loop.body, levels, lambda _: False)
    levels.emit(dataclasses.replace(loop, lower=at, upper=upper, body=levels.pop()))


def _merged(s: _Sum, registers: list[str]) -> list[Stmt]:
    """All partial sums combined into the first, in a fixed tree."""
    out: list[Stmt] = []
    while len(registers) > 1:
        half = len(registers) // 2
        for x, y in zip(registers[:half], registers[half:]):
            both: LoopExpr = b.apply(MONOIDS[s.monoid].op, (b.load(x, (), s.dtype), b.load(y, (), s.dtype)), s.dtype)
            out.append(Store(x, (), both))
        registers = registers[:half]
    return out
