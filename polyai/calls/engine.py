"""From a trace to its kernels: from memory, from the cache on disk, or compiled now.

The process keeps one Runtime per cache directory; the compiler itself is imported only when something has to be compiled.
"""

from __future__ import annotations

import functools
import importlib
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from polyai.calls.binding import Variant
from polyai.calls.keys import cache_key, cost_hints
from polyai.frontend.traced import Traced
from polyai.machine.cpu import host_key
from polyai.options import Options, current
from polyai.report import Report
from polyai.runtime import staging
from polyai.runtime.kernel import Kernel
from polyai.runtime.launch import Runtime
from polyai.shapes.bucket import Never, parse
from polyai.term.collector import paused
from polyai.term.late import late

if TYPE_CHECKING:
    from polyai.calls import specialise
    from polyai.runtime import helper
    from polyai.runtime.helper import Helper
else:
    specialise, helper = late("polyai.calls.specialise"), late("polyai.runtime.helper")

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


def compiler() -> Any:
    """The compiler, imported when the first kernel has to be made."""
    return importlib.import_module("polyai.pipeline")


def special() -> Any:
    """The compiler of specialised kernels."""
    return importlib.import_module("polyai.calls.special")


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
                made_by = compiler()  # first: two threads that import take turns at every file
                engine.prepare()
                kernels, origin = made_by.compile_kernels(traced.program, hints, options, key, engine), "compiled"
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
                made: tuple[Kernel, ...] = compiler().compile_kernels(traced.program, hints, options, key, engine, how=how)
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
