"""An operand that many rows read across memory is copied into panels first, piece by piece.

    T_upd[i,j,k]   T[i,j] add= X[i,k] * W[k,j]
    ->
    W_panels[j,k]  P[j // 16, k, j % 16] = W[k,j]
    T_upd[i,j,k]   T[i,j] add= X[i,k] * P[j // 16, k, j % 16]

Down a column of register tiles, each row of W lies in another page and in the same few lines of a cache; of a panel, all lines are
used up one after another (Goto and van de Geijn 2008). Done where W does not stay in a cache and enough rows pay for the copy.
The recipe copies a panel just before it is used, and `contract` keeps one. Proves what it does: the copy has the same elements.

    S_upd[h,i,j,l]   S[h,i,j] add= Q[h,i,l] * K[h,j,l]
    ->
    K_panels[h,j,l]  P[h, j // 16, l, j % 16] = K[h,j,l]
    S_upd[h,i,j,l]   S[h,i,j] add= Q[h,i,l] * P[h, j // 16, l, j % 16]

Where both operands lie along the sum, its vectors would have to be added up lane by lane for each element of the result, and each
of them be loaded for a multiply-add or two. Turned around while it is copied, the operand of the columns makes it a product like others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from polyai.poly.access import loads_in, reads_of, variables_in, write_of
from polyai.poly.affine import Parameters
from polyai.poly.nodes import Array, Ragged, Scop, Statement
from polyai.poly.passes.facts import Facts, facts_of
from polyai.scalar import dtype as dt
from polyai.scalar.expr import Apply, Const, Expr, Load, Var
from polyai.shapes.expr import Size, floordiv
from polyai.term.names import Names
from polyai.term.node import map_children, node

ROWS = 25
"""Rows from which a copy is worth its while."""
TURNED_ROWS = 12
"""Rows from which a copy that turns an operand around is: an element takes as long as one row of a product with it."""
STAYS = 1 << 18
"""An operand up to this many bytes is read where it is: it stays in the second-level cache, beside what else is there."""


@node
class _Operand:
    """What is copied: read at `depth` and `columns`, and at dims that are the same for all rows and columns."""

    load: Load
    columns: str
    depth: str
    batch: tuple[str, ...] = ()


def run(scop: Scop, hints: Mapping[str, int], vector_bytes: int = 64, facts: Mapping[str, Facts] | None = None) -> Scop:
    """`scop` with copies of such operands; the same scop if there are none. `facts`: what is known of its statements."""
    facts = facts_of(scop, hints, facts)
    work = _Packed(scop, vector_bytes)
    out: list[Statement] = []
    for s in scop.statements:
        operand = _operand(facts[s.name]) or _turned(facts[s.name])
        if operand is None:
            out.append(s)
            continue
        copy, reader = work.copied(s, operand)
        start = len(out) - 1 if out and out[-1].target == s.target else len(out)  # before the start of the sum, which is next to it
        out[start:] = [copy, *out[start:], reader]
    return dataclasses.replace(scop, arrays=(*scop.arrays, *work.arrays), statements=tuple(out)) if work.arrays else scop


def _operand(f: Facts) -> _Operand | None:
    """What `f` reads along its vector and across the dim that it sums, if a copy is worth it."""
    s = f.statement
    if not _is_product(f) or len(f.free) != 2 or len(f.jams) != 1 or f.vector not in f.free:
        return None
    (depth,), (rows,), columns = f.summed, f.jams, str(f.vector)
    bytes_ = f.trip(depth) * f.trip(columns) * s.value.dtype.bytes
    found = {load for load in _operands(s) if any(isinstance(i, Var) and i.name == columns for i in load.indices)}
    if rows == columns or f.trip(rows) < ROWS or bytes_ <= STAYS or len(found) != 1 or isinstance(f.extent(columns), Ragged):
        return None
    load = found.pop()
    return _Operand(load, columns, depth) if load.indices == (Var(depth, dt.i64), Var(columns, dt.i64)) and not load.dtype.is_complex else None


def _turned(f: Facts) -> _Operand | None:
    """What `f` reads along the dim that it sums, and across the last dim of its result, if it reads nothing along that one."""
    s = f.statement
    if not _is_product(f) or len(f.jams) != 2 or (f.vector,) != f.summed or s.value.dtype.is_complex:
        return None
    target, depth = f.accesses[0], f.summed[0]
    columns = target.places[-1]
    if columns not in f.jams or any(isinstance(e, Ragged) for e in s.extents):
        return None
    (rows,) = (d for d in f.jams if d != columns)
    if f.trip(rows) < TURNED_ROWS or f.trip(columns) < TURNED_ROWS or f.trip(depth) < TURNED_ROWS:
        return None
    found = _operands(s)
    mine = [load for load in found if columns in _dims_of(load)]
    if len(found) != 2 or len(mine) != 1 or rows in _dims_of(mine[0]) or next((n for i in mine[0].indices for n in loads_in(i)), None) is not None:
        return None
    return _Operand(mine[0], columns, depth, tuple(d for d in s.dims if d in _dims_of(mine[0]) and d not in (columns, depth)))


def _is_product(f: Facts) -> bool:
    s = f.statement
    return not (f.serial or s.ragged or f.panels or s.when is not None) and s.monoid is not None and len(f.summed) == 1


def _operands(s: Statement) -> set[Load]:
    return {load for root in s.roots for load in loads_in(root) if load.array != s.target}


def _dims_of(load: Load) -> set[str]:
    return {name for i in load.indices for name in variables_in(i)}


class _Packed:
    def __init__(self, scop: Scop, vector_bytes: int) -> None:
        self.scop, self.vector_bytes = scop, vector_bytes
        self.arrays: list[Array] = []
        self.sizes = Parameters(scop.sizes)
        self.names = Names(s.name for s in scop.statements)
        self.array_names = Names(a.name for a in scop.arrays)
        self.prefix = f"[{', '.join(scop.parameters)}] -> "

    def copied(self, s: Statement, operand: _Operand) -> tuple[Statement, Statement]:
        """The copy, and `s` reading it."""
        load, dims = operand.load, (*operand.batch, operand.columns, operand.depth)
        extents: dict[str, Size] = {}
        for d in dims:
            extent = s.extents[s.dims.index(d)]
            assert not isinstance(extent, Ragged)
            extents[d] = extent
        lanes = (4 if self.vector_bytes >= 64 else 2) * max(1, self.vector_bytes // load.dtype.bytes)
        width, j = Const(lanes, dt.i64), Var(operand.columns, dt.i64)
        shape = (*(extents[d] for d in operand.batch), floordiv(extents[operand.columns] + (lanes - 1), lanes), extents[operand.depth], lanes)
        panels = Array(self.array_names.fresh(f"{load.array}_panels"), load.dtype, shape, "temporary")
        self.arrays.append(panels)
        cut = (Apply("floordiv", (j, width), dt.i64), Var(operand.depth, dt.i64), Apply("mod", (j, width), dt.i64))
        at: tuple[Expr, ...] = (*(Var(d, dt.i64) for d in operand.batch), *cut)
        name = self.names.fresh(panels.name)
        head = f"{name}[{', '.join(dims)}]"
        limits = " and ".join(f"0 <= {d} < {self.sizes.text(e)}" for d, e in extents.items())
        relations = self._relations(head, dims, panels.name, at, load)
        copy = Statement(name, dims, (), f"{self.prefix}{{ {head} : {limits} }}", panels.name, at, load, None, *relations, tuple(extents.values()))

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
