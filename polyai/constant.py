"""Operands declared constant: prepared at the first call, remembered, and watched for changes.

The arrays of such a matrix are made read-only, so that a direct change in place is refused by NumPy where it is made. A change
of another kind is found at a later call: replaced arrays and arrays made writable again at the next one, which prepares anew;
a write through a view that was taken before at the latest after as many calls as the arrays have segments of 4 KiB, since
each call compares one segment, and then the call raises.
"""

from __future__ import annotations

import functools
import threading
import weakref
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polyai import api
from polyai.errors import AliasError, OptionError
from polyai.explain import Explanation
from polyai.frontend.arguments import has_traced, parameter_names
from polyai.frontend.prepared import by_position
from polyai.frontend.spec import Relation
from polyai.machine.cpu import cores
from polyai.options import current
from polyai.prepare import prepare
from polyai.report import Report
from polyai.sparse.interop import is_sparse
from polyai.sparse.owned import Owned
from polyai.sparse.prepared import Prepared

Array = NDArray[Any]
SEGMENT = 4096
"""Bytes that a call compares."""


class Watched:
    """A matrix that was prepared: which arrays it had then, and a checksum of every segment of them."""

    def __init__(self, matrix: Any, name: str, threads: int) -> None:
        self.name, self.prepared = name, prepare(matrix, threads=threads)
        self.arrays = arrays_of(matrix)
        self.next = 0
        for array in self.arrays:
            array.flags.writeable = False
        self.sums = [zlib.crc32(piece) for piece in map(self.segment, range(self.segments))]

    @property
    def segments(self) -> int:
        """How many there are in all arrays together."""
        return sum(-(-a.nbytes // SEGMENT) for a in self.arrays)

    def segment(self, number: int) -> bytes | memoryview:
        """Its bytes."""
        for array in self.arrays:
            count = -(-array.nbytes // SEGMENT)
            if number < count:
                raw = array.reshape(-1).view(np.uint8) if array.flags.c_contiguous else np.frombuffer(array.tobytes(), np.uint8)
                return raw[number * SEGMENT : (number + 1) * SEGMENT].data
            number -= count
        return b""

    def is_of(self, matrix: Any) -> bool:
        """Whether the matrix still has these arrays, read-only."""
        found = arrays_of(matrix)
        return len(found) == len(self.arrays) and all(a is b and not a.flags.writeable for a, b in zip(found, self.arrays))

    def check(self) -> None:
        """Compare the next segment. Raises AliasError if it has changed."""
        if not self.sums:
            return
        number = self.next = (self.next + 1) % len(self.sums)
        if zlib.crc32(self.segment(number)) != self.sums[number]:
            raise AliasError(
                f"{self.name} was declared constant and has changed",
                "its memory was written through another array that shares it",
                "pass a copy, or leave it out of constant= if it changes",
            )


def arrays_of(matrix: Any) -> tuple[Array, ...]:
    """The arrays of a scipy.sparse value that hold what it is."""
    if matrix.format in ("csr", "csc", "bsr"):
        return matrix.indptr, matrix.indices, matrix.data
    if matrix.format == "coo":
        return (*matrix.coords, matrix.data) if hasattr(matrix, "coords") else (matrix.row, matrix.col, matrix.data)
    raise OptionError(
        f"a {matrix.format} matrix is declared constant", "its values lie in lists or dictionaries, whose changes cannot be noticed", "pass A.tocsr()"
    )


class ConstantFunction(api.Function):
    """A compiled function some of whose arguments are prepared once; see `jit`."""

    def __init__(self, fn: Callable[..., Any], constant: Sequence[str | int], **options: Any) -> None:
        super().__init__(fn, **options)
        names = parameter_names(fn)
        self._constant = tuple(sorted({self._place(c, names) for c in constant}))
        self._names = names
        self._watched: dict[tuple[int, int], Watched] = {}
        self._watch_lock = threading.RLock()

    def _place(self, constant: str | int, names: tuple[str, ...]) -> int:
        if isinstance(constant, str) and constant in names:
            return names.index(constant)
        if isinstance(constant, int) and 0 <= constant < len(names):
            return constant
        raise OptionError(f"constant={constant!r} names no parameter of {self._name}", f"it has {', '.join(names) or 'none'}", "check the spelling")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._slow(*args, **kwargs)

    def _slow(self, *args: Any, out: Any = None, **kwargs: Any) -> Any:
        if not has_traced(args, kwargs):
            args, kwargs = self._given(args, kwargs)
        return super()._slow(*args, out=out, **kwargs)

    def explain(self, *args: Any, **kwargs: Any) -> Explanation:
        args, kwargs = self._given(args, kwargs)
        return super().explain(*args, **kwargs)

    def warm(self, *args: Any, sizes: Mapping[str, int | Sequence[int]] | None = None, **kwargs: Any) -> Report:
        args, kwargs = self._given(args, kwargs)
        return super().warm(*args, sizes=sizes, **kwargs)

    def _given(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments with constant matrices replaced by what was prepared of them."""
        if any(self._names[place] in kwargs for place in self._constant):
            args, kwargs = by_position(self._fn, args, kwargs)
        out = list(args)
        for place in self._constant:
            if place < len(out) and not isinstance(out[place], (Prepared, Owned)):
                out[place] = self._prepared(out[place], self._names[place])
        return tuple(out), kwargs

    def _prepared(self, matrix: Any, name: str) -> Prepared:
        if not is_sparse(matrix):
            raise OptionError(f"{name} is declared constant and is a {type(matrix).__name__}", "sparse matrices are prepared", "leave it out of constant=")
        threads = current().num_threads or cores()
        key = (id(matrix), threads)
        found = self._watched.get(key)
        if found is None or not found.is_of(matrix):
            with self._watch_lock:
                found = self._watched.get(key)
                if found is None or not found.is_of(matrix):
                    arrays_of(matrix)
                    found = self._watched[key] = Watched(matrix, name, threads)
                    weakref.finalize(matrix, self._watched.pop, key, None)
        found.check()
        return found.prepared


def jit(
    fn: Callable[..., Any] | None = None,
    *,
    name: str | None = None,
    static: Sequence[str | int] = (),
    dynamic: Any = "all",
    where: Sequence[Relation] = (),
    policy: str | None = None,
    constant: Sequence[str | int] = (),
) -> Any:
    """Compile `fn` at its first call, for every size; use as `@jit`, `@jit(static=("axis",))` or `jit(fn)`.

    Args:
        fn: A function of arrays (NumPy, scipy.sparse), numbers, and tuples, lists and dicts of them.
        name: What messages and explanations call it.
        static: Names or positions of arguments that are baked into the code, whatever they are.
        dynamic: "all" keeps every size a symbol, "none" fixes all sizes, a mapping from argument names to dimensions chooses, and
            may declare them: `{"X": {0: dim("n", max=512)}}`. What it does not name is fixed.
        where: Relations between declared sizes, such as `[n <= m, n % 8 == 0]`.
        policy: Which sizes get kernels of their own, made in the background; see `policy`. None: as the options say.
        constant: Names or positions of sparse matrices that do not change. Each is prepared (see `prepare`) when it is first
            passed, and its arrays are made read-only.

    Returns a `Function`. Calling it raises GuardError for sizes that are not as declared, TraceError where `fn` needs a value that
    only the call knows, ShapeError and DTypeError for operands that do not fit, SparseStructureError for broken index arrays,
    AliasError for a constant matrix that has changed all the same.
    """
    if fn is None:
        return functools.partial(jit, name=name, static=static, dynamic=dynamic, where=where, policy=policy, constant=constant)
    if constant:
        return ConstantFunction(fn, constant, name=name, static=static, dynamic=dynamic, where=where, policy=policy)
    return api.Function(fn, name=name, static=static, dynamic=dynamic, where=where, policy=policy)
