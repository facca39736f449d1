"""Bring a program to the form that lowering takes: see `verify.verify_canonical`.

    Y[i: n, j: m] f32 = relu(sum(k: c) A[i, k] * X[k, j]) * D[i, j]
    ->
    Y_sum[i_1: n, j_1: m] f32 = sum(k: c) A[i_1, k] * X[k, j_1]   within A(i_1, k)
    Y[i: n, j: m] f32 = relu(Y_sum[i, j]) * D[i, j]

The order matters: views go first, so that transposed reads show; `restrict` sees products whole, `hoist` hands each reduction
what stands around it, `background` treats the sparse reads that are left, `sample` computes dense steps only where they are
read. Proves legality.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from polyai.tensor.bodies import indices_of, map_regions, names_of, stem
from polyai.tensor.bodies import rename as renamed
from polyai.tensor.nodes import Cond, Program, Step, While
from polyai.tensor.passes import background, fold, fuse, hoist, restrict, sample
from polyai.term.names import Names


def run(program: Program) -> Program:
    """The canonical form. Raises UnsupportedError for sparse reads that have none."""
    seen_through = fuse.views(fold.run(unique_indices(program)))
    explicit = background.run(hoist.run(restrict.run(seen_through)))
    return fuse.views(sample.run(explicit))


def unique_indices(program: Program) -> Program:
    """Rename index variables that an earlier step binds too; a step's own names are distinct already."""
    names, seen, out = names_of(program), set[str](), []
    for step in program.body:
        out.append(_unique(step, names, seen))
    return dataclasses.replace(program, body=tuple(out))


def _unique(step: Step, names: Names, seen: set[str]) -> Step:
    match step:
        case Cond() | While():
            return map_regions(step, unique_indices)
        case _:
            bound = indices_of(step)
            again = {name: names.fresh(stem(name)) for name in bound if name in seen}
            seen.update(bound, again.values())
            new: Any = renamed(step, again) if again else step
            return new  # type: ignore[no-any-return]
