"""Element-wise functions: NumPy's and the array-API standard's names over the one table of scalar operations."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from polyai.errors import DTypeError, UnsupportedError
from polyai.frontend.core import Array, find_tracer, tracer_among
from polyai.frontend.size_value import SizeValue
from polyai.frontend.spec import as_dtype
from polyai.frontend.surface.pointwise import broadcast, operand, places, pointwise, toarray
from polyai.frontend.term import Term, apply, convert, logical_or_bits, number, power
from polyai.scalar import dtype as dt
from polyai.scalar import ops
from polyai.scalar.dtype import DType
from polyai.shapes import expr as sx
from polyai.shapes.expr import Size
from polyai.sparse import interop

Function = Callable[..., Any]


def _unary(name: str, op: str) -> Function:
    def function(x: Any) -> Any:
        return pointwise(name, lambda a: apply(op, a), x)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"{name} of each element; the result type follows NumPy. Sparse arrays keep their pattern where 0 stays 0."
    return function


def _binary(name: str, op: str) -> Function:
    def function(x1: Any, x2: Any) -> Any:
        return pointwise(name, lambda a, b: apply(op, a, b), x1, x2)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"{name} of two operands, broadcast; the result type follows NumPy 2, Python numbers are weak."
    return function


negative, absolute, sign, square = _unary("negative", "neg"), _unary("absolute", "abs"), _unary("sign", "sign"), _unary("square", "square")
conj, real, imag = _unary("conj", "conj"), _unary("real", "real"), _unary("imag", "imag")
floor, ceil, trunc = _unary("floor", "floor"), _unary("ceil", "ceil"), _unary("trunc", "trunc")
sqrt, exp, exp2, expm1, reciprocal = (_unary(n, n) for n in ("sqrt", "exp", "exp2", "expm1", "reciprocal"))
log, log2, log10, log1p = (_unary(n, n) for n in ("log", "log2", "log10", "log1p"))
sin, cos, tan, sinh, cosh, tanh, erf = (_unary(n, n) for n in ("sin", "cos", "tan", "sinh", "cosh", "tanh", "erf"))
asin, acos, atan = _unary("asin", "arcsin"), _unary("acos", "arccos"), _unary("atan", "arctan")
asinh, acosh, atanh = _unary("asinh", "arcsinh"), _unary("acosh", "arccosh"), _unary("atanh", "arctanh")
isnan, isinf, isfinite = (_unary(n, n) for n in ("isnan", "isinf", "isfinite"))

floor_divide = _binary("floor_divide", "floordiv")
remainder, atan2 = _binary("remainder", "mod"), _binary("atan2", "arctan2")
equal, not_equal, less = _binary("equal", "eq"), _binary("not_equal", "ne"), _binary("less", "lt")
less_equal, greater, greater_equal = _binary("less_equal", "le"), _binary("greater", "gt"), _binary("greater_equal", "ge")
left_shift, right_shift = _binary("left_shift", "shl"), _binary("right_shift", "shr")


def _extreme(op: str, a: Term, b: Term) -> Term:
    return logical_or_bits("or" if op == "max" else "and", op, a, b) if a.dtype == b.dtype == dt.bool_ else apply(op, a, b)


def _extreme_size(combine: Callable[..., Size], a: Any, b: Any) -> Any:
    """The extreme of two sizes, or of a size and a number, as a size; None for anything else."""
    owner = next((v.sizes for v in (a, b) if isinstance(v, SizeValue)), None)
    if owner is None or not all(isinstance(v, SizeValue) or type(v) is int for v in (a, b)):
        return None
    return owner.value(combine(*(owner.resolve(v.size) if isinstance(v, SizeValue) else v for v in (a, b))))


def maximum(x1: Any, x2: Any) -> Any:
    """The larger of two operands; NaN if either is. Of sizes: a size."""
    size = _extreme_size(sx.maximum, x1, x2)
    if size is not None:
        return size
    return pointwise("maximum", lambda a, b: _extreme("max", a, b), x1, x2)


def minimum(x1: Any, x2: Any) -> Any:
    """The smaller of two operands; NaN if either is. Of sizes: a size."""
    size = _extreme_size(sx.minimum, x1, x2)
    if size is not None:
        return size
    return pointwise("minimum", lambda a, b: _extreme("min", a, b), x1, x2)


def positive(x: Any) -> Any:
    """`x` itself."""
    return x


def add(x1: Any, x2: Any) -> Any:
    """x1 + x2. A sparse plus a dense array is dense."""
    mixed = _sparse_and_dense(x1, x2)
    return mixed if mixed is not None else pointwise("add", lambda a, b: a + b, x1, x2)


def subtract(x1: Any, x2: Any) -> Any:
    """x1 - x2. A sparse minus a dense array is dense."""
    mixed = _sparse_and_dense(x1, x2, sign=-1)
    return mixed if mixed is not None else pointwise("subtract", lambda a, b: a - b, x1, x2)


def _captured(*values: Any) -> tuple[Any, ...]:
    """Sparse arrays of the surrounding scope as arrays of the trace that the other values belong to."""
    tracer = tracer_among(values)
    return values if tracer is None else tuple(tracer.array(v) if interop.is_sparse(v) else v for v in values)


def _sparse_and_dense(x1: Any, x2: Any, sign: int = 1) -> Array | None:
    """The dense operand with the stored elements of the sparse one scattered into it; None for other operands."""
    x1, x2 = _captured(x1, x2)
    if not any(isinstance(x, Array) and x.is_sparse for x in (x1, x2)):
        return None
    tracer = find_tracer((x1, x2), "add")
    a, b = operand(tracer, x1), operand(tracer, x2)
    if not isinstance(a, Array) or not isinstance(b, Array) or a.is_sparse == b.is_sparse:
        return None
    stored, full = (a, b) if a.is_sparse else (b, a)
    shape = broadcast(tracer, [a.extents, b.extents], "add", (a, b))
    if shape != stored.extents:
        raise UnsupportedError(
            f"the sparse {tracer.text(stored)} is stretched", tracer.shapes_text((a, b)), "the dense operand may broadcast, the sparse one may not"
        )
    dtype = (Term(tracer.read(stored, (0,) * stored.rank).body) + Term(tracer.read(full, (0,) * full.rank).body, full.weak)).dtype
    indices = tracer.indices(shape)
    value = convert(tracer.read(full, places(full, indices)), dtype)
    base = tracer.emit("base", indices, -value if sign < 0 and full is b else value, strong=True)
    points = tracer.indices(shape)
    element = convert(tracer.read(stored, points), dtype)
    return tracer.scatter(
        "add", base, "add", points, points, -element if sign < 0 and stored is b else element, (tracer.within(stored, [i.name for i in points]),)
    )


def divide(x1: Any, x2: Any) -> Any:
    """x1 / x2, broadcast. Of two sparse arrays dense, with NaN where neither stores anything; sparse by dense keeps the pattern."""
    x1, x2 = _captured(x1, x2)
    if all(isinstance(x, Array) and x.is_sparse for x in (x1, x2)):
        x1, x2 = toarray(x1), toarray(x2)
    return pointwise("divide", lambda a, b: apply("div", a, b), x1, x2)


def multiply(x1: Any, x2: Any) -> Any:
    """x1 * x2, element by element. A sparse times a dense array keeps the pattern: implicit zeros stay zero."""
    return pointwise("multiply", lambda a, b: a * b, x1, x2)


def pow(x1: Any, x2: Any) -> Any:
    """x1 ** x2. Constant integer powers up to 8 are products, 0.5 is a square root."""
    return pointwise("pow", power, x1, x2)


def bitwise_and(x1: Any, x2: Any) -> Any:
    """x1 & x2: logical on booleans."""
    return pointwise("bitwise_and", lambda a, b: a & b, x1, x2)


def bitwise_or(x1: Any, x2: Any) -> Any:
    """x1 | x2: logical on booleans."""
    return pointwise("bitwise_or", lambda a, b: a | b, x1, x2)


def bitwise_xor(x1: Any, x2: Any) -> Any:
    """x1 ^ x2: logical on booleans."""
    return pointwise("bitwise_xor", lambda a, b: a ^ b, x1, x2)


def bitwise_invert(x: Any) -> Any:
    """~x: logical not on booleans."""
    return pointwise("invert", lambda a: ~a, x)


def _truth(x: Term) -> Term:
    return x if x.dtype == dt.bool_ else apply("ne", x, 0)


def logical_and(x1: Any, x2: Any) -> Any:
    """Both operands are not zero."""
    return pointwise("logical_and", lambda a, b: apply("and", _truth(a), _truth(b)), x1, x2)


def logical_or(x1: Any, x2: Any) -> Any:
    """One operand at least is not zero."""
    return pointwise("logical_or", lambda a, b: apply("or", _truth(a), _truth(b)), x1, x2)


def logical_xor(x1: Any, x2: Any) -> Any:
    """Exactly one operand is not zero."""
    return pointwise("logical_xor", lambda a, b: apply("xor", _truth(a), _truth(b)), x1, x2)


def logical_not(x: Any) -> Any:
    """The operand is zero."""
    return pointwise("logical_not", lambda a: apply("not", _truth(a)), x)


def where(condition: Any, x1: Any, x2: Any) -> Any:
    """x1 where the condition is not zero, else x2."""
    return pointwise("where", lambda c, a, b: apply("where", c, a, b), condition, x1, x2)


def clip(x: Any, min: Any = None, max: Any = None) -> Any:
    """`x` limited to min .. max; None means no limit."""
    if min is None and max is None:
        return positive(x)
    if min is None:
        return pointwise("clip", lambda a, high: apply("min", a, high), x, max)
    if max is None:
        return pointwise("clip", lambda a, low: apply("max", a, low), x, min)
    return pointwise("clip", lambda a, low, high: apply("min", apply("max", a, low), high), x, min, max)


def _rounded(x: Term, decimals: int) -> Term:
    if not decimals or (x.dtype.is_integer and decimals > 0):
        return apply("round", x)
    scale = 10.0 ** abs(decimals)
    return apply("round", x * scale) / scale if decimals > 0 else apply("round", x / scale) * scale


def round(x: Any, decimals: int = 0) -> Any:
    """Rounded half to even, to `decimals` places."""
    return pointwise("round", lambda a: _rounded(a, decimals), x)


def rint(x: Any) -> Any:
    """Rounded half to even, as floats: those that NumPy takes for integers of that width."""
    return pointwise("round", lambda a: _rounded(_as_floats(a), 0), x)


def fabs(x: Any) -> Any:
    """The absolute value, as floats."""
    return pointwise("abs", lambda a: apply("abs", _as_floats(a)), x)


def float_power(x1: Any, x2: Any) -> Any:
    """x1 ** x2 in double precision."""
    return pow(*(pointwise("astype", lambda a: convert(a, dt.c128 if a.dtype.is_complex else dt.f64), x) for x in (x1, x2)))


def _as_floats(x: Term) -> Term:
    return x if x.dtype.is_float or x.dtype.is_complex else convert(x, ops.result_type("sqrt", x.dtype))


def astype(x: Any, dtype: Any, copy: bool = True) -> Any:
    """`x` converted to `dtype` as NumPy converts; `copy` is accepted and has no effect."""
    wanted: DType = as_dtype(dtype)
    if isinstance(x, Array) and x.type.dtype == wanted and not x.weak:
        return x
    return pointwise("astype", lambda a: convert(a, wanted), x)


def _floats(x: Term) -> Term:
    return x if x.dtype.is_float or x.dtype.is_complex else convert(x, dt.f64)


def _sigmoid(x: Term) -> Term:
    return 1.0 / (1.0 + apply("exp", -_floats(x)))


def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x))."""
    return pointwise("sigmoid", _sigmoid, x)


