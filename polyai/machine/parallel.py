"""Parallel loops: the body becomes a task function, called for each chunk of the iterations.

    parallel for i in lower..upper: body(i, x)

    ctx = {rt, chunks, lower, rounds, upper, x}
    rt.parallel(rt.pool, task, ctx, chunks)                         or task(ctx, 0, 0) with one chunk if there is little work
    task(ctx, chunk, thread): for i in f(chunk)..f(chunk + 1): body(i, ctx.x)

f splits iterations evenly, or by the differences of the `weight` array plus ROW_COST for each iteration: f(c) is the first
iteration before which c/chunks of the work lies. It is computed from c alone, so chunks need no table. `weight` is borrowed
and may hold anything: f always lies between 0 and the number of iterations, f(0) and f(chunks) are its ends, so every
iteration is in some chunk; where the numbers do not rise, an iteration may run twice, and the row check of the body
reports the broken structure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from polyai.errors import VerifyError
from polyai.loop import nodes as lp
from polyai.loop.walks import all_stmts
from polyai.machine import memory
from polyai.machine import types as ty
from polyai.machine.body import Body
from polyai.machine.build import Function
from polyai.machine.num import Num
from polyai.machine.survey import survey
from polyai.machine.values import Value, flat

WriteLoop = Callable[[Body, lp.For, Num, Num], None]
"""Writes a loop over a range, with its body: `stmt.loop`."""

ROW_COST = 2
"""Work of one iteration beside its weight, in units of weight."""

SMALL = 20_000
"""Loops of fewer scalar operations run on the calling thread."""

GRAIN = 8_192
"""Scalar operations a chunk should have."""

CHUNKS_PER_THREAD = 8


class Context:
    """The record handed to a task: what is packed in the parent is unpacked in the same order in the task."""

    def __init__(self, parent: Function, task: Function) -> None:
        self.parent, self.task = parent, task
        self.ref = parent.label("%context")
        self.bytes = 0

    def slot(self, kind: str, size: int, ref: str) -> str:
        """Store `ref` in the parent; returns the name of its copy in the task."""
        at = self.bytes
        self.bytes += (size + 7) // 8 * 8
        align = min(8, size) if size & (size - 1) == 0 else 8
        place = self.parent.op(f"getelementptr i8, ptr {self.ref}, i64 {at}")
        self.parent.do(f"store {kind} {ref}, ptr {place}, align {align}")
        place = self.task.op(f"getelementptr i8, ptr %context, i64 {at}")
        return self.task.op(f"load {kind}, ptr {place}, align {align}")

    def word(self, ref: str) -> str:
        return self.slot("i64", 8, ref)

    def pointer(self, ref: str) -> str:
        return self.slot("ptr", 8, ref)

    def number(self, part: Num) -> Num:
        """A number of any type; bits of a bool vector travel as bytes."""
        if part.elem == "i1":
            wide = self.number(part.convert("zext", "i8"))
            return wide.ne(0)
        if part.ref[0] != "%":
            return Num(self.task, part.elem, part.lanes, part.ref)
        ref = self.slot(part.kind, ty.bits_of(part.elem) // 8 * part.lanes, part.ref)
        return Num(self.task, part.elem, part.lanes, ref)

    def result(self, value: Value) -> Callable[[], Value]:
        """Store a value of the task's at its end; what reads it in the parent, after the call."""
        parts = [self._given_back(part) for part in (value.re, value.im) if part is not None]

        def read() -> Value:
            found = [part() for part in parts]
            return Value(value.dtype, value.lanes, found[0], found[1] if len(found) > 1 else None)

        return read

    def _given_back(self, part: Num) -> Callable[[], Num]:
        wide = part.convert("zext", "i8") if part.elem == "i1" else part
        at, size = self.bytes, ty.bits_of(wide.elem) // 8 * wide.lanes
        self.bytes += (size + 7) // 8 * 8
        align = min(8, size) if size & (size - 1) == 0 else 8
        place = self.task.op(f"getelementptr i8, ptr %context, i64 {at}")
        self.task.do(f"store {wide.kind} {wide.ref}, ptr {place}, align {align}")

        def read() -> Num:
            place = self.parent.op(f"getelementptr i8, ptr {self.ref}, i64 {at}")
            found = Num(self.parent, wide.elem, wide.lanes, self.parent.op(f"load {wide.kind}, ptr {place}, align {align}"))
            return found.ne(0) if part.elem == "i1" else found

        return read

    def value(self, value: Value) -> Value:
        im = None if value.im is None else self.number(value.im)
        return Value(value.dtype, value.lanes, self.number(value.re), im, value.stride, const=value.const)


