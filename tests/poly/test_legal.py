"""Planted mistakes in schedules and accesses are refused, each with the names of what is wrong."""

from __future__ import annotations

import dataclasses

import islpy as isl
import pytest

from polyai.errors import ScheduleError, VerifyError
from polyai.lower.tensor_to_poly import lower
from polyai.poly import legal
from polyai.poly import tree as st
from polyai.poly.deps import dependences, flow
from polyai.poly.legal import check, guarded_loads, hidden_loads, in_bounds, ragged_arrays_are_indexed_along_their_fibres
from polyai.poly.nodes import Scop
from polyai.poly.passes import schedule
from polyai.scalar import dtype as dt
from polyai.scalar.expr import Apply, Const, Expr, Var
from polyai.shapes.expr import symbol
from polyai.sparse.format import csr, dcsr
from polyai.tensor.nodes import Input
from tests.poly.meaning import straight
from tests.programs import PROGRAMS
from tests.words import add, at, define, dense, lit, mul, op, program, reduce, sparse, v, where, within


def _scop(name: str) -> Scop:
    return lower(straight(PROGRAMS[name]().program))


def _dim(name: str) -> Expr:
    return Var(name, dt.i64)


def _band(child: st.Tree, *marks: str, **members: Expr | str) -> st.Band:
    places = tuple((s, _dim(p) if isinstance(p, str) else p) for s, p in members.items())
    return st.Band(places, child, marks)


def _refused(scop: Scop, tree: st.Tree) -> ScheduleError:
    with pytest.raises(ScheduleError) as found:
        check(dataclasses.replace(scop, schedule=st.render(scop, tree)), dependences(scop))
    return found.value


def _spmm(*order: str, marks_i: tuple[str, ...] = (), marks_q: tuple[str, ...] = (), marks_j: tuple[str, ...] = ()) -> st.Tree:
    """The usual nest of spmm_bias_relu with its three statements in some order."""
    leaves: dict[str, st.Tree] = {
        "T_init": st.Leaf("T_init"),
        "T_upd": _band(st.Leaf("T_upd"), *marks_q, T_upd="q"),
        "Y": st.Leaf("Y"),
    }
    body = st.Sequence(tuple(leaves[n] for n in order))
    columns = _band(body, *marks_j, T_init="j", T_upd="j", Y="j_1")
    return _band(st.Bind("A", 1, columns), *marks_i, T_init="i", T_upd="i", Y="i_1")


def test_the_usual_nest_is_legal() -> None:
    scop = _scop("spmm_bias_relu")
    tree = _spmm("T_init", "T_upd", "Y", marks_i=("parallel",), marks_j=("vector",), marks_q=("vector",))
    check(dataclasses.replace(scop, schedule=st.render(scop, tree)), dependences(scop))


def test_an_update_before_its_start_is_refused() -> None:
    error = _refused(_scop("spmm_bias_relu"), _spmm("T_upd", "T_init", "Y"))
    assert error.what == "T_upd runs before T_init, on which it depends"
    assert "T_init[" in error.why


def test_a_consumer_before_its_producer_is_refused() -> None:
    assert _refused(_scop("spmm_bias_relu"), _spmm("T_init", "Y", "T_upd")).what == "Y runs before T_upd, on which it depends"


def test_a_parallel_loop_over_a_sum_is_refused() -> None:
    error = _refused(_scop("spmm_bias_relu"), _spmm("T_init", "T_upd", "Y", marks_q=("parallel",)))
    assert error.what == "the dependence of T_upd on T_upd is carried by the parallel loop over them"


def test_a_loop_fused_too_far_is_refused() -> None:
    """The second product needs whole rows of the first."""
    scop = _scop("sparse_softmax")
    body = st.Sequence((st.Leaf("M_upd"), st.Leaf("E")))
    rows = st.Sequence((st.Leaf("M_init"), _band(body, M_upd="q", E="q"), st.Leaf("Z_init"), _band(st.Leaf("Z_upd"), Z_upd="q"), _band(st.Leaf("P"), P="q")))
    tree = _band(st.Bind("A", 1, rows), M_init="ia", M_upd="ia", E="ib", Z_init="ic", Z_upd="ic", P="id")
    assert _refused(scop, tree).what == "E runs before M_upd, on which it depends"


def test_a_vector_loop_over_a_recurrence_is_refused() -> None:
    scop = _scop("cumsum")
    tree = _band(_band(st.Leaf("S"), "vector", S="j"), S="i")
    assert _refused(scop, tree).what == "the dependence of S on S is carried by the vector loop over them"


def test_a_reversed_recurrence_is_refused() -> None:
    scop = _scop("cumsum")
    backwards = Apply("neg", (_dim("j"),), dt.i64)
    assert _refused(scop, _band(_band(st.Leaf("S"), S=backwards), S="i")).what == "S runs before S, on which it depends"


