"""Every function of the surface, usable inside a trace and on its own. See `frontend.functions` for what each does."""

from __future__ import annotations

import builtins
import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import numpy as np

from polyai.api import Function
from polyai.frontend import functions as f
from polyai.frontend import spec
from polyai.frontend.arguments import has_traced, leaves
from polyai.frontend.core import NothingTraced
from polyai.frontend.ragged import call as call_ragged
from polyai.frontend.ragged import is_ragged

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
            return call_ragged(fn, args, kwargs) if is_ragged(args, kwargs) else fn(*args, **kwargs)
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


def _traced(fn: Callable[P, R]) -> Callable[P, R]:
    """`fn` as it is inside a trace: of ragged arrays, row by row."""

    @functools.wraps(fn)
    def traced(*args: P.args, **kwargs: P.kwargs) -> R:
        return call_ragged(fn, args, kwargs) if is_ragged(args, kwargs) else fn(*args, **kwargs)

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


abs = eager(f.abs)
absolute = eager(f.absolute)
acos = eager(f.acos)
acosh = eager(f.acosh)
add = eager(f.add)
all = eager(f.all)
any = eager(f.any)
arange = f.arange
arccos = eager(f.arccos)
arccosh = eager(f.arccosh)
arcsin = eager(f.arcsin)
arcsinh = eager(f.arcsinh)
arctan = eager(f.arctan)
arctan2 = eager(f.arctan2)
arctanh = eager(f.arctanh)
argmax = eager(f.argmax)
argmin = eager(f.argmin)
argsort = eager(f.argsort)
argwhere = eager(f.argwhere)
asarray = eager(f.asarray)
asin = eager(f.asin)
asinh = eager(f.asinh)
astype = eager(f.astype)
atan = eager(f.atan)
atan2 = eager(f.atan2)
atanh = eager(f.atanh)
attention = eager(f.attention)
average = eager(f.average)
avg_pool1d = eager(f.avg_pool1d)
avg_pool2d = eager(f.avg_pool2d)
batch_norm = eager(f.batch_norm)
bincount = eager(f.bincount)
bitwise_and = eager(f.bitwise_and)
bitwise_invert = eager(f.bitwise_invert)
bitwise_or = eager(f.bitwise_or)
bitwise_xor = eager(f.bitwise_xor)
block_array = eager(f.block_array)
block_diag = eager(f.block_diag)
broadcast_arrays = eager(f.broadcast_arrays)
broadcast_to = eager(f.broadcast_to)
ceil = eager(f.ceil)
ceildiv = spec.ceildiv
cholesky = eager(f.cholesky)
clip = eager(f.clip)
comprehension = f.comprehension
compress = eager(f.compress)
concat = eager(f.concat)
concatenate = eager(f.concatenate)
cond = eager(f.cond)
conj = eager(f.conj)
conv1d = eager(f.conv1d)
conv2d = eager(f.conv2d)
conv3d = eager(f.conv3d)
convolve = eager(f.convolve)
cos = eager(f.cos)
cosh = eager(f.cosh)
count_nonzero = eager(f.count_nonzero)
cross = eager(f.cross)
cumprod = eager(f.cumprod)
cumsum = eager(f.cumsum)
cumulative_max = eager(f.cumulative_max)
cumulative_min = eager(f.cumulative_min)
cumulative_prod = eager(f.cumulative_prod)
cumulative_sum = eager(f.cumulative_sum)
deg2rad = eager(f.deg2rad)
det = eager(f.det)
diag = eager(f.diag)
diagonal = eager(f.diagonal)
diff = eager(f.diff)
divide = eager(f.divide)
divmod = eager(f.divmod)
dot = eager(f.dot)
dropout = eager(f.dropout)
eigh = eager(f.eigh)
einsum = eager(f.einsum)
elu = eager(f.elu)
embedding = eager(f.embedding)
equal = eager(f.equal)
erf = eager(f.erf)
exp = eager(f.exp)
exp2 = eager(f.exp2)
expand_dims = eager(f.expand_dims)
expm1 = eager(f.expm1)
extract = eager(f.extract)
eye = f.eye
find = eager(f.find)
flatnonzero = eager(f.flatnonzero)
flatten = eager(f.flatten)
flip = eager(f.flip)
floor = eager(f.floor)
floor_divide = eager(f.floor_divide)
fmod = eager(f.fmod)
fori_loop = eager(f.fori_loop)
full = f.full
full_like = eager(f.full_like)
gelu = eager(f.gelu)
greater = eager(f.greater)
greater_equal = eager(f.greater_equal)
group_norm = eager(f.group_norm)
heaviside = eager(f.heaviside)
hstack = eager(f.hstack)
hypot = eager(f.hypot)
imag = eager(f.imag)
index = f.index
indices = f.indices
inner = eager(f.inner)
inv = eager(f.inv)
isclose = eager(f.isclose)
isfinite = eager(f.isfinite)
isinf = eager(f.isinf)
isnan = eager(f.isnan)
kron = eager(f.kron)
layer_norm = eager(f.layer_norm)
leaky_relu = eager(f.leaky_relu)
left_shift = eager(f.left_shift)
less = eager(f.less)
less_equal = eager(f.less_equal)
linear = eager(f.linear)
linspace = f.linspace
log = eager(f.log)
log1p = eager(f.log1p)
log2 = eager(f.log2)
log10 = eager(f.log10)
log_sigmoid = eager(f.log_sigmoid)
log_softmax = eager(f.log_softmax)
logaddexp = eager(f.logaddexp)
logical_and = eager(f.logical_and)
logical_not = eager(f.logical_not)
logical_or = eager(f.logical_or)
logical_xor = eager(f.logical_xor)
logsumexp = eager(f.logsumexp)
map_stored = eager(f.map_stored)
matmul = eager(f.matmul)
matrix_power = eager(f.matrix_power)
matrix_transpose = eager(f.matrix_transpose)
max = eager(f.max)
max_pool1d = eager(f.max_pool1d)
max_pool2d = eager(f.max_pool2d)
maximum = _of_sizes(spec.largest, eager(f.maximum))
mean = eager(f.mean)
median = eager(f.median)
meshgrid = eager(f.meshgrid)
min = eager(f.min)
minimum = _of_sizes(spec.smallest, eager(f.minimum))
moveaxis = eager(f.moveaxis)
multiply = eager(f.multiply)
nan_to_num = eager(f.nan_to_num)
nansum = eager(f.nansum)
negative = eager(f.negative)
nnz_of = eager(f.nnz_of)
nonzero = eager(f.nonzero)
norm = eager(f.norm)
normal = f.normal
not_equal = eager(f.not_equal)
one_hot = eager(f.one_hot)
ones = f.ones
ones_like = eager(f.ones_like)
ones_where_stored = eager(f.ones_where_stored)
outer = eager(f.outer)
pad = eager(f.pad)
permute_dims = eager(f.permute_dims)
positive = eager(f.positive)
pow = eager(f.pow)
power = eager(f.power)
prod = eager(f.prod)
ptp = eager(f.ptp)
qr = eager(f.qr)
quantile = eager(f.quantile)
rad2deg = eager(f.rad2deg)
random_bits = f.random_bits
real = eager(f.real)
reciprocal = eager(f.reciprocal)
relu = eager(f.relu)
relu6 = eager(f.relu6)
remainder = eager(f.remainder)
repeat = eager(f.repeat)
reshape = eager(f.reshape)
result_type = f.result_type
right_shift = eager(f.right_shift)
rms_norm = eager(f.rms_norm)
roll = eager(f.roll)
round = eager(f.round)
scan = eager(f.scan)
sddmm = eager(f.sddmm)
searchsorted = eager(f.searchsorted)
segment_max = eager(f.segment_max)
segment_sum = eager(f.segment_sum)
sigmoid = eager(f.sigmoid)
sign = eager(f.sign)
silu = eager(f.silu)
sin = eager(f.sin)
sinh = eager(f.sinh)
softmax = eager(f.softmax)
softplus = eager(f.softplus)
solve = eager(f.solve)
sort = eager(f.sort)
sparse_attention = eager(f.sparse_attention)
split = eager(f.split)
sqrt = eager(f.sqrt)
square = eager(f.square)
squeeze = eager(f.squeeze)
stack = eager(f.stack)
std = eager(f.std)
subtract = eager(f.subtract)
sum = eager(f.sum)
svd = eager(f.svd)
swapaxes = eager(f.swapaxes)
swish = eager(f.swish)
take = eager(f.take)
take_along_axis = eager(f.take_along_axis)
tan = eager(f.tan)
tanh = eager(f.tanh)
tensordot = eager(f.tensordot)
tile = eager(f.tile)
toarray = eager(f.toarray)
trace = eager(f.trace)
transpose = eager(f.transpose)
tri = f.tri
tril = eager(f.tril)
triu = eager(f.triu)
trunc = eager(f.trunc)
uniform = f.uniform
unique = eager(f.unique)
unstack = eager(f.unstack)
var = eager(f.var)
vdot = eager(f.vdot)
vecdot = eager(f.vecdot)
vstack = eager(f.vstack)
where = eager(f.where)
while_loop = eager(f.while_loop)
zeros = f.zeros
zeros_like = eager(f.zeros_like)

