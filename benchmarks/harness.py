"""Interleaved timing: every round runs every contender once, in rotated order, so that a drift of the machine hits all alike.

A case is checked before it is timed: each contender's result is compared with a float64 reference, and a contender that is
wrong gets no figure. What is reported per contender is the median over rounds of the time of one call, and the median over
rounds of the ratio (contender's time / PolyAI's time in the same round).
"""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

SUBJECT = "polyai"
BEST_OF = "best of "

Run = Callable[[], Any]
Prepare = Callable[..., Run]


class Unavailable(Exception):
    """A peer, or one kernel of it, cannot run here; the text says why."""


class Peer(Protocol):
    """A library to measure. `kernels[name](**operands)` prepares (untimed) and returns the call to time."""

    name: str
    kernels: Mapping[str, Prepare]

    def version(self) -> str: ...

    def threads(self, count: int) -> Any:
        """A context manager that sets the library's thread count; raises Unavailable if it cannot run with `count`."""


@dataclass(frozen=True)
class Case:
    """One problem. The result of every contender must satisfy |result - reference| <= bound element by element.

    `reference` returns (values, bound) in float64; `compared` lays a result out as `values` are, untimed (a sparse result on the
    pattern that structure allows). `flops` and `bytes` are the work and the compulsory memory traffic of one
    call (each operand read once, each result written once), from which GFLOP/s and the place under the roofline follow.
    """

    name: str
    kernel: str
    operands: Mapping[str, Any]
    reference: Callable[[], tuple[np.ndarray, np.ndarray | float]]
    flops: float
    bytes: float
    facts: Mapping[str, Any] = field(default_factory=dict)
    compared: Callable[[Any], Any] = lambda result: result


@dataclass(frozen=True)
class Target:
    """The aim of a suite: geometric mean over cases of peer time / PolyAI time >= ratio, and no case below `floor`.

    `peer` may be "best of X, Y": the fastest of them on each case, by its median. `only`: the aim speaks of cases whose names hold one of
    these texts; the others are shown all the same. `subject`: whose time stands for PolyAI's."""

    peer: str
    ratio: float
    floor: float = 0.0
    threads: tuple[int, ...] = ()
    only: tuple[str, ...] = ()
    subject: str = SUBJECT

    @property
    def named(self) -> str:
        """The peer, and the cases that the aim speaks of."""
        whose = "" if self.subject == SUBJECT else f"{self.subject} against "
        return whose + self.peer + (f" ({', '.join(self.only)})" if self.only else "")

    def holds_for(self, case: str) -> bool:
        """Whether the aim speaks of a case."""
        return not self.only or any(text in case for text in self.only)


@dataclass(frozen=True)
class Settings:
    """How to measure: rounds, seconds a contender runs per round, pause between contenders, thread counts. Without rounds results are only
    checked. `load` is the
    machine's load average before the run, for the record."""

    rounds: int = 9
    block_s: float = 0.02
    settle_s: float = 0.01
    threads: tuple[int, ...] = (1, 2)
    quick: bool = False
    data: str | None = None
    case_budget_s: float = 20.0
    load: float | None = None


@dataclass
class Timing:
    """One contender on one case. `times` are seconds per call, one per round; empty if `problem` says why there are none."""

    peer: str
    times: list[float] = field(default_factory=list)
    calls: int = 0
    error: float = 0.0
    problem: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.times) if self.times else math.nan

    @property
    def unsupported(self) -> bool:
        """The contender refused the case with a message of its own."""
        return self.problem.startswith("UnsupportedError")


@dataclass
class Result:
    """All contenders on one case with one thread count."""

    suite: str
    case: str
    threads: int
    timings: dict[str, Timing]
    flops: float = 0.0
    bytes: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)
    unit: str = "s"
    """Of what `timings` hold: seconds, or bytes ("B") in a suite that measures memory."""

    def _peer(self, name: str) -> Timing | None:
        """The timing of one peer, or of the fastest of those after "best of"."""
        if not name.startswith(BEST_OF):
            return self.timings.get(name)
        timed = [self.timings[n] for n in name.removeprefix(BEST_OF).split(", ") if n in self.timings and self.timings[n].times]
        return min(timed, key=lambda t: t.median, default=None)

    def ratio(self, peer: str, subject: str = SUBJECT) -> float:
        """Median over rounds of peer time / subject time; nan if either has no times. `peer` as in Target."""
        a, b = self._peer(peer), self.timings.get(subject)
        if a is None or b is None or not a.times or not b.times:
            return math.nan
        return statistics.median(x / y for x, y in zip(a.times, b.times))


