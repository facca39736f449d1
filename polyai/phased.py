"""The quick way of calls with phases: arguments are looked at once, and nothing is asked that the first call has answered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any, Protocol

from polyai.errors import SparseStructureError
from polyai.frontend.trace import Traced
from polyai.scalar.dtype import DType
from polyai.sparse import interop
from polyai.sparse.format import Format
from polyai.tensor import nodes as tn

Slow = Callable[..., Any]
Run = Callable[[Sequence[Any], Sequence[interop.Described], dict[str, int]], Any]
NNZ = -1
"""In place of a dimension: the number of stored elements."""


class Phased(Protocol):
    """What runs the phases of a traced function."""

    traced: Traced

    def is_plain(self) -> bool:
        """Whether nothing but types, formats and guards decides which kernels serve a call."""


def quick(variant: Phased, args: tuple[Any, ...], run: Run, slow: Slow, token: tuple[ContextVar[Any], object]) -> Slow | None:
    """A function for calls with matrices like these; what it does not take goes to `slow`. None if the call is not plain enough."""
    traced = variant.traced
    if not variant.is_plain() or [s.path for s in traced.inputs] != [(n,) for n in range(len(args))]:
        return None
    kinds: list[tuple[type, Format | None, DType]] = []
    for slot, value in zip(traced.inputs, args):
        found = interop.describe(value) if slot.kind == "sparse" and not slot.rows else None
        if found is None or found.converted or found.kind not in ("csr", "csc", "coo"):
            return None
        kinds.append((type(value), found.format, found.dtype))
    sources = [(s.symbol, s.input, s.dim if s.what == "extent" else NNZ) for s in traced.symbols]
    sources += [(tn.nnz_of(s.name), n, NNZ) for n, s in enumerate(traced.inputs) if s.name in traced.merged]
    if any(s.what not in ("extent", "nnz") or (s.factor, s.offset) != (1, 0) for s in traced.symbols):
        return None
    if any(isinstance(e, int) for i in traced.program.inputs for e in i.type.shape):
        return None
    context, active = token

    def call(*given: Any, **named: Any) -> Any:
        if named or len(given) != len(kinds) or context.get() is not active:
            return slow(*given, **named)
        described = []
        for value, (kind, form, dtype) in zip(given, kinds):
            found = interop.describe(value) if type(value) is kind else None
            if found is None or found.format != form or found.dtype != dtype:
                return slow(*given)
            described.append(found)
        values = {symbol: described[n].nnz if dim == NNZ else described[n].shape[dim] for symbol, n, dim in sources}
        if traced.guards and traced.broken_guard(values) is not None:
            return slow(*given)
        try:
            return run(given, described, values)
        except SparseStructureError:  # a copy in order may serve
            return slow(*given)

    return call


def arrays_of(inputs: Sequence[tn.Input], given: Sequence[Any], described: Sequence[interop.Described]) -> dict[str, Any]:
    """The arrays of sparse arguments by the names of kernels."""
    out: dict[str, Any] = {}
    for slot, value, found in zip(inputs, given, described):
        out.update((f"{slot.name}.{suffix}", array) for suffix, array in interop.arrays_of(value, found).items())
    return out