def launch(body: Body, s: lp.For, write_loop: WriteLoop) -> None:
    """Write the call that runs the parallel loop `s`, and its task."""
    fn, scope = body.fn, body.scope
    lower, upper = scope.index(s.lower).re, scope.index(s.upper).re
    run, after = fn.label("fork"), fn.label("joined")
    fn.do(f"br i1 {lower.lt(upper).ref}, label %{run}, label %{after}")
    fn.start(run)
    saved, cursor = scope.enter(), body.cursor
    span = upper - lower
    rounds = span if s.step == 1 else (span + (s.step - 1))._two("udiv", s.step)
    chunks = _each(body, rounds) if any(isinstance(part, lp.Turn) for part in all_stmts(s.body)) else chunks_of(body, s, lower, upper, rounds)
    name = fn.module.fresh("pa.task")
    task = Function(fn.module, f"define internal i64 @{name}(ptr %context, i64 %chunk, i64 %thread)")
    write_task(body, task, s, (lower, rounds, upper, chunks), write_loop)
    result = _run(body, fn.module.task(name, task.text()), f"%context.{name}", chunks)
    scope.leave(saved)
    body.cursor = cursor
    body.leave_if(fn.op(f"icmp ne i64 {result}, 0"), result)
    fn.do(f"br label %{after}")
    fn.start(after)


