"""The arguments of a case: a size for each letter, a pattern for each sparse operand, small whole numbers as values.

A `Variant` is one family of patterns with a name. `arguments` makes SciPy and NumPy values of it in given formats, and the
models they stand for.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.sparse as sp

from tests.sparse_suite.model import Model, wide

Array = Any
Rng = np.random.Generator
Make = Callable[[Rng, tuple[int, ...], int], Array]
"""A pattern from a generator, a shape and the operand's number."""


@dataclass(frozen=True)
class Kind:
    """How one sparse operand is passed: SciPy's format, whether its transpose is passed and turned back by `.T` in the
    program, element type, index type."""

    format: str
    turned: bool = False
    dtype: str = "f8"
    index: str = "i4"

    def __str__(self) -> str:
        types = [self.dtype] * (self.dtype != "f8") + ["wide"] * (self.index == "i8")
        return self.format + (".T" if self.turned else "") + (f"[{','.join(types)}]" if types else "")


@dataclass(frozen=True)
class Variant:
    """`sizes` by letter. `order`: "sorted", "unsorted" or "repeated" entries. `cancel`: the second operand's values are the
    first's with the other sign."""

    name: str
    make: Make
    sizes: Mapping[str, int] = field(default_factory=dict)
    order: str = "sorted"
    cancel: bool = False
    zeros: bool = False


def some(rng: Rng, shape: tuple[int, ...], number: int) -> Array:
    return rng.random(shape) < 0.35


def none(rng: Rng, shape: tuple[int, ...], number: int) -> Array:
    return np.zeros(shape, bool)


def full(rng: Rng, shape: tuple[int, ...], number: int) -> Array:
    return np.ones(shape, bool)


def first_empty(rng: Rng, shape: tuple[int, ...], number: int) -> Array:
    return (none if number == 0 else some)(rng, shape, number)


def second_empty(rng: Rng, shape: tuple[int, ...], number: int) -> Array:
    return (none if number == 1 else some)(rng, shape, number)


def few_rows(rng: Rng, shape: tuple[int, ...], number: int) -> Array:
    """Only the second row (of a vector: the second element) and the last one hold anything."""
    out = np.zeros(shape, bool)
    for row in (1, -1) if shape[0] > 1 else ():
        out[row] = rng.random(shape[1:]) < 0.7
    return out


def diagonal(rng: Rng, shape: tuple[int, ...], number: int) -> Array:
    out = np.zeros(shape, bool)
    at = np.arange(min(shape, default=0))
    out[(at,) * len(shape)] = True
    return out


def _cut(rng: Rng, shape: tuple[int, ...], low: float, high: float) -> Array:
    last = shape[-1]
    at = np.arange(last)
    return np.broadcast_to((at >= low * last) & (at < high * last), shape) & (rng.random(shape) < 0.8)


def first_ends_early(rng: Rng, shape: tuple[int, ...], number: int) -> Array:
    """The first operand's rows end before the others' begin their last elements."""
    return _cut(rng, shape, 0.0, 0.4) if number == 0 else _cut(rng, shape, 0.2, 1.0)


def first_ends_late(rng: Rng, shape: tuple[int, ...], number: int) -> Array:
    return _cut(rng, shape, 0.3, 1.0) if number == 0 else _cut(rng, shape, 0.0, 0.6)


def disjoint(rng: Rng, shape: tuple[int, ...], number: int) -> Array:
    return np.broadcast_to(np.arange(shape[-1]) % 3 == number % 3, shape)


def identical(rng: Rng, shape: tuple[int, ...], number: int) -> Array:
    return np.random.default_rng(len(shape) + shape[0]).random(shape) < 0.4


def skewed(rng: Rng, shape: tuple[int, ...], number: int) -> Array:
    """One row is full, every other one has one element at most."""
    out = np.zeros(shape, bool)
    if 0 in shape:
        return out
    out[number % shape[0]] = True
    for row in range(shape[0]):
        out[(row, *(int(rng.integers(e)) for e in shape[1:]))] = True
    return out


def thin(rng: Rng, shape: tuple[int, ...], number: int) -> Array:
    return rng.random(shape) < 0.02


USUAL = {"n": 7, "m": 5, "k": 6, "l": 4, "r": 3}

VARIANTS = (
    Variant("some", some, USUAL),
    Variant("nothing stored", none, USUAL),
    Variant("first is empty", first_empty, USUAL),
    Variant("second is empty", second_empty, USUAL),
    Variant("few rows", few_rows, USUAL),
    Variant("one row", some, {**USUAL, "n": 1}),
    Variant("one column", some, {**USUAL, "m": 1}),
    Variant("no rows", some, {**USUAL, "n": 0}),
    Variant("no columns", some, {**USUAL, "m": 0}),
    Variant("size 1", full, dict.fromkeys("nmklr", 1)),
    Variant("full", full, USUAL),
    Variant("diagonal", diagonal, {**USUAL, "m": 7}),
    Variant("the first's rows end first", first_ends_early, {**USUAL, "m": 11}),
    Variant("the first's rows end last", first_ends_late, {**USUAL, "m": 11}),
    Variant("disjoint", disjoint, {**USUAL, "m": 9}),
    Variant("identical", identical, USUAL),
    Variant("cancelling", identical, USUAL, cancel=True),
    Variant("stored zeros", some, USUAL, zeros=True),
    Variant("skewed", skewed, {**USUAL, "n": 9, "m": 20}),
    Variant("wide", thin, {**USUAL, "n": 3, "m": 400}),
    Variant("tall", thin, {**USUAL, "n": 300, "m": 4}),
    Variant("across vectors", some, {"n": 17, "m": 33, "k": 19, "l": 16, "r": 9}),
    Variant("unsorted", some, {**USUAL, "m": 9}, order="unsorted"),
    Variant("repeated", some, {**USUAL, "m": 9}, order="repeated"),
)
BY_NAME = {v.name: v for v in VARIANTS}


