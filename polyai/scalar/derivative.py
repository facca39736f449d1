"""Partial derivatives of the operations, as expressions over the arguments: data for the pass that differentiates programs.

`DERIVATIVES[op]` gives one function per argument that takes the arguments (floats or complex, of one type) and the result
and returns d result / d argument. None in its place: the derivative is zero wherever it exists (floor, comparisons).
At a kink the derivative is a subgradient: max and min give half to each side of a tie, as JAX does; abs gives 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from polyai.scalar.build import apply, const
from polyai.scalar.expr import Apply, Expr

Partial = Callable[..., Expr]
"""(arguments..., result) -> derivative."""


def _c(value: float, like: Expr) -> Expr:
    return const(value, like.dtype)


def _add(a: Expr, value: float) -> Expr:
    return apply("add", a, _c(value, a))


def _times(value: float, a: Expr) -> Expr:
    return apply("mul", _c(value, a), a)


def _one_minus(a: Expr) -> Expr:
    return apply("sub", _c(1.0, a), a)


def _over(a: Expr) -> Expr:
    return apply("reciprocal", a)


def _square(a: Expr) -> Expr:
    return apply("square", a)


def _root(a: Expr) -> Expr:
    return apply("sqrt", a)


def _neg(a: Expr) -> Expr:
    return apply("neg", a)


def _share(wins: str) -> tuple[Partial, Partial]:
    """max and min: 1 to the winner, half to each at a tie."""

    def part(mine: Expr, theirs: Expr) -> Expr:
        tie = apply("where", apply("eq", mine, theirs), _c(0.5, mine), _c(0.0, mine))
        return apply("where", apply(wins, mine, theirs), _c(1.0, mine), tie)

    return (lambda a, b, r: part(a, b)), (lambda a, b, r: part(b, a))


def _pow_base(a: Expr, b: Expr, r: Expr) -> Expr:
    """b * a ** (b - 1)."""
    return apply("mul", b, apply("pow", a, _add(b, -1.0)))


def _pow_exponent(a: Expr, b: Expr, r: Expr) -> Expr:
    """a ** b * log(a), and 0 at a = 0."""
    return apply("where", apply("eq", a, _c(0.0, a)), _c(0.0, a), apply("mul", r, apply("log", a)))


_FLAT = ("floor", "ceil", "trunc", "round", "sign", "isnan", "isinf", "isfinite", "not", "invert", "popcount", "ctz", "bit", "bits")
_FLAT_PAIRS = ("eq", "ne", "lt", "le", "gt", "ge", "and", "or", "xor", "bitand", "bitor", "bitxor", "shl", "shr", "floordiv")

DERIVATIVES: dict[str, tuple[Partial | None, ...]] = {
    "neg": (lambda a, r: _c(-1.0, a),),
    "abs": (lambda a, r: apply("sign", a),),
    "square": (lambda a, r: _times(2.0, a),),
    "sqrt": (lambda a, r: apply("div", _c(0.5, a), r),),
    "reciprocal": (lambda a, r: _neg(_square(r)),),
    "exp": (lambda a, r: r,),
    "exp2": (lambda a, r: _times(math.log(2.0), r),),
    "expm1": (lambda a, r: _add(r, 1.0),),
    "log": (lambda a, r: _over(a),),
    "log2": (lambda a, r: apply("div", _c(1.0 / math.log(2.0), a), a),),
    "log10": (lambda a, r: apply("div", _c(1.0 / math.log(10.0), a), a),),
    "log1p": (lambda a, r: _over(_add(a, 1.0)),),
    "sin": (lambda a, r: apply("cos", a),),
    "cos": (lambda a, r: _neg(apply("sin", a)),),
    "tan": (lambda a, r: _add(_square(r), 1.0),),
    "arcsin": (lambda a, r: _over(_root(_one_minus(_square(a)))),),
    "arccos": (lambda a, r: _neg(_over(_root(_one_minus(_square(a))))),),
    "arctan": (lambda a, r: _over(_add(_square(a), 1.0)),),
    "sinh": (lambda a, r: apply("cosh", a),),
    "cosh": (lambda a, r: apply("sinh", a),),
    "tanh": (lambda a, r: _one_minus(_square(r)),),
    "arcsinh": (lambda a, r: _over(_root(_add(_square(a), 1.0))),),
    "arccosh": (lambda a, r: _over(_root(_add(_square(a), -1.0))),),
    "arctanh": (lambda a, r: _over(_one_minus(_square(a))),),
    "erf": (lambda a, r: _times(2.0 / math.sqrt(math.pi), apply("exp", _neg(_square(a)))),),
    "add": (lambda a, b, r: _c(1.0, a), lambda a, b, r: _c(1.0, b)),
    "sub": (lambda a, b, r: _c(1.0, a), lambda a, b, r: _c(-1.0, b)),
    "mul": (lambda a, b, r: b, lambda a, b, r: a),
    "div": (lambda a, b, r: _over(b), lambda a, b, r: _neg(apply("div", r, b))),
    "mod": (lambda a, b, r: _c(1.0, a), lambda a, b, r: _neg(apply("floordiv", a, b))),
    "pow": (_pow_base, _pow_exponent),
    "max": _share("gt"),
    "min": _share("lt"),
    "arctan2": (
        lambda a, b, r: apply("div", b, apply("add", _square(a), _square(b))),
        lambda a, b, r: _neg(apply("div", a, apply("add", _square(a), _square(b)))),
    ),
    "where": (
        None,
        lambda c, a, b, r: apply("where", c, _c(1.0, a), _c(0.0, a)),
        lambda c, a, b, r: apply("where", c, _c(0.0, b), _c(1.0, b)),
    ),
    **dict.fromkeys(_FLAT, (None,)),
    **dict.fromkeys(_FLAT_PAIRS, (None, None)),
}
"""op -> one partial derivative per argument. conj, real and imag are absent: their derivatives are not multiplications."""


def partials(value: Apply) -> tuple[Any, ...]:
    """The partial derivatives of an operation by its arguments, None where they vanish. KeyError for conj, real, imag."""
    return tuple(None if d is None else d(*value.args, value) for d in DERIVATIVES[value.op])
