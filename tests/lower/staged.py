"""Runs a program with a sparse result, kernel after kernel, at every level: what one counts, the next one fills."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from polyai.loop import interp as loop_interp
from polyai.loop import nodes as lp
from polyai.machine import abi
from polyai.machine.cpu import host
from polyai.options import Options
from polyai.pipeline import Build, compile_program
from polyai.poly import interp as poly_interp
from polyai.runtime.staging import first_name
from polyai.scalar import dtype as dt
from polyai.shapes.expr import evaluate
from polyai.sparse.pack import unpack
from polyai.sparse.storage import Storage
from polyai.tensor import interp as tensor_interp
from polyai.tensor.nodes import THREADS, Program, TensorType, nnz_of, types_of
from tests.lower.meaning import number
from tests.machine.harness import Compiled
from tests.poly.meaning import arguments
from tests.programs import SparseValue

Arrays = dict[str, Any]
Runner = Callable[[Build, Arrays, dict[str, int]], Arrays]


class Refused(Exception):
    """A kernel ended with the code of one of its checks."""


def tensors(program: Program, given: Mapping[str, Any]) -> dict[str, Any]:
    """The outputs by the interpreter of the tensor level: dense arrays, `SparseValue`s sorted by rows."""
    out = tensor_interp.run(program, given)
    return {name: _sorted(value) if isinstance(value, SparseValue) else value for name, value in out.items()}


def _sorted(value: SparseValue) -> SparseValue:
    order = np.lexsort(tuple(value.coords)[::-1])
    return SparseValue(tuple(c[order] for c in value.coords), value.values[order], value.shape)


def by_statements(build: Build, arrays: Arrays, sizes: dict[str, int]) -> Arrays:
    """One phase by the interpreter of the polyhedral level."""
    (scop,) = build.scops
    second = dict(build.aliases)
    first = {a.name: first_name(a.name, second) for a in scop.arrays if a.role == "input"}
    named = {name: arrays[place] for name, place in first.items() if place in arrays}  # nobody made what nobody reads
    known = {**sizes, **{nnz_of(n): sizes[nnz_of(first)] for n, first in second.items() if nnz_of(first) in sizes}}
    return poly_interp.run(scop, named, known)


def _slots(build: Build, arrays: Arrays, sizes: dict[str, int]) -> tuple[lp.Kernel, Arrays, Arrays]:
    kernel, second = build.loops, dict(build.aliases)
    args: Arrays = {}
    made: Arrays = {}
    for p in kernel.params:
        if p.extents is None:
            args[p.name] = sizes[first_name(p.name, second)]
        elif p.role == "output":
            made[p.name] = args[p.name] = np.full(tuple(number(e, sizes) for e in p.extents), 77, dt.to_numpy(p.dtype))
        else:
            args[p.name] = np.ascontiguousarray(arrays[first_name(p.name, second)], dt.to_numpy(p.dtype))
            if args[p.name].ndim != len(p.extents):  # values of dense blocks
                args[p.name] = args[p.name].reshape([number(e, sizes) for e in p.extents])
    return kernel, args, made


def by_loops(build: Build, arrays: Arrays, sizes: dict[str, int]) -> Arrays:
    """One phase by the interpreter of loops; raises Refused."""
    kernel, args, made = _slots(build, arrays, sizes)
    code = loop_interp.run(kernel, args)
    if code:
        raise Refused(kernel.sites[code - 1].what)
    return made


def by_machine(build: Build, arrays: Arrays, sizes: dict[str, int], threads: int = 1) -> Arrays:
    """One phase as machine code; raises Refused."""
    kernel, args, made = _slots(build, arrays, sizes)
    run = Compiled(kernel)
    code = run(*args.values(), threads=threads)
    while code == abi.NEED_ARENA:
        code = run(*args.values(), threads=threads, arena=run.needed)
    if code != abi.OK:
        raise Refused(kernel.sites[code - 1].what)
    return made


def by_threads(build: Build, arrays: Arrays, sizes: dict[str, int]) -> Arrays:
    """As `by_machine`, on three threads."""
    return by_machine(build, arrays, sizes, 3)


LEVELS: dict[str, tuple[str, Runner]] = {
    "poly": ("contract", by_statements),
    "loop": ("loops", by_loops),
    "flat": ("tidy", by_loops),
    "machine": ("tidy", by_machine),
    "counted": ("tidy", by_machine),
    "threads": ("tidy", by_threads),
}
"""By name: the stage to stop after, and who runs what it made."""


def run(
    program: Program,
    given: Mapping[str, Any],
    level: str,
    change: Callable[[int, Arrays], None] | None = None,
    how: str = "",
    kept: Mapping[str, SparseValue] | None = None,
) -> dict[str, Any]:
    """The outputs at a level: dense arrays, and for those along a pattern that the program makes a `SparseValue` in stored order.
    `change(number, arrays)` is called before each phase. `how` patterns are assembled: as `phases.HOW` says; "again": those of `kept`."""
    until, runner = LEVELS[level]
    how = how or ("counted" if level in ("poly", "counted") else "packed")  # statements do not say where memory has gaps
    build = compile_program(program, {}, Options(), host(), until=until, verify=True, how=how)
    arrays, sizes = arguments(program, dict(given))
    arrays = {k: np.array(a) for k, a in arrays.items()}
    for name, pattern in (kept or {}).items():
        counts = np.bincount(pattern.coords[0], minlength=pattern.shape[0])
        arrays[f"{name}.pos1"] = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
        arrays[f"{name}.crd1"], sizes[nnz_of(name)] = pattern.coords[1].astype(np.int32), len(pattern.values)
    for place, part in enumerate(build.parts):
        if change is not None:
            change(place, arrays)
        packed = part.program.packed[0] if part.program.packed else ""
        within = () if part.phase is None else part.phase.within
        sizes[THREADS] = 3
        if within:
            sizes[nnz_of(part.phase.counts)] = sum(sizes[nnz_of(name)] for name in within)
        if packed:
            rows = len(arrays[f"{packed}.pos1"]) - 1
            cuts = np.array([0, rows // 3, rows // 3, rows], np.int64)
            arrays[f"{packed}.cuts"], sizes[f"{packed}.chunks"] = cuts, 3
            sizes[f"{packed}.part"] = int(np.diff(arrays[f"{packed}.pos1"][cuts]).max())
        made = runner(part, arrays, sizes)
        if packed:
            _cut_to_size(packed, made, arrays, sizes)
        arrays.update(made)
        if part.phase is not None and (name := part.phase.counts or part.phase.bounds):
            sizes[nnz_of(name)] = int(arrays[f"{name}.pos1"][-1])
            form = None if part.phase.type is None else part.phase.type.format
            if part.phase.counts and form is not None and form.index_bits == 32:
                arrays[f"{name}.pos1"] = arrays[f"{name}.pos1"].astype(np.int32)
            if not all(wanted.holds(sizes) for wanted in part.phase.requires):
                raise Refused(part.phase.requires[0].text)
            if within:
                arrays.update((f"{name}.{p}", arrays[f"{name}.{p}"][: sizes[nnz_of(name)]]) for p in ("crd1", "val"))
    for part in build.parts:
        arrays.update((name, arrays[place]) for name, place in part.aliases if place in arrays)
    types = types_of(program)
    return {name: _collected(name, types, arrays, sizes) for name in program.outputs}


def _cut_to_size(name: str, made: Arrays, arrays: Arrays, sizes: dict[str, int]) -> None:
    """Keep what is stored of the room for the bounds; what lies beyond is still as it was."""
    ends, room = made.pop(f"{name}.end1"), sizes[nnz_of(name)]
    if room == 0:
        ends[:] = 0
    stored = int(ends[-1]) if len(ends) else 0
    for k, a in made.items():
        if a.shape[:1] == (room,):
            made[k] = a[:stored]
    arrays[f"{name}.pos1"] = np.concatenate([[0], ends]).astype(np.int32)
    sizes[nnz_of(name)] = stored


def _of_blocks(name: str, type: TensorType, arrays: Arrays, sizes: dict[str, int]) -> SparseValue:
    assert type.format is not None
    shape = tuple(evaluate(s, sizes) for s in type.shape)
    named = {part: arrays[f"{name}.{part}"] for part in ("pos1", "crd1", "val")}
    coords, values = unpack(Storage(type.format, shape, {**named, "val": named["val"].reshape(-1)}))
    return SparseValue(coords, values, shape)


def _collected(name: str, types: Mapping[str, TensorType], arrays: Arrays, sizes: dict[str, int]) -> Any:
    type = types[name]
    if type.pattern is None:
        return arrays[name]
    owner = type.pattern.owner
    form = types[owner].format
    assert form is not None
    if form.tail:
        return _of_blocks(name, type, arrays, sizes)
    outer, inner = form.order
    pos, crd = arrays[f"{owner}.pos1"], arrays[f"{owner}.crd1"]
    values = arrays[name] if name in arrays else arrays[f"{name}.val"]
    shape = tuple(evaluate(s, sizes) for s in type.shape)
    assert len(pos) == shape[outer] + 1 and pos[0] == 0 and pos[-1] == len(crd) == len(values)
    coords = {outer: np.repeat(np.arange(shape[outer]), np.diff(pos)), inner: np.asarray(crd)}
    return SparseValue((coords[0], coords[1]), values, shape)
