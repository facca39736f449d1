"""What a sparse array stores, one after another: a dense vector whose size is the number of stored elements."""

from __future__ import annotations

from polyai.frontend.core import Array
from polyai.shapes.expr import symbol
from polyai.tensor import nodes as tn

DECIDED = "an array whose size data decide"


def listing(a: Array) -> Array:
    """The values that a sparse array stores as a dense vector, in the order of storage."""
    tracer, pattern = a.tracer, a.type.pattern
    assert pattern is not None
    type = tn.TensorType(a.type.dtype, (symbol(tn.nnz_of(pattern.owner)),))
    out = tracer.add_step(tn.Listing(tracer.names.fresh("listed"), type, tracer.use(a)))
    tracer.along[out.name] = a
    return out


def nonnegative(a: Array) -> Array:
    """`a`, whose integers are known to be at least 0."""
    a.tracer.not_negative[a.name] = None
    return a
