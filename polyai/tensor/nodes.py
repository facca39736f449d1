"""The tensor level: a program is a straight list of comprehensions.

Grammar::

    Program    = inputs, body: Step*, outputs: names, facts
    Step       = Comprehension | Scatter | Join | Select | Spread | Listing | Extern | Cond | While
    Comprehension  target[indices] = body                 for all indices (in `within`, if given)
    Scatter        target = base; target[at] monoid= body for all indices in lexicographic order
    Join           target[indices] = the coordinates where, in every clause, one of its parts is stored
    Select         target[indices] = the coordinates whose last index is `at`, a function of the others
    Spread         target[indices] = the coordinates (i, t) with t in the i-th of consecutive runs, `length` long each
    Listing        target[k] = the k-th element that `of` stores
    Body       = scalar Expr, with two more readings:
                   Load(tensor, indices)                  an access; indices are affine in index variables and sizes,
                                                          or contain further Loads (a gather)
                   Reduce(monoid, over, body, within)     a reduction, anywhere in a body
                   Var(name)                              an index variable in scope, or a size
    Within     = (tensor, indices): the coordinate tuple `indices` is stored in `tensor`

Meaning of sparsity: an element of a sparse tensor that is not stored is exactly zero. `within` restricts iteration to
stored coordinates. The frontend writes `within` where the restriction is the meaning (softmax along a sparse row); the
pass `restrict` adds it where the annihilator of a product proves that nothing is lost.

Patterns are borrowed from sparse inputs, or made: a Join is the intersection of unions of patterns, and holds no values; a
Scatter without a base stores just the coordinates it touches, the projection of what it runs over. Within a Join, its parts
may be read: where one is not stored, its element is a structural zero. A Select holds no values either, and is never stored:
within it a row of another tensor is entered by what it selects. `sum(r, k) A[r, k] * X[k, j] within S(i, r), A(r, k)` with
`S = select rows[i]` is A[rows] @ X.

A Listing is where data decide a size: it has as many elements as are stored. `x[mask]` is `x[at[k]]`, with `at` the listing of the
coordinates i along the pattern `P[where(mask[i], i, -1)]`.

A step may read its own target at lexicographically earlier indices (a recurrence, as in a cumulative sum); a read of an
earlier element outside the target's range must be guarded by `where`. `where` is lazy at this level: a Load in the branch
not taken may be out of range (padding, concatenation).
"""

from __future__ import annotations

from typing import Union

from polyai.scalar.dtype import DType
from polyai.scalar.expr import Apply, Cast, Const, Load, Var
from polyai.shapes.expr import Size
from polyai.shapes.guard import Guard
from polyai.sparse.format import Format
from polyai.term.node import node


@node
class Index:
    """An index variable that runs over 0 <= name < extent. Names are unique in a program."""

    name: str
    extent: Size


@node
class Pattern:
    """Stored coordinates borrowed from `owner`, a sparse input or a pattern that the program makes: dimension d of the tensor
    is dimension dims[d] of it."""

    owner: str
    dims: tuple[int, ...]


@node
class TensorType:
    """`format` and `pattern` are None for a dense tensor. The pattern of a sparse input, of a Join and of a Scatter without a base
    is its own: Pattern(name, (0, 1, ...)); these have a format: how they are stored, or will be."""

    dtype: DType
    shape: tuple[Size, ...]
    format: Format | None = None
    pattern: Pattern | None = None

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def is_sparse(self) -> bool:
        return self.pattern is not None


@node
class Within:
    """The coordinates named `indices` (one index variable per dimension of `tensor`) are stored in `tensor`."""

    tensor: str
    indices: tuple[str, ...]


@node
class Reduce:
    """`monoid` over all values of `body` for `over`. `dtype` is the result's and the accumulator's."""

    monoid: str
    over: tuple[Index, ...]
    body: Body
    dtype: DType
    within: tuple[Within, ...] = ()


Body = Union[Const, Var, Load, Apply, Cast, Reduce]


@node
class Comprehension:
    """target[indices] = body. If `type` is sparse, `within` holds the pattern's owner and nothing else is stored."""

    target: str
    type: TensorType
    indices: tuple[Index, ...]
    body: Body
    within: tuple[Within, ...] = ()


@node
class Scatter:
    """target = base, then target[at] = monoid(target[at], body) for all indices; monoid None overwrites, last one wins.

    Without a base the target is sparse, owns its pattern, and stores just the coordinates that some point touches (of a format whose last
    levels are dense: the blocks that some point touches). Without a monoid
    as well (and not grouped), no two points touch the same one, and each row is touched in order: rows are counted first, then what is
    found is pushed to them. Then a place may be `where(condition, place, -1)`: points without the condition touch nothing.

    `grouped`: such a scatter runs over all that one pattern stores, and puts it in another order: grouped by what the target
    lists outside, in the order of the walk inside. With a monoid, points of one coordinate follow each other within a group, and
    are combined; without one each is kept: the target is a list that may hold a coordinate several times.

    A target without a base may also lie along a pattern that another tensor owns, which holds every coordinate that some point touches:
    it is stored there, and zero where nothing touches it.

    `requires`: what must hold of the number of elements once it is known."""

    target: str
    type: TensorType
    base: str | None
    monoid: str | None
    indices: tuple[Index, ...]
    at: tuple[Body, ...]
    body: Body
    within: tuple[Within, ...] = ()
    grouped: bool = False
    requires: tuple[Guard, ...] = ()


