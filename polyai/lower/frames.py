"""Frames: the dims of a statement, and what the index variables of a program are in it.

    for [i: n, j: m, k: c within A(i, k), B(k, j)]
    ->  dims i, q, q_1   0 <= i < n, 0 <= q < A_max1, 0 <= q_1 < B_max1     k = A.crd1[i, q], j = B.crd1[A.crd1[i, q], q_1]

What a walk binds, later walks enter by; each dim stands where its variable stood, below the dims that it lies under.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from itertools import permutations
from typing import Any

from polyai.errors import UnsupportedError, VerifyError
from polyai.lower import fibre
from polyai.poly import nodes as poly
from polyai.poly.affine import Parameters
from polyai.scalar import dtype as dt
from polyai.scalar.expr import Const, Expr, Var
from polyai.shapes.expr import Size
from polyai.tensor import nodes as tn
from polyai.tensor.bodies import owner_within
from polyai.term.names import Names
from polyai.term.node import record


@record
class Frame:
    """The dims of one statement and what the program's index variables are in it."""

    dims: list[str]
    extents: list[Size | poly.Ragged]
    limits: list[str]
    ragged: tuple[poly.RaggedDim, ...]
    walks: tuple[fibre.Walk, ...]
    values: dict[str, Expr]

class Frames:
    """Makes frames. `hulls` collects the bounds of the fibres that their dims walk; `expr` gives a body over the dims of a frame."""

    def __init__(
        self,
        types: Mapping[str, tn.TensorType],
        parameters: Parameters,
        symbols: set[str],
        selects: Mapping[str, tn.Select],
        streams: Mapping[str, poly.Stream],
        expr: Callable[[Frame, tn.Body, dt.DType], Expr],
    ) -> None:
        self.types, self.parameters, self.symbols, self.selects, self.streams, self.expr = types, parameters, symbols, selects, streams, expr
        self.hulls: dict[str, None] = {}

    def of(self, indices: tuple[tn.Index, ...], within: tuple[tn.Within, ...]) -> Frame:
        """Dims for `indices`: those that a `within` binds become the dims of its walk, each where its variable stood.

        An index that has only the value 0 is that constant, and no loop.
        """
        names = Names({poly.isl_name(s) for s in self.symbols})
        wanted = self._in_order(tuple(dict.fromkeys(owner_within(w, self.types) for w in within)), indices)
        plain = [i for i in indices if not any(i.name in w.indices for w in wanted)]
        dims = {i.name: names.fresh(poly.isl_name(i.name)) for i in plain if i.extent != 1}
        walks: tuple[fibre.Walk, ...] = ()
        for within_ in wanted:
            bound = {v: e for before in walks for v, e in before.coordinates}
            if within_.tensor in self.selects:
                walks = (*walks, self._selected(within_, names, {**{n: Var(d, dt.i64) for n, d in dims.items()}, **bound}))
                continue
            form, stream = self.format(within_.tensor), self.streams.get(within_.tensor)
            walks = (*walks, fibre.walk(within_.tensor, form, within_.indices, names, bound, stream))
        sizes = {poly.isl_name(s) for s in self.symbols}
        ragged = (dataclasses.replace(r, parents=tuple(p for p in r.parents if p not in sizes)) for w in walks for r in w.ragged)
        frame = Frame([], [], [], tuple(ragged), walks, {n: Var(d, dt.i64) for n, d in dims.items()})
        frame.values.update((i.name, Const(0, dt.i64)) for i in plain if i.extent == 1)
        for w in walks:
            frame.values.update(w.coordinates)
        for index in indices:
            if index.name in dims:
                frame.dims.append(dims[index.name])
                frame.extents.append(index.extent)
                frame.limits.append(f"0 <= {dims[index.name]} < {self.parameters.text(index.extent)}")
            for w in walks:
                self._place(frame, w, index.name)
        return frame

    def _selected(self, within: tn.Within, names: Names, values: dict[str, Expr]) -> fibre.Walk:
        """The walk of a selection: dims for what is not known yet, and the coordinate that it gives them."""
        step = self.selects[within.tensor]
        *above, last = within.indices
        dims = tuple((names.fresh(poly.isl_name(v)), v) for v in above if v not in values)
        here = {**values, **{v: Var(d, dt.i64) for d, v in dims}}
        if last in values:
            raise VerifyError(f"{within.tensor} selects {last}, which is known there")
        frame = Frame([], [], [], (), (), {i.name: here[v] for i, v in zip(step.indices, above)})
        coordinate = self.expr(frame, step.at, dt.i64)
        own = tuple((v, here[v]) for _, v in dims)
        return fibre.Walk(within.tensor, within.indices, dims, (), (), (*own, (last, coordinate)))

    def _in_order(self, wanted: tuple[tn.Within, ...], indices: tuple[tn.Index, ...]) -> tuple[tn.Within, ...]:
        """`wanted` in an order in which no walk has to search: what one binds, later ones enter by. The first index leads if it can."""
        if len(wanted) < 2:
            return wanted
        lead = indices[0].name if indices else ""

        def searches(order: tuple[tn.Within, ...]) -> bool:
            bound: set[str] = set()
            for w in order:
                form = self.format(w.tensor)
                if any(not level.full and w.indices[d] in bound for d, level in zip(form.order, form.levels)):
                    return True
                bound.update(w.indices)
            return False

        choices = [order for order in permutations(wanted) if not searches(order)]
        if not choices:
            names = " and ".join(w.tensor for w in wanted)
            raise UnsupportedError(
                f"{names} are walked together, and each lists a coordinate that another names",
                "their formats leave no order in which every coordinate is found without a search",
                f"convert one of them, for example {wanted[-1].tensor}.tocsc() or .toarray()",
            )
        return min(choices, key=lambda order: order[0].indices[self.format(order[0].tensor).order[0]] != lead)

    def _place(self, frame: Frame, walk: fibre.Walk, variable: str) -> None:
        """Put the dims of `walk` up to the one for `variable`, those it lies under first."""
        last = max((p for p, (_, v) in enumerate(walk.dims) if v == variable), default=-1)
        ragged = {r.dim: r for r in walk.ragged}
        for dim, stands_for in walk.dims[: last + 1]:
            if dim in frame.dims:
                continue
            for earlier in frame.walks:
                for below, stands in earlier.dims:
                    if earlier is not walk and dim in ragged and below in ragged[dim].parents and below not in frame.dims:
                        self._place(frame, earlier, stands)
            frame.dims.append(dim)
            if dim in ragged:
                self.hulls[ragged[dim].hull] = None
                frame.extents.append(ragged[dim].fibre)
                frame.limits.append(f"0 <= {dim} < {ragged[dim].hull}")
            else:
                extent = self.types[walk.owner].shape[walk.variables.index(stands_for)]
                frame.extents.append(extent)
                frame.limits.append(f"0 <= {dim} < {self.parameters.text(extent)}")

    def format(self, owner: str) -> Any:
        return fibre.format_of(owner, self.types[owner])
