"""Loops over what no array lists: the merge of several fibres; what a workspace row holds is walked in `workspace`.

A merge of sorted fibres, after Kjolstad et al. (OOPSLA 2017): the lattice of its points is the sets of parts that are not
exhausted, largest first; a point whose parts cannot fulfil every clause has no loop. J = A | B:

    p0 = A_begin; p1 = B_begin; t = 0
    while p0 < A_end and p1 < B_end:
      let c = min(A.crd[p0], B.crd[p1]); let has0 = A.crd[p0] == c; let has1 = B.crd[p1] == c
      ... body ...
      t += 1; p0 += has0; p1 += has1
    while p0 < A_end: ... body with has0 = true, has1 = false ...
    while p1 < B_end: ... body with has0 = false, has1 = true ...

While all parts have elements, a body without loops is reached by branches in place of questions: patterns of matrices repeat from row
to row, and a processor learns them, while `p` that depends on a comparison keeps every step waiting for the one before. With branches the
matrices of our benchmarks take half to all of the time, uniformly random ones 1.1 to 1.4 times as much (decision 12).

      if A.crd[p0] == B.crd[p1]: ... both ... elif A.crd[p0] < B.crd[p1]: ... the first ... else: ... the second ...

A list holds the coordinates of several dimensions: they are compared as one number, and each is checked to be in its range first.

    c0 = A.crd1[p0] * columns + A.crd2[p0]; check 0 <= A.crd1[p0] < rows and 0 <= A.crd2[p0] < columns
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from polyai.loop import build as b
from polyai.loop import nodes as lp
from polyai.lower.emitter import Emitter, Level
from polyai.lower.exprs import loads_in
from polyai.lower.workspace import Block, Fibre, Workspaces
from polyai.poly import nodes as po
from polyai.scalar import dtype as dt
from polyai.scalar.expr import Expr

LATTICE = 3
"""The most parts that a merge has a loop for each set of; above, one loop asks each part whether it is exhausted."""


def walks_all(source: po.Merge) -> bool:
    """True if a merge ends only when all its parts are exhausted: then the coordinates that it gives tell whether these are in order."""
    return all(len(clause) == len(source.parts) for clause in source.clauses)


Here = tuple[lp.LoopExpr, tuple[lp.LoopExpr, ...]]
"""A coordinate as one number, and the coordinates of each level."""


class Streams(Workspaces):
    """Emits the loops of streams: merges beside workspaces."""

    def __init__(self, out: Emitter) -> None:
        super().__init__(out)
        self.last: dict[str, str] = {}  # by merge at hand: the register of the coordinate before

    # --- merges -----------------------------------------------------------------------------------------------------------

    def merge(self, stream: po.Stream, counter: str | None, iterator: str, body: Block, plain: bool) -> None:
        """The loops over a merge. `counter` is the register of the position in the stream, if something lies along it; `plain` if
        the body has no loops."""
        source = stream.source
        assert isinstance(source, po.Merge)
        fibres = self.fibres[stream.name]
        places = [self.register(f"{f.tensor}_p", f.begin) for f in fibres]
        if walks_all(source):
            self.last[stream.name] = self.register(f"{stream.name}_last", b.const(-1))
        self._points(stream, places, counter, iterator, body, plain)
        last = self.last.pop(stream.name, None)
        if last is not None and not stream.inner and not self.reads_at(stream):  # they ascend: the last one is the largest
            largest = self._let(f"{stream.name}_largest", self._read(last))
            self.out.emit(lp.Check(b.compare("lt", largest, self.out.size(stream.extent)), self.out.merged_site(stream.name), largest))

    def reads_at(self, stream: po.Stream) -> bool:
        """Whether a coordinate of the stream selects an element of some array."""
        name = f"{stream.name}.next{stream.level}"

        def names_it(expr: Expr) -> bool:
            return any(load.array == name for load in loads_in(expr))

        for s in self.out.scop.statements:
            if any(map(names_it, s.at)) or any(names_it(i) for root in s.roots for load in loads_in(root) for i in load.indices):
                return True
        return False

    def _points(self, stream: po.Stream, places: list[str], counter: str | None, iterator: str, body: Block, plain: bool) -> None:
        """The loops of all points of the lattice."""
        source, fibres = stream.source, self.fibres[stream.name]
        assert isinstance(source, po.Merge)
        everything = tuple(range(len(fibres)))
        if len(fibres) > LATTICE:
            self._point(stream, everything, places, counter, iterator, body, open_ended=True)
            return
        for size in range(len(fibres), 0, -1):
            for point in combinations(everything, size):
                if not all(set(clause) & set(point) for clause in source.clauses):
                    continue
                if size == len(fibres) > 1 and plain:
                    self._branches(stream, point, places, counter, iterator, body)
                else:
                    self._point(stream, point, places, counter, iterator, body)

    def _branches(self, stream: po.Stream, point: tuple[int, ...], places: list[str], counter: str | None, iterator: str, body: Block) -> None:
        """The loop while all parts in `point` have elements left: a branch for each set of them that is at the least coordinate."""
        source, fibres = stream.source, self.fibres[stream.name]
        assert isinstance(source, po.Merge)
        test: lp.LoopExpr = b.TRUE
        for n in point:
            test = b.both(test, b.compare("lt", self._read(places[n]), fibres[n].end))
        self.out.levels.append(Level([]))
        at = {n: self._let(f"{fibres[n].tensor}_at", self._read(places[n])) for n in point}
        found = {n: self._coordinate(stream, fibres[n], at[n], None) for n in point}

        def branch(holds: tuple[int, ...]) -> lp.Stmt:
            self.out.levels.append(Level([], branch=True))
            if all(set(clause) & set(holds) for clause in source.clauses):
                least, coordinates = found[holds[0]]
                self._ascends(stream, least)

                def meaning() -> None:
                    self._name(stream, coordinates)
                    for n, fibre in enumerate(fibres):
                        self.out.virtual[f"{stream.name}.has{n}"] = b.TRUE if n in holds else b.FALSE
                        self.out.virtual[f"{stream.name}.at{n}"] = b.sub(at[n], fibre.begin) if n in at else b.ZERO
                    self._position(stream, counter, iterator)

                self.out.emit(self._taken(body, meaning, counter))
            for n in holds:
                self.out.emit(lp.Store(places[n], (), b.add(at[n], b.ONE)))
            return b.block(*self.out.levels.pop().stmts)

        def compared(holds: tuple[int, ...], left: tuple[int, ...]) -> lp.Stmt:
            """The branches where `holds` are at the least coordinate of all but those that are `left`."""
            if not left:
                return branch(holds)
            more, *others = left
            here, least = found[more][0], found[holds[0]][0]
            apart = lp.If(b.compare("lt", least, here), compared(holds, tuple(others)), compared((more,), tuple(others)))
            return lp.If(b.compare("eq", least, here), compared((*holds, more), tuple(others)), apart)

        self.out.emit(compared(point[:1], point[1:]))
        inner = b.block(*self.out.levels.pop().stmts)
        self.out.emit(lp.While(test, inner))

    def _ascends(self, stream: po.Stream, least: lp.LoopExpr) -> None:
        """Check that the coordinate is larger than the one before, and in range if the body reads there."""
        last = self.last.get(stream.name)
        if last is None:
            return
        grows = b.compare("lt", self._read(last), least)
        if not stream.inner and self.reads_at(stream):
            grows = b.both(grows, b.below(least, self.out.size(stream.extent)))
        self.out.emit(lp.Check(grows, self.out.merged_site(stream.name), least))
        self.out.emit(lp.Store(last, (), least))

    def _point(
        self, stream: po.Stream, point: Sequence[int], places: list[str], counter: str | None, iterator: str, body: Block, open_ended: bool = False
    ) -> None:
        """One loop: all parts in `point` have elements left; with `open_ended`, any one of them has."""
        source, fibres = stream.source, self.fibres[stream.name]
        assert isinstance(source, po.Merge)
        active = [b.compare("lt", self._read(places[n]), fibres[n].end) for n in point]
        test = active[0]
        for more in active[1:]:
            test = b.either(test, more) if open_ended else b.both(test, more)
        self.out.levels.append(Level([]))
        at = {n: self._let(f"{fibres[n].tensor}_at", self._read(places[n])) for n in point}
        limit = self.out.size(stream.places)
        coordinates = {n: self._coordinate(stream, fibres[n], at[n], limit if open_ended else None) for n in point}
        here = {n: whole for n, (whole, _) in coordinates.items()}
        least = here[point[0]]
        for n in point[1:]:
            least = b.smallest(least, here[n])
        least = self._let(f"{stream.name}_next", least)
        self._ascends(stream, least)
        has: dict[int, lp.LoopExpr] = dict.fromkeys(range(len(fibres)), b.FALSE)
        for n in point:
            found = b.compare("eq", here[n], least)
            if len(point) == 2 and not open_ended:  # known before the least of both is
                found = b.at_most(here[n], here[point[1] if n == point[0] else point[0]])
            if open_ended:  # an exhausted part is nowhere, also where a broken index array lists what is outside
                found = b.both(b.compare("lt", at[n], fibres[n].end), found)
                self.out.loose.add(f"{stream.name}.at{n}")
            has[n] = b.TRUE if len(point) == 1 else self._let(f"{fibres[n].tensor}_has", found)
        wanted: lp.LoopExpr = b.TRUE
        for clause in source.clauses:
            if not set(clause) >= set(point):  # one of the point's parts is at the coordinate for certain
                some: lp.LoopExpr = b.FALSE
                for n in clause:
                    some = b.either(some, has[n])
                wanted = b.both(wanted, some)

        def meaning() -> None:
            virtual = self.out.virtual
            self._name(stream, (least,) if not stream.inner else self._chosen([(has[n], coordinates[n][1]) for n in point]))
            for n, fibre in enumerate(fibres):
                virtual[f"{stream.name}.has{n}"] = has[n]
                virtual[f"{stream.name}.at{n}"] = b.sub(at[n], fibre.begin) if n in at else b.ZERO
            self._position(stream, counter, iterator)

        taken = self._taken(body, meaning, counter)
        self.out.emit(taken if wanted == b.TRUE else lp.If(wanted, taken))
        for n in point:
            step = b.ONE if has[n] == b.TRUE else b.convert(has[n], dt.i64)
            self.out.emit(lp.Store(places[n], (), b.add(at[n], step)))
        inner = b.block(*self.out.levels.pop().stmts)
        self.out.emit(lp.While(test, inner))

    def _coordinate(self, stream: po.Stream, fibre: Fibre, at: lp.LoopExpr, beyond: lp.LoopExpr | None) -> Here:
        """The coordinates at a place, each in its range if there are several; `beyond` if the fibre is exhausted."""
        self.out.used.update(fibre.coordinates)
        left = b.TRUE if beyond is None else b.compare("lt", at, fibre.end)
        read = []
        for n, array in enumerate(fibre.coordinates):
            index = self.out.storage.dtype(array)
            load = b.load(array, (at,), index) if beyond is None else lp.MaskedLoad(array, (at,), left, index)
            found = b.convert(load, dt.i64)
            if not stream.inner:
                here = self._let(f"{fibre.tensor}_crd", found if beyond is None else b.where(left, found, beyond))
                return here, (here,)
            read.append(self._let(f"{fibre.tensor}_crd{fibre.level + n}", found))
        self.in_range(stream, fibre, read)
        key = self._let(f"{fibre.tensor}_crd", self.joined(stream, read))
        return (key if beyond is None else self._let(f"{fibre.tensor}_crd", b.where(left, key, beyond))), tuple(read)

    def joined(self, stream: po.Stream, coordinates: Sequence[lp.LoopExpr]) -> lp.LoopExpr:
        """The coordinates of a list's levels as one number."""
        key = coordinates[0]
        for extent, more in zip(stream.inner, coordinates[1:]):
            key = b.add(b.mul(key, self.out.size(extent)), more)
        return key

    def in_range(self, stream: po.Stream, fibre: Fibre, coordinates: Sequence[lp.LoopExpr]) -> None:
        """Check that the coordinates of a list's levels are in range."""
        for n, (extent, here) in enumerate(zip((stream.extent, *stream.inner), coordinates)):
            self.out.emit(lp.Check(b.below(here, self.out.size(extent)), self.out.range_site(fibre.tensor, fibre.level + n), here))

    def _name(self, stream: po.Stream, coordinates: Sequence[lp.LoopExpr]) -> None:
        """Note what the coordinates at hand are."""
        for n, here in enumerate(coordinates):
            self.out.virtual[f"{stream.name}.next{stream.level + n}"] = here

    def _chosen(self, parts: Sequence[tuple[lp.LoopExpr, tuple[lp.LoopExpr, ...]]]) -> tuple[lp.LoopExpr, ...]:
        """The coordinates of the first of `parts` = (is there, coordinates) that is there."""
        (_, out), *others = reversed(parts)
        for present, coordinates in others:
            out = tuple(b.where(present, mine, rest) for mine, rest in zip(coordinates, out))
        return tuple(self._let("next", e) for e in out)
