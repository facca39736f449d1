"""Declared sizes: ranges, expressions, relations, what is refused and in which words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import polyai as pa
from polyai.errors import GuardError, PolyAIError, ShapeError, TraceError

N = pa.dim("n", 1, 64)
M, K = pa.dim("m"), pa.dim("k")
K8 = pa.dim("k", 1, 64, multiple_of=8)


def x(*shape: int) -> Any:
    return np.random.default_rng(sum(shape)).standard_normal(shape)


def test_expressions_print_as_they_are_written() -> None:
    texts = {
        "2*n + 1": 2 * N + 1, "n // 2": N // 2, "n % 8": N % 8, "(n + 63) // 64": pa.ceildiv(N, 64), "minimum(m, n)": pa.minimum(N, M),
        "maximum(4, n)": pa.maximum(N, 4), "-n": -N, "m*n": N * M, "100 // n": 100 // N, "7 % n": 7 % N, "2*(n // 3)": 2 * (N // 3),
    }  # fmt: skip
    assert {str(e): t for t, e in texts.items()} == {t: t for t in texts}


def test_relations_print_as_they_are_written() -> None:
    relations = {"n <= m": N <= M, "m == n // 2": M == N // 2, "n % 8 == 0": N % 8 == 0, "n > 4": N > 4, "n != m": N != M, "n >= 2*m": 2 * M <= N}
    for text, relation in relations.items():
        assert str(relation) == text or str(relation) == "2*m <= n"


def test_a_relation_has_a_truth_only_where_the_ranges_decide() -> None:
    assert bool(N <= 64) and not bool(N > 64) and bool(N == N) and not bool(N == M) and bool(N != M)
    with pytest.raises(TraceError, match=r"n <= m depends on the call[\s\S]*where=\[n <= m\]"):
        bool(N <= M)


def test_a_size_that_only_an_expression_has_is_solved_for() -> None:
    f = pa.compile(lambda a, b: a.reshape(2, b.shape[0]) + b, pa.f64[2 * N + 2], pa.f64[N + 1])
    for n in (1, 5, 64):
        a, b = x(2 * n + 2), x(n + 1)
        np.testing.assert_array_equal(f(a, b), a.reshape(2, n + 1) + b)
    with pytest.raises(GuardError, match=r"a.shape\[0\] == 2\*n \+ 2"):
        f(x(5), x(2))
    with pytest.raises(GuardError, match=r"dimension n is 65, outside its range\n  why: a.shape\[0\], which is 2\*n \+ 2, gave the value"):
        f(x(132), x(66))


@pytest.mark.parametrize(
    ("where", "good", "bad"),
    [
        ([K == N // 2], [(7, 3), (1, 0), (64, 32)], (7, 4)),
        ([K <= N], [(7, 7), (7, 0), (1, 1)], (7, 8)),
        ([K < N, N % 4 == 0], [(8, 7), (4, 0)], (8, 8)),
        ([K + 2 == N], [(7, 5), (2, 0)], (7, 6)),
        ([pa.minimum(N, 3) == K], [(7, 3), (2, 2)], (7, 4)),
        ([pa.ceildiv(N, 4) == K], [(8, 2), (9, 3), (1, 1)], (9, 2)),
    ],
)
def test_relations_are_relied_on_and_checked(where: list[Any], good: list[tuple[int, int]], bad: tuple[int, int]) -> None:
    f = pa.compile(lambda a, b: a[: b.shape[0]] + b, pa.f64[N], pa.f64[K], where=where)
    for n, k in good:
        np.testing.assert_array_equal(f(x(n), x(k)), x(n)[:k] + x(k))
    with pytest.raises(GuardError, match=r"the call breaks .*k") as caught:
        f(x(bad[0]), x(bad[1]))
    assert f"k = {bad[1]} by b.shape[0]" in str(caught.value) and f"n = {bad[0]} by a.shape[0]" in str(caught.value)


def test_without_the_relation_the_same_program_is_refused() -> None:
    with pytest.raises(TraceError, match=r"neither always true nor always false[\s\S]*where=\[\.\.\.\]"):
        pa.compile(lambda a, b: a[: b.shape[0]] + b, pa.f64[N], pa.f64[K])


CONTRADICTIONS: list[tuple[Callable[[], Any], str]] = [
    (lambda: pa.compile(lambda a, b: a, pa.f64[N], pa.f64[K], where=[K <= N, N < K]), r"n < k can never hold with 1 <= n <= 64; 0 <= k; k <= n"),
    (lambda: pa.compile(lambda a: a, pa.f64[N], where=[N >= 65]), r"n >= 65 can never hold with 1 <= n <= 64"),
    (lambda: pa.compile(lambda a: a, pa.f64[N], where=[N % 2 == 0, N % 2 == 1]), r"contradict|can never hold"),
    (lambda: pa.compile(lambda a: a, pa.f64[N], where=[N >= M]), r"n >= m speaks of m"),
    (lambda: pa.compile(lambda a: a, pa.f64[N * M]), r"size m cannot be found"),
    (lambda: pa.compile(lambda a: a, pa.f64[N], where=[True]), r"is no relation"),  # type: ignore[list-item]
    (lambda: pa.compile(lambda a, b: a, pa.f64[N], pa.f64[pa.dim("n")]), r"size n is declared twice"),
    (lambda: pa.dim("n", 1, 7, 8), r"dimension n has no possible value"),
    (lambda: pa.dim("n", 1, 7, likely=9), r"the likely value 9 of dimension n is not possible"),
    (lambda: pa.dim("n") // 0, r"a size is divided by 0"),
    (lambda: pa.compile(lambda b: b, pa.f64[M], where=[M % 4 == 0, M % 6 == 1]), r"contradict each other\n.*no m has 0 <= m; m % 4 == 0; m % 6 == 1"),
    (lambda: pa.compile(lambda b: b, pa.f64[M], where=[M % 3 != 0, M % 3 != 1, M % 3 != 2]), r"no m has"),
    (lambda: pa.compile(lambda a: a, pa.f64[K8], where=[K8 % 16 == 4]), r"no k has 1 <= k <= 64, a multiple of 8; k % 16 == 4"),
    (lambda: pa.compile(lambda a: a, pa.f64[N], where=7), r"where=7 holds no relations"),  # type: ignore[arg-type]
    (lambda: pa.dim("n", 1.5, 7), r"dim\('n'\) has min=1.5"),  # type: ignore[arg-type]
    (lambda: pa.dim("n", likely=("8",)), r"likely='8'"),  # type: ignore[arg-type]
    (lambda: pa.dim(5), r"5 is no name for a size"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("make", "text"), CONTRADICTIONS, ids=range(len(CONTRADICTIONS)))
def test_declarations_that_cannot_be_are_refused(make: Callable[[], Any], text: str) -> None:
    with pytest.raises(ShapeError, match=text):
        make()


def test_what_can_hold_together_is_accepted() -> None:
    f = pa.compile(lambda b: b + 1, pa.f64[M], where=[M % 4 == 0, M % 6 == 2])
    np.testing.assert_array_equal(f(np.zeros(8)), np.ones(8))
    with pytest.raises(GuardError, match=r"m % 6 == 2"):
        f(np.zeros(4))
    one = pa.compile(lambda b: b + 1, pa.f64[M], where=M % 2 == 0)  # one relation stands for a list of one
    with pytest.raises(GuardError, match=r"m % 2 == 0"):
        one(np.zeros(3))


@pytest.mark.parametrize(
    ("dynamic", "text"),
    [
        ({"y": {0: N}}, r"dynamic names 'y'\n.*the arguments are a, b"),
        ({3: {0: N}}, r"dynamic names 3"),
        ({"a": {2: N}}, r"dynamic\['a'\] names dimension 2\n.*a has 2 dimensions"),
        ({"a": [-3]}, r"names dimension -3"),
        ({"a": ["0"]}, r"names dimension '0'"),
    ],
)
def test_dimensions_that_are_none_are_refused(dynamic: Any, text: str) -> None:
    with pytest.raises(TraceError, match=text):
        pa.jit(lambda a, b: a @ b, dynamic=dynamic)(x(2, 3), x(3, 2))


def test_dimensions_are_counted_backwards_too() -> None:
    f = pa.jit(lambda a: a + 1, dynamic={"a": {-1: pa.dim("cols", 1, 4)}})
    for cols in (1, 4, 2):
        np.testing.assert_array_equal(f(x(3, cols)), x(3, cols) + 1)
    assert len(f.reasons) == 1
    with pytest.raises(GuardError, match=r"dimension cols is 5, outside its range\n.*a.shape\[1\]"):
        f(x(3, 5))


@pytest.mark.parametrize("use", [np.zeros, lambda n: 1 << n, lambda n: n & 3, lambda n: [0] * n, lambda n: np.ones((n, 2))])
def test_a_number_that_a_library_asks_for_is_refused_in_our_words(use: Callable[[Any], Any]) -> None:
    with pytest.raises(TraceError, match=r"the number n is needed while tracing\n.*only declared"):
        pa.compile(lambda a: a * np.sum(use(a.shape[0])), pa.f64[N])


def test_operators_of_sizes() -> None:
    """Those that keep a size symbolic, and those that need its value, which a guard then fixes."""
    symbolic = pa.jit(lambda a: a * (a.shape[0] >> 1) + divmod(a.shape[0], 4)[1] + (a.shape[0] << 2) + round(a.shape[0]))
    fixed = pa.jit(lambda a: a * (1 << a.shape[0]) + (a.shape[0] & 6) + (a.shape[0] | 1) + (5 ^ a.shape[0]))
    for n in (1, 5, 8):
        np.testing.assert_array_equal(symbolic(x(n)), x(n) * (n >> 1) + n % 4 + (n << 2) + n)
        np.testing.assert_array_equal(fixed(x(n)), x(n) * (1 << n) + (n & 6) + (n | 1) + (5 ^ n))
    assert len(symbolic.reasons) == 1 and len(fixed.reasons) == 3


def test_misuse_of_a_declared_size() -> None:
    for use in (lambda: range(N), lambda: N + 0.5, lambda: pa.jit(lambda a: a, dynamic={"a": {0: 4}})(x(4))):
        with pytest.raises(TraceError):
            use()


def test_jit_with_declared_dimensions() -> None:
    f = pa.jit(lambda a, b: a @ b, dynamic={"a": {0: pa.dim("rows", 0, 64, 4)}})
    before = pa.stats()["compiles"]
    for n in (4, 0, 64, 8):
        np.testing.assert_allclose(f(x(n, 3), x(3, 2)), x(n, 3) @ x(3, 2))
    assert pa.stats()["compiles"] - before <= 1 and len(f.reasons) == 1
    for n, text in ((68, "dimension rows is 68, outside its range\n  why: a.shape[0] gave the value; declared is 0 <= rows <= 64, a multiple of 4"), (6, "dimension rows is 6")):
        for _ in range(2):  # refused the first time and every time
            with pytest.raises(GuardError) as caught:
                f(x(n, 3), x(3, 2))
            assert text in str(caught.value)
    with pytest.raises(GuardError):  # as the first call, too
        pa.jit(lambda a: a, dynamic={"a": {0: pa.dim("n", 1, 4)}})(x(5))
    np.testing.assert_allclose(f(x(4, 2), x(2, 2)), x(4, 2) @ x(2, 2))  # what is not declared is fixed
    assert f.reasons[1] == "a guard does not hold: a.shape[1] == 3"


def test_one_name_in_two_arguments_is_one_size() -> None:
    n = pa.dim("n")
    f = pa.jit(lambda a, b: a + b, dynamic={"a": {0: n}, "b": {0: n}})
    np.testing.assert_array_equal(f(x(3), x(3)), 2 * x(3))
    with pytest.raises(GuardError, match=r"b.shape\[0\] = 1, n = 3 by a.shape\[0\]"):
        f(x(3), x(1))  # declared equal: 1 is not stretched


def test_sizes_0_and_1_are_ordinary() -> None:
    f, n = pa.compile(lambda a, b: (a + b).sum(axis=0), pa.f64[(m := pa.dim("m")), 3], pa.f64[m, 3]), 0
    for n in (0, 1, 2, 9):
        np.testing.assert_allclose(f(x(n, 3), x(n, 3)), 2 * x(n, 3).sum(axis=0))
    with pytest.raises(GuardError):
        f(x(4, 3), x(1, 3))
    with pytest.raises(ShapeError, match="declare them as the same size"):
        pa.compile(lambda a, b: a + b, pa.f64[N], pa.f64[M])


def test_likely_values_are_hints_only() -> None:
    n = pa.dim("n", likely=(8, 200))
    f = pa.compile(lambda a: a * 2, pa.f64[n])
    assert f._traced.hints == {"n": 200}
    np.testing.assert_array_equal(f(x(3)), 2 * x(3))


def test_extremes_of_sizes_are_sizes() -> None:
    f = pa.jit(lambda a: pa.zeros((pa.minimum(a.shape[0], 4), pa.maximum(2, a.shape[1]), pa.ceildiv(a.shape[0], 4))) + a.sum())
    for shape in ((9, 3), (2, 1), (0, 0)):
        assert f(np.zeros(shape)).shape == (min(shape[0], 4), max(2, shape[1]), -(-shape[0] // 4))
    assert len(f.reasons) == 1


def test_every_refusal_is_ours() -> None:
    for relation in (N <= M, N == 4):
        with pytest.raises(PolyAIError):
            pa.compile(lambda a: a, pa.f64[3], where=[relation])
