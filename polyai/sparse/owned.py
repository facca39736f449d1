"""Matrices whose arrays nobody can change: what was checked once stays true, and kernels check nothing again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from polyai.sparse.format import Format
from polyai.sparse.levels.compressed import Compressed
from polyai.sparse.levels.dense import Dense

Array = NDArray[Any]


def frozen(array: Array) -> Array:
    """A contiguous copy that cannot be made writable again."""
    copy = np.array(array, order="C", copy=True)
    if not copy.size:
        copy.flags.writeable = False
        return copy
    return np.frombuffer(copy.reshape(-1).data.toreadonly(), dtype=copy.dtype).reshape(copy.shape)


@final
class Owned:
    """A matrix in CSR, or consecutive pieces of one dimension ("pieces": row r stands for positions pos[r] to pos[r + 1]), or
    "runs" of one dimension for each block and head.

    Made by `owned_csr`, `pieces` and `runs`, which get arrays that were checked before. Compiled functions take it like a
    `scipy.sparse.csr_array`; `indptr`, `indices` and `data` are read-only.
    """

    __slots__ = ("_shape", "data", "format", "indices", "indptr", "nnz")

    def __init__(self, format: Format, shape: tuple[int, ...], indptr: Array, indices: Array, data: Array, nnz: int | None = None) -> None:
        self.format, self._shape = format, shape
        self.indptr, self.indices, self.data = indptr, indices, data
        self.nnz = len(data) if nnz is None else nnz

    @property
    def arrays(self) -> dict[str, Array]:
        """What kernels read, by suffix."""
        level = next(n for n, x in enumerate(self.format.levels) if not x.full)
        return {f"pos{level}": self.indptr, f"crd{level}": self.indices, "val": self.data}

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape

    @property
    def ndim(self) -> int:
        return len(self._shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.data.dtype

    @property
    def nbytes(self) -> int:
        """Bytes that kernels read."""
        return self.indptr.nbytes if self.format.name == "pieces" else self.indptr.nbytes + self.indices.nbytes + self.data.nbytes

    def __repr__(self) -> str:
        return f"<Owned {self.format.name} {'x'.join(map(str, self.shape))} {self.dtype}, {self.nnz} stored>"


def owned_csr(shape: tuple[int, int], indptr: Array, indices: Array, data: Array) -> Owned:
    """CSR of arrays that were checked: columns in range, ascending in each row, no repeats."""
    bits = 32 if len(indices) < 1 << 31 and max(shape, default=0) < 1 << 31 else 64
    index = np.dtype(f"i{bits // 8}")
    form = Format("csr", (0, 1), (Dense(), Compressed()), bits, owned=True)
    return Owned(form, shape, frozen(indptr.astype(index, copy=False)), frozen(indices.astype(index, copy=False)), frozen(data))


def nearer(matrix: Owned) -> Owned:
    """The same arrays, for kernels that do not ask early for what the rows name."""
    return Owned(replace(matrix.format, near=True), matrix.shape, matrix.indptr, matrix.indices, matrix.data, matrix.nnz)


def pieces(pos: Array, name: str = "pieces") -> Owned:
    """Piece r covers the positions pos[r] <= p < pos[r + 1]; pos ascends from 0. It has no coordinates and no values.
    `name` "ragged": the rows of a batch, which has others in the next call."""
    count = int(pos[-1])
    bits = 32 if count < 1 << 31 else 64
    form = Format(name, (0, 1), (Dense(), Compressed(implicit=True)), bits, owned=True)
    index = np.dtype(f"i{bits // 8}")
    nothing = np.zeros(count, index), np.zeros(count, np.int8)  # never touched: the call path looks at their lengths
    return Owned(form, (len(pos) - 1, count), frozen(pos.astype(index, copy=False)), *nothing)


def spread() -> Format:
    """Consecutive runs of positions that a program counts itself: as those of `pieces`, with 64-bit positions."""
    return Format("spread", (0, 1), (Dense(), Compressed(implicit=True)), 64, owned=True)


def runs(first: Array, length: Array, parents: tuple[int, ...], extent: int, block: int) -> Owned:
    """For each parent, a place in an array of `parents` extents, the coordinates first <= j < first + length of a dimension of
    `extent`, each with `block` elements below. It has no values."""
    pos = np.zeros(len(length) + 1, np.int64)
    np.cumsum(length, out=pos[1:])
    count = int(pos[-1])
    bits = 32 if max(count, extent) < 1 << 31 else 64
    above = tuple(Dense() for _ in parents)
    form = Format("runs", tuple(range(len(parents) + 2)), (*above, Compressed(run=True), Dense()), bits, owned=True)
    index = np.dtype(f"i{bits // 8}")
    starts = np.append(first, 0).astype(index)
    return Owned(form, (*parents, extent, block), frozen(pos.astype(index)), frozen(starts), np.zeros(0, np.int8), count)
