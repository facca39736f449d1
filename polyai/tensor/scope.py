"""What a step of a program may mention, and what checks of steps ask of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from polyai.scalar.expr import Load
from polyai.tensor.bodies import size_symbols
from polyai.tensor.nodes import (
    Body,
    Comprehension,
    Cond,
    Join,
    Listing,
    Program,
    Scatter,
    Select,
    Spread,
    Step,
    TensorType,
    While,
)
from polyai.tensor.tree import each


class Scope:
    """What a step may mention: tensors defined so far with their types, joins among them, and sizes."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.types: dict[str, TensorType] = {i.name: i.type for i in program.inputs}
        self.sizes = size_symbols(program)
        self.indices: set[str] = set()
        self.joins: dict[str, Join] = {}
        self.without_values: set[str] = set()

    def define(self, step: Step) -> None:
        """Note what `step` defines."""
        self.types.update(defined_by(step))
        if isinstance(step, Join):
            self.joins[step.target] = step
        if isinstance(step, (Join, Select, Spread)):
            self.without_values.add(step.target)

    def visible(self, step: Step) -> dict[str, TensorType]:
        """Tensors that bodies of `step` may read: a comprehension may read itself (a recurrence)."""
        if isinstance(step, Comprehension):
            return {**self.types, step.target: step.type}
        return self.types


Check = Callable[[Step, Scope], Iterator[str]]


def defined_by(step: Step) -> list[tuple[str, TensorType]]:
    """The tensors that a step defines, with their types."""
    if isinstance(step, (Comprehension, Scatter, Join, Select, Spread, Listing)):
        return [(step.target, step.type)]
    return list(zip(step.targets, step.types))


def regions_of(step: Step) -> tuple[Program, ...]:
    """The programs inside a step."""
    match step:
        case Cond():
            return (step.then, step.orelse)
        case While():
            return (step.condition, step.body)
        case _:
            return ()


def roots_of(step: Step) -> tuple[Body, ...]:
    """The bodies of a step."""
    match step:
        case Comprehension():
            return (step.body,)
        case Scatter():
            return (*step.at, step.body)
        case Select():
            return (step.at,)
        case Spread():
            return (step.length,)
        case _:
            return ()


def loads_of(step: Step) -> Iterator[Load]:
    """What the bodies of a step read."""
    for root in roots_of(step):
        yield from (n for n in each(root) if isinstance(n, Load))
