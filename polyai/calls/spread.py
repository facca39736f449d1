"""Calls with keywords, nested arguments and values that are baked in, told as calls of leaves, which native code can serve.

    f(A, {"w": W}, axis=1)    ->    the structure (LEAF, Nested(dict, ("w",), (LEAF,))) and ("axis",): Baked(int, 1); the leaves A, W
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Union

import numpy as np

from polyai.frontend.arguments import kind_of, parameter_names
from polyai.frontend.core import Array, Composite
from polyai.frontend.traced import Traced
from polyai.sparse.stands import Batch, LaidOut
from polyai.term.node import node


@node
class Nested:
    """A tuple, list or dict of `parts`; `keys` are a dict's, in its order."""

    kind: type
    keys: tuple[Any, ...]
    parts: tuple[Any, ...]


@node
class Baked:
    """A value that the kernel was made for."""

    kind: type
    value: Any


LEAF = None
"""In a structure: an array, a sparse matrix, or a number that is no constant."""
Part = Union[None, Nested, Baked]
Structure = tuple[tuple[Part, ...], tuple[tuple[str, Part], ...]]
"""What each argument and each keyword is."""


class _NoLeavesError(Exception):
    """A call that cannot be told by leaves."""


def spread(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], static: frozenset[Any]) -> tuple[Structure, list[Any]] | None:
    """The structure of a call and its leaves, in the order in which traces number them; None for what only a trace can tell: ragged batches,
    prepared matrices, traced arrays, named tuples. `static`: the names and positions of what is baked in."""
    leaves: list[Any] = []
    try:
        if not static:
            return (tuple(_part(v, leaves) for v in args), tuple((k, _part(v, leaves)) for k, v in kwargs.items())), leaves
        names = parameter_names(fn)
        found = tuple(
            Baked(type(v), v) if n in static or (n < len(names) and names[n] in static) else _part(v, leaves) for n, v in enumerate(args)
        )
        return (found, tuple((k, Baked(type(v), v) if k in static else _part(v, leaves)) for k, v in kwargs.items())), leaves
    except _NoLeavesError:
        return None


_LEAVES: dict[type, bool] = {np.ndarray: True, float: True, int: True, bool: True}
"""The classes of leaves, as far as they were met."""


def _part(value: Any, leaves: list[Any]) -> Part:
    kind = type(value)
    if kind in _LEAVES:
        leaves.append(value)
        return LEAF
    if kind is dict:
        return Nested(dict, tuple(value), tuple(_part(v, leaves) for v in value.values()))
    if kind is list or (kind is tuple and not (value and all(type(v) is int for v in value))):
        return Nested(kind, (), tuple(_part(v, leaves) for v in value))
    if isinstance(value, np.generic):
        leaves.append(np.asarray(value))
        return LEAF
    if isinstance(value, (Batch, LaidOut, Array, Composite, np.ma.MaskedArray)) or (isinstance(value, (tuple, list, dict)) and kind is not tuple):
        raise _NoLeavesError
    what = kind_of(value)
    if what in ("array", "sparse", "scalar"):
        _LEAVES[kind] = True
        leaves.append(value)
        return LEAF
    if what != "static":
        raise _NoLeavesError
    return Baked(kind, value)


def rebuilt(structure: Structure, leaves: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments and keywords of a call."""
    left = iter(leaves)
    args = tuple(_whole(p, left) for p in structure[0])
    return args, {k: _whole(p, left) for k, p in structure[1]}


def _whole(part: Part, leaves: Iterator[Any]) -> Any:
    if part is None:
        return next(leaves)
    if isinstance(part, Baked):
        return part.value
    parts = [_whole(p, leaves) for p in part.parts]
    return dict(zip(part.keys, parts)) if part.kind is dict else part.kind(parts)


def paths(structure: Structure) -> list[tuple[Any, ...]]:
    """Where each leaf is, as traces say it."""
    out: list[tuple[Any, ...]] = []
    for place, part in (*enumerate(structure[0]), *structure[1]):
        out += _below((place,), part)
    return out


def _below(path: tuple[Any, ...], part: Part) -> Iterator[tuple[Any, ...]]:
    if part is None:
        yield path
    elif isinstance(part, Nested):
        for key, item in zip(part.keys if part.kind is dict else range(len(part.parts)), part.parts):
            yield from _below((*path, key), item)


class Calls:
    """Calls of one structure: `fast` takes their leaves, and after these what the function closes over."""

    def __init__(self, structure: Structure, traced: Traced) -> None:
        self.structure, self.fast = structure, None
        where = {path: n for n, path in enumerate(paths(structure))}
        taken = [where.get(slot.path) for slot in traced.inputs if slot.path]
        self.captured = tuple(traced.captured[slot.name] for slot in traced.inputs if not slot.path)
        behind = [slot.path for slot in traced.inputs[: len(taken)]]
        self.holds = taken == list(range(len(where))) and all(behind)

    fast: Callable[..., Any] | None

    def __call__(self, leaves: Sequence[Any]) -> Any:
        assert self.fast is not None
        return self.fast(*leaves, *self.captured)

    def arguments(self, given: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The call that leaves and captured values, as `fast` has them, stand for."""
        return rebuilt(self.structure, given[: len(given) - len(self.captured)])
