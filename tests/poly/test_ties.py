"""Ties decide loops as isl does: the checker refuses the same schedules with them as without them."""

from __future__ import annotations

from types import SimpleNamespace

import islpy as isl
import pytest

from polyai.errors import ScheduleError
from polyai.lower.tensor_to_poly import lower
from polyai.poly import evident, legal
from polyai.poly import tree as st
from polyai.poly.deps import dependences
from polyai.poly.evident import evidently_legal
from polyai.poly.passes import schedule
from polyai.poly.ties import equal, ties
from polyai.scalar import dtype as dt
from polyai.scalar.expr import Const, Expr
from tests.poly.meaning import straight
from tests.poly.random_schedules import changed, over, var
from tests.programs import PROGRAMS


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{ S[i, j] -> T[a, b, c] : a = i and b = j and 0 <= c < n }", {"a": "i", "b": "j"}),
        ("{ S[i, j] -> T[a, b, c] : a = i + 1 and b = j and c = 0 }", {"b": "j"}),
        ("{ S[i, j] -> T[a, b, c] : a = i + n and b = 2j and c = a }", {}),
        ("{ S[i, j] -> T[a, b, c] : a = -i and b = j }", {"b": "j"}),
        ("{ S[i, j] -> T[a, b, c] : (a = i and b = j) or (a = i and b = j + 1) }", {"a": "i"}),
        ("{ S[i, j] -> T[a, b, c] : a = i and i mod 2 = 0 and c <= b }", {"a": "i"}),
    ],
)
def test_ties_are_the_equalities_of_one_dim_with_one_dim(text: str, expected: dict[str, str]) -> None:
    assert ties(isl.Map(f"[n] -> {text}"), ("i", "j"), ("a", "b", "c")) == expected


def test_equal_means_equal_in_every_pair() -> None:
    known = {"a": "i"}

    def said(here: Expr, there: Expr) -> bool:
        return equal(here, there, known, ("i", "j"), ("a", "b"))

    assert said(var("i"), var("a")) and said(over(var("i"), 8), over(var("a"), 8)) and said(var("n"), var("n"))
    assert not said(over(var("i"), 8), over(var("a"), 4)) and not said(var("j"), var("b")) and not said(var("j"), var("a"))
    assert not said(var("i"), var("i")) and not said(Const(0, dt.i64), Const(1, dt.i64)) and not said(var("i"), Const(0, dt.i64))


@pytest.mark.parametrize("name", sorted(PROGRAMS))
def test_the_checker_refuses_the_same_schedules_with_ties_as_without(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scop = lower(straight(PROGRAMS[name]().program))
    done, _ = schedule.scheduled(scop, {})
    assert done.schedule is not None
    deps, tree = dependences(done), st.read(done, done.schedule)

    def verdict(candidate: st.Tree) -> str:
        try:
            legal.legal(done, deps, candidate)
        except ScheduleError as error:
            return error.what.partition(" ")[2]
        return "legal"

    candidates = [tree, *list(changed(tree))[:40]]
    with_ties = [verdict(c) for c in candidates]
    assert all(said == "legal" for c, said in zip(candidates, with_ties) if evidently_legal(done, c))
    monkeypatch.setattr(legal._Checker, "_stays", lambda *_: False)
    assert with_ties == [verdict(c) for c in candidates]
    assert with_ties[0] == "legal" and (len(scop.statements) < 2 or any(v != "legal" for v in with_ties))


@pytest.mark.parametrize("likely", [0, 700])
@pytest.mark.parametrize("name", sorted(PROGRAMS))
def test_schedules_of_ours_are_evidently_legal(name: str, likely: int) -> None:
    scop = lower(straight(PROGRAMS[name]().program))
    done, _ = schedule.scheduled(scop, dict.fromkeys(scop.parameters, likely) if likely else {})
    assert done.schedule is not None
    tree = st.read(done, done.schedule)
    assert evidently_legal(done, tree)
    legal.legal(done, dependences(done), tree)


def test_pieces_of_a_dim_tie_it_only_together() -> None:
    def tied(*places: str) -> tuple[tuple[str, str], ...]:
        dims = ("i", "j")
        one, other = (evident._places(SimpleNamespace(name="S", dims=dims), f"[n] -> {{ S[i, j] -> T[{text}] : i > 0 }}") for text in places)
        return evident._ties(one, other)

    assert tied("floor((i)/16), j, ((i) mod 16)", "floor((j)/16), i, ((j) mod 16)") == (("i", "j"), ("j", "i"))
    assert tied("floor((i)/16), ((i) mod 8)", "floor((j)/16), ((j) mod 8)") == ()
    assert tied("floor((i)/16), ((j) mod 16)", "floor((i)/16), ((i) mod 16)") == ()
    assert tied("i, (j) + (1)", "j, (j) + (1)") == (("j", "i"),)
    assert tied("min(i, 3), j", "i, j") == ()
