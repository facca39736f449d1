"""Fibres at hand: where they begin and end, what is checked of them, what is fetched ahead.

    let A_begin1 = i64(A.pos1[i])
    let A_end1 = i64(A.pos1[i + 1])
    check A_begin1 <= A_end1 <= A.nnz
    let A_len1 = A_end1 - A_begin1

Index arrays are borrowed and may hold anything, so that bounds are checked where they are read; of merged fibres also the order.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

from polyai.errors import VerifyError
from polyai.loop import build as b
from polyai.loop import nodes as lp
from polyai.lower.ast_walk import Instance, Loop, instances
from polyai.lower.emitter import Emitter
from polyai.lower.exprs import loads_in
from polyai.lower.grouping import Groupings
from polyai.lower.statement import Body, counted_from_the_end
from polyai.lower.stream import Streams, walks_all
from polyai.lower.workspace import Fibre
from polyai.poly import nodes as po
from polyai.scalar import dtype as dt
from polyai.scalar.expr import Apply, Cast, Expr, Load, Var
from polyai.sparse.levels.compressed import Compressed
from polyai.sparse.levels.singleton import Singleton
from polyai.tensor import nodes as tn

AHEAD = 8
"""How many stored elements ahead the fibre is fetched that a coordinate names."""


class Fibres:
    """Emits the bounds of fibres. `weights` collects by loop the positions that measure its work; `hulls` holds the levels whose
    longest fibre sizes a buffer; `loops` the loops at hand by isl's iterators; `packed` by stream the row at hand and where it begins."""

    def __init__(self, out: Emitter, program: tn.Program, streams: Streams, groupings: Groupings) -> None:
        self.out, self.scop, self.storage, self.streams, self.groupings = out, out.scop, out.storage, streams, groupings
        self.statements = {s.name: s for s in out.scop.statements}
        self.ascending = {i.name for i in program.inputs if i.unique}
        self.complete = program.complete
        self.weights: dict[str, str] = {}
        self.hulls: dict[str, tuple[str, int]] = {}
        self.loops: dict[str, Loop] = {}
        self.packed: dict[str, tuple[lp.Var, lp.LoopExpr]] = {}

    def stay_inside(self, dim: po.RaggedDim, statement: po.Statement, found: Instance) -> bool:
        """Whether the loops around run over the fibre's parents only, whichever statement they run for."""
        for parent, arg in zip(statement.dims, found.args):
            if parent not in dim.parents:
                continue
            if not isinstance(arg, lp.Var) or arg.name not in self.loops:
                return False
            extent = statement.extents[statement.dims.index(parent)]
            loop = self.loops[arg.name]
            if loop.lower == b.ZERO and not isinstance(extent, po.Ragged) and loop.upper == self.out.size(extent):
                continue
            for other in instances(loop.body):
                extents = self.statements[other.statement].extents
                if not any(a == arg and e == extent for a, e in zip(other.args, extents)):
                    return False
        return True

    def enter(self, dim: po.RaggedDim, values: Mapping[str, lp.LoopExpr], inside: bool) -> None:
        if dim.stream:
            return self._open_stream(dim, values, inside)
        begin, end = self._bounds_of(dim, values, inside)
        if dim.pieces and dim.level == dim.cut:
            begin, end = self._piece(dim, values[dim.piece], begin, end)
        length = self.out.let(f"{dim.tensor}_len{dim.level}", b.sub(end, begin))
        if dim.hull in self.hulls:
            self.out.emit(lp.Check(b.at_most(length, b.var(dim.hull)), self.out.fibre_site(dim.tensor, dim.level), length))
        form = self.storage.stored[dim.tensor].type.format
        level = form.levels[dim.level]  # type: ignore[union-attr]
        if dim.tensor in self.ascending and not form.owned and isinstance(level, Compressed) and level.unique and not level.computed:  # type: ignore[union-attr]
            self._ascends(f"{dim.tensor}.crd{dim.level}", begin, length, self.out.order_site(dim.tensor, dim.level))
        self.out.begins[(dim.tensor, dim.level)] = begin
        self.out.env[dim.length] = length
        self.groupings.row(dim.tensor, begin, end)

    def _open_stream(self, dim: po.RaggedDim, values: Mapping[str, lp.LoopExpr], inside: bool) -> None:
        """What a stream is made of, at hand: the fibres of a merge, checked to be ordered and in range; where arrays along it begin."""
        stream = self.scop.stream(dim.tensor)
        assert stream is not None
        if not isinstance(stream.source, po.Drain):
            fibres = []
            for tensor, level in stream.source.parts:
                part = dataclasses.replace(dim, tensor=tensor, level=level, stream=False)
                begin, end = self._bounds_of(part, values, inside)
                names = tuple(f"{tensor}.crd{level + n}" for n in range(1 + len(stream.inner)))
                site, fibre = self.out.order_site(tensor, level), Fibre(tensor, level, names, begin, end)
                if isinstance(stream.source, po.Located):
                    if tensor not in self.ascending:  # else it was found when the row was set
                        self._ascends(names[0], begin, self.out.let(f"{tensor}_len{level}", b.sub(end, begin)), site)
                elif not walks_all(stream.source):
                    length = self.out.let(f"{tensor}_len{level}", b.sub(end, begin))
                    if stream.inner:
                        self._pairs_ascend(stream, fibre, length, site)
                    else:
                        self._ascends(names[0], begin, length, site)
                        self._ends_in_range(names[0], begin, end, self.out.size(stream.extent), self.out.range_site(tensor, level))
                self.out.begins[(tensor, level)] = begin
                fibres.append(fibre)
            self.streams.fibres[stream.name] = fibres
        self.out.env[dim.length] = self.out.size(stream.places)  # the most there is, for conditions around the loop; it ends by itself
        if stream.assembled:
            begin, end = self._bounds_of(dim, values, inside)
            self.out.begins[(dim.tensor, dim.level)] = self.packed[stream.name][1] if stream.packed else begin
            self.out.env[dim.length] = length = self.out.let(f"{dim.tensor}_len{dim.level}", b.sub(end, begin))
            if stream.packed and isinstance(stream.source, po.Merge):
                most = [self._together(self.streams.fibres[stream.name], clause) for clause in stream.source.clauses]
                fits = functools.reduce(b.either, (b.at_most(m, length) for m in most))
                self.out.emit(lp.Check(fits, self.out.changed_site(stream.name), length))

    def _together(self, fibres: list[Fibre], clause: tuple[int, ...]) -> lp.LoopExpr:
        """How much the parts of a clause store, and so the most that the merge gives."""
        return functools.reduce(b.add, (b.sub(fibres[n].end, fibres[n].begin) for n in clause))

    def _ends_in_range(self, coordinates: str, begin: lp.LoopExpr, end: lp.LoopExpr, extent: lp.LoopExpr, site: int) -> None:
        """Check the first and the last coordinate of an ordered fibre; all others lie between them."""
        self.out.used.add(coordinates)
        index = self.storage.dtype(coordinates)
        checks = []
        for at in (begin, b.sub(end, b.ONE)):
            here = b.convert(b.load(coordinates, (at,), index), dt.i64)
            checks.append(lp.Check(b.below(here, extent), site, here))
        self.out.emit(lp.If(b.compare("lt", begin, end), b.block(*checks)))

    def _bounds_of(self, dim: po.RaggedDim, values: Mapping[str, lp.LoopExpr], inside: bool) -> tuple[lp.LoopExpr, lp.LoopExpr]:
        """Where the fibre of a dim begins and ends, checked to lie in its arrays."""
        owner = self.storage.stored[dim.tensor]
        format_ = owner.type.format
        if format_ is None:
            raise VerifyError(f"{dim.tensor} has no format")
        places = values
        if dim.place:
            places = {name: self._placed(dim, number, e, values) for number, (name, e) in enumerate(zip(_numbered(dim.place), dim.place))}
            dim = dataclasses.replace(dim, parents=_numbered(dim.place))
        parent = self.storage.position(dim, places, self.out.begins)
        shape = self.out.size(owner.type.shape[format_.order[dim.level]])
        if isinstance(parent, lp.Apply):
            parent = self.out.let("parent", parent)
        bounds = format_.levels[dim.level].bounds(dim.tensor, dim.level, parent, shape)  # type: ignore[arg-type]
        limit = None if inside else self.out.size(owner.parents(dim.level))  # beyond it, a fibre is empty
        begin, end = (self._index_array(e, limit) for e in bounds)
        begin = self.out.let(f"{dim.tensor}_begin{dim.level}", begin)
        end = self.out.let(f"{dim.tensor}_end{dim.level}", end)
        ok = b.both(b.at_most(begin, end), b.at_most(end, self.out.size(owner.counts[dim.level])))
        site = self.out.fibre_site(dim.tensor, dim.level)
        if not format_.owned:
            self.out.emit(lp.Check(ok, site, end))
        level = format_.levels[dim.level]
        if isinstance(level, Compressed) and level.run:
            first = self._index_array(Load(f"{dim.tensor}.crd{dim.level}", (parent,), dt.i64), limit)  # type: ignore[arg-type]
            self.out.firsts[(dim.tensor, dim.level)] = self.out.let(f"{dim.tensor}_first{dim.level}", first)
        if inside and not dim.place and isinstance(parent, lp.Var) and level.name == "compressed":
            measured = f"{dim.tensor}.pos{dim.level}"
            if dim.tensor in self.complete:  # what a product stores tells more of its work than what its left operand does
                self.weights[parent.name] = measured
            self.weights.setdefault(parent.name, measured)
        return begin, end

    def _look_ahead(self, dim: po.RaggedDim, place: Expr, statement: po.Statement, values: Mapping[str, lp.LoopExpr], rows: lp.LoopExpr, known: bool) -> None:
        """Hints for fibres that a list of coordinates names: their positions first, then where they begin. The list goes on into the
        next fibre, so that short ones are looked past; its end stands for what lies beyond."""
        source = place.arg if isinstance(place, Cast) else place
        if not isinstance(source, Load) or source.array not in self.storage.levels or f"{dim.tensor}.pos{dim.level}" not in self.storage.levels:
            return
        if self.storage.computed(source.array) is not None:
            return
        owner, _ = self.storage.levels[source.array]
        at = [Body(self.out, statement, values, self.streams).value(i, None) for i in source.indices]
        (position,) = self.storage.place(source.array, at, self.out.begins)
        last = b.sub(self.out.size(owner.counts[-1]), b.ONE)
        pos = f"{dim.tensor}.pos{dim.level}"

        def named(ahead: int) -> lp.LoopExpr:
            then = b.smallest(b.add(position, b.const(ahead)), last)
            return b.convert(b.load(source.array, (then,), self.storage.dtype(source.array)), dt.i64)

        self.out.emit(lp.Prefetch(pos, named(2 * AHEAD)))
        ahead = self.out.let("ahead", named(AHEAD))
        row = ahead if known else b.where(b.below(ahead, rows), ahead, b.ZERO)
        begin = self.out.let("ahead_begin", b.convert(b.load(pos, (row,), self.storage.dtype(pos)), dt.i64))
        reads = {n.array for s in self.scop.statements for root in s.roots for n in loads_in(root)}
        for array in (f"{dim.tensor}.crd{dim.level}", f"{dim.tensor}.val"):
            if array in reads:
                self.out.emit(lp.Prefetch(array, begin))

    def _placed(self, dim: po.RaggedDim, number: int, place: Expr, values: Mapping[str, lp.LoopExpr]) -> lp.LoopExpr:
        """Where a fibre is along a level above, if a coordinate of another walk says so: checked to be in range."""
        if isinstance(place, Var):
            return values[place.name]
        owner = self.storage.stored[dim.tensor]
        assert owner.type.format is not None
        dense = [k for k, level in enumerate(owner.type.format.levels[: dim.level]) if not isinstance(level, Singleton)]
        dimension = owner.type.format.order[dense[number]]
        extent = owner.type.shape[dimension]
        statement = next(s for s in self.scop.statements for r in s.ragged if (r.tensor, r.level, r.place) == (dim.tensor, dim.level, dim.place))
        body = Body(self.out, statement, values, self.streams)
        at, given = body.value(place, None), counted_from_the_end(place)
        at = at if isinstance(at, lp.Var) else self.out.let("place", at)
        known = self.storage.is_known_below(place, extent)
        self._look_ahead(dim, place, statement, values, self.out.size(extent), known)
        if known:
            return at
        ok = b.below(at, self.out.size(extent))
        self.out.check(ok, self.out.place_site(place, dim.tensor, dimension, extent), at if given is None else b.convert(body.value(given, None), dt.i64), max(self.out.hoisted(ok), self.out.hoisted(at)))
        return at

    def _piece(self, dim: po.RaggedDim, number: lp.LoopExpr, begin: lp.LoopExpr, end: lp.LoopExpr) -> tuple[lp.Var, lp.Var]:
        """What a fibre shares with piece `number` of its level: the first pieces have one element more if it does not divide. The
        outermost level has one fibre, which holds the piece."""
        count = b.const(dim.pieces)
        lower, upper = (begin, end) if not dim.cut else (b.ZERO, self.out.size(self.storage.stored[dim.tensor].counts[dim.level]))
        whole, over = (op(b.sub(upper, lower), count) for op in (b.floordiv, b.mod))
        share, rest = self.out.let("share", whole), self.out.let("rest", over)
        first, last = (b.add(lower, b.add(b.mul(n, share), b.smallest(n, rest))) for n in (number, b.add(number, b.ONE)))
        if dim.cut:
            first = self.out.let("first", b.largest(begin, first))
            last = b.largest(first, b.smallest(end, last))
        return self.out.let(f"{dim.tensor}_from", first), self.out.let(f"{dim.tensor}_to", last)

    def _ascends(self, coordinates: str, begin: lp.LoopExpr, length: lp.LoopExpr, site: int) -> None:
        """Check that each coordinate of a fibre is larger than the one before: none repeats."""
        self.out.used.add(coordinates)
        at, index = b.var(self.out.names.fresh("r")), self.storage.dtype(coordinates)
        before, here = (b.load(coordinates, (b.add(begin, x),), index) for x in (b.sub(at, b.ONE), at))
        check = lp.Check(b.apply("lt", (before, here), dt.bool_), site, b.convert(here, dt.i64))
        self.out.emit(lp.For(at.name, b.ONE, length, lp.Block((check,)), lp.Kind.VECTOR))

    def _pairs_ascend(self, stream: po.Stream, fibre: Fibre, length: lp.LoopExpr, site: int) -> None:
        """Check of a list that each element's coordinates are behind those of the one before, as `_ascends` does of single ones."""
        self.out.used.update(fibre.coordinates)
        at = b.var(self.out.names.fresh("r"))

        def whole(place: lp.LoopExpr) -> lp.LoopExpr:
            loads = (b.convert(b.load(c, (b.add(fibre.begin, place),), self.storage.dtype(c)), dt.i64) for c in fibre.coordinates)
            return self.streams.joined(stream, tuple(loads))

        here = whole(at)
        check = lp.Check(b.compare("lt", whole(b.sub(at, b.ONE)), here), site, here)
        self.out.emit(lp.For(at.name, b.ONE, length, lp.Block((check,)), lp.Kind.VECTOR))

    def _index_array(self, expr: Expr, limit: lp.LoopExpr | None = None) -> lp.LoopExpr:
        """An expression of a level, with its index arrays read at their own width, at places from 0 to `limit`."""
        match expr:
            case Load(array, (index,), dtype):
                self.out.used.add(array)
                at = self._index_array(index)
                at = at if limit is None else b.smallest(b.largest(at, b.ZERO), limit)
                return b.convert(b.load(array, (at,), self.storage.dtype(array)), dtype)
            case Apply("add", (x, y)):
                return b.add(self._index_array(x, limit), self._index_array(y, limit))
            case Apply(op, args, dtype):
                return b.apply(op, tuple(self._index_array(a, limit) for a in args), dtype)
            case Cast(arg, dtype):
                return b.convert(self._index_array(arg, limit), dtype)
            case _:
                return expr


def _numbered(places: tuple[Expr, ...]) -> tuple[str, ...]:
    return tuple(f"place{n}" for n in range(len(places)))
