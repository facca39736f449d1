"""Is a tensor program well formed? Each check is a function whose name is the sentence it checks; it yields what breaks it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from polyai.errors import VerifyError
from polyai.scalar import dtype as dt
from polyai.scalar.expr import Apply, Cast, Const, Load, Var
from polyai.shapes.expr import SizeExpr, symbols
from polyai.shapes.expr import show as show_size
from polyai.tensor.bodies import in_owner, indices_of, parts_within, reduces, size_symbols, stored_at
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
    owns_a_pattern,
    regroups,
    targets_of,
    types_of,
)
from polyai.tensor.scope import Check, Scope, defined_by, loads_of, regions_of, roots_of
from polyai.tensor.tree import each
from polyai.tensor.typed import dtypes_agree_with_the_table
from polyai.term.late import late

if TYPE_CHECKING:
    from polyai.tensor import show
else:
    show = late("polyai.tensor.show")


def verify(program: Program, region_sizes: frozenset[str] = frozenset()) -> None:
    """Raises VerifyError with the step and the sentence that is broken. Regions of control flow are verified too."""
    _inputs_are_well_formed(program)
    scope = Scope(program)
    scope.sizes |= region_sizes
    for number, step in enumerate(program.body):
        for check in CHECKS:
            for problem in check(step, scope):
                _broken(program, f"step {number}, {', '.join(targets_of(step))}", check.__name__, f"{problem}\n       {show.show_step(step)}")
        scope.define(step)
        scope.indices.update(indices_of(step))
        for region in regions_of(step):
            verify(region, frozenset(scope.sizes))
    grouped = [name for step in program.body if regroups(step) for name in targets_of(step)]
    stored = {f"{name}.{part}" for name in (*program.assembled, *grouped) for part in ("pos1", "crd1", "val")}
    stored |= {f"{name}.crd{level}" for name in program.assembled for level in range(2, len(scope.types[name].shape))}
    for name in program.outputs:
        if name not in scope.types and name not in stored:
            _broken(program, "outputs", "outputs_exist", f"{name} is neither an input nor a target")
    if not program.outputs:
        _broken(program, "outputs", "outputs_exist", "there is none")


def _broken(program: Program, where: str, sentence: str, problem: str) -> None:
    raise VerifyError(f"tensor program {program.name}, {where}: broken: {sentence.replace('_', ' ')}", problem)


def _inputs_are_well_formed(program: Program) -> None:
    names = [i.name for i in program.inputs]
    for given in program.inputs:
        t = given.type
        if names.count(given.name) > 1:
            _broken(program, "inputs", "names_of_inputs_are_unique", given.name)
        if given.name in size_symbols(program):
            _broken(program, "inputs", "names_of_inputs_are_unique", f"{given.name} is also the name of a size")
        own = t.pattern is not None and t.pattern.owner == given.name
        if own != (t.format is not None):
            _broken(program, "inputs", "an_input_that_owns_its_pattern_has_a_format", given.name)
        if own and t.pattern is not None and t.pattern.dims != tuple(range(t.rank)):
            _broken(program, "inputs", "a_sparse_input_owns_its_pattern", f"{given.name} has {t.pattern}")
        if t.format is not None and t.format.rank != t.rank:
            _broken(program, "inputs", "ranks_match", f"{given.name} has rank {t.rank}, its format {t.format.rank}")


# --- the sentences ---------------------------------------------------------------------------------------------------


def names_are_defined_before_use(step: Step, scope: Scope) -> Iterator[str]:
    used = [(load.array, scope.visible(step)) for load in loads_of(step)]
    match step:
        case Scatter():
            used += [(step.base, scope.types)] if step.base is not None else []
        case Join():
            used += [(w.tensor, scope.types) for w in step.parts]
        case Listing():
            used += [(step.of, scope.types)]
        case Extern():
            used += [(a, scope.types) for a in step.args]
        case Cond():
            used += [(a, scope.types) for a in (step.predicate, *step.args)]
        case While():
            used += [(a, scope.types) for a in (*step.init, *step.args)]
        case Comprehension() | Select() | Spread():
            pass
    for root in roots_of(step):
        used += [(w.tensor, scope.types) for n in each(root) if isinstance(n, Reduce) for w in n.within]
    if isinstance(step, (Comprehension, Scatter)):
        used += [(w.tensor, scope.types) for w in step.within]
    for name, known in used:
        if name not in known:
            yield f"{name} is not defined here"


def targets_are_unique(step: Step, scope: Scope) -> Iterator[str]:
    targets = targets_of(step)
    for name in targets:
        if name in scope.types or targets.count(name) > 1:
            yield f"{name} is defined twice"
        if name in scope.sizes:
            yield f"{name} is also the name of a size"


def indices_are_unique(step: Step, scope: Scope) -> Iterator[str]:
    names = indices_of(step)
    for name in names:
        if names.count(name) > 1 or name in scope.indices:
            yield f"index {name} is bound twice"
        if name in scope.sizes:
            yield f"index {name} is also the name of a size"


def variables_are_bound(step: Step, scope: Scope) -> Iterator[str]:
    if not isinstance(step, (Comprehension, Scatter, Select, Spread)):
        return
    bound = {i.name for i in (step.indices[:-1] if isinstance(step, (Select, Spread)) else step.indices)}
    for index in step.indices[:-1] if isinstance(step, Spread) else step.indices:
        yield from _unknown_sizes(index, scope)
    for root in roots_of(step):
        yield from _unbound(root, bound, scope)


def _unbound(body: Body, bound: set[str], scope: Scope) -> Iterator[str]:
    match body:
        case Var(name):
            if name not in bound and name not in scope.sizes:
                yield f"{name} is neither an index variable in scope nor a size"
        case Load(_, parts) | Apply(_, parts):
            for part in parts:
                yield from _unbound(part, bound, scope)
        case Cast(arg):
            yield from _unbound(arg, bound, scope)
        case Reduce():
            for index in body.over:
                yield from _unknown_sizes(index, scope)
            inside = bound | {i.name for i in body.over}
            for w in body.within:
                for name in w.indices:
                    if name not in inside:
                        yield f"{name} in within {w.tensor} is not an index variable in scope"
            yield from _unbound(body.body, inside, scope)
        case Const():
            pass


def _unknown_sizes(index: Index, scope: Scope) -> Iterator[str]:
    for name in sorted(symbols(index.extent) - scope.sizes):
        yield f"size {name} of index {index.name} belongs to no input"


def ranks_match(step: Step, scope: Scope) -> Iterator[str]:
    known = scope.visible(step)
    for load in loads_of(step):
        if len(load.indices) != known[load.array].rank:
            yield f"{show.show_body(load)}: {load.array} has rank {known[load.array].rank}"
    match step:
        case Comprehension():
            shape = tuple(i.extent for i in step.indices)
            if shape != step.type.shape:
                yield f"the indices run over {_shape(shape)}, the type says {_shape(step.type.shape)}"
        case Scatter():
            base = step.type if step.base is None else scope.types[step.base]
            if len(step.at) != step.type.rank:
                yield f"{len(step.at)} places for rank {step.type.rank}"
            if base.shape != step.type.shape or base.dtype != step.type.dtype or base.is_sparse != (step.base is None):
                yield f"the base {step.base} is not a dense tensor of the target's type"
        case Join() | Select() | Spread():
            if tuple(i.extent for i in step.indices) != step.type.shape:
                yield f"the indices of {step.target} do not run over its shape"
        case Listing():
            pass
        case Extern() | Cond() | While():
            if len(step.targets) != len(step.types):
                yield f"{len(step.targets)} targets, {len(step.types)} types"


def _shape(shape: tuple[int | SizeExpr, ...]) -> str:
    return f"[{', '.join(show_size(s) for s in shape)}]"


def withins_name_stored_coordinates(step: Step, scope: Scope) -> Iterator[str]:
    if isinstance(step, Join):
        names = sorted(i.name for i in step.indices)
        if not step.clauses or not all(step.clauses):
            yield f"{step.target} joins nothing"
        for w in step.parts:
            yield from _within(w, scope)
            if sorted(w.indices) != names:
                yield f"{w.tensor}({', '.join(w.indices)}) is not over the indices of {step.target}"
    if not isinstance(step, (Comprehension, Scatter)):
        return
    bound = {i.name for i in step.indices}
    for w in step.within:
        yield from _within(w, scope)
        for name in w.indices:
            if name not in bound:
                yield f"{name} in within {w.tensor} is not an index of the step"
    for root in roots_of(step):
        for reduce in reduces(root):
            for w in reduce.within:
                yield from _within(w, scope)


def _within(within: Within, scope: Scope) -> Iterator[str]:
    type = scope.types[within.tensor]
    if not type.is_sparse:
        yield f"within {within.tensor}: {within.tensor} is dense"
    if len(within.indices) != type.rank:
        yield f"within {within.tensor}: {len(within.indices)} variables for rank {type.rank}"
    if len(set(within.indices)) != len(within.indices):
        yield f"within {within.tensor}: a variable is named twice"


def sparse_targets_are_stored_within_their_owner(step: Step, scope: Scope) -> Iterator[str]:
    for name, type in defined_by(step):
        if owns_a_pattern(step):
            if type.pattern != Pattern(name, tuple(range(type.rank))) or type.format is None or type.format.rank != type.rank:
                yield f"{name} makes a pattern, so it owns it and has a format of its rank"
            return
        if type.pattern is None:
            continue
        owner = scope.types.get(type.pattern.owner)
        if owner is None or owner.format is None:
            yield f"the pattern of {name} belongs to {type.pattern.owner}, which is not a sparse input"
            return
        if sorted(type.pattern.dims) != list(range(owner.rank)) or type.rank != owner.rank:
            yield f"the pattern of {name} is no permutation of the dimensions of {type.pattern.owner}"
            return
        if isinstance(step, Scatter) and (step.base is not None or step.monoid is None or step.grouped):
            yield f"{name} is scattered into, so it is dense, or begins at nothing and combines what meets"
    match step:
        case Comprehension():
            if step.type.pattern is None and step.within:
                yield f"{step.target} is dense, so it is defined everywhere"
            if step.type.pattern is not None and {_owned(w, scope) for w in step.within} != {
                in_owner(step.type.pattern, tuple(i.name for i in step.indices))
            }:
                yield f"{step.target} is stored where {step.type.pattern.owner} is; its within says something else"
        case _:
            pass


def listings_hold_what_a_sparse_tensor_stores(step: Step, scope: Scope) -> Iterator[str]:
    if not isinstance(step, Listing):
        return
    listed = scope.types[step.of]
    if listed.pattern is None or step.of in scope.without_values:
        yield f"{step.of} stores no values of its own"
    elif step.type.is_sparse or step.type.rank != 1 or step.type.dtype != listed.dtype:
        yield f"{step.target} is not a dense vector of what {step.of} stores"


def joins_are_of_patterns_only(step: Step, scope: Scope) -> Iterator[str]:
    """A join or a selection holds no values to read."""
    for load in loads_of(step):
        if load.array in scope.without_values:
            yield f"{show.show_body(load)} reads the pattern {load.array}, which holds no values"


def _owned(within: Within, scope: Scope) -> Within:
    pattern = scope.types[within.tensor].pattern
    return within if pattern is None else in_owner(pattern, within.indices)


def regions_have_the_types_of_their_step(step: Step, scope: Scope) -> Iterator[str]:
    match step:
        case Cond():
            predicate = scope.types[step.predicate]
            if predicate.rank or predicate.dtype != dt.bool_:
                yield f"predicate {step.predicate} is not a scalar bool"
            for region in (step.then, step.orelse):
                yield from _region_inputs(region, [scope.types[a] for a in step.args])
                yield from _region_outputs(region, list(step.types))
        case While():
            state = [scope.types[a] for a in step.init]
            given = state + [scope.types[a] for a in step.args]
            for region in (step.condition, step.body):
                yield from _region_inputs(region, given)
            yield from _region_outputs(step.condition, [TensorType(dt.bool_, ())])
            yield from _region_outputs(step.body, list(step.types))
            if [t.dtype for t in state] != [t.dtype for t in step.types] or len(state) != len(step.targets):
                yield "init and targets differ in number or dtype"
        case _:
            pass


def _region_inputs(region: Program, given: list[TensorType]) -> Iterator[str]:
    if len(region.inputs) != len(given):
        yield f"region {region.name} takes {len(region.inputs)} inputs, is given {len(given)}"
    for wanted, has in zip(region.inputs, given):
        if wanted.type.dtype != has.dtype or wanted.type.rank != has.rank or wanted.type.is_sparse != has.is_sparse:
            yield f"input {wanted.name} of region {region.name} does not have the type of its argument"


def _region_outputs(region: Program, wanted: list[TensorType]) -> Iterator[str]:
    types = types_of(region)
    if len(region.outputs) != len(wanted):
        yield f"region {region.name} gives {len(region.outputs)} outputs, the step has {len(wanted)}"
    for name, want in zip(region.outputs, wanted):
        has = types.get(name)
        if has is not None and (has.dtype != want.dtype or has.rank != want.rank):
            yield f"output {name} of region {region.name} does not have the type of its target"


CHECKS: tuple[Check, ...] = (
    names_are_defined_before_use,
    targets_are_unique,
    indices_are_unique,
    variables_are_bound,
    ranks_match,
    dtypes_agree_with_the_table,
    withins_name_stored_coordinates,
    sparse_targets_are_stored_within_their_owner,
    joins_are_of_patterns_only,
    listings_hold_what_a_sparse_tensor_stores,
    regions_have_the_types_of_their_step,
)


# --- the canonical form ----------------------------------------------------------------------------------------------


def a_reduction_stands_only_at_the_top(step: Step, scope: Scope) -> Iterator[str]:
    if isinstance(step, Scatter) and any(next(reduces(r), None) is not None for r in roots_of(step)):
        yield "a scatter holds a reduction"
    if isinstance(step, Comprehension):
        inside = step.body.body if isinstance(step.body, Reduce) else step.body
        if next(reduces(inside), None) is not None:
            yield "a reduction is nested in the body"
        if isinstance(step.body, Reduce) and step.body.body.dtype != step.body.dtype:
            yield f"the reduction's body is {step.body.body.dtype}, its accumulator {step.body.dtype}"


def sparse_reads_are_within_their_pattern(step: Step, scope: Scope) -> Iterator[str]:
    if not isinstance(step, (Comprehension, Scatter)):
        return
    around = {_owned(w, scope) for w in step.within}
    for root in roots_of(step):
        inside = around | ({_owned(w, scope) for w in root.within} if isinstance(root, Reduce) else set())
        inside |= {part for w in inside for part in parts_within(w, scope.joins)}
        for node in each(root):
            if isinstance(node, Load) and scope.visible(step)[node.array].is_sparse and stored_at(node, scope.visible(step)) not in inside:
                yield f"{show.show_body(node)} is read where it may not be stored"


CANONICAL: tuple[Check, ...] = (a_reduction_stands_only_at_the_top, sparse_reads_are_within_their_pattern)


def verify_canonical(program: Program) -> None:
    """`verify`, and the form that lowering takes: reductions only at the top of a body, sparse reads under a matching `within`."""
    verify(program)
    _canonical_steps(program)


def _canonical_steps(program: Program) -> None:
    scope = Scope(program)
    for number, step in enumerate(program.body):
        for check in CANONICAL:
            for problem in check(step, scope):
                _broken(program, f"step {number}, {', '.join(targets_of(step))}", check.__name__, f"{problem}\n       {show.show_step(step)}")
        scope.define(step)
        for region in regions_of(step):
            _canonical_steps(region)
