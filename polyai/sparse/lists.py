"""Tensors of any rank as slices of the outermost dimension, each a sorted list of the other coordinates: what kernels merge.

COO in order needs no copy of its coordinates and values: where slices begin follows from the first dimension's coordinates,
which are looked through here, at each call, and not read again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polyai.sparse.format import rows, shared
from polyai.sparse.pack import pack
from polyai.sparse.storage import Storage

Array = NDArray[Any]
_KEYS = 1 << 62
"""The most elements that a tensor may have whose coordinates are compared as one number."""


def as_lists(shape: tuple[int, ...], coordinates: Sequence[Array], values: Array, order: tuple[int, ...]) -> Storage:
    """A tensor with `values[e]` at `coordinates[d][e]`, which were found to be in range, in the format `rows` with its dimensions in an
    `order`, and its elements in order; coordinates that repeat add up."""
    small = all(c.dtype == np.int32 for c in coordinates) and len(values) <= np.iinfo(np.int32).max
    form = shared(rows(len(shape), 32 if small else 64, order))
    first, *others = (coordinates[d] for d in order)
    extents = tuple(shape[d] for d in order)
    if not is_ordered(extents, (first, *others)):
        return pack(form, shape, coordinates, values)
    index = np.dtype(f"i{form.index_bits // 8}")
    begins = np.zeros(extents[0] + 1, index)
    np.cumsum(np.bincount(first, minlength=extents[0]), out=begins[1:])
    listed = {f"crd{n}": np.require(c, index, ("C", "A")) for n, c in enumerate(others, 1)}
    return Storage(form, shape, {"pos1": begins, **listed, "val": np.require(values, values.dtype.newbyteorder("="), ("C", "A"))})


def is_ordered(shape: tuple[int, ...], coordinates: Sequence[Array]) -> bool:
    """Whether each element's coordinates come behind those of the element before."""
    if math.prod(shape) < _KEYS:
        key = coordinates[0].astype(np.int64)
        for c, extent in zip(coordinates[1:], shape[1:]):
            key *= extent
            key += c
        return bool((key[1:] > key[:-1]).all())
    rises = np.zeros(max(0, len(coordinates[0]) - 1), bool)
    for c in reversed(coordinates):
        rises = (c[1:] > c[:-1]) | ((c[1:] == c[:-1]) & rises)
    return bool(rises.all())
