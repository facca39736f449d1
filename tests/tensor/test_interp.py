"""The interpreter against NumPy, on the named programs and on single points of its meaning."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from polyai.errors import IndexOutOfRangeError, ShapeError
from polyai.scalar import dtype as dt
from polyai.sparse.format import csr
from polyai.tensor.interp import SparseValue, run
from polyai.tensor.nodes import Cond, Extern, Index, Input, Program, Scatter, While
from polyai.tensor.verify import verify
from tests.programs import PROGRAMS
from tests.words import add, at, define, dense, lit, m, mul, n, op, program, reduce, sparse, v, where, within


def numbers(value: Any) -> np.ndarray[Any, Any]:
    return value.todense() if isinstance(value, SparseValue) else value


@pytest.mark.parametrize("name", PROGRAMS)
def test_named_program_is_what_numpy_computes(name: str) -> None:
    case = PROGRAMS[name]()
    verify(case.program)
    got = run(case.program, case.arguments)
    assert set(got) == set(case.expected)
    for output, expected in case.expected.items():
        np.testing.assert_allclose(numbers(got[output]), expected, rtol=2e-5, atol=2e-5)


def test_matmul_of_200_is_quick_enough_to_test_with() -> None:
    case = PROGRAMS["batched_matmul"]()
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((1, 200, 200)).astype(np.float32), rng.standard_normal((1, 200, 200)).astype(np.float32)
    np.testing.assert_allclose(run(case.program, {"X": x, "Y": y})["C"], x @ y, rtol=1e-3, atol=1e-3)


def test_a_gather_outside_its_array_is_refused() -> None:
    case = PROGRAMS["gather_embedding"]()
    ids = case.arguments["ids"].copy()
    ids[3] = 30
    with pytest.raises(IndexOutOfRangeError, match="index 30 of dimension 0, whose extent is 30"):
        run(case.program, {**case.arguments, "ids": ids})
    ids[3] = -1
    with pytest.raises(IndexOutOfRangeError, match="index -1"):
        run(case.program, {**case.arguments, "ids": ids})


def test_a_scatter_outside_its_array_is_refused() -> None:
    case = PROGRAMS["scatter_add"]()
    with pytest.raises(IndexOutOfRangeError, match="index 6 of dimension 0"):
        run(case.program, {**case.arguments, "ids": np.full(20, 6)})


def test_the_last_write_of_a_scatter_wins() -> None:
    p = program(
        "overwrite",
        [Input("base", dense(n)), Input("ids", dense(m, dtype=dt.i64)), Input("x", dense(m))],
        [Scatter("y", dense(n), "base", None, (Index("i", m),), (at("ids", "i", dtype=dt.i64),), at("x", "i"))],
        "y",
    )
    verify(p)
    got = run(p, {"base": np.zeros(3), "ids": np.array([0, 2, 0, 2, 0]), "x": np.arange(5.0)})["y"]
    np.testing.assert_array_equal(got, [4, 0, 3])


def test_what_is_not_stored_annihilates_infinity_and_what_is_stored_does_not() -> None:
    a = SparseValue((np.array([0, 1]), np.array([0, 1])), np.array([0.0, 2.0], np.float32), (2, 2))
    p = program(
        "product",
        [sparse("A", csr(), n, m), Input("D", dense(n, m))],
        [define("Y", {"i": n, "j": m}, mul(at("A", "i", "j"), at("D", "i", "j")))],
        "Y",
    )
    with np.errstate(invalid="ignore"):
        got = run(p, {"A": a, "D": np.full((2, 2), np.inf)})["Y"]
    np.testing.assert_array_equal(got, [[np.nan, 0], [0, np.inf]])


def test_a_maximum_over_a_sparse_row_counts_zeros_unless_it_is_within() -> None:
    a = SparseValue((np.array([0, 0, 1]), np.array([0, 2, 1])), np.array([-3.0, -1.0, -2.0], np.float32), (3, 3))
    for withins, expected in (((), [0, 0, 0]), ((within("A", "i", "j"),), [-1, -2, -np.inf])):
        p = program(
            "top", [sparse("A", csr(), n, m)], [define("y", {"i": n}, reduce("max", {"j": m}, at("A", "i", "j"), *withins))], "y"
        )
        np.testing.assert_array_equal(run(p, {"A": a})["y"], expected)


def test_reductions_nested_within_each_other_see_the_points_around_them() -> None:
    """For each stored (i, j): the sum of row j, as needed for two-hop sums."""
    rng = np.random.default_rng(3)
    mask = rng.random((6, 6)) < 0.4
    a = SparseValue(tuple(x for x in np.nonzero(mask)), rng.standard_normal(int(mask.sum())), (6, 6))
    inner = reduce("add", {"k": n}, mul(at("A", "j", "k", dtype=dt.f64), at("x", "k", dtype=dt.f64)), within("A", "j", "k"))
    outer = reduce("add", {"j": n}, mul(at("A", "i", "j", dtype=dt.f64), inner), within("A", "i", "j"))
    p = program("two_hops", [sparse("A", csr(), n, n, dtype=dt.f64), Input("x", dense(n, dtype=dt.f64))], [define("y", {"i": n}, outer)], "y")
    verify(p)
    x, full = rng.standard_normal(6), a.todense()
    np.testing.assert_allclose(run(p, {"A": a, "x": x})["y"], full @ (full @ x))


def test_empty_extents_give_empty_results_and_identities() -> None:
    case = PROGRAMS["batched_matmul"]()
    got = run(case.program, {"X": np.zeros((2, 3, 0), np.float32), "Y": np.zeros((2, 0, 4), np.float32)})["C"]
    np.testing.assert_array_equal(got, np.zeros((2, 3, 4)))
    spmm = PROGRAMS["spmm_csr"]()
    none = SparseValue((np.zeros(0, np.int64), np.zeros(0, np.int64)), np.zeros(0, np.float32), (0, 5))
    assert run(spmm.program, {"A": none, "X": np.zeros((5, 3), np.float32)})["Y"].shape == (0, 3)


def test_half_precision_is_summed_in_the_accumulator_of_the_reduction() -> None:
    body = reduce("add", {"i": n}, at("x", "i", dtype=dt.f16), dtype=dt.f32)
    p = program("total", [Input("x", dense(n, dtype=dt.f16))], [define("y", {}, body)], "y")
    verify(p)
    assert run(p, {"x": np.ones(4096, np.float16)})["y"] == 4096.0


def test_shapes_that_do_not_agree_are_refused() -> None:
    case = PROGRAMS["spmm_csr"]()
    with pytest.raises(ShapeError, match="dimension 0 of X is 4"):
        run(case.program, {**case.arguments, "X": np.zeros((4, 2), np.float32)})


def test_cond_and_while_and_extern() -> None:
    scalar = dense(dtype=dt.f64)
    x = Input("x", scalar)
    value = at("x", dtype=dt.f64)
    double = Program("double", (x,), (define("r", {}, add(value, value)),), ("r",))
    negate = Program("negate", (x,), (define("r", {}, op("neg", value)),), ("r",))
    below = Program("below", (x,), (define("t", {}, op("lt", value, lit(100.0, dt.f64))),), ("t",))
    p = Program(
        "control",
        (Input("x", scalar),),
        (
            define("positive", {}, op("gt", value, lit(0.0, dt.f64))),
            Cond(("y",), (scalar,), "positive", ("x",), double, negate),
            While(("z",), (scalar,), ("y",), (), below, double),
            Extern(("w",), (scalar,), "power", ("z",), (("exponent", 2),)),
        ),
        ("y", "z", "w"),
    )
    verify(p)
    table = {"power": lambda a, exponent: a**exponent}
    got = run(p, {"x": 3.0}, externs=table)
    assert [float(got[o]) for o in ("y", "z", "w")] == [6.0, 192.0, 192.0**2]
    assert float(run(p, {"x": -7.0}, externs=table)["y"]) == 7.0


def test_a_recurrence_over_two_dimensions_runs_in_lexicographic_order() -> None:
    one = lit(1, dt.i64)
    left = where(op("gt", v("j"), lit(0, dt.i64)), at("S", "i", op("sub", v("j"), one), dtype=dt.f64), lit(0.0, dt.f64))
    up = where(op("gt", v("i"), lit(0, dt.i64)), at("S", op("sub", v("i"), one), "j", dtype=dt.f64), lit(1.0, dt.f64))
    p = program("paths", [Input("X", dense(n, m, dtype=dt.f64))], [define("S", {"i": n, "j": m}, add(left, up))], "S")
    got = run(p, {"X": np.zeros((4, 5))})["S"]
    expected = np.zeros((4, 5))
    for i in range(4):
        for j in range(5):
            expected[i, j] = (expected[i, j - 1] if j else 0) + (expected[i - 1, j] if i else 1)
    np.testing.assert_array_equal(got, expected)
