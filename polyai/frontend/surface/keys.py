"""What an index key means: for each dimension of the array an index expression over the result's index variables.

    X[2:5, None, rows]    parts: slice from 2, new, array       extents of the result: 3, 1, len(rows)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from polyai.errors import IndexOutOfRangeError, ShapeError, TraceError
from polyai.frontend.core import Array, Shape, Tracer, dense, index_term, to_size
from polyai.frontend.size_value import SizeValue
from polyai.frontend.surface.pointwise import broadcast, places
from polyai.frontend.term import Term, apply, convert
from polyai.scalar import dtype as dt
from polyai.shapes import expr as sx
from polyai.shapes.expr import Size
from polyai.tensor import nodes as tn
from polyai.term.node import node

Place = Callable[[tuple[tn.Index, ...]], Any]


@node
class Selection:
    """`extents` of the result; `places[d]` gives the index of dimension d from the result's index variables."""

    extents: Shape
    places: tuple[Place, ...]
    whole: bool = False


@node
class Part:
    """What one element of a key contributes: new dimensions of the result, and an index for one dimension of the array."""

    kind: str  # "new", "int", "slice", "array"
    extent: Size = 1
    value: Any = None
    begin: Any = 0
    step: int = 1


def is_full(k: Any) -> bool:
    return isinstance(k, slice) and k.start is None and k.stop is None and k.step is None


def select(a: Array, key: tuple[Any, ...]) -> Selection:
    """The meaning of a key. Raises TraceError for what is no index, IndexOutOfRangeError for constants outside."""
    parts = parts_of(a, key)
    arrays = [p for p in parts if p.kind == "array"]
    shape: Shape = ()
    if arrays:
        shape = broadcast(a.tracer, [p.value.extents for p in arrays], "index arrays", [p.value for p in arrays])
    advanced = [n for n, p in enumerate(parts) if p.kind == "array" or (arrays and p.kind == "int")]
    together = not advanced or advanced == list(range(advanced[0], advanced[-1] + 1))
    extents: list[Size] = []
    found: list[Place] = []
    offset: int | None = None
    if arrays and not together:
        offset = 0
        extents.extend(shape)
    for n, part in enumerate(parts):
        if n in advanced and offset is None:
            offset = len(extents)
            extents.extend(shape)
        match part.kind:
            case "new":
                extents.append(1)
            case "slice":
                found.append(_slice_place(a.tracer, len(extents), part))
                extents.append(part.extent)
            case "int":
                found.append(_constant_place(part.value))
            case _:
                assert offset is not None
                found.append(_gather_place(a, len(found), part.value, offset, len(shape)))
    return Selection(tuple(extents), tuple(found))


def _slice_place(tracer: Tracer, position: int, part: Part) -> Place:
    def place(indices: tuple[tn.Index, ...]) -> Any:
        here = index_term(indices[position])
        scaled = here if part.step == 1 else here * part.step
        return scaled if part.begin == 0 else scaled + tracer.size_term(part.begin)

    return place


def _constant_place(value: Any) -> Place:
    return lambda indices: value


def _gather_place(a: Array, dimension: int, index: Array, offset: int, rank: int) -> Place:
    tracer = a.tracer

    def place(indices: tuple[tn.Index, ...]) -> Any:
        return gathered(tracer, index, places(index, indices[offset : offset + rank]), a.extents[dimension])

    return place


def gathered(tracer: Tracer, index: Array, at: Sequence[Any], extent: Size) -> Term:
    """What an index array says at a point, for a dimension of `extent`."""
    return wrapped(tracer, convert(tracer.read(index, at), dt.i64), extent, index)


def read_at(a: Array, part: Part) -> Array:
    """A dense vector indexed by what `part` says."""
    count = part.extent if part.kind == "slice" else part.value.extents[0]
    (i,) = a.tracer.indices((count,))
    at = _slice_place(a.tracer, 0, part) if part.kind == "slice" else _gather_place(a, 0, part.value, 0, 1)
    return a.tracer.emit("index", (i,), a.tracer.read(a, (at((i,)),)))


def wrapped(tracer: Tracer, value: Term, extent: Size, index: Array) -> Term:
    """Negative indices count from the end."""
    if index.type.dtype.kind == "u" or index.name in tracer.not_negative:
        return value
    return apply("where", value < 0, value + tracer.size_term(extent), value)


def parts_of(a: Array, key: tuple[Any, ...]) -> list[Part]:
    tracer = a.tracer
    used = sum(1 for k in key if k is not None and k is not Ellipsis)
    if sum(1 for k in key if k is Ellipsis) > 1:
        raise ShapeError("an index with two ellipses", "only one can be expanded")
    if used > a.rank:
        raise ShapeError(f"{used} indices for {a.rank} dimensions", tracer.shape_text(a), "give at most one index per dimension")
    if Ellipsis not in [k if k is Ellipsis else None for k in key]:
        key = (*key, Ellipsis)
    out: list[Part] = []
    d = 0
    for k in key:
        if k is Ellipsis:
            for _ in range(a.rank - used):
                out.append(Part("slice", a.extents[d]))
                d += 1
        elif k is None:
            out.append(Part("new"))
        else:
            out.append(_part(tracer, a, d, k))
            d += 1
    return out


