"""From a traced function and a kernel to a call: sizes, addresses, results, and the native dispatcher where a call is plain."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from polyai.calls.keys import cache_key, cost_hints, rounded
from polyai.calls.outcome import Outcome, along
from polyai.errors import DTypeError, PolyAIError, SparseStructureError
from polyai.frontend import tree
from polyai.frontend.traced import ArrayOut, Traced
from polyai.machine.cpu import host_key
from polyai.options import Options
from polyai.report import KernelReport
from polyai.runtime import staging
from polyai.runtime.arguments import Bundle
from polyai.runtime.bind import address, apart, input_array
from polyai.runtime.dispatch import calls_of, make_dispatcher, ticks_of
from polyai.runtime.kernel import Kernel, Parameter
from polyai.runtime.launch import Runtime
from polyai.scalar import dtype as dt
from polyai.scalar.dtype import to_numpy
from polyai.shapes.bucket import Never, Policy
from polyai.sparse import interop
from polyai.sparse.format import checks_its_order, merges_in_order
from polyai.tensor import nodes as tn
from polyai.tensor.bodies import size_symbols
from polyai.term.late import late

if TYPE_CHECKING:
    from polyai.calls import phased, plain, specialise
    from polyai.calls.specialise import Specialiser
    from polyai.runtime.helper import Helper
    from polyai.sparse import ordering, results
    from polyai.tensor.passes import library
else:
    specialise = late("polyai.calls.specialise")
    phased, plain = late("polyai.calls.phased"), late("polyai.calls.plain")
    ordering = late("polyai.sparse.ordering")
    results = late("polyai.sparse.results")
    library = late("polyai.tensor.passes.library")

Array = NDArray[Any]


class Variant:
    """The kernels of a function for one kind of arguments and one set of guards: one, or one for each phase."""

    def __init__(self, traced: Traced, kernels: tuple[Kernel, ...], runtime: Runtime) -> None:
        self.traced, self.kernels, self.runtime = traced, kernels, runtime
        self.is_phased = any(staging.plan_of(k) is not None for k in kernels)
        kernel = self.kernel = kernels[0] if len(kernels) == 1 and not self.is_phased else None
        self._types = {i.name: i.type for i in traced.program.inputs}
        self._types.update(tn.types_of(traced.program))
        self._library: list[list[str]] = [product for k in kernels for product in k.extra.get("library", [])]
        self._least_work = max((int(k.extra.get("least_work", library.WORK)) for k in kernels), default=0) if self._library else 0
        self._second: dict[str, str] = kernel.extra.get("aliases", {}) if kernel else {}
        regions = any(isinstance(s, (tn.Cond, tn.While)) for s in traced.program.body)
        formats = {i.name: i.type.format for i in traced.program.inputs}
        owned = {n for n, form in formats.items() if form is not None and form.owned}
        self._looked_through = {n for n in traced.needs_unique if n not in owned and (regions or not checks_its_order(formats[n]))}
        self.outcome = Outcome(traced, self._types, kernels, kernel, runtime)
        self.reason, self.origin, self.made_in = "", "none", 0.0
        self.served, self.ticks = 0, 0  # calls of the slow path, and the time of the kernel in them
        self.dispatchers: list[Callable[..., Any]] = []
        self.sources: dict[str, tuple[Any, ...]] = {}
        self.specialiser: Specialiser | None = None
        self.counted: Callable[[], tuple[Kernel, ...]] = lambda: kernels  # those that count a pattern before they fill it

    def specialise(self, policy: Policy, options: Options, helper: Helper) -> None:
        """From now on make kernels for the sizes that occur, as `policy` says."""
        if self.kernel is None or isinstance(policy, Never) or self.kernel.signature.externs:
            return
        known = {p.name for p in self.kernel.signature.parameters if p.rank is None} & size_symbols(self.traced.program)
        names = dict.fromkeys(s.symbol for s in self.traced.symbols if s.what == "extent" and s.symbol in known)
        if names:
            self.specialiser = specialise.Specialiser(self, tuple(names), policy, options, helper)

    @property
    def general(self) -> Kernel:
        """The kernel for all sizes."""
        assert self.kernel is not None
        return self.kernel

    @property
    def program(self) -> tn.Program:
        """What the kernel computes."""
        return self.traced.program

    @property
    def texts(self) -> Mapping[str, str]:
        """The user's names of sizes."""
        return self.traced.texts

    def total(self) -> tuple[int, float]:
        """Calls so far, and seconds in kernels."""
        ticks = self.ticks + sum(map(ticks_of, self.dispatchers))
        return self.served + sum(calls_of(d)[0] for d in self.dispatchers), self.runtime.seconds(ticks) if ticks else 0.0

    def key_for(self, program: tn.Program, hints: Mapping[str, int], options: Options) -> tuple[str, dict[str, int], str]:
        """The cache key of a specialised form of the program, its typical sizes, and the machine."""
        typical = cost_hints(program, {**self.traced.hints, **hints})
        return cache_key(program, typical, options, host_key()), typical, host_key()

    def reports(self) -> tuple[list[KernelReport], int]:
        """What became of the kernel and of its specialised forms, and how many calls were dispatched natively."""
        own, fast = self._report()
        special = self.specialiser.report() if self.specialiser is not None else []
        hits, seconds = own.hits - sum(s.hits for s in special), max(0.0, own.seconds - sum(s.seconds for s in special))
        return [dataclasses.replace(own, hits=hits, seconds=seconds), *special], fast

    def _report(self) -> tuple[KernelReport, int]:
        fast = sum(calls_of(d)[0] for d in self.dispatchers)
        ticks = self.ticks + sum(map(ticks_of, self.dispatchers))
        guards = ", ".join(dict.fromkeys(g.text for g in self.traced.guards if not g.why.endswith("of a ragged batch")))  # those hold always
        size = sum(len(k.code) for k in self.kernels)
        seconds = self.runtime.seconds(ticks) if ticks else 0.0
        name = self.traced.program.name
        chosen = (text if bound == text else f"{text} <= {bound}" for _, text, bound in self.traced.decided)
        serves = ", ".join((guards or "every size", *chosen))
        made = KernelReport(name, serves, self.reason, self.origin, self.made_in, size, self.served + fast, seconds)
        return made, fast

    @property
    def calls_a_library(self) -> bool:
        """Whether large products go to a library, which small ones of other calls should not."""
        return bool(self._library)

    def suits(self, values: Mapping[str, int]) -> bool:
        """Whether the products that go to a library are worth that at these sizes. Sizes that are no plain symbols count as large."""
        for product in self._library:
            extents = (int(e) if e.isdecimal() else rounded(values.get(e, library.WORK)) for e in product)  # as when it was chosen
            if not library.is_worth_a_call(extents, self._least_work):
                return False
        return True

    def run(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], options: Options, out: Any = None) -> Any:
        """Call the kernel. Raises what its checks find; nothing is computed if an argument does not fit."""
        given = self.traced.arguments(args, kwargs)
        values = {**self.traced.values(given), tn.THREADS: self._threads(options)}
        arrays, described = self._inputs(given)
        values.update((tn.nnz_of(n), described[n].nnz) for n in self.traced.merged if n in described)
        if self.is_phased:
            return self._run_phases(values, arrays, described, options, out)
        results = self.outcome.room(values, arrays, out)
        if self.kernel is not None:
            if out is not None:
                names = [n for n in arrays if arrays[n].size]
                safe = [arrays[n] for n in names]
                for result in results.values():
                    safe = apart(result, safe, self.runtime.stats)
                arrays.update(zip(names, safe))
            try:
                self._launch(values, arrays, results, options)
            except SparseStructureError:
                if not self._sort(described, arrays, values):
                    raise
                self._launch(values, arrays, results, options)
        self.served += 1
        if self.specialiser is not None:
            self.specialiser.observe(values)
        return self.outcome.finished(results, described, arrays, values, out)

    def _run_phases(self, values: dict[str, int], arrays: dict[str, Array], described: dict[str, interop.Described], options: Options, out: Any) -> Any:
        """Call the kernels of a program with sparse results of its own: their sizes are known once they are counted."""
        given = self.outcome.given_room(values, arrays, out)
        try:
            made = self._stage(arrays, values, given, options)
        except SparseStructureError:
            if not self._sort(described, arrays, values):
                raise
            made = self._stage(arrays, values, given, options)
        return self._phased(made, described, values, out)

    def _stage(self, arrays: Mapping[str, Array], values: dict[str, int], given: Mapping[str, Array], options: Options) -> dict[str, Array]:
        """Run all phases; with the arrays that they make. Patterns are counted where room for their bounds would be too large."""
        made = dict(arrays)
        values[tn.THREADS] = self._threads(options)
        try:
            staging.run(self.kernels, made, values, given, self._launcher(options), self.runtime.cuts, self.runtime.empty)
        except staging.LooseError:
            self.runtime.stats.count("counted_first")
            made = dict(arrays)
            staging.run(self.counted(), made, values, given, self._launcher(options), self.runtime.cuts, self.runtime.empty)
        return made

    def takes(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        """Whether the arguments are the program's inputs, one by one."""
        t = self.traced
        return not (kwargs or t.captured or t.statics) and [s.path for s in t.inputs] == [(n,) for n in range(len(args))]

    def is_plain(self) -> bool:
        """Whether nothing but types, formats and guards decides which kernels serve a call with the program's inputs as arguments."""
        t = self.traced
        leaf = t.out_tree.kind == "leaf"
        ordered = all(checks_its_order(self._types[name].format) for name in t.merged if name in self._types)  # others came to nothing
        return leaf and ordered and not (self._looked_through or self.calls_a_library)

    def _run_quickly(self, options: Options, given: Sequence[Any], described: Sequence[interop.Described], values: dict[str, int]) -> Any:
        """Call the kernels of a program with phases for arguments that were looked at."""
        made = self._stage(phased.arrays_of(self.traced.program.inputs, given, described), values, {}, options)
        return self._phased(made, {s.name: d for s, d in zip(self.traced.inputs, described)}, values)

    def _threads(self, options: Options) -> int:
        return options.num_threads or self.runtime.threads_for(self.runtime.options)

    def _launcher(self, options: Options) -> staging.Launch:
        """Launches one phase; its errors speak of the user's arguments."""

        def launch(kernel: Kernel, slots: Sequence[int], known: Mapping[str, int]) -> None:
            start = self.runtime.ticks()
            try:
                self.runtime.launch(kernel, slots, options.num_threads)
                self.ticks += self.runtime.ticks() - start
            except PolyAIError as error:
                raise type(error)(*(self._in_words(text, known) for text in (error.what, error.why, error.remedy))) from None

        return launch

    def _phased(self, made: Mapping[str, Array], described: Mapping[str, interop.Described], values: Mapping[str, int], out: Any = None) -> Any:
        self.served += 1
        return self.outcome.finished(made, described, made, values, out)

    # -- patterns that are assembled once

    def index_arrays(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Array]:
        """The index arrays of the sparse arguments by the names of kernels, borrowed."""
        arrays, _ = self._inputs(self.traced.arguments(args, kwargs))
        return {name: array for name, array in arrays.items() if re.search(r"\.(pos|crd)\d$", name)}

    def assembled(
        self, index: Mapping[str, Array], args: tuple[Any, ...], kwargs: Mapping[str, Any], options: Options
    ) -> tuple[dict[str, Array], dict[str, int]]:
        """Run all phases, with the arrays `index` in place of the arguments' own; the index arrays of the patterns that they made, and how
        much each stores."""
        given = self.traced.arguments(args, kwargs)
        values = self.traced.values(given)
        arrays, _ = self._inputs(given)
        made = self._stage({**arrays, **index}, values, {}, options)
        owners = {plan.counts for k in self.kernels if (plan := staging.plan_of(k)) is not None and plan.counts}
        kept = {name: array for name, array in made.items() if (found := re.fullmatch(r"(.+)\.(pos1|crd\d+)", name)) is not None and found[1] in owners}
        return kept, {tn.nnz_of(o): values[tn.nnz_of(o)] for o in owners}

    def run_again(
        self, kernels: tuple[Kernel, ...], kept: Mapping[str, Array], counts: Mapping[str, int], args: tuple[Any, ...], kwargs: Mapping[str, Any], options: Options
    ) -> Any:
        """New values along patterns that were assembled before, by the kernels made for that. `kept`: the index arrays of all patterns, which
        nobody can change: results share them."""
        given = self.traced.arguments(args, kwargs)
        values = {**self.traced.values(given), **counts, tn.THREADS: self._threads(options)}
        arrays, described = self._inputs(given)
        made = {**arrays, **kept}
        staging.run(kernels, made, values, {}, self._launcher(options), self.runtime.cuts, self.runtime.empty)
        return self._phased(made, described, values)

    # -- inputs

    def _inputs(self, given: Mapping[str, Any]) -> tuple[dict[str, Array], dict[str, interop.Described]]:
        arrays: dict[str, Array] = {}
        described: dict[str, interop.Described] = {}
        stats = self.runtime.stats
        for slot in self.traced.inputs:
            value, type_ = given[slot.name], self._types[slot.name]
            if type_.is_sparse:
                found = interop.describe(value)
                if found is None:
                    raise DTypeError(f"{slot.text} is no sparse matrix", f"it is a {type(value).__name__}", "pass a scipy.sparse array")
                if found.format != type_.format:
                    raise SparseStructureError(f"{slot.text} is stored as {found.format}", f"this kernel reads {type_.format}", "call it again")
                if found.dtype != type_.dtype:
                    raise DTypeError(f"{slot.text} holds {found.dtype.name}", f"this kernel reads {type_.dtype.name}", f"convert it: {slot.text}.astype(...)")
                if found.converted or slot.rows:
                    stats.count("conversions")
                if slot.name in self.traced.merged and not merges_in_order(type_.format):
                    tidy = ordering.summed(found)
                    if tidy is not None:
                        stats.count("copies")
                        value, found = tidy.holder, tidy
                if slot.name in self._looked_through and ordering.has_duplicates(found.holder):
                    raise _repeated(slot.text)
                described[slot.name] = found
                for suffix, array in interop.arrays_of(value, found).items():
                    arrays[f"{slot.name}.{suffix}"] = array
            elif slot.kind == "scalar":
                arrays[slot.name] = _scalar(value, type_.dtype, slot.text)
            else:
                arrays[slot.name] = input_array(value, type_.dtype.name, type_.rank, slot.text, stats)
        return arrays, described

    def _slot(self, p: Parameter, values: Mapping[str, int], arrays: Mapping[str, Array], results: Mapping[str, Array]) -> int:
        name = staging.first_name(p.name, self._second)
        if p.rank is None:
            return values[name]
        return address(results[p.name] if p.role == "output" else arrays[name])

    def _launch(self, values: Mapping[str, int], arrays: Mapping[str, Array], results: Mapping[str, Array], options: Options) -> None:
        assert self.kernel is not None
        slots = [self._slot(p, values, arrays, results) for p in self.kernel.signature.parameters]
        special = self.specialiser.special_for(values) if self.specialiser is not None else None
        kernel = self.kernel if special is None or special.kernel is None else special.kernel
        start = self.runtime.ticks()
        try:
            self.runtime.launch(kernel, slots, options.num_threads)
            spent = self.runtime.ticks() - start
            self.ticks += spent
            if special is not None:
                special.count(spent)
        except PolyAIError as error:
            raise type(error)(*(self._in_words(text, values) for text in (error.what, error.why, error.remedy))) from None

    def _in_words(self, text: str, values: Mapping[str, int]) -> str:
        """A kernel's message with arguments and sizes as the user spells them: `A_d1` becomes `A.shape[1] = 3`."""
        words = {slot.name: slot.text for slot in self.traced.inputs}
        words |= {s: f"{self.traced.texts.get(s, s)} = {n}" for s, n in values.items()}
        return re.sub(r"[^\W\d]\w*", lambda found: words.get(found[0], found[0]), text)

    def _sort(self, described: dict[str, interop.Described], arrays: dict[str, Array], values: dict[str, int]) -> bool:
        """Put sorted copies in place of the arrays of matrices whose order a kernel refused; False if their order is not the matter.

        Raises SparseStructureError for repeated coordinates, unless the matrix is merged with another: there they add up.
        """
        changed = False
        for slot in self.traced.inputs:
            if slot.name in self.traced.merged and slot.name not in self.traced.needs_unique:
                summed = ordering.summed(described[slot.name])
                if summed is not None:
                    described[slot.name] = summed
                    values[tn.nnz_of(slot.name)] = summed.nnz
                    arrays.update({f"{slot.name}.{s}": a for s, a in interop.arrays_of(summed.holder, summed).items()})
                    self.runtime.stats.count("copies")
                    changed = True
                continue
            if slot.name not in self.traced.needs_unique or not checks_its_order(self._types[slot.name].format):
                continue
            old = {s: arrays[f"{slot.name}.{s}"] for s in ("pos1", "crd1", "val")}
            new, repeats = ordering.sorted_fibres(described[slot.name], old)
            if repeats:
                raise _repeated(slot.text)
            if not np.array_equal(new["crd1"], old["crd1"]):
                arrays.update({f"{slot.name}.{s}": a for s, a in new.items()})
                self.runtime.stats.count("copies")
                changed = True
        return changed

    # -- the fast way

    def dispatcher(
        self,
        args: tuple[Any, ...],
        slow: Callable[..., Any],
        token: tuple[ContextVar[Any], object],
        options: Options,
        bundles: tuple[Bundle | None, ...] = (),
        spread: bool = False,
    ) -> Callable[..., Any] | None:
        """A native function for calls like this one; None if the call is not plain enough. With `bundles`: for calls whose arguments
        hold `args`. With `spread`: for calls with the program's inputs as arguments, `args`, wherever the user's call has them."""
        traced, kernel = self.traced, self.kernel
        if not spread and not self.takes(args, {}):
            return None
        if bundles and (self.is_phased or self.specialiser is not None):
            return None
        if any(isinstance(o, ArrayOut) and o.fill != 0 for o in traced.outputs) or any(f is not None and f.fill_value != 0 for t in self._types.values() if (f := t.format)):
            return None
        if self.is_phased:
            return phased.quick(self, args, functools.partial(self._run_quickly, options), slow, token, self._threads(options))
        if kernel is None or self.calls_a_library or self._looked_through:
            return None
        if any(s.rows for s in traced.inputs):  # converted at each call
            return None
        names = self.outcome.names
        if not names:
            return None
        if any(not isinstance(o, ArrayOut) for o in traced.outputs) or any(not {n, f"{n}.val"} & self.outcome.written for n in names):
            return None
        type_ = self._types[names[0]]
        if (bundles or len(names) > 1 or traced.out_tree != tree.LEAF) and any(self._types[n].pattern is not None for n in names):
            return None
        sources = plain.Sources(traced, self._types, args, kernel, names)
        spec = sources.spec()
        if spec is None:
            return None
        finish = self.outcome.finisher()
        if type_.pattern is not None:
            owner = sources.position.get(type_.pattern.owner)
            if owner is None or type_.pattern.dims != tuple(range(type_.rank)):
                return None
            finish = functools.partial(along, owner, self.outcome.looks_at_indices(type_.pattern.owner))
        self.sources = sources.symbols
        watched = tuple(sources.symbols[n] for n in self.specialiser.names) if self.specialiser is not None else ()
        spec = dataclasses.replace(spec, watched=watched, bundles=bundles)
        made = make_dispatcher(
            spec, kernel, self.runtime, slow, finish=finish, token=token, threads=options.num_threads, review=specialise.FIRST_REVIEW if watched else 0
        )
        self.dispatchers.append(made)
        if self.specialiser is not None:
            self.specialiser.equip(made)
        return made


def _repeated(text: str) -> SparseStructureError:
    return SparseStructureError(
        f"{text} stores a coordinate more than once",
        "what is computed along its pattern is not linear in the stored values, so repeated entries would be wrong",
        f"call {text}.sum_duplicates() first",
    )


def _scalar(value: Any, dtype: dt.DType, text: str) -> Array:
    try:
        return np.array(value, dtype=to_numpy(dtype))
    except OverflowError:
        raise DTypeError(f"{text} = {value} does not fit in {dtype}", "Python integers become i64", "pass a float") from None
