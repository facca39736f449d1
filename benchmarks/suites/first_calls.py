"""The first call of sparse expressions, each in a fresh process whose cache is empty: importing the compiler, tracing, compiling, running.

What is expected of a result is computed by SciPy and NumPy before the clock starts. The first call counts from the end of
`import polyai`; Python's byte code is kept, as an installed package has it.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence

from benchmarks.harness import SUBJECT, Result, Settings, Timing
from benchmarks.suites import Limit, Suite

SETUP = '''
import json, sys, time
import numpy as np
import scipy.sparse as sp

rng = np.random.default_rng(0)
n, m, d = 400, 300, 16
def matrix(rows, columns, format="csr"):
    return sp.random_array((rows, columns), density=0.02, format=format, rng=rng)
def dense(S):
    return S.toarray() if sp.issparse(S) else np.asarray(S)
A, B, S, N = matrix(n, m), matrix(n, m), matrix(n, n), matrix(n, n)
C, R = matrix(n, m, "coo"), sp.bsr_array(sp.kron(matrix(100, 75), np.ones((4, 4))), blocksize=(4, 4))
x, y, X, Q, K, V = (rng.standard_normal(s) for s in (m, n, (m, d), (n, d), (m, d), (m, d)))
T = sp.coo_array((rng.standard_normal(500), tuple(rng.integers(0, e, 500) for e in (20, 30, 40))), shape=(20, 30, 40))
T.sum_duplicates()
P, U = rng.standard_normal((30, d)), rng.standard_normal((40, d))
picked = rng.integers(0, m, 50)
mask = A.toarray() != 0
def softmax(Z, stored):
    E = np.where(stored, np.exp(Z - np.where(stored, Z, -np.inf).max(axis=1, keepdims=True, initial=-1e30)), 0)
    return E / np.maximum(E.sum(axis=1, keepdims=True), 1e-300)
'''

MAIN = '''
f, arguments, expected = (eval(text) for text in sys.argv[1:4])
expected = dense(expected)
begin = time.perf_counter()
import polyai as pa
imported = time.perf_counter()
got = pa.jit(f)(*arguments)
done = time.perf_counter()
got = dense(got)
assert got.shape == expected.shape and np.allclose(got, expected, rtol=1e-9, atol=1e-9), "the result is wrong"
print(json.dumps(done - imported))
'''

EXPRESSIONS: dict[str, tuple[str, str, str]] = {
    "A + B": ("lambda A, B: A + B", "A, B", "A + B"),
    "A - B": ("lambda A, B: A - B", "A, B", "A - B"),
    "A * B": ("lambda A, B: A * B", "A, B", "A * B"),
    "maximum(A, B)": ("lambda A, B: pa.maximum(A, B)", "A, B", "A.maximum(B)"),
    "CSR + COO": ("lambda A, C: A + C", "A, C", "A + C"),
    "A + A.T": ("lambda S: S + S.T", "S,", "S + S.T"),
    "A * 2": ("lambda A: A * 2", "A,", "A * 2"),
    "abs(A)": ("lambda A: abs(A)", "A,", "abs(A)"),
    "A @ x": ("lambda A, x: A @ x", "A, x", "A @ x"),
    "A.T @ y": ("lambda A, y: A.T @ y", "A, y", "A.T @ y"),
    "A @ X": ("lambda A, X: A @ X", "A, X", "A @ X"),
    "BSR @ X": ("lambda R, X: R @ X", "R, X", "R @ X"),
    "A.sum(axis=0)": ("lambda A: A.sum(axis=0)", "A,", "A.sum(axis=0)"),
    "A.sum(axis=1)": ("lambda A: A.sum(axis=1)", "A,", "A.sum(axis=1)"),
    "A.T, as CSC": ("lambda A: pa.asformat(A, 'csc')", "A,", "A"),
    "A[3:50]": ("lambda A: A[3:50]", "A,", "A[3:50]"),
    "A[rows]": ("lambda A, rows: A[rows]", "A, picked", "A[picked]"),
    "A[:, columns]": ("lambda A, columns: A[:, columns]", "A, picked", "A[:, picked]"),
    "tril(A)": ("lambda S: pa.tril(S)", "S,", "sp.tril(S)"),
    "diagonal": ("lambda S: S.diagonal()", "S,", "S.diagonal()"),
    "vstack": ("lambda A, B: pa.vstack([A, B])", "A, B", "sp.vstack([A, B])"),
    "kron": ("lambda A, B: pa.kron(A, B)", "A[:20, :30], B[:20, :30]", "sp.kron(A[:20, :30], B[:20, :30])"),
    "SDDMM": ("lambda A, Q, K: A * (Q @ K.T)", "A, Q, K", "mask * A.toarray() * (Q @ K.T)"),
    "softmax over stored": ("lambda A: pa.softmax(A, axis=1)", "A,", "softmax(A.toarray(), mask)"),
    "sparse attention": ("lambda A, Q, K, V: pa.sparse_attention(Q, K, V, A)", "A, Q, K, V", "softmax(Q @ K.T / d**0.5, mask) @ V"),
    "einsum of a 3-way tensor": ("lambda T, u: pa.einsum('ijk,k->ij', T, u)", "T, U[:, 0].copy()", "np.einsum('ijk,k->ij', T.toarray(), U[:, 0])"),
    "MTTKRP": ("lambda T, P, U: pa.einsum('ijk,jr,kr->ir', T, P, U)", "T, P, U", "np.einsum('ijk,jr,kr->ir', T.toarray(), P, U)"),
}
"""By name: the function, its arguments and what it should give."""
PRODUCTS: dict[str, tuple[str, str, str]] = {
    "A @ B": ("lambda S, N: S @ N", "S, N", "S @ N"),
    "M * (A @ B)": ("lambda M, S, N: M * (S @ N)", "S, S, N", "S * (S @ N)"),
}

ONE, PRODUCT, MEAN = "expression: ", "product: ", "geometric mean"


def first_call(function: str, arguments: str, expected: str, program: str = SETUP + MAIN) -> str:
    """The last line that a fresh process prints, with an empty cache; what it runs, as text. Raises RuntimeError with its last words."""
    with tempfile.TemporaryDirectory() as empty:
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"} | {"POLYAI_CACHE_DIR": empty}
        command = [sys.executable, "-c", program, function, arguments, expected]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "the fresh process failed")
    return done.stdout.splitlines()[-1]


def run(settings: Settings) -> list[Result]:
    cases = {**{ONE + name: case for name, case in EXPRESSIONS.items()}, **{PRODUCT + name: case for name, case in PRODUCTS.items()}}
    timings = {name: Timing(SUBJECT) for name in cases}
    first_call(*next(iter(cases.values())))  # not measured: it makes Python's byte code where that is missing
    for _ in range(1 if settings.quick else max(settings.rounds, 3)):
        for name, case in cases.items():
            if not timings[name].problem:
                try:
                    timings[name].times.append(json.loads(first_call(*case)))
                except (RuntimeError, subprocess.TimeoutExpired) as reason:
                    timings[name].problem = str(reason)
    timings[MEAN] = _mean([timings[name] for name in cases if name.startswith(ONE)])
    return [Result("first_calls", name, 0, {SUBJECT: timing}) for name, timing in timings.items()]


def _mean(timings: Sequence[Timing]) -> Timing:
    """The geometric mean of the medians of several cases, as if it were one; no figure if one of them has none."""
    failed = [t for t in timings if t.problem or not t.times]
    if failed:
        return Timing(SUBJECT, problem=f"{len(failed)} expressions failed")
    return Timing(SUBJECT, times=[statistics.geometric_mean(t.median for t in timings)])


SUITE = Suite(
    "first_calls",
    "First calls of sparse expressions",
    run=run,
    limits=(Limit(SUBJECT, MEAN, 0.150), Limit(SUBJECT, ONE, 0.150), Limit(SUBJECT, PRODUCT, 0.300)),
)
