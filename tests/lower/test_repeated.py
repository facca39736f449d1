"""Rows of products that repeat the row before, moved by one column or not at all: sorted rows and sums at every level of loops."""

from __future__ import annotations

import numpy as np
import pytest

from polyai.loop.show import show
from polyai.machine.cpu import host
from polyai.options import Options
from polyai.pipeline import compile_program
from tests.lower import staged
from tests.lower.test_streams import Rows, product, value

LEVELS = ["loop", "flat", "machine", "threads"]


def band(count: int, offsets: tuple[int, ...]) -> Rows:
    return [[i + d for d in offsets if 0 <= i + d < count] for i in range(count)]


def wandering(count: int, seed: int) -> Rows:
    """Rows that are the one before, moved on or not, or something else."""
    rng = np.random.default_rng(seed)
    out: list[list[int]] = [[0, 2]]
    for _ in range(count - 1):
        kind, last = rng.integers(0, 4), out[-1]
        if kind == 0:
            out.append(sorted(rng.choice(count, rng.integers(0, 5), replace=False).tolist()))
        else:
            out.append([(c + min(int(kind) - 1, 1)) % count for c in last] if kind < 3 and last and last[-1] + 1 < count else list(last))
    return [sorted(set(row)) for row in out]


CASES: dict[str, tuple[Rows, Rows]] = {
    "band": (band(40, (-7, -1, 0, 1, 7)), band(40, (-7, -1, 0, 1, 7))),
    "band of pairs": ([row for row in band(20, (-1, 0, 1)) for _ in range(2)], band(20, (0, 3))),
    "same rows": ([[0, 3]] * 12, band(5, (-1, 0))),
    "other rows on the right": (band(12, (0, 1)), [[0, 5], [1, 6], [2, 7], [9], [0], [1], [2], [], [], [0], [1], [2]]),
    "a band that goes over the edge": ([[i] for i in range(9)], [[i + 1] for i in range(9)]),
    "empty rows": ([[], [], [0], [1], [], []], [[2], [3]]),
    "wandering": (wandering(40, 1), wandering(40, 2)),
    "wandering too": (wandering(60, 3), wandering(60, 4)),
}


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", CASES)
def test_products(name: str, level: str) -> None:
    left, right = CASES[name]
    width = 70
    a, c = value(left, len(right), 1), value(right, width, 2)
    out = staged.run(product(), {"A": a, "B": c}, level)["C"]
    has = [np.zeros(x.shape, int) for x in (a, c)]
    for mask, x in zip(has, (a, c)):
        mask[x.coords] = 1
    rows, columns = np.nonzero(has[0] @ has[1])
    np.testing.assert_array_equal(out.coords[0], rows)
    np.testing.assert_array_equal(out.coords[1], columns)
    np.testing.assert_array_equal(out.values, (a.todense() @ c.todense())[rows, columns])


def test_little_work_is_not_worth_the_code() -> None:
    def text(**sizes: int) -> str:
        return show(compile_program(product(), sizes, Options(), host(), until="loops").parts[-1].loops)

    assert "B_moved" in text()
    assert "B_moved" in text(**{"A.nnz": 100_000, "B.nnz": 100_000, "p": 1000})
    assert "B_moved" not in text(**{"A.nnz": 1000, "B.nnz": 1000, "p": 1000})


@pytest.mark.parametrize("level", ["loop", "flat", "machine"])
def test_broken_index_arrays_end_with_an_error(level: str) -> None:
    left, right = CASES["band"]
    a, c = value(left, len(right), 1), value(right, 70, 2)

    def beyond(number: int, arrays: staged.Arrays) -> None:
        if number == 1:
            arrays["A.crd1"] = arrays["A.crd1"] + 20  # as rows go on, so do their coordinates: out of B

    def before(number: int, arrays: staged.Arrays) -> None:
        if number == 1:
            arrays["B.crd1"] = arrays["B.crd1"] + 60

    for damage in (beyond, before):
        with pytest.raises(staged.Refused):
            staged.run(product(), {"A": a, "B": c}, level, damage)
