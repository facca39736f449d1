"""Loads and stores: which instruction reaches memory for which index.

    index              unmasked                   masked
    scalar             load, store                a branch around them
    ramp of stride 1   vector load, store         llvm.masked.load, llvm.masked.store
    ramp of stride -1  the same, lanes reversed   gather, scatter
    other vectors      gather, scatter            gather, scatter

Elements are aligned to their own size only. A complex element is two components, interleaved.
"""

from __future__ import annotations

from polyai.machine import cast
from polyai.machine import types as ty
from polyai.machine.build import STABLE, Function
from polyai.machine.num import Num
from polyai.machine.values import Value, flat, widened
from polyai.scalar.dtype import DType
from polyai.term.node import record


@record
class Array:
    """An array in memory. `stable`: nobody writes its elements while the kernel runs. With `stride` it is one buffer for
    each thread, `stride` bytes apart, and `ref` is that of thread 0."""

    ref: str
    dtype: DType
    stable: bool = False
    stride: str | None = None


@record
class Register:
    """Stack slots, one per component, that the first LLVM pass turns into SSA values."""

    slots: tuple[str, ...]
    dtype: DType
    lanes: int


def register(fn: Function, dtype: DType, lanes: int) -> Register:
    kind = ty.vector(ty.element(dtype), lanes)
    return Register(tuple(fn.alloca(kind) for _ in range(2 if dtype.is_complex else 1)), dtype, lanes)


def read_register(fn: Function, reg: Register) -> Value:
    elem = ty.element(reg.dtype)
    kind = ty.vector(elem, reg.lanes)
    parts = [Num(fn, elem, reg.lanes, fn.op(f"load {kind}, ptr {slot}")) for slot in reg.slots]
    return Value(reg.dtype, reg.lanes, parts[0], parts[1] if len(parts) > 1 else None)


def write_register(fn: Function, reg: Register, value: Value, mask: Num | None) -> None:
    value = widened(flat(value), reg.lanes)
    if mask is not None:
        old = read_register(fn, reg)
        keep = mask.widened(reg.lanes)
        im = None if value.im is None or old.im is None else keep.where(value.im, old.im)
        value = Value(value.dtype, value.lanes, keep.where(value.re, old.re), im)
    for slot, part in zip(reg.slots, (value.re, value.im)):
        if part is not None:
            fn.do(f"store {part.kind} {part.ref}, ptr {slot}")


def _align(elem: str) -> int:
    return ty.bits_of(elem) // 8


def _at(fn: Function, ref: str, elem: str, index: str) -> str:
    return fn.op(f"getelementptr {elem}, ptr {ref}, i64 {index}")


def _pointers(fn: Function, ref: str, elem: str, index: Value, factor: int, shift: int) -> str:
    """The addresses of component `shift` of `factor` per lane; a ramp keeps its scalar base so that a gather can use it."""
    if index.stride is not None:
        base = index.re * factor if factor > 1 else index.re
        start = _at(fn, ref, elem, base.ref)
        steps = ", ".join(f"i64 {k * index.stride * factor + shift}" for k in range(index.lanes))
        return fn.op(f"getelementptr {elem}, ptr {start}, <{index.lanes} x i64> <{steps}>")
    lanes = index.re * factor + shift if factor > 1 else index.re
    return fn.op(f"getelementptr {elem}, ptr {ref}, {lanes.kind} {lanes.ref}")


