"""The same elements in another shape or order: reshape, transposes, broadcasts, flips. Each is one comprehension."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from polyai.errors import ShapeError
from polyai.frontend.core import (
    Array,
    Shape,
    Tracer,
    dense,
    find_tracer,
    index_expr,
    index_term,
    normalized_axes,
    normalized_axis,
    to_shape,
    to_size,
)
from polyai.frontend.surface import merging, spreading
from polyai.frontend.surface.assembling import filtered, reshaped
from polyai.frontend.surface.linalg import permuted
from polyai.frontend.surface.pointwise import broadcast, places, squeezed
from polyai.frontend.term import Term, apply
from polyai.shapes import expr as sx
from polyai.shapes.expr import Size
from polyai.tensor import nodes as tn


def given(x: Any, what: str) -> Array:
    """`x` as a dense traced array."""
    return dense(find_tracer((x,), what).array(x), what)


def permute_dims(x: Any, axes: Any = None) -> Any:
    """Dimension d of the result is dimension axes[d]; without axes all dimensions in reverse. Sparse arrays keep their pattern."""
    a = find_tracer((x,), "transpose").array(x)
    if axes is None:
        return permuted(a, tuple(reversed(range(a.rank))))
    order = tuple(normalized_axis(d, a.rank, "transpose") for d in axes)
    if sorted(order) != list(range(a.rank)):
        raise ShapeError(f"transpose: axes {tuple(axes)} are no permutation", a.tracer.shape_text(a), f"name each of 0 .. {a.rank - 1} once")
    return permuted(a, order)


def moveaxis(x: Any, source: Any, destination: Any) -> Any:
    """The dimensions `source` moved to the places `destination`; the others keep their order."""
    a = find_tracer((x,), "moveaxis").array(x)
    sources = [normalized_axis(s, a.rank, "moveaxis") for s in (source if isinstance(source, (tuple, list)) else (source,))]
    targets = [normalized_axis(t, a.rank, "moveaxis") for t in (destination if isinstance(destination, (tuple, list)) else (destination,))]
    if len(sources) != len(targets) or len(set(sources)) != len(sources) or len(set(targets)) != len(targets):
        raise ShapeError("moveaxis: source and destination do not pair", f"source={source}, destination={destination}")
    order = [d for d in range(a.rank) if d not in sources]
    for t, s in sorted(zip(targets, sources)):
        order.insert(t, s)
    return permuted(a, order)


def swapaxes(x: Any, axis1: Any, axis2: Any) -> Any:
    """Two dimensions exchanged."""
    a = find_tracer((x,), "swapaxes").array(x)
    order = list(range(a.rank))
    p, q = normalized_axis(axis1, a.rank, "swapaxes"), normalized_axis(axis2, a.rank, "swapaxes")
    order[p], order[q] = order[q], order[p]
    return permuted(a, order)


def reshape(x: Any, *shape: Any) -> Any:
    """The elements in row-major order with another shape; one size may be -1. Raises ShapeError if the counts differ."""
    a = find_tracer((x,), "reshape").array(x)
    tracer = a.tracer
    wanted = list(to_shape(shape[0] if len(shape) == 1 else tuple(shape), tracer))
    if sum(1 for s in wanted if isinstance(s, int) and s == -1) > 1 or any(isinstance(s, int) and s < -1 for s in wanted):
        raise ShapeError(f"reshape to {_shape_text(tracer, wanted)}", "at most one size can be -1", "give the other sizes")
    groups = _groups(tracer, a, wanted)
    if groups is None:
        groups = [(list(range(a.rank)), list(range(len(wanted))))]
    for old, new in groups:
        _fix_quotients(tracer, a, old, new, wanted)
        _settle(tracer, a, old, new, wanted)
    extents = [tracer.sizes.resolve(s) for s in wanted]
    if tuple(extents) == a.extents:
        return a
    if a.is_sparse:
        return squeezed(reshaped(a, (1, *extents))) if len(extents) == 1 else reshaped(a, extents)
    indices = tracer.indices(extents)
    at: list[Any] = [0] * a.rank
    for old, new in groups:
        linear = _linear(tracer, [indices[n] for n in new])
        for d, place in zip(old, _places_of(tracer, linear, [a.extents[d] for d in old])):
            at[d] = place
    return tracer.emit("reshape", indices, tracer.read(a, at))


def _shape_text(tracer: Tracer, shape: Sequence[Size]) -> str:
    return f"({', '.join(tracer.sizes.described(s) for s in shape)})"


def _groups(tracer: Tracer, a: Array, wanted: list[Size]) -> list[tuple[list[int], list[int]]] | None:
    """Runs of old and new dimensions with equal products, found from the values at hand; None if those cannot tell."""
    old = [tracer.sizes.hint(e) for e in a.extents]
    new = [None if s == -1 else tracer.sizes.hint(s) for s in wanted]
    if any(o is None for o in old) or any(n is None and s != -1 for n, s in zip(new, wanted)):
        return _declared_groups(tracer, a, wanted)
    total = prod(o for o in old if o is not None)
    known = prod(n for n in new if n is not None)
    if -1 in wanted:
        if known == 0 or total % known:
            raise ShapeError(
                f"reshape to {_shape_text(tracer, wanted)} does not come out even", tracer.shape_text(a), "the product of the sizes must divide the count"
            )
        new[wanted.index(-1)] = total // known
    elif known != total:
        raise ShapeError(f"reshape to {_shape_text(tracer, wanted)}", f"{tracer.shape_text(a)} has {total} elements, not {known}", "the counts must agree")
    return None if total == 0 else _matched([o or 0 for o in old], [n or 0 for n in new])


def _declared_groups(tracer: Tracer, a: Array, wanted: list[Size]) -> list[tuple[list[int], list[int]]] | None:
    """Groups where no values are known: equal sizes at both ends are paired, the rest is one group."""
    old, new = list(range(a.rank)), list(range(len(wanted)))
    head, tail = [], []
    while old and new and tracer.sizes.resolve(a.extents[old[0]] - wanted[new[0]]) == 0:
        head.append(([old.pop(0)], [new.pop(0)]))
    while old and new and tracer.sizes.resolve(a.extents[old[-1]] - wanted[new[-1]]) == 0:
        tail.append(([old.pop()], [new.pop()]))
    return [*head, *([(old, new)] if old or new else []), *reversed(tail)]


def _matched(old: list[int], new: list[int]) -> list[tuple[list[int], list[int]]]:
    """(2, 3, 4) and (6, 4) give [([0, 1], [0]), ([2], [1])]."""
    out: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(old) or j < len(new):
        left, right = [], []
        p = q = 1
        if i < len(old):
            left, p, i = [i], old[i], i + 1
        if j < len(new) and (p != 1 or not left):
            right, q, j = [j], new[j], j + 1
        elif j < len(new) and new[j] == 1:
            right, j = [j], j + 1
        while p != q:
            if p < q:
                left, p, i = [*left, i], p * old[i], i + 1
            else:
                right, q, j = [*right, j], q * new[j], j + 1
        out.append((left, right))
    return out


def _fix_quotients(tracer: Tracer, a: Array, old: list[int], new: list[int], wanted: list[Size]) -> None:
    """Fix the sizes of a split whose parts are quotients of symbols (heads of an attention): its accesses become affine."""
    sizes, hints = tracer.sizes, tracer.sizes.hints
    if len(new) < 2:
        return
    total: Size = 1
    for d in old:
        total = total * a.extents[d]
    known: Size = 1
    for n in new:
        known = known if wanted[n] == -1 else known * sizes.resolve(wanted[n])
    parts = [sx.floordiv(sizes.resolve(total), known) if wanted[n] == -1 and known != 0 else sizes.resolve(wanted[n]) for n in new]
    for part in parts[1:]:
        if _has_quotient(part):
            for name in sorted(sx.symbols(part)):
                if name in hints:
                    sizes.number(sx.symbol(name), "reshape")


def _has_quotient(size: Size) -> bool:
    return not isinstance(size, int) and any(isinstance(atom, (sx.FloorDiv, sx.Mod)) for monomial, _ in size.terms for atom in monomial)


def _settle(tracer: Tracer, a: Array, old: list[int], new: list[int], wanted: list[Size]) -> None:
    """Make the products of one group equal: find the size written -1, and guard what is not equal by its form."""
    sizes = tracer.sizes
    total: Size = 1
    for d in old:
        total = total * a.extents[d]
    known: Size = 1
    unknown = None
    for n in new:
        if wanted[n] == -1:
            unknown = n
        else:
            known = known * sizes.resolve(wanted[n])
    if unknown is not None:
        if known == 0:
            raise ShapeError(f"reshape to {_shape_text(tracer, wanted)}", "a size -1 next to a size 0 could be anything", "give the size")
        if known != 1:
            sizes.require(sx.mod(total, known), "==", 0, f"reshape of {tracer.shape_text(a)} does not come out even")
        wanted[unknown] = sx.floordiv(sizes.resolve(total), sizes.resolve(known))
    elif sizes.resolve(total) != sizes.resolve(known) and not sizes.unify(total, known, "reshape"):
        raise ShapeError(
            f"reshape to {_shape_text(tracer, wanted)}", f"{sizes.described(total)} elements cannot become {sizes.described(known)}", "the counts must agree"
        )


def _linear(tracer: Tracer, indices: Sequence[tn.Index]) -> Term | int:
    """The row-major position of a point."""
    out: Term | int = 0
    for n, i in enumerate(indices):
        out = index_term(i) if n == 0 else out * tracer.size_term(i.extent) + index_term(i)
    return out


def _places_of(tracer: Tracer, position: Term | int, extents: Sequence[Size]) -> list[Any]:
    """The coordinates of a row-major position."""
    out: list[Any] = []
    sizes = [tracer.sizes.resolve(e) for e in extents]
    for d, size in enumerate(sizes):
        inner: Size = 1
        for s in sizes[d + 1 :]:
            inner = inner * s
        place = position
        if size == 1 or isinstance(position, int):
            out.append(0)
            continue
        if inner != 1:
            place = place // tracer.size_term(inner)
        if any(s != 1 for s in sizes[:d]):
            place = place % tracer.size_term(size)
        out.append(place)
    return out


def flatten(x: Any) -> Any:
    """All elements in row-major order as a vector."""
    return reshape(x, -1)


def expand_dims(x: Any, axis: Any = 0) -> Any:
    """New dimensions of size 1 at the places `axis` of the result."""
    a = given(x, "expand_dims")
    axes = axis if isinstance(axis, (tuple, list)) else (axis,)
    rank = a.rank + len(axes)
    new = normalized_axes(tuple(axes), rank, "expand_dims")
    rest = iter(a.extents)
    indices = a.tracer.indices([1 if d in new else next(rest) for d in range(rank)])
    return a.tracer.emit("expand_dims", indices, a.tracer.read(a, [i for d, i in enumerate(indices) if d not in new]))


def squeeze(x: Any, axis: Any = None) -> Any:
    """The array without dimensions of size 1: those named, or all whose size is 1 in this call."""
    a = given(x, "squeeze")
    sizes = a.tracer.sizes
    if axis is None:
        axes = tuple(d for d, e in enumerate(a.extents) if sizes.compare(e, "==", 1, "squeeze"))
    else:
        axes = normalized_axes(axis, a.rank, "squeeze")
        for d in axes:
            sizes.require(a.extents[d], "==", 1, f"squeeze of axis {d} of {a.tracer.shape_text(a)}", "only sizes 1 can be dropped")
    if not axes:
        return a
    kept = a.tracer.indices([e for d, e in enumerate(a.extents) if d not in axes])
    rest = iter(kept)
    return a.tracer.emit("squeeze", kept, a.tracer.read(a, [0 if d in axes else next(rest) for d in range(a.rank)]))


def broadcast_to(x: Any, shape: Any) -> Any:
    """`x` stretched to `shape`."""
    tracer = find_tracer((x, shape), "broadcast_to")
    a = dense(tracer.array(x), "broadcast_to")
    wanted = to_shape(shape, tracer)
    both = broadcast(tracer, [a.extents, wanted], "broadcast_to", (a,))
    for got, want in zip(both, wanted):
        tracer.sizes.require(got, "==", want, f"broadcast_to of {tracer.shape_text(a)}", "a size can be stretched from 1 only")
    if len(both) > len(wanted):
        raise ShapeError("broadcast_to a shape of lower rank", tracer.shape_text(a))
    indices = tracer.indices(tuple(map(tracer.sizes.resolve, wanted)))
    return tracer.emit("broadcast_to", indices, tracer.read(a, places(a, indices)))


def broadcast_arrays(*xs: Any) -> list[Any]:
    """All operands stretched to their common shape."""
    tracer = find_tracer(xs, "broadcast_arrays")
    arrays = [dense(tracer.array(x), "broadcast_arrays") for x in xs]
    shape = broadcast(tracer, [a.extents for a in arrays], "broadcast_arrays", arrays)
    return [stretched(a, shape) for a in arrays]


def stretched(a: Array, shape: Shape) -> Array:
    """`a` broadcast to a shape that it fits."""
    if a.extents == tuple(map(a.tracer.sizes.resolve, shape)):
        return a
    indices = a.tracer.indices(shape)
    return a.tracer.emit("broadcast_to", indices, a.tracer.read(a, places(a, indices)))


def flip(x: Any, axis: Any = None) -> Any:
    """The elements in reverse order along `axis` (None: all axes)."""
    a = given(x, "flip")
    axes = normalized_axes(axis, a.rank, "flip")
    indices = a.tracer.indices(a.extents)
    at = [a.tracer.size_term(a.extents[d]) - 1 - index_term(i) if d in axes else i for d, i in enumerate(indices)]
    return a.tracer.emit("flip", indices, a.tracer.read(a, at))


def roll(x: Any, shift: Any, axis: Any = None) -> Any:
    """Elements moved by `shift` along `axis`, those that leave re-enter at the other end. Without axis: flattened."""
    a = given(x, "roll")
    if axis is None:
        if a.rank != 1:
            return _roll_flat(a, shift)
        axis = 0
    shifts = shift if isinstance(shift, (tuple, list)) else (shift,)
    axes = axis if isinstance(axis, (tuple, list)) else (axis,)
    if len(shifts) == 1:
        shifts = tuple(shifts) * len(axes)
    moved: dict[int, Any] = {}
    for d, s in zip(axes, shifts):
        place = normalized_axis(d, a.rank, "roll")
        moved[place] = moved.get(place, 0) + s
    tracer = a.tracer
    indices = tracer.indices(a.extents)
    at: list[Any] = list(indices)
    conditions: list[tuple[int, Term, Any, Any]] = []
    for d, s in moved.items():
        n, here, by = a.extents[d], index_term(indices[d]), to_size(s, tracer)
        if tracer.sizes.compare(by, "==", 0, "roll"):
            continue
        forward = tracer.sizes.compare(by, ">", 0, "roll")
        size, step = tracer.size_term(n), tracer.size_term(by if forward else -1 * by)
        if tracer.sizes.compare(n, ">=", by if forward else -1 * by, "roll"):
            if forward:
                conditions.append((d, here < step, here - step + size, here - step))
            else:
                conditions.append((d, here < size - step, here + step, here + step - size))
        else:
            at[d] = apply("mod", here - step if forward else here + step, size)
    return tracer.emit("roll", indices, _chosen(tracer, a, at, conditions))


def _roll_flat(a: Array, shift: Any) -> Any:
    shape = tuple(a.tracer.sizes.value(e) for e in a.extents)
    return reshape(roll(reshape(a, -1), shift, 0), shape)


def _chosen(tracer: Tracer, a: Array, at: list[Any], conditions: list[tuple[int, Term, Any, Any]]) -> Term:
    """One read per combination of sides, chosen by `where`: every read stays affine."""
    if not conditions:
        return tracer.read(a, at)
    (d, condition, yes, no), *rest = conditions
    first, second = list(at), list(at)
    first[d], second[d] = yes, no
    return apply("where", condition, _chosen(tracer, a, first, rest), _chosen(tracer, a, second, rest))


def repeat(x: Any, repeats: Any, axis: Any = None) -> Any:
    """Each element `repeats` times along `axis`; flattened without axis. `repeats` may be a vector, one count for each element: then
    data decide the size of the result. Raises ShapeError for counts of another number, or negative ones."""
    a = given(x, "repeat")
    if axis is None:
        a, axis = reshape(a, -1), 0
    if isinstance(repeats, (list, tuple, np.ndarray)) and np.size(repeats) == 1:
        repeats = int(np.reshape(repeats, ()))
    if isinstance(repeats, (list, tuple)) or bool(getattr(repeats, "ndim", False)):
        return spreading.repeated(a, repeats, normalized_axis(axis, a.rank, "repeat"))
    tracer, d = a.tracer, normalized_axis(axis, a.rank, "repeat")
    n = to_size(repeats, tracer)
    indices = tracer.indices([e * n if k == d else e for k, e in enumerate(a.extents)])
    at = [index_term(i) // tracer.size_term(n) if k == d and n != 1 else i for k, i in enumerate(indices)]
    return tracer.emit("repeat", indices, tracer.read(a, at))


def tile(x: Any, reps: Any) -> Any:
    """The whole array repeated along each dimension."""
    a = given(x, "tile")
    tracer = a.tracer
    counts = to_shape(reps, tracer)
    rank = max(a.rank, len(counts))
    counts = (1,) * (rank - len(counts)) + tuple(counts)
    extents = (1,) * (rank - a.rank) + a.extents
    indices = tracer.indices([e * c for e, c in zip(extents, counts)])
    at = [i if c == 1 else index_term(i) % tracer.size_term(e) for i, e, c in zip(indices, extents, counts)]
    return tracer.emit("tile", indices, tracer.read(a, [index_expr(p) for p in at[rank - a.rank :]]))


def tril(x: Any, k: int = 0, format: str | None = None) -> Any:
    """The elements on and below the k-th diagonal, zero above it. `format`: "csr" or "csc", of a sparse array."""
    out = _triangle("tril", x, k)
    return out if format is None else out.asformat(format)


def triu(x: Any, k: int = 0, format: str | None = None) -> Any:
    """The elements on and above the k-th diagonal, zero below it. `format`: "csr" or "csc", of a sparse array."""
    out = _triangle("triu", x, k)
    return out if format is None else out.asformat(format)


def _triangle(stem: str, x: Any, k: int) -> Any:
    a = find_tracer((x,), stem).array(x)
    if a.rank < 2:
        raise ShapeError(f"{stem} of an array with fewer than two dimensions", a.tracer.shape_text(a))
    indices = a.tracer.indices(a.extents)
    row, column = index_term(indices[-2]), index_term(indices[-1])
    kept = column <= row + k if stem == "tril" else column >= row + k
    value = apply("where", kept, a.tracer.read(a, indices), 0)
    if a.type.pattern is None:
        return a.tracer.emit(stem, indices, value)
    alike = a.tracer.emit(stem, indices, value, (a.tracer.within(a, [i.name for i in indices]),), a.type.pattern, a.is_matrix)
    if len(a.tracer.regions) > 1 or not merging.reorders(a):
        return alike
    return filtered(merging.entered(a), (lambda i, j: j <= i + k) if stem == "tril" else (lambda i, j: j >= i + k), alike, stem)
