"""NumPy's own OpenBLAS: np.matmul, with the thread count set in the library that the NumPy wheel ships."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from benchmarks.harness import Run

_PREFIXES = ("scipy_openblas_", "openblas_")
_SUFFIXES = ("64_", "")


def _loaded() -> list[ctypes.CDLL]:
    """Every OpenBLAS mapped into this process."""
    maps = Path("/proc/self/maps")
    paths = {line.split()[-1] for line in maps.read_text().splitlines() if "openblas" in line} if maps.exists() else set()
    return [ctypes.CDLL(path) for path in sorted(paths)]


def _function(lib: ctypes.CDLL, verb: str) -> ctypes._NamedFuncPointer | None:  # type: ignore[name-defined]
    for prefix, suffix in itertools.product(_PREFIXES, _SUFFIXES):
        found = getattr(lib, f"{prefix}{verb}{suffix}", None)
        if found is not None:
            return found
    return None


def gemm(A: np.ndarray, B: np.ndarray) -> Run:
    out = np.empty((A.shape[0], B.shape[1]), A.dtype)
    return lambda: np.matmul(A, B, out=out)


class OpenBlas:
    name = "openblas"
    kernels = {"gemm": gemm}

    def version(self) -> str:
        for lib in _loaded():
            get = _function(lib, "get_config")
            if get is not None:
                get.restype = ctypes.c_char_p
                return str(get().decode())
        return f"BLAS of NumPy {np.__version__}"

    @contextmanager
    def threads(self, count: int) -> Iterator[None]:
        for lib in _loaded():
            set_threads = _function(lib, "set_num_threads")
            if set_threads is not None:
                set_threads(ctypes.c_int(count))
        yield


PEER = OpenBlas()
