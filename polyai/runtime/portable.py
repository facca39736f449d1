"""The call path for interpreters whose objects native code must not read: the same program, followed in Python.

It means what `dispatch_code` means, step by step, so each is the test of the other.
"""

from __future__ import annotations

import ctypes
import math
import struct
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from polyai.errors import PolyAIError
from polyai.machine.capacity import installed_memory
from polyai.runtime.bind import address, fits
from polyai.runtime.dispatch_code import CELL, CELL_BYTES, RING, Op
from polyai.runtime.kernel import Kernel
from polyai.runtime.launch import Runtime


class _Spec(Protocol):
    @property
    def args(self) -> Sequence[object]: ...
    @property
    def outputs(self) -> Sequence[object]: ...

    @property
    def nargs(self) -> int: ...


class _Program(Protocol):
    steps: list[tuple[int, ...]]
    keep: list[object]
    gather: list[int]
    outputs: int
    cell: int
    selection: Any

    @property
    def takes_out(self) -> bool: ...
    @property
    def room(self) -> int: ...
    @property
    def spec(self) -> _Spec: ...


class Misfit(Exception):
    """The call does not fit the program."""


def portable(
    program: _Program, kernel: Kernel, runtime: Runtime, threads: int, slow: Callable[..., Any], finish: Callable[..., Any] | None
) -> Callable[..., Any]:
    """A dispatcher in Python. Its attribute `counts` tells how many calls fitted, and how many went to `slow`."""
    at_hand = [program]
    nargs, results = program.spec.nargs, len(program.spec.outputs)
    slots = len(kernel.signature.parameters)

    def dispatcher(*args: Any, **kwargs: Any) -> Any:
        given, program = kwargs.get("out"), at_hand[0]
        if len(args) == nargs and (not kwargs or (given is not None and len(kwargs) == 1 and program.takes_out and finish is None)):
            known = {id(thing): thing for thing in program.keep}
            numbers = (ctypes.c_int64 * (program.room + 1))()
            numbers[program.room] = dispatcher.counts[0]  # type: ignore[attr-defined]
            things: list[Any] = [*args, *([None] * (program.room - nargs))]
            chosen, cell = kernel, 0
            try:
                for step in program.steps:
                    if given is not None and step[0] in (Op.ALLOC, Op.APART):
                        _GIVEN[Op(step[0])](numbers, things, known, given, *step[1:])
                        continue
                    _STEPS[Op(step[0])](numbers, things, known, *step[1:])
                if program.selection is not None:
                    cell = numbers[program.cell]
                    chosen = program.selection.kernels[cell] or kernel
                start = runtime.ticks()
                runtime.launch(chosen, [numbers[k] for k in program.gather[:slots]], threads)
                spent = runtime.ticks() - start
                dispatcher.counts[2] += spent  # type: ignore[attr-defined]
                if program.selection is not None and program.selection.kernels[cell] is not None:
                    cells, at = program.selection.cells, CELL_BYTES * cell
                    cells.set(at + CELL["hits"], cells.word(at + CELL["hits"]) + 1)
                    cells.set(at + CELL["ticks"], cells.word(at + CELL["ticks"]) + spent)
            except (Misfit, PolyAIError):
                pass
            else:
                dispatcher.counts[0] += 1  # type: ignore[attr-defined]
                made = tuple(things[program.outputs : program.outputs + results])
                if finish is not None:
                    return finish(*made, *args)
                return made[0] if results == 1 else made
        dispatcher.counts[1] += 1  # type: ignore[attr-defined]
        return slow(*args, **kwargs)

    dispatcher.counts = [0, 0, 0]  # type: ignore[attr-defined]
    dispatcher.program = at_hand  # type: ignore[attr-defined]
    return dispatcher


def _need(holds: object) -> None:
    if not holds:
        raise Misfit


def _type(v: Any, o: Any, known: Any, a: int, b: int, c: int, d: int, e: int) -> None:
    _need(type(o[a]) is known[b])


def _is(v: Any, o: Any, known: Any, a: int, b: int, c: int, d: int, e: int) -> None:
    _need(o[a] is known[b])


def _array(v: Any, o: Any, known: Any, a: int, b: int, c: int, d: int, e: int) -> None:
    x = o[a]
    _need(type(x) is np.ndarray)
    _need(x.ndim == c and fits(x) and (x.dtype is known[b] or x.dtype.num in (e & 0xFFFF, e >> 16)))
    v[d] = address(x)
    for k, size in enumerate(x.shape):
        v[d + 1 + k] = size


def _attr(v: Any, o: Any, known: Any, a: int, b: int, c: int, d: int, e: int) -> None:
    try:
        o[d] = getattr(o[a], known[b])
    except Exception:
        raise Misfit from None


def _item(v: Any, o: Any, known: Any, a: int, b: int, c: int, d: int, e: int) -> None:
    _need(type(o[a]) is tuple and len(o[a]) == c)
    o[d] = o[a][b]


def _int(v: Any, o: Any, known: Any, a: int, b: int, c: int, d: int, e: int) -> None:
    _need(type(o[a]) is int and -(1 << 63) <= o[a] < 1 << 63)
    v[d] = o[a]


def _float(v: Any, o: Any, known: Any, a: int, b: int, c: int, d: int, e: int) -> None:
    _need(type(o[a]) is float)
    raw = struct.pack("<d", o[a]) if b == 64 else bytes(ctypes.c_float(o[a])) + b"\0\0\0\0"
    v[d] = struct.unpack("<q", raw)[0]


