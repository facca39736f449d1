"""A row that outweighs the share of a thread is walked by all threads: each step along it is cut into pieces.

Before::                                    After::

    for i in 0..n parallel weight=A.pos1:     let heavy = max(32768, A.nnz // 16)
      alloc S: f32[m] thread                  for i in 0..n parallel weight=A.pos1:
      let begin = A.pos1[i] ...                 if A.pos1[i + 1] - A.pos1[i] <= heavy: ... as before
      for q in 0..len:                          else: check where it begins and ends; rows[its slot] = i + 1
        S[q] = ...                            alloc S_1: f32[m] kernel
        t = t + S[q]                          for k in 0..32:
      for j in 0..w vector:                     if 0 < rows[k]: let i = rows[k] - 1; let begin = A.pos1[i] ...
        T = 0.0                                   for p in 0..16 parallel:
        for q in 0..len:                            t_own = 0.0
          T = T + S[q] * X[crd[begin + q], j]       for q in p * len // 16..(p + 1) * len // 16:
        Y[i, j] = T / t                               S_1[q] = ...; t_own = t_own + S_1[q]
                                                    t_each[p] = t_own
                                                  for p in 0..16: t = t + t_each[p]
                                                  for p in 0..16 parallel:
                                                    for j in 0..w vector: T_each[p, j] = ... its part of the sum
                                                  for j in 0..w vector:
                                                    T = 0.0; for p in 0..16: T = T + T_each[p, j]
                                                    Y[i, j] = T / t

So one row among many does not keep one thread busy while the others wait (Merrill and Garland 2016 carry what a share has of a row into the next).
Compiled where the matrix at hand has such a row (`A_heavy1`, see `sparse.samples`); which rows are heavy is looked at when it is their turn. Its
slot is the first multiple of A.nnz // 16 among its elements: rows that do not overlap, as the checks of all say, have different ones.
How many pieces there are does not depend on the number of threads, so a result has the same bits with any. Proves that iterations of a
step touch elements of their own and registers they reduce into; assumes that monoids may be reassociated, as all of the table may.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

from polyai.loop import build as b
from polyai.loop.nodes import (
    Alloc,
    Apply,
    Block,
    Call,
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
    Prefetch,
    Space,
    Stmt,
    Store,
    Turn,
    Var,
    While,
)
from polyai.loop.passes.depend import depends
from polyai.loop.passes.stretch import cost
from polyai.loop.walks import all_exprs, all_stmts, expressions, map_operands, map_stmt, supply, with_names
from polyai.scalar import dtype as dt
from polyai.scalar.dtype import DType
from polyai.scalar.ops import MONOIDS
from polyai.term.names import Names

PIECES = 16
"""Into how many pieces a step is cut, and which part of all elements makes a row heavy."""
LEAST = 1 << 15
"""Elements of a heavy row, at least."""
SLOTS = 2 * PIECES
"""Places for heavy rows, each of which holds the first of some elements that lie a PIECES-th of all apart."""
_MONOID_OF = {m.op: m for m in MONOIDS.values()}


def heavy(kernel: Kernel, sizes: Mapping[str, int]) -> Kernel:
    """`kernel` with loops for heavy rows where `sizes`, typical values of sizes, say that there are some."""
    if not any("_heavy" in name for name in sizes):
        return kernel
    stored = {p.name: p.extents[0] for p in kernel.params if p.extents is not None and len(p.extents) == 1}
    return dataclasses.replace(kernel, body=_Heavy(supply(kernel), sizes, stored).stmt(kernel.body))


class _Heavy:
    def __init__(self, names: Names, sizes: Mapping[str, int], stored: Mapping[str, LoopExpr]) -> None:
        self.names, self.sizes, self.stored = names, sizes, stored

    def stmt(self, s: Stmt) -> Stmt:
        match s:
            case Block(stmts):
                return b.block(*map(self.stmt, stmts))
            case For(kind=Kind.PARALLEL):
                return self._rows(s) or s
            case For(kind=Kind.SERIAL) | While():
                return dataclasses.replace(s, body=self.stmt(s.body))
            case If(condition, then, orelse):
                return If(condition, self.stmt(then), None if orelse is None else self.stmt(orelse))
            case _:
                return s

    def _rows(self, loop: For) -> Stmt | None:
        """What takes the place of a loop over rows; None if it has no heavy ones or does what cannot be cut."""
        pos = str(loop.weight)
        tensor, _, level = pos.rpartition(".pos")
        longest, crd = self.sizes.get(f"{tensor}_heavy{level}"), pos.replace(".pos", ".crd")
        if longest is None or crd not in self.stored or loop.step != 1 or loop.stretch is not None:
            return None
        position = _position(loop.body, pos)
        if position is None or any(isinstance(s, (Call, While, Turn, Prefetch)) or _is_odd(s) for s in all_stmts(loop.body)):
            return None
        bound, each, slots, k = (self.names.fresh(name) for name in ("heavy", "sixteenth", "heavy_rows", "k"))
        here, slot = b.var(loop.var), b.var(k)
        begin, end = (b.convert(b.load(pos, (at,), position), dt.i64) for at in (here, b.add(here, b.ONE)))
        row = _Row(self, loop, pos, max(1, longest // PIECES))
        steps = row.steps()
        if steps is None:
            return None
        known = itertools.takewhile(lambda s: isinstance(s, (Alloc, Let, Check)), b.statements(loop.body))
        place = b.smallest(b.floordiv(b.add(begin, b.sub(b.var(each), b.ONE)), b.var(each)), b.const(SLOTS - 1))
        put_aside = Block((*(s for s in known if not isinstance(s, Alloc)), Store(slots, (b.largest(b.ZERO, place),), b.add(here, b.ONE))))
        found = b.load(slots, (slot,), dt.i64)
        return b.block(
            Let(each, b.largest(b.ONE, b.floordiv(self.stored[crd], b.const(PIECES)))),
            Let(bound, b.largest(b.const(LEAST), b.var(each))),
            Alloc(slots, dt.i64, (b.const(SLOTS),), Space.KERNEL),
            For(k, b.ZERO, b.const(SLOTS), Store(slots, (slot,), b.ZERO)),
            dataclasses.replace(loop, body=If(b.compare("le", b.sub(end, begin), b.var(bound)), Block(b.statements(loop.body)), put_aside)),
            *row.buffers,
            For(k, b.ZERO, b.const(SLOTS), If(b.compare("lt", b.ZERO, found), b.block(Let(loop.var, b.sub(found, b.ONE)), *steps))),
        )


class _Row:
    """One heavy row: `share` is how many elements a piece has, typically; `buffers` are what its steps need."""

    def __init__(self, work: _Heavy, loop: For, pos: str, share: int) -> None:
        self.names, self.sizes, self.share = work.names, work.sizes, share
        self.arrays = {s.name: self.names.fresh(s.name) for s in all_stmts(loop.body) if isinstance(s, Alloc)}
        self.stmts = b.statements(with_allocs(loop.body, self.arrays))
        self.types = {s.name: s.dtype for s in all_stmts(Block(self.stmts)) if isinstance(s, Alloc) and s.space is Space.REGISTER}
        self.lengths = _lengths(self.stmts, pos, loop.var)
        self.own = {loop.var} | {s.name for s in self.stmts if isinstance(s, Let)}
        self.buffers: list[Stmt] = []

    def steps(self) -> list[Stmt] | None:
        """The statements of the row; None if none of them is cut, or one cannot be."""
        out: list[Stmt] = []
        cut = False
        for s in self.stmts:
            if isinstance(s, Alloc) and s.space is not Space.REGISTER:
                if any(depends(e, self.own) for e in s.extents):
                    return None
                self.buffers.append(dataclasses.replace(s, space=Space.KERNEL))
            elif isinstance(s, For) and self._walks(s):
                new = self._along(s) if self._is_along(s) else self._below(s)
                if new is None:
                    return None
                out += new
                cut = True
            else:
                out.append(s)
        return out if cut else None

    def _is_along(self, loop: For) -> bool:
        return loop.step == 1 and isinstance(loop.upper, Var) and loop.upper.name in self.lengths and b.number(loop.lower) is not None

    def _walks(self, s: Stmt) -> bool:
        """Whether a loop goes along the row, or one inside does."""
        return any(isinstance(x, For) and self._is_along(x) for x in all_stmts(s))

    def _piece(self, loop: For, piece: LoopExpr) -> tuple[LoopExpr, LoopExpr]:
        """Where a piece of a loop along the row begins and ends."""
        trips = b.largest(b.ZERO, b.sub(loop.upper, loop.lower))
        first, last = (b.add(loop.lower, b.floordiv(b.mul(at, trips), b.const(PIECES))) for at in (piece, b.add(piece, b.ONE)))
        return first, last

    def _along(self, loop: For) -> list[Stmt] | None:
        """A loop along the row, in pieces."""
        sums = self._sums(loop)
        if sums is None:
            return None
        piece = self.names.fresh("piece")
        first, last = self._piece(loop, b.var(piece))
        own = {array: self.names.fresh(f"{array}_own") for array in sums}
        each = {array: self.names.fresh(f"{array}_each") for array in sums}
        self.buffers += [Alloc(each[a], self.types[a], (b.const(PIECES),), Space.KERNEL) for a in sums]
        starts = [x for a in sums for x in (Alloc(own[a], self.types[a], (), Space.REGISTER), Store(own[a], (), self._identity(a, sums)))]
        ends = [Store(each[a], (b.var(piece),), b.load(own[a], (), self.types[a])) for a in sums]
        inner = dataclasses.replace(loop, lower=first, upper=last, body=with_names(loop.body, own))
        joined = [Store(a, (), self._joined(a, sums, b.load(each[a], (b.var(piece),), self.types[a]))) for a in sums]
        return [
            *self._parallel(piece, b.block(*starts, inner, *ends), cost(loop.body, {}, self.sizes)),
            *([For(piece, b.ZERO, b.const(PIECES), b.block(*joined))] if sums else []),
        ]

    def _below(self, outer: For) -> list[Stmt] | None:
        """Loops over what an element of the row names (its columns), below which there is one along the row, whose sums are theirs."""
        loops = [outer]
        while not any(isinstance(s, For) and self._is_along(s) for s in b.statements(loops[-1].body)):
            match b.statements(loops[-1].body):
                case (For() as only,):
                    loops.append(only)
                case _:
                    return None
        if any(x.lower != b.ZERO or x.step != 1 or depends(x.upper, self.own | {y.var for y in loops}) for x in loops):
            return None
        stmts = b.statements(loops[-1].body)
        at = next(n for n, s in enumerate(stmts) if isinstance(s, For) and self._is_along(s))
        before, walk, after = stmts[:at], stmts[at], stmts[at + 1 :]
        assert isinstance(walk, For)
        mine = {s.name for s in before if isinstance(s, Alloc)}
        sums = self._sums(walk)
        if sums is None or not sums.keys() <= mine or _stores(walk.body) - sums.keys() - {s.name for s in all_stmts(walk.body) if isinstance(s, Alloc)}:
            return None
        if any(map(self._walks, (*before, *after))) or not all(isinstance(s, (Alloc, Let)) or (isinstance(s, Store) and s.array in mine) for s in before):
            return None
        piece, extents = self.names.fresh("piece"), tuple(x.upper for x in loops)
        place = tuple(b.var(x.var) for x in loops)
        each = {array: self.names.fresh(f"{array}_each") for array in sums}
        self.buffers += [Alloc(each[a], self.types[a], (b.const(PIECES), *extents), Space.KERNEL) for a in sums]
        first, last = self._piece(walk, b.var(piece))
        fresh = {s.name: self.names.fresh(s.name) for s in all_stmts(outer) if isinstance(s, Alloc)}
        starts = [Store(s.array, (), self._identity(s.array, sums)) if isinstance(s, Store) and s.array in sums else s for s in before]
        parts = [Store(each[a], (b.var(piece), *place), b.load(a, (), self.types[a])) for a in sums]
        part = with_allocs(b.block(*starts, dataclasses.replace(walk, lower=first, upper=last), *parts), fresh)
        joined = [Store(a, (), self._joined(a, sums, b.load(each[a], (b.var(piece), *place), self.types[a]))) for a in sums]
        whole = b.block(*before, For(piece, b.ZERO, b.const(PIECES), b.block(*joined)), *after)
        return [*self._parallel(piece, _nest(loops, part), cost(_nest(loops, walk.body), {}, self.sizes)), _nest(loops, whole)]

    def _parallel(self, piece: str, body: Stmt, each: int) -> list[Stmt]:
        """The pieces, with the registers that they read but do not own read before."""
        inner = {s.name for s in all_stmts(body) if isinstance(s, Alloc)}
        read = {x.array for s in all_stmts(body) for e in expressions(s) for x in all_exprs(e) if isinstance(x, Load)} & self.types.keys()
        then = {array: self.names.fresh(f"{array}_then") for array in sorted(read - inner)}

        def change(e: LoopExpr) -> LoopExpr:
            e = map_operands(e, change)
            return Var(then[e.array], e.dtype) if isinstance(e, Load) and e.array in then else e

        lets = [Let(name, b.load(array, (), self.types[array])) for array, name in then.items()]
        return [*lets, For(piece, b.ZERO, b.const(PIECES), map_stmt(body, change), Kind.PARALLEL, cost=max(1, each) * self.share)]

    def _identity(self, array: str, sums: Mapping[str, str]) -> Const:
        return Const(_MONOID_OF[sums[array]].identity(self.types[array]), self.types[array])

    def _joined(self, array: str, sums: Mapping[str, str], part: LoopExpr) -> LoopExpr:
        return b.apply(_MONOID_OF[sums[array]].op, (b.load(array, (), self.types[array]), part), self.types[array])

    def _sums(self, loop: For) -> dict[str, str] | None:
        """The operation of each register that a loop along the row reduces into; None if its iterations do not stand apart but for these."""
        inner = {s.name for s in all_stmts(loop.body) if isinstance(s, Alloc)}
        found: dict[str, str] = {}
        reads: dict[str, int] = {}
        places: dict[str, tuple[LoopExpr, ...]] = {}
        loads = [x for s in all_stmts(loop.body) for e in expressions(s) for x in all_exprs(e) if isinstance(x, (Load, MaskedLoad))]
        for x in loads:
            reads[x.array] = reads.get(x.array, 0) + 1
        for s in all_stmts(loop.body):
            match s:
                case Store(array) if array in inner:
                    pass
                case Store(array, (), Apply(op, (Load() as old, _), dtype), None) if old == Load(array, (), dtype) and op in _MONOID_OF and array in self.types:
                    if found.setdefault(array, op) != op:
                        return None
                    reads[array] -= 1
                case Store(array, indices) if indices and any(_is_own(i, loop.var) for i in indices) and places.setdefault(array, indices) == indices:
                    pass
                case Store():
                    return None
                case _:
                    pass
        apart = all(x.array not in places or x.indices == places[x.array] for x in loads)
        return found if apart and not any(reads[array] for array in found) else None


def _nest(loops: Sequence[For], body: Stmt) -> Stmt:
    for loop in reversed(loops):
        body = dataclasses.replace(loop, body=body)
    return body


def _is_own(index: LoopExpr, var: str) -> bool:
    """Whether an index is another one in every iteration: the variable, or that and something that stays."""
    match index:
        case Var(name):
            return name == var
        case Apply("add", (Var(x), Var(y))):
            return (x == var) != (y == var)
        case _:
            return False


def _is_odd(s: Stmt) -> bool:
    """Whether a statement is a buffer of another kind, or a loop, than rows have that can be cut."""
    return (isinstance(s, Alloc) and (s.zero or s.space is Space.KERNEL)) or (isinstance(s, For) and s.kind not in (Kind.SERIAL, Kind.VECTOR, Kind.JAM))


def _stores(s: Stmt) -> set[str]:
    return {x.array for x in all_stmts(s) if isinstance(x, Store)}


def _position(body: Stmt, pos: str) -> DType | None:
    """The type of positions, from where the body reads them."""
    return next((x.dtype for s in b.statements(body) if isinstance(s, Let) for x in all_exprs(s.value) if isinstance(x, Load) and x.array == pos), None)


def _lengths(stmts: Sequence[Stmt], pos: str, row: str) -> set[str]:
    """Names of how much the row stores."""
    at: dict[str, LoopExpr] = {}
    found = set[str]()
    for s in stmts:
        match s:
            case Let(name, Cast(Load(array, (index,)))) | Let(name, Load(array, (index,))) if array == pos:
                at[name] = index
            case Let(name, Apply("sub", (Var(end), Var(begin)))) if at.get(begin) == b.var(row) and at.get(end) == b.add(b.var(row), b.ONE):
                found.add(name)
            case _:
                pass
    return found


def with_allocs(stmt: Stmt, names: Mapping[str, str]) -> Stmt:
    """`stmt` with other names for some arrays, those that it declares among them."""

    def declared(s: Stmt) -> Stmt:
        match s:
            case Block(stmts):
                return Block(tuple(map(declared, stmts)))
            case For() | While():
                return dataclasses.replace(s, body=declared(s.body))
            case If(condition, then, orelse):
                return If(condition, declared(then), None if orelse is None else declared(orelse))
            case Alloc(name):
                return dataclasses.replace(s, name=names.get(name, name))
            case _:
                return s

    return declared(with_names(stmt, names))
