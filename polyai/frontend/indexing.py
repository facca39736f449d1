"""Indexing with NumPy's meaning: integers, slices, None, ellipsis and integer arrays; and functional updates, `x.at[...]`.

A key becomes a `Selection`: the extents of the result and, for each dimension of the array, an index expression over the
result's index variables. Reading is then one comprehension, updating one scatter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from polyai.errors import IndexOutOfRangeError, ShapeError, TraceError, UnsupportedError
from polyai.frontend import notation
from polyai.frontend.core import Array, Shape, Tracer, dense, find_tracer, index_term, normalized_axis, to_size
from polyai.frontend.elementwise import where
from polyai.frontend.pointwise import broadcast, places
from polyai.frontend.shaping import given
from polyai.frontend.sizes import SizeValue
from polyai.frontend.term import Term, apply, convert, number
from polyai.scalar import dtype as dt
from polyai.scalar.ops import MONOIDS
from polyai.shapes import expr as sx
from polyai.shapes.expr import Size
from polyai.tensor import nodes as tn

Place = Callable[[tuple[tn.Index, ...]], Any]


@dataclass(frozen=True)
class Selection:
    """`extents` of the result; `places[d]` gives the index of dimension d from the result's index variables."""

    extents: Shape
    places: tuple[Place, ...]
    whole: bool = False


@dataclass(frozen=True)
class _Part:
    """What one element of a key contributes: new dimensions of the result, and an index for one dimension of the array."""

    kind: str  # "new", "int", "slice", "array"
    extent: Size = 1
    value: Any = None
    begin: Any = 0
    step: int = 1


def getitem(a: Array, key: Any) -> Any:
    """`a[key]`."""
    parts = key if isinstance(key, tuple) else (key,)
    if any(isinstance(k, Term) for k in parts):
        return notation.access(a, parts)
    if all(k is Ellipsis or _is_full(k) for k in parts) and len(parts) <= max(a.rank, 1):
        return a
    if a.is_sparse:
        raise UnsupportedError(
            f"indexing of the sparse {a.tracer.text(a)}", "slices of sparse arrays are not compiled yet", "slice before the call, or use index notation"
        )
    selection = select(a, parts)
    indices = a.tracer.indices(selection.extents)
    return a.tracer.emit("index", indices, a.tracer.read(a, [p(indices) for p in selection.places]))


def _is_full(k: Any) -> bool:
    return isinstance(k, slice) and k.start is None and k.stop is None and k.step is None


def select(a: Array, key: tuple[Any, ...]) -> Selection:
    """The meaning of a key. Raises TraceError for masks, IndexOutOfRangeError for constants outside."""
    parts = _parts(a, key)
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


def _slice_place(tracer: Tracer, position: int, part: _Part) -> Place:
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
        read = convert(tracer.read(index, places(index, indices[offset : offset + rank])), dt.i64)
        return _wrapped(tracer, read, a.extents[dimension], index)

    return place


def _wrapped(tracer: Tracer, value: Term, extent: Size, index: Array) -> Term:
    """Negative indices count from the end."""
    if index.type.dtype.kind == "u" or index.name in tracer.not_negative:
        return value
    return apply("where", value < 0, value + tracer.size_term(extent), value)


def _parts(a: Array, key: tuple[Any, ...]) -> list[_Part]:
    tracer = a.tracer
    used = sum(1 for k in key if k is not None and k is not Ellipsis)
    if sum(1 for k in key if k is Ellipsis) > 1:
        raise ShapeError("an index with two ellipses", "only one can be expanded")
    if used > a.rank:
        raise ShapeError(f"{used} indices for {a.rank} dimensions", tracer.shape_text(a), "give at most one index per dimension")
    if Ellipsis not in [k if k is Ellipsis else None for k in key]:
        key = (*key, Ellipsis)
    out: list[_Part] = []
    d = 0
    for k in key:
        if k is Ellipsis:
            for _ in range(a.rank - used):
                out.append(_Part("slice", a.extents[d]))
                d += 1
        elif k is None:
            out.append(_Part("new"))
        else:
            out.append(_part(tracer, a, d, k))
            d += 1
    return out


