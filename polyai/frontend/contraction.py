"""Sums of products over labelled dimensions: what matmul, einsum and their relatives have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from polyai.errors import ShapeError, UnsupportedError
from polyai.frontend.core import Array, Tracer
from polyai.frontend.pointwise import broadcast_sizes
from polyai.frontend.term import Term, convert, number, reduced
from polyai.scalar import dtype as dt
from polyai.scalar.dtype import DType
from polyai.shapes.expr import Size
from polyai.tensor import nodes as tn

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
    over_labels = [label for label in extents if label not in out]
    made = tracer.indices([extents[label] for label in (*out, *over_labels)])
    index = dict(zip((*out, *over_labels), made))
    dtype = _product_type(tracer, factors)
    value: Term | None = None
    for array, labels in factors:
        at = [0 if e == 1 and extents[label] != 1 else index[label] for e, label in zip(array.extents, labels)]
        read = tracer.read(array, at)
        read = read if read.weak else convert(read, dt.compute_type(dtype))
        value = read if value is None else value & read if dtype.kind == "b" else value * read
    assert value is not None
    over = tuple(index[label] for label in over_labels)
    sparse = [f for f in factors if f[0].is_sparse]
    if not sparse:
        return tracer.emit(stem, [index[label] for label in out], _summed(over, value, dtype, ()), strong=True)
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
        return tracer.emit(stem, [index[label] for label in out], value, (within,), pattern, matrix, strong=True)
    base = tracer.emit("zeros", tracer.indices([extents[label] for label in out]), number(False if dtype.kind == "b" else 0, dtype))
    points = [index[label] for label in out]
    return tracer.scatter(stem, base, "or" if dtype.kind == "b" else "add", points, points, value, (within,))


def _summed(over: tuple[tn.Index, ...], value: Term, dtype: DType, within: tuple[tn.Within, ...]) -> Term:
    return convert(reduced("or" if dtype.kind == "b" else "add", over, value, within), dtype)


def _product_type(tracer: Tracer, factors: Sequence[Factor]) -> DType:
    out: Term | None = None
    for array, _ in factors:
        one = Term(number(1, array.type.dtype).body, array.weak)
        out = one if out is None else out * one
    assert out is not None
    return out.dtype


def _one_pattern(tracer: Tracer, stem: str, sparse: Sequence[Factor], index: Mapping[str, tn.Index]) -> tn.Within:
    for array, labels in sparse:
        if len(set(labels)) != len(labels):
            raise UnsupportedError(
                f"{stem} reads a diagonal of the sparse {tracer.text(array)}", "repeated indices are compiled for dense arrays", "use diagonal(A) or trace(A)"
            )
    withins = [tracer.within(array, [index[label].name for label in labels]) for array, labels in sparse]
    if any(w != withins[0] for w in withins):
        names = " and ".join(dict.fromkeys(tracer.text(a) for a, _ in sparse))
        raise UnsupportedError(
            f"{stem} of the sparse {names}",
            "a product of two sparse arrays with different coordinates is not compiled yet",
            "make one of them dense with .toarray()",
        )
    return withins[0]


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