def measure(suite: str, case: Case, peers: Sequence[Peer], threads: int, settings: Settings) -> Result:
    """Prepare, check and time `case` on each of `peers`."""
    result = Result(suite, case.name, threads, {}, case.flops, case.bytes, dict(case.facts))
    runs: dict[str, Run] = {}
    with ExitStack() as stack:
        values, bound = case.reference()
        for peer in peers:
            timing = result.timings[peer.name] = Timing(peer.name)
            try:
                stack.enter_context(peer.threads(threads))
                prepare = peer.kernels.get(case.kernel)
                if prepare is None:
                    raise Unavailable(f"{peer.name} has no {case.kernel}")
                run = prepare(**case.operands)
                timing.error = relative_excess(case.compared(run()), values, bound)
            except Unavailable as reason:
                timing.problem = str(reason)
                continue
            except Exception as failure:
                timing.problem = f"{type(failure).__name__}: {str(failure).splitlines()[0] if str(failure) else ''}"
                continue
            if not timing.error <= 1.0:
                timing.problem = f"wrong result: error is {timing.error:.3g} times the bound"
                continue
            runs[peer.name] = run
        if settings.rounds:
            rounds(runs, result.timings, settings)
    return result


def relative_excess(result: Any, values: np.ndarray, bound: np.ndarray | float) -> float:
    """max |result - values| / bound; infinite if the shape differs or exactly one of the two is not finite."""
    got = np.asarray(result, dtype=values.dtype)
    if got.shape != values.shape:
        return math.inf
    if got.size == 0:
        return 0.0
    difference = np.abs(got - values)
    limit = np.broadcast_to(np.asarray(bound), values.shape)
    with np.errstate(divide="ignore", invalid="ignore"):
        excess = np.where(difference == 0, 0.0, difference / limit)
    worst = float(np.max(excess))
    return math.inf if math.isnan(worst) else worst


def rounds(runs: Mapping[str, Run], timings: Mapping[str, Timing], settings: Settings) -> None:
    """Fill `timings` with one time per call and round. The number of inner calls is set once per contender, from a warm call."""
    names = list(runs)
    if not names:
        return
    inner = {name: inner_calls(runs[name], settings) for name in names}
    for name in names:
        timings[name].calls = inner[name]
    per_round = sum(timings_cost(runs[name], inner[name]) for name in names)
    count = settings.rounds if per_round == 0 else max(3, min(settings.rounds, int(settings.case_budget_s / per_round)))
    with quiet():
        for number in range(count):
            for name in names[number % len(names) :] + names[: number % len(names)]:
                time.sleep(settings.settle_s)  # the last contender's threads stop spinning before the next one is timed
                run, calls = runs[name], inner[name]
                run()
                begin = time.perf_counter()
                for _ in range(calls):
                    run()
                timings[name].times.append((time.perf_counter() - begin) / calls)


def timings_cost(run: Run, calls: int) -> float:
    """Seconds one round of this contender takes."""
    begin = time.perf_counter()
    run()
    return (time.perf_counter() - begin) * (calls + 1)


def inner_calls(run: Run, settings: Settings) -> int:
    """Calls that fill settings.block_s, between 1 and 20,000."""
    run()
    begin = time.perf_counter()
    run()
    once = max(time.perf_counter() - begin, 1e-8)
    return max(1, min(20_000, round(settings.block_s / once)))


@contextmanager
def quiet() -> Iterator[None]:
    """No garbage collection while timing."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def geomean(values: Sequence[float]) -> float:
    """Geometric mean; nan of an empty sequence."""
    kept = [v for v in values if not math.isnan(v)]
    return math.exp(sum(math.log(v) for v in kept) / len(kept)) if kept else math.nan


@dataclass(frozen=True)
class Verdict:
    """A target held against results of one thread count. `worst` is the smallest ratio and `where` its case."""

    target: Target
    threads: int
    cases: int
    mean: float
    worst: float
    where: str

    @property
    def met(self) -> bool:
        return self.cases > 0 and self.mean >= self.target.ratio and self.worst >= self.target.floor


def judge(target: Target, results: Sequence[Result]) -> list[Verdict]:
    """One verdict per thread count in `results` that `target` speaks of."""
    out = []
    for count in sorted({r.threads for r in results}):
        if target.threads and count not in target.threads:
            continue
        ratios = {r.case: r.ratio(target.peer, target.subject) for r in results if r.threads == count and target.holds_for(r.case)}
        known = {case: ratio for case, ratio in ratios.items() if not math.isnan(ratio)}
        where = min(known, key=lambda c: known[c]) if known else ""
        out.append(Verdict(target, count, len(known), geomean(list(known.values())), known.get(where, math.nan), where))
    return out
