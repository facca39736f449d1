"""What is said to be inside an array is, for all sizes that are tried; and what most programs need is said."""

from __future__ import annotations

import itertools
import random

import pytest

from polyai.errors import ScheduleError
from polyai.lower.tensor_to_poly import lower
from polyai.poly import legal, ranges
from polyai.poly.nodes import Scop
from polyai.poly.ranges import inside
from polyai.scalar import dtype as dt
from polyai.scalar.expr import Apply, Const, Expr, Load, Var
from polyai.shapes.expr import Size, ceildiv, evaluate, floordiv, symbol
from polyai.tensor.nodes import Body, Input, Program
from tests.poly.meaning import straight
from tests.words import at, define, dense, lit, op, program, v, where

N, M = symbol("n"), symbol("m")
X, Y = Var("i", dt.i64), Var("j", dt.i64)


def number(value: int) -> Expr:
    return Const(value, dt.i64)


def of(op: str, a: Expr, b: Expr) -> Expr:
    return Apply(op, (a, b), dt.i64)


@pytest.mark.parametrize(
    ("index", "extent", "guards", "expected"),
    [
        (of("add", X, number(1)), N + 1, (), True),
        (of("add", X, number(1)), N, (), False),
        (of("sub", X, number(1)), N, ("(i) > (0)",), True),
        (of("sub", X, number(1)), N, ("(j) > (0)",), False),
        (of("sub", X, number(1)), N, ("(i) >= (0)",), False),
        (of("floordiv", X, number(16)), ceildiv(N, 16), (), True),
        (of("floordiv", X, number(16)), floordiv(N, 16), (), False),
        (of("mod", X, number(16)), 16, (), True),
        (of("mod", X, number(16)), 15, (), False),
        (of("add", of("mul", number(64), Y), of("mod", X, number(64))), 64 * M, (), True),
        (of("sub", X, X), N, (), False),  # that both are one is not seen
    ],
)
def test_known(index: Expr, extent: Size, guards: tuple[str, ...], expected: bool) -> None:
    assert inside(index, extent, {"i": N, "j": M}, guards) is expected


def some(rng: random.Random, depth: int) -> Expr:
    if depth == 0:
        return rng.choice([X, Y, number(rng.randint(0, 4))])
    op = rng.choice(["add", "sub", "mul", "floordiv", "mod"])
    if op in ("add", "sub"):
        return of(op, some(rng, depth - 1), some(rng, depth - 1))
    if op == "mul":
        return of(op, number(rng.randint(0, 3)), some(rng, depth - 1))
    return of(op, some(rng, depth - 1), number(rng.randint(1, 4)))


def value(expr: Expr, i: int, j: int) -> int:
    match expr:
        case Const(found):
            return int(found.real)
        case Var(name):
            return i if name == "i" else j
        case Apply(op, (a, b)):
            x, y = value(a, i, j), value(b, i, j)
            return {"add": lambda: x + y, "sub": lambda: x - y, "mul": lambda: x * y, "floordiv": lambda: x // y, "mod": lambda: x % y}[op]()
        case _:
            raise AssertionError(expr)


def test_what_is_said_holds() -> None:
    rng, said = random.Random(0), 0
    for _ in range(3000):
        index, guards = some(rng, rng.randint(0, 3)), tuple(rng.sample(["(i) > (0)", "(j) >= (2)"], rng.randint(0, 1)))
        extent: Size = rng.choice([N, N + 1, M + N, 2 * N + M, ceildiv(N, 2), 3, 5, 3 * M + 2])
        if not inside(index, extent, {"i": N, "j": M + 1}, guards):
            continue
        said += 1
        for n, m in itertools.product(range(5), range(4)):
            most = evaluate(extent, {"n": n, "m": m})
            for i, j in itertools.product(range(n), range(m + 1)):
                if ("(i) > (0)" not in guards or i > 0) and ("(j) >= (2)" not in guards or j >= 2):
                    assert 0 <= value(index, i, j) < most, (index, extent, n, m, i, j)
    assert said > 100


# --- accesses: what is said without isl is what isl says ------------------------------------------------------------------


def index(rng: random.Random, depth: int) -> Body:
    if depth == 0 or rng.random() < 0.2:
        return rng.choice([v("i"), v("j"), v("i"), v("j"), v("n"), v("m"), lit(rng.randint(0, 3), dt.i64)])
    kind = rng.choice(["add", "sub", "mul", "floordiv", "mod", "min", "max", "neg"])
    if kind in ("add", "sub", "min", "max"):
        return op(kind, index(rng, depth - 1), index(rng, depth - 1))
    if kind == "neg":
        return op("neg", index(rng, depth - 1))
    number = lit(rng.choice([1, 2, 3, 4, 16]), dt.i64)
    return op("mul", number, index(rng, depth - 1)) if kind == "mul" else op(kind, index(rng, depth - 1), number)


def condition(rng: random.Random, depth: int = 1) -> Body:
    draw = rng.random()
    if depth and draw < 0.5:
        return op("not", condition(rng, depth - 1)) if draw < 0.1 else op(rng.choice(["and", "or"]), condition(rng, depth - 1), condition(rng, depth - 1))
    if draw > 0.85:
        return op("lt", lit(0.0), at("Z", "i"))
    return op(rng.choice(["lt", "le", "gt", "ge", "eq", "ne"]), index(rng, rng.randint(0, 1)), index(rng, rng.randint(0, 1)))


def access(rng: random.Random) -> Program:
    """Y[i, j] = X[...], maybe under conditions."""
    extents = [N, M, N + 1, M + N, 2 * N, N + 3, ceildiv(N, 2), ceildiv(N, 16), floordiv(N, 4) + 1, 3, 5, 16 * ceildiv(N, 16), 16]
    shape = [rng.choice(extents) for _ in range(rng.randint(1, 2))]
    body: Body = at("X", *(index(rng, rng.randint(0, 2)) for _ in shape))
    for _ in range(rng.randint(0, 2)):
        body = where(condition(rng), body, lit(0.0)) if rng.random() < 0.5 else where(condition(rng), lit(0.0), body)
    dims: dict[str, Size] = {"i": rng.choice([N, N, 4, N + 1, ceildiv(N, 16)]), "j": rng.choice([M, M, N, 16])}
    inputs = [Input("X", dense(*shape)), Input("Z", dense(dims["i"])), Input("x", dense(N)), Input("y", dense(M))]
    return program("access", inputs, [define("Y", dims, body)], "Y")


def said(scop: Scop) -> tuple[bool, frozenset[Load], frozenset[Load]]:
    """Whether all accesses are inside, and which loads their guards keep inside, or do not."""
    (statement,) = scop.statements
    try:
        legal.in_bounds(scop)
        fits = True
    except ScheduleError:
        fits = False
    return fits, legal.guarded_loads(statement, scop), legal.hidden_loads(statement, scop)


def test_isl_says_the_same_of_random_accesses(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = 0
    for seed in range(300):
        scop = lower(straight(access(random.Random(seed))))
        plain += not legal._in_question(scop, scop.statements[0])
        fits, guarded, hidden = said(scop)
        with monkeypatch.context() as patch:
            patch.setattr(legal, "_is_plain", lambda *_: False)
            patch.setattr(ranges, "begins_below", lambda *_: False)
            assert (fits, hidden) == said(scop)[::2], seed
            assert guarded >= said(scop)[1], seed
    assert plain > 15
