import numpy as np
import pytest

from polyai.scalar import dtype as dt
from polyai.scalar.build import apply
from polyai.scalar.derivative import DERIVATIVES, partials
from polyai.scalar.expr import Var
from polyai.scalar.interp import evaluate
from polyai.scalar.ops import OPS

SMOOTH = [op for op, d in DERIVATIVES.items() if op != "where" and any(p is not None for p in d)]
RANGE = {"arccosh": (1.2, 3.0), "arcsin": (-0.8, 0.8), "arccos": (-0.8, 0.8), "arctanh": (-0.8, 0.8)}


@pytest.mark.parametrize("op", SMOOTH)
def test_against_central_differences(op):
    arity = OPS[op].arity
    rng = np.random.default_rng(3)
    names = ["x", "y"][:arity]
    low, high = RANGE.get(op, (0.3, 2.0))
    env = {n: rng.uniform(low, high, 50) for n in names}
    expr = apply(op, *(Var(n, dt.f64) for n in names))
    h = 1e-6
    for n, partial in zip(names, partials(expr)):
        up, down = (evaluate(expr, {**env, n: env[n] + s * h}, {}) for s in (1, -1))
        np.testing.assert_allclose(evaluate(partial, env, {}), (up - down) / (2 * h), rtol=1e-4, atol=1e-7)


def test_every_operation_is_covered_but_those_of_complex_parts():
    assert set(OPS) - set(DERIVATIVES) == {"conj", "real", "imag"}
    for op, parts in DERIVATIVES.items():
        assert len(parts) == OPS[op].arity


def test_kinks():
    x, y = Var("x", dt.f64), Var("y", dt.f64)
    tie = [evaluate(p, {"x": 1.0, "y": 1.0}, {}) for p in partials(apply("max", x, y))]
    assert tie == [0.5, 0.5]
    assert evaluate(partials(apply("abs", x))[0], {"x": 0.0}, {}) == 0.0
