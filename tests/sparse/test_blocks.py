"""BSR arguments: compiled functions against SciPy, every interpreter against the oracle, broken arrays, bad blocks."""

import dataclasses

import numpy as np
import pytest
import scipy.sparse as sp

import polyai as pa
from polyai import pipeline
from polyai.calls.engine import runtime
from polyai.errors import ShapeError, SparseStructureError
from polyai.loop.interp import run as run_loops
from polyai.machine import emit
from polyai.options import Options
from polyai.poly.interp import run as run_scop
from polyai.runtime.bind import address
from polyai.runtime.kernel import signature_of
from polyai.scalar.dtype import to_numpy
from polyai.shapes.expr import evaluate, symbols
from polyai.sparse import interop, ordering
from polyai.sparse.format import Block, Format, Inner, bsr, csr
from polyai.sparse.interp import dense, walk
from polyai.sparse.levels.compressed import Compressed
from polyai.sparse.levels.dense import Dense
from polyai.sparse.pack import pack
from polyai.sparse.verify import verify_format
from polyai.tensor.evaluate import SparseValue
from polyai.tensor.interp import run as run_tensor
from polyai.tensor.nodes import nnz_of
from polyai.tensor.passes import blocks
from tests.lower.meaning import number
from tests.programs import PROGRAMS

BLOCKS = [(1, 1), (2, 3), (4, 4), (3, 1), (8, 2)]


def matrix(block, grid, seed=0, dtype=np.float64, index=np.int32, cls=sp.bsr_array):
    """A random BSR matrix of `grid` blocks: its first block row is empty, its second full; blocks hold zeros too."""
    rng = np.random.default_rng(seed)
    mask = rng.random(grid) < 0.4
    if grid[0] > 1:
        mask[0], mask[1] = False, True
    pattern = sp.csr_array(mask)
    data = rng.integers(-3, 4, (pattern.nnz, *block)).astype(dtype)
    shape = (grid[0] * block[0], grid[1] * block[1])
    out = cls((data, pattern.indices.astype(index), pattern.indptr.astype(index)), shape=shape, blocksize=block)
    assert out.blocksize == block
    return out


def made():
    """How many kernels there are so far, compiled or taken from the cache."""
    counts = pa.stats()
    return counts["compiles"] + counts["cache_hits"]


@pa.jit
def many(A, X, Y, Q, K):
    products = A @ X, A.T @ Y, pa.relu(A @ X + 1.0), A @ X[:, 0]
    along = pa.relu(A * 2.0), pa.sddmm(Q, K, A), pa.multiply(A, Y[:, :1])
    sums = A.sum(axis=0), A.sum(axis=1), A.sum(), pa.max(A, axis=1)
    return products, along, sums, A.toarray()


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("index", [np.int32, np.int64])
def test_it_agrees_with_dense_arrays(block, index):
    for seed, grid in enumerate([(5, 4), (1, 1), (0, 3), (3, 0), (2, 7)]):
        A = matrix(block, grid, seed, index=index, cls=sp.bsr_matrix if seed == 0 else sp.bsr_array)
        rng = np.random.default_rng(seed)
        D, (n, m) = A.toarray(), A.shape
        X, Y, Q, K = rng.standard_normal((m, 5)), rng.standard_normal((n, 5)), rng.standard_normal((n, 3)), rng.standard_normal((m, 3))
        if not m:
            continue  # a maximum of nothing
        products, along, sums, whole = many(A, X, Y, Q, K)
        for got, want in zip(products, (D @ X, D.T @ Y, np.maximum(D @ X + 1, 0), D @ X[:, 0])):
            np.testing.assert_allclose(got, want, atol=1e-12)
        for got, want in zip(along, (np.maximum(D * 2, 0), D * (Q @ K.T), D * Y[:, :1])):
            assert isinstance(got, type(A)) and got.blocksize == block and got.format == "bsr"
            np.testing.assert_allclose(got.toarray(), want, atol=1e-12)
        for got, want in zip(sums, (D.sum(0), D.sum(1), D.sum(), D.max(axis=1))):
            np.testing.assert_allclose(got, np.asarray(want).reshape(np.shape(got)), atol=1e-12)
        np.testing.assert_array_equal(whole, D)


