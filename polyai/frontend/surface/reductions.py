"""Reductions over axes, and running ones along an axis. On sparse arrays implicit zeros take part, as in SciPy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from polyai.errors import DTypeError, ShapeError
from polyai.frontend.core import Array, Tracer, dense, find_tracer, index_term, normalized_axes, normalized_axis
from polyai.frontend.spec import as_dtype
from polyai.frontend.surface import merging, notation
from polyai.frontend.surface.assembling import first_gap, matrices_only
from polyai.frontend.surface.elementwise import absolute, astype, divide, multiply, sqrt, subtract
from polyai.frontend.surface.pointwise import places, pointwise
from polyai.frontend.term import Rule, Term, apply, convert, number, reduced
from polyai.scalar import dtype as dt
from polyai.scalar.dtype import DType
from polyai.scalar.expr import Const, Expr, Load
from polyai.scalar.ops import MONOIDS
from polyai.shapes.expr import Size
from polyai.tensor import nodes as tn


def _same(x: Term) -> Term:
    return x


def fold(
    stem: str, monoid: str, arrays: Sequence[Array], axes: tuple[int, ...], keepdims: bool = False, prepare: Rule = _same, finish: Rule = _same
) -> Array:
    """One step: `finish(monoid over axes of prepare(elements of the arrays))`; the arrays broadcast to the first one."""
    tracer = arrays[0].tracer
    if monoid == "add":  # where stored zeros count for nothing
        arrays = [tracer.alike.get(a.name, a) for a in arrays]
    first = arrays[0]
    extents = first.extents
    point: list[tn.Index] = []
    kept: list[tn.Index] = []
    for d, i in enumerate(tracer.indices(extents)):
        point.append(i)
        if d not in axes:
            kept.append(i)
        elif keepdims:
            kept.append(tracer.index(1, "u"))
    over = tuple(point[a] for a in axes)
    within: tuple[tn.Within, ...] = ()
    if first.is_sparse:
        within = (tracer.within(first, [i.name for i in point]),)
    element = prepare(*(tracer.read(a, point if a is first else places(a, point)) for a in arrays))
    if within and not over:
        return dense(first, stem)
    return tracer.emit(stem, kept, finish(reduced(monoid, over, element, within)), strong=True)


def _given(x: Any, what: str) -> Array:
    return find_tracer((x,), what).array(x)


def _sum_type(dtype: DType, wanted: Any) -> DType:
    if wanted is not None:
        return as_dtype(wanted)
    if dtype.kind in "bi":
        return dt.i64
    return dt.u64 if dtype.kind == "u" else dtype


def count(tracer: Tracer, array: Array, axes: tuple[int, ...]) -> Size:
    """The number of elements that a reduction over `axes` combines."""
    out: Size = 1
    for a in axes:
        out = out * array.extents[a]
    return out


def sum(x: Any, axis: Any = None, dtype: Any = None, keepdims: bool = False, *, within: Any = None) -> Any:
    """The sum over `axis` (None: all). Small integers are summed as i64, f16 and bf16 in f32. In index notation `sum(k, body)`."""
    if notation.is_reduction(x):
        return notation.reduction("add", x, axis, within)
    a = _given(x, "sum")
    wanted = _sum_type(a.type.dtype, dtype)
    axes = normalized_axes(axis, a.rank, "sum")
    if a.is_matrix and axis is not None:
        keepdims = True
    return fold("sum", "add", [a], axes, keepdims, lambda e: convert(e, wanted))


def prod(x: Any, axis: Any = None, dtype: Any = None, keepdims: bool = False, *, within: Any = None) -> Any:
    """The product over `axis`; dense arrays only."""
    if notation.is_reduction(x):
        return notation.reduction("mul", x, axis, within)
    a = dense(_given(x, "prod"), "prod")
    wanted = _sum_type(a.type.dtype, dtype)
    return fold("prod", "mul", [a], normalized_axes(axis, a.rank, "prod"), keepdims, lambda e: convert(e, wanted))


def max(x: Any, axis: Any = None, keepdims: bool = False, *, within: Any = None) -> Any:
    """The largest element over `axis`; NaN if there is one. Raises ShapeError for an empty axis."""
    return notation.reduction("max", x, axis, within) if notation.is_reduction(x) else _extreme("max", x, axis, keepdims)


def min(x: Any, axis: Any = None, keepdims: bool = False, *, within: Any = None) -> Any:
    """The smallest element over `axis`; NaN if there is one. Raises ShapeError for an empty axis."""
    return notation.reduction("min", x, axis, within) if notation.is_reduction(x) else _extreme("min", x, axis, keepdims)


def _extreme(monoid: str, x: Any, axis: Any, keepdims: bool) -> Array:
    a = _given(x, monoid)
    if a.type.dtype.is_complex:
        raise DTypeError(f"{monoid} of {a.type.dtype}", "complex numbers have no order", "take abs(), real or imag first")
    axes = normalized_axes(axis, a.rank, monoid)
    not_empty(a, axes, monoid)
    if a.type.dtype.kind == "b":
        keepdims = keepdims or (a.is_matrix and axis is not None)
        return fold(monoid, "or", [a], axes, keepdims) if monoid == "max" else _all(a, axes, keepdims, monoid)
    if not a.is_sparse:
        return fold(monoid, monoid, [a], axes, keepdims)
    keepdims = keepdims or (a.is_matrix and axis is not None)
    stored = fold(f"stored_{monoid}", monoid, [a], axes, keepdims)
    found = fold("count", "add", [a], axes, keepdims, lambda e: _one())
    total = _elements(a, axes)
    rule: Rule = lambda best, n: apply("where", n < total, apply(monoid, best, 0), best)  # noqa: E731
    return cast(Array, pointwise(monoid, rule, stored, found))


def _one() -> Term:
    return number(1, dt.i64)


def not_empty(array: Array, axes: tuple[int, ...], what: str) -> None:
    """Raise ShapeError if a reduction without identity runs over nothing; that it does not is guarded."""
    tracer = array.tracer
    for a in axes:
        if not tracer.sizes.holds(array.extents[a], ">=", 1, f"{what} over it"):
            raise ShapeError(f"{what} over axis {a}, which is empty", tracer.shape_text(array), "it has no value for no elements")


def mean(x: Any, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Any:
    """The arithmetic mean over `axis`; of integers and booleans in f64, of f16 and bf16 accumulated in f32."""
    a = _given(x, "mean")
    axes = normalized_axes(axis, a.rank, "mean")
    wanted = as_dtype(dtype) if dtype is not None else _floating(a.type.dtype)
    held = dt.compute_type(wanted)
    total = _elements(a, axes)
    if a.is_matrix and axis is not None:
        keepdims = True
    return fold("mean", "add", [a], axes, keepdims, lambda e: convert(e, held), lambda s: convert(s / total, wanted))


def _elements(a: Array, axes: tuple[int, ...]) -> Term:
    """The number of elements over `axes`, a weak number. Those of a sparse array may be more than i64 can count: a float."""
    if not a.is_sparse or len(axes) < 2:
        return a.tracer.size_term(count(a.tracer, a, axes))
    out = convert(a.tracer.size_term(a.extents[axes[0]]), dt.f64)
    for d in axes[1:]:
        out = out * convert(a.tracer.size_term(a.extents[d]), dt.f64)
    return Term(out.body, True, a.tracer)


def _floating(dtype: DType) -> DType:
    return dtype if dtype.is_float or dtype.is_complex else dt.f64


def var(x: Any, axis: Any = None, dtype: Any = None, ddof: Any = 0, keepdims: bool = False, *, correction: Any = None) -> Any:
    """The variance over `axis`, from squared distances to the mean; divided by count - ddof."""
    a = dense(_given(x, "var"), "var")
    axes = normalized_axes(axis, a.rank, "var")
    wanted = as_dtype(dtype) if dtype is not None else _floating(a.type.dtype)
    held = dt.compute_type(wanted)
    centre = mean(a, axes, held, keepdims=True)
    total = a.tracer.size_term(count(a.tracer, a, axes)) - (ddof if correction is None else correction)
    limit = apply("max", total, 0) if (ddof if correction is None else correction) else total

    def distance(e: Term, m: Term) -> Term:
        d = convert(e, held) - m
        return apply("square", abs(d)) if held.is_complex else apply("square", d)

    real = dt.real_of(wanted)
    return fold("var", "add", [a, centre], axes, keepdims, distance, lambda s: convert(s / limit, real))


def std(x: Any, axis: Any = None, dtype: Any = None, ddof: Any = 0, keepdims: bool = False, *, correction: Any = None) -> Any:
    """The square root of `var`."""
    return sqrt(var(x, axis, dtype, ddof, keepdims, correction=correction))


def any(x: Any, axis: Any = None, keepdims: bool = False, *, within: Any = None) -> Any:
    """Whether one element at least is not zero."""
    if notation.is_reduction(x):
        return notation.reduction("or", x, axis, within)
    a = _given(x, "any")
    return fold("any", "or", [a], normalized_axes(axis, a.rank, "any"), keepdims, lambda e: e if e.dtype.kind == "b" else e != 0)


def all(x: Any, axis: Any = None, keepdims: bool = False, *, within: Any = None) -> Any:
    """Whether no element is zero."""
    if notation.is_reduction(x):
        return notation.reduction("and", x, axis, within)
    a = _given(x, "all")
    return _all(a, normalized_axes(axis, a.rank, "all"), keepdims, "all")


def _all(a: Array, axes: tuple[int, ...], keepdims: bool, stem: str) -> Array:
    """Whether no element is zero; of a sparse array, whether as many are stored and not zero as there are."""
    truth: Rule = lambda e: e if e.dtype.kind == "b" else e != 0  # noqa: E731
    if not a.is_sparse:
        return fold(stem, "and", [a], axes, keepdims, truth)
    total = _elements(a, axes)
    return fold(stem, "add", [a], axes, keepdims, lambda e: convert(truth(e), dt.i64), lambda n: apply("eq", n, total))


def count_nonzero(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """The number of elements that are not zero."""
    a = _given(x, "count_nonzero")
    axes = normalized_axes(axis, a.rank, "count_nonzero")
    return fold("count_nonzero", "add", [a], axes, keepdims, lambda e: convert(e if e.dtype.kind == "b" else e != 0, dt.i64))


def argmax(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """The index of the first largest element (the first NaN, if there is one); of the flattened array without axis."""
    return _position("max", x, axis, keepdims)


def argmin(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """The index of the first smallest element (the first NaN, if there is one); of the flattened array without axis."""
    return _position("min", x, axis, keepdims)


def nanmax(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """The largest element over `axis` that is not NaN; NaN where all are."""
    return _without_nan("max", x, axis, keepdims)


def nanmin(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """The smallest element over `axis` that is not NaN; NaN where all are."""
    return _without_nan("min", x, axis, keepdims)


def _without_nan(monoid: str, x: Any, axis: Any, keepdims: bool) -> Any:
    a = _given(x, f"nan{monoid}")
    if not a.type.dtype.is_float:
        return _extreme(monoid, a, axis, keepdims)
    axes = normalized_axes(axis, a.rank, f"nan{monoid}")
    not_empty(a, axes, f"nan{monoid}")
    keepdims = keepdims or (a.is_matrix and axis is not None)
    nothing = number(MONOIDS[monoid].identity(a.type.dtype), a.type.dtype)
    best = fold(f"stored_{monoid}", monoid, [a], axes, keepdims, lambda e: apply("where", apply("isnan", e), nothing, e))
    bad = fold("count", "add", [a], axes, keepdims, lambda e: convert(apply("isnan", e), dt.i64))
    stored = fold("count", "add", [a], axes, keepdims, lambda e: _one())
    total = _elements(a, axes)

    def rule(b: Term, n: Term, k: Term) -> Term:
        known = apply("where", k < total, apply(monoid, b, 0), b) if a.is_sparse else b
        return apply("where", apply("eq", n, total), number(float("nan"), a.type.dtype), known)

    return pointwise(f"nan{monoid}", rule, best, bad, stored)


def _sparse_position(monoid: str, a: Array, axis: Any) -> Array:
    """The position of an extreme of each row (column, or of all) of a sparse matrix; one that is not stored is where its gap is."""
    tracer = a.tracer
    matrices_only(a, f"arg{monoid}")
    axes = normalized_axes(axis, 2, f"arg{monoid}")
    rows = merging.turned(a) if axes == (0,) else a
    rows = rows if merging.order_of(rows) == (0, 1) else merging.converted(rows, (0, 1))
    best, gap = _extreme(monoid, rows, (1,), False), first_gap(rows)
    i, k = tracer.indices(rows.extents)
    element, wanted = tracer.read(rows, (i, k)), tracer.read(best, (i,))
    found = apply("eq", element, wanted)
    if a.type.dtype.is_float:
        found = found | apply("isnan", element)
    width = convert(tracer.size_term(k.extent), dt.i64)
    candidate = apply("where", found, index_term(k), width)
    hits = tracer.emit("hits", (i,), reduced("min", (k,), candidate, (tracer.within(rows, (i.name, k.name)),)), strong=True)
    place = pointwise(f"arg{monoid}", lambda h, g, b: apply("where", apply("eq", b, 0), apply("min", h, g), h), hits, gap, best)
    if len(axes) == 1:
        return cast(Array, place)
    whole = _extreme(monoid, best, None, False)
    (i,) = tracer.indices(best.extents)
    here = tracer.read(best, (i,))
    same = apply("eq", here, tracer.read(whole, ()))
    if a.type.dtype.is_float:
        same = same | apply("isnan", here)
    at = index_term(i) * tracer.size_term(rows.extents[1]) + tracer.read(place, (i,))
    last = convert(tracer.size_term(rows.extents[0]) * tracer.size_term(rows.extents[1]), dt.i64)
    return tracer.emit(f"arg{monoid}", (), reduced("min", (i,), apply("where", same, at, last)), strong=True)


def _position(monoid: str, x: Any, axis: Any, keepdims: bool) -> Array:
    a = _given(x, f"arg{monoid}")
    if a.is_sparse and a.type.dtype.kind == "b":
        a = cast(Array, astype(a, dt.i8))
    if a.is_sparse:
        flat = _sparse_position(monoid, a.tracer.array_type(a.tracer, a.region, a.name, a.type, a.weak), axis)
        return with_axes(flat, normalized_axes(axis, 2, f"arg{monoid}")) if keepdims or (a.is_matrix and axis is not None) else flat
    a = dense(a, f"arg{monoid}")
    tracer, axes = a.tracer, normalized_axes(axis, a.rank, f"arg{monoid}")
    best = _extreme(monoid, a, axes, True)
    point = tracer.indices(a.extents)
    kept = [tracer.index(1, "u") if d in axes else i for d, i in enumerate(point) if keepdims or d not in axes]
    place = Term(Const(0, dt.i64), weak=True)
    for d in axes:
        here = index_term(point[d])
        place = here if d == axes[0] else place * tracer.size_term(a.extents[d]) + here
    element = tracer.read(a, point)
    found = apply("eq", element, tracer.read(best, places(best, point)))
    if a.type.dtype.is_float:
        found = found | apply("isnan", element)
    candidate = apply("where", found, convert(place, dt.i64), convert(tracer.size_term(count(tracer, a, axes)), dt.i64))
    return tracer.emit(f"arg{monoid}", kept, reduced("min", tuple(point[d] for d in axes), candidate), strong=True)


def logsumexp(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """log(sum(exp(x))) over `axis`, without overflow."""
    a = dense(_given(x, "logsumexp"), "logsumexp")
    a = astype(a, _floating(a.type.dtype))
    axes = normalized_axes(axis, a.rank, "logsumexp")
    peak = pointwise("peak", lambda m: apply("where", apply("isfinite", m), m, 0), fold("max", "max", [a], axes, True))
    total = fold("total", "add", [a, peak], axes, True, lambda e, m: apply("exp", e - m))
    out = pointwise("logsumexp", lambda s, m: apply("log", s) + m, total, peak)
    return out if keepdims else drop_axes(out, axes)


def drop_axes(array: Array, axes: tuple[int, ...]) -> Array:
    """`array` without the axes, whose extent is 1."""
    tracer = array.tracer
    kept = [i for d, i in enumerate(tracer.indices(array.extents)) if d not in axes]
    rest = iter(kept)
    return tracer.emit("squeeze", kept, tracer.read(array, [0 if d in axes else next(rest) for d in range(array.rank)]))


def with_axes(array: Array, axes: tuple[int, ...]) -> Array:
    """`array` with axes of extent 1 at these places of the result."""
    tracer = array.tracer
    own = tracer.indices(array.extents)
    rest = iter(own)
    indices = [tracer.index(1, "u") if d in axes else next(rest) for d in range(array.rank + len(axes))]
    return tracer.emit("expand", indices, tracer.read(array, own))


def norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
    """Vector norms (ord 1, 2, inf, p) over `axis`; without axis the root of the sum of squares. Of sparse arrays: Frobenius."""
    a = _given(x, "norm")
    axes = normalized_axes(axis, a.rank, "norm")
    a = astype(a, _floating(a.type.dtype))
    if ord in (None, 2, "fro") and (ord != 2 or len(axes) == 1):
        squares = fold("norm", "add", [a], axes, keepdims, lambda e: apply("square", abs(e)), lambda s: apply("sqrt", s))
        return squares
    if len(axes) == 2 and ord in (1, -1, float("inf"), float("-inf")):
        along, across = axes if abs(ord) == 1 else axes[::-1]
        lines = sum(absolute(a), along, keepdims=True)
        out = _extreme("max" if ord > 0 else "min", lines, across, True)
        return out if keepdims else drop_axes(out, axes)
    if len(axes) != 1:
        raise DTypeError(f"norm with ord={ord} of a matrix", "other matrix norms than Frobenius, 1 and inf need a decomposition", "choose one axis")
    if ord == 1:
        return sum(absolute(a), axes, keepdims=keepdims)
    if ord in (float("inf"), float("-inf")):
        return _extreme("max" if ord > 0 else "min", absolute(dense(a, "norm")), axes, keepdims)
    powered = sum(pointwise("power", lambda e: apply("pow", abs(e), float(ord)), dense(a, "norm")), axes, keepdims=keepdims)
    return pointwise("norm", lambda s: apply("pow", s, 1.0 / ord), powered)


def _running(stem: str, monoid: str, x: Any, axis: Any, dtype: DType | None, include_initial: bool = False) -> Array:
    a = dense(_given(x, stem), stem)
    tracer = a.tracer
    if axis is None:
        if a.rank != 1:
            raise ShapeError(f"{stem} without axis of an array with {a.rank} dimensions", "", "name the axis, or flatten with reshape(x, -1)")
        axis = 0
    along = normalized_axis(axis, a.rank, stem)
    wanted = dtype or a.type.dtype
    point = tracer.indices([e + 1 if include_initial and d == along else e for d, e in enumerate(a.extents)])
    name = tracer.names.fresh(stem)
    before = [cast(Expr, (index_term(i) - 1).body) if d == along else cast(Expr, index_term(i).body) for d, i in enumerate(point)]
    value = convert(tracer.read(a, before if include_initial else point), wanted)
    identity = number(MONOIDS[monoid].identity(wanted), wanted)
    previous, first = Term(Load(name, tuple(before), wanted)), index_term(point[along]) > 0
    body = apply("where", first, apply(monoid, previous, value), identity) if include_initial else apply(monoid, apply("where", first, previous, identity), value)
    type = tn.TensorType(wanted, tuple(i.extent for i in point))
    return tracer.add_step(tn.Comprehension(name, type, point, body.body))


def cumulative_sum(x: Any, axis: Any = None, dtype: Any = None, include_initial: bool = False) -> Any:
    """The running sum along `axis`, with `include_initial` that of no element first; a recurrence."""
    a = _given(x, "cumulative_sum")
    return _running("cumulative_sum", "add", a, axis, _sum_type(a.type.dtype, dtype), include_initial)


def cumulative_prod(x: Any, axis: Any = None, dtype: Any = None, include_initial: bool = False) -> Any:
    """The running product along `axis`, with `include_initial` that of no element first; a recurrence."""
    a = _given(x, "cumulative_prod")
    return _running("cumulative_prod", "mul", a, axis, _sum_type(a.type.dtype, dtype), include_initial)


def cumulative_max(x: Any, axis: Any = None) -> Any:
    """The running maximum along `axis`; a recurrence."""
    return _running("cumulative_max", "max", x, axis, None)


def cumulative_min(x: Any, axis: Any = None) -> Any:
    """The running minimum along `axis`; a recurrence."""
    return _running("cumulative_min", "min", x, axis, None)


def average(x: Any, axis: Any = None, weights: Any = None, keepdims: bool = False) -> Any:
    """The mean over `axis`, weighted if weights of the same shape, or of the axis' length, are given."""
    if weights is None:
        return mean(x, axis, keepdims=keepdims)
    a = _given(x, "average")
    w = a.tracer.array(weights)
    if w.rank == 1 and a.rank != 1:
        along = normalized_axis(axis, a.rank, "average")
        a.tracer.sizes.require(w.extents[0], "==", a.extents[along], "average needs one weight per element of its axis")
        point = a.tracer.indices(a.extents)
        w = a.tracer.emit("weights", point, a.tracer.read(w, [point[along]]))
    return divide(sum(multiply(a, w), axis, keepdims=keepdims), sum(w, axis, keepdims=keepdims))


def ptp(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """The largest minus the smallest element over `axis`."""
    return subtract(max(x, axis, keepdims), min(x, axis, keepdims))


def nansum(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """The sum over `axis` with NaN counted as zero."""
    return sum(pointwise("zero_nan", lambda e: apply("where", apply("isnan", e), 0, e), x), axis, keepdims=keepdims)
