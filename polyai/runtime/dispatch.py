"""The fast way to call a kernel: a built-in function that checks its arguments natively.

    spec: A is csr f64/i32, X is f64 with 2 dimensions; slots n, m, nnz, A.pos1, ...; equal: columns of A, rows of X

becomes a program (see dispatch_code) that one native function follows. A call that does not fit goes to `slow` with the
same arguments. Borrowed index arrays are looked at again in every call: their lengths here, their contents in the kernel.
"""

from __future__ import annotations

import ctypes
import math
import struct
import sys
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from polyai.errors import VerifyError
from polyai.runtime.arguments import BIG, Arg, Arguments, Bundle, Guard, Source
from polyai.runtime.cpython import Text, api_table, builtin, layout_holds
from polyai.runtime.dispatch_code import CELL, CELL_BYTES, RING, ROOM, TABLE, TABLE_BYTES, Op
from polyai.runtime.kernel import Kernel
from polyai.runtime.launch import Runtime
from polyai.runtime.shared import Shared
from polyai.runtime.threads import JOB
from polyai.scalar.dtype import DType, to_numpy
from polyai.term.late import late
from polyai.term.node import node

if TYPE_CHECKING:
    from polyai.runtime import portable
else:
    portable = late("polyai.runtime.portable")

RELEASE_ABOVE = 20_000.0
"""The interpreter lock is released for calls with more work than this, in nanoseconds."""


@node
class Output:
    """A new array. `shape` is made of ints and sources."""

    dtype: DType
    shape: tuple[Any, ...]


@node
class DispatchSpec:
    """Everything about one way to call one kernel.

    slots           one source for each parameter of the kernel, in order
    work            sum over products of sources: an estimate of the time in nanoseconds
    release_above   the interpreter lock is released for calls with more work
    watched         sources whose values in recent calls are remembered, see `recent`
    bundles         one entry for each argument of the call, None for those that are one of `args` themselves; () if all are
    """

    args: tuple[Arg, ...]
    slots: tuple[Source, ...]
    outputs: tuple[Output, ...]
    guards: tuple[Guard, ...] = ()
    work: tuple[tuple[Source, ...], ...] = ()
    release_above: float = RELEASE_ABOVE
    watched: tuple[Source, ...] = ()
    bundles: tuple[Bundle | None, ...] = ()

    @property
    def nargs(self) -> int:
        """How many arguments a call has."""
        return len(self.bundles or self.args)


OUT = sys.intern("out")
"""The one keyword of a native call."""


class Selection:
    """Which kernel serves which sizes: a grid over a few sources. `axes` are pairs of a source and ascending edges; a value v lies in the
    cell of its axis numbered by how many edges are <= v. `kernels` has one entry for each cell, the last axis first to move;
    None where the general kernel serves. `tags` say, cell by cell, under what its calls are counted."""

    def __init__(self, axes: tuple[tuple[Source, tuple[int, ...]], ...], kernels: tuple[Kernel | None, ...], tags: tuple[Any, ...] = ()) -> None:
        self.axes, self.kernels, self.tags = axes, kernels, tags or kernels
        if math.prod(len(edges) + 1 for _, edges in axes) != len(kernels):
            raise VerifyError("a selection has one kernel for each cell", f"{len(kernels)} kernels")
        self.edges = [Shared(8 * len(edges) + 8) for _, edges in axes]
        for memory, (_, edges) in zip(self.edges, axes):
            for n, edge in enumerate(edges):
                memory.set(8 * n, edge)
        self.cells = Shared(CELL_BYTES * len(kernels))
        for n, kernel in enumerate(kernels):
            self.cells.set(CELL_BYTES * n + CELL["entry"], 0 if kernel is None else kernel.address)

    def counts(self) -> dict[Any, tuple[int, int]]:
        """Calls and ticks by tag."""
        out: dict[Any, tuple[int, int]] = {}
        for n, (kernel, tag) in enumerate(zip(self.kernels, self.tags)):
            if kernel is not None:
                hits, ticks = out.get(tag, (0, 0))
                at = CELL_BYTES * n
                out[tag] = (hits + self.cells.word(at + CELL["hits"]), ticks + self.cells.word(at + CELL["ticks"]))
        return out


