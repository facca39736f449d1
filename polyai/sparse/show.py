"""Formats and stored tensors as text."""

from __future__ import annotations

from typing import assert_never

from polyai.sparse.format import Block, Format, Inner, Part, Shift, Whole
from polyai.sparse.interp import walk
from polyai.sparse.level import Level
from polyai.sparse.storage import Storage


def show(format: Format) -> str:
    """`csr(d0: dense, d1: compressed; int32)`."""
    levels = ", ".join(f"d{d}{_part(format.part(n))}: {show_level(level)}" for n, (d, level) in enumerate(zip(format.order, format.levels)))
    filled = "" if format.fill_value == 0 else f"; else {format.fill_value}"
    return f"{format.name}({levels}; int{format.index_bits}{filled})"


def _part(part: Part) -> str:
    match part:
        case Whole():
            return ""
        case Block(size):
            return f"//{size}"
        case Inner(size):
            return f"%{size}"
        case Shift(to):
            return f"~d{to}"
        case _:
            assert_never(part)


def show_level(level: Level) -> str:
    """The kind of the level, with what it does not promise: `compressed, repeated, unordered`."""
    doubts = [word for word, holds in (("repeated", level.unique), ("unordered", level.ordered)) if not holds]
    return " ".join([level.name, *doubts])


def show_storage(storage: Storage, limit: int = 20) -> str:
    """The format, the arrays and up to `limit` entries."""
    lines = [f"{'x'.join(map(str, storage.shape))} {storage.values.dtype} {show(storage.format)}"]
    lines += [f"  {name:5} {_list(array.reshape(-1).tolist(), limit)}" for name, array in storage.arrays.items()]
    stored = walk(storage.format, storage.shape, storage.arrays)
    for at in range(min(limit, len(stored.positions))):
        where = ", ".join(str(c[at]) for c in stored.coordinates)
        lines.append(f"  [{where}] = {storage.values.reshape(-1)[stored.positions[at]]}")
    if len(stored.positions) > limit:
        lines.append(f"  ... {len(stored.positions) - limit} more")
    return "\n".join(lines)


def _list(values: list[object], limit: int) -> str:
    text = " ".join(map(str, values[:limit]))
    return text + (f" ... ({len(values)})" if len(values) > limit else "")
