"""Attention of each row to itself (or to the same row of another batch), without padding and without a matrix of all pairs.

Rows are cut into blocks of a few elements, all of which see the same elements j, consecutive ones: a level of runs below each block.
Lanes are the elements of a block, so no sum runs across them, and each element of k and v is read once for a block:

    turned[g, h, d, r] = q[blocks[g, r], h, d] * scale
    keys[h, j, d]      = k[order[j], h, d]                         rows of one head side by side: apart, they would share few
    values[h, j, e]    = v[order[j], h, e]                         sets of the caches (order[j] = j makes these copies)
    scores[g, h, j, r] = sum(d) keys[h, j, d] * turned[g, h, d, r]                 stored where seen(g, h, j, r)
    peak[g, h, r]      = max(j) scores[g, h, j, r]                 within seen(g, h, j, r)
    weight[g, h, j, r] = exp(scores[g, h, j, r] - peak[g, h, r])                   stored where seen(g, h, j, r)
    total[g, h, r]     = sum(j) weight[g, h, j, r]                 within seen(g, h, j, r)
    mixed[g, h, r, e]  = sum(j) weight[g, h, j, r] * values[h, j, e]               within seen(g, h, j, r)
    out[t, h, e]       = mixed[places[t] // 16, h, places[t] % 16, e] / total[places[t] // 16, h, places[t] % 16]

The fusion of all steps of a block is that of any sparse attention: what is stored along seen shrinks to one block.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from polyai.errors import ShapeError, UnsupportedError
from polyai.frontend.composites.ragged_rows import Rows
from polyai.frontend.core import Array, index_term
from polyai.frontend.surface.elementwise import astype
from polyai.frontend.surface.nn import scale_of
from polyai.frontend.term import Term, apply, convert, reduced
from polyai.scalar import dtype as dt
from polyai.sparse.ragged import BLOCK
from polyai.tensor import nodes as tn


def attention(q: Array, k: Array, v: Array, mine: Rows, theirs: Rows, causal: bool, scale: Any) -> Array:
    """softmax(q @ k.T * scale) @ v in each row; operands are packed values of shape (elements, d) or (elements, heads, d)."""
    tracer, sizes = q.tracer, q.tracer.sizes
    if not q.rank == k.rank == v.rank or q.rank not in (2, 3):
        raise ShapeError("attention of ragged operands", tracer.shapes_text((q, k, v)), "each is (rows, None, d) or (rows, None, heads, d)")
    sizes.require(q.extents[-1], "==", k.extents[-1], "attention: q and k have the same last dimension")
    if causal and mine is not theirs:
        raise UnsupportedError("causal attention to rows of other lengths", "which elements are earlier is not defined", "pass q, k and v with the same offsets")
    q, k, v = (x if x.type.dtype.is_float else astype(x, dt.f64) for x in (q, k, v))
    flat = q.rank == 2
    heads = 1 if flat else sizes.number(q.extents[1], "heads of attention")
    if not flat:
        for other in (k, v):
            sizes.require(other.extents[1], "==", heads, "attention: operands have the same number of heads")
    above = heads if heads != 1 else 0
    blocks, places = mine.table("blocks"), mine.table("places")
    seen = mine.table("seen", theirs.number, above, causal)
    sizes.unify(seen.extents[-2], theirs.elements, "blocks of a ragged batch")

    def by_head(stem: str, x: Array) -> Array:
        h, j, d = tracer.indices((heads, theirs.elements, x.extents[-1]))
        return tracer.emit(stem, (h, j, d), tracer.read(x, (tracer.read(theirs.table("order"), (j,)), h, d)))

    if above:
        k, v = by_head("keys", k), by_head("values", v)

    def read(x: Array, t: Any, h: Sequence[Any], d: tn.Index) -> Term:
        return tracer.read(x, (*h, t, d) if above else (t, d) if flat else (t, 0, d))

    outer = (blocks.extents[0], *((heads,) if above else ()))
    (*gh, d, r) = tracer.indices((*outer, q.extents[-1], BLOCK))
    element = tracer.read(q, (tracer.read(blocks, (gh[0], r)), *(() if flat else gh[1:] or (0,)), d))
    turned = tracer.emit("turned", (*gh, d, r), convert(element * scale_of(tracer, q, scale), q.type.dtype))

    def along(stem: str, body: Callable[..., Term]) -> Array:
        point = tracer.indices((*outer, theirs.elements, BLOCK))
        within = tracer.within(seen, [i.name for i in point])
        return tracer.emit(stem, point, body(point[:-2], *point[-2:]), (within,), tn.Pattern(seen.name, tuple(range(seen.rank))))

    def over(stem: str, monoid: str, x: Array) -> Array:
        *gh, j, r = tracer.indices((*outer, theirs.elements, BLOCK))
        value = reduced(monoid, (j,), tracer.read(x, (*gh, j, r)), (tracer.within(seen, [i.name for i in (*gh, j, r)]),))
        return tracer.emit(stem, (*gh, r), value, strong=True)

    def score(gh: Sequence[tn.Index], j: tn.Index, r: tn.Index) -> Term:
        (d,) = tracer.indices((q.extents[-1],), start=3)
        value = reduced("add", (d,), read(k, j, gh[1:], d) * tracer.read(turned, (*gh, d, r)))
        if causal:
            value = apply("where", index_term(j) <= tracer.read(blocks, (gh[0], r)), value, float("-inf"))
        return value

    scores = along("scores", score)
    peak = over("peak", "max", scores)
    weight = along("weight", lambda gh, j, r: apply("exp", tracer.read(scores, (*gh, j, r)) - tracer.read(peak, (*gh, r))))
    total = over("total", "add", weight)
    *gh, r, e, j = tracer.indices((*outer, BLOCK, v.extents[-1], theirs.elements))
    within = tracer.within(seen, [i.name for i in (*gh, j, r)])
    mixed = tracer.emit("mixed", (*gh, r, e), reduced("add", (j,), tracer.read(weight, (*gh, j, r)) * read(v, j, gh[1:], e), (within,)), strong=True)
    t, *rest = tracer.indices((mine.elements, *q.extents[1:-1], v.extents[-1]))
    place = convert(tracer.read(places, (t,)), dt.i64)
    at = (place // BLOCK, *(rest[:-1] if above else ()), place % BLOCK)
    whole = tracer.read(total, at)  # a row that sees nothing has no weights: its result is zero
    value = tracer.read(mixed, (*at, rest[-1])) / apply("where", apply("eq", whole, 0), 1, whole)
    return tracer.emit("attention", (t, *rest), value, strong=True)
