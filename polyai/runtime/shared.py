"""Memory that Python and native code share, addressed by named byte offsets, and what objects do after `fork()`."""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from collections.abc import Callable
from typing import Protocol

from polyai.machine.abi import ALIGN


class Addresses(Protocol):
    """Addresses of native code by name; whoever runs code there holds this object."""

    def __getitem__(self, name: str, /) -> int: ...


class Fields(dict[str, int]):
    """Byte offsets by name."""

    def at(self, name: str, base: str) -> str:
        """An LLVM instruction that calls the address of field `name` of `%base` `%base.name`."""
        return f"%{base}.{name} = getelementptr i8, ptr %{base}, i64 {self[name]}"


class Shared:
    """A block of zeroed memory aligned to ALIGN bytes, freed with this object."""

    __slots__ = ("_raw", "address", "bytes")

    def __init__(self, size: int) -> None:
        self._raw = ctypes.create_string_buffer(size + ALIGN)
        self.address = (ctypes.addressof(self._raw) + ALIGN - 1) // ALIGN * ALIGN
        self.bytes = size

    def word(self, offset: int) -> int:
        return ctypes.c_int64.from_address(self.address + offset).value

    def set(self, offset: int, value: int) -> None:
        ctypes.c_int64.from_address(self.address + offset).value = value

    def set32(self, offset: int, value: int) -> None:
        ctypes.c_int32.from_address(self.address + offset).value = value


class _Renewable(Protocol):
    def after_fork(self) -> None: ...


def renew_after_fork(thing: _Renewable) -> None:
    """Call `thing.after_fork()` in every forked child: a lock may be held there by a thread that does not exist."""
    if hasattr(os, "register_at_fork"):
        me = weakref.ref(thing)

        def renew() -> None:
            alive = me()
            if alive is not None:
                alive.after_fork()

        os.register_at_fork(after_in_child=renew)


def address_of(function: object) -> int:
    """The address of a ctypes function."""
    return ctypes.cast(function, ctypes.c_void_p).value or 0  # type: ignore[arg-type]


_AT_WORK: weakref.WeakSet[threading.Thread] = weakref.WeakSet()


def _finish() -> None:
    for thread in list(_AT_WORK):
        if thread is not threading.current_thread():
            thread.join()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_finish)


def in_background(work: Callable[[], None], name: str) -> threading.Thread:
    """A thread that does `work` and that a `fork()` waits for: a child must not be born while LLVM's lock is held.

    `work` must be short, and take no lock under which anybody forks."""
    thread = threading.Thread(target=work, name=name)
    thread.start()
    _AT_WORK.add(thread)
    return thread
