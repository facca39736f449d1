"""Canonical tensor programs to statements over integer sets.

    T[i,j] = reduce add (k) A[i,k] * X[k,j]  within A(i,k)          Y[i,j] = max(T[i,j] + b[j], 0)

    T_init[i,j]     T[i,j] = 0.0                                    0 <= i < n, 0 <= j < m
    T_upd[i,j,q]    T[i,j] add= A.val[i,q] * X[A.crd1[i,q],j]       and 0 <= q < A_max1
    Y[i_1,j_1]      Y[i_1,j_1] = max(T[i_1,j_1] + b[j_1], 0.0)

A result that other nests read, or that leaves the program, is reduced into `T_acc` and copied: `contract` then keeps the
accumulator in a register. A scatter copies its base, unless nobody else needs it, and updates in place. A scatter without a base
updates a workspace; within its pattern, statements walk what the workspace's rows hold. Where only an intersection with another
pattern reads it, that pattern is walked, and its coordinates are looked for in the row. Within a join they walk the merge of its
parts, and read a part where it is stored, else zero:

    C[i,j] = A[i,j] * 2 + B[i,j]  within J(i,j) = A(i,j) | B(i,j)
    C[i,q]      C[i,q] = where(J.has0[i,q], A.val[i,J.at0[i,q]], 0) * 2 + where(J.has1[i,q], B.val[i,J.at1[i,q]], 0)
"""

from __future__ import annotations

import dataclasses
from functools import reduce
from typing import cast

from polyai.errors import UnsupportedError, VerifyError
from polyai.lower import fibre
from polyai.lower.builder import Builder
from polyai.lower.frames import Frame
from polyai.lower.needs import read_elsewhere
from polyai.poly import nodes as poly
from polyai.scalar import dtype as dt
from polyai.scalar.build import cast as convert
from polyai.scalar.expr import Apply, Const, Expr, Load, Var
from polyai.scalar.ops import MONOIDS
from polyai.shapes.expr import Size, symbol
from polyai.tensor import nodes as tn
from polyai.tensor.bodies import left_out, loads, owner_within, row_in_blocks, zero


def lower(program: tn.Program) -> poly.Scop:
    """The scop of a canonical program, in program order, without a schedule.

    Raises UnsupportedError for control flow, library calls and walks of two sparse tensors at once.
    """
    return _Lowering(program).scop()


