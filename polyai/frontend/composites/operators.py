"""Python's operators for values that are several arrays: the functions of the surface that they stand for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from polyai.frontend.core import Composite
from polyai.frontend.surface import elementwise as ew
from polyai.frontend.surface import linalg

Function = Callable[..., Any]
Call = Callable[[Function, Sequence[Any], Mapping[str, Any]], Any]
"""Calls a function of the surface with what may be several arrays: function, arguments, keywords."""

_BINARY: dict[str, Function] = {
    "add": ew.add, "sub": ew.subtract, "mul": ew.multiply, "truediv": ew.divide, "floordiv": ew.floor_divide, "mod": ew.remainder,
    "pow": ew.pow, "matmul": linalg.matmul, "and": ew.bitwise_and, "or": ew.bitwise_or, "xor": ew.bitwise_xor,
    "lshift": ew.left_shift, "rshift": ew.right_shift,
}  # fmt: skip
_COMPARISONS: dict[str, Function] = {
    "eq": ew.equal, "ne": ew.not_equal, "lt": ew.less, "le": ew.less_equal, "gt": ew.greater, "ge": ew.greater_equal
}  # fmt: skip
_UNARY: dict[str, Function] = {"neg": ew.negative, "pos": ew.positive, "abs": ew.absolute, "invert": ew.bitwise_invert}


def give_operators(cls: type[Composite], call: Call) -> None:
    """Give a class all operators: `x + y` becomes `call(add, (x, y), {})`."""
    for name, function in _BINARY.items():
        setattr(cls, f"__{name}__", _operator(function, call))
        setattr(cls, f"__r{name}__", _operator(function, call, swapped=True))
    for name, function in _COMPARISONS.items():
        setattr(cls, f"__{name}__", _operator(function, call))
    for name, function in _UNARY.items():
        setattr(cls, f"__{name}__", _unary(function, call))


def _operator(function: Function, call: Call, swapped: bool = False) -> Function:
    def apply(self: Any, other: Any) -> Any:
        return call(function, (other, self) if swapped else (self, other), {})

    return apply


def _unary(function: Function, call: Call) -> Function:
    def apply(self: Any) -> Any:
        return call(function, (self,), {})

    return apply
