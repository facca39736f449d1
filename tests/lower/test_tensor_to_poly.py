"""What lowering makes of formats, gathers, scatters, guards and sizes, as text."""

from __future__ import annotations

import pytest

from polyai.errors import UnsupportedError
from polyai.lower.tensor_to_poly import lower
from polyai.poly.nodes import Ragged, RaggedDim, Scop
from polyai.poly.show import statement
from polyai.poly.tree import braces, condition_of
from polyai.poly.verify import verify
from polyai.scalar import dtype as dt
from polyai.shapes.expr import floordiv, symbol
from polyai.sparse.format import Format, csc, csf, csr, dcsr
from polyai.tensor.nodes import Fact, Index, Input, Program, Scatter
from tests.poly.meaning import straight
from tests.programs import PROGRAMS
from tests.words import add, at, define, dense, lit, mul, op, program, reduce, sparse, v, within

n, m, c = (symbol(s) for s in "nmc")


def _scop(name: str) -> Scop:
    scop = lower(straight(PROGRAMS[name]().program))
    verify(scop)
    return scop


def _lines(scop: Scop, relations: bool = False) -> list[str]:
    return [line.strip() for s in scop.statements for line in statement(s, relations)]


def _reads(scop: Scop, name: str) -> list[str]:
    return [braces(r.text) for r in scop.statement(name).reads]


def test_csr_is_walked_row_by_row() -> None:
    scop = _scop("spmm_bias_relu")
    assert _lines(scop) == [
        "T_init[i, j] : 0 <= i < n and 0 <= j < m",
        "T[i, j] = 0.0",
        "T_upd[i, j, q] : 0 <= i < n and 0 <= j < m and 0 <= q < A_max1",
        "T[i, j] add= A.val[i, q] * X[i64(A.crd1[i, q]), j]",
        "Y[i_1, j_1] : 0 <= i_1 < n and 0 <= j_1 < m",
        "Y[i_1, j_1] = max(T[i_1, j_1] + b[j_1], 0.0)",
    ]
    assert scop.statement("T_upd").ragged == (RaggedDim("q", "A", 1, ("i",)),)
    assert not scop.statement("T_upd").write.must
    assert _reads(scop, "T_upd") == [
        "T_upd[i, j, q] -> A_val[i, q]",
        "T_upd[i, j, q] -> X[r0, j] : 0 <= r0 < c",
        "T_upd[i, j, q] -> A_crd1[i, q]",
    ]
    assert scop.array("A.val").extents == (n, Ragged("A", 1))
    assert scop.array("A.pos1").extents == (n + 1,)


def test_csc_is_walked_column_by_column() -> None:
    update = _scop("spmm_csc").statement("Y_upd")
    assert update.dims == ("k", "q", "j")
    assert update.ragged == (RaggedDim("q", "A", 1, ("k",)),)
    assert list(statement(update))[1].strip() == "Y[i64(A.crd1[k, q]), j] add= A.val[k, q] * X[k, j]"
    assert braces(update.write.text) == "Y_upd[k, q, j] -> Y[r0, j] : 0 <= r0 < n"


def test_coo_is_one_fibre_whose_coordinates_repeat() -> None:
    update = _scop("spmm_coo").statement("Y_upd")
    assert update.ragged == (RaggedDim("q", "A", 0, (), unique=False),)
    assert list(statement(update))[1].strip() == "Y[i64(A.crd0[q]), j] add= A.val[q] * X[i64(A.crd1[q]), j]"


def test_a_tree_of_fibres_has_one_ragged_dim_for_each_level() -> None:
    t = sparse("A", csf(3), n, m, c)
    body = reduce("add", {"j": m, "k": c}, mul(at("A", "i", "j", "k"), at("x", "k")), within("A", "i", "j", "k"))
    scop = lower(program("ttv", [t, Input("x", dense(c))], [define("y", {"i": n}, body)], "y"))
    verify(scop)
    update = scop.statement("y_upd")
    assert [(r.dim, r.level, r.parents) for r in update.ragged] == [("q", 0, ()), ("q_1", 1, ("q",)), ("q_2", 2, ("q", "q_1"))]
    assert list(statement(update))[1].strip() == "y[i64(A.crd0[q])] add= A.val[q, q_1, q_2] * x[i64(A.crd2[q, q_1, q_2])]"
    assert scop.array("A.val").extents == (Ragged("A", 0), Ragged("A", 1), Ragged("A", 2))


