"""What a function tells of itself: kernels, reasons, calls, time; warnings and log records; kernels made before the first call."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import polyai as pa
from polyai.errors import GuardError, ShapeError, UnsupportedError
from polyai.report import RecompileWarning


@pytest.fixture(autouse=True)
def fresh(tmp_path: Any) -> Iterator[None]:
    with pa.options(cache_dir=str(tmp_path)):
        yield


def halves(a: Any) -> Any:
    return a * 2 if a.shape[0] > 4 else a - 1


def test_every_call_is_counted_however_it_was_dispatched() -> None:
    f = pa.jit(halves)
    for n in (6, 7, 8, 9, 3, 2, 60):
        f(np.ones((n, 2)))
    out = np.empty((9, 2))
    f(np.ones((9, 2)), out=out)  # not the native path
    report = f.report()
    assert [k.hits for k in report.kernels] == [6, 2] and report.hits == 8 and report.fast >= 4
    assert report.compilations == 2 and report.reasons == f.reasons and report.code_bytes > 0
    assert [k.serves for k in report.kernels] == ["a.shape[0] > 4", "a.shape[0] <= 4"]
    assert all(k.origin == "compiled" and k.made_in > 0 and k.seconds > 0 for k in report.kernels)


def test_the_time_of_a_kernel_is_about_the_time_of_its_calls() -> None:
    f, a = pa.jit(lambda a: pa.exp(a) + pa.sin(a)), np.ones(2_000_000)
    f(a)
    before = f.report().kernels[0].seconds
    for _ in range(5):
        f(a)
    spent = f.report().kernels[0].seconds - before
    import time

    start = time.perf_counter()
    for _ in range(5):
        f(a)
    wall = time.perf_counter() - start
    assert 0.1 * wall < spent < 10 * wall


def test_it_prints_as_a_table() -> None:
    f = pa.jit(halves)
    f(np.ones((6, 2)))
    lines = str(f.report()).splitlines()
    assert lines[0].startswith("halves: 1 kernels, 1 compiled, 1 calls, 0 of them")
    assert lines[1].split()[:2] == ["serves", "calls"] and "a.shape[0] > 4" in lines[2] and "first call" in lines[2]


def test_a_kernel_from_the_cache_is_no_compilation() -> None:
    first, second = pa.jit(lambda a: a + 1), pa.jit(lambda a: a + 1)
    first(np.ones(3))
    second(np.ones(3))
    assert (first.report().compilations, second.report().compilations) == (1, 0)
    assert second.report().kernels[0].origin == "memory"


def test_a_warning_names_the_size_to_declare() -> None:
    f = pa.jit(lambda a: a * sum(range(a.shape[0])), name="loops")
    with pa.options(recompile_limit=4), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for n in range(2, 9):
            np.testing.assert_array_equal(f(np.ones(n)), np.full(n, n * (n - 1) / 2.0))
    texts = [str(w.message) for w in caught if issubclass(w.category, RecompileWarning)]
    assert len(texts) == 1
    assert texts[0].startswith("loops was compiled 3 times more because of a.shape[0]\n  why: a kernel was made for each of its values 3, 4, 5; used as a Python int\n")
    assert "keep a.shape[0] symbolic" in texts[0]


def test_a_warning_speaks_of_dimensions_that_were_left_out() -> None:
    f = pa.jit(lambda a: a + 1, dynamic="none")
    with pa.options(recompile_limit=2), pytest.warns(RecompileWarning, match=r"declare a.shape\[0\] with dynamic="):
        for n in (3, 4):
            f(np.ones(n))


def test_the_log_has_the_facts(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="polyai"):
        pa.jit(halves)(np.ones((6, 2)))
    records = [r for r in caplog.records if r.name == "polyai"]
    assert len(records) == 1 and records[0].polyai["event"] == "kernel"  # type: ignore[attr-defined]
    assert records[0].polyai["function"] == "halves" and records[0].polyai["origin"] == "compiled"  # type: ignore[attr-defined]
    assert "first call" in records[0].getMessage()


def test_a_warm_function_does_not_compile() -> None:
    n = pa.dim("n", 1, 64)
    f = pa.jit(lambda a, p: a * p["w"], dynamic={"a": {0: n}})
    report = f.warm(pa.f64[n, 3], {"w": pa.f64[3]}, sizes={"n": (1, 64)})
    assert report.hits == 0 and report.compilations == 1
    before = pa.stats()["compiles"]
    for size in (1, 5, 64):
        np.testing.assert_array_equal(f(np.ones((size, 3)), {"w": np.arange(3.0)}), np.ones((size, 3)) * np.arange(3.0))
    assert pa.stats()["compiles"] == before
    g = pa.jit(halves)
    assert len(g.warm(pa.f64[9, 2]).kernels) == 1 and len(g.warm(np.ones((2, 2))).kernels) == 2


def test_what_cannot_be_warmed() -> None:
    n = pa.dim("n", 1, 64)
    f = pa.jit(lambda a: a * 2, dynamic={"a": {0: n}})
    with pytest.raises(ShapeError, match="the size n has no value"):
        f.warm(pa.f64[n])
    with pytest.raises(GuardError, match="dimension n is 65"):
        f.warm(pa.f64[n], sizes={"n": 65})
    with pytest.raises(UnsupportedError, match="stands for no matrix"):
        f.warm(pa.csr[3, 3])


def test_a_declared_function_reports() -> None:
    f = pa.compile(lambda a: a + 1, pa.f64[pa.dim("n")])
    f(np.ones(3))
    assert f.report().hits == 1 and f.report().reasons == ("declared",)


def test_declared_functions_are_dispatched_natively_and_refuse_all_the_same() -> None:
    n, k = pa.dim("n", 0, 64, 4), pa.dim("k")
    f = pa.compile(lambda a, b: a[: b.shape[0]] + b, pa.f64[n], pa.f64[k], where=[k <= n])
    for rows, cols in ((8, 3), (4, 4), (64, 0), (0, 0), (12, 5)):
        np.testing.assert_array_equal(f(np.arange(float(rows)), np.ones(cols)), np.arange(float(rows))[:cols] + 1)
    assert f.report().fast == 4 and f.report().hits == 5
    for rows, cols in ((6, 3), (68, 3), (4, 5)):
        with pytest.raises(GuardError):
            f(np.ones(rows), np.ones(cols))
    with pytest.raises(GuardError, match="not those it was compiled for"):
        f(np.ones(8, np.float32), np.ones(3))
    out = np.empty(3)
    assert f(np.ones(8), np.ones(3), out=out) is out
