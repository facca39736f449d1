"""Formats, coordinates and SciPy matrices: empty rows, extents 0 and 1, duplicates, any order."""

import numpy as np
import scipy.sparse as sp
from hypothesis import strategies as st

from polyai.sparse.format import Format, bsr, coo, csc, csf, csr, dcsr
from polyai.sparse.levels.compressed import Compressed
from polyai.sparse.levels.dense import Dense

FORMATS = {
    1: [coo(1), csf(1), Format("dense", (0,), (Dense(),))],
    2: [csr(), csr(64), csc(), coo(), coo(2, 64), dcsr(), csf(2), Format("cols", (1, 0), (Compressed(), Dense())), Format("dense", (1, 0), (Dense(), Dense())), bsr(1, 1), bsr(2, 1), bsr(1, 3, 64), bsr(2, 2)],
    3: [coo(3), csf(3), Format("rot", (2, 0, 1), (Compressed(), Compressed(), Compressed())), Format("mid", (0, 2, 1), (Dense(), Compressed(), Dense()))],
}  # fmt: skip


def formats_of(shape):
    """Formats that can hold a tensor of `shape`: their blocks divide it."""
    return [f for f in FORMATS[len(shape)] if all(extent % (f.block(d) or 1) == 0 for d, extent in enumerate(shape))]


@st.composite
def tensors(draw, ranks=(1, 2, 3)):
    """(shape, coordinates, values) with duplicates, in any order."""
    rank = draw(st.sampled_from(ranks))
    shape = tuple(draw(st.integers(0, 5)) for _ in range(rank))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    count = draw(st.integers(0, 12)) if min(shape) else 0
    coordinates = tuple(rng.integers(0, max(1, extent), count) for extent in shape)
    return shape, coordinates, rng.integers(1, 9, count).astype(np.float64)


@st.composite
def matrices(draw, kinds=("csr", "csc", "coo"), both=True):
    """SciPy matrices and arrays with duplicates and unsorted rows, int32 or int64 indices."""
    shape, (row, column), values = draw(tensors(ranks=(2,)))
    kind, bits = draw(st.sampled_from(kinds)), draw(st.sampled_from([np.int32, np.int64]))
    flavour = draw(st.sampled_from(["matrix", "array"])) if both else "array"
    cls = getattr(sp, f"{kind}_{flavour}")
    if kind == "coo":
        return cls((values, (row.astype(bits), column.astype(bits))), shape=shape)
    major, minor, extent = (row, column, shape[0]) if kind == "csr" else (column, row, shape[1])
    by = np.argsort(major, kind="stable")
    pos = np.concatenate([[0], np.cumsum(np.bincount(major, minlength=extent))])
    out = cls(shape)
    out.data, out.indices, out.indptr = values[by], minor[by].astype(bits), pos.astype(bits)
    return out


def dense_of(shape, coordinates, values):
    out = np.zeros(shape)
    np.add.at(out, coordinates, values)
    return out
