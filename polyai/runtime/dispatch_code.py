"""The native call path: a function for CPython's vectorcall that follows a short program over the call's arguments.

    dispatch(self, args, nargs, kwnames)        self is a bytes object that holds the address of a TABLE; `out=` may be given

The program checks the arguments, reads addresses and sizes from them and allocates outputs; then the kernel runs. Whatever
does not fit, and whatever result is not OK, ends in a call of the table's `slow` with the same arguments: nothing is
decided here but that a call is plain. An instruction is STEP bytes: an Op and up to five operands, a to e. It works on
numbers V[k] and objects O[k]; O starts with the arguments.
"""

from __future__ import annotations

from enum import IntEnum

from polyai.runtime import cut_code, phase_steps
from polyai.runtime.run_code import CLOCK, CLOCK_NAMES
from polyai.runtime.shared import Fields

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


LEAST = 1 << 16
"""Bytes of a result from which on its memory comes from here: smaller ones the C library keeps itself."""
KEPT = 1 << 40
"""In an ALLOC: the result may have memory that was a result before."""
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

OBJECT = Fields(type=8, size=16, items=24, real=16, text=32)
ARRAY = Fields(data=16, ndim=24, shape=32, dtype=56, flags=64)
DTYPE = Fields(order=26, number=28)
"""Byte offsets in CPython's and NumPy's objects; `cpython.layout_holds` checks them in the running process."""

PLAIN = 0x101
"""Array flags: C-contiguous, aligned."""
WRITABLE = PLAIN | 0x400
"""Array flags: the same, and writeable."""


def text() -> str:
    """`dispatch` as LLVM IR."""
    cases = "\n".join(f"    i64 {op.value}, label %op.{op.name.lower()}" for op in Op)
    table = "\n  ".join(TABLE.at(name, "t") for name in TABLE)
    api = "\n  ".join(f"{API.at(name, 'api')}\n  %{name} = load ptr, ptr %api.{name}" for name in API)

    def number(name: str, operand: str) -> str:
        return f"%{name}.p = getelementptr i64, ptr %V, i64 %{operand}\n  %{name} = load i64, ptr %{name}.p"

    def thing(name: str, operand: str) -> str:
        return f"%{name}.p = getelementptr ptr, ptr %O, i64 %{operand}\n  %{name} = load ptr, ptr %{name}.p"

    def type_of(name: str) -> str:
        return f"{OBJECT.at('type', name)}\n  %{name}.is = load ptr, ptr %{name}.type"

    def give(value: str) -> str:
        return f"store i64 {value}, ptr %d.p\n  br label %advance"

    def own(value: str) -> str:
        return f"call void @own(ptr %owned, ptr %owned.n, ptr {value})"

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
op.type:
  {thing("t1", "a")}
  {type_of("t1")}
  %t1.ok = icmp eq ptr %t1.is, %b.ptr
  br i1 %t1.ok, label %advance, label %slow
op.is:
  {thing("is", "a")}
  %is.ok = icmp eq ptr %is, %b.ptr
  br i1 %is.ok, label %advance, label %slow
op.array:
  {thing("x", "a")}
  {type_of("x")}
  %x.ok = icmp eq ptr %x.is, %ndarray
  br i1 %x.ok, label %op.array.form, label %slow
op.array.form:
  {ARRAY.at("ndim", "x")}
  %x.nd = load i32, ptr %x.ndim
  %x.nd64 = sext i32 %x.nd to i64
  %x.rank = icmp eq i64 %x.nd64, %c
  {ARRAY.at("flags", "x")}
  %x.fl = load i32, ptr %x.flags
  %x.both = and i32 %x.fl, {PLAIN}
  %x.plain = icmp eq i32 %x.both, {PLAIN}
  %x.fits = and i1 %x.rank, %x.plain
  br i1 %x.fits, label %op.array.kind, label %slow
op.array.kind:
  {ARRAY.at("dtype", "x")}
  %x.dt = load ptr, ptr %x.dtype
  %x.same = icmp eq ptr %x.dt, %b.ptr
  br i1 %x.same, label %op.array.read, label %op.array.alike
