"""Calls with ragged batches: each is taken apart into its values, in its place, and tables of its rows, behind the other arguments.

    f(x, W)      x ragged        becomes        f(x.values, W, pieces of x's rows, ...)

Batches whose offsets are equal share their rows, and only those may meet element by element. Which tables a function needs is
found out while tracing: `TableWanted` starts the trace again with one more.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from polyai.errors import ShapeError
from polyai.frontend.arguments import argument_name, parameter_names
from polyai.frontend.composites.ragged import RaggedArray
from polyai.frontend.composites.ragged_rows import Key, Rows, TableWanted
from polyai.frontend.core import Array, find_tracer
from polyai.sparse.ragged import Offsets, Ragged

Path = tuple[Any, ...]


class Packed(NamedTuple):
    """A ragged result: its values, and which rows of the call they are in."""

    values: Any
    rows: int


class RaggedCall(NamedTuple):
    """A call taken apart: the arguments with values in place of batches, where these were and which rows they have, and the rows.
    `key`: what the function of packed values depends on besides kinds and sizes."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    places: tuple[tuple[Path, int], ...]
    rows: tuple[Offsets, ...]
    key: Any


def found_in(args: tuple[Any, ...], kwargs: Mapping[str, Any], static: bool) -> RaggedCall | None:
    """The call taken apart; None if no argument is ragged. `static`: some arguments are baked in, so their values are part of the key."""
    places: list[tuple[Path, int]] = []
    rows: list[Offsets] = []
    fixed: list[Any] = []

    def taken(path: Path, value: Any) -> Any:
        if type(value) is Ragged:
            number = next((n for n, known in enumerate(rows) if known.same(value.batch)), len(rows))
            if number == len(rows):
                rows.append(value.batch)
            places.append((path, number))
            return value.values
        if isinstance(value, dict):
            return {k: taken((*path, k), v) for k, v in value.items()}
        if isinstance(value, (tuple, list)):
            parts = [taken((*path, n), v) for n, v in enumerate(value)]
            return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
        if isinstance(value, (str, bool, type(None))) or (static and isinstance(value, (int, float))):
            fixed.append((path, value))
        return value

    new = tuple(taken((n,), a) for n, a in enumerate(args))
    named = {k: taken((k,), v) for k, v in kwargs.items()}
    if not places:
        return None
    return RaggedCall(new, named, tuple(places), tuple(rows), (tuple(places), len(args), tuple(kwargs), tuple(fixed)))


class Plan:
    """What a function needs for calls of one kind: tables of rows, found while tracing; and which rows its result has."""

    def __init__(self, call: RaggedCall) -> None:
        self.places, self.positional = call.places, len(call.args)
        self.tables: tuple[tuple[int, Key], ...] = tuple((n, ("pieces",)) for n in range(len(call.rows)))
        self.result: int | None = None

    def want(self, wanted: TableWanted) -> None:
        """Bring one table more from now on."""
        if (wanted.rows, wanted.key) not in self.tables:
            self.tables = (*self.tables, (wanted.rows, wanted.key))

    def arrays(self, call: RaggedCall) -> tuple[Any, ...]:
        """The tables, for the rows of a call."""
        for number, key in self.tables:
            if key[0] == "seen" and call.rows[key[1]].rows != call.rows[number].rows:
                raise ShapeError(
                    f"attention between batches of {call.rows[number].rows} and {call.rows[key[1]].rows} rows", "each row sees the row of the same number", "pass as many rows"
                )
        return tuple(call.rows[number].table(key, call.rows) for number, key in self.tables)

    def spread(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """`fn` over values and tables. Ragged results come back as Packed; a result that is ragged itself as its values."""
        places, tables = dict(self.places), self.tables

        def run(*flat: Any, **kwargs: Any) -> Any:
            args, listed = flat[: self.positional], flat[self.positional :]
            tracer = find_tracer(listed, "a ragged batch")
            rows = []
            for number in range(1 + max(places.values())):
                values = [tracer.array(_at(path, args, kwargs)) for path, n in places.items() if n == number]
                rows.append(Rows(tracer, number, {k: t for (n, k), t in zip(tables, listed) if n == number}, values))

            def whole(path: Path, value: Any) -> Any:
                if path in places:
                    return RaggedArray(value, rows[places[path]])
                return _mapped(value, lambda key, v: whole((*path, key), v))

            out = fn(*(whole((n,), a) for n, a in enumerate(args)), **{k: whole((k,), v) for k, v in kwargs.items()})
            self.result = out.rows.number if isinstance(out, RaggedArray) else None
            return out.values if isinstance(out, RaggedArray) else _packed(out)

        names = parameter_names(fn)
        listed = [argument_name(names, n) for n in range(self.positional)]
        listed = [n.replace("[", "_").replace("]", "").replace(" ", "_") for n in listed]
        listed += [f"{self._stem(number, names)}_{'_'.join(map(str, key))}" for number, key in tables]
        unique: dict[str, None] = {}
        for name in listed:
            while name in unique:
                name += "_"
            unique[name] = None
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        rest = [inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY) for n in names if n not in unique and not n.startswith("*")]
        run.__signature__ = inspect.Signature([*(inspect.Parameter(n, kind) for n in unique), *rest])  # type: ignore[attr-defined]
        return run

    def _stem(self, number: int, names: tuple[str, ...]) -> str:
        """The first argument with these rows."""
        path = next(p for p, n in self.places if n == number)
        stem = argument_name(names, path[0]) if isinstance(path[0], int) else str(path[0])
        return "".join(c if c.isalnum() else "_" for c in stem)


def _at(path: Path, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    value = args[path[0]] if isinstance(path[0], int) else kwargs[path[0]]
    for key in path[1:]:
        value = value[key]
    return value


def _mapped(value: Any, change: Callable[[Any, Any], Any]) -> Any:
    """A container with its items changed; anything else as it is."""
    if isinstance(value, dict):
        return {k: change(k, v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        parts = [change(n, v) for n, v in enumerate(value)]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value


def _packed(value: Any) -> Any:
    if isinstance(value, RaggedArray):
        return Packed(value.values, value.rows.number)
    if isinstance(value, Array):
        return value
    return _mapped(value, lambda _, v: _packed(v))


def packed_out(result: Any, call: RaggedCall, plan: Plan) -> Any:
    """The result with ragged batches put together again."""
    if plan.result is not None:
        return Ragged(result, call.rows[plan.result])
    return _unpacked(result, call)


def _unpacked(value: Any, call: RaggedCall) -> Any:
    if isinstance(value, Packed):
        return Ragged(value.values, call.rows[value.rows])
    return _mapped(value, lambda _, v: _unpacked(v, call))
