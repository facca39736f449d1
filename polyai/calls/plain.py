"""Plain calls: where each number that a kernel needs comes from, for native dispatch. What is not plain goes the slow way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from polyai.frontend.sizes import Guard
from polyai.frontend.traced import Traced
from polyai.runtime.arguments import ArrayArg, LevelsArg, ScalarArg, SparseArg
from polyai.runtime.dispatch import DispatchSpec, Output
from polyai.runtime.kernel import Kernel, Parameter
from polyai.runtime.staging import first_name
from polyai.scalar import dtype as dt
from polyai.shapes import expr as sx
from polyai.shapes.expr import Size
from polyai.sparse import interop
from polyai.sparse.format import Format
from polyai.sparse.levels.compressed import Compressed
from polyai.sparse.owned import Owned
from polyai.sparse.stands import Checked
from polyai.tensor import nodes as tn


class Sources:
    """Says where each number of a call with the arguments `args` comes from. `types` are those of all tensors of the program."""

    def __init__(self, traced: Traced, types: Mapping[str, tn.TensorType], args: tuple[Any, ...], kernel: Kernel | None = None, outputs: Sequence[str] = ()) -> None:
        self.traced, self.types, self.kernel, self.outputs, self.args = traced, types, kernel, outputs, args
        self.position = {slot.name: n for n, slot in enumerate(traced.inputs)}
        self.second: dict[str, str] = {} if kernel is None else kernel.extra.get("aliases", {})
        self.symbols: dict[str, tuple[Any, ...]] = {}
        for s in traced.symbols:
            if (s.factor, s.offset) != (1, 0):
                continue
            known = {"extent": ("dim", s.input, s.dim), "nnz": ("nnz", s.input), "value": ("value", s.input), "positions": ("positions", s.input, s.dim), "length": ("length", s.input, s.dim)}
            if s.what in known:
                self.symbols.setdefault(s.symbol, known[s.what])

    def spec(self) -> DispatchSpec | None:
        """The call of the one kernel as native code follows it; None if it is not plain."""
        assert self.kernel is not None
        kinds = [self.argument(n, value) for n, value in enumerate(self.args)]
        guards = [self.guard(g) for g in self.traced.guards]
        patterns = [self.types[name].pattern for name in self.outputs]
        if any(pattern is not None and pattern.owner not in self.position for pattern in patterns):
            return None
        shapes = [self._shape(name) for name in self.outputs]
        slots = [self._slot(p) for p in self.kernel.signature.parameters]
        if None in kinds or None in guards or any(None in shape for shape in shapes) or None in slots:
            return None
        work = tuple(
            (*self._stored(owner)[:2], ("const", 2)) if self._padded(owner) else (source, ("const", 2 * self._fill(owner)))
            for s, source in self.symbols.items()
            if s.endswith(".nnz") and (owner := s.removesuffix(".nnz"))
        )
        dense = [tuple(e if isinstance(e, tuple) else ("const", e) for e in shape) for shape in shapes if shape]
        return DispatchSpec(
            tuple(k for k in kinds if k is not None),
            tuple(s for s in slots if s is not None),
            tuple(Output(self.types[name].dtype, tuple(shape)) for name, shape in zip(self.outputs, shapes)),
            tuple(g for g in guards if g is not None),
            (*work, *dense),
        )

    def _shape(self, name: str) -> list[Any]:
        pattern = self.types[name].pattern
        return [self.size(e) for e in self.types[name].shape] if pattern is None else self._stored(pattern.owner)

    def _fill(self, owner: str) -> int:
        format = self.types[owner].format
        return 1 if format is None else format.fill

    def _padded(self, owner: str) -> bool:
        format = self.types[owner].format
        return format is not None and format.padded

    def _stored(self, owner: str) -> list[Any]:
        """The shape of values along the pattern of `owner`."""
        format = self.types[owner].format
        if self._padded(owner):
            return [("length", self.position[owner], level) for level in range(2)]
        block = [format.block(0), format.block(1)] if format is not None and format.blocked else []
        return [("nnz", self.position[owner]), *block]

    def argument(self, n: int, value: Any) -> ArrayArg | SparseArg | LevelsArg | ScalarArg | None:
        """What the n-th argument of calls like this one is; None if native calls do not know such."""
        slot = self.traced.inputs[n]
        type_ = self.types[slot.name]
        if type_.is_sparse:
            found = interop.describe(value)
            if type(value) is Owned and len(value.shape) > 2 and type_.format is not None:
                return SparseArg("runs", Owned, type_.dtype, dt.BY_NAME[f"i{type_.format.index_bits}"], rank=len(value.shape))
            if found is None or found.converted or type_.format is None:
                return None
            index = dt.BY_NAME[f"i{type_.format.index_bits}"]
            checked = isinstance(value, Checked)
            if checked:
                levels = _levels(type_.format)
                plain = levels and value.format == type_.format and value.data.ndim == 1 and index.bits in (32, 64)
                return LevelsArg(type(value), value.format, type_.dtype, index, value.ndim, levels) if plain else None
            if found.kind not in ("csr", "csc", "bsr", "dia", "coo") or (len(found.shape) != 2 and value.format != "coo"):
                return None
            block = (type_.format.block(0) or 1, type_.format.block(1) or 1)
            return SparseArg(found.kind, type(value), type_.dtype, index, block, len(found.shape))  # type: ignore[arg-type]
        if slot.kind == "scalar":
            return ScalarArg(type_.dtype) if type_.dtype.name in ("i64", "f64") and type(value) in (int, float) else None
        return ArrayArg(type_.dtype, type_.rank) if type(value) is np.ndarray else None

    def _slot(self, p: Parameter) -> tuple[Any, ...] | None:
        if p.rank is None:
            return self.symbols.get(first_name(p.name, self.second))
        if p.role == "output":
            return next((("out", n) for n, name in enumerate(self.outputs) if p.name in (name, f"{name}.val")), None)
        return self.array(first_name(p.name, self.second))

    def array(self, name: str) -> tuple[Any, ...]:
        """Where the address of an argument's array comes from, by the name that kernels give it."""
        tensor, _, suffix = name.partition(".")
        if not suffix:
            return ("data", self.position[tensor])
        n = self.position[tensor]
        if isinstance(self.args[n], Checked) and suffix != "val":
            return (suffix[:3], n, int(suffix[3:]))
        if suffix.startswith("pos"):
            return ("pos", n)
        if suffix == "val":
            return ("val", n)
        found = interop.describe(self.args[n])
        return ("crd", n, int(suffix[3:])) if found is not None and found.kind in ("coo", "dia") else ("crd", n)

    def size(self, size: Size) -> Any:
        """A size as a source, or an int; None if it is neither a number nor one symbol."""
        if isinstance(size, int):
            return size
        if len(size.terms) == 1 and size.terms[0][1] == 1 and len(size.terms[0][0]) == 1:
            atom = size.terms[0][0][0]
            if isinstance(atom, sx.Sym):
                return self.symbols.get(atom.name)
        return None

    def guard(self, guard: Guard) -> tuple[Any, ...] | None:
        """What has to hold, in sources; None if it cannot be said in these."""
        if isinstance(guard.left, sx.SizeExpr) and guard.relation == "==" and guard.right == 0:
            match guard.left.terms:
                case (((sx.Mod(num, int() as divisor),), 1),) if divisor > 0:
                    whole = self.size(num)
                    return None if whole is None else ("multiple", whole, divisor)
        left, right = self.size(guard.left), self.size(guard.right)
        if left is None or right is None:
            return None
        if isinstance(left, int):
            if isinstance(right, int):
                return ("equal", ("const", left), ("const", right)) if guard.relation == "==" else None
            flipped = {"==": "==", "<": ">", "<=": ">=", ">": "<", ">=": "<="}.get(guard.relation)
            return _against_number(right, flipped, left)
        if isinstance(right, int):
            return _against_number(left, guard.relation, right)
        match guard.relation:
            case "==":
                return ("equal", left, right)
            case "<=":
                return ("atmost", left, right)
            case ">=":
                return ("atmost", right, left)
            case _:
                return None


def _levels(format: Format) -> tuple[tuple[str, int], ...]:
    """The levels as native calls know them; () if they do not know one."""
    out = [
        ("dense" if level.full else level.name, dimension)
        for level, dimension in zip(format.levels, format.order)
        if level.full or level.name == "singleton" or (isinstance(level, Compressed) and not level.computed)
    ]
    return tuple(out) if len(out) == format.rank and not format.parts and not format.padded else ()


def _against_number(source: tuple[Any, ...], relation: str | None, number: int) -> tuple[Any, ...] | None:
    top = (1 << 62) - 1
    bounds = {"==": (number, number), "<": (0, number - 1), "<=": (0, number), ">": (number + 1, top), ">=": (number, top)}
    if relation not in bounds:
        return None
    low, high = bounds[relation]
    return ("within", source, max(low, 0), high)
