"""Code that runs once as functions of its own: the same results and the same errors as in one function."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

import polyai as pa
from polyai.errors import SparseStructureError
from polyai.loop import nodes as lp
from polyai.loop.site import Site
from polyai.machine import abi, apart
from polyai.scalar import dtype as dt
from tests.machine.harness import Compiled, array, const, op, size, var

rng = np.random.default_rng(7)
A, B, M = (sp.random_array((90, 70), density=0.1, format="csr", rng=rng) for _ in range(3))
S = sp.random_array((70, 70), density=0.1, format="csr", rng=rng)


@pytest.fixture
def everything_apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for name, value in {"LONG": 1, "LEAST": 1, "MOST": 1 << 30}.items():
        monkeypatch.setattr(apart, name, value)
    with pa.options(cache_dir=str(tmp_path)):
        yield


PROGRAMS: dict[str, tuple[Callable[..., Any], tuple[Any, ...], Any]] = {
    "sum": (lambda A, B: A + B, (A, B), A + B),
    "same pattern": (lambda A, B: A + B, (A, A * 3), A * 4),
    "product": (lambda A, B: A * B, (A, B), A * B),
    "complex": (lambda A, B: A - B, (A * 1j, B), A * 1j - B),
    "rows": (lambda A, S: A @ S, (A, S), A @ S),
    "masked": (lambda M, A, S: M * (A @ S), (M, A, S), M * (A @ S)),
    "columns": (lambda A: pa.asformat(A, "csc"), (A,), A),
    "unsorted": (lambda A, B: A + B, (A.tocoo(), B), A + B),
}


@pytest.mark.usefixtures("everything_apart")
@pytest.mark.parametrize("name", PROGRAMS)
def test_results_are_the_same(name: str) -> None:
    function, arguments, expected = PROGRAMS[name]
    got = pa.jit(function)(*arguments)
    np.testing.assert_allclose(got.toarray(), expected.toarray(), rtol=1e-13)


@pytest.mark.usefixtures("everything_apart")
def test_checks_inside_are_told() -> None:
    bad = A.copy()
    bad.indices[bad.indptr[40]] = 1000
    with pytest.raises(SparseStructureError, match="1000"):
        pa.jit(lambda A, B: A + B)(bad, B)


N = 9


def registers() -> lp.Kernel:
    """Registers of several types, lanes of truth values too, that a loop changes and that are read after it."""
    i = var("i")
    total, flag, turned, lanes = (lp.Load(*about) for about in (("total", (), dt.f64), ("flag", (), dt.bool_), ("turned", (), dt.c128), ("lanes", (), dt.bool_)))
    body = [lp.Alloc(name, d, (), lp.Space.REGISTER, k) for name, d, k in (("total", dt.f64, 1), ("flag", dt.bool_, 1), ("turned", dt.c128, 1), ("lanes", dt.bool_, 4))]
    body += [lp.Store("total", (), const(0.5, dt.f64)), lp.Store("flag", (), const(False, dt.bool_)), lp.Store("turned", (), const(1 + 0j, dt.c128))]
    body += [lp.Store("lanes", (), op("lt", lp.Ramp(const(0), 1, 4), const(4), dtype=dt.bool_))]
    inside = [lp.Store("total", (), op("add", total, lp.Load("X", (i,), dt.f64))), lp.Store("flag", (), op("lt", const(7), i, dtype=dt.bool_))]
    inside += [lp.Store("turned", (), op("mul", turned, const(1j, dt.c128))), lp.Store("lanes", (), op("and", lanes, op("ne", lp.Ramp(const(0), 1, 4), i, dtype=dt.bool_)))]
    inside += [lp.Check(op("lt", i, var("most"), dtype=dt.bool_), 0, i)]
    body += [lp.For("i", const(0), var("n"), lp.Block(tuple(inside)))]
    body += [lp.Store("Y", (const(0),), total), lp.Store("Y", (const(1),), lp.Cast(flag, dt.f64)), lp.Store("Z", (const(0),), turned)]
    body += [lp.Store("Y", (lp.Ramp(const(2), 1, 4),), lp.Cast(lanes, dt.f64))]
    params = (size("n"), size("most"), array("X", dt.f64, "input"), array("Y", dt.f64, "output"), array("Z", dt.c128, "output"))
    return lp.Kernel("registers", params, lp.Block(tuple(body)), (Site("ValueError", "too many: {value}"),))


@pytest.mark.parametrize("long", [1, 1 << 30])
def test_registers_are_copied_in_and_out(long: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "LONG", long)
    kernel = Compiled(registers())
    assert ("pa.task" in kernel.text) == (long == 1)
    X, Y, Z = np.arange(N) / 4, np.zeros(6), np.zeros(1, complex)
    assert kernel(N, N, X, Y, Z) == 0
    np.testing.assert_array_equal(Y, [0.5 + X.sum(), 1, 0, 0, 0, 0])
    np.testing.assert_allclose(Z, 1j**N)
    assert kernel(2, N, X, Y, Z) == 0
    np.testing.assert_array_equal(Y, [0.5 + X[:2].sum(), 0, 0, 0, 1, 1])
    assert kernel(0, N, X, Y, Z) == 0
    np.testing.assert_array_equal(Y, [0.5, 0, 1, 1, 1, 1])
    assert kernel(N, 5, X, Y, Z) == abi.SITE and kernel.culprit == 5
