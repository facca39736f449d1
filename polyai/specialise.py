"""From observed sizes to specialised kernels: which sizes are worth a kernel, when it is made, and who runs from then on.

A *box* gives each size a range. A specialised kernel is the general program with the sizes that have one value filled in, compiled for the
general kernel's parameters, so that either can run where the other does. It is made in the background and swapped in by replacing
one word; a call takes the general kernel until then, and wherever no box holds.
"""

from __future__ import annotations

import math
import pickle
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from polyai.errors import PolyAIError
from polyai.options import Options
from polyai.report import KernelReport, log
from polyai.runtime.cache import Entry, unpack
from polyai.runtime.dispatch import Selection, calls_of, recent, review_at, select
from polyai.runtime.helper import Helper
from polyai.runtime.kernel import Kernel, Parameter, Signature
from polyai.runtime.launch import Runtime
from polyai.runtime.shared import renew_after_fork
from polyai.shapes.bucket import Edges, Exact, Learned, Never, Policy, best_edges, bucket_of
from polyai.shapes.expr import symbol
from polyai.shapes.guard import Guard
from polyai.tensor import nodes as tn
from polyai.tensor.nodes import Fact
from polyai.tensor.passes.resize import with_sizes
from polyai.term.digest import digest
from polyai.term.node import node

Box = tuple[tuple[str, int, "int | None"], ...]
"""(size, least value, greatest value or None) for each size."""

FIRST_REVIEW = 64
"""Calls before the profile is looked at; then again whenever the number of calls has doubled."""

HOT = 16
"""Calls that a box must have had."""

GRID = 1 << 14
"""Cells of a selection at most."""

GAIN = 0.1
"""What a kernel made for exactly one size is assumed to save, as a part of the time, when `learned` chooses edges; a kernel
for a range saves less at sizes far from its greatest."""


@node
class Job:
    """What has to be compiled: `program` for typical `sizes`, with the parameters of the general kernel, to be kept under `key`."""

    key: str
    host: str
    program: tn.Program
    sizes: tuple[tuple[str, int], ...]
    options: Options
    parameters: tuple[Parameter, ...]


def helper_command() -> str:
    """The Python program of a helper: this interpreter's paths, then `special.serve`."""
    return f"import sys; sys.path[:] = {sys.path!r}\nfrom polyai.special import serve\nserve(sys.stdin.buffer, sys.stdout.buffer)"


class Special:
    """A specialised kernel, the box it is for, and the guards that say so."""

    __slots__ = ("box", "calls", "guards", "kernel", "origin", "reason", "seconds", "texts", "ticks")

    def __init__(self, box: Box, kernel: Kernel, reason: str, origin: str, texts: Mapping[str, str]) -> None:
        self.box, self.kernel, self.reason, self.origin, self.texts = box, kernel, reason, origin, texts
        self.guards = tuple(guards_of(box, texts))
        self.calls, self.ticks = 0, 0  # of the slow path
        self.seconds = 0.0

    def holds(self, values: Mapping[str, int]) -> bool:
        """Whether the kernel is right for these sizes."""
        return all(low <= values[name] and (high is None or values[name] <= high) for name, low, high in self.box)

    def why_not(self, values: Mapping[str, int]) -> str:
        """A sentence that names the first relation that fails; empty if all hold."""
        broken = next((g for g in self.guards if not g.holds(values)), None)
        if broken is None:
            return ""
        names = [n for n, _, _ in self.box if broken.left == symbol(n)]
        return f"{broken} fails: {', '.join(f'{self.texts.get(n, n)} = {values[n]}' for n in names)}"

    def __str__(self) -> str:
        return ", ".join(str(g) for g in self.guards)


def guards_of(box: Box, texts: Mapping[str, str]) -> Iterable[Guard]:
    """The relations that a box stands for, in the user's names."""
    for name, low, high in box:
        text = texts.get(name, name)
        if low == high:
            yield Guard(symbol(name), "==", low, f"{text} == {low}", "the kernel is specialised")
            continue
        if low > 0:
            yield Guard(symbol(name), ">=", low, f"{text} >= {low}", "the kernel is specialised")
        if high is not None:
            yield Guard(symbol(name), "<=", high, f"{text} <= {high}", "the kernel is specialised")


def boxes(policy: Policy, names: Sequence[str], seen: Mapping[tuple[int, ...], float], compile_seconds: float, call_seconds: float) -> list[tuple[Box, float]]:
    """The boxes that are worth a kernel by `policy`, with the calls they had, the most first."""
    if not seen or isinstance(policy, Never):
        return []
    varying = [k for k in range(len(names)) if len({s[k] for s in seen}) > 1]
    if isinstance(policy, Learned):
        if len(varying) == 1:
            policy = learned([(s[varying[0]], n) for s, n in seen.items()], compile_seconds, call_seconds)
        else:
            policy = Exact()
    found: Counter[Box] = Counter()
    for sizes, calls in seen.items():
        box: list[tuple[str, int, int | None]] = []
        for k, (name, size) in enumerate(zip(names, sizes)):
            low, high = bucket_of(policy, size) if k in varying else (size, size)
            box.append((name, low, high))
        found[tuple(box)] += calls  # type: ignore[assignment]
    return [(box, calls) for box, calls in sorted(found.items(), key=lambda f: (-f[1], f[0][0][1])) if calls >= HOT]


