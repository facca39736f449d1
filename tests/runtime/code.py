"""Small kernels as LLVM text, to test the runtime without the compiler."""

from __future__ import annotations

from functools import cache

from polyai.loop.nodes import Site
from polyai.machine.cpu import host
from polyai.machine.jit import compile_object
from polyai.runtime.kernel import Kernel, Parameter, Signature
from polyai.runtime.launch import Runtime

SIZE = Parameter("n", "i64", "size")


def array(name: str, dtype: str = "f64", role: str = "input", rank: int = 1) -> Parameter:
    return Parameter(name, dtype, role, rank)


def head(name: str, slots: int) -> str:
    loads = "\n".join(f"  %s{k}.p = getelementptr i64, ptr %args, i64 {k}\n  %s{k} = load i64, ptr %s{k}.p" for k in range(slots))
    pointers = "\n".join(f"  %a{k} = inttoptr i64 %s{k} to ptr" for k in range(slots))
    fields = "\n".join(
        f"  %{field}.p = getelementptr i64, ptr %rt, i64 {k}\n  %{field} = load i64, ptr %{field}.p"
        for k, field in enumerate(["parallel", "pool", "threads", "arena", "arena_bytes", "culprit", "needed"])
    )
    return f"define i64 @{name}(ptr %args, ptr %rt) {{\nentry:\n{loads}\n{pointers}\n{fields}\n"


ADD_ONE = (
    head("add_one", 3)
    + """
  br label %test
test:
  %k = phi i64 [ 0, %entry ], [ %k1, %body ]
  %more = icmp slt i64 %k, %s0
  br i1 %more, label %body, label %done
body:
  %x = getelementptr double, ptr %a1, i64 %k
  %v = load double, ptr %x
  %w = fadd double %v, 1.0
  %y = getelementptr double, ptr %a2, i64 %k
  store double %w, ptr %y
  %k1 = add i64 %k, 1
  br label %test
done:
  ret i64 0
}
"""
)
"""y[k] = x[k] + 1 for k < n; slots n, x, y."""

SPMV = (
    head("spmv", 8)
    + """
  br label %row
row:
  %i = phi i64 [ 0, %entry ], [ %i1, %rowend ]
  %morerows = icmp slt i64 %i, %s0
  br i1 %morerows, label %begin, label %done
begin:
  %p0 = getelementptr i32, ptr %a3, i64 %i
  %b32 = load i32, ptr %p0
  %b = sext i32 %b32 to i64
  %i1 = add i64 %i, 1
  %p1 = getelementptr i32, ptr %a3, i64 %i1
  %e32 = load i32, ptr %p1
  %e = sext i32 %e32 to i64
  %low = icmp sge i64 %b, 0
  %up = icmp sle i64 %b, %e
  %in = icmp sle i64 %e, %s2
  %ok1 = and i1 %low, %up
  %ok = and i1 %ok1, %in
  br i1 %ok, label %q, label %badrow
q:
  %k = phi i64 [ %b, %begin ], [ %k1, %good ]
  %sum = phi double [ 0.0, %begin ], [ %sum1, %good ]
  %more = icmp slt i64 %k, %e
  br i1 %more, label %entryk, label %rowend
entryk:
  %cp = getelementptr i32, ptr %a4, i64 %k
  %c32 = load i32, ptr %cp
  %c = sext i32 %c32 to i64
  %inside = icmp ult i64 %c, %s1
  br i1 %inside, label %good, label %badcol
good:
  %vp = getelementptr double, ptr %a5, i64 %k
  %v = load double, ptr %vp
  %xp = getelementptr double, ptr %a6, i64 %c
  %x = load double, ptr %xp
  %prod = fmul double %v, %x
  %sum1 = fadd double %sum, %prod
  %k1 = add i64 %k, 1
  br label %q
rowend:
  %yp = getelementptr double, ptr %a7, i64 %i
  store double %sum, ptr %yp
  br label %row
badrow:
  store i64 %e, ptr %culprit.p
  ret i64 1
badcol:
  store i64 %c, ptr %culprit.p
  ret i64 2
done:
  ret i64 0
}
"""
)
"""y = A x for a CSR matrix; slots n, m, nnz, pos, crd, val, x, y. Sites: a bad row, a bad column."""

SPMV_PARAMETERS = (
    Parameter("n", "i64", "size"), Parameter("m", "i64", "size"), Parameter("A.nnz", "i64", "size"),
    array("A.pos1", "i32"), array("A.crd1", "i32"), array("A.val"), array("x"), array("y", role="output"),
)  # fmt: skip
SPMV_SITES = (
    Site("SparseStructureError", "A: a row ends at {value}", "beyond its entries", "rebuild A"),
    Site("IndexOutOfRangeError", "A: column {value} does not exist"),
)

