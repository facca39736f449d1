"""Cut dimensions into blocks and places inside them, as formats do: what is stored in blocks becomes a tensor of its levels.

    Y[i: n, j: m] f32 = sum(k: c) A[i, k] * X[k, j]   within A(i, k)                        A in blocks of 4 x 8
    ->
    Y[i: n//4, i_in: 4, j: m] f32 = sum(k: c//8, k_in: 8) A[i, i_in, k, k_in] * X[k, k_in, j]   within A(i, i_in, k, k_in)

Memory stays as it is: [n, m] and [n//4, 4, m] are one array. An index variable and the dimensions that it indexes are cut
alike. A dimension that something else indexes stays whole and is read at `i * 4 + i_in`; a step whose own dimension must
stay whole gets a result of its own, from which the whole one is copied. Wants canonical form. Proves legality: blocks divide
their dimensions in every call that is bound.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import assert_never

from polyai.errors import UnsupportedError
from polyai.scalar import dtype as dt
from polyai.scalar.expr import Const, Load, Var
from polyai.shapes.expr import Size, floordiv, mod
from polyai.tensor.bodies import apply, names_of, owner_within, read_by, reads_of, reduces, size_symbols, step_reads, var
from polyai.tensor.nodes import (
    Body,
    Comprehension,
    Cond,
    Extern,
    Fact,
    Index,
    Input,
    Join,
    Listing,
    Pattern,
    Program,
    Reduce,
    Scatter,
    Select,
    Spread,
    Step,
    TensorType,
    While,
    Within,
    owns_a_pattern,
    targets_of,
    types_of,
)
from polyai.tensor.tree import map_parts

Place = tuple[str, int]
"""Dimension d of tensor T: (T, d). Index variable v: (v, -1)."""


def run(program: Program) -> Program:
    """The program over levels: no input is stored in blocks any more. The same object if none was."""
    return _run(program, frozenset())


def _run(program: Program, whole: frozenset[str]) -> Program:
    """`whole` names the dense tensors that stay as they are."""
    if not any(i.type.format is not None and i.type.format.blocked for i in program.inputs):
        return program
    return _Cutter(program, _Plan(program, whole)).program()


class _Plan:
    """The block of every index variable and of every dimension of a dense tensor; 0 for what stays whole.

    A dimension is cut like the variable that indexes it only where the variable covers it: blocks divide the dimensions of what is
    stored in them, not those of a longer array of which a part is read."""

    def __init__(self, program: Program, whole: frozenset[str]) -> None:
        self.program, self.types, self.sizes = program, types_of(program), size_symbols(program)
        whole |= {n for s in program.body if _plain(s) is None or _recurs(s) for n in (*reads_of(s), *targets_of(s))}
        links = list(self._links())
        rigid = {d for d, v in links if v is None or d[0] in whole}
        wanted = self._wanted()
        bases = list(self._bases())
        while True:
            while more := {place for pair in bases if set(pair) & rigid for place in pair} - rigid:
                rigid |= more  # what is scattered into is laid out like its base
            self.blocks, torn = _spread(wanted, [(d, v) for d, v in links if v is not None and not {d, v} & rigid])
            if torn is None:
                return
            rigid.add(torn)

    def block(self, name: str, dimension: int = -1) -> int:
        return self.blocks.get((name, dimension), 0)

    def _links(self) -> Iterator[tuple[Place, Place | None]]:
        """Dimensions with what is cut like them; None beside one that cannot be cut."""
        yield from self._bases()
        for step in _plain_steps(self.program):
            at = tuple(var(i) for i in step.indices) if isinstance(step, Comprehension) else step.at
            accesses: list[tuple[str, Iterable[Body]]] = [(step.target, at), *((load.array, load.indices) for load in step_reads(step))]
            extents = _extents(step)
            for array, indices in accesses:
                if self.types[array].pattern is None:
                    for d, (index, extent) in enumerate(zip(indices, self.types[array].shape)):
                        covers = isinstance(index, Var) and index.name not in self.sizes and extents[index.name] == extent
                        yield (array, d), (index.name, -1) if covers and isinstance(index, Var) else None

    def _bases(self) -> Iterator[tuple[Place, Place]]:
        """Dimensions of what is scattered into with those of its base."""
        for step in _plain_steps(self.program):
            if isinstance(step, Scatter) and step.base is not None:
                base = step.base
                yield from (((step.target, d), (base, d)) for d in range(step.type.rank))

    def _wanted(self) -> dict[Place, int]:
        """The blocks of the variables that walk stored coordinates, by their owners' formats."""
        out: dict[Place, int] = {}
        for step in _plain_steps(self.program):
            for within in _withins(step):
                owned = owner_within(within, self.types)
                format = self.types[owned.tensor].format
                for d, name in enumerate(owned.indices):
                    size = 0 if format is None else format.block(d)
                    if out.setdefault((name, -1), size) != size:
                        raise UnsupportedError(
                            f"{owned.tensor} is walked together with a tensor in other blocks",
                            f"one index would run over blocks of {out[name, -1]} and of {size}",
                            "convert one of them, for example with .tobsr(blocksize=...)",
                        )
        return out


