"""Arguments that nobody computed: stand-ins with the shapes that a kernel is to be made for."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from polyai.errors import ShapeError, UnsupportedError
from polyai.frontend.spec import DimExpr, Spec
from polyai.scalar.dtype import to_numpy
from polyai.shapes import expr as sx


def bindings(sizes: Mapping[str, int | Sequence[int]]) -> Iterator[dict[str, int]]:
    """Every choice of one value for each size: {n: (1, 2), m: 3} gives {n: 1, m: 3} and {n: 2, m: 3}."""
    choices = [(v,) if isinstance(v, int) else tuple(v) for v in sizes.values()]
    for chosen in itertools.product(*choices):
        yield dict(zip(sizes, chosen))


def stand_in(value: Any, sizes: Mapping[str, int]) -> Any:
    """`value` with each description of a dense array replaced by an array of that shape that takes no memory."""
    if isinstance(value, Spec):
        if value.format is not None:
            raise UnsupportedError(f"{value.format.name}[...] stands for no matrix", "a kernel depends on how many values are stored", "pass an example matrix")
        return np.broadcast_to(np.zeros((), to_numpy(value.dtype)), tuple(_number(e, sizes) for e in value.shape))
    if isinstance(value, dict):
        return {k: stand_in(v, sizes) for k, v in value.items()}
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        return type(value)(stand_in(v, sizes) for v in value)
    return value


def _number(extent: int | DimExpr, sizes: Mapping[str, int]) -> int:
    if isinstance(extent, int):
        return extent
    missing = sorted(sx.symbols(extent.size) - set(sizes))
    if missing:
        raise ShapeError(f"the size {missing[0]} has no value", f"{extent} is an extent", f'pass sizes={{"{missing[0]}": (1, 64)}}')
    return sx.evaluate(extent.size, sizes)
