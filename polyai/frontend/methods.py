"""The methods that traced arrays share with SciPy's sparse arrays, and clear words for those that they do not have.

    A.sqrt(), A.sin(), ...    element-wise functions as methods
    A.data, A.indptr, ...     the lists that it is made of, see `stored`
    A.blocksize, A.resize()   raise `NotTraced`, an UnsupportedError that is an AttributeError: hasattr(A, "blocksize") is False
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np

from polyai.errors import UnsupportedError
from polyai.frontend.core import Array
from polyai.frontend.surface import elementwise as ew
from polyai.term.late import late

if TYPE_CHECKING:
    from polyai.frontend import stored
    from polyai.frontend.surface import merging, reductions, sparse
else:
    merging = late("polyai.frontend.surface.merging")
    reductions = late("polyai.frontend.surface.reductions")
    sparse, stored = late("polyai.frontend.surface.sparse"), late("polyai.frontend.stored")


class NotTraced(UnsupportedError, AttributeError):
    """An attribute of SciPy's sparse arrays that traced arrays do not have."""


_ARRAYS = ("data", "indices", "indptr", "coords", "row", "col", "offsets", "has_sorted_indices", "has_canonical_format", "blocksize")
_CHANGES = ("resize", "prune", "check_format")
_CONVERSIONS = ("tobsr", "todia", "tolil", "todok")
_OTHERS = ("get", "setdefault", "update", "items", "keys")

ABSENT: dict[str, tuple[str, str]] = {
    **dict.fromkeys(_ARRAYS, ("it is known of sparse arrays that list every element: CSR, CSC, COO", "convert it before the call, or read it before")),
    **dict.fromkeys(_CHANGES, ("traced arrays are not changed in place", "do it before the call")),
    **dict.fromkeys(_CONVERSIONS, ("patterns are not rebuilt by kernels", "convert before the call")),
    **dict.fromkeys(_OTHERS, ("it is not compiled yet", "compute it outside the compiled function")),
}


class SparseMethods(Array):
    """Methods under SciPy's names; those of dense arrays are NumPy's, in `lazy`."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        if name not in ABSENT:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        why, remedy = ABSENT[name]
        raise NotTraced(f"{name} of {self.tracer.text(self)} while tracing", why, remedy)

    @property
    def data(self) -> Any:
        """What is stored, as a vector in the order of storage."""
        vector = self._listed("data")
        self.tracer.data_of[id(vector)] = vector, self
        return vector

    @data.setter
    def data(self, value: Any) -> None:
        stored.put(self, value)

    def setdiag(self, values: Any, k: int = 0) -> None:
        """Put values on the k-th diagonal of a copy, or of what was computed; arguments are not changed."""
        stored.set_diagonal(self, values, k)

    def eliminate_zeros(self) -> None:
        """Leave stored zeros out of a copy, or of what was computed; arguments are not changed."""
        stored.drop_zeros(self)

    def sum_duplicates(self) -> None:
        """Add up what repeats in a copy, in order; arguments are not changed."""
        stored.put_in_order(self)

    def sort_indices(self) -> None:
        """Put the rows of a copy in order, where what repeats adds up; arguments are not changed."""
        stored.put_in_order(self)

    def sorted_indices(self) -> Any:
        """A copy whose rows are in order, where what repeats adds up."""
        copy = cast(Any, self).copy()
        stored.put_in_order(copy)
        return copy

    def getrow(self, i: Any) -> Any:
        """Row `i` as a matrix of one row."""
        return cast(Any, self)[[i]]

    def getcol(self, j: Any) -> Any:
        """Column `j` as a matrix of one column."""
        return cast(Any, self)[:, [j]]

    indices = property(lambda self: self._listed("indices"))
    indptr = property(lambda self: self._listed("indptr"))
    coords = property(lambda self: self._listed("coords"))
    row = property(lambda self: self._listed("row"))
    col = property(lambda self: self._listed("col"))

    def _listed(self, name: str) -> Any:
        found = stored.member(self, name)
        if found is None:
            raise AttributeError(name)  # which asks `__getattr__`
        return found

    sqrt, sign, expm1, log1p = ew.sqrt, ew.sign, ew.expm1, ew.log1p
    sin, tan, sinh, tanh = ew.sin, ew.tan, ew.sinh, ew.tanh
    arcsin, arctan, arcsinh, arctanh = ew.asin, ew.atan, ew.asinh, ew.atanh
    floor, ceil, trunc, rint = ew.floor, ew.ceil, ew.trunc, ew.rint
    deg2rad, rad2deg = ew.deg2rad, ew.rad2deg

    def toarray(self) -> Any:
        return sparse.toarray(self)

    todense = toarray

    def multiply(self, other: Any) -> Any:
        """Element by element product."""
        return ew.multiply(self, other)

    def power(self, n: Any, dtype: Any = None) -> Any:
        """Element-wise power."""
        out = ew.pow(self, n)
        return out if dtype is None else ew.astype(out, dtype)

    def maximum(self, other: Any) -> Any:
        """The larger of each element and `other`."""
        return ew.maximum(self, other)

    def minimum(self, other: Any) -> Any:
        """The smaller of each element and `other`."""
        return ew.minimum(self, other)

    def nanmax(self, axis: Any = None) -> Any:
        """The largest element that is not NaN."""
        return reductions.nanmax(self, axis)

    def nanmin(self, axis: Any = None) -> Any:
        """The smallest element that is not NaN."""
        return reductions.nanmin(self, axis)

    def getnnz(self, axis: Any = None) -> Any:
        """The number of stored elements, over all or along an axis."""
        return sparse.nnz_of(self) if axis is None else reductions.sum(self._plain(sparse.ones_where_stored(self)), axis, np.int64)

    def count_nonzero(self, axis: Any = None) -> Any:
        """The number of elements that are not zero, over all or along an axis."""
        return reductions.count_nonzero(self, axis)

    def _plain(self, a: Array) -> Array:
        """`a`, whose sums drop axes also where SciPy's matrices keep them."""
        return self.tracer.array_type(a.tracer, a.region, a.name, a.type, a.weak)

    def asformat(self, format: str | None, copy: bool = False) -> Any:
        """The array itself if it has this format (or None is given). Raises UnsupportedError for another one."""
        return self if format is None else self._to(format)

    def tocsr(self) -> Any:
        return self._to("csr")

    def tocsc(self) -> Any:
        return self._to("csc")

    def tocoo(self) -> Any:
        return self._to("coo")

    def _to(self, name: str) -> Any:
        if self.format == name:
            return self
        if name in ("csr", "csc") and self.is_sparse:
            return merging.stored_as(self, (0, 1) if name == "csr" else (1, 0))
        raise UnsupportedError(
            f"conversion of {self.tracer.text(self)} to {name} while tracing", "patterns are not rebuilt by kernels", "convert before the call"
        )