def load(fn: Function, array: Array, index: Value, mask: Num | None) -> Value:
    """Elements of `array` at `index`; lanes with a false mask give zero."""
    dtype = array.dtype
    elem = ty.memory(dtype)
    stable = STABLE if array.stable else ""
    count = 2 if dtype.is_complex else 1
    lanes = index.lanes
    if mask is not None and mask.lanes > lanes:
        index = widened(index, mask.lanes)
        lanes = index.lanes
    if lanes == 1:
        return _load_scalar(fn, array, index, mask, elem, count, stable)
    if mask is not None:
        mask = mask.widened(lanes)
    if index.stride == 0 and mask is None:
        one = _load_scalar(fn, array, Value(index.dtype, 1, index.re), None, elem, count, stable)
        return widened(one, lanes)
    if index.stride == 1 or (index.stride == -1 and mask is None):
        base = index.re if index.stride == 1 else index.re - (lanes - 1)
        whole = _load_run(fn, array, base, lanes * count, _repeated(fn, mask, count), elem, stable)
        order = list(range(lanes)) if index.stride == 1 else list(range(lanes - 1, -1, -1))
        if count == 1 and index.stride == 1:
            parts = [whole]
        else:
            parts = [
                Num(fn, elem, lanes, fn.shuffle(whole.kind, whole.ref, "poison", [k * count + c for k in order])) for c in range(count)
            ]
    else:
        parts = [_gather(fn, array.ref, elem, index, count, c, mask) for c in range(count)]
    loaded = [cast.from_memory(part, dtype) for part in parts]
    return Value(dtype, lanes, loaded[0], loaded[1] if count > 1 else None)


def prefetch(fn: Function, array: Array | Register, index: Num, near: bool = True) -> None:
    """Ask for the line of `array` at `index`; any address is allowed. `near`: into the first cache."""
    if isinstance(array, Array):
        count = 2 if array.dtype.is_complex else 1
        at = _at(fn, array.ref, ty.memory(array.dtype), (index * count if count > 1 else index).ref)
        fn.module.declare("void", "llvm.prefetch.p0", ("ptr", "i32", "i32", "i32"))
        fn.do(f"call void @llvm.prefetch.p0(ptr {at}, i32 0, i32 {3 if near else 2}, i32 1)")


def _load_scalar(fn: Function, array: Array, index: Value, mask: Num | None, elem: str, count: int, stable: str) -> Value:
    def read() -> list[Num]:
        start = index.re * count if count > 1 else index.re
        first = _at(fn, array.ref, elem, start.ref)
        places = [first] if count == 1 else [first, _at(fn, first, elem, "1")]
        return [Num(fn, elem, 1, fn.read(f"load {elem}, ptr {place}, align {_align(elem)}{stable}", array.stable)) for place in places]

    if mask is None:
        parts = read()
    else:
        inside, after, before = fn.label("load"), fn.label("after"), fn.at
        fn.do(f"br i1 {mask.ref}, label %{inside}, label %{after}")
        fn.start(inside)
        known = fn.enter()
        found = read()
        fn.leave(known)
        fn.do(f"br label %{after}")
        fn.start(after)
        parts = []
        for part in found:
            ref, close = fn.phi(elem)
            close([(part.ref, inside), (ty.literal(0, elem), before)])
            parts.append(Num(fn, elem, 1, ref))
    loaded = [cast.from_memory(part, array.dtype) for part in parts]
    return Value(array.dtype, 1, loaded[0], loaded[1] if count > 1 else None)


def _repeated(fn: Function, mask: Num | None, count: int) -> Num | None:
    """A mask of elements as a mask of interleaved components."""
    if mask is None or count == 1:
        return mask
    picks = [k for k in range(mask.lanes) for _ in range(count)]
    if mask.ref[0] != "%":
        return Num(fn, "i1", len(picks), mask.ref)
    return Num(fn, "i1", len(picks), fn.shuffle(mask.kind, mask.ref, "poison", picks))


def _load_run(fn: Function, array: Array, base: Num, lanes: int, mask: Num | None, elem: str, stable: str) -> Num:
    """`lanes` consecutive components; base counts elements."""
    start = base * 2 if array.dtype.is_complex else base
    place = _at(fn, array.ref, elem, start.ref)
    kind = ty.vector(elem, lanes)
    if mask is None:
        return Num(fn, elem, lanes, fn.read(f"load {kind}, ptr {place}, align {_align(elem)}{stable}", array.stable))
    name = f"llvm.masked.load.{ty.mangled(elem, lanes)}.p0"
    fn.module.declare(kind, name, ("ptr", "i32", mask.kind, kind))
    text = f"call {kind} @{name}(ptr {place}, i32 {_align(elem)}, {mask.kind} {mask.ref}, {kind} zeroinitializer)"
    return Num(fn, elem, lanes, fn.read(text, array.stable))


