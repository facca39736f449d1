"""What a kernel for all sizes loses against one that was made for the size at hand.

    python -m experiments.exact [--model mlp|block] [--out FOLDER] [--threads N] [--rounds R]

For sizes 1 to 512: the time of the general kernel and of the exact one, both over constant weights, in alternating calls; the ratio of the
medians, and the geometric mean of the ratios, each size weighted alike. First calls of the exact kernels are what one compilation saves.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import polyai as pa
from benchmarks.peers.polyai_peer import any_rows
from benchmarks.suites.dynamic import weights_of
from benchmarks.suites.operands import normal
from experiments.table import line, write

SIZES = (1, 2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64, 91, 128, 181, 256, 362, 512)


def measure(model: str, rounds: int) -> list[dict[str, Any]]:
    """One row for each size."""
    width, weights = weights_of(model)
    general = any_rows(model, weights)[1]
    general(normal("first", 37, width))
    rows = []
    for n in SIZES:
        x, exact = normal(f"{model} {n}", n, width), any_rows(model, weights, dynamic="none")[1]
        start = time.perf_counter()
        exact(x)
        first = time.perf_counter() - start
        calls = (general, exact)
        times: tuple[list[float], list[float]] = ([], [])
        for r in range(rounds):
            for k in (r % 2, 1 - r % 2):
                calls[k](x)
                start = time.perf_counter()
                calls[k](x)
                times[k].append(time.perf_counter() - start)
        medians = [float(np.median(t)) for t in times]
        rows.append({"rows": n, "general us": round(medians[0] * 1e6, 1), "exact us": round(medians[1] * 1e6, 1), "exact over general": round(medians[1] / medians[0], 3), "exact first call s": round(first, 2)})
    return rows


def plot(rows: list[dict[str, Any]], path: Path, title: str) -> None:
    """The general kernel's speed as a part of the exact one's."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
    axes.semilogx([r["rows"] for r in rows], [r["exact over general"] for r in rows], "o-", base=2, color="#4878a8")
    axes.axhline(1.0, color="black", linewidth=0.8)
    axes.axhline(0.9, color="black", linewidth=0.8, linestyle=":")
    axes.set_xlabel("rows")
    axes.set_ylabel("time of exact / time of general")
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments.exact", description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=("mlp", "block"), default="block")
    parser.add_argument("--out", default="build/experiments", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=25)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache, pa.options(cache_dir=cache, num_threads=chosen.threads):
        rows = measure(chosen.model, chosen.rounds)
    mean = float(np.exp(np.mean([np.log(r["exact over general"]) for r in rows])))
    path = write(rows, chosen.out, f"exact-{chosen.model}")
    title = f"{chosen.model}, {chosen.threads} threads: the general kernel has {mean:.2f} of the exact one's speed"
    plot(rows, path.with_suffix(".png"), title)
    print(title)
    for row in rows:
        print(line(row))


if __name__ == "__main__":
    main()
