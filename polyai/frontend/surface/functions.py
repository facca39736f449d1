"""The operator surface: every name that `polyai` offers, by the array-API standard's spelling, NumPy's where that differs.

Each function takes traced arrays, NumPy arrays, sparse arrays and numbers, at least one of them traced. The modules that hold them are
imported when one of their functions is first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from polyai.frontend.composites.filled import filled
    from polyai.frontend.surface.control import (
        cholesky,
        cond,
        det,
        eigh,
        fori_loop,
        inv,
        median,
        qr,
        quantile,
        scan,
        searchsorted,
        solve,
        svd,
        while_loop,
    )
    from polyai.frontend.surface.conv import avg_pool1d, avg_pool2d, conv1d, conv2d, conv3d, convolve, max_pool1d, max_pool2d
    from polyai.frontend.surface.creation import (
        arange,
        asarray,
        eye,
        full,
        full_like,
        linspace,
        one_hot,
        ones,
        ones_like,
        tri,
        zeros,
        zeros_like,
    )
    from polyai.frontend.surface.elementwise import absolute as abs
    from polyai.frontend.surface.elementwise import (
        acos,
        acosh,
        add,
        asin,
        asinh,
        astype,
        atan,
        atan2,
        atanh,
        bitwise_and,
        bitwise_invert,
        bitwise_or,
        bitwise_xor,
        ceil,
        clip,
        conj,
        cos,
        cosh,
        deg2rad,
        divide,
        divmod,
        elu,
        equal,
        erf,
        exp,
        exp2,
        expm1,
        floor,
        floor_divide,
        fmod,
        gelu,
        greater,
        greater_equal,
        heaviside,
        hypot,
        imag,
        isclose,
        isfinite,
        isinf,
        isnan,
        leaky_relu,
        left_shift,
        less,
        less_equal,
        log,
        log1p,
        log2,
        log10,
        log_sigmoid,
        logaddexp,
        logical_and,
        logical_not,
        logical_or,
        logical_xor,
        maximum,
        minimum,
        multiply,
        nan_to_num,
        negative,
        not_equal,
        positive,
        pow,
        rad2deg,
        real,
        reciprocal,
        relu,
        relu6,
        remainder,
        result_type,
        right_shift,
        round,
        sigmoid,
        sign,
        silu,
        sin,
        sinh,
        softplus,
        sqrt,
        square,
        subtract,
        tan,
        tanh,
        trunc,
        where,
    )
    from polyai.frontend.surface.indexing import bincount, embedding, segment_max, segment_sum, take, take_along_axis
    from polyai.frontend.surface.joining import (
        block_array,
        block_diag,
        concat,
        diff,
        hstack,
        meshgrid,
        pad,
        split,
        stack,
        unstack,
        vstack,
    )
    from polyai.frontend.surface.linalg import (
        cross,
        diag,
        diagonal,
        dot,
        einsum,
        inner,
        kron,
        matmul,
        matrix_power,
        matrix_transpose,
        outer,
        sddmm,
        tensordot,
        trace,
        vdot,
        vecdot,
    )
    from polyai.frontend.surface.nn import (
        attention,
        batch_norm,
        group_norm,
        layer_norm,
        linear,
        log_softmax,
        rms_norm,
        softmax,
        sparse_attention,
    )
    from polyai.frontend.surface.notation import comprehension, index, indices
    from polyai.frontend.surface.ordering import argsort, sort, unique
    from polyai.frontend.surface.random import dropout, normal, random_bits, uniform
    from polyai.frontend.surface.reductions import (
        all,
        any,
        argmax,
        argmin,
        average,
        count_nonzero,
        cumulative_max,
        cumulative_min,
        cumulative_prod,
        cumulative_sum,
        logsumexp,
        max,
        mean,
        min,
        nansum,
        norm,
        prod,
        ptp,
        std,
        sum,
        var,
    )
    from polyai.frontend.surface.selecting import argwhere, compress, extract, find, flatnonzero, nonzero
    from polyai.frontend.surface.shaping import (
        broadcast_arrays,
        broadcast_to,
        expand_dims,
        flatten,
        flip,
        moveaxis,
        permute_dims,
        repeat,
        reshape,
        roll,
        squeeze,
        swapaxes,
        tile,
        tril,
        triu,
    )
    from polyai.frontend.surface.sparse import map_stored, nnz_of, ones_where_stored, toarray

    transpose = permute_dims
    concatenate = concat
    absolute, power, cumsum, cumprod = abs, pow, cumulative_sum, cumulative_prod
    arcsin, arccos, arctan, arctan2, arcsinh, arccosh, arctanh = asin, acos, atan, atan2, asinh, acosh, atanh
    swish = silu

_TABLE = """
    surface.control: cholesky cond det eigh fori_loop inv median qr quantile scan searchsorted solve svd while_loop
    surface.conv: avg_pool1d avg_pool2d conv1d conv2d conv3d convolve max_pool1d max_pool2d
    surface.creation: arange asarray eye full full_like linspace one_hot ones ones_like tri zeros zeros_like
    surface.elementwise: abs=absolute absolute acos acosh add arccos=acos arccosh=acosh arcsin=asin arcsinh=asinh arctan2=atan2 arctan=atan
        arctanh=atanh asin asinh astype atan atan2 atanh bitwise_and bitwise_invert bitwise_or bitwise_xor ceil clip conj cos cosh deg2rad
        divide divmod elu equal erf exp exp2 expm1 floor floor_divide fmod gelu greater greater_equal heaviside hypot imag isclose isfinite
        isinf isnan leaky_relu left_shift less less_equal log log10 log1p log2 log_sigmoid logaddexp logical_and logical_not logical_or
        logical_xor maximum minimum multiply nan_to_num negative not_equal positive pow power=pow rad2deg real reciprocal relu relu6
        remainder result_type right_shift round sigmoid sign silu sin sinh softplus sqrt square subtract swish=silu tan tanh trunc where
    composites.filled: filled
    surface.indexing: bincount embedding segment_max segment_sum take take_along_axis
    surface.joining: block_array block_diag concat concatenate=concat diff hstack meshgrid pad split stack unstack vstack
    surface.linalg: cross diag diagonal dot einsum inner kron matmul matrix_power matrix_transpose outer sddmm tensordot trace vdot vecdot
    surface.nn: attention batch_norm group_norm layer_norm linear log_softmax rms_norm softmax sparse_attention
    surface.notation: comprehension index indices
    surface.ordering: argsort sort unique
    surface.random: dropout normal random_bits uniform
    surface.reductions: all any argmax argmin average count_nonzero cumprod=cumulative_prod cumsum=cumulative_sum cumulative_max cumulative_min
        cumulative_prod cumulative_sum logsumexp max mean min nansum norm prod ptp std sum var
    surface.selecting: argwhere compress extract find flatnonzero nonzero
    surface.shaping: broadcast_arrays broadcast_to expand_dims flatten flip moveaxis permute_dims repeat reshape roll squeeze swapaxes tile
        transpose=permute_dims tril triu
    surface.sparse: map_stored nnz_of ones_where_stored toarray
