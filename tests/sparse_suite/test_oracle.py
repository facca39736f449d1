"""The oracle and the checks of the suite are themselves held to something: SciPy's results, and results that are wrong."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from tests.sparse_suite import cases
from tests.sparse_suite import model as oracle
from tests.sparse_suite.cases import CSC, CSR, Group
from tests.sparse_suite.data import BY_NAME, VARIANTS
from tests.sparse_suite.expressions import EXPRESSIONS, Expression

SCIPY = SimpleNamespace(
    maximum=lambda a, b: a.maximum(b), minimum=lambda a, b: a.minimum(b), relu=lambda a: a.maximum(0) if sp.issparse(a) else np.maximum(a, 0), sign=lambda a: a.sign(),
    asformat=lambda a, f: a.asformat(f),
)  # fmt: skip
NAMES = ("einsum", "where", "logical_", "semiring", "matmul")


def in_scipy(expression: Expression) -> bool:
    """Whether SciPy's arrays have every operation of an expression, as PolyAI spells it."""
    words = expression.fn.__code__.co_names
    if any(w.startswith(NAMES) for w in words) or any(len(s) != 2 for s in expression.sparse):
        return False
    return expression.name not in ("A.toarray() + B", "A + B + D", "A * B + D", "A * (Y.T @ X.T)", "y * A * x")


@pytest.mark.parametrize("expression", [e for e in EXPRESSIONS if in_scipy(e)], ids=lambda e: f"{e.family}: {e.name}")
def test_the_oracle_agrees_with_scipy(expression: Expression) -> None:
    group = Group(expression, (CSR,) * len(expression.sparse))
    for name in ("some", "one row", "full", "disjoint", "cancelling", "stored zeros", "repeated", "no columns"):
        given, models = cases.values(group, BY_NAME[name])
        wanted = expression.fn(oracle, *models)
        got = expression.fn(SCIPY, *given)
        full = got.toarray() if sp.issparse(got) else np.asarray(got)
        np.testing.assert_allclose(full, wanted.values, err_msg=name)
        if wanted.stored is not None and sp.issparse(got):
            assert wanted.stored[full != 0].all(), f"{name}: the oracle's pattern misses an element that is not zero"


def test_the_oracle_is_held_to_scipy_often() -> None:
    assert sum(map(in_scipy, EXPRESSIONS)) >= 80


def test_the_oracle_keeps_what_is_zero_by_chance() -> None:
    group = next(g for g in cases.groups() if g.expression.name == "A + B")
    _, (a, b) = cases.values(group, BY_NAME["cancelling"])
    total = a + b
    assert total.stored is not None and total.stored.any() and not total.values[a.stored & b.stored].any()
    assert (total.stored == (a.stored | b.stored)).all()


def test_a_semiring_counts_stored_terms_only() -> None:
    group = next(g for g in cases.groups() if g.expression.name == "min-plus")
    _, (a, b) = cases.values(group, BY_NAME["some"])
    got = oracle.matmul(a, b, semiring=oracle.semiring("min", "add"))
    for i in range(got.values.shape[0]):
        for j in range(got.values.shape[1]):
            terms = [a.values[i, k] + b.values[k, j] for k in range(a.values.shape[1]) if a.stored[i, k] and b.stored[k, j]]
            assert got.stored[i, j] == bool(terms)
            assert got.values[i, j] == (min(terms) if terms else 0)


def wrong(result: Any, how: str) -> Any:
    """A result with one defect."""
    out = result.copy()
    if how == "value":
        out.data[0] += 1
    elif how == "type":
        out = out.astype(np.float32)
    elif how == "missing":
        out.data[0] = 0
        out.eliminate_zeros()
    elif how == "too much":
        out = sp.csr_array(np.ones(out.shape)) * 0 + out
        out = sp.csr_array((np.append(out.data, 0.0), np.append(out.indices, 0), np.append(out.indptr[:-1], len(out.data) + 1)), shape=out.shape)
    elif how == "order":
        start, end = out.indptr[0], out.indptr[1]
        out.indices[start:end] = out.indices[start:end][::-1].copy()
        out.data[start:end] = out.data[start:end][::-1].copy()
    elif how == "twice":
        row = np.repeat(np.arange(out.shape[0]), np.diff(out.indptr))
        half = out.data / 2
        by = np.argsort(np.concatenate([row, row]), kind="stable")
        data, columns = np.concatenate([half, half])[by], np.concatenate([out.indices, out.indices])[by]
        out = sp.csr_array((data, columns, out.indptr * 2), shape=out.shape)
    elif how == "format":
        out = out.tocsc()
    elif how == "dense":
        out = out.toarray()
    elif how == "shape":
        out.resize(out.shape[0] + 1, out.shape[1])
    return out


HOW = ("value", "type", "missing", "too much", "order", "twice", "format", "dense", "shape")


@pytest.mark.parametrize("how", HOW)
def test_the_checks_find_what_is_wrong(how: str) -> None:
    group = next(g for g in cases.groups() if g.expression.name == "A + B" and g.kinds == (CSR, CSR))
    variant = BY_NAME["some"]
    (a, b), (first, second) = cases.values(group, variant)
    good = sp.csr_array(a + b)
    missed = (first.stored | second.stored) & (good.toarray() == 0)  # SciPy drops what cancels
    if missed.any():
        good = with_zeros(good, missed)
    good.sort_indices()
    cases.check(group, variant, good, first + second)
    with pytest.raises(AssertionError):
        cases.check(group, variant, wrong(good, how), first + second)


def with_zeros(matrix: Any, at: Any) -> Any:
    """The matrix with zeros stored at more places."""
    plain, (rows, columns) = matrix.tocoo(), np.nonzero(at)
    data = np.concatenate([plain.data, np.zeros(len(rows))])
    out = sp.coo_array((data, (np.concatenate([plain.coords[0], rows]), np.concatenate([plain.coords[1], columns]))), shape=matrix.shape)
    return out.tocsr()


def test_variants_are_what_their_names_say() -> None:
    group = next(g for g in cases.groups() if g.expression.name == "A + B" and g.kinds == (CSR, CSC))
    made = {v.name: cases.values(group, v) for v in VARIANTS}
    stored = {name: [m.stored for m in models] for name, (_, models) in made.items()}
    assert not any(s.any() for s in stored["nothing stored"])
    assert not stored["first is empty"][0].any() and stored["first is empty"][1].any()
    assert all(s.all() for s in stored["full"]) and stored["size 1"][0].shape == (1, 1)
    assert stored["no rows"][0].shape[0] == 0 and stored["no columns"][0].shape[1] == 0
    assert not (stored["disjoint"][0] & stored["disjoint"][1]).any()
    assert (stored["identical"][0] == stored["identical"][1]).all()
    for name, sign in (("the first's rows end first", 1), ("the first's rows end last", -1)):
        first, second = (np.where(s.any(1), s.shape[1] - 1 - np.argmax(s[:, ::-1], 1), -1) for s in stored[name])
        assert ((second - first) * sign > 0).any() and not ((second - first) * sign < 0).all()
    a, b = made["unsorted"][0]
    assert not a.has_sorted_indices and not b.has_sorted_indices
    assert all(not x.has_canonical_format for x in made["repeated"][0])
    assert (made["stored zeros"][0][0].data == 0).any()
    assert (made["cancelling"][0][0].toarray() == -made["cancelling"][0][1].toarray()).all()
