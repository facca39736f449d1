"""Random numbers without state: a hash of (key, position), so results do not depend on threads, schedules or order.

The mixer is `lowbias32` of Wellons (hash-prospector, 2018) over a Weyl sequence; one comprehension per round.
"""

from __future__ import annotations

import math
from typing import Any

from polyai.errors import ShapeError, TraceError
from polyai.frontend.core import Array, Shape, Tracer, dense, find_tracer, index_term, to_shape
from polyai.frontend.spec import as_dtype
from polyai.frontend.surface.pointwise import operand, pointwise
from polyai.frontend.term import Term, apply, convert, number
from polyai.scalar import dtype as dt


def _word(value: int) -> Term:
    return number(value & 0xFFFFFFFF, dt.u32)


def _key(tracer: Tracer, key: Any) -> Term:
    if isinstance(key, int) and not isinstance(key, bool):
        return _word(key * 0x85EBCA6B)
    given = operand(tracer, key)
    value = given if isinstance(given, Term) else tracer.read(given, ())
    if not value.dtype.is_integer:
        raise TraceError(f"a random key of type {value.dtype}", "", "a key is an integer")
    return convert(value, dt.u32) * _word(0x85EBCA6B)


def bits(tracer: Tracer, key: Any, shape: Shape) -> Array:
    """Uniform u32 values, one per position."""
    indices = tracer.indices(shape)
    place: Term = convert(0, dt.i64)
    for n, i in enumerate(indices):
        place = index_term(i) if n == 0 else place * tracer.size_term(i.extent) + index_term(i)
    counter = convert(place, dt.u32) * _word(0x9E3779B9) + _key(tracer, key) + _word(0x6A09E667)
    out = tracer.emit("counter", indices, counter)
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B), (16, None)):

        def round_(h: Term, shift: int = shift, factor: int | None = factor) -> Term:
            mixed = h ^ (h >> shift)
            return mixed if factor is None else mixed * _word(factor)

        out = pointwise("bits", round_, out)
    return out


def random_bits(key: Any, shape: Any) -> Any:
    """Uniform u32 values from an integer key."""
    tracer = find_tracer((key, shape), "random_bits")
    return bits(tracer, key, to_shape(shape, tracer))


def uniform(key: Any, shape: Any, dtype: Any = dt.f64, low: Any = 0.0, high: Any = 1.0) -> Any:
    """Numbers in low <= x < high from an integer key; 24 random bits for f32 and smaller, 32 for f64."""
    tracer = find_tracer((key, shape, low, high), "uniform")
    return _uniform(tracer, key, to_shape(shape, tracer), as_dtype(dtype), low, high)


def _uniform(tracer: Tracer, key: Any, shape: Shape, dtype: dt.DType, low: Any = 0.0, high: Any = 1.0) -> Any:
    if not dtype.is_float:
        raise TraceError(f"uniform numbers of type {dtype}", "", "use random_bits for integers")

    def rule(h: Term, a: Term, b: Term) -> Term:
        unit = convert(h, dt.f64) * 2.0**-32 if dtype.bits == 64 else convert(convert(h >> 8, dt.f32) * 2.0**-24, dtype)
        return convert(unit * (b - a) + a, dtype) if (low, high) != (0.0, 1.0) else unit

    return pointwise("uniform", rule, bits(tracer, key, shape), low, high)


def normal(key: Any, shape: Any, dtype: Any = dt.f64) -> Any:
    """Standard normal numbers from an integer key (Box and Muller)."""
    tracer = find_tracer((key, shape), "normal")
    extents, wanted = to_shape(shape, tracer), as_dtype(dtype)
    first = _uniform(tracer, key, extents, dt.compute_type(wanted))
    second = _uniform(tracer, key + 0x3C6EF372, extents, dt.compute_type(wanted))

    def rule(u: Term, v: Term) -> Term:
        return convert(apply("sqrt", apply("log1p", -u) * -2.0) * apply("cos", v * (2.0 * math.pi)), wanted)

    return pointwise("normal", rule, first, second)


def dropout(x: Any, rate: Any, key: Any) -> Any:
    """Each element is zero with probability `rate`, else divided by 1 - rate; which ones depends on `key` and position only."""
    tracer = find_tracer((x, rate, key), "dropout")
    a = dense(tracer.array(x), "dropout")
    drawn = bits(tracer, key, a.extents)
    if isinstance(rate, (int, float)):
        if not 0 <= rate <= 1:
            raise ShapeError(f"dropout with rate {rate}", "a probability is between 0 and 1")
        if rate == 1:
            return pointwise("dropout", lambda e: apply("where", False, e, 0), a)
        threshold = _word(min(int(rate * 2**32), 2**32 - 1))
        return pointwise("dropout", lambda e, h: apply("where", h >= threshold, e * (1.0 / (1.0 - rate)), 0), a, drawn)
    return pointwise("dropout", lambda e, h, r: apply("where", convert(h, dt.f64) * 2.0**-32 >= r, e / (1.0 - r), 0), a, drawn, rate)
