"""The blocks around a point of a program while it is rebuilt, outermost first, and which of them defines each name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field

from polyai.loop import build as b
from polyai.loop.nodes import (
    Alloc,
    Apply,
    Block,
    Cast,
    Check,
    Const,
    For,
    If,
    Kernel,
    Kind,
    Let,
    LoopExpr,
    Space,
    Stmt,
    Var,
    While,
)
from polyai.loop.walks import operands, supply
from polyai.scalar import dtype as dt
from polyai.term.node import record

_SAFE_DIVISORS = ("floordiv", "mod")


@record
class Level:
    """One block under construction. `loop`: it is a loop's body, run any number of times. `known` names its values. `read`: what is read
    in it, as far as a pass notes that."""

    stmts: list[Stmt]
    loop: bool
    parallel: bool
    known: dict[object, Var] = field(default_factory=dict)
    read: set[object] = field(default_factory=set)


class Levels:
    """A stack of blocks. `let` puts index arithmetic at the outermost block where its operands are known."""

    def __init__(self, kernel: Kernel) -> None:
        self.names = supply(kernel)
        self.stack = [Level([], False, False)]
        self.home: dict[str, int] = {}
        self.registers: set[str] = set()
        self.nonnegative = {p.name for p in kernel.params if p.extents is None}  # names of values that are known to be >= 0
        self._ordered: set[tuple[str, str]] = set()  # (x, y): a Check established 0 <= x <= y
        self._between: dict[tuple[str, str], str] = {}  # (x, y): the name of y - x

    @property
    def depth(self) -> int:
        """The number of the innermost block."""
        return len(self.stack) - 1

    def push(self, *, loop: bool = False, parallel: bool = False) -> None:
        """Begin a block inside the innermost one."""
        self.stack.append(Level([], loop, parallel))

    def pop(self) -> Block:
        """End the innermost block."""
        return Block(tuple(self.stack.pop().stmts))

    def emit(self, stmt: Stmt) -> None:
        """Append to the innermost block."""
        if type(stmt) is Let:
            self.define(stmt.name)
            match stmt.value:
                case Apply("sub", (Var(y), Var(x)), dt.i64):
                    self._between[x, y] = stmt.name
                    if (x, y) in self._ordered and y in self.nonnegative:
                        self.nonnegative.add(stmt.name)
        elif type(stmt) is Check:
            self._learn(stmt.ok)
        self.stack[-1].stmts.append(stmt)

    def _learn(self, ok: LoopExpr) -> None:
        match ok:
            case Apply("and", (a, c)):
                self._learn(a)
                self._learn(c)
            case Apply("le", (Cast(Var(x), dt.u64), Cast(Var(y), dt.u64))) if y in self.nonnegative:
                self.nonnegative.add(x)
            case Apply("le", (Cast(Var(x), dt.u64), Cast(Var(y), dt.u64))):
                self._ordered.add((x, y))
            case _:
                pass

    def define(self, name: str) -> None:
        """`name` is defined by the innermost block; what was known of another value of that name is forgotten."""
        self.home[name] = len(self.stack) - 1
        self.nonnegative.discard(name)
        self._ordered = {pair for pair in self._ordered if name not in pair}
        self._between = {pair: length for pair, length in self._between.items() if name not in (*pair, length)}

    def level_of(self, expr: LoopExpr) -> int:
        """The innermost block that `expr`, arithmetic on numbers and names, needs."""
        kind = type(expr)
        if kind is Var:
            return self.home.get(expr.name, 0)  # type: ignore[union-attr]
        if kind is Const:
            return 0
        if not isinstance(expr, (Apply, Cast)) or (isinstance(expr, Apply) and expr.op in _SAFE_DIVISORS and not b.number(expr.args[1])):
            return len(self.stack) - 1
        return max(self.level_of(a) for a in operands(expr))

    def let(self, stem: str, value: LoopExpr, *, below_parallel: bool = False) -> LoopExpr:
        """A name for `value`; numbers and names are returned as they are. With `below_parallel`: not outside a parallel loop."""
        if isinstance(value, (Const, Var)):
            return value
        at = self.level_of(value)
        if below_parallel:
            at = max(at, max((k for k, level in enumerate(self.stack) if level.parallel), default=0))
        for k in range(at, len(self.stack)):
            found = self.stack[k].known.get(value)
            if found is not None:
                return found
        level = self.stack[at]
        name = self.names.fresh(stem)
        level.stmts.append(Let(name, value))
        self.home[name] = at
        out = level.known[value] = Var(name, b.dtype_of(value))
        return out

    def mark(self) -> list[int]:
        """How much each block holds now."""
        return [len(level.stmts) for level in self.stack]

    def undo(self, mark: list[int]) -> None:
        """Drop what was written since `mark`."""
        del self.stack[len(mark) :]
        for level, length in zip(self.stack, mark):
            gone = {s.name for s in level.stmts[length:] if isinstance(s, Let)}
            level.known = {value: name for value, name in level.known.items() if name.name not in gone}
            del level.stmts[length:]

    def positions(self, stem: str, lower: LoopExpr, upper: LoopExpr, widths: list[int]) -> list[LoopExpr]:
        """Where a loop over lower..upper stands after it took as many steps of each width in turn as fit."""
        out: list[LoopExpr] = []
        at = lower
        left = b.sub(upper, lower)
        number = b.number(left)
        if number is not None:
            for width in widths:
                at = b.add(at, b.const(number // width * width))
                number %= width
                out.append(at)
            return out
        length = self._between.get((lower.name, upper.name)) if isinstance(lower, Var) and isinstance(upper, Var) else None
        if length is not None:
            left = b.var(length)
        known = isinstance(left, Var) and left.name in self.nonnegative
        for width in widths:
            left = left if length is not None and not out else b.sub(upper, at)
            steps = b.floordiv(left if known else b.largest(left, b.ZERO), b.const(width))
            at = self.let(f"{stem}_at", b.add(lower if not out else at, b.mul(steps, b.const(width))))
            out.append(at)
        return out


def rebuild(stmt: Stmt, levels: Levels, special: Callable[[For], bool]) -> None:
    """Copy `stmt` into `levels`; loops that `special` takes care of (it returns True) are left to it."""
    match stmt:
        case Block(stmts):
            nested = bool(levels.stack[-1].stmts)
            if nested:
                levels.push()
            for s in stmts:
                rebuild(s, levels, special)
            if nested:
                levels.emit(levels.pop())
        case For(var, lower, upper, body, kind, step, weight, cost, jam, stretch):
            if special(stmt):
                return
            levels.push(loop=True, parallel=kind is Kind.PARALLEL)
            levels.define(var)
            if stretch is not None:
                levels.define(stretch)
            rebuild(body, levels, special)
            levels.emit(For(var, lower, upper, levels.pop(), kind, step, weight, cost, jam, stretch))
        case While(condition, body):
            levels.push(loop=True)
            rebuild(body, levels, special)
            levels.emit(While(condition, levels.pop()))
        case If(condition, then, orelse):
            levels.push()
            rebuild(then, levels, special)
            taken = levels.pop()
            other = None
            if orelse is not None:
                levels.push()
                rebuild(orelse, levels, special)
                other = levels.pop()
            levels.emit(If(condition, taken, other))
        case Alloc(name, _, (), Space.REGISTER, _):
            levels.registers.add(name)
            levels.emit(stmt)
        case _:
            levels.emit(stmt)