op.array.alike:
  {DTYPE.at("number", "x.dt")}
  %x.num = load i32, ptr %x.dt.number
  %x.num64 = zext i32 %x.num to i64
  %x.first = and i64 %e, 65535
  %x.second = lshr i64 %e, 16
  %x.is1 = icmp eq i64 %x.num64, %x.first
  %x.is2 = icmp eq i64 %x.num64, %x.second
  %x.known = or i1 %x.is1, %x.is2
  {DTYPE.at("order", "x.dt")}
  %x.or = load i8, ptr %x.dt.order
  %x.native = icmp eq i8 %x.or, {ord("=")}
  %x.single = icmp eq i8 %x.or, {ord("|")}
  %x.order = or i1 %x.native, %x.single
  %x.alike = and i1 %x.known, %x.order
  br i1 %x.alike, label %op.array.read, label %slow
op.array.read:
  {ARRAY.at("data", "x")}
  %x.address = load i64, ptr %x.data
  store i64 %x.address, ptr %d.p
  {ARRAY.at("shape", "x")}
  %x.dims = load ptr, ptr %x.shape
  br label %op.array.dim
op.array.dim:
  %i = phi i64 [ 0, %op.array.read ], [ %i.next, %op.array.copy ]
  %i.more = icmp slt i64 %i, %c
  br i1 %i.more, label %op.array.copy, label %advance
op.array.copy:
  %i.from = getelementptr i64, ptr %x.dims, i64 %i
  %i.size = load i64, ptr %i.from
  %i.next = add i64 %i, 1
  %i.to = getelementptr i64, ptr %d.p, i64 %i.next
  store i64 %i.size, ptr %i.to
  br label %op.array.dim
op.attr:
  {thing("m", "a")}
  %m.value = call ptr %getattr(ptr %m, ptr %b.ptr)
  %m.bad = icmp eq ptr %m.value, null
  br i1 %m.bad, label %clear.error, label %op.attr.keep
op.attr.keep:
  {own("%m.value")}
  store ptr %m.value, ptr %d.o
  br label %advance
op.item:
  {thing("u", "a")}
  {type_of("u")}
  %u.ok = icmp eq ptr %u.is, %tuple
  br i1 %u.ok, label %op.item.size, label %slow
op.item.size:
  {OBJECT.at("size", "u")}
  %u.n = load i64, ptr %u.size
  %u.fits = icmp eq i64 %u.n, %c
  br i1 %u.fits, label %op.item.get, label %slow
op.item.get:
  {OBJECT.at("items", "u")}
  %u.place = getelementptr ptr, ptr %u.items, i64 %b
  %u.object = load ptr, ptr %u.place
  store ptr %u.object, ptr %d.o
  br label %advance
op.int:
  {thing("n", "a")}
  {type_of("n")}
  %n.ok = icmp eq ptr %n.is, %int
  br i1 %n.ok, label %op.int.get, label %slow
op.int.get:
  %n.value = call i64 %as_long(ptr %n)
  store i64 %n.value, ptr %d.p
  %n.odd = icmp eq i64 %n.value, -1
  br i1 %n.odd, label %op.int.check, label %advance
op.int.check:
  %n.error = call ptr %occurred()
  %n.fine = icmp eq ptr %n.error, null
  br i1 %n.fine, label %advance, label %clear.error
op.float:
  {thing("f", "a")}
  {type_of("f")}
  %f.ok = icmp eq ptr %f.is, %float
  br i1 %f.ok, label %op.float.get, label %slow
op.float.get:
  {OBJECT.at("real", "f")}
  %f.value = load double, ptr %f.real
  %f.short = icmp eq i64 %b, 32
  br i1 %f.short, label %op.float.short, label %op.float.long
op.float.short:
  %f.single = fptrunc double %f.value to float
  store float %f.single, ptr %d.p
  br label %advance
op.float.long:
  store double %f.value, ptr %d.p
  br label %advance
op.address:
  %l.p = getelementptr i64, ptr %V, i64 %a
  %l = ptrtoint ptr %l.p to i64
  {give("%l")}
op.read:
  {number("r.base", "a")}
  {number("r.index", "b")}
  %r.array = inttoptr i64 %r.base to ptr
  %r.short = icmp eq i64 %c, 4
  br i1 %r.short, label %op.read.short, label %op.read.long
