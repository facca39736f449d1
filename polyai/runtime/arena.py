"""Scratch memory of running kernels: aligned buffers in a small free list, taken and given back by native code without locks.

    buffer = base, capacity | ALIGN-aligned bytes            the two words lie just below the address that is handed out

One call holds one buffer at a time. A buffer of an earlier call that is too small grows to half as much again as is needed, so that sizes
that rise from call to call seldom meet one, and keeps its pages, which have been touched already. A buffer that is given back waits in a slot for the next call, as long as all waiting
buffers together stay below a bound; otherwise it is freed.
"""

from __future__ import annotations

import ctypes

from polyai.machine.abi import ALIGN
from polyai.machine.capacity import installed_memory
from polyai.runtime.shared import Addresses, Fields, Shared, address_of

SLOTS = 8
LEAST = 1 << 16
"""Bytes of the smallest buffer."""

MODEST = 1 << 28
"""Bytes up to which a buffer that grows gets room to spare."""

FREE_LIST = Fields(slots=0, bound=8 * SLOTS, held=8 * SLOTS + 8, malloc=8 * SLOTS + 16, free=8 * SLOTS + 24, realloc=8 * SLOTS + 32, most=8 * SLOTS + 40)
"""Byte offsets in the arena's memory. `held` counts the bytes of waiting buffers."""

ARENA_BYTES = 128


def text() -> str:
    """`arena_take`, `arena_grow`, `arena_give` and `arena_trim` as LLVM IR."""

    def at(*names: str) -> str:
        return "\n  ".join(FREE_LIST.at(name, "a") for name in names)

    return f"""
define internal i64 @capacity(ptr %buffer) {{
entry:
  %none = icmp eq ptr %buffer, null
  br i1 %none, label %nothing, label %some
some:
  %where = getelementptr i8, ptr %buffer, i64 -8
  %bytes = load i64, ptr %where
  ret i64 %bytes
nothing:
  ret i64 0
}}

define internal void @discard(ptr %a, ptr %buffer) {{
entry:
  {at("free")}
  %free = load ptr, ptr %a.free
  %where = getelementptr i8, ptr %buffer, i64 -16
  %base = load ptr, ptr %where
  call void %free(ptr %base)
  ret void
}}

define internal ptr @arena_take(ptr %a) {{
entry:
  {at("held")}
  br label %next
next:
  %k = phi i64 [ 0, %entry ], [ %k.next, %step ]
  %more = icmp slt i64 %k, {SLOTS}
  br i1 %more, label %look, label %nothing
look:
  %slot = getelementptr ptr, ptr %a, i64 %k
  %seen = load atomic ptr, ptr %slot monotonic, align 8
  %empty = icmp eq ptr %seen, null
  br i1 %empty, label %step, label %grab
grab:
  %got = atomicrmw xchg ptr %slot, ptr null acquire
  %lost = icmp eq ptr %got, null
  br i1 %lost, label %step, label %found
step:
  %k.next = add i64 %k, 1
  br label %next
found:
  %bytes = call i64 @capacity(ptr %got)
  %held = atomicrmw sub ptr %a.held, i64 %bytes monotonic
  ret ptr %got
nothing:
  ret ptr null
}}

define internal ptr @arena_grow(ptr %a, ptr %buffer, i64 %needed, i1 %spares) {{
entry:
  {at("malloc", "realloc", "most")}
  %none = icmp eq ptr %buffer, null
  %modest = icmp ult i64 %needed, {MODEST}
  %both = and i1 %modest, %spares
  %half = lshr i64 %needed, 1
  %spare = select i1 %both, i64 %half, i64 0
  %wanted = add i64 %needed, %spare
  %small = icmp slt i64 %wanted, {LEAST}
  %bytes = select i1 %small, i64 {LEAST}, i64 %wanted
  %whole = add i64 %bytes, {2 * ALIGN}
  %limit = load i64, ptr %a.most
  %sane = icmp sle i64 %needed, %limit
  br i1 %sane, label %ask, label %bad
ask:
  br i1 %none, label %make, label %again
make:
  %malloc = load ptr, ptr %a.malloc
  %new = call ptr %malloc(i64 %whole)
  br label %asked
again:
  %realloc = load ptr, ptr %a.realloc
  %where = getelementptr i8, ptr %buffer, i64 -16
  %old = load ptr, ptr %where
  %moved = call ptr %realloc(ptr %old, i64 %whole)
  br label %asked
asked:
  %base = phi ptr [ %new, %make ], [ %moved, %again ]
  %missing = icmp eq ptr %base, null
  br i1 %missing, label %bad, label %good
bad:
  br i1 %none, label %fail, label %drop
drop:
  call void @discard(ptr %a, ptr %buffer)
  br label %fail
good:
  %number = ptrtoint ptr %base to i64
  %up = add i64 %number, {ALIGN + 15}
  %aligned = and i64 %up, {-ALIGN}
  %result = inttoptr i64 %aligned to ptr
  %where.base = getelementptr i8, ptr %result, i64 -16
  store ptr %base, ptr %where.base
  %where.bytes = getelementptr i8, ptr %result, i64 -8
  store i64 %bytes, ptr %where.bytes
  ret ptr %result
fail:
  ret ptr null
}}

define internal void @arena_give(ptr %a, ptr %buffer) {{
entry:
  {at("held", "bound")}
  %none = icmp eq ptr %buffer, null
  br i1 %none, label %done, label %weigh
weigh:
  %bytes = call i64 @capacity(ptr %buffer)
  %before = atomicrmw add ptr %a.held, i64 %bytes monotonic
  %after = add i64 %before, %bytes
  %bound = load atomic i64, ptr %a.bound monotonic, align 8
  %fits = icmp sle i64 %after, %bound
  br i1 %fits, label %next, label %drop
next:
  %k = phi i64 [ 0, %weigh ], [ %k.next, %step ]
  %more = icmp slt i64 %k, {SLOTS}
  br i1 %more, label %try, label %drop
try:
  %slot = getelementptr ptr, ptr %a, i64 %k
  %put = cmpxchg ptr %slot, ptr null, ptr %buffer release monotonic
  %kept = extractvalue {{ ptr, i1 }} %put, 1
  br i1 %kept, label %done, label %step
step:
  %k.next = add i64 %k, 1
  br label %next
drop:
  %held = atomicrmw sub ptr %a.held, i64 %bytes monotonic
  call void @discard(ptr %a, ptr %buffer)
  br label %done
done:
  ret void
}}

define i64 @arena_trim(ptr %a) {{
entry:
  br label %next
next:
  %freed = phi i64 [ 0, %entry ], [ %sum, %drop ]
  %buffer = call ptr @arena_take(ptr %a)
  %none = icmp eq ptr %buffer, null
  br i1 %none, label %done, label %drop
drop:
  %bytes = call i64 @capacity(ptr %buffer)
  %sum = add i64 %freed, %bytes
  call void @discard(ptr %a, ptr %buffer)
  br label %next
done:
  ret i64 %freed
}}
"""


