"""The polyhedral level: statements over integer sets, and one schedule tree.

Grammar::

    Scop       = arrays, statements in program order, parameters with context, schedule tree (None before scheduling)
    Statement  = for all points of domain: target[at] = value            (monoid None)
                                           target[at] = target[at] monoid value
    Relation   = isl map text from statement instances to array elements; `must` is False where the instance may not exist
                 or the element is over-approximated
    Expr       = scalar Expr: Var is a dim of the statement or a parameter; Load indexes *logical* dimensions of an Array

Ragged dimensions: a compressed level under fixed parents becomes an *opaque dim* q, the position relative to the begin
of its fibre: 0 <= q < hull, with `hull` a parameter (the longest fibre, over-approximated). Arrays stored along it are
*logical ragged arrays*: `A.val[i, q]`, `A.crd1[i, q]` have extents (n, Ragged(A, 1)); their physical index
is formed when loops are flattened: `A.pos1[i] + q`. `A.pos1` has extent (n + 1,) and is read by no statement.

An indirect read `B[k, j]` with k = A.crd1[i, q] is over-approximated: its relation names any row of B; its Load keeps
the exact index expression. Such indices are checked at run time; affine ones are proved here.

Streams: a ragged dim may walk what no array lists: the merge of several fibres, or the coordinates that a workspace row holds.
`Scop.streams` says of what. For stream J the scop has virtual arrays, of role "stream", along J's fibres: `J.next1[i, t]` is the
coordinate, `J.at0[i, t]` where it is in the fibre of part 0, `J.has0[i, t]` whether it is there. A walk of a stream stays serial.

A workspace, of role "workspace", is an array that notes which elements were updated since it was drained; one that was not
holds nothing: the first update sets it. A statement that walks a workspace row reads all of that row. One that is only asked for
elements of a fibre (`Located`) is no list of what it holds: elements of that fibre are set before they are updated.

A grouping puts what one statement walks in the order of groups: a counting statement walks the same first, and between the two
stand the positions, one group after another. Its array of cursors has one for each group: what was counted so far, then where
the next element goes.

Temporaries start as whole arrays. `contract` drops the dimensions that a shared loop fixes and says in `allocations` how many
band members enclose what is left: 0 means one array for the kernel, d > 0 a fresh one in each iteration of the d-th loop.

Marks in the schedule tree, each directly above the band member (a band of one dimension) it speaks of:

    parallel              distribute this loop over threads
    vector                vectorise this loop: its body runs in lanes, loops inside are uniform; reductions get partial sums
    jam=N                 unroll N times and jam into the loops inside
    bind=A.1              under this mark the fibre length `A_len1` of level 1 of A is known: the loops that own it are above
    extern=NAME           the leaf below is a library call
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, final

from polyai.scalar import dtype as dt
from polyai.scalar.dtype import DType
from polyai.scalar.expr import Expr, Load, Var
from polyai.shapes.expr import Size
from polyai.term.late import late
from polyai.term.node import node, walk

if TYPE_CHECKING:
    import islpy as isl
else:
    isl = late("islpy")

PARALLEL, VECTOR, JAM, BIND, EXTERN = "parallel", "vector", "jam", "bind", "extern"


@node
class Ragged:
    """The extent of an array dimension that is the length of a fibre: level `level` of `tensor` under the dims before."""

    tensor: str
    level: int


@node
class Array:
    """An array of the scop, by its logical dimensions. `role`: "input", "output", "temporary", "workspace" or "stream". `taken`: a
    temporary that holds zeros at first; a statement that reads an element, and is no update of it, leaves zero there."""

    name: str
    dtype: DType
    extents: tuple[Size | Ragged, ...]
    role: str
    taken: bool = False


@node
class RaggedDim:
    """Dim `dim` of a statement walks a fibre: level `level` of `tensor` below `parents` (dims of the same statement, outermost
    first). `unique`: no coordinate occurs twice in a fibre. `place`: where the fibre is, an index for each level above that has
    dims; () if these are just the parents. `drains`: the workspace whose row this dim walks.

    If level `cut` is cut into `pieces` of about equal length, `piece` is the dim that counts them, the first of `parents`; a dim of
    that level then counts from where its fibre and the piece begin to share positions."""

    dim: str
    tensor: str
    level: int
    parents: tuple[str, ...]
    unique: bool = True
    place: tuple[Expr, ...] = ()
    stream: bool = False
    drains: str = ""
    piece: str = ""
    pieces: int = 0
    cut: int = 0

    @property
    def places(self) -> tuple[Expr, ...]:
        """`place`, or the parents that are dims of levels."""
        return self.place or tuple(Var(p, dt.i64) for p in self.parents if p != self.piece)

    @property
    def length(self) -> str:
        """The isl parameter that stands for the fibre's length under a bind mark."""
        return length_of(self.tensor, self.level)

    @property
    def hull(self) -> str:
        """The isl parameter that bounds every fibre's length."""
        return hull_of(self.tensor, self.level)

    @property
    def fibre(self) -> Ragged:
        """The extent that goes with this dim."""
        return Ragged(self.tensor, self.level)


