"""Random programs, formats and sizes: any schedule that is chosen keeps the meaning."""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from polyai.errors import UnsupportedError
from polyai.lower.tensor_to_poly import lower
from polyai.poly.passes import contract
from polyai.poly.passes.schedule import scheduled
from polyai.poly.verify import verify
from tests.poly.meaning import results, straight
from tests.programs import Case
from tests.strategies import programs

hints = st.dictionaries(st.sampled_from(["n", "m", "c"]), st.sampled_from([1, 5, 40, 5000]))


@settings(deadline=None, max_examples=60, derandomize=True, suppress_health_check=list(HealthCheck))
@given(programs(), hints, st.sampled_from(["recipe", "recipe", "isl"]))
def test_any_program(case: Case, likely: dict[str, int], scheduler: str) -> None:
    program = straight(case.program)
    try:
        scop = lower(program)
    except UnsupportedError as error:
        assert "walked together" in error.what
        return
    verify(scop)
    small = contract.run(scheduled(scop, likely, scheduler=scheduler)[0])
    verify(small)
    for name, value in results(case, program, small).items():
        np.testing.assert_array_equal(value, case.expected[name])
