"""Results as scipy.sparse values, around arrays that nobody else has."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]


def made(kind: str, shape: tuple[int, ...], arrays: Mapping[str, Array], is_matrix: bool, tidy: bool) -> Any:
    """A scipy.sparse value around arrays that nobody else has; `tidy` if its coordinates are in order and unique."""
    import scipy.sparse as sparse

    cls = getattr(sparse, f"{kind}_{'matrix' if is_matrix else 'array'}")
    known = None if is_matrix else _attributes(cls, tidy)
    if known is not None:  # SciPy's constructors look at every array again
        out = cls.__new__(cls)
        out.__dict__.update(known, _shape=shape, data=arrays["val"], indices=arrays["crd1"], indptr=arrays["pos1"])
        return out
    out = cls((arrays["val"], arrays["crd1"], arrays["pos1"]), shape=shape)
    if tidy:
        out.has_canonical_format = True
    return out


def line(row: Any) -> Any:
    """A matrix of one row in CSR as a `coo_array` of one dimension around the same arrays."""
    import scipy.sparse as sparse

    out = sparse.coo_array((row.data, (row.indices,)), shape=row.shape[1:])
    out.has_canonical_format = True
    return out


@cache
def _attributes(cls: Any, tidy: bool) -> dict[str, Any] | None:
    """What an empty value of a class holds beside its arrays and its shape, if it is (not) known to be in order; None if it holds these
    in another way."""
    empty = cls((0, 0))
    if tidy:
        empty.has_canonical_format = True
    found = dict(empty.__dict__)
    if not tidy:
        found.pop("_has_canonical_format", None)
        found.pop("_has_sorted_indices", None)
    return found if {"_shape", "data", "indices", "indptr"} <= found.keys() else None
