"""What only sparse arrays have: conversion to dense, element-wise products that keep a pattern, row weights."""

from __future__ import annotations

from typing import Any

from polyai.errors import TraceError
from polyai.frontend.core import Array, find_tracer
from polyai.frontend.surface.pointwise import pointwise_stored, toarray
from polyai.frontend.term import Rule, number
from polyai.shapes.expr import symbol
from polyai.sparse import interop
from polyai.tensor import nodes as tn

__all__ = ["is_scipy_matrix", "map_stored", "nnz_of", "ones_where_stored", "sparse_only", "toarray"]


def sparse_only(x: Any, what: str) -> Array:
    """`x` as a sparse traced array."""
    a = find_tracer((x,), what).array(x)
    if not a.is_sparse:
        raise TraceError(f"{what} of the dense {a.tracer.text(a)}", "only sparse arrays have it", "")
    return a


def nnz_of(x: Any) -> Any:
    """The number of stored elements, a size."""
    a = sparse_only(x, "nnz")
    assert a.type.pattern is not None
    owner = a.type.pattern.owner
    format = a.tracer.types[owner].format
    return a.tracer.sizes.value(symbol(tn.nnz_of(owner)) * (1 if format is None else format.fill))


def map_stored(function: Rule, x: Any, *others: Any) -> Any:
    """`function` of the stored elements (and of dense operands at their coordinates); what is not stored stays absent.

    `map_stored(lambda a: exp(a), A)` is a sparse array with A's pattern, where exp(A) would be dense.
    """
    a = sparse_only(x, "map_stored")
    return pointwise_stored("map_stored", function, a, *others)


def ones_where_stored(x: Any) -> Any:
    """Ones at the stored coordinates of `x`."""
    a = sparse_only(x, "ones_where_stored")
    return pointwise_stored("pattern", lambda e: number(1, a.type.dtype), a)


def is_scipy_matrix(value: Any) -> bool:
    """Whether a value of the surrounding scope is of a class of SciPy whose `*` is the matrix product."""
    if not interop.is_sparse(value):
        return False
    described = interop.describe(value)
    return described is not None and described.is_matrix
