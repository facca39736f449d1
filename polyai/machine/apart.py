"""Long stretches of code that run once become functions of their own.

    task: A; for i in lower..upper: body(i, x, r); B     ->     task: A; ctx = {rt, lower, upper, x, r}; apart(ctx); r = ctx.r; B
                                                                 apart: for i in ...: body(i, ctx.x, r); ctx.r = r

LLVM takes time for each line of a function, twice as much in one of 900 lines as in one of 250, and one thread for it. What runs once in
a call of a kernel, or once in a chunk of a loop that takes turns, loses nothing by a call. Registers that it writes are copied in and out.
Without its loops the function around all others is translated as it stands (`build.STRAIGHT`).
"""

from __future__ import annotations

from collections.abc import Callable

from polyai.loop import nodes as lp
from polyai.loop.walks import all_stmts
from polyai.machine import memory, parallel
from polyai.machine.body import Body
from polyai.machine.build import Function
from polyai.machine.survey import survey

Write = Callable[[Body, lp.Stmt], None]
"""Writes a statement: `stmt.stmt`."""

LONG = 48
"""Statements from which code that runs once is taken apart."""

LEAST, MOST = 32, 64
"""Statements that are worth a function in a task, and how many of an `If` go into one: of a longer one the branches are looked at."""


def is_long(s: lp.Stmt) -> bool:
    """Whether the code of `s` that does not run in parallel is long."""
    return _serial(s) >= LONG


def _serial(s: lp.Stmt) -> int:
    """How many statements of `s` do not belong to parallel loops inside it."""
    match s:
        case lp.Block(stmts):
            return sum(map(_serial, stmts))
        case lp.For(kind=lp.Kind.PARALLEL):
            return 1
        case lp.For() | lp.While():
            return 1 + _serial(s.body)
        case lp.If(_, then, orelse):
            return 1 + _serial(then) + (0 if orelse is None else _serial(orelse))
        case _:
            return 1


def takes_turns(s: lp.For) -> bool:
    """Whether an iteration of a parallel loop is a whole chunk, which begins where the one before it ended."""
    return any(isinstance(part, lp.Turn) for part in all_stmts(s.body))


def is_worth(b: Body, s: lp.Stmt) -> bool:
    """Whether `s`, which runs once, shall be a function: a loop, or a branch that holds some."""
    if not isinstance(s, (lp.For, lp.While, lp.If)):
        return False
    inside = list(all_stmts(s))
    if not any(isinstance(p, lp.While) or (isinstance(p, lp.For) and p.cost > 0) for p in inside):
        return False
    if any(isinstance(p, lp.Turn) or (isinstance(p, lp.Alloc) and p.space is not lp.Space.REGISTER) for p in inside):
        return False
    if not b.in_task:
        return not any(isinstance(p, lp.For) and p.kind in (lp.Kind.PARALLEL, lp.Kind.COPY, lp.Kind.STREAM) for p in inside)
    return len(inside) >= LEAST and (not isinstance(s, lp.If) or len(inside) <= MOST)


def write(b: Body, s: lp.Stmt, stmt: Write) -> None:
    """Write `s` as a function, and its call."""
    fn = b.fn
    name = fn.module.fresh("pa.task")
    task = Function(fn.module, f"define internal i64 @{name}(ptr %context, i64 %chunk, i64 %thread)")
    context = parallel.Context(fn, task)
    context.ref = f"%context.{name}"
    inner = b.nested(task)
    rt = context.pointer("%rt")
    task.do(f"%rt = getelementptr i8, ptr {rt}, i64 0")
    inner.thread = "%thread"
    found = survey(s)
    written = {n: r for n in found.stored if n not in {a.name for a in found.allocs} and isinstance(r := b.scope.arrays.get(n), memory.Register)}
    parallel.pack(b, inner, context, s, given_back=frozenset(written))
    own = {n: r for n in written if isinstance(r := inner.scope.arrays[n], memory.Register)}
    stmt(inner, s)
    results = {n: context.result(memory.read_register(task, register)) for n, register in own.items()}
    task.do("ret i64 0")
    fn.slot(context.ref, f"[{context.bytes} x i8], align 64")
    result = fn.op(f"call i64 @{fn.module.task(name, task.text())}(ptr {context.ref}, i64 0, i64 {b.thread})")
    fn.written()
    b.leave_if(fn.op(f"icmp ne i64 {result}, 0"), result)
    for n, read in results.items():
        memory.write_register(fn, written[n], read(), None)
