"""Indexing with NumPy's meaning: integers, slices, None, ellipsis and integer arrays; and functional updates, `x.at[...]`.

A key becomes a `Selection`: the extents of the result and, for each dimension of the array, an index expression over the
result's index variables. Reading is then one comprehension, updating one scatter.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from polyai.errors import ShapeError, TraceError
from polyai.frontend.core import Array, dense, find_tracer, normalized_axis, to_size
from polyai.frontend.surface import notation, picking, selecting
from polyai.frontend.surface.elementwise import where
from polyai.frontend.surface.keys import is_full, select, wrapped
from polyai.frontend.surface.pointwise import along, broadcast, places, pointwise_stored
from polyai.frontend.surface.shaping import given
from polyai.frontend.term import Term, convert, number
from polyai.scalar import dtype as dt
from polyai.scalar.ops import MONOIDS


def getitem(a: Array, key: Any) -> Any:
    """`a[key]`."""
    parts = key if isinstance(key, tuple) else (key,)
    if any(isinstance(k, Term) for k in parts):
        return notation.access(a, parts)
    if all(k is Ellipsis or is_full(k) for k in parts) and len(parts) <= max(a.rank, 1):
        return a
    found = selecting.by_mask(a, parts)
    if found is not None:
        return found
    parts = selecting.without_masks(a, parts)
    if a.is_sparse:
        return picking.getitem(a, parts)
    selection = select(a, parts)
    indices = a.tracer.indices(selection.extents)
    out = a.tracer.emit("index", indices, a.tracer.read(a, [p(indices) for p in selection.places]))
    if a.rank == 1 and isinstance(parts[0], Array) and parts[0].name in a.tracer.along:
        a.tracer.along[out.name] = lambda: pointwise_stored("index", lambda k: a.tracer.read(a, (convert(k, dt.i64),)), along(parts[0]))
    return out


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
        one_each = isinstance(values, Array) and bool(values.rank) and tracer.sizes.is_decided(values.extents[0])  # one for each that is true
        if monoid is None and len(self.key) == 1 and _is_mask(self.key[0]) and not one_each:
            chosen = where(self.key[0], values, a)
            if chosen.extents != a.extents:
                raise ShapeError("a mask or its values do not fit the array they update", tracer.shape_text(a), "their shapes must broadcast to it")
            indices = tracer.indices(chosen.extents)
            return tracer.emit("set", indices, convert(tracer.read(chosen, indices), a.type.dtype))
        selection = select(a, selecting.without_masks(a, self.key))
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
    place = wrapped(tracer, convert(tracer.read(index, places(index, points)), dt.i64), a.extents[d], index)
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
