"""Whole kernels through text, object code and our loader, against NumPy, SciPy and the interpreter of loops."""

from __future__ import annotations

import ctypes
import re

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from polyai.errors import VerifyError
from polyai.loop import interp
from polyai.loop import nodes as lp
from polyai.machine import abi, cpu, emit, jit
from polyai.scalar import dtype as dt
from polyai.scalar.dtype import DType
from polyai.scalar.ops import MONOIDS
from tests.machine import kernels
from tests.machine.harness import Compiled, array, const, elementwise, op, plus, size, times, var

SKYLAKE = cpu.Target("x86_64-unknown-linux-gnu", "skylake-avx512", "", vector_bits=512, registers=32, fma=True, half=True, gather=True)


def csr(rows: int, columns: int, dtype: np.dtype, index: type, seed: int = 0) -> sp.csr_matrix:
    a = sp.random(rows, columns, 0.05, format="csr", random_state=seed, dtype=np.float64).astype(dtype)
    a.indptr, a.indices = a.indptr.astype(index), a.indices.astype(index)
    return a


@pytest.mark.parametrize("index", [np.int32, np.int64])
@pytest.mark.parametrize("kind", [dt.f32, dt.f64, dt.c64, dt.c128], ids=str)
def test_spmm_equals_scipy_on_any_number_of_threads(kind: DType, index: type) -> None:
    a = csr(300, 200, dt.to_numpy(kind), index)
    x = np.random.default_rng(0).normal(size=(200, 64)).astype(dt.to_numpy(kind))
    if kind.is_complex:
        a.data, x = (a.data * (1 + 2j)).astype(a.dtype), (x * (2 - 1j)).astype(x.dtype)
    want = a @ x if kind.is_complex else np.maximum(a @ x, 0)
    run = Compiled(kernels.spmm(kind, dt.i32 if index is np.int32 else dt.i64, lanes=8))
    results = []
    for threads in (1, 2, 7):
        y = np.full_like(want, 9)
        assert run(300, 200, 64, a.nnz, a.indptr, a.indices, a.data, x, y, threads=threads) == abi.OK
        assert (run.chunks != []) == (threads > 1)
        np.testing.assert_allclose(y, want, rtol=1e-4 if kind in (dt.f32, dt.c64) else 1e-12, atol=1e-5)
        results.append(y)
    assert all((r == results[0]).all() for r in results)


def test_broken_structures_are_reported_and_touch_nothing() -> None:
    a = csr(300, 200, np.float32, np.int32)
    x, y = np.ones((200, 64), np.float32), np.zeros((301, 64), np.float32)
    run = Compiled(kernels.spmm())
    for threads in (1, 3):
        indices = a.indices.copy()
        indices[77] = 200
        assert run(300, 200, 64, a.nnz, a.indptr, indices, a.data, x, y, threads=threads) == abi.SITE + 1
        assert run.culprit == 200
        indices[77] = -1
        assert run(300, 200, 64, a.nnz, a.indptr, indices, a.data, x, y, threads=threads) == abi.SITE + 1
        assert run.culprit == -1
        for broken in (a.nnz + 1, -5, 2**31 - 1):
            indptr = a.indptr.copy()
            indptr[120] = broken
            assert run(300, 200, 64, a.nnz, indptr, a.indices, a.data, x, y, threads=threads) == abi.SITE
    assert not y[300].any()


def test_the_inner_loop_of_spmm_is_four_multiply_adds_without_spills() -> None:
    text = jit.assembly(emit.emit(kernels.spmm(), SKYLAKE), SKYLAKE)
    blocks = re.split(r"^\.?\w+:.*$", text, flags=re.MULTILINE)
    inner = [b for b in blocks if b.count("vfmadd") == 4]
    assert len(inner) == 1
    assert inner[0].count("zmm") >= 8 and "vbroadcastss" in inner[0] and "rsp" not in inner[0]
    assert len(inner[0].strip().splitlines()) <= 16


