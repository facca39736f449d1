"""What an import and a first call load, and what a second call finds. Nothing here measures time: the counts and names decide it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

import polyai as pa
from polyai.errors import VerifyError
from polyai.runtime.native import Native
from polyai.runtime.shared import in_background

HEAVY = ("sympy", "islpy", "llvmlite", "scipy", "scipy.sparse", "matplotlib", "inspect", "asyncio", "multiprocessing", "hashlib", "importlib.metadata")
"""What takes longer to load than a call from the disk cache takes."""

LAYER = """
import sys
import numpy as np
before = set(sys.modules)
import polyai as pa
@pa.jit
def layer(X, W, b):
    return pa.relu(X @ W + b)
imported = set(sys.modules) - before
layer(*(np.ones(s, np.float32) for s in ((7, 5), (5, 3), (3,))))
print(pa.stats().get("compiles", 0), sorted(imported & set(HEAVY)), sorted((set(sys.modules) - before) & set(HEAVY)), "polyai.pipeline" in sys.modules)
"""


def in_a_fresh_process(code: str, cache: Path) -> str:
    code = f"HEAVY = {HEAVY!r}\n{code}"
    environment = {**os.environ, "POLYAI_CACHE_DIR": str(cache)}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True).stdout.strip()


def test_neither_an_import_nor_a_call_served_from_the_disk_loads_what_only_a_compiler_needs(tmp_path: Path) -> None:
    assert in_a_fresh_process(LAYER, tmp_path).startswith("1 []")
    assert in_a_fresh_process(LAYER, tmp_path) == "0 [] [] False"


PLAIN = """
import sys
import numpy as np
import scipy.sparse as sp
import polyai as pa
A = sp.random_array((40, 40), density=0.1, format="csr", rng=np.random.default_rng(0))
X = np.ones((40, 8))
R = sp.bsr_array(A, blocksize=(4, 4))
for f, args, wanted in (
    (lambda A, X: pa.relu(A @ (X @ X.T)), (A, X), np.maximum(A @ (X @ X.T), 0)), (lambda A, B: A + B, (A, A), A + A),
    (lambda A, B: A * B, (A, A), A * A), (lambda A, B: A @ B, (A, A), A @ A), (lambda A: pa.asformat(A, "csc"), (A,), A),
    (lambda X: pa.softmax(X, axis=1), (X,), X / 8), (lambda R, X: R @ X, (R, X), A @ X), (lambda A: A[3:20], (A,), A[3:20]),
    (lambda A: A.diagonal(), (A,), A.diagonal())):
    got = pa.jit(f)(*args)
    assert np.allclose(*(v.toarray() if sp.issparse(v) else v for v in (got, wanted)))
