"""The whole compiler on one screen: a tuple of named stages from mathematics to object code.

Each stage takes a `Build` and returns one with more filled in. Stop after any stage (`until`), look at each (`watch`), print
any (`Stage.show`), check any (`Stage.verify`), interpret any level (`tensor.interp`, `poly.interp`, `loop.interp`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from polyai.errors import VerifyError
from polyai.loop import nodes as lp
from polyai.loop.passes.order import lower_loops
from polyai.lower import assemble, poly_to_loop, tensor_to_poly
from polyai.machine import emit, jit
from polyai.machine.cpu import Target, host
from polyai.options import Options
from polyai.poly import nodes as pl
from polyai.poly.passes import contract, schedule
from polyai.runtime import staging
from polyai.runtime.kernel import Kernel, signature_of
from polyai.runtime.launch import Runtime
from polyai.runtime.shared import in_background
from polyai.shapes import expr as sizes_expr
from polyai.tensor import nodes as tn
from polyai.tensor import verify as tensor_verify
from polyai.tensor.passes import (
    blocks,
    canonical,
    factor,
    fold,
    fuse,
    library,
    located,
    merges,
    padding,
    phases,
    reassociate,
    restrict,
    sift,
    walks,
)
from polyai.term.late import late
from polyai.term.node import node, walk

if TYPE_CHECKING:
    from polyai import explanation
    from polyai.loop import memory as loop_memory
    from polyai.loop import show as loop_show
    from polyai.loop import verify as loop_verify
    from polyai.poly import show as poly_show
    from polyai.poly import verify as poly_verify
    from polyai.tensor import cost as tensor_costs
    from polyai.tensor import show as tensor_show
else:
    loop_show, loop_verify = late("polyai.loop.show"), late("polyai.loop.verify")
    poly_show, poly_verify = late("polyai.poly.show"), late("polyai.poly.verify")
    explanation = late("polyai.explanation")
    loop_memory = late("polyai.loop.memory")
    tensor_costs = late("polyai.tensor.cost")
    tensor_show = late("polyai.tensor.show")


@node
class Build:
    """One compilation so far. `sizes` are typical values of symbols, for costs only: code never depends on them for its
    correctness. `scops` has one entry per straight segment of the program, in order. `aliases`: second names of arguments.
    `how`: how patterns are assembled, one of `phases.HOW`. `refit`: nobody waits, so loops may have more versions. `phases`: where a sparse result must be counted or bounded before it is stored,
    the builds of the program's parts; what comes after the mathematics is then in these."""

    program: tn.Program
    sizes: tuple[tuple[str, int], ...]
    options: Options
    target: Target
    scops: tuple[pl.Scop, ...] = ()
    kernel: lp.Kernel | None = None
    ir: str = ""
    code: bytes = b""
    notes: tuple[str, ...] = ()
    aliases: tuple[tuple[str, str], ...] = ()
    phase: phases.Phase | None = None
    how: str = "packed"
    refit: bool = False
    phases: tuple[Build, ...] = ()

    @property
    def parts(self) -> tuple[Build, ...]:
        """The builds that hold kernels: the phases, or this one."""
        return self.phases or (self,)

    @property
    def hints(self) -> Mapping[str, int]:
        return dict(self.sizes)

    @property
    def loops(self) -> lp.Kernel:
        if self.kernel is None:
            raise VerifyError("the stage loops has not run")
        return self.kernel


@node
class Stage:
    """A named step of the compiler; `form` is the level its result is shown and verified at."""

    name: str
    form: str
    run: Callable[[Build], Build]

    def show(self, build: Build) -> str:
        """The result of this stage as text."""
        return _SHOW[self.form](build)

    def verify(self, build: Build) -> None:
        """Raise VerifyError if the result of this stage is malformed."""
        _VERIFY[self.form](build)


@node
class Timing:
    """How long a stage took, in milliseconds."""

    stage: str
    milliseconds: float


def _program(step: Callable[[Build], tn.Program]) -> Callable[[Build], Build]:
    return lambda build: replace(build, program=step(build))


def _library(build: Build) -> Build:
    program = library.run(build.program, build.hints, build.options.blas, library.least_work(build.target.vector_bits))
    given = [s for s in program.body if isinstance(s, tn.Extern)]
    notes = tuple(f"{', '.join(s.targets)}: handed to the library function {s.function}" for s in given)
    return replace(build, program=program, notes=(*build.notes, *notes))