def test_text_and_objects_are_the_same_every_time() -> None:
    kernel = kernels.spmm()
    assert emit.emit(kernel, SKYLAKE) == emit.emit(kernel, SKYLAKE)
    assert Compiled(kernel).object == Compiled(kernel).object


@pytest.mark.parametrize("lanes", [1, 7, 16])
@pytest.mark.parametrize(
    ("monoid", "kind"),
    [(m, k) for m in MONOIDS for k in (dt.f32, dt.f64, dt.f16, dt.i8, dt.i64, dt.u32, dt.bool_, dt.c128)
     if not (k.is_complex and m not in ("add", "mul")) and (m in ("or", "and")) == (k is dt.bool_)],
    ids=str,
)  # fmt: skip
def test_reductions(monoid: str, kind: DType, lanes: int) -> None:
    rng = np.random.default_rng(3)
    first = MONOIDS[monoid].identity(kind)
    run = Compiled(kernels.reduction(monoid, kind, lanes, first))
    for n in (0, 1, 5, 16, 45):
        x = (rng.normal(size=n) + 1).astype(dt.to_numpy(kind)) if kind is not dt.bool_ else rng.integers(0, 9, n) > (monoid == "and")
        if kind.is_complex:
            x = x + np.asarray(1j * rng.normal(size=n))
        out = np.zeros(1, x.dtype)
        assert run(n, x, out) == 0
        ufunc = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum, "or": np.logical_or, "and": np.logical_and}[monoid]
        wide = x.astype(np.float32) if kind is dt.f16 else x
        want = ufunc.reduce(wide, initial=first, dtype=wide.dtype if monoid in ("add", "mul") else None)
        np.testing.assert_allclose(out[0], np.asarray(want).astype(x.dtype), rtol=2e-3 if kind is dt.f16 else 1e-5 if kind is dt.f32 else 1e-12)


def test_max_of_vectors_keeps_nan() -> None:
    run = Compiled(kernels.reduction("max", dt.f32, 16, -np.inf))
    for place in (0, 17, 40):
        x = np.arange(41, dtype=np.float32)
        x[place] = np.nan
        out = np.zeros(1, np.float32)
        run(41, x, out)
        assert np.isnan(out[0])


def test_buffers_of_threads_come_from_the_arena() -> None:
    run = Compiled(kernels.row_buffers())
    x = np.random.default_rng(0).normal(size=(50, 33))
    for threads in (1, 4):
        y = np.zeros(50)
        assert run(50, 33, x, y, threads=threads, arena=0) == abi.NEED_ARENA
        assert run.needed == threads * (33 * 8 + 63) // 64 * 64 if threads == 1 else run.needed == threads * 320
        assert not y.any()
        assert run(50, 33, x, y, threads=threads, arena=run.needed - 1) == abi.NEED_ARENA
        assert run(50, 33, x, y, threads=threads, arena=run.needed) == 0
        np.testing.assert_allclose(y, (x * x).sum(1))


@pytest.mark.parametrize("extent", [2**61, 2**62, -1, 2**63 - 1])
def test_absurd_buffers_are_refused_not_wrapped(extent: int) -> None:
    run = Compiled(kernels.row_buffers())
    x, y = np.zeros(4), np.zeros(4)
    assert run(2, extent, x, y, arena=4096) == abi.NEED_ARENA
    assert run.needed >= 2**62


def test_kernel_buffers_are_shared_and_follow_each_other() -> None:
    at = (var("i"),)
    fill = lp.For("i", const(0), var("n"), lp.Store("B", at, op("mul", lp.Load("X", at, dt.f64), const(2.0, dt.f64))), lp.Kind.PARALLEL, cost=10**6)
    mark = lp.For("i", const(0), var("n"), lp.Store("C", at, const(7, dt.u8)), lp.Kind.PARALLEL, cost=10**6)
    total = op("add", lp.Load("B", at, dt.f64), lp.Cast(lp.Load("C", at, dt.u8), dt.f64))
    read = lp.For("i", const(0), var("n"), lp.Store("Y", at, total), lp.Kind.PARALLEL, cost=10**6)
    body = lp.Block((lp.Alloc("B", dt.f64, (var("n"),), lp.Space.KERNEL), lp.Alloc("C", dt.u8, (var("n"),), lp.Space.KERNEL), fill, mark, read))
    run = Compiled(lp.Kernel("f", (size("n"), array("X", dt.f64), array("Y", dt.f64, "output")), body))
    x, y = np.arange(100.0), np.zeros(100)
    needed = 0
    while run(100, x, y, threads=3, arena=needed) == abi.NEED_ARENA:
        assert run.needed > needed
        needed = run.needed
    assert needed == 832 + 128
    np.testing.assert_array_equal(y, 2 * x + 7)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(st.data())
