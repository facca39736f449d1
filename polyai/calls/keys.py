"""The key of a program's kernels in the cache: everything that may change the code, in one place."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path

from polyai.options import Options
from polyai.shapes import expr as sx
from polyai.sparse.format import Format
from polyai.tensor import nodes as tn
from polyai.term.digest import digest


@lru_cache(maxsize=1)
def compiler_stamp() -> str:
    """Changes whenever a file of the compiler does, so that code made by another version is never taken from the cache."""
    lines: list[str] = []
    folders = [("", os.path.dirname(os.path.dirname(__file__)))]
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
    root = Path(__file__).parent.parent
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
