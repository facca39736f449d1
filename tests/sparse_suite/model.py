"""What an expression over sparse arrays means, in dense NumPy arrays: the oracle of the suite.

A `Model` is a full array of numbers in double precision, the element type that NumPy gives the result, and, for what is
sparse, the set of stored coordinates. The set follows from the operands' sets alone, never from the numbers: sums have
the union, products the intersection, reductions the projection. So a zero that is computed or that was stored stays stored.

Models have the operators and methods of arrays, and the functions below carry PolyAI's names: the same lambda runs on both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = Any


def wide(values: Array) -> Array:
    """Numbers in double precision; booleans stay."""
    a = np.asarray(values)
    return a if a.dtype == bool else a.astype(np.complex128 if a.dtype.kind == "c" else np.float64)


def only(stored: Array, values: Array) -> Array:
    """Zero where nothing is stored."""
    return np.where(stored, values, np.zeros((), values.dtype))


def typed(function: Callable[..., Array], *operands: Any) -> np.dtype[Any]:
    """The element type NumPy gives a function of arrays of these types; Python numbers stay weak."""
    given = [np.ones(1, o.dtype) if isinstance(o, Model) else o for o in operands]
    with np.errstate(all="ignore"):
        return np.asarray(function(*given)).dtype


@dataclass(frozen=True)
class Model:
    """`stored` is None for a dense array."""

    values: Array
    stored: Array | None
    dtype: np.dtype[Any]

    __array_ufunc__ = None

    @classmethod
    def dense(cls, array: Array) -> Model:
        return cls(wide(array), None, np.asarray(array).dtype)

    # -- element by element

    def union(self, function: Callable[..., Array], other: Any, swap: bool = False) -> Model:
        """An operation that is zero where both operands are: stored where one of them is. Dense if one operand is."""
        return _merged(function, self, other, swap, both=False)

    def both(self, function: Callable[..., Array], other: Any, swap: bool = False) -> Model:
        """An operation that is zero where one operand is: stored where both are."""
        return _merged(function, self, other, swap, both=True)

    def each(self, function: Callable[[Array], Array]) -> Model:
        """A function that maps zero to zero."""
        out = wide(function(self.values))
        return Model(out if self.stored is None else only(self.stored, out), self.stored, typed(function, self))

    def __add__(self, other: Any) -> Model:
        return self.union(np.add, other)

    def __radd__(self, other: Any) -> Model:
        return self.union(np.add, other, True)

    def __sub__(self, other: Any) -> Model:
        return self.union(np.subtract, other)

    def __rsub__(self, other: Any) -> Model:
        return self.union(np.subtract, other, True)

    def __mul__(self, other: Any) -> Model:
        return self.both(np.multiply, other)

    def __rmul__(self, other: Any) -> Model:
        return self.both(np.multiply, other, True)

    multiply = __mul__

    def __truediv__(self, other: Any) -> Model:
        with np.errstate(all="ignore"):
            return self.both(np.divide, other)

    def __and__(self, other: Any) -> Model:
        return self.both(np.bitwise_and, other)

    def __or__(self, other: Any) -> Model:
        return self.union(np.bitwise_or, other)

    def __xor__(self, other: Any) -> Model:
        return self.union(np.bitwise_xor, other)

    def __ne__(self, other: object) -> Model:  # type: ignore[override]
        return self.union(np.not_equal, other)

    def __lt__(self, other: Any) -> Model:
        return self.union(np.less, other)

    def __gt__(self, other: Any) -> Model:
        return self.union(np.greater, other)

    def __neg__(self) -> Model:
        return self.each(np.negative)

    def __abs__(self) -> Model:
        return self.each(np.abs)

    def power(self, n: int) -> Model:
        return self.each(lambda a: a**n)

    __pow__ = power

    # -- products and sums

    def __matmul__(self, other: Any) -> Model:
        return matmul(self, other)

    def sum(self, axis: int | None = None) -> Model:
        return Model(wide(self.values.sum(axis)), None, typed(np.sum, self))

    def trace(self) -> Model:
        return Model(wide(self.values.trace()), None, typed(np.sum, self))

    def diagonal(self) -> Model:
        return Model(self.values.diagonal(), None, self.dtype)

    # -- shape

    @property
    def T(self) -> Model:
        return Model(self.values.T, None if self.stored is None else self.stored.T, self.dtype)

    def __getitem__(self, key: Any) -> Model:
        return Model(self.values[key], None if self.stored is None else self.stored[key], self.dtype)

    def reshape(self, *shape: int) -> Model:
        return Model(self.values.reshape(shape), None if self.stored is None else self.stored.reshape(shape), self.dtype)

    def toarray(self) -> Model:
        return Model(self.values, None, self.dtype)


def _merged(function: Callable[..., Array], a: Model, b: Any, swap: bool, both: bool) -> Model:
    dtype = typed(function, *((b, a) if swap else (a, b)))
    right = b if isinstance(b, Model) else None
    left, other = a.values, right.values if right else b
    with np.errstate(all="ignore"):
        out = wide(function(other, left) if swap else function(left, other))
    sets = [m.stored for m in (a, right) if m is not None and m.stored is not None]
    dense = right is None or len(sets) < 2
    if not sets or (dense and not both and not (right is None and np.isscalar(b) and b == 0)):
        return Model(out, None, dtype)
    first = np.broadcast_to(sets[0], out.shape)
    second = np.broadcast_to(sets[-1], out.shape)
    stored = first & second if both else first | second
    return Model(only(stored, out), stored, dtype)


# --- functions, under PolyAI's names ---------------------------------------------------------------------------------------


def maximum(a: Model, b: Any) -> Model:
    return a.union(np.logical_or if a.dtype == bool else np.maximum, b)


def minimum(a: Model, b: Any) -> Model:
    return a.both(np.logical_and, b) if a.dtype == bool else a.union(np.minimum, b)


def relu(a: Model) -> Model:
    return a.each(lambda x: np.maximum(x, 0))


def sign(a: Model) -> Model:
    return a.each(np.sign)


def logical_and(a: Model, b: Any) -> Model:
    return a.both(np.logical_and, b)


def logical_or(a: Model, b: Any) -> Model:
    return a.union(np.logical_or, b)


def logical_xor(a: Model, b: Any) -> Model:
    return a.union(np.logical_xor, b)


def where(c: Model, a: Model, b: Model) -> Model:
    """Stored at most where c and a are, or b is."""
    stored = None
    if a.stored is not None and b.stored is not None:
        stored = (a.stored if c.stored is None else c.stored & a.stored) | b.stored
    dtype = np.result_type(a.dtype, b.dtype)
    return Model(np.where(c.values != 0, a.values, b.values), stored, dtype)


def toarray(a: Model) -> Model:
    return a.toarray()


def map_stored(function: Callable[..., Any], a: Model, *others: Model) -> Model:
    """A function of what is stored, and of the other arrays' elements there."""
    assert a.stored is not None
    models = [Model.dense(o.values) if isinstance(o, Model) else o for o in (a, *others)]
    out = function(*models)
    return Model(only(a.stored, out.values), a.stored, out.dtype)


