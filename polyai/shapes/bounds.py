"""Intervals of sizes from the ranges of their symbols. Sound for every form of size; exact for one symbol at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_never

from polyai.shapes.dim import Dim
from polyai.shapes.expr import Atom, FloorDiv, Largest, Mod, Size, Smallest, Sym

Interval = tuple[int | None, int | None]
"""Least and greatest value; None where there is no bound."""


def interval(size: Size, dims: Mapping[str, Dim]) -> Interval:
    """Bounds of `size`. A symbol that is not declared is at least 0."""
    if isinstance(size, int):
        return size, size
    total: Interval = (0, 0)
    for monomial, coefficient in size.terms:
        product: Interval = (coefficient, coefficient)
        for atom in monomial:
            product = times(product, atom_interval(atom, dims))
        total = plus(total, product)
    return total


def plus(a: Interval, b: Interval) -> Interval:
    """The sum of two intervals."""
    return (None if a[0] is None or b[0] is None else a[0] + b[0], None if a[1] is None or b[1] is None else a[1] + b[1])


def times(a: Interval, b: Interval) -> Interval:
    """The product of two intervals. No bound times zero is zero."""
    ends = [_times(x, y) for x in _ends(a) for y in _ends(b)]
    low, high = min(ends), max(ends)
    return (None if low == -_FAR else int(low), None if high == _FAR else int(high))


_FAR = float("inf")


def _ends(a: Interval) -> tuple[float | int, float | int]:
    return (-_FAR if a[0] is None else a[0], _FAR if a[1] is None else a[1])


def _times(x: float | int, y: float | int) -> float | int:
    return 0 if x == 0 or y == 0 else x * y


def atom_interval(atom: Atom, dims: Mapping[str, Dim]) -> Interval:
    """Bounds of one atom."""
    match atom:
        case Sym(name):
            dim = dims.get(name)
            return (0, None) if dim is None else (dim.low, dim.high)
        case FloorDiv(num, den):
            return _quotient(interval(num, dims), interval(den, dims))
        case Mod(num, den):
            return _remainder(interval(num, dims), interval(den, dims))
        case Largest(of):
            lows, highs = zip(*(interval(s, dims) for s in of))
            known = [low for low in lows if low is not None]
            return max(known, default=None), None if None in highs else max(highs)
        case Smallest(of):
            lows, highs = zip(*(interval(s, dims) for s in of))
            known = [high for high in highs if high is not None]
            return None if None in lows else min(lows), min(known, default=None)
        case _:
            assert_never(atom)


def _quotient(num: Interval, den: Interval) -> Interval:
    """floor(num / den) for den >= 1: a size that divides is positive."""
    least, most = max(1, den[0] or 1), den[1]
    low = None if num[0] is None else num[0] // least if num[0] < 0 else 0 if most is None else num[0] // most
    high = None if num[1] is None else num[1] // least if num[1] >= 0 else -1 if most is None else num[1] // most
    return low, high


def _remainder(num: Interval, den: Interval) -> Interval:
    most = None if den[1] is None else den[1] - 1
    if num[0] is not None and num[0] >= 0 and num[1] is not None:
        least = max(1, den[0] or 1)
        if num[1] < least:
            return num  # smaller than every divisor: nothing is taken off
        most = num[1] if most is None else min(most, num[1])
    return 0, most
