"""Which dims of the two statements of a dependence are always equal, and what follows for loops without asking isl again.

    { mean_upd[i, j] -> mean[i'] : i' = i }      i' is tied to i
    a loop over i of both                        every pair stays within one iteration: the loop carries nothing of it
    a loop over j // 8                           not known: isl decides
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from polyai.scalar.expr import Apply, Cast, Const, Expr, Var
from polyai.term.late import late

if TYPE_CHECKING:
    import islpy as isl
else:
    isl = late("islpy")

Ties = Mapping[str, str]
"""Dim of the target -> the dim of the source that it equals in every pair. What holds for all pairs holds for some of them."""


def ties(pair: isl.Map, source: Sequence[str], target: Sequence[str]) -> Ties:
    """The ties of a dependence between statements with these dims, as far as its equalities say them one by one."""
    kinds = isl.dim_type
    rows = pair.affine_hull().equalities_matrix(kinds.in_, kinds.out, kinds.cst, kinds.param, kinds.div)
    dims = len(source) + len(target)
    out: dict[str, str] = {}
    for row in range(rows.rows()):
        values = {column: rows.get_element_val(row, column).to_python() for column in range(rows.cols())}
        used = [column for column, value in values.items() if value]
        if len(used) == 2 and used[1] < dims and used[0] < len(source) <= used[1] and values[used[0]] == -values[used[1]]:
            out[target[used[1] - len(source)]] = source[used[0]]
    return out


def equal(here: Expr, there: Expr, tied: Ties, source: Sequence[str], target: Sequence[str]) -> bool:
    """True if `there`, over dims of the target, has the value of `here`, over dims of the source, in every pair. False: not known."""
    match here, there:
        case Var(x), Var(y):
            return tied.get(y) == x if y in target else here == there and x not in source
        case Const(), Const():
            return here == there
        case Apply(op, args), Apply(other, parts):
            same = op == other and here.dtype == there.dtype and len(args) == len(parts)
            return same and all(equal(a, p, tied, source, target) for a, p in zip(args, parts, strict=True))
        case Cast(arg), Cast(part):
            return here.dtype == there.dtype and equal(arg, part, tied, source, target)
        case _:
            return False
