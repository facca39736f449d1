from __future__ import annotations

import gc
import sys
import threading
import time
import tracemalloc
import weakref
from contextvars import ContextVar

import numpy as np
import pytest
import scipy.sparse as sp

from polyai.errors import VerifyError
from polyai.runtime.arguments import ArrayArg, ScalarArg, SparseArg
from polyai.runtime.dispatch import DispatchSpec, Output, calls_of, make_dispatcher
from polyai.runtime.kernel import Parameter, Signature
from polyai.scalar import dtype as dt
from tests.runtime.code import compiled, head, kernel
from tests.runtime.dispatching import Sub, add_one, slow, spmv, unaligned, went_slow


def test_a_call_that_fits_runs_the_kernel(runtime, way):
    f = add_one(runtime)
    x = np.arange(5.0)
    y = f(x)
    assert type(y) is np.ndarray and y.dtype == np.float64 and y.flags.owndata and y.flags.writeable
    np.testing.assert_array_equal(y, x + 1)
    assert f(np.zeros(0)).shape == (0,)
    assert calls_of(f) == (2, 0) and runtime.calls == 2


def test_it_is_a_function_with_a_name_and_a_text(runtime):
    f = add_one(runtime)
    assert f.__name__ == "f" and f.__doc__ == "f(x) = x + 1" and callable(f)


@pytest.mark.parametrize(
    "value",
    [
        np.arange(5, dtype=np.float32), np.arange(5), np.arange(5.0).astype(">f8"), np.arange(10.0)[::2], np.arange(5.0)[::-1],
        np.zeros((5, 1)), np.array(1.0), np.arange(5.0).view(Sub), np.ma.masked_array(np.arange(5.0)), unaligned(5), [1.0, 2.0],
        np.broadcast_to(1.0, 5), None, 1.0, "x", np.float64(3.0), np.zeros(5, "M8[s]"), np.array([None] * 5), sp.csr_array((3, 3)),
    ],
    ids=lambda v: type(v).__name__ + (f"-{v.dtype}-{v.shape}" if hasattr(v, "dtype") else ""),
)  # fmt: skip
def test_a_call_that_does_not_fit_goes_to_the_slow_path(runtime, way, value):
    f = add_one(runtime)
    result = f(value)
    assert result[0] == "slow" and result[1][0] is value and result[2] == {}
    assert calls_of(f) == (0, 1)


def test_other_numbers_of_arguments_and_keywords_go_to_the_slow_path(runtime, way):
    f = add_one(runtime)
    x = np.arange(3.0)
    assert f() == ("slow", (), {})
    assert f(x, x)[1] == (x, x)
    assert f(x, out=7)[1:] == ((x,), {"out": 7})
    assert f(x=x)[1:] == ((), {"x": x})
    assert f(*[x] * 50)[1] == (x,) * 50


def test_equal_dtypes_that_are_other_objects_fit(runtime, way):
    f = add_one(runtime)
    assert not went_slow(f(np.zeros(3, np.dtype("f8", metadata={"unit": "m"}))))
    assert not went_slow(f(np.lib.format.descr_to_dtype("<f8").type(3.0) + np.zeros(2)))


def test_errors_of_the_slow_path_come_through(runtime, way):
    def fails(*args):
        raise KeyError(args)

    f = make_dispatcher(
        DispatchSpec((ArrayArg(dt.f64, 1),), (("dim", 0, 0), ("data", 0), ("out", 0)), (Output(dt.f64, (("dim", 0, 0),)),)),
        kernel(runtime, "add_one"), runtime, fails,
    )  # fmt: skip
    with pytest.raises(KeyError, match="text"):
        f("text")
    np.testing.assert_array_equal(f(np.zeros(2)), [1, 1])


@pytest.mark.parametrize("cls", [sp.csr_array, sp.csr_matrix])
def test_csr(runtime, way, matrix, cls):
    a = cls(matrix)
    f = spmv(runtime, a)
    x = np.random.default_rng(0).standard_normal(30)
    for _ in range(3):
        np.testing.assert_allclose(f(a, x), a @ x)
    assert calls_of(f) == (3, 0)
    other = (sp.csr_matrix if cls is sp.csr_array else sp.csr_array)(matrix)
    assert went_slow(f(other, x)) and went_slow(f(a.tocsc(), x)) and went_slow(f(a.toarray(), x))


def test_csc(runtime, way, matrix):
    a = matrix.tocsc()
    x = np.random.default_rng(0).standard_normal(40)
    np.testing.assert_allclose(spmv(runtime, a, "csc")(a, x), a.T @ x)


