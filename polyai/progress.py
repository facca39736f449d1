"""A progress bar on standard error; nothing where standard error is no terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TextIO, TypeVar

T = TypeVar("T")
WIDTH = 30


def bar(items: Iterable[T], total: int, label: str, stream: TextIO | None = None) -> Iterator[T]:
    """The items, with a bar that moves as they are taken; `str` of the item at hand is shown if it is a string."""
    out = sys.stderr if stream is None else stream
    shown = out.isatty()
    for number, item in enumerate(items):
        if shown:
            _draw(out, number, total, f"{label} {item}" if isinstance(item, str) else label)
        yield item
    if shown:
        _draw(out, total, total, label)
        out.write("\n")
        out.flush()


def _draw(out: TextIO, done: int, total: int, label: str) -> None:
    filled = WIDTH * done // total if total else WIDTH
    out.write(f"\r[{'#' * filled}{'.' * (WIDTH - filled)}] {done}/{total} {label[:40]:40}")
    out.flush()
