"""What is said to be inside an array is, for all sizes that are tried; and what most programs need is said."""

from __future__ import annotations

import itertools
import random

import pytest

from polyai.poly.ranges import inside
from polyai.scalar import dtype as dt
from polyai.scalar.expr import Apply, Const, Expr, Var
from polyai.shapes.expr import Size, ceildiv, evaluate, floordiv, symbol

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
