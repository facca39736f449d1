from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from polyai.errors import GuardError
from polyai.options import Options
from polyai.runtime.launch import Runtime
from polyai.runtime.threads import JOB, Pool
from tests.runtime.code import kernel


def run(runtime, chunks, spin=0, fail=-1, threads=None):
    """Chunk counts and how many chunks each thread ran."""
    counts, who = np.zeros(max(1, chunks), np.int64), np.zeros(64, np.int64)
    tasks = kernel(runtime, "tasks")
    runtime.launch(tasks, [chunks, counts.ctypes.data, spin, who.ctypes.data, fail], threads)
    return counts, who


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize("chunks", [0, 1, 2, 3, 17, 1000])
def test_each_chunk_runs_once(runtime, threads, chunks):
    for _ in range(20):
        counts, who = run(runtime, chunks, threads=threads)
        assert (counts[:chunks] == 1).all() and who[:threads].sum() == chunks


def together(runtime, threads):
    """Launch until every thread has run chunks; on a busy machine one of them may be late for some launches."""
    total = np.zeros(64, np.int64)
    for _ in range(2000):
        counts, who = run(runtime, 64, spin=20_000, threads=threads)
        assert (counts == 1).all()
        total += who
        if (total[:threads] > 0).all():
            return
    raise AssertionError(f"chunks by thread: {total[:threads]}")


def test_workers_take_part_after_sleeping(runtime):
    for _ in range(5):
        together(runtime, 2)
        time.sleep(0.01)


def test_workers_that_never_start_are_not_waited_for(runtime, monkeypatch):
    monkeypatch.setattr(Pool, "_start", lambda pool: pool._memory.set(JOB["workers"], 5))
    for _ in range(50):
        counts, who = run(runtime, 40, threads=6)
        assert (counts == 1).all() and who[0] == 40


def test_workers_sleep_without_futexes_too(runtime, monkeypatch):
    """Systems other than Linux: workers nap and look again."""
    prepare = Pool._prepare

    def without(pool):
        prepare(pool)
        pool._memory.set(JOB["syscall"], 0)

    monkeypatch.setattr(Pool, "_prepare", without)
    together(runtime, 3)
    runtime.close()
    assert runtime.session(3).pool._workers == []


def test_the_first_failure_is_reported_and_the_pool_goes_on(runtime):
    for fail in (0, 5, 99):
        with pytest.raises(GuardError) as caught:
            run(runtime, 100, fail=fail)
        assert str(caught.value) == f"chunk {fail} failed\n  why: it was told to\n  try: do not tell it to"
        counts, _ = run(runtime, 100)
        assert (counts == 1).all()


def test_eight_python_threads_launch_at_once(runtime):
    errors = []

    def work(seed):
        try:
            for k in range(300):
                counts, who = run(runtime, 1 + (seed + k) % 40, spin=k % 50, threads=2 + seed % 2)
                assert (counts == 1).all() and who.sum() == len(counts)
        except BaseException as error:
            errors.append(error)

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert errors == [] and runtime.calls == 2400


def in_child(action):
    """Exit status of a forked child that runs `action`; 99 for an error, killed after 20 s."""
    pid = os.fork()
    if pid == 0:
        try:
            action()
        except BaseException:
            os._exit(99)
        os._exit(0)
    for _ in range(2000):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return "hangs"


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_has_a_pool_of_its_own(runtime):
    run(runtime, 64)

    def child():
        shared = runtime.session(2).pool
        assert not shared.ready
        together(runtime, 2)
        assert in_child(lambda: run(runtime, 64)) == 0

    for _ in range(3):
        assert in_child(child) == 0
        counts, _ = run(runtime, 64)
        assert (counts == 1).all()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_fork_while_a_job_runs_leaves_a_usable_pool(runtime):
    run(runtime, 2)
    stop = threading.Event()

    def busy():
        while not stop.is_set():
            run(runtime, 8, spin=100_000)

    other = threading.Thread(target=busy)
    other.start()
    try:
        statuses = [in_child(lambda: [run(runtime, 16) for _ in range(20)]) for _ in range(10)]
    finally:
        stop.set()
        other.join()
    assert statuses == [0] * 10


def test_a_closed_pool_runs_on_the_callers_thread(cache_dir):
    runtime = Runtime(Options(num_threads=4, cache_dir=str(cache_dir)))
    run(runtime, 64)
    before = threading.active_count()
    runtime.close()
    assert threading.active_count() == before - 3
    counts, who = run(runtime, 64)
    assert (counts == 1).all() and who[0] == 64


def test_a_dropped_runtime_lets_its_threads_go(cache_dir):
    others = set(threading.enumerate())

    def ours() -> list[str]:
        return [t.name for t in threading.enumerate() if t.name.startswith("polyai") and t not in others]

    runtime = Runtime(Options(num_threads=3, cache_dir=str(cache_dir)))
    run(runtime, 64)
    assert len(ours()) >= 2
    del runtime
    deadline = time.monotonic() + 5
    while ours() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert ours() == []


EXIT = """
import sys, threading, time
sys.path.insert(0, sys.argv[1])
from polyai.options import Options
from polyai.runtime.launch import Runtime
from tests.runtime.test_threads import run
runtime = Runtime(Options(num_threads=3, cache_dir=sys.argv[2]))
def forever():
    while True:
        run(runtime, 16, spin=1000)
if sys.argv[3] == "busy":
    for _ in range(3):
        threading.Thread(target=forever, daemon=True).start()
if sys.argv[3] == "atexit":
    import atexit
    atexit.register(lambda: run(Runtime(Options(num_threads=2, cache_dir=sys.argv[2])), 16))
for _ in range(200):
    run(runtime, 16)
time.sleep(0.02)
print("end")
"""


@pytest.mark.parametrize("how", ["idle", "busy", "atexit"])
def test_the_interpreter_ends_cleanly(cache_dir, how):
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", EXIT, os.getcwd(), str(cache_dir), how], capture_output=True, text=True, timeout=60
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")


def test_numpy_threads_and_ours_run_side_by_side(runtime):
    a = np.random.default_rng(0).standard_normal((300, 300))
    wanted = a @ a
    other = threading.Thread(target=lambda: [run(runtime, 32, spin=500) for _ in range(200)])
    other.start()
    for _ in range(20):
        np.testing.assert_allclose(a @ a, wanted)
    other.join()


def test_empty_jobs_are_cheap(runtime):
    """A bound far above the usual microsecond: it catches sleeping or waiting in the way of a launch."""
    run(runtime, 2)
    best = min(_time(lambda: run(runtime, 2)) for _ in range(300))
    assert best < 200e-6


def _time(action):
    start = time.perf_counter()
    action()
    return time.perf_counter() - start
