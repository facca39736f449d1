"""The canonical form: its text on small programs, and the same meaning on all of them."""

from __future__ import annotations

import numpy as np
import pytest

from polyai.errors import UnsupportedError
from polyai.scalar import dtype as dt
from polyai.scalar.expr import Cast
from polyai.sparse.format import csc, csr
from polyai.tensor.bodies import apply
from polyai.tensor.interp import run
from polyai.tensor.nodes import Input, Program, Scatter
from polyai.tensor.passes import canonical
from polyai.tensor.show import show_step
from polyai.tensor.verify import verify, verify_canonical
from tests.programs import PROGRAMS, random_sparse
from tests.tensor.test_interp import numbers
from tests.words import add, at, c, define, dense, lit, m, mul, n, op, program, reduce, sparse, stored, v, where


def steps(p: Program) -> list[str]:
    verify(p)
    out = canonical.run(p)
    verify_canonical(out)
    return [show_step(s) for s in out.body]


def same_meaning(p: Program, arguments: dict[str, object], tolerance: float = 1e-5) -> Program:
    out = canonical.run(p)
    verify_canonical(out)
    before, after = run(p, arguments), run(out, arguments)
    for name in p.outputs:
        np.testing.assert_allclose(numbers(after[name]), numbers(before[name]), rtol=tolerance, atol=tolerance)
    return out


A, D = sparse("A", csr(), n, m), Input("D", dense(n, m))
B, X = sparse("B", csr(), n, m), Input("X", dense(m, c))
i_m, i_n = {"j": m}, {"i": n}


@pytest.mark.parametrize("name", PROGRAMS)
def test_named_programs_keep_their_meaning(name: str) -> None:
    case = PROGRAMS[name]()
    out = same_meaning(case.program, case.arguments)
    assert canonical.run(out) == out


def test_a_nested_reduction_gets_its_own_step() -> None:
    assert steps(PROGRAMS["softmax"]().program) == [
        "Y_max[i_1: n] f32 = max(q: m) X[i_1, q]",
        "Y_sum[i_3: n] f32 = sum(r: m) exp(X[i_3, r] - Y_max[i_3])",
        "Y[i: n, j: m] f32 = exp(X[i, j] - Y_max[i]) / Y_sum[i]",
    ]


def test_the_inner_product_of_an_sddmm_is_computed_where_stored() -> None:
    assert steps(PROGRAMS["sddmm"]().program) == [
        "S_sum[i_1: n, j_1: m within A(i_1, j_1)] f32 = sum(q: d) Q[i_1, q] * K[j_1, q]",
        "S[i: n, j: m within A(i, j)] f32 = A[i, j] * S_sum[i, j]",
    ]


def test_a_product_with_a_sparse_operand_is_restricted() -> None:
    p = program("p", [A, X], [define("Y", {"i": n, "j": c}, reduce("add", {"k": m}, mul(at("A", "i", "k"), at("X", "k", "j"))))], "Y")
    assert steps(p) == ["Y[i: n, j: c] f32 = sum(k: m) A[i, k] * X[k, j]   within A(i, k)"]


def test_a_transposed_read_names_the_owners_dimensions() -> None:
    p = program("p", [A], [define("y", {"j": m}, reduce("add", {"i": n}, mul(at("A", "i", "j"), lit(2.0))))], "y")
    assert steps(p) == ["y[j: m] f32 = sum(i: n) A[i, j] * 2.0   within A(i, j)"]


def test_a_sparse_read_outside_products_becomes_background_and_scatter() -> None:
    assert steps(PROGRAMS["dense_plus_sparse"]().program) == [
        "Y_background[i: n, j: m] f32 = D[i, j] + 1.0",
        "Y[i_1, j_1] f32 = D[i_1, j_1] + exp(A[i_1, j_1])   for [i_1: n, j_1: m within A(i_1, j_1)] from Y_background",
    ]


def test_a_dense_product_has_a_background_of_zeros() -> None:
    p = program("p", [A, D], [define("Y", {"i": n, "j": m}, mul(at("A", "i", "j"), at("D", "i", "j")))], "Y")
    assert steps(p)[0] == "Y_background[i: n, j: m] f32 = 0.0"


