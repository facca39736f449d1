"""Orders of products: which one is chosen, and that all mean the same."""

from __future__ import annotations

import numpy as np
import pytest

from polyai.scalar import dtype as dt
from polyai.shapes.expr import Size, symbol
from polyai.sparse.format import csr
from polyai.tensor.cost import bytes_moved, flops
from polyai.tensor.interp import run
from polyai.tensor.nodes import Comprehension, Input, Program, types_of
from polyai.tensor.passes import canonical, reassociate
from polyai.tensor.show import show_step
from polyai.tensor.verify import verify, verify_canonical
from tests.programs import PROGRAMS
from tests.tensor.test_interp import numbers
from tests.words import at, c, define, dense, m, mul, n, program, reduce, relu, sparse, within


def product(target: str, a: str, b: str, rows: Size, inner: Size, columns: Size, sparse_one: bool = False, t: object = dt.f32) -> Comprehension:
    i, k, j = f"{target}_i", f"{target}_k", f"{target}_j"
    kept = (within(a, i, k),) if sparse_one else ()
    return define(target, {i: rows, j: columns}, reduce("add", {k: inner}, mul(at(a, i, k, dtype=t), at(b, k, j, dtype=t)), *kept))


A, X, W = sparse("A", csr(), n, n), Input("X", dense(n, m)), Input("W", dense(m, c))
SIZES = {"n": 1000, "A.nnz": 10_000, "m": 256, "c": 16}
axw = program("axw", [A, X, W], [product("T", "A", "X", n, n, m, True), product("Y", "T", "W", n, m, c)], "Y")


def order(p: Program, sizes: dict[str, int]) -> list[str]:
    verify(p)
    out = reassociate.run(canonical.run(p), sizes)
    verify_canonical(out)
    return [show_step(s) for s in out.body]


def test_features_are_narrowed_before_neighbours_are_summed() -> None:
    assert order(axw, SIZES) == [
        "Y_chain[T_k_2: n, Y_j_1: c] f32 = sum(Y_k_1: m) X[T_k_2, Y_k_1] * W[Y_k_1, Y_j_1]",
        "Y[Y_i: n, Y_j: c] f32 = sum(T_k_1: n) A[Y_i, T_k_1] * Y_chain[T_k_1, Y_j]   within A(Y_i, T_k_1)",
    ]


def test_a_good_order_stays_as_it_was_written() -> None:
    wide = {**SIZES, "m": 16, "c": 256}
    assert order(axw, wide) == [show_step(s) for s in axw.body]


def test_an_intermediate_result_with_another_reader_stays() -> None:
    more = program("p", [A, X, W], [*axw.body, define("z", {"q": n, "r": m}, relu(at("T", "q", "r")))], "Y", "z")
    assert order(more, SIZES)[0].startswith("T[")
    assert order(program("p", [A, X, W], list(axw.body), "Y", "T"), SIZES)[0].startswith("T[")


def test_integers_and_masks_are_left_alone() -> None:
    ints = [Input(s.name, dense(*s.type.shape, dtype=dt.i64)) for s in (Input("U", dense(n, n)), X, W)]
    p = program("p", ints, [product("T", "U", "X", n, n, m, t=dt.i64), product("Y", "T", "W", n, m, c, t=dt.i64)], "Y")
    assert len(order(p, SIZES)) == 2 and order(p, SIZES)[0].startswith("T[")


def _matrices(count: int) -> tuple[Program, list[Size]]:
    extents: list[Size] = [symbol(f"s{q}") for q in range(count + 1)]
    inputs = [Input(f"M{q}", dense(extents[q], extents[q + 1], dtype=dt.f64)) for q in range(count)]
    body, left = [], "M0"
    for q in range(1, count):
        body.append(product(f"T{q}", left, f"M{q}", extents[0], extents[q], extents[q + 1], t=dt.f64))
        left = f"T{q}"
    return program("chain", inputs, body, left), extents


