"""A size as the traced function sees it."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, Protocol

from polyai.frontend.known import RELATIONS
from polyai.shapes import expr as sx
from polyai.shapes.expr import Size


class Asked(Protocol):
    """Who answers for a size: the symbols of a trace."""

    lift: Callable[[Size], Any]

    def value(self, size: Size) -> Any: ...

    def resolve(self, size: Size) -> Size: ...

    def compare(self, a: Size, relation: str, b: Size, why: str = "") -> bool: ...

    def number(self, size: Size, why: str = "") -> int: ...

    def described(self, size: Size) -> str: ...


class SizeValue:
    """A size as a user's function sees it: arithmetic stays symbolic; a comparison or a conversion to int records a guard."""

    __slots__ = ("size", "sizes")

    def __init__(self, sizes: Asked, size: Size) -> None:
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
