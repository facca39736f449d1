"""Matrices to measure on: files of a data folder, read by SciPy alone so that a fault of PolyAI's readers cannot hide."""

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
from polyai.datasets.files import market

SUFFIXES = (".mtx", ".mtx.gz", ".npz", ".smtx", ".smtx.gz")
GRAPH_FOLDERS = ("gnn", "web_social", "road", "fem_graph", "graph_small")
REAL = 50_000


@dataclass(frozen=True)
class Matrix:
    """`name` is folder/stem; `csr` is canonical (sorted, no duplicates), f64, with 32-bit indices."""

    name: str
    csr: Any


def files(folder: Path) -> list[Path]:
    """Matrix files below `folder`, sorted."""
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.name.endswith(SUFFIXES))


@cache
def read(path: Path) -> Any | None:
    """The matrix of one file as real CSR, or None if it does not hold one (a batch of graphs, complex values)."""
    matrix = read_any(path)
    return None if matrix is None or np.iscomplexobj(matrix) else matrix


def read_any(path: Path) -> Any | None:
    """The matrix of one file as CSR, f64 or c128; None if it holds none (a batch of graphs, a dense array). Not kept."""
    if ".smtx" in path.name:
        return _read_smtx(path)
    if path.suffix == ".npz":
        return _read_npz(path)
    matrix = market(path)
    return canonical(sp.csr_array(matrix)) if sp.issparse(matrix) else None


def name_of(path: Path) -> str:
    """folder/stem."""
    return f"{path.parent.name}/{path.name.split('.npz')[0].split('.mtx')[0].split('.smtx')[0]}"


def canonical(matrix: Any) -> Any:
    """CSR, f64 or c128, with sorted rows, without duplicates, with 32-bit indices."""
    out = sp.csr_array(matrix, dtype=np.complex128 if np.iscomplexobj(matrix) else np.float64)
    out.sum_duplicates()
    out.sort_indices()
    out.indices, out.indptr = out.indices.astype(np.int32), out.indptr.astype(np.int32)
    return out


def _read_npz(path: Path) -> Any | None:
    with np.load(path, allow_pickle=False) as data:
        prefix = "adj_" if "adj_indptr" in data else ""
        if f"{prefix}indptr" not in data or f"{prefix}shape" not in data:
            return None
        indptr, indices, shape = data[f"{prefix}indptr"], data[f"{prefix}indices"], tuple(data[f"{prefix}shape"])
        values = data[f"{prefix}data"] if f"{prefix}data" in data else np.ones(len(indices))
    return canonical(sp.csr_array((values, indices, indptr), shape=shape))


def _read_smtx(path: Path) -> Any:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt") as stream:
        rows, cols, nnz = (int(t) for t in stream.readline().replace(",", " ").split())
        indptr = np.array(stream.readline().split(), np.int32)
        indices = np.array(stream.readline().split(), np.int32)
    values = np.random.default_rng(nnz).standard_normal(nnz)
    return canonical(sp.csr_array((values, indices, indptr), shape=(rows, cols)))


def load(settings: Settings, least: int = REAL, graphs: bool = False, most: int = 0, folders: tuple[str, ...] = ()) -> Iterator[Matrix]:
    """Matrices with at least `least` stored elements. `graphs`: square ones of the graph folders only. `folders`: those of these
    folders only. `most` > 0: that many, spread over the list by size. In quick mode four."""
    if settings.data is None:
        raise Unavailable("this suite needs --data FOLDER with matrix files")
    folder = Path(settings.data)
    if not folder.is_dir():
        raise Unavailable(f"--data {folder} is not a folder")
    wanted = GRAPH_FOLDERS if graphs else folders
    chosen = [p for p in files(folder) if not wanted or p.parent.name in wanted]
    found = []
    for path in chosen:
        matrix = read(path)
        if matrix is None or matrix.nnz < least or (graphs and matrix.shape[0] != matrix.shape[1]):
            continue
        found.append(Matrix(name_of(path), matrix))
    limit = 4 if settings.quick else most
    if limit and len(found) > limit:
        by_size = sorted(found, key=lambda m: m.csr.nnz)
        picks = np.linspace(0, len(by_size) - 1, limit).round().astype(int)
        found = [by_size[k] for k in picks]
    yield from found


def largest(settings: Settings, count: int) -> list[Matrix]:
    """The `count` matrices with the most stored elements."""
    everything = sorted(load(Settings(data=settings.data)), key=lambda m: -m.csr.nnz)
    return everything[: min(count, 3) if settings.quick else count]
