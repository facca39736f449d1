"""Rows of different lengths inside a trace: what functions mean on them, in terms of their packed values.

A ragged array x of shape (rows, None, ...) is its values v[t, ...] for all elements t, one row after another, and the level that says
which elements are in which row: `pieces`, sparse of shape (rows, elements), stored where t is in row b. What works element by element
works on v. What runs along a row is restricted to it:

    x.sum(axis=1)       total[b, c] = sum(t) v[t, c]   within pieces(b, t)
    x - y[:, None]      v[t, c] - y[row[t], c]
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from polyai.errors import ShapeError, TraceError, UnsupportedError
from polyai.frontend import protocol
from polyai.frontend.composites.operators import give_operators
from polyai.frontend.composites.ragged_attention import attention
from polyai.frontend.composites.ragged_rows import Rows
from polyai.frontend.core import Array, Composite, Tracer, find_tracer, normalized_axes, normalized_axis
from polyai.frontend.spec import as_dtype
from polyai.frontend.surface import elementwise as ew
from polyai.frontend.surface import indexing, joining, linalg, nn, reductions, shaping
from polyai.frontend.surface.pointwise import pointwise
from polyai.frontend.term import Rule, Term, convert, reduced
from polyai.scalar import dtype as dt
from polyai.scalar.dtype import DType

Function = Callable[..., Any]


class RaggedArray(Composite):
    """A ragged batch of the program being traced: `values` for all elements, and the `rows` they are in."""

    __slots__ = ("rows", "values")

    def __init__(self, values: Array, rows: Rows) -> None:
        self.values, self.rows = values, rows

    @property
    def tracer(self) -> Tracer:
        return self.values.tracer

    @property
    def shape(self) -> tuple[Any, ...]:
        """(rows, None, ...)."""
        value = self.tracer.sizes.value
        return (value(self.rows.count), None, *map(value, self.values.extents[1:]))

    @property
    def ndim(self) -> int:
        return self.values.rank + 1

    @property
    def dtype(self) -> Any:
        """The NumPy dtype."""
        return dt.to_numpy(self.values.type.dtype)

    @property
    def lengths(self) -> Array:
        """The length of each row, an i64 array."""
        return self.rows.lengths

    def with_values(self, values: Any) -> RaggedArray:
        """Rows of the same lengths with other values, an array with one entry for each element."""
        given = self.tracer.array(values)
        if given.is_sparse or not given.rank or not self.tracer.sizes.unify(given.extents[0], self.rows.elements, "with_values"):
            raise ShapeError("with_values needs one value for each element", self.tracer.shape_text(given), "pass an array whose first dimension is that of .values")
        return RaggedArray(given, self.rows)

    def __repr__(self) -> str:
        return f"<ragged {self.values!r}>"

    def __bool__(self) -> bool:
        raise TraceError("bool() of a ragged array while tracing", "its values are known only when the kernel runs", "use where(condition, a, b)")

    def __len__(self) -> int:
        return int(self.shape[0])

    def __iter__(self) -> Any:
        raise TraceError("iteration over a ragged array while tracing", "how many rows there are is known only when the kernel runs", "iterate outside")

    def __hash__(self) -> int:
        return id(self)

    def __getitem__(self, key: Any) -> RaggedArray:
        """`x[:, :, k]` and `x[..., k]`: selections behind the ragged dimension."""
        parts = key if isinstance(key, tuple) else (key,)
        whole = slice(None)
        if parts and parts[0] is Ellipsis:
            return self.with_values(indexing.getitem(self.values, parts))
        if len(parts) < 2 or any(not isinstance(p, slice) or p != whole for p in parts[:2]):
            raise UnsupportedError(
                f"selecting from rows of {self.tracer.text(self.values)}", "the first two dimensions of a ragged array are kept whole", "write x[:, :, k], or use .values"
            )
        return self.with_values(indexing.getitem(self.values, (whole, *parts[2:])))

    # -- NumPy's protocols

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        ours = protocol.UFUNCS.get(ufunc.__name__)
        more = {k: v for k, v in options.items() if v is not None}
        if method != "__call__" or ours is None or more:
            raise UnsupportedError(f"np.{ufunc.__name__} of a ragged array", "", "use its values, x.with_values(np.function(x.values))")
        return call(ours, inputs, {})

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        ours = protocol.FUNCTIONS.get(function.__name__)
        if ours is None:
            raise UnsupportedError(f"np.{function.__name__} of a ragged array", "", "use its values, x.with_values(np.function(x.values))")
        return call(ours, args, kwargs)

    # -- methods

    def astype(self, dtype: Any, copy: bool = True) -> Any:
        return call(ew.astype, (self, dtype), {})

    def reshape(self, *shape: Any) -> RaggedArray:
        """`x.reshape(*x.shape[:2], 4, 16)`: what follows the ragged dimension in another shape."""
        wanted = shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
        if len(wanted) < 2 or wanted[1] is not None:
            raise ShapeError(f"reshape of a ragged array to {tuple(wanted)}", "its first two dimensions stay", "write x.reshape(*x.shape[:2], ...)")
        self.tracer.sizes.require(_size(self.tracer, wanted[0]), "==", self.rows.count, "reshape keeps the rows of a ragged array")
        elements = self.tracer.sizes.value(self.rows.elements)
        return self.with_values(shaping.reshape(self.values, (elements, *wanted[2:])))

    def sum(self, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Any:
        return _sum(self, axis, dtype, keepdims)

    def mean(self, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Any:
        return _mean(self, axis, dtype, keepdims)

    def max(self, axis: Any = None, keepdims: bool = False) -> Any:
        return _max(self, axis, keepdims)

    def min(self, axis: Any = None, keepdims: bool = False) -> Any:
        return _min(self, axis, keepdims)

    def prod(self, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Any:
        return _prod(self, axis, dtype, keepdims)

    def var(self, axis: Any = None, dtype: Any = None, ddof: Any = 0, keepdims: bool = False) -> Any:
        return _var(self, axis, dtype, ddof, keepdims)

    def std(self, axis: Any = None, dtype: Any = None, ddof: Any = 0, keepdims: bool = False) -> Any:
        return call(ew.sqrt, (_var(self, axis, dtype, ddof, keepdims),), {})

    def any(self, axis: Any = None, keepdims: bool = False) -> Any:
        return _any(self, axis, keepdims)

    def all(self, axis: Any = None, keepdims: bool = False) -> Any:
        return _all(self, axis, keepdims)


def _size(tracer: Tracer, value: Any) -> Any:
    return getattr(value, "size", value)


# -- what functions mean


def is_ragged(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether a ragged array of a trace is among the arguments of a function of the surface, or in a list among them."""
    found = (*args, *kwargs.values())
    return any(isinstance(a, RaggedArray) or (isinstance(a, (list, tuple)) and any(isinstance(x, RaggedArray) for x in a)) for a in found)