def test_work_is_split_without_losing_or_repeating_a_row(data: st.DataObject) -> None:
    n = data.draw(st.integers(0, 60))
    lengths = data.draw(st.lists(st.integers(0, 50), min_size=n, max_size=n))
    low = data.draw(st.integers(0, n))
    step, index = data.draw(st.sampled_from([1, 3])), data.draw(st.sampled_from([dt.i32, dt.i64]))
    pos = np.concatenate([[0], np.cumsum(lengths)]).astype(dt.to_numpy(index))
    v = np.zeros(n + 1, np.int64)
    run = VISITS[index.name, step]
    assert run(low, n, pos, v, threads=data.draw(st.integers(1, 5))) == 0
    want = np.zeros(n + 1, np.int64)
    want[low:n:step] = 1
    np.testing.assert_array_equal(v, want)


VISITS = {(d.name, s): Compiled(kernels.visits(d, s)) for d in (dt.i32, dt.i64) for s in (1, 3)}


def test_garbage_weights_lose_no_row_and_leave_no_array() -> None:
    rng = np.random.default_rng(0)
    for kind in (dt.i32, dt.i64):
        info = np.iinfo(dt.to_numpy(kind))
        for _ in range(50):
            n = int(rng.integers(1, 80))
            pos = rng.integers(info.min, info.max, n + 1, dtype=dt.to_numpy(kind))
            v = np.zeros(n + 2, np.int64)
            assert VISITS[kind.name, 1](0, n, pos, v, threads=4) == 0
            assert (v[:n] >= 1).all() and not v[n:].any()


def test_heavy_rows_are_spread() -> None:
    """The chunk with the heaviest row holds little else."""
    n = 1000
    lengths = np.ones(n, np.int64)
    lengths[500] = 100_000
    pos = np.concatenate([[0], np.cumsum(lengths)])
    v = np.zeros(n, np.int64)
    run = VISITS["i64", 1]
    assert run(0, n, pos, v, threads=2) == 0
    assert run.chunks == [16] and (v == 1).all()


def test_little_work_stays_on_the_calling_thread() -> None:
    body = lp.For("i", const(0), var("n"), lp.Store("Y", (var("i"),), var("i")), lp.Kind.PARALLEL, cost=1)
    run = Compiled(lp.Kernel("f", (size("n"), array("Y", dt.i64, "output")), body))
    y = np.zeros(100_000, np.int64)
    assert run(1000, y, threads=2) == 0 and run.chunks == []
    assert run(100_000, y, threads=2) == 0 and run.chunks == [12]
    np.testing.assert_array_equal(y, np.arange(100_000))


@pytest.mark.parametrize("source", [d for d in dt.ALL if d != dt.bf16], ids=str)
@pytest.mark.parametrize("kind", [d for d in dt.ALL if d != dt.bf16], ids=str)
def test_casts_are_those_of_astype(source: DType, kind: DType) -> None:
    rng = np.random.default_rng(1)
    x = (rng.normal(size=50) * 40).astype(dt.to_numpy(source)) if source.kind != "u" else rng.integers(0, 120, 50).astype(dt.to_numpy(source))
    if kind.kind == "u":
        x = np.abs(x).astype(x.dtype)
    if source.is_complex and not kind.is_complex and kind.kind != "b":
        want = x.real.astype(dt.to_numpy(kind))
    else:
        want = x.astype(dt.to_numpy(kind))
    for lanes in (1, 8):
        y = np.zeros(50, dt.to_numpy(kind))
        assert Compiled(elementwise("f", (source,), kind, lambda v: lp.Cast(v, kind), lanes))(50, x, y) == 0
        np.testing.assert_array_equal(y, want)


