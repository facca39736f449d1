"""Elements of a list that follow each other with an equal coordinate are summed before the sum goes where the coordinate says.

Before::                                          After::

    for q in 0..n:                                    at = 0
      let i = crd0[q]; check i < rows                 while at < n:
      let k = crd1[q]; check k < columns                let first = at; let i = crd0[first]; check i < rows
      for j in 0..w vector:                             end = first + 1
        Y[i * w + j] = Y[i * w + j]                     while end < n and crd0[end] == i: end = end + 1
                     + val[q] * X[k * w + j]            let last = end
                                                        for j in 0..w vector:
                                                          alloc sum: f32 register; sum = 0.0
                                                          for q in first..last:
                                                            let k = crd1[q]; check k < columns
                                                            sum = sum + val[q] * X[k * w + j]
                                                          Y[i * w + j] = Y[i * w + j] + sum
                                                        at = last

So a sorted list is walked like a tree of fibres, without one: sums stay in registers, and a factor that is the same all along a run is
multiplied once for it. Where runs are long, the same is done to the elements of a run with the next coordinate. Where a run
does not say where its sum goes, its factors are multiplied once and used for all of its elements.

Any order of the list is right, since a run ends where the coordinate changes; in a list that is not sorted runs have one element.
Whether runs are looked for depends on typical sizes only. Assumes that sums and products may be rounded in another order
(docs: numbers), that the list is not written, and that iterations of the vector loop are independent: the scheduler proved it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import reduce as fold

from polyai.loop import build as b
from polyai.loop.nodes import (
    Alloc,
    Apply,
    Block,
    Cast,
    Check,
    Const,
    For,
    Horizontal,
    If,
    Kernel,
    Kind,
    Let,
    Load,
    LoopExpr,
    Ramp,
    Space,
    Stmt,
    Store,
    Var,
    While,
)
from polyai.loop.passes.depend import depends
from polyai.loop.passes.stretch import value as typical
from polyai.loop.walks import all_exprs, expressions, map_operands, supply, written
from polyai.scalar import dtype as dt
from polyai.scalar.ops import MONOIDS
from polyai.term.names import Names
from polyai.term.node import node

LONG = 4
"""Elements of a run, on average, from which it pays to look for runs inside runs."""
AT_ONCE = 8
"""Elements that are compared at once in runs that are long enough for it."""
_MONOID_OF = {m.op: m for m in MONOIDS.values()}

Lists = tuple[tuple[str, ...], ...]
"""For each list of elements the arrays of its coordinates, those that change least often first."""


def runs(kernel: Kernel, sizes: Mapping[str, int], lists: Lists) -> Kernel:
    """`kernel` with the runs of its lists summed on their own; `sizes` are typical values of sizes and lengths."""
    return dataclasses.replace(kernel, body=_Runs(supply(kernel), sizes, lists).stmt(kernel.body)) if lists else kernel


@node
class _Key:
    """A coordinate of the element at hand: its name, where it is read, and whether its runs are long."""

    let: Let
    element: Load
    long: bool = False


@node
class _Body:
    """What a loop does with one element: `steps`, then, if `guard` holds, `once`, which knows the place alone and does nothing more the
    next time, the steps `guarded`, and for each of `lanes` (None: once) one
    update target[at] = target[at] op value."""

    steps: tuple[Stmt, ...]
    guard: LoopExpr
    once: tuple[Stmt, ...]
    guarded: tuple[Stmt, ...]
    lanes: For | None
    target: str
    at: tuple[LoopExpr, ...]
    op: str
    value: LoopExpr

    @property
    def all_steps(self) -> tuple[Stmt, ...]:
        """The steps, guarded or not."""
        return (*self.steps, *self.guarded)


class _Runs:
    def __init__(self, names: Names, sizes: Mapping[str, int], lists: Lists) -> None:
        self.names, self.sizes, self.lists = names, sizes, lists

    def stmt(self, s: Stmt) -> Stmt:
        match s:
            case Block(stmts):
                return Block(tuple(map(self.stmt, stmts)))
            case For():
                found = _body(s) if s.kind is Kind.SERIAL and s.step == 1 else None
                keys = () if found is None or found.lanes is None else self._keys(s, found)
                if found is None or not keys:
                    return dataclasses.replace(s, body=self.stmt(s.body))
                return self._split(s, found, keys)
            case While(condition, body):
                return While(condition, self.stmt(body))
            case If(condition, then, orelse):
                return If(condition, self.stmt(then), None if orelse is None else self.stmt(orelse))
            case _:
                return s

    def _keys(self, loop: For, body: _Body) -> tuple[_Key, ...]:
        """The coordinates whose runs are looked for, outermost first."""
        found: dict[str, _Key] = {}
        extents: dict[str, LoopExpr | None] = {}
        changed = written(loop.body)
        for s in body.all_steps:
            if isinstance(s, Let) and isinstance(s.value, Cast) and isinstance(s.value.arg, Load) and len(s.value.arg.indices) == 1:
                array, index = s.value.arg.array, s.value.arg.indices[0]
                if array not in changed and _follows(index, loop.var):
                    found[array], extents[array] = _Key(s, s.value.arg), _extent(s.name, body.all_steps)
        listed = next((names for names in self.lists if names[0] in found), ())
        length = typical(b.sub(loop.upper, loop.lower), self.sizes)
        out: list[_Key] = []
        for n, name in enumerate(listed):
            if name not in found:
                break
            whole = extents[name]
            extent = None if whole is None else typical(whole, self.sizes)
            length = None if length is None or extent is None else length // max(1, extent)
            own = n == 0 and not _depends_on_rest(body, found[name], loop.var)
            if not own and (length is None or length < LONG):
                break
            out.append(dataclasses.replace(found[name], long=length is not None and length >= 2 * AT_ONCE))
        return tuple(out)

    def _split(self, loop: For, body: _Body, keys: Sequence[_Key]) -> Stmt:
        """`loop` as a walk over the runs of the first key that is worth it."""
        for n, key in enumerate(keys):
            inner = self._run(loop, body, key, keys[n + 1 :])
            if inner is not None:
                return inner
        return dataclasses.replace(loop, body=_put_together(body))

    def _run(self, loop: For, body: _Body, key: _Key, rest: Sequence[_Key]) -> Stmt | None:
        changing = _changing(body.all_steps, loop.var, key.let.name)
        before = tuple(s for s in body.all_steps if not any(depends(e, changing) for e in expressions(s)) or s == key.let)
        guards: LoopExpr = body.guard
        within: tuple[Stmt, ...] = ()
        if not depends(body.guard, changing) and key.let not in body.guarded:  # the same for the whole run
            guards, within = b.TRUE, tuple(s for s in before if s in body.guarded)
            before = tuple(s for s in before if s not in within)
        inside, guarded = (tuple(s for s in some if s not in (*before, *within)) for some in (body.steps, body.guarded))
        if guards == b.TRUE:
            inside, guarded = (*inside, *guarded), ()
        mine, others = _factors(body, changing)
        goes_there = not any(depends(i, changing) for i in body.at)
        if not goes_there and (not mine or body.once):
            return None
        first, end, last, at = (self.names.fresh(f"{key.let.name}_{part}") for part in ("first", "end", "last", "at"))
        dtype = b.dtype_of(body.value)
        inner = dataclasses.replace(loop, lower=b.var(first), upper=b.var(last))
        steps: tuple[Stmt, ...]
        if goes_there:
            total = self.names.fresh(f"{key.let.name}_sum")
            read = b.load(total, (), dtype)
            sums = self._split(inner, _Body(inside, guards, (), guarded, None, total, (), body.op, _product(others, dtype)), rest)
            whole = b.apply(body.op, (b.load(body.target, body.at, dtype), _product((*mine, read), dtype)), dtype)
            steps = (
                Alloc(total, dtype, (), Space.REGISTER),
                Store(total, (), Const(_MONOID_OF[body.op].identity(dtype), dtype)),
                sums,
                Store(body.target, body.at, whole),
            )
        else:
            factor = self.names.fresh(f"{key.let.name}_factor")
            value = _product((Var(factor, dtype), *others), dtype)
            inner_body = _Body(inside, guards, (), guarded, None, body.target, body.at, body.op, value)
            steps = (Let(factor, _product(mine, dtype)), self._split(inner, inner_body, rest))
        work: Stmt = Block(steps)
        if body.lanes is not None:
            work = dataclasses.replace(body.lanes, body=work)
        if body.guard != b.TRUE and guards == b.TRUE:
            work = If(body.guard, Block((*body.once, *(_moved(s, loop.var, b.var(first)) for s in within), work)))
        return Block((
            Alloc(at, dt.i64, (), Space.REGISTER),
            Store(at, (), loop.lower),
            While(b.compare("lt", b.load(at, (), dt.i64), loop.upper), Block((
                Let(first, b.load(at, (), dt.i64)),
                *(_moved(s, loop.var, b.var(first)) for s in before),
                *self._end_of_run(loop, key, first, end),
                Let(last, b.load(end, (), dt.i64)),
                work,
                Store(at, (), b.var(last)),
            ))),
        ))  # fmt: skip

    def _end_of_run(self, loop: For, key: _Key, first: str, end: str) -> tuple[Stmt, ...]:
        """Looks for the end of the run that begins at `first`. What is compared lies inside the list, also behind its end."""
        here = b.load(end, (), dt.i64)
        ahead = _at(key.let.value, loop.var, b.smallest(here, b.sub(loop.upper, b.ONE)))
        more = b.both(b.compare("lt", here, loop.upper), b.compare("eq", ahead, b.var(key.let.name)))
        start = (Alloc(end, dt.i64, (), Space.REGISTER), Store(end, (), b.add(b.var(first), b.ONE)))
        one_by_one = While(more, Store(end, (), b.add(here, b.ONE)))
        if not key.long:
            return (*start, one_by_one)
        same, own = self.names.fresh(f"{key.let.name}_same"), self.names.fresh(f"{key.let.name}_own")
        (index,), dtype = key.element.indices, key.element.dtype
        several = b.load(key.element.array, (Ramp(_at(index, loop.var, here), 1, AT_ONCE),), dtype)
        alike = Horizontal("and", b.apply("eq", (several, Var(own, dtype)), dt.bool_), dt.bool_)
        going = b.load(same, (), dt.i64)
        room = b.both(b.compare("le", b.add(here, b.const(AT_ONCE)), loop.upper), b.compare("gt", going, b.ZERO))
        return (
            *start,
            Let(own, _at(key.element, loop.var, b.var(first))),
            Alloc(same, dt.i64, (), Space.REGISTER),
            Store(same, (), b.ONE),
            While(room, Block((Store(same, (), b.where(alike, b.ONE, b.ZERO)), Store(end, (), b.add(here, b.const(AT_ONCE)))))),
            Store(end, (), b.add(here, b.mul(b.sub(going, b.ONE), b.const(AT_ONCE)))),  # too far, if it ended there: no step waits for a comparison
            one_by_one,
        )  # fmt: skip


def _body(loop: For) -> _Body | None:
    """What `loop` does, if it is Lets and Checks and then one update, in lanes or not."""
    *steps, tail = b.statements(loop.body) or (Block(()),)
    once: tuple[Stmt, ...] = ()
    guard: LoopExpr = b.TRUE
    guarded: list[Stmt] = []
    if isinstance(tail, If) and tail.orelse is None and all(isinstance(x, (Const, Var, Apply)) for x in all_exprs(tail.condition)):
        guard, (*guarded, tail) = tail.condition, b.statements(tail.then) or (Block(()),)
        if guarded and isinstance(guarded[0], If):
            once, guarded = (guarded[0],), guarded[1:]
    lanes = tail if isinstance(tail, For) else None
    if lanes is not None:
        if lanes.kind is not Kind.VECTOR or depends(lanes.lower, {loop.var}) or depends(lanes.upper, {loop.var}):
            return None
        inner = b.statements(lanes.body)
        if len(inner) != 1:
            return None
        (tail,) = inner
    if not all(isinstance(s, (Let, Check)) for s in (*steps, *guarded)):
        return None
    match tail:
        case Store(array, at, Apply(op, (Load() as old, value), dtype), None) if old == Load(array, at, dtype) and op in _MONOID_OF:  # type: ignore[arg-type]
            names = {s.name for s in (*steps, *guarded) if isinstance(s, Let)}
            if lanes is not None and (depends(lanes.lower, names) or depends(lanes.upper, names)):
                return None
            read = [e for s in (*steps, *guarded, Let("", value), *(Let("", i) for i in at)) for e in expressions(s)]
            if any(isinstance(x, Load) and x.array == array for e in read for x in all_exprs(e)):
                return None
            return _Body(tuple(steps), guard, once, tuple(guarded), lanes, array, at, op, value)
        case _:
            return None


def _put_together(body: _Body) -> Block:
    """The inverse of `_body`."""
    dtype = b.dtype_of(body.value)
    update: Stmt = Store(body.target, body.at, b.apply(body.op, (b.load(body.target, body.at, dtype), body.value), dtype))
    work: Stmt = update if body.lanes is None else dataclasses.replace(body.lanes, body=update)
    if body.guard == b.TRUE:
        return Block((*body.steps, *body.guarded, work))
    return Block((*body.steps, If(body.guard, Block((*body.once, *body.guarded, work)))))


def _depends_on_rest(body: _Body, key: _Key, variable: str) -> bool:
    """Whether the place that an element goes to depends on more than this coordinate."""
    changing = _changing(body.all_steps, variable, key.let.name)
    return any(depends(i, changing) for i in body.at)


def _changing(steps: Sequence[Stmt], variable: str, fixed: str) -> set[str]:
    """Names that may change from one element of a run to the next; `fixed` is the coordinate that does not."""
    out = {variable}
    for s in steps:
        if isinstance(s, Let) and s.name != fixed and depends(s.value, out):
            out.add(s.name)
    return out


def _factors(body: _Body, changing: set[str]) -> tuple[tuple[LoopExpr, ...], tuple[LoopExpr, ...]]:
    """The factors of the value that are the same all along a run, and the others; none of the first where sums do not distribute
    or where nothing else is left."""
    if body.op != "add":
        return (), (body.value,)
    parts = _parts(body.value)
    mine = tuple(p for p in parts if not depends(p, changing))
    others = tuple(p for p in parts if depends(p, changing))
    return (mine, others) if mine and others else ((), parts)


def _parts(value: LoopExpr) -> tuple[LoopExpr, ...]:
    """The factors of a product of numbers, from left to right."""
    if isinstance(value, Apply) and value.op == "mul":
        return (*_parts(value.args[0]), *_parts(value.args[1]))
    return (value,)


def _product(parts: Sequence[LoopExpr], dtype: dt.DType) -> LoopExpr:
    return fold(lambda x, y: b.apply("mul", (x, y), dtype), parts)


def _follows(index: LoopExpr, variable: str) -> bool:
    """Whether `index` grows by one with the variable."""
    match index:
        case Var(name):
            return name == variable
        case Apply("add", (x, y)):
            return (_follows(x, variable) and not depends(y, {variable})) or (_follows(y, variable) and not depends(x, {variable}))
        case _:
            return False


def _extent(name: str, steps: Sequence[Stmt]) -> LoopExpr | None:
    """What a Check says that `name` stays below."""
    for s in steps:
        match s:
            case Check(Apply("lt", (Cast(Var(x)), bound))) if x == name:
                return bound.arg if isinstance(bound, Cast) else bound
            case _:
                pass
    return None


def _at(expr: LoopExpr, variable: str, place: LoopExpr) -> LoopExpr:
    """`expr` for another value of the variable."""
    if isinstance(expr, Var):
        return place if expr.name == variable else expr
    return map_operands(expr, lambda e: _at(e, variable, place))


def _moved(s: Stmt, variable: str, place: LoopExpr) -> Stmt:
    """A Let or a Check for another value of the variable."""
    match s:
        case Let(name, value):
            return Let(name, _at(value, variable, place))
        case Check(ok, site, culprit):
            return Check(_at(ok, variable, place), site, None if culprit is None else _at(culprit, variable, place))
        case _:
            return s


