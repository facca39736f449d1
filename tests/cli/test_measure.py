from __future__ import annotations

import math

import numpy as np
import pytest

from polyai import measure


def test_every_round_times_every_run() -> None:
    calls = {"a": 0, "b": 0}

    def count(name: str) -> None:
        calls[name] += 1

    times = measure.interleaved({n: (lambda n=n: count(n)) for n in calls}, rounds=3)
    assert {n: len(t) for n, t in times.items()} == {"a": 3, "b": 3}
    assert all(t > 0 for ts in times.values() for t in ts)
    assert min(calls.values()) > 3


def test_the_ratio_is_taken_per_round() -> None:
    assert measure.median_ratio([2.0, 30.0, 4.0], [1.0, 10.0, 4.0]) == 2.0


@pytest.mark.parametrize(
    ("got", "worst"),
    [([1.0, 2.0], 0.0), ([1.0, 2.5], 0.5), ([1.0, math.nan], math.inf), ([1.0, math.inf], math.inf), ([1.0], math.inf)],
)
def test_excess(got: list[float], worst: float) -> None:
    assert measure.excess(np.array(got), np.array([1.0, 2.0]), np.array([1.0, 1.0])) == worst


def test_a_sum_of_ones_stays_in_the_bound() -> None:
    x = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    total = np.float32(0)
    for value in x:
        total += value
    exact, size = x.astype(np.float64).sum(), np.abs(x.astype(np.float64)).sum()
    assert abs(float(total) - exact) <= measure.gamma(1000, np.float32) * size
    assert measure.gamma(1000, np.float32) == pytest.approx(1000 * 2.0**-24, rel=1e-3)


def test_the_roofs_are_numbers_of_this_world() -> None:
    assert 1e7 < measure.peak_f32(np.square, 1, repeats=2, size=1 << 12) < 1e13
    assert 1e8 < measure.memory_bandwidth(np.add, megabytes=12, repeats=2) < 1e13
