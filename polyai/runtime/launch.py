"""The runtime: what kernels need while they run. Nothing here is global; the API keeps one Runtime for a process."""

from __future__ import annotations

import contextlib
import ctypes
import math
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from polyai.errors import PolyAIError, VerifyError
from polyai.machine.abi import NEED_ARENA, OK
from polyai.machine.cpu import cores, host, host_key
from polyai.machine.load import ObjectError
from polyai.options import Options
from polyai.runtime.arena import Arena
from polyai.runtime.bind import address
from polyai.runtime.blocks import Blocks
from polyai.runtime.cache import Cache, default_directory
from polyai.runtime.externs import TOO_LARGE, Externs
from polyai.runtime.kernel import Kernel, Signature
from polyai.runtime.native import Native
from polyai.runtime.run_code import SESSION, SESSION_BYTES
from polyai.runtime.shared import Shared, in_background, renew_after_fork
from polyai.runtime.stats import Stats
from polyai.runtime.steps import LEAST
from polyai.runtime.threads import Pool
from polyai.term.late import late

if TYPE_CHECKING:
    from polyai.machine import jit
else:
    jit = late("polyai.machine.jit")


class OutOfMemoryError(PolyAIError, MemoryError):
    """A kernel asked for more scratch memory than the system gave."""


class Session:
    """What launches with one number of threads share. `pool` is None for one thread."""

    def __init__(self, native: Native, arena: Arena, pool: Pool | None) -> None:
        self.native, self.arena, self.pool = native, arena, pool
        self._memory = Shared(SESSION_BYTES)
        self.threads = pool.threads if pool else 1
        self._memory.set(SESSION["threads"], self.threads)
        self._memory.set(SESSION["parallel"], native["parallel"] if pool else 0)
        self._memory.set(SESSION["pool"], pool.address if pool else 0)
        self._memory.set(SESSION["arena"], arena.address)

    @property
    def address(self) -> int:
        return self._memory.address

    @property
    def calls(self) -> int:
        """How many launches there were."""
        return self._memory.word(SESSION["calls"])


