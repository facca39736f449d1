"""A prepared matrix inside a trace: a sparse array in CSR that has a way of its own to multiply a vector.

Each layout of `sparse.layouts` is written in index notation, and the compiler does with it what it does with any program:

    slices       z[s, c] = sum(q in runs[s]: run_values[q, c] * x[starts[q] + c])
                         + sum(q in pieces[s]: values[q, c] * x[columns[q, c]])
                         + sum(q in more[s]: where(q < ends[s, c], more_values[q, c] * x[more_columns[q, c]], 0))
                 y[i] = z[places[i]]                                 of these sums, those that the layout has
    narrow rows  y[i] = sum(q in pieces[i]: values[q] * x[columns[q]])
    diagonals    y[i] = sum over d, unrolled: where(has_d, where(0 <= i + offset_d < m, v_d * x[i + offset_d], 0), 0)
                 with v_d = values[v, i] or constants[k], has_d = present[i] & (1 << g) != 0 where it has gaps

Where all entries are equal a layout holds one `value` instead of `values`.
"""

from __future__ import annotations

import inspect
import operator
import re
from collections.abc import Callable, Mapping
from functools import reduce
from typing import TYPE_CHECKING, Any

from polyai.errors import ShapeError, TraceError
from polyai.frontend.arguments import argument_name, parameter_names
from polyai.frontend.core import Array
from polyai.frontend.held import HELD, parts_of, rebuilt
from polyai.frontend.lazy import LazyArray
from polyai.frontend.surface.elementwise import add, where
from polyai.frontend.surface.linalg import matmul
from polyai.frontend.surface.notation import IndexVar, access, comprehension, index, indices, reduction
from polyai.frontend.term import Term, convert, number
from polyai.scalar import dtype as dt
from polyai.term.late import late

if TYPE_CHECKING:
    from polyai.sparse import layouts
else:
    layouts = late("polyai.sparse.layouts")


