"""python -m benchmarks.correctness [--data FOLDER] [--quick] [--anew] [--json FILE]: every operation on every matrix, against SciPy.

Each result is held against SciPy in float64, element by element:

    |error| <= c (u + u64) (|A| |X|) + underflow                     products; c = min(terms, 32 + sqrt(terms) / 2),
                                                                     `terms` of a row: its stored elements + 2
    |error| <= gamma(k + 2) |A| (|U| |V|^T)                          SDDMM
    a first-order bound through exp and the division                 attention (see reference.attention)

u is the unit roundoff of the operands' type, u64 that of the reference. A bound that grew with the length of a row would hide
a missing term of a long one; with operands of random sign, errors of long sums cancel and grow as its root (Higham & Mary,
SIAM J. Sci. Comput. 41, 2019). What is infinite or NaN by SciPy must be that. Results with one and with two threads must be
equal bit by bit.

Kernels serve every size, so each is compiled once, for the first matrix. `--anew` compiles them for each matrix, so that
the schedules that are chosen for other sizes are tested too.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

import polyai as pa
from benchmarks import generated, matrices, reference
from benchmarks.harness import relative_excess
from benchmarks.matrices import Matrix
from benchmarks.reference import Bounded
from benchmarks.suites.operands import normal, rng, typed
from polyai.calls import engine
from polyai.datasets.files import as_matrix
from polyai.errors import PolyAIError, SparseStructureError

LONG = 32
"""Terms from which the bound of a product grows as the root of their number."""
SAMPLE = 300_000
"""Stored elements of the largest matrix that is tried with unusual storage."""
LARGEST = 3e30
"""Values are scaled to stay below, so that f32 does not overflow."""
QUICK = 14
"""Matrices of a quick run."""

# --- operations -------------------------------------------------------------------------------------------------------


def _product(A: Any, X: Any) -> Any:
    return A @ X


def _transposed(A: Any, X: Any) -> Any:
    return A.T @ X


def _from_left(A: Any, X: Any) -> Any:
    return X @ A


def _sddmm(A: Any, U: Any, V: Any) -> Any:
    return A * (U @ V.T)


def _attention(A: Any, Q: Any, K: Any, V: Any) -> Any:
    return pa.sparse_attention(Q, K, V, mask=A)


FUNCTIONS = {f: pa.jit(f) for f in (_product, _transposed, _from_left, _sddmm, _attention)}


@dataclass(frozen=True)
class Operation:
    """`shapes` of the dense operands for a matrix (rows, cols). `linear` in the stored values: duplicates add up."""

    name: str
    function: Callable[..., Any]
    shapes: Callable[..., tuple[tuple[int, ...], ...]]
    expected: Callable[..., Bounded]
    is_complex: bool = True
    linear: bool = True


def product(A: Any, X: np.ndarray) -> Bounded:
    """A @ X in float64 and the bound at the top of this file."""
    kind = np.complex128 if np.iscomplexobj(A.data) else np.float64
    wide, x = A.astype(kind), X.astype(kind)
    terms = np.diff(A.indptr).astype(np.float64) + (4 if kind is np.complex128 else 2)
    return wide @ x, _rounding(terms, abs(wide) @ np.abs(x), X.dtype)


def _rounding(terms: np.ndarray, size: np.ndarray, dtype: Any) -> np.ndarray:
    """The bound of sums of `terms` terms whose magnitudes add up to `size`."""
    terms = terms if size.ndim == 1 else terms[:, None]
    unit = (np.finfo(dtype).eps + np.finfo(np.float64).eps) / 2
    return np.minimum(terms, LONG + np.sqrt(terms) / 2) * unit * size + reference.underflow(terms, dtype)


def contracted(T: Any, *dense: np.ndarray) -> Bounded:
    """sum_jk... T[i,j,k,...] U[j] V[k] ... or with a common last index, U[j,r] V[k,r] ..., and its bound."""
    values = T.data.astype(np.float64)
    values = values if dense[0].ndim == 1 else values[:, None]
    size = np.abs(values)
    for coordinates, factor in zip(T.coords[1:], dense):
        gathered = factor[coordinates].astype(np.float64)
        values, size = values * gathered, size * np.abs(gathered)
    onto = sp.csr_array((np.ones(T.nnz), (T.coords[0], np.arange(T.nnz))), shape=(T.shape[0], T.nnz))
    return onto @ values, _rounding(onto.sum(axis=1) + 2 * len(dense), onto @ size, dense[0].dtype)


def transposed(A: Any, X: np.ndarray) -> Bounded:
    return product(matrices.canonical(A.T), X)


def from_left(A: Any, X: np.ndarray) -> Bounded:
    values, bound = transposed(A, np.ascontiguousarray(X.T))
    return values.T, bound.T


def _doubled(make: Callable[..., Bounded]) -> Callable[..., Bounded]:
    """The bound of `make`, and that of the reference itself."""

    def expected(A: Any, *dense: np.ndarray) -> Bounded:
        values, bound = make(A, *dense)
        return values, bound * (1 + np.finfo(np.float64).eps / np.finfo(dense[0].dtype).eps)

    return expected


OPERATIONS = (
    Operation("SpMV", _product, lambda n, m: ((m,),), product),
    *(Operation(f"SpMM {k}", _product, lambda n, m, k=k: ((m, k),), product) for k in (1, 7, 32, 128)),
    Operation("SpMV, transposed", _transposed, lambda n, m: ((n,),), transposed),
    *(Operation(f"SpMM {k}, transposed", _transposed, lambda n, m, k=k: ((n, k),), transposed) for k in (1, 7, 32)),
    *(Operation(f"X A, {k} rows", _from_left, lambda n, m, k=k: ((k, n),), from_left) for k in (7, 32)),
    Operation("SDDMM 64", _sddmm, lambda n, m: ((n, 64), (m, 64)), _doubled(reference.sddmm), is_complex=False),
    Operation("attention 32", _attention, lambda n, m: ((n, 32), (m, 32), (m, 32)), _doubled(reference.attention), False, False),
)

TENSOR_OPERATIONS = (
    Operation("tensor times vectors", pa.einsum, lambda _, *rest: tuple((n,) for n in rest), contracted),
    Operation("MTTKRP 16", pa.einsum, lambda _, *rest: tuple((n, 16) for n in rest), contracted),
)
"""On tensors of three and more dimensions; shapes follow from theirs."""

# --- how a matrix is stored -------------------------------------------------------------------------------------------


def _wide_indices(A: Any) -> Any:
    """64-bit indices, which SciPy's constructors would narrow."""
    if A.format == "coo":
        A.coords = tuple(c.astype(np.int64) for c in A.coords)
    else:
        A.indices, A.indptr = A.indices.astype(np.int64), A.indptr.astype(np.int64)
    return A


