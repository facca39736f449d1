"""PyTorch on the CPU: sparse CSR tensors (MKL below), the chain of calls a user writes for what has no single call,
and torch.compile for the dense row-wise chain."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F

from benchmarks.harness import Run
from benchmarks.reference import EPS, HEADS
from benchmarks.sparse_results import Compressed

warnings.filterwarnings("ignore", message="Sparse (CSR|BSR|CSC) tensor support is in beta")
warnings.filterwarnings("ignore", message="Sparse invariant checks are implicitly disabled")


def _csr(A: Any, data: np.ndarray | None = None) -> torch.Tensor:
    values = torch.from_numpy(A.data if data is None else data)
    return torch.sparse_csr_tensor(torch.from_numpy(A.indptr), torch.from_numpy(A.indices), values, size=A.shape)


def _run(call: Callable[[], torch.Tensor]) -> Run:
    def run() -> np.ndarray:
        with torch.inference_mode():
            return call().numpy()

    return run


def spmv(A: Any, x: np.ndarray) -> Run:
    a, b = _csr(A), torch.from_numpy(x)
    return _run(lambda: a @ b)


def spmm(A: Any, X: np.ndarray) -> Run:
    a, b = _csr(A), torch.from_numpy(X)
    return _run(lambda: a @ b)


def spgemm(A: Any, B: Any) -> Run:
    """Without MKL's own sparse product PyTorch has none for CSR; with it, this is it."""
    a, b = _csr(A), _csr(B)
    return _sparse(lambda: a @ b)


def sparse_add(A: Any, B: Any) -> Run:
    a, b = _csr(A), _csr(B)
    return _sparse(lambda: a + b)


def _sparse(call: Callable[[], torch.Tensor]) -> Run:
    """The result as a CSR tensor."""

    def run() -> Compressed:
        with torch.inference_mode():
            out = call()
        arrays = (t.numpy() for t in (out.crow_indices(), out.col_indices(), out.values()))
        return Compressed((out.shape[0], out.shape[1]), *arrays)

    return run


def bsr_spmm(A: Any, X: np.ndarray) -> Run:
    blocks = (torch.from_numpy(t) for t in (A.indptr, A.indices, A.data))
    a, b = torch.sparse_bsr_tensor(*blocks, size=A.shape), torch.from_numpy(X)
    return _run(lambda: a @ b)


def spmm_transposed(A: Any, X: np.ndarray) -> Run:
    """The transpose of a CSR tensor is a view, a CSC tensor."""
    transposed, b = _csr(A).t(), torch.from_numpy(X)
    return _run(lambda: transposed @ b)


def csr_to_csc(A: Any) -> Run:
    a = _csr(A)

    def run() -> Any:
        with torch.inference_mode():
            out = a.to_sparse_csc()
        arrays = (t.numpy() for t in (out.values(), out.row_indices(), out.ccol_indices()))
        return sp.csc_array(tuple(arrays), shape=A.shape)

    return run


def sddmm(A: Any, U: np.ndarray, V: np.ndarray) -> Run:
    """torch.sparse.sampled_addmm, then times the stored values."""
    a, u, v = _csr(A), torch.from_numpy(U), torch.from_numpy(V).t()
    values = torch.from_numpy(A.data)
    return _run(lambda: torch.sparse.sampled_addmm(a, u, v, beta=0.0).values() * values)


def attention(mask: Any, Q: np.ndarray, K: np.ndarray, V: np.ndarray) -> Run:
    """sampled_addmm, softmax over row segments, CSR @ V. The row of each entry is known in advance."""
    a = _csr(mask, np.ones(mask.nnz, Q.dtype))
    q, kt, v = torch.from_numpy(Q), torch.from_numpy(K).t(), torch.from_numpy(V)
    offsets = torch.from_numpy(mask.indptr.astype(np.int64))
    crow, col = torch.from_numpy(mask.indptr), torch.from_numpy(mask.indices)
    rows = torch.repeat_interleave(torch.arange(mask.shape[0]), offsets.diff())
    scale = 1 / math.sqrt(Q.shape[1])

    def call() -> torch.Tensor:
        score = torch.sparse.sampled_addmm(a, q, kt, beta=0.0, alpha=scale).values()
        top = torch.segment_reduce(score, "max", offsets=offsets, initial=-math.inf)
        e = torch.exp(score - top[rows])
        total = torch.segment_reduce(e, "sum", offsets=offsets)
        return torch.sparse_csr_tensor(crow, col, e / total[rows], size=mask.shape) @ v

    return _run(call)