def _part(tracer: Tracer, a: Array, d: int, k: Any) -> Part:
    extent = a.extents[d]
    if isinstance(k, slice):
        return sliced(tracer, k, extent)
    if isinstance(k, (bool, np.bool_)):
        raise TraceError("a boolean as an index", "it is no mask: it has no dimensions", "use where(condition, x, other)")
    if isinstance(k, (int, np.integer, SizeValue)):
        return Part("int", value=_integer(tracer, a, d, k))
    if isinstance(k, (list, np.ndarray)):
        k = _constant_indices(tracer, a, d, np.asarray(k))
    if not isinstance(k, Array):
        raise TraceError(f"{k!r} as an index", f"its type is {type(k).__name__}", "use ints, slices, None, ... or integer arrays")
    if k.type.dtype.kind == "b":
        raise TraceError(f"the boolean {tracer.text(k)} as an index", "it is no mask: it has no dimensions", "use where(condition, x, other)")
    if not k.type.dtype.is_integer:
        raise TraceError(f"an index array of type {k.type.dtype}", "", "indices are integers: convert with .astype(int)")
    return Part("array", value=dense(k, "an index"))


def _integer(tracer: Tracer, a: Array, d: int, k: Any) -> Any:
    """A constant or symbolic index, counted from the end if negative; that it is inside is guarded."""
    extent, value = a.extents[d], to_size(k, tracer)
    if not tracer.sizes.compare(value, ">=", 0, "an index"):
        value = value + extent
    if not (tracer.sizes.holds(value, ">=", 0, "an index") and tracer.sizes.holds(value, "<", extent, "an index")):
        raise IndexOutOfRangeError(
            f"index {k} of dimension {d} of {tracer.text(a)}", f"its size is {tracer.sizes.described(a.type.shape[d])}", "indices run from -size to size - 1"
        )
    return tracer.size_term(value) if not isinstance(value, int) else value


def _constant_indices(tracer: Tracer, a: Array, d: int, indices: Any) -> Array:
    if indices.size == 0:
        indices = indices.astype(np.int64)
    if indices.dtype.kind in "iu" and indices.size:
        low, high = int(indices.min()), int(indices.max())
        sizes, extent = tracer.sizes, a.extents[d]
        for value in (low, high):
            inside = sizes.holds(extent, ">", value, "an index") if value >= 0 else sizes.holds(extent, ">=", -value, "an index")
            if not inside:
                raise IndexOutOfRangeError(f"index {value} of dimension {d} of {tracer.text(a)}", f"its size is {sizes.described(extent)}")
        out = tracer.capture(indices.copy())
        if low >= 0:
            tracer.not_negative[out.name] = None
        return out
    return tracer.capture(indices)


def sliced(tracer: Tracer, k: slice, extent: Size) -> Part:
    """begin:end:step over a dimension, with Python's clamping; which case holds is guarded."""
    sizes = tracer.sizes
    step = 1 if k.step is None else int(k.step)
    if step == 0:
        raise ShapeError("a slice with step 0", "", "use a step other than 0")

    def bound(value: Any, low: Size, high: Size) -> Size:
        size = to_size(value, tracer)
        if sizes.is_decided(extent) or sizes.is_decided(size):  # which case holds is known when the kernel runs
            if isinstance(size, int) and size < 0:
                size = size + extent
            return sx.minimum(sx.maximum(size, low), high)
        if not sizes.compare(size, ">=", 0, "a slice"):
            size = size + extent
        if not sizes.compare(size, ">=", low, "a slice"):
            return low
        return size if sizes.compare(size, "<=", high, "a slice") else high

    if step > 0:
        begin = 0 if k.start is None else bound(k.start, 0, extent)
        end = extent if k.stop is None else bound(k.stop, 0, extent)
        length: Size = sx.ceildiv(end - begin, step)
        decided = sizes.is_decided(end - begin)
        empty = not decided and not sizes.compare(end, ">=", begin, "a slice")
    else:
        begin = extent - 1 if k.start is None else bound(k.start, -1, extent - 1)
        end = -1 if k.stop is None else bound(k.stop, -1, extent - 1)
        length = sx.ceildiv(begin - end, -step)
        decided = sizes.is_decided(begin - end)
        empty = not decided and not sizes.compare(begin, ">=", end, "a slice")
    if decided and not (k.start is None and k.stop is None):
        length = sx.maximum(length, 0)
    return Part("slice", 0 if empty else sizes.resolve(length), begin=sizes.resolve(begin), step=step)
