"""Sizes while tracing: symbols with the value they have in the call at hand, and the relations that tracing relied on.

A question about sizes is answered three ways: exactly, where the canonical forms or the declared ranges decide; by the
values at hand, which records a *guard* that every later call of the same kernel must pass; or not at all, where no value
is known (`compile` from specs), which raises.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

from polyai.errors import ShapeError, TraceError
from polyai.shapes import expr as sx
from polyai.shapes.expr import Size, SizeExpr
from polyai.shapes.facts import NO, YES, Truth
from polyai.tensor.nodes import Fact
from polyai.term.node import node

RELATIONS: dict[str, Callable[[int, int], bool]] = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
NEGATED = {"==": "!=", "!=": "==", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}
_MIRRORED = {"==": "==", "!=": "!=", "<": ">", ">": "<", "<=": ">=", ">=": "<="}


@node
class Guard:
    """`left relation right` held while tracing. `text` says it in the user's names, `why` which operation asked."""

    left: Size
    relation: str
    right: Size
    text: str
    why: str = ""

    def holds(self, values: Mapping[str, int]) -> bool:
        """Whether the relation holds for the given values of all symbols."""
        return RELATIONS[self.relation](sx.evaluate(self.left, values), sx.evaluate(self.right, values))

    def __str__(self) -> str:
        return self.text


