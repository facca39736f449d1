"""softmax(gelu(layernorm(X))) over rows, f32: three memory passes for a library, one for a fused kernel."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from benchmarks import reference
from benchmarks.harness import Case, Settings, Target
from benchmarks.suites import Suite
from benchmarks.suites.operands import normal

SHAPES = ((128, 768), (4099, 1024))
EPS = 1e-5
FLOPS = 40  # per element, exp and erf counted as their polynomials


def cases(settings: Settings) -> Iterator[Case]:
    for rows, width in SHAPES:
        name = f"{rows}x{width}"
        X = normal(name, rows, width)
        gamma = (1 + 0.1 * normal(name + " gamma", width)).astype(np.float32)
        beta = (0.1 * normal(name + " beta", width)).astype(np.float32)
        yield Case(
            name,
            "rowwise",
            {"X": X, "gamma": gamma, "beta": beta, "eps": EPS},
            lambda X=X, g=gamma, b=beta: reference.rowwise(X, g, b, EPS),
            FLOPS * rows * width,
            8 * rows * width,
            {"rows": rows, "width": width},
        )


SUITE = Suite(
    "rowwise",
    "Layernorm, GELU, softmax, f32",
    ("scipy", "onnxruntime", "openvino", "torch"),
    cases,
    (Target("onnxruntime", 1.2), Target("openvino", 1.2), Target("torch", 1.2)),
)
