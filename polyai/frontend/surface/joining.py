"""Arrays put together, taken apart, and surrounded: concat, stack, split, pad. Reads outside an operand are guarded by `where`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from polyai.errors import ShapeError, UnsupportedError
from polyai.frontend.core import Array, Tracer, dense, find_tracer, index_term, normalized_axis, to_size
from polyai.frontend.size_value import SizeValue
from polyai.frontend.surface.assembling import blocks
from polyai.frontend.surface.elementwise import astype
from polyai.frontend.surface.pointwise import broadcast_sizes
from polyai.frontend.surface.shaping import given, reshape
from polyai.frontend.term import Term, apply, convert, number
from polyai.shapes import expr as sx
from polyai.shapes.expr import Size

SPARSE = ("concat", "hstack", "vstack")


def _operands(arrays: Any, what: str) -> tuple[Tracer, list[Array]]:
    tracer = find_tracer((tuple(arrays),), what)
    out = [dense(tracer.array(a), what) if what not in SPARSE else tracer.array(a) for a in arrays]
    if not out:
        raise ShapeError(f"{what} of no arrays")
    return tracer, out


def concat(arrays: Any, axis: Any = 0) -> Any:
    """Arrays joined along an existing dimension; all other sizes agree. axis=None joins them flattened."""
    tracer, parts = _operands(arrays, "concat")
    if axis is None:
        parts, axis = [reshape(a, -1) for a in parts], 0
    if any(a.is_sparse for a in parts):
        along = normalized_axis(axis, 2, "concat")
        return blocks(tracer, "concat", [parts] if along else [[a] for a in parts])
    rank = parts[0].rank
    if any(a.rank != rank for a in parts) or not rank:
        raise ShapeError("concat of arrays of different rank, or of scalars", tracer.shapes_text(parts), "use stack for scalars")
    along = normalized_axis(axis, rank, "concat")
    extents: list[Size] = []
    for d in range(rank):
        if d == along:
            total: Size = 0
            for a in parts:
                total = total + a.extents[d]
            extents.append(total)
        else:
            for a in parts[1:]:
                if not tracer.sizes.unify(a.extents[d], parts[0].extents[d], "concat"):
                    raise ShapeError(f"concat along axis {along}: sizes of axis {d} differ", tracer.shapes_text(parts), "all other sizes must agree")
            extents.append(tracer.sizes.resolve(parts[0].extents[d]))
    indices = tracer.indices([tracer.sizes.resolve(e) for e in extents])
    here = index_term(indices[along])
    starts: list[Size] = [0]
    for a in parts:
        starts.append(starts[-1] + a.extents[along])
    value: Term | None = None
    for a, start, end in reversed(list(zip(parts, starts, starts[1:]))):
        at = [here - tracer.size_term(start) if d == along and start != 0 else i for d, i in enumerate(indices)]
        part = tracer.read(a, at)
        value = part if value is None else apply("where", here < tracer.size_term(end), part, value)
    assert value is not None
    return tracer.emit("concat", indices, value, strong=True)


def stack(arrays: Any, axis: Any = 0) -> Any:
    """Arrays of one shape joined along a new dimension."""
    tracer, parts = _operands(arrays, "stack")
    rank = parts[0].rank
    if any(a.rank != rank for a in parts):
        raise ShapeError("stack of arrays of different rank", tracer.shapes_text(parts), "all shapes must agree")
    along = normalized_axis(axis, rank + 1, "stack")
    for a in parts[1:]:
        for d in range(rank):
            if not tracer.sizes.unify(a.extents[d], parts[0].extents[d], "stack"):
                raise ShapeError(f"stack: sizes of axis {d} differ", tracer.shapes_text(parts), "all shapes must agree")
    extents = list(parts[0].extents)
    extents.insert(along, len(parts))
    indices = tracer.indices(extents)
    here, at = index_term(indices[along]), [i for d, i in enumerate(indices) if d != along]
    value = tracer.read(parts[-1], at)
    for n in range(len(parts) - 2, -1, -1):
        value = apply("where", apply("eq", here, n), tracer.read(parts[n], at), value)
    return tracer.emit("stack", indices, value, strong=True)


def hstack(arrays: Any, format: str | None = None, dtype: Any = None) -> Any:
    """Arrays joined along axis 1, vectors along axis 0. `format` ("csr" or "csc") and `dtype`: those of the result, if given."""
    _, parts = _operands(arrays, "hstack")
    parts = [reshape(a, 1) if not a.rank else a for a in parts]
    return _as_asked(concat(parts, 0 if parts[0].rank == 1 else 1), format, dtype)


def vstack(arrays: Any, format: str | None = None, dtype: Any = None) -> Any:
    """Arrays joined along axis 0; vectors become rows. `format` ("csr" or "csc") and `dtype`: those of the result, if given."""
    tracer, parts = _operands(arrays, "vstack")
    rows = [reshape(a, (1, tracer.sizes.value(a.extents[0]) if a.rank else 1)) if a.rank < 2 else a for a in parts]
    return _as_asked(concat(rows, 0), format, dtype)


def block_array(rows: Any, format: str | None = None, dtype: Any = None) -> Any:
    """A sparse matrix from rows of blocks, sparse matrices of matching heights and widths; None stores nothing. `format` ("csr" or
    "csc") and `dtype`: those of the result, if given.

    Raises ShapeError where sizes do not match, UnsupportedError for dense blocks.
    """
    tracer = find_tracer(tuple(a for row in rows for a in row if a is not None), "block_array")
    out = blocks(tracer, "block_array", [[None if a is None else tracer.array(a) for a in row] for row in rows])
    return _as_asked(out, format, dtype)


def block_diag(arrays: Any, format: str | None = None, dtype: Any = None) -> Any:
    """Sparse matrices one below and beside the other, and nothing else. `format` ("csr" or "csc") and `dtype`: as for `block_array`."""
    given = list(arrays)
    return block_array([[a if r == c else None for c in range(len(given))] for r, a in enumerate(given)], format, dtype)


def _as_asked(array: Any, format: str | None, dtype: Any) -> Any:
    out = array if dtype is None else astype(array, dtype)
    return out if format is None else out.asformat(format)


def section(a: Array, axis: int, begin: Size, length: Size) -> Array:
    """`length` elements along `axis` from `begin` on; the range must be inside."""
    tracer = a.tracer
    indices = tracer.indices([length if d == axis else e for d, e in enumerate(a.extents)])
    at = [index_term(i) + tracer.size_term(begin) if d == axis and begin != 0 else i for d, i in enumerate(indices)]
    return tracer.emit("section", indices, tracer.read(a, at))


def split(x: Any, indices_or_sections: Any, axis: int = 0) -> list[Any]:
    """Equal sections, or sections that end at the given places. Raises ShapeError if sections are not equal."""
    a = given(x, "split")
    tracer, d = a.tracer, normalized_axis(axis, a.rank, "split")
    n = a.extents[d]
    if isinstance(indices_or_sections, (int, SizeValue)):
        count = int(indices_or_sections)
        tracer.sizes.require(sx.mod(n, count), "==", 0, f"split of {tracer.shape_text(a)} into {count} sections", "use a list of places")
        each = sx.floordiv(tracer.sizes.resolve(n), count)
        return [section(a, d, each * k, each) for k in range(count)]
    ends = [to_size(p, tracer) for p in indices_or_sections]
    places: list[Size] = [0]
    for end in [*ends, n]:
        reached = end if tracer.sizes.compare(end, "<=", n, "split") else n
        places.append(reached if tracer.sizes.compare(reached, ">=", places[-1], "split") else places[-1])
    return [section(a, d, begin, tracer.sizes.resolve(end) - begin) for begin, end in pairwise(places)]


def unstack(x: Any, axis: int = 0) -> tuple[Any, ...]:
    """The slices along `axis`, whose size is fixed by a guard."""
    a = given(x, "unstack")
    tracer, d = a.tracer, normalized_axis(axis, a.rank, "unstack")
    out = []
    for n in range(tracer.sizes.number(a.extents[d], "unstack")):
        indices = tracer.indices([e for k, e in enumerate(a.extents) if k != d])
        at: list[Any] = list(indices)
        at.insert(d, n)
        out.append(tracer.emit("slice", indices, tracer.read(a, at)))
    return tuple(out)


def _widths(pad_width: Any, rank: int) -> list[tuple[Any, Any]]:
    if isinstance(pad_width, (int, SizeValue)):
        return [(pad_width, pad_width)] * rank
    given = list(pad_width)
    if given and all(isinstance(p, (int, SizeValue)) for p in given):
        if len(given) == 1:
            return [(given[0], given[0])] * rank
        if len(given) == 2:
            return [(given[0], given[1])] * rank
    pairs = [(p, p) if isinstance(p, (int, SizeValue)) else (p[0], p[-1]) for p in given]
    if len(pairs) == 1:
        pairs = pairs * rank
    if len(pairs) != rank:
        raise ShapeError(f"pad: {len(pairs)} widths for {rank} dimensions", f"pad_width={pad_width}", "give one pair (before, after) per dimension")
    return pairs


def pad(x: Any, pad_width: Any, mode: str = "constant", constant_values: Any = 0) -> Any:
    """`x` with elements before and after it in each dimension; modes constant, edge, reflect, wrap."""
    a = given(x, "pad")
    tracer = a.tracer
    widths = [(to_size(p, tracer), to_size(q, tracer)) for p, q in _widths(pad_width, a.rank)]
    return padded(a, widths, mode, constant_values)


def padded(a: Array, widths: Sequence[tuple[Size, Size]], mode: str = "constant", value: Any = 0) -> Array:
    """One step that reads `a` inside and makes up the rest."""
    tracer = a.tracer
    if all(w == (0, 0) for w in widths):
        return a
    indices = tracer.indices([p + e + q for e, (p, q) in zip(a.extents, widths)])
    at: list[Any] = []
    inside: Term | None = None
    for i, e, (before, after) in zip(indices, a.extents, widths):
        if (before, after) == (0, 0):
            at.append(i)
            continue
        if mode != "constant":
            tracer.sizes.require(e, ">=", 1, f"pad with mode {mode} of an empty dimension")
        place = index_term(i) - tracer.size_term(before) if before != 0 else index_term(i)
        size = tracer.size_term(e)
        if mode == "constant":
            for condition in ([place >= 0] if before != 0 else []) + ([place < size] if after != 0 else []):
                inside = condition if inside is None else inside & condition
            at.append(place)
        elif mode == "edge":
            at.append(apply("min", apply("max", place, 0), size - 1))
        elif mode == "wrap":
            at.append(apply("mod", place, size))
        elif mode == "reflect":
            period = apply("max", size * 2 - 2, 1)
            folded = apply("mod", place, period)
            at.append(apply("min", folded, period - folded) if not isinstance(e, int) or e > 1 else 0)
        else:
            raise UnsupportedError(f"pad with mode {mode!r}", "known modes are constant, edge, reflect and wrap", "use one of these")
    read = tracer.read(a, at)
    if inside is None:
        return tracer.emit("pad", indices, read)
    filler = value if isinstance(value, Term) else tracer.read(value, ()) if isinstance(value, Array) else tracer.scalar(value)
    filler = convert(filler, a.type.dtype) if a.type.dtype.kind != "b" else number(bool(value), a.type.dtype)
    return tracer.emit("pad", indices, apply("where", inside, read, filler))


def meshgrid(*xs: Any, indexing: str = "xy") -> list[Any]:
    """Coordinate arrays of a grid from vectors; indexing "xy" exchanges the first two dimensions."""
    tracer, parts = _operands(xs, "meshgrid")
    order = list(range(len(parts)))
    if indexing == "xy" and len(parts) > 1:
        order[0], order[1] = 1, 0
    sizes = [broadcast_sizes(tracer, (a.extents[0],), "meshgrid") for a in parts]
    out = []
    for n, a in enumerate(parts):
        indices = tracer.indices([sizes[order[d]] for d in range(len(parts))])
        out.append(tracer.emit("meshgrid", indices, tracer.read(a, (indices[order.index(n)],))))
    return out


def diff(x: Any, n: int = 1, axis: int = -1) -> Any:
    """Differences of neighbours along `axis`, taken n times."""
    a = given(x, "diff")
    tracer, d = a.tracer, normalized_axis(axis, a.rank, "diff")
    for _ in range(n):
        size = a.extents[d] - 1 if tracer.sizes.compare(a.extents[d], ">=", 1, "diff") else 0
        indices = tracer.indices([size if k == d else e for k, e in enumerate(a.extents)])
        after = [index_term(i) + 1 if k == d else i for k, i in enumerate(indices)]
        here, there = tracer.read(a, indices), tracer.read(a, after)
        a = tracer.emit("diff", indices, there ^ here if a.type.dtype.kind == "b" else there - here)
    return a
