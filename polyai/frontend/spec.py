"""Arguments described without values: element types, sizes and formats that can be written in a signature.

    n, m = dim("n"), dim("m", min=1, multiple_of=8)
    f32[n, 64]            a dense array
    csr[n, m]             a CSR matrix of f64; csr(f32)[n, m] of f32
    f64[()]               a scalar
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Union

import numpy as np

from polyai.errors import DTypeError, ShapeError
from polyai.scalar import dtype as dt
from polyai.scalar.dtype import DType
from polyai.shapes import expr as sx
from polyai.shapes.expr import Size
from polyai.sparse import format as fm
from polyai.sparse.format import Format
from polyai.term.node import node


@node
class Range:
    """What is declared of one size: `min` <= value, value <= `max` (None: no bound), value a multiple of `multiple_of`."""

    name: str
    min: int = 0
    max: int | None = None
    multiple_of: int = 1


@node
class DimExpr:
    """A declared size, or arithmetic on declared sizes: `2 * n + 1`."""

    size: Size
    ranges: frozenset[Range]

    def _with(self, other: DimExpr | int, combine: Callable[[Size, Size], Size], swap: bool = False) -> DimExpr:
        size, ranges = (other.size, other.ranges) if isinstance(other, DimExpr) else (other, frozenset())
        left, right = (size, self.size) if swap else (self.size, size)
        return DimExpr(combine(left, right), self.ranges | ranges)

    def __add__(self, other: DimExpr | int) -> DimExpr:
        return self._with(other, lambda a, b: a + b)

    def __sub__(self, other: DimExpr | int) -> DimExpr:
        return self._with(other, lambda a, b: a - b)

    def __rsub__(self, other: int) -> DimExpr:
        return self._with(other, lambda a, b: a - b, swap=True)

    def __mul__(self, other: DimExpr | int) -> DimExpr:
        return self._with(other, lambda a, b: a * b)

    def __floordiv__(self, other: DimExpr | int) -> DimExpr:
        return self._with(other, sx.floordiv)

    def __mod__(self, other: DimExpr | int) -> DimExpr:
        return self._with(other, sx.mod)

    __radd__ = __add__
    __rmul__ = __mul__

    def __str__(self) -> str:
        return sx.show(self.size)


def dim(name: str, *, min: int = 0, max: int | None = None, multiple_of: int = 1) -> DimExpr:
    """A size called `name`, known at the call. Raises ShapeError for an empty range or a name that is no identifier."""
    if not name.isidentifier():
        raise ShapeError(f"{name!r} is no name for a size", "it must be an identifier", 'write dim("n")')
    if min < 0 or multiple_of < 1 or (max is not None and max < min):
        raise ShapeError(f"size {name} has no possible value", f"min={min}, max={max}, multiple_of={multiple_of}", "use 0 <= min <= max")
    return DimExpr(sx.symbol(name), frozenset({Range(name, min, max, multiple_of)}))


Extent = Union[int, DimExpr]


@node
class Spec:
    """An argument without values: `dtype`, `shape` of numbers and declared sizes, `format` None for a dense array."""

    dtype: DType
    shape: tuple[Extent, ...]
    format: Format | None = None
    is_matrix: bool = False


def _extents(key: Any) -> tuple[Extent, ...]:
    parts = key if isinstance(key, tuple) else (key,)
    for part in parts:
        if not isinstance(part, (int, DimExpr)) or isinstance(part, bool) or (isinstance(part, int) and part < 0):
            raise ShapeError(f"{part!r} is no size", "a shape holds numbers >= 0 and sizes made by dim()", 'write f32[dim("n"), 64]')
    return parts


@node
class DTypeSpec:
    """An element type that can be indexed by a shape: `f32[n, 64]`. Accepted wherever a dtype is."""

    dtype: DType

    def __getitem__(self, shape: Any) -> Spec:
        return Spec(self.dtype, _extents(shape))

    def __str__(self) -> str:
        return self.dtype.name


@node
class FormatSpec:
    """A format that can be indexed by a shape: `csr[n, m]`; call it to choose the element type or the index width."""

    make: Callable[[int], Format]
    dtype: DType = dt.f64
    index_bits: int = 32

    def __call__(self, dtype: Any = dt.f64, *, index_bits: int = 32) -> FormatSpec:
        return FormatSpec(self.make, as_dtype(dtype), index_bits)

    def __getitem__(self, shape: Any) -> Spec:
        extents, chosen = _extents(shape), self.make(self.index_bits)
        if len(extents) != chosen.rank:
            raise ShapeError(f"{chosen.name} has {chosen.rank} dimensions", f"the shape given has {len(extents)}", "give one size per dimension")
        return Spec(self.dtype, extents, chosen)


def _coo(index_bits: int) -> Format:
    return fm.coo(2, index_bits)


bool_, i8, i16, i32, i64, u8, u16, u32, u64, f16, bf16, f32, f64, c64, c128 = (DTypeSpec(d) for d in dt.ALL)
csr, csc, coo, dcsr = FormatSpec(fm.csr), FormatSpec(fm.csc), FormatSpec(_coo), FormatSpec(fm.dcsr)

_PYTHON: dict[Any, DType] = {bool: dt.bool_, int: dt.i64, float: dt.f64, complex: dt.c128}


def as_dtype(value: Any, where: str = "dtype") -> DType:
    """The DType meant by a DType, a DTypeSpec, a NumPy dtype or type, a Python type, or a name such as "f32" or "float32"."""
    if isinstance(value, DType):
        return value
    if isinstance(value, DTypeSpec):
        return value.dtype
    if isinstance(value, str) and value in dt.BY_NAME:
        return dt.BY_NAME[value]
    if isinstance(value, type) and value in _PYTHON:
        return _PYTHON[value]
    if value in ("bfloat16",):
        return dt.bf16
    try:
        known = np.dtype(value)
    except TypeError:
        raise DTypeError(f"{where}={value!r} is no element type", "", "use f32, np.float32 or 'float32'") from None
    return dt.from_numpy(known, where)
