"""The loop level.

Grammar::

    Kernel = params, body: Stmt, sites                     one host function; parallel loops become tasks when outlined
    Stmt   = Block(stmts)
           | For(var, lower, upper, step, body, kind)      kind: serial | parallel | vector | jam | copy | stream
           | While(condition, body)
           | If(condition, then, orelse)
           | Let(name, value)                              visible in the rest of its block
           | Alloc(name, dtype, extents, space, zero)      visible in the rest of its block
           | Store(array, indices, value, mask)
           | Check(ok, site)                               leave the kernel with site's error if `ok` is false
           | Call(function, args)
           | Turn(register, turns, counts, at, count)      counts[at] = count; register = the sum of those before, or -1
           | Prefetch(array, index, near)                  a hint: this element is read soon; may name any index
    Expr   = scalar Expr
           | Ramp(base, stride, lanes)                     base, base + stride, ... : a vector of i64
           | MaskedLoad(array, indices, mask, dtype)       lanes with a false mask read nothing and yield zero
           | Pack(values)                                  the vector of the given scalars
           | Horizontal(monoid, value)                     all lanes of a vector combined, in a fixed tree

Before `flatten` an array may have several indices, one per extent; after it every Load and Store has one index, or none
for a register. Scalars combine with vectors by repetition; a Let of a vector value names a vector. Registers are Allocs of
space "register": mutable scalars (or vectors of `lanes` lanes) that live in machine registers. Space "thread" is a buffer
of its own for each thread, "kernel" one buffer shared by all; both come from the arena.
"""

from __future__ import annotations

from enum import Enum
from typing import Union

from polyai.loop.site import Site as Site
from polyai.scalar.dtype import DType
from polyai.scalar.expr import Apply as Apply
from polyai.scalar.expr import Cast as Cast
from polyai.scalar.expr import Const as Const
from polyai.scalar.expr import Load as Load
from polyai.scalar.expr import Var as Var
from polyai.term.node import node


class Kind(Enum):
    """How a loop runs."""

    SERIAL = "serial"
    PARALLEL = "parallel"
    VECTOR = "vector"
    JAM = "jam"
    COPY = "copy"
    STREAM = "stream"


class Space(Enum):
    """Where an allocation lives."""

    REGISTER = "register"
    THREAD = "thread"
    KERNEL = "kernel"


@node
class Ramp:
    """The vector base, base + stride, ..., of `lanes` i64 elements."""

    base: LoopExpr
    stride: int
    lanes: int


@node
class MaskedLoad:
    """A Load that touches memory only where `mask` is true and yields zero elsewhere; scalar or vector."""

    array: str
    indices: tuple[LoopExpr, ...]
    mask: LoopExpr
    dtype: DType


@node
class Pack:
    """The vector of the given scalars, all of type `dtype`."""

    values: tuple[LoopExpr, ...]
    dtype: DType


@node
class Horizontal:
    """The lanes of `value` combined by `monoid`; a scalar."""

    monoid: str
    value: LoopExpr
    dtype: DType


LoopExpr = Union[Const, Var, Load, Apply, Cast, Ramp, MaskedLoad, Pack, Horizontal]


@node
class Block:
    stmts: tuple[Stmt, ...]


@node
class For:
    """for (var = lower; var < upper; var += step). `weight` names the `pos` array whose differences measure the work of
    one iteration of a parallel loop (None: all iterations alike), `cost` the estimated scalar operations per unit of work; 0: there are so
    few that nothing depends on how well it is translated.
    `jam` is the number of copies a JAM loop is unrolled to, and the most vectors at once of a VECTOR loop (1: no limit).
    A COPY loop moves elements that follow each other to a place where they do, `C[x + var] = D[y + var]`, and is done by blocks; a
    STREAM loop is one whose target is so large that it goes past the caches.
    `stretch` of a parallel loop names the end of several iterations that are run at once: the body runs once for
    var..stretch, and does for them what it would do for each."""

    var: str
    lower: LoopExpr
    upper: LoopExpr
    body: Stmt
    kind: Kind = Kind.SERIAL
    step: int = 1
    weight: str | None = None
    cost: int = 1
    jam: int = 1
    stretch: str | None = None


@node
class While:
    condition: LoopExpr
    body: Stmt


@node
class If:
    condition: LoopExpr
    then: Stmt
    orelse: Stmt | None = None


@node
class Let:
    name: str
    value: LoopExpr


@node
class Alloc:
    """`extents` in elements, outermost first; () for a scalar. `lanes` > 1 makes a vector register. `zero`: a buffer for each
    thread that holds zeros when the parallel loop around it starts; what an iteration leaves there, the next one finds."""

    name: str
    dtype: DType
    extents: tuple[LoopExpr, ...]
    space: Space
    lanes: int = 1
    zero: bool = False


@node
class Store:
    """array[indices] = value, where `mask` is true. A register has no indices."""

    array: str
    indices: tuple[LoopExpr, ...]
    value: LoopExpr
    mask: LoopExpr | None = None


@node
class Check:
    """Leave with the error of sites[site] unless `ok` (all lanes of it) is true. `culprit` is reported with the error."""

    ok: LoopExpr
    site: int
    culprit: LoopExpr | None = None


@node
class Call:
    """A library function by its name in the extern table; args are array names or scalars."""

    function: str
    args: tuple[LoopExpr | str, ...]


@node
class Turn:
    """Where the results of an iteration of a parallel loop go, if they follow those of the iterations before.

    counts[at] becomes `count`. Once all of counts[0..at] are known, turns[at + 1] is their sum, whoever writes it; turns[0] is 0,
    what is not known is negative. `register` becomes turns[at], or -1 if that is not known after a little while. `turns` has
    `pieces` + 1 elements. A parallel loop with a Turn runs each iteration as a piece of its own, and begins them in order."""

    register: str
    turns: str
    counts: str
    at: LoopExpr
    count: LoopExpr
    pieces: LoopExpr


@node
class Prefetch:
    """Bring the line of array[index] nearer. Changes nothing, and touches no memory: the index may be out of range. `near`: as
    near as it goes, else into the second-level cache."""

    array: str
    index: LoopExpr
    near: bool = True


Stmt = Union[Block, For, While, If, Let, Alloc, Store, Check, Call, Turn, Prefetch]


@node
class Param:
    """A parameter of the kernel in calling order: an i64 size (`dtype` i64, `extents` None) or an array.

    `role`: "size", "input", "output". `writable` is true for outputs. `extents` are the logical extents as size
    expressions in text form; `length` is the name of the i64 parameter or size text that bounds the flat index."""

    name: str
    dtype: DType
    role: str
    extents: tuple[LoopExpr, ...] | None = None


@node
class Kernel:
    """A host function. `sites` are the errors its checks can raise, by number."""

    name: str
    params: tuple[Param, ...]
    body: Stmt
    sites: tuple[Site, ...] = ()
