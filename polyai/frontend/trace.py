"""From a Python function and arguments to a tensor program, the guards it relies on, and the way back for its results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from polyai.errors import PolyAIError, TraceError, UnsupportedError
from polyai.frontend import tree
from polyai.frontend.arguments import Leaf, identifier, leaves
from polyai.frontend.core import Array, Composite, Tracer
from polyai.frontend.declare import DECLARED, Declarations, DynamicDims, chosen_dims, named_dims
from polyai.frontend.lazy import LazyArray
from polyai.frontend.size_value import SizeValue
from polyai.frontend.spec import DimExpr, Relation, Spec
from polyai.frontend.surface.elementwise import astype
from polyai.frontend.surface.pointwise import pointwise_stored
from polyai.frontend.term import Term
from polyai.frontend.traced import ArrayOut, ConstOut, InputSlot, SizeOut, SymbolSource, Traced
from polyai.scalar import dtype as dt
from polyai.shapes import expr as sx
from polyai.shapes.expr import Size
from polyai.shapes.guard import Guard as LateGuard
from polyai.sparse import interop
from polyai.sparse.format import Format
from polyai.sparse.level import length_of
from polyai.tensor import nodes as tn
from polyai.term.late import late

if TYPE_CHECKING:
    from polyai.frontend import settle
    from polyai.frontend.composites import filled
    from polyai.frontend.surface import merging, reductions, sparse
    from polyai.sparse import results as lines_of
    from polyai.sparse import samples
else:
    filled = late("polyai.frontend.composites.filled")
    merging = late("polyai.frontend.surface.merging")
    lines_of = late("polyai.sparse.results")
    reductions = late("polyai.frontend.surface.reductions")
    samples = late("polyai.sparse.samples")
    settle = late("polyai.frontend.settle")
    sparse = late("polyai.frontend.surface.sparse")


def trace(
    fn: Callable[..., Any],
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    name: str | None = None,
    dynamic: str | DynamicDims = "all",
    static: frozenset[Any] = frozenset(),
    where: Sequence[Relation] = (),
) -> Traced:
    """Run `fn` on symbolic arrays in place of `args` and `kwargs`, which may be specs, and record what it computes.

    `dynamic`: "all" keeps every size symbolic, "none" fixes every size by a guard, a mapping from argument names to
    dimensions, or to dimensions and the sizes they are declared as, keeps those symbolic. `static`: names or positions of
    arguments that are baked in. `where`: relations between declared sizes.
    Raises TraceError where the function needs a value, and what its operations raise for shapes and dtypes.
    """
    rows: dict[str, tuple[int, ...]] = {}
    while True:
        try:
            return _traced(fn, args, dict(kwargs or {}), name, dynamic, static, where, rows)
        except merging.RowsWanted as wanted:
            if wanted.text in rows:
                raise UnsupportedError(
                    f"{wanted.text} meets other sparse arrays and cannot be converted once for all of them",
                    "its format has no conversion, or it is needed in another order of its dimensions as well",
                    "convert it before, to CSR if it is a matrix",
                ) from None
            rows = {**rows, wanted.text: wanted.order}


def _traced(
    fn: Callable[..., Any],
    args: tuple[Any, ...],
    given: dict[str, Any],
    name: str | None,
    dynamic: str | DynamicDims,
    static: frozenset[Any],
    where: Sequence[Relation],
    rows: Mapping[str, tuple[int, ...]],
) -> Traced:
    """`trace`, with the arguments called `rows` converted to CSR, or to slices of their dimensions in an order."""
    found = leaves(fn, args, given, static)
    tracer = Tracer(identifier(name or str(getattr(fn, "__name__", "function"))), LazyArray)
    tracer.rows = rows
    binder = _Binder(tracer, found, dynamic, where, rows, taken_apart=hasattr(fn, "__signature__"))
    values = {leaf.path: binder.bind(leaf) for leaf in found if leaf.kind != "static"}
    binder.admit()
    values = {path: _with_fill(a) for path, a in values.items()}
    called = [_rebuilt((n,), a, values) for n, a in enumerate(args)]
    try:
        result = fn(*called, **{k: _rebuilt((k,), v, values) for k, v in given.items()})
    except TypeError as error:
        refused = tracer.sizes.refused
        if refused is None or isinstance(error, PolyAIError):
            raise
        raise refused from error  # a library asked for a number, and says something else of the refusal
    out_leaves, shape = tree.flatten(result)
    names: list[str] = []
    outputs = tuple(_output(tracer, v, names) for v in out_leaves)
    for captured, value in tracer.captured.values():
        binder.slots.append(InputSlot(captured.name, (), captured.name, "sparse" if captured.is_sparse else "array", _rows(captured.name, value, rows), rows.get(captured.name, ())))
        if captured.is_sparse:
            binder.count(captured.name, captured.type.format)
            binder.add_lengths(captured.name, captured.name, captured.type.format, {})
    tracer.root.open = False
    return _finished(tracer, binder, found, outputs, shape, names)


def _finished(tracer: Tracer, binder: _Binder, found: list[Leaf], outputs: Any, shape: tree.Tree, names: list[str]) -> Traced:
    sizes = tracer.sizes
    captured = {a.name: v for a, v in tracer.captured.values()}
    order = {slot.name: n for n, slot in enumerate(binder.slots)}
    inputs = [
        tn.Input(i.name, i.type, False, i.below)
        for i in sorted(tracer.inputs, key=lambda i: order[i.name])
    ]
    taken = set(tracer.sizes.texts)
    for slot_number, slot in enumerate(binder.slots):
        if f"{slot.name}.value" in taken:
            binder.sources.append(SymbolSource(f"{slot.name}.value", slot_number, "value"))
    steps = tuple(_with_requirements(step, tracer) for step in tracer.root.steps)
    program = settle.settled(tn.Program(tracer.root.name, tuple(inputs), steps, tuple(names), sizes.known.all_facts()), sizes)
    made = {name for step in program.body for name in tn.targets_of(step)}
    merged = {**tracer.merged, **{source: None for target, source in tracer.copied.items() if target in made}}
    unique = tracer.needs_unique.keys() | merged.keys()
    program = replace(program, inputs=tuple(replace(i, unique=i.name in unique) for i in program.inputs))
    return Traced(
        program,
        tuple(binder.slots),
        tuple(binder.sources),
        tuple(sizes.guards),
        {**binder.declared.likely(), **sizes.hints},
        tuple(leaf for leaf in found if leaf.kind == "static"),
        captured,
        outputs,
        shape,
        tuple(tracer.needs_unique),
        tuple(merged),
        dict(sizes.texts),
        dict(binder.declared.dims),
        tuple((name, sizes.texts[name], sizes.text(bound)) for name, bound in sizes.decided.items()),
    )


def _with_requirements(step: tn.Step, tracer: Tracer) -> tn.Step:
    """A step that makes a size which data decide, with what must hold of it: of several sizes, the last one is known last."""
    if not isinstance(step, tn.Scatter) or not tracer.sizes.late:
        return step
    made = tn.nnz_of(step.target)
    decided = list(tracer.sizes.decided)
    mine = [g for g in tracer.sizes.late if max((sx.symbols(g.left) | sx.symbols(g.right)) & set(decided), key=decided.index) == made]
    return replace(step, requires=tuple(LateGuard(g.left, g.relation, g.right, g.text, g.why) for g in mine))


def _output(tracer: Tracer, value: Any, names: list[str]) -> ArrayOut | SizeOut | ConstOut:
    if isinstance(value, SizeValue):
        made = [n for n in sx.symbols(value.size) if n.removesuffix(".nnz") in tracer.home]
        if made and value.size == sx.symbol(made[0]):  # known when it has been assembled
            owner = tracer.array_type(tracer, tracer.root, made[0].removesuffix(".nnz"), tracer.types[made[0].removesuffix(".nnz")])
            names.append(tracer.use(reductions.sum(sparse.ones_where_stored(owner), dtype=np.int64)))
            return ArrayOut(len(names) - 1, number=True)
        if not tracer.sizes.is_decided(value.size):
            return SizeOut(value.size)
        names.append(tracer.use(tracer.size_array(tracer.sizes.resolve(value.size))))
        return ArrayOut(len(names) - 1, number=True)
    if isinstance(value, Term):
        raise TraceError("the function returns an element in index notation", "it has no shape", "build an array with comprehension(...)")
    if isinstance(value, Composite) and isinstance(value, filled.FilledArray):
        found = _output(tracer, pointwise_stored("filled", lambda e: e, value.stored), names)  # which nobody else returns
        assert isinstance(found, ArrayOut)
        return replace(found, fill=value.fill)
    if not isinstance(value, Array):
        return ConstOut(value)
    line = value.name in tracer.lines
    value = as_scipy_holds(tracer, tracer.lines.get(value.name, value))
    name = tracer.use(value)
    if name not in names:
        names.append(name)
    pattern = value.type.pattern
    if pattern is None:
        return ArrayOut(names.index(name))
    return ArrayOut(names.index(name), pattern.owner, pattern.dims, value.is_matrix, line)


def as_scipy_holds(tracer: Tracer, value: Array) -> Array:
    """A sparse result of half precision in f32: SciPy has no such arrays. Those of PolyAI have, if an argument is one."""
    halves = (dt.f16, dt.bf16)
    if not value.is_sparse or value.type.dtype not in halves or any(i.type.is_sparse and i.type.dtype in halves for i in tracer.inputs):
        return value
    return cast(Array, astype(value, dt.f32))


def _rebuilt(path: tuple[Any, ...], value: Any, values: Mapping[tuple[Any, ...], Any]) -> Any:
    """An argument with its leaves replaced; containers are rebuilt, static parts stay."""
    if path in values:
        return values[path]
    if isinstance(value, dict):
        return {k: _rebuilt((*path, k), v, values) for k, v in value.items()}
    if isinstance(value, list):
        return [_rebuilt((*path, n), v, values) for n, v in enumerate(value)]
    if isinstance(value, tuple):
        parts = [_rebuilt((*path, n), v, values) for n, v in enumerate(value)]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value


class _Binder:
    """Makes the inputs of the program from the leaves of a call."""

    def __init__(
        self,
        tracer: Tracer,
        found: list[Leaf],
        dynamic: str | DynamicDims,
        where: Sequence[Relation],
        rows: Mapping[str, tuple[int, ...]],
        taken_apart: bool = False,
    ) -> None:
        self.tracer, self.dynamic, self.rows, self.taken_apart = tracer, dynamic, rows, taken_apart
        self.slots: list[InputSlot] = []
        self.sources: list[SymbolSource] = []
        extents = [e for leaf in found if leaf.kind == "spec" for e in leaf.value.shape if isinstance(e, DimExpr)]
        self.declared = Declarations([*extents, *named_dims(dynamic)], where)
        for name in self.declared.dims:
            tracer.names.fresh(name)
        self.declared.tell(tracer.sizes)

    def admit(self) -> None:
        """Raise GuardError if the sizes of the call at hand are not as declared."""
        sizes = self.tracer.sizes
        for guard in [g for g in sizes.guards if g.why == DECLARED]:
            names = sx.symbols(guard.left) | sx.symbols(guard.right)
            if names <= sizes.hints.keys() and not guard.holds(sizes.hints):
                empty = tn.Program("", (), (), ())
                known = Traced(empty, tuple(self.slots), tuple(self.sources), (), {}, (), {}, (), tree.flatten(())[1], texts=dict(sizes.texts), dims=self.declared.dims)
                raise known.refusal(guard, sizes.hints)

    def bind(self, leaf: Leaf) -> Array:
        """The traced array for one leaf."""
        tracer, value = self.tracer, leaf.value
        if leaf.kind == "scalar":
            dtype = {bool: dt.bool_, int: dt.i64, float: dt.f64, complex: dt.c128}[_python_type(value)]
            name = self._slot(leaf, False)
            if isinstance(value, int):
                tracer.scalars[name] = value
            return tracer.add_input(name, tn.TensorType(dtype, ()), leaf.text, weak=True)
        if leaf.kind == "array":
            name = self._slot(leaf, False)
            shape = self._shape(name, leaf.text, value.shape, value.shape)
            return tracer.add_input(name, tn.TensorType(dt.from_numpy(value.dtype, leaf.text), shape), leaf.text)
        if leaf.kind == "sparse":
            described = interop.describe(interop.as_rows(value, self.rows[leaf.text]) if leaf.text in self.rows else value)
            assert described is not None
            made = self._sparse(leaf, described.shape, described.shape, described.dtype, described.format, described.is_matrix, described.nnz, dict(described.lengths))
            for level in described.format.counted:
                tracer.sizes.hints[f"{tn.nnz_of(made.name)}{level}"] = interop.positions(described, level)
            if described.kind in ("csr", "csc"):
                pos, crd = described.holder.indptr, described.holder.indices
                if (alike := samples.rows_alike(pos, crd)) > 1:
                    tracer.sizes.hints[f"{made.name}_alike1"] = alike
                if longest := samples.heavy_row(pos):
                    tracer.sizes.hints[f"{made.name}_heavy1"] = longest
            return made
        spec: Spec = value
        if spec.format is not None:
            return self._sparse(leaf, spec.shape, None, spec.dtype, spec.format, spec.is_matrix, None)
        name = self._slot(leaf, False)
        return tracer.add_input(name, tn.TensorType(spec.dtype, self._shape(name, leaf.text, spec.shape, None)), leaf.text)

    def _sparse(self, leaf: Leaf, extents: Any, hints: Any, dtype: Any, format: Any, is_matrix: bool, nnz: int | None, lengths: Mapping[str, int] | None = None) -> Array:
        name = self._slot(leaf, True)
        shape = self._shape(name, leaf.text, extents, hints)
        self.tracer.sizes.add(tn.nnz_of(name), f"{leaf.text}.nnz", nnz)
        self.count(name, format)
        self.add_lengths(name, leaf.text, format, lengths or {})
        pattern = tn.Pattern(name, tuple(range(len(shape))))
        return self.tracer.add_input(name, tn.TensorType(dtype, shape, format, pattern), leaf.text, is_matrix=is_matrix)

    def add_lengths(self, name: str, text: str, format: Format | None, hints: Mapping[str, int]) -> None:
        """The sizes of a sparse input's levels that are no extents."""
        for number, level in enumerate(() if format is None else format.levels):
            if level.sized:
                symbol = length_of(name, number)
                self.tracer.sizes.add(symbol, f"the length of level {number} of {text}", hints.get(f"length{number}"))
                self.sources.append(SymbolSource(symbol, len(self.slots) - 1, "length", number))

    def count(self, name: str, format: Any) -> None:
        """Say where the numbers of positions of the last slot, a sparse input, come from."""
        slot = len(self.slots) - 1
        self.sources.append(SymbolSource(tn.nnz_of(name), slot, "nnz"))
        self.sources += [SymbolSource(f"{tn.nnz_of(name)}{level}", slot, "positions", level) for level in format.counted]

    def _slot(self, leaf: Leaf, is_sparse: bool) -> str:
        stem = identifier(leaf.text)
        name = self.tracer.sparse_name(stem) if is_sparse else self.tracer.names.fresh(stem)
        kind = leaf.kind if leaf.kind != "spec" else "sparse" if is_sparse else "array"
        self.slots.append(InputSlot(name, leaf.path, leaf.text, kind, _rows(leaf.text, leaf.value, self.rows), self.rows.get(leaf.text, ())))
        return name

    def _shape(self, name: str, text: str, extents: Sequence[Any], hints: Sequence[int] | None) -> tuple[Size, ...]:
        chosen = None if hints is None else self._chosen(text, name, len(extents))
        return tuple(self._extent(name, text, d, e, None if hints is None else hints[d], chosen) for d, e in enumerate(extents))

    def _extent(self, name: str, text: str, d: int, extent: Any, hint: int | None, chosen: dict[int, DimExpr | None] | None) -> Size:
        tracer, input_ = self.tracer, len(self.slots) - 1
        if hint is not None:
            extent = None if chosen is None else chosen.get(d)
        taken = self.declared.take(extent.size) if isinstance(extent, DimExpr) else None
        if taken is not None:
            only, solved = taken
            self.sources.append(SymbolSource(only, input_, "extent", d, solved.factor, solved.offset))
            if hint is not None:
                tracer.sizes.hints[only] = (hint - solved.offset) // solved.factor
            if solved.factor == 1 and solved.offset == 0:
                return sx.symbol(only)
        symbol = tracer.names.fresh(f"{name}_d{d}")
        size = tracer.sizes.add(symbol, f"{text}.shape[{d}]", hint)
        self.sources.append(SymbolSource(symbol, input_, "extent", d))
        if isinstance(extent, DimExpr):
            tracer.sizes.declare(size, "==", extent.size, DECLARED)
        elif hint is None:
            tracer.sizes.declare(size, "==", int(extent), DECLARED)
        elif chosen is not None and d not in chosen:
            tracer.sizes.unify(size, hint, "sizes are not dynamic")
        return size

    def _chosen(self, text: str, name: str, rank: int) -> dict[int, DimExpr | None] | None:
        """The dimensions of an argument that stay symbolic, and what `dynamic` declares of them; None if all do."""
        if isinstance(self.dynamic, str):
            if self.dynamic not in ("all", "none"):
                raise TraceError(f"dynamic={self.dynamic!r}", "known are 'all', 'none' and a mapping from arguments to dimensions", "use one of these")
            return None if self.dynamic == "all" else {}
        return chosen_dims(self.dynamic, dict.fromkeys((text, name)), rank, strict=not self.taken_apart)


def _with_fill(argument: Any) -> Any:
    """An argument, with the value that is not stored where that is not zero."""
    form = argument.type.format if isinstance(argument, Array) else None
    return argument if form is None or form.fill_value == 0 else filled.FilledArray(argument, form.fill_value)


def _rows(text: str, value: Any, rows: Mapping[str, tuple[int, ...]]) -> str:
    """`InputSlot.rows` of the argument called `text`."""
    if text not in rows:
        return ""
    return "scipy" if interop.storage_in(value) is None else "storage"


def _python_type(value: Any) -> type:
    return next(t for t in (bool, int, float, complex) if isinstance(value, t))