__all__ = [
    "abs",
    "absolute",
    "acos",
    "acosh",
    "add",
    "all",
    "any",
    "arange",
    "arccos",
    "arccosh",
    "arcsin",
    "arcsinh",
    "arctan",
    "arctan2",
    "arctanh",
    "argmax",
    "argmin",
    "argsort",
    "argwhere",
    "asarray",
    "asin",
    "asinh",
    "astype",
    "atan",
    "atan2",
    "atanh",
    "attention",
    "average",
    "avg_pool1d",
    "avg_pool2d",
    "batch_norm",
    "bincount",
    "bitwise_and",
    "bitwise_invert",
    "bitwise_or",
    "bitwise_xor",
    "block_array",
    "block_diag",
    "broadcast_arrays",
    "broadcast_to",
    "ceil",
    "ceildiv",
    "cholesky",
    "clip",
    "comprehension",
    "compress",
    "concat",
    "concatenate",
    "cond",
    "conj",
    "conv1d",
    "conv2d",
    "conv3d",
    "convolve",
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
    "det",
    "diag",
    "diagonal",
    "diff",
    "divide",
    "divmod",
    "dot",
    "dropout",
    "eager",
    "eigh",
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
    "eye",
    "find",
    "flatnonzero",
    "flatten",
    "flip",
    "floor",
    "floor_divide",
    "fmod",
    "fori_loop",
    "full",
    "full_like",
    "gelu",
    "greater",
    "greater_equal",
    "group_norm",
    "heaviside",
    "hstack",
    "hypot",
    "imag",
    "index",
    "indices",
    "inner",
    "inv",
    "isclose",
    "isfinite",
    "isinf",
    "isnan",
    "kron",
    "layer_norm",
    "leaky_relu",
    "left_shift",
    "less",
    "less_equal",
    "linear",
    "linspace",
    "log",
    "log1p",
    "log2",
    "log10",
    "log_sigmoid",
    "log_softmax",
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
    "max_pool1d",
    "max_pool2d",
    "maximum",
    "mean",
    "median",
    "meshgrid",
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
    "normal",
    "not_equal",
    "one_hot",
    "ones",
    "ones_like",
    "ones_where_stored",
    "outer",
    "pad",
    "permute_dims",
    "positive",
    "pow",
    "power",
    "prod",
    "ptp",
    "qr",
    "quantile",
    "rad2deg",
    "random_bits",
    "real",
    "reciprocal",
    "relu",
    "relu6",
    "remainder",
    "repeat",
    "reshape",
    "result_type",
    "right_shift",
    "rms_norm",
    "roll",
    "round",
    "scan",
    "sddmm",
    "searchsorted",
    "segment_max",
    "segment_sum",
    "sigmoid",
    "sign",
    "silu",
    "sin",
    "sinh",
    "softmax",
    "softplus",
    "solve",
    "sort",
    "sparse_attention",
    "split",
    "sqrt",
    "square",
    "squeeze",
    "stack",
    "std",
    "subtract",
    "sum",
    "svd",
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
    "tri",
    "tril",
    "triu",
    "trunc",
    "uniform",
    "unique",
    "unstack",
    "var",
    "vdot",
    "vecdot",
    "vstack",
    "where",
    "while_loop",
    "zeros",
    "zeros_like",
]  # fmt: skip