def test_a_vector_loop_over_scattered_sums_is_refused() -> None:
    """Two lanes may add to one element."""
    scop = _scop("spmm_transposed")
    inner = _band(st.Leaf("Y_upd"), "vector", Y_upd="q")
    tree = st.Sequence(
        (
            _band(_band(st.Leaf("Y_init"), Y_init="j"), Y_init="i"),
            _band(st.Bind("A", 1, _band(inner, Y_upd="j")), Y_upd="k"),
        )
    )
    assert "carried by the vector loop" in _refused(scop, tree).what


def test_a_forgotten_statement_is_refused() -> None:
    scop = _scop("cumsum")
    tree = _band(_band(st.Leaf("S"), S="j"), S="i")
    other = dataclasses.replace(scop, statements=(*scop.statements, dataclasses.replace(scop.statements[0], name="S_2")))
    with pytest.raises(ScheduleError, match="forgets S_2"):
        check(dataclasses.replace(other, schedule=st.render(scop, tree)), dependences(other))


def test_a_statement_without_a_place_in_its_loop_is_refused() -> None:
    scop = _scop("spmm_bias_relu")
    tree = _spmm("T_init", "T_upd", "Y")
    assert isinstance(tree, st.Band)
    short = dataclasses.replace(tree, members=tree.members[:2])
    assert "no place" in _refused(scop, short).what
    twice = st.Sequence((tree, _band(_band(st.Leaf("Y"), Y="j_1"), Y="i_1")))
    assert "too many leaves" in _refused(scop, twice).what


def test_statements_without_an_order_are_refused() -> None:
    scop = _scop("spmm_bias_relu")
    text = """
    domain: "[n, m] -> { T_init[i, j] : 0 <= i < n and 0 <= j < m; Y[i_1, j_1] : 0 <= i_1 < n and 0 <= j_1 < m }"
    """
    with pytest.raises(VerifyError, match="share a leaf"):
        st.read(scop, isl.Schedule.read_from_str(isl.DEFAULT_CONTEXT, text))


def test_a_stranger_in_a_ragged_loop_is_refused() -> None:
    scop = _scop("spmv")
    zero = Const(0, dt.i64)
    body = st.Sequence((st.Leaf("y_init"), st.Leaf("y_upd")))
    rows = st.Sequence((_band(body, y_init=zero, y_upd="q"), st.Leaf("y")))
    tree = _band(st.Bind("A", 1, rows), y_init="i", y_upd="i", y="i")
    assert "stranger" in _refused(scop, tree).what


def test_a_fibre_bound_above_its_owner_is_refused() -> None:
    scop = _scop("spmv")
    rows = st.Sequence((st.Leaf("y_init"), _band(st.Leaf("y_upd"), y_upd="q"), st.Leaf("y")))
    above = st.Bind("A", 1, _band(rows, y_init="i", y_upd="i", y="i"))
    assert "stands above the loop over i" in _refused(scop, above).what
    unbound = _band(rows, y_init="i", y_upd="i", y="i")
    assert "above its bind mark" in _refused(scop, unbound).what


def test_an_access_outside_its_array_is_refused() -> None:
    n = symbol("n")
    body = at("X", op("add", v("i"), lit(1, dt.i64)))
    scop = lower(program("shift", [Input("X", dense(n))], [define("Y", {"i": n}, body)], "Y"))
    with pytest.raises(ScheduleError, match="Y may access X outside its bounds"):
        schedule.run(scop)


def test_a_guard_makes_an_access_provable_and_masks_it() -> None:
    n = symbol("n")
    after = op("add", v("i"), lit(1, dt.i64))
    body = where(op("lt", after, v("n")), at("X", after), add(at("X", "i"), lit(0.0)))
    scop = lower(program("shift", [Input("X", dense(n))], [define("Y", {"i": n}, body)], "Y"))
    in_bounds(scop)
    assert guarded_loads(scop.statements[0], scop) == {at("X", after)}


def test_what_begins_below_zero_is_guarded_without_a_question(monkeypatch: pytest.MonkeyPatch) -> None:
    """`p - 1`, as the bounds of sparse results have it; `p + 1` is asked for."""
    n = symbol("n")
    before, after = op("sub", v("i"), lit(1, dt.i64)), op("add", v("i"), lit(1, dt.i64))
    body = where(op("lt", lit(0, dt.i64), v("i")), at("X", before), lit(0.0))
    scop = lower(program("before", [Input("X", dense(n))], [define("Y", {"i": n}, body)], "Y"))
    body = where(op("lt", after, v("n")), at("X", after), lit(0.0))
    other = lower(program("after", [Input("X", dense(n))], [define("Y", {"i": n}, body)], "Y"))
    asked: list[object] = []
    may_leave = legal._may_leave
    monkeypatch.setattr(legal, "_may_leave", lambda *what: asked.append(what) or may_leave(*what))
    assert guarded_loads(scop.statements[0], scop) == {at("X", before)} and not asked
    assert guarded_loads(other.statements[0], other) == {at("X", after)} and asked


def test_a_guard_that_lets_one_element_too_many_through_is_refused() -> None:
    n = symbol("n")
    after = op("add", v("i"), lit(1, dt.i64))
    scop = lower(program("shift", [Input("X", dense(n))], [define("Y", {"i": n}, where(op("le", after, v("n")), at("X", after), lit(0.0)))], "Y"))
    with pytest.raises(ScheduleError, match=r"X\["):
        in_bounds(scop)