def silu(x: Any) -> Any:
    """x * sigmoid(x)."""
    return pointwise("silu", lambda a: a * _sigmoid(a), x)


def relu(x: Any) -> Any:
    """max(x, 0)."""
    return pointwise("relu", lambda a: apply("max", a, 0), x)


def relu6(x: Any) -> Any:
    """min(max(x, 0), 6)."""
    return pointwise("relu6", lambda a: apply("min", apply("max", a, 0), 6), x)


def leaky_relu(x: Any, negative_slope: Any = 0.01) -> Any:
    """x where x > 0, else negative_slope * x."""
    return pointwise("leaky_relu", lambda a, slope: apply("where", a > 0, a, a * slope), x, negative_slope)


def elu(x: Any, alpha: Any = 1.0) -> Any:
    """x where x > 0, else alpha * (exp(x) - 1)."""
    return pointwise("elu", lambda a, scale: apply("where", a > 0, a, apply("expm1", a) * scale), x, alpha)


def softplus(x: Any) -> Any:
    """log(1 + exp(x)), without overflow."""
    return pointwise("softplus", lambda a: apply("max", a, 0) + apply("log1p", apply("exp", -abs(_floats(a)))), x)


def log_sigmoid(x: Any) -> Any:
    """log(sigmoid(x)), without overflow."""
    return pointwise("log_sigmoid", lambda a: apply("min", a, 0) - apply("log1p", apply("exp", -abs(_floats(a)))), x)


