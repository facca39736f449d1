"""Runs a tensor program as loops, in the interpreter of the loop level."""

from __future__ import annotations

from typing import Any

import numpy as np

from polyai.loop.interp import run
from polyai.loop.nodes import Kernel, LoopExpr, Param, Store
from polyai.scalar import dtype as dt
from polyai.tensor.nodes import Program, types_of
from tests.poly.meaning import arguments
from tests.programs import Case, SparseValue


def number(expr: LoopExpr, sizes: dict[str, int]) -> int:
    """The value of an extent."""
    out = np.zeros((), np.int64)
    params = (*(Param(s, dt.i64, "size") for s in sizes), Param("out of number", dt.i64, "output", ()))
    assert run(Kernel("number", params, Store("out of number", (), expr)), {**sizes, "out of number": out}) == 0
    return int(out)


def call(kernel: Kernel, case: Case, program: Program, *, backwards: bool = False, change: Any = None) -> tuple[int, dict[str, Any]]:
    """The result code of `kernel` and its output arrays, for the arguments of `case` after `change` (arrays -> None)."""
    arrays, sizes = arguments(program, case.arguments)
    args: dict[str, Any] = {k: np.array(a) for k, a in arrays.items()}
    if change is not None:
        change(args)
    for name in [k for k in args if ".crd" in k]:
        tensor, _, level = name.partition(".crd")
        sizes[f"{tensor}.nnz{level}"] = len(args[name])
    outputs: dict[str, Any] = {}
    for p in kernel.params:
        if p.extents is None:
            args[p.name] = sizes[p.name]
        elif p.role == "output":
            shape = tuple(number(e, sizes) for e in p.extents)
            outputs[p.name] = args[p.name] = np.full(shape, 77, dt.to_numpy(p.dtype))
    code = run(kernel, args, backwards=backwards)
    return code, outputs


def full(outputs: dict[str, Any], case: Case, program: Program) -> dict[str, Any]:
    """Outputs as dense arrays, also those that follow a pattern."""
    types = types_of(program)
    out = {}
    for name in program.outputs:
        pattern = types[name].pattern
        if pattern is None:
            out[name] = outputs[name]
            continue
        owner: SparseValue = case.arguments[pattern.owner]
        form = types[pattern.owner].format
        assert form is not None
        order = np.lexsort([owner.coords[d] for d in form.order][::-1])
        coords = tuple(owner.coords[pattern.dims[d]][order] for d in range(len(pattern.dims)))
        whole = np.zeros(tuple(owner.shape[d] for d in pattern.dims), outputs[name].dtype)
        whole[coords] = outputs[name]
        out[name] = whole
    return out
