"""Building blocks of neural networks: softmax, normalisation, attention. Each is a few comprehensions; fusing them is the compiler's work."""

from __future__ import annotations

from typing import Any

from polyai.errors import ShapeError, UnsupportedError
from polyai.frontend.core import Array, Tracer, dense, find_tracer, index_term, normalized_axes, normalized_axis
from polyai.frontend.surface.contraction import contract
from polyai.frontend.surface.elementwise import astype
from polyai.frontend.surface.linalg import matmul
from polyai.frontend.surface.pointwise import broadcast, places, pointwise, pointwise_stored
from polyai.frontend.surface.reductions import fold
from polyai.frontend.term import Term, apply, convert, reduced
from polyai.scalar import dtype as dt


def _floating(x: Any, what: str) -> Array:
    a = find_tracer((x,), what).array(x)
    floats = a.type.dtype.is_float or a.type.dtype.is_complex
    out: Array = a if floats else astype(a, dt.f64)
    return out


def _same(x: Term) -> Term:
    return x


def softmax(x: Any, axis: Any = -1) -> Any:
    """exp(x) / sum(exp(x)) along `axis`, without overflow. Of a sparse matrix: over the stored entries of each row or column."""
    return _softmax(_floating(x, "softmax"), axis, "softmax")


def _softmax(a: Array, axis: Any, what: str) -> Array:
    axes = normalized_axes(axis, a.rank, what)
    if a.is_sparse and len(axes) != 1:
        raise UnsupportedError(f"{what} of a sparse array over {len(axes)} axes", "it runs along rows or along columns", "use axis=-1 or axis=0")
    peak = fold("peak", "max", [a], axes, True)
    if a.is_sparse:
        weights = pointwise_stored("exp", lambda e, m: apply("exp", e - m), a, peak)
        total = fold("total", "add", [weights], axes, True)
        return pointwise_stored(what, lambda e, s: e / s, weights, total)
    weights = pointwise("exp", lambda e, m: apply("exp", e - m), a, peak)
    total = fold("total", "add", [weights], axes, True)
    out: Array = pointwise(what, lambda e, s: e / s, weights, total)
    return out


def log_softmax(x: Any, axis: Any = -1) -> Any:
    """log(softmax(x)), without overflow. Of a sparse matrix: over the stored entries."""
    a = _floating(x, "log_softmax")
    axes = normalized_axes(axis, a.rank, "log_softmax")
    if a.is_sparse and len(axes) != 1:
        raise UnsupportedError("log_softmax of a sparse array over several axes", "it runs along rows or along columns", "use axis=-1 or axis=0")
    peak = fold("peak", "max", [a], axes, True)
    total = fold("total", "add", [a, peak], axes, True, lambda e, m: apply("exp", e - m))
    combine = pointwise_stored if a.is_sparse else pointwise
    return combine("log_softmax", lambda e, m, s: e - m - apply("log", s), a, peak, total)


def layer_norm(x: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5, axis: Any = -1) -> Any:
    """(x - mean) / sqrt(var + eps) over `axis`, times weight, plus bias. Statistics of f16 and bf16 are kept in f32."""
    a = dense(_floating(x, "layer_norm"), "layer_norm")
    tracer, axes = a.tracer, normalized_axes(axis, a.rank, "layer_norm")
    held = dt.compute_type(a.type.dtype)
    n = tracer.size_term(_count(a, axes))
    centre = fold("mean", "add", [a], axes, True, lambda e: convert(e, held), lambda s: s / n)
    spread = fold("var", "add", [a, centre], axes, True, lambda e, m: apply("square", convert(e, held) - m), lambda s: s / n)
    return _scaled(
        "layer_norm", a, lambda e, m, v: (convert(e, held) - m) * apply("reciprocal", apply("sqrt", v + eps)), (centre, spread), weight, bias
    )


def rms_norm(x: Any, weight: Any = None, eps: float = 1e-6, axis: Any = -1) -> Any:
    """x / sqrt(mean(x**2) + eps) over `axis`, times weight."""
    a = dense(_floating(x, "rms_norm"), "rms_norm")
    tracer, axes = a.tracer, normalized_axes(axis, a.rank, "rms_norm")
    held = dt.compute_type(a.type.dtype)
    n = tracer.size_term(_count(a, axes))
    squares = fold("mean_square", "add", [a], axes, True, lambda e: apply("square", convert(e, held)), lambda s: s / n)
    return _scaled("rms_norm", a, lambda e, s: convert(e, held) * apply("reciprocal", apply("sqrt", s + eps)), (squares,), weight, None)


