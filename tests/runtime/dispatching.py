"""What the tests of dispatchers share: a slow path that is seen, two functions, and odd arrays. Both call paths are the fixture `way`."""

from __future__ import annotations

import numpy as np

from polyai.runtime.arguments import ArrayArg, SparseArg
from polyai.runtime.dispatch import DispatchSpec, Output, make_dispatcher
from polyai.scalar import dtype as dt
from tests.runtime.code import kernel


class Sub(np.ndarray):
    pass


def unaligned(n):
    return np.zeros(8 * n + 1, np.uint8)[1:].view(np.float64)


def slow(*args, **kwargs):
    return ("slow", args, kwargs)


def went_slow(result):
    return type(result) is tuple and len(result) == 3 and type(result[0]) is str and result[0] == "slow"


def add_one(runtime, **options):
    spec = DispatchSpec(
        (ArrayArg(dt.f64, 1),), (("dim", 0, 0), ("data", 0), ("out", 0)), (Output(dt.f64, (("dim", 0, 0),)),), **options
    )
    return make_dispatcher(spec, kernel(runtime, "add_one"), runtime, slow, name="f", doc="f(x) = x + 1")


def spmv(runtime, matrix, kind="csr", handler=slow, **options):
    """y = A x for exactly `matrix`'s class; csc is read as the transpose, coo is not multiplied (see spmv_coo)."""
    major, minor = (1, 0) if kind == "csc" else (0, 1)
    spec = DispatchSpec(
        (SparseArg(kind, type(matrix), dt.f64, dt.i32), ArrayArg(dt.f64, 1)),
        (("dim", 0, major), ("dim", 0, minor), ("nnz", 0), ("pos", 0), ("crd", 0), ("val", 0), ("data", 1), ("out", 0)),
        (Output(dt.f64, (("dim", 0, major),)),),
        guards=(("equal", ("dim", 0, minor), ("dim", 1, 0)),),
        work=((("nnz", 0),), (("dim", 0, major), ("const", 2))),
    )
    return make_dispatcher(spec, kernel(runtime, "spmv"), runtime, handler, **options)
