"""Expressions as text, with the fewest brackets that keep the order of evaluation: `max(a[i] * x + b[i], 0.0)`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from polyai.scalar.expr import Apply, Cast, Const, Load, Var

INFIX: dict[str, tuple[str, int]] = {
    "or": ("or", 1), "and": ("and", 2),
    "eq": ("==", 3), "ne": ("!=", 3), "lt": ("<", 3), "le": ("<=", 3), "gt": (">", 3), "ge": (">=", 3),
    "bitor": ("|", 4), "bitxor": ("^", 5), "bitand": ("&", 6), "shl": ("<<", 7), "shr": (">>", 7),
    "add": ("+", 8), "sub": ("-", 8), "mul": ("*", 9), "div": ("/", 9), "floordiv": ("//", 9), "mod": ("%", 9), "pow": ("**", 11),
}  # fmt: skip
"""Operation -> sign and binding strength, as in Python."""
_ATOM, _UNARY, _COMPARE = 12, 10, 3

Other = Callable[[Any], str]


def show(expr: Any, other: Other | None = None) -> str:
    """`expr` as text. `other` prints nodes that are not scalar expressions (a reduction, a vector's lanes); TypeError without it."""
    return _show(expr, 0, other)


def _show(expr: Any, above: int, other: Other | None) -> str:
    match expr:
        case Const(value):
            text = repr(value)
            return f"({text})" if text.startswith("-") and above > 8 else text
        case Var(name):
            return name
        case Load(array, indices):
            return f"{array}[{', '.join(_show(i, 0, other) for i in indices)}]"
        case Cast(arg, dtype):
            return f"{dtype}({_show(arg, 0, other)})"
        case Apply("neg", (arg,)):
            return _bracket(f"-{_show(arg, _UNARY, other)}", _UNARY, above)
        case Apply(op, (left, right)) if op in INFIX:
            sign, strength = INFIX[op]
            first = strength + (op == "pow" or strength == _COMPARE)  # ** groups to the right, comparisons do not chain
            second = strength + (op != "pow")
            return _bracket(f"{_show(left, first, other)} {sign} {_show(right, second, other)}", strength, above)
        case Apply(op, args):
            return f"{op}({', '.join(_show(a, 0, other) for a in args)})"
        case _:
            if other is None:
                raise TypeError(f"not a scalar expression: {type(expr).__name__}")
            return _bracket(other(expr), 0, above) if above else other(expr)


def _bracket(text: str, strength: int, above: int) -> str:
    return f"({text})" if strength < above else text
