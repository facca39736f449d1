"""Expressions of the loop language as instructions.

Lanes are inferred bottom up; a scalar that meets a vector is repeated. Sums of floats with a product become multiply-adds
(one rounding instead of two). Index arithmetic on ramps stays a ramp, so that contiguous accesses are seen as such.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from polyai.errors import UnsupportedError, VerifyError
from polyai.loop import nodes as lp
from polyai.machine import intrinsics, memory
from polyai.machine.build import Function
from polyai.machine.cast import cast
from polyai.machine.num import Num
from polyai.machine.values import Value, boolean, constant, flat, product, widened
from polyai.scalar import dtype as dt
from polyai.scalar.dtype import DType
from polyai.scalar.ops import MONOIDS as MONOID_TABLE
from polyai.scalar.ops import OPS, Monoid
from polyai.term.late import late

if TYPE_CHECKING:
    from polyai.machine import complex as cx
else:
    cx = late("polyai.machine.complex")

Saved = tuple[dict[str, Value], dict[str, memory.Array | memory.Register], dict[str, str]]


class Scope:
    """The function being written and what its names mean at this place."""

    def __init__(self, fn: Function) -> None:
        self.fn = fn
        self.values: dict[str, Value] = {}
        self.arrays: dict[str, memory.Array | memory.Register] = {}

    def enter(self) -> Saved:
        """Open a region whose names end with it; give the result to `leave`."""
        saved = self.values, self.arrays, self.fn.enter()
        self.values, self.arrays = dict(self.values), dict(self.arrays)
        return saved

    def leave(self, saved: Saved) -> None:
        self.values, self.arrays, known = saved
        self.fn.leave(known)

    def integer(self, value: int) -> Num:
        return Num(self.fn, "i64", 1, str(value))

    def number(self, value: bool | int | float | complex, dtype: DType) -> Value:
        return constant(self.fn, value, dtype)

    def expr(self, e: lp.LoopExpr) -> Value:
        """The value of `e`."""
        match e:
            case lp.Var(name, _):
                return self._name(name)
            case lp.Apply(op, args, dtype):
                return self.apply(op, [self.expr(a) for a in args], dtype)
            case lp.Const(value, dtype):
                return self.number(value, dtype)
            case lp.Load(array, indices, _):
                return self._load(array, indices, None)
            case lp.MaskedLoad(array, indices, mask, _):
                return self._load(array, indices, self.mask(mask))
            case lp.Cast(arg, dtype):
                return cast(self.expr(arg), dtype)
            case lp.Ramp(base, stride, lanes):
                start = self.index(base)
                if start.lanes != 1:
                    raise VerifyError("the base of a Ramp is a vector")
                return Value(dt.i64, lanes, start.re, stride=stride if lanes > 1 else None)
            case lp.Pack(values, dtype):
                return self._pack([flat(cast(self.expr(v), dtype)) for v in values], dtype)
            case lp.Pack(values, dtype):
                return _packed([flat(cast(self.expr(v), dtype)) for v in values], dtype)
            case lp.Horizontal(monoid, value, dtype):
                return self.horizontal(monoid, self.expr(value), dtype)
            case _:
                assert_never(e)

    def _pack(self, parts: list[Value], dtype: DType) -> Value:
        """One vector of scalars."""
        out = []
        for component in ([p.re for p in parts], [p.im for p in parts if p.im is not None]):
            whole = Num(self.fn, parts[0].re.elem, len(parts), "poison")
            for k, one in enumerate(component):
                whole = whole.of(f"insertelement {whole.kind} {whole.ref}, {one.kind} {one.ref}, i64 {k}")
            out.append(whole)
        return Value(dtype, len(parts), out[0], out[1] if dtype.is_complex else None)

    def index(self, e: lp.LoopExpr) -> Value:
        """An integer expression as i64."""
        return cast(self.expr(e), dt.i64)

    def mask(self, e: lp.LoopExpr) -> Num:
        return cast(flat(self.expr(e)), dt.bool_).re

    def _name(self, name: str) -> Value:
        if name not in self.values:
            raise VerifyError(f"{name} is used but not defined here")
        return self.values[name]

    def array(self, name: str) -> memory.Array | memory.Register:
        if name not in self.arrays:
            raise VerifyError(f"array {name} is used but not defined here")
        return self.arrays[name]

    def place(self, array: str, indices: tuple[lp.LoopExpr, ...]) -> Value:
        """The flat index of an access; that of a 0-dimensional array is 0."""
        if len(indices) > 1:
            raise VerifyError(f"{array} has {len(indices)} indices", "flatten must run before code generation")
        return self.index(indices[0]) if indices else Value(dt.i64, 1, self.integer(0), const=0)

    def _load(self, name: str, indices: tuple[lp.LoopExpr, ...], mask: Num | None) -> Value:
        array = self.array(name)
        if isinstance(array, memory.Register):
            if indices:
                raise VerifyError(f"register {name} has an index")
            return memory.read_register(self.fn, array)
        return memory.load(self.fn, array, self.place(name, indices), mask)

    def apply(self, op: str, args: list[Value], dtype: DType) -> Value:
        """`op` on values; operands are converted and repeated as needed."""
        if dtype == dt.i64 and op in ("add", "sub", "mul") and any(a.stride is not None for a in args):
            ramp = on_ramps(op, [cast(a, dt.i64) for a in args])
            if ramp is not None:
                return ramp
        lanes = max(a.lanes for a in args)
        if op == "lt" and args[0].stride == 1 and args[1].lanes == 1 and args[1].dtype == dt.i64:
            return boolean(_first_lanes(args[0].re, args[1].re, lanes, self.fn.module.target.vector_bits))
        if op == "where":
            condition, a, b = (widened(flat(a), lanes) for a in args)
            return self._select(cast(condition, dt.bool_).re, cast(a, dtype), cast(b, dtype))
        entry = OPS[op]
        if op in intrinsics.LOGIC or op == "not":
            truth = [widened(cast(flat(a), dt.bool_), lanes).re for a in args]
            return boolean(~truth[0] if op == "not" else intrinsics.LOGIC[op](truth[0], truth[1]))
        common = _common(entry.operands, args, dtype)
        if op in ("add", "sub") and common.is_float:
            contracted = _contracted(op, [cast(a, common) for a in args], lanes)
            if contracted is not None:
                return Value(dtype, lanes, contracted)
        given = [widened(flat(cast(a, common)), lanes) for a in args]
        if common.is_complex:
            value = cx.apply(op, dtype, given)
            if value is None:
                raise UnsupportedError(f"{op} of complex numbers", "it has no code here", "work on the real and imaginary parts")
            return value
        return self._real(op, common, dtype, given, lanes)

    def _real(self, op: str, common: DType, dtype: DType, given: list[Value], lanes: int) -> Value:
        a = given[0]
        if op in ("mul", "square") and common.is_float:
            return product(dtype, a.re, given[-1].re)
        if op in ("max", "min") and common.is_float:
            for one, other in ((a, given[1]), (given[1], a)):
                if other.const is not None and other.const == other.const:
                    return Value(dtype, lanes, intrinsics.extreme_of_constant(op, one.re, other.re))
        if op in ("floordiv", "mod") and common.is_integer:
            divisor = given[1].const
            if isinstance(divisor, int) and divisor > 0:
                quotient, left = intrinsics.constant_divmod(common, a.re, divisor)
                return Value(dtype, lanes, quotient if op == "floordiv" else left)
        return Value(dtype, lanes, intrinsics.REAL[op](common, *(g.re for g in given)))

    def _select(self, condition: Num, a: Value, b: Value) -> Value:
        lanes = condition.lanes
        a, b = widened(flat(a), lanes), widened(flat(b), lanes)
        im = None if a.im is None or b.im is None else condition.where(a.im, b.im)
        return Value(a.dtype, lanes, condition.where(a.re, b.re), im)

    def horizontal(self, name: str, value: Value, dtype: DType) -> Value:
        """All lanes combined: halves with halves, so the order is fixed; lanes beyond a power of two come last."""
        value = flat(cast(value, dtype))
        monoid: Monoid = MONOID_TABLE[name]
        rest: list[Value] = []
        while value.lanes > 1:
            half = 1 << ((value.lanes - 1).bit_length() - 1)
            if 2 * half != value.lanes:
                keep = 1 << (value.lanes.bit_length() - 1)
                rest += [_slice(value, k, 1) for k in range(keep, value.lanes)]
                value = _slice(value, 0, keep)
                continue
            value = flat(self.apply(monoid.op, [_slice(value, 0, half), _slice(value, half, half)], dtype))
        for one in rest:
            value = self.apply(monoid.op, [value, one], dtype)
        return value


def _first_lanes(base: Num, stop: Num, lanes: int, bits: int) -> Num:
    """Whether base + k < stop, in each lane k: compared in lanes of the width of the vectors that such masks are for. Where stop - base wraps,
    no lane is said to be in."""
    elem = f"i{min(64, max(16, bits // lanes))}"
    left = stop - base
    left = left.lt(lanes).where(left, left.const(lanes))
    left = left.gt(0).where(left, left.const(0))
    whole = left.resized(elem, True).widened(lanes)
    steps = ", ".join(f"{elem} {k}" for k in range(lanes))
    return whole.of(f"icmp slt {whole.kind} <{steps}>, {whole.ref}", "i1")


def _contracted(op: str, args: list[Value], lanes: int) -> Num | None:
    """a + b or a - b of floats as one multiply-add if one of them is a product; None if neither is."""
    a, b = args
    if a.factors is not None and a.lanes == lanes:
        other = widened(flat(b), lanes).re
        return a.factors[0].fma(a.factors[1], other if op == "add" else -other)
    if b.factors is not None and b.lanes == lanes:
        x = b.factors[0] if op == "add" else -b.factors[0]
        return x.fma(b.factors[1], widened(flat(a), lanes).re)
    return None


def _packed(parts: list[Value], dtype: DType) -> Value:
    """The vector of scalars."""
    fn, lanes = parts[0].re.fn, len(parts)
    if any(p.lanes != 1 for p in parts):
        raise VerifyError("a Pack has a vector among its scalars")
    if lanes == 1:
        return parts[0]

    def gathered(scalars: list[Num]) -> Num:
        out = Num(fn, scalars[0].elem, lanes, "poison")
        for k, one in enumerate(scalars):
            out = out.of(f"insertelement {out.kind} {out.ref}, {one.elem} {one.ref}, i64 {k}")
        return out

    im = gathered([p.im for p in parts if p.im is not None]) if dtype.is_complex else None
    return Value(dtype, lanes, gathered([p.re for p in parts]), im)


def _slice(value: Value, start: int, count: int) -> Value:
    im = None if value.im is None else value.im.lanes_of(start, count)
    return Value(value.dtype, count, value.re.lanes_of(start, count), im)


def _common(operands: str, args: list[Value], dtype: DType) -> DType:
    """The type the operation is done in."""
    if operands == "result":
        return dtype
    common = args[0].dtype
    for a in args[1:]:
        common = dt.promote(common, a.dtype)
    return common


def on_ramps(op: str, args: list[Value]) -> Value | None:
    """The ramp that is the sum, difference or scaled copy of ramps and scalars; None if the result is no ramp."""
    a, b = args
    lanes = max(a.lanes, b.lanes)
    if any(v.lanes > 1 and v.stride is None for v in args):
        return None
    first, second = a.stride or 0, b.stride or 0
    if op == "mul":
        if a.stride is None:
            a, b = b, a
        if b.stride is not None or a.stride is None or not isinstance(b.const, int):
            return None
        return Value(dt.i64, lanes, a.re * b.re, stride=a.stride * b.const)
    if op == "add":
        return Value(dt.i64, lanes, a.re + b.re, stride=first + second)
    return Value(dt.i64, lanes, a.re - b.re, stride=first - second)


