"""The whole text of what users see when something is wrong: what, why, and what to try, in their own names and values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

import polyai as pa
from polyai import errors


def graph() -> Any:
    return sp.csr_array(np.triu(np.ones((4, 3))))


def changed(name: str, at: int, value: int) -> Any:
    a = graph()
    getattr(a, name)[at] = value
    return a


X = np.ones((3, 2))


@pa.jit
def layer(graph: Any, features: Any) -> Any:
    return graph @ features


@pa.jit
def network(params: Any, *inputs: Any) -> Any:
    return params["w"][0] @ inputs[0] + inputs[1]


@pa.jit
def rows(table: Any, ids: Any) -> Any:
    return table[ids]


@pa.jit
def attention(graph: Any, queries: Any) -> Any:
    return pa.sparse_attention(queries, queries, queries, graph)


n, m = pa.dim("n", min=2, max=64), pa.dim("m", multiple_of=4)


def declared(*args: Any) -> Any:
    return pa.compile(lambda graph, features: graph @ features, pa.csr[n, m], pa.f64[m, 8], name="declared")(*args)


MESSAGES: list[tuple[str, type[Exception], Callable[[], Any], str]] = [
    ("product", errors.ShapeError, lambda: layer(graph(), np.ones((5, 2))),
     "matmul: features has features.shape[0] = 5 in dimension 0, graph.shape[1] = 3 is needed\n  why: graph: (4, 3); features: (5, 2)\n"
     "  try: the summed dimensions must have the same size"),
    ("product of parts", errors.ShapeError, lambda: network({"w": [X]}, X, X),
     "matmul: inputs[0] has inputs[0].shape[0] = 3 in dimension 0, params['w'][0].shape[1] = 2 is needed\n  why: params['w'][0]: (3, 2); inputs[0]: (3, 2)\n"
     "  try: the summed dimensions must have the same size"),
    ("sum of a result", errors.ShapeError, lambda: network({"w": [X]}, X.T, X),
     "add: sizes inputs[0].shape[1] = 3 and inputs[1].shape[1] = 2 do not match\n  why: the result of matmul: (3, 3); inputs[1]: (3, 2)\n"
     "  try: sizes must be equal or 1"),
    ("column index", errors.SparseStructureError, lambda: layer(changed("indices", 2, 9), X),
     "column index 9 of graph is outside 0 <= index < graph.shape[1] = 3\n  why: it selects from dimension 0 of features\n"
     "  try: rebuild graph, for example with scipy.sparse"),
    ("row pointer", errors.SparseStructureError, lambda: layer(changed("indptr", 2, 77), X),
     "indptr of graph holds 77, which is out of order or out of range\n"
     "  why: each row must begin where the one before it ends, at most at the number of stored elements\n  try: rebuild graph, for example with scipy.sparse"),
    ("last row pointer", errors.SparseStructureError, lambda: layer(changed("indptr", -1, 77), X),
     "csr: indptr[-1] is 77\n  why: but there are 6 indices and 6 values\n"
     "  try: rebuild it: type(A)((A.data, A.indices, A.indptr), shape=A.shape), then A.check_format(full_check=True)"),
    ("repeated coordinates", errors.SparseStructureError, lambda: attention(sp.csr_array((np.ones(2), [1, 1], [0, 2, 2, 2]), shape=(3, 3)), X),
     "graph stores a coordinate more than once\n"
     "  why: what is computed along its pattern is not linear in the stored values, so repeated entries would be wrong\n"
     "  try: call graph.sum_duplicates() first"),
    ("index of a row", errors.IndexOutOfRangeError, lambda: rows(X, np.array([0, 3])),
     "index 3 is out of range for dimension 0 of table, whose extent is table.shape[0] = 3\n  why: it comes from ids\n"
     "  try: indices must lie in -extent <= index < extent"),
    ("constant index", errors.IndexOutOfRangeError, lambda: pa.jit(lambda x: x[:, 2])(X),
     "index 2 of dimension 1 of x\n  why: its size is x.shape[1] = 2\n  try: indices run from -size to size - 1"),
    ("element type", errors.DTypeError, lambda: layer(graph(), np.array([["a"]])),
     "features has dtype <U1, which PolyAI cannot compute with\n"
     "  why: known are bfloat16, bool, complex128, complex64, float16, float32, float64, int16, int32, int64, int8, uint16, uint32, uint64, uint8\n"
     "  try: convert it with .astype(...)"),
    ("operation of a type", errors.DTypeError, lambda: pa.jit(lambda x: x << 1)(X), "shl is not defined for f64\n  why: the operands have dtypes f64, f64\n  try: convert with .astype(...)"),
    ("large number", errors.DTypeError, lambda: pa.jit(lambda x, factor: x * factor)(X, 2**70),
     "factor = 1180591620717411303424 does not fit in i64\n  why: Python integers become i64\n  try: pass a float"),
    ("shape of out", errors.ShapeError, lambda: layer(graph(), X, out=np.empty((4, 3))),
     "out has shape (4, 3)\n  why: the result has shape (4, 2)\n  try: pass an array of that shape"),
    ("type of out", errors.DTypeError, lambda: layer(graph(), X, out=np.empty((4, 2), np.float32)),
     "out has dtype float32\n  why: the result is float64\n  try: pass np.empty(shape, np.float64)"),
    ("order of out", errors.ShapeError, lambda: layer(graph(), X, out=np.empty((2, 4)).T),
     "out is not contiguous\n  why: its strides are (8, 32)\n  try: pass an array in C order, such as np.empty(shape)"),
    ("truth of an array", errors.TraceError, lambda: pa.jit(lambda x: x if x.sum() > 0 else -x)(X),
     "bool() of the result of greater while tracing\n  why: its value is known only when the kernel runs\n"
     "  try: use where(condition, a, b), or cond for a whole branch"),
    ("number of an array", errors.TraceError, lambda: pa.jit(lambda x: x * float(x[0, 0]))(X),
     "float() of the result of index while tracing\n  why: its value is known only when the kernel runs\n  try: keep it an array, or mark the argument static"),
    ("assignment", errors.TraceError, lambda: pa.jit(lambda x: x.__setitem__(0, 1))(X),
     "x[...] = ... while tracing\n  why: traced arrays are not changed in place\n  try: write x = x.at[...].set(value)"),
    ("argument", errors.TraceError, lambda: pa.jit(lambda settings: settings)({1}),
     "settings cannot be traced\n  why: its type is set\n"
     "  try: pass arrays, numbers, and tuples, lists or dicts of them; convert with np.asarray, or mark the argument static"),
    ("masked", errors.UnsupportedError, lambda: layer(graph(), np.ma.masked_array(X)),
     "features is a masked array\n  why: masks are not compiled\n  try: pass features.filled(value), or use where(mask, fill, values)"),
    ("zeros that become ones", errors.UnsupportedError, lambda: pa.jit(lambda graph: graph + 1)(graph()),
     "add of the sparse graph is not zero where nothing is stored\n  why: the result would be dense: an implicit zero becomes 1.0\n"
     "  try: give it a fill value, filled(x, 0), which keeps it sparse, or make it dense first with .toarray()"),
    ("a factor that would be searched", errors.UnsupportedError, lambda: pa.jit(lambda graph: pa.einsum("ij,kj,kl,il->", graph, graph, graph, graph))(graph()),
     "einsum of the sparse graph\n"
     "  why: every coordinate of graph is named by others, so that it would be searched\n"
     "  try: multiply two of them first, then take the element-wise product"),
    ("a sum in a branch", errors.UnsupportedError, lambda: pa.jit(lambda graph, other: pa.cond(graph.sum() > 0, lambda: graph + other, lambda: graph - other))(graph(), graph()),
     "result 0 has two patterns: the result of add, stored where joined is and the result of subtract, stored where joined_1 is\n"
     "  why: its values lie along one pattern, which is known before the kernel runs\n"
     "  try: make all of them dense with .toarray(), or compute all of them along one pattern"),
    ("median", errors.UnsupportedError, lambda: pa.jit(lambda x: np.median(x))(X),
     "median is not compiled\n  why: it has no affine form\n  try: call np.median outside the compiled function"),
    ("a mask in a loop", errors.UnsupportedError, lambda: pa.jit(lambda x: pa.fori_loop(0, 3, lambda i, s: s + pa.sum(pa.cumulative_sum(x[x > 0])), pa.sum(x)))(X),
     "a mask or nonzero makes an array whose size data decide inside body\n"
     "  why: its size is known only when the kernel runs, and a region's results have fixed sizes\n"
     "  try: select outside of the loop or branch, or keep the size: sum(where(mask, x, 0)), where(mask, x, other)"),
    ("the largest of none", errors.ShapeError, lambda: pa.jit(lambda x: pa.max(x[x > 9]))(X),
     "count_nonzero(x > 9.0) >= 1 does not hold: 0 >= 1\n  why: max over it relies on it, and data decide this size\n"
     "  try: select what fits, or use where() in place of a mask"),
    ("declared extent", errors.GuardError, lambda: declared(sp.csr_array((3, 4)), np.ones((4, 7))),
     "the call breaks features.shape[1] == 8\n  why: features.shape[1] = 7\n"
     "  try: call it with the sizes that were declared, or use jit, which serves all sizes"),
    ("declared range", errors.GuardError, lambda: declared(sp.csr_array((65, 4)), np.ones((4, 8))),
     "dimension n is 65, outside its range\n  why: graph.shape[0] gave the value; declared is 2 <= n <= 64\n"
     "  try: pass an array within the range, or widen dim('n')"),
    ("declared multiple", errors.GuardError, lambda: declared(sp.csr_array((3, 6)), np.ones((6, 8))),
     "dimension m is 6, outside its range\n  why: graph.shape[1] gave the value; declared is 0 <= m, a multiple of 4\n"
     "  try: pass an array within the range, or widen dim('m')"),
    ("declared type", errors.GuardError, lambda: declared(sp.csr_array((3, 4)), np.ones((4, 8), np.float32)),
     "the arguments of declared are not those it was compiled for\n"
     "  why: declared ('graph: csr f64 with 2 dimensions, 32-bit indices', 'features: dense f64 with 2 dimensions'), "
     "given ('graph: csr f64 with 2 dimensions, 32-bit indices', 'features: dense f32 with 2 dimensions')\n  try: pass arguments of the declared kinds"),
    ("option", errors.OptionError, lambda: pa.options(scheduler="magic"),
     "option scheduler = 'magic'\n  why: known are 'recipe', 'isl'\n  try: leave it out for the default"),
    ("name of an option", errors.OptionError, lambda: pa.options(threads=2),
     "no option is called 'threads'\n  why: known are blas, cache_bytes, cache_dir, num_threads, policy, recompile_limit, result_bytes, scheduler, specialised_kernels, vector_bits, verify"),
]  # fmt: skip


@pytest.mark.parametrize(("error", "call", "text"), [e[1:] for e in MESSAGES], ids=[e[0] for e in MESSAGES])
def test_messages(error: type[Exception], call: Callable[[], Any], text: str) -> None:
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value) == text
    assert isinstance(caught.value, errors.PolyAIError)


@pytest.mark.parametrize("call", [lambda: layer(changed("indices", 2, 9), X), lambda: rows(X, np.array([0, 3])), lambda: layer(graph(), np.ones((5, 2)))])
def test_the_native_dispatcher_says_the_same(call: Callable[[], Any]) -> None:
    with pytest.raises(errors.PolyAIError) as first:
        call()
    layer(graph(), X)
    rows(X, np.array([0, 2]))
    for _ in range(2):
        with pytest.raises(errors.PolyAIError) as later:
            call()
        assert str(later.value) == str(first.value)


def test_errors_are_also_what_numpy_users_catch() -> None:
    for kind, builtin in {
        errors.ShapeError: ValueError, errors.DTypeError: TypeError, errors.IndexOutOfRangeError: IndexError, errors.SparseStructureError: ValueError,
        errors.UnsupportedError: NotImplementedError, errors.TraceError: TypeError, errors.GuardError: ValueError, errors.OptionError: ValueError,
        errors.AliasError: ValueError,
    }.items():  # fmt: skip
        assert issubclass(kind, builtin) and issubclass(kind, errors.PolyAIError)


def test_wrong_negative_indices_are_said_as_given() -> None:
    with pytest.raises(errors.IndexOutOfRangeError, match="index -4 is out of range for dimension 0 of table"):
        rows(X, np.array([0, -4]))
