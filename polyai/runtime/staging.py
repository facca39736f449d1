"""Calls of several kernels: one counts or bounds the fibres of a sparse result, the next one fills them.

    count J -> J.pos1     the caller reads how much it ends with, and makes room for J.crd1 and what lies along it
    fill J  -> J.crd1, ...

Bounds give more room than is needed, and pages that nobody touches cost nothing. The caller cuts the rows into parts of about equal
bounds; a thread stores a part in memory of its own, and then behind the part before it.

    J.pos1 = 0 3 6 | 9 12     parts of 2 rows, stored are 2, 3, 1, 1      a a b b b . | c d . .
    J.end1 =   2 5   6  7     -> J.pos1 = 0 2 5 6 7                       a a b b b c d

What a phase hands on is an array of the call: memory of NumPy's, named as kernels name it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from polyai.errors import ShapeError, UnsupportedError, VerifyError
from polyai.machine.capacity import memory_available
from polyai.runtime.bind import address
from polyai.runtime.kernel import Kernel, Parameter
from polyai.scalar import dtype as dt
from polyai.scalar.dtype import to_numpy
from polyai.shapes.expr import evaluate, symbol
from polyai.shapes.guard import Guard
from polyai.tensor import nodes as tn
from polyai.term.late import late
from polyai.term.node import node

if TYPE_CHECKING:
    from polyai.shapes import code
else:
    code = late("polyai.shapes.code")

LARGE = 1 << 26
"""Bytes of a result from which on the system is asked whether memory holds it: the question takes as long as filling a megabyte."""
Array = NDArray[Any]
Empty = Callable[[tuple[int, ...], Any], Array]
Launch = Callable[[Kernel, Sequence[int], Mapping[str, int]], None]
Cuts = Callable[[Array, int, int], tuple[Array, int]]
"""`Runtime.cuts`."""


@node
class Plan:
    """What a caller must know of one phase: the pattern it counts (or bounds) or fills, how many fibres that has and how wide its
    indices are, and the shapes of its other results (along a pattern: its name). A phase that counts and fills
    stores at most as much as all patterns of `within` together. `requires`: what must hold of the count. `runs`: the user gave
    the counts."""

    of: int
    counts: str
    fills: str
    rows: Any
    index_bits: int
    shapes: dict[str, Any]
    within: tuple[str, ...] = ()
    requires: tuple[Guard, ...] = ()
    runs: bool = False


class LooseError(Exception):
    """A pattern's bounds are too large to be room for it: it has to be counted."""


SMALL = 1 << 24
"""Bytes of a result that are asked for without a look at how much memory is free."""
PART = 16_384
"""Elements of a part of the rows: worth a task, and what it stores stays in the second-level cache until it is taken away."""


def key_of(key: str, number: int) -> str:
    """The cache key of phase `number` of a program; that of the first is the program's."""
    return key if number == 0 else f"{key}-{number}"


def described(program: tn.Program, counts: str, fills: str, types: Mapping[str, tn.TensorType], of: int, within: Sequence[str] = (), requires: Sequence[Guard] = ()) -> dict[str, Any]:
    """A phase as values that JSON can hold."""
    own = tn.types_of(program)
    name = counts or fills
    made = types.get(name)
    rows, bits = 0, 32
    if made is not None and made.format is not None:
        rows, bits = code.packed(made.shape[made.format.order[0]]), made.format.index_bits
        if bits not in (32, 64):
            raise VerifyError(f"{name} has indices of {bits} bits", "positions of what kernels assemble have 32 or 64", "report this with the program")
    special = {f"{counts}.pos1", f"{fills}.crd1", f"{fills}.val", f"{fills}.end1"}
    shapes: dict[str, Any] = {}
    for output in program.outputs:
        if output not in special:
            pattern = own[output].pattern
            blocks = () if pattern is None else _blocks(types[pattern.owner])
            if pattern is None:
                shapes[output] = [code.packed(s) for s in own[output].shape]
            else:  # of dense blocks that are stored, all elements
                shapes[output] = [code.packed(symbol(tn.nnz_of(pattern.owner))), code.packed(math.prod(blocks))] if blocks else pattern.owner
    wanted = [[code.packed(g.left), g.relation, code.packed(g.right), g.text, g.why] for g in requires]
    runs = made is not None and made.format is not None and made.format.name == "spread" and bool(counts)
    return {"requires": wanted, "runs": runs, "of": of, "counts": counts, "fills": fills, "rows": rows, "index_bits": bits, "shapes": shapes, "within": list(within)}


