"""The rules a loop program keeps. `verify` raises VerifyError at the first one that is broken."""

from __future__ import annotations

from typing import assert_never

from polyai.errors import VerifyError
from polyai.loop.build import dtype_of
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
from polyai.loop.show import show_expr, show_stmt
from polyai.loop.walks import all_exprs
from polyai.scalar import dtype as dt
from polyai.scalar.dtype import DType
from polyai.scalar.ops import MONOIDS, OPS, result_type
from polyai.term.node import record


@record
class _Array:
    dtype: DType
    rank: int
    register: bool
    lanes: int
    writable: bool
    parallel: int  # how many parallel loops enclose the declaration


@record
class _Scope:
    """Names visible at one point; `parallel` counts the parallel loops around it, `host` says that there are serial loops at most."""

    values: dict[str, tuple[DType, int]]
    arrays: dict[str, _Array]
    sites: int
    flat: bool
    parallel: int = 0
    host: bool = True

    def inner(self, *, parallel: bool = False, host: bool = True) -> _Scope:
        return _Scope(
            dict(self.values), dict(self.arrays), self.sites, self.flat, self.parallel + parallel, self.host and host
        )

    def fail(self, what: str, why: str = "") -> VerifyError:
        return VerifyError(what, why)


def verify(kernel: Kernel, *, flat: bool = False) -> None:
    """Raise VerifyError unless `kernel` is well formed. With `flat`: also that every access has one index, or none for a
    register, as `flatten` leaves it."""
    scope = _Scope({}, {}, len(kernel.sites), flat)
    for p in kernel.params:
        if p.extents is None:
            if p.dtype != dt.i64 or p.role != "size":
                raise scope.fail(f"size parameter {p.name} has dtype {p.dtype} and role {p.role}", "sizes are i64")
            scope.values[p.name] = (p.dtype, 1)
    for p in kernel.params:
        if p.extents is not None:
            for e in p.extents:
                _index(e, scope, f"extent of {p.name}")
            name_is_new(p.name, scope)
            scope.arrays[p.name] = _Array(p.dtype, len(p.extents), False, 1, p.role == "output", 0)
    _stmt(kernel.body, scope)


def name_is_new(name: str, scope: _Scope) -> None:
    """No name hides another one that is visible."""
    if name in scope.values or name in scope.arrays:
        raise scope.fail(f"{name} is defined twice in one scope")


def _stmt(stmt: Stmt, scope: _Scope) -> None:
    match stmt:
        case Block(stmts):
            inner = scope.inner()
            for s in stmts:
                _stmt(s, inner) if not isinstance(s, (Let, Alloc)) else _declare(s, inner)
        case Let() | Alloc():
            _declare(stmt, scope.inner())
        case For():
            _for(stmt, scope)
        case While(condition, body):
            _condition(condition, scope)
            _stmt(body, scope.inner(host=scope.host))
        case If(condition, then, orelse):
            _condition(condition, scope)
            _stmt(then, scope.inner())
            if orelse is not None:
                _stmt(orelse, scope.inner())
        case Store():
            _store(stmt, scope)
        case Check(ok, site, culprit):
            if _expr(ok, scope)[0] != dt.bool_:
                raise scope.fail(f"a check of dtype {dtype_of(ok)}", show_stmt(stmt))
            if not 0 <= site < scope.sites:
                raise scope.fail(f"site {site} of {scope.sites} sites", show_stmt(stmt))
            if culprit is not None and not _expr(culprit, scope)[0].is_integer:
                raise scope.fail("a culprit that is no integer", show_stmt(stmt))
        case Turn(register, turns, counts, at, count, pieces):
            for name, rank in ((register, 0), (turns, 1), (counts, 1)):
                if name not in scope.arrays or scope.arrays[name].dtype != dt.i64 or scope.arrays[name].rank != rank:
                    raise scope.fail(f"{name} is no i64 {'array' if rank else 'register'} here", show_stmt(stmt))
            for e in (at, count, pieces):
                if _expr(e, scope)[0] != dt.i64:
                    raise scope.fail(f"a turn of dtype {dtype_of(e)}", show_stmt(stmt))
        case Prefetch(array, index):
            if array not in scope.arrays:
                raise scope.fail(f"{array} is no array here", show_stmt(stmt))
            _expr(index, scope)
        case Call(_, args):
            for a in args:
                if not isinstance(a, str):
                    _expr(a, scope)
                elif a not in scope.arrays:
                    raise scope.fail(f"{a} is no array here", show_stmt(stmt))
        case _:
            assert_never(stmt)