def test_both_levels_of_dcsr_are_ragged() -> None:
    body = reduce("add", {"k": c}, mul(at("A", "i", "k"), at("x", "k")), within("A", "i", "k"))
    scop = lower(program("spmv", [sparse("A", dcsr(), n, c), Input("x", dense(c))], [define("y", {"i": n}, body)], "y"))
    assert [r.parents for r in scop.statement("y_upd").ragged] == [(), ("q",)]


def test_sparse_results_lie_along_their_pattern() -> None:
    scop = _scop("sddmm")
    assert scop.array("S").extents == (n, Ragged("A", 1))
    assert list(statement(scop.statement("S")))[1].strip() == "S[i, q] = A.val[i, q] * S_sum[i, q]"


def test_what_is_read_elsewhere_is_reduced_into_an_accumulator() -> None:
    scop = _scop("gcn_two_layer")
    assert [s.name for s in scop.statements[:3]] == ["XW_init", "XW_upd", "XW"]
    assert scop.statement("XW_upd").target == "XW_acc"
    assert scop.statement("AXW_upd").target == "AXW"


def test_products_that_meet_have_accumulators_but_the_last() -> None:
    """The meeting is in the nest of the last one, which stays where it is; others would be summed up in memory."""
    p = program(
        "gated",
        [Input("x", dense(n, 8)), Input("a", dense(8, m)), Input("b", dense(8, m))],
        [
            define("A", {"i": n, "j": m}, reduce("add", {"k": 8}, mul(at("x", "i", "k"), at("a", "k", "j")))),
            define("B", {"i": n, "j": m}, reduce("add", {"k": 8}, mul(at("x", "i", "k"), at("b", "k", "j")))),
            define("Y", {"i": n, "j": m}, mul(at("A", "i", "j"), at("B", "i", "j"))),
        ],
        "Y",
    )
    assert [s.name for s in lower(p).statements] == ["A_init", "A_upd", "A", "B_init", "B_upd", "Y"]


def test_a_gather_may_read_any_row() -> None:
    scop = _scop("gather_embedding")
    assert _reads(scop, "Y") == ["Y[i, j] -> E[r0, j] : 0 <= r0 < c", "Y[i, j] -> ids[i]"]
    assert [r.must for r in scop.statement("Y").reads] == [False, True]


def test_a_guard_narrows_the_relation() -> None:
    scop = _scop("concat")
    assert _reads(scop, "Y") == ["Y[i, j] -> X[i, j] : (i) < (n)", "Y[i, j] -> Z[(i) - (n), j] : not ((i) < (n))"]


def test_a_guard_that_is_not_affine_leaves_the_read_to_be_masked() -> None:
    body = op("where", op("lt", at("u", "i"), lit(0.0)), at("x", op("add", v("i"), lit(1, dt.i64))), lit(0.0))
    scop = lower(program("p", [Input("u", dense(n)), Input("x", dense(n))], [define("Y", {"i": n}, body)], "Y"))
    assert _reads(scop, "Y")[1] == "Y[i] -> x[(i) + (1)] : 0 <= (i) + (1) < n"
    assert not scop.statement("Y").reads[1].must


def test_a_base_that_is_an_argument_is_copied() -> None:
    scop = _scop("scatter_add")
    assert [s.name for s in scop.statements] == ["Y_base", "Y"]
    assert list(statement(scop.statement("Y")))[1].strip() == "Y[ids[i], j] add= X[i, j]"


def test_a_base_that_nobody_else_needs_is_updated_in_place() -> None:
    steps = [
        define("Z", {"i": n}, lit(0.0)),
        Scatter("Y", dense(n), "Z", "add", (Index("e", m),), (at("ids", "e", dtype=dt.i64),), at("x", "e")),
    ]
    scop = lower(program("p", [Input("ids", dense(m, dtype=dt.i64)), Input("x", dense(m))], steps, "Y"))
    verify(scop)
    assert [(s.name, s.target) for s in scop.statements] == [("Z", "Y"), ("Y", "Y")]
    assert [a.name for a in scop.arrays if a.role != "input"] == ["Y"]


