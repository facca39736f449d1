"""How much memory there is. Reads the system, imports nothing heavy."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

UNKNOWN = 1 << 46
"""Bytes that no machine of today has: a bound where the system does not say."""
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


@lru_cache(maxsize=1)
def installed_memory() -> int:
    """Bytes that this process can have at most: memory and swap space, or what its control group allows.

    Systems that promise more than they have end a process that uses it, so larger arrays are refused before they are allocated.
    """
    facts = _meminfo()
    most = facts["MemTotal"] + facts.get("SwapTotal", 0) if "MemTotal" in facts else _physical() or UNKNOWN
    for file in _LIMITS:
        try:
            words = Path(file).read_text(encoding="utf-8").split()
        except (OSError, ValueError):
            continue
        if words and words[0].isdecimal():
            most = min(most, int(words[0]) + facts.get("SwapTotal", 0))
    return most


def memory_available() -> int | None:
    """Bytes of memory that the system says are free or can be made so; None if it does not say."""
    return _meminfo().get("MemAvailable") or _physical()


def _meminfo() -> dict[str, int]:
    """The lines of /proc/meminfo in bytes; none where there is no such file."""
    try:
        with open("/proc/meminfo", encoding="utf-8") as file:
            found = (line.split() for line in file)
            return {words[0].rstrip(":"): int(words[1]) * 1024 for words in found if len(words) == 3}
    except (OSError, ValueError, IndexError):
        return {}


def _physical() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None
