"""The quick ways of calls with phases: arguments are looked at once, and nothing is asked that the first call has answered.

Most sparse results are made by two kernels: one bounds the rows, one fills them; conversions by one. `Bounded` and `Regrouped` know their
slots by number and call them with nothing in between but the arrays they make; a call that is not as the first one was, or fails, goes
the other way (`quick`), and from there to where errors are explained.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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

    plain = Bounded.of(variant, kinds, sources, threads) or Regrouped.of(variant, kinds, sources, threads)
    return call if plain is None else plain.caller(call, token)


def arrays_of(inputs: Sequence[tn.Input], given: Sequence[Any], described: Sequence[interop.Described]) -> dict[str, Any]:
    """The arrays of sparse arguments by the names of kernels."""
    out: dict[str, Any] = {}
    for slot, value, found in zip(inputs, given, described):
        out.update((f"{slot.name}.{suffix}", array) for suffix, array in interop.arrays_of(value, found).items())
    return out


Array = NDArray[Any]
_ARGUMENT = 6
"""Registers of an argument: the addresses of its positions, coordinates and values, how much it stores, its extents."""


class _Plain:
    """Calls for matrices in CSR or CSC whose one result lies along the pattern `name`, which the last kernel fills."""

    MADE: tuple[str, ...]
    """What the caller makes of the pattern `name`, by suffix."""

    def __init__(self, variant: Phased, kinds: Sequence[tuple[type, np.dtype[Any], np.dtype[Any], int]], registers: dict[str, int], threads: int) -> None:
        self.variant, self.kinds, self.registers = variant, kinds, registers
        self.stages = [staging.stage_of(k) for k in variant.kernels]
        self.name = self.stages[-1].plan.fills
        for suffix in self.MADE:
            self._register(f"{self.name}.{suffix}")
        self.total = self._register(tn.nnz_of(self.name))
        self.threads = self._register(tn.THREADS)
        self.results = {name: to_numpy(BY_NAME[p.dtype]) for name, p in self.stages[-1].results}
        self.along = [(name, self.results[name], self._register(name)) for name in self._along(self.stages[-1], self.name)]
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
        self.watched = sorted({s for s, r in registers.items() if "." not in s and r < _ARGUMENT * len(kinds)})
        self.sizes = compile_sizes((self.stages[-1].plan.rows, *type_.shape), self.watched)

    def _register(self, name: str) -> int:
        return self.registers.setdefault(name, len(self.registers))

    @classmethod
    def of(cls, variant: Phased, kinds: Sequence[tuple[type, Format | None, DType]], sources: Sequence[tuple[str, int, int]], threads: int) -> Self | None:
        """None if the kernels are others, or the matrices."""
        traced = variant.traced
        stages = [staging.stage_of(k) for k in variant.kernels]
        name = stages[-1].plan.fills
        if not name or len(traced.program.outputs) != 1 or any(k.extra.get("aliases") for k in variant.kernels) or not cls._takes(stages, name):
            return None
        type_ = tn.types_of(traced.program)[traced.program.outputs[0]]
        if any(s.plan.requires or s.plan.runs for s in stages) or type_.pattern is None or type_.pattern.owner != name or type_.rank != 2:
            return None
        registers: dict[str, int] = {}
        looked: list[tuple[type, np.dtype[Any], np.dtype[Any], int]] = []
        for slot, (kind, form, dtype) in zip(traced.inputs, kinds):
            if form is None or form.name not in ("csr", "csc") or form.rank != 2:
                return None
            for suffix in ("pos1", "crd1", "val", "stored", "rows", "columns"):
                registers[f"{slot.name}.{suffix}"] = len(registers)
            looked.append((kind, np.dtype(f"i{form.index_bits // 8}"), to_numpy(dtype), form.order[0]))
        for symbol, n, dim in sources:
            registers[symbol] = _ARGUMENT * n + (3 if dim == NNZ else 4 + dim)
        for slot in traced.inputs:
            registers.setdefault(tn.nnz_of(slot.name), registers[f"{slot.name}.stored"])
        sizes = set().union(*map(symbols, (*type_.shape, stages[-1].plan.rows)))
        known = {*registers, *(f"{name}.{s}" for s in cls.MADE), tn.nnz_of(name), tn.THREADS, *cls._along(stages[-1], name)}
        if not sizes <= known or not {n for stage in stages for _, n in stage.slots} <= known:
            return None
        return cls(variant, looked, registers, threads)

    @staticmethod
    def _takes(stages: Sequence[staging.Stage], name: str) -> bool:
        """Whether the kernels are such as this class calls."""
        raise NotImplementedError

    @staticmethod
    def _along(stage: staging.Stage, name: str) -> tuple[str, ...]:
        """The results of the last kernel along the pattern."""
        return stage.along

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
        """The result for arguments in registers; None if the call has to go the other way."""
        raise NotImplementedError

    def _finished(self, shape: tuple[int, ...], positions: Array, arrays: Mapping[str, Array], began: int) -> Any:
        variant = self.variant
        variant.ticks += variant.runtime.ticks() - began
        variant.served += 1
        parts = {"pos1": positions, "crd1": arrays[f"{self.name}.crd1"], "val": arrays[self.values]}
        return interop.made(self.kind, shape, parts, self.matrix, tidy=True)


class Bounded(_Plain):
    """Calls of two kernels: the first bounds the rows of the result, the second fills them."""

    MADE = ("pos1", "cuts", "end1", "chunks", "part")

    @staticmethod
    def _takes(stages: Sequence[staging.Stage], name: str) -> bool:
        if len(stages) != 2 or not stages[1].packed or stages[1].plan.within:
            return False
        own = {n for n, _ in stages[1].results} == {*stages[1].along, f"{name}.end1"}
        return own and [n for n, _ in stages[0].results] == [f"{name}.pos1"] and stages[0].plan.counts == name

    def _run(self, known: list[int], rows: int, *shape: int) -> Any:
        """The result for arguments in registers; None if the rows have to be counted, since there is no room for their bounds."""
        variant, registers, name = self.variant, self.registers, self.name
        began = variant.runtime.ticks()
        bounds = np.empty(rows + 1, np.int64)
        known[registers[f"{name}.pos1"]] = address(bounds)
        self.go[0]([known[r] for r in self.slots[0]])
        total = int(bounds[-1])
        if not staging.has_room(total, self.stages[1].width, self.bits):
            return None
        cuts, part = variant.runtime.cuts(bounds, total, staging.parts_of(total))
        positions = np.zeros(rows + 1, self.results[f"{name}.end1"])
        known[self.total], known[registers[f"{name}.chunks"]], known[registers[f"{name}.part"]] = total, len(cuts) - 1, part
        known[registers[f"{name}.cuts"]], known[registers[f"{name}.end1"]] = address(cuts), address(positions) + positions.itemsize
        arrays = {}
        for array, dtype, register in self.along:
            arrays[array] = made = variant.runtime.empty((total,), dtype)
            known[register] = address(made)
        self.go[1]([known[r] for r in self.slots[1]])
        stored = int(positions[-1])
        if stored != total:
            for made in arrays.values():
                made.resize(stored, refcheck=False)
        return self._finished(shape, positions, arrays, began)


class Regrouped(_Plain):
    """Calls of one kernel that puts what a matrix stores in another order: it stores at most as much."""

    MADE = ("pos1", "crd1", "val")

    @staticmethod
    def _takes(stages: Sequence[staging.Stage], name: str) -> bool:
        (stage, *more) = stages
        results = {n for n, _ in stage.results}
        return not more and stage.plan.counts == name and len(stage.plan.within) == 1 and results == {f"{name}.{part}" for part in Regrouped.MADE}

    @staticmethod
    def _along(stage: staging.Stage, name: str) -> tuple[str, ...]:
        return (f"{name}.crd1", f"{name}.val")

    def _run(self, known: list[int], rows: int, *shape: int) -> Any:
        variant, registers, name = self.variant, self.registers, self.name
        began = variant.runtime.ticks()
        total = known[registers[tn.nnz_of(self.stages[0].plan.within[0])]]
        if not staging.has_room(total, sum(dtype.itemsize for _, dtype, _ in self.along), self.bits):
            return None
        positions = np.empty(rows + 1, self.results[f"{name}.pos1"])
        known[self.total], known[registers[f"{name}.pos1"]] = total, address(positions)
        arrays = {}
        for array, dtype, register in self.along:
            arrays[array] = made = variant.runtime.empty((total,), dtype)
            known[register] = address(made)
        self.go[0]([known[r] for r in self.slots[0]])
        stored = int(positions[-1])
        if stored != total:  # coordinates that repeat were added up
            arrays = {array: made[:stored].copy() for array, made in arrays.items()}
        return self._finished(shape, positions.astype(f"i{self.bits // 8}", copy=False), arrays, began)
