"""The object loader: what it accepts, what it refuses, and that bad bytes never crash it."""

from __future__ import annotations

import ctypes
import mmap
import os
import random
import re
import struct
import subprocess
import sys

import llvmlite.binding as llvm
import numpy as np
import pytest

from polyai.errors import VerifyError
from polyai.machine import cpu, emit, jit, load, relocate
from polyai.scalar import dtype as dt
from tests.machine import kernels
from tests.machine.harness import ENTRY, Compiled, elementwise, op

HOST = cpu.host()
ARM = cpu.describe("aarch64", frozenset(), "aarch64-unknown-linux-gnu")
ARM = cpu.Target(ARM.triple, "cortex-a72", "+neon", ARM.vector_bits, ARM.registers, fma=True, half=True)


def library_object() -> bytes:
    """Code with constants, a call of libm and a helper."""
    kernel = elementwise("f", (dt.f64, dt.f64), dt.f64, lambda x, y: op("mod", op("exp", x), op("sin", y)), 4)
    return jit.compile_object(emit.emit(kernel, HOST), HOST)


def test_foreign_functions_and_constants_are_found() -> None:
    x, y, z = np.linspace(0.1, 3, 9), np.linspace(1, 2, 9), np.zeros(9)
    kernel = elementwise("f", (dt.f64, dt.f64), dt.f64, lambda x, y: op("mod", op("exp", x), op("sin", y)), 4)
    assert Compiled(kernel)(9, x, y, z) == 0
    np.testing.assert_allclose(z, np.exp(x) % np.sin(y), rtol=1e-13)


def test_the_linker_of_other_systems_gives_the_same_code() -> None:
    kernel = elementwise("f", (dt.f64,), dt.f64, lambda x: op("exp", x), 4)
    run = Compiled(kernel)
    x, ours, theirs = np.linspace(-3, 3, 9), np.zeros(9), np.zeros(9)
    assert run(9, x, ours) == 0
    loaded = [load.load_by_llvm(run.object, ("f",)) for _ in range(2)]
    run.entry = ENTRY(loaded[1].addresses["f"])
    assert run(9, x, theirs) == 0
    np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(load.ObjectError, match="refuses"):
        load.load_by_llvm(run.object, ("nobody",))


def test_the_code_of_a_kernel_is_not_writable() -> None:
    loaded = Compiled(kernels.spmm()).loaded
    address = loaded.addresses["spmm"]
    with open("/proc/self/maps", encoding="ascii") as lines:
        for line in lines:
            low, high = (int(v, 16) for v in line.split()[0].split("-"))
            if low <= address < high:
                assert line.split()[1] == "r-xp"
                return
    raise AssertionError("the code is not mapped")


def test_names_that_are_missing_are_told() -> None:
    with pytest.raises(load.ObjectError, match="does not define nobody"):
        load.load(library_object(), ("f", "nobody"))


def test_other_formats_and_machines_are_refused() -> None:
    arm = jit.compile_object(emit.emit(kernels.spmm(), ARM), ARM)
    wrong = arm if HOST.triple.startswith("x86") else jit.compile_object("", cpu.Target("x86_64-unknown-linux-gnu", "x86-64", ""))
    for data, message in ((b"", "not an ELF"), (b"MZ" + b"\0" * 200, "not an ELF"), (b"\x7fELF", "too short"), (wrong, "another processor")):
        with pytest.raises(load.ObjectError, match=message):
            load.load(data, ("f",))


def test_functions_outside_the_list_are_not_linked() -> None:
    text = f'target triple = "{HOST.triple}"\ndeclare i32 @system(ptr)\ndefine i64 @f(ptr %a, ptr %b) {{\n  %r = call i32 @system(ptr %a)\n  ret i64 0\n}}\n'
    with pytest.raises(load.ObjectError, match="system"):
        load.load(jit.compile_object(text, HOST), ("f",))


def test_every_cut_and_many_flipped_bytes_raise_or_load() -> None:
    """In a process of its own, so that a crash is a failure and not the end of the tests."""
    code = f"from tests.machine.test_load import attack; attack({os.getpid()})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    tried, refused = map(int, done.stdout.split())
    assert tried > 3000 and refused > tried // 20


