"""Loads object code into this process without LLVM: reads a relocatable ELF file, places it, and patches its addresses.

    load(object_bytes, ("spmm",)).addresses["spmm"]  ->  1234...

Sections that live in memory are laid out in one private mapping, the patched bytes are written, and only then is the
mapping made executable (and no longer writable, unless a section asks for writing). Code may be several objects, which `bundle`
puts together. Names that none of them defines are looked up in LIBRARIES of the C library and libm. Formats other than ELF for
x86-64 and AArch64 go through LLVM's linker.

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
from collections.abc import Iterator, Mapping, Sequence
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
GLOBAL = 1
UNDEFINED, ABSOLUTE = 0, 0xFFF1
EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
SHDR = struct.Struct("<IIQQQQIIQQ")
SYM = struct.Struct("<IBBHQQ")
RELA_ENTRY = struct.Struct("<QQq")
SEVERAL = b"polyai objects\n"
"""How a bundle begins; then their number, their lengths, and the objects."""
MOST_OBJECTS = 64
COUNT = struct.Struct("<Q")
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
    public: bool = False


def bundle(objects: Sequence[bytes]) -> bytes:
    """Several object files as one; a single one as it is."""
    if len(objects) == 1:
        return objects[0]
    return b"".join((SEVERAL, COUNT.pack(len(objects)), *(COUNT.pack(len(o)) for o in objects), *objects))


def objects_of(data: bytes) -> list[bytes]:
    """The object files in a bundle."""
    if not data.startswith(SEVERAL):
        return [data]
    at = len(SEVERAL) + COUNT.size
    count = COUNT.unpack_from(data, len(SEVERAL))[0] if at <= len(data) else 0
    if not 0 < count <= MOST_OBJECTS or at + COUNT.size * count > len(data):
        raise ObjectError("a bundle of object files is cut off")
    lengths = [COUNT.unpack_from(data, at + COUNT.size * k)[0] for k in range(count)]
    at += COUNT.size * count
    out = []
    for length in lengths:
        out.append(data[at : at + length])
        at += length
    if at != len(data):
        raise ObjectError("a bundle of object files is cut off")
    return out


def load(object_bytes: bytes, names: tuple[str, ...]) -> Loaded:
    """Place the code of `object_bytes` in memory and return the addresses of `names`. Raises ObjectError for bytes that are
    no object file of this machine, nor several of them, or that use what is not supported."""
    objects = objects_of(object_bytes)
    if all(o[:4] == b"\x7fELF" for o in objects):
        return _load_elf(objects, names)
    if sys.platform.startswith("linux"):
        raise ObjectError("not an ELF object file")
    return load_by_llvm(object_bytes, names)


@node
class Unit:
    """One object file, and where its sections go."""

    data: bytes
    sections: list[Section]
    symbols: list[Symbol]
    places: dict[int, int]


def _load_elf(objects: Sequence[bytes], names: tuple[str, ...]) -> Loaded:
    units: list[Unit] = []
    size, writable, machine = 0, False, host_machine()
    for data in objects:
        found, sections = read_sections(data)
        if found != machine:
            raise ObjectError("the object file is for another processor")
        places, size, writes = layout(sections, size)
        units.append(Unit(data, sections, read_symbols(data, sections), places))
        writable = writable or writes
    ours = {s.name: u.places[s.section] + s.value for u in units for s in u.symbols if s.section in u.places and (s.public or len(units) == 1)}
    foreign = list(dict.fromkeys(s.name for u in units for s in u.symbols if s.section == UNDEFINED and s.name and (len(units) == 1 or s.name not in ours)))
    if relocate.SLOTS * len(foreign) + size > MAX_BYTES:
        raise ObjectError("the object file is too large")
    missing = [n for n in names if n not in ours]
    if missing:
        raise ObjectError(f"the object file does not define {', '.join(missing)}")
    table = size
    whole = max(PAGE, _up(size + relocate.SLOTS * len(foreign), PAGE))
    memory = mmap.mmap(-1, whole, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    stubs = write_stubs(machine, memory, base, table, foreign)
    for u in units:
        for k, s in enumerate(u.sections):
            if k in u.places and s.kind != NOBITS:
                memory[u.places[k] : u.places[k] + s.size] = u.data[s.offset : s.offset + s.size]
        patch(u.data, machine, u.sections, u.symbols, u.places, memory, base, stubs, ours if len(units) > 1 else {})
    protect(base, len(memory), writable)
    return Loaded({n: base + ours[n] for n in names}, memory)


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
        name, info, _, index, value, _ = SYM.unpack_from(data, table.offset + k * SYM.size)
        end = text.find(b"\0", name)
        if name >= max(1, len(text)) or end < 0:
            raise ObjectError(f"symbol {k} has no name")
        if index < len(sections) and index != UNDEFINED and value > sections[index].size:
            raise ObjectError(f"symbol {k} lies outside its section")
        out.append(Symbol(text[name:end].decode("utf-8", "replace"), index, value, info >> 4 == GLOBAL))
    return out


def layout(sections: list[Section], at: int = 0) -> tuple[dict[int, int], int, bool]:
    """Where each section that lives in memory goes, from `at` on, where they end, and whether one of them is written to."""
    places: dict[int, int] = {}
    writable = False
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
    elsewhere: Mapping[str, int],
) -> None:
    """Apply the relocations of the sections that are in memory. `elsewhere`: where the other objects' names are."""
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
            elif symbol.section == UNDEFINED and symbol.name in elsewhere:
                value = base + elsewhere[symbol.name]
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
    builder = llvm.JITLibraryBuilder().add_current_process()
    for part in objects_of(data):
        builder = builder.add_object_img(part)
    for name in names:
        builder.export_symbol(name)
    try:
        tracker = builder.link(jit, f"polyai.{next(numbers)}")
    except RuntimeError as broken:
        raise ObjectError("the linker refuses the object file", str(broken)) from None
    return Loaded({name: tracker[name] for name in names}, tracker)


__all__ = ["Loaded", "ObjectError", "load"]