def _extents(step: Comprehension | Scatter) -> dict[str, Size]:
    """How far each index variable of the step runs."""
    roots = (step.body, *(step.at if isinstance(step, Scatter) else ()))
    return {i.name: i.extent for i in (*step.indices, *(i for root in roots for r in reduces(root) for i in r.over))}


def _spread(wanted: dict[Place, int], links: list[tuple[Place, Place]]) -> tuple[dict[Place, int], Place | None]:
    """`wanted` carried along the links, and a dimension that cannot be cut because two sizes meet there."""
    out, changed = dict(wanted), True
    while changed:
        changed = False
        for a, b in links:
            size = out.get(a, out.get(b))
            if size is not None and (a not in out or b not in out):
                out[a] = out[b] = size
                changed = True
            elif out.get(a) != out.get(b):
                return out, a
    return out, None


class _Cutter:
    def __init__(self, program: Program, plan: _Plan) -> None:
        self.given, self.plan, self.types = program, plan, plan.types
        self.names = names_of(program)
        self.facts: dict[Fact, None] = {}
        self.inner = {v: self.names.fresh(f"{v}_in") for (v, d), size in plan.blocks.items() if d < 0 and size}

    def program(self) -> Program:
        body = tuple(s for given in self.given.body for s in self._step(given))
        inputs = tuple(Input(i.name, self._type(i.name, i.type), i.unique, i.below) for i in self.given.inputs)
        return dataclasses.replace(self.given, inputs=inputs, body=body, facts=(*self.given.facts, *self.facts))

    def _step(self, step: Step) -> Iterator[Step]:
        if _plain(step) is None and isinstance(step, (Join, Scatter)):
            _refuse_blocks(step, self.types)
            yield step
            return
        match step:
            case Comprehension():
                cut = dataclasses.replace(
                    step,
                    type=self._type(step.target, step.type),
                    indices=self._indices(step.indices),
                    body=self._body(step.body),
                    within=self._withins(step.within),
                )
                if len(cut.indices) == cut.type.rank:
                    yield cut
                else:
                    yield from self._copied(step, cut)
            case Scatter():
                yield dataclasses.replace(
                    step,
                    type=self._type(step.target, step.type),
                    indices=self._indices(step.indices),
                    at=tuple(part for d, e in enumerate(step.at) for part in self._at(step.target, d, e)),
                    body=self._body(step.body),
                    within=self._withins(step.within),
                )
            case Cond():
                yield dataclasses.replace(step, then=_region(step.then), orelse=_region(step.orelse))
            case While():
                yield dataclasses.replace(step, condition=_region(step.condition), body=_region(step.body))
            case Extern() | Join() | Select() | Spread() | Listing():  # a join's parts are stored by rows or columns: who wants to merge blocks converts them first
                yield step
            case _:
                assert_never(step)

    def _copied(self, step: Comprehension, cut: Comprehension) -> Iterator[Comprehension]:
        """The step under another name, and a whole copy of its result."""
        if _recurs(step):
            owner = min(w.tensor for w in _withins(step))
            raise UnsupportedError(
                f"{step.target} reads its own earlier elements along the blocks of {owner}", "recurrences over blocks are not compiled", f"convert it: {owner}.tocsr()"
            )
        target = self.names.fresh(f"{step.target}_blocks")
        yield dataclasses.replace(cut, target=target, type=TensorType(step.type.dtype, tuple(i.extent for i in cut.indices)))
        points = tuple(Index(self.names.fresh(i.name), i.extent) for i in step.indices)
        places: list[Body] = []
        for index, point in zip(step.indices, points):
            size, at = self.plan.block(index.name), var(point)
            places += [at] if not size else [apply(op, dt.i64, at, Const(size, dt.i64)) for op in ("floordiv", "mod")]
        yield Comprehension(step.target, step.type, points, Load(target, tuple(places), step.type.dtype))  # type: ignore[arg-type]

    # --- sizes ------------------------------------------------------------------------------------------------------------

    def _extents(self, extent: Size, size: int) -> tuple[Size, ...]:
        if not size:
            return (extent,)
        rest = mod(extent, size)
        if rest != 0:
            self.facts[Fact(rest, "zero")] = None
        return floordiv(extent, size), size

    def _indices(self, indices: tuple[Index, ...]) -> tuple[Index, ...]:
        out: list[Index] = []
        for index in indices:
            names = (index.name, self.inner.get(index.name, ""))
            out += [Index(n, e) for n, e in zip(names, self._extents(index.extent, self.plan.block(index.name)))]
        return tuple(out)

    def _type(self, name: str, type_: TensorType) -> TensorType:
        if type_.pattern is None:
            shape = tuple(e for d, extent in enumerate(type_.shape) for e in self._extents(extent, self.plan.block(name, d)))
            return dataclasses.replace(type_, shape=shape)
        owner = self.types[type_.pattern.owner].format
        assert owner is not None
        shape = tuple(e for p, extent in zip(type_.pattern.dims, type_.shape) for e in self._extents(extent, owner.block(p)))
        first = [sum(len(owner.levels_of(e)) for e in range(p)) for p in range(owner.rank)]
        dims = tuple(first[p] + n for p in type_.pattern.dims for n in range(len(owner.levels_of(p))))
        format = None if type_.format is None else type_.format.unblocked()
        return TensorType(type_.dtype, shape, format, Pattern(type_.pattern.owner, dims))

    # --- bodies -----------------------------------------------------------------------------------------------------------

    def _withins(self, withins: tuple[Within, ...]) -> tuple[Within, ...]:
        return tuple(Within(w.tensor, tuple(n for v in w.indices for n in (v, self.inner.get(v)) if n is not None)) for w in withins)

    def _body(self, body: Body) -> Body:
        match body:
            case Var(name) if name in self.inner:
                whole = apply("mul", dt.i64, body, Const(self.plan.block(name), dt.i64))
                return apply("add", dt.i64, whole, var(self.inner[name]))
            case Load(array, indices, dtype):
                places = tuple(part for d, index in enumerate(indices) for part in self._at(array, d, index))
                return Load(array, places, dtype)  # type: ignore[arg-type]
            case Reduce():
                over, within = self._indices(body.over), self._withins(body.within)
                return Reduce(body.monoid, over, self._body(body.body), body.dtype, within)
            case _:
                return map_parts(body, self._body)  # type: ignore[no-any-return]

    def _at(self, array: str, dimension: int, index: Body) -> tuple[Body, ...]:
        """The places of `index` along the parts of a dimension."""
        pattern = self.types[array].pattern
        owner = None if pattern is None else self.types[pattern.owner].format
        size = self.plan.block(array, dimension) if pattern is None or owner is None else owner.block(pattern.dims[dimension])
        if size and isinstance(index, Var):
            return index, var(self.inner[index.name])
        return (self._body(index),)


