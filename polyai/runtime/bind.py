"""From the arrays of a call to addresses a kernel can use: what fits is passed as it is, what can be converted is copied.

Copies are made only where a kernel could not read the array in place (strides, byte order, alignment), never to change an
element type, and they are counted.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polyai.errors import AliasError, DTypeError, ShapeError
from polyai.runtime.cpython import layout_holds
from polyai.runtime.stats import Stats
from polyai.runtime.steps import ARRAY
from polyai.scalar.dtype import BY_NAME, from_numpy, to_numpy

Array = NDArray[Any]


def input_array(value: Any, dtype: str, rank: int, name: str, stats: Stats) -> Array:
    """`value` as an array that a kernel can read in place; a copy if it is not one. Keep it until the kernel is done.

    Raises DTypeError for masked arrays, arrays of objects and other element types, ShapeError for another rank.
    """
    if isinstance(value, np.ma.MaskedArray):
        raise DTypeError(f"{name} is a masked array", "kernels do not look at masks", "pass a.filled(value) or a.data")
    array = value if type(value) is np.ndarray else np.asarray(value)
    wanted = to_numpy(BY_NAME[dtype])
    if array.dtype != wanted and from_numpy(array.dtype, name).name != dtype:
        raise DTypeError(f"{name} has dtype {array.dtype}", f"this kernel reads {wanted}", f"pass {name}.astype(np.{wanted})")
    if array.ndim != rank:
        raise ShapeError(f"{name} has {array.ndim} dimensions", f"its shape is {array.shape}; this kernel reads {rank}")
    if fits(array):
        return array
    stats.count("copies")
    return np.array(array, dtype=wanted, order="C", copy=True, subok=False)


def readable(args: Sequence[Any], stats: Stats) -> tuple[Any, ...] | None:
    """Arguments with copies in place of the arrays of numbers that a kernel cannot read in place; None if there are none.

    Arrays that say one element many times (strides of 0) stay as they are: their copies may be far larger than they."""
    odd = {n for n, a in enumerate(args) if type(a) is np.ndarray and not fits(a) and a.dtype.kind in "biufc" and 0 not in a.strides}
    if not odd:
        return None
    stats.count("copies", len(odd))
    return tuple(np.array(a, dtype=a.dtype.newbyteorder("="), order="C", copy=True) if n in odd else a for n, a in enumerate(args))


def output_array(value: Any, dtype: str, shape: Sequence[int], name: str = "out") -> Array:
    """`value`, checked to be an array that a kernel can write in place.

    Raises DTypeError, ShapeError, or AliasError for memory whose elements overlap; ValueError's kin for read-only memory.
    """
    if not isinstance(value, np.ndarray) or isinstance(value, np.ma.MaskedArray):
        raise DTypeError(f"{name} is a {type(value).__name__}", "results are written into a NumPy array", "pass an ndarray")
    wanted = to_numpy(BY_NAME[dtype])
    if value.dtype != wanted or not value.dtype.isnative:
        raise DTypeError(f"{name} has dtype {value.dtype}", f"the result is {wanted}", f"pass np.empty(shape, np.{wanted})")
    if value.shape != tuple(shape):
        raise ShapeError(f"{name} has shape {value.shape}", f"the result has shape {tuple(shape)}", "pass an array of that shape")
    if not value.flags.writeable:
        raise AliasError(f"{name} is read-only", "its memory may not be written", "pass an array that owns its memory")
    if not fits(value):
        raise ShapeError(
            f"{name} is not contiguous", f"its strides are {value.strides}", "pass an array in C order, such as np.empty(shape)"
        )
    return value


def fits(array: Array) -> bool:
    """Whether a kernel can use the array as it is: C order, aligned, native bytes."""
    flags = array.flags
    return bool(flags.c_contiguous and flags.aligned and array.dtype.isnative)


def apart(output: Array, inputs: Sequence[Array], stats: Stats, name: str = "out") -> list[Array]:
    """`inputs` with copies of those that share memory with `output`, so that a kernel may write while it reads."""
    safe = []
    for array in inputs:
        if np.may_share_memory(output, array):  # bounds only: arrays here are contiguous, so bounds are exact
            stats.count("copies")
            array = array.copy()
        safe.append(array)
    return safe


def no_overlap(outputs: Sequence[Array]) -> None:
    """Raises AliasError if two outputs share memory."""
    for k, first in enumerate(outputs):
        for later in outputs[k + 1 :]:
            if np.may_share_memory(first, later):
                raise AliasError("two outputs share memory", "each would overwrite the other", "pass arrays of their own")


def address(array: Array) -> int:
    """The address of the first element."""
    if layout_holds():  # NumPy's own way builds a dictionary
        return ctypes.c_size_t.from_address(id(array) + ARRAY["data"]).value
    found: int = array.__array_interface__["data"][0]
    return found
