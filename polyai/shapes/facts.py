"""What is known of sizes, and proofs from it: always (YES), never (NO), or it depends or is not known (MAYBE).

Proof by refutation: `e >= 0` always holds if the known facts and `e <= -1` have no solution. Solutions are sought by
Fourier-Motzkin elimination over the monomials of the sizes, where every inequality is tightened to integers (divided by
the greatest common divisor of its coefficients, constant rounded), after W. Pugh's Omega test (CACM 1992). A symbol that is a
multiple of k is replaced by k times a fresh one, which makes divisibility visible. Floors, remainders and extremes bring
their defining inequalities with them, products their intervals.

What stays MAYBE can be handed on: to `decide`, an exact procedure for linear questions that the owner of the facts may
supply, and with `hard=True` to sympy, which factors polynomials (`shapes.nonlinear`).
"""

from __future__ import annotations

import enum
import math
import operator
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Union

from polyai.shapes.dim import Dim, by_name
from polyai.shapes.expr import (
    Atom,
    FloorDiv,
    Largest,
    Mod,
    Monomial,
    Size,
    SizeExpr,
    Smallest,
    Sym,
    floordiv,
    is_linear,
    substitute,
    symbol,
    symbols,
)  # fmt: skip
from polyai.term.late import late

if TYPE_CHECKING:
    from polyai.shapes import bounds, nonlinear
else:
    nonlinear = late("polyai.shapes.nonlinear")
    bounds = late("polyai.shapes.bounds")


class Truth(enum.Enum):
    """The answer to a question about all values that the facts admit."""

    YES = "always"
    NO = "never"
    MAYBE = "sometimes or unknown"

    def __invert__(self) -> Truth:
        return {Truth.YES: Truth.NO, Truth.NO: Truth.YES, Truth.MAYBE: Truth.MAYBE}[self]


YES, NO, MAYBE = Truth.YES, Truth.NO, Truth.MAYBE

Row = tuple[tuple[tuple[Monomial, int], ...], int]
"""An inequality: sum of coefficient * monomial + constant >= 0."""

Decide = Callable[[tuple[Size, ...], Size], Union[bool, None]]
"""`decide(known, size)`: True if `size >= 0` follows from `known` (each >= 0), False if not, None if it cannot tell."""

Sign = frozenset[int]

_RELATIONS: dict[str, Callable[[int, int], bool]] = {
    ">=": operator.ge, ">": operator.gt, "<=": operator.le, "<": operator.lt, "==": operator.eq, "!=": operator.ne,
}  # fmt: skip

_ROWS = 160  # elimination gives up (MAYBE) beyond this many inequalities
_SPLITS = 6  # and a case distinction over extremes beyond this many assumptions


