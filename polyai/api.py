"""The front door: compile Python functions over NumPy and scipy.sparse arrays, call them, look inside.

Everything here is a thin layer over `frontend.trace`, `pipeline` and `runtime`. The process keeps one Runtime per cache
directory; the compiler itself is imported only when something has to be compiled.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import sys
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polyai.binding import Variant, cache_key, compiler_contents, compiler_stamp, cost_hints
from polyai.errors import GuardError, PolyAIError
from polyai.explain import Explanation, Section
from polyai.frontend import objects
from polyai.frontend.arguments import has_traced, in_order, leaves, parameter_names, signature
from polyai.frontend.declare import DECLARED, relations
from polyai.frontend.held import Held
from polyai.frontend.prepared import by_position, expanded, static_names
from polyai.frontend.sizes import Guard
from polyai.frontend.spec import Relation, Spec
from polyai.frontend.trace import Traced, trace
from polyai.machine.cpu import host_key
from polyai.options import ACTIVE, Options, current, options
from polyai.report import RecompileWarning, Report, advice, log
from polyai.runtime import staging
from polyai.runtime.arguments import Bundle
from polyai.runtime.kernel import Kernel
from polyai.runtime.launch import Runtime
from polyai.runtime.shared import in_background
from polyai.shapes import expr as sx
from polyai.shapes.bucket import Never, parse
from polyai.sparse.interop import described_once
from polyai.sparse.prepared import Prepared
from polyai.sparse.ragged import Ragged
from polyai.term.collector import paused
from polyai.term.late import late

if TYPE_CHECKING:
    from polyai import specialise, warming
    from polyai.frontend import ragged_calls, ragged_rows
    from polyai.frontend.ragged_calls import Plan, RaggedCall
    from polyai.runtime import archive, helper
    from polyai.runtime.archive import Imported
    from polyai.runtime.helper import Helper
else:
    specialise, warming, archive, helper = map(late, ("polyai.specialise", "polyai.warming", "polyai.runtime.archive", "polyai.runtime.helper"))
    ragged_calls, ragged_rows = late("polyai.frontend.ragged_calls"), late("polyai.frontend.ragged_rows")

MAX_FAST = 8
"""How many native dispatchers one function tries before it looks a call up in Python."""

LAID_OUT = (Prepared, Held)
"""Arguments that stand for several arrays."""

_LOCK = threading.RLock()
_RUNTIMES: dict[tuple[str | None, int, int], Runtime] = {}
_HELPERS: dict[Runtime, Helper] = {}


def runtime() -> Runtime:
    """The process's runtime for the options in force: one per cache directory."""
    options = current()
    key = (options.cache_dir, options.cache_bytes, options.result_bytes)
    found = _RUNTIMES.get(key)
    if found is None:
        with _LOCK:
            found = _RUNTIMES.setdefault(key, Runtime(options))
    return found


def _compiler() -> Any:
    """The compiler, imported when the first kernel has to be made."""
    return importlib.import_module("polyai.pipeline")


def _special() -> Any:
    """The compiler of specialised kernels."""
    return importlib.import_module("polyai.special")


def variant_of(traced: Traced, options: Options, policy: str | None = None) -> Variant:
    """The variant of a trace: its kernel from memory, from disk, or compiled now. `policy` None: as the options say."""
    engine = runtime()
    if not traced.program.body:
        return Variant(traced, (), engine)
    hints = cost_hints(traced.program, traced.hints)
    key = cache_key(traced.program, hints, options, host_key())
    start, before = time.perf_counter(), engine.stats["disk_hits"]
    with _LOCK:
        kernels = _found(engine, key)
        origin = "disk" if engine.stats["disk_hits"] > before else "memory"
        if kernels is None:
            with paused():
                compiler = _compiler()  # first: two threads that import take turns at every file
                engine.prepare()
                kernels, origin = compiler.compile_kernels(traced.program, hints, options, key, engine), "compiled"
    variant = Variant(traced, kernels, engine)
    variant.counted = functools.partial(kernels_again, traced, options, "counted")
    variant.origin, variant.made_in = origin, time.perf_counter() - start
    chosen = parse(policy or options.policy)
    if not isinstance(chosen, Never):
        variant.specialise(chosen, options, helper_of(engine))
    return variant


_OTHER = {"again": -1, "counted": -2, "kept": -3}
"""What stands for the number of a kernel in the keys of a program's other kernels."""


