"""Every operation of the table, for every type it has, scalar and in vectors, against NumPy's meaning of it."""

from __future__ import annotations

import numpy as np
import pytest

from polyai.errors import DTypeError, UnsupportedError
from polyai.scalar import dtype as dt
from polyai.scalar.dtype import DType
from polyai.scalar.ops import OPS, result_type
from tests.machine.harness import Compiled, elementwise, op

TYPES = [d for d in dt.ALL if d != dt.bf16]
N = 67


def numbers(dtype: DType, seed: int) -> np.ndarray:
    """Ordinary numbers with the troublemakers of the type."""
    rng = np.random.default_rng(seed)
    kind = dt.to_numpy(dtype)
    if dtype.kind == "b":
        return rng.integers(0, 2, N).astype(bool)
    if dtype.is_integer:
        info = np.iinfo(kind)
        out = rng.integers(max(info.min, -9), 10, N).astype(kind)
        out[:8] = [info.min, info.max, 0, info.min, info.min, info.max, 1, 0]
        return out if seed % 2 == 0 else np.roll(out, 2)
    if dtype.is_complex:
        out = (rng.normal(size=N) + 1j * rng.normal(size=N)).astype(kind)
        out[:3] = [0, 1, 2j]
        return out if seed % 2 == 0 else np.roll(out, 5)
    out = rng.normal(size=N).astype(kind)
    out[:8] = [0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, 2.5, 3.5]
    return out if seed % 2 == 0 else np.roll(out, 3)


def cases() -> list[tuple[str, DType]]:
    return [(name, d) for name, entry in OPS.items() for d in TYPES if d.kind in entry.kinds and name != "where"]


NO_COMPLEX = {"arcsin", "arccos", "arctan", "arcsinh", "arccosh", "arctanh"}


def tolerance(result: DType, name: str) -> float:
    if result.is_integer or result.kind == "b":
        return 0.0
    eps = {"f16": 1e-3, "f32": 3e-7, "f64": 1e-15, "c64": 2e-6, "c128": 1e-14}[result.name]
    return eps * 4


def expected(name: str, args: list[np.ndarray], dtype: DType) -> np.ndarray:
    """NumPy's values; f16 is computed in f32 as the language says."""
    if args[0].dtype == np.float16:
        args = [a.astype(np.float32) for a in args]
    values = OPS[name].meaning(*args)
    with np.errstate(all="ignore"):
        return np.asarray(values).astype(dt.to_numpy(dtype))


@pytest.mark.parametrize(("name", "dtype"), cases(), ids=lambda v: str(v))
def test_an_operation_means_what_numpy_means(name: str, dtype: DType) -> None:
    entry = OPS[name]
    try:
        result = result_type(name, *[dtype] * entry.arity)
    except DTypeError:
        return
    args = [numbers(dtype, seed) for seed in range(entry.arity)]
    given: list[DType] = [dtype] * entry.arity
    if name == "pow" and dtype.is_integer:
        args[1] = np.abs(args[1]) % dt.to_numpy(dtype).type(7)
    if entry.operands == "result" and result != dtype:
        args, given = [a.astype(dt.to_numpy(result)) for a in args], [result] * entry.arity
    if dtype.is_complex and name in NO_COMPLEX:
        with pytest.raises(UnsupportedError, match="complex"):
            Compiled(elementwise("f", tuple(given), result, lambda *x: op(name, *x, dtype=result), 1))
        return
    want = expected(name, args, result)
    for lanes in (1, 8):
        got = np.zeros(N, dt.to_numpy(result))
        kernel = elementwise("f", tuple(given), result, lambda *x: op(name, *x, dtype=result), lanes)
        assert Compiled(kernel)(N, *args, got) == 0
        np.testing.assert_allclose(got, want, rtol=tolerance(result, name), atol=tolerance(result, name), err_msg=f"{name} {lanes}")