op.read.short:
  %r.32 = getelementptr i32, ptr %r.array, i64 %r.index
  %r.v32 = load i32, ptr %r.32
  %r.wide = sext i32 %r.v32 to i64
  {give("%r.wide")}
op.read.long:
  %r.64 = getelementptr i64, ptr %r.array, i64 %r.index
  %r.v64 = load i64, ptr %r.64
  {give("%r.v64")}
op.add:
  {number("s", "a")}
  %s.sum = add i64 %s, %b
  {give("%s.sum")}
op.const:
  {give("%a")}
op.shift:
  {number("h", "a")}
  %h.up = shl i64 %h, %b
  {give("%h.up")}
op.times:
  {number("tm1", "a")}
  {number("tm2", "b")}
  %tm.both = call {{i64, i1}} @llvm.smul.with.overflow.i64(i64 %tm1, i64 %tm2)
  %tm.product = extractvalue {{i64, i1}} %tm.both, 0
  %tm.lost = extractvalue {{i64, i1}} %tm.both, 1
  store i64 %tm.product, ptr %d.p
  br i1 %tm.lost, label %slow, label %advance
op.quotient:
  {number("qt", "a")}
  %qt.part = udiv i64 %qt, %b
  {give("%qt.part")}
op.copy:
  {number("cp", "a")}
  {give("%cp")}
op.equal:
  {number("q1", "a")}
  {number("q2", "b")}
  %q.ok = icmp eq i64 %q1, %q2
  br i1 %q.ok, label %advance, label %slow
op.within:
  {number("w", "a")}
  %w.low = icmp sge i64 %w, %b
  %w.high = icmp sle i64 %w, %c
  %w.ok = and i1 %w.low, %w.high
  br i1 %w.ok, label %advance, label %slow
op.atmost:
  {number("z1", "a")}
  {number("z2", "b")}
  %z.ok = icmp sle i64 %z1, %z2
  br i1 %z.ok, label %advance, label %slow
op.multiple:
  {number("y", "a")}
  %y.rest = srem i64 %y, %b
  %y.ok = icmp eq i64 %y.rest, 0
  br i1 %y.ok, label %advance, label %slow
op.alloc:
  %v.dims = getelementptr i64, ptr %V, i64 %c
  %v.rank = and i64 %b, 255
  %v.item.b = lshr i64 %b, 8
  %v.item = and i64 %v.item.b, {(KEPT >> 8) - 1}
  br i1 %is.given, label %op.out, label %op.alloc.new
op.out:
  {type_of("given")}
  %v.isarray = icmp eq ptr %given.is, %ndarray
  br i1 %v.isarray, label %op.out.form, label %slow
op.out.form:
  {ARRAY.at("ndim", "given")}
  %given.nd = load i32, ptr %given.ndim
  %given.nd64 = sext i32 %given.nd to i64
  %given.rank = icmp eq i64 %given.nd64, %v.rank
  {ARRAY.at("flags", "given")}
  %given.fl = load i32, ptr %given.flags
  %given.all = and i32 %given.fl, {WRITABLE}
  %given.plain = icmp eq i32 %given.all, {WRITABLE}
  {ARRAY.at("dtype", "given")}
  %given.dt = load ptr, ptr %given.dtype
  %given.kind = icmp eq ptr %given.dt, %a.ptr
  %given.fits.1 = and i1 %given.rank, %given.plain
  %given.fits = and i1 %given.fits.1, %given.kind
  br i1 %given.fits, label %op.out.shape, label %slow
op.out.shape:
  {ARRAY.at("shape", "given")}
  %given.dims = load ptr, ptr %given.shape
  br label %op.out.dim
op.out.dim:
  %w.k = phi i64 [ 0, %op.out.shape ], [ %w.next, %op.out.same ]
  %w.more = icmp slt i64 %w.k, %v.rank
  br i1 %w.more, label %op.out.compare, label %op.alloc.keep
op.out.compare:
  %w.mine.p = getelementptr i64, ptr %given.dims, i64 %w.k
  %w.mine = load i64, ptr %w.mine.p
  %w.want.p = getelementptr i64, ptr %v.dims, i64 %w.k
  %w.want = load i64, ptr %w.want.p
  %w.same = icmp eq i64 %w.mine, %w.want
  br i1 %w.same, label %op.out.same, label %slow
