"""What padding costs: attention over ragged batches against the same function on padded ones, over batches of real lengths.

    python -m experiments.ragged [--data FOLDER] [--out FOLDER] [--rounds R] [--heads H]

For each kind of lengths and each number of rows: how much padding adds to the pairs that attention computes, the time of both and
the memory of q, k, v. `sorted` batches hold rows of similar lengths, as a loader with buckets makes them: the best that padding can do.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

import polyai as pa
from benchmarks.suites.operands import normal, rng
from benchmarks.suites.ragged import D, lengths, ours, ours_padded
from experiments.table import line, write

ROWS = (4, 16, 64)
KINDS = ("sentences", "prompts")


def drawn(kind: str, rows: int, data: str | None, similar: bool) -> np.ndarray:
    """Lengths of a batch."""
    pool = lengths(data, kind)
    source = rng(f"{kind} {rows}")
    if not similar:
        return source.choice(pool, rows)
    many = np.sort(source.choice(pool, 32 * rows))
    at = int(source.integers(0, 31)) * rows
    return many[at : at + rows]


def measure(kind: str, rows: int, data: str | None, similar: bool, heads: int, rounds: int) -> dict[str, Any]:
    """One line of the table."""
    chosen = drawn(kind, rows, data, similar)
    offsets = np.concatenate([[0], np.cumsum(chosen)])
    q, k, v = (normal(f"{kind} {rows} {t}", int(offsets[-1]), heads, D) for t in "qkv")
    calls = (ours(offsets, q, k, v), ours_padded(offsets, q, k, v))
    times: list[list[float]] = [[], []]
    for call in calls:
        call()
    for r in range(rounds):
        for n in (0, 1) if r % 2 else (1, 0):
            start = time.perf_counter()
            calls[n]()
            times[n].append(time.perf_counter() - start)
    pairs = int((chosen.astype(np.int64) ** 2).sum())
    whole = rows * int(chosen.max())
    return {
        "lengths": kind, "batch": "sorted" if similar else "as they come", "rows": rows, "elements": int(offsets[-1]), "longest": int(chosen.max()),
        "padded over real pairs": round(whole * int(chosen.max()) / pairs, 2), "padded over real bytes": round(whole / int(offsets[-1]), 2),
        "ragged us": round(float(np.median(times[0])) * 1e6, 1), "padded us": round(float(np.median(times[1])) * 1e6, 1),
        "padded over ragged": round(float(np.median([b / a for a, b in zip(*times)])), 2),
    }  # fmt: skip


def plot(table: list[dict[str, Any]], path: Path) -> None:
    """Time saved against pairs saved."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(5, 3.6), layout="constrained")
    for kind, colour in zip(KINDS, ("#4878a8", "#a87848")):
        for batch, marker in (("as they come", "o"), ("sorted", "x")):
            points = [r for r in table if r["lengths"] == kind and r["batch"] == batch]
            axes.scatter([r["padded over real pairs"] for r in points], [r["padded over ragged"] for r in points], color=colour, marker=marker, label=f"{kind}, {batch}")
    axes.axline((1, 1), slope=1, color="black", linewidth=0.8)
    axes.set(xscale="log", yscale="log", xlabel="pairs computed, padded over ragged", ylabel="time, padded over ragged")
    axes.legend(fontsize=7)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments.ragged", description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="folder with length histograms; without one, lengths are drawn")
    parser.add_argument("--out", default="build/experiments", type=Path)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--heads", type=int, default=4)
    chosen = parser.parse_args()
    table = []
    with pa.options(num_threads=1):
        for kind in KINDS:
            for rows in ROWS[: 2 if kind == "prompts" else 3]:
                for similar in (False, True):
                    table.append(measure(kind, rows, chosen.data, similar, chosen.heads, chosen.rounds))
                    print(line(table[-1]), flush=True)
    path = write(table, chosen.out, "ragged")
    plot(table, path.with_suffix(".png"))
    print(f"wrote {path}.csv and .png")


if __name__ == "__main__":
    main()