def _blocks(type: tn.TensorType) -> tuple[Any, ...]:
    """The extents of the dense levels below the listed ones, of a pattern that is made."""
    form = type.format
    return () if form is None or not form.tail or form.parts else tuple(type.shape[d] for d in form.order[len(form.levels) - form.tail :])


def plan_of(kernel: Kernel) -> Plan | None:
    """The plan of a kernel that is a phase. Raises VerifyError for metadata of another make."""
    data = kernel.extra.get("phase")
    if data is None:
        return None
    try:
        numbers = int(data["of"]), str(data["counts"]), str(data["fills"]), code.unpacked(data["rows"]), int(data["index_bits"])
        wanted = tuple(Guard(code.unpacked(a), str(relation), code.unpacked(b), str(text), str(why)) for a, relation, b, text, why in data["requires"])
        return Plan(*numbers, dict(data["shapes"]), tuple(data["within"]), wanted, bool(data["runs"]))
    except (KeyError, TypeError, ValueError) as error:
        raise VerifyError("the metadata of a phase is malformed", repr(error)) from None


def run(
    kernels: Sequence[Kernel],
    arrays: MutableMapping[str, Array],
    values: MutableMapping[str, int],
    given: Mapping[str, Array],
    launch: Launch,
    cuts_of: Cuts,
    empty: Empty = np.empty,
) -> None:
    """Run the phases in order, the rows of packed patterns in parts for the threads that `values` says. `arrays` and `values` gain
    what they make; results go to the arrays `given` where there are some, else to what `empty` makes.

    Raises what their checks find, ShapeError before an allocation that memory cannot hold, and LooseError if patterns have to be
    counted.
    """
    stages, arguments = [stage_of(kernel) for kernel in kernels], set(arrays)
    for number, stage in enumerate(stages):
        plan = stage.plan
        results: dict[str, Array] = {}
        if plan.within:
            values[tn.nnz_of(plan.counts)] = _fitting(sum(values[tn.nnz_of(name)] for name in plan.within), plan)
        if stage.packed:
            _cut(plan, arrays, values, cuts_of)
            positions = np.zeros(evaluate(plan.rows, values) + 1, f"i{plan.index_bits // 8}")
            results[f"{plan.fills}.end1"] = positions[1:]
        for name, p in stage.results:
            if name not in results:
                results[name] = given[name] if name in given else _room(p, plan, values, arrays, empty)
        slots = [values[name] if kind == SIZE else address(results[name] if kind == RESULT else arrays[name]) for kind, name in stage.slots]
        launch(kernels[number], slots, values)
        if stage.packed:
            arrays[f"{plan.fills}.pos1"], values[tn.nnz_of(plan.fills)] = positions, int(positions[-1])
            for name in stage.along:
                results[name].resize(positions[-1], refcheck=False)
        arrays.update(results)
        if plan.counts:
            width = next((s.width for s in stages[number + 1 :] if s.packed and s.plan.fills == plan.counts), 0)
            _counted(plan, arrays, values, width)
    for kernel in kernels:  # results that a kernel made under another name
        for name, made in kernel.extra.get("aliases", {}).items():
            if made in arrays and name not in arrays:
                arrays[name] = arrays[made].copy() if made in arguments else arrays[made]


SIZE, ARGUMENT, RESULT = range(3)


@node
class Stage:
    """A phase as calls need it: where each parameter comes from, its results, those along the pattern that it packs, and the bytes
    of an element of these together."""

    plan: Plan
    packed: bool
    slots: tuple[tuple[int, str], ...]
    results: tuple[tuple[str, Parameter], ...]
    along: tuple[str, ...]
    width: int


def stage_of(kernel: Kernel) -> Stage:
    """A phase, ready to be called."""
    if isinstance(kernel.known, Stage):
        return kernel.known
    plan = plan_of(kernel)
    if plan is None:
        raise VerifyError(f"kernel {kernel.signature.name} is no phase")
    parameters, second = kernel.signature.parameters, kernel.extra.get("aliases", {})
    kinds = [RESULT if p.role == "output" else SIZE if p.rank is None else ARGUMENT for p in parameters]
    slots = tuple((kind, p.name if kind == RESULT else first_name(p.name, second)) for kind, p in zip(kinds, parameters))
    results = tuple((p.name, p) for p in parameters if p.role == "output")
    packed = bool(plan.fills) and any(p.name == f"{plan.fills}.cuts" for p in parameters)
    along = tuple(p for p in results if p[0] in (f"{plan.fills}.crd1", f"{plan.fills}.val") or plan.shapes.get(p[0]) == plan.fills) if packed else ()
    width = sum(to_numpy(dt.BY_NAME[p.dtype]).itemsize for _, p in along)
    kernel.known = made = Stage(plan, packed, slots, results, tuple(name for name, _ in along), width)
    return made


