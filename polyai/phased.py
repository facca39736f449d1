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


class _Plain:
    """Calls for matrices in CSR, CSC or COO whose one result lies along the pattern `name`, which the last kernel fills."""

    def __init__(self, variant: Phased, kinds: Sequence[Kind], registers: dict[str, int], threads: int) -> None:
        self.variant, self.kinds, self.registers, given = variant, kinds, registers, len(registers)
        self.stages = [staging.stage_of(k) for k in variant.kernels]
        self.name = self.stages[-1].plan.fills
        for name in self._made(self.stages):
            self._register(name)
        self.total = self._register(tn.nnz_of(self.name))
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
        self.sizes = compile_sizes((*type_.shape, *(s.plan.rows for s in self.stages)), self.watched)

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
        known = {*registers, *cls._made(stages), tn.nnz_of(name), tn.THREADS}
        if not sizes <= set(registers) or not {n for stage in stages for _, n in stage.slots} <= known:
            return None
        return cls(variant, looked, registers, threads)

    @staticmethod
    def _takes(stages: Sequence[staging.Stage], name: str) -> bool:
        """Whether the kernels are such as this class calls."""
        raise NotImplementedError

    @staticmethod
    def _made(stages: Sequence[staging.Stage]) -> tuple[str, ...]:
        """The names of what the caller makes, beside the count of the last pattern."""
        raise NotImplementedError

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
        """The result for arguments in registers; None if the call has to go the other way. `sizes`: its shape, then the rows of each stage's
        pattern."""
        raise NotImplementedError

    def _finished(self, shape: tuple[int, ...], positions: Array, arrays: Mapping[str, Array], began: int) -> Any:
        variant = self.variant
        variant.ticks += variant.runtime.ticks() - began
        variant.served += 1
        parts = {"pos1": positions, "crd1": arrays[f"{self.name}.crd1"], "val": arrays[self.values]}
        return interop.made(self.kind, shape, parts, self.matrix, tidy=True)


class Bounded(_Plain):
    """Calls of two kernels: the first bounds the rows of the result, the second fills them."""

    def __init__(self, variant: Phased, kinds: Sequence[Kind], registers: dict[str, int], threads: int) -> None:
        super().__init__(variant, kinds, registers, threads)
        self.along = [(name, self.results[name], self.registers[name]) for name in self.stages[-1].along]

    @staticmethod
    def _made(stages: Sequence[staging.Stage]) -> tuple[str, ...]:
        name = stages[-1].plan.fills
        return (*(f"{name}.{suffix}" for suffix in ("pos1", "cuts", "end1", "chunks", "part")), *stages[-1].along)

    @staticmethod
    def _takes(stages: Sequence[staging.Stage], name: str) -> bool:
        if len(stages) != 2 or not stages[1].packed or stages[1].plan.within:
            return False
        own = {n for n, _ in stages[1].results} == {*stages[1].along, f"{name}.end1"}
        return own and [n for n, _ in stages[0].results] == [f"{name}.pos1"] and stages[0].plan.counts == name

    def _run(self, known: list[int], *sizes: int) -> Any:
        """The result for arguments in registers; None if the rows have to be counted, since there is no room for their bounds."""
        variant, registers, name, shape, rows = self.variant, self.registers, self.name, sizes[:2], sizes[-1]
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
    """Calls of kernels that put what a matrix stores in another order, one after the other: each stores at most as much."""

    def __init__(self, variant: Phased, kinds: Sequence[Kind], registers: dict[str, int], threads: int) -> None:
        super().__init__(variant, kinds, registers, threads)
        self.steps = []
        for stage, go, slots in zip(self.stages, self.go, self.slots):
            made = [(self.results[name], registers[name]) for name in _parts(stage)]
            own, source = (registers[tn.nnz_of(n)] for n in (stage.plan.fills, stage.plan.within[0]))
            self.steps.append((go, slots, source, own, made, sum(dtype.itemsize for dtype, _ in made[1:]), stage.plan.index_bits))

    @staticmethod
    def _takes(stages: Sequence[staging.Stage], name: str) -> bool:
        return all(s.plan.counts == s.plan.fills and len(s.plan.within) == 1 and {n for n, _ in s.results} == set(_parts(s)) for s in stages)

    @staticmethod
    def _made(stages: Sequence[staging.Stage]) -> tuple[str, ...]:
        return tuple(name for stage in stages for name in (*_parts(stage), tn.nnz_of(stage.plan.fills)))

    def _run(self, known: list[int], *sizes: int) -> Any:
        runtime = self.variant.runtime
        arrays: list[Array] = []
        held: list[list[Array]] = []
        began = runtime.ticks()
        for (go, slots, source, own, made, width, bits), rows in zip(self.steps, sizes[2:]):
            held.append(arrays)  # what the kernel reads
            total = known[own] = known[source]
            if not staging.has_room(total, width, bits):
                return None
            (dtype, register), *along = made
            positions = np.empty(rows + 1, dtype)
            known[register] = address(positions)
            arrays = [positions]
            for dtype, register in along:
                arrays.append(runtime.empty((total,), dtype))
                known[register] = address(arrays[-1])
            go([known[r] for r in slots])
            known[own] = int(positions[-1])
        positions, coordinates, values = arrays
        if known[own] != total:  # coordinates that repeat were added up
            coordinates, values = coordinates[: known[own]].copy(), values[: known[own]].copy()
        parts = {f"{self.name}.crd1": coordinates, self.values: values}
        return self._finished(sizes[:2], positions.astype(f"i{self.bits // 8}", copy=False), parts, began)


def _parts(stage: staging.Stage) -> tuple[str, str, str]:
    name = stage.plan.fills
    return f"{name}.pos1", f"{name}.crd1", f"{name}.val"
