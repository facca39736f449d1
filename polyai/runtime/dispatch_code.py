"""The native call path: a function for CPython's vectorcall that follows a short program over the call's arguments.

    dispatch(self, args, nargs, kwnames)        self is a bytes object that holds the address of a TABLE; `out=` may be given

The program checks the arguments, reads addresses and sizes from them and allocates outputs; then the kernel runs. Whatever
does not fit, and whatever result is not OK, ends in a call of the table's `slow` with the same arguments: nothing is
decided here but that a call is plain. An instruction is STEP bytes: an Op and up to five operands, a to e. It works on
numbers V[k] and objects O[k]; O starts with the arguments.
"""

from __future__ import annotations

from enum import IntEnum

from polyai.runtime import argument_steps, cut_code, phase_steps, result_steps
from polyai.runtime.run_code import CLOCK, CLOCK_NAMES
from polyai.runtime.shared import Fields
from polyai.runtime.steps import OBJECT, give, number

STEP = 48
ROOM = 192
"""How many numbers, and how many objects, a program can use."""


class Op(IntEnum):
    """O[a] is an object; b may be a constant of the instruction."""

    END = 0  #       run the kernel
    TYPE = 1  #      the type of O[a] is b
    ARRAY = 2  #     O[a] is a plain ndarray of dtype b (type numbers in e) with c dimensions; V[d] its data, V[d+1...] its shape
    ATTR = 3  #      O[d] = attribute b of O[a]
    ITEM = 4  #      O[d] = item b of O[a], a tuple of c items
    INT = 5  #       V[d] = O[a], an int
    FLOAT = 6  #     V[d] = bits of O[a], a float, as a number of b bits
    ADDRESS = 7  #   V[d] = address of V[a]
    READ = 8  #      V[d] = element V[b] of the array of c-byte integers at V[a]
    ADD = 9  #       V[d] = V[a] + b
    CONST = 10  #    V[d] = a
    SHIFT = 11  #    V[d] = V[a] << b
    COPY = 12  #     V[d] = V[a]
    EQUAL = 13  #    V[a] == V[b]
    WITHIN = 14  #   b <= V[a] <= c
    ATMOST = 15  #   V[a] <= V[b]
    MULTIPLE = 16  # V[a] is a multiple of b
    ALLOC = 17  #    O[e] = new array of dtype a, b % 256 dimensions V[c...], elements of b / 256 bytes and, if KEPT is in b, memory of
    #                earlier results if it is large; or the one given as `out`; V[d] its data
    FACTOR = 18  #   product *= V[a]
    TERM = 19  #     work += product; product = 1
    CONTEXT = 20  #  the context variable a has the value b
    QUOTIENT = 21  # V[d] = V[a] / b, rounded down, of a number >= 0 by a constant > 0
    APART = 22  #    if `out` is given: the arrays at V[a] and V[c], their extents behind them, do not overlap; b, d: item size << 8 | rank
    RECORD = 23  #   word hits % RING of the ring at b = V[a]
    REVIEW = 24  #   hits < the word at a
    RANK = 25  #     V[d] = V[d] * (c + 1) + how many of the c ascending numbers at b are <= V[a]
    SELECT = 26  #   the kernel to run is that of cell V[a] of the CELLs at b, if it has one
    IS = 27  #       O[a] is the object b
    TIMES = 28  #    V[d] = V[a] * V[b], if no digit is lost
    LEAST = 29  #    V[d] = the larger of V[a] and b
    READY = 30  #    the word at a is not zero
    RUN = 31  #      run the kernel at a with the c slots that the array at b lists, in the session at d
    ZERO = 32  #     V[b] * c bytes at V[a] are zero
    CUT = 33  #      V[d] = the largest part when rows of the bounds at V[a], V[b] of them, V[c] in all, are cut into V[e] parts at V[e + 1]
    RESIZE = 34  #   O[a], an array of V[c] elements, has V[b] from now on; V[d] its data
    SUM = 35  #      V[d] = V[a] + V[b]
    SAME = 36  #     O[d] = O[a]
    NARROW = 37  #   the V[b] 32-bit integers at V[c] are the 64-bit ones at V[a]


RING = 256
"""How many of the last calls a ring remembers."""

CELL = Fields(entry=0, hits=8, ticks=16)
CELL_BYTES = 32
"""A specialised kernel: its code (null: none), calls that chose it, time spent in it."""

