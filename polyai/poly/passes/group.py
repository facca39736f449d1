"""Fusion: which statements share the next loop.

Statements share a loop if each dependence between them stays within one iteration: every conflicting pair of accesses has an
index that both statements put at the loop's iteration. Statements that must wait for a finished result of the group come
after it, those that the group does not need before it, so program order is kept among all that depend on each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from polyai.poly.access import loads_in
from polyai.poly.nodes import Ragged
from polyai.poly.passes.facts import Facts, conflict, conflicts, reuses
from polyai.scalar.expr import Apply, Const, Expr, Var
from polyai.term.node import node

LONG = 64
"""Iterations from which a reduction in lanes is worth a loop of its own; below, the ends of that loop cost more."""


@node
class Placed:
    """Dims of statements that have their loop already: (statement, dim) -> number of the loop."""

    loops: tuple[tuple[tuple[str, str], int], ...] = ()

    def loop(self, statement: str, dim: str) -> int | None:
        return dict(self.loops).get((statement, dim))

    def add(self, members: Mapping[str, str]) -> Placed:
        number = 1 + max((n for _, n in self.loops), default=-1)
        return Placed((*self.loops, *(((s, d), number) for s, d in members.items())))

    def left(self, facts: Facts) -> tuple[str, ...]:
        """The dims of a statement without a loop, in the order it would have them."""
        done = {d for (s, d), _ in self.loops if s == facts.name}
        return tuple(d for d in facts.order() if d not in done)


@node
class Group:
    """`members` share a loop: statement -> its dim there. `before` and `after` hold the others."""

    members: tuple[tuple[Facts, str], ...]
    before: tuple[Facts, ...]
    after: tuple[Facts, ...]


def alone(first: Facts, rest: Sequence[Facts]) -> Group:
    return Group(((first, ""),), (), tuple(rest))


def inner_group(first: Facts, rest: Sequence[Facts], placed: Placed) -> Group:
    """Statements that share the next loop with `first`, inside a loop that is parallel already (or where none can be)."""
    members: dict[str, str] = {first.name: placed.left(first)[0]}
    kept, before, after = [first], list[Facts](), list[Facts]()
    later = [t for atom in atoms(rest) for t in atom]

    def place(t: Facts, dims: Mapping[str, str], beside_these: Sequence[Facts]) -> str | None:
        """The dim of `t` in the shared loop, if it may join."""
        left = placed.left(t)
        if not left or _must_follow(after, t):
            return None
        dim = _joining(beside_these, dims, t, left[:1], placed) or _meeting(beside_these, dims, t, left[:1], later, placed)
        return dim if dim is not None and all(_alike(s, dims[s.name], t, dim) for s in beside_these) else None

    for atom in atoms(rest):
        together = _all_of(atom, members, kept, place)
        if together is not None:
            members.update(together)
            kept.extend(atom)
            continue
        for t in atom:
            dim = place(t, members, kept)
            if dim is not None:
                kept.append(t)
                members[t.name] = dim
            elif not placed.left(t) and not _must_follow(kept, t) and not _must_follow(after, t):
                before.append(t)
            else:
                after.append(t)
    return Group(tuple((s, members[s.name]) for s in kept), tuple(before), tuple(after))


Place = Callable[[Facts, Mapping[str, str], Sequence[Facts]], "str | None"]


def _all_of(atom: tuple[Facts, ...], members: Mapping[str, str], kept: Sequence[Facts], place: Place) -> dict[str, str] | None:
    """Dims for all statements of an atom. The update knows its dim from what it reads, the start from the update."""
    dims, joined = dict(members), list(kept)
    for t in reversed(atom):
        dim = place(t, dims, joined)
        if dim is None:
            return None
        dims[t.name] = dim
        joined.append(t)
    return {t.name: dims[t.name] for t in atom}


def outer_group(first: Sequence[Facts], rest: Sequence[Sequence[Facts]], dims: Mapping[str, str], along_vector: bool) -> Group:
    """Statements that share a parallel loop with the atom `first`, whose statements have `dims` there.

    Only free dims join. `along_vector`: the loop is cut from the dim that is vectorised, so all members must have no other. What fills
    the rows of a workspace joins if those who walk these rows can: a workspace is one row.
    """
    members, kept, after = dict(dims), list(first), list[Facts]()
    later = [t for atom in rest for t in atom]

    def choices_of(t: Facts) -> tuple[str, ...]:
        if along_vector and any(r.stream for r in t.statement.ragged):  # its rows may be stored in parts of their own
            return ()
        return tuple(d for d in t.free if len(t.free) == 1 or (d != t.vector and not along_vector))

    def place(t: Facts, dims: Mapping[str, str], beside_these: Sequence[Facts]) -> str | None:
        choices = choices_of(t)
        if (t.heavy and not _along_a_fibre(t, beside_these)) or _must_follow(after, t):
            return None
        found = _joining(beside_these, dims, t, choices, Placed())
        return found or _meeting(beside_these, dims, t, choices, later, Placed())

    def walks(t: Facts, atom: Sequence[Facts]) -> bool:
        return any(r.drains in {s.statement.target for s in atom} for r in t.statement.ragged)

    for number, atom in enumerate(rest):
        together = _all_of(tuple(atom), members, kept, place)
        if together is not None:
            walkers = [t for other in rest[number + 1 :] for t in other if walks(t, atom)]
            beside_these, dims_then = [*kept, *atom], {**members, **together}
            if any(_joining(beside_these, dims_then, t, choices_of(t), Placed()) is None for t in walkers):
                together = None
        if together is None:
            after.extend(atom)
        else:
            members.update(together)
            kept.extend(atom)
    return Group(tuple((s, members[s.name]) for s in kept), (), tuple(after))


def whole_group(main: Facts, first: Sequence[Facts], rest: Sequence[Sequence[Facts]]) -> tuple[dict[str, dict[str, str]], tuple[Facts, ...]]:
    """Maps of the results of `main`, element by element: they share all of its free dims. For each statement: main's dim -> its own."""
    dims: dict[str, dict[str, str]] = {}
    for s in first:
        dims[s.name] = {d: beside(main, d, s) for d in main.free}
    kept, after = list(first), list[Facts]()
    for atom in rest:
        t = atom[0]
        mine = None
        if len(atom) == 1 and not t.summed and not t.serial and not _must_follow(after, t):
            mine = {d: _joining(kept, {s.name: dims[s.name][d] for s in kept}, t, t.free, Placed()) for d in main.free}
        if mine is None or None in mine.values() or len(set(mine.values())) != len(t.free) or not any(conflict(s, t) for s in kept):
            after.extend(atom)
            continue
        dims[t.name] = {d: e for d, e in mine.items() if e is not None}
        kept.append(t)
    return dims, tuple(after)


