"""The error of every elementary function in units in the last place, against twice the precision, as its file promises."""

from __future__ import annotations

import dataclasses

import mpmath as mp
import numpy as np
import pytest
import scipy.special

from polyai.machine import cpu
from polyai.scalar import dtype as dt
from tests.machine.harness import Compiled, elementwise, op

N = 6000
BOUND = {
    "exp": (1.1, 1.1), "exp2": (1.2, 1.2), "expm1": (1.7, 1.8), "tanh": (3.0, 3.0), "sinh": (1.0, 3.0), "cosh": (1.0, 3.0),
    "log": (1.0, 1.0), "log2": (1.5, 1.5), "log10": (2.0, 2.0), "log1p": (1.5, 1.5), "arcsinh": (1.0, 4.0),
    "arccosh": (1.0, 4.0), "arctanh": (1.0, 4.0), "erf": (1.5, 2.0), "sin": (1.5, 1.5), "cos": (1.5, 1.5), "tan": (1.0, 3.0),
    "arcsin": (1.0, 2.5), "arccos": (1.0, 2.5), "arctan": (1.0, 2.5),
}  # fmt: skip
"""ulp as (float, double); the files of polyai/machine/math state the same."""


def between(rng: np.random.Generator, low: float, high: float) -> np.ndarray:
    return rng.uniform(low, high, N)


def magnitudes(rng: np.random.Generator, low: float, high: float) -> np.ndarray:
    """Both signs, exponents even between the bounds: subnormal numbers too."""
    return np.exp2(rng.uniform(low, high, N)) * rng.choice([-1, 1], N)


def samples(name: str, single: bool) -> np.ndarray:
    """Arguments over the whole range of the function, and dense where it is delicate."""
    rng = np.random.default_rng(5)
    tiny, top = (-149, 127) if single else (-1074, 1023)
    big = 88.0 if single else 709.0
    waves = [between(rng, -10, 10), between(rng, -8000, 8000), between(rng, -1e6, 1e6), magnitudes(rng, tiny, 0), magnitudes(rng, 0, 100)]
    positive = [abs(magnitudes(rng, tiny, top)), between(rng, 0.5, 2), between(rng, 0.9, 1.1)]
    unit = [between(rng, -1, 1), magnitudes(rng, tiny, 0)]
    by_name = {
        "exp": [between(rng, -104, 89) if single else between(rng, -746, 710), between(rng, -1, 1), magnitudes(rng, tiny, 3)],
        "exp2": [between(rng, -151, 128) if single else between(rng, -1076, 1024), between(rng, -1, 1)],
        "expm1": [between(rng, -40, big), between(rng, -1, 1), magnitudes(rng, tiny, 0)],
        "tanh": [between(rng, -25, 25), between(rng, -1, 1), magnitudes(rng, tiny, 2)],
        "sinh": [between(rng, -big, big), between(rng, -1, 1), magnitudes(rng, tiny, 0)],
        "cosh": [between(rng, -big, big), between(rng, -1, 1)],
        "log1p": [between(rng, -1, 10), between(rng, -0.5, 0.5), magnitudes(rng, tiny, -1), abs(magnitudes(rng, 0, 120))],
        "arctan": [between(rng, -10, 10), magnitudes(rng, tiny, 100)],
        "arcsinh": [between(rng, -10, 10), magnitudes(rng, tiny, 120)],
        "arccosh": [1 + abs(magnitudes(rng, -20, 100)), between(rng, 1, 3)],
        "arctanh": [between(rng, -1, 1), magnitudes(rng, tiny, -1)],
        "erf": [between(rng, -6, 6)[:1500], between(rng, -1, 1)[:1500], magnitudes(rng, tiny, 0)[:500]],
        "log": positive, "log2": positive, "log10": positive, "sin": waves, "cos": waves, "tan": waves,
        "arcsin": unit, "arccos": unit,
    }  # fmt: skip
    return np.concatenate(by_name[name]).astype(np.float32 if single else np.float64)


def reference(name: str, x: np.ndarray) -> np.ndarray:
    """The function in a wider type: doubles for floats, extended doubles for doubles."""
    wide = x.astype(np.float64 if x.dtype == np.float32 else np.longdouble)
    with np.errstate(all="ignore"):
        if name != "erf":
            return np.asarray(getattr(np, name)(wide))
        if x.dtype == np.float32:
            return np.asarray(scipy.special.erf(wide))
        parts = [mp.erf(float(v)) for v in x]
        high = np.array([float(p) for p in parts], np.longdouble)
        return high + np.array([float(p - mp.mpf(float(p))) for p in parts], np.longdouble)


def error_in_ulp(got: np.ndarray, want: np.ndarray) -> np.ndarray:
    info = np.finfo(got.dtype)
    with np.errstate(all="ignore"):
        rounded = want.astype(got.dtype)
        exponent = np.maximum(np.frexp(want)[1] - info.nmant - 1, info.minexp - info.nmant)
        error = np.abs(got.astype(want.dtype) - want) / np.ldexp(np.ones_like(want), exponent)
    same = (got == rounded) & ~np.isfinite(rounded)
    return np.where(same, 0, np.where(np.isnan(error), np.inf, error)).astype(np.float64)


