"""The default schedule: PolyAI's own choice of fusion, loop order, tiles and marks.

    T_init[i,j]; T_upd[i,j,q]; Y[i_1,j_1]           parallel i:
                                                      bind A.1:
                                                        vector j:
                                                          T_init
                                                          q: T_upd
                                                          Y

Assumes what the index expressions say and proves nothing: the caller checks the tree.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from polyai.poly import tree as st
from polyai.poly.nodes import JAM, PARALLEL, VECTOR, Ragged
from polyai.poly.passes.facts import Facts, panel_of
from polyai.poly.passes.group import Group, Placed, atoms, beside, inner_group, outer_group, regrouped, whole_group
from polyai.scalar import dtype as dt
from polyai.scalar.expr import Apply, Const, Expr, Load, Var

PIECE = 64
"""Elements of a fibre that stay in the cache while several rows read them."""
CHUNK = 4096
"""Iterations of one task where the only free dim is cut for both threads and vectors."""
LINE_BYTES = 64
"""Threads share no line of a cache where they write."""
TOGETHER = 4
"""How many sums along memory run at once."""
BLOCK_ROWS = 6
"""Most rows of a stored block that are jammed: each element of the operand is loaded once for all of them."""
SQUARE = 64
"""Rows of a square where an operand is read across memory."""
ROWS = 96
"""Most rows of a product for one task."""
LINE_BYTES = 64
"""A cache line: two threads that share one wait for each other."""
PANELS, COPY_BYTES = 8, 1 << 22
"""Most panels that are copied at once, and most bytes of them. Long runs of few rows make for fewer pages."""
FEW = 24
"""Most rows for which a product streams a matrix instead of going down its columns."""
BLOCK = 12
"""Rows whose sums are kept at once."""
RUN = 8
"""Rows of a matrix that are read side by side: the lines of as many rows a power of two apart fit one set of the first-level cache."""
SUMS_BYTES = 1 << 14
"""Sums that stay in the first-level cache while a matrix passes by."""
TASKS = 8
"""Pieces of work that are enough for the threads."""
PANEL_BYTES = 1 << 19
"""An operand up to this size stays in the second-level cache while rows pass by."""


def tree(facts: Mapping[str, Facts], vector_bytes: int = 64) -> tuple[st.Tree, list[str]]:
    """The recipe's tree for statements in program order, and what was decided, in words. `vector_bytes`: of one vector."""
    return _Recipe(facts, vector_bytes).tree()


