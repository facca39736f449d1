"""Rows that follow each other in memory become one loop, if nothing but the place of an element is asked for.

Before::                                            After::

    for i in 0..n:                                      for i in 0..n:
      let begin = i64(pos[i])                             let begin = i64(pos[i]); let end = i64(pos[i + 1])
      let end = i64(pos[i + 1])                           check begin <= end and end <= nnz
      check begin <= end and end <= nnz                 let first = i64(pos[0])
      let len = end - begin                             let last = i64(pos[n])
      for q in 0..len:                                  let all = last - first
        acc = acc + val[begin + q]                      for q in 0..all:
                                                          acc = acc + val[first + q]

So sums over a whole matrix have long loops, whatever its rows are. Proves what it does: elements are met in the same order, the checks
say that each row begins where the one before ends, and the array of positions has an element after the last row.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from polyai.loop import build as b
from polyai.loop.nodes import Alloc, Apply, Block, Check, For, If, Kernel, Kind, Let, LoopExpr, Space, Stmt, While
from polyai.loop.passes.depend import depends
from polyai.loop.walks import all_stmts, expressions, map_operands, map_stmt, supply
from polyai.scalar.expr import Cast, Load, Var
from polyai.term.names import Names


def gathered(kernel: Kernel, sizes: dict[str, int]) -> Kernel:
    """`kernel` with one loop for all elements where there was one for the rows and one for each row's. `sizes` are typical values of
    sizes; the lengths of the new loops are added to them."""
    lengths = {p.name: p.extents[0] for p in kernel.params if p.extents is not None and len(p.extents) == 1}
    return dataclasses.replace(kernel, body=_Gather(lengths, supply(kernel), sizes).stmt(kernel.body))


UNKNOWN = 1 << 16
"""Elements of a matrix of which nothing is known."""


class _Gather:
    def __init__(self, lengths: Mapping[str, LoopExpr], names: Names, sizes: dict[str, int]) -> None:
        self.lengths, self.names, self.sizes = lengths, names, sizes

    def stmt(self, s: Stmt) -> Stmt:
        match s:
            case Block(stmts):
                return Block(tuple(map(self.stmt, stmts)))
            case For(kind=Kind.SERIAL | Kind.JAM):
                return self._one_loop(s) or dataclasses.replace(s, body=self.stmt(s.body))
            case While(condition, body):
                return While(condition, self.stmt(body))
            case If(condition, then, orelse):
                return If(condition, self.stmt(then), None if orelse is None else self.stmt(orelse))
            case _:
                return s

    def _one_loop(self, rows: For) -> Stmt | None:
        """What takes the place of a loop over rows; None if a row is asked for more than its elements."""
        *before, inner = b.statements(rows.body)
        if rows.lower != b.ZERO or rows.step != 1 or not isinstance(inner, For) or inner.lower != b.ZERO or inner.step != 1:
            return None
        if inner.kind not in (Kind.SERIAL, Kind.VECTOR) or not all(map(_only_checks, before)):
            return None
        lets = {x.name: x.value for x in before if isinstance(x, Let)}
        begin, end = _ends(rows, lets)
        if begin is None or end is None or inner.upper not in (b.sub(b.var(end), b.var(begin)), *_named(lets, b.sub(b.var(end), b.var(begin)))):
            return None
        pos = _position(lets[begin])
        assert pos is not None
        if self.lengths.get(pos.array) != b.add(rows.upper, b.ONE) or any(isinstance(x, Alloc) and x.space is not Space.REGISTER for x in all_stmts(inner.body)):
            return None
        first, last, whole, at = (self.names.fresh(name) for name in (begin, end, f"{begin}_all", inner.var))
        place, moved = b.add(b.var(begin), b.var(inner.var)), b.add(b.var(first), b.var(at))

        def change(e: LoopExpr) -> LoopExpr:
            return moved if e == place else map_operands(e, change)

        def of_all(e: LoopExpr) -> LoopExpr:
            return b.var({begin: first, end: last}.get(e.name, e.name)) if isinstance(e, Var) else map_operands(e, of_all)

        body = map_stmt(inner.body, change)
        if any(depends(e, {rows.var, inner.var, *lets}) for x in all_stmts(body) for e in expressions(x)):
            return None
        checks = [x for x in before if isinstance(x, Check) and not any(depends(e, {rows.var, *lets} - {begin, end}) for e in expressions(x))]
        self.sizes[whole] = _most(self.sizes, checks, end)
        lanes = Kind.SERIAL if any(isinstance(x, For) for x in before) else Kind.VECTOR
        return b.block(
            dataclasses.replace(rows, body=b.block(*before), kind=lanes, jam=1),
            Let(first, b.convert(b.load(pos.array, (b.ZERO,), pos.dtype), b.dtype_of(lets[begin]))),
            Let(last, b.convert(b.load(pos.array, (rows.upper,), pos.dtype), b.dtype_of(lets[end]))),
            *(map_stmt(x, of_all) for x in checks),
            Let(whole, b.sub(b.var(last), b.var(first))),
            dataclasses.replace(inner, var=at, upper=b.var(whole), body=body),
        )


def _only_checks(s: Stmt) -> bool:
    """Whether a statement stores nothing."""
    return isinstance(s, (Let, Check)) or (isinstance(s, For) and all(isinstance(x, (Block, Let, Check)) for x in all_stmts(s.body)))


def _most(sizes: Mapping[str, int], checks: Sequence[Check], end: str) -> int:
    """How many elements there typically are: where rows end at most."""
    for check in checks:
        for part in _all_of(check.ok):
            match part:
                case Apply("le", (Cast(Var(name)), Cast(Var(most)))) if name == end:
                    return sizes.get(most, UNKNOWN)
    return UNKNOWN


def _ends(rows: For, lets: Mapping[str, LoopExpr]) -> tuple[str | None, str | None]:
    """The names of where a row begins and ends: neighbours in one array of positions, which a check of the row puts in order."""
    for begin, value in lets.items():
        here = _position(value)
        if here is None or here.indices != (b.var(rows.var),):
            continue
        for end, other in lets.items():
            there = _position(other)
            if there is not None and there.array == here.array and there.indices == (b.add(b.var(rows.var), b.ONE),) and _in_order(rows, begin, end):
                return begin, end
    return None, None


def _in_order(rows: For, begin: str, end: str) -> bool:
    """Whether a check of a row says that it does not end before it begins."""
    wanted = b.at_most(b.var(begin), b.var(end))
    return any(isinstance(x, Check) and wanted in _all_of(x.ok) for x in b.statements(rows.body))


def _all_of(ok: LoopExpr) -> tuple[LoopExpr, ...]:
    match ok:
        case Apply("and", (left, right)):
            return (*_all_of(left), *_all_of(right))
        case _:
            return (ok,)


def _position(value: LoopExpr) -> Load | None:
    match value:
        case Load():
            return value
        case Cast(Load() as load):
            return load
        case _:
            return None


def _named(lets: Mapping[str, LoopExpr], value: LoopExpr) -> tuple[Var, ...]:
    return tuple(b.var(name) for name, known in lets.items() if known == value)
