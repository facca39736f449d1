"""The meaning of loop programs, executed with NumPy: slow, exact, and unforgiving about memory.

Every access is checked against its array. An access out of range that no Check stopped raises VerifyError: generated code
would have touched foreign memory. Fresh memory holds NaN or the lowest integer, so that reading it is seen.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, assert_never

import numpy as np

from polyai.errors import UnsupportedError, VerifyError
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
from polyai.loop.walks import all_stmts
from polyai.scalar import dtype as dt
from polyai.scalar.dtype import DType
from polyai.scalar.ops import MONOIDS, OPS

OK, FIRST_SITE = 0, 1
_NUMPY = {d.name: dt.to_numpy(d) for d in dt.ALL if d.name != "bf16"}


class _Left(Exception):
    """A Check failed."""

    def __init__(self, site: int, culprit: int) -> None:
        self.site, self.culprit = site, culprit


@dataclass(slots=True)
class _State:
    values: dict[str, Any]
    arrays: dict[str, Any]
    backwards: bool
    externs: Mapping[str, Any] = field(default_factory=dict)
    kept: dict[int, Any] = field(default_factory=dict)  # buffers that outlive an iteration


def run(
    kernel: Kernel,
    args: Mapping[str, Any],
    *,
    backwards: bool = False,
    culprits: list[int] | None = None,
    externs: Mapping[str, Any] | None = None,
) -> int:
    """Execute `kernel` in place on `args` (sizes by name as int, arrays by name as C-contiguous ndarrays).

    Returns 0, or 1 + site of the failed check, whose culprit is appended to `culprits`. `backwards` runs the iterations of
    parallel loops from last to first. `externs` maps names of called functions to Python functions of the arguments.
    Raises VerifyError for an access out of range."""
    state = _State({}, {}, backwards, externs=externs or {})
    for p in kernel.params:
        if p.extents is None:
            state.values[p.name] = np.int64(args[p.name])
    for p in kernel.params:
        if p.extents is not None:
            state.arrays[p.name] = _argument(p.name, p.dtype, tuple(int(_eval(e, state)) for e in p.extents), args[p.name])
    try:
        _stmt(kernel.body, state)
    except _Left as left:
        if culprits is not None:
            culprits.append(left.culprit)
        return FIRST_SITE + left.site
    return OK


def _argument(name: str, dtype: DType, shape: tuple[int, ...], array: Any) -> Any:
    if array.dtype != _numpy(dtype) or array.shape != shape or not array.flags.c_contiguous:
        raise VerifyError(f"argument {name} is {array.dtype}{list(array.shape)}", f"the kernel wants contiguous {dtype}{list(shape)}")
    return array


def _numpy(dtype: DType) -> np.dtype[Any]:
    found = _NUMPY.get(dtype.name)
    return dt.to_numpy(dtype) if found is None else found


def _stmt(stmt: Stmt, state: _State) -> None:
    match stmt:
        case Block(stmts):
            declared = [s.name for s in stmts if isinstance(s, (Let, Alloc))]
            for s in stmts:
                _stmt(s, state)
            for name in declared:
                state.values.pop(name, None)
                state.arrays.pop(name, None)
        case Let(name, value):
            state.values[name] = _eval(value, state)
        case Alloc(name, dtype, extents, space, lanes, zero):
            shape = tuple(int(_eval(e, state)) for e in extents)
            if any(n < 0 for n in shape):
                raise VerifyError(f"{name} is allocated with extents {shape}", show_stmt(stmt))
            if zero:
                state.arrays[name] = state.kept.setdefault(id(stmt), np.zeros(shape, _numpy(dtype)))
                return
            state.arrays[name] = _fresh((lanes,) if space is Space.REGISTER and lanes > 1 else shape, dtype)
        case Store():
            _store(stmt, state)
        case For(var, lower, upper, body, kind, step, stretch=stretch):
            steps = range(int(_eval(lower, state)), int(_eval(upper, state)), step)
            if stretch is not None:
                _stretches(stmt, steps, stretch, state)
                return
            backwards = kind is Kind.PARALLEL and state.backwards and not any(isinstance(s, Turn) for s in all_stmts(body))
            for k in reversed(steps) if backwards else steps:
                state.values[var] = np.int64(k)
                _stmt(body, state)
            state.values.pop(var, None)
        case While(condition, body):
            while bool(_eval(condition, state)):
                _stmt(body, state)
        case If(condition, then, orelse):
            if bool(_eval(condition, state)):
                _stmt(then, state)
            elif orelse is not None:
                _stmt(orelse, state)
        case Check(ok, site, culprit):
            good = np.atleast_1d(_eval(ok, state))
            if not good.all():
                blame = np.atleast_1d(_eval(culprit, state)) if culprit is not None else np.zeros(1, np.int64)
                lane = int(np.argmin(good))
                raise _Left(site, int(blame[lane if len(blame) > 1 else 0]))
        case Turn(register, turns, counts, at, count):
            place = int(_eval(at, state))
            start = int(state.arrays[turns][place])
            if start < 0:
                raise VerifyError(f"turn {place} comes before the one before it", show_stmt(stmt))
            state.arrays[register][...] = start
            state.arrays[counts][place] = _eval(count, state)
            state.arrays[turns][place + 1] = start + int(_eval(count, state))
        case Prefetch(_, index):
            _eval(index, state)
        case Call(function, args):
            found = state.externs.get(function)
            if found is None:
                raise UnsupportedError(f"the interpreter does not know the library function {function}", remedy="pass it in externs")
            found(*(state.arrays[a] if isinstance(a, str) else _eval(a, state) for a in args))
        case _:
            assert_never(stmt)


def _stretches(loop: For, steps: range, end: str, state: _State) -> None:
    """All iterations at once; backwards, one at a time."""
    parts = [range(k, k + 1) for k in reversed(steps)] if state.backwards else [steps] if len(steps) else []
    for part in parts:
        state.values[loop.var], state.values[end] = np.int64(part.start), np.int64(part.stop)
        _stmt(loop.body, state)
    state.values.pop(loop.var, None)
    state.values.pop(end, None)


def _fresh(shape: tuple[int, ...], dtype: DType) -> Any:
    kind = _numpy(dtype)
    if dtype.is_float or dtype.is_complex:
        return np.full(shape, np.nan, kind)
    return np.full(shape, True if dtype.kind == "b" else np.iinfo(kind).max if dtype.kind == "u" else np.iinfo(kind).min, kind)


def _store(stmt: Store, state: _State) -> None:
    array = state.arrays[stmt.array]
    value = _eval(stmt.value, state)
    mask = None if stmt.mask is None else _eval(stmt.mask, state)
    if not stmt.indices:
        if mask is None:
            array[...] = value
        else:
            array[...] = np.where(mask, value, array)
        return
    indices = [_eval(i, state) for i in stmt.indices]
    array, place, inside = _place(stmt.array, array, indices, mask, stmt)
    if mask is None:
        array[place] = value
    elif np.ndim(inside):
        values = np.broadcast_to(value, inside.shape)[inside]
        array[tuple(np.broadcast_to(i, inside.shape)[inside] for i in place)] = values
    elif inside:
        array[place] = value


def _place(name: str, array: Any, indices: list[Any], mask: Any, where: Any) -> tuple[Any, tuple[Any, ...], Any]:
    """The array, its indices and the effective mask, all in range where the mask holds."""
    if len(indices) != array.ndim:
        if len(indices) != 1:
            raise VerifyError(f"{name} of rank {array.ndim} has {len(indices)} indices")
        array = array.reshape(-1)
    width = np.broadcast_shapes(*(np.shape(i) for i in indices), np.shape(mask) if mask is not None else ())
    active = np.broadcast_to(np.bool_(True) if mask is None else mask, width)
    for i, n in zip(indices, array.shape):
        good = (np.asarray(i) >= 0) & (np.asarray(i) < n) | ~active
        if not np.all(good):
            text = show_expr(where) if not isinstance(where, Store) else show_stmt(where)
            raise VerifyError(f"{name} is accessed at {[np.asarray(x).tolist() for x in indices]}", f"its shape is {array.shape}: {text}")
    return array, tuple(indices), active


def _eval(expr: LoopExpr, state: _State) -> Any:
    match expr:
        case Const(value, dtype):
            return _numpy(dtype).type(value)
        case Var(name, _):
            return state.values[name]
        case Load(array, indices, _):
            if not indices:
                found = state.arrays[array]
                return found[()].copy() if found.ndim else found[()]
            memory, place, _ = _place(array, state.arrays[array], [_eval(i, state) for i in indices], None, expr)
            return memory[place]
        case MaskedLoad(array, indices, mask, dtype):
            on = _eval(mask, state)
            memory, place, inside = _place(array, state.arrays[array], [_eval(i, state) for i in indices], on, expr)
            if np.ndim(inside) == 0:
                return memory[place] if inside else _numpy(dtype).type(0)
            out = np.zeros(inside.shape, _numpy(dtype))
            out[inside] = memory[tuple(np.broadcast_to(i, inside.shape)[inside] for i in place)]
            return out
        case Cast(arg, dtype):
            with np.errstate(all="ignore"):
                return np.asarray(_eval(arg, state)).astype(_numpy(dtype))[()]
        case Ramp(base, stride, lanes):
            return _eval(base, state) + stride * np.arange(lanes, dtype=np.int64)
        case Pack(values, dtype):
            return np.array([_eval(v, state) for v in values], _numpy(dtype))
        case Horizontal(monoid, value, dtype):
            lanes_ = _eval(value, state)
            meaning = OPS[MONOIDS[monoid].op].meaning
            while len(lanes_) > 1 and len(lanes_) % 2 == 0:
                half = len(lanes_) // 2
                lanes_ = meaning(lanes_[:half], lanes_[half:])
            return functools.reduce(meaning, lanes_).astype(_numpy(dtype))
        case Apply(op, args, dtype):
            result = OPS[op].meaning(*(_eval(a, state) for a in args))
            return np.asarray(result).astype(_numpy(dtype), copy=False)[()]
        case _:
            assert_never(expr)
