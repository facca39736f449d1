"""What the arguments of a native call must be, and the part of its program that looks at them (see dispatch_code)."""

from __future__ import annotations

import ctypes
import struct
from contextvars import ContextVar
from typing import Any, Literal, Protocol, Union

import numpy as np

from polyai.errors import VerifyError
from polyai.runtime.dispatch_code import Op
from polyai.runtime.shared import Shared
from polyai.scalar.dtype import DType, to_numpy
from polyai.term.node import node


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
    ("out", k)            address of the k-th result                         ("times", source, n)  n times a number
    ("divided", source, m, n)  (a number + m) / n, rounded down, m >= 0 and n > 0
"""

Guard = tuple[Any, ...]
"""What must hold: ("equal", source, source), ("atmost", source, source), ("within", source, low, high) or ("multiple", source, n)."""

BIG = (1 << 63) - 1


class Call(Protocol):
    """What a program is told of the arguments of a call."""

    @property
    def args(self) -> tuple[Arg, ...]: ...
    @property
    def guards(self) -> tuple[Guard, ...]: ...
    @property
    def bundles(self) -> tuple[Bundle | None, ...]: ...
    @property
    def nargs(self) -> int: ...


class Arguments:
    """The part of a program that looks at the arguments of a call. Numbers and objects get places as they are met."""

    def __init__(self, spec: Call, token: tuple[ContextVar[Any], object] | None) -> None:
        self.steps: list[tuple[int, ...]] = []
        self.nargs = spec.nargs
        self.keep: list[object] = [spec]
        self._numbers = 0
        self._objects = spec.nargs
        self._known: dict[Source, int] = {}
        self._arrays: list[tuple[int, int]] = []  # places of the arrays of the call, with their item size << 8 | rank
        if token is not None:
            self._do(Op.CONTEXT, self._hold(token[0]), self._hold(token[1]))
        self._things = self._unbundled(spec) if spec.bundles else list(range(spec.nargs))  # places of what `args` describe
        for k, arg in enumerate(spec.args):
            self._check(k, arg)
        for guard in spec.guards:
            self._guard(guard)

    def number(self, count: int = 1) -> int:
        """The first of `count` new places for numbers."""
        first = self._numbers
        self._numbers += count
        return first

    def place(self, source: Source) -> int:
        """The place of a source; constants get one when they are first asked for."""
        if source not in self._known:
            if source[0] == "times":
                one, factor = self.place(source[1]), self.place(("const", source[2]))
                self._known[source] = self.number()
                self._do(Op.TIMES, one, factor, d=self._known[source])
                return self._known[source]
            if source[0] == "divided":
                whole, more = self.place(source[1]), self.number()
                self._do(Op.ADD, whole, source[2], d=more)
                self._known[source] = self.number()
                self._do(Op.QUOTIENT, more, source[3], d=self._known[source])
                return self._known[source]
            if source[0] != "const":
                raise VerifyError(f"the arguments of a dispatcher give no {source!r}", f"they give {sorted(map(repr, self._known))}")
            self._known[source] = self.number()
            self._do(Op.CONST, source[1], d=self._known[source])
        return self._known[source]

    @property
    def room(self) -> int:
        """How many places it needs, for numbers or objects."""
        return max(self._numbers, self._objects)

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

    def _unbundled(self, spec: Call) -> list[int]:
        """The places of what bundles hold, and of the arguments between them."""
        out: list[int] = []
        for n, bundle in enumerate(spec.bundles):
            if bundle is None:
                out.append(n)
                continue
            self._do(Op.TYPE, n, self._hold(bundle.type))
            self._do(Op.IS, self._attribute(n, "key"), self._hold(bundle.key))
            out += self._items(self._attribute(n, "arrays"), bundle.count)
        if len(out) != len(spec.args):
            raise VerifyError(f"the bundles of a dispatcher hold {len(out)} things", f"it describes {len(spec.args)}")
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


def type_numbers(descr: np.dtype[Any]) -> int:
    """NumPy's one or two numbers of a dtype in one word: C's `long` and `long long` may be the same."""
    twin = {"q": "l", "l": "q", "Q": "L", "L": "Q", "i": "l", "I": "L"}.get(descr.char, descr.char)
    second = np.dtype(twin)
    return descr.num | (second.num if second.itemsize == descr.itemsize else descr.num) << 16


def _word(value: int) -> int:
    return value - (1 << 64) if value > BIG else value
