"""Bodies evaluated with NumPy over whole grids of points: the engine of the tensor interpreter.

A grid is a shape and, for each index variable, an array that broadcasts to it. A reduction over dense indices appends axes;
one restricted by `within` flattens the axes it depends on and expands each point into the stored coordinates below it, so
that work is proportional to what is stored. `active` marks the points that count: a lazy `where` switches points off, and
an index out of range is an error only at an active point.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, assert_never

import numpy as np

from polyai.errors import IndexOutOfRangeError
from polyai.scalar.dtype import compute_type, to_numpy
from polyai.scalar.expr import Apply, Cast, Const, Load, Var
from polyai.scalar.ops import MONOIDS, OPS
from polyai.shapes.expr import evaluate as evaluate_size
from polyai.tensor.nodes import Body, Index, Reduce, Within
from polyai.tensor.show import show_body
from polyai.tensor.support import zero_rule

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class SparseValue:
    """A sparse tensor by coordinates: one integer array per dimension, one value per stored element, unique, in any order."""

    coords: tuple[Array, ...]
    values: Array
    shape: tuple[int, ...]

    @property
    def nnz(self) -> int:
        """The number of stored elements."""
        return len(self.values)

    def todense(self) -> Array:
        """The same numbers, with the zeros."""
        out = np.zeros(self.shape, self.values.dtype)
        out[self.coords] = self.values
        return out


@dataclass
class Stored:
    """A sparse tensor while the program runs, with its coordinates grouped by some of their dimensions on demand."""

    value: SparseValue
    _groups: dict[tuple[int, ...], tuple[Array, Array]] = field(default_factory=dict)

    def grouped(self, dims: tuple[int, ...]) -> tuple[Array, Array]:
        """Order that sorts the elements by `dims` (the others as stored), and their keys in that order."""
        if dims not in self._groups:
            keys = self.keys(dims, tuple(self.value.coords[d] for d in dims))
            order = np.argsort(keys, kind="stable")
            self._groups[dims] = order, keys[order]
        return self._groups[dims]

    def keys(self, dims: tuple[int, ...], coords: tuple[Array, ...]) -> Array:
        """One number per coordinate tuple over `dims`."""
        out: Array = np.zeros((self.value.nnz,) if not coords else np.broadcast_shapes(*(c.shape for c in coords)), np.int64)
        for d, c in zip(dims, coords):
            out = out * max(self.value.shape[d], 1) + c
        return out


Tensor = Array | Stored


@dataclass(frozen=True)
class Grid:
    """Points: `shape`, the index variables over it, and which points count (None: all)."""

    shape: tuple[int, ...]
    vars: Mapping[str, Array]
    active: Array | None = None

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Value:
    """Numbers that broadcast to the grid; `zero` marks structural zeros (None: there is none)."""

    data: Array
    zero: Array | None = None


class Evaluator:
    """Evaluates bodies against the tensors and sizes of one run."""

    def __init__(self, tensors: Mapping[str, Tensor], sizes: Mapping[str, int]) -> None:
        self.tensors, self.sizes = tensors, sizes

    def extent(self, index: Index) -> int:
        """The number of values of an index variable."""
        return evaluate_size(index.extent, self.sizes)

    def full(self, body: Body, grid: Grid) -> Array:
        """The values of `body` at every point of the grid."""
        return np.broadcast_to(self.value(body, grid).data, grid.shape)

    def value(self, body: Body, grid: Grid) -> Value:
        """The values of `body`; they broadcast to the grid's shape."""
        if grid.size == 0:
            return Value(np.zeros(grid.shape, to_numpy(compute_type(body.dtype))))
        match body:
            case Const(number, dtype):
                return Value(np.asarray(number, to_numpy(compute_type(dtype))))
            case Var(name):
                return Value(grid.vars[name] if name in grid.vars else np.asarray(self.sizes[name], np.int64))
            case Load():
                return self._load(body, grid)
            case Cast(arg, dtype):
                given = self.value(arg, grid)
                with np.errstate(all="ignore"):
                    stored = _component(given.data, dtype.is_complex).astype(to_numpy(dtype))
                    return Value(stored.astype(to_numpy(compute_type(dtype))), given.zero)
            case Apply("where", (condition, yes, no)):
                return self._where(condition, yes, no, grid)
            case Apply():
                return self._apply(body, grid)
            case Reduce():
                return Value(self._reduce_within(body, grid) if body.within else self._reduce(body, grid))
            case _:
                assert_never(body)

    # --- accesses ---

    def _load(self, body: Load, grid: Grid) -> Value:
        tensor = self.tensors[body.array]
        shape = tensor.value.shape if isinstance(tensor, Stored) else tensor.shape
        at = [self.value(i, grid).data.astype(np.int64, copy=False) for i in body.indices]
        compute = to_numpy(compute_type(body.dtype))
        inside = [self._in_range(body, d, index, extent, grid) for d, (index, extent) in enumerate(zip(at, shape))]
        if 0 in shape:
            return Value(np.zeros((1,) * len(grid.shape), compute))
        if not isinstance(tensor, Stored):
            return Value(np.asarray(tensor[tuple(inside)]).astype(compute, copy=False))
        dims = tuple(range(len(shape)))
        order, keys = tensor.grouped(dims)
        wanted = tensor.keys(dims, tuple(inside))
        if not len(keys):
            return Value(np.zeros(wanted.shape, compute), np.ones(wanted.shape, bool))
        place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        found = keys[place] == wanted
        data = np.where(found, tensor.value.values[order[place]].astype(compute), compute.type(0))
        return Value(data, ~found)

    def _in_range(self, body: Load, dimension: int, index: Array, extent: int, grid: Grid) -> Array:
        bad = (index < 0) | (index >= extent)
        if not bad.any():
            return index
        counted = np.broadcast_to(bad if grid.active is None else bad & grid.active, grid.shape)
        if counted.any():
            worst = np.broadcast_to(index, grid.shape)[counted].flat[0]
            raise IndexOutOfRangeError(
                f"{show_body(body)} reads outside {body.array}",
                f"index {worst} of dimension {dimension}, whose extent is {extent}",
                "check the indices, or guard the access by where",
            )
        return np.clip(index, 0, max(extent - 1, 0))

    # --- operations ---

    def _where(self, condition: Body, yes: Body, no: Body, grid: Grid) -> Value:
        c = self.value(condition, grid).data.astype(bool)
        taken, other = (m if grid.active is None else m & grid.active for m in (c, ~c))
        a = self.value(yes, Grid(grid.shape, grid.vars, taken))
        b = self.value(no, Grid(grid.shape, grid.vars, other))
        zero = None
        if a.zero is not None or b.zero is not None:
            zero = np.where(c, _mask(a), _mask(b))
        return Value(np.where(c, a.data, b.data), zero)

    def _apply(self, body: Apply, grid: Grid) -> Value:
        args = [self.value(a, grid) for a in body.args]
        with np.errstate(all="ignore"):
            data = np.asarray(OPS[body.op].meaning(*(a.data for a in args)))
            data = data.astype(to_numpy(compute_type(body.dtype)), copy=False)
        if all(a.zero is None for a in args):
            return Value(data)
        rule = zero_rule(body)
        masks = [_mask(args[n]) for n in rule.args]
        if rule.how == "never" or not masks:
            return Value(data)
        combine = np.logical_or if rule.how == "any" else np.logical_and
        zero = masks[0]
        for mask in masks[1:]:
            zero = combine(zero, mask)
        return Value(np.where(zero, data.dtype.type(0), data), zero)

    # --- reductions ---

    def _reduce(self, body: Reduce, grid: Grid) -> Array:
        inner = append_axes(grid, body.over, [self.extent(i) for i in body.over])
        axes = tuple(range(len(grid.shape), len(inner.shape)))
        return combine_axes(body, self.full(body.body, inner), axes)

    def _reduce_within(self, body: Reduce, grid: Grid) -> Array:
        rank = len(grid.shape)
        outer = {v for w in body.within for v in w.indices} & set(grid.vars)
        keys = [a for a in range(rank) if any(grid.vars[v].shape[a] > 1 for v in outer)]
        rest = [a for a in range(rank) if a not in keys]
        count, tail = math.prod(grid.shape[a] for a in keys), tuple(grid.shape[a] for a in rest)

        def flat(array: Array) -> Array:
            moved = array.transpose(keys + rest)
            head = tuple(grid.shape[a] for a in keys) if any(n > 1 for n in moved.shape[: len(keys)]) else (1,) * len(keys)
            moved = np.broadcast_to(moved, head + moved.shape[len(keys) :])
            return moved.reshape((math.prod(head), *moved.shape[len(keys) :]))

        points = Grid(
            (count, *tail),
            {n: flat(a) for n, a in grid.vars.items()},
            None if grid.active is None else flat(_at_rank(grid.active, rank)),
        )
        points, source = self.expand(points, body.within)
        left = tuple(i for i in body.over if i.name not in points.vars)
        inner = append_axes(points, left, [self.extent(i) for i in left])
        data = self.full(body.body, inner)
        data = combine_axes(body, data, tuple(range(1 + len(tail), len(inner.shape))))
        out = np.full((count, *tail), MONOIDS[body.monoid].identity(body.dtype), data.dtype)
        if len(source) and data.size:
            starts = np.flatnonzero(np.r_[True, source[1:] != source[:-1]])
            with np.errstate(all="ignore"):
                out[source[starts]] = combiner(body.monoid).reduceat(data, starts, axis=0, dtype=data.dtype)
        shaped = out.reshape(tuple(grid.shape[a] for a in keys) + tail)
        return shaped.transpose(np.argsort(keys + rest))

    def expand(self, points: Grid, withins: tuple[Within, ...]) -> tuple[Grid, Array]:
        """Points (along axis 0) joined with the stored coordinates that agree with them; and where each came from."""
        source = np.arange(points.shape[0])
        for within in withins:
            tensor = self.tensors[within.tensor]
            assert isinstance(tensor, Stored)
            known = tuple(d for d, v in enumerate(within.indices) if v in points.vars)
            order, keys = tensor.grouped(known)
            here = np.broadcast_to(
                tensor.keys(known, tuple(points.vars[within.indices[d]].reshape(-1) for d in known)) if known else np.zeros(1, np.int64),
                (points.shape[0],),
            )
            begin, end = np.searchsorted(keys, here, "left"), np.searchsorted(keys, here, "right")
            counts = end - begin
            take = np.repeat(np.arange(points.shape[0]), counts)
            element = order[np.arange(len(take)) - np.repeat(np.cumsum(counts) - counts, counts) + begin[take]]
            ones = (1,) * (len(points.shape) - 1)
            vars = {n: a if a.shape[0] == 1 and points.shape[0] != 1 else a[take] for n, a in points.vars.items()}
            for d, v in enumerate(within.indices):
                if d not in known:
                    vars[v] = tensor.value.coords[d][element].astype(np.int64).reshape((-1, *ones))
            active = points.active
            if active is not None and (active.shape[0] != 1 or points.shape[0] == 1):
                active = active[take]
            points = Grid((len(take), *points.shape[1:]), vars, active)
            source = source[take]
        return points, source


