"""The front door: compile Python functions over NumPy and scipy.sparse arrays, call them, look inside.

Everything here is a thin layer over `frontend.trace`, `pipeline` and `runtime`. The process keeps one Runtime per cache
directory; the compiler itself is imported only when something has to be compiled.
"""

from __future__ import annotations

import functools
import importlib
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from polyai.binding import Variant, cache_key, cost_hints
from polyai.errors import GuardError
from polyai.explain import Explanation, Section
from polyai.frontend.arguments import has_traced, in_order, leaves, signature
from polyai.frontend.prepared import by_position, expanded, static_names
from polyai.frontend.sizes import Guard
from polyai.frontend.spec import Spec
from polyai.frontend.trace import Traced, trace
from polyai.machine.cpu import host_key
from polyai.options import ACTIVE, Options, current
from polyai.runtime import staging
from polyai.runtime.kernel import Kernel
from polyai.runtime.launch import Runtime
from polyai.sparse.prepared import Prepared

MAX_FAST = 8
"""How many native dispatchers one function tries before it looks a call up in Python."""

_LOCK = threading.RLock()
_RUNTIMES: dict[tuple[str | None, int], Runtime] = {}


def runtime() -> Runtime:
    """The process's runtime for the options in force: one per cache directory."""
    options = current()
    key = (options.cache_dir, options.cache_bytes)
    found = _RUNTIMES.get(key)
    if found is None:
        with _LOCK:
            found = _RUNTIMES.setdefault(key, Runtime(options))
    return found


def _compiler() -> Any:
    """The compiler, imported when the first kernel has to be made."""
    return importlib.import_module("polyai.pipeline")


def variant_of(traced: Traced, options: Options) -> Variant:
    """The variant of a trace: its kernel from memory, from disk, or compiled now."""
    engine = runtime()
    if not traced.program.body:
        return Variant(traced, (), engine)
    hints = cost_hints(traced.program, traced.hints)
    key = cache_key(traced.program, hints, options, host_key())
    with _LOCK:
        kernels = _found(engine, key)
        if kernels is None:
            engine.prepare()
            kernels = _compiler().compile_kernels(traced.program, hints, options, key, engine)
    return Variant(traced, kernels, engine)


def _found(engine: Runtime, key: str) -> tuple[Kernel, ...] | None:
    """All kernels of a program from memory or disk; None if one is missing."""
    first = engine.find(key)
    if first is None:
        return None
    plan = staging.plan_of(first)
    rest = [engine.find(staging.key_of(key, n)) for n in range(1, 1 if plan is None else plan.of)]
    found = [first, *(k for k in rest if k is not None)]
    return tuple(found) if len(found) == len(rest) + 1 else None


