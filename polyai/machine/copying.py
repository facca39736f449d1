"""Loops that copy: a part of one array goes to a place in another one, by `memcpy` or past the caches.

    for k in 0..n copy: C[to + k] = C_part[from + k]; J[to + k] = J_part[from + k]

A large result that is copied to its place is not read again soon: what is stored past the caches (`stream`) need not be fetched
before it is overwritten, which saves a third of the traffic.
"""

from __future__ import annotations

from polyai.errors import VerifyError
from polyai.loop import nodes as lp
from polyai.machine import memory
from polyai.machine import types as ty
from polyai.machine.body import Body
from polyai.machine.num import Num
from polyai.machine.values import Value
from polyai.scalar import dtype as dt


def copy(b: Body, s: lp.For, lower: Num, upper: Num) -> None:
    """Write the copies of a COPY or STREAM loop, whose body is Lets and Stores of Loads: see `loop.verify`."""
    fn, scope = b.fn, b.scope
    run, after = fn.label("copy"), fn.label("copied")
    fn.do(f"br i1 {lower.lt(upper).ref}, label %{run}, label %{after}")
    fn.start(run)
    saved = scope.enter()
    scope.values[s.var] = Value(dt.i64, 1, lower)
    count = upper - lower
    for part in s.body.stmts if isinstance(s.body, lp.Block) else (s.body,):
        if isinstance(part, lp.Let):
            scope.values[part.name] = scope.expr(part.value)
            continue
        assert isinstance(part, lp.Store) and isinstance(part.value, lp.Load)
        target, source = (_start(b, a.array, a.indices) for a in (part, part.value))
        size = ty.bits_of(ty.memory(scope.array(part.array).dtype)) // 8 * (2 if scope.array(part.array).dtype.is_complex else 1)
        if s.kind is lp.Kind.STREAM and fn.module.target.triple.startswith("x86_64"):
            for name, result, kinds in (("llvm.memcpy.p0.p0.i64", "void", ("ptr", "ptr", "i64", "i1")), ("llvm.x86.sse.sfence", "void", ())):
                fn.module.declare(result, name, kinds)
            fn.module.helper("pa.stream", lambda: STREAM)
            fn.do(f"call void @pa.stream(ptr {target}, ptr {source}, i64 {(count * size).ref})")
        else:
            fn.module.declare("void", "llvm.memcpy.p0.p0.i64", ("ptr", "ptr", "i64", "i1"))
            fn.do(f"call void @llvm.memcpy.p0.p0.i64(ptr {target}, ptr {source}, i64 {(count * size).ref}, i1 false)")
    fn.written()
    scope.leave(saved)
    fn.do(f"br label %{after}")
    fn.start(after)


def _start(b: Body, name: str, indices: tuple[lp.LoopExpr, ...]) -> str:
    """The address of the first element that is copied."""
    array = b.scope.array(name)
    if isinstance(array, memory.Register):
        raise VerifyError(f"register {name} is copied as an array")
    index = b.scope.place(name, indices).re
    elem = ty.memory(array.dtype)
    return b.fn.op(f"getelementptr {elem}, ptr {array.ref}, i64 {(index * 2 if array.dtype.is_complex else index).ref}")


STREAM = """define internal void @pa.stream(ptr %to, ptr %from, i64 %bytes) #0 {
entry:
  %number = ptrtoint ptr %to to i64
  %past = sub i64 0, %number
  %gap = and i64 %past, 63
  %short = icmp ult i64 %bytes, %gap
  %head = select i1 %short, i64 %bytes, i64 %gap
  call void @llvm.memcpy.p0.p0.i64(ptr %to, ptr %from, i64 %head, i1 false)
  %left = sub i64 %bytes, %head
  %lines = and i64 %left, -64
  %end = add i64 %head, %lines
  %some = icmp ne i64 %lines, 0
  br i1 %some, label %line, label %rest
line:
  %k = phi i64 [ %head, %entry ], [ %k.next, %line ]
  %f0 = getelementptr i8, ptr %from, i64 %k
  %f1 = getelementptr i8, ptr %f0, i64 32
  %x0 = load <4 x i64>, ptr %f0, align 1
  %x1 = load <4 x i64>, ptr %f1, align 1
  %t0 = getelementptr i8, ptr %to, i64 %k
  %t1 = getelementptr i8, ptr %t0, i64 32
  store <4 x i64> %x0, ptr %t0, align 32, !nontemporal !2
  store <4 x i64> %x1, ptr %t1, align 32, !nontemporal !2
  %k.next = add i64 %k, 64
  %more = icmp slt i64 %k.next, %end
  br i1 %more, label %line, label %rest
rest:
  %t2 = getelementptr i8, ptr %to, i64 %end
  %f2 = getelementptr i8, ptr %from, i64 %end
  %tail = sub i64 %bytes, %end
  call void @llvm.memcpy.p0.p0.i64(ptr %t2, ptr %f2, i64 %tail, i1 false)
  call void @llvm.x86.sse.sfence()
  ret void
}"""
"""Whole lines past the caches, the ends as usual; the fence is for those who see the task end."""
