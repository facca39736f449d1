"""A pool of threads that runs the chunks of one parallel loop at a time.

Workers are Python daemon threads inside a native loop, without the interpreter lock: they spin a little for the next job,
then sleep. The thread that has a job publishes it, takes part, and waits only for workers that joined: one that has not
started is never waited for. Joining is a compare-and-swap on the word `gate`::

    gate = generation << 16 | open << 15 | workers inside

A pool runs one job at a time. Who finds it busy (another Python thread, or a task that has a parallel loop of its own)
runs its chunks itself, as thread 0. After `fork()` the child's pool has no threads; the next launch starts new ones.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable

from polyai.machine.cpu import architecture, cores
from polyai.runtime.shared import Addresses, Fields, Shared, address_of, renew_after_fork

SPIN_SECONDS = 300e-6
"""How long a worker waits awake for the next job."""

JOB = Fields(
    gate=0, next=64, task=128, context=136, chunks=144, result=152, busy=192, wake=256, sleepers=264, workers=320, stop=328,
    spin=336, syscall=344, futex=352, nap=360, nap_for=368, yields=376, ready=384,
)  # fmt: skip
"""Byte offsets in the pool's memory; words written by different threads lie on different cache lines."""

POOL_BYTES = 448

_PAUSE = {"x86_64": "call void @llvm.x86.sse2.pause()", "aarch64": "call void @llvm.aarch64.hint(i32 1)"}
_DECLARE = {"x86_64": "declare void @llvm.x86.sse2.pause()", "aarch64": "declare void @llvm.aarch64.hint(i32)"}
_FUTEX = {"x86_64": 202, "aarch64": 98}
_WAIT, _WAKE = 128, 129
"""futex operations, private to this process."""


