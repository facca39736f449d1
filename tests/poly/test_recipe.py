"""Every named program: scheduled legally, and with the same meaning before scheduling, after it, and after contraction."""

from __future__ import annotations

import numpy as np
import pytest

from polyai.lower.tensor_to_poly import lower
from polyai.poly.deps import dependences
from polyai.poly.legal import check
from polyai.poly.passes.contract import run as contract
from polyai.poly.passes.schedule import scheduled
from polyai.poly.verify import verify
from tests.poly.meaning import results, straight
from tests.programs import PROGRAMS

HINTS = [{}, dict.fromkeys(("n", "m", "c", "p", "d", "h"), 2), dict.fromkeys(("n", "m", "c", "p", "d", "h"), 4000)]


@pytest.mark.parametrize("name", list(PROGRAMS))
def test_schedules_keep_the_meaning(name: str) -> None:
    case = PROGRAMS[name]()
    program = straight(case.program)
    scop = lower(program)
    verify(scop)
    for hints in HINTS:
        done, decisions = scheduled(scop, hints)
        assert all(d.startswith("recipe: ") and "refused" not in d for d in decisions)
        verify(done)
        check(done, dependences(done))
        small = contract(done)
        verify(small)
        for name_, value in results(case, program, small).items():
            np.testing.assert_allclose(value, case.expected[name_], rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["spmm_csc", "sparse_attention", "layernorm", "scatter_add", "argmax", "concat"])
def test_unscheduled_statements_mean_the_program(name: str) -> None:
    case = PROGRAMS[name]()
    program = straight(case.program)
    for key, value in results(case, program, lower(program)).items():
        np.testing.assert_allclose(value, case.expected[key], rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["spmm_bias_relu", "spmm_coo", "matmul_bias_gelu", "sparse_softmax", "layernorm", "cumsum", "scatter_add"])
def test_isl_schedules_keep_the_meaning(name: str) -> None:
    case = PROGRAMS[name]()
    program = straight(case.program)
    done, decisions = scheduled(lower(program), {}, scheduler="isl")
    assert decisions[-1] == "isl: chosen by isl"
    for key, value in results(case, program, contract(done)).items():
        np.testing.assert_allclose(value, case.expected[key], rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize("hints", [{}, {"A.nnz": 1 << 16, "A_len0": 1 << 16, "m": 16, "c": 64, "n": 64}])
@pytest.mark.parametrize("name", ["spmm_coo", "spmv"])
def test_long_lists_are_cut_into_pieces_where_copies_are_small(name: str, hints: dict[str, int]) -> None:
    case = PROGRAMS[name]()
    program = straight(case.program)
    done, _decisions = scheduled(lower(program), hints)
    verify(done)
    cut = [a for a in done.arrays if a.name == "Y_part"]
    assert [a.extents[0] for a in cut] == ([8] if hints and name == "spmm_coo" else [])
    for key, value in results(case, program, contract(done)).items():
        np.testing.assert_allclose(value, case.expected[key], rtol=2e-4, atol=1e-5)
