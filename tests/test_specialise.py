"""Specialised kernels: which sizes get one, that results do not change, that nothing that goes wrong in the background is felt."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import polyai as pa
from polyai.calls import specialise
from polyai.calls.specialise import Special, boxes, learned
from polyai.errors import OptionError
from polyai.shapes.bucket import Edges, Exact, Learned, Multiple, PowerOfTwo


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path) -> Iterator[None]:
    with pa.options(cache_dir=str(tmp_path / "cache"), num_threads=1):
        yield


def scaled(a: Any, b: Any) -> Any:
    return a * 2 + b


def x(*shape: int, dtype: Any = np.float32) -> Any:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype)


def of(f: Any) -> Any:
    """The specialiser of the only kernel of `f`."""
    return f._made[0].specialiser


def settle(f: Any, call: Callable[[], Any], seconds: float = 60.0) -> None:
    """Call until every kernel that was asked for is there."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        call()
        kernels = f.report().kernels
        if len(kernels) > 1 and all(k.origin != "pending" for k in kernels):
            return
        time.sleep(0.01)
    raise AssertionError(f"not ready:\n{f.report()}\n{pa.stats()}")


# -- which sizes


SEEN = {(8, 64): 100.0, (9, 64): 50.0, (30, 64): 20.0, (31, 64): 3.0}


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (Exact(), [((8, 8), 100), ((9, 9), 50), ((30, 30), 20)]),
        (PowerOfTwo(8), [((1, 8), 100), ((9, 16), 50), ((17, 32), 23)]),
        (Multiple(16), [((1, 16), 150), ((17, 32), 23)]),
        (Edges((8,)), [((1, 8), 100), ((9, None), 73)]),
    ],
)
def test_boxes_of_a_profile(policy: Any, expected: list[Any]) -> None:
    found = boxes(policy, ("n", "k"), SEEN, 0.1, 1e-4)
    assert found == [((("n", *ends), ("k", 64, 64)), calls) for ends, calls in expected]


def test_sizes_that_are_rare_get_none() -> None:
    assert boxes(Exact(), ("n",), {(n,): 1.0 for n in range(100)}, 0.1, 1e-4) == [] and boxes(Exact(), ("n",), {}, 0.1, 1e-4) == []


def test_learned_edges_follow_the_histogram() -> None:
    two_peaks = [(10, 1000.0), (11, 900.0), (200, 500.0)]
    assert learned(two_peaks, compile_seconds=0.0004, call_seconds=1e-3) == Edges((10, 11, 200))
    assert learned(two_peaks, compile_seconds=0.008, call_seconds=1e-3) == Edges((11, 200))
    assert learned(two_peaks, compile_seconds=1e6, call_seconds=1e-3) == Edges((200,))
    assert boxes(Learned(), ("n",), {(s,): c for s, c in two_peaks}, 0.008, 1e-3)[0][0] == (("n", 1, 11),)
    both_vary = {(3, 4): 20.0, (4, 3): 30.0}
    assert [b for b, _ in boxes(Learned(), ("n", "m"), both_vary, 0.05, 1e-3)] == [(("n", 1, None), ("m", 1, None)), (("n", 4, 4), ("m", 3, 3)), (("n", 3, 3), ("m", 4, 4))]
    assert [b for b, _ in boxes(Learned(), ("n", "m", "k"), {(n, 64 - n, 8): 1.0 for n in range(64)}, 0.05, 1e-3)] == [(("n", 1, None), ("m", 1, None), ("k", 8, 8))]


def test_a_guard_says_why_not() -> None:
    special = Special((("n", 1, 8), ("k", 64, 64)), "", {"n": "a.shape[0]"})
    assert special.holds({"n": 8, "k": 64}) and special.why_not({"n": 8, "k": 64}) == ""
    assert not special.holds({"n": 9, "k": 64}) and special.why_not({"n": 9, "k": 64}) == "a.shape[0] <= 8 fails: a.shape[0] = 9"
    assert special.why_not({"n": 3, "k": 65}) == "k == 64 fails: k = 65" and not special.holds({"n": 0, "k": 64})


def test_policies_are_options() -> None:
    for bad in ("sometimes", "pow2:0", "multiple", "ranges:", 3):
        with pytest.raises(OptionError):
            pa.policy(bad)  # type: ignore[arg-type]
        with pytest.raises(OptionError):
            pa.jit(scaled, policy=bad)
    with pa.policy("pow2:64", kernels=3) as inside:
        assert inside.policy == "pow2:64" and inside.specialised_kernels == 3
    f = pa.jit(scaled)
    f(x(3), x(3))
    assert f._made[0].specialiser is None


