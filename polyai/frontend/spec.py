"""Arguments described without values: element types, sizes and formats that can be written in a signature.

    n, m = dim("n"), dim("m", min=1, multiple_of=8)
    n <= m, n % 4 == 0    relations, for `where=[...]`
    f32[n, 64]            a dense array
    csr[n, m]             a CSR matrix of f64; csr(f32)[n, m] of f32
    f64[()]               a scalar
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Union

import numpy as np

from polyai.errors import DTypeError, ShapeError, TraceError
from polyai.scalar import dtype as dt
from polyai.scalar.dtype import DType
from polyai.shapes import expr as sx
from polyai.shapes.dim import Dim, checked
from polyai.shapes.expr import Size
from polyai.shapes.facts import MAYBE, YES, Facts
from polyai.sparse import format as fm
from polyai.sparse.foreign import unordered_coo
from polyai.sparse.format import Format
from polyai.term.node import node


@node
class Relation:
    """`left op right` between declared sizes, for `where=[...]`: `n <= m`, `m == n // 2`, `n % 8 == 0`."""

    left: Size
    op: str
    right: Size
    dims: frozenset[Dim]

    def __bool__(self) -> bool:
        answer = Facts(self.dims).prove(self.left, self.op, self.right)
        if answer is not MAYBE:
            return answer is YES
        if self.op in ("==", "!="):
            return (self.left == self.right) == (self.op == "==")
        raise TraceError(f"{self} depends on the call", "it relates sizes that are declared, not known", f"pass it as a promise: where=[{self}]")

    def __str__(self) -> str:
        return f"{sx.spelled(self.left, {})} {self.op} {sx.spelled(self.right, {})}"


@node
class DimExpr:
    """A declared size, or arithmetic on declared sizes: `2 * n + 1`. Comparisons make a `Relation`."""

    size: Size
    dims: frozenset[Dim]

    def _with(self, other: DimExpr | int, combine: Callable[[Size, Size], Size], swap: bool = False) -> DimExpr:
        if not isinstance(other, (int, DimExpr)) or isinstance(other, bool):
            raise TraceError(f"{self} and {other!r} do not combine", f"a {type(other).__name__} is no size", "use whole numbers and sizes made by dim()")
        size, dims = (other.size, other.dims) if isinstance(other, DimExpr) else (other, frozenset[Dim]())
        left, right = (size, self.size) if swap else (self.size, size)
        return DimExpr(combine(left, right), self.dims | dims)

    def __add__(self, other: DimExpr | int) -> DimExpr:
        return self._with(other, lambda a, b: a + b)

    def __sub__(self, other: DimExpr | int) -> DimExpr:
        return self._with(other, lambda a, b: a - b)

    def __rsub__(self, other: int) -> DimExpr:
        return self._with(other, lambda a, b: a - b, swap=True)

    def __mul__(self, other: DimExpr | int) -> DimExpr:
        return self._with(other, lambda a, b: a * b)

    def __floordiv__(self, other: DimExpr | int) -> DimExpr:
        return self._with(other, _quotient)

    def __rfloordiv__(self, other: int) -> DimExpr:
        return self._with(other, _quotient, swap=True)

    def __mod__(self, other: DimExpr | int) -> DimExpr:
        return self._with(other, _remainder)

    def __rmod__(self, other: int) -> DimExpr:
        return self._with(other, _remainder, swap=True)

    def __neg__(self) -> DimExpr:
        return DimExpr(-1 * self.size, self.dims)

    __radd__ = __add__
    __rmul__ = __mul__

    def _relation(self, op: str, other: Any) -> Any:
        if isinstance(other, DimExpr):
            return Relation(self.size, op, other.size, self.dims | other.dims)
        if isinstance(other, int) and not isinstance(other, bool):
            return Relation(self.size, op, other, self.dims)
        return NotImplemented

    def __eq__(self, other: object) -> Any:
        return self._relation("==", other)

    def __ne__(self, other: object) -> Any:
        return self._relation("!=", other)

    def __lt__(self, other: Any) -> Any:
        return self._relation("<", other)

    def __le__(self, other: Any) -> Any:
        return self._relation("<=", other)

    def __gt__(self, other: Any) -> Any:
        return self._relation(">", other)

    def __ge__(self, other: Any) -> Any:
        return self._relation(">=", other)

    def __hash__(self) -> int:
        return hash((self.size, self.dims))

    def __index__(self) -> int:
        raise TraceError(f"the size {self} has no value yet", "it is known in a call only", "write the declaration with the size itself")

    def __str__(self) -> str:
        return sx.spelled(self.size, {})


def _divisor(size: Size) -> Size:
    if isinstance(size, int) and size <= 0:
        raise ShapeError(f"a size is divided by {size}", "", "divide by a number of at least 1")
    return size


def _quotient(a: Size, b: Size) -> Size:
    return sx.floordiv(a, _divisor(b))


def _remainder(a: Size, b: Size) -> Size:
    return sx.mod(a, _divisor(b))


def largest(*sizes: DimExpr | int) -> DimExpr | int:
    """The largest of declared sizes and numbers."""
    return _extreme(sizes, sx.maximum)


def smallest(*sizes: DimExpr | int) -> DimExpr | int:
    """The smallest of declared sizes and numbers."""
    return _extreme(sizes, sx.minimum)


def _extreme(sizes: tuple[DimExpr | int, ...], combine: Callable[..., Size]) -> DimExpr | int:
    out = combine(*(s.size if isinstance(s, DimExpr) else s for s in sizes))
    return out if isinstance(out, int) else DimExpr(out, frozenset().union(*(s.dims for s in sizes if isinstance(s, DimExpr))))


def ceildiv(a: Any, b: Any) -> Any:
    """a / b rounded up, of numbers, declared sizes and sizes inside a traced function: `ceildiv(n, 64)` tiles of 64 cover n."""
    return (a + (b - 1)) // b


def dim(name: str, min: int = 0, max: int | None = None, multiple_of: int = 1, *, likely: int | Sequence[int] = ()) -> DimExpr:
    """A size called `name`, known at the call.

    Args:
        name: An identifier; messages use it.
        min: The least value.
        max: The greatest value; None for no bound.
        multiple_of: What divides every value.
        likely: Values that are expected often. They choose tiles, never what is computed.

    Raises ShapeError if no value is possible, or for a name that is no identifier.
    """
    if not isinstance(name, str) or not name.isidentifier():
        raise ShapeError(f"{name!r} is no name for a size", "it must be an identifier", 'write dim("n")')
    values = (likely,) if isinstance(likely, int) else tuple(likely)
    for what, value in (("min", min), ("max", 0 if max is None else max), ("multiple_of", multiple_of), *(("likely", v) for v in values)):
        if not isinstance(value, (int, np.integer)) or isinstance(value, bool):
            raise ShapeError(f"dim({name!r}) has {what}={value!r}", "sizes are whole numbers", f"write dim({name!r}, min=0, max=4096)")
    min, max, multiple_of, values = int(min), None if max is None else int(max), int(multiple_of), tuple(map(int, values))
    return DimExpr(sx.symbol(name), frozenset({checked(Dim(name, min, max, multiple_of, values))}))


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
    """What SciPy's lists are taken for: neither sorted nor free of repeats."""
    return unordered_coo(2, index_bits)


bool_, i8, i16, i32, i64, u8, u16, u32, u64, f16, bf16, f32, f64, c64, c128 = (DTypeSpec(d) for d in dt.ALL)
csr, csc, coo, dcsr, dcsc = (FormatSpec(make) for make in (fm.csr, fm.csc, _coo, fm.dcsr, fm.dcsc))

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


__all__ = [
    "bf16", "bool_", "c64", "c128", "coo", "csc", "csr", "dcsc", "dcsr", "dim", "f16", "f32", "f64", "i8", "i16", "i32", "i64", "u8",
    "u16", "u32", "u64",
]