def test_floats_beyond_an_integer_type_take_its_limits() -> None:
    x = np.array([np.nan, np.inf, -np.inf, 1e20, -1e20, 2.9, -2.9])
    y = np.zeros(7, np.int32)
    assert Compiled(elementwise("f", (dt.f64,), dt.i32, lambda v: lp.Cast(v, dt.i32), 8))(7, x, y) == 0
    info = np.iinfo(np.int32)
    np.testing.assert_array_equal(y, [0, info.max, info.min, info.max, info.min, 2, -2])


@pytest.mark.parametrize("lanes", [1, 16])
def test_halves_round_to_nearest_even_once(lanes: int) -> None:
    """Also from double, where rounding by way of float would round twice."""
    rng = np.random.default_rng(0)
    halfway = np.float64(1 + 2.0**-11)
    x = np.concatenate([rng.normal(size=4000) * 100, [halfway, halfway + 2.0**-40, halfway - 2.0**-40, 65519.999, 65520.0, 1e-8, np.inf, np.nan, -0.0]])
    y = np.zeros(len(x), np.float16)
    assert Compiled(elementwise("f", (dt.f64,), dt.f16, lambda v: lp.Cast(v, dt.f16), lanes))(len(x), x, y) == 0
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(y.view(np.uint16) & 0x7E00 | (y.view(np.uint16) & ~np.isnan(y) * 0xFFFF), (w := x.astype(np.float16)).view(np.uint16) & 0x7E00 | (w.view(np.uint16) & ~np.isnan(w) * 0xFFFF))


@pytest.mark.parametrize("lanes", [1, 16])
def test_brain_floats(lanes: int) -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=2000), [0.0, -0.0, np.inf, 3.4e38, 1e-40]]).astype(np.float32)
    bits = x.view(np.uint32).astype(np.uint64)
    want = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    y = np.zeros(len(x), np.uint16)
    assert Compiled(elementwise("f", (dt.f32,), dt.bf16, lambda v: v, lanes))(len(x), x, y) == 0
    np.testing.assert_array_equal(y, want)
    back = np.zeros(len(x), np.float32)
    assert Compiled(elementwise("f", (dt.bf16,), dt.f32, lambda v: v, lanes))(len(x), y, back) == 0
    np.testing.assert_array_equal(back.view(np.uint32), want.astype(np.uint32) << 16)


@pytest.mark.parametrize("kind", [dt.f32, dt.i8, dt.f16, dt.bool_, dt.i64, dt.c64, dt.c128], ids=str)
@pytest.mark.parametrize("stride", [1, -1, 2, -3, 0])
@pytest.mark.parametrize("masked", [False, True])
def test_every_way_into_memory(kind: DType, stride: int, masked: bool) -> None:
    """Y at a ramp = X at a ramp; every element beside it keeps its value."""
    lanes, start = 8, 30
    rng = np.random.default_rng(7)
    x = rng.integers(0, 2 if kind is dt.bool_ else 50, 80).astype(dt.to_numpy(kind))
    if kind.is_complex:
        x = x + 1j * rng.integers(0, 9, 80).astype(x.real.dtype)
    on = rng.integers(0, 2, lanes).astype(bool)
    mask = op("ne", lp.Load("M", (lp.Ramp(const(0), 1, lanes),), dt.i32), const(0, dt.i32), dtype=dt.bool_) if masked else None
    at = lp.Ramp(var("s"), stride, lanes)
    source = lp.Load("X", (at,), kind) if mask is None else lp.MaskedLoad("X", (at,), mask, kind)
    straight = lp.Store("Y", (lp.Ramp(const(0), 1, lanes),), source)
    moved = lp.Store("Z", (at,), lp.Load("X", (lp.Ramp(const(0), 1, lanes),), kind), mask)
    params = (size("s"), array("M", dt.i32), array("X", kind), array("Y", kind, "output"), array("Z", kind, "output"))
    run = Compiled(lp.Kernel("f", params, lp.Block((straight, moved))))
    y, z, chosen = np.zeros(lanes, x.dtype), np.zeros(80, x.dtype), on if masked else np.ones(lanes, bool)
    assert run(start, on.astype(np.int32), x, y, z) == 0
    places = start + stride * np.arange(lanes)
    np.testing.assert_array_equal(y, np.where(chosen, x[places], 0))
    want = np.zeros_like(z)
    for k in np.flatnonzero(chosen):
        want[places[k]] = x[k]
    np.testing.assert_array_equal(z, want)


