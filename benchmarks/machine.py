"""What this machine can do: bandwidth by size of the working set, and the peak of fused multiply-add. The two roofs.

The kernels are a few lines of LLVM IR compiled here, so that the roof does not depend on the compiler under test.
"""

from __future__ import annotations

import ctypes
import os
import platform
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import numpy as np

ACCUMULATORS = 12  # latency of an FMA (4 cycles) times two units, and some spare
READ = "read"
TRIAD = "triad"
SIZES = {"16 KiB": 16 << 10, "512 KiB": 512 << 10, "8 MiB": 8 << 20, "256 MiB": 256 << 20}


@dataclass
class Machine:
    """Bandwidths in bytes/s by (kernel, threads, size), peaks in flop/s by threads."""

    cpu: str
    cores: int
    lanes_f32: int
    bandwidth: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    peak_f32: dict[str, float] = field(default_factory=dict)

    def memory(self, threads: int) -> float:
        """Read bandwidth from memory."""
        return self.bandwidth[READ][str(threads)]["256 MiB"]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def cpu_name() -> str:
    """The processor's own name, and its family and model, which some virtual machines leave alone."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor() or platform.machine()
    fields = dict(line.split(":", 1) for line in info.read_text().split("\n\n")[0].splitlines() if ":" in line)
    get = {k.strip(): v.strip() for k, v in fields.items()}.get
    return f"{get('model name', platform.machine())} (family {get('cpu family', '?')}, model {get('model', '?')})"


def lanes_f32() -> int:
    features = llvm.get_host_cpu_features()
    return 16 if features.get("avx512f") else 8 if features.get("avx") else 4


def _fma(lanes: int) -> str:
    """Runs `n` steps of ACCUMULATORS independent multiply-adds."""
    v = f"<{lanes} x float>"
    phis = "\n".join(f"  %a{k} = phi {v} [ %s, %entry ], [ %b{k}, %loop ]" for k in range(ACCUMULATORS))
    steps = "\n".join(f"  %b{k} = call {v} @llvm.fma.v{lanes}f32({v} %a{k}, {v} %s, {v} %s)" for k in range(ACCUMULATORS))
    sums = [f"  %t0 = fadd {v} %b0, %b1"]
    sums += [f"  %t{k} = fadd {v} %t{k - 1}, %b{k + 1}" for k in range(1, ACCUMULATORS - 1)]
    return f"""
declare {v} @llvm.fma.v{lanes}f32({v}, {v}, {v})
define void @fma(i64 %n, ptr %p, ptr %q, ptr %r) {{
entry:
  %s = load {v}, ptr %p, align 4
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %j, %loop ]
{phis}
{steps}
  %j = add i64 %i, 1
  %c = icmp slt i64 %j, %n
  br i1 %c, label %loop, label %done
done:
{chr(10).join(sums)}
  store {v} %t{ACCUMULATORS - 2}, ptr %p, align 4
  ret void
}}
"""


def _read(lanes: int, unroll: int = 8) -> str:
    """Adds up n vectors at p; n is a multiple of `unroll`."""
    v = f"<{lanes} x float>"
    phis = "\n".join(f"  %a{k} = phi {v} [ zeroinitializer, %entry ], [ %b{k}, %loop ]" for k in range(unroll))
    steps = "\n".join(
        f"  %o{k} = add i64 %i, {k}\n  %p{k} = getelementptr {v}, ptr %p, i64 %o{k}\n"
        f"  %v{k} = load {v}, ptr %p{k}, align 4\n  %b{k} = fadd {v} %a{k}, %v{k}"
        for k in range(unroll)
    )
    sums = [f"  %t0 = fadd {v} %b0, %b1"] + [f"  %t{k} = fadd {v} %t{k - 1}, %b{k + 1}" for k in range(1, unroll - 1)]
    return f"""
define void @read(i64 %n, ptr %p, ptr %q, ptr %r) {{
entry:
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %j, %loop ]
{phis}
{steps}
  %j = add i64 %i, {unroll}
  %c = icmp slt i64 %j, %n
  br i1 %c, label %loop, label %done
done:
{chr(10).join(sums)}
  store {v} %t{unroll - 2}, ptr %q, align 4
  ret void
}}
"""


def _triad(lanes: int, unroll: int = 4) -> str:
    """r = p + 3 q over n vectors."""
    v = f"<{lanes} x float>"
    three = f"<{', '.join(['float 3.0'] * lanes)}>"
    steps = "\n".join(
        f"  %o{k} = add i64 %i, {k}\n"
        + "".join(f"  %{x}{k} = getelementptr {v}, ptr %{x}, i64 %o{k}\n" for x in "pqr")
        + f"  %x{k} = load {v}, ptr %p{k}, align 4\n  %y{k} = load {v}, ptr %q{k}, align 4\n"
        f"  %z{k} = call {v} @llvm.fma.v{lanes}f32({v} %y{k}, {v} {three}, {v} %x{k})\n  store {v} %z{k}, ptr %r{k}, align 4"
        for k in range(unroll)
    )
    return f"""