def _declare(stmt: Let | Alloc, scope: _Scope) -> None:
    name_is_new(stmt.name, scope)
    if isinstance(stmt, Let):
        scope.values[stmt.name] = _expr(stmt.value, scope)
        return
    for e in stmt.extents:
        _index(e, scope, f"extent of {stmt.name}")
    if stmt.space is Space.REGISTER and stmt.extents:
        raise scope.fail(f"register {stmt.name} has extents", show_stmt(stmt))
    if stmt.space is not Space.REGISTER and stmt.lanes != 1:
        raise scope.fail(f"{stmt.name} has lanes but is no register", show_stmt(stmt))
    if stmt.space is Space.KERNEL and scope.parallel:
        raise scope.fail(f"{stmt.name} is shared but allocated in a parallel loop", show_stmt(stmt))
    scope.arrays[stmt.name] = _Array(
        stmt.dtype, len(stmt.extents), stmt.space is Space.REGISTER, stmt.lanes, True, scope.parallel
    )


def _for(loop: For, scope: _Scope) -> None:
    _index(loop.lower, scope, f"lower bound of {loop.var}")
    _index(loop.upper, scope, f"upper bound of {loop.var}")
    name_is_new(loop.var, scope)
    if loop.step < 1 or loop.jam < 1:
        raise scope.fail(f"loop {loop.var} has step {loop.step} and jam {loop.jam}", "both are positive")
    if loop.weight is not None and loop.weight not in scope.arrays:
        raise scope.fail(f"weight {loop.weight} of loop {loop.var} is no array here")
    parallel = loop.kind is Kind.PARALLEL
    if loop.stretch is not None:
        name_is_new(loop.stretch, scope)
        if not parallel or loop.step != 1:
            raise scope.fail(f"loop {loop.var} has a stretch", "only a parallel loop of step 1 can")
    if parallel and (scope.parallel or not scope.host):
        raise scope.fail(f"parallel loop {loop.var} is not at host level", "it may stand in blocks, while, if and serial loops only")
    inner = scope.inner(parallel=parallel, host=scope.host and loop.kind is Kind.SERIAL)
    inner.values[loop.var] = (dt.i64, 1)
    if loop.stretch is not None:
        inner.values[loop.stretch] = (dt.i64, 1)
    if loop.kind in (Kind.COPY, Kind.STREAM):
        _copies(loop, scope)
    _stmt(loop.body, inner)


def _copies(loop: For, scope: _Scope) -> None:
    """A loop that is done by blocks moves elements that follow each other, and nothing else."""
    following = {loop.var}

    def follows(expr: LoopExpr) -> bool:
        match expr:
            case Var(name):
                return name in following
            case Apply("add", (a, b)):
                return follows(a) != follows(b) and steady(b if follows(a) else a)
            case _:
                return False

    def steady(expr: LoopExpr) -> bool:
        return not any(isinstance(e, Var) and e.name in following for e in all_exprs(expr))

    for part in loop.body.stmts if isinstance(loop.body, Block) else (loop.body,):
        match part:
            case Let(name, value) if follows(value):
                following.add(name)
                continue
            case Let(_, value) if steady(value):
                continue
            case Store(target, (to,), Load(source, (at,)), None) if target != source and follows(to) and follows(at):
                continue
        raise scope.fail(f"loop {loop.var} copies blocks", f"{show_stmt(part)} is no copy of elements that follow each other")
    if loop.step != 1:
        raise scope.fail(f"loop {loop.var} copies blocks", f"its step is {loop.step}")


def _store(stmt: Store, scope: _Scope) -> None:
    array = _array(stmt.array, stmt.indices, scope, show_stmt(stmt))
    if not array.writable:
        raise scope.fail(f"{stmt.array} is an input and is written", show_stmt(stmt))
    address = _address(stmt.indices, array, scope)
    dtype, lanes = _expr(stmt.value, scope)
    if dtype != array.dtype:
        raise scope.fail(f"{stmt.array} holds {array.dtype} and gets {dtype}", show_stmt(stmt))
    if lanes not in (1, address):
        raise scope.fail(f"{lanes} lanes stored to {address}", show_stmt(stmt))
    if stmt.mask is not None:
        mask, width = _expr(stmt.mask, scope)
        if mask != dt.bool_ or width not in (1, address):
            raise scope.fail(f"a mask of dtype {mask} and {width} lanes for {address} lanes", show_stmt(stmt))


def _condition(expr: LoopExpr, scope: _Scope) -> None:
    if _expr(expr, scope) != (dt.bool_, 1):
        raise scope.fail("a condition that is no scalar bool", show_expr(expr))


