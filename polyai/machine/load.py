"""Loads object code into this process without LLVM: reads a relocatable ELF file, places it, and patches its addresses.

    load(object_bytes, ("spmm",)).addresses["spmm"]  ->  1234...

Sections that live in memory are laid out in one private mapping, the patched bytes are written, and only then is the
mapping made executable (and no longer writable, unless a section asks for writing). Names the object does not define are
looked up in LIBRARIES of the C library and libm. Formats other than ELF for x86-64 and AArch64 go through LLVM's linker.

Bad bytes raise ObjectError: every offset is checked before it is used. Sources: the System V ABI (ELF-64), the psABIs of
x86-64 and AArch64.
"""

from __future__ import annotations

import ctypes
import itertools
import mmap
import platform
import struct
import sys
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from polyai.machine import relocate
from polyai.machine.relocate import ObjectError
from polyai.term.node import node

X86_64, AARCH64 = 62, 183
MAX_BYTES = 1 << 28
PAGE = mmap.PAGESIZE
PROGBITS, SYMTAB, RELA, NOBITS = 1, 2, 4, 8
WRITE, ALLOC = 1, 2
UNDEFINED, ABSOLUTE = 0, 0xFFF1
EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
SHDR = struct.Struct("<IIQQQQIIQQ")
SYM = struct.Struct("<IBBHQQ")
RELA_ENTRY = struct.Struct("<QQq")
SYMBOLS = frozenset(
    [f"mem{n}" for n in ("cpy", "set", "move")]
    + [n + s for s in ("", "f") for n in (
        "fmod", "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sin", "cos", "tan", "asin", "acos", "atan", "atan2",
        "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "erf", "pow", "floor", "ceil", "trunc", "roundeven", "fma",
    )]
)  # fmt: skip
"""The only foreign names an object may ask for."""


@node
class Loaded:
    """Entry addresses by name. The code stays in memory as long as `keepalive` does."""

    addresses: dict[str, int]
    keepalive: object


@node
class Section:
    kind: int
    flags: int
    offset: int
    size: int
    link: int
    info: int
    align: int
    entry: int


@node
class Symbol:
    name: str
    section: int
    value: int


def load(object_bytes: bytes, names: tuple[str, ...]) -> Loaded:
    """Place the code of `object_bytes` in memory and return the addresses of `names`. Raises ObjectError for bytes that are
    no object file of this machine, or that use what is not supported."""
    if object_bytes[:4] == b"\x7fELF":
        return _load_elf(object_bytes, names)
    if sys.platform.startswith("linux"):
        raise ObjectError("not an ELF object file")
    return load_by_llvm(object_bytes, names)


