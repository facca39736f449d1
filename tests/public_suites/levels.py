"""Formats in the notation of the facts: one word per level, outermost first.

    i:dense j:compressed                                    CSR
    j:dense i:compressed                                    CSC
    i:compressed(nonunique) j:singleton                     coordinate list
    i/2:dense j/4:compressed i%2:dense j%4:dense            2x4 blocks
"""

from __future__ import annotations

import re
from typing import Any

from polyai.errors import UnsupportedError
from polyai.sparse import format as formats
from polyai.sparse.format import Format
from polyai.sparse.level import Level
from polyai.sparse.levels.compressed import Compressed
from polyai.sparse.levels.dense import Dense
from polyai.sparse.levels.singleton import Singleton

LEVELS: dict[str, Level] = {
    "dense": Dense(), "compressed": Compressed(), "compressed(nonunique)": Compressed(unique=False), "singleton": Singleton(),
}  # fmt: skip


def parse(text: str) -> Format:
    """The format of a text. Raises UnsupportedError for levels that PolyAI does not have."""
    words = [re.fullmatch(r"([a-z])(?:([/%])(\d+))?:(.+)", word) for word in text.split()]
    found = [w.groups() for w in words if w is not None]
    assert len(found) == len(words), text
    dimensions = sorted({name for name, *_ in found})
    order = tuple(dimensions.index(name) for name, *_ in found)
    unknown = [level for *_, level in found if level not in LEVELS]
    if unknown:
        raise UnsupportedError(f"levels of kind {unknown[0]}", text, "use dense, compressed and singleton levels")
    levels = tuple(LEVELS[level] for *_, level in found)
    if all(cut is None for _, cut, *_ in found):
        return Format("fact", order, levels)
    return Format("fact", order, levels, parts=tuple(_part(cut, size) for _, cut, size, _ in found))


def _part(cut: str | None, size: str | None) -> Any:
    name = {"/": "Block", "%": "Inner", None: "Whole"}[cut]
    made = getattr(formats, name, None)
    if made is None:
        raise UnsupportedError("formats that cut dimensions into blocks", "a level stores a whole dimension", "use whole dimensions")
    return made(int(size)) if size is not None else made()
