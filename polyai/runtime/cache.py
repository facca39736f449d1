"""Compiled code in memory and on disk, under keys that the caller derives from everything that may change the code.

An entry is a file `KEY.HOST.obj`::

    magic, version, lengths of key, host, metadata and object, checksum (blake2b of all the rest) ; key ; host ; metadata ; object

Files are written beside their place and moved there, so several processes may share a directory. A file that is cut
short, damaged, of another version or another machine is removed and made anew. Code is only read from a directory that
belongs to this user and that nobody else may write. A directory that cannot be used is done without, and noted.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import struct
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from polyai.errors import VerifyError
from polyai.runtime.shared import renew_after_fork
from polyai.runtime.stats import Stats
from polyai.term.digest import blake2b

MAGIC = b"POLYAIob"
VERSION = 1
_HEAD = struct.Struct("<8sIHHIQ")
_SUM = 32
_SUFFIX = ".obj"
_STALE_SECONDS = 3600.0
_BINARY = getattr(os, "O_BINARY", 0)
_KEY = re.compile(r"[0-9A-Za-z_-]{1,120}")
LIMIT = 1 << 30
"""No entry is larger than this; a header that says so is damaged."""


class Entry(NamedTuple):
    """What one key stands for: JSON metadata and object code."""

    metadata: dict[str, Any]
    code: bytes


class Listed(NamedTuple):
    """One file of the cache. `used` is the time of its last use, in seconds since 1970."""

    key: str
    bytes: int
    used: float


def default_directory() -> Path:
    """The platform's directory for caches, with our name."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or str(Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = str(Path.home() / "Library" / "Caches")
    else:
        base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "polyai"


def _checksum(data: bytes) -> bytes:
    return blake2b(data, digest_size=_SUM).digest()


def pack(key: str, host: str, entry: Entry) -> bytes:
    """The file of an entry."""
    metadata = json.dumps(entry.metadata, sort_keys=True, separators=(",", ":")).encode()
    raw_key, raw_host = key.encode(), host.encode()
    head = _HEAD.pack(MAGIC, VERSION, len(raw_key), len(raw_host), len(metadata), len(entry.code))
    rest = raw_key + raw_host + metadata + entry.code
    return head + _checksum(head + rest) + rest


def unpack(raw: bytes, key: str, host: str) -> Entry | None:
    """The entry in a file, or None if the file is not exactly what `pack` wrote for this key and host."""
    if len(raw) < _HEAD.size + _SUM:
        return None
    head, checksum, rest = raw[: _HEAD.size], raw[_HEAD.size : _HEAD.size + _SUM], raw[_HEAD.size + _SUM :]
    magic, version, keys, hosts, metas, codes = _HEAD.unpack(head)
    if magic != MAGIC or version != VERSION or keys + hosts + metas + codes != len(rest):
        return None
    if _checksum(head + rest) != checksum:
        return None
    if rest[:keys] != key.encode() or rest[keys : keys + hosts] != host.encode():
        return None
    body = rest[keys + hosts :]
    try:
        metadata = json.loads(body[:metas])
    except ValueError:
        return None
    return Entry(metadata, body[metas:]) if isinstance(metadata, dict) else None


def key_and_host(raw: bytes) -> tuple[str, str] | None:
    """What the file of an entry says it is; None if it is no such file. `unpack` checks whether that is true."""
    if len(raw) < _HEAD.size + _SUM or not raw.startswith(MAGIC):
        return None
    _, _, keys, hosts, _, _ = _HEAD.unpack(raw[: _HEAD.size])
    at = _HEAD.size + _SUM
    try:
        key, host = raw[at : at + keys].decode("ascii"), raw[at + keys : at + keys + hosts].decode("ascii")
    except UnicodeDecodeError:
        return None
    return (key, host) if _KEY.fullmatch(key) else None


