"""Order by value: sort, argsort, unique, as passes over the digits of integers that are ordered as the values are.

    order[k]     P[digit(key[order[k]]), k] = order[k] for each digit, the last one first; order = list P

Each pass groups by one digit and keeps the order of the pass before it within a group (a radix sort, least significant digits
first: Knuth, The Art of Computer Programming, 5.2.5). It is the same step as that of a mask: a pattern whose rows are counted, then filled.
"""

from __future__ import annotations

from typing import Any, cast

from polyai.errors import DTypeError, ShapeError
from polyai.frontend.core import Array, Tracer, dense, find_tracer, index_expr, index_term, normalized_axis
from polyai.frontend.surface import merging, selecting, shaping
from polyai.frontend.surface.listing import listing, nonnegative
from polyai.frontend.surface.reductions import cumulative_sum
from polyai.frontend.term import Term, apply, convert, number
from polyai.scalar import dtype as dt
from polyai.shapes.expr import Size
from polyai.sparse.format import csr
from polyai.tensor import nodes as tn

DIGIT = 13
"""Bits of a digit: its 8192 groups are places that are written to, which the caches hold."""


def argsort(x: Any, axis: Any = -1, *, descending: bool = False, stable: bool = True) -> Any:
    """The order that sorts `x` along `axis`: i64 of its shape. Equal elements keep their order; NaN comes last.

    Without an axis, that of the array flattened. Raises DTypeError for complex numbers, ShapeError for a scalar.
    """
    a, d = _along(x, axis, "argsort")
    order, _ = _ordered(_last(a, d), descending)
    return _back(_places(order, a, d), a, d)


def sort(x: Any, axis: Any = -1, *, descending: bool = False, stable: bool = True) -> Any:
    """`x` sorted along `axis`, NaN last; without an axis, flattened. See `argsort`."""
    a, d = _along(x, axis, "sort")
    last = _last(a, d)
    order, _ = _ordered(last, descending)
    flat = cast(Any, shaping.reshape(last, -1))[order]
    return _back(_shaped(flat, a, d), a, d)


def unique(x: Any, return_index: bool = False, return_inverse: bool = False, return_counts: bool = False) -> Any:
    """The different elements of `x`, sorted: how many there are is a size that data decide. NaN counts as equal to NaN.

    As NumPy's: with `return_index`, where each occurs first in `x` flattened; with `return_inverse`, which one each element of `x`
    is, in the shape of `x`; with `return_counts`, how often each occurs. Raises DTypeError for complex numbers.
    """
    tracer = find_tracer((x,), "unique")
    a = dense(tracer.array(x), "unique")
    flat = shaping.reshape(a, -1)
    order, key = _ordered(flat, False)
    (n,) = flat.extents
    (k,) = tracer.indices((n,))
    here, before = _key_at(tracer, key, order, k), _key_at(tracer, key, order, index_term(k) - 1)
    is_first = tracer.emit("first", (k,), apply("where", apply("gt", index_term(k), 0), apply("ne", here, before), number(True, dt.bool_)))
    starts = selecting.nonzero(is_first)[0]
    first = cast(Any, order)[starts]
    out = [cast(Any, flat)[nonnegative(first)]]
    if return_index:
        out.append(first)
    if return_inverse:
        rank = cumulative_sum(is_first, 0, "int64") - 1
        (i,) = tracer.indices((n,))
        zeros = tracer.emit("zeros", tracer.indices((n,)), number(0, dt.i64))
        inverse = tracer.scatter("inverse", zeros, None, (i,), (tracer.read(order, (i,)),), tracer.read(rank, (i,)))
        out.append(shaping.reshape(inverse, tuple(map(tracer.sizes.value, a.extents))))
    if return_counts:
        (j,) = tracer.indices(starts.extents)
        after = apply("lt", index_term(j) + 1, tracer.size_term(starts.extents[0]))
        end = apply("where", after, tracer.read(starts, (index_term(j) + 1,)), convert(tracer.size_term(n), dt.i64))
        out.append(tracer.emit("counts", (j,), end - tracer.read(starts, (j,))))
    return out[0] if len(out) == 1 else tuple(out)


def _along(x: Any, axis: Any, what: str) -> tuple[Array, int]:
    tracer = find_tracer((x,), what)
    a = dense(tracer.array(x), what)
    if not a.rank:
        raise ShapeError(f"{what} of a scalar", tracer.shape_text(a), "there is nothing to put in order")
    return (shaping.reshape(a, -1), 0) if axis is None else (a, normalized_axis(axis, a.rank, what))


