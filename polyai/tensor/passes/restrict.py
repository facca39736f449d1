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

from polyai.tensor.bodies import map_regions, owner_within
from polyai.tensor.nodes import (
    Comprehension,
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


def run(program: Program) -> Program:
    """The program with every `within` that its products imply."""
    types = types_of(program)
    return dataclasses.replace(program, body=tuple(_step(step, types) for step in program.body))


def _step(step: Step, types: Types) -> Step:
    match step:
        case Comprehension():
            around = _owned(step.within, types)
            return dataclasses.replace(step, body=restricted(step.body, types, around), within=around)
        case Scatter():
            around = _owned(step.within, types)
            body = restricted(step.body, types, around)
            if step.monoid in ("add", "or"):
                around = _merged(around, needed(support(body, types)))
            at = tuple(restricted(a, types, around) for a in step.at)
            return dataclasses.replace(step, body=body, at=at, within=around)
        case _:
            return map_regions(step, run)


def restricted(body: Any, types: Types, around: tuple[Within, ...]) -> Any:
    """A body with its reductions restricted, inner ones first; `around` is what holds already."""
    if not isinstance(body, Reduce):
        return map_parts(body, lambda child: restricted(child, types, around))
    own = _owned(body.within, types)
    inside = restricted(body.body, types, around + own)
    if body.monoid in ("add", "or"):
        bound = {i.name for i in body.over}
        implied = tuple(w for w in needed(support(inside, types)) if bound & set(w.indices) and w not in around)
        own = _merged(own, implied)
    return dataclasses.replace(body, body=inside, within=own)


def _owned(withins: tuple[Within, ...], types: Types) -> tuple[Within, ...]:
    return _merged((), tuple(owner_within(w, types) for w in withins))


def _merged(have: tuple[Within, ...], more: tuple[Within, ...]) -> tuple[Within, ...]:
    return (*have, *(w for n, w in enumerate(more) if w not in have and w not in more[:n]))
