"""Words of the steps of native calls (see dispatch_code), as LLVM IR: where numbers and objects are, how Python's objects are laid out."""

from __future__ import annotations

from polyai.runtime.shared import Fields

OBJECT = Fields(type=8, size=16, items=24, real=16, text=32)
ARRAY = Fields(data=16, ndim=24, shape=32, dtype=56, flags=64)
DTYPE = Fields(order=26, number=28)
"""Byte offsets in CPython's and NumPy's objects; `cpython.layout_holds` checks them in the running process."""

PLAIN = 0x101
"""Array flags: C-contiguous, aligned."""
WRITABLE = PLAIN | 0x400
"""Array flags: the same, and writeable."""
KEPT = 1 << 40
"""In an ALLOC: the result may have memory that was a result before."""
LEAST = 1 << 16
"""Bytes of a result from which on its memory comes from here: smaller ones the C library keeps itself."""


def number(name: str, operand: str) -> str:
    """Loads the number that an operand names."""
    return f"%{name}.p = getelementptr i64, ptr %V, i64 %{operand}\n  %{name} = load i64, ptr %{name}.p"


def thing(name: str, operand: str) -> str:
    """Loads the object that an operand names."""
    return f"%{name}.p = getelementptr ptr, ptr %O, i64 %{operand}\n  %{name} = load ptr, ptr %{name}.p"


def type_of(name: str) -> str:
    """Loads the type of an object."""
    return f"{OBJECT.at('type', name)}\n  %{name}.is = load ptr, ptr %{name}.type"


def give(value: str) -> str:
    """Stores a number as the result of the step, which ends."""
    return f"store i64 {value}, ptr %d.p\n  br label %advance"


def own(value: str) -> str:
    """Lets go of an object when the call ends."""
    return f"call void @own(ptr %owned, ptr %owned.n, ptr {value})"
