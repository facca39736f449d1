"""Sizes as loop expressions, and back."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

from polyai.loop import build as b
from polyai.loop import nodes as lp
from polyai.shapes.expr import Atom, FloorDiv, Largest, Mod, Size, Smallest, Sym, symbol


def size_expr(size: Size, symbol: Callable[[str], lp.LoopExpr] = b.var) -> lp.LoopExpr:
    """`size` as an i64 expression; `symbol` says what a symbol's name becomes."""
    if isinstance(size, int):
        return b.const(size)
    total: lp.LoopExpr = b.ZERO
    for monomial, coefficient in size.terms:
        factors = [_atom(a, symbol) for a in monomial]
        term = reduce(b.mul, factors) if factors else b.ONE
        total = b.add(total, b.mul(term, b.const(coefficient))) if coefficient >= 0 else b.sub(total, b.mul(term, b.const(-coefficient)))
    return total


def _atom(atom: Atom, symbol: Callable[[str], lp.LoopExpr]) -> lp.LoopExpr:
    match atom:
        case Sym(name):
            return symbol(name)
        case FloorDiv(num, den):
            return b.floordiv(size_expr(num, symbol), size_expr(den, symbol))
        case Mod(num, den):
            return b.mod(size_expr(num, symbol), size_expr(den, symbol))
        case Largest(of):
            return reduce(b.largest, (size_expr(p, symbol) for p in of))
        case Smallest(of):
            return reduce(b.smallest, (size_expr(p, symbol) for p in of))


def as_size(expr: lp.LoopExpr) -> Size | None:
    """The size that an i64 expression of sums, differences and products is, in the canonical form of sizes; None for others."""
    match expr:
        case lp.Const(value=value):
            return int(value)  # type: ignore[arg-type]
        case lp.Var(name=name):
            return symbol(name)
        case lp.Apply(op="add" | "sub" | "mul" as op, args=args):
            left, right = map(as_size, args)
            if left is None or right is None:
                return None
            return left + right if op == "add" else left - right if op == "sub" else left * right
        case _:
            return None
