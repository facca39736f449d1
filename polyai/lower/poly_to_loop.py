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

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import assert_never

from polyai.errors import UnsupportedError, VerifyError
from polyai.loop import build as b
from polyai.loop import nodes as lp
from polyai.lower import nests
from polyai.lower.ast_walk import Ast, Branch, Instance, Loop, Marked, Several, apart, children, instances, is_straight
from polyai.lower.bounds import Fibres
from polyai.lower.emitter import Emitter, Level
from polyai.lower.exprs import loads_in, operations
from polyai.lower.grouping import Groupings
from polyai.lower.packed import Packed
from polyai.lower.repeated import Repeats
from polyai.lower.statement import Body
from polyai.lower.stream import Streams
from polyai.poly import nodes as po
from polyai.scalar import dtype as dt
from polyai.scalar.expr import Const, Var
from polyai.tensor import nodes as tn
from polyai.tensor.bodies import zero

_SYMBOLIC = 32
"""How many iterations a loop of unknown length is taken to have when costs are estimated."""
_PIECE = 1 << 13
"""The cost of a piece of a list: lists are cut where pieces are long."""


def lower(scop: po.Scop, program: tn.Program, hints: Mapping[str, int] | None = None) -> lp.Kernel:
    """The kernel that runs `scop` in the order of its schedule. `program` gives the calling order and the formats, `hints` typical sizes.

    Raises VerifyError if the scop has no schedule or reads what it cannot reach."""
    if scop.schedule is None:
        raise VerifyError(f"scop {scop.name} has no schedule")
    return _Lowering(scop, program, hints or {}).kernel(nests.ast_of(scop))


