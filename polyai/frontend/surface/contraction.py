"""Sums of products over labelled dimensions: what matmul, einsum and their relatives have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from types import MappingProxyType
from typing import TYPE_CHECKING

from polyai.errors import ShapeError, UnsupportedError
from polyai.frontend.core import Array, Tracer
from polyai.frontend.surface.pointwise import broadcast_sizes, stored_densely
from polyai.frontend.term import Term, apply, convert, number, reduced
from polyai.scalar import dtype as dt
from polyai.scalar.dtype import DType
from polyai.scalar.expr import Var
from polyai.shapes.expr import Size
from polyai.tensor import nodes as tn
from polyai.term.late import late

if TYPE_CHECKING:
    from polyai.frontend.surface import assembling, merging
else:
    merging = late("polyai.frontend.surface.merging")
    assembling = late("polyai.frontend.surface.assembling")

Labels = tuple[str, ...]
Factor = tuple[Array, Labels]


def contract(tracer: Tracer, stem: str, factors: Sequence[Factor], out: Labels, stretched: frozenset[str] = frozenset()) -> Array:
    """out[...] = sum over the other labels of the product of the factors. Labels in `stretched` broadcast.

    A sparse factor restricts the iteration to its stored coordinates: within the reduction if one of its labels is summed;
    as the pattern of the result if they are exactly the result's; else the result is scattered into zeros.
    """
    extents = _extents(tracer, stem, factors, stretched)
    if len(factors) > 2:
        chosen = _pair(tracer, factors, out, extents)
        if chosen is not None:
            a, b = factors[chosen[0]], factors[chosen[1]]
            rest = [f for n, f in enumerate(factors) if n not in chosen]
            middle = _kept((a, b), rest, out)
            part = contract(tracer, stem, (a, b), middle, stretched)
            return contract(tracer, stem, [*rest, (part, middle)], out, stretched)
    return _single(tracer, stem, factors, out, extents)


def _extents(tracer: Tracer, stem: str, factors: Sequence[Factor], stretched: frozenset[str]) -> dict[str, Size]:
    extents: dict[str, Size] = {}
    arrays = [a for a, _ in factors]
    for array, labels in factors:
        for d, label in enumerate(labels):
            size = array.extents[d]
            if label not in extents:
                extents[label] = size
            elif label in stretched:
                extents[label] = broadcast_sizes(tracer, (extents[label], size), stem, arrays)
            elif not tracer.sizes.unify(extents[label], size, stem):
                raise ShapeError(
                    f"{stem}: {tracer.text(array)} has {tracer.sizes.described(array.type.shape[d])} in dimension {d},"
                    f" {tracer.sizes.described(extents[label])} is needed",
                    tracer.shapes_text(arrays),
                    "the summed dimensions must have the same size" if tracer.sizes.hint(size) is not None else "declare them as the same size",
                )
    return {label: tracer.sizes.resolve(size) for label, size in extents.items()}


def _single(tracer: Tracer, stem: str, factors: Sequence[Factor], out: Labels, extents: Mapping[str, Size]) -> Array:
    factors = [(tracer.alike.get(a.name, a), labels) for a, labels in factors]
    if sum(a.is_sparse for a, _ in factors) > 1:
        searched = _triangle(tracer, stem, factors, out)
        if searched is not None:
            return searched
        factors = [(stored_densely(a)[0], labels) if a.is_sparse and a.rank == 1 and _beside_matrix(factors) else (a, labels) for a, labels in factors]
    factors, extents = _entered(tracer, factors, out, extents)
    given = factors
    factors, again = _distinct(given)
    extents = {**extents, **{other: extents[label] for other, label in again.items()}}
    over_labels = [label for label in extents if label not in out]
    made = tracer.indices([extents[label] for label in (*out, *over_labels)])
    index = dict(zip((*out, *over_labels), made))
    value, dtype = _product(tracer, factors, index, extents, again)
    over = tuple(index[label] for label in over_labels)
    sparse = [f for f in factors if f[0].is_sparse]
    if not sparse:
        return tracer.emit(stem, [index[label] for label in out], _summed(over, value, dtype, ()), strong=True)
    if _meet(tracer, stem, sparse, index):
        return _several(tracer, stem, given, [f for f in given if f[0].is_sparse], out, extents)
    within = _one_pattern(tracer, stem, sparse, index)
    first, labels = sparse[0]
    matrix = any(a.is_matrix for a, _ in sparse)
    if any(label not in out for label in labels):
        value = _summed(over, value, dtype, (within,))
        return tracer.emit(stem, [index[label] for label in out], value, strong=True)
    value = _summed(over, value, dtype, ())
    if set(labels) == set(out):
        assert first.type.pattern is not None
        pattern = tn.Pattern(within.tensor, tuple(first.type.pattern.dims[labels.index(label)] for label in out))
        stored = tracer.emit(stem, [index[label] for label in out], value, (within,), pattern, matrix, strong=True)
        return _only_where_stored(tracer, stem, stored, factors, out)
    base = tracer.emit("zeros", tracer.indices([extents[label] for label in out]), number(False if dtype.kind == "b" else 0, dtype))
    points = [index[label] for label in out]
    return tracer.scatter(stem, base, "or" if dtype.kind == "b" else "add", points, points, value, (within,))


def _beside_matrix(factors: Sequence[Factor]) -> bool:
    return any(a.is_sparse and a.rank > 1 for a, _ in factors)


def _only_where_stored(tracer: Tracer, stem: str, made: Array, factors: Sequence[Factor], out: Labels) -> Array:
    """Without the elements where a sparse vector among the factors stores nothing."""
    there = [(tracer.presence[a.name], labels) for a, labels in factors if a.name in tracer.presence and set(labels) <= set(out)]
    if not there or not merging.reorders(made):
        return made

    def keeps(i: Term, j: Term) -> Term:
        at = dict(zip(out, (i, j)))
        reads = [tracer.read(presence, [at[label] for label in labels]) for presence, labels in there]
        return reads[0] if len(reads) == 1 else reads[0] & reads[1]

    return assembling.filtered(merging.entered(made), keeps, made, stem)


def _triangle(tracer: Tracer, stem: str, factors: Sequence[Factor], out: Labels) -> Array | None:
    """A product of three sparse matrices in a triangle: that of two where the third one stores something, times the third one.

        sum(i, j, k) A[i, j] B[j, k] C[i, k]  =  sum(i, k) C[i, k] * P[i, k]   with P = A @ B where C is stored

    None for other products.
    """
    sparse = [f for f in factors if f[0].is_sparse and f[0].rank == 2 and len(set(f[1])) == 2]
    if len(sparse) != 3 or len({label for _, labels in sparse for label in labels}) != 3:
        return None
    if any(sum(label in labels for _, labels in sparse) != 2 for _, own in sparse for label in own):
        return None
    others = [f for f in factors if all(f is not s for s in sparse)]
    for third in sparse:
        left, right = (f for f in sparse if f is not third)
        (shared,) = set(left[1]) & set(right[1])
        used = {label for _, labels in others for label in labels} | set(out)
        if shared in used:
            continue
        (n,), (m,) = set(left[1]) - {shared}, set(right[1]) - {shared}
        mask = third[0] if third[1] == (n, m) else merging.turned(third[0])
        a, b = left[0] if left[1] == (n, shared) else merging.turned(left[0]), right[0] if right[1] == (shared, m) else merging.turned(right[0])
        if set(out) == {n, m}:  # which stores what both do
            return contract(tracer, stem, [(contract(tracer, stem, [(a, (n, shared)), (b, (shared, m))], (n, m)), (n, m)), third, *others], out)
        inside = masked_product(tracer, stem, (a, ("n", "k")), (b, ("k", "m")), mask)
        again = mask if merging.order_of(mask) == (0, 1) else merging.converted(mask, (0, 1))
        return contract(tracer, stem, [(inside, (n, m)), (again, (n, m)), *others], out)
    return None


def _entered(tracer: Tracer, factors: Sequence[Factor], out: Labels, extents: Mapping[str, Size]) -> tuple[Sequence[Factor], Mapping[str, Size]]:
    """Selected rows of a matrix as two factors, the selection and the matrix: they are walked where they are, not copied.

        A[rows] @ X = sum(r, k) S(i, r) A[r, k] X[k, j]

    A selection is entered by its rows: beside other sparse factors, only if it gives the rows of the result.
    """
    new: list[Factor] = []
    more = dict(extents)
    alone = sum(a.is_sparse for a, _ in factors) == 1
    for array, labels in factors:
        found = tracer.selected.get(array.name)
        here = found is not None and found.select.region is tracer.regions[-1]  # a selection holds nothing that could enter a loop or branch
        if found is None or not here or len(set(labels)) != len(labels) or not (alone or labels[found.dimension : found.dimension + 1] == out[:1]):
            new.append((array, labels))
            continue
        row = f"{labels[found.dimension]}/{len(more)}"
        more[row] = found.source.extents[found.dimension]
        new.append((found.select, (labels[found.dimension], row)))
        new.append((found.source, tuple(row if d == found.dimension else label for d, label in enumerate(labels))))
    return new, more


def _holds_values(array: Array) -> bool:
    return not tn.is_select(array.type)


def _distinct(factors: Sequence[Factor]) -> tuple[list[Factor], dict[str, str]]:
    """Factors whose sparse ones have no label twice, and which label each new one must be equal to: a diagonal of stored
    elements is walked, not located."""
    again: dict[str, str] = {}
    out: list[Factor] = []
    for array, labels in factors:
        own: list[str] = []
        for label in labels:
            if array.is_sparse and label in own:
                own.append(f"{label}/{len(again)}")
                again[own[-1]] = label
            else:
                own.append(label)
        out.append((array, tuple(own)))
    return out, again


def _summed(over: tuple[tn.Index, ...], value: Term, dtype: DType, within: tuple[tn.Within, ...]) -> Term:
    return convert(reduced("or" if dtype.kind == "b" else "add", over, value, within), dtype)


def _product_type(tracer: Tracer, factors: Sequence[Factor]) -> DType:
    out: Term | None = None
    for array, _ in filter(lambda f: _holds_values(f[0]), factors):
        one = Term(number(1, array.type.dtype).body, array.weak)
        out = one if out is None else out * one
    assert out is not None
    return out.dtype


def _meet(tracer: Tracer, stem: str, sparse: Sequence[Factor], index: Mapping[str, tn.Index]) -> bool:
    """Whether sparse factors have different coordinates."""
    withins = {tracer.within(a, [index[label].name for label in labels]) for a, labels in sparse if len(set(labels)) == len(labels)}
    return len(withins) > 1


def _several(
    tracer: Tracer, stem: str, factors: Sequence[Factor], sparse: Sequence[Factor], out: Labels, extents: Mapping[str, Size]
) -> Array:
    """A product whose sparse factors have different coordinates: merged where they have the same labels, else walked one below another."""
    if any(len(set(labels)) != len(labels) for _, labels in sparse):
        named = {label for _, labels in factors for label in labels}
        once = [_without_repeats(tracer, stem, *f) for f in factors]
        return _single(tracer, stem, once, out, {label: e for label, e in extents.items() if label in named})
    walked, groups = _walks(tracer, stem, sparse, out)
    following = iter(walked)  # by place: one array may be a factor twice, each time in another order
    new = [next(following) if a.is_sparse else (a, labels) for a, labels in factors]
    made = tracer.indices([extents[label] for label in (*out, *(x for x in extents if x not in out))])
    index = dict(zip((*out, *(x for x in extents if x not in out)), made))
    value, dtype = _product(tracer, new, index, extents)
    withins = []
    for group in groups:
        members = [walked[n] for n in group]
        told = [tracer.within(a, [index[label].name for label in labels]) for a, labels in members]
        if len(dict.fromkeys(told)) == 1:
            withins.append(told[0])
            continue
        labels = members[0][1]
        own = [index[label] for label in labels]
        order = merging.order_of(members[0][0])
        assert order is not None
        withins.append(merging.join(tracer, own, tuple((w,) for w in dict.fromkeys(told)), order, merging.bits_of([a for a, _ in members])))
    named = {label for _, labels in sparse for label in labels}
    matrix = any(a.is_matrix for a, _ in sparse)
    points = [index[label] for label in out]
    over = tuple(index[label] for label in extents if label not in out)
    first = walked[groups[0][0]]
    if len(groups) == 1 and set(first[1]) == set(out):
        pattern = tn.Pattern(withins[0].tensor, tuple(_place_in(withins[0], p.name) for p in points))
        if tracer.types[withins[0].tensor].pattern is not None:
            return tracer.emit(stem, points, _summed(over, value, dtype, ()), tuple(withins), pattern, matrix, strong=True)
    if len(out) == 2 and set(out) <= named:
        if out[0] not in {first[1][d] for d in (merging.order_of(first[0]) or ())[:-1]}:
            raise UnsupportedError(
                f"{stem} makes a sparse matrix whose rows {tracer.text(first[0])} lists",
                "results are assembled row by row, and a list has no place for an empty row",
                "make one operand dense with .toarray()",
            )
        value = value if dtype == value.dtype else convert(value, dtype)
        everything = [index[label] for label in (*out, *(x for x in extents if x not in out))]
        bits = merging.bits_of([a for a, _ in walked])
        return merging.scattered(tracer, stem, everything, points, value, tuple(withins), (0, 1), bits, matrix)
    rows = {first[1][d] for d in (merging.order_of(first[0]) or ())[:-1]}
    if over and set(out) <= rows | (set(extents) - named):
        return tracer.emit(stem, points, _summed(over, value, dtype, tuple(withins)), strong=True)
    base = tracer.emit("zeros", tracer.indices([extents[label] for label in out]), number(False if dtype.kind == "b" else 0, dtype))
    everything = [index[label] for label in extents]
    return tracer.scatter(stem, base, "or" if dtype.kind == "b" else "add", everything, points, convert(value, dtype), tuple(withins))


def masked_product(tracer: Tracer, stem: str, left: Factor, right: Factor, mask: Array) -> Array:
    """The product of two matrices at the coordinates that `mask` stores."""
    if {mask.rank, left[0].rank, right[0].rank} != {2}:
        raise ShapeError(f"{stem} with a mask takes matrices", tracer.shapes_text((left[0], right[0], mask)), "leave the mask away, or use sddmm")
    extents = _extents(tracer, stem, (left, right, (mask, ("n", "m"))), frozenset())
    instead = []
    for array, labels in (left, right):
        if array.is_sparse and merging.order_of(array) != (0, 1):
            array = merging.converted(array, (0, 1))
        instead.append((array, labels))
    made = tracer.indices([extents[label] for label in ("n", "m", "k")])
    index = dict(zip(("n", "m", "k"), made))
    value, dtype = _product(tracer, instead, index, extents)
    withins = tuple(tracer.within(a, [index[label].name for label in labels]) for a, labels in instead if a.is_sparse)
    points = (index["n"], index["m"])
    pattern, around = masked_pattern(tracer, mask, points)
    return tracer.emit(stem, points, _summed((index["k"],), value, dtype, withins), (around,), pattern, mask.is_matrix, strong=True)


def masked_pattern(tracer: Tracer, mask: Array, points: Sequence[tn.Index]) -> tuple[tn.Pattern, tn.Within]:
    """The coordinates `points` that a sparse matrix stores, by rows, each once."""
    if not mask.is_sparse or mask.rank != 2 or not all(tracer.sizes.unify(e, p.extent, "a mask") for e, p in zip(mask.extents, points)):
        raise ShapeError("the mask is no sparse matrix of the result's shape", tracer.shape_text(mask), "pass a sparse matrix, or leave the mask away")
    if merging.order_of(mask) != (0, 1):
        mask = merging.converted(mask, (0, 1))
    around = tracer.within(mask, [p.name for p in points])
    assert mask.type.pattern is not None
    tracer.needs_unique.update(dict.fromkeys(i.name for i in tracer.inputs if i.name == around.tensor))
    return mask.type.pattern, around


def _place_in(within: tn.Within, name: str) -> int:
    return within.indices.index(name)


def _walks(tracer: Tracer, stem: str, sparse: Sequence[Factor], out: Labels) -> tuple[list[Factor], list[list[int]]]:
    """The sparse factors, converted where a walk would have to search, and in groups of equal labels in the order of their walks.

    The walk starts with rows of the result; a factor is entered by a label that is known already.
    """
    rest: list[list[int]] = []
    for n, (_, labels) in enumerate(sparse):
        group = next((g for g in rest if set(sparse[g[0]][1]) == set(labels)), None)
        if group is None:
            rest.append([n])
        else:
            group.append(n)
    walked = list(sparse)
    groups: list[list[int]] = []
    known: set[str] = set()
    while rest:
        chosen = _next(sparse, rest, known, out)
        rest.remove(chosen)
        groups.append(chosen)
        labels = sparse[chosen[0]][1]
        entered = [label for label in labels if label in known]
        inner = [label for label in labels if label not in known]
        if not inner and len(labels) > 1:
            names = " and ".join(dict.fromkeys(tracer.text(a) for a, _ in sparse))
            raise UnsupportedError(
                f"{stem} of the sparse {names}",
                f"every coordinate of {tracer.text(sparse[chosen[0]][0])} is named by others, so that it would be searched",
                "multiply two of them first, then take the element-wise product",
            )
        lead = entered or [label for label in out if label in labels][:1] or [labels[0]]
        for n in chosen:
            array, own = sparse[n]
            order = tuple(sorted(range(len(own)), key=lambda d: (own[d] not in lead, labels.index(own[d]))))
            if merging.order_of(array) != order:
                walked[n] = (merging.converted(array, order), own)
        known.update(labels)
    return walked, groups


def _next(sparse: Sequence[Factor], rest: list[list[int]], known: set[str], out: Labels) -> list[int]:
    """The factors to walk next: one with a known label and one that is not, else one with the first label of the result."""
    if known:
        for group in rest:
            labels = sparse[group[0]][1]
            if known & set(labels):
                return group
    if any(tn.is_select(sparse[g[0]][0].type) for g in rest):
        return next(g for g in rest if tn.is_select(sparse[g[0]][0].type))
    return next((g for g in rest if out and out[0] in sparse[g[0]][1]), rest[0])


def _without_repeats(tracer: Tracer, stem: str, array: Array, labels: Labels) -> Factor:
    """A factor whose labels are distinct: of one whose labels repeat, what it holds where they agree."""
    once = tuple(dict.fromkeys(labels))
    return (array, labels) if len(once) == len(labels) else (contract(tracer, stem, [(array, labels)], once), once)


def _product(
    tracer: Tracer, factors: Sequence[Factor], index: Mapping[str, tn.Index], extents: Mapping[str, Size], again: Mapping[str, str] = MappingProxyType({})
) -> tuple[Term, DType]:
    """The product of all factors at one point, and its type; zero where labels that `again` says are equal are not."""
    dtype = _product_type(tracer, factors)
    value: Term | None = None
    for array, labels in factors:
        if not _holds_values(array):
            continue
        at = [0 if e == 1 and extents[label] != 1 else index[label] for e, label in zip(array.extents, labels)]
        read = tracer.read(array, at)
        for other in labels:
            if other in again:
                on = apply("eq", *(Term(Var(index[n].name, dt.i64)) for n in (again[other], other)))
                read = apply("where", on, read, number(False if read.dtype.kind == "b" else 0, read.dtype))
        read = read if read.weak else convert(read, dt.compute_type(dtype))
        value = read if value is None else value & read if dtype.kind == "b" else value * read
    assert value is not None
    for array, labels in factors:
        if array.name in tracer.presence:
            at = [0 if e == 1 and extents[label] != 1 else index[label] for e, label in zip(array.extents, labels)]
            value = apply("where", tracer.read(tracer.presence[array.name], at), value, number(False if value.dtype.kind == "b" else 0, value.dtype))
    return value, dtype


def _one_pattern(tracer: Tracer, stem: str, sparse: Sequence[Factor], index: Mapping[str, tn.Index]) -> tn.Within:
    array, labels = sparse[0]
    return tracer.within(array, [index[label].name for label in labels])


def _kept(pair: Sequence[Factor], rest: Sequence[Factor], out: Labels) -> Labels:
    """Labels that the product of the pair must keep, because the result or another factor has them."""
    needed = set(out) | {label for _, labels in rest for label in labels}
    return tuple(dict.fromkeys(label for _, labels in pair for label in labels if label in needed))


def _pair(tracer: Tracer, factors: Sequence[Factor], out: Labels, extents: Mapping[str, Size]) -> tuple[int, int] | None:
    """The pair to multiply first; None if one step over all labels costs no more than the pairs do (greedily)."""
    sizes = {label: float(hint if (hint := tracer.sizes.hint(size)) is not None else 100) for label, size in extents.items()}
    together = _cost(tracer, factors, sizes)
    best: tuple[float, tuple[int, int]] | None = None
    for i in range(len(factors)):
        for j in range(i + 1, len(factors)):
            pair = (factors[i], factors[j])
            rest = [f for n, f in enumerate(factors) if n not in (i, j)]
            kept = _kept(pair, rest, out)
            sparse = [set(labels) for a, labels in pair if a.is_sparse]
            if len(sparse) == 2 or (sparse and sparse[0] <= set(kept) and sparse[0] != set(kept)):
                continue
            extra = [a for a, labels in rest if a.is_sparse]
            if sparse and extra:
                continue
            cost = _cost(tracer, pair, sizes) + prod(sizes[label] for label in kept) + _cost(tracer, [*rest], sizes, kept)
            if best is None or cost < best[0]:
                best = (cost, (i, j))
    return best[1] if best is not None and best[0] < together else None


def _cost(tracer: Tracer, factors: Sequence[Factor], sizes: Mapping[str, float], more: Labels = ()) -> float:
    """Points of the loop nest over all labels; stored coordinates count as such."""
    labels = {label for _, labels in factors for label in labels} | set(more)
    stored = 1.0
    for array, own in factors:
        if array.is_sparse:
            assert array.type.pattern is not None
            count = tracer.sizes.hints.get(tn.nnz_of(array.type.pattern.owner), 1000)
            stored, labels = stored * max(count, 1), labels - set(own)
    return stored * prod(sizes[label] for label in labels)
