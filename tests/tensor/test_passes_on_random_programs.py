"""Every pass keeps the meaning of random programs, and what it gives out is well formed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings

from polyai.tensor.interp import SparseValue, run
from polyai.tensor.nodes import Program
from polyai.tensor.passes import canonical, fold, fuse, infer, reassociate, restrict
from polyai.tensor.show import show
from polyai.tensor.verify import verify, verify_canonical
from tests.programs import Case
from tests.strategies import programs, sparse_matrices
from tests.tensor.test_interp import numbers

HINTS = {"n": 100, "m": 50, "c": 3, "A.nnz": 400}

CHAINS: dict[str, tuple[Callable[[Program], Program], Callable[[Program], None]]] = {
    "restrict": (restrict.run, verify),
    "fold": (fold.run, verify),
    "views": (fuse.views, verify),
    "fuse": (fuse.run, verify),
    "canonical": (canonical.run, verify_canonical),
    "canonical, fuse": (lambda p: fuse.run(canonical.run(p)), verify_canonical),
    "fold, canonical, restrict, reassociate, fuse": (
        lambda p: fuse.run(reassociate.run(restrict.run(canonical.run(fold.run(p))), HINTS)),
        verify_canonical,
    ),
}


@pytest.mark.parametrize("name", CHAINS)
@given(case=programs())
@settings(max_examples=120, deadline=None, derandomize=True)
def test_a_pass_keeps_the_meaning(name: str, case: Case) -> None:
    verify(case.program)
    change, check = CHAINS[name]
    out = change(case.program)
    check(out)
    infer.check(out)
    got = run(out, case.arguments)
    for key, expected in case.expected.items():
        np.testing.assert_array_equal(numbers(got[key]), expected, err_msg=f"{show(case.program)}\n{show(out)}")


@given(case=programs(steps=4))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_canonical_form_is_a_fixed_point(case: Case) -> None:
    once = canonical.run(case.program)
    assert canonical.run(once) == once
    assert show(once) == show(canonical.run(case.program))


@given(sparse_matrices())
@settings(max_examples=120, deadline=None, derandomize=True)
def test_random_matrices_are_unique_sorted_and_inside(pair: tuple[object, SparseValue]) -> None:
    _, a = pair
    assert a.todense().shape == a.shape
    assert len({*zip(*(c.tolist() for c in a.coords))}) == a.nnz
