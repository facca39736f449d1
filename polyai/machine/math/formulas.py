"""Which formula computes which function."""

from __future__ import annotations

from collections.abc import Callable

from polyai.machine.math import erf, exp, log, power, trig
from polyai.machine.num import Num

FORMULAS: dict[str, Callable[..., Num]] = {
    "exp": exp.exp, "exp2": exp.exp2, "expm1": exp.expm1, "tanh": exp.tanh, "sinh": exp.sinh, "cosh": exp.cosh,
    "log": log.log, "log2": log.log2, "log10": log.log10, "log1p": log.log1p,
    "arcsinh": log.arcsinh, "arccosh": log.arccosh, "arctanh": log.arctanh, "erf": erf.erf,
    "sin": trig.sin, "cos": trig.cos, "tan": trig.tan, "arctan": trig.arctan, "arctan2": trig.arctan2,
    "arcsin": trig.arcsin, "arccos": trig.arccos, "pow": power.power, "ipow": power.integer_power, "upow": power.unsigned_power,
}  # fmt: skip

INLINE = frozenset(["exp", "exp2", "expm1", "tanh", "log", "log2", "erf"])
"""Short functions without branches are put into the loop, where their constants stay in registers."""
