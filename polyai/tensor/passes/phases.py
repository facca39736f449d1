"""Cut a program where the size of a sparse result must be known before it can be stored: bound or count, then fill.

    J[i: n, j: m] csr = join A(i, j) | B(i, j)
    C[i_1: n, j_1: m within J(i_1, j_1)] f64 = A[i_1, j_1] + B[i_1, j_1]
    output C
    ->
    count J:  J.count[i_2: n] i64 = sum(j_2: m) 1   within J(i_2, j_2)
              J.pos1[p: n + 1] i64 = where(p > 0, J.pos1[p - 1] + J.count[p - 1], 0)
    fill J:   J.crd1[i_3: n, j_3: m within J(i_3, j_3)] i32 = i32(j_3)
              C[i_1: n, j_1: m within J(i_1, j_1)] f64 = A[i_1, j_1] + B[i_1, j_1]

Where nothing is counted, a bound on each row takes the count's place: what is stored of A and of B there, or how many products
a row of A @ B adds up. Rows are then filled one after another, and the caller closes the gaps (`Program.packed`):

    bound J:  J.pos1[p: n + 1] i64 = i64(A.pos1[p]) + i64(B.pos1[p])

Each phase is a program of its own. Between two of them the caller reads how much `J.pos1` ends with, and makes room. A phase
computes again what is cheap; what is not is handed on as an output of the first phase that needs it. A join is assembled only
if something is stored along it: within a sum it is merged where it stands. Proves legality: a phase holds what its outputs
depend on, in program order.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from polyai.errors import UnsupportedError
from polyai.scalar import dtype as dt
from polyai.scalar.expr import Const, Load, Var
from polyai.shapes.expr import Size, symbols
from polyai.shapes.guard import Guard
from polyai.tensor.bodies import (
    apply,
    convert,
    counted_by,
    from_size,
    left_out,
    loads,
    names_of,
    parts_within,
    read_by,
    reads_of,
    reduces,
    rename,
    size_symbols,
    stem,
    stored_at,
    substitute,
    var,
)
from polyai.tensor.nodes import (
    Body,
    Comprehension,
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
    Within,
    nnz_of,
    owns_a_pattern,
    pushes,
    regroups,
    targets_of,
    types_of,
)
from polyai.tensor.passes import selections
from polyai.term.node import node


@node
class Phase:
    """One kernel of a program. `counts`: the pattern whose fibres it counts, into `J.pos1`; `bounds`: the one whose fibres it bounds
    there; `fills`: the one it stores, as `J.crd1` and, for a scatter, `J.val`. A grouped scatter is counted and stored by one kernel:
    it stores at most as much as all of `within`. `type`: of that pattern. `requires`: what must hold once it is counted. `aliases`: dense vectors that list what a tensor stores, and its array."""

    program: Program
    counts: str = ""
    fills: str = ""
    bounds: str = ""
    within: tuple[str, ...] = ()
    aliases: tuple[tuple[str, str], ...] = ()
    type: TensorType | None = None
    requires: tuple[Guard, ...] = ()


_ONE = Const(1, dt.i64)

HOW = ("packed", "counted", "again")
"""How patterns are assembled: within bounds, by counting first, or not at all, since they were assembled before."""


def run(program: Program, *, how: str = "packed") -> tuple[Phase, ...]:
    """The phases of a program in order; one if it assembles nothing. `how`: one of `HOW`.

    Where patterns were assembled before, the values of a scatter are sums along its pattern, which is an argument then:

        C.val[i: n, j: m within C(i, j)] f64 = sum(k: c) A[i, k] * B[k, j]   within A(i, k), B(k, j)
    """
    selected = selections.run(program)
    program = selected.program
    made = {step.target: step for step in program.body if isinstance(step, (Join, Scatter, Spread)) and owns_a_pattern(step)}
    if not made and not any(isinstance(step, Listing) for step in program.body):
        return (Phase(program),)
    return _Cut(program, made, how, selected).phases()


class _Cut:
    def __init__(self, program: Program, made: Mapping[str, Join | Scatter | Spread], how: str, selected: selections.Selections) -> None:
        self.program, self.made, self.how = program, made, how
        self.arrays, self.results = dict(selected.arrays), dict(selected.results)
        self.types, self.names = {**types_of(program), **self.arrays}, names_of(program)
        self.lists = {step.target: step for step in program.body if isinstance(step, Listing)}
        self.aliases: dict[str, str] = {}
        self.assembled = [name for name in made if self._is_assembled(name)]

    def phases(self) -> tuple[Phase, ...]:
        first = self._phases(frozenset())
        seen: dict[str, int] = {}
        for phase in first:
            for step in phase.program.body:
                for name in targets_of(step):
                    seen[name] = seen.get(name, 0) + (_is_dear(step) and not owns_a_pattern(step))
        shared = frozenset(name for name, count in seen.items() if count > 1)
        return self._phases(shared) if shared else first

    def _is_assembled(self, name: str) -> bool:
        """Values lie along it, or another pattern is made from it."""
        if isinstance(self.made[name], (Scatter, Spread)) or name in self.program.outputs:
            return True
        stored = {t for t, type in self.types.items() if t != name and type.pattern is not None and type.pattern.owner == name}
        if stored & set(self.program.outputs):
            return True
        walked_elsewhere = any(
            isinstance(s, Join) and any(w.tensor == name for w in s.parts) for s in self.program.body if s is not self.made[name]
        )
        return walked_elsewhere or bool(stored)

    def _phases(self, shared: frozenset[str]) -> tuple[Phase, ...]:
        """The phases if the tensors `shared` are handed on by the first phase that computes them."""
        out: list[Phase] = []
        self.aliases = {}
        ready: dict[str, TensorType] = {i.name: i.type for i in self.program.inputs}
        done: set[str] = set()
        for name in self.assembled:
            if isinstance(spread := self.made[name], Spread):
                if self.how != "again":
                    runs = self._run_ends(spread)
                    self._add(out, [runs[-1].target], ready, shared, done, more=runs, counting=name)
                done.add(name)
                continue
            if regroups(self.made[name]):
                self._add(out, [name], ready, shared, done, filling=name)
                done.add(name)
                continue
            if pushes(self.made[name]):
                if self.how != "again":
                    rows = self._counted_pushes(name)
                    self._add(out, [rows[-1].target], ready, shared, done, more=rows, counting=name)
                self._add(out, [name], ready, shared, done, filling=name)
                done.add(name)
                ready.update((n, t) for n, t in self.arrays.items() if n.partition(".")[0] == name)
                continue
            if self.how == "again" and isinstance(step := self.made[name], Scatter):
                done.add(name)
                values = self._values(step)
                self._add(out, [values.target], ready, shared, done, more=[values], filling=name)
                continue
            packed = self.how == "packed" and self._has_row_loop(name)
            if packed:
                bounds = self._bound(name)
                self._add(out, [bounds[-1].target], ready, shared, done, more=bounds, bounding=name)
            elif self.how != "again":
                counted = self._count(name)
                self._add(out, [counted[-1].target], ready, shared, done, more=counted, counting=name)
            stored = self._fill(name)
            followers = self._followers(name, ready, done)
            goals = [*(s.target for s in stored), *followers]
            self._add(out, goals, ready, shared, done, more=stored, filling=name, packed=packed)
            ready.update((f, self.types[f]) for f in followers)
            done.add(name)
        self._list(out, [self.lists[o] for o in self.program.outputs if o in self.lists], ready, shared, done)
        rest = [o for o in self.program.outputs if o not in ready and o not in done and o not in self.results]
        if rest:
            self._add(out, rest, ready, shared, done)
        results = {**self.results, **{o: self.aliases[o] for o in self.program.outputs if o in self.lists}}
        out[-1] = dataclasses.replace(out[-1], aliases=tuple({**dict(out[-1].aliases), **results}.items()))
        return tuple(out)

    def _add(
        self,
        out: list[Phase],
        goals: list[str],
        ready: dict[str, TensorType],
        shared: frozenset[str],
        done: set[str],
        more: Sequence[Step] = (),
        counting: str = "",
        filling: str = "",
        bounding: str = "",
        packed: bool = False,
    ) -> None:
        self._list(out, self._closure(goals, ready, done, more, counting), ready, shared, done)
        steps = self._closure(goals, ready, done, more, counting)
        exported = [n for s in steps for n in targets_of(s) if n in shared and n not in goals]
        if filling or not (counting or bounding):
            exported += [n for s in steps for n in targets_of(s) if n in self.program.outputs and n not in goals and n not in exported and n not in ready]
        inner = {n for s in steps for n in targets_of(s)}
        inputs: dict[str, TensorType] = {}
        for step in steps:
            for name in sorted(read_by(step) - inner):
                inputs[name] = self.types[name] if name in self.types else ready[name]
                pattern = inputs[name].pattern
                if pattern is not None and pattern.owner not in inner:
                    inputs[pattern.owner] = self.types[pattern.owner]
        for given in self.program.inputs:  # sizes may come from arguments that no step reads
            inputs.setdefault(given.name, given.type)
        known = {i.name: i for i in self.program.inputs}
        order = [*(i.name for i in self.program.inputs), *sorted(inputs)]
        taken = tuple(known.get(n, Input(n, inputs[n])) for n in dict.fromkeys(order) if n in inputs)
        along = {p.owner for s in steps for n in targets_of(s) if n != counting and (p := self._pattern(s, n)) is not None}
        along |= {t.pattern.owner for t in inputs.values() if t.pattern is not None}
        assembled = tuple(n for n in inner & set(self.made) if n in along and n != counting and (n == filling or n in done))
        source: tuple[str, ...] = ()
        if filling and regroups(step := self.made[filling]):
            assert isinstance(step, Scatter)
            goals, counting, source = [f"{filling}.{part}" for part in ("pos1", "crd1", "val")], filling, self._stored_by(step)
        elif filling and pushes(self.made[filling]):
            wanted = (("crd1", self._is_walked(filling)), ("val", self._has_readers(filling)))
            goals, assembled = [f"{filling}.{part}" for part, needed in wanted if needed], (*assembled, filling)
        name = f"{self.program.name}_{len(out)}"
        if bounding:  # only how long rows are is read
            taken = tuple(dataclasses.replace(i, unique=False) for i in taken)
        counts = {nnz_of(n) for s in steps for n in counted_by(s)}
        program = Program(name, taken, tuple(steps), (*goals, *exported), (), tuple(sorted(assembled)), packed=(filling,) if packed else ())
        program = dataclasses.replace(program, sizes=tuple(sorted(counts - size_symbols(program))))
        sizes = size_symbols(program)
        program = dataclasses.replace(program, facts=tuple(f for f in self.program.facts if symbols(f.size) <= sizes))
        aliases = tuple((i.name, self.aliases[i.name]) for i in taken if i.name in self.aliases)
        out.append(Phase(program, counting, filling, bounding, source, aliases, self.types.get(counting or filling or bounding), self._required(counting)))
        ready.update((n, self.types[n]) for n in exported)

    def _required(self, counted: str) -> tuple[Guard, ...]:
        step = self.made.get(counted)
        return step.requires if isinstance(step, Scatter) else ()

    def _list(self, out: list[Phase], steps: Sequence[Step], ready: dict[str, TensorType], shared: frozenset[str], done: set[str]) -> None:
        """Have the tensors computed that `steps` read as lists."""
        for step in steps:
            if not isinstance(step, Listing) or step.target in ready:
                continue
            inputs = {i.name for i in self.program.inputs}
            if step.of not in inputs and step.of not in self.made and step.of not in ready:
                self._add(out, [step.of], ready, shared, done)
                ready[step.of] = self.types[step.of]
            ready[step.target] = step.type
            self.aliases[step.target] = f"{step.of}.val" if step.of in inputs or step.of in self.made else step.of

    def _is_walked(self, name: str) -> bool:
        """Whether somebody wants the coordinates of a pattern, beside its values."""
        if f"{name}.crd1" in self.arrays or not self._has_readers(name):
            return True
        along = {n for n, t in self.types.items() if n != name and t.pattern is not None and t.pattern.owner == name}
        steps = (step for step in self.program.body if not isinstance(step, Listing) and name not in targets_of(step))
        return bool(along) or name in self.program.outputs or any(name in read_by(step) for step in steps)

    def _has_readers(self, name: str) -> bool:
        """Whether somebody wants the values of a pattern, beside its coordinates."""
        if name in self.program.outputs:
            return True
        for step in self.program.body:
            roots = (step.body, *(step.at if isinstance(step, Scatter) else ())) if isinstance(step, (Comprehension, Scatter)) else ()
            if any(load.array == name for root in roots for load in loads(root)) or (isinstance(step, Listing) and step.of == name):
                return True
        return False

    def _stored_by(self, step: Scatter) -> tuple[str, ...]:
        """The patterns that bound how much a grouped scatter stores: the one it walks, or the parts of a join that nobody counts."""
        (within,) = step.within
        join = self.made.get(within.tensor)
        if not isinstance(join, Join) or within.tensor in self.assembled:
            return (within.tensor,)
        return tuple(part.tensor for part in join.parts)

    def _pattern(self, step: Step, name: str) -> Pattern | None:
        if isinstance(step, Comprehension):
            return step.type.pattern
        known = self.types.get(name)
        return known.pattern if known is not None and not owns_a_pattern(step) else None

    def _closure(self, goals: Sequence[str], ready: Mapping[str, TensorType], done: set[str], more: Sequence[Step], counting: str) -> list[Step]:
        """The steps that `goals` need, in order; patterns that are done and whose parts nobody reads are inputs."""
        wanted = set(goals)
        kept: list[Step] = []
        for step in (*reversed(more), *reversed(self.program.body)):
            names = set(targets_of(step))
            if not wanted & names or names <= ready.keys():
                continue
            if names & done and not (isinstance(step, Join) and self._reads_parts(step, kept)):
                continue
            if counting in names and isinstance(step, Scatter):
                step = _occupancy(step)
            elif owns_a_pattern(step) and not names & done and counting not in names and not (names & set(self.assembled)) and isinstance(step, Scatter):
                raise UnsupportedError(f"{step.target} is made sparse and never assembled", "report this program")
            kept.append(step)
            wanted |= reads_of(step)
        return kept[::-1]

    def _reads_parts(self, join: Join, steps: Sequence[Step]) -> bool:
        """Whether some step within the join reads what it joins."""
        for step in steps:
            if not isinstance(step, (Comprehension, Scatter)):
                continue
            roots = (step.body, *(step.at if isinstance(step, Scatter) else ()))
            for root in roots:
                around = (*step.within, *(w for r in reduces(root) for w in r.within))
                parts = {p for w in around if w.tensor == join.target for p in parts_within(w, {join.target: join})}
                if any(self.types[load.array].is_sparse and stored_at(load, self.types) in parts for load in loads(root) if load.array in self.types):
                    return True
        return False

    def _followers(self, name: str, ready: Mapping[str, TensorType], done: set[str]) -> list[str]:
        """What is stored along the pattern, and computed from what is there when it is filled."""
        out: list[str] = []
        known = {*ready, *done, name}
        for step in self.program.body:
            computable = all(r in known for r in reads_of(step))
            if owns_a_pattern(step):
                if computable and isinstance(step, Select):
                    known.add(step.target)
                continue
            if computable and isinstance(step, Comprehension):
                known.add(step.target)
                if step.type.pattern is not None and step.type.pattern.owner == name and (self._is_wanted(step.target) or isinstance(step.body, Reduce)):
                    out.append(step.target)
            elif computable:
                known.update(targets_of(step))
        return out

    def _is_wanted(self, target: str) -> bool:
        """An output, or read by a step of another pattern."""
        if target in self.program.outputs:
            return True
        mine = self.types[target].pattern
        for step in self.program.body:
            if target in read_by(step) and not (isinstance(step, Comprehension) and step.type.pattern == mine):
                return True
        return False

    # --- what is counted and stored ---

    def _bound(self, name: str) -> tuple[Comprehension, ...]:
        """How much each row of a pattern can store: the points that touch it, or what is stored of the operands that are joined."""
        step = self.made[name]
        row, column = self._rows_of(name)
        if isinstance(step, Scatter):
            assert step.type.format is not None
            fresh = {i.name: self.names.fresh(stem(i.name)) for i in step.indices}
            own: Scatter = rename(step, fresh)
            place = own.at[step.type.format.order[0]]
            if not isinstance(place, Var) or place.name not in {i.name for i in own.indices}:
                raise UnsupportedError(f"{name} is filled out of the order of its rows", "its points do not give a row each", "report this program")
            at = next(i for i in own.indices if i.name == place.name)
            over = tuple(i for i in own.indices if i is not at)
            whole, over, kept, each = self._whole_fibres(own, at, over)
            points = self._row_sum(f"{name}.points", at, over, kept, each)
            return (*whole, points, self._positions(name, row, points, at_most=column.extent))
        assert isinstance(step, Join)
        clause = min(step.clauses, key=len)
        if all(self._has_positions(part.tensor) for part in clause):
            return (self._sum_of_positions(name, row, tuple(part.tensor for part in clause)),)
        lengths = []
        for number, part in enumerate(clause):
            i, j = (Index(self.names.fresh(s.name), s.extent) for s in (row, column))
            new = {a.name: b.name for a, b in zip(self._in_order(name, step.indices), (i, j))}
            part = Within(part.tensor, tuple(new[x] for x in part.indices))
            lengths.append(self._row_sum(f"{name}.length{number}", i, (j,), (part,)))
        return (*lengths, self._positions(name, row, *lengths))

    def _whole_fibres(self, step: Scatter, row: Index, over: tuple[Index, ...]) -> tuple[tuple[Comprehension, ...], tuple[Index, ...], tuple[Within, ...], Body]:
        """A walk of whole fibres whose coordinates nobody asks for is as long as they are:

            sum(k, j) 1   within A(i, k), B(k, j)   ->   sum(k) B.length[k]   within A(i, k)
        """
        for walk in reversed(step.within):
            if not self._has_positions(walk.tensor):
                continue
            form = self.types[walk.tensor].format
            assert form is not None
            outer, inner = (walk.indices[d] for d in form.order)
            elsewhere = {x for w in step.within if w is not walk for x in w.indices}
            if inner in elsewhere or inner in (row.name, outer) or outer == row.name or outer not in elsewhere:
                continue
            extent = self.types[walk.tensor].shape[form.order[0]]
            self.types[f"{walk.tensor}.pos1"] = TensorType(dt.BY_NAME[f"i{form.index_bits}"], (extent + 1,))
            at = Index(self.names.fresh("r"), extent)
            begin, end = (
                convert(Load(f"{walk.tensor}.pos1", (x,), self.types[f"{walk.tensor}.pos1"].dtype), dt.i64)
                for x in (var(at), apply("add", dt.i64, var(at), Const(1, dt.i64)))
            )
            length = Comprehension(f"{step.target}.length", TensorType(dt.i64, (extent,)), (at,), apply("sub", dt.i64, end, begin))
            rest = tuple(i for i in over if i.name != inner)
            return (length,), rest, tuple(w for w in step.within if w is not walk), Load(length.target, (Var(outer, dt.i64),), dt.i64)
        return (), over, step.within, _ONE

    def _has_positions(self, tensor: str) -> bool:
        """True if an array of its own says where each of its rows begins."""
        form = self.types[tensor].format
        return form is not None and [level.name for level in form.levels] == ["dense", "compressed"] and not form.owned

    def _sum_of_positions(self, name: str, row: Index, parts: tuple[str, ...]) -> Comprehension:
        """Rows that hold as much as those of `parts` together begin at the sum of where these begin: index arrays are read as such."""
        at = Index(self.names.fresh("p"), row.extent + 1)
        for part in parts:
            form = self.types[part].format
            assert form is not None
            self.types[f"{part}.pos1"] = TensorType(dt.BY_NAME[f"i{form.index_bits}"], (at.extent,))
        begins = (convert(Load(f"{part}.pos1", (var(at),), self.types[f"{part}.pos1"].dtype), dt.i64) for part in parts)
        return Comprehension(f"{name}.pos1", TensorType(dt.i64, (at.extent,)), (at,), _sum(begins))

    def _has_row_loop(self, name: str) -> bool:
        """False for what has a single row, whatever its other size is: an index with one value is no loop."""
        type = self.made[name].type
        return type.format is not None and type.shape[type.format.order[0]] != 1

    def _in_order(self, name: str, indices: Sequence[Index]) -> tuple[Index, ...]:
        """The indices of a matrix, that of its rows first."""
        form = self.made[name].type.format
        assert form is not None
        return tuple(indices[d] for d in form.order)

    def _row_sum(self, target: str, row: Index, over: tuple[Index, ...], within: tuple[Within, ...], each: Body = _ONE) -> Comprehension:
        return Comprehension(target, TensorType(dt.i64, (row.extent,)), (row,), Reduce("add", over, each, dt.i64, within))

    def _positions(self, name: str, row: Index, *counts: Comprehension | Scatter, at_most: Size | None = None) -> Comprehension:
        """Where each row begins, if it holds the sum of `counts`."""
        at = Index(self.names.fresh("p"), row.extent + 1)
        before = apply("sub", dt.i64, var(at), Const(1, dt.i64))
        held = _sum(Load(c.target, (before,), dt.i64) for c in counts)
        if at_most is not None:
            held = apply("min", dt.i64, held, from_size(at_most))
        total = apply("add", dt.i64, Load(f"{name}.pos1", (before,), dt.i64), held)
        body = apply("where", dt.i64, apply("gt", dt.bool_, var(at), Const(0, dt.i64)), total, Const(0, dt.i64))
        return Comprehension(f"{name}.pos1", TensorType(dt.i64, (at.extent,)), (at,), body)

    def _rows_of(self, name: str) -> tuple[Index, Index]:
        """New indices of the rows and the columns of a pattern that is assembled."""
        step = self.made[name]
        form, shape = step.type.format, step.type.shape
        assert form is not None
        if form.rank != 2 or [level.name for level in form.levels] != ["dense", "compressed"]:
            raise UnsupportedError(
                f"{name} is to be stored as {form.name} with {form.rank} dimensions",
                "assembled are matrices with compressed rows or columns",
                "sum over a dimension, or make an operand dense",
            )
        row, column = (Index(self.names.fresh(s), shape[d]) for s, d in zip("ij", form.order))
        return row, column

    def _count(self, name: str) -> tuple[Comprehension, ...]:
        """How much each row of a pattern stores."""
        row, column = self._rows_of(name)
        form = self.made[name].type.format
        assert form is not None
        within = Within(name, tuple(x.name for _, x in sorted(zip(form.order, (row, column)), key=lambda p: p[0])))
        count = self._row_sum(f"{name}.count", row, (column,), (within,))
        return count, self._positions(name, row, count)

    def _values(self, step: Scatter) -> Comprehension:
        """What a scatter adds up at each coordinate of its pattern."""
        fresh = {i.name: self.names.fresh(stem(i.name)) for i in step.indices}
        own: Scatter = rename(step, fresh)
        places = [a.name for a in own.at if isinstance(a, Var)]
        by_name = {i.name: i for i in own.indices}
        over = tuple(i for i in own.indices if i.name not in places)
        body = Reduce(step.monoid or "add", over, own.body, step.type.dtype, own.within) if over else own.body
        indices, pattern = tuple(by_name[p] for p in places), Pattern(step.target, tuple(range(len(places))))
        type = TensorType(step.type.dtype, step.type.shape, None, pattern)
        return Comprehension(f"{step.target}.val", type, indices, body, (Within(step.target, tuple(places)),))

    def _run_ends(self, step: Spread) -> tuple[Comprehension, ...]:
        """How long the runs are, and where each begins."""
        row = Index(self.names.fresh(stem(step.indices[0].name)), step.indices[0].extent)
        length = substitute(step.length, {step.indices[0].name: var(row)})
        lengths = Comprehension(f"{step.target}.count", TensorType(dt.i64, (row.extent,)), (row,), convert(length, dt.i64))
        return lengths, self._positions(step.target, row, lengths)

    def _counted_pushes(self, name: str) -> tuple[Comprehension | Scatter, ...]:
        """How much is pushed to each row of a pattern that a scatter without a monoid makes."""
        row, _ = self._rows_of(name)
        step = self.made[name]
        assert isinstance(step, Scatter) and step.type.format is not None
        place = step.at[step.type.format.order[0]]
        if isinstance(place, Var) and not step.within and any(i.name == place.name for i in step.indices):
            counts = self._counted_row_by_row(name, step, place.name)
            return counts, self._positions(name, row, counts)
        counted = self._counted_in_any_order(name, step, row)
        return (*counted, self._positions(name, row, counted[-1]))

    def _counted_row_by_row(self, name: str, step: Scatter, row: str) -> Comprehension:
        """How many elements each row gets, of a pattern whose rows are touched one after another."""
        fresh = {i.name: self.names.fresh(stem(i.name)) for i in step.indices}
        again: Scatter = rename(step, fresh)
        at = next(i for i in again.indices if i.name == fresh[row])
        one: Body = Const(1, dt.i64)
        for condition in (left_out(a)[1] for a in again.at):
            one = one if condition is None else apply("where", dt.i64, condition, one, Const(0, dt.i64))
        return self._row_sum(f"{name}.count", at, tuple(i for i in again.indices if i is not at), (), one)

    def _counted_in_any_order(self, name: str, step: Scatter, row: Index) -> tuple[Comprehension | Scatter, ...]:
        """How many elements each row gets, of a pattern whose elements come in another order."""
        type = TensorType(dt.i64, (row.extent,))
        zeros = Comprehension(f"{name}.none", type, (row,), Const(0, dt.i64))
        fresh = {i.name: self.names.fresh(stem(i.name)) for i in step.indices}
        again: Scatter = rename(step, fresh)
        assert step.type.format is not None
        at, conditions = zip(*(left_out(a) for a in again.at))
        one: Body = Const(1, dt.i64)
        for condition in conditions:
            one = one if condition is None else apply("where", dt.i64, condition, one, Const(0, dt.i64))
        place = (at[step.type.format.order[0]],)
        return zeros, Scatter(f"{name}.count", type, zeros.target, "add", again.indices, place, one, again.within)

    def _fill(self, name: str) -> list[Comprehension]:
        step = self.made[name]
        form, shape = step.type.format, step.type.shape
        assert form is not None
        pattern = Pattern(name, (0, 1))

        def along(target: str, dtype: dt.DType, values: bool) -> Comprehension:
            indices = tuple(Index(self.names.fresh(s), e) for s, e in zip("ij", shape))
            within = Within(name, tuple(i.name for i in indices))
            inner = indices[form.order[1]]
            body = Load(name, tuple(var(i) for i in indices), dtype) if values else convert(var(inner), dtype)
            return Comprehension(target, TensorType(dtype, shape, None, pattern), indices, body, (within,))

        out = [along(f"{name}.crd1", dt.BY_NAME[f"i{form.index_bits}"], False)]
        if isinstance(step, Scatter) and self._is_wanted(name):
            out.append(along(f"{name}.val", step.type.dtype, True))
        return out


def _sum(terms: Iterable[Body]) -> Body:
    """The sum of i64 expressions."""
    first, *rest = terms
    for term in rest:
        first = apply("add", dt.i64, first, term)
    return first


def _occupancy(step: Scatter) -> Scatter:
    """The scatter without its values: what it touches."""
    return dataclasses.replace(step, type=dataclasses.replace(step.type, dtype=dt.bool_), monoid="or", body=Const(True, dt.bool_))


def _is_dear(step: Step) -> bool:
    """Worth more to keep than to compute again."""
    if isinstance(step, Comprehension):
        return next(reduces(step.body), None) is not None
    return not isinstance(step, (Join, Select))

