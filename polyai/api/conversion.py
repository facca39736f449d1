"""Sparse arrays built and converted by hand: what no kernel does on its own, since it costs more than most kernels.

Kernels convert SciPy's matrices (`reformat`, and the grouped scatters of `merging`). Other conversions run in NumPy, sorting once, level
by level, and count as `conversions` in `polyai.stats()`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from polyai.api import reformat
from polyai.api.function import Function
from polyai.calls.engine import runtime
from polyai.errors import ShapeError, SparseStructureError, UnsupportedError
from polyai.frontend.arguments import has_traced
from polyai.frontend.surface import merging, sparse
from polyai.scalar import dtype as dt
from polyai.sparse import fitting, interop
from polyai.sparse import format as fm
from polyai.sparse.format import Format
from polyai.sparse.interp import walk
from polyai.sparse.prepared import Prepared
from polyai.sparse.tensor import SparseArray

NAMES = ("coo", "csf", "csl", "csr", "csc", "dcsr", "dcsc", "bsr", "dia", "ell", "bitmap")
ORDERED = {"csf": fm.csf, "csl": fm.csl, "csr": fm.rows}
"""Formats of any rank whose modes have an order that may be chosen."""
_WIDE = (1 << 31) - 1


def sparse_array(
    source: Any,
    format: str | Format = "coo",
    *,
    shape: Sequence[int] | None = None,
    order: Sequence[int] | None = None,
    index_bits: int | None = None,
    blocksize: tuple[int, int] | None = None,
) -> SparseArray:
    """A sparse array of any rank, in the format asked for.

    Args:
        source: A pair `(values, coordinates)` with one list of coordinates per dimension, as SciPy's COO takes it; or a dense
            array, whose elements that are not zero are stored; or a sparse array of SciPy, PolyAI, pydata/sparse or PyTorch.
        format: "coo"; "csf" (a tree of fibres, every dimension compressed), "csl" (slices along one dimension, each a list of
            coordinates), "csr" (the same with a place for every slice, empty or not); for matrices also "csc", "dcsr", "bsr"
            (dense blocks of `blocksize`), "dia" (diagonals), "ell" (as many places in each row); or a `Format`.
        shape: The extents, for a pair; without it the largest coordinates decide.
        order: For "csf", "csl", "csr": which dimension each level stores, outermost first. A product that sums all dimensions
            but one is fastest with that one first; "csf" pays where fibres hold many elements (ten or so).
        index_bits: 32 or 64; without it 32 where extents and count allow.
        blocksize: Rows and columns of a block of "bsr"; the shape is a multiple of it.

    Entries with equal coordinates are added. Counts as a conversion in `stats()`. Raises ShapeError for coordinates outside
    `shape`, SparseStructureError for broken arrays, UnsupportedError for an unknown format.
    """
    coordinates, values, extents = _entries(source, shape)
    wanted = named(format, len(extents), order, index_bits if index_bits is not None else _bits(extents, len(values)), blocksize)
    runtime().stats.count("conversions")
    return SparseArray.pack(wanted, extents, coordinates, values)


def asformat(
    array: Any,
    format: str | Format,
    *,
    order: Sequence[int] | None = None,
    index_bits: int | None = None,
    blocksize: tuple[int, int] | None = None,
) -> Any:
    """`array` in another format.

    Of SciPy's matrices, and inside a compiled function, "csr" and "csc" give SciPy's arrays; rows come out sorted, coordinates that
    repeat add up. "dense" gives a NumPy array. Anything else gives a `SparseArray`, outside of compiled functions; one that has the
    format already is returned as it is. Kernels convert SciPy's CSR, CSC, COO and BSR into all formats but "dia" and "bitmap". What no kernel
    converts counts as a conversion: SciPy reads DIA, LIL and DOK by rows, NumPy makes the rest. See `sparse_array` for the arguments and errors.
    """
    plain = format in ("csr", "csc") and order is None and index_bits is None and blocksize is None
    if plain and (type(array), format) in _KNOWN and array.ndim == 2:
        return _compiled(array, str(format))
    if format == "dense" and order is None and index_bits is None and blocksize is None:
        return sparse.toarray(array) if has_traced((array,), {}) else _DENSE(array)
    if has_traced((array,), {}):
        if not plain:
            raise UnsupportedError(
                f"asformat({format!r}) inside a compiled function", 'compiled are "csr", "csc" and "dense"', "convert the argument before the call"
            )
        return merging.stored_as(array, (0, 1) if format == "csr" else (1, 0))
    if plain and _is_scipy_matrix(array) and array.format in ("csr", "csc", "coo"):
        if array.format == format:
            return array.copy() if _is_tidy(array) else _compiled(array, str(format))
        _KNOWN.add((type(array), format))
        return _compiled(array, str(format))
    if isinstance(array, SparseArray):
        width = index_bits if index_bits is not None else array.format.index_bits
        if array.format == named(format, array.ndim, order, width, blocksize):
            return array
    if _is_scipy_matrix(array):
        if plain:
            return _rows(array, tidy=True) if format == "csr" else _compiled(_rows(array), "csc")
        described = interop.describe(array)
        assert described is not None
        bits = index_bits if index_bits is not None else _bits(described.shape, described.nnz * described.format.fill)
        found = _by_kernels(array, described, *_format_of(format, order, bits, blocksize), blocksize)
        if found is not None:
            return found
    return sparse_array(array, format, order=order, index_bits=index_bits, blocksize=blocksize)


def _is_scipy_matrix(array: Any) -> bool:
    return interop.is_sparse(array) and interop.storage_in(array) is None and array.ndim == 2


def _by_kernels(array: Any, described: interop.Described, wanted: Format, kind: str | None, blocksize: tuple[int, int] | None) -> SparseArray | None:
    """A matrix in another format of PolyAI's by kernels; None if there are none for it."""
    if wanted.blocked:
        height, width = blocksize or (wanted.block(0), wanted.block(1))
        known = wanted is _blocked(height, width, wanted.index_bits) or wanted == fm.bsr(height, width, wanted.index_bits)
        if not known or height * array.shape[1] * array.dtype.itemsize > reformat.DENSE_ROWS:
            return None
        if array.format != "csr":
            array = _rows(array)
            found = interop.describe(array)
            assert found is not None
            described = found
        return reformat.in_blocks(array, described, wanted, (height, width))
    if kind is None:
        return None
    outer = wanted.order[0]
    shape = tuple(map(int, array.shape))
    if kind == "coo":
        return reformat.listed(_in_order(array, "csr" if outer == 0 else "csc"), wanted, shape)
    rows, _ = reformat.arrays_of(_rows(array, tidy=True) if outer == 0 else _compiled(_rows(array), "csc"))
    if kind in ("csr", "csc"):
        return reformat.around(wanted, shape, rows)
    if kind in ("dcsr", "dcsc", "csf", "csl"):
        return reformat.tree(rows, wanted, shape)
    longest = int(np.diff(rows["pos1"]).max(initial=0))
    if longest * shape[0] > reformat.LARGEST_FILL * max(len(rows["crd1"]), 1):
        return None
    return reformat.slotted(rows, wanted, shape, longest)


