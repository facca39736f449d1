"""scipy.sparse in and out. The only file that knows SciPy's matrices, and it imports SciPy only to build one.

What holds a `Storage` (polyai.SparseArray) is described here too, so that callers need not ask which of both they have.

A value is described without reading its indices: SciPy's arrays are borrowed as they are (`arrays_of` copies only what no
kernel can read in place, and conversions of other kinds are said in `Described.origin`). Borrowed index arrays may change
between calls, so nothing about their contents is remembered: kernels check each index they use.

Duplicate and unsorted entries. A stored coordinate may occur twice in a SciPy matrix and stands for the sum of its values.
What is linear in the stored values (products with vectors and matrices, sums) is right as it is, in any order. What is
not linear along the pattern (softmax, max, a non-linear map such as exp or relu of the values, a product of two stored
values) needs unique coordinates: ask `ordering.has_duplicates` first. Merges of two patterns need sorted and unique ones.
"""

from __future__ import annotations

import copy
import math
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from polyai.errors import SparseStructureError, UnsupportedError
from polyai.scalar.dtype import DType, from_numpy
from polyai.sparse.fitting import arrays_fit, bad, coords_of, fibres_fit, in_range
from polyai.sparse.foreign import adopt, is_foreign, unordered_coo
from polyai.sparse.format import Format, bsr, csc, csr, dia, rows, with_fill
from polyai.sparse.owned import Owned
from polyai.sparse.storage import Storage
from polyai.term.late import late

if TYPE_CHECKING:
    from polyai.sparse import interp, lists, pack, verify
    from polyai.sparse import listed as kinds
else:
    pack = late("polyai.sparse.pack")
    kinds = late("polyai.sparse.listed")
    lists = late("polyai.sparse.lists")
    verify = late("polyai.sparse.verify")
    interp = late("polyai.sparse.interp")

Array = NDArray[Any]

_IN_PLACE = ("csr", "csc", "bsr", "dia", "coo")
class Described(NamedTuple):
    """What a kernel needs to know of one sparse value.

    `kind` is the layout used, "csr", "csc", "bsr", "dia" or "coo" (a 1-D CSR array counts as "coo" of rank 1: both store one list), or
    "storage" for a SparseArray or what was adopted as a Storage.
    `lengths` gives the sizes that are no extents, of sized levels (`length1`).
    `nnz` counts positions of the last level with index arrays: blocks of a BSR matrix, else elements.
    `origin` is the layout that was passed; where it differs (lil, dok), `holder` is a converted copy, else the
    value itself. `is_matrix` tells spmatrix (`*` multiplies matrices) from sparray.
    """

    format: Format
    shape: tuple[int, ...]
    dtype: DType
    nnz: int
    is_matrix: bool
    kind: str
    origin: str
    holder: Any
    lengths: tuple[tuple[str, int], ...] = ()

    @property
    def converted(self) -> bool:
        """True if the call paid for a conversion."""
        return self.origin not in (*_IN_PLACE, "storage")


@cache
def _dtype(given: np.dtype[Any]) -> DType:
    return from_numpy(given, "sparse matrix")


@cache
def scipy_format(kind: str, rank: int = 2, index_bits: int = 32, block: tuple[int, int] = (1, 1)) -> Format:
    """The Format of SciPy's `kind`; `block` is that of BSR. SciPy's COO is neither ordered nor unique; CSR and CSC are, by SciPy's convention."""
    if kind == "csr":
        return csr(index_bits)
    if kind == "csc":
        return csc(index_bits)
    if kind == "bsr":
        return bsr(*block, index_bits)
    if kind == "dia":
        return dia(index_bits)
    return unordered_coo(rank, index_bits)


def is_sparse(value: object) -> bool:
    """True if `value` is a scipy.sparse matrix or array, an Owned matrix, holds a Storage, or is another library's (`foreign`). Imports nothing."""
    return type(value) is Owned or held_storage(value) is not None or _is_scipy(value) or is_foreign(value)


def storage_in(value: Any) -> Storage | None:
    """The storage that `value` is or holds; that of another library's tensor is made around its arrays. None for SciPy's."""
    own = held_storage(value)
    return own if own is not None or _is_scipy(value) else adopt(value)


def held_storage(value: object) -> Storage | None:
    """The storage that `value` is or holds; None for all others, other libraries' included."""
    if isinstance(value, Storage):
        return value
    found = getattr(type(value), "storage", None) and getattr(value, "storage", None)
    return found if isinstance(found, Storage) else None


def _is_scipy(value: object) -> bool:
    sparse = sys.modules.get("scipy.sparse")
    return sparse is not None and bool(sparse.issparse(value))


class _Memory(threading.local):
    """What `describe` found of the arguments of the call at hand, by identity."""

    found: dict[int, tuple[Any, Described | None]] | None = None


