"""Random programs through every pass down to flat, vectorised loops, in the interpreter of the loop level."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, reject, settings

from polyai.errors import UnsupportedError
from polyai.machine.cpu import host
from polyai.options import Options
from polyai.pipeline import compile_program
from polyai.tensor.show import show
from tests.lower.meaning import call, full
from tests.programs import Case
from tests.strategies import programs

FEW = settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])


def means_the_same(case: Case) -> None:
    try:
        build = compile_program(case.program, {}, Options(), host(), until="tidy", verify=True)
    except UnsupportedError as error:
        assert "walked together" in str(error) or "second walk" in str(error)  # patterns that would be searched, or that a product names twice
        reject()
    if build.phases:  # values that a second walk reads are stored by a kernel before
        reject()
    for backwards in (False, True):
        code, out = call(build.loops, case, build.program, backwards=backwards)
        assert code == 0, show(case.program)
        for name, value in full(out, case, build.program).items():
            np.testing.assert_array_equal(value, case.expected[name], err_msg=show(case.program))


@given(case=programs())
@settings(FEW, max_examples=60)
def test_small_programs(case: Case) -> None:
    means_the_same(case)


@pytest.mark.parametrize("extents", [(9, 5, 17, 8)])
def test_programs_whose_sizes_fill_tiles_and_vectors(extents: tuple[int, ...]) -> None:
    @given(case=programs(steps=2, extents=extents))
    @settings(FEW, max_examples=25)
    def check(case: Case) -> None:
        means_the_same(case)

    check()