def attack(seed: int) -> None:
    """Damage an object file in every way and load it (never running it)."""
    random.seed(seed)
    good = library_object()
    tried = refused = 0
    starts = struct.unpack_from("<Q", good, 40)[0]
    interesting = [*range(64), *range(starts, len(good))]
    for k in range(3500):
        data = bytearray(good)
        if k < 300:
            data = data[: random.randrange(len(good))]
        else:
            for _ in range(random.choice([1, 1, 2, 8])):
                at = random.choice(interesting) if k % 3 else random.randrange(len(data))
                data[at] = random.choice([0, 1, 0x7F, 0xFF, random.randrange(256)])
        tried += 1
        try:
            load.load(bytes(data), ("f",))
        except load.ObjectError:
            refused += 1
    print(tried, refused)


def decode_adrp(word: int, place: int) -> int:
    """The page an ADRP instruction names."""
    pages = (word >> 29 & 3) | (word >> 5 & 0x7FFFF) << 2
    pages -= (pages >> 20 & 1) << 21
    return (place >> 12) + pages << 12


def test_arm_code_is_patched() -> None:
    """Constants by page and offset, calls by displacement: decoded again and compared with where the symbols went."""
    kernel = elementwise("f", (dt.f64, dt.f64), dt.f64, lambda x, y: op("mod", op("exp", x), op("sin", y)), 2)
    data = jit.compile_object(emit.emit(kernel, ARM), ARM)
    machine, sections = load.read_sections(data)
    assert machine == load.AARCH64
    symbols = load.read_symbols(data, sections)
    places, size, _ = load.layout(sections)
    foreign = [s.name for s in symbols if s.section == 0 and s.name]
    memory = mmap.mmap(-1, size + relocate.SLOTS * len(foreign) + mmap.PAGESIZE)
    base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for k, s in enumerate(sections):
        if k in places and s.kind != load.NOBITS:
            memory[places[k] : places[k] + s.size] = data[s.offset : s.offset + s.size]
    stubs = load.write_stubs(machine, memory, base, size, foreign)
    load.patch(data, machine, sections, symbols, places, memory, base, stubs, {})
    kinds: set[int] = set()
    for table in sections:
        if table.kind != load.RELA or table.info not in places:
            continue
        for k in range(table.size // 24):
            offset, info, addend = load.RELA_ENTRY.unpack_from(data, table.offset + 24 * k)
            symbol, kind, at = symbols[info >> 32], info & 0xFFFFFFFF, places[table.info] + offset
            (word,) = struct.unpack_from("<I", memory, at)
            where = stubs[symbol.name] + 8 if symbol.section == 0 else base + places[symbol.section] + symbol.value + addend
            kinds.add(kind)
            if kind == 275:
                assert decode_adrp(word, base + at) == where & ~0xFFF
            elif kind in (282, 283):
                step = word & 0x3FFFFFF
                assert base + at + ((step - (step >> 25 << 26)) << 2) == where
            elif kind in relocate._SHIFT:
                assert (word >> 10 & 0xFFF) << relocate._SHIFT[kind] == where & 0xFFF
    assert {275, 283} <= kinds and kinds & set(relocate._SHIFT)


def test_a_relocation_that_does_not_fit_is_refused() -> None:
    memory = bytearray(16)
    with pytest.raises(load.ObjectError, match="does not fit"):
        relocate.x86_64(memory, 0, 0, 2, 1 << 40, 0, None, 16)
    with pytest.raises(load.ObjectError, match="does not fit"):
        relocate.x86_64(memory, 14, 0, 1, 5, 0, None, 2)
    with pytest.raises(load.ObjectError, match="too far"):
        relocate.aarch64(memory, 0, 0, 283, 1 << 30, 0, None, 16)
    with pytest.raises(load.ObjectError, match="not supported"):
        relocate.x86_64(memory, 0, 0, 99, 0, 0, None, 16)


def test_loading_needs_no_compiler() -> None:
    code = "import sys, polyai.machine.load, polyai.machine.cpu as c; c.host(); c.host_key(); print('llvmlite' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"


def test_the_host_is_described_as_llvm_sees_it() -> None:
    features = llvm.get_host_cpu_features()
    assert HOST.fma == bool(features.get("fma", HOST.fma))
    assert HOST.vector_bits >= 128 and HOST.cores >= 1 and HOST.lanes(32) * 32 == HOST.vector_bits
    assert re.fullmatch(r"[0-9a-f]{32}", cpu.host_key()) and cpu.host_key() == cpu.host_key()


def test_invalid_text_is_a_defect_of_ours() -> None:
    with pytest.raises(VerifyError, match="invalid LLVM IR"):
        jit.compile_object("define i64 @f() { ret i32 0 }", HOST)
