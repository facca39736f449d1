"""Schedules whose legality can be read off, without isl: each dependence stays in one iteration of the loops it must not cross.

    T_upd[i, j, k]: T[i, j] += ...    Y[a, b]: ... T[a, b]            a is tied to i, b to j
    a loop over i and a                                               every pair stays within one iteration, in parallel too
      a sequence of T_upd, Y                                          and in order: nothing is left to ask

Where an access of the one statement and one of the other name the same element, what a dim of the one counts is what a dim of the other
counts: these are ties (see `ties`), found here by comparing places one by one. What is not such a place, is not known. Proves: `legal`
would accept each tree for which `evidently_legal` is true. It is false for much that is legal: isl decides then.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import assert_never

from polyai.poly import tree as st
from polyai.poly.access import loads_in
from polyai.poly.nodes import JAM, PARALLEL, VECTOR, Scop, Statement
from polyai.poly.ties import equal
from polyai.scalar.expr import Apply, Cast, Const, Expr, Load, Var
from polyai.term.node import node

ORDER, RELAXED, SCATTERED = "order", "relaxed", "scattered"
FORBIDDEN = {PARALLEL: (ORDER, RELAXED, SCATTERED), VECTOR: (ORDER, SCATTERED), JAM: (ORDER,)}
"""Which dependences a marked loop may not carry."""


Place = tuple[str, str, int]
"""A dim; or ("i", "floor", 16), the number of its piece, or ("i", "mod", 16), where it is in that piece."""

_PIECE = re.compile(r"floor\(\((\w+)\)/(\d+)\)|\(\((\w+)\) mod (\d+)\)")


@node
class Pair:
    """Dependences of `target` on `source` through one access of each: pairs of different instances, the earlier one first, if both are
    the same statement. `ties`: what `ties.Ties` says of them."""

    source: str
    target: str
    kind: str
    ties: tuple[tuple[str, str], ...]


def evidently_legal(scop: Scop, tree: st.Tree) -> bool:
    """True if it is plain that every dependence runs forward, and that no loop marked parallel, vector or jam carries one."""
    return _Reader(scop).holds(tree, tuple(dict.fromkeys(pairs(scop))))


def pairs(scop: Scop) -> Iterator[Pair]:
    """The dependences of `deps.dependences`, and maybe more: accesses that may name one element."""
    writes = {s.name: (s.target, _places(s, s.write.text)) for s in scop.statements}
    reads = {s.name: [(r.array, _places(s, r.text)) for r in s.reads] for s in scop.statements}
    for number, s in enumerate(scop.statements):
        array, at = writes[s.name]
        kind = ORDER if s.monoid is None else RELAXED if known_element(s) else SCATTERED
        repeated = tuple((dim, dim) for dim in never_repeated(s))
        yield Pair(s.name, s.name, kind, repeated + _ties(at, at))
        for other, places in reads[s.name]:
            if other == array:
                yield Pair(s.name, s.name, ORDER, _ties(at, places))
                yield Pair(s.name, s.name, ORDER, _ties(places, at))
        for t in scop.statements[number + 1 :]:
            written, there = writes[t.name]
            for other, places in ((written, there), *reads[t.name]):
                if other == array:
                    yield Pair(s.name, t.name, ORDER, _ties(at, places))
            for other, places in reads[s.name]:
                if other == written:
                    yield Pair(s.name, t.name, ORDER, _ties(places, there))


def _places(s: Statement, text: str) -> tuple[Place | None, ...]:
    """What stands at each place of an access, None for something else. Nothing is said of an access with places that hold commas."""
    inside = text[text.index("-> ", text.index("{")) :]
    inside = inside[inside.index("[") + 1 : inside.index("]")]
    parts = [part.strip() for part in inside.split(",")]
    return () if any(part.count("(") != part.count(")") for part in parts) else tuple(_place(s, part) for part in parts)


def _place(s: Statement, text: str) -> Place | None:
    if text in s.dims:
        return text, "", 0
    found = _PIECE.fullmatch(text)
    if found is None or (found[1] or found[3]) not in s.dims:
        return None
    return (found[1], "floor", int(found[2])) if found[1] else (found[3], "mod", int(found[4]))


def _ties(here: tuple[Place | None, ...], there: tuple[Place | None, ...]) -> tuple[tuple[str, str], ...]:
    """The dims that are equal because they stand at one place, or their quotients and remainders by one number do."""
    found: dict[str, str] = {}
    halves: dict[tuple[str, str, int], set[str]] = {}
    for source, target in zip(here, there):
        if source is None or target is None or source[1:] != target[1:]:
            continue
        _, part, size = source
        known = halves.setdefault((target[0], source[0], size), set())
        known.add(part)
        if not part or known == {"floor", "mod"}:
            found.setdefault(target[0], source[0])
    return tuple(found.items())


def known_element(statement: Statement) -> bool:
    """True if dims and sizes alone say which element the statement writes."""
    return not any(True for e in statement.at for _ in loads_in(e))


def never_repeated(statement: Statement) -> Iterator[str]:
    """The dims that two updates of one element share, because a fibre repeats no coordinate. Of what else lies along the fibre, its values
    for example, nothing of the kind is known."""
    for place in statement.at:
        load = place.arg if isinstance(place, Cast) else place
        if isinstance(load, Load) and load.indices and isinstance(load.indices[-1], Var):
            for ragged in statement.ragged:
                listed = (f"{ragged.tensor}.crd{ragged.level}", f"{ragged.tensor}.next{ragged.level}")
                if ragged.dim == load.indices[-1].name and ragged.unique and not ragged.parents and load.array in listed:
                    yield ragged.dim


class _Reader:
    def __init__(self, scop: Scop) -> None:
        self.dims = {s.name: s.dims for s in scop.statements}

    def holds(self, tree: st.Tree, found: tuple[Pair, ...]) -> bool:
        """`found`: the pairs that no loop or sequence above has put in order."""
        found = tuple(p for p in found if not self._one_instance(p))
        if not found:
            return True
        match tree:
            case st.Leaf():
                return all(p.kind != ORDER for p in found)
            case st.Bind(_, _, child):
                return self.holds(child, found)
            case st.Band(members, child, marks, _):
                forbidden = {kind for mark in marks for kind in FORBIDDEN.get(mark.partition("=")[0], ())}
                at = dict(members)
                kept: list[Pair] = []
                for pair in found:
                    inside = self._inside(pair, at, pair.kind in forbidden)
                    if inside is None:
                        return False
                    kept.append(inside)
                return self.holds(child, tuple(dict.fromkeys(kept)))
            case st.Sequence(children):
                home = {name: number for number, child in enumerate(children) for name in st.statements_of(child)}
                if any(p.kind == ORDER and home[p.source] > home[p.target] for p in found):
                    return False
                return all(self.holds(child, tuple(p for p in found if home[p.source] == home[p.target] == n)) for n, child in enumerate(children))
            case _:
                assert_never(tree)

    def _one_instance(self, pair: Pair) -> bool:
        """True if there are no such pairs: they would be of an instance with itself."""
        return pair.source == pair.target and set(pair.ties) == {(dim, dim) for dim in self.dims[pair.source]}

    def _inside(self, pair: Pair, at: Mapping[str, Expr], forbidden: bool) -> Pair | None:
        """What is known of a pair within one iteration of a loop. None: the loop may carry it, and may not, or the wrong way round."""
        here, there, ties = at[pair.source], at[pair.target], dict(pair.ties)
        if equal(here, there, ties, self.dims[pair.source], self.dims[pair.target]):
            return pair
        if forbidden or (pair.kind == ORDER and not self._forward(pair, here, there, ties)):
            return None
        if isinstance(here, Var) and isinstance(there, Var) and here.name in self.dims[pair.source] and there.name in self.dims[pair.target]:
            ties.setdefault(there.name, here.name)
        return Pair(pair.source, pair.target, pair.kind, tuple(ties.items()))

    def _forward(self, pair: Pair, here: Expr, there: Expr, ties: Mapping[str, str]) -> bool:
        """True if the loop runs over a dim, or pieces of one, of the one statement that both ends are instances of, and all dims before it
        are equal: the earlier instance comes first then."""
        match here:
            case Var(dim) | Apply("floordiv", (Var(dim), Const())):
                up = isinstance(here, Var) or all(arg.value.real > 0 for arg in here.args if isinstance(arg, Const))
                dims = self.dims[pair.source]
                return up and pair.source == pair.target and here == there and dim in dims and all(ties.get(d) == d for d in dims[: dims.index(dim)])
            case _:
                return False