def text() -> str:
    """The pool's native code: `worker`, `parallel` and `spin`, as LLVM IR."""
    pause = _PAUSE[architecture()]

    def at(*names: str) -> str:
        return "\n  ".join(JOB.at(name, "p") for name in names)
    return f"""
{_DECLARE[architecture()]}

define internal i64 @run_chunks(ptr %p, i64 %thread) {{
entry:
  {at("next", "result", "task", "context", "chunks")}
  %task = load ptr, ptr %p.task
  %context = load ptr, ptr %p.context
  %chunks = load i64, ptr %p.chunks
  br label %grab
grab:
  %chunk = atomicrmw add ptr %p.next, i64 1 monotonic
  %more = icmp slt i64 %chunk, %chunks
  br i1 %more, label %work, label %done
work:
  %code = call i64 %task(ptr %context, i64 %chunk, i64 %thread)
  %good = icmp eq i64 %code, 0
  br i1 %good, label %grab, label %fail
fail:
  %first = cmpxchg ptr %p.result, i64 0, i64 %code seq_cst seq_cst
  %skip = atomicrmw add ptr %p.next, i64 %chunks monotonic
  br label %done
done:
  ret i64 0
}}

define i64 @parallel(ptr %p, ptr %task, ptr %context, i64 %chunks) {{
entry:
  {at("gate", "next", "result", "task", "context", "chunks", "busy", "workers", "wake", "sleepers", "syscall", "futex", "yields")}
  %several = icmp sgt i64 %chunks, 1
  br i1 %several, label %check, label %alone
check:
  %workers = load atomic i64, ptr %p.workers monotonic, align 8
  %helped = icmp sgt i64 %workers, 0
  br i1 %helped, label %claim, label %alone
claim:
  %claimed = cmpxchg ptr %p.busy, i64 0, i64 1 acquire monotonic
  %mine = extractvalue {{ i64, i1 }} %claimed, 1
  br i1 %mine, label %open, label %alone
open:
  store ptr %task, ptr %p.task
  store ptr %context, ptr %p.context
  store i64 %chunks, ptr %p.chunks
  store i64 0, ptr %p.result
  store atomic i64 0, ptr %p.next monotonic, align 8
  %gate = load atomic i64, ptr %p.gate monotonic, align 8
  %closed = and i64 %gate, -65536
  %opened = add i64 %closed, {0x18000}
  %before = atomicrmw xchg ptr %p.gate, i64 %opened seq_cst
  %sleepers = load atomic i64, ptr %p.sleepers seq_cst, align 8
  %asleep = icmp sgt i64 %sleepers, 0
  br i1 %asleep, label %rouse, label %run
rouse:
  %woken = atomicrmw add ptr %p.wake, i32 1 seq_cst
  %call = load ptr, ptr %p.syscall
  %known = icmp ne ptr %call, null
  br i1 %known, label %signal, label %run
signal:
  %number = load i64, ptr %p.futex
  %others = sub i64 %chunks, 1
  %fewer = icmp slt i64 %others, %workers
  %count = select i1 %fewer, i64 %others, i64 %workers
  %signalled = call i64 (i64, ...) %call(i64 %number, ptr %p.wake, i64 {_WAKE}, i64 %count, ptr null, ptr null, i64 0)
  br label %run
run:
  %ran = call i64 @run_chunks(ptr %p, i64 0)
  %last = atomicrmw and ptr %p.gate, i64 {~0x8000} acq_rel
  %joined = and i64 %last, {0x7FFF}
  %none = icmp eq i64 %joined, 0
  br i1 %none, label %finish, label %wait
wait:
  %turn = phi i64 [ 0, %run ], [ %turn.next, %again ]
  {pause}
  %now = load atomic i64, ptr %p.gate acquire, align 8
  %inside = and i64 %now, {0x7FFF}
  %left = icmp eq i64 %inside, 0
  br i1 %left, label %finish, label %patience
patience:
  %turn.next = add i64 %turn, 1
  %long = icmp sgt i64 %turn, 4000
  %give = load ptr, ptr %p.yields
  %can = icmp ne ptr %give, null
  %let = and i1 %long, %can
  br i1 %let, label %release, label %again
release:
  %gave = call i32 %give()
  br label %again
again:
  br label %wait
finish:
  %code = load atomic i64, ptr %p.result monotonic, align 8
  store atomic i64 0, ptr %p.busy release, align 8
  ret i64 %code
alone:
  %some = icmp sgt i64 %chunks, 0
  br i1 %some, label %own, label %all
own:
  %chunk = phi i64 [ 0, %alone ], [ %chunk.next, %fine ]
  %result = call i64 %task(ptr %context, i64 %chunk, i64 0)
  %good = icmp eq i64 %result, 0
  br i1 %good, label %fine, label %bad
fine:
  %chunk.next = add i64 %chunk, 1
  %more = icmp slt i64 %chunk.next, %chunks
  br i1 %more, label %own, label %all
bad:
  ret i64 %result
all:
  ret i64 0
}}

define i64 @worker(ptr %p, i64 %thread) {{
entry:
  {at("gate", "stop", "spin", "wake", "sleepers", "syscall", "futex", "nap", "nap_for")}
  %patience = load i64, ptr %p.spin
  br label %idle
idle:
  %seen = phi i64 [ 0, %entry ], [ %seen, %awake ], [ %generation, %back ]
  br label %look
look:
  %turn = phi i64 [ 0, %idle ], [ %turn.next, %pausing ], [ 0, %join ]
  %gate = load atomic i64, ptr %p.gate acquire, align 8
  %generation = ashr i64 %gate, 16
  %fresh = icmp ne i64 %generation, %seen
  %flag = and i64 %gate, {0x8000}
  %open = icmp ne i64 %flag, 0
  %wanted = and i1 %fresh, %open
  br i1 %wanted, label %join, label %nothing
nothing:
  %stop = load atomic i64, ptr %p.stop monotonic, align 8
  %stopped = icmp ne i64 %stop, 0
  br i1 %stopped, label %leave, label %weary
weary:
  %turn.next = add i64 %turn, 1
  %tired = icmp sge i64 %turn, %patience
  br i1 %tired, label %sleep, label %pausing
pausing:
  {pause}
  br label %look
sleep:
  %call = load ptr, ptr %p.syscall
  %known = icmp ne ptr %call, null
  br i1 %known, label %doze, label %portable
doze:
  %ticket = load atomic i32, ptr %p.wake seq_cst, align 4
  %lying = atomicrmw add ptr %p.sleepers, i64 1 seq_cst
  %gate.2 = load atomic i64, ptr %p.gate seq_cst, align 8
  %same = icmp eq i64 %gate.2, %gate
  %stop.2 = load atomic i64, ptr %p.stop seq_cst, align 8
  %going = icmp eq i64 %stop.2, 0
  %quiet = and i1 %same, %going
  br i1 %quiet, label %futex, label %rise
futex:
  %number = load i64, ptr %p.futex
  %ticket.64 = zext i32 %ticket to i64
  %slept = call i64 (i64, ...) %call(i64 %number, ptr %p.wake, i64 {_WAIT}, i64 %ticket.64, ptr null, ptr null, i64 0)
  br label %rise
rise:
  %risen = atomicrmw sub ptr %p.sleepers, i64 1 seq_cst
  br label %awake
portable:
  %nap = load ptr, ptr %p.nap
  %length = load i32, ptr %p.nap_for
  call void %nap(i32 %length)
  br label %awake
awake:
  br label %idle
join:
  %inside = add i64 %gate, 1
  %try = cmpxchg ptr %p.gate, i64 %gate, i64 %inside acq_rel monotonic
  %joined = extractvalue {{ i64, i1 }} %try, 1
  br i1 %joined, label %work, label %look
work:
  %ran = call i64 @run_chunks(ptr %p, i64 %thread)
  %out = atomicrmw sub ptr %p.gate, i64 1 release
  br label %back
back:
  br label %idle
leave:
  ret i64 0
}}

define i64 @spin(i64 %turns) {{
entry:
  br label %turn
turn:
  %k = phi i64 [ 0, %entry ], [ %next, %turn ]
  {pause}
  %next = add i64 %k, 1
  %more = icmp slt i64 %next, %turns
  br i1 %more, label %turn, label %done
done:
  ret i64 %next
}}
"""


