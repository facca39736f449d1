"""Small questions and rewrites of bodies that every pass needs: type, free variables, substitution, renaming."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, assert_never, cast

from polyai.scalar import dtype as dt
from polyai.scalar.dtype import DType
from polyai.scalar.expr import Apply, Cast, Const, Expr, Load, Var
from polyai.shapes.expr import FloorDiv, Largest, Mod, Size, Smallest, Sym, symbols
from polyai.sparse.level import length_of
from polyai.tensor.nodes import (
    Body,
    Comprehension,
    Cond,
    Extern,
    Index,
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
    lies_along,
    nnz_of,
    owns_a_pattern,
    targets_of,
)
from polyai.tensor.tree import bottom_up, each, map_parts, renamed_body, renamed_step, renamed_withins
from polyai.term.names import Names


def var(index: Index | str) -> Var:
    """The index variable as an expression."""
    return Var(index if isinstance(index, str) else index.name, dt.i64)


def apply(op: str, dtype: DType, *args: Body) -> Apply:
    """An operation on bodies: scalar nodes are typed for expressions without reductions, bodies may hold some."""
    return Apply(op, cast("tuple[Expr, ...]", args), dtype)


def convert(arg: Body, dtype: DType) -> Body:
    """`arg` as `dtype`; as it is if it has that type."""
    return arg if arg.dtype == dtype else Cast(cast("Expr", arg), dtype)


def zero(dtype: DType) -> Const:
    """The zero of `dtype`."""
    return Const(False if dtype.kind == "b" else 0 if dtype.is_integer else 0.0, dtype)


def from_size(size: Size) -> Body:
    """A size as an expression over its symbols."""
    if isinstance(size, int):
        return Const(size, dt.i64)
    total: Body | None = None
    for monomial, coefficient in size.terms:
        factors: list[Body] = [] if coefficient == 1 and monomial else [Const(coefficient, dt.i64)]
        for atom in monomial:
            match atom:
                case Sym(name):
                    factors.append(Var(name, dt.i64))
                case FloorDiv(a, b):
                    factors.append(apply("floordiv", dt.i64, from_size(a), from_size(b)))
                case Mod(a, b):
                    factors.append(apply("mod", dt.i64, from_size(a), from_size(b)))
                case Largest(of) | Smallest(of):
                    factors.append(_fold("max" if isinstance(atom, Largest) else "min", [from_size(p) for p in of]))
        term = _fold("mul", factors)
        total = term if total is None else apply("add", dt.i64, total, term)
    assert total is not None
    return total


def _fold(op: str, parts: list[Body]) -> Body:
    out = parts[0]
    for part in parts[1:]:
        out = apply(op, dt.i64, out, part)
    return out


def loads(body: Body) -> Iterator[Load]:
    """Every access in `body`, also those inside indices of others."""
    return (n for n in each(body) if type(n) is Load)


def reduces(body: Body) -> Iterator[Reduce]:
    """Every reduction in `body`, outer ones first."""
    return (n for n in each(body) if type(n) is Reduce)


def free(body: Body) -> set[str]:
    """Names of variables that `body` reads and does not bind: index variables and sizes."""
    match body:
        case Const():
            return set()
        case Var(name):
            return {name}
        case Load(_, parts) | Apply(_, parts):
            return set().union(*(free(p) for p in parts))
        case Cast(arg):
            return free(arg)
        case Reduce():
            inside = free(body.body) | {v for w in body.within for v in w.indices}
            for index in body.over:
                inside |= symbols(index.extent)
            return inside - {i.name for i in body.over}
        case _:
            assert_never(body)


def step_reads(step: Comprehension | Scatter) -> Iterator[Load]:
    """Every access of a step, in its body and, for a scatter, in the places it writes to."""
    yield from loads(step.body)
    if isinstance(step, Scatter):
        for at in step.at:
            yield from loads(at)


def substitute(body: Body, values: Mapping[str, Body]) -> Body:
    """`body` with variables replaced. A variable that a `within` names can only become another variable (KeyError else)."""

    def change(n: Any) -> Any:
        match n:
            case Var(name):
                return values.get(name, n)
            case Reduce():
                within = tuple(Within(w.tensor, tuple(_variable(values, v) for v in w.indices)) for w in n.within)
                return Reduce(n.monoid, n.over, change(n.body), n.dtype, within)
            case _:
                return map_parts(n, change)

    return change(body)  # type: ignore[no-any-return]


def _variable(values: Mapping[str, Body], name: str) -> str:
    new = values.get(name)
    if new is None:
        return name
    if not isinstance(new, Var):
        raise KeyError(name)
    return new.name


def rename(value: Any, names: Mapping[str, str]) -> Any:
    """A body or a step with index variables renamed, where they are bound, used and named by a `within`."""
    change = renamed_step if isinstance(value, (Comprehension, Scatter, Join, Select, Spread)) else renamed_body
    return change(value, dict(names)) if names else value


def refresh(body: Body, names: Names) -> Body:
    """`body` with each index that it binds renamed to a fresh one: a second copy may stand beside the first."""
    fresh = {i.name: names.fresh(stem(i.name)) for r in reduces(body) for i in r.over}
    return rename(body, fresh)  # type: ignore[no-any-return]


def stem(name: str) -> str:
    """`i_3` -> `i`: so that fresh names stay short."""
    head, _, tail = name.rpartition("_")
    return head if head and tail.isdigit() else name


def replace_loads(body: Body, change: Callable[[Load], Body]) -> Body:
    """`body` with each access replaced by what `change` says, innermost first."""

    return bottom_up(body, lambda n: change(n) if type(n) is Load else n)  # type: ignore[no-any-return]


def owner_within(within: Within, types: Mapping[str, TensorType]) -> Within:
    """The same coordinates, told of the sparse input that owns the pattern."""
    pattern = types[within.tensor].pattern
    return within if pattern is None else in_owner(pattern, within.indices)


def in_owner(pattern: Pattern, indices: tuple[str, ...]) -> Within:
    """Variables `indices` of a tensor with `pattern`, in the order of the owner's dimensions."""
    order = sorted(range(len(indices)), key=lambda d: pattern.dims[d])
    return Within(pattern.owner, tuple(indices[d] for d in order))


