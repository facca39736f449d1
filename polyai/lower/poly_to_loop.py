"""From geometry to steps: the schedule tree becomes loops, statement instances become stores.

isl's AST gives the loops. This file adds what isl does not know: fibre bounds and their checks, coordinates read from
memory and their checks, memory for temporaries, lazily guarded loads.

    for i in 0..m parallel weight=A.pos1:
      let A_begin1 = i64(A.pos1[i])                         the mark bind=A.1
      let A_end1 = i64(A.pos1[i + 1])
      check A_begin1 <= A_end1 <= A.nnz
      let A_len1 = A_end1 - A_begin1
      for j in 0..w vector:
        alloc T: f32 register                               contracted to nothing
        T = 0
        for q in 0..A_len1:
          let A_crd1 = i64(A.crd1[A_begin1 + q])
          check 0 <= A_crd1 < n                             isl cannot know what memory holds
          T = T + A.val[A_begin1 + q] * X[A_crd1, j]
        Y[i, j] = T
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import assert_never

import islpy as isl

from polyai.errors import UnsupportedError, VerifyError
from polyai.loop import build as b
from polyai.loop import nodes as lp
from polyai.lower.ast_walk import Ast, Branch, Instance, Loop, Marked, Several, ast_of, instances
from polyai.lower.sizes import size_expr
from polyai.lower.storage import Storage
from polyai.poly import nodes as po
from polyai.poly.affine import affine
from polyai.poly.legal import guarded_loads
from polyai.scalar import dtype as dt
from polyai.scalar.dtype import DType
from polyai.scalar.expr import Apply, Cast, Const, Expr, Load, Var
from polyai.scalar.ops import MONOIDS
from polyai.shapes.expr import Size, show
from polyai.tensor import nodes as tn
from polyai.term.names import Names

_SYMBOLIC = 32
"""How many iterations a loop of unknown length is taken to have when costs are estimated."""


def lower(scop: po.Scop, program: tn.Program) -> lp.Kernel:
    """The kernel that runs `scop` in the order of its schedule. `program` gives the calling order and the formats.

    Raises VerifyError if the scop has no schedule or reads what it cannot reach."""
    if scop.schedule is None:
        raise VerifyError(f"scop {scop.name} has no schedule")
    context = isl.Set.read_from_str(isl.DEFAULT_CONTEXT, scop.context)
    return _Lowering(scop, program).kernel(ast_of(with_depths(scop.schedule), context))


def with_depths(schedule: isl.Schedule) -> isl.Schedule:
    """`schedule` with the depth of its loop written into each mark: isl leaves out loops that run once, but not their marks."""

    def number(at: isl.ScheduleNode) -> isl.ScheduleNode:
        if at.get_type() != isl.schedule_node_type.mark:
            return at
        name = f"{at.mark_get_id().get_name()}@{at.get_schedule_depth()}"
        return at.delete().insert_mark(isl.Id(name, None, isl.DEFAULT_CONTEXT))

    return schedule.map_schedule_node_bottom_up(number)


@dataclass(slots=True)
class _Level:
    """The body of one loop or branch under construction."""

    stmts: list[lp.Stmt]
    branch: bool = False
    bound: dict[object, lp.Var] = field(default_factory=dict)
    checked: set[object] = field(default_factory=set)


class _Lowering:
    def __init__(self, scop: po.Scop, program: tn.Program) -> None:
        self.scop, self.program = scop, program
        self.statements = {s.name: s for s in scop.statements}
        self.sizes = dict(scop.sizes)
        self.symbols: dict[str, None] = {}  # sizes the kernel needs, in order of first use
        self.storage = Storage(scop, program, self.size)
        self.held_back: dict[str, frozenset[Load]] = {}  # by statement: loads that only a `where` keeps in their array
        self.used: set[str] = set()
        self.sites: dict[lp.Site, int] = {}
        self.env: dict[str, lp.LoopExpr] = {}  # isl's names
        self.begins: dict[tuple[str, int], lp.LoopExpr] = {}
        self.levels = [_Level([])]
        self.home: dict[str, int] = {}  # the level that defines a local name
        self.weights: dict[str, str] = {}
        self.hulls: dict[str, tuple[str, int]] = {}
        self.pending = {a.array: a.depth for a in scop.allocations}
        self.hull_of = {r.hull: (r.tensor, r.level) for s in scop.statements for r in s.ragged}
        taken = {a.name for a in scop.arrays} | set(self.hull_of)
        self.names = Names(taken | set(self._all_symbols()))
        for a in scop.arrays:
            if a.role == "temporary":
                self.pending.setdefault(a.name, 0)

    def _all_symbols(self) -> list[str]:
        out: dict[str, None] = {}

        def note(name: str) -> lp.Var:
            out[name] = None
            return b.var(name)

        for _, size in self.scop.sizes:
            size_expr(size, note)
        for i in self.program.inputs:
            for s in i.type.shape:
                size_expr(s, note)
            if i.type.is_sparse:
                out[tn.nnz_of(i.name)] = None
        self.order = list(out)
        return self.order

    def size(self, size: Size) -> lp.LoopExpr:
        return size_expr(size, self.symbol)

    def symbol(self, name: str) -> lp.Var:
        self.symbols[name] = None
        return b.var(name)

    # The kernel

    def kernel(self, ast: Ast) -> lp.Kernel:
        self.accessors = {name: self._accessors(name) for name in self.pending}
        self._allocate(0, ast, parallel=False)
        self._ast(ast, ())
        if self.pending:
            raise VerifyError("temporaries without a place", ", ".join(self.pending))
        body = b.block(*self._prelude(), *self.levels[0].stmts)
        params = self._params()
        return lp.Kernel(self.scop.name, params, body, tuple(self.sites))

    def _params(self) -> tuple[lp.Param, ...]:
        arrays: list[lp.Param] = []
        for i in self.program.inputs:
            names = [s.name for s in self.storage.stored[i.name].arrays] + [f"{i.name}.val"] if i.type.is_sparse else [i.name]
            for name in names:
                if name in self.used:
                    arrays.append(lp.Param(name, self.storage.dtype(name), "input", self.storage.extents(name)))
        written = {a.name for a in self.scop.arrays if a.role == "output"}
        ordered = [n for o in self.program.outputs for n in (o, f"{o}.val") if n in written]
        for name in dict.fromkeys(ordered):
            arrays.append(lp.Param(name, self.storage.dtype(name), "output", self.storage.extents(name)))
        missing = written - set(ordered)
        if missing:
            raise VerifyError("outputs of the scop that the program does not name", ", ".join(sorted(missing)))
        rank = {name: k for k, name in enumerate(self.order)}
        sizes = sorted(self.symbols, key=lambda s: (rank.get(s, len(rank)), s))
        return (*(lp.Param(s, dt.i64, "size") for s in sizes), *arrays)

    def _prelude(self) -> list[lp.Stmt]:
        """The longest fibre of each level whose hull sizes a buffer."""
        out: list[lp.Stmt] = []
        for hull, (tensor, level) in self.hulls.items():
            owner = self.storage.stored[tensor]
            pos, register, r = f"{tensor}.pos{level}", self.names.fresh(f"{hull}_so_far"), self.names.fresh("r")
            self.used.add(pos)
            begin = b.convert(b.load(pos, (b.var(r),), owner.index), dt.i64)
            end = b.convert(b.load(pos, (b.add(b.var(r), b.ONE),), owner.index), dt.i64)
            longest = b.apply("max", (b.load(register, (), dt.i64), b.sub(end, begin)), dt.i64)
            loop = lp.For(r, b.ZERO, self.size(owner.parents(level)), lp.Store(register, (), longest), lp.Kind.VECTOR)
            out += [
                lp.Alloc(register, dt.i64, (), lp.Space.REGISTER),
                lp.Store(register, (), b.ZERO),
                loop,
                lp.Let(hull, b.load(register, (), dt.i64)),
                lp.Check(b.at_most(b.var(hull), self.size(owner.counts[level])), self._fibre_site(tensor, level), b.var(hull)),
            ]
        return out

    # Loops

    def _ast(self, ast: Ast, marks: tuple[str, ...]) -> None:
        match ast:
            case Several(children):
                for child in children:
                    self._ast(child, marks)
            case Marked(mark, body):
                if mark.startswith(po.BIND + "="):
                    self._bind(mark, body)
                    self._ast(body, marks)
                else:
                    self._ast(body, (*marks, mark))
            case Branch(condition, then, orelse):
                test = self._sub(condition)
                taken = self._inside(_Level([], branch=True), then, marks)
                other = None if orelse is None else self._inside(_Level([], branch=True), orelse, marks)
                self.emit(lp.If(test, taken, other))
            case Instance():
                mine = [m for m in marks if m.startswith(po.EXTERN + "=")]
                if mine:
                    raise UnsupportedError(f"library call {mine[0]} inside a loop nest", remedy="make it an Extern step of the program")
                self._instance(ast)
            case Loop():
                self._loop(ast, marks)
            case _:
                assert_never(ast)

    def _inside(self, level: _Level, ast: Ast, marks: tuple[str, ...]) -> lp.Stmt:
        self.levels.append(level)
        begins = dict(self.begins)
        self._ast(ast, marks)
        self.begins = begins
        self.levels.pop()
        return b.block(*level.stmts)

    def _loop(self, loop: Loop, marks: tuple[str, ...]) -> None:
        mine = {m.rpartition("@")[0].partition("=")[0]: m.rpartition("@")[0].partition("=")[2] for m in marks if m.endswith(f"@{loop.depth}")}
        lower, upper = self._sub(loop.lower), self._sub(loop.upper)
        parallel = po.PARALLEL in mine and not self._in_parallel()
        name = self.names.fresh(self._stem(loop))
        kind = lp.Kind.VECTOR if po.VECTOR in mine else lp.Kind.JAM if po.JAM in mine else lp.Kind.SERIAL
        jam = int(mine.get(po.JAM, 1))
        blocks = None
        if parallel and (kind is not lp.Kind.SERIAL):
            blocks = self.names.fresh(f"{name}_block")
        elif parallel:
            kind = lp.Kind.PARALLEL
        if parallel:
            self.parallel_level = len(self.levels)
        outer = (self.env.get(loop.iterator), self.home.get(name))
        level = _Level([])
        self.levels.append(level)
        if blocks:
            self.levels.append(level := _Level([]))
        self.env[loop.iterator], self.home[name] = b.var(name), len(self.levels) - 1
        begins = dict(self.begins)
        self._allocate(loop.depth + 1, loop.body, parallel=self._in_parallel())
        self._ast(loop.body, marks)
        self.begins = begins
        body = b.block(*self.levels.pop().stmts)
        if blocks:
            self.levels.pop()
        if parallel:
            self.parallel_level = None
        if outer[0] is not None:
            self.env[loop.iterator] = outer[0]
        cost = self._cost(loop.body) if parallel else 1
        weight = self.weights.pop(name, None)
        if blocks is None:
            self.emit(lp.For(name, lower, upper, body, kind, loop.step, weight if parallel else None, cost, jam))
            return
        width = (jam if kind is lp.Kind.JAM else 64) * loop.step
        start = b.add(lower, b.mul(b.var(blocks), b.const(width)))
        stop = b.smallest(b.add(start, b.const(width)), upper)
        count = b.floordiv(b.add(b.sub(upper, lower), b.const(width - 1)), b.const(width))
        inner = lp.For(name, start, stop, body, kind, loop.step, jam=jam)
        self.emit(lp.For(blocks, b.ZERO, count, inner, lp.Kind.PARALLEL, cost=cost * width))

    parallel_level: int | None = None

    def _in_parallel(self) -> bool:
        return self.parallel_level is not None

    def _stem(self, loop: Loop) -> str:
        """The name of the first dim that runs exactly with this loop."""
        for found in instances(loop.body):
            for dim, arg in zip(self.statements[found.statement].dims, found.args):
                if isinstance(arg, lp.Var) and arg.name == loop.iterator:
                    return dim
        return loop.iterator

    def _cost(self, ast: Ast) -> int:
        """Scalar operations of one run of `ast`; a ragged loop counts as one element, since weights count elements."""
        match ast:
            case Several(children):
                return sum(self._cost(c) for c in children)
            case Marked(_, body):
                return self._cost(body)
            case Branch(_, then, orelse):
                return max(self._cost(then), 0 if orelse is None else self._cost(orelse))
            case Instance(statement, _):
                return _operations(self.statements[statement].value) + 1
            case Loop(lower=lower, upper=upper, body=body):
                lengths = {r.length for s in self.scop.statements for r in s.ragged}
                trips = b.number(b.sub(upper, lower))
                ragged = isinstance(upper, lp.Var) and upper.name in lengths
                return self._cost(body) * (1 if ragged else min(max(trips, 1), 4096) if trips is not None else _SYMBOLIC)
            case _:
                assert_never(ast)

    def _bind(self, mark: str, body: Ast) -> None:
        tensor, _, digits = mark.partition("=")[2].rpartition("@")[0].rpartition(".")
        level = int(digits)
        for found in instances(body):
            statement = self.statements[found.statement]
            for dim in statement.ragged:
                if (dim.tensor, dim.level) == (tensor, level):
                    values = {d: self._sub(a) for d, a in zip(statement.dims, found.args) if d in dim.parents}
                    return self._fibre(dim, values)

    def _fibre(self, dim: po.RaggedDim, values: Mapping[str, lp.LoopExpr]) -> None:
        owner = self.storage.stored[dim.tensor]
        format_ = owner.type.format
        if format_ is None:
            raise VerifyError(f"{dim.tensor} has no format")
        parent = self.storage.position(dim, values, self.begins)
        shape = self.size(owner.type.shape[format_.order[dim.level]])
        if isinstance(parent, lp.Apply):
            parent = self.let("parent", parent)
        bounds = format_.levels[dim.level].bounds(dim.tensor, dim.level, parent, shape)  # type: ignore[arg-type]
        begin, end = (self._index_array(e) for e in bounds)
        begin = self.let(f"{dim.tensor}_begin{dim.level}", begin)
        end = self.let(f"{dim.tensor}_end{dim.level}", end)
        ok = b.both(b.at_most(begin, end), b.at_most(end, self.size(owner.counts[dim.level])))
        site = self._fibre_site(dim.tensor, dim.level)
        self.emit(lp.Check(ok, site, end))
        length = self.let(f"{dim.tensor}_len{dim.level}", b.sub(end, begin))
        if dim.hull in self.hulls:
            self.emit(lp.Check(b.at_most(length, b.var(dim.hull)), site, length))
        self.begins[(dim.tensor, dim.level)] = begin
        self.env[dim.length] = length
        if isinstance(parent, lp.Var) and format_.levels[dim.level].name == "compressed":
            self.weights.setdefault(parent.name, f"{dim.tensor}.pos{dim.level}")

    def _index_array(self, expr: Expr) -> lp.LoopExpr:
        """An expression of a level, with its index arrays read at their own width."""
        match expr:
            case Load(array, indices, dtype):
                self.used.add(array)
                return b.convert(b.load(array, tuple(self._index_array(i) for i in indices), self.storage.dtype(array)), dtype)
            case Apply("add", (x, y)):
                return b.add(self._index_array(x), self._index_array(y))
            case Apply(op, args, dtype):
                return b.apply(op, tuple(self._index_array(a) for a in args), dtype)
            case Cast(arg, dtype):
                return b.convert(self._index_array(arg), dtype)
            case _:
                return expr

    # Memory

    def _accessors(self, array: str) -> frozenset[str]:
        relations = {s.name: {s.write.array, s.target, *(r.array for r in s.reads)} for s in self.scop.statements}
        return frozenset(name for name, touched in relations.items() if array in touched)

    def _allocate(self, depth: int, ast: Ast, *, parallel: bool) -> None:
        """Give memory to the temporaries whose statements all lie in `ast`, at the deepest of the loops they may live in."""
        here = {found.statement for found in instances(ast)} if self.pending else set()
        for name in [n for n, d in self.pending.items() if d >= depth and self.accessors[n] <= here]:
            if self.pending[name] > depth and self._deeper(ast, name, self.pending[name]):
                continue
            del self.pending[name]
            array = self.storage.arrays[name]
            extents = self.storage.extents(name)
            for e in array.extents:
                if isinstance(e, po.Ragged) and self.storage.fibre_at(array) is None:
                    self.hulls[po.hull_of(e.tensor, e.level)] = (e.tensor, e.level)
            shared = not parallel and (bool(extents) or self._crosses_parallel(ast, name))
            space = lp.Space.KERNEL if shared else lp.Space.THREAD if extents else lp.Space.REGISTER
            self.emit(lp.Alloc(name, array.dtype, extents, space))

    def _deeper(self, ast: Ast, name: str, depth: int) -> bool:
        """True if one loop below, above `depth`, still holds all statements that access `name`."""
        match ast:
            case Loop(depth=at, body=body):
                return at < depth and self.accessors[name] <= {f.statement for f in instances(body)}
            case Marked(_, body):
                return self._deeper(body, name, depth)
            case Several(children):
                holders = [c for c in children if self.accessors[name] & {f.statement for f in instances(c)}]
                return len(holders) == 1 and self._deeper(holders[0], name, depth)
            case Branch(_, then, orelse):
                return orelse is None and self._deeper(then, name, depth)
            case Instance():
                return False
            case _:
                assert_never(ast)

    def _crosses_parallel(self, ast: Ast, name: str, parallel: bool = False) -> bool:
        match ast:
            case Loop(body=body) | Branch(then=body, orelse=None):
                return self._crosses_parallel(body, name, parallel)
            case Marked(mark, body):
                return self._crosses_parallel(body, name, parallel or mark.startswith(po.PARALLEL + "@"))
            case Several(children):
                return any(self._crosses_parallel(c, name, parallel) for c in children)
            case Branch(_, then, orelse):
                return any(self._crosses_parallel(c, name, parallel) for c in (then, orelse) if c is not None)
            case Instance(statement, _):
                return parallel and statement in self.accessors[name]
            case _:
                assert_never(ast)

    # Statements

    def _instance(self, found: Instance) -> None:
        statement = self.statements[found.statement]
        values = dict(zip(statement.dims, (self._sub(a) for a in found.args)))
        _Body(self, statement, values).store()

    # Small tools

    def emit(self, stmt: lp.Stmt) -> None:
        self.levels[-1].stmts.append(stmt)

    def _sub(self, expr: lp.LoopExpr) -> lp.LoopExpr:
        """isl's names replaced: iterators by loop variables, parameters by sizes, lengths by those of the fibre at hand."""
        match expr:
            case lp.Var(name, _):
                found = self.env.get(name)
                if found is not None:
                    return found
                hull = self.hull_of.get(name)  # the order of a schedule holds for every hull that covers all fibres
                size = self.storage.stored[hull[0]].counts[hull[1]] if hull else self.sizes.get(name)
                if size is None:
                    raise VerifyError(f"a loop bound needs {name}, which is not known there")
                return self.size(size)
            case lp.Apply(op, args, dtype):
                return _rebuild(op, tuple(self._sub(a) for a in args), dtype)
            case lp.Cast(arg, dtype):
                return b.convert(self._sub(arg), dtype)
            case _:
                return expr

    def level_of(self, expr: lp.LoopExpr) -> int:
        """The innermost level that defines a name in `expr`."""
        match expr:
            case lp.Var(name, _):
                return self.home.get(name, 0)
            case lp.Apply(_, args, _) | lp.Load(_, args, _):
                return max((self.level_of(a) for a in args), default=0)
            case lp.Cast(arg, _):
                return self.level_of(arg)
            case _:
                return len(self.levels) - 1

    def let(self, stem: str, value: lp.LoopExpr, at: int | None = None) -> lp.Var:
        """A name for `value` in level `at` (default: here), shared by equal values there."""
        level = self.levels[-1 if at is None else at]
        found = level.bound.get(value)
        if found is None:
            name = self.names.fresh(stem.replace(".", "_"))
            found = level.bound[value] = lp.Var(name, b.dtype_of(value))
            level.stmts.append(lp.Let(name, value))
            self.home[name] = (len(self.levels) - 1) if at is None else at
        return found

    def hoisted(self, value: lp.LoopExpr) -> int:
        """The outermost level where `value` may be computed: below what it needs, and not outside a branch."""
        level = self.level_of(value)
        for k in range(len(self.levels) - 1, level, -1):
            if self.levels[k].branch:
                return k
        return level

    def check(self, ok: lp.LoopExpr, site: lp.Site, culprit: lp.LoopExpr, at: int) -> None:
        """Check `ok` once in level `at`."""
        if ok == b.TRUE or any((ok, site.error) in self.levels[k].checked for k in range(at + 1)):
            return
        self.levels[at].checked.add((ok, site.error))
        self.levels[at].stmts.append(lp.Check(ok, self._site(site), culprit))

    def _site(self, site: lp.Site) -> int:
        return self.sites.setdefault(site, len(self.sites))

    def _fibre_site(self, tensor: str, level: int) -> int:
        return self._site(
            lp.Site(
                "SparseStructureError",
                f"the positions of level {level} of {tensor} are not a list of fibres: {{value}} is out of order or out of range",
                "each fibre must begin where the one before it ends, at most at the number of stored elements",
                f"rebuild {tensor}, for example with scipy.sparse",
            )
        )

    def index_site(self, index: Expr, array: str, dimension: int) -> lp.Site:
        """What a bad index along `dimension` of `array` means to the user."""
        extent = self.storage.arrays[array].extents[dimension]
        limit = show(extent) if not isinstance(extent, po.Ragged) else extent.tensor
        source = next(_loads(index), None)
        if source is not None and source.array in self.storage.levels:
            owner, spec = self.storage.levels[source.array]
            format_ = owner.type.format
            level = int(spec.name.rpartition("crd")[2])
            d = format_.order[level] if format_ is not None else level
            word = ("row", "column")[d] if owner.type.rank == 2 else f"dimension {d}"
            return lp.Site(
                "SparseStructureError",
                f"{word} index {{value}} of {owner.name} is outside 0 <= index < {limit}",
                f"it selects from dimension {dimension} of {array}",
                f"rebuild {owner.name}, for example with scipy.sparse",
            )
        return lp.Site(
            "IndexOutOfRangeError",
            f"index {{value}} is out of range for dimension {dimension} of {array}, whose extent is {limit}",
            f"it comes from {source.array}" if source is not None else "",
            "indices must lie in -extent <= index < extent",
        )


