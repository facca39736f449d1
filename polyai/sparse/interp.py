"""The meaning of a format: walk its levels, asking each level's own functions, and list every stored position.

Nothing here knows a level by name. `bounds` opens the fibre under each parent position, `coordinate` names what lies there;
the answers are scalar expressions, evaluated on whole arrays at once. It is the oracle of generated loops.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from polyai.errors import SparseStructureError
from polyai.scalar import dtype as dt
from polyai.scalar.expr import Expr, Var
from polyai.scalar.interp import evaluate
from polyai.shapes.expr import evaluate as evaluate_size
from polyai.sparse.format import Format
from polyai.sparse.level import Can
from polyai.sparse.storage import Storage

Array = NDArray[Any]

_PARENT, _POSITION, _EXTENT, _COORDINATE = (Var(n, dt.i64) for n in ("parent", "position", "extent", "coordinate"))


class Stored(NamedTuple):
    """Every stored position in order of iteration: `coordinates[d]` in dimension d, `positions` in the value array."""

    coordinates: tuple[Array, ...]
    positions: Array


def walk(format: Format, shape: tuple[int, ...], arrays: Mapping[str, Array]) -> Stored:
    """All positions of a stored tensor, by level functions alone. `arrays` by suffix; "val" is needed for padded formats only.

    Raises SparseStructureError for a fibre that ends before it begins, IndexOutOfRangeError for one outside its array.
    """
    named = {f"A.{suffix}": array for suffix, array in arrays.items()}
    positions = np.zeros(1, dtype=np.int64)
    found: list[Array] = []
    lengths = {f"A.{n}": np.int64(length) for n, length in Storage(format, shape, arrays).lengths().items()} if format.padded else {}
    for number, (level, extent) in enumerate(zip(format.levels, format.level_extents(shape))):
        env: dict[str, Any] = {**lengths, "parent": positions, "extent": np.int64(evaluate_size(extent, {}))}
        begin, end = (_full(e, env, named, positions.shape) for e in level.bounds("A", number, _PARENT, _EXTENT))
        if (end < begin).any():
            at = int(np.argmax(end < begin))
            raise SparseStructureError(
                f"level {number}: the fibre under position {positions[at]} runs from {begin[at]} to {end[at]}",
                "a fibre cannot end before it begins",
                "rebuild the index arrays",
            )
        source = np.repeat(np.arange(len(positions)), end - begin)
        offsets = np.arange(len(source)) - np.repeat(np.cumsum(end - begin) - (end - begin), end - begin)
        parents, positions = positions[source], begin[source] + offsets
        env = {**env, "parent": parents, "position": positions}
        coordinate = _full(level.coordinate("A", number, _PARENT, _POSITION, _EXTENT), env, named, positions.shape)
        found = [c[source] for c in found] + [coordinate]
    coordinates = format.put_together(found)
    if format.padded:
        inside = np.ones(len(positions), dtype=bool)
        for coordinate, limit in zip(coordinates, shape):
            inside &= (coordinate >= 0) & (coordinate < limit)
        coordinates, positions = tuple(c[inside] for c in coordinates), positions[inside]
    return Stored(coordinates, positions)


def _full(expr: Expr, env: Mapping[str, Any], arrays: Mapping[str, Array], shape: tuple[int, ...]) -> Array:
    return np.broadcast_to(evaluate(expr, env, arrays), shape).astype(np.int64)


def locate(format: Format, shape: tuple[int, ...], coordinates: tuple[Array, ...]) -> Array:
    """Positions of coordinates in a format all of whose levels can LOCATE. UnsupportedError for others, by the level."""
    positions: Array = np.zeros(len(coordinates[0]) if coordinates else 1, dtype=np.int64)
    apart = format.taken_apart(coordinates)
    for number, (level, extent) in enumerate(zip(format.levels, format.level_extents(shape))):
        where = level.locate("A", number, _PARENT, _COORDINATE, _EXTENT)
        env = {"parent": positions, "coordinate": apart[number], "extent": np.int64(evaluate_size(extent, {}))}
        positions = _full(where, env, {}, positions.shape)
    return positions


def can_locate(format: Format) -> bool:
    """True if every level can LOCATE."""
    return all(Can.LOCATE in level.can for level in format.levels)


def count(storage: Storage) -> int:
    """The number of stored elements."""
    return len(walk(storage.format, storage.shape, storage.arrays).positions)


def dense(storage: Storage) -> Array:
    """The tensor as a dense array; entries stored twice are added, what is not stored is the format's fill value."""
    stored = walk(storage.format, storage.shape, storage.arrays)
    out = np.full(storage.shape, storage.format.fill_value, dtype=storage.values.dtype)
    if storage.format.fill_value != 0:
        out[stored.coordinates] = 0
    np.add.at(out, stored.coordinates, storage.values.reshape(-1)[stored.positions])
    return out
