"""Walks of padded formats become loops over their storage, with a condition for what is stored.

    y[i: n] f64 = sum(k: m) A[i, k] * x[k]   within A(i, k)                                         A by diagonals
    ->
    y[i: n] f64 = sum(s: A.length0) where(0 <= i + A.crd0[s] < min(m, A.length1), A.val[s, i + A.crd0[s]] * x[i + A.crd0[s]], 0)

A sized level has as many positions under each parent as a size of the tensor says, so its arrays are dense ones: `A.crd0`
and `A.val` become inputs, and what lies along A's pattern gets the shape of A's storage. A coordinate that is known outside
the walk is not looked for: the relation between the dimensions is solved for the other one. Where there is none (a column of
ELL) the step becomes a scatter. Wants canonical form. Proves legality: padding contributes the identity.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import field
from functools import reduce as fold
from typing import assert_never

from polyai.errors import UnsupportedError
from polyai.scalar import dtype as dt
from polyai.scalar.expr import Apply, Const, Load, Var
from polyai.scalar.ops import MONOIDS
from polyai.shapes.expr import Size, minimum, symbol, symbols
from polyai.sparse.format import Format, Shift
from polyai.sparse.level import length_of
from polyai.tensor.bodies import (
    apply,
    convert,
    from_size,
    loads,
    names_of,
    owner_within,
    read_by,
    replace_loads,
    stored_at,
    substitute,
    var,
    zero,
)
from polyai.tensor.nodes import (
    Body,
    Comprehension,
    Cond,
    Extern,
    Index,
    Input,
    Join,
    Listing,
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
    types_of,
)
from polyai.tensor.tree import map_parts
from polyai.term.node import record


def run(program: Program) -> Program:
    """The program without padded inputs, its regions likewise; the same object if it has none."""
    if not any(i.type.format is not None and i.type.format.padded for i in program.inputs):
        return program
    return _Padding(program).program()


@record
class _Walk:
    """How one `within` is walked: new index variables by name, what each variable of the owner is, when an entry is stored,
    and its place in the arrays. `unsolved`: variables bound outside whose value must agree with the one listed."""

    within: Within
    indices: dict[str, Index] = field(default_factory=dict)
    values: dict[str, Body] = field(default_factory=dict)
    stored: list[Body] = field(default_factory=list)
    places: list[Body] = field(default_factory=list)
    unsolved: list[str] = field(default_factory=list)

    def guarded(self, body: Body, otherwise: Body) -> Body:
        """`body` where an entry is stored."""
        condition = fold(lambda a, b: apply("and", dt.bool_, a, b), self.stored)
        return apply("where", body.dtype, condition, substitute(body, self.values), otherwise)


class _Padding:
    def __init__(self, program: Program) -> None:
        self.given, self.types = program, types_of(program)
        self.names = names_of(program)
        self.owners = {i.name: i.type for i in program.inputs if i.type.format is not None and i.type.format.padded}

    def program(self) -> Program:
        body = tuple(s for given in self.given.body for s in self._step(given))
        inputs = tuple(i for given in self.given.inputs for i in self._inputs(given))
        outputs = tuple(o for o in self.given.outputs if o not in self.owners)
        sizes = tuple(sorted({s for type_ in self.owners.values() for extent in type_.shape for s in symbols(extent)}))
        return dataclasses.replace(self.given, inputs=inputs, body=body, outputs=outputs, sizes=(*self.given.sizes, *sizes))

    def _inputs(self, given: Input) -> Iterator[Input]:
        along = None if given.type.pattern is None else given.type.pattern.owner
        if given.name not in self.owners:  # values that were computed along it are where its own are
            yield given if along not in self.owners else Input(given.name, TensorType(given.type.dtype, self._shape(along)))
            return
        format, shape = self._format(given.name), self._shape(given.name)
        index = dt.BY_NAME[f"i{format.index_bits}"]
        for number, level in enumerate(format.levels):
            for spec in level.arrays(given.name, number, 1, 1):
                yield Input(spec.name, TensorType(index, shape[: number + 1]))
        yield Input(f"{given.name}.val", TensorType(given.type.dtype, shape))

    def _arrays(self, args: tuple[str, ...]) -> Iterator[str]:
        """Arguments of a region, which sees the arrays of padded inputs as the program does."""
        for name in args:
            if name in self.owners:
                yield from (i.name for i in self._inputs(Input(name, self.owners[name])))
            else:
                yield name

    def _format(self, owner: str) -> Format:
        format = self.owners[owner].format
        assert format is not None
        return format

    def _shape(self, owner: str) -> tuple[Size, ...]:
        """The extents of the owner's arrays, level by level."""
        format, out = self._format(owner), list[Size]()
        for number, (level, extent) in enumerate(zip(format.levels, format.level_extents(self.owners[owner].shape))):
            one_each = all(a.length == 1 for a in level.arrays(owner, number, 0, 1))
            if not (level.full or level.sized or level.gaps) or not one_each or format.blocked:
                raise UnsupportedError(
                    f"{owner} has a {level.name} level in the padded format {format.name}",
                    "compiled are levels whose fibres have one length and whose arrays have one element per position",
                    "convert it to CSR, CSC or COO",
                )
            out.append(symbol(length_of(owner, number)) if level.sized else extent)
        return tuple(out)

    # --- steps ------------------------------------------------------------------------------------------------------------

    def _step(self, step: Step) -> Iterator[Step]:
        if owns_a_pattern(step):
            self._refuse(step, "takes part in a sparse result of another pattern")
            yield step
            return
        match step:
            case Comprehension():
                owner = None if step.type.pattern is None else step.type.pattern.owner
                if owner in self.owners and step.within:
                    yield self._along(step, owner)
                    return
                inside = self._padded(step.body.within) if isinstance(step.body, Reduce) else None
                if inside is None or not isinstance(step.body, Reduce):
                    yield step
                    return
                walk = self._walk(inside, {i.name for i in step.indices})
                if walk.unsolved:
                    yield from self._scattered(step, step.body, self._walk(inside, set()))
                else:
                    yield dataclasses.replace(step, body=self._reduced(step.body, walk))
            case Scatter():
                inside = self._padded(step.within)
                yield step if inside is None else self._scatter(step, self._walk(inside, set()))
            case Cond():
                yield dataclasses.replace(step, args=tuple(self._arrays(step.args)), then=run(step.then), orelse=run(step.orelse))
            case While():
                yield dataclasses.replace(step, args=tuple(self._arrays(step.args)), condition=run(step.condition), body=run(step.body))
            case Extern() | Join() | Select() | Spread() | Listing():
                self._refuse(step, "enters a library call")
                yield step
            case _:
                assert_never(step)

    def _refuse(self, step: Step, what: str) -> None:
        patterns = (self.types[name].pattern for name in read_by(step))
        used = {p.owner for p in patterns if p is not None} & self.owners.keys()
        if used:
            name = min(used)
            raise UnsupportedError(
                f"{name} is stored with padding and {what}", f"that is not compiled for its format {self._format(name).name}", f"convert it: {name}.tocsr()"
            )

    def _padded(self, withins: tuple[Within, ...]) -> Within | None:
        owned = dict.fromkeys(owner_within(w, self.types) for w in withins)
        found = [w for w in owned if w.tensor in self.owners]
        if found and len(owned) > 1:
            raise UnsupportedError(
                f"{found[0].tensor} is stored with padding and walked together with another sparse tensor",
                f"that is not compiled for its format {self._format(found[0].tensor).name}",
                f"convert it: {found[0].tensor}.tocsr()",
            )
        return found[0] if found else None

    def _along(self, step: Comprehension, owner: str) -> Comprehension:
        """A step along the owner's pattern becomes one along its storage."""
        inside = self._padded(step.within)
        assert inside is not None
        walk = self._walk(inside, set())
        if isinstance(step.body, Reduce):
            body: Body = self._reduced(step.body, walk, own=False)
        else:
            body = walk.guarded(self._read(step.body, walk), zero(step.type.dtype))
        return Comprehension(step.target, TensorType(step.type.dtype, self._shape(owner)), tuple(walk.indices.values()), body)

    def _reduced(self, body: Reduce, walk: _Walk, own: bool = True) -> Reduce:
        """`own`: the reduction itself is restricted by the walk, whose variables it binds."""
        over = tuple(i for i in body.over if i.name not in walk.values and i.name not in walk.indices)
        indices = (*walk.indices.values(), *over) if own else body.over
        within = tuple(w for w in body.within if owner_within(w, self.types) != walk.within) if own else body.within
        identity = Const(MONOIDS[body.monoid].identity(body.dtype), body.dtype)
        inner = walk.guarded(convert(self._read(body.body, walk), body.dtype), identity)
        return Reduce(body.monoid, indices, inner, body.dtype, within)

    def _scattered(self, step: Comprehension, body: Reduce, walk: _Walk) -> Iterator[Step]:
        """A reduction into elements that are listed in the walk: every entry is added where it belongs."""
        base, dtype = self.names.fresh(f"{step.target}_base"), body.dtype
        points = tuple(Index(self.names.fresh(i.name), i.extent) for i in step.indices)
        kind = TensorType(dtype, step.type.shape)
        identity = Const(MONOIDS[body.monoid].identity(dtype), dtype)
        yield Comprehension(base, kind, points, identity)
        target = step.target if dtype == step.type.dtype else self.names.fresh(f"{step.target}_sums")
        rest = tuple(i for i in (*step.indices, *body.over) if i.name not in walk.values and i.name not in walk.indices)
        inside = tuple(w for w in body.within if owner_within(w, self.types) != walk.within)
        at = tuple(var(i) for i in step.indices)
        indices = (*walk.indices.values(), *rest)
        yield self._scatter(Scatter(target, kind, base, body.monoid, indices, at, convert(body.body, dtype), inside), walk)
        if target != step.target:
            fresh = tuple(Index(self.names.fresh(i.name), i.extent) for i in step.indices)
            read = Load(target, tuple(var(i) for i in fresh), dtype)
            yield Comprehension(step.target, step.type, fresh, convert(read, step.type.dtype))

    def _scatter(self, step: Scatter, walk: _Walk) -> Scatter:
        if step.monoid is None:
            raise UnsupportedError(
                f"{step.target} is overwritten along the pattern of {walk.within.tensor}", "padding would overwrite too", "convert it to CSR"
            )
        rest = tuple(i for i in step.indices if i.name not in walk.values and i.name not in walk.indices)
        identity = Const(MONOIDS[step.monoid].identity(step.type.dtype), step.type.dtype)
        nowhere = Const(0, dt.i64)
        return dataclasses.replace(
            step,
            indices=(*self._unless_empty(walk), *rest),
            at=tuple(walk.guarded(self._read(a, walk), nowhere) for a in step.at),
            body=walk.guarded(convert(self._read(step.body, walk), step.type.dtype), identity),
            within=tuple(w for w in step.within if owner_within(w, self.types) != walk.within),
        )

    def _unless_empty(self, walk: _Walk) -> Iterator[Index]:
        """The indices of the walk, the first of which has no iteration if the tensor has no element: padding could be put nowhere."""
        first, *rest = walk.indices.values()
        elements: Size = first.extent
        for name, extent in zip(walk.within.indices, self.owners[walk.within.tensor].shape):
            if name in walk.values:
                elements = elements * extent
        yield Index(first.name, minimum(first.extent, elements))
        yield from rest

    def _read(self, body: Body, walk: _Walk) -> Body:
        """`body` with what is stored along the walk read at its place in the arrays."""

        def change(load: Load) -> Body:
            if self.types[load.array].pattern is None or stored_at(load, self.types) != walk.within:
                return load
            name = f"{load.array}.val" if load.array in self.owners else load.array
            return Load(name, tuple(walk.places), load.dtype)  # type: ignore[arg-type]

        return replace_loads(body, change)

    # --- walks ------------------------------------------------------------------------------------------------------------

    def _walk(self, within: Within, outside: set[str]) -> _Walk:
        """The walk of `within` where the variables in `outside` have their values already."""
        owner = within.tensor
        format, shape, storage = self._format(owner), self.owners[owner].shape, self._shape(owner)
        walk, shifts = _Walk(within), list[tuple[str, str, Body, int]]()
        known = {v for v in within.indices if v in outside}
        for number, dimension in enumerate(format.order):
            part = format.part(number)
            name = within.indices[dimension]
            slot = Index(self.names.fresh("s"), storage[number])
            found = self._coordinate(owner, number, walk.places, slot, shape[dimension])
            if found != var(slot):
                walk.indices[slot.name] = slot
                walk.places.append(var(slot))
                if isinstance(part, Shift):
                    self._shifted(walk, known, name, within.indices[part.to], found, (shape[dimension], shape[part.to]), shifts)
                    continue
                if name in known:
                    walk.unsolved.append(name)
                walk.values[name], stored = _stored(found, shape[dimension])
                walk.stored += stored
            elif name not in known and name not in walk.values:
                walk.indices[name] = Index(name, storage[number])
                walk.places.append(var(name))
                if storage[number] != shape[dimension]:
                    walk.stored.append(_below(var(name), shape[dimension]))
            else:
                place = walk.values.get(name, var(name))
                walk.places.append(place)
                if storage[number] != shape[dimension]:
                    walk.stored.append(_below(place, storage[number]))
        for name, to, crd, dimension in shifts:
            walk.values[name] = apply("sub", dt.i64, walk.values.get(to, var(to)), crd)
            walk.stored += _inside(walk.values[name], shape[dimension])
        return walk

    def _coordinate(self, owner: str, number: int, above: list[Body], slot: Index, extent: Size) -> Body:
        """What the level says is the coordinate of `slot` below the places `above`: its own arrays are read at places, not positions."""
        format = self._format(owner)
        index = dt.BY_NAME[f"i{format.index_bits}"]
        parent, position, whole = (Var(n, dt.i64) for n in ("parent", "position", "extent"))
        length = Var(length_of(owner, number), dt.i64) if format.levels[number].sized else whole

        def change(body: Body) -> Body:
            match body:
                case Apply("sub", (first, Apply("mul", (second, third)))) if (first, second, third) == (position, parent, length):
                    return var(slot)
                case Load(array, (at,)) if at == position:
                    return convert(Load(array, (*above, var(slot)), index), dt.i64)  # type: ignore[arg-type]
                case Var("extent"):
                    return from_size(extent)
                case Var("parent") if len(above) <= 1:
                    return above[0] if above else Const(0, dt.i64)
                case Var("parent" | "position"):
                    raise UnsupportedError(
                        f"a {format.levels[number].name} level computes with positions below level {number - 1}",
                        "compiled are coordinates of slots, of the outermost position and of the level's own arrays",
                        f"convert {owner} to CSR",
                    )
                case _:
                    return map_parts(body, change)  # type: ignore[no-any-return]

        return change(format.levels[number].coordinate(owner, number, parent, position, whole))

    def _shifted(
        self, walk: _Walk, known: set[str], name: str, to: str, crd: Body, extents: tuple[Size, Size], shifts: list[tuple[str, str, Body, int]]
    ) -> None:
        """Solve to - name = crd for the variable that is not known; later, if neither is."""
        if name in known and to in known:
            walk.stored.append(apply("eq", dt.bool_, apply("sub", dt.i64, var(to), var(name)), crd))
        elif name in known:
            walk.values[to] = apply("add", dt.i64, var(name), crd)
            walk.stored += _inside(walk.values[to], extents[1])
        elif to in known:
            walk.values[name] = apply("sub", dt.i64, var(to), crd)
            walk.stored += _inside(walk.values[name], extents[0])
        else:
            shifts.append((name, to, crd, walk.within.indices.index(name)))


def _stored(coordinate: Body, extent: Size) -> tuple[Body, list[Body]]:
    """A coordinate, and when it is one. What is read from memory is checked by the kernel, unless it is -1."""
    match coordinate:
        case Apply("where", (condition, value, Const(-1))):
            return value, [condition]
        case _ if next(loads(coordinate), None) is None:
            return coordinate, _inside(coordinate, extent)
        case _:
            return coordinate, [apply("ne", dt.bool_, coordinate, Const(-1, dt.i64))]


def _below(value: Body, extent: Size) -> Body:
    return apply("lt", dt.bool_, value, from_size(extent))


def _inside(value: Body, extent: Size) -> list[Body]:
    return [apply("ge", dt.bool_, value, Const(0, dt.i64)), _below(value, extent)]
