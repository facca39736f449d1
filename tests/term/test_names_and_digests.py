import enum
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyai.term.digest import digest
from polyai.term.names import Names
from polyai.term.node import node


@given(st.lists(st.sampled_from(["x", "y", "x_1", "x_2", "x_1_1"]), max_size=30))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_names_are_never_given_twice(stems):
    names = Names(["y", "x_3"])
    given_out = [names.fresh(s) for s in stems]
    assert len(set(given_out)) == len(given_out) and not {"y", "x_3"} & set(given_out)


def test_names_are_readable():
    names = Names(["x_2"])
    assert [names.fresh("x") for _ in range(4)] == ["x", "x_1", "x_3", "x_4"]


@node
class Thing:
    a: object
    b: object = ()


class Colour(enum.Enum):
    RED = 1


VALUES = [
    None, True, False, 0, 1, -1, 10**30, 0.0, -0.0, 1.0, float("inf"), 1j, "", "a", b"a", (), ("a",), (("a",),), ("a", "b"), ("ab",),
    Thing(1), Thing(1, (2,)), Thing((1, 2)), frozenset({1, 2}), frozenset({1}), Colour.RED,
]  # fmt: skip


def test_different_values_have_different_digests():
    digests = [digest(v) for v in VALUES]
    assert len(set(digests)) == len(VALUES)
    assert digest(1, 2) != digest((1, 2)) and digest("ab", "c") != digest("a", "bc")
    assert digest(frozenset({1, 2})) == digest(frozenset({2, 1}))


def test_unknown_values_are_refused():
    with pytest.raises(TypeError, match="no stable digest for list"):
        digest([1])


def test_digests_do_not_depend_on_the_process():
    code = "from polyai.term.digest import digest; print(digest(frozenset({'a', 'b', 'c'}), ('x', 1.5, None)))"
    found = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed}).stdout
        for seed in ("0", "1", "77")
    }
    assert found == {digest(frozenset({"a", "b", "c"}), ("x", 1.5, None)) + "\n"}
