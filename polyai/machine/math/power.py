"""Powers.

float: exp2(y log2(x)) in double precision, at most 1 ulp. double: the C library's `pow`, lane by lane (glibc: at most 1 ulp).
Integers: squaring; a negative exponent gives 0 unless the base is 1 or -1. Special values are those of C's pow.
"""

from __future__ import annotations

from polyai.machine.math.exp import exp2
from polyai.machine.math.lanes import by_lane
from polyai.machine.math.log import log2
from polyai.machine.num import Num

INFINITE = float("inf")


def power(x: Num, y: Num) -> Num:
    if x.elem == "double":
        return by_lane("pow", [x, y])
    a, b = x.convert("fpext", "double"), y.convert("fpext", "double")
    size = a.call("fabs")
    grown = exp2(b * log2(size))
    whole = b.call("trunc").eq(b)
    half = b * 0.5
    odd = whole & half.call("trunc").ne(half)
    grown = (a.bits().lt(0) & odd).where(-grown, grown)
    lost = a.lt(0.0) & ~whole & size.ne(INFINITE)
    grown = lost.pick(float("nan"), grown, a)
    one = b.eq(0.0) | a.eq(1.0) | (a.eq(-1.0) & b.call("fabs").eq(INFINITE))
    return one.pick(1.0, grown, a).convert("fptrunc", "float")


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
