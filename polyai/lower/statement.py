"""One statement instance as steps: its value, its indices, and the checks they need.

    Y[i, j] = where(j >= 1, X[idx[i], j - 1], 0)

    let idx = i64(idx[i])                         further out if a loop inside does not change it
    check 0 <= idx < n                            memory holds it, so nothing proved it
    let inside = j >= 1
    Y[i, j] = where(inside, (X[idx, j - 1] if inside), 0)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_never

from polyai.loop import build as b
from polyai.loop import nodes as lp
from polyai.lower.emitter import Emitter, Level
from polyai.lower.exprs import loads_in, rebuild
from polyai.lower.grouping import Groupings
from polyai.lower.stream import Streams
from polyai.poly import nodes as po
from polyai.poly.affine import affine, refuted, weakest
from polyai.poly.legal import guarded_loads, hidden_loads
from polyai.scalar import dtype as dt
from polyai.scalar.dtype import DType
from polyai.scalar.expr import Apply, Cast, Const, Expr, Load, Var
from polyai.scalar.ops import MONOIDS
from polyai.shapes.expr import Size
from polyai.tensor import nodes as tn
from polyai.tensor.bodies import from_size, zero


class Body:
    """One instance of a statement: its value, its indices, their checks."""

    def __init__(self, out: Emitter, statement: po.Statement, values: Mapping[str, lp.LoopExpr], streams: Streams, groupings: Groupings | None = None) -> None:
        self.out, self.statement, self.values, self.streams, self.groupings = out, statement, values, streams, groupings
        self.names = {*statement.dims, *out.scop.parameters}
        self.certain: set[tuple[str, tuple[Expr, ...]]] = set()
        self.held: tuple[Expr, ...] = ()  # conditions that hold where the expression at hand is wanted
        self.placed: lp.LoopExpr | None = None  # those of them that may say where it reads: what memory holds does not

    def store(self) -> None:
        """Append the instance."""
        s, out = self.statement, self.out
        if s.pushes:
            self._check_coordinates([*s.at, *((s.when,) if s.when is not None else ()), *(e for _, e in s.pushes)])
        if s.when is not None:
            test = self.value(s.when, None)
            out.levels.append(Level([], branch=True))
            self._store()
            then = b.block(*out.levels.pop().stmts)
            out.emit(lp.If(test, then))
            return
        self._store()

    def _store(self) -> None:
        s, out = self.statement, self.out
        dtype = out.storage.dtype(s.target)
        if s.groups:
            return self._grouped()
        if s.monoid is not None:
            self.certain.add((s.target, s.at))
        value = b.convert(self.value(s.value, None), dtype)
        if out.storage.arrays[s.target].role == "workspace":
            *_, place = out.storage.place(s.target, self.indices(s.target, s.at, None), out.begins)
            if s.target in self.streams.located:
                self.streams.update_located(s.target, place, value, None if s.monoid is None else MONOIDS[s.monoid].op, dtype)
            elif s.target in out.unread:
                self.streams.mark(s.target, place)
            else:
                self.streams.update(s.target, place, value, None if s.monoid is None else MONOIDS[s.monoid].op, dtype)
            return
        at = out.storage.place(s.target, self.indices(s.target, s.at, None), out.begins)
        if s.pushes:
            self._push(b.load(s.target, at, dtype))
        if s.monoid is not None:
            value = b.apply(MONOIDS[s.monoid].op, (b.load(s.target, at, dtype), value), dtype)
        out.emit(lp.Store(s.target, at, value))
        for read in dict.fromkeys(n for n in loads_in(s.value) if out.storage.arrays[n.array].taken):
            taken = out.storage.place(read.array, self.indices(read.array, read.indices, None), out.begins)
            out.emit(lp.Store(read.array, taken, zero(read.dtype)))

    def _check_coordinates(self, exprs: list[Expr]) -> None:
        """Check the coordinates of arguments that decide what is stored, and where: no access does it for those that are only handed on."""
        out = self.out
        for load in dict.fromkeys(load for e in exprs for load in loads_in(e)):
            listed = out.storage.listed(load.array)
            if listed is not None:
                tensor, level, extent = listed
                coordinate = out.let("coordinate", b.convert(self.load(load, None, load.dtype), dt.i64))
                ok = b.below(coordinate, out.size(extent))
                out.emit(lp.Check(ok, out.range_site(tensor, level, "it is stored in the result, or left out of it"), coordinate))

    def _push(self, cursor: lp.LoopExpr) -> None:
        """Store what the statement pushes at the cursor's position, which must lie in the arrays."""
        out = self.out
        values = [(array, b.convert(self.value(e, None), out.storage.arrays[array].dtype)) for array, e in self.statement.pushes]
        position = out.let("position", cursor)
        extent = out.storage.arrays[values[0][0]].extents[0]
        assert not isinstance(extent, po.Ragged)
        out.emit(lp.Check(b.below(position, out.size(extent)), out.changed_site(values[0][0].rpartition(".")[0]), position))
        for array, value in values:
            out.emit(lp.Store(array, (position,), value))

    def _grouped(self) -> None:
        """Count the instance in its group, or store what it pushes there. Coordinates that memory gives are checked."""
        s, out = self.statement, self.out
        grouping = out.scop.grouping(s)
        assert grouping is not None and self.groupings is not None
        (group,) = self.indices(s.target, s.at, None)
        values = [(array, b.convert(self.value(e, None), out.storage.arrays[array].dtype)) for array, e in s.pushes]
        if s.pushes and next(loads_in(s.pushes[0][1]), None) is not None:
            coordinate = b.convert(values[0][1], dt.i64)
            form = tn.types_of(out.program)[grouping.name].format
            site = out.place_site(s.pushes[0][1], grouping.name, form.order[-1] if form is not None else 1, grouping.extent)
            out.emit(lp.Check(b.below(coordinate, out.size(grouping.extent)), out.site(site), coordinate))
        self.groupings.instance(grouping, group, values)

    def value(self, expr: Expr, guard: lp.LoopExpr | None) -> lp.LoopExpr:
        """`expr` at this instance; `guard` holds where its value is wanted."""
        match expr:
            case Const():
                return expr
            case Var(name):
                found = self.values.get(name)
                return self._size(name) if found is None else found
            case Cast(Load(array) as inner, dtype) if array in self.out.storage.levels:
                return self.load(inner, guard, dtype)
            case Cast(arg, dtype):
                return b.convert(self.value(arg, guard), dtype)
            case Load():
                return self.load(expr, guard, expr.dtype)
            case Apply("where", (condition, a, c), dtype):
                test = self.value(condition, guard)
                if isinstance(test, lp.Const):  # where a merge knows who is there, the other branch has no meaning
                    return b.convert(self.value(a if test.value else c, guard), dtype)
                if not isinstance(test, (lp.Var, lp.Const)) and self._needs_guard(a, c):
                    test = self.out.let("inside", test)
                yes = test if guard is None else b.both(guard, test)
                no = b.negation(test) if guard is None else b.both(guard, b.negation(test))
                held, placed = self.held, self.placed
                self.held = (*held, *_conjuncts(condition))
                if weakest(condition, self.names) is not None:
                    self.placed = test if placed is None else b.both(placed, test)
                taken = b.convert(self.value(a, yes), dtype)
                self.held, self.placed = held, placed
                if refuted(condition, self.names) is not None:
                    self.placed = b.negation(test) if placed is None else b.both(placed, b.negation(test))
                other = b.convert(self.value(c, no), dtype)
                self.placed = placed
                return b.where(test, taken, other)
            case Apply(op, args, dtype):
                return rebuild(op, tuple(self.value(a, guard) for a in args), dtype)
            case _:
                assert_never(expr)

    def _needs_guard(self, *exprs: Expr) -> bool:
        return any(not self._in_range(read) for e in exprs for read in loads_in(e))

    def _size(self, name: str) -> lp.LoopExpr:
        size = None if name in self.out.order else self.out.sizes.get(name)
        return self.out.symbol(name) if size is None else self.out.size(size)

    def load(self, expr: Load, guard: lp.LoopExpr | None, dtype: DType) -> lp.LoopExpr:
        """An element as `dtype`. Where only `guard` keeps it in its array, it is read under that mask, or under the conditions on
        sizes and indices in it if they are enough."""
        out, array = self.out, expr.array
        if out.storage.arrays[array].role == "stream":
            return b.convert(out.virtual[array], dtype)
        level = out.storage.computed(array)
        if level is not None:
            indices = self.indices(array, expr.indices, guard)
            first = out.firsts.get((level.tensor, level.level))
            return b.convert(out.storage.place(array, indices, out.begins)[0] if first is None else b.add(first, indices[-1]), dtype)
        safe = guard is None or self._in_range(expr)
        if guard is None:
            self.certain.add((array, expr.indices))
        if not safe and self.placed is not None and not self._is_hidden(expr) and all(affine(i, self.names) is not None for i in expr.indices):
            guard = self.placed
        at = out.storage.place(array, self.indices(array, expr.indices, guard, None if safe else expr), out.begins)
        out.used.add(array)
        if not safe and guard is not None and at:  # a register can be read always
            return b.convert(lp.MaskedLoad(array, at, guard, out.storage.dtype(array)), dtype)
        value = b.convert(b.load(array, at, out.storage.dtype(array)), dtype)
        if array in out.storage.levels:
            return out.let(array, value, out.hoisted(value))
        return value

    def _in_range(self, expr: Load) -> bool:
        """True if `expr` may be made whatever a condition around it says."""
        if not expr.indices or (expr.array, expr.indices) in self.certain:
            return True
        if any(isinstance(i, Load) and i.array in self.out.loose for i in expr.indices):
            return False
        extents = self.out.storage.arrays[expr.array].extents
        if any(affine(i, self.names) is None and not self._coordinates(i) and not self._known(i, e) for i, e in zip(expr.indices, extents)):
            return False
        name = self.statement.name
        if name not in self.out.held_back:
            self.out.held_back[name] = guarded_loads(self.statement, self.out.scop)
        return expr not in self.out.held_back[name]

    def _is_hidden(self, expr: Load) -> bool:
        """True if only what memory holds may keep the affine indices of `expr` in their array."""
        name = self.statement.name
        if name not in self.out.hidden:
            self.out.hidden[name] = hidden_loads(self.statement, self.out.scop)
        return expr in self.out.hidden[name]

    def indices(self, array: str, indices: tuple[Expr, ...], guard: lp.LoopExpr | None, load: Load | None = None) -> list[lp.LoopExpr]:
        """Logical indices; those that isl has not proved are named and checked. `load`: what is read, if only conditions keep it in its array."""
        out = self.out
        hidden = load is not None and self._is_hidden(load)
        found: list[lp.LoopExpr] = []
        for d, index in enumerate(indices):
            under = None if self._coordinates(index) else guard
            x = b.convert(self.value(index, under), dt.i64)
            extent = out.storage.arrays[array].extents[d]
            if (hidden or affine(index, self.names) is None) and not self._known(index, extent) and not self._proved(index, array, d):
                if not isinstance(x, (lp.Var, lp.Const)):
                    x = out.let("index", x, out.hoisted(x) if under is None else None)
                limit = out.env[po.length_of(extent.tensor, extent.level)] if isinstance(extent, po.Ragged) else out.size(extent)
                ok = b.below(x, limit)
                if under is not None:
                    ok = b.either(b.negation(under), ok)
                level = max(out.hoisted(ok), out.hoisted(x))
                given = counted_from_the_end(index)
                culprit = x if given is None else b.convert(self.value(given, under), dt.i64)
                out.check(ok, out.index_site(index, array, d), culprit, level)
            found.append(x)
        return found

    def _known(self, index: Expr, extent: Size | po.Ragged) -> bool:
        """True if `index` is in range by construction (a coordinate or a place that a stream gives), or was found to be."""
        if isinstance(index, Load) and self.out.storage.arrays[index.array].role == "stream":
            return True
        if isinstance(extent, po.Ragged):
            return False
        match index:
            case Apply("add", (start, Var(dim))) if dim in self.statement.dims:  # a run that starts where memory says
                run = self.statement.extents[self.statement.dims.index(dim)]
                return isinstance(run, int) and self.out.storage.is_known_below(start, extent - run + 1)
            case _:
                return self.out.storage.is_known_below(index, extent)

    def _proved(self, index: Expr, array: str, dimension: int) -> bool:
        """True if the condition around says that 0 <= index < extent: where it does not hold, nothing is read."""
        extent = self.out.storage.arrays[array].extents[dimension]
        if not self.held or isinstance(extent, po.Ragged):
            return False
        wanted = (Apply("ge", (index, Const(0, dt.i64)), dt.bool_), Apply("lt", (index, from_size(extent)), dt.bool_))  # type: ignore[arg-type]
        return all(w in self.held for w in wanted)

    def _coordinates(self, index: Expr) -> bool:
        """True if `index` reads stored coordinates only: those are valid, or the matrix is not. What a condition around compares, as
        what is made of a coordinate and may lie elsewhere, is none."""
        sources = [x.array for x in loads_in(index)]
        compared = any(isinstance(c, Apply) and index in c.args for c in self.held)
        return bool(sources) and all(a in self.out.storage.levels for a in sources) and not compared


def _conjuncts(condition: Expr) -> tuple[Expr, ...]:
    match condition:
        case Apply("and", (a, c)):
            return (*_conjuncts(a), *_conjuncts(c))
        case _:
            return (condition,)


def counted_from_the_end(index: Expr) -> Expr | None:
    """i of where(i < 0, i + n, i): what the user gave."""
    match index:
        case Apply("where", (Apply("lt", (given, Const())), _, same)) if given == same:
            return given
        case _:
            return None
