"""Rows of workspaces: what a product adds up, and the loops over what a row holds.

A workspace row is a dense array of values beside a tree of bitmaps, 64 children a node: an update sets the bit of its element, and
those above it only where a node was empty. The word at hand stays in a register, as neighbours often follow each other: what was
stored a moment ago would have to be waited for.

    w = at / 64
    if w != here: bits[here] = held; held = bits[w]; here = w; if held == 0: set the bit of w above
    held = held | bit(at)

Its coordinates come out sorted, by counting trailing zeros:

    for each word of the root: while it has bits: take the lowest; ... down to an element: body; clear what was taken

A row of floats that may hold many of the elements that there are marks none: an element that was not updated is -0.0, which no sum
is to which 0.0 was added. Once it is summed up, words are made of its values:

    if elements at most * DENSE >= length: w[at] += value + 0.0 ... for each word: bits[word] = which of 64 values are not -0.0

Where a row is only asked for the coordinates of a fibre, it needs no order. What the fibre lists is set before the updates; everything
else gathers sums that nobody reads, which costs less than to ask of each product whether somebody wants it. Sums of floats tell what was updated;
others hold a number for each element, that of the last row that updated it.

    for p: w[M.crd[p]] = -0.0                     for p: w[M.crd[p]] = 0
    ... w[at] += value + 0.0 ...                  ... w[at] += value; row_of[at] = i + 1 ...
    for p: let c = M.crd[p]                       for p: let c = M.crd[p]
      if w[c] is not -0.0: body                     if row_of[c] == i + 1: body
"""

from __future__ import annotations

from collections.abc import Callable

from polyai.loop import build as b
from polyai.loop import nodes as lp
from polyai.loop.walks import all_stmts, decided
from polyai.lower.emitter import Emitter, Level
from polyai.poly import nodes as po
from polyai.scalar import dtype as dt
from polyai.tensor.bodies import zero
from polyai.term.node import node

DEPTH = 3
"""Levels of bitmaps over a workspace row: one word of the root stands for 64 ** DEPTH elements."""

DENSE = 8
"""A row that may hold one in so many elements marks none: to look at 64 of them costs what marking 8 does, or less."""

TELLING = (dt.f32, dt.f64)
"""Types of sums that have a number which is no sum: -0.0."""

Block = Callable[[Callable[[], None]], lp.Stmt]
"""Emits a nested block: what the argument emits, then the body of the loop."""


def bits_of(workspace: str, depth: int) -> str:
    """The name of a bitmap of a workspace; 0 has a bit for each element."""
    return f"{workspace}.bits{depth}"


def begun(workspace: str) -> str:
    """The name of the flag that says whether a thread's row of a workspace has its first values."""
    return f"{workspace}.begun"


def row_of(workspace: str) -> str:
    """The name of the array that says which row updated each element last, of a workspace whose elements are looked for."""
    return f"{workspace}.row"


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


