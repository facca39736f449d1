"""Methods of nodes with a few fields a0, a1, ..., for `term.node` to give these their names: compiled with this module, once and for all.

A name `set_n` is the setter of a field when the code has become a class's own; here it stands for any.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def set_any(node: Any, value: Any) -> None:
    """Stands for the setter of a field."""


set_0 = set_1 = set_2 = set_3 = set_4 = set_5 = set_6 = set_7 = set_8 = set_any


def init_0(self: Any) -> None:
    pass


def init_1(self: Any, a0: Any) -> None:
    set_0(self, a0)


def init_2(self: Any, a0: Any, a1: Any) -> None:
    set_0(self, a0)
    set_1(self, a1)


def init_3(self: Any, a0: Any, a1: Any, a2: Any) -> None:
    set_0(self, a0)
    set_1(self, a1)
    set_2(self, a2)


def init_4(self: Any, a0: Any, a1: Any, a2: Any, a3: Any) -> None:
    set_0(self, a0)
    set_1(self, a1)
    set_2(self, a2)
    set_3(self, a3)


def init_5(self: Any, a0: Any, a1: Any, a2: Any, a3: Any, a4: Any) -> None:
    set_0(self, a0)
    set_1(self, a1)
    set_2(self, a2)
    set_3(self, a3)
    set_4(self, a4)


def init_6(self: Any, a0: Any, a1: Any, a2: Any, a3: Any, a4: Any, a5: Any) -> None:
    set_0(self, a0)
    set_1(self, a1)
    set_2(self, a2)
    set_3(self, a3)
    set_4(self, a4)
    set_5(self, a5)


def init_7(self: Any, a0: Any, a1: Any, a2: Any, a3: Any, a4: Any, a5: Any, a6: Any) -> None:
    set_0(self, a0)
    set_1(self, a1)
    set_2(self, a2)
    set_3(self, a3)
    set_4(self, a4)
    set_5(self, a5)
    set_6(self, a6)


def init_8(self: Any, a0: Any, a1: Any, a2: Any, a3: Any, a4: Any, a5: Any, a6: Any, a7: Any) -> None:
    set_0(self, a0)
    set_1(self, a1)
    set_2(self, a2)
    set_3(self, a3)
    set_4(self, a4)
    set_5(self, a5)
    set_6(self, a6)
    set_7(self, a7)


def init_9(self: Any, a0: Any, a1: Any, a2: Any, a3: Any, a4: Any, a5: Any, a6: Any, a7: Any, a8: Any) -> None:
    set_0(self, a0)
    set_1(self, a1)
    set_2(self, a2)
    set_3(self, a3)
    set_4(self, a4)
    set_5(self, a5)
    set_6(self, a6)
    set_7(self, a7)
    set_8(self, a8)


def eq_0(self: Any, other: Any) -> Any:
    if self is other:
        return True
    return True if other.__class__ is self.__class__ else NotImplemented


def eq_1(self: Any, other: Any) -> Any:
    if self is other:
        return True
    return self.a0 == other.a0 if other.__class__ is self.__class__ else NotImplemented


def eq_2(self: Any, other: Any) -> Any:
    if self is other:
        return True
    return (self.a0 == other.a0 and self.a1 == other.a1) if other.__class__ is self.__class__ else NotImplemented


def eq_3(self: Any, other: Any) -> Any:
    if self is other:
        return True
    return (self.a0 == other.a0 and self.a1 == other.a1 and self.a2 == other.a2) if other.__class__ is self.__class__ else NotImplemented


def eq_4(self: Any, other: Any) -> Any:
    if self is other:
        return True
    return (self.a0 == other.a0 and self.a1 == other.a1 and self.a2 == other.a2 and self.a3 == other.a3) if other.__class__ is self.__class__ else NotImplemented


def eq_5(self: Any, other: Any) -> Any:
    if self is other:
        return True
    return (self.a0 == other.a0 and self.a1 == other.a1 and self.a2 == other.a2 and self.a3 == other.a3 and self.a4 == other.a4) if other.__class__ is self.__class__ else NotImplemented


def eq_6(self: Any, other: Any) -> Any:
    if self is other:
        return True
    return (self.a0 == other.a0 and self.a1 == other.a1 and self.a2 == other.a2 and self.a3 == other.a3 and self.a4 == other.a4 and self.a5 == other.a5) if other.__class__ is self.__class__ else NotImplemented


def eq_7(self: Any, other: Any) -> Any:
    if self is other:
        return True
    return (self.a0 == other.a0 and self.a1 == other.a1 and self.a2 == other.a2 and self.a3 == other.a3 and self.a4 == other.a4 and self.a5 == other.a5 and self.a6 == other.a6) if other.__class__ is self.__class__ else NotImplemented


def eq_8(self: Any, other: Any) -> Any:
    if self is other:
        return True
    return (self.a0 == other.a0 and self.a1 == other.a1 and self.a2 == other.a2 and self.a3 == other.a3 and self.a4 == other.a4 and self.a5 == other.a5 and self.a6 == other.a6 and self.a7 == other.a7) if other.__class__ is self.__class__ else NotImplemented


def eq_9(self: Any, other: Any) -> Any:
    if self is other:
        return True
    return (self.a0 == other.a0 and self.a1 == other.a1 and self.a2 == other.a2 and self.a3 == other.a3 and self.a4 == other.a4 and self.a5 == other.a5 and self.a6 == other.a6 and self.a7 == other.a7 and self.a8 == other.a8) if other.__class__ is self.__class__ else NotImplemented


def hash_0(self: Any) -> int:
    return hash(())


def hash_1(self: Any) -> int:
    return hash((self.a0,))


def hash_2(self: Any) -> int:
    return hash((self.a0, self.a1))


def hash_3(self: Any) -> int:
    return hash((self.a0, self.a1, self.a2))


def hash_4(self: Any) -> int:
    return hash((self.a0, self.a1, self.a2, self.a3))


def hash_5(self: Any) -> int:
    return hash((self.a0, self.a1, self.a2, self.a3, self.a4))


def hash_6(self: Any) -> int:
    return hash((self.a0, self.a1, self.a2, self.a3, self.a4, self.a5))


def hash_7(self: Any) -> int:
    return hash((self.a0, self.a1, self.a2, self.a3, self.a4, self.a5, self.a6))


def hash_8(self: Any) -> int:
    return hash((self.a0, self.a1, self.a2, self.a3, self.a4, self.a5, self.a6, self.a7))


def hash_9(self: Any) -> int:
    return hash((self.a0, self.a1, self.a2, self.a3, self.a4, self.a5, self.a6, self.a7, self.a8))


PLAIN: dict[str, tuple[Callable[..., Any], ...]] = {
    "__init__": (init_0, init_1, init_2, init_3, init_4, init_5, init_6, init_7, init_8, init_9),
    "__eq__": (eq_0, eq_1, eq_2, eq_3, eq_4, eq_5, eq_6, eq_7, eq_8, eq_9),
    "__hash__": (hash_0, hash_1, hash_2, hash_3, hash_4, hash_5, hash_6, hash_7, hash_8, hash_9),
}
"""By name, the method of a node with as many fields as its place says."""
