"""Is a body linear in what sparse arrays store? Only then may a coordinate be stored twice and stand for the sum.

    T[i] = sum(k within A) A[i, k] * x[k]      linear: duplicates add up
    T[i, k within A] = exp(A[i, k])            not linear: A must store each coordinate once
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from polyai.scalar.expr import Apply, Cast, Const, Load, Var
from polyai.tensor import nodes as tn
from polyai.tensor.bodies import in_owner, loads
from polyai.tensor.nodes import Body, Reduce

Walk = tuple[str, tuple[Body, ...]]
Degree = frozenset[Walk] | None
"""The accesses that a body is linear in, each of them; empty if no stored value occurs; None for what is not linear: sums of
different degrees, squares of stored values, other functions of them."""

MIXED: Degree = None
NUMBER: Degree = frozenset()

Sparse = Callable[[str], bool]


def owners_that_must_be_unique(step: tn.Comprehension | tn.Scatter, types: Mapping[str, tn.TensorType]) -> set[str]:
    """Sparse inputs whose coordinates must not repeat if the step is to mean what it says."""

    def is_sparse(name: str) -> bool:
        return name in types and types[name].pattern is not None and not tn.is_select(types[name])

    out: set[str] = set()
    found = degree(step.body, is_sparse, out)
    if step.within:
        out.update(w.tensor for w in step.within if not _walked_once(found, w, types))
    elif found is MIXED:
        patterns = (types[load.array].pattern for load in loads(step.body) if is_sparse(load.array))
        out.update(p.owner for p in patterns if p is not None)
    return out


def _walked_once(found: Degree, within: tn.Within, types: Mapping[str, tn.TensorType]) -> bool:
    """Whether the body is linear in one access by this walk, so that what is stored twice adds up."""
    if found is None:
        return False
    mine = 0
    for array, indices in found:
        pattern = types[array].pattern
        names = tuple(i.name for i in indices if isinstance(i, Var))
        if pattern is not None and len(names) == len(indices) and in_owner(pattern, names) == within:
            mine += 1
    return mine == 1


def degree(body: Body, is_sparse: Sparse, out: set[str]) -> Degree:
    """The accesses of stored values that the body is linear in.

    A finished sum along a pattern counts as a number. Owners of reductions along a pattern that are not linear go to `out`.
    """
    match body:
        case Const() | Var():
            return NUMBER
        case Load(array, places):
            if any(degree(p, is_sparse, out) != NUMBER for p in places):
                return MIXED
            return frozenset(((array, places),)) if is_sparse(array) else NUMBER
        case Cast(arg, dtype):
            inner = degree(arg, is_sparse, out)
            linear = dtype.is_float or dtype.is_complex or (arg.dtype.kind in "biu" and dtype.kind != "b")
            return inner if linear or inner == NUMBER else MIXED
        case Reduce():
            inner = degree(body.body, is_sparse, out)
            if not body.within:
                return inner if body.monoid == "add" or inner == NUMBER else MIXED
            walked = [w.tensor for w in body.within if is_sparse(w.tensor)]
            if body.monoid != "add" or inner is None or len(inner) != len(walked):
                out.update(walked)
            return NUMBER
        case Apply(op, args):
            return _of_operation(op, args, [degree(a, is_sparse, out) for a in args])


def _of_operation(op: str, args: tuple[Body, ...], degrees: list[Degree]) -> Degree:
    if all(d == NUMBER for d in degrees):
        return NUMBER
    if op in ("neg", "conj", "real", "imag"):
        return degrees[0]
    if any(d is MIXED for d in degrees):
        return MIXED
    known = [d for d in degrees if d is not None]
    if op == "mul":
        return known[0] | known[1] if not known[0] & known[1] else MIXED
    if op == "div":
        return MIXED if known[1] else known[0]
    if op in ("add", "sub"):
        return known[0] if known[0] == known[1] else MIXED
    if op == "where" and not known[0]:
        branches = {d for a, d in zip(args[1:], known[1:]) if not (isinstance(a, Const) and a.value == 0)}
        return branches.pop() if len(branches) == 1 else MIXED
    return MIXED
