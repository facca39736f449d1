"""Sums that memory scatters over many rows are shared by rows: each thread passes over the whole list and takes the elements of its rows.

Before::                                                After::

    for c in 0..(w - 1) // 16 + 1 parallel stretch:         for p in 0..64 parallel stretch=p_end:
      for q in 0..n:                                          let low = p * rows // 64; let high = p_end * rows // 64
        let i = crd0[q]; check i < rows                       for q in 0..n:
        let k = crd1[q]; check k < columns                      let i = crd0[q]; check i < rows
        for j in c * 16..min(w - 1, c * 16 + 15) + 1 vector:    if low <= i and i < high:
          Y[i * w + j] = Y[i * w + j]                             let k = crd1[q]; check k < columns
                       + val[q] * X[k * w + j]                    for j in 0..w vector: Y[i * w + j] = ...

where rows are too narrow to be shared by columns. To look at a coordinate costs little beside a row of products, and nothing is copied: the
order in which elements are added to a row is that of the list, whatever the number of threads. Where the list is likely sorted by rows,
the loop that clears all rows before goes, too: a thread clears its rows when it comes to them, so that each is written while it is near.

    next = low                                              the first of its rows that is not cleared
    for q: ... if low <= i and i < high: if next <= i: clear rows next..i + 1; next = i + 1
    clear rows next..high

Where fibres name the rows (A.T @ X without a stored transpose), all but narrow rows are shared so: the fibres are mostly sorted, so that
a thread's elements follow each other in each, and two threads that share rows by columns write to the same lines of the caches.

    for c in 0..(w - 1) // 16 + 1 parallel stretch:         share = how many of 256 coordinates lie before each piece
      for k in 0..m:                                        for p in 0..64 parallel weight=share stretch=p_end:
        let begin = pos[k] ...                                clear rows low..high
        for j in c * 16..min(w, c_end * 16) vector:           for k in 0..m:
          for q in 0..len:                                      let begin = pos[k] ...
            let i = crd[begin + q]; check i < rows       ->     for j in 0..w vector:
            Y[i * w + j] = Y[i * w + j]                           for q in 0..len:
                         + val[begin + q] * X[k * w + j]            let i = crd[begin + q]; check i < rows
                                                                    if 0 <= i - low < span: Y[i * w + j] = ...

Proves what it does: rows do not overlap, and each element is stored to by the thread whose row it is in.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from polyai.loop import build as b
from polyai.loop.nodes import (
    Alloc,
    Apply,
    Block,
    Cast,
    Check,
    Const,
    For,
    If,
    Kernel,
    Kind,
    Let,
    Load,
    LoopExpr,
    Space,
    Stmt,
    Store,
    Var,
)
from polyai.loop.passes.depend import depends
from polyai.loop.passes.runs import Lists
from polyai.loop.passes.stretch import value as typical
from polyai.loop.walks import all_exprs, all_stmts, arrays_of, expressions, supply
from polyai.scalar import dtype as dt
from polyai.scalar.dtype import DType
from polyai.scalar.ops import MONOIDS
from polyai.term.names import Names

PIECES = 64
"""Into how many pieces rows are cut, neighbours of which one thread takes at once."""
SAMPLES = 256
"""How many coordinates tell how the elements are spread over the rows."""
LEAST = 16
"""Elements of a row that a fibre names, at least: less work than that does not outweigh the look at whose row it is."""
WIDE = 64
"""Elements of a row from which its columns are shared."""
_MONOID_OF = {m.op: m for m in MONOIDS.values()}


def owners(kernel: Kernel, sizes: Mapping[str, int], lists: Lists) -> Kernel:
    """`kernel` with its narrow scattered sums shared by rows; `sizes` are typical values of sizes and lengths, `lists` as for `runs`."""
    work = _Owners(supply(kernel), sizes, frozenset(names[0] for names in lists), {p.name: p.extents for p in kernel.params if p.extents is not None})
    body = work.stmt(kernel.body)
    return dataclasses.replace(kernel, body=b.block(*work.buffers, body))


class _Owners:
    """`sorted`: arrays of coordinates that likely rise; `extents`: those of parameters; `buffers` are what the new loops need."""

    def __init__(self, names: Names, sizes: Mapping[str, int], sorted_: frozenset[str], extents: Mapping[str, tuple[LoopExpr, ...]]) -> None:
        self.names, self.sizes, self.sorted, self.extents = names, sizes, sorted_, extents
        self.buffers: list[Alloc] = []

    def stmt(self, s: Stmt) -> Stmt:
        match s:
            case Block(stmts):
                out: list[Stmt] = []
                for x in stmts:
                    before = _cleared_before(x, out)
                    found = self._for(x, before is not None) if isinstance(x, For) else None
                    if found is None:
                        out.append(x if isinstance(x, For) else self.stmt(x))
                        continue
                    new, clears = found
                    if clears and before is not None:
                        del out[before]
                    out += b.statements(new)
                return Block(tuple(out))
            case If(condition, then, orelse):
                return If(condition, self.stmt(then), None if orelse is None else self.stmt(orelse))
            case For():
                found = self._for(s, False)
                return s if found is None else found[0]
            case _:
                return s

    def _for(self, loop: For, cleared: bool) -> tuple[Stmt, bool] | None:
        """What takes the place of `loop`, and whether it clears its rows, which are `cleared` before; None if it stays."""
        along = self._along_fibres(loop, cleared)
        return _shared(loop, self.names, self.sizes, self.sorted if cleared else frozenset()) if along is None else (along, cleared)

    def _along_fibres(self, loop: For, cleared: bool) -> Stmt | None:
        """`loop` where the coordinates of a fibre name the rows: each thread takes the elements of its rows from every fibre. If they
        are `cleared` before, it clears them itself."""
        match b.statements(loop.body):
            case (For(kind=Kind.SERIAL, step=1) as walk,) if loop.kind is Kind.PARALLEL and loop.stretch is not None and loop.lower == b.ZERO:
                pass
            case _:
                return None
        *begun, lanes = b.statements(walk.body) or (Block(()),)
        if not isinstance(lanes, For) or lanes.kind is not Kind.VECTOR or not all(isinstance(s, (Let, Check)) for s in begun):
            return None
        width = _whole(lanes, loop)
        match b.statements(lanes.body):
            case (For(kind=Kind.SERIAL, step=1) as fibre,) if width is not None:
                *steps, update = b.statements(fibre.body)
            case _:
                return None
        match update:
            case Store(array, (at,), Apply(op, (old, value), dtype), None) if old == Load(array, (at,), dtype) and op in _MONOID_OF:  # type: ignore[arg-type]
                row = _row(at, lanes.var, width)
            case _:
                return None
        named = next((s.value for s in steps if isinstance(s, Let) and s.name == row), None)
        rows = next((_bound(s, row) for s in steps if row is not None and _bound(s, row) is not None), None)
        if row is None or rows is None or named is None or not all(isinstance(s, (Let, Check)) for s in steps) or any(isinstance(x, Load) and x.array == array for x in all_exprs(value)):
            return None
        match named:
            case Cast(Load(crd, (Apply("add", (_, Var(q))),))) | Load(crd, (Apply("add", (_, Var(q))),)) if q == fibre.var and crd in self.extents:
                coordinates = Load(crd, (), b.dtype_of(named.arg if isinstance(named, Cast) else named))
            case _:
                return None
        wide = typical(width, self.sizes)
        if wide is not None and wide < LEAST:
            return None
        piece, end, low, high, span = (self.names.fresh(n) for n in ("piece", "piece_end", "low", "high", "span"))
        mine = b.below(b.sub(b.var(row), b.var(low)), b.var(span))
        taken = dataclasses.replace(fibre, body=Block((*steps, If(mine, update))))
        body = Block((*begun, dataclasses.replace(lanes, lower=b.ZERO, upper=width, body=taken)))
        ends = tuple(Let(n, b.floordiv(b.mul(b.var(p), rows), b.const(PIECES))) for n, p in ((low, piece), (high, end)))
        bounds = (*ends, Let(span, b.sub(b.var(high), b.var(low))))
        clear = _cleared(array, op, dtype, (b.var(low), b.var(high)), width, self.names) if cleared else None
        whole = b.block(*bounds, clear, dataclasses.replace(walk, body=body))
        each = max(1, loop.cost * max(1, -(-(wide or WIDE) // 16)) // (PIECES + SAMPLES))
        weight, counted = self._sampled(coordinates, rows)
        return b.block(*counted, dataclasses.replace(loop, var=piece, upper=b.const(PIECES), body=whole, stretch=end, weight=weight, cost=each))

    def _sampled(self, coordinates: Load, rows: LoopExpr) -> tuple[str, list[Stmt]]:
        """An array of how many of some coordinates lie before each piece of the rows, and what fills it."""
        share, at, t = (self.names.fresh(n) for n in ("share", "at", "t"))
        self.buffers.append(Alloc(share, dt.i64, (b.const(PIECES + 1),), Space.KERNEL))
        (stored,) = self.extents[coordinates.array]
        place = b.floordiv(b.mul(b.var(t), stored), b.const(SAMPLES))
        crd = b.convert(b.load(coordinates.array, (place,), coordinates.dtype), dt.i64)
        inside = b.largest(b.ZERO, b.smallest(crd, b.sub(rows, b.ONE)))

        def count(index: LoopExpr) -> LoopExpr:
            return b.load(share, (index,), dt.i64)

        after = b.add(b.var(at), b.ONE)
        return share, [
            For(t, b.ZERO, b.const(PIECES + 1), Store(share, (b.var(t),), b.ZERO)),
            For(t, b.ZERO, b.smallest(b.const(SAMPLES), stored), Block((
                Let(at, b.floordiv(b.mul(inside, b.const(PIECES)), b.largest(b.ONE, rows))),
                Store(share, (after,), b.add(count(after), b.ONE)),
            ))),
            For(t, b.ZERO, b.const(PIECES), Store(share, (b.add(b.var(t), b.ONE),), b.add(count(b.var(t)), count(b.add(b.var(t), b.ONE))))),
        ]  # fmt: skip


def _cleared_before(loop: Stmt, before: list[Stmt]) -> int | None:
    """Which of the statements before `loop` sets all elements of the rows that it adds to to the identity; None if that is not so,
    or something between them might leave or look."""
    updates = [s for s in all_stmts(loop) if isinstance(s, Store)]
    if len(updates) != 1 or not isinstance(updates[0].value, Apply) or updates[0].value.op not in _MONOID_OF:
        return None
    update, identity = updates[0], _MONOID_OF[updates[0].value.op].identity(b.dtype_of(updates[0].value))
    for n in range(len(before) - 1, -1, -1):
        s = before[n]
        if isinstance(s, For) and s.lower == b.ZERO:
            match b.statements(s.body):
                case (For(kind=Kind.VECTOR, lower=first) as lanes,) if first == b.ZERO:
                    place = b.add(b.mul(b.var(s.var), lanes.upper), b.var(lanes.var))
                    clears = b.statements(lanes.body) == (Store(update.array, (place,), Const(identity, b.dtype_of(update.value))),)
                    return n if clears and s.upper in _rows_of(loop, update, lanes.upper) else None
                case _:
                    return None
        if not isinstance(s, (Let, Check)) or update.array in arrays_of(s):
            return None
    return None


def _rows_of(loop: Stmt, update: Store, width: LoopExpr) -> list[LoopExpr | None]:
    """The extents that Checks in `loop` give the row which `update` goes to, of rows that are `width` long."""
    rows = {_row(update.indices[0], s.var, width) for s in all_stmts(loop) if isinstance(s, For)}
    return [_bound(s, row) for s in all_stmts(loop) for row in rows if row is not None]


def _shared(loop: For, names: Names, sizes: Mapping[str, int], sorted_: frozenset[str]) -> tuple[For, bool] | None:
    """`loop`, over pieces of columns, as one over pieces of rows, and whether it clears them: if an array in `sorted_` names them. None if it
    is something else, or wide."""
    if loop.kind is not Kind.PARALLEL:
        return None
    match b.statements(loop.body):
        case (For(kind=Kind.SERIAL, step=1) as walk,) if loop.stretch is not None and loop.lower == b.ZERO:
            pass
        case _:
            return None
    *steps, lanes = b.statements(walk.body) or (Block(()),)
    if not isinstance(lanes, For) or lanes.kind is not Kind.VECTOR or not all(isinstance(s, (Let, Check)) for s in steps):
        return None
    width = _whole(lanes, loop)
    match b.statements(lanes.body):
        case (Store(array, (at,), Apply(op, (old, value), dtype), None),) if old == Load(array, (at,), dtype) and op in _MONOID_OF:  # type: ignore[arg-type]
            row = None if width is None else _row(at, lanes.var, width)
        case _:
            return None
    if width is None or row is None or any(isinstance(x, Load) and x.array == array for x in all_exprs(value)):
        return None
    first = [n for n, s in enumerate(steps) if (isinstance(s, Let) and s.name == row) or (isinstance(s, Check) and depends(s.ok, {row}))]
    rows = next((_bound(s, row) for s in steps if isinstance(s, Check) and _bound(s, row) is not None), None)
    wide = typical(width, sizes)
    if rows is None or wide is None or wide >= WIDE or any(depends(e, _names(steps, first)) for n in first for e in expressions(steps[n])):
        return None
    piece, end, low, high = (names.fresh(n) for n in ("piece", "piece_end", "low", "high"))
    mine = b.both(b.compare("le", b.var(low), b.var(row)), b.compare("lt", b.var(row), b.var(high)))
    rest = tuple(s for n, s in enumerate(steps) if n not in first)
    clears = any(isinstance(s, Let) and any(isinstance(x, Load) and x.array in sorted_ for x in all_exprs(s.value)) for s in (steps[n] for n in first))
    start, come, end_ = _clearing(array, op, dtype, b.var(row), (b.var(low), b.var(high)), width, names) if clears else ((), (), ())
    body = Block((*(steps[n] for n in first), If(mine, Block((*come, *rest, dataclasses.replace(lanes, lower=b.ZERO, upper=width))))))
    bounds = tuple(Let(n, b.floordiv(b.mul(b.var(p), rows), b.const(PIECES))) for n, p in ((low, piece), (high, end)))
    walked = dataclasses.replace(walk, body=body)
    each = max(1, loop.cost * max(1, -(-wide // 16)) // PIECES)
    whole = Block((*bounds, *start, walked, *end_))
    return dataclasses.replace(loop, var=piece, upper=b.const(PIECES), body=whole, stretch=end, cost=each), clears


def _clearing(
    array: str, op: str, dtype: DType, row: LoopExpr, rows: tuple[LoopExpr, LoopExpr], width: LoopExpr, names: Names
) -> tuple[tuple[Stmt, ...], tuple[Stmt, ...], tuple[Stmt, ...]]:
    """What clears the rows of a piece: before its loop, when it comes to `row`, and after the loop."""
    following = names.fresh("next")
    here = b.load(following, (), dt.i64)

    def cleared(upto: LoopExpr) -> Stmt:
        return _cleared(array, op, dtype, (here, upto), width, names)

    after = b.add(row, b.ONE)
    start = (Alloc(following, dt.i64, (), Space.REGISTER), Store(following, (), rows[0]))
    return start, (If(b.compare("le", here, row), Block((cleared(after), Store(following, (), after)))),), (cleared(rows[1]),)


def _cleared(array: str, op: str, dtype: DType, rows: tuple[LoopExpr, LoopExpr], width: LoopExpr, names: Names) -> For:
    """A loop that clears rows[0]..rows[1]."""
    element = names.fresh("e")
    clear = Store(array, (b.var(element),), Const(_MONOID_OF[op].identity(dtype), dtype))
    return For(element, b.mul(rows[0], width), b.mul(rows[1], width), clear, Kind.VECTOR)


def _whole(lanes: For, loop: For) -> LoopExpr | None:
    """How far a loop over pieces of columns goes in all: its end is the smaller one of that and of the pieces' end."""
    match lanes.upper:
        case Apply("min", (x, y)):
            own = [e for e in (x, y) if loop.stretch is not None and not depends(e, {loop.var, loop.stretch})]
            return own[0] if len(own) == 1 else None
        case _:
            return None


def _row(at: LoopExpr, column: str, width: LoopExpr) -> str | None:
    """The name of the row in row * width + column."""
    match at:
        case Apply("add", (Apply("mul", (Var(row), w)), Var(j))) if j == column and w == width:
            return row
        case _:
            return None


def _bound(s: Stmt, name: str) -> LoopExpr | None:
    """The extent that a Check says `name` stays below."""
    match s:
        case Check(Apply("lt", (Cast(Var(x)), Cast(bound)))) if x == name:
            return bound
        case _:
            return None


def _names(steps: list[Stmt], but: list[int]) -> set[str]:
    """What the other steps define."""
    return {s.name for n, s in enumerate(steps) if isinstance(s, Let) and n not in but}
