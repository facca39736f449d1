"""Rows of stacks meet numbers that other loops compute: the loops over rows are known whatever the order in which isl adds sizes up."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

import polyai as pa

RNG = np.random.default_rng(5)
TOP, BOTTOM = (sp.random_array((n, 5), density=0.4, format="csr", rng=RNG) for n in (7, 3))


@pytest.mark.parametrize("which", ("top", "bottom", "both"))
@pytest.mark.parametrize("form", ("csr", "csc"))
def test_a_stack_over_a_sum_of_one_part(which: str, form: str) -> None:
    def program(a: Any, b: Any) -> Any:
        total = {"top": lambda: a.sum(), "bottom": lambda: b.sum(), "both": lambda: a.sum() + b.sum()}[which]()
        return pa.vstack([a, b]) / (1 + abs(total))

    found = pa.jit(program)(TOP.asformat(form), BOTTOM)
    total = {"top": TOP.sum(), "bottom": BOTTOM.sum(), "both": TOP.sum() + BOTTOM.sum()}[which]
    np.testing.assert_allclose(found.toarray(), np.vstack([TOP.toarray(), BOTTOM.toarray()]) / (1 + abs(total)))
