"""Give each reduction nested in a body a step of its own, over only those free indices that it uses.

    Y[i: n, j: m] f32 = exp(X[i, j] - (max(q: m) X[i, q]))
    ->
    Y_max[i_1: n] f32 = max(q: m) X[i_1, q]
    Y[i: n, j: m] f32 = exp(X[i, j] - Y_max[i])

Where the reduction stands within stored coordinates and its free indices are just those, its step is stored there too, so
that the inner product of an SDDMM is computed at stored coordinates only. A reduction under a `where` keeps the condition
if it could leave an array without. Directly nested reductions of one monoid become one. Proves legality: bodies have no effects.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from polyai.errors import UnsupportedError
from polyai.scalar import dtype as dt
from polyai.scalar.expr import Apply, Const, Load, Var
from polyai.scalar.ops import MONOIDS
from polyai.tensor.bodies import apply, convert, free, loads, map_regions, names_of, owner_within, reduces, rename, stem, var
from polyai.tensor.nodes import (
    Body,
    Comprehension,
    Index,
    Pattern,
    Program,
    Reduce,
    Scatter,
    Step,
    TensorType,
    Within,
    types_of,
)
from polyai.tensor.tree import map_parts
from polyai.term.names import Names
from polyai.term.node import node

_SUFFIX = {"add": "sum", "mul": "prod", "max": "max", "min": "min", "or": "any", "and": "all"}


def run(program: Program) -> Program:
    """The program with reductions at the top of bodies only, each accumulating in the type of its body."""
    hoist = _Hoist(names_of(program), types_of(program))
    for step in program.body:
        hoist.step(step)
    return dataclasses.replace(program, body=tuple(hoist.out))


@node
class _Around:
    """What stands around a reduction: index variables in scope, stored coordinates, conditions that hold, the step's target."""

    target: str
    scope: tuple[Index, ...]
    within: tuple[Within, ...]
    guards: tuple[Body, ...] = ()


class _Hoist:
    def __init__(self, names: Names, types: dict[str, TensorType]) -> None:
        self.names, self.types = names, types
        self.out: list[Step] = []

    def step(self, step: Step) -> None:
        match step:
            case Comprehension():
                around = _Around(step.target, step.indices, tuple(owner_within(w, self.types) for w in step.within))
                if isinstance(step.body, Reduce):
                    body: Body = self._tidy(step.body, around)
                else:
                    body = self._lift(step.body, around)
                self.out.append(dataclasses.replace(step, body=body))
            case Scatter():
                around = _Around(step.target, step.indices, tuple(owner_within(w, self.types) for w in step.within))
                at = tuple(self._lift(a, around) for a in step.at)
                self.out.append(dataclasses.replace(step, body=self._lift(step.body, around), at=at))
            case _:
                self.out.append(map_regions(step, run))

    def _tidy(self, reduce: Reduce, around: _Around) -> Reduce:
        """A reduction whose body holds no other one and has the accumulator's type."""
        inner = reduce.body
        if isinstance(inner, Reduce) and (inner.monoid, inner.dtype) == (reduce.monoid, reduce.dtype):
            merged = Reduce(reduce.monoid, reduce.over + inner.over, inner.body, reduce.dtype, reduce.within + inner.within)
            return self._tidy(merged, around)
        inside = dataclasses.replace(
            around,
            scope=around.scope + reduce.over,
            within=around.within + tuple(owner_within(w, self.types) for w in reduce.within),
        )
        return dataclasses.replace(reduce, body=convert(self._lift(inner, inside), reduce.dtype))

    def _lift(self, body: Any, around: _Around) -> Any:
        match body:
            case Reduce():
                return self._emit(self._tidy(body, around), around)
            case Apply("where", (condition, yes, no), dtype) if next(reduces(body), None) is not None:
                test = self._lift(condition, around)
                no_guard = (*around.guards, apply("not", dt.bool_, test))
                taken = self._lift(yes, dataclasses.replace(around, guards=(*around.guards, test)))
                other = self._lift(no, dataclasses.replace(around, guards=no_guard))
                return apply("where", dtype, test, taken, other)
            case _:
                return map_parts(body, lambda child: self._lift(child, around))

    def _emit(self, reduce: Reduce, around: _Around) -> Load:
        if any(load.array == around.target for load in loads(reduce)):
            raise UnsupportedError(
                f"{around.target} sums over its own earlier elements inside a larger expression",
                "a recurrence can be read element by element, or reduced at the top of its definition",
                "write the reduction as a running value (a cumulative sum) of its own",
            )
        if around.guards and self._may_leave_an_array(reduce, around):
            reduce = _guarded(reduce, around.guards)
        used = free(reduce)
        indices = [i for i in around.scope if i.name in used]
        home = self._home(indices, around.within)
        lost = next((w for w in around.within if home is None and _gathers_at(reduce, w)), None)
        if lost is not None:
            raise UnsupportedError(
                f"a reduction inside {around.target} gathers by indices that exist at stored coordinates only, and depends on more",
                f"it uses {', '.join(i.name for i in indices)}, stored are {', '.join(lost.indices)}",
                "compute the reduction in a step of its own",
            )
        return self._define(reduce, indices, home, around.target)

    def _home(self, indices: list[Index], withins: tuple[Within, ...]) -> Within | None:
        names = {i.name for i in indices}
        return next((w for w in withins if names and set(w.indices) == names), None)

    def _define(self, reduce: Reduce, indices: list[Index], home: Within | None, stem_of: str) -> Load:
        target = self.names.fresh(f"{stem(stem_of)}_{_SUFFIX[reduce.monoid]}")
        fresh = {i.name: self.names.fresh(stem(i.name)) for i in indices}
        pattern = None
        if home is not None:
            pattern = Pattern(home.tensor, tuple(home.indices.index(i.name) for i in indices))
        type = TensorType(reduce.dtype, tuple(i.extent for i in indices), None, pattern)
        new: Any = Comprehension(target, type, tuple(indices), reduce, (home,) if home is not None else ())
        self.out.append(rename(new, fresh))
        self.types[target] = type
        return Load(target, tuple(var(i) for i in indices), reduce.dtype)

    def _may_leave_an_array(self, reduce: Reduce, around: _Around) -> bool:
        """False only if each access indexes each dimension by a variable that runs over just that dimension."""
        extents = {i.name: i.extent for i in (*around.scope, *reduce.over)}
        for load in loads(reduce):
            for index, extent in zip(load.indices, self.types[load.array].shape):
                if not isinstance(index, Var) or extents.get(index.name) != extent:
                    return True
        return False


def _gathers_at(reduce: Reduce, within: Within) -> bool:
    """Some access is indexed by an expression of all variables of `within`."""
    wanted = set(within.indices)
    return any(wanted <= free(index) for load in loads(reduce) for index in load.indices if not isinstance(index, Var))


def _guarded(reduce: Reduce, guards: tuple[Body, ...]) -> Reduce:
    """`where(guards, body, identity)` inside the reduction."""
    condition = guards[0]
    for guard in guards[1:]:
        condition = apply("where", dt.bool_, condition, guard, Const(False, dt.bool_))
    nothing = Const(MONOIDS[reduce.monoid].identity(reduce.dtype), reduce.dtype)
    return dataclasses.replace(reduce, body=apply("where", reduce.dtype, condition, reduce.body, nothing))
