"""Products of arrays: matmul and its relatives, einsum, and small functions of matrices."""

from __future__ import annotations

import operator
import string
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from polyai.errors import ShapeError, UnsupportedError
from polyai.frontend.core import Array, Tracer, dense, find_tracer, index_term, normalized_axis
from polyai.frontend.surface.contraction import Labels, contract, masked_pattern, masked_product
from polyai.frontend.surface.elementwise import conj, multiply
from polyai.frontend.term import apply, reduced
from polyai.shapes import expr as sx
from polyai.term.late import late

if TYPE_CHECKING:
    from polyai.frontend.surface import assembling, reductions
    from polyai.frontend.surface import semiring as rings
else:
    assembling = late("polyai.frontend.surface.assembling")
    reductions, rings = late("polyai.frontend.surface.reductions"), late("polyai.frontend.surface.semiring")


def _arrays(what: str, *values: Any) -> tuple[Tracer, list[Array]]:
    tracer = find_tracer(values, what)
    return tracer, [tracer.array(v) for v in values]


def matmul(x1: Any, x2: Any, *, mask: Any = None, complement: bool = False, semiring: rings.Semiring | None = None) -> Any:
    """x1 @ x2: [..., n, k] times [..., k, m], leading dimensions broadcast; vectors as in NumPy. Either may be sparse.

    With a sparse `mask` of shape [n, m] the product of two matrices is computed where the mask stores something, and has its
    pattern; the mask's values do not count. With a `semiring` pairs are multiplied and added by other operations; see `semiring`.
    """
    tracer, (a, b) = _arrays("matmul", x1, x2)
    if complement:
        if mask is None:
            raise ShapeError("matmul with complement and no mask", "the complement is that of the mask", "pass mask=")
        masked_pattern(tracer, tracer.array(mask), tracer.indices((*a.extents[:1], *b.extents[1:])))
        whole = matmul(a, b, semiring=semiring)
        if not whole.is_sparse:
            raise UnsupportedError(
                "the product of a dense matrix with the complement of a mask", "the result would be dense", "multiply, then set it to zero where the mask stores something"
            )
        return assembling.without(whole, tracer.array(mask), "matmul")
    if semiring is not None:
        return rings.product(tracer, semiring, a, b, mask)
    if mask is not None:
        return masked_product(tracer, "matmul", (a, ("n", "k")), (b, ("k", "m")), tracer.array(mask))
    if not a.rank or not b.rank:
        raise ShapeError("matmul of a scalar", tracer.shapes_text((a, b)), "use * to scale an array")
    own = a.times(b)
    own = b.from_left(a) if own is None else own
    if own is not None:
        return own
    left = (*_batch(a.rank - 2), "n", "k") if a.rank > 1 else ("k",)
    right = (*_batch(b.rank - 2), "k", "m") if b.rank > 1 else ("k",)
    batch = _batch(max(a.rank, b.rank) - 2)
    out = (*batch, *(("n",) if a.rank > 1 else ()), *(("m",) if b.rank > 1 else ()))
    return contract(tracer, "matmul", [(a, left), (b, right)], out, frozenset(batch))


def _batch(rank: int) -> Labels:
    return tuple(f"b{n}" for n in range(rank - 1, -1, -1))


def dot(x1: Any, x2: Any) -> Any:
    """NumPy's dot: the last axis of x1 with the last but one of x2; the product for scalars."""
    tracer, (a, b) = _arrays("dot", x1, x2)
    if not a.rank or not b.rank:
        return multiply(a, b)
    left = tuple(f"a{n}" for n in range(a.rank - 1))
    right = [f"c{n}" for n in range(b.rank)]
    right[max(b.rank - 2, 0)] = "k"
    return contract(tracer, "dot", [(a, (*left, "k")), (b, tuple(right))], (*left, *(r for r in right if r != "k")))


