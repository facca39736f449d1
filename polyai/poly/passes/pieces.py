"""A long list of stored elements is cut into pieces for the threads, each with a copy of the result; the copies are combined.

    T_upd[q,j]   T[A.crd0[q],j] add= A.val[q] * B[A.crd1[q],j]
    ->
    T_part_init[t,i,j]   T_part[t,i,j] = 0.0                              0 <= t < 8
    T_part_upd[t,q,j]    T_part[t,A.crd0[q],j] add= A.val[q] * B[A.crd1[q],j]      q: the elements of piece t
    T_upd[i,j,t]         T[i,j] add= T_part[t,i,j]

for lists whose elements may meet in the result (COO in any order, trees of fibres that do not start with the mode that is
kept), and for sums of all elements. Where few rows have long fibres, the level of the fibres is cut: a piece walks
what it has of each row, in lanes where nothing else runs in them. Done where the copies are small beside the work. How many pieces there are depends on
likely sizes, never on the number of threads: a result is the same on any machine. Assumes that the monoid may be
reassociated, as all of the table may.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from polyai.poly.access import loads_in, reads_of, variables_in, write_of
from polyai.poly.affine import Parameters
from polyai.poly.nodes import Array, Ragged, RaggedDim, Scop, Statement, hull_of
from polyai.poly.passes.facts import Facts, facts_of, trip
from polyai.scalar import dtype as dt
from polyai.scalar.expr import Const, Expr, Load, Var
from polyai.scalar.ops import MONOIDS
from polyai.shapes.expr import Size
from polyai.term.names import Names

PIECES = (8, 4)
FEW = 16
"""Rows from which these are shared by the threads."""
WORTHWHILE = 1 << 16
"""Operations below which one thread is as fast."""
SHARE = 16
"""The elements of all copies are at most one in so many operations: clearing and adding them is dearer than one update."""


def run(scop: Scop, hints: Mapping[str, int], facts: Mapping[str, Facts] | None = None) -> Scop:
    """`scop` with long lists cut; the same scop if there are none. `facts`: what is known of its statements."""
    facts = facts_of(scop, hints, facts)
    work = _Pieces(scop)
    out: list[Statement] = []
    for s in scop.statements:
        level, count = _pieces_of(facts[s.name], scop, hints)
        out += [s] if count is None else work.cut(s, level, count)
    if not work.arrays:
        return scop
    prefix = f"[{', '.join(scop.parameters)}] -> "
    return dataclasses.replace(scop, arrays=(*scop.arrays, *work.arrays), statements=tuple(_prefixed(s, prefix) for s in out))


def _level_of(f: Facts) -> int | None:
    """The level that is cut: the outermost, if its elements meet in the result; that below few rows; None if threads have rows to share."""
    top, *below = f.statement.ragged
    if not top.parents and (top.dim in f.serial or (top.dim in f.summed and all(d == f.vector for d in f.free))):
        return 0
    rows = top if top.parents else below[0] if below and below[0].parents == (top.dim,) else None
    if rows is None or any(d in f.serial for d in rows.parents) or any(rows.dim in variables_in(e) for e in f.statement.at):
        return None
    if any(d not in rows.parents and d != f.vector for d in f.free):
        return None
    return rows.level if math.prod(f.trip(d) for d in rows.parents) < FEW else None


def _pieces_of(f: Facts, scop: Scop, hints: Mapping[str, int]) -> tuple[int, int | None]:
    """The level of the list that `f` walks at which it is cut, and into how many pieces; None if it is not."""
    s = f.statement
    if s.monoid is None or not s.ragged:
        return 0, None
    if s.groups or len({r.tensor for r in s.ragged}) > 1 or any(r.place or r.stream or r.drains for r in s.ragged):
        return 0, None
    if any(load.array == s.target for root in (s.value, *s.at) for load in loads_in(root)):
        return 0, None
    if any(_is_made_along_fibres(scop.array(r.array)) for r in s.reads):
        return 0, None  # its elements are counted from where their fibre begins, those of a piece from where it does
    level = _level_of(f)
    if level is None:
        return 0, None
    array = scop.array(s.target)
    if array.role not in ("output", "temporary") or any(isinstance(e, Ragged) for e in array.extents):
        return 0, None
    work, elements = 1, 1
    for d in s.dims:
        work *= f.trip(d)
    for e in array.extents:
        elements *= trip(e, hints)
    known = f"{s.ragged[0].tensor}_len{level}" in hints
    if not known or work < WORTHWHILE:
        return 0, None
    return level, next((n for n in PIECES if n * elements * SHARE <= work), None)


def _is_made_along_fibres(array: Array) -> bool:
    return array.role != "input" and any(isinstance(e, Ragged) for e in array.extents)


class _Pieces:
    def __init__(self, scop: Scop) -> None:
        self.scop = scop
        self.arrays: list[Array] = []
        self.sizes = Parameters(scop.sizes)
        self.names = Names(s.name for s in scop.statements)
        self.array_names = Names(a.name for a in scop.arrays)

    def cut(self, s: Statement, level: int, count: int) -> list[Statement]:
        """The statements that replace `s`, which walks a list that is cut at `level`."""
        target = self.scop.array(s.target)
        taken = Names({*s.dims, *self.scop.parameters})
        piece = taken.fresh("t")
        part = Array(self.array_names.fresh(f"{s.target}_part"), target.dtype, (count, *target.extents), "temporary")
        self.arrays.append(part)
        stem = s.name.removesuffix("_upd")
        own = tuple(taken.fresh("i") for _ in target.extents)
        here: tuple[Expr, ...] = tuple(Var(d, dt.i64) for d in (piece, *own))
        identity = Const(MONOIDS[s.monoid or "add"].identity(target.dtype), target.dtype)
        whole: dict[str, Size | Ragged] = {piece: count, **dict(zip(own, target.extents))}
        inside = {piece: count, **dict(zip(s.dims, s.extents))}
        ragged = tuple(dataclasses.replace(r, parents=(piece, *r.parents), piece=piece, pieces=count, cut=level) for r in s.ragged)
        at = (Var(piece, dt.i64), *s.at)
        return [
            self._statement(self.names.fresh(f"{stem}_part_init"), (piece, *own), whole, (), part.name, here, identity, None),
            self._statement(self.names.fresh(f"{stem}_part_upd"), (piece, *s.dims), inside, ragged, part.name, at, s.value, s.monoid),
            self._statement(s.name, (*own, piece), whole, (), s.target, here[1:], Load(part.name, here, part.dtype), s.monoid),
        ]

    def _statement(
        self,
        name: str,
        dims: tuple[str, ...],
        extents: Mapping[str, Size | Ragged],
        ragged: tuple[RaggedDim, ...],
        target: str,
        at: tuple[Expr, ...],
        value: Expr,
        monoid: str | None,
    ) -> Statement:
        head = f"{name}[{', '.join(dims)}]"
        limits = [f"0 <= {d} < {self._text(extents[d])}" for d in dims]
        known = {*dims, *self.scop.parameters}
        texts = {a.name: tuple(self._text(e) for e in a.extents) for a in (*self.scop.arrays, *self.arrays)}
        write = write_of(head, target, at, value.dtype, known, texts)
        return Statement(
            name,
            dims,
            ragged,
            f"{{ {head}{' : ' if limits else ''}{' and '.join(limits)} }}",
            target,
            at,
            value,
            monoid,
            dataclasses.replace(write, must=write.must and not ragged),
            reads_of(head, (value, *at), known, texts),
            tuple(extents[d] for d in dims),
        )

    def _text(self, extent: Size | Ragged) -> str:
        return hull_of(extent.tensor, extent.level) if isinstance(extent, Ragged) else self.sizes.text(extent)


def _prefixed(s: Statement, prefix: str) -> Statement:
    if s.domain.startswith("["):
        return s
    return dataclasses.replace(
        s,
        domain=prefix + s.domain,
        write=dataclasses.replace(s.write, text=prefix + s.write.text),
        reads=tuple(dataclasses.replace(r, text=prefix + r.text) for r in s.reads),
    )
