"""Facts about results: an expression over sparse operands, and what the public test says it gives.

Expressions take the library they are written with as `pa`: PolyAI, or the oracle of tests/sparse_suite.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.public_suites import tensors as t

Array = Any
Numbers = tuple[float, ...]

TACO = "TACO test/tests-expr_storage.cpp"
MLIR = "MLIR test/Integration/Dialect/SparseTensor/CPU/"

CSR, CSC, DCSR, VECTOR, LIST = (
    "i:dense j:compressed", "j:dense i:compressed", "i:compressed j:compressed", "i:compressed", "i:compressed(nonunique) j:singleton",
)  # fmt: skip


@dataclass(frozen=True)
class Result:
    """`sparse` operands are passed in SciPy's `kind` (coordinate lists where they have other than two dimensions), then the `dense` ones.

    The result is dense, or stored as `levels` say; `arrays` holds what the source states of it. `needs`: a function of PolyAI.
    """

    name: str
    source: str
    fn: Callable[..., Any]
    sparse: tuple[Array, ...]
    dense: tuple[Array, ...] = ()
    kind: str = "csr"
    levels: str = ""
    arrays: dict[str, Numbers] = field(default_factory=dict)
    needs: str = ""


def _sum(text: str) -> Callable[..., Any]:
    return lambda pa, *operands: pa.einsum(text, *operands)


def _dense(name: str, fn: Callable[..., Any], sparse: tuple[Array, ...], values: Numbers, dense: tuple[Array, ...] = ()) -> Result:
    return Result(name, TACO, fn, sparse, dense, arrays={"val": values})


ADD33 = {"val": (10, 22, 3, 30, 4)}
FACTS: list[Result] = [
    # TACO: results that are stored sparse
    Result("negated vector", TACO, lambda pa, b: -b, (t.D5A,), levels=VECTOR, arrays={"pos0": (0, 2), "crd0": (1, 4), "val": (-2, -3)}),
    Result("vector times scalar", TACO, lambda pa, b: b * 2.0, (t.D5A,), levels=VECTOR, arrays={"pos0": (0, 2), "crd0": (1, 4), "val": (4, 6)}),
    Result("product of vectors", TACO, lambda pa, b, c: b * c, (t.D5A, t.D5B), levels=VECTOR, arrays={"pos0": (0, 1), "crd0": (1,), "val": (40,)}),
    Result("sum of vectors", TACO, lambda pa, b, c: b + c, (t.D5A, t.D5B), levels=VECTOR, arrays={"pos0": (0, 3), "crd0": (0, 1, 4), "val": (10, 22, 3)}),
    Result("product plus vector", TACO, lambda pa, b, c, d: b * c + d, (t.D5B, t.D5C, t.D5A), levels=VECTOR,
        arrays={"pos0": (0, 2), "crd0": (1, 4), "val": (2002, 3)}),
    Result("vector plus product", TACO, lambda pa, b, c, d: b + c * d, (t.D5A, t.D5B, t.D5C), levels=VECTOR,
        arrays={"pos0": (0, 2), "crd0": (1, 4), "val": (2002, 3)}),
    Result("negated matrix", TACO, lambda pa, b: -b, (t.D33A,), levels=DCSR,
        arrays={"pos0": (0, 2), "crd0": (0, 2), "pos1": (0, 1, 3), "crd1": (1, 0, 2), "val": (-2, -3, -4)}),
    Result("product of matrices, element by element", TACO, lambda pa, b, c: b * c, (t.D33A, t.D33B), levels=DCSR,
        arrays={"pos0": (0, 1), "crd0": (0,), "pos1": (0, 1), "crd1": (1,), "val": (40,)}),
    Result("sum of matrices in CSR", TACO, lambda pa, b, c: b + c, (t.D33A, t.D33B), levels=CSR, arrays={"pos1": (0, 2, 2, 5), "crd1": (0, 1, 0, 1, 2), **ADD33}),
    Result("sum of matrices in CSC", TACO, lambda pa, b, c: b + c, (t.D33A, t.D33B), kind="csc", levels=CSC,
        arrays={"pos1": (0, 2, 4, 5), "crd1": (0, 2, 0, 2, 2), "val": (10, 3, 22, 30, 4)}),
    Result("sum of matrices in DCSR", TACO, lambda pa, b, c: b + c, (t.D33A, t.D33B), levels=DCSR,
        arrays={"pos0": (0, 2), "crd0": (0, 2), "pos1": (0, 2, 5), "crd1": (0, 1, 0, 1, 2), **ADD33}),
    Result("sum of wider matrices in CSR", TACO, lambda pa, b, c: b + c, (t.D34A, t.D34B), levels=CSR,
        arrays={"pos1": (0, 3, 3, 6), "crd1": (0, 2, 3, 0, 2, 3), "val": (4, 3, 3, 8, 5, 5)}),
    Result("sum of wider matrices in CSC", TACO, lambda pa, b, c: b + c, (t.D34A, t.D34B), kind="csc", levels=CSC,
        arrays={"pos1": (0, 2, 2, 4, 6), "crd1": (0, 2, 0, 2, 0, 2), "val": (4, 8, 3, 5, 3, 5)}),
    Result("product of tensors, element by element", TACO, lambda pa, b, c: b * c, (t.D233A, t.D233B), levels="i:compressed j:compressed k:compressed",
        arrays={"pos0": (0, 1), "crd0": (1,), "pos1": (0, 1), "crd1": (2,), "pos2": (0, 1), "crd2": (0,), "val": (300,)}),
    # TACO: dense results of sparse operands
    _dense("sparse plus dense, times dense", lambda pa, b, c, d: (b + c) * d, (t.D8A,), (0, 200, 0, 6000, 0, 1200, 0, 0), (t.D8B, t.D8C)),
    _dense("(b + c) * d", lambda pa, b, c, d: ((b + c) * d).toarray(), (t.D8A, t.D8B, t.D8C), (0, 200, 0, 6000, 0, 1200, 0, 0)),
    _dense("b * (c + d)", lambda pa, b, c, d: (b * (c + d)).toarray(), (t.D8A,), (10, 200, 60, 0, 0, 1200, 0, 0), (t.D8B, t.D8C)),
    _dense("(c + d) * b", lambda pa, c, b, d: ((c + d) * b).toarray(), (t.D8B, t.D8A), (10, 200, 60, 0, 0, 1200, 0, 0), (t.D8C,)),
    _dense("b + c + d * e", lambda pa, b, c, d, e: (b + c + d * e).toarray(), (t.D8A, t.D8B, t.D8C, t.D8D), (11, 10002, 23, 30, 0, 90004, 0, 0)),
    _dense("b + c + d * e, e dense", lambda pa, b, c, d, e: (b + c + d * e).toarray(), (t.D8A, t.D8B, t.D8C), (11, 10002, 23, 30, 0, 90004, 0, 0), (t.D8D,)),
    _dense("b + c + d * e, c dense", lambda pa, b, d, e, c: b + c + d * e, (t.D8A, t.D8C, t.D8D), (11, 10002, 23, 30, 0, 90004, 0, 0), (t.D8B,)),
    _dense("(b + c + d) * e", lambda pa, b, c, d, e: ((b + c + d) * e).toarray(), (t.D8A, t.D8B, t.D8C, t.D8D), (0, 10200, 4600, 0, 0, 91200, 0, 0)),
    _dense("(b + c + d) * e, e dense", lambda pa, b, c, d, e: ((b + c + d) * e).toarray(), (t.D8A, t.D8B, t.D8C), (0, 10200, 4600, 0, 0, 91200, 0, 0), (t.D8D,)),
    _dense("b + c + d + e", lambda pa, b, c, d, e: (b + c + d + e).toarray(), (t.D8A, t.D8B, t.D8C, t.D8D), (11, 202, 223, 230, 0, 604, 400, 400)),
    _dense("residual", lambda pa, A, b, x: b - A @ x, (t.D33A,), (3, 2, -17), (t.D3A, t.D3B)),
    _dense("alpha (B + C) d", lambda pa, B, C, d: 2.0 * ((B + C) @ d), (t.D33A, t.D33B), (148, 0, 146), (t.D3A,)),
    _dense("2 B c + 3", lambda pa, B, c: 2.0 * (B @ c) + 3.0, (t.D33A,), (11, 3, 29), (t.D3A,)),
    _dense("B c + d", lambda pa, B, c, d: B @ c + d, (t.D33A,), (6, 0, 16), (t.D3A, t.D3B)),
    _dense("B c + d of sparse vectors", lambda pa, B, c, d: pa.toarray(B @ c + d), (t.D33A, t.D3A, t.D3B), (6, 0, 16)),
    _dense("alpha B c + beta d", lambda pa, B, c, d: 2.0 * (B @ c) + 10.0 * d, (t.D33A,), (28, 0, 56), (t.D3A, t.D3B)),
    _dense("inner product of sparse vectors", _sum("k,k->"), (t.D5A, t.D5B), (40,)),
    _dense("matrix times vector", lambda pa, B, c: B @ c, (t.D33A,), (0, 0, 18), (t.D3B,)),
    _dense("matrix times sparse vector", lambda pa, B, c: pa.toarray(B @ c), (t.D33A, t.D3B), (0, 0, 18)),
    _dense("sum of a matrix", lambda pa, B: B.sum(), (t.D33A,), (9,)),
    _dense("matrix times matrix", lambda pa, B, C: pa.toarray(B @ C), (t.D33A, t.D33B), (0, 0, 0, 0, 0, 0, 30, 180, 0)),
    _dense("tensor times vector", _sum("ijk,k->ij"), (t.D333A,), (4, 0, 12, 0, 0, 33, 0, 24, 0), (t.D3B,)),
    _dense("tensor times sparse vector", lambda pa, B, c: pa.toarray(pa.einsum("ijk,k->ij", B, c)), (t.D333A, t.D3B), (4, 0, 12, 0, 0, 33, 0, 24, 0)),
    _dense("tensor times matrix over two indices", _sum("ijk,jk->ij"), (t.D233A,), (6, 0, 16, 10, 0, 46), (t.D33A,)),
    _dense("tensor times matrix", _sum("iml,lj->imj"), (t.D233A,), (0, 4, 0, 0, 0, 0, 12, 0, 16, 0, 0, 0, 0, 0, 0, 21, 12, 28), (t.D33A,)),
    _dense("mttkrp", _sum("ikl,kj,lj->ij"), (t.D233A,), (0, 80, 0, 180, 0, 0), (t.D33A, t.D33B)),
    # MLIR
    Result("scaled vector", f"{MLIR}sparse_vector_ops.mlir", lambda pa, a: a * 2.0, (t.V1,), levels=VECTOR,
        arrays={"crd0": (0, 3, 11, 17, 20, 21, 28, 29, 31), "val": (2, 4, 6, 8, 10, 12, 14, 16, 18)}),
    Result("sum of vectors of 32", f"{MLIR}sparse_vector_ops.mlir", lambda pa, a, b: a * 2.0 + b, (t.V1, t.V2), levels=VECTOR,
        arrays={"crd0": (0, 1, 3, 4, 10, 11, 16, 17, 18, 20, 21, 28, 29, 31), "val": (2, 11, 16, 13, 14, 6, 15, 8, 16, 10, 29, 32, 35, 38)}),
    Result("product of vectors of 32", f"{MLIR}sparse_vector_ops.mlir", lambda pa, a, b: a * 2.0 * b, (t.V1, t.V2), levels=VECTOR,
        arrays={"crd0": (3, 21, 28, 29, 31), "val": (48, 204, 252, 304, 360)}),
    Result("dot product of 32", f"{MLIR}sparse_vector_ops.mlir", lambda pa, a, b: 1.1 + pa.einsum("i,i->", a * 2.0, b), (t.V1, t.V2), arrays={"val": (1169.1,)}),
    Result("sparse vector times dense one", f"{MLIR}sparse_binary.mlir", lambda pa, a, b: a * b, (t.V1,), (t.V3,), levels=VECTOR,
        arrays={"pos0": (0, 9), "crd0": (0, 3, 11, 17, 20, 21, 28, 29, 31), "val": (0, 6, 3, 28, 0, 6, 56, 72, 9)}),
    Result("indices of a vector", f"{MLIR}sparse_binary.mlir", lambda pa, a, b: pa.map_stored(lambda _, i: i, a, b), (t.V1,), (np.arange(32.0),), levels=VECTOR,
        arrays={"pos0": (0, 9), "crd0": (0, 3, 11, 17, 20, 21, 28, 29, 31), "val": (0, 3, 11, 17, 20, 21, 28, 29, 31)}),
    Result("vector times its indices", f"{MLIR}sparse_unary.mlir", lambda pa, a, b: a * b, (t.V1,), (np.arange(32.0),), levels=VECTOR,
        arrays={"val": (0, 6, 33, 68, 100, 126, 196, 232, 279)}),
    Result("stored values clipped", f"{MLIR}sparse_unary.mlir", lambda pa, a: pa.map_stored(lambda v: pa.clip(v, 3.0, 7.0), a), (t.M1,), levels=DCSR,
        arrays={"val": (3, 3, 3, 4, 5, 6, 7, 7, 7)}),
    Result("scaled matrix", f"{MLIR}sparse_matrix_ops.mlir", lambda pa, a: a * 2.0, (t.M1,), levels=DCSR,
        arrays={"pos0": (0, 4), "crd0": (0, 1, 2, 3), "pos1": (0, 2, 3, 6, 9), "crd1": (0, 1, 7, 2, 4, 7, 0, 2, 3), "val": (2, 4, 6, 8, 10, 12, 14, 16, 18)}),
    Result("sum of 4x8 matrices", f"{MLIR}sparse_matrix_ops.mlir", lambda pa, a, b: a * 2.0 + b, (t.M1, t.M2), levels=DCSR,
        arrays={"pos0": (0, 4), "crd0": (0, 1, 2, 3), "pos1": (0, 3, 6, 10, 13), "crd1": (0, 1, 7, 0, 6, 7, 1, 2, 4, 7, 0, 2, 3),
                "val": (8, 4, 5, 4, 3, 6, 2, 8, 10, 13, 14, 16, 18)}),
    Result("product of 4x8 matrices", f"{MLIR}sparse_matrix_ops.mlir", lambda pa, a, b: a * 2.0 * b, (t.M1, t.M2), levels=DCSR,
        arrays={"pos0": (0, 2), "crd0": (0, 2), "pos1": (0, 1, 2), "crd1": (0, 7), "val": (12, 12)}),
    Result("sum of 4x4 matrices", f"{MLIR}sparse_binary.mlir", lambda pa, a, b: a + b, (t.M3, t.M4), levels=DCSR,
        arrays={"pos0": (0, 4), "crd0": (0, 1, 2, 3), "pos1": (0, 3, 4, 8, 10), "crd1": (0, 2, 3, 1, 0, 1, 2, 3, 0, 1), "val": (2, 4, 1, 2.5, 1, 5, 2, 4, 5, 4)}),
    Result("product of 32x16 matrices", f"{MLIR}sparse_out_mult_elt.mlir", lambda pa, a, b: a * b, (t.TA, t.TB), levels=DCSR, arrays={"val": (14, 20)}),
    Result("twice a matrix", f"{MLIR}sparse_scale.mlir", lambda pa, a: a * 2.0, (t.SCALE,), levels=CSR,
        arrays={"val": (2, 2, 2, 4, 6, 8, 2, 10, 2, 2, 12, 2, 14, 2, 2, 16)}),
    Result("less, both sparse", f"{MLIR}sparse_cmp.mlir", lambda pa, a, b: a < b, (t.LEFT, t.RIGHT), levels=DCSR,
        arrays={"pos0": (0, 4), "crd0": (0, 1, 2, 3), "pos1": (0, 3, 5, 9, 11), "crd1": (1, 2, 3, 0, 1, 0, 1, 2, 3, 0, 1), "val": (1, 0, 1, 1, 0, 1, 0, 0, 1, 0, 0)}),
    Result("select by a dense condition", f"{MLIR}sparse_semiring_select.mlir", lambda pa, a, b, c: pa.where(c > 0, a, b), (t.SELECT_L, t.SELECT_R), (np.eye(5),),
        levels=DCSR,
        arrays={"pos0": (0, 5), "crd0": (0, 1, 2, 3, 4), "pos1": (0, 2, 4, 6, 8, 9), "crd1": (0, 1, 1, 2, 2, 3, 3, 4, 4),
                "val": (0.1, 1.1, 1.1, 2.2, 2.1, 3.3, 3.1, 4.4, 4.1)}),
    Result("sampled product", f"{MLIR}sparse_sampled_mm_fusion.mlir", lambda pa, s, a, b: s * (a @ b), (t.SAMPLE,), (np.full((8, 8), 3.0), np.full((8, 8), 4.0)),
        levels=DCSR, arrays={"val": (96, 192)}),
    Result("transposed", f"{MLIR}sparse_transpose.mlir", lambda pa, a: a.T, (t.TURN,), levels=DCSR,
        arrays={"val": (1.1, 3.1, 1.2, 3.3, 1.4, 3.4)}),
    Result("product of matrices in CSR", f"{MLIR}sparse_matmul_slice.mlir", lambda pa, a, b: a @ b, (t.SA, t.SB), levels=CSR,
        arrays={"pos1": (0, 2, 2, 3, 5), "crd1": (1, 2, 2, 2, 3), "val": (30.5, 4.2, 4.6, 7, 8)}),
    Result("product of matrices in DCSR", f"{MLIR}sparse_matmul_slice.mlir", lambda pa, a, b: a @ b, (t.SA, t.SB), levels=DCSR,
        arrays={"pos0": (0, 3), "crd0": (0, 2, 3), "pos1": (0, 2, 3, 5), "crd1": (1, 2, 2, 2, 3), "val": (30.5, 4.2, 4.6, 7, 8)}),
    Result("product of a slice", f"{MLIR}sparse_matmul_slice.mlir", lambda pa, a, b: a[:4] @ b, (t.SA8, t.SB), levels=CSR,
        arrays={"pos1": (0, 2, 2, 3, 5), "crd1": (1, 2, 2, 2, 3), "val": (30.5, 4.2, 4.6, 7, 8)}),
    Result("product of strided slices", f"{MLIR}sparse_matmul_slice.mlir", lambda pa, a, b: b[0:8:2] @ a[0:8:2, 1:5], (t.SA8, t.SB), levels=CSR,
        arrays={"pos1": (0, 1, 2, 2, 3), "crd1": (0, 0, 0), "val": (2.3, 6.9, 12.6)}),
    Result("product of strided slices of lists", f"{MLIR}sparse_matmul_slice.mlir", lambda pa, a, b: b[0:8:2] @ a[0:8:2, 1:5], (t.SA8, t.SB), kind="coo", levels=LIST,
        arrays={"pos0": (0, 3), "crd0": (0, 1, 3), "crd1": (0, 0, 0), "val": (2.3, 6.9, 12.6)}),
    Result("min-plus product", f"{MLIR}sparse_reduce_custom.mlir", lambda pa, a, b: pa.matmul(a, b, semiring=pa.semiring("min", "add")), (t.CUSTOM1, t.CUSTOM2),
        levels=CSR, arrays={"pos1": (0, 2, 3, 6, 9), "crd1": (0, 3, 0, 0, 1, 3, 0, 1, 3), "val": (7, 7, 9, 8, 7, 7, 12, 11, 11)}, needs="semiring"),
    Result("product of tensors, summed", f"{MLIR}sparse_out_reduction.mlir", _sum("ijk,ijk->ij"), (t.T1, t.T2), levels=DCSR,
        arrays={"pos0": (0, 2), "crd0": (1, 2), "pos1": (0, 1, 2), "crd1": (1, 2), "val": (7, 69)}),
    Result("reshaped to 2x6", f"{MLIR}sparse_reshape.mlir", lambda pa, a: a.reshape(2, 6), (t.RESHAPE,), levels=DCSR,
        arrays={"pos0": (0, 2), "crd0": (0, 1), "pos1": (0, 3, 6), "crd1": (0, 2, 4, 0, 2, 4), "val": (1.1, 1.3, 2.1, 2.3, 3.1, 3.3)}),
    Result("reshaped to 12", f"{MLIR}sparse_reshape.mlir", lambda pa, a: a.reshape(12), (t.RESHAPE,), levels=VECTOR,
        arrays={"pos0": (0, 6), "crd0": (0, 2, 4, 6, 8, 10), "val": (1.1, 1.3, 2.1, 2.3, 3.1, 3.3)}),
    Result("reshaped to 2x3x2", f"{MLIR}sparse_reshape.mlir", lambda pa, a: a.reshape(2, 3, 2), (t.RESHAPE,), levels="i:compressed j:compressed k:compressed",
        arrays={"pos0": (0, 2), "crd0": (0, 1), "pos1": (0, 3, 6), "crd1": (0, 1, 2, 0, 1, 2), "pos2": (0, 1, 2, 3, 4, 5, 6), "crd2": (0, 0, 0, 0, 0, 0),
                "val": (1.1, 1.3, 2.1, 2.3, 3.1, 3.3)}),
    Result("joined rows", f"{MLIR}concatenate_dim_0.mlir", lambda pa, a, b, c: pa.concat([a, b, c], axis=0), (t.C24, t.C34, t.LEFT), levels=DCSR,
        arrays={"pos0": (0, 9), "crd0": (0, 1, 2, 3, 4, 5, 6, 7, 8), "pos1": (0, 2, 3, 6, 7, 10, 12, 13, 16, 18),
                "crd1": (0, 2, 1, 0, 2, 3, 1, 0, 1, 2, 2, 3, 1, 0, 1, 2, 0, 1), "val": (1, 3, 2, 1, 1, 1, 0.5, 1, 5, 2, 1.5, 1, 3.5, 1, 5, 2, 1, 0.5)}),
]  # fmt: skip
