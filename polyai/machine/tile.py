"""Register tiles: an innermost loop that adds products to several vectors is a function, which loops of one form share.

    for k in lower..upper:                              store T, T_1, ... to sums
      let at = (c * 256 + k) * 16                       call pa.tile1(sums, upper - lower, &A[i * 256 + lower],
      let shared = P[ramp(at, 8)]                                     &A[(i + 1) * 256 + lower], ..., &P[...], hint, slope)
      T = T + A[i * 256 + k] * shared            ->     load T, T_1, ...
      T_1 = T_1 + A[(i + 1) * 256 + k] * shared
      ...                                               pa.tile1: rounds of COPIES iterations, then the rest one by one
      prefetch P[next + k * share]

So are loops over panels of an operand, the next of which is fetched meanwhile (see `loop.passes.ahead`). What differs between such loops is where they
read, which is handed over; so the products of a network have one function for each height of a tile, which can afford to be unrolled: what counts, compares and branches once for a few multiply-adds takes part of the
cycles that these have. Sums are added up in the order of the loop, each product in one rounding with its sum, as everywhere.

The last rows of a tile may be one row several times (see `loop.passes.jam`). That shows in where they are read, so the call chooses
a function that computes fewer of them and hands out the sums of the last one for the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from polyai.loop import build as lb
from polyai.loop import nodes as lp
from polyai.loop.passes.depend import varying
from polyai.machine import memory
from polyai.machine import types as ty
from polyai.machine.body import Body
from polyai.machine.build import Function
from polyai.machine.num import Num
from polyai.machine.values import Value
from polyai.scalar import dtype as dt
from polyai.scalar.dtype import DType
from polyai.term.node import node, record

COPIES = 4
"""Iterations written one after another."""
SUMS = 8
"""Vectors that a loop has to add to: with fewer, the sums wait for themselves, and a call costs as much."""
LEAST = 4
"""Rows that fill the pipelines: a lower tile takes the same time."""
SHORT = 16
"""Loops of fewer iterations stay where they are."""


@node
class _Stream:
    """What a loop reads: `lanes` elements from `index` on, which grows by `slope` in each iteration."""

    array: str
    index: lp.LoopExpr
    lanes: int
    slope: lp.LoopExpr


@node
class _Sum:
    """`register` gets the product of two streams, by their numbers: a scalar and a vector."""

    register: str
    scalar: int
    vector: int


@node
class _Hint:
    array: str
    index: lp.LoopExpr
    slope: lp.LoopExpr
    near: bool


@record
class _Form:
    """What a loop does."""

    streams: list[_Stream]
    sums: list[_Sum]
    hints: list[_Hint]
    dtype: DType
    lanes: int


def tile(b: Body, s: lp.For, lower: Num, upper: Num) -> bool:
    """Write the loop `s` as a call, if it is a register tile; False if it is none, and nothing is written."""
    form = _form(b, s)
    if form is None:
        return False
    fn = b.fn
    elem = ty.element(form.dtype)
    kind = ty.vector(elem, form.lanes)
    registers = [_register(b, x.register) for x in form.sums]
    held = fn.alloca(f"[{len(registers)} x {kind}], align 64")
    places = [fn.op(f"getelementptr {kind}, ptr {held}, i64 {n}") for n in range(len(registers))]
    for place, register in zip(places, registers):
        fn.do(f"store {kind} {fn.op(f'load {kind}, ptr {register.slots[0]}')}, ptr {place}, align 32")
    given = _Given(b, s, lower)
    streams = [given.place(x.array, x.index, x.slope) for x in form.streams]
    hints = [(given.place(x.array, x.index, x.slope), x.near) for x in form.hints]
    rows = _rows(form, streams)
    given.close()
    name = _shared(fn, form, given, streams, hints, len(rows), len(rows))
    target = f"@{name}"
    for height in _heights(len(rows)):
        lower_one = _shared(fn, form, given, streams, hints, len(rows), height)
        last = given.pointers[rows[height - 1]]
        same = [fn.op(f"icmp eq ptr {given.pointers[p]}, {last}") for p in rows[height:]]
        alike = same[0]
        for one in same[1:]:
            alike = fn.op(f"and i1 {alike}, {one}")
        target = fn.op(f"select i1 {alike}, ptr @{lower_one}, ptr {target}")
    rounds = upper - lower
    args = [f"ptr {held}", f"i64 {rounds.ref}", *(f"ptr {p}" for p in given.pointers), *(f"i64 {x}" for x in given.slopes)]
    fn.do(f"call void {target}({', '.join(args)})")
    fn.written()
    for place, register in zip(places, registers):
        fn.do(f"store {kind} {fn.op(f'load {kind}, ptr {place}, align 32')}, ptr {register.slots[0]}")
    return True


def _heights(rows: int) -> tuple[int, ...]:
    """How many rows the functions for fewer rows compute, the most first: tiles of any number of rows are of these heights, nearly."""
    return tuple(h for h in (rows * 5 // 6, rows * 2 // 3) if LEAST <= h < rows)


def _shared(fn: Function, form: _Form, given: _Given, streams: Sequence[_Place], hints: Sequence[tuple[_Place, bool]], rows: int, height: int) -> str:
    """The name of the function that computes `height` of `rows` rows."""
    sums = tuple((x.scalar, x.vector) for x in form.sums)
    key = (form.dtype, form.lanes, sums, tuple(x.lanes for x in form.streams), tuple(streams), tuple(hints), rows, height)
    return fn.module.shared(NAME, key, lambda name: _function(fn, name, form, given, streams, hints, rows, height))


def _rows(form: _Form, streams: Sequence[_Place]) -> list[int]:
    """The pointers of the rows of a tile, if it is one: each of them meets the same vectors, and is read at a place of its own."""
    vectors = list(dict.fromkeys(x.vector for x in form.sums))
    scalars = list(dict.fromkeys(x.scalar for x in form.sums))
    pointers = [streams[n].pointer for n in scalars]
    whole = [(row, vector) for row in scalars for vector in vectors]
    if whole != [(x.scalar, x.vector) for x in form.sums] or len(set(pointers)) < len(pointers) or any(streams[n].offset for n in scalars):
        return []
    return pointers


NAME = "pa.tile"
"""How the names of these functions begin. Modules that are compiled in parts share them."""


def _register(b: Body, name: str) -> memory.Register:
    register = b.scope.array(name)
    assert isinstance(register, memory.Register)
    return register


# What a loop does


def _form(b: Body, s: lp.For) -> _Form | None:
    """What the loop does, if that is nothing but adding products of what it reads to SUMS vectors or more."""
    trips = _most(b, s)
    if s.kind is not lp.Kind.SERIAL or s.step != 1 or s.stretch is not None or (trips is not None and trips < SHORT):
        return None
    steps = lb.statements(s.body)
    if sum(isinstance(x, lp.Store) for x in steps) < SUMS or not all(isinstance(x, (lp.Let, lp.Store, lp.Prefetch)) for x in steps):
        return None
    work = _Reader(b, varying(s.body, s.var), {s.var: lb.ONE})
    for x in steps:
        if not work.step(x):
            return None
    found = work.form
    registers = {x.register for x in found.sums}
    if len(registers) < len(found.sums) or found.lanes < 2 or not found.hints:
        return None
    return found if all(_is_given(b, x) for x in found.streams if x.lanes > 1) else None


def _is_given(b: Body, x: _Stream) -> bool:
    """Whether vectors are read from an operand of the kernel, one after another: a panel of it. Of others, a call gains less than it costs."""
    array = b.scope.array(x.array)
    return isinstance(array, memory.Array) and array.stable and lb.number(x.slope) is not None


def _most(b: Body, s: lp.For) -> int | None:
    """The number of iterations, or what it is at most, if that is known: a piece of a sum ends at its own end or before."""
    end, more = s.upper, 0
    if isinstance(end, lp.Apply) and end.op == "add" and (last := lb.number(end.args[1])) is not None:
        end, more = end.args[0], last
    if isinstance(end, lp.Var):
        end = b.named.get(end.name, end)
    ends = end.args if isinstance(end, lp.Apply) and end.op == "min" else (end,)
    known = [n for n in (lb.number(lb.sub(lb.add(e, lb.const(more)), s.lower)) for e in ends) if n is not None]
    return min(known, default=None)


class _Reader:
    """`slopes`: names of indices and by how much they grow; `named`: names of what was read, as numbers of streams."""

    def __init__(self, b: Body, names: set[str], slopes: dict[str, lp.LoopExpr]) -> None:
        self.b, self.names, self.slopes = b, names, slopes
        self.named: dict[str, int] = {}
        self.form = _Form([], [], [], dt.f32, 0)

    def step(self, s: lp.Stmt) -> bool:
        """Take in one step; False if it is of another kind."""
        match s:
            case lp.Let(name, lp.Load() as value) if value.dtype.is_float:
                stream = self.stream(value)
                if stream is not None:
                    self.named[name] = stream
                return stream is not None
            case lp.Let(name, value) if lb.dtype_of(value) == dt.i64:
                slope = self.slope(value)
                if slope is not None:
                    self.slopes[name] = slope
                return slope is not None
            case lp.Store(register, (), lp.Apply("add", (x, y), dtype), None) if dtype in (dt.f32, dt.f64):
                here = lp.Load(register, (), dtype)
                product = y if x == here else x if y == here else None
                return isinstance(product, lp.Apply) and product.op == "mul" and self.sum(register, product, dtype)
            case lp.Prefetch(array, index, near):
                slope = self.slope(index)
                if slope is None or not isinstance(self.b.scope.array(array), memory.Array):
                    return False
                self.form.hints.append(_Hint(array, index, slope, near))
                return True
            case _:
                return False

    def sum(self, register: str, product: lp.Apply, dtype: DType) -> bool:
        target = self.b.scope.arrays.get(register)
        factors = [self.stream(e) for e in product.args]
        if not isinstance(target, memory.Register) or target.dtype != dtype or None in factors:
            return False
        scalar, vector = sorted((n for n in factors if n is not None), key=lambda n: self.form.streams[n].lanes)
        lanes = self.form.streams[vector].lanes
        if self.form.streams[scalar].lanes != 1 or lanes != target.lanes or (self.form.sums and (lanes, dtype) != (self.form.lanes, self.form.dtype)):
            return False
        self.form.sums.append(_Sum(register, scalar, vector))
        self.form.lanes, self.form.dtype = lanes, dtype
        return True

    def stream(self, e: lp.LoopExpr) -> int | None:
        """The number of what `e` reads, an element or a run of them in memory."""
        if isinstance(e, lp.Var):
            return self.named.get(e.name)
        if not isinstance(e, lp.Load) or len(e.indices) != 1 or e.dtype not in (dt.f32, dt.f64):
            return None
        index, lanes = _run(e)
        if index is None:
            return None
        array, slope = self.b.scope.arrays.get(e.array), self.slope(index)
        if not isinstance(array, memory.Array) or slope is None:
            return None
        found = _Stream(e.array, index, lanes, slope)
        if found not in self.form.streams:
            self.form.streams.append(found)
        return self.form.streams.index(found)

    def slope(self, e: lp.LoopExpr) -> lp.LoopExpr | None:
        """By how much an index grows in each iteration; None if that is not the same in all of them."""
        match e:
            case lp.Const():
                return lb.ZERO
            case lp.Var(name):
                return self.slopes.get(name, None if name in self.names else lb.ZERO)
            case lp.Apply("add" | "sub" as op, (x, y), dt.i64):
                left, right = self.slope(x), self.slope(y)
                return None if left is None or right is None else (lb.add if op == "add" else lb.sub)(left, right)
            case lp.Apply("mul", (x, y), dt.i64):
                left, right = self.slope(x), self.slope(y)
                if left is None or right is None or lb.ZERO not in (left, right):
                    return None
                return lb.mul(left, y) if right == lb.ZERO else lb.mul(right, x)
            case _:
                return lb.ZERO if _is_still(e, self.names) else None


def _run(e: lp.Load) -> tuple[lp.LoopExpr | None, int]:
    """Where what is loaded begins, and how many elements follow each other; None if they do not."""
    index: lp.LoopExpr = e.indices[0]
    if not isinstance(index, lp.Ramp):
        return index, 1
    return (index.base if index.stride == 1 else None), index.lanes


def _is_still(e: lp.LoopExpr, names: set[str]) -> bool:
    """Whether an index is the same in all iterations: no name that varies, and no memory."""
    match e:
        case lp.Var(name):
            return name not in names
        case lp.Const():
            return True
        case lp.Apply(_, args):
            return all(_is_still(a, names) for a in args)
        case lp.Cast(arg):
            return _is_still(arg, names)
        case _:
            return False


# The call


class _Given:
    """Pointers and slopes that a function is given: an index that differs from another one by a number shares its pointer."""

    def __init__(self, b: Body, s: lp.For, lower: Num) -> None:
        self.b = b
        self.saved = b.scope.enter()
        self.pointers: list[str] = []
        self.slopes: list[str] = []
        self._first: list[tuple[str, lp.LoopExpr, lp.LoopExpr]] = []
        b.scope.values[s.var] = Value(dt.i64, 1, lower)
        for x in lb.statements(s.body):
            if isinstance(x, lp.Let) and lb.dtype_of(x.value) == dt.i64:
                b.scope.values[x.name] = b.scope.expr(x.value)

    def place(self, array: str, index: lp.LoopExpr, slope: lp.LoopExpr) -> _Place:
        """Where `array` is read."""
        for number, (other, first, by) in enumerate(self._first):
            apart = lb.number(lb.sub(index, first))
            if other == array and by == slope and apart is not None:
                return _Place(number, apart, self._slope(slope))
        held = self.b.scope.array(array)
        assert isinstance(held, memory.Array)
        at = self.b.scope.index(index).re
        self.pointers.append(self.b.fn.op(f"getelementptr {ty.memory(held.dtype)}, ptr {held.ref}, i64 {at.ref}"))
        self._first.append((array, index, slope))
        return _Place(len(self.pointers) - 1, 0, self._slope(slope))

    def _slope(self, slope: lp.LoopExpr) -> int | str:
        """A number, or the name of a parameter."""
        known = lb.number(slope)
        if known is not None:
            return known
        ref = self.b.scope.index(slope).re.ref
        if ref not in self.slopes:
            self.slopes.append(ref)
        return f"%slope{self.slopes.index(ref)}"

    def close(self) -> None:
        self.b.scope.leave(self.saved)


@node
class _Place:
    """Pointer `pointer` plus `offset` elements, and by how much it grows: a number or a parameter."""

    pointer: int
    offset: int
    slope: int | str


# The function


def _function(
    caller: Function, name: str, form: _Form, given: _Given, streams: Sequence[_Place], hints: Sequence[tuple[_Place, bool]], rows: int, height: int
) -> str:
    """The text of the function; with rows, those from `height` on get the sums of the one before."""
    params = ["ptr %sums", "i64 %rounds", *(f"ptr %p{n}" for n in range(len(given.pointers))), *(f"i64 %slope{n}" for n in range(len(given.slopes)))]
    fn = Function(caller.module, f"define internal void @{name}({', '.join(params)})")
    elem, lanes = ty.element(form.dtype), form.lanes
    kind = ty.vector(elem, lanes)
    places = [fn.op(f"getelementptr {kind}, ptr %sums, i64 {n}") for n in range(len(form.sums))]
    kept = len(places) // rows * height if rows else len(places)
    held = [Num(fn, elem, lanes, fn.op(f"load {kind}, ptr {p}, align 32")) for p in places[:kept]]
    whole = fn.op(f"and i64 %rounds, {-COPIES}")
    held = _loop(fn, form, "0", whole, COPIES, held, streams, hints)
    held = _loop(fn, form, whole, "%rounds", 1, held, streams, hints)
    across = len(places) // max(rows, 1)
    for n, p in enumerate(places):
        value = held[n if n < kept else kept - across + n % across]
        fn.do(f"store {kind} {value.ref}, ptr {p}, align 32")
    fn.do("ret void")
    return fn.text()


def _loop(
    fn: Function, form: _Form, first: str, end: str, copies: int, before: Sequence[Num], streams: Sequence[_Place], hints: Sequence[tuple[_Place, bool]]
) -> list[Num]:
    """Rounds of `copies` iterations from `first` on, up to `end`; the sums afterwards."""
    elem, lanes = before[0].elem, before[0].lanes
    body, after, outside = fn.label("loop"), fn.label("done"), fn.at
    fn.do(f"br i1 {fn.op(f'icmp slt i64 {first}, {end}')}, label %{body}, label %{after}")
    fn.start(body)
    k, close_k = fn.phi("i64")
    phis = [fn.phi(x.kind) for x in before]
    sums = [Num(fn, elem, lanes, ref) for ref, _ in phis]
    known = fn.enter()
    starts: dict[tuple[int, int | str], str] = {}

    def at(place: _Place, copy: int) -> str:
        """The address of a place in iteration k + copy."""
        key = (place.pointer, place.slope)
        if key not in starts:
            starts[key] = fn.op(f"getelementptr {elem}, ptr %p{place.pointer}, i64 {fn.op(f'mul i64 {k}, {place.slope}') if place.slope != 1 else k}")
        start, offset = starts[key], place.offset
        if isinstance(place.slope, int):
            offset += copy * place.slope
        elif copy:
            start = _further(fn, elem, starts, key, copy)
        return start if offset == 0 else fn.op(f"getelementptr {elem}, ptr {start}, i64 {offset}")

    size = ty.bits_of(elem) // 8
    for copy in range(copies):
        read: dict[int, Num] = {}

        def value(number: int, copy: int = copy, read: dict[int, Num] = read) -> Num:
            if number not in read:
                width = form.streams[number].lanes
                one = Num(fn, elem, width, fn.op(f"load {ty.vector(elem, width)}, ptr {at(streams[number], copy)}, align {size}"))
                read[number] = one if width == lanes else one.widened(lanes)
            return read[number]

        for place, near in hints:
            fn.module.declare("void", "llvm.prefetch.p0", ("ptr", "i32", "i32", "i32"))
            fn.do(f"call void @llvm.prefetch.p0(ptr {at(place, copy)}, i32 0, i32 {3 if near else 2}, i32 1)")
        for n, x in enumerate(form.sums[: len(sums)]):
            sums[n] = value(x.scalar).fma(value(x.vector), sums[n])
    following = fn.op(f"add nsw i64 {k}, {copies}")
    more = fn.op(f"icmp slt i64 {following}, {end}")
    close_k([(first, outside), (following, body)])
    for (_, close), old, new in zip(phis, before, sums):
        close([(old.ref, outside), (new.ref, body)])
    fn.do(f"br i1 {more}, label %{body}, label %{after}")
    fn.leave(known)
    fn.start(after)
    out = []
    for old, new in zip(before, sums):
        ref, close = fn.phi(old.kind)
        close([(old.ref, outside), (new.ref, body)])
        out.append(Num(fn, elem, lanes, ref))
    return out


def _further(fn: Function, elem: str, starts: Mapping[tuple[int, int | str], str], key: tuple[int, int | str], copy: int) -> str:
    """The start of a place whose slope is a parameter, `copy` iterations later."""
    ref = starts[key]
    for _ in range(copy):
        ref = fn.op(f"getelementptr {elem}, ptr {ref}, i64 {key[1]}")
    return ref
