"""Arrays made from sizes and numbers. With plain ints they are NumPy arrays; with sizes of a trace they stay symbolic."""

from __future__ import annotations

from typing import Any

import numpy as np

from polyai.errors import ShapeError
from polyai.frontend.core import index_term, to_shape, to_size, tracer_among
from polyai.frontend.spec import as_dtype
from polyai.frontend.surface.pointwise import operand
from polyai.frontend.term import Term, apply, convert
from polyai.scalar import dtype as dt
from polyai.scalar.dtype import to_numpy
from polyai.shapes import expr as sx


def full(shape: Any, fill_value: Any, dtype: Any = None) -> Any:
    """An array of `shape` whose elements are all `fill_value`; its type without `dtype`."""
    tracer = tracer_among((shape, fill_value))
    if tracer is None:
        return np.full(shape, fill_value, None if dtype is None else to_numpy(as_dtype(dtype)))
    given = operand(tracer, fill_value)
    value = given if isinstance(given, Term) else tracer.read(given, ())
    if dtype is not None:
        value = convert(value, as_dtype(dtype))
    return tracer.emit("full", tracer.indices(to_shape(shape, tracer)), value, strong=True)


def zeros(shape: Any, dtype: Any = dt.f64) -> Any:
    """Zeros."""
    return full(shape, 0, dtype)


def ones(shape: Any, dtype: Any = dt.f64) -> Any:
    """Ones."""
    return full(shape, 1, dtype)


def full_like(x: Any, fill_value: Any, dtype: Any = None) -> Any:
    """An array of the shape and type of `x` (or of `dtype`) filled with one value."""
    tracer = tracer_among((x, fill_value))
    if tracer is None:
        return np.full_like(x, fill_value, dtype=None if dtype is None else to_numpy(as_dtype(dtype)))
    a = tracer.array(x)
    shape = tuple(tracer.sizes.value(e) for e in a.extents)
    given = operand(tracer, fill_value)
    value = given if isinstance(given, Term) else tracer.read(given, ())
    value = convert(value, a.type.dtype if dtype is None else as_dtype(dtype))
    return tracer.emit("full", tracer.indices(to_shape(shape, tracer)), value, strong=True)


def zeros_like(x: Any, dtype: Any = None) -> Any:
    """Zeros of the shape of `x`."""
    return full_like(x, 0, dtype)


def ones_like(x: Any, dtype: Any = None) -> Any:
    """Ones of the shape of `x`."""
    return full_like(x, 1, dtype)


def eye(n_rows: Any, n_cols: Any = None, k: int = 0, dtype: Any = dt.f64) -> Any:
    """Ones on the k-th diagonal, zeros elsewhere."""
    tracer = tracer_among((n_rows, n_cols))
    wanted = as_dtype(dtype)
    if tracer is None:
        return np.eye(n_rows, n_cols, k, to_numpy(wanted))
    rows = to_size(n_rows, tracer)
    i, j = tracer.indices((rows, rows if n_cols is None else to_size(n_cols, tracer)))
    return tracer.emit("eye", (i, j), convert(apply("eq", index_term(j), index_term(i) + k if k else index_term(i)), wanted))


def arange(start: Any, stop: Any = None, step: Any = 1, dtype: Any = None) -> Any:
    """start, start + step, ... below stop; the bounds are ints or sizes."""
    tracer = tracer_among((start, stop, step))
    if tracer is None:
        out = np.arange(start, stop, step) if stop is not None else np.arange(0, start, step)
        return out if dtype is None else out.astype(to_numpy(as_dtype(dtype)))
    if stop is None:
        start, stop = 0, start
    begin, end, by = (to_size(v, tracer, "an integer bound of arange") for v in (start, stop, step))
    if not isinstance(by, int) or by == 0:
        raise ShapeError(f"arange with step {step}", "the step is a constant integer other than 0")
    length = sx.ceildiv(end - begin, by) if by > 0 else sx.ceildiv(begin - end, -by)
    if not tracer.sizes.compare(length, ">=", 0, "arange"):
        length = 0
    (i,) = tracer.indices((length,))
    place = index_term(i) if by == 1 else index_term(i) * by
    value = place if begin == 0 else place + tracer.size_term(begin)
    return tracer.emit("arange", (i,), convert(value, dt.i64 if dtype is None else as_dtype(dtype)), strong=True)


def linspace(start: Any, stop: Any, num: Any = 50, endpoint: bool = True, dtype: Any = None) -> Any:
    """`num` evenly spaced numbers from start to stop; the bounds are numbers or scalar arrays."""
    tracer = tracer_among((start, stop, num))
    if tracer is None:
        return np.linspace(start, stop, num, endpoint, dtype=None if dtype is None else to_numpy(as_dtype(dtype)))
    count = to_size(num, tracer)
    low, high = (v if isinstance(v, Term) else tracer.read(v, ()) for v in (operand(tracer, start), operand(tracer, stop)))
    low, high = (v if v.dtype.is_float or v.dtype.is_complex else convert(v, dt.f64) for v in (low, high))
    gaps = apply("max", tracer.size_term(count - 1 if endpoint else count), 1)
    (i,) = tracer.indices((count,))
    here = convert(index_term(i), dt.f64)
    value = low + here * ((high - low) / convert(gaps, dt.f64))
    if endpoint:
        value = apply("where", apply("eq", index_term(i), tracer.size_term(count) - 1) & (index_term(i) > 0), high, value)
    return tracer.emit("linspace", (i,), value if dtype is None else convert(value, as_dtype(dtype)), strong=True)


def tri(n: Any, m: Any = None, k: int = 0, dtype: Any = dt.f64) -> Any:
    """Ones on and below the k-th diagonal, zeros above it."""
    tracer = tracer_among((n, m))
    wanted = as_dtype(dtype)
    if tracer is None:
        return np.tri(n, m, k, to_numpy(wanted))
    rows = to_size(n, tracer)
    i, j = tracer.indices((rows, rows if m is None else to_size(m, tracer)))
    return tracer.emit("tri", (i, j), convert(index_term(j) <= index_term(i) + k, wanted))


def one_hot(x: Any, num_classes: Any, dtype: Any = dt.f64) -> Any:
    """A new last dimension with a one at the place that each element names, zeros elsewhere."""
    tracer = tracer_among((x, num_classes))
    wanted = as_dtype(dtype)
    if tracer is None:
        return (np.asarray(x)[..., None] == np.arange(num_classes)).astype(to_numpy(wanted))
    a = tracer.array(x)
    indices = tracer.indices((*a.extents, to_size(num_classes, tracer)))
    value = convert(apply("eq", tracer.read(a, indices[:-1]), index_term(indices[-1])), wanted)
    return tracer.emit("one_hot", indices, value, strong=True)


def asarray(x: Any, dtype: Any = None) -> Any:
    """`x` as an array: traced arrays stay, others become NumPy arrays."""
    tracer = tracer_among((x,))
    if tracer is None:
        return np.asarray(x, None if dtype is None else to_numpy(as_dtype(dtype)))
    a = tracer.array(x)
    if dtype is None or a.type.dtype == as_dtype(dtype):
        return a
    indices = tracer.indices(a.extents)
    return tracer.emit("astype", indices, convert(tracer.read(a, indices), as_dtype(dtype)))
