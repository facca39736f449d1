"""Calls of elementary functions.

`call(name, x, ...)` writes the function once per module, type and lane count, and calls it.
"""

from __future__ import annotations

from polyai.machine.build import Function
from polyai.machine.math.formulas import FORMULAS, INLINE
from polyai.machine.math.lanes import by_lane
from polyai.machine.num import Num


def call(name: str, *args: Num) -> Num:
    """`name` of the arguments, which share one type."""
    first = args[0]
    function = f"pa.{name}.{first.lanes}{first.elem}"
    kind = first.kind

    def write() -> str:
        params = [f"%x{k}" for k in range(len(args))]
        head = f"define internal {kind} @{function}({', '.join(f'{kind} {p}' for p in params)})"
        fn = Function(first.fn.module, head)
        given = [Num(fn, first.elem, first.lanes, p) for p in params]
        formula = FORMULAS.get(name)
        result = formula(*given) if formula else by_lane(name, given)
        fn.do(f"ret {kind} {result.ref}")
        return fn.text("#1" if name in INLINE else "#0")

    first.fn.module.helper(function, write)
    return first.of(f"call {kind} @{function}({', '.join(f'{kind} {a.ref}' for a in args)})")
