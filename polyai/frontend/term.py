"""A term: one scalar body under construction, with NumPy 2's rules for types and weak Python numbers.

Every element-wise function of the surface is written once as a rule on terms (`lambda x: x * sigmoid(x)`); applied to whole
arrays it becomes the body of one comprehension, in index notation it becomes a part of a larger body.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, cast

import numpy as np

from polyai.errors import DTypeError, TraceError
from polyai.frontend.size_value import SizeValue
from polyai.scalar import dtype as dt
from polyai.scalar.build import const, limits, python_value
from polyai.scalar.dtype import DType
from polyai.scalar.expr import Apply, Cast, Const, Expr
from polyai.scalar.ops import OPS, result_type
from polyai.shapes.expr import Size
from polyai.tensor.bodies import from_size
from polyai.tensor.nodes import Body, Index, Reduce, Within

Tracer = Any
"""The trace a term belongs to; `core.Tracer`, which is built on terms and so cannot be named here."""

_EXAMPLE: dict[str, bool | int | float | complex] = {"b": True, "i": 1, "f": 1.0, "c": 1j}
_NATURAL: dict[str, DType] = {"b": dt.bool_, "i": dt.i64, "f": dt.f64, "c": dt.c128}


class Term:
    """`body` computes the value; `weak` tells that its type yields to the other operand's, as a Python number's does."""

    __slots__ = ("body", "tracer", "weak")

    def __init__(self, body: Body, weak: bool = False, tracer: Tracer = None) -> None:
        self.body, self.weak, self.tracer = body, weak, tracer

    @property
    def dtype(self) -> DType:
        return self.body.dtype

    def __add__(self, other: Any) -> Term:
        return apply("add", self, other) if _combines(other) else NotImplemented

    def __radd__(self, other: Any) -> Term:
        return apply("add", other, self) if _combines(other) else NotImplemented

    def __sub__(self, other: Any) -> Term:
        return apply("sub", self, other) if _combines(other) else NotImplemented

    def __rsub__(self, other: Any) -> Term:
        return apply("sub", other, self) if _combines(other) else NotImplemented

    def __mul__(self, other: Any) -> Term:
        return apply("mul", self, other) if _combines(other) else NotImplemented

    def __rmul__(self, other: Any) -> Term:
        return apply("mul", other, self) if _combines(other) else NotImplemented

    def __truediv__(self, other: Any) -> Term:
        return apply("div", self, other) if _combines(other) else NotImplemented

    def __rtruediv__(self, other: Any) -> Term:
        return apply("div", other, self) if _combines(other) else NotImplemented

    def __floordiv__(self, other: Any) -> Term:
        return apply("floordiv", self, other) if _combines(other) else NotImplemented

    def __rfloordiv__(self, other: Any) -> Term:
        return apply("floordiv", other, self) if _combines(other) else NotImplemented

    def __mod__(self, other: Any) -> Term:
        return apply("mod", self, other) if _combines(other) else NotImplemented

    def __rmod__(self, other: Any) -> Term:
        return apply("mod", other, self) if _combines(other) else NotImplemented

    def __lshift__(self, other: Any) -> Term:
        return apply("shl", self, other) if _combines(other) else NotImplemented

    def __rlshift__(self, other: Any) -> Term:
        return apply("shl", other, self) if _combines(other) else NotImplemented

    def __rshift__(self, other: Any) -> Term:
        return apply("shr", self, other) if _combines(other) else NotImplemented

    def __rrshift__(self, other: Any) -> Term:
        return apply("shr", other, self) if _combines(other) else NotImplemented

    def __and__(self, other: Any) -> Term:
        return logical_or_bits("and", "bitand", self, other) if _combines(other) else NotImplemented

    def __rand__(self, other: Any) -> Term:
        return logical_or_bits("and", "bitand", other, self) if _combines(other) else NotImplemented

    def __or__(self, other: Any) -> Term:
        return logical_or_bits("or", "bitor", self, other) if _combines(other) else NotImplemented

    def __ror__(self, other: Any) -> Term:
        return logical_or_bits("or", "bitor", other, self) if _combines(other) else NotImplemented

    def __xor__(self, other: Any) -> Term:
        return logical_or_bits("xor", "bitxor", self, other) if _combines(other) else NotImplemented

    def __rxor__(self, other: Any) -> Term:
        return logical_or_bits("xor", "bitxor", other, self) if _combines(other) else NotImplemented

    def __pow__(self, other: Any) -> Term:
        return power(self, other) if _combines(other) else NotImplemented

    def __rpow__(self, other: Any) -> Term:
        return power(term(other), self) if _combines(other) else NotImplemented

    def __neg__(self) -> Term:
        return apply("neg", self)

    def __pos__(self) -> Term:
        return self

    def __abs__(self) -> Term:
        return apply("abs", self)

    def __invert__(self) -> Term:
        return logical_or_bits("not", "invert", self)

    def __eq__(self, other: object) -> Any:
        return apply("eq", self, other) if _combines(other) else NotImplemented

    def __ne__(self, other: object) -> Any:
        return apply("ne", self, other) if _combines(other) else NotImplemented

    def __lt__(self, other: Any) -> Term:
        return apply("lt", self, other) if _combines(other) else NotImplemented

    def __le__(self, other: Any) -> Term:
        return apply("le", self, other) if _combines(other) else NotImplemented

    def __gt__(self, other: Any) -> Term:
        return apply("gt", self, other) if _combines(other) else NotImplemented

    def __ge__(self, other: Any) -> Term:
        return apply("ge", self, other) if _combines(other) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __bool__(self) -> bool:
        raise TraceError(
            "an element has no truth value while tracing", "it differs from index to index", "use where(condition, a, b)"
        )

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        raise TraceError(
            f"np.{ufunc.__name__} cannot take an element in index notation", "", f"use the function polyai.{ufunc.__name__}"
        )

    def astype(self, dtype: DType) -> Term:
        """The value converted to `dtype`."""
        return convert(self, dtype)


def _combines(value: object) -> bool:
    """Whether an operator of Term takes `value` itself; arrays bring their own operators."""
    return isinstance(value, (Term, bool, int, float, complex, np.generic, SizeValue))


def term(value: Any) -> Term:
    """A term of a term, a size or a Python number (weak), or a NumPy scalar (not weak)."""
    if isinstance(value, Term):
        return value
    if isinstance(value, SizeValue):
        return of_size(value.size)
    if isinstance(value, np.generic):
        dtype = dt.from_numpy(value.dtype, "a scalar")
        return Term(Const(python_value(value, dtype), dtype))
    if isinstance(value, bool):
        return Term(Const(value, dt.bool_), weak=True)
    if isinstance(value, int):
        if -(2**63) <= value < 2**63:
            return Term(Const(value, dt.i64), weak=True)
        return Term(const(value, dt.u64), weak=True)
    if isinstance(value, float):
        return Term(Const(value, dt.f64), weak=True)
    if isinstance(value, complex):
        return Term(Const(value, dt.c128), weak=True)
    raise TraceError(f"{value!r} is no number", f"its type is {type(value).__name__}", "pass numbers or arrays")


def of_size(size: Size) -> Term:
    """A size as a weak integer."""
    return Term(from_size(size), weak=True)


def number(value: bool | int | float, dtype: DType) -> Term:
    """A constant of a given type."""
    return Term(const(value, dtype))


def convert(value: Any, dtype: DType) -> Term:
    """`value` as `dtype`, as NumPy's astype does; constants are converted here."""
    given = term(value)
    if given.dtype == dtype:
        return given if not given.weak else Term(given.body, False, given.tracer)
    body = given.body
    if isinstance(body, Const) and not (body.dtype.kind in "fc" and dtype.is_integer) and not (body.dtype.is_complex and not dtype.is_complex):
        return Term(const(body.value, dtype), False, given.tracer)
    return Term(Cast(cast(Expr, body), dtype), False, given.tracer)


