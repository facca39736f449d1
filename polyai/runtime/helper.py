"""A process that compiles in the background, so that calls never wait: jobs go in as bytes, entries of the cache come out.

    to the helper:    length, job            from it:    length, the file of an entry (see `cache`), or the text of an error

It starts with the first job, runs with low priority, ends when it has been idle for a while or when this process ends. A helper that
dies or hangs costs its job; after a few failures none is started any more. A forked child starts its own.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import queue
import struct
import subprocess
import sys
import threading
from collections.abc import Callable

from polyai.runtime.shared import renew_after_fork
from polyai.runtime.stats import Stats

LENGTH = struct.Struct("<Q")
IDLE_SECONDS = 5.0
JOB_SECONDS = 60.0
FAILURES = 3
LIMIT = 1 << 28

Done = Callable[["bytes | None"], None]


class Helper:
    """One background process at a time. `code` is the Python program it runs."""

    def __init__(self, code: str, stats: Stats) -> None:
        self._code, self._stats = code, stats
        self.failures = 0
        self._reset()
        renew_after_fork(self)
        atexit.register(self.close)

    def _reset(self) -> None:
        self._jobs: queue.SimpleQueue[tuple[bytes, Done]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._waiting = 0
        self.process: subprocess.Popen[bytes] | None = None

    def after_fork(self) -> None:
        """The jobs of the parent are the parent's."""
        old = self.process
        self._reset()
        if old is not None:
            old.returncode = 0  # not our child: nothing to wait for
            for pipe in (old.stdin, old.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()

    @property
    def works(self) -> bool:
        """Whether jobs are taken."""
        return self.failures < FAILURES and bool(sys.executable)

    @property
    def waiting(self) -> int:
        """Jobs that are not done."""
        return self._waiting

    def submit(self, job: bytes, done: Done) -> bool:
        """Have `job` done; `done` gets the answer in another thread, None if there is none. False if jobs are not taken."""
        if not self.works:
            return False
        with self._lock:
            self._waiting += 1
            self._jobs.put((job, done))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="polyai-helper", daemon=True)
                self._thread.start()
        return True

    def _run(self) -> None:
        lock = self._lock
        while True:
            try:
                job, done = self._jobs.get(timeout=IDLE_SECONDS)
            except queue.Empty:
                with lock:
                    if not self._jobs.empty():
                        continue
                    self._thread = None
                self._stop()
                return
            answer = self._ask(job) if self.works else None
            with contextlib.suppress(Exception):  # what is done with an answer must not end this thread
                done(answer)
            with lock:
                self._waiting -= 1

    def _ask(self, job: bytes) -> bytes | None:
        watchdog = threading.Timer(JOB_SECONDS, self._kill)
        watchdog.daemon = True
        watchdog.start()
        try:
            process = self._start()
            assert process.stdin is not None and process.stdout is not None
            _write(process.stdin.fileno(), LENGTH.pack(len(job)) + job)
            (length,) = LENGTH.unpack(_read(process.stdout.fileno(), LENGTH.size))
            if length > LIMIT:
                raise EOFError("it answered nonsense")
            return _read(process.stdout.fileno(), length)
        except (OSError, EOFError, ValueError) as error:
            self.failures += 1
            self._stats.count("helper_failures")
            self._stats.note(f"helper: a background compilation failed: {error}; calls go on with the general kernel")
            self._kill()
            return None
        finally:
            watchdog.cancel()

    def _start(self) -> subprocess.Popen[bytes]:
        if self.process is None:
            self._stats.count("helpers")
            self.process = subprocess.Popen(
                [sys.executable, "-c", self._code],
                bufsize=0,  # buffers have locks, which a fork may copy while they are held
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                close_fds=True,
            )
        return self.process

    def _stop(self) -> None:
        """Let an idle process end by itself."""
        process, self.process = self.process, None
        if process is not None:
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                process.communicate(timeout=JOB_SECONDS)

    def _kill(self) -> None:
        process, self.process = self.process, None
        if process is not None:
            with contextlib.suppress(OSError):
                process.kill()
            with contextlib.suppress(OSError, ValueError, subprocess.TimeoutExpired):
                process.communicate(timeout=5.0)

    def close(self) -> None:
        """End the process now; a job at hand is lost."""
        self.failures = FAILURES
        self._kill()


def _write(pipe: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(pipe, rest) :]


def _read(pipe: int, count: int) -> bytes:
    """Exactly `count` bytes. Raises EOFError if the other side ended before."""
    parts, missing = [], count
    while missing:
        part = os.read(pipe, min(missing, 1 << 20))
        if not part:
            raise EOFError("it ended before its job was done")
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)
