"""Scalar expressions of statements: their loads, their cost, and rebuilding them with folded index arithmetic."""

from __future__ import annotations

from collections.abc import Iterator

from polyai.loop import build as b
from polyai.loop import nodes as lp
from polyai.scalar import dtype as dt
from polyai.scalar.dtype import DType
from polyai.scalar.expr import Apply, Cast, Expr, Load


def loads_in(expr: Expr) -> Iterator[Load]:
    """The loads in `expr`, outer ones first."""
    match expr:
        case Load(_, indices):
            yield expr
            for i in indices:
                yield from loads_in(i)
        case Apply(_, args):
            for a in args:
                yield from loads_in(a)
        case Cast(arg):
            yield from loads_in(arg)
        case _:
            pass


_FOLDED = {
    "add": b.add, "sub": b.sub, "mul": b.mul, "floordiv": b.floordiv, "mod": b.mod, "min": b.smallest, "max": b.largest,
}  # fmt: skip


def rebuild(op: str, args: tuple[lp.LoopExpr, ...], dtype: DType) -> lp.LoopExpr:
    """`op` on new arguments; i64 arithmetic is folded."""
    fold = _FOLDED.get(op) if dtype == dt.i64 else None
    return b.apply(op, args, dtype) if fold is None else fold(*args)


def operations(expr: Expr) -> int:
    """Scalar operations of one evaluation; functions of a library count for several."""
    match expr:
        case Load(_, indices):
            return 1 + sum(operations(i) for i in indices)
        case Apply(op, args):
            return (1 if op in _CHEAP else 12) + sum(operations(a) for a in args)
        case Cast(arg):
            return operations(arg)
        case _:
            return 0


_CHEAP = frozenset(
    ["neg", "abs", "square", "add", "sub", "mul", "max", "min", "eq", "ne", "lt", "le", "gt", "ge", "and", "or", "xor", "not", "where", "bitand", "bitor", "bitxor", "shl", "shr", "floor", "ceil", "trunc", "conj", "real", "imag"]
)
