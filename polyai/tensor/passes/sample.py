"""Compute a dense tensor only where it is read: at stored coordinates, if nobody reads it elsewhere.

    T[i_1: n, j_1: m] f32 = sum(q: d) Q[i_1, q] * K[j_1, q]
    S[i: n, j: m within A(i, j)] f32 = A[i, j] * T[i, j]
    ->
    T[i_1: n, j_1: m within A(i_1, j_1)] f32 = sum(q: d) Q[i_1, q] * K[j_1, q]
    S[i: n, j: m within A(i, j)] f32 = A[i, j] * T[i, j]

This makes an SDDMM of a masked product. Proves legality: every read of the tensor is under the same `within`.
Wants canonical form.
"""

from __future__ import annotations

import dataclasses

from polyai.scalar.expr import Load, Var
from polyai.tensor.bodies import loads, map_regions, reads_of
from polyai.tensor.nodes import Comprehension, Pattern, Program, Reduce, Scatter, Step, TensorType, Within


def run(program: Program) -> Program:
    """The program with dense steps sampled, last ones first, so that what they alone need is sampled too."""
    out: list[Step] = []
    readers: dict[str, set[Pattern | None]] = {name: {None} for name in program.outputs}
    for given in reversed(program.body):
        step = map_regions(given, run)
        if isinstance(step, Comprehension) and not step.type.is_sparse:
            patterns = readers.get(step.target, {None})
            pattern = next(iter(patterns))
            if len(patterns) == 1 and pattern is not None and not any(load.array == step.target for load in loads(step.body)):
                step = _sampled(step, pattern)
        out.append(step)
        _note_reads(step, readers)
    return dataclasses.replace(program, body=tuple(reversed(out)))


def _sampled(step: Comprehension, pattern: Pattern) -> Comprehension:
    names = tuple(i.name for i in step.indices)
    order = sorted(range(len(names)), key=lambda d: pattern.dims[d])
    within = Within(pattern.owner, tuple(names[d] for d in order))
    return dataclasses.replace(step, type=TensorType(step.type.dtype, step.type.shape, None, pattern), within=(within,))


def _note_reads(step: Step, readers: dict[str, set[Pattern | None]]) -> None:
    """Under which pattern each tensor is read; None for a read that no `within` restricts to just its coordinates."""
    seen = set()
    if isinstance(step, (Comprehension, Scatter)):
        for root in (step.body, *(step.at if isinstance(step, Scatter) else ())):
            withins = (*step.within, *(root.within if isinstance(root, Reduce) else ()))
            for load in loads(root):
                seen.add(load.array)
                readers.setdefault(load.array, set()).add(_pattern_of(load, withins))
    for name in reads_of(step) - seen:
        readers.setdefault(name, set()).add(None)


def _pattern_of(load: Load, withins: tuple[Within, ...]) -> Pattern | None:
    names = tuple(i.name for i in load.indices if isinstance(i, Var))
    if len(names) != len(load.indices) or len(set(names)) != len(names):
        return None
    for within in withins:
        if sorted(within.indices) == sorted(names):
            return Pattern(within.tensor, tuple(within.indices.index(v) for v in names))
    return None
