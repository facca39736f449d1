"""What a runtime did, in numbers. Read by explanations and by the tests that count recompilations."""

from __future__ import annotations

import threading

from polyai.runtime.shared import renew_after_fork

NOTES = 64
"""How many notes are kept; the oldest go first."""


class Stats:
    """Counters of one runtime.

    calls           kernel launches (kept in native memory, see Runtime.stats)
    compiles        objects made by the compiler
    memory_hits     kernels found in memory          disk_hits   kernels found on disk
    corrupt         damaged cache entries removed    evicted     entries removed to stay below the bound
    copies          arrays copied because a kernel could not read them in place
    slow_calls      calls that the fast dispatcher handed on
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, int] = {}
        self._notes: list[str] = []
        renew_after_fork(self)

    def count(self, name: str, by: int = 1) -> None:
        with self._lock:
            self._counts[name] = self._counts.get(name, 0) + by

    def note(self, text: str) -> None:
        """Remember that something was done without, such as a cache directory that cannot be written."""
        with self._lock:
            if text not in self._notes:
                self._notes.append(text)
                del self._notes[:-NOTES]

    def __getitem__(self, name: str) -> int:
        return self._counts.get(name, 0)

    @property
    def notes(self) -> tuple[str, ...]:
        return tuple(self._notes)

    def snapshot(self) -> dict[str, int]:
        """All counters at this moment."""
        with self._lock:
            return dict(sorted(self._counts.items()))

    def after_fork(self) -> None:
        self._lock = threading.Lock()