def test_empty_rows_and_empty_matrices(runtime, way):
    for a in (sp.csr_array((5, 7)), sp.csr_array((0, 7)), sp.csr_array((5, 0)), sp.eye_array(7, format="csr")):
        f = spmv(runtime, a)
        x = np.arange(1.0, a.shape[1] + 1)
        np.testing.assert_array_equal(f(a, x), a @ x)
        assert calls_of(f) == (1, 0)


def test_arrays_that_are_longer_than_needed_fit(runtime, way, matrix):
    matrix.data = np.append(matrix.data, [9.0, 9.0])
    matrix.indices = np.append(matrix.indices, [10**6]).astype(np.int32)
    f = spmv(runtime, matrix)
    x = np.ones(30)
    assert not went_slow(f(matrix, x)) and calls_of(f) == (1, 0)


def cut(name, n):
    return lambda a: setattr(a, name, getattr(a, name)[:n])


def put(name, at, value):
    return lambda a: getattr(a, name).__setitem__(at, value)


def become(name, change):
    return lambda a: setattr(a, name, change(getattr(a, name)))


BREAKS = {
    "short indptr": cut("indptr", -1), "no indptr": cut("indptr", 0), "short indices": cut("indices", -1),
    "short data": cut("data", -1), "indptr starts late": put("indptr", 0, 1), "indptr ends late": put("indptr", -1, 10**9),
    "indptr ends below zero": put("indptr", -1, -1), "indptr falls": put("indptr", 5, 0), "column too large": put("indices", 3, 30),
    "column below zero": put("indices", 3, -1), "last column": put("indices", -1, 2**31 - 1),
    "wide indices": become("indices", lambda v: v.astype(np.int64)), "wide indptr": become("indptr", lambda v: v.astype(np.int64)),
    "float indices": become("indices", lambda v: v.astype(np.float64)), "list": become("indices", list),
    "strided data": become("data", lambda v: np.repeat(v, 2)[::2]), "two dimensions": become("data", lambda v: v[:, None]),
    "big endian": become("data", lambda v: v.astype(">f8")), "masked": become("data", np.ma.masked_array),
    "None": become("indptr", lambda v: None), "shape of ints": lambda a: setattr(a, "_shape", (40.0, 30.0)),
    "three extents": lambda a: setattr(a, "_shape", (40, 30, 1)), "negative extent": lambda a: setattr(a, "_shape", (-1, 30)),
    "huge extent": lambda a: setattr(a, "_shape", (1 << 70, 30)), "many rows": lambda a: setattr(a, "_shape", ((1 << 63) - 1, 30)),
    "no shape": lambda a: delattr(a, "_shape"), "no data": lambda a: delattr(a, "data"),
}  # fmt: skip


@pytest.mark.parametrize("how", BREAKS)
def test_a_matrix_broken_after_a_good_call_goes_to_the_slow_path(runtime, way, matrix, how):
    f = spmv(runtime, matrix)
    x = np.ones(30)
    np.testing.assert_allclose(f(matrix, x), matrix @ x)
    BREAKS[how](matrix)
    assert went_slow(f(matrix, x))
    assert calls_of(f) == (1, 1)


def test_guards_compare_sizes(runtime, way, matrix):
    f = spmv(runtime, matrix)
    assert went_slow(f(matrix, np.ones(29))) and went_slow(f(matrix, np.ones(31)))
    guards = (("within", ("dim", 0, 0), 2, 8), ("multiple", ("dim", 0, 0), 2))
    f = add_one(runtime, guards=guards)
    assert [went_slow(f(np.zeros(n))) for n in range(10)] == [n < 2 or n > 8 or n % 2 == 1 for n in range(10)]


def coo_ends(index):
    """Kernel text: out = [pos[0], pos[1], row[nnz-1], col[nnz-1]]; slots pos, nnz, row, col, val, out."""
    text = head("coo", 6) + "  %k = sub i64 %s1, 1\n"
    for n, (array, at) in enumerate((("%a0", "0"), ("%a0", "1"), ("%a2", "%k"), ("%a3", "%k"))):
        text += f"""
  %p{n} = getelementptr i{index.bits}, ptr {array}, i64 {at}
  %v{n} = load i{index.bits}, ptr %p{n}
  %w{n} = sext i{index.bits} %v{n} to i65
  %x{n} = trunc i65 %w{n} to i64
  %q{n} = getelementptr i64, ptr %a5, i64 {n}
  store i64 %x{n}, ptr %q{n}
"""
    return text + "  ret i64 0\n}\n"