def clip(a: Model, low: float, high: float) -> Model:
    return Model(np.clip(a.values, low, high), a.stored, a.dtype)


def concat(parts: list[Model], axis: int = 0) -> Model:
    """Arrays one after the other; all of them sparse."""
    return Model(np.concatenate([p.values for p in parts], axis), np.concatenate([p.stored for p in parts], axis), parts[0].dtype)


def asformat(a: Model, format: str) -> Model:
    return a


def einsum(text: str, *operands: Model, semiring: Any = None) -> Model:
    if semiring is not None:
        (left, right), out = text.split("->")[0].split(","), text.split("->")[1]
        assert (left[1], right[1]) == (right[0], out[1]) and left[0] == out[0], "only products of matrices"
        return matmul(*operands, semiring=semiring)
    values = np.einsum(text, *(o.values for o in operands)) if operands[0].dtype != bool else _any(text, operands)
    dtype = np.result_type(*(o.dtype for o in operands))
    return Model(wide(values), _any(text, operands) if any(o.stored is not None for o in operands) else None, dtype)


def _any(text: str, operands: tuple[Model, ...]) -> Array:
    """Where a sum of products has a term at all."""
    sets = [np.ones(o.values.shape) if o.stored is None else o.stored.astype(float) for o in operands]
    return np.asarray(np.einsum(text, *sets)) > 0


@dataclass(frozen=True)
class Semiring:
    add: str
    mul: str


semiring = Semiring

_ADD = {"add": (np.add, 0.0), "min": (np.minimum, np.inf), "max": (np.maximum, -np.inf), "or": (np.logical_or, False)}
_MUL = {"add": np.add, "mul": np.multiply, "min": np.minimum, "max": np.maximum, "and": np.logical_and}


def matmul(a: Model, b: Any, *, semiring: Semiring | None = None, mask: Model | None = None, complement: bool = False) -> Model:
    """The product of matrices and vectors; of a semiring: over the terms whose two factors are stored. With a mask: what
    the mask stores, a sum of nothing where no pair meets (with `complement`, what it does not store)."""
    if not isinstance(b, Model):
        b = Model.dense(b)
    dtype = typed(lambda x, y: x[:, None] @ y[None, :], a, b)
    sparse = a.stored is not None and b.stored is not None
    if semiring is None:
        values = a.values @ b.values
    else:
        reduce, identity = _ADD[semiring.add]
        terms = _MUL[semiring.mul](a.values[:, :, None], b.values[None, :, :])
        here = (a.stored[:, :, None]) & (b.stored[None, :, :])
        values = reduce.reduce(np.where(here, terms, identity), axis=1, initial=identity)
        dtype = np.dtype(bool) if semiring.add == "or" else dtype
    if not sparse:
        return Model(wide(values), None, dtype)
    stored = np.asarray(a.stored.astype(float) @ b.stored.astype(float)) > 0
    if mask is not None:
        stored = stored & ~mask.stored if complement else mask.stored
    return Model(only(stored, values), stored, dtype)
