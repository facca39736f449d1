"""Keeps generated parts of the documentation true: `python -m tools.docs` rewrites them, `--check` only compares.

- blocks after `<!-- stage: NAME -->` in docs/tutorial.md: what that stage of the tutorial's program prints; or its
  `first N lines`, or what stands `from` a line of one word;
- the table of error bounds in docs/numbers.md: what tests/machine/test_math.py holds;
- docs/reference/operations.md: signatures and first sentences of the public operations.
"""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from typing import Any

import polyai as pa
from tests.machine.test_math import BOUND

DOCS = Path(__file__).parent.parent / "docs"
STAGE = re.compile(r"<!-- stage: (\w+)((?: first \d+ lines| from \w+)?) -->\n```text\n.*?```\n", re.DOTALL)
VECTOR_BITS = 256
"""The tutorial's vectors, so that its text is the same on every machine."""


def tutorial_stages() -> dict[str, str]:
    """Every stage of the tutorial's program, by name."""
    namespace: dict[str, Any] = {}
    exec(first_block((DOCS / "tutorial.md").read_text()), namespace)
    with pa.options(vector_bits=VECTOR_BITS, num_threads=1):
        explanation = namespace["layer"].explain(*(namespace[n] for n in "AXb"))
    return dict(explanation.stages)


def first_block(page: str) -> str:
    """The first Python block of a page."""
    found = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    if found is None:
        raise ValueError("the page has no Python block")
    return found.group(1)


def tutorial(stages: dict[str, str]) -> str:
    """docs/tutorial.md with its stage blocks filled."""

    def filled(found: re.Match[str]) -> str:
        name, limit = found.groups()
        lines = [line.rstrip() for line in stages[name].strip("\n").splitlines()]
        if limit.startswith(" first"):
            lines = [*lines[: int(limit.split()[1])], "..."]
        elif limit:
            lines = lines[lines.index(limit.split()[1]) :]
        return f"<!-- stage: {name}{limit} -->\n```text\n" + "\n".join(lines) + "\n```\n"

    return STAGE.sub(filled, (DOCS / "tutorial.md").read_text())


def numbers() -> str:
    """docs/numbers.md with its table of error bounds."""
    by_bound: dict[tuple[float, float], list[str]] = {}
    for name, bound in BOUND.items():
        by_bound.setdefault(bound, []).append(f"`{name}`")
    rows = [f"| {', '.join(names)} | {f32:g} | {f64:g} |" for (f32, f64), names in sorted(by_bound.items())]
    table = "\n".join(["| function | f32 | f64 |", "|---|---:|---:|", *rows])
    text = (DOCS / "numbers.md").read_text()
    return re.sub(r"(<!-- ulp -->\n).*?(<!-- /ulp -->)", lambda m: f"{m.group(1)}{table}\n{m.group(2)}", text, flags=re.DOTALL)


def operations() -> str:
    """docs/reference/operations.md: one table per module of the frontend."""
    groups: dict[str, list[str]] = {}
    for name in sorted(pa.__all__, key=str.lower):
        value = getattr(pa, name)
        if not inspect.isfunction(value):
            continue
        heading = GROUPS.get(value.__module__.rpartition(".")[2])
        if heading is not None:
            groups.setdefault(heading, []).append(f"| `{name}{_signature(value)}` | {_sentence(value)} |")
    parts = [
        "# Operations",
        "",
        "Names and meanings follow the Python array-API standard where it has them, NumPy or the deep-learning libraries where it does",
        "not. All take part in traced functions; called with NumPy arrays outside one, they are compiled and run at once.",
        "This page is made from the code by `python -m tools.docs`.",
    ]
    for heading in dict.fromkeys(GROUPS.values()):
        if heading in groups:
            parts += ["", f"## {heading}", "", "| operation | meaning |", "|---|---|", *groups[heading]]
    return "\n".join(parts) + "\n"


GROUPS = {
    "elementwise": "Element by element",
    "reductions": "Reductions",
    "linalg": "Linear algebra",
    "contraction": "Linear algebra",
    "nn": "Neural networks",
    "conv": "Neural networks",
    "shaping": "Shapes",
    "joining": "Shapes",
    "indexing": "Indexing",
    "selecting": "Sizes that data decide",
    "ordering": "Sizes that data decide",
    "creation": "Making arrays",
    "random": "Random numbers",
    "sparse": "Sparse arrays",
    "filled": "Sparse arrays",
    "control": "Control flow",
    "notation": "Index notation",
    "functions": "Functions of functions",
}
"""Module of the frontend -> heading, in the order of the page."""


def _signature(function: Any) -> str:
    parts = []
    for p in inspect.signature(function).parameters.values():
        star = {"VAR_POSITIONAL": "*", "VAR_KEYWORD": "**"}.get(p.kind.name, "")
        default = "" if p.default is p.empty else f"={p.default!r}"
        if p.kind.name == "KEYWORD_ONLY" and "*" not in "".join(parts):
            parts.append("*")
        parts.append(f"{star}{p.name}{default}")
    return f"({', '.join(parts)})"


def _sentence(function: Any) -> str:
    text = " ".join((inspect.getdoc(function) or "").split("\n\n")[0].split())
    return text.replace("|", "\\|")


def pages() -> dict[Path, str]:
    """Every generated page as it should be."""
    return {DOCS / "tutorial.md": tutorial(tutorial_stages()), DOCS / "numbers.md": numbers(), DOCS / "reference" / "operations.md": operations()}


def main(argv: list[str]) -> int:
    stale = {path: text for path, text in pages().items() if not path.exists() or path.read_text() != text}
    for path, text in stale.items():
        if "--check" in argv:
            print(f"out of date: {path}")
        else:
            path.write_text(text)
            print(path)
    return int(bool(stale) and "--check" in argv)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
