"""Temporaries shrink to what is live.

    parallel i:                                     parallel i:
      vector j:                                       vector j:
        T[i,j] = 0.0                                    alloc T                      depth 2
        q: T[i,j] add= A.val[i,q] * X[...,j]    ->      T = 0.0
        Y[i,j] = T[i,j]                                 q: T add= A.val[i,q] * X[...,j]
                                                        Y[i,j] = T

Proves: an index is dropped only where each iteration of a loop around all accesses touches that one index value, so the
elements of different iterations are different and a fresh copy in each iteration holds all that is read there. An index that
is the same number everywhere is dropped, too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, assert_never

from polyai.errors import VerifyError
from polyai.poly import tree as st
from polyai.poly.access import loads_in, reads_of, row_of, whole_of, write_of
from polyai.poly.affine import Parameters
from polyai.poly.nodes import Allocation, Array, Ragged, Scop, Statement, hull_of
from polyai.scalar import dtype as dt
from polyai.scalar.expr import Apply, Const, Expr, Load, Var
from polyai.term.node import map_children


def run(scop: Scop) -> Scop:
    """`scop` with smaller temporaries, and the loop depth at which each is allocated. Needs a schedule."""
    if scop.schedule is None:
        raise VerifyError(f"scop {scop.name} has no schedule", "contraction follows the loops")
    around = dict(_bands(st.read(scop, scop.schedule)))
    accesses = _accesses(scop)
    dropped: dict[str, tuple[int, ...]] = {}
    allocations = []
    for array in scop.arrays:
        if array.role in ("temporary", "workspace"):
            users = accesses.get(array.name, {})
            positions, depth = _fixed(around, users, len(array.extents)) if users else ((), 0)
            allocations.append(Allocation(array.name, depth))
            if positions:
                dropped[array.name] = positions
    arrays = tuple(_smaller(a, dropped.get(a.name, ())) for a in scop.arrays)
    sizes = Parameters(scop.sizes)
    limits = {a.name: tuple(_limit(e, sizes) for e in a.extents) for a in arrays if a.name in _touched(scop)}
    statements = tuple(_without(s, scop, dropped, limits) for s in scop.statements)
    return dataclasses.replace(scop, arrays=arrays, statements=statements, allocations=tuple(allocations))


def _touched(scop: Scop) -> set[str]:
    return {r.array for s in scop.statements for r in (s.write, *s.reads)}


def _limit(extent: Any, sizes: Parameters) -> str:
    return hull_of(extent.tensor, extent.level) if isinstance(extent, Ragged) else sizes.text(extent)


def _accesses(scop: Scop) -> dict[str, dict[str, list[tuple[Expr, ...]]]]:
    """Array -> statement -> the indices it uses."""
    out: dict[str, dict[str, list[tuple[Expr, ...]]]] = {}
    for s in scop.statements:
        for array, indices in ((s.target, s.at), *((n.array, n.indices) for root in s.roots for n in loads_in(root))):
            out.setdefault(array, {}).setdefault(s.name, []).append(indices)
        for r in s.ragged:
            if r.drains:  # reads a whole row
                out.setdefault(r.drains, {}).setdefault(s.name, []).append((*r.places, Var("", dt.i64)))
        for load in s.entered:
            out.setdefault(load.array, {}).setdefault(s.name, []).append(tuple(Var("", dt.i64) for _ in load.indices))
    return out


def _bands(tree: st.Tree, above: tuple[st.Band, ...] = ()) -> Iterator[tuple[str, tuple[st.Band, ...]]]:
    """The loops around each statement, outermost first."""
    match tree:
        case st.Leaf(name):
            yield name, above
        case st.Bind(_, _, child):
            yield from _bands(child, above)
        case st.Sequence(children):
            for child in children:
                yield from _bands(child, above)
        case st.Band(_, child, _, _):
            yield from _bands(child, (*above, tree))
        case _:
            assert_never(tree)


def _fixed(
    around: Mapping[str, tuple[st.Band, ...]], users: Mapping[str, list[tuple[Expr, ...]]], rank: int
) -> tuple[tuple[int, ...], int]:
    """The positions that loops around all users fix, and how many loops enclose what is left."""
    positions = [p for p in range(rank) if len({i[p] for uses in users.values() for i in uses}) == 1 and _is_constant(users, p)]
    found = 0
    for depth, bands in enumerate(zip(*(around[s] for s in users)), start=1):
        if any(b is not bands[0] for b in bands):
            break
        places = {s: bands[0].place(s) for s in users}
        exact = [p for p in range(rank) if all(i[p] == places[s] for s, uses in users.items() for i in uses)]
        if exact:
            positions += [p for p in exact if p not in positions]
            found = depth
            continue
        fixes = [p for p in range(rank) if all(i[p] == _whole(places[s]) for s, uses in users.items() for i in uses)]
        pieces = {_piece(place) for place in places.values()}
        if not fixes or len(pieces) > 1:
            break
    return tuple(positions), found


def _is_constant(users: Mapping[str, list[tuple[Expr, ...]]], position: int) -> bool:
    return all(isinstance(i[position], Const) for uses in users.values() for i in uses)


def _whole(place: Expr) -> Expr | None:
    """The dim of a loop over it or over pieces of it."""
    match place:
        case Var():
            return place
        case Apply("floordiv", (Var() as dim, Const())):
            return dim
        case _:
            return None


def _piece(place: Expr) -> int:
    """How many values of the dim one iteration holds."""
    match place:
        case Apply("floordiv", (_, Const(value))):
            return int(value.real)
        case _:
            return 1


def _smaller(array: Array, positions: tuple[int, ...]) -> Array:
    return dataclasses.replace(array, extents=_kept(array.extents, positions)) if positions else array


def _kept(parts: tuple[Any, ...], positions: tuple[int, ...]) -> tuple[Any, ...]:
    return tuple(part for p, part in enumerate(parts) if p not in positions)


def _without(s: Statement, scop: Scop, dropped: Mapping[str, tuple[int, ...]], limits: Mapping[str, tuple[str, ...]]) -> Statement:
    if not any(r.array in dropped for r in (s.write, *s.reads)):
        return s

    def change(item: Any) -> Any:
        new = map_children(item, change)
        if isinstance(new, Load) and new.array in dropped:
            return dataclasses.replace(new, indices=_kept(new.indices, dropped[new.array]))
        return new

    at = tuple(change(e) for e in _kept(s.at, dropped.get(s.target, ())))
    value = change(s.value)
    pushes = tuple((array, change(pushed)) for array, pushed in s.pushes)
    when = None if s.when is None else change(s.when)
    ragged, nonempty = (tuple(dataclasses.replace(r, place=tuple(map(change, r.place))) for r in of) for of in (s.ragged, s.nonempty))
    once = None if s.once is None else change(s.once)
    known = {*s.dims, *scop.parameters}
    head = f"{s.name}[{', '.join(s.dims)}]"
    prefix = f"[{', '.join(scop.parameters)}] -> "
    write = write_of(head, s.target, at, value.dtype, known, limits)
    drained = (row_of(head, r.drains, _kept(r.places, dropped.get(r.drains, ())), known, limits) for r in ragged if r.drains)
    after = dataclasses.replace(s, at=at, value=value, pushes=pushes, when=when, once=once, ragged=ragged, nonempty=nonempty)
    reads = tuple(dict.fromkeys((*reads_of(head, after.roots, known, limits), *drained, *(whole_of(head, e, known, limits) for e in after.entered))))
    return dataclasses.replace(
        after,
        write=dataclasses.replace(write, text=prefix + write.text, must=write.must and s.write.must),
        reads=tuple(dataclasses.replace(r, text=prefix + r.text) for r in reads),
    )