_MEMORY = _Memory()


@contextmanager
def described_once() -> Iterator[None]:
    """Within the block, `describe` looks at each value once: nothing may change in between."""
    before, _MEMORY.found = _MEMORY.found, {}
    try:
        yield
    finally:
        _MEMORY.found = before


def describe(value: Any) -> Described | None:
    """Format, shape, dtype and count of a sparse value; None for any other value.

    Reads no index but the last row pointer. Raises SparseStructureError if the arrays cannot belong together, DTypeError
    for element types without a kernel.
    """
    known = _MEMORY.found
    if known is None:
        return _described(value)
    found = known.get(id(value))
    if found is None:
        found = known[id(value)] = (value, _described(value))
    return found[1]


def _described(value: Any) -> Described | None:
    if type(value) is Owned:
        return Described(value.format, value.shape, _dtype(value.dtype), value.nnz, False, "csr", "csr", value)
    if held_storage(value) is None and not _is_scipy(value):
        value = adopt(value)
    own = held_storage(value)
    if own is not None:
        counts = own.positions()
        if not _complete(own, counts):  # the last position of each level may have been changed in place
            verify.arrays_are_complete(own)
        nnz, lengths = counts[-1] // own.format.fill, tuple(own.lengths().items())
        return Described(own.format, own.shape, _dtype(own.values.dtype), nnz, False, "storage", "storage", value, lengths)
    if not _is_scipy(value):
        return None
    origin = value.format
    holder = in_a_layout(value)
    kind = holder.format
    nnz = arrays_fit(holder, kind)
    shape = tuple(map(int, holder.shape))
    if len(shape) == 1:
        kind = "coo"
    bits = 32 if all(a.dtype == np.int32 for a in _index_arrays(holder)) else 64
    is_matrix = isinstance(value, sys.modules["scipy.sparse"].spmatrix)
    lengths = (("length0", len(holder.offsets)), ("length1", int(holder.data.shape[1]))) if kind == "dia" else ()
    block = tuple(map(int, holder.data.shape[1:])) if kind == "bsr" else (1, 1)
    return Described(scipy_format(kind, len(shape), bits, block), shape, _dtype(holder.dtype), nnz, is_matrix, kind, origin, holder, lengths)


def as_rows(value: Any, order: tuple[int, ...] = ()) -> Any:
    """A matrix of any format as SciPy's CSR, a copy unless it is that (or Owned); an array of more dimensions as slices that are lists (`lists`),
    in an `order` of its dimensions. Raises SparseStructureError for broken arrays, UnsupportedError for vectors."""
    own = held_storage(value)
    if len(np.shape(value) if own is None else own.shape) > 2:
        return _as_lists(value, order)
    if type(value) is Owned or (own is None and _is_scipy(value) and value.format == "csr"):
        return value
    validate_fully(value)
    if own is not None:
        if len(own.shape) != 2:
            raise UnsupportedError(f"an array with {len(own.shape)} dimensions", "only matrices have rows", "use einsum, or make it dense")
        bits, value = own.format.index_bits, to_scipy(replace(own, format=with_fill(own.format, 0)))
    else:
        bits = 64 if value.format in _IN_PLACE and any(a.dtype != np.int32 for a in _index_arrays(value)) else 32
    if value.ndim != 2:
        raise UnsupportedError(f"an array with {value.ndim} dimensions", "only matrices have rows", "use einsum, or make it dense")
    return _as_wide(value.tocsr(), bits)


def _as_wide(rows: Any, bits: int) -> Any:
    """A CSR matrix that nobody else has, with indices of as many bits: SciPy's choice depends on what is stored, a kernel's format does not.
    Wider ones stay if what is stored does not fit."""
    index = np.dtype(f"i{max(bits, 32) // 8}")
    if rows.indices.dtype != index and max(rows.nnz, *rows.shape) <= np.iinfo(index).max:
        rows.indices, rows.indptr = rows.indices.astype(index), rows.indptr.astype(index)
    return rows


def _as_lists(value: Any, order: tuple[int, ...]) -> Storage:
    own = storage_in(value)
    order = order or tuple(range(len(value.shape)))
    if own is not None and own.format in (rows(len(own.shape), 32, order), rows(len(own.shape), 64, order)):
        return own
    validate_fully(value if own is None else own)
    if own is None:
        coords, values = coords_of(value), value.data
    else:
        coords, values = pack.unpack(own)
        coords = tuple(c.astype(f"i{own.format.index_bits // 8}") for c in coords)
    return lists.as_lists(tuple(map(int, value.shape)), coords, values, order)


