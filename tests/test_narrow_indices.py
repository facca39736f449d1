"""Operands with indices of 8 and 16 bits: what is assembled of them has indices that count what it stores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

import polyai as pa
from polyai.sparse import format as fm

DENSE = np.where(np.random.default_rng(0).random((40, 30)) < 0.3, np.arange(1.0, 1201).reshape(40, 30), 0)
"""About 360 elements: more than 8 bits count."""
SMALL = DENSE[:20, :20] * (np.arange(20) % 3 == 0)

PROGRAMS: dict[str, tuple[Callable[[Any], Any], Callable[[np.ndarray], Any]]] = {
    "rows": (lambda a: a[2:11], lambda d: d[2:11]),
    "columns": (lambda a: a[:, 3:17], lambda d: d[:, 3:17]),
    "picked": (lambda a: a[[5, 0, 5]], lambda d: d[[5, 0, 5]]),
    "sum": (lambda a: a + a[::-1], lambda d: d + d[::-1]),
    "product": (lambda a: a @ a.T, lambda d: d @ d.T),
    "stack": (lambda a: pa.vstack([a] * 9), lambda d: np.vstack([d] * 9)),
    "mask": (lambda a: a[a > 100], lambda d: np.asarray(d[d > 100])[None]),
    "other order": (lambda a: a.tocsc(), lambda d: d),
    "kronecker": (lambda a: pa.kron(a, a), lambda d: np.kron(d, d)),
    "diagonal": (lambda a: a.tocsr() * 2.0 + a, lambda d: d * 3),
}  # fmt: skip


@pytest.mark.parametrize("bits", (8, 16, 32, 64))
@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("make", (fm.csr, fm.csc), ids=("csr", "csc"))
def test_results_of_narrow_operands(name: str, make: Callable[[int], Any], bits: int) -> None:
    ours, theirs = PROGRAMS[name]
    a = pa.asformat(sp.csr_array(SMALL), make(bits))
    found = pa.jit(ours)(a)
    full = found.toarray() if sp.issparse(found) or hasattr(found, "toarray") else found[None]
    np.testing.assert_allclose(full, theirs(SMALL))
    if sp.issparse(found):
        found.check_format()
        assert found.indices.dtype == found.indptr.dtype == (np.int64 if bits == 64 else np.int32)


def test_results_hold_more_than_narrow_indices_count() -> None:
    a = pa.asformat(sp.csr_array(DENSE), fm.csr(16))
    total = pa.jit(lambda a: pa.vstack([a] * 100))(a)
    assert total.nnz == 100 * np.count_nonzero(DENSE) > np.iinfo(np.int16).max
    np.testing.assert_array_equal(total.toarray(), np.vstack([DENSE] * 100))
