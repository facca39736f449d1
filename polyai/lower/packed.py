"""Rows of a sparse result that are stored one after another, within bounds, in parts.

    for chunk parallel:                             a part of the rows
      alloc J.crd1_part[part], C_part[part]         of the thread's own
      cursor = 0
      for i in cuts[chunk]..cuts[chunk + 1]: ...    stores at the cursor; J.end1[i] = where it stands afterwards
      turn begin = turns[chunk]; counts[chunk] = cursor
      if begin >= 0: J.crd1[begin + k] = J.crd1_part[k]; ...; J.end1[i] += begin
      else: J.crd1_late[J.pos1[i] + k] = J.crd1_part[k]; ...
    for chunk parallel: what is late follows

What a part stores is in the cache when it is taken to its place, so that memory is written once. A thread does not wait long for
the parts before its own: another program may have taken that thread's processor.

Matrices that are added often have the same pattern. A part whose rows are alike in all operands of a merge is one fibre: its values
run in lanes, and no coordinate is compared with another one but once.

    alike = the rows have the same lengths, and the same coordinates, which ascend in each row and are in range
    if alike: for k vector: C_part[k] = A.val[A_begin + k] + B.val[B_begin + k]
    else: the rows one after another; what is wrong with them is found there
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

from polyai.errors import VerifyError
from polyai.loop import build as b
from polyai.loop import nodes as lp
from polyai.loop.walks import all_exprs, all_stmts, expressions, with_names
from polyai.lower.ast_walk import Ast, Loop, Marked, instances, is_straight
from polyai.lower.bounds import Fibres
from polyai.lower.emitter import Emitter, Level
from polyai.lower.sizes import as_size
from polyai.lower.stream import Streams
from polyai.poly import nodes as po
from polyai.scalar import dtype as dt
from polyai.shapes.expr import Size
from polyai.shapes.facts import Facts, Truth
from polyai.tensor import nodes as tn
from polyai.term.node import node

_PART = 1 << 20
"""Scalar operations of one part: the caller makes parts that are worth a task each."""
LARGE = 16 << 20
"""Bytes of room for a result from which on its parts are stored past the caches."""
_LATE = 16
"""Scalar operations of a part that has already been taken to its place."""
_VECTORS = 2
"""Vectors at once of loops over what lies in the cache: more only take longer to compile."""
_NO_ROW = "no_row"
"""The row of an element where elements of several rows run together."""


class Packed:
    """Emits the loops over the parts of a packed stream. `cursors` holds by stream the register that says where the next row begins,
    `placed` the streams whose rows have their place: loops after the first one store there."""

    def __init__(self, out: Emitter, streams: Streams, fibres: Fibres) -> None:
        self.out, self.streams, self.fibres = out, streams, fibres
        self.statements = {s.name: s for s in out.scop.statements}
        self.cursors: dict[str, str] = {}
        self.placed: set[str] = set()

    def rows_of(self, loop: Loop) -> po.Stream | None:
        """The stream whose rows `loop` runs over, if these are stored one after another."""
        for found in instances(loop.body):
            statement = self.statements[found.statement]
            for dim in statement.ragged:
                stream = self.out.scop.stream(dim.tensor) if dim.stream else None
                if stream is not None and stream.packed:
                    row = found.args[statement.dims.index(dim.parents[0])]
                    if row == lp.Var(loop.iterator, dt.i64):
                        return stream
        return None

    def begin(self, stream: po.Stream, loop: Loop, name: str, upper: lp.LoopExpr) -> tuple[lp.Var, lp.LoopExpr, lp.LoopExpr]:
        """Begin a part: its number, the rows it has."""
        if loop.lower != b.ZERO or loop.step != 1 or not self._are_all(upper, stream.rows):
            raise VerifyError(f"the rows of {stream.name} are not filled by one loop over all of them")
        chunk = b.var(self.out.names.fresh("chunk"))
        self.out.levels.append(Level([]))
        self.out.home[chunk.name] = len(self.out.levels) - 1
        first, last = (self.out.let(f"{name}_{end}", b.load(stream.cuts, (at,), dt.i64)) for end, at in (("from", chunk), ("to", b.add(chunk, b.ONE))))
        start: lp.LoopExpr = b.ZERO
        if stream.name in self.placed:
            before = b.load(stream.ends, (b.largest(b.sub(first, b.ONE), b.ZERO),), self._index(stream))
            start = b.where(b.compare("lt", b.ZERO, first), b.convert(before, dt.i64), b.ZERO)
        self.cursors[stream.name] = self.streams.register(f"{stream.name}_cursor", start)
        return chunk, first, last

    def _are_all(self, upper: lp.LoopExpr, rows: Size) -> bool:
        """Whether a loop up to `upper` runs over all rows: isl may write a size as another one that the facts make equal."""
        if upper == self.out.size(rows):
            return True
        found = as_size(upper)
        if found is None:
            return False
        zero = (f.size for f in self.out.program.facts if f.relation == "zero")
        nonnegative = (f.size for f in self.out.program.facts if f.relation == "nonnegative")
        return Facts((), tuple(nonnegative), tuple(zero)).prove(rows, "==", found) is Truth.YES

    def end_row(self, stream: po.Stream, end: lp.LoopExpr) -> None:
        """A row is stored: the next one begins where it ends."""
        row, _ = self.fibres.packed[stream.name]
        stop = self.out.let(f"{stream.name}_stop", end)
        self.out.emit(lp.Store(self.cursors[stream.name], (), stop))
        self.out.emit(lp.Store(stream.ends, (row,), b.convert(stop, self._index(stream))))

    def end(self, stream: po.Stream, chunk: lp.Var, rows: lp.For, loop: Loop, emit: Callable[[Loop], None]) -> None:
        """End the loop over parts: each takes what it stored to where the part before it ends. `loop` became `rows`; `emit` emits
        what an element does."""
        out, index = self.out, self._index(stream)
        chunks = out.symbol(stream.chunks)
        if stream.name in self.placed:
            out.emit(rows)
            out.emit(lp.For(chunk.name, b.ZERO, chunks, b.block(*out.levels.pop().stmts), lp.Kind.PARALLEL, cost=_PART))
            return
        self.placed.add(stream.name)
        alike = self._together(stream, loop, rows, emit)
        part, crd = out.symbol(stream.part), f"{stream.name}.crd{stream.level}"
        written = {s.array for s in all_stmts(rows) if isinstance(s, lp.Store)}
        along = [a.name for a in out.scop.arrays if a.name in written and a.role == "output" and out.storage.extents(a.name) == out.storage.extents(crd)]
        own = {name: out.names.fresh(f"{name}_part") for name in along}
        late = {name: out.names.fresh(f"{name}_late") for name in along}
        turns, counts, spilled, begin, k, row = (out.names.fresh(f"{stream.name}_{n}") for n in ("turns", "counts", "spilled", "begin", "k", "row"))
        stored, started, at = b.var(out.names.fresh(f"{stream.name}_stored")), b.load(begin, (), dt.i64), b.var(k)
        bound = b.var(out.names.fresh(f"{stream.name}_bound"))

        def move(source: Mapping[str, str], first: lp.LoopExpr, target: Mapping[str, str], to: lp.LoopExpr, kind: lp.Kind) -> lp.Stmt:
            moves = [lp.Store(target.get(n, n), (b.add(to, at),), b.load(source[n], (b.add(first, at),), out.storage.dtype(n))) for n in along]
            return lp.For(k, b.ZERO, stored, b.block(*moves), kind)

        def taken() -> lp.Stmt:
            """The part goes to its place."""
            room = b.mul(out.symbol(tn.nnz_of(stream.name)), b.const(sum(out.storage.dtype(name).bytes for name in along)))
            cached, past = (move(own, b.ZERO, {}, started, kind) for kind in (lp.Kind.COPY, lp.Kind.STREAM))
            return lp.If(b.compare("le", b.const(LARGE), room), past, cached)

        def later(start: lp.LoopExpr) -> lp.Stmt:
            """The rows of the part end `start` elements later."""
            end = b.add(b.convert(b.load(stream.ends, (b.var(row),), index), dt.i64), start)
            return lp.For(row, rows.lower, rows.upper, lp.Store(stream.ends, (b.var(row),), b.convert(end, index)))

        filled: lp.Stmt = rows
        if alike is not None:
            as_one = (lp.For(alike.k, b.ZERO, alike.length, alike.body, lp.Kind.VECTOR, jam=_VECTORS), lp.Store(self.cursors[stream.name], (), alike.length))
            ends = lp.For(row, rows.lower, rows.upper, lp.Store(stream.ends, (b.var(row),), b.convert(alike.stop(b.var(row)), index)))
            filled = lp.If(alike.holds, b.block(*as_one, ends), b.block(rows))
        before = out.levels.pop().stmts
        pos = f"{stream.name}.pos{stream.level}"
        room = lp.Let(bound.name, b.convert(b.load(pos, (rows.lower,), out.storage.dtype(pos)), dt.i64))
        mark = lp.Store(spilled, (chunk,), stored)
        body = b.block(
            *(lp.Alloc(own[name], out.storage.dtype(name), (part,), lp.Space.THREAD) for name in along),
            *before,
            with_names(filled, own),
            lp.Let(stored.name, b.load(self.cursors[stream.name], (), dt.i64)),
            lp.Alloc(begin, dt.i64, (), lp.Space.REGISTER),
            lp.Turn(begin, turns, counts, chunk, stored, chunks),
            lp.If(
                b.compare("le", b.ZERO, started),
                b.block(taken(), later(started)),
                b.block(room, move(own, b.ZERO, late, bound, lp.Kind.COPY), mark),
            ),
        )
        cuts = [lp.Let(e.name, b.load(stream.cuts, (p,), dt.i64)) for e, p in zip((rows.lower, rows.upper), (chunk, b.add(chunk, b.ONE))) if isinstance(e, lp.Var)]
        start = b.load(turns, (chunk,), dt.i64)
        held = lp.Let(stored.name, b.load(spilled, (chunk,), dt.i64))
        rest = b.block(held, lp.If(b.compare("le", b.ZERO, stored), b.block(*cuts, room, move(late, bound, {}, start, lp.Kind.COPY), later(start))))
        unknown = [lp.Store(n, (at,), b.const(-1)) for n in (counts, spilled)]
        for name, extent in ((turns, b.add(chunks, b.ONE)), (counts, chunks), (spilled, chunks)):
            out.emit(lp.Alloc(name, dt.i64, (extent,), lp.Space.KERNEL))
        for name in along:
            out.emit(lp.Alloc(late[name], out.storage.dtype(name), out.storage.extents(crd), lp.Space.KERNEL))
        out.emit(lp.Store(turns, (b.ZERO,), b.ZERO))
        out.emit(lp.For(k, b.ZERO, chunks, b.block(*unknown, lp.Store(turns, (b.add(at, b.ONE),), b.const(-1))), cost=0))
        out.emit(lp.For(chunk.name, b.ZERO, chunks, body, lp.Kind.PARALLEL, cost=_PART))
        out.emit(lp.For(chunk.name, b.ZERO, chunks, rest, lp.Kind.PARALLEL, cost=_LATE))

    def _index(self, stream: po.Stream) -> dt.DType:
        return self.out.storage.stored[stream.name].index

    # --- rows that are alike ----------------------------------------------------------------------------------------------

    def _together(self, stream: po.Stream, loop: Loop, rows: lp.For, emit: Callable[[Loop], None]) -> Alike | None:
        """All elements of the part in one loop, if that can be."""
        walked = _only_stream(loop.body)
        source = stream.source
        if walked is None or not isinstance(source, po.Merge) or stream.inner or self.streams.reads_at(stream):
            return None
        if len({self.out.storage.dtype(f"{t}.crd{level}") for t, level in source.parts}) > 1:
            return None
        if any(not dim.stream for found in instances(walked) for dim in self.statements[found.statement].ragged):
            return None  # an element reads another fibre
        return _Alike(self.out, stream, source, rows).find(walked, loop, emit)


def _only_stream(ast: Ast) -> Loop | None:
    """The one loop over a stream that `ast` is, if its body has no loop."""
    while isinstance(ast, Marked):
        ast = ast.body
    if not isinstance(ast, Loop) or not is_straight(ast.body):
        return None
    return ast


@node
class Alike:
    """What the elements of a part do if `holds`: `body` for each number `k` below `length`; `stop(row)`: where a row ends."""

    holds: lp.LoopExpr
    k: str
    length: lp.LoopExpr
    body: lp.Stmt
    stop: Callable[[lp.LoopExpr], lp.LoopExpr]


class _Alike:
    """One part of the rows of a merge whose operands may be alike there."""

    def __init__(self, out: Emitter, stream: po.Stream, source: po.Merge, rows: lp.For) -> None:
        self.out, self.stream, self.rows = out, stream, rows
        self.parts = source.parts
        self.names = [f"{t}.crd{level}" for t, level in source.parts]

    def find(self, walked: Loop, loop: Loop, emit: Callable[[Loop], None]) -> Alike | None:
        out = self.out
        register = out.names.fresh("alike")
        begins, length, fits = self._ranges()
        element = self._element(begins, walked, loop, emit)
        if element is None:
            return None
        out.emit(lp.Alloc(register, dt.bool_, (), lp.Space.REGISTER))
        out.emit(lp.Store(register, (), fits))
        self._check(register, begins, length)
        k, body = element
        first, begin = self.parts[0], begins[0]
        return Alike(b.load(register, (), dt.bool_), k, length, body, lambda row: b.sub(self._position(first, b.add(row, b.ONE)), begin))

    def _position(self, part: tuple[str, int], row: lp.LoopExpr) -> lp.LoopExpr:
        name = f"{part[0]}.pos{part[1]}"
        self.out.used.add(name)
        return b.convert(b.load(name, (row,), self.out.storage.dtype(name)), dt.i64)

    def _ranges(self) -> tuple[list[lp.LoopExpr], lp.LoopExpr, lp.LoopExpr]:
        """Where the part begins in each operand, and how long it is in the first; whether all are as long, in range and within bounds."""
        out, first, last = self.out, self.rows.lower, self.rows.upper
        begins: list[lp.LoopExpr] = []
        lengths: list[lp.LoopExpr] = []
        fits: lp.LoopExpr = b.TRUE
        for tensor, level in self.parts:
            begin = out.let(f"{tensor}_first", self._position((tensor, level), first))
            end = out.let(f"{tensor}_last", self._position((tensor, level), last))
            begins.append(begin)
            lengths.append(b.sub(end, begin))
            within = b.both(b.at_most(begin, end), b.at_most(end, out.size(out.storage.stored[tensor].counts[level])))
            fits = b.both(fits, within)
        length = out.let(f"{self.stream.name}_whole", lengths[0])
        for other in lengths[1:]:
            fits = b.both(fits, b.compare("eq", length, other))
        pos = f"{self.stream.name}.pos{self.stream.level}"
        out.used.add(pos)
        room = [b.convert(b.load(pos, (at,), out.storage.dtype(pos)), dt.i64) for at in (first, last)]
        fits = b.both(fits, b.both(b.compare("lt", b.ZERO, length), b.at_most(length, b.sub(room[1], room[0]))))
        return begins, length, fits

    def _element(self, begins: list[lp.LoopExpr], walked: Loop, loop: Loop, emit: Callable[[Loop], None]) -> tuple[str, lp.Stmt] | None:
        """What one element does, and the name of its number; None if that asks for the row, or for more than a store."""
        out = self.out
        k = out.names.fresh("k")
        saved = dict(out.begins), dict(out.env), dict(out.virtual)
        out.levels.append(Level([]))
        out.home[k] = out.home[_NO_ROW] = len(out.levels) - 1
        out.env[loop.iterator], out.env[walked.iterator] = b.var(_NO_ROW), b.var(k)
        coordinate = b.load(self.names[0], (b.add(begins[0], b.var(k)),), out.storage.dtype(self.names[0]))
        out.virtual[f"{self.stream.name}.next{self.stream.level}"] = b.convert(coordinate, dt.i64)
        out.begins[(self.stream.name, self.stream.level)] = b.ZERO
        for n, (part, begin) in enumerate(zip(self.parts, begins)):
            out.begins[part] = begin
            out.virtual[f"{self.stream.name}.has{n}"], out.virtual[f"{self.stream.name}.at{n}"] = b.TRUE, b.var(k)
        emit(walked)
        body = b.block(*out.levels.pop().stmts)
        out.begins, out.env, out.virtual = saved
        asks = any(isinstance(x, lp.Var) and x.name == _NO_ROW for s in all_stmts(body) for e in expressions(s) for x in all_exprs(e))
        results = {a.name for a in out.scop.arrays if a.role == "output"}
        simple = all(isinstance(s, (lp.Block, lp.Let)) or (isinstance(s, lp.Store) and s.array in results) for s in all_stmts(body))
        return (k, body) if simple and not asks else None

    def _check(self, register: str, begins: list[lp.LoopExpr], length: lp.LoopExpr) -> None:
        """Whether the operands list the same coordinates, in range, and ascending but for where rows begin; whether the rows follow
        one another, and are as long in all operands. `register` says so far whether the part is."""
        out = self.out
        types = [out.storage.dtype(n) for n in self.names]
        out.used.update(self.names)
        falls, starts = (out.names.fresh(n) for n in ("falls", "starts"))
        holds = b.load(register, (), dt.bool_)

        def listed(n: int, at: lp.LoopExpr) -> lp.LoopExpr:
            return b.load(self.names[n], (b.add(begins[n], at),), types[n])

        def alike(at: lp.LoopExpr) -> lp.LoopExpr:
            same: lp.LoopExpr = b.TRUE
            for n in range(1, len(self.parts)):
                same = b.both(same, b.apply("eq", (listed(0, at), listed(n, at)), dt.bool_))
            return same

        def down(at: lp.LoopExpr) -> lp.LoopExpr:
            return b.apply("ge", (listed(0, b.sub(at, b.ONE)), listed(0, at)), dt.bool_)

        k, row, at = b.var(out.names.fresh("k")), b.var(out.names.fresh("row")), b.var(out.names.fresh("at"))
        elements = b.block(lp.Store(register, (), b.both(holds, alike(k))), _count(falls, down(k), types[0]))
        ends = [b.sub(self._position(p, b.add(row, b.ONE)), begin) for p, begin in zip(self.parts, begins)]
        follow = functools.reduce(b.both, (b.compare("eq", ends[0], e) for e in ends[1:]), b.compare("le", at, ends[0]))
        some, top = b.compare("lt", at, ends[0]), b.sub(length, b.ONE)
        begun, ended = (b.smallest(b.largest(e, b.ZERO), top) for e in (at, b.sub(ends[0], b.ONE)))  # read before they are known to be sound
        low, high = (b.convert(listed(0, e), dt.i64) for e in (begun, ended))
        limits = b.both(b.compare("le", b.ZERO, low), b.compare("lt", high, out.size(self.stream.extent)))
        rows = b.block(
            lp.Let(at.name, b.sub(self._position(self.parts[0], row), begins[0])),
            lp.Store(register, (), b.both(holds, b.both(follow, b.either(b.negation(some), limits)))),
            _count(starts, b.both(b.both(some, b.compare("lt", b.ZERO, at)), down(b.largest(begun, b.ONE))), types[0]),
        )
        counts = [b.load(name, (), types[0]) for name in (falls, starts)]
        several = b.block(
            lp.For(k.name, b.ONE, length, elements, lp.Kind.VECTOR, jam=_VECTORS),
            lp.If(holds, lp.For(row.name, self.rows.lower, self.rows.upper, rows)),
            lp.Store(register, (), b.both(holds, b.apply("eq", (counts[0], counts[1]), dt.bool_))),
        )
        for name in (falls, starts):
            out.emit(lp.Alloc(name, types[0], (), lp.Space.REGISTER))
            out.emit(lp.Store(name, (), lp.Const(0, types[0])))
        first = lp.Store(register, (), b.both(b.compare("lt", b.ONE, length), alike(b.ZERO)))
        out.emit(lp.If(holds, b.block(first, lp.If(holds, several))))


def _count(register: str, test: lp.LoopExpr, dtype: dt.DType) -> lp.Stmt:
    return lp.Store(register, (), b.apply("add", (b.load(register, (), dtype), b.convert(test, dtype)), dtype))
