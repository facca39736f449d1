"""PolyAI itself: each kernel is a decorated function written as a user would write it, without schedule or hint."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

import polyai as pa
from benchmarks.harness import Run


@pa.jit
def _product(A: Any, X: Any) -> Any:
    return A @ X


@pa.jit
def _sddmm(A: Any, U: Any, V: Any) -> Any:
    return A * (U @ V.T)


@pa.jit
def _attention(mask: Any, Q: Any, K: Any, V: Any) -> Any:
    return pa.sparse_attention(Q, K, V, mask=mask)


@pa.jit
def _gcn(A: Any, X: Any, W: Any, b: Any) -> Any:
    return pa.relu(A @ (X @ W) + b)


def product(A: Any, X: np.ndarray) -> Run:
    return lambda: _product(A, X)


def spmv(A: Any, x: np.ndarray) -> Run:
    return product(A, x)


def gemm(A: np.ndarray, B: np.ndarray) -> Run:
    return product(A, B)


def sddmm(A: Any, U: np.ndarray, V: np.ndarray) -> Run:
    return lambda: _sddmm(A, U, V).data


def attention(mask: Any, Q: np.ndarray, K: np.ndarray, V: np.ndarray) -> Run:
    return lambda: _attention(mask, Q, K, V)


def gcn(A: Any, X: np.ndarray, W: np.ndarray, b: np.ndarray) -> Run:
    return lambda: _gcn(A, X, W, b)


def rowwise(X: np.ndarray, gamma: np.ndarray, beta: np.ndarray, eps: float) -> Run:
    compiled = pa.jit(lambda X, gamma, beta: pa.softmax(pa.gelu(pa.layer_norm(X, gamma, beta, eps)), axis=1))
    return lambda: compiled(X, gamma, beta)


class PolyAI:
    name = "polyai"
    kernels = {
        "spmv": spmv, "spmm": product, "sddmm": sddmm, "attention": attention, "gcn": gcn, "gemm": gemm, "rowwise": rowwise,
    }  # fmt: skip

    def version(self) -> str:
        return pa.__version__

    @contextmanager
    def threads(self, count: int) -> Iterator[None]:
        with pa.options(num_threads=count):
            yield


PEER = PolyAI()
