"""The functions of the surface, usable inside a trace and on their own: those that most programs use. `further` holds the others, and
`frontend.functions` tells what each does."""

from __future__ import annotations

import builtins
import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np

from polyai.api import Function
from polyai.frontend import elementwise as ew
from polyai.frontend import indexing, linalg, notation, pointwise, reductions, selecting, shaping, sparse, spec
from polyai.frontend.arguments import has_traced, leaves
from polyai.frontend.core import Composite, NothingTraced
from polyai.term.late import late

if TYPE_CHECKING:
    from polyai.frontend import composites
else:
    composites = late("polyai.frontend.composites")

P = ParamSpec("P")
R = TypeVar("R")


def eager(fn: Callable[P, R]) -> Callable[P, R]:
    """`fn` inside a trace; outside, `fn` compiled on its own and called.

    Arrays and floats are arguments of the kernel; everything else (axes, shapes, flags, strings) is static.
    """
    compiled: dict[frozenset[int | str], Function] = {}

    @functools.wraps(fn)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if has_traced(args, kwargs):
            return composites.call(fn, args, kwargs) if _composite(args, kwargs) else fn(*args, **kwargs)
        found = leaves(fn, args, kwargs)
        if not builtins.any(leaf.kind in ("array", "sparse", "ragged") for leaf in found):
            try:
                return fn(*args, **kwargs)  # of sizes only
            except NothingTraced:
                if not args or not isinstance(args[0], (bool, int, float, complex, list, tuple)):
                    raise
            given: Any = (np.asarray(args[0]), *args[1:])  # as NumPy takes them
            return call(*given, **kwargs)
        fixed = frozenset(leaf.path[0] for leaf in found if leaf.kind == "scalar" and not isinstance(leaf.value, float) and len(leaf.path) == 1)
        function = compiled.get(fixed)
        if function is None:
            function = compiled.setdefault(fixed, Function(_traced(fn), static=tuple(fixed)))
        result: Any = function(*args, **kwargs)
        return result  # type: ignore[no-any-return]

    return call