def _gather(fn: Function, ref: str, elem: str, index: Value, count: int, part: int, mask: Num | None) -> Num:
    lanes = index.lanes
    kind, pointers = ty.vector(elem, lanes), _pointers(fn, ref, elem, index, count, part)
    chosen = "splat (i1 true)" if mask is None else mask.ref
    name = f"llvm.masked.gather.{ty.mangled(elem, lanes)}.{ty.mangled('ptr', lanes)}"
    fn.module.declare(kind, name, (f"<{lanes} x ptr>", "i32", f"<{lanes} x i1>", kind))
    args = f"<{lanes} x ptr> {pointers}, i32 {_align(elem)}, <{lanes} x i1> {chosen}, {kind} zeroinitializer"
    return Num(fn, elem, lanes, fn.op(f"call {kind} @{name}({args})"))


def store(fn: Function, array: Array, index: Value, value: Value, mask: Num | None) -> None:
    """Write `value` at `index` where `mask` is true. Lanes that meet in one element: the last one stays."""
    elem = ty.memory(array.dtype)
    fn.written()
    lanes = max(index.lanes, value.lanes, 1 if mask is None else mask.lanes)
    value = widened(flat(value), lanes)
    parts = [cast.to_memory(part, array.dtype) for part in (value.re, value.im) if part is not None]
    count = len(parts)
    if lanes == 1:
        _store_scalar(fn, array, index, parts, mask, elem)
        return
    index = widened(index, lanes)
    mask = None if mask is None else mask.widened(lanes)
    if index.stride != 1:
        for c, part in enumerate(parts):
            _scatter(fn, array.ref, elem, index, count, c, mask, part)
        return
    whole = parts[0]
    if count > 1:
        picks = [c * lanes + k for k in range(lanes) for c in range(count)]
        whole = Num(fn, elem, lanes * count, fn.shuffle(parts[0].kind, parts[0].ref, parts[1].ref, picks))
    chosen = _repeated(fn, mask, count)
    start = index.re * count if count > 1 else index.re
    place = _at(fn, array.ref, elem, start.ref)
    if chosen is None:
        fn.do(f"store {whole.kind} {whole.ref}, ptr {place}, align {_align(elem)}")
        return
    name = f"llvm.masked.store.{ty.mangled(elem, whole.lanes)}.p0"
    fn.module.declare("void", name, (whole.kind, "ptr", "i32", chosen.kind))
    fn.do(f"call void @{name}({whole.kind} {whole.ref}, ptr {place}, i32 {_align(elem)}, {chosen.kind} {chosen.ref})")


def _store_scalar(fn: Function, array: Array, index: Value, parts: list[Num], mask: Num | None, elem: str) -> None:
    after = ""
    if mask is not None:
        inside, after = fn.label("store"), fn.label("after")
        fn.do(f"br i1 {mask.ref}, label %{inside}, label %{after}")
        fn.start(inside)
    known = fn.enter()
    start = index.re * len(parts) if len(parts) > 1 else index.re
    place = _at(fn, array.ref, elem, start.ref)
    for c, part in enumerate(parts):
        where = place if c == 0 else _at(fn, place, elem, str(c))
        fn.do(f"store {elem} {part.ref}, ptr {where}, align {_align(elem)}")
    fn.leave(known)
    if mask is not None:
        fn.do(f"br label %{after}")
        fn.start(after)


def _scatter(fn: Function, ref: str, elem: str, index: Value, count: int, part: int, mask: Num | None, value: Num) -> None:
    lanes = index.lanes
    pointers = _pointers(fn, ref, elem, index, count, part)
    chosen = "splat (i1 true)" if mask is None else mask.ref
    name = f"llvm.masked.scatter.{ty.mangled(elem, lanes)}.{ty.mangled('ptr', lanes)}"
    fn.module.declare("void", name, (value.kind, f"<{lanes} x ptr>", "i32", f"<{lanes} x i1>"))
    args = f"{value.kind} {value.ref}, <{lanes} x ptr> {pointers}, i32 {_align(elem)}, <{lanes} x i1> {chosen}"
    fn.do(f"call void @{name}({args})")
