"""The arrays that SciPy's formats are made of, as dense vectors: read, and put back.

    A.data, A.indices, A.indptr, A.row     lists along the pattern of A, in the order of storage
    B = A.copy(); B.data = f(A.data)       B[i, j] = f(A[i, j]) within A(i, j)
    B.data /= d[B.indices]                 B[i, j] = B[i, j] / d[j] within B(i, j)

A vector that is computed element by element of such lists, of numbers, and of what is gathered by them, lies along the pattern: what it
is there is noted (`Tracer.along`), to be computed if it is put back. Others cannot be put back. Nothing is changed in place: the array at hand
becomes another one, and arguments stay as they are.
"""

from __future__ import annotations

from typing import Any, NoReturn, cast

from polyai.errors import ShapeError, TraceError, UnsupportedError
from polyai.frontend.core import Array, index_term
from polyai.frontend.surface import assembling, joining, linalg, merging, reductions, selecting, shaping
from polyai.frontend.surface import elementwise as ew
from polyai.frontend.surface.listing import listing
from polyai.frontend.surface.pointwise import along, pointwise_stored
from polyai.frontend.term import apply, convert, number
from polyai.scalar import dtype as dt
from polyai.tensor import nodes as tn

NAMES = ("data", "indices", "indptr", "row", "col", "coords")


def member(a: Array, name: str) -> Any:
    """A.data, A.indices, ... of a sparse array; None if its format has no such array, or is none of those that list every element."""
    pattern = a.type.pattern
    form = None if pattern is None else a.tracer.types[pattern.owner].format
    if pattern is None or form is None or form.padded or form.blocked or form.name not in ("csr", "csc", "coo"):
        return None
    order = tuple(pattern.dims.index(d) for d in form.order)
    if name == "data":
        vector = listing(pointwise_stored("data", lambda e: e, a))  # of an array of this program: arguments are not handed on
        a.tracer.along[vector.name] = a
        a.tracer.texts[vector.name] = f"{a.tracer.text(a)}.data"
        return vector
    if form.name == "coo":
        found = selecting.coordinates(a)[:-1]
        return {"coords": found}.get(name) or (dict(zip(("row", "col"), found)).get(name) if a.rank == 2 else None)
    if name == "indices":
        return selecting.coordinates(a)[order[1]]
    if name != "indptr":
        return None
    ones = pointwise_stored("pattern", lambda e: number(1, dt.i64), a)
    counts = reductions.sum(a.tracer.array_type(a.tracer, a.region, ones.name, ones.type), order[1])
    ends = reductions.cumulative_sum(counts, 0)
    start = a.tracer.emit("start", a.tracer.indices((1,)), number(0, dt.i64))
    return ew.astype(joining.concat([start, ends]), dt.to_numpy(dt.BY_NAME[f"i{form.index_bits}"]))


def put(a: Array, value: Any) -> None:
    """Let `a`, which is no argument, have these stored elements.

    Raises UnsupportedError for an argument and for values of which it is not known where they belong."""
    tracer, pattern = a.tracer, a.type.pattern
    text = tracer.text(a)
    _may_change(a, "the data")
    whole = tracer.array(value) if isinstance(value, Array) else None
    if whole is not None and whole.rank == 0:
        whole = pointwise_stored("data", lambda e, v: v, a, whole)
    elif whole is not None:
        whole = along(whole) if whole.name in tracer.along else None
        if whole is None or whole.type.pattern != pattern:
            raise UnsupportedError(
                f"the data of {text} are assigned from a vector that does not lie along its pattern",
                "known are vectors that are computed element by element of its own lists (B.data, B.indices), of numbers, and of what these gather",
                "write it so, or with functions of the matrix: B * x[:, None], sddmm(U, V, B), map_stored",
            )
    elif isinstance(value, (bool, int, float, complex)):
        whole = pointwise_stored("data", lambda e: convert(value, a.type.dtype), a)
    else:
        raise UnsupportedError(f"the data of {text} are assigned from {type(value).__name__}", "", "use arrays of the compiled function, or a number")
    _become(a, whole)


