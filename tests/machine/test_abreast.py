"""Parallel loops that have nothing to do with one another are one job."""

from __future__ import annotations

import numpy as np
import pytest

from polyai.loop import build as b
from polyai.loop import nodes as lp
from polyai.machine.abreast import parts
from polyai.scalar import dtype as dt
from tests.machine.harness import Compiled, const, op, var


def fill(target: str, source: str, count: str, factor: float, cost: int = 100_000, step: int = 1) -> lp.For:
    """target[i] = source[i] * factor for all i, in parallel."""
    i = f"{target}_i"
    body = lp.Store(target, (var(i),), op("mul", lp.Load(source, (var(i),), dt.f64), const(factor, dt.f64)))
    return lp.For(i, const(0), var(count), body, lp.Kind.PARALLEL, cost=cost, step=step)


def kernel(*loops: lp.Stmt) -> lp.Kernel:
    arrays = tuple(lp.Param(name, dt.f64, role, (var(size),)) for name, role, size in (("X", "input", "n"), ("A", "output", "n"), ("B", "output", "m"), ("C", "output", "n")))
    return lp.Kernel("abreast", (lp.Param("n", dt.i64, "size"), lp.Param("m", dt.i64, "size"), *arrays), lp.Block(loops))


@pytest.mark.parametrize(("n", "m"), [(5, 3), (100, 1), (3, 0), (0, 0), (0, 2), (1, 1)])
@pytest.mark.parametrize("threads", [1, 2, 4])
def test_each_has_its_own_chunks(n: int, m: int, threads: int) -> None:
    run = Compiled(kernel(fill("A", "X", "n", 2.0), fill("B", "X", "m", 3.0), fill("C", "X", "n", 5.0)))
    x = np.random.default_rng(0).standard_normal(max(n, m, 1))
    a, c, y = np.zeros(n), np.zeros(n), np.zeros(m)
    assert run(n, m, x, a, y, c, threads=threads) == 0
    np.testing.assert_array_equal(a, x[:n] * 2)
    np.testing.assert_array_equal(y, x[:m] * 3)
    np.testing.assert_array_equal(c, x[:n] * 5)
    most = 8 * threads
    wanted = min(n, most) * 2 + min(m, most)
    assert run.chunks == ([wanted] if threads > 1 and max(n, m) > 1 else [])


def test_loops_with_a_step_cover_their_ranges() -> None:
    four = lp.For("s", const(0), var("n"), lp.For("t", var("s"), b.smallest(b.add(var("s"), const(4)), var("n")), lp.Store("A", (var("t"),), lp.Load("X", (var("t"),), dt.f64))), lp.Kind.PARALLEL, step=4, cost=100_000)
    run = Compiled(kernel(four, fill("C", "X", "n", 5.0)))
    x, a, c = np.arange(10.0), np.zeros(10), np.zeros(10)
    assert run(10, 0, x, a, np.zeros(0), c, threads=2) == 0 and run.chunks == [3 + 10]
    np.testing.assert_array_equal(a, x)
    np.testing.assert_array_equal(c, x * 5)


def test_little_work_stays_with_the_caller() -> None:
    run = Compiled(kernel(fill("A", "X", "n", 2.0, cost=1), fill("B", "X", "m", 3.0, cost=1)))
    x, a, y = np.arange(9.0), np.zeros(9), np.zeros(4)
    assert run(9, 4, x, a, y, np.zeros(9), threads=2) == 0 and run.chunks == []
    np.testing.assert_array_equal(a, x * 2)
    np.testing.assert_array_equal(y, x[:4] * 3)


def test_what_one_writes_no_other_names() -> None:
    first, second = fill("A", "X", "n", 2.0), fill("B", "X", "m", 3.0)
    assert parts((first, second)) == [2]
    assert parts((first, second, fill("C", "A", "n", 1.0))) == [2, 1]  # reads what the first one writes
    assert parts((fill("C", "A", "n", 1.0), first)) == [1, 1]  # writes what the first one reads
    assert parts((first, fill("A", "X", "n", 3.0))) == [1, 1]
    assert parts((lp.Let("x", const(1)), first)) == [1, 1]
    serial = lp.For("k", const(0), var("n"), lp.Store("B", (var("k"),), const(1.0, dt.f64)))
    assert parts((first, serial, second)) == [1, 1, 1]


def test_loops_that_check_something_run_alone() -> None:
    body = lp.Block((lp.Check(op("lt", var("j"), var("m"), dtype=dt.bool_), 0, var("j")), lp.Store("B", (var("j"),), const(1.0, dt.f64))))
    assert parts((fill("A", "X", "n", 2.0), lp.For("j", const(0), var("n"), body, lp.Kind.PARALLEL))) == [1, 1]


def test_loops_that_depend_on_one_another_run_in_order() -> None:
    run = Compiled(kernel(fill("A", "X", "n", 2.0), fill("C", "A", "n", 3.0)))
    x, a, c = np.arange(50.0), np.zeros(50), np.zeros(50)
    assert run(50, 0, x, a, np.zeros(0), c, threads=2) == 0 and run.chunks == [16, 16]
    np.testing.assert_array_equal(c, x * 6)
