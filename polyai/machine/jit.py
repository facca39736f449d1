"""LLVM IR text to object code. The only file, with `cpu`, that imports llvmlite, and only when something is compiled.

No optimisation pipeline runs: the loops are already vectorised, so stack slots become registers (sroa), the short helpers
are inlined, and the rest is instruction selection.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from polyai.errors import VerifyError
from polyai.machine.cpu import HOST, Target

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
def _machine(target: Target) -> Any:
    llvm = _llvm()
    cpu, features = target.cpu, target.features
    if cpu == HOST:
        cpu = llvm.get_host_cpu_name()
    else:
        _all_targets()
    if features == HOST:
        features = llvm.get_host_cpu_features().flatten()
    found = llvm.Target.from_triple(target.triple)
    return found.create_target_machine(cpu=cpu, features=features, opt=OPT, reloc="pic", codemodel="small")


def _compiled(ir_text: str, target: Target) -> tuple[Any, Any]:
    """The parsed and simplified module, and the machine to emit it with."""
    llvm, machine = _llvm(), _machine(target)
    try:
        module = llvm.parse_assembly(ir_text)
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


def compile_object(ir_text: str, target: Target) -> bytes:
    """The relocatable object file of a module, in the format of the target's system."""
    module, machine = _compiled(ir_text, target)
    code: bytes = machine.emit_object(module)
    return code


def assembly(ir_text: str, target: Target) -> str:
    """The assembly text of a module, for people to read."""
    module, machine = _compiled(ir_text, target)
    text: str = machine.emit_assembly(module)
    return text
