"""Trace a function, verify the program, run it by the interpreter or as machine code, and compare with NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp

from polyai.calls.engine import variant_of
from polyai.frontend.trace import trace
from polyai.frontend.traced import ArrayOut, Traced
from polyai.options import current, options
from polyai.sparse.interp import walk
from polyai.sparse.storage import Storage
from polyai.tensor.interp import SparseValue, run
from polyai.tensor.verify import verify


def sparse_value(matrix: Any) -> SparseValue:
    """A scipy.sparse value as the interpreter takes it."""
    if isinstance(matrix, Storage):  # an argument that was put in another order
        found = walk(matrix.format, matrix.shape, matrix.arrays)
        return SparseValue(tuple(found.coordinates), matrix.values.reshape(-1)[found.positions], matrix.shape)
    coo = sp.coo_array(matrix)
    return SparseValue(tuple(np.asarray(c) for c in coo.coords), coo.data, tuple(coo.shape))


def arguments(traced: Traced, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[dict[str, Any], dict[str, int]]:
    raw = traced.arguments(args, kwargs)
    values = traced.values(raw)
    traced.check(values)
    return {k: sparse_value(v) if sp.issparse(v) or isinstance(v, Storage) else v for k, v in raw.items()}, values


ENGINE = "interp"
"""Who executes: the interpreter of tensor programs, or the machine. See the fixture `engine`."""


def execute(traced: Traced, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> Any:
    """The result of the traced function on the arguments."""
    return ENGINES[ENGINE](traced, args, kwargs or {})


def compiled(traced: Traced, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The result by the compiler, every stage of which is verified."""
    with options(verify=True):
        traced.check(traced.values(traced.arguments(args, kwargs)))
        return variant_of(traced, current()).run(args, kwargs, current())


def interpreted(traced: Traced, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The result by the interpreter."""
    given, values = arguments(traced, args, kwargs)
    if traced.program.outputs:
        verify(traced.program)
        out = run(traced.program, given, values)
        results = [out[n] for n in traced.program.outputs]
    else:
        results = []
    for o in traced.outputs:
        if isinstance(o, ArrayOut) and o.owner is not None:
            value = results[o.position]
            assert isinstance(value, SparseValue)
            if o.line:  # a row that is returned as a vector
                results[o.position] = sp.csr_array((value.values, value.coords), shape=value.shape)
    return traced.rebuild(results, values)


ENGINES = {"interp": interpreted, "machine": compiled}


def traced_run(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Trace and execute with the same arguments."""
    return execute(trace(fn, args, kwargs), args, kwargs)


def dense(value: Any) -> Any:
    if isinstance(value, SparseValue):
        return value.todense()
    return np.asarray(value.toarray() if sp.issparse(value) else value)


def same(got: Any, want: Any, tolerance: float = 1e-12) -> None:
    """Equal structure, shapes, dtypes and values."""
    if isinstance(want, (tuple, list)) and not isinstance(want, np.ndarray):
        assert type(got) is type(want) and len(got) == len(want)
        for g, w in zip(got, want):
            same(g, w, tolerance)
        return
    if isinstance(want, dict):
        assert list(got) == list(want)
        for key in want:
            same(got[key], want[key], tolerance)
        return
    if want is None or isinstance(want, str):
        assert got == want
        return
    g, w = dense(got), dense(want)
    assert g.shape == w.shape
    assert g.dtype == w.dtype
    np.testing.assert_allclose(g, w, rtol=tolerance, atol=tolerance)


def compare(fn: Callable[..., Any], reference: Callable[..., Any], *args: Any, tolerance: float = 1e-12, **kwargs: Any) -> None:
    """The traced function and the reference agree."""
    same(traced_run(fn, *args, **kwargs), reference(*args, **kwargs), tolerance)
