"""Statements of the loop language as basic blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from polyai.errors import VerifyError
from polyai.loop import nodes as lp
from polyai.machine import abi, abreast, apart, memory, parallel, tile
from polyai.machine.body import Body
from polyai.machine.build import RARE
from polyai.machine.cast import cast
from polyai.machine.num import Num
from polyai.machine.values import Value, flat, written
from polyai.scalar import dtype as dt
from polyai.term.late import late

if TYPE_CHECKING:
    from polyai.machine import copying
else:
    copying = late("polyai.machine.copying")


def stmt(b: Body, s: lp.Stmt) -> None:
    """Write `s`."""
    scope = b.scope
    match s:
        case lp.Block(stmts):
            region(b, stmts)
        case lp.For():
            if s.kind is lp.Kind.PARALLEL and not b.in_task:
                parallel.launch(b, s, loop)
            elif s.kind in (lp.Kind.COPY, lp.Kind.STREAM):
                copying.copy(b, s, scope.index(s.lower).re, scope.index(s.upper).re)
            else:
                lower, upper = scope.index(s.lower).re, scope.index(s.upper).re
                if not tile.tile(b, s, lower, upper):
                    loop(b, s, lower, upper)
        case lp.While(condition, body):
            _while(b, condition, body)
        case lp.If(condition, then, orelse):
            _if(b, condition, then, orelse)
        case lp.Let(name, value):
            scope.values[name] = written(scope.expr(value))
            b.named[name] = value
        case lp.Alloc():
            _alloc(b, s)
        case lp.Store(array, indices, value, mask):
            _store(b, array, indices, value, mask)
        case lp.Check(ok, site, culprit):
            _check(b, ok, site, culprit)
        case lp.Call(function, args):
            _call(b, function, args)
        case lp.Turn():
            _turn(b, s)
        case lp.Prefetch(array, index, near):
            memory.prefetch(b.fn, scope.array(array), scope.index(index).re, near)
        case _:
            assert_never(s)


def region(b: Body, stmts: tuple[lp.Stmt, ...]) -> None:
    """Statements whose names and arena space end with them."""
    saved, cursor = b.scope.enter(), b.cursor
    at = 0
    for count in [1] * len(stmts) if b.in_task else abreast.parts(stmts):
        if count > 1:
            abreast.launch(b, [s for s in stmts[at : at + count] if isinstance(s, lp.For)], loop)
        elif b.once and apart.is_worth(b, stmts[at]):
            apart.write(b, stmts[at], stmt)
        else:
            stmt(b, stmts[at])
        at += count
    b.scope.leave(saved)
    b.cursor = cursor


def loop(b: Body, s: lp.For, lower: Num, upper: Num) -> None:
    """A counted loop, tested at its end so that it costs one branch per round, and at its begin unless a branch around did that."""
    fn = b.fn
    if s.stretch is not None:
        _stretch(b, s, s.stretch, lower, upper)
        return
    fn.loops = fn.loops or s.cost > 0
    body, after, before = fn.label("loop"), fn.label("done"), fn.at
    runs = (lower.ref, upper.ref) in b.ascending
    fn.do(f"br label %{body}" if runs else f"br i1 {lower.lt(upper).ref}, label %{body}, label %{after}")
    fn.start(body)
    ref, close = fn.phi("i64")
    saved, once = b.scope.enter(), b.once
    b.scope.values[s.var] = Value(dt.i64, 1, Num(fn, "i64", 1, ref))
    b.once = s.kind is lp.Kind.PARALLEL and apart.takes_turns(s) and apart.is_long(s.body)
    region(b, (s.body,))
    b.once = once
    b.scope.leave(saved)
    following = fn.op(f"add {'nsw ' if s.step == 1 else ''}i64 {ref}, {s.step}")
    more = fn.op(f"icmp slt i64 {following}, {upper.ref}")
    close([(lower.ref, before), (following, fn.at)])
    fn.do(f"br i1 {more}, label %{body}, label %{after}")
    fn.start(after)


def _stretch(b: Body, s: lp.For, end: str, lower: Num, upper: Num) -> None:
    """All iterations of lower..upper, if there are any, in one run of the body."""
    fn = b.fn
    run, after = fn.label("stretch"), fn.label("done")
    fn.do(f"br i1 {lower.lt(upper).ref}, label %{run}, label %{after}")
    fn.start(run)
    saved = b.scope.enter()
    b.scope.values[s.var], b.scope.values[end] = (Value(dt.i64, 1, bound) for bound in (lower, upper))
    region(b, (s.body,))
    b.scope.leave(saved)
    fn.do(f"br label %{after}")
    fn.start(after)


def _while(b: Body, condition: lp.LoopExpr, body: lp.Stmt) -> None:
    fn = b.fn
    fn.loops = True
    test, inside, after = fn.label("test"), fn.label("while"), fn.label("done")
    fn.do(f"br label %{test}")
    fn.start(test)
    saved, once = b.scope.enter(), b.once
    more = b.scope.mask(condition)
    fn.do(f"br i1 {more.ref}, label %{inside}, label %{after}")
    fn.start(inside)
    b.once = False
    region(b, (body,))
    b.once = once
    b.scope.leave(saved)
    fn.do(f"br label %{test}")
    fn.start(after)


def _if(b: Body, condition: lp.LoopExpr, then: lp.Stmt, orelse: lp.Stmt | None) -> None:
    fn = b.fn
    chosen = b.scope.mask(condition)
    if chosen.lanes != 1:
        raise VerifyError("the condition of an If is a vector", "vectorize must turn it into masks")
    yes, after = fn.label("then"), fn.label("endif")
    no = fn.label("else") if orelse is not None else after
    fn.do(f"br i1 {chosen.ref}, label %{yes}, label %{no}")
    outside = b.ascending
    for label, part in ((yes, then), (no, orelse)):
        if part is not None:
            b.ascending = outside | _pairs(b, condition) if part is then else outside
            fn.start(label)
            region(b, (part,))
            fn.do(f"br label %{after}")
    b.ascending = outside
    fn.start(after)


def _pairs(b: Body, condition: lp.LoopExpr) -> frozenset[tuple[str, str]]:
    """The values that `condition` finds in ascending order."""
    match condition:
        case lp.Apply("lt", (lp.Var(_, dt.i64) as x, lp.Var(_, dt.i64) as y)):
            return frozenset({(b.scope.index(x).re.ref, b.scope.index(y).re.ref)})
        case _:
            return frozenset()


def _store(b: Body, name: str, indices: tuple[lp.LoopExpr, ...], value: lp.LoopExpr, mask: lp.LoopExpr | None) -> None:
    scope = b.scope
    array = scope.array(name)
    chosen = None if mask is None else scope.mask(mask)
    stored = flat(cast(scope.expr(value), array.dtype))
    if isinstance(array, memory.Register):
        if indices:
            raise VerifyError(f"register {name} has an index")
        memory.write_register(b.fn, array, stored, chosen)
    else:
        memory.store(b.fn, array, scope.place(name, indices), stored, chosen)


def _check(b: Body, ok: lp.LoopExpr, site: int, culprit: lp.LoopExpr | None) -> None:
    fn, scope = b.fn, b.scope
    lanes = scope.mask(ok)
    good = lanes.all()
    leave, stay = fn.label("fail"), fn.label("stay")

    def write() -> None:
        saved = scope.enter()
        if culprit is not None:
            value = cast(flat(scope.expr(culprit)), dt.i64).re
            if value.lanes > 1:
                value = _first_false(value, lanes.widened(value.lanes))
            fn.do(f"store i64 {value.ref}, ptr {b.field('culprit')}")
        fn.do(f"ret i64 {abi.SITE + site}")
        scope.leave(saved)

    fn.do(f"br i1 {good.ref}, label %{stay}, label %{leave}, {RARE}")
    fn.aside(leave, write)
    fn.start(stay)


def _call(b: Body, function: str, args: tuple[lp.LoopExpr | str, ...]) -> None:
    fn = b.fn
    record = fn.alloca(f"[{max(1, len(args))} x i64]")
    for k, arg in enumerate(args):
        kind, ref = _argument(b, arg)
        fn.do(f"store {kind} {ref}, ptr {fn.op(f'getelementptr i64, ptr {record}, i64 {k}')}")
    result = fn.op(f"call i64 {b.externs[function]}(ptr {record})")
    fn.written()
    b.leave_if(fn.op(f"icmp ne i64 {result}, 0"), result)


def _turn(b: Body, s: lp.Turn) -> None:
    scope = b.scope
    held, turns, counts = (scope.array(name) for name in (s.register, s.turns, s.counts))
    if not isinstance(held, memory.Register) or isinstance(turns, memory.Register) or isinstance(counts, memory.Register):
        raise VerifyError(f"turns in {s.turns} and {s.counts} are taken into {s.register}", "the first two are arrays, the last is a register")
    start = parallel.turn(b.fn, (turns.ref, counts.ref), [scope.index(e).re for e in (s.at, s.count, s.pieces)])
    memory.write_register(b.fn, held, Value(dt.i64, 1, start), None)


def _argument(b: Body, arg: lp.LoopExpr | str) -> tuple[str, str]:
    if isinstance(arg, str):
        array = b.scope.array(arg)
        if isinstance(array, memory.Register):
            raise VerifyError(f"register {arg} is given to a library function")
        return "ptr", array.ref
    value = flat(b.scope.expr(arg))
    wide = cast(value, dt.f64 if value.dtype.is_float else dt.i64)
    return wide.re.kind, wide.re.ref


def _alloc(b: Body, s: lp.Alloc) -> None:
    if s.space is lp.Space.REGISTER:
        b.scope.arrays[s.name] = memory.register(b.fn, s.dtype, s.lanes)
    elif b.in_task:
        if s.space is lp.Space.KERNEL or id(s) not in b.buffers:
            raise VerifyError(f"{s.name} is allocated for the whole kernel inside a parallel loop")
        b.scope.arrays[s.name] = b.buffers[id(s)]
    else:
        b.scope.arrays[s.name] = b.reserve(s)


def _first_false(value: Num, ok: Num) -> Num:
    """The lane of `value` where `ok` is false first."""
    packed = f"i{ok.lanes}"
    bits = ok.fn.op(f"bitcast {ok.kind} {(~ok).ref} to {packed}")
    lane = ok.fn.intrinsic(f"llvm.cttz.{packed}", packed, (packed, bits), ("i1", "false"))
    return Num(value.fn, value.elem, 1, value.fn.op(f"extractelement {value.kind} {value.ref}, {packed} {lane}"))
