"""Matrices, graphs, tensors and tables from the files that people keep them in."""

from __future__ import annotations

import gzip
import inspect
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union, final

import numpy as np
import scipy.io
import scipy.sparse as sp
from numpy.typing import NDArray

from polyai.errors import OptionError, PolyAIError, SparseStructureError, UnsupportedError
from polyai.sparse.interop import validate_fully

Array = NDArray[Any]
PathLike = Union[str, "os.PathLike[str]"]


@final
@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """A graph to learn on: `adjacency` (n, n) CSR; per node `features` (dense, CSR or None) and `labels` (None if there are
    none); `splits` maps "train", "val", "test" to node numbers. In a batch of graphs, graph g has the nodes
    `node_ptr[g] <= node < node_ptr[g + 1]` and `labels` belong to graphs."""

    adjacency: Any
    features: Any = None
    labels: Array | None = None
    splits: Mapping[str, Array] | None = None
    node_ptr: Array | None = None


def read(path: PathLike) -> Any:
    """What a file holds. A file that is broken raises SparseStructureError that names it and says what is wrong.

        .mtx, .mtx.gz     Matrix Market: `coordinate` gives CSR, `array` gives a NumPy array; symmetry is expanded, entries
                          given twice are added, stored zeros are kept, a pattern has ones
        .smtx, .smtx.gz   DLMC pattern: CSR of ones, float32
        .npz              scipy.sparse.save_npz: CSR; adj_*, attr_*, labels: a Graph; edge_index, node_ptr: a batch as a Graph
        .tns, .tns.gz     FROSTT: an N-dimensional coo_array; the greatest index gives each extent
        .tsv, .tsv.gz     a table with a row of names, `#` before remarks: a dictionary of NumPy arrays
    """
    file = Path(path)
    reader = _reader(file)
    if reader is None:
        raise UnsupportedError(f"{file.name}: unknown kind of file", "", f"known are {', '.join(READERS)}, each also with .gz")
    if not file.is_file():
        raise FileNotFoundError(f"no such file: {file}")
    try:
        return reader(file)
    except PolyAIError as error:
        raise type(error)(f"{file.name}: {error.what}", error.why, error.remedy) from None
    except MemoryError:
        raise SparseStructureError(f"{file.name} announces more than fits into memory", "", "check the sizes in its header") from None
    except (ValueError, IndexError, KeyError, OverflowError, EOFError, TypeError, OSError, zipfile.BadZipFile, zlib.error) as error:
        raise SparseStructureError(f"{file.name} is broken", str(error), f"check that it is a complete {_suffix(file)} file") from error


def _suffix(file: Path) -> str:
    return "".join(file.suffixes[-2:]) if file.suffix in (".gz", ".bz2") else file.suffix


def _reader(file: Path) -> Callable[[Path], Any] | None:
    name = file.name.removesuffix(".gz")
    return READERS.get(Path(name).suffix)


def _text(file: Path) -> str:
    with gzip.open(file, "rt", encoding="utf-8") if file.suffix == ".gz" else open(file, encoding="utf-8") as stream:
        return stream.read()


def _checked(matrix: Any) -> Any:
    """Canonical CSR with valid indices."""
    validate_fully(matrix)
    out = sp.csr_array(matrix)
    out.sum_duplicates()
    return out


def market(file: Path) -> Any:
    """What a Matrix Market file holds: a sparse array or a dense one, as it is written."""
    arrays = {"spmatrix": False} if "spmatrix" in inspect.signature(scipy.io.mmread).parameters else {}  # older versions give matrices
    return scipy.io.mmread(file, **arrays)


def _matrix_market(file: Path) -> Any:
    matrix = market(file)
    if not sp.issparse(matrix):
        return matrix
    rows, columns, _, _, _, symmetry = scipy.io.mminfo(file)
    if symmetry != "general" and rows != columns:
        raise SparseStructureError(f"a {symmetry} matrix of {rows} x {columns}", "symmetric matrices are square", "correct its second line")
    return _checked(matrix)


