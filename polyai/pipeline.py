"""The whole compiler on one screen: a tuple of named stages from mathematics to object code.

Each stage takes a `Build` and returns one with more filled in. Stop after any stage (`until`), look at each (`watch`), print
any (`Stage.show`), check any (`Stage.verify`), interpret any level (`tensor.interp`, `poly.interp`, `loop.interp`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from polyai.errors import VerifyError
from polyai.loop import nodes as lp
from polyai.loop import show as loop_show
from polyai.loop import verify as loop_verify
from polyai.loop.passes.order import lower_loops
from polyai.lower import assemble, poly_to_loop, tensor_to_poly
from polyai.machine import emit, jit
from polyai.machine.cpu import Target
from polyai.options import Options
from polyai.poly import nodes as pl
from polyai.poly import show as poly_show
from polyai.poly import verify as poly_verify
from polyai.poly.passes import contract, schedule
from polyai.tensor import nodes as tn
from polyai.tensor import show as tensor_show
from polyai.tensor import verify as tensor_verify
from polyai.tensor.passes import canonical, fold, fuse, library, reassociate, restrict
from polyai.term.node import node


@node
class Build:
    """One compilation so far. `sizes` are typical values of symbols, for costs only: code never depends on them for its
    correctness. `scops` has one entry per straight segment of the program, in order."""

    program: tn.Program
    sizes: tuple[tuple[str, int], ...]
    options: Options
    target: Target
    scops: tuple[pl.Scop, ...] = ()
    kernel: lp.Kernel | None = None
    ir: str = ""
    code: bytes = b""
    notes: tuple[str, ...] = ()

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


def _statements(build: Build) -> Build:
    return replace(build, scops=tuple(tensor_to_poly.lower(part) for part in assemble.segments(build.program)))


def _schedule(build: Build) -> Build:
    scops, notes = [], list(build.notes)
    for scop in build.scops:
        scheduled, decisions = schedule.scheduled(scop, build.hints, scheduler=build.options.scheduler)
        scops.append(scheduled)
        notes += decisions
    return replace(build, scops=tuple(scops), notes=tuple(notes))


def _contract(build: Build) -> Build:
    return replace(build, scops=tuple(contract.run(scop) for scop in build.scops))


def _loops(build: Build) -> Build:
    return replace(build, kernel=assemble.assemble(build.program, build.scops, poly_to_loop.lower))


def _tidy(build: Build) -> Build:
    notes: list[str] = []
    kernel = lower_loops(build.loops, build.target.vector_bits, notes=notes)
    return replace(build, kernel=kernel, notes=(*build.notes, *notes))


STAGES: tuple[Stage, ...] = (
    Stage("fold", "tensor", _program(lambda b: fold.run(b.program))),
    Stage("canonical", "tensor", _program(lambda b: canonical.run(b.program))),
    Stage("restrict", "tensor", _program(lambda b: restrict.run(b.program))),
    Stage("reassociate", "tensor", _program(lambda b: reassociate.run(b.program, b.hints))),
    Stage("fuse", "tensor", _program(lambda b: fuse.run(b.program))),
    Stage("library", "tensor", _program(lambda b: library.run(b.program, b.hints, b.options.blas))),
    Stage("statements", "poly", _statements),
    Stage("schedule", "poly", _schedule),
    Stage("contract", "poly", _contract),
    Stage("loops", "loop", _loops),
    Stage("tidy", "loop", _tidy),
    Stage("code", "llvm", lambda b: replace(b, ir=emit.emit(b.loops, b.target))),
    Stage("object", "object", lambda b: replace(b, code=jit.compile_object(b.ir, b.target))),
)

_SHOW: dict[str, Callable[[Build], str]] = {
    "tensor": lambda b: tensor_show.show(b.program),
    "poly": lambda b: "\n".join(map(poly_show.show, b.scops)),
    "loop": lambda b: loop_show.show(b.loops),
    "llvm": lambda b: b.ir,
    "object": lambda b: jit.assembly(b.ir, b.target),
}

_VERIFY: dict[str, Callable[[Build], None]] = {
    "tensor": lambda b: tensor_verify.verify(b.program),
    "poly": lambda b: [poly_verify.verify(s) for s in b.scops] and None,
    "loop": lambda b: loop_verify.verify(b.loops),
    "llvm": lambda b: None,  # LLVM's own verifier runs in the next stage
    "object": lambda b: None,
}


def compile_program(
    program: tn.Program,
    sizes: Mapping[str, int],
    options: Options,
    target: Target,
    *,
    until: str = "object",
    verify: bool = False,
    watch: Callable[[Stage, Build, float], None] | None = None,
) -> Build:
    """Run the stages in order and return the build after stage `until`.

    `watch(stage, build, milliseconds)` is called after every stage. With `verify`, each stage's result is verified.
    Raises UnsupportedError for programs that cannot be compiled, ScheduleError if a schedule or an access is not proved.
    """
    build = Build(program, tuple(sorted(sizes.items())), options, target)
    tensor_verify.verify(program)
    for stage in STAGES:
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