def append_axes(grid: Grid, indices: tuple[Index, ...], extents: list[int]) -> Grid:
    """The grid with one more axis for each index."""
    more = len(indices)
    vars = {n: a.reshape(a.shape + (1,) * more) for n, a in grid.vars.items()}
    rank = len(grid.shape) + more
    for n, (index, extent) in enumerate(zip(indices, extents)):
        axis = len(grid.shape) + n
        vars[index.name] = np.arange(extent, dtype=np.int64).reshape(tuple(extent if a == axis else 1 for a in range(rank)))
    active = None if grid.active is None else _at_rank(grid.active, len(grid.shape)).reshape(
        _at_rank(grid.active, len(grid.shape)).shape + (1,) * more
    )
    return Grid((*grid.shape, *extents), vars, active)


def combine_axes(body: Reduce, data: Array, axes: tuple[int, ...]) -> Array:
    """`data` in the accumulator's type, combined over `axes`."""
    compute = to_numpy(compute_type(body.dtype))
    with np.errstate(all="ignore"):
        data = data.astype(compute, copy=False)
        if not axes:
            return data
        initial = compute.type(MONOIDS[body.monoid].identity(body.dtype))
        return np.asarray(combiner(body.monoid).reduce(data, axis=axes, initial=initial, dtype=compute))