def _numbers(words: list[str], dtype: type[Any]) -> Array:
    return np.array(words, dtype=dtype) if words else np.zeros(0, dtype)


def _smtx(file: Path) -> Any:
    lines = _text(file).splitlines()
    header = lines[0].replace(",", " ").split() if lines else []
    if len(header) != 3:
        raise SparseStructureError("its first line is not 'rows, columns, nnz'", lines[0][:60] if lines else "it is empty", "")
    rows, columns, nnz = map(int, header)
    pointers, indices = (_numbers(lines[k].split() if k < len(lines) else [], np.int64) for k in (1, 2))
    if len(pointers) != rows + 1 or len(indices) != nnz:
        why = f"{rows} rows need {rows + 1} row pointers, {nnz} entries as many indices"
        raise SparseStructureError(f"{len(pointers)} row pointers and {len(indices)} column indices", why, "complete the file")
    return _csr(np.ones(nnz, np.float32), indices, pointers, (rows, columns))


def _csr(data: Array, indices: Array, indptr: Array, shape: tuple[int, ...]) -> Any:
    matrix = sp.csr_array((len(indptr) - 1, shape[1]), dtype=data.dtype)
    small = max(len(indices), *shape) < 2**31
    matrix.data = data
    matrix.indices, matrix.indptr = (a.astype(np.int32 if small else np.int64) for a in (indices, indptr))
    if matrix.shape != tuple(shape):
        raise SparseStructureError(f"{len(indptr)} row pointers", f"{shape[0]} rows need {shape[0] + 1}", "")
    return _checked(matrix)


