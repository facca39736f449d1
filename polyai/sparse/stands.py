"""What an argument may be that is no array itself. Calls ask for these; the modules of what they are load when one is made.

    LaidOut     stands for the arrays `arrays`, which are given to the kernel in its place: `prepared.Prepared`, `frontend.held.Held`
    Batch       rows of different lengths: `ragged.Ragged`
    Checked     arrays that were checked when it was made: `tensor.SparseArray`
"""

from __future__ import annotations

from typing import Any


class LaidOut:
    """`code` says what the arrays mean inside a trace; `key` is it as an interned string, where native calls may tell it by that."""

    __slots__ = ()

    arrays: tuple[Any, ...]
    code: tuple[Any, ...]
    key: str | None
    choice: Any


class Batch:
    """A batch of rows of different lengths."""

    __slots__ = ()


class Checked:
    """A format, a shape and arrays that fit."""

    __slots__ = ()