TABLE = Fields(
    slow=0, finish=8, entry=16, session=24, nargs=32, program=40, gather=48, slots=56, outputs=64, results=72,
    threshold=80, ready=88, api=96, hits=104, misses=112, run=120, ticks=128, out_name=136, keeper=144,
)  # fmt: skip
"""Byte offsets in a table. `gather` lists which V are the kernel's slots, `outputs` the first result's place in O, `ready`
the address of a word that must not be zero (or null), `threshold` the work above which the interpreter lock is released,
`ticks` the time spent in the kernel by the processor's clock (see `run_code.CLOCK`), `out_name` the string "out" if the
keyword is taken (else null), `keeper` the address of a word that holds NumPy's handler for the memory of earlier results (null: none).
With a null `entry` the program itself runs kernels."""

TABLE_BYTES = 192

API = Fields(
    **{
        name: 8 * k
        for k, name in enumerate(
            ["getattr", "decref", "incref", "clear", "call", "as_long", "occurred", "save", "restore", "empty", "tuple_new", "tuple_set", "context", "ndarray", "tuple", "int", "float", "memory", "resize", "handler"]
        )
    }
)
"""Byte offsets in the table of CPython's and NumPy's functions and types, and of how many bytes a result may have."""

def text() -> str:
    """`dispatch` as LLVM IR."""
    cases = "\n".join(f"    i64 {op.value}, label %op.{op.name.lower()}" for op in Op)
    table = "\n  ".join(TABLE.at(name, "t") for name in TABLE)
    api = "\n  ".join(f"{API.at(name, 'api')}\n  %{name} = load ptr, ptr %api.{name}" for name in API)

    return f"""
{CLOCK_NAMES}
{cut_code.text("internal ")}
declare {{i64, i1}} @llvm.smul.with.overflow.i64(i64, i64)
{phase_steps.DECLARED}

define internal void @own(ptr %owned, ptr %count, ptr %object) alwaysinline {{
  %n = load i64, ptr %count
  %place = getelementptr ptr, ptr %owned, i64 %n
  store ptr %object, ptr %place
  %more = add i64 %n, 1
  store i64 %more, ptr %count
  ret void
}}

define internal void @drop_all(ptr %owned, i64 %n, ptr %decref) {{
entry:
  br label %next
next:
  %k = phi i64 [ %n, %entry ], [ %k.next, %drop ]
  %more = icmp sgt i64 %k, 0
  br i1 %more, label %drop, label %done
drop:
  %k.next = sub i64 %k, 1
  %place = getelementptr ptr, ptr %owned, i64 %k.next
  %object = load ptr, ptr %place
  call void %decref(ptr %object)
  br label %next
done:
  ret void
}}

define internal i64 @bytes_of(ptr %at, i64 %form) {{
entry:
  %rank = and i64 %form, 255
  %item = lshr i64 %form, 8
  br label %dim
dim:
  %k = phi i64 [ 0, %entry ], [ %k.next, %count ]
  %bytes = phi i64 [ %item, %entry ], [ %bytes.next, %count ]
  %more = icmp slt i64 %k, %rank
  br i1 %more, label %count, label %done
count:
  %k.next = add i64 %k, 1
  %extent.p = getelementptr i64, ptr %at, i64 %k.next
  %extent = load i64, ptr %extent.p
  %bytes.next = mul i64 %bytes, %extent
  br label %dim
done:
  ret i64 %bytes
}}

define ptr @dispatch(ptr %self, ptr %args, i64 %nargs, ptr %kwnames) {{
entry:
  %V = alloca [{ROOM} x i64], align 16
  %O = alloca [{ROOM} x ptr], align 16
  %K = alloca [{ROOM} x i64], align 16
  %owned = alloca [{ROOM} x ptr], align 16
  %owned.n = alloca i64
  %work = alloca double
  %product = alloca double
  %held = alloca ptr
  %chosen = alloca ptr
  %extents = alloca [2 x i64]
  store i64 0, ptr %owned.n
  store ptr null, ptr %chosen
  store double 0.0, ptr %work
  store double 1.0, ptr %product
  %self.t = getelementptr i8, ptr %self, i64 {OBJECT["text"]}
  %t = load ptr, ptr %self.t, align 1
  {table}
  %api = load ptr, ptr %t.api
  {api}
  %wanted = load i64, ptr %t.nargs
  %right = icmp eq i64 %nargs, %wanted
  br i1 %right, label %keywords, label %slow
keywords:
  %positional = icmp eq ptr %kwnames, null
  br i1 %positional, label %arguments.begin, label %keyword
keyword:
  {OBJECT.at("size", "kwnames")}
  %kw.n = load i64, ptr %kwnames.size
  {OBJECT.at("items", "kwnames")}
  %kw.first = load ptr, ptr %kwnames.items
  %kw.out = load ptr, ptr %t.out_name
  %kw.one = icmp eq i64 %kw.n, 1
  %kw.is = icmp eq ptr %kw.first, %kw.out
  %kw.ok = and i1 %kw.one, %kw.is
  br i1 %kw.ok, label %keyword.given, label %slow
keyword.given:
  %kw.p = getelementptr ptr, ptr %args, i64 %nargs
  %kw.array = load ptr, ptr %kw.p
  br label %arguments.begin
arguments.begin:
  %given = phi ptr [ null, %keywords ], [ %kw.array, %keyword.given ]
  %is.given = icmp ne ptr %given, null
  br label %arguments
arguments:
  %k = phi i64 [ 0, %arguments.begin ], [ %k.next, %argument ]
  %k.more = icmp slt i64 %k, %nargs
  br i1 %k.more, label %argument, label %begin
argument:
  %k.from = getelementptr ptr, ptr %args, i64 %k
  %k.object = load ptr, ptr %k.from
  %k.to = getelementptr ptr, ptr %O, i64 %k
  store ptr %k.object, ptr %k.to
  %k.next = add i64 %k, 1
  br label %arguments
begin:
  %program = load ptr, ptr %t.program
  br label %step
advance:
  %pc.next = getelementptr i8, ptr %pc, i64 {STEP}
  br label %step
step:
  %pc = phi ptr [ %program, %begin ], [ %pc.next, %advance ]
  %op = load i64, ptr %pc
  %a.w = getelementptr i8, ptr %pc, i64 8
  %a = load i64, ptr %a.w
  %b.w = getelementptr i8, ptr %pc, i64 16
  %b = load i64, ptr %b.w
  %c.w = getelementptr i8, ptr %pc, i64 24
  %c = load i64, ptr %c.w
  %d.w = getelementptr i8, ptr %pc, i64 32
  %d = load i64, ptr %d.w
  %e.w = getelementptr i8, ptr %pc, i64 40
  %e = load i64, ptr %e.w
  %a.ptr = inttoptr i64 %a to ptr
  %b.ptr = inttoptr i64 %b to ptr
  %d.p = getelementptr i64, ptr %V, i64 %d
  %d.o = getelementptr ptr, ptr %O, i64 %d
  switch i64 %op, label %slow [
{cases}
  ]
{argument_steps.text()}{result_steps.text()}op.factor:
  {number("g", "a")}
  %g.real = sitofp i64 %g to double
  %g.before = load double, ptr %product
  %g.after = fmul double %g.before, %g.real
  store double %g.after, ptr %product
  br label %advance
op.term:
  %j.product = load double, ptr %product
  %j.before = load double, ptr %work
  %j.after = fadd double %j.before, %j.product
  store double %j.after, ptr %work
  store double 1.0, ptr %product
  br label %advance
op.context:
  store ptr null, ptr %held
  %o.code = call i32 %context(ptr %a.ptr, ptr null, ptr %held)
  %o.good = icmp eq i32 %o.code, 0
  br i1 %o.good, label %op.context.read, label %clear.error
op.context.read:
  %o.value = load ptr, ptr %held
  %o.none = icmp eq ptr %o.value, null
  br i1 %o.none, label %slow, label %op.context.compare
op.context.compare:
  call void %decref(ptr %o.value)
  %o.same = icmp eq ptr %o.value, %b.ptr
  br i1 %o.same, label %advance, label %slow
op.record:
  {number("rc", "a")}
  %rc.hits = load i64, ptr %t.hits
  %rc.at = and i64 %rc.hits, {RING - 1}
  %rc.to = getelementptr i64, ptr %b.ptr, i64 %rc.at
  store i64 %rc, ptr %rc.to
  br label %advance
op.review:
  %rv.limit = load i64, ptr %a.ptr
  %rv.hits = load i64, ptr %t.hits
  %rv.ok = icmp slt i64 %rv.hits, %rv.limit
  br i1 %rv.ok, label %advance, label %slow
op.rank:
  {number("rk", "a")}
  br label %op.rank.step
op.rank.step:
  %rk.low = phi i64 [ 0, %op.rank ], [ %rk.low.next, %op.rank.look ]
  %rk.high = phi i64 [ %c, %op.rank ], [ %rk.high.next, %op.rank.look ]
  %rk.more = icmp slt i64 %rk.low, %rk.high
  br i1 %rk.more, label %op.rank.look, label %op.rank.done
op.rank.look:
  %rk.sum = add i64 %rk.low, %rk.high
  %rk.mid = lshr i64 %rk.sum, 1
  %rk.from = getelementptr i64, ptr %b.ptr, i64 %rk.mid
  %rk.edge = load i64, ptr %rk.from
  %rk.over = icmp sle i64 %rk.edge, %rk
  %rk.up = add i64 %rk.mid, 1
  %rk.low.next = select i1 %rk.over, i64 %rk.up, i64 %rk.low
  %rk.high.next = select i1 %rk.over, i64 %rk.high, i64 %rk.mid
  br label %op.rank.step
op.rank.done:
  %rk.before = load i64, ptr %d.p
  %rk.base = add i64 %c, 1
  %rk.scaled = mul i64 %rk.before, %rk.base
  %rk.result = add i64 %rk.scaled, %rk.low
  {give("%rk.result")}
op.select:
  {number("se", "a")}
  %se.offset = mul i64 %se, {CELL_BYTES}
  %se.cell = getelementptr i8, ptr %b.ptr, i64 %se.offset
  %se.entry = load ptr, ptr %se.cell
  %se.none = icmp eq ptr %se.entry, null
  br i1 %se.none, label %advance, label %op.select.keep
op.select.keep:
  store ptr %se.cell, ptr %chosen
  br label %advance
{phase_steps.text()}op.end:
  %end.entry = load ptr, ptr %t.entry
  %end.none = icmp eq ptr %end.entry, null
  br i1 %end.none, label %result, label %end.ready
end.ready:
  %ready.p = load ptr, ptr %t.ready
  %ready.any = icmp eq ptr %ready.p, null
  br i1 %ready.any, label %slots, label %ready.check
ready.check:
  %ready.word = load atomic i64, ptr %ready.p monotonic, align 8
  %ready.no = icmp eq i64 %ready.word, 0
  br i1 %ready.no, label %slow, label %slots
slots:
  %gather = load ptr, ptr %t.gather
  %slots.n = load i64, ptr %t.slots
  br label %slot
slot:
  %p = phi i64 [ 0, %slots ], [ %p.next, %slot.copy ]
  %p.more = icmp slt i64 %p, %slots.n
  br i1 %p.more, label %slot.copy, label %launch
slot.copy:
  %p.which.p = getelementptr i64, ptr %gather, i64 %p
  %p.which = load i64, ptr %p.which.p
  {number("p.value", "p.which")}
  %p.to = getelementptr i64, ptr %K, i64 %p
  store i64 %p.value, ptr %p.to
  %p.next = add i64 %p, 1
  br label %slot
launch:
  %cell = load ptr, ptr %chosen
  %general = icmp eq ptr %cell, null
  %own.entry = getelementptr i8, ptr %t, i64 {TABLE["entry"]}
  %entry.from = select i1 %general, ptr %own.entry, ptr %cell
  %entry.point = load ptr, ptr %entry.from
  %session = load ptr, ptr %t.session
  %run = load ptr, ptr %t.run
  %threshold = load double, ptr %t.threshold
  %work.sum = load double, ptr %work
  %large = fcmp ogt double %work.sum, %threshold
  %ticks.from = {CLOCK}
  br i1 %large, label %launch.free, label %launch.held
launch.free:
  %state = call ptr %save()
  %code.1 = call i64 %run(ptr %entry.point, ptr %K, ptr %session, ptr null)
  call void %restore(ptr %state)
  br label %ran
launch.held:
  %code.2 = call i64 %run(ptr %entry.point, ptr %K, ptr %session, ptr null)
  br label %ran
ran:
  %code = phi i64 [ %code.1, %launch.free ], [ %code.2, %launch.held ]
  %ticks.to = {CLOCK}
  %ticks.spent = sub i64 %ticks.to, %ticks.from
  %ticks.before = load i64, ptr %t.ticks
  %ticks.after = add i64 %ticks.before, %ticks.spent
  store i64 %ticks.after, ptr %t.ticks
  br i1 %general, label %judge, label %credit
credit:
  %cell.hits = getelementptr i8, ptr %cell, i64 {CELL["hits"]}
  %cell.ticks = getelementptr i8, ptr %cell, i64 {CELL["ticks"]}
  %cell.h0 = load i64, ptr %cell.hits
  %cell.h1 = add i64 %cell.h0, 1
  store i64 %cell.h1, ptr %cell.hits
  %cell.t0 = load i64, ptr %cell.ticks
  %cell.t1 = add i64 %cell.t0, %ticks.spent
  store i64 %cell.t1, ptr %cell.ticks
  br label %judge
judge:
  %good = icmp eq i64 %code, 0
  br i1 %good, label %result, label %slow
result:
  %hits.0 = load i64, ptr %t.hits
  %hits.1 = add i64 %hits.0, 1
  store i64 %hits.1, ptr %t.hits
  %finish = load ptr, ptr %t.finish
  %outputs = load i64, ptr %t.outputs
  %results = load i64, ptr %t.results
  %first.p = getelementptr ptr, ptr %O, i64 %outputs
  %raw = icmp eq ptr %finish, null
  br i1 %raw, label %result.raw, label %result.finish
result.raw:
  %one = icmp eq i64 %results, 1
  br i1 %one, label %result.one, label %result.many
result.one:
  %only = load ptr, ptr %first.p
  call void %incref(ptr %only)
  br label %leave
result.many:
  %several = call ptr %tuple_new(i64 %results)
  %several.bad = icmp eq ptr %several, null
  br i1 %several.bad, label %leave, label %fill
fill:
  %q = phi i64 [ 0, %result.many ], [ %q.next, %fill.one ]
  %q.more = icmp slt i64 %q, %results
  br i1 %q.more, label %fill.one, label %leave
fill.one:
  %q.from = getelementptr ptr, ptr %first.p, i64 %q
  %q.object = load ptr, ptr %q.from
  call void %incref(ptr %q.object)
  %q.code = call i32 %tuple_set(ptr %several, i64 %q, ptr %q.object)
  %q.next = add i64 %q, 1
  br label %fill
result.finish:
  br label %pass.out
pass.out:
  %y1 = phi i64 [ 0, %result.finish ], [ %y1.next, %pass.out.one ]
  %y1.more = icmp slt i64 %y1, %results
  br i1 %y1.more, label %pass.out.one, label %pass.in
pass.out.one:
  %y1.from = getelementptr ptr, ptr %first.p, i64 %y1
  %y1.object = load ptr, ptr %y1.from
  %y1.to = getelementptr ptr, ptr %K, i64 %y1
  store ptr %y1.object, ptr %y1.to
  %y1.next = add i64 %y1, 1
  br label %pass.out
pass.in:
  %y2 = phi i64 [ 0, %pass.out ], [ %y2.next, %pass.in.one ]
  %y2.more = icmp slt i64 %y2, %nargs
  %y2.place = add i64 %results, %y2
  br i1 %y2.more, label %pass.in.one, label %pass.call
pass.in.one:
  %y2.from = getelementptr ptr, ptr %args, i64 %y2
  %y2.object = load ptr, ptr %y2.from
  %y2.to = getelementptr ptr, ptr %K, i64 %y2.place
  store ptr %y2.object, ptr %y2.to
  %y2.next = add i64 %y2, 1
  br label %pass.in
pass.call:
  %finished = call ptr %call(ptr %finish, ptr %K, i64 %y2.place, ptr null)
  br label %leave
leave:
  %answer = phi ptr [ %only, %result.one ], [ null, %result.many ], [ %several, %fill ], [ %finished, %pass.call ]
  %n.end = load i64, ptr %owned.n
  call void @drop_all(ptr %owned, i64 %n.end, ptr %decref)
  ret ptr %answer
clear.error:
  call void %clear()
  br label %slow
slow:
  %n.slow = load i64, ptr %owned.n
  call void @drop_all(ptr %owned, i64 %n.slow, ptr %decref)
  %misses.0 = load i64, ptr %t.misses
  %misses.1 = add i64 %misses.0, 1
  store i64 %misses.1, ptr %t.misses
  %slow.path = load ptr, ptr %t.slow
  %slow.value = call ptr %call(ptr %slow.path, ptr %args, i64 %nargs, ptr %kwnames)
  ret ptr %slow.value
}}
"""