class Function:
    """A compiled function. Call it like the function it was made from; `out=` receives dense results.

    Sizes are symbols: one kernel serves every size that passes its guards. Arguments of another kind (element types, ranks,
    sparse formats, static values), and sizes that break a guard, are traced and compiled anew, each once.
    """

    def __init__(self, fn: Callable[..., Any], *, name: str | None = None, static: Sequence[str | int] = (), dynamic: Any = "all") -> None:
        functools.update_wrapper(self, fn)
        self._fn, self._name = fn, name or getattr(fn, "__name__", "function")
        self._static, self._dynamic = frozenset(static), dynamic
        self._variants: dict[Any, list[Variant]] = {}
        self._fast: Callable[..., Any] | None = None
        self._fast_for: set[Any] = set()
        self._reasons: list[str] = []
        self._lock = threading.RLock()
        self._expanded: dict[Any, Function] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._fast is not None and not kwargs:
            return self._fast(*args)
        return self._slow(*args, **kwargs)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else functools.partial(self, instance)

    def _slow(self, *args: Any, out: Any = None, **kwargs: Any) -> Any:
        if any(type(a) is Prepared for a in args) or (kwargs and any(type(a) is Prepared for a in kwargs.values())):
            function, args, kwargs = self._with_prepared(args, kwargs)
            return function(*args, **kwargs) if out is None else function(*args, out=out, **kwargs)
        if has_traced(args, kwargs):
            return self._fn(*args, **kwargs)
        options = current()
        if len(kwargs) > 1:
            kwargs = in_order(self._fn, kwargs)
        variant = self._variant(args, kwargs, options)
        result = variant.run(args, kwargs, options, out)
        if not kwargs and out is None:
            self._add_fast(variant, args, options)
        return result

    def _with_prepared(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Function, tuple[Any, ...], dict[str, Any]]:
        """The function over the arrays of prepared matrices, and its arguments."""
        if any(type(a) is Prepared for a in kwargs.values()):
            args, kwargs = by_position(self._fn, args, kwargs)
        codes = tuple(a.code if type(a) is Prepared else None for a in args)
        function = self._expanded.get(codes)
        if function is None:
            made = expanded(self._fn, codes)
            static = static_names(self._fn, self._static)
            function = self._expanded.setdefault(codes, Function(made, name=self._name, static=static, dynamic=self._dynamic))
        flat: list[Any] = []
        for a in args:
            if type(a) is Prepared:
                flat.extend(a.arrays)
            else:
                flat.append(a)
        return function, tuple(flat), dict(kwargs)

    def _add_fast(self, variant: Variant, args: tuple[Any, ...], options: Options) -> None:
        """Put a native dispatcher for calls like this one before those that there are."""
        active = ACTIVE.get()
        what = (id(variant), id(active), tuple(map(type, args)))
        if what in self._fast_for or len(self._fast_for) >= MAX_FAST:
            return
        with self._lock:
            self._fast_for.add(what)
            self._fast = variant.dispatcher(args, self._fast or self._slow, (ACTIVE, active), options) or self._fast

    def _key(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], options: Options) -> Any:
        key = signature(leaves(self._fn, args, kwargs, self._static))
        return (key, options.vector_bits, options.scheduler, options.blas, options.cache_dir, options.cache_bytes)

    def _variant(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], options: Options) -> Variant:
        key = self._key(args, kwargs, options)
        try:
            known = list(self._variants.get(key, []))
        except TypeError:
            key, known = repr(key), list(self._variants.get(repr(key), []))
        why = "first call with arguments of this kind"
        for variant in known:
            values = variant.traced.values(variant.traced.arguments(args, kwargs))
            broken = variant.traced.broken_guard(values)
            if broken is None and variant.suits(values):
                return variant
            why = "the products are too small for the library" if broken is None else f"a guard does not hold: {broken.text}"
        with self._lock:
            if self._variants.get(key, []) != known:  # another thread made one while this one waited
                return self._variant(args, kwargs, options)
            traced = trace(self._fn, args, kwargs, name=self._name, dynamic=self._dynamic, static=self._static)
            variant = variant_of(traced, options)
            self._variants.setdefault(key, []).insert(0, variant)
            self._reasons.append(why)
        return variant

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why each kernel of this function was made, in order."""
        return tuple(self._reasons)

    @property
    def guards(self) -> tuple[Guard, ...]:
        """The relations between sizes that the kernels rely on."""
        return tuple(dict.fromkeys(g for known in self._variants.values() for v in known for g in v.traced.guards))

    def explain(self, *args: Any, **kwargs: Any) -> Explanation:
        """Every stage of the compilation for these arguments, or for specs. Compiles, does not run."""
        prepared = [a for a in (*args, *kwargs.values()) if type(a) is Prepared]
        if prepared:
            function, args, kwargs = self._with_prepared(args, kwargs)
            found = function.explain(*args, **kwargs)
            sections = [Section("prepared" + (f" {n + 1}" if n else ""), f"{a!r}\n{a.choice}", "summary") for n, a in enumerate(prepared)]
            return Explanation(found.title, (*sections, *found.sections))
        traced = trace(self._fn, args, kwargs, name=self._name, dynamic=self._dynamic, static=self._static)
        explained: Explanation = _compiler().explain_program(traced.program, cost_hints(traced.program, traced.hints), current(), traced.guards)
        return explained

    def __repr__(self) -> str:
        return f"<polyai function {self._name}: {len(self._reasons)} kernels>"


class Declared:
    """A function compiled ahead of its calls for declared sizes; see `compile`."""

    def __init__(self, fn: Callable[..., Any], specs: tuple[Any, ...], kwargs: Mapping[str, Any], name: str | None) -> None:
        functools.update_wrapper(self, fn)
        self._options = current()
        self._fn, self._name = fn, name or getattr(fn, "__name__", "function")
        self._traced = trace(fn, specs, kwargs, name=self._name)
        self._specs: dict[Any, Any] = {**dict(enumerate(specs)), **kwargs}
        self._variant = variant_of(self._traced, self._options)

    def __call__(self, *args: Any, out: Any = None, **kwargs: Any) -> Any:
        specs = tuple(self._specs[n] for n in range(len(args)) if n in self._specs)
        wanted = signature_of_specs(self._fn, specs, {k: self._specs[k] for k in kwargs if k in self._specs})
        given = signature_of_values(self._fn, args, kwargs)
        if wanted != given or len(args) + len(kwargs) != len(self._specs):
            raise GuardError(
                f"the arguments of {self._name} are not those it was compiled for", f"declared {wanted}, given {given}", "pass arguments of the declared kinds"
            )
        self._traced.check(self._traced.values(self._traced.arguments(args, kwargs)))
        return self._variant.run(args, kwargs, current(), out)

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
    from_numpy = importlib.import_module("polyai.scalar.dtype").from_numpy
    name: str = from_numpy(value.dtype).name
    return name


def _kind(dtype: str, rank: int, format: Any) -> str:
    return f"{format.name if format is not None else 'dense'} {dtype} with {rank} dimensions" + (
        f", {format.index_bits}-bit indices" if format is not None else ""
    )


def compile(fn: Callable[..., Any], *specs: Any, name: str | None = None, **kwargs: Any) -> Declared:
    """Compile `fn` now, for arguments described by specs such as `csr[n, m]` and `f32[m, 64]` with `n = dim("n")`.

    Returns a function that never compiles again. It raises GuardError for a call outside what was declared.
    """
    return Declared(fn._fn if isinstance(fn, Function) else fn, specs, kwargs, name)


def explain(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Explanation:
    """Every stage of the compilation of `fn` for these arguments or specs: text, HTML, timings."""
    made = fn if isinstance(fn, Function) else Function(fn._fn if isinstance(fn, Declared) else fn)
    return made.explain(*args, **kwargs)


def stats() -> dict[str, int]:
    """Counters of this process: `compiles`, `cache_hits`, `calls`, `externs` (calls of a library), `copies`, and more."""
    counts = runtime().report()
    out = {"compiles": 0, "copies": 0, "conversions": 0, **counts}
    out["cache_hits"] = counts.get("memory_hits", 0) + counts.get("disk_hits", 0)
    out["externs"] = sum(n for name, n in counts.items() if name.startswith("calls of "))
    return out


def cache_info() -> dict[str, Any]:
    """Where compiled code is kept on disk, how many entries and bytes are there, and the bound."""
    cache = runtime().cache
    entries = cache.entries()
    return {
        "directory": str(cache.directory) if cache.directory is not None else None,
        "entries": len(entries),
        "bytes": sum(e.bytes for e in entries),
        "limit": runtime().options.cache_bytes,
        "kernels": entries,
    }


def cache_clear() -> int:
    """Remove every entry of the disk cache; returns how many there were."""
    return runtime().cache.clear()
