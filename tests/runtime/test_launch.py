from __future__ import annotations

import json
import threading

import numpy as np
import pytest
import scipy.sparse as sp

from polyai.errors import IndexOutOfRangeError, PolyAIError, SparseStructureError, UnsupportedError, VerifyError
from polyai.loop import nodes as lp
from polyai.machine.cpu import Target
from polyai.machine.jit import compile_object
from polyai.options import Options
from polyai.runtime import native, threads
from polyai.runtime.cache import Entry
from polyai.runtime.kernel import Parameter, Signature, signature_of, site_error
from polyai.runtime.launch import OutOfMemoryError, Runtime
from polyai.scalar import dtype as dt
from polyai.scalar.expr import Var
from tests.runtime.code import KERNELS, SPMV_PARAMETERS, SPMV_SITES, compiled, head, kernel


def spmv(runtime, a, x):
    y = np.full(a.shape[0], np.nan)
    arrays = [a.indptr, a.indices, a.data, x, y]
    runtime.launch(kernel(runtime, "spmv"), [*a.shape, int(a.indptr[-1]), *(v.ctypes.data for v in arrays)])
    return y


@pytest.fixture
def matrix():
    return sp.random(40, 30, 0.2, format="csr", random_state=1)


def test_a_kernel_computes(runtime, matrix):
    x = np.random.default_rng(0).standard_normal(30)
    np.testing.assert_allclose(spmv(runtime, matrix, x), matrix @ x)


def test_a_failed_check_raises_its_error_with_the_number(runtime, matrix):
    x = np.ones(30)
    matrix.indices[7] = 999
    with pytest.raises(IndexOutOfRangeError, match=r"^A: column 999 does not exist$"):
        spmv(runtime, matrix, x)
    matrix.indices[7] = -1
    with pytest.raises(IndexOutOfRangeError, match="column -1"):
        spmv(runtime, matrix, x)
    matrix.indices[7] = 0
    matrix.indptr[5] = 10**6
    with pytest.raises(SparseStructureError, match="a row ends at 1000000\n  why: beyond its entries\n  try: rebuild A"):
        spmv(runtime, matrix, x)


def test_an_error_of_an_unknown_class_is_still_ours():
    assert type(site_error(lp.Site("OSError", "{value}"), 3)) is PolyAIError
    assert type(site_error(lp.Site("annotations", "x {y}"), 3)) is PolyAIError


def test_the_number_of_slots_is_checked(runtime):
    with pytest.raises(VerifyError, match="has 3 slots, not 2"):
        runtime.launch(kernel(runtime, "add_one"), [1, 2])


def test_a_signature_survives_json():
    signature = Signature("spmv", SPMV_PARAMETERS, SPMV_SITES, ("blas.sgemm",), True)
    assert Signature.from_json(json.loads(json.dumps(signature.to_json()))) == signature
    loop = lp.Kernel(
        "f", (lp.Param("n", dt.i64, "size"), lp.Param("x", dt.f32, "input", (Var("n", dt.i64),))), lp.Block(()), SPMV_SITES
    )
    assert signature_of(loop).parameters == (Parameter("n", "i64", "size"), Parameter("x", "f32", "input", 1))


@pytest.mark.parametrize("data", [{}, {"name": "f", "parameters": [[1]], "sites": [], "externs": [], "parallel": 0}])
def test_malformed_metadata_is_refused(data):
    with pytest.raises(VerifyError):
        Signature.from_json(data)


def test_a_second_runtime_finds_the_kernel_on_disk(runtime, cache_dir):
    kernel(runtime, "add_one")
    again = Runtime(Options(num_threads=2, cache_dir=str(cache_dir)))
    found = again.find("test-add_one")
    assert found is not None and found.signature == KERNELS["add_one"][0]
    assert again.stats.snapshot() == {"disk_hits": 1}
    assert again.find("test-add_one") is found and again.find("nothing") is None