def gcn(A: Any, X: np.ndarray, W: np.ndarray, b: np.ndarray) -> Run:
    a, x, w, bias = _csr(A), *(torch.from_numpy(t) for t in (X, W, b))
    return _run(lambda: torch.relu_(a @ (x @ w) + bias))


def gemm(A: np.ndarray, B: np.ndarray) -> Run:
    a, b = torch.from_numpy(A), torch.from_numpy(B)
    out = torch.empty(A.shape[0], B.shape[1], dtype=a.dtype)
    return _run(lambda: torch.mm(a, b, out=out))


def rowwise(X: np.ndarray, gamma: np.ndarray, beta: np.ndarray, eps: float) -> Run:
    x, g, b = (torch.from_numpy(t) for t in (X, gamma, beta))

    def chain(x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(F.gelu(F.layer_norm(x, (x.shape[1],), g, b, eps)), dim=1)

    torch._dynamo.reset()
    compiled = torch.compile(chain, dynamic=False)
    return _run(lambda: compiled(x))


def ttm(T: Any, C: np.ndarray, mode: int, unfolded: Any) -> Run:
    return spmm(unfolded, C)


Weights = dict[str, np.ndarray]


def _any_rows(model: Callable[[torch.Tensor, dict[str, torch.Tensor]], torch.Tensor], weights: Weights) -> Callable[[np.ndarray], np.ndarray]:
    """torch.compile for any number of rows."""
    torch._dynamo.reset()
    compiled, held = torch.compile(model, dynamic=True), {k: torch.from_numpy(v) for k, v in weights.items()}

    def call(X: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return compiled(torch.from_numpy(X), held).numpy()

    return call


def _mlp(x: torch.Tensor, w: dict[str, torch.Tensor]) -> torch.Tensor:
    return F.gelu(x @ w["w1"] + w["b1"]) @ w["w2"] + w["b2"]


def _block(x: torch.Tensor, w: dict[str, torch.Tensor]) -> torch.Tensor:
    n, width = x.shape
    a = F.layer_norm(x, (width,), w["g1"], w["n1"], EPS)
    q, k, v = ((a @ w[name]).reshape(n, HEADS, width // HEADS).transpose(0, 1) for name in ("wq", "wk", "wv"))
    h = x + F.scaled_dot_product_attention(q[None], k[None], v[None])[0].transpose(0, 1).reshape(n, width) @ w["wo"]
    return h + F.gelu(F.layer_norm(h, (width,), w["g2"], w["n2"], EPS) @ w["w1"] + w["b1"]) @ w["w2"] + w["b2"]


class Torch:
    name = "torch"
    kernels = {"ttm": ttm, 
        "spmv": spmv, "spmm": spmm, "sddmm": sddmm, "attention": attention, "gcn": gcn, "gemm": gemm, "rowwise": rowwise,
        "spgemm": spgemm, "sparse_add": sparse_add, "bsr_spmm": bsr_spmm, "spmm_transposed": spmm_transposed, "csr_to_csc": csr_to_csc,
    }  # fmt: skip

    any_rows = {"mlp": lambda weights: _any_rows(_mlp, weights), "block": lambda weights: _any_rows(_block, weights)}

    def version(self) -> str:
        return str(torch.__version__)

    @contextmanager
    def threads(self, count: int) -> Iterator[None]:
        before = torch.get_num_threads()
        torch.set_num_threads(count)
        try:
            yield
        finally:
            torch.set_num_threads(before)


PEER = Torch()
