"""Checks of formats and of stored tensors. Each check is a function whose name is the sentence that it checks."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polyai.errors import SparseStructureError
from polyai.shapes.expr import Size, evaluate
from polyai.sparse.format import Block, Format, Inner, Shift, Whole
from polyai.sparse.interp import walk
from polyai.sparse.levels.compressed import Compressed
from polyai.sparse.levels.dense import Dense
from polyai.sparse.storage import Storage

Array = NDArray[Any]


def _require(holds: bool, what: str, why: str, remedy: str = "rebuild it with polyai.sparse.pack") -> None:
    if not holds:
        raise SparseStructureError(what, why, remedy)


@cache
def verify_format(format: Format) -> None:
    """Raise SparseStructureError unless the levels make sense in their order."""
    order_is_a_permutation(format)
    one_level_per_part(format)
    blocks_have_an_inside(format)
    index_width_is_known(format)
    branchless_levels_follow_listed_ones(format)
    repeated_levels_are_followed_by_branchless_ones(format)


def order_is_a_permutation(format: Format) -> None:
    named = set(format.order)
    good = named == set(range(len(named))) and (bool(format.parts) or len(named) == len(format.order))
    _require(good, f"format {format.name}: order {format.order}", "each dimension must occur once", "use a permutation such as (1, 0)")


def one_level_per_part(format: Format) -> None:
    given, needed = len(format.levels), len(format.order)
    _require(given == needed, f"format {format.name} has {given} levels", f"its order names {needed} dimensions", "give one per dimension")
    parts = len(format.parts)
    _require(parts in (0, needed), f"format {format.name} has {parts} parts", f"it has {needed} levels", "give one part per level, or none")


def blocks_have_an_inside(format: Format) -> None:
    """A dimension is whole, or cut once: its blocks above the places inside them, both of one positive size."""
    for dimension in range(format.rank):
        parts = tuple(format.part(level) for level in format.levels_of(dimension))
        match parts:
            case (Whole(),):
                continue
            case (Shift(to),) if to != dimension and format.order.index(to) > format.level_of(dimension):
                continue
            case (Block(size), Inner(inside)) if size == inside > 0:
                continue
            case _:
                why = "it is stored whole, or as Block(n) in one level and Inner(n) in a later one, n > 0"
                _require(False, f"format {format.name}: dimension {dimension} is stored as {parts}", why, "use polyai.sparse.format.bsr")


def index_width_is_known(format: Format) -> None:
    good = format.index_bits in (8, 16, 32, 64)
    _require(good, f"format {format.name}: index_bits={format.index_bits}", "index arrays hold signed integers of 8, 16, 32 or 64 bits", "use one of these")


def branchless_levels_follow_listed_ones(format: Format) -> None:
    for number, level in enumerate(format.levels):
        if level.branchless:
            good = number > 0 and not format.levels[number - 1].full
            why = "it has one position for each of the level above, which must list its coordinates"
            _require(good, f"format {format.name}: level {number} ({level.name}) has no list above", why, "put a compressed level above")


def repeated_levels_are_followed_by_branchless_ones(format: Format) -> None:
    for number, level in enumerate(format.levels[:-1]):
        below = format.levels[number + 1]
        good = level.unique or below.branchless
        why = f"{below.name} below would split one fibre over several positions"
        _require(good, f"format {format.name}: level {number} ({level.name}) repeats coordinates", why, "put a singleton level below")


def verify(storage: Storage) -> None:
    """Raise SparseStructureError unless the arrays are what the format and the shape promise. Reads all of them."""
    verify_format(storage.format)
    one_extent_per_dimension(storage)
    blocks_divide_their_dimensions(storage)
    arrays_are_complete(storage)
    fibres_tile_their_level(storage)
    coordinates_are_in_range(storage)
    coordinates_keep_their_order(storage)


def one_extent_per_dimension(storage: Storage) -> None:
    good = len(storage.shape) == storage.format.rank and min(storage.shape, default=0) >= 0
    _require(good, f"shape {storage.shape}", f"{storage.format.name} has {storage.format.rank} dimensions with extents >= 0")


def blocks_divide_their_dimensions(storage: Storage) -> None:
    for dimension, extent in enumerate(storage.shape):
        size = storage.format.block(dimension) or 1
        _require(extent % size == 0, f"dimension {dimension} has {extent} elements", f"blocks of {size} do not divide it", "pad it to a multiple")


def arrays_are_complete(storage: Storage) -> None:
    """Names, types, dimensions and lengths of all arrays."""
    expected = array_lengths(storage)
    missing, extra = sorted(set(expected) - set(storage.arrays)), sorted(set(storage.arrays) - set(expected))
    _require(not missing and not extra, f"arrays missing: {missing}, not known: {extra}", f"{storage.format.name} has {sorted(expected)}")
    width = np.dtype(f"i{storage.format.index_bits // 8}")
    for name, length in expected.items():
        array = storage.arrays[name]
        good = array.shape == (length,) or (name == "val" and array.size == length)
        _require(good, f"{name} has shape {array.shape}", f"{length} elements are needed")
        _require(name == "val" or array.dtype == width, f"{name} has dtype {array.dtype}", f"the format says {width}")


def array_lengths(storage: Storage) -> dict[str, int]:
    """The length that each array must have, outer levels deciding those of inner ones."""
    out: dict[str, int] = {}
    parents = 1
    for number, (level, positions) in enumerate(zip(storage.format.levels, storage.positions())):
        for spec in level.arrays("A", number, parents, positions):
            out[spec.name.removeprefix("A.")] = _number(spec.length)
        parents = positions
    return {**out, "val": parents}


def _number(size: Size) -> int:
    return evaluate(size, {})


def fibres_tile_their_level(storage: Storage) -> None:
    """pos starts at 0 and never decreases."""
    for name, array in storage.arrays.items():
        if name.startswith("pos"):
            _require(array[0] == 0, f"{name}[0] is {array[0]}", "the first fibre starts at 0")
            steps = np.diff(array.astype(np.int64))
            at = int(np.argmax(steps < 0)) if len(steps) else 0
            _require(not (steps < 0).any(), f"{name} decreases at {at}", "fibres lie one after another")


def coordinates_are_in_range(storage: Storage) -> None:
    for number, (dimension, size) in enumerate(zip(storage.format.order, storage.format.level_extents(storage.shape))):
        crd, extent = storage.arrays.get(f"crd{number}"), _number(size)
        if crd is not None and len(crd) and not isinstance(storage.format.part(number), Shift):
            level = storage.format.levels[number]
            groups = level.groups()
            bad = (crd < (-1 if level.sized else 0)) | (crd >= (extent if groups is None else groups[1]))
            at = int(np.argmax(bad))
            why = f"the extent of dimension {dimension} is {extent}" if groups is None else f"places among {groups[1]} are listed"
            _require(not bad.any(), f"crd{number}[{at}] is {crd[at]}", why)


def coordinates_keep_their_order(storage: Storage) -> None:
    """Ordered formats are iterated in lexicographic order of their levels; unique ones meet no coordinate twice."""
    format = storage.format
    if lists_rise_in_each_fibre(storage):
        return
    coordinates = walk(format, storage.shape, storage.arrays).coordinates
    step = np.zeros(max(0, len(coordinates[0]) - 1), dtype=np.int64) if coordinates else np.zeros(0, dtype=np.int64)
    for part in reversed(format.taken_apart(coordinates)):
        here = np.sign(np.diff(part))
        step = np.where(here != 0, here, step)
    at = int(np.argmin(step)) if len(step) else 0
    if all(level.ordered for level in format.levels):
        _require(not (step < 0).any(), f"entry {at + 1} comes before entry {at} in {format.name}'s order", "its levels are ordered")
    if all(level.unique for level in format.levels):
        by = np.lexsort([coordinates[d] for d in reversed(format.order)])
        same = np.all([np.diff(c[by]) == 0 for c in coordinates], axis=0)
        _require(not same.any(), f"{format.name} holds a coordinate twice", "its levels are unique")


def lists_rise_in_each_fibre(storage: Storage) -> bool:
    """Whether every level is dense, or a compressed one whose coordinates rise strictly within each fibre: then no two elements are out
    of order or equal. Reads lists only, not what lies below them. False for formats of other levels, whatever they hold."""
    format = storage.format
    for number, level in enumerate(format.levels):
        if isinstance(level, Dense):
            continue
        if not isinstance(level, Compressed) or level.computed or isinstance(format.part(number), Shift):
            return False
        crd = storage.arrays[f"crd{number}"]
        rises = crd[1:] > crd[:-1]
        begins = storage.arrays[f"pos{number}"][1:-1]
        rises[begins[(begins > 0) & (begins < len(crd))] - 1] = True
        if not rises.all():
            return False
    return True