class _Recipe:
    def __init__(self, facts: Mapping[str, Facts], vector_bytes: int) -> None:
        self.facts = tuple(facts.values())
        self.vector_bytes = vector_bytes
        self.notes: list[str] = []

    def tree(self) -> tuple[st.Tree, list[str]]:
        rest: tuple[Facts, ...] = self.facts
        nests: list[st.Tree] = []
        while rest:
            nest, rest = self._nest(rest)
            nests.append(nest)
        out = nests[0] if len(nests) == 1 else st.Sequence(tuple(nests))
        return out, self.notes

    def _nest(self, statements: tuple[Facts, ...]) -> tuple[st.Tree, tuple[Facts, ...]]:
        """A loop nest that starts with the first statement, and the statements that are not in it."""
        first, *rest = atoms(statements)
        copy = first[0] if _fills_panels(first[0]) and rest else None
        if copy is not None:
            first, *rest = rest
        main = first[-1]
        if len(statements) > 2 and statements[1].piece is not None:
            return self._partial_sums(statements[:3]), statements[3:]
        tied = [s for atom in rest for s in atom]
        rows = self._row_dim(main)
        if main.jams and main.summed and not main.statement.ragged:
            dims, after = whole_group(main, first, rest)
            wide = 0
            if not main.heavy and rows is not None:
                wide = len(self._rows(main, rows, first, rest, False).members)
            if wide <= len(dims):
                kept = tuple(s for s in statements if s.name in dims)
                self._say(kept, f"share all of {', '.join(main.free)}; {', '.join(main.jams)} jammed")
                if copy is None:
                    return self._register_tiled(main, kept, dims), after
                if self._is_by_batch(main, copy):
                    return self._register_tiled(main, kept, dims, copy), after
                if len(copy.statement.dims) == 2 and not self._by_rows(main):
                    return self._copied(main, kept, dims, copy), after
        if copy is not None:
            self._say((copy,), "all panels first")
            *batch, columns, _ = copy.statement.dims
            first_loop = _cut(batch[0], 1) if batch else _cut(columns, self._at_once(copy))
            return st.Band(((copy.name, first_loop),), self._copy(copy, tuple(batch[1:])), (PARALLEL,), True), statements[1:]
        crossed = _crossed(main)
        if crossed is not None:
            dims, after = whole_group(main, first, rest)
            kept = tuple(s for s in statements if s.name in dims)
            self._say(kept, f"squares of {crossed} and {main.vector}, because an operand lies along {crossed}")
            return self._squares(main, crossed, kept, dims), after
        if rows is not None:
            group = self._rows(main, rows, first, rest, False)
            members = {s.name: d for s, d in group.members}
            kept = tuple(s for s, _ in group.members)
            self._say(kept, f"one parallel loop over {rows}")
            placed = Placed().add(members)
            cuts = regrouped(members, kept, group.after)
            if cuts:
                self._say([t for t in group.after if t.name in cuts], f"in the loop over {rows}, a row at a time")
            all_kept = (*kept, *(t for t in group.after if t.name in cuts))
            after = tuple(t for t in group.after if t.name not in cuts)
            places = tuple((s.name, cuts[s.name][0] if s.name in cuts else Var(members[s.name], dt.i64)) for s in all_kept)

            def rows_of(bound: frozenset[Ragged]) -> st.Tree:
                below = self._inside(kept, placed, bound)
                rest = tuple(st.Band(((name, within),), st.Leaf(name), (VECTOR,), True) for name, (_, within) in cuts.items())
                first = below.children if isinstance(below, st.Sequence) else (below,)
                return st.Band(places, st.Sequence((*first, *rest)) if rest else below, (PARALLEL,), True)

            inner = self._bound(all_kept, Placed(), frozenset(), rows_of)
            return inner, after
        if main.free and main.vector in main.free:
            group = self._rows(main, main.free[0], first, rest, True)
            members = {s.name: d for s, d in group.members}
            kept = tuple(s for s, _ in group.members)
            chunk = self._chunk(main)
            self._say(kept, f"{main.free[0]} cut into pieces of {chunk} for the threads")
            inner = self._bound(kept, Placed(), frozenset(), lambda bound: self._cut(members, chunk, kept, bound))
            return inner, group.after
        self._say(first, "no free loop: one thread")
        return self._inside(tuple(first), Placed(), frozenset()), tuple(tied)

    def _row_dim(self, main: Facts) -> str | None:
        """The free dim for the parallel loop: the first one long enough, and never the one along memory."""
        owned = {r.dim for r in main.statement.ragged if r.parents}
        choices = [d for d in main.free if d != main.vector and d not in owned]
        return next((d for d in choices if main.trip(d) >= 8), max(choices, key=main.trip, default=None))

    def _rows(self, main: Facts, dim: str, first: Sequence[Facts], rest: Sequence[Sequence[Facts]], along: bool) -> Group:
        return outer_group(first, rest, {s.name: beside(main, dim, s) if s is not main else dim for s in first}, along)

    def _chunk(self, main: Facts) -> int:
        """How much of the vectorised dim one task gets: all of a cache line at least, and less where much is done for each element."""
        dim = main.free[0]
        line = max(1, max(self.vector_bytes, LINE_BYTES) // main.statement.value.dtype.bytes)
        if not main.summed and not main.serial:
            return CHUNK
        if main.order()[-1] != dim:
            return line  # a thread runs its pieces in one pass
        return max(line, min(16 * line, main.trip(dim) // 8 // line * line))

    def _partial_sums(self, kept: tuple[Facts, ...]) -> st.Tree:
        """A loop over pieces of a long sum: its start, its terms, its result. See `split`."""
        start, update, result = kept
        dim, length = update.piece or ("", 1)
        self._say(kept, f"sums of {length} along {dim} for the threads")
        piece = start.statement.dims[0]
        placed = Placed().add({start.name: piece, result.name: piece})
        places = ((start.name, _cut(piece, 1)), (update.name, _cut(dim, length)), (result.name, _cut(piece, 1)))
        return st.Band(places, self._inside(kept, placed, frozenset()), (PARALLEL,), True)

    def _squares(self, main: Facts, crossed: str, kept: tuple[Facts, ...], dims: Mapping[str, Mapping[str, str]]) -> st.Tree:
        """Loops for a map that reads along `crossed` and writes along its vector: each cache line is used up before it leaves."""
        line = max(1, self.vector_bytes // main.statement.value.dtype.bytes)
        others = [(d, 1) for d in main.free if d not in (crossed, main.vector)]
        order = [*others, (crossed, SQUARE), (str(main.vector), line), (crossed, 1)]
        order.sort(key=lambda entry: entry != (crossed, SQUARE) and (not others or main.trip(others[0][0]) < 8))
        placed = Placed()
        for d in main.free:
            if d != main.vector:
                placed = placed.add({s.name: dims[s.name][d] for s in kept})
        out = self._inside(kept, placed, frozenset())
        for number, (d, tile) in reversed(list(enumerate(order))):
            places = tuple((s.name, _cut(dims[s.name][d], tile)) for s in kept)
            out = st.Band(places, out, (PARALLEL,) if number == 0 else (), number == 0)
        return out

    # --- register tiles ---------------------------------------------------------------------------------------------------

    def _copy(self, copy: Facts, batch: tuple[str, ...] = ()) -> st.Tree:
        """Loops that copy an operand into panels: a few of its columns, a few rows at a time, for all of `batch`."""
        columns, depth = copy.statement.dims[-2:]
        loops: tuple[tuple[Expr, tuple[str, ...]], ...]
        if any(depth in a.used[-1] for a in copy.accesses if not a.write):  # turned around: a few rows side by side, element by element
            loops = ((_cut(columns, _fills_panels(copy)), ()), (Var(columns, dt.i64), (f"{JAM}={RUN}",)), (Var(depth, dt.i64), ()))
        else:
            loops = ((_cut(depth, RUN), ()), (_cut(columns, _fills_panels(copy)), ()), (Var(depth, dt.i64), ()), (Var(columns, dt.i64), (VECTOR,)))
        out: st.Tree = st.Leaf(copy.name)
        for place, marks in reversed(loops):
            out = st.Band(((copy.name, place),), out, marks, bool(marks))
        for dim in reversed(batch):
            out = st.Band(((copy.name, Var(dim, dt.i64)),), out)
        return out

    def _is_by_batch(self, main: Facts, copy: Facts) -> bool:
        """Whether threads share the first loops of `main`, which are those of its copied operand: then each copies what it reads."""
        batch = copy.statement.dims[:-2]
        outer = tuple(d for d in main.free if d not in self._jam_sizes(main) and d != main.vector)
        return bool(batch) and batch == outer and main.trip(batch[0]) >= 4

    def _at_once(self, copy: Facts) -> int:
        """How many columns are copied at once, in whole panels."""
        columns, depth = copy.statement.dims[-2:]
        width = _fills_panels(copy)
        return width * max(1, min(PANELS, COPY_BYTES // (width * copy.trip(depth) * copy.statement.value.dtype.bytes), copy.trip(columns) // width // 2))

    def _by_rows(self, main: Facts) -> bool:
        """Whether threads share the rows of a product; else they share its columns."""
        last, rows = str(main.vector) if main.vector in main.free else main.free[-1], next(iter(self._jam_sizes(main)))
        panel = dict(main.panels).get(last, 0)
        if panel and main.trip(last) >= TASKS * panel:
            return main.trip(rows) >= TASKS * ROWS
        return main.trip(rows) >= (16 if self._stays(main, last) else 2 * ROWS) or main.trip(rows) >= main.trip(last)

    def _stays(self, main: Facts, last: str) -> bool:
        """Whether the operand that all rows share stays in the second-level cache."""
        depth = math.prod(main.trip(d) for d in main.summed)
        return depth * main.trip(last) * main.statement.value.dtype.bytes <= PANEL_BYTES

    def _copied(self, main: Facts, kept: tuple[Facts, ...], dims: Mapping[str, Mapping[str, str]], copy: Facts) -> st.Tree:
        """Loops for a product whose operand `copy` copies into panels, a few of them just before all rows use them."""
        ((rows, jam),), last = self._jam_sizes(main).items(), str(main.vector)
        columns, width, at_once = copy.statement.dims[0], _fills_panels(copy), self._at_once(copy)

        def at(dim: str, tile: int = 1) -> tuple[tuple[str, Expr], ...]:
            return tuple((s.name, _cut(dims[s.name][dim], tile)) for s in kept)

        placed = Placed().add({s.name: dims[s.name][rows] for s in kept})
        tiles = st.Band(at(last, width), st.Band(at(rows), self._inside(kept, placed, frozenset()), (f"{JAM}={jam}",), True))
        self._say((copy,), f"{at_once} columns of {last} are copied at once, in panels of {width}")
        members = ((copy.name, _cut(columns, at_once)), *at(last, at_once))
        return st.Band(members, st.Sequence((self._copy(copy), tiles)), (PARALLEL,), True)

    def _register_tiled(self, main: Facts, kept: tuple[Facts, ...], dims: Mapping[str, Mapping[str, str]], copy: Facts | None = None) -> st.Tree:
        """Loops for a reduction whose operands are loaded once for several rows: tasks, cache tiles, jammed rows, then vectors. `copy`
        has the dims of `main` that come first, and fills the panels of one iteration of these."""

        def at(dim: str, tile: int = 1) -> tuple[tuple[str, Expr], ...]:
            mine = () if copy is None or dim not in copy.statement.dims[:-2] else ((copy.name, Var(dim, dt.i64)),)
            return (*mine, *((s.name, _cut(dims[s.name][dim], tile)) for s in kept))

        jams = self._jam_sizes(main)
        outer = [d for d in main.free if d not in jams and d != main.vector]
        bands: list[tuple[tuple[tuple[str, Expr], ...], tuple[str, ...]]] = []
        last = main.free[-1] if main.vector not in main.free else str(main.vector)
        rows = next(iter(jams))
        depth, stays = math.prod(main.trip(d) for d in main.summed), self._stays(main, last)
        panel = dict(main.panels).get(last, 0)
        width = panel or self._width(main)
        by_rows = self._by_rows(main)
        if not (outer or panel or stays) and list(jams) == [rows] and main.vector == last and main.trip(rows) <= FEW and len(main.summed) == 1:
            return self._streamed(main, kept, dims, rows, jams[rows])
        batch = next((d for d in outer if main.trip(d) >= 4), None)
        if batch is not None:
            bands.append((at(batch), (PARALLEL,)))
            outer.remove(batch)
        elif by_rows:
            bands.append((at(rows, _share(main.trip(rows), jams[rows], ROWS)), (PARALLEL,)))
        else:
            step = width if last == main.vector else jams.get(last, 1)
            bands.append((at(last, _share(main.trip(last), step, 16 * step)), (PARALLEL,)))
        bands += [(at(d), ()) for d in outer]
        reused = main.trip(rows) > jams[rows]
        if panel or (main.vector in main.free and reused and not stays and main.trip(last) > 2 * width):
            bands.append((at(last, width), ()))
            why = "as an operand is stored" if panel else f"so that {depth} rows of it stay in cache"
            self.notes.append(f"{main.name}: {last} in panels of {width}, {why}")
        placed = Placed()
        for d in main.free:
            if d != main.vector:
                placed = placed.add({s.name: dims[s.name][d] for s in kept})
        bands += [(at(d), (f"{JAM}={size}",) if size > 1 else ()) for d, size in jams.items()]
        out = self._inside(kept, placed, frozenset())
        inner = len(bands) if copy is None else len(copy.statement.dims) - 2
        for number, (members, marks) in reversed(list(enumerate(bands))):
            if copy is not None and number == inner - 1:
                self._say((copy,), "copied just before they are read")
                out = st.Sequence((self._copy(copy), out))
            out = st.Band(members, out, marks, bool(marks))
        return out

    def _streamed(self, main: Facts, kept: tuple[Facts, ...], dims: Mapping[str, Mapping[str, str]], rows: str, jam: int) -> st.Tree:
        """Loops for a product of few rows with a matrix that does not stay in a cache: a few rows of the matrix at a time are read in
        long runs, and the sums of a strip of the result stay in the cache meanwhile. A register tile that goes down all rows of
        the matrix would touch another page, and the same few lines of a cache, in each step."""
        (depth,), columns = main.summed, str(main.vector)
        height = _in_steps(min(main.trip(rows), BLOCK), jam)
        width = self._strip(main, columns, height)
        first = kept.index(main)
        before, after = kept[:first], kept[first + 1 :]

        def at(some: Sequence[Facts], dim: str, tile: int = 1) -> tuple[tuple[str, Expr], ...]:
            return tuple((s.name, _cut(dims[s.name][dim], tile)) for s in some)

        inner = self._inside((main,), Placed().add({main.name: rows}), frozenset())
        tiles = st.Band(at((main,), rows), inner, (f"{JAM}={jam}",) if jam > 1 else (), jam > 1)
        sums = st.Band(((main.name, _cut(depth, RUN)),), tiles)
        steps: list[st.Tree] = [self._inside(before, Placed(), frozenset()), sums]
        if after:
            steps.append(self._inside(after, Placed(), frozenset()))
        self._say((main,), f"{RUN} rows of {depth} at a time, in runs of {width}; {height} x {width} sums stay in the cache")
        block = st.Band(at(kept, rows, height), st.Sequence(tuple(steps)))
        return st.Band(at(kept, columns, width), block, (PARALLEL,), True)

    def _strip(self, main: Facts, columns: str, height: int) -> int:
        """How wide the strips of the result are: strips of about the same width, two at least, whose sums stay in the cache."""
        step, trip = self._width(main), main.trip(columns)
        most = max(step, SUMS_BYTES // (height * main.statement.value.dtype.bytes))
        return _in_steps(-(-trip // max(2, -(-trip // most))), step)

    def _jam_sizes(self, main: Facts) -> dict[str, int]:
        """How many iterations of which dims are jammed: accumulators must fit the registers."""
        if main.vector in main.free:
            best = max(main.jams, key=main.trip)
            if main.panels and not isinstance(main.extent(best), int):
                return {best: 6}  # any number of rows may come; what is left over of a tile passes over the panel again
            return {best: main.trip(best) if main.trip(best) <= 6 else 4 if main.trip(best) <= 8 else 6}
        chosen = sorted(main.jams, key=main.trip)[-2:]
        return {d: min(4, main.trip(d)) for d in main.jams if d in chosen}

    def _width(self, main: Facts) -> int:
        """Elements in the four vectors of a register tile."""
        return 4 * max(1, self.vector_bytes // main.statement.value.dtype.bytes)

    # --- inside a nest ----------------------------------------------------------------------------------------------------

    def _band(
        self, members: Mapping[str, str], marks: tuple[str, ...], kept: tuple[Facts, ...], placed: Placed, bound: frozenset[Ragged]
    ) -> st.Tree:
        places = tuple((s.name, Var(members[s.name], dt.i64)) for s in kept)
        return st.Band(places, self._inside(kept, placed, bound), marks, bool(marks))

    def _cut(self, members: Mapping[str, str], chunk: int, kept: tuple[Facts, ...], bound: frozenset[Ragged]) -> st.Tree:
        places = tuple((s.name, _cut(members[s.name], chunk)) for s in kept)
        return st.Band(places, self._inside(kept, Placed(), bound), (PARALLEL,), True)

    def _bound(
        self, statements: tuple[Facts, ...], placed: Placed, bound: frozenset[Ragged], below: Callable[[frozenset[Ragged]], st.Tree]
    ) -> st.Tree:
        """`below` under bind marks for the fibres whose owners all have their loops."""
        for s in statements:
            for ragged in s.statement.fibres:
                if ragged.fibre in bound:
                    continue
                owners = [(t.name, p) for t in statements for r in t.statement.fibres if r.fibre == ragged.fibre for p in r.parents]
                if all(placed.loop(*owner) is not None for owner in owners):
                    known = bound | {ragged.fibre}
                    return st.Bind(ragged.tensor, ragged.level, self._bound(statements, placed, known, below))
        return below(bound)

    def _inside(self, statements: tuple[Facts, ...], placed: Placed, bound: frozenset[Ragged]) -> st.Tree:
        """The loops that are left, statement after statement, sharing where they can."""
        return self._bound(statements, placed, bound, lambda known: self._loops(statements, placed, known))

    def _loops(self, statements: tuple[Facts, ...], placed: Placed, bound: frozenset[Ragged]) -> st.Tree:
        children: list[st.Tree] = []
        rest = statements
        while rest:
            first = rest[0]
            if not placed.left(first):
                children.append(st.Leaf(first.name))
                rest = rest[1:]
                continue
            group = inner_group(first, rest[1:], placed)
            members = {s.name: d for s, d in group.members}
            kept = tuple(s for s, _ in group.members)
            at = _walks_in_jammed_rows(group.members, placed)
            if at is not None:
                children.append(self._inside(tuple(kept[:at]), placed, bound))
                children.append(self._by_pieces(kept[at], members[kept[at].name], placed, bound))
                rest = (*group.before, *kept[at + 1 :], *group.after)
                continue
            children += [st.Leaf(s.name) for s in group.before]
            marks = (VECTOR,) if all(d == s.vector for s, d in group.members) else self._together(group.members, placed.add(members))
            children.append(self._group(members, marks, kept, placed, bound))
            rest = group.after
        return children[0] if len(children) == 1 else st.Sequence(tuple(children))

    def _together(self, members: Sequence[tuple[Facts, str]], placed: Placed) -> tuple[str, ...]:
        """Jam the rows of a stored block, which share what they read, and a loop around one that reduces along memory: several
        sums at once hide their latency."""
        jammed = [(s, d) for s, d in members if d in s.jams]
        if jammed and all(d in s.free for s, d in members):
            size = max(_block_rows(s.trip(d)) for s, d in jammed)
            return (f"{JAM}={size}",) if size > 1 else ()
        if any(_shares_rows(s, d, placed) for s, d in members) and all(d in s.free for s, d in members):
            return (f"{JAM}={TOGETHER}",)
        inner = [s for s, _ in members if s.vector in s.summed and placed.left(s) == (s.vector,)]
        return (f"{JAM}={TOGETHER}",) if len(inner) == 1 and all(d in (*s.free, *s.summed) for s, d in members) else ()

    def _by_pieces(self, update: Facts, rows: str, placed: Placed, bound: frozenset[Ragged]) -> st.Tree:
        """Loops for a sum along a fibre in rows that share what they read: a piece of the fibre stays in the cache while the rows pass."""
        fibre = next(d for d in update.summed if any(r.dim == d for r in update.statement.ragged))
        size = _block_rows(update.trip(rows))
        inner = self._band({update.name: rows}, (f"{JAM}={size}",), (update,), placed.add({update.name: rows}), bound)
        return st.Band(((update.name, _cut(fibre, PIECE)),), inner, (), False)

    def _group(
        self, members: Mapping[str, str], marks: tuple[str, ...], kept: tuple[Facts, ...], placed: Placed, bound: frozenset[Ragged]
    ) -> st.Tree:
        inner = self._bound(kept, placed, bound, lambda known: self._band(members, marks, kept, placed.add(members), known))
        cut = {dict(s.panels).get(members[s.name]) if members[s.name] in s.summed else None for s in kept}
        length = next(iter(cut)) if len(cut) == 1 else None
        if length is None:
            return inner
        return st.Band(tuple((s.name, _cut(members[s.name], length)) for s in kept), inner)  # piece by piece, as it is stored

    def _say(self, statements: Sequence[Facts], text: str) -> None:
        self.notes.append(f"{', '.join(s.name for s in statements)}: {text}")


def _crossed(main: Facts) -> str | None:
    """A free dim along which a map reads memory while it writes along another; None if there is none."""
    if main.summed or main.serial or main.statement.ragged or main.vector is None:
        return None
    for access in main.accesses:
        last = dict(access.strides[-1] or ()) if access.strides and not access.write else {}
        for dim, factor in last.items():
            if factor == 1 and dim in main.free and dim != main.vector and any(main.vector in u for u in access.used[:-1]):
                return dim
    return None


def _walks_in_jammed_rows(members: Sequence[tuple[Facts, str]], placed: Placed) -> int | None:
    """The place of a member that sums along a fibre in jammed rows, into lanes, what another one left along the fibre; None without."""
    for n, (s, d) in enumerate(members):
        walks = {r.dim for r in s.statement.ragged if r.parents} & set(s.summed)
        if n and s.heavy and d in s.jams and s.vector in s.free and len(walks) == 1 and placed.left(s)[-1] in walks and len(placed.left(s)) == 3:
            return n
    return None


def _shares_rows(s: Facts, dim: str, placed: Placed) -> bool:
    """True if `s` reduces into lanes inside the ragged loop over `dim`, and what it reads along the lanes is the same for all of it."""
    ragged = any(r.dim == dim for r in s.statement.ragged)
    left = placed.left(s)
    if not ragged or len(left) < 2 or left[0] != s.vector or not set(left[1:]) <= set(s.summed):
        return False
    reads = [a for a in s.accesses if not a.write and a.array != s.statement.target and a.uses(left[0]) and any(a.uses(d) for d in left[1:])]
    return any(not a.uses(dim) for a in reads)


def _cut(dim: str, tile: int) -> Expr:
    var = Var(dim, dt.i64)
    return var if tile == 1 else Apply("floordiv", (var, Const(tile, dt.i64)), dt.i64)


def _block_rows(rows: int) -> int:
    """How many of the rows of a stored block are jammed: a few that divide it, if there are such."""
    return rows if rows <= BLOCK_ROWS else next((n for n in (4, 6, 5, 3) if rows % n == 0), 4)


def _fills_panels(s: Facts) -> int:
    """The width of the panels that `s` copies an operand into, 0 if it does something else."""
    cut = panel_of(Load(s.statement.target, s.statement.at, s.statement.value.dtype))
    return 0 if cut is None or s.statement.monoid is not None else cut[1]


def _in_steps(trip: int, step: int) -> int:
    """`trip`, or a little more, in whole steps."""
    return -(-trip // step) * step


def _share(trip: int, step: int, most: int) -> int:
    """A piece of `trip` for one task: an eighth of it, in whole steps, at most `most`."""
    return max(step, min(most, trip // 8) // step * step)
