"""Values that are needed twice, or in a loop that does not change them, get a name where they are first known.

Before::                                        After::

    for j in 0..w:                                  let i_w = i * w
      Y[i * w + j] = exp(x[j]) / S + exp(x[j])      for j in 0..w:
                                                      let exp_x = exp(x[j])
                                                      Y[i_w + j] = exp_x / S + exp_x

Value numbering over the structured program: two expressions have one number if they have one operation and operands with
one number; a load's number also holds how often its array was written. Arithmetic moves out of loops freely (it cannot
fail; divisions of integers by unknown numbers stay). A load moves out of a loop only if it is in range whether the loop
runs or not: a scalar array, a whole array indexed by the variable of a loop around it, or one at whose index an array of the same
length was read outside of the loop. Loads stay behind their checks.
Proves what it does.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Hashable

from polyai.loop import build as b
from polyai.loop.nodes import (
    Alloc,
    Apply,
    Block,
    Call,
    Cast,
    Check,
    Const,
    For,
    Horizontal,
    If,
    Kernel,
    Kind,
    Let,
    Load,
    LoopExpr,
    MaskedLoad,
    Pack,
    Prefetch,
    Ramp,
    Space,
    Stmt,
    Store,
    Turn,
    Var,
    While,
)
from polyai.loop.passes.levels import Levels
from polyai.loop.walks import map_operands, operands, written
from polyai.scalar import dtype as dt
from polyai.term.node import record

_LONG = frozenset(("u64", "i64"))


def bind(kernel: Kernel) -> Kernel:
    """`kernel` with names for values that are shared or do not change in a loop."""
    numbers: dict[Hashable, int] = {}
    uses: Counter[int] = Counter()
    written_by: dict[int, list[str]] = {}
    _Binder(kernel, numbers, uses, written_by, emitting=False).run()
    body = _Binder(kernel, numbers, uses, written_by, emitting=True).run()
    return dataclasses.replace(kernel, body=body)


@record
class _Version:
    """Which writes an array has seen, and the block that did the last."""

    number: int
    level: int


class _Binder:
    """One walk. The first counts uses by number, the second emits."""

    def __init__(self, kernel: Kernel, numbers: dict[Hashable, int], uses: Counter[int], written_by: dict[int, list[str]], *, emitting: bool) -> None:
        self.written_by = written_by  # by id of a statement of the kernel, for both walks
        self.kernel, self.numbers, self.uses, self.emitting = kernel, numbers, uses, emitting
        self.levels = Levels(kernel)
        self.values: dict[str, int] = {}  # numbers of names
        self.instead: dict[str, LoopExpr] = {}  # names that became other names
        self.versions: dict[str, _Version] = {}
        self.ticks = 0
        self.registers: set[str] = set()
        self.extents = {p.name: p.extents for p in kernel.params if p.extents is not None}
        self.ranges: dict[str, tuple[LoopExpr, ...]] = {}  # loop variables that are never negative, and what they stay below
        self.levels_of: dict[int, int] = {}  # level by id of an expression, within one statement
        self.number_of: dict[int, int] = {}

    def run(self) -> Stmt:
        self.stmt(self.kernel.body)
        return self.levels.pop()

    # Statements

    def stmt(self, stmt: Stmt) -> None:
        self.levels_of, self.number_of = {}, {}
        match stmt:
            case Block(stmts):
                for s in stmts:
                    self._nested(s) if isinstance(s, Block) else self.stmt(s)
            case Let():
                self._let(stmt)
            case Alloc(name, _, extents, space):
                if space is Space.REGISTER:
                    self.registers.add(name)
                self._write(name)
                self._emit(dataclasses.replace(stmt, extents=tuple(self.expr(e) for e in extents)))
            case Store(array, indices, value, mask):
                new = Store(array, tuple(self.expr(i) for i in indices), self.expr(value), None if mask is None else self.expr(mask))
                self._write(array)
                if mask is None and indices:  # a load from here has the stored value's number
                    place = tuple(self.number(i) for i in indices)
                    self.numbers[("load", array, self.versions[array].number, place)] = self.number(value)
                self._emit(new)
            case Check(ok, site, culprit):
                self._emit(Check(self.expr(ok), site, None if culprit is None else self.expr(culprit)))
            case Call(function, args):
                new_args = tuple(a if isinstance(a, str) else self.expr(a) for a in args)
                for a in args:
                    if isinstance(a, str):
                        self._write(a)
                self._emit(Call(function, new_args))
            case Turn(register, turns, counts, at, count, pieces):
                self._emit(Turn(register, turns, counts, self.expr(at), self.expr(count), self.expr(pieces)))
                for name in (register, turns, counts):
                    self._write(name)
            case Prefetch(array, index):
                self._emit(Prefetch(array, self.expr(index)))
            case For():
                self._for(stmt)
            case While(condition, body):
                changed = self._written(body)
                self.levels.push(loop=True)
                for name in changed:
                    self._write(name)
                test = self._plain(condition)
                self.stmt(body)
                inner = self.levels.pop()
                for name in changed:
                    self._write(name)
                self._emit(While(test, inner))
            case If(condition, then, orelse):
                test = self.expr(condition)
                taken = self._branch(then)
                other = None if orelse is None else self._branch(orelse)
                for name in self._written(stmt):
                    self._write(name)
                self._emit(If(test, taken, other))

    def _nested(self, stmt: Block) -> None:
        self.levels.push()
        self.stmt(stmt)
        out = self.levels.pop()
        for name in self._written(stmt):
            self._write(name)
        self._emit(out)

    def _branch(self, stmt: Stmt) -> Block:
        before = dict(self.versions)
        self.levels.push()
        self.stmt(stmt)
        out = self.levels.pop()
        self.versions = before
        return out

    def _for(self, loop: For) -> None:
        lower, upper = self.expr(loop.lower), self.expr(loop.upper)
        changed = self._written(loop.body)
        self.levels.push(loop=True, parallel=loop.kind is Kind.PARALLEL)
        self.levels.define(loop.var)
        self.values[loop.var] = self._fresh()
        self.instead.pop(loop.var, None)
        if loop.stretch is not None:
            self.levels.define(loop.stretch)
            self.values[loop.stretch] = self._fresh()
            self.instead.pop(loop.stretch, None)
        if self._never_negative(loop.lower):
            self.ranges[loop.var] = _smallest_of(loop.upper)
        for name in changed:
            self._write(name)
        self.stmt(loop.body)
        body = self.levels.pop()
        self.ranges.pop(loop.var, None)
        for name in changed:
            self._write(name)
        self._emit(dataclasses.replace(loop, lower=lower, upper=upper, body=body))

    def _let(self, let: Let) -> None:
        number, level = self.number(let.value), self._level(let.value)
        self.values[let.name] = number
        self.instead.pop(let.name, None)
        if not self.emitting:
            self._count(let.value)
            self.levels.define(let.name)
            return
        found = self._known(number)
        if found is None:
            value = map_operands(let.value, lambda e: self._expr(e, level))
            if isinstance(value, (Var, Const)):
                self.instead[let.name] = value
                self.levels.home[let.name] = self.levels.level_of(value)
                return
            self.levels.stack[level].stmts.append(Let(let.name, value))
            self.levels.home[let.name] = level
            self.levels.stack[level].known[number] = Var(let.name, b.dtype_of(value))
        else:
            self.instead[let.name] = found
            self.levels.home[let.name] = self.levels.home[found.name]

    def _emit(self, stmt: Stmt) -> None:
        if self.emitting:
            self.levels.stack[-1].stmts.append(stmt)

    def _write(self, array: str) -> None:
        self.versions[array] = _Version(self._tick(), self.levels.depth)

    def _written(self, stmt: Stmt) -> list[str]:
        found = self.written_by.get(id(stmt))
        if found is None:
            found = self.written_by[id(stmt)] = sorted(written(stmt))
        return found

    def _tick(self) -> int:
        self.ticks += 1
        return self.ticks

    def _fresh(self) -> int:
        return self.numbers.setdefault(("fresh", self._tick()), len(self.numbers))

    # Expressions

    def expr(self, expr: LoopExpr) -> LoopExpr:
        self.number(expr)
        if not self.emitting:
            self._count(expr)
            return expr
        return self._expr(expr, self.levels.depth)

    def _plain(self, expr: LoopExpr) -> LoopExpr:
        """A condition that is computed again and again: renamed only."""
        if type(expr) is Var:
            return self.instead.get(expr.name, expr)
        return map_operands(expr, self._plain)

    def _count(self, expr: LoopExpr) -> None:
        number = self.number_of.get(id(expr))
        if number is None:
            return
        self.uses[number] += 1
        if self.uses[number] == 1:
            for e in operands(expr):
                self._count(e)

    def number(self, expr: LoopExpr) -> int:
        """The number of `expr`; also notes the outermost block where it may be computed."""
        found = self.number_of.get(id(expr))
        if found is not None:
            return found
        kind = type(expr)
        if kind is Var:
            name = expr.name  # type: ignore[union-attr]
            level = self.levels.home.get(name, 0)
            number = self.values.get(name, -1)
            if number < 0:
                number = self.values[name] = self.numbers.setdefault(("name", name), len(self.numbers))
        elif kind is Const:
            level, number = 0, self.numbers.setdefault((Const, repr(expr.value), expr.dtype.name), len(self.numbers))  # type: ignore[union-attr]
        else:
            below, level = [], 0
            for e in operands(expr):
                below.append(self.number(e))
                level = max(level, self.levels_of[id(e)])
            number = self.numbers.setdefault(self._key(expr, tuple(below)), len(self.numbers))
            level = self._where(expr, level, number)
        self.number_of[id(expr)] = number
        self.levels_of[id(expr)] = level
        return number

    def _key(self, expr: LoopExpr, below: tuple[int, ...]) -> Hashable:
        match expr:
            case Apply(op, _, dtype):
                return (op, dtype.name, tuple(sorted(below)) if op in ("add", "mul") else below)
            case Cast(_, dtype):
                return ("cast", dtype.name, below)
            case Load(array, _, _):
                version = self.versions.get(array)
                return ("load", array, 0 if version is None else version.number, below)
            case MaskedLoad(array, _, _, _):
                version = self.versions.get(array)
                return ("masked", array, 0 if version is None else version.number, below)
            case Ramp(_, stride, lanes):
                return ("ramp", stride, lanes, below)
            case Pack():
                return ("pack", below)
            case Horizontal(monoid, _, _):
                return ("lanes", monoid, below)
            case _:
                return ("other", id(expr))

    def _where(self, expr: LoopExpr, level: int, number: int) -> int:
        """The outermost block where `expr` may be computed, given the one that knows its operands."""
        if isinstance(expr, Apply):
            risky = expr.op in ("floordiv", "mod", "shl", "shr") and expr.dtype.is_integer and not isinstance(expr.args[1], Const)
            return self.levels.depth if risky else level
        if isinstance(expr, (Load, MaskedLoad)):
            version = self.versions.get(expr.array)
            level = max(level, 0 if version is None else version.level)
            if expr.array in self.registers or (isinstance(expr, Load) and self._always_in_range(expr)):
                return level
            for k in range(self.levels.depth, level - 1, -1):
                if number in self.levels.stack[k].known:
                    return k
            return self._read_beside(expr, level)
        return level

    def _read_beside(self, expr: Load | MaskedLoad, level: int) -> int:
        """The outermost block, not outside of `level`, where an array of the same length was read at the same index."""
        depth, extents = self.levels.depth, self.extents.get(expr.array)
        if not isinstance(expr, Load) or extents is None or len(extents) != 1 or len(expr.indices) != 1:
            return depth
        place = (extents, self.number_of[id(expr.indices[0])])
        found = next((k for k in range(level, depth) if place in self.levels.stack[k].read), depth)
        self.levels.stack[depth].read.add(place)
        return found

    def _always_in_range(self, expr: Load) -> bool:
        extents = self.extents.get(expr.array)
        if extents is None:
            return False
        if not extents:
            return True
        index = expr.indices[0]
        if len(extents) == 1:
            return self._below(index, extents[0])
        match index:
            case Apply("add", (Apply("mul", (row, width)), column)) if len(extents) == 2 and width == extents[1]:
                return self._below(row, extents[0]) and self._below(column, extents[1])
            case _:
                return False

    def _below(self, index: LoopExpr, extent: LoopExpr) -> bool:
        """Whether `index` is the variable of a loop around that stays inside `extent`."""
        return isinstance(index, Var) and extent in self.ranges.get(index.name, ())

    def _never_negative(self, lower: LoopExpr) -> bool:
        match lower:
            case Const(value):
                return value.real >= 0
            case Apply("mul", (Var(name), Const(value))):
                return name in self.ranges and value.real >= 0
            case _:
                return False

    def _level(self, expr: LoopExpr) -> int:
        return self.levels_of[id(expr)]

    def _known(self, number: int) -> Var | None:
        for level in reversed(self.levels.stack):
            found = level.known.get(number)
            if found is not None:
                return found
        return None

    def _expr(self, expr: LoopExpr, depth: int) -> LoopExpr:
        """`expr` as it is written in block `depth`."""
        kind = type(expr)
        if kind is Const:
            return expr
        if kind is Var:
            return self.instead.get(expr.name, expr)  # type: ignore[union-attr]
        number = self.number_of[id(expr)]
        if self._free(expr):
            return map_operands(expr, lambda e: self._expr(e, depth))
        found = self._known(number)
        if found is not None:
            return found
        level = self._level(expr)
        crosses = any(self.levels.stack[k].loop for k in range(level + 1, depth + 1))
        if not crosses and self.uses[number] < 2:
            return map_operands(expr, lambda e: self._expr(e, depth))
        level = min(level, depth)
        value = map_operands(expr, lambda e: self._expr(e, level))
        name = self.levels.names.fresh(_stem(expr))
        self.levels.stack[level].stmts.append(Let(name, value))
        self.levels.home[name] = level
        self.values[name] = number
        out = self.levels.stack[level].known[number] = Var(name, b.dtype_of(value))
        return out

    def _free(self, expr: LoopExpr) -> bool:
        """True for what costs nothing where it is used."""
        match expr:
            case Load(array, (), _):
                return array in self.registers
            case Cast(arg, dtype):
                return (dtype.name in _LONG and b.dtype_of(arg).name in _LONG) or isinstance(arg, Const)
            case Apply("add", (_, Const()), dtype):
                return dtype == dt.i64
            case Ramp():
                return True
            case _:
                return False


def _smallest_of(upper: LoopExpr) -> tuple[LoopExpr, ...]:
    """Expressions that `upper` is at most."""
    match upper:
        case Apply("min", (x, y)):
            return (upper, *_smallest_of(x), *_smallest_of(y))
        case _:
            return (upper,)


def _stem(expr: LoopExpr) -> str:
    """A name that tells what the value is."""
    match expr:
        case Load(array, _, _) | MaskedLoad(array, _, _, _):
            return f"{array}_at".replace(".", "_")
        case Apply("mul", (Var(x, _), Var(y, _)), _):
            return f"{x}_{y}".replace(".", "_")
        case Apply(op, _, _):
            return f"{op}_value"
        case _:
            return "value"
