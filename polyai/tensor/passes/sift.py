"""What is selected only to be reduced to a number is not stored: the reduction runs over everything, and leaves out the rest.

    P[where(x[i] > 0.0, i, -1)] bool = True   for [i: n] from [n] bool coo
    at[i_1: n within P(i_1)] i64 = i_1
    L[P.nnz] i64 = list at
    y[] f64 = sum(k: P.nnz) x[L[k]] * x[L[k]]
    m[] f64 = y / P.nnz
    ->
    P.number[] i64 = sum(i_3: n) where(x[i_3] > 0.0, 1, 0)
    y[] f64 = sum(i_2: n) where(x[i_2] > 0.0, x[i_2] * x[i_2], 0.0)
    m[] f64 = y / P.number

In branches and loop bodies, where nothing can be stored whose size data decide, maps of a list go into the reductions that read them.

All readers of a selection must be such reductions, or only ask how much it holds; else it is stored, and all read that. Proves
legality: the list holds exactly the coordinates where the condition is true, and what is left out is the identity of the reduction.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from polyai.errors import UnsupportedError
from polyai.scalar import dtype as dt
from polyai.scalar.expr import Const, Load, Var
from polyai.scalar.ops import MONOIDS
from polyai.shapes.expr import symbol, symbols
from polyai.tensor.bodies import apply, counted_by, left_out, loads, map_regions, names_of, read_by, reads_of, stem, substitute
from polyai.tensor.nodes import (
    Body,
    Comprehension,
    Index,
    Listing,
    Program,
    Reduce,
    Scatter,
    Spread,
    Step,
    TensorType,
    nnz_of,
    pushes,
    targets_of,
)
from polyai.tensor.passes.fold import without_dead_steps
from polyai.tensor.passes.selections import coordinate_of
from polyai.tensor.tree import bottom_up, each, map_parts


def run(program: Program) -> Program:
    """The program without the selections that are only reduced. Raises UnsupportedError for others in branches and loop bodies."""
    program = dataclasses.replace(program, body=tuple(map_regions(step, _region) for step in program.body))
    for step in _selections(program):
        program = _Sift(program, step).program() or program
    return program


def _region(program: Program) -> Program:
    for step in _selections(program):
        program = _Sift(_without_maps(program, nnz_of(step.target)), step).program() or program
    program = run(program)
    if any(isinstance(step, (Listing, Spread)) or (isinstance(step, Scatter) and pushes(step)) for step in program.body):
        raise UnsupportedError(*selections_in(program.name))
    return program


def _selections(program: Program) -> list[Scatter]:
    return [s for s in program.body if isinstance(s, Scatter) and pushes(s) and not s.within and left_out(s.at[-1])[1] is not None]


def selections_in(region: str) -> tuple[str, str, str]:
    """What a selection means to the user that would have to be stored in a branch or a loop body."""
    return (
        f"a mask or nonzero makes an array whose size data decide inside {region}",
        "its size is known only when the kernel runs, and a region's results have fixed sizes",
        "select outside of the loop or branch, or keep the size: sum(where(mask, x, 0)), where(mask, x, other)",
    )


def _without_maps(program: Program, size: str) -> Program:
    """Maps of vectors of this size computed where they are read.

        z[k] = x[L[k]] - m; y[] = sum(k) z[k] * z[k]      ->      y[] = sum(k) (x[L[k]] - m) * (x[L[k]] - m)
    """
    maps: dict[str, tuple[Index, Body]] = {}
    out: list[Step] = []

    def change(n: Any) -> Any:
        if not isinstance(n, Load) or n.array not in maps:
            return n
        index, body = maps[n.array]
        return substitute(body, {index.name: n.indices[0]})

    for step in program.body:
        if isinstance(step, Comprehension):
            step = dataclasses.replace(step, body=bottom_up(step.body, change))
            plain = not step.type.is_sparse and not step.within and step.target not in program.outputs
            if plain and [i.extent for i in step.indices] == [symbol(size)] and not any(isinstance(n, Reduce) for n in each(step.body)):
                maps[step.target] = (step.indices[0], step.body)
                continue
        elif reads_of(step) & maps.keys():
            return program
        out.append(step)
    return dataclasses.replace(program, body=tuple(out))


class _Sift:
    """One selection: its lists, and what becomes of their readers."""

    def __init__(self, program: Program, selection: Scatter) -> None:
        self.given, self.selection = program, selection
        self.names = names_of(program)
        self.size = nnz_of(selection.target)
        self.along = {s.target: d for s in program.body if isinstance(s, Comprehension) and (d := coordinate_of(s, selection)) is not None}
        self.lists = {s.target: self.along[s.of] for s in program.body if isinstance(s, Listing) and s.of in self.along}
        self.mine = {selection.target, *self.along, *self.lists}
        self.number = ""

    def program(self) -> Program | None:
        """The program without the selection; None if somebody needs it."""
        if self.mine & set(self.given.outputs) or self.selection.requires:
            return None
        out: list[Step] = []
        for step in self.given.body:
            if set(targets_of(step)) <= self.mine or not reads_of(step) & self.mine:
                out.append(step)
                continue
            new = self._reduced(step)
            if new is None:
                return None
            if self.number and all(self.number not in targets_of(s) for s in out):
                out.append(self._count())
            out.append(new)
        facts = tuple(f for f in self.given.facts if self.size not in symbols(f.size))
        return without_dead_steps(dataclasses.replace(self.given, body=tuple(out), facts=facts))

    def _reduced(self, step: Step) -> Comprehension | Scatter | None:
        if isinstance(step, Scatter) and step.base is not None and not any(self.size in symbols(i.extent) for i in step.indices):
            written = dataclasses.replace(step, body=self._with_number(step.body), at=tuple(map(self._with_number, step.at)))
            return None if (read_by(written) | counted_by(written)) & self.mine else written
        if not isinstance(step, Comprehension) or any(self.size in symbols(i.extent) for i in step.indices):
            return None
        body: Body | None = step.body
        if read_by(step) & self.mine or any(self.size in symbols(i.extent) for r in each(step.body) if isinstance(r, Reduce) for i in r.over):
            body = self._over_everything(step)
        if body is None:
            return None
        body = self._with_number(body)
        done = dataclasses.replace(step, body=body)
        return None if (read_by(done) | counted_by(done)) & self.mine else done

    def _over_everything(self, step: Comprehension) -> Body | None:
        """A reduction over a list, run over all that is selected from."""
        reduce = step.body
        if not isinstance(reduce, Reduce) or step.indices or reduce.within or len(reduce.over) != 1 or reduce.over[0].extent != symbol(self.size):
            return None
        (k,) = reduce.over
        fresh = tuple(Index(self.names.fresh(stem(i.name)), i.extent) for i in self.selection.indices)

        def change(n: Any) -> Any:
            if isinstance(n, Load) and n.array in self.lists and n.indices == (Var(k.name, dt.i64),):
                return Var(fresh[self.lists[n.array]].name, dt.i64)
            return map_parts(n, change)

        body = change(reduce.body)
        if any(isinstance(n, Var) and n.name == k.name for n in each(body)) or any(load.array in self.mine for load in loads(body)):
            return None
        identity = Const(MONOIDS[reduce.monoid].identity(body.dtype), body.dtype)
        kept = apply("where", body.dtype, self._condition(fresh), body, identity)
        return dataclasses.replace(reduce, over=fresh, body=kept)

    def _condition(self, fresh: tuple[Index, ...]) -> Body:
        condition = left_out(self.selection.at[-1])[1]
        assert condition is not None
        return substitute(condition, {old.name: Var(new.name, dt.i64) for old, new in zip(self.selection.indices, fresh)})

    def _with_number(self, body: Body) -> Body:
        """A body that reads how much is selected from a step of its own."""

        def change(n: Any) -> Any:
            if not isinstance(n, Var) or n.name != self.size:
                return n
            self.number = self.number or self.names.fresh(f"{self.selection.target}_number")
            return Load(self.number, (), dt.i64)

        return bottom_up(body, change)  # type: ignore[no-any-return]

    def _count(self) -> Comprehension:
        """How much is selected."""
        fresh = tuple(Index(self.names.fresh(stem(i.name)), i.extent) for i in self.selection.indices)
        one = apply("where", dt.i64, self._condition(fresh), Const(1, dt.i64), Const(0, dt.i64))
        return Comprehension(self.number, TensorType(dt.i64, ()), (), Reduce("add", fresh, one, dt.i64))
