"""Loops that follow each other and have nothing to do with one another are one job: each has chunks of its own, and threads meet once.

    parallel for i ...: A[i] = ...           rt.parallel(rt.pool, several, {{task1, ctx1, chunks1}, {task2, ctx2, chunks1 + chunks2}}, chunks1 + chunks2)
    parallel for j ...: B[j] = ...           several(table, chunk, thread): the task that has this chunk
"""

from __future__ import annotations

from collections.abc import Sequence

from polyai.loop import nodes as lp
from polyai.loop.walks import all_exprs, all_stmts, expressions, written
from polyai.machine.body import Body
from polyai.machine.build import Function
from polyai.machine.num import Num
from polyai.machine.parallel import WriteLoop, chunks_of, write_task


def parts(stmts: Sequence[lp.Stmt]) -> list[int]:
    """How many statements each part of `stmts` has: several parallel loops that may run at once, as none writes what another one names; or one
    statement."""
    out: list[int] = []
    part: list[lp.Stmt] = []
    stored = set[str]()  # by the loops of the last part
    free = [False, *map(_is_free, stmts), False]
    for s, before, this, after in zip(stmts, free, free[1:], free[2:]):
        changed = written(s) if this and (before or after) else set[str]()
        if before and this and stored.isdisjoint(changed) and not _reads(s, stored) and not any(_reads(x, changed) for x in part):
            out[-1] += 1
            part, stored = [*part, s], stored | changed
        else:
            out.append(1)
            part, stored = [s], changed
    return out


def _reads(s: lp.Stmt, arrays: set[str]) -> bool:
    """Whether `s` reads one of these arrays."""
    exprs = (e for x in all_stmts(s) for e in expressions(x))
    return any(isinstance(x, (lp.Load, lp.MaskedLoad)) and x.array in arrays for e in exprs for x in all_exprs(e))


def _is_free(s: lp.Stmt) -> bool:
    """Whether `s` is a parallel loop that waits for nothing, divides its iterations evenly, and needs no memory of its own."""
    if not isinstance(s, lp.For) or s.kind is not lp.Kind.PARALLEL or s.weight is not None or s.stretch is not None:
        return False
    return not any(isinstance(x, _ORDERED) or (isinstance(x, lp.Alloc) and x.space is not lp.Space.REGISTER) for x in all_stmts(s.body))


_ORDERED = (lp.Check, lp.Call, lp.Turn, lp.While)
"""Statements of loops that run alone: what a check found holds for all that comes after it."""


def launch(body: Body, loops: Sequence[lp.For], write_loop: WriteLoop) -> None:
    """Write the call that runs several parallel loops as one job, and their tasks; with little work in each, one after another."""
    fn, scope = body.fn, body.scope
    module = fn.module
    saved = scope.enter()
    name = module.fresh("pa.table")
    total = Num(fn, "i64", 1, "0")
    worth = total.ne(0)
    entries: list[tuple[str, str, Num]] = []
    for k, s in enumerate(loops):
        lower, upper = scope.index(s.lower).re, scope.index(s.upper).re
        span = upper - lower
        rounds = span if s.step == 1 else (span + (s.step - 1))._two("udiv", s.step)
        chunks = chunks_of(body, s, lower, upper, rounds)
        chunks = lower.lt(upper).where(chunks, chunks.const(0))
        task = Function(module, f"define internal i64 @{module.fresh('pa.task')}(ptr %context, i64 %chunk, i64 %thread)")
        write_task(body, task, s, (lower, rounds, upper, chunks), write_loop)
        total, worth = total + chunks, worth | chunks.gt(1)
        entries.append((module.task(task.name, task.text()), f"%context.{task.name}", chunks))
        for at, (kind, ref) in enumerate((("ptr", f"@{entries[k][0]}"), ("ptr", entries[k][1]), ("i64", total.ref))):
            fn.do(f"store {kind} {ref}, ptr {fn.op(f'getelementptr i8, ptr %{name}, i64 {ENTRY * k + 8 * at}')}, align 8")
    fn.slot(f"%{name}", f"[{ENTRY * len(loops)} x i8], align 64")
    module.helper("pa.task.several", lambda: SEVERAL)
    fork, alone, end = fn.label("pool"), fn.label("alone"), fn.label("ran")
    fn.do(f"br i1 {worth.ref}, label %{fork}, label %{alone}")
    fn.start(fork)
    known = fn.enter()
    run, pool = body.read_field("parallel", "ptr"), body.read_field("pool", "ptr")
    ran = fn.op(f"call i64 {run}(ptr {pool}, ptr @pa.task.several, ptr %{name}, i64 {total.ref})")
    body.leave_if(fn.op(f"icmp ne i64 {ran}, 0"), ran)
    fn.do(f"br label %{end}")
    fn.leave(known)
    fn.start(alone)
    known = fn.enter()
    for called, context, chunks in entries:
        some, after = fn.label("some"), fn.label("next")
        fn.do(f"br i1 {chunks.gt(0).ref}, label %{some}, label %{after}")
        fn.start(some)
        ran = fn.op(f"call i64 @{called}(ptr {context}, i64 0, i64 0)")
        body.leave_if(fn.op(f"icmp ne i64 {ran}, 0"), ran)
        fn.do(f"br label %{after}")
        fn.start(after)
    fn.do(f"br label %{end}")
    fn.leave(known)
    fn.start(end)
    scope.leave(saved)


ENTRY = 24
"""Bytes of a line of the table that `pa.task.several` reads: a task, its context, and how many chunks there are up to its last."""

SEVERAL = """define internal i64 @pa.task.several(ptr %table, i64 %chunk, i64 %thread) #0 {
entry:
  br label %look
look:
  %at = phi ptr [ %table, %entry ], [ %next, %on ]
  %first = phi i64 [ 0, %entry ], [ %end, %on ]
  %end.p = getelementptr i8, ptr %at, i64 16
  %end = load i64, ptr %end.p
  %here = icmp slt i64 %chunk, %end
  br i1 %here, label %run, label %on
on:
  %next = getelementptr i8, ptr %at, i64 24
  br label %look
run:
  %task = load ptr, ptr %at
  %context.p = getelementptr i8, ptr %at, i64 8
  %context = load ptr, ptr %context.p
  %own = sub i64 %chunk, %first
  %code = call i64 %task(ptr %context, i64 %own, i64 %thread)
  ret i64 %code
}"""
"""It is called for chunks that some task has."""
