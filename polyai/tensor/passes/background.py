"""Read sparse tensors only where they are stored: everywhere else their zeros become part of a background.

    Y[i: n, j: m] f32 = D[i, j] + exp(A[i, j])
    ->
    Y_background[i: n, j: m] f32 = D[i, j] + exp(0.0)
    Y[i_1, j_1] f32 = D[i_1, j_1] + exp(A[i_1, j_1])   for [i_1: n, j_1: m within A(i_1, j_1)] from Y_background

A reduction over stored and not stored elements splits: what is stored is reduced within A, what is not stored is a value
that does not depend on A, taken as often as the fibre has gaps.

    y[i: n] f32 = max(j: m) A[i, j]
    ->
    y_count[i_1: n] i64 = sum(j_1: m) 1   within A(i_1, j_1)
    y_stored[i_2: n] f32 = max(j: m) A[i_2, j]   within A(i_2, j)
    y[i: n] f32 = max(y_stored[i], where(y_count[i] < m, 0.0, -inf))

A sum of terms with different patterns becomes a sum of sums. What none of these covers gets a dense copy of the sparse
tensor if the result is as large, else it is refused. Proves legality: an element that is not stored is zero.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from polyai.errors import UnsupportedError
from polyai.scalar import dtype as dt
from polyai.scalar.expr import Apply, Cast, Const, Load
from polyai.scalar.ops import MONOIDS
from polyai.tensor.bodies import (
    apply,
    convert,
    free,
    from_size,
    joins_of,
    loads,
    map_regions,
    names_of,
    owner_within,
    parts_within,
    refresh,
    rename,
    replace_loads,
    stem,
    stored_at,
    var,
    zero,
)
from polyai.tensor.nodes import (
    Body,
    Comprehension,
    Index,
    Join,
    Program,
    Reduce,
    Scatter,
    Step,
    TensorType,
    Within,
    types_of,
)
from polyai.tensor.passes.restrict import restricted
from polyai.tensor.support import needed, support, zero_rule
from polyai.term.late import late
from polyai.term.names import Names

if TYPE_CHECKING:
    from polyai.tensor import show
else:
    show = late("polyai.tensor.show")

Types = Mapping[str, TensorType]


def run(program: Program) -> Program:
    """The program with every sparse read under a matching `within`. Wants reductions at the top of bodies (`hoist`)."""
    work = _Background(names_of(program), types_of(program), joins_of(program))
    for step in program.body:
        work.step(step)
    return dataclasses.replace(program, body=tuple(work.out))


class _Background:
    def __init__(self, names: Names, types: dict[str, TensorType], joins: Mapping[str, Join]) -> None:
        self.names, self.types, self.joins = names, types, joins
        self.out: list[Step] = []
        self.dense: dict[str, str] = {}

    def step(self, step: Step) -> None:
        match step:
            case Comprehension():
                self._comprehension(step)
            case Scatter():
                self._scatter(step)
            case _:
                self.out.append(map_regions(step, run))

    def _comprehension(self, step: Comprehension) -> None:
        uncovered = self._uncovered(step)
        if not uncovered:
            self.out.append(step)
        elif step.type.is_sparse:
            owners = ", ".join(dict.fromkeys(w.tensor for w in uncovered))
            raise UnsupportedError(
                f"{step.target} has the pattern of {step.type.pattern.owner if step.type.pattern else ''}, "
                f"and reads {owners} where it may not be stored",
                "two sparse patterns in one element-wise expression need a merge, which is not compiled yet",
                f"convert one operand to dense: {uncovered[0].tensor}.toarray()",
            )
        elif any(load.array == step.target for load in loads(step.body)):
            self.out.append(self._dense_reads(step, uncovered))
        elif isinstance(step.body, Reduce):
            self._reduction(step, step.body, uncovered)
        else:
            self._map(step, uncovered)

    def _uncovered(self, step: Comprehension | Scatter) -> list[Within]:
        """What is read though it may not be stored, told of the owners. Raises UnsupportedError for reads along a diagonal or a shift."""
        around = {owner_within(w, self.types) for w in step.within}
        out: list[Within] = []
        for root in (step.body, *(step.at if isinstance(step, Scatter) else ())):
            inside = around | ({owner_within(w, self.types) for w in root.within} if isinstance(root, Reduce) else set())
            inside |= {part for w in inside for part in parts_within(w, self.joins)}
            for load in loads(root):
                if not self.types[load.array].is_sparse:
                    continue
                at = stored_at(load, self.types)
                if at is None:
                    raise UnsupportedError(
                        f"{show.show_body(load)} reads the sparse tensor {load.array} at computed coordinates",
                        "a sparse tensor can be indexed by distinct index variables (also transposed), not along a diagonal, "
                        "at an offset or by a gather",
                        f"convert it to dense first: {load.array}.toarray()",
                    )
                if at not in inside and at not in out:
                    out.append(at)
        return out

    # --- maps ---

    def _map(self, step: Comprehension, uncovered: list[Within]) -> None:
        """One owner stays sparse: the background, then its stored elements; the others are as large as the result: dense copies."""
        implied = needed(support(step.body, self.types))
        keep = implied[0] if implied else uncovered[0]
        if self._is_padded(keep):
            self._append(self._dense_reads(step, uncovered))
            return
        others = [w for w in uncovered if w != keep]
        if others:
            step = self._dense_reads(step, others)
        background = self.names.fresh(f"{stem(step.target)}_background")
        base: Any = dataclasses.replace(step, target=background, body=_without(step.body, keep, self.types))
        exact = {i.name: self.names.fresh(stem(i.name)) for i in step.indices}
        self._append(base)
        self._append(
            rename(
                Scatter(step.target, step.type, background, None, step.indices, tuple(var(i) for i in step.indices), step.body, (keep,)),
                exact,
            )
        )

    def _dense_reads(self, step: Comprehension, withins: list[Within]) -> Comprehension:
        """The step with reads of these sparse tensors going to dense copies of them."""

        def change(load: Load) -> Body:
            if self.types[load.array].is_sparse and stored_at(load, self.types) in withins:
                return dataclasses.replace(load, array=self._dense_copy(load.array))
            return load

        return dataclasses.replace(step, body=replace_loads(step.body, change))

    def _dense_copy(self, tensor: str) -> str:
        if tensor not in self.dense:
            type = TensorType(self.types[tensor].dtype, self.types[tensor].shape)
            self.dense[tensor] = self.names.fresh(f"{tensor}_dense")
            indices = tuple(Index(self.names.fresh(s), e) for s, e in zip("ijklabcd", type.shape))
            whole = Load(tensor, tuple(var(i) for i in indices), type.dtype)
            kept = stored_at(whole, self.types)
            assert kept is not None
            if self._is_padded(kept):
                base = self.names.fresh(f"{tensor}_zeros")
                self._append(Comprehension(base, type, indices, zero(type.dtype)))
                exact = {i.name: self.names.fresh(stem(i.name)) for i in indices}
                monoid = "or" if type.dtype.kind == "b" else "add"
                self._append(rename(Scatter(self.dense[tensor], type, base, monoid, indices, tuple(var(i) for i in indices), whole, (kept,)), exact))
                return self.dense[tensor]
            self._map(Comprehension(self.dense[tensor], type, indices, whole), [kept])
        return self.dense[tensor]

    def _is_padded(self, within: Within) -> bool:
        """Whether what is written along the pattern would be overwritten by its padding: sums take none."""
        form = self.types[within.tensor].format
        return form is not None and form.padded

    # --- reductions ---

    def _reduction(self, step: Comprehension, reduce: Reduce, uncovered: list[Within]) -> None:
        terms = _terms(reduce.body, self.types) if reduce.monoid == "add" else [reduce.body]
        if len(terms) > 1:
            self._sum_of_sums(step, reduce, terms)
            return
        bound = {i.name for i in reduce.over}
        here = uncovered[0]
        owners = dict.fromkeys(owner_within(w, self.types).tensor for w in (*step.within, *reduce.within, *uncovered))
        if len(owners) > 1:
            raise UnsupportedError(
                f"{step.target} reduces over the union of {' and '.join(owners)}",
                "a sparse union is not compiled yet",
                f"convert one operand to dense: {uncovered[-1].tensor}.toarray()",
            )
        rest = _without(reduce.body, here, self.types)
        gaps_are_alike = len(uncovered) == 1 and bound <= set(here.indices) and not bound & free(rest) and not reduce.within
        if gaps_are_alike and not bound & {v for w in step.within for v in w.indices} and reduce.monoid != "mul":
            self._count_gaps(step, reduce, here, rest)
        else:
            self._comprehension(self._dense_reads(step, uncovered))

    def _sum_of_sums(self, step: Comprehension, reduce: Reduce, terms: list[Body]) -> None:
        total: Body | None = None
        for term in terms:
            part = self._own_step(step, dataclasses.replace(reduce, body=term), "part")
            total = part if total is None else apply("add", reduce.dtype, total, part)
        assert total is not None
        self.out.append(dataclasses.replace(step, body=total))

    def _own_step(self, step: Comprehension, reduce: Reduce, name: str) -> Load:
        """`reduce` as a step beside `step`, over the same indices; how `step` reads it."""
        target = self.names.fresh(f"{stem(step.target)}_{name}")
        body: Any = restricted(refresh(reduce, self.names), self.types, (), self.joins)
        indices = tuple(i for i in step.indices if i.name in free(body))
        new: Any = Comprehension(target, TensorType(reduce.dtype, tuple(i.extent for i in indices)), indices, body)
        self.types[target] = new.type
        renamed: Any = rename(new, {i.name: self.names.fresh(stem(i.name)) for i in indices})
        self._comprehension(renamed)
        return Load(target, tuple(var(i) for i in indices), reduce.dtype)

    def _count_gaps(self, step: Comprehension, reduce: Reduce, here: Within, rest: Body) -> None:
        one = Const(1, dt.i64)
        within = (here,)
        count = self._own_step(step, Reduce("add", reduce.over, one, dt.i64, within), "count")
        stored = self._own_step(step, dataclasses.replace(reduce, within=within), "stored")
        whole: Body = one
        for index in reduce.over:
            whole = from_size(index.extent) if whole is one else apply("mul", dt.i64, whole, from_size(index.extent))
        once = convert(rest, reduce.dtype)
        if reduce.monoid == "add":
            gaps = Cast(apply("sub", dt.i64, whole, count), reduce.dtype)
            once = apply("mul", reduce.dtype, gaps, once)
        nothing = Const(MONOIDS[reduce.monoid].identity(reduce.dtype), reduce.dtype)
        has_gaps = apply("lt", dt.bool_, count, whole)
        body = apply(MONOIDS[reduce.monoid].op, reduce.dtype, stored, apply("where", reduce.dtype, has_gaps, once, nothing))
        self.out.append(dataclasses.replace(step, body=body))

    # --- scatters ---

    def _scatter(self, step: Scatter) -> None:
        """What a scatter reads where it may not be stored is computed in a step of its own before it."""
        if not self._uncovered(step):
            self.out.append(step)
            return
        places = tuple(self._beside(step, at) for at in step.at)
        self.out.append(dataclasses.replace(step, at=places, body=self._beside(step, step.body)))

    def _beside(self, step: Scatter, body: Body) -> Body:
        if not any(self.types[load.array].is_sparse for load in loads(body)):
            return body
        target = self.names.fresh(f"{stem(step.target)}_value")
        type = TensorType(body.dtype, tuple(i.extent for i in step.indices))
        self.types[target] = type
        fresh = {i.name: self.names.fresh(stem(i.name)) for i in step.indices}
        new: Any = rename(Comprehension(target, type, step.indices, body), fresh)
        self._comprehension(new)
        return Load(target, tuple(var(i) for i in step.indices), body.dtype)

    def _append(self, step: Any) -> None:
        self.types[step.target] = step.type
        self.out.append(step)


def _without(body: Body, gone: Within, types: Types) -> Body:
    """`body` where `gone` is not stored: its reads are structural zeros, which annihilate products."""
    left = _vanish(body, gone, types)
    return zero(body.dtype) if left is None else left


def _vanish(body: Any, gone: Within, types: Types) -> Any:
    """None for a structural zero."""
    match body:
        case Load(array) if types[array].is_sparse and stored_at(body, types) == gone:
            return None
        case Cast(arg, dtype):
            left = _vanish(arg, gone, types)
            return None if left is None else convert(left, dtype)
        case Apply("where", (condition, yes, no), dtype):
            test, a, b = (_vanish(x, gone, types) for x in (condition, yes, no))
            if test is None:
                return b
            return None if a is None and b is None else apply("where", dtype, test, _or_zero(a, yes), _or_zero(b, no))
        case Apply(op, args, dtype):
            parts = [_vanish(a, gone, types) for a in args]
            rule = zero_rule(body)
            nothing = [parts[n] is None for n in rule.args]
            if (rule.how == "any" and any(nothing)) or (rule.how == "all" and all(nothing)):
                return None
            return apply(op, dtype, *(_or_zero(p, a) for p, a in zip(parts, args)))
        case _:
            return body


def _or_zero(left: Body | None, was: Body) -> Body:
    return zero(was.dtype) if left is None else left


def _terms(body: Body, types: Types) -> list[Body]:
    """The terms of a sum, products multiplied out over sums that read sparse tensors; one term for each set of patterns needed."""
    groups: dict[tuple[Within, ...], Body] = {}
    for term in _addends(body, types):
        needs = needed(support(term, types))
        groups[needs] = apply("add", body.dtype, groups[needs], term) if needs in groups else term
    return list(groups.values()) if len(groups) > 1 else [body]


def _addends(body: Body, types: Types) -> list[Body]:
    match body:
        case Apply("add", (a, b)):
            return _addends(a, types) + _addends(b, types)
        case Apply("sub", (a, b), dtype):
            return _addends(a, types) + [apply("neg", dtype, t) for t in _addends(b, types)]
        case Apply("neg", (a,), dtype):
            return [apply("neg", dtype, t) for t in _addends(a, types)]
        case Apply("mul", (a, b), dtype) if _is_sparse_sum(a, types) or _is_sparse_sum(b, types):
            left, right = ([x] if not _is_sparse_sum(x, types) else _addends(x, types) for x in (a, b))
            return [apply("mul", dtype, p, q) for p in left for q in right]
        case _:
            return [body]


def _is_sparse_sum(body: Body, types: Types) -> bool:
    """Its terms need different patterns, so that it pays to multiply a product with it out."""
    terms = _addends(body, types)
    return len(terms) > 1 and any(needed(support(t, types)) for t in terms) and not needed(support(body, types))