"""


def _homes(table: str) -> dict[str, tuple[str, str]]:
    """`surface.elementwise: abs=absolute acos` -> {"abs": ("surface.elementwise", "absolute"), "acos": ("surface.elementwise", "acos")}"""
    out: dict[str, tuple[str, str]] = {}
    home = ""
    for word in table.split():
        if word.endswith(":"):
            home = word[:-1]
        else:
            name, _, own = word.partition("=")
            out[name] = (home, own or name)
    return out


HOMES = _homes(_TABLE)
"""The module of `frontend` that each function is in, and its name there."""


def __dir__() -> list[str]:
    return sorted({*globals(), *HOMES})


if not TYPE_CHECKING:  # checkers read the imports above

    def __getattr__(name: str) -> Any:
        place = HOMES.get(name)
        if place is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        home, own = place
        found = globals()[name] = getattr(importlib.import_module(f"polyai.frontend.{home}"), own)
        return found


__all__ = [
    "abs", "absolute", "acos", "acosh", "add", "all", "any", "arange", "arccos", "arccosh", "arcsin", "arcsinh", "arctan", "arctan2",
    "arctanh", "argmax", "argmin", "argsort", "argwhere", "asarray", "asin", "asinh", "astype", "atan", "atan2", "atanh", "attention",
    "average", "avg_pool1d", "avg_pool2d", "batch_norm", "bincount", "bitwise_and", "bitwise_invert", "bitwise_or", "bitwise_xor",
    "block_array", "block_diag", "broadcast_arrays", "broadcast_to", "ceil", "cholesky", "clip", "comprehension", "compress", "concat",
    "concatenate", "cond", "conj", "conv1d", "conv2d", "conv3d", "convolve", "cos", "cosh", "count_nonzero", "cross", "cumprod", "cumsum",
    "cumulative_max", "cumulative_min", "cumulative_prod", "cumulative_sum", "deg2rad", "det", "diag", "diagonal", "diff", "divide",
    "divmod", "dot", "dropout", "eigh", "einsum", "elu", "embedding", "equal", "erf", "exp", "exp2", "expand_dims", "expm1", "extract",
    "eye", "filled", "find", "flatnonzero", "flatten", "flip", "floor", "floor_divide", "fmod", "fori_loop", "full", "full_like", "gelu",
    "greater", "greater_equal", "group_norm", "heaviside", "hstack", "hypot", "imag", "index", "indices", "inner", "inv", "isclose",
    "isfinite", "isinf", "isnan", "kron", "layer_norm", "leaky_relu", "left_shift", "less", "less_equal", "linear", "linspace", "log",
    "log1p", "log2", "log10", "log_sigmoid", "log_softmax", "logaddexp", "logical_and", "logical_not", "logical_or", "logical_xor",
    "logsumexp", "map_stored", "matmul", "matrix_power", "matrix_transpose", "max", "max_pool1d", "max_pool2d", "maximum", "mean", "median",
    "meshgrid", "min", "minimum", "moveaxis", "multiply", "nan_to_num", "nansum", "negative", "nnz_of", "nonzero", "norm", "normal",
    "not_equal", "one_hot", "ones", "ones_like", "ones_where_stored", "outer", "pad", "permute_dims", "positive", "pow", "power", "prod",
    "ptp", "qr", "quantile", "rad2deg", "random_bits", "real", "reciprocal", "relu", "relu6", "remainder", "repeat", "reshape",
    "result_type", "right_shift", "rms_norm", "roll", "round", "scan", "sddmm", "searchsorted", "segment_max", "segment_sum", "sigmoid",
    "sign", "silu", "sin", "sinh", "softmax", "softplus", "solve", "sort", "sparse_attention", "split", "sqrt", "square", "squeeze",
    "stack", "std", "subtract", "sum", "svd", "swapaxes", "swish", "take", "take_along_axis", "tan", "tanh", "tensordot", "tile", "toarray",
    "trace", "transpose", "tri", "tril", "triu", "trunc", "uniform", "unique", "unstack", "var", "vdot", "vecdot", "vstack", "where",
    "while_loop", "zeros", "zeros_like",
]
