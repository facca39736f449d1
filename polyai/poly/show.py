"""Scops as text.

    scop spmm: n, m, c, A_max1
      T_init[i, j] : 0 <= i < n and 0 <= j < m
        T[i, j] = 0.0
      T_upd[i, j, q] : ... and 0 <= q < A_max1
        T[i, j] add= A.val[i, q] * X[i64(A.crd1[i, q]), j]
    schedule
      parallel i
        bind A.1
          ...
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import assert_never

from polyai.poly import tree as st
from polyai.poly.nodes import Array, Ragged, Scop, Statement
from polyai.scalar.expr import Expr, Load
from polyai.scalar.show import show as show_expr
from polyai.shapes.expr import show as show_size


def show(scop: Scop, relations: bool = False) -> str:
    """The whole scop; with `relations` also the access relations."""
    lines = [f"scop {scop.name}: {st.condition_of(scop.context)}"]
    lines += [f"  {line}" for array in scop.arrays if array.role != "input" for line in [_array(scop, array)]]
    for s in scop.statements:
        lines += [f"  {line}" for line in statement(s, relations)]
    if scop.schedule is not None:
        lines.append("schedule")
        lines += [f"  {line}" for line in tree_lines(st.read(scop, scop.schedule))]
    return "\n".join(lines) + "\n"


def _array(scop: Scop, array: Array) -> str:
    extents = ", ".join(f"len {e.tensor}.{e.level}" if isinstance(e, Ragged) else show_size(e) for e in array.extents)
    depths = [a.depth for a in scop.allocations if a.array == array.name]
    where = f" in loop {depths[0]}" if depths and depths[0] else ""
    return f"{array.role} {array.name}: {array.dtype}[{extents}]{where}{', zero where it was read' if array.taken else ''}"


def statement(s: Statement, relations: bool = False) -> Iterator[str]:
    """One statement: its domain, then what it does."""
    yield st.braces(s.domain) + "".join(f", if {r.length} >= 1" for r in s.nonempty)
    target = show_expr(Load(s.target, s.at, s.value.dtype)) if s.at else s.target
    if s.when is not None:
        yield f"  if {show_expr(s.when)}"
    for array, value in s.pushes:
        yield f"  {array}[{target}] = {show_expr(value)}"
    yield f"  {target} {s.monoid or ''}= {show_expr(s.value)}" + (f"   once for each {show_expr(s.once)}" if s.once is not None else "")
    if relations:
        for word, relation in (("writes", s.write), *(("reads", r) for r in s.reads)):
            yield f"    {word if relation.must else f'may {word[:-1]}'} {st.braces(relation.text)}"


def tree_lines(tree: st.Tree) -> Iterator[str]:
    """A schedule tree: one line for each loop, with the dims it runs over, and for each statement."""
    match tree:
        case st.Leaf(name, extern):
            yield name if extern is None else f"{name} by {extern}"
        case st.Band(members, child, marks, _):
            places: dict[str, list[str]] = {}
            for name, place in members:
                places.setdefault(_place(place), []).append(name)
            dims = ", ".join(places) if len(places) == 1 else ", ".join(f"{p} of {' '.join(names)}" for p, names in places.items())
            yield " ".join((*marks, "for", dims))
            yield from _below(child)
        case st.Sequence(children):
            for child in children:
                yield from tree_lines(child)
        case st.Bind(tensor, level, child):
            yield f"bind {tensor}.{level}"
            yield from _below(child)
        case _:
            assert_never(tree)


def _place(place: Expr) -> str:
    return show_expr(place)


def _below(tree: st.Tree) -> Iterator[str]:
    return (f"  {line}" for line in tree_lines(tree))
