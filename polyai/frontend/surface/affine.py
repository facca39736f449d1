"""Sparse arrays read at sums of indices in index notation: windows, strides, offsets, diagonals.

    out[i, j] = sum(k, A[i, j + k] * w[k])          A sparse: what row i stores meets each w[k] once
    -> out[i, c - k] += A[i, c] * w[k]              for c stored in row i, for k, where 0 <= c - k < extent of j

A pattern is walked by its own coordinates, so each computed subscript becomes a coordinate c, and an index that stands in it is what c
makes of it: here j = c - k; of 2*j + k it is j = (c - k) // 2 where that divides. An index of the result is made so rather than one that is summed,
as results are long and windows short. What is left of an equation is a condition: A[i, i] is A[i, c] where c == i.

That is right for sums of what vanishes where A stores nothing. A read that stands elsewhere becomes an array of its own before, over the
indices in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import cast

from polyai.frontend.core import Array, Tracer
from polyai.frontend.term import Term, apply, number, zero_value
from polyai.scalar import dtype as dt
from polyai.scalar.expr import Apply, Const, Expr, Load, Var
from polyai.shapes.expr import Size, maximum, symbol
from polyai.tensor import nodes as tn
from polyai.tensor.bodies import free, in_owner, loads, reduces, stored_at, substitute
from polyai.tensor.nodes import Body
from polyai.term.node import children, map_children


def by_coordinates(tracer: Tracer, body: Body, bound: Sequence[tn.Index], lazy: bool = False) -> Body:
    """`body`, under the index variables `bound`, without reads of sparse arrays at sums of indices. Others, such as gathers, stay.

    `lazy`: a condition around it says where it is read. Raises ShapeError for reads that leave their array where no `where` guards them.
    """
    if not any(tracer.types[load.array].is_sparse for load in loads(body)):
        return body
    match body:
        case tn.Reduce():
            body = _flat(body)
            inner = (*bound, *body.over)
            own = [load for load in loads(body.body) if _is_computed(tracer, load, inner)]
            if own and body.monoid == "add" and next(reduces(body.body), None) is None and all(_vanishes(body.body, load) for load in own):
                found = _Walk(tracer, bound, body.over, body.within, body.body).read(lazy)
                if found is not None:
                    return found
            return tn.Reduce(body.monoid, body.over, by_coordinates(tracer, body.body, inner, lazy), body.dtype, body.within)
        case Load() if _is_computed(tracer, body, bound):
            found = _Walk(tracer, bound, (), (), body).read(lazy)
            return body if found is None else found
        case Apply("where", (condition, *values)):
            chosen = (by_coordinates(tracer, condition, bound, lazy), *(by_coordinates(tracer, v, bound, True) for v in values))
            return Apply("where", cast("tuple[Expr, ...]", chosen), body.dtype)
        case _:
            return map_children(body, lambda child: by_coordinates(tracer, child, bound, lazy))


def _flat(body: tn.Reduce) -> tn.Reduce:
    """A sum of sums as one."""
    while isinstance(body.body, tn.Reduce) and (body.body.monoid, body.body.dtype) == (body.monoid, body.dtype):
        inner = body.body
        body = tn.Reduce(body.monoid, (*body.over, *inner.over), inner.body, body.dtype, (*body.within, *inner.within))
    return body


def _is_computed(tracer: Tracer, load: Load, bound: Sequence[tn.Index]) -> bool:
    """Whether a sparse array is read at other places than by distinct indices that run over its dimensions."""
    type = tracer.types[load.array]
    if not type.is_sparse:
        return False
    if stored_at(load, tracer.types) is None:
        return True
    resolve, extents = tracer.sizes.resolve, {i.name: i.extent for i in bound}
    return any(resolve(extents.get(n.name, e)) != resolve(e) for n, e in zip(load.indices, type.shape) if isinstance(n, Var))


def _vanishes(body: Body, load: Load) -> bool:
    return zero_value(body, frozenset((load.array,))) == 0


def _always(body: Body) -> Iterator[Load]:
    """Reads that no `where` guards."""
    match body:
        case Apply("where", (condition, *_)):
            yield from _always(condition)
        case Load():
            yield body
            for place in body.indices:
                yield from _always(place)
        case _:
            for child in children(body):
                yield from _always(child)


def _size(expr: Body, values: Mapping[str, Size]) -> Size | None:
    """A subscript where variables have these values; None if it is no sum of products with numbers."""
    match expr:
        case Const(int() as value):
            return value
        case Var(name):
            return values[name] if name in values else symbol(name)
        case Apply("add" | "sub" | "mul" as op, (a, b)):
            left, right = _size(a, values), _size(b, values)
            if left is None or right is None:
                return None
            return left + right if op == "add" else left - right if op == "sub" else left * right
        case Apply("neg", (a,)):
            found = _size(a, values)
            return None if found is None else -found
        case _:
            return None


def _linear(expr: Body, names: frozenset[str]) -> dict[str, int]:
    """The coefficients of those variables of `names` in which `expr` is linear."""
    opaque: set[str] = set()
    out: dict[str, int] = {}

    def add(e: Body, factor: int) -> None:
        match e:
            case Var(name) if name in names:
                out[name] = out.get(name, 0) + factor
            case Apply("add", (a, b)):
                add(a, factor)
                add(b, factor)
            case Apply("sub", (a, b)):
                add(a, factor)
                add(b, -factor)
            case Apply("neg", (a,)):
                add(a, -factor)
            case Apply("mul", (Const(int() as c), a)) | Apply("mul", (a, Const(int() as c))):
                add(a, factor * c)
            case _:
                opaque.update(free(e))

    add(expr, 1)
    return {name: a for name, a in out.items() if a and name not in opaque}


class _Walk:
    """One sum, or one read, in the coordinates of the sparse arrays that it reads."""

    def __init__(self, tracer: Tracer, bound: Sequence[tn.Index], over: Sequence[tn.Index], within: tuple[tn.Within, ...], body: Body) -> None:
        used = free(body) | {n for w in within for n in w.indices}
        self.tracer, self.over = tracer, tuple(over)
        self.around = tuple(i for i in bound if i.name in used)
        self.targets = tuple(tracer.index(i.extent, i.name) for i in self.around)
        new = {old.name: i.name for old, i in zip(self.around, self.targets)}
        self.body = substitute(body, {old: Var(name, dt.i64) for old, name in new.items()})
        self.within = [tn.Within(w.tensor, tuple(new.get(n, n) for n in w.indices)) for w in within]
        self.live = {i.name: i for i in (*self.targets, *over)}
        self.stored = {n for w in self.within for n in w.indices}
        """Variables that are coordinates of a pattern."""
        self.points: list[tn.Index] = []
        self.made: dict[str, Term] = {}
        """What variables are made of."""
        self.where: list[Term] = []

    def read(self, lazy: bool) -> Body | None:
        """The sum as a read of a new array; None if a subscript is no sum of indices."""
        found: Body | None = self.body
        for load in () if lazy else _always(self.body):
            if _is_computed(self.tracer, load, tuple(self.live.values())) and not self._stays_inside(load):
                return None
        while found is not None and (opened := next((x for x in loads(found) if self._is_open(x)), None)) is not None:
            found = self._enter(found, opened)
        if found is None:
            return None
        dtype = found.dtype
        value = Term(found, False, self.tracer)
        if self.where:
            value = apply("where", self._all(), value, number(False if dtype.kind == "b" else 0, dtype))
        made = self._summed(self.targets, Term(value.body, False, self.tracer), "or" if dtype.kind == "b" else "add")
        return self.tracer.read(made, self.around).body

    def _is_open(self, load: Load) -> bool:
        return _is_computed(self.tracer, load, (*self.live.values(), *self.points))

    def _stays_inside(self, load: Load) -> bool:
        """Whether bounds of the subscripts are known, which are then required to lie in the array."""
        sizes, text = self.tracer.sizes, self.tracer.texts.get(load.array, load.array)
        for d, (place, extent) in enumerate(zip(load.indices, self.tracer.types[load.array].shape)):
            slopes = _linear(place, frozenset(self.live))
            last = {n: i.extent - 1 for n, i in self.live.items()}
            low, high = (_size(place, {n: last[n] if (slopes.get(n, 0) > 0) == up else 0 for n in last}) for up in (False, True))
            if low is None or high is None:
                return False
            sizes.require(low, ">=", 0, f"dimension {d} of {text} is read at a sum of indices", "guard the read by where(...)")
            sizes.require(high, "<", extent, f"dimension {d} of {text} is read at a sum of indices", "guard the read by where(...)")
        return True

    def _summed(self, targets: Sequence[tn.Index], value: Term, monoid: str) -> Array:
        tracer, within = self.tracer, tuple(self.within)
        rest = tuple(i for i in self.over if i.name in self.live)
        if all(t.name in self.live for t in targets):
            body = tn.Reduce(monoid, (*rest, *self.points), value.body, value.dtype, within)
            return tracer.emit("walked", targets, Term(body, False, tracer), strong=True)
        room = [maximum(t.extent, 1) if t.name in self.made else t.extent for t in targets]  # what meets no condition adds 0 to the first element
        base = tracer.emit("base", tracer.indices(room), number(False if monoid == "or" else 0, value.dtype), strong=True)
        at = [self._inside(t.name) if t.name in self.made else t for t in targets]
        points = (*(t for t in targets if t.name in self.live), *rest, *self.points)
        return tracer.scatter("walked", base, monoid, points, at, value, within)

    def _all(self) -> Term:
        condition = self.where[0]
        for other in self.where[1:]:
            condition = apply("and", condition, other)
        return condition

    def _inside(self, name: str) -> Term:
        """What a variable is made of, 0 where the conditions do not hold."""
        return apply("where", self._all(), self.made[name], number(0, dt.i64))

    def _enter(self, body: Body, load: Load) -> Body | None:
        """Read `load` at coordinates of its own, and make what can be made of them."""
        names: list[str] = []
        equations: list[tuple[tn.Index, Body]] = []
        type, resolve = self.tracer.types[load.array], self.tracer.sizes.resolve
        for place, extent in zip(load.indices, type.shape):
            known = {**self.live, **{p.name: p for p in self.points}}.get(place.name) if isinstance(place, Var) else None
            if known is not None and known.name not in names and resolve(known.extent) == resolve(extent):
                names.append(known.name)
                continue
            if any(True for _ in loads(place)):
                return None
            c = self.tracer.index(extent, "c")
            names.append(c.name)
            equations.append((c, place))
            self.points.append(c)
        self.stored.update(names)
        assert type.pattern is not None
        self.within.append(in_owner(type.pattern, tuple(names)))
        body = _replaced(body, load, Load(load.array, tuple(Var(n, dt.i64) for n in names), load.dtype))
        targets = {t.name for t in self.targets}
        plain = {n.name for x in loads(body) if self.tracer.types[x.array].is_sparse for n in x.indices if isinstance(n, Var)}
        while equations:
            c, subscript = equations.pop(0)
            own = _linear(subscript, frozenset(self.live) - self.stored)
            choice = min(own, key=lambda n: (n in plain, n not in targets, abs(own[n])), default=None)
            here = Term(Var(c.name, dt.i64), False, self.tracer)
            if choice is None:
                self.where.append(apply("eq", here, Term(subscript, False, self.tracer)))
                continue
            rest = Term(substitute(subscript, {choice: Const(0, dt.i64)}), False, self.tracer)
            self._make(choice, own[choice], apply("sub", here, rest))
            raw = {choice: self.made[choice].body}
            equations = [(other, substitute(e, raw)) for other, e in equations]
            body = substitute(body, raw)
        return body

    def _make(self, name: str, factor: int, total: Term) -> None:
        """The variable is total / factor, where that is whole and in its range."""
        if factor < 0:
            factor, total = -factor, apply("neg", total)
        value, zero = total, number(0, dt.i64)
        extent = self.tracer.size_term(self.live.pop(name).extent)
        if factor != 1:
            step = number(factor, dt.i64)
            value = apply("floordiv", total, step)
            self.where.append(apply("eq", apply("mod", total, step), zero))
        self.where += [apply("ge", value, zero), apply("lt", value, extent)]
        raw = {name: value.body}
        self.where = [Term(substitute(w.body, raw), False, self.tracer) for w in self.where]
        self.made = {n: Term(substitute(m.body, raw), False, self.tracer) for n, m in self.made.items()}
        self.made[name] = value


def _replaced(body: Body, old: Load, new: Load) -> Body:
    return new if body == old else map_children(body, lambda child: _replaced(child, old, new))