def kernels_again(traced: Traced, options: Options, how: str = "again") -> tuple[Kernel, ...]:
    """The kernels that compute new values of patterns which the program assembled before ("again"), that count a pattern's
    fibres before they store them ("counted"), or that store every pattern for those who ask again ("kept")."""
    engine = runtime()
    hints = cost_hints(traced.program, traced.hints)
    key = staging.key_of(cache_key(traced.program, hints, options, host_key()), _OTHER[how])
    with _LOCK:
        found = _found(engine, key)
        if found is None:
            with paused():
                made: tuple[Kernel, ...] = _compiler().compile_kernels(traced.program, hints, options, key, engine, how=how)
            return made
    return found


def _found(engine: Runtime, key: str) -> tuple[Kernel, ...] | None:
    """All kernels of a program from memory or disk; None if one is missing."""
    first = engine.find(key)
    if first is None:
        return None
    plan = staging.plan_of(first)
    rest = [engine.find(staging.key_of(key, n)) for n in range(1, 1 if plan is None else plan.of)]
    found = [first, *(k for k in rest if k is not None)]
    return tuple(found) if len(found) == len(rest) + 1 else None


def _made_again(cls: type[Function], fn: Callable[..., Any], options: dict[str, Any]) -> Function:
    return cls(fn, **options)


def reported(name: str, variants: Sequence[Variant]) -> Report:
    """The report of a function with these kernels."""
    found = [v.reports() for v in variants]
    return Report(name, tuple(k for kernels, _ in found for k in kernels), sum(fast for _, fast in found), runtime().stats.notes)


def helper_of(engine: Runtime) -> Helper:
    """The process that makes specialised kernels for a runtime."""
    with _LOCK:
        if engine not in _HELPERS:
            _HELPERS[engine] = helper.Helper(specialise.helper_command(), engine.stats)
        return _HELPERS[engine]