class Facts:
    """Ranges of dimensions, sizes that are at least 0, sizes that are 0. Immutable; `also` adds to a copy."""

    def __init__(
        self,
        dims: Iterable[Dim] = (),
        nonnegative: Iterable[Size] = (),
        zero: Iterable[Size] = (),
        decide: Decide | None = None,
    ) -> None:
        self.dims: Mapping[str, Dim] = by_name(dims)
        self.nonnegative = tuple(nonnegative)
        self.zero = tuple(zero)
        self.decide = decide
        self._solved = self._solve()
        self._proved: dict[tuple[Size, str], Truth] = {}

    def _solve(self) -> dict[str, Size]:
        """Symbols in terms of others: multiples as k times a fresh symbol of the same name, then equalities solved in turn."""
        out: dict[str, Size] = {n: symbol(n) * d.multiple_of for n, d in self.dims.items() if d.multiple_of > 1}
        for zero in self.zero:
            rest = substitute(zero, out)
            alone = _solvable(rest)
            if alone is not None:
                name, sign = alone
                value = symbol(name) - rest * sign
                out = {n: substitute(s, {name: value}) for n, s in out.items()}
                out.setdefault(name, value)
        return out

    def also(self, dims: Iterable[Dim] = (), nonnegative: Iterable[Size] = (), zero: Iterable[Size] = ()) -> Facts:
        """These facts and more."""
        return Facts((*self.dims.values(), *dims), (*self.nonnegative, *nonnegative), (*self.zero, *zero), self.decide)

    def prove(self, left: Size, relation: str = ">=", right: Size = 0, hard: bool = False) -> Truth:
        """Whether `left relation right` holds for all values (YES), for none (NO), or neither is proved (MAYBE).

        `hard` factors polynomials that the linear proof leaves open; the first time imports sympy.
        """
        difference = left - right
        if hard and self.prove(difference, relation) is MAYBE and isinstance(difference, SizeExpr) and not is_linear(difference):
            return _sign_answers(self._sign_of_factors(difference), relation)
        match relation:
            case ">=":
                return self._at_least_zero(difference)
            case ">":
                return self._at_least_zero(difference - 1)
            case "<=":
                return self._at_least_zero(-1 * difference)
            case "<":
                return self._at_least_zero(-1 * difference - 1)
            case "==":
                return self._is_zero(difference)
            case "!=":
                return ~self._is_zero(difference)
            case _:
                raise ValueError(f"unknown relation {relation!r}")

    def divides(self, number: int, size: Size) -> Truth:
        """Whether `size` is a multiple of `number`."""
        return self._is_zero(size - number * floordiv(size, number)) if number else MAYBE

    def interval(self, size: Size) -> tuple[int | None, int | None]:
        """Bounds of `size` from the ranges alone."""
        return bounds.interval(size, self.dims)

    def _at_least_zero(self, size: Size) -> Truth:
        if isinstance(size, int):
            return YES if size >= 0 else NO
        return self._remembered(size, ">=", self._prove_nonnegative)

    def _is_zero(self, size: Size) -> Truth:
        if isinstance(size, int):
            return YES if size == 0 else NO
        return self._remembered(size, "==", self._prove_zero)

    def _remembered(self, size: SizeExpr, relation: str, prove: Callable[[SizeExpr], Truth]) -> Truth:
        key = (size, relation)
        if key not in self._proved:
            self._proved[key] = prove(size)
        return self._proved[key]

    def _prove_nonnegative(self, size: SizeExpr) -> Truth:
        low, high = bounds.interval(size, self.dims)
        if low is not None and low >= 0:
            return YES
        if high is not None and high < 0:
            return NO
        if self._refuted(-1 * size - 1):
            return YES
        if self._refuted(size):
            return NO
        shared = _shared_factor(size)
        if shared is not None:
            factor, rest = shared
            least, _ = bounds.interval(factor, self.dims)
            answer = self._at_least_zero(rest) if least is not None and least >= 0 else MAYBE
            if answer is YES or (answer is NO and least is not None and least >= 1):
                return answer
        if self.decide is not None and is_linear(size):
            known = tuple(s for s in self._known() if is_linear(s))
            if self.decide(known, size):
                return YES
            if self.decide(known, -1 * size - 1):
                return NO
        return MAYBE

    def _sign(self, size: Size) -> Sign:
        """The signs that `size` may have: a subset of {-1, 0, 1}."""
        tests = ((1, ">"), (0, "=="), (-1, "<"))
        return frozenset(sign for sign, relation in tests if self.prove(size, relation) is not NO)

    def _sign_of_factors(self, size: SizeExpr) -> Sign:
        """The signs that the product of the factors of `size` may have."""
        number, parts = nonlinear.factors(size)
        signs: Sign = frozenset({(number > 0) - (number < 0)})
        for part, power in parts:
            signs = frozenset(a * b**power for a in signs for b in self._sign(part))
        return signs

    def _prove_zero(self, size: SizeExpr) -> Truth:
        above, below = self._at_least_zero(size), self._at_least_zero(-1 * size)
        if above is YES and below is YES:
            return YES
        if NO in (above, below) or self._at_least_zero(size - 1) is YES or self._at_least_zero(-1 * size - 1) is YES:
            return NO
        scaled = substitute(size, self._solved)
        if isinstance(scaled, SizeExpr):
            constant = sum(c for m, c in scaled.terms if not m)
            if constant % math.gcd(*(c for m, c in scaled.terms if m)):
                return NO  # no integers solve it
        return MAYBE

    def _known(self) -> Iterator[Size]:
        """Everything declared, as sizes that are at least 0."""
        for dim in self.dims.values():
            yield dim.size - dim.low
            if dim.high is not None:
                yield dim.high - dim.size
        yield from self.nonnegative
        for size in self.zero:
            yield size
            yield -1 * size

    def _refuted(self, claim: Size, given: tuple[Size, ...] = ()) -> bool:
        """True if the facts, `claim >= 0` and each of `given` >= 0 contradict each other.

        An extreme equals one of its parts, so a claim about it is refuted if it is for each of them.
        """
        extreme = _first_extreme(claim) if len(given) < _SPLITS else None
        if extreme is None:
            return self._contradiction([claim, *given])
        sign = 1 if isinstance(extreme, Largest) else -1
        return all(
            self._refuted(_replaced(claim, extreme, part), (*given, *((part - other) * sign for other in extreme.of if other != part)))
            for part in extreme.of
        )

    def _contradiction(self, claims: list[Size]) -> bool:
        rows: dict[Row, None] = {}
        seen: set[Monomial] = set()
        pending = [*claims, *self._known()]
        while pending:
            size = pending.pop()
            row = _row(substitute(size, self._solved))
            if row is None:
                continue
            if not row[0]:
                return True
            rows[row] = None
            for monomial in _monomials(size):
                if monomial not in seen:
                    seen.add(monomial)
                    pending += self._about(monomial)
            if len(rows) > _ROWS:
                return False
        return _no_solution(list(rows))

    def _about(self, monomial: Monomial) -> Iterator[Size]:
        """Inequalities that always hold between a monomial and its parts."""
        whole = SizeExpr(((monomial, 1),))
        low, high = bounds.interval(whole, self.dims)
        if low is not None:
            yield whole - low
        if high is not None:
            yield high - whole
        if len(monomial) > 1:
            yield from self._about_product(monomial, whole)
            return
        match monomial[0]:
            case FloorDiv(num, int() as den) if den > 0:
                yield num - den * whole
                yield den * whole + (den - 1) - num
            case Mod(num, int() as den) if den > 0:
                yield from _equal(whole, num - den * floordiv(num, den))
            case Largest(of):
                yield from (whole - part for part in of)
            case Smallest(of):
                yield from (part - whole for part in of)
            case _:
                return

    def _about_product(self, monomial: Monomial, whole: SizeExpr) -> Iterator[Size]:
        """a * rest >= low(a) * rest, and <= high(a) * rest, where the rest is at least 0."""
        for at, atom in enumerate(monomial):
            if at and monomial[at - 1] == atom:
                continue
            rest = SizeExpr(((monomial[:at] + monomial[at + 1 :], 1),))
            least, _ = bounds.interval(rest, self.dims)
            low, high = bounds.interval(SizeExpr((((atom,), 1),)), self.dims)
            if least is None or least < 0:
                continue
            if low is not None:
                yield whole - low * rest
            if high is not None:
                yield high * rest - whole


