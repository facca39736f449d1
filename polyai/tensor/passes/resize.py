"""Every size of a program rewritten; steps that no output needs are dropped.

    T[i: n] = A[i] * n    with n = 8    ->    T[i: 8] = A[i] * 8

Assumes that calls pass sizes for which the new ones are equal to the old ones: a guard says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

from polyai.scalar.expr import Apply, Cast, Const, Expr, Load, Var
from polyai.shapes import expr as sx
from polyai.shapes.expr import Size, symbol, symbols
from polyai.tensor import nodes as tn
from polyai.tensor.bodies import counted_by, from_size, size_symbols
from polyai.tensor.nodes import Body, Fact


def with_sizes(program: tn.Program, values: Mapping[str, int], facts: tuple[Fact, ...] = ()) -> tn.Program:
    """`program` with symbols replaced by numbers, and more facts about those that stay."""

    def resolve(size: Size) -> Size:
        return sx.substitute(size, values)

    known = [Fact(resolve(f.size), f.relation) for f in (*program.facts, *facts)]
    rest = tuple(f for f in known if not isinstance(f.size, int))
    return Resize(resolve, values.__contains__, rest).program(program)


class Resize:
    """One rewriting: `resolve` gives the new size for an old one; `is_size` says which variables of bodies are sizes."""

    def __init__(self, resolve: Callable[[Size], Size], is_size: Callable[[str], bool], facts: tuple[Fact, ...]) -> None:
        self.resolve, self.is_size, self.facts = resolve, is_size, facts
        self._size: dict[Size, Size] = {}

    def size(self, size: Size) -> Size:
        if isinstance(size, int):
            return size
        found = self._size.get(size)
        if found is None:
            found = self._size[size] = self.resolve(size)
        return found

    def type(self, type: tn.TensorType) -> tn.TensorType:
        return tn.TensorType(type.dtype, tuple(map(self.size, type.shape)), type.format, type.pattern)

    def index(self, index: tn.Index) -> tn.Index:
        return tn.Index(index.name, self.size(index.extent))

    def program(self, program: tn.Program) -> tn.Program:
        """The program rewritten; steps that no output needs are dropped, and facts about symbols that are gone."""
        needed = set(program.outputs)
        steps: list[tn.Step] = []
        for step in reversed(program.body):
            if needed.isdisjoint(tn.targets_of(step)):
                continue
            made = self.step(step, needed)
            needed |= counted_by(made)
            steps.append(made)
        inputs = tuple(tn.Input(i.name, self.type(i.type), i.unique, None if i.below is None else self.size(i.below)) for i in program.inputs)
        out = tn.Program(program.name, inputs, tuple(reversed(steps)), program.outputs)
        known = size_symbols(out)
        return tn.Program(out.name, inputs, out.body, out.outputs, tuple(f for f in self.facts if symbols(f.size) <= known))

    def step(self, step: tn.Step, needed: set[str]) -> tn.Step:
        """The step settled; what it reads is added to `needed`."""
        match step:
            case tn.Comprehension():
                needed.update(w.tensor for w in step.within)
                body = self.body(step.body, needed)
                return tn.Comprehension(step.target, self.type(step.type), tuple(map(self.index, step.indices)), body, step.within)
            case tn.Scatter():
                needed.update((*(() if step.base is None else (step.base,)), *(w.tensor for w in step.within)))
                at = tuple(self.body(a, needed) for a in step.at)
                body = self.body(step.body, needed)
                return tn.Scatter(step.target, self.type(step.type), step.base, step.monoid, tuple(map(self.index, step.indices)), at, body, step.within, step.grouped, step.requires)
            case tn.Join():
                needed.update(w.tensor for w in step.parts)
                return tn.Join(step.target, self.type(step.type), tuple(map(self.index, step.indices)), step.clauses)
            case tn.Select():
                indices = tuple(map(self.index, step.indices))
                return tn.Select(step.target, self.type(step.type), indices, self.body(step.at, needed))
            case tn.Spread():
                indices = tuple(map(self.index, step.indices))
                return tn.Spread(step.target, self.type(step.type), indices, self.body(step.length, needed))
            case tn.Listing():
                needed.add(step.of)
                return tn.Listing(step.target, self.type(step.type), step.of)
            case tn.Extern():
                needed.update(step.args)
                return tn.Extern(step.targets, tuple(map(self.type, step.types)), step.function, step.args, step.attributes)
            case tn.Cond():
                needed.update((step.predicate, *step.args))
                types = tuple(map(self.type, step.types))
                return tn.Cond(step.targets, types, step.predicate, step.args, self.program(step.then), self.program(step.orelse))
            case tn.While():
                needed.update((*step.init, *step.args))
                types = tuple(map(self.type, step.types))
                return tn.While(step.targets, types, step.init, step.args, self.program(step.condition), self.program(step.body))

    def body(self, body: Body, needed: set[str]) -> Body:
        match body:
            case Const():
                return body
            case Var(name):
                return from_size(self.size(symbol(name))) if self.is_size(name) else body
            case Load(array, at, dtype):
                needed.add(array)
                return Load(array, tuple(cast(Expr, self.body(i, needed)) for i in at), dtype)
            case Apply(op, args, dtype):
                return Apply(op, tuple(cast(Expr, self.body(a, needed)) for a in args), dtype)
            case Cast(arg, dtype):
                return Cast(cast(Expr, self.body(arg, needed)), dtype)
            case tn.Reduce():
                needed.update(w.tensor for w in body.within)
                return tn.Reduce(body.monoid, tuple(map(self.index, body.over)), self.body(body.body, needed), body.dtype, body.within)
