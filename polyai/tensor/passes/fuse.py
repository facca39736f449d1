"""Substitute the body of a map into the steps that read it, where that costs nothing.

    T_1[i_1: n, j_1: m] f32 = T[i_1, j_1] + b[j_1]
    Y[i: n, j: m] f32 = max(T_1[i, j], 0.0)
    ->
    Y[i: n, j: m] f32 = max(T[i, j] + b[j], 0.0)

A view (a permutation, slice, broadcast, reshape; a constant; an index) is substituted always. Any other map is substituted
if it is no output, is read at one place and that place does not evaluate an element twice; or if all its readers read it at stored
coordinates only. A map that only combines several reductions stays beside them if it is read at computed places, so that one
array is kept instead of several. Reductions are never substituted: scheduling fuses them. A gather is substituted only where the body that
takes its place checks the same range. Proves legality: bodies have no effects.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from polyai.scalar import dtype as dt
from polyai.scalar.expr import Apply, Cast, Const, Load, Var
from polyai.tensor.bodies import (
    convert,
    in_owner,
    loads,
    map_regions,
    owner_within,
    reads_of,
    reduces,
    stored_at,
    substitute,
)
from polyai.tensor.cost import Counter, is_plain
from polyai.tensor.nodes import Body, Comprehension, Program, Reduce, Scatter, Step, TensorType, Within, types_of
from polyai.tensor.passes import fold
from polyai.tensor.support import needed, support
from polyai.tensor.tree import each, map_parts, parts
from polyai.term.node import node

Types = Mapping[str, TensorType]
MOST = 3
"""Places where a cheap map may be computed again instead of being stored."""


Decision = Callable[[Comprehension, "list[Site]", Types], bool]


def run(program: Program) -> Program:
    """The program with maps substituted into their readers, folded. Outputs stay."""
    return _repeated(views(program), _free_of_charge, run)


def views(program: Program) -> Program:
    """Only views substituted: what later passes need to see through (`reassociate`, `sample`)."""
    return _repeated(program, lambda producer, sites, types: is_view(producer.body), views)


def _repeated(program: Program, wanted: Decision, regions: Callable[[Program], Program]) -> Program:
    """Until nothing changes: folding a body may make a view of it, and a step that is gone leaves one reader less."""
    program = dataclasses.replace(program, body=tuple(map_regions(s, regions) for s in program.body))
    while True:
        after = fold.run(_pass(program, wanted))
        if after == program:
            return program
        program = after


@node
class Site:
    """One place that reads a tensor: the access, the reading step, the reduction around it if any, what is stored there."""

    load: Load
    step: Comprehension | Scatter
    within: tuple[Within, ...]

    @property
    def points(self) -> set[str]:
        """The index variables of the reading step and its reductions: one evaluation for each of their values."""
        names = {i.name for i in self.step.indices}
        return names | {i.name for r in reduces(self.step.body) for i in r.over}


def _pass(program: Program, wanted: Decision) -> Program:
    types = types_of(program)
    sites = _sites(program, types)
    bodies: dict[str, Comprehension] = {}
    sums = {s.target for s in program.body if isinstance(s, Comprehension) and next(reduces(s.body), None) is not None}
    out: list[Step] = []
    for given in program.body:
        step = _substituted(given, bodies, types)
        out.append(step)
        if not isinstance(step, Comprehension) or not _is_map(step):
            continue
        computed_anyway = step.target in program.outputs and not is_view(step.body)
        read = sites.get(step.target, [])
        beside_sums = _combines(step, sums) and not all(is_plain(s.load) for s in read)
        if not computed_anyway and not beside_sums and wanted(step, read, types):
            bodies[step.target] = step
    return fold.with_body(program, out)


def _is_map(step: Comprehension) -> bool:
    return next(reduces(step.body), None) is None and all(load.array != step.target for load in loads(step.body))


def _combines(step: Comprehension, sums: set[str]) -> bool:
    """True if a map reads several reductions and nothing else."""
    read = {load.array for load in loads(step.body)}
    return len(read) > 1 and read <= sums


def _sites(program: Program, types: Types) -> dict[str, list[Site]]:
    out: dict[str, list[Site]] = {}
    for step in program.body:
        if not isinstance(step, (Comprehension, Scatter)):
            continue
        for root in (step.body, *(step.at if isinstance(step, Scatter) else ())):
            for load, within in _placed(root, tuple(owner_within(w, types) for w in step.within), types):
                out.setdefault(load.array, []).append(Site(load, step, within))
    return out


def _placed(body: Any, around: tuple[Within, ...], types: Types) -> list[tuple[Load, tuple[Within, ...]]]:
    """Accesses, each with the stored coordinates around it."""
    if isinstance(body, Reduce):
        around = around + tuple(owner_within(w, types) for w in body.within)
    own = [(body, around)] if isinstance(body, Load) else []
    return own + [found for part in parts(body) for found in _placed(part, around, types)]


# --- decisions -------------------------------------------------------------------------------------------------------


def is_view(body: Body) -> bool:
    """A constant, an index expression without accesses, or one access at indices without accesses."""
    if isinstance(body, Load):
        return all(next(loads(i), None) is None for i in body.indices)
    if isinstance(body, (Const, Var)):
        return True
    return body.dtype.is_integer and next(loads(body), None) is None and len(each(body)) <= 9


def _free_of_charge(producer: Comprehension, sites: list[Site], types: Types) -> bool:
    if is_view(producer.body):
        return True
    if sites and all(map(_evaluates_once, sites)) and (len(sites) == 1 or (len(sites) <= MOST and _is_cheap(producer.body, types))):
        return True
    return bool(sites) and not producer.type.is_sparse and all(_only_where_stored(s) for s in sites)


def _is_cheap(body: Body, types: Types) -> bool:
    read = list(loads(body))
    gathers = any(next(loads(i), None) is not None for load in read for i in load.indices)
    return len(read) <= 2 and not gathers and Counter(types, {}).operations(body) <= 2


def _evaluates_once(site: Site) -> bool:
    named = {n.name for i in site.load.indices for n in each(i) if isinstance(n, Var)}
    return site.points <= named


def _only_where_stored(site: Site) -> bool:
    names = {i.name for i in site.load.indices if isinstance(i, Var)}
    return len(names) > 1 and site.points <= names and any(set(w.indices) == names for w in site.within)


# --- substitution ----------------------------------------------------------------------------------------------------


def _substituted(step: Step, bodies: Mapping[str, Comprehension], types: Types) -> Step:
    if not isinstance(step, (Comprehension, Scatter)) or not bodies.keys() & reads_of(step):
        return step
    around = tuple(owner_within(w, types) for w in step.within)
    body = fold.fold_body(_inlined(step.body, bodies, types, around))
    if isinstance(step, Comprehension):
        return step if body is step.body else dataclasses.replace(step, body=body)
    at = tuple(fold.fold_body(_inlined(a, bodies, types, around)) for a in step.at)
    same = body is step.body and all(a is b for a, b in zip(at, step.at))
    return step if same else dataclasses.replace(step, body=body, at=at)


def _inlined(root: Any, bodies: Mapping[str, Comprehension], types: Types, around: tuple[Within, ...]) -> Any:
    if isinstance(root, Reduce):
        inside = around + tuple(owner_within(w, types) for w in root.within)
        return map_parts(root, lambda part: _inlined(part, bodies, types, inside))

    def change(load: Load) -> Body:
        producer = bodies.get(load.array)
        if producer is None or not _may_stand_at(producer, load, types, around):
            return load
        return substitute(producer.body, {i.name: convert(at, dt.i64) for i, at in zip(producer.indices, load.indices)})

    new = map_parts(root, lambda part: _inlined(part, bodies, types, around))
    return change(new) if isinstance(new, Load) else new


def _may_stand_at(producer: Comprehension, load: Load, types: Types, around: tuple[Within, ...]) -> bool:
    """The body means the same at these indices: it is zero or unread where not stored, and checks the range of a gather; and
    what it reads of sparse tensors is still read by distinct index variables."""
    if not is_plain(load) and any(types[inner.array].is_sparse for inner in loads(producer.body)):
        return False
    if producer.type.pattern is not None:
        here = stored_at(load, types)
        own = in_owner(producer.type.pattern, tuple(i.name for i in producer.indices))
        if here not in around and own not in needed(support(producer.body, types)):
            return False
    for index, at in zip(producer.indices, load.indices):
        if next(loads(at), None) is not None and not _checks(producer.body, index.name, index.extent, types):
            return False
    return True


def _checks(body: Body, name: str, extent: object, types: Types) -> bool:
    """Some access that is always evaluated has this variable as the index of a dimension of the same extent."""
    match body:
        case Load(array, indices):
            direct = any(isinstance(i, Var) and i.name == name and e == extent for i, e in zip(indices, types[array].shape))
            return direct or any(_checks(i, name, extent, types) for i in indices)
        case Apply("where", (condition, *_)):
            return _checks(condition, name, extent, types)
        case Apply(_, args):
            return any(_checks(a, name, extent, types) for a in args)
        case Cast(arg):
            return _checks(arg, name, extent, types)
        case _:
            return False
