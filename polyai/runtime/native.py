"""The runtime's own native code: one object, compiled once for a machine and then taken from the cache.

It is the same for every kernel and holds no address: all that differs comes in through tables in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from polyai.errors import PolyAIError
from polyai.machine.cpu import host, host_key
from polyai.machine.jit import compile_object
from polyai.machine.load import load
from polyai.runtime import arena, dispatch_code, run_code, threads
from polyai.runtime.cache import Cache
from polyai.term.digest import digest

ENTRIES = ("worker", "parallel", "spin", "arena_trim", "run", "dispatch")


def text() -> str:
    """The whole module as LLVM IR."""
    parts = (threads.text(), arena.text(), run_code.text(), dispatch_code.text())
    return "\n".join((f'target triple = "{host().triple}"', *parts))


class Native(Mapping[str, int]):
    """Addresses by name. Whoever runs this code holds this object."""

    def __init__(self, cache: Cache) -> None:
        source = text()
        key = f"runtime-{digest(source, host_key())}"
        entry = cache.get_or_make(key, lambda: ({"name": "runtime"}, compile_object(source, host())))
        try:
            self._loaded: Any = load(entry.code, ENTRIES)
        except PolyAIError:
            cache.forget(key)
            self._loaded = load(compile_object(source, host()), ENTRIES)
        self._addresses: dict[str, int] = dict(self._loaded.addresses)

    def __getitem__(self, name: str) -> int:
        return self._addresses[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._addresses)

    def __len__(self) -> int:
        return len(self._addresses)