class Sizes:
    """The symbols of one trace: hints, ranges, what is known equal, guards and facts."""

    def __init__(self, lift: Callable[[Size], Any]) -> None:
        self.hints: dict[str, int] = {}
        self.texts: dict[str, str] = {}
        self.guards: dict[Guard, None] = {}
        self.facts: dict[Size, None] = {}  # each is >= 0
        self.multiples: dict[Size, int] = {}
        self.decided: dict[str, Size] = {}  # sizes that data decide, and their bounds
        self.late: dict[Guard, None] = {}  # what must hold of them, checked once they are known
        self._ranges: dict[str, tuple[int, int | None]] = {}
        self._known: dict[str, Size] = {}
        self._age: dict[str, int] = {}
        self.refused: TraceError | None = None  # the last number that could not be given
        self.lift = lift
        self.prove: Callable[[Size, str, Size], Truth] | None = None  # from the declarations, if there are any

    def add(self, name: str, text: str, hint: int | None, low: int = 0, high: int | None = None) -> SizeExpr:
        """A new symbol. `hint` is its value in the call that is traced; None if there is none."""
        self.texts[name] = text
        self._age[name] = len(self._age)
        self._ranges[name] = (low, high)
        if hint is not None:
            self.hints[name] = hint
        return sx.symbol(name)

    def resolve(self, size: Size) -> Size:
        """`size` in terms of the symbols that represent their classes."""
        if isinstance(size, int) or not self._known:
            return size
        if len(size.terms) == 1 and size.terms[0][1] == 1:
            atoms = size.terms[0][0]
            if len(atoms) == 1 and isinstance(atoms[0], sx.Sym):
                return self._known.get(atoms[0].name, size)
        return sx.substitute(size, self._known)

    def hint(self, size: Size) -> int | None:
        """The value of `size` in the call at hand."""
        if isinstance(size, int):
            return size
        try:
            return sx.evaluate(size, self.hints)
        except KeyError:
            resolved = self.resolve(size)
            return resolved if isinstance(resolved, int) else None

    def text(self, size: Size) -> str:
        """`size` in the user's names: `X.shape[0]`."""
        return sx.spelled(size, self.texts)

    def described(self, size: Size) -> str:
        """`X.shape[0] = 5`, or `5`."""
        hint = self.hint(size)
        if isinstance(size, int):
            return str(size)
        return self.text(size) if hint is None else f"{self.text(size)} = {hint}"

    def value(self, size: Size) -> Any:
        """What a user gets to see: an int where the size is a number, else a SizeValue."""
        resolved = self.resolve(size)
        return resolved if isinstance(resolved, int) else SizeValue(self, size)

    # -- questions

    def unify(self, a: Size, b: Size, why: str = "") -> bool:
        """True if the sizes are equal, or can be taken to be equal in this call, which records a guard."""
        ra, rb = self.resolve(a), self.resolve(b)
        if ra == rb or (self.multiples and self._divided(ra - rb) == 0):
            return True
        if self.prove is not None and self.prove(ra, "==", rb) is YES:
            return True
        if self.is_decided(ra - rb):
            return self._decide(ra - rb, "==") is not False and self.holds(ra, "==", rb, why)
        ha, hb = self.hint(ra), self.hint(rb)
        if ha is None or hb is None or ha != hb:
            return False
        self._record(a, "==", b, why)
        self._merge(ra - rb)
        return True

    def compare(self, a: Size, relation: str, b: Size, why: str = "") -> bool:
        """The truth of `a relation b` here. Raises TraceError if neither ranges nor values decide it."""
        if isinstance(a, int) and not isinstance(b, int):
            return self.compare(b, _MIRRORED[relation], a, why)
        difference = self.resolve(a) - self.resolve(b)
        exact = self._decide(difference, relation)
        if exact is None and self.multiples and isinstance(self._divided(difference), int):
            exact = self._decide(self._divided(difference), relation)
        if exact is None and self.prove is not None:
            exact = {YES: True, NO: False}.get(self.prove(difference, relation, 0))
        if exact is not None:
            return exact
        if self.is_decided(difference):
            raise TraceError(
                f"{self.text(a)} {relation} {self.text(b)} is known only when the kernel runs",
                "data decide the size" + (f": {why}" if why else ""),
                "choose with where() in the program itself, or call the function in two parts and ask between them",
            )
        ha, hb = self.hint(a), self.hint(b)
        if ha is None or hb is None:
            asked = f"{self.text(a)} {relation} {self.text(b)}"
            raise TraceError(
                f"{asked} is neither always true nor always false",
                f"the sizes are only declared{': ' + why if why else ''}",
                "declare a range that decides it, dim(..., min=, max=), or a relation, where=[...]; choose with where() or cond() in "
                "the program itself; or use jit, which makes a kernel for each branch that calls take",
            )
        truth = RELATIONS[relation](ha, hb)
        self._record(a, relation if truth else NEGATED[relation], b, why)
        self._learn(difference, relation if truth else NEGATED[relation])
        return truth

    def is_decided(self, size: Size) -> bool:
        """Whether data decide a size."""
        return bool(self.decided) and not sx.symbols(self.resolve(size)).isdisjoint(self.decided)

    def holds(self, a: Size, relation: str, b: Size, why: str) -> bool:
        """As `compare`; but what data decide is taken to hold, and checked by the call that counts."""
        difference = self.resolve(a) - self.resolve(b)
        if not self.is_decided(difference):
            return self.compare(a, relation, b, why)
        exact = self._decide(difference, relation)
        if exact is None:
            self.late[Guard(a, relation, b, f"{self.text(a)} {relation} {self.text(b)}", why)] = None
            self._learn(difference, relation)
        return exact is not False

    def number(self, size: Size, why: str = "") -> int:
        """The value of `size`, fixed by a guard."""
        resolved = self.resolve(size)
        if isinstance(resolved, int):
            return resolved
        hint = None if self.is_decided(resolved) else self.hint(resolved)
        if hint is None and self.is_decided(resolved):
            raise TraceError(
                f"the number {self.text(size)} is needed while tracing",
                "data decide the size" + (f": {why}" if why else ""),
                "keep it symbolic: arange(n), zeros(n) and slices take sizes as they are; or bound it, x[mask][:10]",
            )
        if hint is None:
            self.refused = TraceError(
                f"the number {self.text(size)} is needed while tracing",
                "the size is only declared" + (f": {why}" if why else ""),
                "keep it symbolic: arange(n), zeros(n), fori_loop(0, n, ...) and slices take sizes as they are; or declare a number in its place",
            )
            raise self.refused
        self.unify(size, hint, why)
        return hint

    def require(self, a: Size, relation: str, b: Size, what: str, remedy: str = "") -> None:
        """Raise ShapeError unless the relation holds; a relation that is not always true becomes a guard."""
        if not self.holds(a, relation, b, what):
            raise ShapeError(what, f"{self.described(a)} must be {relation} {self.described(b)}", remedy)

    # -- knowledge

    def declare(self, a: Size, relation: str, b: Size, why: str) -> None:
        """Take a declared relation as true; calls check it."""
        self._record(a, relation, b, why)
        self._learn(self.resolve(a) - self.resolve(b), relation)

    def assume(self, a: Size, relation: str, b: Size) -> None:
        """Take a relation as true without a check at the call: only for what holds by how the arguments were made."""
        self._learn(self.resolve(a) - self.resolve(b), relation)

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

    def _divided(self, size: Size) -> Size:
        """`size` with each symbol known to be a multiple of m written as m times another: quotients by m become exact."""
        values: dict[str, Size] = {}
        for whole, factor in self.multiples.items():
            resolved = self.resolve(whole)
            for name in sx.symbols(resolved):
                if resolved == sx.symbol(name):
                    values[name] = sx.symbol(f"{name} / {factor}") * factor
        return sx.substitute(size, values)

    def _record(self, a: Size, relation: str, b: Size, why: str) -> None:
        if isinstance(a, int):
            a, relation, b = b, _MIRRORED[relation], a
        if isinstance(b, int) and not isinstance(a, int):
            constant = sum(c for monomial, c in a.terms if not monomial)
            a, b = a - constant, b - constant
        self.guards[Guard(a, relation, b, f"{self.text(a)} {relation} {self.text(b)}", why)] = None

    def _learn(self, difference: Size, relation: str) -> None:
        """Keep what `difference relation 0` says."""
        if relation == "==":
            self._learn_multiple(difference)
            self._merge(difference)
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

    def _merge(self, zero: Size) -> None:
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

    def _decide(self, difference: Size, relation: str) -> bool | None:
        """The truth of `difference relation 0` for all values in the ranges; None if it depends."""
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


