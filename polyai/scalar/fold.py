"""Folding: constants computed, neutral operands dropped. The result has the same value for every input, bit for bit.

    a[i] * 1.0 + (2 * 3)      ->  a[i] + 6
    where(True, x, y)         ->  x
    f32(f32(x))               ->  f32(x)
    x ** 2.0                  ->  square(x)
    x / 8.0                   ->  x * 0.125

Rules that hold for real numbers but not for floats are absent: x * 0.0 may be NaN or -0.0, x + 0.0 turns -0.0 into 0.0,
x - x may be NaN. The one exception is small powers: x ** 3.0 becomes square(x) * x, which may differ from `pow` by 1 ulp.
Nodes that are not scalar expressions (a reduction, a vector's lanes) are kept and folded inside. Needs no proof.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from polyai.scalar.build import const, python_value
from polyai.scalar.dtype import DType, to_numpy
from polyai.scalar.expr import Apply, Cast, Const, Var
from polyai.scalar.interp import convert
from polyai.scalar.ops import OPS
from polyai.term.node import map_children

_ASSOCIATIVE = ("add", "mul", "and", "or", "bitand", "bitor", "bitxor", "max", "min")


def fold(value: Any) -> Any:
    """`value` (an expression, or any node that holds some) folded bottom-up; the same object if nothing changed."""
    return fold_node(map_children(value, fold))


def fold_node(value: Any) -> Any:
    """One step at the root of an expression whose children are folded."""
    match value:
        case Cast(arg, dtype):
            return _fold_cast(value, arg, dtype)
        case Apply("where", (Const(chosen), a, b)):
            return a if chosen else b
        case Apply("where", (condition, a, b)) if a == b and _is_total(condition):
            return a
        case Apply(op, args) if args and all(isinstance(a, Const) for a in args) and op != "where":
            return _compute(value)
        case Apply(op, (arg,)):
            return _fold_unary(value, op, arg)
        case Apply(op, (left, right)):
            return _fold_binary(value, op, left, right)
        case _:
            return value


def _is_total(value: Any) -> bool:
    """Evaluating `value` cannot fail: it reads no array."""
    match value:
        case Const() | Var():
            return True
        case Cast(arg):
            return _is_total(arg)
        case Apply(_, args):
            return all(_is_total(a) for a in args)
        case _:
            return False


def _compute(value: Apply) -> Apply | Const:
    """The value of an operation on constants, unless it fails (a negative integer power) or needs another library."""
    if value.op == "erf" or value.dtype.name == "bf16" or any(a.dtype.name == "bf16" for a in value.args):
        return value
    numbers = [np.asarray(a.value).astype(to_numpy(a.dtype)) for a in value.args if isinstance(a, Const)]
    try:
        out = OPS[value.op].meaning(*numbers)
    except ValueError:
        return value
    return Const(python_value(np.asarray(out).astype(to_numpy(value.dtype)), value.dtype), value.dtype)


def _fold_cast(value: Cast, arg: Any, dtype: DType) -> Any:
    match arg:
        case _ if getattr(arg, "dtype", None) == dtype:
            return arg
        case Const(number, given) if "bf16" not in (given.name, dtype.name):
            if given.is_float and dtype.is_integer and not (math.isfinite(number) and abs(number) < 2**31):  # type: ignore[arg-type]
                return value  # the result depends on the machine
            out = convert(np.asarray(number).astype(to_numpy(given)), to_numpy(dtype))
            return Const(python_value(out, dtype), dtype)
        case Cast(inner, middle) if _holds(middle, inner.dtype):
            return Cast(inner, dtype) if inner.dtype != dtype else inner
        case _:
            return value


def _holds(wide: DType, narrow: DType) -> bool:
    """Every value of `narrow` is a value of `wide`, of the same kind of number."""
    if narrow.kind == "b":
        return True
    if wide.kind == narrow.kind:
        return wide.bits >= narrow.bits
    if narrow.kind == "u" and wide.kind == "i":
        return wide.bits > narrow.bits
    return narrow.kind == "B" and wide.name in ("f32", "f64")


def _fold_unary(value: Apply, op: str, arg: Any) -> Any:
    match op, arg:
        case ("neg", Apply("neg", (inner,))) | ("conj", Apply("conj", (inner,))):
            return inner
        case "not", Apply("not", (inner,)) if inner.dtype.kind == "b":
            return inner
        case "not", Apply("eq", args, dtype):
            return Apply("ne", args, dtype)
        case "not", Apply("ne", args, dtype):
            return Apply("eq", args, dtype)
        case "abs", Apply("abs" | "neg" as inner_op, (inner,)) if not arg.dtype.is_complex:
            return arg if inner_op == "abs" else Apply("abs", (inner,), value.dtype)
        case ("real" | "conj"), _ if not arg.dtype.is_complex and arg.dtype == value.dtype:
            return arg
        case ("floor" | "ceil" | "trunc" | "round"), _ if arg.dtype.is_integer:
            return arg
        case ("isnan" | "isinf"), _ if arg.dtype.kind in "biu":
            return const(False, value.dtype)
        case "isfinite", _ if arg.dtype.kind in "biu":
            return const(True, value.dtype)
        case _:
            return value


def _fold_binary(value: Apply, op: str, left: Any, right: Any) -> Any:
    simpler = _RIGHT[op](value, left, right) if isinstance(right, Const) and op in _RIGHT else None
    if simpler is None and isinstance(left, Const) and op in _LEFT:
        simpler = _LEFT[op](value, right, left)
    if simpler is None and left == right and op in _TWICE:
        simpler = _TWICE[op](value, left)
    if simpler is None and op in _ASSOCIATIVE:
        simpler = _merge_constants(value, op, left, right)
    return value if simpler is None else simpler


def _merge_constants(value: Apply, op: str, left: Any, right: Any) -> Any:
    """(x op c) op d -> x op (c op d), where `op` is exactly associative: on integers and booleans."""
    if not _exact(value.dtype):
        return None
    match left, right:
        case Apply(inner, (x, Const() as c), dtype), Const() as d if inner == op and dtype == value.dtype:
            return fold_node(Apply(op, (x, _compute(Apply(op, (c, d), dtype))), dtype))
        case Const(), _ if not isinstance(right, Const):
            return fold_node(Apply(op, (right, left), value.dtype))  # the constant to the right, so that constants meet
        case _:
            return None


Rule = Callable[[Apply, Any, Any], Any]


def _exact(dtype: DType) -> bool:
    return dtype.kind in "biu"


def _neutral(number: float) -> Rule:
    """x op number -> x."""

    def rule(value: Apply, x: Any, c: Const) -> Any:
        return x if c.value == number and x.dtype == value.dtype else None

    return rule


def _either(*rules: Rule) -> Rule:
    def rule(value: Apply, x: Any, c: Const) -> Any:
        return next((out for r in rules if (out := r(value, x, c)) is not None), None)

    return rule


def _absorbed(number: float) -> Rule:
    """x op number -> number, for integers and booleans whose evaluation cannot fail."""

    def rule(value: Apply, x: Any, c: Const) -> Any:
        return const(number, value.dtype) if c.value == number and _exact(value.dtype) and _is_total(x) else None

    return rule


def _add_zero(value: Apply, x: Any, c: Const) -> Any:
    """x + 0 -> x for integers; for floats only x + -0.0, which keeps the sign of a zero."""
    if c.value != 0 or x.dtype != value.dtype or value.dtype.is_complex:
        return None
    return x if _exact(value.dtype) or math.copysign(1.0, c.value) < 0 else None  # type: ignore[arg-type]


def _sub_zero(value: Apply, x: Any, c: Const) -> Any:
    """x - 0 -> x; floats need +0.0: x - -0.0 is x + 0.0."""
    if c.value != 0 or x.dtype != value.dtype or value.dtype.is_complex:
        return None
    return x if _exact(value.dtype) or math.copysign(1.0, c.value) > 0 else None  # type: ignore[arg-type]


def _mul_one(value: Apply, x: Any, c: Const) -> Any:
    return x if c.value == 1 and x.dtype == value.dtype and not value.dtype.is_complex else None


def _div_power_of_two(value: Apply, x: Any, c: Const) -> Any:
    """x / c -> x * (1 / c) where 1 / c is exact: c is a power of two far from overflow and underflow."""
    if not value.dtype.is_float or not isinstance(c.value, float) or c.value == 0 or not math.isfinite(c.value):
        return None
    if abs(math.frexp(c.value)[0]) != 0.5 or not 2.0**-14 <= abs(c.value) <= 2.0**14:
        return None
    return x if c.value == 1 else Apply("mul", (x, Const(1 / c.value, c.dtype)), value.dtype)


def _small_power(value: Apply, x: Any, c: Const) -> Any:
    dtype = value.dtype
    if x.dtype != dtype or dtype.kind in "b":
        return None
    square = Apply("square", (x,), dtype)
    match c.value:
        case 1:
            return x
        case 2:
            return square
        case 3 if not dtype.is_complex:
            return Apply("mul", (square, x), dtype)
        case 4 if not dtype.is_complex:
            return Apply("square", (square,), dtype)
        case -1 if dtype.is_float:
            return Apply("reciprocal", (x,), dtype)
        case 0 if _is_total(x) and not dtype.is_complex:
            return const(1, dtype)
        case _:
            return None


def _mod_one(value: Apply, x: Any, c: Const) -> Any:
    return const(0, value.dtype) if c.value in (1, -1) and value.dtype.is_integer and _is_total(x) else None


_RIGHT: dict[str, Rule] = {
    "add": _add_zero,
    "sub": _sub_zero,
    "mul": _either(_mul_one, _absorbed(0)),
    "div": _div_power_of_two,
    "floordiv": lambda value, x, c: x if c.value == 1 and value.dtype.is_integer and x.dtype == value.dtype else None,
    "mod": _mod_one,
    "pow": _small_power,
    "and": _either(lambda v, x, c: x if c.value and x.dtype.kind == "b" else None, _absorbed(0)),
    "or": _either(lambda v, x, c: x if not c.value and x.dtype.kind == "b" else None),
    "shl": _neutral(0),
    "shr": _neutral(0),
    "bitor": _neutral(0),
    "bitxor": _neutral(0),
    "bitand": _absorbed(0),
}
"""op -> rule for `x op constant`."""

_LEFT: dict[str, Rule] = {op: _RIGHT[op] for op in ("add", "mul", "and", "or", "bitor", "bitxor", "bitand")}
"""op -> rule for `constant op x`: the commutative ones."""

_TWICE: dict[str, Callable[[Apply, Any], Any]] = {
    **{op: lambda value, x: x if x.dtype == value.dtype else None for op in ("max", "min", "bitand", "bitor", "and", "or")},
    **{op: lambda value, x: const(True, value.dtype) if _exact(x.dtype) and _is_total(x) else None for op in ("eq", "le", "ge")},
    **{op: lambda value, x: const(False, value.dtype) if _exact(x.dtype) and _is_total(x) else None for op in ("ne", "lt", "gt")},
    **{op: lambda value, x: const(0, value.dtype) if _exact(value.dtype) and _is_total(x) else None for op in ("sub", "bitxor")},
}
"""op -> rule for `x op x`."""
