"""A schedule from isl's scheduler, for loop nests that the recipe does not know: stencils in time, skewed recurrences.

    U[t,i] = f(U[t-1,i-1], U[t-1,i], U[t-1,i+1])        t: i, or a skewed band, as the dependences allow

isl's bands are split into single loops without marks; ragged loops get their bind marks, and lose statements that do not walk
them. Assumes nothing and proves nothing: the caller checks the tree.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from polyai.errors import ScheduleError
from polyai.poly import tree as st
from polyai.poly.context import bounded, domains, parameters
from polyai.poly.deps import QUOTA, Deps, flow
from polyai.poly.nodes import Scop, Statement
from polyai.scalar.expr import Expr, Var
from polyai.term.late import late
from polyai.term.node import walk

if TYPE_CHECKING:
    import islpy as isl
else:
    isl = late("islpy")


def tree(scop: Scop, quota: int = 8 * QUOTA) -> tuple[st.Tree, list[str]]:
    """isl's tree for `scop`, without marks, and notes. Raises ScheduleError if isl gives up, or skews a ragged dim."""
    found = flow(scop)
    schedule = bounded(lambda: _compute(scop, found), quota)
    if schedule is None:
        raise ScheduleError("isl's scheduler needs too long", f"more than {quota} operations", 'use scheduler="recipe"')
    statements = {s.name: s for s in scop.statements}
    out = _exile(st.read(scop, schedule, settle=True), statements)
    return _bind(out, statements), ["chosen by isl", *([found.note] if found.note else [])]


def _compute(scop: Scop, deps: Deps) -> isl.Schedule:
    everything = deps.order.union(deps.relaxed).union(deps.scattered)
    constraints = isl.ScheduleConstraints.on_domain(domains(scop)).set_context(parameters(scop))
    constraints = constraints.set_validity(deps.order).set_proximity(everything).set_coincidence(everything)
    return constraints.compute_schedule()


def _exile(tree: st.Tree, statements: Mapping[str, Statement]) -> st.Tree:
    """Statements that isl puts at a fixed iteration of a ragged loop come before or after it, as in the program.

        for q of T_upd, 0 of T_init          ->         T_init
                                                        for q of T_upd
    """
    match tree:
        case st.Leaf():
            return tree
        case st.Bind(tensor, level, child):
            return st.Bind(tensor, level, _exile(child, statements))
        case st.Sequence(children):
            return st.Sequence(tuple(_exile(c, statements) for c in children))
        case st.Band(members, child, marks, coincident):
            walkers = frozenset(n for n, place in members if _walks(statements[n], place))
            fixed = {n for n, place in members if not any(v.name in statements[n].dims for v in walk(place) if isinstance(v, Var))}
            if not walkers or walkers | fixed != {n for n, _ in members} or not fixed:
                return st.Band(members, _exile(child, statements), marks, coincident)
            order = list(statements)
            last = max(map(order.index, walkers))
            before = frozenset(n for n in fixed if order.index(n) < last)
            parts = [st.only(child, before), st.only(tree, walkers), st.only(child, frozenset(fixed) - before)]
            return st.Sequence(tuple(_exile(p, statements) for p in parts if p is not None))


def _walks(statement: Statement, place: Expr) -> bool:
    used = {n.name for n in walk(place) if isinstance(n, Var)}
    return any(r.dim in used for r in statement.ragged)


def _bind(tree: st.Tree, statements: Mapping[str, Statement], placed: frozenset[tuple[str, str]] = frozenset()) -> st.Tree:
    """Bind marks as high as the owners' loops allow. Raises ScheduleError where a ragged dim is mixed with another."""
    names = tuple(st.statements_of(tree))
    open_fibres = dict.fromkeys(r.fibre for n in names for r in statements[n].fibres if (n, str(r.fibre)) not in placed)
    for fibre in open_fibres:
        mine = [(n, r) for n in names for r in statements[n].fibres if r.fibre == fibre]
        if all((n, p) in placed for n, r in mine for p in r.parents):
            bound = placed | {(n, str(fibre)) for n in names}
            return st.Bind(fibre.tensor, fibre.level, _bind(tree, statements, bound))
    match tree:
        case st.Leaf():
            return tree
        case st.Bind(tensor, level, child):
            return st.Bind(tensor, level, _bind(child, statements, placed))
        case st.Sequence(children):
            return st.Sequence(tuple(_bind(c, statements, placed) for c in children))
        case st.Band(members, child, marks, coincident):
            for name, place in members:
                _refuse_skewed_fibres(statements[name], place)
            plain = frozenset((n, place.name) for n, place in members if isinstance(place, Var))
            return st.Band(members, _bind(child, statements, placed | plain), marks, coincident)


def _refuse_skewed_fibres(statement: Statement, place: Expr) -> None:
    used = {n.name for n in walk(place) if isinstance(n, Var)}
    ragged = [r.dim for r in statement.ragged if r.dim in used]
    if ragged and not isinstance(place, Var):
        raise ScheduleError(
            f"isl mixes the ragged dim {ragged[0]} of {statement.name} with other dims",
            "a loop over stored elements must stay inside its owner",
            'use scheduler="recipe"',
        )
