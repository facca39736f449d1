"""The runtime's own native code: a few objects, each compiled once for a machine and then taken from the cache.

They are the same for every kernel and hold no address: all that differs comes in through tables in memory.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from polyai.machine.cpu import architecture, host, host_key
from polyai.machine.load import Loaded, ObjectError, load
from polyai.runtime import arena, blocks, cut_code, dispatch_code, run_code, threads
from polyai.runtime.cache import Cache
from polyai.runtime.shared import renew_after_fork
from polyai.term.digest import digest
from polyai.term.late import late

if TYPE_CHECKING:
    from polyai.machine import jit
else:
    jit = late("polyai.machine.jit")



_DEFINES = re.compile(r"define [^@]*@(\w+)")


def _as_it_stands(text: str, *names: str) -> str:
    """`text` with the functions of these names, or all, translated as they stand (see `machine.parts`): what is long and seldom runs, or waits.

        define internal i64 @f(i64 %n) {    ->    define hidden i64 @f(i64 %n) #2 {
    """
    if architecture() != "x86_64":
        return text
    lines = text.split("\n")
    for number, line in enumerate(lines):
        found = _DEFINES.match(line)
        if found is not None and (not names or found[1] in names):
            lines[number] = line.replace("define internal ", "define hidden ").removesuffix(" {") + " #2 {"
    return "\n".join((*lines, "attributes #2 = { optnone noinline nounwind }\n"))


PARTS: dict[str, tuple[tuple[str, ...], Callable[[], str]]] = {
    "pool": (("worker", "parallel", "spin"), lambda: _as_it_stands(threads.text())),
    "run": (
        ("run", "arena_trim", "ticks", "cut"),
        lambda: _as_it_stands(arena.text() + run_code.text() + cut_code.text(), "arena_grow", "arena_trim", "discard", "cut"),
    ),
    "blocks": (("block_malloc", "block_calloc", "block_realloc", "block_free", "block_trim"), blocks.text),
    "dispatch": (("dispatch",), dispatch_code.text),
}
"""Each object's entry points and its text."""


def _key(source: str) -> tuple[str, str]:
    """The key in the cache of code with this text for this machine, and its whole text."""
    text = f'target triple = "{host().triple}"\n{source}'
    return f"runtime-{digest(text, host_key())}", text


def compiled(name: str, source: str, entries: tuple[str, ...], cache: Cache) -> Loaded:
    """Code of the runtime's own, by its text: from the cache if it is there and usable. It is compiled beside other threads' work."""
    key, text = _key(source)

    def made() -> tuple[dict[str, Any], bytes]:
        return {"name": name}, jit.compile_object(text, host(), yielding=True)

    entry = cache.get_or_make(key, made)
    try:
        return load(entry.code, entries)
    except ObjectError:
        cache.forget(key)
        return load(jit.compile_object(text, host()), entries)


def _part(entry: str) -> str:
    return next(part for part, (entries, _) in PARTS.items() if entry in entries)


class Native:
    """Addresses by name; a part is loaded when one of its names is first asked for. Whoever runs this code holds this object."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._lock = threading.Lock()
        self._parts: list[Loaded] = []
        self._addresses: dict[str, int] = {}
        renew_after_fork(self)

    def __getitem__(self, name: str) -> int:
        if name not in self._addresses:
            with self._lock:
                if name not in self._addresses:
                    self._load(name)
        return self._addresses[name]

    def at_hand(self, name: str) -> bool:
        """True if nothing has to be compiled for `name`."""
        return name in self._addresses or self._cache.holds(_key(PARTS[_part(name)][1]())[0])

    def _load(self, name: str) -> None:
        part = _part(name)
        entries, text = PARTS[part]
        loaded = compiled(part, text(), entries, self._cache)
        self._parts.append(loaded)
        self._addresses.update(loaded.addresses)

    def after_fork(self) -> None:
        self._lock = threading.Lock()
