import operator

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from polyai.errors import ShapeError
from polyai.shapes.bounds import interval
from polyai.shapes.dim import Dim
from polyai.shapes.expr import evaluate, floordiv, maximum, mod, symbol
from polyai.shapes.facts import MAYBE, NO, YES, Facts

from .strategies import dims, sizes, values

N, M, B = symbol("n"), symbol("m"), symbol("b")
FACTS = Facts([Dim("n", 1, None, 8), Dim("m", 0, 100)], nonnegative=[N - M - 3])
RELATIONS = {"==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


@given(dims(), sizes, sizes, st.sampled_from(sorted(RELATIONS)))
@settings(max_examples=400, deadline=None, derandomize=True)
def test_proofs_agree_with_every_value(declared, a, b, relation):
    answer = Facts(declared).prove(a, relation, b)
    truths = {RELATIONS[relation](evaluate(a, at), evaluate(b, at)) for at in values(declared)}
    if answer is YES:
        assert truths == {True}
    if answer is NO:
        assert truths == {False}


@given(dims(), sizes)
@settings(max_examples=300, deadline=None, derandomize=True)
def test_intervals_contain_every_value(declared, size):
    low, high = interval(size, {d.name: d for d in declared})
    found = [evaluate(size, at) for at in values(declared)]
    assert low is None or low <= min(found)
    assert high is None or max(found) <= high


@given(dims(), sizes, sizes)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_known_inequalities_are_used_and_sound(declared, known, size):
    admitted = [at for at in values(declared) if evaluate(known, at) >= 0]
    assume(admitted)
    facts = Facts(declared, nonnegative=[known])
    assert facts.prove(known) is YES
    answer = facts.prove(size)
    for at in admitted:
        assert answer is MAYBE or (evaluate(size, at) >= 0) == (answer is YES)


@pytest.mark.parametrize(
    ("left", "relation", "right", "answer"),
    [
        (N, ">=", 8, YES),  # a multiple of 8 that is at least 1
        (N, ">=", 9, MAYBE),
        (N, "==", 1, NO),
        (N, "==", 12, NO),
        (N, "==", 16, MAYBE),
        (B, ">=", mod(B, 3), YES),
        (mod(N, 4), "==", 0, YES),
        (N, ">", M, YES),
        (M, ">", N, NO),
        (N * M, ">=", 8 * M, YES),
        (N * B, ">=", M * B, YES),
        (N * B, ">", M * B, MAYBE),
        (8 * floordiv(N, 8), "==", N, YES),
        (4 * floordiv(B + 3, 4), ">=", B, YES),
        (4 * floordiv(B + 3, 4), "<", B + 4, YES),
        (maximum(N, M), "==", N, YES),
        (M, "<=", 100, YES),
        (M, "!=", 101, YES),
        (2 * B + 1, "!=", 2 * M, YES),
        (B, ">=", -1, YES),
        (B, "==", M, MAYBE),
    ],
)
def test_answers(left, relation, right, answer):
    assert FACTS.prove(left, relation, right) is answer


def test_equalities_are_used():
    facts = Facts(zero=[N - 2 * M, M - 3 * B])
    assert facts.prove(N, "==", 6 * B) is YES
    assert facts.prove(N, ">=", B) is YES
    assert facts.prove(N + 1, "==", 6 * B) is NO
    assert facts.divides(6, N) is YES
    assert facts.also(dims=[Dim("b", 1)]).prove(N, ">=", 6) is YES


def test_polynomials_by_factors():
    square = B * B - 2 * B + 1
    assert FACTS.prove(square) is MAYBE
    assert FACTS.prove(square, hard=True) is YES
    assert FACTS.prove(square, ">", hard=True) is MAYBE
    assert FACTS.prove(N * N, ">", M * M, hard=True) is YES
    assert FACTS.prove(M * M, ">=", N * N, hard=True) is NO


def test_a_decision_procedure_is_asked_last():
    asked = []

    def decide(known, size):
        asked.append(size)
        return size == M - B

    facts = Facts(decide=decide)
    assert facts.prove(M, ">=", -1) is YES and not asked
    assert facts.prove(M, ">=", B) is YES and asked == [M - B]
    assert facts.prove(M * B, ">=", B) is MAYBE


def test_declarations_are_checked():
    with pytest.raises(ShapeError, match="dimension n has no possible value"):
        Facts([Dim("n", 5, 7, 8)])
    with pytest.raises(ShapeError, match="declared twice"):
        Facts([Dim("n", 1), Dim("n", 2)])
    assert Facts([Dim("n", 1), Dim("n", 1)]).prove(N, ">=", 1) is YES


def test_sympy_is_not_imported_for_linear_questions():
    import subprocess
    import sys

    code = (
        "import sys; from polyai.shapes.facts import *; from polyai.shapes.dim import Dim; from polyai.shapes.expr import symbol\n"
        "n = symbol('n'); assert Facts([Dim('n', 2)]).prove(n * n, '>=', n) is YES\n"
        "assert 'sympy' not in sys.modules; Facts().prove(n * n + 1, '>=', 2 * n, hard=True); assert 'sympy' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
