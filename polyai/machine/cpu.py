"""What the machine can do: instruction set, vector width, registers, cores. Reads the system, imports nothing heavy."""

from __future__ import annotations

import os
import platform
from functools import lru_cache

from polyai.errors import UnsupportedError
from polyai.term.digest import digest
from polyai.term.node import node

HOST = "host"
"""As `cpu` and `features` of a Target: what LLVM finds on this machine when it compiles."""


@node
class Target:
    """A machine to compile for. `features` is LLVM's list (`+avx2,-...`); `registers` counts vector registers.

    `fma`: multiply-add is one instruction. `half`: f16 converts in hardware. `gather`: indexed vector loads exist.
    """

    triple: str
    cpu: str = HOST
    features: str = HOST
    vector_bits: int = 128
    registers: int = 16
    fma: bool = False
    half: bool = False
    gather: bool = False
    cores: int = 1

    def lanes(self, bits: int) -> int:
        """How many elements of `bits` bits one vector register holds."""
        return max(1, self.vector_bits // bits)


_TRIPLES = {
    "Linux": "{arch}-unknown-linux-gnu",
    "Darwin": "{arch}-apple-darwin",
    "Windows": "{arch}-pc-windows-msvc",
}
_ARCHITECTURES = {"x86_64": "x86_64", "AMD64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}


def architecture() -> str:
    """`x86_64` or `aarch64`. Raises UnsupportedError elsewhere."""
    found = _ARCHITECTURES.get(platform.machine())
    if found is None:
        raise UnsupportedError(
            f"no code generator for the machine {platform.machine()}",
            f"known are {', '.join(_ARCHITECTURES)}",
            "use interpretation (backend='interp') or another machine",
        )
    return found


@lru_cache(maxsize=1)
def flags() -> frozenset[str]:
    """The instruction-set flags in the spelling of Linux."""
    found: set[str] = set()
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if line.startswith(("flags", "Features")):
                    found.update(line.partition(":")[2].split())
                    break
    except OSError:
        found = _flags_of_llvm()
    return frozenset(found)


def _flags_of_llvm() -> set[str]:
    """Where there is no /proc/cpuinfo. Costs the import of LLVM."""
    import llvmlite.binding as llvm

    return {name for name, on in llvm.get_host_cpu_features().items() if on}


def describe(arch: str, has: frozenset[str], triple: str, cores: int = 1) -> Target:
    """The Target of an architecture with the given flags."""
    if arch == "aarch64":
        return Target(triple, vector_bits=128, registers=32, fma=True, half=True, cores=cores)
    wide = {"avx512f", "avx512bw", "avx512dq", "avx512vl"} <= has
    bits = 512 if wide else 256 if "avx2" in has else 128
    return Target(
        triple,
        vector_bits=bits,
        registers=32 if wide else 16,
        fma="fma" in has,
        half="f16c" in has,
        gather="avx2" in has,
        cores=cores,
    )


@lru_cache(maxsize=1)
def host() -> Target:
    """This machine."""
    arch = architecture()
    triple = _TRIPLES.get(platform.system(), "{arch}-unknown-unknown").format(arch=arch)
    return describe(arch, flags(), triple, cores())


def cores() -> int:
    """The processors this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@lru_cache(maxsize=1)
def host_key() -> str:
    """A short text that differs between machines whose compiled code may differ; for cache keys."""
    model = ""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            wanted = ("model name", "vendor_id", "cpu family", "model", "stepping", "CPU implementer", "CPU part")
            seen: dict[str, str] = {}
            for line in lines:
                name, _, value = line.partition(":")
                if not name.strip() and seen:
                    break
                if name.strip() in wanted:
                    seen[name.strip()] = value.strip()
            model = ";".join(f"{k}={v}" for k, v in sorted(seen.items()))
    except OSError:
        model = platform.processor()
    return digest(platform.system(), platform.machine(), model, tuple(sorted(flags())))
