"""Give each walk of a sparse tensor within one step a name of its own.

    C[i, j] f64 += A[i, k] * A[k, j]   for [i: n, k: n, j: n within A(i, k), A(k, j)] from [n, n] f64 csr
    ->
    input A_again[n, n] f64 csr
    C[i, j] f64 += A[i, k] * A_again[k, j]   for [i: n, k: n, j: n within A(i, k), A_again(k, j)] from [n, n] f64 csr

So gets a walk beside the merge of a join that has the tensor as a part. The second name is a second view of the same argument, so that
below this level a tensor is walked in one way at a time: its fibre at hand, its length and its position need no further name. Values along its pattern that the second walk reads are an argument
too (`reread` says which, and `phases` has them computed before), and get a second name as well. Proves legality: both names hold
the same elements.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Container, Mapping
from typing import Any

from polyai.errors import UnsupportedError, VerifyError
from polyai.scalar.expr import Load
from polyai.tensor.bodies import joins_of, loads, map_regions, names_of, parts_within, stored_at
from polyai.tensor.nodes import (
    Comprehension,
    Input,
    Pattern,
    Program,
    Reduce,
    Scatter,
    Select,
    Step,
    TensorType,
    Within,
    types_of,
)
from polyai.tensor.tree import bottom_up
from polyai.term.names import Names


def run(program: Program) -> tuple[Program, tuple[tuple[str, str], ...]]:
    """The program, and (new name, argument) for each name it was given."""
    work = _Walks(program)
    body = tuple(work.step(step) for step in program.body)
    if not work.again:
        return program, ()
    inputs = {i.name: i for i in program.inputs}
    more = tuple(_view(inputs[of], name) for name, of in work.again.items())
    more += tuple(Input(name, _along(inputs[of].type, owner)) for (of, owner), name in work.along.items())
    work.again.update((name, of) for (of, _), name in work.along.items())
    return dataclasses.replace(program, inputs=(*program.inputs, *more), body=body), tuple(work.again.items())


def _view(given: Input, name: str) -> Input:
    pattern = given.type.pattern
    assert pattern is not None
    return Input(name, dataclasses.replace(given.type, pattern=Pattern(name, pattern.dims)), given.unique)


def _along(type: TensorType, owner: str) -> TensorType:
    assert type.pattern is not None
    return dataclasses.replace(type, pattern=Pattern(owner, type.pattern.dims))


def reread(step: Step, types: Mapping[str, TensorType]) -> frozenset[str]:
    """The tensors that a second walk of the pattern they lie along reads in `step`."""
    if not isinstance(step, (Comprehension, Scatter)):
        return frozenset()
    seconds = {w for found in _by_owner(step, frozenset()).values() for w in found[1:]}
    if not seconds:
        return frozenset()
    roots = (step.body, *(step.at if isinstance(step, Scatter) else ()))
    read = ((load, stored_at(load, types)) for root in roots for load in loads(root) if types[load.array].is_sparse)
    return frozenset(load.array for load, at in read if at is not None and at in seconds and at.tensor != load.array)


def _by_owner(step: Comprehension | Scatter, without: Container[str]) -> dict[str, list[Within]]:
    """The walks of a step by what they walk."""
    inner = step.body.within if isinstance(step.body, Reduce) else ()
    out: dict[str, list[Within]] = {}
    for w in dict.fromkeys((*step.within, *inner)):
        if w.tensor not in without:
            out.setdefault(w.tensor, []).append(w)
    return out


class _Walks:
    def __init__(self, program: Program) -> None:
        self.types: dict[str, TensorType] = types_of(program)
        self.inputs = {i.name for i in program.inputs}
        self.selects = {s.target for s in program.body if isinstance(s, Select)}  # which have no fibre at hand
        self.names: Names = names_of(program)
        self.again: dict[str, str] = {}
        self.along: dict[tuple[str, str], str] = {}  # by values and the second name of their pattern: their second name
        self.spare: dict[str, list[str]] = {}
        self.joins = joins_of(program)

    def step(self, step: Step) -> Step:
        if not isinstance(step, (Comprehension, Scatter)):
            return map_regions(step, lambda region: region)
        by_owner = _by_owner(step, self.selects)
        merged = {part.tensor for found in by_owner.values() for w in found for part in parts_within(w, self.joins)}  # whose fibres are at hand as well
        instead: dict[Within, str] = {}
        for owner, found in by_owner.items():
            for number, w in enumerate(found if owner in merged else found[1:]):
                instead[w] = self._name(owner, number)
        return _renamed(step, instead, self.types, self.view) if instead else step

    def view(self, array: str, owner: str) -> str:
        """The second name of values along a pattern whose second name is `owner`."""
        if array not in self.inputs:
            raise VerifyError(f"{array} is read by a second walk of what it lies along, and computed by the same kernel", "phases hand it on as an argument")
        if (array, owner) not in self.along:
            self.along[array, owner] = self.names.fresh(f"{array}_again")
        return self.along[array, owner]

    def _name(self, owner: str, number: int) -> str:
        if owner not in self.inputs:
            raise UnsupportedError(
                f"{owner} is walked twice in one step", "it is a pattern that the program makes", "compute it by a call of its own, and pass it as an argument"
            )
        spare = self.spare.setdefault(owner, [])
        while len(spare) <= number:
            name = self.names.fresh(f"{owner}_again")
            spare.append(name)
            self.again[name] = owner
        return spare[number]


def _renamed(step: Any, instead: Mapping[Within, str], types: Mapping[str, TensorType], view: Callable[[str, str], str]) -> Any:
    """`step` with the walks `instead`, and what is read by them, under new names."""

    def withins(given: tuple[Within, ...]) -> tuple[Within, ...]:
        return tuple(Within(instead.get(w, w.tensor), w.indices) for w in given)

    def change(n: Any) -> Any:
        match n:
            case Load(array, indices, dtype) if types[array].is_sparse:
                at = stored_at(n, types)
                if at is None or at not in instead:
                    return n
                return Load(instead[at] if array == at.tensor else view(array, instead[at]), indices, dtype)
            case Reduce():
                return dataclasses.replace(n, within=withins(n.within))
            case _:
                return n

    body = bottom_up(step.body, change)
    if isinstance(step, Scatter):
        at = tuple(bottom_up(a, change) for a in step.at)
        return dataclasses.replace(step, body=body, at=at, within=withins(step.within))
    return dataclasses.replace(step, body=body, within=withins(step.within))
