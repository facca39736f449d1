"""Sizes as Python functions, evaluated at every call without walking trees; and as plain lists, which JSON can hold.

`compile_sizes((n*m, floor(n / 2)), ("n", "m"))` gives a function like `lambda n, m: (n*m, n // 2)`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, assert_never

from polyai.errors import VerifyError
from polyai.shapes.expr import Atom, FloorDiv, Largest, Mod, Size, SizeExpr, Smallest, Sym, symbols


def compile_sizes(sizes: Sequence[Size], order: Sequence[str]) -> Callable[..., tuple[int, ...]]:
    """A function of the values of the symbols `order`, in that order, that returns the sizes.

    Raises KeyError for a symbol that is not in `order`.
    """
    unknown = sorted(set().union(*(symbols(s) for s in sizes)) - set(order))
    if unknown:
        raise KeyError(", ".join(unknown))
    names = {name: f"s{at}" for at, name in enumerate(order)}
    body = "".join(f"{python(s, names)}, " for s in sizes)
    return _function(f"lambda {', '.join(names.values())}: ({body})")


def _function(source: str) -> Callable[..., tuple[int, ...]]:
    scope = {"__builtins__": {}, "max": max, "min": min}
    made: Callable[..., tuple[int, ...]] = eval(compile(source, "<sizes>", "eval"), scope)  # text that `python` made, never a user's
    return made


def python(size: Size, names: Mapping[str, str]) -> str:
    """`size` as a Python expression; `names` maps symbols to identifiers."""
    if isinstance(size, int):
        return str(size)
    terms = []
    for monomial, coefficient in size.terms:
        product = [_atom(a, names) for a in monomial]
        terms.append("*".join(product if coefficient == 1 and product else [str(coefficient), *product]))
    return f"({' + '.join(terms)})"


def _atom(atom: Atom, names: Mapping[str, str]) -> str:
    match atom:
        case Sym(name):
            return names[name]
        case FloorDiv(num, den):
            return f"({python(num, names)} // {python(den, names)})"
        case Mod(num, den):
            return f"({python(num, names)} % {python(den, names)})"
        case Largest(of):
            return f"max({', '.join(python(s, names) for s in of)})"
        case Smallest(of):
            return f"min({', '.join(python(s, names) for s in of)})"
        case _:
            assert_never(atom)


def packed(size: Size) -> Any:
    """`size` as numbers, texts and lists of them."""
    if isinstance(size, int):
        return size
    return [[coefficient, [_packed_atom(a) for a in monomial]] for monomial, coefficient in size.terms]


def _packed_atom(atom: Atom) -> Any:
    match atom:
        case Sym(name):
            return name
        case FloorDiv(num, den):
            return ["quotient", packed(num), packed(den)]
        case Mod(num, den):
            return ["remainder", packed(num), packed(den)]
        case Largest(of):
            return ["largest", *map(packed, of)]
        case Smallest(of):
            return ["smallest", *map(packed, of)]
        case _:
            assert_never(atom)


def unpacked(data: Any) -> Size:
    """The inverse of `packed`. Raises VerifyError for anything else."""
    try:
        if isinstance(data, int):
            return data
        return SizeExpr(tuple((tuple(_unpacked_atom(a) for a in monomial), int(coefficient)) for coefficient, monomial in data))
    except (TypeError, ValueError, KeyError) as error:
        raise VerifyError("a stored size is malformed", repr(error)) from None


def _unpacked_atom(data: Any) -> Atom:
    if isinstance(data, str):
        return Sym(data)
    kind, *parts = data
    sizes = [unpacked(p) for p in parts]
    if kind in ("largest", "smallest"):
        return Largest(tuple(sizes)) if kind == "largest" else Smallest(tuple(sizes))
    num, den = sizes
    return FloorDiv(num, den) if kind == "quotient" else Mod(num, den)
