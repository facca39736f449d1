"""LLVM IR text to object code.

No optimisation pipeline runs: the loops are already vectorised, so stack slots become registers (sroa), the short helpers
are inlined, and the rest is instruction selection. A long module is compiled in parts, by several threads (see `parts`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import lru_cache
from queue import SimpleQueue
from typing import Any

from polyai.machine import parts
from polyai.machine.cpu import HOST, Target
from polyai.machine.llvm import Binding, Library, library
from polyai.machine.load import bundle

Background = Callable[[Callable[[], None], str], threading.Thread]
"""Starts a thread that does some work: `runtime.shared.in_background`."""

OPT = 2
"""LLVM's code generation level: 1 saves a tenth of the time and does not reduce the strength of addresses in loops."""


@lru_cache(maxsize=1)
def _llvm() -> Binding | Library:
    """LLVM, initialised once for this machine's instruction set."""
    return library() or Binding()


@lru_cache(maxsize=1)
def _any_target() -> Binding:
    """LLVM for targets that are not this machine, too."""
    found = Binding()
    found.all_targets()
    return found


@lru_cache(maxsize=8)
def _described(target: Target) -> tuple[Binding | Library, str, str]:
    """LLVM for a target, and processor and features as it names them."""
    llvm = _llvm() if target.cpu == HOST else _any_target()
    name, features = llvm.host() if HOST in (target.cpu, target.features) else ("", "")
    return llvm, name if target.cpu == HOST else target.cpu, features if target.features == HOST else target.features


def _generator(target: Target, opt: int) -> tuple[Binding | Library, Any]:
    """LLVM, and what it generates code for `target` with, at level `opt`; one thread at a time may use that."""
    llvm, cpu, features = _described(target)
    return llvm, llvm.machine(target.triple, cpu, features, opt)


def _compiled(ir_text: str, target: Target) -> tuple[Any, Any, Any]:
    """LLVM, the parsed and simplified module, in a context of its own, and the machine to emit it with."""
    llvm, machine = _generator(target, 0 if parts.is_straight(ir_text) else OPT)
    return llvm, llvm.read(ir_text, machine), machine


def _emitted(llvm: Binding | Library, module: Any, machine: Any) -> bytes:
    """Object code, while other threads do the same with modules of theirs."""
    return llvm.emit(module, machine)


class Begun:
    """The parts of a module, read and simplified: what is left to do for LLVM asks for no lock of Python's.

    Reading is many short calls, each of which would wait for the interpreter lock in a thread beside others; code generation is one long
    one for each part. So whoever has the lock begins, and any thread may finish.
    """

    def __init__(self, ir_text: str, target: Target) -> None:
        self._parts = [_compiled(text, target) for text in parts.split(ir_text)]

    def finish(self) -> bytes:
        """The object file; several, as `load.bundle` puts them together, if there are several parts."""
        return bundle([_emitted(*part) for part in self._parts])


def compile_object(ir_text: str, target: Target, background: Background | None = None) -> bytes:
    """The relocatable object file of a module, in the format of the target's system; several, as `load.bundle` puts them
    together, if it is long. `background` starts threads for these: as many as the target has cores."""
    texts = parts.split(ir_text)
    if background is None or len(texts) == 1 or target.cores == 1:
        return bundle([_emitted(*_compiled(text, target)) for text in texts])
    done: dict[int, bytes | Exception] = {}
    ready: SimpleQueue[tuple[int, Any] | None] = SimpleQueue()
    threads: list[threading.Thread] = []
    try:
        for number, text in enumerate(texts):  # the longest first: its code is generated while the others are read
            ready.put((number, _compiled(text, target)))
            if number < min(len(texts), target.cores) - 1:
                threads.append(background(lambda: _work(ready, done), "polyai-object"))
    finally:
        for _ in range(len(threads) + 1):
            ready.put(None)
    _work(ready, done)
    for thread in threads:
        thread.join()
    objects = []
    for number in range(len(texts)):
        found = done[number]
        if isinstance(found, Exception):
            raise found
        objects.append(found)
    return bundle(objects)


def _work(ready: SimpleQueue[tuple[int, Any] | None], done: dict[int, bytes | Exception]) -> None:
    """Generate code for what is ready, one part after another."""
    while (found := ready.get()) is not None:
        number, part = found
        try:
            done[number] = _emitted(*part)
        except Exception as error:
            done[number] = error


def assembly(ir_text: str, target: Target) -> str:
    """The assembly text of a module, for people to read."""
    llvm, module, machine = _compiled(ir_text, target)
    text: bytes = llvm.emit(module, machine, assembly=True)
    return text.decode()
