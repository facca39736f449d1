"""Choose in which order a product of several tensors is summed, by cost.

    T[i: n, j: m] f32 = sum(k: n) A[i, k] * X[k, j]   within A(i, k)
    Y[i_1: n, l: h] f32 = sum(j_1: m) T[i_1, j_1] * W[j_1, l]
    ->
    Y_chain[k_1: n, l_1: h] f32 = sum(j_1: m) X[k_1, j_1] * W[j_1, l_1]
    Y[i_1: n, l: h] f32 = sum(k: n) A[i_1, k] * Y_chain[k, l]   within A(i_1, k)

if h is smaller than m. Sums of products whose intermediate results nobody else reads are taken together (up to six factors)
and split into products of two by dynamic programming over subsets of the factors. Costs count stored elements, and the
bytes of intermediate results. Proves legality for real numbers; floats round differently, within the documented bound.
Where the order stays, the text stays. Wants canonical form.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from itertools import combinations
from typing import Any

from polyai.scalar.expr import Apply, Load, Var
from polyai.tensor.bodies import (
    apply,
    map_regions,
    names_of,
    owner_within,
    reads_of,
    refresh,
    rename,
    stem,
    stored_at,
    substitute,
    var,
)
from polyai.tensor.cost import Counter, is_plain
from polyai.tensor.nodes import Body, Comprehension, Index, Program, Reduce, Step, TensorType, Within, types_of
from polyai.tensor.passes.fold import without_dead_steps
from polyai.term.names import Names
from polyai.term.node import node

Types = Mapping[str, TensorType]

LONGEST = 6
_WORTH = 0.8
_BYTE = 0.5
"""Operations that one byte of an intermediate result, written and read again, is as dear as."""


def run(program: Program, sizes: Mapping[str, int] | None = None) -> Program:
    """The program with its chains of products in the cheapest order; `sizes` are typical values of symbols."""
    chosen = dict(sizes or {})
    types = types_of(program)
    names = names_of(program)
    readers: dict[str, int] = {}
    for step in program.body:
        for name in reads_of(step):
            readers[name] = readers.get(name, 0) + 1
    once = {name for name, count in readers.items() if count == 1} - set(program.outputs)
    chains: dict[str, _Chain] = {}
    out: list[Step] = []
    for given in program.body:
        step = map_regions(given, lambda region: run(region, chosen))
        chain = _chain_of(step, types)
        if chain is not None:
            chain = _extended(chain, chains, once, names)
            chains[chain.step.target] = chain
            if len(chain.factors) > 2:
                out += _Split(chain, types, chosen, names).steps()
                continue
        out.append(step)
    return without_dead_steps(dataclasses.replace(program, body=tuple(out)))


@node
class _Chain:
    """target[indices] = sum(over) of the product of `factors`; `given` is what the steps cost as they are."""

    step: Comprehension
    over: tuple[Index, ...]
    factors: tuple[Load, ...]
    parts: tuple[Comprehension, ...]


def _chain_of(step: Step, types: Types) -> _Chain | None:
    """A sum of products of accesses by distinct variables, dense, in floats, restricted by its own sparse factors only."""
    if not isinstance(step, Comprehension) or step.type.is_sparse or not isinstance(step.body, Reduce):
        return None
    reduce = step.body
    factors = _factors(reduce.body)
    if reduce.monoid != "add" or not reduce.dtype.is_float or factors is None or len(factors) < 2:
        return None
    if any(f.array == step.target or f.dtype != reduce.dtype or not is_plain(f) for f in factors):
        return None
    own = {stored_at(f, types) for f in factors if types[f.array].is_sparse}
    if not {owner_within(w, types) for w in reduce.within} <= own or len(own) > 1:
        return None
    return _Chain(step, reduce.over, factors, (step,)) if _joined(reduce.over, factors) else None


def _joined(over: tuple[Index, ...], factors: tuple[Load, ...]) -> bool:
    """Whether every summed variable joins two factors: a split sums a variable where its factors meet, and nowhere else."""
    return all(sum(any(isinstance(x, Var) and x.name == i.name for x in f.indices) for f in factors) > 1 for i in over)


def _factors(body: Body) -> tuple[Load, ...] | None:
    match body:
        case Load():
            return (body,)
        case Apply("mul", (a, b)):
            left, right = _factors(a), _factors(b)
            return None if left is None or right is None else left + right
        case _:
            return None


def _extended(chain: _Chain, chains: Mapping[str, _Chain], once: set[str], names: Names) -> _Chain:
    """Factors that are themselves products, and read by this step only, replaced by their factors."""
    for factor in chain.factors:
        inner = chains.get(factor.array)
        if inner is None or factor.array not in once or sum(f.array == factor.array for f in chain.factors) > 1:
            continue
        if len(chain.factors) - 1 + len(inner.factors) > LONGEST:
            continue
        fresh: dict[str, Body] = {i.name: var(names.fresh(stem(i.name))) for i in inner.over}
        at: dict[str, Body] = {i.name: index for i, index in zip(inner.step.indices, factor.indices)}
        moved: list[Any] = [substitute(f, {**at, **fresh}) for f in inner.factors]
        over = tuple(Index(fresh[i.name].name, i.extent) for i in inner.over if isinstance(fresh[i.name], Var))  # type: ignore[union-attr]
        place = chain.factors.index(factor)
        factors = (*chain.factors[:place], *moved, *chain.factors[place + 1 :])
        if not _joined(chain.over + over, factors):
            continue
        chain = _Chain(chain.step, chain.over + over, factors, (*inner.parts, *chain.parts))
    return chain


class _Split:
    """The cheapest way to sum one chain, product by product."""

    def __init__(self, chain: _Chain, types: Types, sizes: Mapping[str, int], names: Names) -> None:
        self.chain, self.types, self.names = chain, types, names
        self.count = Counter(types, sizes)
        self.extents = {i.name: i for i in (*chain.step.indices, *chain.over)}
        self.result = {i.name for i in chain.step.indices}
        self.vars = [frozenset(i.name for i in f.indices if isinstance(i, Var)) for f in chain.factors]
        self.sparse = [stored_at(f, types) if types[f.array].is_sparse else None for f in chain.factors]
        self.best: dict[frozenset[int], tuple[float, tuple[frozenset[int], frozenset[int]] | None]] = {}

    def steps(self) -> list[Step]:
        """The steps that compute the chain; those it had if no order is much cheaper."""
        everything = frozenset(range(len(self.chain.factors)))
        cost = self._solve(everything)
        if cost >= _WORTH * self._given():
            return [self.chain.step]
        out: list[Step] = []
        self._build(everything, out, last=True)
        return out

    def _given(self) -> float:
        total = 0.0
        for part in self.chain.parts:
            assert isinstance(part.body, Reduce)
            total += self.count.points(part.indices + part.body.over, part.within + part.body.within) * 2
            if part is not self.chain.step:
                total += _BYTE * 2 * part.type.dtype.bytes * self.count.stored(part.target)
        return total

    def _kept(self, group: frozenset[int]) -> frozenset[str]:
        """Variables of a partial product: those that the result or a factor outside it still needs."""
        outside: set[str] = set(self.result)
        for n in range(len(self.vars)):
            if n not in group:
                outside |= self.vars[n]
        return frozenset().union(*(self.vars[n] for n in group)) & outside

    def _solve(self, group: frozenset[int]) -> float:
        if group in self.best:
            return self.best[group][0]
        if len(group) == 1:
            self.best[group] = (0.0, None)
            return 0.0
        best: tuple[float, tuple[frozenset[int], frozenset[int]] | None] = (float("inf"), None)
        first = min(group)
        others = sorted(group - {first})
        for size in range(len(others)):
            for chosen in combinations(others, size):
                left = frozenset({first, *chosen})
                right = group - left
                cost = self._solve(left) + self._solve(right) + self._join(left, right)
                if cost < best[0]:
                    best = (cost, (left, right))
        self.best[group] = best
        return best[0]

    def _join(self, left: frozenset[int], right: frozenset[int]) -> float:
        """The cost of one product: points, and the bytes of its result unless it is the last."""
        group = left | right
        kept = self._kept(group)
        names = self._kept(left) | self._kept(right)
        sparse = [w for w in (self._alone(left), self._alone(right)) if w is not None]
        whole = len(group) == len(self.vars)
        if len(sparse) > 1 or (not whole and any(set(w.indices) <= kept for w in sparse)):
            return float("inf")
        cost = 2 * self.count.points([self.extents[v] for v in sorted(names)], sparse)
        if not whole:
            elements = self.count.points([self.extents[v] for v in sorted(kept)], [])
            cost += _BYTE * 2 * self.chain.step.type.dtype.bytes * elements
        return cost

    def _alone(self, side: frozenset[int]) -> Within | None:
        return self.sparse[next(iter(side))] if len(side) == 1 else None

    def _build(self, group: frozenset[int], out: list[Step], last: bool = False) -> Load:
        """Emit the steps of a group; how its result is read."""
        split = self.best[group][1]
        if split is None:
            return self.chain.factors[next(iter(group))]
        sides = [self._build(side, out) for side in split]
        step = self.chain.step
        kept = self.result if last else self._kept(group)
        order = dict.fromkeys(i.name for f in self.chain.factors for i in f.indices if isinstance(i, Var))
        names = self._kept(split[0]) | self._kept(split[1])
        over = tuple(self.extents[v] for v in order if v in names and v not in kept)
        indices = step.indices if last else tuple(self.extents[v] for v in order if v in kept)
        sparse = tuple(w for w in map(self._alone, split) if w is not None)
        body: Body = apply("mul", step.type.dtype, *sides)
        if over:
            body = Reduce("add", over, body, step.type.dtype, sparse)
        if last:
            out.append(dataclasses.replace(step, body=body))
            return sides[0]
        target = self.names.fresh(f"{stem(step.target)}_chain")
        type = TensorType(step.type.dtype, tuple(i.extent for i in indices))
        fresh = {i.name: self.names.fresh(stem(i.name)) for i in indices}
        new: Any = rename(Comprehension(target, type, indices, refresh(body, self.names)), fresh)
        out.append(new)
        return Load(target, tuple(var(i) for i in indices), step.type.dtype)
