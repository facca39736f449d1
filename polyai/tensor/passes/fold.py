"""Say the same with less: constants computed, identical steps shared, steps that nothing needs dropped.

    Y_max[i_1: n] f32 = max(q: m) X[i_1, q]
    Y_max_1[i_2: n] f32 = max(s: m) X[i_2, s]
    Y[i: n, j: m] f32 = (X[i, j] - Y_max[i]) * (Y_max_1[i] * 1.0)
    ->
    Y_max[i_1: n] f32 = max(q: m) X[i_1, q]
    Y[i: n, j: m] f32 = (X[i, j] - Y_max[i]) * Y_max[i]

Scalar rules are those of `scalar.fold`: the same value for every input. A reduction over an index with one value is its
body. Proves legality.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from polyai.scalar import dtype as dt
from polyai.scalar.expr import Const
from polyai.scalar.fold import fold_node
from polyai.tensor.bodies import convert, indices_of, loads, map_regions, reads_of, rename, rename_tensors, substitute
from polyai.tensor.nodes import Body, Comprehension, Program, Reduce, Scatter, Step, targets_of
from polyai.tensor.tree import bottom_up


def run(program: Program) -> Program:
    """The program folded; the same object if nothing changed. Outputs keep their names and types."""
    folded = with_body(program, [map_regions(_fold_step(s), run) for s in program.body])
    return without_dead_steps(with_shared_steps(folded))


def with_body(program: Program, body: list[Step]) -> Program:
    """The program with these steps; the same object if they are the steps it has."""
    if len(body) == len(program.body) and all(a is b for a, b in zip(body, program.body)):
        return program
    return dataclasses.replace(program, body=tuple(body))


def _fold_step(step: Step) -> Step:
    match step:
        case Comprehension():
            body = fold_body(step.body)
            return step if body is step.body else dataclasses.replace(step, body=body)
        case Scatter():
            body, at = fold_body(step.body), tuple(fold_body(a) for a in step.at)
            if body is step.body and all(a is b for a, b in zip(at, step.at)):
                return step
            return dataclasses.replace(step, body=body, at=at)
        case _:
            return step


def fold_body(body: Body) -> Any:
    """One body folded; the same object if nothing changed."""
    return bottom_up(body, lambda n: _fold_reduction(n) if type(n) is Reduce else fold_node(n))


def _fold_reduction(value: Reduce) -> Any:
    restricted = {v for w in value.within for v in w.indices}
    single = {i.name for i in value.over if i.extent == 1} - restricted
    if value.monoid in ("add", "or") and isinstance(value.body, Const) and not value.body.value:
        return Const(False if value.dtype.kind == "b" else 0 if value.dtype.is_integer else 0.0, value.dtype)
    if not single:
        return value
    body = fold_body(substitute(value.body, {name: Const(0, dt.i64) for name in single}))
    over = tuple(i for i in value.over if i.name not in single)
    if not over and not value.within:
        return convert(body, value.dtype)
    return dataclasses.replace(value, over=over, body=body) if over else value


def with_shared_steps(program: Program) -> Program:
    """Steps that differ only in the names of target and index variables become one; an output keeps its own step."""
    first: dict[object, str] = {}
    same: dict[str, str] = {}
    out: list[Step] = []
    for given in program.body:
        step = rename_tensors(given, same)
        if isinstance(step, Comprehension):
            key = without_names(step)
            if key in first and step.target not in program.outputs:
                same[step.target] = first[key]
                continue
            first.setdefault(key, step.target)
        out.append(step)
    return with_body(program, out)


def without_names(step: Comprehension) -> object:
    """The step without its own names."""
    numbers = {name: f"#{n}" for n, name in enumerate(indices_of(step))}
    plain = rename(step, numbers)
    own: Any = rename_tensors(plain, {step.target: "#"}) if any(load.array == step.target for load in loads(step.body)) else plain
    return (step.type, own.indices, own.body, own.within)


def without_dead_steps(program: Program) -> Program:
    """Only what the outputs depend on."""
    wanted, kept = set(program.outputs), list[Step]()
    for step in reversed(program.body):
        if wanted & set(targets_of(step)):
            wanted |= reads_of(step)
            kept.append(step)
    return with_body(program, kept[::-1])
