"""What became of a function: its kernels, why each was made, how often and how long each ran. Data, a table, a log."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from polyai.term.node import node


class RecompileWarning(UserWarning):
    """A function is compiled again and again for arguments of one kind; the message names the size to declare."""


@node
class KernelReport:
    """One kernel. `serves`: the relations it relies on, or the sizes it is specialised for. `origin`: compiled, disk, memory,
    helper, cache, pending, or none for a function that computes nothing. `hits` counts calls, `seconds` is the time inside the kernel."""

    name: str
    serves: str
    reason: str
    origin: str
    made_in: float
    code_bytes: int
    hits: int
    seconds: float


@node
class Report:
    """All kernels of a function, in the order they were made. `fast` of the `hits` went through native dispatch alone."""

    function: str
    kernels: tuple[KernelReport, ...]
    fast: int = 0
    notes: tuple[str, ...] = ()

    @property
    def compilations(self) -> int:
        """How many kernels the compiler made for this function, here or in a helper; the others came from the cache."""
        return sum(k.origin in ("compiled", "helper") for k in self.kernels)

    @property
    def hits(self) -> int:
        """Calls that a kernel served."""
        return sum(k.hits for k in self.kernels)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why each kernel was made."""
        return tuple(k.reason for k in self.kernels)

    @property
    def code_bytes(self) -> int:
        """Bytes of machine code."""
        return sum(k.code_bytes for k in self.kernels)

    def __str__(self) -> str:
        head = ("serves", "calls", "ms", "us/call", "bytes", "made by", "ms", "because")
        rows = [head, *(_row(k) for k in self.kernels)]
        widths = [max(len(r[c]) for r in rows) for c in range(len(head))]
        lines = [
            "  ".join(t.ljust(w) if c in (0, 5, 7) else t.rjust(w) for c, (t, w) in enumerate(zip(r, widths))).rstrip() for r in rows
        ]
        title = f"{self.function}: {sum(k.origin != 'pending' for k in self.kernels)} kernels, {self.compilations} compiled, {self.hits} calls, {self.fast} of them dispatched natively"
        return "\n".join((title, *lines, *self.notes))


def _row(k: KernelReport) -> tuple[str, ...]:
    each = f"{k.seconds / k.hits * 1e6:.1f}" if k.hits else "-"
    return (k.serves, str(k.hits), f"{k.seconds * 1e3:.1f}", each, str(k.code_bytes), k.origin, f"{k.made_in * 1e3:.0f}", k.reason)


def advice(function: str, broken: Sequence[tuple[str, str, str]]) -> str:
    """The text of a RecompileWarning, from (size, its new value, who relied on the old one) of the guards that broke."""
    sizes = Counter(size for size, _, _ in broken)
    if not sizes:
        return f"{function} was compiled many times for arguments of one kind"
    size, _ = sizes.most_common(1)[0]
    seen = list(dict.fromkeys(relation for s, relation, _ in broken if s == size))
    asked = next((why for s, _, why in broken if s == size and why), "")
    remedy = f"declare {size} with dynamic=" if asked == "sizes are not dynamic" else f"keep {size} symbolic"
    return (
        f"{function} was compiled {len(broken)} times more because of {size}\n"
        f"  why: a kernel was made for each of its values {', '.join(seen[:6])}{', ...' if len(seen) > 6 else ''}{f'; {asked}' if asked else ''}\n"
        f"  try: {remedy}; arange(n), fori_loop(0, n, ...) and slices take sizes as they are. Calls go on, each new value compiles a kernel"
    )


def log(event: str, text: str, fields: Iterable[tuple[str, Any]], level: str = "info") -> None:
    """A record of the logger "polyai" with its facts in `record.polyai`. Costs nothing in a process without logging."""
    logging = sys.modules.get("logging")
    if logging is not None:
        logger = logging.getLogger("polyai")
        getattr(logger, level)("%s: %s", event, text, extra={"polyai": {"event": event, **dict(fields)}})