def _part(tracer: Tracer, a: Array, d: int, k: Any) -> _Part:
    extent = a.extents[d]
    if isinstance(k, slice):
        return sliced(tracer, k, extent)
    if isinstance(k, (bool, np.bool_)):
        raise TraceError("a boolean as an index", "the size of the result would depend on data", "use where(mask, x, other)")
    if isinstance(k, (int, np.integer, SizeValue)):
        return _Part("int", value=_integer(tracer, a, d, k))
    constant = isinstance(k, (list, np.ndarray))
    if constant:
        k = _constant_indices(tracer, a, d, np.asarray(k))
    if not isinstance(k, Array):
        raise TraceError(f"{k!r} as an index", f"its type is {type(k).__name__}", "use ints, slices, None, ... or integer arrays")
    if k.type.dtype.kind == "b":
        raise TraceError(
            f"the boolean mask {'' if constant else tracer.text(k)} as an index",
            "the size of the result would depend on data",
            "use where(mask, x, other), or sum(where(mask, x, 0))",
        )
    if not k.type.dtype.is_integer:
        raise TraceError(f"an index array of type {k.type.dtype}", "", "indices are integers: convert with .astype(int)")
    return _Part("array", value=dense(k, "an index"))


def _integer(tracer: Tracer, a: Array, d: int, k: Any) -> Any:
    """A constant or symbolic index, counted from the end if negative; that it is inside is guarded."""
    extent, value = a.extents[d], to_size(k, tracer)
    if not tracer.sizes.compare(value, ">=", 0, "an index"):
        value = value + extent
    if not (tracer.sizes.compare(value, ">=", 0, "an index") and tracer.sizes.compare(value, "<", extent, "an index")):
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
            inside = sizes.compare(extent, ">", value, "an index") if value >= 0 else sizes.compare(extent, ">=", -value, "an index")
            if not inside:
                raise IndexOutOfRangeError(f"index {value} of dimension {d} of {tracer.text(a)}", f"its size is {sizes.described(extent)}")
        out = tracer.capture(indices.copy())
        if low >= 0:
            tracer.not_negative[out.name] = None
        return out
    return tracer.capture(indices)


def sliced(tracer: Tracer, k: slice, extent: Size) -> _Part:
    """begin:end:step over a dimension, with Python's clamping; which case holds is guarded."""
    sizes = tracer.sizes
    step = 1 if k.step is None else int(k.step)
    if step == 0:
        raise ShapeError("a slice with step 0", "", "use a step other than 0")

    def bound(value: Any, low: Size, high: Size) -> Size:
        size = to_size(value, tracer)
        if not sizes.compare(size, ">=", 0, "a slice"):
            size = size + extent
        if not sizes.compare(size, ">=", low, "a slice"):
            return low
        return size if sizes.compare(size, "<=", high, "a slice") else high

    if step > 0:
        begin = 0 if k.start is None else bound(k.start, 0, extent)
        end = extent if k.stop is None else bound(k.stop, 0, extent)
        length: Size = sx.ceildiv(end - begin, step)
        empty = not sizes.compare(end, ">=", begin, "a slice")
    else:
        begin = extent - 1 if k.start is None else bound(k.start, -1, extent - 1)
        end = -1 if k.stop is None else bound(k.stop, -1, extent - 1)
        length = sx.ceildiv(begin - end, -step)
        empty = not sizes.compare(begin, ">=", end, "a slice")
    return _Part("slice", 0 if empty else sizes.resolve(length), begin=sizes.resolve(begin), step=step)


class At:
    """`x.at`: index it for functional updates."""

    __slots__ = ("array",)

    def __init__(self, array: Array) -> None:
        self.array = array

    def __getitem__(self, key: Any) -> Update:
        return Update(self.array, key if isinstance(key, tuple) else (key,))


