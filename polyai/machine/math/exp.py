"""exp, exp2, expm1 and the hyperbolic functions.

Method: n = round(x / ln 2), r = x - n ln 2 in two steps, a minimax polynomial in |r| <= ln(2)/2, and a scaling by 2^n that
rounds once, so that results below the smallest normal number are right too (Muller, Elementary Functions, ch. 11).
Coefficients: tools/minimax.py.

Error bounds in ulp (float, double): exp 1.1, 1.1; exp2 1.2, 1.2; expm1 1.7, 1.7; tanh 3, 3; sinh 2.5 (1 as float), 2.5;
cosh 3 (1 as float), 3. NaN stays, infinities give their limits, expm1, tanh and sinh keep -0.
"""

from __future__ import annotations

from polyai.machine.math.tools import in_double, polynomial, scale
from polyai.machine.num import Num

EXP = {
    "float": (0.50000001, 0.166665177, 0.0416662006, 0.00836902516, 0.00139508252),
    "double": (
        0.500000000000001298, 0.166666666666666998, 0.0416666666665131142, 0.00833333333330674693, 0.00138888889476804283,
        0.000198412699183818825, 0.0000248014892005759339, 2.75572154083020223e-6, 2.76315618105957193e-7,
        2.51181434074288646e-8,
    ),
}  # fmt: skip
EXPM1 = {
    "float": (0.500000001, 0.166666668, 0.0416664633, 0.0083332857, 0.00139338235, 0.000199078009),
    "double": (
        0.5, 0.166666666666666711, 0.0416666666666666841, 0.00833333333332602434, 0.0013888888888874172,
        0.000198412698752066761, 0.0000248015873478675538, 2.75572549118145176e-6, 2.75572524073039799e-7,
        2.51054198000048706e-8, 2.09217586102101094e-9,
    ),
}  # fmt: skip
EXP2 = {
    "float": (0.693147181, 0.240226509, 0.0555041093, 0.00961805609, 0.00133334539, 0.0001546168, 1.53102682e-5),
    "double": (
        0.693147180559945309, 0.240226506959100712, 0.0555041086648215799, 0.00961812910762848317, 0.00133335581464284527,
        0.000154035303933624504, 0.0000152527338040399962, 1.32154868163129909e-6, 1.01780860297701407e-7,
        7.05489424751580607e-9, 4.44552725781581584e-10, 2.57337899764582992e-11, 1.37210297259814474e-12,
    ),
}  # fmt: skip
LN2 = {"float": (0.693359375, -2.12194440e-4), "double": (6.93147180369123816490e-01, 1.90821492927058770002e-10)}
"""ln 2 in two parts; the first has trailing zeros, so that its product with n is exact (fdlibm, Cephes)."""

LOG2E = 1.4426950408889634
HIGHEST = {"float": 89.0, "double": 710.0}
LOWEST = {"float": -105.0, "double": -746.0}
HIGHEST2 = {"float": 129.0, "double": 1025.0}
LOWEST2 = {"float": -151.0, "double": -1076.0}


def _clamped(x: Num, low: float, high: float) -> Num:
    """x within [low, high]; NaN stays."""
    top, bottom = x.const(high), x.const(low)
    x = top.lt(x).where(top, x)
    return bottom.gt(x).where(bottom, x)


def _reduced(x: Num) -> tuple[Num, Num]:
    """n and r with x = n ln 2 + r."""
    n = (x * LOG2E).call("roundeven")
    high, low = LN2[x.elem]
    return n, n.fma(-low, n.fma(-high, x))


def exp(x: Num) -> Num:
    n, r = _reduced(_clamped(x, LOWEST[x.elem], HIGHEST[x.elem]))
    tail = polynomial(r, EXP[x.elem])
    return scale((r * r).fma(tail, r) + 1.0, n)


def exp2(x: Num) -> Num:
    x = _clamped(x, LOWEST2[x.elem], HIGHEST2[x.elem])
    n = x.call("roundeven")
    r = x - n
    return scale(r.fma(polynomial(r, EXP2[x.elem]), 1.0), n)


def expm1(x: Num) -> Num:
    """2 (s e + (s - 1/2)) with e = e^r - 1 and s = 2^(n-1); no cancellation as s - 1/2 is exact."""
    n, r = _reduced(_clamped(x, -60.0, HIGHEST[x.elem]))
    e = (r * r).fma(polynomial(r, EXPM1[x.elem]), r)
    half = scale(x.const(1.0), n - 1.0)
    grown = half.fma(e, half - 0.5) * 2.0
    return x.eq(0.0).where(x, grown)


def tanh(x: Num) -> Num:
    """e / (e + 2) with e = expm1(2 |x|)."""
    size = x.call("fabs")
    far = x.const(10.0 if x.elem == "float" else 22.0)
    size = far.lt(size).where(far, size)
    e = expm1(size + size)
    return (e / (e + 2.0)).copysign(x)


def sinh(x: Num) -> Num:
    """(e + e / (e + 1)) / 2 with e = expm1(|x|), and e^(|x|/2) squared where that would overflow."""
    if x.elem == "float":
        return in_double(sinh, x)
    size = x.call("fabs")
    e = expm1(size)
    root = exp(size * 0.5)
    near = (e + e / (e + 1.0)) * 0.5
    return size.gt(22.0).where(root * 0.5 * root, near).copysign(x)


def cosh(x: Num) -> Num:
    """e / 2 + 1 / (2 e) with e = exp(|x|), and e^(|x|/2) squared where that would overflow."""
    if x.elem == "float":
        return in_double(cosh, x)
    size = x.call("fabs")
    e, root = exp(size), exp(size * 0.5)
    return size.gt(22.0).where(root * 0.5 * root, e.fma(0.5, 0.5 / e))