def apply(op: str, *values: Any) -> Term:
    """`op` of the table on `values`, operands promoted as NumPy 2 promotes them. Raises DTypeError where NumPy would."""
    args = [term(v) for v in values]
    entry = OPS[op]
    tracer = next((a.tracer for a in args if a.tracer is not None), None)
    if op == "where":
        return _where(args, tracer)
    types = [a.dtype for a in args]
    weak = [a.weak for a in args]
    if len(args) == 1:
        types[0] = _compute_natural(op, types[0])
        out = result_type(op, types[0])
        want = out if entry.operands == "result" else types[0]
    else:
        types = list(_merge(tuple(types), tuple(weak)))
        if op in _COMPARISONS:
            types = _room_for_constants(args, types)
            decided = _decided(op, args, types)
            if decided is not None:
                return Term(const(decided, dt.bool_), False, tracer)
        out = result_type(op, *types)
        want = _common(tuple(types)) if entry.operands == "common" else out
    if entry.operands == "each":
        converted = args
    else:
        converted = [convert(a, want) for a in args]
    return Term(Apply(op, tuple(cast(Expr, a.body) for a in converted), out), all(weak), tracer)


_COMPARISONS = frozenset(("eq", "ne", "lt", "le", "gt", "ge"))


def _compute_natural(op: str, dtype: DType) -> DType:
    return dt.bool_ if op == "not" else dtype


def _where(args: list[Term], tracer: Tracer) -> Term:
    condition = args[0] if args[0].dtype == dt.bool_ else args[0] != 0
    a, b = args[1], args[2]
    types = _merge((a.dtype, b.dtype), (a.weak, b.weak))
    out = result_type("where", dt.bool_, *types)
    body = Apply("where", (cast(Expr, condition.body), cast(Expr, convert(a, out).body), cast(Expr, convert(b, out).body)), out)
    return Term(body, a.weak and b.weak, tracer)


