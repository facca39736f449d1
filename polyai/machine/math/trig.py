"""Trigonometric functions and their inverses.

Method: n = round(x / (pi/2)), r = x - n pi/2 with pi/2 in parts (Cody and Waite), minimax polynomials for sin and cos in
|r| <= pi/4. Lanes with |x| above LARGE go to the C library, which reduces exactly: a branch, seldom taken. Inverse functions
reduce to |x| <= tan(pi/8), or to |x| <= 1/2. Coefficients: tools/minimax.py; pi/2 in parts: fdlibm.

Error bounds in ulp (float, double): sin, cos 1.5, 1.5; tan 1 as float, 3 as double; arctan, arctan2, arcsin, arccos 1 as
float, 2.5 as double. sin, cos and tan of an infinity are NaN, zeros keep their sign.
"""

from __future__ import annotations

from polyai.machine.math.lanes import by_lane
from polyai.machine.math.tools import in_double, integer, pick_rare, polynomial
from polyai.machine.num import Num

SIN = {
    "float": (-0.166666667, 0.00833333187, -0.000198400827, 2.72493901e-6),
    "double": (
        -0.166666666666666667, 0.00833333333333333147, -0.000198412698412650194, 2.75573192193035464e-6,
        -2.50521062200282629e-8, 1.60585296450192199e-10, -7.5865805075456441e-13,
    ),
}  # fmt: skip
COS = {
    "float": (0.0416666647, -0.00138883013, 2.45475372e-5),
    "double": (
        0.0416666666666666654, -0.00138888888888873834, 0.000024801587298744439, -2.7557317260627941e-7,
        2.08761439425034062e-9, -1.13824641884175388e-11,
    ),
}  # fmt: skip
PARTS = {
    "float": (1.5703125, 4.837512969970703e-4, 7.5495336204767227e-8, 2.5633441515945188e-12),
    "double": (1.57079632673412561417, 6.07710050630396597660e-11, 2.02226624871116645580e-21, 8.47842766036889956997e-32),
}
"""pi/2 in parts: the first ones short enough for their product with n to be exact."""

LARGE = {"float": 8192.0, "double": 1048576.0}
INFINITE = float("inf")
HALF_PI = (1.57079632679489655800, 6.12323399573676603587e-17)
ARCTAN = (
    -0.333333333333333333, 0.199999999999999996, -0.142857142857141399, 0.111111111110893113, -0.0909090908920702521,
    0.0769230761259176302, -0.0666666424287524428, 0.0588230276186891551, -0.0526243048019961017, 0.0475442056682879512,
    -0.0429311656758122745, 0.0371918617166746192, -0.0271839593278438775, 0.0118739082503243005,
)  # fmt: skip


def _reduced(x: Num) -> tuple[Num, Num, Num]:
    """The quadrant as an integer, and r in two parts with x = n pi/2 + r."""
    n = (x * 0.6366197723675814).call("roundeven")
    first, second, third, fourth = PARTS[x.elem]
    r = x - n * first
    high = r - n * second
    lost = (r - high) - n * second
    next_high = high - n * third
    lost = lost + ((high - next_high) - n * third) - n * fourth
    top = next_high + lost
    return integer(n), top, (next_high - top) + lost


def _sin(r: Num, low: Num) -> Num:
    """sin(r + low) near 0 (fdlibm's __kernel_sin)."""
    z = r * r
    cube = z * r
    tail = polynomial(z, SIN[r.elem][1:])
    return r - ((z * (low * 0.5 - cube * tail) - low) - cube * SIN[r.elem][0])


def _cos(r: Num, low: Num) -> Num:
    """cos(r + low) near 0 (fdlibm's __kernel_cos)."""
    z = r * r
    half = z * 0.5
    whole = 1.0 - half
    return whole + (((1.0 - whole) - half) + (z * z * polynomial(z, COS[r.elem]) - r * low))


def _both(x: Num) -> tuple[Num, Num, Num]:
    quadrant, r, low = _reduced(x)
    return quadrant, _sin(r, low), _cos(r, low)


