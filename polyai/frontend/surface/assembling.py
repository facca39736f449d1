"""Matrices put together from the stored elements of others: parts of a pattern, blocks, Kronecker products, other shapes.

    tril(A)            C[i, where(k <= i, k, -1)] = A[i, k]            within A(i, k)
    vstack([A, B])     A and B at their places in a larger matrix, and the union of these
    kron(A, B)         C[i * p + k, j * q + l] = A[i, j] * B[k, l]     within A(i, j), B(k, l)
    reshape            C[n // w, n % w] = A[i, k] with n = i * m + k   within A(i, k)

Each is a walk that pushes what it finds to the rows of the result, which fill in order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from polyai.errors import ShapeError, UnsupportedError
from polyai.frontend.core import Array, Tracer, index_term
from polyai.frontend.surface import merging
from polyai.frontend.term import Term, apply, convert, number, reduced
from polyai.scalar import dtype as dt
from polyai.shapes.expr import Size
from polyai.tensor import nodes as tn

Condition = Callable[[Term, Term], Term]


def matrices_only(a: Array, what: str) -> None:
    """Raise UnsupportedError for a sparse array that is no matrix."""
    if a.rank != 2:
        raise UnsupportedError(f"{what} of the sparse {a.tracer.text(a)} with {a.rank} dimensions", "assembled are matrices", "use .toarray()")


def filtered(a: Array, keeps: Condition, alike: Array, stem: str) -> Array:
    """The elements of `a` at the coordinates (row, column) that `keeps` keeps.

    `alike` has the same elements, and zeros elsewhere: sums and products read it instead, and nothing is assembled for them.
    """
    tracer = a.tracer
    matrices_only(a, stem)
    order = merging.order_of(a)
    assert order is not None
    points = tracer.indices(a.extents)
    kept = keeps(index_term(points[0]), index_term(points[1]))
    inner = order[1]
    places = [apply("where", kept, index_term(p), number(-1, dt.i64)) if d == inner else p for d, p in enumerate(points)]
    within = (tracer.within(a, [p.name for p in points]),)
    out = merging.regrouped(a, points, points, places, tracer.read(a, points), within, order, stem)
    tracer.alike[out.name] = alike
    return out


def placed(a: Array, begin: tuple[Size, Size], shape: tuple[Size, Size], order: tuple[int, ...]) -> Array:
    """A matrix of `shape` that holds `a` from the row and column `begin` on, and nothing else."""
    tracer = a.tracer
    if merging.order_of(a) != order:
        a = merging.converted(a, order)
    if begin == (0, 0) and tuple(map(tracer.sizes.resolve, shape)) == a.extents:
        return a
    points, at = tracer.indices(a.extents), tracer.indices(shape)
    places = [index_term(p) + tracer.size_term(b) if b != 0 else p for p, b in zip(points, begin)]
    within = (tracer.within(a, [p.name for p in points]),)
    return merging.regrouped(a, points, at, places, tracer.read(a, points), within, order, "placed")


def union(tracer: Tracer, stem: str, parts: Sequence[Array]) -> Array:
    """The sum of matrices of one shape and order that store nothing at the same place."""
    if len(parts) == 1:
        return parts[0]
    order = merging.order_of(parts[0])
    assert order is not None
    indices = tracer.indices(parts[0].extents)
    names = [i.name for i in indices]
    value: Term | None = None
    for part in parts:
        read = tracer.read(part, indices)
        value = read if value is None else value | read if value.dtype.kind == read.dtype.kind == "b" else value + read
    assert value is not None
    clause = tuple(dict.fromkeys(tracer.within(p, names) for p in parts))
    within = merging.join(tracer, indices, (clause,), order, merging.bits_of(parts))
    return tracer.emit(stem, indices, value, (within,), tn.Pattern(within.tensor, (0, 1)), any(p.is_matrix for p in parts), strong=True)


def blocks(tracer: Tracer, stem: str, rows: Sequence[Sequence[Array | None]]) -> Array:
    """A matrix of blocks, None for one that stores nothing. Heights of a row of blocks agree, as do widths of a column."""
    if not rows or any(len(r) != len(rows[0]) for r in rows):
        raise ShapeError(f"{stem} of rows with different numbers of blocks", "", "give each row the same number; None stores nothing")
    known = [a for r in rows for a in r if a is not None]
    for a in known:
        matrices_only(a, stem) if a.is_sparse else _refuse_dense(a, stem)
    heights = [_common(tracer, stem, [a.extents[0] for a in row if a is not None], known) for row in rows]
    widths = [_common(tracer, stem, [a.extents[1] for a in column if a is not None], known) for column in zip(*rows)]
    tops, lefts = _starts(tracer, heights), _starts(tracer, widths)
    order = (1, 0) if all(merging.order_of(a) == (1, 0) for a in known) else (0, 1)
    shape = (tops[-1], lefts[-1])
    parts = [placed(a, (tops[r], lefts[c]), shape, order) for r, row in enumerate(rows) for c, a in enumerate(row) if a is not None]
    return union(tracer, stem, parts)


def _refuse_dense(a: Array, stem: str) -> None:
    raise UnsupportedError(
        f"{stem} of sparse arrays and the dense {a.tracer.text(a)}", "the result would store all of it", "make it sparse before the call, or the others dense with .toarray()"
    )


def _common(tracer: Tracer, stem: str, sizes: Sequence[Size], arrays: Sequence[Array]) -> Size:
    if not sizes:
        raise ShapeError(f"{stem} with a row or a column of blocks that stores nothing", "its size is unknown", "give one block of it")
    for size in sizes[1:]:
        if not tracer.sizes.unify(size, sizes[0], stem):
            raise ShapeError(f"{stem}: sizes of blocks differ", tracer.shapes_text(arrays), "blocks of a row have one height, those of a column one width")
    return tracer.sizes.resolve(sizes[0])


def _starts(tracer: Tracer, sizes: Sequence[Size]) -> list[Size]:
    out: list[Size] = [0]
    for size in sizes:
        out.append(tracer.sizes.resolve(out[-1] + size))
    return out


def kron(a: Array, b: Array) -> Array:
    """The Kronecker product of two sparse matrices, by rows."""
    tracer = a.tracer
    matrices_only(a, "kron")
    matrices_only(b, "kron")
    a, b = (x if merging.order_of(x) == (0, 1) else merging.converted(x, (0, 1)) for x in (a, b))
    i, k, j, m = tracer.indices((a.extents[0], b.extents[0], a.extents[1], b.extents[1]))
    at = tracer.indices((a.extents[0] * b.extents[0], a.extents[1] * b.extents[1]))
    left, right = tracer.read(a, (i, j)), tracer.read(b, (k, m))
    value = left & right if left.dtype.kind == right.dtype.kind == "b" else left * right
    places = [index_term(x) * tracer.size_term(y.extent) + index_term(y) for x, y in ((i, k), (j, m))]
    within = (tracer.within(a, (i.name, j.name)), tracer.within(b, (k.name, m.name)))
    out = merging.scattered(tracer, "kron", (i, k, j, m), at, value, within, (0, 1), merging.bits_of((a, b)), a.is_matrix or b.is_matrix, None, places)
    tracer.merged.update(dict.fromkeys(w.tensor for w in within))
    return out


def reshaped(a: Array, shape: Sequence[Size]) -> Array:
    """The elements in row-major order as a matrix of another shape of as many elements."""
    tracer = a.tracer
    matrices_only(a, "reshape")
    if len(shape) != 2:
        raise UnsupportedError(f"reshape of the sparse {tracer.text(a)} to {len(shape)} dimensions", "assembled are matrices", "use .toarray()")
    if merging.order_of(a) != (0, 1):
        a = merging.converted(a, (0, 1))
    points, at = tracer.indices(a.extents), tracer.indices(shape)
    place = index_term(points[0]) * tracer.size_term(a.extents[1]) + index_term(points[1])
    width = tracer.size_term(at[1].extent)
    within = (tracer.within(a, [p.name for p in points]),)
    return merging.regrouped(a, points, at, (place // width, place % width), tracer.read(a, points), within, (0, 1), "reshape")


def as_row(vector: Array) -> Array:
    """A sparse vector as a matrix of one row."""
    tracer = vector.tracer
    (k,) = tracer.indices(vector.extents)
    at = tracer.indices((1, *vector.extents))
    within = (tracer.within(vector, (k.name,)),)
    return merging.regrouped(vector, (k,), at, (0, k), tracer.read(vector, (k,)), within, (0, 1), "row")


def first_gap(a: Array) -> Array:
    """The first column that each row of a sparse matrix, stored by rows, does not store; the number of columns for a full row.

    It is 0, or beside one that is stored: the least k + 1 for which A(i, k) is stored and A(i, k + 1) is not.
    """
    tracer = a.tracer
    n, m = a.extents
    shape = (n, tracer.sizes.resolve(m + 1))
    same, after = placed(a, (0, 0), shape, (0, 1)), placed(a, (0, 1), shape, (0, 1))
    own = tracer.indices(shape)
    there = tracer.emit("stored", own, number(True, dt.bool_), (tracer.within(same, [i.name for i in own]),), same.type.pattern)
    i, c = tracer.indices(shape)
    clause = (tracer.within(same, (i.name, c.name)), tracer.within(after, (i.name, c.name)))
    joined = merging.join(tracer, (i, c), (clause,), (0, 1), merging.bits_of((a,)))
    width = convert(tracer.size_term(m), dt.i64)
    free = apply("where", tracer.read(there, (i, c)), width, index_term(c))
    beside = tracer.emit("gap", (i,), reduced("min", (c,), free, (joined,)), strong=True)
    i, k = tracer.indices(a.extents)
    first = apply("eq", index_term(k), 0)
    starts = tracer.emit("starts", (i,), reduced("or", (k,), first, (tracer.within(a, (i.name, k.name)),)), strong=True)
    (i,) = tracer.indices((n,))
    least = apply("min", tracer.read(beside, (i,)), width)
    return tracer.emit("first_gap", (i,), apply("where", tracer.read(starts, (i,)), least, number(0, dt.i64)), strong=True)


def without(a: Array, mask: Array, stem: str) -> Array:
    """The elements of `a` where the sparse `mask` of the same shape stores nothing."""
    tracer = a.tracer
    a, mask = (x if merging.order_of(x) == (0, 1) else merging.converted(x, (0, 1)) for x in (a, mask))
    own = tracer.indices(mask.extents)
    here = tracer.within(mask, [i.name for i in own])
    there = tracer.emit("stored", own, number(True, dt.bool_), (here,), mask.type.pattern)
    points = tracer.indices(a.extents)
    names = [p.name for p in points]
    clause = tuple(dict.fromkeys((tracer.within(a, names), tracer.within(mask, names))))
    within = merging.join(tracer, points, (clause,), (0, 1), merging.bits_of((a, mask)))
    place = apply("where", apply("not", tracer.read(there, points)), index_term(points[1]), number(-1, dt.i64))
    value = convert(tracer.read(a, points), a.type.dtype)
    return merging.scattered(tracer, stem, points, points, value, (within,), (0, 1), merging.bits_of((a, mask)), a.is_matrix, None, (points[0], place))
