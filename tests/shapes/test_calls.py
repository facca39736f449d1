"""What happens at a call: unification, guards, buckets."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyai.errors import GuardError, OptionError, ShapeError
from polyai.shapes.bucket import Edges, Exact, Multiple, PowerOfTwo, best_edges, bucket_of, narrowed, parse
from polyai.shapes.dim import Dim
from polyai.shapes.expr import evaluate, floordiv, symbol
from polyai.shapes.facts import Facts
from polyai.shapes.guard import Guard, first_broken, guards_of, needed, require
from polyai.shapes.unify import Operand, bind, unify

from .strategies import sizes

N, M, K = symbol("n"), symbol("m"), symbol("k")


def test_unify_solves_in_any_order():
    operands = [Operand("A", (2 * N + 1, N * M)), Operand("b", (M, 4)), Operand("c", (floordiv(N, 2),))]
    assert unify(operands, [(7, 15), (5, 4), (1,)]) == {"n": 3, "m": 5}


@given(st.integers(0, 9), st.integers(0, 9), sizes)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_unify_inverts_evaluation(n, m, size):
    at = {"n": n, "m": m, "k": 2}
    operands = [Operand("A", (3 * N + 2, M - N + 9)), Operand("B", (K, size))]
    shapes = [tuple(evaluate(s, at) for s in o.shape) for o in operands]
    assert unify(operands, shapes) == at
    with pytest.raises(ShapeError):
        unify(operands, [shapes[0], (2, shapes[1][1] + 1)])


def message(*args, **kwargs):
    with pytest.raises(ShapeError) as error:
        unify(*args, **kwargs)
    return str(error.value)


def test_messages_name_dimension_values_and_operands():
    a, x = Operand("A", (M, N)), Operand("X", (N, K))
    text = message([a, x], [(4, 5), (6, 2)])
    assert text.startswith("dimension n is 5 by A.shape[1] and 6 by X.shape[0]")
    assert "n = 5 by A.shape[1]" in text and "try:" in text
    assert "X has 1 dimensions, not 2" in message([a, x], [(4, 5), (6,)])
    assert "A.shape[0] is 8, which no n explains" in message([Operand("A", (2 * N + 1,))], [(8,)])
    assert "b.shape[0] is 3, not 4" in message([Operand("b", (4,))], [(3,)])
    assert "does not determine m and n" in message([Operand("A", (N * M,))], [(6,)])
    text = message([a], [(4, 600)], [Dim("n", 1, 512)])
    assert "dimension n is 600, outside its range" in text and "1 <= n <= 512" in text
    assert "where n = 3 by A.shape[0]" in message([Operand("A", (N, 2 * N))], [(3, 7)])
    with pytest.raises(ShapeError, match=r"m\*n has no value"):
        bind(N * M, {"n": 2})


def test_guards():
    guards = (Guard(N, "<=", 512), Guard(N, "==", M, "A.shape[0] == x.shape[0]", "compared by the traced function"))
    require(guards, {"n": 3, "m": 3})
    with pytest.raises(GuardError, match=r"A.shape\[0\] == x.shape\[0\] fails: m = 4, n = 3") as error:
        require(guards, {"n": 3, "m": 4})
    assert "compared by the traced function" in str(error.value)
    check = first_broken(guards, ("n", "m"))
    assert [check(3, 3), check(600, 600), check(3, 4)] == [-1, 0, 1]


def test_proved_guards_are_dropped():
    facts = Facts([Dim("n", 1, 64, 8)])
    assert needed([Guard(N, ">", 0), Guard(N, "<=", 32), Guard(N, "<=", 32)], facts) == (Guard(N, "<=", 32),)
    with pytest.raises(GuardError, match="n == 9 can never hold"):
        needed([Guard(N, "==", 9)], facts)
    assert needed(guards_of(Dim("n", 1, 64, 8)), facts) == ()
    assert [str(g) for g in guards_of(Dim("n", 1, 64, 8))] == ["n >= 1", "n <= 64", "n is a multiple of 8"]


@pytest.mark.parametrize("policy", [Exact(), PowerOfTwo(), PowerOfTwo(3), Multiple(12), Edges((5, 40, 41))])
def test_buckets_partition_the_sizes(policy):
    previous = (0, 0)
    for size in range(300):
        low, high = bucket_of(policy, size)
        assert low <= size and (high is None or size <= high)
        assert (low, high) == previous or low == previous[1] + 1 == size
        previous = (low, high)


def test_bucket_policies_as_text():
    assert [parse(t) for t in ("exact", "pow2", "pow2:64", "multiple:32", "ranges:16,64")] == [
        Exact(), PowerOfTwo(), PowerOfTwo(64), Multiple(32), Edges((16, 64)),
    ]  # fmt: skip
    for text in ("", "pow3", "multiple", "ranges:5,3", "multiple:0", "exact:3", "pow2:x"):
        with pytest.raises(OptionError, match="unknown bucket policy"):
            parse(text)


def test_narrowed():
    assert narrowed(Dim("n", 4, 100, 2), PowerOfTwo(16), 20) == Dim("n", 17, 32, 2)
    assert narrowed(Dim("n", 4, None), Edges((8,)), 20) == Dim("n", 9, None)


def test_best_edges_weigh_padding_against_compiling():
    frequency = {10: 100, 11: 100, 1000: 5}
    padded = lambda size, high: high * 1e-3  # noqa: E731
    assert best_edges(frequency, padded, 1.0) == Edges((11, 1000))
    assert best_edges(frequency, padded, 1e6) == Edges((1000,))
    assert best_edges(frequency, padded, 0.0) == Edges((10, 11, 1000))
    assert best_edges({}, padded, 1.0) == Edges(())
