"""Indexing of sparse matrices: integers, slices, index arrays; what masks select are index arrays (see `selecting`).

    A[2:5]          C[i, k] = A[r, k]            within S(i, r), A(r, k)   with S = select i + 2
    A[rows]         the same with S = select rows[i]
    A[:, 2:5]       C[i, where(2 <= k < 5, k - 2, -1)] = A[i, k]    within A(i, k)
    A[:, columns]   A by columns, C[i, c] = A[i, k]                 within S(c, k), A(i, k): rows fill in order

The dimension that is stored outside is entered by a selection, so that only what is selected is walked; along the inner one, what
a slice does not hold is left out. The result is stored in the order of the operand. A product with selected rows walks them where
they are: see `contraction`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from polyai.errors import UnsupportedError
from polyai.frontend.core import Array, Selected, Tracer, index_expr, index_term
from polyai.frontend.surface import keys, merging
from polyai.frontend.surface.assembling import as_row
from polyai.frontend.surface.pointwise import broadcast
from polyai.frontend.term import Term, apply, number, reduced
from polyai.scalar import dtype as dt
from polyai.shapes.expr import Size
from polyai.sparse import format as formats
from polyai.tensor import nodes as tn

At = Callable[[tn.Index], Any]


def select(tracer: Tracer, count: Size, extent: Size, at: At) -> Array:
    """The pattern of (i, at(i)) for i < count; what is selected lies in 0 <= r < extent, or the kernel raises."""
    name = tracer.names.fresh("select")
    i, r = tracer.indices((count, extent))
    type = tn.TensorType(dt.bool_, (count, extent), formats.select(), tn.Pattern(name, (0, 1)))
    return tracer.add_step(tn.Select(name, type, (i, r), index_expr(at(i))))


def getitem(a: Array, key: tuple[Any, ...]) -> Any:
    """`a[key]` of a sparse matrix: sparse, but for rows, columns and single elements, which are dense. Of SciPy's `spmatrix` a row is
    a matrix of one row, and a column one of one column."""
    tracer = a.tracer
    if a.rank == 1 and len(key) <= 1:
        return getitem(as_row(a), (0, *key))
    if a.rank != 2:
        raise UnsupportedError(f"indexing of the sparse {tracer.text(a)} with {a.rank} dimensions", "indexed are matrices", "use .toarray(), or index before the call")
    parts = keys.parts_of(a, key)
    if a.is_matrix and any(p.kind == "slice" for p in parts):
        parts = keys.parts_of(a, tuple(map(_of_one, key)))
    if any(p.kind == "new" for p in parts):
        raise UnsupportedError(f"None as an index of the sparse {tracer.text(a)}", "sparse results are matrices", "use .toarray()[..., None]")
    ranks = [p.value.rank if p.kind == "array" else None for p in parts]
    if ranks[0] == 2 and (ranks[1] == 1 or ranks[1] == 2) and _is_grid(parts):
        rows, columns = (dataclasses.replace(p, value=_line(p.value, axis)) for p, axis in zip(parts, (0, -1)))
        return _inner(_outer(a, 0, rows), 1, columns)
    if any(r is not None and r > 1 for r in ranks):
        raise UnsupportedError(f"index arrays of several dimensions for the sparse {tracer.text(a)}", "sparse results are matrices", "index by vectors, or use .toarray()")
    if all(p.kind != "slice" for p in parts):
        return _elements(a, parts)
    out = merging.entered(a)
    order = merging.order_of(out)
    assert order is not None
    scalars = [d for d in range(2) if _is_scalar(parts[d])]
    if scalars:
        line = _line_of(out, parts, scalars[0], order)
        if len(tracer.regions) == 1:
            tracer.lines[line.name] = _row_of(out, parts, scalars[0], order)
        return line
    out = _outer(out, order[0], parts[order[0]])
    return _inner(out, order[1], parts[order[1]])


def _of_one(key: Any) -> Any:
    """The slice that holds one index, for a number, which was found to be in range."""
    if isinstance(key, bool) or not isinstance(key, (int, np.integer)):
        return key
    return slice(int(key), int(key) + 1 or None)


def _is_scalar(part: Any) -> bool:
    return part.kind == "int" or (part.kind == "array" and not part.value.rank)


def _is_grid(parts: Sequence[Any]) -> bool:
    """Rows of shape (n, 1) beside columns of shape (m,) or (1, m)."""
    rows, columns = parts[0].value, parts[1].value
    same = rows.tracer.sizes.resolve
    return bool(same(rows.extents[1]) == 1 and (columns.rank == 1 or same(columns.extents[0]) == 1))


def _line(index: Array, axis: int) -> Array:
    """The index vector along `axis` of an index array with extents 1 else."""
    if index.rank == 1:
        return index
    tracer = index.tracer
    (i,) = tracer.indices((index.extents[axis],))
    at = [i if d == axis % index.rank else 0 for d in range(index.rank)]
    out = tracer.emit("index", (i,), tracer.read(index, at))
    if index.name in tracer.not_negative:
        tracer.not_negative[out.name] = None
    return out


def _whole(part: Any, extent: Size) -> bool:
    return bool(part.kind == "slice" and part.begin == 0 and part.step == 1 and part.extent == extent)


def _place(tracer: Tracer, part: Any, extent: Size) -> At:
    """The index that a part selects, from the result's."""

    def at(i: tn.Index) -> Any:
        if part.kind == "slice":
            scaled = index_term(i) if part.step == 1 else index_term(i) * part.step
            return scaled if part.begin == 0 else scaled + tracer.size_term(part.begin)
        if part.kind == "int":
            return part.value
        return keys.gathered(tracer, part.value, (i,) if part.value.rank else (), extent)

    return at