class Program(Arguments):
    """The program of a spec, and what it points to."""

    def __init__(self, spec: DispatchSpec, token: tuple[ContextVar[Any], object] | None, memory: Watch | None = None, selection: Selection | None = None) -> None:
        super().__init__(spec, token)
        self.spec, self.selection = spec, selection
        self.outputs = self._allocate()
        self._keep_apart()
        for product in spec.work:
            for source in product:
                self._do(Op.FACTOR, self.place(source))
            self._do(Op.TERM)
        self.gather = [self.place(source) for source in spec.slots]
        self.cell = self.number()
        if memory is not None:
            self._watch(memory)
        if selection is not None:
            self._select(selection)

    def _watch(self, memory: Watch) -> None:
        self._do(Op.REVIEW, memory.limit.address)
        self.keep.append(memory)
        for n, source in enumerate(self.spec.watched):
            self._do(Op.RECORD, self.place(source), memory.rings[n].address)

    def _select(self, selection: Selection) -> None:
        self.keep.append(selection)
        self._do(Op.CONST, 0, d=self.cell)
        for (source, edges), memory in zip(selection.axes, selection.edges):
            self._do(Op.RANK, self.place(source), memory.address, len(edges), self.cell)
        self._do(Op.SELECT, self.cell, selection.cells.address)

    @property
    def takes_out(self) -> bool:
        """Whether the result may be given as `out`: there is one."""
        return len(self.spec.outputs) == 1

    @property
    def room(self) -> int:
        """How many places it needs, for numbers, objects or slots."""
        return max(super().room, len(self.gather))

    def finish(self, addresses: tuple[int, ...]) -> None:
        """Add the kernel's library functions as further slots, and the end."""
        self.gather += [self.place(("const", address)) for address in addresses]
        self._do(Op.END)

    def _allocate(self) -> int:
        first = self._objects
        self._objects += len(self.spec.outputs)
        for n, output in enumerate(self.spec.outputs):
            sources = [("const", s) if isinstance(s, int) else s for s in output.shape]
            places = [self.place(source) for source in sources]
            data = self.number(1 + len(places))
            for axis, place in enumerate(places):
                self._do(Op.COPY, place, d=data + 1 + axis)
            self._do(Op.ALLOC, self._hold(to_numpy(output.dtype)), len(places) | output.dtype.bytes << 8, data + 1, data, first + n)
            self._known["out", n] = data
        return first

    def _keep_apart(self) -> None:
        """A result given as `out` may share no memory with what the kernel reads."""
        if not self.takes_out:
            return
        output = self.spec.outputs[0]
        form = to_numpy(output.dtype).itemsize << 8 | len(output.shape)
        for place, other in self._arrays:
            self._do(Op.APART, place, other, self._known["out", 0], form)


class Watch:
    """The sizes of the last calls, and after how many calls one goes to Python so that it can look at them."""

    def __init__(self, spec: DispatchSpec, first: int) -> None:
        self.rings = [Shared(8 * RING) for _ in spec.watched]
        self.limit = Shared(8)
        self.limit.set(0, first)


def make_dispatcher(
    spec: DispatchSpec,
    kernel: Kernel,
    runtime: Runtime,
    slow: Callable[..., Any],
    *,
    finish: Callable[..., Any] | None = None,
    token: tuple[ContextVar[Any], object] | None = None,
    threads: int | None = None,
    name: str = "",
    doc: str = "",
    review: int = 0,
    selection: Selection | None = None,
) -> Callable[..., Any]:
    """A function that calls `kernel` as `spec` says, and `slow` with the same arguments whenever a call does not fit it.

    The result is the array, or a tuple of several, or `finish(*outputs, *args)`. A single array may be given as `out=`. With `token`
    a call only fits while the context variable has exactly that value. `calls_of` tells how many calls fitted. With `review`, the
    values of `spec.watched` are remembered, and from so many calls on calls go to `slow` until `review_at` says when to stop
    again. `select` chooses among kernels of one signature.
    """
    if len(spec.slots) != len(kernel.signature.parameters):
        raise VerifyError(f"{len(spec.slots)} sources for the {len(kernel.signature.parameters)} slots of {kernel.signature.name}")
    if not spec.outputs:
        raise VerifyError("a dispatcher without results", "its kernel would have no effect")
    memory = Watch(spec, review) if review else None
    program = Program(spec, token, memory, selection)
    program.finish(kernel.extern_addresses)
    session = runtime.session((threads or runtime.threads_for(runtime.options)) if kernel.signature.parallel else 1)
    if not layout_holds() or program.room > ROOM:
        made = portable.portable(program, kernel, runtime, session.threads, slow, finish)
        made.__dict__["parts"] = Parts(spec, token, kernel, memory, program)
        return made
    gather = Shared(8 * len(program.gather) + 8)
    for k, place in enumerate(program.gather):
        gather.set(8 * k, place)
    program.keep += [gather, kernel, session]
    made = native(
        program, runtime, slow, finish, name or kernel.signature.name, doc, spec.release_above,
        entry=kernel.address, session=session.address, gather=gather.address, slots=len(program.gather),
        outputs=program.outputs, results=len(spec.outputs), out_name=id(OUT) if program.takes_out and finish is None else 0,
        ready=session.pool.address + JOB["ready"] if session.pool is not None else 0,
    )  # fmt: skip
    made.__self__.parts = Parts(spec, token, kernel, memory, program)  # type: ignore[attr-defined]
    return made


