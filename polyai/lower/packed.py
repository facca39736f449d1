"""Rows of a sparse result that are stored one after another, within bounds, in parts.

    alloc turns[chunks + 1]; turns[0] = 0, the others -1
    for chunk parallel:                             a part of the rows
      alloc J.crd1_part[part], C_part[part]         of the thread's own
      cursor = 0
      for i in cuts[chunk]..cuts[chunk + 1]: ...    stores at the cursor; J.end1[i] = where it stands afterwards
      turn begin = turns[chunk], then + cursor      where the part before it ends
      J.crd1[begin + k] = J.crd1_part[k]; ...; J.end1[i] += begin

What a part stores is in the cache when it is taken to its place, so that memory is written once, and nothing has to move later.

Matrices that are added often have the same pattern. A part whose rows are alike in all operands of a merge is one fibre: its values
run in lanes, and no coordinate is compared with another one but once.

    alike = the rows have the same lengths, and the same coordinates, which ascend in each row and are in range
    if alike: turn begin = ...; for k vector: C[begin + k] = A.val[A_begin + k] + B.val[B_begin + k]
    else: the rows one after another, as above; what is wrong with them is found there
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from polyai.errors import VerifyError
from polyai.loop import build as b
from polyai.loop import nodes as lp
from polyai.loop.walks import all_exprs, all_stmts, expressions, with_names
from polyai.lower.ast_walk import Ast, Instance, Loop, Marked, instances
from polyai.lower.bounds import Fibres
from polyai.lower.emitter import Emitter, Level
from polyai.lower.stream import Streams
from polyai.poly import nodes as po
from polyai.scalar import dtype as dt
from polyai.term.node import node

_PART = 1 << 20
"""Scalar operations of one part: the caller makes parts that are worth a task each."""
_NO_ROW = "no_row"
"""The row of an element where elements of several rows run together."""


class Packed:
    """Emits the loop over the parts of a packed stream. `cursors` holds by stream the register that says where the next row begins."""

    def __init__(self, out: Emitter, streams: Streams, fibres: Fibres) -> None:
        self.out, self.streams, self.fibres = out, streams, fibres
        self.statements = {s.name: s for s in out.scop.statements}
        self.cursors: dict[str, str] = {}

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
        if loop.lower != b.ZERO or loop.step != 1 or upper != self.out.size(stream.rows):
            raise VerifyError(f"the rows of {stream.name} are not filled by one loop over all of them")
        chunk = b.var(self.out.names.fresh("chunk"))
        self.out.levels.append(Level([]))
        self.out.home[chunk.name] = len(self.out.levels) - 1
        first, last = (self.out.let(f"{name}_{end}", b.load(stream.cuts, (at,), dt.i64)) for end, at in (("from", chunk), ("to", b.add(chunk, b.ONE))))
        self.cursors[stream.name] = self.streams.register(f"{stream.name}_cursor", b.ZERO)
        return chunk, first, last

    def end_row(self, stream: po.Stream, end: lp.LoopExpr) -> None:
        """A row is stored: the next one begins where it ends."""
        row, _ = self.fibres.packed[stream.name]
        stop = self.out.let(f"{stream.name}_stop", end)
        self.out.emit(lp.Store(self.cursors[stream.name], (), stop))
        self.out.emit(lp.Store(stream.ends, (row,), b.convert(stop, self._index(stream))))

    def end(self, stream: po.Stream, chunk: lp.Var, rows: lp.For, loop: Loop, emit: Callable[[Ast], None]) -> None:
        """End the loop over parts: each takes what it stored to where the part before it ends. `loop` became `rows`; `emit` emits
        what an element does."""
        out, index = self.out, self._index(stream)
        alike = self._together(stream, loop, rows, emit)
        part, chunks = out.symbol(stream.part), out.symbol(stream.chunks)
        crd = f"{stream.name}.crd{stream.level}"
        along = [a.name for a in out.scop.arrays if a.role == "output" and out.storage.extents(a.name) == out.storage.extents(crd)]
        own = {name: out.names.fresh(f"{name}_part") for name in along}
        turns, begin, k, row = (out.names.fresh(f"{stream.name}_{n}") for n in ("turns", "begin", "k", "row"))
        stored, started = b.var(out.names.fresh(f"{stream.name}_stored")), b.load(begin, (), dt.i64)
        copies = []
        for name in along:
            value = b.load(own[name], (b.var(k),), out.storage.dtype(name))
            copies.append(lp.For(k, b.ZERO, stored, lp.Store(name, (b.add(started, b.var(k)),), value), lp.Kind.VECTOR))

        def ends(stop: lp.LoopExpr) -> lp.Stmt:
            """Row `row` of the part ends `stop` elements behind where the part begins."""
            value = b.convert(b.add(stop, started), index)
            return lp.For(row, rows.lower, rows.upper, lp.Store(stream.ends, (b.var(row),), value), lp.Kind.VECTOR)

        buffers = [lp.Alloc(own[name], out.storage.dtype(name), (part,), lp.Space.THREAD) for name in along]
        one_by_one = b.block(
            with_names(rows, own),
            lp.Let(stored.name, b.load(self.cursors[stream.name], (), dt.i64)),
            lp.Turn(begin, turns, chunk, stored),
            *copies,
            ends(b.convert(b.load(stream.ends, (b.var(row),), index), dt.i64)),
        )
        filled: lp.Stmt = one_by_one
        if alike is not None:
            as_one = with_places(alike.body, along, started)
            straight = lp.For(alike.k, b.ZERO, alike.length, as_one, lp.Kind.VECTOR)
            filled = lp.If(alike.holds, b.block(lp.Turn(begin, turns, chunk, alike.length), straight, ends(alike.stop(b.var(row)))), one_by_one)
        before = out.levels.pop().stmts
        places = b.add(chunks, b.ONE)
        none_yet = b.where(b.compare("eq", b.var(k), b.ZERO), b.ZERO, b.const(-1))
        out.emit(lp.Alloc(turns, dt.i64, (places,), lp.Space.KERNEL))
        out.emit(lp.For(k, b.ZERO, places, lp.Store(turns, (b.var(k),), none_yet)))
        out.emit(lp.For(chunk.name, b.ZERO, chunks, b.block(*buffers, *before, lp.Alloc(begin, dt.i64, (), lp.Space.REGISTER), filled), lp.Kind.PARALLEL, cost=_PART))

    def _index(self, stream: po.Stream) -> dt.DType:
        return self.out.storage.stored[stream.name].index

    # --- rows that are alike ----------------------------------------------------------------------------------------------

    def _together(self, stream: po.Stream, loop: Loop, rows: lp.For, emit: Callable[[Ast], None]) -> Alike | None:
        """All elements of the part in one loop, if that can be."""
        walked = _only_stream(loop.body)
        source = stream.source
        if walked is None or not isinstance(source, po.Merge) or self.streams.reads_at(stream):
            return None
        if any(d.stream is False and not d.parents for i in instances(walked) for d in self.statements[i.statement].ragged):
            return None
        return _Alike(self.out, stream, source, rows).find(walked, loop, emit)


def _only_stream(ast: Ast) -> Loop | None:
    """The one loop over a stream that `ast` is, if its body has no loop."""
    while isinstance(ast, Marked):
        ast = ast.body
    if not isinstance(ast, Loop) or not _no_loop(ast.body):
        return None
    return ast


def _no_loop(ast: Ast) -> bool:
    match ast:
        case Instance():
            return True
        case Marked(_, body):
            return _no_loop(body)
        case Loop():
            return False
        case _:
            return all(map(_no_loop, getattr(ast, "children", ()))) and hasattr(ast, "children")


def with_places(stmt: lp.Stmt, arrays: Sequence[str], start: lp.LoopExpr) -> lp.Stmt:
    """`stmt` with what it stores in `arrays` further back by `start`."""
    match stmt:
        case lp.Block(stmts):
            return lp.Block(tuple(with_places(s, arrays, start) for s in stmts))
        case lp.Store(name, (at,), value, mask) if name in arrays:
            return lp.Store(name, (b.add(start, at),), value, mask)
        case _:
            return stmt


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

    def find(self, walked: Loop, loop: Loop, emit: Callable[[Ast], None]) -> Alike | None:
        out = self.out
        register = out.names.fresh("alike")
        begins, length, fits = self._ranges()
        element = self._element(begins, walked, loop, emit)
        if element is None:
            return None
        out.emit(lp.Alloc(register, dt.bool_, (), lp.Space.REGISTER))
        out.emit(lp.Store(register, (), fits))
        self._check_rows(register, begins)
        self._check_elements(register, begins, length)
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

    def _element(self, begins: list[lp.LoopExpr], walked: Loop, loop: Loop, emit: Callable[[Ast], None]) -> tuple[str, lp.Stmt] | None:
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
        emit(walked.body)
        body = b.block(*out.levels.pop().stmts)
        out.begins, out.env, out.virtual = saved
        asks = any(isinstance(x, lp.Var) and x.name == _NO_ROW for s in all_stmts(body) for e in expressions(s) for x in all_exprs(e))
        results = {a.name for a in out.scop.arrays if a.role == "output"}
        simple = all(isinstance(s, (lp.Block, lp.Let)) or (isinstance(s, lp.Store) and s.array in results) for s in all_stmts(body))
        return (k, body) if simple and not asks else None

    def _check_rows(self, register: str, begins: list[lp.LoopExpr]) -> None:
        """Whether the rows are as long in all operands, and follow one another."""
        row = b.var(self.out.names.fresh("row"))
        positions = [b.sub(self._position(p, b.add(row, b.ONE)), begin) for p, begin in zip(self.parts, begins)]
        good = b.at_most(self._position(self.parts[0], row), self._position(self.parts[0], b.add(row, b.ONE)))
        for other in positions[1:]:
            good = b.both(good, b.compare("eq", positions[0], other))
        self._all(register, row, self.rows.lower, self.rows.upper, good)

    def _check_elements(self, register: str, begins: list[lp.LoopExpr], length: lp.LoopExpr) -> None:
        """Whether the operands list the same coordinates, in range, and ascending but for where rows begin."""
        out = self.out
        k, row = b.var(out.names.fresh("k")), b.var(out.names.fresh("row"))
        types = [out.storage.dtype(n) for n in self.names]
        out.used.update(self.names)

        def listed(n: int, at: lp.LoopExpr) -> lp.LoopExpr:
            return b.load(self.names[n], (b.add(begins[n], at),), types[n])

        limit = out.size(self.stream.extent)
        here = listed(0, k)
        good = functools.reduce(b.both, (b.compare("eq", b.convert(here, dt.i64), b.convert(listed(n, k), dt.i64)) if types[n] != types[0] else b.apply("eq", (here, listed(n, k)), dt.bool_) for n in range(1, len(self.names))))
        self._all(register, k, b.ZERO, length, good)
        falls, starts = (out.names.fresh(n) for n in ("falls", "starts"))
        for name in (falls, starts):
            out.emit(lp.Alloc(name, dt.i64, (), lp.Space.REGISTER))
            out.emit(lp.Store(name, (), b.ZERO))
        wide = b.convert(here, dt.i64)
        inside: list[lp.Stmt] = []
        down = b.apply("ge", (listed(0, b.sub(k, b.ONE)), here), dt.bool_)
        inside.append(lp.For(k.name, b.ONE, length, _count(falls, down), lp.Kind.VECTOR))
        begin = out.names.fresh("at")
        at = b.sub(self._position(self.parts[0], row), begins[0])
        end = b.sub(self._position(self.parts[0], b.add(row, b.ONE)), begins[0])
        real = b.both(b.compare("lt", b.ZERO, at), b.compare("lt", at, end))
        place = b.smallest(b.largest(b.var(begin), b.ONE), b.sub(length, b.ONE))
        down = b.apply("ge", (listed(0, b.sub(place, b.ONE)), listed(0, place)), dt.bool_)
        counted = b.block(lp.Let(begin, at), _count(starts, b.both(real, down)))
        inside.append(lp.For(row.name, self.rows.lower, self.rows.upper, counted))
        equal = b.compare("eq", b.load(falls, (), dt.i64), b.load(starts, (), dt.i64))
        inside.append(lp.Store(register, (), equal))
        out.emit(lp.If(b.both(b.load(register, (), dt.bool_), b.compare("lt", b.ONE, length)), b.block(*inside)))
        self._all(register, k, b.ZERO, length, b.below(wide, limit))

    def _all(self, register: str, var: lp.Var, lower: lp.LoopExpr, upper: lp.LoopExpr, good: lp.LoopExpr) -> None:
        """`register` stays true if `good` is true for each of lower..upper."""
        so_far = b.load(register, (), dt.bool_)
        self.out.emit(lp.If(so_far, lp.For(var.name, lower, upper, lp.Store(register, (), b.both(so_far, good)), lp.Kind.VECTOR)))


def _count(register: str, test: lp.LoopExpr) -> lp.Stmt:
    return lp.Store(register, (), b.add(b.load(register, (), dt.i64), b.convert(test, dt.i64)))
