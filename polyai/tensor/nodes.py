"""The tensor level: a program is a straight list of comprehensions.

Grammar::

    Program    = inputs, body: Step*, outputs: names, facts
    Step       = Comprehension | Scatter | Extern | Cond | While
    Comprehension  target[indices] = body                 for all indices (in `within`, if given)
    Scatter        target = base; target[at] monoid= body for all indices in lexicographic order
    Body       = scalar Expr, with two more readings:
                   Load(tensor, indices)                  an access; indices are affine in index variables and sizes,
                                                          or contain further Loads (a gather)
                   Reduce(monoid, over, body, within)     a reduction, anywhere in a body
                   Var(name)                              an index variable in scope, or a size
    Within     = (tensor, indices): the coordinate tuple `indices` is stored in `tensor`

Meaning of sparsity: an element of a sparse tensor that is not stored is exactly zero. `within` restricts iteration to
stored coordinates. The frontend writes `within` where the restriction is the meaning (softmax along a sparse row); the
pass `restrict` adds it where the annihilator of a product proves that nothing is lost.

A step may read its own target at lexicographically earlier indices (a recurrence, as in a cumulative sum); a read of an
earlier element outside the target's range must be guarded by `where`. `where` is lazy at this level: a Load in the branch
not taken may be out of range (padding, concatenation).
"""

from __future__ import annotations

from typing import Union

from polyai.scalar.dtype import DType
from polyai.scalar.expr import Apply, Cast, Const, Load, Var
from polyai.shapes.expr import Size
from polyai.sparse.format import Format
from polyai.term.node import node


@node
class Index:
    """An index variable that runs over 0 <= name < extent. Names are unique in a program."""

    name: str
    extent: Size


@node
class Pattern:
    """Stored coordinates borrowed from the sparse input `owner`: dimension d of the tensor is dimension dims[d] of it."""

    owner: str
    dims: tuple[int, ...]


@node
class TensorType:
    """`format` and `pattern` are None for a dense tensor. An input's pattern is its own: Pattern(name, (0, 1, ...))."""

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
    """target = base, then target[at] = monoid(target[at], body) for all indices; monoid None overwrites, last one wins."""

    target: str
    type: TensorType
    base: str
    monoid: str | None
    indices: tuple[Index, ...]
    at: tuple[Body, ...]
    body: Body
    within: tuple[Within, ...] = ()


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


Step = Union[Comprehension, Scatter, Extern, Cond, While]


@node
class Input:
    """An argument of the program. `unique`: its stored coordinates must not repeat, which kernels check as they read them."""

    name: str
    type: TensorType
    unique: bool = False


@node
class Fact:
    """`size >= 0` if relation is "nonnegative", `size == 0` if "zero": what holds for the program's symbolic sizes."""

    size: Size
    relation: str


@node
class Program:
    """`outputs` names inputs or targets. Every symbol in a shape is the extent of an input's dimension or a count
    `A.nnz` of a sparse input A, or one of `sizes`; a symbol is at least 0 unless `facts` say more."""

    name: str
    inputs: tuple[Input, ...]
    body: tuple[Step, ...]
    outputs: tuple[str, ...]
    facts: tuple[Fact, ...] = ()
    sizes: tuple[str, ...] = ()


def targets_of(step: Step) -> tuple[str, ...]:
    """The names a step defines."""
    match step:
        case Comprehension() | Scatter():
            return (step.target,)
        case Extern() | Cond() | While():
            return step.targets


def types_of(program: Program) -> dict[str, TensorType]:
    """The type of every tensor of the program by name."""
    out = {i.name: i.type for i in program.inputs}
    for step in program.body:
        match step:
            case Comprehension() | Scatter():
                out[step.target] = step.type
            case Extern() | Cond() | While():
                out.update(zip(step.targets, step.types))
    return out


def nnz_of(tensor: str) -> str:
    """The symbol that counts the stored elements of the sparse input `tensor`."""
    return f"{tensor}.nnz"
