"""The functions of the surface, usable inside a trace and on their own. `frontend.functions` tells what each does, and where it is.

    operator("relu")    relu of `frontend.surface.elementwise` inside a trace; outside, compiled on its own and called

Each is made when it is first asked for, so that `import polyai` loads the modules of none.
"""

from __future__ import annotations

import builtins
import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np

from polyai.api.function import Function
from polyai.errors import TraceError
from polyai.frontend import spec
from polyai.frontend.arguments import has_traced, leaves
from polyai.frontend.core import Composite, NothingTraced
from polyai.frontend.surface import functions
from polyai.sparse import interop
from polyai.term.late import late

if TYPE_CHECKING:
    from polyai.frontend.composites import dispatch as composites
    from polyai.sparse import tensor
else:
    composites = late("polyai.frontend.composites.dispatch")
    tensor = late("polyai.sparse.tensor")

P = ParamSpec("P")
R = TypeVar("R")


def eager(fn: Callable[P, R]) -> Callable[P, R]:
    """`fn` inside a trace; outside, `fn` compiled on its own and called.

    Arrays and floats are arguments of the kernel; everything else (axes, shapes, flags, strings) is static.
    """
    compiled: dict[frozenset[int | str], Function] = {}

    @functools.wraps(fn)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if has_traced(args, kwargs):
            return composites.call(fn, args, kwargs) if _composite(args, kwargs) else fn(*args, **kwargs)
        found = leaves(fn, args, kwargs)
        if not builtins.any(leaf.kind in ("array", "sparse", "ragged") for leaf in found):
            try:
                return fn(*args, **kwargs)  # of sizes only
            except NothingTraced:
                if not args or not isinstance(args[0], (bool, int, float, complex, list, tuple)):
                    raise
            given: Any = (np.asarray(args[0]), *args[1:])  # as NumPy takes them
            return call(*given, **kwargs)
        fixed = frozenset(leaf.path[0] for leaf in found if leaf.kind == "scalar" and not isinstance(leaf.value, float) and len(leaf.path) == 1)
        function = compiled.get(fixed)
        if function is None:
            function = compiled.setdefault(fixed, Function(_traced(fn), static=tuple(fixed)))
        result: Any = function(*args, **kwargs)
        return result  # type: ignore[no-any-return]

    return call


def _composite(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether something that stands for several arrays of a trace is among the arguments, or in a list among them."""
    found = (*args, *kwargs.values())
    return builtins.any(isinstance(a, Composite) or (isinstance(a, (list, tuple)) and builtins.any(isinstance(x, Composite) for x in a)) for a in found)


def _traced(fn: Callable[P, R]) -> Callable[P, R]:
    """`fn` as it is inside a trace: of ragged arrays, row by row."""

    @functools.wraps(fn)
    def traced(*args: P.args, **kwargs: P.kwargs) -> R:
        return composites.call(fn, args, kwargs) if _composite(args, kwargs) else fn(*args, **kwargs)

    return traced


def _of_sizes(choose: Callable[..., Any], fn: Callable[P, R]) -> Callable[P, R]:
    """`fn`, or `choose` where an argument is a declared size."""

    @functools.wraps(fn)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if builtins.any(isinstance(a, spec.DimExpr) for a in args):
            result: R = choose(*args)
            return result
        return fn(*args, **kwargs)

    return call


def _filled(fn: Callable[..., Any]) -> Callable[..., Any]:
    """`fn`; outside a trace a `SparseArray` around the arrays of its argument."""

    @functools.wraps(fn)
    def filled(x: Any, fill_value: Any) -> Any:
        if has_traced((x, fill_value), {}):
            return composites.call(fn, (x, fill_value), {})
        if not interop.is_sparse(x):
            raise TraceError("filled of what is not sparse", f"it is a {type(x).__name__}", "pass a sparse array")
        storage = interop.storage_of(x)
        return tensor.SparseArray(storage.format, storage.shape, storage.arrays, fill_value)

    return filled


AS_THEY_ARE = frozenset(
    ("arange", "comprehension", "eye", "full", "index", "indices", "linspace", "normal", "ones", "random_bits", "result_type", "tri", "uniform", "zeros")
)
"""Functions that take no arrays, or make no kernel of their own."""


def operator(name: str) -> Any:
    """The function of this name as users call it. Raises AttributeError for a name that the surface does not have."""
    fn = getattr(functions, name)
    if name in AS_THEY_ARE:
        return fn
    if name == "filled":
        return _filled(fn)
    made = eager(fn)
    return _of_sizes(spec.largest if name == "maximum" else spec.smallest, made) if name in ("maximum", "minimum") else made
