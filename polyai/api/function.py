"""The front door: compile Python functions over NumPy and scipy.sparse arrays, call them, look inside.

Everything here is a thin layer over `frontend.trace`, `engine` and `binding`.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from polyai.calls.binding import Variant
from polyai.calls.engine import compiler, reported, special, variant_of
from polyai.calls.keys import cost_hints
from polyai.errors import PolyAIError
from polyai.frontend.arguments import has_traced, in_order, leaves, parameter_names, signature
from polyai.frontend.declare import DECLARED, relations
from polyai.frontend.sizes import Guard
from polyai.frontend.spec import Relation
from polyai.frontend.trace import trace
from polyai.frontend.traced import Traced
from polyai.options import ACTIVE, Options, current, options
from polyai.report import RecompileWarning, Report, advice, log
from polyai.runtime.arguments import Bundle
from polyai.runtime.shared import in_background
from polyai.shapes import expr as sx
from polyai.sparse.interop import described_once
from polyai.sparse.stands import Batch, LaidOut
from polyai.term.late import late

if TYPE_CHECKING:
    from polyai import explanation
    from polyai.calls import spread, warming
    from polyai.frontend import objects
    from polyai.frontend import prepared as in_trace
    from polyai.frontend.composites import ragged_calls, ragged_rows
    from polyai.frontend.composites.ragged_calls import Plan, RaggedCall
else:
    warming, spread = late("polyai.calls.warming"), late("polyai.calls.spread")
    ragged_calls, ragged_rows = late("polyai.frontend.composites.ragged_calls"), late("polyai.frontend.composites.ragged_rows")
    explanation = late("polyai.explanation")
    objects = late("polyai.frontend.objects")
    in_trace = late("polyai.frontend.prepared")

MAX_FAST = 8
"""How many native dispatchers one function tries before it looks a call up in Python."""

def _made_again(cls: type[Function], fn: Callable[..., Any], options: dict[str, Any]) -> Function:
    return cls(fn, **options)


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
        self._enter: Callable[..., Any] = self._slow  # for calls without keywords: the fast way, if there is one
        self._fast_for: set[Any] = set()
        self._made: list[Variant] = []
        self._broken: dict[Any, list[tuple[str, str, str]]] = {}
        self._lock = threading.RLock()
        self._expanded: dict[Any, Function] = {}
        self._plans: dict[Any, Plan] = {}
        self._spread: dict[Any, spread.Calls | None] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not kwargs:
            return self._enter(*args)
        if self._fast is not None and len(kwargs) == 1 and "out" in kwargs:
            return self._fast(*args, **kwargs)
        return self._slow(*args, **kwargs)

    def _go(self, fast: Callable[..., Any] | None) -> None:
        """From now on calls go this way."""
        self._fast, self._enter = fast, fast or self._slow

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
        if self._spread and out is None:
            found = spread.spread(self._fn, args, kwargs, self._static)
            with contextlib.suppress(TypeError):  # a static value that cannot be a key
                if found is not None and (calls := self._spread.get(found[0])) is not None:
                    return calls(found[1])
        return self._slowly(args, kwargs, out)

    def _slowly(self, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any = None, is_spread: bool = False) -> Any:
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
        if variant.takes(args, kwargs) and not is_spread and not any(isinstance(a, np.generic) for a in args):
            self._add_fast(variant, args, options)
        elif out is None:
            self._add_spread(variant, args, kwargs, options)
        return result

    def _with_prepared(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Function, tuple[Any, ...], dict[str, Any]]:
        """The function over the arrays of prepared matrices, and its arguments; the function itself if there are none."""
        if kwargs and any(isinstance(a, LaidOut) for a in kwargs.values()):
            args, kwargs = in_trace.by_position(self._fn, args, kwargs)
        flat: list[Any] = []
        codes: tuple[Any, ...] = ()
        for a in args:
            if isinstance(a, LaidOut):
                flat += a.arrays
                codes += (a.code,)
            else:
                flat.append(a)
                codes += (None,)
        if len(flat) == len(args) and codes.count(None) == len(codes):
            return self, args, kwargs
        function = self._expanded.get(codes)
        if function is None:
            made = in_trace.expanded(self._fn, codes)
            static = in_trace.static_names(self._fn, self._static)
            fresh = Function(made, name=self._name, static=static, dynamic=self._dynamic, where=self._where, policy=self._policy)
            function = self._expanded.setdefault(codes, fresh)
        return function, tuple(flat), kwargs

    def _ragged_in(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> RaggedCall | None:
        """The call taken apart if an argument is ragged, or holds something that is."""
        if not any(isinstance(a, Batch) or type(a) in (tuple, list, dict) for a in (*args, *kwargs.values())):
            return None
        return ragged_calls.found_in(args, kwargs, bool(self._static))

    def _with_ragged(self, given: RaggedCall, use: Callable[[Function, Any, Any], Any], finish: Callable[[Any, RaggedCall, Plan], Any]) -> Any:
        """`use` the function over the values and tables of ragged batches; `finish` puts together what comes back."""
        while True:
            plan = self._plans.get(given.key) or self._plans.setdefault(given.key, ragged_calls.Plan(given))
            key = (given.key, plan.tables)
            function = self._expanded.get(key)
            if function is None:
                static = in_trace.static_names(self._fn, self._static)
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
                self._go(make() or self._fast)
            else:
                self._go(self._soon(make, what))

    def _add_spread(self, variant: Variant, args: tuple[Any, ...], kwargs: dict[str, Any], options: Options) -> None:
        """Have later calls of this structure told by their leaves, from the second one on."""
        found = spread.spread(self._fn, args, kwargs, self._static)
        if found is None or len(self._spread) >= MAX_FAST:
            return
        structure, leaves = found
        try:
            if structure not in self._spread:
                self._spread[structure] = None
                return
        except TypeError:
            return
        calls = self._spread[structure] or spread.Calls(structure, variant.traced)
        active = ACTIVE.get()
        what = (id(variant), id(active), structure, tuple(map(type, leaves)))
        if not calls.holds or what in self._fast_for or len(self._fast_for) >= 2 * MAX_FAST:
            return

        def slow(*given: Any) -> Any:
            args, kwargs = calls.arguments(given)
            return self._slowly(args, kwargs, is_spread=True)

        with self._lock:
            self._fast_for.add(what)
            made = variant.dispatcher((*leaves, *calls.captured), calls.fast or slow, (ACTIVE, active), options, spread=True)
            if made is not None:
                calls.fast = made
                self._spread[structure] = calls

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
                    self._go(made[0] if made else None)
                if not made:
                    self._fast_for.discard(what)
            return ((made and made[0]) or self._slow)(*args, **kwargs)

        thread = in_background(run, "polyai-dispatch")
        return waiting

    def _add_bundled(self, function: Function, given: tuple[Any, ...], args: tuple[Any, ...]) -> None:
        """Put a native dispatcher for calls with prepared matrices, `given`, that hold the arguments `args` of `function`."""
        active = ACTIVE.get()
        what = (id(function), id(active), tuple(map(type, args)))
        if what in self._fast_for or len(self._fast_for) >= MAX_FAST or any(isinstance(a, LaidOut) and a.key is None for a in given):
            return
        options = current()
        bundles = tuple(Bundle(type(a), a.key, len(a.arrays)) if isinstance(a, LaidOut) and a.key is not None else None for a in given)
        with self._lock, described_once():
            self._fast_for.add(what)
            variant = function._variant(args, {}, options)
            self._go(variant.dispatcher(args, self._fast or self._slow, (ACTIVE, active), options, bundles) or self._fast)

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
                variant.specialiser.want(tuple((n, known[n], known[n]) for n in variant.specialiser.names), "warmed", special().compiled)
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

    def explain(self, *args: Any, **kwargs: Any) -> explanation.Explanation:
        """Every stage of the compilation for these arguments, or for specs. Compiles, does not run."""
        prepared = [a for a in (*args, *kwargs.values()) if isinstance(a, LaidOut)]
        if prepared:
            function, args, kwargs = self._with_prepared(args, kwargs)
            found = function.explain(*args, **kwargs)
            sections = [explanation.Section("prepared" + (f" {n + 1}" if n else ""), f"{a!r}\n{a.choice}", "summary") for n, a in enumerate(prepared)]
            return explanation.Explanation(found.title, (*sections, *found.sections))
        given = self._ragged_in(args, kwargs)
        if given is not None:
            shown: explanation.Explanation = self._with_ragged(given, lambda function, a, k: function.explain(*a, **k), lambda found, *_: found)
            return shown
        traced = self._trace(args, kwargs)
        explained: explanation.Explanation = compiler().explain_program(traced.program, cost_hints(traced.program, traced.hints), current(), traced.guards, traced.decided)
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

    def explain(self, *args: Any, **kwargs: Any) -> explanation.Explanation:
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


def policy(name: str, *, kernels: int = 8) -> options:
    """`with policy("learned"): ...`: sizes that occur often get kernels of their own, at most `kernels` for each general one.

    They are made by a helper process while calls go on, taken from the disk cache where it has them, and serve the sizes they were made
    for as soon as they are there. `name`: `exact`: each size; `pow2`, `pow2:64`: ranges that end at powers of two; `multiple:32`: ranges of
    32 sizes; `ranges:16,64,512`: ranges with these ends; `learned`: ranges chosen from the sizes seen so far; `none`.
    Raises OptionError for anything else. For one function: `jit(policy=...)`.
    """
    return options(policy=name, specialised_kernels=kernels)
