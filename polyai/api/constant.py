"""Operands declared constant: prepared at the first call, remembered, and watched for changes.

A sparse matrix is laid out by `prepare`. A dense one, by itself or in a tuple, list or dict, gets panels for products from the
right. The arrays of such a matrix are made read-only, so that a direct change in place is refused by NumPy where it is made. A change
of another kind is found at a later call: replaced arrays and arrays made writable again at the next one, which prepares anew;
a write through a view that was taken before at the latest after as many calls as the arrays have segments of 4 KiB, since
each call compares one segment, and then the call raises.
"""

from __future__ import annotations

import operator
import threading
import weakref
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polyai.api.function import Function
from polyai.api.preparing import prepare
from polyai.errors import AliasError, OptionError
from polyai.explanation import Explanation
from polyai.frontend.arguments import has_traced, parameter_names
from polyai.frontend.held import Held
from polyai.frontend.prepared import by_position
from polyai.frontend.spec import Spec
from polyai.frontend.tree import Tree, flatten
from polyai.machine.cpu import cores, host
from polyai.options import ACTIVE, current
from polyai.report import Report
from polyai.sparse.interop import is_sparse
from polyai.sparse.owned import Owned
from polyai.sparse.panels import Panels, suits
from polyai.sparse.prepared import Prepared

Array = NDArray[Any]
SEGMENT = 4096
"""Bytes that a call compares."""
MOST_KEPT = 64
"""Values that one function remembers."""
PLAIN = frozenset((np.ndarray, float, int, bool, np.float32, np.float64))
"""Types of arguments that are passed on without a look."""
ROWS = 6
"""Rows of a register tile, whose columns are those of a panel: a tile that reads half of a panel's row would fetch all of it."""


