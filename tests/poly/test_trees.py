"""What the recipe makes of well-known programs, loop by loop, and where their temporaries end up."""

from __future__ import annotations

import textwrap

import numpy as np
import pytest

from polyai.lower.tensor_to_poly import lower
from polyai.poly import tree as st
from polyai.poly.interp import run
from polyai.poly.nodes import Scop
from polyai.poly.passes import contract
from polyai.poly.passes.schedule import scheduled
from polyai.poly.show import tree_lines
from polyai.poly.verify import verify
from polyai.scalar import dtype as dt
from polyai.shapes.expr import symbol
from polyai.tensor.nodes import Body, Input, Program
from tests.poly.meaning import straight
from tests.programs import PROGRAMS
from tests.words import add, at, define, dense, lit, mul, op, program, reduce, v, where


def _small(name: str, **hints: int) -> Scop:
    return contract.run(scheduled(lower(straight(PROGRAMS[name]().program)), hints)[0])


def _tree(scop: Scop) -> str:
    return "\n".join(tree_lines(st.read(scop, scop.schedule)))


def _is(scop: Scop, text: str) -> None:
    assert _tree(scop) == textwrap.dedent(text).strip()


def _places(scop: Scop) -> dict[str, tuple[int, int]]:
    """Temporary -> how many loops enclose it, how many dimensions are left."""
    return {a.array: (a.depth, len(scop.array(a.array).extents)) for a in scop.allocations}


def test_spmm_with_its_epilogue_is_one_nest() -> None:
    scop = _small("spmm_bias_relu")
    _is(
        scop,
        """
        parallel for i of T_init T_upd, i_1 of Y
          bind A.1
            vector for j of T_init T_upd, j_1 of Y
              T_init
              for q
                T_upd
              Y
        """,
    )
    assert _places(scop) == {"T": (2, 0)}


def test_spmv_sums_a_row_in_a_vector() -> None:
    scop = _small("spmv")
    _is(
        scop,
        """
        parallel for i
          bind A.1
            y_init
            vector for q
              y_upd
            y
        """,
    )
    assert _places(scop) == {"y_acc": (1, 0)}


def test_sparse_attention_is_one_pass_over_the_rows() -> None:
    scop = _small("sparse_attention")
    lines = _tree(scop).splitlines()
    assert lines[0].startswith("parallel for") and [x for x in lines if x.strip().startswith("parallel")] == lines[:1]
    assert [x.strip() for x in lines if x.strip().startswith("bind")] == ["bind A.1"]
    assert _places(scop) == {
        "S_sum": (2, 0), "S": (1, 1), "M": (1, 0), "E": (1, 1), "Z": (1, 0), "P": (1, 1), "O_acc": (2, 0),
    }  # fmt: skip


def test_columns_of_a_scattered_product_are_shared_out() -> None:
    """Rows collide, columns do not. A row of the dense operand is read once for all the rows it is added to."""
    scop = _small("spmm_csc", m=64)
    _is(
        scop,
        """
        parallel for i
          vector for j
            Y_init
        parallel for j // 16
          for k
            bind A.1
              vector for j
                for q
                  Y_upd
        """,
    )


def test_a_large_matmul_copies_its_operand_and_is_register_tiled() -> None:
    scop = _small("matmul_bias_gelu", n=2000, m=2000, p=2000)
    _is(
        scop,
        """
        parallel for j // 512
          for q // 8
            for j // 64
              for q
                vector for j
                  W_panels
        parallel for i // 96 of T_init T_upd, i_1 // 96 of Y
          for j // 64 of T_init T_upd, j_1 // 64 of Y
            jam=6 for i of T_init T_upd, i_1 of Y
              vector for j of T_init T_upd, j_1 of Y
                T_init
                for q
                  T_upd
                Y
        """,
    )
    assert _places(scop) == {"T": (4, 0), "W_panels": (0, 3)}