@pytest.mark.parametrize("index", [dt.i32, dt.i64])
@pytest.mark.parametrize("cls", [sp.coo_array, sp.coo_matrix])
def test_coo(runtime, way, index, cls):
    a = cls(([1.0, 2.0, 3.0], ([0, 2, 4], [1, 3, 6])), shape=(5, 7))
    a.coords = tuple(c.astype(f"i{index.bytes}") for c in a.coords)
    names = ["A.pos0", "A.nnz", "A.crd0", "A.crd1", "A.val", "out"]
    parameters = tuple(Parameter(n, "i64", "input", None if n == "A.nnz" else 1) for n in names)
    loaded = runtime.add(f"coo{index.bits}", Signature("coo", parameters), compiled(coo_ends(index)))
    spec = DispatchSpec(
        (SparseArg("coo", cls, dt.f64, index),),
        (("pos", 0), ("nnz", 0), ("crd", 0, 0), ("crd", 0, 1), ("val", 0), ("out", 0)),
        (Output(dt.i64, (4,)),),
    )
    f = make_dispatcher(spec, loaded, runtime, slow)
    assert f(a).tolist() == [0, 3, 4, 6]
    a.data = a.data[:2]
    assert went_slow(f(a))
    assert calls_of(f) == (1, 1)


PAIR = (
    head("pair", 5)
    + """
  %x = load double, ptr %a0
  %f = load float, ptr %a1
  %n = load i64, ptr %a2
  store double %x, ptr %a3
  %fd = fpext float %f to double
  %p1 = getelementptr double, ptr %a3, i64 1
  store double %fd, ptr %p1
  store i64 %n, ptr %a4
  ret i64 0
}
"""
)


def pair(runtime, **options):
    inputs = (Parameter(n, "f64", "input", 0) for n in "xfn")
    parameters = (*inputs, Parameter("y", "f64", "output", 1), Parameter("m", "i64", "output", 0))
    loaded = runtime.find("pair") or runtime.add("pair", Signature("pair", parameters), compiled(PAIR))
    spec = DispatchSpec(
        (ScalarArg(dt.f64), ScalarArg(dt.f32), ScalarArg(dt.i64)),
        (("data", 0), ("data", 1), ("data", 2), ("out", 0), ("out", 1)),
        (Output(dt.f64, (2,)), Output(dt.i64, ())),
    )
    return make_dispatcher(spec, loaded, runtime, slow, **options)


def test_scalars_and_several_results(runtime, way):
    f = pair(runtime)
    y, m = f(2.5, 0.1, -7)
    assert y.tolist() == [2.5, float(np.float32(0.1))] and m.shape == () and m == -7
    assert f(float("nan"), float("-inf"), -1)[0].tolist()[1] == float("-inf")
    assert f(0.0, 0.0, -(1 << 63))[1] == -(1 << 63)
    for bad in ((1, 0.1, 7), (1.0, 0.1, 7.0), (1.0, 0.1, True), (1.0, 0.1, 1 << 63), (np.float64(1), 0.1, 1), (1.0, 0.1, 1 << 80)):
        assert went_slow(f(*bad))
    assert calls_of(f) == (3, 6)


def test_finish_gets_results_and_arguments(runtime, way):
    f = pair(runtime, finish=lambda y, m, *args: (y.tolist(), int(m), args))
    assert f(1.0, 2.0, 3) == ([1.0, 2.0], 3, (1.0, 2.0, 3))

    def fails(*_):
        raise KeyError("in finish")

    with pytest.raises(KeyError, match="in finish"):
        pair(runtime, finish=fails)(1.0, 2.0, 3)


def test_a_token_makes_calls_fit_in_one_context_only(runtime, way):
    variable = ContextVar("variable", default=None)
    inside = ("some", "object")
    outer, inner = pair(runtime, token=(variable, None)), pair(runtime, token=(variable, inside))
    assert not went_slow(outer(1.0, 2.0, 3)) and went_slow(inner(1.0, 2.0, 3))
    reset = variable.set(inside)
    assert went_slow(outer(1.0, 2.0, 3)) and not went_slow(inner(1.0, 2.0, 3))
    variable.reset(reset)
    unset = ContextVar("unset")
    assert went_slow(pair(runtime, token=(unset, None))(1.0, 2.0, 3))


def test_kernels_with_a_pool_start_it_by_way_of_the_slow_path(runtime):
    spec = DispatchSpec(
        (ArrayArg(dt.i64, 1), ScalarArg(dt.i64), ArrayArg(dt.i64, 1), ScalarArg(dt.i64)),
        (("const", 50), ("out", 0), ("value", 1), ("data", 2), ("value", 3)),
        (Output(dt.i64, (64,)),),
        release_above=-1.0,
    )
    who = np.zeros(64, np.int64)
    f = make_dispatcher(spec, kernel(runtime, "tasks"), runtime, slow, threads=2)
    call = (np.zeros(1, np.int64), 1000, who, -1)
    assert went_slow(f(*call))
    runtime.session(2).pool.ensure()
    for _ in range(100):
        assert not went_slow(f(*call))
    assert who.sum() == 100 * 50
    assert went_slow(f(call[0], 0, who, 7))  # a failing task