def test_a_base_that_is_read_again_is_kept() -> None:
    steps = [
        define("Z", {"i": n}, lit(0.0)),
        Scatter("Y", dense(n), "Z", "add", (Index("e", m),), (at("ids", "e", dtype=dt.i64),), at("x", "e")),
        define("W", {"j": n}, add(at("Y", "j"), at("Z", "j"))),
    ]
    scop = lower(program("p", [Input("ids", dense(m, dtype=dt.i64)), Input("x", dense(m))], steps, "W"))
    assert [s.name for s in scop.statements] == ["Z", "Y_base", "Y", "W"]


def test_products_of_sizes_become_parameters() -> None:
    scop = lower(program("p", [Input("x", dense(n * m))], [define("Y", {"i": n * m}, at("x", "i"))], "Y"))
    assert dict(scop.sizes) == {"m_n": n * m}
    assert condition_of(scop.context) == "m_n >= 0"


def test_quotients_by_numbers_stay_quotients() -> None:
    half = floordiv(n, 2)
    scop = lower(program("p", [Input("x", dense(n))], [define("Y", {"i": half}, at("x", op("mul", lit(2, dt.i64), v("i"))))], "Y"))
    assert "i < floor((n)/2)" in scop.statements[0].domain


def test_facts_narrow_the_context() -> None:
    body = define("Y", {"i": n}, at("x", "i"))
    p = program("p", [Input("x", dense(m))], [body], "Y")
    scop = lower(Program(p.name, p.inputs, p.body, p.outputs, (Fact(m - n, "nonnegative"),)))
    assert condition_of(scop.context) == "n >= 0 and m >= 0 and (m + -1*n) >= 0"


def test_names_that_isl_does_not_take_are_spelled_differently() -> None:
    size, index = symbol("max"), "mod"
    scop = lower(program("p", [Input("größe", dense(size))], [define("Y", {index: size}, at("größe", index))], "Y"))
    verify(scop)
    assert scop.parameters == ("max_",)
    assert scop.statements[0].dims == ("mod_",)
    assert "gr_uf6_udfe[mod_]" in scop.statements[0].reads[0].text


def _product_of_two(first: Format, second: Format) -> Scop:
    a, b = sparse("A", first, n, c), sparse("B", second, c, m)
    body = reduce("add", {"k": c}, mul(at("A", "i", "k"), at("B", "k", "j")), within("A", "i", "k"), within("B", "k", "j"))
    scop = lower(program("p", [a, b], [define("Y", {"i": n, "j": m}, body)], "Y"))
    verify(scop)
    return scop


def test_two_patterns_are_walked_one_below_the_other() -> None:
    """What one walk binds, the next one enters by: here rows of A, and for each of its columns a row of B."""
    scop = _product_of_two(csr(), csr())
    assert _lines(scop)[2:] == [
        "Y_upd[i, q, q_1] : 0 <= i < n and 0 <= q < A_max1 and 0 <= q_1 < B_max1",
        "Y[i, i64(B.crd1[i64(A.crd1[i, q]), q_1])] add= A.val[i, q] * B.val[i64(A.crd1[i, q]), q_1]",
    ]
    assert not scop.statement("Y_upd").write.must
    assert [(r.dim, r.tensor) for r in scop.statement("Y_upd").ragged] == [("q", "A"), ("q_1", "B")]


def test_the_formats_say_which_of_two_patterns_comes_first() -> None:
    assert _lines(_product_of_two(csc(), csc()))[3] == "Y[i64(A.crd1[i64(B.crd1[j, q]), q_1]), j] add= A.val[i64(B.crd1[j, q]), q_1] * B.val[j, q]"
    assert _lines(_product_of_two(csc(), csr()))[3] == "Y[i64(A.crd1[k, q]), i64(B.crd1[k, q_1])] add= A.val[k, q] * B.val[k, q_1]"


def test_two_patterns_of_which_each_would_be_searched_are_unsupported() -> None:
    with pytest.raises(UnsupportedError, match="A and B are walked together, and each lists a coordinate that another names") as found:
        _product_of_two(csr(), csc())
    assert "without a search" in str(found.value)
    assert "toarray" in found.value.remedy


def test_a_sparse_read_off_its_walk_is_unsupported() -> None:
    body = define("Y", {"i": n, "j": m}, at("A", "i", "j"))
    with pytest.raises(UnsupportedError, match="read at coordinates that the statement does not walk"):
        lower(program("p", [sparse("A", csr(), n, m)], [body], "Y"))