def test_masked_lanes_touch_no_memory() -> None:
    """A masked vector that begins at the last element of a page that nothing follows."""
    import mmap

    page = mmap.PAGESIZE
    space = mmap.mmap(-1, 2 * page)
    base = ctypes.addressof(ctypes.c_char.from_buffer(space))
    ctypes.CDLL(None).mprotect(ctypes.c_void_p(base + page), ctypes.c_size_t(page), 0)
    last = np.frombuffer((ctypes.c_float * 1).from_address(base + page - 4), np.float32)
    last[0] = 3.0
    run = Compiled(elementwise("f", (dt.f32,), dt.f32, lambda x: op("add", x, x), 16))
    assert run(1, last, last) == 0
    assert last[0] == 6.0
    ctypes.CDLL(None).mprotect(ctypes.c_void_p(base + page), ctypes.c_size_t(page), 3)


def test_gather_by_an_index_array_and_check_of_all_lanes() -> None:
    lanes = 8
    at = lp.Ramp(var("i"), 1, lanes)
    k = lp.Cast(lp.Load("I", (at,), dt.i32), dt.i64)
    ok = kernels.both(kernels.less(const(0), var("k"), "le"), kernels.less(var("k"), var("m")))
    body = lp.Block((lp.Let("k", k), lp.Check(ok, 3, var("k")), lp.Store("Y", (at,), lp.Load("X", (var("k"),), dt.f64))))
    loop = lp.For("i", const(0), var("n"), body, step=lanes)
    run = Compiled(lp.Kernel("f", (size("n"), size("m"), array("I", dt.i32), array("X", dt.f64), array("Y", dt.f64, "output")), loop))
    rng = np.random.default_rng(0)
    index, x, y = rng.integers(0, 40, 64).astype(np.int32), rng.normal(size=40), np.zeros(64)
    assert run(64, 40, index, x, y) == 0
    np.testing.assert_array_equal(y, x[index])
    index[[21, 20]] = [44, -3]
    assert run(64, 40, index, x, y) == abi.SITE + 3 and run.culprit == -3


@pytest.mark.parametrize("kind", [dt.f32, dt.c128, dt.bool_, dt.i16], ids=str)
def test_scalars_are_packed_into_a_vector(kind: DType) -> None:
    picks = (3, 0, 2, 2, 1)
    packed = lp.Pack(tuple(lp.Load("X", (const(k),), kind) for k in picks), kind)
    run = Compiled(lp.Kernel("f", (array("X", kind), array("Y", kind, "output")), lp.Store("Y", (lp.Ramp(const(0), 1, 5),), packed)))
    x = (np.arange(4) + 1j * np.arange(4)[::-1] if kind.is_complex else np.array([1, 0, 5, 9])).astype(dt.to_numpy(kind))
    y = np.zeros(5, x.dtype)
    assert run(x, y) == 0
    np.testing.assert_array_equal(y, x[list(picks)])