def test_a_kernel_finds_scratch_memory(runtime, way):
    spec = DispatchSpec(
        (ScalarArg(dt.i64),), (("value", 0), ("out", 0), ("out", 1)), (Output(dt.i64, ()), Output(dt.i64, ())), release_above=-1.0
    )
    f = make_dispatcher(spec, kernel(runtime, "scratch"), runtime, slow)
    for n in (10, 10_000, 3_000_000, 10):
        last, where = f(n)
        assert last == 7 and where % 64 == 0
    assert went_slow(f(1 << 62))


def test_malformed_specs_are_refused(runtime):
    add = kernel(runtime, "add_one")
    array = (ArrayArg(dt.f64, 1),)
    out = (Output(dt.f64, (("dim", 0, 0),)),)
    slots = (("dim", 0, 0), ("data", 0), ("out", 0))
    for spec in (
        DispatchSpec(array, slots[:2], out),
        DispatchSpec(array, slots, ()),
        DispatchSpec(array, (("dim", 0, 1), *slots[1:]), out),
        DispatchSpec(array, slots, out, guards=(("odd", ("dim", 0, 0)),)),
        DispatchSpec((ScalarArg(dt.i8),), slots, out),
    ):
        with pytest.raises(VerifyError):
            make_dispatcher(spec, add, runtime, slow)


def test_a_spec_without_room_takes_the_portable_way(runtime):
    many = (ArrayArg(dt.f64, 3),) * 50
    spec = DispatchSpec(many, (("dim", 0, 0), ("data", 0), ("out", 0)), (Output(dt.f64, (("dim", 0, 0),)),))
    f = make_dispatcher(spec, kernel(runtime, "add_one"), runtime, slow)
    assert hasattr(f, "counts") and f(*[np.zeros((2, 1, 1))] * 50).tolist() == [1, 1]


def test_calls_leak_nothing(runtime, matrix):
    x, y = np.ones(30), np.ones(29)
    broken = matrix.copy()
    broken.indices[3] = -1
    f, g = spmv(runtime, matrix, handler=lambda *args, **more: None), pair(runtime, finish=lambda *_: None)
    things = [x, matrix, matrix.data, matrix.indices, matrix.indptr, broken, broken.data, np.dtype("f8"), matrix._shape]

    def calls(n):
        for _ in range(n):
            f(matrix, x)
            f(matrix, y)
            f(broken, x)
            f(None, x)
            f(x=1)
            g(1.0, 2.0, 3)
            g(1.0, 2.0, 1 << 70)

    calls(10)
    gc.collect()
    before = [sys.getrefcount(t) for t in things]
    tracemalloc.start()
    calls(10)
    start = tracemalloc.get_traced_memory()[0]
    calls(2000)
    grown = tracemalloc.get_traced_memory()[0] - start
    tracemalloc.stop()
    assert [sys.getrefcount(t) for t in things] == before
    assert grown < 20_000


def test_a_dispatcher_in_a_cycle_is_collected(runtime):
    class Owner:
        def call(self, *args):
            return None

    owner = Owner()
    owner.fast = spmv(runtime, sp.csr_array((3, 3)), handler=owner.call)
    gone = weakref.ref(owner)
    del owner
    gc.collect()
    assert gone() is None


def test_large_calls_release_the_interpreter_lock(runtime):
    """While the call spins, another thread must be able to run; with the lock held it could not count."""
    spec = DispatchSpec(
        (ScalarArg(dt.i64), ArrayArg(dt.i64, 1)), (("const", 1), ("out", 0), ("value", 0), ("data", 1), ("const", -1)),
        (Output(dt.i64, (64,)),), work=((("value", 0),),), release_above=1e6,
    )  # fmt: skip
    runtime.session(2).pool.ensure()
    f = make_dispatcher(spec, kernel(runtime, "tasks"), runtime, slow, threads=2)
    ticks, stop = [], threading.Event()

    def tick():
        while not stop.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.0005)

    other = threading.Thread(target=tick)
    other.start()
    start = time.perf_counter()
    f(200_000_000, np.zeros(64, np.int64))
    end = time.perf_counter()
    stop.set()
    other.join()
    assert calls_of(f) == (1, 0) and end - start > 0.01
    assert sum(start + 0.002 < t < end - 0.002 for t in ticks) >= 2


def test_threads_call_one_dispatcher(runtime, matrix):
    f = spmv(runtime, matrix)
    x = np.ones(30)
    wanted, errors = matrix @ x, []

    def work():
        try:
            for _ in range(2000):
                np.testing.assert_array_equal(np.round(f(matrix, x) - wanted, 9), 0)
        except BaseException as error:
            errors.append(error)

    workers = [threading.Thread(target=work) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert errors == [] and calls_of(f) == (16_000, 0)
