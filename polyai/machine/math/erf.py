"""The error function.

Method: |x| < 1: x + x P(x^2). Beyond, float: 1 - R(|x| - 2.5) with R fitted to erfc, its even and odd part at once, since a chain of
that many multiply-adds is slower than all else; double: 1 - exp(-Q(|x|)) with Q fitted to -log(erfc), weighted by erfc, so that the
error of erf stays level. Coefficients: tools/minimax.py. Error bounds in ulp: float 1.5, double 2.
"""

from __future__ import annotations

from polyai.machine.math.exp import exp
from polyai.machine.math.tools import polynomial
from polyai.machine.num import Num

NEAR = {
    "float": (
        0.128379167, -0.376126385, 0.112837827, -0.0268654458, 0.00522107491, -0.000848471177, 0.000112705461, -9.68013935e-6,
    ),
    "double": (
        0.128379167095512574, -0.376126389031837524, 0.112837916709551204, -0.026866170645129868, 0.00522397762542360878,
        -0.000854832702195592646, 0.000120553329038087629, -0.0000149256475943973729, 1.64620459787460478e-6,
        -1.63646495288825701e-7, 1.4792469453107219e-8, -1.21649675634088998e-9, 8.71046193731283265e-11,
        -4.23312465046192574e-12,
    ),
}  # fmt: skip
MIDDLE, END = 2.5, 3.93
FAR = {
    "float": (
        0.000406954488, -0.00217821747, 0.00544557736, -0.00835128734, 0.00862354454, -0.0061111074, 0.00279461027, -0.000556848294,
        -0.000254381013, 0.000267640687, -8.43721245e-5, -1.65562481e-5, 1.6931626e-5, -6.84820798e-7, -1.0656499e-6,
    ),
    "double": (
        2.94001121886568663e-8, 1.12837889935598555, 0.636620812547735918, 0.102770582554711902, -0.0191275615104745365,
        -0.00020304570905934319, 0.00167583678066022954, -0.000553164957098697783, -0.0000214173110282155548,
        0.000110435049643820442, -0.0000645950829736697132, 0.0000242164246241455626, -6.76442077385188606e-6,
        1.46484796482213536e-6, -2.47199993984898662e-7, 3.20554519094998593e-8, -3.09290334831695902e-9,
        2.09359755841360625e-10, -8.87350891378645532e-12, 1.77162840321463385e-13,
    ),
}  # fmt: skip


def erf(x: Num) -> Num:
    size = x.call("fabs")
    far = x.const(END if x.elem == "float" else 6.0)
    size = far.lt(size).where(far, size)
    near = x.fma(polynomial(x * x, NEAR[x.elem]), x)
    if x.elem == "float":
        from_middle = size - MIDDLE
        square = from_middle * from_middle
        even, odd = (polynomial(square, FAR["float"][n::2]) for n in (0, 1))
        beyond = 1.0 - odd.fma(from_middle, even)
    else:
        beyond = 1.0 - exp(-polynomial(size, FAR["double"]))
    return size.lt(1.0).where(near, beyond.copysign(x))