class Update:
    """`x.at[key]`: each method gives a new array. Repeated places combine; with `set` the last one wins."""

    __slots__ = ("array", "key")

    def __init__(self, array: Array, key: tuple[Any, ...]) -> None:
        self.array, self.key = array, key

    def get(self) -> Any:
        """x[key]."""
        return getitem(self.array, self.key)

    def set(self, values: Any) -> Any:
        """x with x[key] = values."""
        return self._scatter("set", None, values)

    def add(self, values: Any) -> Any:
        """x with x[key] += values."""
        return self._scatter("scatter_add", "add", values)

    def subtract(self, values: Any) -> Any:
        """x with x[key] -= values."""
        return self._scatter("scatter_add", "add", -values)

    def mul(self, values: Any) -> Any:
        """x with x[key] *= values."""
        return self._scatter("scatter_mul", "mul", values)

    multiply = mul

    def max(self, values: Any) -> Any:
        """x with x[key] = maximum(x[key], values)."""
        return self._scatter("scatter_max", "max", values)

    def min(self, values: Any) -> Any:
        """x with x[key] = minimum(x[key], values)."""
        return self._scatter("scatter_min", "min", values)

    def _scatter(self, stem: str, monoid: str | None, values: Any) -> Array:
        a = dense(self.array, "an update")
        tracer = a.tracer
        if monoid is None and len(self.key) == 1 and _is_mask(self.key[0]):
            chosen = where(self.key[0], values, a)
            if chosen.extents != a.extents:
                raise ShapeError("a mask or its values do not fit the array they update", tracer.shape_text(a), "their shapes must broadcast to it")
            indices = tracer.indices(chosen.extents)
            return tracer.emit("set", indices, convert(tracer.read(chosen, indices), a.type.dtype))
        selection = select(a, self.key)
        indices = tracer.indices(selection.extents)
        if isinstance(values, (Array, np.ndarray, list, tuple)):
            update = dense(tracer.array(values), "an update")
            shape = broadcast(tracer, [selection.extents, update.extents], "an update", (a, update))
            if len(shape) != len(indices) or any(tracer.sizes.resolve(i.extent) != s for i, s in zip(indices, shape)):
                raise ShapeError(
                    "an update does not fit the place it is written to",
                    f"{tracer.shape_text(update)} into ({', '.join(map(tracer.sizes.described, selection.extents))})",
                    "its shape must broadcast to the place",
                )
            value = tracer.read(update, places(update, indices))
        else:
            value = tracer.scalar(values)
        value = convert(value, a.type.dtype)
        combine = {"add": "or", "max": "or", "mul": "and", "min": "and"}.get(monoid or "", monoid) if a.type.dtype.kind == "b" else monoid
        return tracer.scatter(stem, a, combine, indices, [p(indices) for p in selection.places], value)


def _is_mask(key: Any) -> bool:
    return (isinstance(key, Array) and key.type.dtype.kind == "b") or (isinstance(key, np.ndarray) and key.dtype.kind == "b")


def take(x: Any, indices: Any, axis: Any = None) -> Any:
    """x[..., indices, ...] along `axis` (flattened without axis); negative indices count from the end."""
    a = given(x, "take")
    if axis is None:
        if a.rank != 1:
            raise ShapeError("take without axis of an array with several dimensions", a.tracer.shape_text(a), "name the axis")
        axis = 0
    d = normalized_axis(axis, a.rank, "take")
    index = indices if isinstance(indices, (int, list, np.ndarray)) else a.tracer.array(indices)
    return getitem(a, (*(slice(None),) * d, index))


