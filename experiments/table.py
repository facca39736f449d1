"""What experiments leave behind: their rows as CSV and as text."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def write(rows: Sequence[Mapping[str, Any]], folder: Path, name: str) -> Path:
    """`rows`, which have the same columns, as `folder/name.csv`; the path without its suffix, for the picture beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    with path.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def line(row: Mapping[str, Any]) -> str:
    """One row to read."""
    return "  ".join(f"{name} {value}" for name, value in row.items())
