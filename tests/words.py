"""A few words to write tensor programs with."""

from __future__ import annotations

from typing import Any

from polyai.scalar import dtype as dt
from polyai.scalar.dtype import DType
from polyai.scalar.expr import Apply, Const, Load, Var
from polyai.scalar.ops import result_type
from polyai.shapes.expr import Size, symbol
from polyai.sparse.format import Format
from polyai.tensor.nodes import Body, Comprehension, Index, Input, Pattern, Program, Reduce, TensorType, Within


def lit(value: float | bool, dtype: DType = dt.f32) -> Const:
    return Const(value, dtype)


def v(name: str) -> Var:
    return Var(name, dt.i64)


def op(name: str, *args: Body) -> Apply:
    return Apply(name, args, result_type(name, *(a.dtype for a in args)))


def at(array: str, *indices: str | Body, dtype: DType = dt.f32) -> Load:
    return Load(array, tuple(v(i) if isinstance(i, str) else i for i in indices), dtype)


def add(*args: Body) -> Body:
    out = args[0]
    for a in args[1:]:
        out = op("add", out, a)
    return out


def mul(*args: Body) -> Body:
    out = args[0]
    for a in args[1:]:
        out = op("mul", out, a)
    return out


def where(condition: Body, yes: Body, no: Body) -> Body:
    return op("where", condition, yes, no)


def relu(x: Body) -> Body:
    return op("max", x, lit(0.0, x.dtype))


def reduce(monoid: str, over: dict[str, Size], body: Body, *within: Within, dtype: DType | None = None) -> Reduce:
    return Reduce(monoid, tuple(Index(n, e) for n, e in over.items()), body, dtype or body.dtype, within)


def within(tensor: str, *indices: str) -> Within:
    return Within(tensor, indices)


def dense(*shape: Size, dtype: DType = dt.f32) -> TensorType:
    return TensorType(dtype, shape)


def sparse(name: str, format: Format, *shape: Size, dtype: DType = dt.f32) -> Input:
    return Input(name, TensorType(dtype, shape, format, Pattern(name, tuple(range(len(shape))))))


def define(target: str, indices: dict[str, Size], body: Body) -> Comprehension:
    """A dense comprehension."""
    return Comprehension(target, dense(*indices.values(), dtype=body.dtype), tuple(Index(n, e) for n, e in indices.items()), body)


def stored(target: str, indices: dict[str, Size], body: Body, *owner: str, dims: tuple[int, ...] | None = None) -> Comprehension:
    """A comprehension with the pattern of `owner[0]`, whose dimensions are the variables `owner[1:]`."""
    order = tuple(indices)
    pattern = Pattern(owner[0], tuple(owner[1:].index(i) for i in order))
    return Comprehension(
        target,
        TensorType(body.dtype, tuple(indices.values()), None, pattern),
        tuple(Index(n, e) for n, e in indices.items()),
        body,
        (Within(owner[0], owner[1:]),),
    )


def program(name: str, inputs: list[Input], body: list[Any], *outputs: str) -> Program:
    return Program(name, tuple(inputs), tuple(body), outputs)


n, m, c, k, d, h = (symbol(s) for s in ("n", "m", "c", "p", "d", "h"))