def test_while_and_if_merge_two_sorted_lists() -> None:
    """C = how many numbers two sorted lists share, as a merge of two fibres counts them."""
    names = ("p", "q", "c")
    allocs: list[lp.Stmt] = []
    for name in names:
        allocs += [lp.Alloc(name, dt.i64, (), lp.Space.REGISTER), lp.Store(name, (), const(0))]

    def bump(name: str) -> lp.Stmt:
        return lp.Store(name, (), plus(lp.Load(name, (), dt.i64), const(1)))

    p, q = (lp.Load(name, (), dt.i64) for name in ("p", "q"))
    a, b = lp.Load("A", (p,), dt.i64), lp.Load("B", (q,), dt.i64)
    step = lp.Block((
        lp.Let("a", a), lp.Let("b", b),
        lp.If(op("eq", var("a"), var("b"), dtype=dt.bool_), bump("c")),
        lp.Let("d", op("le", var("a"), var("b"), dtype=dt.bool_)),
        lp.If(op("ge", var("a"), var("b"), dtype=dt.bool_), bump("q")),
        lp.If(var("d", dt.bool_), bump("p"), lp.Block(())),
    ))  # fmt: skip
    loop = lp.While(kernels.both(kernels.less(p, var("n")), kernels.less(q, var("m"))), step)
    body = lp.Block((*allocs, loop, lp.Store("C", (const(0),), lp.Load("c", (), dt.i64))))
    run = Compiled(lp.Kernel("f", (size("n"), size("m"), array("A", dt.i64), array("B", dt.i64), array("C", dt.i64, "output")), body))
    x, y, c = np.unique(np.arange(60) * 7 % 41), np.arange(0, 80, 3), np.zeros(1, np.int64)
    assert run(len(x), len(y), x, y, c) == 0 and c[0] == len(np.intersect1d(x, y))


def test_library_functions_are_called_through_their_slots() -> None:
    seen: list[tuple[float, ...]] = []

    @ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.POINTER(ctypes.c_int64))
    def total(record: ctypes._Pointer) -> int:  # type: ignore[type-arg]
        n = record[1]
        values = np.frombuffer((ctypes.c_double * n).from_address(record[0]), np.float64)
        seen.append((float(values.sum()), np.int64(record[2]).view(np.float64)))
        return 0 if n < 5 else 77

    body = lp.Block((lp.Call("sum", ("X", var("n"), const(2.5, dt.f32))), lp.Store("Y", (const(0),), const(1.0, dt.f64))))
    kernel = lp.Kernel("f", (size("n"), array("X", dt.f64), array("Y", dt.f64, "output")), body)
    assert emit.externs(kernel) == ("sum",)
    run, x, y = Compiled(kernel), np.arange(5.0), np.zeros(1)
    address = ctypes.cast(total, ctypes.c_void_p).value
    assert address is not None
    assert run(4, x, y, externs=(address,)) == 0 and y[0] == 1 and seen == [(6.0, 2.5)]
    y[0] = 0
    assert run(5, x, y, externs=(address,)) == 77 and y[0] == 0


def test_values_and_registers_travel_into_tasks() -> None:
    """Vectors, bools, complex numbers and registers of the parent are seen by the iterations."""
    ramp = lp.Ramp(const(0), 1, 4)
    body = lp.Block((
        lp.Let("v", lp.Load("X", (ramp,), dt.f64)),
        lp.Let("on", op("gt", lp.Load("X", (const(0),), dt.f64), const(0.0, dt.f64), dtype=dt.bool_)),
        lp.Let("r", ramp),
        lp.Let("z", lp.Cast(lp.Load("X", (const(1),), dt.f64), dt.c128)),
        *kernels.register("T", dt.f64, 1, 5.0),
        lp.For("i", const(0), var("n"), lp.Store(
            "Y", (plus(times(var("i"), const(4)), var("r")),),
            op("where", var("on", dt.bool_), op("add", op("add", var("v", dt.f64), lp.Load("T", (), dt.f64)),
               op("real", op("mul", var("z", dt.c128), var("z", dt.c128)), dtype=dt.f64)), const(0.0, dt.f64), dtype=dt.f64),
        ), lp.Kind.PARALLEL, cost=10**6),
    ))  # fmt: skip
    run = Compiled(lp.Kernel("f", (size("n"), array("X", dt.f64), array("Y", dt.f64, "output")), body))
    x, y = np.array([1.0, 3.0, -2.0, 0.5]), np.zeros((6, 4))
    assert run(6, x, y, threads=3) == 0
    np.testing.assert_array_equal(y, np.tile(x + 5 + 9, (6, 1)))


