"""Sizes that change at every call: an MLP (1024-4096-1024, GELU) and a transformer block (d = 256, 4 heads) over sequences whose lengths, 1 to 256,
are drawn from real length histograms.

For each model and thread count: the first call of a fresh contender; 64 sizes it has not seen; the same again; and the steady state, rounds
of all 64 with the contenders in random order. `polyai learned` has made its specialised kernels before the rounds. Each contender's results
are checked on all sizes first. The exactly specialised kernel is held against the general one over sizes 1 to 512.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

import polyai as pa
from benchmarks import peers, reference
from benchmarks.harness import SUBJECT, Result, Settings, Target, Timing, Unavailable, relative_excess
from benchmarks.peers.polyai_peer import any_rows
from benchmarks.suites import Limit, Suite
from benchmarks.suites.operands import normal, rng
from polyai import datasets

PEERS = ("onnxruntime", "openvino", "torch")
LEARNED, EXACTLY = "polyai learned", "polyai exact"
MOST, COUNT = 256, 64
PASSES = 9
"""Least rounds of the steady state: what else the machine does shows in single passes."""
REST = 0.1
"""Seconds between the passes of two contenders: threads of the one before spin for a while, on the cores that the next one needs."""
EXACT = (1, 2, 5, 8, 17, 32, 64, 100, 128, 200, 256, 511)

BEST = f"best of {', '.join(PEERS)}"

Call = Callable[[np.ndarray], np.ndarray]


def lengths(data: str | None) -> np.ndarray:
    """Sentence lengths from 1 to MOST out of the data folder; without one, of a log-normal distribution like theirs."""
    if data is not None:
        for file in sorted(Path(data).rglob("*sentence_lengths.tsv*")):
            for column in datasets.read(file).values():
                if column.dtype.kind in "iu" and column.min() >= 1:
                    return column[column <= MOST]
    drawn = np.exp(rng("lengths").normal(2.6, 0.9, 20_000)).astype(np.int64)
    return drawn[(drawn >= 1) & (drawn <= MOST)]


def weights_of(model: str) -> tuple[int, dict[str, np.ndarray]]:
    """The width of the model's rows and its weights."""

    def matrix(name: str, rows: int, cols: int) -> np.ndarray:
        return (normal(f"{model} {name}", rows, cols) / np.sqrt(rows)).astype(np.float32)

    if model == "mlp":
        return 1024, {"w1": matrix("w1", 1024, 4096), "b1": normal("b1", 4096), "w2": matrix("w2", 4096, 1024), "b2": normal("b2", 1024)}
    square = {n: matrix(n, 256, 256) for n in ("wq", "wk", "wv", "wo")}
    norms = {n: (g + 0.1 * normal(n, 256)).astype(np.float32) for n, g in (("g1", 1), ("n1", 0), ("g2", 1), ("n2", 0))}
    return 256, {**square, **norms, "w1": matrix("w1", 256, 1024), "b1": normal("c1", 1024), "w2": matrix("w2", 1024, 256), "b2": normal("c2", 256)}


def _contenders(model: str, weights: dict[str, np.ndarray], threads: int, stack: ExitStack, settings: Settings) -> Iterator[tuple[str, Callable[[], Call]]]:
    subject: Any = peers.load(SUBJECT)
    stack.enter_context(subject.threads(threads))
    yield SUBJECT, lambda: subject.any_rows[model](weights)
    yield LEARNED, lambda: any_rows(model, weights, policy="learned")[1]
    for name in PEERS[: 2 if settings.quick else 3]:
        try:
            peer: Any = peers.load(name)
            stack.enter_context(peer.threads(threads))
        except Unavailable:
            continue
        yield name, lambda peer=peer: peer.any_rows[model](weights)


def _pass(call: Call, inputs: list[np.ndarray]) -> float:
    start = time.perf_counter()
    for X in inputs:
        call(X)
    return time.perf_counter() - start


