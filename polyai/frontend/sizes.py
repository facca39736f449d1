"""Sizes while tracing: symbols with the value they have in the call at hand, and the relations that tracing relied on.

A question about sizes is answered three ways: exactly, where the canonical forms or the declared ranges decide; by the
values at hand, which records a *guard* that every later call of the same kernel must pass; or not at all, where no value
is known (`compile` from specs), which raises.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from polyai.errors import ShapeError, TraceError
from polyai.frontend.known import RELATIONS, Knowledge
from polyai.frontend.size_value import SizeValue
from polyai.shapes import expr as sx
from polyai.shapes.expr import Size, SizeExpr
from polyai.shapes.facts import NO, YES, Truth
from polyai.term.node import node

NEGATED = {"==": "!=", "!=": "==", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}
_MIRRORED = {"==": "==", "!=": "!=", "<": ">", ">": "<", "<=": ">=", ">=": "<="}


@node
class Guard:
    """`left relation right` held while tracing. `text` says it in the user's names, `why` which operation asked."""

    left: Size
    relation: str
    right: Size
    text: str
    why: str = ""

    def holds(self, values: Mapping[str, int]) -> bool:
        """Whether the relation holds for the given values of all symbols."""
        return RELATIONS[self.relation](sx.evaluate(self.left, values), sx.evaluate(self.right, values))

    def __str__(self) -> str:
        return self.text


