"""What policies for specialised kernels cost and save on a stream of calls whose sizes are real lengths.

    python -m experiments.policies [--data FOLDER] [--out FOLDER] [--calls N] [--rounds R] [--model mlp|block|small]

For each policy: kernels made, seconds until the last of them serves, the part of the calls they serve, and the time of a pass over
the stream in the steady state relative to no policy (interleaved rounds). Padding to the end of the bucket, which is what these
policies replace, is shown as waste: computed rows over rows asked for, minus one.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import polyai as pa
from benchmarks.peers.polyai_peer import MODELS
from benchmarks.suites.dynamic import lengths, weights_of
from benchmarks.suites.operands import normal, rng
from experiments.table import line, write
from polyai.calls.specialise import learned
from polyai.shapes.bucket import Edges, Exact, Learned, Multiple, PowerOfTwo, bucket_of, parse

POLICIES = ("none", "exact", "pow2", "multiple:16", "ranges:8,16,32,64", "learned")


def waste(policy: str, sizes: np.ndarray) -> float:
    """Rows that padding to the end of the bucket would add, relative to the rows asked for."""
    chosen = parse(policy)
    if isinstance(chosen, Learned):
        values, counts = np.unique(sizes, return_counts=True)
        chosen = learned([(int(v), float(c)) for v, c in zip(values, counts)], 0.1, 1e-3)
    if not isinstance(chosen, (Exact, PowerOfTwo, Multiple, Edges)):
        return 0.0
    ends = [bucket_of(chosen, int(s))[1] for s in sizes]
    return float(sum(int(s) if e is None else e for s, e in zip(sizes, ends)) / sizes.sum() - 1)


def small() -> tuple[int, dict[str, np.ndarray]]:
    """A perceptron small enough that a call takes tens of microseconds."""
    names = {"w1": (64, 128), "b1": (128,), "w2": (128, 64), "b2": (64,)}
    return 64, {n: normal(n, *s) / 8 for n, s in names.items()}


def measure(model: str, sizes: np.ndarray, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """One row for each policy."""
    width, weights = small() if model == "small" else weights_of(model)
    inputs = {int(n): normal(f"x{n}", int(n), width) for n in np.unique(sizes)}
    rows: list[dict[str, Any]] = []
    functions = []
    for policy in POLICIES:
        f = pa.jit(MODELS["mlp" if model == "small" else model], policy=policy, name=policy)
        start, last, before = time.perf_counter(), 0.0, -1
        while time.perf_counter() - start < (seconds if policy != "none" else 0.1):
            for n in sizes:
                f(inputs[int(n)], weights)
            kernels = f.report().kernels
            live = sum(k.origin not in ("pending", "") for k in kernels) - 1
            if live != before:
                before, last = live, time.perf_counter() - start
            if len(kernels) > 1 and not any(k.origin == "pending" for k in kernels) and time.perf_counter() - start > seconds / 2:
                break
        hits = [k.hits for k in f.report().kernels]
        for n in sizes:
            f(inputs[int(n)], weights)
        served = [b - a for a, b in zip(hits, (k.hits for k in f.report().kernels))]
        rows.append({"policy": policy, "kernels": before, "ready after s": round(last, 2), "served": round(sum(served[1:]) / max(1, sum(served)), 3), "waste of padding": round(waste(policy, sizes), 3)})
        functions.append(f)
    times: list[list[float]] = [[] for _ in functions]
    for r in range(rounds):
        for k in range(len(functions)):
            at = (k + r) % len(functions)
            start = time.perf_counter()
            for n in sizes:
                functions[at](inputs[int(n)], weights)
            times[at].append(time.perf_counter() - start)
    for k, row in enumerate(rows):
        row["us per call"] = round(float(np.median(times[k])) / len(sizes) * 1e6, 2)
        row["against none"] = round(float(np.median([a / b for a, b in zip(times[k], times[0])])), 3)
    return rows


def plot(rows: list[dict[str, Any]], path: Path, title: str) -> None:
    """Steady time against no policy, and kernels made."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    names = [r["policy"] for r in rows]
    left.barh(names, [r["against none"] for r in rows], color="#4878a8")
    left.axvline(1.0, color="black", linewidth=0.8)
    left.set_xlabel("time of the stream, relative to no policy")
    right.barh(names, [r["kernels"] for r in rows], color="#a87848")
    right.set_xlabel("specialised kernels")
    for axes in (left, right):
        axes.invert_yaxis()
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments.policies", description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="folder with length histograms; without one, lengths are drawn")
    parser.add_argument("--out", default="build/experiments", type=Path)
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=60.0, help="wait at most so long for a policy's kernels")
    parser.add_argument("--model", choices=("small", "mlp", "block"), default="small")
    chosen = parser.parse_args()
    sizes = rng("policies").choice(lengths(chosen.data), chosen.calls)
    with tempfile.TemporaryDirectory() as cache, pa.options(cache_dir=cache, num_threads=1):
        rows = measure(chosen.model, sizes, chosen.rounds, chosen.seconds)
    path = write(rows, chosen.out, f"policies-{chosen.model}")
    title = f"{chosen.model}, {chosen.calls} calls, lengths {sizes.min()} to {sizes.max()}, one thread"
    plot(rows, path.with_suffix(".png"), title)
    print(title)
    for row in rows:
        print(line(row))


if __name__ == "__main__":
    main()
