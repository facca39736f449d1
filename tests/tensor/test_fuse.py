"""Which maps are substituted into their readers, and that nothing changes but the text."""

from __future__ import annotations

import numpy as np
import pytest

from polyai.scalar import dtype as dt
from polyai.scalar.expr import Apply, Cast
from polyai.sparse.format import csr
from polyai.tensor.interp import run
from polyai.tensor.nodes import Input, Program
from polyai.tensor.passes import canonical, fuse
from polyai.tensor.show import show_step
from polyai.tensor.verify import verify, verify_canonical
from tests.programs import PROGRAMS
from tests.tensor.test_interp import numbers
from tests.words import add, at, c, d, define, dense, lit, m, mul, n, op, program, reduce, relu, sparse, stored, v, where, within


def steps(p: Program) -> list[str]:
    verify(p)
    out = fuse.run(canonical.run(p))
    verify_canonical(out)
    return [show_step(s) for s in out.body]


@pytest.mark.parametrize("name", PROGRAMS)
def test_named_programs_keep_their_meaning(name: str) -> None:
    case = PROGRAMS[name]()
    out = fuse.run(canonical.run(case.program))
    verify_canonical(out)
    assert fuse.run(out) == out
    before, after = run(case.program, case.arguments), run(out, case.arguments)
    for key in before:
        np.testing.assert_allclose(numbers(after[key]), numbers(before[key]), rtol=1e-5, atol=1e-5)


X, b = Input("X", dense(n, m)), Input("b", dense(m))


def test_a_chain_of_maps_becomes_one() -> None:
    p = program(
        "p",
        [X, b],
        [
            define("s", {"i": n, "j": m}, add(at("X", "i", "j"), at("b", "j"))),
            define("y", {"k": n, "l": m}, relu(at("s", "k", "l"))),
        ],
        "y",
    )
    assert steps(p) == ["y[k: n, l: m] f32 = max(X[k, l] + b[l], 0.0)"]


def test_a_transposition_is_read_through_even_by_a_product() -> None:
    p = program(
        "p",
        [X],
        [
            define("t", {"j": m, "i": n}, at("X", "i", "j")),
            define("y", {"a": n, "b": n}, reduce("add", {"q": m}, mul(at("X", "a", "q"), at("t", "q", "b")))),
        ],
        "y",
    )
    assert steps(p) == ["y[a: n, b: n] f32 = sum(q: m) X[a, q] * X[b, q]"]


def test_work_that_a_product_would_repeat_stays_outside() -> None:
    p = program(
        "p",
        [X, Input("W", dense(m, c))],
        [
            define("e", {"i": n, "j": m}, op("exp", at("X", "i", "j"))),
            define("y", {"a": n, "b": c}, reduce("add", {"q": m}, mul(at("e", "a", "q"), at("W", "q", "b")))),
        ],
        "y",
    )
    assert len(steps(p)) == 2


def test_a_sum_over_a_map_takes_it_in() -> None:
    p = program(
        "p",
        [X],
        [
            define("e", {"i": n, "j": m}, op("exp", at("X", "i", "j"))),
            define("y", {"a": n}, reduce("add", {"q": m}, at("e", "a", "q"))),
        ],
        "y",
    )
    assert steps(p) == ["y[a: n] f32 = sum(q: m) exp(X[a, q])"]


def test_a_map_with_two_readers_stays_and_an_output_stays() -> None:
    p = program(
        "p",
        [X],
        [
            define("e", {"i": n, "j": m}, op("exp", at("X", "i", "j"))),
            define("y", {"a": n, "b": m}, mul(at("e", "a", "b"), at("e", "a", "b"))),
            define("z", {"q": n, "r": m}, relu(at("y", "q", "r"))),
        ],
        "y",
        "z",
    )
    assert steps(p) == [
        "e[i: n, j: m] f32 = exp(X[i, j])",
        "y[a: n, b: m] f32 = e[a, b] * e[a, b]",
        "z[q: n, r: m] f32 = max(y[q, r], 0.0)",
    ]


def test_a_cheap_map_is_computed_again_rather_than_stored() -> None:
    centred = define("c", {"i": n, "j": m}, op("sub", at("X", "i", "j"), at("b", "j")))
    p = program(
        "p",
        [X, b],
        [
            centred,
            define("v", {"k": n}, reduce("add", {"l": m}, op("square", at("c", "k", "l")))),
            define("y", {"q": n, "r": m}, mul(at("c", "q", "r"), at("v", "q"))),
        ],
        "y",
    )
    assert steps(p) == [
        "v[k: n] f32 = sum(l: m) square(X[k, l] - b[l])",
        "y[q: n, r: m] f32 = (X[q, r] - b[r]) * v[q]",
    ]


def test_a_gather_keeps_its_range_check() -> None:
    """`e` has n rows: an id beyond n must be refused, though the body it stands for would be defined there."""
    ids = Input("ids", dense(c, dtype=dt.i64))
    half = where(op("lt", v("i"), lit(3, dt.i64)), at("X", "i", "j"), lit(0.0))
    body = define("e", {"i": n, "j": m}, half)
    taken = define("y", {"a": c, "b": m}, at("e", at("ids", "a", dtype=dt.i64), "b"))
    assert len(steps(program("p", [X, ids], [body, taken], "y"))) == 2
    whole = define("e", {"i": n, "j": m}, op("neg", at("X", "i", "j")))
    assert steps(program("p", [X, ids], [whole, taken], "y")) == ["y[a: c, b: m] f32 = -X[ids[a], b]"]


