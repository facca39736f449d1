"""What a statement mentions: the names a task must be given."""

from __future__ import annotations

from dataclasses import field
from typing import assert_never

from polyai.loop import nodes as lp
from polyai.term.node import record


@record
class Survey:
    """Names in order of appearance; dictionaries serve as ordered sets."""

    names: dict[str, None] = field(default_factory=dict)
    stored: dict[str, None] = field(default_factory=dict)
    calls: dict[str, None] = field(default_factory=dict)
    allocs: list[lp.Alloc] = field(default_factory=list)

    def stmt(self, s: lp.Stmt) -> None:
        match s:
            case lp.Block(stmts):
                for part in stmts:
                    self.stmt(part)
            case lp.For(_, lower, upper, body):
                self.exprs((lower, upper))
                if s.weight is not None:
                    self.names[s.weight] = None
                self.stmt(body)
            case lp.While(condition, body):
                self.expr(condition)
                self.stmt(body)
            case lp.If(condition, then, orelse):
                self.expr(condition)
                self.stmt(then)
                if orelse is not None:
                    self.stmt(orelse)
            case lp.Let(_, value):
                self.expr(value)
            case lp.Alloc(_, _, extents, _):
                self.allocs.append(s)
                self.exprs(extents)
            case lp.Store(array, indices, value, mask):
                self.names[array] = self.stored[array] = None
                self.exprs((*indices, value) if mask is None else (*indices, value, mask))
            case lp.Check(ok, _, culprit):
                self.exprs((ok,) if culprit is None else (ok, culprit))
            case lp.Turn(register, turns, counts, at, count, pieces):
                for name in (register, turns, counts):
                    self.names[name] = self.stored[name] = None
                self.exprs((at, count, pieces))
            case lp.Prefetch(array, index):
                self.names[array] = None
                self.expr(index)
            case lp.Call(function, args):
                self.calls[function] = None
                for arg in args:
                    if isinstance(arg, str):
                        self.names[arg] = None
                    else:
                        self.expr(arg)
            case _:
                assert_never(s)

    def exprs(self, parts: tuple[lp.LoopExpr, ...]) -> None:
        for part in parts:
            self.expr(part)

    def expr(self, e: lp.LoopExpr) -> None:
        match e:
            case lp.Var(name, _):
                self.names[name] = None
            case lp.Apply(_, args, _):
                self.exprs(args)
            case lp.Load(array, indices, _):
                self.names[array] = None
                self.exprs(indices)
            case lp.Const():
                pass
            case lp.MaskedLoad(array, indices, mask, _):
                self.names[array] = None
                self.exprs((*indices, mask))
            case lp.Cast(arg, _):
                self.expr(arg)
            case lp.Ramp(base, _, _):
                self.expr(base)
            case lp.Pack(values, _):
                self.exprs(values)
            case lp.Horizontal(_, value, _):
                self.expr(value)
            case _:
                assert_never(e)


def survey(s: lp.Stmt) -> Survey:
    """What `s` mentions."""
    found = Survey()
    found.stmt(s)
    return found


def calls(s: lp.Stmt) -> dict[str, None]:
    """The library functions `s` calls, in order of appearance."""
    found: dict[str, None] = {}
    pending = [s]
    while pending:
        match pending.pop():
            case lp.Block(stmts):
                pending += reversed(stmts)
            case lp.For() | lp.While() as loop:
                pending.append(loop.body)
            case lp.If(_, then, orelse):
                pending += [then] if orelse is None else [orelse, then]
            case lp.Call(function, _):
                found[function] = None
            case _:
                pass
    return found
