"""Walks over bodies. They go through bodies only, past types, sizes and names, which makes them fast; unchanged parts stay
the same objects, so that a pass can ask `is` whether anything changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from polyai.scalar.expr import Apply, Cast, Load, Var
from polyai.tensor.nodes import Body, Comprehension, Index, Join, Reduce, Scatter, Select, Spread, Within


def parts(body: Any) -> tuple[Body, ...]:
    """The bodies one step below."""
    kind = type(body)
    if kind is Apply:
        return body.args  # type: ignore[no-any-return]
    if kind is Load:
        return body.indices  # type: ignore[no-any-return]
    if kind is Cast:
        return (body.arg,)
    return (body.body,) if kind is Reduce else ()


def each(body: Body) -> list[Any]:
    """Every node of a body, parents before children, left to right."""
    out: list[Any] = []
    stack: list[Any] = [body]
    while stack:
        item = stack.pop()
        out.append(item)
        kind = type(item)
        if kind is Apply:
            stack.extend(item.args[::-1])
        elif kind is Load:
            stack.extend(item.indices[::-1])
        elif kind is Cast:
            stack.append(item.arg)
        elif kind is Reduce:
            stack.append(item.body)
    return out


def map_parts(body: Any, change: Callable[[Any], Any]) -> Any:
    """`body` with `change` applied to each body one step below."""
    kind = type(body)
    if kind is Apply:
        args = tuple(map(change, body.args))
        return body if _same(args, body.args) else Apply(body.op, args, body.dtype)
    if kind is Load:
        indices = tuple(map(change, body.indices))
        return body if _same(indices, body.indices) else Load(body.array, indices, body.dtype)
    if kind is Cast:
        arg = change(body.arg)
        return body if arg is body.arg else Cast(arg, body.dtype)
    if kind is Reduce:
        inside = change(body.body)
        return body if inside is body.body else Reduce(body.monoid, body.over, inside, body.dtype, body.within)
    return body


def _same(new: tuple[Any, ...], old: tuple[Any, ...]) -> bool:
    return all(a is b for a, b in zip(new, old))


def bottom_up(body: Any, change: Callable[[Any], Any]) -> Any:
    """Children first, then `change` on the rebuilt node."""
    return change(map_parts(body, lambda part: bottom_up(part, change)))


def renamed_body(body: Any, names: dict[str, str]) -> Any:
    """A body with index variables renamed where they are bound, used, and named by a `within`."""
    kind = type(body)
    if kind is Var:
        return Var(names[body.name], body.dtype) if body.name in names else body
    if kind is Reduce:
        over = tuple(renamed_index(i, names) for i in body.over)
        return Reduce(body.monoid, over, renamed_body(body.body, names), body.dtype, renamed_withins(body.within, names))
    return map_parts(body, lambda part: renamed_body(part, names))


def renamed_index(index: Index, names: dict[str, str]) -> Index:
    """The index by its new name."""
    return Index(names[index.name], index.extent) if index.name in names else index


def renamed_withins(within: tuple[Within, ...], names: dict[str, str]) -> tuple[Within, ...]:
    """The same coordinates by new names."""
    return tuple(Within(w.tensor, tuple(names.get(v, v) for v in w.indices)) for w in within)


def renamed_step(step: Any, names: dict[str, str]) -> Any:
    """A comprehension, scatter, join or selection with index variables renamed."""
    indices = tuple(renamed_index(i, names) for i in step.indices)
    if isinstance(step, Join):
        return Join(step.target, step.type, indices, tuple(renamed_withins(c, names) for c in step.clauses))
    if isinstance(step, Select):
        return Select(step.target, step.type, indices, renamed_body(step.at, names))
    if isinstance(step, Spread):
        return Spread(step.target, step.type, indices, renamed_body(step.length, names))
    body, within = renamed_body(step.body, names), renamed_withins(step.within, names)
    if isinstance(step, Scatter):
        at = tuple(renamed_body(a, names) for a in step.at)
        return Scatter(step.target, step.type, step.base, step.monoid, indices, at, body, within, step.grouped, step.requires)
    return Comprehension(step.target, step.type, indices, body, within)
