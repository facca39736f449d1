"""Take factors out of sums they do not depend on.

    S[i: n, j: m within A(i, j)] f32 = sum(k: d) A[i, j] * Q[i, k] * K[j, k]
    ->
    S[i: n, j: m within A(i, j)] f32 = A[i, j] * (sum(k: d) Q[i, k] * K[j, k])

A sum over stored coordinates keeps its factors: where nothing is stored the sum is empty and a factor must not count, as the
infinite 1 / degree of a vertex without neighbours. Assumes that products may be rounded in another order, as sums may (docs:
numbers); integers are exact either way.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import reduce
from typing import Any

from polyai.scalar.expr import Apply
from polyai.tensor.bodies import free, map_regions
from polyai.tensor.nodes import Body, Comprehension, Program, Reduce, Scatter, Step, TensorType, types_of
from polyai.tensor.support import Everywhere, support
from polyai.tensor.tree import bottom_up

Types = Mapping[str, TensorType]


def run(program: Program) -> Program:
    """The program with every sum over dense indices reduced to the factors that vary in it."""
    types = types_of(program)
    return dataclasses.replace(program, body=tuple(_step(map_regions(s, run), types) for s in program.body))


def _step(step: Step, types: Types) -> Step:
    match step:
        case Comprehension() | Scatter():
            body = bottom_up(step.body, lambda node: _factored(node, types))
            return step if body is step.body else dataclasses.replace(step, body=body)
        case _:
            return step


def _factored(node: Any, types: Types) -> Any:
    match node:
        case Reduce("add", over, Apply("mul") as product, dtype, ()) if dtype.kind != "b":
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


def _product(factors: list[Any], dtype: Any) -> Any:
    return reduce(lambda a, b: Apply("mul", (a, b), dtype), factors)
