"""The interpreter of tensor programs gives the oracle's numbers for the same expressions, before anything is lowered."""

from __future__ import annotations

import numpy as np
import pytest

from polyai.errors import UnsupportedError
from polyai.frontend.trace import trace
from tests.frontend.helpers import dense, interpreted
from tests.sparse_suite import cases
from tests.sparse_suite import model as oracle
from tests.sparse_suite.cases import Group
from tests.sparse_suite.data import BY_NAME

FIRST = {g.expression: g for g in reversed(cases.groups()) if all(k.dtype == "f8" for k in g.kinds)}
NAMES = ("some", "one row", "no columns", "the first's rows end first", "stored zeros")


@pytest.mark.parametrize("group", list(FIRST.values()), ids=str)
def test_interpreted(group: Group) -> None:
    if cases.missing(group.expression):
        assert str(group) in cases.refused()
        return
    for name in NAMES:
        given, models = cases.values(group, BY_NAME[name])
        wanted = group.expression.fn(oracle, *models)
        try:
            traced = trace(cases.function(group).__wrapped__, tuple(given), {})
        except UnsupportedError:
            assert str(group) in cases.refused()
            return
        got = interpreted(traced, tuple(given), {})
        np.testing.assert_allclose(dense(got), wanted.values, rtol=1e-12, atol=1e-12, err_msg=name)
