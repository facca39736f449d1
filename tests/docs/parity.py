"""What users do with scipy.sparse arrays, as rows of a table, and what each row gives inside a compiled function.

A row is code over A, B (sparse, 6x5), S (sparse, 5x5), C (sparse, complex), R (a sparse row), D (dense, 6x5), x, y (vectors), X (5x3).
It is run as it is on SciPy's arrays and, as `own` if PolyAI spells it in another way, inside `jit`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.sparse import csgraph, linalg

import polyai as pa
from polyai.errors import PolyAIError

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "scipy-parity.md"
BEGIN, END = "<!-- table -->", "<!-- /table -->"


@dataclass(frozen=True)
class Row:
    group: str
    code: str
    own: str = ""
    note: str = ""


def rows(group: str, *codes: str | tuple[str, ...]) -> list[Row]:
    return [Row(group, *([code] if isinstance(code, str) else code)) for code in codes]


ROWS: tuple[Row, ...] = (
    *rows("Attributes",
        "A.shape", "A.ndim", "A.dtype", "A.nnz", "A.size", "A.format", "A.T", "C.real", "C.imag", "A.data", "A.indices", "A.indptr",
        "A.has_sorted_indices", "len(A)",
    ),
    *rows("With numbers",
        "A * 2", "2 * A", "A / 2", "-A", "+A", "abs(A)", "A ** 2", "A.power(2)", "A + 1", "A - 1", "A // 2", "A % 2", "round(A)", "A > 0", "A < 0", "A != 0",
        "A == 0", "A >= 1", "A.maximum(0)", "A.minimum(0)", "A.maximum(1)", "np.int64(3) * A",
    ),
    *rows("With dense arrays",
        "A + D", "D + A", "A - D", "D - A", "A * D", "D * A", "A.multiply(D)", "A.multiply(x)", "A * y[:, None]", "A / D", "A.maximum(D)", "A @ x", "A @ X",
        "y @ A", "D.T @ A", "A.dot(x)", "A.T @ y", "A > D", "A != D",
    ),
    *rows("Of two sparse arrays",
        "A + B", "A - B", "A * B", "A.multiply(B)", "A.multiply(R)",
        "A / B", "A @ S", "A.T @ B", "A.dot(S)", "A.maximum(B)", "A.minimum(B)",
        "A != B", "A < B", "A > B", "A == B", "A <= B", "A >= B", "A + A", "A * A", "A @ A.T", "linalg.matrix_power(S, 2)", "S ** 2",
        ("sp.kron(A, S)", "pa.kron(A, S)"),
    ),
    *rows("Functions of each element",
        "A.sign()", "A.sqrt()", "A.sin()", "A.tan()", "A.arcsin()", "A.arctan()", "A.sinh()", "A.tanh()", "A.arcsinh()", "A.arctanh()", "A.expm1()", "A.log1p()",
        "A.rint()", "A.floor()", "A.ceil()", "A.trunc()", "A.deg2rad()", "A.rad2deg()", "A.conj()", "C.conjugate()", "np.abs(A)", "np.sin(A)", "np.sqrt(abs(A))",
        "np.sign(A)", "np.exp(A)", "np.cos(A)", "A.astype(np.float32)", "A.astype(np.int32)", "A.astype(bool)",
    ),
    *rows("Reductions",
        "A.sum()", "A.sum(axis=0)", "A.sum(axis=1)", "A.sum(axis=-1)", "A.sum(axis=1, dtype=np.float32)", "A.mean()", "A.mean(axis=0)", "A.max()", "A.min()",
        "A.max(axis=0)", "A.min(axis=1)", "A.nanmax()", "A.nanmin(axis=0)", "A.argmax()", "A.argmax(axis=1)", "A.argmin(axis=0)", "A.count_nonzero()",
        "A.getnnz()", "A.getnnz(axis=0)", "A.diagonal()", "A.diagonal(1)", "A.diagonal(-2)", "A.trace()", ("linalg.norm(A)", "pa.norm(A)"),
        ("linalg.norm(A, 1)", "pa.norm(A, 1)"), ("linalg.norm(A, np.inf)", "pa.norm(A, np.inf)"), "np.sum(A)",
    ),
    *rows("Indexing",
        "A[2]", "A[2, 1]", "A[-1, -1]", "A[1:4]", "A[:, 1:3]", "A[::2, ::2]", "A[::-1]", "A[[0, 3]]", "A[:, [1, 1]]", "A[[0, 3], [1, 1]]",
        "A[np.array([0, 3])]", "A[np.array([True, False] * 3)]", "A[A > 0]", "A[:]", "A[...]", "A[1:4][0:2]", "A.nonzero()", ("sp.find(A)", "pa.find(A)"), "A[A.sum(axis=1) > 0]", "A[:, A.sum(axis=0) > 0]", "A[D > 0]", "A[A.sum(axis=1) > 0] @ X",
        ("sp.tril(A)", "pa.tril(A)"), ("sp.triu(A, 1)", "pa.triu(A, 1)"),
        "A[1:4, 2]", "A[2, 1:3]", "A[[0, 3], 1:3]", "A[[[0], [3]], [1, 2]]", "A[:, np.array([True, False, True, True, False])]", "A[[0, 3]] @ X", "A[::-2]", "A[:, ::-1]", "A[:, 2]",
    ),
    *rows("Shape",
        "A.transpose()", "A.transpose((1, 0))", "A.reshape(5, 6)", "A.reshape((30,))", "A.reshape(-1, 10)", ("sp.swapaxes(A, 0, 1)", "np.swapaxes(A, 0, 1)"),
        ("sp.vstack([A, B])", "pa.vstack([A, B])"), ("sp.hstack([A, B])", "pa.hstack([A, B])"), ("sp.block_diag([A, S])", "pa.block_diag([A, S])"), ("sp.block_array([[A], [S]])", "pa.block_array([[A], [S]])"),
        ("sp.block_array([[A, None], [None, S]])", "pa.block_array([[A, None], [None, S]])"),
    ),
    *rows("Conversion",
        "A.toarray()", "A.todense()", "A.tocsr()", "A.tocsc()", "A.tocoo()", "A.tobsr()", "A.todia()", "A.tolil()", "A.todok()", "A.asformat('csr')",
        "A.asformat('csc')", "A.copy()", "sp.csr_array(A)", ("sp.issparse(A)", "", "traced arrays are of no class of SciPy; `A.format` is None for dense ones"),
    ),
    *rows("Construction",
        "sp.csr_array(D)", "sp.diags_array(y) @ A", "sp.eye_array(6) @ A", "A @ sp.eye_array(5)", "sp.csr_array((6, 5)) + A",
        ("sp.diags_array(np.arange(6.0)) @ D", "pa.matmul(sp.diags_array(np.arange(6.0)), D)"),
        ("sp.eye_array(6, format='csr') @ D", "pa.matmul(sp.eye_array(6, format='csr'), D)"),
        ("sp.coo_array(([1.0], ([0], [1])), shape=(6, 6)) @ y", "pa.matmul(sp.coo_array(([1.0], ([0], [1])), shape=(6, 6)), y)"),
    ),
    *rows("In place",
        "A.setdiag(1)", "(lambda B: (B.setdiag(1), B)[1])(A.copy())", "(lambda B: (setattr(B, 'data', B.data * 2), B)[1])(A.copy())", "A.eliminate_zeros()", "(lambda B: (B.eliminate_zeros(), B)[1])(A.copy())", "A.sum_duplicates()", "(lambda B: (B.sum_duplicates(), B)[1])(A.copy())", "A.sort_indices()",
        "(lambda B: (B.sort_indices(), B)[1])(A.copy())", "A.resize(3, 3)", "A.__setitem__((0, 0), 1.0)",
    ),
    *rows("Algorithms", "linalg.spsolve(S, x)", "linalg.eigsh(S)", "csgraph.connected_components(S)"),
)  # fmt: skip

EAGER = {
    "A * 2": "pa.multiply(A, 2)", "-A": "pa.negative(A)", "abs(A)": "pa.abs(A)", "A.power(2)": "pa.power(A, 2)", "A.maximum(0)": "pa.maximum(A, 0)",
    "A + D": "pa.add(A, D)", "A * D": "pa.multiply(A, D)", "A / D": "pa.divide(A, D)", "A @ x": "pa.matmul(A, x)", "A @ X": "pa.matmul(A, X)",
    "y @ A": "pa.matmul(y, A)", "A + B": "pa.add(A, B)", "A - B": "pa.subtract(A, B)", "A * B": "pa.multiply(A, B)", "A @ S": "pa.matmul(A, S)",
    "A.maximum(B)": "pa.maximum(A, B)", "A != B": "pa.not_equal(A, B)", "A.sqrt()": "pa.sqrt(A)", "A.sin()": "pa.sin(A)", "A.astype(np.float32)":
    "pa.astype(A, np.float32)", "A.sum()": "pa.sum(A)", "A.sum(axis=0)": "pa.sum(A, axis=0)", "A.mean()": "pa.mean(A)", "A.max()": "pa.max(A)",
    "A.argmax(axis=1)": "pa.argmax(A, axis=1)", "A.count_nonzero()": "pa.count_nonzero(A)", "A.diagonal()": "pa.diagonal(A)", "A.trace()": "pa.trace(A)",
    "A.transpose()": "pa.transpose(A)", "A.reshape(5, 6)": "pa.reshape(A, (5, 6))", "A.toarray()": "pa.toarray(A)", "A.conj()": "pa.conj(A)",
    "A.nonzero()": "pa.nonzero(A)",
}  # fmt: skip
"""How a row is written with PolyAI's functions, for SciPy's arrays outside a compiled function. Operators and methods are SciPy's there."""