op.out.same:
  %w.next = add i64 %w.k, 1
  br label %op.out.dim
op.alloc.new:
  %v.item.real = uitofp i64 %v.item to double
  br label %op.alloc.dim
op.alloc.dim:
  %v.k = phi i64 [ 0, %op.alloc.new ], [ %v.k.next, %op.alloc.times ]
  %v.bytes = phi double [ %v.item.real, %op.alloc.new ], [ %v.bytes.next, %op.alloc.times ]
  %v.k.more = icmp slt i64 %v.k, %v.rank
  br i1 %v.k.more, label %op.alloc.times, label %op.alloc.fits
op.alloc.times:
  %v.extent.p = getelementptr i64, ptr %v.dims, i64 %v.k
  %v.extent = load i64, ptr %v.extent.p
  %v.extent.real = sitofp i64 %v.extent to double
  %v.bytes.next = fmul double %v.bytes, %v.extent.real
  %v.k.next = add i64 %v.k, 1
  br label %op.alloc.dim
op.alloc.fits:
  %v.most = ptrtoint ptr %memory to i64
  %v.most.real = sitofp i64 %v.most to double
  %v.fits = fcmp ole double %v.bytes, %v.most.real
  br i1 %v.fits, label %op.alloc.make, label %slow
op.alloc.make:
  call void %incref(ptr %a.ptr)
  %v.nd = trunc i64 %v.rank to i32
  %v.keep.b = and i64 %b, {KEPT}
  %v.keep = icmp ne i64 %v.keep.b, 0
  %v.large = fcmp oge double %v.bytes, {float(LEAST)}
  %v.kept = and i1 %v.keep, %v.large
  br i1 %v.kept, label %op.alloc.keeper, label %op.alloc.plain
op.alloc.keeper:
  %keeper.p = load ptr, ptr %t.keeper
  %keeper = load ptr, ptr %keeper.p
  %keeper.none = icmp eq ptr %keeper, null
  br i1 %keeper.none, label %op.alloc.plain, label %op.alloc.kept
op.alloc.kept:
  %keeper.before = call ptr %handler(ptr %keeper)
  %v.again = call ptr %empty(i32 %v.nd, ptr %v.dims, ptr %a.ptr, i32 0)
  %keeper.after = call ptr %handler(ptr %keeper.before)
  call void %decref(ptr %keeper.after)
  call void %decref(ptr %keeper.before)
  br label %op.alloc.made
op.alloc.plain:
  %v.plain = call ptr %empty(i32 %v.nd, ptr %v.dims, ptr %a.ptr, i32 0)
  br label %op.alloc.made
op.alloc.made:
  %v.new = phi ptr [ %v.again, %op.alloc.kept ], [ %v.plain, %op.alloc.plain ]
  %v.bad = icmp eq ptr %v.new, null
  br i1 %v.bad, label %clear.error, label %op.alloc.own
op.alloc.own:
  {own("%v.new")}
  br label %op.alloc.keep
op.alloc.keep:
  %v = phi ptr [ %v.new, %op.alloc.own ], [ %given, %op.out.dim ]
  %v.place = getelementptr ptr, ptr %O, i64 %e
  store ptr %v, ptr %v.place
  {ARRAY.at("data", "v")}
  %v.address = load i64, ptr %v.data
  {give("%v.address")}
op.apart:
  br i1 %is.given, label %op.apart.test, label %advance
op.apart.test:
  {number("ap1", "a")}
  {number("ap2", "c")}
  %ap1.bytes = call i64 @bytes_of(ptr %ap1.p, i64 %b)
  %ap2.bytes = call i64 @bytes_of(ptr %ap2.p, i64 %d)
  %ap1.end = add i64 %ap1, %ap1.bytes
  %ap2.end = add i64 %ap2, %ap2.bytes
  %ap.before = icmp ule i64 %ap1.end, %ap2
  %ap.behind = icmp ule i64 %ap2.end, %ap1
  %ap.apart = or i1 %ap.before, %ap.behind
  br i1 %ap.apart, label %advance, label %slow
op.factor:
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
{phase_steps.text(number, thing, give, ARRAY.at("data", "rz"))}op.end:
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
