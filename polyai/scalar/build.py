"""Typed construction of expressions: constants that keep their type's bits, operations whose operands are converted."""

from __future__ import annotations

from typing import Any

import numpy as np

from polyai.errors import DTypeError
from polyai.scalar import dtype as dt
from polyai.scalar.dtype import DType
from polyai.scalar.expr import Apply, Cast, Const, Expr
from polyai.scalar.ops import OPS, result_type, same


def const(value: bool | int | float | complex, dtype: DType) -> Const:
    """`value` as `dtype` holds it: floats rounded, integers as they are. Raises DTypeError for a value out of range.

    A finite number beyond the largest float becomes infinity, as in NumPy.
    """
    if dtype.kind == "b":
        return Const(bool(value), dtype)
    if isinstance(value, (complex, np.complexfloating)) and not dtype.is_complex:
        raise DTypeError(f"the complex number {value} cannot be {dtype}", "its imaginary part would be lost", "take .real")
    if dtype.is_integer:
        whole = int(value)  # type: ignore[arg-type]
        low, high = limits(dtype)
        if whole != value or not low <= whole <= high:
            raise DTypeError(f"{value} cannot be {dtype}", f"{dtype} holds whole numbers from {low} to {high}", "use a wider dtype")
        return Const(whole, dtype)
    with np.errstate(over="ignore"):
        return Const(python_value(np.asarray(value).astype(dt.to_numpy(dtype)), dtype), dtype)


def limits(dtype: DType) -> tuple[int, int]:
    """The lowest and the highest integer of an integer type."""
    if dtype.kind == "u":
        return 0, (1 << dtype.bits) - 1
    half = 1 << (dtype.bits - 1)
    return -half, half - 1


def python_value(value: Any, dtype: DType) -> bool | int | float | complex:
    """A NumPy scalar or 0-d array of `dtype` as the Python number that a Const holds."""
    kinds = {"b": bool, "i": int, "u": int, "f": float, "B": float, "c": complex}
    out: bool | int | float | complex = kinds[dtype.kind](value)
    return out


def cast(arg: Expr, dtype: DType) -> Expr:
    """`arg` as `dtype`; `arg` itself if it has that type."""
    return arg if arg.dtype == dtype else Cast(arg, dtype)


def apply(op: str, *args: Expr) -> Expr:
    """`op` on `args`, each converted as the table says. Raises DTypeError where the table has no result type."""
    entry, types = OPS[op], tuple(a.dtype for a in args)
    if len(args) != entry.arity:
        raise DTypeError(f"{op} takes {entry.arity} operands", f"{len(args)} were given")
    out = result_type(op, *types)
    if op == "where":
        return Apply(op, (args[0], cast(args[1], out), cast(args[2], out)), out)
    if entry.operands == "each":
        return Apply(op, args, out)
    want = same(*types) if entry.operands == "common" else out
    return Apply(op, tuple(cast(a, want) for a in args), out)
