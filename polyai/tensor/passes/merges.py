"""Merge what a merge alone reads together with it: one pass over the operands in place of two, and nothing stored between them.

    J = join A | B;  T[i, j within J] = A[i, j] + B[i, j];  K = join J | C;  Y[i, j within K] = T[i, j] - C[i, j]
    ->
    K = join A | B | C;  Y[i, j within K] = (A[i, j] + B[i, j]) - C[i, j]

A union may take the place of its name in a clause, if what lies along it is zero where no part is stored: its body is read there
too. An intersection may where it is a clause by itself, since all that is left lies in it; `A & B | C` could be told as
`(A | C) & (B | C)`, but two merges were faster (decision 12). Proves legality: bodies have no effects.
Merges of more than MOST parts are left apart: each loop of theirs would ask every part whether it is exhausted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import assert_never

from polyai.scalar.expr import Load, Var
from polyai.tensor.bodies import joins_of, least_clauses, loads, map_regions, reads_of, reduces, rename, replace_loads
from polyai.tensor.nodes import Body, Comprehension, Join, Program, Step, TensorType, Within, types_of
from polyai.tensor.passes import fold
from polyai.tensor.support import Both, Either, Everywhere, Nowhere, Stored, Support, support
from polyai.tensor.tree import renamed_withins

MOST = 3
"""Parts of a merge that has a loop for each set of them (see lower.stream)."""


def run(program: Program) -> Program:
    """The program with merges of merges made one, as far as nobody else reads what lies along the inner ones."""
    program = dataclasses.replace(program, body=tuple(map_regions(s, run) for s in program.body))
    while True:
        after = _once(program)
        if after is program:
            return program
        program = fold.run(after)


def _once(program: Program) -> Program:
    for outer in program.body:
        if isinstance(outer, Join):
            for part in outer.parts:
                inner = joins_of(program).get(part.tensor)
                if inner is not None and (found := _merged(program, outer, inner)) is not None:
                    return found
    return program


def _merged(program: Program, outer: Join, inner: Join) -> Program | None:
    """The program without `inner`; None if somebody else needs it, or it cannot be named by its parts."""
    along = {s.target: s for s in program.body if isinstance(s, Comprehension) and _is_along(s, inner)}
    readers = {s.target for s in program.body if isinstance(s, Comprehension) and _is_along(s, outer)}
    gone = {inner.target, *along}
    for step in program.body:
        if step is outer or _target(step) in along:
            continue
        if reads_of(step) & gone and not (isinstance(step, Comprehension) and step.target in readers and _reads_in_place(step, gone)):
            return None
    if not along or gone & set(program.outputs) or any(reads_of(s) & set(along) for s in along.values()):
        return None
    clauses = _clauses(outer, inner)
    if clauses is None or len({w for clause in clauses for w in clause}) > MOST:
        return None
    if not _alone(outer, inner) and not all(_is_zero_outside(s, inner, types_of(program)) for s in along.values()):
        return None
    body: list[Step] = []
    for step in program.body:
        if step is outer:
            body.append(dataclasses.replace(outer, clauses=clauses))
        elif isinstance(step, Comprehension) and step.target in readers:
            body.append(dataclasses.replace(step, body=_read(step.body, along)))
        elif _target(step) not in gone:
            body.append(step)
    return fold.with_body(program, body)


def _target(step: object) -> str:
    return str(getattr(step, "target", ""))


def _is_along(step: Comprehension, join: Join) -> bool:
    """Whether a step without reductions has one element for each that `join` gives, in its order of dimensions."""
    pattern = step.type.pattern
    if pattern is None or pattern.owner != join.target or pattern.dims != tuple(range(len(step.indices))):
        return False
    return [w.tensor for w in step.within] == [join.target] and step.within[0].indices == tuple(i.name for i in step.indices) and next(reduces(step.body), None) is None


def _reads_in_place(step: Comprehension, arrays: set[str]) -> bool:
    """Whether a step reads these at its own element only."""
    own = tuple(i.name for i in step.indices)
    return all(tuple(i.name if isinstance(i, Var) else "" for i in load.indices) == own for load in loads(step.body) if load.array in arrays)


def _alone(outer: Join, inner: Join) -> bool:
    """Whether the outer merge gives nothing outside of the inner one."""
    return any([w.tensor for w in clause] == [inner.target] for clause in outer.clauses)


def _clauses(outer: Join, inner: Join) -> tuple[tuple[Within, ...], ...] | None:
    """The clauses of `outer`, with what `inner` is made of in the place of its name."""
    out: list[tuple[Within, ...]] = []
    for clause in outer.clauses:
        named = [w for w in clause if w.tensor == inner.target]
        if not named:
            out.append(clause)
            continue
        (within,) = named
        told = [renamed_withins(c, {i.name: v for i, v in zip(inner.indices, within.indices)}) for c in inner.clauses]
        rest = tuple(w for w in clause if w is not within)
        if rest and len(told) != 1:
            return None
        out += [tuple(dict.fromkeys((*c, *rest))) for c in told]
    least = least_clauses(out)
    read = dict.fromkeys(w for clause in out for w in clause if all(w not in c for c in least))
    return (*least, *((*least[0], w) for w in read))  # what decides nothing is still read


def _is_zero_outside(step: Comprehension, join: Join, types: Mapping[str, TensorType]) -> bool:
    """Whether a step is structurally zero, whatever else it reads, where some clause of the merge has no part that is stored."""
    names = {i.name: own.name for i, own in zip(join.indices, step.indices)}
    where = support(step.body, types)
    return not any(_is_left(where, frozenset(renamed_withins(clause, names))) for clause in join.clauses)


def _is_left(where: Support, gone: Collection[Within]) -> bool:
    """Whether some point of a support has none of `gone` stored, as far as their names tell."""
    match where:
        case Everywhere():
            return True
        case Nowhere():
            return False
        case Stored(within):
            return within not in gone
        case Both(parts):
            return all(_is_left(p, gone) for p in parts)
        case Either(parts):
            return any(_is_left(p, gone) for p in parts)
        case _:
            assert_never(where)


def _read(body: Body, along: Mapping[str, Comprehension]) -> Body:
    """A body with the bodies of what it reads in place."""

    def change(load: Load) -> Body:
        step = along.get(load.array)
        if step is None:
            return load
        names = {i.name: v.name for i, v in zip(step.indices, load.indices) if isinstance(v, Var)}
        return rename(step.body, names)  # type: ignore[no-any-return]

    return replace_loads(body, change)

