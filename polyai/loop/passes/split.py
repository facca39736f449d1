"""Vector loops are cut where the conditions in them become true for good, so that the long middle part has none.

Before::                                               After::

    for i in 0..n vector:                                  let i_from = min(max(0, 7), n)
      let inside = i - 7 >= 0 and i - 7 < m                let i_to = max(min(n, m + 7), i_from)
      Y[i] = where(inside, (X[i - 7] if inside), 0.0)      for i in 0..i_from vector: as before
                                                           for i in i_from..i_to vector:
                                                             Y[i] = X[i - 7]
                                                           for i in i_to..n vector: as before

Only comparisons that are affine in the loop's variable with coefficient 1 or -1 count, and only loops with loads under a mask.
Proves what it does: between the two cuts every counted comparison holds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from polyai.loop import build as b
from polyai.loop.nodes import Alloc, Apply, For, Kernel, Kind, Let, LoopExpr, MaskedLoad, Stmt, Store
from polyai.loop.passes.simplify import simplify
from polyai.loop.walks import all_exprs, all_stmts, expressions, map_operands, map_stmt, supply
from polyai.scalar import dtype as dt
from polyai.scalar.expr import Const, Var
from polyai.term.names import Names

_COMPARISONS = frozenset(("lt", "le", "gt", "ge"))
Affine = tuple[dict[LoopExpr, int], int]


def split(kernel: Kernel) -> Kernel:
    """`kernel`, not flat yet, with its vector loops cut."""
    names = supply(kernel)
    body = _stmt(kernel.body, names)
    return kernel if body is kernel.body else simplify(dataclasses.replace(kernel, body=body))


def _stmt(stmt: Stmt, names: Names) -> Stmt:
    if isinstance(stmt, For) and stmt.kind is Kind.VECTOR:
        return _cut(stmt, names)
    if isinstance(stmt, For):
        body = _stmt(stmt.body, names)
        return stmt if body is stmt.body else dataclasses.replace(stmt, body=body)
    inner = b.statements(stmt)
    if inner == (stmt,):
        return stmt
    out = tuple(_stmt(s, names) for s in inner)
    return stmt if all(x is y for x, y in zip(out, inner)) else b.block(*out)


def _cut(loop: For, names: Names) -> Stmt:
    bounds = _bounds(loop)
    if not bounds:
        return loop
    start, stop = names.fresh(f"{loop.var}_from"), names.fresh(f"{loop.var}_to")
    low, high = loop.lower, loop.upper
    for is_lower, bound in bounds.values():
        if is_lower:
            low = b.largest(low, bound)
        else:
            high = b.smallest(high, bound)
    first, last = b.var(start), b.var(stop)

    def assume(expr: LoopExpr) -> LoopExpr:
        return b.TRUE if expr in bounds else map_operands(expr, assume)

    inside = dataclasses.replace(loop, lower=first, upper=last, body=map_stmt(loop.body, assume))
    return b.block(
        Let(start, b.smallest(low, loop.upper)),
        Let(stop, b.largest(high, first)),
        dataclasses.replace(loop, upper=first),
        inside,
        dataclasses.replace(loop, lower=last),
    )


def _bounds(loop: For) -> dict[LoopExpr, tuple[bool, LoopExpr]]:
    """The comparisons to get rid of, each with whether it bounds the variable from below, and the bound (v >= it, or v < it)."""
    stmts = list(all_stmts(loop.body))
    exprs = [x for s in stmts for e in expressions(s) for x in all_exprs(e)]
    plain = not any(isinstance(s, For) or (isinstance(s, Store) and not s.indices) for s in stmts)
    if loop.step != 1 or not plain or not any(isinstance(x, MaskedLoad) for x in exprs):
        return {}
    local = {s.name for s in stmts if isinstance(s, (Let, Alloc))}
    found: dict[LoopExpr, tuple[bool, LoopExpr]] = {}
    for x in dict.fromkeys(exprs):
        if isinstance(x, Apply) and x.op in _COMPARISONS and all(b.dtype_of(a) == dt.i64 for a in x.args):
            bound = _bound(x, loop.var, local)
            if bound is not None:
                found[x] = bound
    return found


def _bound(test: Apply, var: str, local: Iterable[str]) -> tuple[bool, LoopExpr] | None:
    form = _affine(b.sub(test.args[0], test.args[1]), var, frozenset(local))
    if form is None:
        return None
    terms, number = form
    sign = terms.pop(b.var(var), 0)
    if abs(sign) != 1:
        return None
    rest: LoopExpr = b.const(-sign * number)  # sign * v + terms + number compared with 0: v against rest
    for atom, factor in terms.items():
        part = b.mul(atom, b.const(abs(factor)))
        rest = b.sub(rest, part) if sign * factor > 0 else b.add(rest, part)
    op = test.op if sign == 1 else {"lt": "gt", "le": "ge", "gt": "lt", "ge": "le"}[test.op]
    match op:
        case "lt":
            return False, rest
        case "le":
            return False, b.add(rest, b.ONE)
        case "gt":
            return True, b.add(rest, b.ONE)
        case _:
            return True, rest


def _affine(expr: LoopExpr, var: str, local: frozenset[str]) -> Affine | None:
    """`expr` as coefficients of names and a number; None if it is something else, or reads a name of the loop's body."""
    match expr:
        case Const():
            value = b.number(expr)
            return None if value is None else ({}, value)
        case Var(name):
            return None if name in local else ({expr: 1}, 0)
        case Apply("add" | "sub" as op, (x, y), dtype) if dtype == dt.i64:
            left, right = _affine(x, var, local), _affine(y, var, local)
            if left is None or right is None:
                return None
            sign = 1 if op == "add" else -1
            terms = dict(left[0])
            for atom, factor in right[0].items():
                terms[atom] = terms.get(atom, 0) + sign * factor
            return {a: f for a, f in terms.items() if f}, left[1] + sign * right[1]
        case Apply("mul", (x, y), dtype) if dtype == dt.i64:
            by, inner = b.number(y), _affine(x, var, local)
            return None if inner is None or by is None else ({a: f * by for a, f in inner[0].items() if f * by}, inner[1] * by)
        case _:
            return None
