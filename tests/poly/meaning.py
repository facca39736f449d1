"""Runs a tensor program through lowering, scheduling and contraction in the interpreter of the polyhedral level."""

from __future__ import annotations

from typing import Any

import numpy as np

from polyai.poly.interp import run as run_scop
from polyai.poly.nodes import Scop
from polyai.sparse.pack import pack
from polyai.tensor.interp import bind_sizes
from polyai.tensor.nodes import Program, nnz_of, types_of
from polyai.tensor.passes import canonical, restrict
from tests.programs import Case, SparseValue


def straight(program: Program) -> Program:
    """The canonical form that lowering takes."""
    return canonical.run(restrict.run(program))


def arguments(program: Program, given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, int]]:
    """Arrays by the names kernels use, and the values of all size symbols."""
    arrays: dict[str, Any] = {}
    sizes = bind_sizes(program, {name: np.shape(a) if not isinstance(a, SparseValue) else a.shape for name, a in given.items()}, {})
    for entry in program.inputs:
        value = given[entry.name]
        if isinstance(value, SparseValue):
            assert entry.type.format is not None
            named = pack(entry.type.format, value.shape, value.coords, value.values).named(entry.name)
            arrays.update(named)
            sizes[nnz_of(entry.name)] = value.nnz
            if entry.type.format.tail:  # of dense blocks, their number
                level = len(entry.type.format.levels) - entry.type.format.tail - 1
                sizes[nnz_of(entry.name)] = len(named[f"{entry.name}.crd{level}"])
            for level in entry.type.format.counted:
                sizes[f"{nnz_of(entry.name)}{level}"] = len(named[f"{entry.name}.crd{level}"])
        else:
            arrays[entry.name] = np.asarray(value)
    return arrays, sizes


def results(case: Case, program: Program, scop: Scop) -> dict[str, np.ndarray[Any, Any]]:
    """Outputs of `scop` as dense arrays."""
    arrays, sizes = arguments(program, case.arguments)
    out = run_scop(scop, arrays, sizes)
    types = types_of(program)
    dense = {}
    for name in program.outputs:
        pattern = types[name].pattern
        if pattern is None:
            dense[name] = out[name]
            continue
        owner: SparseValue = case.arguments[pattern.owner]
        form = types[pattern.owner].format
        assert form is not None
        order = np.lexsort([owner.coords[d] for d in form.order][::-1])
        coords = tuple(owner.coords[pattern.dims[d]][order] for d in range(len(pattern.dims)))
        full = np.zeros(tuple(owner.shape[d] for d in pattern.dims), out[name].dtype)
        full[coords] = out[name]
        dense[name] = full
    return dense