@lru_cache(maxsize=4096)
def _merge(types: tuple[DType, ...], weak: tuple[bool, ...]) -> tuple[DType, ...]:
    """The types with weak ones replaced by what they become next to the others."""
    strong = [t for t, w in zip(types, weak) if not w]
    if not strong or len(strong) == len(types):
        return types
    common = _common(tuple(strong))
    return tuple(dt.promote_scalar(common, _EXAMPLE["i" if t.kind == "u" else t.kind]) if w else t for t, w in zip(types, weak))


@lru_cache(maxsize=4096)
def _common(types: tuple[DType, ...]) -> DType:
    out = types[0]
    for t in types[1:]:
        out = dt.promote(out, t)
    return out


def _room_for_constants(args: list[Term], types: list[DType]) -> list[DType]:
    """Comparing small integers with a constant outside their range is done in i64, where it has an answer."""
    common = _common(tuple(types))
    if common.is_integer and common.bits < 64:
        low, high = limits(common)
        if any(a.weak and isinstance(a.body, Const) and not low <= int(a.body.value.real) <= high for a in args):
            return [dt.i64 for _ in types]
    return types


def _decided(op: str, args: list[Term], types: list[DType]) -> bool | None:
    """The answer of a comparison of 64-bit integers with a constant outside their range: it is the same for all of them."""
    common = _common(tuple(types))
    if not common.is_integer or common.bits < 64:
        return None
    low, high = limits(common)
    values = [int(a.body.value.real) if a.weak and isinstance(a.body, Const) else None for a in args]
    outside = [v for v in values if v is not None and not low <= v <= high]
    if not outside or None not in values:
        return None
    return bool(OPS[op].meaning(*(0 if v is None else 1 if v > high else -1 for v in values)))


def logical_or_bits(logical: str, bits: str, *values: Any) -> Term:
    """`&`, `|`, `^`, `~`: logical on booleans, bit by bit on integers."""
    args = [term(v) for v in values]
    return apply(logical if all(a.dtype == dt.bool_ for a in args) else bits, *args)


def power(base: Term, exponent: Any) -> Term:
    """base ** exponent; small constant powers become products, halves become roots."""
    given = term(exponent)
    body = given.body
    if isinstance(body, Const) and not given.dtype.is_complex:
        value = body.value.real
        if base.dtype.is_integer and given.dtype.is_integer and value < 0:
            raise DTypeError("integers to negative integer powers are not defined", f"exponent {value}", "convert the base with .astype(float)")
        floats = base.dtype.is_float or base.dtype.is_complex
        if given.weak or given.dtype == base.dtype:
            widened = base if floats or given.dtype.is_integer or given.dtype.kind == "b" else convert(base, dt.f64)
            if base.dtype.kind == "b":
                widened = convert(base, dt.i64 if given.dtype.is_integer else dt.f64)
            if value == int(value) and 1 <= abs(value) <= 8:
                out = _repeated(widened, abs(int(value)))
                return out if value > 0 else apply("reciprocal", out)
            if abs(value) == 0.5 and not widened.dtype.is_integer:
                root = apply("sqrt", widened)
                return root if value > 0 else apply("reciprocal", root)
    return apply("pow", base, given)


def _repeated(base: Term, n: int) -> Term:
    if n == 1:
        return base
    half = apply("square", _repeated(base, n // 2))
    return half * base if n % 2 else half


def reduced(monoid: str, over: tuple[Index, ...], value: Term, within: tuple[Within, ...] = ()) -> Term:
    """`value` reduced over index variables; sums and products of f16 and bf16 are accumulated in f32."""
    wanted = value.dtype
    held = dt.compute_type(wanted) if monoid in ("add", "mul") else wanted
    if not over:
        return value
    body = Reduce(monoid, over, convert(value, held).body, held, within)
    return convert(Term(body, False, value.tracer), wanted)


Rule = Callable[..., Term]


def zero_value(body: Body, zero: frozenset[str]) -> bool | int | float | complex | None:
    """The value of `body` where the tensors `zero` hold structural zeros; None if it depends on the others."""
    match body:
        case Const(value):
            return value
        case Cast(arg, dtype):
            inner = zero_value(arg, zero)
            return inner if inner is None or (not inner and dtype.kind != "b") else (dtype.kind == "b" and bool(inner)) or inner
        case Apply("where", (condition, a, b)):
            chosen = zero_value(condition, zero)
            if chosen is None:
                yes, no = zero_value(a, zero), zero_value(b, zero)
                return yes if yes == no else None
            return zero_value(a if chosen else b, zero)
        case Apply(op, args, dtype):
            values = [zero_value(a, zero) for a in args]
            if OPS[op].annihilator is not None and any(v is not None and v == OPS[op].annihilator for v in values):
                return OPS[op].annihilator
            if op == "div" and values[0] == 0:
                return 0
            if any(v is None for v in values):
                return None
            given = [np.asarray(v).astype(dt.to_numpy(dt.compute_type(a.dtype))) for v, a in zip(values, args)]
            out = OPS[op].meaning(*given)
            return cast("bool | int | float | complex", np.asarray(out).item())
        case _:
            return 0 if getattr(body, "array", None) in zero else None
