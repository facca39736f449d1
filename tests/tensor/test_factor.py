"""Factors leave the sums they do not depend on, and the meaning stays."""

from __future__ import annotations

import numpy as np
import pytest

from polyai.scalar import dtype as dt
from polyai.tensor import interp, verify
from polyai.tensor.nodes import Input
from polyai.tensor.passes import factor
from polyai.tensor.show import show
from tests.programs import PROGRAMS
from tests.words import at, c, define, dense, mul, n, program, reduce


def test_a_sampled_product_multiplies_once() -> None:
    text = show(factor.run(PROGRAMS["sddmm"]().program))
    assert "sum" in text
    line = next(row for row in text.splitlines() if "sum(" in row)
    assert "A[" not in line.split("sum(")[1]


@pytest.mark.parametrize("name", PROGRAMS)
def test_meaning_stays(name: str) -> None:
    case = PROGRAMS[name]()
    program = factor.run(case.program)
    verify.verify(program)
    got = interp.run(program, case.arguments)
    for output, expected in case.expected.items():
        value = got[output].todense() if hasattr(got[output], "todense") else got[output]
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-5)


def test_an_infinite_factor_of_an_empty_row_does_not_count() -> None:
    """Rows scaled by 1 / degree: a vertex without neighbours has an infinite factor and an empty sum."""
    case = PROGRAMS["spmv"]()
    scaled = mul(at("u", "i", dtype=dt.f64), at("A", "i", "k", dtype=dt.f64), at("x", "k", dtype=dt.f64))
    p = program(
        "scaled",
        [*case.program.inputs, Input("u", dense(n, dtype=dt.f64))],
        [define("y", {"i": n}, reduce("add", {"k": c}, scaled))],
        "y",
    )
    rows = np.where(case.arguments["A"].todense().any(1), 2.0, np.inf)
    got = interp.run(factor.run(p), {**case.arguments, "u": rows})["y"]
    assert np.isinf(rows).any()
    np.testing.assert_allclose(got, 2.0 * case.expected["y"])
