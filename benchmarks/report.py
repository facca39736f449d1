"""Results as JSON (everything), Markdown (what a reader wants first) and a roofline picture."""

from __future__ import annotations

import json
import math
import platform
import statistics
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.harness import SUBJECT, Result, Settings, Verdict
from benchmarks.machine import Machine


def to_json(result: Result) -> dict[str, Any]:
    return asdict(result)


def human(seconds: float) -> str:
    """Three significant digits with a unit."""
    if math.isnan(seconds):
        return "-"
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-9:.0f} ns"


def amount(value: float, unit: str = "s") -> str:
    """A time, or a number of bytes."""
    if unit == "s" or math.isnan(value):
        return human(value)
    return f"{value / 1e6:.3g} MB"


def ratio(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}x"


def table(rows: Sequence[Sequence[str]], header: Sequence[str]) -> str:
    """A Markdown table; the first column left, the others right."""
    head = "| " + " | ".join(header) + " |"
    rule = "|" + "|".join(["---"] + ["---:"] * (len(header) - 1)) + "|"
    return "\n".join([head, rule, *("| " + " | ".join(r) + " |" for r in rows)])


def suite_markdown(title: str, peers: Sequence[str], results: Sequence[Result], verdicts: Sequence[Verdict]) -> str:
    """Title, targets, then one line per case: PolyAI's time, each peer's time over PolyAI's, GFLOP/s and GB/s."""
    parts = [f"## {title}", ""]
    if verdicts:
        rows = [
            [
                v.target.named,
                str(v.threads),
                str(v.cases),
                ratio(v.mean),
                f"{ratio(v.worst)} ({v.where})" if v.where else "-",
                f">= {v.target.ratio:g}x" + (f", none < {v.target.floor:g}x" if v.target.floor else ""),
                "yes" if v.met else "NO",
            ]
            for v in verdicts
        ]
        parts += [table(rows, ["time of peer / PolyAI", "threads", "cases", "geomean", "worst", "target", "met"]), ""]
    others = [p for p in peers if p != SUBJECT]
    rows = []
    for r in results:
        own = r.timings.get(SUBJECT)
        t = own.median if own else math.nan
        cells = [r.case, str(r.threads), amount(t, r.unit) if own and own.times else (own.problem if own else "-")]
        for p in others:
            timing = r.timings.get(p)
            if timing is None or not timing.times:
                cells.append("-")
            else:
                shown = amount(timing.median, r.unit)
                cells.append(f"{shown} ({ratio(r.ratio(p))})" if own and own.times else shown)
        rate = "-" if math.isnan(t) or not r.flops else f"{r.flops / t / 1e9:.3g}"
        flow = "-" if math.isnan(t) or not r.bytes else f"{r.bytes / t / 1e9:.3g}"
        rows.append([*cells, rate, flow])
    parts += [table(rows, ["case", "threads", "PolyAI", *others, "GFLOP/s", "GB/s"]), ""]
    problems = Counter(f"{t.peer}: {t.problem}" for r in results for t in r.timings.values() if t.problem)
    if problems:
        parts += ["Not timed:", "", *(f"- {p} ({count} of {len(results)})" for p, count in sorted(problems.items())), ""]
    return "\n".join(parts)


def summary(entries: Sequence[Mapping[str, Any]]) -> str:
    """Every target and limit of the run in one table."""
    rows = [[e["suite"], e["against"], str(e["threads"] or "-"), e["cases"], e["figure"], e["worst"], e["target"], "yes" if e["met"] else "NO"] for e in entries]
    return "## Summary\n\n" + table(rows, ["suite", "against", "threads", "cases", "geomean", "worst", "target", "met"]) + "\n"


def entry_of(title: str, verdict: Verdict) -> dict[str, Any]:
    """A verdict as a row of the summary and of the JSON file."""
    v = verdict
    return {
        "suite": title,
        "against": v.target.named,
        "threads": v.threads,
        "cases": str(v.cases),
        "figure": ratio(v.mean),
        "worst": f"{ratio(v.worst)} ({v.where})" if v.where else "-",
        "target": f">= {v.target.ratio:g}x" + (f", none < {v.target.floor:g}x" if v.target.floor else ""),
        "met": v.met,
        "geomean": v.mean,
        "worst ratio": v.worst,
    }


