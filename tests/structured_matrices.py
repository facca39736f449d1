"""Matrices of many structures, which prepared matrices are laid out for: by name in `MATRICES`."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from polyai.datasets import rmat, stencil


def scattered(n: int, m: int, density: float, dtype: Any, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    return sp.csr_array(sp.random_array((n, m), density=density, rng=rng, data_sampler=rng.standard_normal), dtype=dtype)


def ragged(dtype: Any) -> Any:
    """Rows of every length from 0 to 40, some empty ones together, one full."""
    rng = np.random.default_rng(7)
    lengths = np.concatenate([rng.integers(0, 41, 300), np.zeros(20, int), [90]])
    row = np.repeat(np.arange(len(lengths)), lengths)
    column = np.concatenate([rng.permutation(90)[:k] for k in lengths])
    return sp.csr_array((rng.standard_normal(len(row)).astype(dtype), (row, column)), shape=(len(lengths), 90))


def banded(dtype: Any) -> Any:
    """A stencil with a few entries beside its diagonals."""
    matrix = stencil(7, (9, 8, 7), dtype=dtype).tolil()
    matrix[3, 400] = 2.5
    matrix[501, 7] = -1.25
    return sp.csr_array(matrix)


def blocks(dtype: Any) -> Any:
    """Two diagonals and a scattered block beside each other: full diagonals of slices, and entries on none."""
    rng = np.random.default_rng(5)
    rest = sp.random_array((61, 90), density=0.05, rng=rng, data_sampler=rng.standard_normal)
    return sp.csr_array(sp.block_array([[sp.eye_array(90, k=3) * 2.0, None], [rest, sp.eye_array(61)]]), dtype=dtype)


def varied(dtype: Any) -> Any:
    """Diagonals with equal entries and with different ones, of each kind one that is full and one with gaps; wider than high."""
    n, m = 150, 170
    rng = np.random.default_rng(11)
    full = np.zeros((n, m))
    for offset, equal, gaps in ((-9, False, True), (-2, True, False), (0, False, False), (1, True, True), (25, True, True), (30, False, False)):
        i = np.arange(max(0, -offset), min(n, m - offset))
        i = i[rng.random(len(i)) < 0.8] if gaps else i
        full[i, i + offset] = 1.5 if equal else rng.random(len(i)) + 1
    full[3, 160] = 4.0
    return sp.csr_array(full, dtype=dtype)


def many_diagonals(dtype: Any) -> Any:
    """Diagonals with gaps, more than 32: their bits fill 64."""
    rng = np.random.default_rng(3)
    i = np.arange(300)
    full = (abs(i[:, None] - i) <= 20) * rng.standard_normal((300, 300)) * (rng.random((300, 300)) < 0.9)
    return sp.csr_array(full, dtype=dtype)


MATRICES = {
    "varied": varied,
    "many diagonals": many_diagonals,
    "scattered": lambda d: scattered(203, 91, 0.1, d),
    "wide": lambda d: scattered(5, 70000, 0.01, d),
    "ragged": ragged,
    "stencil": lambda d: stencil(5, (23, 17), dtype=d),
    "banded": banded,
    "blocks": blocks,
    "triangle": lambda d: sp.csr_array(np.tril(np.arange(1.0, 1601.0).reshape(40, 40)), dtype=d),
    "full row": lambda d: sp.csr_array((np.arange(1.0, 151.0), ([3] * 150, range(150))), shape=(31, 150), dtype=d),
    "row": lambda d: sp.csr_array(np.arange(1.0, 34.0)[None, :], dtype=d),
    "column": lambda d: sp.csr_array(np.arange(1.0, 34.0)[:, None], dtype=d),
    "graph": lambda d: rmat(8, 2000, dtype=d),
    "one": lambda d: sp.csr_array(np.ones((1, 1), d)),
    "empty rows": lambda d: sp.csr_array((np.ones(1, d), ([9], [3])), shape=(30, 5)),
}
