"""Timing for the demonstration and `polyai bench`: interleaved rounds, and the two roofs of this machine.

The full comparison with other libraries is the project's `benchmarks` folder; this is what an installed copy carries.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from polyai.term.node import node

Run = Callable[[], Any]
BLOCK_S = 0.01


@node
class Measured:
    """One problem: seconds per call by contender, error against float64 as a multiple of the rounding bound, and its work.

    `flops` and `bytes` are arithmetic and compulsory memory traffic of one call."""

    name: str
    seconds: tuple[tuple[str, float], ...]
    ratio: float
    first_call: float
    error: float
    flops: float
    bytes: float

    def of(self, contender: str) -> float:
        return dict(self.seconds)[contender]


def interleaved(runs: Mapping[str, Run], rounds: int) -> dict[str, list[float]]:
    """Seconds per call, one per round, of each run. Every round runs all of them once, in rotated order."""
    names, times = list(runs), {name: list[float]() for name in runs}
    inner = {name: _calls(runs[name]) for name in names}
    for number in range(rounds):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            run, calls = runs[name], inner[name]
            run()
            begin = time.perf_counter()
            for _ in range(calls):
                run()
            times[name].append((time.perf_counter() - begin) / calls)
    return times


def _calls(run: Run) -> int:
    run()
    begin = time.perf_counter()
    run()
    return max(1, min(2000, round(BLOCK_S / max(time.perf_counter() - begin, 1e-8))))


def median_ratio(over: list[float], under: list[float]) -> float:
    """Median over rounds of over / under."""
    return statistics.median(a / b for a, b in zip(over, under))


def excess(result: Any, values: np.ndarray[Any, Any], bound: np.ndarray[Any, Any]) -> float:
    """max |result - values| / bound; infinite for another shape or for values that are not finite."""
    got = np.asarray(result, dtype=np.float64)
    if got.shape != values.shape:
        return float("inf")
    difference = np.abs(got - values)
    with np.errstate(divide="ignore", invalid="ignore"):
        worst = float(np.max(np.where(difference == 0, 0.0, difference / bound), initial=0.0))
    return worst if worst == worst else float("inf")


def gamma(count: Any, dtype: Any) -> Any:
    """The rounding error of a sum of `count` terms relative to the sum of their magnitudes (Higham 2002, section 3.1)."""
    u = float(np.finfo(dtype).eps) / 2
    return count * u / (1 - count * u)


def memory_bandwidth(add: Callable[..., Any], megabytes: int = 192, repeats: int = 5) -> float:
    """Bytes per second read and written by `add(a, b, out=c)` on arrays larger than the caches, with all its threads."""
    a = np.ones(megabytes * (1 << 20) // 12, np.float32)
    b, out = a.copy(), np.empty_like(a)
    return 3 * a.nbytes / _best(lambda: add(a, b, out=out), repeats)


def peak_f32(polynomial: Callable[..., Any], terms: int, repeats: int = 5, size: int = 1 << 18) -> float:
    """Operations per second of `polynomial(x, out=y)`, a compiled Horner scheme of `terms` multiply-adds, with all its threads."""
    x = np.full(size, 0.5, np.float32)
    out = np.empty_like(x)
    return 2 * terms * size / _best(lambda: polynomial(x, out=out), repeats)


def _best(run: Run, repeats: int) -> float:
    """The shortest of `repeats` times, after one call to warm up: a roof is what is possible."""
    run()
    best = float("inf")
    for _ in range(repeats):
        begin = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - begin)
    return best
