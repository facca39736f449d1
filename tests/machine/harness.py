"""Builds and calls kernels the way the runtime does, with a pool that runs chunks one after another."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from polyai.loop import nodes as lp
from polyai.loop.walks import all_stmts
from polyai.machine import abi, cpu, emit, jit, load
from polyai.scalar import dtype as dt
from polyai.scalar.dtype import DType

TASK = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
PARALLEL = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
ENTRY = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p)


class Compiled:
    """A kernel in memory. After a call: `culprit`, `needed` and `chunks` tell what happened."""

    def __init__(self, kernel: lp.Kernel, target: cpu.Target | None = None) -> None:
        self.kernel = kernel
        target = target or cpu.host()
        self.text = emit.emit(kernel, target)
        self.object = jit.compile_object(self.text, target)
        self.loaded = load.load(self.object, (kernel.name,))
        self.entry = ENTRY(self.loaded.addresses[kernel.name])
        self.culprit = self.needed = 0
        self.chunks: list[int] = []

    def __call__(self, *args: Any, threads: int = 1, arena: int = 0, externs: tuple[int, ...] = ()) -> int:
        """Call with sizes and arrays in the order of the parameters; returns the kernel's result."""
        slots = [a.ctypes.data if isinstance(a, np.ndarray) else int(a) for a in args] + list(externs)
        record = np.array(slots, np.int64)
        space = np.zeros(arena + 64, np.uint8)
        start = (space.ctypes.data + 63) // 64 * 64
        self.chunks = []

        def run(pool: Any, task: Any, context: Any, chunks: int) -> int:
            self.chunks.append(chunks)
            for c in range(chunks) if turns else reversed(range(chunks)):
                result = TASK(task)(context, c, c % threads)
                if result:
                    return result
            return 0

        turns = any(isinstance(s, lp.Turn) for s in all_stmts(self.kernel.body))
        pool = PARALLEL(run)
        fork = ctypes.cast(pool, ctypes.c_void_p).value if threads > 1 else 0
        fields = {"parallel": fork, "threads": threads, "arena": start, "arena_bytes": arena}
        runtime = np.array([fields.get(f, 0) for f in abi.RUNTIME], np.int64)
        result = self.entry(record.ctypes.data, runtime.ctypes.data)
        self.culprit, self.needed = int(runtime[abi.RUNTIME.index("culprit")]), int(runtime[abi.RUNTIME.index("needed")])
        return int(result)


def const(value: Any, dtype: DType = dt.i64) -> lp.Const:
    return lp.Const(value, dtype)


def var(name: str, dtype: DType = dt.i64) -> lp.Var:
    return lp.Var(name, dtype)


def op(name: str, *args: Any, dtype: DType | None = None) -> lp.Apply:
    return lp.Apply(name, args, dtype or args[0].dtype)


def plus(*args: lp.LoopExpr) -> lp.LoopExpr:
    out = args[0]
    for a in args[1:]:
        out = lp.Apply("add", (out, a), dt.i64)
    return out


def times(a: lp.LoopExpr, b: lp.LoopExpr) -> lp.LoopExpr:
    return lp.Apply("mul", (a, b), dt.i64)


def array(name: str, dtype: DType, role: str = "input", extent: str = "n") -> lp.Param:
    return lp.Param(name, dtype, role, (var(extent),))


def size(name: str) -> lp.Param:
    return lp.Param(name, dt.i64, "size")


def elementwise(name: str, sources: tuple[DType, ...], result: DType, body: Any, lanes: int) -> lp.Kernel:
    """Y[i] = body(X0[i], X1[i], ...) in vectors of `lanes` with a masked tail."""
    ramp = lp.Ramp(var("i"), 1, lanes)
    mask = op("lt", ramp, var("n"), dtype=dt.bool_)
    masked = None if lanes == 1 else mask
    loads = [
        lp.Load(f"X{k}", (var("i"),), s) if lanes == 1 else lp.MaskedLoad(f"X{k}", (ramp,), mask, s) for k, s in enumerate(sources)
    ]
    store = lp.Store("Y", (ramp if lanes > 1 else var("i"),), body(*loads), masked)
    loop = lp.For("i", const(0), var("n"), store, step=lanes)
    params = (size("n"), *(array(f"X{k}", s) for k, s in enumerate(sources)), array("Y", result, "output"))
    return lp.Kernel(name, params, loop)
