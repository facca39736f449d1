"""LLVM IR text to object code.

No optimisation pipeline runs: the loops are already vectorised, so stack slots become registers (sroa), the short helpers
are inlined, and the rest is instruction selection. A long module is compiled in parts, by several threads (see `parts`).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from polyai.machine import parts
from polyai.machine.cpu import HOST, Target
from polyai.machine.llvm import Binding, Library, is_known, library
from polyai.machine.load import bundle

Background = Callable[[Callable[[], None], str], threading.Thread]
"""Starts a thread that does some work: `runtime.shared.in_background`."""

OPT = 2
"""LLVM's code generation level: 1 saves a tenth of the time and does not reduce the strength of addresses in loops."""


_LOADING = threading.Lock()


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
    with _LOADING:
        llvm, cpu, features = _described(target)
    return llvm, llvm.machine(target.triple, cpu, features, opt)


def _compiled(ir_text: str, target: Target, yielding: bool = False) -> tuple[Any, Any, Any]:
    """LLVM, the parsed and simplified module, in a context of its own, and the machine to emit it with."""
    llvm, machine = _generator(target, 0 if parts.is_straight(ir_text) else OPT)
    return llvm, llvm.read(ir_text, machine, yielding=yielding), machine


def _emitted(llvm: Binding | Library, module: Any, machine: Any) -> bytes:
    """Object code, while other threads do the same with modules of theirs."""
    return llvm.emit(module, machine)


class Generation:
    """Code generation of modules, by threads beside the one that makes them.

    Reading a module is many short calls, each of which would wait for the interpreter lock in a thread beside others; generating its code is
    one long call for each part, without that lock. So who has the text reads it (`add`), and `background` threads, as many as the target
    has further cores, generate what there is; `finish` lends them a hand. `yielding`: reading keeps the lock in no call either.
    """

    def __init__(self, target: Target, background: Background | None = None, yielding: bool = False) -> None:
        self._target, self._background, self._yielding = target, background, yielding
        self._ready: deque[tuple[int, Any] | None] = deque()
        self._count = threading.Semaphore(0)  # how many are in it
        self._threads: list[threading.Thread] = []
        self._done: dict[int, bytes | Exception] = {}
        self._modules: list[range] = []

    def add(self, ir_text: str, last: bool = False) -> int:
        """Begin a module; its number, for `code`. `last`: `finish` comes next, which does a part itself."""
        begin = self._modules[-1].stop if self._modules else 0
        texts = parts.split(ir_text)
        self._modules.append(range(begin, begin + len(texts)))
        for number, text in enumerate(texts, begin):  # the longest first: its code is generated while the others are read
            self._put((number, _compiled(text, self._target, self._yielding)))
            alone = last and number == begin + len(texts) - 1
            if self._background is not None and len(self._threads) < self._target.cores - 1 and not alone:
                self._threads.append(self._background(self._work, "polyai-object"))
        return len(self._modules) - 1

    def finish(self) -> None:
        """Generate what is left, and wait for the threads. To be called whatever happens: they wait for more till then."""
        for _ in range(len(self._threads) + 1):
            self._put(None)
        self._work()
        for thread in self._threads:
            thread.join()

    def code(self, module: int) -> bytes:
        """The object file of a module; several, as `load.bundle` puts them together, if it was long."""
        objects = []
        for number in self._modules[module]:
            found = self._done[number]
            if isinstance(found, Exception):
                raise found
            objects.append(found)
        return bundle(objects)

    def _put(self, what: tuple[int, Any] | None) -> None:
        self._ready.append(what)
        self._count.release()

    def _work(self) -> None:
        while self._count.acquire() and (found := self._ready.popleft()) is not None:
            number, part = found
            try:
                self._done[number] = _emitted(*part)
            except Exception as error:
                self._done[number] = error


def is_light() -> bool:
    """Whether loading LLVM takes next to no time of Python's."""
    return is_known()


def begin(target: Target) -> None:
    """Load LLVM. Most of it needs no lock of Python's: a thread may do this beside one that imports."""
    _generator(target, OPT)


def compile_object(ir_text: str, target: Target, background: Background | None = None, *, yielding: bool = False) -> bytes:
    """The relocatable object file of a module, in the format of the target's system; several, as `load.bundle` puts them
    together, if it is long. `background` starts threads for these: as many as the target has cores. `yielding`: as in `Generation`."""
    generation = Generation(target, background, yielding)
    try:
        module = generation.add(ir_text, last=True)
    finally:
        generation.finish()
    return generation.code(module)


def assembly(ir_text: str, target: Target) -> str:
    """The assembly text of a module, for people to read."""
    llvm, module, machine = _compiled(ir_text, target)
    text: bytes = llvm.emit(module, machine, assembly=True)
    return text.decode()
