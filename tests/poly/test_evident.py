"""What is read off a schedule without isl is never "legal" where isl says otherwise; mistakes in small programs are passed on and refused."""

from __future__ import annotations

import collections
import dataclasses
import random

import pytest

from polyai.errors import ScheduleError
from polyai.lower.tensor_to_poly import lower
from polyai.poly import legal
from polyai.poly import tree as st
from polyai.poly.deps import Deps, dependences
from polyai.poly.evident import evidently_legal, never_repeated
from polyai.poly.nodes import Scop
from polyai.poly.passes import schedule
from polyai.scalar import dtype as dt
from polyai.scalar.expr import Apply, Const, Expr
from polyai.shapes.expr import symbol
from polyai.sparse.format import csf, csr
from polyai.tensor.nodes import Index, Input, Scatter
from tests.poly.meaning import straight
from tests.poly.random_schedules import changed, dense_scop, over, random_tree, var
from tests.programs import PROGRAMS
from tests.words import add, at, define, dense, lit, mul, program, reduce, sparse, v, within

N = symbol("n")


def is_legal(scop: Scop, deps: Deps, tree: st.Tree) -> bool:
    try:
        legal.legal(scop, deps, tree)
    except ScheduleError:
        return False
    return True


def test_random_trees_of_random_programs() -> None:
    seen: collections.Counter[tuple[bool, bool]] = collections.Counter()
    for seed in range(120):
        rng = random.Random(seed)
        scop = dense_scop(rng)
        deps = dependences(scop)
        for _ in range(10):
            tree = random_tree(rng, scop, odd=rng.choice([0.0, 0.05, 0.3]))
            said, true = evidently_legal(scop, tree), is_legal(scop, deps, tree)
            assert true or not said, (seed, tree)
            seen[said, true] += 1
    assert seen[True, True] > 300 and seen[False, False] > 300, seen


@pytest.mark.parametrize("name", sorted(PROGRAMS))
def test_changes_of_schedules_that_are_used(name: str) -> None:
    rng = random.Random(name)
    scop, _ = schedule.scheduled(lower(straight(PROGRAMS[name]().program)), {})
    assert scop.schedule is not None
    deps, tree = dependences(scop), st.read(scop, scop.schedule)
    for _ in range(25):
        changes = [tree]
        for _ in range(rng.randint(1, 3)):
            changes.append(rng.choice(list(changed(changes[-1])) or [tree]))
        assert is_legal(scop, deps, changes[-1]) or not evidently_legal(scop, changes[-1]), changes[-1]


# --- planted mistakes: each is one that these proofs meet in programs they decide alone ----------------------------------


def nest(*loops: tuple[dict[str, Expr | str], str], inside: st.Tree) -> st.Tree:
    """Loops around `inside`: places of the statements, by name, and a mark or ""."""
    for places, mark in reversed(loops):
        members = tuple((s, var(p) if isinstance(p, str) else p) for s, p in places.items())
        inside = st.Band(members, inside, (mark,) if mark else ())
    return inside


def leaves(*names: str) -> st.Tree:
    return st.Sequence(tuple(st.Leaf(n) for n in names))


def two(read: str, other: str) -> Scop:
    """T[i, j] = X[i, j] * 2; Y[a, b] = T[read, other] + 1."""
    first = define("T", {"i": N, "j": N}, mul(at("X", "i", "j"), lit(2.0)))
    return lower(straight(program("two", [Input("X", dense(N, N))], [first, define("Y", {"a": N, "b": N}, add(at("T", read, other), lit(1.0)))], "Y")))


def summed() -> Scop:
    """Y[i, j] = sum of X[i, k] * W[k, j]."""
    terms = mul(at("X", "i", "k"), at("W", "k", "j"))
    return lower(straight(program("sum", [Input("X", dense(N, N)), Input("W", dense(N, N))], [define("Y", {"i": N, "j": N}, reduce("add", {"k": N}, terms))], "Y")))


def rows() -> Scop:
    """y[i] = sum of A[i, k] * x[k], A CSR."""
    terms = mul(at("A", "i", "k"), at("x", "k"))
    return lower(straight(program("rows", [sparse("A", csr(), N, N), Input("x", dense(N))], [define("y", {"i": N}, reduce("add", {"k": N}, terms, within("A", "i", "k")))], "y")))