FORMATS = ("csr", "csc", "coo")


def operands(format: str) -> dict[str, Any]:
    rng = np.random.default_rng(2)

    def sparse(*shape: int, dtype: Any = np.float64) -> Any:
        values = rng.choice([-0.75, -0.5, 0.25, 0.5, 0.9], shape).astype(dtype)
        if dtype is np.complex128:
            values = values + 1j
        return getattr(sp, f"{format}_array")(np.where(rng.random(shape) < 0.45, values, 0))

    return {
        "A": sparse(6, 5), "B": sparse(6, 5), "S": sparse(5, 5), "C": sparse(6, 5, dtype=np.complex128), "R": sparse(1, 5),
        "D": rng.standard_normal((6, 5)), "x": rng.standard_normal(5), "y": rng.standard_normal(6), "X": rng.standard_normal((5, 3)),
    }  # fmt: skip


NAMES = ("A", "B", "S", "C", "R", "D", "x", "y", "X")
LIBRARIES = {"np": np, "sp": sp, "pa": pa, "linalg": linalg, "csgraph": csgraph}


def eagerly(row: Row) -> str:
    """The outcome of the row's function outside a compiled function; "" if the row has none."""
    code = row.own if row.own.startswith("pa.") else EAGER.get(row.code, "")
    return outcome(Row(row.group, row.code, code, row.note), compiled=False) if code else ""


