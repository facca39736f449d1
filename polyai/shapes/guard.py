"""Guards: what a kernel took for granted of its sizes, as data. Build time knows facts, call time knows values."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence

from polyai.errors import GuardError
from polyai.shapes.code import compile_sizes
from polyai.shapes.dim import Dim
from polyai.shapes.expr import Size, evaluate, mod, show, symbols
from polyai.shapes.facts import NO, YES, Facts
from polyai.term.node import node

RELATIONS: dict[str, Callable[[int, int], bool]] = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip


@node
class Guard:
    """`left relation right`. `text` says it in the user's spelling, `why` who relies on it."""

    left: Size
    relation: str
    right: Size
    text: str = ""
    why: str = ""

    def holds(self, values: Mapping[str, int]) -> bool:
        """Whether the relation holds for these values of all its symbols."""
        return RELATIONS[self.relation](evaluate(self.left, values), evaluate(self.right, values))

    def why_not(self, values: Mapping[str, int]) -> str:
        """A sentence that names the relation and the values: `n <= 512 fails: n = 600`."""
        used = sorted(symbols(self.left) | symbols(self.right))
        return f"{self} fails: {', '.join(f'{name} = {values[name]}' for name in used)}"

    def __str__(self) -> str:
        return self.text or f"{show(self.left)} {self.relation} {show(self.right)}"


def guards_of(dim: Dim) -> tuple[Guard, ...]:
    """The range and the multiple of a declared dimension as guards; what every size fulfils is left out."""
    why = f"{dim.name} is declared so"
    out = []
    if dim.min > 0:
        out.append(Guard(dim.size, ">=", dim.min, why=why))
    if dim.max is not None:
        out.append(Guard(dim.size, "<=", dim.max, why=why))
    if dim.multiple_of > 1:
        out.append(Guard(mod(dim.size, dim.multiple_of), "==", 0, f"{dim.name} is a multiple of {dim.multiple_of}", why))
    return tuple(out)


def needed(guards: Iterable[Guard], facts: Facts) -> tuple[Guard, ...]:
    """The guards that the facts do not prove, each once. Raises GuardError for one that can never hold."""
    out: dict[Guard, None] = {}
    for guard in guards:
        answer = facts.prove(guard.left, guard.relation, guard.right)
        if answer is NO:
            raise GuardError(f"{guard} can never hold", guard.why, "change the declared ranges")
        if answer is not YES:
            out[guard] = None
    return tuple(out)


def first_broken(guards: Sequence[Guard], order: Sequence[str]) -> Callable[..., int]:
    """A function of the values of the symbols `order` that returns the position of the first broken guard, or -1."""
    sides = compile_sizes([side for g in guards for side in (g.left, g.right)], order)
    tests = [RELATIONS[g.relation] for g in guards]

    def check(*values: int) -> int:
        numbers = sides(*values)
        for at, test in enumerate(tests):
            if not test(numbers[2 * at], numbers[2 * at + 1]):
                return at
        return -1

    return check


def require(guards: Iterable[Guard], values: Mapping[str, int]) -> None:
    """Raise GuardError for the first guard that does not hold."""
    for guard in guards:
        if not guard.holds(values):
            raise GuardError(guard.why_not(values), guard.why, "pass arguments of the declared sizes, or declare a wider range")
