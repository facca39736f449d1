"""Programs with sizes that data decide, at every level: each interpreter and the machine agree with NumPy, phase after phase."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from polyai.errors import ShapeError
from polyai.frontend.surface import functions as pa
from polyai.frontend.trace import trace
from polyai.sparse import interop
from polyai.tensor.interp import SparseValue
from polyai.tensor.passes import selections
from tests.lower import staged

RNG = np.random.default_rng(5)
VECTORS = (RNG.standard_normal(9), -np.ones(5), np.zeros(0))
MATRIX = RNG.standard_normal((5, 4))
SPARSE = sp.csr_array(np.where(RNG.random((6, 5)) < 0.5, RNG.integers(-2, 3, (6, 5)).astype(float), 0))

ON_VECTORS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "values": (lambda x: x[x > 0], lambda x: x[x > 0]),
    "places": (lambda x: pa.nonzero(x)[0], lambda x: np.nonzero(x)[0]),
    "only reduced": (lambda x: pa.sum(x[x > 0] ** 2), lambda x: np.sum(x[x > 0] ** 2)),
    "stored and reduced": (lambda x: (x[x > 0], pa.sum(x[x > 0])), lambda x: (x[x > 0], np.sum(x[x > 0]))),
    "a mask of what a mask gives": (lambda x: (lambda y: y[y < 1])(x[x > 0]), lambda x: (lambda y: y[y < 1])(x[x > 0])),
    "two sizes": (lambda x: pa.outer(x[x > 0], x[x < 0]), lambda x: np.outer(x[x > 0], x[x < 0])),
    "the size": (lambda x: pa.zeros(x[x > 0].shape[0]), lambda x: np.zeros(np.count_nonzero(x > 0))),
    "repeat": (lambda x: pa.repeat(x, pa.astype(abs(x) * 2, "int64")), lambda x: np.repeat(x, (abs(x) * 2).astype(int))),
    "argsort": (lambda x: pa.argsort(pa.astype(x * 9, "int8")), lambda x: np.argsort((x * 9).astype("int8"), kind="stable")),
    "unique": (
        lambda x: pa.unique(pa.astype(x * 2, "int8"), return_counts=True),
        lambda x: np.unique((x * 2).astype("int8"), return_counts=True),
    ),
}
ON_MATRICES: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "rows": (lambda a: a[a[:, 0] > 0], lambda a: a[a[:, 0] > 0]),
    "columns": (lambda a: a[:, a[0] > 0], lambda a: a[:, a[0] > 0]),
    "elements": (lambda a: a[a > 0], lambda a: a[a > 0]),
    "places": (lambda a: pa.nonzero(a > 0), lambda a: np.nonzero(a > 0)),
    "rows times": (lambda a: a[a[:, 0] > 0] @ a.T, lambda a: a[a[:, 0] > 0] @ a.T),
}
ON_SPARSE: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "places": (lambda a: pa.nonzero(a), lambda a: np.nonzero(a.toarray())),
    "rows": (lambda a: a[pa.sum(a, axis=1) > 0], lambda a: a[np.asarray(a.sum(axis=1)) > 0].toarray()),
    "rows times": (lambda a: a[pa.sum(a, axis=1) > 0] @ a.T.toarray(), lambda a: a[np.asarray(a.sum(axis=1)) > 0] @ a.T.toarray()),
    "elements": (lambda a: a[a > 0], lambda a: a.toarray()[a.toarray() > 0]),
    "structure of a part": (lambda a: pa.nonzero(pa.tril(a)), lambda a: np.nonzero(np.tril(a.toarray()))),
}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several blocks in short vectors."""
    monkeypatch.setattr(selections, "BLOCK", 4)


def dense(value: Any) -> Any:
    return value.todense() if isinstance(value, SparseValue) else value


def agree(fn: Callable[..., Any], want: Any, given: Any, level: str) -> None:
    traced = trace(fn, (given,), {}, name="f")
    (name,) = (i.name for i in traced.program.inputs)
    if interop.is_sparse(given):
        coo = given.tocoo()
        given = SparseValue(tuple(c.astype(np.int64) for c in coo.coords), coo.data, coo.shape)
    run = staged.tensors(traced.program, {name: given}) if level == "tensor" else staged.run(traced.program, {name: given}, level)
    wanted = want if isinstance(want, tuple) else (want,)
    for out, value in zip(traced.program.outputs, wanted, strict=True):
        np.testing.assert_allclose(dense(run[out]), value, rtol=1e-12)


LEVELS = ("tensor", "poly", "loop", "flat", "machine", "threads")


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("what", ON_VECTORS)
def test_of_vectors(what: str, level: str) -> None:
    fn, oracle = ON_VECTORS[what]
    for x in VECTORS:
        agree(fn, oracle(x), x, level)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("what", ON_MATRICES)
def test_of_matrices(what: str, level: str) -> None:
    fn, oracle = ON_MATRICES[what]
    agree(fn, oracle(MATRIX), MATRIX, level)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("what", ON_SPARSE)
def test_of_sparse_matrices(what: str, level: str) -> None:
    fn, oracle = ON_SPARSE[what]
    agree(fn, oracle(SPARSE), SPARSE, level)


@pytest.mark.parametrize("level", LEVELS)
def test_what_must_hold_of_a_size_is_checked(level: str) -> None:
    program = trace(lambda x: pa.max(x[x > 0]), (np.ones(3),), {}, name="f").program
    agree(lambda x: pa.max(x[x > 0]), 2.0, np.array([1.0, 2.0, -3.0]), level)
    with pytest.raises((staged.Refused, ShapeError)):
        staged.tensors(program, {"x": -np.ones(3)}) if level == "tensor" else staged.run(program, {"x": -np.ones(3)}, level)
