"""Nested tuples, lists and dicts of values: flattened to leaves and rebuilt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from polyai.term.node import node


@node
class Tree:
    """`kind`: leaf, tuple, list or dict. `cls` is the class of a named tuple; `keys` are a dict's, in its order."""

    kind: str
    children: tuple[Tree, ...] = ()
    keys: tuple[Any, ...] = ()
    cls: Any = None


LEAF = Tree("leaf")


def flatten(value: Any) -> tuple[list[Any], Tree]:
    """The leaves from left to right, and the structure."""
    leaves: list[Any] = []
    return leaves, _flatten(value, leaves)


def _flatten(value: Any, leaves: list[Any]) -> Tree:
    if isinstance(value, tuple):
        return Tree("tuple", tuple(_flatten(v, leaves) for v in value), cls=type(value) if hasattr(value, "_fields") else None)
    if isinstance(value, list):
        return Tree("list", tuple(_flatten(v, leaves) for v in value))
    if isinstance(value, dict):
        return Tree("dict", tuple(_flatten(v, leaves) for v in value.values()), tuple(value))
    leaves.append(value)
    return LEAF


def rebuild(tree: Tree, leaves: Sequence[Any]) -> Any:
    """The nested value with the given leaves."""
    return _rebuild(tree, iter(leaves))


def _rebuild(tree: Tree, leaves: Iterator[Any]) -> Any:
    if tree.kind == "leaf":
        return next(leaves)
    parts = [_rebuild(child, leaves) for child in tree.children]
    if tree.kind == "list":
        return parts
    if tree.kind == "dict":
        return dict(zip(tree.keys, parts))
    return tree.cls(*parts) if tree.cls is not None else tuple(parts)
