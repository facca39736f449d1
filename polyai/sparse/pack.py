"""Coordinates and values into any format, and back, in NumPy.

Level by level, outermost first, each entry is given its position, as assembly does (Chou, Kjolstad, Amarasinghe, OOPSLA 2018):

    full levels         position = parent * extent + coordinate
    listed, unique      entries with the same parent and coordinate share a position
    listed, repeated    each entry has its own
    slots               position = parent * length + place in the list, for the longest list
    groups of slots     position = (parent * groups + group) * n + place in the list of the group
    branchless          the parent's position
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from polyai.errors import ShapeError, SparseStructureError, UnsupportedError
from polyai.scalar import dtype as dt
from polyai.scalar.expr import Var
from polyai.scalar.interp import evaluate as evaluate_expr
from polyai.shapes.expr import evaluate
from polyai.sparse.format import Format
from polyai.sparse.interp import walk
from polyai.sparse.level import Level, length_of
from polyai.sparse.storage import Storage
from polyai.sparse.verify import verify_format

Array = NDArray[Any]

_QUESTION = tuple(Var(name, dt.i64) for name in ("parent", "coordinate", "extent"))


def pack(format: Format, shape: Sequence[int], coordinates: Sequence[ArrayLike], values: ArrayLike, *, merge: bool = True) -> Storage:
    """Store `values[e]` at `coordinates[d][e]` for all entries e.

    Entries are sorted by level where levels are ordered. `merge` adds entries with equal coordinates; without it they are
    kept, which needs a format that can repeat them (SparseStructureError else). Raises ShapeError for coordinates outside.
    """
    verify_format(format)
    extents = tuple(int(s) for s in shape)
    entries, data = _checked(format, extents, coordinates, np.asarray(values))
    keys = list(format.taken_apart(entries))
    if any(level.ordered for level in format.levels):
        by = np.lexsort(keys[::-1])
        keys, data = [k[by] for k in keys], data[by]
    if merge:
        keys, data = _merged(keys, data)
    return _assemble(format, extents, keys, data)


def _checked(format: Format, shape: tuple[int, ...], coordinates: Sequence[ArrayLike], values: Array) -> tuple[list[Array], Array]:
    entries = [np.asarray(c, dtype=np.int64) for c in coordinates]
    if not len(shape) == len(entries) == format.rank:
        raise ShapeError(f"{format.name} has {format.rank} dimensions", f"{len(shape)} extents and {len(entries)} lists of coordinates given")
    for d, (c, extent) in enumerate(zip(entries, shape)):
        if c.shape != values.shape or values.ndim != 1:
            raise ShapeError(f"coordinates[{d}] has shape {c.shape}", f"values have shape {values.shape}", "give one number per entry")
        if len(c) and (c.min() < 0 or c.max() >= extent):
            bad = c[(c < 0) | (c >= extent)][0]
            raise ShapeError(f"coordinate {bad} in dimension {d}", f"its extent is {extent}", "coordinates count from 0")
    for d, extent in enumerate(shape):
        if extent % (format.block(d) or 1):
            raise ShapeError(f"dimension {d} has {extent} elements", f"{format.name} has blocks of {format.block(d)} there", "pad it to a multiple")
    return entries, values


def _merged(keys: list[Array], data: Array) -> tuple[list[Array], Array]:
    """Equal coordinates added up; the first of each stays where it is."""
    if not len(data):
        return keys, data
    by = np.lexsort(keys[::-1])
    new = np.concatenate([[True], np.any([np.diff(k[by]) != 0 for k in keys], axis=0)])
    if new.all():
        return keys, data
    first = np.minimum.reduceat(by, np.flatnonzero(new))
    sums = np.add.reduceat(data[by], np.flatnonzero(new)).astype(data.dtype)
    order = np.argsort(first)
    return [k[first[order]] for k in keys], sums[order]


def _assemble(format: Format, shape: tuple[int, ...], keys: list[Array], data: Array) -> Storage:
    index = np.dtype(f"i{format.index_bits // 8}")
    arrays: dict[str, Array] = {}  # of i64 until all are known to fit
    position, count = np.zeros(len(data), dtype=np.int64), 1
    for number, (level, size) in enumerate(zip(format.levels, format.level_extents(shape))):
        key, extent = keys[number], evaluate(size, {})
        match _kind(level):
            case "located":
                length = level.width(extent) if level.sized else extent
                env = {"parent": position, "coordinate": key, "extent": np.int64(extent), length_of("A", number): np.int64(length)}
                slot = np.asarray(evaluate_expr(level.locate("A", number, *_QUESTION), env, {}), dtype=np.int64) - position * length
                if ((slot < 0) | (slot >= length)).any():
                    at = int(np.argmax((slot < 0) | (slot >= length)))
                    raise SparseStructureError(
                        f"{format.name} has no room for coordinate {key[at]} under position {position[at]} of level {number}",
                        f"a {level.name} level has {length} there",
                        "choose a format that holds it",
                    )
                position, count = position * length + slot, count * length
                if level.gaps:
                    arrays[f"bit{number}"] = np.zeros(count, dtype=np.int64)
                    arrays[f"bit{number}"][position] = 1
            case "slots" if (groups := level.groups()) is not None:
                n, m = groups
                length = level.width(extent)
                group = position * (length // n) + key // m
                place, first = _listed(group, key, level.unique)
                held = np.bincount(group[first], minlength=count * (length // n))
                if held.max(initial=0) > n:
                    at = int(np.argmax(held)) % (length // n) * m
                    raise SparseStructureError(
                        f"{format.name} has no room for {held.max()} elements among the coordinates {at} to {at + m - 1} of one fibre",
                        f"a {level.name} level has {n} of {m} there",
                        "prune more, or choose a format that holds it",
                    )
                starts = np.concatenate([[0], np.cumsum(held)])
                position = group * n + (place - starts[group])
                count *= length
                crd = np.full(count, -1, dtype=np.int64)
                crd[position[first]] = key[first] % m
                arrays[f"crd{number}"] = crd
            case "slots":
                own = position
                listed, first = _listed(position, key, level.unique)
                lengths = np.bincount(own[first], minlength=count)
                starts = np.concatenate([[0], np.cumsum(lengths)])
                longest = int(lengths.max(initial=0))
                position = own * longest + (listed - starts[own])
                count *= longest
                crd = np.full(count, -1, dtype=np.int64)
                crd[position[first]] = key[first]
                arrays[f"crd{number}"] = crd
            case "full":
                position, count = position * extent + key, count * extent
            case "branchless":
                crd = np.zeros(count, dtype=np.int64)
                crd[position] = key
                arrays[f"crd{number}"] = crd
            case "listed":
                own = position
                position, first = _listed(position, key, level.unique)
                lengths = np.bincount(own[first], minlength=count)
                arrays[f"pos{number}"] = np.concatenate([[0], np.cumsum(lengths)])
                arrays[f"crd{number}"] = key[first]
                count = len(first)
    indices_fit(format, shape, arrays)
    values = np.zeros(count, dtype=data.dtype)
    values[position] = data
    if len(np.unique(position)) < len(position):
        raise SparseStructureError(
            f"{format.name} cannot hold a coordinate twice", "its levels are unique", "pack with merge=True, or into coo"
        )
    return Storage(format, shape, {**{n: a.astype(index) for n, a in arrays.items()}, "val": values})


def indices_fit(format: Format, shape: tuple[int, ...], arrays: Mapping[str, Array]) -> None:
    """Raise SparseStructureError if some index does not fit in the format's width."""
    limit = np.iinfo(f"i{format.index_bits // 8}").max
    for name, array in arrays.items():
        if len(array) and array.max() > limit:
            raise SparseStructureError(
                f"{name} needs {array.max()} in a tensor of shape {shape}", f"indices of {format.name} have {format.index_bits} bits", "use a wider index type"
            )


