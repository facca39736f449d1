"""The body of one loop for `copies` x `lanes` iterations at once.

A value in lanes has one of four shapes: the same in all iterations, growing by a number from one to the next, one vector
for each copy, or one scalar for each lane. Index arithmetic keeps the second shape, so that accesses to consecutive elements
are seen. Indices read from memory may have the last: each is read and checked alone, and what they select is packed into a
vector. On many machines that is faster than the instruction for indexed vector loads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Union, assert_never

from polyai.loop import build as b
from polyai.loop.nodes import (
    Alloc,
    Apply,
    Block,
    Call,
    Cast,
    Check,
    Const,
    For,
    Horizontal,
    If,
    Kind,
    Let,
    Load,
    LoopExpr,
    MaskedLoad,
    Pack,
    Prefetch,
    Ramp,
    Space,
    Stmt,
    Store,
    Turn,
    Var,
    While,
)
from polyai.loop.passes.depend import combined
from polyai.loop.passes.levels import Levels
from polyai.loop.walks import all_exprs
from polyai.scalar import dtype as dt
from polyai.scalar.dtype import DType
from polyai.scalar.ops import MONOIDS
from polyai.term.node import node


@node
class Same:
    """The same in all iterations: a scalar."""

    expr: LoopExpr


@node
class Growing:
    """`expr` in the first lane of the first copy, `stride` more in each further iteration; i64."""

    expr: LoopExpr
    stride: int


@node
class Each:
    """One vector for each copy."""

    exprs: tuple[LoopExpr, ...]


@node
class Lone:
    """One scalar for each lane of each copy."""

    exprs: tuple[LoopExpr, ...]


Shape = Union[Same, Growing, Each, Lone]


class NotInLanes(Exception):
    """The loop cannot run in lanes; the text says why."""


class Lanes:
    """Writes one version of the body into `levels`.

    `partial` maps registers that the loop reduces into to the names of their vectors, one for each copy. `mask` (copies = 1)
    holds for the lanes that exist. `lone` (no mask): names of integers from memory that are read lane by lane, since they
    say where other reads go.
    """

    def __init__(
        self,
        levels: Levels,
        names: set[str],
        variable: str,
        lanes: int,
        copies: int,
        partial: dict[str, list[str]],
        mask: LoopExpr | None = None,
        lone: frozenset[str] = frozenset(),
        pointed: bool = False,
    ) -> None:
        self.levels, self.names, self.lanes, self.copies = levels, names, lanes, copies
        self.partial, self.lone, self.pointed = partial, lone, pointed and mask is None
        self.pointing = False  # the value at hand says where memory is read
        self.masks: tuple[LoopExpr, ...] | None = None if mask is None else (mask,)
        self.branch = False  # inside a branch that lanes take or not: nothing is certain to run
        self.env: dict[str, Shape] = {variable: Growing(b.var(variable), 1)}
        self.registers: dict[str, tuple[str, ...]] = {}
        self.declared: set[str] = set()

    # Statements

    def run(self, stmt: Stmt) -> None:
        """Append the statement, for all lanes and copies."""
        match stmt:
            case Block(stmts):
                for s in stmts:
                    if isinstance(s, Block):
                        self.levels.push()
                        self.run(s)
                        self.levels.emit(self.levels.pop())
                    else:
                        self.run(s)
            case Let(name, value):
                self._let(name, self._pointer(value) if name in self.lone else self.value(value), b.dtype_of(value))
            case Alloc(name, dtype, (), Space.REGISTER, 1):
                self.declared.add(name)
                if name in self.names:
                    mine = tuple(name if c == 0 else self.levels.names.fresh(name) for c in range(self.copies))
                    self.registers[name] = mine
                    for m in mine:
                        self.levels.emit(Alloc(m, dtype, (), Space.REGISTER, self.lanes))
                else:
                    self.levels.emit(stmt)
            case Alloc(name):
                raise NotInLanes(f"each iteration needs its own memory for {name}")
            case Store():
                self._register(stmt) if not stmt.indices else self._memory(stmt)
            case Check(ok, site, culprit):
                self._check(self.value(ok), site, None if culprit is None else self.value(culprit))
            case For(var, lower, upper, body, kind, step):
                first, last = self.value(lower), self.value(upper)
                if not isinstance(first, Same) or not isinstance(last, Same):
                    raise NotInLanes(f"the length of the loop over {var} differs between iterations")
                if kind is Kind.PARALLEL:
                    raise NotInLanes("a parallel loop is inside")
                self.levels.push(loop=True)
                self.levels.define(var)
                self.env[var] = Same(b.var(var))
                self.run(body)
                self.levels.emit(For(var, first.expr, last.expr, self.levels.pop(), Kind.SERIAL, step))
            case If(condition, then, orelse):
                self._if(self.value(condition), then, orelse)
            case While(condition, body):
                test = self.value(condition)
                if not isinstance(test, Same) or self.branch:
                    raise NotInLanes("how often a while loop runs differs between iterations")
                self.levels.push(loop=True)
                self.run(body)
                self.levels.emit(While(test.expr, self.levels.pop()))
            case Call(function):
                raise NotInLanes(f"it calls {function}")
            case Turn():
                raise NotInLanes("iterations take turns")
            case Prefetch():
                raise NotInLanes("hints are added after lanes")
            case _:
                assert_never(stmt)

    def _let(self, name: str, value: Shape, dtype: DType) -> None:
        match value:
            case Same(expr):
                self.levels.emit(Let(name, expr))
                self.env[name] = Same(Var(name, dtype))
            case Growing(expr, stride):
                self.levels.emit(Let(name, expr))
                self.env[name] = Growing(Var(name, dtype), stride)
            case Each(exprs):
                mine = [name if c == 0 else self.levels.names.fresh(name) for c in range(self.copies)]
                for m, e in zip(mine, exprs):
                    self.levels.emit(Let(m, e))
                self.env[name] = Each(tuple(Var(m, dtype) for m in mine))
            case Lone(exprs):
                mine = [name if lane == 0 else self.levels.names.fresh(name) for lane in range(len(exprs))]
                for m, e in zip(mine, exprs):
                    self.levels.emit(Let(m, e))
                self.env[name] = Lone(tuple(Var(m, dtype) for m in mine))
            case _:
                assert_never(value)

    def _register(self, store: Store) -> None:
        name = store.array
        if store.mask is not None:
            raise NotInLanes(f"{name} is written under a mask")
        if name in self.partial:
            return self._reduce(store)
        value = self.value(store.value)
        if name not in self.registers:
            if name not in self.declared or not isinstance(value, Same) or self.branch:
                raise NotInLanes(f"{name} carries a value from one iteration to the next")
            self.levels.emit(Store(name, (), value.expr))
            return
        for c, register in enumerate(self.registers[name]):
            new = value.expr if isinstance(value, Same) else self.vector(value, c)
            if self.branch and self.masks is not None:
                new = b.where(self.masks[c], new, b.load(register, (), b.dtype_of(new)))
            self.levels.emit(Store(register, (), new))

    def _reduce(self, store: Store) -> None:
        split = combined(store)
        if split is None:
            raise NotInLanes(f"{store.array} carries a value from one iteration to the next")
        monoid, contribution = split
        value, dtype = self.value(contribution), b.dtype_of(store.value)
        for c, register in enumerate(self.partial[store.array]):
            if c >= self.copies:
                break
            old = b.load(register, (), dtype)
            new: LoopExpr = b.apply(MONOIDS[monoid].op, (old, value.expr if isinstance(value, Same) else self.vector(value, c)), dtype)
            if self.masks is not None:
                new = b.where(self.masks[c], new, old)
            self.levels.emit(Store(register, (), new))

    def _memory(self, store: Store) -> None:
        if len(store.indices) != 1:
            raise NotInLanes(f"{store.array} has several indices")
        at, value = self.value(store.indices[0]), self.value(store.value)
        given = None if store.mask is None else self.value(store.mask)
        if isinstance(at, Same):
            if isinstance(value, Same) and given is None and not self.branch:
                self.levels.emit(Store(store.array, (at.expr,), value.expr))
                return
            raise NotInLanes(f"all iterations write one element of {store.array}")
        if not isinstance(at, Growing) or at.stride != 1:
            raise NotInLanes(f"iterations write elements of {store.array} that are not consecutive")
        for c, ramp in enumerate(self._ramps(at)):
            new = value.expr if isinstance(value, Same) else self.vector(value, c)
            self.levels.emit(Store(store.array, (ramp,), new, self._mask(given, c)))

    def _check(self, ok: Shape, site: int, culprit: Shape | None) -> None:
        if isinstance(ok, Same) and not self.branch:
            blame = culprit.expr if isinstance(culprit, Same) else None if culprit is None else self.vector(culprit, 0)
            self.levels.emit(Check(ok.expr, site, blame))
            return
        if isinstance(ok, Lone) and not self.branch:
            for lane, one in enumerate(ok.exprs):
                self.levels.emit(Check(one, site, None if culprit is None else self._lane(culprit, lane)))
            return
        for c in range(self.copies):
            test = ok.expr if isinstance(ok, Same) else self.vector(ok, c)
            if self.masks is not None:
                test = b.either(test, b.negation(self.masks[c]))
            self.levels.emit(Check(test, site, None if culprit is None else self._operand(culprit, c)))

    def _if(self, test: Shape, then: Stmt, orelse: Stmt | None) -> None:
        if isinstance(test, Same):
            self.levels.push()
            self.run(then)
            taken, other = self.levels.pop(), None
            if orelse is not None:
                self.levels.push()
                self.run(orelse)
                other = self.levels.pop()
            self.levels.emit(If(test.expr, taken, other))
            return
        before, inside = self.masks, self.branch
        self.branch = True
        for branch, turn in ((then, False), (orelse, True)):
            if branch is None:
                continue
            masks = []
            for c in range(self.copies):
                mask = b.negation(self.vector(test, c)) if turn else self.vector(test, c)
                whole = mask if before is None else b.both(before[c], mask)
                name = self.levels.names.fresh("taken")
                self.levels.emit(Let(name, whole))
                masks.append(Var(name, dt.bool_))
            self.masks = tuple(masks)
            self.run(branch)
        self.masks, self.branch = before, inside

    # Values

    def _mask(self, given: Shape | None, copy: int) -> LoopExpr | None:
        mine = None if self.masks is None else self.masks[copy]
        if given is None:
            return mine
        other = self._operand(given, copy)
        return other if mine is None else b.both(mine, other)

    def _operand(self, shape: Shape, copy: int) -> LoopExpr:
        """For use beside vectors: scalars stay scalars."""
        return shape.expr if isinstance(shape, Same) else self.vector(shape, copy)

    def vector(self, shape: Shape, copy: int) -> LoopExpr:
        """One copy of a value that differs between lanes."""
        match shape:
            case Same(expr):
                return expr
            case Growing(expr, stride):
                return Ramp(b.add(expr, b.const(stride * copy * self.lanes)), stride, self.lanes)
            case Each(exprs):
                return exprs[copy]
            case Lone(exprs):
                return Pack(exprs[copy * self.lanes : (copy + 1) * self.lanes], b.dtype_of(exprs[0]))
            case _:
                assert_never(shape)

    def _lane(self, shape: Shape, lane: int) -> LoopExpr:
        """The scalar of one lane, counted through all copies."""
        match shape:
            case Same(expr):
                return expr
            case Growing(expr, stride):
                return b.add(expr, b.const(stride * lane))
            case Lone(exprs):
                return exprs[lane]
            case Each():
                raise NotInLanes("an index is computed in lanes")
            case _:
                assert_never(shape)

    def _each_lane(self, build: Callable[[int], LoopExpr]) -> Lone:
        return Lone(tuple(build(lane) for lane in range(self.copies * self.lanes)))

    def _pointer(self, expr: LoopExpr) -> Shape:
        """The shape of a value that says where memory is read."""
        before, self.pointing = self.pointing, self.pointed
        found = self.value(expr)
        self.pointing = before
        return found

    def _ramps(self, at: Growing) -> list[LoopExpr]:
        base = at.expr if self.copies == 1 or _is_offset(at.expr) else self.levels.let("at", at.expr)
        return [self.vector(Growing(base, at.stride), c) for c in range(self.copies)]

    def value(self, expr: LoopExpr) -> Shape:
        """The shape of an expression."""
        match expr:
            case Const():
                return Same(expr)
            case Var(name, _):
                return self.env.get(name) or Same(expr)
            case Load(array, (), dtype):
                mine = self.registers.get(array)
                if array in self.partial:
                    raise NotInLanes(f"{array} carries a value from one iteration to the next")
                return Same(expr) if mine is None else Each(tuple(Load(m, (), dtype) for m in mine))
            case Load(array, indices, dtype):
                return self._load(array, indices, None, dtype)
            case MaskedLoad(array, indices, mask, dtype):
                return self._load(array, indices, mask, dtype)
            case Cast(arg, dtype):
                inner = self.value(arg)
                if isinstance(inner, Same):
                    return Same(b.convert(inner.expr, dtype))
                if isinstance(inner, Lone):
                    return self._each_lane(lambda lane: b.convert(self._lane(inner, lane), dtype))
                return Each(tuple(b.convert(self.vector(inner, c), dtype) for c in range(self.copies)))
            case Apply(op, args, dtype):
                return self._apply(op, tuple(self.value(a) for a in args), dtype)
            case Horizontal() if all(isinstance(self.env.get(x.name, Same(x)), Same) for x in all_exprs(expr) if isinstance(x, Var)):
                return Same(expr)  # a scalar of vectors that are the same in all iterations
            case Ramp() | Horizontal() | Pack():
                raise NotInLanes("it holds vectors already")
            case _:
                assert_never(expr)

    def _load(self, array: str, indices: tuple[LoopExpr, ...], mask: LoopExpr | None, dtype: DType) -> Shape:
        if len(indices) != 1:
            raise NotInLanes(f"{array} has several indices")
        wanted = self.pointing and dtype.is_integer
        at = self._pointer(indices[0])
        given = None if mask is None else self.value(mask)
        if isinstance(at, Same) and (given is None or isinstance(given, Same)):
            if self.branch:
                raise NotInLanes(f"{array} is read in a branch that no lane may take")
            if given is None:
                return Same(b.load(array, (at.expr,), dtype))
            return Same(MaskedLoad(array, (at.expr,), given.expr, dtype))
        if isinstance(at, Same):
            at = Growing(at.expr, 0)
        if self.pointed and not self.branch and mask is None and (isinstance(at, Lone) or (isinstance(at, Growing) and wanted)):
            where = at
            if isinstance(at, Growing):
                where = Growing(self.levels.let("at", at.expr), at.stride)
            return self._each_lane(lambda lane: b.load(array, (self._lane(where, lane),), dtype))
        places = self._ramps(at) if isinstance(at, Growing) else [self.vector(at, c) for c in range(self.copies)]
        out: list[LoopExpr] = []
        for c, place in enumerate(places):
            when = self._mask(given, c)
            out.append(b.load(array, (place,), dtype) if when is None else MaskedLoad(array, (place,), when, dtype))
        return Each(tuple(out))

    def _apply(self, op: str, args: tuple[Shape, ...], dtype: DType) -> Shape:
        if all(isinstance(a, Same) for a in args):
            return Same(_scalar(op, tuple(a.expr for a in args if isinstance(a, Same)), dtype))
        if any(isinstance(a, Lone) for a in args) and not any(isinstance(a, Each) for a in args) and not dtype.is_float:
            return self._each_lane(lambda lane: _scalar(op, tuple(self._lane(a, lane) for a in args), dtype))
        if dtype == dt.i64:
            grown = _grow(op, args)
            if grown is not None:
                return grown
        return Each(tuple(b.apply(op, tuple(self._operand(a, c) for a in args), dtype) for c in range(self.copies)))


def _is_offset(expr: LoopExpr) -> bool:
    """True for a name plus a number: instructions add the number themselves."""
    match expr:
        case Apply("add", (Var(), Const())):
            return True
        case _:
            return False


_FOLDED = {"add": b.add, "sub": b.sub, "mul": b.mul}


def _scalar(op: str, args: tuple[LoopExpr, ...], dtype: DType) -> LoopExpr:
    fold = _FOLDED.get(op) if dtype == dt.i64 else None
    return b.apply(op, args, dtype) if fold is None else fold(*args)


def _grow(op: str, args: tuple[Shape, ...]) -> Shape | None:
    """Sums and products that grow by a number; None for others."""
    if op not in _FOLDED or any(isinstance(a, (Each, Lone)) for a in args):
        return None
    x, y = (a for a in args if isinstance(a, (Same, Growing)))
    strides = [a.stride if isinstance(a, Growing) else 0 for a in (x, y)]
    if op == "mul":
        factors = [b.number(a.expr) for a in (x, y)]
        if factors[1] is not None and strides[1] == 0:
            stride = strides[0] * factors[1]
        elif factors[0] is not None and strides[0] == 0:
            stride = strides[1] * factors[0]
        else:
            return None
    else:
        stride = strides[0] + strides[1] if op == "add" else strides[0] - strides[1]
    expr = _FOLDED[op](x.expr, y.expr)
    return Growing(expr, stride) if stride else Same(expr)
