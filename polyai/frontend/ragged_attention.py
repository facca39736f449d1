"""Attention of each row to itself (or to the same row of another batch), without padding and without a matrix of all pairs.

Rows are cut into blocks of a few elements, all of which see the same elements j, consecutive ones: a level of runs below each block.
Lanes are the elements of a block, so no sum runs across them, and each element of k and v is read once for a block:

    turned[g, h, d, r] = q[blocks[g, r], h, d]
    scores[g, h, j, r] = sum(d) k[j, h, d] * turned[g, h, d, r]                    stored where seen(g, h, j, r)
    peak[g, h, r]      = max(j) scores[g, h, j, r]                 within seen(g, h, j, r)
    weight[g, h, j, r] = exp(scores[g, h, j, r] - peak[g, h, r])                   stored where seen(g, h, j, r)
    total[g, h, r]     = sum(j) weight[g, h, j, r]                 within seen(g, h, j, r)
    mixed[g, h, r, e]  = sum(j) weight[g, h, j, r] * v[j, h, e] / total[g, h, r]
    out[t, h, e]       = mixed[places[t] // 16, h, places[t] % 16, e]

The fusion of all steps of a block is that of any sparse attention: what is stored along seen shrinks to one block.
"""

from __future__ import annotations

from typing import Any

from polyai.errors import ShapeError, UnsupportedError
from polyai.frontend.core import Array, index_term
from polyai.frontend.elementwise import astype
from polyai.frontend.nn import scale_of
from polyai.frontend.ragged_rows import Rows
from polyai.frontend.term import apply, convert, reduced
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
    single = q.rank == 2
    heads = 1 if single else sizes.number(q.extents[1], "heads of attention")
    if not single:
        for other in (k, v):
            sizes.require(other.extents[1], "==", heads, "attention: operands have the same number of heads")
    blocks, places = mine.table("blocks"), mine.table("places")
    seen = mine.table("seen", theirs.number, heads, causal)
    sizes.unify(seen.extents[2], theirs.elements, "blocks of a ragged batch")

    def read(x: Array, t: Any, h: Any, d: tn.Index) -> Any:
        return tracer.read(x, (t, d) if single else (t, h, d))

    wide = (blocks.extents[0], heads)
    g, h, d, r = tracer.indices((*wide, q.extents[-1], BLOCK))
    turned = tracer.emit("turned", (g, h, d, r), read(q, tracer.read(blocks, (g, r)), h, d))

    def along(stem: str, body: Any) -> Array:
        point = tracer.indices((*wide, theirs.elements, BLOCK))
        within = tracer.within(seen, [i.name for i in point])
        return tracer.emit(stem, point, body(*point), (within,), tn.Pattern(seen.name, (0, 1, 2, 3)))

    def over(stem: str, monoid: str, x: Array) -> Array:
        g, h, j, r = tracer.indices((*wide, theirs.elements, BLOCK))
        value = reduced(monoid, (j,), tracer.read(x, (g, h, j, r)), (tracer.within(seen, (g.name, h.name, j.name, r.name)),))
        return tracer.emit(stem, (g, h, r), value, strong=True)

    def score(g: tn.Index, h: tn.Index, j: tn.Index, r: tn.Index) -> Any:
        (d,) = tracer.indices((q.extents[-1],), start=3)
        value = reduced("add", (d,), read(k, j, h, d) * tracer.read(turned, (g, h, d, r))) * scale_of(tracer, q, scale)
        if causal:
            value = apply("where", index_term(j) <= tracer.read(blocks, (g, r)), value, float("-inf"))
        return value

    scores = along("scores", score)
    peak = over("peak", "max", scores)
    weight = along("weight", lambda g, h, j, r: apply("exp", tracer.read(scores, (g, h, j, r)) - tracer.read(peak, (g, h, r))))
    total = over("total", "add", weight)
    g, h, r, e, j = tracer.indices((*wide, BLOCK, v.extents[-1], theirs.elements))
    body = reduced("add", (j,), tracer.read(weight, (g, h, j, r)) * read(v, j, h, e), (tracer.within(seen, (g.name, h.name, j.name, r.name)),))
    mixed = tracer.emit("mixed", (g, h, r, e), body, strong=True)
    t, *rest = tracer.indices((mine.elements, *q.extents[1:-1], v.extents[-1]))
    place = convert(tracer.read(places, (t,)), dt.i64)
    at = (place // BLOCK, 0 if single else rest[0], place % BLOCK)
    whole = tracer.read(total, at)  # a row that sees nothing has no weights: its result is zero
    value = tracer.read(mixed, (*at, rest[-1])) / apply("where", apply("eq", whole, 0), 1, whole)
    return tracer.emit("attention", (t, *rest), value, strong=True)
