"""Patterns that a program makes: joins of the patterns of several sparse arrays, and sparse results that are scattered into.

    A + B           J = join A | B;       C[i, j within J] = A[i, j] + B[i, j]
    A * B           J = join A & B
    A @ B           C[i, j] += A[i, k] * B[k, j] within A(i, k), B(k, j): stored where some k has both

A merge wants its parts in one order of dimensions, with compressed rows (or columns): others are converted first, by a grouped
scatter into a pattern of their own. What is grouped comes out in the order of the walk, so that a matrix by columns, grouped
by rows, has sorted rows; a list in any order is grouped by columns first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from polyai.errors import UnsupportedError
from polyai.frontend.core import Array, Tracer, find_tracer, index_expr, index_term
from polyai.frontend.term import Term
from polyai.scalar import dtype as dt
from polyai.shapes.expr import Size, floordiv, mod
from polyai.sparse.format import Format, coo, csc, csr, rows
from polyai.sparse.levels.compressed import Compressed
from polyai.sparse.levels.dense import Dense
from polyai.tensor import nodes as tn
from polyai.tensor.bodies import least_clauses
from polyai.tensor.support import Both, Either, Everywhere, Nowhere, Stored, Support


class RowsWanted(Exception):
    """The argument called `text` must be converted to CSR, or to slices of its dimensions in this `order`: no kernel merges or reorders its
    format. The trace begins anew."""

    def __init__(self, text: str, order: tuple[int, ...] = ()) -> None:
        super().__init__(text)
        self.text, self.order = text, order


Clauses = tuple[tuple[tn.Within, ...], ...]


def order_of(array: Array) -> tuple[int, ...] | None:
    """The dimensions of a sparse array in the order of its levels, if these are compressed fibres below dense dimensions."""
    pattern = array.type.pattern
    assert pattern is not None
    form = array.tracer.types[pattern.owner].format
    if form is not None and form.name == "select":
        return tuple(range(array.rank))
    if form is None or form.merged != min(1, form.rank - 1):  # a matrix by rows or columns, a vector, slices that are lists
        return None
    return tuple(pattern.dims.index(d) for d in form.order)


def bits_of(arrays: Sequence[Array]) -> int:
    """The width of indices that what is assembled of sparse arrays has: the widest of theirs, 32 at least, as positions count what
    is stored and narrow indices were chosen for their owner's count."""
    owners = [a.tracer.types[a.type.pattern.owner].format for a in arrays if a.type.pattern is not None]
    return max((f.index_bits for f in owners if f is not None and f.index_bits > 32), default=32)


def format_for(order: tuple[int, ...], bits: int) -> Format:
    """The format of an assembled pattern with this order of dimensions."""
    if len(order) == 1:
        return coo(1, bits)
    if len(order) != 2:
        return rows(len(order), bits, order)
    return csr(bits) if order == (0, 1) else csc(bits)


def aligned(arrays: Sequence[Array]) -> tuple[list[Array], tuple[int, ...]]:
    """Sparse arrays of one shape in one order of dimensions, and that order: the first one's that can be merged, else rows first."""
    orders = [order_of(a) for a in arrays]
    known = [o for o in orders if o is not None]
    order = known[0] if known and all(o == known[0] for o in known) else tuple(range(arrays[0].rank))
    return [a if o == order else converted(a, order) for a, o in zip(arrays, orders)], order


def converted(array: Array, order: tuple[int, ...], bits: int | None = None, *, sorted: bool = False) -> Array:
    """A sparse array stored in another order of its dimensions: coordinates that repeat add up. Each is converted once.

    `sorted` promises that the elements of each row (or column, as `order` says) are stored in order: the kernel checks it.
    """
    tracer = array.tracer
    if len(tracer.regions) > 1 and array.region is tracer.root:  # once, not in each round
        with tracer.outside():
            return converted(array, order, bits, sorted=sorted)
    if len(tracer.regions) > 1 and array.rank == 2 and (found := tracer.argument(array)) is not None:
        argument, dims = found
        with tracer.outside():
            return converted(argument if dims == (0, 1) else turned(argument), order, bits, sorted=sorted)
    key = (array.name, order, bits or bits_of((array,)))
    if key not in tracer.conversions:
        tracer.conversions[key] = _converted(array, order, key[-1], sorted)
    return tracer.conversions[key]