def _sign_answers(signs: Sign, relation: str) -> Truth:
    truths = {_RELATIONS[relation](sign, 0) for sign in signs}
    return MAYBE if len(truths) > 1 else YES if truths == {True} else NO


def _shared_factor(size: SizeExpr) -> tuple[Size, Size] | None:
    """(b, n - m) for b*n - b*m: the largest monomial that divides every term; None if there is none."""
    shared = Counter(size.terms[0][0])
    for monomial, _ in size.terms[1:]:
        shared &= Counter(monomial)
    common = tuple(shared.elements())
    if not common:
        return None
    rest: Size = 0
    for monomial, coefficient in size.terms:
        left = list(monomial)
        for atom in common:
            left.remove(atom)
        rest = rest + (SizeExpr(((tuple(left), coefficient),)) if left else coefficient)
    return SizeExpr(((common, 1),)), rest


def _solvable(zero: Size) -> tuple[str, int] | None:
    """A symbol that `zero == 0` can be solved for, and its coefficient, 1 or -1: it occurs once, alone."""
    for monomial, coefficient in zero.terms if isinstance(zero, SizeExpr) else ():
        if abs(coefficient) == 1 and len(monomial) == 1 and isinstance(monomial[0], Sym):
            name = monomial[0].name
            if name not in symbols(zero - symbol(name) * coefficient):
                return name, coefficient
    return None