def _composite(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether something that stands for several arrays of a trace is among the arguments, or in a list among them."""
    found = (*args, *kwargs.values())
    return builtins.any(isinstance(a, Composite) or (isinstance(a, (list, tuple)) and builtins.any(isinstance(x, Composite) for x in a)) for a in found)


def _traced(fn: Callable[P, R]) -> Callable[P, R]:
    """`fn` as it is inside a trace: of ragged arrays, row by row."""

    @functools.wraps(fn)
    def traced(*args: P.args, **kwargs: P.kwargs) -> R:
        return composites.call(fn, args, kwargs) if _composite(args, kwargs) else fn(*args, **kwargs)

    return traced


def _of_sizes(choose: Callable[..., Any], fn: Callable[P, R]) -> Callable[P, R]:
    """`fn`, or `choose` where an argument is a declared size."""

    @functools.wraps(fn)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if builtins.any(isinstance(a, spec.DimExpr) for a in args):
            result: R = choose(*args)
            return result
        return fn(*args, **kwargs)

    return call

abs = eager(ew.absolute)
absolute = eager(ew.absolute)
acos = eager(ew.acos)
acosh = eager(ew.acosh)
add = eager(ew.add)
all = eager(reductions.all)
any = eager(reductions.any)
arccos = eager(ew.acos)
arccosh = eager(ew.acosh)
arcsin = eager(ew.asin)
arcsinh = eager(ew.asinh)
arctan = eager(ew.atan)
arctan2 = eager(ew.atan2)
arctanh = eager(ew.atanh)
argmax = eager(reductions.argmax)
argmin = eager(reductions.argmin)
argwhere = eager(selecting.argwhere)
asin = eager(ew.asin)
asinh = eager(ew.asinh)
astype = eager(ew.astype)
atan = eager(ew.atan)
atan2 = eager(ew.atan2)
atanh = eager(ew.atanh)
average = eager(reductions.average)
bincount = eager(indexing.bincount)
bitwise_and = eager(ew.bitwise_and)
bitwise_invert = eager(ew.bitwise_invert)
bitwise_or = eager(ew.bitwise_or)
bitwise_xor = eager(ew.bitwise_xor)
broadcast_arrays = eager(shaping.broadcast_arrays)
broadcast_to = eager(shaping.broadcast_to)
ceil = eager(ew.ceil)
ceildiv = spec.ceildiv
clip = eager(ew.clip)
comprehension = notation.comprehension
compress = eager(selecting.compress)
conj = eager(ew.conj)
cos = eager(ew.cos)
cosh = eager(ew.cosh)
count_nonzero = eager(reductions.count_nonzero)
cross = eager(linalg.cross)
cumprod = eager(reductions.cumulative_prod)
cumsum = eager(reductions.cumulative_sum)
cumulative_max = eager(reductions.cumulative_max)
cumulative_min = eager(reductions.cumulative_min)
cumulative_prod = eager(reductions.cumulative_prod)
cumulative_sum = eager(reductions.cumulative_sum)
deg2rad = eager(ew.deg2rad)
diag = eager(linalg.diag)
diagonal = eager(linalg.diagonal)
divide = eager(ew.divide)
divmod = eager(ew.divmod)
dot = eager(linalg.dot)
einsum = eager(linalg.einsum)
elu = eager(ew.elu)
embedding = eager(indexing.embedding)
equal = eager(ew.equal)
erf = eager(ew.erf)
exp = eager(ew.exp)
exp2 = eager(ew.exp2)
expand_dims = eager(shaping.expand_dims)
expm1 = eager(ew.expm1)
extract = eager(selecting.extract)
find = eager(selecting.find)
flatnonzero = eager(selecting.flatnonzero)
flatten = eager(shaping.flatten)
flip = eager(shaping.flip)
floor = eager(ew.floor)
floor_divide = eager(ew.floor_divide)
fmod = eager(ew.fmod)
gelu = eager(ew.gelu)
greater = eager(ew.greater)
greater_equal = eager(ew.greater_equal)
heaviside = eager(ew.heaviside)
hypot = eager(ew.hypot)
imag = eager(ew.imag)
index = notation.index
indices = notation.indices
inner = eager(linalg.inner)
isclose = eager(ew.isclose)
isfinite = eager(ew.isfinite)
isinf = eager(ew.isinf)
isnan = eager(ew.isnan)
kron = eager(linalg.kron)
leaky_relu = eager(ew.leaky_relu)
left_shift = eager(ew.left_shift)
less = eager(ew.less)
less_equal = eager(ew.less_equal)
log = eager(ew.log)
log1p = eager(ew.log1p)
log2 = eager(ew.log2)
log10 = eager(ew.log10)
log_sigmoid = eager(ew.log_sigmoid)
logaddexp = eager(ew.logaddexp)
logical_and = eager(ew.logical_and)
logical_not = eager(ew.logical_not)
logical_or = eager(ew.logical_or)
logical_xor = eager(ew.logical_xor)
logsumexp = eager(reductions.logsumexp)
map_stored = eager(sparse.map_stored)
matmul = eager(linalg.matmul)
matrix_power = eager(linalg.matrix_power)
matrix_transpose = eager(linalg.matrix_transpose)
max = eager(reductions.max)
maximum = _of_sizes(spec.largest, eager(ew.maximum))
mean = eager(reductions.mean)
min = eager(reductions.min)
minimum = _of_sizes(spec.smallest, eager(ew.minimum))
moveaxis = eager(shaping.moveaxis)
multiply = eager(ew.multiply)
nan_to_num = eager(ew.nan_to_num)
nansum = eager(reductions.nansum)
negative = eager(ew.negative)
nnz_of = eager(sparse.nnz_of)
nonzero = eager(selecting.nonzero)
norm = eager(reductions.norm)
not_equal = eager(ew.not_equal)
ones_where_stored = eager(sparse.ones_where_stored)
outer = eager(linalg.outer)
permute_dims = eager(shaping.permute_dims)
positive = eager(ew.positive)
pow = eager(ew.pow)
power = eager(ew.pow)
prod = eager(reductions.prod)
ptp = eager(reductions.ptp)
rad2deg = eager(ew.rad2deg)
real = eager(ew.real)
reciprocal = eager(ew.reciprocal)
relu = eager(ew.relu)
relu6 = eager(ew.relu6)
remainder = eager(ew.remainder)
repeat = eager(shaping.repeat)
reshape = eager(shaping.reshape)
result_type = ew.result_type
right_shift = eager(ew.right_shift)
roll = eager(shaping.roll)
round = eager(ew.round)
sddmm = eager(linalg.sddmm)
segment_max = eager(indexing.segment_max)
segment_sum = eager(indexing.segment_sum)
sigmoid = eager(ew.sigmoid)
sign = eager(ew.sign)
silu = eager(ew.silu)
sin = eager(ew.sin)
sinh = eager(ew.sinh)
softplus = eager(ew.softplus)
sqrt = eager(ew.sqrt)
square = eager(ew.square)
squeeze = eager(shaping.squeeze)
std = eager(reductions.std)
subtract = eager(ew.subtract)
sum = eager(reductions.sum)
swapaxes = eager(shaping.swapaxes)
swish = eager(ew.silu)
take = eager(indexing.take)
take_along_axis = eager(indexing.take_along_axis)
tan = eager(ew.tan)
tanh = eager(ew.tanh)
tensordot = eager(linalg.tensordot)
tile = eager(shaping.tile)
toarray = eager(pointwise.toarray)
trace = eager(linalg.trace)
transpose = eager(shaping.permute_dims)
tril = eager(shaping.tril)
triu = eager(shaping.triu)
trunc = eager(ew.trunc)
var = eager(reductions.var)
vdot = eager(linalg.vdot)
vecdot = eager(linalg.vecdot)
where = eager(ew.where)


__all__ = [
    "abs",
    "absolute",
    "acos",
    "acosh",
    "add",
    "all",
    "any",
    "arccos",
    "arccosh",
    "arcsin",
    "arcsinh",
    "arctan",
    "arctan2",
    "arctanh",
    "argmax",
    "argmin",
    "argwhere",
    "asin",
    "asinh",
    "astype",
    "atan",
    "atan2",
    "atanh",
    "average",
    "bincount",
    "bitwise_and",
    "bitwise_invert",
    "bitwise_or",
    "bitwise_xor",
    "broadcast_arrays",
    "broadcast_to",
    "ceil",
    "ceildiv",
    "clip",
    "comprehension",
    "compress",
    "conj",
    "cos",
    "cosh",
    "count_nonzero",
    "cross",
    "cumprod",
    "cumsum",
    "cumulative_max",
    "cumulative_min",
    "cumulative_prod",
    "cumulative_sum",
    "deg2rad",
    "diag",
    "diagonal",
    "divide",
    "divmod",
    "dot",
    "einsum",
    "elu",
    "embedding",
    "equal",
    "erf",
    "exp",
    "exp2",
    "expand_dims",
    "expm1",
    "extract",
    "find",
    "flatnonzero",
    "flatten",
    "flip",
    "floor",
    "floor_divide",
    "fmod",
    "gelu",
    "greater",
    "greater_equal",
    "heaviside",
    "hypot",
    "imag",
    "index",
    "indices",
    "inner",
    "isclose",
    "isfinite",
    "isinf",
    "isnan",
    "kron",
    "leaky_relu",
    "left_shift",
    "less",
    "less_equal",
    "log",
    "log1p",
    "log2",
    "log10",
    "log_sigmoid",
    "logaddexp",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "logsumexp",
    "map_stored",
    "matmul",
    "matrix_power",
    "matrix_transpose",
    "max",
    "maximum",
    "mean",
    "min",
    "minimum",
    "moveaxis",
    "multiply",
    "nan_to_num",
    "nansum",
    "negative",
    "nnz_of",
    "nonzero",
    "norm",
    "not_equal",
    "ones_where_stored",
    "outer",
    "permute_dims",
    "positive",
    "pow",
    "power",
    "prod",
    "ptp",
    "rad2deg",
    "real",
    "reciprocal",
    "relu",
    "relu6",
    "remainder",
    "repeat",
    "reshape",
    "result_type",
    "right_shift",
    "roll",
    "round",
    "sddmm",
    "segment_max",
    "segment_sum",
    "sigmoid",
    "sign",
    "silu",
    "sin",
    "sinh",
    "softplus",
    "sqrt",
    "square",
    "squeeze",
    "std",
    "subtract",
    "sum",
    "swapaxes",
    "swish",
    "take",
    "take_along_axis",
    "tan",
    "tanh",
    "tensordot",
    "tile",
    "toarray",
    "trace",
    "transpose",
    "tril",
    "triu",
    "trunc",
    "var",
    "vdot",
    "vecdot",
    "where",
]
