"""Operations on complex values, component by component. Products and quotients follow NumPy's formulas."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from polyai.machine.num import Num
from polyai.machine.values import Value, boolean
from polyai.scalar import dtype as dt
from polyai.scalar.dtype import DType
from polyai.term.late import late

if TYPE_CHECKING:
    from polyai.machine.math import library
else:
    library = late("polyai.machine.math.library")

Pair = tuple[Num, Num]
Op = Callable[..., Pair]


def parts(value: Value) -> Pair:
    return value.re, value.im if value.im is not None else value.re.const(0.0)


def add(a: Pair, b: Pair) -> Pair:
    return a[0] + b[0], a[1] + b[1]


def sub(a: Pair, b: Pair) -> Pair:
    return a[0] - b[0], a[1] - b[1]


def mul(a: Pair, b: Pair) -> Pair:
    return a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]


def div(a: Pair, b: Pair) -> Pair:
    """Smith's algorithm: scaled by the larger component of the divisor, so that it does not overflow early."""
    first = b[0].call("fabs").ge(b[1].call("fabs"))
    large, small = first.where(b[0], b[1]), first.where(b[1], b[0])
    zero = large.eq(0.0)
    ratio = zero.where(small, small / large)
    scale = 1.0 / (large + small * ratio)
    p, q = first.where(a[0], a[1]), first.where(a[1], a[0])
    re = (p + q * ratio) * scale
    cross = (q - p * ratio) * scale
    by_zero = a[0] / large.call("fabs"), a[1] / large.call("fabs")
    return zero.where(by_zero[0], re), zero.where(by_zero[1], first.where(cross, -cross))


def neg(a: Pair) -> Pair:
    return -a[0], -a[1]


def conj(a: Pair) -> Pair:
    return a[0], -a[1]


def magnitude(a: Pair) -> Num:
    """|a| without early overflow: singles in double precision, doubles scaled by the larger component (2 ulp)."""
    re, im = a[0].call("fabs"), a[1].call("fabs")
    infinite = re.eq(float("inf")) | im.eq(float("inf"))
    if re.elem == "float":
        wide = re.convert("fpext", "double"), im.convert("fpext", "double")
        plain = (wide[0] * wide[0] + wide[1] * wide[1]).call("sqrt").convert("fptrunc", "float")
    else:
        large, small = re.gt(im).where(re, im), re.gt(im).where(im, re)
        ratio = large.eq(0.0).where(small, small / large)
        plain = large * ratio.fma(ratio, 1.0).call("sqrt")
        plain = (re.isnan() | im.isnan()).where(re + im, plain)
    return infinite.where(re.const(float("inf")), plain)


def exp(a: Pair) -> Pair:
    """e^re (cos im + i sin im); a zero imaginary part stays one."""
    grown = library.call("exp", a[0])
    still = a[1].eq(0.0)
    re = still.where(grown, grown * library.call("cos", a[1]))
    return re, still.where(a[1], grown * library.call("sin", a[1]))


def log(a: Pair) -> Pair:
    return library.call("log", magnitude(a)), library.call("arctan2", a[1], a[0])


def sqrt(a: Pair) -> Pair:
    """Kahan's formula: the larger half first, the other by division."""
    size = magnitude(a)
    half = ((size + a[0].call("fabs")) * 0.5).call("sqrt")
    other = half.eq(0.0).where(a[1].call("fabs"), a[1].call("fabs") / (half * 2.0))
    right = a[0].ge(0.0)
    im = right.where(other, half).copysign(a[1])
    return right.where(half, other), im


def sin(a: Pair) -> Pair:
    return library.call("sin", a[0]) * library.call("cosh", a[1]), library.call("cos", a[0]) * library.call("sinh", a[1])


def cos(a: Pair) -> Pair:
    return library.call("cos", a[0]) * library.call("cosh", a[1]), -(library.call("sin", a[0]) * library.call("sinh", a[1]))


def sinh(a: Pair) -> Pair:
    return library.call("sinh", a[0]) * library.call("cos", a[1]), library.call("cosh", a[0]) * library.call("sin", a[1])


def cosh(a: Pair) -> Pair:
    return library.call("cosh", a[0]) * library.call("cos", a[1]), library.call("sinh", a[0]) * library.call("sin", a[1])


def tanh(a: Pair) -> Pair:
    """(tanh x + i tan y) / (1 + i tanh x tan y), divided out; far from the origin it is +-1."""
    t, u = library.call("tanh", a[0]), library.call("tan", a[1])
    below = (t * u) * (t * u) + 1.0
    far = a[0].call("fabs").gt(20.0)
    re = t * (u * u + 1.0) / below
    fallen = (1.0 - t * t) * u / below
    return far.where(re.const(1.0).copysign(a[0]), re), far.where(re.const(0.0).copysign(u), fallen)


