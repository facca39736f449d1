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
from typing import TYPE_CHECKING, Any, Literal, Union

import numpy as np

from polyai.errors import VerifyError
from polyai.runtime.cpython import Text, api_table, builtin, layout_holds
from polyai.runtime.dispatch_code import CELL, CELL_BYTES, RING, ROOM, TABLE, TABLE_BYTES, Op
from polyai.runtime.kernel import Kernel
from polyai.runtime.launch import Runtime
from polyai.runtime.shared import Shared
from polyai.runtime.threads import JOB
from polyai.scalar.dtype import BY_NAME, DType, to_numpy
from polyai.term.late import late
from polyai.term.node import node

if TYPE_CHECKING:
    from polyai.runtime import portable
else:
    portable = late("polyai.runtime.portable")


@node
class ArrayArg:
    """A NumPy array, exactly ndarray, contiguous and aligned."""

    dtype: DType
    ndim: int


@node
class SparseArg:
    """A scipy.sparse value of exactly the class `type`; `kind` csr, csc, bsr, dia or coo. Its element and index types, and the block
    of bsr, are as given. `runs`: an Owned array of `rank` dimensions without values, which was checked when it was made."""

    kind: Literal["csr", "csc", "bsr", "dia", "coo", "runs"]
    type: type
    dtype: DType
    index: DType
    block: tuple[int, int] = (1, 1)
    rank: int = 2


@node
class LevelsArg:
    """An object of exactly the class `type` whose attribute `format` is this very object, whose `shape` is a tuple of `rank` integers, and
    whose `listed` is a tuple of its index arrays, outer levels first and of one level positions first, and its values. `levels`: of each
    level "dense", "compressed" or "singleton", and the dimension that it stores."""

    type: type
    format: object
    dtype: DType
    index: DType
    rank: int
    levels: tuple[tuple[str, int], ...]


@node
class ScalarArg:
    """A Python int or float, exactly; kernels read it from memory as one element of `dtype` (i64, f32 or f64)."""

    dtype: DType


Arg = Union[ArrayArg, SparseArg, LevelsArg, ScalarArg]


@node
class Bundle:
    """One argument of a call that stands for several: an object of exactly the class `type` whose attribute `key` is this string, an
    interned one, and whose attribute `arrays` is a tuple of the `count` things that the spec describes."""

    type: type
    key: str
    count: int


Source = tuple[Any, ...]
"""Where a number comes from::

    ("data", arg)         address of an array's or scalar's elements         ("dim", arg, axis)   an extent
    ("pos", arg)          address of row pointers; of COO, of [0, nnz]       ("nnz", arg)         how many are stored
    ("crd", arg, level)   address of coordinates; `level` for COO only       ("value", arg)       an int argument itself
    ("val", arg)          address of stored values                           ("const", n)         n
    ("pos", arg, level), ("crd", arg, level), ("positions", arg, level)      of a LevelsArg: arrays of a level, and how many positions it has
    ("length", arg, l)    how long the fibres of level l of DIA are
    ("out", k)            address of the k-th result
"""

Guard = tuple[Any, ...]
"""What must hold: ("equal", source, source), ("atmost", source, source), ("within", source, low, high) or ("multiple", source, n)."""


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
    release_above: float = 20_000.0
    watched: tuple[Source, ...] = ()
    bundles: tuple[Bundle | None, ...] = ()

    @property
    def nargs(self) -> int:
        """How many arguments a call has."""
        return len(self.bundles or self.args)


BIG = (1 << 63) - 1
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