class PreparedArray(LazyArray):
    """`kind`, `numbers` and `parts` are those of a Layout; `parts` holds traced arrays."""

    __slots__ = ("kind", "numbers", "parts")

    def __init__(self, csr: Array, kind: str, numbers: tuple[int, ...], parts: Mapping[str, Array]) -> None:
        super().__init__(csr.tracer, csr.region, csr.name, csr.type, csr.weak, csr.is_matrix)
        self.kind, self.numbers, self.parts = kind, numbers, dict(parts)

    def times(self, other: Array) -> Array | None:
        """The product with a vector by the layout; None for other operands, which go through the rows."""
        if other.rank != 1 or other.is_sparse or self.kind in ("rows", "near rows") or other.type.dtype.kind not in "f" or self.type.dtype.kind != "f":
            return None
        if not self.tracer.sizes.unify(self.extents[1], other.extents[0], "matmul"):
            raise ShapeError(
                f"matmul: {self.tracer.text(other)} has {self.tracer.sizes.described(other.extents[0])} elements,"
                f" {self.tracer.sizes.described(self.extents[1])} are needed",
                self.tracer.shapes_text((self, other)),
                "the summed dimensions must have the same size",
            )
        match self.kind:
            case "slices":
                return self._by_slices(other)
            case "narrow rows":
                return self._by_rows(other)
            case _:
                return self._by_diagonals(other)

    def _by_rows(self, x: Array) -> Array:
        tracer, parts = self.tracer, self.parts
        tracer.sizes.unify(parts["pieces"].extents[0], self.extents[0], "rows")
        if "values" in parts:
            tracer.sizes.unify(parts["columns"].extents[0], parts["values"].extents[0], "entries")
        tracer.trust(parts["columns"], self.extents[1])
        i, q = indices("i q")
        term = self._element("values", (q,)) * access(x, (access(parts["columns"], (q,)),))
        return _array(comprehension((i,), reduction("add", q, term, within=access(parts["pieces"], (i, q))), name="product"))

    def _element(self, name: str, places: tuple[Any, ...]) -> Term:
        """The element of a layout's values at `places`; where all are equal, a layout holds one, "value", in their place."""
        if name in self.parts:
            return _term(access(self.parts[name], places))
        value = self.parts["value"]
        self.tracer.sizes.unify(value.extents[0], 1, "value")
        return _term(access(value, (0,)))

    def _by_slices(self, x: Array) -> Array:
        tracer, parts = self.tracer, self.parts
        s, c = indices("s c")
        sums = [self._runs(x, s, c)] if "runs" in parts else []
        sums += [self._lanes(x, s, c, prefix, parts.get(ends)) for prefix, ends in (("", ""), ("more_", "ends")) if f"{prefix}columns" in parts]
        z = comprehension((s, c), reduce(operator.add, sums), name="slices")
        places = parts.get("places")
        lanes, room = self.numbers[0], z.extents[0] * self.numbers[0]
        i = index("i", tracer.sizes.value(self.extents[0]))
        if places is None:
            tracer.sizes.assume(self.extents[0], "<=", room)
            return _array(comprehension((i,), access(z, (i // lanes, i % lanes)), name="product"))
        tracer.sizes.unify(places.extents[0], self.extents[0], "rows")
        tracer.trust(places, room)
        place = convert(access(places, (i,)), dt.i64)
        return _array(comprehension((i,), access(z, (place // lanes, place % lanes)), name="product"))

    def _runs(self, x: Array, s: IndexVar, c: IndexVar) -> Term:
        """The sum of lane c of slice s over runs of columns."""
        tracer, parts, lanes = self.tracer, self.parts, self.numbers[0]
        if "run_values" in parts:
            tracer.sizes.unify(parts["run_values"].extents[1], lanes, "rows of a slice")
            tracer.sizes.unify(parts["starts"].extents[0], parts["run_values"].extents[0], "runs")
        tracer.trust(parts["starts"], self.extents[1] - lanes + 1)
        (q,) = indices("q")
        start = convert(access(parts["starts"], (q,)), dt.i64)
        return reduction("add", q, self._element("run_values", (q, c)) * access(x, (start + c,)), within=access(parts["runs"], (s, q)))

    def _lanes(self, x: Array, s: IndexVar, c: IndexVar, prefix: str, ends: Array | None) -> Term:
        """The sum of lane c of slice s over the arrays whose names begin with `prefix`."""
        tracer, parts = self.tracer, self.parts
        columns = parts[f"{prefix}columns"]
        tracer.sizes.unify(columns.extents[1], self.numbers[0], "rows of a slice")
        tracer.trust(columns, self.extents[1])
        (q,) = indices("q")
        term = self._element(f"{prefix}values", (q, c)) * access(x, (access(columns, (q, c)),))
        if ends is not None:
            kind = dt.promote(self.type.dtype, x.type.dtype)
            term = where(q < access(ends, (s, c)), term, convert(number(0, kind), kind))
        return reduction("add", q, term, within=access(parts["more" if prefix else "pieces"], (s, q)))

    def _by_diagonals(self, x: Array) -> Array:
        """Every element of x inside the matrix is read, and what a gap would add is selected away: reads need no masks."""
        tracer, parts, n = self.tracer, self.parts, self.extents[0]
        kinds = list(zip(self.numbers[::2], self.numbers[1::2]))
        for name, counted in (("values", sum(not kind & layouts.REPEATS for _, kind in kinds)), ("constants", sum(kind & layouts.REPEATS for _, kind in kinds))):
            if name in parts:
                tracer.sizes.unify(parts[name].extents[0], counted, f"diagonals' {name}")
        for name, dim in (("values", 1), ("present", 0)):
            if name in parts:
                tracer.sizes.unify(parts[name].extents[dim], n, "rows")
        i = index("i", tracer.sizes.value(n))
        m = tracer.sizes.value(self.extents[1])
        kind = dt.promote(self.type.dtype, x.type.dtype)
        zero = convert(number(0, kind), kind)
        word = dt.u32 if kind.bits == 32 and "present" in parts and parts["present"].type.dtype.bits <= 32 else dt.u64
        values = constants = gaps = 0
        terms = []
        for offset, has in kinds:
            at = i + offset
            if has & layouts.REPEATS:
                value, constants = _term(access(parts["constants"], (constants,))), constants + 1
            else:
                value, values = _term(access(parts["values"], (values, i))), values + 1
            term = where((at < m) if offset >= 0 else (at >= 0) & (at < m), value * access(x, (at,)), zero)
            if has & layouts.GAPS:
                bit = convert(access(parts["present"], (i,)), word) & convert(number(1 << gaps, word), word)
                term, gaps = where(bit != 0, term, zero), gaps + 1
            terms.append(term)
        out = comprehension((i,), reduce(operator.add, [reduce(operator.add, terms[k::CHAINS]) for k in range(min(CHAINS, len(terms)))]), name="diagonals")
        rest = parts.get("rest")
        return _array(out if rest is None else add(out, matmul(rest, x)))


CHAINS = 4
"""Sums of diagonals at once: an addition waits for the one before it."""


def _term(value: Any) -> Term:
    assert isinstance(value, Term)
    return value


def _array(value: Any) -> Array:
    assert isinstance(value, Array)
    return value


Code = tuple[str, Any, tuple[str, ...]]
"""Kind, numbers and names of the arrays of a layout; of a constant value its structure instead of numbers, see `held`."""


def expanded(fn: Callable[..., Any], codes: tuple[Code | None, ...]) -> Callable[..., Any]:
    """`fn` over the arrays of its prepared and constant arguments: f(A, x) becomes f(A, A_values, ..., x), with A a
    PreparedArray inside."""

    def call(*flat: Any, **kwargs: Any) -> Any:
        given, args = iter(flat), []
        for code in codes:
            if code is not None and code[0] == HELD:
                args.append(rebuilt(code, given))
                continue
            first = next(given)
            args.append(first if code is None else PreparedArray(first, code[0], code[1], {name: next(given) for name in code[2]}))
        return fn(*args, **kwargs)

    names = parameter_names(fn)
    listed: list[str] = []
    for n, code in enumerate(codes):
        name = _identifier(argument_name(names, n))
        if code is not None and code[0] == HELD:
            listed += [_identifier(name + part) for part in parts_of(code)]
            continue
        listed += [name, *(f"{name}_{part}" for part in (code[2] if code is not None else ()))]
    unique: dict[str, None] = {}
    for name in listed:
        while name in unique:
            name += "_"
        unique[name] = None
    parameters = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in unique]
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return call


def _identifier(text: str) -> str:
    """A parameter's name from what an argument is called."""
    return re.sub(r"\W", "_", text.replace("]", ""))


def static_names(fn: Callable[..., Any], static: frozenset[str | int]) -> tuple[str, ...]:
    """Static parameters by name, since positions move when arguments are expanded."""
    names = parameter_names(fn)
    return tuple(argument_name(names, s) if isinstance(s, int) else s for s in static)


def by_position(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The same call with as much as possible by position. Raises TraceError for an argument that can only be named."""
    try:
        bound = inspect.signature(fn).bind(*args, **kwargs)
    except (TypeError, ValueError) as error:
        raise TraceError("a prepared matrix is passed by name", str(error), "pass it by position") from None
    if bound.kwargs:
        raise TraceError(f"a prepared matrix is passed beside keyword arguments {', '.join(bound.kwargs)}", "", "pass it by position")
    return bound.args, dict(bound.kwargs)