def chunks_of(body: Body, s: lp.For, lower: Num, upper: Num, rounds: Num) -> Num:
    """How many chunks: 1 for little work or without a pool."""
    fn = body.fn
    units = rounds
    if s.weight is not None:
        units = _pos(body, s.weight, upper) - _pos(body, s.weight, lower) + rounds * (ROW_COST * s.step)
    cost = max(1, s.cost)
    threads = Num(fn, "i64", 1, body.read_field("threads"))
    pool = Num(fn, "ptr", 1, body.read_field("parallel", "ptr"))
    worth = units.ge(-(-SMALL // cost)) & threads.gt(1) & _is_set(pool)
    most = threads if s.stretch is not None else threads * CHUNKS_PER_THREAD  # each run of a stretch costs a pass
    wanted = units._two("sdiv", max(1, GRAIN // cost))
    wanted = wanted.lt(most).where(wanted, most)
    wanted = wanted.lt(rounds).where(wanted, rounds)
    return worth.pick(wanted.lt(1).pick(1, wanted, wanted), 1, wanted)


def _each(body: Body, rounds: Num) -> Num:
    """A chunk for each iteration, as long as there is a pool: those that take turns wait for the one before."""
    threads = Num(body.fn, "i64", 1, body.read_field("threads"))
    pool = Num(body.fn, "ptr", 1, body.read_field("parallel", "ptr"))
    return (threads.gt(1) & _is_set(pool)).pick(rounds, 1, rounds)


def _is_set(pointer: Num) -> Num:
    return pointer.of(f"icmp ne ptr {pointer.ref}, null", "i1")


def _pos(body: Body, name: str, at: Num) -> Num:
    """Element `at` of the weight array as i64."""
    array = _weight(body, name)
    elem = ty.memory(array.dtype)
    place = body.fn.op(f"getelementptr {elem}, ptr {array.ref}, i64 {at.ref}")
    return Num(body.fn, elem, 1, body.fn.op(f"load {elem}, ptr {place}")).resized("i64", array.dtype.kind == "i")


def _weight(body: Body, name: str) -> memory.Array:
    array = body.scope.array(name)
    if isinstance(array, memory.Register) or not array.dtype.is_integer:
        raise VerifyError(f"the weight {name} of a parallel loop is not an integer array")
    return array


def _run(body: Body, task: str, context: str, chunks: Num) -> str:
    """Call the pool, or the task itself for one chunk, with its context; returns the result."""
    fn = body.fn
    fork, alone, end = fn.label("pool"), fn.label("alone"), fn.label("ran")
    fn.do(f"br i1 {chunks.gt(1).ref}, label %{fork}, label %{alone}")
    fn.start(fork)
    known = fn.enter()
    run, pool = body.read_field("parallel", "ptr"), body.read_field("pool", "ptr")
    first = fn.op(f"call i64 {run}(ptr {pool}, ptr @{task}, ptr {context}, i64 {chunks.ref})")
    fn.do(f"br label %{end}")
    fn.leave(known)
    fn.start(alone)
    second = fn.op(f"call i64 @{task}(ptr {context}, i64 0, i64 0)")
    fn.do(f"br label %{end}")
    fn.start(end)
    ref, close = fn.phi("i64")
    close([(first, fork), (second, alone)])
    return ref


def write_task(parent: Body, task: Function, s: lp.For, extent: tuple[Num, Num, Num, Num], write_loop: WriteLoop) -> None:
    """Pack what the body needs, and write the task that unpacks it and runs its chunk."""
    fn = parent.fn
    name = task.name
    context = Context(fn, task)
    context.ref = f"%context.{name}"
    inner = parent.nested(task)
    rt = context.pointer("%rt")
    task.do(f"%rt = getelementptr i8, ptr {rt}, i64 0")
    inner.thread = "%thread"
    pack(parent, inner, context, s.body, () if s.weight is None else (s.weight,))
    low, rows, high, parts = (context.number(n) for n in extent)
    chunk = Num(task, "i64", 1, "%chunk")
    ends = [_boundary(inner, s, low, rows, high, at, parts) for at in (chunk, chunk + 1)]
    first, last = (low + end * s.step for end in ends)
    write_loop(inner, s, first, last.lt(high).where(last, high))
    task.do("ret i64 0")
    fn.slot(context.ref, f"[{context.bytes} x i8], align 64")


def pack(parent: Body, inner: Body, context: Context, s: lp.Stmt, more: tuple[str, ...] = (), given_back: frozenset[str] = frozenset()) -> None:
    """Give the task the values, arrays, functions and buffers of the parent that `s` uses, and `more`. Registers in `given_back` it may
    write: it has copies."""
    scope, found = parent.scope, survey(s)
    declared = {a.name for a in found.allocs}
    for name in (*found.names, *more):
        if name in scope.values and name not in inner.scope.values:
            inner.scope.values[name] = context.value(flat(scope.values[name]))
        if name in scope.arrays and name not in inner.scope.arrays:
            array = scope.arrays[name]
            if isinstance(array, memory.Array):
                inner.scope.arrays[name] = _pack_array(inner, context, array)
            elif name not in declared:
                if name in found.stored and name not in given_back:
                    raise VerifyError(f"register {name} is written by a parallel loop around which it lives")
                _copy_register(parent, inner, context, name, array)
    for name in found.calls:
        inner.externs[name] = context.pointer(parent.externs[name])
    for alloc in found.allocs:
        if alloc.space is lp.Space.THREAD:
            inner.buffers[id(alloc)] = _pack_array(inner, context, parent.reserve(alloc))


def _copy_register(parent: Body, inner: Body, context: Context, name: str, array: memory.Register) -> None:
    copy = memory.register(inner.fn, array.dtype, array.lanes)
    memory.write_register(inner.fn, copy, context.value(memory.read_register(parent.fn, array)), None)
    inner.scope.arrays[name] = copy


def _pack_array(inner: Body, context: Context, array: memory.Array) -> memory.Array:
    """The array in the task; of a buffer for each thread, the thread's own."""
    ref = context.pointer(array.ref)
    if array.stride is not None:
        stride = context.word(array.stride)
        offset = inner.fn.op(f"mul i64 {stride}, %thread")
        ref = inner.fn.op(f"getelementptr i8, ptr {ref}, i64 {offset}")
    return memory.Array(ref, array.dtype, array.stable)


def _boundary(body: Body, s: lp.For, low: Num, rows: Num, high: Num, chunk: Num, chunks: Num) -> Num:
    """f(chunk): the iteration a chunk starts at."""
    if s.weight is None:
        return share(rows, chunk, chunks)
    array = _weight(body, s.weight)
    function = f"pa.split.{array.dtype.name}"
    body.fn.module.helper(function, lambda: _split(function, array))
    numbers = ", ".join(f"i64 {n.ref}" for n in (low, rows, high, low.const(s.step), chunk, chunks))
    return low.of(f"call i64 @{function}(ptr {array.ref}, {numbers})")


def share(total: Num, part: Num, parts: Num) -> Num:
    """total * part / parts without overflow."""
    whole, left = total._two("udiv", parts), total._two("urem", parts)
    return whole * part + (left * part)._two("udiv", parts)


def _split(function: str, array: memory.Array) -> str:
    widen = {f"extend{k}": _extension(array).format(value=f"%r{k}") for k in range(3)}
    return SPLIT.format(name=function, elem=ty.memory(array.dtype), **widen)


def _extension(array: memory.Array) -> str:
    if array.dtype.bits == 64:
        return "add i64 0, {value}"
    return f"{'sext' if array.dtype.kind == 'i' else 'zext'} {ty.memory(array.dtype)} {{value}} to i64"


SPLIT = (
    """define internal i64 @{name}(ptr %pos, i64 %low, i64 %rows, i64 %high, i64 %step, i64 %chunk, i64 %chunks) #0 {{
entry:
  %first = icmp sle i64 %chunk, 0
  br i1 %first, label %start, label %more
start:
  ret i64 0
more:
  %last = icmp sge i64 %chunk, %chunks
  br i1 %last, label %end, label %search
end:
  ret i64 %rows
search:
  %p0 = getelementptr {elem}, ptr %pos, i64 %low
  %r0 = load {elem}, ptr %p0
  %w0 = {extend0}
  %p1 = getelementptr {elem}, ptr %pos, i64 %high
  %r1 = load {elem}, ptr %p1
  %w1 = {extend1}
  %rowwork = mul i64 %step, ROW
  %w = sub i64 %w1, %w0
  %rw = mul i64 %rows, %rowwork
  %total = add i64 %w, %rw
  %whole = udiv i64 %total, %chunks
  %left = urem i64 %total, %chunks
  %t0 = mul i64 %whole, %chunk
  %t1 = mul i64 %left, %chunk
  %t2 = udiv i64 %t1, %chunks
  %target = add i64 %t0, %t2
  br label %test
test:
  %lo = phi i64 [ 0, %search ], [ %lo2, %halve ]
  %hi = phi i64 [ %rows, %search ], [ %hi2, %halve ]
  %open = icmp slt i64 %lo, %hi
  br i1 %open, label %halve, label %found
halve:
  %both = add i64 %lo, %hi
  %mid = lshr i64 %both, 1
  %far = mul i64 %mid, %step
  %at0 = add i64 %low, %far
  %beyond = icmp slt i64 %at0, %high
  %at = select i1 %beyond, i64 %at0, i64 %high
  %p2 = getelementptr {elem}, ptr %pos, i64 %at
  %r2 = load {elem}, ptr %p2
  %w2 = {extend2}
  %d = sub i64 %w2, %w0
  %o = mul i64 %mid, %rowwork
  %work = add i64 %d, %o
  %less = icmp slt i64 %work, %target
  %up = add i64 %mid, 1
  %lo2 = select i1 %less, i64 %up, i64 %lo
  %hi2 = select i1 %less, i64 %hi, i64 %mid
  br label %test
found:
  ret i64 %lo
}}"""
).replace("ROW", str(ROW_COST))
"""The binary search for f(chunk); each `extend` widens an element to i64."""


PATIENCE = 1000
"""How many times a task looks whether its turn has come: some 20 microseconds."""

_PAUSE = {"x86_64": ("llvm.x86.sse2.pause", "", ""), "aarch64": ("llvm.aarch64.hint", "i32", "i32 1")}


def turn(fn: Function, arrays: Sequence[str], numbers: Sequence[Num]) -> Num:
    """Write down how much this task has, and look where it goes: -1 if that takes too long. See `loop.nodes.Turn`."""
    name, kind, given = _PAUSE.get(fn.module.target.triple.partition("-")[0], ("", "", ""))
    if name:
        fn.module.declare("void", name, (kind,) if kind else ())
    text = TURN.format(pause=f"call void @{name}({given})" if name else "", patience=PATIENCE)
    fn.module.helper("pa.turn", lambda: text)
    args = ", ".join([*(f"ptr {a}" for a in arrays), *(f"i64 {n.ref}" for n in numbers)])
    ref = fn.op(f"call i64 @pa.turn({args})")
    fn.written()
    return Num(fn, "i64", 1, ref)


TURN = """define internal i64 @pa.turn(ptr %turns, ptr %counts, i64 %at, i64 %count, i64 %pieces) #0 {{
entry:
  %own = getelementptr i64, ptr %counts, i64 %at
  store atomic i64 %count, ptr %own seq_cst, align 8
  br label %next
next:
  %j = phi i64 [ %at, %entry ], [ %j.next, %on ]
  %more = icmp slt i64 %j, %pieces
  br i1 %more, label %known, label %wait
known:
  %turn.p = getelementptr i64, ptr %turns, i64 %j
  %turn = load atomic i64, ptr %turn.p seq_cst, align 8
  %has.turn = icmp sge i64 %turn, 0
  br i1 %has.turn, label %counted, label %wait
counted:
  %count.p = getelementptr i64, ptr %counts, i64 %j
  %size = load atomic i64, ptr %count.p seq_cst, align 8
  %has.size = icmp sge i64 %size, 0
  br i1 %has.size, label %on, label %wait
on:
  %j.next = add i64 %j, 1
  %next.p = getelementptr i64, ptr %turn.p, i64 1
  %sum = add i64 %turn, %size
  store atomic i64 %sum, ptr %next.p seq_cst, align 8
  br label %next
wait:
  %mine = getelementptr i64, ptr %turns, i64 %at
  br label %look
look:
  %k = phi i64 [ 0, %wait ], [ %k.next, %again ]
  %start = load atomic i64, ptr %mine seq_cst, align 8
  %ready = icmp sge i64 %start, 0
  br i1 %ready, label %go, label %patient
patient:
  %k.next = add i64 %k, 1
  %long = icmp sge i64 %k, {patience}
  br i1 %long, label %give, label %again
again:
  {pause}
  br label %look
give:
  ret i64 -1
go:
  ret i64 %start
}}"""
"""Two tasks that write to `turns` and `counts` and then read the other one cannot both miss what the other wrote: whoever comes last
goes on. What is written twice is the same number."""