def outcome(row: Row, format: str = "csr", compiled: bool = True) -> str:
    """In a word: "works", "dense" (SciPy's result is sparse), "sparse" (SciPy's is dense), the name of an error, "both refuse" if
    SciPy raises as well, "of scipy" if SciPy's own code refuses a traced array, "differs" where the row's note says so. Anything
    else is a defect, and starts with "!"."""
    given = operands(format)
    try:
        wanted = eval(row.code, {**LIBRARIES, **{k: v.copy() for k, v in given.items()}})
        scipy_refuses = False
    except Exception:
        wanted, scipy_refuses = None, True

    def program(*values: Any) -> Any:
        return eval(row.own or row.code, {**LIBRARIES, **dict(zip(NAMES, values))})

    try:
        got = (pa.jit(program) if compiled else program)(*(given[n] for n in NAMES))
    except PolyAIError as error:
        if not error.remedy:
            return f"! {type(error).__name__} without a remedy: {error.what}"
        return "both refuse" if scipy_refuses else "refused"
    except Exception as error:
        if row.code.startswith(("sp.", "linalg.", "csgraph.")) and isinstance(error, (TypeError, ValueError)):
            return "of scipy"
        return "both refuse" if scipy_refuses and isinstance(error, TypeError) else f"! {type(error).__name__}: {str(error)[:80]}"
    if scipy_refuses:
        return "more"
    word = compared(got, wanted)
    return "differs" if row.note and word.startswith("!") else word


