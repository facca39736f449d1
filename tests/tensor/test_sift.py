"""What is selected only to be reduced is not stored; golden texts, and what stays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from polyai import pipeline
from polyai.frontend.surface import functions as pa
from polyai.frontend.trace import trace
from polyai.machine.cpu import host
from polyai.options import Options
from polyai.tensor.interp import run
from polyai.tensor.nodes import Program
from polyai.tensor.passes import selections, sift
from polyai.tensor.show import show
from polyai.tensor.verify import verify

X = np.array([1.0, -2.0, 3.0, -0.5, 0.0])


def fused(fn: Callable[..., Any], *args: Any) -> Program:
    """The program as the pass gets it."""
    build = pipeline.Build(trace(fn, args, {}, name="f").program, (), Options(), host())
    for stage in pipeline.STAGES:
        if stage.name == "sift":
            break
        build = stage.run(build)
    return build.program


GOLDEN: dict[str, tuple[Callable[..., Any], str]] = {
    "a sum": (lambda x: pa.sum(x[x > 0] ** 2), """\
program f
  input x[x_d0] f64
  sum_1[] f64 = sum(i: x_d0) where(x[i] > 0.0, square(x[i]), 0.0)
  output sum_1"""),
    "the number": (lambda x: x[x > 0].shape[0] * pa.sum(x), """\
program f
  input x[x_d0] f64
  sum_1[] f64 = sum(i_4: x_d0) x[i_4]
  chosen_number[] i64 = sum(i: x_d0) where(x[i] > 0.0, 1, 0)
  multiply[] f64 = f64(chosen_number[]) * sum_1[]
  output multiply"""),
}  # fmt: skip


@pytest.mark.parametrize("what", GOLDEN)
def test_texts(what: str) -> None:
    fn, wanted = GOLDEN[what]
    before = fused(fn, X)
    after = sift.run(before)
    verify(after)
    assert show(after) == wanted
    for x in (X, -np.ones(3)):
        for name, value in run(before, {"x": x}).items():
            np.testing.assert_allclose(run(after, {"x": x})[name], value)


KEPT: dict[str, Callable[..., Any]] = {
    "returned": lambda x: x[x > 0],
    "returned and reduced": lambda x: (x[x > 0], pa.sum(x[x > 0])),
    "a size of something else": lambda x: pa.zeros(x[x > 0].shape[0]) + pa.sum(x[x > 0]),
    "neighbours": lambda x: pa.sum(x[x > 0][1:] * x[x > 0][:-1]),
    "a running sum": lambda x: pa.sum(pa.cumsum(x[x > 0])),
    "rows": lambda x: pa.sum(pa.outer(x, x)[x > 0], axis=0),
    "at least one": lambda x: pa.max(x[x > 0]),
}


@pytest.mark.parametrize("what", KEPT)
def test_what_somebody_needs_stays(what: str) -> None:
    before = fused(KEPT[what], X)
    assert sift.run(before) == before and "list" in show(before)


def test_blocks_of_a_mask() -> None:
    found = selections.run(fused(lambda x: pa.exp(x[x > 0]), X))
    assert show(found.program) == """\
program f
  input x[x_d0] f64
  fact -chosen.nnz + x_d0 >= 0
  chosen[b, where(where(b * 4096 + t < x_d0, x[b * 4096 + t] > 0.0, False), b * 4096 + t, -1)] bool = True   for [b: floor((x_d0 + 4095) / (4096)), t: 4096] from [floor((x_d0 + 4095) / (4096)), x_d0] bool csr
  exp[i_4: chosen.nnz] f64 = exp(x[chosen.crd1[i_4]])
  output exp"""
    assert [name for name, _ in found.arrays] == ["chosen.crd1"] and not found.results


def test_values_in_place_of_places() -> None:
    found = selections.run(fused(lambda x: x[x > 0], X))
    assert show(found.program).splitlines()[-3:] == [
        "  chosen[b, where(where(b * 4096 + t < x_d0, x[b * 4096 + t] > 0.0, False), b * 4096 + t, -1)] f64 = "
        "where(b * 4096 + t < x_d0, x[b * 4096 + t], 0.0)   for [b: floor((x_d0 + 4095) / (4096)), t: 4096] "
        "from [floor((x_d0 + 4095) / (4096)), x_d0] f64 csr",
        "  index[chosen.nnz] f64 = list chosen",
        "  output index",
    ]
    assert not found.arrays
