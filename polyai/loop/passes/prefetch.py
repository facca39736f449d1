"""Ask early for rows that an index array will name soon.

    for q in 0..n:                                     for q in 0..n:
      let c = i64(A.crd[begin + q])                      let c = i64(A.crd[begin + q])
      ...                                                let c_soon = i64(A.crd[min(begin + q + 8, nnz - 1)])
      acc = acc + v * X[ramp(c * m, 16)]        ->       prefetch X[c_soon * m]
                                                         acc = acc + v * X[ramp(c * m, 16)]

A row that a loop inside reads is asked for as a whole, where its coordinate is known, if that is a few lines at typical sizes: hints
beside the loads would keep the place of each later row in a register.

    for q in 0..n:                                     for q in 0..n:
      let c = i64(A.crd[begin + q])                      let c = i64(A.crd[begin + q])
      for k in 0..m step 8:                              let row_soon = i64(A.crd[min(begin + q + 8, nnz - 1)]) * m
        s = s + Q[ramp(k, 8)] * K[ramp(c * m + k, 8)]    prefetch K[row_soon]; prefetch K[row_soon + 16] ...
                                                         for k in 0..m step 8: ...

Hardware follows straight walks, not these. Only arrays larger than a second-level cache are worth it, and rows of several
vectors; index arrays whose fibres name what others named shortly before are not. Proves nothing and needs no proof: a hint touches no memory, and the index that is read early is inside its array.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping

from polyai.loop import build as b
from polyai.loop.nodes import Alloc, Block, Cast, For, If, Kernel, Kind, Let, Load, LoopExpr, Prefetch, Ramp, Stmt, Var, While
from polyai.loop.walks import all_exprs, all_stmts, expressions, map_operands, supply
from polyai.scalar import dtype as dt
from polyai.scalar.expr import Apply, Const
from polyai.term.names import Names

AHEAD = 8
"""How many iterations ahead. Fewer come too late from memory, more fall out of short rows. Twice as far where several run at once."""
LARGE = 1 << 20
"""Bytes of an array that do not stay near a core."""
LINE = 64
"""Bytes of a line of a cache."""
LINES = 8
"""Most lines of a row that is asked for as a whole."""
VECTORS = 4
"""How many vectors of rows one iteration must read for hints to pay."""


def prefetch(kernel: Kernel, sizes: Mapping[str, int], near: frozenset[str] = frozenset()) -> Kernel:
    """`kernel` with hints; `sizes` are typical values of its parameters, `near` index arrays that need none."""
    extents, large = _arrays(kernel, sizes)
    if not large:
        return kernel
    types = {p.name: p.dtype.bytes for p in kernel.params}
    work = _Prefetch(extents, large, near, supply(kernel), {name: _row(extents[name], types.get(name, 0), sizes) for name in large})
    return Kernel(kernel.name, kernel.params, work.stmt(kernel.body, {}), kernel.sites)


def unhinted(kernel: Kernel, sizes: Mapping[str, int]) -> Kernel:
    """`kernel` without the hints it has for arrays that stay near a core at typical sizes: these would only take time.

        prefetch B.crd1[ahead_begin]   ->   nothing, if B stores little
    """
    hinted = {s.array for s in all_stmts(kernel.body) if isinstance(s, Prefetch)}
    kept = hinted & _arrays(kernel, sizes)[1]
    if kept == hinted:
        return kernel

    def without(s: Stmt) -> Stmt:
        match s:
            case Block(stmts):
                return Block(tuple(without(x) for x in stmts if not isinstance(x, Prefetch) or x.array in kept))
            case Prefetch(array) if array not in kept:
                return Block(())
            case For() | While():
                return dataclasses.replace(s, body=without(s.body))
            case If(condition, then, orelse):
                return If(condition, without(then), None if orelse is None else without(orelse))
            case _:
                return s

    return dataclasses.replace(kernel, body=without(kernel.body))


def _arrays(kernel: Kernel, sizes: Mapping[str, int]) -> tuple[dict[str, tuple[LoopExpr, ...]], set[str]]:
    """The extents of arrays, and those that do not stay near a core."""
    extents: dict[str, tuple[LoopExpr, ...]] = {p.name: p.extents for p in kernel.params if p.extents is not None}
    types = {p.name: p.dtype.bytes for p in kernel.params}
    for s in all_stmts(kernel.body):
        if isinstance(s, Alloc) and s.extents:
            extents[s.name], types[s.name] = s.extents, s.dtype.bytes
    large = set()
    for name, shape in extents.items():
        total = types[name]
        for extent in shape:
            number = _value(extent, sizes)
            total *= LARGE if number is None else max(1, number)
        if total >= LARGE:
            large.add(name)
    return extents, large


def _row(extents: tuple[LoopExpr, ...], size: int, sizes: Mapping[str, int]) -> tuple[int, int]:
    """How many lines a row of a matrix takes at typical sizes, and how many elements a line holds; none if that is not known."""
    width = _value(extents[1], sizes) if len(extents) == 2 and size else None
    return (0, 1) if width is None else (-(-width * size // LINE), LINE // size)


def _value(expr: LoopExpr, sizes: Mapping[str, int]) -> int | None:
    """An extent at typical sizes; None if it is not known."""
    match expr:
        case Const(value):
            return int(value.real)
        case Var(name):
            return sizes.get(name)
        case Apply("add" | "sub" | "mul" as op, (x, y)):
            left, right = _value(x, sizes), _value(y, sizes)
            if left is None or right is None:
                return None
            return left + right if op == "add" else left - right if op == "sub" else left * right
        case _:
            return None


Asked = dict[tuple[str, LoopExpr], set[int]]
"""Lines that were hinted at already, by the array and the start they are counted from."""


class _Prefetch:
    """`soon` maps names that depend on a coordinate to the names of the same values some iterations later."""

    def __init__(
        self, extents: Mapping[str, tuple[LoopExpr, ...]], large: set[str], near: frozenset[str], names: Names, rows: Mapping[str, tuple[int, int]]
    ) -> None:
        self.extents, self.large, self.near, self.names = extents, large, near, names
        self.rows = rows  # lines of a row, where they are few, and the elements of one

    def stmt(self, s: Stmt, soon: dict[str, str]) -> Stmt:
        match s:
            case Block(stmts):
                return Block(self._block(stmts, dict(soon)))
            case For():
                body = self._loop(s) if s.kind is Kind.SERIAL and not soon else self.stmt(s.body, dict(soon))
                return s if body is s.body else dataclasses.replace(s, body=body)
            case If(condition, then, orelse):
                return If(condition, self.stmt(then, dict(soon)), None if orelse is None else self.stmt(orelse, dict(soon)))
            case While(condition, body):
                return While(condition, self.stmt(body, dict(soon)))
            case _:
                return s

    def _loop(self, loop: For) -> Stmt:
        """The body of a loop: if it reads coordinates itself, with their successors known."""
        stmts = loop.body.stmts if isinstance(loop.body, Block) else (loop.body,)
        moving: dict[str, LoopExpr] = {loop.var: b.var(loop.var)}
        ahead: dict[str, LoopExpr] = {}
        for s in stmts:
            if not isinstance(s, Let):
                continue
            found = _coordinate(s.value)
            if found is not None and found.array in self.extents and found.array not in self.near and not _is_end_of_a_run(found, stmts, loop.step):
                at = _inlined(found.indices[0], moving)
                if at is not None and _uses_one(at, (loop.var,)):
                    last = b.sub(self.extents[found.array][0], b.ONE)
                    later = b.smallest(b.add(at, b.const(AHEAD if loop.step == 1 else 2 * AHEAD)), last)
                    ahead[s.name] = b.convert(b.load(found.array, (later,), found.dtype), dt.i64)
            elif _is_arithmetic(s.value):
                moving[s.name] = s.value
        if not ahead or not self._reads_rows(stmts):
            return self.stmt(loop.body, {})
        ahead = {name: value for name, value in ahead.items() if self._rows(stmts, {name})}
        if not ahead or self._rows(stmts, set(ahead)) < VECTORS:
            return self.stmt(loop.body, {})
        out: list[Stmt] = []
        soon: dict[str, str] = {}
        asked: Asked = {}
        for s in stmts:
            if isinstance(s, Let) and s.name in ahead:
                whole = self._whole(stmts, s.name)
                if whole:
                    out += [s, *self._asked_as_a_whole(s.name, ahead[s.name], whole)]
                    continue
                name = soon[s.name] = self.names.fresh(f"{s.name}_soon")
                out += [s, Let(name, ahead[s.name])]
            else:
                out += self._block((s,), soon, asked)
        return Block(tuple(out))

    def _whole(self, stmts: tuple[Stmt, ...], coordinate: str) -> tuple[str, ...]:
        """The arrays of which only loops inside read rows that the coordinate names, all of few lines; none if others are read too."""
        names, inside, found = {coordinate}, set[str](), set[str]()
        for s in stmts:
            for t in all_stmts(s):
                arrays = {x.array for e in expressions(t) for x in all_exprs(e) if isinstance(x, Load) and _is_row(x, names) and x.array in self.large}
                found |= arrays
                inside |= arrays if isinstance(s, For) else set()
                if isinstance(t, Let) and _is_arithmetic(t.value) and _uses_one(t.value, names):
                    names.add(t.name)
        return tuple(sorted(found)) if found and found == inside and all(0 < self.rows[a][0] <= LINES for a in found) else ()

    def _asked_as_a_whole(self, coordinate: str, later: LoopExpr, arrays: tuple[str, ...]) -> list[Stmt]:
        out: list[Stmt] = []
        for array in arrays:
            lines, step = self.rows[array]
            name = self.names.fresh(f"{coordinate}_soon")
            out.append(Let(name, b.mul(later, self.extents[array][1])))
            out += [Prefetch(array, b.add(b.var(name), b.const(step * line))) for line in range(lines)]
        return out

    def _reads_rows(self, stmts: tuple[Stmt, ...]) -> bool:
        """Whether neighbours of any large array are read in memory."""
        every = (x for s in all_stmts(Block(stmts)) for e in expressions(s) for x in all_exprs(e))
        return any(isinstance(x, Load) and x.array in self.large and len(x.indices) == 1 and isinstance(x.indices[0], Ramp) for x in every)

    def _rows(self, stmts: tuple[Stmt, ...], coordinates: set[str]) -> int:
        """How many vectors are read from rows of large arrays that these coordinates name."""
        names, found = set(coordinates), 0
        for s in all_stmts(Block(stmts)):
            for e in expressions(s):
                found += sum(isinstance(x, Load) and x.array in self.large and _is_row(x, names) for x in all_exprs(e))
            if isinstance(s, Let) and _is_arithmetic(s.value) and _uses_one(s.value, names):
                names.add(s.name)
        return found

    def _block(self, stmts: tuple[Stmt, ...], soon: dict[str, str], asked: Asked | None = None) -> tuple[Stmt, ...]:
        out: list[Stmt] = []
        asked = {} if asked is None else asked
        for s in stmts:
            if soon:
                for e in expressions(s):
                    out += self._hints(e, soon, asked)
            out.append(self.stmt(s, soon))
            if soon and isinstance(s, Let) and _is_arithmetic(s.value) and _uses_one(s.value, soon):
                name = self.names.fresh(f"{s.name}_soon")
                out.append(Let(name, _renamed(s.value, soon)))
                soon[s.name] = name
        return tuple(out)

    def _hints(self, expr: LoopExpr, soon: dict[str, str], asked: Asked) -> list[Stmt]:
        """Hints for the rows that `expr` reads, one for each line of a cache; `asked` knows those of the statements before."""
        out: list[Stmt] = []
        for x in all_exprs(expr):
            if isinstance(x, Load) and x.array in self.large and _is_row(x, soon):
                ramp = x.indices[0]
                assert isinstance(ramp, Ramp)
                index = _renamed(ramp.base, soon)
                start, offset = _parted(index)
                lines = asked.setdefault((x.array, start), set())
                line = offset * x.dtype.bytes // LINE
                if line not in lines:
                    lines.add(line)
                    out.append(Prefetch(x.array, index))
        return out


def _parted(index: LoopExpr) -> tuple[LoopExpr, int]:
    """An index as a sum of something and a number."""
    if isinstance(index, Apply) and index.op == "add":
        last = b.number(index.args[1])
        if last is not None:
            return index.args[0], last
    return index, 0


def _coordinate(value: LoopExpr) -> Load | None:
    """The Load of `i64(array[index])` with one scalar index."""
    inner = value.arg if isinstance(value, Cast) else value
    if isinstance(inner, Load) and inner.dtype.is_integer and len(inner.indices) == 1 and not isinstance(inner.indices[0], Ramp):
        return inner
    return None


def _is_end_of_a_run(found: Load, stmts: tuple[Stmt, ...], step: int) -> bool:
    """Whether an iteration also reads what the next one or the one before reads as `found`: where a run begins, another one ends."""
    (at,) = found.indices
    beside = {b.add(at, b.const(step)), b.sub(at, b.const(step))}
    others = (_coordinate(s.value) for s in stmts if isinstance(s, Let))
    return any(other is not None and other.array == found.array and other.indices[0] in beside for other in others)


def _is_row(expr: LoopExpr, names: Collection[str]) -> bool:
    """Whether `expr` reads neighbours in memory from a place that depends on `names`."""
    if not isinstance(expr, Load) or len(expr.indices) != 1:
        return False
    at = expr.indices[0]
    return isinstance(at, Ramp) and at.stride == 1 and _uses_one(at.base, names)


def _is_arithmetic(expr: LoopExpr) -> bool:
    return b.dtype_of(expr) == dt.i64 and all(isinstance(x, (Const, Var, Apply)) for x in all_exprs(expr))


def _uses_one(expr: LoopExpr, names: Collection[str]) -> bool:
    return any(type(x) is Var and x.name in names for x in all_exprs(expr))


def _inlined(expr: LoopExpr, values: Mapping[str, LoopExpr]) -> LoopExpr | None:
    """`expr` with the arithmetic of the loop's body put in place of its names; None if it reads memory."""
    if not _is_arithmetic(expr):
        return None
    if isinstance(expr, Var):
        known = values.get(expr.name)
        return expr if known is None or known == expr else _inlined(known, values)
    return map_operands(expr, lambda x: _inlined(x, values) or x)


def _renamed(expr: LoopExpr, names: Mapping[str, str]) -> LoopExpr:
    if isinstance(expr, Var):
        return b.var(names[expr.name]) if expr.name in names else expr
    return map_operands(expr, lambda x: _renamed(x, names))
