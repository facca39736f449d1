"""Sparse arrays whose elements that are not stored have a value other than zero, inside a trace: what functions mean on them.

A filled array is the sparse array `stored` of what it stores, and the number `fill` everywhere else, which is known while tracing. What
works element by element works on both, so that the pattern stays:

    exp(A)         stored: exp(a) within A(i, j)                              fill: exp(fill)
    A > -1         stored: a > -1 within A(i, j)                              fill: fill > -1
    A + B          stored: where(A stores, a, fill of A) + where(B stores, b, fill of B) within A | B
    minimum(A, D)  D dense: within A if the fill annihilates (-inf), where every other element is -inf too; else dense

Reductions take the fill as often as a fibre has gaps. A product over a semiring wants the fill to be the identity of its addition, as what is
not stored is there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from polyai.errors import DTypeError, TraceError, UnsupportedError
from polyai.frontend import protocol
from polyai.frontend.composites.operators import give_operators
from polyai.frontend.core import Array, Composite, Tracer, find_tracer, normalized_axes
from polyai.frontend.spec import as_dtype
from polyai.frontend.surface import elementwise as ew
from polyai.frontend.surface import linalg, merging, reductions, shaping, sparse
from polyai.frontend.surface.pointwise import places, pointwise, pointwise_stored, stored_densely, toarray
from polyai.frontend.surface.semiring import Semiring
from polyai.frontend.term import Term, apply, convert, number
from polyai.scalar import dtype as dt
from polyai.scalar.dtype import DType
from polyai.scalar.interp import evaluate
from polyai.scalar.ops import MONOIDS
from polyai.tensor import nodes as tn

Function = Callable[..., Any]
Number = bool | int | float | complex


class FilledArray(Composite):
    """A sparse array of the program being traced that has the value `fill` wherever `stored` stores nothing."""

    __slots__ = ("fill", "stored")

    def __init__(self, stored: Array, fill: Number) -> None:
        self.stored, self.fill = stored, fill

    @property
    def tracer(self) -> Tracer:
        return self.stored.tracer

    @property
    def shape(self) -> tuple[Any, ...]:
        return tuple(map(self.tracer.sizes.value, self.stored.extents))

    @property
    def ndim(self) -> int:
        return self.stored.rank

    @property
    def dtype(self) -> Any:
        """The NumPy dtype."""
        return dt.to_numpy(self.stored.type.dtype)

    @property
    def fill_value(self) -> Any:
        """What is not stored, a NumPy scalar of the array's type."""
        return np.asarray(self.fill).astype(self.dtype)[()]

    @property
    def nnz(self) -> Any:
        """The number of stored elements."""
        return sparse.nnz_of(self.stored)

    def __repr__(self) -> str:
        return f"<{self.stored!r}, elsewhere {self.fill}>"

    def __bool__(self) -> bool:
        raise TraceError("bool() of a sparse array while tracing", "its values are known only when the kernel runs", "use where(condition, a, b)")

    def __hash__(self) -> int:
        return id(self)

    def __len__(self) -> int:
        return int(self.shape[0])

    def __iter__(self) -> Any:
        raise TraceError("iteration over a sparse array while tracing", "what its rows store is known only when the kernel runs", "iterate outside")

    def __getitem__(self, key: Any) -> Any:
        raise _no_meaning("indexing")

    def toarray(self) -> Any:
        """The dense array with the same elements."""
        values, there = stored_densely(self.stored)
        fill = _fill_of(self)
        return pointwise("toarray", lambda v, t: apply("where", t, v, fill), values, there)

    todense = toarray

    @property
    def T(self) -> FilledArray:
        return call(shaping.permute_dims, (self, tuple(range(self.ndim))[::-1]), {})  # type: ignore[no-any-return]

    def transpose(self, *axes: Any) -> Any:
        order = axes[0] if len(axes) == 1 and isinstance(axes[0], (tuple, list)) else axes or tuple(range(self.ndim))[::-1]
        return call(shaping.permute_dims, (self, tuple(order)), {})

    def astype(self, dtype: Any, copy: bool = True) -> Any:
        return call(ew.astype, (self, dtype), {})

    # -- NumPy's protocols

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        ours = protocol.UFUNCS.get(ufunc.__name__)
        if method != "__call__" or ours is None or any(v is not None for v in options.values()):
            raise _no_meaning(f"np.{ufunc.__name__}")
        return call(ours, inputs, {})

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        ours = protocol.FUNCTIONS.get(function.__name__)
        if ours is None:
            raise _no_meaning(f"np.{function.__name__}")
        return call(ours, args, kwargs)

    # -- methods

    def sum(self, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Any:
        return _sum(self, axis, dtype, keepdims)

    def mean(self, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Any:
        return _mean(self, axis, dtype, keepdims)

    def prod(self, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Any:
        return _prod(self, axis, dtype, keepdims)

    def max(self, axis: Any = None, keepdims: bool = False) -> Any:
        return _max(self, axis, keepdims)

    def min(self, axis: Any = None, keepdims: bool = False) -> Any:
        return _min(self, axis, keepdims)

    def any(self, axis: Any = None, keepdims: bool = False) -> Any:
        return _any(self, axis, keepdims)

    def all(self, axis: Any = None, keepdims: bool = False) -> Any:
        return _all(self, axis, keepdims)


def filled(x: Any, fill_value: Any) -> Any:
    """The sparse array `x` with `fill_value` wherever it stores nothing; what it stores stays, zeros too.

    Args:
        x: A sparse array of any rank and format; a filled one gets another fill value.
        fill_value: A number that the type of `x` holds, known before the call.

    Element-wise functions keep the pattern: `exp(filled(A, 0))` stores exp of what A stores, and is 1 elsewhere. A result is a `SparseArray`
    with that `fill_value`; with 0, an array as `x`. Raises DTypeError for a number that the type of `x` does not hold, TraceError for
    one that is traced.
    """
    if isinstance(x, FilledArray):
        x = x.stored
    array = sparse.sparse_only(x, "filled")
    if isinstance(fill_value, (Array, Term, Composite)) or np.ndim(fill_value):
        raise TraceError("the fill value of a sparse array is traced, or no number", "what is computed of it is folded while tracing", "pass a Python number, or mark it static")
    wanted = np.dtype(dt.to_numpy(array.type.dtype))
    with np.errstate(all="ignore"):
        held = np.asarray(fill_value).astype(wanted)[()]
    if np.asarray(fill_value).dtype.kind not in "biufc" or (held != fill_value and fill_value == fill_value and wanted.kind not in "fc"):
        raise DTypeError(f"a fill value {fill_value!r} of an array of {array.type.dtype}", "that type does not hold it", "convert the array: x.astype(...)")
    return FilledArray(array, held.item())


def is_filled(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether a filled array of a trace is among the arguments of a function of the surface."""
    return any(isinstance(a, FilledArray) for a in (*args, *kwargs.values()))


def call(function: Function, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """`function(*args, **kwargs)` where some arguments are filled. Raises UnsupportedError for a function without a meaning there."""
    if not is_filled(args, kwargs):
        return function(*args, **kwargs)
    own = MEANINGS.get(function)
    if own is not None:
        return own(*args, **kwargs)
    if function in STRUCTURAL:
        first, *others = args
        return FilledArray(function(first.stored, *others, **kwargs), first.fill)
    if function.__module__ == ew.__name__:
        return _elementwise(function, args, kwargs)
    raise _no_meaning(function.__name__)


give_operators(FilledArray, call)


def _no_meaning(name: str) -> UnsupportedError:
    return UnsupportedError(f"{name} of a sparse array with a fill value is not compiled", "its pattern would not stay, or not yet", "use x.toarray()")


# -- element by element


def _elementwise(function: Function, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """The function on what is stored, and on the fill values."""
    tracer = find_tracer((*args, *kwargs.values()), function.__name__)
    operands = [_operand(tracer, a) for a in args]
    sparse_ones = [o for o in operands if isinstance(o, FilledArray)]
    fill = _value(function, operands, kwargs)
    if fill is None:
        return function(*(toarray_of(o) for o in operands), **kwargs)
    first = sparse_ones[0]
    patterns = {o.stored.type.pattern for o in sparse_ones}
    if len(patterns) == 1:
        others = [o.stored if isinstance(o, FilledArray) else o for o in operands if isinstance(o, (FilledArray, Array)) and o is not first]

        def at_a_point(one: Term, *rest: Term) -> Any:
            terms = iter(rest)
            found = [one if o is first else next(terms) if isinstance(o, (FilledArray, Array)) else o for o in operands]
            return function(*found, **kwargs)

        return _each(function.__name__, at_a_point, first, others, fill)
    return FilledArray(_on_union(tracer, function, operands, sparse_ones, kwargs), fill)


def _each(name: str, rule: Function, first: FilledArray, others: Sequence[Array], fill: Any) -> Any:
    return FilledArray(pointwise_stored(name, rule, first.stored, *others), fill)


def _fill_of(x: FilledArray) -> Term:
    """The fill value as a term of the trace."""
    value: Any = x.fill
    return Term(number(value, x.stored.type.dtype).body, False, x.tracer)


def _operand(tracer: Tracer, value: Any) -> Any:
    """A filled array for what is sparse, an array for what is dense, a term for a number."""
    if isinstance(value, (FilledArray, Term)):
        return value
    if isinstance(value, (bool, int, float, complex, np.generic)) or not (isinstance(value, (Array, np.ndarray)) or hasattr(value, "shape")):
        return value
    array = tracer.array(value)
    return FilledArray(array, 0) if array.is_sparse else array


def toarray_of(operand: Any) -> Any:
    """An operand with sparse arrays made dense."""
    return operand.toarray() if isinstance(operand, FilledArray) else operand


def _value(function: Function, operands: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """The function of the fill values; None if it depends on a dense operand."""
    given: list[Any] = []
    for o in operands:
        if isinstance(o, FilledArray):
            given.append(_fill_of(o))
        elif isinstance(o, Array):
            other = next(f for f in operands if isinstance(f, FilledArray))
            return other.fill if len(operands) == 2 and _annihilates(function, other) and not _stretches(other.stored, o) else None
        else:
            given.append(o)
    with np.errstate(all="ignore"):
        body = function(*given, **kwargs)
        if isinstance(body, tuple):
            raise _no_meaning(function.__name__)
        return np.asarray(evaluate(body.body, {}, {})).item()


def _stretches(array: Array, other: Array) -> bool:
    """Whether a dense operand is larger than the sparse array."""
    known = array.tracer.sizes.resolve
    return other.rank > array.rank or any(known(a) == 1 and known(b) != 1 for a, b in zip(array.extents[::-1], other.extents[::-1]))


def _annihilates(function: Function, operand: FilledArray) -> bool:
    """Whether the function is the fill value wherever one operand is."""
    fill, dtype = operand.fill, operand.stored.type.dtype
    least, most = (MONOIDS[m].identity(dtype) for m in ("max", "min"))
    rules: dict[Function, Any] = {ew.multiply: 0, ew.minimum: least, ew.maximum: most, ew.logical_and: False, ew.logical_or: True, ew.bitwise_and: 0}
    return function in rules and bool(fill == rules[function])


def _on_union(tracer: Tracer, function: Function, operands: Sequence[Any], filled_ones: Sequence[FilledArray], kwargs: Mapping[str, Any]) -> Array:
    """What the function stores where any operand stores something; where all do whose fill annihilates."""
    parts, order = merging.aligned([f.stored for f in filled_ones])
    there = [pointwise_stored("stored", lambda e: number(True, dt.bool_), p) for p in parts]
    indices = tracer.indices(parts[0].extents)
    for p in parts[1:]:
        for a, b in zip(parts[0].extents, p.extents):
            tracer.sizes.require(a, "==", b, f"{function.__name__}: sparse arrays of different shapes", "sparse operands may not broadcast")
    names = [i.name for i in indices]
    known = {
        id(f): apply("where", tracer.read(t, places(t, indices)), tracer.read(p, places(p, indices)), _fill_of(f)) for f, p, t in zip(filled_ones, parts, there)
    }
    value = function(*(known[id(o)] if isinstance(o, FilledArray) else o for o in operands), **kwargs)
    withins = [tracer.within(p, names) for p in parts]
    needed = [w for f, w in zip(filled_ones, withins) if len(operands) == 2 and _annihilates(function, f)]
    clauses: tuple[tuple[tn.Within, ...], ...] = tuple((w,) for w in dict.fromkeys(needed)) or (tuple(dict.fromkeys(withins)),)
    around = merging.join(tracer, indices, merging.with_readers(clauses, withins), order, merging.bits_of(parts))
    return tracer.emit(function.__name__, indices, value, (around,), tn.Pattern(around.tensor, tuple(range(len(indices)))), parts[0].is_matrix)


# -- reductions


def _gaps(x: FilledArray, axes: tuple[int, ...], keepdims: bool) -> Array:
    """How many elements along `axes` are not stored."""
    ones = pointwise_stored("stored", lambda e: number(1, dt.i64), x.stored)
    held = reductions.fold("count", "add", [ones], axes, keepdims)
    whole = x.tracer.size_term(reductions.count(x.tracer, x.stored, axes))
    return pointwise("gaps", lambda c: whole - c, held)  # type: ignore[no-any-return]


def _combined(x: FilledArray, axis: Any, keepdims: bool, what: str, monoid: str, wanted: DType, element: Function, of_gaps: Function) -> Any:
    """`monoid` of what is stored, and of the fill: `of_gaps(number of gaps)`, where there are some."""
    axes = normalized_axes(axis, x.ndim, what)
    if not axes:
        return x
    prepared = pointwise_stored(what, lambda e: convert(element(e), wanted), x.stored)
    along = reductions.fold(what, monoid, [prepared], axes, keepdims)

    def rule(s: Term, gaps: Term) -> Term:
        return apply("where", apply("gt", gaps, 0), apply(MONOIDS[monoid].op, s, convert(of_gaps(gaps), wanted)), s)

    return pointwise(what, rule, along, _gaps(x, axes, keepdims))


def _sum(x: Any, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Any:
    wanted = reductions._sum_type(x.stored.type.dtype, dtype)
    fill = convert(_fill_of(x), wanted)
    return _combined(x, axis, keepdims, "sum", "add", wanted, lambda e: e, lambda gaps: convert(gaps, wanted) * fill)


def _mean(x: Any, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Any:
    axes = normalized_axes(axis, x.ndim, "mean")
    many = x.tracer.size_term(reductions.count(x.tracer, x.stored, axes))
    return pointwise("mean", lambda s: s / many, _sum(x, axis, dtype, keepdims))


def _prod(x: Any, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Any:
    wanted = reductions._sum_type(x.stored.type.dtype, dtype)
    fill = convert(_fill_of(x), wanted)
    return _combined(x, axis, keepdims, "prod", "mul", wanted, lambda e: e, lambda gaps: apply("pow", fill, convert(gaps, wanted)))


def _max(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    return _combined(x, axis, keepdims, "max", "max", x.stored.type.dtype, lambda e: e, lambda gaps: _fill_of(x))


def _min(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    return _combined(x, axis, keepdims, "min", "min", x.stored.type.dtype, lambda e: e, lambda gaps: _fill_of(x))


def _truth(e: Term) -> Term:
    return e if e.dtype.kind == "b" else apply("ne", e, 0)


def _any(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    return _combined(x, axis, keepdims, "any", "or", dt.bool_, _truth, lambda gaps: number(bool(x.fill), dt.bool_))


def _all(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    return _combined(x, axis, keepdims, "all", "and", dt.bool_, _truth, lambda gaps: number(bool(x.fill), dt.bool_))


# -- products


def _matmul(x1: Any, x2: Any, *, semiring: Semiring | None = None, **options: Any) -> Any:
    """A product over a semiring whose addition has the fill values as identity."""
    given = [a for a in (x1, x2) if isinstance(a, FilledArray)]
    if semiring is None:
        if any(a.fill != 0 for a in given):
            raise UnsupportedError(
                f"matmul of a sparse array filled with {given[0].fill}", "every element of the product would be a sum over what is not stored", "use x.toarray(), or matmul(..., semiring=...)"
            )
        return linalg.matmul(*(a.stored if isinstance(a, FilledArray) else a for a in (x1, x2)), **options)
    add = semiring.addition(given[0].stored.tracer, given[0].stored.type.dtype)
    for a in given:
        identity = MONOIDS[add].identity(a.stored.type.dtype)
        if a.fill != identity:
            raise UnsupportedError(
                f"matmul over ({add}, {semiring.mul}) of a sparse array filled with {a.fill}",
                f"what is not stored is the identity of the addition there, {identity}",
                f"use filled(x, {identity})",
            )
    out = linalg.matmul(*(a.stored if isinstance(a, FilledArray) else a for a in (x1, x2)), semiring=semiring, **options)
    return FilledArray(out, _plain(MONOIDS[add].identity(out.type.dtype))) if out.is_sparse else out


def _plain(value: Any) -> Number:
    return np.asarray(value).item()  # type: ignore[no-any-return]


def _astype(x: Any, dtype: Any, copy: bool = True) -> Any:
    wanted = as_dtype(dtype)
    with np.errstate(all="ignore"):
        fill = np.asarray(x.fill_value).astype(dt.to_numpy(wanted)).item()
    return FilledArray(pointwise_stored("astype", lambda e: convert(e, wanted), x.stored), fill)


def _toarray(x: Any) -> Any:
    return x.toarray() if isinstance(x, FilledArray) else toarray(x)


def _nnz(x: Any) -> Any:
    return x.nnz


STRUCTURAL: tuple[Function, ...] = (shaping.permute_dims,)
MEANINGS: dict[Function, Function] = {
    reductions.sum: _sum, reductions.mean: _mean, reductions.prod: _prod, reductions.max: _max, reductions.min: _min,
    reductions.any: _any, reductions.all: _all, linalg.matmul: _matmul, ew.astype: _astype, sparse.toarray: _toarray, sparse.nnz_of: _nnz, filled: filled,
}  # fmt: skip
"""What functions mean on filled arrays that do not work element by element."""
