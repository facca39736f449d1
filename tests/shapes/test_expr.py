import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyai.shapes import expr as sx
from polyai.shapes.code import compile_sizes
from polyai.shapes.expr import ceildiv, evaluate, floordiv, is_linear, maximum, minimum, mod, show, substitute, symbol, symbols

from .strategies import NAMES, sizes

N, M = symbol("n"), symbol("m")
POINTS = st.fixed_dictionaries({name: st.integers(0, 20) for name in NAMES})


@given(sizes, sizes, POINTS, st.integers(1, 6))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_arithmetic_commutes_with_evaluation(a, b, at, number):
    va, vb = evaluate(a, at), evaluate(b, at)
    for size, value in (
        (a + b, va + vb), (a - b, va - vb), (a * b, va * vb), (floordiv(a, number), va // number), (mod(a, number), va % number),
        (maximum(a, b), max(va, vb)), (minimum(a, b), min(va, vb)), (ceildiv(a, number), -(-va // number)),
    ):  # fmt: skip
        assert evaluate(size, at) == value
        assert compile_sizes([size], NAMES)(*(at[n] for n in NAMES)) == (value,)


@given(sizes, sizes)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_equal_polynomials_are_equal_objects(a, b):
    assert a + b == b + a and a * b == b * a
    assert a + b - b == a
    assert (a + b) * 2 == 2 * a + 2 * b


def test_plain_numbers_are_ints():
    assert N - N == 0 and isinstance(N - N, int)
    assert floordiv(6 * N, 3) == 2 * N
    assert floordiv(N * M, M) == N
    assert floordiv(4 * N + 2, 4) == N
    assert mod(8 * N + 3, 8) == 3
    assert mod(N * M, N) == 0
    assert maximum(3, 5) == 5
    assert maximum(N) == N


def test_text():
    assert show(2 * N * M - 3) == "2*m*n - 3" or show(2 * N * M - 3) == "-3 + 2*m*n"
    assert show(sx.FloorDiv and floordiv(N, 2)) == "floor((n) / (2))"
    assert show(0) == "0"


def test_symbols_and_substitution():
    size = floordiv(N + M, 4) + mod(N, 3)
    assert symbols(size) == {"n", "m"}
    assert substitute(size, {"n": 7, "m": 1}) == 3
    assert substitute(size, {"m": 4 * N}) == floordiv(5 * N, 4) + mod(N, 3)
    with pytest.raises(KeyError, match="m"):
        evaluate(N + M, {"n": 1})


def test_linearity():
    assert is_linear(2 * N + M - 1) and is_linear(7)
    assert not is_linear(N * M) and not is_linear(floordiv(N, 2))


def test_division_by_zero():
    with pytest.raises(ZeroDivisionError):
        floordiv(N, 0)
    with pytest.raises(KeyError, match="k"):
        compile_sizes([N + symbol("k")], ["n"])
