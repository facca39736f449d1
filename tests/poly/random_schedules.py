"""Random programs of a few dense statements, and random schedule trees of any scop: legal ones and others.

Trees are made from nothing (loops over dims, pieces, reversed and shifted dims, in any order, fused or apart), and by changes of a
good tree: a loop marked, turned round, shifted, cut or exchanged with the one inside; a sequence turned round; two nests fused.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator
from itertools import pairwise

from polyai.lower.tensor_to_poly import lower
from polyai.poly import tree as st
from polyai.poly.nodes import Scop
from polyai.scalar import dtype as dt
from polyai.scalar.expr import Apply, Const, Expr, Var
from polyai.shapes.expr import Size, symbol
from polyai.tensor.nodes import Body, Index, Input, Scatter
from tests.poly.meaning import straight
from tests.words import add, at, define, dense, lit, mul, op, program, reduce, v, where

N, M = symbol("n"), symbol("m")
MARKS = ("parallel", "vector", "jam=4")


def var(name: str) -> Expr:
    return Var(name, dt.i64)


def over(arg: Expr, size: int) -> Expr:
    """Pieces of `size`."""
    return Apply("floordiv", (arg, Const(size, dt.i64)), dt.i64)


# --- programs -----------------------------------------------------------------------------------------------------------


def dense_scop(rng: random.Random) -> Scop:
    """Two to four statements over square matrices: copies, transposes, shifts, diagonals, sums, recurrences, scattered updates."""
    size: Size = rng.choice([N, N, N, N + 1, 6])
    end: Body = {N: v("n"), N + 1: op("add", v("n"), lit(1, dt.i64)), 6: lit(6, dt.i64)}[size]
    made, steps = ["X"], []
    for number in range(rng.randint(1, 3)):
        name, i, j = f"T{number}", f"i{number}", f"j{number}"
        source = rng.choice(made[-2:])
        one = rng.choice([(v(i), v(j)), (v(j), v(i)), (v(i), v(i)), (op("sub", op("sub", end, lit(1, dt.i64)), v(i)), v(j)), (v(i), op("floordiv", v(j), lit(2, dt.i64)))])
        body: Body = at(source, *one)
        kind = rng.choice(["map", "map", "shift", "sum", "recurrence", "scatter"])
        if kind == "shift":
            body = add(body, _guarded(source, i, j, rng.choice([(0, 1), (1, 0), (1, 1), (-1, 0), (0, -1)]), end))
        if kind == "recurrence":
            shift = rng.choice([(0, -1), (-1, 0), (-1, -1), (-1, 1)])
            body = add(body, _guarded(name, i, j, shift, end))
        if kind == "scatter":
            steps.append(define(f"{name}b", {f"{i}b": size, f"{j}b": size}, lit(0.0)))
            place = rng.choice([(v(i), v(j)), (v(j), v(i)), (v(i), at("ids", v(j), dtype=dt.i64)), (lit(0, dt.i64), v(j))])
            monoid = rng.choice(["add", "max", None])
            steps.append(Scatter(name, dense(size, size), f"{name}b", monoid, (Index(i, size), Index(j, size)), place, body))
        elif kind == "sum":
            inner = f"k{number}"
            terms = mul(at(source, v(i), v(inner)), at(rng.choice(made), v(inner), v(j)))
            steps.append(define(name, {i: size, j: size}, reduce("add", {inner: size}, terms)))
        else:
            steps.append(define(name, {i: size, j: size}, body))
        made.append(name)
    inputs = [Input("X", dense(size, size)), Input("ids", dense(size, dtype=dt.i64)), Input("w", dense(N))]
    return lower(straight(program("random", inputs, steps, *dict.fromkeys([steps[-1].target, rng.choice(steps).target]))))


def _guarded(array: str, i: str, j: str, shift: tuple[int, int], end: Body) -> Body:
    """array[i + shift[0], j + shift[1]], where that is inside."""
    places = [op("add", v(d), lit(s, dt.i64)) if s else v(d) for d, s in zip((i, j), shift)]
    tests = [op("ge", p, lit(0, dt.i64)) if s < 0 else op("lt", p, end) for p, s in zip(places, shift) if s]
    test = tests[0] if len(tests) == 1 else op("and", *tests)
    return where(test, at(array, *places), lit(0.0))


# --- trees --------------------------------------------------------------------------------------------------------------


def random_tree(rng: random.Random, scop: Scop, odd: float = 0.15) -> st.Tree:
    """Any tree of statements without ragged dims. `odd`: how often a loop runs over something else than dims and pieces in order."""
    return _tree(rng, {s.name: list(s.dims) for s in scop.statements}, {}, odd)


def _tree(rng: random.Random, todo: dict[str, list[str]], cut: dict[tuple[str, str], int], odd: float) -> st.Tree:
    names = list(todo)
    if len(names) > 1 and (rng.random() < 0.35 or any(not dims for dims in todo.values())):
        edge = rng.randint(1, len(names) - 1)
        first, second = names[:edge], names[edge:]
        if rng.random() < odd:
            first, second = second, first
        parts = [_tree(rng, {n: todo[n] for n in part}, cut, odd) for part in (first, second)]
        return st.Sequence(tuple(x for p in parts for x in (p.children if isinstance(p, st.Sequence) else (p,))))
    if len(names) == 1 and not todo[names[0]]:
        return st.Leaf(names[0])
    number = 0 if rng.random() < 0.8 else rng.randrange(3)
    size = rng.choice([1, 1, 2, 4, 8])
    members, left, cut = [], {}, dict(cut)
    for name, dims in todo.items():
        dim = dims[min(number, len(dims) - 1)] if rng.random() < 0.9 else rng.choice(dims)
        mine = size if size < cut.get((name, dim), 1 << 30) else 1
        place, rest = var(dim), [d for d in dims if d != dim]
        if mine > 1:
            place, rest, cut[name, dim] = over(var(dim), mine), dims, mine
        elif rng.random() < odd / 3:
            place = rng.choice([Apply("neg", (place,), dt.i64), Apply("add", (place, Const(1, dt.i64)), dt.i64)])
        members.append((name, place))
        left[name] = rest
    marks = (rng.choice(MARKS),) if rng.random() < 0.4 else ()
    return st.Band(tuple(members), _tree(rng, left, cut, odd), marks)


def changed(tree: st.Tree) -> Iterator[st.Tree]:
    """`tree` with one change, in every place: see the top."""
    match tree:
        case st.Band(members, child, marks, coincident):
            for mark in MARKS:
                yield dataclasses.replace(tree, marks=(*marks, mark))
            first, *rest = members
            yield st.Band(((first[0], Apply("add", (first[1], Const(1, dt.i64)), dt.i64)), *rest), child, (), coincident)
            yield st.Band(tuple((s, Apply("sub", (Const(0, dt.i64), e), dt.i64)) for s, e in members), child, (), coincident)
            yield st.Band(tuple((s, over(e, 4)) for s, e in members), tree, ("parallel",), coincident)
            if isinstance(child, st.Band):
                yield dataclasses.replace(child, child=dataclasses.replace(tree, child=child.child))
            for below in changed(child):
                yield st.Band(members, below, marks, coincident)
        case st.Sequence(children):
            yield st.Sequence(children[::-1])
            for at_, (one, other) in enumerate(pairwise(children)):
                if isinstance(one, st.Band) and isinstance(other, st.Band):
                    yield _sequence(*children[:at_], _fused(one, other), *children[at_ + 2 :])
            for at_, part in enumerate(children):
                for below in changed(part):
                    yield st.Sequence((*children[:at_], below, *children[at_ + 1 :]))
        case st.Bind(tensor, level, child):
            for below in changed(child):
                yield st.Bind(tensor, level, below)
        case st.Leaf():
            return


def _fused(one: st.Band, other: st.Band) -> st.Band:
    inner = [x for b in (one, other) for x in (b.child.children if isinstance(b.child, st.Sequence) else (b.child,))]
    return st.Band((*one.members, *other.members), st.Sequence(tuple(inner)), one.marks)


def _sequence(*children: st.Tree) -> st.Tree:
    return children[0] if len(children) == 1 else st.Sequence(children)
