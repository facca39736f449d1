"""What an expression means, on NumPy: the oracle of the rooms above.

Variables may stand for whole arrays (one element per point of a domain), so one evaluation covers a domain. `where` is
lazy: an access in the branch that is not taken may be out of range, because only the points that take it are accessed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, assert_never

import numpy as np
from numpy.typing import NDArray

from polyai.errors import IndexOutOfRangeError
from polyai.scalar.dtype import to_numpy
from polyai.scalar.expr import Apply, Cast, Const, Expr, Load, Var
from polyai.scalar.ops import OPS

Array = NDArray[Any]
Reader = Callable[[str, tuple[Array, ...], Any], Array]
"""`reader(array, indices, wanted)`: the elements at `indices`; where `wanted` is False any value will do."""


def evaluate(expr: Expr, env: Mapping[str, Any], read: Reader | Mapping[str, Array], wanted: Any = True) -> Array:
    """The value of `expr` as a NumPy array of its dtype.

    `env` gives variables, `read` gives arrays (a dictionary of NumPy arrays, or a function). Raises
    IndexOutOfRangeError for an access outside its array at a point where `wanted` holds; indices never count from the end.
    """
    reader: Reader = read if callable(read) else _reader(read)
    return _value(expr, env, reader, np.asarray(wanted))


def _reader(arrays: Mapping[str, Array]) -> Reader:
    return lambda name, indices, wanted: gather(name, arrays[name], indices, wanted)


def gather(name: str, array: Array, indices: tuple[Array, ...], wanted: Any = True) -> Array:
    """`array[indices]` with every wanted index checked; zero where it is not wanted."""
    if not indices:
        return np.asarray(array).reshape(())
    *places, mask = np.broadcast_arrays(*indices, np.asarray(wanted))
    inside = np.ones(mask.shape, dtype=bool)
    for dimension, (place, extent) in enumerate(zip(places, array.shape)):
        fits = (place >= 0) & (place < extent)
        if (mask & ~fits).any():
            worst = np.asarray(place)[mask & ~fits].flat[0]
            raise IndexOutOfRangeError(f"{name}: index {worst} in dimension {dimension}", f"its extent is {extent}")
        inside &= fits
    out = np.zeros(mask.shape, dtype=array.dtype)
    out[inside] = array[tuple(p[inside] for p in places)]
    return out


def _value(expr: Expr, env: Mapping[str, Any], read: Reader, wanted: Array) -> Array:
    match expr:
        case Const(value, dtype):
            return np.asarray(value).astype(to_numpy(dtype))
        case Var(name, dtype):
            return np.asarray(env[name]).astype(to_numpy(dtype), copy=False)
        case Load(array, indices):
            return read(array, tuple(_value(i, env, read, wanted) for i in indices), wanted)
        case Cast(arg, dtype):
            return convert(_value(arg, env, read, wanted), to_numpy(dtype))
        case Apply("where", (condition, a, b), dtype):
            chosen = _value(condition, env, read, wanted)
            yes, no = _value(a, env, read, wanted & chosen), _value(b, env, read, wanted & ~chosen)
            return np.asarray(np.where(chosen, yes, no)).astype(to_numpy(dtype), copy=False)
        case Apply(op, args, dtype):
            values = (_value(a, env, read, wanted) for a in args)
            return np.asarray(OPS[op].meaning(*values)).astype(to_numpy(dtype), copy=False)
        case _:
            assert_never(expr)


def convert(values: Array, dtype: np.dtype[Any]) -> Array:
    """`astype`, quietly; complex to real keeps the real part."""
    if np.iscomplexobj(values) and dtype.kind not in "cb":
        values = np.asarray(values.real)
    with np.errstate(all="ignore"):
        return values.astype(dtype, copy=False)
