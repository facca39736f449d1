"""A sum over an index that its body does not use takes each term as often as the index has values, also unrolled."""

from __future__ import annotations

import numpy as np
import pytest

from polyai.machine.cpu import host
from polyai.options import Options
from polyai.pipeline import compile_program
from polyai.scalar import dtype as dt
from polyai.tensor.nodes import Input
from tests.lower.meaning import call
from tests.programs import Case
from tests.words import at, c, define, dense, m, n, program, reduce


@pytest.mark.parametrize("count", [0, 1, 4, 7, 9])
@pytest.mark.parametrize("width", [1, 5, 16])
def test_every_copy_adds_its_term(count: int, width: int) -> None:
    x = Input("x", dense(m, n, dtype=dt.f64))
    total = reduce("add", {"a": c, "b": n}, at("x", "i", "b", dtype=dt.f64))
    p = program("p", [x, Input("w", dense(c, dtype=dt.f64))], [define("y", {"i": m}, total)], "y")
    build = compile_program(p, {}, Options(), host(), until="tidy")
    values = np.arange(2.0 * width).reshape(2, width)
    case = Case(p, {"x": values, "w": np.zeros(count)}, {})
    code, out = call(build.loops, case, build.program)
    assert code == 0
    np.testing.assert_array_equal(out["y"], count * values.sum(1))
