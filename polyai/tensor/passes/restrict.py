"""Restrict iteration to what is stored, where an annihilator proves that nothing is lost.

    T[i: n, j: m] f32 = sum(k: c) A[i, k] * X[k, j]
    ->
    T[i: n, j: m] f32 = sum(k: c) A[i, k] * X[k, j]   within A(i, k)

A sum (or `any`) skips terms that are structurally zero; so does a scatter that adds. Every `within` is told of the sparse
input that owns the pattern, with its variables in the order of the owner's dimensions. Proves legality (see `support`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from polyai.tensor.bodies import joins_of, map_regions, owner_within, parts_within
from polyai.tensor.nodes import (
    Comprehension,
    Join,
    Program,
    Reduce,
    Scatter,
    Step,
    TensorType,
    Within,
    types_of,
)
from polyai.tensor.support import needed, support
from polyai.tensor.tree import map_parts

Types = Mapping[str, TensorType]
Joins = Mapping[str, Join]


def run(program: Program) -> Program:
    """The program with every `within` that its products imply."""
    types, joins = types_of(program), joins_of(program)
    return dataclasses.replace(program, body=tuple(_step(step, types, joins) for step in program.body))


def _step(step: Step, types: Types, joins: Joins) -> Step:
    match step:
        case Comprehension():
            around = _owned(step.within, types)
            return dataclasses.replace(step, body=restricted(step.body, types, around, joins), within=around)
        case Scatter():
            around = _owned(step.within, types)
            body = restricted(step.body, types, around, joins)
            if step.monoid in ("add", "or"):
                joined = {part for w in around for part in parts_within(w, joins)}
                around = _merged(around, tuple(w for w in needed(support(body, types)) if w not in joined))
            at = tuple(restricted(a, types, around, joins) for a in step.at)
            return dataclasses.replace(step, body=body, at=at, within=around)
        case _:
            return map_regions(step, run)


def restricted(body: Any, types: Types, around: tuple[Within, ...], joins: Joins | None = None) -> Any:
    """A body with its reductions restricted, inner ones first; `around` is what holds already, for a join its parts too."""
    if not isinstance(body, Reduce):
        return map_parts(body, lambda child: restricted(child, types, around, joins))
    own = _owned(body.within, types)
    inside = restricted(body.body, types, around + own, joins)
    if body.monoid in ("add", "or"):
        bound = {i.name for i in body.over}
        joined = {part for w in (*around, *own) for part in parts_within(w, joins or {})}
        implied = tuple(w for w in needed(support(inside, types)) if bound & set(w.indices) and w not in around and w not in joined)
        own = _merged(own, implied)
    return dataclasses.replace(body, body=inside, within=own)


def _owned(withins: tuple[Within, ...], types: Types) -> tuple[Within, ...]:
    return _merged((), tuple(owner_within(w, types) for w in withins))


def _merged(have: tuple[Within, ...], more: tuple[Within, ...]) -> tuple[Within, ...]:
    return (*have, *(w for n, w in enumerate(more) if w not in have and w not in more[:n]))