TASKS = (
    """
define internal i64 @one(ptr %context, i64 %chunk, i64 %thread) {
  %counts = load ptr, ptr %context
  %place = getelementptr i64, ptr %counts, i64 %chunk
  %old = atomicrmw add ptr %place, i64 1 monotonic
  %spin.p = getelementptr i64, ptr %context, i64 1
  %spin = load i64, ptr %spin.p
  %who.p = getelementptr i64, ptr %context, i64 2
  %who.a = load ptr, ptr %who.p
  %who = getelementptr i64, ptr %who.a, i64 %thread
  %seen = atomicrmw add ptr %who, i64 1 monotonic
  %fail.p = getelementptr i64, ptr %context, i64 3
  %fail = load i64, ptr %fail.p
  br label %wait
wait:
  %k = phi i64 [ 0, %0 ], [ %k1, %wait ]
  %k1 = add i64 %k, 1
  %x = load volatile i64, ptr %spin.p
  %more = icmp slt i64 %k1, %spin
  br i1 %more, label %wait, label %done
done:
  %bad = icmp eq i64 %chunk, %fail
  %code = select i1 %bad, i64 1, i64 0
  ret i64 %code
}
"""
    + head("tasks", 5)
    + """
  %context = alloca [4 x i64]
  store i64 %s1, ptr %context
  %c1 = getelementptr i64, ptr %context, i64 1
  store i64 %s2, ptr %c1
  %c2 = getelementptr i64, ptr %context, i64 2
  store i64 %s3, ptr %c2
  %c3 = getelementptr i64, ptr %context, i64 3
  store i64 %s4, ptr %c3
  store i64 %s4, ptr %culprit.p
  %run = inttoptr i64 %parallel to ptr
  %pool.a = inttoptr i64 %pool to ptr
  %helped = icmp ne i64 %parallel, 0
  br i1 %helped, label %fork, label %alone
fork:
  %code = call i64 %run(ptr %pool.a, ptr @one, ptr %context, i64 %s0)
  ret i64 %code
alone:
  %k = phi i64 [ 0, %entry ], [ %k1, %next ]
  %more = icmp slt i64 %k, %s0
  br i1 %more, label %next, label %done
next:
  %each = call i64 @one(ptr %context, i64 %k, i64 0)
  %k1 = add i64 %k, 1
  br label %alone
done:
  ret i64 0
}
"""
)
"""Runs n chunks; chunk k adds 1 to counts[k] and who[thread], spins, and fails if it is number `fail`.
Slots n, counts, spin, who, fail."""

SCRATCH = (
    head("scratch", 3)
    + """
  %enough = icmp sle i64 %s0, %arena_bytes
  br i1 %enough, label %use, label %ask
ask:
  %half = sdiv i64 %s0, 2
  %little = icmp slt i64 %arena_bytes, %half
  %wish = select i1 %little, i64 %half, i64 %s0
  store i64 %wish, ptr %needed.p
  ret i64 -1
use:
  %buffer = inttoptr i64 %arena to ptr
  %last = sub i64 %s0, 1
  %end = getelementptr i8, ptr %buffer, i64 %last
  store i8 7, ptr %end
  %back = load i8, ptr %end
  %wide = zext i8 %back to i64
  store i64 %wide, ptr %a1
  store i64 %arena, ptr %a2
  ret i64 0
}
"""
)
"""Needs n bytes of scratch memory, which it asks for in two steps; writes its last byte, then that byte and the address."""


@cache
def compiled(text: str) -> bytes:
    return compile_object(f'target triple = "{host().triple}"\n{text}', host())


def kernel(runtime: Runtime, name: str) -> Kernel:
    """One of the kernels of this file, in `runtime`."""
    signature, text = KERNELS[name]
    return runtime.find(f"test-{name}") or runtime.add(f"test-{name}", signature, compiled(text))


KERNELS = {
    "add_one": (Signature("add_one", (SIZE, array("x"), array("y", role="output"))), ADD_ONE),
    "spmv": (Signature("spmv", SPMV_PARAMETERS, SPMV_SITES), SPMV),
    "tasks": (
        Signature(
            "tasks",
            (SIZE, array("counts", "i64", "output"), SIZE, array("who", "i64", "output"), SIZE),
            (Site("GuardError", "chunk {value} failed", "it was told to", "do not tell it to"),),
            parallel=True,
        ),
        TASKS,
    ),
    "scratch": (Signature("scratch", (SIZE, array("last", "i64", "output"), array("where", "i64", "output"))), SCRATCH),
}