class _Lowering:
    def __init__(self, scop: po.Scop, program: tn.Program, hints: Mapping[str, int]) -> None:
        self.scop, self.program = scop, program
        self.statements = {s.name: s for s in scop.statements}
        self.out = Emitter(scop, program)
        self.storage = self.out.storage
        self.streams = Streams(self.out)
        self.groupings = Groupings(self.out)
        self.lengths = {r.length: r for s in scop.statements for r in s.ragged if r.stream}
        self.fibres = Fibres(self.out, program, self.streams, self.groupings)
        cursors = {g.cursors for g in scop.groupings}
        self.pending = {a.array: a.depth for a in scop.allocations if a.array not in cursors}
        self.parallel_level: int | None = None
        self.packed = Packed(self.out, self.streams, self.fibres)
        self.repeats = Repeats(self.out, self.streams, hints)
        self.streams.telling = self.repeats.long_sums()
        self.walked: set[str] = set()  # workspaces whose rows have their loop
        self.inside: dict[int, tuple[Ast, frozenset[str]]] = {}  # by id of a part of the loops, which is kept, its statements
        self.lanes = 0  # vector and jammed loops around: they hold no parallel one
        for a in scop.arrays:
            if a.role in ("temporary", "workspace") and a.name not in cursors:
                self.pending.setdefault(a.name, 0)

    # The kernel

    def kernel(self, ast: Ast) -> lp.Kernel:
        present = self._names_in(ast)  # a statement without points, as with a size 0, has no place
        self.accessors = self._accessors(present)
        self._allocate(0, ast, parallel=False)
        if self.scop.groupings:
            self._in_groups(ast)
        else:
            self._ast(ast, ())
        if self.pending:
            raise VerifyError("temporaries without a place", ", ".join(self.pending))
        body = b.block(*self._prelude(), *self.out.levels[0].stmts)
        params = self._params()
        return lp.Kernel(self.scop.name, params, body, tuple(self.out.sites))

    def _params(self) -> tuple[lp.Param, ...]:
        arrays: list[lp.Param] = []
        for i in self.program.inputs:
            names = [s.name for s in self.storage.stored[i.name].arrays] + [f"{i.name}.val"] if i.type.format is not None else [i.name]
            for name in names:
                if name in self.out.used and all(a.name != name for a in arrays):  # an index array may be read as an array, too
                    arrays.append(lp.Param(name, self.storage.dtype(name), "input", self.storage.extents(name)))
        packed = [s for s in self.scop.streams if s.packed]
        for stream in packed:
            arrays.append(lp.Param(stream.cuts, dt.i64, "input", (b.add(self.out.symbol(stream.chunks), b.ONE),)))
        for name in self.program.assembled:
            arrays += [
                lp.Param(s.name, self.storage.dtype(s.name), "input", self.storage.extents(s.name))
                for s in self.storage.stored[name].arrays
                if s.name in self.out.used
            ]
        written = {a.name for a in self.scop.arrays if a.role == "output"}
        ordered = [n for o in self.program.outputs for n in (o, f"{o}.val") if n in written]
        for name in dict.fromkeys(ordered):
            arrays.append(lp.Param(name, self.storage.dtype(name), "output", self.storage.extents(name)))
        for stream in packed:
            arrays.append(lp.Param(stream.ends, self.storage.stored[stream.name].index, "output", (self.out.size(stream.rows),)))
        missing = written - set(ordered)
        if missing:
            raise VerifyError("outputs of the scop that the program does not name", ", ".join(sorted(missing)))
        rank = {name: k for k, name in enumerate(self.out.order)}
        sizes = sorted(self.out.symbols, key=lambda s: (rank.get(s, len(rank)), s))
        return (*(lp.Param(s, dt.i64, "size") for s in sizes), *arrays)

    def _prelude(self) -> list[lp.Stmt]:
        """The longest fibre of each level whose hull sizes a buffer."""
        out: list[lp.Stmt] = []
        for hull, (tensor, level) in self.fibres.hulls.items():
            owner = self.storage.stored[tensor]
            pos, register, r = f"{tensor}.pos{level}", self.out.names.fresh(f"{hull}_so_far"), self.out.names.fresh("r")
            self.out.used.add(pos)
            begin = b.convert(b.load(pos, (b.var(r),), owner.index), dt.i64)
            end = b.convert(b.load(pos, (b.add(b.var(r), b.ONE),), owner.index), dt.i64)
            longest = b.apply("max", (b.load(register, (), dt.i64), b.sub(end, begin)), dt.i64)
            loop = lp.For(r, b.ZERO, self.out.size(owner.parents(level)), lp.Store(register, (), longest), lp.Kind.VECTOR)
            out += [
                lp.Alloc(register, dt.i64, (), lp.Space.REGISTER),
                lp.Store(register, (), b.ZERO),
                loop,
                lp.Let(hull, b.load(register, (), dt.i64)),
                lp.Check(b.at_most(b.var(hull), self.out.size(owner.counts[level])), self.out.fibre_site(tensor, level), b.var(hull)),
            ]
        return out

    def _in_groups(self, ast: Ast) -> None:
        """The loops of a scop with groupings: those of their statements in pieces, and what stands between."""
        begun: set[str] = set()
        for part in apart(ast):
            here = {found.statement for found in instances(part)}
            mine = [(g, name) for g in self.scop.groupings for name in (g.count, g.fill) if name in here]
            if not mine:
                self._ast(part, ())
                continue
            if len(here) > 1:
                raise VerifyError(f"{mine[0][0].name} is grouped in a loop with other statements", ", ".join(sorted(here)))
            ((g, name),) = mine
            if name == g.count:
                self.groupings.begin(g)
            self.parallel_level = len(self.out.levels)
            emit = functools.partial(self._ast, part, ())
            if name == g.fill:
                self.groupings.store(g, emit)
            else:
                self.groupings.count(g, emit)
                begun.add(g.name)
            self.parallel_level = None
        for g in self.scop.groupings:
            if g.name not in begun:  # nothing is stored
                self.groupings.begin(g)
                self.groupings.count(g, lambda: None)

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
                test = self.out.sub(condition)
                taken = self._inside(Level([], branch=True), then, marks)
                other = None if orelse is None else self._inside(Level([], branch=True), orelse, marks)
                self.out.emit(lp.If(test, taken, other))
            case Instance():
                mine = [m for m in marks if m.startswith(po.EXTERN + "=")]
                if mine:
                    raise UnsupportedError(f"library call {mine[0]} inside a loop nest", remedy="make it an Extern step of the program")
                self._instance(ast)
            case Loop():
                self._loop(ast, marks)
            case _:
                assert_never(ast)

    def _inside(self, level: Level, ast: Ast, marks: tuple[str, ...]) -> lp.Stmt:
        self.out.levels.append(level)
        begins = dict(self.out.begins)
        self._ast(ast, marks)
        self.out.begins = begins
        self.out.levels.pop()
        return b.block(*level.stmts)

    def _stream(self, loop: Loop, dim: po.RaggedDim, marks: tuple[str, ...]) -> None:
        """The loop over what a stream gives."""
        stream = self.scop.stream(dim.tensor)
        if stream is None or loop.lower != b.ZERO or loop.step != 1:
            raise VerifyError(f"the loop over the stream {dim.tensor} does not run over all of it")
        start = self.fibres.packed[stream.name][1] if stream.packed else b.ZERO
        counter = self.streams.register(f"{stream.name}_t", start) if stream.assembled else None
        outer = self.out.env.get(loop.iterator)
        if isinstance(stream.source, po.Drain):
            if stream.source.workspace in self.walked:
                raise VerifyError(f"the rows of the workspace {stream.source.workspace} are walked by two loops", "the first one empties them")
            self.walked.add(stream.source.workspace)
        pending = dict(self.pending)

        def body(meaning: Callable[[], None]) -> lp.Stmt:
            self.pending = dict(pending)  # each copy of the body has temporaries of its own
            level = Level([])
            self.out.levels.append(level)
            meaning()
            begins = dict(self.out.begins)
            self._allocate(loop.depth + 1, loop.body, parallel=self._in_parallel())
            self._ast(loop.body, marks)
            self.out.begins = begins
            self.out.levels.pop()
            return b.block(*level.stmts)

        if isinstance(stream.source, po.Merge):
            self.streams.merge(stream, counter, loop.iterator, body, plain=is_straight(loop.body))
        elif isinstance(stream.source, po.Located):
            self.streams.locate(stream, counter, loop.iterator, body)
        elif (counted := self._only_counted(loop.body, stream)) is not None:
            statement, values = counted
            register = self.streams.register(f"{stream.name}_held", b.ZERO)
            self.streams.count(stream, register, b.ONE)
            held = dataclasses.replace(statement, value=Var("held", dt.i64))
            Body(self.out, held, {**values, "held": b.load(register, (), dt.i64)}, self.streams).store()
        else:
            self.streams.drain(stream, counter, loop.iterator, body)
        if counter is not None:
            count = b.load(counter, (), dt.i64)
            if stream.packed:
                self.packed.end_row(stream, count)
            else:
                self.out.emit(lp.Check(b.compare("eq", count, self.out.env[dim.length]), self.out.changed_site(stream.name), count))
        if outer is not None:
            self.out.env[loop.iterator] = outer

    def _again(self, walked: Loop, pending: dict[str, int], marks: tuple[str, ...]) -> None:
        """Another copy of the body of a loop, with temporaries of its own."""
        after, self.pending = self.pending, dict(pending)
        self._allocate(walked.depth + 1, walked.body, parallel=True)
        self._ast(walked.body, marks)
        self.pending = after

    def _only_counted(self, ast: Ast, stream: po.Stream) -> tuple[po.Statement, dict[str, lp.LoopExpr]] | None:
        """The one statement of a loop over a stream that adds 1 for each element, and its dims outside of that loop."""
        if not isinstance(ast, Instance):
            return None
        statement = self.statements[ast.statement]
        if statement.monoid != "add" or statement.value != Const(1, dt.i64) or stream.assembled:
            return None
        return statement, {d: self.out.sub(a) for d, a in zip(statement.dims[:-1], ast.args[:-1])}

    def _loop(self, loop: Loop, marks: tuple[str, ...]) -> None:
        walked = self.lengths.get(loop.upper.name) if isinstance(loop.upper, lp.Var) else None
        if walked is not None:
            return self._stream(loop, walked, marks)
        mine = {m.rpartition("@")[0].partition("=")[0]: m.rpartition("@")[0].partition("=")[2] for m in marks if m.endswith(f"@{loop.depth}")}
        lower, upper = self.out.sub(loop.lower), self.out.sub(loop.upper)
        is_split, self.groupings.is_split = self.groupings.piece is not None and not self.groupings.is_split, True
        parallel = po.PARALLEL in mine and not self._in_parallel() and not self.lanes
        name = self.out.names.fresh(self._stem(loop))
        kind = lp.Kind.VECTOR if po.VECTOR in mine and not self._takes(loop.body) else lp.Kind.JAM if po.JAM in mine else lp.Kind.SERIAL
        jam = int(mine.get(po.JAM, 1))
        blocks = None
        if parallel and (kind is not lp.Kind.SERIAL):
            blocks = self.out.names.fresh(f"{name}_block")
        elif parallel:
            kind = lp.Kind.PARALLEL
        packed = self.packed.rows_of(loop)
        chunk = None
        if packed is not None:
            if self._in_parallel() or self.lanes:
                raise VerifyError(f"the rows of {packed.name} are filled inside of another parallel loop")
            factors = self.repeats.factors(packed)
            if factors is not None:
                self.repeats.prepare(packed, factors)
            chunk, lower, upper = self.packed.begin(packed, loop, name, upper)
            before = "" if factors is None else self.repeats.begin(packed)
            parallel, kind = True, lp.Kind.SERIAL
        if parallel:
            self.parallel_level = len(self.out.levels)
        outer = (self.out.env.get(loop.iterator), self.out.home.get(name))
        self.fibres.loops[loop.iterator] = loop
        level = Level([])
        self.out.levels.append(level)
        if blocks:
            self.out.levels.append(level := Level([]))
        self.out.env[loop.iterator], self.out.home[name] = b.var(name), len(self.out.levels) - 1
        if packed is not None:
            row_start = self.out.let(f"{packed.name}_start", b.load(self.packed.cursors[packed.name], (), dt.i64))
            self.fibres.packed[packed.name] = (b.var(name), row_start)
            self.streams.rows[packed.name] = b.var(name)
            if factors is not None:
                self.repeats.row(packed, factors, before, b.var(name), lower, row_start)
            self.streams.begin_row(packed)
        begins, pending = dict(self.out.begins), dict(self.pending)
        many = kind in (lp.Kind.VECTOR, lp.Kind.JAM)
        self.lanes += many
        self._allocate(loop.depth + 1, loop.body, parallel=self._in_parallel())
        self._ast(loop.body, marks)
        self.lanes -= many
        self.out.begins = begins
        body = b.block(*self.out.levels.pop().stmts)
        if blocks:
            self.out.levels.pop()
        if parallel:
            self.parallel_level = None
        if outer[0] is not None:
            self.out.env[loop.iterator] = outer[0]
        cost = max(self._cost(loop.body), _PIECE if self._counts_pieces(loop) else 1) if parallel else 1
        weight = self.fibres.weights.pop(name, None)
        if chunk is not None and packed is not None:
            rows = lp.For(name, lower, upper, body, kind)
            self.packed.end(packed, chunk, rows, loop, lambda walked: self._again(walked, pending, marks))
            return
        if is_split:
            lower, upper = self.groupings.bounds(lower, upper, weight)
        if blocks is None:
            self.out.emit(lp.For(name, lower, upper, body, kind, loop.step, weight if parallel else None, cost, jam))
            return
        width = (jam if kind is lp.Kind.JAM else 64) * loop.step
        start = b.add(lower, b.mul(b.var(blocks), b.const(width)))
        stop = b.smallest(b.add(start, b.const(width)), upper)
        count = b.floordiv(b.add(b.sub(upper, lower), b.const(width - 1)), b.const(width))
        inner = lp.For(name, start, stop, body, kind, loop.step, jam=jam)
        self.out.emit(lp.For(blocks, b.ZERO, count, inner, lp.Kind.PARALLEL, cost=cost * width))

    def _takes(self, ast: Ast) -> bool:
        """Whether an instance leaves zero where it read: elements that memory names are not stored in lanes."""
        found = (n for i in instances(ast) for n in loads_in(self.statements[i.statement].value))
        return any(self.storage.arrays[n.array].taken for n in found)

    def _in_parallel(self) -> bool:
        return self.parallel_level is not None

    def _counts_pieces(self, loop: Loop) -> bool:
        """Whether the iterations are the pieces of a list."""
        for found in instances(loop.body):
            s = self.statements[found.statement]
            here = {dim for dim, arg in zip(s.dims, found.args) if isinstance(arg, lp.Var) and arg.name == loop.iterator}
            if any(r.piece in here for r in s.ragged):
                return True
        return False

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
                return operations(self.statements[statement].value) + 1
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
            for dim in statement.fibres:
                if (dim.tensor, dim.level) == (tensor, level):
                    values = {d: self.out.sub(a) for d, a in zip(statement.dims, found.args) if d in dim.parents}
                    return self.fibres.enter(dim, values, self.fibres.stay_inside(dim, statement, found))

    # Memory

    def _accessors(self, present: frozenset[str]) -> dict[str, frozenset[str]]:
        """The statements that access each temporary."""
        touched: dict[str, set[str]] = {name: set() for name in self.pending}
        for s in self.scop.statements:
            for array in {s.write.array, s.target, *(r.array for r in s.reads)} & touched.keys():
                touched[array].add(s.name)
        return {array: present & names for array, names in touched.items()}

    def _names_in(self, ast: Ast) -> frozenset[str]:
        """The statements in a part of the kernel's loops."""
        known = self.inside.get(id(ast))
        if known is not None:
            return known[1]
        names = frozenset((ast.statement,)) if isinstance(ast, Instance) else frozenset[str]().union(*map(self._names_in, children(ast)))
        self.inside[id(ast)] = (ast, names)
        return names

    def _allocate(self, depth: int, ast: Ast, *, parallel: bool) -> None:
        """Give memory to the temporaries whose statements all lie in `ast`, at the deepest of the loops they may live in."""
        here = self._names_in(ast) if self.pending else frozenset()
        for name in [n for n, d in self.pending.items() if d >= depth and self.accessors[n] <= here]:
            if self.pending[name] > depth and self._deeper(ast, name, self.pending[name]):
                continue
            del self.pending[name]
            array = self.storage.arrays[name]
            if array.role == "workspace":
                if any(e != 1 for e in array.extents[:-1]) or (depth and not parallel):  # a single row needs no loop
                    raise UnsupportedError(
                        f"the workspace {name} is not filled row by row in a parallel loop", f"it holds {len(array.extents)} dimensions", "report this program"
                    )
                self.streams.allocate(array)
                continue
            extents = self.storage.extents(name)
            for e in array.extents:
                if isinstance(e, po.Ragged) and self.storage.fibre_at(array) is None:
                    self.fibres.hulls[po.hull_of(e.tensor, e.level)] = (e.tensor, e.level)
            shared = not parallel and (bool(extents) or self._crosses_parallel(ast, name))
            space = lp.Space.KERNEL if shared else lp.Space.THREAD if extents else lp.Space.REGISTER
            self.out.emit(lp.Alloc(name, array.dtype, extents, space, zero=array.taken and space is lp.Space.THREAD))
            if array.taken and space is not lp.Space.THREAD:
                self._clear(name, array.dtype, extents)

    def _clear(self, name: str, dtype: dt.DType, extents: tuple[lp.LoopExpr, ...]) -> None:
        """Zeros in all elements of an array that no parallel loop is around."""
        at = tuple(b.var(self.out.names.fresh("z")) for _ in extents)
        cleared: lp.Stmt = lp.Store(name, at, zero(dtype))
        for variable, extent in reversed(list(zip(at, extents))):
            kind = lp.Kind.VECTOR if variable is at[-1] else lp.Kind.SERIAL
            cleared = lp.For(variable.name, b.ZERO, extent, cleared, kind)
        self.out.emit(cleared)

    def _deeper(self, ast: Ast, name: str, depth: int) -> bool:
        """True if one loop below, above `depth`, still holds all statements that access `name`."""
        match ast:
            case Loop(depth=at, body=body):
                return at < depth and self.accessors[name] <= self._names_in(body)
            case Marked(_, body):
                return self._deeper(body, name, depth)
            case Several(children):
                holders = [c for c in children if self.accessors[name] & self._names_in(c)]
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
        values = dict(zip(statement.dims, (self.out.sub(a) for a in found.args)))
        Body(self.out, statement, values, self.streams, self.groupings).store()
