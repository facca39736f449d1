"""The quick ways of calls with phases: arguments are looked at once, and nothing is asked that the first call has answered.

Most sparse results are made by two kernels: one bounds the rows, one fills them; conversions by one, for which a list takes two. `Direct` knows
the slots of such kernels by number and calls them, one after the other, with nothing in between but the arrays they make; a call that is
not as the first one was, or fails, goes the other way (`quick`), and from there to where errors are explained.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from polyai.errors import PolyAIError, SparseStructureError
from polyai.frontend.trace import ArrayOut, Traced
from polyai.runtime import staging
from polyai.runtime.bind import address
from polyai.runtime.kernel import Kernel
from polyai.runtime.launch import Runtime
from polyai.scalar.dtype import BY_NAME, DType, to_numpy
from polyai.shapes.code import compile_sizes
from polyai.shapes.expr import symbols
from polyai.sparse import interop
from polyai.sparse.format import Format
from polyai.tensor import nodes as tn

Slow = Callable[..., Any]
Run = Callable[[Sequence[Any], Sequence[interop.Described], dict[str, int]], Any]
NNZ = -1
"""In place of a dimension: the number of stored elements."""


class Phased(Protocol):
    """What runs the phases of a traced function."""

    traced: Traced
    kernels: tuple[Kernel, ...]
    runtime: Runtime
    served: int
    ticks: int

    def is_plain(self) -> bool:
        """Whether nothing but types, formats and guards decides which kernels serve a call."""


def quick(variant: Phased, args: tuple[Any, ...], run: Run, slow: Slow, token: tuple[ContextVar[Any], object], threads: int) -> Slow | None:
    """A function for calls with matrices like these; what it does not take goes to `slow`. None if the call is not plain enough."""
    traced = variant.traced
    if not variant.is_plain() or [s.path for s in traced.inputs] != [(n,) for n in range(len(args))]:
        return None
    kinds: list[tuple[type, Format | None, DType]] = []
    for slot, value in zip(traced.inputs, args):
        found = interop.describe(value) if slot.kind == "sparse" and not slot.rows else None
        if found is None or found.converted or found.kind not in ("csr", "csc", "coo"):
            return None
        kinds.append((type(value), found.format, found.dtype))
    sources = [(s.symbol, s.input, s.dim if s.what == "extent" else NNZ) for s in traced.symbols]
    sources += [(tn.nnz_of(s.name), n, NNZ) for n, s in enumerate(traced.inputs) if s.name in traced.merged]
    if any(s.what not in ("extent", "nnz") or (s.factor, s.offset) != (1, 0) for s in traced.symbols):
        return None
    if any(isinstance(e, int) for i in traced.program.inputs for e in i.type.shape):
        return None
    context, active = token

    def call(*given: Any, **named: Any) -> Any:
        if named or len(given) != len(kinds) or context.get() is not active:
            return slow(*given, **named)
        described = []
        for value, (kind, form, dtype) in zip(given, kinds):
            found = interop.describe(value) if type(value) is kind else None
            if found is None or found.format != form or found.dtype != dtype:
                return slow(*given)
            described.append(found)
        values = {symbol: described[n].nnz if dim == NNZ else described[n].shape[dim] for symbol, n, dim in sources}
        if traced.guards and traced.broken_guard(values) is not None:
            return slow(*given)
        try:
            return run(given, described, values)
        except SparseStructureError:  # a copy in order may serve
            return slow(*given)

    direct = Direct.of(variant, kinds, sources, threads)
    return call if direct is None else direct.caller(call, token)


def arrays_of(inputs: Sequence[tn.Input], given: Sequence[Any], described: Sequence[interop.Described]) -> dict[str, Any]:
    """The arrays of sparse arguments by the names of kernels."""
    out: dict[str, Any] = {}
    for slot, value, found in zip(inputs, given, described):
        out.update((f"{slot.name}.{suffix}", array) for suffix, array in interop.arrays_of(value, found).items())
    return out


Array = NDArray[Any]
Kind = tuple[type, np.dtype[Any], np.dtype[Any], int]
"""What an argument must be: its class, the types of its indices and values, and the dimension that its positions lie along, or `LIST`."""
LIST = -1
_ROWS = ("pos1", "crd1", "val", "stored", "0", "1")
_LISTED = ("pos0", "crd0", "crd1", "val", "stored", "0", "1")
"""Registers of an argument: the addresses of its positions, coordinates and values, how much it stores, its extents."""


def _rows(matrix: Any, index: np.dtype[Any], dtype: np.dtype[Any], major: int) -> tuple[int, ...] | None:
    """The registers of a matrix in CSR or CSC; None if its arrays have to be looked at more closely."""
    pos, crd, val, shape = matrix.indptr, matrix.indices, matrix.data, matrix.shape
    if pos.dtype != index or crd.dtype != index or val.dtype != dtype or not pos.ndim == crd.ndim == val.ndim == 1:
        return None
    if not (pos.flags.carray and crd.flags.carray and val.flags.carray) or len(pos) != shape[major] + 1:
        return None
    stored = int(pos[-1])
    if pos[0] != 0 or not 0 <= stored <= min(len(crd), len(val)):
        return None
    return address(pos), address(crd), address(val), stored, *shape


def _list(matrix: Any, index: np.dtype[Any], dtype: np.dtype[Any], ends: Array) -> tuple[int, ...] | None:
    """The registers of a matrix in COO, and in `ends` where its list begins and ends; None as for `_rows`."""
    val, shape = matrix.data, matrix.shape
    first, second = interop.coords_of(matrix)
    if first.dtype != index or second.dtype != index or val.dtype != dtype or not first.ndim == second.ndim == val.ndim == 1:
        return None
    stored = len(val)
    if not (first.flags.carray and second.flags.carray and val.flags.carray) or not len(first) == len(second) == stored:
        return None
    ends[1] = stored
    return address(ends), address(first), address(second), address(val), stored, *shape


def _steps(stages: Sequence[staging.Stage]) -> list[type[_Regrouped | _Bounded]] | None:
    """How the kernels are called, in order; None if one is neither."""
    steps: list[type[_Regrouped | _Bounded]] = []
    at = 0
    while at < len(stages):
        step = next((s for s in (_Regrouped, _Bounded) if s.takes(stages[at : at + s.STAGES])), None)
        if step is None:
            return None
        steps.append(step)
        at += step.STAGES
    return steps


class _Step:
    """Kernels that assemble one pattern, `name`, and what lies along it."""

    STAGES: int

    def __init__(self, whole: Direct, first: int) -> None:
        self.runtime, self.first = whole.variant.runtime, first
        self.stage = whole.stages[first + self.STAGES - 1]
        self.name, self.bits = self.stage.plan.fills, self.stage.plan.index_bits
        self.go, self.slots = whole.go[first : first + self.STAGES], whole.slots[first : first + self.STAGES]
        self.count, self.registers = whole.registers[tn.nnz_of(self.name)], whole.registers
        self.along = [(name, whole.results[name], whole.registers[name]) for name in self.results((self.stage,))]
        self.width = sum(dtype.itemsize for _, dtype, _ in self.along)
        self.index = whole.results[f"{self.name}.{self.POSITIONS}"]

    POSITIONS: str
    """The result that says where rows are."""

    @staticmethod
    def takes(stages: Sequence[staging.Stage]) -> bool:
        """Whether the kernels are such as this class calls."""
        raise NotImplementedError

    @staticmethod
    def results(stages: Sequence[staging.Stage]) -> tuple[str, ...]:
        """The results of the last kernel along the pattern."""
        raise NotImplementedError

    def run(self, known: list[int], rows: int) -> dict[str, Array] | None:
        """What the kernels make, for `known` in registers, which learn of it; None if there is no room."""
        raise NotImplementedError


class _Regrouped(_Step):
    """One kernel that puts what a matrix stores in another order: it stores at most as much."""

    STAGES, POSITIONS = 1, "pos1"

    @staticmethod
    def takes(stages: Sequence[staging.Stage]) -> bool:
        (stage,) = stages
        name = stage.plan.fills
        made = {f"{name}.{part}" for part in ("pos1", "crd1", "val")}
        return stage.plan.counts == name and len(stage.plan.within) == 1 and {n for n, _ in stage.results} == made

    @staticmethod
    def results(stages: Sequence[staging.Stage]) -> tuple[str, ...]:
        name = stages[-1].plan.fills
        return f"{name}.crd1", f"{name}.val"

    def run(self, known: list[int], rows: int) -> dict[str, Array] | None:
        total = known[self.count] = known[self.registers[tn.nnz_of(self.stage.plan.within[0])]]
        if not staging.has_room(total, self.width, self.bits):
            return None
        positions = np.empty(rows + 1, self.index)
        known[self.registers[f"{self.name}.pos1"]] = address(positions)
        arrays: dict[str, Array] = {}
        for array, dtype, register in self.along:
            arrays[array] = made = self.runtime.empty((total,), dtype)
            known[register] = address(made)
        self.go[0]([known[r] for r in self.slots[0]])
        stored = known[self.count] = int(positions[-1])
        if stored != total:  # coordinates that repeat were added up
            for array, _, register in self.along:
                arrays[array] = made = arrays[array][:stored].copy()
                known[register] = address(made)
        return {**arrays, f"{self.name}.pos1": positions}


class _Bounded(_Step):
    """Two kernels: the first bounds the rows of the pattern, the second fills them."""

    STAGES, POSITIONS = 2, "end1"
    MADE = ("pos1", "cuts", "end1", "chunks", "part")

    @staticmethod
    def takes(stages: Sequence[staging.Stage]) -> bool:
        if len(stages) != 2 or not stages[1].packed or stages[1].plan.within:
            return False
        bound, fill = stages
        name = fill.plan.fills
        own = {n for n, _ in fill.results} == {*fill.along, f"{name}.end1"}
        return own and [n for n, _ in bound.results] == [f"{name}.pos1"] and bound.plan.counts == name

    @staticmethod
    def results(stages: Sequence[staging.Stage]) -> tuple[str, ...]:
        return stages[-1].along

    def run(self, known: list[int], rows: int) -> dict[str, Array] | None:
        name = self.name
        pos, cuts_at, end, chunks, part = (self.registers[f"{name}.{suffix}"] for suffix in self.MADE)
        bounds = np.empty(rows + 1, np.int64)
        known[pos] = address(bounds)
        self.go[0]([known[r] for r in self.slots[0]])
        total = known[self.count] = int(bounds[-1])
        if not staging.has_room(total, self.width, self.bits):
            return None
        cuts, known[part] = self.runtime.cuts(bounds, total, staging.parts_of(total))
        positions = np.zeros(rows + 1, self.index)
        known[chunks], known[cuts_at], known[end] = len(cuts) - 1, address(cuts), address(positions) + positions.itemsize
        arrays: dict[str, Array] = {}
        for array, dtype, register in self.along:
            arrays[array] = made = self.runtime.empty((total,), dtype)
            known[register] = address(made)
        self.go[1]([known[r] for r in self.slots[1]])
        stored = known[self.count] = int(positions[-1])
        if stored != total:
            for array, _, register in self.along:
                arrays[array].resize(stored, refcheck=False)
                known[register] = address(arrays[array])
        known[pos] = address(positions)
        return {**arrays, f"{name}.pos1": positions}


class Direct:
    """Calls for matrices in CSR, CSC or COO whose one result lies along the pattern `name`, which the last kernel fills."""

    def __init__(self, variant: Phased, kinds: Sequence[Kind], registers: dict[str, int], threads: int) -> None:
        self.variant, self.kinds, self.registers, given = variant, kinds, registers, len(registers)
        self.stages = [staging.stage_of(k) for k in variant.kernels]
        self.name = self.stages[-1].plan.fills
        for name in _made(self.stages):
            self._register(name)
        self.threads = self._register(tn.THREADS)
        self.results = {name: to_numpy(BY_NAME[p.dtype]) for stage in self.stages for name, p in stage.results}
        self.slots = [[registers[name] for _, name in stage.slots] for stage in self.stages]
        self.go = [variant.runtime.launcher(k, threads) for k in variant.kernels]
        self.start = [0] * len(registers)
        self.start[self.threads] = threads
        self.good: tuple[int, ...] = ()
        traced = variant.traced
        output = traced.program.outputs[0]
        types = tn.types_of(traced.program)
        type_, form = types[output], types[self.name].format
        assert type_.pattern is not None and form is not None
        self.bits = form.index_bits
        self.kind = form.name if type_.pattern.dims == (0, 1) else {"csr": "csc", "csc": "csr"}[form.name]
        self.matrix = any(isinstance(o, ArrayOut) and o.is_matrix for o in traced.outputs)
        self.values = output if output in self.results else f"{output}.val"
        self.watched = sorted({s for s, r in registers.items() if "." not in s and r < given})
        self.steps: list[_Step] = []
        for step in _steps(self.stages) or ():
            self.steps.append(step(self, sum(s.STAGES for s in self.steps)))
        self.sizes = compile_sizes((*type_.shape, *(s.stage.plan.rows for s in self.steps)), self.watched)

    def _register(self, name: str) -> int:
        return self.registers.setdefault(name, len(self.registers))

    @classmethod
    def of(cls, variant: Phased, kinds: Sequence[tuple[type, Format | None, DType]], sources: Sequence[tuple[str, int, int]], threads: int) -> Self | None:
        """None if the kernels are others, or the matrices."""
        traced = variant.traced
        stages = [staging.stage_of(k) for k in variant.kernels]
        name = stages[-1].plan.fills
        if not name or len(traced.program.outputs) != 1 or any(k.extra.get("aliases") for k in variant.kernels) or _steps(stages) is None:
            return None
        type_ = tn.types_of(traced.program)[traced.program.outputs[0]]
        if any(s.plan.requires or s.plan.runs for s in stages) or type_.pattern is None or type_.pattern.owner != name or type_.rank != 2:
            return None
        registers: dict[str, int] = {}
        looked: list[Kind] = []
        for slot, (kind, form, dtype) in zip(traced.inputs, kinds):
            if form is None or form.rank != 2 or form.name not in ("csr", "csc", "coo"):
                return None
            for suffix in _LISTED if form.name == "coo" else _ROWS:
                registers[f"{slot.name}.{suffix}"] = len(registers)
            looked.append((kind, np.dtype(f"i{form.index_bits // 8}"), to_numpy(dtype), LIST if form.name == "coo" else form.order[0]))
        for symbol, n, dim in sources:
            registers[symbol] = registers[f"{traced.inputs[n].name}.{'stored' if dim == NNZ else dim}"]
        for slot in traced.inputs:
            registers.setdefault(tn.nnz_of(slot.name), registers[f"{slot.name}.stored"])
        sizes = set().union(*map(symbols, (*type_.shape, *(s.plan.rows for s in stages))))
        known = {*registers, *_made(stages), tn.THREADS}
        if not sizes <= set(registers) or not {n for stage in stages for _, n in stage.slots} <= known:
            return None
        return cls(variant, looked, registers, threads)

    def caller(self, other: Slow, token: tuple[ContextVar[Any], object]) -> Slow:
        """The function for calls like the first; `other` for those that it does not take."""
        context, active = token
        kinds, count, start, traced = self.kinds, len(self.kinds), self.start, self.variant.traced
        watched = [self.registers[s] for s in self.watched]
        lists = count if any(major == LIST for *_, major in kinds) else 0

        def call(*given: Any, **named: Any) -> Any:
            if named or len(given) != count or context.get() is not active:
                return other(*given, **named)
            known, at = start.copy(), 0
            ends = np.zeros((lists, 2), np.int64) if lists else None  # of lists, which the kernels read
            for n, (value, (cls, index, dtype, major)) in enumerate(zip(given, kinds)):
                if type(value) is not cls:
                    return other(*given)
                if major != LIST:
                    found = _rows(value, index, dtype, major)
                else:
                    assert ends is not None
                    found = _list(value, index, dtype, ends[n].view(index))
                if found is None:
                    return other(*given)
                known[at : at + len(found)] = found
                at += len(found)
            sizes = tuple([known[r] for r in watched])
            if sizes != self.good:
                if traced.guards and traced.broken_guard(dict(zip(self.watched, sizes))) is not None:
                    return other(*given)
                self.good = sizes
            try:
                made = self._run(known, *self.sizes(*sizes))
            except PolyAIError:
                return other(*given)
            return other(*given) if made is None else made

        return call

    def _run(self, known: list[int], *sizes: int) -> Any:
        """The result for arguments in registers; None if the call has to go the other way. `sizes`: its shape, then the rows of each step's
        pattern."""
        variant = self.variant
        began, held = variant.runtime.ticks(), []
        for step, rows in zip(self.steps, sizes[2:]):
            found = step.run(known, rows)
            if found is None:
                return None
            held.append(found)  # what later kernels read
        made = held[-1]
        variant.ticks += variant.runtime.ticks() - began
        variant.served += 1
        positions = made[f"{self.name}.pos1"].astype(f"i{self.bits // 8}", copy=False)
        parts = {"pos1": positions, "crd1": made[f"{self.name}.crd1"], "val": made[self.values]}
        return interop.made(self.kind, sizes[:2], parts, self.matrix, tidy=True)


def _made(stages: Sequence[staging.Stage]) -> tuple[str, ...]:
    """The names of all that the caller makes."""
    names: dict[str, None] = {}
    for stage in stages:
        if stage.plan.fills:
            results = stage.along if stage.packed else _Regrouped.results((stage,))
            names.update(dict.fromkeys((*(f"{stage.plan.fills}.{part}" for part in _Bounded.MADE), *results, tn.nnz_of(stage.plan.fills))))
    return tuple(names)
