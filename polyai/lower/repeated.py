"""Rows of a product whose pattern is that of the row before, moved by one column or not at all.

Rows of matrices of meshes and grids resemble their neighbours: unknowns of one node have the same row, and inside of a grid a row is
the row before, moved on. Where that holds of a row of A and of the rows of B that it names, it holds of the row of A @ B: nothing is
marked while its products are added up, and its coordinates follow from those stored last.

    for k in 0..rows - 1 parallel: moved[k] = row k + 1 of B lists what row k lists, plus 1
    for i in ...:
      step = -1
      if row i of A lists what row i - 1 lists, plus d, for d = 0, or for d = 1 where moved[k] for all k of row i - 1: step = d
      for ...: w[at] += value; if step < 0: mark at
      if step >= 0: for p in the row before: let j = J.crd1[p] + step; body; w[j] = 0
      else: ... what is marked, in order ...

C prototypes (Zen 3, one thread of a busy machine, A @ A), time without this over time with it: 1.46 and 1.3 for stencils of 5 and 27
points, 1.2 to 1.4 for two matrices of finite elements, 0.95 to 1.05 where no row is alike. Index arrays are borrowed: whatever they
hold, every place is checked, and an array that another thread changes gives an error or another result.
"""

from __future__ import annotations

from collections.abc import Mapping

from polyai.loop import build as b
from polyai.loop import nodes as lp
from polyai.lower.emitter import Emitter, Level
from polyai.lower.stream import Streams
from polyai.lower.workspace import TELLING, Repeat
from polyai.poly import nodes as po
from polyai.scalar import dtype as dt
from polyai.scalar.expr import Cast, Expr, Load
from polyai.sparse.levels.compressed import Compressed
from polyai.tensor.nodes import nnz_of
from polyai.term.node import node

LEAST_WORK = 200_000
"""Products from which on it is worth the 35 ms that this takes to compile: at 1.5 ns each, within some hundred calls."""
_ROW = 4
"""Scalar operations for an element of B whose row is compared with the next one."""


@node
class Factors:
    """The names and levels of the fibres that a product's row adds up: fibres of `right`, which a fibre of `left` names."""

    left: tuple[str, int]
    right: tuple[str, int]


