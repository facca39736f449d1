"""Element types and how they combine (the array-API standard's promotion, extended by NumPy's mixed kinds)."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from polyai.errors import DTypeError
from polyai.term.node import node


@node
class DType:
    """One element type. `kind`: b(ool), i(nt), u(nsigned), f(loat), B(rain float), c(omplex); `bits` of storage."""

    name: str
    kind: str
    bits: int

    @property
    def is_float(self) -> bool:
        return self.kind in "fB"

    @property
    def is_integer(self) -> bool:
        return self.kind in "iu"

    @property
    def is_complex(self) -> bool:
        return self.kind == "c"

    @property
    def bytes(self) -> int:
        return self.bits // 8

    def __str__(self) -> str:
        return self.name


bool_ = DType("bool", "b", 8)
i8, i16, i32, i64 = (DType(f"i{n}", "i", n) for n in (8, 16, 32, 64))
u8, u16, u32, u64 = (DType(f"u{n}", "u", n) for n in (8, 16, 32, 64))
f16, f32, f64 = (DType(f"f{n}", "f", n) for n in (16, 32, 64))
bf16 = DType("bf16", "B", 16)
c64, c128 = DType("c64", "c", 64), DType("c128", "c", 128)

ALL: tuple[DType, ...] = (bool_, i8, i16, i32, i64, u8, u16, u32, u64, f16, bf16, f32, f64, c64, c128)
BY_NAME = {d.name: d for d in ALL}

_NUMPY = {
    "bool": "bool", "i8": "int8", "i16": "int16", "i32": "int32", "i64": "int64",
    "u8": "uint8", "u16": "uint16", "u32": "uint32", "u64": "uint64",
    "f16": "float16", "bf16": "bfloat16", "f32": "float32", "f64": "float64",
    "c64": "complex64", "c128": "complex128",
}  # fmt: skip
_FROM_NUMPY = {v: BY_NAME[k] for k, v in _NUMPY.items()}


def to_numpy(dtype: DType) -> np.dtype[Any]:
    """The NumPy dtype; bf16 needs the package ml_dtypes to be imported by the user's array."""
    if dtype is bf16 or dtype == bf16:
        try:
            import ml_dtypes
        except ImportError:
            raise DTypeError(
                "bf16 arrays need the package ml_dtypes",
                "NumPy has no bfloat16 of its own",
                "pip install ml_dtypes, or store the values as float32",
            ) from None
        out: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return out
    return np.dtype(_NUMPY[dtype.name])


def from_numpy(dtype: Any, where: str = "array") -> DType:
    """The DType of a NumPy dtype. Raises DTypeError for object, string, datetime and other dtypes without numbers."""
    given = np.dtype(dtype)
    found = _FROM_NUMPY.get(given.name)
    if found is None:
        raise DTypeError(
            f"{where} has dtype {given}, which PolyAI cannot compute with",
            f"known are {', '.join(sorted(_FROM_NUMPY))}",
            "convert it with .astype(...)",
        )
    return found


_REAL_OF = {"c64": f32, "c128": f64}
_COMPLEX_OF = {"f16": c64, "bf16": c64, "f32": c64, "f64": c128}


def real_of(dtype: DType) -> DType:
    """The type of one component of a complex type; other types are returned as they are."""
    return _REAL_OF.get(dtype.name, dtype)


def complex_of(dtype: DType) -> DType:
    """The complex type whose components hold `dtype`."""
    return _COMPLEX_OF.get(dtype.name, dtype if dtype.is_complex else c128)


def compute_type(dtype: DType) -> DType:
    """The type arithmetic on `dtype` is done in: f16 and bf16 are storage types, computed in f32."""
    return f32 if dtype.name in ("f16", "bf16") else dtype


@cache
def promote(a: DType, b: DType) -> DType:
    """The common type of two arrays. Mixed kinds follow NumPy (i64 with f32 gives f64); bf16 with f16 gives f32."""
    if a == b:
        return a
    if bf16 in (a, b):
        other = b if a == bf16 else a
        if other.kind == "b" or other.name in ("i8", "u8"):
            return bf16
        if other.name in ("f16", "i16", "u16"):
            return f32
        return promote(f32, other)
    return from_numpy(np.promote_types(to_numpy(a), to_numpy(b)))


def promote_scalar(array: DType, scalar: bool | int | float | complex) -> DType:
    """The type of array `op` Python scalar: the scalar is weak, as in the array-API standard and NumPy 2."""
    if isinstance(scalar, bool):
        return array
    if isinstance(scalar, int):
        return i64 if array.kind == "b" else array
    if isinstance(scalar, float):
        return array if array.is_float or array.is_complex else f64
    return array if array.is_complex else complex_of(array if array.is_float else f64)