class Arena:
    """The free list of one runtime. `bound` limits the bytes that wait for reuse, not what a call may use."""

    def __init__(self, code: Addresses, bound: int = 512 << 20) -> None:
        self._memory = Shared(ARENA_BYTES)
        self._code = code
        self._trim = ctypes.PYFUNCTYPE(ctypes.c_int64, ctypes.c_void_p)(code["arena_trim"])
        self._memory.set(FREE_LIST["bound"], bound)
        self._memory.set(FREE_LIST["most"], installed_memory())
        self._memory.set(FREE_LIST["malloc"], address_of(ctypes.pythonapi.PyMem_RawMalloc))
        self._memory.set(FREE_LIST["realloc"], address_of(ctypes.pythonapi.PyMem_RawRealloc))
        self._memory.set(FREE_LIST["free"], address_of(ctypes.pythonapi.PyMem_RawFree))

    @property
    def address(self) -> int:
        return self._memory.address

    @property
    def held(self) -> int:
        """Bytes that wait for the next call."""
        return self._memory.word(FREE_LIST["held"])

    @property
    def bound(self) -> int:
        return self._memory.word(FREE_LIST["bound"])

    def trim(self) -> int:
        """Free every waiting buffer; how many bytes that were."""
        freed: int = self._trim(self.address)
        return freed

    def __del__(self) -> None:
        if hasattr(self, "_trim"):
            self.trim()
