"""Which instances must stay in order.

Two instances conflict if they touch the same element and one of them writes it. Statements stand in program order, so
between different statements a conflict is a dependence as it is; within one statement the lexicographic order of its dims
decides. These memory-based dependences keep every write in place; may-accesses count like must-accesses.

An update `T[at] monoid= value` depends on itself only by the order of combination, which an associative monoid does not
care about: those conflicts are kept aside as `relaxed` (a known element) or `scattered` (an element read from memory).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import TYPE_CHECKING

from polyai.poly.context import bounded, domains, relations
from polyai.poly.evident import known_element, never_repeated
from polyai.poly.nodes import Scop, Statement
from polyai.term.late import late
from polyai.term.node import node

if TYPE_CHECKING:
    import islpy as isl
else:
    isl = late("islpy")

QUOTA = 500_000


@node
class Deps:
    """`order`: source before target. `relaxed`, `scattered`: pairs of updates of one element, in either order but not at once;
    of a scattered element nothing is known before the kernel runs. `note` says what was given up, if anything."""

    order: isl.UnionMap
    relaxed: isl.UnionMap
    scattered: isl.UnionMap
    note: str = ""


def dependences(scop: Scop, arrays: Collection[str] | None = None, domain: isl.UnionSet | None = None) -> Deps:
    """All flow, anti and output dependences of the program order, or those through some `arrays`. `domain`: that of the scop, if
    it is at hand."""
    concerned = {a.name for a in scop.arrays} if arrays is None else set(arrays)
    position = {s.name: p for p, s in enumerate(scop.statements)}
    by_name = {s.name: s for s in scop.statements}
    domain = domains(scop) if domain is None else domain
    writes = relations(scop, [s.write.text for s in scop.statements if s.target in concerned]).intersect_domain(domain)
    written = {s.target for s in scop.statements} & concerned
    texts = [r.text for s in scop.statements for r in s.reads if r.array in written]
    reads = relations(scop, texts).intersect_domain(domain)
    empty = isl.UnionMap.empty(writes.get_space())
    order, relaxed, scattered = [empty], [empty], [empty]

    def sort(pair: isl.Map, both_write: bool) -> None:
        source, target = (by_name[pair.get_tuple_name(t)] for t in (isl.dim_type.in_, isl.dim_type.out))
        if position[source.name] < position[target.name]:
            order.append(isl.UnionMap.from_map(pair))
        elif position[source.name] > position[target.name]:
            if not both_write:
                order.append(isl.UnionMap.from_map(pair.reverse()))
        elif both_write and source.monoid is not None:
            kind = relaxed if known_element(source) else scattered
            kind.append(isl.UnionMap.from_map(_distinct(source, pair)))
        else:
            earlier = isl.Map.lex_lt(pair.get_space().domain())
            pair = _distinct(source, pair) if both_write else pair
            order.append(isl.UnionMap.from_map(pair.intersect(earlier)))
            if not both_write:
                order.append(isl.UnionMap.from_map(pair.reverse().intersect(earlier)))

    writes.apply_range(reads.reverse()).foreach_map(lambda m: sort(m, False))
    writes.apply_range(writes.reverse()).foreach_map(lambda m: sort(m, True))
    return Deps(*(_sum(part) for part in (order, relaxed, scattered)))


def flow(scop: Scop, quota: int = QUOTA) -> Deps:
    """Dependences with value-based flow: a read depends on the last write only, which gives isl's scheduler more freedom.

    Not so through arrays that are reduced into: once the order of updates is free, any of them may be the last. Falls back
    to `dependences`, and says so in `note`, when isl needs more than `quota` operations.
    """
    reduced = {s.target for s in scop.statements if s.monoid is not None}
    others = {s.target for s in scop.statements} - reduced
    exact = bounded(lambda: _last_writers(scop, others).union(_storage(scop, others)), quota)
    if exact is None:
        note = "value-based dependences were too expensive: memory-based ones are used"
        return dataclasses.replace(dependences(scop), note=note)
    through_sums = dependences(scop, reduced)
    return dataclasses.replace(through_sums, order=through_sums.order.union(exact))


def _distinct(statement: Statement, pair: isl.Map) -> isl.Map:
    """`pair` without the diagonal, and without pairs whose targets differ because a fibre repeats no coordinate."""
    pair = pair.subtract(isl.Map.identity(pair.get_space()))
    for dim in never_repeated(statement):
        at = statement.dims.index(dim)
        pair = pair.equate(isl.dim_type.in_, at, isl.dim_type.out, at)
    return pair


def _sum(parts: list[isl.UnionMap]) -> isl.UnionMap:
    out = parts[0]
    for part in parts[1:]:
        out = out.union(part)
    return out


def program_order(scop: Scop) -> isl.Schedule:
    """The schedule that runs statements one after another, each in the order of its dims."""
    total: isl.Schedule | None = None
    for s in scop.statements:
        one = isl.UnionSet.read_from_str(isl.DEFAULT_CONTEXT, s.domain)
        part = isl.Schedule.from_domain(one)
        if s.dims:
            identity = isl.MultiUnionPwAff.from_union_map(one.identity())
            part = part.insert_partial_schedule(identity.reset_tuple_id(isl.dim_type.set))
        total = part if total is None else total.sequence(part)
    assert total is not None
    return total


def _accesses(scop: Scop, arrays: Collection[str]) -> tuple[isl.UnionMap, isl.UnionMap, isl.UnionMap]:
    """Reads, must-writes, may-writes of `arrays`."""
    domain = domains(scop)
    reads = [r.text for s in scop.statements for r in s.reads if r.array in arrays]
    must = [s.write.text for s in scop.statements if s.write.must and s.target in arrays]
    may = [s.write.text for s in scop.statements if not s.write.must and s.target in arrays]
    first, second, third = (relations(scop, texts).intersect_domain(domain) for texts in (reads, must, may))
    return first, second, third


def _last_writers(scop: Scop, arrays: Collection[str]) -> isl.UnionMap:
    reads, must, may = _accesses(scop, arrays)
    access = isl.UnionAccessInfo.from_sink(reads).set_must_source(must).set_may_source(may)
    return access.set_schedule(program_order(scop)).compute_flow().get_may_dependence()


def _storage(scop: Scop, arrays: Collection[str]) -> isl.UnionMap:
    """Anti and output dependences."""
    order = program_order(scop).get_map()
    reads, must, may = _accesses(scop, arrays)
    writes = must.union(may)
    return reads.union(writes).apply_range(writes.reverse()).intersect(order.lex_lt_union_map(order))