def _along_a_fibre(t: Facts, others: Sequence[Facts]) -> bool:
    """True if `t` reads along a fibre what one of the others writes there: apart from them, it would have to be kept whole."""
    along = {a.array for a in t.accesses if not a.write and any(r.dim in u for r in t.statement.ragged for u in a.used)}
    return any(s.statement.target in along for s in others)


def _must_follow(others: Sequence[Facts], t: Facts) -> bool:
    return any(conflict(s, t) for s in others)


def _joining(kept: Sequence[Facts], members: Mapping[str, str], t: Facts, choices: Sequence[str], placed: Placed) -> str | None:
    """The dim of `t` that stays beside the group in the shared loop; None if there is none."""
    possible = [d for d in choices if _same_extent(kept[0], members[kept[0].name], t, d, placed)]
    tied = False
    for s in kept:
        ds = members[s.name]
        for a, b in conflicts(s, t):
            tied = True
            possible = [d for d in possible if any(p == ds and q == d for p, q in zip(a.places, b.places))]
    if not tied and possible:
        possible = [d for d in possible if any(reuses(s, t, members[s.name], d) for s in kept)]
    return possible[0] if possible else None


def _meeting(
    kept: Sequence[Facts], members: Mapping[str, str], t: Facts, choices: Sequence[str], later: Sequence[Facts], placed: Placed
) -> str | None:
    """The dim of `t` whose loop a statement after it could share with the group and with `t`, since it reads both there."""
    if _must_follow(kept, t):
        return None
    for reader in later:
        if reader is t or t.statement.target not in reader.arrays or reader.summed or reader.serial or not _must_follow(kept, reader):
            continue
        theirs = _joining(kept, members, reader, placed.left(reader), placed)
        mine = None if theirs is None else _joining([reader], {reader.name: theirs}, t, choices, placed)
        if mine is not None and _same_extent(kept[0], members[kept[0].name], t, mine, placed):
            return mine
    return None


