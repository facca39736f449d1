"""The meaning of a tensor program, computed with NumPy: the oracle that every later stage is compared with.

f16 and bf16 are stored types: arithmetic on them is done in f32. Reductions accumulate in their own dtype, in no particular
order. An element that a sparse tensor does not store is a structural zero (see `support`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, assert_never

import numpy as np

from polyai.errors import IndexOutOfRangeError, ShapeError, VerifyError
from polyai.scalar.dtype import compute_type, to_numpy
from polyai.scalar.expr import Apply, Const, Var
from polyai.scalar.ops import MONOIDS
from polyai.shapes.expr import Size, Sym, symbols
from polyai.shapes.expr import evaluate as evaluate_size
from polyai.shapes.expr import show as show_size
from polyai.tensor.bodies import left_out, loads, reduces
from polyai.tensor.evaluate import Array, Evaluator, Grid, SparseValue, Stored, Tensor, append_axes, combiner, grid_cost
from polyai.tensor.nodes import (
    Body,
    Comprehension,
    Cond,
    Extern,
    Join,
    Listing,
    Program,
    Scatter,
    Select,
    Spread,
    Step,
    TensorType,
    While,
    lies_along,
    nnz_of,
    types_of,
)

__all__ = ["Externs", "SparseValue", "bind_sizes", "run"]

Externs = Mapping[str, Callable[..., Any]]

_POINTS_AT_ONCE = 1 << 22


def _gemm(a: Array, b: Array, op_a: int, op_b: int) -> Array:
    return np.asarray((a.T if op_a else a) @ (b.T if op_b else b))


LIBRARY: Externs = {"blas.sgemm": _gemm, "blas.dgemm": _gemm}
"""What the library functions mean that passes call; `externs` of `run` are looked up first."""


def run(
    program: Program,
    arguments: Mapping[str, Any],
    sizes: Mapping[str, int] | None = None,
    externs: Externs | None = None,
) -> dict[str, Any]:
    """The outputs of `program` by name: NumPy arrays, and `SparseValue` for sparse outputs.

    `arguments`: an array for each dense input, a SparseValue for each sparse one. Sizes are bound from their shapes;
    `sizes` gives those that no shape does. Raises ShapeError, and IndexOutOfRangeError for a gather or scatter outside its array.
    """
    tensors: dict[str, Tensor] = {}
    for given in program.inputs:
        value = arguments[given.name]
        if isinstance(value, SparseValue):
            tensors[given.name] = Stored(value)
        else:
            tensors[given.name] = np.asarray(value, to_numpy(given.type.dtype))
    bound = bind_sizes(program, {n: _shape(t) for n, t in tensors.items()}, sizes or {})
    for name, tensor in tensors.items():
        if isinstance(tensor, Stored):
            bound[nnz_of(name)] = tensor.value.nnz
    machine = _Machine(program, tensors, bound, {**LIBRARY, **(externs or {})})
    for step in program.body:
        machine.step(step)
    return {name: _result(tensors[name]) for name in program.outputs}


def _shape(tensor: Tensor) -> tuple[int, ...]:
    return tensor.value.shape if isinstance(tensor, Stored) else tensor.shape


def _result(tensor: Tensor) -> Any:
    return tensor.value if isinstance(tensor, Stored) else tensor


def bind_sizes(program: Program, shapes: Mapping[str, tuple[int, ...]], sizes: Mapping[str, int]) -> dict[str, int]:
    """The value of every symbol, from the shapes of the arguments. Raises ShapeError where two do not agree."""
    bound: dict[str, int] = {}
    pairs: list[tuple[str, int, Size, int]] = []
    for given in program.inputs:
        shape = shapes[given.name]
        if len(shape) != given.type.rank:
            raise ShapeError(f"{given.name} has rank {len(shape)}", f"the program takes rank {given.type.rank}")
        pairs += [(given.name, d, *pair) for d, pair in enumerate(zip(given.type.shape, shape))]
    for _, _, declared, actual in pairs:
        if not isinstance(declared, int) and len(declared.terms) == 1:
            (monomial, factor), *_ = declared.terms
            if factor == 1 and len(monomial) == 1 and isinstance(monomial[0], Sym):
                bound.setdefault(monomial[0].name, actual)
    bound = {**sizes, **bound}
    for name, d, declared, actual in pairs:
        if symbols(declared) <= set(bound) and evaluate_size(declared, bound) != actual:
            raise ShapeError(
                f"dimension {d} of {name} is {actual}",
                f"it is declared as {show_size(declared)} = {evaluate_size(declared, bound)}",
            )
    return bound


class _Machine:
    """The tensors and sizes of one run, and what each step does to them."""

    def __init__(self, program: Program, tensors: dict[str, Tensor], sizes: dict[str, int], externs: Externs) -> None:
        self.program, self.tensors, self.sizes, self.externs = program, tensors, sizes, externs
        self.types = types_of(program)
        self.evaluator = Evaluator(tensors, sizes)

    def step(self, step: Step) -> None:
        match step:
            case Comprehension():
                self._comprehension(step)
            case Scatter():
                if lies_along(step):
                    self._scatter_along(step)
                elif step.base is None:
                    self._sparse_scatter(step)
                else:
                    self._scatter(step)
            case Join():
                self._join(step)
            case Select():
                self._select(step)
            case Spread():
                self._spread(step)
            case Listing():
                self._listing(step)
            case Extern():
                given = [_result(self.tensors[a]) for a in step.args]
                out = self.externs[step.function](*given, **dict(step.attributes))
                self._define(step.targets, step.types, out if isinstance(out, (tuple, list)) else (out,))
            case Cond():
                region = step.then if bool(_result(self.tensors[step.predicate])) else step.orelse
                self._define(step.targets, step.types, self._region(region, [_result(self.tensors[a]) for a in step.args]))
            case While():
                state = [_result(self.tensors[a]) for a in step.init]
                args = [_result(self.tensors[a]) for a in step.args]
                while bool(self._region(step.condition, state + args)[0]):
                    state = self._region(step.body, state + args)
                self._define(step.targets, step.types, state)
            case _:
                assert_never(step)

    def _define(self, names: tuple[str, ...], types: tuple[TensorType, ...], values: Any) -> None:
        for name, type, value in zip(names, types, values):
            self.tensors[name] = Stored(value) if isinstance(value, SparseValue) else np.asarray(value, to_numpy(type.dtype))

    def _region(self, region: Program, values: list[Any]) -> list[Any]:
        out = run(region, {i.name: v for i, v in zip(region.inputs, values)}, self.sizes, self.externs)
        return [out[n] for n in region.outputs]

    # --- comprehensions ---

    def _comprehension(self, step: Comprehension) -> None:
        if step.type.pattern is not None:
            self._stored_comprehension(step)
            return
        extents = [self.evaluator.extent(i) for i in step.indices]
        out = np.zeros(tuple(extents), to_numpy(step.type.dtype))
        depth = _sequential_depth(step)
        if depth:
            self.tensors[step.target] = out
            self._recurrence(step, extents, depth, out)
        elif not extents:
            out[()] = self.evaluator.full(step.body, Grid((), {}))
        else:
            cost = math.prod(extents[1:]) * self._cost(step.body)
            for begin, end in _chunks(extents[0], cost):
                grid = append_axes(Grid((), {}), step.indices, extents)
                first = np.arange(begin, end, dtype=np.int64).reshape((-1,) + (1,) * (len(extents) - 1))
                grid = Grid((end - begin, *extents[1:]), {**grid.vars, step.indices[0].name: first})
                self._store(out[begin:end], self.evaluator.full(step.body, grid))
        self.tensors[step.target] = out

    def _recurrence(self, step: Comprehension, extents: list[int], depth: int, out: Array) -> None:
        rest = step.indices[depth:]
        for at in np.ndindex(*extents[:depth]):
            fixed = {i.name: np.asarray(n, np.int64).reshape(()) for i, n in zip(step.indices, at)}
            grid = append_axes(Grid((), fixed), rest, extents[depth:])
            out[at] = self.evaluator.full(step.body, grid).astype(out.dtype)

    def _stored_comprehension(self, step: Comprehension) -> None:
        assert step.type.pattern is not None
        owner = self.tensors[step.type.pattern.owner]
        assert isinstance(owner, Stored)
        coords = tuple(owner.value.coords[d].astype(np.int64) for d in step.type.pattern.dims)
        shape = tuple(owner.value.shape[d] for d in step.type.pattern.dims)
        values = np.zeros(owner.value.nnz, to_numpy(step.type.dtype))
        target = Stored(SparseValue(coords, values, shape))
        if any(load.array == step.target for load in loads(step.body)):
            self.tensors[step.target] = target
            order = np.lexsort(coords[::-1])
            spans = [order[n : n + 1] for n in range(len(order))]
        else:
            spans = [np.arange(b, e) for b, e in _chunks(owner.value.nnz, self._cost(step.body))]
        for span in spans:
            grid = Grid((len(span),), {i.name: c[span] for i, c in zip(step.indices, coords)})
            with np.errstate(all="ignore"):
                values[span] = self.evaluator.full(step.body, grid).astype(values.dtype)
        self.tensors[step.target] = target

    def _store(self, place: Array, data: Array) -> None:
        with np.errstate(all="ignore"):
            place[...] = data.astype(place.dtype)

    def _cost(self, body: Body) -> int:
        extents = {i.name: self.evaluator.extent(i) for r in reduces(body) for i in r.over}
        fibres = {n: max(1, t.value.nnz // max(t.value.shape[0], 1)) for n, t in self.tensors.items() if isinstance(t, Stored)}
        return grid_cost(body, extents, fibres)

    # --- scatter ---

    def _scatter(self, step: Scatter) -> None:
        assert step.base is not None
        base = self.tensors[step.base]
        assert not isinstance(base, Stored)
        out = base.astype(to_numpy(compute_type(step.type.dtype)) if step.monoid else base.dtype, copy=True)
        grid, at, data = self._points(step, out.shape)
        if len(data):
            keys = tuple(np.broadcast_to(grid.vars[i.name], grid.shape).reshape(-1) for i in reversed(step.indices))
            order = np.lexsort(keys) if keys else np.arange(len(data))
            place = np.ravel_multi_index(at, out.shape) if at else np.zeros(len(data), np.int64)
            self._update(out.reshape(-1), place[order], data[order], step.monoid)
        with np.errstate(all="ignore"):
            self.tensors[step.target] = out.astype(to_numpy(step.type.dtype))

    def _points(self, step: Scatter, shape: tuple[int, ...]) -> tuple[Grid, tuple[Array, ...], Array]:
        """What a scatter runs over: its points, where each goes, and its value there."""
        points, _ = self.evaluator.expand(Grid((1,), {}), step.within)
        left = tuple(i for i in step.indices if i.name not in points.vars)
        grid = append_axes(points, left, [self.evaluator.extent(i) for i in left])
        data = self.evaluator.full(step.body, grid).reshape(-1)
        at = tuple(self.evaluator.full(a, grid).reshape(-1).astype(np.int64) for a in step.at)
        if step.base is None and any(left_out(a)[1] is not None for a in step.at):
            touched = np.logical_and.reduce([a != -1 for a in at])
            at, data = tuple(a[touched] for a in at), data[touched]
        for d, (index, extent) in enumerate(zip(at, shape)):
            if ((index < 0) | (index >= extent)).any():
                worst = index[(index < 0) | (index >= extent)][0]
                raise IndexOutOfRangeError(
                    f"{step.target} is scattered outside its range",
                    f"index {worst} of dimension {d}, whose extent is {extent}",
                    "check the indices that say where to write",
                )
        return grid, at, data

    def _sparse_scatter(self, step: Scatter) -> None:
        """The coordinates that are touched, sorted, each with its values combined."""
        shape = tuple(evaluate_size(s, self.sizes) for s in step.type.shape)
        _, at, data = self._points(step, shape)
        places, where = np.unique(_flat(at, shape, len(data)), return_inverse=True)
        compute = to_numpy(compute_type(step.type.dtype))
        monoid = step.monoid or "add"
        if step.monoid is None and not step.grouped and len(places) != len(data):
            raise VerifyError(f"{step.target} touches a coordinate twice", "nothing says how to combine what meets there")
        out = np.full(len(places), MONOIDS[monoid].identity(step.type.dtype), compute)
        self._update(out, where, data.astype(compute), monoid)
        values = out.astype(to_numpy(step.type.dtype))
        self._own(step.target, *_whole_blocks(step, places, values, shape), shape)
        assert step.type.format is not None
        self.sizes[nnz_of(step.target)] //= math.prod([shape[d] for d in step.type.format.order[len(shape) - step.type.format.tail :]]) or 1
        for wanted in step.requires:
            if not wanted.holds(self.sizes):
                raise ShapeError(f"{wanted.text} does not hold", wanted.why_not(self.sizes))

    def _scatter_along(self, step: Scatter) -> None:
        """The values that points combine at the coordinates of a pattern that is there."""
        assert step.type.pattern is not None and step.monoid is not None
        owner = self.tensors[step.type.pattern.owner]
        assert isinstance(owner, Stored)
        coords = tuple(owner.value.coords[d].astype(np.int64) for d in step.type.pattern.dims)
        shape = tuple(evaluate_size(s, self.sizes) for s in step.type.shape)
        _, at, data = self._points(step, shape)
        stored, places = _flat(coords, shape, owner.value.nnz), _flat(at, shape, len(data))
        order = np.argsort(stored)
        where = order[np.searchsorted(stored, places, sorter=order)] if len(data) else places
        if (stored[where] != places).any():
            raise VerifyError(f"{step.target} touches what {step.type.pattern.owner} does not store", "nothing says where that goes")
        compute = to_numpy(compute_type(step.type.dtype))
        out = np.full(len(stored), MONOIDS[step.monoid].identity(step.type.dtype), compute)
        self._update(out, where, data.astype(compute), step.monoid)
        self.tensors[step.target] = Stored(SparseValue(coords, out.astype(to_numpy(step.type.dtype)), shape))

    def _join(self, step: Join) -> None:
        """The coordinates that every clause has, sorted."""
        shape = tuple(evaluate_size(s, self.sizes) for s in step.type.shape)
        found: Array | None = None
        for clause in step.clauses:
            parts = []
            for within in clause:
                owner = self.tensors[within.tensor]
                assert isinstance(owner, Stored)
                order = [within.indices.index(i.name) for i in step.indices]
                parts.append(_flat(tuple(owner.value.coords[d].astype(np.int64) for d in order), shape, owner.value.nnz))
            stored = np.unique(np.concatenate(parts))
            found = stored if found is None else np.intersect1d(found, stored, assume_unique=True)
        assert found is not None
        self._own(step.target, found, np.ones(len(found), to_numpy(step.type.dtype)), shape)

    def _select(self, step: Select) -> None:
        """One coordinate below each combination of the others."""
        above, last = step.indices[:-1], step.indices[-1]
        extents, limit = [self.evaluator.extent(i) for i in above], self.evaluator.extent(last)
        grid = append_axes(Grid((), {}), above, extents)
        chosen = self.evaluator.full(step.at, grid).reshape(-1).astype(np.int64)
        outside = chosen[(chosen < 0) | (chosen >= limit)]
        if len(outside):
            raise IndexOutOfRangeError(f"{step.target} selects outside its range", f"index {outside[0]}, whose extent is {limit}", "check the indices")
        places = np.arange(len(chosen)) * limit + chosen
        self._own(step.target, places, np.ones(len(chosen), bool), (*extents, limit))

    def _spread(self, step: Spread) -> None:
        """Consecutive runs, one below each value of the first index."""
        above = step.indices[0]
        extent = self.evaluator.extent(above)
        lengths = self.evaluator.full(step.length, append_axes(Grid((), {}), (above,), [extent])).reshape(-1).astype(np.int64)
        if (lengths < 0).any():
            raise ShapeError(f"{step.target} has a run of {lengths.min()} elements", "a count is not negative")
        total = int(lengths.sum())
        rows = np.repeat(np.arange(extent), lengths)
        self.tensors[step.target] = Stored(SparseValue((rows, np.arange(total)), np.ones(total, bool), (extent, total)))
        self.sizes[nnz_of(step.target)] = total

    def _listing(self, step: Listing) -> None:
        """Values in the order in which their pattern is stored; what the program assembles is sorted."""
        tensor = self.tensors[step.of]
        assert isinstance(tensor, Stored)
        pattern = self.types[step.of].pattern
        assert pattern is not None
        values, form = tensor.value.values, self.types[pattern.owner].format
        if form is not None and pattern.owner not in {i.name for i in self.program.inputs}:
            stored = [tensor.value.coords[pattern.dims.index(d)] for d in form.order]
            values = values[np.lexsort(stored[::-1])]
        self.tensors[step.target] = np.asarray(values, to_numpy(step.type.dtype))

    def _own(self, target: str, places: Array, values: Array, shape: tuple[int, ...]) -> None:
        coords = tuple(np.unravel_index(places, shape)) if len(places) else tuple(np.zeros(0, np.int64) for _ in shape)
        self.tensors[target] = Stored(SparseValue(coords, values, shape))
        self.sizes[nnz_of(target)] = len(values)

    def _update(self, out: Array, place: Array, data: Array, monoid: str | None) -> None:
        with np.errstate(all="ignore"):
            if monoid is not None:
                combiner(monoid).at(out, place, data)
                return
            # NumPy leaves the order of writes to one place open, so keep only the last of each
            _, last = np.unique(place[::-1], return_index=True)
            kept = len(place) - 1 - last
            out[place[kept]] = data[kept].astype(out.dtype)


def _whole_blocks(step: Scatter, places: Array, values: Array, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """The places of all elements of the dense blocks that hold some of `places`, and their values."""
    form = step.type.format
    assert form is not None
    if not form.tail or not len(places):
        return places, values
    listed, inner = form.order[: len(shape) - form.tail], form.order[len(shape) - form.tail :]
    coords = np.unravel_index(places, shape)
    blocks = np.unique(np.stack([coords[d] for d in listed]), axis=1)
    grid = np.indices([shape[d] for d in inner]).reshape(form.tail, -1)
    whole = [np.zeros(0, np.int64)] * len(shape)
    for d, c in zip(listed, blocks):
        whole[d] = np.repeat(c, grid.shape[1])
    for d, c in zip(inner, grid):
        whole[d] = np.tile(c, blocks.shape[1])
    everything = np.unique(np.ravel_multi_index(tuple(whole), shape))
    out = np.zeros(len(everything), values.dtype)
    out[np.searchsorted(everything, places)] = values
    return everything, out


def _flat(at: tuple[Array, ...], shape: tuple[int, ...], count: int) -> Array:
    """One number per coordinate tuple, in lexicographic order."""
    return np.ravel_multi_index(at, shape).astype(np.int64) if count else np.zeros(0, np.int64)


def _chunks(count: int, cost: int) -> list[tuple[int, int]]:
    width = max(1, _POINTS_AT_ONCE // max(cost, 1))
    return [(b, min(b + width, count)) for b in range(0, count, width)]


def _sequential_depth(step: Comprehension) -> int:
    """How many leading indices a recurrence must run over one by one; 0 if the step does not read itself."""
    depth = 0
    for load in loads(step.body):
        if load.array != step.target:
            continue
        here = len(step.indices)
        for d, (index, at) in enumerate(zip(step.indices, load.indices)):
            if at == Var(index.name, at.dtype):
                continue
            if _is_earlier(index.name, at):
                here = d + 1
            break
        depth = max(depth, here)
    return depth


def _is_earlier(index: str, at: Body) -> bool:
    match at:
        case Apply("sub", (Var(name), Const(value))):
            return name == index and not isinstance(value, complex) and value > 0
        case Apply("add", (Var(name), Const(value))) | Apply("add", (Const(value), Var(name))):
            return name == index and not isinstance(value, complex) and value < 0
        case _:
            return False