def test_a_matmul_of_some_rows_copies_panels_just_before_it_uses_them() -> None:
    scop = _small("matmul_bias_gelu", n=100, m=2000, p=2000)
    _is(
        scop,
        """
        parallel for j // 512 of W_panels T_init T_upd, j_1 // 512 of Y
          for q // 8
            for j // 64
              for q
                vector for j
                  W_panels
          for j // 64 of T_init T_upd, j_1 // 64 of Y
            jam=6 for i of T_init T_upd, i_1 of Y
              vector for j of T_init T_upd, j_1 of Y
                T_init
                for q
                  T_upd
                Y
        """,
    )
    assert _places(scop) == {"T": (4, 0), "W_panels": (1, 3)}
    assert next(a.extents for a in scop.arrays if a.name == "W_panels")[0] == 8


def test_a_matmul_with_few_rows_streams_the_matrix() -> None:
    """A few rows of it at a time, in long runs; the sums of a strip stay in a cache."""
    scop = _small("matmul_bias_gelu", n=4, m=2000, p=2000)
    _is(
        scop,
        """
        parallel for j // 1024 of T_init T_upd, j_1 // 1024 of Y
          for i // 4 of T_init T_upd, i_1 // 4 of Y
            for i
              vector for j
                T_init
            for q // 8
              jam=4 for i
                vector for j
                  for q
                    T_upd
            for i_1
              vector for j_1
                Y
        """,
    )
    assert _places(scop) == {"T": (2, 2)}
    assert next(a.extents for a in scop.arrays if a.name == "T") == (4, 1024 + 16)


@pytest.mark.parametrize(("rows", "strip"), [(1, 1024), (2, 1024), (6, 672), (12, 352), (24, 352), (25, None)])
def test_strips_are_as_wide_as_their_sums_fit_a_cache(rows: int, strip: int | None) -> None:
    decisions = scheduled(lower(straight(PROGRAMS["matmul_bias_gelu"]().program)), {"n": rows, "m": 2000, "p": 2048}, vector_bytes=32)[1]
    runs = [d for d in decisions if "in runs of" in d]
    assert ([d.split("in runs of ")[1].split(";")[0] for d in runs] or [None]) == [None if strip is None else str(strip)]


def test_two_products_are_two_nests_and_epilogues_stay() -> None:
    roots = [x for x in _tree(_small("gcn_two_layer")).splitlines() if not x.startswith(" ")]
    assert roots == ["parallel for i_1 // 30", "parallel for i_2 of AXW_init AXW_upd, i of H", "parallel for i_3 // 30", "parallel for i_4"]


def test_row_statistics_share_the_row() -> None:
    scop = _small("layernorm")
    assert [x for x in _tree(scop).splitlines() if not x.startswith(" ")] == _tree(scop).splitlines()[:1]
    assert set(_places(scop).values()) == {(1, 0)}


def test_dimensions_of_one_element_are_no_loops() -> None:
    """Row sums kept as columns: S[i, 0]."""
    n, m = symbol("n"), symbol("m")
    steps = [
        define("S", {"i": n, "u": 1}, reduce("add", {"k": m}, at("x", "i", "k"))),
        define("Y", {"i_1": n, "j": m}, add(at("x", "i_1", "j"), at("S", "i_1", lit(0, dt.i64)))),
    ]
    scop = contract.run(scheduled(lower(program("p", [Input("x", dense(n, m))], steps, "Y")), {})[0])
    assert _tree(scop).splitlines()[0] == "parallel for i of S_init S_upd S, i_1 of Y"
    assert _places(scop) == {"S": (1, 0), "S_acc": (1, 0)}


def test_a_vector_is_cut_for_threads_and_lanes() -> None:
    n = symbol("n")
    steps = [define("Z", {"i": n}, mul(at("x", "i"), lit(2.0))), define("Y", {"j": n}, add(at("Z", "j"), at("x", "j")))]
    scop = contract.run(scheduled(lower(program("p", [Input("x", dense(n))], steps, "Y")), {})[0])
    _is(
        scop,
        """
        parallel for i // 4096 of Z, j // 4096 of Y
          vector for i of Z, j of Y
            Z
            Y
        """,
    )
    assert _places(scop) == {"Z": (2, 0)}


def _total() -> Program:
    n, m = symbol("n"), symbol("m")
    return program("p", [Input("x", dense(n, m))], [define("Y", {}, reduce("add", {"i": n, "j": m}, at("x", "i", "j")))], "Y")