def _shuffled(A: Any) -> Any:
    """COO in random order."""
    out = A.tocoo()
    order = rng("shuffle").permutation(out.nnz)
    return sp.coo_array((out.data[order], tuple(c[order] for c in out.coords)), shape=A.shape)


def _unsorted(A: Any, axis: str) -> Any:
    """CSR or CSC whose fibres are in random order."""
    mixed = _shuffled(A)
    major = mixed.coords[0 if axis == "csr" else 1]
    order = np.argsort(major, kind="stable")
    pointers = np.zeros(A.shape[0 if axis == "csr" else 1] + 1, np.int32)
    np.cumsum(np.bincount(major, minlength=len(pointers) - 1), out=pointers[1:])
    minor = mixed.coords[1 if axis == "csr" else 0][order].astype(np.int32)
    return (sp.csr_array if axis == "csr" else sp.csc_array)((mixed.data[order], minor, pointers), shape=A.shape)


def _twice(A: Any) -> Any:
    """COO in random order with every element stored as two halves."""
    out = A.tocoo()
    both = sp.coo_array((np.tile(out.data / 2, 2), tuple(np.tile(c, 2) for c in out.coords)), shape=A.shape)
    order = rng("twice").permutation(both.nnz)
    return sp.coo_array((both.data[order], tuple(c[order] for c in both.coords)), shape=A.shape)


def _twice_in_rows(A: Any) -> Any:
    """CSR with every element stored as two halves, side by side."""
    return sp.csr_array((np.repeat(A.data / 2, 2), np.repeat(A.indices, 2), (2 * A.indptr).astype(np.int32)), shape=A.shape)


@dataclass(frozen=True)
class Storage:
    make: Callable[[Any], Any]
    threads: tuple[int, ...] = (1, 2)
    sampled: bool = False
    repeats: bool = False
    """Coordinates are stored twice: operations that are not linear must refuse the matrix."""


