"""The steps of native calls that make results, or take those that are given (see dispatch_code)."""

from __future__ import annotations

from polyai.runtime.steps import ARRAY, KEPT, LEAST, WRITABLE, give, number, own, type_of


def text() -> str:
    """The steps as blocks of `dispatch`, as LLVM IR."""
    return f"""op.alloc:
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
"""