_MADE: dict[str, Callable[[Format], Format]] = {
    "csr": lambda f: fm.csr(f.index_bits),
    "csc": lambda f: fm.csc(f.index_bits),
    "coo": lambda f: fm.coo(2, f.index_bits),
    "dcsr": lambda f: fm.dcsr(f.index_bits),
    "dcsc": lambda f: fm.dcsc(f.index_bits),
    "csf": lambda f: fm.csf(2, f.index_bits, f.order),
    "csl": lambda f: fm.csl(2, f.index_bits, f.order),
    "ell": lambda f: fm.ell(f.index_bits),
}
"""Formats of matrices that rows (or columns) in order are made into, with the width and the order of another one."""


def _kind(wanted: Format) -> str | None:
    """Which of the formats that rows (or columns) in order are made into this is."""
    if wanted.rank != 2 or wanted.fill_value != 0:
        return None
    return next((k for k, f in _MADE.items() if wanted == f(wanted)), None)


def _in_order(array: Any, format: str) -> Any:
    """A matrix as SciPy's CSR or CSC, in order, that holds each coordinate once: itself if it is that."""
    if array.format not in ("csr", "csc"):
        array = _rows(array)
    if array.format != format or not _is_tidy(array):
        return _compiled(array, format)
    interop.validate_fully(array)
    return array


