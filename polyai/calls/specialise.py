"""From observed sizes to specialised kernels: which sizes are worth a kernel, when it is made, and who runs from then on.

A *box* gives each size a range. A specialised kernel is the general program with the sizes that have one value filled in, compiled for the
general kernel's parameters, so that either can run where the other does. It is made in the background and swapped in by replacing
one word; a call takes the general kernel until then, and wherever no box holds.
"""

from __future__ import annotations

import itertools
import math
import pickle
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from polyai.errors import PolyAIError
from polyai.machine.load import ObjectError
from polyai.options import Options
from polyai.report import KernelReport, log
from polyai.runtime.cache import Entry, unpack
from polyai.runtime.dispatch import Selection, calls_of, recent, review_at, review_of, select
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

TRIAL, SLOWER, DOUBTS = 32, 1.05, 2
"""A specialised kernel that in so many calls takes so many times the general kernel's time in its box is doubted, and withdrawn after so
many doubts in a row, each from new calls."""

REMEMBERED = 4096
"""Sizes that a profile holds at most."""

GRID = 1 << 14
"""Cells of a selection at most."""

FITS, GAIN = 0.1, 0.04
"""What a specialised kernel is assumed to save, as parts of the time, when `learned` chooses edges: FITS for any range, because its
loops have more versions, and GAIN for exactly one size, less at sizes far from the greatest of a range."""


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
    return f"import sys; sys.path[:] = {sys.path!r}\nfrom polyai.calls.special import serve\nserve(sys.stdin.buffer, sys.stdout.buffer)"


class Special:
    """A box, the guards that say so, and its kernel: None until it is made. `before` and `after` count calls and ticks in the box,
    of the general kernel until then and of this one since, `judged` those of this one that were looked at, `doubts` how often it was slower; `withdrawn` says why it does not serve any more."""

    __slots__ = ("after", "before", "box", "doubts", "guards", "judged", "kernel", "made_in", "origin", "reason", "texts", "withdrawn")

    def __init__(self, box: Box, reason: str, texts: Mapping[str, str]) -> None:
        self.box, self.reason, self.texts = box, reason, texts
        self.kernel: Kernel | None = None
        self.guards = tuple(guards_of(box, texts))
        self.origin, self.withdrawn, self.made_in = "", "", 0.0
        self.before, self.after = [0, 0], [0, 0]
        self.judged, self.doubts = (0, 0), 0

    @property
    def live(self) -> bool:
        """Whether the kernel serves its box."""
        return self.kernel is not None and not self.withdrawn

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

    def count(self, ticks: int) -> None:
        """One call in the box that took so long."""
        counter = self.after if self.live else self.before
        counter[0] += 1
        counter[1] += ticks

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
    rest = 0.0
    if isinstance(policy, Learned):
        if len(varying) == 1:
            policy = learned([(s[varying[0]], n) for s, n in seen.items()], compile_seconds, call_seconds)
        else:
            policy = Exact()
            rest = sum(seen.values())
    found: Counter[Box] = Counter()
    for sizes, calls in seen.items():
        box: list[tuple[str, int, int | None]] = []
        for k, (name, size) in enumerate(zip(names, sizes)):
            low, high = bucket_of(policy, size) if k in varying else (size, size)
            box.append((name, low, high))
        found[tuple(box)] += calls  # type: ignore[assignment]
    if rest:  # one kernel for all that is not exact
        sizes = next(iter(seen))
        found[tuple((name, 1, None) if k in varying else (name, sizes[k], sizes[k]) for k, name in enumerate(names))] = rest  # type: ignore[assignment]
    hot = [(box, calls) for box, calls in found.items() if calls >= HOT and not is_empty(box)]
    return sorted(hot, key=lambda f: (-f[1], [low for _, low, _ in f[0]]))


def is_empty(box: Box) -> bool:
    """Whether a size is 0, where there is next to nothing to save."""
    return any(high == 0 for _, _, high in box)


