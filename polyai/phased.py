"""The quick ways of calls with phases: what the first call has answered is not asked again.

Most sparse results are made by two kernels: one bounds the rows, one fills them; conversions by one. Calls of these are native
(`native`). A call that is not as the first one was, or fails, goes another way, and from there to where errors are explained.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, Protocol

from numpy.typing import NDArray

from polyai.errors import SparseStructureError
from polyai.frontend.trace import ArrayOut, Traced
from polyai.plain import Sources
from polyai.runtime import staging
from polyai.runtime.arguments import ArrayArg, ScalarArg
from polyai.runtime.kernel import Kernel
from polyai.runtime.launch import Runtime
from polyai.runtime.phases import Phase, PhasesSpec, make_phases
from polyai.scalar.dtype import BY_NAME, DType
from polyai.sparse import interop
from polyai.sparse.format import Format
from polyai.tensor import nodes as tn

Slow = Callable[..., Any]
Run = Callable[[Sequence[Any], Sequence[interop.Described], dict[str, int]], Any]
Array = NDArray[Any]
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
    """A function for calls like this one; what it does not take goes to `slow`. None if the call is not plain enough."""
    traced = variant.traced
    if not variant.is_plain() or [s.path for s in traced.inputs] != [(n,) for n in range(len(args))] or any(s.rows for s in traced.inputs):
        return None
    if any(isinstance(e, int) for i in traced.program.inputs for e in i.type.shape):
        return None
    looked = _looked_at(variant, args, run, slow, token)
    return native(variant, args, looked or slow, token, threads) or looked


def _looked_at(variant: Phased, args: tuple[Any, ...], run: Run, slow: Slow, token: tuple[ContextVar[Any], object]) -> Slow | None:
    """A function for calls with matrices like these, which are looked at once."""
    traced = variant.traced
    kinds: list[tuple[type, Format | None, DType]] = []
    for slot, value in zip(traced.inputs, args):
        found = interop.describe(value) if slot.kind == "sparse" else None
        if found is None or found.converted or found.kind not in ("csr", "csc", "coo"):
            return None
        kinds.append((type(value), found.format, found.dtype))
    sources = [(s.symbol, s.input, s.dim if s.what == "extent" else NNZ) for s in traced.symbols]
    sources += [(tn.nnz_of(s.name), n, NNZ) for n, s in enumerate(traced.inputs) if s.name in traced.merged]
    if any(s.what not in ("extent", "nnz") or (s.factor, s.offset) != (1, 0) for s in traced.symbols):
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

    return call


def arrays_of(inputs: Sequence[tn.Input], given: Sequence[Any], described: Sequence[interop.Described]) -> dict[str, Any]:
    """The arrays of sparse arguments by the names of kernels."""
    out: dict[str, Any] = {}
    for slot, value, found in zip(inputs, given, described):
        out.update((f"{slot.name}.{suffix}", array) for suffix, array in interop.arrays_of(value, found).items())
    return out


def native(variant: Phased, args: tuple[Any, ...], slow: Slow, token: tuple[ContextVar[Any], object], threads: int) -> Slow | None:
    """A native function for calls like this one, whose one result is a sparse matrix that the last kernel fills; None if the kernels are
    others, or the arguments such as native calls do not know."""
    traced = variant.traced
    stages = [staging.stage_of(k) for k in variant.kernels]
    types = tn.types_of(traced.program)
    name = stages[-1].plan.fills or stages[-1].plan.counts
    if len(traced.program.outputs) != 1 or any(k.extra.get("aliases") for k in variant.kernels):
        return None
    (output,) = traced.program.outputs
    pattern, form = types[output].pattern, types[name].format if name in types else None
    if pattern is None or pattern.owner != name or types[output].rank != 2 or form is None or any(s.plan.requires or s.plan.runs for s in stages):
        return None
    sources = Sources(traced, types, args)
    made: dict[str, tuple[Any, ...]] = {f"{name}.{part}": ("made", part) for part in ("pos1", "cuts", "end1", "chunks", "part")}
    made |= {tn.nnz_of(name): ("made", "nnz"), tn.THREADS: ("const", threads)}
    match stages:
        case [first, last] if last.packed and not last.plan.within and first.plan.counts == name and [n for n, _ in first.results] == [f"{name}.pos1"]:
            names, within = last.along, None
            expected = {*names, f"{name}.end1"}
        case [last] if last.plan.counts == name and len(last.plan.within) == 1 and last.plan.within[0] in sources.position:
            names, within = (f"{name}.crd1", f"{name}.val"), ("nnz", sources.position[last.plan.within[0]])
            expected = {*names, f"{name}.pos1"}
        case _:
            return None
    value = output if output in names else f"{output}.val"
    if {n for n, _ in last.results} != expected or set(names) != {f"{name}.crd1", value}:
        return None
    made |= {n: ("made", n) for n in names}
    slots = [[_source(sources, made, *slot) for slot in stage.slots] for stage in stages]
    kinds = [sources.argument(n, value) for n, value in enumerate(args)]
    guards, rows = [sources.guard(g) for g in traced.guards], sources.size(last.plan.rows)
    shape = [sources.size(e) for e in types[output].shape]
    if None in kinds or None in guards or rows is None or any(None in s for s in slots):
        return None
    if not all(isinstance(e, int) or (e is not None and e[0] == "dim") for e in shape):
        return None
    along = dict(last.results)
    spec = PhasesSpec(
        tuple(k for k in kinds if k is not None),
        tuple(Phase(kernel, tuple(s for s in of if s is not None)) for kernel, of in zip(variant.kernels, slots)),
        ("const", rows) if isinstance(rows, int) else rows,
        BY_NAME[f"i{form.index_bits}"],
        tuple(BY_NAME[along[n].dtype] for n in names),
        names,
        within,
        tuple(g for g in guards if g is not None),
        tuple((("nnz", n), ("const", 2)) for n, kind in enumerate(kinds) if not isinstance(kind, (ArrayArg, ScalarArg))),
    )
    kind = form.name if pattern.dims == (0, 1) else {"csr": "csc", "csc": "csr"}[form.name]
    is_matrix = any(isinstance(o, ArrayOut) and o.is_matrix for o in traced.outputs)
    finish = functools.partial(_finished, kind, is_matrix, tuple(shape), names[1] == f"{name}.crd1")
    variant.runtime.keep_results()
    return make_phases(spec, variant.runtime, slow, finish=finish, token=token, threads=threads)


def _source(sources: Sources, made: Mapping[str, tuple[Any, ...]], kind: int, name: str) -> tuple[Any, ...] | None:
    """Where a slot comes from."""
    if name in made:
        return made[name]
    if kind == staging.SIZE:
        tensor = name.removesuffix(".nnz")
        return ("nnz", sources.position[tensor]) if tensor in sources.position and name == tn.nnz_of(tensor) else sources.symbols.get(name)
    return sources.array(name) if kind == staging.ARGUMENT and name.partition(".")[0] in sources.position else None


def _finished(kind: str, is_matrix: bool, shape: tuple[Any, ...], swapped: bool, positions: Array, first: Array, second: Array, *args: Any) -> Any:
    """The result of a native call."""
    crd, val = (second, first) if swapped else (first, second)
    extents = tuple([e if isinstance(e, int) else args[e[1]].shape[e[2]] for e in shape])
    return interop.made(kind, extents, {"pos1": positions, "crd1": crd, "val": val}, is_matrix, tidy=True)
