"""Access relations from expressions: exact where indices are affine, any element along the other dimensions.

    A.val[i, q] * X[A.crd1[i, q], j]        { S[i, q, j] -> A_val[i, q] }
                                            { S[i, q, j] -> X[r0, j] : 0 <= r0 < c }       not must
    where(i > 0, x[i - 1], 0.0)             { S[i] -> x[i - 1] : i > 0 }
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping

from polyai.poly.affine import affine, condition, refuted, weakest
from polyai.poly.nodes import Relation, Statement, isl_name
from polyai.scalar import dtype as dt
from polyai.scalar.dtype import DType
from polyai.scalar.expr import Apply, Cast, Const, Expr, Load, Var

Limits = Mapping[str, tuple[str, ...]]
"""Array -> its extents as isl text."""


def loads_in(expr: Expr) -> Iterator[Load]:
    """Every Load of an expression, also those in indices of others."""
    match expr:
        case Load(_, parts):
            yield expr
            for part in parts:
                yield from loads_in(part)
        case Apply(_, parts):
            for part in parts:
                yield from loads_in(part)
        case Cast(arg):
            yield from loads_in(arg)
        case _:
            return


def variables_in(expr: Expr) -> Iterator[str]:
    """The name of every variable, as often as it occurs."""
    match expr:
        case Var(name):
            yield name
        case Load(_, parts) | Apply(_, parts):
            for part in parts:
                yield from variables_in(part)
        case Cast(arg):
            yield from variables_in(arg)
        case _:
            return


def write_of(head: str, target: str, at: tuple[Expr, ...], dtype: DType, known: Container[str], limits: Limits) -> Relation:
    """The relation of a statement's write. `head` is its tuple, `known` its dims and parameters."""
    return _relation(head, Load(target, at, dtype), (), False, known, limits)


def reads_of(head: str, roots: Iterable[Expr], known: Container[str], limits: Limits) -> tuple[Relation, ...]:
    """The relations of all Loads in `roots`, each once. Under `where` they hold for instances that its condition lets through."""
    found = (_relation(head, load, guards, masked, known, limits) for root in roots for load, guards, masked in guards_of(root, known))
    return tuple(dict.fromkeys(found))


def row_of(head: str, workspace: str, row: tuple[Expr, ...], known: Container[str], limits: Limits) -> Relation:
    """All elements of a row of a workspace: what a walk of the row reads."""
    return _relation(head, Load(workspace, (*row, Load("", (), dt.i64)), dt.i64), (), False, known, limits)


def whole_of(head: str, load: Load, known: Container[str], limits: Limits) -> Relation:
    """All elements of an array that a place of a fibre is read from."""
    return _relation(head, anywhere(load), (), False, known, limits)


def anywhere(load: Load) -> Load:
    """An access of the same array at places that nothing is known of."""
    return Load(load.array, tuple(Load("", (), dt.i64) for _ in load.indices), load.dtype)


def _relation(head: str, load: Load, guards: tuple[str, ...], masked: bool, known: Container[str], limits: Limits) -> Relation:
    places, conditions, must = [], list(guards), not masked
    for position, (index, limit) in enumerate(zip(load.indices, limits[load.array], strict=True)):
        text = affine(index, known)
        if text is None:
            text, must = f"r{position}", False
        places.append(text)
        if masked or text == f"r{position}":
            conditions.append(f"0 <= {text} < {limit}")
    inside = f"{head} -> {isl_name(load.array)}[{', '.join(places)}]"
    return Relation(load.array, f"{{ {inside}{' : ' if conditions else ''}{' and '.join(conditions)} }}", must)


def guards_of(
    expr: Expr, known: Container[str], guards: tuple[str, ...] = (), masked: bool = False
) -> Iterator[tuple[Load, tuple[str, ...], bool]]:
    """Each Load with the affine conditions under which it is made; the flag says that others, not affine, hold it back too."""
    match expr:
        case Load(_, indices):
            yield expr, guards, masked
            for index in indices:
                yield from guards_of(index, known, guards, masked)
        case Apply("where", (test, yes, no)):
            yield from guards_of(test, known, guards, masked)
            hidden = masked or condition(test, known) is None
            for branch, given in ((yes, weakest(test, known)), (no, refuted(test, known))):
                yield from guards_of(branch, known, guards if given is None else (*guards, given), hidden)
        case Apply(_, args):
            for arg in args:
                yield from guards_of(arg, known, guards, masked)
        case Cast(arg):
            yield from guards_of(arg, known, guards, masked)
        case _:
            pass


def begins_below_zero(index: Expr, statement: Statement) -> bool:
    """True for `p - 1`, of a dim that runs from 0: the sum of all before, which bounds and counts of fibres are."""
    match index:
        case Apply("sub", (Var(name), Const(value))):
            return value.real > 0 and f"0 <= {name} <" in statement.domain and not any(r.dim == name for r in statement.ragged)
        case _:
            return False
