"""Constructors of loop expressions. Index arithmetic (i64) is folded while it is built, so that trees stay small."""

from __future__ import annotations

from typing import cast

from polyai.loop.nodes import Apply, Block, Cast, Const, Load, LoopExpr, Ramp, Stmt, Var
from polyai.scalar import dtype as dt
from polyai.scalar.dtype import DType
from polyai.scalar.expr import Expr

ZERO = Const(0, dt.i64)
ONE = Const(1, dt.i64)
TRUE = Const(True, dt.bool_)
FALSE = Const(False, dt.bool_)


def const(value: int) -> Const:
    """An i64 number."""
    return Const(value, dt.i64)


def var(name: str) -> Var:
    """An i64 variable."""
    return Var(name, dt.i64)


def apply(op: str, args: tuple[LoopExpr, ...], dtype: DType) -> Apply:
    """An Apply whose arguments may be vectors."""
    return Apply(op, cast("tuple[Expr, ...]", args), dtype)


def load(array: str, indices: tuple[LoopExpr, ...], dtype: DType) -> Load:
    """A Load whose indices may be vectors."""
    return Load(array, cast("tuple[Expr, ...]", indices), dtype)


def convert(arg: LoopExpr, dtype: DType) -> LoopExpr:
    """`arg` as `dtype`; numbers are converted at once between integer types."""
    if dtype_of(arg) == dtype:
        return arg
    if isinstance(arg, Const) and arg.dtype.is_integer and dtype == dt.i64:
        return Const(arg.value, dtype)
    return Cast(cast("Expr", arg), dtype)


def dtype_of(expr: LoopExpr) -> DType:
    """The element type of a value."""
    return dt.i64 if isinstance(expr, Ramp) else expr.dtype


def number(expr: LoopExpr) -> int | None:
    """The value of an i64 number, else None."""
    return int(cast("int", expr.value)) if isinstance(expr, Const) and expr.dtype == dt.i64 else None


def add(a: LoopExpr, b: LoopExpr) -> LoopExpr:
    """a + b; a number is kept on the right and merged with one already there; x // c * c + x % c is x."""
    whole = _put_together(a, b)
    if whole is not None:
        return whole
    x, y = number(a), number(b)
    if x is not None and y is not None:
        return const(x + y)
    if x is not None:
        a, b, y = b, a, x
    if y == 0:
        return a
    if y is not None and isinstance(a, Apply) and a.op == "add":
        inner = number(a.args[1])
        if inner is not None:
            return add(a.args[0], const(inner + y))
    if y is None and isinstance(a, Apply) and a.op == "add" and number(a.args[1]) is not None:
        return add(add(a.args[0], b), a.args[1])
    if y is None and isinstance(b, Apply) and b.op == "add" and number(b.args[1]) is not None:
        return add(add(a, b.args[0]), b.args[1])
    return apply("add", (a, b), dt.i64)


def _put_together(a: LoopExpr, b: LoopExpr) -> LoopExpr | None:
    """x, if `a` is x // c * c and `b` is x % c."""
    match a, b:
        case (Apply("mul", (Apply("floordiv", (x, c)), factor)), Apply("mod", (y, d))) if x == y and c == d == factor and number(c):
            return x
        case _:
            return None


def sub(a: LoopExpr, b: LoopExpr) -> LoopExpr:
    """a - b; subtracting a number adds its negative; what differs by a number gives that number."""
    y = number(b)
    if y is not None:
        return add(a, const(-y))
    (left, x), (right, y) = _moved(a), _moved(b)
    if left == right:
        return const(x - y)
    if isinstance(a, Apply) and a.op == "add":
        if a.args[0] == b:
            return a.args[1]
        if a.args[1] == b:
            return a.args[0]
    return apply("sub", (a, b), dt.i64)


def _moved(expr: LoopExpr) -> tuple[LoopExpr, int]:
    """`expr` without the number that is added to it, and that number."""
    match expr:
        case Apply("add", (rest, Const() as last)) if (by := number(last)) is not None:
            return rest, by
        case _:
            return expr, 0


def mul(a: LoopExpr, b: LoopExpr) -> LoopExpr:
    """a * b; a number is kept on the right."""
    x, y = number(a), number(b)
    if x is not None and y is not None:
        return const(x * y)
    if x is not None:
        a, b, y = b, a, x
    if y == 0:
        return ZERO
    if y == 1:
        return a
    return apply("mul", (a, b), dt.i64)


