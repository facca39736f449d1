"""isl objects of a scop: its context and domains as sets, and computations that may give up."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from polyai.poly.nodes import Scop
from polyai.poly.tree import braces, parameter_list
from polyai.term.late import late

if TYPE_CHECKING:
    import islpy as isl
else:
    isl = late("islpy")

T = TypeVar("T")


def parameters(scop: Scop) -> isl.Set:
    """The context as a parameter set."""
    return isl.Set.read_from_str(isl.DEFAULT_CONTEXT, scop.context)


def domains(scop: Scop) -> isl.UnionSet:
    """All instances of all statements, on the hull."""
    parts = "; ".join(braces(s.domain) for s in scop.statements)
    return isl.UnionSet.read_from_str(isl.DEFAULT_CONTEXT, f"{parameter_list(scop)} -> {{ {parts} }}")


def relations(scop: Scop, texts: list[str]) -> isl.UnionMap:
    """Access relations as one union map; their bodies share the parameters of the scop."""
    parts = "; ".join(braces(t) for t in texts)
    return isl.UnionMap.read_from_str(isl.DEFAULT_CONTEXT, f"{parameter_list(scop)} -> {{ {parts} }}")


def bounded(compute: Callable[[], T], operations: int) -> T | None:
    """`compute()`, or None if isl needs more than `operations` (about 5000 a millisecond).

    isl's context counts operations for everybody; the count and the limit are put back afterwards. islpy does not say why isl
    failed, so any failure counts as giving up: the caller's other way meets a real error again.
    """
    context = isl.DEFAULT_CONTEXT
    before = context.get_max_operations()
    context.reset_operations()
    context.set_max_operations(operations)
    try:
        return compute()
    except isl.Error:
        return None
    finally:
        context.set_max_operations(before)
        context.reset_operations()