def _count(a: Array, axes: tuple[int, ...]) -> Any:
    out: Any = 1
    for d in axes:
        out = out * a.extents[d]
    return out


def _scaled(stem: str, a: Array, rule: Any, statistics: tuple[Array, ...], weight: Any, bias: Any) -> Any:
    """rule(x, statistics) * weight + bias in the type of x; weight and bias broadcast from the right."""
    extra = [v for v in (weight, bias) if v is not None]

    def whole(e: Term, *rest: Term) -> Term:
        out = rule(e, *rest[: len(statistics)])
        more = list(rest[len(statistics) :])
        if weight is not None:
            out = out * more.pop(0)
        if bias is not None:
            out = out + more.pop(0)
        return convert(out, a.type.dtype)

    return pointwise(stem, whole, a, *statistics, *extra)


def batch_norm(x: Any, mean: Any, var: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5, axis: int = 1) -> Any:
    """(x - mean[c]) / sqrt(var[c] + eps) * weight[c] + bias[c] with given statistics; c is the index along `axis`."""
    a = dense(_floating(x, "batch_norm"), "batch_norm")
    tracer, d = a.tracer, normalized_axis(axis, a.rank, "batch_norm")
    vectors = [None if v is None else dense(tracer.array(v), "batch_norm") for v in (mean, var, weight, bias)]
    for v in vectors:
        if v is not None:
            tracer.sizes.require(v.extents[0], "==", a.extents[d], "batch_norm: one entry per channel")
    indices = tracer.indices(a.extents)
    centre, spread, factor, offset = (None if v is None else tracer.read(v, (indices[d],)) for v in vectors)
    assert centre is not None and spread is not None
    out = (tracer.read(a, indices) - centre) * apply("reciprocal", apply("sqrt", spread + eps))
    out = out if factor is None else out * factor
    return tracer.emit("batch_norm", indices, convert(out if offset is None else out + offset, a.type.dtype))


