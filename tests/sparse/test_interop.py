import subprocess
import sys

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings

from polyai.errors import DTypeError, SparseStructureError, UnsupportedError
from polyai.scalar import dtype as dt
from polyai.sparse import interop, ordering
from polyai.sparse.interp import dense

from .strategies import matrices


@given(matrices(kinds=("csr", "csc", "coo")))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_borrowed_arrays_mean_the_matrix(matrix):
    described = interop.describe(matrix)
    assert described.shape == matrix.shape and described.kind == matrix.format and not described.converted
    assert described.is_matrix == isinstance(matrix, sp.spmatrix)
    arrays = interop.arrays_of(matrix, described)
    np.testing.assert_array_equal(dense(interop.storage_of(matrix)), matrix.toarray())
    assert described.nnz == len(arrays["val"]) == matrix.nnz
    assert arrays["val"] is matrix.data
    if matrix.format != "coo":
        assert arrays["crd1"] is matrix.indices and arrays["pos1"] is matrix.indptr
    back = interop.result(matrix.format, matrix.shape, arrays, like=matrix)
    assert type(back) is type(matrix)
    np.testing.assert_array_equal(back.toarray(), matrix.toarray())
    for mine in (back.coords if matrix.format == "coo" else (back.indices, back.indptr)):  # fmt: skip
        for theirs in matrix.coords if matrix.format == "coo" else (matrix.indices, matrix.indptr):
            assert not np.shares_memory(mine, theirs)


@given(matrices())
@settings(max_examples=300, deadline=None, derandomize=True)
def test_order_and_duplicates(matrix):
    found = list(zip(*(c.tolist() for c in ordering.coordinates(matrix))))
    assert ordering.has_duplicates(matrix) == (len(set(found)) < len(found))
    keys = [(c, r) for r, c in found] if matrix.format == "csc" else found
    assert ordering.is_sorted(matrix) == (keys == sorted(keys))


def test_flags_cached_by_scipy_are_not_believed():
    a = sp.csr_array(np.eye(3))
    assert a.has_canonical_format
    a.indices[:] = 0
    a.indptr[:] = [0, 3, 3, 3]
    assert a.has_canonical_format and ordering.has_duplicates(a)


@pytest.mark.parametrize("kind", ["lil", "dok"])
def test_other_kinds_are_converted_visibly(kind):
    a = sp.random_array((6, 8), density=0.3, format="csr", rng=1).asformat(kind)
    described = interop.describe(a)
    assert described.converted and described.origin == kind and described.kind == "csr"
    np.testing.assert_array_equal(dense(interop.storage_of(a)), a.toarray())
    assert not ordering.has_duplicates(a) and ordering.is_sorted(a)
    assert interop.validate(a) == interop.validate_fully(a) == described.nnz


def test_ranks_other_than_two():
    a = sp.coo_array((np.arange(1.0, 4.0), ([0, 1, 1], [2, 0, 1], [0, 3, 2])), shape=(2, 3, 4))
    described = interop.describe(a)
    assert described.format.rank == 3
    np.testing.assert_array_equal(dense(interop.storage_of(a)), a.toarray())
    v = sp.csr_array(np.array([0.0, 2.0, 0.0, 1.0]))
    described = interop.describe(v)
    assert described.kind == "coo" and described.shape == (4,)
    np.testing.assert_array_equal(dense(interop.storage_of(v)), v.toarray())
    assert not ordering.has_duplicates(v)


def test_index_types():
    a = sp.random_array((5, 6), density=0.5, format="csr", rng=0)
    assert interop.describe(a).format.index_bits == 32
    a.indptr = a.indptr.astype(np.int64)  # mixed: both are given as int64
    described = interop.describe(a)
    arrays = interop.arrays_of(a, described)
    assert described.format.index_bits == 64 and arrays["crd1"].dtype == arrays["pos1"].dtype == np.int64
    assert arrays["pos1"] is a.indptr


def test_arrays_that_kernels_cannot_read_are_copied():
    a = sp.random_array((5, 6), density=0.5, format="csr", rng=0)
    want = a.toarray()
    a.data = a.data.astype(">f8")
    a.indices = np.repeat(a.indices, 2)[::2]
    arrays = interop.arrays_of(a, interop.describe(a))
    assert arrays["val"].dtype.isnative and arrays["crd1"].flags.c_contiguous
    np.testing.assert_array_equal(dense(interop.storage_of(a)), want)


