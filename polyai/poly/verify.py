"""What holds for every scop between passes. Each check raises VerifyError: a defect of PolyAI, never of its user."""

from __future__ import annotations

from typing import TYPE_CHECKING

from polyai.errors import VerifyError
from polyai.poly import tree as st
from polyai.poly.nodes import Ragged, Scop, Statement, isl_name
from polyai.scalar.expr import Load, Var
from polyai.scalar.ops import MONOIDS
from polyai.term.late import late
from polyai.term.node import walk

if TYPE_CHECKING:
    import islpy as isl
else:
    isl = late("islpy")


def verify(scop: Scop) -> None:
    """All checks below."""
    names_are_unique(scop)
    for s in scop.statements:
        dims_and_domain_agree(s)
        expressions_use_known_names(scop, s)
        accesses_have_relations(scop, s)
        ragged_dims_lie_below_their_parents(s)
    if scop.schedule is not None:
        each_statement_has_one_leaf(scop)
    allocations_are_of_temporaries(scop)


def names_are_unique(scop: Scop) -> None:
    """Statements, and arrays as isl spells them, have names of their own."""
    for kind, names in (
        ("statements", [s.name for s in scop.statements]),
        ("arrays", [isl_name(a.name) for a in scop.arrays]),
        ("parameters", list(scop.parameters)),
    ):
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise VerifyError(f"two {kind} of scop {scop.name} are called {twice[0]}")


def dims_and_domain_agree(s: Statement) -> None:
    """The domain is a set of the statement's own tuple."""
    domain = isl.Set.read_from_str(isl.DEFAULT_CONTEXT, s.domain)
    named = tuple(domain.get_dim_name(isl.dim_type.set, p) for p in range(domain.dim(isl.dim_type.set)))
    if domain.get_tuple_name() != s.name or named != s.dims:
        raise VerifyError(f"the domain of {s.name} is over {domain.get_tuple_name()}{list(named)}", f"its dims are {list(s.dims)}")
    if s.extents and len(s.extents) != len(s.dims):
        raise VerifyError(f"{s.name} has {len(s.dims)} dims and {len(s.extents)} extents")


def expressions_use_known_names(scop: Scop, s: Statement) -> None:
    """Each variable is a dim of the statement or a size; each monoid is in the table."""
    known = {*s.dims, *scop.parameters}
    for root in s.roots:
        for n in walk(root):
            if isinstance(n, Var) and n.name not in known and isl_name(n.name) not in known:
                raise VerifyError(f"{s.name} reads the unknown variable {n.name}", f"known are {', '.join(sorted(known))}")
    if s.monoid is not None and s.monoid not in MONOIDS:
        raise VerifyError(f"{s.name} updates by {s.monoid}, which is no monoid")


def accesses_have_relations(scop: Scop, s: Statement) -> None:
    """Each Load has as many indices as its array has dimensions, and a read relation; the write relation is the target's."""
    arrays = {a.name: a for a in scop.arrays}
    if s.write.array != s.target:
        raise VerifyError(f"{s.name} writes {s.target} and its relation {s.write.array}")
    read = {r.array for r in s.reads}
    for root in s.roots:
        for n in walk(root):
            if not isinstance(n, Load):
                continue
            if n.array not in arrays or n.array not in read:
                raise VerifyError(f"{s.name} reads {n.array}, which has no {'relation' if n.array in arrays else 'declaration'}")
            if len(n.indices) != len(arrays[n.array].extents) or n.dtype != arrays[n.array].dtype:
                raise VerifyError(f"{s.name} reads {n.array} with {len(n.indices)} indices as {n.dtype}", str(arrays[n.array]))
    if s.target not in arrays or len(s.at) != len(arrays[s.target].extents) or s.value.dtype != arrays[s.target].dtype:
        raise VerifyError(f"{s.name} writes {s.target} with {len(s.at)} indices as {s.value.dtype}", str(arrays.get(s.target)))
    if arrays[s.target].role in ("input", "stream"):
        raise VerifyError(f"{s.name} writes the {arrays[s.target].role} {s.target}")


def ragged_dims_lie_below_their_parents(s: Statement) -> None:
    """A ragged dim follows its parents in program order, and runs as far as its fibre."""
    for r in s.ragged:
        places = [s.dims.index(d) for d in (*r.parents, r.dim)]
        if places != sorted(places):
            raise VerifyError(f"the ragged dim {r.dim} of {s.name} stands before its parents {', '.join(r.parents)}")
        if s.extents and s.extents[places[-1]] != Ragged(r.tensor, r.level):
            raise VerifyError(f"the ragged dim {r.dim} of {s.name} does not run along its fibre")


def each_statement_has_one_leaf(scop: Scop) -> None:
    """The schedule holds every statement once."""
    leaves = sorted(st.statements_of(st.read(scop, scop.schedule)))
    if leaves != sorted(s.name for s in scop.statements):
        raise VerifyError(f"the schedule of {scop.name} has the leaves {', '.join(leaves)}")


def allocations_are_of_temporaries(scop: Scop) -> None:
    """Only temporaries are allocated, each once."""
    temporaries = {a.name for a in scop.arrays if a.role in ("temporary", "workspace")}
    names = [a.array for a in scop.allocations]
    if len(set(names)) != len(names) or not set(names) <= temporaries:
        raise VerifyError(f"the allocations of {scop.name} are {', '.join(names)}")