class Program:
    """The program of a spec, and what it points to. Numbers and objects get places as they are met."""

    def __init__(self, spec: DispatchSpec, token: tuple[ContextVar[Any], object] | None, memory: Watch | None = None, selection: Selection | None = None) -> None:
        self.spec, self.selection = spec, selection
        self.steps: list[tuple[int, ...]] = []
        self.keep: list[object] = [spec]
        self._numbers = 0
        self._objects = spec.nargs
        self._known: dict[Source, int] = {}
        self._arrays: list[tuple[int, int]] = []  # places of the arrays of the call, with their item size << 8 | rank
        if token is not None:
            self._do(Op.CONTEXT, self._hold(token[0]), self._hold(token[1]))
        self._things = self._unbundled() if spec.bundles else list(range(spec.nargs))  # places of what `args` describe
        for k, arg in enumerate(spec.args):
            self._check(k, arg)
        for guard in spec.guards:
            self._guard(guard)
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
        return max(self._numbers, self._objects, len(self.gather))

    def number(self, count: int = 1) -> int:
        """The first of `count` new places for numbers."""
        first = self._numbers
        self._numbers += count
        return first

    def place(self, source: Source) -> int:
        """The place of a source; constants get one when they are first asked for."""
        if source not in self._known:
            if source[0] != "const":
                raise VerifyError(f"the arguments of a dispatcher give no {source!r}", f"they give {sorted(map(repr, self._known))}")
            self._known[source] = self.number()
            self._do(Op.CONST, source[1], d=self._known[source])
        return self._known[source]

    def finish(self, addresses: tuple[int, ...]) -> None:
        """Add the kernel's library functions as further slots, and the end."""
        self.gather += [self.place(("const", address)) for address in addresses]
        self._do(Op.END)

    def code(self) -> Shared:
        """The steps in memory."""
        steps = struct.pack(f"<{6 * len(self.steps)}q", *(_word(w) for step in self.steps for w in step))
        memory = Shared(len(steps))
        ctypes.memmove(memory.address, steps, len(steps))
        return memory

    def _do(self, op: Op, a: int = 0, b: int = 0, c: int = 0, d: int = 0, e: int = 0) -> None:
        self.steps.append((op.value, a, b, c, d, e))

    def _hold(self, thing: object) -> int:
        self.keep.append(thing)
        return id(thing)

    def _object(self) -> int:
        self._objects += 1
        return self._objects - 1

    def _unbundled(self) -> list[int]:
        """The places of what bundles hold, and of the arguments between them."""
        out: list[int] = []
        for n, bundle in enumerate(self.spec.bundles):
            if bundle is None:
                out.append(n)
                continue
            self._do(Op.TYPE, n, self._hold(bundle.type))
            self._do(Op.IS, self._attribute(n, "key"), self._hold(bundle.key))
            out += self._items(self._attribute(n, "arrays"), bundle.count)
        if len(out) != len(self.spec.args):
            raise VerifyError(f"the bundles of a dispatcher hold {len(out)} things", f"it describes {len(self.spec.args)}")
        return out

    def _check(self, k: int, arg: Arg) -> None:
        match arg:
            case ArrayArg(dtype, ndim):
                first = self._array(self._things[k], dtype, ndim)
                self._known["data", k] = first
                for axis in range(ndim):
                    self._known["dim", k, axis] = first + 1 + axis
            case ScalarArg(dtype):
                self._scalar(k, dtype)
            case SparseArg():
                self._sparse(k, arg)
            case LevelsArg():
                self._levels(k, arg)

    def _array(self, thing: int, dtype: DType, ndim: int) -> int:
        first = self.number(1 + ndim)
        descr = to_numpy(dtype)
        self._do(Op.ARRAY, thing, self._hold(descr), ndim, first, type_numbers(descr))
        self._arrays.append((first, descr.itemsize << 8 | ndim))
        return first

    def _scalar(self, k: int, dtype: DType) -> None:
        value, address = self.number(), self.number()
        if dtype.name == "i64":
            self._do(Op.INT, self._things[k], d=value)
            self._known["value", k] = value
        elif dtype.name in ("f32", "f64"):
            self._do(Op.FLOAT, self._things[k], dtype.bits, d=value)
        else:
            raise VerifyError(f"a dispatcher has no scalars of type {dtype}", "i64, f32 and f64 are known")
        self._do(Op.ADDRESS, value, d=address)
        self._known["data", k] = address

    def _attribute(self, thing: int, name: str) -> int:
        found = self._object()
        self._do(Op.ATTR, thing, self._hold(name), d=found)
        return found

    def _items(self, thing: int, count: int) -> list[int]:
        places = []
        for n in range(count):
            places.append(self._object())
            self._do(Op.ITEM, thing, n, count, places[-1])
        return places

    def _sparse(self, k: int, arg: SparseArg) -> None:
        thing = self._things[k]
        self._do(Op.TYPE, thing, self._hold(arg.type))
        extents = []
        for axis, item in enumerate(self._items(self._attribute(thing, "_shape"), arg.rank)):
            extents.append(self.number())
            self._do(Op.INT, item, d=extents[axis])
            self._do(Op.WITHIN, extents[axis], 0, BIG)
            self._known["dim", k, axis] = extents[axis]
        if arg.kind == "runs":
            return self._owned(k, arg)
        values = self._array(self._attribute(thing, "data"), arg.dtype, {"bsr": 3, "dia": 2}.get(arg.kind, 1))
        self._known["val", k] = values
        if arg.kind == "coo":
            self._coordinates(k, arg, values)
        elif arg.kind == "dia":
            offsets = self._array(self._attribute(thing, "offsets"), arg.index, 1)
            self._do(Op.EQUAL, offsets + 1, values + 1)
            self._known.update({("crd", k, 0): offsets, ("length", k, 0): offsets + 1, ("length", k, 1): values + 2})
        elif arg.kind == "bsr":
            for axis, size in enumerate(arg.block):
                self._do(Op.WITHIN, values + 2 + axis, size, size)
                self._do(Op.MULTIPLE, extents[axis], size)
            rows = self.number()
            self._do(Op.QUOTIENT, extents[0], arg.block[0], d=rows)
            self._compressed(k, arg, values, rows)
        else:
            self._compressed(k, arg, values, extents[arg.kind == "csc"])

    def _levels(self, k: int, arg: LevelsArg) -> None:
        """Arrays that were checked when the object was made may have been changed in place: their lengths are compared again."""
        thing = self._things[k]
        self._do(Op.TYPE, thing, self._hold(arg.type))
        self._do(Op.IS, self._attribute(thing, "format"), self._hold(arg.format))
        for axis, item in enumerate(self._items(self._attribute(thing, "shape"), arg.rank)):
            extent = self._known["dim", k, axis] = self.number()
            self._do(Op.INT, item, d=extent)
            self._do(Op.WITHIN, extent, 0, BIG)
        count = sum({"dense": 0, "singleton": 1, "compressed": 2}[kind] for kind, _ in arg.levels)
        arrays = iter(self._items(self._attribute(thing, "listed"), count + 1))
        above = self.place(("const", 1))
        for level, (kind, dimension) in enumerate(arg.levels):
            if kind == "dense":
                whole = self.number()
                self._do(Op.TIMES, above, self._known["dim", k, dimension], d=whole)
                above = whole
            else:
                if kind == "compressed":
                    pos = self._known["pos", k, level] = self._array(next(arrays), arg.index, 1)
                    ends, nnz = self.number(), self.number()
                    self._do(Op.ADD, above, 1, d=ends)
                    self._do(Op.EQUAL, ends, pos + 1)
                    self._do(Op.READ, pos, above, arg.index.bytes, nnz)
                    self._do(Op.WITHIN, nnz, 0, BIG)
                    above = nnz
                crd = self._known["crd", k, level] = self._array(next(arrays), arg.index, 1)
                self._do(Op.EQUAL, above, crd + 1)
            self._known["positions", k, level] = above
        values = self._known["val", k] = self._array(next(arrays), arg.dtype, 1)
        self._do(Op.EQUAL, above, values + 1)
        self._known["nnz", k] = above

    def _owned(self, k: int, arg: SparseArg) -> None:
        nnz = self.number()
        thing = self._things[k]
        self._do(Op.INT, self._attribute(thing, "nnz"), d=nnz)
        self._known["nnz", k] = nnz
        self._known["crd", k] = self._array(self._attribute(thing, "indices"), arg.index, 1)
        self._known["pos", k] = self._array(self._attribute(thing, "indptr"), arg.index, 1)

    def _compressed(self, k: int, arg: SparseArg, values: int, major: int) -> None:
        crd = self._array(self._attribute(self._things[k], "indices"), arg.index, 1)
        pos = self._array(self._attribute(self._things[k], "indptr"), arg.index, 1)
        ends, zero, first, nnz = self.number(), self.place(("const", 0)), self.number(), self.number()
        self._do(Op.ADD, major, 1, d=ends)
        self._do(Op.EQUAL, ends, pos + 1)
        self._do(Op.READ, pos, zero, arg.index.bytes, first)
        self._do(Op.WITHIN, first, 0, 0)
        self._do(Op.READ, pos, major, arg.index.bytes, nnz)
        self._do(Op.WITHIN, nnz, 0, BIG)
        self._do(Op.ATMOST, nnz, crd + 1)
        self._do(Op.ATMOST, nnz, values + 1)
        self._known.update({("pos", k): pos, ("crd", k): crd, ("nnz", k): nnz})

    def _coordinates(self, k: int, arg: SparseArg, values: int) -> None:
        if isinstance(getattr(arg.type, "row", None), property):  # SciPy 1.13 and later keep one tuple
            things = self._items(self._attribute(self._things[k], "coords"), arg.rank)
        else:
            things = [self._attribute(self._things[k], name) for name in ("row", "col")]
        nnz = values + 1
        for level, thing in enumerate(things):
            crd = self._array(thing, arg.index, 1)
            self._do(Op.EQUAL, crd + 1, nnz)
            self._known["crd", k, level] = crd
        ends, address = self.number(2), self.number()
        self._do(Op.CONST, 0, d=ends)
        if arg.index.bits == 32:
            self._do(Op.WITHIN, nnz, 0, (1 << 31) - 1)
            self._do(Op.SHIFT, nnz, 32, d=ends)
        else:
            self._do(Op.COPY, nnz, d=ends + 1)
        self._do(Op.ADDRESS, ends, d=address)
        self._known.update({("pos", k): address, ("nnz", k): nnz})

    def _guard(self, guard: Guard) -> None:
        match guard:
            case ("equal", a, b):
                self._do(Op.EQUAL, self.place(a), self.place(b))
            case ("within", a, low, high):
                self._do(Op.WITHIN, self.place(a), low, high)
            case ("atmost", a, b):
                self._do(Op.ATMOST, self.place(a), self.place(b))
            case ("multiple", a, n) if n > 0:
                self._do(Op.MULTIPLE, self.place(a), n)
            case _:
                raise VerifyError(f"a dispatcher knows no guard {guard!r}")

    def _allocate(self) -> int:
        first = self._objects
        self._objects += len(self.spec.outputs)
        for n, output in enumerate(self.spec.outputs):
            sources = [("const", s) if isinstance(s, int) else s for s in output.shape]
            places = [self.place(source) for source in sources]
            data = self.number(1 + len(places))
            for axis, place in enumerate(places):
                self._do(Op.COPY, place, d=data + 1 + axis)
            self._do(Op.ALLOC, self._hold(to_numpy(output.dtype)), len(places), data + 1, data, first + n)
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


