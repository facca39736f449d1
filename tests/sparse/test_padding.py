"""DIA arguments and padded formats: calls against dense arrays, every interpreter against the oracle, what may be wrong."""

import dataclasses

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

import polyai as pa
from polyai import pipeline
from polyai.calls.engine import runtime
from polyai.errors import IndexOutOfRangeError, SparseStructureError, UnsupportedError
from polyai.loop.interp import run as run_loops
from polyai.machine import emit
from polyai.options import Options
from polyai.poly.interp import run as run_scop
from polyai.runtime.bind import address
from polyai.runtime.kernel import signature_of
from polyai.scalar.dtype import to_numpy
from polyai.shapes.expr import evaluate
from polyai.sparse import interop
from polyai.sparse.format import banded, bitmap, dia, ell
from polyai.sparse.interp import dense, walk
from polyai.sparse.level import Can
from polyai.sparse.pack import pack
from polyai.sparse.storage import Storage
from polyai.sparse.verify import verify
from polyai.tensor.evaluate import SparseValue
from polyai.tensor.interp import run as run_tensor
from polyai.tensor.nodes import nnz_of
from tests.lower.meaning import number
from tests.programs import PROGRAMS

from .strategies import dense_of, tensors

FORMATS = [dia(), ell(), ell(8), bitmap(), banded(4, 4)]
NAMES = [f"{f.name}{f.index_bits}" for f in FORMATS]


@given(tensors(ranks=(2,)), st.sampled_from(FORMATS))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_what_is_packed_comes_back(tensor, format):
    shape, coordinates, values = tensor
    storage = pack(format, shape, coordinates, values)
    verify(storage)
    want = dense_of(shape, coordinates, values)
    np.testing.assert_array_equal(dense(storage), want)
    array = pa.SparseArray(format, shape, storage.arrays)
    np.testing.assert_array_equal(array.to_scipy().toarray(), want)
    found = walk(format, shape, storage.arrays)
    assert array.nnz == len(found.positions) == len(set(zip(*map(np.ndarray.tolist, found.coordinates))))
    for c, extent in zip(found.coordinates, shape):
        assert ((c >= 0) & (c < extent)).all()


@pa.jit
def many(A, X, Y, Q, K):
    products = A @ X, A.T @ Y, pa.relu(A @ X + 1.0), A @ X[:, 0], A.T @ Y[:, 0]
    along = pa.relu(A * 2.0), pa.sddmm(Q, K, A), pa.multiply(A, Y[:, :1])
    sums = A.sum(axis=0), A.sum(axis=1), A.sum(), pa.max(A, axis=1)
    return products, along, sums, A.toarray()


def agree(A, D, seed=0):
    rng, (n, m) = np.random.default_rng(seed), D.shape
    X, Y, Q, K = rng.standard_normal((m, 5)), rng.standard_normal((n, 5)), rng.standard_normal((n, 3)), rng.standard_normal((m, 3))
    products, along, sums, whole = many(A, X, Y, Q, K)
    for got, want in zip(products, (D @ X, D.T @ Y, np.maximum(D @ X + 1, 0), D @ X[:, 0], D.T @ Y[:, 0])):
        np.testing.assert_allclose(got, want, atol=1e-12)
    for got, want in zip(along, (np.maximum(D * 2, 0), D * (Q @ K.T), D * Y[:, :1])):
        assert isinstance(got, type(A)) and got.format == A.format
        np.testing.assert_allclose(got.toarray(), want, atol=1e-12)
    for got, want in zip(sums, (D.sum(0), D.sum(1), D.sum(), D.max(axis=1))):
        np.testing.assert_allclose(got, want, atol=1e-12)
    np.testing.assert_array_equal(whole, D)


def band(n, m, seed):
    rng = np.random.default_rng(seed)
    return np.triu(np.tril(rng.integers(-3, 4, (n, m)), 3), -2).astype(np.float64)


@pytest.mark.parametrize("format", FORMATS, ids=NAMES)
def test_kernels_agree_with_dense_arrays(format):
    for seed, (n, m) in enumerate([(5, 7), (7, 4), (1, 1), (1, 6), (70, 70), (0, 3)]):
        D = band(n, m, seed)
        agree(pa.SparseArray.from_dense(D, format), D, seed)


@pytest.mark.parametrize("index", [np.int32, np.int64])
def test_diagonals_of_scipy_agree_with_dense_arrays(index):
    for seed, (n, m, length, offsets) in enumerate([(5, 7, 7, [0, 2, -3]), (6, 4, 9, [1, -5, 3, 9]), (7, 9, 3, [-1, 0]), (4, 4, 4, []), (0, 3, 3, [1])]):
        data = np.random.default_rng(seed).integers(-3, 4, (len(offsets), length)).astype(np.float64)
        A = sp.dia_array((data, np.array(offsets, dtype=index)), shape=(n, m))
        A.offsets = A.offsets.astype(index)
        agree(A, A.toarray(), seed)
        stored = interop.storage_of(A)
        np.testing.assert_array_equal(dense(stored), A.toarray())
        assert isinstance(pa.SparseArray(stored.format, stored.shape, stored.arrays).to_scipy(), sp.dia_array)


