"""Powers.

|x|^y = 2^(y log2 |x|). float: in double precision. double: the logarithm and the product in double-double arithmetic (Dekker
1971, with multiply-add), about 2^-62 of relative error, so that y log2 |x| has 10 bits to spare; without a multiply-add
instruction the C library's `pow` lane by lane. Error bounds in ulp: float 1, double 1.2. Special values are those of C's pow.
Integers: squaring, wrapping; a negative exponent gives 0 unless the base is 1 or -1.
"""

from __future__ import annotations

from polyai.machine.math.exp import EXP2, exp2
from polyai.machine.math.lanes import by_lane
from polyai.machine.math.log import LOG2E, log2, split
from polyai.machine.math.tools import polynomial, scale
from polyai.machine.num import Num

INFINITE = float("inf")
NAN = float("nan")
Double = tuple[Num, Num]
"""A number as the unevaluated sum of two doubles, the second at most half an ulp of the first."""

THIRD = (0.3333333333333333, 1.8503717077085942e-17)
ATANH = (
    0.199999999999999999, 0.142857142857147165, 0.111111111108079354, 0.0909090917215182939, 0.0769229701257262617,
    0.0666742748563787944, 0.0585245340408687723, 0.0586846110721389007,
)  # fmt: skip
"""(atanh(s) / s - 1 - s^2/3) / s^4 in powers of s^2."""


def power(x: Num, y: Num) -> Num:
    if x.elem == "float":
        a, b = x.convert("fpext", "double"), y.convert("fpext", "double")
        return _special(a, b, exp2(b * log2(a.call("fabs")))).convert("fptrunc", "float")
    if not x.fn.module.target.fma:
        return by_lane("pow", [x, y])
    high, low = _log2(x.call("fabs"))
    product = y * high
    rest = y.fma(high, -product) + y * low
    settled = product.call("fabs").lt(1100.0)
    rest = settled.pick(rest, 0.0, x)
    top, bottom = x.const(1100.0), x.const(-1100.0)
    product = top.lt(product).where(top, product)
    product = bottom.gt(product).where(bottom, product)
    n = product.call("roundeven")
    r = (product - n) + rest
    grown = scale(r.fma(polynomial(r, EXP2["double"]), 1.0), n)
    size = x.call("fabs")
    rising = y.gt(0.0)
    grown = size.eq(0.0).where(rising.pick(0.0, INFINITE, x), grown)
    grown = size.eq(INFINITE).where(rising.pick(INFINITE, 0.0, x), grown)
    return _special(x, y, (x.isnan() | y.isnan()).where(x + y, grown))


def _log2(x: Num) -> Double:
    """log2 of a positive finite double: k + log2(m), log(m) = 2 atanh(f / (2 + f))."""
    k, m = split(x)
    f = m - 1.0
    d = m + 1.0
    d_low = m - (d - 1.0)
    s = f / d
    s_low = ((-s).fma(d, f) - s * d_low) / d
    z = s * s
    z_low = s.fma(s, -z) + s * s_low * 2.0
    t = z * polynomial(z, ATANH)
    inner = t + THIRD[0]
    inner_low = ((THIRD[0] - inner) + t) + THIRD[1]
    w = z * inner
    w_low = z.fma(inner, -w) + (z * inner_low + z_low * inner)
    u = w + 1.0
    u_low = ((1.0 - u) + w) + w_low
    half = s * u
    half_low = s.fma(u, -half) + (s * u_low + s_low * u)
    whole, whole_low = half + half, half_low + half_low
    g = whole * LOG2E["double"][0]
    g_low = whole.fma(LOG2E["double"][0], -g) + (whole * LOG2E["double"][1] + whole_low * LOG2E["double"][0])
    e = k + g
    return e, ((k - e) + g) + g_low


def _special(x: Num, y: Num, grown: Num) -> Num:
    """The sign of the result, and the cases that are decided without computing |x|^y = `grown`."""
    whole = y.call("trunc").eq(y)
    half = y * 0.5
    odd = whole & half.call("trunc").ne(half)
    grown = (x.bits().lt(0) & odd).where(-grown, grown)
    lost = x.lt(0.0) & ~whole & x.ne(-INFINITE)
    grown = lost.pick(NAN, grown, x)
    one = y.eq(0.0) | x.eq(1.0) | (x.eq(-1.0) & y.call("fabs").eq(INFINITE))
    return one.pick(1.0, grown, x)


def integer_power(x: Num, y: Num) -> Num:
    return _by_squaring(x, y, signed=True)


def unsigned_power(x: Num, y: Num) -> Num:
    return _by_squaring(x, y, signed=False)


def _by_squaring(x: Num, y: Num, signed: bool) -> Num:
    """Wrapping power; all lanes take as many rounds as the largest exponent needs."""
    fn, kind = x.fn, x.kind
    start, test, after = fn.at, fn.label("square"), fn.label("done")
    fn.do(f"br label %{test}")
    fn.start(test)
    phis = [fn.phi(kind) for _ in range(3)]
    result, base, left = (Num(fn, x.elem, x.lanes, ref) for ref, _ in phis)
    taken = (left & 1).ne(0).where(result * base, result)
    squared, rest = base * base, left.lshr(1)
    fn.do(f"br i1 {rest.ne(0).any().ref}, label %{test}, label %{after}")
    for (_, close), first, following in zip(phis, (x.const(1), x, y), (taken, squared, rest)):
        close([(first.ref, start), (following.ref, test)])
    fn.start(after)
    if not signed:
        return taken
    unit = x.eq(1) | x.eq(-1)
    sign = ((y & 1).ne(0) & x.eq(-1)).pick(-1, 1, x)
    return y.lt(0).where(unit.pick(sign, 0, x), taken)
