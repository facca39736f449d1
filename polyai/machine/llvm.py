"""LLVM through llvmlite: what code generation needs of it, in two ways that do the same.

    host()                        the processor and its features, as LLVM names them
    machine(triple, ..., opt)     what generates code for a target, at a level of optimisation
    read(text, machine)           a module in a context of its own: parsed, verified, helpers inlined, stack slots made registers
    emit(module, machine, ...)    its object code or its assembly

`Binding` goes through `llvmlite.binding`, whose import makes classes for all of LLVM: 17 ms of the interpreter's time beside the 10 that the
library takes to load. `Library` calls the library under it, with versions of llvmlite whose functions were read, and for the host only.

LLVM asks for no more than a context for each thread (LLVM Programmer's Manual, "Threads and LLVM"), and each module has its own here. Code
generation, the one long call, lets other Python threads run; the short ones keep the interpreter lock, as handing it to and fro would take
longer than they do. Not so beside a thread that imports, and hands the lock on at every file: `read` with `yielding` keeps it in no call.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import weakref
from pathlib import Path
from typing import Any

import llvmlite

from polyai.errors import VerifyError

READ = frozenset({"0.50.0"})
"""Versions of llvmlite whose C functions take the arguments that `Library` gives."""

RELOC, MODEL = "pic", "small"


class Binding:
    """By `llvmlite.binding`."""

    def __init__(self) -> None:
        import llvmlite.binding as llvm

        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        self._llvm = llvm

    def all_targets(self) -> None:
        """Make targets known that are not the host."""
        self._llvm.initialize_all_targets()
        self._llvm.initialize_all_asmprinters()

    def host(self) -> tuple[str, str]:
        return self._llvm.get_host_cpu_name(), self._llvm.get_host_cpu_features().flatten()

    def machine(self, triple: str, cpu: str, features: str, opt: int) -> Any:
        return self._llvm.Target.from_triple(triple).create_target_machine(cpu=cpu, features=features, opt=opt, reloc=RELOC, codemodel=MODEL)

    def read(self, text: str, machine: Any, *, yielding: bool = False) -> Any:
        llvm, module = self._llvm, None
        try:
            module = llvm.parse_assembly(text, llvm.create_context())
            module.verify()
        except RuntimeError as broken:
            if module is not None:
                module.close()  # the collector, which frees what an error holds, might begin with the context
            raise VerifyError("the code generator wrote invalid LLVM IR", str(broken)) from None
        builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=1))
        passes = llvm.create_new_module_pass_manager()
        passes.add_always_inliner_pass()
        passes.add_sroa_pass()
        passes.run(module, builder)
        return module

    def emit(self, module: Any, machine: Any, *, assembly: bool = False) -> bytes:
        # llvmlite lets one thread into LLVM at a time, because most of its users share one context
        from llvmlite.binding import ffi

        emit = getattr(ffi.lib.LLVMPY_TargetMachineEmitToMemory, "_cfn", None)
        if assembly or emit is None:
            made: bytes = machine.emit_assembly(module).encode() if assembly else machine.emit_object(module)
            return made
        with ffi.OutputString() as message:
            buffer = emit(machine, module, 1, message)
            if not buffer:
                raise VerifyError("LLVM generates no code", str(message))
        try:
            return ctypes.string_at(ffi.lib.LLVMPY_GetBufferStart(buffer), ffi.lib.LLVMPY_GetBufferSize(buffer))
        finally:
            ffi.lib.LLVMPY_DisposeMemoryBuffer(buffer)


_P, _S, _I, _OUT = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.POINTER(ctypes.c_void_p)
_FUNCTIONS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "InitializeNativeTarget": (None, ()),
    "InitializeNativeAsmPrinter": (None, ()),
    "GetHostCPUName": (None, (_OUT,)),
    "GetHostCPUFeatures": (_I, (_OUT,)),
    "DisposeString": (None, (_P,)),
    "GetTargetFromTriple": (_P, (_S, _OUT)),
    "CreateTargetMachine": (_P, (_P, _S, _S, _S, _I, _S, _S, _I, _I, _S)),
    "DisposeTargetMachine": (None, (_P,)),
    "ContextCreate": (_P, ()),
    "ContextDispose": (None, (_P,)),
    "ParseAssembly": (_P, (_P, _S, _OUT)),
    "VerifyModule": (ctypes.c_bool, (_P, _OUT)),
    "DisposeModule": (None, (_P,)),
    "CreatePipelineTuningOptions": (_P, ()),
    "DisposePipelineTuningOptions": (None, (_P,)),
    "CreatePassBuilder": (_P, (_P, _P)),
    "DisposePassBuilder": (None, (_P,)),
    "CreateNewModulePassManager": (_P, ()),
    "DisposeNewModulePassManger": (None, (_P,)),  # as it is spelled there
    "module_AddAlwaysInlinerPass": (None, (_P,)),
    "module_AddSROAPass": (None, (_P,)),
    "RunNewModulePassManager": (None, (_P, _P, _P)),
    "GetBufferStart": (_P, (_P,)),
    "GetBufferSize": (ctypes.c_size_t, (_P,)),
    "DisposeMemoryBuffer": (None, (_P,)),
}
"""Result and arguments of each function; their names begin with LLVMPY_."""


class Owned:
    """Something of LLVM's, given back by `dispose` when nobody holds it any more."""

    __slots__ = ("__weakref__", "address")

    def __init__(self, address: int | None, *dispose: tuple[Any, int]) -> None:
        if not address:
            raise VerifyError("LLVM made nothing", "")
        self.address = address
        weakref.finalize(self, _give_back, dispose).atexit = False