def stored_at(load: Load, types: Mapping[str, TensorType]) -> Within | None:
    """For an access of a sparse tensor by distinct variables: the owner's coordinates it needs stored. None otherwise."""
    pattern = types[load.array].pattern
    names = tuple(i.name for i in load.indices if isinstance(i, Var))
    if pattern is None or len(names) != len(load.indices) or len(set(names)) != len(names):
        return None
    return in_owner(pattern, names)


def parts_within(within: Within, joins: Mapping[str, Join]) -> tuple[Within, ...]:
    """What may be read within a join: its parts, by the variables of `within`. Nothing for other patterns."""
    join = joins.get(within.tensor)
    if join is None:
        return ()
    names = {i.name: v for i, v in zip(join.indices, within.indices)}
    return renamed_withins(join.parts, names)


def least_clauses(clauses: Sequence[tuple[Within, ...]]) -> tuple[tuple[Within, ...], ...]:
    """Clauses of a join without those that another one implies."""
    sets = [frozenset(c) for c in clauses]
    return tuple(c for n, c in enumerate(clauses) if not any(s < sets[n] or (s == sets[n] and m < n) for m, s in enumerate(sets)))


def row_in_blocks(step: Scatter, dimension: int) -> tuple[Index, Index] | None:
    """(i, j) if the place along a dimension is i * n + j, for index variables with 0 <= j < n: then each pair has its own."""
    match step.at[dimension]:
        case Apply("add", (Apply("mul", (Var(outer), Const(size))), Var(inner))):
            found = {i.name: i for i in step.indices}
            if outer in found and inner in found and outer != inner and found[inner].extent == size:
                return found[outer], found[inner]
    return None


def left_out(at: Body) -> tuple[Body, Body | None]:
    """A place of a scatter that makes a pattern: where it is, and the condition for it to be touched at all (None: always)."""
    match at:
        case Apply("where", (condition, place, Const(-1))):
            return place, condition
        case _:
            return at, None


def selects_of(program: Program) -> dict[str, Select]:
    """The selections of a program by name."""
    return {step.target: step for step in program.body if isinstance(step, Select)}


def joins_of(program: Program) -> dict[str, Join]:
    """The joins of a program by name."""
    return {step.target: step for step in program.body if isinstance(step, Join)}


def size_symbols(program: Program) -> set[str]:
    """Names of the sizes a program may mention: symbols of its inputs' shapes, and counts of stored elements of all that own a pattern."""
    out: set[str] = set(program.sizes)
    for given in program.inputs:
        for extent in given.type.shape:
            out |= symbols(extent)
        if given.type.format is not None:
            out.add(nnz_of(given.name))
            format = given.type.format
            out.update(length_of(given.name, n) for n, level in enumerate(format.levels if format is not None else ()) if level.sized)
    return out | {nnz_of(name) for step in program.body if owns_a_pattern(step) for name in targets_of(step)}


def names_of(program: Program) -> Names:
    """A supply that knows every name of the program: tensors, index variables, sizes."""
    taken = size_symbols(program) | {i.name for i in program.inputs}
    for step in program.body:
        taken.update(targets_of(step))
        taken.update(indices_of(step))
    return Names(taken)


def indices_of(step: Step) -> list[str]:
    """Names of the index variables a step binds, its own first, then those of its reductions (with repeats, if any)."""
    if isinstance(step, (Join, Select, Spread)):
        return [i.name for i in step.indices]
    if not isinstance(step, (Comprehension, Scatter)):
        return []
    out = [i.name for i in step.indices]
    for root in (step.body, *(step.at if isinstance(step, Scatter) else ())):
        out += [i.name for r in reduces(root) for i in r.over]
    return out


