"""PolyAI itself: each kernel is a decorated function written as a user would write it, without schedule or hint.

Each case compiles its function anew, as a user with one problem does: the first call's sizes decide what pays, though any size is
served. Large results go into an array made once (`out=`), as with MKL and Numba; small ones are returned, since a plain call is faster.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

import polyai as pa
from benchmarks.harness import Run
from benchmarks.reference import EPS, HEADS
from polyai.sparse.format import Format
from polyai.sparse.levels.compressed import Compressed
from polyai.sparse.levels.dense import Dense

LARGE = 1 << 20
"""Bytes from which a result is written into an array made once."""


def _product(A: Any, X: Any) -> Any:
    return A @ X


def _sddmm(A: Any, U: Any, V: Any) -> Any:
    return A * (U @ V.T)


def _attention(mask: Any, Q: Any, K: Any, V: Any) -> Any:
    return pa.sparse_attention(Q, K, V, mask=mask)


def _gcn(A: Any, X: Any, W: Any, b: Any) -> Any:
    return pa.relu(A @ (X @ W) + b)


def _run(function: Callable[..., Any], args: tuple[Any, ...], shape: tuple[int, ...], dtype: Any) -> Run:
    compiled = pa.jit(function)
    if np.prod(shape) * np.dtype(dtype).itemsize < LARGE:
        return lambda: compiled(*args)
    out = np.empty(shape, dtype)
    return lambda: compiled(*args, out=out)


def spmv(A: Any, x: np.ndarray) -> Run:
    return _run(_product, (A, x), (A.shape[0],), x.dtype)


def spmm(A: Any, X: np.ndarray) -> Run:
    return _run(_product, (A, X), (A.shape[0], X.shape[1]), X.dtype)


def prepared_spmv(A: Any, X: np.ndarray, prepared: Any = None) -> Run:
    """With the matrix prepared before, or here without measuring."""
    given = pa.prepare(A, measure=False) if prepared is None else prepared
    return _run(_product, (given, X), (A.shape[0], *X.shape[1:]), X.dtype)


def prepared_spmm(A: Any, X: np.ndarray, prepared: Any = None) -> Run:
    return prepared_spmv(A, X, pa.prepare(A, "spmm", measure=False) if prepared is None else prepared)


def gemm(A: np.ndarray, B: np.ndarray) -> Run:
    return _run(_product, (A, B), (A.shape[0], B.shape[1]), A.dtype)


def sddmm(A: Any, U: np.ndarray, V: np.ndarray) -> Run:
    compiled = pa.jit(_sddmm)
    return lambda: compiled(A, U, V).data


def attention(mask: Any, Q: np.ndarray, K: np.ndarray, V: np.ndarray) -> Run:
    return _run(_attention, (mask, Q, K, V), (mask.shape[0], V.shape[1]), V.dtype)


def gcn(A: Any, X: np.ndarray, W: np.ndarray, b: np.ndarray) -> Run:
    return _run(_gcn, (A, X, W, b), (A.shape[0], W.shape[1]), X.dtype)


def rowwise(X: np.ndarray, gamma: np.ndarray, beta: np.ndarray, eps: float) -> Run:
    def chain(X: Any, gamma: Any, beta: Any) -> Any:
        return pa.softmax(pa.gelu(pa.layer_norm(X, gamma, beta, eps)), axis=1)

    return _run(chain, (X, gamma, beta), X.shape, X.dtype)


Weights = dict[str, np.ndarray]


def _mlp(x: Any, w: Any) -> Any:
    return pa.gelu(x @ w["w1"] + w["b1"]) @ w["w2"] + w["b2"]


def _block(x: Any, w: Any) -> Any:
    n, width = x.shape
    a = pa.layer_norm(x, w["g1"], w["n1"], EPS)
    q, k, v = ((a @ w[name]).reshape(n, HEADS, width // HEADS).transpose(1, 0, 2) for name in ("wq", "wk", "wv"))
    p = pa.softmax(q @ k.transpose(0, 2, 1) * np.float32((width // HEADS) ** -0.5), axis=-1)
    h = x + (p @ v).transpose(1, 0, 2).reshape(n, width) @ w["wo"]
    return h + pa.gelu(pa.layer_norm(h, w["g2"], w["n2"], EPS) @ w["w1"] + w["b1"]) @ w["w2"] + w["b2"]


MODELS = {"mlp": _mlp, "block": _block}


def any_rows(model: str, weights: Weights, **changes: Any) -> tuple[Any, Callable[[np.ndarray], np.ndarray]]:
    """The compiled function, and one call of it with these weights, which are constant as they are in the peers' models; `changes`
    are keywords of `jit`."""
    compiled = pa.jit(MODELS[model], constant=("w",), **changes)
    return compiled, lambda X: compiled(X, weights)


def _sum(A: Any, B: Any) -> Any:
    return A + B


def _elements(A: Any, B: Any) -> Any:
    return A * B


def _masked(M: Any, A: Any, B: Any) -> Any:
    return M * (A @ B)


def _transposed(A: Any, X: Any) -> Any:
    return A.T @ X


def _sparse(function: Callable[..., Any], *args: Any) -> Run:
    """A call that returns a sparse matrix of its own."""
    compiled = pa.jit(function)
    return lambda: compiled(*args)


def spgemm(A: Any, B: Any) -> Run:
    return _sparse(_product, A, B)


def spgemm_reuse(A: Any, B: Any, A2: Any, B2: Any) -> Run:
    """A handle that keeps the pattern of the product: its calls compute values alone."""
    handle = pa.pattern(_product, A, B)
    return lambda: handle(A2, B2)


def masked_spgemm(M: Any, A: Any, B: Any) -> Run:
    return _sparse(_masked, M, A, B)


def sparse_add(A: Any, B: Any) -> Run:
    return _sparse(_sum, A, B)


def sparse_multiply(A: Any, B: Any) -> Run:
    return _sparse(_elements, A, B)


def bsr_spmm(A: Any, X: np.ndarray) -> Run:
    return _run(_product, (A, X), (A.shape[0], X.shape[1]), X.dtype)


def spmm_transposed(A: Any, X: np.ndarray) -> Run:
    return _run(_transposed, (A, X), (A.shape[1], X.shape[1]), X.dtype)


def csr_to_csc(A: Any) -> Run:
    return lambda: pa.asformat(A, "csc")


def coo_to_csr(A: Any) -> Run:
    return lambda: pa.asformat(A, "csr")


class Stored:
    """A `SparseArray` as the harness takes results: in SciPy's form when the clock has stopped."""

    def __init__(self, array: pa.SparseArray) -> None:
        self._array = array

    def scipy(self) -> Any:
        return self._array.to_scipy()


