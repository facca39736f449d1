"""Elementary functions in vector IR, for floats and doubles, scalars and vectors alike.

`call(name, x, ...)` writes the function once per module, type and lane count, and calls it. The formulas are written over
`Num` in the files beside this one; each states its error bound in units in the last place (ulp), measured by
tests/machine/test_math.py. What has no formula here goes lane by lane to the C library (LIBM).
"""

from __future__ import annotations

from collections.abc import Callable

from polyai.machine.build import Function
from polyai.machine.num import Num

Formula = Callable[..., Num]

FORMULAS: dict[str, Formula] = {}
LIBM = {"fmod": "fmod", "exp": "exp", "exp2": "exp2", "expm1": "expm1", "log": "log", "log2": "log2", "log10": "log10",
        "log1p": "log1p", "sin": "sin", "cos": "cos", "tan": "tan", "arcsin": "asin", "arccos": "acos", "arctan": "atan",
        "arctan2": "atan2", "sinh": "sinh", "cosh": "cosh", "tanh": "tanh", "arcsinh": "asinh", "arccosh": "acosh",
        "arctanh": "atanh", "erf": "erf", "pow": "pow"}  # fmt: skip


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
        return fn.text()

    first.fn.module.helper(function, write)
    return first.of(f"call {kind} @{function}({', '.join(f'{kind} {a.ref}' for a in args)})")


def by_lane(name: str, args: list[Num]) -> Num:
    """The C library's function, lane by lane."""
    first = args[0]
    symbol = LIBM[name] + ("f" if first.elem == "float" else "")
    out = Num(first.fn, first.elem, first.lanes, "poison")
    for k in range(first.lanes):
        lanes = [(a.elem, a.ref if first.lanes == 1 else a.lane(k).ref) for a in args]
        one = first.fn.intrinsic(symbol, first.elem, *lanes)
        if first.lanes == 1:
            return Num(first.fn, first.elem, 1, one)
        out = out.of(f"insertelement {first.kind} {out.ref}, {first.elem} {one}, i64 {k}")
    return out
