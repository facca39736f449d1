"""The loops of a schedule: those of plain nests are written here, all others come from isl's code generator.

A nest is plain if its statements are boxes, below the marks that bind fibres too, and each of its loops runs over one dim, or over
pieces of one dim, that ends at the same place for all of them. Where more is known of the sizes, isl is asked about pieces. Its loops are read off::

    band S[i, j] -> j // 32; T[a, b] -> b // 32      for c0 in 0 .. (n - 1) // 32 + 1
      band S[i, j] -> j; T[a, b] -> b                  for c1 in 32*c0 .. min(n - 1, 32*c0 + 31) + 1
        sequence S, T                                    S(.., c1); T(.., c1)

    band U[i, q] -> i                                for c0 in 0 .. n
      bind A.1                                         mark bind=A.1@1
        band U[i, q] -> q                                for c1 in 0 .. A_len1

isl would write the same (the tests compare), after working out in milliseconds for each loop what is plain to see. Around loops over
fibres alone it asks whether any fibre may hold something: that is left out, since each loop asks it of its own fibre.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, assert_never

from polyai.loop import build as b
from polyai.loop import nodes as lp
from polyai.lower.ast_walk import Ast, Branch, Instance, Loop, Marked, Several, walk
from polyai.poly import nodes as po
from polyai.poly import tree as st
from polyai.poly.context import parameters
from polyai.scalar.expr import Apply, Const, Expr, Var
from polyai.term.late import late

if TYPE_CHECKING:
    import islpy as isl
else:
    isl = late("islpy")

_LIMIT = re.compile(r"0 <= (\w+) < (?:(\w+)|\((\w+) \+ (\d+)\)|floor\(\((\w+)\)/(\d+)\))")
_NOT_NEGATIVE = re.compile(r"(\w+) >= 0")

Place = tuple[str, int, lp.LoopExpr]
"""A dim, how many of its values one iteration of a loop over it holds, and the loop's iterator. A point holds 1."""

Ends = Mapping[str, lp.LoopExpr]
"""Where each dim of a box ends: a number, a size, a size and a number, or a part of a size."""


def ast_of(scop: po.Scop) -> Ast:
    """The loops that run the instances of `scop` in the order of its schedule."""
    assert scop.schedule is not None
    tree = st.read(scop, scop.schedule)
    nests = tree.children if isinstance(tree, st.Sequence) else (tree,)
    writer = _Writer(scop)
    written = [(nest, writer.nest(nest)) for nest in nests]
    if all(ast is None for _, ast in written):
        return by_isl(scop.schedule.isl, parameters(scop))
    parts: list[Ast] = []
    for left, group in groupby(written, lambda pair: pair[1] is None):
        if left:  # together: isl puts them under one condition where it can
            rest = _restricted(scop.schedule.isl, [nest for nest, _ in group])
            if rest is not None:
                parts.append(by_isl(rest, parameters(scop)))
        else:
            parts += [ast for _, ast in group if ast is not None]
    flat = [part for p in parts for part in (p.children if isinstance(p, Several) else (p,))]
    return flat[0] if len(flat) == 1 else Several(tuple(flat))


def by_isl(schedule: isl.Schedule, context: isl.Set) -> Ast:
    """The loops that isl writes for `schedule`, for parameters in `context`."""
    return walk(isl.AstBuild.from_context(context).node_from_schedule(with_depths(schedule)))


def with_depths(schedule: isl.Schedule) -> isl.Schedule:
    """`schedule` with the depth of its loop written into each mark: isl leaves out loops that run once, but not their marks."""

    def number(at: isl.ScheduleNode) -> isl.ScheduleNode:
        if at.get_type() != isl.schedule_node_type.mark:
            return at
        name = f"{at.mark_get_id().get_name()}@{at.get_schedule_depth()}"
        return at.delete().insert_mark(isl.Id(name, None, isl.DEFAULT_CONTEXT))

    return schedule.map_schedule_node_bottom_up(number)


def _restricted(schedule: isl.Schedule, nests: Sequence[st.Tree]) -> isl.Schedule | None:
    """`schedule` of the statements of some nests alone; None if these have no instances, as with a size 0."""
    names = {name for nest in nests for name in st.statements_of(nest)}
    mine: list[isl.Set] = []
    schedule.get_domain().foreach_set(lambda part: mine.append(part) if part.get_tuple_name() in names else None)
    if not mine:
        return None
    domain = isl.UnionSet.from_set(mine[0])
    for part in mine[1:]:
        domain = domain.union(isl.UnionSet.from_set(part))
    return schedule.intersect_domain(domain)