class Sizes:
    """The symbols of one trace: what they are called, their values in the call at hand, guards, and what is known of them."""

    def __init__(self, lift: Callable[[Size], Any]) -> None:
        self.hints: dict[str, int] = {}
        self.texts: dict[str, str] = {}
        self.guards: dict[Guard, None] = {}
        self.decided: dict[str, Size] = {}  # sizes that data decide, and their bounds
        self.passing: dict[str, str] = {}  # those of them that a branch or a loop body has for itself, and what it is called
        self.late: dict[Guard, None] = {}  # what must hold of them, checked once they are known
        self.known = Knowledge()
        self.refused: TraceError | None = None  # the last number that could not be given
        self.lift = lift
        self.prove: Callable[[Size, str, Size], Truth] | None = None  # from the declarations, if there are any

    def add(self, name: str, text: str, hint: int | None, low: int = 0, high: int | None = None) -> SizeExpr:
        """A new symbol. `hint` is its value in the call that is traced; None if there is none."""
        self.texts[name] = text
        self.known.add(name, low, high)
        if hint is not None:
            self.hints[name] = hint
        return sx.symbol(name)

    def resolve(self, size: Size) -> Size:
        """`size` in terms of the symbols that represent their classes."""
        return self.known.resolve(size)

    def hint(self, size: Size) -> int | None:
        """The value of `size` in the call at hand."""
        if isinstance(size, int):
            return size
        try:
            return sx.evaluate(size, self.hints)
        except KeyError:
            resolved = self.resolve(size)
            return resolved if isinstance(resolved, int) else None

    def text(self, size: Size) -> str:
        """`size` in the user's names: `X.shape[0]`."""
        return sx.spelled(size, self.texts)

    def described(self, size: Size) -> str:
        """`X.shape[0] = 5`, or `5`."""
        hint = self.hint(size)
        if isinstance(size, int):
            return str(size)
        return self.text(size) if hint is None else f"{self.text(size)} = {hint}"

    def value(self, size: Size) -> Any:
        """What a user gets to see: an int where the size is a number, else a SizeValue."""
        resolved = self.resolve(size)
        return resolved if isinstance(resolved, int) else SizeValue(self, size)

    # -- questions

    def unify(self, a: Size, b: Size, why: str = "") -> bool:
        """True if the sizes are equal, or can be taken to be equal in this call, which records a guard."""
        ra, rb = self.resolve(a), self.resolve(b)
        if self.known.equal(ra, rb):
            return True
        if self.prove is not None and self.prove(ra, "==", rb) is YES:
            return True
        if self.is_decided(ra - rb):
            return self.known.decide(ra - rb, "==") is not False and self.holds(ra, "==", rb, why)
        ha, hb = self.hint(ra), self.hint(rb)
        if ha is None or hb is None or ha != hb:
            return False
        self._record(a, "==", b, why)
        self.known.equate(ra - rb)
        return True

    def compare(self, a: Size, relation: str, b: Size, why: str = "") -> bool:
        """The truth of `a relation b` here. Raises TraceError if neither ranges nor values decide it."""
        if isinstance(a, int) and not isinstance(b, int):
            return self.compare(b, _MIRRORED[relation], a, why)
        difference = self.resolve(a) - self.resolve(b)
        exact = self.known.decide(difference, relation)
        if exact is None and self.prove is not None:
            exact = {YES: True, NO: False}.get(self.prove(difference, relation, 0))
        if exact is not None:
            return exact
        if self.is_decided(difference):
            raise TraceError(
                f"{self.text(a)} {relation} {self.text(b)} is known only when the kernel runs",
                "data decide the size" + (f": {why}" if why else ""),
                "choose with where() in the program itself, or call the function in two parts and ask between them",
            )
        ha, hb = self.hint(a), self.hint(b)
        if ha is None or hb is None:
            asked = f"{self.text(a)} {relation} {self.text(b)}"
            raise TraceError(
                f"{asked} is neither always true nor always false",
                f"the sizes are only declared{': ' + why if why else ''}",
                "declare a range that decides it, dim(..., min=, max=), or a relation, where=[...]; choose with where() or cond() in "
                "the program itself; or use jit, which makes a kernel for each branch that calls take",
            )
        truth = RELATIONS[relation](ha, hb)
        self._record(a, relation if truth else NEGATED[relation], b, why)
        self.known.learn(difference, relation if truth else NEGATED[relation])
        return truth

    def is_decided(self, size: Size) -> bool:
        """Whether data decide a size."""
        return bool(self.decided) and not sx.symbols(self.resolve(size)).isdisjoint(self.decided)

    def holds(self, a: Size, relation: str, b: Size, why: str) -> bool:
        """As `compare`; but what data decide is taken to hold, and checked by the call that counts."""
        difference = self.resolve(a) - self.resolve(b)
        if not self.is_decided(difference):
            return self.compare(a, relation, b, why)
        exact = self.known.decide(difference, relation)
        if exact is None:
            self.late[Guard(a, relation, b, f"{self.text(a)} {relation} {self.text(b)}", why)] = None
            self.known.learn(difference, relation)
        return exact is not False

    def number(self, size: Size, why: str = "") -> int:
        """The value of `size`, fixed by a guard."""
        resolved = self.resolve(size)
        if isinstance(resolved, int):
            return resolved
        hint = None if self.is_decided(resolved) else self.hint(resolved)
        if hint is None and self.is_decided(resolved):
            raise TraceError(
                f"the number {self.text(size)} is needed while tracing",
                "data decide the size" + (f": {why}" if why else ""),
                "keep it symbolic: arange(n), zeros(n) and slices take sizes as they are; or bound it, x[mask][:10]",
            )
        if hint is None:
            self.refused = TraceError(
                f"the number {self.text(size)} is needed while tracing",
                "the size is only declared" + (f": {why}" if why else ""),
                "keep it symbolic: arange(n), zeros(n), fori_loop(0, n, ...) and slices take sizes as they are; or declare a number in its place",
            )
            raise self.refused
        self.unify(size, hint, why)
        return hint

    def require(self, a: Size, relation: str, b: Size, what: str, remedy: str = "") -> None:
        """Raise ShapeError unless the relation holds; a relation that is not always true becomes a guard."""
        if not self.holds(a, relation, b, what):
            raise ShapeError(what, f"{self.described(a)} must be {relation} {self.described(b)}", remedy)

    # -- knowledge

    def declare(self, a: Size, relation: str, b: Size, why: str) -> None:
        """Take a declared relation as true; calls check it."""
        self._record(a, relation, b, why)
        self.known.learn(self.resolve(a) - self.resolve(b), relation)

    def assume(self, a: Size, relation: str, b: Size) -> None:
        """Take a relation as true without a check at the call: only for what holds by how the arguments were made."""
        self.known.learn(self.resolve(a) - self.resolve(b), relation)

    def _record(self, a: Size, relation: str, b: Size, why: str) -> None:
        if isinstance(a, int):
            a, relation, b = b, _MIRRORED[relation], a
        if isinstance(b, int) and not isinstance(a, int):
            constant = sum(c for monomial, c in a.terms if not monomial)
            a, b = a - constant, b - constant
        self.guards[Guard(a, relation, b, f"{self.text(a)} {relation} {self.text(b)}", why)] = None