def floordiv(a: LoopExpr, b: LoopExpr) -> LoopExpr:
    """floor(a / b)."""
    x, y = number(a), number(b)
    if x is not None and y:
        return const(x // y)
    if y == 1:
        return a
    return apply("floordiv", (a, b), dt.i64)


def mod(a: LoopExpr, b: LoopExpr) -> LoopExpr:
    """a - b * floor(a / b)."""
    x, y = number(a), number(b)
    if x is not None and y:
        return const(x % y)
    if y == 1:
        return ZERO
    match a:
        case Apply("add", (Apply("mul", (_, Const(factor))), rest)) if y and factor == y:  # whole multiples go
            return mod(rest, b)
        case _:
            return apply("mod", (a, b), dt.i64)


def most(expr: LoopExpr) -> int | None:
    """A number that `expr` does not exceed, if its form shows one."""
    match expr:
        case Const():
            return number(expr)
        case Apply("min", args):
            return min((n for n in map(most, args) if n is not None), default=None)
        case Apply("add", (x, Const() as more)):
            top, by = most(x), number(more)
            return None if top is None or by is None else top + by
        case _:
            return None


def smallest(a: LoopExpr, b: LoopExpr) -> LoopExpr:
    """min(a, b)."""
    x, y = number(a), number(b)
    if x is not None and y is not None:
        return const(min(x, y))
    return a if a == b else apply("min", (a, b), dt.i64)


def largest(a: LoopExpr, b: LoopExpr) -> LoopExpr:
    """max(a, b)."""
    x, y = number(a), number(b)
    if x is not None and y is not None:
        return const(max(x, y))
    return a if a == b else apply("max", (a, b), dt.i64)


_COMPARE = {
    "lt": lambda x, y: x < y, "le": lambda x, y: x <= y, "gt": lambda x, y: x > y,
    "ge": lambda x, y: x >= y, "eq": lambda x, y: x == y, "ne": lambda x, y: x != y,
}  # fmt: skip


def compare(op: str, a: LoopExpr, b: LoopExpr) -> LoopExpr:
    """A comparison of two i64 values."""
    x, y = number(a), number(b)
    if x is not None and y is not None:
        return TRUE if _COMPARE[op](x, y) else FALSE
    return apply(op, (a, b), dt.bool_)


def both(a: LoopExpr, b: LoopExpr) -> LoopExpr:
    """a and b."""
    if a == TRUE or b == FALSE:
        return b
    if b == TRUE or a == FALSE:
        return a
    return apply("and", (a, b), dt.bool_)


def either(a: LoopExpr, b: LoopExpr) -> LoopExpr:
    """a or b."""
    if a == TRUE or b == FALSE:
        return a
    if b == TRUE or a == FALSE:
        return b
    return apply("or", (a, b), dt.bool_)


def negation(a: LoopExpr) -> LoopExpr:
    """not a."""
    if isinstance(a, Const):
        return FALSE if a.value else TRUE
    if isinstance(a, Apply) and a.op == "not":
        return a.args[0]
    return apply("not", (a,), dt.bool_)


def below(index: LoopExpr, extent: LoopExpr) -> LoopExpr:
    """0 <= index < extent in one unsigned comparison; `extent` is not negative."""
    x, y = number(index), number(extent)
    if x is not None and y is not None:
        return TRUE if 0 <= x < y else FALSE
    return apply("lt", (convert(index, dt.u64), convert(extent, dt.u64)), dt.bool_)


def at_most(value: LoopExpr, bound: LoopExpr) -> LoopExpr:
    """0 <= value <= bound in one unsigned comparison; `bound` is not negative."""
    return apply("le", (convert(value, dt.u64), convert(bound, dt.u64)), dt.bool_)


def where(condition: LoopExpr, a: LoopExpr, b: LoopExpr) -> LoopExpr:
    """a where `condition` holds, else b."""
    if isinstance(condition, Const):
        return a if condition.value else b
    return apply("where", (condition, a, b), dtype_of(a))


def block(*stmts: Stmt | None) -> Block:
    """A Block of the given statements without the absent ones; blocks inside are opened."""
    out: list[Stmt] = []
    for s in stmts:
        if isinstance(s, Block):
            out.extend(s.stmts)
        elif s is not None:
            out.append(s)
    return Block(tuple(out))


def statements(stmt: Stmt | None) -> tuple[Stmt, ...]:
    """The statements of a block, or the one statement."""
    return () if stmt is None else stmt.stmts if isinstance(stmt, Block) else (stmt,)