class _Writer:
    def __init__(self, scop: po.Scop) -> None:
        known = st.condition_of(scop.context).split(" and ")
        found = [_NOT_NEGATIVE.fullmatch(c) for c in known]
        self.sizes = {m[1] for m in found if m is not None}
        self.facts = None in found and known != ["true"]  # isl may know from them that a tile is whole
        self.statements = {s.name: s for s in scop.statements}

    def nest(self, tree: st.Tree) -> Ast | None:
        """The loops of a plain nest; None if it is none."""
        ends = {name: self._ends(self.statements[name]) for name in st.statements_of(tree)}
        known = {name: end for name, end in ends.items() if end is not None}
        return self._write(tree, 0, known, dict.fromkeys(known, ())) if len(known) == len(ends) else None

    def _ends(self, s: po.Statement) -> dict[str, lp.LoopExpr] | None:
        """Where each dim of a box ends; None if the domain is no box."""
        out: dict[str, lp.LoopExpr] = {}
        inside = st.braces(s.domain).partition(":")[2].strip()
        for limit in inside.split(" and ") if inside else ():
            found = _LIMIT.fullmatch(limit)
            if found is None or found[1] in out:
                return None
            plain, symbol, more, divided, by = found.groups()[1:]
            if plain is not None and plain.isdecimal():
                if int(plain) < 2:
                    return None
                out[found[1]] = b.const(int(plain))
            elif (plain or symbol) in self.sizes:
                out[found[1]] = b.add(b.var(plain or symbol), b.const(int(more or 0)))
            elif divided in self.sizes:
                out[found[1]] = b.floordiv(b.var(divided), b.const(int(by)))
            else:
                return None
        return out if set(out) == set(s.dims) else None

    def _write(self, tree: st.Tree, depth: int, ends: Mapping[str, Ends], around: Mapping[str, tuple[Place, ...]]) -> Ast | None:
        match tree:
            case st.Leaf(name, None):
                points = {dim: at for dim, size, at in around[name] if size == 1}
                dims = self.statements[name].dims
                return Instance(name, tuple(points[d] for d in dims)) if all(d in points for d in dims) else None
            case st.Leaf():
                return None
            case st.Bind(tensor, level, child):
                known = {name: {**ends[name], **self._lengths(name, tensor, level)} for name in st.statements_of(child)}
                below = self._write(child, depth, {**ends, **known}, around)
                asked = [[r.length for r in self.statements[name].nonempty if (r.tensor, r.level) == (tensor, level)] for name in known]
                if below is None or any(lengths != asked[0] for lengths in asked):
                    return None
                for length in asked[0]:
                    below = Branch(b.compare("ge", b.var(length), b.ONE), below, None)
                return Marked(f"{po.BIND}={tensor}.{level}@{depth}", below)
            case st.Sequence(children):
                parts = [self._write(child, depth, ends, around) for child in children]
                whole = tuple(p for p in parts if p is not None and not isinstance(p, Several))
                return Several(whole) if len(whole) == len(parts) else None
            case st.Band(members, child, marks, _):
                bounds = {self._bounds(around[name], ends[name], place) for name, place in members}
                if len(bounds) != 1 or None in bounds:
                    return None
                ((lower, upper),) = [found for found in bounds if found is not None]
                iterator = b.var(f"c{depth}")
                inside = {name: (*around[name], (*_piece(place), iterator)) for name, place in members}
                body = self._write(child, depth + 1, ends, inside)
                if body is None:
                    return None
                out: Ast = Loop(iterator.name, depth, lower, upper, 1, body)
                for mark in reversed(marks):
                    out = Marked(f"{mark}@{depth}", out)
                return out
            case _:
                assert_never(tree)

    def _lengths(self, name: str, tensor: str, level: int) -> Ends:
        """Where the dims of a statement that walk a fibre end, once its length is known."""
        return {r.dim: b.var(r.length) for r in self.statements[name].ragged if (r.tensor, r.level) == (tensor, level)}

    def _bounds(self, around: tuple[Place, ...], ends: Ends, place: Expr) -> tuple[lp.LoopExpr, lp.LoopExpr] | None:
        """Of a loop over a dim or over pieces of it, below the loops around; None if it is none, or runs once."""
        dim, size = _piece(place)
        if dim not in ends:
            return None
        end = ends[dim]
        fixed = b.number(end)
        last = b.floordiv(b.sub(end, b.ONE), b.const(size))
        outer = [p for p in around if p[0] == dim]
        if not outer:
            return None if b.number(last) == 0 else (b.ZERO, b.add(last, b.ONE))
        _, whole, at = outer[-1]
        if whole <= size or whole % size:
            return None
        first = b.mul(b.const(whole // size), at)
        stop = b.add(first, b.const(whole // size - 1))
        full = fixed is not None and fixed % whole == 0
        if self.facts and not full:
            return None
        until = stop if full else b.smallest(last, stop) if size == 1 or fixed is not None else b.smallest(stop, last)
        return first, b.add(until, b.ONE)


def _piece(place: Expr) -> tuple[str, int]:
    """The dim that a loop runs over and how many of its values one iteration holds; ("", 0) if the place is something else."""
    match place:
        case Var(name):
            return name, 1
        case Apply("floordiv", (Var(name), Const(size))) if size.real > 1:
            return name, int(size.real)
        case _:
            return "", 0
