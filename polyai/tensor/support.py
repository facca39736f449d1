"""Where can a body differ from zero? Follows from annihilators and from operations that keep zero; the answer is data.

An element that a sparse tensor does not store is a *structural* zero. A structural zero annihilates a product, whatever the
other factor is there: infinity and NaN of the other factor are ignored where nothing is stored. A stored zero is a number
like any other. A numerator that is structurally zero makes a quotient so.

    A[i, k] * X[k, j]          Stored(A(i, k))
    A[i, k] * B[k, j]          Both(Stored(A(i, k)), Stored(B(k, j)))
    A[i, j] + B[i, j]          Either(Stored(A(i, j)), Stored(B(i, j)))
    max(A[i, j], 0)           Stored(A(i, j))
    exp(A[i, j])              Everywhere
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Union, assert_never

import numpy as np

from polyai.scalar.dtype import DType, compute_type, to_numpy
from polyai.scalar.expr import Apply, Cast, Const, Load, Var
from polyai.scalar.ops import OPS
from polyai.tensor.bodies import stored_at
from polyai.tensor.nodes import Body, Reduce, TensorType, Within
from polyai.term.node import node


@node
class Everywhere:
    """May differ from zero at any point."""


@node
class Nowhere:
    """Structurally zero at every point."""


@node
class Stored:
    """Structurally zero where `within` (told of the pattern's owner) is not stored."""

    within: Within


@node
class Both:
    """The intersection."""

    parts: tuple[Support, ...]


@node
class Either:
    """The union."""

    parts: tuple[Support, ...]


Support = Union[Everywhere, Nowhere, Stored, Both, Either]

_NUMERATOR = ("div", "floordiv", "mod", "shl", "shr")


@node
class ZeroRule:
    """The result is a structural zero if `how` ("any", "all", "never", "where") of the `args` (by number) are."""

    how: str
    args: tuple[int, ...]


def zero_rule(body: Apply) -> ZeroRule:
    """When is an operation structurally zero? Constants take part by their value: `max(A, 0)` keeps zero, `max(A, 1)` does not."""
    entry = OPS[body.op]
    everything = tuple(range(len(body.args)))
    if body.op == "where":
        return ZeroRule("where", everything)
    if entry.annihilator is not None and not entry.annihilator:
        return ZeroRule("any", everything)
    if body.op in _NUMERATOR:
        return ZeroRule("any", (0,))
    if all(not isinstance(a, Const) for a in body.args):
        return ZeroRule("all" if entry.keeps_zero else "never", everything)
    values = tuple((a.value if isinstance(a, Const) else 0, a.dtype) for a in body.args)
    rest = tuple(n for n in everything if not isinstance(body.args[n], Const))
    return ZeroRule("all" if rest and _is_zero_at(body.op, values) else "never", rest)


@lru_cache(maxsize=4096)
def _is_zero_at(op: str, values: tuple[tuple[bool | int | float | complex, DType], ...]) -> bool:
    return not OPS[op].meaning(*(np.asarray(v, to_numpy(compute_type(d))) for v, d in values))


def support(body: Body, types: Mapping[str, TensorType]) -> Support:
    """Where `body` may differ from a structural zero, over the index variables in scope."""
    match body:
        case Const() | Var():
            return Everywhere()
        case Load(array):
            stored = stored_at(body, types)
            return Everywhere() if stored is None or not types[array].is_sparse else Stored(stored)
        case Cast(arg):
            return support(arg, types)
        case Apply():
            return _applied(body, types)
        case Reduce():
            return _reduced(body, types)
        case _:
            assert_never(body)


def _applied(body: Apply, types: Mapping[str, TensorType]) -> Support:
    rule = zero_rule(body)
    parts = [support(body.args[n], types) for n in rule.args]
    match rule.how:
        case "any":
            return both(*parts)
        case "all":
            return either(*parts)
        case "where":
            condition, yes, no = parts
            if is_zero(body.args[1]):
                yes = Nowhere()
            if is_zero(body.args[2]):
                no = Nowhere()
            return either(both(condition, yes), no)
        case _:
            return Everywhere()


def is_zero(body: Body) -> bool:
    """A constant zero: what is chosen where a `where` stores nothing."""
    return isinstance(body, Const) and not body.value


def _reduced(body: Reduce, types: Mapping[str, TensorType]) -> Support:
    """A sum or `any` is zero where all its terms are: what the body needs stored, as far as it does not name bound variables."""
    if body.monoid not in ("add", "or"):
        return Everywhere()
    bound = {i.name for i in body.over}
    inside = support(body.body, types)
    kept = [p for p in (inside.parts if isinstance(inside, Both) else (inside,)) if not bound & variables(p)]
    return both(*kept)


def both(*parts: Support) -> Support:
    """Intersection, flattened, without what says nothing."""
    flat: list[Support] = []
    for part in parts:
        flat += [p for p in (part.parts if isinstance(part, Both) else (part,)) if p not in flat]
    if any(isinstance(p, Nowhere) for p in flat):
        return Nowhere()
    flat = [p for p in flat if not isinstance(p, Everywhere)]
    if not flat:
        return Everywhere()
    return flat[0] if len(flat) == 1 else Both(tuple(flat))


def either(*parts: Support) -> Support:
    """Union, flattened, without what adds nothing."""
    flat: list[Support] = []
    for part in parts:
        flat += [p for p in (part.parts if isinstance(part, Either) else (part,)) if p not in flat]
    if any(isinstance(p, Everywhere) for p in flat):
        return Everywhere()
    flat = [p for p in flat if not isinstance(p, Nowhere)]
    if not flat:
        return Nowhere()
    return flat[0] if len(flat) == 1 else Either(tuple(flat))


def variables(support: Support) -> set[str]:
    """The index variables that `support` speaks of."""
    match support:
        case Everywhere() | Nowhere():
            return set()
        case Stored(within):
            return set(within.indices)
        case Both(parts) | Either(parts):
            return set().union(*(variables(p) for p in parts))
        case _:
            assert_never(support)


def needed(support: Support) -> tuple[Within, ...]:
    """The coordinates that must be stored for the body to differ from zero; () if it may do so without any one of them.

    A union needs what all its parts need: `A[i,j] * x + A[i,j] * y` needs A(i,j).
    """
    match support:
        case Everywhere() | Nowhere():
            return ()
        case Stored(within):
            return (within,)
        case Both(parts):
            out: list[Within] = []
            for part in parts:
                out += [w for w in needed(part) if w not in out]
            return tuple(out)
        case Either(parts):
            first, *rest = (needed(p) for p in parts)
            return tuple(w for w in first if all(w in other for other in rest))
        case _:
            assert_never(support)