def _plain(step: Step) -> Comprehension | Scatter | None:
    """The step if its loops may be cut: it makes no pattern of its own."""
    return step if isinstance(step, (Comprehension, Scatter)) and not owns_a_pattern(step) else None


def _recurs(step: Step) -> bool:
    """Whether the step reads elements of its own that are made before: their order must stay."""
    return isinstance(step, Comprehension) and step.target in reads_of(step)


def _plain_steps(program: Program) -> Iterator[Comprehension | Scatter]:
    for step in program.body:
        if (plain := _plain(step)) is not None:
            yield plain


def _refuse_blocks(step: Step, types: dict[str, TensorType]) -> None:
    for name in sorted(read_by(step)):
        pattern = types[name].pattern
        format = None if pattern is None else types[pattern.owner].format
        if format is not None and format.blocked:
            raise UnsupportedError(
                f"{name} is stored in blocks and takes part in a sparse result of another pattern",
                "merges of blocks are not compiled",
                f"convert it: {name}.tocsr()",
            )


def _region(region: Program) -> Program:
    return _run(region, frozenset((*(i.name for i in region.inputs), *region.outputs)))


def _withins(step: Comprehension | Scatter) -> Iterator[Within]:
    yield from step.within
    for root in (step.body, *(step.at if isinstance(step, Scatter) else ())):
        for reduce in reduces(root):
            yield from reduce.within