def test_rows_of_a_matrix_with_distinct_row_slots_are_parallel() -> None:
    n, c, m = (symbol(s) for s in "ncm")
    body = reduce("add", {"k": c}, mul(at("A", "i", "k"), at("X", "k", "j")), within("A", "i", "k"))
    scop = lower(program("spmm", [sparse("A", dcsr(), n, c), Input("X", dense(c, m))], [define("Y", {"i": n, "j": m}, body)], "Y"))
    done, _ = schedule.scheduled(scop, {})
    tree = st.read(done, done.schedule)
    assert isinstance(tree, st.Sequence)
    update = tree.children[1]
    assert isinstance(update, st.Bind) and isinstance(update.child, st.Band)
    assert update.child.marks == ("parallel",) and update.child.place("Y_upd") == _dim("q")


def test_value_based_flow_sees_only_the_last_writer() -> None:
    """Y = T after T = 0 everywhere and T = X: the second write hides the first."""
    n = symbol("n")
    scop = lower(program("two", [Input("X", dense(n))], [define("T", {"i": n}, at("X", "i")), define("Y", {"i_1": n}, at("T", "i_1"))], "Y"))
    first = dataclasses.replace(scop.statement("T"), name="Z", domain=scop.statement("T").domain.replace("T[", "Z["))
    first = dataclasses.replace(first, write=dataclasses.replace(first.write, text=first.write.text.replace("T[i] ->", "Z[i] ->")), reads=())
    both = dataclasses.replace(scop, statements=(first, *scop.statements))
    reads = isl.UnionSet("[n] -> { Y[i] }")
    assert set(_sources(dependences(both).order.intersect_range(reads))) == {"Z", "T"}
    assert set(_sources(flow(both).order.intersect_range(reads))) == {"T"}


def _sources(pairs: isl.UnionMap) -> list[str]:
    found: list[str] = []
    pairs.foreach_map(lambda m: found.append(m.get_tuple_name(isl.dim_type.in_)))
    return found


def test_a_quota_falls_back_to_memory_based_dependences() -> None:
    scop = _scop("concat")
    assert flow(scop).note == ""
    assert "too expensive" in flow(_scop("cumsum"), quota=10).note




def test_an_index_across_fibres_is_refused() -> None:
    """Row i has as many elements as position q of row i says, not those of another row."""
    scop = _scop("sparse_softmax")
    statement = scop.statement("P")
    other = dataclasses.replace(statement, value=dataclasses.replace(statement.value, args=(at("E", "q", "q"), statement.value.args[1])))
    wrong = dataclasses.replace(scop, statements=(*(s for s in scop.statements if s.name != "P"), other))
    with pytest.raises(ScheduleError, match="P indexes E across the fibres of A"):
        ragged_arrays_are_indexed_along_their_fibres(wrong)


def test_fibres_of_different_loops_under_one_mark_are_refused() -> None:
    """y sums row i, z sums all rows r for each i: below both loops one length cannot stand for both."""
    n, c = symbol("n"), symbol("c")
    rows = define("y", {"i": n}, reduce("add", {"k": c}, at("A", "i", "k"), within("A", "i", "k")))
    everything = define("z", {"i2": n}, reduce("add", {"r": n, "k2": c}, at("A", "r", "k2"), within("A", "r", "k2")))
    scop = lower(program("two", [sparse("A", csr(), n, c)], [rows, everything], "y", "z"))
    walks = st.Sequence((_band(st.Leaf("y_upd"), y_upd="q"), _band(st.Leaf("z_upd"), z_upd="q")))
    merged = _band(_band(st.Bind("A", 1, walks), y_upd=Const(0, dt.i64), z_upd="r"), y_upd="i", z_upd="i2")
    others = [_band(st.Leaf(s.name), **{s.name: s.dims[0]}) for s in scop.statements if not s.ragged]
    start, end = [t for t in others if "init" in t.members[0][0]], [t for t in others if "init" not in t.members[0][0]]
    refused = _refused(scop, st.Sequence((*start, merged, *end)))
    assert "bind=A.1 stands for fibres of different loops: those of y_upd and of z_upd" in refused.what


def test_a_condition_on_memory_keeps_no_access_inside() -> None:
    """Conditions on indices and sizes count, also beside one on what memory holds; that one does not."""
    n = symbol("n")
    after = op("add", v("i"), lit(1, dt.i64))
    positive, fits = op("lt", lit(0.0), at("Z", "i")), op("lt", after, v("n"))
    for condition, hidden in ((positive, {at("X", after)}), (op("and", positive, fits), set())):
        body = where(condition, at("X", after), lit(0.0))
        scop = lower(program("shift", [Input("X", dense(n)), Input("Z", dense(n))], [define("Y", {"i": n}, body)], "Y"))
        assert guarded_loads(scop.statements[0], scop) == {at("X", after)}
        assert hidden_loads(scop.statements[0], scop) == hidden