def _settle(call: Call, inputs: list[np.ndarray], seconds: float) -> None:
    """Call until the background has nothing to do any more."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        before = pa.stats().get("specialised", 0)
        for _ in range(3):
            _pass(call, inputs)
        time.sleep(1.0)
        if pa.stats().get("specialised", 0) == before > 0:
            return


def _model(model: str, threads: int, settings: Settings) -> list[Result]:
    width, weights = weights_of(model)
    drawn = rng(model).choice(lengths(settings.data), 20_000)
    sizes = list(dict.fromkeys(int(s) for s in drawn))[:COUNT]  # frequent ones first: as they come
    inputs = [normal(f"{model} {n}", n, width) for n in sizes]
    common = [normal(f"{model} {n}", n, width) for n in drawn[:COUNT]]
    wanted = [getattr(reference, model)(X, weights) for X in inputs]
    names = ("first call", f"{COUNT} new sizes", f"{COUNT} sizes again", "steady, lengths as they occur")
    results = {n: Result("dynamic", f"{model}, {n}", threads, {}, facts={"sizes": sizes}) for n in names}
    ready: dict[str, Call] = {}
    with ExitStack() as stack:
        for name, make in _contenders(model, weights, threads, stack, settings):
            timings = {n: results[n].timings.setdefault(name, Timing(name)) for n in names}
            try:
                start = time.perf_counter()
                call = make()
                call(normal("first", 37, width))
                timings[names[0]].times.append(time.perf_counter() - start)
                timings[names[1]].times.append(_pass(call, inputs))
                timings[names[2]].times.append(_pass(call, inputs))
                timings[names[3]].error = max(relative_excess(call(X), *want) for X, want in zip(inputs, wanted))
                if timings[names[3]].error > 1:
                    timings[names[3]].problem = f"wrong: error {timings[names[3]].error:.3g} of the bound"
                    continue
            except Exception as failure:
                for timing in timings.values():
                    timing.problem = f"{type(failure).__name__}: {str(failure).splitlines()[0] if str(failure) else ''}"
                continue
            if name == LEARNED:
                _settle(call, common, 30.0 if settings.quick else 120.0)
            ready[name] = call
        chance = rng(f"{model} order")
        for _ in range(max(PASSES, settings.rounds)):
            for name in chance.permutation(list(ready)):  # in turns, each would always follow the same one
                time.sleep(REST)
                ready[name](common[0])
                results[names[3]].timings[name].times.append(_pass(ready[name], common))
    return list(results.values())


def _exact(model: str, threads: int, settings: Settings) -> Result:
    """Time of the general kernel over the exactly specialised one, as the times of two contenders, summed in the logarithm over sizes."""
    width, weights = weights_of(model)
    out = Result("dynamic", f"{model}, general against exact, sizes 1 to 512", threads, {n: Timing(n) for n in (SUBJECT, EXACTLY)})
    with pa.options(num_threads=threads):
        general = any_rows(model, weights)[1]
        general(normal("first", 128, width))
        logs: list[list[float]] = [[], []]
        ratios: dict[int, float] = {}
        for n in EXACT[:: 3 if settings.quick else 1]:
            X, exact = normal(f"{model} {n}", n, width), any_rows(model, weights, dynamic="none")[1]
            exact(X)
            times: list[list[float]] = [[], []]
            for _ in range(max(3, settings.rounds)):
                for k, call in enumerate((general, exact)):
                    times[k].append(_pass(call, [X]))
            medians = [float(np.median(t)) for t in times]
            ratios[n] = medians[0] / medians[1]
            for k in range(2):
                logs[k].append(np.log(medians[k]))
    for k, name in enumerate((SUBJECT, EXACTLY)):
        out.timings[name].times.append(float(np.exp(np.mean(logs[k]))))
    out.facts["general over exact by size"] = {str(n): round(r, 3) for n, r in ratios.items()}
    return out


def run(settings: Settings) -> list[Result]:
    out: list[Result] = []
    for threads in settings.threads:
        for model in ("mlp", "block"):
            out += _model(model, threads, settings)
            out.append(_exact(model, threads, settings))
    return out


SUITE = Suite(
    "dynamic",
    "Sizes that change at every call, f32",
    (LEARNED, *PEERS),
    run=run,
    targets=(
        Target(BEST, 1.0, only=("steady",)),
        Target(BEST, 1.15, only=("steady",), subject=LEARNED),
        Target(SUBJECT, 0.95, only=("steady",), subject=LEARNED),  # no slower, as far as rounds tell
        Target(EXACTLY, 0.9),
        *(Target(p, 1.0) for p in PEERS),
    ),
    limits=tuple(Limit(SUBJECT, f"{m}, first call", 0.5) for m in ("mlp", "block")),
)
