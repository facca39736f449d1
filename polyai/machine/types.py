"""How the scalar types are spelled in LLVM, in values and in memory.

    dtype      value            memory
    bool       i1               i8, 0 or 1
    f16, bf16  float            i16, rounded to nearest even when stored
    c64, c128  two float/double two in a row: real, imaginary
    others     iN, float, double the same
"""

from __future__ import annotations

import struct

from polyai.scalar.dtype import DType

_MEMORY = {"bool": "i8", "f16": "i16", "bf16": "i16", "f32": "float", "f64": "double", "c64": "float", "c128": "double"}
_VALUE = {**_MEMORY, "bool": "i1", "f16": "float", "bf16": "float"}
_MANGLED = {"float": "f32", "double": "f64", "half": "f16", "ptr": "p0"}


def element(dtype: DType) -> str:
    """The LLVM type of one value (of one component of a complex value)."""
    return _VALUE.get(dtype.name) or f"i{dtype.bits}"


def memory(dtype: DType) -> str:
    """The LLVM type of one element in memory (of one component of a complex element)."""
    return _MEMORY.get(dtype.name) or f"i{dtype.bits}"


def vector(elem: str, lanes: int) -> str:
    """`elem` itself for one lane, else a vector type."""
    return elem if lanes == 1 else f"<{lanes} x {elem}>"


def mangled(elem: str, lanes: int) -> str:
    """The suffix of an overloaded intrinsic: v16f32, i64, ..."""
    stem = _MANGLED.get(elem, elem)
    return stem if lanes == 1 else f"v{lanes}{stem}"


def bits_of(elem: str) -> int:
    """Width of a value type in bits."""
    return {"float": 32, "double": 64, "half": 16, "ptr": 64}.get(elem) or int(elem[1:])


def literal(value: bool | int | float, elem: str) -> str:
    """A constant of type `elem`: integers wrap, floats are rounded to the type and written as bits."""
    if elem == "i1":
        return "true" if value else "false"
    if elem[0] == "i":
        width = int(elem[1:])
        whole = int(value) & ((1 << width) - 1)
        return str(whole - (1 << width) if whole >> (width - 1) else whole)
    number = float(value)
    if elem == "float":
        number = to_float32(number)
    return "0x" + struct.pack(">d", number).hex().upper()


def to_float32(number: float) -> float:
    """`number` rounded to single precision; beyond its range an infinity."""
    try:
        rounded: float = struct.unpack("<f", struct.pack("<f", number))[0]
    except OverflowError:
        return float("inf") if number > 0 else float("-inf")
    return rounded


def constant(value: bool | int | float, elem: str, lanes: int) -> str:
    """`literal`, repeated in every lane."""
    return literal(value, elem) if lanes == 1 else f"splat ({elem} {literal(value, elem)})"
