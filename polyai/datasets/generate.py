"""Matrices made from a seed: the same on every machine and for every number of threads."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import DTypeLike, NDArray

from polyai.errors import OptionError, ShapeError

Indices = NDArray[np.int64]


def _from_keys(keys: Indices, shape: tuple[int, int], values: NDArray[Any]) -> Any:
    """CSR from sorted keys row * columns + column."""
    row, column = np.divmod(keys, shape[1])
    indptr = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=shape[0]))]).astype(np.int32)
    return sp.csr_array((values, column.astype(np.int32), indptr), shape=shape)


def rmat(
    scale: int,
    edges: int | None = None,
    *,
    probabilities: tuple[float, float, float] = (0.57, 0.19, 0.19),
    seed: int = 0,
    dtype: DTypeLike = np.float32,
) -> Any:
    """A random graph with a skewed distribution of degrees as CSR: 2**scale nodes, `edges` draws (16 per node), values in (0, 1].

    Each edge falls into a quarter of the matrix with `probabilities` (upper left, upper right, lower left), then into a
    quarter of that, and so on (Chakrabarti, Zhan, Faloutsos: R-MAT, SDM 2004; the defaults are Graph500's). Edges drawn
    twice are stored once, so the result holds somewhat fewer. Nodes are renumbered at random.
    """
    a, b, c = probabilities
    if not 0 <= scale <= 28 or min(a, b, c) < 0 or a + b + c > 1:
        raise OptionError(f"rmat(scale={scale}, probabilities={probabilities})", "", "scale is 0 to 28, probabilities add up to at most 1")
    rng = np.random.default_rng(seed)
    nodes, count = 1 << scale, 16 << scale if edges is None else edges
    row, column = np.zeros(count, np.int64), np.zeros(count, np.int64)
    for _ in range(scale):
        draw = rng.random(count, dtype=np.float32)
        down = draw >= a + b
        right = ((draw >= a) & ~down) | (draw >= a + b + c)
        row, column = 2 * row + down, 2 * column + right
    renumbered = rng.permutation(nodes)
    keys = np.unique(renumbered[row] * nodes + renumbered[column])
    return _from_keys(keys, (nodes, nodes), (1 - rng.random(len(keys))).astype(dtype))


def bigbird(
    rows: int, *, block: int = 16, window: int = 3, global_blocks: int = 2, random_blocks: int = 3, seed: int = 0, dtype: DTypeLike = np.float32
) -> Any:
    """The attention mask of BigBird (Zaheer et al., NeurIPS 2020) as CSR of ones, `rows` x `rows`.

    In blocks of `block` tokens: a window of `window` blocks around the diagonal, the first `global_blocks` as rows and as
    columns, and `random_blocks` per block row.
    """
    if rows < 0 or block < 1 or window < 1 or global_blocks < 0 or random_blocks < 0:
        raise OptionError(f"bigbird(rows={rows}, block={block})", "", "sizes are at least 0, block and window at least 1")
    rng = np.random.default_rng(seed)
    blocks = -(-rows // block)
    here = np.arange(blocks)
    first = np.arange(min(global_blocks, blocks))
    near = here[:, None] + np.arange(-(window // 2), window - window // 2)
    far = rng.integers(0, max(1, blocks), (blocks, random_blocks))
    pairs = [(np.repeat(here, x.shape[1]), x.ravel()) for x in (near, far)]
    every, chosen = np.tile(here, len(first)), np.repeat(first, blocks)
    pairs += [(every, chosen), (chosen, every)]
    row, column = (np.concatenate(parts) for parts in zip(*pairs))
    inside = (column >= 0) & (column < blocks)
    pattern = np.unique(row[inside] * np.int64(max(1, blocks)) + column[inside])
    row, column = np.divmod(pattern, max(1, blocks))
    step = np.arange(block)
    rows_of = (row[:, None, None] * block + step[:, None]) + 0 * step
    columns_of = (column[:, None, None] * block + step) + 0 * step[:, None]
    keep = (rows_of < rows) & (columns_of < rows)
    keys = np.sort(rows_of[keep] * np.int64(max(1, rows)) + columns_of[keep])
    return _from_keys(keys, (rows, rows), np.ones(len(keys), dtype)) if rows else sp.csr_array((0, 0), dtype=dtype)


_STENCILS: dict[int, tuple[int, bool]] = {3: (1, False), 5: (2, False), 7: (3, False), 9: (2, True), 27: (3, True)}
"""points -> (dimensions, corners too)."""


def stencil(points: int, shape: Sequence[int], *, dtype: DTypeLike = np.float64) -> Any:
    """The matrix of a stencil on a grid as CSR, zero beyond the border: `points` - 1 on the diagonal, -1 for each neighbour.

    `points` is 3 (a line), 5 or 9 (a plane), 7 or 27 (space); `shape` gives the grid. 5 and 7 points are the Laplacian.
    """
    if points not in _STENCILS:
        raise OptionError(f"stencil(points={points})", "", f"points is one of {', '.join(map(str, _STENCILS))}")
    rank, corners = _STENCILS[points]
    grid = tuple(int(s) for s in shape)
    if len(grid) != rank or min(grid) < 0:
        raise ShapeError(f"stencil({points}, shape={grid})", f"a {points}-point stencil lies on a grid of {rank} dimensions", "")
    total = int(np.prod(grid))
    here = np.indices(grid).reshape(rank, -1)
    keys, values = [], []
    for offset in itertools.product((-1, 0, 1), repeat=rank):
        if not corners and sum(map(abs, offset)) > 1:
            continue
        there = here + np.array(offset)[:, None]
        inside = np.all((there >= 0) & (there < np.array(grid)[:, None]), axis=0)
        column = np.ravel_multi_index(tuple(there[:, inside]), grid) if total else np.zeros(0, np.int64)
        keys.append(np.flatnonzero(inside) * np.int64(max(1, total)) + column)
        values.append(np.full(len(column), -1 if any(offset) else points - 1, dtype))
    merged = np.concatenate(keys)
    by = np.argsort(merged)
    if not total:
        return sp.csr_array((0, 0), dtype=dtype)
    return _from_keys(merged[by], (total, total), np.concatenate(values)[by])