def _rows(array: Any, tidy: bool = False) -> Any:
    """A matrix as SciPy's CSR; with `tidy` a new one, in order, that holds each coordinate once. Kinds without kernels count as conversions."""
    if array.format == "bsr":
        return reformat.out_of_blocks(array if _is_tidy(array) else reformat.blocks_in_order(array))
    if array.format in ("coo", "csc"):
        return _compiled(array, "csr")
    if array.format != "csr":
        array = reformat.from_elsewhere(array)
    if not tidy:
        return array
    found = _in_order(array, "csr")
    return array.copy() if found is array else found


def _to(order: tuple[int, int], sorted: bool) -> Any:
    name = f"{'sorted ' if sorted else ''}to {'csr' if order == (0, 1) else 'csc'}"
    return Function(lambda array: merging.converted(array, order, sorted=sorted), name=name)


def _is_tidy(array: Any) -> bool:
    """Whether rows (columns) of CSR (CSC) are in order and hold each coordinate once. False for broken row pointers."""
    interop.describe(array)  # which says what cannot be a matrix
    rises = array.indices[1:] > array.indices[:-1]
    starts = array.indptr[1:-1]
    starts = starts[(starts > 0) & (starts <= len(rises))]
    rises[starts - 1] = True
    return bool(rises[: max(int(array.indptr[-1]) - 1, 0)].all())


_COMPILED = {(f, s): _to((0, 1) if f == "csr" else (1, 0), s) for f in ("csr", "csc") for s in (False, True)}
_DENSE = Function(sparse.toarray, name="to_dense")
_KNOWN: set[tuple[type, object]] = set()
"""SciPy's classes, and formats that they are not, whose conversions were compiled: what an array is need not be asked again."""
SAMPLES = 64
"""Neighbours in a list that tell whether it is probably in order."""
FIRST = 4
"""Of these, so many are looked at one by one: a list in any order is seldom longer thought to be in order."""


def _compiled(array: Any, format: str) -> Any:
    """A SciPy matrix in the order of `format`, by a kernel. A list that seems to be in order, of rows or of columns, takes one pass: what each row
    and column holds is in order then. The kernel notices if it is not."""
    if array.format == "coo" and any(_seems_ordered(array, outer) for outer in (0, 1)):
        try:
            return _COMPILED[format, True](array)
        except SparseStructureError:
            pass
    return _COMPILED[format, False](array)


