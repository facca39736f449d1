"""An operand that many rows read across memory is copied into panels first, piece by piece.

    T_upd[i,j,k]   T[i,j] add= X[i,k] * W[k,j]
    ->
    W_panels[j,k]  P[j // 16, k, j % 16] = W[k,j]
    T_upd[i,j,k]   T[i,j] add= X[i,k] * P[j // 16, k, j % 16]

Down a column of register tiles, each row of W lies in another page and in the same few lines of a cache; of a panel, all lines are
used up one after another (Goto and van de Geijn 2008). Done where W does not stay in a cache and enough rows pay for the copy.
The recipe copies a panel just before it is used, and `contract` keeps one. Proves what it does: the copy has the same elements.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from polyai.poly.access import loads_in, reads_of, write_of
from polyai.poly.affine import Parameters
from polyai.poly.nodes import Array, Ragged, Scop, Statement
from polyai.poly.passes.facts import Facts, facts_of
from polyai.scalar import dtype as dt
from polyai.scalar.expr import Apply, Const, Expr, Load, Var
from polyai.shapes.expr import floordiv
from polyai.term.names import Names
from polyai.term.node import map_children

ROWS = 25
"""Rows from which a copy is worth its while."""
STAYS = 1 << 18
"""An operand up to this many bytes is read where it is: it stays in the second-level cache, beside what else is there."""


def run(scop: Scop, hints: Mapping[str, int], vector_bytes: int = 64) -> Scop:
    """`scop` with copies of such operands; the same scop if there are none."""
    facts = facts_of(scop, hints)
    work = _Packed(scop, vector_bytes)
    out: list[Statement] = []
    for s in scop.statements:
        operand = _operand(facts[s.name])
        if operand is None:
            out.append(s)
            continue
        copy, reader = work.copied(s, operand)
        start = len(out) - 1 if out and out[-1].target == s.target else len(out)  # before the start of the sum, which is next to it
        out[start:] = [copy, *out[start:], reader]
    return dataclasses.replace(scop, arrays=(*scop.arrays, *work.arrays), statements=tuple(out)) if work.arrays else scop


def _operand(f: Facts) -> Load | None:
    """What `f` reads along its vector and across the dim that it sums, if a copy is worth it."""
    s = f.statement
    if f.serial or s.ragged or f.panels or s.when is not None or len(f.summed) != 1 or len(f.free) != 2 or len(f.jams) != 1 or f.vector not in f.free:
        return None
    (depth,), (rows,), columns = f.summed, f.jams, str(f.vector)
    bytes_ = f.trip(depth) * f.trip(columns) * s.value.dtype.bytes
    found = {load for root in s.roots for load in loads_in(root) if any(isinstance(i, Var) and i.name == columns for i in load.indices) and load.array != s.target}
    if rows == columns or f.trip(rows) < ROWS or bytes_ <= STAYS or len(found) != 1 or isinstance(f.extent(columns), Ragged):
        return None
    load = found.pop()
    return load if load.indices == (Var(depth, dt.i64), Var(columns, dt.i64)) and not load.dtype.is_complex else None


class _Packed:
    def __init__(self, scop: Scop, vector_bytes: int) -> None:
        self.scop, self.vector_bytes = scop, vector_bytes
        self.arrays: list[Array] = []
        self.sizes = Parameters(scop.sizes)
        self.names = Names(s.name for s in scop.statements)
        self.array_names = Names(a.name for a in scop.arrays)
        self.prefix = f"[{', '.join(scop.parameters)}] -> "

    def copied(self, s: Statement, load: Load) -> tuple[Statement, Statement]:
        """The copy, and `s` reading it."""
        depth, columns = (i.name for i in load.indices if isinstance(i, Var))
        extents = {d: s.extents[s.dims.index(d)] for d in (columns, depth)}
        width = Const((4 if self.vector_bytes >= 64 else 2) * max(1, self.vector_bytes // load.dtype.bytes), dt.i64)
        wide, deep = (e for e in extents.values() if not isinstance(e, Ragged))
        lanes = int(width.value.real)
        panels = Array(self.array_names.fresh(f"{load.array}_panels"), load.dtype, (floordiv(wide + (lanes - 1), lanes), deep, lanes), "temporary")
        self.arrays.append(panels)
        j = Var(columns, dt.i64)
        at: tuple[Expr, ...] = (Apply("floordiv", (j, width), dt.i64), Var(depth, dt.i64), Apply("mod", (j, width), dt.i64))
        name = self.names.fresh(panels.name)
        head = f"{name}[{columns}, {depth}]"
        limits = " and ".join(f"0 <= {d} < {self.sizes.text(e)}" for d, e in extents.items() if not isinstance(e, Ragged))
        copy = Statement(name, (columns, depth), (), f"{self.prefix}{{ {head} : {limits} }}", panels.name, at, load, None, *self._relations(head, (columns, depth), panels.name, at, load), tuple(extents.values()))

        def change(item: Any) -> Any:
            return Load(panels.name, at, load.dtype) if item == load else map_children(item, change)

        value = change(s.value)
        reads = self._relations(f"{s.name}[{', '.join(s.dims)}]", s.dims, s.target, s.at, value)[1]
        return copy, dataclasses.replace(s, value=value, reads=reads)

    def _relations(self, head: str, dims: tuple[str, ...], target: str, at: tuple[Expr, ...], value: Expr) -> tuple[Any, tuple[Any, ...]]:
        known = {*dims, *self.scop.parameters}
        texts = {a.name: tuple("0" if isinstance(e, Ragged) else self.sizes.text(e) for e in a.extents) for a in (*self.scop.arrays, *self.arrays)}
        write, reads = write_of(head, target, at, value.dtype, known, texts), reads_of(head, (value, *at), known, texts)
        return (
            dataclasses.replace(write, text=self.prefix + write.text),
            tuple(dataclasses.replace(r, text=self.prefix + r.text) for r in reads),
        )
