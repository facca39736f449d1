"""Neighbouring rows that list the same coordinates run together: what the coordinates name is read once for all of them.

Before::                                     After::

    for i in 0..n parallel weight=A.pos1:      for i_first in 0..n step 4 parallel weight=A.pos1:
      let begin = A.pos1[i] ...                  alloc alike: bool register
      for j in 0..m vector:                      ... alike: four rows are left, as long as the first one, with equal coordinates
        T = 0.0                                  if alike:
        for q in 0..len:                           let begin = A.pos1[i] ... let begin_3 = A.pos1[i + 3] ...
          c = A.crd1[begin + q]                    for j in 0..m vector:
          T = T + A[begin + q] * X[c, j]             T = 0.0; ... T_3 = 0.0
        Y[i, j] = T                                  for q in 0..len:
                                                       c = A.crd1[begin + q]
                                                       T = T + A[begin + q] * X[c, j]; ... T_3 = ...
                                                     Y[i, j] = T; ...
                                                 else:
                                                   for i in i_first..min(i_first + 4, n): ... as before

Rows come in such groups where unknowns share a node of a mesh and where masks are made of blocks. Whether they do, and how many, is
measured on the matrix at hand (`A_alike1`, see `sparse.samples`); that decides what is compiled, never what is computed: each group is
looked at when it is its turn. Positions are compared before coordinates are read, so that broken ones go the way that reports them.
Assumes that the iterations of a parallel loop may run in any order; the scheduler proved it.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Mapping

from polyai.loop import build as b
from polyai.loop.nodes import (
    Alloc,
    Apply,
    Block,
    Call,
    Cast,
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
from polyai.loop.passes.depend import varying
from polyai.loop.passes.jam import Copies
from polyai.loop.passes.stretch import value as typical
from polyai.loop.walks import all_exprs, all_stmts, expressions, map_operands, map_stmt, supply, written
from polyai.scalar import dtype as dt
from polyai.scalar.dtype import DType
from polyai.term.names import Names
from polyai.term.node import node

_COMPARED = 4
"""Vectors of coordinates that are compared at once."""
NEAR = 1 << 20
"""Stored elements up to which it pays where single elements are read. What is stored then comes from a cache; from memory it comes faster
in the order in which it lies there, row by row."""


@node
class _Fibre:
    """The names of where the fibre of a row begins and ends and of its length; `pos` and `crd` hold positions and coordinates, of
    these types; `stored` is how many coordinates there are."""

    begin: str
    length: str
    pos: str
    crd: str
    position: DType
    coordinate: DType
    stored: LoopExpr


def twins(kernel: Kernel, sizes: Mapping[str, int], registers: int) -> Kernel:
    """`kernel` with versions for groups of equal rows where `sizes` say that there are some. `registers`: vectors the machine holds."""
    if not any("_alike" in name for name in sizes):
        return kernel
    lists = {p.name: (p.dtype, p.extents[0]) for p in kernel.params if p.extents is not None and len(p.extents) == 1}
    return dataclasses.replace(kernel, body=_Twins(sizes, registers, lists, supply(kernel)).stmt(kernel.body))


def group(pos: str | None, sizes: Mapping[str, int]) -> int:
    """How many neighbouring rows of the matrix with these positions list the same coordinates, as far as that is known: 1 if none do."""
    tensor, _, level = str(pos).rpartition(".pos")
    return max(1, sizes.get(f"{tensor}_alike{level}", 1))


class _Twins:
    def __init__(self, sizes: Mapping[str, int], registers: int, lists: Mapping[str, tuple[DType, LoopExpr]], names: Names) -> None:
        self.sizes, self.registers, self.lists, self.names = sizes, registers, lists, names

    def stmt(self, s: Stmt) -> Stmt:
        match s:
            case Block(stmts):
                return Block(tuple(self.stmt(x) for x in stmts))
            case For(kind=Kind.PARALLEL):
                rows = group(s.weight, self.sizes)
                if rows == 1 or s.stretch is not None:
                    return s
                if s.step == 1:
                    return self._grouped(s, rows)
                return dataclasses.replace(s, body=Block(tuple(self._grouped(x, rows) if isinstance(x, For) else x for x in b.statements(s.body))))
            case For() | While():
                return dataclasses.replace(s, body=self.stmt(s.body))
            case If(condition, then, orelse):
                return If(condition, self.stmt(then), None if orelse is None else self.stmt(orelse))
            case _:
                return s

    def _grouped(self, loop: For, rows: int) -> For:
        """A loop over rows, in groups of so many."""
        fibre = self._fibre(loop)
        if fibre is None or loop.step != 1 or not _rows_are_apart(loop.body) or not self._pays(loop.body, fibre):
            return loop
        first, alike = b.var(self.names.fresh(f"{loop.var}_first")), self.names.fresh("alike")
        left = b.smallest(b.add(first, b.const(rows)), loop.upper)
        steps = Block((
            Alloc(alike, dt.bool_, (), Space.REGISTER),
            Store(alike, (), b.compare("le", b.add(first, b.const(rows)), loop.upper)),
            If(b.load(alike, (), dt.bool_), self._compared(first, rows, fibre, alike)),
            If(b.load(alike, (), dt.bool_), self._together(loop, first, rows, fibre), For(loop.var, first, left, loop.body)),
        ))  # fmt: skip
        return dataclasses.replace(loop, var=first.name, step=rows, body=steps)

    def _pays(self, body: Stmt, fibre: _Fibre) -> bool:
        """Whether a coordinate of the fibre names a row that is read, or an element, where the fibres lie near."""
        names = {s.name for s in all_stmts(body) if isinstance(s, Let) and any(isinstance(x, Load) and x.array == fibre.crd for x in all_exprs(s.value))}
        loads = (x for s in all_stmts(body) for e in expressions(s) for x in all_exprs(e) if isinstance(x, Load))
        read = [len(x.indices) for x in loads if any(isinstance(y, Var) and y.name in names for i in x.indices for y in all_exprs(i))]
        return max(read, default=0) > 1 or (bool(read) and (typical(fibre.stored, self.sizes) or NEAR + 1) <= NEAR)

    def _fibre(self, loop: For) -> _Fibre | None:
        """The one fibre that a row has, if that is how the loop begins."""
        begins: dict[str, tuple[str, DType]] = {}
        ends: dict[str, str] = {}
        found: list[_Fibre] = []
        here = b.var(loop.var)
        for s in b.statements(loop.body):
            if not isinstance(s, Let):
                continue
            match s.value:
                case Cast(Load(pos, (at,), index), dt.i64) | Load(pos, (at,), index) if at == here and index.is_integer:
                    begins[s.name] = (pos, index)
                case Cast(Load(pos, (at,), index), dt.i64) | Load(pos, (at,), index) if at == b.add(here, b.ONE) and index.is_integer:
                    ends[s.name] = pos
                case Apply("sub", (Var(end), Var(begin)), dt.i64) if begin in begins and ends.get(end) == begins[begin][0]:
                    pos, index = begins[begin]
                    crd = pos.replace(".pos", ".crd")
                    if pos != crd and crd in self.lists:
                        found.append(_Fibre(begin, s.name, pos, crd, index, *self.lists[crd]))
                case _:
                    pass
        read = {x.array for s in all_stmts(loop.body) for e in expressions(s) for x in all_exprs(e) if isinstance(x, Load) and ".pos" in x.array}
        return found[0] if len(found) == 1 and read == {found[0].pos} else None

    def _compared(self, first: LoopExpr, rows: int, fibre: _Fibre, alike: str) -> Stmt:
        """`alike` becomes false unless the rows are sound, equally long and list the same."""
        places = [b.var(self.names.fresh(fibre.begin)) for _ in range(rows + 1)]
        length, q = b.var(self.names.fresh(fibre.length)), b.var(self.names.fresh("q"))

        def place(n: int) -> LoopExpr:
            return b.convert(b.load(fibre.pos, (b.add(first, b.const(n)),), fibre.position), dt.i64)

        def listed(n: int, at: LoopExpr) -> LoopExpr:
            return b.load(fibre.crd, (b.add(places[n], at),), fibre.coordinate)

        def same(at: LoopExpr) -> LoopExpr:
            tests: list[LoopExpr] = [b.apply("eq", (listed(0, at), listed(n, at)), dt.bool_) for n in range(1, rows)]
            return functools.reduce(b.both, tests)

        def keep(test: LoopExpr) -> Store:
            return Store(alike, (), b.both(b.load(alike, (), dt.bool_), test))

        lengths = (b.compare("eq", b.sub(y, x), length) for x, y in itertools.pairwise(places[1:]))
        sound = b.both(b.both(b.at_most(places[0], fibre.stored), b.at_most(length, fibre.stored)), b.at_most(places[-1], fibre.stored))  # none wraps around then
        return Block((
            *(Let(p.name, place(n)) for n, p in enumerate(places)),
            Let(length.name, b.sub(places[1], places[0])),
            Store(alike, (), functools.reduce(b.both, lengths, b.both(sound, b.compare("lt", b.ZERO, length)))),
            If(b.load(alike, (), dt.bool_), Block((
                keep(b.both(same(b.ZERO), same(b.sub(length, b.ONE)))),
                If(b.load(alike, (), dt.bool_), For(q.name, b.ZERO, length, keep(same(q)), Kind.VECTOR, jam=_COMPARED)),
            ))),
        ))  # fmt: skip

    def _together(self, loop: For, first: LoopExpr, rows: int, fibre: _Fibre) -> Stmt:
        """The body for all rows of a group at once: its loops over the fibre are those of the first row."""
        begin = b.var(self.names.fresh(fibre.begin))
        length = b.var(fibre.length)

        def of_the_first(expr: LoopExpr) -> LoopExpr:
            expr = map_operands(expr, of_the_first)
            return b.load(expr.array, tuple(_renamed(i, fibre.begin, begin) for i in expr.indices), expr.dtype) if isinstance(expr, Load) and expr.array == fibre.crd else expr

        here = tuple(s for s in b.statements(map_stmt(loop.body, of_the_first)) if not (isinstance(s, Let) and s.name == fibre.length))
        most = max(1, self.registers * 3 // 4 // rows)
        body = _jammed(Block(here), 1 << (most.bit_length() - 1))
        copies = Copies(loop.var, varying(body, loop.var), self.names, tuple(range(rows)), 1, written(body))
        at = b.load(fibre.pos, (first,), fibre.position), b.load(fibre.pos, (b.add(first, b.ONE),), fibre.position)
        return Block((
            Let(loop.var, first),
            Let(begin.name, b.convert(at[0], dt.i64)),
            Let(length.name, b.sub(b.convert(at[1], dt.i64), begin)),
            *copies.block(body).stmts,
        ))  # fmt: skip


def _rows_are_apart(body: Stmt) -> bool:
    """Whether no row reads in memory what another one may have written there, and none does more than compute."""
    inner = {s.name for s in all_stmts(body) if isinstance(s, Alloc)}
    stored = {s.array for s in all_stmts(body) if isinstance(s, Store)} - inner
    read = {x.array for s in all_stmts(body) for e in expressions(s) for x in all_exprs(e) if isinstance(x, (Load, MaskedLoad))}
    outside = {s.array for s in all_stmts(body) if isinstance(s, Store) and not s.indices} - inner
    special = any(isinstance(s, (Call, While, Turn, Prefetch)) or (isinstance(s, Alloc) and s.zero) for s in all_stmts(body))
    return not (special or outside or stored & read)


def _renamed(expr: LoopExpr, name: str, to: LoopExpr) -> LoopExpr:
    return to if isinstance(expr, Var) and expr.name == name else map_operands(expr, lambda e: _renamed(e, name, to))


def _jammed(s: Stmt, most: int) -> Stmt:
    """`s` with at most so many copies of its JAM loops."""
    match s:
        case Block(stmts):
            return Block(tuple(_jammed(x, most) for x in stmts))
        case For(kind=kind, jam=jam):
            body = _jammed(s.body, most)
            return dataclasses.replace(s, body=body, jam=min(jam, most) if kind is Kind.JAM else jam)
        case If(condition, then, orelse):
            return If(condition, _jammed(then, most), None if orelse is None else _jammed(orelse, most))
        case _:
            return s