def _seems_ordered(array: Any, outer: int) -> bool:
    """Whether a few neighbours are in lexicographic order, dimension `outer` first."""
    lists = fitting.coords_of(array)
    first, second = lists[outer], lists[1 - outer]
    if not first.ndim == second.ndim == 1 or first.dtype.kind not in "iu" or second.dtype.kind not in "iu":
        return False  # the call says what is wrong
    last = min(len(first), len(second)) - 1
    if last < 1:
        return True
    for n in range(FIRST):
        at = (last - 1) * n // FIRST
        if (int(first[at]), int(second[at])) > (int(first[at + 1]), int(second[at + 1])):
            return False
    step = max(1, last // SAMPLES)
    a, b, c, d = first[:last:step], first[1::step], second[:last:step], second[1::step]
    count = min(len(a), len(b))
    a, b, c, d = a[:count], b[:count], c[:count], d[:count]
    return bool(((a < b) | ((a == b) & (c <= d))).all())


def _format_of(format: str | Format, order: Sequence[int] | None, bits: int, blocksize: tuple[int, int] | None) -> tuple[Format, str | None]:
    """The format of a matrix, and which of the kinds that kernels make; looked up where it is only a name."""
    if isinstance(format, str) and order is None and blocksize is None:
        return _named(format, bits)
    wanted = fm.shared(named(format, 2, order, bits, blocksize))
    return wanted, _kind(wanted)


@cache
def _named(format: str, bits: int) -> tuple[Format, str | None]:
    wanted = fm.shared(named(format, 2, None, bits))
    return wanted, _kind(wanted)


def named(
    format: str | Format, rank: int, order: Sequence[int] | None = None, index_bits: int = 32, blocksize: tuple[int, int] | None = None
) -> Format:
    """The Format called `format` for `rank` dimensions. Raises UnsupportedError for names and ranks that do not fit."""
    if (blocksize is None) == (format == "bsr"):
        what = "bsr without blocksize" if blocksize is None else f"blocksize={blocksize} for {format}"
        raise UnsupportedError(what, "the blocks of bsr have a size, other formats have no blocks", 'such as asformat(A, "bsr", blocksize=(4, 4))')
    if isinstance(format, Format):
        if order is not None:
            raise UnsupportedError("order together with a Format", "the Format has its own", "leave order away")
        return format
    if order is not None and (format not in ORDERED or sorted(order) != list(range(rank))):
        why = f"{', '.join(ORDERED)} have an order, a permutation of {tuple(range(rank))}"
        raise UnsupportedError(f"order={tuple(order)} for {format} of {rank} dimensions", why, "leave order away")
    if format in ORDERED and (rank > 1 or format == "csf"):
        return ORDERED[format](rank, index_bits, order)
    if format == "coo":
        return fm.coo(rank, index_bits)
    if blocksize is not None and rank == 2:
        if len(blocksize) != 2 or min(blocksize) < 1:
            raise ShapeError(f"blocksize={blocksize}", "a block has at least one row and one column", "pass two positive numbers")
        return _blocked(int(blocksize[0]), int(blocksize[1]), index_bits)
    if format in NAMES and rank == 2:
        made: Format = getattr(fm, format)(index_bits)
        return made
    raise UnsupportedError(f"the format {format!r} for {rank} dimensions", "", f"known are {', '.join(NAMES)}; csc, dcsr, dcsc, bsr, dia, ell and bitmap hold matrices only")


@cache
def _blocked(rows: int, columns: int, index_bits: int) -> Format:
    return fm.shared(fm.bsr(rows, columns, index_bits))


def _entries(source: Any, shape: Sequence[int] | None) -> tuple[Sequence[Any], Any, tuple[int, ...]]:
    """Coordinates by dimension, values and extents of what the user gave."""
    source = source.matrix if type(source) is Prepared else source
    if interop.is_sparse(source):
        own = interop.storage_in(source)
        interop.validate_fully(source if own is None else own)
        stored = interop.storage_of(source) if own is None else own
        found = walk(stored.format, stored.shape, stored.arrays)
        return found.coordinates, stored.values.reshape(-1)[found.positions], _agreed(stored.shape, shape)
    if isinstance(source, tuple) and len(source) == 2 and not np.isscalar(source[1]):
        values, lists = np.asarray(source[0]), [np.asarray(c) for c in source[1]]
        if not lists:
            raise ShapeError("a sparse array without dimensions", "no list of coordinates is given", "pass one list per dimension")
        bad = next((c for c in lists if c.dtype.kind not in "iu" and c.size), None)
        if bad is not None:
            raise SparseStructureError(f"coordinates of type {bad.dtype}", "coordinates are integers", "convert them with .astype(np.int64)")
        extents = tuple(int(c.max(initial=-1)) + 1 for c in lists) if shape is None else tuple(int(n) for n in shape)
        _typed(values)
        return lists, values, extents
    dense = np.asarray(source)
    if not dense.ndim:
        raise ShapeError("a sparse array without dimensions", f"a {type(source).__name__} was given", "pass an array, or (values, coordinates)")
    _typed(dense)
    coordinates = np.nonzero(dense)
    return coordinates, dense[coordinates], _agreed(dense.shape, shape)


def _agreed(found: tuple[int, ...], shape: Sequence[int] | None) -> tuple[int, ...]:
    if shape is not None and tuple(shape) != tuple(found):
        raise ShapeError(f"shape={tuple(shape)}", f"the array given has the shape {tuple(found)}", "leave shape away")
    return tuple(found)


def _typed(values: Any) -> None:
    dt.from_numpy(values.dtype, "a sparse array")


def _bits(extents: tuple[int, ...], count: int) -> int:
    return 32 if max((*extents, count), default=0) <= _WIDE else 64
