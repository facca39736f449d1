"""What a step costs: operations and bytes, counted over what is stored and never over the hull.

Sizes are numbers by symbol, as typical as the caller can make them; a size without a number counts as `TYPICAL`, and a
sparse tensor without one as storing `ROW` elements per row.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from polyai.scalar.expr import Apply, Cast, Load, Var
from polyai.shapes.expr import Size, evaluate, symbols
from polyai.tensor.bodies import owner_within
from polyai.tensor.nodes import Body, Comprehension, Index, Reduce, Scatter, Step, TensorType, Within, is_select, nnz_of
from polyai.term.node import node

TYPICAL, ROW = 1024, 16
_DEAR = {
    "div": 4, "floordiv": 8, "mod": 8, "sqrt": 4, "reciprocal": 4, "pow": 30, "arctan2": 30,
    **dict.fromkeys(("exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "tanh", "erf", "sinh", "cosh"), 12),
    **dict.fromkeys(("sin", "cos", "tan", "arcsin", "arccos", "arctan", "arcsinh", "arccosh", "arctanh"), 20),
}  # fmt: skip
"""Operations that cost more than one."""

Types = Mapping[str, TensorType]
Sizes = Mapping[str, int]


@node
class Counter:
    """Numbers of points and elements for given types and sizes."""

    types: Types
    sizes: Sizes

    def extent(self, size: Size) -> int:
        """A size as a number, at least 1."""
        unknown = {s: TYPICAL for s in symbols(size) if s not in self.sizes}
        return max(1, evaluate(size, {**unknown, **self.sizes}))

    def stored(self, tensor: str) -> int:
        """How many elements a tensor has in memory."""
        type = self.types[tensor]
        if type.pattern is None:
            return math.prod(self.extent(s) for s in type.shape)
        owner = type.pattern.owner
        given = self.sizes.get(nnz_of(owner))
        shape = self.types[owner].shape
        if is_select(self.types[owner]):
            return math.prod(self.extent(s) for s in shape[:-1])
        if given is not None:
            given *= self._inside(self.types[owner])
        return max(1, given) if given is not None else min(self.extent(shape[0]) * ROW, math.prod(self.extent(s) for s in shape))

    def _inside(self, owner: TensorType) -> int:
        """Elements below each position that the count of stored ones counts: of a block, all."""
        if owner.format is None:
            return 1
        extents = owner.format.level_extents(owner.shape)
        listed = [n for n, level in enumerate(owner.format.levels) if not level.full]
        return math.prod(self.extent(e) for e in extents[1 + max(listed, default=-1) :]) if listed else 1

    def points(self, indices: Iterable[Index], within: Iterable[Within]) -> float:
        """Points of the given index variables that are stored as `within` says.

        A second `within` that shares variables with the first is counted by its average fibre under them.
        """
        extents = {i.name: self.extent(i.extent) for i in indices}
        total = float(math.prod(extents.values()))
        for w in dict.fromkeys(owner_within(w, self.types) for w in within):
            hull = math.prod(extents.get(v, self._dimension(w, v)) for v in w.indices)
            total *= self.stored(w.tensor) / hull
        return max(total, 1.0)

    def _dimension(self, within: Within, variable: str) -> int:
        return self.extent(self.types[within.tensor].shape[within.indices.index(variable)])

    def operations(self, body: Body) -> float:
        """Operations for one value of `body`; index arithmetic is free."""
        match body:
            case Apply(op, args):
                return _DEAR.get(op, 1) + sum(self.operations(a) for a in args)
            case Cast(arg):
                return self.operations(arg)
            case Reduce():
                return self.points(body.over, body.within) * (1 + self.operations(body.body))
            case _:
                return 0.0


def flops(step: Step, types: Types, sizes: Sizes) -> float:
    """Operations of a step. 0 for control flow and library calls, whose cost their callees know."""
    if not isinstance(step, (Comprehension, Scatter)):
        return 0.0
    count = Counter(types, sizes)
    if isinstance(step.body, Reduce):
        inside = step.body
        return count.points(step.indices + inside.over, step.within + inside.within) * (1 + count.operations(inside.body))
    return count.points(step.indices, step.within) * (count.operations(step.body) + isinstance(step, Scatter))


def bytes_moved(step: Step, types: Types, sizes: Sizes) -> float:
    """Bytes that must be read and written once each, index arrays included; a gather reads at most what it has points for."""
    if not isinstance(step, (Comprehension, Scatter)):
        return 0.0
    count = Counter(types, sizes)
    seen = {**types, step.target: step.type}
    over = step.body.over if isinstance(step.body, Reduce) else ()
    withins = step.within + (step.body.within if isinstance(step.body, Reduce) else ())
    points = count.points(step.indices + over, withins)
    out = 0.0
    for array in _arrays(step):
        out += min(float(Counter(seen, sizes).stored(array)), points) * seen[array].dtype.bytes
    for owner in {owner_within(w, types).tensor for w in withins}:
        format = types[owner].format
        out += count.stored(owner) * (format.index_bits // 8 if format is not None else 4)
    written = Counter(seen, sizes).stored(step.target)
    return out + written * step.type.dtype.bytes * (2 if isinstance(step, Scatter) else 1)


def _arrays(step: Comprehension | Scatter) -> set[str]:
    from_bodies = (step.body, *(step.at if isinstance(step, Scatter) else ()))
    return {array for body in from_bodies for array in _loaded(body)} - {step.target}


def _loaded(body: Body) -> set[str]:
    match body:
        case Load(array, indices):
            return {array}.union(*(_loaded(i) for i in indices))
        case Apply(_, args):
            return set().union(*(_loaded(a) for a in args))
        case Cast(arg):
            return _loaded(arg)
        case Reduce():
            return _loaded(body.body)
        case _:
            return set()


def is_plain(load: Load) -> bool:
    """The access names distinct index variables only."""
    names = [i.name for i in load.indices if isinstance(i, Var)]
    return len(names) == len(load.indices) == len(set(names))
