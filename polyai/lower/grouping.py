"""Elements put in the order of groups: counted, then stored, by as many threads as there are.

    count C[A.crd1[i, q]]; push i, A.val[i, q] to C[A.crd1[i, q]]
    ->
    for piece in 0..pieces parallel:                           pieces of rows that hold about the same number of elements
      for i in first(piece)..first(piece + 1): C.cursors[piece, A.crd1[..]] += 1
    for piece in 1..pieces, g in 0..n: C.cursors[piece, g] += C.cursors[piece - 1, g]                                 in lanes
    for g in 0..n: C.pos1[g], at = at, at + C.cursors[pieces - 1, g]
    for piece in pieces - 1..1, g in 0..n: C.cursors[piece, g] = C.pos1[g] + C.cursors[piece - 1, g]; C.cursors[0, g] = C.pos1[g]
    for piece in 0..pieces parallel:
      for i in first(piece)..first(piece + 1): store at the piece's own cursor, which moves on

Each piece stores in each group behind the pieces before it: the result is the same for any number of pieces, and no two
threads write one element. `first` is computed from a borrowed array: whatever it holds, the pieces cover all rows.

Where many groups lie far apart in memory, nearly every store misses the caches. Then `slots` of neighbouring groups are counted and
filled like groups, in buffers, and each slot is put in order on its own, in cache (a radix sort, most significant digits first).

What may hold a coordinate twice is looked through at the end: equal neighbours are then added up in place. Rows that are stored
one after another hold none twice if their coordinates fall only where a row begins: both kinds of falls are counted on the way.
"""

from __future__ import annotations

from collections.abc import Callable

from polyai.loop import build as b
from polyai.loop import nodes as lp
from polyai.lower.adding import add_up
from polyai.lower.emitter import Emitter, Level
from polyai.lower.scratch import MUCH, Scratch
from polyai.poly import nodes as po
from polyai.scalar import dtype as dt
from polyai.scalar.expr import Cast, Load
from polyai.shapes.expr import symbol
from polyai.tensor import nodes as tn

LEAST = 1 << 14
"""Elements that a piece holds at least."""
ROW_COST = 2
"""What a row costs beside its elements, in elements."""
APART = 32
"""Cursors of different pieces lie in blocks of so many: two threads that counted in one line of the caches would wait for each other at every element."""
SLOTS = 256
"""Most slots: each is a place that is written to, which all stay in the first-level cache."""
MANY_GROUPS = 1 << 11
MANY_BYTES = 1 << 23
"""Below these, stores to all groups find their lines in the caches."""
WINDOWS, WIDE = 16, 64
FAR = WINDOWS * WIDE // 2
"""Slots are used if elements in a few windows of so many go to more different slots than this: each store would miss the caches."""


