"""Every named program, all the way to machine code: the same numbers as NumPy and SciPy, on any number of threads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from polyai.loop.nodes import Kernel
from polyai.loop.passes.order import lower_loops
from polyai.lower import tensor_to_poly
from polyai.lower.poly_to_loop import lower
from polyai.machine import abi
from polyai.poly.passes.contract import run as contract
from polyai.poly.passes.schedule import scheduled
from polyai.scalar import dtype as dt
from tests.lower.meaning import full, number
from tests.machine.harness import Compiled
from tests.poly.meaning import arguments, straight
from tests.programs import PROGRAMS


def call(kernel: Kernel, case: Any, program: Any, threads: int) -> dict[str, Any]:
    """The outputs of `kernel` run as machine code."""
    arrays, sizes = arguments(program, case.arguments)
    args, outputs = [], {}
    for p in kernel.params:
        if p.extents is None:
            args.append(sizes[p.name])
        elif p.role == "output":
            outputs[p.name] = np.full(tuple(number(e, sizes) for e in p.extents), 77, dt.to_numpy(p.dtype))
            args.append(outputs[p.name])
        else:
            args.append(np.ascontiguousarray(arrays[p.name], dt.to_numpy(p.dtype)))
    run = Compiled(kernel)
    code = run(*args, threads=threads)
    while code == abi.NEED_ARENA:
        code = run(*args, threads=threads, arena=run.needed)
    assert code == abi.OK
    return outputs


@pytest.mark.parametrize("hints", [{}, dict.fromkeys(("n", "m", "c", "p", "d", "h"), 4000)], ids=["small", "large"])
@pytest.mark.parametrize("name", list(PROGRAMS))
def test_programs_run_as_machine_code(name: str, hints: dict[str, int]) -> None:
    case = PROGRAMS[name]()
    program = straight(case.program)
    kernel = lower(contract(scheduled(tensor_to_poly.lower(program), hints)[0]), program)
    for bits, threads in ((512, 1), (512, 3), (128, 1)):
        outputs = call(lower_loops(kernel, bits), case, program, threads)
        for key, value in full(outputs, case, program).items():
            np.testing.assert_allclose(value, case.expected[key], rtol=2e-4, atol=1e-5)