@pytest.mark.parametrize("lanes", [1, 8])
@pytest.mark.parametrize("single", [True, False], ids=["float", "double"])
@pytest.mark.parametrize("name", BOUND)
def test_errors_are_as_small_as_stated(name: str, single: bool, lanes: int) -> None:
    kind = dt.f32 if single else dt.f64
    x = samples(name, single)
    got = np.empty_like(x)
    assert Compiled(elementwise("f", (kind,), kind, lambda v: op(name, v), lanes))(len(x), x, got) == 0
    errors = error_in_ulp(got, reference(name, x))
    worst = int(np.argmax(errors))
    assert errors[worst] <= BOUND[name][0 if single else 1], f"{name}({x[worst]!r}) = {got[worst]!r}: {errors[worst]:.2f} ulp"


SPECIAL = [0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 0.5, -2.0, 3.0, 1e-40, -1e-40, 1e30, -1e30]


@pytest.mark.parametrize("kind", [dt.f32, dt.f64], ids=str)
@pytest.mark.parametrize("name", BOUND)
def test_special_values_are_those_of_numpy(name: str, kind: dt.DType) -> None:
    x = np.array(SPECIAL, dt.to_numpy(kind))
    with np.errstate(all="ignore"):
        want = scipy.special.erf(x) if name == "erf" else getattr(np, name)(x.astype(np.float64)).astype(x.dtype)
    for lanes in (1, 16):
        got = np.empty_like(x)
        assert Compiled(elementwise("f", (kind,), kind, lambda v: op(name, v), lanes))(len(x), x, got) == 0
        np.testing.assert_allclose(got, want, rtol=1e-6 if kind is dt.f32 else 1e-15)
        zero = want == 0
        np.testing.assert_array_equal(np.signbit(got[zero]), np.signbit(want[zero]), err_msg=name)


@pytest.mark.parametrize("name", ["pow", "arctan2", "mod", "floordiv"])
@pytest.mark.parametrize("kind", [dt.f32, dt.f64], ids=str)
def test_functions_of_two_numbers(name: str, kind: dt.DType) -> None:
    rng = np.random.default_rng(2)
    numpy_kind = dt.to_numpy(kind)
    a, b = (np.concatenate([v, rng.normal(size=2000) * 4]) for v in (np.repeat(SPECIAL, 14), np.tile(SPECIAL, 14)))
    a, b = a.astype(numpy_kind), b.astype(numpy_kind)
    meaning = {"pow": np.power, "arctan2": np.arctan2, "mod": np.remainder, "floordiv": np.floor_divide}[name]
    with np.errstate(all="ignore"):
        exact = meaning(a, b) if name in ("mod", "floordiv") else meaning(a.astype(np.float64), b.astype(np.float64)).astype(numpy_kind)
    for lanes in (1, 8):
        got = np.empty_like(a)
        assert Compiled(elementwise("f", (kind, kind), kind, lambda x, y: op(name, x, y), lanes))(len(a), a, b, got) == 0
        np.testing.assert_allclose(got, exact, rtol=3e-7 if kind is dt.f32 else 5e-16)


TRIPLE = cpu.host().triple
OLD = [
    dataclasses.replace(cpu.describe("x86_64", frozenset(["avx2", "fma", "f16c"]), TRIPLE), cpu="x86-64-v3", features=""),
    dataclasses.replace(cpu.describe("x86_64", frozenset(), TRIPLE), cpu="x86-64", features=""),
]


@pytest.mark.parametrize("kind", [dt.f32, dt.f64], ids=str)
def test_powers_are_as_exact_as_stated(kind: dt.DType) -> None:
    rng = np.random.default_rng(0)
    exponent, x = rng.uniform(-700 if kind is dt.f64 else -87, 700 if kind is dt.f64 else 87, 20000), np.exp(rng.uniform(-30, 30, 20000))
    x[:5000] = 1 + rng.normal(size=5000) * 1e-3
    x = abs(x).astype(dt.to_numpy(kind))
    y = np.clip(exponent / np.log(x.astype(np.float64)), -1e9, 1e9).astype(x.dtype)
    with np.errstate(all="ignore"):
        wide = np.float64 if kind is dt.f32 else np.longdouble
        want = np.power(x.astype(wide), y.astype(wide))
    for lanes in (1, 8):
        got = np.empty_like(x)
        assert Compiled(elementwise("f", (kind, kind), kind, lambda a, b: op("pow", a, b), lanes))(len(x), x, y, got) == 0
        assert error_in_ulp(got, want).max() <= (1.0 if kind is dt.f32 else 1.2)


@pytest.mark.parametrize("target", OLD, ids=["avx2", "sse"])
@pytest.mark.parametrize("name", ["sin", "exp", "exp2", "expm1", "tanh", "erf", "log"])
def test_other_instruction_sets_stay_close(name: str, target: cpu.Target) -> None:
    """Without AVX-512's scaling, and without multiply-add (an ulp more)."""
    for kind, single in ((dt.f32, True), (dt.f64, False)):
        x = samples(name, single)
        got = np.empty_like(x)
        assert Compiled(elementwise("f", (kind,), kind, lambda v: op(name, v), 8), target)(len(x), x, got) == 0
        bound = BOUND[name][0 if single else 1] + (0 if target.fma else 1.5)
        assert error_in_ulp(got, reference(name, x)).max() <= bound
