"""Loops of plain nests are what isl writes for them, node by node."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator, Mapping
from typing import assert_never

import pytest

from polyai.loop import nodes as lp
from polyai.lower import nests
from polyai.lower.ast_walk import Ast, Branch, Instance, Loop, Marked, Several
from polyai.lower.tensor_to_poly import lower
from polyai.poly import nodes as po
from polyai.poly import tree as st
from polyai.poly.context import parameters
from polyai.poly.passes import contract, schedule
from polyai.scalar import dtype as dt
from polyai.scalar.expr import Apply, Const, Expr, Var
from polyai.shapes.expr import Size, symbol
from polyai.tensor.nodes import Input
from polyai.term.node import walk
from tests.poly.meaning import straight
from tests.poly.random_schedules import dense_scop, random_tree
from tests.programs import PROGRAMS
from tests.words import at, define, dense, mul, program, reduce


def both(scop: po.Scop) -> tuple[Ast, Ast]:
    assert scop.schedule is not None
    hulls = frozenset(r.hull for s in scop.statements for r in s.ragged)
    return unasked(nests.ast_of(scop), hulls), unasked(nests.by_isl(scop.schedule.isl, parameters(scop)), hulls)


def unasked(ast: Ast, hulls: frozenset[str]) -> Ast:
    """`ast` without the questions whether any fibre at all may hold something."""
    match ast:
        case Branch(condition, then, None) if hulls & {n.name for n in walk(condition) if isinstance(n, Var)}:
            return unasked(then, hulls)
        case Branch(condition, then, orelse):
            return Branch(condition, unasked(then, hulls), None if orelse is None else unasked(orelse, hulls))
        case Loop():
            return dataclasses.replace(ast, body=unasked(ast.body, hulls))
        case Marked(mark, body):
            return Marked(mark, unasked(body, hulls))
        case Several(children):
            parts = [unasked(child, hulls) for child in children]
            return Several(tuple(p for part in parts for p in (part.children if isinstance(part, Several) else (part,))))
        case Instance():
            return ast
        case _:
            assert_never(ast)


def plain(scop: po.Scop) -> list[bool]:
    assert scop.schedule is not None
    tree = st.read(scop, scop.schedule)
    return [nests._Writer(scop).nest(nest) is not None for nest in (tree.children if isinstance(tree, st.Sequence) else (tree,))]


@pytest.mark.parametrize("scheduler", ["recipe", "isl"])
@pytest.mark.parametrize("name", sorted(PROGRAMS))
def test_every_program_has_the_loops_that_isl_writes(name: str, scheduler: str) -> None:
    scop = lower(straight(PROGRAMS[name]().program))
    done, _ = schedule.scheduled(scop, {}, scheduler=scheduler)
    mine, isls = both(contract.run(done))
    assert mine == isls


def product(rows: Size, columns: Size, inner: Size) -> po.Scop:
    p = program(
        "product",
        [Input("X", dense(rows, inner)), Input("W", dense(inner, columns))],
        [define("Y", {"i": rows, "j": columns}, reduce("add", {"k": inner}, mul(at("X", "i", "k"), at("W", "k", "j"))))],
        "Y",
    )
    return lower(p)


def pieces(dim: str, size: int) -> Expr:
    return Var(dim, dt.i64) if size == 1 else Apply("floordiv", (Var(dim, dt.i64), Const(size, dt.i64)), dt.i64)


def tiled(scop: po.Scop, loops: list[tuple[str, int]], below: list[int]) -> po.Scop:
    """`loops` over (i or j, size) around the statements, `below` over pieces of k around the update."""
    update = next(s for s in scop.statements if len(s.dims) == 3)
    children: list[st.Tree] = []
    for s in scop.statements:
        inner: st.Tree = st.Leaf(s.name)
        for size in reversed(below if s is update else []):
            inner = st.Band(((s.name, pieces(s.dims[2], size)),), inner)
        children.append(inner)
    out: st.Tree = st.Sequence(tuple(children))
    for dim, size in reversed(loops):
        members = tuple((s.name, pieces(s.dims["ij".index(dim)], size)) for s in scop.statements)
        out = st.Band(members, out, ("parallel",) if size > 1 and dim == "i" else ())
    return dataclasses.replace(scop, schedule=st.render(scop, out))


N, M, K = symbol("n"), symbol("m"), symbol("k_")
SHAPES = [(N, M, K), (N, 256, 64), (250, 96, K), (5, 7, 3), (64, 33, 250), (2, M, 2), (N, 16, 512), (2, 2, 2)]
TILES = [
    ([("i", 1), ("j", 1)], [1]),
    ([("i", 32), ("j", 16), ("i", 1), ("j", 1)], [1]),
    ([("j", 32), ("j", 16), ("i", 1), ("j", 1)], [32, 1]),
    ([("j", 512), ("j", 64), ("j", 16), ("i", 4), ("i", 1), ("j", 1)], [128, 8, 1]),
    ([("j", 48), ("j", 32), ("i", 1), ("j", 1)], [1]),
    ([("j", 16), ("j", 16), ("i", 1), ("j", 1)], [1]),
]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "x".join(str(e) if isinstance(e, int) else "n" for e in s))
@pytest.mark.parametrize("tiles", TILES, ids=lambda t: "-".join(f"{d}{s}" for d, s in t[0]))
def test_pieces_of_loops_end_where_isl_ends_them(shape: tuple[Size, Size, Size], tiles: tuple[list[tuple[str, int]], list[int]]) -> None:
    mine, isls = both(tiled(product(*shape), *tiles))
    assert mine == isls


def test_what_is_plain() -> None:
    assert plain(tiled(product(N, M, K), TILES[2][0], TILES[2][1])) == [True]
    assert plain(tiled(product(N, M, K), TILES[4][0], TILES[4][1])) == [False]  # pieces of 32 do not fit into pieces of 48
    assert plain(tiled(product(5, 7, 3), TILES[1][0], TILES[1][1])) == [False]  # a loop that runs once has no iterator
    facts = dataclasses.replace(product(N, M, K), context="[n, m, k_] -> { : n >= 0 and m >= 0 and k_ >= 0 and n <= 16 }")
    assert plain(tiled(facts, TILES[1][0], TILES[1][1])) == [False]  # isl may know that there is one piece
    done, _ = schedule.scheduled(lower(straight(PROGRAMS["spmm_bias_relu"]().program)), {})
    assert plain(done) == [True]
    one = dataclasses.replace(done.statements[1], nonempty=done.statements[1].ragged)
    asked = dataclasses.replace(done, statements=(done.statements[0], one, *done.statements[2:]))
    assert plain(asked) == [False]  # only one of the statements asks whether its row holds something


COMPARE = {"ge": lambda x, y: x >= y, "gt": lambda x, y: x > y, "le": lambda x, y: x <= y, "lt": lambda x, y: x < y, "eq": lambda x, y: x == y}
OPERATIONS = {
    **COMPARE, "add": lambda x, y: x + y, "sub": lambda x, y: x - y, "mul": lambda x, y: x * y, "floordiv": lambda x, y: x // y,
    "mod": lambda x, y: x % y, "min": min, "max": max, "neg": lambda x: -x, "and": lambda x, y: x and y, "or": lambda x, y: x or y,
}  # fmt: skip


def number(expr: lp.LoopExpr, known: Mapping[str, int]) -> int:
    match expr:
        case lp.Const(value):
            return int(value.real)
        case lp.Var(name):
            return known[name]
        case lp.Apply(op, args):
            return int(OPERATIONS[op](*(number(a, known) for a in args)))
        case _:
            raise AssertionError(expr)


def instances(ast: Ast, known: Mapping[str, int], marks: tuple[str, ...] = ()) -> Iterator[tuple[str, tuple[str, ...], tuple[int, ...]]]:
    """What runs, in order: a statement, the marks around it, the values of its dims."""
    match ast:
        case Loop(iterator, _, lower, upper, step, body):
            for value in range(number(lower, known), number(upper, known), step):
                yield from instances(body, {**known, iterator: value}, marks)
        case Branch(condition, then, orelse):
            chosen = then if number(condition, known) else orelse
            if chosen is not None:
                yield from instances(chosen, known, marks)
        case Several(children):
            for child in children:
                yield from instances(child, known, marks)
        case Marked(mark, body):
            yield from instances(body, known, (*marks, mark))
        case Instance(statement, args):
            yield statement, marks, tuple(number(a, known) for a in args)
        case _:
            assert_never(ast)


def test_random_trees_run_the_same_instances_in_the_same_order() -> None:
    compared = 0
    for seed in range(40):
        rng = random.Random(seed)
        scop = dense_scop(rng)
        for _ in range(3):
            done = dataclasses.replace(scop, schedule=st.render(scop, random_tree(rng, scop, odd=rng.choice([0.0, 0.1]))))
            if not any(plain(done)):
                continue
            compared += 1
            mine, isls = nests.ast_of(done), nests.by_isl(done.schedule.isl, parameters(done))
            for n in (0, 1, 5):
                assert list(instances(mine, {"n": n})) == list(instances(isls, {"n": n})), (seed, n, done.schedule.tree)
    assert compared > 60
