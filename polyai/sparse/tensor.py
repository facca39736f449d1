"""Sparse arrays in formats that SciPy does not have: a `Storage` that was checked, with the look of an array."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Any, final

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from polyai.errors import SparseStructureError
from polyai.sparse import interop, interp, pack
from polyai.sparse.format import Format, shared, with_fill
from polyai.sparse.show import show
from polyai.sparse.stands import Checked
from polyai.sparse.storage import Storage
from polyai.sparse.verify import verify

Array = NDArray[Any]


def _held(fill_value: Any, dtype: np.dtype[Any]) -> Any:
    """A fill value as a Python number. Raises SparseStructureError for what the type does not hold."""
    if np.ndim(fill_value) or np.asarray(fill_value).dtype.kind not in "biufc":
        raise SparseStructureError(f"the fill value {fill_value!r}", "it is no number", "pass one number for all elements that are not stored")
    with np.errstate(all="ignore"):
        held = np.asarray(fill_value).astype(dtype)[()]
    if dtype.kind in "biu" and held != fill_value:
        raise SparseStructureError(f"the fill value {fill_value!r} of an array of {dtype}", "that type does not hold it", "convert the values before")
    return held.item()


@cache
def _names(levels: int) -> tuple[str, ...]:
    """Of all arrays that levels may have: outer levels first, positions before coordinates, values last."""
    return (*(f"{part}{level}" for level in range(levels) for part in ("pos", "crd")), "val")


@final
class SparseArray(Checked):
    """A sparse array of any rank in any format, as an argument of compiled functions.

    `arrays` by suffix: "pos1", "crd1" of the levels that have them, and "val". Arrays that are contiguous, aligned and in
    native byte order are shared, not copied. All of them are read once, here: SparseStructureError says what is wrong.
    Kernels still check each index that they use, since the arrays may be changed in place. `fill_value`: what every element is that is
    not stored, of the type of the values; without it, the format's, which is 0.

    `format`, `shape` and `listed` are what calls look at: one object for equal formats, and the arrays, outer levels first, of a level
    its positions first, values last.
    """

    __slots__ = ("format", "listed", "shape", "storage")

    storage: Storage
    format: Format
    shape: tuple[int, ...]
    listed: tuple[Array, ...]

    def __init__(self, format: Format, shape: Sequence[int], arrays: Mapping[str, ArrayLike], fill_value: Any = None) -> None:
        given = {name: np.asarray(a) for name, a in arrays.items()}
        native = {name: np.require(a, a.dtype.newbyteorder("="), ("C", "A")) for name, a in given.items()}
        if "val" not in native:
            raise SparseStructureError("the array val is missing", f"given are {sorted(native)}", 'pass arrays={..., "val": values}')
        if fill_value is not None:
            format = with_fill(format, _held(fill_value, native["val"].dtype))
        self._hold(shared(format), shape, native)
        verify(self.storage)

    def _hold(self, format: Format, shape: Sequence[int], native: Mapping[str, Array]) -> None:
        self.format, self.shape = format, tuple(int(n) for n in shape)
        self.storage = Storage(self.format, self.shape, MappingProxyType(dict(native)))
        self.listed = tuple([native[name] for name in _names(len(format.levels)) if name in native])

    @classmethod
    def around(cls, format: Format, shape: Sequence[int], arrays: Mapping[str, Array]) -> SparseArray:
        """Around arrays that were just made for it and are as the format, `shared`, says: contiguous, of its types, in order. They are not read."""
        out = cls.__new__(cls)
        out._hold(format, shape, arrays)
        return out

    def __reduce__(self) -> tuple[Any, ...]:
        return SparseArray, (self.format, self.shape, dict(self.storage.arrays))

    @classmethod
    def pack(cls, format: Format, shape: Sequence[int], coordinates: Sequence[ArrayLike], values: ArrayLike) -> SparseArray:
        """Store `values[e]` at `coordinates[d][e]` for all entries e; entries with equal coordinates are added.

        Raises ShapeError for coordinates outside `shape`.
        """
        return cls._of(pack.pack(format, shape, coordinates, values))

    @classmethod
    def from_dense(cls, array: ArrayLike, format: Format, fill_value: Any = 0) -> SparseArray:
        """The elements of a dense array that are not the fill value (NaN: that are not NaN)."""
        dense = np.asarray(array)
        fill = _held(fill_value, dense.dtype)
        coordinates = np.nonzero(~np.isnan(dense) if fill != fill else dense != fill) if dense.ndim else ()
        return cls.pack(with_fill(format, fill), dense.shape, coordinates, dense[coordinates])

    @classmethod
    def _of(cls, storage: Storage) -> SparseArray:
        return cls(storage.format, storage.shape, storage.arrays)

    @property
    def fill_value(self) -> Any:
        """What every element is that is not stored, a NumPy scalar of the array's type."""
        return np.asarray(self.format.fill_value).astype(self.dtype)[()]

    @property
    def ndim(self) -> int:
        return len(self.storage.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.storage.values.dtype

    @property
    def data(self) -> Array:
        """The stored values, one for each position of the last level."""
        return self.storage.values

    @property
    def nnz(self) -> int:
        """The number of stored elements; zeros that are stored count, padding does not."""
        return interp.count(self.storage)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return self.storage.nbytes

    def astype(self, dtype: DTypeLike) -> SparseArray:
        """The same structure, shared, with values of another type."""
        values = self.data.astype(dtype)
        return SparseArray(self.format, self.shape, {**self.storage.arrays, "val": values}, self.fill_value.astype(values.dtype))

    def toarray(self) -> Array:
        """The dense NumPy array with the same elements."""
        return interp.dense(self.storage)

    def convert(self, format: Format) -> SparseArray:
        """The same array stored in another format, with its own fill value."""
        return SparseArray._of(pack.convert(self.storage, with_fill(format, self.format.fill_value)))

    def to_scipy(self) -> Any:
        """The scipy.sparse array (SciPy has none of more than two dimensions but COO): in the same format and with shared
        arrays where SciPy has that format, else in COO."""
        return interop.to_scipy(self.storage)

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.shape))
        return f"<SparseArray {shape} {self.dtype}, {self.nnz} stored, {show(self.format)}>"
