"""How much scratch memory a kernel takes, as a formula over its sizes.

    alloc T: f32[n, m] kernel                     peak: 4*n*m bytes, rounded up to ALIGN for each array,
    for i in 0..n parallel: alloc R: f64[m]       plus 8*m*threads

Follows what `machine` does with the arena: space is taken where an Alloc stands and given back where its block ends; what a parallel
loop allocates is taken before it starts, once for each thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from typing import assert_never

from polyai.loop.nodes import (
    Alloc,
    Apply,
    Block,
    Call,
    Cast,
    Check,
    Const,
    For,
    If,
    Kernel,
    Kind,
    Let,
    LoopExpr,
    Prefetch,
    Space,
    Stmt,
    Store,
    Turn,
    Var,
    While,
)
from polyai.loop.walks import all_stmts
from polyai.shapes import expr as sx
from polyai.shapes.expr import Size, SizeExpr

ALIGN = 64
THREADS = "threads"
"""The symbol that counts the threads of a call."""

Env = Mapping[str, Size]


def peak(kernel: Kernel) -> Size:
    """Bytes of scratch memory at most, over the size parameters of the kernel and THREADS.

    A value that is read from memory or depends on a loop appears under its own name.
    """
    return _stmt(kernel.body, {}, 0)


def at_least(a: Size, b: Size) -> bool:
    """True if a >= b for all sizes: their difference has no negative part."""
    difference = a - b
    return difference >= 0 if isinstance(difference, int) else all(c >= 0 for _, c in difference.terms)


def larger(a: Size, b: Size) -> Size:
    """The larger of two sizes; one of them where that is certain."""
    return a if at_least(a, b) else b if at_least(b, a) else sx.maximum(a, b)


def bytes_of(alloc: Alloc, env: Env) -> Size:
    """Bytes of one array, rounded up to whole lines, for all threads where each has its own."""
    count = reduce(lambda a, b: a * b, (size_of(e, env) for e in alloc.extents), 1)  # type: ignore[arg-type, return-value]
    whole = sx.ceildiv(count * alloc.dtype.bytes, ALIGN) * ALIGN
    return whole * sx.symbol(THREADS) if alloc.space is Space.THREAD else whole


def _stmt(stmt: Stmt, env: Env, taken: Size) -> Size:
    """The peak inside `stmt` where `taken` bytes are taken before it."""
    match stmt:
        case Block(stmts):
            return _block(stmts, env, taken)
        case For(kind=Kind.PARALLEL, body=body):
            for s in all_stmts(body):
                if isinstance(s, Alloc) and s.space is not Space.REGISTER:
                    taken = taken + bytes_of(s, env)
            return taken
        case For(body=body) | While(_, body):
            return _stmt(body, env, taken)
        case If(_, then, orelse):
            return larger(_stmt(then, env, taken), taken if orelse is None else _stmt(orelse, env, taken))
        case Alloc():
            return taken if stmt.space is Space.REGISTER else taken + bytes_of(stmt, env)
        case Let() | Store() | Check() | Call() | Turn() | Prefetch():
            return taken
        case _:
            assert_never(stmt)


def _block(stmts: tuple[Stmt, ...], env: Env, taken: Size) -> Size:
    most, known = taken, dict(env)
    for s in stmts:
        if isinstance(s, Let):
            known[s.name] = size_of(s.value, known)
            continue
        inside = _stmt(s, known, taken)
        most = larger(inside, most)
        if isinstance(s, Alloc):
            taken = inside
    return most


_SIZES: Mapping[str, Callable[[Size, Size], Size]] = {"add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b, "floordiv": sx.floordiv, "mod": sx.mod, "max": sx.maximum, "min": sx.minimum}


def size_of(expr: LoopExpr, env: Env) -> Size:
    """An integer expression as a size."""
    match expr:
        case Const(value, _):
            return int(value.real)
        case Var(name, _):
            return env.get(name, sx.symbol(name))
        case Cast(arg, _):
            return size_of(arg, env)
        case Apply(op, (a, b), _) if op in _SIZES:
            left, right = size_of(a, env), size_of(b, env)
            if op in ("floordiv", "mod") and right == 0:
                return sx.symbol("unknown")
            return _SIZES[op](left, right)
        case _:
            return sx.symbol("unknown")


def show(size: Size) -> str:
    """A number of bytes, or the formula for it."""
    return f"{size} bytes" if isinstance(size, int) else f"{sx.spelled(size, {})} bytes"


def is_known(size: Size) -> bool:
    """Whether the sizes of a call are enough to evaluate it."""
    return not isinstance(size, SizeExpr) or "unknown" not in sx.symbols(size)