def test_a_maximum_over_gaps_counts_them() -> None:
    p = program("p", [A], [define("y", {"i": n}, reduce("max", {"j": m}, at("A", "i", "j")))], "y")
    assert steps(p) == [
        "y_count[i_1: n] i64 = sum(j_1: m) 1   within A(i_1, j_1)",
        "y_stored[i_2: n] f32 = max(j_2: m) A[i_2, j_2]   within A(i_2, j_2)",
        "y[i: n] f32 = max(y_stored[i], where(y_count[i] < m, 0.0, -inf))",
    ]


def test_a_sum_of_sparse_and_dense_is_two_sums() -> None:
    both = add(at("A", "i", "k"), at("D", "i", "k"))
    p = program("p", [A, D, X], [define("Y", {"i": n, "j": c}, reduce("add", {"k": m}, mul(both, at("X", "k", "j"))))], "Y")
    assert steps(p) == [
        "Y_part[i_1: n, j_1: c] f32 = sum(k_1: m) A[i_1, k_1] * X[k_1, j_1]   within A(i_1, k_1)",
        "Y_part_1[i_2: n, j_2: c] f32 = sum(k_2: m) D[i_2, k_2] * X[k_2, j_2]",
        "Y[i: n, j: c] f32 = Y_part[i, j] + Y_part_1[i, j]",
    ]


def _arguments() -> dict[str, object]:
    rng = np.random.default_rng(5)
    a, b = random_sparse(rng, 7, 9, 0.4), random_sparse(rng, 7, 9, 0.4)
    d, x = rng.standard_normal((7, 9)).astype(np.float32), rng.standard_normal((9, 4)).astype(np.float32)
    return {"A": a, "B": b, "D": d, "X": x, "E": rng.standard_normal(7).astype(np.float32)}


MEANINGS = {
    "sum of exponentials": define("y", i_n, reduce("add", i_m, op("exp", at("A", "i", "j")))),
    "minimum": define("y", i_n, reduce("min", i_m, op("abs", at("A", "i", "j")))),
    "product": define("y", i_n, reduce("mul", i_m, add(at("A", "i", "j"), lit(1.0)))),
    "any": define("y", i_n, reduce("or", i_m, op("gt", at("A", "i", "j"), lit(0.5)))),
    "all": define("y", i_n, reduce("and", i_m, op("ge", at("A", "i", "j"), lit(-0.5)))),
    "whole maximum": define("y", {}, reduce("max", {"i": n, "j": m}, at("A", "i", "j"))),
    "gaps that differ": define("y", i_n, reduce("max", i_m, add(at("A", "i", "j"), at("D", "i", "j")))),
    "two patterns added": define("y", {"i": n, "j": m}, add(at("A", "i", "j"), at("B", "i", "j"), at("D", "i", "j"))),
    "two patterns multiplied": define("y", {"i": n, "j": m}, mul(at("A", "i", "j"), op("exp", at("B", "i", "j")))),
    "two patterns summed": define("y", i_n, reduce("add", i_m, mul(add(at("A", "i", "j"), at("B", "i", "j")), at("D", "i", "j")))),
    "three ways": define(
        "y", {"i": n, "l": c}, reduce("add", i_m, mul(op("sub", at("A", "i", "j"), at("E", "i")), at("X", "j", "l")))
    ),
    "constant along the reduction": define("y", {"i": n, "j": m}, reduce("max", {"k": c}, add(at("A", "i", "j"), at("X", "j", "k")))),
    "row sums divided": define("y", i_n, op("div", reduce("add", i_m, at("A", "i", "j")), Cast(v("m"), dt.f32))),
    "nested sums": define("y", i_n, reduce("add", i_m, mul(at("A", "i", "j"), reduce("add", {"k": c}, at("X", "j", "k"))))),
    "where a sparse condition holds": define("y", {"i": n, "j": m}, where(op("gt", at("A", "i", "j"), lit(0.0)), at("A", "i", "j"), lit(0.0))),
}


