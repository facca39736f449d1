"""Schedules a scop: a tree by the recipe, else by isl's scheduler, else in the program's own order; checked in each case.

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

from polyai.errors import ScheduleError
from polyai.poly import tree as st
from polyai.poly.deps import dependences
from polyai.poly.legal import check, in_bounds
from polyai.poly.nodes import PARALLEL, VECTOR, Scop
from polyai.poly.passes import recipe, start
from polyai.poly.passes.facts import Facts, facts_of
from polyai.scalar import dtype as dt
from polyai.scalar.expr import Var


def run(scop: Scop, hints: Mapping[str, int] | None = None) -> Scop:
    """`scop` with a legal schedule. `hints`: likely values of size symbols (`n`, `A.nnz`) and fibre lengths (`A_len1`)."""
    return scheduled(scop, hints or {})[0]


def scheduled(scop: Scop, hints: Mapping[str, int], scheduler: str = "recipe", vector_bytes: int = 64) -> tuple[Scop, tuple[str, ...]]:
    """`scop` with a legal schedule, and what was decided on the way, in words. `scheduler`: "recipe" or "isl".

    Raises ScheduleError only if an access may leave its array: a legal order always exists.
    """
    if not scop.statements:
        return scop, ("nothing to schedule",)
    in_bounds(scop)
    deps = dependences(scop)
    facts = facts_of(scop, hints)
    decisions: list[str] = []
    tries: dict[str, Callable[[], tuple[st.Tree, list[str]]]] = {
        "recipe": lambda: recipe.tree(facts, vector_bytes),
        "isl": lambda: start.tree(scop),
        "program": lambda: (_program(facts, marks=True), ["each statement has its own loops, in program order"]),
        "serial": lambda: (_program(facts, marks=False), ["each statement has its own serial loops, in program order"]),
    }
    order = ["isl", "recipe"] if scheduler == "isl" or _skewed(facts) else ["recipe"]
    for kind in [*order, *(["isl"] if "isl" not in order else []), "program", "serial"]:
        try:
            tree, notes = tries[kind]()
            done = dataclasses.replace(scop, schedule=st.render(scop, tree))
            check(done, deps, bounds=False)
        except ScheduleError as error:
            decisions.append(f"{kind}: refused: {error.what}")
            continue
        return done, (*decisions, *(f"{kind}: {note}" for note in notes))
    raise ScheduleError("no legal schedule was found", "; ".join(decisions), "report this program")


def _skewed(facts: Mapping[str, Facts]) -> bool:
    """True if a statement needs its own earlier results along several dims: a time loop over a stencil."""
    return any(len(f.serial) > 1 and f.statement.monoid is None and not f.statement.ragged for f in facts.values())


def _program(facts: Mapping[str, Facts], marks: bool) -> st.Tree:
    """Each statement in its own loops, in the order of its dims; the outermost parallel and one vector where its dim is free."""
    nests: list[st.Tree] = []
    for f in facts.values():
        out: st.Tree = st.Leaf(f.name)
        dims = f.statement.dims
        for position in reversed(range(len(dims))):
            for ragged in f.statement.ragged:
                if ragged.parents and ragged.parents[-1] == dims[position]:
                    out = st.Bind(ragged.tensor, ragged.level, out)
            chosen: tuple[str, ...] = ()
            if marks and dims[position] in f.free:
                if position == 0 and len(dims) > 1:
                    chosen = (PARALLEL,)
                elif position == len(dims) - 1 and dims[position] == f.vector:
                    chosen = (VECTOR,)
            out = st.Band(((f.name, Var(dims[position], dt.i64)),), out, chosen, bool(chosen))
        for ragged in f.statement.ragged:
            if not ragged.parents:
                out = st.Bind(ragged.tensor, ragged.level, out)
        nests.append(out)
    return nests[0] if len(nests) == 1 else st.Sequence(tuple(nests))
