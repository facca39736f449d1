"""What a user declares of sizes: ranges, and relations between them; collected, checked for contradictions, told to the tracer.

    compile(f, csr[n, m], f32[m, 64], where=[n <= m])      jit(dynamic={"X": {0: n}}, where=[n % 8 == 0])
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from polyai.errors import GuardError, ShapeError, TraceError
from polyai.frontend.known import RELATIONS
from polyai.frontend.sizes import Sizes
from polyai.frontend.spec import DimExpr, Relation
from polyai.shapes import expr as sx
from polyai.shapes.dim import Dim
from polyai.shapes.expr import Size, Sym
from polyai.shapes.facts import NO, Facts
from polyai.term.node import node

DECLARED = "declared"
"""Why of a guard that a user promised: a call that breaks it is refused, not compiled anew."""

DynamicDims = Mapping[str, "Sequence[int] | Mapping[int, DimExpr]"]


@node
class Solved:
    """A size that one extent determines: extent = factor * size + offset."""

    factor: int
    offset: int


class Declarations:
    """The declared sizes of one trace. `bare` are those that some dimension is; others are solved for, see `solve`."""

    def __init__(self, extents: Iterable[DimExpr], where: Sequence[Relation]) -> None:
        self.dims: dict[str, Dim] = {}
        self.where = tuple(where)
        self.bare: set[str] = set()
        self.open: set[str] = set()
        linear: set[str] = set()
        for extent in extents:
            self._add(extent.dims)
            names = sx.symbols(extent.size)
            self.open |= names
            if solved_by(extent.size) is not None:
                linear |= names
                if any(extent.size == sx.symbol(n) for n in names):
                    self.bare |= names
        self.open -= self.bare
        for missing in sorted(self.open - linear):
            raise ShapeError(f"size {missing} cannot be found from the arguments", "no dimension is just it", f"declare one dimension as {missing}")
        for relation in self.where:
            if not isinstance(relation, Relation):
                raise ShapeError(
                    f"where={relation!r} is no relation", "a relation compares sizes made by dim()", "write where=[n <= m], where=[m == n // 2]"
                )
            self._add(relation.dims)
            unknown = sorted((sx.symbols(relation.left) | sx.symbols(relation.right)) - self.bare - self.open)
            if unknown:
                raise ShapeError(
                    f"{relation} speaks of {unknown[0]}, which cannot be found from the arguments", "no dimension is it", f"declare one dimension as {unknown[0]}"
                )
        self.facts = self._consistent()

    def _add(self, dims: Iterable[Dim]) -> None:
        for d in sorted(dims, key=lambda d: d.name):
            if self.dims.setdefault(d.name, d) != d:
                raise ShapeError(f"size {d.name} is declared twice", f"as {self.dims[d.name]} and as {d}", "use one dim() for it")

    def _consistent(self) -> Facts:
        """All that is declared, as facts. Raises ShapeError if no call could fulfil it."""
        facts = Facts(self.dims.values())
        for relation in self.where:
            if facts.prove(relation.left, relation.op, relation.right) is NO:
                known = "; ".join([str(d) for d in self.dims.values() if d.name in sx.symbols(relation.left - relation.right)] + [str(r) for r in self.where if r is not relation])
                raise ShapeError("the declarations contradict each other", f"{relation} can never hold with {known}", "drop one of them, or widen a range")
            if relation.op == "==":
                facts = facts.also(zero=(relation.left - relation.right,))
            elif relation.op != "!=":
                facts = facts.also(nonnegative=(_nonnegative(relation),))
        for name, d in self.dims.items():
            alone = tuple(r for r in self.where if sx.symbols(r.left - r.right) == {name})
            if alone and not _some_value(d, alone):
                raise ShapeError("the declarations contradict each other", f"no {name} has {'; '.join(map(str, (d, *alone)))}", "drop one of them, or widen a range")
        return facts

    def tell(self, sizes: Sizes) -> None:
        """Make the symbols of the trace, and its facts."""
        for d in self.dims.values():
            size = sizes.add(d.name, d.name, None, d.min, d.max)
            if d.min > 0:
                sizes.declare(size, ">=", d.min, DECLARED)
            if d.max is not None:
                sizes.declare(size, "<=", d.max, DECLARED)
            if d.multiple_of > 1:
                sizes.known.divisible(size, d.multiple_of)
                sizes.declare(sx.mod(size, d.multiple_of), "==", 0, DECLARED)
        for relation in self.where:
            sizes.declare(relation.left, relation.op, relation.right, DECLARED)
        if self.where or self.dims:
            sizes.prove = self.facts.prove

    def take(self, size: Size) -> tuple[str, Solved] | None:
        """The symbol that an extent gives a value to, the first time it is met; None if its symbols have values already."""
        found = solved_by(size)
        if found is None:
            return None
        name, solved = found
        if name in self.bare and solved == Solved(1, 0):
            self.bare.discard(name)
            return found
        if name in self.open:
            self.open.discard(name)
            return found
        return None

    def likely(self) -> dict[str, int]:
        """One likely value of each size that has any: the middle one."""
        return {d.name: sorted(d.likely)[len(d.likely) // 2] for d in self.dims.values() if d.likely}


TRIED = 4096
"""Values of a size that are tried, one by one, where all relations with no other size must hold at once."""


def _some_value(d: Dim, alone: Sequence[Relation]) -> bool:
    """False if none of the values of a size fulfils the relations that speak of it alone: all values of a short range are tried, or all
    remainders, if the relations are about remainders only."""
    period = math.lcm(d.multiple_of, *(p for r in alone for p in (_period(r.left), _period(r.right)) if p))
    periodic = all(_period(r.left) and _period(r.right) for r in alone)
    values = range(d.low, d.low + period if d.high is None or (periodic and d.high >= d.low + period) else d.high + 1, d.multiple_of)
    if len(values) > TRIED or (d.high is None and not periodic):
        return True
    return any(all(RELATIONS[r.op](sx.evaluate(r.left, {d.name: v}), sx.evaluate(r.right, {d.name: v})) for r in alone) for v in values)


def _period(size: Size) -> int | None:
    """After how much of its only symbol a size repeats; None if it does not."""
    out = 1
    for monomial, _ in () if isinstance(size, int) else size.terms:
        for atom in monomial:
            match atom:
                case sx.Mod(num, int(den)) if isinstance(num, int) or all(isinstance(a, Sym) for m, _ in num.terms for a in m):
                    out = math.lcm(out, den)
                case _:
                    return None
    return out


def _nonnegative(relation: Relation) -> Size:
    difference = relation.left - relation.right
    return {">=": difference, ">": difference - 1, "<=": -1 * difference, "<": -1 * difference - 1}[relation.op]


def solved_by(size: Size) -> tuple[str, Solved] | None:
    """(n, factor, offset) if `size` is factor * n + offset with a positive factor."""
    found: tuple[str, int] | None = None
    offset = 0
    for monomial, coefficient in () if isinstance(size, int) else size.terms:
        match monomial:
            case ():
                offset = coefficient
            case (Sym(name),) if found is None and coefficient > 0:
                found = (name, coefficient)
            case _:
                return None
    return None if found is None else (found[0], Solved(found[1], offset))


def relations(where: Any) -> tuple[Relation, ...]:
    """What `where` holds; one relation may stand alone. Raises ShapeError if it holds none."""
    if isinstance(where, Relation):
        return (where,)
    if isinstance(where, str) or not isinstance(where, Iterable):
        raise ShapeError(f"where={where!r} holds no relations", "a relation compares sizes made by dim()", "write where=[n <= m], where=[m == n // 2]")
    return tuple(where)


def argument_names(dynamic: Any, fn: Any) -> None:
    """Raise TraceError if `dynamic` names what is no argument of `fn`."""
    if not isinstance(dynamic, Mapping):
        return
    try:
        known = inspect.signature(fn).parameters
    except (TypeError, ValueError):
        return
    if any(p.kind is p.VAR_KEYWORD for p in known.values()):
        return
    for name in dynamic:
        root = re.match(r"[^.\[]*", name) if isinstance(name, str) else None
        if root is None or root[0] not in known:
            raise TraceError(f"dynamic names {name!r}", f"the arguments are {', '.join(known)}", 'write dynamic={"X": {0: dim("n")}} for an argument X')


def chosen_dims(dynamic: DynamicDims, spellings: Iterable[str], rank: int, strict: bool = True) -> dict[int, DimExpr | None]:
    """The dimensions of an argument that `dynamic` names, and the sizes they are declared as. Raises TraceError if it has no such dimension,
    unless it is an array of a ragged batch or a prepared matrix (not `strict`), whose dimensions are others."""
    out: dict[int, DimExpr | None] = {}
    for text in spellings:
        dims = dynamic.get(text, ())
        for d in dims:
            if not isinstance(d, int) or not -rank <= d < rank:
                if not strict:
                    continue
                raise TraceError(f"dynamic[{text!r}] names dimension {d!r}", f"{text} has {rank} dimensions", "count dimensions from 0, or from -1 backwards")
            out[d % rank] = dims[d] if isinstance(dims, Mapping) else None
    return out


def named_dims(dynamic: Any) -> list[DimExpr]:
    """The sizes declared by `dynamic={"X": {0: n}}`."""
    if isinstance(dynamic, str) or not isinstance(dynamic, Mapping):
        return []
    out: list[DimExpr] = []
    for name, dims in dynamic.items():
        if isinstance(dims, Mapping):
            for d, size in dims.items():
                if not isinstance(d, int) or not isinstance(size, DimExpr):
                    raise TraceError(f"dynamic[{name!r}] = {{{d!r}: {size!r}}}", "a dimension number and a size are needed", 'write dynamic={"X": {0: dim("n")}}')
                out.append(size)
    return out


def outside(dims: Mapping[str, Dim], places: Mapping[str, str], name: str, value: int) -> GuardError:
    """The error for a declared size with a value that its declaration excludes."""
    return GuardError(
        f"dimension {name} is {value}, outside its range",
        f"{places.get(name, 'an argument')} gave the value; declared is {dims[name]}",
        f"pass an array within the range, or widen dim({name!r})",
    )