_UFUNCS: dict[str, np.ufunc] = {
    "add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum, "or": np.logical_or, "and": np.logical_and,
}  # fmt: skip


def combiner(monoid: str) -> np.ufunc:
    """The NumPy function of a monoid."""
    return _UFUNCS[monoid]


def _mask(value: Value) -> Array:
    return np.zeros((), bool) if value.zero is None else value.zero


def _at_rank(array: Array, rank: int) -> Array:
    return array.reshape((1,) * (rank - array.ndim) + array.shape)


def _component(data: Array, to_complex: bool) -> Array:
    return np.real(data) if np.iscomplexobj(data) and not to_complex else data


def grid_cost(body: Body, extents: Mapping[str, int], fibres: Mapping[str, int]) -> int:
    """About how many points one point of the grid around `body` becomes inside its reductions."""
    match body:
        case Reduce():
            inside = grid_cost(body.body, extents, fibres)
            covered = {v for w in body.within for v in w.indices}
            for w in body.within:
                inside *= fibres.get(w.tensor, 1)
            return inside * math.prod(extents[i.name] for i in body.over if i.name not in covered)
        case Load(_, parts) | Apply(_, parts):
            return max((grid_cost(p, extents, fibres) for p in parts), default=1)
        case Cast(arg):
            return grid_cost(arg, extents, fibres)
        case _:
            return 1