STORAGES: Mapping[str, Storage] = {
    "csr": Storage(lambda A: A),
    "csc": Storage(lambda A: A.tocsc()),
    "coo": Storage(lambda A: A.tocoo()),
    "csr int64": Storage(lambda A: _wide_indices(A.copy()), (2,), True),
    "csc int64": Storage(lambda A: _wide_indices(A.tocsc()), (2,), True),
    "coo int64": Storage(lambda A: _wide_indices(A.tocoo()), (2,), True),
    "csr unsorted": Storage(lambda A: _unsorted(A, "csr"), (2,), True),
    "csc unsorted": Storage(lambda A: _unsorted(A, "csc"), (2,), True),
    "coo unsorted": Storage(_shuffled, (2,), True),
    "csr twice": Storage(_twice_in_rows, (2,), True, True),
    "coo twice": Storage(_twice, (2,), True, True),
}

# --- matrices ---------------------------------------------------------------------------------------------------------


def extremes() -> Iterator[Matrix]:
    """Sizes 0 and 1, empty and full rows and columns: what no data folder has."""
    for rows, cols in ((0, 0), (0, 5), (5, 0), (3, 4), (1, 1)):
        yield Matrix(f"extremes/{rows} x {cols}, empty", matrices.canonical(sp.csr_array((rows, cols))))
    numbers = rng("extremes")
    for name, shape, density in (("full row", (1, 3000), 1.0), ("full column", (3000, 1), 1.0), ("one element", (1, 1), 1.0)):
        yield Matrix(f"extremes/{name}", matrices.canonical(sp.random_array(shape, density=density, rng=numbers)))
    both = sp.random_array((70, 90), density=0.1, rng=numbers) + 1j * sp.random_array((70, 90), density=0.1, rng=numbers)
    yield Matrix("extremes/complex", matrices.canonical(both))
    arrow = sp.eye_array(500, format="lil")
    arrow[0, :], arrow[:, 0] = 1, 1
    yield Matrix("extremes/arrow", matrices.canonical(arrow))
    yield Matrix("extremes/last row only", matrices.canonical(sp.csr_array(([1.0, 2.0], ([99, 99], [0, 299])), shape=(100, 300))))


def shipped() -> Iterator[Matrix]:
    """What comes with PolyAI, and generated matrices."""
    yield Matrix("shipped/digits", matrices.canonical(pa.datasets.digits().adjacency))
    yield Matrix("shipped/flights", matrices.canonical(pa.datasets.flights()))
    yield Matrix("shipped/rmat-10", generated.rmat(16 << 10))
    yield Matrix("shipped/bigbird-512", generated.bigbird(512))
    yield Matrix("shipped/stencil-27", matrices.canonical(pa.datasets.stencil(27, (9, 8, 7))))


def tensors(folder: Path | None) -> Iterator[tuple[str, Any]]:
    """A generated tensor and those of a folder."""
    yield "extremes/tensor", sp.random_array((40, 30, 20), density=0.02, rng=rng("tensor"))
    for path in sorted(folder.rglob("*.tns*")) if folder else []:
        yield f"{path.parent.name}/{path.name.partition('.')[0]}", pa.datasets.read(path)


class Misread(Exception):
    """PolyAI's reader and SciPy's disagree."""


def of_file(path: Path) -> Iterator[Matrix]:
    """The matrices of one file, by PolyAI's reader, compared with SciPy's; features of graphs are matrices too."""
    found = pa.datasets.read(path)
    matrix, alone = as_matrix(found), matrices.read_any(path)
    if matrix is None:
        if alone is not None:
            raise Misread(f"{path.name}: SciPy finds a matrix")
        return
    mine = matrices.canonical(matrix)
    if alone is not None:
        same = mine.shape == alone.shape and np.array_equal(mine.indptr, alone.indptr) and np.array_equal(mine.indices, alone.indices)
        if not same or (".smtx" not in path.name and not np.array_equal(mine.data, alone.data)):
            raise Misread(f"{path.name}: SciPy finds another matrix")
    name = matrices.name_of(path)
    yield Matrix(name, mine)
    if isinstance(found, pa.datasets.Graph) and sp.issparse(found.features):
        yield Matrix(f"{name} features", matrices.canonical(found.features))


def of_folder(folder: Path, quick: bool = False) -> Iterator[Matrix]:
    """All matrices below `folder`, or those of a few small files."""
    for path in small_files(folder) if quick else matrices.files(folder):
        yield from of_file(path)


