"""Temporary arrays that are never alive together share memory.

    alloc T: f32[n * m] kernel                    alloc T: f32[n * m] kernel
    alloc U: f32[n * m] kernel                    alloc U: f32[n * m] kernel
    alloc V: f32[n] kernel                ->
    for ...: T = ...                              for ...: T = ...
    for ...: U = ... T ...                        for ...: U = ... T ...
    for ...: V = ... U ...                        for ...: T = ... U ...        V[n] lies in T

Proves what it does: an array begins where the kernel first names it and ends where it last does, counted in whole statements of the kernel; the
memory it moves into is as large for all sizes (a difference without a negative part), or grows where its sizes are the kernel's
own. Element types are the same. An array that must be zero where it begins keeps memory of its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from polyai.loop.memory import at_least, size_of
from polyai.loop.nodes import (
    Alloc,
    Block,
    Kernel,
    Let,
    Load,
    MaskedLoad,
    Space,
    Stmt,
)
from polyai.loop.walks import arrays_of, with_names
from polyai.shapes import expr as sx
from polyai.shapes.expr import Size
from polyai.term.node import walk


def reuse(kernel: Kernel) -> Kernel:
    """`kernel` with fewer arrays, or with smaller ones in their place."""
    if not isinstance(kernel.body, Block):
        return kernel
    stmts = kernel.body.stmts
    touched = tuple(map(arrays_of, stmts))
    spans = _spans(stmts, touched)
    sizes = {p.name for p in kernel.params if p.extents is None}
    own = [s for s in stmts if isinstance(s, Alloc) and s.space is Space.KERNEL and s.name in spans]
    if len(own) < 2:
        return kernel
    count = _counts(stmts)
    slots: list[tuple[Alloc, int]] = []  # what is allocated, and the statement after which it is free
    renamed: dict[str, str] = {}
    for alloc in sorted(own, key=lambda a: spans[a.name]):
        first, last = spans[alloc.name]
        free = (k for k, (slot, until) in enumerate(slots) if until < first and _fits(slot, alloc, count, sizes))
        at = None if alloc.zero else next(free, None)
        if at is None:
            slots.append((alloc, last))
            continue
        slot, _ = slots[at]
        renamed[alloc.name] = slot.name
        if not at_least(count[slot.name], count[alloc.name]):
            slot = dataclasses.replace(slot, extents=alloc.extents)
            count[slot.name] = count[alloc.name]
        slots[at] = (slot, last)
    if not renamed:
        return kernel
    final = {slot.name: slot for slot, _ in slots}
    kept: list[Stmt] = []
    for s, names in zip(stmts, touched):
        if isinstance(s, Alloc):
            if s.name not in renamed:
                kept.append(final.get(s.name, s))
        else:
            kept.append(s if names.isdisjoint(renamed) else with_names(s, renamed))
    return dataclasses.replace(kernel, body=Block(tuple(kept)))


def _fits(slot: Alloc, alloc: Alloc, count: Mapping[str, Size], sizes: set[str]) -> bool:
    if slot.dtype != alloc.dtype or slot.lanes != alloc.lanes or slot.zero:
        return False
    have, want = count[slot.name], count[alloc.name]
    return at_least(have, want) or (at_least(want, have) and all(_of_parameters(e, sizes) for e in (*slot.extents, *alloc.extents)))


def _of_parameters(extent: object, sizes: set[str]) -> bool:
    """Whether an extent can be computed where the kernel begins."""
    names = [n.name for n in walk(extent) if hasattr(n, "name")]
    return all(n in sizes for n in names) and not any(isinstance(n, (Load, MaskedLoad)) for n in walk(extent))


def _counts(stmts: tuple[Stmt, ...]) -> dict[str, Size]:
    """Elements of each array that is allocated here."""
    env: dict[str, Size] = {}
    out: dict[str, Size] = {}
    for s in stmts:
        if isinstance(s, Let):
            env[s.name] = size_of(s.value, env)
        elif isinstance(s, Alloc):
            total: Size = 1
            for e in s.extents:
                total = total * size_of(e, env)
            out[s.name] = total if "unknown" not in sx.symbols(total) else sx.symbol(f"elements of {s.name}")
    return out


def _spans(stmts: tuple[Stmt, ...], touched: tuple[set[str], ...]) -> dict[str, tuple[int, int]]:
    """The first and the last statement that names each array, allocations left out."""
    out: dict[str, tuple[int, int]] = {}
    for at, (s, names) in enumerate(zip(stmts, touched)):
        if isinstance(s, Alloc):
            continue
        for name in names:
            first, _ = out.get(name, (at, at))
            out[name] = (first, at)
    return out
