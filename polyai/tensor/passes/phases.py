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
a row of A @ B adds up. Rows are then filled one after another, within room that the caller makes (`Program.packed`):

    bound J:  J.pos1[p: n + 1] i64 = i64(A.pos1[p]) + i64(B.pos1[p])

Each phase is a program of its own. Between two of them the caller reads how much `J.pos1` ends with, and makes room. A phase
computes again what is cheap; what is not is handed on as an output of the first phase that needs it. A join is assembled only
if something is stored along it: within a sum it is merged where it stands.

A product of which only an intersection with another pattern is read, `M * (A @ B)`, is not stored either (see `located`): one
kernel fills the intersection from a row of the product.

    bound J:  J.pos1[p: n + 1] i64 = as many points as A @ B adds up
    fill J:   C[i, j] f64 += A[i, k] * B[k, j] ...;  J = join M(i, j) & C(i, j);  D[i, j within J(i, j)] = M[i, j] * C[i, j]

Proves legality: a phase holds what its outputs depend on, in program order.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from polyai.errors import UnsupportedError
from polyai.scalar import dtype as dt
from polyai.scalar.expr import Const
from polyai.shapes.expr import symbols
from polyai.shapes.guard import Guard
from polyai.tensor.bodies import (
    counted_by,
    loads,
    names_of,
    parts_within,
    read_by,
    reads_of,
    reduces,
    size_symbols,
    stored_at,
)
from polyai.tensor.nodes import (
    Comprehension,
    Cond,
    Extern,
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
    is_select,
    nnz_of,
    owns_a_pattern,
    pushes,
    regroups,
    targets_of,
    types_of,
)
from polyai.tensor.passes import located, selections, walks
from polyai.tensor.passes.counting import Counting, along_blocks, skeleton
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


HOW = ("packed", "kept", "counted", "again")
"""How patterns are assembled: within bounds, so also those that need not be stored, by counting first, or not at all, since they were
assembled before."""


def run(program: Program, *, how: str = "packed") -> tuple[Phase, ...]:
    """The phases of a program in order; one if it assembles nothing. `how`: one of `HOW`.

    Where patterns were assembled before, the values of a scatter are sums along its pattern, which is an argument then:

        C.val[i: n, j: m within C(i, j)] f64 = sum(k: c) A[i, k] * B[k, j]   within A(i, k), B(k, j)

    Index arrays are the caller's own then, and were checked when they were assembled: formats say so.
    """
    if how == "again":
        program = _owned(program)
    selected = selections.run(program)
    program = _with_rows_last(selected.program)
    made = {step.target: step for step in program.body if isinstance(step, (Join, Scatter, Spread)) and owns_a_pattern(step)}
    types = types_of(program)
    if not made and not any(isinstance(step, Listing) or walks.reread(step, types) for step in program.body):
        return (Phase(program),)
    return _Cut(program, made, how, selected).phases()


def _with_rows_last(program: Program) -> Program:
    """Steps that need no row of a scatter go before it, so that nothing stands between the rows and those who read them.

        C = A @ B; r = sqrt(v); D = C * r      ->      r = sqrt(v); C = A @ B; D = C * r
    """
    behind = {s.target for s in program.body if isinstance(s, Scatter) and owns_a_pattern(s) and not regroups(s)}
    if not behind:
        return program
    first: list[Step] = []
    last: list[Step] = []
    for step in program.body:
        waits = not behind.isdisjoint((*targets_of(step), *reads_of(step)))
        behind.update(targets_of(step) if waits else ())
        (last if waits else first).append(step)
    return dataclasses.replace(program, body=(*first, *last))


