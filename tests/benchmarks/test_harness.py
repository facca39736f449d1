"""The measuring itself: wrong results get no figure, ratios are per round, targets are judged over cases."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from benchmarks.harness import (
    SUBJECT,
    Case,
    Result,
    Run,
    Settings,
    Target,
    Timing,
    Unavailable,
    geomean,
    judge,
    measure,
    relative_excess,
)

FAST = Settings(rounds=4, block_s=0, settle_s=0)


class Fake:
    """A peer whose kernel returns x + offset and logs its calls."""

    def __init__(self, name: str, offset: float = 0.0, log: list[str] | None = None) -> None:
        self.name, self.offset, self.log = name, offset, [] if log is None else log
        self.kernels = {"same": self.same}

    def version(self) -> str:
        return "0"

    @contextmanager
    def threads(self, count: int) -> Iterator[None]:
        if count > 2:
            raise Unavailable("two threads at most")
        yield

    def same(self, x: np.ndarray) -> Run:
        def run() -> np.ndarray:
            self.log.append(self.name)
            return x + self.offset

        return run


def case(kernel: str = "same") -> Case:
    x = np.arange(5.0)
    return Case("c", kernel, {"x": x}, lambda: (x, np.full(5, 1e-12)), 10, 40)


def test_a_wrong_result_is_not_timed() -> None:
    result = measure("s", case(), [Fake(SUBJECT), Fake("liar", 1e-3)], 1, FAST)
    assert len(result.timings[SUBJECT].times) == 4
    assert result.timings["liar"].times == []
    assert "wrong result" in result.timings["liar"].problem
    assert math.isnan(result.ratio("liar"))


def test_a_missing_kernel_or_thread_count_is_said() -> None:
    assert "has no other" in measure("s", case("other"), [Fake("a")], 1, FAST).timings["a"].problem
    assert measure("s", case(), [Fake("a")], 3, FAST).timings["a"].problem == "two threads at most"


def test_rounds_rotate_the_order() -> None:
    log: list[str] = []
    measure("s", case(), [Fake("a", log=log), Fake("b", log=log)], 1, FAST)
    timed = log[-16:]  # 4 rounds of 2 contenders, each once untimed and once timed
    assert timed == ["a", "a", "b", "b", "b", "b", "a", "a"] * 2


@pytest.mark.parametrize("got", [np.ones(3), np.full(5, np.nan), np.full(5, np.inf)])
def test_shape_and_finiteness_count_as_wrong(got: np.ndarray) -> None:
    assert relative_excess(got, np.arange(5.0), 1.0) == math.inf


def test_a_bound_of_zero_wants_equality() -> None:
    assert relative_excess(np.zeros(2), np.zeros(2), 0.0) == 0
    assert relative_excess(np.array([0.0, 1e-300]), np.zeros(2), 0.0) == math.inf


def result(name: str, ours: list[float], theirs: list[float]) -> Result:
    return Result("s", name, 1, {SUBJECT: Timing(SUBJECT, ours), "mkl": Timing("mkl", theirs)})


def test_the_ratio_is_the_median_over_rounds() -> None:
    assert result("a", [1, 2, 4], [2, 2, 20]).ratio("mkl") == 2


def test_targets_need_the_mean_and_the_floor() -> None:
    results = [result("a", [1.0], [4.0]), result("b", [1.0], [0.5])]
    verdicts = [judge(Target("mkl", r, f), results)[0] for r, f in ((1.4, 0.0), (1.4, 0.8), (1.5, 0.0))]
    assert [v.met for v in verdicts] == [True, False, False]
    assert verdicts[0].mean == pytest.approx(math.sqrt(2))
    assert (verdicts[0].worst, verdicts[0].where, verdicts[0].cases) == (0.5, "b", 2)


def test_a_target_speaks_of_the_cases_it_names() -> None:
    results = [result("steady/a", [1.0], [4.0]), result("first/a", [1.0], [0.5])]
    target = Target("mkl", 2.0, only=("steady",))
    (verdict,) = judge(target, results)
    assert verdict.met and verdict.cases == 1 and target.named == "mkl (steady)"
    assert not judge(Target("mkl", 2.0), results)[0].met
    assert not judge(Target("mkl", 2.0, only=("other",)), results)[0].met


def test_a_target_may_speak_of_another_way_of_ours() -> None:
    measured = result("a", [1.0], [4.0])
    measured.timings["polyai learned"] = Timing("polyai learned", [8.0])
    target = Target("mkl", 1.0, subject="polyai learned")
    assert judge(target, [measured])[0].mean == pytest.approx(0.5) and judge(Target("mkl", 1.0), [measured])[0].mean == pytest.approx(4)
    assert target.named == "polyai learned against mkl"


def test_a_target_without_figures_is_not_met() -> None:
    assert not judge(Target("torch", 0.1), [result("a", [1.0], [1.0])])[0].met


def test_geomean_leaves_out_what_is_not_known() -> None:
    assert geomean([1.0, 4.0, math.nan]) == pytest.approx(2)
    assert math.isnan(geomean([]))