def test_a_register_of_the_parent_is_not_written_by_tasks() -> None:
    body = lp.Block((*kernels.register("T", dt.f64, 1), lp.For("i", const(0), var("n"), lp.Store("T", (), const(1.0, dt.f64)), lp.Kind.PARALLEL)))
    with pytest.raises(VerifyError, match="register T is written by a parallel loop"):
        emit.emit(lp.Kernel("f", (size("n"),), body), cpu.host())


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (lp.Store("Y", (const(0),), var("nobody")), "nobody is used but not defined"),
        (lp.Store("Z", (const(0),), const(1.0, dt.f64)), "array Z is used"),
        (lp.Store("Y", (const(0), const(1)), const(1.0, dt.f64)), "2 indices"),
    ],
)
def test_malformed_loops_are_refused(body: lp.Stmt, message: str) -> None:
    with pytest.raises(VerifyError, match=message):
        emit.emit(lp.Kernel("f", (size("n"), array("Y", dt.f64, "output")), body), cpu.host())


NUMBER = st.sampled_from(["add", "sub", "mul", "max", "min"])


def trees(kind: DType) -> st.SearchStrategy[lp.LoopExpr]:
    """Expressions over two arrays."""
    leaves = st.sampled_from([lp.Var("a", kind), lp.Var("b", kind), lp.Const(3, kind) if kind.is_integer else lp.Const(0.75, kind)])

    def grow(child: st.SearchStrategy[lp.LoopExpr]) -> st.SearchStrategy[lp.LoopExpr]:
        pair = st.builds(lambda o, x, y: lp.Apply(o, (x, y), kind), NUMBER, child, child)
        choice = st.builds(lambda x, y, z: lp.Apply("where", (lp.Apply("lt", (x, y), dt.bool_), y, z), kind), child, child, child)
        again = st.builds(lambda x, other: lp.Cast(lp.Cast(x, other), kind), child, st.sampled_from([dt.f64, dt.i64, dt.i16]))
        return st.one_of(pair, choice, again) if kind.is_integer else st.one_of(pair, choice)

    return st.recursive(leaves, grow, max_leaves=8)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(st.sampled_from([dt.f64, dt.f32, dt.i32, dt.u8]), st.data())
def test_random_expressions_mean_what_the_interpreter_says(kind: DType, data: st.DataObject) -> None:
    tree = data.draw(trees(kind))
    lanes = data.draw(st.sampled_from([1, 4, 16]))
    ramp = lp.Ramp(var("i"), 1, lanes)
    mask = op("lt", ramp, var("n"), dtype=dt.bool_)
    at: tuple[lp.LoopExpr, ...] = (ramp,) if lanes > 1 else (var("i"),)
    lets = [lp.Let(x, lp.MaskedLoad(x.upper(), at, mask, kind) if lanes > 1 else lp.Load(x.upper(), at, kind)) for x in "ab"]
    body = lp.For("i", const(0), var("n"), lp.Block((*lets, lp.Store("Y", at, tree, mask if lanes > 1 else None))), step=lanes)
    params = tuple(lp.Param(name, kind, role, (var("n"),)) for name, role in (("A", "input"), ("B", "input"), ("Y", "output")))
    kernel = lp.Kernel("f", (size("n"), *params), body)
    rng = np.random.default_rng(0)
    a, b = ((rng.normal(size=21) * 20).astype(dt.to_numpy(kind)) if kind.kind != "u" else rng.integers(0, 200, 21).astype(np.uint8) for _ in range(2))
    want, got = np.zeros_like(a), np.zeros_like(a)
    assert interp.run(kernel, {"n": 21, "A": a, "B": b, "Y": want}) == 0
    assert Compiled(kernel)(21, a, b, got) == 0
    np.testing.assert_allclose(got, want, rtol=1e-4 if kind is dt.f32 else 1e-12, atol=1e-3 if kind is dt.f32 else 1e-9)
