"""The functions of the surface that need more of the front end: control flow, convolutions, layers, random numbers, creation, joining, sorting.
They are imported when one of them is first asked for."""

from __future__ import annotations

from polyai.frontend import functions as f
from polyai.surface import eager

arange = f.arange
argsort = eager(f.argsort)
asarray = eager(f.asarray)
attention = eager(f.attention)
avg_pool1d = eager(f.avg_pool1d)
avg_pool2d = eager(f.avg_pool2d)
batch_norm = eager(f.batch_norm)
block_array = eager(f.block_array)
block_diag = eager(f.block_diag)
cholesky = eager(f.cholesky)
concat = eager(f.concat)
concatenate = eager(f.concatenate)
cond = eager(f.cond)
conv1d = eager(f.conv1d)
conv2d = eager(f.conv2d)
conv3d = eager(f.conv3d)
convolve = eager(f.convolve)
det = eager(f.det)
diff = eager(f.diff)
dropout = eager(f.dropout)
eigh = eager(f.eigh)
eye = f.eye
fori_loop = eager(f.fori_loop)
full = f.full
full_like = eager(f.full_like)
group_norm = eager(f.group_norm)
hstack = eager(f.hstack)
inv = eager(f.inv)
layer_norm = eager(f.layer_norm)
linear = eager(f.linear)
linspace = f.linspace
log_softmax = eager(f.log_softmax)
max_pool1d = eager(f.max_pool1d)
max_pool2d = eager(f.max_pool2d)
median = eager(f.median)
meshgrid = eager(f.meshgrid)
normal = f.normal
one_hot = eager(f.one_hot)
ones = f.ones
ones_like = eager(f.ones_like)
pad = eager(f.pad)
qr = eager(f.qr)
quantile = eager(f.quantile)
random_bits = f.random_bits
rms_norm = eager(f.rms_norm)
scan = eager(f.scan)
searchsorted = eager(f.searchsorted)
softmax = eager(f.softmax)
solve = eager(f.solve)
sort = eager(f.sort)
sparse_attention = eager(f.sparse_attention)
split = eager(f.split)
stack = eager(f.stack)
svd = eager(f.svd)
tri = f.tri
uniform = f.uniform
unique = eager(f.unique)
unstack = eager(f.unstack)
vstack = eager(f.vstack)
while_loop = eager(f.while_loop)
zeros = f.zeros
zeros_like = eager(f.zeros_like)


__all__ = [
    "arange",
    "argsort",
    "asarray",
    "attention",
    "avg_pool1d",
    "avg_pool2d",
    "batch_norm",
    "block_array",
    "block_diag",
    "cholesky",
    "concat",
    "concatenate",
    "cond",
    "conv1d",
    "conv2d",
    "conv3d",
    "convolve",
    "det",
    "diff",
    "dropout",
    "eigh",
    "eye",
    "fori_loop",
    "full",
    "full_like",
    "group_norm",
    "hstack",
    "inv",
    "layer_norm",
    "linear",
    "linspace",
    "log_softmax",
    "max_pool1d",
    "max_pool2d",
    "median",
    "meshgrid",
    "normal",
    "one_hot",
    "ones",
    "ones_like",
    "pad",
    "qr",
    "quantile",
    "random_bits",
    "rms_norm",
    "scan",
    "searchsorted",
    "softmax",
    "solve",
    "sort",
    "sparse_attention",
    "split",
    "stack",
    "svd",
    "tri",
    "uniform",
    "unique",
    "unstack",
    "vstack",
    "while_loop",
    "zeros",
    "zeros_like",
]
