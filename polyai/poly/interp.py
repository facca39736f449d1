"""The meaning of a scheduled scop: all instances, sorted by their place in the schedule, one after another.

Marks change nothing here. A temporary that `contract` shrank is checked to be read only where it was written: in the same
iteration of the loops around its allocation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, assert_never

import numpy as np

from polyai.errors import IndexOutOfRangeError, VerifyError
from polyai.poly import tree as st
from polyai.poly.nodes import Array, Drain, Grouping, Located, Merge, Ragged, Scop, Statement, Stream, isl_name
from polyai.scalar import dtype as dt
from polyai.scalar.dtype import to_numpy
from polyai.scalar.expr import Apply, Cast, Const, Expr, Load, Var
from polyai.scalar.ops import MONOIDS, OPS
from polyai.shapes.expr import Size, evaluate

Env = dict[str, Any]
Code = Callable[[Env], Any]


def run(scop: Scop, arrays: Mapping[str, Any], sizes: Mapping[str, int]) -> dict[str, Any]:
    """The output arrays by name. `arrays`: an array for each input of the scop (`X`, `A.pos1`, `A.val`); `sizes`: a number for
    each symbol. A sparse output is the one-dimensional array of its stored values.

    Without a schedule statements run in program order. Raises IndexOutOfRangeError for an access outside its array, and
    VerifyError for a read of what was not written.
    """
    return _Machine(scop, arrays, sizes).run()


class _Machine:
    def __init__(self, scop: Scop, arrays: Mapping[str, Any], sizes: Mapping[str, int]) -> None:
        self.scop = scop
        self.inputs = {name: np.asarray(a) for name, a in arrays.items()}
        self.arrays = {a.name: a for a in scop.arrays}
        self.sizes = dict(sizes)
        self.by_parameter = {name: evaluate(size, sizes) for name, size in scop.sizes}
        self.made: dict[tuple[str, tuple[int, ...]], tuple[Any, tuple[int, ...]]] = {}
        self.depths = {a.array: a.depth for a in scop.allocations}
        self.around: tuple[int, ...] = ()
        self.constants: Env = {**self.by_parameter, **sizes, **{isl_name(s): v for s, v in sizes.items()}}
        self.streams = {s.name: s for s in scop.streams}
        for stream in scop.streams:
            if isinstance(stream.source, Merge):
                self._merge(stream, stream.source)
        self._hulls()
        for stream in scop.streams:
            if isinstance(stream.source, Drain):
                self._walked(stream, [[(c,) for c in sorted(row)] for row in self._held(stream, stream.source.workspace)])
            elif isinstance(stream.source, Located):
                self._located(stream, stream.source)
        self._hulls()

    def _hulls(self) -> None:
        for s in self.scop.statements:
            for r in s.ragged:
                pos = self.inputs.get(f"{r.tensor}.pos{r.level}")
                if pos is not None:
                    self.constants[r.hull] = int(np.diff(pos).max(initial=0))

    # --- streams: what a merge or a workspace gives, as arrays --------------------------------------------------------------

    def _merge(self, stream: Stream, source: Merge) -> None:
        rows = max(len(self.inputs[f"{t}.pos{level}"]) - 1 for t, level in source.parts)
        found: list[list[tuple[tuple[int, ...], tuple[int, ...]]]] = []
        for row in range(rows):
            where: dict[tuple[int, ...], list[int]] = {}
            for n, (tensor, level) in enumerate(source.parts):
                pos = self.inputs[f"{tensor}.pos{level}"]
                listed = [self.inputs[f"{tensor}.crd{x}"] for x in range(level, level + 1 + len(stream.inner))]
                for at in range(int(pos[row + 1]) - int(pos[row])):
                    where.setdefault(tuple(int(crd[int(pos[row]) + at]) for crd in listed), [-1] * len(source.parts))[n] = at
            kept = [(c, tuple(at)) for c, at in sorted(where.items()) if all(any(at[n] >= 0 for n in clause) for clause in source.clauses)]
            found.append(kept)
        self._walked(stream, [[c for c, _ in row] for row in found])
        places = [at for row in found for _, at in row]
        for n in range(len(source.parts)):
            self.inputs[f"{stream.name}.at{n}"] = np.array([max(at[n], 0) for at in places], np.int64)
            self.inputs[f"{stream.name}.has{n}"] = np.array([at[n] >= 0 for at in places], bool)

    def _located(self, stream: Stream, source: Located) -> None:
        tensor, level = source.part
        pos, crd = self.inputs[f"{tensor}.pos{level}"], self.inputs[f"{tensor}.crd{level}"]
        found = [
            [(int(crd[p]), p - int(pos[row])) for p in range(int(pos[row]), int(pos[row + 1])) if int(crd[p]) in held]
            for row, held in enumerate(self._held(stream, source.workspace))
        ]
        self._walked(stream, [[(c,) for c, _ in row] for row in found])
        self.inputs[f"{stream.name}.at0"] = np.array([at for row in found for _, at in row], np.int64)

    def _held(self, stream: Stream, workspace: str) -> list[set[int]]:
        """What each row of a workspace holds once it is updated; where it is only set does not count."""
        extents = self.arrays[workspace].extents
        rows = [set[int]() for _ in range(evaluate(stream.rows, self.sizes))]
        for s in self.scop.statements:
            if s.target != workspace or (isinstance(stream.source, Located) and s.monoid is None):
                continue
            around = [r for r in self.scop.statements if any(d.drains == workspace for d in r.ragged)]
            at = tuple(self._code(e) for e in s.at)
            for point in self._points(s, {}):
                env = {**self.constants, **point}
                *row, column = (int(a(env)) for a in at)
                place = row[0] if row else int(env[s.dims[0]]) if len(extents) == 1 and around else 0
                rows[place].add(column)
        return rows

    def _walked(self, stream: Stream, rows: Sequence[Sequence[tuple[int, ...]]]) -> None:
        self.inputs[f"{stream.name}.pos{stream.level}"] = np.cumsum([0, *map(len, rows)])
        for n in range(1 + len(stream.inner)):
            self.inputs[f"{stream.name}.next{stream.level + n}"] = np.array([c[n] for row in rows for c in row], np.int64)

    def run(self) -> dict[str, Any]:
        steps: list[tuple[tuple[int, ...], int, tuple[int, ...], Statement, Env]] = []
        paths = self._paths()
        for number, s in enumerate(self.scop.statements):
            path = [(kind, place if isinstance(place, int) else self._code(place)) for kind, place in paths[s.name]]
            for point in self._points(s, {}):
                env = {**self.constants, **point}
                key = tuple(place if isinstance(place, int) else int(place(env)) for _, place in path)
                loops = tuple(k for (kind, _), k in zip(path, key) if kind == "band")
                steps.append((key, number, loops, s, env))
        steps.sort(key=lambda step: (step[0], step[1]))
        codes = {s.name: (tuple(self._code(e) for e in s.at), self._code(s.value)) for s in self.scop.statements}
        self.pushes = {s.name: [(array, self._code(value)) for array, value in s.pushes] for s in self.scop.statements}
        self.once = {s.name: self._code(s.once) for s in self.scop.statements if s.once is not None}
        self.reader = ""  # the target of the statement at hand
        self.last: dict[tuple[str, int], int] = {}  # by statement and group: the coordinate before
        for g in self.scop.groupings:
            self.made.update(((g.cursors, (k,)), (0, ())) for k in range(evaluate(g.groups, self.sizes)))
        begun: set[str] = set()
        conditions = {s.name: self._code(s.when) for s in self.scop.statements if s.when is not None}
        for _, _, self.around, s, env in steps:
            if s.name in conditions and not conditions[s.name](env):
                continue
            at, value = codes[s.name]
            if (grouping := self.scop.grouping(s)) is not None:
                if s.name == grouping.fill and s.groups not in begun:
                    begun.add(s.groups)
                    self._positions(grouping)
                self._grouped(grouping, s, int(at[0](env)), env)
                continue
            for array, pushed in self.pushes[s.name]:
                place = (int(self._read(s.target, tuple(int(a(env)) for a in at))),)
                self._inside(array, place)
                self.made[array, place] = (to_numpy(self.arrays[array].dtype).type(pushed(env)), self._life(array))
            self.reader = s.target
            self._execute(s, tuple(int(a(env)) for a in at), value(env))
        for g in self.scop.groupings:
            if g.name not in begun:
                self._positions(g)
        return {a.name: self._result(a) for a in self.scop.arrays if a.role == "output"}

    # --- groupings ----------------------------------------------------------------------------------------------------------

    def _positions(self, g: Grouping) -> None:
        """Where each group begins, from how much it gets."""
        dtype = to_numpy(self.arrays[g.cursors].dtype)
        begin = 0
        for k in range(evaluate(g.groups, self.sizes) + 1):
            self.made[f"{g.name}.pos1", (k,)] = (dtype.type(begin), ())
            held = int(self.made.get((g.cursors, (k,)), (0, ()))[0])
            self.made[g.cursors, (k,)] = (begin, ())
            begin += held

    def _grouped(self, g: Grouping, s: Statement, group: int, env: Env) -> None:
        """Count an instance, or store what it pushes where the cursor of its group stands."""
        self._inside(g.cursors, (group,))
        coordinate = int(self.once[s.name](env)) if s.once is not None else None
        again = coordinate is not None and self.last.get((s.name, group)) == coordinate
        if coordinate is not None:
            self.last[s.name, group] = coordinate
        place = int(self.made[g.cursors, (group,)][0]) - again
        for array, pushed in self.pushes[s.name]:
            self._inside(array, (place,))
            value = pushed(env)
            if again and array == f"{g.name}.val":
                value = OPS[MONOIDS[g.monoid or "add"].op].meaning(self.made[array, (place,)][0], value)
            self.made[array, (place,)] = (to_numpy(self.arrays[array].dtype).type(value), self._life(array))
        self.made[g.cursors, (group,)] = (place + 1, ())

    def _execute(self, s: Statement, at: tuple[int, ...], value: Any) -> None:
        if s.monoid is not None and self._holds(s.target, at):
            value = OPS[MONOIDS[s.monoid].op].meaning(self._read(s.target, at), value)
        self._inside(s.target, at)
        self.made[s.target, at] = (to_numpy(self.arrays[s.target].dtype).type(value), self._life(s.target))

    def _holds(self, array: str, at: tuple[int, ...]) -> bool:
        """A workspace holds what was updated since its row began; other arrays hold something always."""
        if self.arrays[array].role != "workspace":
            return True
        found = self.made.get((array, at))
        return found is not None and found[1] == self._life(array)

    def _life(self, array: str) -> tuple[int, ...]:
        return self.around[: self.depths.get(array, 0)]

    def _read(self, array: str, at: tuple[int, ...]) -> Any:
        self._inside(array, at)
        if self.arrays[array].role in ("input", "stream"):
            given = self.inputs[array]
            return given[self._flat(self.arrays[array], at)] if self._is_ragged(array) else given[at]
        found = self.made.get((array, at))
        if self.arrays[array].taken:
            if self.reader != array:
                self.made.pop((array, at), None)
            return to_numpy(self.arrays[array].dtype).type(0) if found is None else found[0]
        if found is None or found[1] != self._life(array):
            raise VerifyError(f"{array}{list(at)} is read before it is written", f"in iteration {list(self.around)}")
        return found[0]

    def _inside(self, array: str, at: tuple[int, ...]) -> None:
        for position, (index, extent) in enumerate(zip(at, self.arrays[array].extents, strict=True)):
            limit = self._extent(extent, at[:position], array)
            if not 0 <= index < limit:
                raise IndexOutOfRangeError(f"{array}: index {index} in dimension {position}", f"its extent is {limit}")

    def _is_ragged(self, array: str) -> bool:
        return any(isinstance(e, Ragged) for e in self.arrays[array].extents)

    # --- ragged arrays ----------------------------------------------------------------------------------------------------

    def _extent(self, extent: Size | Ragged, before: tuple[int, ...], array: str) -> int:
        if not isinstance(extent, Ragged):
            return evaluate(extent, self.sizes)
        along = self._along(extent)
        if len(before) < len(along) - 1:  # a contracted row buffer: its row is the one at hand
            return 1 << 62
        return self._length(extent, before[len(before) - len(along) + 1 :])

    def _length(self, ragged: Ragged, parents: tuple[int, ...]) -> int:
        along = self._along(ragged)[:-1]
        pos = self.inputs[f"{ragged.tensor}.pos{ragged.level}"]
        parent = self._position(along, parents)
        return int(pos[parent + 1]) - int(pos[parent])

    def _along(self, ragged: Ragged) -> tuple[Size | Ragged, ...]:
        kind = "next" if ragged.tensor in self.streams else "crd"
        return self.arrays[f"{ragged.tensor}.{kind}{ragged.level}"].extents

    def _position(self, extents: tuple[Size | Ragged, ...], at: tuple[int, ...]) -> int:
        position = 0
        for extent, index in zip(extents, at, strict=True):
            if isinstance(extent, Ragged):
                position = int(self.inputs[f"{extent.tensor}.pos{extent.level}"][position]) + index
            else:
                position = position * evaluate(extent, self.sizes) + index
        return position

    def _flat(self, array: Array, at: tuple[int, ...]) -> int:
        return self._position(array.extents, at)

    def _result(self, array: Array) -> Any:
        dtype = to_numpy(array.dtype)
        mine = {at: value for (name, at), (value, _) in self.made.items() if name == array.name}
        if self._is_ragged(array.name):
            out = np.zeros(len(mine), dtype)
            for at, value in mine.items():
                out[self._flat(array, at)] = value
            return out
        out = np.zeros(tuple(evaluate(e, self.sizes) for e in array.extents if not isinstance(e, Ragged)), dtype)
        if len(mine) != out.size:
            raise VerifyError(f"{array.name} is not complete", f"{len(mine)} of {out.size} elements are written")
        for at, value in mine.items():
            out[at] = value
        return out

    # --- instances --------------------------------------------------------------------------------------------------------

    def _points(self, s: Statement, point: Env) -> Iterator[Env]:
        if len(point) == len(s.dims):
            if all(self._length(r.fibre, tuple(int(self._code(p)({**self.constants, **point})) for p in r.places)) for r in s.nonempty):
                yield point
            return
        dim = s.dims[len(point)]
        extent = s.extents[len(point)]
        if isinstance(extent, Ragged):
            walked = next(r for r in s.ragged if r.dim == dim)
            limit = self._length(extent, tuple(int(self._code(p)({**self.constants, **point})) for p in walked.places))
            if walked.pieces and walked.level == walked.cut:  # counted from the begin of the fibre here, not of the piece
                pos = self.inputs[f"{walked.tensor}.pos{walked.level}"]
                begin = int(pos[self._position(self._along(extent)[:-1], tuple(int(self._code(p)({**self.constants, **point})) for p in walked.places))])
                share, rest = divmod(int(pos[-1]), walked.pieces)
                first, last = (n * share + min(n, rest) - begin for n in (point[walked.piece], point[walked.piece] + 1))
                for value in range(max(0, first), min(limit, last)):
                    yield from self._points(s, {**point, dim: value})
                return
        else:
            limit = evaluate(extent, self.sizes)
        for value in range(limit):
            yield from self._points(s, {**point, dim: value})

    def _paths(self) -> dict[str, list[tuple[str, int | Expr]]]:
        if self.scop.schedule is None:
            return {
                s.name: [("seq", p), *(("band", Var(d, dt.i64)) for d in s.dims)] for p, s in enumerate(self.scop.statements)
            }
        return dict(_paths(st.read(self.scop, self.scop.schedule), []))

    # --- expressions ------------------------------------------------------------------------------------------------------

    def _code(self, expr: Expr) -> Code:
        match expr:
            case Const(value, dtype):
                number = to_numpy(dtype).type(value)
                return lambda env: number
            case Var(name):
                return lambda env: env[name]
            case Load(array, indices):
                places = tuple(self._code(i) for i in indices)
                return lambda env: self._read(array, tuple(int(p(env)) for p in places))
            case Cast(arg, dtype):
                inner, kind = self._code(arg), to_numpy(dtype)
                return lambda env: np.asarray(inner(env)).astype(kind)[()]
            case Apply("where", (test, yes, no)):
                first, second, third = self._code(test), self._code(yes), self._code(no)
                return lambda env: second(env) if first(env) else third(env)
            case Apply(op, args):
                meaning, parts = OPS[op].meaning, tuple(self._code(a) for a in args)
                return lambda env: meaning(*(p(env) for p in parts))
            case _:
                assert_never(expr)


def _paths(tree: st.Tree, above: list[tuple[str, int | Expr]]) -> Iterator[tuple[str, list[tuple[str, int | Expr]]]]:
    match tree:
        case st.Leaf(name):
            yield name, above
        case st.Bind(_, _, child):
            yield from _paths(child, above)
        case st.Sequence(children):
            for position, child in enumerate(children):
                yield from _paths(child, [*above, ("seq", position)])
        case st.Band(members, child, _, _):
            below = {name: [*above, ("band", place)] for name, place in members}
            for name, path in _paths(child, [*above, ("band", 0)]):
                yield name, [*below[name], *path[len(above) + 1 :]]
        case _:
            assert_never(tree)