def _walks(build: Build) -> Build:
    program, aliases = walks.run(build.program)
    return replace(build, program=program, aliases=(*build.aliases, *aliases))


def _sift(build: Build) -> Build:
    program = sift.run(build.program)
    left = {name for step in program.body for name in tn.targets_of(step)}
    gone = (s.target for s in build.program.body if isinstance(s, tn.Scatter) and tn.pushes(s) and s.target not in left)
    return replace(build, program=program, notes=(*build.notes, *(f"{name}: only reduced, so what is selected is not stored" for name in gone)))


def _statements(build: Build) -> Build:
    return replace(build, scops=tuple(tensor_to_poly.lower(part) for part in assemble.segments(build.program)))


def _schedule(build: Build) -> Build:
    scops, notes = [], list(build.notes)
    for scop in build.scops:
        scheduled, decisions = schedule.scheduled(scop, build.hints, scheduler=build.options.scheduler, vector_bytes=build.target.vector_bits // 8)
        scops.append(scheduled)
        notes += decisions
    return replace(build, scops=tuple(scops), notes=tuple(notes))


def _contract(build: Build) -> Build:
    return replace(build, scops=tuple(contract.run(scop) for scop in build.scops))


def _loops(build: Build) -> Build:
    return replace(build, kernel=assemble.assemble(build.program, build.scops, partial(poly_to_loop.lower, hints=build.hints)))


def _tidy(build: Build) -> Build:
    notes: list[str] = []
    near = frozenset(f"{i.name}.crd{n}" for i in build.program.inputs if i.type.format is not None and i.type.format.near for n in range(len(i.type.format.levels)))
    lists = tuple(tuple(f"{i.name}.crd{n}" for n in i.type.format.lists) for i in build.program.inputs if i.type.format is not None and i.type.format.lists)
    kernel = lower_loops(build.loops, build.target.vector_bits, build.target.registers, notes, build.hints, near, lists, build.refit)
    return replace(build, kernel=kernel, notes=(*build.notes, *notes))


def _code(build: Build) -> Build:
    kernel = replace(build.loops, name=f"pa.{build.loops.name}")  # a function called sin must not hide the library's
    return replace(build, kernel=kernel, ir=emit.emit(kernel, build.target))


STAGES: tuple[Stage, ...] = (
    Stage("fold", "tensor", _program(lambda b: fold.run(b.program))),
    Stage("factor", "tensor", _program(lambda b: factor.run(b.program))),
    Stage("canonical", "tensor", _program(lambda b: canonical.run(b.program))),
    Stage("restrict", "tensor", _program(lambda b: restrict.run(b.program))),
    Stage("reassociate", "tensor", _program(lambda b: reassociate.run(b.program, b.hints))),
    Stage("fuse", "tensor", _program(lambda b: fuse.run(b.program))),
    Stage("merges", "tensor", _program(lambda b: merges.run(b.program))),
    Stage("sift", "tensor", _sift),
    Stage("located", "tensor", _program(lambda b: located.run(b.program) if b.how == "packed" else b.program)),
    Stage("library", "tensor", _library),
    Stage("walks", "tensor", _walks),
    Stage("padding", "tensor", _program(lambda b: padding.run(b.program))),
    Stage("blocks", "tensor", _program(lambda b: blocks.run(b.program))),
    Stage("statements", "poly", _statements),
    Stage("schedule", "poly", _schedule),
    Stage("contract", "poly", _contract),
    Stage("loops", "loop", _loops),
    Stage("tidy", "loop", _tidy),
    Stage("code", "llvm", _code),
    Stage("object", "object", lambda b: replace(b, code=jit.compile_object(b.ir, b.target, in_background))),
)

FIRST_OF_A_PHASE = "walks"
"""The stage at which a program that has phases goes on in each of them."""


def _verify_scops(build: Build) -> None:
    for scop in build.scops:
        poly_verify.verify(scop)


_SHOW: dict[str, Callable[[Build], str]] = {
    "tensor": lambda b: tensor_show.show(b.program),
    "poly": lambda b: "\n".join(map(poly_show.show, b.scops)),
    "loop": lambda b: loop_show.show(b.loops),
    "llvm": lambda b: b.ir,
    "object": lambda b: jit.assembly(b.ir, b.target),
}

_VERIFY: dict[str, Callable[[Build], None]] = {
    "tensor": lambda b: tensor_verify.verify(b.program),
    "poly": _verify_scops,
    "loop": lambda b: loop_verify.verify(b.loops),
    "llvm": lambda b: None,  # LLVM's own verifier runs in the next stage
    "object": lambda b: None,
}


def target_for(options: Options) -> Target:
    """The host, with narrower vectors if the options ask for them."""
    target = host()
    return target if options.vector_bits is None else replace(target, vector_bits=min(options.vector_bits, target.vector_bits))


def compile_kernels(
    program: tn.Program, sizes: Mapping[str, int], options: Options, key: str, runtime: Runtime, *, how: str = "packed"
) -> tuple[Kernel, ...]:
    """Compile a program and hand its code to the runtime: its one kernel under `key`, later phases under keys that follow from it."""
    build = compile_program(program, sizes, options, target_for(options), verify=options.verify, how=how)
    found = any(isinstance(s.source, pl.Located) for part in build.parts for scop in part.scops for s in scop.streams)
    out = []
    for number, part in reversed(list(enumerate(build.parts))):  # the first comes last: whoever finds it finds all
        parallel = any(isinstance(n, lp.For) and n.kind is lp.Kind.PARALLEL for n in walk(part.loops.body))
        extra: dict[str, object] = {
            "library": [[sizes_expr.show(e) for e in product] for product in library.products(part.program)],
            "least_work": library.least_work(build.target.vector_bits),
            "aliases": dict(part.aliases),
            "located": found,
        }
        if part.phase is not None:
            types = {**tn.types_of(build.program), **tn.types_of(part.phase.program)}
            if part.phase.type is not None:
                types[part.phase.counts or part.phase.fills or part.phase.bounds] = part.phase.type
            extra["phase"] = staging.described(
                part.phase.program, part.phase.counts or part.phase.bounds, part.phase.fills, types, len(build.parts), part.phase.within, part.phase.requires
            )
        signature = signature_of(part.loops, emit.externs(part.loops), parallel)
        out.append(runtime.add(staging.key_of(key, number), signature, part.code, extra))
    return tuple(reversed(out))


def explain_program(program: tn.Program, sizes: Mapping[str, int], options: Options, guards: Iterable[object], decided: Iterable[tuple[str, str, str]] = ()) -> explanation.Explanation:
    """Compile a program and keep what every stage made of it, as text."""
    sections: list[explanation.Section] = []

    def watch(stage: Stage, build: Build, milliseconds: float) -> None:
        kind = "code" if stage.form in ("llvm", "object") else "stage"
        sections.append(explanation.Section(stage.name, stage.show(build), kind, milliseconds))

    build = compile_program(program, sizes, options, target_for(options), verify=True, watch=watch)
    total = sum(s.milliseconds or 0.0 for s in sections)
    known = cost_table(build.program, sizes)
    notes = tuple(dict.fromkeys(n for part in build.parts for n in part.notes))
    chosen = "\n".join(f"{name}: {text}, at least 0" + ("" if bound == text else f", at most {bound}") for name, text, bound in decided)
    summary = (
        explanation.Section("mathematics", tensor_show.show(program), "stage"),
        explanation.Section("guards", "\n".join(map(str, guards)) or "none: every size is served"),
        *((explanation.Section("sizes that data decide", chosen),) if chosen else ()),
        explanation.Section("decisions", "\n".join(notes) or "none"),
        explanation.Section("costs", known),
        explanation.Section("memory", "\n".join(memory_plan(part.loops) for part in build.parts)),
    )
    scheduled = sum(len(part.scops) for part in build.parts)
    title = f"{program.name}: {scheduled} scheduled part(s), compiled in {total:.1f} ms"
    return explanation.Explanation(title, (*summary, *sections))


def cost_table(program: tn.Program, sizes: Mapping[str, int]) -> str:
    """Operations and bytes of every step at typical sizes; sparse steps are counted by what is stored."""
    types = tn.types_of(program)
    lines = [f"{'step':24} {'operations':>14} {'bytes':>14}"]
    for step in program.body:
        if isinstance(step, (tn.Comprehension, tn.Scatter)):
            flops, moved = tensor_costs.flops(step, types, sizes), tensor_costs.bytes_moved(step, types, sizes)
            lines.append(f"{step.target:24} {flops:14.3g} {moved:14.3g}")
        elif isinstance(step, tn.Join):
            lines.append(f"{step.target:24} merge of {', '.join(w.tensor for w in step.parts)}")
        elif isinstance(step, tn.Select):
            lines.append(f"{step.target:24} selects, without points of its own")
        elif isinstance(step, tn.Spread):
            lines.append(f"{step.target:24} consecutive runs, without points of its own")
        elif isinstance(step, tn.Listing):
            lines.append(f"{step.target:24} lists what {step.of} stores")
        elif isinstance(step, tn.Extern):
            lines.append(f"{', '.join(step.targets):24} library call {step.function}")
        else:
            lines.append(f"{', '.join(step.targets):24} {type(step).__name__.lower()}")
    return "\n".join(lines)


def memory_plan(kernel: lp.Kernel) -> str:
    """Every temporary array of a kernel: where it lives, its element type and its extents; how much all take, as a formula."""
    lines = []
    for n in walk(kernel.body):
        if isinstance(n, lp.Alloc) and n.space is not lp.Space.REGISTER:
            extents = " x ".join(loop_show.show_expr(e) for e in n.extents) or "1"
            lines.append(f"{n.name}: {n.dtype} {extents}, {'one per thread' if n.space is lp.Space.THREAD else 'one for the kernel'}")
    if not lines:
        return "no temporary array: everything between the statements lives in registers"
    return "\n".join((*lines, f"at most {loop_memory.show(loop_memory.peak(kernel))}"))


def compile_program(
    program: tn.Program,
    sizes: Mapping[str, int],
    options: Options,
    target: Target,
    *,
    until: str = "object",
    verify: bool = False,
    watch: Callable[[Stage, Build, float], None] | None = None,
    how: str = "packed",
    refit: bool = False,
) -> Build:
    """Run the stages in order and return the build after stage `until`.

    `watch(stage, build, milliseconds)` is called after every stage. With `verify`, each stage's result is verified.
    Raises UnsupportedError for programs that cannot be compiled, ScheduleError if a schedule or an access is not proved.
    """
    build = Build(program, tuple(sorted(sizes.items())), options, target, how=how, refit=refit)
    tensor_verify.verify(program)
    for number, stage in enumerate(STAGES):
        if stage.name == FIRST_OF_A_PHASE:
            parts = phases.run(build.program, how=build.how)
            if len(parts) > 1 or parts[0].fills or parts[0].aliases or build.how == "again":
                begun = [_of_phase(build, part) for part in parts]
                if watch is None and until == STAGES[-1].name:
                    return replace(build, phases=_overlapped(begun, STAGES[number:], verify))
                return replace(build, phases=tuple(_run(part, STAGES[number:], until, verify, watch) for part in begun))
        build = _run(build, (stage,), until, verify, watch)
        if stage.name == until:
            break
    return build


def _of_phase(build: Build, part: phases.Phase) -> Build:
    return Build(part.program, build.sizes, build.options, build.target, notes=build.notes, aliases=part.aliases, phase=part)


def _overlapped(builds: Sequence[Build], stages: tuple[Stage, ...], verify: bool) -> tuple[Build, ...]:
    """All `stages` for each build. The last one holds no lock of Python's: other threads do it while the next build is begun. The last
    phases, which fill what others count, are the longest, and begin."""
    generation = jit.Generation(builds[0].target, in_background)
    done: dict[int, tuple[Build, int]] = {}
    try:
        for number in reversed(range(len(builds))):
            build = _run(builds[number], stages[:-1], "", verify, None)
            done[number] = build, generation.add(build.ir, last=number == 0)
    finally:
        generation.finish()
    return tuple(replace(build, code=generation.code(module)) for build, module in (done[n] for n in range(len(builds))))


def _run(
    build: Build, stages: tuple[Stage, ...], until: str, verify: bool, watch: Callable[[Stage, Build, float], None] | None
) -> Build:
    for stage in stages:
        start = time.perf_counter()
        build = stage.run(build)
        elapsed = (time.perf_counter() - start) * 1e3
        if verify:
            stage.verify(build)
        if watch is not None:
            watch(stage, build, elapsed)
        if stage.name == until:
            break
    return build