def arrays_of(value: Any, described: Described) -> dict[str, Array]:
    """The arrays of a described value by suffix ("pos1", "crd1", "val"; COO: "pos0", "crd0", "crd1", ..., "val").

    No copy is made of arrays that are contiguous, aligned, in native byte order and of the format's index type. Arrays
    longer than the number of stored elements are cut to it.
    """
    holder, nnz = described.holder, described.nnz
    own = held_storage(holder)
    if own is not None:
        return dict(own.arrays)
    index = np.dtype(f"i{described.format.index_bits // 8}")
    out: dict[str, Array] = {}
    if type(holder) is Owned:
        return holder.arrays
    if holder.format == "coo":
        out["pos0"] = np.array([0, nnz], dtype=index)
        for level, coordinates in enumerate(coords_of(holder)):
            out[f"crd{level}"] = _readable(coordinates, index, nnz)
    elif holder.format == "dia":
        out["crd0"] = _readable(holder.offsets, index, len(holder.offsets))
        nnz = len(holder.data)
    else:
        level = len(described.shape) - 1  # of BSR too: its blocks' insides have no index arrays
        out[f"pos{level}"] = _readable(holder.indptr, index, len(holder.indptr))
        out[f"crd{level}"] = _readable(holder.indices, index, nnz)
    out["val"] = _readable(holder.data, holder.data.dtype.newbyteorder("="), nnz)
    return out


def _complete(storage: Storage, counts: tuple[int, ...]) -> bool:
    """Whether the arrays have the lengths that the numbers of positions of each level ask for: `arrays_are_complete`, quickly."""
    arrays, above = storage.arrays, 1
    for level, count in enumerate(counts):
        pos, crd = arrays.get(f"pos{level}"), arrays.get(f"crd{level}")
        if (pos is not None and len(pos) != above + 1) or (crd is not None and len(crd) != count) or count < 0:
            return False
        above = count
    return len(arrays["val"]) == above


def positions(described: Described, level: int) -> int:
    """How many positions `level` of a SparseArray has."""
    own = held_storage(described.holder)
    if own is None:
        raise SparseStructureError(f"{described.kind} has no listed levels above its last", "", "pass a SparseArray")
    return own.positions()[level]


def storage_of(value: Any) -> Storage:
    """A scipy.sparse value as a Storage that shares its arrays. SparseStructureError for anything else."""
    described = describe(value)
    if described is None:
        raise SparseStructureError(f"{type(value).__name__} is no scipy.sparse value", "", "pass a scipy.sparse matrix or array")
    return Storage(described.format, described.shape, arrays_of(value, described))


