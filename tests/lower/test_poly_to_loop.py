"""Scheduled scops become loops with the same meaning, and every index from memory is checked before it is used."""

from __future__ import annotations

import numpy as np
import pytest

from polyai.loop.passes.order import lower_loops
from polyai.loop.verify import verify
from polyai.lower import tensor_to_poly
from polyai.lower.poly_to_loop import lower
from polyai.poly.passes.contract import run as contract
from polyai.poly.passes.schedule import scheduled
from tests.lower.meaning import call, dense
from tests.poly.meaning import straight
from tests.programs import PROGRAMS

HINTS = [{}, dict.fromkeys(("n", "m", "c", "p", "d", "h"), 4000)]


@pytest.mark.parametrize("name", list(PROGRAMS))
def test_loops_keep_the_meaning(name: str) -> None:
    case = PROGRAMS[name]()
    program = straight(case.program)
    scop = tensor_to_poly.lower(program)
    for hints in HINTS:
        done = contract(scheduled(scop, hints)[0])
        kernel = lower(done, program)
        verify(kernel)
        fast = lower_loops(kernel)
        verify(fast, flat=True)
        for k in (kernel, fast):
            code, outputs = call(k, case, program, backwards=True)
            assert code == 0
            for key, value in dense(outputs, case, program).items():
                np.testing.assert_allclose(value, case.expected[key], rtol=2e-4, atol=1e-5)