@node
class Join:
    """The coordinates `indices` where every clause has a part that is stored: A(i,j) & B(i,j) has two clauses of one part,
    A(i,j) | B(i,j) one clause of two. The target owns its pattern and holds no values."""

    target: str
    type: TensorType
    indices: tuple[Index, ...]
    clauses: tuple[tuple[Within, ...], ...]

    @property
    def parts(self) -> tuple[Within, ...]:
        """All parts, each once, in the order of the clauses."""
        return tuple(dict.fromkeys(w for clause in self.clauses for w in clause))


@node
class Select:
    """The coordinates (i, r) with r = at, an integer expression of i, which may gather; of any number of indices, the last one is
    selected. The target owns its pattern and holds no values."""

    target: str
    type: TensorType
    indices: tuple[Index, ...]
    at: Body


@node
class Spread:
    """The coordinates (i, t) where t lies in run i: runs follow each other from 0 on, and run i has `length` elements, an integer
    expression of i that must not be negative. The target owns its pattern and holds no values; the last extent is its own count."""

    target: str
    type: TensorType
    indices: tuple[Index, ...]
    length: Body


@node
class Listing:
    """target[k] = the k-th element that the sparse tensor `of` stores, in the order of storage: a dense vector of `nnz_of(owner)`."""

    target: str
    type: TensorType
    of: str


@node
class Extern:
    """A call of a library function of the table in `runtime.externs`: what has no affine form, or a large GEMM."""

    targets: tuple[str, ...]
    types: tuple[TensorType, ...]
    function: str
    args: tuple[str, ...]
    attributes: tuple[tuple[str, int | float | str | bool], ...] = ()


@node
class Cond:
    """targets = then(args) if predicate else orelse(args). Regions see only their inputs, bound to `args` in order."""

    targets: tuple[str, ...]
    types: tuple[TensorType, ...]
    predicate: str
    args: tuple[str, ...]
    then: Program
    orelse: Program


@node
class While:
    """state = init; while condition(state, args): state = body(state, args); targets = state.

    `condition` has one scalar bool output. Both regions take the state first, then `args`.
    """

    targets: tuple[str, ...]
    types: tuple[TensorType, ...]
    init: tuple[str, ...]
    args: tuple[str, ...]
    condition: Program
    body: Program


Step = Union[Comprehension, Scatter, Join, Select, Spread, Listing, Extern, Cond, While]


@node
class Input:
    """An argument of the program. `unique`: its stored coordinates must not repeat, which kernels check as they read them.
    `below`: its integers are known to be in 0 <= value < below, because they were checked and cannot change."""

    name: str
    type: TensorType
    unique: bool = False
    below: Size | None = None


@node
class Fact:
    """`size >= 0` if relation is "nonnegative", `size == 0` if "zero": what holds for the program's symbolic sizes."""

    size: Size
    relation: str


@node
class Program:
    """`outputs` names inputs or targets. Every symbol in a shape is the extent of an input's dimension or a count
    `A.nnz` of what owns a pattern, or one of `sizes`; a symbol is at least 0 unless `facts` say more. `assembled`: patterns that
    the program makes and whose fibres the caller has counted: `J.pos1` is an argument, so that arrays may lie along them. `packed`:
    those of them whose `J.pos1` bounds the fibres only. Rows lie one after another, and are filled in the parts that the
    argument `J.cuts` gives, of at most `J.part` bounded elements; the result `J.end1` says where each row ends. `complete`: patterns of
    arguments that hold every coordinate which the sums along them reach."""

    name: str
    inputs: tuple[Input, ...]
    body: tuple[Step, ...]
    outputs: tuple[str, ...]
    facts: tuple[Fact, ...] = ()
    assembled: tuple[str, ...] = ()
    sizes: tuple[str, ...] = ()
    packed: tuple[str, ...] = ()
    complete: tuple[str, ...] = ()


def targets_of(step: Step) -> tuple[str, ...]:
    """The names a step defines."""
    match step:
        case Comprehension() | Scatter() | Join() | Select() | Spread() | Listing():
            return (step.target,)
        case Extern() | Cond() | While():
            return step.targets


def types_of(program: Program) -> dict[str, TensorType]:
    """The type of every tensor of the program by name."""
    out = {i.name: i.type for i in program.inputs}
    for step in program.body:
        match step:
            case Comprehension() | Scatter() | Join() | Select() | Spread() | Listing():
                out[step.target] = step.type
            case Extern() | Cond() | While():
                out.update(zip(step.targets, step.types))
    return out


THREADS = "pool.threads"
"""The size that says how many threads run the kernel at hand: for work that is cut as finely as they are many."""


def nnz_of(tensor: str) -> str:
    """The symbol that counts the stored elements of `tensor`, which owns its pattern."""
    return f"{tensor}.nnz"


def is_select(type: TensorType) -> bool:
    """True for the type of a selection."""
    return type.format is not None and type.format.name == "select"


def regroups(step: Step) -> bool:
    """True for a scatter that puts stored elements in another order."""
    return isinstance(step, Scatter) and step.grouped


def pushes(step: Step) -> bool:
    """True for a scatter that pushes what it finds to rows that were counted."""
    return isinstance(step, Scatter) and owns_a_pattern(step) and step.monoid is None and not step.grouped


def owns_a_pattern(step: Step) -> bool:
    """True for the steps that make a pattern: joins, selections, spreads, and scatters without a base."""
    return isinstance(step, (Join, Select, Spread)) or (isinstance(step, Scatter) and step.base is None and not lies_along(step))


def lies_along(step: Step) -> bool:
    """True for a scatter whose target is stored along a pattern that another tensor owns."""
    return isinstance(step, Scatter) and step.type.pattern is not None and step.type.pattern.owner != step.target