def call(function: Function, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """`function(*args, **kwargs)` where some arguments are ragged. Raises UnsupportedError for a function without a meaning there."""
    if not is_ragged(args, kwargs):
        return function(*args, **kwargs)
    own = MEANINGS.get(function)
    if own is not None:
        return own(*args, **kwargs)
    if function.__module__ == ew.__name__:
        return _elementwise(function, args, kwargs)
    name = function.__name__
    raise UnsupportedError(f"{name} of a ragged array is not compiled", "it has no meaning row by row, or not yet", f"x.with_values({name}(x.values)) works on all elements at once")


give_operators(RaggedArray, call)


def _elementwise(function: Function, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """The function on packed values. Dense operands broadcast behind the ragged dimension, or hold one entry for each row."""
    first = _first((*args, *kwargs.values()))
    for other in (*args, *kwargs.values()):
        if isinstance(other, RaggedArray):
            first.rows.alike(other.rows, function.__name__)
            if other.values.rank != first.values.rank:
                raise ShapeError(
                    f"{function.__name__}: ragged arrays with {first.ndim} and {other.ndim} dimensions",
                    first.tracer.shapes_text((first.values, other.values)),
                    "give the smaller one more: x[..., None]",
                )
    out = function(*(packed(first, a, function.__name__) for a in args), **{k: packed(first, a, function.__name__) for k, a in kwargs.items()})
    return tuple(first.with_values(o) for o in out) if isinstance(out, tuple) else first.with_values(out)


def _first(values: Sequence[Any]) -> RaggedArray:
    return next(a for a in values if isinstance(a, RaggedArray))


def packed(like: RaggedArray, value: Any, what: str) -> Any:
    """An operand beside the values of `like`: one entry for each row goes to all of its elements."""
    if isinstance(value, RaggedArray):
        return value.values
    if not isinstance(value, (Array, np.ndarray)):
        return value
    array = like.tracer.array(value)
    if array.is_sparse:
        raise UnsupportedError(f"{what} of a ragged and a sparse array", like.tracer.shape_text(array), "use the values of the ragged one")
    if array.rank < like.values.rank:
        return array
    if array.rank != like.ndim:
        raise ShapeError(
            f"{what}: {like.tracer.text(array)} has {array.rank} dimensions beside a ragged array with {like.ndim}",
            like.tracer.shapes_text((array,)),
            "one entry for each row is y[:, None], one for each element x.with_values(y)",
        )
    return _spread(like, array, what)


def _spread(like: RaggedArray, array: Array, what: str) -> Array:
    """`array` of shape (rows or 1, 1, ...) at every element."""
    tracer, sizes = like.tracer, like.tracer.sizes
    if not sizes.unify(array.extents[1], 1, f"{what}: one entry for each row"):
        raise ShapeError(
            f"{what}: {tracer.text(array)} has {sizes.described(array.extents[1])} in the ragged dimension", tracer.shape_text(array), "it has 1 there: one entry for each row"
        )
    single = sizes.resolve(array.extents[0]) == 1
    if not single and not sizes.unify(array.extents[0], like.rows.count, f"{what}: one entry for each row"):
        raise ShapeError(
            f"{what}: {tracer.text(array)} has {sizes.described(array.extents[0])} rows, the ragged array {sizes.described(like.rows.count)}",
            tracer.shape_text(array),
            "pass one entry for each row",
        )
    t, *rest = tracer.indices((like.rows.elements, *array.extents[2:]))
    return tracer.emit("spread", (t, *rest), tracer.read(array, (0 if single else like.rows.of(t), 0, *rest)))


# -- reductions


def _axes(x: RaggedArray, axis: Any, what: str) -> tuple[int, ...]:
    axes = normalized_axes(axis, x.ndim, what)
    if 0 in axes and 1 not in axes:
        raise UnsupportedError(f"{what} of a ragged array over its rows", "they have different lengths", "reduce along axis=1 first, or over all axes")
    return axes


def segments(x: RaggedArray, stem: str, monoid: str, wanted: DType, prepare: Rule, keepdims: bool = True) -> Array:
    """`monoid` along each row: one step. Rows without elements give the monoid's identity."""
    tracer = x.tracer
    b, *rest = tracer.indices((x.rows.count, *x.values.extents[1:]))
    t = tracer.index(x.rows.elements, "t")
    value = reduced(monoid, (t,), convert(prepare(tracer.read(x.values, (t, *rest))), wanted), (x.rows.within(b, t),))
    kept = (b, tracer.index(1, "u"), *rest) if keepdims else (b, *rest)
    return tracer.emit(stem, kept, value, strong=True)


def _reduced(x: RaggedArray, axis: Any, keepdims: bool, what: str, monoid: str, wanted: DType, prepare: Rule, dense: Function) -> Any:
    """A reduction whose parts combine: `dense(array, axes, keepdims)` is the same of a dense array."""
    axes = _axes(x, axis, what)
    if 1 not in axes:
        return x.with_values(dense(x.values, tuple(a - 1 for a in axes), keepdims)) if axes else x
    if 0 in axes:
        out = dense(x.values, tuple(a - 1 for a in axes if a), False)
        kept = [] if not keepdims else [1 if d in axes else e for d, e in enumerate((1, 1, *x.values.extents[1:]))]
        return shaping.reshape(out, tuple(map(x.tracer.sizes.value, kept))) if keepdims else out
    rest = tuple(a if keepdims else a - 1 for a in axes if a > 1)
    along = segments(x, what, monoid, wanted, prepare, keepdims)
    return dense(along, rest, keepdims) if rest else along


def _same(e: Term) -> Term:
    return e


def _truth(e: Term) -> Term:
    return e if e.dtype.kind == "b" else e != 0


def _sum(x: Any, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Any:
    wanted = reductions._sum_type(x.values.type.dtype, dtype)
    return _reduced(x, axis, keepdims, "sum", "add", wanted, _same, lambda a, axes, keep: reductions.sum(a, axes, dtype, keep))


def _prod(x: Any, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Any:
    wanted = reductions._sum_type(x.values.type.dtype, dtype)
    return _reduced(x, axis, keepdims, "prod", "mul", wanted, _same, lambda a, axes, keep: reductions.prod(a, axes, dtype, keep))


def _max(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    return _reduced(x, axis, keepdims, "max", "max", x.values.type.dtype, _same, reductions.max)


def _min(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    return _reduced(x, axis, keepdims, "min", "min", x.values.type.dtype, _same, reductions.min)


def _any(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    return _reduced(x, axis, keepdims, "any", "or", dt.bool_, _truth, reductions.any)


def _all(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    return _reduced(x, axis, keepdims, "all", "and", dt.bool_, _truth, reductions.all)


def _mean(x: Any, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Any:
    axes = _axes(x, axis, "mean")
    if 1 not in axes or 0 in axes:
        return _reduced(x, axis, keepdims, "mean", "add", dt.f64, _same, lambda a, rest, keep: reductions.mean(a, rest, dtype, keep))
    wanted = as_dtype(dtype) if dtype is not None else reductions._floating(x.values.type.dtype)
    total = _sum(x, axis, dt.compute_type(wanted), True)
    out = _averaged(x, total, axes, 0, "mean")
    out = ew.astype(out, wanted)
    return out if keepdims else reductions.drop_axes(out, axes)


def _averaged(x: RaggedArray, total: Array, axes: tuple[int, ...], less: Any, what: str) -> Array:
    """`total` of shape (rows, 1, ...) over the number of elements that went into it."""
    tracer, each = x.tracer, tracer_size(x, axes)
    point = tracer.indices(total.extents)
    number = tracer.read(x.rows.lengths, (point[0],)) * each - less
    number = convert(number, total.type.dtype)
    return tracer.emit(what, point, tracer.read(total, point) / number, strong=True)


def tracer_size(x: RaggedArray, axes: tuple[int, ...]) -> Term:
    """How many values a reduction over `axes` takes from each element."""
    out: Any = 1
    for a in axes:
        out = out * x.values.extents[a - 1] if a > 1 else out
    return x.tracer.size_term(out)


def _var(x: Any, axis: Any = None, dtype: Any = None, ddof: Any = 0, keepdims: bool = False, *, correction: Any = None) -> Any:
    axes, less = _axes(x, axis, "var"), ddof if correction is None else correction
    if 1 not in axes or 0 in axes:
        return _reduced(x, axis, keepdims, "var", "add", dt.f64, _same, lambda a, rest, keep: reductions.var(a, rest, dtype, less, keep))
    wanted = as_dtype(dtype) if dtype is not None else reductions._floating(x.values.type.dtype)
    away = call(ew.subtract, (x, _mean(x, axis, dt.compute_type(wanted), True)), {})
    out = ew.astype(_averaged(x, _sum(call(ew.square, (away,), {}), axis, None, True), axes, less, "var"), wanted)
    return out if keepdims else reductions.drop_axes(out, axes)


def _std(x: Any, axis: Any = None, dtype: Any = None, ddof: Any = 0, keepdims: bool = False, *, correction: Any = None) -> Any:
    return call(ew.sqrt, (_var(x, axis, dtype, ddof, keepdims, correction=correction),), {})


# -- building blocks of networks


def _inner_axis(x: RaggedArray, axis: Any, what: str) -> int:
    along = normalized_axis(axis, x.ndim, what)
    if along < 2:
        raise UnsupportedError(f"{what} of a ragged array along axis {along}", "compiled are axes behind the ragged one", "use axis=-1")
    return along - 1


def _softmax(x: Any, axis: Any = -1) -> Any:
    return _normalized(x, axis, nn.softmax, lambda e, total: e / total)


def _log_softmax(x: Any, axis: Any = -1) -> Any:
    return _normalized(x, axis, nn.log_softmax, None)


def _normalized(x: RaggedArray, axis: Any, function: Function, finish: Rule | None) -> RaggedArray:
    """softmax, or its logarithm without `finish`."""
    along = normalized_axis(axis, x.ndim, function.__name__)
    if along > 1:
        return x.with_values(function(x.values, along - 1))
    if along == 0:
        raise UnsupportedError(f"{function.__name__} of a ragged array over its rows", "they have different lengths", "use axis=1")
    a = x if x.values.type.dtype.is_float else x.with_values(ew.astype(x.values, dt.f64))
    held = a.values.type.dtype
    peak = _spread(a, segments(a, "peak", "max", held, _same), "softmax")
    moved = pointwise("moved", lambda e, m: e - m, a.values, peak)
    weights = x.with_values(ew.exp(moved))
    total = _spread(a, segments(weights, "total", "add", held, _same), "softmax")
    if finish is None:
        return x.with_values(ew.subtract(moved, ew.log(total)))
    return x.with_values(pointwise("softmax", finish, weights.values, total))


def _normalizing(function: Function) -> Function:
    def meaning(x: Any, *args: Any, axis: Any = -1, **kwargs: Any) -> Any:
        if not isinstance(x, RaggedArray):
            raise UnsupportedError(f"{function.__name__} of a dense array with ragged parameters", "", "weights and biases are dense")
        return x.with_values(function(x.values, *args, axis=_inner_axis(x, axis, function.__name__), **kwargs))

    return meaning


def _linear(x: Any, weight: Any, bias: Any = None) -> Any:
    if not isinstance(x, RaggedArray) or isinstance(weight, RaggedArray) or isinstance(bias, RaggedArray):
        raise UnsupportedError("linear with ragged weights", "", "weights and biases are dense")
    if x.ndim < 3:
        raise ShapeError("linear of a ragged array with 2 dimensions", x.tracer.shape_text(x.values), "its last dimension is that of the features")
    return x.with_values(nn.linear(x.values, weight, bias))


def _matmul(x1: Any, x2: Any, **kwargs: Any) -> Any:
    if kwargs:
        raise UnsupportedError(f"matmul of ragged arrays with {', '.join(kwargs)}", "", "use the values")
    if isinstance(x1, RaggedArray) and not isinstance(x2, RaggedArray):
        other = x1.tracer.array(x2)
        if x1.ndim < 3 or other.rank not in (1, 2):
            raise ShapeError(
                f"matmul of a ragged array with {x1.ndim} dimensions and an array with {other.rank}",
                x1.tracer.shapes_text((x1.values, other)),
                "the ragged one is (rows, None, ..., k), the other (k,) or (k, m)",
            )
        return x1.with_values(linalg.matmul(x1.values, other))
    if isinstance(x2, RaggedArray) and not isinstance(x1, RaggedArray):
        other = x2.tracer.array(x1)
        if other.is_sparse and other.rank == 2 and x2.values.rank <= 2:
            x2.tracer.sizes.require(other.extents[0], "==", x2.rows.elements, "a sparse matrix times a ragged array has a row for each element")
            return x2.with_values(linalg.matmul(other, x2.values))
    raise UnsupportedError(
        "matmul with a ragged array on the right, or on both sides", "compiled are x @ W, and A @ x with a sparse A of shape (elements, elements)", "use attention, or the values"
    )


def _embedding(table: Any, ids: Any) -> Any:
    if not isinstance(ids, RaggedArray) or isinstance(table, RaggedArray):
        raise UnsupportedError("embedding with a ragged table", "", "the table is dense, the ids may be ragged")
    return ids.with_values(indexing.embedding(table, ids.values))


def _concat(arrays: Any, axis: Any = 0) -> Any:
    first = _first(tuple(arrays))
    parts = [a if isinstance(a, RaggedArray) else first.with_values(a) for a in arrays]
    for p in parts:
        first.rows.alike(p.rows, "concat")
    return first.with_values(joining.concat([p.values for p in parts], _inner_axis(first, axis, "concat")))


def _expand_dims(x: Any, axis: Any = -1) -> Any:
    at = normalized_axis(axis, x.ndim + 1, "expand_dims")
    if at < 2:
        raise UnsupportedError("expand_dims of a ragged array before its ragged dimension", "", "use axis=-1")
    return x.with_values(shaping.expand_dims(x.values, at - 1))


def _attention(q: Any, k: Any, v: Any, mask: Any = None, causal: bool = False, scale: float | None = None) -> Any:
    if not all(isinstance(a, RaggedArray) for a in (q, k, v)):
        find_tracer((q, k, v), "attention")
        raise ShapeError("attention of ragged and dense operands", "each row attends to its own row", "make all of q, k, v ragged")
    if mask is not None:
        raise UnsupportedError("attention of ragged operands with a mask", "rows see their own elements, and with causal=True earlier ones", "leave the mask away")
    k.rows.alike(v.rows, "attention: k and v")
    return q.with_values(attention(q.values, k.values, v.values, q.rows, k.rows, bool(causal), scale))


def _reshape(x: Any, *shape: Any) -> Any:
    return x.reshape(*shape)


MEANINGS: dict[Function, Function] = {
    reductions.sum: _sum, reductions.prod: _prod, reductions.max: _max, reductions.min: _min, reductions.mean: _mean,
    reductions.var: _var, reductions.std: _std, reductions.any: _any, reductions.all: _all,
    nn.softmax: _softmax, nn.log_softmax: _log_softmax, nn.layer_norm: _normalizing(nn.layer_norm), nn.rms_norm: _normalizing(nn.rms_norm),
    nn.linear: _linear, nn.attention: _attention, linalg.matmul: _matmul, indexing.embedding: _embedding, joining.concat: _concat,
    shaping.expand_dims: _expand_dims, shaping.reshape: _reshape,
}  # fmt: skip
"""What a function of the surface means on ragged arrays, where that is not what it means on their values."""