def _converted(array: Array, order: tuple[int, ...], bits: int, sorted: bool) -> Array:
    tracer, pattern = array.tracer, array.type.pattern
    owner = pattern.owner if pattern is not None else ""
    form = tracer.types[owner].format if owner else None
    if array.rank > 2 and all(i.name != owner for i in tracer.inputs):
        raise UnsupportedError(
            f"{tracer.text(array)} meets another sparse array in another order of its dimensions",
            f"results with {array.rank} dimensions are merged in the order they were made in",
            "transpose the operands before",
        )
    if array.rank > 2 and pattern is not None:
        raise RowsWanted(tracer.texts.get(owner, owner), tuple(pattern.dims[d] for d in order))
    if pattern is None or form is None or not reorders(array):
        raise RowsWanted(tracer.texts.get(owner, owner))
    bits = max(bits, 32)
    if not sorted and not (form.levels[0].full and pattern.dims.index(form.order[0]) == order[1]):
        array = _grouped(array, listed(order[::-1], bits), "listed", False)
    return _grouped(array, format_for(order, bits), "converted", True)


def turned(a: Array) -> Array:
    """A matrix transposed."""
    tracer = a.tracer
    i, j = tracer.indices(a.extents[::-1])
    assert a.type.pattern is not None
    pattern = tn.Pattern(a.type.pattern.owner, a.type.pattern.dims[::-1])
    return tracer.emit("transpose", (i, j), tracer.read(a, (j, i)), (tracer.within(a, (j.name, i.name)),), pattern, a.is_matrix)


def listed(order: tuple[int, ...], bits: int) -> Format:
    """The format of a matrix whose elements are grouped by one dimension, within it in any order and not added up."""
    name = "rows" if order == (0, 1) else "columns"
    return Format(f"listed {name}", order, (Dense(), Compressed(ordered=False, unique=False)), bits)


def _grouped(array: Array, form: Format, stem: str, adds: bool) -> Array:
    """What an array stores, grouped by what `form` stores outside; with `adds`, what meets at one coordinate adds up."""
    tracer = array.tracer
    indices = tracer.indices(array.extents)
    within = tracer.within(array, [i.name for i in indices])
    value = tracer.read(array, indices)
    monoid = "add" if adds else None
    return scattered(tracer, stem, indices, indices, value, (within,), form.order, form.index_bits, array.is_matrix, monoid, grouped=form)


def reorders(array: Array) -> bool:
    """Whether a kernel puts the elements of a sparse array in another order."""
    form = array.tracer.types[array.type.pattern.owner].format if array.type.pattern is not None else None
    if form is None or form.padded or form.blocked or array.rank != 2:
        return False
    return any(level.name == "compressed" for level in form.levels)


def stored_as(array: Any, order: tuple[int, ...], *, sorted: bool = False) -> Array:
    """A sparse traced matrix with its elements stored by rows (0, 1) or by columns (1, 0); itself if they are. See `converted`."""
    tracer = find_tracer((array,), "asformat")
    given = tracer.array(array)
    if not given.is_sparse:
        raise UnsupportedError(f"asformat of the dense {tracer.text(given)}", "it stores every element", "build it from a sparse array")
    return given if order_of(given) == order else converted(given, order, sorted=sorted)