def embedding(table: Any, ids: Any) -> Any:
    """table[ids] for integer ids >= 0: one row per id. A kernel raises IndexOutOfRangeError for ids outside the table."""
    tracer = find_tracer((table, ids), "embedding")
    a, index = given(tracer.array(table), "embedding"), dense(tracer.array(ids), "embedding")
    if not index.type.dtype.is_integer:
        raise TraceError(f"embedding with ids of type {index.type.dtype}", "", "ids are integers: convert with .astype(int)")
    indices = tracer.indices((*index.extents, *a.extents[1:]))
    row = convert(tracer.read(index, indices[: index.rank]), dt.i64)
    return tracer.emit("embedding", indices, tracer.read(a, (row, *indices[index.rank :])))


def take_along_axis(x: Any, indices: Any, axis: Any = -1) -> Any:
    """out[..., j, ...] = x[..., indices[..., j, ...], ...]; the other dimensions broadcast."""
    tracer = find_tracer((x, indices), "take_along_axis")
    a, index = given(tracer.array(x), "take_along_axis"), dense(tracer.array(indices), "take_along_axis")
    d = normalized_axis(axis, a.rank, "take_along_axis")
    if index.rank != a.rank:
        raise ShapeError("take_along_axis: ranks differ", tracer.shapes_text((a, index)), "indices has as many dimensions as the array")
    shape = list(broadcast(tracer, [(*a.extents[:d], 1, *a.extents[d + 1 :]), (*index.extents[:d], 1, *index.extents[d + 1 :])], "take_along_axis"))
    shape[d] = index.extents[d]
    points = tracer.indices(shape)
    place = _wrapped(tracer, convert(tracer.read(index, places(index, points)), dt.i64), a.extents[d], index)
    at = places(a, points)
    at[d] = place
    return tracer.emit("take_along_axis", points, tracer.read(a, at))


def bincount(x: Any, weights: Any = None, minlength: Any = None) -> Any:
    """Counts (or sums of weights) of the integers 0 .. minlength - 1 in the vector `x`; `minlength` must cover all values."""
    tracer = find_tracer((x, weights, minlength), "bincount")
    a = given(tracer.array(x), "bincount")
    if minlength is None:
        raise TraceError("bincount without minlength", "the size of the result would depend on data", "give minlength=, a bound of the values")
    from_weights = None if weights is None else tracer.array(weights)
    dtype = dt.i64 if from_weights is None else dt.f64
    base = tracer.emit("zeros", tracer.indices((to_size(minlength, tracer),)), convert(0, dtype))
    if from_weights is not None:
        tracer.sizes.require(from_weights.extents[0], "==", a.extents[0], "bincount needs one weight per element")
    (i,) = tracer.indices(a.extents)
    value = convert(1, dtype) if from_weights is None else convert(tracer.read(from_weights, (i,)), dtype)
    return tracer.scatter("bincount", base, "add", (i,), (convert(tracer.read(a, (i,)), dt.i64),), value)


def segment_sum(values: Any, segments: Any, num_segments: Any) -> Any:
    """Rows of `values` summed by their segment number: [n, ...] and [n] give [num_segments, ...]."""
    return _segments("add", values, segments, num_segments)


def segment_max(values: Any, segments: Any, num_segments: Any) -> Any:
    """The largest row entries by segment; the lowest value of the type for a segment without rows."""
    return _segments("max", values, segments, num_segments)


def _segments(monoid: str, values: Any, segments: Any, num_segments: Any) -> Any:
    tracer = find_tracer((values, segments), "segment reduction")
    a, s = given(tracer.array(values), "a segment reduction"), given(tracer.array(segments), "a segment reduction")
    tracer.sizes.require(a.extents[0], "==", s.extents[0], "a segment reduction needs one segment number per row")
    identity = number(MONOIDS[monoid].identity(a.type.dtype), a.type.dtype)
    base = tracer.emit("base", tracer.indices((to_size(num_segments, tracer), *a.extents[1:])), identity)
    points = tracer.indices(a.extents)
    at = (convert(tracer.read(s, (points[0],)), dt.i64), *points[1:])
    return tracer.scatter(f"segment_{monoid}", base, monoid, points, at, tracer.read(a, points))
