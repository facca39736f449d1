"""Copies of blocks, masks of lanes, extremes: whole kernels against NumPy and the interpreter of loops."""

from __future__ import annotations

import numpy as np
import pytest

from polyai.errors import VerifyError
from polyai.loop import interp
from polyai.loop import nodes as lp
from polyai.loop.verify import verify
from polyai.machine import abi, cpu
from polyai.scalar import dtype as dt
from polyai.scalar.dtype import DType
from tests.machine.harness import Compiled, array, const, elementwise, op, plus, size, times, var


def copying(kind: lp.Kind, dtype: DType) -> lp.Kernel:
    """Y[to + k] = X[start + k], Z[k + to] = X[start + k] for k in low..high."""
    at = plus(var("start"), var("k"))
    value = lp.Load("X", (at,), dtype)
    body = lp.Block((lp.Store("Y", (plus(var("to"), var("k")),), value), lp.Let("p", plus(var("k"), var("to"))), lp.Store("Z", (var("p"),), value)))
    params = (*map(size, ("n", "low", "high", "start", "to")), array("X", dtype), array("Y", dtype, "output"), array("Z", dtype, "output"))
    return lp.Kernel("copying", params, lp.For("k", var("low"), var("high"), body, kind))


@pytest.mark.parametrize("kind", [lp.Kind.COPY, lp.Kind.STREAM])
@pytest.mark.parametrize("dtype", [dt.f64, dt.i32, dt.i8, dt.c128, dt.bool_], ids=str)
def test_blocks_are_copied_from_any_place_to_any_place(kind: lp.Kind, dtype: DType) -> None:
    kernel = copying(kind, dtype)
    verify(kernel)
    run = Compiled(kernel)
    assert "memcpy" in run.text and ("nontemporal" in run.text) == (kind is lp.Kind.STREAM and cpu.host().triple.startswith("x86_64"))
    rng = np.random.default_rng(3)
    n = 400
    x = rng.integers(0, 2 if dtype is dt.bool_ else 100, n).astype(dt.to_numpy(dtype))
    for _ in range(200):
        low, length = rng.integers(0, 5), rng.integers(-1, 300)
        start, to = rng.integers(0, n - max(length, 0) - low + 1, 2)
        y, z = np.full_like(x, 1), np.full_like(x, 1)
        assert run(n, low, low + length, start, to, x, y, z) == abi.OK
        want = np.full_like(x, 1)
        if length > 0:
            want[to + low : to + low + length] = x[start + low : start + low + length]
        np.testing.assert_array_equal(y, want)
        np.testing.assert_array_equal(z, want)
        arrays = {"X": x, "Y": np.full_like(x, 1), "Z": np.full_like(x, 1)}
        interp.run(kernel, {"n": n, "low": int(low), "high": int(low + length), "start": int(start), "to": int(to)} | arrays)
        np.testing.assert_array_equal(arrays["Y"], want)


@pytest.mark.parametrize(
    "body",
    [
        lp.Store("Y", (times(var("k"), const(2)),), lp.Load("X", (var("k"),), dt.f64)),
        lp.Store("Y", (var("k"),), lp.Load("X", (var("start"),), dt.f64)),
        lp.Store("Y", (plus(var("k"), var("k")),), lp.Load("X", (var("k"),), dt.f64)),
        lp.Store("Y", (var("k"),), op("add", lp.Load("X", (var("k"),), dt.f64), lp.Const(1.0, dt.f64))),
        lp.Store("Y", (var("k"),), lp.Load("X", (var("k"),), dt.f64), lp.Const(True, dt.bool_)),
        lp.Store("Y", (plus(var("k"), const(1)),), lp.Load("Y", (var("k"),), dt.f64)),
        lp.Block((lp.Let("p", times(var("k"), const(2))), lp.Store("Y", (plus(var("k"), var("p")),), lp.Load("X", (var("k"),), dt.f64)))),
    ],
)
def test_what_is_no_copy_of_blocks_is_refused(body: lp.Stmt) -> None:
    params = (*map(size, ("n", "start")), array("X", dt.f64), array("Y", dt.f64, "output"))
    for kind in (lp.Kind.COPY, lp.Kind.STREAM):
        with pytest.raises(VerifyError, match="loop k copies blocks"):
            verify(lp.Kernel("wrong", params, lp.For("k", const(0), var("n"), body, kind)))
    verify(lp.Kernel("right", params, lp.For("k", const(0), var("n"), lp.Store("Y", (var("k"),), lp.Load("X", (plus(var("k"), var("start")),), dt.f64)), lp.Kind.COPY)))


@pytest.mark.parametrize("lanes", [2, 4, 8, 32, 128])
def test_a_mask_holds_for_the_lanes_below_the_end(lanes: int) -> None:
    """Also where the end is far away; where the distance wraps, no lane is said to be inside."""
    inside = op("lt", lp.Ramp(var("base"), 1, lanes), var("stop"), dtype=dt.bool_)
    store = lp.Store("Y", (lp.Ramp(const(0), 1, lanes),), op("where", inside, const(1, dt.i8), const(0, dt.i8), dtype=dt.i8))
    run = Compiled(lp.Kernel("mask", (size("n"), size("base"), size("stop"), array("Y", dt.i8, "output")), store))
    far = 1 << 40
    for base in (0, 1, 5, far, -far):
        for distance in (-far, -300, -1, 0, 1, lanes - 1, lanes, lanes + 1, 127, 128, 255, 256, 65536, 1 << 32, far):
            y = np.full(lanes, 7, np.int8)
            assert run(lanes, base, base + distance, y) == abi.OK
            assert (y == (np.arange(lanes) < distance)).all(), (base, distance)
    lowest, highest = np.iinfo(np.int64).min, np.iinfo(np.int64).max
    for base, stop in ((lowest, 10), (highest, 10)):
        y = np.full(lanes, 7, np.int8)
        assert run(lanes, base, stop, y) == abi.OK
        assert not y.any()


@pytest.mark.parametrize("kind", [dt.f16, dt.f32, dt.f64], ids=str)
@pytest.mark.parametrize("name", ["max", "min"])
def test_extremes_of_single_numbers_pass_nan_on(name: str, kind: DType) -> None:
    numpy_kind = dt.to_numpy(kind)
    some = np.array([0.0, -1.5, 2.0, np.inf, -np.inf, np.nan], numpy_kind)
    a, b = (x.ravel().copy() for x in np.meshgrid(some, some))
    run = Compiled(elementwise(f"{name}.scalar", (kind, kind), kind, lambda x, y: op(name, x, y), 1))
    got = np.zeros(a.size, numpy_kind)
    assert run(a.size, a, b, got) == abi.OK
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(got, getattr(np, f"{name}imum")(a, b))