@node
class Relation:
    """One access. `text` is isl: `[n] -> { S[i, q, j] -> B[r, j] : 0 <= r < n }`."""

    array: str
    text: str
    must: bool


@node
class Statement:
    """One statement. `dims` in the original (program) order; `domain` is isl text over `dims` and the hull. `extents`: how far
    each dim runs from 0, where the domain is such a box. `pushes`: (array, value) stored at the position that the target held
    before: the target is then a cursor that moves on by 1. `when`: a condition for the instance to run. The instance runs only if each fibre of `nonempty`, whose `dim` is
    none of the statement's, holds something.

    `groups`: the grouping whose cursors are the target. `once`: the coordinate of the instance within its group; an instance whose
    coordinate is that of the group's instance before moves no cursor, and what it pushes last is added to what was pushed there."""

    name: str
    dims: tuple[str, ...]
    ragged: tuple[RaggedDim, ...]
    domain: str
    target: str
    at: tuple[Expr, ...]
    value: Expr
    monoid: str | None
    write: Relation
    reads: tuple[Relation, ...]
    extents: tuple[Size | Ragged, ...] = ()
    pushes: tuple[tuple[str, Expr], ...] = ()
    nonempty: tuple[RaggedDim, ...] = ()
    groups: str = ""
    once: Expr | None = None
    when: Expr | None = None

    @property
    def roots(self) -> tuple[Expr, ...]:
        """All expressions that an instance evaluates."""
        return (self.value, *self.at, *(value for _, value in self.pushes), *(e for e in (self.once, self.when) if e is not None))

    @property
    def entered(self) -> tuple[Load, ...]:
        """What places of fibres are read from, beside coordinates, which walks read anyway. Such a place is wanted where the fibre is
        bound, which may be before other statements of the same loops: all of the array must be there."""
        found = (n for r in self.fibres for e in r.place for n in walk(e) if isinstance(n, Load) and "." not in n.array)
        return tuple(dict.fromkeys(found))

    @property
    def fibres(self) -> tuple[RaggedDim, ...]:
        """The fibres whose lengths the statement's loops or its guard need."""
        return (*self.ragged, *self.nonempty)


@node
class Allocation:
    """Temporary `array` comes to life in each iteration of the `depth`-th loop around its statements; 0: once per kernel."""

    array: str
    depth: int


@node
class Merge:
    """The coordinates of fibres of `parts` = (tensor, level) under the same parents: those where each clause (numbers of parts) has
    one that is stored. Parts are ordered and hold no coordinate twice."""

    parts: tuple[tuple[str, int], ...]
    clauses: tuple[tuple[int, ...], ...]

    def always(self, part: int) -> bool:
        """True if the part is stored at every coordinate of the stream."""
        return (part,) in self.clauses


@node
class Drain:
    """The coordinates that a row of `workspace` holds, in order; the row is empty afterwards."""

    workspace: str


@node
class Located:
    """The coordinates of a fibre of `part` = (tensor, level) that the row of `workspace` under the same parents holds: the fibre is
    walked, and each of its coordinates is looked for in the row. The fibre is ordered and holds no coordinate twice."""

    part: tuple[str, int]
    workspace: str

    @property
    def parts(self) -> tuple[tuple[str, int], ...]:
        """What is walked."""
        return (self.part,)


