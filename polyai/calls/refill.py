"""The quick way of a handle that keeps patterns: arguments are compared with what is kept, one kernel is called, and that is all.

Where patterns are the same, so are all sizes, all addresses of index arrays, and how much is stored. What is left to find out at a
call is where the values are. A call that is not as the first one was goes the slow way, which also explains what is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

from polyai.errors import PolyAIError
from polyai.frontend.traced import ArrayOut, Traced
from polyai.options import Options
from polyai.runtime import staging
from polyai.runtime.bind import address
from polyai.runtime.kernel import Kernel
from polyai.runtime.launch import Runtime
from polyai.scalar.dtype import BY_NAME, to_numpy
from polyai.shapes.expr import evaluate
from polyai.sparse import interop, results
from polyai.tensor import nodes as tn

Array = NDArray[Any]


class Phased(Protocol):
    """What runs the phases of a traced function."""

    traced: Traced
    runtime: Runtime
    served: int
    ticks: int

    def is_plain(self) -> bool:
        """Whether nothing but types, formats and guards decides which kernels serve a call."""


class Refill:
    """Calls of one kernel that computes values along a kept pattern, for matrices in CSR or CSC."""

    def __init__(self, variant: Phased, kernel: Kernel, index: Mapping[str, Array], known: Mapping[str, int], args: Sequence[Any], result: tuple[str, Any, str]) -> None:
        self.variant, traced = variant, variant.traced
        threads = known[tn.THREADS]
        self.go = variant.runtime.launcher(kernel, threads)
        self.kinds = [
            (type(value), value.shape, value.data.dtype, len(index[f"{slot.name}.crd1"]), index[f"{slot.name}.pos1"], index[f"{slot.name}.crd1"])
            for slot, value in zip(traced.inputs, args)
        ]
        name, dtype, owner = result
        self.dtype, self.stored = dtype, known[tn.nnz_of(owner)]
        stage = staging.stage_of(kernel)
        self.slots = [known[n] if kind == staging.SIZE else address(index[n]) if n in index else 0 for kind, n in stage.slots]
        places = {n: k for k, (_, n) in enumerate(stage.slots)}
        self.given = [places.get(f"{slot.name}.val", -1) for slot in traced.inputs]
        self.result = places[name]
        output = tn.types_of(traced.program)[traced.program.outputs[0]]
        form = tn.types_of(traced.program)[owner].format
        assert output.pattern is not None and form is not None
        self.kind = form.name if output.pattern.dims == (0, 1) else {"csr": "csc", "csc": "csr"}[form.name]
        self.shape = tuple(evaluate(e, known) for e in output.shape)
        self.matrix = any(isinstance(o, ArrayOut) and o.is_matrix for o in traced.outputs)
        self.parts = {part: index[f"{owner}.{part}"] for part in ("pos1", "crd1")}
        self.index = index  # whose addresses the slots hold

    @staticmethod
    def of(variant: Phased, kernels: Sequence[Kernel], index: Mapping[str, Array], counts: Mapping[str, int], args: Sequence[Any], options: Options) -> Refill | None:
        """None if the call is not plain enough, or has other arguments than CSR and CSC."""
        traced = variant.traced
        if len(kernels) != 1 or not variant.is_plain() or traced.statics or [s.path for s in traced.inputs] != [(n,) for n in range(len(args))] or len(traced.program.outputs) != 1:
            return None
        for slot, value in zip(traced.inputs, args):
            found = interop.describe(value) if slot.kind == "sparse" and not slot.rows else None
            if found is None or found.converted or found.kind not in ("csr", "csc") or not isinstance(found.holder, type(value)):
                return None
            if value.data.dtype != to_numpy(found.dtype) or value.indices.dtype != index[f"{slot.name}.crd1"].dtype:
                return None
        stage, output = staging.stage_of(kernels[0]), traced.program.outputs[0]
        pattern = tn.types_of(traced.program)[output].pattern
        if len(stage.results) != 1 or pattern is None or tn.nnz_of(pattern.owner) not in counts or kernels[0].extra.get("aliases"):
            return None
        name, made = stage.results[0]
        if name not in (output, f"{output}.val"):
            return None
        known = {**traced.values(traced.arguments(tuple(args), {})), **counts, tn.THREADS: options.num_threads or variant.runtime.threads_for(variant.runtime.options)}
        known.update((tn.nnz_of(s.name), len(index[f"{s.name}.crd1"])) for s in traced.inputs)
        arrays = {*index, name, *(f"{s.name}.val" for s in traced.inputs)}
        if any(n not in (known if kind == staging.SIZE else arrays) for kind, n in stage.slots):
            return None
        return Refill(variant, kernels[0], index, known, args, (name, to_numpy(BY_NAME[made.dtype]), pattern.owner))

    def call(self, args: Sequence[Any]) -> Any:
        """The result; None if the arguments are others, or the kernel fails."""
        if len(args) != len(self.kinds):
            return None
        slots = self.slots.copy()
        seen: dict[int, Array] = {}  # what arrays were found to be equal to: operands may share them
        for value, (cls, shape, dtype, stored, pos, crd), place in zip(args, self.kinds, self.given):
            if type(value) is not cls or value.shape != shape:
                return None
            matrix: Any = value
            data = matrix.data
            if data.dtype is not dtype or data.ndim != 1 or len(data) < stored or not (data.flags.c_contiguous and data.flags.aligned):
                return None
            for mine, kept in ((matrix.indptr, pos), (matrix.indices, crd)):
                if seen.get(id(mine)) is kept:
                    continue
                if mine.dtype != kept.dtype or len(mine) < len(kept) or not (mine[: len(kept)] == kept).all():
                    return None
                seen[id(mine)] = kept
            if place >= 0:
                slots[place] = address(data)
        variant = self.variant
        made = variant.runtime.empty((self.stored,), self.dtype)
        slots[self.result] = address(made)
        began = variant.runtime.ticks()
        try:
            self.go(slots)
        except PolyAIError:
            return None
        variant.ticks += variant.runtime.ticks() - began
        variant.served += 1
        return results.made(self.kind, self.shape, {**self.parts, "val": made}, self.matrix, tidy=True)
