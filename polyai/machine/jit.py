"""LLVM IR text to object code. The only file, with `cpu`, that imports llvmlite, and only when something is compiled.

No optimisation pipeline runs: the loops are already vectorised, so stack slots become registers (sroa), the short helpers
are inlined, and the rest is instruction selection. A long module is compiled in parts, by several threads (see `parts`).
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

from polyai.errors import VerifyError
from polyai.machine import parts
from polyai.machine.cpu import HOST, Target
from polyai.machine.load import bundle

Background = Callable[[Callable[[], None], str], threading.Thread]
"""Starts a thread that does some work: `runtime.shared.in_background`."""

OPT = 2
"""LLVM's code generation level: 1 saves a tenth of the time and does not reduce the strength of addresses in loops."""


@lru_cache(maxsize=1)
def _llvm() -> Any:
    """llvmlite, initialised once for this machine's instruction set."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm


@lru_cache(maxsize=1)
def _all_targets() -> None:
    llvm = _llvm()
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()


@lru_cache(maxsize=8)
def _described(target: Target) -> tuple[str, str]:
    """Processor and features, as LLVM names them."""
    llvm = _llvm()
    cpu, features = target.cpu, target.features
    if cpu == HOST:
        cpu = llvm.get_host_cpu_name()
    else:
        _all_targets()
    return cpu, llvm.get_host_cpu_features().flatten() if features == HOST else features


def _machine(target: Target, opt: int = OPT) -> Any:
    """What LLVM generates code with, at level `opt`; one thread at a time may use it."""
    llvm = _llvm()
    cpu, features = _described(target)
    found = llvm.Target.from_triple(target.triple)
    return found.create_target_machine(cpu=cpu, features=features, opt=opt, reloc="pic", codemodel="small")


def _compiled(ir_text: str, target: Target) -> tuple[Any, Any]:
    """The parsed and simplified module, in a context of its own, and the machine to emit it with."""
    llvm, machine = _llvm(), _machine(target, 0 if parts.is_straight(ir_text) else OPT)
    try:
        module = llvm.parse_assembly(ir_text, llvm.create_context())
        module.verify()
    except RuntimeError as broken:
        raise VerifyError("the code generator wrote invalid LLVM IR", str(broken)) from None
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=1))
    passes = llvm.create_new_module_pass_manager()
    passes.add_always_inliner_pass()
    passes.run(module, builder)
    functions = llvm.create_new_function_pass_manager()
    functions.add_sroa_pass()
    for function in module.functions:
        if not function.is_declaration:
            functions.run(function, builder)
    return module, machine


def _emitted(module: Any, machine: Any) -> bytes:
    """`machine.emit_object(module)`, while other threads do the same with modules of theirs.

    llvmlite lets one thread into LLVM at a time, because most of its users share one context. LLVM itself asks for no more than
    a context for each thread (LLVM Programmer's Manual, "Threads and LLVM"), and so does this call: module and machine are its own.
    """
    from llvmlite.binding import ffi

    emit = getattr(ffi.lib.LLVMPY_TargetMachineEmitToMemory, "_cfn", None)
    if emit is None:
        code: bytes = machine.emit_object(module)
        return code
    with ffi.OutputString() as message:
        buffer = emit(machine, module, 1, message)
        if not buffer:
            raise VerifyError("LLVM generates no code", str(message))
    try:
        return ctypes.string_at(ffi.lib.LLVMPY_GetBufferStart(buffer), ffi.lib.LLVMPY_GetBufferSize(buffer))
    finally:
        ffi.lib.LLVMPY_DisposeMemoryBuffer(buffer)


def compile_object(ir_text: str, target: Target, background: Background | None = None) -> bytes:
    """The relocatable object file of a module, in the format of the target's system; several, as `load.bundle` puts them
    together, if it is long. `background` starts threads for these: as many as the target has cores."""
    texts = parts.split(ir_text)
    done: dict[int, bytes | Exception] = {}
    left = iter(range(len(texts)))
    threads = [] if background is None else [background(lambda: _work(left, texts, target, done), "polyai-object") for _ in texts[1 : target.cores]]
    _work(left, texts, target, done)
    for thread in threads:
        thread.join()
    objects = []
    for number in range(len(texts)):
        found = done[number]
        if isinstance(found, Exception):
            raise found
        objects.append(found)
    return bundle(objects)


def _work(left: Iterator[int], texts: tuple[str, ...], target: Target, done: dict[int, bytes | Exception]) -> None:
    """Compile what is left, one after another."""
    for number in left:
        try:
            done[number] = _emitted(*_compiled(texts[number], target))
        except Exception as error:
            done[number] = error


def assembly(ir_text: str, target: Target) -> str:
    """The assembly text of a module, for people to read."""
    module, machine = _compiled(ir_text, target)
    text: str = machine.emit_assembly(module)
    return text
