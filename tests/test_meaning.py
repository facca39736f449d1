"""One meaning at every level: each named program, after every stage, gives the numbers of NumPy and SciPy.

After a stage of form `tensor`, `poly` or `loop` that level's interpreter runs the program; code runs on the machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import pytest

from polyai import pipeline
from polyai.calls.engine import runtime
from polyai.machine import emit
from polyai.options import Options
from polyai.poly.interp import run as run_scop
from polyai.runtime.bind import address
from polyai.runtime.kernel import signature_of
from polyai.scalar.dtype import to_numpy
from polyai.tensor.interp import run as run_tensor
from polyai.tensor.nodes import Input, Program, types_of
from tests.lower.meaning import call, full, number
from tests.poly.meaning import arguments
from tests.programs import PROGRAMS, Case, SparseValue

SIZES: dict[str, Mapping[str, int]] = {"unknown": {}, "large": dict.fromkeys(("n", "m", "c", "p", "d", "h"), 4000)}
WIDTHS = (64, 128, 256, 512)


@cache
def case_of(name: str) -> Case:
    return PROGRAMS[name]()


def close(case: Case, got: dict[str, Any], level: str) -> None:
    for name, want in case.expected.items():
        value = got[name].todense() if isinstance(got[name], SparseValue) else got[name]
        np.testing.assert_allclose(value, want, rtol=2e-4, atol=1e-5, err_msg=f"{name} after {level}")


def as_tensors(case: Case, build: pipeline.Build) -> dict[str, Any]:
    """The interpreter of tensor programs; the names of outputs do not change from stage to stage."""
    return run_tensor(build.program, case.arguments)


def as_statements(case: Case, build: pipeline.Build) -> dict[str, Any]:
    """The interpreter of the polyhedral level: in the order of the schedule, or of the text if there is none yet."""
    arrays, sizes = arguments(build.program, case.arguments)
    (scop,) = build.scops
    out = run_scop(scop, arrays, sizes)
    return full({k: out[k] for k in build.program.outputs}, case, build.program)


def as_loops(case: Case, build: pipeline.Build) -> dict[str, Any]:
    """The interpreter of loops, parallel ones forwards and backwards."""
    results = []
    for backwards in (False, True):
        code, outputs = call(build.loops, case, build.program, backwards=backwards)
        assert code == 0
        results.append(full(outputs, case, build.program))
    for name, value in results[0].items():
        np.testing.assert_array_equal(value, results[1][name])
    return results[0]


def as_code(case: Case, build: pipeline.Build, threads: int) -> dict[str, Any]:
    """The machine."""
    arrays, sizes = arguments(build.program, case.arguments)
    engine = runtime()
    kernel = engine._load(signature_of(build.loops, emit.externs(build.loops), True), build.code, {})
    slots, outputs, kept = [], {}, []
    for p in build.loops.params:
        if p.extents is None:
            slots.append(sizes[p.name])
            continue
        if p.role == "output":
            array = outputs[p.name] = np.full(tuple(number(e, sizes) for e in p.extents), 77, to_numpy(p.dtype))
        else:
            array = np.ascontiguousarray(arrays[p.name], to_numpy(p.dtype))
        kept.append(array)
        slots.append(address(array))
    engine.launch(kernel, slots, threads)
    return full(outputs, case, build.program)


@pytest.mark.parametrize("sizes", list(SIZES))
@pytest.mark.parametrize("scheduler", ["recipe", "isl"])
@pytest.mark.parametrize("name", list(PROGRAMS))
def test_every_stage_means_the_same(name: str, scheduler: str, sizes: str) -> None:
    case = case_of(name)
    ran = []

    def watch(stage: pipeline.Stage, build: pipeline.Build, milliseconds: float) -> None:
        run = {"tensor": as_tensors, "poly": as_statements, "loop": as_loops}.get(stage.form)
        if run is not None:
            close(case, run(case, build), stage.name)
            ran.append(stage.name)

    options = Options(scheduler=scheduler, blas="never", verify=True)
    build = pipeline.compile_program(case.program, SIZES[sizes], options, pipeline.target_for(options), verify=True, watch=watch)
    assert ran == [s.name for s in pipeline.STAGES if s.form in ("tensor", "poly", "loop")]
    for threads in (1, 2):
        close(case, as_code(case, build, threads), f"code on {threads} threads")


@pytest.mark.parametrize("name", ["matmul_bias_gelu", "gcn_two_layer"])
def test_products_of_the_library_mean_the_same(name: str) -> None:
    case = case_of(name)
    options = Options(verify=True)
    build = pipeline.compile_program(case.program, SIZES["large"], options, pipeline.target_for(options), verify=True)
    assert emit.externs(build.loops)
    close(case, as_tensors(case, build), "library")
    for threads in (1, 2):
        close(case, as_code(case, build, threads), f"code on {threads} threads")


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("name", list(PROGRAMS))
def test_vectors_of_any_width_mean_the_same(name: str, bits: int) -> None:
    case = case_of(name)
    options = Options(vector_bits=bits)
    build = pipeline.compile_program(case.program, {}, options, pipeline.target_for(options))
    close(case, as_loops(case, build), f"loops with {bits} bits")
    close(case, as_code(case, build, 2), f"code with {bits} bits")


def empty(case: Case, sizes: Mapping[str, int]) -> Case:
    """Arguments of other sizes, all of them zero, and what the program makes of them."""
    given: dict[str, Any] = {}
    for entry in case.program.inputs:
        shape = tuple(e if isinstance(e, int) else sizes[str(e)] for e in entry.type.shape)
        dtype = to_numpy(entry.type.dtype)
        if entry.type.format is None:
            given[entry.name] = np.zeros(shape, dtype)
        else:
            given[entry.name] = SparseValue((np.zeros(0, np.int64),) * len(shape), np.zeros(0, dtype), shape)
    with np.errstate(all="ignore"):
        out = run_tensor(case.program, given)
    return Case(case.program, given, {k: v.todense() if isinstance(v, SparseValue) else v for k, v in out.items()})


ALONE = {"sizes 1": dict.fromkeys("nmcpdh", 1), "sizes 2": dict.fromkeys("nmcpdh", 2)}


@pytest.mark.parametrize("name", list(PROGRAMS))
def test_empty_matrices_and_small_sizes(name: str) -> None:
    case = case_of(name)
    options = Options()
    build = pipeline.compile_program(case.program, {}, options, pipeline.target_for(options))
    for title, sizes in ALONE.items():
        small = empty(case, sizes)
        got = as_code(small, build, 2)
        for key, want in small.expected.items():
            np.testing.assert_allclose(got[key], want, rtol=1e-5, atol=1e-6, err_msg=title)


def test_the_programs_name_what_they_give() -> None:
    for name in PROGRAMS:
        case = case_of(name)
        assert isinstance(case.program, Program) and all(isinstance(i, Input) for i in case.program.inputs)
        assert set(case.expected) == set(case.program.outputs) <= set(types_of(case.program))