def _gelu(x: Term) -> Term:
    return x * 0.5 * (1.0 + apply("erf", x * math.sqrt(0.5)))


def _gelu_tanh(x: Term) -> Term:
    inner = x * (1.0 + apply("square", x) * 0.044715) * math.sqrt(2.0 / math.pi)
    return x * 0.5 * (1.0 + apply("tanh", inner))


def gelu(x: Any, approximate: str | bool = "none") -> Any:
    """x times the normal distribution function at x; approximate="tanh" for the form with tanh (Hendrycks and Gimpel)."""
    return pointwise("gelu", _gelu_tanh if approximate in ("tanh", True) else _gelu, x)


def _logaddexp(a: Term, b: Term) -> Term:
    a, b = _floats(a), _floats(b)
    spread = apply("log1p", apply("exp", -abs(a - b)))
    return apply("where", apply("eq", a, b), a + math.log(2.0), apply("max", a, b) + spread)


def logaddexp(x1: Any, x2: Any) -> Any:
    """log(exp(x1) + exp(x2)), without overflow."""
    return pointwise("logaddexp", _logaddexp, x1, x2)


def hypot(x1: Any, x2: Any) -> Any:
    """sqrt(x1**2 + x2**2)."""
    return pointwise("hypot", lambda a, b: apply("sqrt", apply("square", a) + apply("square", b)), x1, x2)


