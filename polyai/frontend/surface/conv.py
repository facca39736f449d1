"""Convolution and pooling over the trailing dimensions, channels second: [n, c, ...spatial]."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from polyai.errors import ShapeError, UnsupportedError
from polyai.frontend.core import Array, Tracer, dense, find_tracer, index_term, to_size
from polyai.frontend.size_value import SizeValue
from polyai.frontend.surface.joining import padded
from polyai.frontend.term import Term, apply, convert, reduced
from polyai.scalar import dtype as dt
from polyai.scalar.ops import MONOIDS
from polyai.shapes import expr as sx
from polyai.shapes.expr import Size


def _each(value: Any, rank: int, what: str) -> list[Any]:
    if isinstance(value, (tuple, list)):
        if len(value) != rank:
            raise ShapeError(f"{what}={value} for {rank} spatial dimensions", "", "give one number, or one per dimension")
        return list(value)
    return [value] * rank


def _pads(padding: Any, kernel: Sequence[Size], dilation: Sequence[int], stride: Sequence[int], tracer: Tracer) -> list[tuple[Size, Size]]:
    if padding == "valid":
        return [(0, 0) for _ in kernel]
    if padding == "same":
        if any(s != 1 for s in stride):
            raise UnsupportedError("padding='same' with a stride", "the size of the result would not be that of the input", "give the padding as numbers")
        totals = [d * (k - 1) for k, d in zip(kernel, dilation)]
        return [(sx.floordiv(t, 2), t - sx.floordiv(t, 2)) for t in totals]
    if isinstance(padding, str):
        raise UnsupportedError(f"padding={padding!r}", "known are 'same', 'valid' and numbers", "give the padding as numbers")
    out = []
    for p in _each(padding, len(kernel), "padding"):
        before, after = p if isinstance(p, (tuple, list)) else (p, p)
        out.append((to_size(before, tracer), to_size(after, tracer)))
    return out


def _windows(tracer: Tracer, a: Array, kernel: Sequence[Size], stride: Sequence[int], dilation: Sequence[int], what: str) -> list[Size]:
    """Sizes of the result: the number of windows that fit into each spatial dimension."""
    out = []
    for e, k, s, d in zip(a.extents[-len(kernel) :], kernel, stride, dilation):
        room = e - d * (k - 1) - 1
        tracer.sizes.require(room, ">=", 0, f"{what}: the window does not fit into {tracer.shape_text(a)}", "add padding")
        out.append(tracer.sizes.resolve(sx.floordiv(room, s) + 1))
    return out


def _positive(value: Any, what: str) -> int:
    number = int(value)
    if number < 1:
        raise ShapeError(f"{what} is {number}", "", "use a number of at least 1")
    return number


def conv(x: Any, w: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: int, rank: int) -> Array:
    """out[n, o, y...] = sum over c, r of x[n, g*C/G + c, y*stride + r*dilation - padding] * w[o, c, r...] (+ bias[o])."""
    name = f"conv{rank}d"
    tracer = find_tracer((x, w), name)
    a, kernel = dense(tracer.array(x), name), dense(tracer.array(w), name)
    if a.rank != rank + 2 or kernel.rank != rank + 2:
        raise ShapeError(f"{name} takes x [n, c, ...] and w [o, c / groups, ...]", tracer.shapes_text((a, kernel)), f"both have {rank + 2} dimensions")
    sizes = tracer.sizes
    strides = [_positive(s, "stride") for s in _each(stride, rank, "stride")]
    dilations = [_positive(d, "dilation") for d in _each(dilation, rank, "dilation")]
    outputs, fixed = kernel.extents[0], 1
    sizes.require(a.extents[1], "==", kernel.extents[1] * groups, f"{name}: channels of x and w differ", "w has shape [o, c / groups, ...]")
    if groups > 1:
        fixed = outputs = sizes.number(outputs, f"{name} with groups")
        if fixed % groups:
            raise ShapeError(f"{name}: {outputs} outputs in {groups} groups", tracer.shapes_text((a, kernel)), "groups must divide the outputs")
    window = kernel.extents[2:]
    wide = padded(a, [(0, 0), (0, 0), *_pads(padding, window, dilations, strides, tracer)])
    n, o, *ys = tracer.indices((a.extents[0], outputs, *_windows(tracer, wide, window, strides, dilations, name)))
    c, *rs = tracer.indices((kernel.extents[1], *window), start=rank + 2)
    channel: Any = c
    if groups > 1:
        each = sizes.number(kernel.extents[1], f"{name} with groups")
        channel = index_term(o) // (fixed // groups) * each + index_term(c)
    at = [_scaled(y, s) + _scaled(r, d) for y, s, r, d in zip(ys, strides, rs, dilations)]
    value = tracer.read(wide, (n, channel, *at)) * tracer.read(kernel, (o, c, *rs))
    total = reduced("add", (c, *rs), value)
    if bias is not None:
        b = dense(tracer.array(bias), name)
        sizes.require(b.extents[0], "==", outputs, f"{name}: one bias per output")
        total = total + tracer.read(b, (o,))
    return tracer.emit(name, (n, o, *ys), total, strong=True)


def _scaled(index: Any, factor: int) -> Term:
    return index_term(index) if factor == 1 else index_term(index) * factor


def conv1d(x: Any, w: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1) -> Any:
    """1-D convolution (correlation): x [n, c, l], w [o, c / groups, k]; padding a number, a pair, 'same' or 'valid'."""
    return conv(x, w, bias, stride, padding, dilation, groups, 1)


def conv2d(x: Any, w: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1) -> Any:
    """2-D convolution (correlation): x [n, c, h, w], w [o, c / groups, kh, kw]; padding numbers, pairs, 'same' or 'valid'."""
    return conv(x, w, bias, stride, padding, dilation, groups, 2)


def conv3d(x: Any, w: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1) -> Any:
    """3-D convolution (correlation): x [n, c, d, h, w], w [o, c / groups, kd, kh, kw]."""
    return conv(x, w, bias, stride, padding, dilation, groups, 3)


def _pool(x: Any, kernel: Any, stride: Any, padding: Any, rank: int, monoid: str, counted: bool = True) -> Array:
    name = f"{'max' if monoid == 'max' else 'avg'}_pool{rank}d"
    tracer = find_tracer((x,), name)
    a = dense(tracer.array(x), name)
    if a.rank < rank:
        raise ShapeError(f"{name} of an array with {a.rank} dimensions", tracer.shape_text(a))
    window = [_positive(k, "kernel") for k in _each(kernel, rank, "kernel")]
    strides = window if stride is None else [_positive(s, "stride") for s in _each(stride, rank, "stride")]
    lead = a.rank - rank
    pads = _pads(padding, window, [1] * rank, strides, tracer)
    filler = MONOIDS["max"].identity(a.type.dtype) if monoid == "max" else 0
    wide = padded(a, [(0, 0)] * lead + pads, value=filler)
    made = tracer.indices((*a.extents[:lead], *_windows(tracer, wide, window, strides, [1] * rank, name)))
    over = tracer.indices(window, start=a.rank)
    at = [_scaled(y, s) + index_term(r) for y, s, r in zip(made[lead:], strides, over)]
    value = tracer.read(wide, (*made[:lead], *at))
    if monoid == "max":
        return tracer.emit(name, made, reduced("max", over, value), strong=True)
    dtype = a.type.dtype if a.type.dtype.is_float else dt.f64
    total = reduced("add", over, convert(value, dt.compute_type(dtype)))
    count: Any = 1
    for y, s, k, (before, after), e in zip(made[lead:], strides, window, pads, a.extents[lead:]):
        count = count * (k if counted or (before, after) == (0, 0) else _inside(tracer, y, s, k, before, e))
    return tracer.emit(name, made, convert(total / count, dtype), strong=True)


def _inside(tracer: Tracer, y: Any, stride: int, kernel: int, before: Size, extent: Size) -> Term:
    """How many elements of a window are not padding."""
    begin = _scaled(y, stride) - tracer.size_term(before)
    end = apply("min", begin + kernel, tracer.size_term(extent))
    return convert(end - apply("max", begin, 0), dt.f64)


def max_pool1d(x: Any, kernel: Any, stride: Any = None, padding: Any = 0) -> Any:
    """The largest element of each window over the last dimension; stride is the kernel if not given."""
    return _pool(x, kernel, stride, padding, 1, "max")


def max_pool2d(x: Any, kernel: Any, stride: Any = None, padding: Any = 0) -> Any:
    """The largest element of each window over the last two dimensions."""
    return _pool(x, kernel, stride, padding, 2, "max")


def avg_pool1d(x: Any, kernel: Any, stride: Any = None, padding: Any = 0, count_include_pad: bool = True) -> Any:
    """The mean of each window over the last dimension."""
    return _pool(x, kernel, stride, padding, 1, "add", count_include_pad)


def avg_pool2d(x: Any, kernel: Any, stride: Any = None, padding: Any = 0, count_include_pad: bool = True) -> Any:
    """The mean of each window over the last two dimensions."""
    return _pool(x, kernel, stride, padding, 2, "add", count_include_pad)


def convolve(x: Any, w: Any, mode: str = "full") -> Any:
    """NumPy's convolution of two vectors: modes full, same, valid. The vector w is the shorter one."""
    tracer = find_tracer((x, w), "convolve")
    a, kernel = dense(tracer.array(x), "convolve"), dense(tracer.array(w), "convolve")
    k = kernel.extents[0]
    if isinstance(mode, SizeValue) or mode not in ("full", "same", "valid"):
        raise UnsupportedError(f"convolve with mode {mode!r}", "known modes are full, same and valid", "use one of these")
    tracer.sizes.require(k, ">=", 1, "convolve with an empty vector")
    tracer.sizes.require(a.extents[0], ">=", k, "convolve: the second vector is the shorter one", "exchange the operands")
    total = k - 1 if mode != "valid" else 0
    before = total if mode == "full" else sx.floordiv(total, 2) if mode == "valid" else total - sx.floordiv(total, 2)
    after = total if mode == "full" else total - before
    wide = padded(a, [(before, after)])
    (i,) = tracer.indices((wide.extents[0] - k + 1,))
    (r,) = tracer.indices((k,), start=1)
    value = tracer.read(wide, (index_term(i) + index_term(r),)) * tracer.read(kernel, (tracer.size_term(k) - 1 - index_term(r),))
    return tracer.emit("convolve", (i,), reduced("add", (r,), value), strong=True)
