"""A rule on terms applied to whole arrays: shapes broadcast, one comprehension, patterns kept where zeros stay zeros."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from polyai.errors import ShapeError, TraceError, UnsupportedError
from polyai.frontend.core import Array, Shape, Tracer, find_tracer
from polyai.frontend.size_value import SizeValue
from polyai.frontend.term import Rule, Term, apply, number, zero_value
from polyai.scalar import dtype as dt
from polyai.shapes.expr import Size
from polyai.tensor import nodes as tn
from polyai.term.late import late

if TYPE_CHECKING:
    from polyai.frontend.surface import assembling, merging
    from polyai.tensor import support
else:
    merging = late("polyai.frontend.surface.merging")
    assembling = late("polyai.frontend.surface.assembling")
    support = late("polyai.tensor.support")


def broadcast(tracer: Tracer, shapes: Sequence[Shape], what: str, arrays: Sequence[Array] = ()) -> Shape:
    """The common shape. Different symbols of the same size are taken as equal, a size 1 is stretched; both record a guard."""
    rank = max((len(s) for s in shapes), default=0)
    out = []
    for d in range(rank):
        sizes = [s[len(s) - rank + d] for s in shapes if len(s) - rank + d >= 0]
        out.append(broadcast_sizes(tracer, sizes, what, arrays))
    return tuple(out)


def broadcast_sizes(tracer: Tracer, sizes: Sequence[Size], what: str, arrays: Sequence[Array] = ()) -> Size:
    """The common size of one dimension."""
    known = tracer.sizes
    best: Size = 1
    for size in sizes:
        a, b = known.resolve(best), known.resolve(size)
        if a == b or b == 1:
            best = a
        elif a == 1:
            best = b
        elif known.is_decided(a) and known.hint(b) == 1 and known.unify(b, 1, f"{what}: broadcast"):
            best = a
        elif known.is_decided(b) and known.hint(a) == 1 and known.unify(a, 1, f"{what}: broadcast"):
            best = b
        elif known.unify(a, b, what):
            best = known.resolve(b)
        elif known.hint(b) == 1 and known.unify(b, 1, f"{what}: broadcast"):
            best = a
        elif known.hint(a) == 1 and known.unify(a, 1, f"{what}: broadcast"):
            best = b
        else:
            raise ShapeError(
                f"{what}: sizes {known.described(a)} and {known.described(b)} do not match",
                tracer.shapes_text(arrays) if arrays else "",
                "sizes must be equal or 1" if known.hint(a) is not None else "declare them as the same size, dim(...)",
            )
    return best


def places(array: Array, indices: Sequence[tn.Index]) -> list[Any]:
    """Index expressions that read `array` under `indices` with broadcasting: trailing dimensions, 0 where it is stretched."""
    resolve = array.tracer.sizes.resolve
    tail = indices[len(indices) - array.rank :] if array.rank else ()
    return [0 if e == 1 and resolve(i.extent) != 1 else i for e, i in zip(array.extents, tail)]


def operand(tracer: Tracer, value: Any) -> Array | Term:
    """An array, or a term for a number or a size."""
    if isinstance(value, (Array, Term)):
        return value
    if isinstance(value, (SizeValue, np.generic, bool, int, float, complex)):
        return tracer.scalar(value)
    return tracer.array(value)


def pointwise(stem: str, rule: Rule, *values: Any) -> Any:
    """`rule` at every element of the broadcast operands: one step. In index notation: the term itself."""
    tracer = find_tracer(values, stem)
    operands = [operand(tracer, v) for v in values]
    if any(isinstance(v, Term) for v in values):
        return rule(*(element(tracer, v, stem) for v in operands))
    arrays = [v for v in operands if isinstance(v, Array)]
    if max((a.rank for a in arrays), default=0) == 1 and _are_lines(tracer, arrays):
        made = _on_lines(stem, rule, tracer, [o if isinstance(o, Array) else v for o, v in zip(operands, values)])
        if made is not None:
            return made
    if any(a.is_sparse for a in arrays):
        return _on_pattern(tracer, stem, rule, operands, arrays)
    indices = tracer.indices(broadcast(tracer, [a.extents for a in arrays], stem, arrays))
    terms = [v if isinstance(v, Term) else tracer.read(v, places(v, indices)) for v in operands]
    out = tracer.emit(stem, indices, rule(*terms))
    if tracer.along and any(a.name in tracer.along for a in arrays) and all(a.name in tracer.along or not a.rank for a in arrays):
        tracer.along[out.name] = lambda: _along(tracer, stem, rule, operands)
    return out


def _along(tracer: Tracer, stem: str, rule: Rule, operands: Sequence[Array | Term]) -> Array:
    """What a rule gives of vectors along one pattern and of scalars, as the sparse array of that pattern."""
    whole = [along(v) if isinstance(v, Array) and v.name in tracer.along else v for v in operands]
    first = next(v for v in whole if isinstance(v, Array) and v.is_sparse)
    if any(isinstance(v, Array) and v.is_sparse and v.type.pattern != first.type.pattern for v in whole):
        raise UnsupportedError(f"{stem} of what two sparse arrays store", "their elements lie along two patterns", "use operators on the arrays themselves")
    return pointwise_stored(stem, lambda _, *terms: rule(*terms), first, *(cast(Any, v) for v in whole))


def along(vector: Array) -> Array:
    """The sparse array that a vector along its pattern lists."""
    known = vector.tracer.along
    found = known[vector.name]
    if not isinstance(found, Array):
        found = known[vector.name] = found()
    return found


def element(tracer: Tracer, value: Array | Term, stem: str) -> Term:
    """The operand of a rule in index notation: a term, or a scalar array."""
    if isinstance(value, Term):
        return value
    if value.rank:
        raise TraceError(f"{stem} of an element and the whole array {tracer.text(value)}", "", "index the array as well: A[i, j]")
    return tracer.read(value, ())


def _on_pattern(tracer: Tracer, stem: str, rule: Rule, operands: list[Array | Term], arrays: list[Array]) -> Array:
    """The result at the stored coordinates of the one pattern that the sparse operands share."""
    sparse = [a for a in arrays if a.is_sparse]
    first = sparse[0]
    shape = broadcast(tracer, [a.extents for a in arrays], stem, arrays)
    whole = [a for a in sparse if a.extents == tuple(map(tracer.sizes.resolve, shape))]
    if whole and len(whole) < len(sparse) and whole[0].rank == 2:
        return _stretched(tracer, stem, rule, operands, arrays, whole[0])
    if any(a.type.pattern != first.type.pattern for a in sparse):
        return _on_join(tracer, stem, rule, operands, arrays)
    indices = tracer.indices(_unstretched(tracer, stem, first, arrays))
    value = rule(*(v if isinstance(v, Term) else tracer.read(v, places(v, indices)) for v in operands))
    if _is_dense(value, sparse, arrays):
        return tracer.emit(stem, indices, value)
    _zero_stays_zero(tracer, stem, value, sparse)
    within = tracer.within(first, [i.name for i in indices])
    return tracer.emit(stem, indices, value, (within,), first.type.pattern, any(a.is_matrix for a in sparse))


def toarray(x: Any) -> Any:
    """The dense array with the same elements; coordinates stored twice add up."""
    a = find_tracer((x,), "toarray").array(x)
    if not a.is_sparse:
        return a
    a = a.tracer.alike.get(a.name, a)
    tracer = a.tracer
    zero = number(False if a.type.dtype.kind == "b" else 0, a.type.dtype)
    base = tracer.emit("zeros", tracer.indices(a.extents), zero)
    points = tracer.indices(a.extents)
    monoid = "or" if a.type.dtype.kind == "b" else "add"
    within = tracer.within(a, [i.name for i in points])
    return tracer.scatter("toarray", base, monoid, points, points, tracer.read(a, points), (within,))


def _are_lines(tracer: Tracer, arrays: Sequence[Array]) -> bool:
    """Whether vectors that are known as sparse matrices of one row are among the operands, or sparse vectors of different patterns."""
    return any(a.name in tracer.lines for a in arrays) or len({a.type.pattern for a in arrays if a.is_sparse}) > 1


def _on_lines(stem: str, rule: Rule, tracer: Tracer, operands: Sequence[Any]) -> Array | None:
    """The result as a sparse matrix of one row; None where it would be dense."""
    try:
        found = pointwise(stem, rule, *(_row_of(tracer, v) if isinstance(v, Array) else v for v in operands))
    except UnsupportedError:
        return None
    return squeezed(found) if found.is_sparse else None


def _row_of(tracer: Tracer, a: Array) -> Array:
    if a.name in tracer.lines:
        return tracer.lines[a.name]
    return assembling.as_row(a) if a.is_sparse else a


def squeezed(row: Array) -> Array:
    """A sparse matrix of one row as a dense vector, which is returned as a sparse one."""
    tracer = row.tracer
    dense_row, there = stored_densely(row)
    (k,) = tracer.indices(row.extents[1:])
    out = tracer.emit("line", (k,), tracer.read(dense_row, (0, k)))
    (k,) = tracer.indices(row.extents[1:])
    tracer.presence[out.name] = tracer.emit("stored", (k,), tracer.read(there, (0, k)))
    tracer.lines[out.name] = row
    return out


def stored_densely(a: Array) -> tuple[Array, Array]:
    """A sparse array as a dense one, and where it stores something."""
    ones = pointwise_stored("stored", lambda e: number(True, dt.bool_), a)
    out, there = toarray(a), toarray(ones)
    a.tracer.presence[out.name] = there
    return out, there


def _zero_stays_zero(tracer: Tracer, stem: str, value: Term, sparse: Sequence[Array]) -> None:
    """Raises UnsupportedError for what would be dense."""
    at_zero = zero_value(value.body, frozenset(a.name for a in sparse))
    if at_zero is None or at_zero != 0:
        raise UnsupportedError(
            f"{stem} of the sparse {tracer.text(sparse[0])} is not zero where nothing is stored",
            "the result would be dense" + ("" if at_zero is None else f": an implicit zero becomes {at_zero}"),
            "give it a fill value, filled(x, 0), which keeps it sparse, or make it dense first with .toarray()",
        )


def _is_dense(value: Term, sparse: Sequence[Array], arrays: Sequence[Array]) -> bool:
    """Whether a dense operand of the whole shape makes the result dense: `A > D`, where nothing says that it is zero."""
    known = sparse[0].tracer.sizes.resolve
    full = any(not a.is_sparse and a.extents == tuple(map(known, sparse[0].extents)) for a in arrays)
    return full and zero_value(value.body, frozenset(a.name for a in sparse)) is None


def _stretched(tracer: Tracer, stem: str, rule: Rule, operands: list[Array | Term], arrays: list[Array], whole: Array) -> Array:
    """A product with a sparse row or column, which is as good as dense: stored where the matrix and the row or column are.

        A * R    C[i, where(R[0, j] is stored, j, -1)] = A[i, j] * R[0, j]   within A(i, j)
    """
    by_columns = all(merging.order_of(a) == (1, 0) for a in arrays if a.is_sparse and a.rank == 2)
    entered = whole if by_columns or merging.order_of(whole) == (0, 1) else merging.converted(whole, (0, 1))
    instead: dict[int, Array] = {}
    there: list[Array] = []
    for a in arrays:
        if a.is_sparse and a.extents != whole.extents:
            instead[id(a)], presence = stored_densely(a)
            there.append(presence)
        elif a.is_sparse and a.type.pattern != whole.type.pattern:
            return _on_pattern(tracer, stem, rule, operands, [x for x in arrays if x.extents == whole.extents])
        elif a is whole:
            instead[id(a)] = entered
    indices = tracer.indices(whole.extents)
    value = rule(*(v if isinstance(v, Term) else tracer.read(instead.get(id(v), v), places(instead.get(id(v), v), indices)) for v in operands))
    for name in (instead[id(a)].name for a in arrays if id(a) in instead):
        if zero_value(value.body, frozenset((name,))) != 0:
            raise UnsupportedError(
                f"{stem} stretches the sparse {tracer.text(next(a for a in arrays if a.is_sparse and a is not whole))}",
                "where it stores nothing, the result would not be zero",
                "make it dense with .toarray()",
            )
    for presence in there:
        value = apply("where", tracer.read(presence, places(presence, indices)), value, number(False if value.dtype.kind == "b" else 0, value.dtype))
    within = tracer.within(entered, [i.name for i in indices])
    alike = tracer.emit(stem, indices, value, (within,), entered.type.pattern, whole.is_matrix)

    def keeps(i: Term, j: Term) -> Term:
        out: Term | None = None
        for presence in there:
            at = [0 if e == 1 and full != 1 else x for e, full, x in zip(presence.extents[::-1], whole.extents[::-1], (j, i))][::-1]
            read = tracer.read(presence, at)
            out = read if out is None else out & read
        assert out is not None
        return out

    return assembling.filtered(alike, keeps, alike, stem)


def _on_join(tracer: Tracer, stem: str, rule: Rule, operands: list[Array | Term], arrays: list[Array]) -> Array:
    """The result at the coordinates that the operands' patterns imply: a union, an intersection, a mix of them."""
    sparse = [a for a in arrays if a.is_sparse]
    shape = _unstretched(tracer, stem, sparse[0], arrays)
    parts, order = merging.aligned(sparse)
    instead = {id(a): p for a, p in zip(sparse, parts)}
    indices = tracer.indices(shape)
    names = [i.name for i in indices]
    terms = [v if isinstance(v, Term) else tracer.read(instead.get(id(v), v), places(instead.get(id(v), v), indices)) for v in operands]
    value = rule(*terms)
    if _is_dense(value, parts, arrays):
        return tracer.emit(stem, indices, value)
    _zero_stays_zero(tracer, stem, value, parts)
    clauses = merging.clauses_of(support.support(value.body, tracer.types))
    if not clauses:
        raise UnsupportedError(f"{stem} of sparse arrays is zero everywhere, or nowhere for certain", "its pattern is unknown", "use .toarray()")
    readers = [tracer.within(p, names) for p in parts]
    within = merging.join(tracer, indices, merging.with_readers(clauses, readers), order, merging.bits_of(parts))
    pattern = tn.Pattern(within.tensor, tuple(range(len(indices))))
    return tracer.emit(stem, indices, value, (within,), pattern, any(a.is_matrix for a in sparse))