class Watched:
    """A matrix that was laid out: which arrays it had then, and a checksum of every segment of them."""

    def __init__(self, matrix: Any, name: str, laid_out: Prepared | Panels) -> None:
        self.name, self.laid_out = name, laid_out
        self.arrays = arrays_of(matrix)
        self.next = 0
        for array in self.arrays:
            array.flags.writeable = False
        self.bytes = [a.reshape(-1).view(np.uint8).data if a.flags.c_contiguous else None for a in self.arrays]
        self.sums = [zlib.crc32(piece) for piece in map(self.segment, range(self.segments))]

    @property
    def segments(self) -> int:
        """How many there are in all arrays together."""
        return sum(-(-a.nbytes // SEGMENT) for a in self.arrays)

    def segment(self, number: int) -> bytes | memoryview:
        """Its bytes."""
        for array, known in zip(self.arrays, self.bytes):
            count = -(-array.nbytes // SEGMENT)
            if number < count:
                return (known or array.tobytes())[number * SEGMENT : (number + 1) * SEGMENT]
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
    """The arrays that hold what a scipy.sparse value, or an array itself, is."""
    if isinstance(matrix, np.ndarray):
        return (matrix,)
    if matrix.format in ("csr", "csc", "bsr"):
        return matrix.indptr, matrix.indices, matrix.data
    if matrix.format == "coo":
        return (*matrix.coords, matrix.data) if hasattr(matrix, "coords") else (matrix.row, matrix.col, matrix.data)
    raise OptionError(
        f"a {matrix.format} matrix is declared constant", "its values lie in lists or dictionaries, whose changes cannot be noticed", "pass A.tocsr()"
    )


class Kept:
    """A nested value whose matrices were laid out: its leaves then, the argument in its place, and who watches the matrices."""

    def __init__(self, leaves: list[Any], tree: Tree, watched: list[Watched | None]) -> None:
        self.leaves, self.tree = leaves, tree
        self.flat = tree.kind == "dict" and all(child.kind == "leaf" for child in tree.children)
        self.watched = [w for w in watched if w is not None]
        self.held = Held(tuple(leaf if w is None else w.laid_out for leaf, w in zip(leaves, watched)), tree)
        self.next = 0

    def is_of(self, leaves: list[Any], tree: Tree) -> bool:
        """Whether a value has the same matrices, read-only, in the same places."""
        if len(leaves) != len(self.leaves) or any(a is not b for a, b in zip(leaves, self.leaves)) or tree != self.tree:
            return False
        return not any(w.arrays[0].flags.writeable for w in self.watched)

    def still_is(self, value: Any) -> bool:
        """The same for a value, quickly where it is a dict of arrays."""
        if self.flat and type(value) is dict:
            if tuple(value) != self.tree.keys or not all(map(operator.is_, value.values(), self.leaves)):
                return False
            return not any(w.arrays[0].flags.writeable for w in self.watched)
        return self.is_of(*flatten(value))

    def check(self) -> None:
        """Compare a segment of the next matrix. Raises AliasError if it has changed."""
        if self.watched:
            self.next = (self.next + 1) % len(self.watched)
            self.watched[self.next].check()


class Route:
    """How calls with certain constant values go: `kept` by the places of these, and the function over all arrays."""

    def __init__(self, kept: dict[int, Kept], function: Function) -> None:
        self.kept, self.function = kept, function

    def arguments(self, args: tuple[Any, ...]) -> list[Any] | None:
        """What the function is given for these arguments; None if they are not plain, or no longer the same values."""
        out: list[Any] = []
        for place, value in enumerate(args):
            kept = self.kept.get(place)
            if kept is None:
                if type(value) not in PLAIN:
                    return None
                out.append(value)
            elif not kept.still_is(value):
                return None
            else:
                kept.check()
                out += kept.held.arrays
        return out


class ConstantFunction(Function):
    """A compiled function some of whose arguments are prepared once; see `jit`."""

    def __init__(self, fn: Callable[..., Any], constant: Sequence[str | int], **options: Any) -> None:
        super().__init__(fn, **options)
        names = parameter_names(fn)
        self._constant = tuple(sorted({self._place(c, names) for c in constant}))
        self._names = names
        self._watched: dict[tuple[int, int], Watched] = {}
        self._kept: dict[int, Kept] = {}
        self._routes: dict[tuple[int, ...], Route] = {}
        self._watch_lock = threading.RLock()

    def _made_with(self) -> dict[str, Any]:
        return {"constant": self._constant, **super()._made_with()}

    def _place(self, constant: str | int, names: tuple[str, ...]) -> int:
        if isinstance(constant, str) and constant in names:
            return names.index(constant)
        if isinstance(constant, int) and 0 <= constant < len(names):
            return constant
        raise OptionError(f"constant={constant!r} names no parameter of {self._name}", f"it has {', '.join(names) or 'none'}", "check the spelling")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if (not kwargs or (len(kwargs) == 1 and "out" in kwargs)) and len(args) > self._constant[-1]:
            route = self._routes.get((id(ACTIVE.get()), *(id(args[place]) for place in self._constant)))
            plain = None if route is None else route.arguments(args)
            if route is not None and plain is not None:
                return route.function(*plain, **kwargs)
        return self._slow(*args, **kwargs)

    def _slow(self, *args: Any, out: Any = None, **kwargs: Any) -> Any:
        if has_traced(args, kwargs):
            return super()._slow(*args, out=out, **kwargs)
        given, kwargs = self._given(args, kwargs)
        kept = {place: found for place in self._constant if place < len(args) and (found := self._kept.get(id(args[place]))) is not None}
        if not kwargs and len(kept) == len(self._constant) and all(found.still_is(args[place]) for place, found in kept.items()):
            function, _, _ = self._with_prepared(given, kwargs)
            if len(self._routes) >= MOST_KEPT:
                self._routes.clear()
            self._routes[(id(ACTIVE.get()), *(id(args[place]) for place in self._constant))] = Route(kept, function)
        return super()._slow(*given, out=out, **kwargs)

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
            if place < len(out) and not isinstance(out[place], (Prepared, Owned, Held, Spec)):
                out[place] = self._laid_out(out[place], self._names[place])
        return tuple(out), kwargs

    def _laid_out(self, value: Any, name: str) -> Prepared | Held:
        if is_sparse(value):
            threads = current().num_threads or cores()
            watched = self._watch(value, name, threads, lambda: prepare(value, threads=threads))
            watched.check()
            assert isinstance(watched.laid_out, Prepared)
            return watched.laid_out
        if not isinstance(value, (np.ndarray, tuple, list, dict)):
            raise OptionError(
                f"{name} is declared constant and is a {type(value).__name__}", "sparse and dense matrices are laid out", "leave it out of constant="
            )
        leaves, tree = flatten(value)
        kept = self._kept.get(id(value))
        if kept is None or not kept.is_of(leaves, tree):
            kept = Kept(leaves, tree, [self._panels(leaf, name) for leaf in leaves])
            if len(self._kept) >= MOST_KEPT:
                self._kept.clear()
            self._kept[id(value)] = kept
        kept.check()
        return kept.held

    def _panels(self, leaf: Any, name: str) -> Watched | None:
        """The watched panels of a dense matrix; None for what is passed as it is."""
        if not isinstance(leaf, np.ndarray) or leaf.dtype.kind != "f":
            return None
        target = host()
        bits = min(target.vector_bits, current().vector_bits or target.vector_bits)
        vectors = 1 << (max(1, target.registers * 3 // 4 // ROWS).bit_length() - 1)
        lanes = vectors * max(1, bits // (8 * leaf.itemsize))
        return self._watch(leaf, name, -lanes, lambda: Panels(leaf, lanes)) if suits(leaf, lanes) else None

    def _watch(self, matrix: Any, name: str, how: int, lay_out: Callable[[], Prepared | Panels]) -> Watched:
        """What was laid out of a matrix, now if it was not before. `how`: one number for each layout."""
        key = (id(matrix), how)
        found = self._watched.get(key)
        if found is None or not found.is_of(matrix):
            with self._watch_lock:
                found = self._watched.get(key)
                if found is None or not found.is_of(matrix):
                    arrays_of(matrix)
                    found = self._watched[key] = Watched(matrix, name, lay_out())
                    weakref.finalize(matrix, self._watched.pop, key, None)
        return found