def native(
    program: Arguments, runtime: Runtime, slow: Callable[..., Any], finish: Callable[..., Any] | None, name: str, doc: str, release_above: float, **values: int
) -> Callable[..., Any]:
    """The function of a program. `values` are the fields of its table that others do not give."""
    code, table = program.code(), Shared(TABLE_BYTES)
    values |= {
        "slow": id(slow), "finish": id(finish) if finish is not None else 0, "nargs": program.nargs, "program": code.address,
        "api": api_table().address, "run": runtime.native["run"],
    }  # fmt: skip
    for field, value in values.items():
        table.set(TABLE[field], value)
    ctypes.c_double.from_address(table.address + TABLE["threshold"]).value = release_above
    myself = Text(struct.pack("<q", table.address))
    myself.keep = (program.keep, code, table, runtime, slow, finish)  # type: ignore[attr-defined]
    return builtin(name, doc, runtime.native["dispatch"], myself)  # type: ignore[no-any-return]


class Parts:
    """What a dispatcher was made of. `old` holds programs that another thread may still follow."""

    def __init__(
        self, spec: DispatchSpec, token: tuple[ContextVar[Any], object] | None, kernel: Kernel, memory: Watch | None, program: Program
    ) -> None:
        self.spec, self.token, self.kernel, self.memory, self.program = spec, token, kernel, memory, program
        self.old: list[object] = []


def parts_of(dispatcher: Any) -> Parts:
    """What a dispatcher was made of."""
    found: Parts = dispatcher.parts if hasattr(dispatcher, "parts") else dispatcher.__self__.parts
    return found


def select(dispatcher: Any, selection: Selection) -> None:
    """From now on let `selection` choose the kernel. One word is replaced, so a call runs either the old or the new way."""
    parts = parts_of(dispatcher)
    program = Program(parts.spec, parts.token, parts.memory, selection)
    program.finish(parts.kernel.extern_addresses)
    if program.room > ROOM or program.outputs != parts.program.outputs or program.gather != parts.program.gather:
        return
    parts.old.append(parts.program)
    parts.program = program
    if hasattr(dispatcher, "parts"):
        dispatcher.program[0] = program
        return
    code = program.code()
    parts.old.append(code)
    dispatcher.__self__.keep[2].set(TABLE["program"], code.address)


def recent(dispatcher: Any) -> list[tuple[int, ...]]:
    """The values of the watched sources in the last calls that fitted, at most RING of them, in no particular order."""
    memory = parts_of(dispatcher).memory
    if memory is None:
        return []
    count = min(calls_of(dispatcher)[0], RING)
    return [tuple(ring.word(8 * n) for ring in memory.rings) for n in range(count)]


def review_at(dispatcher: Any, calls: int) -> None:
    """Let a call go to `slow` when so many calls have fitted."""
    memory = parts_of(dispatcher).memory
    if memory is not None:
        memory.limit.set(0, calls)


def review_of(dispatcher: Any) -> int:
    """After how many calls one goes to `slow`."""
    memory = parts_of(dispatcher).memory
    return BIG if memory is None else memory.limit.word(0)


def ticks_of(dispatcher: Any) -> int:
    """The time that the kernel ran for calls of a dispatcher, in ticks of the processor's clock; see `Runtime.seconds`."""
    if hasattr(dispatcher, "counts"):
        spent: int = dispatcher.counts[2]
        return spent
    table: Shared = dispatcher.__self__.keep[2]
    return table.word(TABLE["ticks"])


def calls_of(dispatcher: Any) -> tuple[int, int]:
    """How many calls of a dispatcher went the fast way, and how many were handed on."""
    if hasattr(dispatcher, "counts"):
        fast, handed_on = dispatcher.counts[:2]
        return fast, handed_on
    table: Shared = dispatcher.__self__.keep[2]
    return table.word(TABLE["hits"]), table.word(TABLE["misses"])
