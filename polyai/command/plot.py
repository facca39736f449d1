"""Pictures. The only owner of matplotlib, which is optional: `pip install polyai[plot]`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polyai.errors import UnsupportedError
from polyai.measure import Measured


def roofline(path: Path, measured: Sequence[Measured], contenders: Sequence[str], bandwidth: float, peak: float) -> Path:
    """Draw each problem of each contender under the roofs of memory (`bandwidth`, bytes/s) and arithmetic (`peak`, flop/s).

    Raises UnsupportedError where matplotlib is not installed.
    """
    Figure, FigureCanvasAgg = _canvas()
    figure = Figure(figsize=(8, 5), layout="tight")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    xs = sorted([*(2.0**k for k in range(-5, 8)), peak / bandwidth])
    axes.loglog(xs, [min(peak, x * bandwidth) / 1e9 for x in xs], color="0.3", label=f"memory {bandwidth / 1e9:.0f} GB/s, f32 {peak / 1e9:.0f} GFLOP/s")
    for contender, marker in zip(contenders, "osD^v"):
        axes.loglog(
            [m.flops / m.bytes for m in measured],
            [m.flops / m.of(contender) / 1e9 for m in measured],
            marker,
            markersize=5,
            label=contender,
        )
    axes.set_xlabel("flop per byte of compulsory traffic")
    axes.set_ylabel("GFLOP/s")
    axes.grid(True, which="both", alpha=0.2)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=130)
    return path


def density(path: Path, cells: NDArray[np.float64], title: str) -> Path:
    """Draw the stored part of each cell of a matrix, on a logarithmic scale.

    Raises UnsupportedError where matplotlib is not installed.
    """
    Figure, FigureCanvasAgg = _canvas()
    figure = Figure(figsize=(7, 7), layout="tight")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    with np.errstate(divide="ignore"):
        shown = axes.imshow(np.where(cells > 0, np.log10(cells), np.nan), cmap="viridis", interpolation="nearest", aspect="equal")
    axes.set_title(title, fontsize=10)
    axes.set_xticks([])
    axes.set_yticks([])
    figure.colorbar(shown, label="log10 of the stored part", shrink=0.7)
    figure.savefig(path, dpi=130, format="png")
    return path


def _canvas() -> tuple[Any, Any]:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise UnsupportedError("pictures need matplotlib", "it is not installed", 'pip install "polyai[plot]"') from None
    return Figure, FigureCanvasAgg
