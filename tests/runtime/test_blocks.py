"""Memory of large results: arrays are ordinary ones, what is dropped serves again, what waits stays below its bound."""

from __future__ import annotations

import gc
import os
import threading
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

import polyai as pa
from polyai.calls.engine import runtime as runtime_in_force
from polyai.options import Options
from polyai.runtime.blocks import SLOTS, SPARE, Blocks
from polyai.runtime.launch import Runtime
from polyai.runtime.steps import LEAST

BYTES = np.dtype(np.uint8)


@pytest.fixture(scope="module")
def runtime() -> Runtime:
    return Runtime(Options())


def blocks(runtime: Runtime, bound: int = 1 << 24) -> Blocks:
    return Blocks(runtime.native, bound)


def test_arrays_own_their_memory_and_the_allocator_is_nobody_elses(runtime: Runtime) -> None:
    array = blocks(runtime).empty((3, 5), np.dtype(np.float64))
    assert array.shape == (3, 5) and array.flags.owndata and array.flags.carray and array.ctypes.data % 64 == 0
    from numpy._core.multiarray import get_handler_name

    assert get_handler_name(array) == "polyai" and get_handler_name(np.empty(5)) != "polyai"


def test_a_dropped_block_serves_the_next_result_that_it_can_hold(runtime: Runtime) -> None:
    own = blocks(runtime)
    first = own.empty((1000,), BYTES)
    place = first.ctypes.data
    del first
    assert own.held == 1000
    larger = own.empty((1001,), BYTES)
    assert larger.ctypes.data != place and own.held == 1000
    again = own.empty((1000 // SPARE,), BYTES)
    assert again.ctypes.data == place and own.held == 0


def test_a_block_of_which_much_was_used_does_not_serve_a_small_result(runtime: Runtime) -> None:
    own = blocks(runtime)
    own.empty((1000,), BYTES)
    assert own.held == 1000
    small = own.empty((1000 // SPARE - 1,), BYTES)
    assert own.held == 1000 and small.size


def test_room_that_was_not_used_does_not_count(runtime: Runtime) -> None:
    own = blocks(runtime)
    room = own.empty((1 << 22,), BYTES)
    place = room.ctypes.data
    room[:100] = 7
    room.resize(100, refcheck=False)
    assert room.ctypes.data == place and (room == 7).all()
    del room
    assert own.held == 100
    again = own.empty((1 << 22,), BYTES)
    assert again.ctypes.data == place


def test_what_waits_stays_below_the_bound_and_the_oldest_goes_first(runtime: Runtime) -> None:
    own = blocks(runtime, bound=1000)
    arrays = [own.empty((300,), BYTES) for _ in range(5)]
    places = [a.ctypes.data for a in arrays]
    while arrays:
        del arrays[0]
        assert own.held <= 1000
    assert own.held == 900
    kept = {own.empty((300,), BYTES).ctypes.data}
    assert kept <= set(places[2:])
    large = own.empty((501,), BYTES)  # more than half of the bound is not kept
    held = own.held
    del large
    assert own.held == held
    assert own.trim() == held and own.held == 0


def test_there_are_fewer_slots_than_arrays(runtime: Runtime) -> None:
    own = blocks(runtime)
    arrays = [own.empty((64,), BYTES) for _ in range(3 * SLOTS)]
    del arrays
    gc.collect()
    assert own.held == 64 * SLOTS


def test_arrays_grow_and_are_zeroed_as_numpy_asks(runtime: Runtime) -> None:
    own = blocks(runtime)
    array = own.empty((100,), np.dtype(np.int64))
    array[:] = np.arange(100)
    array.resize(100_000, refcheck=False)
    assert (array[:100] == np.arange(100)).all() and not array[100:].any()
    before = own._set(own.handler)
    try:
        zeros = np.zeros(5000)
    finally:
        own._set(before)
    assert not zeros.any()


def test_more_than_there_is_is_a_memory_error(runtime: Runtime) -> None:
    with pytest.raises(MemoryError):
        blocks(runtime).empty((1 << 50,), BYTES)


def test_arrays_outlive_what_made_them() -> None:
    runtime = Runtime(Options())
    array = runtime.blocks.empty((LEAST,), BYTES)
    array[:] = 3
    del runtime
    gc.collect()
    assert (array == 3).all()
    del array
    gc.collect()


def test_threads_share_the_blocks(runtime: Runtime) -> None:
    own = blocks(runtime)
    wrong: list[int] = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        live: list[Any] = []
        for k in range(2000):
            if live and rng.random() < 0.5:
                array, mark = live.pop(rng.integers(len(live)))
                if not (array == mark).all():
                    wrong.append(seed)
            else:
                array = own.empty((int(rng.integers(1, 5000)),), BYTES)
                array[:] = mark = (seed * 31 + k) % 251
                live.append((array, mark))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_can_ask_for_memory(runtime: Runtime) -> None:
    own = blocks(runtime)
    own._memory.set(0, 1)  # as if another thread held the lock
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if own.empty((1000,), BYTES).size == 1000 else 1
        finally:
            os._exit(code)
    own._memory.set(0, 0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_results_are_not_shared_between_calls() -> None:
    a = sp.random_array((3000, 3000), density=0.02, format="csr", rng=1)
    add = pa.jit(lambda a, b: a + b)
    first = add(a, a)
    kept = first.copy()
    second = add(a, 2 * a)
    assert abs(first - kept).nnz == 0 and abs(second - 3 * a).max() < 1e-12
    assert first.data.nbytes >= LEAST and first.data.flags.owndata and first.data.flags.writeable


def test_nothing_is_kept_if_the_user_wants_that() -> None:
    a = sp.random_array((3000, 3000), density=0.02, format="csr", rng=1)
    add = pa.jit(lambda a, b: a + 3 * b)
    for wanted in (0, 1 << 28):
        with pa.options(result_bytes=wanted):
            add(a, a)
            assert (runtime_in_force().blocks.held > 0) is (wanted > 0)