def test_nothing_is_converted_and_blocks_are_part_of_the_signature():
    @pa.jit
    def product(A, X):
        return A @ X

    before, kernels = pa.stats()["conversions"], made()
    X = np.ones((12, 3))
    for block, compiles in (((2, 3), 1), ((4, 4), 2), ((2, 3), 2), ((3, 2), 3)):
        A = matrix(block, (12 // block[0], 12 // block[1]), 3)
        for B in (A, A):  # the second call takes the fast way
            np.testing.assert_allclose(product(B, X), A.toarray() @ X)
        assert made() - kernels == compiles
    assert pa.stats()["conversions"] == before
    described = interop.describe(A)
    assert not described.converted and described.format == bsr(3, 2) and described.nnz == len(A.indices)
    assert np.shares_memory(interop.arrays_of(A, described)["val"], A.data)


def test_the_number_of_stored_elements_counts_blocks_whole():
    @pa.jit
    def scaled(A, x):
        return A @ x / A.nnz

    A = matrix((2, 3), (4, 5))
    x = np.arange(15.0)
    np.testing.assert_allclose(scaled(A, x), A @ x / A.nnz)


def test_results_along_a_transposed_pattern_are_converted_visibly():
    @pa.jit
    def turned(A):
        return A.T * 3.0

    A, before = matrix((2, 3), (4, 5)), pa.stats()["conversions"]
    result = turned(A)
    np.testing.assert_array_equal(result.toarray(), A.toarray().T * 3)
    assert result.format == "bsr" and pa.stats()["conversions"] == before + 1


def test_rows_of_blocks_are_jammed():
    text = str(pa.explain(lambda A, X: A @ X, matrix((8, 4), (64, 64), dtype=np.float32), np.ones((256, 64), np.float32)))
    assert "jam=4 for i_in" in text and "vector for j" in text


# --- what may be wrong ------------------------------------------------------------------------------------------------------


@pa.jit
def times(A, x):
    return A @ x


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda A: A.indices.__setitem__(0, 9), "block column index 9 of A is outside"),
        (lambda A: A.indices.__setitem__(0, -1), "block column index -1 of A is outside"),
        (lambda A: A.indptr.__setitem__(1, 99), "indptr of A holds 99"),
        (lambda A: setattr(A, "data", A.data[:, :1]), "blocks of 1 do not divide|indptr has|is stored as"),
        (lambda A: setattr(A, "data", A.data.reshape(-1)), "data has shape"),
        (lambda A: setattr(A, "data", A.data[:-1]), "indptr\\[-1\\] is"),
        (lambda A: setattr(A, "indptr", A.indptr[:-1]), "indptr has"),
    ],
)
def test_broken_arrays_raise(change, text):
    x = np.ones(15)
    good = matrix((2, 3), (4, 5))
    np.testing.assert_allclose(times(good, x), good @ x)
    bad = matrix((2, 3), (4, 5))
    change(bad)
    with pytest.raises((SparseStructureError, ShapeError), match=text):
        times(bad, x)


def test_blocks_stored_twice_add_up_and_are_refused_along_the_pattern():
    A = matrix((2, 2), (2, 3), 1)
    A.indices[1] = A.indices[0]
    x = np.ones(6)
    want = dense(interop.storage_of(A)) @ x
    np.testing.assert_allclose(times(A, x), want)
    assert ordering.has_duplicates(A)
    with pytest.raises(SparseStructureError, match="more than once"):
        pa.jit(lambda A: pa.relu(A))(A)


def test_unsorted_blocks_are_sorted_for_maps():
    A = matrix((2, 3), (4, 5), 2)
    for row in range(4):
        part = slice(A.indptr[row], A.indptr[row + 1])
        A.indices[part] = A.indices[part][::-1].copy()
    A.has_sorted_indices = False
    want = dense(interop.storage_of(A))
    np.testing.assert_array_equal(pa.jit(lambda A: pa.relu(A))(A).toarray(), np.maximum(want, 0))


# --- formats ----------------------------------------------------------------------------------------------------------------


def test_packing_walking_and_describing_agree():
    A = matrix((2, 3), (4, 5), 5)
    stored = interop.storage_of(A)
    np.testing.assert_array_equal(dense(stored), A.toarray())
    row, column = A.toarray().nonzero()
    np.testing.assert_array_equal(dense(pack(bsr(2, 3), A.shape, (row, column), A.toarray()[row, column])), A.toarray())
    for found, want in zip(walk(stored.format, stored.shape, stored.arrays).coordinates, ordering.coordinates(A)):
        np.testing.assert_array_equal(found, want)
    array = pa.SparseArray(stored.format, stored.shape, stored.arrays)
    back = array.to_scipy()
    assert isinstance(back, sp.bsr_array) and back.blocksize == (2, 3) and np.shares_memory(back.data, A.data)
    x = np.arange(15.0)
    np.testing.assert_allclose(times(array, x), A @ x)
    np.testing.assert_array_equal(array.convert(csr()).toarray(), A.toarray())
    assert repr(array).endswith("bsr(d0//2: dense, d1//3: compressed, d0%2: dense, d1%3: dense; int32)>")