def _index(expr: LoopExpr, scope: _Scope, what: str) -> None:
    if _expr(expr, scope) != (dt.i64, 1):
        raise scope.fail(f"{what} is no scalar i64", show_expr(expr))


def _array(name: str, indices: tuple[LoopExpr, ...], scope: _Scope, where: str) -> _Array:
    array = scope.arrays.get(name)
    if array is None:
        raise scope.fail(f"{name} is no array here", where)
    wanted = 0 if array.register else 1 if scope.flat else array.rank
    if len(indices) != wanted and not (not array.register and len(indices) == 1 and not scope.flat):
        raise scope.fail(f"{name} has {len(indices)} indices, not {wanted}", where)
    if array.register and array.parallel != scope.parallel:
        raise scope.fail(f"register {name} is used in a parallel loop it was declared outside of", where)
    return array


def _address(indices: tuple[LoopExpr, ...], array: _Array, scope: _Scope) -> int:
    """Lanes of an access."""
    lanes = array.lanes
    for i in indices:
        dtype, width = _expr(i, scope)
        if dtype != dt.i64:
            raise scope.fail(f"an index of dtype {dtype}", show_expr(i))
        lanes = _common(lanes, width, scope, i)
    return lanes


def _common(a: int, b: int, scope: _Scope, expr: LoopExpr) -> int:
    if a != b and 1 not in (a, b):
        raise scope.fail(f"{a} lanes meet {b} lanes", show_expr(expr))
    return max(a, b)


def _expr(expr: LoopExpr, scope: _Scope) -> tuple[DType, int]:
    """Element type and lanes of a value."""
    match expr:
        case Const(_, dtype):
            return dtype, 1
        case Var(name, dtype):
            found = scope.values.get(name)
            if found is None:
                raise scope.fail(f"{name} is not defined here")
            if found[0] != dtype:
                raise scope.fail(f"{name} is {found[0]}, read as {dtype}")
            return found
        case Load(array, indices, dtype) | MaskedLoad(array, indices, _, dtype):
            entry = _array(array, indices, scope, show_expr(expr))
            if entry.dtype != dtype:
                raise scope.fail(f"{array} holds {entry.dtype}, read as {dtype}", show_expr(expr))
            lanes = _address(indices, entry, scope)
            if isinstance(expr, MaskedLoad):
                mask, width = _expr(expr.mask, scope)
                if mask != dt.bool_ or entry.register:
                    raise scope.fail("a masked load needs a bool mask and memory", show_expr(expr))
                lanes = _common(lanes, width, scope, expr)
            return dtype, lanes
        case Cast(arg, dtype):
            return dtype, _expr(arg, scope)[1]
        case Ramp(base, _, lanes):
            _index(base, scope, "base of a ramp")
            if lanes < 2:
                raise scope.fail(f"a ramp of {lanes} lanes", show_expr(expr))
            return dt.i64, lanes
        case Pack(values, dtype):
            if len(values) < 2 or any(_expr(v, scope) != (dtype, 1) for v in values):
                raise scope.fail(f"a pack of {len(values)} values that are not all scalars of {dtype}", show_expr(expr))
            return dtype, len(values)
        case Horizontal(monoid, value, dtype):
            inner, lanes = _expr(value, scope)
            if monoid not in MONOIDS or inner != dtype or lanes == 1:
                raise scope.fail(f"a horizontal {monoid} of {inner} with {lanes} lanes", show_expr(expr))
            return dtype, 1
        case Apply(op, args, dtype):
            return _apply(op, args, dtype, expr, scope)
        case _:
            assert_never(expr)


def _apply(op: str, args: tuple[LoopExpr, ...], dtype: DType, expr: LoopExpr, scope: _Scope) -> tuple[DType, int]:
    entry = OPS.get(op)
    if entry is None or len(args) != entry.arity:
        raise scope.fail(f"{op} with {len(args)} arguments is no operation", show_expr(expr))
    lanes, types = 1, []
    for a in args:
        given, width = _expr(a, scope)
        types.append(given)
        lanes = _common(lanes, width, scope, expr)
    if op == "where":
        good = types[0] == dt.bool_ and types[1] == types[2] == dtype
    elif entry.operands == "result":
        good = all(t == dtype for t in types) and result_type(op, *types) == dtype
    elif entry.operands == "common":
        good = all(t == types[0] for t in types) and dtype == dt.bool_
    else:
        good = result_type(op, *types) == dtype
    if not good:
        raise scope.fail(f"{op} of ({', '.join(map(str, types))}) gives no {dtype}", show_expr(expr))
    return dtype, lanes
