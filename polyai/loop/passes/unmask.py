"""Vectors that lie wholly inside need no masks: one test of their ends instead of one of every lane.

Before::                                                    After::

    for s in 0..l:                                              for s in 0..l:
      let at = i + i64(A.crd0[s])                                 let at = i + i64(A.crd0[s])
      let inside = ramp(at, 8) >= 0 and ramp(at, 8) < m           if at >= 0 and at + 7 < m:
      T = T + where(inside, (x[ramp(at, 8)] if inside), 0.0)        T = T + x[ramp(at, 8)]
                                                                  else:
                                                                    let inside = ... as before

Only for masks that compare ascending ramps with values that are the same in all lanes: then the ends decide for all lanes.
The rest of a loop, which stores under a mask, stays as it is.
Assumes nothing.
"""

from __future__ import annotations

import dataclasses
from functools import reduce

from polyai.loop import build as b
from polyai.loop.nodes import Apply, Block, Const, For, If, Kernel, Let, Load, LoopExpr, MaskedLoad, Ramp, Stmt, Store, Var, While
from polyai.loop.walks import all_exprs, all_stmts, expressions, map_operands, map_stmt

_FIRST, _LAST = ("ge", "gt"), ("lt", "le")


def unmask(kernel: Kernel) -> Kernel:
    """`kernel` with a version without masks beside each run of statements under such masks."""
    return dataclasses.replace(kernel, body=_stmt(kernel.body))


def _stmt(s: Stmt) -> Stmt:
    match s:
        case Block(stmts):
            return Block(_block(tuple(map(_stmt, stmts))))
        case For():
            return dataclasses.replace(s, body=_stmt(s.body))
        case If(condition, then, orelse):
            return If(condition, _stmt(then), None if orelse is None else _stmt(orelse))
        case While(condition, body):
            return While(condition, _stmt(body))
        case _:
            return s


def _block(stmts: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
    masks: dict[str, list[Apply]] = {}
    first = len(stmts)
    for number, s in enumerate(stmts):
        if isinstance(s, Let) and (found := _comparisons(s.value)) is not None:
            masks[s.name] = found
            first = min(first, number)
    rest = Block(stmts[first:])
    if not masks or any(isinstance(s, For) or _is_partial(s) for s in all_stmts(rest)):
        return stmts
    loads = [x for s in all_stmts(rest) for e in expressions(s) for x in all_exprs(e) if isinstance(x, MaskedLoad)]
    if not loads or any(not isinstance(x.mask, Var) or x.mask.name not in masks for x in loads):
        return stmts
    kept = tuple(s for s in rest.stmts if not (isinstance(s, Let) and s.name in masks))
    plain = tuple(map_stmt(s, lambda e: _taken(e, set(masks))) for s in kept)
    return (*stmts[:first], If(_ends(masks), Block(plain), rest))


def _is_partial(s: Stmt) -> bool:
    """True for a store that some lanes do not make."""
    match s:
        case Store(_, _, _, mask) if mask is not None:
            return True
        case Store(name, (), Apply("where", (_, _, Load(kept, ())))):
            return name == kept
        case _:
            return False


def _comparisons(expr: LoopExpr) -> list[Apply] | None:
    """The conjuncts of a mask; None if one is no comparison of an ascending ramp with a uniform value."""
    match expr:
        case Apply("and", (x, y)):
            left, right = _comparisons(x), _comparisons(y)
            return None if left is None or right is None else left + right
        case Apply(op, (Ramp(_, stride, _), limit)) if op in _FIRST + _LAST and stride > 0:
            return None if any(isinstance(x, Ramp) for x in all_exprs(limit)) else [expr]
        case _:
            return None


def _ends(masks: dict[str, list[Apply]]) -> LoopExpr:
    """The comparisons of all masks at the lanes that decide, each only for the ramp that lies furthest out."""
    furthest: dict[tuple[str, LoopExpr, LoopExpr], int] = {}
    for found in masks.values():
        for comparison in found:
            ramp, limit = comparison.args
            assert isinstance(ramp, Ramp)
            stem, offset = _split(ramp.base)
            last = comparison.op in _LAST
            key = (comparison.op, stem, limit)
            mine = offset + ((ramp.lanes - 1) * ramp.stride if last else 0)
            furthest[key] = mine if key not in furthest else (max if last else min)(mine, furthest[key])
    tests = [b.compare(op, b.add(stem, b.const(offset)), limit) for (op, stem, limit), offset in furthest.items()]
    return reduce(b.both, tests)


def _split(base: LoopExpr) -> tuple[LoopExpr, int]:
    match base:
        case Apply("add", (stem, Const(value))):
            return stem, int(value.real)
        case _:
            return base, 0


def _taken(expr: LoopExpr, masks: set[str]) -> LoopExpr:
    """`expr` where all masks hold."""
    match expr:
        case MaskedLoad(array, indices, Var(name), dtype) if name in masks:
            return b.load(array, indices, dtype)
        case Apply("where", (Var(name), yes, _)) if name in masks:
            return _taken(yes, masks)
        case Var(name) if name in masks:
            return b.TRUE
        case _:
            return map_operands(expr, lambda x: _taken(x, masks))