def test_blocks_must_divide_the_shape():
    with pytest.raises(ShapeError, match="blocks of 2"):
        pack(bsr(2, 2), (3, 4), ([0], [0]), [1.0])
    arrays = {"pos1": np.array([0, 1], np.int32), "crd1": np.array([0], np.int32), "val": np.ones(4)}
    with pytest.raises(SparseStructureError, match="blocks of 2 do not divide it"):
        pa.SparseArray(bsr(2, 2), (3, 4), arrays)


def test_a_cut_dimension_has_blocks_and_an_inside():
    levels = (Dense(), Compressed(), Dense())
    for parts in ((Block(2), Block(2), Inner(3)), (Inner(2), Block(2), Block(2)), (Block(0), Block(2), Inner(0))):
        with pytest.raises(SparseStructureError, match="is stored as"):
            verify_format(Format("odd", (0, 1, 0), levels, 32, parts))


# --- every level ------------------------------------------------------------------------------------------------------------

SIZES = {"n": 12, "m": 6, "c": 12, "d": 4, "h": 5, "p": 4}


def arguments_of(program, block):
    """Arguments of a program whose sparse input is stored in blocks."""
    rng, out = np.random.default_rng(0), {}
    for given in program.inputs:
        shape = tuple(evaluate(e, SIZES) for e in given.type.shape)
        dtype = to_numpy(given.type.dtype)
        if given.type.is_sparse:
            A = matrix(block, (shape[0] // block[0], shape[1] // block[1]), 1)
            A.data[A.data == 0] = 5
            out[given.name] = SparseValue(ordering.coordinates(A), A.data.reshape(-1).astype(dtype), shape)
        else:
            out[given.name] = rng.standard_normal(shape).astype(dtype)
    return out


def over_levels(before, after, arguments):
    """The same arguments for the program whose dimensions are cut, the arrays that kernels take, and all sizes."""
    tensors, arrays, sizes = {}, {}, dict(SIZES)
    for old, new in zip(before.inputs, after.inputs):
        value, shape = arguments[old.name], tuple(evaluate(e, SIZES) for e in new.type.shape)
        if isinstance(value, SparseValue):
            form = old.type.format
            apart = form.taken_apart(value.coords)
            coords = tuple(apart[new.type.format.level_of(d)] for d in range(len(shape)))
            tensors[old.name] = SparseValue(coords, value.values, shape)
            named = pack(new.type.format, shape, coords, value.values).named(old.name)
            sizes[nnz_of(old.name)] = len(named[f"{old.name}.crd1"])
            arrays.update(named)
        else:
            tensors[old.name] = arrays[old.name] = value.reshape(shape)
    return tensors, arrays, sizes


@pytest.mark.parametrize("block", [(2, 3), (4, 1)])
@pytest.mark.parametrize("name", ["spmv", "spmm_csr", "spmm_transposed", "spmm_bias_relu", "sddmm", "sparse_softmax", "sparse_attention"])
def test_every_interpreter_and_the_machine_agree(name, block):
    given = PROGRAMS[name]().program
    inputs = tuple(
        dataclasses.replace(i, type=dataclasses.replace(i.type, format=bsr(*block))) if i.type.is_sparse else i for i in given.inputs
    )
    program = dataclasses.replace(given, inputs=inputs)
    assert {s for i in inputs for e in i.type.shape for s in symbols(e)} <= SIZES.keys()
    arguments = arguments_of(program, block)
    whole = run_tensor(program, arguments, SIZES)
    want = {o: np.asarray(whole[o].todense() if isinstance(whole[o], SparseValue) else whole[o]) for o in program.outputs}
    tensors, arrays, sizes = {}, {}, {}

    def agree(found, level):
        for o in program.outputs:
            got = np.asarray(found[o].values if isinstance(found[o], SparseValue) else found[o])
            if isinstance(whole[o], SparseValue):
                full = np.zeros(want[o].shape)
                owner = next(i for i in program.inputs if i.type.is_sparse)
                order = np.lexsort(owner.type.format.taken_apart(whole[o].coords)[::-1])
                flat = got.reshape(-1)
                full[tuple(c[order] for c in whole[o].coords)] = flat[order] if level == "blocks" else flat
                got = full
            np.testing.assert_allclose(got.reshape(want[o].shape), want[o], rtol=2e-4, atol=1e-5, err_msg=level)

    def watch(stage, build, milliseconds):
        if stage.name == "blocks":
            assert build.program is not program and blocks.run(build.program) is build.program
            for into, filled in zip((tensors, arrays, sizes), over_levels(program, build.program, arguments)):
                into.update(filled)
            agree(run_tensor(build.program, tensors, sizes), "blocks")
        elif stage.form == "poly":
            agree(run_scop(build.scops[0], arrays, sizes), stage.name)
        elif stage.form == "loop":
            for backwards in (False, True):
                args = {**sizes, **{k: np.array(a) for k, a in arrays.items()}}
                for p in build.loops.params:
                    if p.extents is not None:
                        shape = tuple(number(e, sizes) for e in p.extents)
                        args[p.name] = np.full(shape, 77, to_numpy(p.dtype)) if p.role == "output" else args[p.name].reshape(shape)
                assert run_loops(build.loops, {p.name: args[p.name] for p in build.loops.params}, backwards=backwards) == 0
                agree(args, stage.name)

    options = Options(blas="never", verify=True)
    build = pipeline.compile_program(program, {}, options, pipeline.target_for(options), verify=True, watch=watch)
    kernel = runtime()._load(signature_of(build.loops, emit.externs(build.loops), True), build.code, {})
    for threads in (1, 2):
        slots, kept = [], {}
        for p in build.loops.params:
            if p.extents is None:
                slots.append(sizes[p.name])
                continue
            kept[p.name] = np.zeros(tuple(number(e, sizes) for e in p.extents), to_numpy(p.dtype)) if p.role == "output" else np.ascontiguousarray(arrays[p.name], to_numpy(p.dtype))
            slots.append(address(kept[p.name]))
        runtime().launch(kernel, slots, threads)
        agree(kept, f"code on {threads} threads")


def test_loops_and_branches_read_blocks_where_they_are():
    A = matrix((5, 5), (4, 4))
    x = np.arange(20.0)

    @pa.jit
    def stepped(A, x):
        twice = pa.fori_loop(0, 2, lambda i, v: A.T @ (A @ v), x)
        once = pa.cond(x.sum() > 0, lambda v: A @ v, lambda v: v, x)
        scanned, _ = pa.scan(lambda v, row: (A @ v + row, v), x, pa.stack([x, x]))
        return twice, once, scanned, pa.relu(A) * once[:, None]

    before = pa.stats()["conversions"]
    twice, once, scanned, along = stepped(A, x)
    np.testing.assert_allclose(twice, A.T @ (A @ (A.T @ (A @ x))))
    np.testing.assert_allclose(once, A @ x)
    np.testing.assert_allclose(scanned, A @ (A @ x + x) + x)
    np.testing.assert_allclose(along.toarray(), np.maximum(A.toarray(), 0) * (A @ x)[:, None])
    assert pa.stats()["conversions"] == before and along.format == "bsr"


def test_a_part_of_a_longer_array_is_not_cut():
    """Blocks of 3 x 5 divide the matrix, 12 x 10, but not the arrays of which a part meets it."""
    A = matrix((3, 5), (4, 2))
    X, x = np.random.default_rng(0).standard_normal((37, 6)), np.arange(41.0)

    @pa.jit
    def parts(A, X, x):
        y = A @ x[:10]
        joined = pa.concatenate([y, x])
        outer = pa.sum((A @ X[:10])[:, None, :] * X[None, :, :])
        return x[:12] + y, y[:7] * x[:7], joined, outer, A.diagonal(), A @ X[:10] - pa.mean(X, axis=0)

    y = A @ x[:10]
    expected = (
        x[:12] + y,
        y[:7] * x[:7],
        np.concatenate([y, x]),
        np.sum((A @ X[:10])[:, None, :] * X[None, :, :]),
        A.diagonal(),
        A @ X[:10] - X.mean(axis=0),
    )
    for got, want in zip(parts(A, X, x), expected, strict=True):
        np.testing.assert_allclose(got, want)


def test_a_chain_with_a_part_of_a_larger_matrix_is_not_cut():
    A, D, x = matrix((3, 5), (4, 2)), np.random.default_rng(1).standard_normal((32, 32)), np.arange(10.0)
    np.testing.assert_allclose(pa.jit(lambda D, A, x: (D + D)[:12, :12] @ (A @ x))(D, A, x), (D + D)[:12, :12] @ (A @ x))
    np.testing.assert_allclose(pa.jit(lambda D, A, x: (D @ D)[:12, :12] @ (A @ x))(D, A, x), (D @ D)[:12, :12] @ (A @ x))


def test_a_recurrence_over_what_blocks_gave_stays_whole():
    A, x = matrix((3, 5), (4, 2)), np.arange(10.0)
    np.testing.assert_allclose(pa.jit(lambda A, x: pa.cumsum(A @ x))(A, x), np.cumsum(A @ x))
