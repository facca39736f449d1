"""The steps of native calls that look at arguments and sizes (see dispatch_code)."""

from __future__ import annotations

from polyai.runtime.steps import ARRAY, DTYPE, OBJECT, PLAIN, give, number, own, thing, type_of


def text() -> str:
    """The steps as blocks of `dispatch`, as LLVM IR."""
    return f"""op.type:
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
"""