def csr_to_bsr(A: Any, block: int) -> Run:
    return lambda: Stored(pa.asformat(A, "bsr", blocksize=(block, block)))


def mttkrp(T: Any, factors: list[np.ndarray], mode: int) -> Run:
    modes = "ijklm"[: len(T.shape)]
    others = [x for n, x in enumerate(modes) if n != mode]
    text = f"{modes},{','.join(x + 'r' for x in others)}->{modes[mode]}r"
    return _run(lambda T, *factors: pa.einsum(text, T, *factors), (T, *factors), (T.shape[mode], factors[0].shape[1]), factors[0].dtype)


def ttm(T: Any, C: np.ndarray, mode: int, unfolded: Any) -> Run:
    """Kept modes as dense levels, the summed one compressed: the unfolded matrix, without unfolding."""
    modes = "ijklm"[: len(T.shape)]
    kept = [x for n, x in enumerate(modes) if n != mode]
    order = (*(n for n in range(T.ndim) if n != mode), mode)
    given = pa.sparse_array(T, Format("rows", order, (*(Dense() for _ in kept), Compressed())))
    text = f"{modes},{modes[mode]}r->{''.join(kept)}r"
    shape = (*(T.shape[n] for n in order[:-1]), C.shape[1])
    run = _run(lambda T, C: pa.einsum(text, T, C), (given, C), shape, C.dtype)
    return lambda: run().reshape(-1, C.shape[1])


class PolyAI:
    name = "polyai"
    kernels = {
        "spmv": spmv, "spmm": spmm, "sddmm": sddmm, "attention": attention, "gcn": gcn, "gemm": gemm, "rowwise": rowwise,
        "spgemm": spgemm, "spgemm_reuse": spgemm_reuse, "masked_spgemm": masked_spgemm, "sparse_add": sparse_add,
        "sparse_multiply": sparse_multiply, "bsr_spmm": bsr_spmm, "spmm_transposed": spmm_transposed,
        "csr_to_csc": csr_to_csc, "coo_to_csr": coo_to_csr, "csr_to_bsr": csr_to_bsr,
        "mttkrp": mttkrp, "ttm": ttm,
        "prepared_spmv": prepared_spmv, "prepared_spmm": prepared_spmm,
    }  # fmt: skip

    any_rows = {name: lambda weights, name=name: any_rows(name, weights)[1] for name in MODELS}

    def version(self) -> str:
        return pa.__version__

    @contextmanager
    def threads(self, count: int) -> Iterator[None]:
        with pa.options(num_threads=count):
            yield


PEER = PolyAI()