class _Body:
    """One instance of a statement: its value, its indices, their checks."""

    def __init__(self, lowering: _Lowering, statement: po.Statement, values: Mapping[str, lp.LoopExpr]) -> None:
        self.low, self.statement, self.values = lowering, statement, values
        self.names = {*statement.dims, *lowering.scop.parameters}
        self.certain: set[tuple[str, tuple[Expr, ...]]] = set()

    def store(self) -> None:
        s, low = self.statement, self.low
        dtype = low.storage.dtype(s.target)
        if s.monoid is not None:
            self.certain.add((s.target, s.at))
        value = b.convert(self.value(s.value, None), dtype)
        at = low.storage.place(s.target, self.indices(s.target, s.at, None), low.begins)
        if s.monoid is not None:
            value = b.apply(MONOIDS[s.monoid].op, (b.load(s.target, at, dtype), value), dtype)
        low.emit(lp.Store(s.target, at, value))

    def value(self, expr: Expr, guard: lp.LoopExpr | None) -> lp.LoopExpr:
        match expr:
            case Const():
                return expr
            case Var(name):
                found = self.values.get(name)
                return self._size(name) if found is None else found
            case Cast(Load(array) as inner, dtype) if array in self.low.storage.levels:
                return self.load(inner, guard, dtype)
            case Cast(arg, dtype):
                return b.convert(self.value(arg, guard), dtype)
            case Load():
                return self.load(expr, guard, expr.dtype)
            case Apply("where", (condition, a, c), dtype):
                test = self.value(condition, guard)
                if not any(True for _ in _loads(a)) and not any(True for _ in _loads(c)):
                    return b.where(test, self.value(a, guard), self.value(c, guard))
                if not isinstance(test, (lp.Var, lp.Const)) and self._needs_guard(a, c):
                    test = self.low.let("inside", test)
                yes = test if guard is None else b.both(guard, test)
                no = b.negation(test) if guard is None else b.both(guard, b.negation(test))
                return b.where(test, b.convert(self.value(a, yes), dtype), b.convert(self.value(c, no), dtype))
            case Apply(op, args, dtype):
                return _rebuild(op, tuple(self.value(a, guard) for a in args), dtype)
            case _:
                assert_never(expr)

    def _needs_guard(self, *exprs: Expr) -> bool:
        return any(not self._in_range(read) for e in exprs for read in _loads(e))

    def _size(self, name: str) -> lp.LoopExpr:
        size = None if name in self.low.order else self.low.sizes.get(name)
        return self.low.symbol(name) if size is None else self.low.size(size)

    def load(self, expr: Load, guard: lp.LoopExpr | None, dtype: DType) -> lp.LoopExpr:
        low, array = self.low, expr.array
        safe = guard is None or self._in_range(expr)
        if guard is None:
            self.certain.add((array, expr.indices))
        at = low.storage.place(array, self.indices(array, expr.indices, guard), low.begins)
        low.used.add(array)
        if not safe and guard is not None:
            return b.convert(lp.MaskedLoad(array, at, guard, low.storage.dtype(array)), dtype)
        value = b.convert(b.load(array, at, low.storage.dtype(array)), dtype)
        if array in low.storage.levels:
            return low.let(array, value, low.hoisted(value))
        return value

    def _in_range(self, expr: Load) -> bool:
        if not expr.indices or (expr.array, expr.indices) in self.certain:
            return True
        name = self.statement.name
        if name not in self.low.held_back:
            self.low.held_back[name] = guarded_loads(self.statement, self.low.scop)
        return expr not in self.low.held_back[name]

    def indices(self, array: str, indices: tuple[Expr, ...], guard: lp.LoopExpr | None) -> list[lp.LoopExpr]:
        """Logical indices; those that isl has not proved are named and checked."""
        low = self.low
        out: list[lp.LoopExpr] = []
        for d, index in enumerate(indices):
            x = b.convert(self.value(index, guard), dt.i64)
            if affine(index, self.names) is None and not isinstance(x, lp.Const):
                if not isinstance(x, lp.Var):
                    x = low.let("index", x, low.hoisted(x) if guard is None and self._constant_loads(index) else None)
                extent = low.storage.arrays[array].extents[d]
                limit = low.env[po.length_of(extent.tensor, extent.level)] if isinstance(extent, po.Ragged) else low.size(extent)
                ok = b.below(x, limit)
                if guard is not None:
                    ok = b.either(b.negation(guard), ok)
                level = max(low.hoisted(ok), low.hoisted(x))
                low.check(ok, low.index_site(index, array, d), x, level)
            out.append(x)
        return out

    def _constant_loads(self, index: Expr) -> bool:
        """True if `index` reads nothing that the kernel writes, so that it may be computed further out."""
        arrays = self.low.storage.arrays
        return all(x.array not in arrays or arrays[x.array].role == "input" for x in _loads(index))


