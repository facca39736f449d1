"""Compute the type of each step again, from its body and indices: what the frontend wrote is checked against it.

    y[i: n] ? = sum(j: m) f64(X[i, j])
    ->
    y[i: n] f64 = sum(j: m) f64(X[i, j])

Element types follow the table of operations; shapes are the extents of the indices; a step under a `within` of its own
has the pattern of what that names. Types of library calls and of control flow are taken as they are declared.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from polyai.errors import VerifyError
from polyai.scalar.expr import Apply, Load
from polyai.scalar.ops import result_type
from polyai.tensor.bodies import map_regions, owner_within
from polyai.tensor.nodes import (
    Comprehension,
    Join,
    Listing,
    Pattern,
    Program,
    Scatter,
    Select,
    Spread,
    Step,
    TensorType,
    targets_of,
)
from polyai.tensor.show import show_type
from polyai.tensor.tree import bottom_up

Types = dict[str, TensorType]


def run(program: Program) -> Program:
    """The program with inferred types."""
    types: Types = {i.name: i.type for i in program.inputs}
    out: list[Step] = []
    for given in program.body:
        step = _step(given, types)
        if isinstance(step, (Comprehension, Scatter, Join, Select, Spread, Listing)):
            types[step.target] = step.type
        else:
            types.update(zip(step.targets, step.types))
        out.append(map_regions(step, run))
    return dataclasses.replace(program, body=tuple(out))


def check(program: Program) -> None:
    """Raise VerifyError at the first step whose declared type is not the inferred one."""
    for declared, inferred in zip(program.body, run(program).body):
        if declared != inferred and isinstance(declared, (Comprehension, Scatter)) and isinstance(inferred, (Comprehension, Scatter)):
            raise VerifyError(
                f"tensor program {program.name}, step {', '.join(targets_of(declared))}: its type does not follow from its body",
                f"declared {show_type(declared.type)}, inferred {show_type(inferred.type)}",
            )


def _step(step: Step, types: Types) -> Step:
    match step:
        case Comprehension():
            known = {**types, step.target: step.type}
            body = typed(step.body, known)
            pattern = _pattern(step, types)
            return dataclasses.replace(
                step, body=body, type=TensorType(body.dtype, tuple(i.extent for i in step.indices), None, pattern)
            )
        case Scatter():
            return dataclasses.replace(
                step, body=typed(step.body, types), at=tuple(typed(a, types) for a in step.at), type=step.type if step.base is None else types[step.base]
            )
        case Select():
            return dataclasses.replace(step, at=typed(step.at, types))
        case Spread():
            return dataclasses.replace(step, length=typed(step.length, types))
        case Listing():
            return dataclasses.replace(step, type=TensorType(types[step.of].dtype, step.type.shape))
        case _:
            return step


def _pattern(step: Comprehension, types: Mapping[str, TensorType]) -> Pattern | None:
    names = [i.name for i in step.indices]
    for within in step.within:
        own = owner_within(within, types)
        if sorted(own.indices) == sorted(names):
            return Pattern(own.tensor, tuple(own.indices.index(v) for v in names))
    return None


def typed(body: Any, types: Mapping[str, TensorType]) -> Any:
    """`body` with element types computed bottom-up. Raises DTypeError where the table has none."""

    def change(n: Any) -> Any:
        match n:
            case Load(array, indices):
                return Load(array, indices, types[array].dtype)
            case Apply(op, args):
                return Apply(op, args, result_type(op, *(a.dtype for a in args)))
            case _:
                return n

    return bottom_up(body, change)
