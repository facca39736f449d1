"""Frozen, slotted dataclasses as tree nodes, and the generic walks over them."""

from __future__ import annotations

import dataclasses
import functools
import types
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, dataclass_transform

from polyai.term.methods import PLAIN

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def node(cls: type[T]) -> type[T]:
    """Make `cls` a tree node: frozen, slotted, compared and hashed by value.

    A dataclass to everything that asks (`dataclasses.replace`, `fields`), but made many times faster: the compiler has more
    than two hundred node classes, and importing it must not be felt. The methods that depend on the fields are written when
    one of them is first called, the description of the fields when it is first asked for: most classes never need either.
    """
    return _made(cls, {**_SHARED, **_FROZEN, "__node__": True})


@dataclass_transform(field_specifiers=(dataclasses.field,))
def record(cls: type[T]) -> type[T]:
    """Make `cls` a slotted class whose fields can be assigned, compared by value: a mutable dataclass, made as cheaply as a node."""
    return _made(cls, {**_SHARED, "__hash__": None})


def _made(cls: type[T], shared: dict[str, Any]) -> type[T]:
    names = tuple(cls.__dict__.get("__annotations__", {}))  # noqa: RUF063 (inspect is slow to import)
    defaults = {n: cls.__dict__[n] for n in names if n in cls.__dict__}
    space = {k: v for k, v in cls.__dict__.items() if k not in defaults and k not in ("__dict__", "__weakref__")}
    space["__slots__"] = space["__match_args__"] = names
    space["__qualname__"] = cls.__qualname__
    space["__field_defaults__"] = defaults
    space["__dataclass_fields__"] = _Fields()
    kind: Any = type(cls)
    return kind(cls.__name__, cls.__bases__, {**shared, **space})  # type: ignore[no-any-return]


def _complete(kind: type[Any], name: str) -> Any:
    """Give a class its own method `name` in place of the stub; that method."""
    made: Any
    for made in kind.__mro__:
        if made.__dict__.get(name) is _STUBS[name]:
            setattr(made, name, _method(made, name, made.__match_args__, made.__field_defaults__))
    return getattr(kind, name)


def _first_init(self: Any, *args: Any, **kwargs: Any) -> None:
    _complete(type(self), "__init__")(self, *args, **kwargs)


def _first_eq(self: Any, other: object) -> Any:
    return _complete(type(self), "__eq__")(self, other)


def _first_hash(self: Any) -> int:
    return _complete(type(self), "__hash__")(self)  # type: ignore[no-any-return]


def _method(made: Any, name: str, names: tuple[str, ...], defaults: dict[str, Any]) -> Any:
    """A method that depends on the fields."""
    anew = tuple(n for n, field in enumerate(names) if isinstance(defaults.get(field), dataclasses.Field))
    code = _template(name, len(names), anew, hasattr(made, "__post_init__"))
    own = {f"a{n}": field for n, field in enumerate(names)}
    attributes, variables = (tuple(own.get(n, n) for n in group) for group in (code.co_names, code.co_varnames))
    known: dict[str, Any] = {}
    if name == "__init__":
        known.update({f"set_{n}": made.__dict__[field].__set__ for n, field in enumerate(names)})
        known.update({f"default_{n}": defaults[names[n]] for n in anew})
        known.update({f"new_{n}": defaults[names[n]].default_factory for n in anew})
    method = types.FunctionType(
        code.replace(co_names=attributes, co_varnames=variables, co_name=name, co_qualname=f"{made.__qualname__}.{name}"), known, name
    )
    if name == "__init__":
        method.__defaults__ = tuple(defaults.values())
    return method


def _template(method: str, fields: int, anew: tuple[int, ...], checked: bool) -> types.CodeType:
    """The code of a method over `fields` fields a0, a1, ..., which are still to get their names: giving names is many times faster
    than compiling source. The plain ones were compiled with their module."""
    plain = fields < len(PLAIN[method]) and not (method == "__init__" and (anew or checked))
    return PLAIN[method][fields].__code__ if plain else compiled(method, fields, anew, checked)


