"""Sparse tensors of PyTorch and of pydata/sparse as storages that share their arrays. Neither library is imported.

    torch.sparse_coo, torch.sparse_csr, torch.sparse_csc    by `layout`, `_indices`, `_values`, `crow_indices`, ...
    sparse.COO                                              by `coords` (one row per dimension), `data`, `shape`, `fill_value`

Both kinds of COO may be unsorted and repeat coordinates, which then add up. What is computed along such a tensor's pattern
comes back as a `SparseArray`.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from polyai.errors import SparseStructureError, UnsupportedError
from polyai.sparse.format import Format, csc, csr, with_fill
from polyai.sparse.levels.compressed import Compressed
from polyai.sparse.storage import Storage
from polyai.term.late import late

if TYPE_CHECKING:
    from polyai.sparse.levels import singleton
else:
    singleton = late("polyai.sparse.levels.singleton")

Array = NDArray[Any]


@cache
def unordered_coo(rank: int, index_bits: int) -> Format:
    """COO that promises nothing: neither order nor that coordinates occur once. Of one dimension, a plain list."""
    if rank == 1:
        return Format("coo", (0,), (Compressed(ordered=False, unique=False),), index_bits)
    below = (singleton.Singleton(ordered=False, unique=False),) * (rank - 1)
    return Format("coo", tuple(range(rank)), (Compressed(ordered=False, unique=False), *below), index_bits)


def is_foreign(value: object) -> bool:
    """True for a sparse tensor of PyTorch, and for an object that looks like pydata/sparse's COO."""
    return _is_torch(value) or _is_listed(value)


def adopt(value: Any) -> Storage | None:
    """`value` as a storage around its own arrays; None if it is not foreign.

    Raises UnsupportedError for tensors on other devices, blocked or hybrid layouts,
    SparseStructureError for arrays that do not belong together.
    """
    if _is_torch(value):
        return _torch(value)
    return _listed(value) if _is_listed(value) else None


def _is_torch(value: object) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor) and value.layout is not torch.strided


def _is_listed(value: object) -> bool:
    if hasattr(type(value), "tracer"):  # an array of a trace, which computes its lists when it is asked for them
        return False
    coords, data = getattr(value, "coords", None), getattr(value, "data", None)
    return isinstance(coords, np.ndarray) and coords.ndim == 2 and isinstance(data, np.ndarray) and isinstance(getattr(value, "shape", None), tuple)


def _listed(value: Any) -> Storage:
    made = _coo(tuple(map(int, value.shape)), tuple(value.coords), value.data)
    fill = np.asarray(getattr(value, "fill_value", 0)).item()
    return made if fill == 0 else Storage(with_fill(made.format, fill), made.shape, made.arrays)


def _coo(shape: tuple[int, ...], coords: tuple[Array, ...], values: Array) -> Storage:
    if not shape:
        raise UnsupportedError("a sparse tensor without dimensions", "it is one number", "pass its value")
    if len(coords) != len(shape) or any(c.shape != values.shape for c in coords) or values.ndim != 1:
        shapes = ", ".join(str(c.shape) for c in coords)
        raise SparseStructureError("coordinates and values do not fit together", f"coordinates {shapes}, values {values.shape}, shape {shape}", "rebuild the tensor")
    narrow = all(c.dtype == np.int32 for c in coords)
    index = np.dtype(np.int32 if narrow else np.int64)
    arrays = {f"crd{n}": np.require(c, index, ("C", "A")) for n, c in enumerate(coords)}
    arrays["pos0"] = np.array([0, len(values)], index)
    return Storage(unordered_coo(len(shape), 32 if narrow else 64), shape, {**arrays, "val": _native(values)})


def _native(values: Array) -> Array:
    return np.require(values, values.dtype.newbyteorder("="), ("C", "A"))


def _torch(value: Any) -> Storage:
    torch = sys.modules["torch"]
    shape = tuple(map(int, value.shape))
    if value.device.type != "cpu":
        raise UnsupportedError(f"a sparse tensor on {value.device}", "kernels run on the CPU", "pass tensor.cpu()")
    if value.layout is torch.sparse_coo:
        if value.dense_dim():
            raise UnsupportedError("a hybrid sparse tensor", f"{value.dense_dim()} of its dimensions are dense", "pass a tensor whose dimensions are all sparse")
        indices = _numpy(value._indices())
        return _coo(shape, tuple(indices), _numpy(value._values()))
    parts = {torch.sparse_csr: ("crow_indices", "col_indices"), torch.sparse_csc: ("ccol_indices", "row_indices")}.get(value.layout)
    if parts is None or len(shape) != 2:
        raise UnsupportedError(f"a {value.layout} tensor with {len(shape)} dimensions", "read are sparse_coo, and sparse_csr and sparse_csc matrices", "pass tensor.to_sparse_coo()")
    pos, crd = (_numpy(getattr(value, part)()) for part in parts)
    values = _numpy(value.values())
    if values.ndim != 1:
        raise UnsupportedError("a sparse matrix whose elements are arrays", f"its values have the shape {values.shape}", "pass a tensor of numbers")
    make = csr if value.layout is torch.sparse_csr else csc
    bits = 32 if pos.dtype == crd.dtype == np.int32 else 64
    index = np.dtype(f"i{bits // 8}")
    arrays = {"pos1": np.require(pos, index, ("C", "A")), "crd1": np.require(crd, index, ("C", "A")), "val": _native(values)}
    return Storage(make(bits), shape, arrays)


def _numpy(tensor: Any) -> Array:
    """The tensor's memory as an array; conjugated and negated views are made real first."""
    out: Array = tensor.detach().resolve_conj().resolve_neg().numpy()
    return out
