"""What is known of the symbols of one trace: their ranges, what is equal, what is not negative, what divides them.

    learn(n - 4, ">=")      n is at least 4
    learn(m - 2*n, "==")    m is written as 2*n from now on, where it is `resolve`d
    learn(n mod 8, "==")    quotients of n by 8 are exact
    decide(n + m, ">")      True, False, or None if that depends on their values

Everything here holds for all values that the ranges allow; what holds for the call at hand alone is a guard, see `sizes`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable

from polyai.shapes import expr as sx
from polyai.shapes.expr import Size, SizeExpr
from polyai.tensor.nodes import Fact

RELATIONS: dict[str, Callable[[int, int], bool]] = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip


class Knowledge:
    """Ranges, equalities, multiples and facts, as they are learnt."""

    def __init__(self) -> None:
        self.facts: dict[Size, None] = {}  # each is >= 0
        self.multiples: dict[Size, int] = {}
        self._ranges: dict[str, tuple[int, int | None]] = {}
        self._known: dict[str, Size] = {}
        self._age: dict[str, int] = {}

    def add(self, name: str, low: int, high: int | None) -> None:
        """A new symbol and its range."""
        self._age[name] = len(self._age)
        self._ranges[name] = (low, high)

    def resolve(self, size: Size) -> Size:
        """`size` in terms of the symbols that represent their classes."""
        if isinstance(size, int) or not self._known:
            return size
        if len(size.terms) == 1 and size.terms[0][1] == 1:
            atoms = size.terms[0][0]
            if len(atoms) == 1 and isinstance(atoms[0], sx.Sym):
                return self._known.get(atoms[0].name, size)
        return sx.substitute(size, self._known)

    def all_facts(self) -> tuple[Fact, ...]:
        """Facts about the representing symbols, trivial ones left out."""
        out: dict[Fact, None] = {}
        for size in self.facts:
            resolved = self.resolve(size)
            if not isinstance(resolved, int) and not _never_negative(resolved):
                out[Fact(resolved, "nonnegative")] = None
        for size, factor in self.multiples.items():
            rest = sx.mod(self.resolve(size), factor)
            if rest != 0:
                out[Fact(rest, "zero")] = None
        return tuple(out)

    def divisible(self, size: Size, factor: int) -> None:
        """Keep that `size` is a multiple of `factor`."""
        self.multiples[size] = factor

    def equal(self, a: Size, b: Size) -> bool:
        """Whether two resolved sizes are the same for all values."""
        return a == b or (bool(self.multiples) and self._divided(a - b) == 0)

    def _divided(self, size: Size) -> Size:
        """`size` with each symbol known to be a multiple of m written as m times another: quotients by m become exact."""
        values: dict[str, Size] = {}
        for whole, factor in self.multiples.items():
            resolved = self.resolve(whole)
            for name in sx.symbols(resolved):
                if resolved == sx.symbol(name):
                    values[name] = sx.symbol(f"{name} / {factor}") * factor
        return sx.substitute(size, values)

    def learn(self, difference: Size, relation: str) -> None:
        """Keep what `difference relation 0` says."""
        if relation == "==":
            self._learn_multiple(difference)
            self.equate(difference)
        elif relation != "!=":
            sign = 1 if relation in (">", ">=") else -1
            fact = difference * sign - (1 if relation in ("<", ">") else 0)
            if not isinstance(fact, int):
                self.facts[fact] = None
                self._narrow(fact)

    def _learn_multiple(self, zero: Size) -> None:
        """Keep `n mod m == 0`."""
        if isinstance(zero, SizeExpr) and len(zero.terms) == 1:
            (monomial, _), = zero.terms
            if len(monomial) == 1 and isinstance(monomial[0], sx.Mod) and isinstance(monomial[0].den, int):
                self.multiples.setdefault(monomial[0].num, monomial[0].den)

    def _narrow(self, fact: Size) -> None:
        """Use `s + c >= 0` or `c - s >= 0` to narrow the range of the symbol s."""
        assert isinstance(fact, SizeExpr)
        alone = [(m[0].name, c) for m, c in fact.terms if len(m) == 1 and isinstance(m[0], sx.Sym)]
        constant = sum(c for m, c in fact.terms if not m)
        if len(alone) != 1 or len(fact.terms) - (1 if constant else 0) != 1 or abs(alone[0][1]) != 1:
            return
        name, sign = alone[0]
        low, high = self._ranges[name]
        if sign > 0:
            self._ranges[name] = (max(low, -constant), high)
        else:
            self._ranges[name] = (low, constant if high is None else min(high, constant))

    def equate(self, zero: Size) -> None:
        """Solve `zero == 0` for its youngest symbol that stands alone with coefficient 1 or -1, and substitute it everywhere."""
        if isinstance(zero, int):
            return
        best: tuple[int, str, int] | None = None
        for monomial, c in zero.terms:
            if abs(c) == 1 and len(monomial) == 1 and isinstance(monomial[0], sx.Sym):
                name = monomial[0].name
                rest = zero - sx.symbol(name) * c
                if name not in sx.symbols(rest) and (best is None or self._age[name] > best[0]):
                    best = (self._age[name], name, c)
        if best is None:
            self.facts[zero] = None
            self.facts[-zero] = None
            return
        _, name, c = best
        value = (zero - sx.symbol(name) * c) * -c
        low, high = self._ranges[name]
        self._known = {k: sx.substitute(v, {name: value}) for k, v in self._known.items()}
        self._known[name] = value
        if not isinstance(value, int):
            if low > 0:
                self.facts[value - low] = None
                self._narrow(value - low)
            if high is not None:
                self.facts[high - value] = None
                self._narrow(high - value)

    def decide(self, difference: Size, relation: str) -> bool | None:
        """The truth of `difference relation 0` for all values in the ranges; None if it depends."""
        exact = self._decide(difference, relation)
        if exact is None and self.multiples:
            divided = self._divided(difference)
            return self._decide(divided, relation) if isinstance(divided, int) else None
        return exact

    def _decide(self, difference: Size, relation: str) -> bool | None:
        if isinstance(difference, int):
            return RELATIONS[relation](difference, 0)
        low, high = self._bounds(difference)
        if low is None:
            low = self._low_without_quotients(difference)
        if high is None:
            negated = -1 * difference
            low_of_it = self._low_without_quotients(negated) if isinstance(negated, SizeExpr) else None
            high = None if low_of_it is None else -low_of_it
        for fact in self.facts:
            over = difference - fact
            if isinstance(over, int):
                low = over if low is None else max(low, over)
            under = difference + fact
            if isinstance(under, int):
                high = under if high is None else min(high, under)
        return _decide_by_bounds(low, high, relation)

    def _bounds(self, size: Size) -> tuple[int | None, int | None]:
        if isinstance(size, int):
            return size, size
        low: int | None = 0
        high: int | None = 0
        for monomial, c in size.terms:
            least: int | None = 1
            most: int | None = 1
            for atom in monomial:
                a, b = self._atom_bounds(atom)
                least = None if least is None or a is None or a < 0 else least * a
                most = None if most is None or b is None else most * b
            if least is None:
                return None, None
            if c < 0:
                least, most = most, least
            low = None if low is None or least is None else low + c * least
            high = None if high is None or most is None else high + c * most
        return low, high

    def _low_without_quotients(self, size: SizeExpr) -> int | None:
        """A lower bound of `size` by a - c + 1 <= c * floor(a / c) <= a for the first quotient by a number in it."""
        for monomial, k in size.terms:
            if len(monomial) == 1 and isinstance(monomial[0], sx.FloorDiv) and isinstance(monomial[0].den, int) and monomial[0].den > 0:
                a, c = monomial[0].num, monomial[0].den
                rest = size - SizeExpr(((monomial, k),))
                below = rest * c + (a - (c - 1)) * k if k > 0 else rest * c + a * k
                low = self._bounds(below)[0]
                return None if low is None else -(-low // c)
        return None

    def _atom_bounds(self, atom: sx.Atom) -> tuple[int | None, int | None]:
        match atom:
            case sx.Sym(name):
                return self._ranges[name]
            case sx.FloorDiv(a, b):
                low, high = self._bounds(a)
                if isinstance(b, int) and b > 0:
                    return None if low is None else low // b, None if high is None else high // b
                return (0, high) if low is not None and low >= 0 else (None, None)
            case sx.Mod(_, b):
                return 0, b - 1 if isinstance(b, int) else None
            case sx.Largest(of):
                lows = [low for low, _ in map(self._bounds, of) if low is not None]
                highs = [high for _, high in map(self._bounds, of)]
                return max(lows, default=None), None if None in highs else max(h for h in highs if h is not None)
            case sx.Smallest(of):
                lows_ = [low for low, _ in map(self._bounds, of)]
                highs_ = [high for _, high in map(self._bounds, of) if high is not None]
                return None if None in lows_ else min(x for x in lows_ if x is not None), min(highs_, default=None)


def _decide_by_bounds(low: int | None, high: int | None, relation: str) -> bool | None:
    positive, negative = low is not None and low > 0, high is not None and high < 0
    not_negative, not_positive = low is not None and low >= 0, high is not None and high <= 0
    yes, no = {
        "==": (low == 0 and high == 0, positive or negative),
        "!=": (positive or negative, low == 0 and high == 0),
        ">=": (not_negative, negative),
        ">": (positive, not_positive),
        "<=": (not_positive, positive),
        "<": (negative, not_negative),
    }[relation]
    return True if yes else False if no else None


def _never_negative(size: SizeExpr) -> bool:
    return all(c > 0 for _, c in size.terms) and all(isinstance(a, sx.Sym) for m, _ in size.terms for a in m)
