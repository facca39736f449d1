"""What data select becomes rows that can be counted, and lists of it become index arrays.

    P[where(mask[i], i, -1)] bool = True   for [i: n] from [n] bool coo
    at[i: n within P(i)] i64 = i
    L[P.nnz] i64 = list at
    y[k: P.nnz] f64 = x[L[k]]
    ->
    P[b, where(where(b * 4096 + t < n, mask[b * 4096 + t], False), b * 4096 + t, -1)] bool = True
        for [b: ceil(n / 4096), t: 4096] from [ceil(n / 4096), n] bool csr
    y[k: P.nnz] f64 = x[P.crd1[k]]

Each block of a vector is a row of the pattern, so that blocks are counted and filled by several threads. A list of the coordinates
that rows hold is the pattern's own index array. Lists of anything else stay: a phase computes what they list. Proves legality:
blocks follow each other in the order of the vector, and so do their elements.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from polyai.scalar import dtype as dt
from polyai.scalar.expr import Apply, Cast, Const, Load, Var
from polyai.shapes.expr import Size, ceildiv
from polyai.sparse.format import csr
from polyai.tensor.bodies import (
    apply,
    convert,
    from_size,
    left_out,
    loads,
    names_of,
    read_by,
    replace_loads,
    substitute,
    var,
    zero,
)
from polyai.tensor.nodes import (
    Body,
    Comprehension,
    Index,
    Listing,
    Pattern,
    Program,
    Scatter,
    Select,
    Spread,
    Step,
    TensorType,
    pushes,
    targets_of,
)
from polyai.tensor.tree import each, map_parts
from polyai.term.names import Names
from polyai.term.node import node

BLOCK = 4096
"""Elements of a vector that are counted together."""


@node
class Selections:
    """A program without lists of coordinates: the index arrays that it reads as tensors, and those that are results under other names."""

    program: Program
    arrays: tuple[tuple[str, TensorType], ...] = ()
    results: tuple[tuple[str, str], ...] = ()


def run(program: Program) -> Selections:
    """The program with rows and index arrays in place of what vectors select and lists of that."""
    made = {s.target: s for s in program.body if isinstance(s, Scatter) and pushes(s)}
    for selection in made.values():
        program = _in_place(program, selection) or program
    made = {s.target: s for s in program.body if isinstance(s, Scatter) and pushes(s)}
    coordinates = {s.target: s for s in program.body if isinstance(s, Comprehension) and _is_listed_coordinate(s, made)}
    lists = {s.target: s for s in program.body if isinstance(s, Listing) and s.of in coordinates}
    if not lists and all(s.type.rank != 1 for s in made.values()):
        return Selections(program)
    arrays: dict[str, TensorType] = {}
    results: dict[str, str] = {}
    names = names_of(program)
    copies: dict[str, Comprehension] = {}
    out: list[Step] = []
    for step in program.body:
        if isinstance(step, Listing) and step.target in lists:
            pattern = coordinates[step.of].type.pattern
            assert pattern is not None
            copy = copies[step.target] = _copy(step, made[pattern.owner], arrays, names)
            if step.target in program.outputs and isinstance(copy.body, Load):
                results[step.target] = copy.body.array
            out.append(copy)
            continue
        step = _with_index_arrays(step, copies)
        out.append(_in_blocks(step, names) if isinstance(step, Scatter) and step.target in made and step.type.rank == 1 else step)
    for spare in (copies, coordinates):
        read = (set(program.outputs) - results.keys()).union(*(read_by(s) for s in out))
        out = [s for s in out if not (isinstance(s, Comprehension) and s.target in spare and s.target not in read)]
    results = {n: a for n, a in results.items() if all(n not in targets_of(s) for s in out)}
    return Selections(dataclasses.replace(program, body=tuple(out)), tuple(arrays.items()), tuple(results.items()))


CHEAP = frozenset(["add", "sub", "mul", "neg", "abs", "square", "max", "min", "where", "eq", "ne", "lt", "le", "gt", "ge", "and", "or", "not"])
"""What may be computed one element at a time, where elements are selected."""
LARGEST = 12
"""Nodes of what is computed there."""


def _in_place(program: Program, selection: Scatter) -> Program | None:
    """What is computed of what is selected is stored where that would be listed, if nobody else wants the list:

        P[where(m[i], i, -1)] bool = True; at[i] = i within P(i); L = list at; y[k: P.nnz] f64 = x[L[k]]
        ->
        P[where(m[i], i, -1)] f64 = x[i]; y = list P
    """
    along = {s.target: d for s in program.body if isinstance(s, Comprehension) and (d := coordinate_of(s, selection)) is not None}
    lists = {s.target: along[s.of] for s in program.body if isinstance(s, Listing) and s.of in along}
    mine = {selection.target, *along, *lists}
    readers = [s for s in program.body if read_by(s) & mine and not mine & set(targets_of(s))]
    if len(readers) != 1 or mine & set(program.outputs) or selection.within or left_out(selection.at[-1])[1] is None:
        return None
    (reader,) = readers
    if not isinstance(reader, Comprehension) or len(reader.indices) != 1 or reader.within or reader.type.is_sparse:
        return None
    (k,), position = reader.indices, program.body.index(selection)
    known = {i.name for i in program.inputs}.union(*(targets_of(s) for s in program.body[:position]))
    parts = each(reader.body)
    cheap = all(isinstance(n, (Load, Cast, Const, Var)) or (isinstance(n, Apply) and n.op in CHEAP) for n in parts)
    if not cheap or len(parts) > LARGEST or not read_by(reader) - lists.keys() <= known or reader.type.shape[0] not in _sizes(program, lists):
        return None

    def change(n: Any) -> Any:
        if isinstance(n, Load) and n.array in lists and n.indices == (Var(k.name, dt.i64),):
            return Var(selection.indices[lists[n.array]].name, dt.i64)
        return map_parts(n, change)

    body = change(reader.body)
    if any(isinstance(n, Var) and n.name == k.name for n in each(body)) or any(load.array in lists for load in loads(body)):
        return None
    valued = dataclasses.replace(selection, body=body, type=dataclasses.replace(selection.type, dtype=body.dtype))
    listed = Listing(reader.target, reader.type, selection.target)
    steps = (valued if s is selection else listed if s is reader else s for s in program.body)
    return dataclasses.replace(program, body=tuple(s for s in steps if not set(targets_of(s)) & (mine - {selection.target})))


def _sizes(program: Program, lists: Mapping[str, int]) -> set[Size]:
    return {s.type.shape[0] for s in program.body if isinstance(s, Listing) and s.target in lists}


def coordinate_of(step: Comprehension, selection: Scatter) -> int | None:
    """Which coordinate of a selection a step gives along it; None if it gives something else."""
    pattern, body = step.type.pattern, step.body
    if pattern is None or pattern.owner != selection.target or pattern.dims != tuple(range(len(pattern.dims))):
        return None
    while isinstance(body, Cast):
        body = body.arg
    return next((d for d, i in enumerate(step.indices) if isinstance(body, Var) and body.name == i.name), None)


def _is_listed_coordinate(step: Comprehension, made: Mapping[str, Scatter]) -> bool:
    """Whether a step gives, along a pattern of `made`, the coordinate that its rows list."""
    pattern = step.type.pattern
    if pattern is None or pattern.owner not in made:
        return False
    owner = made[pattern.owner].type
    assert owner.format is not None
    body: Body = step.body
    while isinstance(body, Cast):
        body = body.arg
    listed = owner.format.order[-1] if owner.rank > 1 else 0
    return isinstance(body, Var) and body.name == step.indices[pattern.dims.index(listed)].name


def _copy(step: Listing, owner: Scatter, arrays: dict[str, TensorType], names: Names) -> Comprehension:
    """The list as a copy of the index array: for those who want it as a whole."""
    array, form = f"{owner.target}.crd1", owner.type.format
    assert form is not None
    index = dt.BY_NAME[f"i{form.index_bits}"]
    arrays[array] = TensorType(index, step.type.shape)
    return _whole(step, convert(Load(array, (Var("k", dt.i64),), index), step.type.dtype), names)


def _whole(step: Listing, element: Body, names: Names) -> Comprehension:
    """The list as an array of its own, `element` being its element k."""
    k = Index(names.fresh("k"), step.type.shape[0])
    return Comprehension(step.target, step.type, (k,), substitute(element, {"k": var(k)}))


def _with_index_arrays(step: Step, copies: Mapping[str, Comprehension]) -> Step:
    """A step that reads index arrays instead of their copies."""
    if not isinstance(step, (Comprehension, Scatter, Select, Spread)) or not copies:
        return step

    def change(load: Load) -> Body:
        copy = copies.get(load.array)
        return load if copy is None else substitute(copy.body, {copy.indices[0].name: load.indices[0]})

    if isinstance(step, Select):
        return dataclasses.replace(step, at=replace_loads(step.at, change))
    if isinstance(step, Spread):
        return dataclasses.replace(step, length=replace_loads(step.length, change))
    body = replace_loads(step.body, change)
    if isinstance(step, Comprehension):
        return dataclasses.replace(step, body=body)
    return dataclasses.replace(step, body=body, at=tuple(replace_loads(a, change) for a in step.at))


def _in_blocks(step: Scatter, names: Names) -> Scatter:
    """A pattern along a vector with one row for each block."""
    (old,) = step.indices
    (place, condition), n = left_out(step.at[0]), step.type.shape[0]
    b, t = Index(names.fresh("b"), ceildiv(n, BLOCK)), Index(names.fresh("t"), BLOCK)
    here = apply("add", dt.i64, apply("mul", dt.i64, var(b), Const(BLOCK, dt.i64)), var(t))
    inside = apply("lt", dt.bool_, here, from_size(n))
    wanted = inside if condition is None else apply("where", dt.bool_, inside, substitute(condition, {old.name: here}), Const(False, dt.bool_))
    at = apply("where", dt.i64, wanted, substitute(place, {old.name: here}), Const(-1, dt.i64))
    type = TensorType(step.type.dtype, (b.extent, n), csr(64), Pattern(step.target, (0, 1)))
    body = substitute(step.body, {old.name: here})
    if next(loads(body), None) is not None:
        body = apply("where", body.dtype, inside, body, zero(body.dtype))
    return Scatter(step.target, type, None, None, (b, t), (var(b), at), body, requires=step.requires)
