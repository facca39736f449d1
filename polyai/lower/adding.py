"""What a group holds twice is added up in place: what `grouping` does last.

    for k in 1..total: repeats += C.crd1[k - 1] == C.crd1[k]           in pieces and in lanes, borders of groups left out
    if repeats: one pass over all groups that moves elements to the front and adds up equal neighbours
"""

from __future__ import annotations

from polyai.loop import build as b
from polyai.loop import nodes as lp
from polyai.lower.emitter import Emitter, Level
from polyai.lower.scratch import MUCH, Scratch
from polyai.poly import nodes as po
from polyai.scalar import dtype as dt
from polyai.scalar.ops import MONOIDS


def add_up(out: Emitter, scratch: Scratch, g: po.Grouping, monoid: str, pieces: lp.LoopExpr) -> None:
    """Look for equal neighbours in groups; where there are some, combine them in place, in order."""
    index, groups = out.storage.dtype(g.cursors), out.size(g.groups)
    pos, crd = f"{g.name}.pos1", f"{g.name}.crd1"
    total = scratch.let("total", b.convert(b.load(pos, (groups,), index), dt.i64))
    found = scratch.memory(out.names.fresh(f"{g.name}.repeats"), dt.i64, pieces)
    piece = out.names.fresh("piece")
    out.levels.append(Level([]))
    out.home[piece] = len(out.levels) - 1
    same = out.names.fresh("same")
    out.emit(lp.Alloc(same, dt.i32, (), lp.Space.REGISTER))
    out.emit(lp.Store(same, (), lp.Const(0, dt.i32)))
    now = b.load(same, (), dt.i32)

    def share(whole: lp.LoopExpr, number: lp.LoopExpr) -> lp.LoopExpr:
        return b.floordiv(b.mul(whole, number), pieces)

    def repeats_at(k: lp.LoopExpr) -> lp.LoopExpr:
        pair = b.load(crd, (b.add(k, b.const(-1)),), index), b.load(crd, (k,), index)
        return b.convert(b.apply("eq" if g.ordered else "ge", pair, dt.bool_), dt.i32)

    k, r = out.names.fresh("k"), out.names.fresh("r")
    after = b.add(b.var(piece), b.ONE)
    first = b.largest(b.ONE, share(total, b.var(piece)))
    out.emit(lp.For(k, first, share(total, after), lp.Store(same, (), b.apply("add", (now, repeats_at(b.var(k))), dt.i32)), lp.Kind.VECTOR))
    begin, end = (out.names.fresh(n) for n in ("begin", "end"))
    borders = b.both(b.compare("lt", b.ZERO, b.var(begin)), b.compare("lt", b.var(begin), b.var(end)))
    out.emit(lp.For(r, share(groups, b.var(piece)), share(groups, after), b.block(
        lp.Let(begin, b.convert(b.load(pos, (b.var(r),), index), dt.i64)),
        lp.Let(end, b.convert(b.load(pos, (b.add(b.var(r), b.ONE),), index), dt.i64)),
        lp.If(borders, lp.Store(same, (), b.apply("sub", (now, repeats_at(b.var(begin))), dt.i32))),
    )))  # fmt: skip
    out.emit(lp.Store(found, (b.var(piece),), b.convert(now, dt.i64)))
    inner = b.block(*out.levels.pop().stmts)
    out.emit(lp.For(piece, b.ZERO, pieces, inner, lp.Kind.PARALLEL, cost=MUCH))
    repeats, p = scratch.register("repeats", b.ZERO), out.names.fresh("p")
    out.emit(lp.For(p, b.ZERO, pieces, lp.Store(repeats, (), b.add(b.load(repeats, (), dt.i64), b.load(found, (b.var(p),), dt.i64)))))
    out.emit(lp.If(b.compare("ne", b.load(repeats, (), dt.i64), b.ZERO), _combined(out, scratch, g, monoid, groups)))


def _combined(out: Emitter, scratch: Scratch, g: po.Grouping, monoid: str, groups: lp.LoopExpr) -> lp.Stmt:
    """One pass over all groups that moves elements to the front and combines equal neighbours."""
    index = out.storage.dtype(g.cursors)
    pos, crd, val = (f"{g.name}.{part}" for part in ("pos1", "crd1", "val"))
    dtype = out.storage.dtype(val)
    out.levels.append(Level([]))
    kept, begin = scratch.register("kept", b.ZERO), scratch.register("begin", b.ZERO)
    to = b.load(kept, (), dt.i64)
    r, k, first, end, here, last = (out.names.fresh(n) for n in ("r", "k", "first", "end", "here", "last"))
    before = b.add(b.var(last), b.const(-1))
    value = b.load(val, (b.var(k),), dtype)
    combined = b.apply(MONOIDS[monoid].op, (b.load(val, (before,), dtype), value), dtype)
    moved = b.block(lp.Store(crd, (b.var(last),), b.convert(b.var(here), index)), lp.Store(val, (b.var(last),), value), lp.Store(kept, (), b.add(b.var(last), b.ONE)))
    is_first, behind = b.compare("eq", b.var(first), b.var(last)), out.names.fresh("behind")
    stored = b.convert(lp.MaskedLoad(crd, (before,), b.negation(is_first), index), dt.i64)
    again = b.compare("eq", b.var(behind), b.var(here))
    order = None if g.ordered else lp.Check(b.compare("le", b.var(behind), b.var(here)), out.unordered_site(g.source), b.var(here))
    each = lp.For(k, b.load(begin, (), dt.i64), b.var(end), b.block(
        lp.Let(here, b.convert(b.load(crd, (b.var(k),), index), dt.i64)),
        lp.Let(last, to),
        lp.Let(behind, b.where(is_first, b.const(-1), stored)),
        order,
        lp.If(again, lp.Store(val, (before,), combined), moved),
    ))  # fmt: skip
    after = b.add(b.var(r), b.ONE)
    out.emit(lp.For(r, b.ZERO, groups, b.block(
        lp.Let(first, to),
        lp.Let(end, b.convert(b.load(pos, (after,), index), dt.i64)),
        each,
        lp.Store(begin, (), b.var(end)),
        lp.Store(pos, (after,), b.convert(to, index)),
    )))  # fmt: skip
    return b.block(*out.levels.pop().stmts)
