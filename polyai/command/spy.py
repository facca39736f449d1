"""A matrix to look at: where its entries are, what it is like, which layout suits it. As text, PNG and one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import polyai as pa
from polyai import datasets
from polyai.command import plot
from polyai.datasets.files import as_matrix
from polyai.errors import ShapeError
from polyai.explanation import escaped
from polyai.sparse.inspector import Rows
from polyai.sparse.prepared import Prepared
from polyai.sparse.stats import Stats, rows_of, show_stats, stats_of
from polyai.term.node import node

SHADES = " ░▒▓█"
WIDE, HIGH = 64, 32
"""Cells of the picture in a terminal; a picture in a file has four times as many each way."""


@node
class Spied:
    """What there is to see of one matrix. `prepared` is None for element types without a layout."""

    name: str
    stats: Stats
    rows: Rows
    prepared: Prepared | None

    def text(self) -> str:
        """Picture, facts and candidates."""
        return "\n".join([f"{self.name}: {self.stats.rows} x {self.stats.columns}", *picture(self.rows), "", show_stats(self.stats), "", self.advice()])

    def advice(self) -> str:
        """The recommended layout, and the time of each."""
        if self.prepared is None:
            return "no layout is recommended: products are prepared for real matrices"
        return f"recommended for A @ x: {self.prepared.choice.best.name}\n{self.prepared.choice}"

    def html(self) -> str:
        """One self-contained page: no script, no outside file."""
        cells = density(self.rows, 2 * WIDE, 2 * WIDE)
        parts = [
            "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>",
            f"<title>{escaped(self.name)}</title><style>{_STYLE}</style></head><body><main>",
            f"<h1>{escaped(self.name)}</h1>",
            _svg(cells),
            f"<h2>Facts</h2><pre>{escaped(show_stats(self.stats))}</pre>",
            f"<h2>Layouts</h2><pre>{escaped(self.advice())}</pre>",
            "</main></body></html>\n",
        ]
        return "\n".join(parts)


def spy(path: str | Path, *, threads: int | None = None, measure: bool = True) -> Spied:
    """Read a file of `datasets.read` and look at its matrix (of a graph: the adjacency).

    Raises what `datasets.read` raises, and ShapeError for a file that holds no matrix.
    """
    found = as_matrix(datasets.read(path))
    if found is None or found.ndim != 2:
        raise ShapeError(f"{Path(path).name} holds no matrix", "tables and tensors have no rows and columns to draw", "give a file with a matrix or a graph")
    rows = rows_of(found)
    facts = stats_of(rows)
    prepared = None
    if not np.iscomplexobj(found.data):
        real = found if found.dtype in (np.float32, np.float64) else found.astype(np.float64)
        prepared = pa.prepare(real, threads=threads, measure=measure)
    return Spied(Path(path).name, facts, rows, prepared)


def density(rows: Rows, wide: int, high: int) -> NDArray[np.float64]:
    """The stored part of each cell when the matrix is cut into at most `high` x `wide` of them."""
    high, wide = max(1, min(high, rows.rows)), max(1, min(wide, rows.columns))
    if not rows.nnz:
        return np.zeros((high, wide))
    row = np.repeat(np.arange(rows.rows) * high // rows.rows, rows.lengths)
    counts = np.bincount(row * wide + rows.crd.astype(np.int64) * wide // rows.columns, minlength=high * wide).reshape(high, wide)
    tall = np.bincount(np.arange(rows.rows) * high // rows.rows, minlength=high)
    broad = np.bincount(np.arange(rows.columns) * wide // rows.columns, minlength=wide)
    out: NDArray[np.float64] = counts / np.outer(tall, broad)
    return out


def picture(rows: Rows, wide: int = WIDE, high: int = HIGH) -> list[str]:
    """Lines of blocks, darker where more is stored; the shades are steps of the logarithm."""
    levels = shades(density(rows, wide, high), len(SHADES) - 1)
    width = levels.shape[1]
    return [f"┌{'─' * width}┐", *(f"│{''.join(SHADES[k] for k in line)}│" for line in levels), f"└{'─' * width}┘"]


def shades(cells: NDArray[np.float64], steps: int) -> NDArray[np.int64]:
    """0 for an empty cell, else 1 to `steps` by the logarithm of its density between the least and the greatest."""
    out = np.zeros(cells.shape, np.int64)
    full = cells > 0
    if full.any():
        logs = np.log(cells[full])
        span = logs.max() - logs.min()
        out[full] = steps if span == 0 else 1 + np.minimum((logs - logs.min()) / span * steps, steps - 1).astype(np.int64)
    return out


def _svg(cells: NDArray[np.float64]) -> str:
    levels = shades(cells, 8)
    high, wide = cells.shape
    size = max(1, 512 // max(high, wide))
    marks = [f"<rect x='{c * size}' y='{r * size}' width='{size}' height='{size}' opacity='{levels[r, c] / 8:.3g}'/>" for r, c in np.argwhere(levels)]
    frame = f"<rect width='{wide * size}' height='{high * size}' fill='none' stroke='currentColor'/>"
    return f"<svg role='img' aria-label='density of the entries' width='{wide * size}' height='{high * size}' fill='#3b7dd8'>{''.join(marks)}{frame}</svg>"


_STYLE = (
    "main{font:15px/1.5 system-ui,sans-serif;max-width:1000px;margin:2rem auto;padding:0 1rem;color:#1c2430}"
    "pre{background:#f6f8fa;padding:.8rem;overflow:auto;font-size:12.5px;line-height:1.45}h2{font-size:1.1rem}"
    "@media(prefers-color-scheme:dark){main{color:#dbe2ec}pre{background:#171c24}body{background:#0e1217}}"
)


def save(spied: Spied, png: Path | None, html: Path | None) -> list[Path]:
    """Write the files that are asked for. Raises UnsupportedError for a PNG where matplotlib is missing."""
    out = []
    if png is not None:
        out.append(plot.density(png, density(spied.rows, 4 * WIDE, 4 * WIDE), f"{spied.name}: {spied.stats.rows} x {spied.stats.columns}, {spied.stats.nnz} stored"))
    if html is not None:
        html.write_text(spied.html(), encoding="utf-8")
        out.append(html)
    return out


__all__: list[Any] = ["Spied", "density", "picture", "save", "spy"]
