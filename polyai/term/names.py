"""Fresh names. A supply belongs to one compilation, so the names of a program never depend on what ran before."""

from __future__ import annotations

from collections.abc import Iterable


class Names:
    """Hands out names that were not used before: `x`, `x_1`, `x_2`, ... `taken` is gone through when the first name is asked for."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._told: Iterable[str] | None = taken
        self._taken: set[str] = set()
        self._next: dict[str, int] = {}

    def fresh(self, stem: str) -> str:
        """A name like `stem` that this supply has not given or been told of."""
        if self._told is not None:
            self._taken.update(self._told)
            self._told = None
        if stem not in self._taken:
            self._taken.add(stem)
            return stem
        n = self._next.get(stem, 0)
        while True:
            n += 1
            name = f"{stem}_{n}"
            if name not in self._taken:
                self._next[stem] = n
                self._taken.add(name)
                return name
