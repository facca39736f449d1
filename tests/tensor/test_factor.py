"""Factors leave the sums they do not depend on, and the meaning stays."""

from __future__ import annotations

import numpy as np
import pytest

from polyai.tensor import interp, verify
from polyai.tensor.passes import factor
from polyai.tensor.show import show
from tests.programs import PROGRAMS


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
