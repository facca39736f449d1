"""The expressions of the suite. Each is one lambda that runs on traced arrays (`pa` is PolyAI) and on models (`pa` is the oracle).

`sparse` and `dense` give the shapes of the operands in letters: "nm km | ml" has two sparse matrices and a dense one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Fn = Callable[..., Any]


@dataclass(frozen=True)
class Expression:
    """`result`: "sparse" (its pattern and format are checked as well), "dense", or "any" of them. `between`: the stored
    coordinates hold what is not zero and at most the oracle's. `needs`: functions and keywords of PolyAI it is written with.
    `types`: other element types it is tried with, of all operands. `deep`: it is tried over every pair of formats.
    `format`: the format it asks for."""

    name: str
    family: str
    sparse: tuple[str, ...]
    dense: tuple[str, ...]
    fn: Fn
    result: str = "sparse"
    between: bool = False
    needs: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    deep: bool = False
    format: str = ""


def family(name: str, shapes: str, *entries: tuple[Any, ...], result: str = "sparse", **common: Any) -> list[Expression]:
    """Expressions over operands of the same shapes: pairs of a name and a lambda, with options that differ in a third place."""
    left, _, right = shapes.partition("|")
    sparse, dense = tuple(left.split()), tuple(right.split())
    out = []
    for entry in entries:
        own = {"result": result, **common, **(entry[2] if len(entry) > 2 else {})}
        out.append(Expression(entry[0], name, sparse, dense, entry[1], **own))
    return out


ORDERED = ("f4", "i4", "i8", "u1", "?")
TYPES: dict[str, Any] = {"types": (*ORDERED, "c16", "f4 f8", "i4 f8", "f8 c16", "i4 i8")}
DEEP: dict[str, Any] = {"deep": True, **TYPES}
DENSE: dict[str, Any] = {"result": "dense"}
ANY: dict[str, Any] = {"result": "any"}
SEMI: dict[str, Any] = {"needs": ("semiring", "matmul.semiring")}

ONE = [
    *family("one", "nm",
        ("A * 2", lambda pa, A: A * 2, TYPES),
        ("-A", lambda pa, A: -A, TYPES),
        ("abs(A)", lambda pa, A: abs(A), TYPES),
        ("relu(A)", lambda pa, A: pa.relu(A)),
        ("sign(A)", lambda pa, A: pa.sign(A)),
        ("A.power(2)", lambda pa, A: A.power(2)),
        ("A / 2", lambda pa, A: A / 2),
        ("A.T", lambda pa, A: A.T),
        ("A + A", lambda pa, A: A + A, TYPES),
        ("A - A", lambda pa, A: A - A),
        ("A * A", lambda pa, A: A * A, TYPES),
        ("A + 2 * A", lambda pa, A: A + 2 * A),
        ("A * (A > 0)", lambda pa, A: A * (A > 0)),
        ("A.T * 2 + A.T", lambda pa, A: A.T * 2 + A.T),
        ("sum(A)", lambda pa, A: A.sum(), {**DENSE, **TYPES}),
        ("sum(A, 0)", lambda pa, A: A.sum(axis=0), DENSE),
        ("sum(A, 1)", lambda pa, A: A.sum(axis=1), DENSE),
        ("A.toarray()", lambda pa, A: A.toarray(), {**DENSE, **TYPES}),
        ("diagonal(A)", lambda pa, A: A.diagonal(), DENSE),
        ("trace(A)", lambda pa, A: A.trace(), DENSE),
        ("A @ A.T", lambda pa, A: A @ A.T, TYPES),
        ("A.T @ A", lambda pa, A: A.T @ A),
    ),
    *family("one square", "nn",
        ("A + A.T", lambda pa, A: A + A.T, TYPES),
        ("A * A.T", lambda pa, A: A * A.T),
        ("A - A.T", lambda pa, A: A - A.T),
        ("A @ A", lambda pa, A: A @ A, TYPES),
        ("A @ A @ A", lambda pa, A: A @ A @ A),
        ("A * (A @ A)", lambda pa, A: A * (A @ A)),
        ("triangles", lambda pa, A: pa.einsum("ij,jk,ki->", A, A, A), DENSE),
    ),
]  # fmt: skip

WITH_DENSE = [
    *family("one and dense", "nm | nm",
        ("A * D", lambda pa, A, D: A * D, TYPES),
        ("D * A", lambda pa, A, D: D * A),
        ("A * D + A", lambda pa, A, D: A * D + A),
        ("A + D", lambda pa, A, D: A + D, {**DENSE, **TYPES}),
        ("D - A", lambda pa, A, D: D - A, DENSE),
        ("einsum ij,ij->j", lambda pa, A, D: pa.einsum("ij,ij->j", A, D), DENSE),
        ("einsum ij,ij->", lambda pa, A, D: pa.einsum("ij,ij->", A, D), DENSE),
        ("einsum ij,ij->ji", lambda pa, A, D: pa.einsum("ij,ij->ji", A, D)),
    ),
    *family("one and rows", "nm | m n",
        ("A * row", lambda pa, A, x, y: A * x),
        ("A * column", lambda pa, A, x, y: A * y[:, None]),
        ("column * A * row", lambda pa, A, x, y: y[:, None] * A * x),
        ("A @ x", lambda pa, A, x, y: A @ x, {**DENSE, **TYPES}),
        ("y @ A", lambda pa, A, x, y: y @ A, DENSE),
        ("A.T @ y", lambda pa, A, x, y: A.T @ y, DENSE),
        ("A @ x + y", lambda pa, A, x, y: A @ x + y, DENSE),
        ("quadratic form", lambda pa, A, x, y: pa.einsum("i,ij,j->", y, A, x), DENSE),
    ),
    *family("one and matrices", "nm | ml ln",
        ("A @ X", lambda pa, A, X, Y: A @ X, {**DENSE, **TYPES}),
        ("Y @ A", lambda pa, A, X, Y: Y @ A, DENSE),
        ("relu(A @ X)", lambda pa, A, X, Y: pa.relu(A @ X), DENSE),
        ("A * (Y.T @ X.T)", lambda pa, A, X, Y: A * (Y.T @ X.T)),
        ("einsum ij,jk,ki->", lambda pa, A, X, Y: pa.einsum("ij,jk,ki->", A, X, Y), DENSE),
        ("einsum sddmm", lambda pa, A, X, Y: pa.einsum("ij,ki,jk->ij", A, Y, X)),
    ),
]  # fmt: skip

TWO = [
    *family("two", "nm nm",
        ("A + B", lambda pa, A, B: A + B, DEEP),
        ("A - B", lambda pa, A, B: A - B, TYPES),
        ("A * B", lambda pa, A, B: A * B, DEEP),
        ("A.multiply(B)", lambda pa, A, B: A.multiply(B)),
        ("maximum(A, B)", lambda pa, A, B: pa.maximum(A, B), {"types": ORDERED}),
        ("minimum(A, B)", lambda pa, A, B: pa.minimum(A, B), {"types": ORDERED}),
        ("A != B", lambda pa, A, B: A != B, TYPES),
        ("A < B", lambda pa, A, B: A < B),
        ("A > B", lambda pa, A, B: A > B),
        ("2 * A + 3 * B", lambda pa, A, B: 2 * A + 3 * B),
        ("A + B / 2", lambda pa, A, B: A + B / 2),
        ("A * B + A", lambda pa, A, B: A * B + A),
        ("A * (A + B)", lambda pa, A, B: A * (A + B)),
        ("(A + B) * (A - B)", lambda pa, A, B: (A + B) * (A - B)),
        ("(A + B) - B", lambda pa, A, B: (A + B) - B),
        ("abs(A - B)", lambda pa, A, B: abs(A - B)),
        ("relu(A - B)", lambda pa, A, B: pa.relu(A - B)),
        ("relu(A) + relu(B)", lambda pa, A, B: pa.relu(A) + pa.relu(B)),
        ("where(A, A, B)", lambda pa, A, B: pa.where(A, A, B), {"between": True}),
        ("where(A > 0, A, B)", lambda pa, A, B: pa.where(A > 0, A, B), {"between": True}),
        ("logical_and(A, B)", lambda pa, A, B: pa.logical_and(A, B)),
        ("logical_or(A, B)", lambda pa, A, B: pa.logical_or(A, B)),
        ("logical_xor(A, B)", lambda pa, A, B: pa.logical_xor(A, B)),
        ("(A + B).T", lambda pa, A, B: (A + B).T),
        ("A.T + B.T", lambda pa, A, B: A.T + B.T),
        ("sum(A + B)", lambda pa, A, B: (A + B).sum(), DENSE),
        ("sum(A + B, 0)", lambda pa, A, B: (A + B).sum(axis=0), DENSE),
        ("sum(A * B, 1)", lambda pa, A, B: (A * B).sum(axis=1), DENSE),
        ("sum(A * B)", lambda pa, A, B: (A * B).sum(), DENSE),
        ("(A + B).toarray()", lambda pa, A, B: (A + B).toarray(), DENSE),
        ("A.toarray() + B", lambda pa, A, B: A.toarray() + B, DENSE),
        ("A @ B.T", lambda pa, A, B: A @ B.T, TYPES),
        ("A.T @ B", lambda pa, A, B: A.T @ B),
        ("relu(A @ B.T)", lambda pa, A, B: pa.relu(A @ B.T)),
        ("einsum ij,ij->ij", lambda pa, A, B: pa.einsum("ij,ij->ij", A, B)),
        ("einsum ij,ij->ji", lambda pa, A, B: pa.einsum("ij,ij->ji", A, B)),
        ("einsum ij,ij->i", lambda pa, A, B: pa.einsum("ij,ij->i", A, B), ANY),
        ("einsum ij,ij->j", lambda pa, A, B: pa.einsum("ij,ij->j", A, B), ANY),
        ("einsum ij,ij->", lambda pa, A, B: pa.einsum("ij,ij->", A, B), DENSE),
        ("einsum ij,kj->ik", lambda pa, A, B: pa.einsum("ij,kj->ik", A, B)),
        ("einsum ij,ik->jk", lambda pa, A, B: pa.einsum("ij,ik->jk", A, B)),
        ("einsum ij,kj->ikj", lambda pa, A, B: pa.einsum("ij,kj->ikj", A, B), ANY),
        ("einsum ij,kl->", lambda pa, A, B: pa.einsum("ij,kl->", A, B), DENSE),
        ("asformat(A + B, csc)", lambda pa, A, B: pa.asformat(A + B, "csc"), {"needs": ("asformat",), "format": "csc"}),
        ("asformat(A + B, coo)", lambda pa, A, B: pa.asformat(A + B, "coo"), {"needs": ("asformat",), "format": "coo"}),
    ),
    *family("two and dense", "nm nm | nm m n",
        ("(A + B) * D", lambda pa, A, B, D, x, y: (A + B) * D),
        ("A * B * D", lambda pa, A, B, D, x, y: A * B * D),
        ("A * D + B", lambda pa, A, B, D, x, y: A * D + B),
        ("A * x + y * B", lambda pa, A, B, D, x, y: A * x + y[:, None] * B),
        ("A + B + D", lambda pa, A, B, D, x, y: A + B + D, DENSE),
        ("A * B + D", lambda pa, A, B, D, x, y: A * B + D, DENSE),
        ("(A + B) @ x", lambda pa, A, B, D, x, y: (A + B) @ x, DENSE),
        ("A @ x + B @ x", lambda pa, A, B, D, x, y: A @ x + B @ x, DENSE),
        ("(A * B) @ x", lambda pa, A, B, D, x, y: (A * B) @ x, DENSE),
        ("A @ (B.T @ y)", lambda pa, A, B, D, x, y: A @ (B.T @ y), DENSE),
        ("einsum ij,ij,ij->ij", lambda pa, A, B, D, x, y: pa.einsum("ij,ij,ij->ij", A, B, D)),
        ("einsum ij,ij,j->i", lambda pa, A, B, D, x, y: pa.einsum("ij,ij,j->i", A, B, x), ANY),
    ),
    *family("two to multiply", "nm mk",
        ("A @ B", lambda pa, A, B: A @ B, DEEP),
        ("(A @ B) * 2", lambda pa, A, B: (A @ B) * 2),
        ("(A @ B).T", lambda pa, A, B: (A @ B).T),
        ("abs(A) @ B", lambda pa, A, B: abs(A) @ B),
        ("sum(A @ B, 1)", lambda pa, A, B: (A @ B).sum(axis=1), DENSE),
        ("A @ B.toarray()", lambda pa, A, B: A @ B.toarray(), DENSE),
        ("einsum ij,jk->ik", lambda pa, A, B: pa.einsum("ij,jk->ik", A, B)),
        ("einsum ij,jk->ki", lambda pa, A, B: pa.einsum("ij,jk->ki", A, B)),
        ("einsum ij,jk->i", lambda pa, A, B: pa.einsum("ij,jk->i", A, B), ANY),
        ("einsum ij,jk->", lambda pa, A, B: pa.einsum("ij,jk->", A, B), DENSE),
        ("einsum ij,jk->ijk", lambda pa, A, B: pa.einsum("ij,jk->ijk", A, B), ANY),
    ),
    *family("two to multiply and dense", "nm mk | nm kl k",
        ("(A * D) @ B", lambda pa, A, B, D, X, x: (A * D) @ B),
        ("(A @ B) * x", lambda pa, A, B, D, X, x: (A @ B) * x),
        ("(A @ B) @ X", lambda pa, A, B, D, X, x: (A @ B) @ X, DENSE),
        ("A @ (B @ X)", lambda pa, A, B, D, X, x: A @ (B @ X), DENSE),
        ("einsum ij,jk,kl->il", lambda pa, A, B, D, X, x: pa.einsum("ij,jk,kl->il", A, B, X), ANY),
    ),
    *family("semirings", "nm mk",
        ("min-plus", lambda pa, A, B: pa.matmul(A, B, semiring=pa.semiring("min", "add")), SEMI),
        ("max-times", lambda pa, A, B: pa.matmul(A, B, semiring=pa.semiring("max", "mul")), SEMI),
        ("max-min", lambda pa, A, B: pa.matmul(A, B, semiring=pa.semiring("max", "min")), SEMI),
        ("min-plus by einsum", lambda pa, A, B: pa.einsum("ij,jk->ik", A, B, semiring=pa.semiring("min", "add")),
            {"needs": ("semiring", "einsum.semiring")}),
    ),
    *family("masks", "nm mk nk",
        ("masked product", lambda pa, A, B, M: pa.matmul(A, B, mask=M), {"needs": ("matmul.mask",)}),
        ("complement", lambda pa, A, B, M: pa.matmul(A, B, mask=M, complement=True), {"needs": ("matmul.mask", "matmul.complement")}),
        ("masked min-plus", lambda pa, A, B, M: pa.matmul(A, B, semiring=pa.semiring("min", "add"), mask=M),
            {"needs": ("semiring", "matmul.semiring", "matmul.mask")}),
    ),
    *family("rows of sparse", "nm 1m",
        ("A * row of sparse", lambda pa, A, R: A * R),
    ),
    *family("columns of sparse", "nm n1",
        ("A * column of sparse", lambda pa, A, C: A * C),
    ),
]  # fmt: skip

MORE = [
    *family("three", "nm nm nm",
        ("A + B + C", lambda pa, A, B, C: A + B + C, DEEP),
        ("A * B * C", lambda pa, A, B, C: A * B * C),
        ("(A + B) * (A + B + C)", lambda pa, A, B, C: (A + B) * (A + B + C), DEEP),
        ("(A + B) * C", lambda pa, A, B, C: (A + B) * C),
        ("A * B + C", lambda pa, A, B, C: A * B + C),
        ("A * (B - C)", lambda pa, A, B, C: A * (B - C)),
        ("maximum(A, B) - C", lambda pa, A, B, C: pa.maximum(A, B) - C),
        ("where(A, B, C)", lambda pa, A, B, C: pa.where(A, B, C), {"between": True}),
        ("sum(A * (B + C), 0)", lambda pa, A, B, C: (A * (B + C)).sum(axis=0), DENSE),
        ("einsum ij,ij,ij->ij", lambda pa, A, B, C: pa.einsum("ij,ij,ij->ij", A, B, C)),
    ),
    *family("three to multiply", "nm mk kl",
        ("A @ B @ C", lambda pa, A, B, C: A @ B @ C),
        ("A @ (B @ C)", lambda pa, A, B, C: A @ (B @ C)),
        ("einsum ij,jk,kl->il", lambda pa, A, B, C: pa.einsum("ij,jk,kl->il", A, B, C)),
        ("einsum ij,jk,kl->", lambda pa, A, B, C: pa.einsum("ij,jk,kl->", A, B, C), DENSE),
    ),
    *family("product and sum", "nm mk nk",
        ("A @ B + C", lambda pa, A, B, C: A @ B + C),
        ("C - A @ B", lambda pa, A, B, C: C - A @ B),
        ("(A @ B) * C", lambda pa, A, B, C: (A @ B) * C),
        ("einsum ij,jk,ik->ik", lambda pa, A, B, C: pa.einsum("ij,jk,ik->ik", A, B, C)),
        ("einsum ij,jk,ik->", lambda pa, A, B, C: pa.einsum("ij,jk,ik->", A, B, C), DENSE),
    ),
    *family("four", "nm nm nm nm",
        ("A + B + C + D", lambda pa, A, B, C, D: A + B + C + D),
        ("(A + B) * (C + D)", lambda pa, A, B, C, D: (A + B) * (C + D)),
        ("A * B + C * D", lambda pa, A, B, C, D: A * B + C * D),
    ),
]  # fmt: skip

VECTORS = [
    *family("one vector", "m | m nm",
        ("u * 2", lambda pa, u, x, D: u * 2),
        ("u + u", lambda pa, u, x, D: u + u),
        ("u * x", lambda pa, u, x, D: u * x),
        ("u + x", lambda pa, u, x, D: u + x, DENSE),
        ("u @ x", lambda pa, u, x, D: u @ x, DENSE),
        ("D @ u", lambda pa, u, x, D: D @ u, DENSE),
        ("sum(u)", lambda pa, u, x, D: u.sum(), DENSE),
        ("u.toarray()", lambda pa, u, x, D: u.toarray(), DENSE),
    ),
    *family("two vectors", "m m",
        ("u + v", lambda pa, u, v: u + v),
        ("u - v", lambda pa, u, v: u - v),
        ("u * v", lambda pa, u, v: u * v),
        ("maximum(u, v)", lambda pa, u, v: pa.maximum(u, v)),
        ("u @ v", lambda pa, u, v: u @ v, DENSE),
        ("einsum i,i->", lambda pa, u, v: pa.einsum("i,i->", u, v), DENSE),
        ("outer product", lambda pa, u, v: pa.einsum("i,j->ij", u, v)),
    ),
    *family("matrix and vector", "nm m n",
        ("A @ u", lambda pa, A, u, v: A @ u, ANY),
        ("A * u", lambda pa, A, u, v: A * u),
        ("einsum ij,j->ij", lambda pa, A, u, v: pa.einsum("ij,j->ij", A, u)),
        ("einsum ij,i->j", lambda pa, A, u, v: pa.einsum("ij,i->j", A, v), ANY),
        ("einsum i,ij,j->", lambda pa, A, u, v: pa.einsum("i,ij,j->", v, A, u), DENSE),
    ),
]  # fmt: skip

TENSORS = [
    *family("one tensor", "nml | l m nml",
        ("T * 2", lambda pa, T, x, y, D: T * 2),
        ("T * D", lambda pa, T, x, y, D: T * D),
        ("sum(T)", lambda pa, T, x, y, D: T.sum(), DENSE),
        ("sum(T, 1)", lambda pa, T, x, y, D: T.sum(axis=1), ANY),
        ("T.toarray()", lambda pa, T, x, y, D: T.toarray(), DENSE),
        ("einsum ijk,k->ij", lambda pa, T, x, y, D: pa.einsum("ijk,k->ij", T, x), ANY),
        ("einsum ijk,j->ik", lambda pa, T, x, y, D: pa.einsum("ijk,j->ik", T, y), ANY),
        ("einsum ijk,j,k->i", lambda pa, T, x, y, D: pa.einsum("ijk,j,k->i", T, y, x), DENSE),
        ("einsum ijk->ki", lambda pa, T, x, y, D: pa.einsum("ijk->ki", T), ANY),
    ),
    *family("tensor and matrices", "nml | mr lr",
        ("mttkrp", lambda pa, T, B, C: pa.einsum("ijk,jr,kr->ir", T, B, C), DENSE),
        ("ttm", lambda pa, T, B, C: pa.einsum("ijk,kr->ijr", T, C), ANY),
        ("tucker", lambda pa, T, B, C: pa.einsum("ijk,jr,ks->irs", T, B, C), ANY),
    ),
    *family("two tensors", "nml nml",
        ("S + T", lambda pa, S, T: S + T),
        ("S * T", lambda pa, S, T: S * T),
        ("einsum ijk,ijk->", lambda pa, S, T: pa.einsum("ijk,ijk->", S, T), DENSE),
        ("einsum ijk,ijk->ij", lambda pa, S, T: pa.einsum("ijk,ijk->ij", S, T), ANY),
        ("einsum ijk,ilk->jl", lambda pa, S, T: pa.einsum("ijk,ilk->jl", S, T), ANY),
    ),
    *family("tensor and sparse matrix", "nml nm",
        ("einsum ijk,ij->k", lambda pa, T, A: pa.einsum("ijk,ij->k", T, A), ANY),
        ("einsum ijk,ij->ijk", lambda pa, T, A: pa.einsum("ijk,ij->ijk", T, A), ANY),
    ),
]  # fmt: skip

EXPRESSIONS: tuple[Expression, ...] = (*ONE, *WITH_DENSE, *TWO, *MORE, *VECTORS, *TENSORS)
