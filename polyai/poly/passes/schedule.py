"""Schedules a scop: a tree by the recipe, else by isl's scheduler, else in the program's own order; checked in each case.

A statement that needs its own earlier results along several dims (a stencil in time) keeps its order if some loop of it is free
of dependences; else isl skews it.

    T_init[i,j]; T_upd[i,j,q]; Y[i_1,j_1]           parallel for i
                                                      bind A.1
                                                        vector for j
                                                          T_init
                                                          for q
                                                            T_upd
                                                          Y

Proves: a schedule is returned only after `legal.check`. The decisions say which one it is, and what was refused before.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING

from polyai.errors import ScheduleError
from polyai.poly import tree as st
from polyai.poly.deps import dependences
from polyai.poly.legal import check, in_bounds
from polyai.poly.nodes import Scop
from polyai.poly.passes import fibre_sums, packed, pieces, recipe, split
from polyai.poly.passes.facts import Facts, facts_of
from polyai.scalar import dtype as dt
from polyai.scalar.expr import Var
from polyai.term.late import late
from polyai.term.node import walk

if TYPE_CHECKING:
    from polyai.poly.passes import mark, start
else:
    mark, start = late("polyai.poly.passes.mark"), late("polyai.poly.passes.start")


def run(scop: Scop, hints: Mapping[str, int] | None = None) -> Scop:
    """`scop` with a legal schedule. `hints`: likely values of size symbols (`n`, `A.nnz`) and fibre lengths (`A_len1`)."""
    return scheduled(scop, hints or {})[0]


def scheduled(scop: Scop, hints: Mapping[str, int], scheduler: str = "recipe", vector_bytes: int = 64) -> tuple[Scop, tuple[str, ...]]:
    """`scop` with a legal schedule, and what was decided on the way, in words. `scheduler`: "recipe" or "isl".

    Raises ScheduleError only if an access may leave its array: a legal order always exists.
    """
    if not scop.statements:
        return scop, ("nothing to schedule",)
    facts: Mapping[str, Facts] | None = None
    if scheduler == "recipe":
        facts = facts_of(scop, hints)
        cut = split.run(scop, hints, facts)
        scop = packed.run(fibre_sums.run(pieces.run(cut, hints, facts)), hints, vector_bytes, facts)
    in_bounds(scop)
    deps = cache(lambda: dependences(scop))  # isl is not asked about what is evident
    facts = facts_of(scop, hints, facts)
    decisions: list[str] = []

    def marked(found: tuple[st.Tree, list[str]]) -> tuple[st.Tree, list[str]]:
        return mark.run(scop, found[0], deps(), facts), found[1]

    tries: dict[str, Callable[[], tuple[st.Tree, list[str]]]] = {
        "recipe": lambda: recipe.tree(facts, vector_bytes),
        "isl": lambda: marked(start.tree(scop)),
        "steps": lambda: _at_once(marked((_program(facts), ["each statement has its own loops, in program order"]))),
        "program": lambda: (_program(facts), ["each statement has its own serial loops, in program order"]),
    }
    first = ["isl", "recipe"] if scheduler == "isl" else ["steps", "isl"] if _skewed(facts) else ["recipe", "isl"]
    for kind in dict.fromkeys((*first, *tries)):
        try:
            tree, notes = tries[kind]()
            done = dataclasses.replace(scop, schedule=st.render(scop, tree))
            check(done, deps, bounds=False)
        except ScheduleError as error:
            decisions.append(f"{kind}: refused: {error.what}")
            continue
        return done, (*decisions, *(f"{kind}: {note}" for note in notes))
    raise ScheduleError("no legal schedule was found", "; ".join(decisions), "report this program")


def _at_once(found: tuple[st.Tree, list[str]]) -> tuple[st.Tree, list[str]]:
    """Raises ScheduleError if no loop was marked: only a skewed one may run at once."""
    if not any(isinstance(n, st.Band) and n.marks for n in walk(found[0])):
        raise ScheduleError("no loop in program order is free of dependences")
    return found


def _skewed(facts: Mapping[str, Facts]) -> bool:
    """True if a statement needs its own earlier results along several dims: a time loop over a stencil."""
    return any(len(f.serial) > 1 and f.statement.monoid is None and not f.statement.ragged for f in facts.values())


def _program(facts: Mapping[str, Facts]) -> st.Tree:
    """Each statement in its own loops, in the order of its dims."""
    nests: list[st.Tree] = []
    for f in facts.values():
        out: st.Tree = st.Leaf(f.name)
        for dim in reversed(f.statement.dims):
            for ragged in f.statement.fibres:
                if ragged.parents and ragged.parents[-1] == dim:
                    out = st.Bind(ragged.tensor, ragged.level, out)
            out = st.Band(((f.name, Var(dim, dt.i64)),), out)
        for ragged in f.statement.fibres:
            if not ragged.parents:
                out = st.Bind(ragged.tensor, ragged.level, out)
        nests.append(out)
    return nests[0] if len(nests) == 1 else st.Sequence(tuple(nests))
