"""Where bodies may differ from zero, as data, and that the data is true."""

from __future__ import annotations

import numpy as np
import pytest

from polyai.scalar import dtype as dt
from polyai.scalar.expr import Apply, Cast, Load
from polyai.sparse.format import csc, csr
from polyai.tensor.interp import run
from polyai.tensor.nodes import Body, Input, Pattern, TensorType, Within
from polyai.tensor.support import Both, Either, Everywhere, Nowhere, Stored, Support, needed, support, zero_rule
from tests.programs import random_sparse
from tests.words import add, at, define, dense, lit, m, mul, n, op, program, reduce, sparse, v, where

TYPES = {
    "A": sparse("A", csr(), n, m).type,
    "B": sparse("B", csc(), n, m).type,
    "At": TensorType(dt.f32, (m, n), None, Pattern("A", (1, 0))),
    "D": dense(n, m),
}
a, b, d = at("A", "i", "j"), at("B", "i", "j"), at("D", "i", "j")
sa, sb = Stored(Within("A", ("i", "j"))), Stored(Within("B", ("i", "j")))

CASES: dict[str, tuple[Body, Support]] = {
    "a stored operand": (a, sa),
    "a dense operand": (d, Everywhere()),
    "a product": (mul(d, a), sa),
    "a product of two": (mul(a, b), Both((sa, sb))),
    "a sum": (add(a, b), Either((sa, sb))),
    "a sum with dense": (add(a, d), Everywhere()),
    "the same pattern twice": (add(a, op("neg", a)), sa),
    "a product with a sum": (mul(a, add(b, d)), sa),
    "the other orientation": (add(a, at("At", "j", "i")), sa),
    "an operation that keeps zero": (op("tanh", a), sa),
    "one that does not": (op("exp", a), Everywhere()),
    "relu": (op("max", a, lit(0.0)), sa),
    "a maximum with one": (op("max", a, lit(1.0)), Everywhere()),
    "a minimum with one": (op("min", a, lit(1.0)), sa),
    "a power": (op("pow", a, lit(2.0)), sa),
    "a power of zero": (op("pow", a, lit(0.0)), Everywhere()),
    "a comparison false at zero": (op("gt", a, lit(0.5)), sa),
    "a comparison true at zero": (op("lt", a, lit(0.5)), Everywhere()),
    "a quotient": (op("div", a, d), sa),
    "a quotient of one pattern": (op("div", a, a), sa),
    "a sparse divisor": (op("div", d, a), Everywhere()),
    "a cast": (Cast(a, dt.f64), sa),
    "a sparse choice": (where(op("gt", a, lit(0.0)), d, lit(0.0)), sa),
    "a dense choice": (where(op("gt", d, lit(0.0)), a, b), Either((sa, sb))),
    "a choice of zero": (where(op("gt", d, lit(0.0)), a, lit(0.0)), sa),
    "a diagonal": (Load("A", (v("i"), v("i")), dt.f32), Everywhere()),
    "a sum over another index": (reduce("add", {"k": m}, mul(a, at("D", "i", "k"))), sa),
    "a sum over its own index": (reduce("add", {"j": m}, a), Everywhere()),
    "a maximum over another index": (reduce("max", {"k": m}, mul(a, at("D", "i", "k"))), Everywhere()),
}


@pytest.mark.parametrize("name", CASES)
def test_support_of(name: str) -> None:
    body, expected = CASES[name]
    assert support(body, TYPES) == expected


def test_what_must_be_stored() -> None:
    ik, kj = Within("A", ("i", "k")), Within("B", ("k", "j"))
    one, two = Stored(ik), Stored(kj)
    assert needed(Both((one, two))) == (ik, kj)
    assert needed(Either((one, two))) == ()
    assert needed(Either((one, Both((one, two))))) == (ik,)
    assert needed(Nowhere()) == needed(Everywhere()) == ()


@pytest.mark.parametrize("name", [k for k in CASES if "diagonal" not in k and "over" not in k])
def test_a_body_is_zero_outside_its_support(name: str) -> None:
    body, expected = CASES[name]
    arguments = {"A": random_sparse(np.random.default_rng(1), 6, 8), "B": random_sparse(np.random.default_rng(2), 6, 8)}
    inputs = [sparse("A", csr(), n, m), sparse("B", csr(), n, m), Input("D", dense(n, m))]
    flat = body if not any(isinstance(x, Load) and x.array == "At" for x in getattr(body, "args", ())) else add(a, a)
    p = program("p", inputs, [define("y", {"i": n, "j": m}, flat)], "y")
    got = run(p, {**arguments, "D": np.full((6, 8), np.nan, np.float32)})["y"]
    stored = {k: x.todense() != 0 for k, x in arguments.items()}
    assert not np.any(got[~_inside(expected, stored)])


def _inside(given: Support, stored: dict[str, np.ndarray]) -> np.ndarray:
    match given:
        case Stored(within):
            return stored[within.tensor]
        case Both(parts):
            return np.logical_and.reduce([_inside(p, stored) for p in parts])
        case Either(parts):
            return np.logical_or.reduce([_inside(p, stored) for p in parts])
        case _:
            return np.ones((6, 8), bool)


def test_rules_follow_from_the_table() -> None:
    rule = zero_rule(op("mul", a, d))
    assert (rule.how, rule.args) == ("any", (0, 1))
    body = op("add", a, lit(0.0))
    assert isinstance(body, Apply) and zero_rule(body).args == (0,)
    assert zero_rule(op("cos", a)).how == "never"