def to_scipy(storage: Storage) -> Any:
    """The tensor as a scipy.sparse array: with the same arrays if SciPy has the format, else in COO.

    Raises UnsupportedError for a scalar.
    """
    form = storage.format
    if form.fill_value != 0:
        raise UnsupportedError(f"a sparse array filled with {form.fill_value} for SciPy", "what is not stored is zero there", "use .toarray()")
    block = (form.block(0) or 1, form.block(1) or 1) if form.rank == 2 else (1, 1)
    for kind in ("csr", "csc", "bsr", "dia"):
        if form == scipy_format(kind, 2, form.index_bits, block):
            inner = {"bsr": block, "dia": (storage.length(len(form.levels) - 1),) if kind == "dia" else ()}.get(kind, ())
            values = storage.values.reshape(storage.positions()[-1] // max(1, math.prod(inner)), *inner)
            return result(kind, storage.shape, {**storage.arrays, "val": values})
    if not storage.shape:
        raise UnsupportedError("a sparse array without dimensions", "SciPy has none", "use .toarray()")
    stored = interp.walk(storage.format, storage.shape, storage.arrays)
    listed = {f"crd{d}": c for d, c in enumerate(stored.coordinates)}
    return result("coo", storage.shape, {**listed, "val": storage.values.reshape(-1)[stored.positions]})


def listed(storage: Storage) -> Any:
    """A tensor of slices that are lists (format `rows`), in order, as a `coo_array` around the same arrays."""
    import scipy.sparse as sparse

    form, arrays = storage.format, storage.arrays
    begins, index = arrays["pos1"], arrays["crd1"].dtype
    first = np.repeat(np.arange(len(begins) - 1, dtype=index), np.diff(begins))
    levels = (first, *(arrays[f"crd{n}"] for n in range(1, form.rank)))
    coords = tuple(levels[form.level_of(d)] for d in range(form.rank))
    out = sparse.coo_array((arrays["val"], coords), shape=storage.shape)
    out.has_canonical_format = form.order == tuple(range(form.rank))
    return out


def _readable(array: Array, dtype: Any, length: int) -> Array:
    if len(array) != length:
        array = array[:length]
    return np.require(array, dtype, ("C", "A")) if array.dtype != dtype or not _in_place(array) else array


def _in_place(array: Array) -> bool:
    flags = array.flags
    return bool(flags.c_contiguous and flags.aligned)


def in_a_layout(value: Any) -> Any:
    """`value` itself if kernels read its layout, else a CSR copy."""
    origin = value.format
    if origin in _IN_PLACE:
        return value
    if value.ndim != 2:
        raise UnsupportedError(f"a {origin} array with {value.ndim} dimensions", "only matrices convert to CSR", "pass value.tocoo()")
    return kinds.as_csr(value)


def _index_arrays(value: Any) -> tuple[Array, ...]:
    if value.format == "dia":
        return (value.offsets,)
    return coords_of(value) if value.format == "coo" else (value.indptr, value.indices)


def validate(value: Any) -> int:
    """Check, without reading the indices, that the arrays of a value fit together; the number stored.

    Raises SparseStructureError naming the array. Indices and the order of row pointers are checked by kernels, element by
    element, and by `validate_fully`.
    """
    own = held_storage(value)
    if own is not None:
        verify.arrays_are_complete(own)
        return own.positions()[-1]
    value = in_a_layout(value)
    return arrays_fit(value, value.format)


def validate_fully(value: Any) -> int:
    """`validate`, and every row pointer and index is in range. Reads all of them, but of an Owned matrix none."""
    if type(value) is Owned:
        return value.nnz
    own = held_storage(value)
    if own is not None:
        verify.arrays_are_complete(own)
        verify.fibres_tile_their_level(own)
        verify.coordinates_are_in_range(own)
        return own.positions()[-1]
    value = in_a_layout(value)
    kind = value.format
    nnz = arrays_fit(value, kind)
    if kind == "dia":
        return nnz  # any offset is good: what lies outside is not stored
    if kind == "coo":
        extents = value.shape
        for d, coordinates in enumerate(coords_of(value)):
            in_range(f"coo: coords[{d}]", coordinates, extents[d])
        return nnz
    extent = value.shape[0 if kind == "csc" else -1]
    fibres_fit(kind, value.indptr, value.indices[:nnz], extent // value.data.shape[2] if kind == "bsr" else extent)
    return nnz


def result(kind: str, shape: tuple[int, ...], arrays: Mapping[str, Array], like: Any = None) -> Any:
    """A scipy.sparse value of layout `kind` around the arrays of a kernel (suffixes as in `arrays_of`).

    It is a matrix or an array as `like` is (without `like`: an array). Index arrays that belong to `like` are copied, as
    SciPy's own operations do, so that a later change of one pattern does not change the other.
    """
    import scipy.sparse as sparse

    index = {name: _own(array, like) for name, array in arrays.items() if name != "val"}
    flavour = "matrix" if like is not None and isinstance(like, sparse.spmatrix) else "array"
    cls = getattr(sparse, f"{kind}_{flavour}", None) if kind in _IN_PLACE else None
    if cls is None:
        raise UnsupportedError(f"no SciPy result of kind {kind}", f"results are {', '.join(_IN_PLACE)}", "convert it afterwards")
    if kind == "coo":
        coords = tuple(index[f"crd{level}"] for level in range(len(shape)))
        return cls((arrays["val"], coords), shape=shape)
    if kind == "dia":
        return cls((arrays["val"], index["crd0"]), shape=shape)
    level = len(shape) - 1
    return cls((arrays["val"], index[f"crd{level}"], index[f"pos{level}"]), shape=shape)


def with_values(like: Any, values: Array, dims: tuple[int, ...] | None = None) -> Any:
    """A value as `like`, a SparseArray or SciPy's CSR, CSC, BSR or COO, with index arrays of its own and the given stored values.

    `dims`, for a SparseArray: dimension d of the result is dimension dims[d] of `like`. Of a Storage a Storage comes back.
    """
    own = held_storage(like)
    if own is not None:
        dims = tuple(range(len(own.shape))) if dims is None else dims
        turned = replace(own.format, order=tuple(dims.index(d) for d in own.format.order))
        arrays = {**{n: a.copy() for n, a in own.arrays.items()}, "val": values}
        return type(like)(turned, tuple(own.shape[d] for d in dims), arrays)
    if like.format == "dia":
        return type(like)((values, like.offsets.copy()), shape=like.shape)
    if like.format in ("csr", "csc", "bsr") and len(like.indices) == len(values):
        made = copy.copy(like)  # SciPy's constructors look at every array again
        made.data, made.indices, made.indptr = values, like.indices.copy(), like.indptr.copy()
        return made
    described = describe(like)
    if described is None:
        raise bad(f"{type(like).__name__} is no scipy.sparse value", "its pattern was asked for", "pass a scipy.sparse array")
    return result(described.kind, described.shape, {**arrays_of(like, described), "val": values}, like=like)


def _own(array: Array, like: Any) -> Array:
    if type(like) is Owned:
        return array.copy()
    if like is None or like.format not in _IN_PLACE:
        return array
    return array.copy() if any(np.may_share_memory(array, theirs) for theirs in _index_arrays(like)) else array
