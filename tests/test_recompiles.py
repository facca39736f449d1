"""How many kernels a pattern of calls costs. Every count is exact, and every result is compared with NumPy or SciPy."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

import polyai as pa

RNG = np.random.default_rng(12)


def x(*shape: int, dtype: Any = np.float64) -> Any:
    return RNG.standard_normal(shape).astype(dtype)


def matrix(n: int, m: int, format: str = "csr", dtype: Any = np.float64, index: Any = np.int32) -> Any:
    made = sp.random_array((n, m), density=0.4, rng=RNG, dtype=np.float64, format=format).astype(dtype)
    for name in ("indices", "indptr"):
        if hasattr(made, name):
            setattr(made, name, getattr(made, name).astype(index))
    if format == "coo":
        made.coords = tuple(c.astype(index) for c in made.coords)
    return made


@pytest.fixture(autouse=True)
def fresh(tmp_path: Any) -> Iterator[None]:
    """No kernel is in the disk cache or in memory."""
    with pa.options(cache_dir=str(tmp_path)):
        yield


def made() -> int:
    return pa.stats()["compiles"]


def product(a: Any, b: Any) -> Any:
    return a @ b


def scaled(a: Any, k: Any) -> Any:
    return a * k


def shifted(a: Any, b: Any) -> Any:
    return a + b


def gcn(a: Any, h: Any, w: Any) -> Any:
    return pa.relu(a @ (h @ w))


def gcn_reference(a: Any, h: Any, w: Any) -> Any:
    return np.maximum(a @ (h @ w), 0)


def halves(a: Any) -> Any:
    return a * 2 if a.shape[0] > 4 else a - 1


def fixed(a: Any) -> Any:
    return a * sum(range(a.shape[0]))


def first_rows(a: Any, k: Any) -> Any:
    return a[:k] * 2


Call = tuple[tuple[Any, ...], int]
PATTERNS: dict[str, tuple[Callable[..., Any], Callable[..., Any], list[Call]]] = {
    "sizes": (product, product, [((x(4, 5), x(5, 6)), 1), ((x(7, 2), x(2, 3)), 1), ((x(1, 1), x(1, 1)), 1), ((x(0, 3), x(3, 2)), 1), ((x(3, 0), x(0, 2)), 1)]),
    "element types": (product, product, [((x(4, 5), x(5, 6)), 1), ((x(4, 5, dtype=np.float32), x(5, 6, dtype=np.float32)), 2), ((x(4, 5, dtype=np.float32), x(5, 6)), 3), ((x(3, 3), x(3, 3)), 3)]),
    "ranks": (product, product, [((x(4, 5), x(5, 6)), 1), ((x(4, 5), x(5)), 2), ((x(4), x(4, 5)), 3), ((x(2, 4, 5), x(5, 6)), 4), ((x(9, 8), x(8)), 4)]),
    "sizes of sparse matrices": (product, product, [((matrix(6, 5), x(5, 3)), 1), ((matrix(60, 50), x(50, 7)), 1), ((matrix(1, 9), x(9, 1)), 1), ((sp.csr_array((3, 4)), x(4, 2)), 1), ((sp.csr_array((0, 0)), x(0, 2)), 1)]),
    "sparse formats": (product, product, [((matrix(6, 5, f), x(5, 3)), n) for n, f in enumerate(("csr", "csc", "coo", "csr", "coo"), 1)][:3] + [((matrix(8, 5, f), x(5, 3)), 3) for f in ("csr", "coo", "csc")]),
    "index widths": (product, product, [((matrix(6, 5), x(5, 3)), 1), ((matrix(6, 5, index=np.int64), x(5, 3)), 2), ((matrix(5, 5), x(5, 3)), 2)]),
    "values of sparse matrices": (product, product, [((matrix(6, 5), x(5, 3)), 1), ((matrix(6, 5, dtype=np.float32), x(5, 3, dtype=np.float32)), 2)]),
    "arrays and matrices of SciPy": (product, product, [((matrix(6, 5), x(5, 3)), 1), ((sp.csr_matrix(matrix(6, 5)), x(5, 3)), 1), ((sp.csr_matrix(matrix(4, 5)), x(5, 2)), 1)]),
    "formats that convert": (product, product, [((matrix(6, 6, "dok"), x(6, 3)), 1), ((matrix(6, 6, "csr"), x(6, 3)), 1), ((matrix(6, 6, "lil"), x(6, 3)), 1)]),
    "a layer": (gcn, gcn_reference, [((matrix(6, 6), x(6, 4), x(4, 2)), 1), ((matrix(9, 9), x(9, 3), x(3, 5)), 1), ((matrix(2, 2), x(2, 2), x(2, 2)), 1)]),
    "stretched sizes": (shifted, shifted, [((x(4, 5), x(4, 5)), 1), ((x(4, 5), x(1, 5)), 2), ((x(7, 6), x(7, 6)), 2), ((x(3, 2), x(1, 2)), 2), ((x(1, 5), x(4, 5)), 3), ((x(4, 5), x(5)), 4), ((x(1, 5), x(1, 5)), 4)]),
    "Python numbers": (scaled, scaled, [((x(4), 2.5), 1), ((x(4), -1.0), 1), ((x(9), np.pi), 1), ((x(4), 3), 2), ((x(4), 10**9), 2), ((x(4), True), 3), ((x(4), False), 3), ((x(4), 1j), 4)]),
    "a guard": (halves, lambda a: a * 2 if a.shape[0] > 4 else a - 1, [((x(6, 2),), 1), ((x(3, 2),), 2), ((x(5, 9),), 2), ((x(4, 4),), 2), ((x(0, 4),), 2)]),
    "a size as a number": (fixed, lambda a: a * sum(range(len(a))), [((x(4, 3),), 1), ((x(4, 8),), 1), ((x(5, 3),), 2), ((x(4, 1),), 2)]),
    "a number as a size": (first_rows, lambda a, k: a[:k] * 2, [((x(6, 2), 3), 1), ((x(8, 2), 3), 1), ((x(8, 2), 4), 2), ((x(9, 1), 3), 2)]),
    "layouts of memory": (shifted, shifted, [((x(4, 4), x(4, 4)), 1), ((x(4, 4).T, x(8, 8)[::2, ::2]), 1), ((x(4, 4)[::-1], x(4, 4).astype(">f8")), 1)]),
}  # fmt: skip


@pytest.mark.parametrize("name", list(PATTERNS))
def test_kernels(name: str) -> None:
    fn, reference, calls = PATTERNS[name]
    function, before = pa.jit(fn), made()
    for again in (False, True):
        for args, count in calls:
            got, want = function(*args), reference(*args)
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
            assert made() - before == (calls[-1][1] if again else count)


def test_the_first_size_does_not_matter() -> None:
    """Kernels for sizes 0, 1 and 5 differ in costs only: each serves the others."""
    for n in (0, 1, 5):
        f, before = pa.jit(lambda a, b: pa.softmax(a @ b, axis=0) + 1), made()
        for k in (n, 3, 1, 0, 8):
            a, b = x(k, 4), x(4, 3)
            with np.errstate(all="ignore"):
                e = np.exp(a @ b - (a @ b).max(axis=0, initial=-np.inf))
                np.testing.assert_allclose(f(a, b), e / e.sum(axis=0) + 1, rtol=1e-12)
        assert made() - before == 1


def test_fixed_sizes_may_be_0() -> None:
    f = pa.jit(lambda a, b: pa.softmax(a @ b + 1), dynamic="none")
    for n, k, m in ((0, 1, 0), (2, 0, 3), (0, 2, 3), (2, 3, 2)):
        a, b = x(n, k), x(k, m)
        e = np.exp(a @ b + 1)
        np.testing.assert_allclose(f(a, b), e / e.sum(axis=-1, keepdims=True), rtol=1e-12)


def test_declared_dimensions() -> None:
    """A size that is not as declared is refused: it costs no kernel."""
    n = pa.dim("n", 1, 8)
    f, before = pa.jit(product, dynamic={"a": {0: n}}), made()
    for shape, count in (((4, 5, 6), 1), ((8, 5, 6), 1), ((1, 5, 6), 1), ((4, 3, 6), 2), ((7, 3, 6), 2), ((4, 5, 7), 3)):
        a, b = x(shape[0], shape[1]), x(shape[1], shape[2])
        np.testing.assert_allclose(f(a, b), a @ b)
        assert made() - before == count
    for rows in (0, 9):
        with pytest.raises(pa.errors.GuardError):
            f(x(rows, 5), x(5, 6))
    assert made() - before == 3


def test_all_dimensions_fixed() -> None:
    f, before = pa.jit(product, dynamic="none"), made()
    for shape, count in (((4, 5, 6), 1), ((4, 5, 6), 1), ((8, 5, 6), 2), ((4, 5, 1), 3), ((8, 5, 6), 3)):
        a, b = x(shape[0], shape[1]), x(shape[1], shape[2])
        np.testing.assert_allclose(f(a, b), a @ b)
        assert made() - before == count


def test_some_dimensions_dynamic() -> None:
    f, before = pa.jit(product, dynamic={"a": (0,)}), made()
    for shape, count in (((4, 5, 6), 1), ((9, 5, 6), 1), ((0, 5, 6), 1), ((4, 5, 7), 2), ((3, 5, 7), 2)):
        a, b = x(shape[0], shape[1]), x(shape[1], shape[2])
        np.testing.assert_allclose(f(a, b), a @ b)
        assert made() - before == count


def test_relations_of_a_declared_function() -> None:
    n, k = pa.dim("n", 1, 64), pa.dim("k")
    before = made()
    f = pa.compile(lambda a, b: a[: b.shape[0]] + b, pa.f64[n], pa.f64[k], where=[k <= n])
    for sizes in ((3, 3), (64, 1), (5, 0)):
        a, b = x(sizes[0]), x(sizes[1])
        np.testing.assert_array_equal(f(a, b), a[: sizes[1]] + b)
    with pytest.raises(pa.errors.GuardError):
        f(x(3), x(4))
    assert made() - before == 1


def test_policies_share_the_general_kernel() -> None:
    """A policy is no other program: the general kernel comes from memory; each specialised one is compiled once."""
    before, a, b = made(), x(4, 5), x(5, 6)
    for policy, count in (("none", 1), ("exact", 2), ("pow2", 2), ("none", 2)):
        f = pa.jit(product, policy=policy)
        if policy != "none":
            f.warm(a, b)
        np.testing.assert_allclose(f(a, b), a @ b)
        assert made() - before == count


def test_static_arguments() -> None:
    f, before = pa.jit(lambda a, axis: a.sum(axis=axis), static=("axis",)), made()
    for axis, count in ((0, 1), (1, 2), (0, 2), (None, 3), (-1, 3), (1, 3)):
        a = x(4, 5)
        np.testing.assert_allclose(f(a, axis), a.sum(axis=axis))
        assert made() - before == count
    assert len(f.reasons) == 4  # the axes 1 and -1 are two traces of one program


def test_keywords() -> None:
    f, before = pa.jit(lambda a, *, bias=None, scale=1.0: a * scale if bias is None else a * scale + bias), made()
    a, b = x(3), x(3)
    for kwargs, count in (({}, 1), ({"scale": 2.0}, 2), ({"scale": 3.0}, 2), ({"bias": b}, 3), ({"bias": b, "scale": 2.0}, 4), ({"scale": 2.0, "bias": b}, 4), ({"bias": None}, 4)):
        got = f(a, **kwargs)
        np.testing.assert_allclose(got, a * kwargs.get("scale", 1.0) + (0 if kwargs.get("bias") is None else b))
        assert made() - before == count


def test_containers() -> None:
    f, before = pa.jit(lambda p: p["x"] @ p["w"][0] + p["w"][1]), made()
    for n in (3, 5):
        p = {"x": x(n, 2), "w": [x(2, 4), x(4)]}
        np.testing.assert_allclose(f(p), p["x"] @ p["w"][0] + p["w"][1])
    assert made() - before == 1


def test_options() -> None:
    f, before = pa.jit(lambda a, b: a @ b), made()
    a, b = x(4, 5), x(5, 6)
    for changes, count in (({}, 1), ({"num_threads": 1}, 1), ({"verify": True}, 1), ({"vector_bits": 128}, 2), ({"scheduler": "isl"}, 3), ({"blas": "never"}, 4), ({}, 4)):
        with pa.options(**changes):
            np.testing.assert_allclose(f(a, b), a @ b)
        assert made() - before == count


def test_a_compiled_function_in_another() -> None:
    inner = pa.jit(lambda a, b: a @ b)
    outer, before = pa.jit(lambda a, b, c: inner(inner(a, b), c) + 1), made()
    for n in (3, 4):
        a, b, c = x(n, 5), x(5, 6), x(6, 2)
        np.testing.assert_allclose(outer(a, b, c), a @ b @ c + 1)
    assert made() - before == 1 and inner.reasons == ()


def test_two_functions_of_one_meaning_share_a_kernel() -> None:
    before, a, b = made(), x(4, 5), x(5, 6)
    for _ in range(2):

        def double(a: Any, b: Any) -> Any:
            return 2 * (a @ b)

        np.testing.assert_allclose(pa.jit(double)(a, b), 2 * (a @ b))
    assert made() - before == 1


def test_captured_arrays_are_read_at_every_call() -> None:
    held = x(5)
    f, before = pa.jit(lambda a: a * held), made()
    for _ in range(3):
        held[:] = x(5)
        a = x(4, 5)
        np.testing.assert_allclose(f(a), a * held)
    assert made() - before == 1


def test_declared_functions_never_compile_again() -> None:
    n, m = pa.dim("n"), pa.dim("m")
    before = made()
    f = pa.compile(lambda a, b: a @ b, pa.csr[n, m], pa.f64[m, 8])
    assert made() - before == 1
    for size in (3, 9, 30):
        a, b = matrix(size, size + 1), x(size + 1, 8)
        np.testing.assert_allclose(f(a, b), a @ b)
    for args in ((matrix(3, 4), x(4, 9)), (matrix(3, 4, dtype=np.float32), x(4, 8)), (matrix(3, 4, "csc"), x(4, 8))):
        with pytest.raises(pa.errors.GuardError):
            f(*args)
    assert made() - before == 1


def test_functions_outside_traces_keep_their_kernels() -> None:
    before = made()
    for n in (3, 4, 9):
        a = x(n, 5)
        e = np.exp(a - a.max(axis=-1, keepdims=True))
        np.testing.assert_allclose(pa.softmax(a), e / e.sum(axis=-1, keepdims=True))
    assert made() - before == 1


def test_another_process_takes_kernels_from_the_disk(tmp_path: Any) -> None:
    code = (
        "import numpy as np, scipy.sparse as sp, polyai as pa\n"
        "f = pa.jit(lambda a, b: pa.relu(a @ b))\n"
        "for n in (3, 6):\n"
        "    f(sp.eye_array(n, format='csr'), np.ones((n, 2)))\n"
        "s = pa.stats(); print(s['compiles'], s.get('disk_hits', 0))"
    )
    env = {**os.environ, "POLYAI_CACHE_DIR": str(tmp_path / "shared")}
    runs = [subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout.split() for _ in range(2)]
    assert runs == [["1", "0"], ["0", "1"]]


def test_reasons_say_what_broke() -> None:
    f = pa.jit(halves)
    f(x(6, 2))
    f(x(3, 2))
    f(x(3, 2, dtype=np.float32))
    assert f.reasons == ("first call with arguments of this kind", "a guard does not hold: a.shape[0] > 4", "first call with arguments of this kind")
    assert repr(f) == "<polyai function halves: 3 kernels>"
