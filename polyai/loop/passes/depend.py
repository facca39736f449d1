"""What in the body of a loop depends on its variable, and which registers it reduces into."""

from __future__ import annotations

from polyai.loop.nodes import (
    Alloc,
    Apply,
    Block,
    Call,
    Check,
    For,
    If,
    Let,
    Load,
    LoopExpr,
    MaskedLoad,
    Space,
    Stmt,
    Store,
    Var,
    While,
)
from polyai.loop.walks import all_exprs, all_stmts, expressions, operands
from polyai.scalar.ops import MONOIDS

_MONOID_OF = {m.op: m.name for m in MONOIDS.values()}


def depends(expr: LoopExpr, names: set[str]) -> bool:
    """True if `expr` reads one of `names`, as a value or as an array."""
    kind = type(expr)
    if kind is Var:
        return expr.name in names  # type: ignore[union-attr]
    if isinstance(expr, (Load, MaskedLoad)) and expr.array in names:
        return True
    return any(depends(e, names) for e in operands(expr))


def varying(body: Stmt, variable: str) -> set[str]:
    """Names in `body` whose value may differ between iterations of the loop over `variable`: Lets, loop variables, and
    registers and buffers declared in `body`."""
    out = {variable}
    declared = {s.name for s in all_stmts(body) if isinstance(s, Alloc)}
    out |= {s.name for s in all_stmts(body) if isinstance(s, Alloc) and s.space is not Space.REGISTER}
    before = 0
    while before != len(out):
        before = len(out)
        _spread(body, out, declared, False)
    return out


def _spread(stmt: Stmt, out: set[str], declared: set[str], conditional: bool) -> None:
    match stmt:
        case Let(name, value):
            if name not in out and depends(value, out):
                out.add(name)
        case Store(array=array):
            if array in declared and array not in out and (conditional or any(depends(e, out) for e in expressions(stmt))):
                out.add(array)
        case For(var=var, lower=lower, upper=upper, body=body):
            uneven = depends(lower, out) or depends(upper, out)
            if uneven:
                out.add(var)
            _spread(body, out, declared, conditional or uneven)
        case While(condition, body):
            _spread(body, out, declared, conditional or depends(condition, out))
        case If(condition, then, orelse):
            inner = conditional or depends(condition, out)
            _spread(then, out, declared, inner)
            if orelse is not None:
                _spread(orelse, out, declared, inner)
        case Block(stmts):
            for s in stmts:
                _spread(s, out, declared, conditional)
        case Call() | Alloc() | Check():
            pass


def reductions(body: Stmt, registers: set[str]) -> dict[str, tuple[str, LoopExpr]] | None:
    """Those of `registers`, declared around a loop, that its `body` writes: name -> (monoid, one contribution). Each may be
    read only to be combined with a contribution; None if one is used otherwise."""
    stores: dict[str, list[Store]] = {}
    inner = {s.name for s in all_stmts(body) if isinstance(s, Alloc)}
    for s in all_stmts(body):
        if isinstance(s, Store) and not s.indices and s.array in registers and s.array not in inner:
            stores.setdefault(s.array, []).append(s)
    if not stores:
        return {}
    reads = dict.fromkeys(stores, 0)
    for s in all_stmts(body):
        for e in expressions(s):
            for x in all_exprs(e):
                if isinstance(x, Load) and x.array in reads:
                    reads[x.array] += 1
    out: dict[str, tuple[str, LoopExpr]] = {}
    for name, found in stores.items():
        for s in found:
            split = combined(s)
            if split is None or (name in out and out[name][0] != split[0]):
                return None
            out[name] = split
        if reads[name] != len(found):
            return None
    return out


def combined(store: Store) -> tuple[str, LoopExpr] | None:
    """(monoid, contribution) of `register = register op contribution`; None for another store."""
    value = store.value
    if not isinstance(value, Apply) or value.op not in _MONOID_OF or store.mask is not None:
        return None
    left, right = value.args
    for mine, other in ((left, right), (right, left)):
        if isinstance(mine, Load) and mine.array == store.array and not mine.indices:
            return _MONOID_OF[value.op], other
    return None
