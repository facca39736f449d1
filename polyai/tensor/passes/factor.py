"""Take factors out of sums they do not depend on.

    S[i, j] = sum(k) A[i, j] * Q[i, k] * K[j, k]
    ->
    S[i, j] = A[i, j] * (sum(k) Q[i, k] * K[j, k])

A sum over stored coordinates keeps its factors: where nothing is stored the sum is empty and a factor must not count, as the
infinite 1 / degree of a vertex without neighbours. Assumes that products may be rounded in another order, as sums may (docs:
numbers); integers are exact either way.
"""

from __future__ import annotations

import dataclasses
from functools import reduce
from typing import Any

from polyai.scalar.expr import Apply
from polyai.tensor.bodies import apply, map_regions
from polyai.tensor.nodes import Body, Comprehension, Program, Reduce, Scatter, Step
from polyai.term.node import rewrite


def run(program: Program) -> Program:
    """The program with every sum reduced to the factors that vary in it."""
    return dataclasses.replace(program, body=tuple(_step(map_regions(s, run)) for s in program.body))


def _step(step: Step) -> Step:
    match step:
        case Comprehension() | Scatter():
            return dataclasses.replace(step, body=rewrite(step.body, _factored))
        case _:
            return step


def _factored(node: Any) -> Any:
    match node:
        case Reduce("add", over, Apply("mul") as product, dtype) if dtype.kind != "b":
            names = {i.name for i in over}
            varying: list[Body] = []
            fixed: list[Body] = []
            for factor in _factors(product, dtype):
                (varying if free(factor) & names else fixed).append(factor)
            if not fixed or not varying or not isinstance(support(_product(varying, dtype), types), Everywhere):
                return node
            inner = dataclasses.replace(node, body=_product(varying, dtype))
            return _product([*fixed, inner], dtype)
        case _:
            return node


def _factors(body: Body, dtype: Any) -> list[Body]:
    """The factors of a product of one type, left to right."""
    if type(body) is Apply and body.op == "mul" and body.dtype == dtype:
        return [f for arg in body.args for f in _factors(arg, dtype)]
    return [body]


def _product(factors: list[Body], dtype: Any) -> Body:
    return reduce(lambda a, b: apply("mul", dtype, a, b), factors)