def group_norm(x: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Any:
    """x of shape [n, c, ...] normalised over groups of channels, scaled and shifted per channel. The number of channels becomes fixed."""
    a = dense(_floating(x, "group_norm"), "group_norm")
    tracer, held = a.tracer, dt.compute_type(a.type.dtype)
    channels = tracer.sizes.number(a.extents[1], "group_norm")
    if channels % num_groups:
        raise ShapeError(f"group_norm: {channels} channels in {num_groups} groups", tracer.shape_text(a), "the number of groups must divide the channels")
    each = channels // num_groups
    total = tracer.size_term(_count(a, tuple(range(2, a.rank)))) * each

    def statistic(stem: str, prepare: Any, *extra: Array) -> Array:
        n, g = tracer.indices((a.extents[0], num_groups))
        over = tracer.indices((each, *a.extents[2:]), start=2)
        element = convert(tracer.read(a, (n, index_term(g) * each + index_term(over[0]), *over[1:])), held)
        value = prepare(element, *(tracer.read(m, (n, g)) for m in extra))
        return tracer.emit(stem, (n, g), reduced("add", over, value) / total)

    centre = statistic("mean", _same)
    spread = statistic("var", lambda e, m: apply("square", e - m), centre)
    point = tracer.indices(a.extents)
    group = (point[0], index_term(point[1]) // each)
    out = (convert(tracer.read(a, point), held) - tracer.read(centre, group)) * apply("reciprocal", apply("sqrt", tracer.read(spread, group) + eps))
    for name, given in (("weight", weight), ("bias", bias)):
        if given is not None:
            v = dense(tracer.array(given), "group_norm")
            tracer.sizes.require(v.extents[0], "==", channels, f"group_norm: one {name} per channel")
            out = out * tracer.read(v, (point[1],)) if name == "weight" else out + tracer.read(v, (point[1],))
    return tracer.emit("group_norm", point, convert(out, a.type.dtype))


def linear(x: Any, weight: Any, bias: Any = None) -> Any:
    """x @ weight.T + bias with weight of shape [out, in]."""
    tracer = find_tracer((x, weight), "linear")
    a, w = tracer.array(x), tracer.array(weight)
    batch = tuple(f"b{n}" for n in range(a.rank - 1))
    out = contract(tracer, "linear", [(a, (*batch, "k")), (w, ("m", "k"))], (*batch, "m"))
    return out if bias is None else pointwise("add", lambda y, b: y + b, out, bias)


def attention(q: Any, k: Any, v: Any, mask: Any = None, causal: bool = False, scale: float | None = None) -> Any:
    """softmax(q @ k.T * scale) @ v over the last two dimensions [..., length, d]; scale is 1/sqrt(d) if not given.

    A boolean mask keeps what is True, a number mask is added. `causal` keeps positions j <= i.
    """
    tracer = find_tracer((q, k, v), "attention")
    a, b, c = (dense(tracer.array(x), "attention") for x in (q, k, v))
    if min(a.rank, b.rank, c.rank) < 2:
        raise ShapeError("attention of vectors", tracer.shapes_text((a, b, c)), "give [..., length, d]")
    batch = tuple(f"b{n}" for n in range(max(a.rank, b.rank) - 3, -1, -1))
    left, right = (*batch[len(batch) - a.rank + 2 :], "i", "d"), (*batch[len(batch) - b.rank + 2 :], "j", "d")
    scores = contract(tracer, "scores", [(a, left), (b, right)], (*batch, "i", "j"), frozenset(batch))
    factor = scale_of(tracer, a, scale)
    biased = [] if mask is None else [tracer.array(mask)]
    shape = broadcast(tracer, [scores.extents, *(m.extents for m in biased)], "attention", (scores, *biased))
    indices = tracer.indices(shape)
    value = tracer.read(scores, places(scores, indices)) * factor
    for m in biased:
        read = tracer.read(m, places(m, indices))
        value = apply("where", read, value, float("-inf")) if m.type.dtype.kind == "b" else value + read
    if causal:
        value = apply("where", index_term(indices[-1]) <= index_term(indices[-2]), value, float("-inf"))
    return matmul(_softmax(tracer.emit("masked" if biased or causal else "scaled", indices, value), -1, "softmax"), c)


def scale_of(tracer: Tracer, q: Array, scale: Any) -> Term:
    """The factor of scores: `scale`, or 1 over the root of the depth of q."""
    if isinstance(scale, Array):
        return tracer.read(scale, ())
    if scale is not None:
        return tracer.scalar(scale)
    depth = tracer.sizes.resolve(q.extents[-1])
    if isinstance(depth, int):
        return tracer.scalar(float(depth) ** -0.5)
    return convert(apply("reciprocal", apply("sqrt", convert(tracer.size_term(depth), dt.f64))), dt.compute_type(q.type.dtype))


def sparse_attention(q: Any, k: Any, v: Any, mask: Any, scale: float | None = None, bias: bool = False) -> Any:
    """Attention at the stored positions of the sparse `mask` only: q [n, d], k [m, d], v [m, e], mask [n, m] give [n, e].

    The values of mask are ignored, or added to the scores with bias=True. Rows that store nothing give zeros.
    """
    tracer = find_tracer((q, k, v, mask), "sparse_attention")
    a, b, c, m = (tracer.array(x) for x in (q, k, v, mask))
    if not m.is_sparse:
        raise ShapeError("the mask of sparse_attention is dense", tracer.shape_text(m), "use attention(q, k, v, mask=...)")
    if (a.rank, b.rank, c.rank, m.rank) != (2, 2, 2, 2):
        raise UnsupportedError("sparse_attention of batches", tracer.shapes_text((a, b, c, m)), "call it once per batch and head")
    sizes = tracer.sizes
    for x, y, what in ((a.extents[0], m.extents[0], "rows of q and mask"), (b.extents[0], m.extents[1], "rows of k and columns of mask"),
                       (c.extents[0], m.extents[1], "rows of v and columns of mask"), (a.extents[1], b.extents[1], "columns of q and k")):  # fmt: skip
        sizes.require(x, "==", y, f"sparse_attention: {what} differ in number")
    i, j, d = tracer.indices((m.extents[0], m.extents[1], a.extents[1]))
    dot = reduced("add", (d,), tracer.read(dense(a, "q"), (i, d)) * tracer.read(dense(b, "k"), (j, d))) * scale_of(tracer, a, scale)
    if bias:
        dot = dot + tracer.read(m, (i, j))
    pattern = m.type.pattern
    assert pattern is not None
    scores = tracer.emit("scores", (i, j), dot, (tracer.within(m, (i.name, j.name)),), pattern)
    return matmul(_softmax(scores, -1, "softmax"), dense(c, "v"))