def _give_back(dispose: tuple[tuple[Any, int], ...]) -> None:
    for function, address in dispose:
        function(address)


def _functions(library: ctypes.CDLL) -> dict[str, Any]:
    out = {}
    for name, (result, arguments) in _FUNCTIONS.items():
        function = out[name] = getattr(library, f"LLVMPY_{name}")
        function.restype, function.argtypes = result, arguments
    return out


def _loaded(path: Path) -> int | None:
    """The handle of a library. Loading this one takes 10 ms, for which `ctypes` would keep the interpreter lock."""
    load = ctypes.CDLL(None).dlopen
    load.restype, load.argtypes = _P, (_S, _I)
    return load(os.fsencode(path), os.RTLD_NOW) or None  # without one `ctypes` tries again, and says why not


class Library:
    """By the functions of llvmlite's library. Raises OSError or AttributeError where they are not there."""

    def __init__(self, path: Path) -> None:
        handle = _loaded(path)
        short, long = ctypes.PyDLL(str(path), handle=handle), ctypes.CDLL(str(path), handle=handle)
        self._calls, self._yielding = _functions(short), _functions(long)
        self._emit = long.LLVMPY_TargetMachineEmitToMemory
        self._emit.restype, self._emit.argtypes = _P, (_P, _P, _I, _OUT)
        self._yielding["InitializeNativeTarget"]()
        self._yielding["InitializeNativeAsmPrinter"]()

    def _text(self, out: ctypes.c_void_p) -> str:
        """The string that a function wrote, given back."""
        if not out.value:
            return ""
        text = ctypes.string_at(out.value).decode()
        self._calls["DisposeString"](out)
        return text

    def host(self) -> tuple[str, str]:
        name, features = ctypes.c_void_p(), ctypes.c_void_p()
        self._calls["GetHostCPUName"](name)
        self._calls["GetHostCPUFeatures"](features)
        return self._text(name), ",".join(sorted((f for f in self._text(features).split(",") if f), key=lambda f: f[1:]))

    def machine(self, triple: str, cpu: str, features: str, opt: int) -> Owned:
        c, why = self._calls, ctypes.c_void_p()
        target = c["GetTargetFromTriple"](triple.encode(), why)
        if not target:
            raise RuntimeError(self._text(why))
        made = c["CreateTargetMachine"](target, triple.encode(), cpu.encode(), features.encode(), opt, RELOC.encode(), MODEL.encode(), 0, 0, b"")
        return Owned(made, (c["DisposeTargetMachine"], made))

    def read(self, text: str, machine: Owned, *, yielding: bool = False) -> Owned:
        c, why = self._yielding if yielding else self._calls, ctypes.c_void_p()
        context = c["ContextCreate"]()
        made = c["ParseAssembly"](context, text.encode(), why)
        if not made:
            c["ContextDispose"](context)
            raise VerifyError("the code generator wrote invalid LLVM IR", self._text(why))
        module = Owned(made, (c["DisposeModule"], made), (c["ContextDispose"], context))
        self._text(why)
        if c["VerifyModule"](made, why):
            raise VerifyError("the code generator wrote invalid LLVM IR", self._text(why))
        self._text(why)
        options = c["CreatePipelineTuningOptions"]()
        builder = c["CreatePassBuilder"](machine.address, options)
        passes = c["CreateNewModulePassManager"]()
        try:
            c["module_AddAlwaysInlinerPass"](passes)
            c["module_AddSROAPass"](passes)
            c["RunNewModulePassManager"](passes, made, builder)
        finally:
            c["DisposeNewModulePassManger"](passes)
            c["DisposePassBuilder"](builder)
            c["DisposePipelineTuningOptions"](options)
        return module

    def emit(self, module: Owned, machine: Owned, *, assembly: bool = False) -> bytes:
        c, why = self._calls, ctypes.c_void_p()
        buffer = self._emit(machine.address, module.address, 0 if assembly else 1, why)
        if not buffer:
            raise VerifyError("LLVM generates no code", self._text(why))
        self._text(why)
        try:
            return ctypes.string_at(c["GetBufferStart"](buffer), c["GetBufferSize"](buffer))
        finally:
            c["DisposeMemoryBuffer"](buffer)


def library() -> Library | None:
    """The library itself, if this version of llvmlite is known and lies where it should."""
    if is_known():
        with contextlib.suppress(OSError, AttributeError):
            return Library(Path(llvmlite.__file__).parent / "binding" / "libllvmlite.so")
    return None


def is_known() -> bool:
    """Whether the functions of this version of llvmlite were read: then no class is made for each of LLVM's."""
    return llvmlite.__version__ in READ and sys.platform == "linux"
