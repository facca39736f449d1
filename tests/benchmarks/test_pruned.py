"""From which sparsity on sparse beats dense, as the suite of pruned weights says it."""

from __future__ import annotations

from benchmarks.harness import Result, Timing
from benchmarks.suites.pruned import crossover


def result(sparsity: float, n: int, mkl: float, torch: float) -> Result:
    """PolyAI takes one second."""
    times = {"polyai": 1.0, "mkl dense": mkl, "torch dense": torch}
    return Result("pruned", f"{sparsity} {n}", 1, {p: Timing(p, [t, t]) for p, t in times.items()}, facts={"N": n, "sparsity": sparsity})


def test_the_fastest_dense_product_of_each_case_counts() -> None:
    found = crossover([result(0.62, 32, 3.0, 0.5), result(0.71, 32, 0.9, 4.0), result(0.75, 32, 2.0, 3.0), result(0.9, 32, 8.0, 9.0)])
    assert len(found) == 1
    assert "32 columns and 1 thread(s) on every weight sparser than 71%" in found[0]
    assert "60 to 70 %: 0.50x, 70 to 80 %: 1.34x, 90 to 100 %: 8.00x" in found[0]


def test_always_and_never() -> None:
    assert "every weight measured, from 60% on" in crossover([result(0.6, 8, 2.0, 2.0), result(0.9, 8, 2.0, 2.0)])[0]
    assert "not every weight at any sparsity measured" in crossover([result(0.6, 8, 2.0, 2.0), result(0.9, 8, 0.5, 2.0)])[0]
    assert crossover([]) == []
