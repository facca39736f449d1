"""Loops marked `vector` run in lanes.

Before::                                After (f32, 512 bits)::

    for j in 0..w vector:                   let j_at = w // 64 * 64; let j_at_1 = ...
      alloc T: f32 register                 for j in 0..j_at step 64:
      T = 0.0                                 alloc T: f32 x 16 register; ... T_3
      for q in 0..len:                        T = 0.0; ...
        T = T + a[q] * X[k * w + j]           for q in 0..len:
      Y[j] = T                                  T = T + a[q] * X[ramp(k * w + j, 16)]
                                                T_1 = T_1 + a[q] * X[ramp(k * w + j + 16, 16)] ...
                                              Y[ramp(j, 16)] = T; ...
                                            if j_at < j_at_1: 32 iterations in two vectors
                                            ... if j_at_2 < w: the rest in one vector, under a mask

A loop around others runs its whole body in lanes, so its accumulators are several vectors: a register tile. A loop that
reduces into a register gets partial sums, one vector for each copy, which a fixed tree combines after it. If it gathers, its
remainder runs one by one, so that short fibres never pay for lanes: as branches inside each other if its body is a few steps.
A long loop full of functions takes vectors of twice the width, which the machine's come in pairs for: their chains of operations do
not wait for each other.

    for q in q_at..len:                     let q = q_at
      let c = crd[begin + q]                if q < len:
      T = T + v[begin + q] * x[c]             let c = crd[begin + q]; T = T + v[begin + q] * x[c]
                                              if q + 1 < len: ...

Assumes that the loop carries no dependence but reductions; the scheduler proved it. What cannot run in lanes stays serial,
and `notes` says why.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from polyai.loop import build as b
from polyai.loop.nodes import (
    Alloc,
    Apply,
    Block,
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
    Ramp,
    Space,
    Stmt,
    Store,
    Var,
)
from polyai.loop.passes.depend import depends, reductions, varying
from polyai.loop.passes.jam import Copies
from polyai.loop.passes.lanes import Lanes, NotInLanes
from polyai.loop.passes.levels import Levels, rebuild
from polyai.loop.passes.stretch import value as typical
from polyai.loop.walks import all_exprs, all_stmts, expressions, written
from polyai.scalar import dtype as dt
from polyai.scalar.dtype import DType
from polyai.scalar.ops import MONOIDS
from polyai.term.node import node

_CHEAP = frozenset(
    ["neg", "abs", "square", "add", "sub", "mul", "max", "min", "eq", "ne", "lt", "le", "gt", "ge", "and", "or", "xor", "not", "where", "bitand", "bitor", "bitxor", "shl", "shr", "floor", "ceil", "trunc"]
)
_QUICK = frozenset(("add", "and", "or", "bitand", "bitor", "bitxor"))
"""What takes one cycle for integers and truth values: a chain of it does not wait, so few copies keep a machine busy."""
_COPIES = 8
_LONE = 4
"""Lanes of a loop that reduces what it gathers: its elements are read one by one and packed."""
_STEPS = 8
"""Most steps of a body that is written for each element of a remainder."""
_GATHERS = 512
"""From that width of vectors on, an instruction for indexed loads is worth its while; below, indices are read lane by lane."""


LONG = 256
"""Iterations from which a loop full of functions runs in vectors of twice the width."""


def vectorize(
    kernel: Kernel,
    vector_bits: int = 512,
    registers: int = 32,
    notes: list[str] | None = None,
    sizes: Mapping[str, int] | None = None,
) -> Kernel:
    """`kernel`, flat, with its VECTOR loops in lanes of `vector_bits`-bit vectors, of which the machine has `registers`. `sizes`:
    likely values of sizes."""
    levels = Levels(kernel)

    def special(loop: For) -> bool:
        if loop.kind is not Kind.VECTOR:
            return False
        mark = levels.mark()
        try:
            _loop(loop, levels, vector_bits, registers, sizes or {})
        except NotInLanes as why:
            levels.undo(mark)
            if notes is not None:
                notes.append(f"loop {loop.var} stays serial: {why}")
            rebuild(dataclasses.replace(loop, kind=Kind.SERIAL), levels, special)
        return True

    rebuild(kernel.body, levels, special)
    return dataclasses.replace(kernel, body=levels.pop())


@node
class _Plan:
    """How a loop runs: vectors of `lanes`, at most `copies` of them at once; `scalar_rest`: the remainder one by one;
    `tile`: several rows are jammed into it; `pointed`: indices from memory, `pointers` among them, are read lane by lane."""

    lanes: int
    copies: int
    tile: bool
    reduced: tuple[tuple[str, str, DType], ...]
    scalar_rest: bool
    names: frozenset[str]
    pointed: bool
    pointers: frozenset[str]


def _plan(loop: For, levels: Levels, bits: int, registers: int, sizes: Mapping[str, int]) -> _Plan:
    if loop.step != 1:
        raise NotInLanes(f"it steps by {loop.step}")
    found = reductions(loop.body, levels.registers)
    if found is None:
        raise NotInLanes("it carries a value that is no plain reduction")
    names = varying(loop.body, loop.var)
    for name in found:
        names.add(name)
    types: list[DType] = []
    weight, accumulators, inner, gathers, heavy, checked = 0, 0, False, False, False, False
    reduced: list[tuple[str, str, DType]] = []
    held = sum(_is_held(s, names) for s in b.statements(loop.body))
    loaded: set[str] = set()  # names of values that memory decides
    for s in all_stmts(loop.body):
        inner = inner or isinstance(s, For)
        if isinstance(s, Alloc) and s.name in names:
            accumulators += 1
        if isinstance(s, Store):
            types.append(b.dtype_of(s.value))
            if s.array in found and all(r[0] != s.array for r in reduced):
                reduced.append((s.array, found[s.array][0], b.dtype_of(s.value)))
        if isinstance(s, Check) and depends(s.ok, names):
            gathers = checked = True
        for e in expressions(s):
            for x in all_exprs(e):
                if isinstance(x, Apply) and b.dtype_of(x) != dt.i64:
                    weight += 1
                    heavy = heavy or x.op not in _CHEAP
                elif isinstance(x, (Load, MaskedLoad)) and x.indices:
                    types.append(x.dtype)
                    gathers = gathers or any(_from_memory(i, loaded) for i in x.indices)
        if isinstance(s, Let) and s.name in names and _from_memory(s.value, loaded):
            loaded.add(s.name)
    lanes = _lanes(types, bits)
    if reduced:
        copies = 1 if checked or heavy else 2 if all(op in _QUICK and kind.kind in "biu" for _, op, kind in reduced) else 4
        lanes = min(lanes, _LONE) if gathers else lanes
        copies = max(1, min(copies, _power(registers * 3 // 4 // len(reduced))))
    elif inner:
        copies = min(_COPIES if loop.jam == 1 else loop.jam, _power(registers * 3 // 4 // max(accumulators, 1)))
        copies = copies if accumulators else min(_COPIES, _power(registers * 3 // 4 // held)) if held else 2
    else:
        copies = 1 if heavy or weight > 12 else 2
    if heavy and not gathers and bits < _GATHERS and (typical(b.sub(loop.upper, loop.lower), sizes) or 0) >= LONG:
        lanes *= 2  # the machine's vectors come in pairs, whose chains of operations do not wait for each other
    pointed = gathers and (bool(reduced) or (bits < _GATHERS and not checked))
    tile = inner and (accumulators > 1 or loop.jam > 1)
    return _Plan(lanes, copies, tile, tuple(reduced), bool(reduced) and gathers, frozenset(names), pointed, _pointers(loop.body) if pointed else frozenset())


def _pointers(body: Stmt) -> frozenset[str]:
    """Names of integers that say where memory is read, by themselves or through others."""
    out: set[str] = set()
    for s in reversed(list(all_stmts(body))):
        if isinstance(s, Let) and s.name in out:
            out |= {x.name for x in all_exprs(s.value) if isinstance(x, Var)}
        for e in expressions(s):
            for x in all_exprs(e):
                if isinstance(x, (Load, MaskedLoad)):
                    out |= {v.name for i in x.indices for v in all_exprs(i) if isinstance(v, Var) and v.dtype.is_integer}
    return frozenset(out)


def _is_held(stmt: Stmt, names: set[str]) -> bool:
    """A vector from memory that the loops inside use."""
    return isinstance(stmt, Let) and depends(stmt.value, names) and any(isinstance(x, Load) and x.indices for x in all_exprs(stmt.value))


def _from_memory(expr: LoopExpr, loaded: set[str]) -> bool:
    """True if `expr` holds an element of an array, or a name in `loaded`."""
    return any((isinstance(x, (Load, MaskedLoad)) and x.indices) or (isinstance(x, Var) and x.name in loaded) for x in all_exprs(expr))


def _lanes(types: list[DType], bits: int) -> int:
    if any(t.is_complex for t in types):
        raise NotInLanes("complex numbers run one by one")
    floats = [max(t.bits, 32) for t in types if t.is_float]
    wide = floats or [t.bits for t in types if t.kind != "b"] or [32]
    lanes = bits // max(wide)
    if lanes < 2:
        raise NotInLanes("vectors of this machine hold one element")
    return lanes


def _power(most: int) -> int:
    """The largest power of two that is at most `most`, at least 1."""
    return 1 << (max(most, 1).bit_length() - 1)


def _loop(loop: For, levels: Levels, bits: int, registers: int, sizes: Mapping[str, int]) -> None:
    plan = _plan(loop, levels, bits, registers, sizes)
    trips = b.number(b.sub(loop.upper, loop.lower))
    lower = levels.let(f"{loop.var}_from", loop.lower)
    upper = levels.let(f"{loop.var}_to", loop.upper) if trips is None else b.add(lower, b.const(trips))
    most = b.most(b.sub(loop.upper, loop.lower)) if trips is None else trips
    copies = plan.copies if most is None else min(plan.copies, _power(max(most // plan.lanes, 1)))
    partial = {name: [levels.names.fresh(f"{name}_lanes") for _ in range(copies)] for name, _, _ in plan.reduced}

    def body(copies: int, mask: LoopExpr | None = None) -> None:
        Lanes(levels, set(plan.names), loop.var, plan.lanes, copies, partial, mask, plan.pointers, plan.pointed).run(loop.body)

    if not plan.reduced:
        counts = [copies >> k for k in range(copies.bit_length())]
        if plan.tile and copies > 1:  # the rest is less than two vectors: one loop under a mask
            counts.pop()
        at = _steps(loop, levels, lower, upper, counts, plan.lanes, body)
        if plan.pointed and counts[-1] == 1 and _is_short(loop.body):  # indexed loads under a mask would be a branch for each lane
            _branches(loop, levels, at, upper, plan)
        else:
            _masked(loop, levels, at, upper, plan.lanes, counts[-1] > 1, lambda mask: body(1, mask))
        return
    first = levels.positions(loop.var, lower, upper, [plan.lanes])[0]
    neutral = _neutral(levels, plan)
    if plan.scalar_rest:
        levels.push()
    for name, monoid, dtype in plan.reduced:
        for register in partial[name]:
            levels.emit(Alloc(register, dtype, (), Space.REGISTER, plan.lanes))
            levels.emit(Store(register, (), Const(MONOIDS[monoid].identity(dtype), dtype)))
    counts = [copies, 1] if copies > 1 else [1]
    at = _steps(loop, levels, lower, upper, counts, plan.lanes, body, after=lambda: _merge(levels, plan, partial))
    if not plan.scalar_rest:
        _masked(loop, levels, at, upper, plan.lanes, False, lambda mask: body(1, mask))
    for name, monoid, dtype in plan.reduced:
        total = Horizontal(monoid, b.load(partial[name][0], (), dtype), dtype)
        levels.emit(Store(name, (), total if name in neutral else b.apply(MONOIDS[monoid].op, (b.load(name, (), dtype), total), dtype)))
    if plan.scalar_rest:
        vectors = levels.pop()
        levels.emit(If(b.compare("lt", lower, first), vectors))
        if _is_short(loop.body):
            _branches(loop, levels, at, upper, plan)
        else:
            rebuild(For(loop.var, at, upper, loop.body), levels, lambda _: False)


def _neutral(levels: Levels, plan: _Plan) -> set[str]:
    """The registers whose last step in the block at hand stores the identity of what they reduce: nothing to combine with."""
    identities = {name: Const(MONOIDS[monoid].identity(dtype), dtype) for name, monoid, dtype in plan.reduced}
    found: set[str] = set()
    for s in reversed(levels.stack[-1].stmts):
        if not isinstance(s, (Let, Alloc, Store, Check)):
            break
        if isinstance(s, Store) and s.array in identities and not s.indices and s.value == identities[s.array]:
            found.add(s.array)
        elif isinstance(s, Store):
            break
    return found


def _is_short(body: Stmt) -> bool:
    """True if `body` is a few steps without loops and branches, which may be written several times."""
    steps = list(all_stmts(body))
    return len(steps) <= _STEPS and all(isinstance(s, (Block, Let, Check, Store)) for s in steps)


def _branches(loop: For, levels: Levels, at: LoopExpr, upper: LoopExpr, plan: _Plan) -> None:
    """What is left, less than one vector, as branches inside each other: where a loop ends is guessed wrong more often."""
    names = varying(loop.body, loop.var) | {name for name, _, _ in plan.reduced} | {s.name for s in all_stmts(loop.body) if isinstance(s, Let)}
    levels.push()
    levels.emit(Let(loop.var, at))
    inner: list[Stmt] = []
    for n in reversed(range(plan.lanes - 1)):
        work = Copies(loop.var, names, levels.names, (n,), 1, written(loop.body))
        work.steps.clear()  # each copy stands in the branch of the one before: names are not shared
        here = [*b.statements(work.block(loop.body)), *inner]
        inner = [If(b.compare("lt", b.add(b.var(loop.var), b.const(n)), upper), Block(tuple(here)))]
    for s in inner:
        levels.emit(s)
    levels.emit(levels.pop())


def _steps(
    loop: For,
    levels: Levels,
    lower: LoopExpr,
    upper: LoopExpr,
    counts: list[int],
    lanes: int,
    body: Callable[[int], None],
    after: Callable[[], None] | None = None,
) -> LoopExpr:
    """Versions of the loop with `counts` vectors each, from most to least; returns where they end. `after` follows the first."""
    at = lower
    for k, (count, stop) in enumerate(zip(counts, levels.positions(loop.var, lower, upper, [c * lanes for c in counts]))):
        once = k > 0 and 2 * count == counts[k - 1]
        steps = b.number(b.floordiv(b.sub(stop, at), b.const(count * lanes)))
        alone = steps == 1 and b.sub(upper, stop) == b.ZERO and b.sub(at, lower) == b.ZERO  # no other version binds the same name beside it
        once = alone or (once and steps is None)
        if steps != 0:
            levels.push(loop=not once)
            if once:
                levels.emit(Let(loop.var, at))
            levels.define(loop.var)
            body(count)
            inner = levels.pop()
            if alone:
                levels.emit(inner)
            else:
                levels.emit(If(b.compare("lt", at, stop), inner) if once else For(loop.var, at, stop, inner, step=count * lanes))
        if k == 0 and after is not None:
            after()
        at = stop
    return at


def _masked(
    loop: For, levels: Levels, at: LoopExpr, upper: LoopExpr, lanes: int, several: bool, body: Callable[[LoopExpr], None]
) -> None:
    """What is left, in one vector, some of whose lanes do not exist; in `several` such vectors one after another."""
    left = b.number(b.sub(upper, at))
    if left is not None and left <= 0:
        return
    levels.push(loop=several)
    if several:
        levels.define(loop.var)
    else:
        levels.emit(Let(loop.var, at))
    mask = levels.names.fresh("exists")
    levels.emit(Let(mask, b.compare("lt", Ramp(b.var(loop.var), 1, lanes), upper)))
    body(Var(mask, dt.bool_))
    inner = levels.pop()
    if left is not None and not several:
        levels.emit(inner)
    else:
        levels.emit(For(loop.var, at, upper, inner, step=lanes) if several else If(b.compare("lt", at, upper), inner))


def _merge(levels: Levels, plan: _Plan, partial: dict[str, list[str]]) -> None:
    """The vectors of all copies combined into the first, in a fixed tree."""
    for name, monoid, dtype in plan.reduced:
        vectors = list(partial[name])
        while len(vectors) > 1:
            half = len(vectors) // 2
            for x, y in zip(vectors[:half], vectors[half:]):
                both = b.apply(MONOIDS[monoid].op, (b.load(x, (), dtype), b.load(y, (), dtype)), dtype)
                levels.emit(Store(x, (), both))
            vectors = vectors[:half]