def compared(got: Any, wanted: Any) -> str:
    if wanted is None or isinstance(wanted, (str, bool, np.dtype)):
        return "works" if got == wanted and type(got) is type(wanted) else f"! {got!r} instead of {wanted!r}"
    if isinstance(wanted, tuple):
        found = {compared(g, w) for g, w in zip(got, wanted, strict=True)}
        return found.pop() if len(found) == 1 else f"! {found}"
    full, numbers = (np.asarray(v.toarray() if sp.issparse(v) else v) for v in (got, wanted))
    if full.shape != numbers.shape:
        return f"! shape {full.shape} instead of {numbers.shape}"
    if full.dtype != numbers.dtype and not isinstance(wanted, int):
        return f"! {full.dtype} instead of {numbers.dtype}"
    if not np.allclose(full, numbers, rtol=1e-6, atol=1e-12, equal_nan=True):
        return "! other numbers"
    if sp.issparse(got) == sp.issparse(wanted):
        return "works"
    return "sparse" if sp.issparse(got) else "dense"


WORDS = {
    "works": "yes", "dense": "yes, the result is dense", "sparse": "yes, the result is sparse", "more": "yes; SciPy refuses it", "refused": "refused",
    "both refuse": "refused, as by SciPy", "of scipy": "refused, by SciPy's constructor", "differs": "no",
}  # fmt: skip


Found = tuple[str, str]
"""The outcomes of a row, inside and outside a compiled function."""


def works(word: str) -> bool:
    return word in ("works", "dense", "sparse", "more")


def table(found: Iterable[tuple[Row, Found]]) -> str:
    """The tables of the page."""
    lines, group, known = [], "", list(found)
    done = sum(works(inside) for _, (inside, _) in known)
    lines.append(f"{done} of {len(known)} rows work inside a compiled function.")
    for row, (inside, outside) in known:
        if row.group != group:
            group = row.group
            own = [words[0] for r, words in known if r.group == group]
            lines += ["", f"## {group}", "", f"{sum(map(works, own))} of {len(own)} work.", "", "| SciPy | inside `jit` | outside | |", "|---|---|---|---|"]
        spelled = f"written `{row.own}`" if row.own and works(inside) else ""
        eager = row.own if row.own.startswith("pa.") else EAGER.get(row.code, "")
        outer = f"`{eager}`: {WORDS[outside]}" if outside else "SciPy's own"
        lines.append(f"| `{row.code}` | {WORDS[inside]} | {outer} | {'; '.join(filter(None, (spelled, row.note)))} |")
    return "\n".join(lines)


def page(found: Iterable[tuple[Row, Found]]) -> str:
    """The whole page, with new tables."""
    head, _, rest = PAGE.read_text().partition(BEGIN)
    return f"{head}{BEGIN}\n{table(found)}\n{END}{rest.partition(END)[2]}"
