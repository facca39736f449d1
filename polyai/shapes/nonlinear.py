"""The door to sympy: sizes as products of factors, for questions that are not linear. Importing sympy takes 0.3 s, so only
`Facts.prove(..., hard=True)` and callers that want a simplified formula come here."""

from __future__ import annotations

from typing import Any

from polyai.shapes.expr import Atom, Monomial, Size, SizeExpr, show_atom


def factors(size: SizeExpr) -> tuple[int, tuple[tuple[Size, int], ...]]:
    """`size` as (number, ((factor, power), ...)): n*n - 2*n + 1 gives (1, ((n - 1, 2),))."""
    import sympy

    atoms: dict[Any, Atom] = {}
    number, parts = sympy.factor_list(_to_sympy(size, sympy, atoms))
    return int(number), tuple((_from_sympy(part, sympy, atoms), int(power)) for part, power in parts)


def _to_sympy(size: SizeExpr, sympy: Any, atoms: dict[Any, Atom]) -> Any:
    total = sympy.Integer(0)
    for monomial, coefficient in size.terms:
        term = sympy.Integer(coefficient)
        for atom in monomial:
            name = sympy.Symbol(show_atom(atom))
            atoms[name] = atom
            term *= name
        total += term
    return total


def _from_sympy(value: Any, sympy: Any, atoms: dict[Any, Atom]) -> Size:
    total: Size = 0
    for term, coefficient in sympy.expand(value).as_coefficients_dict().items():
        monomial: Monomial = ()
        product: Size = int(coefficient)
        for base, power in term.as_powers_dict().items():
            if base in atoms:
                monomial += (atoms[base],) * int(power)
        for atom in monomial:
            product = product * SizeExpr((((atom,), 1),))
        total = total + product
    return total
