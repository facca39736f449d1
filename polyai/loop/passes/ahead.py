"""While tiles of rows are computed from one panel of an operand, the next panel is fetched.

    for c in 0..n:                                      for c in 0..n:
      for i in 0..m step 6:                               let share = 16 / (m / 6), both rounded up
        for j in c * 32..c * 32 + 32 step 16:             for i in 0..m step 6:
          for k in 0..l:                                    for j in c * 32..c * 32 + 32 step 16:
            ... P[ramp(c * l * 32 + k * 32 + ..., 8)]   ->    for k in 0..l:
                                                                prefetch P[the next panel + (tile * l + k) * share]

Hardware follows each panel, but begins anew where the next one begins, and then memory is all that a tile waits for. So the lines of
the next panel are asked for one after another, as far in each tile as it takes to have them all after the last: a hint is one addition
and one instruction, so it may ask twice for a line, which costs nothing. Rows that are one
tile, or one row, read each panel once, faster than hardware follows: then each iteration asks for what comes DISTANCE later.

    for c in 0..n:                                      for c in 0..n:
      for k in 0..l:                                      for k in 0..l:
        ... P[ramp(c * l * 32 + k * 32, 8)]        ->       prefetch P[c * l * 32 + k * 32 + 4096]

Proves nothing and needs no proof: a hint touches no memory and may name any index.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from polyai.loop import build as b
from polyai.loop.nodes import (
    Alloc,
    Apply,
    Block,
    Const,
    For,
    If,
    Kernel,
    Let,
    Load,
    LoopExpr,
    MaskedLoad,
    Prefetch,
    Ramp,
    Stmt,
    Var,
    While,
)
from polyai.loop.walks import all_exprs, all_stmts, expressions, supply
from polyai.term.names import Names
from polyai.term.node import node

LINE = 64
"""Bytes of a line of a cache."""
LEAST = 1 << 14
"""Bytes of a panel that is worth it: a smaller one comes by itself."""
LINES = 4
"""Most hints in one iteration."""
DISTANCE = 1 << 14
"""Bytes before an operand that is read once, from one panel into the next."""

Form = dict[str, int]
"""An index as a sum: loop variable -> factor. A loop whose start is such a sum counts from there, others from 0."""


def ahead(kernel: Kernel) -> Kernel:
    """`kernel` with hints for the next panels."""
    types = {p.name: p.dtype.bytes for p in kernel.params if p.extents is not None}
    for s in all_stmts(kernel.body):
        if isinstance(s, Alloc) and s.extents:
            types[s.name] = s.dtype.bytes
    work = _Ahead(types, supply(kernel))
    return dataclasses.replace(kernel, body=work.stmt(kernel.body, {}, ()))


@node
class _Walk:
    """What an innermost loop reads of an array: `row` elements in each iteration, where these stand, and where the first do."""

    array: str
    start: LoopExpr
    row: int
    form: tuple[tuple[str, int], ...]


class _Ahead:
    def __init__(self, types: Mapping[str, int], names: Names) -> None:
        self.types, self.names = types, names
        self.before: dict[int, list[Let]] = {}  # by id of a loop: what is to be known before it
        self.shares: dict[tuple[int, int], str] = {}

    def stmt(self, s: Stmt, env: Mapping[str, Form], loops: tuple[For, ...]) -> Stmt:
        """`s` inside `loops`; `env` holds what is known of names."""
        match s:
            case Block(stmts):
                known, out = dict(env), list[Stmt]()
                for x in stmts:
                    if isinstance(x, Let):
                        found = _form(x.value, known)
                        known.pop(x.name, None)
                        if found is not None:
                            known[x.name] = found
                    new = self.stmt(x, known, loops)
                    out += self.before.get(id(x), [])
                    out.append(new)
                return Block(tuple(out))
            case For(var, lower, _, body):
                mine = _form(lower, env)
                known = {**env, var: _sum(mine, {var: 1}) if mine is not None else {var: 1}}
                if any(isinstance(x, (For, While)) for x in all_stmts(body)):
                    return dataclasses.replace(s, body=self.stmt(body, known, (*loops, s)))
                return self._innermost(s, known, loops)
            case If(condition, then, orelse):
                return If(condition, self.stmt(then, env, loops), None if orelse is None else self.stmt(orelse, env, loops))
            case While(condition, body):
                return While(condition, self.stmt(body, env, loops))
            case _:
                return s

    def _innermost(self, loop: For, env: Mapping[str, Form], loops: tuple[For, ...]) -> For:
        trips = b.number(b.sub(loop.upper, loop.lower))
        if trips is None or loop.step != 1 or not loops:
            return loop
        hints: list[Stmt] = []
        for walk in _walks(loop, env):
            hints += self._hints(loop, trips, walk, loops)
        if not hints:
            return loop
        return dataclasses.replace(loop, body=Block((*b.statements(loop.body), *hints)))

    def _hints(self, loop: For, trips: int, walk: _Walk, loops: tuple[For, ...]) -> list[Stmt]:
        """Hints for the panel after the one that `walk` goes through, if it is gone through for several tiles."""
        form, size = dict(walk.form), self.types[walk.array]
        length = form.pop(loop.var, 0)
        inner = [x for x in loops if form.get(x.var) == 1]
        tiles = [x for x in loops if x.step > 1 and x.var not in form]
        if len(tiles) > 1 or len(inner) > 1 or (inner and tiles and loops.index(inner[0]) < loops.index(tiles[0])):
            return []
        outer = [x for x in (loops[: loops.index(tiles[0])] if tiles else loops) if x.var in form and x not in inner]
        steps = length // walk.row if inner and inner[0].step == walk.row else 1
        panel = length * trips
        lines = walk.row * size // LINE
        if not outer or form[outer[-1].var] != panel or length != walk.row * steps or panel * size < LEAST or not 1 <= lines <= LINES:
            return []
        if not tiles:
            known = [Let(self.names.fresh("later"), b.add(walk.start, b.const(DISTANCE // size)))]
            self.before.setdefault(id(loop), []).extend(known)
            at = b.add(b.var(known[0].name), b.mul(b.sub(b.var(loop.var), loop.lower), b.const(length)))
            return [Prefetch(walk.array, b.add(at, b.const(n * LINE // size)), near=False) for n in range(lines)]
        tile = tiles[0]
        share = self._share(tile, lines * LINE // size)
        number: LoopExpr = b.floordiv(b.sub(b.var(tile.var), tile.lower), b.const(tile.step))
        place = b.sub(b.var(inner[0].var), inner[0].lower) if inner else b.ZERO
        if inner:
            number = b.add(b.mul(number, b.const(steps)), b.floordiv(place, b.const(inner[0].step)))
        number = b.smallest(number, b.const(lines * LINE // size * steps))  # all is asked for by then
        start = b.add(b.sub(walk.start, place), b.const(panel))
        before = b.sub(b.mul(number, b.const(trips)), loop.lower)
        known = [Let(self.names.fresh("next_panel"), b.add(start, b.mul(before, b.var(share))))]
        self.before.setdefault(id(loop), []).extend(known)
        at = b.add(b.var(known[0].name), b.mul(b.var(loop.var), b.var(share)))
        return [Prefetch(walk.array, b.add(at, b.const(n * LINE // size)), near=False) for n in range(lines)]

    def _share(self, tile: For, row: int) -> str:
        """The name of how far the hints of one iteration are behind those of the one before, in elements: `row` of them are asked for once
        for all tiles."""
        if (id(tile), row) not in self.shares:
            name = self.shares[id(tile), row] = self.names.fresh("share")
            count = b.floordiv(b.add(b.sub(tile.upper, tile.lower), b.const(tile.step - 1)), b.const(tile.step))
            count = b.largest(count, b.ONE)
            self.before.setdefault(id(tile), []).append(Let(name, b.floordiv(b.add(count, b.const(row - 1)), count)))
        return self.shares[id(tile), row]


def _walks(loop: For, env: Mapping[str, Form]) -> list[_Walk]:
    """The arrays that a loop without loops inside reads along memory, one run of vectors in each iteration."""
    known, values = dict(env), dict[str, LoopExpr]({loop.var: loop.lower})
    bases: dict[str, list[tuple[LoopExpr, int]]] = {}
    for s in b.statements(loop.body):
        if isinstance(s, Let):
            found = _form(s.value, known)
            known.pop(s.name, None)
            if found is not None:
                known[s.name] = found
                values[s.name] = _at_first(s.value, values)
        for e in expressions(s):
            for x in all_exprs(e):
                if isinstance(x, (Load, MaskedLoad)) and x.indices and isinstance(x.indices[0], Ramp):
                    ramp = x.indices[0]
                    bases.setdefault(x.array, []).append((ramp.base, ramp.lanes if ramp.stride == 1 else 0))
    out = []
    for array, runs in bases.items():
        first = runs[0][0]
        form = _form(first, known)
        row = 0
        for base, lanes in runs:
            row = row + lanes if lanes and b.number(b.sub(base, first)) == row else -1 << 30
        if form is not None and row > 0:
            form.pop("", None)
            out.append(_Walk(array, _at_first(first, values), row, tuple(sorted(form.items()))))
    return out


def _at_first(expr: LoopExpr, values: Mapping[str, LoopExpr]) -> LoopExpr:
    """An index in the first iteration; `values` are those of names of the loop there."""
    match expr:
        case Var(name):
            return values.get(name, expr)
        case Apply("add" | "sub" | "mul" as op, (x, y)):
            return {"add": b.add, "sub": b.sub, "mul": b.mul}[op](_at_first(x, values), _at_first(y, values))
        case _:
            return expr


def _sum(x: Form, y: Form, sign: int = 1) -> Form:
    out = dict(x)
    for name, factor in y.items():
        out[name] = out.get(name, 0) + sign * factor
        if not out[name]:
            del out[name]
    return out


def _form(expr: LoopExpr, env: Mapping[str, Form]) -> Form | None:
    """`expr` as a sum of loop variables with factors; the key "" holds a number. None if it is none."""
    match expr:
        case Const():
            value = b.number(expr)
            return None if value is None else {"": value} if value else {}
        case Var(name):
            return env.get(name)
        case Apply("add" | "sub" as op, (x, y)):
            left, right = _form(x, env), _form(y, env)
            return None if left is None or right is None else _sum(left, right, 1 if op == "add" else -1)
        case Apply("mul", (x, y)):
            left, right = _form(x, env), _form(y, env)
            if left is None or right is None:
                return None
            for one, other in ((left, right), (right, left)):
                if not one or set(one) == {""}:
                    factor = one.get("", 0)
                    return {name: value * factor for name, value in other.items() if factor}
            return None
        case _:
            return None
