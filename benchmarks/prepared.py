"""What the suites of prepared matrices share: matrices, stencils, and one measurement with preparing timed beside it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

import polyai as pa
from benchmarks import matrices, peers, reference, report
from benchmarks.harness import Case, Peer, Result, Settings, Unavailable, measure
from benchmarks.suites.operands import facts, normal, reached, structure, typed
from polyai.datasets import stencil

LEAST = 100_000
STENCILS = ((5, (700, 700)), (7, (80, 80, 80)), (27, (50, 50, 50)), (5, (2600, 2600)), (7, (170, 170, 170)), (27, (108, 108, 108)))
"""2.4 to 35 million stored elements."""


def load(settings: Settings, stencils: int = len(STENCILS)) -> Iterator[matrices.Matrix]:
    """Real matrices with at least LEAST stored elements, then stencils."""
    yield from matrices.load(settings, least=LEAST)
    for points, grid in STENCILS[: 2 if settings.quick else stencils]:
        yield matrices.Matrix(f"stencil/{points}-point {'x'.join(map(str, grid))}", matrices.canonical(stencil(points, grid)))


def case_of(name: str, kernel: str, A: Any, X: np.ndarray, more: dict[str, Any]) -> Case:
    """One product. `more`: operands and facts about preparing."""
    columns = X.shape[1] if X.ndim > 1 else 1
    return Case(
        name,
        kernel,
        {"A": A, "X": X, **({"prepared": more.pop("prepared")} if "prepared" in more else {})},
        lambda: reference.matvec(A, X),
        2 * A.nnz * columns,
        structure(A) + X.itemsize * columns * (reached(A) + A.shape[0]),
        facts(A) | more,
    )


def cases(settings: Settings, use: str, variants: Sequence[tuple[Any, int]]) -> Iterator[Case]:
    """Cases by element type and number of columns (0: a vector), prepared by the contender itself."""
    for matrix in load(settings, 3):
        for dtype, columns in variants:
            A, X = operands(matrix, dtype, columns)
            yield case_of(label(matrix, dtype, columns), f"prepared_{use}", A, X, {})


def operands(matrix: matrices.Matrix, dtype: Any, columns: int) -> tuple[Any, np.ndarray]:
    shape = (matrix.csr.shape[1], columns) if columns else (matrix.csr.shape[1],)
    return typed(matrix.csr, dtype), normal(matrix.name, *shape, dtype=dtype)


def label(matrix: matrices.Matrix, dtype: Any, columns: int) -> str:
    return f"{matrix.name} {np.dtype(dtype).name}" + (f" N={columns}" if columns else "")


def run(suite: str, settings: Settings, use: str, variants: Sequence[tuple[Any, int]], stencils: int = len(STENCILS)) -> list[Result]:
    """Every case for every number of threads; the facts of a result say which layout was chosen and what preparing cost."""
    contenders: list[Peer] = [peers.load("polyai")]
    try:
        contenders.append(peers.load("mkl"))
    except Unavailable as reason:
        print(reason, file=sys.stderr)
    out = []
    for matrix in load(settings, stencils):
        for dtype, columns in variants:
            A, X = operands(matrix, dtype, columns)
            for threads in settings.threads:
                prepared = pa.prepare(A, use, threads=threads)
                choice = prepared.choice
                more = {"prepared": prepared, "layout": choice.best.name, "prepare ms": choice.seconds * 1e3, "break-even": choice.break_even}
                result = measure(suite, case_of(label(matrix, dtype, columns), f"prepared_{use}", A, X, more), contenders, threads, settings)
                out.append(result)
                shown = "  ".join(f"{t.peer} {report.human(t.median) if t.times else t.problem}" for t in result.timings.values())
                shown += "".join(f"  {p} {result.ratio(p):.2f}x" for p in result.timings if p != "polyai")
                print(f"  {result.case} [{threads}]  {shown}  {choice.best.name}, {choice.seconds * 1e3:.0f} ms, pays after {choice.break_even}", file=sys.stderr)
    return out