def fmod(x1: Any, x2: Any) -> Any:
    """The remainder with the sign of x1."""
    return pointwise("fmod", lambda a, b: apply("where", a < 0, -apply("mod", -a, abs(b)), apply("mod", a, abs(b))), x1, x2)


def divmod(x1: Any, x2: Any) -> tuple[Any, Any]:
    """(x1 // x2, x1 % x2)."""
    return floor_divide(x1, x2), remainder(x1, x2)


def deg2rad(x: Any) -> Any:
    """Degrees as radians."""
    return pointwise("deg2rad", lambda a: a * (math.pi / 180.0), x)


def rad2deg(x: Any) -> Any:
    """Radians as degrees."""
    return pointwise("rad2deg", lambda a: a * (180.0 / math.pi), x)


def heaviside(x1: Any, x2: Any) -> Any:
    """0 where x1 < 0, x2 where x1 == 0, 1 where x1 > 0."""
    return pointwise("heaviside", lambda a, b: apply("where", apply("eq", a, 0), b, apply("where", a > 0, 1, 0)), x1, x2)


def isclose(x1: Any, x2: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Any:
    """abs(x1 - x2) <= atol + rtol * abs(x2)."""

    def rule(a: Term, b: Term) -> Term:
        near = (abs(a - b) <= atol + rtol * abs(b)) & apply("isfinite", b) | apply("eq", a, b)
        return near | (apply("isnan", a) & apply("isnan", b)) if equal_nan else near

    return pointwise("isclose", rule, x1, x2)


def nan_to_num(x: Any, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None) -> Any:
    """NaN replaced by `nan`, infinities by the largest finite values or by what is given."""

    def rule(a: Term) -> Term:
        if not a.dtype.is_float:
            return a
        largest = {"f16": 65504.0, "bf16": 3.3895313892515355e38, "f32": 3.4028234663852886e38, "f64": 1.7976931348623157e308}[a.dtype.name]
        high, low = largest if posinf is None else posinf, -largest if neginf is None else neginf
        infinite = apply("where", apply("eq", a, math.inf), high, apply("where", apply("eq", a, -math.inf), low, a))
        return apply("where", apply("isnan", a), nan, infinite)

    return pointwise("nan_to_num", rule, x)


def cast_like(x: Any, like: Array) -> Any:
    """`x` in the element type of `like`."""
    return astype(x, like.type.dtype)


def result_type(*values: Any) -> DType:
    """The element type that arithmetic on the values has."""
    out: Term | None = None
    for value in values:
        if isinstance(value, Array):
            one = number(1, value.type.dtype)
            one.weak = value.weak
        elif isinstance(value, (bool, int, float, complex)):
            one = Term(number(1, as_dtype(type(value))).body, weak=True)
        else:
            one = number(1, as_dtype(getattr(value, "dtype", value)))
        out = one if out is None else apply("where", True, out, one)
    if out is None:
        raise DTypeError("result_type of nothing", "", "give at least one value")
    return out.dtype


def is_traced(*values: Any) -> bool:
    """Whether one of the values, or of the members of lists, belongs to a function being traced."""
    return tracer_among(values) is not None
