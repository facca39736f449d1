"""Memory of large results: what the caller drops is kept for the next result, pages and all.

A sparse result gets room for its bound and touches what it stores (see `staging`). Room of that size would be asked of the system anew
at each call, and the system would clear each page that is touched (decision 12 has figures). NumPy lets arrays have an
allocator of their own (NEP 49); this is one. Its arrays are ordinary ones, which own their memory.

    block = base, capacity, used, stamp | ALIGN-aligned bytes        the four words lie below the address that is handed out

Dropped blocks wait in slots as long as what was used of them stays below a bound; the oldest goes first.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polyai.machine.abi import ALIGN
from polyai.runtime.cpython import SET_HANDLER, numpy_function
from polyai.runtime.shared import Addresses, Fields, Shared, address_of, renew_after_fork

SLOTS = 16
SPARE = 4
"""How many times larger than what is asked for a block may be, in bytes that were used."""

TABLE = Fields(lock=0, slots=64, stamp=64 + 8 * SLOTS, bound=72 + 8 * SLOTS, held=80 + 8 * SLOTS, malloc=88 + 8 * SLOTS, free=96 + 8 * SLOTS, madvise=104 + 8 * SLOTS, handler=112 + 8 * SLOTS)
"""Byte offsets in the memory of `Blocks`. `held` counts the used bytes of waiting blocks, `handler` is NumPy's record."""
HANDLER_NAME, HANDLER_VERSION, HANDLER_WORDS = 127, 1, 5
TABLE_BYTES = TABLE["handler"] + 128 + 8 * HANDLER_WORDS
HEADER = Fields(base=-64, capacity=-56, used=-48, stamp=-40)
HUGE = 4 << 20
"""Bytes of a block from which on the system is advised to use huge pages, as NumPy does."""
_ADVICE = 14
"""MADV_HUGEPAGE."""