def _last(a: Array, d: int) -> Array:
    """The array with dimension `d` last."""
    return a if d == a.rank - 1 else cast(Array, shaping.moveaxis(a, d, -1))


def _back(a: Any, like: Array, d: int) -> Any:
    return a if d == like.rank - 1 else shaping.moveaxis(a, -1, d)


def _shaped(flat: Array, a: Array, d: int) -> Array:
    """A vector in the shape of `a` with dimension `d` last."""
    if a.rank == 1:
        return flat
    value = a.tracer.sizes.value
    lines = (value(e) for n, e in enumerate(a.extents) if n != d)
    return cast(Array, shaping.reshape(flat, (*lines, value(a.extents[d]))))


def _places(order: Array, a: Array, d: int) -> Array:
    """Places in a flattened array as places along its last dimension."""
    return _shaped(order if a.rank == 1 else cast(Any, order) % a.tracer.sizes.value(a.extents[d]), a, d)


def _ordered(a: Array, descending: bool) -> tuple[Array, Array]:
    """The order that sorts each line along the last dimension of `a`, of the array flattened; and the keys, flattened."""
    tracer = a.tracer
    merging.refuse_in_regions(tracer, "a sort", "lists", "sort outside of the loop or branch")
    flat = shaping.reshape(a, -1)
    (n,) = flat.extents
    (i,) = tracer.indices((n,))
    value, bits = _key(tracer.read(flat, (i,)), tracer.text(a))
    key = tracer.emit("key", (i,), apply("invert", value) if descending else value)
    order: Array | None = None
    for shift in range(0, bits, DIGIT):
        width = min(DIGIT, bits - shift)

        def digit(at: Term, shift: int = shift, width: int = width) -> Term:
            shifted = at if shift == 0 else apply("shr", at, number(shift, dt.i64))
            return apply("bitand", shifted, number((1 << width) - 1, dt.i64))

        order = _pass(tracer, n, 1 << width, order, lambda at, digit=digit: digit(tracer.read(key, (at,))))
    if a.rank > 1:
        line: Size = a.extents[-1]
        lines: Size = 1
        for extent in a.extents[:-1]:
            lines = lines * extent
        order = _pass(tracer, n, lines, order, lambda at: at // tracer.size_term(line))
    assert order is not None
    return order, key


def _pass(tracer: Tracer, n: Size, groups: Size, order: Array | None, group: Any) -> Array:
    """The order grouped anew."""
    name = tracer.sparse_name("sorted")
    count = tracer.sizes.add(tn.nnz_of(name), "the number of sorted elements", None)
    (k,) = tracer.indices((n,))
    at = index_term(k) if order is None else tracer.read(order, (k,))
    type = tn.TensorType(dt.i64, (groups, n), csr(64), tn.Pattern(name, (0, 1)))
    places = tuple(map(index_expr, (group(at), k)))
    made = tracer.add_step(tn.Scatter(name, type, None, None, (k,), places, at.body))
    out = nonnegative(listing(made))
    tracer.sizes.assume(count, "==", n)
    return out


def _key_at(tracer: Tracer, key: Array, order: Array, at: Any) -> Term:
    return tracer.read(key, (tracer.read(order, (at,)),))


def _key(value: Term, text: str) -> tuple[Term, int]:
    """An i64 whose lowest bits are ordered as the values are, as numbers without a sign; and how many bits."""
    dtype = value.dtype
    if dtype.is_complex:
        raise DTypeError(f"{text} has dtype {dtype}", "complex numbers have no order", "sort abs(x), x.real or x.imag")
    if dtype.is_float:
        bits = apply("bits", apply("where", apply("eq", value, number(0.0, dtype)), number(0.0, dtype), value))  # -0.0 is 0.0
        lowest, width = (-(1 << 63), 64) if dtype.bits == 64 else (-(1 << 31), 32)
        signed = convert(bits, dt.i64)
        ordered = apply("where", apply("lt", signed, number(0, dt.i64)), apply("invert", signed), apply("bitxor", signed, number(lowest, dt.i64)))
        return apply("where", apply("isnan", value), number(-1, dt.i64), ordered), width
    wide = convert(value, dt.i64)
    if dtype.kind == "i":
        wide = apply("bitxor", wide, number(-(1 << (dtype.bits - 1)), dt.i64))
    return wide, 1 if dtype.kind == "b" else dtype.bits
