"""Loops over what no array lists: the merge of several fibres, and what a workspace row holds.

A merge of sorted fibres, after Kjolstad et al. (OOPSLA 2017): the lattice of its points is the sets of parts that are not
exhausted, largest first; a point whose parts cannot fulfil every clause has no loop. J = A | B:

    p0 = A_begin; p1 = B_begin; t = 0
    while p0 < A_end and p1 < B_end:
      let c = min(A.crd[p0], B.crd[p1]); let has0 = A.crd[p0] == c; let has1 = B.crd[p1] == c
      ... body ...
      t += 1; p0 += has0; p1 += has1
    while p0 < A_end: ... body with has0 = true, has1 = false ...
    while p1 < B_end: ... body with has0 = false, has1 = true ...

Two fibres under a body without loops branch in place of asking: patterns of matrices repeat from row to row, and a processor learns
them, while `p` that depends on a comparison keeps every step waiting for the one before. With branches the
matrices of our benchmarks take half to all of the time, uniformly random ones 1.1 to 1.4 times as much (decision 12).

      if A.crd[p0] == B.crd[p1]: ... both ... elif A.crd[p0] < B.crd[p1]: ... the first ... else: ... the second ...

A list holds the coordinates of several dimensions: they are compared as one number, and each is checked to be in its range first.

    c0 = A.crd1[p0] * columns + A.crd2[p0]; check 0 <= A.crd1[p0] < rows and 0 <= A.crd2[p0] < columns

A workspace row is a dense array of values beside a tree of bitmaps, 64 children a node: an update sets the bit of its element, and
those above it only where a node was empty. The word at hand stays in a register, as neighbours often follow each other: what was
stored a moment ago would have to be waited for.

    w = at / 64
    if w != here: bits[here] = held; held = bits[w]; here = w; if held == 0: set the bit of w above
    held = held | bit(at)

Its coordinates come out sorted, by counting trailing zeros:

    for each word of the root: while it has bits: take the lowest; ... down to an element: body; clear what was taken

Where a row is only asked for the coordinates of a fibre, it needs no order: it holds a number for each element, that of the last row
that updated it. What the fibre lists is set before the updates; everything else gathers sums that nobody reads, which costs less
than to ask of each product whether somebody wants it.

    for p: w[M.crd[p]] = 0
    ... w[at] += value; row_of[at] = i + 1 ...
    for p: let c = M.crd[p]; if row_of[c] == i + 1: body
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations

from polyai.loop import build as b
from polyai.loop import nodes as lp
from polyai.loop.walks import all_stmts, decided
from polyai.lower.emitter import Emitter, Level
from polyai.lower.exprs import loads_in
from polyai.poly import nodes as po
from polyai.scalar import dtype as dt
from polyai.scalar.expr import Expr
from polyai.tensor.bodies import zero
from polyai.term.node import node

DEPTH = 3
"""Levels of bitmaps over a workspace row: one word of the root stands for 64 ** DEPTH elements."""
LATTICE = 3
"""The most parts that a merge has a loop for each set of; above, one loop asks each part whether it is exhausted."""

Block = Callable[[Callable[[], None]], lp.Stmt]
"""Emits a nested block: what the argument emits, then the body of the loop."""


def bits_of(workspace: str, depth: int) -> str:
    """The name of a bitmap of a workspace; 0 has a bit for each element."""
    return f"{workspace}.bits{depth}"


def row_of(workspace: str) -> str:
    """The name of the array that says which row updated each element last, of a workspace whose elements are looked for."""
    return f"{workspace}.row"


def walks_all(source: po.Merge) -> bool:
    """True if a merge ends only when all its parts are exhausted: then the coordinates that it gives tell whether these are in order."""
    return all(len(clause) == len(source.parts) for clause in source.clauses)


class Fibre:
    """A fibre at hand: the arrays of its coordinates, one for each level that is listed, where it begins and ends."""

    def __init__(self, tensor: str, level: int, coordinates: tuple[str, ...], begin: lp.LoopExpr, end: lp.LoopExpr) -> None:
        self.tensor, self.level, self.coordinates, self.begin, self.end = tensor, level, coordinates, begin, end


@node
class Repeat:
    """What the row of a workspace at hand has of the row before, which is stored from `begin` to `end`: its coordinates, each `step`
    further on, if that is not negative. `listed`: whose coordinates they are."""

    step: lp.LoopExpr
    begin: lp.LoopExpr
    end: lp.LoopExpr
    listed: tuple[str, int]


Here = tuple[lp.LoopExpr, tuple[lp.LoopExpr, ...]]
"""A coordinate as one number, and the coordinates of each level."""


class Streams:
    """Emits the loops of streams. `virtual` holds what the arrays of the stream at hand mean there."""

    def __init__(self, out: Emitter) -> None:
        self.out = out
        self.fibres: dict[str, list[Fibre]] = {}  # by merge: its parts' fibres at hand
        self.here: dict[str, tuple[str, str]] = {}  # by workspace: the registers of the number of the word at hand, and of the word
        self.last: dict[str, str] = {}  # by merge at hand: the register of the coordinate before
        self.repeats: dict[str, Repeat] = {}  # by workspace whose rows may repeat the one before
        self.rows: dict[str, lp.LoopExpr] = {}  # by packed stream: the row at hand
        self.located = {s.source.workspace: s for s in out.scop.streams if isinstance(s.source, po.Located)}
        updates: dict[str, set[str | None]] = {}
        for s in out.scop.statements:
            updates.setdefault(s.target, set()).add(s.monoid)
        spaces = {a.name for a in out.scop.arrays if a.role == "workspace"} - out.unread
        self.sums = {name for name in spaces if updates.get(name) in ({"add"}, {"or"})}  # what begins at zero needs no first time

    # --- registers --------------------------------------------------------------------------------------------------------

    def register(self, stem: str, start: lp.LoopExpr) -> str:
        name = self.out.names.fresh(stem)
        self.out.emit(lp.Alloc(name, dt.i64, (), lp.Space.REGISTER))
        self.out.emit(lp.Store(name, (), start))
        return name

    def _read(self, register: str) -> lp.Load:
        return b.load(register, (), dt.i64)

    def _let(self, stem: str, value: lp.LoopExpr) -> lp.LoopExpr:
        if isinstance(value, lp.Const):
            return value
        name = self.out.names.fresh(stem)
        self.out.emit(lp.Let(name, value))
        self.out.home[name] = len(self.out.levels) - 1
        return lp.Var(name, b.dtype_of(value))

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
                if len(fibres) == size == 2 and plain:
                    self._pair(stream, places, counter, iterator, body)
                elif all(set(clause) & set(point) for clause in source.clauses):
                    self._point(stream, point, places, counter, iterator, body)

    def _pair(self, stream: po.Stream, places: list[str], counter: str | None, iterator: str, body: Block) -> None:
        """The loop while both of two parts have elements left: a branch for each set of them that is at the least coordinate."""
        source, fibres = stream.source, self.fibres[stream.name]
        assert isinstance(source, po.Merge)
        first, second = (b.compare("lt", self._read(p), f.end) for p, f in zip(places, fibres))
        self.out.levels.append(Level([]))
        at = [self._let(f"{f.tensor}_at", self._read(p)) for f, p in zip(fibres, places)]
        found = [self._coordinate(stream, f, a, None) for f, a in zip(fibres, at)]
        here = [whole for whole, _ in found]

        def branch(*holds: int) -> lp.Stmt:
            self.out.levels.append(Level([], branch=True))
            if all(set(clause) & set(holds) for clause in source.clauses):
                least = here[holds[0]]
                self._ascends(stream, least)

                def meaning() -> None:
                    self._name(stream, found[holds[0]][1])
                    for n, fibre in enumerate(fibres):
                        self.out.virtual[f"{stream.name}.has{n}"] = b.TRUE if n in holds else b.FALSE
                        self.out.virtual[f"{stream.name}.at{n}"] = b.sub(at[n], fibre.begin)
                    self._position(stream, counter, iterator)

                self.out.emit(self._taken(body, meaning, counter))
            for n in holds:
                self.out.emit(lp.Store(places[n], (), b.add(at[n], b.ONE)))
            return b.block(*self.out.levels.pop().stmts)

        apart = lp.If(b.compare("lt", *here), branch(0), branch(1))
        self.out.emit(lp.If(b.compare("eq", *here), branch(0, 1), apart))
        inner = b.block(*self.out.levels.pop().stmts)
        self.out.emit(lp.While(b.both(first, second), inner))

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

    def _taken(self, body: Block, meaning: Callable[[], None], counter: str | None) -> lp.Stmt:
        found = body(meaning)
        if counter is None:
            return found
        return b.block(found, lp.Store(counter, (), b.add(self._read(counter), b.ONE)))

    def _position(self, stream: po.Stream, counter: str | None, iterator: str) -> None:
        if counter is None:  # nothing lies along the stream
            self.out.env[iterator] = b.ZERO
            return
        at = self._let(f"{stream.name}_t", self._read(counter))
        if stream.packed:  # the counter stands where the element goes
            self.out.env[iterator] = b.sub(at, self.out.begins[(stream.name, stream.level)])
            if isinstance(stream.source, po.Merge):  # its parts were found to be no longer than the bound
                return
        length = self.out.env[po.length_of(stream.name, stream.level)]
        here = self.out.env[iterator] if stream.packed else at
        self.out.emit(lp.Check(b.compare("lt", here, length), self.out.changed_site(stream.name), here))
        self.out.env[iterator] = here

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

    # --- workspaces -------------------------------------------------------------------------------------------------------

    def allocate(self, workspace: po.Array) -> None:
        """Memory for one row: the values, and the bitmaps, which are empty between rows. Sums are zero between rows as well."""
        length = workspace.extents[-1]
        assert not isinstance(length, po.Ragged)
        extent = self.out.size(length)
        if workspace.name in self.located:
            self.out.emit(lp.Alloc(workspace.name, workspace.dtype, (extent,), lp.Space.THREAD, zero=True))
            self.out.emit(lp.Alloc(row_of(workspace.name), self._numbers(workspace.name), (extent,), lp.Space.THREAD, zero=True))
            return
        self.out.emit(lp.Alloc(workspace.name, workspace.dtype, (extent,), lp.Space.THREAD, zero=workspace.name in self.sums))
        words = extent
        for depth in range(DEPTH):
            words = b.floordiv(b.add(words, b.const(63)), b.const(64))
            beyond = b.ZERO if depth else b.ONE  # the word at hand before there is one
            self.out.emit(lp.Alloc(bits_of(workspace.name, depth), dt.i64, (b.add(words, beyond),), lp.Space.THREAD, zero=True))
            if depth == 0:
                self.here[workspace.name] = (self.register(f"{workspace.name}_here", words), self.register(f"{workspace.name}_held", b.ZERO))

    def update(self, workspace: str, at: lp.LoopExpr, value: lp.LoopExpr, op: str | None, dtype: dt.DType) -> None:
        """The row's element `at` becomes `value`, combined by `op` with what it holds, if it holds something."""
        at = self._let("w", at)
        repeat = self.repeats.get(workspace)
        if repeat is not None and op is not None:
            self.out.levels.append(Level([], branch=True))
            self.mark(workspace, at)
            marked = b.block(*self.out.levels.pop().stmts)
            self.out.emit(lp.If(b.compare("lt", repeat.step, b.ZERO), marked))
            self.out.emit(lp.Store(workspace, (at,), b.apply(op, (b.load(workspace, (at,), dtype), value), dtype)))
            return
        held, mine = self._turn_to(workspace, at)
        if op is not None and workspace in self.sums:
            value = b.apply(op, (b.load(workspace, (at,), dtype), value), dtype)
        elif op is not None:
            present = b.compare("ne", b.apply("bitand", (self._read(held), mine), dt.i64), b.ZERO)
            value = b.where(present, b.apply(op, (b.load(workspace, (at,), dtype), value), dtype), value)
        self.out.emit(lp.Store(workspace, (at,), value))
        self.out.emit(lp.Store(held, (), b.apply("bitor", (self._read(held), mine), dt.i64)))

    def mark(self, workspace: str, at: lp.LoopExpr) -> None:
        """Note that the row holds element `at`, whose value nobody wants."""
        held, mine = self._turn_to(workspace, at)
        self.out.emit(lp.Store(held, (), b.apply("bitor", (self._read(held), mine), dt.i64)))

    def _turn_to(self, workspace: str, at: lp.LoopExpr) -> tuple[str, lp.LoopExpr]:
        """The register that holds the word of element `at`, and the element's bit."""
        here, held = self.here[workspace]
        word = self._let("word", b.floordiv(at, b.const(64)))
        self.out.levels.append(Level([], branch=True))
        self._put_back(workspace)
        found = self._let("bits", b.load(bits_of(workspace, 0), (word,), dt.i64))
        self.out.emit(lp.Store(held, (), found))
        self.out.emit(lp.Store(here, (), word))
        self._set_above(workspace, 1, word, found)
        then = b.block(*self.out.levels.pop().stmts)
        self.out.emit(lp.If(b.compare("ne", word, self._read(here)), then))
        return held, self._let("bit", b.apply("bit", (at,), dt.i64))

    def _put_back(self, workspace: str) -> None:
        """The word at hand goes back into the bitmap."""
        here, held = self.here[workspace]
        self.out.emit(lp.Store(bits_of(workspace, 0), (self._read(here),), self._read(held)))

    def _set_above(self, workspace: str, depth: int, child: lp.LoopExpr, old: lp.LoopExpr) -> None:
        """Set the bit of `child` in the bitmap above, unless the child held something before."""
        if depth == DEPTH:
            return
        self.out.levels.append(Level([], branch=True))
        word = self._let("word", b.floordiv(child, b.const(64)))
        name = bits_of(workspace, depth)
        above = self._let("bits", b.load(name, (word,), dt.i64))
        self.out.emit(lp.Store(name, (word,), b.apply("bitor", (above, b.apply("bit", (child,), dt.i64)), dt.i64)))
        self._set_above(workspace, depth + 1, word, above)
        then = b.block(*self.out.levels.pop().stmts)
        self.out.emit(lp.If(b.compare("eq", old, b.ZERO), then))

    # --- workspaces whose elements are looked for ---------------------------------------------------------------------------

    def _numbers(self, workspace: str) -> dt.DType:
        """The type of the numbers of rows: as wide as index arrays are, which have an element for each row."""
        (tensor, _) = self.located[workspace].source.parts[0]  # type: ignore[union-attr]
        return dt.i32 if self.out.storage.stored[tensor].index.bytes <= 4 else dt.i64

    def _number(self, workspace: str) -> lp.LoopExpr:
        """What says that the row at hand updated an element: no row has the number 0."""
        return b.convert(b.add(self.rows[self.located[workspace].name], b.ONE), self._numbers(workspace))

    def update_located(self, workspace: str, at: lp.LoopExpr, value: lp.LoopExpr, op: str | None, dtype: dt.DType) -> None:
        """The row's element `at` becomes `value` combined by `op` with what it was set to, and is there; without `op` it is set."""
        at = self._let("w", at)
        if op is None:
            self.out.emit(lp.Store(workspace, (at,), value))
            return
        if workspace not in self.out.unread:
            self.out.emit(lp.Store(workspace, (at,), b.apply(op, (b.load(workspace, (at,), dtype), value), dtype)))
        self.out.emit(lp.Store(row_of(workspace), (at,), self._number(workspace)))

    def locate(self, stream: po.Stream, counter: str | None, iterator: str, body: Block) -> None:
        """The loop over the coordinates of a fibre that a workspace row holds."""
        source, fibre, out = stream.source, self.fibres[stream.name][0], self.out
        assert isinstance(source, po.Located)
        (coordinates,) = fibre.coordinates
        out.used.add(coordinates)
        number = self._let("number", self._number(source.workspace))
        place = out.names.fresh(f"{fibre.tensor}_p")
        out.levels.append(Level([]))
        out.home[place] = len(out.levels) - 1
        here = self._let(f"{fibre.tensor}_crd", b.convert(b.load(coordinates, (b.var(place),), out.storage.dtype(coordinates)), dt.i64))
        out.emit(lp.Check(b.below(here, out.size(stream.extent)), out.range_site(fibre.tensor, fibre.level), here))
        held = b.load(row_of(source.workspace), (here,), self._numbers(source.workspace))

        def meaning() -> None:
            out.virtual[f"{stream.name}.next{stream.level}"] = here
            out.virtual[f"{stream.name}.at0"] = b.sub(b.var(place), fibre.begin)
            self._position(stream, counter, iterator)

        out.emit(lp.If(b.compare("eq", held, number), self._taken(body, meaning, counter)))
        inner = b.block(*out.levels.pop().stmts)
        out.emit(lp.For(place, fibre.begin, fibre.end, inner))

    # --- what a workspace row holds -----------------------------------------------------------------------------------------

    def drain(self, stream: po.Stream, counter: str | None, iterator: str, body: Block) -> None:
        """The loops over what a workspace row holds, which empty it."""
        source = stream.source
        assert isinstance(source, po.Drain)

        def found(at: lp.LoopExpr) -> None:
            def meaning() -> None:
                self.out.virtual[f"{stream.name}.next{stream.level}"] = at
                self._position(stream, counter, iterator)

            self.out.emit(self._taken(body, meaning, counter))
            if source.workspace in self.sums:
                self.out.emit(lp.Store(source.workspace, (at,), zero(self.out.storage.arrays[source.workspace].dtype)))

        repeat = self.repeats.pop(source.workspace, None)
        if repeat is not None:
            self._decide(repeat)
            again = self._again(stream, repeat, found)
            self.out.levels.append(Level([], branch=True))
        self._put_back(source.workspace)
        self._bitmap(source.workspace, self.out.size(stream.extent), found)
        if repeat is not None:
            marked = b.block(*self.out.levels.pop().stmts)
            self.out.emit(lp.If(b.compare("lt", repeat.step, b.ZERO), marked, again))

    def _decide(self, repeat: Repeat) -> None:
        """Loops that mark what they add up only in rows of their own become one with marks and one without."""
        fresh = b.compare("lt", repeat.step, b.ZERO)
        here = self.out.levels[-1].stmts
        for n, stmt in enumerate(here):
            if isinstance(stmt, lp.For) and any(isinstance(s, lp.If) and s.condition == fresh for s in all_stmts(stmt)):
                here[n] = lp.If(fresh, decided(stmt, fresh, True), decided(stmt, fresh, False))

    def _again(self, stream: po.Stream, repeat: Repeat, found: Callable[[lp.LoopExpr], None]) -> lp.Stmt:
        """`found` for the coordinates of the row before, moved on."""
        out, crd, place = self.out, f"{stream.name}.crd{stream.level}", self.out.names.fresh("p")
        out.levels.append(Level([], branch=True))
        out.levels.append(Level([]))
        out.home[place] = len(out.levels) - 1
        at = self._let("again", b.add(b.convert(b.load(crd, (b.var(place),), out.storage.dtype(crd)), dt.i64), repeat.step))
        out.emit(lp.Check(b.below(at, out.size(stream.extent)), out.range_site(*repeat.listed), at))
        found(at)
        inner = b.block(*out.levels.pop().stmts)
        out.emit(lp.For(place, repeat.begin, repeat.end, inner))
        return b.block(*out.levels.pop().stmts)

    def count(self, stream: po.Stream, register: str, factor: lp.LoopExpr) -> None:
        """register += factor * how many elements the row holds, which empties it."""
        source = stream.source
        assert isinstance(source, po.Drain)

        def found(word: lp.LoopExpr) -> None:
            name = bits_of(source.workspace, 0)
            held = b.apply("popcount", (b.load(name, (word,), dt.i64),), dt.i64)
            self.out.emit(lp.Store(register, (), b.add(self._read(register), b.mul(held, factor))))
            self.out.emit(lp.Store(name, (word,), b.ZERO))

        self._put_back(source.workspace)
        self._bitmap(source.workspace, self.out.size(stream.extent), found, down_to=1)

    def _bitmap(self, workspace: str, extent: lp.LoopExpr, found: Callable[[lp.LoopExpr], None], down_to: int = 0) -> None:
        """`found` for each child in the bitmaps above `down_to`, in order; the bitmaps are cleared."""
        words = extent
        for _ in range(DEPTH):
            words = b.floordiv(b.add(words, b.const(63)), b.const(64))
        root = self.out.names.fresh("root")
        self.out.levels.append(Level([]))
        self.out.home[root] = len(self.out.levels) - 1
        self._word(workspace, DEPTH - 1, b.var(root), found, down_to)
        inner = b.block(*self.out.levels.pop().stmts)
        self.out.emit(lp.For(root, b.ZERO, words, inner))

    def _word(self, workspace: str, depth: int, word: lp.LoopExpr, found: Callable[[lp.LoopExpr], None], down_to: int) -> None:
        name = bits_of(workspace, depth)
        left = self.register("left", b.load(name, (word,), dt.i64))
        self.out.levels.append(Level([]))
        bits = self._let("bits", self._read(left))
        lowest = b.apply("ctz", (bits,), dt.i64)
        child = self._let("child", b.add(b.mul(word, b.const(64)), lowest))
        self.out.emit(lp.Store(left, (), b.apply("bitand", (bits, b.add(bits, b.const(-1))), dt.i64)))
        if depth == down_to:
            found(child)
        else:
            self._word(workspace, depth - 1, child, found, down_to)
        inner = b.block(*self.out.levels.pop().stmts)
        self.out.emit(lp.If(b.compare("ne", self._read(left), b.ZERO), b.block(lp.While(b.compare("ne", self._read(left), b.ZERO), inner), lp.Store(name, (word,), b.ZERO))))