def test_diagonals_are_borrowed_and_take_the_fast_way():
    @pa.jit
    def product(A, x):
        return A @ x

    A, x = sp.dia_array((np.ones((2, 300)), [0, 5]), shape=(300, 300)), np.arange(300.0)
    described = interop.describe(A)
    assert not described.converted and np.shares_memory(interop.arrays_of(A, described)["val"], A.data)
    for _ in range(3):
        np.testing.assert_allclose(product(A, x), A @ x)
    B = sp.dia_array((np.ones((3, 40)), [0, 5, -2]), shape=(40, 60))
    np.testing.assert_allclose(product(B, np.arange(60.0)), B @ np.arange(60.0))
    text = str(product.explain(A, x))
    assert "A.val[ramp(" in text and "x[ramp(" in text and "x[add_value" not in text  # contiguous: no gather


# --- what may be wrong ------------------------------------------------------------------------------------------------------


@pa.jit
def times(A, x):
    return A @ x


def test_broken_diagonals_raise():
    x = np.ones(6)
    for change, text in [
        (lambda A: setattr(A, "data", A.data[:1]), "2 offsets need as many rows"),
        (lambda A: setattr(A, "data", A.data.reshape(-1)), "data has shape"),
        (lambda A: setattr(A, "offsets", A.offsets.astype(np.float64)), "a list of integers"),
    ]:
        A = sp.dia_array((np.ones((2, 6)), [0, 1]), shape=(6, 6))
        np.testing.assert_allclose(times(A, x), A @ x)
        change(A)
        with pytest.raises(SparseStructureError, match=text):
            times(A, x)
    A = sp.dia_array((np.ones((2, 6)), [0, 1]), shape=(6, 6))
    A.offsets[:] = [2**31 - 1, -(2**31)]  # every diagonal is outside, wherever it is
    np.testing.assert_array_equal(times(A, x), np.zeros(6))


def test_indices_of_slots_changed_in_place_are_caught():
    A, x = pa.SparseArray.from_dense(band(5, 7, 0), ell()), np.ones(7)
    np.testing.assert_allclose(times(A, x), band(5, 7, 0) @ x)
    for bad in (7, -2, 2**31 - 1):
        before = A.storage.arrays["crd1"][0]
        A.storage.arrays["crd1"][0] = bad
        with pytest.raises((SparseStructureError, IndexOutOfRangeError), match=str(bad)):
            times(A, x)
        A.storage.arrays["crd1"][0] = before


def test_a_diagonal_given_twice_adds_up_and_is_refused_along_the_pattern():
    A = sp.dia_array((np.ones((2, 6)), [0, 1]), shape=(6, 6))
    A.offsets[:] = [1, 1]
    np.testing.assert_allclose(times(A, np.arange(6.0)), 2 * np.array([1, 2, 3, 4, 5, 0]))
    with pytest.raises(SparseStructureError, match="more than once"):
        pa.jit(lambda A: pa.relu(A))(A)


def test_broken_storages_are_refused():
    with pytest.raises(SparseStructureError, match=r"crd1\[0\] is -2"):
        pa.SparseArray(ell(), (2, 3), {"crd1": np.array([-2, 0], np.int32), "val": np.ones(2)})
    with pytest.raises(SparseStructureError, match="val has shape"):
        pa.SparseArray(ell(), (2, 3), {"crd1": np.array([1, 0], np.int32), "val": np.ones(3)})
    with pytest.raises(SparseStructureError, match="no room for coordinate 4"):
        pack(banded(1, 1), (5, 5), ([0], [4]), [1.0])
    with pytest.raises(SparseStructureError, match="indices of ell have 8 bits"):
        pack(ell(8), (2, 300), ([0], [299]), [1.0])


def test_levels_say_what_they_can():
    for format in FORMATS:
        for n, level in enumerate(format.levels):
            if Can.LOCATE not in level.can:
                with pytest.raises(UnsupportedError, match="iterate it instead"):
                    level.locate("A", n, None, None, None)


# --- every level ------------------------------------------------------------------------------------------------------------

SIZES = {"n": 12, "m": 6, "c": 12, "d": 4, "h": 5, "p": 4}


