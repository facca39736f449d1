"""What the recipe wants to know of a statement: which dims may run at once, which one lies along memory, how long they are.

All of it is read off the index expressions. It only guides the choice of a schedule: isl checks the result.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from polyai.poly.access import anywhere, loads_in, variables_in
from polyai.poly.evident import never_repeated
from polyai.poly.nodes import Ragged, Scop, Statement
from polyai.scalar import dtype as dt
from polyai.scalar.expr import Apply, Cast, Const, Expr, Load, Var
from polyai.shapes.expr import Size, substitute, symbols
from polyai.term.node import node

UNKNOWN, UNKNOWN_FIBRE = 256, 16
"""How many iterations a size and a fibre are taken to have when no hint says more."""

_DEAR = frozenset(
    ["exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sin", "cos", "tan", "arcsin", "arccos", "arctan", "arctan2", "sinh", "cosh", "tanh", "arcsinh", "arccosh", "arctanh", "erf", "pow"]
)


@node
class Access:
    """One read or write. `places[p]` is the dim that index p is equal to, or None; `strides[p]` the dims that index p is linear
    in, with factors, or None where it is read from memory; `used[p]` all dims that occur in it."""

    array: str
    write: bool
    places: tuple[str | None, ...]
    strides: tuple[tuple[tuple[str, int], ...] | None, ...]
    used: tuple[frozenset[str], ...]

    def uses(self, dim: str) -> bool:
        return any(dim in u for u in self.used)


@node
class Facts:
    """`free`: dims whose iterations touch different elements; `summed`: dims over which the update reduces into one element;
    `serial`: the others, to be kept in order, those that walk a stream among them. `vector`: the dim to vectorise, if any. `shared_by[d]`: how many large operands
    do not depend on free dim d, so that jamming d loads them once for several iterations. `dear`: costs far more than a load.
    `panels`: dims along which an operand is stored in pieces of a length, side by side (`P[j // 32, k, j % 32]`)."""

    statement: Statement
    accesses: tuple[Access, ...]
    arrays: frozenset[str]
    trips: tuple[tuple[str, int], ...]
    free: tuple[str, ...]
    summed: tuple[str, ...]
    serial: tuple[str, ...]
    vector: str | None
    jams: tuple[str, ...]
    heavy: bool
    dear: bool
    piece: tuple[str, int] | None
    panels: tuple[tuple[str, int], ...] = ()

    @property
    def name(self) -> str:
        return self.statement.name

    def trip(self, dim: str) -> int:
        return dict(self.trips)[dim]

    def extent(self, dim: str) -> Size | Ragged:
        return self.statement.extents[self.statement.dims.index(dim)]

    def order(self) -> tuple[str, ...]:
        """The dims from the outermost loop to the innermost, as this statement alone would have them.

        A ragged dim that the program names after the vector stays inside it: its reader sums it there.
        """
        outer = [d for d in self.free if d != self.vector and d not in self.jams] + [d for d in self.jams if d != self.vector]
        mine = [self.vector] if self.vector is not None else []
        if self.vector in self.free:
            dims = self.statement.dims
            late = [r.dim for r in self.statement.ragged if r.dim in outer and dims.index(r.dim) > dims.index(self.vector)]
            outer, mine = [d for d in outer if d not in late], [*mine, *late]
        summed = [d for d in self.summed if d != self.vector]
        if self.serial and self.statement.monoid is not None and self.vector in self.free:
            reused = [d for d in self.serial if not any(a.uses(self.vector) and a.uses(d) for a in self.accesses if a.array != self.statement.target)]
            if reused and len(reused) < len(self.serial):  # what is scattered is loaded once for all the places it goes to
                return tuple(_parents_first(self.statement, [*outer, *(d for d in self.serial if d not in reused), *mine, *reused, *summed]))
        if self.serial or self.vector not in self.free:
            wanted = [*outer, *self.serial, *summed, *mine]
        else:
            wanted = [*outer, *mine, *summed]
        return tuple(_parents_first(self.statement, wanted))


def _parents_first(statement: Statement, wanted: list[str]) -> list[str]:
    parents = {r.dim: r.parents for r in statement.ragged}
    out: list[str] = []

    def put(dim: str) -> None:
        for parent in parents.get(dim, ()):
            put(parent)
        if dim not in out:
            out.append(dim)

    for dim in wanted:
        put(dim)
    return out


def facts_of(scop: Scop, hints: Mapping[str, int], known: Mapping[str, Facts] | None = None) -> dict[str, Facts]:
    """Facts by statement name. `hints` gives likely values of size symbols. `known`: facts, for the same hints, of statements that may
    be the same; those are taken over."""
    cursors = _cursors(scop.statements)
    if known and _cursors(f.statement for f in known.values()) != cursors:
        known = None
    old = {id(f.statement): f for f in known.values()} if known else {}
    return {s.name: old.get(id(s)) or _facts(s, hints, s.target in cursors) for s in scop.statements}


def _cursors(statements: Iterable[Statement]) -> set[str]:
    """Arrays that move on one by one: no lanes."""
    return {s.target for s in statements if s.pushes}


def _facts(s: Statement, hints: Mapping[str, int], is_cursor: bool = False) -> Facts:
    accesses = tuple(_accesses(s))
    trips = tuple((d, trip(e, hints)) for d, e in zip(s.dims, s.extents, strict=True))
    target = next(a for a in accesses if a.write)
    indirect = any(x is None for x in target.strides)
    mine = [a for a in accesses if a.array == s.target]
    coordinates = set(never_repeated(s)) if len(mine) == 1 else set()
    free, summed, serial = [], [], []
    piece = _piece(s) if len(mine) == 1 else None
    streamed = {r.dim for r in s.ragged if r.stream}
    for dim in s.dims:
        if dim in streamed:
            serial.append(dim)
        elif dim in coordinates or (all(dim in a.places for a in mine) and _same_place(mine, dim)):
            free.append(dim)
        elif (piece is not None and dim == piece[0]) or (s.monoid is not None and not indirect and not target.uses(dim) and len(mine) == 1):
            summed.append(dim)
        else:
            serial.append(dim)
    owners = {p for r in s.ragged for p in r.parents}  # lanes would walk fibres of different lengths
    named = [d for d in free if d in target.places and d not in owners]  # not a coordinate: lanes would scatter
    scored = accesses if piece is None else accesses[1:]  # within a piece the element stays the same
    vector = None if is_cursor else _vector(scored, dict(trips), named, [] if indirect else summed, target)
    walked = {p for r in s.ragged for p in (r.dim, *r.parents)}
    operands = _operands(accesses, vector, summed) if not serial else []
    jams = tuple(d for d in free if d != vector and d not in walked and any(not a.uses(d) for a in operands))
    heavy = any(len(a.used) > 1 and not a.uses(d) for a in operands for d in jams)
    arrays = frozenset(a.array for a in accesses)
    dear, panels = _is_dear(s.value), _panels(s)
    return Facts(s, accesses, arrays, trips, tuple(free), tuple(summed), tuple(serial), vector, jams, heavy, dear, piece, panels)


def _piece(s: Statement) -> tuple[str, int] | None:
    if s.monoid is None or not s.at:
        return None
    match s.at[0]:
        case Apply("floordiv", (Var(dim), Const(length))) if not any(dim in variables_in(e) for e in s.at[1:]):
            return dim, int(length.real)
        case _:
            return None


def _panels(s: Statement) -> tuple[tuple[str, int], ...]:
    """The dims that operands are stored in pieces of, with the lengths; a dim that is cut in two ways is left out."""
    found: dict[str, set[int]] = {}
    for root in s.roots:
        for load in loads_in(root):
            cut = panel_of(load)
            if cut is not None:
                found.setdefault(cut[0], set()).add(cut[1])
    return tuple((dim, max(lengths)) for dim, lengths in sorted(found.items()) if len(lengths) == 1 and dim in s.dims)


def panel_of(load: Load) -> tuple[str, int] | None:
    """(j, 32) for an access [..., j // 32, ..., j % 32]."""
    match load.indices[-1:]:
        case (Apply("mod", (Var(dim) as place, Const(length) as cut)),) if Apply("floordiv", (place, cut), dt.i64) in load.indices[:-1]:
            return dim, int(length.real)
        case _:
            return None


def _is_dear(expr: Expr) -> bool:
    match expr:
        case Apply(op, args):
            return op in _DEAR or any(_is_dear(a) for a in args)
        case Cast(arg):
            return _is_dear(arg)
        case _:
            return False


def _same_place(accesses: list[Access], dim: str) -> bool:
    return len({a.places.index(dim) for a in accesses}) == 1


GATHERED = -0.5
"""How much less it is worth to run along a dim if an element of a vector is gathered for each lane."""


def _vector(accesses: Sequence[Access], trips: Mapping[str, int], free: list[str], summed: list[str], target: Access) -> str | None:
    """The dim along which most accesses are contiguous."""
    best, chosen = 0.0, None
    for dim in [*free, *summed]:
        score = sum(_contiguity(a, dim) for a in accesses)
        score = score * min(1.0, trips[dim] / 16) if score > 0 else score
        if score > best or (score == best and chosen is not None and dim in free and trips[dim] >= trips[chosen]):
            best, chosen = score, dim
    if chosen is None:
        gathered = [d for d in summed if any(a.uses(d) for a in accesses) and all(_contiguity(a, d) >= GATHERED for a in accesses)]
        chosen = gathered[-1] if gathered else None  # a sum of what is gathered alone: several at once wait less
    if chosen is None and target.places and target.places[-1] in free:
        return target.places[-1]  # what is read lies across: at least the write is contiguous
    return chosen


def along_memory(f: Facts, dim: str) -> bool:
    """True if most accesses are contiguous along `dim`."""
    return sum(_contiguity(a, dim) for a in f.accesses) > 0


def _contiguity(access: Access, dim: str) -> float:
    if not access.uses(dim):
        return 0.0
    if any(dim in u for u in access.used[:-1]):
        return -2.0
    last = access.strides[-1]
    if last is None:
        return GATHERED if len(access.used) == 1 else -1.0
    return 1.0 if dict(last).get(dim) == 1 else -2.0


def _operands(accesses: tuple[Access, ...], vector: str | None, summed: list[str]) -> list[Access]:
    """What the update of a reduction reads along the vector again and again."""
    if vector is None:
        return []
    return [a for a in accesses if not a.write and a.uses(vector) and (vector in summed or any(a.uses(d) for d in summed))]


def _accesses(s: Statement) -> Iterator[Access]:
    yield _access(s, Load(s.target, s.at, s.value.dtype), True)
    for root in s.roots:
        for load in loads_in(root):
            yield _access(s, load, False)
    for r in s.ragged:
        if r.stream:  # statements that walk one stream had better share the loop
            yield _access(s, Load(f"{r.tensor}.walk", (*r.places, Var(r.dim, dt.i64)), dt.i64), False)
        if r.drains:  # a walk of a workspace row reads all of it
            yield _access(s, Load(r.drains, (*r.places, Load("", (), dt.i64)), dt.i64), False)
    for load in s.entered:
        yield _access(s, anywhere(load), False)


def _access(s: Statement, load: Load, write: bool) -> Access:
    dims = frozenset(s.dims)
    strides, places, used = [], [], []
    for index in load.indices:
        inside = frozenset(variables_in(index)) & dims
        linear = linear_in(index, dims)
        if next(loads_in(index), None) is not None and (linear is None or 1 not in linear.values()):
            linear = None  # nothing but what memory says; beside a dim, it is a jump along the dims that it depends on
        known = None if linear is None else tuple(sorted((d, f) for d, f in linear.items() if f))
        used.append(inside)
        strides.append(known)
        places.append(index.name if isinstance(index, Var) and index.name in dims else None)
    panel = panel_of(load)
    if panel is not None and panel[0] in dims:  # along memory, but for a jump from piece to piece
        strides[-1] = ((panel[0], 1),)
        used[:-1] = [u - {panel[0]} for u in used[:-1]]
    return Access(load.array, write, tuple(places), tuple(strides), tuple(used))


def linear_in(index: Expr, dims: frozenset[str]) -> dict[str, int] | None:
    """Factors of the dims in an index; what is not linear counts as a jump (factor 0 is left out, others get a large one)."""
    match index:
        case Var(name):
            return {name: 1} if name in dims else {}
        case Const():
            return {}
        case Cast(arg):
            return linear_in(arg, dims)
        case Apply("add" | "sub" as op, (a, b)):
            left, right = linear_in(a, dims), linear_in(b, dims)
            if left is None or right is None:
                return None
            sign = 1 if op == "add" else -1
            return {d: left.get(d, 0) + sign * right.get(d, 0) for d in {*left, *right}}
        case Apply("mul", (Const(value), a)) | Apply("mul", (a, Const(value))):
            part = linear_in(a, dims)
            return None if part is None else {d: f * int(value.real) for d, f in part.items()}
        case _:
            return {name: 1 << 20 for name in variables_in(index) if name in dims}


def trip(extent: Size | Ragged, hints: Mapping[str, int]) -> int:
    """About how many iterations, 1 at least: from the hints, else a guess."""
    if isinstance(extent, Ragged):
        return max(1, hints.get(f"{extent.tensor}_len{extent.level}", UNKNOWN_FIBRE))
    known = substitute(extent, {s: hints.get(s, UNKNOWN) for s in symbols(extent)})
    return max(1, known) if isinstance(known, int) else UNKNOWN


def conflict(s: Facts, t: Facts) -> bool:
    """True if one statement touches what the other writes."""
    return s.statement.target in t.arrays or t.statement.target in s.arrays


def conflicts(s: Facts, t: Facts) -> Iterator[tuple[Access, Access]]:
    """Pairs of accesses of one array, one of them a write."""
    if not conflict(s, t):
        return
    for a in s.accesses:
        for b in t.accesses:
            if a.array == b.array and (a.write or b.write):
                yield a, b


def reuses(s: Facts, t: Facts, ds: str, dt: str) -> bool:
    """True if both read an array at the same place of the loop that puts `ds` beside `dt`."""
    return any(
        a.array == b.array and any(p == ds and q == dt for p, q in zip(a.places, b.places)) for a in s.accesses for b in t.accesses
    )