def vecdot(x1: Any, x2: Any, axis: Any = -1) -> Any:
    """The sum of conj(x1) * x2 along `axis`; the other dimensions broadcast."""
    tracer, (a, b) = _arrays("vecdot", x1, x2)
    if a.type.dtype.is_complex:
        a = conj(a)
    from_end = [x.rank - normalized_axis(axis, x.rank, "vecdot") for x in (a, b)]
    if from_end[0] != from_end[1]:
        raise ShapeError("vecdot along different dimensions", tracer.shapes_text((a, b)), "use a negative axis")
    labels = [tuple("k" if x.rank - d == from_end[0] else f"b{x.rank - d}" for d in range(x.rank)) for x in (a, b)]
    longest = max(labels, key=len)
    out = tuple(label for label in longest if label != "k")
    return contract(tracer, "vecdot", [(a, labels[0]), (b, labels[1])], out, frozenset(out))


def vdot(x1: Any, x2: Any) -> Any:
    """The sum of conj(x1) * x2 over all elements of arrays of the same shape."""
    tracer, (a, b) = _arrays("vdot", x1, x2)
    if a.type.dtype.is_complex:
        a = conj(a)
    if a.rank != b.rank:
        raise ShapeError("vdot of arrays of different rank", tracer.shapes_text((a, b)), "flatten them with reshape(x, -1)")
    labels = tuple(f"k{d}" for d in range(a.rank))
    return contract(tracer, "vdot", [(a, labels), (b, labels)], ())


def inner(x1: Any, x2: Any) -> Any:
    """The sum of products over the last axis of both."""
    tracer, (a, b) = _arrays("inner", x1, x2)
    if not a.rank or not b.rank:
        return multiply(a, b)
    left, right = tuple(f"a{n}" for n in range(a.rank - 1)), tuple(f"c{n}" for n in range(b.rank - 1))
    return contract(tracer, "inner", [(a, (*left, "k")), (b, (*right, "k"))], (*left, *right))


def outer(x1: Any, x2: Any) -> Any:
    """x1[i] * x2[j] of two vectors."""
    tracer, (a, b) = _arrays("outer", x1, x2)
    if a.rank != 1 or b.rank != 1:
        raise ShapeError("outer takes vectors", tracer.shapes_text((a, b)), "flatten them with reshape(x, -1)")
    return contract(tracer, "outer", [(a, ("i",)), (b, ("j",))], ("i", "j"))


def tensordot(x1: Any, x2: Any, axes: Any = 2) -> Any:
    """Products summed over the last `axes` dimensions of x1 and the first of x2, or over two lists of axes."""
    tracer, (a, b) = _arrays("tensordot", x1, x2)
    if isinstance(axes, int):
        first, second = list(range(a.rank - axes, a.rank)), list(range(axes))
    else:
        first, second = ([x] if isinstance(x, int) else list(x) for x in axes)
    if len(first) != len(second):
        raise ShapeError("tensordot: the two lists of axes have different lengths", f"axes={axes}")
    left, right = [f"a{n}" for n in range(a.rank)], [f"c{n}" for n in range(b.rank)]
    for n, (p, q) in enumerate(zip(first, second)):
        left[normalized_axis(p, a.rank, "tensordot")] = right[normalized_axis(q, b.rank, "tensordot")] = f"k{n}"
    out = tuple(label for label in (*left, *right) if label[0] != "k")
    return contract(tracer, "tensordot", [(a, tuple(left)), (b, tuple(right))], out)


def einsum(subscripts: Any, *operands: Any, semiring: rings.Semiring | None = None) -> Any:
    """NumPy's einsum: ellipses, repeated indices, implicit output, or operands with lists of numbers. Operands may be sparse.

    With a `semiring` a product of two matrices, transposed or not, or of a matrix and a vector.
    """
    if not isinstance(subscripts, str):
        subscripts, operands = _from_lists((subscripts, *operands))
    tracer, arrays = _arrays("einsum", *operands)
    inputs, out, stretched = parse(subscripts, arrays)
    if semiring is not None:
        return _semiring_product(tracer, semiring, list(zip(arrays, inputs)), out)
    return contract(tracer, "einsum", list(zip(arrays, inputs)), out, stretched)