@pytest.mark.parametrize("format", [dia(), ell(), bitmap()], ids=lambda f: f.name)
@pytest.mark.parametrize("name", ["spmv", "spmm_csr", "spmm_transposed", "spmm_bias_relu", "sddmm", "sparse_softmax"])
def test_every_interpreter_and_the_machine_agree(name, format):
    old = PROGRAMS[name]().program
    inputs = tuple(dataclasses.replace(i, type=dataclasses.replace(i.type, format=format)) if i.type.is_sparse else i for i in old.inputs)
    program, rng = dataclasses.replace(old, inputs=inputs), np.random.default_rng(0)
    arguments, arrays, sizes = {}, {}, dict(SIZES)
    for given_ in inputs:
        shape, dtype = tuple(evaluate(e, SIZES) for e in given_.type.shape), to_numpy(given_.type.dtype)
        if given_.type.is_sparse:
            at = np.nonzero(np.triu(np.tril(np.ones(shape), 3), -2))
            owner = SparseValue(at, rng.standard_normal(len(at[0])).astype(dtype), shape)
            arguments[given_.name] = owner
            storage = pack(format, shape, at, owner.values)
            sizes |= {nnz_of(given_.name): len(at[0]), **{f"{given_.name}.{k}": v for k, v in storage.lengths().items()}}
            arrays |= storage.named(given_.name)
        else:
            arguments[given_.name] = arrays[given_.name] = rng.standard_normal(shape).astype(dtype)
    whole = run_tensor(program, arguments, SIZES)

    def check(found, level):
        for o in program.outputs:
            want, got = whole[o], np.asarray(found[o])
            if isinstance(want, SparseValue):
                got = dense(Storage(format, want.shape, {**storage.arrays, "val": got.reshape(-1)}))
                want = want.todense()
            np.testing.assert_allclose(got, want, rtol=2e-4, atol=1e-5, err_msg=level)

    def shaped(p):
        shape = tuple(number(e, sizes) for e in p.extents)
        return np.zeros(shape, to_numpy(p.dtype)) if p.role == "output" else np.ascontiguousarray(arrays[p.name], to_numpy(p.dtype)).reshape(shape)

    def watch(stage, build, milliseconds):
        if stage.name == "padding":
            shapes = {i.name: tuple(evaluate(e, sizes) for e in i.type.shape) for i in build.program.inputs}
            check(run_tensor(build.program, {n: arrays[n].reshape(s) for n, s in shapes.items()}, sizes), stage.name)
            arrays.update({n: arrays[n].reshape(s) for n, s in shapes.items()})
        elif stage.form == "poly":
            check(run_scop(build.scops[0], arrays, sizes), stage.name)
        elif stage.form == "loop":
            args = {p.name: sizes[p.name] if p.extents is None else shaped(p) for p in build.loops.params}
            assert run_loops(build.loops, args) == 0
            check(args, stage.name)

    options = Options(blas="never", verify=True)
    build = pipeline.compile_program(program, {}, options, pipeline.target_for(options), verify=True, watch=watch)
    kernel = runtime()._load(signature_of(build.loops, emit.externs(build.loops), True), build.code, {})
    for threads in (1, 2):
        kept = {p.name: shaped(p) for p in build.loops.params if p.extents is not None}
        runtime().launch(kernel, [sizes[p.name] if p.extents is None else address(kept[p.name]) for p in build.loops.params], threads)
        check(kept, f"code on {threads} threads")


@pytest.mark.parametrize("format", ["dia", "ell", "bsr", "dcsr"])
def test_loops_and_branches_read_padded_storage_where_it_is(format):
    B = sp.diags_array([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 0.5, -1.0], offsets=[0, 2, -1], shape=(6, 6)).tocsr()
    A = pa.sparse_array(B, format, blocksize=(2, 3) if format == "bsr" else None)
    x = np.arange(6.0)

    @pa.jit
    def stepped(A, x):
        def step(state):
            v, k = state
            return pa.cond(pa.sum(v) > 1e3, lambda v: v, lambda v: A @ v + A.T @ v, v), k + 1

        looped, _ = pa.while_loop(lambda state: state[1] < 5, step, (x, pa.asarray(0)))
        scanned, rows = pa.scan(lambda v, _: (A @ v, pa.sum(v)), x, length=3)
        return looped, scanned, rows, A @ x

    with pa.options(verify=True):
        looped, scanned, rows, once = stepped(A, x)
    v = x
    for _ in range(5):
        v = v if v.sum() > 1e3 else B @ v + B.T @ v
    np.testing.assert_allclose(looped, v)
    np.testing.assert_allclose(scanned, B @ (B @ (B @ x)))
    np.testing.assert_allclose(rows, [x.sum(), (B @ x).sum(), (B @ (B @ x)).sum()])
    np.testing.assert_allclose(once, B @ x)
