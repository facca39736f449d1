"""Temporaries shrink to what is live.

    parallel i:                                     parallel i:
      vector j:                                       vector j:
        T[i,j] = 0.0                                    alloc T                      depth 2
        q: T[i,j] add= A.val[i,q] * X[...,j]    ->      T = 0.0
        Y[i,j] = T[i,j]                                 q: T add= A.val[i,q] * X[...,j]
                                                        Y[i,j] = T

    parallel j // 512:                              parallel j // 512:
      k // 8:                                         alloc T[n, 528]
        i: j: k: T[i,j] add= A[i,k] * B[k,j]    ->    k // 8:
      i: j: Y[i,j] = T[i,j]                             i: j: k: T[i,j % 512] add= A[i,k] * B[k,j]
                                                      i: j: Y[i,j] = T[i,j % 512]

Proves: an index is dropped only where each iteration of a loop around all accesses touches that one index value, so the
elements of different iterations are different and a fresh copy in each iteration holds all that is read there. An index that
is the same number everywhere is dropped, too. Where no index is dropped, those are cut whose loops around all accesses run
over pieces: an iteration touches the elements of its own piece only.
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
from polyai.term.node import map_children, node

PAD_BYTES = 64
"""The rows of pieces are that much longer: rows whose distance is a power of two would share the same few lines of a cache."""


@node
class _Smaller:
    """What becomes of the indices of an array: some are dropped, others count within pieces of a length."""

    dropped: tuple[int, ...] = ()
    pieces: tuple[tuple[int, int], ...] = ()

    def at(self, indices: tuple[Expr, ...]) -> tuple[Expr, ...]:
        lengths = dict(self.pieces)
        out: list[Expr] = []
        for p, index in enumerate(indices):
            if p in lengths:
                out.append(Apply("mod", (index, Const(lengths[p], dt.i64)), dt.i64))
            elif p not in self.dropped:
                out.append(index)
        return tuple(out)

    def extents(self, array: Array) -> tuple[Any, ...]:
        lengths = dict(self.pieces)
        last = len(array.extents) - 1
        if last in lengths and last > 0:
            lengths[last] += PAD_BYTES // array.dtype.bytes
        return tuple(lengths.get(p, e) for p, e in enumerate(array.extents) if p not in self.dropped)


_AS_IT_IS = _Smaller()


def run(scop: Scop) -> Scop:
    """`scop` with smaller temporaries, and the loop depth at which each is allocated. Needs a schedule."""
    if scop.schedule is None:
        raise VerifyError(f"scop {scop.name} has no schedule", "contraction follows the loops")
    around = dict(_bands(st.read(scop, scop.schedule)))
    accesses = _accesses(scop)
    smaller: dict[str, _Smaller] = {}
    allocations = []
    for array in scop.arrays:
        if array.role in ("temporary", "workspace"):
            users = accesses.get(array.name, {})
            positions, depth = _fixed(around, users, len(array.extents)) if users else ((), 0)
            pieces: tuple[tuple[int, int], ...] = ()
            if array.role == "temporary" and not positions and users:
                pieces, depth = _cut(around, users, len(array.extents))
            allocations.append(Allocation(array.name, depth))
            if positions or pieces:
                smaller[array.name] = _Smaller(positions, pieces)
    arrays = tuple(dataclasses.replace(a, extents=smaller[a.name].extents(a)) if a.name in smaller else a for a in scop.arrays)
    sizes = Parameters(scop.sizes)
    limits = {a.name: tuple(_limit(e, sizes) for e in a.extents) for a in arrays if a.name in _touched(scop)}
    statements = tuple(_changed(s, scop, smaller, limits) for s in scop.statements)
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
        fixes = [p for p in range(rank) if all(_within(i[p], places[s]) for s, uses in users.items() for i in uses)]
        pieces = {_piece(place) for place in places.values()}
        if not fixes or len(pieces) > 1:
            break
    return tuple(positions), found


def _cut(
    around: Mapping[str, tuple[st.Band, ...]], users: Mapping[str, list[tuple[Expr, ...]]], rank: int
) -> tuple[tuple[tuple[int, int], ...], int]:
    """The positions that loops around all users cut into pieces, with the lengths, and how many loops enclose one piece."""
    found: dict[int, int] = {}
    depth = 0
    for number, bands in enumerate(zip(*(around[s] for s in users)), start=1):
        if any(b is not bands[0] for b in bands):
            break
        places = {s: bands[0].place(s) for s in users}
        fits = [p for p in range(rank) if all(_within(i[p], places[s]) for s, uses in users.items() for i in uses)]
        lengths = {_piece(places[s]) // _piece(i[fits[0]]) for s, uses in users.items() for i in uses} if fits else set()
        if len(lengths) != 1 or lengths == {1}:
            break
        found[fits[0]] = lengths.pop()
        depth = number
    return tuple(sorted(found.items())), depth


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


def _within(index: Expr, place: Expr) -> bool:
    """True if a loop with this place is over the index, or over pieces of it."""
    match index, place:
        case (Apply("floordiv", (dim, Const(small))), Apply("floordiv", (other, Const(large)))):
            return dim == other and int(large.real) % int(small.real) == 0
        case _:
            return index == _whole(place)


def _piece(place: Expr) -> int:
    """How many values of the dim one iteration holds."""
    match place:
        case Apply("floordiv", (_, Const(value))):
            return int(value.real)
        case _:
            return 1


def _changed(s: Statement, scop: Scop, smaller: Mapping[str, _Smaller], limits: Mapping[str, tuple[str, ...]]) -> Statement:
    if not any(r.array in smaller for r in (s.write, *s.reads)):
        return s

    def change(item: Any) -> Any:
        new = map_children(item, change)
        if isinstance(new, Load) and new.array in smaller:
            return dataclasses.replace(new, indices=smaller[new.array].at(new.indices))
        return new

    at = tuple(change(e) for e in smaller.get(s.target, _AS_IT_IS).at(s.at))
    value = change(s.value)
    pushes = tuple((array, change(pushed)) for array, pushed in s.pushes)
    when = None if s.when is None else change(s.when)
    ragged, nonempty = (tuple(dataclasses.replace(r, place=tuple(map(change, r.place))) for r in of) for of in (s.ragged, s.nonempty))
    once = None if s.once is None else change(s.once)
    known = {*s.dims, *scop.parameters}
    head = f"{s.name}[{', '.join(s.dims)}]"
    prefix = f"[{', '.join(scop.parameters)}] -> "
    write = write_of(head, s.target, at, value.dtype, known, limits)
    drained = (row_of(head, r.drains, smaller.get(r.drains, _AS_IT_IS).at(r.places), known, limits) for r in ragged if r.drains)
    after = dataclasses.replace(s, at=at, value=value, pushes=pushes, when=when, once=once, ragged=ragged, nonempty=nonempty)
    reads = tuple(dict.fromkeys((*reads_of(head, after.roots, known, limits), *drained, *(whole_of(head, e, known, limits) for e in after.entered))))
    return dataclasses.replace(
        after,
        write=dataclasses.replace(write, text=prefix + write.text, must=write.must and s.write.must),
        reads=tuple(dataclasses.replace(r, text=prefix + r.text) for r in reads),
    )
