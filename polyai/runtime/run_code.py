"""The native step every launch goes through: makes the Runtime record, finds scratch memory, calls the kernel.

    run(entry, args, session, report):  result of the kernel; report = [culprit, needed] unless null
"""

from __future__ import annotations

from polyai.machine.abi import ALIGN, NEED_ARENA, RUNTIME
from polyai.machine.cpu import architecture
from polyai.runtime.shared import Fields

SESSION = Fields(parallel=0, pool=8, threads=16, arena=24, calls=32)
"""What launches share: byte offsets in the memory of a session."""

SESSION_BYTES = 64
STACK = 4096
"""Bytes of scratch memory on the stack, for kernels that need little."""

CLOCK, CLOCK_NAMES = {
    "x86_64": ("call i64 @llvm.readcyclecounter()", "declare i64 @llvm.readcyclecounter()"),
    "aarch64": (
        "call i64 @llvm.read_volatile_register.i64(metadata !0)",
        'declare i64 @llvm.read_volatile_register.i64(metadata)\n!0 = !{!"cntvct_el0"}',
    ),
}[architecture()]
"""The processor's clock in ticks of constant length, an instruction of a few nanoseconds; and what a module that reads it declares."""

TRIES = 64
"""A kernel asks for more memory at most this often."""


def text() -> str:
    """`run` as LLVM IR."""

    def at(*names: str) -> str:
        return "\n  ".join(SESSION.at(name, "s") for name in names)

    field = {name: 8 * k for k, name in enumerate(RUNTIME)}
    places = "\n  ".join(f"%rt.{name} = getelementptr i8, ptr %rt, i64 {offset}" for name, offset in field.items())
    return f"""
{CLOCK_NAMES}

define i64 @ticks() {{
  %now = {CLOCK}
  ret i64 %now
}}

define i64 @run(ptr %entry.point, ptr %args, ptr %s, ptr %report) {{
entry:
  %rt = alloca [{8 * len(RUNTIME)} x i8], align 8
  %stack = alloca [{STACK} x i8], align {ALIGN}
  {places}
  {at("parallel", "pool", "threads", "arena", "calls")}
  %calls = atomicrmw add ptr %s.calls, i64 1 monotonic
  %parallel = load ptr, ptr %s.parallel
  store ptr %parallel, ptr %rt.parallel
  %pool = load ptr, ptr %s.pool
  store ptr %pool, ptr %rt.pool
  %threads = load i64, ptr %s.threads
  store i64 %threads, ptr %rt.threads
  store i64 0, ptr %rt.culprit
  store i64 0, ptr %rt.needed
  %arena = load ptr, ptr %s.arena
  %taken = call ptr @arena_take(ptr %arena)
  br label %again
again:
  %buffer = phi ptr [ %taken, %entry ], [ %grown, %retry ]
  %try = phi i64 [ 0, %entry ], [ %try.next, %retry ]
  %capacity = call i64 @capacity(ptr %buffer)
  %none = icmp eq ptr %buffer, null
  %scratch = select i1 %none, ptr %stack, ptr %buffer
  %bytes = select i1 %none, i64 {STACK}, i64 %capacity
  store ptr %scratch, ptr %rt.arena
  store i64 %bytes, ptr %rt.arena_bytes
  %code = call i64 %entry.point(ptr %args, ptr %rt)
  %more = icmp eq i64 %code, {NEED_ARENA}
  br i1 %more, label %grow, label %done
grow:
  %needed = load i64, ptr %rt.needed
  %rises = icmp sgt i64 %needed, %bytes
  %patient = icmp slt i64 %try, {TRIES}
  %worth = and i1 %rises, %patient
  br i1 %worth, label %ask, label %done
ask:
  %earlier = icmp ne ptr %taken, null
  %grown = call ptr @arena_grow(ptr %arena, ptr %buffer, i64 %needed, i1 %earlier)
  %failed = icmp eq ptr %grown, null
  br i1 %failed, label %out, label %retry
retry:
  %try.next = add i64 %try, 1
  br label %again
out:
  br label %done
done:
  %rest = phi ptr [ %buffer, %again ], [ %buffer, %grow ], [ null, %out ]
  call void @arena_give(ptr %arena, ptr %rest)
  %wanted = icmp ne ptr %report, null
  br i1 %wanted, label %tell, label %end
tell:
  %culprit = load i64, ptr %rt.culprit
  store i64 %culprit, ptr %report
  %asked = load i64, ptr %rt.needed
  %second = getelementptr i8, ptr %report, i64 8
  store i64 %asked, ptr %second
  br label %end
end:
  ret i64 %code
}}
"""
