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

from polyai.scalar import dtype as dt
from polyai.scalar.expr import Cast, Const, Load, Var
from polyai.shapes.expr import ceildiv
from polyai.sparse.format import csr
from polyai.tensor.bodies import apply, convert, from_size, left_out, names_of, read_by, replace_loads, substitute, var
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
)
from polyai.term.names import Names

BLOCK = 4096
"""Elements of a vector that are counted together."""


def run(program: Program) -> tuple[Program, dict[str, TensorType]]:
    """The program, and the index arrays that it reads as tensors."""
    made = {s.target: s for s in program.body if isinstance(s, Scatter) and pushes(s)}
    coordinates = {s.target: s for s in program.body if isinstance(s, Comprehension) and _is_listed_coordinate(s, made)}
    lists = {s.target: s for s in program.body if isinstance(s, Listing) and s.of in coordinates}
    returned = {s.target for s in program.body if isinstance(s, Listing) and s.target in program.outputs and s.target not in lists}
    if not lists and not returned and all(s.type.rank != 1 for s in made.values()):
        return program, {}
    arrays: dict[str, TensorType] = {}
    names = names_of(program)
    copies: dict[str, Comprehension] = {}
    out: list[Step] = []
    for step in program.body:
        if isinstance(step, Listing) and step.target in lists:
            pattern = coordinates[step.of].type.pattern
            assert pattern is not None
            copies[step.target] = _copy(step, made[pattern.owner], arrays, names)
            out.append(copies[step.target])
            continue
        if isinstance(step, Listing) and step.target in returned:
            held = dataclasses.replace(step, target=names.fresh(step.target))
            out += [held, _whole(step, Load(held.target, (Var("k", dt.i64),), step.type.dtype), names)]
            continue
        step = _with_index_arrays(step, copies)
        out.append(_in_blocks(step, names) if isinstance(step, Scatter) and step.target in made and step.type.rank == 1 else step)
    for spare in (copies, coordinates):
        read = set(program.outputs).union(*(read_by(s) for s in out))
        out = [s for s in out if not (isinstance(s, Comprehension) and s.target in spare and s.target not in read)]
    return dataclasses.replace(program, body=tuple(out)), arrays


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
    return Scatter(step.target, type, None, None, (b, t), (var(b), at), substitute(step.body, {old.name: here}), requires=step.requires)
