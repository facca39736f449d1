"""Calls of several kernels: one counts the fibres of a sparse result, the next one fills them.

    count J -> J.pos1     the caller reads how much it ends with, and makes room for J.crd1 and what lies along it
    fill J  -> J.crd1, ...

What a phase hands on is an array of the call: memory of NumPy's, named as kernels name it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polyai.errors import ShapeError, UnsupportedError, VerifyError
from polyai.runtime.bind import address
from polyai.runtime.kernel import Kernel, Parameter
from polyai.scalar import dtype as dt
from polyai.scalar.dtype import to_numpy
from polyai.shapes.code import packed, unpacked
from polyai.shapes.expr import evaluate
from polyai.tensor import nodes as tn
from polyai.term.node import node

LARGE = 1 << 26
"""Bytes of a result from which on the system is asked whether memory holds it: the question takes as long as filling a megabyte."""
Array = NDArray[Any]
Launch = Callable[[Kernel, Sequence[int], Mapping[str, int]], None]


@node
class Plan:
    """What a caller must know of one phase: the pattern it counts or fills, how many fibres that has and how wide its indices are,
    and the shapes of its other results (along a pattern: its name). A phase that counts and fills stores at most as much as
    all patterns of `within` together."""

    of: int
    counts: str
    fills: str
    rows: Any
    index_bits: int
    shapes: dict[str, Any]
    within: tuple[str, ...] = ()


def key_of(key: str, number: int) -> str:
    """The cache key of phase `number` of a program; that of the first is the program's."""
    return key if number == 0 else f"{key}-{number}"


def described(program: tn.Program, counts: str, fills: str, types: Mapping[str, tn.TensorType], of: int, within: Sequence[str] = ()) -> dict[str, Any]:
    """A phase as values that JSON can hold."""
    own = tn.types_of(program)
    name = counts or fills
    made = types.get(name)
    rows, bits = 0, 32
    if made is not None and made.format is not None:
        rows, bits = packed(made.shape[made.format.order[0]]), made.format.index_bits
    special = {f"{counts}.pos1", f"{fills}.crd1", f"{fills}.val"}
    shapes = {}
    for output in program.outputs:
        if output not in special:
            pattern = own[output].pattern
            shapes[output] = [packed(s) for s in own[output].shape] if pattern is None else pattern.owner
    return {"of": of, "counts": counts, "fills": fills, "rows": rows, "index_bits": bits, "shapes": shapes, "within": list(within)}


def plan_of(kernel: Kernel) -> Plan | None:
    """The plan of a kernel that is a phase. Raises VerifyError for metadata of another make."""
    if kernel.plan is None:
        kernel.plan = _plan_in(kernel)
    found: Plan | None = kernel.plan
    return found


def _plan_in(kernel: Kernel) -> Plan | None:
    data = kernel.extra.get("phase")
    if data is None:
        return None
    try:
        return Plan(int(data["of"]), str(data["counts"]), str(data["fills"]), unpacked(data["rows"]), int(data["index_bits"]), dict(data["shapes"]), tuple(data["within"]))
    except (KeyError, TypeError, ValueError) as error:
        raise VerifyError("the metadata of a phase is malformed", repr(error)) from None


def run(
    kernels: Sequence[Kernel],
    arrays: MutableMapping[str, Array],
    values: MutableMapping[str, int],
    given: Mapping[str, Array],
    launch: Launch,
) -> None:
    """Run the phases in order. `arrays` and `values` gain what they make; results go to the arrays `given` where there are some.

    Raises what their checks find, and ShapeError before an allocation that memory cannot hold.
    """
    for kernel in kernels:
        plan = plan_of(kernel)
        if plan is None:
            raise VerifyError(f"kernel {kernel.signature.name} is no phase")
        second: dict[str, str] = kernel.extra.get("aliases", {})
        results: dict[str, Array] = {}
        if plan.within:
            values[tn.nnz_of(plan.counts)] = _fitting(sum(values[tn.nnz_of(name)] for name in plan.within), plan)
        for p in kernel.signature.parameters:
            if p.role == "output":
                results[p.name] = given[p.name] if p.name in given else _room(p, plan, values)
        slots = [_slot(p, second, arrays, values, results) for p in kernel.signature.parameters]
        launch(kernel, slots, values)
        arrays.update(results)
        if plan.counts:
            _counted(plan, arrays, values)


def _counted(plan: Plan, arrays: MutableMapping[str, Array], values: MutableMapping[str, int]) -> None:
    """The positions of a pattern in the width of its indices, and how much it stores."""
    name = f"{plan.counts}.pos1"
    total, bound = int(arrays[name][-1]), values.get(tn.nnz_of(plan.counts))
    values[tn.nnz_of(plan.counts)] = _fitting(total, plan)
    if plan.index_bits == 32:
        arrays[name] = arrays[name].astype(np.int32, copy=False)
    if plan.within and total != bound:
        for part in (f"{plan.fills}.crd1", f"{plan.fills}.val"):
            arrays[part] = arrays[part][:total].copy()


def _fitting(total: int, plan: Plan) -> int:
    """`total` elements, if indices of the plan's width can count them."""
    if plan.index_bits == 32 and total > np.iinfo(np.int32).max:
        raise UnsupportedError(
            f"the result would store {total} elements",
            "its indices have 32 bits, as those of the operands",
            "give one operand 64-bit indices: A.indices = A.indices.astype(np.int64), and indptr alike",
        )
    return total


def _room(p: Parameter, plan: Plan, values: Mapping[str, int]) -> Array:
    """Memory for a result of a phase."""
    dtype = to_numpy(dt.BY_NAME[p.dtype])
    shape: tuple[int, ...]
    if p.name == f"{plan.counts}.pos1":
        shape = (evaluate(plan.rows, values) + 1,)
    elif p.name in (f"{plan.fills}.crd1", f"{plan.fills}.val"):
        shape = (values[tn.nnz_of(plan.fills)],)
    else:
        known = plan.shapes.get(p.name)
        if known is None:
            raise VerifyError(f"a phase writes {p.name}, of which its plan says nothing")
        shape = (values[tn.nnz_of(known)],) if isinstance(known, str) else tuple(evaluate(unpacked(s), values) for s in known)
    total = dtype.itemsize
    for extent in shape:
        total *= extent
    available = memory_available() if total >= LARGE else None
    if available is not None and total > available:
        raise ShapeError(
            f"the result {p.name.partition('.')[0]} would take {total:,} bytes",
            f"its shape is {shape} and {available:,} bytes of memory are free",
            "work on a part of it, or multiply in another order",
        )
    return np.empty(shape, dtype)


def memory_available() -> int | None:
    """Bytes of memory that the system says are free or can be made so; None if it does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None


def _slot(p: Parameter, second: Mapping[str, str], arrays: Mapping[str, Array], values: Mapping[str, int], results: Mapping[str, Array]) -> int:
    if p.role == "output":
        return address(results[p.name])
    name = first_name(p.name, second) if second else p.name
    return values[name] if p.rank is None else address(arrays[name])


def first_name(name: str, second: Mapping[str, str]) -> str:
    """The argument's array or size that a second name of it means: `A_again.crd1` is `A.crd1`."""
    tensor, dot, suffix = name.partition(".")
    return f"{second[tensor]}{dot}{suffix}" if tensor in second else name