def _unstretched(tracer: Tracer, stem: str, first: Array, arrays: list[Array]) -> Shape:
    """The common shape of `arrays`, which must be that of every sparse one."""
    shape = broadcast(tracer, [a.extents for a in arrays], stem, arrays)
    sparse = [a for a in arrays if a.is_sparse]
    if len(shape) != first.rank or any(tracer.sizes.resolve(e) != s for a in sparse for e, s in zip(a.extents, shape)):
        raise UnsupportedError(
            f"{stem} stretches the sparse {tracer.text(first)}", tracer.shapes_text(arrays), "the dense operand may broadcast, the sparse one may not"
        )
    return shape


def pointwise_stored(stem: str, rule: Rule, first: Array, *values: Any) -> Array:
    """`rule` at the stored coordinates of the sparse `first`, by definition: what is not stored stays absent. The other
    operands are dense and broadcast, or share the pattern."""
    tracer = first.tracer
    operands = [operand(tracer, v) for v in values]
    indices = tracer.indices(_unstretched(tracer, stem, first, [first, *(v for v in operands if isinstance(v, Array))]))
    terms = [v if isinstance(v, Term) else tracer.read(v, places(v, indices)) for v in (first, *operands)]
    within = tracer.within(first, [i.name for i in indices])
    return tracer.emit(stem, indices, rule(*terms), (within,), first.type.pattern, first.is_matrix)