@pytest.mark.parametrize("name", MEANINGS)
def test_sparse_reads_keep_their_meaning(name: str) -> None:
    step = MEANINGS[name]
    p = program("p", [A, B, D, X, Input("E", dense(n))], [step], "y")
    verify(p)
    same_meaning(p, _arguments())


def test_a_guarded_reduction_stays_inside_its_array() -> None:
    one = lit(1, dt.i64)
    before = reduce("add", i_m, at("D", op("sub", v("i"), one), "j"))
    p = program("p", [D], [define("y", i_n, where(op("gt", v("i"), lit(0, dt.i64)), before, lit(0.0)))], "y")
    out = same_meaning(p, {"D": _arguments()["D"]})
    assert show_step(out.body[0]) == "y_sum[i_1: n] f32 = sum(j: m) where(i_1 > 0, D[i_1 - 1, j], 0.0)"


def test_a_recurrence_reads_a_sparse_operand_from_a_dense_copy() -> None:
    before = at("S", "i", op("sub", v("j"), lit(1, dt.i64)))
    running = add(where(op("gt", v("j"), lit(0, dt.i64)), before, lit(0.0)), at("A", "i", "j"))
    p = program("p", [A], [define("S", {"i": n, "j": m}, running)], "S")
    same_meaning(p, {"A": _arguments()["A"]})


def test_a_scatter_of_a_sparse_tensor() -> None:
    for monoid in ("add", "max"):
        step = Scatter(
            "y", dense(n), "E", monoid, define("", {"i": n, "j": m}, lit(0.0)).indices, (v("i"),), op("abs", at("A", "i", "j"))
        )
        p = program("p", [A, Input("E", dense(n))], [step], "y")
        verify(p)
        same_meaning(p, {k: _arguments()[k] for k in "AE"})


REFUSED = {
    "diagonal": (define("y", i_n, at("A", "i", "i")), "distinct index variables"),
    "shift": (define("y", i_n, at("A", "i", add(v("i"), lit(1, dt.i64)))), "computed coordinates"),
    "two patterns, sparse result": (stored("y", {"i": n, "j": m}, add(at("A", "i", "j"), at("B", "i", "j")), "A", "i", "j"), "B.toarray()"),
    "union under a maximum": (define("y", i_n, reduce("max", i_m, add(at("A", "i", "j"), at("B", "i", "j")))), "union of A and B"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_canonical_form_is_refused_with_a_remedy(name: str) -> None:
    step, text = REFUSED[name]
    p = program("p", [A, B], [step], "y")
    verify(p)
    with pytest.raises(UnsupportedError) as caught:
        canonical.run(p)
    assert text in str(caught.value) and "toarray()" in caught.value.remedy


def test_accumulators_get_their_type_explicitly() -> None:
    body = reduce("add", i_m, at("H", "i", "j", dtype=dt.f16), dtype=dt.f32)
    p = program("p", [Input("H", dense(n, m, dtype=dt.f16))], [define("y", i_n, Cast(apply("neg", dt.f32, body), dt.f16))], "y")
    assert steps(p) == ["y_sum[i_1: n] f32 = sum(j: m) f32(H[i_1, j])", "y[i: n] f16 = f16(-y_sum[i])"]


def test_repeated_index_names_are_made_unique() -> None:
    p = program("p", [D], [define("s", {"i": n, "j": m}, at("D", "i", "j")), define("t", {"i": n, "j": m}, at("s", "i", "j"))], "t")
    out = canonical.run(p)
    verify_canonical(out)
    assert [show_step(s) for s in out.body] == ["t[i_1: n, j_1: m] f32 = D[i_1, j_1]"]


def test_the_stored_coordinates_of_csc_are_told_in_the_order_of_dimensions() -> None:
    p = program("p", [sparse("A", csc(), n, m)], [define("y", {"j": m}, reduce("add", {"i": n}, at("A", "i", "j")))], "y")
    assert steps(p) == ["y[j: m] f32 = sum(i: n) A[i, j]   within A(i, j)"]
