"""Sizes as integer polynomials over symbols, in one canonical form, so that equal sizes are equal objects.

Grammar::

    Size     = int | SizeExpr
    SizeExpr = sum of coefficient * product of atoms
    Atom     = Sym(name) | FloorDiv(SizeExpr, Size) | Mod(SizeExpr, Size) | Largest(sizes) | Smallest(sizes)

A size that is a plain number is always an `int`, never a SizeExpr. sympy is needed only where a question is not linear
(`shapes.bounds`), so a program can be built, cached and called without importing it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Union

from polyai.term.node import node


@node
class Sym:
    """A size known at the call: an extent of an argument, a number of stored elements."""

    name: str


@node
class FloorDiv:
    num: Size
    den: Size


@node
class Mod:
    num: Size
    den: Size


@node
class Largest:
    of: tuple[Size, ...]


@node
class Smallest:
    of: tuple[Size, ...]


Atom = Union[Sym, FloorDiv, Mod, Largest, Smallest]
Monomial = tuple[Atom, ...]


@node
class SizeExpr:
    """A polynomial: `terms` holds (monomial, coefficient), sorted by text, without zeros."""

    terms: tuple[tuple[Monomial, int], ...]

    def __add__(self, other: Size) -> Size:
        return _sum([(self, 1), (other, 1)])

    __radd__ = __add__

    def __sub__(self, other: Size) -> Size:
        return _sum([(self, 1), (other, -1)])

    def __rsub__(self, other: Size) -> Size:
        return _sum([(other, 1), (self, -1)])

    def __neg__(self) -> Size:
        return _sum([(self, -1)])

    def __mul__(self, other: Size) -> Size:
        return _product(self, other)

    __rmul__ = __mul__

    def __floordiv__(self, other: Size) -> Size:
        return floordiv(self, other)

    def __rfloordiv__(self, other: Size) -> Size:
        return floordiv(other, self)

    def __mod__(self, other: Size) -> Size:
        return mod(self, other)

    def __rmod__(self, other: Size) -> Size:
        return mod(other, self)

    def __str__(self) -> str:
        return show(self)


Size = Union[int, SizeExpr]


def symbol(name: str) -> SizeExpr:
    """The size called `name`."""
    return SizeExpr((((Sym(name),), 1),))


def _terms(size: Size) -> tuple[tuple[Monomial, int], ...]:
    if isinstance(size, SizeExpr):
        return size.terms
    return (((), int(size)),) if size else ()


def _build(collected: Mapping[Monomial, int]) -> Size:
    kept = {m: c for m, c in collected.items() if c}
    if not kept:
        return 0
    if set(kept) == {()}:
        return kept[()]
    return SizeExpr(tuple(sorted(kept.items(), key=lambda t: _key(t[0]))))


def _key(monomial: Monomial) -> tuple[int, str]:
    return (-len(monomial), "*".join(show_atom(a) for a in monomial))


def _sum(parts: Iterable[tuple[Size, int]]) -> Size:
    out: dict[Monomial, int] = {}
    for size, factor in parts:
        for monomial, coefficient in _terms(size):
            out[monomial] = out.get(monomial, 0) + factor * coefficient
    return _build(out)


def _product(a: Size, b: Size) -> Size:
    out: dict[Monomial, int] = {}
    for ma, ca in _terms(a):
        for mb, cb in _terms(b):
            monomial = tuple(sorted(ma + mb, key=show_atom))
            out[monomial] = out.get(monomial, 0) + ca * cb
    return _build(out)


def _atom(atom: Atom) -> SizeExpr:
    return SizeExpr((((atom,), 1),))


def floordiv(a: Size, b: Size) -> Size:
    """floor(a / b), split over the terms that b divides exactly when b is a number."""
    if isinstance(b, int):
        if b == 0:
            raise ZeroDivisionError("a size divided by zero")
        if isinstance(a, int):
            return a // b
        if b == 1:
            return a
        whole = {m: c // b for m, c in a.terms if c % b == 0}
        rest = _build({m: c for m, c in a.terms if c % b})
        if whole and rest == 0:
            return _build(whole)
        if whole:
            return _sum([(_build(whole), 1), (floordiv(rest, b), 1)])
    elif a == b:
        return 1  # sizes that divide are positive: shapes.facts holds the proof obligation
    elif a == 0:
        return 0
    else:
        quotient = _divide_exactly(a, b)
        if quotient is not None:
            return quotient
    return _atom(FloorDiv(a, b))


def _divide_exactly(a: Size, b: SizeExpr) -> Size | None:
    """a / b where b is one monomial that divides every term of a."""
    if len(b.terms) != 1:
        return None
    (atoms, factor), out = b.terms[0], {}
    for monomial, coefficient in _terms(a):
        left = list(monomial)
        for atom in atoms:
            if atom not in left:
                return None
            left.remove(atom)
        if coefficient % factor:
            return None
        out[tuple(left)] = coefficient // factor
    return _build(out)


def mod(a: Size, b: Size) -> Size:
    """a - b * floor(a / b)."""
    if isinstance(a, int) and isinstance(b, int):
        return a % b
    if isinstance(b, int):
        a = _build({m: c % b for m, c in _terms(a)})
        if isinstance(a, int):
            return a % b
    elif a == b or _divide_exactly(a, b) is not None:
        return 0
    return _atom(Mod(a, b))


def ceildiv(a: Size, b: Size) -> Size:
    """ceil(a / b) for a positive b."""
    return floordiv(_sum([(a, 1), (b, 1), (1, -1)]), b)


def maximum(*sizes: Size) -> Size:
    """The largest of the sizes."""
    return _extreme(sizes, Largest, max)


def minimum(*sizes: Size) -> Size:
    """The smallest of the sizes."""
    return _extreme(sizes, Smallest, min)


def _extreme(sizes: tuple[Size, ...], kind: type[Largest] | type[Smallest], pick: object) -> Size:
    numbers = [s for s in sizes if isinstance(s, int)]
    others = sorted({s for s in sizes if isinstance(s, SizeExpr)}, key=show)
    best: list[Size] = [(max if kind is Largest else min)(numbers)] if numbers else []
    parts: list[Size] = [*best, *others]
    return parts[0] if len(parts) == 1 else _atom(kind(tuple(parts)))


def symbols(size: Size) -> frozenset[str]:
    """Names of the symbols in `size`."""
    if isinstance(size, int):
        return frozenset()
    out: set[str] = set()
    for monomial, _ in size.terms:
        for atom in monomial:
            match atom:
                case Sym(name):
                    out.add(name)
                case FloorDiv(a, b) | Mod(a, b):
                    out |= symbols(a) | symbols(b)
                case Largest(of) | Smallest(of):
                    for part in of:
                        out |= symbols(part)
    return frozenset(out)


def substitute(size: Size, values: Mapping[str, Size]) -> Size:
    """`size` with symbols replaced; symbols without a value stay."""
    if isinstance(size, int):
        return size
    total: Size = 0
    for monomial, coefficient in size.terms:
        product: Size = coefficient
        for atom in monomial:
            product = product * _substitute_atom(atom, values)
        total = total + product
    return total


def _substitute_atom(atom: Atom, values: Mapping[str, Size]) -> Size:
    match atom:
        case Sym(name):
            found = values.get(name)
            return _atom(atom) if found is None else found
        case FloorDiv(a, b):
            return floordiv(substitute(a, values), substitute(b, values))
        case Mod(a, b):
            return mod(substitute(a, values), substitute(b, values))
        case Largest(of):
            return maximum(*(substitute(p, values) for p in of))
        case Smallest(of):
            return minimum(*(substitute(p, values) for p in of))


def evaluate(size: Size, values: Mapping[str, int]) -> int:
    """The number `size` stands for. Raises KeyError naming a symbol without a value."""
    if isinstance(size, int):
        return size
    if len(size.terms) == 1:  # as most are: a symbol
        monomial, coefficient = size.terms[0]
        if coefficient == 1 and len(monomial) == 1 and isinstance(monomial[0], Sym) and monomial[0].name in values:
            return values[monomial[0].name]
    out = substitute(size, values)
    if isinstance(out, int):
        return out
    raise KeyError(", ".join(sorted(symbols(out))))


def is_linear(size: Size) -> bool:
    """True if no product of symbols, quotient or extreme occurs: what isl takes as it is."""
    return isinstance(size, int) or all(len(m) <= 1 and all(isinstance(a, Sym) for a in m) for m, _ in size.terms)


def show(size: Size) -> str:
    """Text such as `2*n + 1`."""
    if isinstance(size, int):
        return str(size)
    out = ""
    for monomial, c in size.terms:
        atoms = "*".join(show_atom(a) for a in monomial)
        text = str(abs(c)) if not atoms else atoms if abs(c) == 1 else f"{abs(c)}*{atoms}"
        out += (" - " if c < 0 else " + ") + text if out else ("-" if c < 0 else "") + text
    return out


def show_atom(atom: Atom) -> str:
    match atom:
        case Sym(name):
            return name
        case FloorDiv(a, b):
            return f"floor(({show(a)}) / ({show(b)}))"
        case Mod(a, b):
            return f"(({show(a)}) mod ({show(b)}))"
        case Largest(of):
            return f"max({', '.join(show(p) for p in of)})"
        case Smallest(of):
            return f"min({', '.join(show(p) for p in of)})"


def spelled(size: Size, names: Mapping[str, str]) -> str:
    """`size` as a user writes it in Python, with the names a user knows: `n // 2 + 1`, `X.shape[0] % 8`, `maximum(n, m)`."""
    if isinstance(size, int):
        return str(size)
    out = ""
    for monomial, c in size.terms:
        alone = len(monomial) == 1 and abs(c) == 1
        atoms = "*".join(_spelled_atom(a, names, alone) for a in monomial)
        text = str(abs(c)) if not atoms else atoms if abs(c) == 1 else f"{abs(c)}*{atoms}"
        out += (" - " if c < 0 else " + ") + text if out else ("-" if c < 0 else "") + text
    return out


def _spelled_atom(atom: Atom, names: Mapping[str, str], alone: bool) -> str:
    match atom:
        case Sym(name):
            return names.get(name, name)
        case FloorDiv(a, b):
            text = f"{_operand(a, names)} // {_operand(b, names)}"
            return text if alone else f"({text})"
        case Mod(a, b):
            text = f"{_operand(a, names)} % {_operand(b, names)}"
            return text if alone else f"({text})"
        case Largest(of):
            return f"maximum({', '.join(spelled(p, names) for p in of)})"
        case Smallest(of):
            return f"minimum({', '.join(spelled(p, names) for p in of)})"


def _operand(size: Size, names: Mapping[str, str]) -> str:
    text = spelled(size, names)
    return f"({text})" if " " in text or "*" in text or text.startswith("-") else text