class _Cut(Counting):
    def __init__(self, program: Program, made: Mapping[str, Join | Scatter | Spread], how: str, selected: selections.Selections) -> None:
        self.whole = {n: s for n, s in made.items() if isinstance(s, Scatter) and s.type.format is not None and s.type.format.tail}
        self.blocks = {name: skeleton(step) for name, step in self.whole.items()}
        program = dataclasses.replace(program, body=tuple(self.blocks.get(s.target, s) if isinstance(s, Scatter) else s for s in program.body))
        self.program, self.made, self.how = program, {**made, **self.blocks}, how
        self.arrays, self.results = dict(selected.arrays), dict(selected.results)
        self.types, self.names = {**types_of(program), **self.arrays}, names_of(program)
        self.lists = {step.target: step for step in program.body if isinstance(step, Listing)}
        self.aliases: dict[str, str] = {}
        self.located = located.rows(program) if how == "packed" else {}
        self.assembled = [name for name in made if name not in self.located and self._is_assembled(name)]

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
        self.types.update((name, step.type) for name, step in self.blocks.items())
        ready: dict[str, TensorType] = {i.name: i.type for i in self.program.inputs}
        done: set[str] = set()
        for name in self.assembled:
            self._regions_first(name, out, ready, shared, done)
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
            if self.how == "again" and name in self.whole:
                self._values_in_blocks(name, out, ready, shared, done)
                continue
            if self.how == "again" and isinstance(step := self.made[name], Scatter):
                done.add(name)
                values = self._values(step)
                self._add(out, [values.target], ready, shared, done, more=[values], filling=name)
                continue
            packed = self.how in ("packed", "kept") and self._has_row_loop(name)
            if packed:
                bounds = self._bound(name, next((row for row, join in self.located.items() if join == name), ""))
                self._add(out, [bounds[-1].target], ready, shared, done, more=bounds, bounding=name)
            elif self.how != "again":
                counted = self._count(name)
                self._add(out, [counted[-1].target], ready, shared, done, more=counted, counting=name)
            if name in self.whole:
                coordinates = self._fill(name, False)[:1]
                self._add(out, [coordinates[0].target], ready, shared, done, more=coordinates, filling=name, packed=packed)
                self._values_in_blocks(name, out, ready, shared, done)
                continue
            followers, known = self._followers(name, ready, done)
            later = any(name in read_by(s) and not known.issuperset(targets_of(s)) for s in self.program.body if s is not self.made[name])
            stored = [s for s in self._fill(name, later) if self.how != "again" or not s.target.startswith(f"{name}.crd")]  # which the caller has then
            goals = [*(s.target for s in stored), *followers]
            self._add(out, goals, ready, shared, done, more=stored, filling=name, packed=packed)
            ready.update((f, self.types[f]) for f in followers)
            done.add(name)
        self._list(out, [self.lists[o] for o in self.program.outputs if o in self.lists], ready, shared, done)
        for name in self.assembled:
            self._regions_first(name, out, ready, shared, done)
        rest = [o for o in self.program.outputs if o not in ready and o not in done and o not in self.results]
        if rest:
            self._add(out, rest, ready, shared, done)
        results = {**self.results, **{o: self.aliases[o] for o in self.program.outputs if o in self.lists}}
        out[-1] = dataclasses.replace(out[-1], aliases=tuple({**dict(out[-1].aliases), **results}.items()))
        return tuple(out)

    def _values_in_blocks(self, name: str, out: list[Phase], ready: dict[str, TensorType], shared: frozenset[str], done: set[str]) -> None:
        """The values of a pattern of dense blocks, whose index arrays the phases before made."""
        done.add(name)
        step = self.whole[name]
        assert step.type.format is not None
        self.types[name] = dataclasses.replace(step.type, format=dataclasses.replace(step.type.format, owned=True))
        values = along_blocks(step)
        self._add(out, [values.target], ready, shared, done, more=[values])
        ready[values.target] = values.type

    def _regions_first(self, name: str, out: list[Phase], ready: dict[str, TensorType], shared: frozenset[str], done: set[str]) -> None:
        """Branches and loops that what lies along a pattern needs run before it is assembled, in phases of their own: rows are filled by
        one loop that nothing interrupts."""
        along = {n for n, t in self.types.items() if t.pattern is not None and t.pattern.owner == name}
        needed = {t for step in self._closure([*along], ready, done, (), "") for t in targets_of(step) if isinstance(step, (Cond, While))}
        known = {*ready, *done}
        for step in self.program.body:
            if not all(r in known for r in reads_of(step)) or (owns_a_pattern(step) and not isinstance(step, Select) and not known.issuperset(targets_of(step))):
                continue
            known.update(targets_of(step))
            if isinstance(step, (Cond, While)) and not needed.isdisjoint(targets_of(step)) and not ready.keys() >= set(targets_of(step)):
                self._add(out, [*step.targets], ready, shared, done)
                ready.update(zip(step.targets, step.types))

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
        needed = self._closure(goals, ready, done, more, counting)
        if counting or filling or bounding:  # kernels of their own, without loops and branches
            for step in needed:
                if isinstance(step, (Extern, Cond, While)) and not ready.keys() >= set(step.targets):
                    self._add(out, list(step.targets), ready, shared, done)
                    ready.update(zip(step.targets, step.types))
        self._list(out, self._closure(goals, ready, done, more, counting), ready, shared, done)
        goals = [g for g in goals if g not in ready]  # a phase that a list needed has made it
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
        complete = (filling,) if filling and self.how == "again" and isinstance(self.made[filling], Scatter) else ()
        program = Program(name, taken, tuple(steps), (*goals, *exported), (), tuple(sorted(assembled)), packed=(filling,) if packed else (), complete=complete)
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
        """Have the tensors computed that `steps` read as lists, or by a second walk of what they lie along."""
        inputs = {i.name for i in self.program.inputs}
        for step in steps:
            for name in sorted(walks.reread(step, self.types) - inputs - ready.keys()):
                if self._owner_of(name) in inputs | done:  # else they are stored with their pattern
                    self._add(out, [name], ready, shared, done)
                    ready[name] = self.types[name]
            if not isinstance(step, Listing) or step.target in ready:
                continue
            if step.of not in inputs and step.of not in self.made and step.of not in ready:
                self._add(out, [step.of], ready, shared, done)
                ready[step.of] = self.types[step.of]
            ready[step.target] = step.type
            self.aliases[step.target] = f"{step.of}.val" if step.of in inputs or step.of in self.made else step.of

    def _owner_of(self, name: str) -> str:
        pattern = self.types[name].pattern
        return "" if pattern is None else pattern.owner

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
            if isinstance(step, (Extern, Cond, While)) and name in read_by(step):
                return True
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
            elif owns_a_pattern(step) and not names & (done | self.located.keys() | set(self.assembled)) and counting not in names and isinstance(step, Scatter):
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

    def _followers(self, name: str, ready: Mapping[str, TensorType], done: set[str]) -> tuple[list[str], set[str]]:
        """What is stored along the pattern, and computed from what is there when it is filled; all that can be computed then."""
        out: list[str] = []
        known = {*ready, *done, name}
        along = {n for n, t in self.types.items() if t.pattern is not None and t.pattern.owner == name}
        gone: set[str] = set()  # what is there when a row has been walked
        for step in self.program.body:
            computable = all(r in known for r in reads_of(step))
            if isinstance(self.made[name], Scatter):  # a row that was walked is gone: who needs it again reads what was stored
                walks = not along.isdisjoint(read_by(step))
                if not gone.isdisjoint(reads_of(step)):
                    gone.update(targets_of(step))
                    computable = computable and not walks
                elif walks and along.isdisjoint(targets_of(step)):
                    gone.update(targets_of(step))
            if owns_a_pattern(step):
                if computable and (isinstance(step, Select) or (isinstance(step, Scatter) and self.located.get(step.target) == name)):
                    known.update(targets_of(step))
                continue
            if isinstance(step, (Cond, While)):  # the others ran before
                continue
            if computable and isinstance(step, Comprehension):
                known.add(step.target)
                if step.type.pattern is not None and step.type.pattern.owner == name and (self._is_wanted(step.target) or isinstance(step.body, Reduce)):
                    out.append(step.target)
            elif computable:
                known.update(targets_of(step))
        return out, known

    def _is_wanted(self, target: str) -> bool:
        """An output, or read by a step of another pattern."""
        if target in self.program.outputs:
            return True
        mine = self.types[target].pattern
        for step in self.program.body:
            if target in read_by(step) and not (isinstance(step, Comprehension) and step.type.pattern == mine):
                return True
        return False


def _occupancy(step: Scatter) -> Scatter:
    """The scatter without its values: what it touches."""
    return dataclasses.replace(step, type=dataclasses.replace(step.type, dtype=dt.bool_), monoid="or", body=Const(True, dt.bool_))


def _owned(program: Program) -> Program:
    """The program with index arrays that were checked and cannot change."""

    def kept(type: TensorType) -> TensorType:
        return type if type.format is None or is_select(type) else dataclasses.replace(type, format=dataclasses.replace(type.format, owned=True))

    inputs = tuple(dataclasses.replace(i, type=kept(i.type)) for i in program.inputs)
    body = tuple(dataclasses.replace(s, type=kept(s.type)) if isinstance(s, (Join, Scatter, Spread)) else s for s in program.body)
    return dataclasses.replace(program, inputs=inputs, body=body)


def _is_dear(step: Step) -> bool:
    """Worth more to keep than to compute again."""
    if isinstance(step, Comprehension):
        return next(reduces(step.body), None) is not None
    return not isinstance(step, (Join, Select))