def _count(part: Any) -> Size:
    return part.extent if part.kind == "slice" else 1 if _is_scalar(part) else part.value.extents[0]


def _outer(a: Array, dimension: int, part: Any) -> Array:
    """The selection along the dimension that is stored outside."""
    tracer = a.tracer
    if _whole(part, a.extents[dimension]):
        return a
    if merging.order_of(a) is None or merging.order_of(a)[0] != dimension:  # type: ignore[index]
        a = merging.converted(a, (dimension, 1 - dimension))
    order = merging.order_of(a)
    assert order is not None
    extent = a.extents[dimension]
    chosen = select(tracer, _count(part), extent, _place(tracer, part, extent))
    i, r, k = tracer.indices((_count(part), extent, a.extents[1 - dimension]))
    source = (r, k) if dimension == 0 else (k, r)
    at = (i, k) if dimension == 0 else (k, i)
    within = (tracer.within(chosen, (i.name, r.name)), tracer.within(a, [x.name for x in source]))
    out = merging.regrouped(a, (i, r, k), at, at, tracer.read(a, source), within, order)
    tracer.selected[out.name] = Selected(a, chosen, dimension)
    return out


def _inner(a: Array, dimension: int, part: Any) -> Array:
    """The selection along the dimension that is listed: a slice leaves out what it does not hold, others go by columns."""
    tracer = a.tracer
    if _whole(part, a.extents[dimension]):
        return a
    order = (1 - dimension, dimension)
    extent, count = a.extents[dimension], _count(part)
    if part.kind == "slice" and part.step > 0:
        points = tracer.indices(a.extents)
        inner = points[dimension]
        (new,) = tracer.indices((count,), start=3)
        place = _left_out(tracer, inner, part, count)
        at = tuple(new if d == dimension else p for d, p in enumerate(points))
        places = tuple(place if d == dimension else p for d, p in enumerate(points))
        here = (tracer.within(a, [p.name for p in points]),)
        return merging.regrouped(a, points, at, places, tracer.read(a, points), here, order)
    turned = merging.converted(a, (dimension, 1 - dimension))
    chosen = select(tracer, count, extent, _place(tracer, part, extent))
    c, k, i = tracer.indices((count, extent, a.extents[1 - dimension]))
    source = (i, k) if dimension == 1 else (k, i)
    at = (i, c) if dimension == 1 else (c, i)
    within = (tracer.within(chosen, (c.name, k.name)), tracer.within(turned, [x.name for x in source]))
    return merging.regrouped(turned, (c, k, i), at, at, tracer.read(turned, source), within, order)


def _left_out(tracer: Tracer, inner: tn.Index, part: Any, count: Size) -> Term:
    """The place of a stored coordinate in a slice with a positive step; -1 outside of it."""
    here = index_term(inner)
    away = here if part.begin == 0 else here - tracer.size_term(part.begin)
    inside = apply("lt", away, tracer.size_term(count) * part.step)
    if part.begin != 0:
        inside = apply("ge", away, 0) & inside
    if part.step != 1:
        inside = inside & apply("eq", apply("mod", away, part.step), 0)
        away = apply("floordiv", away, part.step)
    return apply("where", inside, away, number(-1, dt.i64))


