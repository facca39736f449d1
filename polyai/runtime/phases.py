"""Native calls of several kernels, of which the last one fills a sparse result.

    J = A + B       kernel 0 bounds the rows of J; they are cut into parts; there is room for as much as the bounds say; kernel 1 fills
    J = A as CSC    one kernel; J stores what A stores

A call that is not as the first one was, that needs much memory, or whose kernels find something wrong goes to Python, which
looks at it again.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from polyai.runtime.arguments import Arg, Arguments, Bundle, Guard, Source
from polyai.runtime.cpython import layout_holds
from polyai.runtime.dispatch import RELEASE_ABOVE, native
from polyai.runtime.dispatch_code import KEPT, ROOM, Op
from polyai.runtime.kernel import Kernel
from polyai.runtime.launch import Runtime
from polyai.runtime.shared import Shared
from polyai.runtime.staging import PART, SMALL
from polyai.runtime.threads import JOB
from polyai.scalar import dtype as dt
from polyai.scalar.dtype import DType, to_numpy
from polyai.term.node import node


@node
class Phase:
    """A kernel of the call and the sources of its slots. What the call makes is ("made", name)."""

    kernel: Kernel
    slots: tuple[Source, ...]


@node
class PhasesSpec:
    """Everything about one way to call the kernels of one sparse result.

    rows            how many rows (columns, of CSC) the result has
    index           the type of its index arrays
    within          how much it stores at most, if one kernel makes it; None if the first of two bounds its rows
    along           the types of its coordinates and values, in the order of their names in `names`

    The kernels know what is made by these names: "pos1" bounds or positions, "cuts", "chunks", "part", "end1" the parts, "nnz" the
    room, and those of `names`.
    """

    args: tuple[Arg, ...]
    phases: tuple[Phase, ...]
    rows: Source
    index: DType
    along: tuple[DType, ...]
    names: tuple[str, ...]
    within: Source | None = None
    guards: tuple[Guard, ...] = ()
    work: tuple[tuple[Source, ...], ...] = ()
    bundles: tuple[Bundle | None, ...] = ()

    @property
    def nargs(self) -> int:
        """How many arguments a call has."""
        return len(self.args)

    @property
    def width(self) -> int:
        """Bytes of one stored element."""
        return sum(dtype.bytes for dtype in self.along)


class Phases(Arguments):
    """The program of a spec. Its results are the positions, then what lies along them."""

    def __init__(self, spec: PhasesSpec, token: tuple[ContextVar[Any], object] | None, runtime: Runtime, threads: int) -> None:
        super().__init__(spec, token)
        self.runtime, self.threads, self.most = runtime, threads, 0
        for product in spec.work:
            for source in product:
                self._do(Op.FACTOR, self.place(source))
            self._do(Op.TERM)
        for parallel in sorted({p.kernel.signature.parallel for p in spec.phases}):
            pool = runtime.session(threads if parallel else 1).pool
            if pool is not None:
                self._do(Op.READY, pool.address + JOB["ready"])
        rows, ends = self.place(spec.rows), self.number()
        self._do(Op.ADD, rows, 1, d=ends)
        self.outputs, self.results = self._objects, 1 + len(spec.along)
        self._objects += self.results
        if spec.within is None:
            total = self._bounded(spec, rows, ends)
        else:
            total = self.place(spec.within)
            self._fits(spec, total)
            self._known["made", "pos1"] = self._new(spec.index, ends, self.outputs)
        self._known["made", "nnz"] = total
        for n, (dtype, name) in enumerate(zip(spec.along, spec.names)):
            self._known["made", name] = self._new(dtype, total, self.outputs + 1 + n, KEPT)
        self._run(spec.phases[-1])
        if spec.within is None:
            stored = self.number()
            self._do(Op.READ, self._known["made", "positions"], rows, spec.index.bytes, stored)
            for n in range(len(spec.along)):
                self._do(Op.RESIZE, self.outputs + 1 + n, stored, total)
        self._do(Op.END)

    def _bounded(self, spec: PhasesSpec, rows: int, ends: int) -> int:
        """Bound the rows and cut them into parts; where the number of elements is that there is room for."""
        bounds = self._known["made", "pos1"] = self._new(dt.i64, ends, self._object())
        self._run(spec.phases[0])
        total, parts = self.number(), self.number(2)
        self._do(Op.READ, bounds, rows, 8, total)
        self._fits(spec, total)
        self._do(Op.QUOTIENT, total, PART, d=parts)
        self._do(Op.LEAST, parts, 1, d=parts)
        marks, part = self.number(), self.number()
        self._do(Op.ADD, parts, 1, d=marks)
        cuts = self._known["made", "cuts"] = self._new(dt.i64, marks, self._object())
        self._do(Op.COPY, cuts, d=parts + 1)
        self._do(Op.CUT, bounds, rows, total, part, parts)
        positions, end = self._new(spec.index, ends, self.outputs), self.number()
        self._do(Op.ZERO, positions, ends, spec.index.bytes)
        self._do(Op.ADD, positions, spec.index.bytes, d=end)
        self._known.update({("made", "chunks"): parts, ("made", "part"): part, ("made", "end1"): end, ("made", "positions"): positions})
        return total

    def _fits(self, spec: PhasesSpec, total: int) -> None:
        self._do(Op.WITHIN, total, 0, SMALL // spec.width)

    def _new(self, dtype: DType, count: int, thing: int, kept: int = 0) -> int:
        """A new array of one dimension; where its address is."""
        data = self.number(2)
        self._do(Op.COPY, count, d=data + 1)
        self._do(Op.ALLOC, self._hold(to_numpy(dtype)), 1 | dtype.bytes << 8 | kept, data + 1, data, thing)
        return data

    def _run(self, phase: Phase) -> None:
        kernel = phase.kernel
        places = [self.place(source) for source in (*phase.slots, *(("const", a) for a in kernel.extern_addresses))]
        session = self.runtime.session(self.threads if kernel.signature.parallel else 1)
        gather = Shared(8 * len(places) + 8)
        for n, place in enumerate(places):
            gather.set(8 * n, place)
        self.most = max(self.most, len(places))
        self.keep += [kernel, session, gather]
        self._do(Op.RUN, kernel.address, gather.address, len(places), session.address)


def make_phases(
    spec: PhasesSpec,
    runtime: Runtime,
    slow: Callable[..., Any],
    *,
    finish: Callable[..., Any],
    token: tuple[ContextVar[Any], object] | None = None,
    threads: int,
    name: str = "",
    doc: str = "",
) -> Callable[..., Any] | None:
    """A function that calls the kernels as `spec` says, and `slow` with the same arguments whenever a call does not fit it.

    The result is `finish(positions, *along, *args)`. None where this interpreter lays out its objects in another way.
    """
    program = Phases(spec, token, runtime, threads)
    if not layout_holds() or max(program.room, program.most) > ROOM:
        return None
    return native(
        program, runtime, slow, finish, name or spec.phases[-1].kernel.signature.name, doc, RELEASE_ABOVE,
        outputs=program.outputs, results=program.results, keeper=runtime.keeper.address,
    )  # fmt: skip