def scattered(
    tracer: Tracer,
    stem: str,
    indices: Sequence[tn.Index],
    at: Sequence[tn.Index],
    value: Term,
    within: tuple[tn.Within, ...],
    order: tuple[int, ...],
    bits: int,
    is_matrix: bool,
    monoid: str | None = "add",
    instead: Sequence[Any] | None = None,
    *,
    grouped: Format | None = None,
) -> Array:
    """The sparse array that stores what a loop over `indices` touches, values combined by `monoid`; None: no coordinate is touched twice.

    `instead`: the places that are touched, where they are not just the indices `at`. `grouped`: the loop runs over all that one
    pattern stores, and puts it in the order of this format; see `tn.Scatter`.
    """
    name = tracer.sparse_name(stem)
    refuse_in_regions(tracer, stem)
    shape = tuple(i.extent for i in at)
    form = format_for(order, bits) if grouped is None else grouped
    type = tn.TensorType(value.dtype, shape, form, tn.Pattern(name, tuple(range(len(shape)))))
    chosen = "or" if monoid == "add" and value.dtype.kind == "b" else monoid
    places = tuple(map(index_expr, at if instead is None else instead))
    step = tn.Scatter(name, type, None, chosen, tuple(indices), places, value.body, within, grouped is not None)
    tracer.sizes.add(tn.nnz_of(name), f"the number of elements of {stem}", None)
    return tracer.add_step(step, is_matrix=is_matrix)