@node
class Stream:
    """What the ragged dims of `name` walk, `level` levels below the root, one fibre for each of `rows`. `extent` bounds the
    coordinates. `assembled`: positions are known (`J.pos1` is an input), so that arrays may lie along it. `packed`: they are bounds
    (see `tensor.nodes.Program`). `inner`: the extents of the coordinates that are listed beside those of `level`, of the levels below
    it: `J.next1`, `J.next2` for a list of pairs."""

    name: str
    level: int
    rows: Size
    extent: Size
    source: Merge | Drain | Located
    assembled: bool = False
    packed: bool = False
    inner: tuple[Size, ...] = ()

    @property
    def places(self) -> Size:
        """How many coordinates a fibre may hold: those of all levels that are listed together."""
        out = self.extent
        for extent in self.inner:
            out = out * extent
        return out

    @property
    def cuts(self) -> str:
        """The array of the rows at which the parts of a packed stream begin, and the number of rows."""
        return f"{self.name}.cuts"

    @property
    def part(self) -> str:
        """The size that says how many elements a part of a packed stream may store."""
        return f"{self.name}.part"

    @property
    def chunks(self) -> str:
        """The size that says how many parts the rows of a packed stream have."""
        return f"{self.name}.chunks"

    @property
    def ends(self) -> str:
        """The array of the positions at which the rows of a packed stream end."""
        return f"{self.name}.end{self.level}"


@node
class Grouping:
    """Statement `count` counts in the array `cursors` how much each of `groups` gets, `fill` stores it: coordinates below `extent`
    in `name.crd1`, values in `name.val`, and where each group begins in `name.pos1`. Both walk what `source` stores. What is pushed
    at one coordinate is combined by `monoid`; None: each is kept. `ordered`: the walk meets the coordinates of a group in order;
    otherwise that is checked, if there is a monoid."""

    name: str
    groups: Size
    extent: Size
    source: str
    cursors: str
    count: str
    fill: str
    monoid: str | None
    ordered: bool = True


@final
class Schedule:
    """A schedule tree (`tree.Tree`), and its form in isl, which is made when somebody asks for it: isl takes a millisecond for each
    statement to read it, and most loops are read off the tree itself."""

    __slots__ = ("_isl", "_make", "tree")

    def __init__(self, tree: Any, make: Callable[[], isl.Schedule]) -> None:
        self.tree, self._make = tree, make
        self._isl: isl.Schedule | None = None

    @property
    def isl(self) -> isl.Schedule:
        """isl's schedule, which holds the same tree."""
        if self._isl is None:
            self._isl = self._make()
        return self._isl

    def __str__(self) -> str:
        return str(self.isl)


@node
class Scop:
    """A static control part. `context` is isl text over the parameters: facts about sizes. `sizes` says which size a parameter
    stands for; hulls and fibre lengths stand for none. Only `schedule` changes by passes that schedule; `contract` changes
    arrays, accesses and `allocations`."""

    name: str
    parameters: tuple[str, ...]
    context: str
    arrays: tuple[Array, ...]
    statements: tuple[Statement, ...]
    schedule: Schedule | None = None
    sizes: tuple[tuple[str, Size], ...] = ()
    allocations: tuple[Allocation, ...] = ()
    streams: tuple[Stream, ...] = ()
    groupings: tuple[Grouping, ...] = ()

    def grouping(self, statement: Statement) -> Grouping | None:
        """The grouping that a statement counts or fills."""
        return next((g for g in self.groupings if g.name == statement.groups), None)

    def stream(self, name: str) -> Stream | None:
        """The stream called `name`, if it is one."""
        return next((s for s in self.streams if s.name == name), None)

    def array(self, name: str) -> Array:
        return next(a for a in self.arrays if a.name == name)

    def statement(self, name: str) -> Statement:
        return next(s for s in self.statements if s.name == name)


def length_of(tensor: str, level: int) -> str:
    """The parameter for the length of the fibre at hand."""
    return f"{isl_name(tensor)}_len{level}"


def hull_of(tensor: str, level: int) -> str:
    """The parameter that bounds all fibre lengths."""
    return f"{isl_name(tensor)}_max{level}"


_RESERVED = re.compile(
    r"(and|or|not|exists|implies|mod|floor|ceil|floord|ceild|min|max|true|false|rat|infty|infinity|NaN|int"  # isl's words
    r"|[cdr]\d+"  # its loops, and what stands for a dimension or for an index that memory holds
    r"|\w+_(len|max)\d+|\w+_nnz\d*)"  # parameters of fibres, and what a matrix stores
)


def isl_name(name: str) -> str:
    """`name` as isl text takes it: ASCII letters, digits and underscores, and nothing that has a meaning there. `A.val` becomes `A_val`,
    a size that is called `c0` or `max` becomes `c0_` or `max_`."""
    if name.isascii() and name.isidentifier():
        return f"{name}_" if _RESERVED.fullmatch(name) else name
    return "".join(c if c.isascii() and (c.isalnum() or c == "_") else "_" if c == "." else f"_u{ord(c):x}" for c in name)
