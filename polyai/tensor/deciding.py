"""Whose elements decide what the patterns of a program hold: index arrays, bounds of triangles, keys of a sort.

    C[i, r] = A[at[i], r] pushed within ...     `at` decides the pattern of C, A's values do not
"""

from __future__ import annotations

from collections.abc import Iterable

from polyai.tensor.bodies import loads, reads_of
from polyai.tensor.nodes import (
    Body,
    Comprehension,
    Cond,
    Extern,
    Join,
    Listing,
    Program,
    Scatter,
    Select,
    Spread,
    Step,
    While,
    owns_a_pattern,
    targets_of,
)


def run(program: Program) -> frozenset[str]:
    """The inputs whose elements decide what some pattern stores. Index arrays of sparse inputs are not meant, their values are."""
    behind: dict[str, frozenset[str]] = {i.name: frozenset((i.name,)) for i in program.inputs}
    out: set[str] = set()
    for step in program.body:
        if owns_a_pattern(step):
            out.update(*(behind.get(name, frozenset()) for name in _read(_places(step))))
        found = frozenset().union(*(behind.get(name, frozenset()) for name in _values(step)))
        behind.update(dict.fromkeys(targets_of(step), found))
    return frozenset(out)


def _places(step: Step) -> tuple[Body, ...]:
    """What says which coordinates a step stores."""
    match step:
        case Scatter():
            return step.at
        case Select():
            return (step.at,)
        case Spread():
            return (step.length,)
        case Comprehension() | Join() | Listing() | Extern() | Cond() | While():
            return ()


def _values(step: Step) -> Iterable[str]:
    """Tensors that the elements of a step are computed of."""
    match step:
        case Comprehension():
            return _read((step.body,))
        case Scatter():
            return (*_read((step.body, *step.at)), *(() if step.base is None else (step.base,)))
        case Listing():
            return (step.of,)
        case Join() | Select() | Spread() | Extern() | Cond() | While():
            return reads_of(step)


def _read(bodies: Iterable[Body]) -> Iterable[str]:
    return (load.array for body in bodies for load in loads(body))