def preface(machine: Machine | None, versions: Mapping[str, str], settings: Settings) -> str:
    lines = ["# Measurements", "", f"Taken {time.strftime('%Y-%m-%d')}, Python {platform.python_version()}, {platform.system()}."]
    if machine is not None:
        lines.append(f"Processor: {machine.cpu}, {machine.cores} cores, {machine.lanes_f32} f32 lanes.")
        for count, peak in machine.peak_f32.items():
            lines.append(
                f"With {count} thread(s): {peak / 1e9:.0f} GFLOP/s f32, "
                + ", ".join(f"{v / 1e9:.0f} GB/s at {k}" for k, v in machine.bandwidth["read"][count].items())
                + " (read)."
            )
    lines.append(
        f"Median of {settings.rounds} interleaved rounds (fewer where a round takes long); in brackets the median over rounds "
        "of the peer's time over PolyAI's, above 1 where PolyAI is faster. GB/s counts compulsory traffic."
    )
    if settings.load is not None:
        lines.append(f"Load average when the run began: {settings.load:.2f}.")
    lines += ["", "Versions: " + ", ".join(f"{k} {v}" for k, v in versions.items()) + ".", ""]
    return "\n".join(lines)


def write(
    out: Path,
    sections: Sequence[str],
    results: Sequence[Result],
    summary_entries: Sequence[Mapping[str, Any]],
    machine: Machine | None,
    versions: Mapping[str, str],
    settings: Settings,
) -> list[Path]:
    """Write results.json, results.md and, where matplotlib is installed, roofline.png. Returns the paths."""
    out.mkdir(parents=True, exist_ok=True)
    document = {
        "settings": asdict(settings) | {"data": None},
        "versions": dict(versions),
        "machine": machine.to_json() if machine else None,
        "load at start": settings.load,
        "summary": list(summary_entries),
        "results": [to_json(r) for r in results],
    }
    (out / "results.json").write_text(json.dumps(document, indent=1, default=float) + "\n")
    (out / "results.md").write_text(preface(machine, versions, settings) + "\n" + "\n".join([summary(summary_entries), *sections]))
    paths = [out / "results.json", out / "results.md"]
    if machine is not None and roofline(out / "roofline.png", machine, results):
        paths.append(out / "roofline.png")
    return paths


def roofline(path: Path, machine: Machine, results: Sequence[Result]) -> bool:
    """PolyAI's kernels under the roofs of memory and arithmetic, for the highest thread count. False without matplotlib."""
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    timed = [r for r in results if SUBJECT in r.timings and r.timings[SUBJECT].times and r.flops and r.bytes]
    if not timed:
        return False
    count = max(r.threads for r in timed)
    timed = [r for r in timed if r.threads == count]
    key = str(count) if str(count) in machine.peak_f32 else max(machine.peak_f32)
    peak, memory, cache = machine.peak_f32[key], machine.bandwidth["read"][key]["256 MiB"], machine.bandwidth["read"][key]["8 MiB"]
    figure, axes = plt.subplots(figsize=(8, 5))
    xs = sorted([*(2.0**k for k in range(-5, 10)), peak / memory, peak / cache])
    for bandwidth, label, style in ((memory, "memory", "-"), (cache, "last-level cache", "--")):
        axes.loglog(xs, [min(peak, x * bandwidth) / 1e9 for x in xs], style, color="0.3", label=f"{label} {bandwidth / 1e9:.0f} GB/s")
    for suite in sorted({r.suite for r in timed}):
        mine = [r for r in timed if r.suite == suite]
        axes.loglog(
            [r.flops / r.bytes for r in mine],
            [r.flops / statistics.median(r.timings[SUBJECT].times) / 1e9 for r in mine],
            "o",
            markersize=4,
            label=suite,
        )
    axes.set_xlabel("flop per byte of compulsory traffic")
    axes.set_ylabel("GFLOP/s")
    axes.set_title(f"PolyAI on {machine.cpu}, {count} thread(s); peak {peak / 1e9:.0f} GFLOP/s f32")
    axes.grid(True, which="both", alpha=0.2)
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return True
