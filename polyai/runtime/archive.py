"""All entries of a cache in one file, so that a fleet or a test run starts with compiled code.

    polyai-archive-1\\n, length, JSON {stamp, contents} ; for each entry: length, the file of the entry (see `cache`)

An archive holds no paths: an entry is kept under the key it says, which is letters, digits, _ and -, if its checksum, its key and
its machine are right. The stamp of a compiler, with which the keys of its kernels begin, depends on where and when it was installed; so
entries of a compiler with the same contents are kept under this one's stamp.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
from collections import Counter
from pathlib import Path
from typing import BinaryIO

from polyai.errors import OptionError
from polyai.runtime.cache import LIMIT, Cache, key_and_host, unpack
from polyai.term.node import node

MAGIC = b"polyai-archive-1\n"
_LENGTH = struct.Struct("<Q")
_HEAD_LIMIT = 1 << 16
RUNTIME = "runtime-"
"""Keys of the runtime's own code begin with this; they hold no stamp."""


@node
class Imported:
    """How many entries of an archive were taken; why the others were refused, with how often."""

    taken: int
    refused: tuple[tuple[str, int], ...] = ()

    def __str__(self) -> str:
        reasons = "".join(f"; {count} refused: {why}" for why, count in self.refused)
        return f"{self.taken} entries taken{reasons}"


def write(path: Path, cache: Cache, stamp: str, contents: str) -> int:
    """Write the entries of `cache` that the compiler `stamp` made; how many. The file appears whole or not at all."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    count = 0
    try:
        with open(temporary, "wb") as file:
            file.write(MAGIC)
            _put(file, json.dumps({"stamp": stamp, "contents": contents}).encode())
            for raw in cache.files():
                known = key_and_host(raw)
                if known is not None and known[0].startswith((f"{stamp}-", RUNTIME)):
                    _put(file, raw)
                    count += 1
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    return count


def read(path: Path, cache: Cache, stamp: str, contents: str) -> Imported:
    """Put the entries of an archive into `cache`. Raises OptionError for a file that is no archive."""
    taken, refused = 0, Counter[str]()
    with open(path, "rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise OptionError(f"{path} is no archive of compiled code", "it does not begin like one", "write one with polyai cache export")
        theirs = _head(file, path)
        while (raw := _get(file)) is not None:
            why = _take(raw, cache, stamp, theirs["stamp"] if theirs["contents"] == contents else None) if raw else "cut short or damaged"
            if why:
                refused[why] += 1
            else:
                taken += 1
            if not raw:
                break
    return Imported(taken, tuple(sorted(refused.items())))


def _take(raw: bytes, cache: Cache, stamp: str, theirs: str | None) -> str:
    """Keep one entry; why not, or nothing."""
    known = key_and_host(raw)
    if known is None:
        return "cut short or damaged"
    key, host = known
    if host != cache.host:
        return "made for another machine"
    entry = unpack(raw, key, host)
    if entry is None:
        return "cut short or damaged"
    if not key.startswith(RUNTIME):
        if theirs is None or not key.startswith(f"{theirs}-"):
            return "made by another version of the compiler"
        key = stamp + key[len(theirs) :]
    cache.put(key, entry.metadata, entry.code)
    return ""


def _head(file: BinaryIO, path: Path) -> dict[str, str]:
    raw = _get(file, _HEAD_LIMIT)
    try:
        found = json.loads(raw or b"")
        return {"stamp": str(found["stamp"]), "contents": str(found["contents"])}
    except (ValueError, KeyError, TypeError):
        raise OptionError(f"{path} is no archive of compiled code", "its head is damaged", "write one with polyai cache export") from None


def _put(file: BinaryIO, raw: bytes) -> None:
    file.write(_LENGTH.pack(len(raw)))
    file.write(raw)


def _get(file: BinaryIO, limit: int = LIMIT) -> bytes | None:
    """The next part; None at the end, nothing if the file is cut short or says something impossible."""
    head = file.read(_LENGTH.size)
    if not head:
        return None
    if len(head) < _LENGTH.size:
        return b""
    (length,) = _LENGTH.unpack(head)
    if not 0 < length <= limit or length > os.fstat(file.fileno()).st_size:
        return b""
    raw = file.read(length)
    return raw if len(raw) == length else b""
