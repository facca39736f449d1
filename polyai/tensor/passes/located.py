"""Products of which an intersection with another pattern is all that is read: `M * (A @ B)`, `sum(A * (A @ A))`.

Such a product needs no pattern of its own. Rows of the other pattern are walked, and their coordinates are looked for in the
row of the product that is at hand: `rows` finds these products, `phases` and lowering leave out what nobody reads. To be walked
row by row, the intersection is stored; a reduction over it reads what was stored:

    C[i, j] += A[i, k] * B[k, j] ...;  J = join M(i, j) & C(i, j);  s = sum(i, j) M[i, j] * C[i, j]   within J(i, j)
    ->
    ...  T[i, j within J(i, j)] = M[i, j] * C[i, j];  s = sum(i_1, j_1) T[i_1, j_1]   within J(i_1, j_1)

Stored are no more elements than M has. Proves legality: T holds what the reduction reads, where it reads it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from polyai.scalar.expr import Load
from polyai.tensor.bodies import convert, names_of, read_by, reads_of, reduces, rename, stem, var
from polyai.tensor.nodes import (
    Comprehension,
    Index,
    Join,
    Pattern,
    Program,
    Reduce,
    Scatter,
    Step,
    TensorType,
    Within,
    owns_a_pattern,
    regroups,
    targets_of,
    types_of,
)


def run(program: Program) -> Program:
    """The program with what is reduced over such intersections stored along them."""
    for name, join in _candidates(program).items():
        readers = [s for s in program.body if join in read_by(s)]
        if any(isinstance(s, Comprehension) and _is_along(s, join) for s in readers) or not all(_is_reduced(s, join) for s in readers):
            continue
        stored = program
        for step in readers:
            stored = _stored(stored, step, join)  # type: ignore[arg-type]
        if name in rows(stored):
            program = stored
    return program


def rows(program: Program) -> Mapping[str, str]:
    """The products that need not be stored, by name the intersection that reads each: what is stored along it is computed element by
    element from arguments, from the product and from other such elements."""
    return {name: join for name, join in _candidates(program).items() if _is_filled_at_once(program, name, join)}


def _candidates(program: Program) -> dict[str, str]:
    """Scatters by rows, each with the one intersection that reads it, with a pattern that is there when rows are filled."""
    types, out = types_of(program), dict[str, str]()
    there = {i.name for i in program.inputs}
    for step in program.body:
        if isinstance(step, Scatter) and step.base is None and step.monoid is not None and not regroups(step) and step.target not in program.outputs:
            joins = [s for s in program.body if isinstance(s, Join) and step.target in read_by(s)]
            if len(joins) == 1 and _meets_one(joins[0], step, there, types):
                out[step.target] = joins[0].target
                continue
        if owns_a_pattern(step) and not isinstance(step, Join):
            there.update(targets_of(step))
    return out


def _meets_one(join: Join, step: Scatter, there: set[str], types: Mapping[str, TensorType]) -> bool:
    """Whether a join is the intersection of the scatter's pattern with one that is there, both compressed along the same dimension."""
    if len(join.clauses) != 2 or any(len(clause) != 1 for clause in join.clauses) or join.parts[0].indices != join.parts[1].indices:
        return False
    (mask,) = (w.tensor for w in join.parts if w.tensor != step.target)
    forms = [types[name].format for name in (mask, step.target, join.target)]
    if mask not in there or any(f is None or f.merged != 1 or len(f.order) != 2 or f.order != step.type.format.order for f in forms):  # type: ignore[union-attr]
        return False
    return step.type.shape[step.type.format.order[0]] != 1  # type: ignore[union-attr]


def _is_along(step: Comprehension, owner: str) -> bool:
    return step.type.pattern is not None and step.type.pattern.owner == owner


def _is_filled_at_once(program: Program, name: str, join: str) -> bool:
    """Whether one loop over the rows stores all that is read of the product and of the intersection."""
    inputs = {i.name for i in program.inputs}
    made = next(s for s in program.body if isinstance(s, Join) and s.target == join)
    parts = {w.tensor for w in made.parts}
    along = {s.target for s in program.body if isinstance(s, Comprehension) and _is_along(s, join)}
    filled = {s.target for s in program.body if isinstance(s, Comprehension) and s.target in along and _is_by_element(s, join, {*inputs, *parts, join, *along})}
    beside = [s for s in program.body if s is not made and name in read_by(s)]
    later = [s for s in program.body if s is not made and join in read_by(s) and not set(targets_of(s)) <= filled]
    return bool(filled) and along == filled and all(set(targets_of(s)) <= filled for s in beside) and not any(reads_of(s) & parts for s in later)


def _is_by_element(step: Comprehension, owner: str, there: set[str]) -> bool:
    """Whether a step stores one element for each of a pattern, from what is there."""
    return next(reduces(step.body), None) is None and [w.tensor for w in step.within] == [owner] and reads_of(step) <= there


def _is_reduced(step: Step, join: str) -> bool:
    """Whether a step only reduces over all of a join, with nothing else walked."""
    if isinstance(step, Join):
        return False
    return isinstance(step, Comprehension) and not step.within and isinstance(step.body, Reduce) and [w.tensor for w in step.body.within] == [join]


def _stored(program: Program, step: Comprehension, join: str) -> Program:
    """The program with the elements that `step` reduces stored along the join before."""
    names, types = names_of(program), types_of(program)
    reduction = step.body
    assert isinstance(reduction, Reduce)
    (within,) = reduction.within
    shape = types[join].shape
    fresh = tuple(Index(names.fresh(stem(v)), extent) for v, extent in zip(within.indices, shape))
    body = rename(reduction.body, {v: i.name for v, i in zip(within.indices, fresh)})
    pattern = Pattern(join, tuple(range(len(shape))))
    target = names.fresh(f"{step.target}_each")
    made = Comprehension(target, TensorType(reduction.dtype, shape, None, pattern), fresh, convert(body, reduction.dtype), (Within(join, tuple(i.name for i in fresh)),))
    read = Load(target, tuple(var(v) for v in within.indices), reduction.dtype)
    reduced = dataclasses.replace(step, body=dataclasses.replace(reduction, body=read))
    at = program.body.index(step)
    return dataclasses.replace(program, body=(*program.body[:at], made, reduced, *program.body[at + 1 :]))