def _load_elf(data: bytes, names: tuple[str, ...]) -> Loaded:
    machine, sections = read_sections(data)
    if machine != host_machine():
        raise ObjectError("the object file is for another processor")
    symbols = read_symbols(data, sections)
    places, size, writable = layout(sections)
    foreign = [s.name for s in symbols if s.section == UNDEFINED and s.name]
    if relocate.SLOTS * len(foreign) + size > MAX_BYTES:
        raise ObjectError("the object file is too large")
    table = size
    whole = max(PAGE, _up(size + relocate.SLOTS * len(foreign), PAGE))
    memory = mmap.mmap(-1, whole, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for k, s in enumerate(sections):
        if k in places and s.kind != NOBITS:
            memory[places[k] : places[k] + s.size] = data[s.offset : s.offset + s.size]
    stubs = write_stubs(machine, memory, base, table, foreign)
    patch(data, machine, sections, symbols, places, memory, base, stubs)
    found = {s.name: base + places[s.section] + s.value for s in symbols if s.section in places}
    missing = [n for n in names if n not in found]
    if missing:
        raise ObjectError(f"the object file does not define {', '.join(missing)}")
    protect(base, len(memory), writable)
    return Loaded({n: found[n] for n in names}, memory)


def host_machine() -> int:
    """The ELF number of this processor."""
    return {"x86_64": X86_64, "AMD64": X86_64, "aarch64": AARCH64, "arm64": AARCH64}.get(platform.machine(), 0)


def read_sections(data: bytes) -> tuple[int, list[Section]]:
    """The machine number and the section table, with every extent inside the file."""
    if len(data) < EHDR.size:
        raise ObjectError("the object file is too short")
    ident, kind, machine, _, _, _, start, _, _, _, _, width, count, _ = EHDR.unpack_from(data)
    if ident[:7] != b"\x7fELF\x02\x01\x01" or kind != 1 or machine not in (X86_64, AARCH64):
        raise ObjectError("not a relocatable 64-bit little-endian object file")
    if width != SHDR.size or start + count * width > len(data) or count == 0:
        raise ObjectError("the section table leaves the file")
    out = []
    for k in range(count):
        _, sh_type, flags, _, offset, size, link, info, align, entry = SHDR.unpack_from(data, start + k * width)
        if sh_type != NOBITS and offset + size > len(data):
            raise ObjectError(f"section {k} leaves the file")
        if flags & ALLOC and (size > MAX_BYTES or align > PAGE or align & (align - 1)):
            raise ObjectError(f"section {k} has an impossible size or alignment")
        out.append(Section(sh_type, flags, offset, size, link, info, max(1, align), entry))
    return machine, out


def read_symbols(data: bytes, sections: list[Section]) -> list[Symbol]:
    """The symbol table; values inside their sections."""
    tables = [s for s in sections if s.kind == SYMTAB]
    if len(tables) != 1 or tables[0].link >= len(sections):
        raise ObjectError("the object file has no symbol table")
    table, strings = tables[0], sections[tables[0].link]
    text = data[strings.offset : strings.offset + strings.size] if strings.kind != NOBITS else b""
    out = []
    for k in range(table.size // SYM.size):
        name, _, _, index, value, _ = SYM.unpack_from(data, table.offset + k * SYM.size)
        end = text.find(b"\0", name)
        if name >= max(1, len(text)) or end < 0:
            raise ObjectError(f"symbol {k} has no name")
        if index < len(sections) and index != UNDEFINED and value > sections[index].size:
            raise ObjectError(f"symbol {k} lies outside its section")
        out.append(Symbol(text[name:end].decode("utf-8", "replace"), index, value))
    return out


def layout(sections: list[Section]) -> tuple[dict[int, int], int, bool]:
    """Where each section that lives in memory goes, the bytes in all, and whether one of them is written to."""
    places: dict[int, int] = {}
    at, writable = 0, False
    for k, s in enumerate(sections):
        if s.flags & ALLOC and s.kind in (PROGBITS, NOBITS) and s.size:
            at = _up(at, s.align)
            places[k] = at
            at += s.size
            writable = writable or bool(s.flags & WRITE)
    if at > MAX_BYTES:
        raise ObjectError("the object file is too large")
    return places, _up(at, 64), writable


def _up(n: int, align: int) -> int:
    return (n + align - 1) // align * align


def write_stubs(machine: int, memory: mmap.mmap, base: int, table: int, foreign: list[str]) -> dict[str, int]:
    """A slot with the address of each foreign function and a jump through it, near enough for a call. Returns the slots."""
    slots = {}
    for k, name in enumerate(foreign):
        at = table + relocate.SLOTS * k
        code = relocate.JUMP_X86 if machine == X86_64 else relocate.JUMP_ARM
        memory[at : at + 8] = struct.pack("<Q", address_of(name))
        memory[at + 8 : at + 8 + len(code)] = code
        slots[name] = base + at
    return slots


def address_of(name: str) -> int:
    """A function of the C library that generated code may call."""
    if name not in SYMBOLS:
        raise ObjectError(f"the object file asks for {name!r}, which is not among the functions it may call")
    for library in _libraries():
        try:
            found = ctypes.cast(getattr(library, name), ctypes.c_void_p).value
        except AttributeError:
            continue
        if found:
            return found
    raise ObjectError(f"this system's C library has no {name}")


@lru_cache(maxsize=1)
def _libraries() -> tuple[ctypes.CDLL, ...]:
    found = [ctypes.CDLL(None)]
    for name in ("libm.so.6", "libm.dylib", "libm.so"):
        try:
            found.append(ctypes.CDLL(name))
            break
        except OSError:
            continue
    return tuple(found)


def patch(
    data: bytes,
    machine: int,
    sections: list[Section],
    symbols: list[Symbol],
    places: dict[int, int],
    memory: Any,
    base: int,
    stubs: dict[str, int],
) -> None:
    """Apply the relocations of the sections that are in memory."""
    apply = relocate.x86_64 if machine == X86_64 else relocate.aarch64
    for table in sections:
        if table.kind != RELA or table.info not in places:
            continue
        target = sections[table.info]
        for k in range(table.size // RELA_ENTRY.size):
            offset, info, addend = RELA_ENTRY.unpack_from(data, table.offset + k * RELA_ENTRY.size)
            index = info >> 32
            if index >= len(symbols) or offset >= target.size:
                raise ObjectError("a relocation names no symbol or lies outside its section")
            symbol = symbols[index]
            slot = stubs.get(symbol.name) if symbol.section == UNDEFINED else None
            if slot is not None:
                value = slot + 8
            elif symbol.section in places:
                value = base + places[symbol.section] + symbol.value
            else:
                raise ObjectError(f"a relocation refers to {symbol.name!r}, which is not in memory")
            room = target.size - offset
            apply(memory, places[table.info] + offset, base, info & 0xFFFFFFFF, value, addend, slot, room)


def protect(base: int, size: int, writable: bool) -> None:
    """Make the mapping executable; not writable any more unless it must be."""
    libc = ctypes.CDLL(None, use_errno=True)
    mode = mmap.PROT_READ | mmap.PROT_EXEC | (mmap.PROT_WRITE if writable else 0)
    if libc.mprotect(ctypes.c_void_p(base), ctypes.c_size_t(size), mode) != 0:
        raise ObjectError(f"the system refuses executable memory (errno {ctypes.get_errno()})")
    if host_machine() == AARCH64:
        flush = getattr(_compiler_library(), "__clear_cache", None)
        if flush is not None:
            flush(ctypes.c_void_p(base), ctypes.c_void_p(base + size))


def _compiler_library() -> Any:
    try:
        return ctypes.CDLL("libgcc_s.so.1")
    except OSError:
        return None


@lru_cache(maxsize=1)
def _linker() -> tuple[Any, Iterator[int]]:
    """LLVM's own linker, for systems whose object format is not read here, and numbers for its libraries."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.create_lljit_compiler(), itertools.count()


def load_by_llvm(data: bytes, names: tuple[str, ...]) -> Loaded:
    """`load` for any object format of this system; costs the import of LLVM."""
    import llvmlite.binding as llvm

    jit, numbers = _linker()
    builder = llvm.JITLibraryBuilder().add_object_img(data).add_current_process()
    for name in names:
        builder.export_symbol(name)
    try:
        tracker = builder.link(jit, f"polyai.{next(numbers)}")
    except RuntimeError as broken:
        raise ObjectError("the linker refuses the object file", str(broken)) from None
    return Loaded({name: tracker[name] for name in names}, tracker)


__all__ = ["Loaded", "ObjectError", "load"]