class Workspaces:
    """Emits updates of workspace rows and the loops over them. `virtual` holds what the arrays of the stream at hand mean there."""

    def __init__(self, out: Emitter) -> None:
        self.out = out
        self.fibres: dict[str, list[Fibre]] = {}  # by merge: its parts' fibres at hand
        self.here: dict[str, tuple[str, str]] = {}  # by workspace: the registers of the number of the word at hand, and of the word
        self.repeats: dict[str, Repeat] = {}  # by workspace whose rows may repeat the one before
        self.telling: frozenset[str] = frozenset()  # the workspaces whose values tell what their rows hold
        self.dense: dict[str, lp.LoopExpr] = {}  # of these, whether the row at hand marks nothing
        self.marked: dict[str, lp.LoopExpr] = {}  # by workspace whose rows may mark nothing, whether the one at hand does
        self.rows: dict[str, lp.LoopExpr] = {}  # by packed stream: the row at hand
        self.located = {s.source.workspace: s for s in out.scop.streams if isinstance(s.source, po.Located)}
        updates: dict[str, set[str | None]] = {}
        for s in out.scop.statements:
            updates.setdefault(s.target, set()).add(s.monoid)
        spaces = {a.name for a in out.scop.arrays if a.role == "workspace"} - out.unread
        self.told = {n for n in self.located if updates.get(n, set()) - {None} == {"add"} and n in spaces and out.scop.array(n).dtype in TELLING}
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

    # --- workspaces -------------------------------------------------------------------------------------------------------

    def allocate(self, workspace: po.Array) -> None:
        """Memory for one row: the values, and the bitmaps, which are empty between rows. Sums are zero between rows as well."""
        length = workspace.extents[-1]
        assert not isinstance(length, po.Ragged)
        extent = self.out.size(length)
        if workspace.name in self.located:
            self.out.emit(lp.Alloc(workspace.name, workspace.dtype, (extent,), lp.Space.THREAD, zero=True))
            if workspace.name not in self.told:
                self.out.emit(lp.Alloc(row_of(workspace.name), self._numbers(workspace.name), (extent,), lp.Space.THREAD, zero=True))
            return
        if workspace.name in self.telling:
            self._begin(workspace.name, workspace.dtype, extent)
        else:
            self.out.emit(lp.Alloc(workspace.name, workspace.dtype, (extent,), lp.Space.THREAD, zero=workspace.name in self.sums))
        words = extent
        for depth in range(DEPTH):
            words = b.floordiv(b.add(words, b.const(63)), b.const(64))
            beyond = b.ZERO if depth else b.ONE  # the word at hand before there is one
            self.out.emit(lp.Alloc(bits_of(workspace.name, depth), dt.i64, (b.add(words, beyond),), lp.Space.THREAD, zero=True))
            if depth == 0:
                self.here[workspace.name] = (self.register(f"{workspace.name}_here", words), self.register(f"{workspace.name}_held", b.ZERO))

    def _begin(self, workspace: str, dtype: dt.DType, extent: lp.LoopExpr) -> None:
        """Memory for a row whose values tell what it holds: whole words, which a thread fills before its first row."""
        out, k, flag = self.out, b.var(self.out.names.fresh("k")), begun(workspace)
        whole = b.mul(b.floordiv(b.add(extent, b.const(63)), b.const(64)), b.const(64))
        out.emit(lp.Alloc(workspace, dtype, (whole,), lp.Space.THREAD, zero=True))  # so that it keeps its values between rows
        out.emit(lp.Alloc(flag, dt.bool_, (b.ONE,), lp.Space.THREAD, zero=True))
        fill = lp.For(k.name, b.ZERO, whole, lp.Store(workspace, (k,), self._empty(workspace)), lp.Kind.VECTOR)
        out.emit(lp.If(b.negation(b.load(flag, (b.ZERO,), dt.bool_)), b.block(fill, lp.Store(flag, (b.ZERO,), b.TRUE))))

    def _is_updated(self, workspace: str, at: lp.LoopExpr) -> lp.LoopExpr:
        """Whether element `at` of a row whose values tell is not -0.0."""
        dtype = self.out.storage.arrays[workspace].dtype
        bits = dt.BY_NAME[f"i{dtype.bits}"]
        here, empty = (b.apply("bits", (e,), bits) for e in (b.load(workspace, (at,), dtype), lp.Const(-0.0, dtype)))
        return b.apply("ne", (here, empty), dt.bool_)

    def _empty(self, workspace: str) -> lp.Const:
        """What an element of a sum is that was not updated."""
        dtype = self.out.storage.arrays[workspace].dtype
        return lp.Const(-0.0, dtype) if workspace in self.telling else zero(dtype)

    def begin_row(self, stream: po.Stream) -> None:
        """Decide whether the row at hand of a packed stream marks what it holds."""
        source, out = stream.source, self.out
        if not isinstance(source, po.Drain):
            return
        name, repeat = source.workspace, self.repeats.get(source.workspace)
        marks = b.TRUE if repeat is None else b.compare("lt", repeat.step, b.ZERO)
        if name in self.telling:
            row, pos = self.rows[stream.name], f"{stream.name}.pos{stream.level}"
            out.used.add(pos)
            begin, end = (b.convert(b.load(pos, (at,), out.storage.dtype(pos)), dt.i64) for at in (row, b.add(row, b.ONE)))
            self.dense[name] = self._let("dense", b.at_most(out.size(stream.extent), b.mul(b.sub(end, begin), b.const(DENSE))))
            marks = b.both(marks, b.negation(self.dense[name]))
        if marks != b.TRUE:
            self.marked[name] = self._let("marks", marks)

    def update(self, workspace: str, at: lp.LoopExpr, value: lp.LoopExpr, op: str | None, dtype: dt.DType) -> None:
        """The row's element `at` becomes `value`, combined by `op` with what it holds, if it holds something."""
        at = self._let("w", at)
        marked = self.marked.get(workspace)
        if marked is not None and op is not None:
            self.out.levels.append(Level([], branch=True))
            self.mark(workspace, at)
            self.out.emit(lp.If(marked, b.block(*self.out.levels.pop().stmts)))
            if workspace in self.telling:
                value = b.apply("add", (value, zero(dtype)), dtype)
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
            self.out.emit(lp.Store(workspace, (at,), lp.Const(-0.0, dtype) if workspace in self.told else value))
            return
        if workspace in self.told:
            value = b.apply("add", (value, zero(dtype)), dtype)
        if workspace not in self.out.unread:
            self.out.emit(lp.Store(workspace, (at,), b.apply(op, (b.load(workspace, (at,), dtype), value), dtype)))
        if workspace not in self.told:
            self.out.emit(lp.Store(row_of(workspace), (at,), self._number(workspace)))

    def locate(self, stream: po.Stream, counter: str | None, iterator: str, body: Block) -> None:
        """The loop over the coordinates of a fibre that a workspace row holds."""
        source, fibre, out = stream.source, self.fibres[stream.name][0], self.out
        assert isinstance(source, po.Located)
        (coordinates,) = fibre.coordinates
        out.used.add(coordinates)
        number = None if source.workspace in self.told else self._let("number", self._number(source.workspace))
        place = out.names.fresh(f"{fibre.tensor}_p")
        out.levels.append(Level([]))
        out.home[place] = len(out.levels) - 1
        here = self._let(f"{fibre.tensor}_crd", b.convert(b.load(coordinates, (b.var(place),), out.storage.dtype(coordinates)), dt.i64))
        out.emit(lp.Check(b.below(here, out.size(stream.extent)), out.range_site(fibre.tensor, fibre.level), here))
        if number is None:
            holds = self._is_updated(source.workspace, here)
        else:
            holds = b.compare("eq", b.load(row_of(source.workspace), (here,), self._numbers(source.workspace)), number)

        def meaning() -> None:
            out.virtual[f"{stream.name}.next{stream.level}"] = here
            out.virtual[f"{stream.name}.at0"] = b.sub(b.var(place), fibre.begin)
            self._position(stream, counter, iterator)

        out.emit(lp.If(holds, self._taken(body, meaning, counter)))
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
                self.out.emit(lp.Store(source.workspace, (at,), self._empty(source.workspace)))

        repeat, dense, marked = self.repeats.pop(source.workspace, None), self.dense.pop(source.workspace, None), self.marked.pop(source.workspace, None)
        if marked is not None:
            self._decide(marked)
        if repeat is not None:
            again = self._again(stream, repeat, found)
            self.out.levels.append(Level([], branch=True))
        self._put_back(source.workspace)
        if dense is not None:
            self._find(source.workspace, self.out.size(stream.extent), dense)
        self._bitmap(source.workspace, self.out.size(stream.extent), found)
        if repeat is not None:
            anew = b.block(*self.out.levels.pop().stmts)
            self.out.emit(lp.If(b.compare("lt", repeat.step, b.ZERO), anew, again))

    def _decide(self, marked: lp.LoopExpr) -> None:
        """Loops that mark what they add up only in some rows become one with marks and one without."""
        here = self.out.levels[-1].stmts
        for n, stmt in enumerate(here):
            if isinstance(stmt, lp.For) and any(isinstance(s, lp.If) and s.condition == marked for s in all_stmts(stmt)):
                here[n] = lp.If(marked, decided(stmt, marked, True), decided(stmt, marked, False))

    def _find(self, workspace: str, extent: lp.LoopExpr, dense: lp.LoopExpr) -> None:
        """If `dense`: words of the bitmaps say which values were updated."""
        out, word, k = self.out, b.var(self.out.names.fresh("word")), b.var(self.out.names.fresh("k"))
        found = self.register("found", b.ZERO)
        adds = b.where(self._is_updated(workspace, b.add(b.mul(word, b.const(64)), k)), b.apply("bit", (k,), dt.i64), b.ZERO)
        out.levels.append(Level([], branch=True))
        out.levels.append(Level([]))
        out.home[word.name] = len(out.levels) - 1
        out.emit(lp.Store(found, (), b.ZERO))
        out.emit(lp.For(k.name, b.ZERO, b.const(64), lp.Store(found, (), b.add(self._read(found), adds)), lp.Kind.VECTOR))
        out.levels.append(Level([], branch=True))
        out.emit(lp.Store(bits_of(workspace, 0), (word,), self._read(found)))
        self._set_above(workspace, 1, word, b.ZERO)
        some = b.block(*out.levels.pop().stmts)
        out.emit(lp.If(b.compare("ne", self._read(found), b.ZERO), some))
        body = b.block(*out.levels.pop().stmts)
        out.emit(lp.For(word.name, b.ZERO, b.floordiv(b.add(extent, b.const(63)), b.const(64)), body))
        out.emit(lp.If(dense, b.block(*out.levels.pop().stmts)))

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