def test_a_short_sum_of_everything_stays_on_one_thread() -> None:
    _is(
        contract.run(scheduled(lower(_total()), {})[0]),
        """
        Y_init
        jam=4 for i
          vector for j
            Y_upd
        Y
        """,
    )


def test_a_long_sum_of_everything_is_shared_out() -> None:
    scop = contract.run(scheduled(lower(_total()), {"n": 100000, "m": 500})[0])
    _is(
        scop,
        """
        Y_init
        parallel for t of Y_part_init Y_part, i // 64 of Y_part_upd
          Y_part_init
          jam=4 for i
            vector for j
              Y_part_upd
          Y_part
        vector for t
          Y_upd
        Y
        """,
    )
    assert _places(scop) == {"Y_acc": (0, 0), "Y_acc_part_acc": (1, 0), "Y_acc_part": (0, 1)}


def test_a_long_sum_of_few_columns_is_shared_out() -> None:
    n, m = symbol("n"), symbol("m")
    p = program("p", [Input("x", dense(n, m))], [define("Y", {"j": m}, reduce("add", {"i": n}, at("x", "i", "j")))], "Y")
    lines = _tree(contract.run(scheduled(lower(p), {"n": 100000, "m": 16})[0])).splitlines()
    assert "parallel for t of Y_part_init Y_part, i // 2048 of Y_part_upd" in lines


def test_split_sums_keep_their_meaning() -> None:
    rng = np.random.default_rng(3)
    scop = contract.run(scheduled(lower(_total()), {"n": 4096, "m": 64})[0])
    verify(scop)
    x = rng.integers(-9, 9, (1100, 3)).astype(np.float32)
    assert run(scop, {"x": x}, {"n": 1100, "m": 3})["Y"] == x.sum()
    assert run(scop, {"x": x[:0]}, {"n": 0, "m": 3})["Y"] == 0


def test_space_runs_at_once_inside_time() -> None:
    """U[s, i] from three neighbours a step earlier."""
    n, t = symbol("n"), symbol("t")

    def before(shift: int) -> Body:
        place = op("add", v("i"), lit(shift, dt.i64))
        earlier = at("U", op("sub", v("s"), lit(1, dt.i64)), place)
        inside = op("and", op("ge", place, lit(0, dt.i64)), op("lt", place, v("n")))
        return where(op("and", op("gt", v("s"), lit(0, dt.i64)), inside), earlier, lit(0.0))

    body = where(op("eq", v("s"), lit(0, dt.i64)), at("x", "i"), mul(add(*(before(d) for d in (-1, 0, 1))), lit(0.25)))
    p = program("heat", [Input("x", dense(n))], [define("U", {"s": t, "i": n}, body)], "U")
    scop, decisions = scheduled(lower(p), {})
    assert decisions == ("steps: each statement has its own loops, in program order",)
    _is(scop, "for s\n  vector for i\n    U")


def test_a_recurrence_in_both_dims_runs_in_order() -> None:
    """G[i, j] from its left and upper neighbours: isl is asked, and only a diagonal could run at once."""
    n = symbol("n")

    def before(a: int, b: int) -> Body:
        i, j = op("sub", v("i"), lit(a, dt.i64)), op("sub", v("j"), lit(b, dt.i64))
        return where(op("and", op("ge", i, lit(0, dt.i64)), op("ge", j, lit(0, dt.i64))), at("G", i, j), at("x", "i", "j"))

    p = program("wave", [Input("x", dense(n, n))], [define("G", {"i": n, "j": n}, add(before(1, 0), before(0, 1)))], "G")
    scop, decisions = scheduled(lower(p), {})
    assert decisions == ("steps: refused: no loop in program order is free of dependences", "isl: chosen by isl")
    _is(scop, "for i\n  for j\n    G")


def test_a_transpose_goes_by_squares() -> None:
    n, m = symbol("n"), symbol("m")
    p = program("t", [Input("x", dense(m, n))], [define("Y", {"i": n, "j": m}, at("x", "j", "i"))], "Y")
    _is(
        contract.run(scheduled(lower(p), {})[0]),
        """
        parallel for i // 64
          for j // 16
            for i
              vector for j
                Y
        """,
    )
