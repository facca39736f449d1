"""Functions compiled ahead of their calls, and explanations: what is said about a function before it is called."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from polyai.api.function import MAX_FAST, Function
from polyai.calls.engine import reported, variant_of
from polyai.errors import GuardError
from polyai.explanation import Explanation
from polyai.frontend.arguments import leaves, signature
from polyai.frontend.declare import relations
from polyai.frontend.sizes import Guard
from polyai.frontend.spec import Relation, Spec
from polyai.frontend.trace import trace
from polyai.options import ACTIVE, current
from polyai.report import Report
from polyai.scalar.dtype import from_numpy


class Declared:
    """A function compiled ahead of its calls for declared sizes; see `compile`."""

    def __init__(
        self, fn: Callable[..., Any], specs: tuple[Any, ...], kwargs: Mapping[str, Any], name: str | None, where: Sequence[Relation] = ()
    ) -> None:
        functools.update_wrapper(self, fn)
        self._options = current()
        self._fn = fn
        self._name: str = name or str(getattr(fn, "__name__", "function"))
        self._traced = trace(fn, specs, kwargs, name=self._name, where=relations(where))
        self._specs: dict[Any, Any] = {**dict(enumerate(specs)), **kwargs}
        self._variant = variant_of(self._traced, self._options)
        self._variant.reason = "declared"
        self._fast: Callable[..., Any] | None = None
        self._fast_for: set[Any] = set()
        self._lock = threading.RLock()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._fast is not None and not kwargs:
            return self._fast(*args)
        return self._slow(*args, **kwargs)

    def _slow(self, *args: Any, out: Any = None, **kwargs: Any) -> Any:
        specs = tuple(self._specs[n] for n in range(len(args)) if n in self._specs)
        wanted = signature_of_specs(self._fn, specs, {k: self._specs[k] for k in kwargs if k in self._specs})
        given = signature_of_values(self._fn, args, kwargs)
        if wanted != given or len(args) + len(kwargs) != len(self._specs):
            raise GuardError(
                f"the arguments of {self._name} are not those it was compiled for", f"declared {wanted}, given {given}", "pass arguments of the declared kinds"
            )
        self._traced.check(self._traced.values(self._traced.arguments(args, kwargs)))
        options = current()
        result = self._variant.run(args, kwargs, options, out)
        if not kwargs and out is None:
            active = ACTIVE.get()
            what = (id(active), tuple(map(type, args)))
            if what not in self._fast_for and len(self._fast_for) < MAX_FAST:
                with self._lock:
                    self._fast_for.add(what)
                    self._fast = self._variant.dispatcher(args, self._fast or self._slow, (ACTIVE, active), options) or self._fast
        return result

    def report(self) -> Report:
        """The kernel of this function: how it was made, how often and how long it ran."""
        return reported(self._name, [self._variant])

    @property
    def guards(self) -> tuple[Guard, ...]:
        """The relations between sizes that every call is checked for."""
        return self._traced.guards

    def __repr__(self) -> str:
        return f"<polyai function {self._name}, compiled for {', '.join(map(str, self._specs.values()))}>"


def signature_of_specs(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[str, ...]:
    """The kinds of arguments described by specs, in words."""
    return tuple(
        f"{leaf.text}: {_kind(leaf.value.dtype.name, len(leaf.value.shape), leaf.value.format)}" for leaf in leaves(fn, args, kwargs) if isinstance(leaf.value, Spec)
    )


def signature_of_values(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[str, ...]:
    """The kinds of arguments given, in the same words."""
    words = []
    for found in leaves(fn, args, kwargs):
        kind = signature([found])[0]
        if found.kind == "array":
            words.append(f"{found.text}: {_kind(_name_of(found.value), found.value.ndim, None)}")
        elif found.kind == "sparse":
            words.append(f"{found.text}: {_kind(kind[2].name, kind[4], kind[3])}")
        elif found.kind == "scalar":
            words.append(f"{found.text}: a Python {type(found.value).__name__}")
    return tuple(words)


def _name_of(value: Any) -> str:
    return from_numpy(value.dtype).name


def _kind(dtype: str, rank: int, format: Any) -> str:
    return f"{format.name if format is not None else 'dense'} {dtype} with {rank} dimensions" + (
        f", {format.index_bits}-bit indices" if format is not None else ""
    )


def compile(fn: Callable[..., Any], *specs: Any, name: str | None = None, where: Sequence[Relation] = (), **kwargs: Any) -> Declared:
    """Compile `fn` now, for arguments described by specs such as `csr[n, m]` and `f32[m, 64]` with `n = dim("n")`.

    `where` promises relations between the sizes: `[n <= m, m == n // 2]`; each call is checked for them.
    Returns a function that never compiles again. It raises GuardError for a call outside what was declared. Raises ShapeError
    for declarations that contradict each other, or a size that no argument gives a value to.
    """
    return Declared(fn._fn if isinstance(fn, Function) else fn, specs, kwargs, name, where)


def explain(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Explanation:
    """Every stage of the compilation of `fn` for these arguments or specs: text, HTML, timings."""
    made = fn if isinstance(fn, Function) else Function(fn._fn if isinstance(fn, Declared) else fn)
    return made.explain(*args, **kwargs)