def power(a: Pair, b: Pair) -> Pair:
    """e^(b log a); exactly 1 for b = 0; for a = 0 it is 0 if b is real and positive, else NaN."""
    grown = exp(mul(b, log(a)))
    none = b[0].eq(0.0) & b[1].eq(0.0)
    zero = a[0].eq(0.0) & a[1].eq(0.0)
    at_zero = (b[0].gt(0.0) & b[1].eq(0.0)).pick(0.0, float("nan"), a[0])
    re = none.where(a[0].const(1.0), zero.where(at_zero, grown[0]))
    return re, none.where(a[0].const(0.0), zero.where(at_zero, grown[1]))


def sign(a: Pair) -> Pair:
    size = magnitude(a)
    zero = size.eq(0.0)
    return zero.where(a[0], a[0] / size), zero.where(a[1], a[1] / size)


def scaled(function: Op, factor: float) -> Op:
    """`function` times a real factor; log2 and log10 from log."""

    def apply(a: Pair) -> Pair:
        re, im = function(a)
        return re * factor, im * factor

    return apply


def reciprocal(a: Pair) -> Pair:
    return div((a[0].const(1.0), a[0].const(0.0)), a)


def expm1(a: Pair) -> Pair:
    """Without cancellation: e^x cos y - 1 = expm1(x) - 2 e^x sin(y/2)^2."""
    grown, half = library.call("exp", a[0]), library.call("sin", a[1] * 0.5)
    return library.call("expm1", a[0]) - grown * half * half * 2.0, grown * library.call("sin", a[1])


def log1p(a: Pair) -> Pair:
    """Real part 0.5 log1p(x (2 + x) + y^2) near the origin."""
    re, im = a
    near = (re.call("fabs").lt(0.5)) & (im.call("fabs").lt(0.5))
    size = magnitude((re + 1.0, im))
    small = library.call("log1p", re * (re + 2.0) + im * im) * 0.5
    return near.where(small, library.call("log", size)), library.call("arctan2", im, re + 1.0)


def exp2(a: Pair) -> Pair:
    return exp((a[0] * 0.6931471805599453, a[1] * 0.6931471805599453))


UNARY: dict[str, Callable[[Pair], Pair]] = {
    "neg": neg, "conj": conj, "square": lambda a: mul(a, a), "sign": sign, "reciprocal": reciprocal,
    "exp": exp, "exp2": exp2, "expm1": expm1, "log": log, "log1p": log1p,
    "log2": scaled(log, 1.4426950408889634), "log10": scaled(log, 0.4342944819032518),
    "sqrt": sqrt, "sin": sin, "cos": cos, "sinh": sinh, "cosh": cosh, "tanh": tanh,
}  # fmt: skip

BINARY: dict[str, Callable[[Pair, Pair], Pair]] = {"add": add, "sub": sub, "mul": mul, "div": div, "pow": power}


def _round(a: Pair) -> Pair:
    return a[0].call("roundeven"), a[1].call("roundeven")


def _tan(a: Pair) -> Pair:
    """-i tanh(i a)."""
    re, im = tanh((-a[1], a[0]))
    return im, -re


UNARY["round"] = _round
UNARY["tan"] = _tan


def _less(a: Pair, b: Pair, strict: bool) -> Num:
    """The order of NumPy: by real part, then by imaginary part."""
    tie = a[1].lt(b[1]) if strict else a[1].le(b[1])
    return a[0].lt(b[0]) | (a[0].eq(b[0]) & tie)


COMPARE: dict[str, Callable[[Pair, Pair], Num]] = {
    "eq": lambda a, b: a[0].eq(b[0]) & a[1].eq(b[1]),
    "ne": lambda a, b: a[0].ne(b[0]) | a[1].ne(b[1]),
    "lt": lambda a, b: _less(a, b, True),
    "le": lambda a, b: _less(a, b, False),
    "gt": lambda a, b: _less(b, a, True),
    "ge": lambda a, b: _less(b, a, False),
}

INFINITE = float("inf")

TO_REAL: dict[str, Callable[[Pair], Num]] = {"abs": magnitude, "real": lambda a: a[0], "imag": lambda a: a[1]}

TO_BOOL: dict[str, Callable[[Pair], Num]] = {
    "isnan": lambda a: a[0].isnan() | a[1].isnan(),
    "isinf": lambda a: a[0].call("fabs").eq(INFINITE) | a[1].call("fabs").eq(INFINITE),
    "isfinite": lambda a: a[0].call("fabs").lt(INFINITE) & a[1].call("fabs").lt(INFINITE),
}


def apply(op: str, dtype: DType, args: list[Value]) -> Value | None:
    """`op` on complex values, or None if it has no complex form here."""
    pairs = [parts(a) for a in args]
    lanes = args[0].lanes
    if op in TO_BOOL:
        return boolean(TO_BOOL[op](pairs[0]))
    if op in COMPARE:
        return boolean(COMPARE[op](pairs[0], pairs[1]))
    if op in TO_REAL:
        return Value(dt.real_of(args[0].dtype), lanes, TO_REAL[op](pairs[0]))
    if op in UNARY:
        return Value(dtype, lanes, *UNARY[op](pairs[0]))
    if op in BINARY:
        return Value(dtype, lanes, *BINARY[op](pairs[0], pairs[1]))
    return None