def _cut(plan: Plan, arrays: MutableMapping[str, Array], values: MutableMapping[str, int], cuts_of: Cuts) -> None:
    """Cut the rows of a packed pattern into parts of about equal bounds."""
    total = values[tn.nnz_of(plan.fills)]
    cuts, most = cuts_of(arrays[f"{plan.fills}.pos1"], total, parts_of(total))
    arrays[f"{plan.fills}.cuts"], values[f"{plan.fills}.chunks"] = cuts, len(cuts) - 1
    values[f"{plan.fills}.part"] = most


def parts_of(total: int) -> int:
    """How many parts rows with `total` elements at most are cut into."""
    return max(1, total // PART)


def _counted(plan: Plan, arrays: MutableMapping[str, Array], values: MutableMapping[str, int], width: int = 0) -> None:
    """The positions of a pattern in the width of its indices, and how much it stores, or can store in elements of `width` bytes."""
    name = f"{plan.counts}.pos1"
    if plan.runs and (arrays[name][1:] < arrays[name][:-1]).any():
        at = int(np.argmax(arrays[name][1:] < arrays[name][:-1]))
        given = (int(arrays[name][at + 1]) - int(arrays[name][at]) + (1 << 63)) % (1 << 64) - (1 << 63)  # sums wrap
        if given >= 0:
            raise ShapeError("the counts of repeat sum to 2**63 or more", f"that of element {at} is {given}", "repeat a part of it at a time")
        raise ShapeError(f"repeat with the count {given} for element {at}", "counts are not negative", "use maximum(counts, 0)")
    total, bound = int(arrays[name][-1]), values.get(tn.nnz_of(plan.counts))
    values[tn.nnz_of(plan.counts)] = total
    if width:
        if not has_room(total, width, plan.index_bits):
            raise LooseError
        return
    _fitting(total, plan)
    for wanted in plan.requires:
        if not wanted.holds(values):
            found = f"{evaluate(wanted.left, values)} {wanted.relation} {evaluate(wanted.right, values)}"
            raise ShapeError(f"{wanted.text} does not hold: {found}", f"{wanted.why} relies on it, and data decide this size", "select what fits, or use where() in place of a mask")
    if plan.index_bits == 32:
        arrays[name] = arrays[name].astype(np.int32, copy=False)
    if plan.within and total != bound:
        for part in (f"{plan.fills}.crd1", f"{plan.fills}.val"):
            arrays[part] = arrays[part][:total].copy()


def has_room(total: int, width: int, index_bits: int) -> bool:
    """Whether memory and indices allow room for `total` elements of `width` bytes, of which fewer will be stored."""
    if total * width > SMALL:
        available = memory_available()
        if available is not None and total * width > available // 2:
            return False
    return index_bits > 32 or total <= np.iinfo(np.int32).max


def _fitting(total: int, plan: Plan) -> int:
    """`total` elements, if indices of the plan's width can count them."""
    if plan.index_bits == 32 and total > np.iinfo(np.int32).max:
        raise UnsupportedError(
            f"the result would store {total} elements",
            "its indices have 32 bits, as those of the operands",
            "give one operand 64-bit indices: A.indices = A.indices.astype(np.int64), and indptr alike",
        )
    return total


def _room(p: Parameter, plan: Plan, values: Mapping[str, int], arrays: Mapping[str, Array], empty: Empty) -> Array:
    """Memory for a result of a phase. Along the pattern of an argument there are as many elements as it has: blocks and padding hold more
    than is stored."""
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
        if not isinstance(known, str):
            shape = tuple(evaluate(code.unpacked(s), values) for s in known)
        else:
            shape = arrays[f"{known}.val"].shape if f"{known}.val" in arrays else (values[tn.nnz_of(known)],)
    total = dtype.itemsize
    for extent in shape:
        total *= extent
    available = memory_available() if total > SMALL else None
    if available is not None and total > available:
        raise ShapeError(
            f"the result {p.name.partition('.')[0]} would take {total:,} bytes",
            f"its shape is {shape} and {available:,} bytes of memory are free",
            "work on a part of it, or multiply in another order",
        )
    return empty(shape, dtype)


def first_name(name: str, second: Mapping[str, str]) -> str:
    """The argument's array or size that a second name of it means: `A_again.crd1` is `A.crd1`."""
    tensor, dot, suffix = name.partition(".")
    return f"{second[tensor]}{dot}{suffix}" if tensor in second else name
