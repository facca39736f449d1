"""NumPy's functions on traced arrays: which of our functions each ufunc and each function of NumPy stands for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import Any

import numpy as np

from polyai.errors import UnsupportedError
from polyai.frontend.core import find_tracer
from polyai.frontend.surface import control, conv, creation, indexing, joining, linalg, ordering, reductions, selecting, shaping
from polyai.frontend.surface import elementwise as ew

Function = Callable[..., Any]


def scipy_asks(frame: FrameType | None) -> str | None:
    """The function of scipy.sparse that a user called and that has led to `frame`; None if SciPy is not at work there."""
    asked = None
    while frame is not None and str(frame.f_globals.get("__name__", "")).startswith("scipy.sparse"):
        asked, frame = frame.f_code.co_name, frame.f_back
    return asked


UFUNCS: dict[str, Function] = {
    "add": ew.add, "subtract": ew.subtract, "multiply": ew.multiply, "divide": ew.divide, "true_divide": ew.divide,
    "floor_divide": ew.floor_divide, "remainder": ew.remainder, "mod": ew.remainder, "fmod": ew.fmod, "divmod": ew.divmod,
    "power": ew.pow, "float_power": ew.float_power, "negative": ew.negative, "positive": ew.positive, "absolute": ew.absolute, "fabs": ew.fabs,
    "sign": ew.sign, "square": ew.square, "sqrt": ew.sqrt, "reciprocal": ew.reciprocal, "conjugate": ew.conj,
    "rint": ew.rint, "floor": ew.floor, "ceil": ew.ceil, "trunc": ew.trunc,
    "exp": ew.exp, "exp2": ew.exp2, "expm1": ew.expm1, "log": ew.log, "log2": ew.log2, "log10": ew.log10, "log1p": ew.log1p,
    "logaddexp": ew.logaddexp, "hypot": ew.hypot, "sin": ew.sin, "cos": ew.cos, "tan": ew.tan, "arcsin": ew.asin, "arccos": ew.acos,
    "arctan": ew.atan, "arctan2": ew.atan2, "sinh": ew.sinh, "cosh": ew.cosh, "tanh": ew.tanh, "arcsinh": ew.asinh,
    "arccosh": ew.acosh, "arctanh": ew.atanh, "deg2rad": ew.deg2rad, "rad2deg": ew.rad2deg, "radians": ew.deg2rad, "degrees": ew.rad2deg,
    "heaviside": ew.heaviside, "maximum": ew.maximum, "minimum": ew.minimum,
    "isnan": ew.isnan, "isinf": ew.isinf, "isfinite": ew.isfinite,
    "equal": ew.equal, "not_equal": ew.not_equal, "less": ew.less, "less_equal": ew.less_equal, "greater": ew.greater,
    "greater_equal": ew.greater_equal, "logical_and": ew.logical_and, "logical_or": ew.logical_or, "logical_xor": ew.logical_xor,
    "logical_not": ew.logical_not, "bitwise_and": ew.bitwise_and, "bitwise_or": ew.bitwise_or, "bitwise_xor": ew.bitwise_xor,
    "invert": ew.bitwise_invert, "left_shift": ew.left_shift, "right_shift": ew.right_shift,
    "matmul": linalg.matmul, "vecdot": linalg.vecdot, "matvec": linalg.matmul, "vecmat": linalg.matmul,
}  # fmt: skip

REDUCED: dict[str, Function] = {
    "add": reductions.sum, "multiply": reductions.prod, "maximum": reductions.max, "minimum": reductions.min,
    "logical_or": reductions.any, "logical_and": reductions.all,
}  # fmt: skip

ACCUMULATED: dict[str, Function] = {
    "add": reductions.cumulative_sum, "multiply": reductions.cumulative_prod, "maximum": reductions.cumulative_max,
    "minimum": reductions.cumulative_min,
}  # fmt: skip


def _cumulative(function: Function) -> Function:
    def call(a: Any, axis: Any = None, dtype: Any = None) -> Any:
        return function(a if axis is not None else shaping.reshape(a, -1), 0 if axis is None else axis, dtype)

    return call


def _take(a: Any, indices: Any, axis: Any = None) -> Any:
    return indexing.take(a if axis is not None else shaping.reshape(a, -1), indices, 0 if axis is None else axis)


def _full_like(a: Any, fill_value: Any, dtype: Any = None) -> Any:
    return creation.full_like(a, fill_value, dtype)


def _outer(a: Any, b: Any) -> Any:
    return linalg.outer(shaping.reshape(a, -1), shaping.reshape(b, -1))


def _where(condition: Any, x: Any = None, y: Any = None) -> Any:
    if x is None and y is None:
        return selecting.nonzero(condition)
    if x is None or y is None:
        raise UnsupportedError("np.where with two arguments", "it takes a condition, or a condition and two values", "use where(condition, x, y)")
    return ew.where(condition, x, y)


def _clip(a: Any, a_min: Any = None, a_max: Any = None, *, min: Any = None, max: Any = None) -> Any:
    return ew.clip(a, a_min if min is None else min, a_max if max is None else max)


def _allclose(a: Any, b: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Any:
    return reductions.all(ew.isclose(a, b, rtol, atol, equal_nan))


def _array_equal(a: Any, b: Any) -> Any:
    return reductions.all(ew.equal(a, b))


def _size(a: Any, axis: Any = None) -> Any:
    return a.size if axis is None else a.shape[axis]


FUNCTIONS: dict[str, Function] = {
    "sum": reductions.sum, "prod": reductions.prod, "mean": reductions.mean, "average": reductions.average, "var": reductions.var,
    "std": reductions.std, "amax": reductions.max, "max": reductions.max, "amin": reductions.min, "min": reductions.min,
    "ptp": reductions.ptp, "argmax": reductions.argmax, "argmin": reductions.argmin, "any": reductions.any, "all": reductions.all,
    "count_nonzero": reductions.count_nonzero, "cumsum": _cumulative(reductions.cumulative_sum), "nansum": reductions.nansum, "nanmax": reductions.nanmax, "nanmin": reductions.nanmin,
    "cumprod": _cumulative(reductions.cumulative_prod), "cumulative_sum": reductions.cumulative_sum,
    "cumulative_prod": reductions.cumulative_prod, "norm": reductions.norm,
    "where": _where, "clip": _clip, "round": ew.round, "around": ew.round, "isclose": ew.isclose, "allclose": _allclose,
    "array_equal": _array_equal, "nan_to_num": ew.nan_to_num, "real": ew.real, "imag": ew.imag, "astype": ew.astype,
    "dot": linalg.dot, "vdot": linalg.vdot, "inner": linalg.inner, "outer": _outer, "tensordot": linalg.tensordot,
    "einsum": linalg.einsum, "diagonal": linalg.diagonal, "diag": linalg.diag, "trace": linalg.trace, "cross": linalg.cross, "kron": linalg.kron,
    "matrix_power": linalg.matrix_power, "matrix_transpose": linalg.matrix_transpose,
    "concatenate": joining.concat, "concat": joining.concat, "stack": joining.stack, "hstack": joining.hstack, "vstack": joining.vstack,
    "split": joining.split, "unstack": joining.unstack, "pad": joining.pad, "meshgrid": joining.meshgrid, "diff": joining.diff,
    "reshape": shaping.reshape, "ravel": shaping.flatten, "transpose": shaping.permute_dims, "permute_dims": shaping.permute_dims,
    "moveaxis": shaping.moveaxis, "swapaxes": shaping.swapaxes, "expand_dims": shaping.expand_dims, "squeeze": shaping.squeeze,
    "broadcast_to": shaping.broadcast_to, "broadcast_arrays": shaping.broadcast_arrays, "flip": shaping.flip, "roll": shaping.roll,
    "repeat": shaping.repeat, "tile": shaping.tile, "tril": shaping.tril, "triu": shaping.triu,
    "zeros_like": creation.zeros_like, "ones_like": creation.ones_like, "empty_like": creation.zeros_like, "full_like": _full_like,
    "take": _take, "take_along_axis": indexing.take_along_axis, "bincount": indexing.bincount, "convolve": conv.convolve,
    "argwhere": selecting.argwhere, "flatnonzero": selecting.flatnonzero, "compress": selecting.compress, "extract": selecting.extract,
    "linspace": creation.linspace, "sort": ordering.sort, "argsort": ordering.argsort, "unique": ordering.unique, "nonzero": selecting.nonzero,
    "searchsorted": control.searchsorted, "median": control.median, "quantile": control.quantile, "inv": control.inv,
    "solve": control.solve, "svd": control.svd, "qr": control.qr, "cholesky": control.cholesky, "eigh": control.eigh, "det": control.det,
    "shape": lambda a: a.shape, "ndim": lambda a: a.ndim, "size": _size, "copy": ew.positive,
}  # fmt: skip


def ufunc(given: np.ufunc, method: str, inputs: Sequence[Any], options: Mapping[str, Any]) -> Any:
    """The traced meaning of `given.method(*inputs, **options)`. Raises UnsupportedError for those without one."""
    name = given.__name__
    more = {k: v for k, v in options.items() if v is not None and v is not np._NoValue}
    if "out" in more or "where" in more or "casting" in more:
        raise UnsupportedError(f"np.{name} with {', '.join(more)} is not compiled", "traced arrays are not written in place", "use the result")
    if method == "__call__" and name in UFUNCS:
        dtype = more.pop("dtype", None)
        if more:
            raise UnsupportedError(f"np.{name} with {', '.join(more)} is not compiled", "", f"call np.{name} without it")
        out = UFUNCS[name](*inputs)
        return out if dtype is None else ew.astype(out, dtype)
    if method == "reduce" and name in REDUCED:
        return REDUCED[name](*inputs, **{"axis": 0, **more})
    if method == "accumulate" and name in ACCUMULATED:
        return ACCUMULATED[name](*inputs, **{"axis": 0, **more})
    if method == "outer" and name in UFUNCS and not more:
        a, b = (find_tracer(inputs, name).array(v) for v in inputs)
        wide = shaping.expand_dims(a, tuple(range(a.rank, a.rank + b.rank))) if b.rank else a
        return UFUNCS[name](wide, b)
    shown = f"np.{name}" if method == "__call__" else f"np.{name}.{method}"
    raise UnsupportedError(f"{shown} is not compiled for traced arrays", "", "compose it from other functions, or call it outside")


def function(given: Function, args: Sequence[Any], options: Mapping[str, Any]) -> Any:
    """The traced meaning of a NumPy function. Raises UnsupportedError for those without one."""
    name = given.__name__
    ours = FUNCTIONS.get(name)
    more = {k: v for k, v in options.items() if v is not np._NoValue}
    if ours is None or "out" in more:
        what = f"np.{name}" + (" with out=" if ours is not None else "")
        raise UnsupportedError(f"{what} is not compiled for traced arrays", "", "compose it from other functions, or call it outside")
    more.pop("order", None)
    return ours(*args, **more)
