"""Real, generated and extreme matrices against SciPy: every operation, element type, storage and thread count.

The shipped matrices always run. A dozen small files more are read from the folder that POLYAI_DATASETS names, or from
`shared/datasets` beside the checkout, where there is one. All files: `python -m benchmarks.correctness --data FOLDER`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from benchmarks import correctness, matrices
from benchmarks.harness import relative_excess
from benchmarks.matrices import Matrix
from benchmarks.suites.operands import normal

BESIDE = Path(__file__).parents[2] / "shared" / "datasets"
FOLDER = Path(os.environ.get("POLYAI_DATASETS") or BESIDE)

SOURCES: dict[str, Callable[[], Iterable[Matrix]]] = {"extremes": correctness.extremes, "shipped": correctness.shipped}
if FOLDER.is_dir():
    SOURCES |= {matrices.name_of(p): partial(correctness.of_file, p) for p in correctness.small_files(FOLDER)}


@pytest.mark.parametrize("source", SOURCES)
def test_every_operation_is_within_the_bound(source: str) -> None:
    checks = [c for matrix in SOURCES[source]() for c in correctness.check_matrix(matrix)]
    assert not [c for c in checks if not c.passed]
    assert {c.storage for c in checks} == set(correctness.STORAGES)
    assert {c.threads for c in checks} == {1, 2}


def test_contractions_of_a_tensor_are_within_the_bound() -> None:
    checks = [c for name, tensor in correctness.tensors(None) for c in correctness.check_tensor(name, tensor)]
    assert len(checks) == 8
    assert not [c for c in checks if not c.passed]


def test_attention_over_rows_keeps_no_array_of_the_pattern() -> None:
    scratch = {(c.storage, c.threads): c.error for c in correctness.memory(4096)}
    assert 0 < scratch["csr", 1] < 0.2
    assert scratch["csr", 2] < 0.2
    for storage in ("csc", "coo"):  # scores, their exponentials and the weights; two numbers for each row
        assert scratch[storage, 2] < 3.2


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_missing_term_of_a_long_row_is_found(dtype: type) -> None:
    A = matrices.canonical(sp.csr_array(normal("row", 1, 20_000, dtype=dtype)))
    A.data = A.data.astype(dtype)
    x = normal("x", 20_000, dtype=dtype)
    values, bound = correctness.product(A, x)
    assert relative_excess(A @ x, values, bound) <= 1
    terms = np.abs(A.data * x)
    average = np.argmin(np.abs(terms - terms.mean()))
    lie = np.delete(A.data, average) @ np.delete(x, average)
    assert relative_excess(np.array([lie]), values, bound) > 1


def test_a_wrong_kernel_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {**correctness.FUNCTIONS, correctness._transposed: lambda A, X: (A.T @ X) * X.dtype.type(1.00001)}
    monkeypatch.setattr(correctness, "FUNCTIONS", wrong)
    small = Matrix("small", matrices.canonical(sp.random_array((40, 40), density=0.2, rng=np.random.default_rng(1))))
    failed = {c.operation for c in correctness.check_matrix(small, storages=["csr"]) if not c.passed}
    assert failed == {o.name for o in correctness.OPERATIONS if "transposed" in o.name}


def test_the_command_prints_tables_and_says_how_many(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    written = tmp_path / "checks.json"
    assert correctness.main(["--quick", "--most", "100", "--json", str(written)]) == 0
    shown = capsys.readouterr().out
    assert "SpMM 128, transposed" not in shown
    assert "SDDMM 64" in shown and "0 failed" in shown
    assert written.stat().st_size > 10_000
