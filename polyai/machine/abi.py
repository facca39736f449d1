"""The call convention between generated code and the runtime. Every field is eight bytes.

Entry point: `i64 NAME(ptr args, ptr rt)`

    args    one slot per `loop.Param` in order: an i64 size, or the address of an array's first element;
            then one per library function the kernel calls, in the order of `emit.externs(kernel)`: its address
    rt      a Runtime record, laid out as RUNTIME below
    result  OK; SITE + k if the check of `kernel.sites[k]` failed (rt.culprit holds the offending number);
            NEED_ARENA if rt.arena_bytes is too small (rt.needed says how many bytes so far; outputs may be half written,
            so the call is repeated from its start with a larger arena); another number if a library function returned it

Task: `i64 TASK(ptr context, i64 chunk, i64 thread)`, called by rt.parallel for 0 <= chunk < chunks, 0 <= thread < threads.

rt.parallel: `i64 (ptr pool, ptr task, ptr context, i64 chunks)` runs all chunks, each once, begins them in order, and
returns the first non-zero result of a task, or OK. It is null when there is no pool; a kernel then runs its chunks itself.

Library function: `i64 F(ptr record)`: one slot per argument of the `loop.Call`: the address of an array, an i64, or the bits
of an f64 (narrower numbers are widened). A result other than OK ends the kernel with it.

Arrays in the arena are aligned to ALIGN bytes. Complex numbers are two floats, bools are bytes 0 and 1.
"""

from __future__ import annotations

OK = 0
NEED_ARENA = -1
SITE = 1
ALIGN = 64

RUNTIME: tuple[str, ...] = ("parallel", "pool", "threads", "arena", "arena_bytes", "culprit", "needed")
"""Fields of the Runtime record by slot: field k lies at byte 8 * k."""