class SizeValue:
    """A size as a user's function sees it: arithmetic stays symbolic; a comparison or a conversion to int records a guard."""

    __slots__ = ("size", "sizes")

    def __init__(self, sizes: Sizes, size: Size) -> None:
        self.sizes, self.size = sizes, size

    def _combine(self, other: Any, f: Callable[[Size, Size], Size], g: Callable[[Any, Any], Any], swap: bool = False) -> Any:
        if isinstance(other, SizeValue):
            right = other.size
        elif isinstance(other, int) or (hasattr(other, "__index__") and type(other).__module__ == "numpy" and not hasattr(other, "__len__")):
            right = operator.index(other)
        elif isinstance(other, (float, complex)):
            mine = self.sizes.lift(self.size)
            return g(other, mine) if swap else g(mine, other)
        else:
            return NotImplemented
        return self.sizes.value(f(right, self.size) if swap else f(self.size, right))

    def __add__(self, other: Any) -> Any:
        return self._combine(other, operator.add, operator.add)

    def __sub__(self, other: Any) -> Any:
        return self._combine(other, operator.sub, operator.sub)

    def __rsub__(self, other: Any) -> Any:
        return self._combine(other, operator.sub, operator.sub, swap=True)

    def __mul__(self, other: Any) -> Any:
        return self._combine(other, operator.mul, operator.mul)

    def __floordiv__(self, other: Any) -> Any:
        return self._combine(other, self._floordiv, operator.floordiv)

    def __rfloordiv__(self, other: Any) -> Any:
        return self._combine(other, self._floordiv, operator.floordiv, swap=True)

    def __mod__(self, other: Any) -> Any:
        return self._combine(other, self._mod, operator.mod)

    def __rmod__(self, other: Any) -> Any:
        return self._combine(other, self._mod, operator.mod, swap=True)

    __radd__ = __add__
    __rmul__ = __mul__

    def _floordiv(self, a: Size, b: Size) -> Size:
        self._divisor(b)
        return sx.floordiv(self.sizes.resolve(a), self.sizes.resolve(b))

    def _mod(self, a: Size, b: Size) -> Size:
        self._divisor(b)
        return sx.mod(self.sizes.resolve(a), self.sizes.resolve(b))

    def _divisor(self, b: Size) -> None:
        if not self.sizes.compare(b, ">=", 1, "a size is divided by it"):
            raise ZeroDivisionError(f"a size divided by {self.sizes.described(b)}")

    def __divmod__(self, other: Any) -> Any:
        return self // other, self % other

    def __rdivmod__(self, other: Any) -> Any:
        return other // self, other % self

    def __rshift__(self, other: Any) -> Any:
        return self // (1 << operator.index(other))

    def __lshift__(self, other: Any) -> Any:
        return self * (1 << operator.index(other))

    def __rrshift__(self, other: Any) -> Any:
        return other >> self.__index__()

    def __rlshift__(self, other: Any) -> Any:
        return other << self.__index__()

    def __and__(self, other: Any) -> Any:
        return self.__index__() & operator.index(other)

    def __or__(self, other: Any) -> Any:
        return self.__index__() | operator.index(other)

    def __xor__(self, other: Any) -> Any:
        return self.__index__() ^ operator.index(other)

    __rand__, __ror__, __rxor__ = __and__, __or__, __xor__

    def __round__(self, digits: Any = None) -> Any:
        return self if digits is None or digits >= 0 else round(self.__index__(), digits)

    def __trunc__(self) -> Any:
        return self

    __floor__ = __ceil__ = __trunc__

    def __neg__(self) -> Any:
        return self.sizes.value(-1 * self.size)

    def __pos__(self) -> Any:
        return self

    def __abs__(self) -> Any:
        return self if self >= 0 else -self

    def __pow__(self, other: Any) -> Any:
        if isinstance(other, int) and not isinstance(other, bool) and 0 <= other <= 8:
            out: Size = 1
            for _ in range(other):
                out = out * self.size
            return self.sizes.value(out)
        return self.sizes.lift(self.size) ** other

    def __rpow__(self, other: Any) -> Any:
        return other ** self.sizes.lift(self.size)

    def __truediv__(self, other: Any) -> Any:
        if isinstance(other, SizeValue):
            other = self.sizes.lift(other.size)
        return self.sizes.lift(self.size) / other

    def __rtruediv__(self, other: Any) -> Any:
        return other / self.sizes.lift(self.size)

    def _relation(self, other: Any, relation: str) -> Any:
        if isinstance(other, SizeValue):
            return self.sizes.compare(self.size, relation, other.size, "compared by the traced function")
        if isinstance(other, float):
            return RELATIONS[relation](int(self), other)  # type: ignore[arg-type]
        if isinstance(other, int) or (type(other).__module__ == "numpy" and hasattr(other, "item") and not getattr(other, "ndim", 1)):
            return self.sizes.compare(self.size, relation, int(other), "compared by the traced function")
        return NotImplemented

    def __eq__(self, other: object) -> Any:
        return self._relation(other, "==")

    def __ne__(self, other: object) -> Any:
        return self._relation(other, "!=")

    def __lt__(self, other: Any) -> Any:
        return self._relation(other, "<")

    def __le__(self, other: Any) -> Any:
        return self._relation(other, "<=")

    def __gt__(self, other: Any) -> Any:
        return self._relation(other, ">")

    def __ge__(self, other: Any) -> Any:
        return self._relation(other, ">=")

    def __bool__(self) -> bool:
        return self.sizes.compare(self.size, "!=", 0, "its truth was asked for")

    def __index__(self) -> int:
        return self.sizes.number(self.size, "used as a Python int")

    __int__ = __index__

    def __float__(self) -> float:
        return float(self.__index__())

    def __hash__(self) -> int:
        return hash(self.__index__())

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        lifted = [self.sizes.lift(i.size) if isinstance(i, SizeValue) else i for i in inputs]
        return getattr(ufunc, method)(*lifted, **kwargs)

    def __repr__(self) -> str:
        return self.sizes.described(self.size)
