from __future__ import annotations

import struct

import numpy as np
import pytest

from polyai.errors import PolyAIError, UnsupportedError
from polyai.runtime import externs
from polyai.runtime.kernel import Parameter, Signature
from tests.runtime.code import compiled, head

WORDS = len(externs.GEMM)
CALL = head("product", 2) + "  %code = call i64 %a1(ptr %a0)\n  ret i64 %code\n}\n"


def product(runtime, name, a, b, c, alpha=1.0, beta=0.0, op_a=False, op_b=False, m=None):
    """c = alpha op(a) op(b) + beta c, through a kernel whose only argument is the record."""
    signature = Signature("product", (Parameter("record", "i64", "input", 1),), externs=(name,))
    kernel = runtime.find(f"product-{name[-5:]}") or runtime.add(f"product-{name[-5:]}", signature, compiled(CALL))
    k = (a.T if op_a else a).shape[1]
    bits = [struct.unpack("<q", struct.pack("<d", v))[0] for v in (alpha, beta)]
    stride = [x.strides[0] // x.itemsize for x in (a, b, c)]
    address = [x.ctypes.data for x in (a, b, c)]
    record = np.array(
        [op_a, op_b, c.shape[0] if m is None else m, c.shape[1], k, bits[0], address[0], stride[0], address[1], stride[1], bits[1],
         address[2], stride[2]], np.int64
    )  # fmt: skip
    assert len(record) == WORDS
    runtime.launch(kernel, [record.ctypes.data])


@pytest.mark.parametrize(("name", "dtype"), [("blas.sgemm", np.float32), ("blas.dgemm", np.float64)])
@pytest.mark.parametrize("op_a", [False, True])
@pytest.mark.parametrize("op_b", [False, True])
def test_matrix_products(runtime, name, dtype, op_a, op_b):
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((7, 5)).astype(dtype), rng.standard_normal((5, 9)).astype(dtype)
    big = rng.standard_normal((7, 20)).astype(dtype)
    c = big[:, 3:12]
    wanted = 0.5 * (a.astype(float) @ b) + 2.0 * c
    left, right = (np.ascontiguousarray(x.T) if op else x for x, op in ((a, op_a), (b, op_b)))
    edges = big[:, :3].copy(), big[:, 12:].copy()
    product(runtime, name, left, right, c, 0.5, 2.0, op_a, op_b)
    np.testing.assert_allclose(c, wanted, rtol=1e-5 if dtype is np.float32 else 1e-13, atol=1e-5)
    np.testing.assert_array_equal(big[:, :3], edges[0])
    np.testing.assert_array_equal(big[:, 12:], edges[1])
    assert runtime.report()[f"calls of {name}"] == 1


def test_sizes_beyond_the_library_are_refused(runtime):
    a = np.ones((2, 2))
    c = np.zeros((2, 2))
    for m in (1 << 31, -1):
        with pytest.raises(PolyAIError, match="too large for the BLAS"):
            product(runtime, "blas.dgemm", a, a, c, m=m)
    assert (c == 0).all()


def test_a_system_without_the_library_says_so(runtime, monkeypatch):
    monkeypatch.setitem(externs.FINDERS, "blas.dgemm", lambda: externs._blas("no_such_function"))
    with pytest.raises(UnsupportedError, match='blas="never"'):
        runtime.externs.address("blas.dgemm")
