"""One index per access: row-major positions instead of tuples of indices.

Before::                                After::

    T = T + X[k, j]                         T = T + X[k * w + j]
    s = a                                   s[0] = a[0]

Proves nothing and needs nothing: an access that was in range stays in range. Extents of parameters and allocations stay as
they are, so that the length of each array is still known.
"""

from __future__ import annotations

import dataclasses

from polyai.loop.build import ZERO, add, load, mul
from polyai.loop.nodes import Alloc, Block, For, If, Kernel, Load, LoopExpr, MaskedLoad, Space, Stmt, Store, While
from polyai.loop.walks import map_operands, map_stmt


def flatten(kernel: Kernel) -> Kernel:
    """`kernel` with one index in each access to memory."""
    extents: dict[str, tuple[LoopExpr, ...]] = {p.name: p.extents for p in kernel.params if p.extents is not None}
    return dataclasses.replace(kernel, body=_stmt(kernel.body, extents))


def _stmt(stmt: Stmt, extents: dict[str, tuple[LoopExpr, ...]]) -> Stmt:
    def position(array: str, indices: tuple[LoopExpr, ...]) -> tuple[LoopExpr, ...]:
        shape = extents.get(array)
        if shape is None or (len(indices) == 1 and len(shape) != 1):
            return indices
        if not indices:
            return (ZERO,)
        at = indices[0]
        for index, extent in zip(indices[1:], shape[1:]):
            at = add(mul(at, extent), index)
        return (at,)

    def change(expr: LoopExpr) -> LoopExpr:
        expr = map_operands(expr, change)
        if isinstance(expr, Load):
            return load(expr.array, position(expr.array, expr.indices), expr.dtype)
        if isinstance(expr, MaskedLoad):
            return MaskedLoad(expr.array, position(expr.array, expr.indices), expr.mask, expr.dtype)
        return expr

    match stmt:
        case Block(stmts):
            out = []
            for s in stmts:
                if isinstance(s, Alloc) and s.space is not Space.REGISTER:
                    extents[s.name] = s.extents
                out.append(_stmt(s, extents))
            return Block(tuple(out))
        case For(body=body):
            loop = dataclasses.replace(stmt, lower=change(stmt.lower), upper=change(stmt.upper))
            return dataclasses.replace(loop, body=_stmt(body, extents))
        case While(condition, body):
            return While(change(condition), _stmt(body, extents))
        case If(condition, then, orelse):
            return If(change(condition), _stmt(then, extents), None if orelse is None else _stmt(orelse, extents))
        case Store(array, indices, value, mask):
            at = position(array, tuple(change(i) for i in indices))
            return Store(array, at, change(value), None if mask is None else change(mask))
        case _:
            return map_stmt(stmt, change)