def _may_change(a: Array, what: str) -> None:
    tracer, text = a.tracer, a.tracer.text(a)
    if not a.is_sparse or len(tracer.regions) > 1:
        raise UnsupportedError(f"{what} of {text} are assigned", "sparse arrays have them assigned, outside of loops and branches", "build another array")
    if id(a) not in tracer.copies and any(i.name == a.name for i in tracer.inputs):
        raise UnsupportedError(f"{what} of {text} are assigned", "it is an argument, which is not changed", f"work on a copy: B = {text}.copy()")


def _become(a: Array, other: Array) -> None:
    a.name, a.type, a.region, a.weak = other.name, other.type, other.region, False


def set_diagonal(a: Array, values: Any, k: int = 0) -> None:
    """Let `a`, which is no argument, have `values` (a number, or a vector as long as it) on its k-th diagonal, all of it stored."""
    _may_change(a, "diagonals")
    tracer = a.tracer
    line = linalg.diagonal(a, k)
    given = tracer.array(values)
    if given.rank > 1 or (given.rank and not tracer.sizes.unify(given.extents[0], line.extents[0], "setdiag")):
        raise ShapeError(f"setdiag of {tracer.shape_text(given)}", f"the diagonal has {tracer.shape_text(line)}", "give one number, or one for each element of it")
    rows, columns = a.extents
    (i,) = tracer.indices((rows,))
    column = index_term(i) + k
    inside = (column >= 0) & (column < tracer.size_term(columns))
    value = tracer.read(given, ()) if not given.rank else apply("where", inside, tracer.read(given, (index_term(i) + min(k, 0),)), number(0, given.type.dtype))
    place = apply("where", inside, column, number(-1, dt.i64))
    bits = merging.bits_of((a,))
    made = merging.scattered(tracer, "setdiag", (i,), tracer.indices(a.extents), convert(value, a.type.dtype), (), (0, 1), bits, a.is_matrix, None, (i, place))
    _become(a, ew.add(ew.add(shaping.tril(a, k - 1), shaping.triu(a, k + 1)), made))


def drop_zeros(a: Array) -> None:
    """Let `a`, which is no argument, store only what is not zero."""
    _may_change(a, "the stored elements")
    rows = merging.entered(a)
    tracer = rows.tracer
    _become(a, assembling.filtered(rows, lambda i, j: apply("ne", tracer.read(rows, (i, j)), number(0, rows.type.dtype)), rows, "eliminate_zeros"))


def put_in_order(a: Array) -> None:
    """Let `a`, which is no argument, store each coordinate once, those of a row in order: what repeats adds up."""
    _may_change(a, "the stored elements")
    rows, tracer = merging.entered(a), a.tracer
    pattern, order = rows.type.pattern, merging.order_of(rows)
    assert pattern is not None and order is not None
    if any(i.name == pattern.owner for i in tracer.inputs):  # a merge of one part; what is computed is in order
        indices = tracer.indices(rows.extents)
        clause = (tracer.within(rows, [i.name for i in indices]),)
        within = merging.join(tracer, indices, (clause,), order, merging.bits_of((rows,)))
        rows = tracer.emit("in_order", indices, tracer.read(rows, indices), (within,), tn.Pattern(within.tensor, (0, 1)), rows.is_matrix, strong=True)
    _become(a, rows)


def assigned(vector: Array, owner: Array, key: Any, value: Any) -> None:
    """vector[key] = value, where the vector is the data of `owner`: all of it, or where a mask along the pattern is true."""
    if isinstance(key, Array) and key.type.dtype.kind == "b" and key.rank == 1:
        new = ew.where(key, ew.astype(value, vector.type.dtype) if isinstance(value, Array) else value, vector)
    elif key is Ellipsis or (isinstance(key, slice) and key == slice(None)):
        new = value
    else:
        refused(vector, owner)
    put(owner, ew.astype(new, dt.to_numpy(vector.type.dtype)) if isinstance(new, Array) else new)
    fresh = cast(Array, member(owner, "data"))
    vector.name, vector.type, vector.region = fresh.name, fresh.type, fresh.region


def refused(vector: Array, owner: Array) -> NoReturn:
    raise TraceError(
        f"some of the data of {owner.tracer.text(owner)} are assigned while tracing",
        "which of the stored elements these are is known only when the kernel runs",
        "assign all of them, or those of a mask: B.data[B.data < 0] = 0",
    )
