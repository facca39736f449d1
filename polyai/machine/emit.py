"""A kernel of the loop language as the text of an LLVM module. Nothing is imported but the standard library below it.

    Kernel f(n, X, Y), body   ->   define i64 @f(ptr %args, ptr %rt) { load n, X, Y; body; ret i64 0 }
                                   define internal i64 @pa.task1(ptr %context, i64 %chunk, i64 %thread) { ... }
                                   define internal <16 x float> @pa.exp.16float(<16 x float> %x0) { ... }
"""

from __future__ import annotations

from polyai.loop import nodes as lp
from polyai.machine import apart, memory
from polyai.machine.body import Body
from polyai.machine.build import STRAIGHT, Function, Module
from polyai.machine.cpu import Target
from polyai.machine.num import Num
from polyai.machine.stmt import stmt
from polyai.machine.survey import calls
from polyai.machine.values import Value
from polyai.scalar import dtype as dt


def externs(kernel: lp.Kernel) -> tuple[str, ...]:
    """The library functions the kernel calls, in the order of their slots after the parameters."""
    return tuple(calls(kernel.body))


def emit(kernel: lp.Kernel, target: Target) -> str:
    """LLVM IR text of `kernel`, flat and vectorised, for `target`. The entry point is `kernel.name` (see abi).

    Raises VerifyError for malformed loops and UnsupportedError for operations without code.
    """
    module = Module(target)
    fn = Function(module, f'define i64 @"{kernel.name}"(ptr %args, ptr %rt)')
    body = Body(fn, {}, in_task=False)
    for k, param in enumerate(kernel.params):
        slot = fn.op(f"getelementptr i64, ptr %args, i64 {k}")
        if param.extents is None:
            value = Num(fn, "i64", 1, fn.op(f"load i64, ptr {slot}"))
            body.scope.values[param.name] = Value(dt.i64, 1, value)
        else:
            stable = param.role == "input" and not param.dtype.is_integer
            body.scope.arrays[param.name] = memory.Array(fn.op(f"load ptr, ptr {slot}"), param.dtype, stable)
    for k, name in enumerate(externs(kernel), len(kernel.params)):
        body.externs[name] = fn.op(f"load ptr, ptr {fn.op(f'getelementptr i64, ptr %args, i64 {k}')}")
    body.once = apart.is_long(kernel.body)
    stmt(body, kernel.body)
    fn.do("ret i64 0")
    straight = not fn.loops and fn.lines >= STRAIGHT and target.triple.startswith("x86_64")
    module.functions.append(fn.text("#2" if straight else "#0"))
    return module.text()