define void @triad(i64 %n, ptr %p, ptr %q, ptr %r) {{
entry:
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %j, %loop ]
{steps}
  %j = add i64 %i, {unroll}
  %c = icmp slt i64 %j, %n
  br i1 %c, label %loop, label %done
done:
  ret void
}}
"""


def _again(name: str) -> str:
    """Calls @name `m` times, so that the cost of coming from Python does not count."""
    return f"""
define void @{name}_again(i64 %n, ptr %p, ptr %q, ptr %r, i64 %m) {{
entry:
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %j, %loop ]
  call void @{name}(i64 %n, ptr %p, ptr %q, ptr %r)
  %j = add i64 %i, 1
  %c = icmp slt i64 %j, %m
  br i1 %c, label %loop, label %done
done:
  ret void
}}
"""


class Kernels:
    """The three kernels, compiled for this processor. Call as f(vectors or steps, p, q, r, times); the GIL is released."""

    def __init__(self) -> None:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        self.lanes = lanes_f32()
        target = llvm.Target.from_default_triple()
        machine = target.create_target_machine(
            cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=3
        )
        text = _fma(self.lanes) + _read(self.lanes) + _triad(self.lanes)
        module = llvm.parse_assembly(text + "".join(_again(name) for name in ("fma", "read", "triad")))
        module.verify()
        self._engine = llvm.create_mcjit_compiler(module, machine)
        self._engine.finalize_object()
        prototype = ctypes.CFUNCTYPE(
            None, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64
        )
        self.fma, self.read, self.triad = (
            prototype(self._engine.get_function_address(f"{name}_again")) for name in ("fma", "read", "triad")
        )


def _together(work: Callable[[int], None], threads: int) -> float:
    """Seconds until `threads` threads have each done work(number), all starting at one barrier."""
    if threads == 1:
        begin = time.perf_counter()
        work(0)
        return time.perf_counter() - begin
    barrier, spans = threading.Barrier(threads), [(0.0, 0.0)] * threads

    def one(number: int) -> None:
        barrier.wait()
        begin = time.perf_counter()
        work(number)
        spans[number] = (begin, time.perf_counter())

    pool = [threading.Thread(target=one, args=(k,)) for k in range(threads)]
    for t in pool:
        t.start()
    for t in pool:
        t.join()
    return max(e for _, e in spans) - min(b for b, _ in spans)


def measure(threads: tuple[int, ...] = (1, 2), repeats: int = 5, seconds: float = 0.05) -> Machine:
    """Measure both roofs; a few seconds. The best of `repeats` counts: a roof is what is possible."""
    kernels = Kernels()
    machine = Machine(cpu_name(), os.cpu_count() or 1, kernels.lanes)
    for count in threads:
        buffers = [np.ones(max(SIZES.values()) // 4 // count + 64, np.float32) for _ in range(count)]
        for name in (READ, TRIAD):
            found = {label: _bandwidth(kernels, name, size // count, buffers, repeats, seconds) for label, size in SIZES.items()}
            machine.bandwidth.setdefault(name, {})[str(count)] = found
        machine.peak_f32[str(count)] = _peak(kernels, count, repeats, seconds)
    return machine


def _bandwidth(kernels: Kernels, name: str, size: int, buffers: list[np.ndarray], repeats: int, seconds: float) -> float:
    """Bytes per second moved by one thread per buffer, each over `size` bytes."""
    arrays, width, count = 3 if name == TRIAD else 1, 4 * kernels.lanes, len(buffers)
    vectors = max(8, size // arrays // width // 8 * 8)
    passes = max(1, round(seconds * 20e9 / (vectors * width * arrays * count)))
    call, step = getattr(kernels, name), vectors * width
    sinks = [np.zeros(kernels.lanes, np.float32) for _ in range(count)]

    def work(number: int) -> None:
        base = buffers[number].ctypes.data
        q, r = (base + step, base + 2 * step) if arrays == 3 else (sinks[number].ctypes.data, base)
        call(vectors, base, q, r, passes)

    for number in range(count):
        work(number)
    best = min(_together(work, count) for _ in range(repeats))
    return vectors * width * arrays * passes * count / best


def _peak(kernels: Kernels, count: int, repeats: int, seconds: float) -> float:
    """f32 operations per second of `count` threads."""
    steps = int(seconds * 3e9 / ACCUMULATORS)
    seeds = [np.full(64, 1e-3, np.float32) for _ in range(count)]

    def work(number: int) -> None:
        at = seeds[number].ctypes.data
        kernels.fma(steps, at, at, at, 1)

    best = min(_together(work, count) for _ in range(repeats))
    return 2 * kernels.lanes * ACCUMULATORS * steps * count / best
