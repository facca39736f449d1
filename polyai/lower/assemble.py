"""A whole program as one kernel: straight segments, library calls, branches and loops of regions.

A *segment* is a longest run of comprehensions and scatters; each becomes a scop of its own. What several segments share
lives in memory of the kernel:

    program                        kernel
      T = ... (segment)              alloc T, S_next, go
      S = while(init=T): ...         ... segment ...
      Y = S + 1 (segment)            S = T; ... go = condition(S) ...
                                     while go:
                                       ... S_next = body(S) ...
                                       S = S_next; ... go = condition(S) ...
                                     ... segment ...
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

from polyai.errors import UnsupportedError, VerifyError
from polyai.loop import build as b
from polyai.loop import nodes as lp
from polyai.loop.walks import all_exprs, all_stmts, map_operands
from polyai.lower.sizes import size_expr
from polyai.lower.storage import index_dtype, stored
from polyai.poly import nodes as po
from polyai.scalar import dtype as dt
from polyai.tensor import nodes as tn
from polyai.tensor.bodies import loads, selects_of
from polyai.term.names import Names

Lower = Callable[[po.Scop, tn.Program], lp.Kernel]
Straight = tn.Comprehension | tn.Scatter | tn.Join | tn.Select | tn.Spread


def segments(program: tn.Program) -> tuple[tn.Program, ...]:
    """The straight parts of `program` and of its regions, in the order of the text."""
    return tuple(_segments(program))


def _segments(program: tn.Program) -> Iterator[tn.Program]:
    for part in _parts(program):
        match part:
            case tn.Program():
                yield part
            case tn.Cond(then=then, orelse=orelse):
                yield from _segments(then)
                yield from _segments(orelse)
            case tn.While(condition=condition, body=body):
                yield from _segments(condition)
                yield from _segments(body)
            case _:
                pass


def _parts(program: tn.Program) -> list[tn.Program | tn.Extern | tn.Cond | tn.While]:
    """The steps, with each run of straight ones as a program of its own."""
    if any(isinstance(s, tn.Listing) for s in program.body):
        raise VerifyError(f"program {program.name} lists what a tensor stores", "its phases hand lists on as arguments", "cut it into phases first")
    if all(isinstance(s, Straight) for s in program.body):
        return [program] if program.body else []
    types = tn.types_of(program)
    given = {i.name: i for i in program.inputs}
    out: list[tn.Program | tn.Extern | tn.Cond | tn.While] = []
    run: list[Straight] = []
    wanted_later: list[set[str]] = [set(program.outputs)]
    for step in reversed(program.body):
        wanted_later.append(wanted_later[-1] | set(_reads(step)))
    wanted_later.reverse()
    selects = selects_of(program)  # are no results: each part makes those it walks by

    def close(position: int) -> None:
        if run:
            made = {s.target for s in run}
            walked = dict.fromkeys(r for s in run for r in _reads(s) if r in selects and r not in made)
            run[:0] = [selects[name] for name in walked]
            made |= set(walked)
            outside = dict.fromkeys(r for s in run for r in _reads(s) if r not in made)
            owners = dict.fromkeys(p.owner for n in (*outside, *made) if (p := types[n].pattern) is not None and p.owner not in made)
            inputs = tuple(given.get(n, tn.Input(n, types[n])) for n in dict.fromkeys((*outside, *owners)))
            outputs = tuple(s.target for s in run if s.target in wanted_later[position] and s.target not in selects)
            out.append(tn.Program(f"{program.name}_{len(out)}", inputs, tuple(run), outputs, program.facts, sizes=program.sizes))
            run.clear()

    for position, step in enumerate(program.body):
        if isinstance(step, Straight):
            run.append(step)
        elif not isinstance(step, tn.Listing):
            close(position)
            out.append(step)
    close(len(program.body))
    return out


def _reads(step: tn.Step) -> Iterator[str]:
    match step:
        case tn.Comprehension() | tn.Scatter():
            roots = (step.body,) if isinstance(step, tn.Comprehension) else (step.body, *step.at)
            if isinstance(step, tn.Scatter) and step.base is not None:
                yield step.base
            for root in roots:
                for load in loads(root):
                    yield load.array
                yield from (w.tensor for w in _withins(root))
            yield from (w.tensor for w in step.within)
        case tn.Join():
            yield from (w.tensor for w in step.parts)
        case tn.Select(at=at):
            yield from (load.array for load in loads(at))
        case tn.Spread(length=length):
            yield from (load.array for load in loads(length))
        case tn.Extern(args=args):
            yield from args
        case tn.Cond(predicate=predicate, args=args):
            yield predicate
            yield from args
        case tn.While(init=init, args=args):
            yield from init
            yield from args


def _withins(body: tn.Body) -> tuple[tn.Within, ...]:
    return body.within if isinstance(body, tn.Reduce) else ()


def assemble(program: tn.Program, scops: Sequence[po.Scop], lower: Lower) -> lp.Kernel:
    """One kernel for `program`, whose segments became `scops`; `lower` makes a kernel of each."""
    parts = _parts(program)
    if len(parts) == 1 and isinstance(parts[0], tn.Program):
        return lower(scops[0], program)
    work = _Assembly(program, zip(segments(program), scops, strict=True), lower)
    return work.kernel()


class _Assembly:
    """The kernel so far. `where` maps the tensors of the region at hand to arrays of the kernel."""

    def __init__(self, program: tn.Program, pieces: Iterator[tuple[tn.Program, po.Scop]], lower: Lower) -> None:
        self.program, self.pieces, self.lower = program, pieces, lower
        self.sites: dict[lp.Site, int] = {}
        self.sizes: dict[str, None] = {}
        self.used: set[str] = set()
        self.shapes: dict[str, tuple[lp.LoopExpr, ...]] = {}  # of parameters, as the segments index them: blocks have dimensions of their own
        self.allocations: list[lp.Stmt] = []
        types = tn.types_of(program)
        self.inputs = {i.name: i.type for i in program.inputs}
        self.outputs = [o for o in dict.fromkeys(program.outputs) if o not in self.inputs]
        self.types = types
        self.names = Names((*types, *(tn.nnz_of(n) for n in self.inputs)))

    def kernel(self) -> lp.Kernel:
        where = {name: name for name in self.inputs}
        stmts = self.region(self.program, where, {o: o for o in self.outputs})
        arrays: list[lp.Param] = []
        for name, type_ in self.inputs.items():
            if type_.pattern is None or type_.pattern.owner != name:
                if name in self.used:
                    arrays.append(lp.Param(name, type_.dtype, "input", self.extents(type_)))
                continue
            if type_.format is None:  # values along the pattern of another one
                if name in self.used:
                    arrays.append(lp.Param(name, type_.dtype, "input", self.shapes.get(name) or self.extents(type_)))
                continue
            owner = stored(name, type_)
            bits = type_.format.index_bits if type_.format is not None else 64
            arrays += [
                lp.Param(a.name, index_dtype(bits), "input", (size_expr(a.length, self.symbol),)) for a in owner.arrays if a.name in self.used
            ]
            if f"{name}.val" in self.used:
                values = f"{name}.val"
                arrays.append(lp.Param(values, type_.dtype, "input", self.shapes.get(values) or (size_expr(owner.counts[-1], self.symbol),)))
        for name in self.outputs:
            type_ = self.types[name]
            shape = self.shapes.get(name) if type_.is_sparse else None
            arrays.append(lp.Param(name, type_.dtype, "output", shape or self.extents(type_)))
        params = (*(lp.Param(s, dt.i64, "size") for s in sorted(self.sizes)), *arrays)
        return lp.Kernel(self.program.name, params, lp.Block((*self.allocations, *stmts)), tuple(self.sites))

    def symbol(self, name: str) -> lp.Var:
        self.sizes[name] = None
        return b.var(name)

    def extents(self, type_: tn.TensorType) -> tuple[lp.LoopExpr, ...]:
        if type_.pattern is not None:
            owner = self.inputs.get(type_.pattern.owner)
            if owner is None or owner.format is None:
                raise UnsupportedError(
                    "a sparse result crosses the border of a branch or loop",
                    f"its pattern is that of {type_.pattern.owner}",
                    "convert it with .toarray() before",
                )
            return (size_expr(stored(type_.pattern.owner, owner).counts[-1], self.symbol),)
        return tuple(size_expr(s, self.symbol) for s in type_.shape)

    def memory(self, stem: str, type_: tn.TensorType) -> str:
        """A new array of the kernel."""
        return self.space(stem, type_.dtype, self.extents(type_))

    def space(self, stem: str, dtype: dt.DType, extents: tuple[lp.LoopExpr, ...]) -> str:
        """A new array of the kernel with these extents."""
        name = self.names.fresh(stem)
        self.allocations.append(lp.Alloc(name, dtype, extents, lp.Space.KERNEL))
        return name

    def result(self, kernel: lp.Kernel, name: str, type_: tn.TensorType) -> str:
        """Memory for a result of a segment that later steps read. Values along a pattern that the kernel is given are as the segment stores them."""
        if type_.pattern is None or type_.pattern.owner not in self.inputs:
            return self.memory(name, type_)
        extents = next(p.extents for p in kernel.params if p.name == name)
        assert extents is not None
        for extent in extents:
            self.sizes.update((n.name, None) for n in all_exprs(extent) if isinstance(n, lp.Var))
        return self.space(name, type_.dtype, extents)

    # Regions

    def region(self, program: tn.Program, where: dict[str, str], wanted: Mapping[str, str]) -> list[lp.Stmt]:
        """The statements of `program`. `where` says where its inputs are, `wanted` where its outputs shall be."""
        types = tn.types_of(program)
        out: list[lp.Stmt] = []
        for part in _parts(program):
            match part:
                case tn.Program():
                    given, scop = next(self.pieces)
                    kernel = self.lower(scop, given)
                    for name in (o for o in given.outputs if all(i.name != o for i in given.inputs)):
                        where[name] = wanted[name] if name in wanted else self.result(kernel, name, types[name])
                    out += self.segment(kernel, where)
                case tn.Extern():
                    for name in part.targets:
                        where[name] = wanted[name] if name in wanted else self.memory(name, types[name])
                    out.append(self.call(part, where, types))
                case tn.Cond():
                    for name in part.targets:
                        where[name] = wanted[name] if name in wanted else self.memory(name, types[name])
                    out.append(self.cond(part, where))
                case tn.While():
                    for name in part.targets:
                        where[name] = wanted[name] if name in wanted else self.memory(name, types[name])
                    out += self.loop(part, where)
        for name, place in wanted.items():
            if where[name] != place:
                out.append(self.copy(where[name], place, types[name]))
        return out

    def results(self, region: tn.Program, inner: dict[str, str], places: Sequence[str]) -> list[lp.Stmt]:
        """Run `region` so that output number k ends in places[k]."""
        wanted: dict[str, str] = {}
        inputs = {i.name for i in region.inputs}
        types = tn.types_of(region)
        later: list[tuple[str, str]] = []
        for name, place in zip(region.outputs, places):
            if name in wanted or name in inputs:
                later.append((name, place))
            else:
                wanted[name] = place
        out = self.region(region, inner, wanted)
        return out + [self.copy(inner[name], place, types[name]) for name, place in later]

    def cond(self, step: tn.Cond, where: Mapping[str, str]) -> lp.Stmt:
        places = [where[t] for t in step.targets]
        self.used.add(where[step.predicate])
        branches = []
        for region in (step.then, step.orelse):
            inner = {i.name: where[a] for i, a in zip(region.inputs, step.args)}
            branches.append(b.block(*self.results(region, inner, places)))
        return lp.If(b.load(where[step.predicate], (), dt.bool_), branches[0], branches[1])

    def loop(self, step: tn.While, where: Mapping[str, str]) -> list[lp.Stmt]:
        state = [where[t] for t in step.targets]
        after = [self.memory(f"{t}_next", type_) for t, type_ in zip(step.targets, step.types)]
        go = self.memory("go", tn.TensorType(dt.bool_, ()))
        sources = [*state, *(where[a] for a in step.args)]
        out = [self.copy(where[i], s, type_) for i, s, type_ in zip(step.init, state, step.types)]
        test = self.results(step.condition, {i.name: s for i, s in zip(step.condition.inputs, sources)}, [go])
        body = self.results(step.body, {i.name: s for i, s in zip(step.body.inputs, sources)}, after)
        body += [self.copy(x, s, type_) for x, s, type_ in zip(after, state, step.types)]
        again = lp.Block((lp.Block(tuple(body)), lp.Block(tuple(test))))
        return [*out, lp.Block(tuple(test)), lp.While(b.load(go, (), dt.bool_), again)]

    def copy(self, source: str, target: str, type_: tn.TensorType) -> lp.Stmt:
        """target = source, element by element."""
        self.used.update((source, target))
        extents = self.extents(type_)
        names = [self.names.fresh("e") for _ in extents]
        at = tuple(b.var(n) for n in names)
        stmt: lp.Stmt = lp.Store(target, at, b.load(source, at, type_.dtype))
        for k in reversed(range(len(names))):
            kind = lp.Kind.VECTOR if k == len(names) - 1 else lp.Kind.SERIAL
            stmt = lp.For(names[k], b.ZERO, extents[k], stmt, kind)
        return stmt

    def call(self, step: tn.Extern, where: Mapping[str, str], types: Mapping[str, tn.TensorType]) -> lp.Stmt:
        record = RECORDS.get(step.function)
        if record is None:
            raise UnsupportedError(f"no library function is called {step.function}", f"known are {', '.join(RECORDS)}")
        self.used.update(where[a] for a in step.args)
        return lp.Call(step.function, record(self, step, where, types))

    # Segments

    def segment(self, kernel: lp.Kernel, where: Mapping[str, str]) -> list[lp.Stmt]:
        """The body of a segment's kernel with the names of this kernel."""
        arrays: dict[str, str] = {}
        values: dict[str, str] = {}
        for p in kernel.params:
            base, dot, rest = p.name.partition(".")
            name = where.get(p.name) or (f"{where[base]}.{rest}" if dot and base in where else p.name)
            if p.extents is None:
                self.sizes[name] = None
                values[p.name] = name
            else:
                arrays[p.name] = name
                self.used.add(name)
        for s in all_stmts(kernel.body):
            if isinstance(s, lp.Alloc):
                arrays.setdefault(s.name, self.names.fresh(s.name))
            elif isinstance(s, (lp.Let, lp.For)):
                own = s.name if isinstance(s, lp.Let) else s.var
                values.setdefault(own, self.names.fresh(own))
        sites = [self.sites.setdefault(s, len(self.sites)) for s in kernel.sites]
        renamer = _Renamer(values, arrays, sites)
        for p in kernel.params:
            if p.extents is not None:
                self.shapes.setdefault(arrays[p.name], tuple(renamer.expr(e) for e in p.extents))
        body = renamer.stmt(kernel.body)
        out = []
        for s in b.statements(body):
            if isinstance(s, lp.Alloc) and s.space is lp.Space.KERNEL and all(_is_size(e, self.sizes) for e in s.extents):
                self.allocations.append(s)
            else:
                out.append(s)
        return [lp.Block(tuple(out))]


