"""From a traced function and a kernel to a call: sizes, addresses, results, and the native dispatcher where a call is plain."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from polyai import phased
from polyai.errors import DTypeError, PolyAIError, ShapeError, SparseStructureError
from polyai.frontend.trace import ArrayOut, Traced
from polyai.machine.capacity import installed_memory
from polyai.machine.cpu import host_key
from polyai.options import Options
from polyai.plain import Sources
from polyai.report import KernelReport
from polyai.runtime import staging
from polyai.runtime.arguments import Bundle
from polyai.runtime.bind import address, apart, input_array, no_overlap, output_array
from polyai.runtime.dispatch import calls_of, make_dispatcher, ticks_of
from polyai.runtime.kernel import Kernel, Parameter
from polyai.runtime.launch import Runtime
from polyai.scalar import dtype as dt
from polyai.scalar.dtype import to_numpy
from polyai.shapes import expr as sx
from polyai.shapes.bucket import Never, Policy
from polyai.shapes.expr import Size
from polyai.sparse import interop, ordering, results
from polyai.sparse.format import Format, shared, with_fill
from polyai.sparse.storage import Storage
from polyai.sparse.tensor import SparseArray
from polyai.tensor import nodes as tn
from polyai.tensor.bodies import size_symbols
from polyai.tensor.passes import library
from polyai.term.digest import digest
from polyai.term.late import late

if TYPE_CHECKING:
    from polyai import specialise
    from polyai.runtime.helper import Helper
    from polyai.specialise import Specialiser
else:
    specialise = late("polyai.specialise")

Array = NDArray[Any]


@lru_cache(maxsize=1)
def compiler_stamp() -> str:
    """Changes whenever a file of the compiler does, so that code made by another version is never taken from the cache."""
    lines: list[str] = []
    folders = [("", os.path.dirname(__file__))]
    for name, folder in folders:  # grows while it is walked
        with os.scandir(folder) as found:
            for entry in found:
                if entry.name.endswith(".py"):
                    about = entry.stat()
                    lines.append(f"{name}/{entry.name} {about.st_mtime_ns} {about.st_size}")
                elif entry.is_dir() and entry.name != "__pycache__":
                    folders.append((f"{name}/{entry.name}", entry.path))
    return digest("\n".join(sorted(lines)))


@lru_cache(maxsize=1)
def compiler_contents() -> str:
    """Changes whenever the text of a file of the compiler does: the same in every installation of one version."""
    root = Path(__file__).parent
    return digest(tuple((str(path.relative_to(root)), path.read_bytes()) for path in sorted(root.rglob("*.py"))))


def rounded(value: int) -> int:
    """A typical size as costs see it: exact below 65, else the next power of two. Equal roundings give equal code."""
    return value if value <= 64 else 1 << (value - 1).bit_length()


TYPICAL, TYPICAL_ROW = 1024, 64
"""How many rows and elements a ragged batch is taken to have at least, and how many elements one of its rows."""


def cost_hints(program: tn.Program, hints: Mapping[str, int]) -> dict[str, int]:
    """Rounded sizes by symbol, and the mean fibre length of compressed levels by its name in schedules (`A_len1`).

    Ragged batches differ from call to call, so the first one does not say that they are small."""
    out = {name: rounded(value) for name, value in hints.items()}
    for given in program.inputs:
        if given.type.format is not None and given.type.is_sparse:
            lengths = dict(_fibre_lengths(given, given.type.format, hints))
            if given.type.format.name in ("ragged", "runs"):
                names = {s for e in given.type.shape for s in sx.symbols(e)} & out.keys()
                out.update((s, max(out[s], TYPICAL)) for s in (*names, tn.nnz_of(given.name)) if s in out)
                lengths = {name: max(length, TYPICAL_ROW) for name, length in lengths.items()}
            out.update(lengths)
    return out


def _fibre_lengths(given: tn.Input, form: Format, hints: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    """The mean length of the fibres of each compressed level, as far as the sizes above it are known."""
    parents = 1
    for number, (level, extent) in enumerate(zip(form.levels, form.level_extents(given.type.shape))):
        if level.full:
            if not sx.symbols(extent) <= hints.keys():
                return
            parents *= sx.evaluate(extent, hints)
        elif level.name == "compressed":
            count = hints.get(f"{tn.nnz_of(given.name)}{number if number in form.counted else ''}")
            if count is None:
                return
            yield f"{given.name}_len{number}", rounded(-(-count // max(1, parents)))
            parents = count
        elif not level.branchless:
            return


def cache_key(program: tn.Program, hints: Mapping[str, int], options: Options, host: str) -> str:
    """Everything that may change the code, in one place. It starts with what says which compiler made it; see `runtime.archive`."""
    chosen = (options.vector_bits or 0, options.scheduler, options.blas)
    return f"{compiler_stamp()}-{digest(host, program, tuple(sorted(hints.items())), chosen)}"


class Variant:
    """The kernels of a function for one kind of arguments and one set of guards: one, or one for each phase."""

    def __init__(self, traced: Traced, kernels: tuple[Kernel, ...], runtime: Runtime) -> None:
        self.traced, self.kernels, self.runtime = traced, kernels, runtime
        self.is_phased = any(staging.plan_of(k) is not None for k in kernels)
        kernel = self.kernel = kernels[0] if len(kernels) == 1 and not self.is_phased else None
        self._types = {i.name: i.type for i in traced.program.inputs}
        self._types.update(tn.types_of(traced.program))
        self._outputs = traced.program.outputs
        self._library: list[list[str]] = [product for k in kernels for product in k.extra.get("library", [])]
        self._least_work = max((int(k.extra.get("least_work", library.WORK)) for k in kernels), default=library.WORK)
        self._second: dict[str, str] = kernel.extra.get("aliases", {}) if kernel else {}
        regions = any(isinstance(s, (tn.Cond, tn.While)) for s in traced.program.body)
        formats = {i.name: i.type.format for i in traced.program.inputs}
        owned = {n for n, form in formats.items() if form is not None and form.owned}
        self._looked_through = {n for n in traced.needs_unique if n not in owned and (regions or not checks_its_order(formats[n]))}
        self._written = {p.name for k in kernels for p in k.signature.parameters if p.role == "output"}
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
        results = self._results(values, arrays, out)
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
        finished = [self._finish(name, results, described, arrays, values) for name in self._outputs]
        self._give(out, finished)
        return self.traced.rebuild([self._wrapped(o, finished) for o in self._ordered()], values)

    def _run_phases(self, values: dict[str, int], arrays: dict[str, Array], described: dict[str, interop.Described], options: Options, out: Any) -> Any:
        """Call the kernels of a program with sparse results of its own: their sizes are known once they are counted."""
        given = self._out_arrays(values, arrays, out)
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

    def is_plain(self) -> bool:
        """Whether nothing but types, formats and guards decides which kernels serve a call."""
        t = self.traced
        leaf = t.out_tree.kind == "leaf"
        ordered = all(checks_its_order(self._types[name].format) for name in t.merged if name in self._types)  # others came to nothing
        return leaf and ordered and not (t.captured or t.statics or self._looked_through or self.calls_a_library)

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
        finished = [self._finish(name, made, described, made, values) for name in self._outputs]
        self._give(out, finished)
        return self.traced.rebuild([self._wrapped(o, finished) for o in self._ordered()], values)

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

    def _out_arrays(self, values: Mapping[str, int], arrays: dict[str, Array], out: Any) -> dict[str, Array]:
        """The arrays of `out=` by output; arguments that share memory with one are replaced by copies."""
        if out is None:
            return {}
        given: dict[str, Array] = {}
        for name, array in zip(self._outputs, self._given_outputs(out)):
            type_ = self._types[name]
            if type_.pattern is not None:
                raise ShapeError("out cannot receive a sparse result", f"{name} is sparse", "leave out= away")
            if any(not sx.symbols(e).isdisjoint(n for n, *_ in self.traced.decided) for e in type_.shape):
                raise ShapeError(f"out cannot receive {name}, whose size data decide", "it is known once the call has counted", "leave out= away")
            given[name] = output_array(array, type_.dtype.name, self._shape(type_.shape, values))
        no_overlap(list(given.values()))
        names = [n for n in arrays if arrays[n].size]
        safe = [arrays[n] for n in names]
        for result in given.values():
            safe = apart(result, safe, self.runtime.stats)
        arrays.update(zip(names, safe))
        return given

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

    # -- results

    def _shape(self, shape: tuple[Size, ...], values: Mapping[str, int]) -> tuple[int, ...]:
        return tuple(e if isinstance(e, int) else sx.evaluate(e, values) for e in shape)

    def _results(self, values: Mapping[str, int], arrays: Mapping[str, Array], out: Any) -> dict[str, Array]:
        results: dict[str, Array] = {}
        wanted = dict(zip(self._outputs, self._given_outputs(out))) if out is not None else {}
        for name in self._outputs:
            type_ = self._types[name]
            written = name if name in self._written else f"{name}.val"
            if written not in self._written:
                continue
            if type_.pattern is not None:
                shape: tuple[int, ...] = arrays[f"{type_.pattern.owner}.val"].shape
            else:
                shape = self._shape(type_.shape, values)
            if name in wanted:
                if type_.pattern is not None:
                    raise ShapeError("out cannot receive a sparse result", f"{name} is sparse", "leave out= away")
                results[written] = output_array(wanted[name], type_.dtype.name, shape)
            else:
                _affordable(name, type_.dtype.bytes, shape)
                results[written] = self.runtime.empty(tuple(shape), to_numpy(type_.dtype))
        no_overlap(list(results.values()) if out is not None else [])
        return results

    def _given_outputs(self, out: Any) -> Sequence[Any]:
        first: dict[int, Any] = {}
        for position, array in self._places(out):
            first.setdefault(position, array)
        return [first[n] for n in range(len(self._outputs))]

    def _places(self, out: Any) -> list[tuple[int, Any]]:
        """The arrays of `out=`, each with the number of its result: one for each result, or for each place where one is returned."""
        given = out if isinstance(out, (tuple, list)) else (out,)
        returned = [o.position for o in self.traced.outputs if isinstance(o, ArrayOut)]
        places = range(len(self._outputs)) if len(given) == len(self._outputs) else returned
        if len(given) != len(places):
            raise ShapeError(f"out has {len(given)} arrays", f"the function has {len(self._outputs)} results", "pass one array per result")
        return list(zip(places, given))

    def _give(self, out: Any, finished: list[Any]) -> None:
        """Copy what no kernel wrote to the arrays of `out=`: arguments that are returned, and results that are returned twice."""
        for position, array in () if out is None else self._places(out):
            value, type_ = finished[position], self._types[self._outputs[position]]
            if type_.pattern is not None:
                raise ShapeError("out cannot receive a sparse result", f"{self._outputs[position]} is sparse", "leave out= away")
            if array is not value:
                np.copyto(output_array(array, type_.dtype.name, value.shape), value)
                finished[position] = array

    def _finish(
        self, name: str, results: Mapping[str, Array], described: Mapping[str, interop.Described], arrays: Mapping[str, Array], values: Mapping[str, int]
    ) -> Any:
        type_ = self._types[name]
        found = results.get(name, results.get(f"{name}.val"))
        if type_.pattern is None:
            return found if found is not None else arrays[name].copy()
        owner = described.get(type_.pattern.owner)
        if owner is None:
            return self._assembled(name, arrays, values, described)
        if not self._looks_at_indices(type_.pattern.owner):
            interop.validate_fully(owner.holder)
        stored = found.reshape(arrays[f"{type_.pattern.owner}.val"].shape) if found is not None else arrays[f"{name}.val"].copy()
        if owner.kind == "storage":
            made = interop.with_values(owner.holder, stored, type_.pattern.dims)
            if any(slot.rows == "scipy" and slot.name == type_.pattern.owner for slot in self.traced.inputs):
                return interop.listed(made)
            return SparseArray(made.format, made.shape, made.arrays) if isinstance(made, Storage) else made
        prefix = f"{type_.pattern.owner}."
        parts = {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix) and n != f"{prefix}val"}
        kind, shape = owner.kind, owner.shape
        if type_.pattern.dims != tuple(range(len(shape))):
            shape = tuple(shape[d] for d in type_.pattern.dims)
            if kind == "bsr":  # SciPy has no blocks by columns
                self.runtime.stats.count("conversions")
                return interop.result(kind, owner.shape, {**parts, "val": stored}, like=owner.holder).T.tobsr()
            if kind == "dia":  # diagonals are cut off at columns: SciPy shifts them
                return interop.result(kind, owner.shape, {**parts, "val": stored}, like=owner.holder).T
            kind = {"csr": "csc", "csc": "csr"}.get(kind, kind)
            if kind == "coo":
                parts |= {f"crd{n}": parts[f"crd{d}"] for n, d in enumerate(type_.pattern.dims)}
        return interop.result(kind, shape, {**parts, "val": stored}, like=owner.holder)

    def _assembled(self, name: str, arrays: Mapping[str, Array], values: Mapping[str, int], described: Mapping[str, interop.Described]) -> Any:
        """A result along a pattern that the kernels made."""
        pattern = self._types[name].pattern
        assert pattern is not None
        made = self._types[pattern.owner]
        assert made.format is not None
        stored = arrays[name] if name in arrays else arrays[f"{name}.val"]
        if made.format.tail:
            parts = {part: arrays[f"{pattern.owner}.{part}"] for part in ("pos1", "crd1")}
            return SparseArray.around(shared(made.format), self._shape(self._types[name].shape, values), {**parts, "val": stored.reshape(-1)})
        if made.format.rank > 2:
            return self._listed(name, made.format, arrays, values, described)
        turned = pattern.dims != (0, 1)
        kind = {"csr": "csc", "csc": "csr"}[made.format.name] if turned else made.format.name
        parts = {"pos1": arrays[f"{pattern.owner}.pos1"], "crd1": arrays[f"{pattern.owner}.crd1"], "val": stored}
        shape = self._shape(self._types[name].shape, values)
        matrix = any(isinstance(o, ArrayOut) and self._outputs[o.position] == name and o.is_matrix for o in self.traced.outputs)
        return results.made(kind, shape, parts, matrix, tidy=True)

    def _listed(self, name: str, form: Format, arrays: Mapping[str, Array], values: Mapping[str, int], described: Mapping[str, interop.Described]) -> Any:
        """A result of more than two dimensions: a SparseArray, or SciPy's COO if all sparse arguments are SciPy's."""
        pattern = self._types[name].pattern
        assert pattern is not None
        parts = {part: arrays[f"{pattern.owner}.{part}"] for part in ("pos1", *(f"crd{n}" for n in range(1, form.rank)))}
        turned = dataclasses.replace(form, order=tuple(pattern.dims.index(d) for d in form.order))
        storage = Storage(turned, self._shape(self._types[name].shape, values), {**parts, "val": arrays[name] if name in arrays else arrays[f"{name}.val"]})
        given = {slot.name: slot.rows for slot in self.traced.inputs}
        from_scipy = all(found.kind == "coo" or given[argument] == "scipy" for argument, found in described.items() if len(found.shape) > 2)
        return interop.listed(storage) if from_scipy else SparseArray.around(shared(storage.format), storage.shape, storage.arrays)

    def _looks_at_indices(self, owner: str) -> bool:
        """Whether the kernel checks every coordinate of `owner`. It checks what it uses; a result along a pattern holds all."""
        sites = self.kernel.signature.sites if self.kernel is not None else ()
        arrays = 1 if checks_its_order(self._types[owner].format) else self._types[owner].rank
        return sum(f"index {{value}} of {owner} is outside" in s.what for s in sites) >= arrays

    def _ordered(self) -> list[ArrayOut]:
        found: dict[int, ArrayOut] = {}
        for o in self.traced.outputs:
            if isinstance(o, ArrayOut):
                found.setdefault(o.position, o)
        return [found[n] for n in range(len(self._outputs))]

    def _wrapped(self, o: ArrayOut, finished: Sequence[Any]) -> Any:
        value = finished[o.position]
        if isinstance(value, np.ndarray) and value.ndim == 0:
            return value[()]
        if o.fill != 0 or (isinstance(value, SparseArray) and value.format.fill_value != o.fill):
            storage = interop.storage_of(value)
            return SparseArray.around(with_fill(storage.format, o.fill), storage.shape, storage.arrays)
        return value

    # -- the fast way

    def dispatcher(
        self,
        args: tuple[Any, ...],
        slow: Callable[..., Any],
        token: tuple[ContextVar[Any], object],
        options: Options,
        bundles: tuple[Bundle | None, ...] = (),
    ) -> Callable[..., Any] | None:
        """A native function for calls like this one; None if the call is not plain enough. With `bundles`: for calls whose arguments
        hold `args`."""
        traced, kernel = self.traced, self.kernel
        if bundles and (self.is_phased or self.specialiser is not None):
            return None
        if any(isinstance(o, ArrayOut) and o.fill != 0 for o in traced.outputs) or any(f is not None and f.fill_value != 0 for t in self._types.values() if (f := t.format)):
            return None
        if self.is_phased:
            return phased.quick(self, args, functools.partial(self._run_quickly, options), slow, token, self._threads(options))
        if kernel is None or self.calls_a_library or traced.captured or traced.statics or self._looked_through:
            return None
        if any(s.rows for s in traced.inputs):  # converted at each call
            return None
        if [s.path for s in traced.inputs] != [(n,) for n in range(len(args))] or traced.out_tree.kind != "leaf":
            return None
        if len(self._outputs) != 1 or not isinstance(traced.outputs[0], ArrayOut):
            return None
        type_ = self._types[self._outputs[0]]
        if not type_.shape or not {self._outputs[0], f"{self._outputs[0]}.val"} & self._written:
            return None
        sources = Sources(traced, self._types, args, kernel, self._outputs[0])
        spec = sources.spec()
        if spec is None:
            return None
        finish = None
        if bundles and type_.pattern is not None:
            return None
        if type_.pattern is not None:
            owner = sources.position.get(type_.pattern.owner)
            if owner is None or type_.pattern.dims != tuple(range(type_.rank)):
                return None
            finish = functools.partial(_along, owner, self._looks_at_indices(type_.pattern.owner))
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


def _along(owner: int, checked: bool, values: Array, *args: Any) -> Any:
    """The result of a call whose values lie along the pattern of the argument `owner`."""
    if not checked:
        interop.validate_fully(args[owner])
    return interop.with_values(args[owner], values)


def checks_its_order(format: Format | None) -> bool:
    """Whether kernels check, fibre by fibre, that the coordinates of this format ascend strictly."""
    if format is None or len(format.levels) < 2:
        return False
    first, second, *rest = format.levels
    return first.full and second.name == "compressed" and all(level.full for level in rest)


def merges_in_order(format: Format | None) -> bool:
    """Whether merges check, as they walk this format, that its coordinates ascend strictly."""
    return checks_its_order(format) or (format is not None and format.rank > 2 and format.merged == 1)


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


def _affordable(name: str, item: int, shape: tuple[int, ...]) -> None:
    """Raise before a result is allocated that is larger than all memory: some systems give the addresses, and end the process later."""
    total = item * math.prod(shape)
    if total > installed_memory():
        have = f"its shape is {shape}, and this process can have {installed_memory():,} bytes at most"
        raise ShapeError(f"the result {name} would take {total:,} bytes", have, "work on a part of it")
