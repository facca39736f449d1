"""Functions of the C library, lane by lane."""

from __future__ import annotations

from polyai.machine.num import Num

LIBM = {"fmod": "fmod", "exp": "exp", "exp2": "exp2", "expm1": "expm1", "log": "log", "log2": "log2", "log10": "log10",
        "log1p": "log1p", "sin": "sin", "cos": "cos", "tan": "tan", "arcsin": "asin", "arccos": "acos", "arctan": "atan",
        "arctan2": "atan2", "sinh": "sinh", "cosh": "cosh", "tanh": "tanh", "arcsinh": "asinh", "arccosh": "acosh",
        "arctanh": "atanh", "erf": "erf", "pow": "pow"}  # fmt: skip


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