class Pool:
    """`threads` threads, the calling one included. `code` gives the addresses of `worker`, `parallel` and `spin`."""

    def __init__(self, threads: int, code: Addresses) -> None:
        self.threads = threads
        self._code = code
        self._memory = Shared(POOL_BYTES)
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._workers: list[threading.Thread] = []
        self._closed = False
        self._prepare()
        renew_after_fork(self)
        atexit.register(_close, weakref.ref(self))

    @property
    def address(self) -> int:
        """The pool as `parallel` wants it."""
        return self._memory.address

    @property
    def ready(self) -> bool:
        """Whether the threads have been started in this process."""
        return bool(self._memory.word(JOB["ready"])) and self._pid == os.getpid()

    def ensure(self) -> None:
        """Start the threads unless they run. A thread that cannot be started is done without."""
        if self.ready:
            return
        with self._lock:
            if self._pid != os.getpid():
                self._reset()
            if self._memory.word(JOB["ready"]):
                return
            if not self._closed:
                self._start()
            self._memory.set(JOB["ready"], 1)

    def close(self, seconds: float = 2.0) -> None:
        """Let the threads go and wait for them; afterwards callers run their chunks themselves."""
        with self._lock:
            self._closed = True
            if self._pid == os.getpid():
                deadline = time.monotonic() + seconds
                self._dismiss()
                for worker in self._workers:
                    while worker.is_alive() and time.monotonic() < deadline:
                        self._dismiss()
                        worker.join(0.002)
                self._workers.clear()

    def after_fork(self) -> None:
        self._lock = threading.Lock()
        self._reset()

    def __del__(self) -> None:
        if self._pid == os.getpid() and self._workers and not sys.is_finalizing():
            self._dismiss()

    def _prepare(self) -> None:
        memory = self._memory
        if os.name == "posix":
            libc = ctypes.CDLL(None)
            if sys.platform == "linux":
                memory.set(JOB["syscall"], address_of(libc.syscall))
                memory.set(JOB["futex"], _FUTEX[architecture()])
            memory.set(JOB["yields"], address_of(libc.sched_yield))
            memory.set(JOB["nap"], address_of(libc.usleep))
            memory.set(JOB["nap_for"], 200)
        else:
            kernel32 = getattr(ctypes, "windll").kernel32  # noqa: B009 - exists on Windows only
            memory.set(JOB["yields"], address_of(kernel32.SwitchToThread))
            memory.set(JOB["nap"], address_of(kernel32.Sleep))
            memory.set(JOB["nap_for"], 1)
        memory.set(JOB["spin"], self._patience())

    def _patience(self) -> int:
        """Turns of the waiting loop that take SPIN_SECONDS; few where threads share processors."""
        if self.threads > cores():
            return 50
        spin = ctypes.PYFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(self._code["spin"])
        turns = 500
        best = 1.0
        for _ in range(3):
            start = time.perf_counter()
            spin(turns)
            best = min(best, time.perf_counter() - start)
        return max(50, min(100_000, int(SPIN_SECONDS * turns / best)))

    def _start(self) -> None:
        enter = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64)(self._code["worker"])
        for number in range(1, self.threads):
            job = (enter, number, self._memory, self._code)
            worker = threading.Thread(target=_work, args=job, name=f"polyai-{number}", daemon=True)
            with contextlib.suppress(RuntimeError):  # no more threads, or the interpreter is shutting down
                worker.start()
                self._workers.append(worker)
        self._memory.set(JOB["workers"], len(self._workers))

    def _dismiss(self) -> None:
        memory = self._memory
        memory.set(JOB["workers"], 0)
        memory.set(JOB["stop"], 1)
        memory.set32(JOB["wake"], (memory.word(JOB["wake"]) + 1) & 0x7FFFFFFF)
        if memory.word(JOB["syscall"]):
            call = ctypes.CFUNCTYPE(ctypes.c_long, *[ctypes.c_long] * 7)(memory.word(JOB["syscall"]))
            call(memory.word(JOB["futex"]), memory.address + JOB["wake"], _WAKE, 1 << 20, 0, 0, 0)

    def _reset(self) -> None:
        """In a forked child: the threads are gone, and whatever job was running with them."""
        for name in ("gate", "next", "result", "busy", "sleepers", "workers", "stop", "ready"):
            self._memory.set(JOB[name], 0)
        self._workers = []
        self._pid = os.getpid()


def _work(enter: Callable[[int, int], int], number: int, memory: Shared, code: Addresses) -> None:
    """The life of a worker. Its frame keeps the pool's memory and code for as long as it may use them."""
    enter(memory.address, number)


def _close(pool: weakref.ref[Pool]) -> None:
    alive = pool()
    if alive is not None:
        alive.close()
