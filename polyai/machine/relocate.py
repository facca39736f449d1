"""Relocations: how an address is written into machine code, by kind, for x86-64 and AArch64.

With S the symbol's address, A the addend, P the place that is patched, Page(x) = x with the low 12 bits cleared. Calls of
foreign functions go to a stub of SLOTS bytes: the address, then a jump through it; G is the slot that holds the address.
"""

from __future__ import annotations

import struct
from typing import Any

from polyai.errors import PolyAIError


class ObjectError(PolyAIError, ValueError):
    """Bytes that are not an object file this loader understands. The cache treats them as absent."""


SLOTS = 24
JUMP_X86 = b"\xff\x25\xf2\xff\xff\xff" + b"\xcc" * 10
"""jmp *-14(%rip): through the eight bytes before it."""

JUMP_ARM = struct.pack("<III", 0x58FFFFD0, 0xD61F0200, 0xD4200000) + b"\0" * 4
"""ldr x16, .-8; br x16; brk."""


def _write(memory: Any, at: int, form: str, value: int, room: int, low: int, high: int) -> None:
    size = struct.calcsize(form)
    if size > room or not low <= value < high:
        raise ObjectError("a relocation does not fit its place")
    memory[at : at + size] = struct.pack(form, value)


def x86_64(memory: Any, at: int, base: int, kind: int, symbol: int, addend: int, slot: int | None, room: int) -> None:
    """Patch `memory[at:]`, which is mapped at base + at and ends in `room` bytes."""
    place = base + at
    near = -(1 << 31), 1 << 31
    match kind:
        case 0:
            return
        case 1:  # R_X86_64_64: S + A
            _write(memory, at, "<Q", (symbol + addend) & (2**64 - 1), room, 0, 2**64)
        case 2 | 4:  # R_X86_64_PC32, R_X86_64_PLT32: S + A - P
            _write(memory, at, "<i", symbol + addend - place, room, *near)
        case 9 | 41 | 42:  # R_X86_64_GOTPCREL, GOTPCRELX, REX_GOTPCRELX: G + A - P
            if slot is not None:
                _write(memory, at, "<i", slot + addend - place, room, *near)
            else:
                _relax(memory, at, symbol + addend - place, room, kind)
        case 10:  # R_X86_64_32: S + A, unsigned
            _write(memory, at, "<I", symbol + addend, room, 0, 2**32)
        case 11:  # R_X86_64_32S: S + A, signed
            _write(memory, at, "<i", symbol + addend, room, *near)
        case 24:  # R_X86_64_PC64: S + A - P
            _write(memory, at, "<q", symbol + addend - place, room, -(1 << 63), 1 << 63)
        case _:
            raise ObjectError(f"relocation {kind} of x86-64 is not supported")


def _relax(memory: Any, at: int, value: int, room: int, kind: int) -> None:
    """A load of a local symbol's address from the table becomes `lea`, as linkers do."""
    if kind == 9 or at < 2 or memory[at - 2] != 0x8B:
        raise ObjectError("a local symbol is reached through a table")
    memory[at - 2 : at - 1] = b"\x8d"
    _write(memory, at, "<i", value, room, -(1 << 31), 1 << 31)


def _word(memory: Any, at: int, room: int) -> int:
    if room < 4:
        raise ObjectError("a relocation does not fit its place")
    word: int = struct.unpack("<I", memory[at : at + 4])[0]
    return word


_SHIFT = {277: 0, 278: 0, 284: 1, 285: 2, 286: 3, 299: 4}
"""ADD_ABS_LO12_NC, LDST8, LDST16, LDST32, LDST64, LDST128: the scale of the immediate."""


def aarch64(memory: Any, at: int, base: int, kind: int, symbol: int, addend: int, slot: int | None, room: int) -> None:
    """Patch `memory[at:]`, which is mapped at base + at and ends in `room` bytes."""
    place, value = base + at, symbol + addend
    match kind:
        case 0:
            return
        case 257:  # R_AARCH64_ABS64
            _write(memory, at, "<Q", value & (2**64 - 1), room, 0, 2**64)
        case 260:  # R_AARCH64_PREL64
            _write(memory, at, "<q", value - place, room, -(1 << 63), 1 << 63)
        case 261:  # R_AARCH64_PREL32
            _write(memory, at, "<i", value - place, room, -(1 << 31), 1 << 31)
        case 275 | 311:  # R_AARCH64_ADR_PREL_PG_HI21, ADR_GOT_PAGE: 21 bits of Page(S + A) - Page(P)
            where = value if kind == 275 else _slot(slot)
            _adrp(memory, at, place, where, room)
        case 282 | 283:  # R_AARCH64_JUMP26, CALL26
            step = value - place
            if step & 3 or not -(1 << 27) <= step < 1 << 27:
                raise ObjectError("a call is too far")
            word = _word(memory, at, room) & 0xFC000000 | (step >> 2) & 0x3FFFFFF
            _write(memory, at, "<I", word, room, 0, 2**32)
        case 312:  # R_AARCH64_LD64_GOT_LO12_NC
            _low12(memory, at, _slot(slot), 3, room)
        case _ if kind in _SHIFT:
            _low12(memory, at, value, _SHIFT[kind], room)
        case _:
            raise ObjectError(f"relocation {kind} of AArch64 is not supported")


def _slot(slot: int | None) -> int:
    if slot is None:
        raise ObjectError("a local symbol is reached through a table")
    return slot


def _adrp(memory: Any, at: int, place: int, where: int, room: int) -> None:
    pages = (where >> 12) - (place >> 12)
    if not -(1 << 20) <= pages < 1 << 20:
        raise ObjectError("a page is too far")
    word = _word(memory, at, room) & 0x9F00001F
    word |= (pages & 3) << 29 | ((pages >> 2) & 0x7FFFF) << 5
    _write(memory, at, "<I", word, room, 0, 2**32)


def _low12(memory: Any, at: int, where: int, shift: int, room: int) -> None:
    low = where & 0xFFF
    if low & ((1 << shift) - 1):
        raise ObjectError("an address is not aligned to its load")
    word = _word(memory, at, room) & ~(0xFFF << 10) | (low >> shift) << 10
    _write(memory, at, "<I", word, room, 0, 2**32)