def _rare(x: Num) -> Num:
    """Where the C library is asked."""
    return x.call("fabs").gt(LARGE[x.elem]) & x.call("fabs").lt(INFINITE)


def sin(x: Num) -> Num:
    quadrant, s, c = _both(x)
    usual = (quadrant & 1).ne(0).where(c, s)
    usual = (quadrant & 2).ne(0).where(-usual, usual)
    usual = x.eq(0.0).where(x, usual)
    return pick_rare(x, _rare(x), usual, lambda: by_lane("sin", [x]))


def cos(x: Num) -> Num:
    quadrant, s, c = _both(x)
    usual = (quadrant & 1).ne(0).where(s, c)
    usual = ((quadrant + 1) & 2).ne(0).where(-usual, usual)
    return pick_rare(x, _rare(x), usual, lambda: by_lane("cos", [x]))


def tan(x: Num) -> Num:
    if x.elem == "float":
        return in_double(tan, x)
    quadrant, s, c = _both(x)
    turned = (quadrant & 1).ne(0)
    usual = turned.where(-c, s) / turned.where(s, c)
    usual = x.eq(0.0).where(x, usual)
    return pick_rare(x, _rare(x), usual, lambda: by_lane("tan", [x]))


def arctan(x: Num) -> Num:
    if x.elem == "float":
        return in_double(arctan, x)
    size = x.call("fabs")
    return _arctan_ratio(size, size.const(1.0)).copysign(x)


def _arctan_ratio(y: Num, x: Num) -> Num:
    """arctan(y / x) for y, x >= 0, not both 0 or infinite: reduced before the division, so that it rounds once."""
    steep = y.gt(x * 2.414213562373095)
    slanted = y.gt(x * 0.41421356237309503)
    above = steep.where(-x, slanted.where(y - x, y))
    below = steep.where(y, slanted.where(y + x, x))
    t = above / below
    z = t * t
    value = (t * z).fma(polynomial(z, ARCTAN), steep.pick(HALF_PI[1], slanted.pick(HALF_PI[1] / 2, 0.0, y), y))
    return steep.pick(HALF_PI[0], slanted.pick(HALF_PI[0] / 2, 0.0, y), y) + (t + value)


def arctan2(y: Num, x: Num) -> Num:
    """The angle of the point (x, y), with C's values at zeros and infinities."""
    if x.elem == "float":
        return in_double(arctan2, y, x)
    up, right = y.call("fabs"), x.call("fabs")
    corner = up.eq(INFINITE) & right.eq(INFINITE)
    one = x.const(1.0)
    up, right = corner.where(one, up), corner.where(one, right)
    small = up.gt(right).where(up, right).lt(2.0**-1000)
    big = up.gt(right).where(up, right).gt(2.0**1000)
    factor = small.pick(2.0**60, big.pick(2.0**-60, 1.0, x), x)
    angle = _arctan_ratio(up * factor, right * factor)
    angle = (up.eq(0.0) & right.eq(0.0)).pick(0.0, angle, x)
    left = x.bits().lt(0)
    angle = left.where((HALF_PI[0] * 2) - (angle - HALF_PI[1] * 2), angle)
    return (x.isnan() | y.isnan()).where(x + y, angle.copysign(y))


def arcsin(x: Num) -> Num:
    """arctan2(x, sqrt((1 - x)(1 + x))); NaN beyond 1."""
    if x.elem == "float":
        return in_double(arcsin, x)
    size = x.call("fabs")
    other = ((1.0 - size) * (size + 1.0)).call("sqrt")
    return _arctan_ratio(size, other).copysign(x)


def arccos(x: Num) -> Num:
    """2 arctan2(sqrt(1 - x), sqrt(1 + x)); NaN beyond 1."""
    if x.elem == "float":
        return in_double(arccos, x)
    return _arctan_ratio((1.0 - x).call("sqrt"), (x + 1.0).call("sqrt")) * 2.0
