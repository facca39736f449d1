"""Objects as arguments of compiled methods: what they hold is given to the kernel, and put together again inside the trace.

    class Model:                        m.forward(A)   ->   f({"W": m.W, "scale": 2.0}, A)
        @jit
        def forward(self, A): ...       in f: self = a Model that holds these

Arrays and numbers that an object holds, also in lists, dicts and objects of its own, are read at each call, so a new value is seen.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable
from typing import Any, Union

from polyai.errors import TraceError
from polyai.frontend.arguments import kind_of
from polyai.frontend.core import Array, Composite
from polyai.term.node import node

_HEAP_TYPE = 1 << 9
"""The flag of classes that Python code makes."""


class Same:
    """Something that stays as it is, told by identity: a lock, a logger, a part met a second time."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)


@node
class Shape:
    """What a nested value was before its objects were opened: `kind` is a class, list, tuple or dict; `parts` says the same of what is
    inside, by name or key, None where that is as it was."""

    kind: type
    parts: tuple[tuple[Any, Union[Shape, Same, None]], ...]


def opened(value: Any, above: tuple[int, ...] = ()) -> tuple[Shape | Same | None, Any]:
    """A value with dicts in place of its objects, and how to undo that; None if there are none."""
    names = _names(value)
    if isinstance(value, (Array, Composite)) or (names is None and kind_of(value) and not _is_container(value)):
        return None, value
    if _is_container(value):
        keys = list(value) if isinstance(value, dict) else range(len(value))
        found = {k: opened(value[k], above) for k in keys}
        shape = Shape(type(value), tuple((k, s) for k, (s, _) in found.items()))
        if all(s is None for s, _ in found.values()):
            return None, value
        return shape, {str(k): v for k, (s, v) in found.items() if not isinstance(s, Same)}
    if names is None or id(value) in above:
        return (None, value) if isinstance(value, (list, tuple, dict)) else (Same(value), None)
    inside = {n: opened(getattr(value, n), (*above, id(value))) for n in names}
    return Shape(type(value), tuple((n, s) for n, (s, _) in inside.items())), {n: v for n, (s, v) in inside.items() if not isinstance(s, Same)}


def closed(shape: Shape | Same | None, value: Any) -> Any:
    """The value that was opened, with what its parts are now."""
    if shape is None:
        return value
    if isinstance(shape, Same):
        return shape.value
    parts = {k: closed(s, None if isinstance(s, Same) else value[str(k)]) for k, s in shape.parts}
    if shape.kind is dict:
        return parts
    if shape.kind in (list, tuple):
        return shape.kind(parts.values())
    made: Any = object.__new__(shape.kind)
    for name, part in parts.items():
        object.__setattr__(made, name, part)
    return made


def method(fn: Callable[..., Any], shape: Shape | Same | None) -> Callable[..., Any]:
    """`fn` with its first argument opened. Raises TraceError if it assigns to an attribute: kernels change no object."""

    @functools.wraps(fn)
    def call(state: Any, *args: Any, **kwargs: Any) -> Any:
        instance = closed(shape, state)
        before = {n: getattr(instance, n) for n in _names(instance) or ()}
        out = fn(instance, *args, **kwargs)
        for name in _names(instance) or ():
            if name not in before or getattr(instance, name) is not before[name]:
                raise TraceError(
                    f"{fn.__name__} assigns self.{name} while tracing", "a compiled method changes no object", "return the new value, and assign it outside"
                )
        return out

    return call


def _is_container(value: Any) -> bool:
    return type(value) in (list, tuple, dict)


def _names(value: Any) -> tuple[str, ...] | None:
    """The attributes that an object of a Python class holds; None for what is no such object."""
    cls = type(value)
    built_in = not cls.__flags__ & _HEAP_TYPE
    if built_in or isinstance(value, (type, tuple, list, dict, enum.Enum)) or cls.__module__.partition(".")[0] == "polyai" or hasattr(cls, "dtype"):
        return None
    if not hasattr(value, "__dict__") and all("__slots__" not in c.__dict__ for c in cls.__mro__):
        return None
    slots = (s for c in cls.__mro__ for s in _several(c.__dict__.get("__slots__", ())) if s not in ("__dict__", "__weakref__"))
    return tuple(dict.fromkeys((*(s for s in slots if hasattr(value, s)), *getattr(value, "__dict__", {}))))


def _several(slots: Any) -> tuple[str, ...]:
    return (slots,) if isinstance(slots, str) else tuple(slots)
