"""SparseArray: construction, checks, conversions, and compiled functions over formats that SciPy does not have."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

import polyai as pa
from polyai.errors import SparseStructureError
from polyai.sparse.format import Format, coo, csc, csr
from polyai.sparse.levels.compressed import Compressed
from polyai.sparse.levels.dense import Dense

from .strategies import dense_of, formats_of, tensors

DENSE = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 0.0], [2.0, 0.0, 3.0]])


@given(tensors(), st.data())
@settings(max_examples=150, deadline=None, derandomize=True)
def test_what_is_packed_comes_back(tensor, data):
    shape, coordinates, values = tensor
    format = data.draw(st.sampled_from(formats_of(shape)))
    array = pa.SparseArray.pack(format, shape, coordinates, values)
    want = dense_of(shape, coordinates, values)
    np.testing.assert_array_equal(array.toarray(), want)
    np.testing.assert_array_equal(array.to_scipy().toarray(), want)
    assert (array.shape, array.ndim, array.dtype, array.format) == (shape, len(shape), np.float64, format)
    other = data.draw(st.sampled_from(formats_of(shape)))
    np.testing.assert_array_equal(array.convert(other).toarray(), want)


def test_arrays_are_shared_and_counted():
    values = np.array([1.0, 2.0, 3.0])
    array = pa.SparseArray(csr(), (3, 3), {"pos1": np.array([0, 1, 1, 3], "i4"), "crd1": np.array([1, 0, 2], "i4"), "val": values})
    assert np.shares_memory(array.data, values) and array.nnz == 3 and array.nbytes == 3 * 8 + 7 * 4
    np.testing.assert_array_equal(array.toarray(), DENSE)
    assert np.shares_memory(array.to_scipy().data, values) and isinstance(array.to_scipy(), sp.csr_array)
    assert array.astype(np.float32).dtype == np.float32
    assert repr(array) == "<SparseArray 3x3 float64, 3 stored, csr(d0: dense, d1: compressed; int32)>"


@pytest.mark.parametrize(
    ("arrays", "what"),
    [
        ({"pos1": [0, 1, 1, 3], "crd1": [1, 0, 3], "val": [1.0, 2.0, 3.0]}, "crd1[2] is 3"),
        ({"pos1": [0, 2, 1, 3], "crd1": [1, 0, 2], "val": [1.0, 2.0, 3.0]}, "pos1 decreases"),
        ({"pos1": [0, 1, 1, 3], "crd1": [1, 0, 2], "val": [1.0, 2.0]}, "val has shape (2,)"),
        ({"pos1": [0, 1, 1, 3], "crd1": [1, 2, 0], "val": [1.0, 2.0, 3.0]}, "entry 2 comes before entry 1"),
        ({"crd1": [1, 0, 2], "val": [1.0, 2.0, 3.0]}, "arrays missing: ['pos1']"),
        ({"pos1": [0, 1, 1, 3], "crd1": [1, 0, 2]}, "the array val is missing"),
    ],
)
def test_broken_arrays_are_refused(arrays, what):
    given = {n: np.array(a, np.float64 if n == "val" else np.int32) for n, a in arrays.items()}
    with pytest.raises(SparseStructureError) as caught:
        pa.SparseArray(csr(), (3, 3), given)
    assert what in str(caught.value)


@pytest.mark.parametrize("format", [csr(), csc(), coo(), csr(64), Format("dense_rows", (0, 1), (Compressed(), Dense()))], ids=lambda f: f"{f.name}{f.index_bits}")
def test_a_kernel_reads_it(format):
    array = pa.SparseArray.from_dense(DENSE, format)
    X = np.arange(6.0).reshape(3, 2)

    @pa.jit
    def product(A, X):
        return A @ X

    @pa.jit
    def doubled(A):
        return A * 2.0

    @pa.jit
    def turned(A):
        return A.T * 3.0

    np.testing.assert_allclose(product(array, X), DENSE @ X)
    twice = doubled(array)
    assert isinstance(twice, pa.SparseArray) and twice.format == format
    np.testing.assert_array_equal(twice.toarray(), DENSE * 2)
    np.testing.assert_array_equal(turned(array).toarray(), DENSE.T * 3)


def test_indices_changed_in_place_are_caught():
    array = pa.SparseArray.from_dense(DENSE, csr())

    @pa.jit
    def product(A, x):
        return A @ x

    x = np.ones(3)
    np.testing.assert_allclose(product(array, x), DENSE @ x)
    array.storage.arrays["crd1"][0] = 7
    with pytest.raises(SparseStructureError, match="column index 7"):
        product(array, x)
    array.storage.arrays["crd1"][0] = 1
    array.storage.arrays["pos1"][1] = 9
    with pytest.raises(SparseStructureError, match="indptr of A holds 9"):
        product(array, x)
