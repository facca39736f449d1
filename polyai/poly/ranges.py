"""Where an index runs, read off the box of its statement: enough for the accesses of most programs, without isl.

    T[j // 16, k, j % 16]     0 <= j < 256                    T has 16 x n x 16 elements: inside
    P[r + 1]                  0 <= r < n                      P has n + 1 elements: inside
    where(p > 0, Q[p - 1])    0 <= p < n + 1                  Q has n elements: inside

Proves: an index that is `inside` lies in 0 <= index < extent, for all sizes. What is not plain, is not known: isl decides.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

from polyai.scalar.expr import Apply, Const, Expr, Var
from polyai.shapes import expr as sx
from polyai.shapes.expr import Size, Sym

Range = tuple[Size, Size]
"""The least value and the greatest one."""

_ABOVE = re.compile(r"\((\w+)\) (>=?) \((\d+)\)")


_AT_LEAST = re.compile(r"\((\w+) \+ -(\d+)\) >= 0")


def least_sizes(facts: str) -> dict[str, int]:
    """The least values of sizes that conditions as isl text say: `n >= 0 and (n + -50) >= 0` is {n: 50}."""
    out: dict[str, int] = {}
    for fact in facts.split(" and "):
        found = _AT_LEAST.fullmatch(fact)
        if found is not None:
            out[found[1]] = max(out.get(found[1], 0), int(found[2]))
    return out


def inside(index: Expr, extent: Size, box: Mapping[str, Size], guards: Iterable[str] = (), sizes: Mapping[str, int] | None = None) -> bool:
    """True if `index`, an expression over the dims of a `box` that start at 0, lies inside an array's dimension wherever all `guards`,
    conditions as isl text, hold. False: not known. `sizes`: the least values of some sizes; others are at least 0."""
    least: dict[str, int] = {}
    for guard in guards:
        found = _ABOVE.fullmatch(guard)
        if found is not None:
            least[found[1]] = max(least.get(found[1], 0), int(found[3]) + (found[2] == ">"))
    range_ = _range(index, box, least)
    known = sizes or {}
    return range_ is not None and _never_negative(range_[0], known) and _never_negative(extent - 1 - range_[1], known)


def begins_below(index: Expr, box: Mapping[str, Size]) -> bool:
    """True if `index` is a dim of the `box` and a number, and begins below 0: it leaves every array, unless the box is empty for all sizes."""
    match index:
        case Apply("add" | "sub", (Var(), Const())) | Apply("add", (Const(), Var())):
            range_ = _range(index, box, {})
            return range_ is not None and isinstance(range_[0], int) and range_[0] < 0
        case _:
            return False


def _never_negative(size: Size, least: Mapping[str, int]) -> bool:
    """True if that is plain: a sum of sizes, and numbers that are no larger than the least values of these."""
    if isinstance(size, int):
        return size >= 0
    total = 0
    for monomial, factor in size.terms:
        if monomial and (factor < 0 or not all(isinstance(atom, Sym) for atom in monomial)):
            return False
        total += factor * math.prod(least.get(atom.name, 0) for atom in monomial if isinstance(atom, Sym))
    return total >= 0


def _range(index: Expr, box: Mapping[str, Size], least: Mapping[str, int]) -> Range | None:
    match index:
        case Const(value):
            return int(value.real), int(value.real)
        case Var(name) if name in box:
            return least.get(name, 0), box[name] - 1
        case Apply("add" | "sub" as op, (a, b)):
            left, right = _range(a, box, least), _range(b, box, least)
            if left is None or right is None:
                return None
            return (left[0] + right[0], left[1] + right[1]) if op == "add" else (left[0] - right[1], left[1] - right[0])
        case Apply("mul", (Const(value), a)) | Apply("mul", (a, Const(value))) if value.real >= 0:
            part, factor = _range(a, box, least), int(value.real)
            return None if part is None else (part[0] * factor, part[1] * factor)
        case Apply("floordiv", (a, Const(value))) if value.real > 0:
            part = _range(a, box, least)
            return None if part is None else (_quotient(part[0], int(value.real)), _quotient(part[1], int(value.real)))
        case Apply("mod", (_, Const(value))) if value.real > 0:
            return 0, int(value.real) - 1
        case _:
            return None


def _quotient(size: Size, by: int) -> Size:
    """floor(size / by), with a number from 0 to by - 1 beside the sizes that are divided: equal quotients look the same."""
    number = size if isinstance(size, int) else sum(factor for monomial, factor in size.terms if not monomial)
    return sx.floordiv(size - number + number % by, by) + number // by
