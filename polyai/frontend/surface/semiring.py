"""Products over other semirings: shortest paths (min, add), widest paths (max, min), reachability (or, and), and more.

What a sparse matrix does not store is the identity of the addition, and annihilates the multiplication: under (min, add) it is
infinity, no edge. So a product runs over stored elements, as over (add, mul), and stores what some stored pair reaches.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, Union

import numpy as np

from polyai.errors import ShapeError, TraceError, UnsupportedError
from polyai.frontend.core import Array, Tracer
from polyai.frontend.surface import merging
from polyai.frontend.surface.contraction import masked_pattern
from polyai.frontend.term import Term, apply, convert, reduced, term
from polyai.scalar import dtype as dt
from polyai.scalar.expr import Apply, Const, Var
from polyai.scalar.ops import MONOIDS
from polyai.shapes.expr import Size
from polyai.term.node import node

MULTIPLICATIONS = ("mul", "add", "min", "max", "and", "or", "first", "second")
Operation = Union[str, Callable[[Any, Any], Any]]
KNOWN: dict[Any, str] = {
    min: "min", max: "max", operator.add: "add", operator.mul: "mul", operator.and_: "and", operator.or_: "or",
    np.minimum: "min", np.maximum: "max", np.add: "add", np.multiply: "mul", np.logical_and: "and", np.logical_or: "or",
}  # fmt: skip
"""Functions of Python and NumPy that have a name here."""


@node
class Semiring:
    """`add` combines, `mul` pairs: names, or functions of two elements, as `semiring` takes them."""

    add: Operation
    mul: Operation

    def product(self, a: Term, b: Term) -> Term:
        """What a pair contributes."""
        if not isinstance(self.mul, str):
            out = self.mul(a, b)
            if not isinstance(out, (Term, bool, int, float, complex)):
                raise TraceError(f"semiring: mul gives {type(out).__name__}", "it is called with an element of each operand", "return their product, made by operators and functions of elements")
            return term(out)
        if self.mul in ("first", "second"):
            return a if self.mul == "first" else b
        if self.mul in ("and", "or"):
            return apply(self.mul, _truth(a), _truth(b))
        return apply(self.mul, a, b)

    def addition(self, tracer: Tracer, dtype: dt.DType) -> str:
        """The name of the monoid that `add` is for elements of `dtype`. Raises UnsupportedError if it is none of those that are known."""
        if isinstance(self.add, str):
            return self.add
        one, other = (Term(Var(f"?{x}", dtype), False, tracer) for x in "xy")
        out = self.add(one, other)
        match out.body if isinstance(out, Term) else None:
            case Apply(op=name, args=(x, y)) if name in MONOIDS and {x, y} == {one.body, other.body}:
                return name
            case _:
                raise UnsupportedError(
                    "semiring: add is a function that is none of " + ", ".join(MONOIDS),
                    "rows are summed in parts, which wants an identity and any order",
                    "add with one of these names, and put the rest into mul",
                )


def _truth(a: Term) -> Term:
    return a if a.dtype == dt.bool_ else apply("ne", a, Term(Const(0, dt.i64), weak=True))


def semiring(add: Operation, mul: Operation) -> Semiring:
    """A semiring for `matmul(A, B, semiring=...)`.

    Args:
        add: "add", "mul", "min", "max", "or", "and": associative and commutative, with an identity. Or a function that is one of them,
            such as `np.minimum` or `lambda x, y: pa.maximum(x, y)`.
        mul: "mul", "add", "min", "max", "and", "or", or "first" and "second", which take one operand's value. Or any function of two
            elements, `lambda x, y: pa.abs(x - y)`, which is compiled into the kernel.

    `semiring("min", "add")` gives lengths of shortest paths, `semiring("max", "min")` capacities, `semiring("or", "and")` reachability.
    Whether `mul` distributes over `add` is the caller's affair. Raises UnsupportedError for other names.
    """
    add, mul = (_named(operation) for operation in (add, mul))
    if not (add in MONOIDS if isinstance(add, str) else callable(add)):
        raise UnsupportedError(f"semiring(add={add!r})", f"known are {', '.join(MONOIDS)}", "use one of these names")
    if not (mul in MULTIPLICATIONS if isinstance(mul, str) else callable(mul)):
        raise UnsupportedError(f"semiring(mul={mul!r})", f"known are {', '.join(MULTIPLICATIONS)}", "use one of these names, or a function of two elements")
    return Semiring(add, mul)


def _named(operation: Any) -> Any:
    return KNOWN.get(operation, operation) if callable(operation) else operation


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
    add = ring.addition(tracer, value.dtype)
    if (add, ring.mul) != ("add", "mul"):  # what is stored twice adds up first
        owners = [a.type.pattern.owner for a in (left, right) if a.type.pattern is not None]
        tracer.merged.update(dict.fromkeys(i.name for i in tracer.inputs if i.name in owners))
    withins = tuple(tracer.within(a, names) for a, names in ((left, [points[0].name, k.name]), (right, [k.name, *(p.name for p in points[1:])])) if a.is_sparse)
    if mask is not None:
        pattern, around = masked_pattern(tracer, tracer.array(mask), points)
        return tracer.emit("matmul", points, reduced(add, (k,), value, withins), (around,), pattern, False, strong=True)
    if left.is_sparse and right.is_sparse:
        everything = (*points, k)
        return merging.scattered(tracer, "matmul", everything, points, value, withins, (0, 1), merging.bits_of((left, right)), left.is_matrix, add)
    if right.is_sparse:
        raise UnsupportedError(
            "a dense matrix times a sparse one over a semiring", "the sum would run over rows of the sparse one", "use matmul(B.T, A.T, semiring=...).T"
        )
    return tracer.emit("matmul", points, convert(reduced(add, (k,), value, withins), value.dtype), strong=True)