class _Lowering(Builder):
    def __init__(self, program: tn.Program) -> None:
        super().__init__(program)
        self.shared = set(read_elsewhere(program))
        self.located = {part.tensor: join for join in self.joins.values() for part in join.parts if self._is_a_row(part.tensor)}
        self.groupings: list[poly.Grouping] = []

    def scop(self) -> poly.Scop:
        for given in self.program.inputs:
            self._declare(given.name, given.type, "input")
        for step in self.program.body:
            match step:
                case tn.Comprehension():
                    self._comprehension(step)
                case tn.Scatter():
                    self._scatter(step)
                case tn.Join():
                    self._join(step)
                case tn.Select():  # has no statement: it is what those within it walk
                    pass
                case tn.Spread():
                    raise VerifyError(f"{step.target} spreads what nobody has counted", "its phases hand it on as an argument", "cut the program into phases first")
                case tn.Extern() | tn.Cond() | tn.While():
                    raise UnsupportedError(
                        f"a {type(step).__name__.lower()} step among statements",
                        "it has no affine form",
                        "split the program around it",
                    )
        facts = [f"{self.parameters.text(f.size)} {'>=' if f.relation == 'nonnegative' else '='} 0" for f in self.program.facts]
        names = (*self.parameters.sizes, *self.frames.hulls)
        context = " and ".join((*(f"{p} >= 0" for p in names), *facts))
        prefix = f"[{', '.join(names)}] -> "
        return poly.Scop(
            self.program.name,
            names,
            f"{prefix}{{ : {context} }}" if context else f"{prefix}{{ : }}",
            tuple(self.arrays.values()),
            tuple(_prefixed(s, prefix) for s in self.statements),
            sizes=tuple(self.parameters.sizes.items()),
            streams=tuple(self.streams.values()),
            groupings=tuple(self.groupings),
        )

    # --- steps ------------------------------------------------------------------------------------------------------------

    def _comprehension(self, step: tn.Comprehension) -> None:
        name = self.alias.get(step.target, step.target)
        self._declare(name, step.type, "output" if name in self.program.outputs else "temporary")
        masked = bool(step.within) and not step.type.is_sparse
        if masked:  # what is not stored in the pattern is zero
            whole = self.frames.of(step.indices, ())
            self._add(f"{step.target}_init", whole, name, self._dense_at(whole, step.indices), zero(step.type.dtype), None)
        frame = self.frames.of(step.indices, step.within)
        if not isinstance(step.body, tn.Reduce):
            at = self._at(frame, step.indices, step.type)
            self._add(step.target, frame, name, at, self._expr(frame, step.body, step.type.dtype), None)
            return
        self._reduction(step, step.body, frame, name, masked)

    def _reduction(self, step: tn.Comprehension, reduce: tn.Reduce, frame: Frame, name: str, masked: bool) -> None:
        if any(load.array == step.target for load in loads(reduce.body)):
            raise UnsupportedError(
                f"{step.target} is reduced from its own elements",
                "each element needs earlier ones that are complete",
                "write the recurrence without a reduction",
            )
        if step.type.is_sparse and self._names_what_is_listed(step, reduce):
            self._by_rows(step, reduce, name)
            return
        inner = self.frames.of((*step.indices, *reduce.over), (*step.within, *reduce.within))
        walked = {v for w in inner.walks for v, e in w.coordinates if not isinstance(e, Var)}
        direct = step.type.is_sparse or not walked & {i.name for i in step.indices}
        target = name
        if masked or (direct and step.target in self.shared):
            owner = step.within[0] if masked else None
            target = self.array_names.fresh(f"{step.target}_acc")
            pattern = None if owner is None else owner_within(owner, self.types)
            kept = step.type if pattern is None else tn.TensorType(reduce.dtype, step.type.shape, None, tn.Pattern(pattern.tensor, ()))
            self._declare(target, dataclasses.replace(kept, dtype=reduce.dtype), "temporary")
        identity = Const(MONOIDS[reduce.monoid].identity(reduce.dtype), reduce.dtype)
        stored = step.type.is_sparse or masked
        init_at = frame.walks[0].position if stored else self._dense_at(frame, step.indices)
        upd_at = self._outer_position(inner, frame) if stored else self._dense_at(inner, step.indices)
        self._add(f"{step.target}_init", frame, target, init_at, identity, None)
        self._add(f"{step.target}_upd", inner, target, upd_at, self._expr(inner, reduce.body, reduce.dtype), reduce.monoid)
        if target != name:
            last = self.frames.of(step.indices, step.within)
            read_at = last.walks[0].position if stored else self._dense_at(last, step.indices)
            value = convert(Load(target, read_at, reduce.dtype), step.type.dtype)
            self._add(step.target, last, name, self._at(last, step.indices, step.type), value, None)

    def _names_what_is_listed(self, step: tn.Comprehension, reduce: tn.Reduce) -> bool:
        """True if walks inside the sum bind the dimension that the result's own pattern lists: a product under a mask."""
        mine = owner_within(step.within[0], self.types)
        form = self.frames.format(mine.tensor)
        if form.levels[-1].name != "compressed" or not all(x.full for x in form.levels[:-1]):
            return False
        listed = mine.indices[form.order[-1]]
        others = {owner_within(w, self.types) for w in reduce.within} - {mine}
        return any(listed in w.indices for w in others) and mine.tensor not in self.streams

    def _by_rows(self, step: tn.Comprehension, reduce: tn.Reduce, name: str) -> None:
        """A sum that reaches any element of a row, of which the result's pattern wants some: a dense row holds it meanwhile.

            T_row[i, M.crd1[i,q]] = 0;  T_row[i, B.crd1[A.crd1[i,r],s]] += ...;  T[i,q] = T_row[i, M.crd1[i,q]]

        What lies outside the pattern is added up as well and never read. Where nothing does, the row is zero between uses, and who reads
        an element leaves zero there.
        """
        owner = owner_within(step.within[0], self.types).tensor
        inner = self.frames.of((*step.indices, *reduce.over), reduce.within)
        points = inner, self._dense_at(inner, step.indices), self._expr(inner, reduce.body, reduce.dtype)
        self._through_rows(step, name, step.indices, step.within, points, reduce.monoid, owner in self.program.complete)

    def _through_rows(
        self,
        step: tn.Comprehension | tn.Scatter,
        name: str,
        indices: tuple[tn.Index, ...],
        within: tuple[tn.Within, ...],
        points: tuple[Frame, tuple[Expr, ...], Expr],
        monoid: str,
        complete: bool,
    ) -> None:
        """`points`, each with a place and a value, add up in dense rows, from which what lies along a pattern is taken."""
        inner, places, value = points
        dtype, order = value.dtype, self.frames.format(owner_within(within[0], self.types).tensor).order
        dims = tuple(step.type.pattern.dims.index(d) for d in order) if step.type.pattern is not None else order
        row = self.array_names.fresh(f"{step.target}_row")
        in_row = tuple(indices[d] for d in dims)
        identity = Const(MONOIDS[monoid].identity(dtype), dtype)
        taken = complete and identity == zero(dtype)
        self.arrays[row] = poly.Array(row, dtype, tuple(step.type.shape[d] for d in dims), "temporary", taken)
        first, last = (self.frames.of(indices, within) for _ in range(2))
        if not taken:
            self._add(f"{step.target}_init", first, row, self._dense_at(first, in_row), identity, None)
        self._add(f"{step.target}_upd", inner, row, tuple(places[d] for d in dims), value, monoid)
        stored = convert(Load(row, self._dense_at(last, in_row), dtype), step.type.dtype)
        self._add(step.target, last, name, self._at(last, indices, step.type), stored, None)

    def _join(self, step: tn.Join) -> None:
        """A join has no statement: it is what those within it walk."""
        parts = step.parts
        order = self.frames.format(step.target).order
        for part in parts:
            form = self.frames.format(part.tensor)
            stored = tuple(part.indices[d] for d in form.order)
            if stored != tuple(step.indices[d].name for d in order) or form.merged != self.frames.format(step.target).merged:
                raise UnsupportedError(
                    f"{part.tensor} is merged in an order or a format that has no merge",
                    f"it is stored as {form.name}; merged are compressed rows below dense dimensions, of one order",
                    f"convert it first: asformat({part.tensor}, ...)",
                )
        level = self.frames.format(step.target).merged
        for workspace in parts:
            if workspace.tensor in self.located:
                (walked,) = (p for p in parts if p is not workspace)
                self._stream(step, poly.Located((walked.tensor, level), workspace.tensor))
                return
        numbers = {part: n for n, part in enumerate(parts)}
        source = poly.Merge(
            tuple((part.tensor, level) for part in parts), tuple(tuple(numbers[w] for w in clause) for clause in step.clauses)
        )
        self._stream(step, source)

    def _is_a_row(self, tensor: str) -> bool:
        """Whether a matrix that the program makes is not stored: it has one row at a time, a workspace."""
        return tensor not in self.program.assembled and any(isinstance(s, tn.Scatter) and s.base is None and s.target == tensor for s in self.program.body)

    def _stream(self, step: tn.Join | tn.Scatter, source: poly.Merge | poly.Drain | poly.Located) -> None:
        """Declare what walks of the target's pattern read."""
        name, form = step.target, self.frames.format(step.target)
        level = form.merged
        rows, (extent, *inner) = prod_of([step.type.shape[d] for d in form.order[:level]]), [step.type.shape[d] for d in form.order[level:]]
        self.streams[name] = poly.Stream(name, level, rows, extent, source, name in self.program.assembled, name in self.program.packed, tuple(inner))
        along = fibre.extents(name, step.type)
        found = [(f"{name}.next{n}", dt.i64) for n in range(level, len(form.order))]
        if isinstance(source, poly.Merge):
            for n in range(len(source.parts)):
                found += [(f"{name}.at{n}", dt.i64), (f"{name}.has{n}", dt.bool_)]
        elif isinstance(source, poly.Located):
            found.append((f"{name}.at0", dt.i64))
        for array, dtype in found:
            self.arrays[array] = poly.Array(array, dtype, along, "stream")

    def _sparse_scatter(self, step: tn.Scatter) -> None:
        """Updates of a workspace, whose dimensions lie in the order of the levels."""
        form = self.frames.format(step.target)
        if not all(x.full for x in form.levels[:-1]):
            raise UnsupportedError(
                f"{step.target} is assembled as {form.name}", "only rows below dense dimensions are", "ask for another format: csr or csc"
            )
        if tn.regroups(step):
            self._regrouped(step)
            return
        if tn.pushes(step):
            self._pushed(step)
            return
        extents = tuple(step.type.shape[d] for d in form.order)
        self.arrays[step.target] = poly.Array(step.target, step.type.dtype, extents, "workspace")
        if (join := self.located.get(step.target)) is not None:
            self._set_where_wanted(step, join)
        frame = self.frames.of(step.indices, step.within)
        at = tuple(self._expr(frame, step.at[d]) for d in form.order)
        self._add(step.target, frame, step.target, at, self._expr(frame, step.body, step.type.dtype), step.monoid)
        if join is None:
            self._stream(step, poly.Drain(step.target))

    def _set_where_wanted(self, step: tn.Scatter, join: tn.Join) -> None:
        """Set the elements of a row that somebody asks for, before they are updated."""
        assert step.monoid is not None
        (walked,) = (p for p in join.parts if p.tensor != step.target)
        frame = self.frames.of(join.indices, (walked,))
        order = self.frames.format(step.target).order
        at = self._dense_at(frame, tuple(join.indices[d] for d in order))
        self._add(f"{step.target}_init", frame, step.target, at, Const(MONOIDS[step.monoid].identity(step.type.dtype), step.type.dtype), None)

    def _regrouped(self, step: tn.Scatter) -> None:
        """Each element goes where the cursor of its group stands, which moves on: groups fill up in the order of the walk."""
        name, form = step.target, self.frames.format(step.target)
        outer, inner = form.order
        index = dt.BY_NAME[f"i{form.index_bits}"]
        groups, stored = step.type.shape[outer], symbol(tn.nnz_of(name))
        self.arrays[f"{name}.pos1"] = poly.Array(f"{name}.pos1", index, (groups + 1,), "output")
        self.arrays[f"{name}.crd1"] = poly.Array(f"{name}.crd1", index, (stored,), "output")
        self.arrays[f"{name}.val"] = poly.Array(f"{name}.val", step.type.dtype, (stored,), "output")
        cursors = f"{name}.cursors"
        self.arrays[cursors] = poly.Array(cursors, index, (groups,), "temporary")
        made: list[str] = []
        for stem in (f"{name}_count", name):
            frame = self.frames.of(step.indices, step.within)
            at, coordinate = (self._expr(frame, step.at[outer], dt.i64),), self._expr(frame, step.at[inner], index)
            pushes = ((f"{name}.crd1", coordinate), (f"{name}.val", self._expr(frame, step.body, step.type.dtype)))
            once = coordinate if step.monoid is not None else None
            self._add(stem, frame, cursors, at, Const(1, index), "add", pushes if made else (), groups=name, once=once)
            made.append(self.statements[-1].name)
        owner = owner_within(step.within[0], self.types)
        walked, places = self.frames.format(owner.tensor), [a.name if isinstance(a, Var) else "" for a in step.at]
        ordered = walked.levels[0].full and owner.indices[walked.order[0]] == places[inner]
        extent = step.type.shape[inner]
        self.groupings.append(poly.Grouping(name, groups, extent, owner.tensor, cursors, made[0], made[1], step.monoid, ordered))

    def _pushed(self, step: tn.Scatter) -> None:
        """Rows that were counted fill up: each element goes where the cursor of its row stands, which moves on."""
        name, form = step.target, self.frames.format(step.target)
        row, column = form.order
        index = dt.BY_NAME[f"i{form.index_bits}"]
        rows, stored = step.type.shape[row], symbol(tn.nnz_of(name))
        self.arrays[f"{name}.pos1"] = poly.Array(f"{name}.pos1", index, (rows + 1,), "input")
        if f"{name}.crd1" in self.program.outputs:
            self.arrays[f"{name}.crd1"] = poly.Array(f"{name}.crd1", index, (stored,), "output")
        if f"{name}.val" in self.program.outputs:
            self.arrays[f"{name}.val"] = poly.Array(f"{name}.val", step.type.dtype, (stored,), "output")
        cursor = f"{name}.cursor"
        cut = row_in_blocks(step, row) if step.within else None  # rows that two dims give have a cursor for each pair, so that both are seen to be free
        lines = (tn.Index(f"{name}_row", rows),) if cut is None else tuple(tn.Index(f"{name}_row{n}", i.extent) for n, i in enumerate(cut))
        self.arrays[cursor] = poly.Array(cursor, dt.i64, tuple(i.extent for i in lines), "temporary")
        start = self.frames.of(lines, ())
        place = self._dense_at(start, lines)
        whole = place[0] if cut is None else Apply("add", (Apply("mul", (place[0], Const(cast("int", cut[1].extent), dt.i64)), dt.i64), place[1]), dt.i64)
        self._add(f"{name}_cursor", start, cursor, place, convert(Load(f"{name}.pos1", (whole,), index), dt.i64), None)
        frame = self.frames.of(step.indices, step.within)
        places, conditions = zip(*(left_out(a) for a in step.at))
        known = [self._expr(frame, c) for c in conditions if c is not None]
        when = None if not known else reduce(lambda a, c: Apply("and", (a, c), dt.bool_), known)
        at = (self._expr(frame, places[row], dt.i64),) if cut is None else self._dense_at(frame, cut)
        one: Expr = Const(1, dt.i64)
        if when is not None and not step.within:  # without a branch on data: what is not wanted is stored over, until the row is full
            after = Load(f"{name}.pos1", (Apply("add", (at[0], one), dt.i64),), index)
            one, when = convert(when, dt.i64), Apply("lt", (Load(cursor, at, dt.i64), convert(after, dt.i64)), dt.bool_)
        following = Apply("add", (Load(cursor, at, dt.i64), one), dt.i64)
        found = (("crd1", places[column], index), ("val", step.body, step.type.dtype))
        pushes = tuple((f"{name}.{part}", self._expr(frame, body, dtype)) for part, body, dtype in found if f"{name}.{part}" in self.program.outputs)
        self._add(name, frame, cursor, at, following, None, pushes, when)

    def _along(self, step: tn.Scatter) -> None:
        """A scatter along a pattern: its rows are dense meanwhile. Whole blocks of them are cleared, so that no other part is touched."""
        pattern = step.type.pattern
        assert pattern is not None and step.monoid is not None
        indices = tuple(tn.Index(f"{step.target}_d{d}", extent) for d, extent in enumerate(step.type.shape))
        within = (tn.Within(pattern.owner, tuple(indices[pattern.dims.index(d)].name for d in range(len(indices)))),)
        self._declare(step.target, step.type, "output" if step.target in self.program.outputs else "temporary")
        inner = self.frames.of(step.indices, step.within)
        points = inner, tuple(self._expr(inner, a) for a in step.at), self._expr(inner, step.body, step.type.dtype)
        self._through_rows(step, step.target, indices, within, points, step.monoid, False)

    def _scatter(self, step: tn.Scatter) -> None:
        if tn.lies_along(step):
            self._along(step)
            return
        if step.base is None:
            self._sparse_scatter(step)
            return
        name = self.alias.get(step.target, step.target)
        self._declare(name, step.type, "output" if name in self.program.outputs else "temporary")
        if self.alias.get(step.base, step.base) != name:
            dims = tuple(tn.Index(f"{step.target}_i{d}", extent) for d, extent in enumerate(step.type.shape))
            whole = self.frames.of(dims, ())
            at = self._dense_at(whole, dims)
            base = convert(Load(step.base, at, self.types[step.base].dtype), step.type.dtype)
            self._add(f"{step.target}_base", whole, name, at, base, None)
        frame = self.frames.of(step.indices, step.within)
        at = tuple(self._expr(frame, e) for e in step.at)
        self._add(step.target, frame, name, at, self._expr(frame, step.body, step.type.dtype), step.monoid)

def prod_of(sizes: list[Size]) -> Size:
    """The product of sizes."""
    out: Size = 1
    for size in sizes:
        out = out * size
    return out


def _prefixed(statement: poly.Statement, prefix: str) -> poly.Statement:
    return dataclasses.replace(
        statement,
        domain=prefix + statement.domain,
        write=dataclasses.replace(statement.write, text=prefix + statement.write.text),
        reads=tuple(dataclasses.replace(r, text=prefix + r.text) for r in statement.reads),
    )