def learned(histogram: Iterable[tuple[int, float]], compile_seconds: float, call_seconds: float) -> Edges:
    """Edges from sizes and how often they occurred, for as many calls to come; `call_seconds` is the mean time of a call."""
    frequency: Counter[int] = Counter()
    for size, calls in histogram:
        frequency[size] += round(calls)
    mean = sum(s * n for s, n in frequency.items()) / max(1, sum(frequency.values())) or 1.0

    def seconds(size: int, high: int) -> float:
        return call_seconds * size / mean * (1.0 - FITS - GAIN * size / high)

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
        self.next_review = FIRST_REVIEW
        self._read: dict[int, int] = {}
        self._selections: list[Selection] = []
        self._lock = threading.RLock()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """What the parent's helper makes will not come here."""
        self._lock = threading.RLock()
        self.specials = tuple(s for s in self.specials if s.kernel is not None)

    # -- at a call

    def special_for(self, values: Mapping[str, int]) -> Special | None:
        """The narrowest box that holds these sizes, whether its kernel is there or not."""
        return next((s for s in self.specials if not s.withdrawn and s.holds(values)), None)

    def observe(self, values: Mapping[str, int]) -> None:
        """Count a call that did not go the native way, and look at the profile when it is time."""
        self.seen[tuple(values[n] for n in self.names)] += 1
        calls, _ = self.variant.total()
        if calls < self.next_review:
            for dispatcher in self.variant.dispatchers:  # what went the native way so far is looked at later
                hits = calls_of(dispatcher)[0]
                if hits >= review_of(dispatcher):
                    review_at(dispatcher, 2 * hits + FIRST_REVIEW)
        elif self._lock.acquire(blocking=False):
            try:
                self.review(calls)
            finally:
                self._lock.release()

    def review(self, calls: int) -> None:
        """Read what native calls recorded, judge the kernels there are, choose boxes, and have their kernels made."""
        self.next_review = 2 * calls
        for dispatcher in self.variant.dispatchers:
            hits = calls_of(dispatcher)[0]
            rows = recent(dispatcher)
            new = hits - self._read.get(id(dispatcher), 0)
            self._read[id(dispatcher)] = hits
            for row in rows:
                self.seen[row] += new / len(rows)  # type: ignore[assignment]
            review_at(dispatcher, 2 * hits + FIRST_REVIEW)
        if len(self.seen) > REMEMBERED:
            self.seen = Counter(dict(self.seen.most_common(REMEMBERED // 2)))
        self._judge()
        count, seconds = self.variant.total()
        for box, calls_of_box in boxes(self.policy, self.names, dict(self.seen), max(self.variant.made_in, 0.05), seconds / max(1, count)):
            self.want(box, f"{round(calls_of_box)} calls")

    def _judge(self) -> None:
        """Withdraw kernels that turned out slower than the general one was in the same box, twice in a row: what other programs do to
        the machine meanwhile must not decide."""
        counts, changed = self._counts(), False
        for s in self.specials:
            (old, old_ticks), (new, new_ticks) = (self._both(s, counts, live) for live in (False, True))
            calls, ticks = new - s.judged[0], new_ticks - s.judged[1]
            if not s.live or old < TRIAL or calls < TRIAL:
                continue
            slower = ticks / calls / (old_ticks / old)
            s.judged, s.doubts = (new, new_ticks), s.doubts + 1 if slower > SLOWER else 0
            if s.doubts == DOUBTS:
                s.withdrawn = f"{slower:.2f} times as slow as the general kernel"
                self.variant.runtime.stats.count("withdrawn")
                log("withdrawn", f"{s}: {s.withdrawn}", (("box", s.box),))
                changed = True
        if changed:
            self._equip_all()

    # -- making

    def want(self, box: Box, reason: str, make: Callable[[Job], Entry] | None = None) -> bool:
        """Have the kernel of a box made, in the background or, with `make`, now. False if there is no room, or it was asked for before."""
        with self._lock:
            if is_empty(box) or len(self.specials) >= self.options.specialised_kernels or any(s.box == box for s in self.specials):
                return False
            special = Special(box, reason, self.variant.texts)
            self.specials = tuple(sorted((*self.specials, special), key=lambda s: _volume(s.box)))
        start = time.perf_counter()
        job = self._job(box)
        known = self.variant.runtime.find(job.key)
        if known is not None:
            self._take(special, known, "cache", start)
        elif make is not None:
            self._adopt(special, job, make(job), "compiled", start)
        elif self.helper.submit(pickle.dumps(job), lambda answer: self._arrived(special, job, answer, start)):
            self._equip_all()  # counts how fast the general kernel is in this box
        else:
            self._drop(special)
            return False
        return True

    def _drop(self, special: Special) -> None:
        with self._lock:
            self.specials = tuple(s for s in self.specials if s is not special)

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
        inside = sorted(s[k] for s in tuple(self.seen) if low <= s[k] and (high is None or s[k] <= high))
        return inside[len(inside) // 2] if inside else high if high is not None else max(1, low)

    def _arrived(self, special: Special, job: Job, answer: bytes | None, start: float) -> None:
        """What the helper said, in its thread."""
        if answer is None:  # the helper's fault: it may be tried another time
            self._drop(special)
            return
        entry = unpack(answer, job.key, job.host)
        if entry is None:
            self._refuse(special, answer[:300].decode(errors="replace"))
        else:
            self._adopt(special, job, entry, "helper", start)

    def _refuse(self, special: Special, why: str) -> None:
        special.withdrawn = why
        self.variant.runtime.stats.count("specialise_failed")
        self.variant.runtime.stats.note(f"specialise: {why}; calls go on with the general kernel")

    def _adopt(self, special: Special, job: Job, entry: Entry, origin: str, start: float) -> None:
        try:
            signature = Signature.from_json(entry.metadata["signature"])
            kernel = self.variant.runtime.add(job.key, signature, entry.code, compiled_here=origin == "compiled")
        except (PolyAIError, ObjectError, KeyError, ValueError) as error:
            self._refuse(special, str(error))
        else:
            self._take(special, kernel, origin, start)

    def _take(self, special: Special, kernel: Kernel, origin: str, start: float) -> None:
        """Let a kernel serve its box from now on."""
        if not same_parameters(self.variant.general.signature, kernel.signature):
            self._refuse(special, f"{kernel.signature.name} has other parameters than the general kernel")
            return
        special.origin, special.made_in, special.kernel = origin, time.perf_counter() - start, kernel
        self.variant.runtime.stats.count("specialised")
        self._equip_all()
        log("specialised", f"{kernel.signature.name} for {special}", (("box", special.box), ("origin", origin), ("reason", special.reason)))

    def _equip_all(self) -> None:
        with self._lock:
            for dispatcher in list(self.variant.dispatchers):
                self.equip(dispatcher)

    def equip(self, dispatcher: Callable[..., Any]) -> None:
        """Let a native dispatcher choose among the kernels that there are."""
        chosen = selection([s for s in self.specials if not s.withdrawn], self.variant.general, self.variant.sources)
        if chosen is not None:
            self._selections.append(chosen)
            select(dispatcher, chosen)

    # -- telling

    def _counts(self) -> dict[tuple[Box, bool], tuple[int, int]]:
        """Native calls and ticks by box, before and after its kernel was there."""
        out: dict[tuple[Box, bool], tuple[int, int]] = {}
        for chosen in list(self._selections):
            for tag, (hits, ticks) in chosen.counts().items():
                before = out.get(tag, (0, 0))
                out[tag] = (before[0] + hits, before[1] + ticks)
        return out

    @staticmethod
    def _both(s: Special, counts: Mapping[tuple[Box, bool], tuple[int, int]], live: bool) -> tuple[int, int]:
        native, own = counts.get((s.box, live), (0, 0)), s.after if live else s.before
        return native[0] + own[0], native[1] + own[1]

    def report(self) -> list[KernelReport]:
        """What became of each specialised kernel."""
        out, counts = [], self._counts()
        for s in self.specials:
            calls, ticks = self._both(s, counts, True)
            name, size = (s.kernel.signature.name, len(s.kernel.code)) if s.kernel is not None else (self.variant.general.signature.name, 0)
            state = f"  {s}" + (f" ({'withdrawn' if s.kernel is not None else 'refused'}: {s.withdrawn})" if s.withdrawn else "")
            origin = s.origin or "pending"
            out.append(KernelReport(name, state, s.reason, origin, s.made_in, size, calls, self.variant.runtime.seconds(ticks) if ticks else 0.0))
        return out


def same_parameters(general: Signature, special: Signature) -> bool:
    """Whether one kernel can run where the other does."""
    ours, theirs = ([(p.name, p.rank is None, p.role) for p in s.parameters] for s in (general, special))
    return ours == theirs and not special.externs


def _volume(box: Box) -> float:
    """How many sizes a box holds: narrow boxes go first."""
    return math.prod(math.inf if high is None else high - low + 1 for _, low, high in box)


def selection(specials: Sequence[Special], general: Kernel, sources: Mapping[str, tuple[Any, ...]]) -> Selection | None:
    """Which of the kernels serves which sizes, as a grid; fewer of them if the grid would be large. The general kernel stands in for those
    that are being made, so that its calls in their boxes are counted. None if sizes of the boxes have no source."""
    chosen = list(specials)
    while True:
        edges: dict[str, set[int]] = {}
        for special in chosen:
            for name, low, high in special.box:
                edges.setdefault(name, set()).update((low,) if high is None else (low, high + 1))
        if not edges.keys() <= sources.keys():
            return None
        axes = {n: tuple(sorted(e)) for n, e in edges.items()}
        if math.prod(len(a) + 1 for a in axes.values()) <= GRID:
            cells = list(_cells(chosen, general, axes))
            return Selection(tuple((sources[n], a) for n, a in axes.items()), tuple(k for k, _ in cells), tuple(t for _, t in cells))
        chosen.pop()


def _cells(specials: Sequence[Special], general: Kernel, axes: Mapping[str, tuple[int, ...]]) -> Iterable[tuple[Kernel | None, Any]]:
    """Kernel and tag of every cell, the last axis first to move. Below the first edge of an axis no box holds."""
    for values in itertools.product(*((-1, *axis) for axis in axes.values())):
        corner = dict(zip(axes, values))
        found = next((s for s in specials if s.holds(corner)), None)
        yield (None, None) if found is None else (found.kernel or general, (found.box, found.live))
