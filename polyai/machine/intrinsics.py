"""The instructions of each operation of `scalar.ops`, for real types. One table: name -> function(dtype, numbers) -> number.

Integer arithmetic wraps; division by zero gives 0 and the lowest number by -1 wraps, as in NumPy, without a trap. max and min
pass NaN on. `dtype` is the type the operands share.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from polyai.machine.num import Num
from polyai.machine.types import bits_of, vector
from polyai.scalar.dtype import DType
from polyai.term.late import late

if TYPE_CHECKING:
    from polyai.machine.math import library
else:
    library = late("polyai.machine.math.library")

Rule = Callable[..., Num]
INFINITE = float("inf")


def add(t: DType, a: Num, b: Num) -> Num:
    return a | b if t.kind == "b" else a + b


def sub(t: DType, a: Num, b: Num) -> Num:
    return a ^ b if t.kind == "b" else a - b


def mul(t: DType, a: Num, b: Num) -> Num:
    return a & b if t.kind == "b" else a * b


def div(t: DType, a: Num, b: Num) -> Num:
    return a / b


def neg(t: DType, a: Num) -> Num:
    return -a


def absolute(t: DType, a: Num) -> Num:
    if t.kind in "ub":
        return a
    if t.is_float:
        return a.call("fabs")
    return a.lt(0).where(-a, a)


def sign(t: DType, a: Num) -> Num:
    """-1, 0 or 1; NaN and zeros stay."""
    if t.kind == "b":
        return a
    positive = a.ne(0) if t.kind == "u" else a.gt(0)
    above = positive.pick(1, a, a)
    return above if t.kind == "u" else a.lt(0).pick(-1, above, a)


def square(t: DType, a: Num) -> Num:
    return mul(t, a, a)


def _rounding(name: str) -> Rule:
    def rule(t: DType, a: Num) -> Num:
        return a.call(name) if t.is_float else a

    return rule


def _math(name: str) -> Rule:
    def rule(t: DType, *args: Num) -> Num:
        return library.call(name, *args)

    return rule


def sqrt(t: DType, a: Num) -> Num:
    return a.call("sqrt")


def reciprocal(t: DType, a: Num) -> Num:
    return 1.0 / a


def isnan(t: DType, a: Num) -> Num:
    return a.isnan() if t.is_float else a.const(0, "i1")


def isinf(t: DType, a: Num) -> Num:
    return a.call("fabs").eq(INFINITE) if t.is_float else a.const(0, "i1")


def isfinite(t: DType, a: Num) -> Num:
    return a.call("fabs").lt(INFINITE) if t.is_float else a.const(1, "i1")


def invert(t: DType, a: Num) -> Num:
    return ~a


def _divisor(t: DType, a: Num, b: Num) -> tuple[Num, Num]:
    """A divisor that cannot trap, and where the given one is zero."""
    zero = b.eq(0)
    bad = zero
    if t.kind == "i":
        lowest = a.eq(-(1 << (bits_of(a.elem) - 1)))
        bad = zero | (lowest & b.eq(-1))
    return bad.pick(1, b, b), zero


def floordiv(t: DType, a: Num, b: Num) -> Num:
    if t.is_float:
        return float_divmod(a, b)[0]
    safe, zero = _divisor(t, a, b)
    if t.kind in "ub":
        return zero.pick(0, a._two("udiv", safe), a)
    quotient = a._two("sdiv", safe)
    left = a - quotient * safe
    down = left.ne(0) & (left ^ safe).lt(0)
    return zero.pick(0, quotient - down.resized(a.elem, False), a)


def mod(t: DType, a: Num, b: Num) -> Num:
    if t.is_float:
        return float_divmod(a, b)[1]
    safe, zero = _divisor(t, a, b)
    if t.kind in "ub":
        return zero.pick(0, a._two("urem", safe), a)
    left = a._two("srem", safe)
    other = left.ne(0) & (left ^ safe).lt(0)
    return zero.pick(0, other.where(left + safe, left), a)


def float_divmod(a: Num, b: Num) -> tuple[Num, Num]:
    """Floor division and its remainder as NumPy computes them: the remainder exactly, then the quotient from it."""
    left = library.call("fmod", a, b)
    quotient = (a - left) / b
    other = left.ne(0.0) & (b.lt(0.0) ^ left.lt(0.0))
    left_b, quotient_b = other.where(left + b, left), other.where(quotient - 1.0, quotient)
    left_b = left.eq(0.0).where(left.const(0.0).copysign(b), left_b)
    floor = quotient_b.call("floor")
    floor = (quotient_b - floor).gt(0.5).where(floor + 1.0, floor)
    floor = quotient_b.eq(0.0).where(floor.const(0.0).copysign(a / b), floor)
    zero = b.eq(0.0)
    return zero.where(a / b, floor), left_b


def constant_divmod(t: DType, a: Num, divisor: int) -> tuple[Num, Num]:
    """Floor division of a signed or unsigned integer by a positive constant, and its remainder."""
    if divisor & (divisor - 1) == 0:
        shift = divisor.bit_length() - 1
        return (a >> shift if t.kind == "i" else a.lshr(shift)), a & (divisor - 1)
    if t.kind != "i":
        return a._two("udiv", divisor), a._two("urem", divisor)
    quotient, left = a._two("sdiv", divisor), a._two("srem", divisor)
    down = left.lt(0)
    return quotient - down.resized(a.elem, False), down.where(left + divisor, left)


def power(t: DType, a: Num, b: Num) -> Num:
    if t.is_float:
        return library.call("pow", a, b)
    if t.kind == "b":
        return a | ~b
    return library.call("ipow" if t.kind == "i" else "upow", a, b)


def _in_lanes(a: Num) -> Num:
    """A scalar as the first lane of the smallest vector."""
    lanes = 128 // bits_of(a.elem)
    kind = vector(a.elem, lanes)
    return Num(a.fn, a.elem, lanes, a.fn.op(f"insertelement {kind} poison, {a.kind} {a.ref}, i64 0"))


def _extreme(ordered: str, signed: str, unsigned: str) -> Rule:
    def rule(t: DType, a: Num, b: Num) -> Num:
        if t.is_float and a.lanes == 1:  # in a vector: comparing scalars goes through the flags, and the choice through integer registers
            wide = rule(t, _in_lanes(a), _in_lanes(b))
            return Num(a.fn, a.elem, 1, a.fn.op(f"extractelement {wide.kind} {wide.ref}, i64 0"))
        if t.is_float:
            first = a.of(f"fcmp {ordered} {a.kind} {a.ref}, {b.ref}", "i1").where(a, b)
            return a.isnan().where(a, first)
        if t.kind == "b":
            return a | b if unsigned == "ugt" else a & b
        name = unsigned if t.kind == "u" else signed
        return a.of(f"icmp {name} {a.kind} {a.ref}, {b.ref}", "i1").where(a, b)

    return rule


def extreme_of_constant(op: str, a: Num, constant: Num) -> Num:
    """max or min of floats where one is a constant and not NaN: one instruction, NaN still passes."""
    beats = constant.gt(a) if op == "max" else constant.lt(a)
    return beats.where(constant, a)


def _comparison(signed: str, unsigned: str) -> Rule:
    def rule(t: DType, a: Num, b: Num) -> Num:
        if t.is_float or t.kind == "i" or unsigned in ("eq", "ne"):
            compared: Num = getattr(a, signed)(b)
            return compared
        return a.of(f"icmp {unsigned} {a.kind} {a.ref}, {b.ref}", "i1")

    return rule


def bitand(t: DType, a: Num, b: Num) -> Num:
    return a & b


def bitor(t: DType, a: Num, b: Num) -> Num:
    return a | b


def bitxor(t: DType, a: Num, b: Num) -> Num:
    return a ^ b


def _inside(a: Num, b: Num) -> tuple[Num, Num]:
    """Whether the shift count b is less than the width, and a count that is."""
    width = bits_of(a.elem)
    return b.of(f"icmp ult {b.kind} {b.ref}, {b.const(width).ref}", "i1"), b & (width - 1)


def shl(t: DType, a: Num, b: Num) -> Num:
    inside, count = _inside(a, b)
    return inside.pick(a << count, 0, a)


def shr(t: DType, a: Num, b: Num) -> Num:
    inside, count = _inside(a, b)
    if t.kind == "u":
        return inside.pick(a.lshr(count), 0, a)
    return inside.where(a >> count, a >> (bits_of(a.elem) - 1))


def ctz(t: DType, a: Num) -> Num:
    return Num(a.fn, a.elem, a.lanes, a.fn.intrinsic(f"llvm.cttz.{_suffix(a)}", a.kind, (a.kind, a.ref), ("i1", "false")))


def _suffix(a: Num) -> str:
    return a.elem if a.lanes == 1 else f"v{a.lanes}{a.elem}"


def bit(t: DType, a: Num) -> Num:
    return a.const(1) << (a & (bits_of(a.elem) - 1))


REAL: dict[str, Rule] = {
    "add": add, "sub": sub, "mul": mul, "div": div, "neg": neg, "abs": absolute, "sign": sign, "square": square,
    "floor": _rounding("floor"), "ceil": _rounding("ceil"), "trunc": _rounding("trunc"), "round": _rounding("roundeven"),
    "sqrt": sqrt, "reciprocal": reciprocal, "isnan": isnan, "isinf": isinf, "isfinite": isfinite, "invert": invert,
    "conj": lambda t, a: a, "real": lambda t, a: a, "imag": lambda t, a: a.const(0),
    "floordiv": floordiv, "mod": mod, "pow": power,
    "max": _extreme("ogt", "sgt", "ugt"), "min": _extreme("olt", "slt", "ult"),
    "eq": _comparison("eq", "eq"), "ne": _comparison("ne", "ne"), "lt": _comparison("lt", "ult"),
    "le": _comparison("le", "ule"), "gt": _comparison("gt", "ugt"), "ge": _comparison("ge", "uge"),
    "bitand": bitand, "bitor": bitor, "bitxor": bitxor, "shl": shl, "shr": shr,
    "popcount": lambda t, a: a.call("ctpop"), "ctz": ctz, "bit": bit, "bits": lambda t, a: a.bits(),
}  # fmt: skip

LIBRARY = (
    "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sin", "cos", "tan", "arcsin", "arccos", "arctan", "arctan2",
    "sinh", "cosh", "tanh", "arcsinh", "arccosh", "arctanh", "erf",
)  # fmt: skip
REAL.update({name: _math(name) for name in LIBRARY})

LOGIC: dict[str, Callable[[Num, Num], Num]] = {"and": lambda a, b: a & b, "or": lambda a, b: a | b, "xor": lambda a, b: a ^ b}
