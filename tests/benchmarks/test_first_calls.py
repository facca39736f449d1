"""First calls in fresh processes: a wrong result, or a process that fails, gets no figure."""

from __future__ import annotations

import json

import pytest

from benchmarks.harness import SUBJECT, Timing
from benchmarks.suites import load
from benchmarks.suites.first_calls import EXPRESSIONS, MEAN, ONE, PRODUCTS, _mean, first_call


def test_a_figure_is_a_time_in_seconds() -> None:
    assert 0 < json.loads(first_call(*EXPRESSIONS["A * 2"])) < 60


def test_a_wrong_result_is_told() -> None:
    function, arguments, _ = EXPRESSIONS["A * 2"]
    with pytest.raises(RuntimeError, match="the result is wrong"):
        first_call(function, arguments, "A * 3")


def test_the_mean_is_of_expressions_that_all_have_a_figure() -> None:
    assert _mean([Timing(SUBJECT, times=[0.1, 0.1]), Timing(SUBJECT, times=[0.4])]).median == pytest.approx(0.2)
    assert _mean([Timing(SUBJECT, times=[0.1]), Timing(SUBJECT, problem="no")]).problem == "1 expressions failed"


def test_limits_name_the_cases() -> None:
    suite = load("first_calls")
    assert [limit.case for limit in suite.limits][:2] == [MEAN, ONE]
    assert len(EXPRESSIONS) >= 25 and not EXPRESSIONS.keys() & PRODUCTS.keys()