def small_files(folder: Path) -> list[Path]:
    """A dozen small files, one of each subfolder first."""
    small = sorted((p for p in matrices.files(folder) if 250 < p.stat().st_size < 60_000), key=lambda p: (p.stat().st_size, p))
    firsts = {p.parent: p for p in reversed(small)}.values()
    return sorted([*firsts, *(p for p in small if p not in firsts)][:QUICK])


# --- checks -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Check:
    """One call. `error` in units of the bound; `problem` says what else is wrong. Passed: error <= 1 and no problem."""

    matrix: str
    operation: str
    dtype: str
    storage: str
    threads: int
    error: float
    problem: str = ""

    @property
    def passed(self) -> bool:
        return self.error <= 1 and not self.problem


def prepared(matrix: Matrix, dtype: Any) -> Any:
    """The matrix in `dtype`. Values that are all alike are replaced by random ones, since they would hide a mix-up."""
    A = matrix.csr.copy()
    if A.nnz and (A.data == A.data[0]).all():
        A.data = normal(matrix.name, A.nnz, dtype=A.data.dtype)
    largest = np.abs(A.data[np.isfinite(A.data)]).max(initial=0)
    if largest > LARGEST:
        A.data = A.data * (LARGEST / largest)
    return typed(A, dtype)


def _dense(name: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    if np.dtype(dtype).kind == "c":
        return (normal(name, *shape, dtype=np.float64) + 1j * normal(f"{name} i", *shape, dtype=np.float64)).astype(dtype)
    return normal(name, *shape, dtype=dtype)


def plain(result: Any) -> np.ndarray:
    """A dense result as it is; the values of a sparse one by rows."""
    if not sp.issparse(result):
        return np.asarray(result)
    out = sp.csr_array(result)
    out.sum_duplicates()
    return np.asarray(out.data)


def excess(got: np.ndarray, values: np.ndarray, bound: np.ndarray) -> float:
    """max |got - values| / bound; infinite if what is not finite differs."""
    finite = np.isfinite(values)
    if got.shape != values.shape or not np.array_equal(got[~finite], values[~finite].astype(got.dtype), equal_nan=True):
        return math.inf
    return relative_excess(got, values, bound) if finite.all() else relative_excess(got[finite], values[finite], bound[finite])


def check_matrix(
    matrix: Matrix, *, operations: Iterable[Operation] = OPERATIONS, storages: Iterable[str] = tuple(STORAGES), anew: bool = False
) -> Iterator[Check]:
    """Every operation, type, storage and thread count on one matrix."""
    is_complex = np.iscomplexobj(matrix.csr.data)
    functions = {f: pa.jit(f) for f in FUNCTIONS} if anew else FUNCTIONS
    for dtype in (np.complex64, np.complex128) if is_complex else (np.float32, np.float64):
        A = prepared(matrix, dtype)
        stored = {name: STORAGES[name].make(A) for name in storages if not STORAGES[name].sampled or A.nnz <= SAMPLE}
        for operation in operations:
            if is_complex and not operation.is_complex:
                continue
            dense = [_dense(f"{matrix.name} {n}", shape, dtype) for n, shape in enumerate(operation.shapes(*A.shape))]
            with np.errstate(invalid="ignore"):
                expected = operation.expected(A, *dense)
            for name, value in stored.items():
                for found in _calls(functions[operation.function], operation, name, value, dense, expected):
                    yield Check(matrix.name, operation.name, np.dtype(dtype).name, name, *found)


def check_tensor(name: str, tensor: Any) -> Iterator[Check]:
    """Contractions of a tensor over all its dimensions but the first."""
    first, *others = "ijklmnop"[: tensor.ndim]
    for dtype in (np.float32, np.float64):
        T = tensor.astype(dtype)
        for operation in TENSOR_OPERATIONS:
            dense = [_dense(f"{name} {n}", shape, dtype) for n, shape in enumerate(operation.shapes(*T.shape))]
            last = "r" if dense[0].ndim == 2 else ""
            text = f"{','.join([first + ''.join(others), *(o + last for o in others)])}->{first}{last}"
            for found in _calls(partial(pa.einsum, text), operation, "coo", T, dense, operation.expected(T, *dense)):
                yield Check(name, operation.name, np.dtype(dtype).name, "coo", *found)


def _calls(
    function: Any, operation: Operation, name: str, value: Any, dense: list[np.ndarray], expected: Bounded
) -> Iterator[tuple[int, float, str]]:
    """(threads, error, problem) of the calls with each number of threads."""
    storage, first = STORAGES[name], None
    values, bound = expected
    if storage.repeats:
        bound = 2 * bound
    refuse = storage.repeats and not operation.linear and value.nnz > 0
    for threads in storage.threads:
        try:
            with pa.options(num_threads=threads):
                result = function(value, *dense)
        except PolyAIError as error:
            refused = refuse and isinstance(error, SparseStructureError)
            yield threads, 0.0, "" if refused else f"{type(error).__name__}: {error.what}"
            continue
        got = plain(result)
        problem = ""
        if refuse:
            problem = "repeated coordinates were not refused"
        elif got.dtype != dense[0].dtype:
            problem = f"the result is {got.dtype}"
        elif first is not None and not np.array_equal(got, first, equal_nan=True):
            problem = "differs between thread counts"
        first = got if first is None else first
        yield threads, excess(got, values, bound), problem


def memory(rows: int = 16384) -> list[Check]:
    """Scratch memory of attention fused over a BigBird mask, in units of the mask's values: by rows, none is stored at all."""
    A = typed(generated.bigbird(rows), np.float32)
    dense = [_dense(f"memory {n}", (rows, 32), np.float32) for n in range(3)]
    out = []
    for name in ("csr", "csc", "coo"):
        value = STORAGES[name].make(A)
        for threads in (1, 2):
            arena = engine.runtime().arena
            with pa.options(num_threads=threads):
                arena.trim()
                FUNCTIONS[_attention](value, *dense)
            out.append(Check(f"bigbird-{rows}", "scratch of attention", "float32", name, threads, arena.held / A.data.nbytes))
    return out


# --- report -----------------------------------------------------------------------------------------------------------


def table(checks: list[Check], key: Callable[[Check], str]) -> str:
    """Counts and worst errors of groups of checks."""
    groups: dict[str, list[Check]] = {}
    for c in checks:
        groups.setdefault(key(c), []).append(c)
    lines = [f"{'':28}{'checks':>8}{'failed':>8}{'worst / bound':>15}  on"]
    for name, mine in groups.items():
        worst = max(mine, key=lambda c: c.error)
        failed = sum(not c.passed for c in mine)
        lines.append(f"{name:28}{len(mine):8}{failed:8}{worst.error:15.3f}  {worst.matrix}, {worst.dtype}, {worst.storage}")
    return "\n".join(lines)


def note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.correctness", description="Check PolyAI against SciPy on real matrices.")
    parser.add_argument("--data", type=Path, help="folder with matrix files; without it the shipped ones only")
    parser.add_argument("--quick", action="store_true", help="a dozen small files")
    parser.add_argument("--anew", action="store_true", help="compile for each matrix")
    parser.add_argument("--most", type=int, default=0, help="leave out matrices with more stored elements")
    parser.add_argument("--json", type=Path, help="write every check to this file")
    options = parser.parse_args(argv)
    checks: list[Check] = []
    sources = [extremes(), shipped()] + ([of_folder(options.data, options.quick)] if options.data else [])
    kept = (m for source in sources for m in source if not options.most or m.csr.nnz <= options.most)
    tasks = itertools.chain(
        ((m.name, check_matrix(m, anew=options.anew)) for m in kept),
        ((name, check_tensor(name, tensor)) for name, tensor in tensors(None if options.quick else options.data)),
    )
    for name, task in tasks:
        begin = time.perf_counter()
        mine = list(task)
        checks += mine
        worst = max((c.error for c in mine), default=math.nan)
        note(f"{name}: {len(mine)} checks, worst {worst:.3f}, {time.perf_counter() - begin:.1f} s")
        for c in mine:
            if not c.passed:
                note(f"  FAILED {c.operation}, {c.dtype}, {c.storage}, {c.threads} threads: {c.error:.3g} {c.problem}")
    scratch = memory(4096 if options.quick else 16384)
    failed = [c for c in checks if not c.passed]
    print(table(checks, lambda c: f"{c.operation}"), "\n")
    print(table(checks, lambda c: f"{c.dtype}, {c.storage}"), "\n")
    print("scratch memory of attention / bytes of the mask's values: " + ", ".join(f"{c.storage} [{c.threads}] {c.error:.3f}" for c in scratch))
    print(f"\n{len(checks)} checks on {len({c.matrix for c in checks})} matrices and tensors, {len(failed)} failed")
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({"checks": [asdict(c) for c in checks], "scratch": [asdict(c) for c in scratch]}))
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