def in_blocks(rows: Any, blocksize: tuple[int, int]) -> Array:
    """A matrix whose rows are cut into blocks, rows[i, i_in, j], as dense blocks: out[i, i_in, j, j_in] in the order of its levels. What
    repeats adds up.
    """
    tracer = find_tracer((rows,), "in_blocks")
    given = tracer.array(rows)
    height, width = blocksize
    blocks, inside, columns = given.extents
    tracer.sizes.require(inside, "==", height, "in_blocks", "give blocks of as many rows")
    tracer.sizes.require(mod(columns, width), "==", 0, "in_blocks", "pad the matrix to a multiple")
    name = tracer.sparse_name("blocks")
    points = tracer.indices((blocks, height, columns))
    i, r, j = points
    levels = (Dense(), Compressed(), Dense(), Dense())
    form = Format("blocks", (0, 2, 1, 3), levels, bits_of((given,)))
    shape = (blocks, height, floordiv(columns, width), width)
    type = tn.TensorType(given.type.dtype, shape, form, tn.Pattern(name, (0, 1, 2, 3)))
    at = tuple(map(index_expr, (i, r, index_term(j) // width, index_term(j) % width)))
    monoid = "or" if given.type.dtype.kind == "b" else "add"
    within = (tracer.within(given, [p.name for p in points]),)
    tracer.sizes.add(tn.nnz_of(name), "the number of blocks", None)
    return tracer.add_step(tn.Scatter(name, type, None, monoid, points, at, tracer.read(given, points).body, within))


def out_of_blocks(blocks: Any, blocksize: tuple[int, int]) -> Array:
    """A matrix stored as dense blocks, blocks[i, i_in, j, j_in], by rows. Blocks are in order and each is there once, which is seen to."""
    tracer = find_tracer((blocks,), "out_of_blocks")
    given = tracer.array(blocks)
    height, width = blocksize
    down, inside, across, beside = given.extents
    tracer.sizes.require(inside, "==", height, "out_of_blocks", "give blocks of as many rows")
    tracer.sizes.require(beside, "==", width, "out_of_blocks", "give blocks of as many columns")
    points = tracer.indices((down, height, across, width))
    i, r, j, c = (index_term(p) for p in points)
    at = tracer.indices((down * height, across * width))
    within = (tracer.within(given, [p.name for p in points]),)
    return regrouped(given, points, at, (i * height + r, j * width + c), tracer.read(given, points), within, (0, 1), "rows")


def regrouped(
    source: Array,
    points: Sequence[tn.Index],
    at: Sequence[tn.Index],
    places: Sequence[Any],
    value: Term,
    within: tuple[tn.Within, ...],
    order: tuple[int, ...],
    stem: str = "index",
) -> Array:
    """Stored elements of `source` put elsewhere, to `places` over the extents of `at`. Each row of the result must be touched in order
    if the rows of `source` are in order, which is seen to."""
    tracer = source.tracer
    out = scattered(tracer, stem, points, at, value, within, order, bits_of((source,)), source.is_matrix, None, places)
    assert source.type.pattern is not None
    tracer.copied[out.name] = source.type.pattern.owner
    return out


def entered(array: Array) -> Array:
    """A sparse matrix whose rows or columns can be entered: itself, or by rows."""
    return array if order_of(array) is not None else converted(array, (0, 1))


def join(tracer: Tracer, indices: Sequence[tn.Index], clauses: Clauses, order: tuple[int, ...], bits: int) -> tn.Within:
    """The coordinates `indices` that fulfil all clauses; equal joins of one region are made once."""
    place = {i.name: n for n, i in enumerate(indices)}
    shape = tuple(i.extent for i in indices)
    key = (tracer.regions[-1], shape, order, bits, tuple(tuple((w.tensor, tuple(place[v] for v in w.indices)) for w in clause) for clause in clauses))
    name = tracer.joins.get(key)
    if name is None:
        _lists_are_countable(tracer, [shape[d] for d in order[1:]])
        name = tracer.joins[key] = tracer.sparse_name("joined")
        own = tracer.indices(shape)
        renamed = {i.name: o.name for i, o in zip(indices, own)}
        told = tuple(tuple(tn.Within(w.tensor, tuple(renamed[v] for v in w.indices)) for w in clause) for clause in clauses)
        type = tn.TensorType(dt.bool_, shape, format_for(order, bits), tn.Pattern(name, tuple(range(len(shape)))))
        tracer.sizes.add(tn.nnz_of(name), "the number of merged elements", None)
        tracer.merged.update(dict.fromkeys(w.tensor for clause in clauses for w in clause))
        tracer.add_step(tn.Join(name, type, own, told))
    return tn.Within(name, tuple(i.name for i in indices))


def _lists_are_countable(tracer: Tracer, extents: Sequence[Size]) -> None:
    """The coordinates of a list are compared as one number: there must not be too many of them."""
    if len(extents) < 2:
        return
    places: Size = 1
    for extent in extents:
        places = places * extent
    tracer.sizes.require(places, "<=", 1 << 62, "a merge of sparse arrays with more places in a slice than 64-bit numbers count", "convert one to dense, or split it")


def refuse_in_regions(tracer: Tracer, what: str, makes: str = "a sparse array", remedy: str = "compute it outside of the region, or make it dense") -> None:
    """Raises UnsupportedError inside a branch or a loop body."""
    if len(tracer.regions) > 1:
        raise UnsupportedError(
            f"{what} makes {makes} inside {tracer.regions[-1].name}", "its size is known only when the kernel runs, and a region's results have fixed sizes", remedy
        )


def clauses_of(support: Support) -> Clauses | None:
    """A support as the intersection of unions; None if it is everywhere, () if it is nowhere."""
    match support:
        case Everywhere():
            return None
        case Nowhere():
            return ()
        case Stored(within):
            return ((within,),)
        case Both(parts):
            found = [c for p in parts for c in (clauses_of(p) or ())]
            return least_clauses(found)
        case Either(parts):
            out: list[tuple[tn.Within, ...]] = [()]
            for part in parts:
                inner = clauses_of(part)
                if inner is None:
                    return None
                out = [tuple(dict.fromkeys((*a, *b))) for a in out for b in inner]
            return least_clauses(out)


def with_readers(clauses: Clauses, readers: Sequence[tn.Within]) -> Clauses:
    """The same coordinates, with more parts that may be read there."""
    known = {w for clause in clauses for w in clause}
    return (*clauses, *((*clauses[0], w) for w in dict.fromkeys(readers) if w not in known))