print("islpy" in sys.modules)
"""


def test_plain_programs_are_compiled_without_isl(tmp_path: Path) -> None:
    assert in_a_fresh_process(PLAIN, tmp_path).splitlines() == ["False"]


BESIDE = """
import numpy as np
import polyai as pa
from polyai.calls import engine
from polyai.machine import jit
from polyai.runtime import launch
said = []
begun, made_by = launch.in_background, engine.compiler
launch.in_background = lambda work, name: (said.append(name), begun(work, name))[1]
engine.compiler = lambda: (said.append("compiler"), made_by())[1]
assert pa.jit(lambda x: x + 1.0)(np.ones(3)).sum() == 6.0
print(jit.is_light(), *said[:2])
"""


def test_llvm_is_loaded_beside_the_import_of_the_compiler_where_that_takes_no_time_of_pythons(tmp_path: Path) -> None:
    light, *order = in_a_fresh_process(BESIDE, tmp_path).split()
    assert order == (["polyai-prepare", "compiler"] if light == "True" else ["compiler", "polyai-prepare"])


def test_an_import_leaves_the_garbage_collector_as_it_was(tmp_path: Path) -> None:
    code = "import gc; {}; before = gc.isenabled(); import polyai; print(before, gc.isenabled(), hasattr(polyai, 'paused'))"
    assert in_a_fresh_process(code.format("gc.enable()"), tmp_path) == "True True False"
    assert in_a_fresh_process(code.format("gc.disable()"), tmp_path) == "False False False"


@pytest.fixture
def fresh(tmp_path: Path) -> Any:
    with pa.options(cache_dir=str(tmp_path)):
        yield


def arguments() -> tuple[Any, ...]:
    A = sp.random_array((20, 30), density=0.2, format="csr", rng=np.random.default_rng(1))
    return A, np.arange(30.0)


def served_natively(function: pa.Function) -> int:
    return function.report().fast


@pytest.mark.usefixtures("fresh")
def test_the_second_call_is_native_though_the_first_did_not_wait_for_its_code() -> None:
    A, x = arguments()
    product = pa.jit(lambda A, x: A @ x)
    for calls in range(4):
        np.testing.assert_allclose(product(A, x), A @ x)
        assert served_natively(product) == calls
    assert product(A.astype(np.float32), x.astype(np.float32)).dtype == np.float32
    for _ in range(3):  # each kind by its own dispatcher, each the other's way out
        np.testing.assert_allclose(product(A, x), A @ x)
        assert product(A.astype(np.float32), x.astype(np.float32)).dtype == np.float32


@pytest.mark.usefixtures("fresh")
def test_another_kind_of_call_may_come_before_the_first_dispatcher_is_there(monkeypatch: Any) -> None:
    A, x = arguments()
    go = threading.Event()
    getitem = Native.__getitem__

    def late(self: Native, name: str) -> int:
        if name == "dispatch":
            assert go.wait(30)
        return getitem(self, name)

    monkeypatch.setattr(Native, "__getitem__", late)
    product = pa.jit(lambda A, x: A @ x)
    product(A, x)
    threading.Timer(0.2, go.set).start()
    np.testing.assert_allclose(product(A, x), A @ x)
    for _ in range(3):
        assert product(A.astype(np.float32), x.astype(np.float32)).dtype == np.float32
        np.testing.assert_allclose(product(A, x), A @ x)


@pytest.mark.usefixtures("fresh")
def test_calls_go_on_in_python_if_there_is_no_dispatcher(monkeypatch: Any) -> None:
    A, x = arguments()
    getitem = Native.__getitem__

    def none(self: Native, name: str) -> int:
        if name == "dispatch":
            raise VerifyError("no dispatcher today")
        return getitem(self, name)

    with monkeypatch.context() as patched:
        patched.setattr(Native, "__getitem__", none)
        patched.setattr(Native, "at_hand", lambda self, name: False)
        product = pa.jit(lambda A, x: A @ x)
        for _ in range(3):
            np.testing.assert_allclose(product(A, x), A @ x)
        assert served_natively(product) == 0
    product(A, x)
    product(A, x)
    product(A, x)
    assert served_natively(product) > 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.usefixtures("fresh")
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_a_child_forked_between_the_first_and_the_second_call_computes() -> None:
    A, x = arguments()
    product = pa.jit(lambda A, x: A @ x)
    with pa.options(num_threads=1):
        product(A, x)
        child = os.fork()
        if child == 0:
            fine = all(np.allclose(product(A, x), A @ x) for _ in range(3))
            os._exit(0 if fine else 1)
        assert os.waitpid(child, 0)[1] == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_a_fork_waits_for_work_in_the_background() -> None:
    done: list[int] = []
    started, go = threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        go.wait(30)
        done.append(1)

    thread = in_background(work, "test")
    started.wait(30)
    threading.Timer(0.1, go.set).start()
    child = os.fork()
    if child == 0:
        os._exit(0 if done == [1] else 1)
    assert os.waitpid(child, 0)[1] == 0 and done == [1]
    thread.join()