class Cache:
    """Entries by key. `directory` None, or `limit` 0, keeps them in memory only. Safe for threads and processes."""

    def __init__(self, directory: Path | None, limit: int, host: str, stats: Stats, memory: int = 64 << 20) -> None:
        self._base = directory
        self._limit = limit if directory is not None else 0
        self._host = host
        self._stats = stats
        self._memory_limit = memory
        self._memory: OrderedDict[str, Entry] = OrderedDict()
        self._memory_bytes = 0
        self._lock = threading.Lock()
        renew_after_fork(self)

    @property
    def directory(self) -> Path | None:
        """Where the files are: a directory of our own below the one that was asked for."""
        return None if self._base is None or self._limit == 0 else self._base / f"objects-{VERSION}"

    def get(self, key: str) -> Entry | None:
        """The entry, from memory or disk; None if there is none, or only a damaged one, which is removed."""
        return self._get(key, "memory_hits", "disk_hits")

    def _get(self, key: str, in_memory: str, on_disk: str) -> Entry | None:
        self._check_key(key)
        with self._lock:
            found = self._memory.get(key)
            if found is not None:
                self._memory.move_to_end(key)
        if found is not None:
            self._stats.count(in_memory)
            return found
        found = self._read(key)
        if found is not None:
            self._stats.count(on_disk)
            self._remember(key, found)
        return found

    def holds(self, key: str) -> bool:
        """True if there is an entry in memory or a file on disk; it is not looked into."""
        with self._lock:
            if key in self._memory:
                return True
        return self.directory is not None and self._path(key).exists()

    def put(self, key: str, metadata: dict[str, Any], code: bytes) -> Entry:
        """Keep an entry. Never fails because of the disk."""
        self._check_key(key)
        entry = Entry(metadata, code)
        self._remember(key, entry)
        self._write(key, pack(key, self._host, entry))
        return entry

    def get_or_make(self, key: str, make: Callable[[], tuple[dict[str, Any], bytes]]) -> Entry:
        """The entry of `key`, made by `make` and kept if there is none. For the runtime's own code, which is counted apart
        from kernels: `parts_compiled`, `parts_loaded`."""
        found = self._get(key, "parts_loaded", "parts_loaded")
        if found is not None:
            return found
        metadata, code = make()
        self._stats.count("parts_compiled")
        return self.put(key, metadata, code)

    def forget(self, key: str) -> None:
        """Remove an entry whose object turned out to be unusable."""
        with self._lock:
            gone = self._memory.pop(key, None)
            self._memory_bytes -= len(gone.code) if gone else 0
        if self.directory is not None:
            _remove(self._path(key))

    def entries(self) -> list[Listed]:
        """The files of this machine in the directory, least recently used first."""
        return [Listed(name[: -len(self._suffix)], size, used) for name, size, used in self._files() if name.endswith(self._suffix)]

    @property
    def host(self) -> str:
        """The machine that code is made for."""
        return self._host

    def files(self) -> Iterator[bytes]:
        """The contents of every entry's file in the directory, those in memory only included; damaged ones left out."""
        seen: set[str] = set()
        for listed in self.entries():
            entry = self._read(listed.key)
            if entry is not None:
                seen.add(listed.key)
                yield pack(listed.key, self._host, entry)
        with self._lock:
            rest = [(key, entry) for key, entry in self._memory.items() if key not in seen]
        for key, entry in rest:
            yield pack(key, self._host, entry)

    def clear(self) -> int:
        """Remove every entry from memory and every file from the directory; how many files went."""
        with self._lock:
            self._memory.clear()
            self._memory_bytes = 0
        directory = self.directory
        if directory is None:
            return 0
        done = [name for name, _, used in self._files() if not name.endswith(".tmp") or _is_stale(used)]
        return sum(_remove(directory / name) for name in done)

    def after_fork(self) -> None:
        self._lock = threading.Lock()

    @property
    def _suffix(self) -> str:
        return f".{self._host[:16]}{_SUFFIX}"

    @staticmethod
    def _check_key(key: str) -> None:
        if not _KEY.fullmatch(key):
            raise VerifyError(f"{key!r} is no cache key", "a key consists of letters, digits, _ and -")

    def _path(self, key: str) -> Path:
        directory = self.directory
        if directory is None:
            raise VerifyError("a cache without a directory has no paths")
        return directory / (key + self._suffix)

    def _remember(self, key: str, entry: Entry) -> None:
        with self._lock:
            old = self._memory.pop(key, None)
            self._memory[key] = entry
            self._memory_bytes += len(entry.code) - (len(old.code) if old else 0)
            while self._memory_bytes > self._memory_limit and len(self._memory) > 1:
                _, gone = self._memory.popitem(last=False)
                self._memory_bytes -= len(gone.code)

    def _read(self, key: str) -> Entry | None:
        directory = self.directory
        if directory is None:
            return None
        path = self._path(key)
        try:
            if not self._trusted(directory):
                return None
            with open(path, "rb") as file:
                status = os.fstat(file.fileno())
                if not _is_ours(status):
                    self._stats.note(f"cache: {path} belongs to someone else or may be written by others; not read")
                    return None
                raw = file.read(min(status.st_size, LIMIT) + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._stats.note(f"cache: cannot read {path}: {error.strerror}")
            return None
        entry = unpack(raw, key, self._host)
        if entry is None:
            self._stats.count("corrupt")
            _remove(path)
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return entry

    def _write(self, key: str, raw: bytes) -> None:
        directory = self.directory
        if directory is None or len(raw) > self._limit:
            return
        temporary = None
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self._trusted(directory):
                return
            temporary = directory / f"{key}.{os.getpid()}-{threading.get_ident()}.tmp"
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _BINARY, 0o600), "wb") as file:
                file.write(raw)
            os.replace(temporary, self._path(key))
        except OSError as error:
            self._stats.note(f"cache: cannot write to {directory}: {error.strerror}; compiled code is kept in memory only")
            if temporary is not None:
                _remove(temporary)
            return
        self._evict(directory, self._path(key).name)

    def _evict(self, directory: Path, newest: str) -> None:
        files = self._files()
        total = sum(size for _, size, _ in files)
        for name, size, used in files:
            stale = name.endswith(".tmp") and _is_stale(used)
            if stale or (total > self._limit and name != newest and not name.endswith(".tmp")):
                total -= size
                self._stats.count("evicted", _remove(directory / name))

    def _files(self) -> list[tuple[str, int, float]]:
        """Name, size and time of last use of our files, least recently used first."""
        directory = self.directory
        found: list[tuple[str, int, float]] = []
        if directory is None:
            return found
        with contextlib.suppress(OSError), os.scandir(directory) as listing:
            for item in listing:
                if item.name.endswith((_SUFFIX, ".tmp")):
                    with contextlib.suppress(OSError):
                        status = item.stat(follow_symlinks=False)
                        found.append((item.name, status.st_size, status.st_mtime))
        return sorted(found, key=lambda f: (f[2], f[0]))

    def _trusted(self, directory: Path) -> bool:
        """Whether nobody else can have put code there. Raises FileNotFoundError if there is no such directory."""
        status = os.lstat(directory)
        good = stat.S_ISDIR(status.st_mode) and _is_ours(status)
        if not good:
            self._stats.note(f"cache: {directory} belongs to someone else or may be written by others; it is not used")
        return good


def _is_ours(status: os.stat_result) -> bool:
    if os.name != "posix":
        return True
    return status.st_uid == os.geteuid() and not status.st_mode & 0o022


def _is_stale(used: float) -> bool:
    """Whether a temporary file is left over from a process that died, rather than being written now."""
    return time.time() - used > _STALE_SECONDS


def _remove(path: Path) -> bool:
    try:
        os.unlink(path)
    except OSError:
        return False
    return True