def _address(v: Any, o: Any, known: Any, a: int, b: int, c: int, d: int, e: int) -> None:
    v[d] = ctypes.addressof(v) + 8 * a


def _read(v: Any, o: Any, known: Any, a: int, b: int, c: int, d: int, e: int) -> None:
    kind = ctypes.c_int32 if c == 4 else ctypes.c_int64
    v[d] = kind.from_address(v[a] + c * v[b]).value


def _add(v: Any, o: Any, known: Any, a: int, b: int, c: int, d: int, e: int) -> None:
    v[d] = v[a] + b


def _const(v: Any, o: Any, known: Any, a: int, b: int, c: int, d: int, e: int) -> None:
    v[d] = a


def _shift(v: Any, o: Any, known: Any, a: int, b: int, c: int, d: int, e: int) -> None:
    v[d] = v[a] << b


def _quotient(v: Any, o: Any, known: Any, a: int, b: int, c: int, d: int, e: int) -> None:
    v[d] = v[a] // b


def _times(v: Any, o: Any, known: Any, a: int, b: int, c: int, d: int, e: int) -> None:
    _need(-(1 << 63) <= v[a] * v[b] < 1 << 63)
    v[d] = v[a] * v[b]


def _copy(v: Any, o: Any, known: Any, a: int, b: int, c: int, d: int, e: int) -> None:
    v[d] = v[a]


def _equal(v: Any, o: Any, known: Any, a: int, b: int, c: int, d: int, e: int) -> None:
    _need(v[a] == v[b])


def _within(v: Any, o: Any, known: Any, a: int, b: int, c: int, d: int, e: int) -> None:
    _need(b <= v[a] <= c)


def _atmost(v: Any, o: Any, known: Any, a: int, b: int, c: int, d: int, e: int) -> None:
    _need(v[a] <= v[b])


def _multiple(v: Any, o: Any, known: Any, a: int, b: int, c: int, d: int, e: int) -> None:
    _need(v[a] % b == 0)


def _alloc(v: Any, o: Any, known: Any, a: int, b: int, c: int, d: int, e: int) -> None:
    shape = tuple(v[c : c + b % 256])
    _need(math.prod(shape) * (b // 256) <= installed_memory())
    try:
        o[e] = np.empty(shape, known[a])
    except (ValueError, MemoryError):
        raise Misfit from None
    v[d] = address(o[e])


def _given(v: Any, o: Any, known: Any, given: Any, a: int, b: int, c: int, d: int, e: int) -> None:
    _need(type(given) is np.ndarray)
    _need(given.dtype is known[a] and fits(given) and given.flags.writeable and given.shape == tuple(v[c : c + b % 256]))
    o[e], v[d] = given, address(given)


def _apart(v: Any, o: Any, known: Any, given: Any, a: int, b: int, c: int, d: int, e: int) -> None:
    begins, ends = [v[a], v[c]], []
    for at, form in ((a, b), (c, d)):
        ends.append(v[at] + (form >> 8) * math.prod(v[at + 1 : at + 1 + (form & 255)]))
    _need(ends[0] <= begins[1] or ends[1] <= begins[0])


def _context(v: Any, o: Any, known: Any, a: int, b: int, c: int, d: int, e: int) -> None:
    try:
        value = known[a].get()
    except LookupError:
        raise Misfit from None
    _need(value is known[b])


def _record(v: Any, o: Any, known: Any, a: int, b: int, c: int, d: int, e: int) -> None:
    ctypes.c_int64.from_address(b + 8 * (v[len(v) - 1] % RING)).value = v[a]


def _review(v: Any, o: Any, known: Any, a: int, b: int, c: int, d: int, e: int) -> None:
    _need(v[len(v) - 1] < ctypes.c_int64.from_address(a).value)


def _rank(v: Any, o: Any, known: Any, a: int, b: int, c: int, d: int, e: int) -> None:
    v[d] = v[d] * (c + 1) + bisect_right((ctypes.c_int64 * c).from_address(b), v[a])


def _nothing(v: Any, o: Any, known: Any, a: int, b: int, c: int, d: int, e: int) -> None:
    """Work estimates decide about the interpreter lock, which a launch always releases."""


_STEPS: dict[Op, Callable[..., None]] = {
    Op.END: _nothing,
    Op.TYPE: _type,
    Op.IS: _is,
    Op.ARRAY: _array,
    Op.ATTR: _attr,
    Op.ITEM: _item,
    Op.INT: _int,
    Op.FLOAT: _float,
    Op.ADDRESS: _address,
    Op.READ: _read,
    Op.ADD: _add,
    Op.CONST: _const,
    Op.SHIFT: _shift,
    Op.QUOTIENT: _quotient,
    Op.TIMES: _times,
    Op.COPY: _copy,
    Op.EQUAL: _equal,
    Op.WITHIN: _within,
    Op.ATMOST: _atmost,
    Op.MULTIPLE: _multiple,
    Op.ALLOC: _alloc,
    Op.FACTOR: _nothing,
    Op.TERM: _nothing,
    Op.CONTEXT: _context,
    Op.APART: _nothing,
    Op.RECORD: _record,
    Op.REVIEW: _review,
    Op.RANK: _rank,
    Op.SELECT: _nothing,  # the caller looks at the cell
}

_GIVEN: dict[Op, Callable[..., None]] = {Op.ALLOC: _given, Op.APART: _apart}
"""What these do where the result is given as `out`."""
