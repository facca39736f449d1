"""What must hold before code is made: each function's name is the sentence that it checks, and raises ScheduleError if it does not.

Legality is checked on the hull of ragged dims. The filters under bind marks only remove instances, and every fibre length
up to the hull occurs among the parameters' values, so a schedule that is legal for the hull stays legal.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, TypeAlias, assert_never

from polyai.errors import ScheduleError, VerifyError
from polyai.poly import ranges
from polyai.poly import tree as st
from polyai.poly.access import begins_below_zero, guards_of, loads_in, variables_in
from polyai.poly.affine import Parameters, affine
from polyai.poly.context import domains, parameters, relations
from polyai.poly.deps import Deps
from polyai.poly.evident import evidently_legal
from polyai.poly.nodes import JAM, PARALLEL, VECTOR, Array, Drain, Ragged, RaggedDim, Relation, Scop, Statement, hull_of, isl_name
from polyai.poly.ties import Ties, equal, ties
from polyai.scalar import dtype as dt
from polyai.scalar.expr import Apply, Cast, Expr, Load, Var
from polyai.shapes.expr import Size
from polyai.term.late import late

if TYPE_CHECKING:
    import islpy as isl
else:
    isl = late("islpy")


def check(scop: Scop, deps: Deps | Callable[[], Deps], bounds: bool = True) -> None:
    """Everything below: the gate that every scheduled scop passes. `bounds`: also check accesses, which no schedule changes.
    `deps`: the dependences, or what finds them if they are not evident."""
    tree = _tree(scop)
    if bounds:
        in_bounds(scop)
    ragged_arrays_are_indexed_along_their_fibres(scop)
    every_statement_has_its_leaf_and_its_loops(scop, tree)
    if not evidently_legal(scop, tree):
        legal(scop, deps() if callable(deps) else deps, tree)
    no_stranger_in_a_ragged_loop(scop, tree)
    fibres_are_bound_below_their_owners(scop, tree)


def _tree(scop: Scop) -> st.Tree:
    if scop.schedule is None:
        raise VerifyError("a scop without a schedule was to be checked")
    return st.read(scop, scop.schedule)


def legal(scop: Scop, deps: Deps, tree: st.Tree | None = None) -> None:
    """Every dependence runs forward, and no loop that is marked parallel, vector or jam carries one."""
    tree = tree or _tree(scop)
    every_statement_has_its_leaf_and_its_loops(scop, tree)
    _Checker(scop).visit(tree, split(deps.order), split(deps.relaxed), split(deps.scattered))


def every_statement_has_its_leaf_and_its_loops(scop: Scop, tree: st.Tree) -> None:
    """Each statement has one leaf, and a place in each loop above it; nothing else has."""
    placed = tuple(st.statements_of(tree))
    missing = [s.name for s in scop.statements if s.name not in placed]
    if missing:
        raise ScheduleError(f"the schedule forgets {', '.join(missing)}", "each statement needs a leaf", "add it to the tree")
    if len(placed) != len(scop.statements):
        raise ScheduleError("the schedule has too many leaves", f"statements are {', '.join(sorted(placed))}", "give each statement one leaf")
    for band in st.bands_of(tree):
        if sorted(n for n, _ in band.members) != sorted(st.statements_of(band.child)):
            raise ScheduleError("a loop has no place for a statement inside it", f"it has {', '.join(n for n, _ in band.members)}", "give it one")


Pairs: TypeAlias = "tuple[tuple[str, str, isl.Map], ...]"
"""Dependences by the names of their source and target."""


def split(union: isl.UnionMap) -> Pairs:
    found: list[tuple[str, str, isl.Map]] = []
    union.foreach_map(lambda m: found.append((m.get_tuple_name(isl.dim_type.in_), m.get_tuple_name(isl.dim_type.out), m)))
    return tuple(pair for pair in found if not pair[2].is_empty())


def joined(pairs: Pairs) -> isl.UnionMap:
    out = isl.UnionMap.from_map(pairs[0][2])
    for _, _, pair in pairs[1:]:
        out = out.union(isl.UnionMap.from_map(pair))
    return out


Carried: TypeAlias = "isl.UnionMap | None"
"""The dependences that a loop carries; None if it carries none."""


def places(scop: Scop, band: st.Band) -> isl.MultiUnionPwAff:
    """The partial schedule of a loop."""
    statements = {s.name: s for s in scop.statements}
    parts = []
    for name, place in band.members:
        dims = statements[name].dims
        parts.append(f"{name}[{', '.join(dims)}] -> [({affine(place, {*dims, *scop.parameters})})]")
    return isl.MultiUnionPwAff.read_from_str(isl.DEFAULT_CONTEXT, st.band_text(st.parameter_list(scop), "; ".join(parts)))


class _Checker:
    def __init__(self, scop: Scop) -> None:
        self.scop = scop
        self.dims = {s.name: s.dims for s in scop.statements}
        self.ties: dict[tuple[int, str, str], Ties] = {}

    def _separated(self, band: st.Band, groups: tuple[Pairs, Pairs, Pairs]) -> Iterator[tuple[Pairs, Carried]]:
        """Of each group, what stays within one iteration of the loop, and what the loop carries."""
        at = dict(band.members)
        place: isl.MultiUnionPwAff | None = None
        for number, pairs in enumerate(groups):
            known = [self._stays(number, pair, at) for pair in pairs]
            if all(known):
                yield pairs, None
                continue
            place = places(self.scop, band) if place is None else place
            asked = joined(tuple(pair for pair, stays in zip(pairs, known, strict=True) if not stays))
            same = asked.eq_at_multi_union_pw_aff(place)
            carried = asked.subtract(same)
            if carried.is_empty():
                yield pairs, None
            else:
                yield (*(pair for pair, stays in zip(pairs, known, strict=True) if stays), *split(same)), carried

    def _stays(self, number: int, pair: tuple[str, str, isl.Map], at: Mapping[str, Expr]) -> bool:
        """True if it is plain that both ends of every dependence of `pair` are in one iteration. False: not known."""
        source, target, relation = pair
        key, here, there = (number, source, target), self.dims[source], self.dims[target]
        tied = self.ties.get(key)
        if tied is None:  # of all pairs: loops above only took some away
            tied = self.ties[key] = ties(relation, here, there)
        return equal(at[source], at[target], tied, here, there)

    def visit(self, tree: st.Tree, order: Pairs, relaxed: Pairs, scattered: Pairs) -> None:
        """`order`, `relaxed` and `scattered` hold the pairs that no loop above has separated."""
        if not order and not relaxed and not scattered:
            return
        match tree:
            case st.Leaf():
                if order:
                    self._refuse("is not ordered after", order, "give the loops an order")
            case st.Bind(_, _, child):
                self.visit(child, order, relaxed, scattered)
            case st.Band(_, child, marks, _):
                kept, carried = zip(*self._separated(tree, (order, relaxed, scattered)), strict=True)
                if carried[0] is not None:
                    backward = carried[0].lex_gt_at_multi_union_pw_aff(places(self.scop, tree))
                    if not backward.is_empty():
                        self._refuse("runs before", split(backward), "keep the order of the program in this loop")
                self._marks(marks, *carried)
                self.visit(child, *kept)
            case st.Sequence(children):
                home = {name: position for position, child in enumerate(children) for name in st.statements_of(child)}
                backward_pairs = tuple(pair for pair in order if home[pair[0]] > home[pair[1]])
                if backward_pairs:
                    self._refuse("runs before", backward_pairs, "keep the order of the program in this sequence")
                for position, child in enumerate(children):
                    mine = [tuple(p for p in d if home[p[0]] == home[p[1]] == position) for d in (order, relaxed, scattered)]
                    self.visit(child, *mine)
            case _:
                assert_never(tree)

    def _marks(self, marks: tuple[str, ...], order: Carried, relaxed: Carried, scattered: Carried) -> None:
        for mark in marks:
            kind = mark.partition("=")[0]
            if kind not in (PARALLEL, VECTOR, JAM):
                continue
            forbidden = {PARALLEL: (order, relaxed, scattered), VECTOR: (order, scattered), JAM: (order,)}[kind]
            for carried in forbidden:
                if carried is not None:
                    self._refuse(f"is carried by the {kind} loop over", split(carried), "mark a loop that carries no dependence")

    def _refuse(self, verb: str, pairs: Pairs, remedy: str) -> None:
        source, target, pair = pairs[0]
        if "carried" in verb:
            what = f"the dependence of {target} on {source} {verb} them"
        else:
            what = f"{target} {verb} {source}, on which it depends"
        raise ScheduleError(what, f"for example {_body(isl.Map.from_basic_map(pair.sample()))}", remedy)


def _body(sample: isl.Map | isl.Set) -> str:
    return st.braces(str(sample))


def in_bounds(scop: Scop, domain: isl.UnionSet | None = None) -> None:
    """Every affine access lies inside its array, for all sizes that the context allows. `domain`: that of the scop, if at hand."""
    accesses = [(s, r) for s in scop.statements for r in _in_question(scop, s)]
    if not accesses:
        return
    domain = domains(scop) if domain is None else domain
    touched = relations(scop, [r.text for _, r in accesses]).intersect_domain(domain).range()
    used = {r.array for _, r in accesses}
    boxes = [box(scop, a) for a in scop.arrays if a.name in used]
    inside = isl.UnionSet.read_from_str(isl.DEFAULT_CONTEXT, f"{st.parameter_list(scop)} -> {{ {'; '.join(boxes)} }}")
    context = parameters(scop)
    if touched.intersect_params(context).is_subset(inside):
        return
    for statement, relation in accesses:
        outside = _range(scop, statement, relation).intersect_params(context).subtract(inside)
        if not outside.is_empty():
            sample = isl.Set.from_basic_set(outside.sample())
            raise ScheduleError(
                f"{statement.name} may access {relation.array} outside its bounds",
                f"for example {_body(sample)}; the access is {st.braces(relation.text)}",
                "guard it with where(...), or state the relation of the sizes as a fact",
            )


def _in_question(scop: Scop, s: Statement) -> list[Relation]:
    """Relations with an index that is not plainly inside the array, other than one that memory holds."""
    arrays = {a.name: a for a in scop.arrays}
    names = {*s.dims, *scop.parameters}
    least = ranges.least_sizes(st.condition_of(scop.context))
    asked = set()
    for load, guards, _ in ((Load(s.target, s.at, s.value.dtype), (), False), *(found for root in s.roots for found in guards_of(root, names))):
        for index, extent in zip(load.indices, arrays[load.array].extents):
            if not _is_plain(s, index, extent, guards, least) and affine(index, names) is not None:
                asked.add(load.array)
    return [r for r in (s.write, *s.reads) if r.array in asked]


def _is_plain(s: Statement, index: Expr, extent: Size | Ragged, guards: tuple[str, ...], least: Mapping[str, int]) -> bool:
    """Whether an index is plainly inside an array: a dim that runs as far, or what its range says. `least`: what sizes are at least."""
    if isinstance(index, Var) and dict(zip(s.dims, s.extents)).get(index.name) == extent:
        return True
    return not isinstance(extent, Ragged) and ranges.inside(index, extent, _box(s), guards, least)


def _box(s: Statement) -> dict[str, Size]:
    """How far the dims run that walk no fibre."""
    return {dim: extent for dim, extent in zip(s.dims, s.extents) if not isinstance(extent, Ragged)}


def _range(scop: Scop, statement: Statement, relation: Relation) -> isl.UnionSet:
    domain = isl.UnionSet.read_from_str(isl.DEFAULT_CONTEXT, statement.domain)
    return relations(scop, [relation.text]).intersect_domain(domain).range()


def box(scop: Scop, array: Array) -> str:
    """All elements of an array, without braces: `X[d0, d1] : 0 <= d0 < c and 0 <= d1 < m`."""
    sizes = Parameters(scop.sizes)
    limits = []
    for position, extent in enumerate(array.extents):
        text = hull_of(extent.tensor, extent.level) if isinstance(extent, Ragged) else sizes.text(extent)
        limits.append(f"0 <= d{position} < {text}")
    dims = ", ".join(f"d{p}" for p in range(len(limits)))
    return f"{isl_name(array.name)}[{dims}]{' : ' if limits else ''}{' and '.join(limits)}"


def ragged_arrays_are_indexed_along_their_fibres(scop: Scop) -> None:
    """A ragged dimension is indexed by a dim that walks its fibre, below the owners that the indices before it name.

    The hull only bounds the longest fibre: another row may be shorter.
    """
    arrays = {a.name: a for a in scop.arrays}
    for s in scop.statements:
        dims = {r.dim: r for r in s.ragged}
        for load in (Load(s.target, s.at, s.value.dtype), *(n for root in s.roots for n in loads_in(root))):
            for position, extent in enumerate(arrays[load.array].extents):
                if not isinstance(extent, Ragged):
                    continue
                index = load.indices[position]
                if _is_a_part(scop, dims, load, position, extent):
                    continue
                ragged = dims.get(index.name) if isinstance(index, Var) else None
                before = load.indices[:position]
                above = [] if ragged is None else [ragged.places, tuple(Var(p, dt.i64) for p in ragged.parents)]  # with the piece, or without
                if ragged is None or ragged.fibre != extent or before not in [p[len(p) - position :] for p in above]:
                    raise ScheduleError(
                        f"{s.name} indexes {load.array} across the fibres of {extent.tensor}",
                        f"index {position} must walk level {extent.level} of {extent.tensor} below the indices before it",
                        "read it by the index variables of its own walk",
                    )


def _is_a_part(scop: Scop, dims: Mapping[str, RaggedDim], load: Load, position: int, extent: Ragged) -> bool:
    """True if a stream says where in the fibre of one of its parts, below the same indices, the element is."""
    index = load.indices[position]
    stream = scop.stream(index.array.rpartition(".")[0]) if isinstance(index, Load) else None
    if stream is None or not isinstance(index, Load) or isinstance(stream.source, Drain) or not isinstance(index.indices[-1], Var):
        return False
    number = index.array.rpartition(".at")[2]
    walk = dims.get(index.indices[-1].name)
    same = walk is not None and walk.tensor == stream.name and load.indices[:position] == index.indices[:-1] == walk.places
    return same and number.isdecimal() and stream.source.parts[int(number)] == (extent.tensor, extent.level)


def guarded_loads(statement: Statement, scop: Scop) -> frozenset[Load]:
    """The Loads under `where` that may leave their array where the condition does not hold. Others may be made eagerly.

    Only affine indices count: an index that is read from memory is checked when it is bound. What plainly leaves is no question for isl.
    """
    listed = dict.fromkeys(held for root in statement.roots for held in _held_back(root, False))
    return frozenset(load for load in listed if any(begins_below_zero(i, statement) for i in load.indices) or _may_leave(statement, scop, load, ()))


def hidden_loads(statement: Statement, scop: Scop) -> frozenset[Load]:
    """The Loads whose affine indices may leave their array for all that the affine conditions around them say: only what memory
    holds could keep them inside, and nothing proves that."""
    known = {*statement.dims, *scop.parameters}
    listed = dict.fromkeys((load, guards) for root in statement.roots for load, guards, masked in guards_of(root, known) if masked)
    return frozenset(load for load, guards in listed if _may_leave(statement, scop, load, guards))


def _may_leave(statement: Statement, scop: Scop, load: Load, guards: tuple[str, ...]) -> bool:
    """Whether an affine index of `load` may lie outside where `guards`, conditions as isl text, hold."""
    known = {*statement.dims, *scop.parameters}
    array = next(a for a in scop.arrays if a.name == load.array)
    texts = [affine(i, known) for i in load.indices]
    least = ranges.least_sizes(st.condition_of(scop.context))
    if all(_is_plain(statement, i, e, guards, least) for i, e, t in zip(load.indices, array.extents, texts, strict=True) if t is not None):
        return False
    if not guards and any(ranges.begins_below(i, _box(statement)) for i, t in zip(load.indices, texts, strict=True) if t is not None):
        return True
    places = [t if t is not None else f"r{p}" for p, t in enumerate(texts)]
    where = " and ".join([*(f"r{p} = 0" for p, t in enumerate(texts) if t is None), *guards])
    head = f"{statement.name}[{', '.join(statement.dims)}] -> {isl_name(load.array)}[{', '.join(places)}]"
    relation = Relation(load.array, f"{{ {head}{' : ' + where if where else ''} }}", True)
    open_ends = [e if texts[p] is not None else 1 for p, e in enumerate(array.extents)]
    inside = f"{st.parameter_list(scop)} -> {{ {box(scop, dataclasses.replace(array, extents=tuple(open_ends)))} }}"
    touched = _range(scop, statement, relation).intersect_params(parameters(scop))
    return not touched.is_subset(isl.UnionSet.read_from_str(isl.DEFAULT_CONTEXT, inside))


def _held_back(expr: Expr, under: bool) -> Iterator[Load]:
    match expr:
        case Load(_, indices):
            if under:
                yield expr
            for index in indices:
                yield from _held_back(index, under)
        case Apply("where", (test, yes, no)):
            yield from _held_back(test, under)
            yield from _held_back(yes, True)
            yield from _held_back(no, True)
        case Apply(_, args):
            for arg in args:
                yield from _held_back(arg, under)
        case Cast(arg):
            yield from _held_back(arg, under)
        case _:
            pass


def no_stranger_in_a_ragged_loop(scop: Scop, tree: st.Tree) -> None:
    """A loop over the positions of a fibre holds only statements that walk that fibre: another would be lost with an empty row."""
    statements = {s.name: s for s in scop.statements}
    match tree:
        case st.Leaf():
            return
        case st.Sequence(children):
            for child in children:
                no_stranger_in_a_ragged_loop(scop, child)
        case st.Bind(_, _, child):
            no_stranger_in_a_ragged_loop(scop, child)
        case st.Band(members, child, _, _):
            walked = {name: _fibre(statements[name], place) for name, place in members}
            if len(set(walked.values())) > 1:
                inside = next(n for n, f in walked.items() if f is not None)
                stranger = next(n for n, f in walked.items() if f != walked[inside])
                raise ScheduleError(
                    f"{stranger} is a stranger in a loop over the stored elements that {inside} walks",
                    "where a row stores nothing it would not run at all",
                    "put it before or after that loop in a sequence",
                )
            no_stranger_in_a_ragged_loop(scop, child)
        case _:
            assert_never(tree)


def _fibre(statement: Statement, place: Expr) -> Ragged | None:
    used = set(variables_in(place))
    return next((r.fibre for r in statement.ragged if r.dim in used), None)


def fibres_are_bound_below_their_owners(
    scop: Scop, tree: st.Tree, bound: frozenset[Ragged] = frozenset(), fixed: Mapping[tuple[str, str], int] | None = None, depth: int = 0
) -> None:
    """Each ragged dim is scheduled below the bind mark of its fibre, and that mark below plain loops over its owners, which are
    the same for all statements below the mark. `fixed`: the band that each dim of a statement is a plain loop of."""
    fixed = fixed or {}
    statements = {s.name: s for s in scop.statements}
    match tree:
        case st.Leaf(name):
            loose = [r for r in statements[name].fibres if r.fibre not in bound]
            if loose:
                raise ScheduleError(
                    f"{name} walks level {loose[0].level} of {loose[0].tensor} and no bind mark gives its length",
                    "the loop would run over the longest fibre",
                    f"put the mark bind={loose[0].tensor}.{loose[0].level} below the loops over {', '.join(loose[0].parents) or 'nothing'}",
                )
        case st.Sequence(children):
            for child in children:
                fibres_are_bound_below_their_owners(scop, child, bound, fixed, depth)
        case st.Bind(tensor, level, child):
            here = Ragged(tensor, level)
            owners: dict[tuple[int, ...], str] = {}
            for name in st.statements_of(child):
                for ragged in statements[name].fibres:
                    missing = [p for p in ragged.parents if (name, p) not in fixed]
                    if ragged.fibre == here and missing:
                        raise ScheduleError(
                            f"the mark bind={tensor}.{level} stands above the loop over {missing[0]} of {name}",
                            "that loop decides which fibre is meant",
                            "put the mark below it",
                        )
                    if ragged.fibre == here:
                        owners[tuple(fixed[name, p] for p in ragged.parents)] = name
            if len(owners) > 1:
                raise ScheduleError(
                    f"the mark bind={tensor}.{level} stands for fibres of different loops: those of {' and of '.join(owners.values())}",
                    "one length cannot hold for both",
                    "put the statements below marks of their own",
                )
            fibres_are_bound_below_their_owners(scop, child, bound | {here}, fixed, depth)
        case st.Band(members, child, _, _):
            for name, place in members:
                ragged_here = _fibre(statements[name], place)
                if ragged_here is not None and ragged_here not in bound:
                    raise ScheduleError(
                        f"{name} walks level {ragged_here.level} of {ragged_here.tensor} above its bind mark",
                        "the number of positions is not known there",
                        "put the mark above the loop",
                    )
            plain = {(name, place.name): depth for name, place in members if isinstance(place, Var)}
            fibres_are_bound_below_their_owners(scop, child, bound, {**fixed, **plain}, depth + 1)
        case _:
            assert_never(tree)