class Groupings:
    """Emits what stands around the loops of counting and storing statements, and what these do. `piece` is the grouping at hand."""

    def __init__(self, out: Emitter) -> None:
        self.out, self.scratch = out, Scratch(out)
        self.firsts: dict[str, str] = {}
        self.pieces: dict[str, lp.LoopExpr] = {}
        self.own: dict[str, lp.LoopExpr] = {}  # by grouping: where the cursors of the piece at hand begin
        self.piece: po.Grouping | None = None
        self.number: lp.LoopExpr = b.ZERO
        self.is_split = False  # whether a loop around is cut for the piece at hand
        self.in_slots = False  # whether elements go to slots at this place
        self.shift: lp.LoopExpr = b.ZERO
        self.slots: lp.LoopExpr = b.ZERO
        self.stride: lp.LoopExpr = b.ZERO  # from the cursors of a piece to those of the next
        self.uses_slots: lp.LoopExpr = b.FALSE
        self.buffers: dict[str, str] = {}  # by array of the result
        self.falls = ""  # for each piece: how often coordinates do not rise, less how often they do not where a row begins
        self.begun = ""  # the register of the latter for the piece at hand

    # --- around the loops -------------------------------------------------------------------------------------------------

    def begin(self, g: po.Grouping) -> None:
        """How many pieces and slots, and memory for their cursors."""
        out = self.out
        groups, stored = out.size(g.groups), self._room(g)
        self._choose_slots(g, groups, stored)
        share = b.largest(b.const(LEAST), self.slots)
        wanted = b.smallest(out.symbol(tn.THREADS), b.floordiv(stored, share))
        pieces = self.pieces[g.name] = self.scratch.let("pieces", b.largest(b.ONE, wanted))
        index = out.storage.dtype(g.cursors)
        self.stride = self.scratch.let("stride", b.mul(b.floordiv(b.add(self.slots, b.const(APART - 1)), b.const(APART)), b.const(APART)))
        self.scratch.memory(g.cursors, index, b.mul(pieces, self.stride))
        self.buffers = {}
        if self.uses_slots == b.FALSE:
            return
        buffered = b.where(self.uses_slots, stored, b.ZERO)
        for array in (f"{g.name}.crd1", f"{g.name}.val"):
            self.buffers[array] = self.scratch.memory(out.names.fresh(f"{array}.buffer"), out.storage.dtype(array), buffered)
        self.group_buffer = self.scratch.memory(out.names.fresh(f"{g.name}.groups"), index, buffered)
        self.starts = self.scratch.memory(out.names.fresh(f"{g.name}.starts"), index, b.add(self.slots, b.ONE))
        self.ends = self.scratch.memory(out.names.fresh(f"{g.name}.ends"), index, b.where(self.uses_slots, groups, b.ZERO))

    def _room(self, g: po.Grouping) -> lp.LoopExpr:
        """How many elements the result has room for: what the source stores, at least."""
        room = self.out.storage.arrays[f"{g.name}.crd1"].extents[0]
        assert not isinstance(room, po.Ragged)
        return self.out.size(room)

    def _choose_slots(self, g: po.Grouping, groups: lp.LoopExpr, stored: lp.LoopExpr) -> None:
        """Slots, if elements that follow each other go to many distant groups."""
        out = self.out
        self.shift, self.slots, self.uses_slots, self.in_slots = b.ZERO, groups, b.FALSE, False
        listed = self._listed(g)
        if listed is None:
            return
        out.used.add(listed)
        index = out.storage.dtype(listed)
        width = out.storage.dtype(f"{g.name}.crd1").bytes + out.storage.dtype(f"{g.name}.val").bytes
        shift, far = self.scratch.register("shift", b.ZERO), self.scratch.register("far", b.ZERO)
        now, found = b.load(shift, (), dt.i64), b.load(far, (), dt.i64)
        narrower = lp.Store(shift, (), b.add(now, b.ONE))
        spread = lp.While(b.compare("lt", b.const(SLOTS), b.apply("shr", (groups, now), dt.i64)), narrower)
        seen = self.scratch.memory(out.names.fresh(f"{g.name}.seen"), dt.i64, b.const(SLOTS + 1))
        clear, w, k, slot = (out.names.fresh(n) for n in ("s", "window", "k", "slot"))
        stride = b.floordiv(b.add(stored, b.const(-WIDE)), b.const(WINDOWS))
        at = b.add(b.mul(b.var(w), stride), b.var(k))
        group = b.smallest(b.largest(b.convert(b.load(listed, (at,), index), dt.i64), b.ZERO), b.add(groups, b.const(-1)))  # not checked yet
        after = b.add(b.var(w), b.ONE)
        look = lp.For(w, b.ZERO, b.const(WINDOWS), lp.For(k, b.ZERO, b.const(WIDE), b.block(
            lp.Let(slot, b.apply("shr", (group, now), dt.i64)),
            lp.Store(far, (), b.add(found, b.convert(b.compare("ne", b.load(seen, (b.var(slot),), dt.i64), after), dt.i64))),
            lp.Store(seen, (b.var(slot),), after),
        )))  # fmt: skip
        zero = lp.For(clear, b.ZERO, b.const(SLOTS + 1), lp.Store(seen, (b.var(clear),), b.ZERO), lp.Kind.VECTOR)
        large = b.both(b.compare("lt", b.const(max(WIDE, MANY_BYTES // width)), stored), b.compare("le", b.const(MANY_GROUPS), groups))
        out.emit(lp.If(large, b.block(spread, zero, look)))
        self.uses_slots = self.scratch.let("slotted", b.compare("lt", b.const(FAR), found))
        self.shift = self.scratch.let("shift_by", b.where(self.uses_slots, now, b.ZERO))
        filled = b.add(b.apply("shr", (b.add(groups, b.const(-1)), self.shift), dt.i64), b.ONE)
        self.slots = self.scratch.let("slots", b.where(self.uses_slots, filled, groups))

    def _listed(self, g: po.Grouping) -> str | None:
        """The array that lists the group of every element, if there is one."""
        (group,) = self.out.scop.statement(g.count).at
        while isinstance(group, Cast):
            group = group.arg
        if not isinstance(group, Load) or group.array not in self.out.storage.levels:
            return None
        owner, spec = self.out.storage.levels[group.array]
        if self.out.storage.computed(group.array) is not None or spec.role != "crd" or spec.length != symbol(tn.nnz_of(g.source)) or owner.name != g.source:
            return None
        return group.array

    def count(self, g: po.Grouping, body: Callable[[], None]) -> None:
        """The loops that count, which `body` emits for one piece, and what follows from the counts."""
        rows = self._rows(g)
        self.falls = "" if rows is None or g.monoid is None else self.scratch.memory(self.out.names.fresh(f"{g.name}.falls"), dt.i64, self.pieces[g.name])
        self._chosen(lambda: self.in_pieces(g, True, body if rows is None else lambda: self._counted(g, *rows)))
        self.positions(g)

    def _rows(self, g: po.Grouping) -> tuple[str, str] | None:
        """The arrays of rows' begins and of groups, if all that is stored lies in rows: then it is counted without a look at rows."""
        out, listed = self.out, self._listed(g)
        owner = out.storage.stored.get(g.source)
        form = None if owner is None else owner.type.format
        if listed is None or owner is None or form is None or len(form.levels) != 2 or not form.levels[0].full or form.levels[1].name != "compressed":
            return None
        pos = f"{g.source}.pos1"
        self.firsts[g.name] = self._firsts(g, b.ZERO, out.size(owner.parents(1)), pos)
        return pos, listed

    def _counted(self, g: po.Grouping, pos: str, listed: str) -> None:
        """Count the elements of all rows of the piece at hand."""
        out, dtype = self.out, self.out.storage.dtype(listed)
        places = [b.load(self.firsts[g.name], (n,), dt.i64) for n in (self.number, b.add(self.number, b.ONE))]
        begin, end = (self.scratch.let(n, b.convert(b.load(pos, (at,), dtype), dt.i64)) for n, at in zip(("begin", "end"), places))
        inside = b.both(b.at_most(begin, end), b.at_most(end, out.size(out.storage.stored[g.source].counts[1])))
        out.emit(lp.Check(inside, out.fibre_site(g.source, 1), end))
        if self.falls:
            falls, n = out.names.fresh("falls"), out.names.fresh("k")
            now, here = b.load(falls, (), dtype), b.var(n)
            out.emit(b.block(lp.Alloc(falls, dtype, (), lp.Space.REGISTER), lp.Store(falls, (), lp.Const(0, dtype))))
            pair = b.load(listed, (here,), dtype), b.load(listed, (b.add(here, b.const(-1)),), dtype)
            fell = b.convert(b.apply("le", pair, dt.bool_), dtype)
            out.emit(lp.For(n, b.largest(b.ONE, begin), end, lp.Store(falls, (), b.apply("add", (now, fell), dtype)), lp.Kind.VECTOR))
            out.emit(lp.Store(self.falls, (self.number,), b.convert(now, dt.i64)))
        k = out.names.fresh("k")
        out.levels.append(Level([]))
        out.home[k] = len(out.levels) - 1
        group = self.scratch.let("group", b.convert(b.load(listed, (b.var(k),), dtype), dt.i64))
        ok = b.below(group, out.size(g.groups))
        out.emit(lp.Check(ok, out.site(out.index_site(out.scop.statement(g.count).at[0], g.cursors, 0)), group))
        self.instance(g, group, [])
        inner = b.block(*out.levels.pop().stmts)
        out.emit(lp.For(k, begin, end, inner))

    def row(self, tensor: str, begin: lp.LoopExpr, end: lp.LoopExpr) -> None:
        """Note, at the begin of a row of the source, whether its first coordinate is above the last one of the row before."""
        if self.piece is None or not self.begun or tensor != self.piece.source:
            return
        listed, dtype = f"{tensor}.crd1", self.out.storage.dtype(f"{tensor}.crd1")
        pair = (b.load(listed, (begin,), dtype), b.load(listed, (b.add(begin, b.const(-1)),), dtype))
        fell = b.convert(b.apply("le", pair, dt.bool_), dt.i64)
        some = b.both(b.compare("lt", b.ZERO, begin), b.compare("lt", begin, end))
        self.out.emit(lp.If(some, lp.Store(self.begun, (), b.add(b.load(self.begun, (), dt.i64), fell))))

    def _chosen(self, emit: Callable[[], None]) -> None:
        """What `emit` emits, for slots and for groups, if slots may be used."""
        if self.uses_slots == b.FALSE:
            return emit()
        choices = []
        for self.in_slots in (True, False):
            self.out.levels.append(Level([], branch=True))
            emit()
            choices.append(b.block(*self.out.levels.pop().stmts))
        self.out.emit(lp.If(self.uses_slots, choices[0], choices[1]))

    def in_pieces(self, g: po.Grouping, zeros: bool, body: Callable[[], None]) -> None:
        """A loop over the pieces around what `body` emits."""
        out = self.out
        piece = out.names.fresh("piece")
        out.levels.append(Level([]))
        out.home[piece] = len(out.levels) - 1
        self.own[g.name] = self.scratch.let("own", b.mul(b.var(piece), self.stride))
        if zeros:
            r = out.names.fresh("r")
            zero = lp.Store(g.cursors, (b.add(self.own[g.name], b.var(r)),), lp.Const(0, out.storage.dtype(g.cursors)))
            out.emit(lp.For(r, b.ZERO, self.slots, zero, lp.Kind.VECTOR))
        self.piece, self.number, self.is_split = g, b.var(piece), False
        self.begun = "" if zeros or not self.falls else self.scratch.register("begun", b.ZERO)
        body()
        if self.begun:
            left = b.sub(b.load(self.falls, (self.number,), dt.i64), b.load(self.begun, (), dt.i64))
            out.emit(lp.Store(self.falls, (self.number,), left))
        self.piece, self.begun = None, ""
        inner = b.block(*out.levels.pop().stmts)
        out.emit(lp.For(piece, b.ZERO, self.pieces[g.name], inner, lp.Kind.PARALLEL, cost=MUCH))

    def positions(self, g: po.Grouping) -> None:
        """Where each slot begins, and each piece in it. Loops in lanes sum up the pieces; one loop goes over the slots."""
        out, index, pieces = self.out, self.out.storage.dtype(g.cursors), self.pieces[g.name]
        r, p, held = (out.names.fresh(n) for n in ("slot", "piece", "held"))
        running = self.scratch.register("running", b.ZERO)
        now = b.load(running, (), dt.i64)
        rest = b.add(pieces, b.const(-1))

        def counted(piece: lp.LoopExpr) -> tuple[lp.LoopExpr, ...]:
            return (b.add(b.mul(piece, self.stride), b.var(r)),)

        def swept(piece: lp.LoopExpr, body: Callable[[lp.LoopExpr], lp.Stmt]) -> lp.Stmt:
            return lp.For(p, b.ZERO, rest, lp.For(r, b.ZERO, self.slots, body(piece), lp.Kind.VECTOR))

        def plus(to: lp.LoopExpr, a: lp.LoopExpr, c: lp.LoopExpr) -> lp.Stmt:
            return lp.Store(g.cursors, counted(to), b.apply("add", (a, c), index))

        def number(array: str, at: tuple[lp.LoopExpr, ...]) -> lp.LoopExpr:
            return b.load(array, at, index)

        def scanned(begins: str) -> lp.Stmt:  # in lanes as far as it goes
            known = lp.Let(held, b.convert(number(g.cursors, counted(rest)), dt.i64))
            step = b.block(known, lp.Store(begins, (b.var(r),), b.convert(now, index)), lp.Store(running, (), b.add(now, b.var(held))))
            after, before = b.add(b.var(p), b.ONE), b.sub(b.sub(rest, b.var(p)), b.ONE)
            return b.block(
                swept(b.var(p), lambda at: plus(after, number(g.cursors, counted(at)), number(g.cursors, counted(after)))),
                lp.For(r, b.ZERO, self.slots, step),
                lp.Store(begins, (self.slots,), b.convert(now, index)),
                swept(before, lambda at: plus(b.add(at, b.ONE), number(g.cursors, counted(at)), number(begins, (b.var(r),)))),
                lp.For(r, b.ZERO, self.slots, lp.Store(g.cursors, (b.var(r),), number(begins, (b.var(r),))), lp.Kind.VECTOR),
            )

        def each() -> lp.Stmt:  # slots are few
            at = counted(b.var(p))
            taken = b.block(lp.Let(held, b.convert(number(g.cursors, at), dt.i64)), lp.Store(g.cursors, at, b.convert(now, index)))
            moves = lp.For(p, b.ZERO, pieces, b.block(taken, lp.Store(running, (), b.add(now, b.var(held)))))
            begin = lp.Store(self.starts, (b.var(r),), b.convert(now, index))
            return b.block(lp.For(r, b.ZERO, self.slots, b.block(begin, moves)), lp.Store(self.starts, (self.slots,), b.convert(now, index)))

        direct = scanned(f"{g.name}.pos1")
        out.emit(direct if self.uses_slots == b.FALSE else lp.If(self.uses_slots, each(), direct))
        out.emit(lp.Check(b.at_most(now, self._room(g)), out.changed_site(g.name), now))  # positions changed while they were counted

    def store(self, g: po.Grouping, body: Callable[[], None]) -> None:
        """The loops that store, which `body` emits for one piece: to the groups, or to slots that are put in order then."""

        def stored() -> None:
            self.in_pieces(g, False, body)
            if self.in_slots:
                self._drain(g)

        self._chosen(stored)
        if g.monoid is None:
            return
        if not self.falls:
            return add_up(self.out, self.scratch, g, g.monoid, self.pieces[g.name])
        left, p = self.scratch.register("left", b.ZERO), self.out.names.fresh("p")
        some = b.apply("bitor", (b.load(left, (), dt.i64), b.load(self.falls, (b.var(p),), dt.i64)), dt.i64)
        self.out.emit(lp.For(p, b.ZERO, self.pieces[g.name], lp.Store(left, (), some)))
        self.out.levels.append(Level([], branch=True))
        add_up(self.out, self.scratch, g, g.monoid, self.pieces[g.name])
        repeats = b.block(*self.out.levels.pop().stmts)
        self.out.emit(lp.If(b.compare("ne", b.load(left, (), dt.i64), b.ZERO), repeats))

    def _drain(self, g: po.Grouping) -> None:
        """Put the elements of each slot in the order of groups."""
        out, index = self.out, self.out.storage.dtype(g.cursors)
        groups, slot = out.size(g.groups), out.names.fresh("slot")
        out.levels.append(Level([]))
        out.home[slot] = len(out.levels) - 1
        span = self.scratch.let("span", b.apply("bit", (self.shift,), dt.i64))
        low = self.scratch.let("low", b.mul(b.var(slot), span))
        high = self.scratch.let("high", b.smallest(groups, b.add(low, span)))
        begin, end = (self.scratch.let(n, b.convert(b.load(self.starts, (at,), index), dt.i64)) for n, at in (("begin", b.var(slot)), ("end", b.add(b.var(slot), b.ONE))))
        out.emit(lp.Check(b.both(b.at_most(begin, end), b.at_most(end, self._room(g))), out.changed_site(g.name), end))
        r, k, m, held, at = (out.names.fresh(n) for n in ("r", "k", "k", "held", "to"))
        group = b.convert(b.load(self.group_buffer, (b.var(k),), index), dt.i64)
        out.emit(lp.For(r, low, high, lp.Store(self.ends, (b.var(r),), lp.Const(0, index)), lp.Kind.VECTOR))
        here = out.names.fresh("here")
        more = b.convert(b.add(b.convert(b.load(self.ends, (b.var(here),), index), dt.i64), b.ONE), index)
        inside = b.below(b.sub(b.var(here), low), b.sub(high, low))  # whatever a buffer holds that was not filled
        check = lp.Check(inside, out.changed_site(g.name), b.var(here))
        out.emit(lp.For(k, begin, end, b.block(lp.Let(here, group), check, lp.Store(self.ends, (b.var(here),), more))))
        running = self.scratch.register("running", begin)
        now = b.load(running, (), dt.i64)
        out.emit(lp.For(r, low, high, b.block(
            lp.Store(f"{g.name}.pos1", (b.var(r),), b.convert(now, index)),
            lp.Let(held, b.convert(b.load(self.ends, (b.var(r),), index), dt.i64)),
            lp.Store(self.ends, (b.var(r),), b.convert(now, index)),
            lp.Store(running, (), b.add(now, b.var(held))),
        )))  # fmt: skip
        there = out.names.fresh("here")
        moves = [
            lp.Store(array, (b.var(at),), b.load(buffer, (b.var(m),), out.storage.dtype(array))) for array, buffer in self.buffers.items()
        ]
        out.emit(lp.For(m, begin, end, b.block(
            lp.Let(there, b.convert(b.load(self.group_buffer, (b.var(m),), index), dt.i64)),
            lp.Let(at, b.convert(b.load(self.ends, (b.var(there),), index), dt.i64)),
            *moves,
            lp.Store(self.ends, (b.var(there),), b.convert(b.add(b.var(at), b.ONE), index)),
        )))  # fmt: skip
        inner = b.block(*out.levels.pop().stmts)
        out.emit(lp.For(slot, b.ZERO, self.slots, inner, lp.Kind.PARALLEL, cost=MUCH // SLOTS))
        out.emit(lp.Store(f"{g.name}.pos1", (groups,), b.load(self.starts, (self.slots,), index)))

    # --- pieces of the walk -----------------------------------------------------------------------------------------------

    def bounds(self, lower: lp.LoopExpr, upper: lp.LoopExpr, weight: str | None) -> tuple[lp.LoopExpr, lp.LoopExpr]:
        """The part of a loop that the piece at hand runs, by the differences of the array `weight`."""
        g = self.piece
        assert g is not None
        after = b.add(self.number, b.ONE)
        if weight is None or self.out.level_of(lower) or self.out.level_of(upper):
            lower, trips = self.scratch.let("lower", lower), self.scratch.let("trips", b.sub(upper, lower))
            first, last = (b.add(lower, b.floordiv(b.mul(trips, n), self.pieces[g.name])) for n in (self.number, after))
            return self.scratch.let("first", first), self.scratch.let("last", last)
        if g.name not in self.firsts:
            levels, self.out.levels = self.out.levels, self.out.levels[:1]
            self.firsts[g.name] = self._firsts(g, lower, upper, weight)
            self.out.levels = levels
        return self.scratch.let("first", b.load(self.firsts[g.name], (self.number,), dt.i64)), self.scratch.let("last", b.load(self.firsts[g.name], (after,), dt.i64))

    def _firsts(self, g: po.Grouping, lower: lp.LoopExpr, upper: lp.LoopExpr, weight: str) -> str:
        """An array of the iterations where pieces begin: each the first before which its share of the work lies."""
        out, pieces = self.out, self.pieces[g.name]
        out.used.add(weight)
        name = self.scratch.memory(out.names.fresh(f"{g.name}.firsts"), dt.i64, b.add(pieces, b.ONE))

        def work(at: lp.LoopExpr) -> lp.LoopExpr:
            stored = b.convert(b.load(weight, (at,), out.storage.dtype(weight)), dt.i64)
            return b.add(stored, b.mul(at, b.const(ROW_COST)))

        start, p, middle = self.scratch.let("start", work(lower)), out.names.fresh("p"), out.names.fresh("middle")
        whole = self.scratch.let("work", b.sub(work(upper), start))
        out.levels.append(Level([]))
        out.home[p] = len(out.levels) - 1
        target = self.scratch.let("target", b.add(start, b.floordiv(b.mul(whole, b.var(p)), pieces)))
        low, high = self.scratch.register("low", lower), self.scratch.register("high", upper)
        left, right = b.load(low, (), dt.i64), b.load(high, (), dt.i64)
        less = lp.If(
            b.compare("lt", work(b.var(middle)), target),
            lp.Store(low, (), b.add(b.var(middle), b.ONE)),
            lp.Store(high, (), b.var(middle)),
        )
        halve = lp.Let(middle, b.floordiv(b.add(left, right), b.const(2)))
        out.emit(lp.While(b.compare("lt", left, right), b.block(halve, less)))
        out.emit(lp.Store(name, (b.var(p),), left))
        inner = b.block(*out.levels.pop().stmts)
        out.emit(lp.For(p, b.ZERO, pieces, inner))
        out.emit(lp.Store(name, (b.ZERO,), lower))  # whatever the array holds, the pieces cover all
        out.emit(lp.Store(name, (pieces,), upper))
        return name

    # --- in the loops -----------------------------------------------------------------------------------------------------

    def instance(self, g: po.Grouping, group: lp.LoopExpr, values: list[tuple[str, lp.LoopExpr]]) -> None:
        """Count an element of `group`, or store `values` where the cursor of its group or slot stands."""
        out, index = self.out, self.out.storage.dtype(g.cursors)
        slot = b.apply("shr", (group, self.shift), dt.i64) if self.in_slots else group
        at = self.scratch.let("at", b.add(self.own[g.name], slot))
        place = self.scratch.let("place", b.convert(b.load(g.cursors, (at,), index), dt.i64))
        if values:
            out.emit(lp.Check(b.below(place, self._room(g)), out.changed_site(g.name), place))
            if self.in_slots:
                out.emit(lp.Store(self.group_buffer, (place,), b.convert(group, index)))
            for array, value in values:
                out.emit(lp.Store(self.buffers[array] if self.in_slots else array, (place,), value))
        out.emit(lp.Store(g.cursors, (at,), b.convert(b.add(place, b.ONE), index)))