def _is_size(expr: lp.LoopExpr, sizes: Mapping[str, None]) -> bool:
    match expr:
        case lp.Var(name, _):
            return name in sizes
        case lp.Apply(_, args, _):
            return all(_is_size(a, sizes) for a in args)
        case _:
            return isinstance(expr, lp.Const)


class _Renamer:
    def __init__(self, values: Mapping[str, str], arrays: Mapping[str, str], sites: Sequence[int]) -> None:
        self.values, self.arrays, self.sites = values, arrays, sites

    def expr(self, expr: lp.LoopExpr) -> lp.LoopExpr:
        if isinstance(expr, lp.Var):
            return lp.Var(self.values.get(expr.name, expr.name), expr.dtype)
        expr = map_operands(expr, self.expr)
        if isinstance(expr, (lp.Load, lp.MaskedLoad)):
            return dataclasses.replace(expr, array=self.arrays.get(expr.array, expr.array))
        return expr

    def stmt(self, stmt: lp.Stmt) -> lp.Stmt:
        match stmt:
            case lp.Block(stmts):
                return lp.Block(tuple(self.stmt(s) for s in stmts))
            case lp.For(var, lower, upper, body, kind, step, weight, cost, jam, stretch):
                owner = None if weight is None else self.arrays.get(weight, weight)
                bounds = self.expr(lower), self.expr(upper)
                return lp.For(self.values.get(var, var), *bounds, self.stmt(body), kind, step, owner, cost, jam, stretch)
            case lp.While(condition, body):
                return lp.While(self.expr(condition), self.stmt(body))
            case lp.If(condition, then, orelse):
                return lp.If(self.expr(condition), self.stmt(then), None if orelse is None else self.stmt(orelse))
            case lp.Let(name, value):
                return lp.Let(self.values.get(name, name), self.expr(value))
            case lp.Alloc(name, dtype, extents, space, lanes):
                return lp.Alloc(self.arrays.get(name, name), dtype, tuple(self.expr(e) for e in extents), space, lanes)
            case lp.Store(array, indices, value, mask):
                at = tuple(self.expr(i) for i in indices)
                return lp.Store(self.arrays.get(array, array), at, self.expr(value), None if mask is None else self.expr(mask))
            case lp.Check(ok, site, culprit):
                return lp.Check(self.expr(ok), self.sites[site], None if culprit is None else self.expr(culprit))
            case lp.Turn(register, turns, counts, at, count, pieces):
                own, first, second = (self.arrays.get(n, n) for n in (register, turns, counts))
                return lp.Turn(own, first, second, self.expr(at), self.expr(count), self.expr(pieces))
            case lp.Prefetch(array, index, near):
                return lp.Prefetch(self.arrays.get(array, array), self.expr(index), near)
            case lp.Call(function, args):
                return lp.Call(function, tuple(self.arrays.get(a, a) if isinstance(a, str) else self.expr(a) for a in args))


Record = Callable[[_Assembly, tn.Extern, Mapping[str, str], Mapping[str, tn.TensorType]], tuple[lp.LoopExpr | str, ...]]


def _product(
    work: _Assembly, step: tn.Extern, where: Mapping[str, str], types: Mapping[str, tn.TensorType]
) -> tuple[lp.LoopExpr | str, ...]:
    """op_a op_b m n k alpha A lda B ldb beta C ldc, of row-major matrices without gaps."""
    given = dict(step.attributes)
    op_a, op_b = int(given["op_a"]), int(given["op_b"])
    a, c = types[step.args[0]], step.types[0]
    b_type = types[step.args[1]]
    rows, columns = (work.extents(t) for t in (a, b_type))
    m, n = work.extents(c)
    k = rows[0] if op_a else rows[1]
    one, zero = lp.Const(1.0, dt.f64), lp.Const(0.0, dt.f64)
    left, right = where[step.args[0]], where[step.args[1]]
    return (b.const(op_a), b.const(op_b), m, n, k, one, left, rows[1], right, columns[1], zero, where[step.targets[0]], n)


RECORDS: dict[str, Record] = {"blas.sgemm": _product, "blas.dgemm": _product}
"""How each library function takes its arguments."""