def _loads(expr: Expr) -> Iterator[Load]:
    """The loads in `expr`, outer ones first."""
    match expr:
        case Load(_, indices):
            yield expr
            for i in indices:
                yield from _loads(i)
        case Apply(_, args):
            for a in args:
                yield from _loads(a)
        case Cast(arg):
            yield from _loads(arg)
        case _:
            pass


_FOLDED = {
    "add": b.add, "sub": b.sub, "mul": b.mul, "floordiv": b.floordiv, "mod": b.mod, "min": b.smallest, "max": b.largest,
}  # fmt: skip


def _rebuild(op: str, args: tuple[lp.LoopExpr, ...], dtype: DType) -> lp.LoopExpr:
    """`op` on new arguments; i64 arithmetic is folded."""
    fold = _FOLDED.get(op) if dtype == dt.i64 else None
    return b.apply(op, args, dtype) if fold is None else fold(*args)


def _operations(expr: Expr) -> int:
    """Scalar operations of one evaluation; functions of a library count for several."""
    match expr:
        case Load(_, indices):
            return 1 + sum(_operations(i) for i in indices)
        case Apply(op, args):
            return (1 if op in _CHEAP else 12) + sum(_operations(a) for a in args)
        case Cast(arg):
            return _operations(arg)
        case _:
            return 0


_CHEAP = frozenset(
    ["neg", "abs", "square", "add", "sub", "mul", "max", "min", "eq", "ne", "lt", "le", "gt", "ge", "and", "or", "xor", "not", "where", "bitand", "bitor", "bitxor", "shl", "shr", "floor", "ceil", "trunc", "conj", "real", "imag"]
)
