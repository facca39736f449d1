"""`prepare`: look at a matrix once, lay it out for what will be done with it many times, and say what that cost."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from polyai.api.function import Function
from polyai.errors import DTypeError, OptionError, ShapeError
from polyai.machine.cpu import cores
from polyai.options import current, options
from polyai.scalar.dtype import from_numpy
from polyai.sparse.interop import is_sparse
from polyai.sparse.owned import Owned, nearer, owned_csr
from polyai.sparse.prepared import Candidate, Choice, Prepared
from polyai.term.late import late

if TYPE_CHECKING:
    from polyai.sparse import choose, inspector, stats
    from polyai.sparse.inspector import Rows
    from polyai.sparse.layouts import Layout
else:
    choose, inspector, stats = late("polyai.sparse.choose"), late("polyai.sparse.inspector"), late("polyai.sparse.stats")

KERNELS = ("spmv", "spmm")
LAYOUTS = ("rows", "near rows", "narrow rows", "slices", "sorted slices", "sliced diagonals", "diagonals")
ROUNDS, PRODUCTS, SHORTEST, LONGEST = 5, 40, 5e-4, 8e-3
"""Each candidate is timed in so many rounds, for about as long as so many products take, within these seconds in all: a matrix of few
entries gains little by a better choice."""


def _product(A: Any, x: Any) -> Any:
    return A @ x


_TIMED = Function(_product, name="product")
"""What is timed: one function for all matrices, so that its kernels are looked up once for each layout."""


def prepare(
    A: Any,
    for_: str | Callable[..., Any] = "spmv",
    *,
    threads: int | None = None,
    layout: str | None = None,
    measure: bool = True,
) -> Prepared:
    """A copy of the sparse matrix `A` (n x m, f32 or f64) for many products, accepted by compiled functions in place of `A`.

    Args:
        A: A two-dimensional scipy.sparse value. Repeated entries are added, as SciPy means them.
        for_: "spmv" (A @ x), "spmm" (A @ X, about 32 columns), or the function that will be called, which counts as "spmv": other products
            and operations always go through the rows.
        threads: For how many threads to choose; those of the options in force by default.
        layout: "rows", "near rows", "narrow rows", "slices", "sorted slices", "sliced diagonals" or "diagonals" instead of the model's choice.
        measure: Time the candidates that the model does not rule out, on this machine and now. Without, predictions decide.

    The result's `choice` holds every candidate with its predicted and measured time, what preparing cost, how much of it for kernels
    that serve all such matrices, and after how many products it has paid for itself. Results are the same up to the order of summation. Raises ShapeError for what is no
    sparse matrix, DTypeError for other element types, SparseStructureError for broken index arrays, OptionError for an
    unknown `for_` or `layout`, and for a layout that cannot hold the matrix.
    """
    begin = time.perf_counter()
    use = for_ if isinstance(for_, str) else "spmv"
    if use not in KERNELS or not (isinstance(for_, str) or callable(for_)):
        raise OptionError(f"prepare for {for_!r}", f"known are {', '.join(KERNELS)} and functions", "use one of these")
    if layout is not None and layout not in LAYOUTS:
        raise OptionError(f"layout {layout!r}", f"known are {', '.join(LAYOUTS)}", "leave it out to let the model choose")
    if not is_sparse(A) or A.ndim != 2:
        raise ShapeError("prepare needs a sparse matrix", f"got {type(A).__name__}", "pass a scipy.sparse matrix or array")
    dtype = from_numpy(A.dtype, "the matrix")
    if dtype.name not in ("f32", "f64"):
        raise DTypeError(f"the matrix has elements of type {dtype}", "layouts are made for f32 and f64", "convert it with .astype")
    if threads is not None and threads < 1:
        raise OptionError(f"threads={threads}", "at least one is needed", "leave it out for the options' number")
    count = threads if threads is not None else current().num_threads or cores()
    rows = _summed(stats.rows_of(A))
    assert rows.val is not None
    matrix = owned_csr((rows.rows, rows.columns), rows.pos, rows.crd, rows.val)
    found = (choose.for_matrices if use == "spmm" or layout == "near rows" else choose.candidates)(rows, count)
    if layout is not None:
        found = (_asked(layout, found, rows),)
    with options(num_threads=count):
        kept = [_built(c, rows) for c in (choose.in_question(found) if rows.nnz else found[:1])]
        unprepared, compiling = None, 0.0
        if measure and rows.nnz and (use == "spmv" or len(kept) > 1):
            x = np.ones((rows.columns, choose.COLUMNS) if use == "spmm" else rows.columns, matrix.dtype)
            kept, unprepared, compiling = _measured(A, kept, matrix, x)
    after = {c.name: c for c, _ in kept}
    shown = tuple(after.get(c.name, c) for c in found)
    winner, made = min(kept, key=lambda entry: entry[0].seconds)
    choice = Choice(use, count, shown, shown.index(winner), time.perf_counter() - begin, compiling, unprepared, layout is not None)
    return _prepared(matrix, made, choice)


def _prepared(matrix: Owned, made: Layout, choice: Choice) -> Prepared:
    return Prepared(nearer(matrix) if made.kind == "near rows" else matrix, made, choice)


def _summed(rows: Rows) -> Rows:
    """`rows` with repeated entries added up."""
    if not rows.duplicates or rows.val is None:
        return rows
    row = np.repeat(np.arange(rows.rows), rows.lengths)
    first = np.ones(rows.nnz, bool)
    first[1:] = (rows.crd[1:] != rows.crd[:-1]) | (row[1:] != row[:-1])
    values = np.add.reduceat(rows.val, np.flatnonzero(first)).astype(rows.val.dtype)
    pos = np.concatenate([[0], np.cumsum(np.bincount(row[first], minlength=rows.rows))])
    return inspector.Rows(rows.rows, rows.columns, pos, rows.crd[first], values, rows.was_sorted, 0)


def _asked(layout: str, found: tuple[Candidate, ...], rows: Rows) -> Candidate:
    kind, window = ("slices", choose.WINDOWS[1]) if layout == "sorted slices" else (layout, 1)
    for c in found:
        if (c.layout, c.window) == (kind, window):
            return c
    raise OptionError(f"layout {layout!r} cannot hold this matrix", f"{rows.nnz} entries; possible are {', '.join(c.name for c in found)}", "leave it out")


def _built(candidate: Candidate, rows: Rows) -> tuple[Candidate, Layout]:
    begin = time.perf_counter()
    made = choose.build(candidate, rows)
    return replace(candidate, building=time.perf_counter() - begin), made


def _measured(A: Any, kept: list[tuple[Candidate, Layout]], matrix: Owned, x: Any) -> tuple[list[tuple[Candidate, Layout]], float, float]:
    """The candidates with their times, the time of the product of `A` as it is and `x`, and that of the first calls, which compile.
    Runs are interleaved; the least counts."""
    out = np.empty((matrix.shape[0], *x.shape[1:]), x.dtype)
    blank = Choice("spmv", 1, (), 0, 0.0, 0.0, None, False)
    operands = [A, *(_prepared(matrix, made, blank) for _, made in kept)]
    times = [float("inf")] * len(operands)
    start = time.perf_counter()
    for operand in operands:
        _TIMED(operand, x, out=out)
    compiling = time.perf_counter() - start
    for _ in range(ROUNDS):
        for k, operand in enumerate(operands):
            if times[k] < LONGEST / ROUNDS:
                _TIMED(operand, x, out=out)  # the arrays of the others have left the caches
            calls, spent, begin = 0, 0.0, time.perf_counter()
            while calls == 0 or spent < min(LONGEST, max(SHORTEST, PRODUCTS * spent / calls)) / ROUNDS:
                _TIMED(operand, x, out=out)
                calls, spent = calls + 1, time.perf_counter() - begin
            times[k] = min(times[k], spent / calls)
    return [(replace(c, measured=t), made) for (c, made), t in zip(kept, times[1:])], times[0], compiling
