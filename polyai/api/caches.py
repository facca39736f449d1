"""What the process has counted, and what the cache on disk holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from polyai.calls.engine import runtime
from polyai.calls.keys import compiler_contents, compiler_stamp
from polyai.term.late import late

if TYPE_CHECKING:
    from polyai.runtime import archive
    from polyai.runtime.archive import Imported
else:
    archive = late("polyai.runtime.archive")

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


__all__ = ["cache_clear", "cache_export", "cache_import", "cache_info", "stats"]
