"""Long sums without a free row are split into partial sums, so that threads can share them.

    T_upd[i,j]    T add= x[i,j]              ->     T_part_init[t]     T_part_acc[t] = 0.0         for each piece of 64 rows
                                                    T_part_upd[i,j]    T_part_acc[i // 64] add= x[i,j]
                                                    T_part[t]          T_part[t] = T_part_acc[t]
                                                    T_upd[t]           T add= T_part[t]

The pieces depend on likely sizes, never on the number of threads: a result is the same on any machine. Assumes that the monoid
may be reassociated, as all of the table may.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from polyai.poly.access import reads_of, write_of
from polyai.poly.affine import Parameters
from polyai.poly.nodes import Array, Ragged, Scop, Statement
from polyai.poly.passes.facts import Facts, facts_of
from polyai.scalar import dtype as dt
from polyai.scalar.expr import Apply, Const, Expr, Load, Var
from polyai.scalar.ops import MONOIDS
from polyai.shapes.expr import Size, floordiv
from polyai.term.names import Names

WORTHWHILE = 1 << 17
"""Terms below which one thread is as fast."""
PIECE = 1 << 15
"""Terms of one partial sum."""
TASKS = 8
"""Panels of a matrix, each read in order, that are enough for the threads: columns are shared then, and nothing is split."""


def run(scop: Scop, hints: Mapping[str, int], facts: Mapping[str, Facts] | None = None) -> Scop:
    """`scop` with long sums split; the same scop if there are none. `facts`: those of `scop`, if they are at hand."""
    facts = facts or facts_of(scop, hints)
    work = _Split(scop)
    statements: list[Statement] = []
    for s in scop.statements:
        cut = _cut_of(facts[s.name])
        statements += [s] if cut is None else work.pieces(s, *cut)
    if not work.arrays:
        return scop
    prefix = f"[{', '.join(scop.parameters)}] -> "
    return dataclasses.replace(
        scop, arrays=(*scop.arrays, *work.arrays), statements=tuple(_prefixed(s, prefix) for s in statements)
    )


def _cut_of(f: Facts) -> tuple[str, int] | None:
    """The dim to cut and the length of a piece, if `f` is a long sum without a row to give to each thread."""
    if not f.summed or f.serial or f.statement.ragged or any(d != f.vector for d in f.free):
        return None
    terms = 1
    for d in f.statement.dims:
        terms *= f.trip(d)
    if terms < WORTHWHILE or any(f.trip(d) >= TASKS * width for d, width in f.panels if d in f.free):
        return None
    dim = next((d for d in f.summed if d != f.vector), f.summed[0])
    if isinstance(f.extent(dim), Ragged) or f.trip(dim) < 8:
        return None
    length = 1
    while length * 2 * (terms // f.trip(dim)) <= PIECE and length * 8 <= f.trip(dim):
        length *= 2
    return dim, length


class _Split:
    def __init__(self, scop: Scop) -> None:
        self.scop = scop
        self.arrays: list[Array] = []
        self.sizes = Parameters(scop.sizes)
        self.names = Names(s.name for s in scop.statements)
        self.array_names = Names(a.name for a in scop.arrays)

    def pieces(self, s: Statement, dim: str, length: int) -> list[Statement]:
        """The statements that replace `s`."""
        extent = s.extents[s.dims.index(dim)]
        assert not isinstance(extent, Ragged)
        count = floordiv(extent + (length - 1), length)
        free = [i.name for i in s.at if isinstance(i, Var)]
        piece = Names(s.dims).fresh("t")
        dims = (piece, *free)
        extents: tuple[Size | Ragged, ...] = (count, *(s.extents[s.dims.index(d)] for d in free))
        stem = s.name.removesuffix("_upd")
        dtype = self.scop.array(s.target).dtype
        sums, parts = self.array_names.fresh(f"{s.target}_part_acc"), self.array_names.fresh(f"{s.target}_part")
        self.arrays += [Array(name, dtype, extents, "temporary") for name in (sums, parts)]
        here: tuple[Expr, ...] = tuple(Var(d, dt.i64) for d in dims)
        inside = Apply("floordiv", (Var(dim, dt.i64), Const(length, dt.i64)), dt.i64)
        identity = Const(MONOIDS[s.monoid or "add"].identity(dtype), dtype)
        last_dims, last_extents = (*free, piece), (*extents[1:], count)
        return [
            self._statement(f"{stem}_part_init", dims, extents, sums, here, identity, None),
            self._statement(f"{stem}_part_upd", s.dims, s.extents, sums, (inside, *here[1:]), s.value, s.monoid),
            self._statement(f"{stem}_part", dims, extents, parts, here, Load(sums, here, dtype), None),
            self._statement(s.name, last_dims, last_extents, s.target, s.at, Load(parts, here, dtype), s.monoid, name=s.name),
        ]

    def _statement(
        self,
        stem: str,
        dims: tuple[str, ...],
        extents: tuple[Size | Ragged, ...],
        target: str,
        at: tuple[Expr, ...],
        value: Expr,
        monoid: str | None,
        name: str | None = None,
    ) -> Statement:
        name = name or self.names.fresh(stem)
        head = f"{name}[{', '.join(dims)}]"
        limits = [f"0 <= {d} < {self.sizes.text(e)}" for d, e in zip(dims, extents) if not isinstance(e, Ragged)]
        known = {*dims, *self.scop.parameters}
        texts = {a.name: tuple("0" if isinstance(e, Ragged) else self.sizes.text(e) for e in a.extents) for a in (*self.scop.arrays, *self.arrays)}
        return Statement(
            name,
            dims,
            (),
            f"{{ {head}{' : ' if limits else ''}{' and '.join(limits)} }}",
            target,
            at,
            value,
            monoid,
            write_of(head, target, at, value.dtype, known, texts),
            reads_of(head, (value, *at), known, texts),
            extents,
        )


def _prefixed(s: Statement, prefix: str) -> Statement:
    if s.domain.startswith("["):
        return s
    return dataclasses.replace(
        s,
        domain=prefix + s.domain,
        write=dataclasses.replace(s.write, text=prefix + s.write.text),
        reads=tuple(dataclasses.replace(r, text=prefix + r.text) for r in s.reads),
    )