@pytest.mark.parametrize("count", [3, 4, 6])
def test_a_chain_of_matrices_is_multiplied_in_the_order_of_the_textbook(count: int) -> None:
    """The number of multiplications is that of the classic dynamic program."""
    p, _ = _matrices(count)
    rng = np.random.default_rng(count)
    sizes = [int(s) for s in rng.integers(100, 2000, count + 1)]
    sizes[count // 2] = 7
    hints = {f"s{q}": s for q, s in enumerate(sizes)}
    out = reassociate.run(canonical.run(p), hints)
    verify_canonical(out)
    types = types_of(out)
    done = sum(flops(s, types, hints) for s in out.body) / 2
    assert done <= 1.1 * _textbook(sizes)
    small = {f"M{q}": rng.standard_normal((2 + q, 3 + q)) for q in range(count)}
    np.testing.assert_allclose(run(out, small)[p.outputs[0]], run(p, small)[p.outputs[0]], rtol=1e-10)


def _textbook(sizes: list[int]) -> float:
    count = len(sizes) - 1
    best = [[0.0] * count for _ in range(count)]
    for length in range(1, count):
        for a in range(count - length):
            b = a + length
            best[a][b] = min(best[a][q] + best[q + 1][b] + sizes[a] * sizes[q + 1] * sizes[b + 1] for q in range(a, b))
    return best[0][count - 1]


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("sizes", [{}, SIZES])
def test_named_programs_keep_their_meaning(name: str, sizes: dict[str, int]) -> None:
    case = PROGRAMS[name]()
    out = reassociate.run(canonical.run(case.program), sizes)
    verify_canonical(out)
    for key, value in run(out, case.arguments).items():
        np.testing.assert_allclose(numbers(value), case.expected[key], rtol=1e-4, atol=1e-4)


def test_the_reordered_product_means_the_same() -> None:
    rng = np.random.default_rng(4)
    case = PROGRAMS["gcn_two_layer"]()
    arguments = {"A": case.arguments["A"], "X": rng.standard_normal((16, 9)).astype(np.float32), "W": rng.standard_normal((9, 3)).astype(np.float32)}
    out = reassociate.run(axw, SIZES)
    assert out != axw
    np.testing.assert_allclose(run(out, arguments)["Y"], run(axw, arguments)["Y"], rtol=1e-4, atol=1e-4)


def test_costs_count_what_is_stored() -> None:
    types = types_of(axw)
    assert flops(axw.body[0], types, SIZES) == 2 * 10_000 * 256
    assert flops(axw.body[1], types, SIZES) == 2 * 1000 * 256 * 16
    read = 10_000 * 4 + 1000 * 256 * 4 + 10_000 * 4  # values, X, column indices
    assert bytes_moved(axw.body[0], types, SIZES) == read + 1000 * 256 * 4
    sddmm = canonical.run(PROGRAMS["sddmm"]().program)
    hints = {"A.nnz": 50, "d": 8, "n": 1000, "m": 1000}
    assert flops(sddmm.body[0], types_of(sddmm), hints) == 2 * 50 * 8


def test_a_sum_over_what_no_factor_reads_stays() -> None:
    """sum(k) s u[i] s is as many times s u[i] s: its factors may not be summed apart."""
    s, u, x = Input("s", dense(dtype=dt.f64)), Input("u", dense(n, dtype=dt.f64)), Input("X", dense(n, m, dtype=dt.f64))
    one = at("s", dtype=dt.f64)
    body = [define("Y", {"i": n, "j": m}, reduce("add", {"k": m}, mul(one, mul(at("u", "i", dtype=dt.f64), one))))]
    p = program("repeated", [s, u, x], body, "Y")
    given = {"s": np.float64(3), "u": np.arange(4.0), "X": np.zeros((4, 5))}
    np.testing.assert_array_equal(run(reassociate.run(canonical.run(p), SIZES), given)["Y"], np.repeat(45.0 * np.arange(4.0)[:, None], 5, 1))