class Function:
    """A compiled function. Call it like the function it was made from; `out=` receives dense results.

    Sizes are symbols: one kernel serves every size that passes its guards. Arguments of another kind (element types, ranks,
    sparse formats, static values), and sizes that break a guard, are traced and compiled anew, each once.
    """

    def __init__(
        self, fn: Callable[..., Any], *, name: str | None = None, static: Sequence[str | int] = (), dynamic: Any = "all", where: Sequence[Relation] = (), policy: str | None = None
    ) -> None:
        functools.update_wrapper(self, fn)
        self._fn = fn
        self._name: str = name or str(getattr(fn, "__name__", "function"))
        self._static, self._dynamic, self._where = frozenset(static), dynamic, relations(where)
        self._policy = policy
        Options(policy=policy or "none")
        self._variants: dict[Any, list[Variant]] = {}
        self._fast: Callable[..., Any] | None = None
        self._fast_for: set[Any] = set()
        self._made: list[Variant] = []
        self._broken: dict[Any, list[tuple[str, str, str]]] = {}
        self._lock = threading.RLock()
        self._expanded: dict[Any, Function] = {}
        self._plans: dict[Any, Plan] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._fast is not None and (not kwargs or (len(kwargs) == 1 and "out" in kwargs)):
            return self._fast(*args, **kwargs)
        return self._slow(*args, **kwargs)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        """A compiled method; see `Bound`. Where its first parameter is static, or a class, that is baked in."""
        if instance is None:
            return self
        baked = isinstance(instance, type) or not self._static.isdisjoint((0, *parameter_names(self._fn)[:1]))
        return functools.partial(self, instance) if baked else Bound(self, instance)

    def _on(self, shape: Any) -> Function:
        """The function over what an object of this shape holds, in the object's place."""
        key = ("object", shape)
        return self._expanded.get(key) or self._expanded.setdefault(key, type(self)(objects.method(self._fn, shape), **self._made_with()))

    def __reduce__(self) -> str | tuple[Any, ...]:
        """Pickled as Python pickles functions, by name, if a module holds it under its name; else by what it was made from.
        Kernels stay behind: who unpickles finds them in the cache on disk."""
        name = str(getattr(self._fn, "__qualname__", ""))
        held: Any = sys.modules.get(getattr(self._fn, "__module__", None) or "")
        for part in name.split("."):
            held = getattr(held, part, None)
        return name if held is self else (_made_again, (type(self), self._fn, self._made_with()))

    def _made_with(self) -> dict[str, Any]:
        """The keywords that make a function like this one."""
        static = tuple(sorted(self._static, key=str))
        return {"name": self._name, "static": static, "dynamic": self._dynamic, "where": self._where, "policy": self._policy}

    def _slow(self, *args: Any, out: Any = None, **kwargs: Any) -> Any:
        given = args
        function, args, kwargs = self._with_prepared(args, kwargs)
        if function is not self:
            result = function(*args, **kwargs) if out is None else function(*args, out=out, **kwargs)
            if not kwargs:
                self._add_bundled(function, given, args)
            return result
        if has_traced(args, kwargs):
            return self._fn(*args, **kwargs)
        ragged = self._ragged_in(args, kwargs)
        if ragged is not None:
            return self._with_ragged(ragged, lambda function, a, k: function(*a, **k) if out is None else function(*a, out=out, **k), ragged_calls.packed_out)
        options = current()
        if len(kwargs) > 1:
            kwargs = in_order(self._fn, kwargs)
        with described_once():
            variant = self._variant(args, kwargs, options)
            result = variant.run(args, kwargs, options, out)
        if not kwargs:
            self._add_fast(variant, args, options)
        return result

    def _with_prepared(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Function, tuple[Any, ...], dict[str, Any]]:
        """The function over the arrays of prepared matrices, and its arguments; the function itself if there are none."""
        if kwargs and any(type(a) in LAID_OUT for a in kwargs.values()):
            args, kwargs = by_position(self._fn, args, kwargs)
        flat: list[Any] = []
        codes: tuple[Any, ...] = ()
        for a in args:
            if type(a) in LAID_OUT:
                flat += a.arrays
                codes += (a.code,)
            else:
                flat.append(a)
                codes += (None,)
        if len(flat) == len(args) and codes.count(None) == len(codes):
            return self, args, kwargs
        function = self._expanded.get(codes)
        if function is None:
            made = expanded(self._fn, codes)
            static = static_names(self._fn, self._static)
            fresh = Function(made, name=self._name, static=static, dynamic=self._dynamic, where=self._where, policy=self._policy)
            function = self._expanded.setdefault(codes, fresh)
        return function, tuple(flat), kwargs

    def _ragged_in(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> RaggedCall | None:
        """The call taken apart if an argument is ragged, or holds something that is."""
        if not any(type(a) is Ragged or type(a) in (tuple, list, dict) for a in (*args, *kwargs.values())):
            return None
        return ragged_calls.found_in(args, kwargs, bool(self._static))

    def _with_ragged(self, given: RaggedCall, use: Callable[[Function, Any, Any], Any], finish: Callable[[Any, RaggedCall, Plan], Any]) -> Any:
        """`use` the function over the values and tables of ragged batches; `finish` puts together what comes back."""
        while True:
            plan = self._plans.get(given.key) or self._plans.setdefault(given.key, ragged_calls.Plan(given))
            key = (given.key, plan.tables)
            function = self._expanded.get(key)
            if function is None:
                static = static_names(self._fn, self._static)
                made = Function(plan.spread(self._fn), name=self._name, static=static, dynamic=self._dynamic, where=self._where, policy=self._policy)
                function = self._expanded.setdefault(key, made)
            try:
                return finish(use(function, given.args + plan.arrays(given), given.kwargs), given, plan)
            except ragged_rows.TableWanted as wanted:
                plan.want(wanted)

    def _add_fast(self, variant: Variant, args: tuple[Any, ...], options: Options) -> None:
        """Put a native dispatcher for calls like this one before those that there are."""
        active = ACTIVE.get()
        what = (id(variant), id(active), tuple(map(type, args)))
        if what in self._fast_for or len(self._fast_for) >= MAX_FAST:
            return
        make = functools.partial(variant.dispatcher, args, self._fast or self._slow, (ACTIVE, active), options)
        with self._lock:
            self._fast_for.add(what)
            if self._fast is not None or variant.runtime.native.at_hand("dispatch"):
                self._fast = make() or self._fast
            else:
                self._fast = self._soon(make, what)

    def _soon(self, make: Callable[[], Callable[..., Any] | None], what: object) -> Callable[..., Any]:
        """What stands for the first dispatcher until another thread has made it: the first call does not wait for its code to be
        compiled, the second one does."""
        made: list[Callable[..., Any] | None] = []

        def run() -> None:
            with contextlib.suppress(PolyAIError, OSError):
                made.append(make())

        def waiting(*args: Any, **kwargs: Any) -> Any:
            thread.join()
            with self._lock:
                if self._fast is waiting:
                    self._fast = made[0] if made else None
                if not made:
                    self._fast_for.discard(what)
            return ((made and made[0]) or self._slow)(*args, **kwargs)

        thread = in_background(run, "polyai-dispatch")
        return waiting

    def _add_bundled(self, function: Function, given: tuple[Any, ...], args: tuple[Any, ...]) -> None:
        """Put a native dispatcher for calls with prepared matrices, `given`, that hold the arguments `args` of `function`."""
        active = ACTIVE.get()
        what = (id(function), id(active), tuple(map(type, args)))
        if what in self._fast_for or len(self._fast_for) >= MAX_FAST or any(type(a) is Held for a in given):
            return
        options = current()
        bundles = tuple(Bundle(Prepared, a.key, len(a.arrays)) if type(a) is Prepared else None for a in given)
        with self._lock, described_once():
            self._fast_for.add(what)
            variant = function._variant(args, {}, options)
            self._fast = variant.dispatcher(args, self._fast or self._slow, (ACTIVE, active), options, bundles) or self._fast

    def _key(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], options: Options) -> Any:
        key = signature(leaves(self._fn, args, kwargs, self._static))
        return (key, options.vector_bits, options.scheduler, options.blas, options.cache_dir, options.cache_bytes, options.result_bytes, options.policy)

    def _variant(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], options: Options) -> Variant:
        key = self._key(args, kwargs, options)
        try:
            known = list(self._variants.get(key, []))
        except TypeError:
            key, known = repr(key), list(self._variants.get(repr(key), []))
        why, asked = "first call with arguments of this kind", None
        for variant in known:
            values = variant.traced.values(variant.traced.arguments(args, kwargs))
            broken = variant.traced.broken_guard(values)
            if broken is None and variant.suits(values):
                return variant
            if broken is not None and broken.why == DECLARED:
                raise variant.traced.refusal(broken, values)
            why = "the products are too small for the library" if broken is None else f"a guard does not hold: {broken.text}"
            asked = broken
        with self._lock:
            if self._variants.get(key, []) != known:  # another thread made one while this one waited
                return self._variant(args, kwargs, options)
            traced = self._trace(args, kwargs)
            variant = variant_of(traced, options, self._policy)
            variant.reason = why
            self._variants.setdefault(key, []).insert(0, variant)
            self._made.append(variant)
        log("kernel", f"{self._name}: {variant.origin} in {variant.made_in * 1e3:.0f} ms, {why}", (("function", self._name), ("origin", variant.origin), ("seconds", variant.made_in), ("reason", why)))
        if asked is not None:
            self._warn_of(key, asked, options)
        return variant

    def _warn_of(self, key: Any, asked: Guard, options: Options) -> None:
        """Say which size to declare when kernels are made for one value after another."""
        names = sorted(sx.symbols(asked.left))
        newest = self._made[-1].traced
        value = ", ".join(str(newest.hints.get(n, "?")) for n in names)
        broken = self._broken.setdefault(key, [])
        broken.append((newest.texts.get(names[0], names[0]) if names else asked.text, value, asked.why))
        if len(broken) + 1 == options.recompile_limit or len(broken) + 1 == 8 * options.recompile_limit:
            text = advice(self._name, broken)
            log("recompiled often", text, (("function", self._name), ("times", len(broken) + 1)), "warning")
            warnings.warn(text, RecompileWarning, stacklevel=5)

    def report(self) -> Report:
        """The kernels of this function: what each serves, why and how it was made, how often and how long it ran."""
        return reported(self._name, self._all_made())

    def warm(self, *args: Any, sizes: Mapping[str, int | Sequence[int]] | None = None, **kwargs: Any) -> Report:
        """Make the kernels for these arguments without running them.

        Arguments are examples, or descriptions of dense arrays such as `f32[128, 64]`; the values of declared sizes in them
        are given by `sizes`, each a number or several: `f.warm(f32[n, 64], sizes={"n": (1, 64, 256)})`.
        Raises ShapeError for a size without a value, GuardError for one outside its range.
        """
        options = current()
        for values in warming.bindings(sizes or {}):
            given = tuple(warming.stand_in(a, values) for a in args)
            named = {k: warming.stand_in(v, values) for k, v in kwargs.items()}
            function, given, named = self._with_prepared(given, in_order(self._fn, named))
            variant = function._variant(given, named, options)
            if variant.specialiser is not None:
                known = variant.traced.values(variant.traced.arguments(given, named))
                variant.specialiser.want(tuple((n, known[n], known[n]) for n in variant.specialiser.names), "warmed", _special().compiled)
        return self.report()

    def _all_made(self) -> list[Variant]:
        """The kernels made so far, those for prepared matrices last."""
        return [*self._made, *(v for f in list(self._expanded.values()) for v in f._made)]

    def _trace(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Traced:
        return trace(self._fn, args, kwargs, name=self._name, dynamic=self._dynamic, static=self._static, where=self._where)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why each kernel of this function was made, in order."""
        return tuple(v.reason for v in self._all_made())

    @property
    def guards(self) -> tuple[Guard, ...]:
        """The relations between sizes that the kernels rely on."""
        return tuple(dict.fromkeys(g for v in self._all_made() for g in v.traced.guards))

    def explain(self, *args: Any, **kwargs: Any) -> Explanation:
        """Every stage of the compilation for these arguments, or for specs. Compiles, does not run."""
        prepared = [a for a in (*args, *kwargs.values()) if type(a) in LAID_OUT]
        if prepared:
            function, args, kwargs = self._with_prepared(args, kwargs)
            found = function.explain(*args, **kwargs)
            sections = [Section("prepared" + (f" {n + 1}" if n else ""), f"{a!r}\n{a.choice}", "summary") for n, a in enumerate(prepared)]
            return Explanation(found.title, (*sections, *found.sections))
        given = self._ragged_in(args, kwargs)
        if given is not None:
            shown: Explanation = self._with_ragged(given, lambda function, a, k: function.explain(*a, **k), lambda found, *_: found)
            return shown
        traced = self._trace(args, kwargs)
        explained: Explanation = _compiler().explain_program(traced.program, cost_hints(traced.program, traced.hints), current(), traced.guards, traced.decided)
        return explained

    def __repr__(self) -> str:
        return f"<polyai function {self._name}: {len(self._all_made())} kernels>"


class Bound:
    """A compiled function as a method of `instance`, whose arrays and numbers are read at each call."""

    def __init__(self, function: Function, instance: Any) -> None:
        self.__func__, self.__self__ = function, instance
        self.__name__, self.__doc__ = function._name, function.__doc__

    def _opened(self) -> tuple[Function, Any]:
        shape, values = objects.opened(self.__self__)
        return self.__func__._on(shape), values

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        function, values = self._opened()
        return function(values, *args, **kwargs)

    def explain(self, *args: Any, **kwargs: Any) -> Explanation:
        """Every stage of the compilation for these arguments."""
        function, values = self._opened()
        return function.explain(values, *args, **kwargs)

    def report(self) -> Report:
        """The kernels of the method, for all objects."""
        return self.__func__.report()

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why each kernel of the method was made, in order."""
        return self.__func__.reasons

    def __repr__(self) -> str:
        return f"<polyai method {self.__name__} of a {type(self.__self__).__name__}>"


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
    from_numpy = importlib.import_module("polyai.scalar.dtype").from_numpy
    name: str = from_numpy(value.dtype).name
    return name


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


def policy(name: str, *, kernels: int = 8) -> options:
    """`with policy("learned"): ...`: sizes that occur often get kernels of their own, at most `kernels` for each general one.

    They are made by a helper process while calls go on, taken from the disk cache where it has them, and serve the sizes they were made
    for as soon as they are there. `name`: `exact`: each size; `pow2`, `pow2:64`: ranges that end at powers of two; `multiple:32`: ranges of
    32 sizes; `ranges:16,64,512`: ranges with these ends; `learned`: ranges chosen from the sizes seen so far; `none`.
    Raises OptionError for anything else. For one function: `jit(policy=...)`.
    """
    return options(policy=name, specialised_kernels=kernels)


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


def cache_export(path: str | Path) -> int:
    """Write every compiled kernel of this machine and this version to one file; how many.

    Another process, or another machine with the same processor features, reads it with `cache_import` and starts without
    compiling. Raises OSError if the file cannot be written.
    """
    return archive.write(Path(path), runtime().cache, compiler_stamp(), compiler_contents())


def cache_import(path: str | Path) -> Imported:
    """Take the kernels of a file that `cache_export` wrote into the cache; how many were taken, and how many refused and why.

    Entries are checked one by one; what is damaged or made for another machine or by another version is refused. Machine
    code is run later: import only files from those you trust. Raises OptionError for a file that is no such archive.
    """
    return archive.read(Path(path), runtime().cache, compiler_stamp(), compiler_contents())
