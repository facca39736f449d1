"""Arrays whose elements are repeated as often as other arrays say.

    repeat(x, counts)    R = spread counts[i]; y[i, t] = x[i] within R(i, t); list y
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from polyai.errors import DTypeError, ShapeError
from polyai.frontend.core import Array, index_term
from polyai.frontend.surface import merging
from polyai.frontend.surface.listing import DECIDED, listing, nonnegative
from polyai.frontend.term import convert
from polyai.scalar import dtype as dt
from polyai.sparse.owned import spread
from polyai.tensor import nodes as tn


def repeated(a: Array, repeats: Any, d: int) -> Any:
    """`a` with each element along dimension `d` repeated as often as the vector `repeats` says.

    Raises DTypeError for counts that are no integers, ShapeError for a number of them that does not fit."""
    tracer = a.tracer
    if not isinstance(repeats, Array):
        given = np.asarray(repeats)
        if given.dtype.kind in "iu" and given.ndim == 1:
            tracer.sizes.require(a.extents[d], "==", len(given), "repeat", "give one count for each element")
            if (given < 0).any():
                raise ShapeError(f"repeat with the count {given.min()}", "counts are not negative", "use maximum(counts, 0)")
            key = (*(slice(None),) * d, np.repeat(np.arange(len(given)), given))
            return cast(Any, a)[key]
        repeats = given
    counts = tracer.array(repeats)
    if not counts.type.dtype.is_integer or counts.type.dtype.kind == "b":
        raise DTypeError(f"repeat with counts of type {counts.type.dtype}", "counts are integers", "convert them with .astype(int)")
    if counts.rank != 1:
        raise ShapeError(f"repeat with counts of {counts.rank} dimensions", tracer.shape_text(counts), "give a vector with one count for each element")
    tracer.sizes.require(counts.extents[0], "==", a.extents[d], "repeat", "give one count for each element of the axis")
    merging.refuse_in_regions(tracer, "repeat", DECIDED, "repeat outside of the loop or branch, or use take(x, indices)")
    name = tracer.sparse_name("repeated")
    spelled = tracer.text(counts)
    size = tracer.sizes.add(tn.nnz_of(name), f"sum({spelled})", None)
    tracer.sizes.decided[tn.nnz_of(name)] = size
    i, t = tracer.indices((a.extents[d], size))
    length = convert(tracer.read(counts, (i,)), dt.i64)
    type = tn.TensorType(dt.bool_, (i.extent, size), spread(), tn.Pattern(name, (0, 1)))
    pattern = tracer.add_step(tn.Spread(name, type, (i, t), length.body))
    points = tracer.indices(pattern.extents)
    within = (tracer.within(pattern, [p.name for p in points]),)
    value = tracer.read(a, (points[0],)) if a.rank == 1 else index_term(points[0])
    along = listing(tracer.emit("repeat", points, value, within, pattern.type.pattern))
    if a.rank == 1:
        return along
    return cast(Any, a)[(*(slice(None),) * d, nonnegative(along))]