class Runtime:
    """Threads, scratch memory, compiled code and counters. Made cheaply: native parts start with the first kernel."""

    def __init__(self, options: Options, stats: Stats | None = None) -> None:
        self.options = options
        self.stats = stats or Stats()
        directory = Path(options.cache_dir) if options.cache_dir else default_directory()
        self.cache = Cache(directory, options.cache_bytes, host_key(), self.stats)
        self.externs = Externs(self.cache)
        self._lock = threading.RLock()
        self._native: Native | None = None
        self._arena: Arena | None = None
        self._blocks: Blocks | None = None
        self.keeper = Shared(8)  # NumPy's handler of `blocks`, once there are some
        self._run: Any = None
        self._ticks: Any = None
        self._cut: Any = None
        self._epoch = (0.0, 0)
        self._sessions: dict[int, Session] = {}
        self._kernels: dict[str, Kernel] = {}
        self._begun: set[str] = set()
        self._wanted = False  # memory of results that is kept
        renew_after_fork(self)

    @property
    def native(self) -> Native:
        """The runtime's own machine code."""
        with self._lock:
            if self._native is None:
                native = Native(self.cache)
                self._run = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_void_p] * 4)(native["run"])
                self._ticks = ctypes.PYFUNCTYPE(ctypes.c_int64)(native["ticks"])
                p, n = ctypes.c_void_p, ctypes.c_int64
                self._cut = ctypes.PYFUNCTYPE(n, p, n, n, n, p)(native["cut"])
                self._epoch = (time.perf_counter(), self._ticks())
                self._native = native
            return self._native

    def ticks(self) -> int:
        """The processor's clock."""
        self.native  # noqa: B018 (makes it)
        now: int = self._ticks()
        return now

    def seconds(self, ticks: int) -> float:
        """A number of ticks in seconds, by the rate of the clock since this runtime started."""
        now, passed = time.perf_counter(), self.ticks() - self._epoch[1]
        return ticks * (now - self._epoch[0]) / passed if passed > 0 else 0.0

    @property
    def arena(self) -> Arena:
        with self._lock:
            if self._arena is None:
                self._arena = Arena(self.native)
            return self._arena

    @property
    def blocks(self) -> Blocks:
        """Memory of large results."""
        with self._lock:
            if self._blocks is None:
                self._blocks = Blocks(self.native, self.options.result_bytes)
                self.keeper.set(0, id(self._blocks.handler))
            return self._blocks

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """`np.empty(shape, dtype)` for a result; a large one gets memory that was a result before, if there is some. The first
        results do not wait for the code of that to be compiled."""
        if math.prod(shape) * dtype.itemsize < LEAST:
            return np.empty(shape, dtype)
        if self._blocks is None:
            self._wanted = True  # once the kernel has run: it needs the processor
            return np.empty(shape, dtype)
        return self._blocks.empty(shape, dtype)

    def keep_results(self) -> None:
        """From now on, or from when the code of it is compiled, the memory of large results is kept for later ones."""
        if self._blocks is None:
            if self.native.at_hand("block_malloc"):
                self.blocks  # noqa: B018 (makes them)
            else:
                self._in_background("blocks", lambda: (self.native["block_malloc"], self.blocks))

    def cuts(self, bounds: NDArray[Any], total: int, parts: int) -> tuple[NDArray[Any], int]:
        """The rows at which `parts` parts of about equal bounds begin, and the number of rows; the largest bound of a part.
        `bounds` are positions (int64) that end with `total`."""
        rows = len(bounds) - 1
        cuts = np.zeros(parts + 1, np.int64)
        cuts[-1] = rows
        if parts == 1:
            return cuts, total - int(bounds[0])
        self.native  # noqa: B018 (makes it)
        most: int = self._cut(address(bounds), rows, total // parts, parts, address(cuts))
        return cuts, most

    def prepare(self, beside_imports: bool = False) -> None:
        """Load LLVM and make the native parts that launches need, in another thread, to be ready when a kernel is. Failures show up
        later. What only fast calls need would keep the kernel waiting. `beside_imports`: only if that needs next to no time of Python's."""
        threads = self.threads_for(self.options)

        def make() -> None:
            jit.begin(host())
            self.session(threads)

        if not beside_imports or jit.is_light():
            self._in_background("prepare", make)

    def _in_background(self, name: str, make: Callable[[], object]) -> None:
        """Make something once, in another thread; who needs it and does not find it makes it, and meets what goes wrong."""
        if name in self._begun:
            return
        self._begun.add(name)

        def run() -> None:
            with contextlib.suppress(PolyAIError, OSError):
                make()

        in_background(run, f"polyai-{name}")

    def threads_for(self, options: Options) -> int:
        """How many threads a launch under these options uses."""
        return options.num_threads or cores()

    def session(self, threads: int) -> Session:
        """The session for a number of threads. Its pool has not started yet."""
        found = self._sessions.get(threads)
        if found is None:
            with self._lock:
                found = self._sessions.get(threads)
                if found is None:
                    pool = Pool(threads, self.native) if threads > 1 else None
                    found = self._sessions[threads] = Session(self.native, self.arena, pool)
        return found

    def find(self, key: str) -> Kernel | None:
        """The kernel of `key`, from memory or the disk cache; None if it must be compiled."""
        found = self._kernels.get(key)
        if found is not None:
            self.stats.count("memory_hits")
            return found
        entry = self.cache.get(key)
        if entry is None:
            return None
        try:
            signature = Signature.from_json(entry.metadata["signature"])
            kernel = self._load(signature, entry.code, entry.metadata["extra"])
        except (ObjectError, VerifyError, KeyError):
            self.stats.count("corrupt")
            self.cache.forget(key)
            return None
        return self._kernels.setdefault(key, kernel)

    def add(self, key: str, signature: Signature, code: bytes, extra: dict[str, Any] | None = None, *, compiled_here: bool = True) -> Kernel:
        """Keep newly compiled code, in memory and on disk, and make it callable. `extra` must be JSON."""
        kernel = self._load(signature, code, extra or {})
        self.stats.count("compiles" if compiled_here else "helper_compiles")
        self.cache.put(key, {"signature": signature.to_json(), "extra": kernel.extra}, code)
        self._kernels[key] = kernel
        return kernel

    def _load(self, signature: Signature, code: bytes, extra: dict[str, Any]) -> Kernel:
        return Kernel(signature, code, extra, tuple(self.externs.address(name) for name in signature.externs))

    def launch(self, kernel: Kernel, slots: Sequence[int], threads: int | None = None) -> None:
        """Run a kernel on sizes and addresses, one for each parameter in order, without the interpreter lock.

        Whoever calls keeps the arrays alive. `threads` None: as the runtime's options say. Raises the error of the check
        that failed.
        """
        if len(slots) != len(kernel.signature.parameters):
            raise VerifyError(f"kernel {kernel.signature.name} has {len(kernel.signature.parameters)} slots, not {len(slots)}")
        session = self.session((threads or self.threads_for(self.options)) if kernel.signature.parallel else 1)
        if session.pool is not None:
            session.pool.ensure()
        every = (*slots, *kernel.extern_addresses)
        args = (ctypes.c_int64 * (len(every) + 1))(*every)
        report = (ctypes.c_int64 * 2)()
        code = self._run(kernel.address, args, session.address, report)
        if self._wanted:
            self._wanted = False
            self.keep_results()
        if code != OK:
            raise self._failure(kernel, code, report[0], report[1])

    def launcher(self, kernel: Kernel, threads: int) -> Callable[[Sequence[int]], None]:
        """`launch` for one kernel and one number of threads, with all that can be looked up beforehand at hand."""
        session = self.session(threads if kernel.signature.parallel else 1)
        every = ctypes.c_int64 * (len(kernel.signature.parameters) + len(kernel.extern_addresses) + 1)
        report_of, run, pool, externs = ctypes.c_int64 * 2, self._run, session.pool, kernel.extern_addresses

        def go(slots: Sequence[int]) -> None:
            if pool is not None:
                pool.ensure()
            report = report_of()
            code = run(kernel.address, every(*slots, *externs), session.address, report)
            if code != OK:
                raise self._failure(kernel, code, report[0], report[1])

        return go

    def _failure(self, kernel: Kernel, code: int, culprit: int, needed: int) -> PolyAIError:
        if code == NEED_ARENA:
            return OutOfMemoryError(
                f"kernel {kernel.signature.name} needs {needed} bytes of scratch memory",
                "the system did not give them",
                "use smaller arrays, or fewer threads: each has scratch memory of its own",
            )
        if code == TOO_LARGE and kernel.signature.externs:
            return PolyAIError(
                f"kernel {kernel.signature.name} multiplies matrices that are too large for the BLAS library",
                "its sizes are 32-bit integers",
                'set the option blas="never"',
            )
        return kernel.failure(code, culprit)

    @property
    def calls(self) -> int:
        """Launches so far, of all sessions, the fast path's included."""
        return sum(session.calls for session in tuple(self._sessions.values()))

    def report(self) -> dict[str, int]:
        """All counters at this moment."""
        counts = {"calls": self.calls, **self.stats.snapshot()}
        return {**counts, **{f"calls of {name}": n for name, n in self.externs.calls().items()}}

    def after_fork(self) -> None:
        self._lock = threading.RLock()

    def close(self) -> None:
        """Let all threads go. Kernels still run afterwards, each on its caller's thread."""
        for session in tuple(self._sessions.values()):
            if session.pool is not None:
                session.pool.close()