def text() -> str:
    """NumPy's four functions of an allocator, and `block_trim`, as LLVM IR."""

    def at(*names: str) -> str:
        return "\n  ".join(TABLE.at(name, "a") for name in names)

    def word(name: str, block: str, result: str) -> str:
        return f"{HEADER.at(name, block)}\n  %{result} = load i64, ptr %{block}.{name}"

    lock = """%free.now = cmpxchg ptr %a, i64 0, i64 1 acquire monotonic
  %mine = extractvalue { i64, i1 } %free.now, 1"""
    unlock = "store atomic i64 0, ptr %a release, align 8"
    return f"""
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)

define internal ptr @fresh(ptr %a, i64 %size) {{
entry:
  {at("malloc", "madvise")}
  %sane = icmp ult i64 %size, {1 << 46}
  br i1 %sane, label %ask, label %fail
ask:
  %malloc = load ptr, ptr %a.malloc
  %whole = add i64 %size, {64 + ALIGN}
  %base = call ptr %malloc(i64 %whole)
  %bad = icmp eq ptr %base, null
  br i1 %bad, label %fail, label %good
good:
  %number = ptrtoint ptr %base to i64
  %up = add i64 %number, {64 + ALIGN - 1}
  %aligned = and i64 %up, {-ALIGN}
  %b = inttoptr i64 %aligned to ptr
  {HEADER.at("base", "b")}
  {HEADER.at("capacity", "b")}
  {HEADER.at("used", "b")}
  store ptr %base, ptr %b.base
  store i64 %size, ptr %b.capacity
  store i64 0, ptr %b.used
  %large = icmp uge i64 %size, {HUGE}
  %advise = load ptr, ptr %a.madvise
  %known = icmp ne ptr %advise, null
  %both = and i1 %large, %known
  br i1 %both, label %huge, label %done
huge:
  %page = add i64 %aligned, 4095
  %first = and i64 %page, -4096
  %skipped = sub i64 %first, %aligned
  %left = sub i64 %size, %skipped
  %advised = call i32 %advise(i64 %first, i64 %left, i32 {_ADVICE})
  br label %done
done:
  ret ptr %b
fail:
  ret ptr null
}}

define internal void @discard(ptr %a, ptr %b) {{
entry:
  {at("free")}
  %free = load ptr, ptr %a.free
  {HEADER.at("base", "b")}
  %base = load ptr, ptr %b.base
  call void %free(ptr %base)
  ret void
}}

define internal i64 @oldest(ptr %a) {{
entry:
  br label %next
next:
  %k = phi i64 [ 0, %entry ], [ %k.next, %step ]
  %best = phi i64 [ -1, %entry ], [ %best.next, %step ]
  %least = phi i64 [ {(1 << 63) - 1}, %entry ], [ %least.next, %step ]
  %more = icmp slt i64 %k, {SLOTS}
  br i1 %more, label %look, label %done
look:
  {at("slots")}
  %slot = getelementptr ptr, ptr %a.slots, i64 %k
  %b = load ptr, ptr %slot
  %none = icmp eq ptr %b, null
  br i1 %none, label %step, label %compare
compare:
  {word("stamp", "b", "stamp")}
  %older = icmp slt i64 %stamp, %least
  %best.new = select i1 %older, i64 %k, i64 %best
  %least.new = select i1 %older, i64 %stamp, i64 %least
  br label %step
step:
  %best.next = phi i64 [ %best, %look ], [ %best.new, %compare ]
  %least.next = phi i64 [ %least, %look ], [ %least.new, %compare ]
  %k.next = add i64 %k, 1
  br label %next
done:
  ret i64 %best
}}

define internal void @drop_oldest(ptr %a) {{
entry:
  {at("slots", "held")}
  %k = call i64 @oldest(ptr %a)
  %none = icmp slt i64 %k, 0
  br i1 %none, label %done, label %drop
drop:
  %slot = getelementptr ptr, ptr %a.slots, i64 %k
  %b = load ptr, ptr %slot
  store ptr null, ptr %slot
  {word("used", "b", "used")}
  %held = load i64, ptr %a.held
  %less = sub i64 %held, %used
  store i64 %less, ptr %a.held
  call void @discard(ptr %a, ptr %b)
  br label %done
done:
  ret void
}}

define ptr @block_malloc(ptr %a, i64 %size) {{
entry:
  {at("slots", "held")}
  br label %wait
wait:
  {lock}
  br i1 %mine, label %search, label %wait
search:
  %limit = mul i64 %size, {SPARE}
  br label %next
next:
  %k = phi i64 [ 0, %search ], [ %k.next, %step ]
  %best = phi ptr [ null, %search ], [ %best.next, %step ]
  %least = phi i64 [ {(1 << 63) - 1}, %search ], [ %least.next, %step ]
  %place = phi i64 [ 0, %search ], [ %place.next, %step ]
  %more = icmp slt i64 %k, {SLOTS}
  br i1 %more, label %look, label %chosen
look:
  %slot = getelementptr ptr, ptr %a.slots, i64 %k
  %b = load ptr, ptr %slot
  %none = icmp eq ptr %b, null
  br i1 %none, label %step, label %compare
compare:
  {word("capacity", "b", "capacity")}
  {word("used", "b", "used")}
  %holds = icmp ule i64 %size, %capacity
  %sparing = icmp ule i64 %used, %limit
  %smaller = icmp ult i64 %capacity, %least
  %fits.1 = and i1 %holds, %sparing
  %fits = and i1 %fits.1, %smaller
  %best.new = select i1 %fits, ptr %b, ptr %best
  %least.new = select i1 %fits, i64 %capacity, i64 %least
  %place.new = select i1 %fits, i64 %k, i64 %place
  br label %step
step:
  %best.next = phi ptr [ %best, %look ], [ %best.new, %compare ]
  %least.next = phi i64 [ %least, %look ], [ %least.new, %compare ]
  %place.next = phi i64 [ %place, %look ], [ %place.new, %compare ]
  %k.next = add i64 %k, 1
  br label %next
chosen:
  %found = icmp ne ptr %best, null
  br i1 %found, label %take, label %make
take:
  %slot.best = getelementptr ptr, ptr %a.slots, i64 %place
  store ptr null, ptr %slot.best
  {word("used", "best", "used.best")}
  %held = load i64, ptr %a.held
  %less = sub i64 %held, %used.best
  store i64 %less, ptr %a.held
  {unlock}
  ret ptr %best
make:
  {unlock}
  %new = call ptr @fresh(ptr %a, i64 %size)
  ret ptr %new
}}

define void @block_free(ptr %a, ptr %b, i64 %size) {{
entry:
  {at("slots", "held", "bound", "stamp")}
  %none = icmp eq ptr %b, null
  br i1 %none, label %done, label %weigh
weigh:
  {word("used", "b", "before")}
  %more.used = icmp ugt i64 %size, %before
  %used = select i1 %more.used, i64 %size, i64 %before
  store i64 %used, ptr %b.used
  %bound = load atomic i64, ptr %a.bound monotonic, align 8
  %half = lshr i64 %bound, 1
  %small = icmp ule i64 %used, %half
  br i1 %small, label %wait, label %drop
drop:
  call void @discard(ptr %a, ptr %b)
  ret void
wait:
  {lock}
  br i1 %mine, label %room, label %wait
room:
  %held = load i64, ptr %a.held
  %sum = add i64 %held, %used
  %over = icmp ugt i64 %sum, %bound
  br i1 %over, label %evict, label %next
evict:
  call void @drop_oldest(ptr %a)
  br label %room
next:
  %k = phi i64 [ 0, %room ], [ %k.next, %step ]
  %more = icmp slt i64 %k, {SLOTS}
  br i1 %more, label %look, label %evict
look:
  %slot = getelementptr ptr, ptr %a.slots, i64 %k
  %seen = load ptr, ptr %slot
  %empty = icmp eq ptr %seen, null
  br i1 %empty, label %keep, label %step
step:
  %k.next = add i64 %k, 1
  br label %next
keep:
  %now = load i64, ptr %a.stamp
  %later = add i64 %now, 1
  store i64 %later, ptr %a.stamp
  {HEADER.at("stamp", "b")}
  store i64 %now, ptr %b.stamp
  store ptr %b, ptr %slot
  store i64 %sum, ptr %a.held
  {unlock}
  br label %done
done:
  ret void
}}

define ptr @block_calloc(ptr %a, i64 %count, i64 %each) {{
entry:
  %size = mul i64 %count, %each
  %b = call ptr @block_malloc(ptr %a, i64 %size)
  %none = icmp eq ptr %b, null
  br i1 %none, label %done, label %clear
clear:
  call void @llvm.memset.p0.i64(ptr %b, i8 0, i64 %size, i1 false)
  br label %done
done:
  ret ptr %b
}}

define ptr @block_realloc(ptr %a, ptr %b, i64 %size) {{
entry:
  %none = icmp eq ptr %b, null
  br i1 %none, label %new, label %look
new:
  %made = call ptr @block_malloc(ptr %a, i64 %size)
  ret ptr %made
look:
  {word("capacity", "b", "capacity")}
  %holds = icmp ule i64 %size, %capacity
  br i1 %holds, label %same, label %larger
same:
  ret ptr %b
larger:
  %moved = call ptr @block_malloc(ptr %a, i64 %size)
  %bad = icmp eq ptr %moved, null
  br i1 %bad, label %done, label %copy
copy:
  call void @llvm.memcpy.p0.p0.i64(ptr %moved, ptr %b, i64 %capacity, i1 false)
  call void @block_free(ptr %a, ptr %b, i64 %capacity)
  br label %done
done:
  ret ptr %moved
}}

define i64 @block_trim(ptr %a) {{
entry:
  {at("held")}
  br label %wait
wait:
  {lock}
  br i1 %mine, label %begin, label %wait
begin:
  %held = load i64, ptr %a.held
  br label %next
next:
  %k = phi i64 [ 0, %begin ], [ %k.next, %more ]
  %left = icmp slt i64 %k, {SLOTS}
  br i1 %left, label %more, label %done
more:
  call void @drop_oldest(ptr %a)
  %k.next = add i64 %k, 1
  br label %next
done:
  {unlock}
  ret i64 %held
}}
"""