def counted_by(step: Step) -> set[str]:
    """Names of the patterns whose number of elements is a size of the step: `A` for `A.nnz`."""
    names: set[str] = set()
    for type in step.types if isinstance(step, (Extern, Cond, While)) else (step.type,):
        for extent in type.shape:
            names |= symbols(extent)
    if isinstance(step, (Comprehension, Scatter, Select, Spread, Join)):
        for index in step.indices:
            names |= symbols(index.extent)
    if isinstance(step, Scatter):
        for wanted in step.requires:
            names |= symbols(wanted.left) | symbols(wanted.right)
    if owns_a_pattern(step):
        names -= {nnz_of(n) for n in targets_of(step)}
    if isinstance(step, (Comprehension, Scatter)):
        for root in (step.body, *(step.at if isinstance(step, Scatter) else ())):
            names |= {n for n in free(root) if n.endswith(_NNZ)}
    return {name.removesuffix(_NNZ) for name in names if name.endswith(_NNZ)}


_NNZ = nnz_of("")


def reads_of(step: Step) -> set[str]:
    """Names of all tensors that a step depends on, patterns that count its sizes among them; its own target too if it is a recurrence."""
    return read_by(step) | counted_by(step)


def read_by(step: Step) -> set[str]:
    """Names of all tensors whose elements or coordinates a step reads."""
    match step:
        case Comprehension() | Scatter():
            out = {w.tensor for w in step.within}
            for root in (step.body, *(step.at if isinstance(step, Scatter) else ())):
                for n in each(root):
                    if type(n) is Load:
                        out.add(n.array)
                    elif type(n) is Reduce:
                        out.update(w.tensor for w in n.within)
            if isinstance(step, Scatter) and lies_along(step) and step.type.pattern is not None:
                out.add(step.type.pattern.owner)
            return out | ({step.base} if isinstance(step, Scatter) and step.base is not None else set())
        case Join():
            return {w.tensor for w in step.parts}
        case Select():
            return {load.array for load in loads(step.at)}
        case Spread():
            return {load.array for load in loads(step.length)}
        case Listing():
            return {step.of}
        case Extern():
            return set(step.args)
        case Cond():
            return {step.predicate, *step.args}
        case While():
            return {*step.init, *step.args}
        case _:
            assert_never(step)


def rename_tensors(step: Step, names: Mapping[str, str]) -> Step:
    """The step with the tensors that it reads renamed; patterns stay, since inputs own them."""

    if not names:
        return step

    def new(name: str) -> str:
        return names.get(name, name)

    def withins(of: tuple[Within, ...]) -> tuple[Within, ...]:
        return tuple(Within(new(w.tensor), w.indices) for w in of)

    def node(n: Any) -> Any:
        match n:
            case Load(array, indices, dtype) if array in names:
                return Load(names[array], indices, dtype)
            case Reduce() if any(w.tensor in names for w in n.within):
                return dataclasses.replace(n, within=withins(n.within))
            case _:
                return n

    def change(body: Any) -> Any:
        return bottom_up(body, node)

    match step:
        case Comprehension():
            return dataclasses.replace(step, body=change(step.body), within=withins(step.within))
        case Scatter():
            at, within = tuple(change(a) for a in step.at), withins(step.within)
            base = None if step.base is None else new(step.base)
            return dataclasses.replace(step, base=base, at=at, body=change(step.body), within=within)
        case Join():
            return dataclasses.replace(step, clauses=tuple(withins(c) for c in step.clauses))
        case Select():
            return dataclasses.replace(step, at=change(step.at))
        case Spread():
            return dataclasses.replace(step, length=change(step.length))
        case Listing():
            return dataclasses.replace(step, of=new(step.of))
        case Extern():
            return dataclasses.replace(step, args=tuple(map(new, step.args)))
        case Cond():
            return dataclasses.replace(step, predicate=new(step.predicate), args=tuple(map(new, step.args)))
        case While():
            return dataclasses.replace(step, init=tuple(map(new, step.init)), args=tuple(map(new, step.args)))
        case _:
            assert_never(step)


def map_regions(step: Step, change: Callable[[Program], Program]) -> Step:
    """The step with `change` applied to its regions, if it has any; the same object if they stay."""
    match step:
        case Cond():
            then, orelse = change(step.then), change(step.orelse)
            same = then is step.then and orelse is step.orelse
            return step if same else dataclasses.replace(step, then=then, orelse=orelse)
        case While():
            condition, body = change(step.condition), change(step.body)
            same = condition is step.condition and body is step.body
            return step if same else dataclasses.replace(step, condition=condition, body=body)
        case _:
            return step
