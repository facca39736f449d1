"""Frozen, slotted dataclasses as tree nodes, and the generic walks over them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def node(cls: type[T]) -> type[T]:
    """Make `cls` a tree node: frozen, slotted, compared and hashed by value."""
    return dataclasses.dataclass(frozen=True, slots=True)(cls)


def field_names(cls: type[Any]) -> tuple[str, ...]:
    """The fields of a node class in order: what its constructor takes by position."""
    names: tuple[str, ...] = cls.__match_args__
    return names


def is_node(value: object) -> bool:
    return hasattr(value, "__dataclass_fields__")


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
    return dataclasses.replace(value, **fresh)  # type: ignore[type-var]


def _map_item(item: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(item, tuple):
        parts = tuple(_map_item(part, change) for part in item)
        return item if all(a is b for a, b in zip(parts, item)) else parts
    return change(item) if is_node(item) else item


def rewrite(value: Any, change: Callable[[Any], Any]) -> Any:
    """Bottom-up rewrite: children first, then `change` on the rebuilt node."""
    return change(map_children(value, lambda child: rewrite(child, change)))