def regrouped(members: Mapping[str, str], kept: Sequence[Facts], after: Sequence[Facts]) -> dict[str, tuple[Expr, Expr]]:
    """Maps of one dim i that read a result T[s, c] of the group at T[i // n, i % n], where c runs to n: all they need of the
    group comes from its iteration i // n. For each, the two places."""
    out: dict[str, tuple[Expr, Expr]] = {}
    left: list[Facts] = []
    for t in after:
        place = None
        if len(t.free) == len(t.statement.dims) == 1 and not _must_follow(left, t) and not any(t.statement.target in s.arrays for s in kept):
            places = {_piece_of(s, members[s.name], t) for s in kept if s.statement.target in t.arrays}
            place = places.pop() if len(places) == 1 else None
        if place is None:
            left.append(t)
        else:
            out[t.name] = place
    return out


def _piece_of(s: Facts, dim: str, t: Facts) -> tuple[Expr, Expr] | None:
    """i // n and i % n if `t` reads the target of `s`, whose first index is `dim`, at [i // n, i % n] only."""
    written = next(a for a in s.accesses if a.write)
    array = s.statement.target
    if len(written.places) != 2 or written.places[0] != dim or written.places[1] is None:
        return None
    found = {load.indices for root in t.statement.roots for load in loads_in(root) if load.array == array}
    if len(found) != 1:
        return None
    match found.pop():
        case (Apply("floordiv", (Var(i), Const(n))) as place, Apply("mod", (Var(j), Const(m))) as within) if i == j and n == m == s.extent(written.places[1]):
            return place, within
        case _:
            return None


def _same_extent(s: Facts, ds: str, t: Facts, dt: str, placed: Placed) -> bool:
    """Both dims run equally far; two ragged ones along the same fibre, so below the same loops."""
    mine, other = s.extent(ds), t.extent(dt)
    if mine != other:
        return False
    if not isinstance(mine, Ragged):
        return True
    above = [[placed.loop(f.name, p) for r in f.statement.ragged if r.dim == d for p in r.parents] for f, d in ((s, ds), (t, dt))]
    return above[0] == above[1] and None not in above[0]


def _alike(s: Facts, ds: str, t: Facts, dt: str) -> bool:
    """Sharing does not cost a vector loop: both want it here, or neither, or the one that does is cheap. A long sum is not: each
    addition would wait for the one before."""
    if (ds == s.vector) == (dt == t.vector):
        return True
    wanting, dim = (s, ds) if ds == s.vector else (t, dt)
    return not wanting.dear and (dim not in wanting.summed or wanting.trip(dim) < LONG)


def atoms(statements: Sequence[Facts]) -> list[tuple[Facts, ...]]:
    """Statements that belong together: the start of a reduction and its update, where both name the element alike."""
    out: list[tuple[Facts, ...]] = []
    for s in statements:
        start = out[-1][0] if out and len(out[-1]) == 1 else None
        reduces = s.summed or (s.statement.monoid is not None and any(r.stream for r in s.statement.ragged))
        if start is not None and reduces and start.statement.target == s.statement.target and _named(start) == _named(s):
            out[-1] = (start, s)
        else:
            out.append((s,))
    return out


def _named(s: Facts) -> tuple[int, frozenset[int]]:
    """How many dims are free, and which dimensions of the target they index."""
    write = next(a for a in s.accesses if a.write)
    return len(s.free), frozenset(n for n, place in enumerate(write.places) if place in s.free)


def beside(main: Facts, dim: str, other: Facts) -> str:
    """The dim of `other` that indexes their common target where `dim` of `main` does."""
    mine, its = (next(a for a in f.accesses if a.write) for f in (main, other))
    found = its.places[mine.places.index(dim)]
    assert found is not None
    return found