def type_numbers(descr: np.dtype[Any]) -> int:
    """NumPy's one or two numbers of a dtype in one word: C's `long` and `long long` may be the same."""
    twin = {"q": "l", "l": "q", "Q": "L", "L": "Q", "i": "l", "I": "L"}.get(descr.char, descr.char)
    second = np.dtype(twin)
    return descr.num | (second.num if second.itemsize == descr.itemsize else descr.num) << 16


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
    code, gather, table = program.code(), Shared(8 * len(program.gather) + 8), Shared(TABLE_BYTES)
    for k, place in enumerate(program.gather):
        gather.set(8 * k, place)
    values = {
        "slow": id(slow), "finish": id(finish) if finish is not None else 0, "entry": kernel.address, "session": session.address,
        "nargs": spec.nargs, "program": code.address, "gather": gather.address, "slots": len(program.gather),
        "outputs": program.outputs, "results": len(spec.outputs), "api": api_table().address, "run": session.native["run"],
        "out_name": id(OUT) if program.takes_out and finish is None else 0,
        "ready": session.pool.address + JOB["ready"] if session.pool is not None else 0,
    }  # fmt: skip
    for field, value in values.items():
        table.set(TABLE[field], value)
    ctypes.c_double.from_address(table.address + TABLE["threshold"]).value = spec.release_above
    myself = Text(struct.pack("<q", table.address))
    myself.keep = (program.keep, code, gather, table, kernel, session, runtime, slow, finish)  # type: ignore[attr-defined]
    myself.parts = Parts(spec, token, kernel, memory, program)  # type: ignore[attr-defined]
    return builtin(name or kernel.signature.name, doc, session.native["dispatch"], myself)  # type: ignore[no-any-return]


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
    dispatcher.__self__.keep[3].set(TABLE["program"], code.address)


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
    table: Shared = dispatcher.__self__.keep[3]
    return table.word(TABLE["ticks"])


def _word(value: int) -> int:
    return value - (1 << 64) if value > BIG else value


def calls_of(dispatcher: Any) -> tuple[int, int]:
    """How many calls of a dispatcher went the fast way, and how many were handed on."""
    if hasattr(dispatcher, "counts"):
        fast, handed_on = dispatcher.counts[:2]
        return fast, handed_on
    table: Shared = dispatcher.__self__.keep[3]
    return table.word(TABLE["hits"]), table.word(TABLE["misses"])


__all__ = ["BY_NAME", "ArrayArg", "Bundle", "DispatchSpec", "LevelsArg", "Output", "ScalarArg", "Selection", "SparseArg", "calls_of", "make_dispatcher", "recent", "review_at", "review_of", "select", "ticks_of"]
