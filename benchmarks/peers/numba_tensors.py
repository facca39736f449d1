"""MTTKRP as a good user of Numba writes it: privatised scatter over coordinates, and sums fibre by fibre over a tree.

The rank is fixed at compile time or read from the arrays; all variants are tried and the fastest is kept.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numba
import numpy as np

from benchmarks.harness import Run, Unavailable
from benchmarks.tensors import fibres

_jit = numba.njit(parallel=True, fastmath=True, nogil=True)


@cache
def _coo3(size: int) -> Any:
    @_jit
    def kernel(i0, i1, i2, val, B, C, private, Y):  # type: ignore[no-untyped-def]
        R = size if size else Y.shape[1]
        parts, n = private.shape[0], len(val)
        for t in numba.prange(parts):
            mine = private[t]
            mine[:] = 0
            for p in range(t * n // parts, (t + 1) * n // parts):
                v, row, b, c = val[p], mine[i0[p]], B[i1[p]], C[i2[p]]
                for r in range(R):
                    row[r] += v * b[r] * c[r]
        for i in numba.prange(Y.shape[0]):
            for r in range(R):
                total = private[0, i, r]
                for t in range(1, parts):
                    total += private[t, i, r]
                Y[i, r] = total

    return kernel


@cache
def _coo4(size: int) -> Any:
    @_jit
    def kernel(i0, i1, i2, i3, val, B, C, D, private, Y):  # type: ignore[no-untyped-def]
        R = size if size else Y.shape[1]
        parts, n = private.shape[0], len(val)
        for t in numba.prange(parts):
            mine = private[t]
            mine[:] = 0
            for p in range(t * n // parts, (t + 1) * n // parts):
                v, row, b, c, d = val[p], mine[i0[p]], B[i1[p]], C[i2[p]], D[i3[p]]
                for r in range(R):
                    row[r] += v * b[r] * c[r] * d[r]
        for i in numba.prange(Y.shape[0]):
            for r in range(R):
                total = private[0, i, r]
                for t in range(1, parts):
                    total += private[t, i, r]
                Y[i, r] = total

    return kernel


@cache
def _csf3(size: int) -> Any:
    @_jit
    def kernel(pos1, pos2, crd0, crd1, crd2, val, B, C, Y):  # type: ignore[no-untyped-def]
        R = size if size else Y.shape[1]
        Y[:] = 0
        for s in numba.prange(len(crd0)):
            row, fibre = Y[crd0[s]], np.empty(R, Y.dtype)
            for q in range(pos1[s], pos1[s + 1]):
                fibre[:] = 0
                for p in range(pos2[q], pos2[q + 1]):
                    v, c = val[p], C[crd2[p]]
                    for r in range(R):
                        fibre[r] += v * c[r]
                b = B[crd1[q]]
                for r in range(R):
                    row[r] += fibre[r] * b[r]

    return kernel


@cache
def _csf4(size: int) -> Any:
    @_jit
    def kernel(pos1, pos2, pos3, crd0, crd1, crd2, crd3, val, B, C, D, Y):  # type: ignore[no-untyped-def]
        R = size if size else Y.shape[1]
        Y[:] = 0
        for s in numba.prange(len(crd0)):
            row, outer, inner = Y[crd0[s]], np.empty(R, Y.dtype), np.empty(R, Y.dtype)
            for q in range(pos1[s], pos1[s + 1]):
                outer[:] = 0
                for o in range(pos2[q], pos2[q + 1]):
                    inner[:] = 0
                    for p in range(pos3[o], pos3[o + 1]):
                        v, d = val[p], D[crd3[p]]
                        for r in range(R):
                            inner[r] += v * d[r]
                    c = C[crd2[o]]
                    for r in range(R):
                        outer[r] += inner[r] * c[r]
                b = B[crd1[q]]
                for r in range(R):
                    row[r] += outer[r] * b[r]

    return kernel


def variants(T: Any, factors: list[np.ndarray], mode: int) -> list[Run]:
    """All ways to compute it; a tree may be used only where the case holds one."""
    tree = not hasattr(T, "coords")
    coords, values = (T.to_scipy().coords, T.to_scipy().data) if tree else (T.coords, T.data)
    order = (mode, *(d for d in range(len(T.shape)) if d != mode))
    if len(order) not in (3, 4):
        raise Unavailable("written for 3 and 4 modes")
    rank, dtype = factors[0].shape[1], factors[0].dtype
    ordered = [np.ascontiguousarray(coords[d], np.int32) for d in order]
    out: list[Run] = []
    for size in (0, rank):
        Y = np.empty((T.shape[mode], rank), dtype)
        private = np.empty((numba.get_num_threads(), *Y.shape), dtype)
        scatter = (_coo3 if len(order) == 3 else _coo4)(size)
        out.append(_call(scatter, (*ordered, np.ascontiguousarray(values), *factors, private, Y), Y))
        if tree:
            by = np.lexsort(ordered[::-1])
            pos, crd = fibres(tuple(c[by] for c in ordered))
            walk = (_csf3 if len(order) == 3 else _csf4)(size)
            out.append(_call(walk, (*pos, *crd, np.ascontiguousarray(values[by]), *factors, Y), Y))
    return out


def _call(kernel: Any, args: tuple[Any, ...], Y: np.ndarray) -> Run:
    def run() -> np.ndarray:
        kernel(*args)
        return Y

    return run
