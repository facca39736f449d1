"""The quick ways of calls with phases: what the first call has answered is not asked again.

Most sparse results are made by two kernels: one bounds the rows, one fills them; conversions by one. Calls of these are native
(`native`). A call that is not as the first one was, or fails, goes another way, and from there to where errors are explained.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

from numpy.typing import NDArray

from polyai.calls.plain import Sources
from polyai.errors import SparseStructureError
from polyai.frontend.traced import ArrayOut, Traced
from polyai.runtime import staging
from polyai.runtime.arguments import ArrayArg, ScalarArg
from polyai.runtime.kernel import Kernel
from polyai.runtime.launch import Runtime
from polyai.runtime.phases import Phase, PhasesSpec, make_phases
from polyai.scalar.dtype import BY_NAME, DType
from polyai.shapes.code import unpacked
from polyai.shapes.expr import Size, Sym, evaluate, show, symbols
from polyai.sparse import interop, results
from polyai.sparse.format import Format, shared
from polyai.tensor import nodes as tn
from polyai.term.late import late

if TYPE_CHECKING:
    from polyai.sparse import tensor
else:
    tensor = late("polyai.sparse.tensor")

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
    if not variant.is_plain() or any(s.rows for s in traced.inputs):
        return None
    extents = {(s.input, s.dim): s.symbol for s in traced.symbols if s.what == "extent"}
    asked = {(show(g.left), g.right) for g in traced.guards if g.relation == "=="}
    fixed = [((n, d), e) for n, i in enumerate(traced.program.inputs) for d, e in enumerate(i.type.shape) if isinstance(e, int)]
    if any((extents.get(place), e) not in asked for place, e in fixed):  # nothing compares them
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
    """A native function for calls like this one; None if arguments, kernels or the result are such as native calls do not know."""
    traced = variant.traced
    types = tn.types_of(traced.program)
    if len(traced.program.outputs) != 1 or any(k.extra.get("aliases") for k in variant.kernels):
        return None
    (output,) = traced.program.outputs
    pattern = types[output].pattern
    sources = Sources(traced, types, args)
    phases = _phases(variant, sources, types, threads)
    kinds = [sources.argument(n, value) for n, value in enumerate(args)]
    guards = [sources.guard(g) for g in traced.guards]
    shape = [_size(sources, e) for e in types[output].shape]
    if phases is None or None in kinds or None in guards:
        return None
    known_shape = all(isinstance(e, int) or (e is not None and e[0] in ("dim", "times")) for e in shape)
    made = {name for phase in phases for name, *_ in phase.results}
    form = types[pattern.owner].format if pattern is not None and pattern.owner in types else None
    if pattern is not None and form is not None and form.tail and pattern.owner not in sources.position:
        dims = {s: source[1:] for s, source in sources.symbols.items() if source[0] == "dim"}
        if any(not symbols(e) <= dims.keys() for e in types[output].shape):
            return None
        outputs: tuple[str, ...] = (f"{pattern.owner}.pos1", f"{pattern.owner}.crd1", f"{output}.val")
        finish: Callable[..., Any] | None = functools.partial(_in_blocks, shared(form), types[output].shape, dims, {})
    elif not known_shape:
        return None
    elif pattern is None:
        outputs = (output,)
        finish = None if types[output].shape else _scalar
    else:
        if pattern.owner in sources.position or types[output].rank != 2 or form is None or form.name not in ("csr", "csc"):
            return None
        kind = form.name if pattern.dims == (0, 1) else {"csr": "csc", "csc": "csr"}[form.name]
        is_matrix = any(isinstance(o, ArrayOut) and o.is_matrix for o in traced.outputs)
        outputs = (f"{pattern.owner}.pos1", f"{pattern.owner}.crd1", output if output in made else f"{output}.val")
        finish = functools.partial(_finished, kind, is_matrix, tuple(shape))
    if not made >= set(outputs):
        return None
    spec = PhasesSpec(
        tuple(k for k in kinds if k is not None),
        phases,
        outputs,
        tuple(g for g in guards if g is not None),
        tuple((("nnz", n), ("const", 2)) for n, kind in enumerate(kinds) if not isinstance(kind, (ArrayArg, ScalarArg))),
    )
    variant.runtime.keep_results()
    return make_phases(spec, variant.runtime, slow, finish=finish, token=token, threads=threads)


def _phases(variant: Phased, sources: Sources, types: Mapping[str, tn.TensorType], threads: int) -> tuple[Phase, ...] | None:
    """The kernels with their plans in sources; None if these cannot say what some kernel needs."""
    stages = [staging.stage_of(k) for k in variant.kernels]
    made: dict[str, Any] = {tn.THREADS: ("const", threads)}
    out = []
    for kernel, stage in zip(variant.kernels, stages):
        plan = stage.plan
        name = plan.counts or plan.fills
        if plan.requires or plan.runs:
            return None
        if name:
            made |= {f"{name}.{part}": ("made", f"{name}.{part}") for part in ("nnz", "chunks", "part", "cuts", "end1")}
        results = []
        for result, p in stage.results:
            if result == f"{plan.fills}.end1" and stage.packed:
                continue
            shape = _extents(result, plan, sources, types, made)
            if shape is None:
                return None
            results.append((result, BY_NAME[p.dtype], shape))
            made[result] = ("made", result)
        slots = [_source(sources, made, *slot) for slot in stage.slots]
        within = [_source(sources, made, staging.SIZE, tn.nnz_of(n)) for n in plan.within]
        rows = _size(sources, plan.rows) if name else 0
        if None in slots or None in within or rows is None:
            return None
        widths = [dtype.bytes for result, dtype, shape in results if shape == (("made", tn.nnz_of(name)),)]
        width = sum(widths) or max((s.width for s in stages if s.packed and s.plan.fills == name), default=16)
        index = BY_NAME[f"i{plan.index_bits}"]
        known, most = tuple(s for s in slots if s is not None), tuple(s for s in within if s is not None)
        out.append(Phase(kernel, known, tuple(results), plan.counts, plan.fills, _number(rows), index, width, most, stage.packed))
    return tuple(out)


def _extents(
    result: str, plan: staging.Plan, sources: Sources, types: Mapping[str, tn.TensorType], made: Mapping[str, tuple[Any, ...]]
) -> tuple[Any, ...] | None:
    """How large a result of a kernel is, in sources; None along an argument whose blocks or padding hold more than it stores."""
    if result == f"{plan.counts}.pos1":
        return (("made", f"{plan.counts}.ends"),)
    if result in (f"{plan.fills}.crd1", f"{plan.fills}.val"):
        return (("made", tn.nnz_of(plan.fills)),)
    known = plan.shapes.get(result)
    if known is None:
        return None
    form = types[known].format if isinstance(known, str) and known in types else None
    if form is not None and (form.blocked or form.padded):
        return None
    if isinstance(known, str):
        return (("nnz", sources.position[known]) if known in sources.position else ("made", tn.nnz_of(known)),)
    sizes = [made.get(show(size), sources.size(size)) for size in map(unpacked, known)]
    return None if None in sizes else tuple(_number(s) for s in sizes)


def _size(sources: Sources, size: Size) -> Any:
    """A size as a source, or an int; None if it is no number and no multiple of one symbol."""
    if isinstance(size, int) or len(size.terms) != 1 or size.terms[0][1] < 2:
        return sources.size(size)
    parts, factor = size.terms[0]
    found = sources.symbols.get(parts[0].name) if len(parts) == 1 and isinstance(parts[0], Sym) else None
    return None if found is None or found[0] != "dim" else ("times", found, factor)


def _number(size: Any) -> tuple[Any, ...]:
    return ("const", size) if isinstance(size, int) else size


def _source(sources: Sources, made: Mapping[str, tuple[Any, ...]], kind: int, name: str) -> tuple[Any, ...] | None:
    """Where a slot comes from."""
    if name in made:
        return made[name]
    if kind == staging.SIZE:
        tensor = name.removesuffix(".nnz")
        return ("nnz", sources.position[tensor]) if tensor in sources.position and name == tn.nnz_of(tensor) else sources.symbols.get(name)
    return sources.array(name) if kind == staging.ARGUMENT and name.partition(".")[0] in sources.position else None


def _scalar(value: Array, *args: Any) -> Any:
    """The result of no dimensions of a native call."""
    return value[()]


def _in_blocks(
    form: Format, shape: tuple[Size, ...], dims: Mapping[str, tuple[int, int]], known: dict[tuple[int, ...], tuple[int, ...]], positions: Array, crd: Array, val: Array, *args: Any
) -> Any:
    """The result of a native call that is stored in dense blocks, as an array of its levels. `known`: the shape of the last one, by the sizes
    it follows from."""
    at = tuple([args[n].shape[d] for n, d in dims.values()])
    extents = known.get(at)
    if extents is None:
        known.clear()
        extents = known[at] = tuple(evaluate(e, dict(zip(dims, at))) for e in shape)
    return tensor.SparseArray.around(form, extents, {"pos1": positions, "crd1": crd, "val": val.reshape(-1)})


def _extent(size: Any, args: Sequence[Any]) -> int:
    if isinstance(size, int):
        return size
    return _extent(size[1], args) * size[2] if size[0] == "times" else args[size[1]].shape[size[2]]  # type: ignore[no-any-return]


def _finished(kind: str, is_matrix: bool, shape: tuple[Any, ...], positions: Array, crd: Array, val: Array, *args: Any) -> Any:
    """The sparse result of a native call."""
    extents = tuple([_extent(e, args) for e in shape])
    return results.made(kind, extents, {"pos1": positions, "crd1": crd, "val": val}, is_matrix, tidy=True)