class Repeats:
    """Emits what finds out whether a row repeats the one before it."""

    def __init__(self, out: Emitter, streams: Streams, hints: Mapping[str, int]) -> None:
        self.out, self.streams, self.hints = out, streams, hints
        self.moved: dict[str, str] = {}  # by stream: the array that says which rows of the right factor are moved on

    def factors(self, stream: po.Stream) -> Factors | None:
        """The factors of the product that a packed stream drains, if it is one of two compressed matrices."""
        source = stream.source
        if not isinstance(source, po.Drain) or source.workspace not in self.streams.sums:
            return None
        updates = [s for s in self.out.scop.statements if s.target == source.workspace]
        if len(updates) != 1 or updates[0].when is not None or len(updates[0].ragged) != 2:
            return None
        left, right = updates[0].ragged
        if left.place or len(left.parents) != 1 or len(right.place) != 1 or any(d.stream or d.pieces or not self._is_listed(d) for d in (left, right)):
            return None
        named, column = _array(right.place[0]), _array(updates[0].at[-1])
        if named != f"{left.tensor}.crd{left.level}" or column != f"{right.tensor}.crd{right.level}":
            return None
        return Factors((left.tensor, left.level), (right.tensor, right.level)) if self._is_worth_it(left, right) else None

    def long_sums(self) -> frozenset[str]:
        """The workspaces that hold sums of floats and have much to add up: whether their rows mark what they hold is worth a decision."""
        found = set()
        for stream in self.out.scop.streams:
            source = stream.source
            if not stream.packed or not isinstance(source, po.Drain) or source.workspace not in self.streams.sums:
                continue
            updates = [s for s in self.out.scop.statements if s.target == source.workspace]
            if self.out.storage.arrays[source.workspace].dtype in TELLING and all(len(s.ragged) == 2 and self._is_worth_it(*s.ragged) for s in updates):
                found.add(source.workspace)
        return frozenset(found)

    def _is_worth_it(self, left: po.RaggedDim, right: po.RaggedDim) -> bool:
        """Whether the product has much to add up, as far as is known."""
        rows = self.out.storage.stored[right.tensor].parents(right.level)
        counts = [self.hints.get(nnz_of(dim.tensor)) for dim in (left, right)]
        known = rows if isinstance(rows, int) else self.hints.get(str(rows))
        if None in counts or not known:
            return True
        return counts[0] * counts[1] >= LEAST_WORK * known  # type: ignore[operator]

    def _is_listed(self, dim: po.RaggedDim) -> bool:
        """Whether arrays hold the positions and the coordinates of a fibre below one dense level."""
        form = self.out.storage.stored[dim.tensor].type.format
        if form is None or len(form.levels) != 2 or dim.level != 1 or form.owned or not form.levels[0].full:
            return False
        level = form.levels[1]
        return isinstance(level, Compressed) and not level.computed and not level.run

    def prepare(self, stream: po.Stream, factors: Factors) -> None:
        """Find out which rows of the right factor are the row before, moved on by one."""
        out, (tensor, level) = self.out, factors.right
        owner = out.storage.stored[tensor]
        moved = self.moved[stream.name] = out.names.fresh(f"{tensor}_moved")
        rows, stored = out.size(owner.parents(level)), out.size(owner.counts[level])
        k, q, same = b.var(out.names.fresh("k")), b.var(out.names.fresh("q")), out.names.fresh("same")
        first, middle, last = (b.var(out.names.fresh(f"{tensor}_{n}")) for n in ("first", "middle", "last"))
        sound = b.both(b.at_most(first, middle), b.both(b.at_most(middle, last), b.at_most(last, stored)))
        alike = b.both(sound, b.compare("eq", b.sub(middle, first), b.sub(last, middle)))
        follows = b.compare("eq", self._coordinate(factors.right, b.add(middle, q)), b.add(self._coordinate(factors.right, b.add(first, q)), b.ONE))
        begins = b.compare("eq", self._coordinate(factors.right, middle), b.add(self._coordinate(factors.right, first), b.ONE))
        compared = lp.For(q.name, b.ONE, b.sub(middle, first), lp.Store(same, (), b.both(b.load(same, (), dt.bool_), follows)))
        some = lp.If(b.compare("lt", first, middle), b.block(lp.Store(same, (), begins), lp.If(b.load(same, (), dt.bool_), compared)))
        body = b.block(
            *(lp.Let(at.name, self._position(factors.right, b.add(k, b.const(n)))) for n, at in enumerate((first, middle, last))),
            lp.Alloc(same, dt.bool_, (), lp.Space.REGISTER),
            lp.Store(same, (), alike),
            lp.If(alike, some),
            lp.Store(moved, (k,), b.load(same, (), dt.bool_)),
        )
        out.emit(lp.Alloc(moved, dt.bool_, (b.add(rows, b.ONE),), lp.Space.KERNEL))
        out.emit(lp.For(k.name, b.ZERO, b.sub(rows, b.ONE), body, lp.Kind.PARALLEL, weight=f"{tensor}.pos{level}", cost=_ROW))
        out.emit(lp.If(b.compare("lt", b.ZERO, rows), lp.Store(moved, (b.sub(rows, b.ONE),), b.FALSE)))

    def begin(self, stream: po.Stream) -> str:
        """Begin a part: the register of where the row before begins."""
        return self.streams.register(f"{stream.name}_before", b.ZERO)

    def row(self, stream: po.Stream, factors: Factors, before: str, row: lp.LoopExpr, first: lp.LoopExpr, start: lp.LoopExpr) -> None:
        """Find out whether the row at hand, which begins at `start`, repeats the one before in its part, whose first row is `first`."""
        out, left = self.out, factors.left
        step = self.streams.register(f"{stream.name}_step", b.const(-1))
        same = out.names.fresh("same")
        out.emit(lp.Alloc(same, dt.bool_, (), lp.Space.REGISTER))
        stored, rows = out.size(out.storage.stored[left[0]].counts[left[1]]), out.size(out.storage.stored[factors.right[0]].parents(factors.right[1]))
        then = [Level([], branch=True), Level([], branch=True)]
        out.levels.append(then[0])
        begin, middle, end = (out.let(f"{left[0]}_row", self._position(left, at)) for at in (b.sub(row, b.ONE), row, b.add(row, b.ONE)))
        sound = b.both(b.at_most(begin, middle), b.both(b.compare("lt", middle, end), b.at_most(end, stored)))
        out.levels.append(then[1])
        moves = out.let("moves", b.sub(self._coordinate(left, middle), self._coordinate(left, begin)))
        q = b.var(out.names.fresh("q"))
        named = self._coordinate(left, b.add(begin, q))
        inside = b.largest(b.smallest(named, b.sub(rows, b.ONE)), b.ZERO)
        moved = b.either(b.compare("eq", moves, b.ZERO), b.load(self.moved[stream.name], (inside,), dt.bool_))
        follows = b.both(b.compare("eq", self._coordinate(left, b.add(middle, q)), b.add(named, moves)), moved)
        compared = lp.For(q.name, b.ZERO, b.sub(middle, begin), lp.Store(same, (), b.both(b.load(same, (), dt.bool_), follows)))
        found = lp.If(b.load(same, (), dt.bool_), lp.Store(step, (), moves))
        out.emit(lp.If(b.either(b.compare("eq", moves, b.ZERO), b.compare("eq", moves, b.ONE)), b.block(lp.Store(same, (), b.TRUE), compared, found)))
        inner = b.block(*out.levels.pop().stmts)
        out.emit(lp.If(b.both(sound, b.compare("eq", b.sub(middle, begin), b.sub(end, middle))), inner))
        outer = b.block(*out.levels.pop().stmts)
        out.emit(lp.If(b.compare("lt", first, row), outer))
        known = out.let(f"{stream.name}_step", b.load(step, (), dt.i64))
        source = stream.source
        assert isinstance(source, po.Drain)
        from_ = out.let(f"{stream.name}_before", b.load(before, (), dt.i64))
        self.streams.repeats[source.workspace] = Repeat(known, from_, start, factors.right)
        out.emit(lp.Store(before, (), start))

    def _position(self, of: tuple[str, int], at: lp.LoopExpr) -> lp.LoopExpr:
        name = f"{of[0]}.pos{of[1]}"
        self.out.used.add(name)
        return b.convert(b.load(name, (at,), self.out.storage.dtype(name)), dt.i64)

    def _coordinate(self, of: tuple[str, int], at: lp.LoopExpr) -> lp.LoopExpr:
        name = f"{of[0]}.crd{of[1]}"
        self.out.used.add(name)
        return b.convert(b.load(name, (at,), self.out.storage.dtype(name)), dt.i64)


def _array(place: Expr) -> str:
    """The array that an index is read from; "" if it is computed."""
    source = place.arg if isinstance(place, Cast) else place
    return source.array if isinstance(source, Load) else ""
