"""Specialised kernels: the general kernel's program with sizes filled in, compiled to the general kernel's signature.

    pickled Job (see `specialise`)    ->    serve(), in a helper process    ->    the file of a cache entry
"""

from __future__ import annotations

import dataclasses
import os
import pickle
import sys
from typing import BinaryIO

from polyai import pipeline
from polyai.calls.specialise import Job
from polyai.errors import PolyAIError, UnsupportedError
from polyai.loop import build as b
from polyai.loop import nodes as lp
from polyai.machine import emit
from polyai.runtime.cache import Entry, pack
from polyai.runtime.helper import LENGTH
from polyai.runtime.kernel import Parameter, signature_of
from polyai.scalar.dtype import BY_NAME
from polyai.term.node import walk


def compiled(job: Job) -> Entry:
    """The entry for a job. Raises UnsupportedError if its kernel cannot have the general one's parameters."""
    stages = {s.name: s for s in pipeline.STAGES}
    build = pipeline.compile_program(job.program, dict(job.sizes), job.options, pipeline.target_for(job.options), until="tidy", verify=job.options.verify)
    if build.phases:
        raise UnsupportedError(f"{job.program.name} has no specialised form", "it counts a sparse result before it fills it", "use the general kernel")
    kernel = as_general(build.loops, job.parameters)
    build = stages["object"].run(stages["code"].run(dataclasses.replace(build, kernel=kernel)))
    parallel = any(isinstance(n, lp.For) and n.kind is lp.Kind.PARALLEL for n in walk(build.loops.body))
    signature = signature_of(build.loops, emit.externs(build.loops), parallel)
    return Entry({"signature": signature.to_json(), "extra": {}}, build.code)


def as_general(kernel: lp.Kernel, parameters: tuple[Parameter, ...]) -> lp.Kernel:
    """`kernel` with the parameters of the general one, in its order; those it does not use are passed all the same."""
    own = {p.name: p for p in kernel.params}
    extra = sorted(own.keys() - {p.name for p in parameters})
    if extra or emit.externs(kernel):
        raise UnsupportedError(f"{kernel.name} has no specialised form", f"it needs {', '.join(extra) or 'library functions'}", "use the general kernel")
    params = tuple(
        own.get(p.name) or lp.Param(p.name, BY_NAME[p.dtype], p.role, None if p.rank is None else (b.ZERO,) * p.rank) for p in parameters
    )
    return dataclasses.replace(kernel, params=params)


def serve(jobs: BinaryIO, answers: BinaryIO) -> None:
    """Compile jobs until there are no more. Jobs come from the process that started this one."""
    if hasattr(os, "nice"):
        os.nice(5)
    sys.stdout = sys.stderr  # answers alone go out
    while True:
        head = jobs.read(LENGTH.size)
        if len(head) < LENGTH.size:
            return
        raw = jobs.read(LENGTH.unpack(head)[0])
        try:
            job: Job = pickle.loads(raw)
            answer = pack(job.key, job.host, compiled(job))
        except PolyAIError as error:
            answer = f"{type(error).__name__}: {error}".encode()
        answers.write(LENGTH.pack(len(answer)) + answer)
        answers.flush()
