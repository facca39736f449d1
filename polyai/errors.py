"""What a user sees when something is wrong. Each message says what, why and what to try; each class has a page in docs/errors."""

from __future__ import annotations


class PolyAIError(Exception):
    """Base of all errors raised by PolyAI.

    `what` states the fact, `why` the reason with the values at hand, `remedy` what to try.
    """

    def __init__(self, what: str, why: str = "", remedy: str = "") -> None:
        self.what, self.why, self.remedy = what, why, remedy
        lines = [what]
        if why:
            lines.append(f"  why: {why}")
        if remedy:
            lines.append(f"  try: {remedy}")
        super().__init__("\n".join(lines))

    def __reduce__(self) -> tuple[type[PolyAIError], tuple[str, str, str]]:
        return type(self), (self.what, self.why, self.remedy)


class ShapeError(PolyAIError, ValueError):
    """Shapes that do not fit together."""


class DTypeError(PolyAIError, TypeError):
    """Element types that do not combine, or that PolyAI does not have."""


class IndexOutOfRangeError(PolyAIError, IndexError):
    """An index outside its array, found while tracing or by a kernel while it ran."""


class SparseStructureError(PolyAIError, ValueError):
    """Index arrays that do not describe a matrix: not monotone, out of range, of the wrong length, duplicate, unsorted."""


class UnsupportedError(PolyAIError, NotImplementedError):
    """A valid request that PolyAI does not compile yet."""


class TraceError(PolyAIError, TypeError):
    """A Python function that cannot be traced: a value used where only a number known in advance can be."""


class GuardError(PolyAIError, ValueError):
    """A call outside what its kernel was declared for: a size out of range, a relation broken."""


class ScheduleError(PolyAIError, RuntimeError):
    """A schedule that breaks a dependence, or an access that may leave its array. Raised before any code is made."""


class VerifyError(PolyAIError, AssertionError):
    """A compiler stage produced a malformed program: a defect of PolyAI, never of its user."""


class OptionError(PolyAIError, ValueError):
    """An option or environment variable with a value PolyAI does not know."""


class AliasError(PolyAIError, ValueError):
    """`out` shares memory with an input or with another output."""
