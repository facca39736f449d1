"""Native calls of several kernels: staging, as a program (see dispatch_code).

    J = A + B       kernel 0 bounds the rows of J; they are cut into parts; there is room for as much as the bounds say; kernel 1 fills
    J = A as CSC    one kernel; J stores what A stores

A call that is not as the first one was, that needs much memory, or whose kernels find something wrong goes to Python, which
looks at it again.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from polyai.runtime import staging
from polyai.runtime.arguments import Arg, Arguments, Bundle, Guard, Source
from polyai.runtime.cpython import layout_holds
from polyai.runtime.dispatch import RELEASE_ABOVE, native
from polyai.runtime.dispatch_code import ROOM, Op
from polyai.runtime.kernel import Kernel
from polyai.runtime.launch import Runtime
from polyai.runtime.shared import Shared
from polyai.runtime.steps import KEPT
from polyai.runtime.threads import JOB
from polyai.scalar import dtype as dt
from polyai.scalar.dtype import DType, to_numpy
from polyai.term.node import node


@node
class Phase:
    """A kernel of a call, and what its plan (see staging) says in sources. What the call makes is ("made", name).

    slots       the sources of its parameters
    results     names, element types, and how large they are: sources; the numbers of ends of rows and of stored elements are
                ("made", "J.ends") and ("made", "J.nnz")
    counts      the pattern whose positions it makes, `fills` the one whose elements it stores; "" if none
    rows        how many rows that pattern has, `index` the type of its index arrays, `width` the bytes of what lies along it
    within      how much the pattern stores at most, as a sum, where one kernel counts and fills
    packed      whether it stores parts of the rows, which the caller cuts
    """

    kernel: Kernel
    slots: tuple[Source, ...]
    results: tuple[tuple[str, DType, tuple[Source, ...]], ...]
    counts: str
    fills: str
    rows: Source
    index: DType
    width: int
    within: tuple[Source, ...] = ()
    packed: bool = False


@node
class PhasesSpec:
    """Everything about one way to call several kernels. `outputs` are names of what they make."""

    args: tuple[Arg, ...]
    phases: tuple[Phase, ...]
    outputs: tuple[str, ...]
    guards: tuple[Guard, ...] = ()
    work: tuple[tuple[Source, ...], ...] = ()
    bundles: tuple[Bundle | None, ...] = ()

    @property
    def nargs(self) -> int:
        """How many arguments a call has."""
        return len(self.args)


class Phases(Arguments):
    """The program of a spec."""

    def __init__(self, spec: PhasesSpec, token: tuple[ContextVar[Any], object] | None, runtime: Runtime, threads: int) -> None:
        super().__init__(spec, token)
        self.runtime, self.threads, self.most = runtime, threads, 0
        self._arrays_made: dict[str, int] = {}  # places of the objects
        self._packed = {p.fills: p for p in spec.phases if p.packed}
        for product in spec.work:
            for source in product:
                self._do(Op.FACTOR, self.place(source))
            self._do(Op.TERM)
        for parallel in sorted({p.kernel.signature.parallel for p in spec.phases}):
            pool = runtime.session(threads if parallel else 1).pool
            if pool is not None:
                self._do(Op.READY, pool.address + JOB["ready"])
        for phase in spec.phases:
            self._phase(phase)
        self.outputs = self._objects
        self._objects += len(spec.outputs)
        for n, name in enumerate(spec.outputs):
            self._do(Op.SAME, self._arrays_made[name], d=self.outputs + n)
        self._do(Op.END)

    def _phase(self, phase: Phase) -> None:
        name = phase.counts or phase.fills
        ends = self.number()
        self._do(Op.ADD, self.place(phase.rows), 1, d=ends)
        self._known["made", f"{name}.ends"] = ends
        if phase.within:
            total = self._total(phase)
        along = [r for r in phase.results if r[2] == (("made", f"{name}.nnz"),)]
        if phase.packed:
            self._cut(phase, ends)
        for result, dtype, shape in phase.results:
            if ("made", result) not in self._known:
                self._new(result, dtype, [self.place(s) for s in shape], KEPT)
        self._run(phase)
        if phase.packed:
            stored, had = self.number(), self.place(("made", f"{name}.nnz"))
            self._do(Op.READ, self.place(("made", f"{name}.positions")), self.place(phase.rows), phase.index.bytes, stored)
            self._give_back(along, stored, had)
            self._known["made", f"{name}.pos1"] = self._known["made", f"{name}.positions"]
            self._arrays_made[f"{name}.pos1"] = self._arrays_made[f"{name}.positions"]
            self._known["made", f"{name}.nnz"] = stored
        elif phase.counts:
            dtype = next(dtype for result, dtype, _ in phase.results if result == f"{name}.pos1")
            stored = self.number()
            self._do(Op.READ, self.place(("made", f"{name}.pos1")), self.place(phase.rows), dtype.bytes, stored)
            self._do(Op.WITHIN, stored, 0, staging.SMALL // max(1, phase.width))
            if phase.within:
                self._give_back(along, stored, total)
            self._known["made", f"{name}.nnz"] = stored
            if name not in self._packed and dtype != phase.index:
                wide = self._known.pop(("made", f"{name}.pos1"))
                narrow = self._new(f"{name}.pos1", phase.index, [ends])
                self._do(Op.NARROW, wide, ends, narrow)

    def _total(self, phase: Phase) -> int:
        """How much a pattern stores at most."""
        first, *more = (self.place(source) for source in phase.within)
        for other in more:
            total = self.number()
            self._do(Op.SUM, first, other, d=total)
            first = total
        self._do(Op.WITHIN, first, 0, staging.SMALL // max(1, phase.width))
        self._known["made", f"{phase.counts}.nnz"] = first
        return first

    def _cut(self, phase: Phase, ends: int) -> None:
        """Cut the rows, whose bounds are made, into parts."""
        name = phase.fills
        bounds, total, rows = (self.place(s) for s in (("made", f"{name}.pos1"), ("made", f"{name}.nnz"), phase.rows))
        parts, marks, part, end = self.number(2), self.number(), self.number(), self.number()
        self._do(Op.QUOTIENT, total, staging.PART, d=parts)
        self._do(Op.LEAST, parts, 1, d=parts)
        self._do(Op.ADD, parts, 1, d=marks)
        cuts = self._new(f"{name}.cuts", dt.i64, [marks])
        self._do(Op.COPY, cuts, d=parts + 1)
        self._do(Op.CUT, bounds, rows, total, part, parts)
        positions = self._new(f"{name}.positions", phase.index, [ends])
        self._do(Op.ZERO, positions, ends, phase.index.bytes)
        self._do(Op.ADD, positions, phase.index.bytes, d=end)
        self._known.update({("made", f"{name}.chunks"): parts, ("made", f"{name}.part"): part, ("made", f"{name}.end1"): end})

    def _give_back(self, along: list[tuple[str, DType, tuple[Source, ...]]], stored: int, had: int) -> None:
        for result, *_ in along:
            self._do(Op.RESIZE, self._arrays_made[result], stored, had, self._known["made", result])

    def _new(self, name: str, dtype: DType, extents: list[int], kept: int = 0) -> int:
        """A new array; where its address is."""
        data, thing = self.number(1 + len(extents)), self._object()
        for axis, extent in enumerate(extents):
            self._do(Op.COPY, extent, d=data + 1 + axis)
        self._do(Op.ALLOC, self._hold(to_numpy(dtype)), len(extents) | dtype.bytes << 8 | kept, data + 1, data, thing)
        self._known["made", name], self._arrays_made[name] = data, thing
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
    finish: Callable[..., Any] | None,
    token: tuple[ContextVar[Any], object] | None = None,
    threads: int,
    name: str = "",
    doc: str = "",
) -> Callable[..., Any] | None:
    """A function that calls the kernels as `spec` says, and `slow` with the same arguments whenever a call does not fit it.

    The result is `finish(*outputs, *args)`, or the one array. None where this interpreter lays out its objects in another way.
    """
    program = Phases(spec, token, runtime, threads)
    if not layout_holds() or max(program.room, program.most) > ROOM:
        return None
    return native(
        program, runtime, slow, finish, name or spec.phases[-1].kernel.signature.name, doc, RELEASE_ABOVE,
        outputs=program.outputs, results=len(spec.outputs), keeper=runtime.keeper.address,
    )  # fmt: skip