def _first_extreme(size: Size) -> Largest | Smallest | None:
    atoms = (a for m, _ in size.terms for a in m) if isinstance(size, SizeExpr) else ()
    return next((a for a in atoms if isinstance(a, (Largest, Smallest))), None)


def _replaced(size: Size, old: Atom, new: Size) -> Size:
    """`size` with `new` for the atom `old` in its monomials."""
    total: Size = 0
    for monomial, coefficient in size.terms if isinstance(size, SizeExpr) else (((), size),):
        product: Size = coefficient
        for atom in monomial:
            product = product * (new if atom == old else SizeExpr((((atom,), 1),)))
        total = total + product
    return total


def _equal(a: Size, b: Size) -> Iterator[Size]:
    yield a - b
    yield b - a


def _monomials(size: Size) -> Iterator[Monomial]:
    """The monomials of `size`, and the single atoms of its products."""
    if isinstance(size, int):
        return
    for monomial, _ in size.terms:
        if monomial:
            yield monomial
        if len(monomial) > 1:
            for atom in monomial:
                yield (atom,)


def _row(size: Size) -> Row | None:
    """`size >= 0` as a tightened row; None if it always holds. A row without monomials never holds."""
    if isinstance(size, int):
        return None if size >= 0 else ((), size)
    constant = sum(c for m, c in size.terms if not m)
    parts = tuple((m, c) for m, c in size.terms if m)
    divisor = math.gcd(*(c for _, c in parts))
    return tuple((m, c // divisor) for m, c in parts), constant // divisor


def _no_solution(rows: list[Row]) -> bool:
    """Eliminate monomials, cheapest first, until a contradiction or nothing is left."""
    table = {_key(parts): (dict(parts), constant) for parts, constant in rows}
    for parts, constant in rows:  # of rows that differ in the constant only, keep the sharpest
        if constant < table[_key(parts)][1]:
            table[_key(parts)] = (dict(parts), constant)
    work = list(table.values())
    while True:
        signs: dict[Monomial, list[int]] = {}
        for coefficients, _ in work:
            for m, c in coefficients.items():
                signs.setdefault(m, [0, 0])[c > 0] += 1
        if not signs:
            return False
        victim = min(signs, key=lambda m: signs[m][0] * signs[m][1] - signs[m][0] - signs[m][1])
        fresh: dict[frozenset[tuple[Monomial, int]], tuple[dict[Monomial, int], int]] = {}
        above = [r for r in work if r[0].get(victim, 0) > 0]
        below = [r for r in work if r[0].get(victim, 0) < 0]
        kept = [r for r in work if victim not in r[0]]
        for row in (*kept, *(_combine(a, b, victim) for a in above for b in below)):
            if not row[0]:
                if row[1] < 0:
                    return True
                continue
            key = _key(row[0].items())
            if key not in fresh or row[1] < fresh[key][1]:
                fresh[key] = row
        work = list(fresh.values())
        if len(work) > _ROWS:
            return False


def _key(coefficients: Iterable[tuple[Monomial, int]]) -> frozenset[tuple[Monomial, int]]:
    return frozenset(coefficients)


def _combine(a: tuple[dict[Monomial, int], int], b: tuple[dict[Monomial, int], int], victim: Monomial) -> tuple[dict[Monomial, int], int]:
    """The sum of multiples of two rows in which `victim` cancels, tightened."""
    p, q = a[0][victim], -b[0][victim]
    out = {m: c * q for m, c in a[0].items()}
    for m, c in b[0].items():
        out[m] = out.get(m, 0) + c * p
    out = {m: c for m, c in out.items() if c}
    constant = a[1] * q + b[1] * p
    divisor = math.gcd(*out.values()) if out else 1
    return {m: c // divisor for m, c in out.items()}, constant // divisor
