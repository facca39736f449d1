"""Formats and stored tensors as text."""

from __future__ import annotations

from polyai.sparse.format import Format
from polyai.sparse.interp import walk
from polyai.sparse.level import Level
from polyai.sparse.storage import Storage


def show(format: Format) -> str:
    """`csr(d0: dense, d1: compressed; int32)`."""
    levels = ", ".join(f"d{d}: {show_level(level)}" for d, level in zip(format.order, format.levels))
    return f"{format.name}({levels}; int{format.index_bits})"


def show_level(level: Level) -> str:
    """The kind of the level, with what it does not promise: `compressed, repeated, unordered`."""
    doubts = [word for word, holds in (("repeated", level.unique), ("unordered", level.ordered)) if not holds]
    return " ".join([level.name, *doubts])


def show_storage(storage: Storage, limit: int = 20) -> str:
    """The format, the arrays and up to `limit` entries."""
    lines = [f"{'x'.join(map(str, storage.shape))} {storage.values.dtype} {show(storage.format)}"]
    lines += [f"  {name:5} {_list(array.tolist(), limit)}" for name, array in storage.arrays.items()]
    stored = walk(storage.format, storage.shape, storage.arrays)
    for at in range(min(limit, len(stored.positions))):
        where = ", ".join(str(c[at]) for c in stored.coordinates)
        lines.append(f"  [{where}] = {storage.values[stored.positions[at]]}")
    if len(stored.positions) > limit:
        lines.append(f"  ... {len(stored.positions) - limit} more")
    return "\n".join(lines)


def _list(values: list[object], limit: int) -> str:
    text = " ".join(map(str, values[:limit]))
    return text + (f" ... ({len(values)})" if len(values) > limit else "")
