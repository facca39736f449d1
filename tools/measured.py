"""Puts measured figures into README.md: `python -m tools.measured build/benchmarks/results.json [--check]`.

Between `<!-- measured -->` and `<!-- /measured -->` stands one row per target of the benchmarks; nothing is typed by hand.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

README = Path(__file__).parent.parent / "README.md"
PART = re.compile(r"(<!-- measured -->\n).*?(<!-- /measured -->)", re.DOTALL)


def table(results: dict[str, Any]) -> str:
    """The Markdown between the marks."""
    pairs: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}
    limits = []
    for entry in results["summary"]:
        if "seconds" in entry:
            what = entry["against"]
            limits.append(f"| {entry['suite']} | {f'slowest {what[:-2]}' if what.endswith(': ') else what} | {entry['figure']} | {entry['target']} |")
        elif entry["figure"] != "-":
            pairs.setdefault((entry["suite"], entry["against"]), {})[entry["threads"]] = entry
    counts = sorted({n for rows in pairs.values() for n in rows})
    head = ["| program | against |" + "".join(f" {n} thread{'s' if n > 1 else ''} |" for n in counts), "|---|---|" + "---:|" * len(counts)]
    rows = []
    for (suite, against), by in pairs.items():
        cells = [f" {by[n]['figure']} (worst {by[n]['worst ratio']:.2f}x, {by[n]['cases']} cases) |" if n in by else " |" for n in counts]
        rows.append(f"| {suite} | {against} |" + "".join(cells))
    machine = results["machine"] or {}
    parts = [
        f"Time of the other library over PolyAI's, geometric mean over cases, above 1 where PolyAI is faster. {machine.get('cpu', '')}, "
        f"{machine.get('cores', '?')} cores; medians of interleaved rounds, every result checked against float64 first. "
        "All cases and versions: `python -m benchmarks`, see [benchmarks](benchmarks/README.md).",
        "",
        *head,
        *rows,
    ]
    if limits:
        parts += ["", "| | | measured | aim |", "|---|---|---:|---:|", *limits]
    return "\n".join(parts) + "\n"


def main(argv: list[str]) -> int:
    files = [a for a in argv if not a.startswith("-")]
    if len(files) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    text = README.read_text()
    filled = PART.sub(lambda m: m.group(1) + table(json.loads(Path(files[0]).read_text())) + m.group(2), text)
    if "--check" in argv:
        return int(filled != text)
    README.write_text(filled)
    print(README)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