def _listed(parent: Array, key: Array, unique: bool) -> tuple[Array, Array]:
    """Positions of entries under their parents' positions, and the entry that stands for each position, in order."""
    by = np.argsort(parent, kind="stable")
    new = np.ones(len(by), dtype=bool)
    if unique and len(by):
        new[1:] = (np.diff(parent[by]) != 0) | (np.diff(key[by]) != 0)
    position = np.empty(len(by), dtype=np.int64)
    position[by] = np.cumsum(new) - 1
    return position, by[new]


def _kind(level: Level) -> str:
    roles = {a.role for a in level.arrays("A", 0, 1, 1)}
    if level.sized and roles:
        return "slots" if roles == {"crd"} else "unknown"
    if level.sized or roles == {"bit"}:
        return "located"
    if level.full and not roles:
        return "full"
    if level.branchless and roles == {"crd"}:
        return "branchless"
    if roles == {"pos", "crd"}:
        return "listed"
    raise UnsupportedError(f"a level of kind {level.name} cannot be packed", "pack knows full, listed and branchless levels", "")


def unpack(storage: Storage) -> tuple[tuple[Array, ...], Array]:
    """Coordinates by dimension, and values, of everything stored, in order of iteration. Fills of full levels come too."""
    stored = walk(storage.format, storage.shape, storage.arrays)
    return stored.coordinates, storage.values.reshape(-1)[stored.positions]


def convert(storage: Storage, format: Format) -> Storage:
    """The same tensor in another format; equal coordinates are added, stored zeros stay stored."""
    coordinates, values = unpack(storage)
    return pack(format, storage.shape, coordinates, values)
