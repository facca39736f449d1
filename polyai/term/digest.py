"""Stable digests of node trees: the same in every process, whatever the hash seed."""

from __future__ import annotations

import enum
import struct
from typing import Any

from polyai.term.node import field_names, is_node

try:  # what hashlib has, without OpenSSL: loading that takes longer than a call served from the cache
    from _blake2 import blake2b as blake2b
except ImportError:
    from hashlib import blake2b as blake2b


def digest(*values: Any) -> str:
    """Hexadecimal digest of nodes, tuples, strings, numbers, None and bytes. Raises TypeError for anything else."""
    parts: list[bytes] = []
    for value in values:
        _feed(parts, value)
    return blake2b(b"".join(parts), digest_size=16).hexdigest()


def _feed(out: list[bytes], value: Any) -> None:
    kind = type(value)
    if kind is str:
        raw = value.encode()
        out.append(b"s%d:" % len(raw))
        out.append(raw)
    elif kind is tuple:
        out.append(b"(%d" % len(value))
        for part in value:
            _feed(out, part)
    elif kind is int or kind is bool or value is None:
        out.append(repr(value).encode() + b";")
    elif is_node(value):
        out.append(b"N" + kind.__name__.encode())
        for name in field_names(kind):
            _feed(out, getattr(value, name))
    else:
        out.append(_rare(value))


def _rare(value: Any) -> bytes:
    if isinstance(value, enum.Enum):
        return b"e" + repr(value).encode() + b";"
    if isinstance(value, int):
        return repr(value).encode() + b";"
    if isinstance(value, float):
        return b"f" + struct.pack("<d", value)
    if isinstance(value, complex):
        return b"c" + struct.pack("<dd", value.real, value.imag)
    if isinstance(value, bytes):
        return b"b%d:" % len(value) + value
    if isinstance(value, frozenset):
        return "".join(sorted(digest(part) for part in value)).encode()
    if isinstance(value, str):
        return _joined(str(value))
    if isinstance(value, tuple):
        return _joined(tuple(value))
    raise TypeError(f"no stable digest for {type(value).__name__}")


def _joined(value: Any) -> bytes:
    out: list[bytes] = []
    _feed(out, value)
    return b"".join(out)