def test_an_index_computed_by_a_step_shows_as_affine() -> None:
    doubled = define("twice", {"i": n}, mul(v("i"), lit(2, dt.i64)))
    assert isinstance(doubled.body, Apply)
    p = program("p", [X, b], [doubled, define("y", {"a": n}, at("b", at("twice", "a", dtype=dt.i64)))], "y")
    assert steps(p) == ["y[a: n] f32 = b[a * 2]"]


A = sparse("A", csr(), n, m)


def test_maps_over_one_pattern_become_one() -> None:
    p = program(
        "p",
        [A],
        [
            stored("s", {"i": n, "j": m}, mul(at("A", "i", "j"), lit(2.0)), "A", "i", "j"),
            stored("y", {"k": n, "l": m}, op("exp", at("s", "k", "l")), "A", "k", "l"),
        ],
        "y",
    )
    assert steps(p) == ["y[k: n, l: m within A(k, l)] f32 = exp(A[k, l] * 2.0)"]


def test_a_mask_is_not_read_through_where_it_is_not_stored() -> None:
    """`s` is zero where A is not stored, though its body is not."""
    p = program(
        "p",
        [A, Input("D", dense(n, m))],
        [
            stored("s", {"i": n, "j": m}, at("D", "i", "j"), "A", "i", "j"),
            define("y", {"k": n, "l": m}, add(at("s", "k", "l"), lit(1.0))),
        ],
        "y",
    )
    assert steps(p) == [
        "y_background[k: n, l: m] f32 = 1.0",
        "y[k_1, l_1] f32 = D[k_1, l_1] + 1.0   for [k_1: n, l_1: m within A(k_1, l_1)] from y_background",
    ]


def test_a_transposed_sparse_operand_is_read_through() -> None:
    p = program(
        "p",
        [A, Input("D", dense(n, c))],
        [
            stored("t", {"j": m, "i": n}, at("A", "i", "j"), "A", "i", "j"),
            define("y", {"a": m, "b": c}, reduce("add", {"q": n}, mul(at("t", "a", "q"), at("D", "q", "b")))),
        ],
        "y",
    )
    assert steps(p) == ["y[a: m, b: c] f32 = sum(q: n) A[q, a] * D[q, b]   within A(q, a)"]


def test_a_dense_product_that_only_a_mask_reads_is_sampled() -> None:
    p = program(
        "p",
        [A, Input("Q", dense(n, d)), Input("R", dense(m, d))],
        [
            define("t", {"i": n, "j": m}, reduce("add", {"q": d}, mul(at("Q", "i", "q"), at("R", "j", "q")))),
            define("e", {"i_1": n, "j_1": m}, op("exp", at("t", "i_1", "j_1"))),
            stored("y", {"k": n, "l": m}, mul(at("A", "k", "l"), at("e", "k", "l")), "A", "k", "l"),
        ],
        "y",
    )
    assert steps(p) == [
        "t[i: n, j: m within A(i, j)] f32 = sum(q: d) Q[i, q] * R[j, q]",
        "y[k: n, l: m within A(k, l)] f32 = A[k, l] * exp(t[k, l])",
    ]
    case = PROGRAMS["sddmm"]()
    arguments = {"A": case.arguments["A"], "Q": case.arguments["Q"], "R": case.arguments["K"]}
    out = fuse.run(canonical.run(p))
    np.testing.assert_allclose(run(out, arguments)["y"].values, run(p, arguments)["y"].values, rtol=1e-6)


def test_a_dense_product_with_another_reader_is_not_sampled() -> None:
    p = program(
        "p",
        [A, Input("Q", dense(n, d)), Input("R", dense(m, d))],
        [
            define("t", {"i": n, "j": m}, reduce("add", {"q": d}, mul(at("Q", "i", "q"), at("R", "j", "q")))),
            stored("y", {"k": n, "l": m}, mul(at("A", "k", "l"), at("t", "k", "l")), "A", "k", "l"),
            define("z", {"r": n}, reduce("max", {"s": m}, at("t", "r", "s"))),
        ],
        "y",
        "z",
    )
    assert steps(p)[0] == "t[i: n, j: m] f32 = sum(q: d) Q[i, q] * R[j, q]"


def test_an_index_of_a_narrow_type_is_widened() -> None:
    ids = Input("ids", dense(c, dtype=dt.i32))
    scaled = define("e", {"i": n, "j": m}, mul(at("X", "i", "j"), Cast(v("i"), dt.f32)))
    taken = define("y", {"a": c, "b": m}, at("e", at("ids", "a", dtype=dt.i32), "b"))
    p = program("p", [X, ids], [scaled, taken], "y")
    assert steps(p) == ["y[a: c, b: m] f32 = X[i64(ids[a]), b] * f32(ids[a])"]


def test_a_reduction_within_reads_through_where_it_is_stored() -> None:
    p = program(
        "p",
        [A],
        [
            stored("e", {"i": n, "j": m}, op("exp", at("A", "i", "j")), "A", "i", "j"),
            define("y", {"a": n}, reduce("add", {"q": m}, at("e", "a", "q"), within("e", "a", "q"))),
        ],
        "y",
    )
    assert steps(p) == ["y[a: n] f32 = sum(q: m) exp(A[a, q])   within A(a, q)"]