@functools.cache
def compiled(method: str, fields: int, anew: tuple[int, ...] = (), checked: bool = False) -> types.CodeType:
    """The code of a method over `fields` fields, from its source. The constructor makes the defaults of the fields in `anew`, and calls
    `__post_init__` if `checked`."""
    names = [f"a{n}" for n in range(fields)]
    if method == "__init__":
        body = [f"if a{n} is default_{n}: a{n} = new_{n}()" for n in anew]
        body += [f"set_{n}(self, a{n})" for n in range(fields)] + ["self.__post_init__()"] * checked
        source = f"def __init__({', '.join(('self', *names))}):\n    " + "\n    ".join(body or ["pass"])
    elif method == "__eq__":
        same = " and ".join(f"self.{n} == other.{n}" for n in names) or "True"
        source = f"def __eq__(self, other):\n    if self is other: return True\n    return ({same}) if other.__class__ is self.__class__ else NotImplemented"
    else:
        source = f"def __hash__(self): return hash(({''.join(f'self.{n}, ' for n in names)}))"
    space: dict[str, Any] = {}
    exec(source, space)
    code: types.CodeType = space[method].__code__
    return code


class _Fields:
    """What `dataclasses` knows of a node class's fields, made when it is first asked for."""

    __slots__ = ("_of",)

    def __set_name__(self, owner: type[Any], name: str) -> None:
        self._of = owner

    def __get__(self, instance: object, owner: type[Any]) -> dict[str, Any]:
        of: Any = self._of
        out = of.__dataclass_fields__ = {n: _field(n, of.__annotations__[n], of.__field_defaults__) for n in of.__match_args__}
        return out


def _field(name: str, annotation: Any, defaults: dict[str, Any]) -> Any:
    made: Any = defaults.get(name)
    if not isinstance(made, dataclasses.Field):
        made = dataclasses.field(default=made) if name in defaults else dataclasses.field()
    made.name, made.type, made._field_type = name, annotation, _FIELD
    return made


_FIELD: Any = dataclasses._FIELD  # type: ignore[attr-defined]
"""The mark by which `dataclasses.replace` knows a field."""


def _repr(self: Any) -> str:
    return f"{type(self).__qualname__}({', '.join(f'{n}={getattr(self, n)!r}' for n in self.__match_args__)})"


def _refuse(self: Any, name: str, *value: Any) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot change field {name!r} of a node")


def _getstate(self: Any) -> list[Any]:
    return [getattr(self, n) for n in self.__match_args__]


def _setstate(self: Any, state: list[Any]) -> None:
    for name, value in zip(self.__match_args__, state):
        object.__setattr__(self, name, value)


_STUBS: dict[str, Any] = {"__init__": _first_init, "__eq__": _first_eq, "__hash__": _first_hash}
_SHARED: dict[str, Any] = {**_STUBS, "__repr__": _repr}
_FROZEN: dict[str, Any] = {"__setattr__": _refuse, "__delattr__": _refuse, "__getstate__": _getstate, "__setstate__": _setstate}


def field_names(cls: type[Any]) -> tuple[str, ...]:
    """The fields of a node class in order: what its constructor takes by position."""
    names: tuple[str, ...] = cls.__match_args__
    return names


def is_node(value: object) -> bool:
    return hasattr(value, "__node__")


def children(value: Any) -> Iterator[Any]:
    """The nodes one step below `value`, through tuples, in field order."""
    for name in field_names(type(value)):
        yield from _nodes_in(getattr(value, name))


def _nodes_in(item: Any) -> Iterator[Any]:
    if isinstance(item, tuple):
        for part in item:
            yield from _nodes_in(part)
    elif is_node(item):
        yield item


def walk(value: Any) -> Iterator[Any]:
    """Every node of the tree, parents before children, left to right."""
    stack = [value]
    while stack:
        item = stack.pop()
        yield item
        stack.extend(reversed(list(children(item))))


def map_children(value: T, change: Callable[[Any], Any]) -> T:
    """`value` with `change` applied to each node one step below; the same object if nothing changed."""
    fresh: dict[str, Any] = {}
    for name in field_names(type(value)):
        old = getattr(value, name)
        new = _map_item(old, change)
        if new is not old:
            fresh[name] = new
    if not fresh:
        return value
    return type(value)(*[fresh[n] if n in fresh else getattr(value, n) for n in field_names(type(value))])


def _map_item(item: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(item, tuple):
        parts = tuple(_map_item(part, change) for part in item)
        return item if all(a is b for a, b in zip(parts, item)) else parts
    return change(item) if is_node(item) else item


def rewrite(value: Any, change: Callable[[Any], Any]) -> Any:
    """Bottom-up rewrite: children first, then `change` on the rebuilt node."""
    return change(map_children(value, lambda child: rewrite(child, change)))
