"""The quick ways of calls with phases: arguments are looked at once, and nothing is asked that the first call has answered.

Most sparse results are made by two kernels: one bounds the rows, one fills them. `Bounded` knows their slots by number and calls them
with nothing in between but the arrays it makes; a call that is not as the first one was, or fails, goes the other way (`quick`), and
from there to where errors are explained.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any, Protocol

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

    bounded = Bounded.of(variant, kinds, sources, threads)
    return call if bounded is None else bounded.caller(call, token)


def arrays_of(inputs: Sequence[tn.Input], given: Sequence[Any], described: Sequence[interop.Described]) -> dict[str, Any]:
    """The arrays of sparse arguments by the names of kernels."""
    out: dict[str, Any] = {}
    for slot, value, found in zip(inputs, given, described):
        out.update((f"{slot.name}.{suffix}", array) for suffix, array in interop.arrays_of(value, found).items())
    return out


Array = NDArray[Any]
_ARGUMENT = 6
"""Registers of an argument: the addresses of its positions, coordinates and values, how much it stores, its extents."""


class Bounded:
    """Calls of two kernels for matrices in CSR or CSC: the first bounds the rows of the result `name`, the second fills them."""

    def __init__(self, variant: Phased, kinds: Sequence[tuple[type, np.dtype[Any], np.dtype[Any], int]], registers: dict[str, int], threads: int) -> None:
        self.variant, self.kinds, self.registers = variant, kinds, registers
        self.first, self.second = (staging.stage_of(k) for k in variant.kernels)
        self.name = self.second.plan.fills
        for suffix in ("pos1", "cuts", "end1", "chunks", "part"):
            self._register(f"{self.name}.{suffix}")
        self.total = self._register(tn.nnz_of(self.name))
        self.threads = self._register(tn.THREADS)
        results = {name: to_numpy(BY_NAME[p.dtype]) for name, p in self.second.results}
        self.along = [(name, results[name], self._register(name)) for name in self.second.along]
        self.index = results[f"{self.name}.end1"]
        self.most = np.iinfo(self.index).max
        self.slots = [[registers[name] for _, name in stage.slots] for stage in (self.first, self.second)]
        self.go = [variant.runtime.launcher(k, threads) for k in variant.kernels]
        self.start = [0] * len(registers)
        self.start[self.threads] = threads
        self.good: tuple[int, ...] = ()
        traced = variant.traced
        output = traced.program.outputs[0]
        types = tn.types_of(traced.program)
        type_, form = types[output], types[self.name].format
        assert type_.pattern is not None and form is not None
        self.kind = form.name if type_.pattern.dims == (0, 1) else {"csr": "csc", "csc": "csr"}[form.name]
        self.matrix = any(isinstance(o, ArrayOut) and o.is_matrix for o in traced.outputs)
        self.values = output if output in results else f"{output}.val"
        self.watched = sorted({s for s, r in registers.items() if "." not in s and r < _ARGUMENT * len(kinds)})
        self.sizes = compile_sizes((self.second.plan.rows, *type_.shape), self.watched)

    def _register(self, name: str) -> int:
        return self.registers.setdefault(name, len(self.registers))

    @staticmethod
    def of(variant: Phased, kinds: Sequence[tuple[type, Format | None, DType]], sources: Sequence[tuple[str, int, int]], threads: int) -> Bounded | None:
        """None if the kernels are others, or the matrices."""
        traced = variant.traced
        stages = [staging.stage_of(k) for k in variant.kernels]
        if len(stages) != 2 or not stages[1].packed or len(traced.program.outputs) != 1 or any(k.extra.get("aliases") for k in variant.kernels):
            return None
        name = stages[1].plan.fills
        type_ = tn.types_of(traced.program)[traced.program.outputs[0]]
        own = {n for n, _ in stages[1].results} == {*stages[1].along, f"{name}.end1"}
        if not own or [n for n, _ in stages[0].results] != [f"{name}.pos1"] or stages[0].plan.counts != name or stages[1].plan.within or any(s.plan.requires or s.plan.runs for s in stages):
            return None
        if type_.pattern is None or type_.pattern.owner != name or type_.rank != 2:
            return None
        registers: dict[str, int] = {}
        looked: list[tuple[type, np.dtype[Any], np.dtype[Any], int]] = []
        for slot, (cls, form, dtype) in zip(traced.inputs, kinds):
            if form is None or form.name not in ("csr", "csc") or form.rank != 2:
                return None
            for suffix in ("pos1", "crd1", "val", "stored", "rows", "columns"):
                registers[f"{slot.name}.{suffix}"] = len(registers)
            looked.append((cls, np.dtype(f"i{form.index_bits // 8}"), to_numpy(dtype), form.order[0]))
        for symbol, n, dim in sources:
            registers[symbol] = _ARGUMENT * n + (3 if dim == NNZ else 4 + dim)
        for slot in traced.inputs:
            registers.setdefault(tn.nnz_of(slot.name), registers[f"{slot.name}.stored"])
        sizes = set().union(*map(symbols, (*type_.shape, stages[1].plan.rows)))
        known = {*registers, *(f"{name}.{s}" for s in ("pos1", "cuts", "end1", "chunks", "part")), tn.nnz_of(name), tn.THREADS, *stages[1].along}
        if not sizes <= known or not {n for stage in stages for _, n in stage.slots} <= known:
            return None
        return Bounded(variant, looked, registers, threads)

    def caller(self, other: Slow, token: tuple[ContextVar[Any], object]) -> Slow:
        """The function for calls like the first; `other` for those that it does not take."""
        context, active = token
        kinds, count, start, traced = self.kinds, len(self.kinds), self.start, self.variant.traced
        watched = [self.registers[s] for s in self.watched]

        def call(*given: Any, **named: Any) -> Any:
            if named or len(given) != count or context.get() is not active:
                return other(*given, **named)
            known = start.copy()
            at = 0
            for value, (cls, index, dtype, major) in zip(given, kinds):
                if type(value) is not cls:
                    return other(*given)
                matrix: Any = value
                pos, crd, val, shape = matrix.indptr, matrix.indices, matrix.data, matrix.shape
                if pos.dtype is not index or crd.dtype is not index or val.dtype is not dtype or not pos.ndim == crd.ndim == val.ndim == 1:
                    return other(*given)
                if not (pos.flags.carray and crd.flags.carray and val.flags.carray) or len(pos) != shape[major] + 1:
                    return other(*given)
                stored = int(pos[-1])
                if pos[0] != 0 or not 0 <= stored <= min(len(crd), len(val)):
                    return other(*given)
                known[at : at + _ARGUMENT] = address(pos), address(crd), address(val), stored, *shape
                at += _ARGUMENT
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

    def _run(self, known: list[int], rows: int, *shape: int) -> Any:
        """The result for arguments in registers; None if room for the bounds has to be thought about."""
        variant, registers, name = self.variant, self.registers, self.name
        began = variant.runtime.ticks()
        bounds = np.empty(rows + 1, np.int64)
        known[registers[f"{name}.pos1"]] = address(bounds)
        self.go[0]([known[r] for r in self.slots[0]])
        total = int(bounds[-1])
        if total * self.second.width > staging.SMALL or total > self.most:
            return None
        cuts, part = variant.runtime.cuts(bounds, total, staging.parts_of(total))
        positions = np.zeros(rows + 1, self.index)
        known[self.total], known[registers[f"{name}.chunks"]], known[registers[f"{name}.part"]] = total, len(cuts) - 1, part
        known[registers[f"{name}.cuts"]], known[registers[f"{name}.end1"]] = address(cuts), address(positions) + self.index.itemsize
        arrays = {}
        for array, dtype, register in self.along:
            arrays[array] = made = variant.runtime.empty((total,), dtype)
            known[register] = address(made)
        self.go[1]([known[r] for r in self.slots[1]])
        stored = int(positions[-1])
        if stored != total:
            for made in arrays.values():
                made.resize(stored, refcheck=False)
        variant.ticks += variant.runtime.ticks() - began
        variant.served += 1
        parts = {"pos1": positions, "crd1": arrays[f"{name}.crd1"], "val": arrays[self.values]}
        return interop.made(self.kind, shape, parts, self.matrix, tidy=True)
