"""Options: one frozen value, passed down. Read from the environment in one function, changed for a block by `options(...)`."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from contextvars import ContextVar, Token
from dataclasses import fields, replace
from functools import lru_cache
from types import TracebackType
from typing import Any

from polyai.errors import OptionError
from polyai.term.node import node

CHOICES: dict[str, tuple[Any, ...]] = {
    "vector_bits": (None, 64, 128, 256, 512),
    "scheduler": ("recipe", "isl"),
    "blas": ("auto", "never"),
}
"""Options with a closed list of values."""

MAX_THREADS = 1024

POLICY = re.compile(r"none|learned|exact|pow2(:[1-9]\d{0,9})?|multiple:[1-9]\d{0,9}|ranges:[1-9]\d{0,9}(,[1-9]\d{0,9})*")
"""How a policy is spelled; `shapes.bucket.parse` reads it."""


@node
class Options:
    """What a user may choose.

    num_threads     threads of one kernel; None: every processor the process may use
    vector_bits     width of vector registers to use; None: what the machine has; 64: scalar code
    cache_dir       where compiled code is kept; None: the platform's cache directory
    cache_bytes     bound of that directory; 0 keeps nothing on disk
    result_bytes    memory of dropped results that is kept for the next large ones; 0 keeps none
    scheduler       "recipe": our own schedules, isl's scheduler for the rest; "isl": always isl's scheduler
    blas            "auto": large dense products may go to the BLAS of SciPy; "never": generated code only
    policy          which sizes get kernels of their own, made in the background: none, learned, exact, pow2, pow2:64, multiple:32,
                    ranges:16,64,512
    specialised_kernels   how many of them one kernel may have
    recompile_limit a warning names the size to declare when a function is compiled this often for one kind of arguments
    verify          check every compiler stage's result, not only the last ones
    """

    num_threads: int | None = None
    vector_bits: int | None = None
    cache_dir: str | None = None
    cache_bytes: int = 256 << 20
    scheduler: str = "recipe"
    blas: str = "auto"
    verify: bool = False
    recompile_limit: int = 8
    policy: str = "none"
    specialised_kernels: int = 8
    result_bytes: int = 256 << 20

    def __post_init__(self) -> None:
        for name, known in CHOICES.items():
            value = getattr(self, name)
            if isinstance(value, bool) or value not in known:
                raise _unknown(name, value, f"known are {', '.join(map(repr, known))}")
        if self.num_threads is not None and not (_whole(self.num_threads) and 1 <= self.num_threads <= MAX_THREADS):
            raise _unknown("num_threads", self.num_threads, f"a whole number from 1 to {MAX_THREADS}, or None, is needed")
        for name in ("cache_bytes", "result_bytes"):
            if not (_whole(getattr(self, name)) and getattr(self, name) >= 0):
                raise _unknown(name, getattr(self, name), "a whole number of bytes, 0 or more, is needed")
        if not (_whole(self.recompile_limit) and self.recompile_limit >= 1):
            raise _unknown("recompile_limit", self.recompile_limit, "a whole number, 1 or more, is needed")
        if not (_whole(self.specialised_kernels) and 1 <= self.specialised_kernels <= 1024):
            raise _unknown("specialised_kernels", self.specialised_kernels, "a whole number from 1 to 1024 is needed")
        if not (isinstance(self.policy, str) and POLICY.fullmatch(self.policy)):
            raise _unknown("policy", self.policy, "known are none, learned, exact, pow2, pow2:64, multiple:32 and ranges:16,64,512")
        if self.cache_dir is not None and not (isinstance(self.cache_dir, str) and self.cache_dir):
            raise _unknown("cache_dir", self.cache_dir, "the path of a directory, or None, is needed")
        if not isinstance(self.verify, bool):
            raise _unknown("verify", self.verify, "True or False is needed")


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _unknown(name: str, value: object, why: str, where: str = "option") -> OptionError:
    return OptionError(f"{where} {name} = {value!r}", why, "leave it out for the default")


def _number(text: str) -> int:
    return int(text.strip())


def _flag(text: str) -> bool:
    return {"0": False, "1": True, "false": False, "true": True}[text.strip().lower()]


_READERS: dict[str, Callable[[str], Any]] = {
    "num_threads": _number,
    "vector_bits": _number,
    "cache_dir": os.path.expanduser,
    "cache_bytes": _number,
    "result_bytes": _number,
    "scheduler": str.strip,
    "blas": str.strip,
    "verify": _flag,
    "recompile_limit": _number,
    "policy": str.strip,
    "specialised_kernels": _number,
}


def from_environment(environment: Mapping[str, str] | None = None) -> Options:
    """The defaults, overridden by POLYAI_NUM_THREADS, POLYAI_CACHE_DIR, ...: each option's name in capitals.

    Empty variables count as not set. Raises OptionError for a value that is not understood.
    """
    given = os.environ if environment is None else environment
    chosen: dict[str, Any] = {}
    for option, read in _READERS.items():
        variable = f"POLYAI_{option.upper()}"
        text = given.get(variable, "")
        if not text:
            continue
        try:
            chosen[option] = read(text)
            Options(**{option: chosen[option]})
        except OptionError as error:
            raise _unknown(variable, text, error.why, "environment variable") from None
        except (ValueError, KeyError):
            raise _unknown(variable, text, "it is not understood", "environment variable") from None
    return Options(**chosen)


ACTIVE: ContextVar[Options | None] = ContextVar("polyai_options", default=None)
"""The options of the innermost `with options(...)` of this thread or task; None outside. Equal options are one object."""


@lru_cache(maxsize=1)
def defaults() -> Options:
    """The options of the environment as it was at the first use."""
    return from_environment()


def current() -> Options:
    """The options in force here."""
    return ACTIVE.get() or defaults()


@lru_cache(maxsize=256)
def _one_object(value: Options) -> Options:
    return value


class options:
    """`with options(num_threads=1): ...` changes options for a block, in this thread or task only.

    The options that hold inside are the value of `as`. Raises OptionError for unknown names and values, before the block.
    """

    __slots__ = ("_changes", "_tokens")

    def __init__(self, **changes: Any) -> None:
        known = {f.name for f in fields(Options)}
        for name in changes:
            if name not in known:
                raise OptionError(f"no option is called {name!r}", f"known are {', '.join(sorted(known))}")
        replace(Options(), **changes)
        self._changes = changes
        self._tokens: list[Token[Options | None]] = []

    def __enter__(self) -> Options:
        inside = _one_object(replace(current(), **self._changes))
        self._tokens.append(ACTIVE.set(inside))
        return inside

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        ACTIVE.reset(self._tokens.pop())
