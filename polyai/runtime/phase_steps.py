"""The steps of native calls of several kernels (see dispatch_code): run one, cut rows into parts, give back what was not used."""

from __future__ import annotations

from polyai.runtime.run_code import CLOCK
from polyai.runtime.steps import ARRAY, give, number, thing

DECLARED = """declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
declare i64 @llvm.smax.i64(i64, i64)"""
"""What a module with these steps declares."""


def text() -> str:
    """The steps as blocks of `dispatch`, as LLVM IR."""
    return f"""op.sum:
  {number("su.1", "a")}
  {number("su.2", "b")}
  %su = add i64 %su.1, %su.2
  {give("%su")}
op.same:
  {thing("sa", "a")}
  store ptr %sa, ptr %d.o
  br label %advance
op.narrow:
  {number("na", "a")}
  {number("na.n", "b")}
  {number("na.to", "c")}
  %na.from = inttoptr i64 %na to ptr
  %na.into = inttoptr i64 %na.to to ptr
  br label %op.narrow.next
op.narrow.next:
  %na.k = phi i64 [ 0, %op.narrow ], [ %na.k.next, %op.narrow.one ]
  %na.more = icmp slt i64 %na.k, %na.n
  br i1 %na.more, label %op.narrow.one, label %advance
op.narrow.one:
  %na.from.p = getelementptr i64, ptr %na.from, i64 %na.k
  %na.wide = load i64, ptr %na.from.p
  %na.short = trunc i64 %na.wide to i32
  %na.to.at = getelementptr i32, ptr %na.into, i64 %na.k
  store i32 %na.short, ptr %na.to.at
  %na.k.next = add i64 %na.k, 1
  br label %op.narrow.next
op.least:
  {number("le", "a")}
  %le.most = call i64 @llvm.smax.i64(i64 %le, i64 %b)
  {give("%le.most")}
op.ready:
  %re.word = load atomic i64, ptr %a.ptr monotonic, align 8
  %re.no = icmp eq i64 %re.word, 0
  br i1 %re.no, label %slow, label %advance
op.run:
  %go.p = phi i64 [ 0, %step ], [ %go.next, %op.run.slot ]
  %go.more = icmp slt i64 %go.p, %c
  br i1 %go.more, label %op.run.slot, label %op.run.launch
op.run.slot:
  %go.which.p = getelementptr i64, ptr %b.ptr, i64 %go.p
  %go.which = load i64, ptr %go.which.p
  {number("go.value", "go.which")}
  %go.to = getelementptr i64, ptr %K, i64 %go.p
  store i64 %go.value, ptr %go.to
  %go.next = add i64 %go.p, 1
  br label %op.run
op.run.launch:
  %go.run = load ptr, ptr %t.run
  %go.session = inttoptr i64 %d to ptr
  %go.threshold = load double, ptr %t.threshold
  %go.work = load double, ptr %work
  %go.large = fcmp ogt double %go.work, %go.threshold
  %go.from = {CLOCK}
  br i1 %go.large, label %op.run.free, label %op.run.held
op.run.free:
  %go.state = call ptr %save()
  %go.code.1 = call i64 %go.run(ptr %a.ptr, ptr %K, ptr %go.session, ptr null)
  call void %restore(ptr %go.state)
  br label %op.run.ran
op.run.held:
  %go.code.2 = call i64 %go.run(ptr %a.ptr, ptr %K, ptr %go.session, ptr null)
  br label %op.run.ran
op.run.ran:
  %go.code = phi i64 [ %go.code.1, %op.run.free ], [ %go.code.2, %op.run.held ]
  %go.till = {CLOCK}
  %go.spent = sub i64 %go.till, %go.from
  %go.before = load i64, ptr %t.ticks
  %go.after = add i64 %go.before, %go.spent
  store i64 %go.after, ptr %t.ticks
  %go.good = icmp eq i64 %go.code, 0
  br i1 %go.good, label %advance, label %slow
op.zero:
  {number("ze", "a")}
  {number("ze.n", "b")}
  %ze.to = inttoptr i64 %ze to ptr
  %ze.bytes = mul i64 %ze.n, %c
  call void @llvm.memset.p0.i64(ptr %ze.to, i8 0, i64 %ze.bytes, i1 false)
  br label %advance
op.cut:
  {number("cu.bounds", "a")}
  {number("cu.rows", "b")}
  {number("cu.total", "c")}
  {number("cu.parts", "e")}
  %cu.second = add i64 %e, 1
  {number("cu.to", "cu.second")}
  %cu.from = inttoptr i64 %cu.bounds to ptr
  %cu.cuts = inttoptr i64 %cu.to to ptr
  store i64 0, ptr %cu.cuts
  %cu.share = sdiv i64 %cu.total, %cu.parts
  %cu.most = call i64 @cut(ptr %cu.from, i64 %cu.rows, i64 %cu.share, i64 %cu.parts, ptr %cu.cuts)
  {give("%cu.most")}
op.resize:
  {thing("rz", "a")}
  %rz.dims = getelementptr i64, ptr %V, i64 %b
  %rz.n = load i64, ptr %rz.dims
  {number("rz.had", "c")}
  %rz.same = icmp eq i64 %rz.n, %rz.had
  br i1 %rz.same, label %advance, label %op.resize.do
op.resize.do:
  store ptr %rz.dims, ptr %extents
  %rz.count = getelementptr i8, ptr %extents, i64 8
  store i32 1, ptr %rz.count
  %rz.none = call ptr %resize(ptr %rz, ptr %extents, i32 0, i32 0)
  %rz.bad = icmp eq ptr %rz.none, null
  br i1 %rz.bad, label %clear.error, label %op.resize.done
op.resize.done:
  call void %decref(ptr %rz.none)
  {ARRAY.at("data", "rz")}
  %rz.address = load i64, ptr %rz.data
  {give("%rz.address")}
"""
