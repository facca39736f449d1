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
    state = blake2b(digest_size=16)
    for value in values:
        _feed(state, value)
    return state.hexdigest()


def _feed(state: Any, value: Any) -> None:
    if isinstance(value, tuple):
        state.update(b"(%d" % len(value))
        for part in value:
            _feed(state, part)
    elif is_node(value):
        cls = type(value)
        state.update(b"N" + cls.__name__.encode())
        for name in field_names(cls):
            _feed(state, getattr(value, name))
    elif isinstance(value, enum.Enum):
        state.update(b"e" + repr(value).encode() + b";")
    elif value is None or isinstance(value, (bool, int)):
        state.update(repr(value).encode() + b";")
    elif isinstance(value, float):
        state.update(b"f" + struct.pack("<d", value))
    elif isinstance(value, complex):
        state.update(b"c" + struct.pack("<dd", value.real, value.imag))
    elif isinstance(value, str):
        raw = value.encode()
        state.update(b"s%d:" % len(raw) + raw)
    elif isinstance(value, bytes):
        state.update(b"b%d:" % len(value) + value)
    elif isinstance(value, frozenset):
        for part in sorted(digest(part) for part in value):
            state.update(part.encode())
    else:
        raise TypeError(f"no stable digest for {type(value).__name__}")
