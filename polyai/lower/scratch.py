"""Memory, registers and names that lowering makes for itself."""

from __future__ import annotations

from polyai.loop import build as b
from polyai.loop import nodes as lp
from polyai.lower.emitter import Emitter
from polyai.scalar import dtype as dt

MUCH = 1 << 20
"""The cost of a piece: each is a task of its own."""


class Scratch:
    """Makes them where the emitter stands."""

    def __init__(self, out: Emitter) -> None:
        self.out = out

    def memory(self, name: str, dtype: dt.DType, length: lp.LoopExpr) -> str:
        """An array called `name` for the whole kernel."""
        self.out.emit(lp.Alloc(name, dtype, (length,), lp.Space.KERNEL))
        return name

    def register(self, stem: str, start: lp.LoopExpr) -> str:
        """A register for an i64 that holds `start`."""
        name = self.out.names.fresh(stem)
        self.out.emit(lp.Alloc(name, dt.i64, (), lp.Space.REGISTER))
        self.out.emit(lp.Store(name, (), start))
        return name

    def let(self, stem: str, value: lp.LoopExpr) -> lp.LoopExpr:
        """A name for `value`; itself if it is a name or a number."""
        if isinstance(value, (lp.Const, lp.Var)):
            return value
        name = self.out.names.fresh(stem)
        self.out.emit(lp.Let(name, value))
        self.out.home[name] = len(self.out.levels) - 1
        return lp.Var(name, b.dtype_of(value))
