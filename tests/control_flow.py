"""Control flow as Python runs it: what `cond`, `while_loop` and `fori_loop` of random programs mean."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class ControlFlow:
    """The functions of a namespace that random programs are run in."""

    @staticmethod
    def cond(predicate: Any, then: Callable[[], Any], orelse: Callable[[], Any]) -> Any:
        return then() if predicate else orelse()

    @staticmethod
    def while_loop(condition: Callable[[Any], Any], body: Callable[[Any], Any], state: Any) -> Any:
        while condition(state):
            state = body(state)
        return state

    @staticmethod
    def fori_loop(lower: int, upper: int, body: Callable[[Any, Any], Any], state: Any) -> Any:
        for i in range(lower, upper):
            state = body(i, state)
        return state
