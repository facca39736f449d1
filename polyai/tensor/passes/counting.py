"""How much each row of a pattern stores, or can store, and the arrays that hold it: the steps that phases are made of.

    J.count[i: n] i64 = sum(j: m) 1   within J(i, j)                               or a bound of it, or what is pushed to the row
    J.pos1[p: n + 1] i64 = where(p > 0, J.pos1[p - 1] + J.count[p - 1], 0)
    J.crd1[i: n, j: m within J(i, j)] i32 = i32(j)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from polyai.errors import UnsupportedError
from polyai.scalar import dtype as dt
from polyai.scalar.expr import Const, Load, Var
from polyai.shapes.expr import Size
from polyai.tensor.bodies import (
    apply,
    convert,
    from_size,
    left_out,
    rename,
    row_in_blocks,
    stem,
    substitute,
    var,
)
from polyai.tensor.nodes import (
    Body,
    Comprehension,
    Index,
    Join,
    Pattern,
    Program,
    Reduce,
    Scatter,
    Spread,
    TensorType,
    Within,
)
from polyai.term.names import Names

_ONE = Const(1, dt.i64)
_LETTERS = ("i", "j", "k", "l", *("m",) * 60)


class Counting:
    """The steps that count, bound and store the patterns `made` of a program; `types` gains the index arrays that they read."""

    program: Program
    made: Mapping[str, Join | Scatter | Spread]
    types: dict[str, TensorType]
    names: Names

    def _is_wanted(self, target: str) -> bool:
        """Whether somebody wants the values of a pattern."""
        raise NotImplementedError

    def _bound(self, name: str, by: str = "") -> tuple[Comprehension, ...]:
        """How much each row of a pattern can store: the points that touch it, or what is stored of the operands that are joined.
        `by`: the scatter whose points tell how much work there is, of a pattern that holds no more than these touch."""
        step = self.made[by or name]
        row, *columns = self._rows_of(name)
        if isinstance(step, Scatter):
            assert step.type.format is not None
            fresh = {i.name: self.names.fresh(stem(i.name)) for i in step.indices}
            own: Scatter = rename(step, fresh)
            place = own.at[step.type.format.order[0]]
            if not isinstance(place, Var) or place.name not in {i.name for i in own.indices}:
                raise UnsupportedError(f"{name} is filled out of the order of its rows", "its points do not give a row each", "report this program")
            at = next(i for i in own.indices if i.name == place.name)
            begins = self._begins_of_rows(name, row, own, at)
            if begins is not None:
                return (begins,)
            over = tuple(i for i in own.indices if i is not at)
            whole, over, kept, each = self._whole_fibres(own, at, over)
            points = self._row_sum(f"{name}.points", at, over, kept, each)
            return (*whole, points, self._positions(name, row, points, at_most=columns[0].extent))
        assert isinstance(step, Join)
        clause = min(step.clauses, key=len)
        if all(self._has_positions(part.tensor) for part in clause):
            return (self._sum_of_positions(name, row, tuple(part.tensor for part in clause)),)
        lengths = []
        for number, part in enumerate(clause):
            i, *others = (Index(self.names.fresh(s.name), s.extent) for s in (row, *columns))
            new = {a.name: b.name for a, b in zip(self._in_order(name, step.indices), (i, *others))}
            part = Within(part.tensor, tuple(new[x] for x in part.indices))
            lengths.append(self._row_sum(f"{name}.length{number}", i, tuple(others), (part,)))
        return (*lengths, self._positions(name, row, *lengths))

    def _whole_fibres(self, step: Scatter, row: Index, over: tuple[Index, ...]) -> tuple[tuple[Comprehension, ...], tuple[Index, ...], tuple[Within, ...], Body]:
        """A walk of whole fibres whose coordinates nobody asks for is as long as they are:

            sum(k, j) 1   within A(i, k), B(k, j)   ->   sum(k) B.length[k]   within A(i, k)
        """
        for walk in reversed(step.within):
            if not self._has_positions(walk.tensor) or len(walk.indices) != 2:
                continue
            form = self.types[walk.tensor].format
            assert form is not None
            outer, inner = (walk.indices[d] for d in form.order)
            elsewhere = {x for w in step.within if w is not walk for x in w.indices}
            if inner in elsewhere or inner in (row.name, outer) or outer == row.name or outer not in elsewhere:
                continue
            extent = self.types[walk.tensor].shape[form.order[0]]
            self.types[f"{walk.tensor}.pos1"] = TensorType(dt.BY_NAME[f"i{form.index_bits}"], (extent + 1,))
            at = Index(self.names.fresh("r"), extent)
            begin, end = (
                convert(Load(f"{walk.tensor}.pos1", (x,), self.types[f"{walk.tensor}.pos1"].dtype), dt.i64)
                for x in (var(at), apply("add", dt.i64, var(at), Const(1, dt.i64)))
            )
            length = Comprehension(f"{step.target}.length", TensorType(dt.i64, (extent,)), (at,), apply("sub", dt.i64, end, begin))
            rest = tuple(i for i in over if i.name != inner)
            return (length,), rest, tuple(w for w in step.within if w is not walk), Load(length.target, (Var(outer, dt.i64),), dt.i64)
        return (), over, step.within, _ONE

    def _begins_of_rows(self, name: str, row: Index, step: Scatter, at: Index) -> Comprehension | None:
        """Points that are all that consecutive rows of a tensor store begin where the first of these rows does:

            T.pos1[p: n + 1] = A.pos2[p * 4]      points within A(i, i_in, j), with i_in < 4
        """
        if len(step.within) != 1 or len(step.indices) != len(step.within[0].indices):
            return None
        (walk,) = step.within
        type = self.types[walk.tensor]
        form = type.format
        if form is None or form.owned or form.parts or form.rank < 3 or len(form.levels) != form.rank or form.levels[-1].name != "compressed":
            return None
        *outer, _ = (type.shape[d] for d in form.order)
        if walk.indices[form.order[0]] != at.name or not all(level.full for level in form.levels[:-1]) or not all(isinstance(e, int) for e in outer[1:]):
            return None
        count = math.prod(e for e in outer[1:] if isinstance(e, int))
        positions = f"{walk.tensor}.pos{len(form.levels) - 1}"
        self.types[positions] = TensorType(dt.BY_NAME[f"i{form.index_bits}"], (row.extent * count + 1,))
        index = Index(self.names.fresh("p"), row.extent + 1)
        begin = Load(positions, (apply("mul", dt.i64, var(index), Const(count, dt.i64)),), self.types[positions].dtype)
        return Comprehension(f"{name}.pos1", TensorType(dt.i64, (index.extent,)), (index,), convert(begin, dt.i64))

    def _has_positions(self, tensor: str) -> bool:
        """True if an array of its own says where each of its rows begins."""
        form = self.types[tensor].format
        return form is not None and form.merged == 1 and not form.owned

    def _sum_of_positions(self, name: str, row: Index, parts: tuple[str, ...]) -> Comprehension:
        """Rows that hold as much as those of `parts` together begin at the sum of where these begin: index arrays are read as such."""
        at = Index(self.names.fresh("p"), row.extent + 1)
        for part in parts:
            form = self.types[part].format
            assert form is not None
            self.types[f"{part}.pos1"] = TensorType(dt.BY_NAME[f"i{form.index_bits}"], (at.extent,))
        begins = (convert(Load(f"{part}.pos1", (var(at),), self.types[f"{part}.pos1"].dtype), dt.i64) for part in parts)
        return Comprehension(f"{name}.pos1", TensorType(dt.i64, (at.extent,)), (at,), _sum(begins))

    def _has_row_loop(self, name: str) -> bool:
        """False for what has a single row, whatever its other size is: an index with one value is no loop."""
        type = self.made[name].type
        return type.format is not None and type.shape[type.format.order[0]] != 1

    def _in_order(self, name: str, indices: Sequence[Index]) -> tuple[Index, ...]:
        """The indices of a matrix, that of its rows first."""
        form = self.made[name].type.format
        assert form is not None
        return tuple(indices[d] for d in form.order)

    def _row_sum(self, target: str, row: Index, over: tuple[Index, ...], within: tuple[Within, ...], each: Body = _ONE) -> Comprehension:
        return Comprehension(target, TensorType(dt.i64, (row.extent,)), (row,), Reduce("add", over, each, dt.i64, within))

    def _positions(self, name: str, row: Index, *counts: Comprehension | Scatter, at_most: Size | None = None) -> Comprehension:
        """Where each row begins, if it holds the sum of `counts`."""
        at = Index(self.names.fresh("p"), row.extent + 1)
        before = apply("sub", dt.i64, var(at), Const(1, dt.i64))
        held = _sum(Load(c.target, (before,), dt.i64) for c in counts)
        if at_most is not None:
            held = apply("min", dt.i64, held, from_size(at_most))
        total = apply("add", dt.i64, Load(f"{name}.pos1", (before,), dt.i64), held)
        body = apply("where", dt.i64, apply("gt", dt.bool_, var(at), Const(0, dt.i64)), total, Const(0, dt.i64))
        return Comprehension(f"{name}.pos1", TensorType(dt.i64, (at.extent,)), (at,), body)

    def _rows_of(self, name: str) -> tuple[Index, ...]:
        """New indices of the rows and of what is listed in them of a pattern that is assembled: the columns of a matrix."""
        step = self.made[name]
        form, shape = step.type.format, step.type.shape
        assert form is not None
        if form.merged != 1:
            raise UnsupportedError(
                f"{name} is to be stored as {form.name} with {form.rank} dimensions",
                "assembled are matrices with compressed rows or columns, and slices that are lists",
                "sum over a dimension, or make an operand dense",
            )
        return tuple(Index(self.names.fresh(s), shape[d]) for s, d in zip(_LETTERS, form.order))

    def _count(self, name: str) -> tuple[Comprehension, ...]:
        """How much each row of a pattern stores."""
        row, *columns = self._rows_of(name)
        form = self.made[name].type.format
        assert form is not None
        within = Within(name, tuple(x.name for _, x in sorted(zip(form.order, (row, *columns)), key=lambda p: p[0])))
        count = self._row_sum(f"{name}.count", row, tuple(columns), (within,))
        return count, self._positions(name, row, count)

    def _values(self, step: Scatter) -> Comprehension:
        """What a scatter adds up at each coordinate of its pattern."""
        fresh = {i.name: self.names.fresh(stem(i.name)) for i in step.indices}
        own: Scatter = rename(step, fresh)
        places = [a.name for a in own.at if isinstance(a, Var)]
        by_name = {i.name: i for i in own.indices}
        over = tuple(i for i in own.indices if i.name not in places)
        body = Reduce(step.monoid or "add", over, own.body, step.type.dtype, own.within) if over else own.body
        indices, pattern = tuple(by_name[p] for p in places), Pattern(step.target, tuple(range(len(places))))
        type = TensorType(step.type.dtype, step.type.shape, None, pattern)
        return Comprehension(f"{step.target}.val", type, indices, body, (Within(step.target, tuple(places)),))

    def _run_ends(self, step: Spread) -> tuple[Comprehension, ...]:
        """How long the runs are, and where each begins."""
        row = Index(self.names.fresh(stem(step.indices[0].name)), step.indices[0].extent)
        length = substitute(step.length, {step.indices[0].name: var(row)})
        lengths = Comprehension(f"{step.target}.count", TensorType(dt.i64, (row.extent,)), (row,), convert(length, dt.i64))
        return lengths, self._positions(step.target, row, lengths)

    def _counted_pushes(self, name: str) -> tuple[Comprehension | Scatter, ...]:
        """How much is pushed to each row of a pattern that a scatter without a monoid makes."""
        row = self._rows_of(name)[0]
        step = self.made[name]
        assert isinstance(step, Scatter) and step.type.format is not None
        place = step.at[step.type.format.order[0]]
        known = self._begins_in_blocks(name, row, step)
        if known is not None:
            return (known,)
        if isinstance(place, Var) and not step.within and any(i.name == place.name for i in step.indices):
            counts = self._counted_row_by_row(name, step, place.name)
            return counts, self._positions(name, row, counts)
        counted = self._counted_in_any_order(name, step, row)
        return (*counted, self._positions(name, row, counted[-1]))

    def _begins_in_blocks(self, name: str, row: Index, step: Scatter) -> Comprehension | None:
        """Where rows begin that get all that dense blocks store, one row for each of their rows:

            T.pos1[p: n + 1] = (A.pos1[p // 4] * 4 + (p % 4) * (A.pos1[p // 4 + 1] - A.pos1[p // 4])) * 8      A in blocks of 4 x 8
        """
        assert step.type.format is not None
        cut = row_in_blocks(step, step.type.format.order[0])
        if cut is None or len(step.within) != 1 or len(step.indices) != len(step.within[0].indices):
            return None
        (walk,), (outer, inner) = step.within, cut
        type = self.types[walk.tensor]
        form = type.format
        if form is None or form.parts or len(form.levels) != form.rank or not form.tail or form.levels[1].name != "compressed" or len(form.levels) != 2 + form.tail:
            return None
        extents = [type.shape[d] for d in form.order[2:]]
        names = [walk.indices[d] for d in form.order]
        if names[0] != outer.name or inner.name not in names[2:] or not all(isinstance(e, int) for e in extents):
            return None
        height = type.shape[walk.indices.index(inner.name)]
        assert isinstance(height, int)
        width = math.prod(e for e in extents if isinstance(e, int)) // height
        self.types[f"{walk.tensor}.pos1"] = TensorType(dt.BY_NAME[f"i{form.index_bits}"], (outer.extent + 1,))
        at = Index(self.names.fresh("p"), row.extent + 1)
        block, place = (apply(op, dt.i64, var(at), Const(height, dt.i64)) for op in ("floordiv", "mod"))
        after = apply("min", dt.i64, apply("add", dt.i64, block, Const(1, dt.i64)), from_size(outer.extent))
        begin, end = (convert(Load(f"{walk.tensor}.pos1", (x,), self.types[f"{walk.tensor}.pos1"].dtype), dt.i64) for x in (block, after))
        before = apply("add", dt.i64, apply("mul", dt.i64, begin, Const(height, dt.i64)), apply("mul", dt.i64, place, apply("sub", dt.i64, end, begin)))
        body = apply("mul", dt.i64, before, Const(width, dt.i64))
        return Comprehension(f"{name}.pos1", TensorType(dt.i64, (at.extent,)), (at,), body)

    def _counted_row_by_row(self, name: str, step: Scatter, row: str) -> Comprehension:
        """How many elements each row gets, of a pattern whose rows are touched one after another."""
        fresh = {i.name: self.names.fresh(stem(i.name)) for i in step.indices}
        again: Scatter = rename(step, fresh)
        at = next(i for i in again.indices if i.name == fresh[row])
        one: Body = Const(1, dt.i64)
        for condition in (left_out(a)[1] for a in again.at):
            one = one if condition is None else apply("where", dt.i64, condition, one, Const(0, dt.i64))
        return self._row_sum(f"{name}.count", at, tuple(i for i in again.indices if i is not at), (), one)

    def _counted_in_any_order(self, name: str, step: Scatter, row: Index) -> tuple[Comprehension | Scatter, ...]:
        """How many elements each row gets, of a pattern whose elements come in another order."""
        type = TensorType(dt.i64, (row.extent,))
        zeros = Comprehension(f"{name}.none", type, (row,), Const(0, dt.i64))
        fresh = {i.name: self.names.fresh(stem(i.name)) for i in step.indices}
        again: Scatter = rename(step, fresh)
        assert step.type.format is not None
        at, conditions = zip(*(left_out(a) for a in again.at))
        one: Body = Const(1, dt.i64)
        for condition in conditions:
            one = one if condition is None else apply("where", dt.i64, condition, one, Const(0, dt.i64))
        place = (at[step.type.format.order[0]],)
        return zeros, Scatter(f"{name}.count", type, zeros.target, "add", again.indices, place, one, again.within)

    def _fill(self, name: str, later: bool) -> list[Comprehension]:
        """The coordinates of a pattern, and its values where somebody wants them: `later`, along the pattern itself."""
        step = self.made[name]
        form, shape = step.type.format, step.type.shape
        assert form is not None
        pattern = Pattern(name, tuple(range(len(shape))))

        def along(target: str, dtype: dt.DType, level: int | None) -> Comprehension:
            indices = tuple(Index(self.names.fresh(s), e) for s, e in zip(_LETTERS, shape))
            within = Within(name, tuple(i.name for i in indices))
            body = Load(name, tuple(var(i) for i in indices), dtype) if level is None else convert(var(indices[form.order[level]]), dtype)
            return Comprehension(target, TensorType(dtype, shape, None, pattern), indices, body, (within,))

        out = [along(f"{name}.crd{level}", dt.BY_NAME[f"i{form.index_bits}"], level) for level in range(1, len(shape))]
        if isinstance(step, Scatter) and (later or self._is_wanted(name)):
            out.append(along(f"{name}.val", step.type.dtype, None))
        return out


def skeleton(step: Scatter) -> Scatter:
    """Which dense blocks a scatter touches, whose target stores whole blocks: its pattern without them.

        C[i // 4, i % 4, j // 8, j % 8] += A[i, j]   ->   C[i // 4, j // 8] |= True
    """
    form = step.type.format
    assert form is not None
    kept = sorted(form.order[: form.rank - form.tail])
    levels, order = form.levels[: len(kept)], tuple(kept.index(d) for d in form.order[: len(kept)])
    shape = tuple(step.type.shape[d] for d in kept)
    type = TensorType(dt.bool_, shape, replace(form, name="csr" if order == (0, 1) else "csc", order=order, levels=levels), Pattern(step.target, tuple(range(len(kept)))))
    return replace(step, type=type, monoid="or", at=tuple(step.at[d] for d in kept), body=Const(True, dt.bool_))


def along_blocks(step: Scatter) -> Scatter:
    """The values of a scatter along its own pattern, once that is assembled."""
    type = TensorType(step.type.dtype, step.type.shape, None, step.type.pattern)
    return replace(step, target=f"{step.target}.val", type=type)


def _sum(terms: Iterable[Body]) -> Body:
    """The sum of i64 expressions."""
    first, *rest = terms
    for term in rest:
        first = apply("add", dt.i64, first, term)
    return first
