"""Unroll and jam: several iterations of an outer loop run together through the loops inside.

Before::                                After::

    for i in 0..m jam=4:                    let i_at = m // 4 * 4
      T = 0.0                               for i in 0..i_at step 4:
      for k in 0..l:                          T = 0.0; T_1 = 0.0; T_2 = 0.0; T_3 = 0.0
        T = T + A[i, k] * x[k]                for k in 0..l:
      y[i] = T                                  let x_at = x[k]               once: it does not depend on i
                                                T = T + A[i, k] * x_at
                                                T_1 = T_1 + A[i + 1, k] * x_at ...
                                              y[i] = T; y[i + 1] = T_1; ...
                                            ... the rest one at a time

A tile of rows has no versions for the rest, each of which would pass over the operand that the rows share again: the last tile
does its last row several times, with the same result.

    for i in 0..m jam=6:                    let each = the rows of a tile, if all have about as many
      for j in 0..n vector: ...             for i in 0..m step 6:
                                              let first = i // 6 * each; let last = min(first + each, m) - 1
                                              let i_1 = min(first + 1, last); let i_2 = min(first + 2, last); ...

A number of rows that is known is divided among tiles of fitting heights, see `tiles`.

    for i in 0..13 jam=6:                   for i in 0..5 step 5: ...         for i in 5..13 step 4: ...

An index that grows by a number from one iteration to the next has one name for all copies: `at`, `at + 40`, `at + 80`.

Assumes that the loop carries no dependence but reductions; the scheduler proved it. A loop inside whose bounds depend on the
variable is not shared: its copies run one after another.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from polyai.loop import build as b
from polyai.loop.nodes import (
    Alloc,
    Apply,
    Block,
    Call,
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
    Stmt,
    Store,
    Var,
    While,
)
from polyai.loop.passes import tiles
from polyai.loop.passes.depend import depends, reductions, varying
from polyai.loop.passes.levels import Levels, rebuild
from polyai.loop.walks import all_exprs, all_stmts, expressions, map_operands, written
from polyai.scalar import dtype as dt
from polyai.term.names import Names


def jam(kernel: Kernel, notes: list[str] | None = None) -> Kernel:
    """`kernel` with its JAM loops unrolled and jammed; a loop that cannot be is left serial, which `notes` says."""
    levels = Levels(kernel)

    def special(loop: For) -> bool:
        if loop.kind is not Kind.JAM:
            return False
        if loop.jam == 1 or loop.step != 1 or reductions(loop.body, levels.registers) is None:
            if notes is not None and loop.jam > 1:
                notes.append(f"loop {loop.var} is not jammed: it carries a value that is no plain reduction")
            rebuild(dataclasses.replace(loop, kind=Kind.SERIAL, jam=1), levels, special)
            return True
        _versions(loop, levels, special)
        return True

    rebuild(kernel.body, levels, special)
    return dataclasses.replace(kernel, body=levels.pop())


REST = 4
"""Vectors at once in the versions for the rest: they run seldom, and code costs time to make."""


def widths(most: int, tile: bool) -> list[int]:
    """How many copies the versions of a loop have, the most first. The rest of a `tile` of rows runs in pairs: a pass over
    the operand that the rows share is dear."""
    return [most, *(w for w in (2, 1) if w < most and (tile or w == 1))]


def is_tile(body: Stmt) -> bool:
    """True if a vector loop in `body` holds others: its accumulators are rows of a register tile."""
    return any(s.kind is Kind.VECTOR and any(isinstance(x, For) for x in all_stmts(s.body)) for s in all_stmts(body) if isinstance(s, For))


def _versions(loop: For, levels: Levels, special: Callable[[For], bool]) -> None:
    names, changed = varying(loop.body, loop.var), written(loop.body)
    trips = b.number(b.sub(loop.upper, loop.lower))
    if (trips is None or trips > loop.jam) and is_tile(loop.body) and _may_repeat(loop, levels):
        return _tiles(loop, levels, special)
    first = b.number(loop.lower)
    if trips == loop.jam and first is not None:
        work = Copies(loop.var, names, levels.names, tuple(range(trips)), 1, changed)
        work.values = {(loop.var, c): b.const(first + c) for c in range(trips)}
        return rebuild(work.block(loop.body), levels, special)
    sizes = widths(loop.jam, is_tile(loop.body))
    if trips is not None:
        sizes = _taken(sizes, trips)
    lower, upper = levels.let(f"{loop.var}_from", loop.lower), levels.let(f"{loop.var}_to", loop.upper)
    at = lower
    for size, stop in zip(sizes, [*levels.positions(loop.var, lower, upper, sizes[:-1]), upper]):
        body = Copies(loop.var, names, levels.names, tuple(range(size)), REST if size < loop.jam else 1, changed).block(loop.body)
        rebuild(For(loop.var, at, stop, body, step=size), levels, special)
        at = stop


def _taken(sizes: list[int], trips: int) -> list[int]:
    """The versions that `trips` iterations take: 16 iterations in fours need none for the rest."""
    out = []
    for size in sizes:
        if trips >= size:
            out.append(size)
            trips %= size
    return out or [1]


def _may_repeat(loop: For, levels: Levels) -> bool:
    """True if an iteration may run twice: it reads nothing that it writes, and adds to nothing."""
    stored, read = set[str](), set[str]()
    for s in all_stmts(loop.body):
        if isinstance(s, Call):
            return False
        if isinstance(s, Store) and s.indices:
            stored.add(s.array)
        for e in expressions(s):
            read |= {x.array for x in all_exprs(e) if isinstance(x, (Load, MaskedLoad)) and x.indices}
    return stored.isdisjoint(read) and not reductions(loop.body, levels.registers)


def _tiles(loop: For, levels: Levels, special: Callable[[For], bool]) -> None:
    """The loop in whole tiles, the last of which repeats its last iteration."""
    lower, upper = levels.let(f"{loop.var}_from", loop.lower), levels.let(f"{loop.var}_to", loop.upper)
    trips = b.number(b.sub(loop.upper, loop.lower))
    if trips is not None:
        at = lower
        for height, count in tiles.heights(trips, loop.jam):
            stop = b.smallest(b.add(at, b.const(height * count)), upper)
            _tile(loop, height, at, stop, upper, trips % height != 0, levels, special)
            at = stop
    else:
        _even_tiles(loop, lower, upper, levels, special)


def _even_tiles(loop: For, lower: LoopExpr, upper: LoopExpr, levels: Levels, special: Callable[[For], bool]) -> None:
    """As few tiles as can be, of about as many iterations each: what a tile has less than the others repeats its last one."""
    height = loop.jam
    names, rest = varying(loop.body, loop.var), b.sub(upper, lower)
    each = levels.let(f"{loop.var}_each", tiles.each(rest, height))
    work = Copies(loop.var, names, levels.names, tuple(range(height)), 1, written(loop.body))
    start, stop = levels.names.fresh(f"{loop.var}_start"), levels.names.fresh(f"{loop.var}_last")
    number = b.floordiv(b.sub(b.var(loop.var), lower), b.const(height))
    rows: list[Stmt] = [
        Let(start, b.add(lower, b.mul(number, each))),
        Let(stop, b.sub(b.smallest(b.add(b.var(start), each), upper), b.ONE)),
    ]
    work.steps.clear()
    work.values[loop.var, 0] = b.var(start)
    for c in range(1, height):
        row = Let(levels.names.fresh(loop.var), b.smallest(b.add(b.var(start), b.const(c)), b.var(stop)))
        work.values[loop.var, c] = b.var(row.name)
        rows.append(row)
    rebuild(For(loop.var, lower, upper, Block((*rows, *work.block(loop.body).stmts)), step=height), levels, special)


def _tile(loop: For, height: int, lower: LoopExpr, upper: LoopExpr, end: LoopExpr, beyond: bool, levels: Levels, special: Callable[[For], bool]) -> None:
    """Tiles of `height` iterations of the loop from `lower` on. `beyond`: they may reach `end`, whose last iteration is repeated then."""
    names, last = varying(loop.body, loop.var), b.sub(end, b.ONE)
    work = Copies(loop.var, names, levels.names, tuple(range(height)), 1, written(loop.body))
    rows: list[Stmt] = []
    if beyond:
        for c in range(1, height):
            row = Let(levels.names.fresh(loop.var), b.smallest(b.add(b.var(loop.var), b.const(c)), last))
            work.values[loop.var, c] = b.var(row.name)
            work.steps.clear()
            rows.append(row)
    rebuild(For(loop.var, lower, upper, Block((*rows, *work.block(loop.body).stmts)), step=height), levels, special)


class Copies:
    """The body for several iterations at once. `values` and `arrays` give the names of each copy."""

    def __init__(self, variable: str, names: set[str], supply: Names, copies: tuple[int, ...], limit: int, written: set[str]) -> None:
        self.names, self.supply, self.copies, self.limit, self.written = names, supply, copies, limit, written
        self.values: dict[tuple[str, int], LoopExpr] = {(variable, c): b.add(b.var(variable), b.const(c)) for c in copies}
        self.arrays: dict[tuple[str, int], str] = {}
        self.steps = {variable: 1}  # by how much integers grow from one copy to the next
        self.shared: set[str] = set()  # registers of the body that hold the same in every iteration

    def block(self, stmt: Stmt) -> Block:
        return self._inner(stmt, self.copies)

    def expr(self, expr: LoopExpr, copy: int) -> LoopExpr:
        if type(expr) is Var:
            return self.values.get((expr.name, copy), expr)
        expr = map_operands(expr, lambda e: self.expr(e, copy))
        if isinstance(expr, Load):
            name = self.arrays.get((expr.array, copy))
            return expr if name is None else Load(name, expr.indices, expr.dtype)
        if isinstance(expr, MaskedLoad):
            name = self.arrays.get((expr.array, copy))
            return expr if name is None else MaskedLoad(name, expr.indices, expr.mask, expr.dtype)
        return expr

    def _fresh(self, name: str, copy: int) -> str:
        return name if copy == 0 else self.supply.fresh(name)

    def _step(self, expr: LoopExpr) -> int | None:
        """By how much an index grows from one copy to the next, if that is a number."""
        match expr:
            case Var(name):
                return self.steps.get(name, None if name in self.names else 0)
            case Const():
                return 0
            case Apply("add" | "sub" as op, (x, y), dtype) if dtype == dt.i64:
                left, right = self._step(x), self._step(y)
                return None if left is None or right is None else left + right if op == "add" else left - right
            case Apply("mul", (x, Const() as factor), dtype) if dtype == dt.i64:
                left, by = self._step(x), b.number(factor)
                return None if left is None or by is None else left * by
            case _:
                return None

    def share(self, expr: LoopExpr, out: list[Stmt]) -> LoopExpr:
        """`expr` with what all copies have in common, if it is worth a name, computed once before."""
        kind = type(expr)
        if kind is Var or kind is Const or depends(expr, self.names):
            return map_operands(expr, lambda e: self.share(e, out))
        loads = [e for e in all_exprs(expr) if isinstance(e, (Load, MaskedLoad))]
        if any(e.array in self.written for e in loads):  # one copy may change what the next one reads: an element or a register
            return map_operands(expr, lambda e: self.share(e, out))
        if not any(e.indices for e in loads):
            return expr
        name = self.supply.fresh("shared")
        out.append(Let(name, expr))
        return Var(name, b.dtype_of(expr))

    def _once(self, *exprs: LoopExpr | None) -> bool:
        return not any(e is not None and depends(e, self.names) for e in exprs)

    def stmt(self, stmt: Stmt, copies: tuple[int, ...], out: list[Stmt]) -> None:
        match stmt:
            case Block(stmts):
                for s in stmts:
                    if isinstance(s, Block):
                        out.append(self._inner(s, copies))
                    else:
                        self.stmt(s, copies, out)
            case Let(name, value):
                if name not in self.names:
                    out.append(stmt)
                    return
                step = self._step(value) if len(copies) > 1 else None
                if step is not None:
                    out.append(Let(name, self.expr(value, copies[0])))
                    self.steps[name] = step
                    self.values.update(((name, c), b.add(b.var(name), b.const(step * (c - copies[0])))) for c in copies)
                    return
                value = self.share(value, out) if len(copies) > 1 else value
                for c in copies:
                    new = self._fresh(name, c)
                    out.append(Let(new, self.expr(value, c)))
                    self.values[name, c] = Var(new, b.dtype_of(value))
            case Alloc(name=name, extents=extents):
                if name not in self.names:
                    self.shared.add(name)
                    out.append(stmt)
                    return
                for c in copies:
                    new = self.arrays[name, c] = self._fresh(name, c)
                    out.append(dataclasses.replace(stmt, name=new, extents=tuple(self.expr(e, c) for e in extents)))
            case Store(array, indices, value, mask):
                group = copies[:1] if array in self.shared else copies
                value = self.share(value, out) if len(group) > 1 else value
                for c in group:
                    at = tuple(self.expr(i, c) for i in indices)
                    when = None if mask is None else self.expr(mask, c)
                    out.append(Store(self.arrays.get((array, c), array), at, self.expr(value, c), when))
            case Check(ok, site, culprit):
                for c in copies[:1] if self._once(ok, culprit) else copies:
                    out.append(Check(self.expr(ok, c), site, None if culprit is None else self.expr(culprit, c)))
            case Call(function, args):
                for c in copies:
                    out.append(Call(function, tuple(self.arrays.get((a, c), a) if isinstance(a, str) else self.expr(a, c) for a in args)))
            case For() if self._once(stmt.lower, stmt.upper):
                most = self.limit if stmt.kind is Kind.VECTOR else stmt.jam
                out.append(dataclasses.replace(stmt, body=self._inner(stmt.body, copies), jam=most))
            case For():
                for c in copies:
                    lower, upper = self.expr(stmt.lower, c), self.expr(stmt.upper, c)
                    out.append(dataclasses.replace(stmt, lower=lower, upper=upper, body=self._inner(stmt.body, (c,))))
            case While(condition, body):
                for group in (copies,) if self._once(condition) else tuple((c,) for c in copies):
                    out.append(While(self.expr(condition, group[0]), self._inner(body, group)))
            case If(condition, then, orelse):
                for group in (copies,) if self._once(condition) else tuple((c,) for c in copies):
                    other = None if orelse is None else self._inner(orelse, group)
                    out.append(If(self.expr(condition, group[0]), self._inner(then, group), other))

    def _inner(self, stmt: Stmt, copies: tuple[int, ...]) -> Block:
        out: list[Stmt] = []
        self.stmt(stmt, copies, out)
        return Block(tuple(out))
