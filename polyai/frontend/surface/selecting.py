"""What data select: masks, and what the values of arrays decide the size of.

    nonzero(mask)     P[where(mask[i], i, -1)] = True; at[i] = i within P(i); L[k: P.nnz] = list at
    x[mask]           x[L[k]]
    X[mask, :]        X[L[k], j]

The number of elements that `P` stores is a size like others, with a name, a range and facts; its value is known once a kernel has
counted. Two masks that are computed alike select alike: they share one size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from polyai.errors import ShapeError
from polyai.frontend.core import Array, Tracer, find_tracer, index_expr, index_term, normalized_axis
from polyai.frontend.surface import merging, shaping
from polyai.frontend.surface.listing import listing, nonnegative
from polyai.frontend.term import apply, convert, number
from polyai.scalar import dtype as dt
from polyai.scalar.expr import Load, Var
from polyai.shapes.expr import Size
from polyai.sparse import format as formats
from polyai.tensor import nodes as tn
from polyai.tensor.bodies import rename_tensors, replace_loads
from polyai.tensor.passes.fold import without_names
from polyai.tensor.show import show_body

LONGEST = 40
"""Characters of a mask that messages spell out."""


def is_mask(key: Any) -> bool:
    """Whether an element of a key is a mask: an array of bools with dimensions."""
    if isinstance(key, Array):
        return key.type.dtype.kind == "b" and bool(key.rank)
    if isinstance(key, (list, np.ndarray)):
        return np.asarray(key).dtype.kind == "b" and np.asarray(key).ndim > 0
    return False


def by_mask(a: Array, key: tuple[Any, ...]) -> Any:
    """a[mask] for a sparse mask of the whole array; None for other keys."""
    if len(key) != 1 or not isinstance(key[0], Array) or not key[0].is_sparse or not is_mask(key[0]) or key[0].rank != a.rank:
        return None
    mask = key[0]
    if not all(a.tracer.sizes.unify(e, m, "a mask") for e, m in zip(a.extents, mask.extents)):
        raise ShapeError(f"a mask of {a.tracer.shape_text(mask)} for {a.tracer.shape_text(a)}", "", "a mask has the shape of the array")
    return _by_sparse_mask(a, mask)


def without_masks(a: Array, key: tuple[Any, ...]) -> tuple[Any, ...]:
    """The key with each mask replaced by the places where it is true, one index array for each of its dimensions.

    Raises ShapeError for a mask that does not fit the dimensions that it indexes."""
    if not any(map(is_mask, key)):
        return key
    used = sum(_width(k) for k in key)
    out: list[Any] = []
    d = 0
    for k in key:
        if k is Ellipsis:
            d += a.rank - used
            out += [slice(None)] * (a.rank - used)
        elif is_mask(k):
            out += _places(a, d, k)
            d += _width(k)
        else:
            out.append(k)
            d += _width(k)
    return tuple(out)


def _width(k: Any) -> int:
    """How many dimensions an element of a key indexes."""
    if k is None or k is Ellipsis:
        return 0
    return (k.rank if isinstance(k, Array) else np.asarray(k).ndim) if is_mask(k) else 1


def _places(a: Array, d: int, mask: Any) -> Sequence[Any]:
    tracer = a.tracer
    extents = mask.extents if isinstance(mask, Array) else np.asarray(mask).shape
    here = a.extents[d : d + len(extents)]
    if len(here) < len(extents) or not all(tracer.sizes.unify(e, m, "a mask") for e, m in zip(here, extents)):
        shown = ", ".join(map(tracer.sizes.described, extents))
        raise ShapeError(
            f"a mask of shape ({shown}{',' if len(extents) == 1 else ''}) for dimension {d} of {tracer.shape_text(a)}",
            "a mask has one element for each index",
            "compare the array itself, x[x > 0], or index the dimension that the mask belongs to: x[:, mask]",
        )
    if not isinstance(mask, Array):
        return np.nonzero(np.asarray(mask))
    return nonzero(mask)


def nonzero(x: Any) -> tuple[Any, ...]:
    """Where a dense array is not zero: one vector of i64 for each dimension, in row-major order, as NumPy's `nonzero`.

    How many there are is a size that data decide. Of a sparse array: the coordinates of what it stores and is not zero.
    Raises ShapeError for a scalar, UnsupportedError inside the body of a loop or a branch.
    """
    tracer = find_tracer((x,), "nonzero")
    a = tracer.array(x)
    if not a.rank:
        raise ShapeError("nonzero of a scalar", tracer.shape_text(a), "use nonzero(reshape(x, (1,)))")
    if a.is_sparse:
        order = merging.order_of(a)
        from_storage = coordinates(a if order is None or order == tuple(range(a.rank)) else merging.stored_as(a, (0, 1)))
        kept = flatnonzero(from_storage[-1])
        return tuple(cast(Any, c)[kept] for c in from_storage[:-1])
    if a.rank > 2:
        return _of_many(tracer, a)
    key = ("nonzero", alike(tracer, a))
    known = tracer.selections.get(key)
    if known is None:
        known = tracer.selections[key] = _selected(tracer, a)
    return known


def alike(tracer: Tracer, a: Array) -> str:
    """The first array of the trace that is computed as `a` is."""
    if len(tracer.regions) > 1:
        return a.name
    steps, same = tracer.root.steps, tracer.same
    for step in steps[tracer.compared :]:
        if isinstance(step, tn.Comprehension):
            key = without_names(cast(tn.Comprehension, rename_tensors(step, same)))
            first = tracer.meanings.setdefault(key, step.target)
            if first != step.target:
                same[step.target] = first
    tracer.compared = len(steps)
    return same.get(a.name, a.name)


def spelled(tracer: Tracer, a: Array) -> str:
    """How messages call a mask: `x > 0.0`, where that is short."""
    if a.name in tracer.texts:
        return tracer.texts[a.name]
    made = next((s for s in reversed(tracer.regions[-1].steps) if isinstance(s, tn.Comprehension) and s.target == a.name), None)
    if made is None:
        return tracer.text(a)

    def bare(load: Load) -> Any:
        whole = all(isinstance(i, Var) for i in load.indices)
        return Var(tracer.texts.get(load.array, "..") if whole else "..", load.dtype)

    text = show_body(replace_loads(made.body, bare))
    return text if len(text) <= LONGEST and ".." not in text else tracer.text(a)


def _of_many(tracer: Tracer, a: Array) -> tuple[Any, ...]:
    """The places in an array of more than two dimensions: those before the last one as one."""
    outer, last = nonzero(shaping.reshape(a, (-1, tracer.sizes.value(a.extents[-1]))))
    found: list[Any] = []
    for extent in reversed(a.extents[1:-1]):
        size = tracer.sizes.value(extent)
        found.append(nonnegative(outer % size))
        outer = nonnegative(outer // size)
    return (outer, *reversed(found), last)


def _selected(tracer: Tracer, a: Array) -> tuple[Array, ...]:
    """The lists of the coordinates of a vector or a matrix where it is not zero."""
    name = tracer.sparse_name("chosen")
    points = tracer.indices(a.extents)
    value = tracer.read(a, points)
    condition = value if value.dtype.kind == "b" else apply("ne", value, number(0, value.dtype))
    last = points[-1]
    place = apply("where", condition, index_term(last), number(-1, dt.i64))
    form = formats.coo(1, 64) if a.rank == 1 else formats.csr(64)
    type = tn.TensorType(dt.bool_, a.extents, form, tn.Pattern(name, tuple(range(a.rank))))
    count = tracer.sizes.add(tn.nnz_of(name), f"count_nonzero({spelled(tracer, a)})", None)
    total: Size = 1
    for extent in a.extents:
        total = total * extent
    tracer.sizes.decided[tn.nnz_of(name)] = total
    if len(tracer.regions) > 1:
        tracer.sizes.passing[tn.nnz_of(name)] = tracer.regions[-1].name
    tracer.sizes.assume(count, "<=", total)
    at = (*points[:-1], place)
    made = tracer.add_step(tn.Scatter(name, type, None, None, points, tuple(map(index_expr, at)), number(True, dt.bool_).body))
    return tuple(_listed(tracer, made, d) for d in range(a.rank))


def _listed(tracer: Tracer, pattern: Array, d: int, dtype: dt.DType = dt.i64) -> Array:
    """The list of coordinate `d` along a pattern."""
    points = tracer.indices(pattern.extents)
    within = (tracer.within(pattern, [p.name for p in points]),)
    along = tracer.emit("place", points, convert(index_term(points[d]), dtype), within, pattern.type.pattern)
    return nonnegative(listing(along))


def coordinates(a: Array) -> tuple[Array, ...]:
    """The coordinates of what a sparse array stores, one vector of its index type for each dimension, and its values.

    Raises RowsWanted for a format that does not list every element by itself: it is converted to CSR at each call."""
    tracer = a.tracer
    owner = "" if a.type.pattern is None else a.type.pattern.owner
    form = tracer.types[owner].format
    if form is None or form.padded or form.blocked or not all(level.name in ("dense", "compressed", "singleton") for level in form.levels):
        raise merging.RowsWanted(tracer.texts.get(owner, owner))
    index = dt.BY_NAME[f"i{form.index_bits}"]
    return (*(_listed(tracer, a, d, index) for d in range(a.rank)), listing(a))


def find(x: Any) -> Any:
    """Rows, columns and values of what a matrix holds and is not zero, by rows, as scipy.sparse.find. Repeated coordinates add up."""
    tracer = find_tracer((x,), "find")
    a = tracer.array(x)
    if not a.is_sparse:
        places = nonzero(a)
        return (*places, cast(Any, a)[places])
    by_rows = coordinates(merging.stored_as(a, (0, 1)))
    kept = nonzero(by_rows[-1])[0]
    return tuple(cast(Any, c)[kept] for c in by_rows)


def _by_sparse_mask(a: Array, mask: Array) -> Any:
    """The elements where a sparse mask of the same shape is true, by rows."""
    by_rows = merging.order_of(mask) in (None, tuple(range(mask.rank)))
    if by_rows and a.type.pattern is not None and a.type.pattern == mask.type.pattern:
        found = cast(Any, listing(a))[nonzero(listing(mask))[0]]
    else:
        found = cast(Any, a)[nonzero(mask)]
    return shaping.reshape(found, (1, -1)) if a.is_matrix else found


def flatnonzero(x: Any) -> Any:
    """Where the array, flattened in row-major order, is not zero: a vector of i64."""
    tracer = find_tracer((x,), "flatnonzero")
    a = tracer.array(x)
    if a.rank == 1:
        return nonzero(a)[0]
    out: Any = 0
    for place, extent in zip(nonzero(a), a.extents):
        out = out * tracer.sizes.value(extent) + place
    return nonnegative(out)


def argwhere(x: Any) -> Any:
    """The coordinates of what is not zero, one row for each: shape (count, rank), i64."""
    return shaping_stack(nonzero(x))


def shaping_stack(places: Sequence[Array]) -> Any:
    """Vectors of one length as the columns of a matrix."""
    tracer = places[0].tracer
    k, d = tracer.indices((places[0].extents[0], len(places)))
    out = tracer.read(places[-1], (k,))
    for n in reversed(range(len(places) - 1)):
        out = apply("where", apply("eq", index_term(d), n), tracer.read(places[n], (k,)), out)
    return tracer.emit("argwhere", (k, d), out)


def compress(condition: Any, x: Any, axis: Any = None) -> Any:
    """x[..., condition, ...] along `axis`; without one, of the array flattened. A condition shorter than that leaves the rest out.

    Raises ShapeError for a condition that has several dimensions or is longer."""
    tracer = find_tracer((condition, x), "compress")
    a, chosen = tracer.array(x), tracer.array(condition)
    if chosen.rank != 1:
        raise ShapeError("compress with a condition of several dimensions", tracer.shape_text(chosen), "use x[condition], or extract(condition, x)")
    if axis is None:
        a, axis = shaping.reshape(a, -1), 0
    d = normalized_axis(axis, a.rank, "compress")
    tracer.sizes.require(chosen.extents[0], "<=", a.extents[d], "compress", "the condition has at most one element for each index")
    index = nonzero(chosen)[0]
    return cast(Any, a)[(*(slice(None),) * d, index)]


def extract(condition: Any, x: Any) -> Any:
    """The elements of `x`, flattened, where `condition`, flattened, is not zero: as x[condition] for a condition of its shape."""
    tracer = find_tracer((condition, x), "extract")
    a, chosen = tracer.array(x), tracer.array(condition)
    if chosen.extents == a.extents:
        return cast(Any, a)[nonzero(chosen)]
    return compress(shaping.reshape(chosen, -1), a)
