"""Values of the loop language as the code generator holds them.

A Value is a Num per component, and what is known about it beyond its bits: that it is a ramp (so that a load by it is
contiguous), a product (so that adding to it is one multiply-add), or a constant.
"""

from __future__ import annotations

import numpy as np

from polyai.errors import VerifyError
from polyai.machine import types as ty
from polyai.machine.build import Function
from polyai.machine.num import Num
from polyai.scalar import dtype as dt
from polyai.scalar.dtype import DType
from polyai.term.node import record


@record
class Value:
    """`re` holds the bits (the real part of complex values). With `stride` the value is the vector base, base + stride, ...
    of `lanes` elements, and `re` is its scalar base. With `factors` it is their product; while `re` has no name the
    multiplication is not written yet, as it may become part of a multiply-add."""

    dtype: DType
    lanes: int
    re: Num
    im: Num | None = None
    stride: int | None = None
    factors: tuple[Num, Num] | None = None
    const: bool | int | float | complex | None = None


def constant(fn: Function, value: bool | int | float | complex, dtype: DType, lanes: int = 1) -> Value:
    elem = ty.element(dtype)
    if dtype.is_complex:
        number = complex(value)
        parts = [Num(fn, elem, lanes, ty.constant(part, elem, lanes)) for part in (number.real, number.imag)]
        return Value(dtype, lanes, parts[0], parts[1], const=number)
    if isinstance(value, complex):
        raise VerifyError(f"complex constant {value} of dtype {dtype}")
    if dtype.name in ("f16", "bf16"):
        value = rounded_to(float(value), dtype)
    return Value(dtype, lanes, Num(fn, elem, lanes, ty.constant(value, elem, lanes)), const=value)


def rounded_to(value: float, dtype: DType) -> float:
    """`value` as f16 or bf16 holds it."""
    if dtype.name == "f16":
        with np.errstate(over="ignore"):
            return float(np.float16(value))
    bits = int(np.float32(ty.to_float32(value)).view(np.uint32))
    if value != value:
        return value
    bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    return float(np.uint32(bits).view(np.float32))


def product(dtype: DType, a: Num, b: Num) -> Value:
    """a times b, not written yet."""
    return Value(dtype, a.lanes, Num(a.fn, a.elem, a.lanes, ""), factors=(a, b))


def written(value: Value) -> Value:
    """The same value with its multiplication written, if it waits."""
    if value.re.ref or value.factors is None:
        return value
    return Value(value.dtype, value.lanes, value.factors[0] * value.factors[1], factors=value.factors)


def flat(value: Value) -> Value:
    """The same value with all its lanes in `re`: a ramp or a waiting product is written out."""
    if value.stride is None:
        return written(value)
    base = value.re.widened(value.lanes)
    steps = ", ".join(f"i64 {k * value.stride}" for k in range(value.lanes))
    return Value(value.dtype, value.lanes, base.of(f"add {base.kind} {base.ref}, <{steps}>"))


def widened(value: Value, lanes: int) -> Value:
    """`value` in `lanes` lanes: scalars are repeated."""
    if value.lanes == lanes:
        return value
    if value.lanes != 1:
        raise VerifyError(f"a vector of {value.lanes} lanes meets one of {lanes}")
    im = None if value.im is None else value.im.widened(lanes)
    return Value(value.dtype, lanes, value.re.widened(lanes), im, const=value.const)


def real(dtype: DType, re: Num) -> Value:
    return Value(dtype, re.lanes, re)


def boolean(re: Num) -> Value:
    return Value(dt.bool_, re.lanes, re)