def learned(histogram: Iterable[tuple[int, float]], compile_seconds: float, call_seconds: float) -> Edges:
    """Edges from sizes and how often they occurred, for as many calls to come; `call_seconds` is the mean time of a call."""
    frequency: Counter[int] = Counter()
    for size, calls in histogram:
        frequency[size] += round(calls)
    mean = sum(s * n for s, n in frequency.items()) / max(1, sum(frequency.values())) or 1.0

    def seconds(size: int, high: int) -> float:
        return call_seconds * size / mean * (1.0 - GAIN * size / high)

    return best_edges({s: n for s, n in frequency.items() if n}, seconds, compile_seconds)


class _Variant(Protocol):
    """What a specialiser needs of a variant."""

    runtime: Runtime
    dispatchers: list[Callable[..., Any]]
    sources: dict[str, tuple[Any, ...]]
    made_in: float

    @property
    def general(self) -> Kernel: ...
    @property
    def program(self) -> tn.Program: ...
    @property
    def texts(self) -> Mapping[str, str]: ...
    def total(self) -> tuple[int, float]: ...
    def key_for(self, program: tn.Program, hints: Mapping[str, int], options: Options) -> tuple[str, dict[str, int], str]: ...


class Specialiser:
    """The profile of one variant and its specialised kernels. Safe for threads; a forked child keeps the kernels."""

    def __init__(self, variant: _Variant, names: Sequence[str], policy: Policy, options: Options, helper: Helper) -> None:
        self.variant, self.names, self.policy, self.options, self.helper = variant, tuple(names), policy, options, helper
        self.seen: Counter[tuple[int, ...]] = Counter()
        self.specials: tuple[Special, ...] = ()
        self.tried: set[Box] = set()
        self.next_review = FIRST_REVIEW
        self._read: dict[int, int] = {}
        self._selections: list[Selection] = []
        self._lock = threading.RLock()
        renew_after_fork(self)

    def after_fork(self) -> None:
        self._lock = threading.RLock()
        self.tried = {s.box for s in self.specials}

    # -- at a call

    def kernel_for(self, values: Mapping[str, int]) -> Special | None:
        """The narrowest specialised kernel for these sizes."""
        return next((s for s in self.specials if s.holds(values)), None)

    def observe(self, values: Mapping[str, int]) -> None:
        """Count a call that did not go the native way, and look at the profile when it is time."""
        self.seen[tuple(values[n] for n in self.names)] += 1
        calls, _ = self.variant.total()
        if calls >= self.next_review and self._lock.acquire(blocking=False):
            try:
                self.review(calls)
            finally:
                self._lock.release()

    def review(self, calls: int) -> None:
        """Read what native calls recorded, choose boxes, and have their kernels made."""
        self.next_review = 2 * calls
        for dispatcher in self.variant.dispatchers:
            hits = calls_of(dispatcher)[0]
            rows = recent(dispatcher)
            new = hits - self._read.get(id(dispatcher), 0)
            self._read[id(dispatcher)] = hits
            for row in rows:
                self.seen[row] += new / len(rows)  # type: ignore[assignment]
            review_at(dispatcher, 2 * hits + FIRST_REVIEW)
        count, seconds = self.variant.total()
        for box, calls_of_box in boxes(self.policy, self.names, self.seen, max(self.variant.made_in, 0.05), seconds / max(1, count)):
            self.want(box, f"{round(calls_of_box)} calls")

    # -- making

    def want(self, box: Box, reason: str, wait: Callable[[Job], Entry] | None = None) -> bool:
        """Have the kernel of a box made, in the background or, with `wait`, now. False if there is no room, or it was asked for before."""
        with self._lock:
            if box in self.tried or len(self.tried) >= self.options.specialised_kernels:
                return False
            self.tried.add(box)
        job = self._job(box)
        known = self.variant.runtime.find(job.key)
        if known is not None:
            self._take(box, known, reason, "cache")
        elif wait is not None:
            self._adopt(box, job, wait(job), reason, "compiled")
        else:
            return self.helper.submit(pickle.dumps(job), lambda answer: self._arrived(box, job, answer, reason))
        return True

    def _job(self, box: Box) -> Job:
        fixed = {name: low for name, low, high in box if low == high}
        facts = [Fact(symbol(n) - low, "nonnegative") for n, low, high in box if low != high and low > 0]
        facts += [Fact(high - symbol(n), "nonnegative") for n, low, high in box if low != high and high is not None]
        program = with_sizes(self.variant.program, fixed, tuple(facts))
        typical = {n: low if low == high else self._middle(k, low, high) for k, (n, low, high) in enumerate(box)}
        key, hints, host = self.variant.key_for(program, typical, self.options)
        parameters = self.variant.general.signature.parameters
        return Job(f"{key}-s{digest(parameters)[:16]}", host, program, tuple(sorted(hints.items())), self.options, parameters)

    def _middle(self, k: int, low: int, high: int | None) -> int:
        """The typical value of size number k in a range: the middle one of those seen."""
        inside = sorted(s[k] for s in self.seen if low <= s[k] and (high is None or s[k] <= high))
        return inside[len(inside) // 2] if inside else high if high is not None else max(1, low)

    def _arrived(self, box: Box, job: Job, answer: bytes | None, reason: str) -> None:
        """What the helper said, in its thread."""
        stats = self.variant.runtime.stats
        if answer is None:
            self.tried.discard(box)  # the helper's fault: another time
            return
        entry = unpack(answer, job.key, job.host)
        if entry is None:
            stats.count("specialise_failed")
            stats.note(f"specialise: {answer[:300].decode(errors='replace')}; calls go on with the general kernel")
            return
        self._adopt(box, job, entry, reason, "helper")

    def _adopt(self, box: Box, job: Job, entry: Entry, reason: str, origin: str) -> None:
        runtime = self.variant.runtime
        try:
            kernel = runtime.add(job.key, Signature.from_json(entry.metadata["signature"]), entry.code, compiled_here=origin == "compiled")
        except (PolyAIError, KeyError, ValueError) as error:
            runtime.stats.count("specialise_failed")
            runtime.stats.note(f"specialise: {error}; calls go on with the general kernel")
            return
        self._take(box, kernel, reason, origin)

    def _take(self, box: Box, kernel: Kernel, reason: str, origin: str) -> None:
        """Let a kernel serve its box from now on."""
        if not same_parameters(self.variant.general.signature, kernel.signature):
            self.variant.runtime.stats.count("specialise_failed")
            return
        special = Special(box, kernel, reason, origin, self.variant.texts)
        with self._lock:
            self.specials = tuple(sorted((*self.specials, special), key=lambda s: _volume(s.box)))
            self.variant.runtime.stats.count("specialised")
            for dispatcher in list(self.variant.dispatchers):
                self.equip(dispatcher)
        log("specialised", f"{kernel.signature.name} for {special}", (("box", box), ("origin", origin), ("reason", reason)))

    def equip(self, dispatcher: Callable[..., Any]) -> None:
        """Let a native dispatcher choose among the kernels that there are."""
        chosen = selection(self.specials, self.variant.sources)
        if chosen is not None:
            self._selections.append(chosen)
            select(dispatcher, chosen)

    # -- telling

    def report(self) -> list[KernelReport]:
        """What became of each specialised kernel."""
        native: Counter[int] = Counter()
        ticks: Counter[int] = Counter()
        for chosen in list(self._selections):
            for address, (hits, spent) in chosen.counts().items():
                native[address] += hits
                ticks[address] += spent
        out = []
        for s in self.specials:
            at = s.kernel.address
            seconds = self.variant.runtime.seconds(s.ticks + ticks[at]) if s.ticks + ticks[at] else 0.0
            out.append(KernelReport(s.kernel.signature.name, f"  {s}", s.reason, s.origin, s.seconds, len(s.kernel.code), s.calls + native[at], seconds))
        return out


def same_parameters(general: Signature, special: Signature) -> bool:
    """Whether one kernel can run where the other does."""
    ours, theirs = ([(p.name, p.rank is None, p.role) for p in s.parameters] for s in (general, special))
    return ours == theirs and not special.externs


def _volume(box: Box) -> float:
    """How many sizes a box holds: narrow boxes go first."""
    return math.prod(math.inf if high is None else high - low + 1 for _, low, high in box)


def selection(specials: Sequence[Special], sources: Mapping[str, tuple[Any, ...]]) -> Selection | None:
    """Which of the kernels serves which sizes, as a grid; fewer of them if the grid would be large."""
    chosen = list(specials)
    while chosen:
        edges: dict[str, set[int]] = {}
        for special in chosen:
            for name, low, high in special.box:
                edges.setdefault(name, set()).update((low,) if high is None else (low, high + 1))
        names = [n for n in edges if n in sources]
        if len(names) < len(edges):
            return None
        axes = [tuple(sorted(edges[n])) for n in names]
        if math.prod(len(a) + 1 for a in axes) <= GRID:
            return Selection(tuple((sources[n], a) for n, a in zip(names, axes)), tuple(_cells(chosen, names, axes)))
        chosen.pop()
    return None


def _cells(specials: Sequence[Special], names: Sequence[str], axes: Sequence[tuple[int, ...]]) -> Iterable[Kernel | None]:
    """The kernel of every cell, the last axis first to move. Below the first edge of an axis no box holds."""
    corners: list[dict[str, int]] = [{}]
    for name, axis in zip(names, axes):
        corners = [{**corner, name: value} for corner in corners for value in (-1, *axis)]
    for corner in corners:
        yield next((s.kernel for s in specials if s.holds(corner)), None)