def _semiring_product(tracer: Tracer, ring: rings.Semiring, factors: Sequence[tuple[Array, Labels]], out: Labels) -> Any:
    """A contraction over one label as the product of matrices that it is."""
    sets = [set(labels) for _, labels in factors]
    if len(factors) == 2 and len(sets[0] & sets[1]) == 1 and all(len(s) == a.rank for s, (a, _) in zip(sets, factors)):
        (shared,) = sets[0] & sets[1]
        (a, left), (b, right) = factors if not out or out[0] in sets[0] else factors[::-1]
        kept = (*(x for x in left if x != shared), *(x for x in right if x != shared))
        swaps = ring.mul not in ("first", "second") or factors[0][0] is a
        if a.rank == 2 and b.rank in (1, 2) and kept == out and swaps:
            rows = a if left[1] == shared else permuted(a, (1, 0))
            return rings.product(tracer, ring, rows, b if right[0] == shared else permuted(b, (1, 0)))
    raise UnsupportedError("einsum over a semiring that is no product of two matrices", "products over semirings are compiled as matmul", "use matmul(A, B, semiring=...), or write it as such products")


def _from_lists(given: Sequence[Any]) -> tuple[str, tuple[Any, ...]]:
    """The format einsum(a, [0, 1], b, [1, 2], [0, 2]) as text and operands."""
    pairs, last = given[: len(given) // 2 * 2], given[len(given) // 2 * 2 :]

    def text(labels: Sequence[Any]) -> str:
        return "".join("..." if label is Ellipsis else string.ascii_letters[label] for label in labels)

    out = ",".join(text(pairs[n]) for n in range(1, len(pairs), 2))
    return (f"{out}->{text(last[0])}" if last else out), tuple(pairs[0::2])


def parse(subscripts: str, arrays: Sequence[Array]) -> tuple[list[Labels], Labels, frozenset[str]]:
    """Labels of the operands and of the result, and which of them come from an ellipsis and broadcast."""
    text = subscripts.replace(" ", "")
    left, arrow, right = text.partition("->")
    parts = left.split(",")
    if len(parts) != len(arrays):
        raise ShapeError(f"einsum {subscripts!r} names {len(parts)} operands", f"{len(arrays)} are given", "separate operands by commas")
    inputs = [_labels(part, array.rank, subscripts, array) for part, array in zip(parts, arrays)]
    longest = max((tuple(x for x in labels if x.startswith("...")) for labels in inputs), key=len, default=())
    seen = [label for labels in inputs for label in labels if label not in longest]
    if arrow:
        out = _labels(right, None, subscripts, None, longest)
        unknown = [label for label in out if label not in seen and label not in longest]
        if unknown or len(set(out)) != len(out):
            raise ShapeError(f"einsum {subscripts!r}: the result has {'unknown' if unknown else 'repeated'} indices", f"result: {right}")
    else:
        out = (*longest, *sorted(label for label in set(seen) if seen.count(label) == 1))
    return inputs, out, frozenset(longest)


def _labels(part: str, rank: int | None, subscripts: str, array: Array | None, longest: Labels = ()) -> Labels:
    before, dots, after = part.partition("...")
    if not all(c in string.ascii_letters for c in before + after):
        raise ShapeError(f"einsum {subscripts!r} cannot be read", f"the part {part!r}", "indices are letters; an ellipsis is three dots")
    if rank is None:
        return (*before, *(longest if dots else ()), *after)
    missing = rank - len(before) - len(after)
    if missing < 0 or (missing and not dots):
        tracer = array.tracer if array is not None else None
        raise ShapeError(
            f"einsum {subscripts!r}: {part!r} names {len(before) + len(after)} dimensions, the operand has {rank}",
            tracer.shape_text(array) if tracer is not None and array is not None else "",
            "name every dimension, or use an ellipsis",
        )
    return (*before, *(f"...{n}" for n in range(missing - 1, -1, -1)), *after)


def diagonal(x: Any, offset: int = 0) -> Any:
    """The diagonal of the last two dimensions, shifted by `offset`; of a sparse matrix the main diagonal, dense."""
    tracer, (a,) = _arrays("diagonal", x)
    if a.rank < 2:
        raise ShapeError("the diagonal of an array with fewer than two dimensions", tracer.shape_text(a), "use diag(x) to build a matrix from a vector")
    sizes = tracer.sizes
    rows, columns = a.extents[-2], a.extents[-1]
    rows, columns = (rows, columns - offset) if offset >= 0 else (rows + offset, columns)
    length = rows if sizes.compare(rows, "<=", columns, "diagonal") else columns
    if not sizes.compare(length, ">=", 0, "diagonal"):
        length = 0
    down, across = max(-offset, 0), max(offset, 0)
    if a.is_sparse:
        return _sparse_diagonal(tracer, a, length, offset)
    *batch, i = tracer.indices((*a.extents[:-2], length))
    at = (*batch, index_term(i) + down if down else i, index_term(i) + across if across else i)
    return tracer.emit("diagonal", (*batch, i), tracer.read(a, at))


def _sparse_diagonal(tracer: Tracer, a: Array, length: sx.Size, offset: int) -> Array:
    a = tracer.alike.get(a.name, a)
    i, k = tracer.indices(a.extents)
    on = apply("eq", index_term(i) + offset if offset else index_term(i), index_term(k))
    is_bool = a.type.dtype.kind == "b"
    picked = apply("where", on, tracer.read(a, (i, k)), False if is_bool else 0)
    whole = tracer.emit("diagonal", (i,), reduced("or" if is_bool else "add", (k,), picked, (tracer.within(a, (i.name, k.name)),)))
    if length == i.extent:
        return whole
    (j,) = tracer.indices((length,))
    return tracer.emit("diagonal", (j,), tracer.read(whole, (index_term(j) - offset if offset < 0 else j,)))


def kron(x1: Any, x2: Any, format: str | None = None) -> Any:
    """The Kronecker product of two matrices: [n, m] and [p, q] give [n * p, m * q]. Sparse if both are; else both must be dense.
    `format`: "csr" or "csc", of a sparse one."""
    tracer, (a, b) = _arrays("kron", x1, x2)
    if a.is_sparse and b.is_sparse:
        out: Any = assembling.kron(a, b)
        return out.asformat(format)
    dense(a, "kron with a dense matrix")
    dense(b, "kron with a dense matrix")
    if a.rank != 2 or b.rank != 2:
        raise ShapeError("kron takes matrices", tracer.shapes_text((a, b)), "reshape the operands")
    p, q = b.extents
    i, j = tracer.indices((a.extents[0] * p, a.extents[1] * q))
    places = [op(index_term(x), tracer.size_term(y)) for op in (operator.floordiv, operator.mod) for x, y in ((i, p), (j, q))]
    return tracer.emit("kron", (i, j), tracer.read(a, places[:2]) * tracer.read(b, places[2:]))


def diag(x: Any, k: int = 0) -> Any:
    """The diagonal of a matrix, or the matrix with the vector `x` on its k-th diagonal."""
    tracer, (a,) = _arrays("diag", x)
    if a.rank != 1:
        return diagonal(a, k)
    dense(a, "diag")
    n = a.extents[0] + abs(k)
    i, j = tracer.indices((n, n))
    here = index_term(i) if k >= 0 else index_term(j)
    value = apply("where", apply("eq", index_term(j), index_term(i) + k), tracer.read(a, (here,)), 0)
    return tracer.emit("diag", (i, j), value, strong=True)


def trace(x: Any, offset: int = 0) -> Any:
    """The sum of the diagonal of the last two dimensions, of the type of a `sum`."""
    _, (a,) = _arrays("trace", x)
    line = diagonal(a, offset)
    return reductions.sum(line, line.rank - 1)


def cross(x1: Any, x2: Any, axis: int = -1) -> Any:
    """The cross product of vectors of length 3 along the last axis; both of the same shape."""
    tracer, (a, b) = _arrays("cross", x1, x2)
    if axis not in (-1, a.rank - 1) or a.rank != b.rank:
        raise UnsupportedError("cross along another axis than the last, or of different ranks", tracer.shapes_text((a, b)), "move the axis with moveaxis")
    for d in range(a.rank - 1):
        tracer.sizes.require(a.extents[d], "==", b.extents[d], "cross takes arrays of the same shape")
    for x in (a, b):
        tracer.sizes.require(x.extents[-1], "==", 3, "cross takes vectors of length 3")
    *batch, i = tracer.indices((*a.extents[:-1], 3))
    one, two = (index_term(i) + 1) % 3, (index_term(i) + 2) % 3
    value = tracer.read(a, (*batch, one)) * tracer.read(b, (*batch, two)) - tracer.read(a, (*batch, two)) * tracer.read(b, (*batch, one))
    return tracer.emit("cross", (*batch, i), value)


def matrix_transpose(x: Any) -> Any:
    """The last two dimensions exchanged."""
    _, (a,) = _arrays("matrix_transpose", x)
    if a.rank < 2:
        raise ShapeError("matrix_transpose of an array with fewer than two dimensions", a.tracer.shape_text(a))
    return permuted(a, (*range(a.rank - 2), a.rank - 1, a.rank - 2))


def permuted(a: Array, order: Sequence[int]) -> Array:
    """Dimension d of the result is dimension order[d] of `a`; a sparse array keeps its pattern, transposed."""
    tracer = a.tracer
    if tuple(order) == tuple(range(a.rank)):
        return a
    indices = tracer.indices([a.extents[d] for d in order])
    at = [indices[list(order).index(d)] for d in range(a.rank)]
    if a.type.pattern is None:
        return tracer.emit("transpose", indices, tracer.read(a, at))
    pattern = type(a.type.pattern)(a.type.pattern.owner, tuple(a.type.pattern.dims[d] for d in order))
    within = tracer.within(a, [i.name for i in at])
    return tracer.emit("transpose", indices, tracer.read(a, at), (within,), pattern, a.is_matrix)


def sddmm(q: Any, k: Any, mask: Any, scale: Any = None) -> Any:
    """(q @ k.T) at the coordinates stored in the sparse `mask` times its values; scaled if `scale` is given. Stored where mask is."""
    tracer, (a, b, m) = _arrays("sddmm", q, k, mask)
    if not m.is_sparse:
        raise ShapeError("the mask of sddmm is dense", f"{tracer.shape_text(m)}; the order is sddmm(q, k, mask)", "pass a sparse mask, or use matmul(q, k.T) * mask")
    factors: list[tuple[Array, Labels]] = [(m, ("i", "j")), (a, ("i", "k")), (b, ("j", "k"))]
    if scale is not None:
        factors.append((tracer.array(scale), ()))
    return contract(tracer, "sddmm", factors, ("i", "j"))


def matrix_power(x: Any, n: int) -> Any:
    """The n-th power of a square matrix, dense or sparse, n >= 1, by repeated squaring."""
    tracer, (a,) = _arrays("matrix_power", x)
    if not hasattr(type(n), "__index__") or isinstance(n, (bool, Array)) or n < 1:
        raise UnsupportedError(f"matrix_power with exponent {n}", "inverses, roots and powers that arrays decide are not compiled", "use a number of at least 1")
    if a.rank < 2 or not tracer.sizes.unify(a.extents[-1], a.extents[-2], "matrix_power"):
        raise ShapeError("matrix_power of a matrix that is not square", tracer.shape_text(a))
    if n == 1:
        return a
    half = matrix_power(a, n // 2)
    squared = matmul(half, half)
    return matmul(squared, a) if n % 2 else squared
