"""What a call of a traced function gives: the arrays that kernels write to, and what is made of them."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from polyai.errors import ShapeError
from polyai.frontend import tree
from polyai.frontend.traced import ArrayOut, Traced
from polyai.machine.capacity import installed_memory
from polyai.runtime.bind import apart, no_overlap, output_array
from polyai.runtime.kernel import Kernel
from polyai.runtime.launch import Runtime
from polyai.scalar.dtype import to_numpy
from polyai.shapes import expr as sx
from polyai.shapes.expr import Size
from polyai.sparse import interop
from polyai.sparse.format import Format, checks_its_order, shared, with_fill
from polyai.tensor import nodes as tn
from polyai.term.late import late

if TYPE_CHECKING:
    from polyai.sparse import results, storage, tensor
else:
    results, storage, tensor = map(late, ("polyai.sparse.results", "polyai.sparse.storage", "polyai.sparse.tensor"))

Array = NDArray[Any]


def _rebuilt(traced: Traced, count: int, *given: Any) -> Any:
    """What a function returns, of its `count` dense results, which come before the arguments."""
    return traced.rebuild([value if value.ndim else value[()] for value in given[:count]], {})


class Outcome:
    """The results of `traced` by the kernels at hand, which write the arrays named `written`. `kernel`: the only one, if it is one."""

    def __init__(self, traced: Traced, types: Mapping[str, tn.TensorType], kernels: tuple[Kernel, ...], kernel: Kernel | None, runtime: Runtime) -> None:
        self.traced, self.kernel, self.runtime = traced, kernel, runtime
        self._types = types
        self.names = traced.program.outputs
        self.written = {p.name for k in kernels for p in k.signature.parameters if p.role == "output"}

    def _shape(self, shape: tuple[Size, ...], values: Mapping[str, int]) -> tuple[int, ...]:
        return tuple(e if isinstance(e, int) else sx.evaluate(e, values) for e in shape)

    def room(self, values: Mapping[str, int], arrays: Mapping[str, Array], out: Any) -> dict[str, Array]:
        """The arrays that the kernel writes to, by name: those of `out=`, or new ones."""
        made: dict[str, Array] = {}
        wanted = dict(zip(self.names, self._given_outputs(out))) if out is not None else {}
        for name in self.names:
            type_ = self._types[name]
            written = name if name in self.written else f"{name}.val"
            if written not in self.written:
                continue
            if type_.pattern is not None:
                shape: tuple[int, ...] = arrays[f"{type_.pattern.owner}.val"].shape
            else:
                shape = self._shape(type_.shape, values)
            if name in wanted:
                if type_.pattern is not None:
                    raise ShapeError("out cannot receive a sparse result", f"{name} is sparse", "leave out= away")
                made[written] = output_array(wanted[name], type_.dtype.name, shape)
            else:
                _affordable(name, type_.dtype.bytes, shape)
                made[written] = self.runtime.empty(tuple(shape), to_numpy(type_.dtype))
        no_overlap(list(made.values()) if out is not None else [])
        return made

    def _given_outputs(self, out: Any) -> Sequence[Any]:
        first: dict[int, Any] = {}
        for position, array in self._places(out):
            first.setdefault(position, array)
        return [first[n] for n in range(len(self.names))]

    def _places(self, out: Any) -> list[tuple[int, Any]]:
        """The arrays of `out=`, each with the number of its result: one for each result, or for each place where one is returned."""
        given = out if isinstance(out, (tuple, list)) else (out,)
        returned = [o.position for o in self.traced.outputs if isinstance(o, ArrayOut)]
        places = range(len(self.names)) if len(given) == len(self.names) else returned
        if len(given) != len(places):
            raise ShapeError(f"out has {len(given)} arrays", f"the function has {len(self.names)} results", "pass one array per result")
        return list(zip(places, given))

    def finished(
        self, made: Mapping[str, Array], described: Mapping[str, interop.Described], arrays: Mapping[str, Array], values: Mapping[str, int], out: Any = None
    ) -> Any:
        """What the call returns, of the arrays `made` and the arguments'."""
        done = [self._finish(name, made, described, arrays, values) for name in self.names]
        self._give(out, done)
        return self.traced.rebuild([self._wrapped(o, done) for o in self._ordered()], values)

    def finisher(self) -> Callable[..., Any] | None:
        """What makes what the function returns of its dense results and the arguments, which follow them; None if it returns the array."""
        if self.traced.out_tree == tree.LEAF and self._types[self.names[0]].shape and not self._is_changed(0):
            return None
        return functools.partial(_rebuilt, self.traced, len(self.names))

    def _is_changed(self, position: int) -> bool:
        return any(isinstance(o, ArrayOut) and o.position == position and (o.number or o.line) for o in self.traced.outputs)

    def _give(self, out: Any, finished: list[Any]) -> None:
        """Copy what no kernel wrote to the arrays of `out=`: arguments that are returned, and results that are returned twice."""
        for position, array in () if out is None else self._places(out):
            value, type_ = finished[position], self._types[self.names[position]]
            if type_.pattern is not None:
                raise ShapeError("out cannot receive a sparse result", f"{self.names[position]} is sparse", "leave out= away")
            if array is not value:
                np.copyto(output_array(array, type_.dtype.name, value.shape), value)
                finished[position] = array

    def _finish(
        self, name: str, made: Mapping[str, Array], described: Mapping[str, interop.Described], arrays: Mapping[str, Array], values: Mapping[str, int]
    ) -> Any:
        type_ = self._types[name]
        found = made.get(name, made.get(f"{name}.val"))
        if type_.pattern is None:
            return found if found is not None else arrays[name].copy()
        owner = described.get(type_.pattern.owner)
        if owner is None:
            return self._assembled(name, arrays, values, described)
        if not self.looks_at_indices(type_.pattern.owner):
            interop.validate_fully(owner.holder)
        stored = found.reshape(arrays[f"{type_.pattern.owner}.val"].shape) if found is not None else arrays[f"{name}.val"].copy()
        if owner.kind == "storage":
            held = interop.with_values(owner.holder, stored, type_.pattern.dims)
            if any(slot.rows == "scipy" and slot.name == type_.pattern.owner for slot in self.traced.inputs):
                return interop.listed(held)
            return tensor.SparseArray(held.format, held.shape, held.arrays) if isinstance(held, storage.Storage) else held
        prefix = f"{type_.pattern.owner}."
        parts = {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix) and n != f"{prefix}val"}
        kind, shape = owner.kind, owner.shape
        if type_.pattern.dims != tuple(range(len(shape))):
            shape = tuple(shape[d] for d in type_.pattern.dims)
            if kind == "bsr":  # SciPy has no blocks by columns
                self.runtime.stats.count("conversions")
                return interop.result(kind, owner.shape, {**parts, "val": stored}, like=owner.holder).T.tobsr()
            if kind == "dia":  # diagonals are cut off at columns: SciPy shifts them
                return interop.result(kind, owner.shape, {**parts, "val": stored}, like=owner.holder).T
            kind = {"csr": "csc", "csc": "csr"}.get(kind, kind)
            if kind == "coo":
                parts |= {f"crd{n}": parts[f"crd{d}"] for n, d in enumerate(type_.pattern.dims)}
        return interop.result(kind, shape, {**parts, "val": stored}, like=owner.holder)

    def _assembled(self, name: str, arrays: Mapping[str, Array], values: Mapping[str, int], described: Mapping[str, interop.Described]) -> Any:
        """A result along a pattern that the kernels made."""
        pattern = self._types[name].pattern
        assert pattern is not None
        made = self._types[pattern.owner]
        assert made.format is not None
        stored = arrays[name] if name in arrays else arrays[f"{name}.val"]
        if made.format.tail:
            parts = {part: arrays[f"{pattern.owner}.{part}"] for part in ("pos1", "crd1")}
            return tensor.SparseArray.around(shared(made.format), self._shape(self._types[name].shape, values), {**parts, "val": stored.reshape(-1)})
        if made.format.rank > 2:
            return self._listed(name, made.format, arrays, values, described)
        turned = pattern.dims != (0, 1)
        kind = {"csr": "csc", "csc": "csr"}[made.format.name] if turned else made.format.name
        parts = {"pos1": arrays[f"{pattern.owner}.pos1"], "crd1": arrays[f"{pattern.owner}.crd1"], "val": stored}
        shape = self._shape(self._types[name].shape, values)
        matrix = any(isinstance(o, ArrayOut) and self.names[o.position] == name and o.is_matrix for o in self.traced.outputs)
        return results.made(kind, shape, parts, matrix, tidy=True)

    def _listed(self, name: str, form: Format, arrays: Mapping[str, Array], values: Mapping[str, int], described: Mapping[str, interop.Described]) -> Any:
        """A result of more than two dimensions: a SparseArray, or SciPy's COO if all sparse arguments are SciPy's."""
        pattern = self._types[name].pattern
        assert pattern is not None
        parts = {part: arrays[f"{pattern.owner}.{part}"] for part in ("pos1", *(f"crd{n}" for n in range(1, form.rank)))}
        turned = dataclasses.replace(form, order=tuple(pattern.dims.index(d) for d in form.order))
        listed = storage.Storage(turned, self._shape(self._types[name].shape, values), {**parts, "val": arrays[name] if name in arrays else arrays[f"{name}.val"]})
        given = {slot.name: slot.rows for slot in self.traced.inputs}
        from_scipy = all(found.kind == "coo" or given[argument] == "scipy" for argument, found in described.items() if len(found.shape) > 2)
        return interop.listed(listed) if from_scipy else tensor.SparseArray.around(shared(listed.format), listed.shape, listed.arrays)

    def looks_at_indices(self, owner: str) -> bool:
        """Whether the kernel checks every coordinate of `owner`. It checks what it uses; a result along a pattern holds all."""
        sites = self.kernel.signature.sites if self.kernel is not None else ()
        arrays = 1 if checks_its_order(self._types[owner].format) else self._types[owner].rank
        return sum(f"index {{value}} of {owner} is outside" in s.what for s in sites) >= arrays

    def _ordered(self) -> list[ArrayOut]:
        found: dict[int, ArrayOut] = {}
        for o in self.traced.outputs:
            if isinstance(o, ArrayOut):
                found.setdefault(o.position, o)
        return [found[n] for n in range(len(self.names))]

    def _wrapped(self, o: ArrayOut, finished: Sequence[Any]) -> Any:
        value = finished[o.position]
        if isinstance(value, np.ndarray) and value.ndim == 0:
            return value[()]
        if o.fill != 0 or (not isinstance(value, np.ndarray) and isinstance(value, tensor.SparseArray) and value.format.fill_value != o.fill):
            stored = interop.storage_of(value)
            return tensor.SparseArray.around(with_fill(stored.format, o.fill), stored.shape, stored.arrays)
        return value

    def given_room(self, values: Mapping[str, int], arrays: dict[str, Array], out: Any) -> dict[str, Array]:
        """The arrays of `out=` by output; arguments that share memory with one are replaced by copies."""
        if out is None:
            return {}
        given: dict[str, Array] = {}
        for name, array in zip(self.names, self._given_outputs(out)):
            type_ = self._types[name]
            if type_.pattern is not None:
                raise ShapeError("out cannot receive a sparse result", f"{name} is sparse", "leave out= away")
            if any(not sx.symbols(e).isdisjoint(n for n, *_ in self.traced.decided) for e in type_.shape):
                raise ShapeError(f"out cannot receive {name}, whose size data decide", "it is known once the call has counted", "leave out= away")
            given[name] = output_array(array, type_.dtype.name, self._shape(type_.shape, values))
        no_overlap(list(given.values()))
        names = [n for n in arrays if arrays[n].size]
        safe = [arrays[n] for n in names]
        for result in given.values():
            safe = apart(result, safe, self.runtime.stats)
        arrays.update(zip(names, safe))
        return given


def along(owner: int, checked: bool, values: Array, *args: Any) -> Any:
    """The result of a call whose values lie along the pattern of the argument `owner`."""
    if not checked:
        interop.validate_fully(args[owner])
    return interop.with_values(args[owner], values)


def _affordable(name: str, item: int, shape: tuple[int, ...]) -> None:
    """Raise before a result is allocated that is larger than all memory: some systems give the addresses, and end the process later."""
    total = item * math.prod(shape)
    if total > installed_memory():
        have = f"its shape is {shape}, and this process can have {installed_memory():,} bytes at most"
        raise ShapeError(f"the result {name} would take {total:,} bytes", have, "work on a part of it")
