"""The one table of scalar operations: meaning, result type, identity, annihilator, behaviour at zero.

Everything that needs to know an operation reads this table: the tracer (result types), the interpreters (meaning), the
support analysis (annihilators), constant folding, and code generation (which finds its instruction by the same name).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from polyai.errors import DTypeError
from polyai.scalar import dtype as dt
from polyai.scalar.dtype import DType
from polyai.term.node import node

Rule = Callable[..., DType]


def same(*args: DType) -> DType:
    """The common type of the arguments."""
    out = args[0]
    for a in args[1:]:
        out = dt.promote(out, a)
    return out


def number(*args: DType) -> DType:
    """Common type, at least an integer: booleans become i8, as NumPy's powers and quotients of booleans do."""
    out = same(*args)
    return dt.i8 if out.kind == "b" else out


def floating(*args: DType) -> DType:
    """Common float type, where integers of 8 bits count as f16, of 16 bits as f32, others as f64: NumPy's sqrt, exp, ..."""
    return same(*(a if a.is_float or a.is_complex else {8: dt.f16, 16: dt.f32}.get(a.bits, dt.f64) for a in args))


def quotient(*args: DType) -> DType:
    """Common type, at least a float: integers and booleans of any width become f64, as NumPy's `/` does."""
    out = same(*args)
    return out if out.is_float or out.is_complex else dt.f64


def real(*args: DType) -> DType:
    """The real type of one component."""
    return dt.real_of(same(*args))


def boolean(*args: DType) -> DType:
    """Always bool, whatever is compared."""
    return dt.bool_


def as_bits(*args: DType) -> DType:
    """The integer as wide as the float: as f32 for those of 16 bits, which are held so."""
    return dt.i64 if args[0].bits == 64 else dt.i32


def selected(cond: DType, a: DType, b: DType) -> DType:
    """`where`: the common type of the two values."""
    if cond != dt.bool_:
        raise DTypeError(f"the condition of where has dtype {cond}", "it must be bool", "compare it: where(c != 0, a, b)")
    return dt.promote(a, b)


@node
class ScalarOp:
    """One operation.

    `meaning` computes it on NumPy arrays. `operands` says what the arguments are converted to before it is applied:
    "result" (the result type), "common" (their common type; comparisons), "each" (as they are). `kinds`: the kinds their
    common type may have.
    `zero`: the value at all-zero arguments is zero (`keeps_zero`), so a structural zero stays one. `annihilator`: a value
    that fixes the result whatever the other argument is; structural zeros annihilate products.
    """

    name: str
    arity: int
    meaning: Callable[..., Any]
    result: Rule
    operands: str = "result"
    keeps_zero: bool = False
    annihilator: float | bool | None = None
    kinds: str = "biufBc"


def _quiet(f: Callable[..., Any]) -> Callable[..., Any]:
    def meaning(*args: Any) -> Any:
        with np.errstate(all="ignore"):
            return f(*args)

    meaning.__name__ = getattr(f, "__name__", "meaning")
    return meaning


def _erf(a: Any) -> Any:
    from scipy.special import erf  # NumPy has none; SciPy's special functions load slowly

    given = np.result_type(a)
    return erf(a).astype(given if given.kind == "f" else np.float64, copy=False)


def _popcount(a: Any) -> Any:
    """The number of set bits, in the type of `a`."""
    given = np.asarray(a)
    as_bytes = np.ascontiguousarray(given).reshape(-1).view(np.uint8).reshape(-1, given.dtype.itemsize)
    return np.unpackbits(as_bytes, axis=1).sum(axis=1).astype(given.dtype).reshape(given.shape)


def _bits(a: Any) -> Any:
    """The bits of floats as integers."""
    given = np.asarray(a)
    wide = given if given.dtype.itemsize == 8 else given.astype(np.float32, copy=False)
    return np.ascontiguousarray(wide).view(f"i{wide.dtype.itemsize}").reshape(given.shape)