def test_spare_room_is_cut_off():
    a = sp.csr_array((np.arange(9.0), np.zeros(9, np.int32), np.array([0, 1, 2], np.int32)), shape=(2, 3))
    arrays = interop.arrays_of(a, interop.describe(a))
    assert len(arrays["val"]) == len(arrays["crd1"]) == 2


def test_types():
    for name in ("bool", "int8", "uint64", "float32", "complex128"):
        assert interop.describe(sp.csr_array(np.eye(2, dtype=name))).dtype == dt.from_numpy(name)
    with pytest.raises(DTypeError, match=r"sparse matrix has dtype (longdouble|float128)"):
        interop.describe(sp.csr_array(np.eye(2, dtype=np.longdouble)))


def test_not_sparse():
    for value in (np.eye(2), [1], None, 3, "csr"):
        assert interop.describe(value) is None and not interop.is_sparse(value)
    with pytest.raises(SparseStructureError, match="ndarray is no scipy"):
        interop.storage_of(np.eye(2))


def broken(**change):
    a = sp.csr_array((np.array([1.0, 2, 3]), np.array([0, 1, 1], np.int32), np.array([0, 2, 2, 3], np.int32)), shape=(3, 3))
    for name, value in change.items():
        setattr(a, name, value)
    return a


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"indptr": np.array([0, 2, 3])}, "csr: indptr has 3 entries"),
        ({"indptr": np.array([1, 2, 2, 3])}, r"indptr\[0\] is 1"),
        ({"indptr": np.array([0, 2, 2, 4])}, r"indptr\[-1\] is 4"),
        ({"indptr": np.array([0, 2, 2, -1])}, r"indptr\[-1\] is -1"),
        ({"indices": np.array([0, 1])}, r"but there are 2 indices and 3 values"),
        ({"data": np.array([1.0])}, "but there are 3 indices and 1 values"),
        ({"indices": np.array([0.0, 1.0, 1.0])}, "indices has dtype float64"),
        ({"indptr": np.array([[0, 2, 2, 3]])}, "indptr has 2 dimensions"),
        ({"data": np.ones((3, 1))}, "data has 2 dimensions"),
    ],
)
def test_broken_arrays_are_found_without_reading_indices(change, text):
    with pytest.raises(SparseStructureError, match=text) as error:
        interop.describe(broken(**change))
    assert "try: rebuild it" in str(error.value) or "try: A.indices" in str(error.value)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"indptr": np.array([0, 2, 1, 3])}, "indptr decreases from 2 to 1 at 1"),
        ({"indices": np.array([0, 3, 1])}, r"indices\[1\] is 3"),
        ({"indices": np.array([0, -1, 1])}, r"indices\[1\] is -1"),
    ],
)
def test_full_validation_reads_all(change, text):
    value = broken(**change)
    assert interop.validate(value) == 3
    with pytest.raises(SparseStructureError, match=text):
        interop.validate_fully(value)


def test_broken_coo():
    a = sp.coo_array(([1.0, 2.0], ([0, 1], [1, 2])), shape=(2, 3))
    a.coords = (a.coords[0], np.array([1, 7]))
    with pytest.raises(SparseStructureError, match=r"coords\[1\]\[1\] is 7"):
        interop.validate_fully(a)
    a.coords = (a.coords[0], np.array([1]))
    with pytest.raises(SparseStructureError, match=r"coords\[1\] has 1 entries"):
        interop.describe(a)


def test_results():
    arrays = {"pos1": np.array([0, 1, 1]), "crd1": np.array([2]), "val": np.array([5.0])}
    a = interop.result("csr", (2, 3), arrays)
    assert isinstance(a, sp.csr_array) and a.toarray().tolist() == [[0, 0, 5], [0, 0, 0]]
    assert isinstance(interop.result("csr", (2, 3), arrays, like=sp.dok_matrix((2, 3))), sp.csr_matrix)
    with pytest.raises(UnsupportedError, match="no SciPy result of kind lil"):
        interop.result("lil", (2, 3), arrays)


def test_scipy_is_not_imported_for_others():
    code = (
        "import sys, numpy as np; from polyai.sparse import interop; assert interop.describe(np.eye(2)) is None\n"
        "import polyai.sparse.pack, polyai.sparse.stats, polyai.sparse.show\n"
        "assert not any(m.startswith('scipy') for m in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
