"""`jit`, the decorator that users begin with."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from polyai.api.function import Function
from polyai.errors import TraceError
from polyai.frontend.declare import argument_names
from polyai.frontend.spec import Relation
from polyai.term.late import late

if TYPE_CHECKING:
    from polyai.api import constant as constants
else:
    constants = late("polyai.api.constant")


def jit(
    fn: Callable[..., Any] | None = None,
    *,
    name: str | None = None,
    static: Sequence[str | int] = (),
    dynamic: Any = "all",
    where: Sequence[Relation] = (),
    policy: str | None = None,
    constant: Sequence[str | int] = (),
) -> Any:
    """Compile `fn` at its first call, for every size; use as `@jit`, `@jit(static=("axis",))` or `jit(fn)`.

    Args:
        fn: A function of arrays (NumPy, scipy.sparse), numbers, and tuples, lists and dicts of them; or a method, which reads such of its
            object at each call, and assigns none.
        name: What messages and explanations call it.
        static: Names or positions of arguments that are baked into the code, whatever they are.
        dynamic: "all" keeps every size a symbol, "none" fixes all sizes, a mapping from argument names to dimensions chooses, and
            may declare them: `{"X": {0: dim("n", max=512)}}`. What it does not name is fixed.
        where: Relations between declared sizes, such as `[n <= m, n % 8 == 0]`.
        policy: Which sizes get kernels of their own, made in the background; see `policy`. None: as the options say.
        constant: Names or positions of arguments that do not change. A sparse matrix is prepared (see `prepare`) when it is first
            passed; dense matrices, also inside tuples, lists and dicts, are laid out in panels for products from the right. The
            arrays of what was laid out are made read-only.

    Returns a `Function`. Calling it raises GuardError for sizes that are not as declared, TraceError where `fn` needs a value that
    only the call knows, ShapeError and DTypeError for operands that do not fit, SparseStructureError for broken index arrays,
    AliasError for a constant matrix that has changed all the same.
    """
    if fn is None:
        return functools.partial(jit, name=name, static=static, dynamic=dynamic, where=where, policy=policy, constant=constant)
    if not callable(fn):
        raise TraceError(f"jit of {fn!r}", f"it is a {type(fn).__name__}, no function", "write jit(lambda A, x: A @ x), or @jit above a function")
    if inspect.ismethod(fn) and not isinstance(fn.__self__, type):  # its object is an argument like others
        first = {"static": _behind(static), "constant": _behind(constant)}
        return jit(fn.__func__, name=name, dynamic=dynamic, where=where, policy=policy, **first).__get__(fn.__self__)
    argument_names(dynamic, fn)
    if constant:
        return constants.ConstantFunction(fn, constant, name=name, static=static, dynamic=dynamic, where=where, policy=policy)
    return Function(fn, name=name, static=static, dynamic=dynamic, where=where, policy=policy)


def _behind(places: Sequence[str | int]) -> tuple[str | int, ...]:
    """Names and positions of arguments with one more before them."""
    return tuple(p + 1 if isinstance(p, int) else p for p in places)
