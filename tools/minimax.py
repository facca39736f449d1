"""Prints the polynomial coefficients used in polyai/machine/math: weighted minimax fits by Remez' exchange, in mpmath.

    python tools/minimax.py [name ...]

Each fit minimises max |weight(x) * (P(x) - f(x))| over an interval. Coefficients are printed lowest degree first.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import mpmath as mp

mp.mp.dps = 40
Real = Any
Function = Callable[[Real], Real]


def remez(f: Function, weight: Function, low: Real, high: Real, degree: int, rounds: int = 12) -> tuple[list[Real], Real]:
    """The coefficients of the weighted minimax polynomial, and its error."""
    low, high, n = mp.mpf(low), mp.mpf(high), degree + 2
    nodes = [(low + high) / 2 - (high - low) / 2 * mp.cos(mp.pi * k / (n - 1)) for k in range(n)]
    dense = [(low + high) / 2 - (high - low) / 2 * mp.cos(mp.pi * k / (40 * n)) for k in range(40 * n + 1)]
    known = [(f(x), weight(x)) for x in dense]
    coefficients: list[Real] = []
    error = mp.mpf(0)
    for _ in range(rounds):
        rows = [[x**k for k in range(degree + 1)] + [(-1) ** i / weight(x)] for i, x in enumerate(nodes)]
        solved = mp.lu_solve(mp.matrix(rows), mp.matrix([f(x) for x in nodes]))
        coefficients = [solved[k] for k in range(degree + 1)]
        errors = [w * (mp.polyval(coefficients[::-1], x) - y) for x, (y, w) in zip(dense, known)]
        error = max(abs(e) for e in errors)
        peaks = extremes(errors)
        while len(peaks) > n:
            peaks.pop(0 if abs(errors[peaks[0]]) < abs(errors[peaks[-1]]) else -1)
        if len(peaks) < n:
            break
        nodes = [dense[k] for k in peaks]
    return coefficients, error


def extremes(errors: list[Real]) -> list[int]:
    """The places of the largest error in each run of one sign."""
    out: list[int] = []
    for k, e in enumerate(errors):
        if out and (e > 0) == (errors[out[-1]] > 0):
            if abs(e) > abs(errors[out[-1]]):
                out[-1] = k
        else:
            out.append(k)
    return out


HALF_LN2 = mp.log(2) / 2 * mp.mpf("1.002")


def exp_tail(r: Real) -> Real:
    """(e^r - 1 - r) / r^2."""
    return mp.mpf(1) / 2 + r / 6 if abs(r) < mp.mpf(10) ** -12 else (mp.expm1(r) - r) / r**2


def exp2_tail(r: Real) -> Real:
    """(2^r - 1) / r."""
    return mp.log(2) + mp.log(2) ** 2 / 2 * r if abs(r) < mp.mpf(10) ** -15 else mp.expm1(r * mp.log(2)) / r


def erf_near(z: Real) -> Real:
    """erf(x) / x - 1 at z = x^2."""
    x = mp.sqrt(z)
    return 2 / mp.sqrt(mp.pi) * (1 - z / 3) - 1 if x < mp.mpf(10) ** -9 else mp.erf(x) / x - 1


def erf_far(t: Real) -> Real:
    """-log(erfc(t))."""
    return -mp.log(mp.erfc(t))


def odd(f: Function, slope: Real) -> Function:
    """(f(x) - x) / x^3 at z = x^2; `slope` is its limit at 0."""

    def g(z: Real) -> Real:
        x = mp.sqrt(z)
        return slope if x < mp.mpf(10) ** -9 else (f(x) - x) / x**3

    return g


def cos_tail(z: Real) -> Real:
    """(cos x - 1 + x^2/2) / x^4 at z = x^2."""
    x = mp.sqrt(z)
    return mp.mpf(1) / 24 - z / 720 if x < mp.mpf(10) ** -4 else (mp.cos(x) - 1 + z / 2) / z**2


def atanh_tail(z: Real) -> Real:
    """(log((1 + s) / (1 - s)) / s - 2) / z at z = s^2."""
    s = mp.sqrt(z)
    return mp.mpf(2) / 3 + 2 * z / 5 if s < mp.mpf(10) ** -6 else (2 * mp.atanh(s) / s - 2) / z


def atanh_far(z: Real) -> Real:
    """(atanh(s) / s - 1 - z/3) / z^2 at z = s^2."""
    s = mp.sqrt(z)
    return mp.mpf(1) / 5 + z / 7 + z**2 / 9 if s < mp.mpf(10) ** -4 else (mp.atanh(s) / s - 1 - z / 3) / z**2


def one(x: Real) -> Real:
    return mp.mpf(1)


QUARTER = mp.pi / 4 * mp.mpf("1.001")
SMALLEST_S = (mp.mpf(3) - 2 * mp.sqrt(2)) ** 2 * mp.mpf("1.01")
SIXTH = (mp.sqrt(2) - 1) ** 2 * mp.mpf("1.01")

FITS: dict[str, tuple[Function, Function, Real, Real, int]] = {
    "exp f32": (exp_tail, lambda r: r**2 + mp.mpf(10) ** -6, -HALF_LN2, HALF_LN2, 4),
    "exp f64": (exp_tail, lambda r: r**2 + mp.mpf(10) ** -6, -HALF_LN2, HALF_LN2, 9),
    "expm1 f32": (exp_tail, one, -HALF_LN2, HALF_LN2, 5),
    "expm1 f64": (exp_tail, one, -HALF_LN2, HALF_LN2, 10),
    "exp2 f32": (exp2_tail, one, -0.501, 0.501, 6),
    "exp2 f64": (exp2_tail, one, -0.501, 0.501, 12),
    "log f32": (atanh_tail, one, 0, SMALLEST_S, 3),
    "log f64": (atanh_tail, one, 0, SMALLEST_S, 6),
    "pow f64": (atanh_far, one, 0, SMALLEST_S, 7),
    "erf near f32": (erf_near, one, 0, 1, 7),
    "erf near f64": (erf_near, one, 0, 1, 13),
    "erf far f32": (lambda t: mp.erfc(t + mp.mpf("2.5")), one, mp.mpf("-1.5"), mp.mpf("1.43"), 14),
    "erf far f64": (erf_far, mp.erfc, 1, 6, 19),
    "sin f32": (odd(mp.sin, -mp.mpf(1) / 6), one, 0, QUARTER**2, 3),
    "sin f64": (odd(mp.sin, -mp.mpf(1) / 6), one, 0, QUARTER**2, 6),
    "cos f32": (cos_tail, one, 0, QUARTER**2, 2),
    "cos f64": (cos_tail, one, 0, QUARTER**2, 5),
    "atan f64": (odd(mp.atan, -mp.mpf(1) / 3), one, 0, SIXTH, 13),
    "asin f64": (odd(mp.asin, mp.mpf(1) / 6), one, 0, mp.mpf("0.2501"), 12),
}


def main(names: list[str]) -> None:
    for name in names or list(FITS):
        coefficients, error = remez(*FITS[name])
        print(f"{name}: error {mp.nstr(error, 3)}")
        digits = 9 if name.endswith("f32") else 18
        print("    " + ", ".join(mp.nstr(c, digits) for c in coefficients))


if __name__ == "__main__":
    main(sys.argv[1:])
