"""The loop passes, in the order they run."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from polyai.loop.nodes import Kernel
from polyai.loop.passes.ahead import ahead
from polyai.loop.passes.bind import bind
from polyai.loop.passes.flatten import flatten
from polyai.loop.passes.gathered import gathered
from polyai.loop.passes.heavy import heavy
from polyai.loop.passes.interleave import interleave
from polyai.loop.passes.jam import jam
from polyai.loop.passes.owners import owners
from polyai.loop.passes.pieces import pieces
from polyai.loop.passes.prefetch import prefetch, unhinted
from polyai.loop.passes.privatize import privatize
from polyai.loop.passes.promote import promote
from polyai.loop.passes.quotients import quotients
from polyai.loop.passes.rebase import rebase
from polyai.loop.passes.reuse import reuse
from polyai.loop.passes.runs import Lists, runs
from polyai.loop.passes.simplify import prune, simplify
from polyai.loop.passes.spare import spare
from polyai.loop.passes.staged import staged
from polyai.loop.passes.stretch import stretch
from polyai.loop.passes.twins import twins
from polyai.loop.passes.unmask import unmask
from polyai.loop.passes.vectorize import vectorize

Pass = Callable[[Kernel], Kernel]


def passes(
    vector_bits: int = 512,
    registers: int = 32,
    notes: list[str] | None = None,
    sizes: Mapping[str, int] | None = None,
    near: frozenset[str] = frozenset(),
    lists: Lists = (),
) -> tuple[tuple[str, Pass], ...]:
    """Names and passes. `notes` collects what could not be done; `sizes` are typical values of size parameters; `near`: index arrays
    whose fibres name what others named shortly before; `lists`: the index arrays of lists of elements."""
    known = dict(sizes or {})
    return (
        ("simplify", simplify),
        ("quotients", quotients),
        ("spare", spare),
        ("gathered", lambda kernel: gathered(kernel, known)),
        ("stretch", lambda kernel: stretch(kernel, known)),
        ("heavy", lambda kernel: heavy(kernel, known)),
        ("staged", lambda kernel: staged(kernel, known)),
        ("twins", lambda kernel: twins(kernel, known, registers)),
        ("flatten", flatten),
        ("unhinted", lambda kernel: unhinted(kernel, known)),
        ("pieces", lambda kernel: pieces(kernel, known)),
        ("privatize", lambda kernel: privatize(kernel, known)),
        ("owners", lambda kernel: owners(kernel, known, lists)),
        ("runs", lambda kernel: runs(kernel, known, lists)),
        ("bind", bind),
        ("promote", promote),
        ("jam", lambda kernel: jam(kernel, notes)),
        ("rebase", rebase),
        ("vectorize", lambda kernel: vectorize(kernel, vector_bits, registers, notes, sizes)),
        ("interleave", lambda kernel: interleave(kernel, sizes)),
        ("unmask", unmask),
        ("prune", prune),
        ("reuse", reuse),
        ("prefetch", lambda kernel: prefetch(kernel, known, near)),
        ("ahead", ahead),
    )


def lower_loops(
    kernel: Kernel,
    vector_bits: int = 512,
    registers: int = 32,
    notes: list[str] | None = None,
    sizes: Mapping[str, int] | None = None,
    near: frozenset[str] = frozenset(),
    lists: Lists = (),
) -> Kernel:
    """`kernel` as machine code generation takes it: flat, in lanes, without JAM and VECTOR loops."""
    for _, change in passes(vector_bits, registers, notes, sizes, near, lists):
        kernel = change(kernel)
    return kernel