# -- choosing a kernel


@pytest.mark.parametrize("portable", [False, True])
def test_each_size_runs_its_kernel(portable: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if portable:
        monkeypatch.setattr("polyai.runtime.dispatch.layout_holds", lambda: False)
    with pa.options(specialised_kernels=64):
        f = pa.jit(scaled, policy="exact")
        sizes = [(n, m) for n in (1, 2, 7, 16) for m in (4, 5)]
        for n, m in sizes:
            f.warm(pa.f32[n, m], pa.f32[n, m])
        for n, m in [*sizes, (3, 4), (1, 6), (0, 4), (17, 5), (7, 0)] * 4:
            np.testing.assert_array_equal(f(x(n, m), x(n, m)), 2 * x(n, m) + x(n, m))
        report = f.report()
        assert [k.hits for k in report.kernels] == [20, *[4] * 8] and report.fast >= 45
        assert {k.origin for k in report.kernels} == {"compiled"} and report.hits == 52


def test_kernels_are_bounded_and_replaceable_by_nothing() -> None:
    with pa.options(specialised_kernels=2):
        f = pa.jit(scaled, policy="exact")
        for n in (3, 4, 5, 6):
            f.warm(pa.f32[n], pa.f32[n])
            np.testing.assert_array_equal(f(x(n), x(n)), 3 * x(n))
        assert len(f.report().kernels) == 3


def test_a_kernel_that_is_slower_is_withdrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    f = pa.jit(scaled, policy="exact")
    monkeypatch.setattr(specialise, "HOT", 10**9)
    for _ in range(100):
        f(x(5), x(5))
    f.warm(pa.f32[5], pa.f32[5])
    box = of(f).specials[0]
    box.before[:] = [specialise.TRIAL, specialise.TRIAL]  # one tick a call: nothing is faster
    for _ in range(1200):
        np.testing.assert_array_equal(f(x(5), x(5)), 3 * x(5))
    assert "times as slow" in box.withdrawn and not box.live and pa.stats()["withdrawn"] == 1
    assert "withdrawn" in str(f.report())
    served = f.report().kernels[1].hits
    for _ in range(5):
        f(x(5), x(5))
    assert f.report().kernels[1].hits == served


def test_a_kernel_that_was_slow_once_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two reviews in a row, each of new calls, have to find it slower."""
    f = pa.jit(scaled, policy="exact")
    monkeypatch.setattr(specialise, "HOT", 10**9)
    for _ in range(3):
        f(x(5), x(5))
    f.warm(pa.f32[5], pa.f32[5])
    box, judge, trial = of(f).specials[0], of(f)._judge, specialise.TRIAL
    box.before[:] = [trial, 100 * trial]
    for ticks, doubts in ((200, 1), (100, 0), (200, 1), (50, 0), (200, 1), (200, 2)):
        assert box.live
        box.after[0] += trial
        box.after[1] += ticks * trial
        judge()
        assert box.doubts == doubts
    assert box.withdrawn == "2.00 times as slow as the general kernel" and not box.live
    judge()
    assert pa.stats()["withdrawn"] == 1


def test_the_background_makes_what_calls_need(caplog: pytest.LogCaptureFixture) -> None:
    f = pa.jit(lambda a, w: pa.relu(a @ w), policy="exact")
    w = x(8, 8)

    def call() -> None:
        for n in (3, 5):
            np.testing.assert_allclose(f(x(n, 8), w), np.maximum(x(n, 8) @ w, 0), rtol=1e-5, atol=1e-5)

    settle(f, call)
    assert {k.origin for k in f.report().kernels[1:]} == {"helper"} and pa.stats()["compiles"] == 1
    before = [k.hits for k in f.report().kernels]
    call()
    after = [k.hits for k in f.report().kernels]
    assert sum(after) - sum(before) == 2 and after[0] - before[0] <= 2
    again = pa.jit(lambda a, w: pa.relu(a @ w), policy="exact")  # the next function finds them in the cache
    again.warm(x(3, 8), w)
    assert again.report().kernels[1].origin == "cache"


def test_ranges_serve_every_size_in_them() -> None:
    f = pa.jit(scaled, policy="multiple:8")

    def call() -> None:
        for n in range(1, 17):
            np.testing.assert_array_equal(f(x(n, 3), x(n, 3)), 2 * x(n, 3) + x(n, 3))

    settle(f, call)
    assert [str(s) for s in of(f).specials] == ["a.shape[0] >= 1, a.shape[0] <= 8, a.shape[1] == 3", "a.shape[0] >= 9, a.shape[0] <= 16, a.shape[1] == 3"]
    for n in range(20):
        np.testing.assert_array_equal(f(x(n, 3), x(n, 3)), 2 * x(n, 3) + x(n, 3))
        np.testing.assert_array_equal(f(x(n, 4), x(n, 4)), 2 * x(n, 4) + x(n, 4))


SAME_BITS: dict[str, tuple[Callable[..., Any], Callable[[int], tuple[Any, ...]]]] = {
    "elements": (lambda a, b: pa.exp(a) * b + pa.tanh(a), lambda n: (x(n, 5), x(n, 5))),
    "sum of columns": (lambda a: a.sum(axis=0), lambda n: (x(n, 5),)),
    "transposed": (lambda a, b: a.T + b, lambda n: (x(n, 5), x(5, n))),
    "product": (lambda a, b: a @ b, lambda n: (x(n, 8), x(8, 16))),
    "running sum": (lambda a: pa.cumsum(a, axis=0), lambda n: (x(n, 5),)),
}


@pytest.mark.parametrize("name", list(SAME_BITS))
def test_results_are_bit_identical_where_the_order_of_sums_is(name: str) -> None:
    fn, make = SAME_BITS[name]
    special, general = pa.jit(fn, policy="exact"), pa.jit(fn)
    for n in (1, 2, 7, 16, 33):
        special.warm(*make(n))
        np.testing.assert_array_equal(special(*make(n)), general(*make(n)))
    assert sum(k.hits for k in special.report().kernels[1:]) == 5


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(st.integers(0, 9), st.integers(1, 9), st.integers(0, 9)),
    program=st.sampled_from([lambda a, b: a @ b, lambda a, b: pa.softmax(a @ b + 1), lambda a, b: (a @ b).sum(axis=0) * 2, lambda a, b: pa.relu(a).T @ a + b.sum()]),
    policy=st.sampled_from(["exact", "pow2:2", "multiple:3", "ranges:2,5"]),
)
def test_specialised_equals_general(shape: tuple[int, int, int], program: Callable[..., Any], policy: str) -> None:
    n, k, m = shape
    a, b = x(n, k, dtype=np.float64), x(k, m, dtype=np.float64)
    with pa.options(num_threads=1):
        special, general = pa.jit(program, policy=policy), pa.jit(program)
        want = general(a, b)
        special.warm(a, b)
        np.testing.assert_allclose(special(a, b), want, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(special(a[: n // 2], b), general(a[: n // 2], b), rtol=1e-12, atol=1e-12)


# -- what goes wrong in the background


def script(tmp_path: Path, text: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a process of its own, in which `f(n)` is one checked call of a function with a policy."""
    head = """
    import os, sys, time, threading, signal
    import numpy as np, polyai as pa
    from polyai.calls.engine import helper_of, runtime
    def program(a, w): return pa.relu(a @ w) + 1
    g = pa.jit(program, policy="exact")
    W = np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32)
    def f(n):
        a = np.random.default_rng(n).standard_normal((n, 8)).astype(np.float32)
        np.testing.assert_allclose(g(a, W), np.maximum(a @ W, 0) + 1, rtol=1e-4, atol=1e-5)
    def pending(): return [k for k in g.report().kernels if k.origin == "pending"]
    def until(ready, seconds=60):
        end = time.monotonic() + seconds
        while not ready():
            assert time.monotonic() < end, str(g.report()) + str(pa.stats()) + str(g.report().notes)
            f(4); time.sleep(0.005)
    """
    source = textwrap.dedent(head) + textwrap.dedent(text)
    full = {**os.environ, "POLYAI_CACHE_DIR": str(tmp_path / "own"), "POLYAI_NUM_THREADS": "1", "PYTHONPATH": str(Path(pa.__file__).parent.parent), **env}
    done = subprocess.run([sys.executable, "-W", "error", "-c", source], env=full, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Warning" not in done.stderr and "Exception" not in done.stderr, done.stderr
    return done


def test_a_helper_that_is_killed_costs_nothing_but_its_job(tmp_path: Path) -> None:
    script(
        tmp_path,
        """
        helper = helper_of(runtime())
        until(lambda: helper.process is not None)
        os.kill(helper.process.pid, signal.SIGKILL)
        until(lambda: helper.failures == 1)
        assert pa.stats()["helper_failures"] == 1 and "general kernel" in str(g.report())
        until(lambda: any(k.origin == "helper" for k in g.report().kernels))  # the next review tries again
        """,
    )


def test_a_helper_that_never_works_is_given_up(tmp_path: Path) -> None:
    script(
        tmp_path,
        """
        helper = helper_of(runtime())
        helper._code = "raise SystemExit(3)"
        until(lambda: not helper.works)
        for n in range(1, 40): f(n)
        assert helper.failures == 3 and not any(k.origin == "helper" for k in g.report().kernels)
        """,
    )


def test_nonsense_from_a_helper_is_refused(tmp_path: Path) -> None:
    script(
        tmp_path,
        """
        helper = helper_of(runtime())
        helper._code = '''
import sys, struct
while True:
    n, = struct.unpack("<Q", sys.stdin.buffer.read(8)); sys.stdin.buffer.read(n)
    sys.stdout.buffer.write(struct.pack("<Q", 900) + b"POLYAIob" + bytes(892)); sys.stdout.buffer.flush()
'''
        until(lambda: pa.stats().get("specialise_failed", 0) >= 1)
        for n in range(1, 40): f(n)
        assert "refused" in str(g.report())
        """,
    )


@pytest.mark.parametrize("trouble", ["read-only", "deleted", "full", "a file"])
def test_a_cache_folder_that_cannot_be_used(tmp_path: Path, trouble: str) -> None:
    before = {
        "read-only": "os.makedirs(D); os.chmod(D, 0o500)",
        "deleted": "",
        "full": "import resource; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))",
        "a file": "open(D, 'w').close()",
    }[trouble]
    during = "import shutil; shutil.rmtree(D)" if trouble == "deleted" else ""
    script(
        tmp_path,
        f"""
        D = os.environ["POLYAI_CACHE_DIR"]
        {before}
        f(3)
        {during}
        until(lambda: any(k.origin == "helper" for k in g.report().kernels))
        {during and "shutil.rmtree(D, ignore_errors=True)"}
        for n in range(1, 30): f(n)
        """,
    )


def test_a_small_disk(tmp_path: Path) -> None:
    place = tmp_path / "own"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(place)], capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        script(tmp_path, "until(lambda: any(k.origin == 'helper' for k in g.report().kernels))\nfor n in range(1, 30): f(n)")
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_corrupt_entry_is_made_anew(tmp_path: Path) -> None:
    script(tmp_path, "until(lambda: any(k.origin == 'helper' for k in g.report().kernels))")
    for file in (tmp_path / "own").rglob("*.obj"):
        raw = bytearray(file.read_bytes())
        raw[len(raw) // 2] ^= 255
        file.write_bytes(raw)
    script(tmp_path, "until(lambda: any(k.origin == 'helper' for k in g.report().kernels))\nassert pa.stats()['corrupt'] >= 2")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_goes_on_by_itself(tmp_path: Path) -> None:
    script(
        tmp_path,
        """
        import warnings; warnings.simplefilter("ignore", DeprecationWarning)  # fork in a process with threads
        until(lambda: pending())
        child = os.fork()
        if child == 0:
            try:
                for n in range(1, 20): f(n)
                until(lambda: any(k.origin in ("helper", "cache") for k in g.report().kernels), 90)
                os._exit(0)
            except BaseException as error:
                print(error, file=sys.stderr); os._exit(1)
        until(lambda: any(k.origin == "helper" for k in g.report().kernels))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        """,
    )


def test_threads_with_many_shapes() -> None:
    with pa.options(specialised_kernels=16) as chosen:
        f, w = pa.jit(lambda a, w: pa.relu(a @ w), policy="learned"), x(8, 4)
        failures: list[BaseException] = []

        def work(seed: int) -> None:
            rng = np.random.default_rng(seed)
            try:
                with pa.options(**{k: getattr(chosen, k) for k in ("cache_dir", "num_threads", "specialised_kernels")}):
                    for _ in range(200):
                        a = x(int(rng.integers(0, 200)), 8)
                        np.testing.assert_allclose(f(a, w), np.maximum(a @ w, 0), rtol=1e-4, atol=1e-5)
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
        for t in threads:
            t.start()
        for t in threads:
            t.join(120)
        assert not failures and not any(t.is_alive() for t in threads)
        assert len(f.reasons) == 1


def test_a_process_ends_while_kernels_are_being_made(tmp_path: Path) -> None:
    start = time.monotonic()
    script(tmp_path, "until(lambda: pending())")
    assert time.monotonic() - start < 60
    assert signal.SIGKILL  # the helper is ended with it: see Helper.close
