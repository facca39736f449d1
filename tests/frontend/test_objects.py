"""Methods: what their object holds is read at each call."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

import polyai as pa
from polyai.errors import TraceError

rng = np.random.default_rng(0)
A = sp.random_array((20, 20), density=0.2, format="csr", rng=rng)
x = rng.random(20)


class Layer:
    def __init__(self, weight: Any) -> None:
        self.weight, self.lock = weight, threading.Lock()

    def __call__(self, z: Any) -> Any:
        return pa.tanh(z * self.weight)


class Model:
    def __init__(self, scale: Any, layers: Any = ()) -> None:
        self.scale, self.layers, self.graph, self.name = scale, layers, A, "model"

    @pa.jit
    def forward(self, z: Any, *, times: Any = 1.0) -> Any:
        """Scaled and multiplied."""
        out = self.graph @ (self.scale * z)
        for layer in self.layers:
            out = layer(out)
        return out * times

    @pa.jit
    def twice(self, z: Any) -> Any:
        return self.forward(self.forward(z))

    @pa.jit
    def changes(self, z: Any) -> Any:
        self.scale = z
        return z

    @staticmethod
    @pa.jit
    def product(B: Any, z: Any) -> Any:
        return B @ z

    @classmethod
    @pa.jit
    def named(cls, z: Any) -> Any:
        return z * len(cls.__name__)

    def plain(self, z: Any, axis: Any = 0) -> Any:
        return self.graph @ (self.scale * z)


def test_a_method_sees_new_values_of_its_object() -> None:
    model = Model(2.0)
    np.testing.assert_allclose(model.forward(x), A @ (2 * x))
    model.scale = 3.0
    np.testing.assert_allclose(model.forward(x, times=2.0), A @ (3 * x) * 2)
    model.scale = x
    np.testing.assert_allclose(model.forward(x), A @ (x * x))
    model.scale = x + 1
    made = len(model.forward.reasons)
    np.testing.assert_allclose(model.forward(x), A @ ((x + 1) * x))
    np.testing.assert_allclose(Model(x * 5).forward(x), A @ (5 * x * x))
    assert len(model.forward.reasons) == made
    assert model.forward.__doc__ == "Scaled and multiplied."


def test_objects_inside_an_object() -> None:
    model = Model(1.0, [Layer(2.0), Layer(x)])
    np.testing.assert_allclose(model.forward(x), np.tanh(np.tanh(A @ x * 2) * x))
    model.layers[1].weight = x * 3
    np.testing.assert_allclose(model.forward(x), np.tanh(np.tanh(A @ x * 2) * x * 3))
    np.testing.assert_allclose(model.twice(x), model.forward(model.forward(x)))


def test_a_bound_method_given_to_jit_reads_its_object_too() -> None:
    model = Model(2.0)
    compiled = pa.jit(model.plain, static=("axis",))
    np.testing.assert_allclose(compiled(x), A @ (2 * x))
    model.scale = 4.0
    np.testing.assert_allclose(compiled(x, axis=1), A @ (4 * x))
    assert "matmul" in str(compiled.explain(x))


def test_static_and_class_methods() -> None:
    np.testing.assert_allclose(Model(1.0).product(A, x), A @ x)
    np.testing.assert_allclose(Model.product(A, x), A @ x)
    np.testing.assert_allclose(Model.named(x), x * 5)


def test_a_method_that_assigns_is_refused() -> None:
    model = Model(2.0)
    with pytest.raises(TraceError, match=r"assigns self\.scale"):
        model.changes(x)
    assert model.scale == 2.0


def test_frozen_dataclasses_and_slots() -> None:
    @dataclass(frozen=True, slots=True)
    class Damped:
        d: float
        back: Any = None

        @pa.jit
        def step(self, P: Any, z: Any) -> Any:
            return self.d * (P @ z) + (1 - self.d)

    for d in (0.5, 0.75):
        np.testing.assert_allclose(Damped(d).step(A, x), d * (A @ x) + (1 - d))


def test_a_static_object_is_baked_in() -> None:
    class Fixed:
        power = 2

        @pa.jit(static=("self",))  # type: ignore[untyped-decorator]
        def raised(self, z: Any) -> Any:
            return z**self.power

    np.testing.assert_allclose(Fixed().raised(x), x**2)
