"""Logarithms, and the inverse hyperbolic functions made from log1p.

Method: x = 2^k m with m in [sqrt(1/2), sqrt(2)), f = m - 1, s = f / (2 + f); log m = f - f^2/2 + s (f^2/2 + R(s^2)) as in
fdlibm (Sun Microsystems, 1993), with coefficients from tools/minimax.py.

Error bounds in ulp (float, double): log 1, 1; log2 1.5, 1.5; log10 2, 2; log1p 1.5, 1.5; arcsinh, arccosh, arctanh 1 as
float, 4 as double. Zero gives -inf, negative numbers NaN; subnormal numbers are exact.
"""

from __future__ import annotations

from polyai.machine.math.tools import in_double, polynomial
from polyai.machine.num import Num

LOG = {
    "float": (0.666666665, 0.400001265, 0.285503151, 0.233437816),
    "double": (
        0.666666666666666995, 0.399999999998921585, 0.285714286292302074, 0.222222106139328897, 0.181829264303898113,
        0.153305001150606248, 0.146313458821115229,
    ),
}  # fmt: skip
LN2 = {"float": (6.9313812256e-01, 9.0580006145e-06), "double": (6.93147180369123816490e-01, 1.90821492927058770002e-10)}
INFINITE = float("inf")
NAN = float("nan")
LOG2E = {"float": (1.4426950216293335, 1.9259629911266175e-8), "double": (1.4426950408889634, 2.0355273740931032e-17)}
LOG10E = (0.4342944819032518, 1.0983196502167651e-17)
LOG10_2 = (3.01029995663611771306e-01, 3.69423907715893078616e-13)
"""log2(e), log10(e) and log10(2) in two parts; the product of the last one's first part with k is exact."""


def split(x: Num) -> tuple[Num, Num]:
    """k as a float and m with x = 2^k m, sqrt(1/2) <= m < sqrt(2); x positive and finite."""
    single = x.elem == "float"
    shift, smallest, ground = (23, 2.0**-126, 0x3F3504F3) if single else (52, 2.0**-1022, 0x3FE6A09E667F3BCD)
    tiny = x.lt(smallest)
    lift = 25.0 if single else 54.0
    bits = tiny.where(x * 2.0**lift, x).bits()
    k = (bits - ground) >> shift
    m = (bits - (k << shift)).as_float()
    return k.convert("sitofp", x.elem) - tiny.pick(lift, 0.0, x), m


def _special(x: Num, result: Num) -> Num:
    """The values of a logarithm that are no number: log 0, log of negative numbers, of infinity and NaN."""
    result = x.eq(INFINITE).where(x, result)
    result = x.eq(0.0).pick(-INFINITE, result, x)
    return x.below(0.0).pick(NAN, result, x)


def _pieces(f: Num) -> tuple[Num, Num]:
    """f^2/2, and s (f^2/2 + R): log(1 + f) = f - (first - second)."""
    s = f / (f + 2.0)
    z = s * s
    half = f * f * 0.5
    return half, s * (half + z * polynomial(z, LOG[f.elem]))


def log(x: Num) -> Num:
    k, m = split(x)
    f = m - 1.0
    half, rest = _pieces(f)
    high, low = LN2[x.elem]
    return _special(x, k.fma(high, f - (half - (k.fma(low, rest)))))


def _in_base(x: Num, factor: tuple[float, float], two: tuple[float, float]) -> Num:
    """log x times `factor`, with log m in two parts; `two` is the logarithm of 2 in the base."""
    k, m = split(x)
    f = m - 1.0
    half, rest = _pieces(f)
    high = f - half
    low = (f - high) - half + rest
    product = high * factor[0]
    error = high.fma(factor[0], -product) + low * factor[0] + high * factor[1]
    base = k * two[0]
    total = base + product
    return _special(x, total + (error + ((base - total) + product) + k * two[1]))


def log2(x: Num) -> Num:
    return _in_base(x, LOG2E[x.elem], (1.0, 0.0))


def log10(x: Num) -> Num:
    return in_double(log10, x) if x.elem == "float" else _in_base(x, LOG10E, LOG10_2)


def log1p(x: Num) -> Num:
    """log(1 + x) with the rounding error of 1 + x put back."""
    u = x + 1.0
    k, m = split(u)
    lost = k.ge(2.0).where(1.0 - (u - x), x - (u - 1.0)) / u
    near = k.eq(0.0)
    f = near.where(x, m - 1.0)
    half, rest = _pieces(f)
    high, low = LN2[x.elem]
    lost = near.pick(0.0, lost, x)
    value = k.fma(high, f - (half - (rest + k.fma(low, lost))))
    value = x.eq(INFINITE).where(x, value)
    value = x.eq(0.0).where(x, value)
    value = x.eq(-1.0).pick(-INFINITE, value, x)
    return x.below(-1.0).pick(NAN, value, x)


LARGE = 2.0**28


def arcsinh(x: Num) -> Num:
    if x.elem == "float":
        return in_double(arcsinh, x)
    size = x.call("fabs")
    square = size * size
    near = log1p(size + square / ((square + 1.0).call("sqrt") + 1.0))
    return size.gt(LARGE).where(log(size) + 0.6931471805599453, near).copysign(x)


def arccosh(x: Num) -> Num:
    """log1p(t + sqrt(2 t + t^2)) with t = x - 1; NaN below 1."""
    if x.elem == "float":
        return in_double(arccosh, x)
    t = x - 1.0
    near = log1p(t + (t * (t + 2.0)).call("sqrt"))
    near = x.lt(1.0).pick(NAN, near, x)
    return x.gt(LARGE).where(log(x) + 0.6931471805599453, near)


def arctanh(x: Num) -> Num:
    """log1p(2 x / (1 - x)) / 2; infinite at 1, NaN beyond."""
    if x.elem == "float":
        return in_double(arctanh, x)
    size = x.call("fabs")
    return (log1p((size + size) / (1.0 - size)) * 0.5).copysign(x)
