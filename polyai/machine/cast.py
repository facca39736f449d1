"""Conversions between element types, with the meaning of NumPy's astype where that is defined.

Where NumPy leaves it to the processor (a float beyond the range of an integer type) the nearest limit is taken, and 0 for NaN.
"""

from __future__ import annotations

from polyai.errors import UnsupportedError
from polyai.machine import types as ty
from polyai.machine.num import Num
from polyai.machine.values import Value, constant, flat
from polyai.scalar import dtype as dt
from polyai.scalar.dtype import DType


def cast(value: Value, dtype: DType) -> Value:
    """`value` converted to `dtype`. Casting to f16 or bf16 rounds, although the value is then held as a float."""
    if value.dtype == dtype:
        return value
    exact = dtype.kind != "b" and not (dtype.is_integer and value.dtype.is_float)
    if exact and value.const is not None and not isinstance(value.const, complex):
        return constant(value.re.fn, value.const, dtype, value.lanes)
    value = flat(value)
    if dtype.is_complex:
        part = dt.real_of(dtype)
        re = real_cast(value.re, dt.real_of(value.dtype), part)
        im = re.const(0.0) if value.im is None else real_cast(value.im, dt.real_of(value.dtype), part)
        return Value(dtype, value.lanes, re, im)
    if value.im is not None:
        if dtype.kind == "b":
            return Value(dtype, value.lanes, value.re.ne(0.0) | value.im.ne(0.0))
        return Value(dtype, value.lanes, real_cast(value.re, dt.real_of(value.dtype), dtype))
    return Value(dtype, value.lanes, real_cast(value.re, value.dtype, dtype))


def real_cast(x: Num, source: DType, dtype: DType) -> Num:
    """A component converted from `source` to `dtype`, neither of them complex."""
    elem = ty.element(dtype)
    if dtype.kind == "b":
        return x if source.kind == "b" else x.ne(0)
    if source.is_float:
        if dtype.is_integer:
            return x.saturated(dtype.kind == "i", elem)
        if dtype.name == "f16":
            return from_half(to_half(x))
        if dtype.name == "bf16":
            return from_brain(to_brain(x))
        return x.convert("fptrunc" if elem == "float" else "fpext", elem)
    unsigned = source.kind in "ub"
    if dtype.is_float:
        wide = "double" if ty.bits_of(x.elem) > 24 and dtype.bits == 16 else elem
        return real_cast(x.convert("uitofp" if unsigned else "sitofp", wide), dt.f64 if wide == "double" else dt.f32, dtype)
    return x.resized(elem, not unsigned)


def to_odd_float(x: Num) -> Num:
    """A double cut to a float so that rounding it once more is as good as rounding the double (round to odd)."""
    near = x.convert("fptrunc", "float")
    back = near.convert("fpext", "double")
    bits = near.bits()
    beyond = back.call("fabs").gt(x.call("fabs"))
    odd = (bits - beyond.resized("i32", False)) | 1
    return (back.eq(x) | x.isnan()).where(bits, odd).as_float()


def to_half(x: Num) -> Num:
    """A float or double rounded to nearest even f16, as its 16 bits."""
    if not x.fn.module.target.half:
        raise UnsupportedError(
            "float16 needs a processor that converts it",
            "this one has no F16C instructions",
            "store the values as float32",
        )
    single = to_odd_float(x) if x.elem == "double" else x
    return single.convert("fptrunc", "half").convert("bitcast", "i16")


def from_half(x: Num) -> Num:
    """16 bits of an f16 as a float."""
    return x.convert("bitcast", "half").convert("fpext", "float")


def to_brain(x: Num) -> Num:
    """A float or double rounded to nearest even bf16, as its 16 bits."""
    single = to_odd_float(x) if x.elem == "double" else x
    bits = single.bits()
    rounded = bits + (bits.lshr(16) & 1) + 0x7FFF
    return single.isnan().where(bits | 0x400000, rounded).lshr(16).convert("trunc", "i16")


def from_brain(x: Num) -> Num:
    """16 bits of a bf16 as a float."""
    return (x.convert("zext", "i32") << 16).as_float()


def to_memory(x: Num, dtype: DType) -> Num:
    """A component as it is stored."""
    if dtype.kind == "b":
        return x.convert("zext", "i8")
    if dtype.name == "f16":
        return to_half(x)
    return to_brain(x) if dtype.name == "bf16" else x


def from_memory(x: Num, dtype: DType) -> Num:
    """A component as it was loaded."""
    if dtype.kind == "b":
        return x.ne(0)
    if dtype.name == "f16":
        if not x.fn.module.target.half:
            to_half(x.convert("zext", "i32").as_float())
        return from_half(x)
    return from_brain(x) if dtype.name == "bf16" else x
