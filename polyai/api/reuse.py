"""Sparse results whose pattern is assembled once and filled many times: the numeric phase without the symbolic one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from polyai.api.declared import Declared
from polyai.api.function import Function
from polyai.calls.binding import Variant
from polyai.calls.engine import kernels_again, variant_of
from polyai.calls.refill import Refill
from polyai.errors import SparseStructureError, UnsupportedError
from polyai.frontend.trace import trace
from polyai.options import current
from polyai.sparse.owned import frozen
from polyai.sparse.prepared import Prepared
from polyai.tensor import deciding


class Assembled:
    """A function with the patterns of its sparse results for given operands; see `pattern`."""

    def __init__(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        inner = fn._fn if isinstance(fn, (Function, Declared)) else fn
        self._name = getattr(inner, "__name__", "function")
        options = current()
        args, kwargs = _by_rows(args, kwargs)
        self._traced = trace(inner, args, kwargs, name=self._name)
        if self._traced.decided:
            sizes = ", ".join(text for _, text, _ in self._traced.decided)
            raise UnsupportedError(f"{self._name} selects by values", f"they decide the size {sizes}, and may change between calls", "call it as it is")
        self._variant = variant_of(self._traced, options)
        if len(self._variant.kernels) < 2:
            raise UnsupportedError(
                f"{self._name} assembles no sparse result", "its results are dense, or have the pattern of an argument", "call it as it is"
            )
        if any(kernel.extra.get("located") for kernel in self._variant.kernels):
            self._variant = Variant(self._traced, kernels_again(self._traced, options, "kept"), self._variant.runtime)
        self._deciding = self._decided_by(args, kwargs)
        self._shapes = self._shapes_of(args, kwargs)
        given = self._variant.index_arrays(args, kwargs)
        copies = {id(array): frozen(array) for array in given.values()}  # matrices may share index arrays
        self._index = {name: copies[id(array)] for name, array in given.items()}
        assembled, self._counts = self._variant.assembled(self._index, args, kwargs, options)
        self._made = {name: frozen(array) for name, array in assembled.items()}
        self._kernels = kernels_again(self._traced, options)
        self._quick: dict[int, Refill | None] = {}  # by number of threads

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        options = current()
        quick = None if kwargs else self._quick.get(options.num_threads or 0)
        found = None if quick is None else quick.call(args)
        if found is not None:
            return found
        args, kwargs = _by_rows(args, kwargs)
        given, shapes = self._variant.index_arrays(args, kwargs), self._shapes_of(args, kwargs)
        for name, shape in shapes.items():
            if shape != self._shapes[name]:  # kernels know that indices are in range for these
                raise SparseStructureError(
                    f"{name} has the shape {shape}, and had {self._shapes[name]} when {self._name} was assembled",
                    "only values may change between calls",
                    "make a new handle: pattern(fn, ...)",
                )
        for name, values in self._decided_by(args, kwargs).items():
            if not np.array_equal(values, self._deciding[name]):
                raise SparseStructureError(
                    f"{name} has other values than when {self._name} was assembled",
                    "they decide what its results store",
                    "make a new handle: pattern(fn, ...)",
                )
        for name, array in given.items():
            if not np.array_equal(array, self._index[name]):
                raise SparseStructureError(
                    f"{name.partition('.')[0]} has another pattern than when {self._name} was assembled",
                    "only values may change between calls",
                    "make a new handle: pattern(fn, ...)",
                )
        values = self._traced.values(self._traced.arguments(args, kwargs))
        if self._traced.broken_guard(values) is not None:
            self._traced.check(values)
        kept = {**self._index, **self._made}
        made = self._variant.run_again(self._kernels, kept, self._counts, args, kwargs, options)
        if not kwargs:
            self._quick.setdefault(options.num_threads or 0, Refill.of(self._variant, self._kernels, kept, self._counts, args, options))
        return made

    def _shapes_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, tuple[int, ...]]:
        """The shapes of the sparse arguments."""
        given = self._traced.arguments(args, kwargs)
        return {slot.text: tuple(given[slot.name].shape) for slot in self._traced.inputs if slot.kind == "sparse"}

    def _decided_by(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Copies of the arguments whose values decide what is stored, such as index arrays. Raises UnsupportedError if a sparse one does."""
        given, names = self._traced.arguments(args, kwargs), deciding.run(self._traced.program)
        for slot in self._traced.inputs:
            if slot.name in names and slot.kind == "sparse":
                raise UnsupportedError(
                    f"the values of {slot.text} decide what the results of {self._name} store", "they may change between calls", "call it as it is"
                )
        return {slot.text: np.array(given[slot.name]) for slot in self._traced.inputs if slot.name in names}

    @property
    def nbytes(self) -> int:
        """Bytes of the patterns that are kept."""
        return sum(a.nbytes for a in {id(a): a for a in (*self._made.values(), *self._index.values())}.values())

    def __repr__(self) -> str:
        return f"<{self._name} with assembled patterns, {self.nbytes} bytes>"


def _by_rows(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments with the rows of prepared matrices in place of these: sparse results are made from rows."""
    rows = tuple(a.matrix if type(a) is Prepared else a for a in args)
    return rows, {k: a.matrix if type(a) is Prepared else a for k, a in kwargs.items()}


def pattern(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Assembled:
    """The patterns of `fn`'s sparse results for these arguments, assembled once, as a function of new values.

        h = pattern(lambda A, B: A @ B, A, B)
        C = h(A2, B2)                     A2, B2 store what A, B store, with other values

    Args:
        fn: A function with a sparse result that is not along an argument's pattern: a product or a sum of sparse arrays.
        args, kwargs: Its arguments. Index arrays are compared at each call.

    Dense arguments that decide what is stored (the rows of `A[rows]`) are compared, too. A call gives what `fn` gives; the index arrays of its results are the handle's, which cannot be written: `C.copy()` has arrays of its
    own. Raises UnsupportedError if `fn` assembles nothing, or the values of a sparse argument decide what is stored,
    SparseStructureError for arguments of another pattern, or whose rows are not in order where they are merged.
    """
    return Assembled(fn, args, kwargs)