NEGATIVE = Apply("neg", (var("i"),), dt.i64)
SWAPPED: dict[str, Expr | str] = {"T": "j", "Y": "a"}
MISTAKES: dict[str, tuple[Scop, st.Tree]] = {
    "the consumer first": (two("a", "b"), nest(({"T": "i", "Y": "a"}, ""), ({"T": "j", "Y": "b"}, ""), inside=leaves("Y", "T"))),
    "a transposed read fused": (two("b", "a"), nest(({"T": "i", "Y": "a"}, ""), ({"T": "j", "Y": "b"}, ""), inside=leaves("T", "Y"))),
    "rows fused with columns": (two("a", "b"), nest((SWAPPED, ""), inside=st.Sequence((nest(({"T": "i"}, ""), inside=st.Leaf("T")), nest(({"Y": "b"}, ""), inside=st.Leaf("Y")))))),
    "a producer that runs later": (two("a", "b"), nest(({"T": Apply("add", (var("i"), Const(1, dt.i64)), dt.i64), "Y": "a"}, ""), ({"T": "j", "Y": "b"}, ""), inside=leaves("T", "Y"))),
    "pieces of another length": (two("a", "b"), nest(({"T": over(var("i"), 8), "Y": over(var("a"), 4)}, "parallel"), ({"T": "i", "Y": "a"}, ""), ({"T": "j", "Y": "b"}, ""), inside=leaves("T", "Y"))),
    "a diagonal read in parallel": (two("a", "a"), nest(({"T": "j", "Y": "b"}, "parallel"), ({"T": "i", "Y": "a"}, ""), inside=leaves("T", "Y"))),
    "a sum in parallel": (summed(), nest(({"Y_init": "i", "Y_upd": "i"}, ""), ({"Y_init": "j", "Y_upd": "j"}, ""), inside=st.Sequence((st.Leaf("Y_init"), nest(({"Y_upd": "k"}, "parallel"), inside=st.Leaf("Y_upd")))))),
    "its start inside": (summed(), nest(({"Y_init": "i", "Y_upd": "k"}, ""), ({"Y_init": "j", "Y_upd": "j"}, ""), inside=st.Sequence((st.Leaf("Y_init"), nest(({"Y_upd": "i"}, ""), inside=st.Leaf("Y_upd")))))),
    "its start after it": (summed(), nest(({"Y_init": "i", "Y_upd": "i"}, ""), ({"Y_init": "j", "Y_upd": "j"}, ""), inside=st.Sequence((nest(({"Y_upd": "k"}, ""), inside=st.Leaf("Y_upd")), st.Leaf("Y_init"))))),
    "fibres in parallel": (rows(), nest(({"y_init": "i", "y_upd": "i"}, ""), inside=st.Sequence((st.Leaf("y_init"), st.Bind("A", 1, nest(({"y_upd": "q"}, "parallel"), inside=st.Leaf("y_upd"))))))),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(MISTAKES))
def test_a_planted_mistake_is_passed_on_and_refused(name: str) -> None:
    scop, tree = MISTAKES[name]
    last = [s for s in scop.statements if s.name not in set(st.statements_of(tree))]
    tree = st.Sequence((tree, *(nest(*(({s.name: d}, "") for d in s.dims), inside=st.Leaf(s.name)) for s in last)))
    assert not evidently_legal(scop, tree)
    with pytest.raises(ScheduleError):
        legal.check(dataclasses.replace(scop, schedule=st.render(scop, tree)), lambda: dependences(scop))


def test_a_reversed_recurrence_is_passed_on() -> None:
    scop = lower(straight(PROGRAMS["cumsum"]().program))
    dims = scop.statements[0].dims
    backwards = Apply("sub", (Const(0, dt.i64), var(dims[1])), dt.i64)
    for place in (backwards, Apply("floordiv", (var(dims[1]), Const(-4, dt.i64)), dt.i64)):
        tree = nest(({"S": dims[0]}, ""), ({"S": place}, ""), ({"S": dims[1]}, ""), inside=st.Leaf("S"))
        assert not evidently_legal(scop, tree)
    forward = nest(({"S": dims[0]}, ""), ({"S": over(var(dims[1]), 4)}, ""), ({"S": dims[1]}, ""), inside=st.Leaf("S"))
    assert evidently_legal(scop, forward)


def test_values_along_a_fibre_may_repeat() -> None:
    """Y[S[i]] += 1 over what a vector stores: its coordinates are distinct, its values need not be."""
    base = Input("B", dense(N, dtype=dt.f64))
    for place, distinct in ((v("i"), ["q"]), (at("S", "i", dtype=dt.i64), [])):
        step = Scatter("Y", dense(N, dtype=dt.f64), "B", "add", (Index("i", N),), (place,), lit(1.0, dt.f64), (within("S", "i"),))
        scop = lower(straight(program("count", [sparse("S", csf(1), N, dtype=dt.i64), base], [step], "Y")))
        update = scop.statements[-1]
        assert list(never_repeated(update)) == distinct
        walk = st.Bind("S", 0, st.Band(((update.name, var("q")),), st.Leaf(update.name), ("parallel",)))
        copy = st.Band(((scop.statements[0].name, var(scop.statements[0].dims[0])),), st.Leaf(scop.statements[0].name))
        tree = st.Sequence((copy, walk))
        assert evidently_legal(scop, tree) is bool(distinct) and is_legal(scop, dependences(scop), tree) is bool(distinct)