def _elements(a: Array, parts: Sequence[Any]) -> Array:
    """Single elements: for each pair of row and column the sum of what the row stores in this column; dense."""
    tracer = a.tracer
    out = merging.entered(a)
    order = merging.order_of(out)
    assert order is not None
    arrays = [p.value for p in parts if p.kind == "array" and p.value.rank]
    shape = broadcast(tracer, [x.extents for x in arrays], "index arrays", arrays)
    points = tracer.indices(shape)

    def place(d: int) -> Any:
        part = parts[d]
        if part.kind == "int":
            return part.value
        return keys.gathered(tracer, part.value, points[len(points) - part.value.rank :] if part.value.rank else (), out.extents[d])

    o, n = order
    (k, r) = tracer.indices((out.extents[n], out.extents[o]), start=2)
    entered = points[0] if points else tracer.index(1, "u")
    chosen = select(tracer, entered.extent, out.extents[o], lambda i: _renamed_place(tracer, parts[o], i, out.extents[o]))
    source = tuple(r if d == o else k for d in range(2))
    wanted = apply("eq", index_term(k), place(n))
    value = tracer.read(out, source)
    picked = apply("where", wanted, value, number(False if value.dtype.kind == "b" else 0, value.dtype))
    within = (tracer.within(chosen, (entered.name, r.name)), tracer.within(out, [x.name for x in source]))
    over = (r, k) if points else (entered, r, k)
    return tracer.emit("element", points, reduced("or" if value.dtype.kind == "b" else "add", over, picked, within), strong=True)


def _renamed_place(tracer: Tracer, part: Any, i: tn.Index, extent: Size) -> Any:
    if part.kind == "int":
        return part.value
    if part.value.rank and part.value.extents[0] == 1 and i.extent != 1:
        return keys.gathered(tracer, part.value, (0,), extent)
    return keys.gathered(tracer, part.value, (i,) if part.value.rank else (), extent)


def _row_of(a: Array, parts: Sequence[Any], fixed: int, order: tuple[int, ...]) -> Array:
    """A row or a column, or a part of it, as a sparse matrix of one row."""
    tracer = a.tracer
    free = 1 - fixed
    if order[0] == fixed:
        row = _outer(a, fixed, parts[fixed])
        if fixed == 1:
            row = merging.converted(merging.turned(row), (0, 1))
    else:
        points, at = tracer.indices(a.extents), tracer.indices((1, a.extents[free]))
        wanted = apply("eq", index_term(points[fixed]), _place(tracer, parts[fixed], a.extents[fixed])(points[fixed]))
        place = apply("where", wanted, index_term(points[free]), number(-1, dt.i64))
        within = (tracer.within(a, [p.name for p in points]),)
        row = merging.regrouped(a, points, at, (0, place), tracer.read(a, points), within, (0, 1))
    return _inner(row, 1, parts[free])


def _line_of(a: Array, parts: Sequence[Any], fixed: int, order: tuple[int, ...]) -> Array:
    """A row or a column, or a part of it, as a dense vector."""
    tracer = a.tracer
    free = 1 - fixed
    if parts[free].kind == "array" or (parts[free].kind == "slice" and parts[free].step < 0):
        whole = _line_of(a, [parts[d] if d == fixed else keys.sliced(tracer, slice(None), a.extents[d]) for d in range(2)], fixed, order)
        return keys.read_at(whole, parts[free])
    count, extent = _count(parts[free]), a.extents[free]
    zero = number(False if a.type.dtype.kind == "b" else 0, a.type.dtype)
    base = tracer.emit("zeros", tracer.indices((count,)), zero)
    monoid = "or" if a.type.dtype.kind == "b" else "add"
    o = order[0]
    outer = parts[o]
    value_of: Any = None
    if o == fixed:
        chosen = select(tracer, 1, a.extents[o], _place(tracer, outer, a.extents[o]))
        u, r, k = tracer.indices((1, a.extents[o], extent))
        points, listed = (u, r, k), k
        source = tuple(r if d == o else k for d in range(2))
        within = (tracer.within(chosen, (u.name, r.name)), tracer.within(a, [x.name for x in source]))
        if _whole(parts[free], extent):
            return tracer.scatter("row", base, monoid, points, (k,), tracer.read(a, source), within)
        place = _left_out(tracer, listed, parts[free], count)
        inside = apply("ge", place, 0)
        if not tracer.sizes.compare(count, ">=", 1, "a slice"):
            return base
        value_of = apply("where", inside, tracer.read(a, source), zero)
        return tracer.scatter("row", base, monoid, points, (apply("max", place, 0),), value_of, within)
    chosen = select(tracer, count, a.extents[o], _place(tracer, outer, a.extents[o]))
    i, r, k = tracer.indices((count, a.extents[o], a.extents[fixed]))
    source = tuple(r if d == o else k for d in range(2))
    within = (tracer.within(chosen, (i.name, r.name)), tracer.within(a, [x.name for x in source]))
    wanted = apply("eq", index_term(k), _place(tracer, parts[fixed], a.extents[fixed])(k))
    picked = apply("where", wanted, tracer.read(a, source), zero)
    return tracer.emit("column", (i,), reduced(monoid, (r, k), picked, within), strong=True)
