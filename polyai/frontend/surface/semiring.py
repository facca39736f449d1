"""Products over other semirings: shortest paths (min, add), widest paths (max, min), reachability (or, and), and more.

What a sparse matrix does not store is the identity of the addition, and annihilates the multiplication: under (min, add) it is
infinity, no edge. So a product runs over stored elements, as over (add, mul), and stores what some stored pair reaches.
"""

from __future__ import annotations

from typing import Any

from polyai.errors import ShapeError, UnsupportedError
from polyai.frontend.core import Array, Tracer
from polyai.frontend.surface import merging
from polyai.frontend.surface.contraction import masked_pattern
from polyai.frontend.term import Term, apply, convert, reduced
from polyai.scalar import dtype as dt
from polyai.scalar.expr import Const
from polyai.scalar.ops import MONOIDS
from polyai.shapes.expr import Size
from polyai.term.node import node

MULTIPLICATIONS = ("mul", "add", "min", "max", "and", "or", "first", "second")


@node
class Semiring:
    """`add` combines, `mul` pairs: names as `semiring` takes them."""

    add: str
    mul: str

    def product(self, a: Term, b: Term) -> Term:
        """What a pair contributes."""
        if self.mul in ("first", "second"):
            return a if self.mul == "first" else b
        if self.mul in ("and", "or"):
            return apply(self.mul, _truth(a), _truth(b))
        return apply(self.mul, a, b)


def _truth(a: Term) -> Term:
    return a if a.dtype == dt.bool_ else apply("ne", a, Term(Const(0, dt.i64), weak=True))


def semiring(add: str, mul: str) -> Semiring:
    """A semiring for `matmul(A, B, semiring=...)`.

    Args:
        add: "add", "mul", "min", "max", "or", "and": associative and commutative, with an identity.
        mul: "mul", "add", "min", "max", "and", "or", or "first" and "second", which take one operand's value.

    `semiring("min", "add")` gives lengths of shortest paths, `semiring("max", "min")` capacities, `semiring("or", "and")` reachability.
    Whether `mul` distributes over `add` is the caller's affair. Raises UnsupportedError for other names.
    """
    if add not in MONOIDS:
        raise UnsupportedError(f"semiring(add={add!r})", f"known are {', '.join(MONOIDS)}", "use one of these names")
    if mul not in MULTIPLICATIONS:
        raise UnsupportedError(f"semiring(mul={mul!r})", f"known are {', '.join(MULTIPLICATIONS)}", "use one of these names")
    return Semiring(add, mul)


def product(tracer: Tracer, ring: Semiring, left: Array, right: Array, mask: Any = None) -> Array:
    """x1 @ x2 over `ring`: a matrix times a matrix or a vector. Dense where no stored pair decides: two sparse matrices give a sparse one."""
    if left.rank != 2 or right.rank not in (1, 2):
        raise ShapeError("matmul over a semiring takes a matrix, and a matrix or a vector", tracer.shapes_text((left, right)), "reshape the operands")
    if not tracer.sizes.unify(left.extents[1], right.extents[0], "matmul"):
        raise ShapeError("matmul: the summed dimensions differ", tracer.shapes_text((left, right)), "columns of x1 meet rows of x2")
    rows = [a if not a.is_sparse or a.rank == 1 or merging.order_of(a) == (0, 1) else merging.converted(a, (0, 1)) for a in (left, right)]
    left, right = rows
    if right.rank == 1 and right.is_sparse:
        raise UnsupportedError("matmul over a semiring with a sparse vector", "it is compiled for matrices and dense vectors", "use .toarray()")
    shape: tuple[Size, ...] = (left.extents[0], *right.extents[1:])
    points = tracer.indices(shape)
    (k,) = tracer.indices((left.extents[1],), start=2)
    value = ring.product(tracer.read(left, (points[0], k)), tracer.read(right, (k, *points[1:])))
    if ring.add != "add" or ring.mul != "mul":  # what is stored twice adds up first
        owners = [a.type.pattern.owner for a in (left, right) if a.type.pattern is not None]
        tracer.merged.update(dict.fromkeys(i.name for i in tracer.inputs if i.name in owners))
    withins = tuple(tracer.within(a, names) for a, names in ((left, [points[0].name, k.name]), (right, [k.name, *(p.name for p in points[1:])])) if a.is_sparse)
    if mask is not None:
        pattern, around = masked_pattern(tracer, tracer.array(mask), points)
        return tracer.emit("matmul", points, reduced(ring.add, (k,), value, withins), (around,), pattern, False, strong=True)
    if left.is_sparse and right.is_sparse:
        everything = (*points, k)
        return merging.scattered(tracer, "matmul", everything, points, value, withins, (0, 1), merging.bits_of((left, right)), left.is_matrix, ring.add)
    if right.is_sparse:
        raise UnsupportedError(
            "a dense matrix times a sparse one over a semiring", "the sum would run over rows of the sparse one", "use matmul(B.T, A.T, semiring=...).T"
        )
    return tracer.emit("matmul", points, convert(reduced(ring.add, (k,), value, withins), value.dtype), strong=True)