def numbers(rng: Rng, count: int, dtype: str, zeros: bool) -> Array:
    """Whole numbers from -3 to 3, zero only if `zeros`."""
    if dtype == "?":
        return rng.random(count) < 0.7 if zeros else np.ones(count, bool)
    out = rng.integers(1, 4, count) * (1 if dtype[0] == "u" else rng.choice([-1, 1], count))
    if zeros:
        out = np.where(rng.random(count) < 0.4, 0, out)
    if dtype[0] == "c":
        return (out + 1j * rng.integers(-2, 3, count)).astype(dtype)
    return out.astype(dtype)


def stored(coords: Sequence[Array], values: Array, shape: tuple[int, ...], kind: Kind, rng: Rng, order: str) -> Any:
    """A SciPy array of this kind that holds the coordinates as they are: in order, out of order, or some twice."""
    if order == "repeated" and len(values):
        again = rng.integers(0, len(values), max(1, len(values) // 3))
        coords, values = [np.concatenate([c, c[again]]) for c in coords], np.concatenate([values, values[again]])
    index, rank = np.dtype(kind.index), len(shape)
    major = 1 if kind.format == "csc" else 0
    keys = tuple(reversed(coords)) if rank != 2 else (coords[1 - major], coords[major])
    if order == "unsorted":
        shuffled = rng.permutation(len(values))
        keys = (shuffled, keys[-1]) if kind.format in ("csr", "csc") and rank == 2 else (shuffled,)
    by = np.lexsort(keys) if len(values) else np.zeros(0, int)
    coords, values = [c[by].astype(index) for c in coords], values[by]
    if kind.format == "coo" or rank != 2:
        return sp.coo_array((values, tuple(coords)), shape=shape)
    if kind.format in ("csr", "csc"):
        pointers = np.zeros(shape[major] + 1, index)
        np.cumsum(np.bincount(coords[major], minlength=shape[major]), out=pointers[1:])
        return getattr(sp, f"{kind.format}_array")((values, coords[1 - major], pointers), shape=shape)
    plain = sp.coo_array((values, tuple(coords)), shape=shape)
    if kind.format == "bsr":
        return plain.tocsr().tobsr(blocksize=(1, 1))
    return plain.asformat(kind.format)


def arguments(sparse: Sequence[str], dense: Sequence[str], kinds: Sequence[Kind], variant: Variant, salt: str, order: str = "C") -> tuple[list[Any], list[Model]]:
    """Values for the operands, sparse ones first, and their models. `sparse` and `dense`: shapes in letters, as "nm"."""
    rng = np.random.default_rng(zlib.crc32(f"{salt}/{variant.name}".encode()))
    given: list[Any] = []
    models: list[Model] = []
    for number, (letters, kind) in enumerate(zip(sparse, kinds)):
        shape = tuple(1 if s == "1" else variant.sizes[s] for s in letters)
        pattern = np.asarray(variant.make(rng, shape, number))
        values = numbers(rng, int(pattern.sum()), kind.dtype, variant.zeros)
        if variant.cancel and number == 1 and kind.dtype != "?" and pattern.shape == models[0].values.shape and (pattern == models[0].stored).all():
            values = (-models[0].values[pattern]).astype(kind.dtype)
        coords: Sequence[Array] = np.nonzero(pattern)
        if kind.turned:
            coords, shape = coords[::-1], shape[::-1]
        value = stored(coords, values, shape, kind, rng, variant.order)
        given.append(value)
        models.append(model_of(value, kind.turned))
    for letters in dense:
        shape = tuple(1 if s == "1" else variant.sizes[s] for s in letters)
        array = rng.integers(-3, 4, shape).astype(np.float64)
        given.append(np.asarray(array, order=order))  # type: ignore[call-overload]
        models.append(Model.dense(array))
    return given, models


def model_of(value: Any, turned: bool = False) -> Model:
    """What a SciPy array stands for; coordinates that occur twice add up."""
    plain = value.tocoo()
    coords = tuple(np.asarray(c) for c in plain.coords)
    values, pattern = np.zeros(value.shape, wide(plain.data).dtype), np.zeros(value.shape, bool)
    if values.dtype == bool:
        np.logical_or.at(values, coords, plain.data)
    else:
        np.add.at(values, coords, wide(plain.data))
    pattern[coords] = True
    out = Model(values, pattern, value.dtype)
    return out.T if turned else out