def _table() -> dict[str, ScalarOp]:
    ops: list[ScalarOp] = []

    def op(name: str, arity: int, meaning: Callable[..., Any], result: Rule, **more: Any) -> None:
        ops.append(ScalarOp(name, arity, _quiet(meaning), result, **more))

    op("neg", 1, np.negative, same, keeps_zero=True, kinds="iufBc")
    op("abs", 1, np.abs, real, operands="each", keeps_zero=True)
    op("sign", 1, np.sign, same, keeps_zero=True, kinds="iufBc")
    op("square", 1, np.square, number, keeps_zero=True)
    op("conj", 1, np.conj, number, keeps_zero=True)
    op("real", 1, np.real, real, operands="each", keeps_zero=True)
    op("imag", 1, np.imag, real, operands="each", keeps_zero=True)
    for name in ("floor", "ceil", "trunc"):
        op(name, 1, getattr(np, name), same, keeps_zero=True, kinds="biufB")
    op("round", 1, np.round, same, keeps_zero=True, kinds="iufBc")
    for name in ("sqrt", "expm1", "log1p", "sin", "tan", "arcsin", "arctan", "sinh", "tanh", "arcsinh", "arctanh"):
        op(name, 1, getattr(np, name), floating, keeps_zero=True)
    for name in ("exp", "exp2", "log", "log2", "log10", "cos", "arccos", "cosh", "arccosh"):
        op(name, 1, getattr(np, name), floating)
    op("reciprocal", 1, np.reciprocal, same, kinds="fBc")
    op("erf", 1, _erf, floating, keeps_zero=True, kinds="biufB")
    op("isnan", 1, np.isnan, boolean, operands="each", keeps_zero=True)
    op("isinf", 1, np.isinf, boolean, operands="each", keeps_zero=True)
    op("isfinite", 1, np.isfinite, boolean, operands="each")
    op("not", 1, np.logical_not, boolean, operands="each")
    op("invert", 1, np.invert, same, kinds="biu")

    op("add", 2, np.add, same, keeps_zero=True)
    op("sub", 2, np.subtract, same, keeps_zero=True, kinds="iufBc")
    op("mul", 2, np.multiply, same, keeps_zero=True, annihilator=0)
    op("div", 2, np.true_divide, quotient)  # 0 / x is 0 unless x is 0 or NaN: `support` asks for stored divisors
    op("floordiv", 2, np.floor_divide, number, kinds="biufB")
    op("mod", 2, np.remainder, number, kinds="biufB")
    op("pow", 2, np.power, number)
    op("max", 2, np.maximum, same, keeps_zero=True, kinds="biufB")
    op("min", 2, np.minimum, same, keeps_zero=True, kinds="biufB")
    op("arctan2", 2, np.arctan2, floating, keeps_zero=True, kinds="biufB")
    for name, f in (("eq", np.equal), ("ne", np.not_equal), ("lt", np.less), ("le", np.less_equal), ("gt", np.greater), ("ge", np.greater_equal)):
        kinds = "biufBc" if name in ("eq", "ne") else "biufB"  # complex numbers have no order
        op(name, 2, f, boolean, operands="common", keeps_zero=name in ("ne", "lt", "gt"), kinds=kinds)
    op("and", 2, np.logical_and, boolean, operands="each", keeps_zero=True, annihilator=False)
    op("or", 2, np.logical_or, boolean, operands="each", keeps_zero=True)
    op("xor", 2, np.logical_xor, boolean, operands="each", keeps_zero=True)
    op("bitand", 2, np.bitwise_and, same, keeps_zero=True, annihilator=0, kinds="biu")
    op("bitor", 2, np.bitwise_or, same, keeps_zero=True, kinds="biu")
    op("bitxor", 2, np.bitwise_xor, same, keeps_zero=True, kinds="biu")
    op("shl", 2, np.left_shift, number, keeps_zero=True, kinds="biu")
    op("shr", 2, np.right_shift, number, keeps_zero=True, kinds="biu")  # keeps the sign: arithmetic for signed integers
    op("popcount", 1, _popcount, same, keeps_zero=True, kinds="iu")
    op("ctz", 1, lambda a: _popcount((a & -a) - a.dtype.type(1)), same, kinds="iu")  # zeros below the lowest set bit; the width of 0
    op("bit", 1, lambda a: np.left_shift(a.dtype.type(1), a & a.dtype.type(8 * a.dtype.itemsize - 1)), same, kinds="iu")  # 1 << (a mod width)
    op("bits", 1, _bits, as_bits, operands="each", keeps_zero=True, kinds="fB")  # of the floats that values are held as, as integers
    op("where", 3, np.where, selected, operands="each")
    return {o.name: o for o in ops}


OPS: dict[str, ScalarOp] = _table()


@node
class Monoid:
    """An associative, commutative operation with its identity: what a reduction combines with.

    `reorderable` is true for all of them here: the sum of floats may be taken in another order, within the documented
    error bound (docs/reference: numbers).
    """

    name: str
    op: str
    reorderable: bool = True

    def identity(self, dtype: DType) -> bool | int | float:
        """The value that changes nothing: 0, 1, the lowest or highest value of `dtype`, True or False."""
        return _identity(self.name, dtype)


MONOIDS: dict[str, Monoid] = {n: Monoid(n, o) for n, o in (("add", "add"), ("mul", "mul"), ("max", "max"), ("min", "min"), ("or", "or"), ("and", "and"))}


def _identity(monoid: str, dtype: DType) -> bool | int | float:
    if monoid in ("add", "or"):
        return False if dtype.kind == "b" else 0.0 if dtype.is_float or dtype.is_complex else 0
    if monoid in ("mul", "and"):
        return True if dtype.kind == "b" else 1.0 if dtype.is_float or dtype.is_complex else 1
    low = monoid == "max"
    if dtype.is_complex:
        raise DTypeError(f"{monoid} has no meaning for {dtype}", "complex numbers have no order", "take abs(), real or imag first")
    if dtype.is_float:
        return float("-inf") if low else float("inf")
    if dtype.kind == "b":
        return not low
    if dtype.kind == "u":
        return 0 if low else (1 << dtype.bits) - 1
    half = 1 << (dtype.bits - 1)
    return -half if low else half - 1


def result_type(op: str, *args: DType) -> DType:
    """The dtype of `op` on operands of the given dtypes. Raises DTypeError where NumPy would."""
    entry = OPS[op]
    if op != "where":
        common = same(*args)
        if common.kind not in entry.kinds:
            given = ", ".join(map(str, args))
            raise DTypeError(
                f"{op} is not defined for {common}",
                f"the operands have dtypes {given}" if len(args) > 1 else "",
                _REMEDIES.get((op, common.kind), "convert with .astype(...)"),
            )
    return entry.result(*args)


_REMEDIES = {
    ("neg", "b"): "use ~x (not) or x.astype(...)",
    ("sub", "b"): "use x ^ y (xor) or x.astype(...)",
    **{("reciprocal", k): "write 1.0 / x" for k in "biu"},
    **{(op, "c"): "take abs(x), x.real or x.imag first" for op in ("max", "min", "lt", "le", "gt", "ge", "floordiv", "mod", "arctan2")},
}
