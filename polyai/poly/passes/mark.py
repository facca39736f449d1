"""Marks for a tree that has none: loops that carry no dependence run at once.

    for s                                   for s                       carries U[s-1, ...]
      for i                       ->          parallel for i
        for j                                   vector for j            along memory
          U                                       U

Proves: a loop is marked only if no pair of instances that the loops above leave together differs in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_never

from polyai.poly import tree as st
from polyai.poly.deps import Deps
from polyai.poly.legal import Pairs, joined, places, split
from polyai.poly.nodes import PARALLEL, VECTOR, Scop
from polyai.poly.passes.facts import Facts, along_memory
from polyai.scalar.expr import Var


def run(scop: Scop, tree: st.Tree, deps: Deps, facts: Mapping[str, Facts]) -> st.Tree:
    """`tree` with the outermost loop that carries nothing marked parallel, and one along memory vector."""
    return _Marker(scop, facts).visit(tree, tuple(split(d) for d in (deps.order, deps.relaxed, deps.scattered)), True)


class _Marker:
    def __init__(self, scop: Scop, facts: Mapping[str, Facts]) -> None:
        self.scop = scop
        self.facts = facts

    def visit(self, tree: st.Tree, deps: tuple[Pairs, ...], may_fork: bool) -> st.Tree:
        """`deps`: pairs that no loop above separates. `may_fork`: no loop above is parallel."""
        match tree:
            case st.Leaf():
                return tree
            case st.Bind(tensor, level, child):
                return st.Bind(tensor, level, self.visit(child, deps, may_fork))
            case st.Sequence(children):
                return st.Sequence(tuple(self.visit(c, _inside(c, deps), may_fork) for c in children))
            case st.Band(members, child, _, _):
                place = places(self.scop, tree)
                left = tuple(split(joined(d).eq_at_multi_union_pw_aff(place)) if d else () for d in deps)
                carries = [bool(d) and not joined(d).is_subset(joined(e)) if e else bool(d) for d, e in zip(deps, left)]
                marks = self._marks(members, carries, may_fork)
                below = self.visit(child, left, may_fork and PARALLEL not in marks)
                return st.Band(members, below, marks, not any(carries))
            case _:
                assert_never(tree)

    def _marks(self, members: tuple[tuple[str, object], ...], carries: list[bool], may_fork: bool) -> tuple[str, ...]:
        along = all(isinstance(p, Var) and self._is_along(self.facts[s], p.name) for s, p in members)
        order, _, scattered = carries
        if along and not order and not scattered:
            return (VECTOR,)
        return (PARALLEL,) if may_fork and not any(carries) else ()

    def _is_along(self, facts: Facts, dim: str) -> bool:
        return dim == facts.vector if facts.vector is not None else along_memory(facts, dim)


def _inside(tree: st.Tree, deps: tuple[Pairs, ...]) -> tuple[Pairs, ...]:
    names = set(st.statements_of(tree))
    return tuple(tuple(p for p in d if p[0] in names and p[1] in names) for d in deps)