def _npz(file: Path) -> Any:
    with np.load(file, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    if "edge_index" in arrays:
        return _batch(arrays)
    if "adj_indptr" in arrays:
        return _graph(arrays)
    if "format" in arrays:
        return _checked(sp.load_npz(file).tocsr())
    if {"data", "indices", "indptr", "shape"} <= set(arrays):
        return _part(arrays, "")
    raise SparseStructureError("no matrix in it", f"it holds {', '.join(sorted(arrays))}", "save it with scipy.sparse.save_npz")


def _part(arrays: Mapping[str, Array], prefix: str) -> Any:
    indices = arrays[f"{prefix}indices"]
    data = arrays.get(f"{prefix}data", np.ones(len(indices), np.float32))
    return _csr(data, indices, arrays[f"{prefix}indptr"], tuple(int(s) for s in arrays[f"{prefix}shape"]))


def _graph(arrays: Mapping[str, Array]) -> Graph:
    features = _part(arrays, "attr_") if "attr_indptr" in arrays else arrays.get("features")
    splits = {name: arrays[f"{name}_idx"] for name in ("train", "val", "test") if f"{name}_idx" in arrays}
    return Graph(_part(arrays, "adj_"), features, arrays.get("labels"), splits or None)


def _batch(arrays: Mapping[str, Array]) -> Graph:
    """Many small graphs as one block-diagonal adjacency; `edge_index` counts nodes within each graph."""
    edges, edge_ptr, node_ptr = arrays["edge_index"], arrays["edge_ptr"], arrays["node_ptr"]
    if edges.ndim != 2 or edges.shape[0] != 2 or len(edge_ptr) != len(node_ptr) or int(edge_ptr[-1]) != edges.shape[1]:
        why = f"edge_index {edges.shape}, edge_ptr {edge_ptr.shape}, node_ptr {node_ptr.shape}"
        raise SparseStructureError("the arrays of the batch do not fit together", why, "edge_ptr and node_ptr have one entry per graph and one more")
    row, column = edges.astype(np.int64) + np.repeat(node_ptr[:-1].astype(np.int64), np.diff(edge_ptr))
    nodes = int(node_ptr[-1])
    adjacency = sp.coo_array((np.ones(len(row), np.float32), (row, column)), shape=(nodes, nodes))
    return Graph(_checked(adjacency), labels=arrays.get("labels"), node_ptr=node_ptr)


def _tns(file: Path) -> Any:
    lines = [line for line in _text(file).splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if not lines:
        raise SparseStructureError("it holds no entry", "", "a line has 1-based indices and a value")
    width = len(lines[0].split())
    words = " ".join(lines).split()
    if width < 2 or len(words) != width * len(lines):
        raise SparseStructureError("lines of different length", f"the first has {width} numbers", "each line has one index per dimension and a value")
    table = np.array(words).reshape(len(lines), width)
    indices = table[:, :-1].astype(np.int64).T
    if (indices < 1).any():
        entry = int(np.argmax((indices < 1).any(axis=0)))
        raise SparseStructureError(f"entry {entry + 1} has the index {indices[:, entry].min()}", "indices count from 1", "")
    shape = tuple(int(m) for m in indices.max(axis=1))
    return sp.coo_array((table[:, -1].astype(np.float64), tuple(indices - 1)), shape=shape)


def _table(file: Path) -> dict[str, Array]:
    lines = [line for line in _text(file).splitlines() if line.strip() and not line.startswith("#")]
    if not lines:
        raise SparseStructureError("it holds no row of names", "", "the first line without # names the columns")
    names, rows = lines[0].split("\t"), [line.split("\t") for line in lines[1:]]
    uneven = next((n for n, row in enumerate(rows, 1) if len(row) != len(names)), None)
    if uneven is not None:
        raise SparseStructureError(f"row {uneven} has {len(rows[uneven - 1])} fields", f"there are {len(names)} columns", "")
    return {name: _column([row[at] for row in rows]) for at, name in enumerate(names)}


def _column(words: list[str]) -> Array:
    for kind in (np.int64, np.float64):
        try:
            return _numbers(words, kind)
        except ValueError:
            continue
    return np.array(words)


READERS: dict[str, Callable[[Path], Any]] = {".mtx": _matrix_market, ".smtx": _smtx, ".npz": _npz, ".tns": _tns, ".tsv": _table}
"""suffix -> reader."""


def folder(path: PathLike | None = None) -> Path:
    """`path`, or the folder that POLYAI_DATASETS names. Raises OptionError if there is neither, or it is no folder."""
    chosen = os.environ.get("POLYAI_DATASETS", "") if path is None else path
    if not chosen:
        raise OptionError("no folder with data sets", "none was given and POLYAI_DATASETS is not set", "set it, or pass a folder")
    if not Path(chosen).is_dir():
        raise OptionError(f"{chosen} is no folder", "" if path is not None else "POLYAI_DATASETS names it", "pass a folder with .mtx, .npz or .smtx files")
    return Path(chosen)


def walk(path: PathLike | None = None, kinds: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """(name, CSR) of every matrix below a folder, in order of names such as `fem/bcsstk17`; graphs give their adjacency.

    `kinds` keeps the named subfolders only. Files that hold no sparse matrix (tables, tensors, dense arrays) are passed over;
    a broken file raises SparseStructureError, as in `read`.
    """
    root = folder(path)
    for file in sorted(p for p in root.rglob("*") if p.is_file() and _reader(p) is not None):
        kind = file.parent.name if file.parent != root else ""
        if kinds and kind not in kinds:
            continue
        matrix = as_matrix(read(file))
        if matrix is not None:
            stem = file.name.removesuffix(".gz").rpartition(".")[0]
            yield f"{kind}/{stem}" if kind else stem, matrix


def as_matrix(value: Any) -> Any | None:
    """The sparse matrix that `read` found: itself, or a graph's adjacency; None for anything else."""
    match value:
        case Graph():
            return value.adjacency
        case _ if sp.issparse(value) and value.ndim == 2:
            return value
        case _:
            return None
