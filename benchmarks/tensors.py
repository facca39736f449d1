"""Tensors to measure on: FROSTT files of a data folder, read here so that a fault of PolyAI's reader cannot hide."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from benchmarks.harness import Settings, Unavailable


@dataclass(frozen=True)
class Tensor:
    """`coo` is sorted, without duplicates, f64, with 32-bit coordinates."""

    name: str
    coo: Any


@cache
def read(path: Path) -> Any:
    """The tensor of one file."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt") as stream:
        table = np.loadtxt(stream, ndmin=2)
    coords = tuple(table[:, d].astype(np.int64) - 1 for d in range(table.shape[1] - 1))
    return sorted_coo(table[:, -1], coords, tuple(int(c.max()) + 1 for c in coords))


def sorted_coo(values: np.ndarray, coords: tuple[np.ndarray, ...], shape: tuple[int, ...]) -> Any:
    """Entries in lexicographic order, equal ones added."""
    by = np.lexsort(coords[::-1])
    sorted_ = [c[by] for c in coords]
    new = np.concatenate([[True], np.any([np.diff(c) != 0 for c in sorted_], axis=0)])
    out = sp.coo_array((np.add.reduceat(values[by], np.flatnonzero(new)), tuple(c[new].astype(np.int32) for c in sorted_)), shape=shape)
    out.coords = tuple(c.astype(np.int32) for c in out.coords)
    return out


def load(settings: Settings) -> Iterator[Tensor]:
    """The tensors of the folder, in order of their names; in quick mode the two smallest."""
    if settings.data is None:
        raise Unavailable("this suite needs --data FOLDER with .tns files")
    files = sorted(p for p in Path(settings.data).rglob("*") if p.name.endswith((".tns", ".tns.gz")))
    found = [Tensor(p.name.split(".tns")[0], read(p)) for p in files]
    yield from sorted(found, key=lambda t: int(t.coo.nnz))[:2] if settings.quick else found


def typed(T: Any, dtype: Any) -> Any:
    """`T` with values of `dtype`; coordinates are shared."""
    out = T.copy()
    out.coords, out.data = T.coords, T.data.astype(dtype)
    return out


def fibres(coords: tuple[np.ndarray, ...]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Positions and coordinates of the levels of sorted coordinates as a tree of fibres (32-bit). Level 0 has no positions."""
    count = len(coords[0])
    new = np.zeros(count, bool)
    starts = [np.zeros(1, np.int64)]
    crd, pos = [], []
    for level, c in enumerate(coords):
        new |= np.concatenate([[True], np.diff(c) != 0]) if level < len(coords) - 1 else True
        begin = np.flatnonzero(new)
        crd.append(c[begin].astype(np.int32))
        if level:
            pos.append(np.append(np.searchsorted(begin, starts[-1]), len(begin)).astype(np.int32))
        starts.append(begin)
    return pos, crd
