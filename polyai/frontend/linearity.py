"""Is a body linear in what sparse arrays store? Only then may a coordinate be stored twice and stand for the sum.

    T[i] = sum(k within A) A[i, k] * x[k]      linear: duplicates add up
    T[i, k within A] = exp(A[i, k])            not linear: A must store each coordinate once
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from polyai.scalar.expr import Apply, Cast, Const, Load, Var
from polyai.tensor import nodes as tn
from polyai.tensor.bodies import loads
from polyai.tensor.nodes import Body, Reduce

MIXED = 2
"""The degree of what is not linear: sums of different degrees, products of stored values, other functions of them."""

Sparse = Callable[[str], bool]


def owners_that_must_be_unique(step: tn.Comprehension | tn.Scatter, types: Mapping[str, tn.TensorType]) -> set[str]:
    """Sparse inputs whose coordinates must not repeat if the step is to mean what it says."""

    def is_sparse(name: str) -> bool:
        return name in types and types[name].pattern is not None

    out: set[str] = set()
    found = degree(step.body, is_sparse, out)
    if step.within:
        if found != 1:
            out.update(w.tensor for w in step.within)
    elif found == MIXED:
        patterns = (types[load.array].pattern for load in loads(step.body) if is_sparse(load.array))
        out.update(p.owner for p in patterns if p is not None)
    return out


def degree(body: Body, is_sparse: Sparse, out: set[str]) -> int:
    """0 if no stored value occurs, 1 if the body is linear and homogeneous in the stored values, MIXED otherwise.

    A finished sum along a pattern counts as a number. Owners of reductions along a pattern that are not linear go to `out`.
    """
    match body:
        case Const() | Var():
            return 0
        case Load(array, places):
            if sum(degree(p, is_sparse, out) for p in places):
                return MIXED
            return 1 if is_sparse(array) else 0
        case Cast(arg, dtype):
            inner = degree(arg, is_sparse, out)
            linear = dtype.is_float or dtype.is_complex or (arg.dtype.kind in "biu" and dtype.kind != "b")
            return inner if linear else MIXED * bool(inner)
        case Reduce():
            inner = degree(body.body, is_sparse, out)
            if not body.within:
                return inner if body.monoid == "add" else MIXED * bool(inner)
            if body.monoid != "add" or inner != 1:
                out.update(w.tensor for w in body.within)
            return 0
        case Apply(op, args):
            return _of_operation(op, args, [degree(a, is_sparse, out) for a in args])


def _of_operation(op: str, args: tuple[Body, ...], degrees: list[int]) -> int:
    if not any(degrees):
        return 0
    if op in ("neg", "conj", "real", "imag"):
        return degrees[0]
    if op == "mul":
        return min(sum(degrees), MIXED)
    if op == "div":
        return MIXED if degrees[1] else degrees[0]
    if op in ("add", "sub"):
        return degrees[0] if degrees[0] == degrees[1] else MIXED
    if op == "where" and not degrees[0]:
        branches = {d for a, d in zip(args[1:], degrees[1:]) if not (isinstance(a, Const) and a.value == 0)}
        return branches.pop() if len(branches) == 1 else MIXED
    return MIXED