@pytest.mark.parametrize("damage", ["code", "name", "signature", "extra"])
def test_an_entry_that_cannot_be_loaded_is_removed(tmp_path, damage):
    runtime = Runtime(Options(cache_dir=str(tmp_path)))
    signature, text = KERNELS["add_one"]
    runtime.add("k", signature, compiled(text), {"note": [1]})
    metadata, code = Runtime(Options(cache_dir=str(tmp_path))).cache.get("k")
    if damage == "code":
        code = code[: len(code) // 2]
    elif damage == "name":
        metadata["signature"]["name"] = "other"
    else:
        metadata.pop(damage)
    writer = Runtime(Options(cache_dir=str(tmp_path)))
    writer.cache.put("k", *Entry(metadata, code))
    fresh = Runtime(Options(cache_dir=str(tmp_path)))
    assert fresh.find("k") is None
    assert fresh.stats["corrupt"] == 1 and "k" not in [e.key for e in fresh.cache.entries()]


def test_an_unknown_library_function_is_refused(runtime):
    signature, text = KERNELS["add_one"]
    with pytest.raises(UnsupportedError, match=r"blas\.sgemm"):
        runtime.add("x", Signature("add_one", signature.parameters, externs=("lapack.gesv",)), compiled(text))


def scratch(runtime, bytes_):
    last, where = np.zeros(1, np.int64), np.zeros(1, np.int64)
    runtime.launch(kernel(runtime, "scratch"), [bytes_, last.ctypes.data, where.ctypes.data])
    assert last[0] == 7 and where[0] % 64 == 0
    return int(where[0])


def test_scratch_memory_grows_and_is_used_again(runtime):
    runtime.arena.trim()
    scratch(runtime, 100)
    assert runtime.arena.held == 0  # the stack was enough
    first = scratch(runtime, 1_000_000)
    assert 1_000_000 <= runtime.arena.held < 1_010_000  # what is needed
    assert scratch(runtime, 500_000) == first
    scratch(runtime, 5_000_000)
    assert 7_500_000 <= runtime.arena.held < 7_600_000  # sizes rise: half as much again
    where = scratch(runtime, 7_400_000)
    assert 7_500_000 <= runtime.arena.held < 7_600_000 and scratch(runtime, 10) == where
    assert runtime.arena.trim() >= 5_000_000 and runtime.arena.held == 0


def test_memory_beyond_the_bound_is_not_kept(runtime):
    scratch(runtime, 600 << 20)
    assert runtime.arena.held <= runtime.arena.bound < 600 << 20


def test_scratch_memory_that_does_not_exist_is_an_error(runtime):
    for bytes_ in (1 << 45, 1 << 50, (1 << 63) - 1):
        with pytest.raises(OutOfMemoryError, match="bytes of scratch memory"):
            scratch(runtime, bytes_)
    scratch(runtime, 100_000)


def test_threads_do_not_share_scratch_memory(runtime):
    errors = []

    def work():
        try:
            for k in range(300):
                scratch(runtime, 50_000 + 997 * k)
        except BaseException as error:
            errors.append(error)

    workers = [threading.Thread(target=work) for _ in range(12)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert errors == [] and 0 < runtime.arena.held <= runtime.arena.bound
    assert runtime.arena.trim() > 0 and runtime.arena.held == 0


NEVER_ENOUGH = head("never", 0) + "  store i64 %arena_bytes, ptr %needed.p\n  ret i64 -1\n}\n"


def test_a_kernel_that_asks_for_what_it_has_ends(runtime):
    never = runtime.add("never", Signature("never", ()), compiled(NEVER_ENOUGH))
    with pytest.raises(OutOfMemoryError):
        runtime.launch(never, [])


def test_a_result_without_a_meaning_is_an_error(runtime):
    strange = runtime.add("strange", Signature("strange", ()), compiled(head("strange", 0) + "  ret i64 17\n}\n"))
    with pytest.raises(PolyAIError, match="code 17"):
        runtime.launch(strange, [])


def test_counters(runtime, matrix):
    spmv(runtime, matrix, np.ones(30))
    spmv(runtime, matrix, np.ones(30))
    assert runtime.report()["calls"] == 2 and runtime.report()["memory_hits"] == 1
    runtime.stats.note("a")
    runtime.stats.note("a")
    assert runtime.stats.notes == ("a",)


def test_native_parts_are_compiled_once_for_a_machine(tmp_path):
    options = Options(num_threads=2, cache_dir=str(tmp_path))
    first = Runtime(options)
    first.session(2)
    first.native["dispatch"]
    assert first.stats["parts_compiled"] == 3
    second = Runtime(options)
    second.session(2)
    second.native["dispatch"]
    assert second.stats.snapshot() == {"parts_loaded": 3}
    third = Runtime(options)
    third.prepare()
    for thread in threading.enumerate():
        if thread.name == "polyai-prepare":
            thread.join()
    assert third.stats.snapshot() == {"parts_loaded": 2} and third.native.at_hand("dispatch") and third.native.at_hand("run")
    assert not Runtime(Options(num_threads=2, cache_dir=str(tmp_path / "other"))).native.at_hand("dispatch")


@pytest.mark.parametrize("part", native.PARTS)
def test_native_parts_compile_for_aarch64(part, monkeypatch):
    for module in (threads, native):
        monkeypatch.setattr(module, "architecture", lambda: "aarch64")
    text = native.PARTS[part][1]()
    target = Target("aarch64-unknown-linux-gnu", cpu="generic", features="")
    code = compile_object(f'target triple = "{target.triple}"\n{text}', target)
    assert code[:4] == b"\x7fELF" and code[18] == 183  # EM_AARCH64