class Blocks:
    """The kept memory of one runtime's results. `bound` limits the bytes that wait, not what results may use.

    Arrays outlive the runtime that made them, so the code and the table stay in memory until the process ends.
    """

    def __init__(self, code: Addresses, bound: int) -> None:
        self._memory = memory = Shared(TABLE_BYTES)
        self._trim = ctypes.PYFUNCTYPE(ctypes.c_int64, ctypes.c_void_p)(code["block_trim"])
        memory.set(TABLE["bound"], bound)
        memory.set(TABLE["malloc"], address_of(ctypes.pythonapi.PyMem_RawMalloc))
        memory.set(TABLE["free"], address_of(ctypes.pythonapi.PyMem_RawFree))
        if sys.platform == "linux":
            memory.set(TABLE["madvise"], address_of(ctypes.CDLL(None).madvise))
        record = memory.address + TABLE["handler"]
        ctypes.memmove(record, b"polyai\0", 7)
        ctypes.c_uint8.from_address(record + HANDLER_NAME).value = HANDLER_VERSION
        words = [memory.address, *(code[f"block_{name}"] for name in ("malloc", "calloc", "realloc", "free"))]
        for number, value in enumerate(words):
            memory.set(TABLE["handler"] + 128 + 8 * number, value)
        make = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(("PyCapsule_New", ctypes.pythonapi))
        self.handler = make(record, _CAPSULE, None)
        self._set = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object)(numpy_function(SET_HANDLER))
        for forever in (code, memory):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(forever))
        renew_after_fork(self)

    def empty(self, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """`np.empty(shape, dtype)`, in memory that was a result before where there is some."""
        before = self._set(self.handler)
        try:
            return np.empty(shape, dtype)
        finally:
            self._set(before)

    @property
    def held(self) -> int:
        """Bytes that wait for the next result."""
        return self._memory.word(TABLE["held"])

    @property
    def bound(self) -> int:
        return self._memory.word(TABLE["bound"])

    def trim(self) -> int:
        """Free every waiting block; how many used bytes that were."""
        freed: int = self._trim(self._memory.address)
        return freed

    def after_fork(self) -> None:
        self._memory.set(TABLE["lock"], 0)


_CAPSULE = b"mem_handler"
"""The name by which NumPy knows records of allocators; the capsule keeps this pointer."""
