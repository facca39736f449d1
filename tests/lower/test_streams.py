"""Merges of fibres and rows of workspaces: the same coordinates, in order, at every level down to machine code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from polyai.scalar import dtype as dt
from polyai.scalar.expr import Cast
from polyai.sparse.format import csr
from polyai.tensor.nodes import Comprehension, Index, Input, Join, Pattern, Program, Scatter, TensorType
from tests.lower import staged
from tests.programs import SparseValue
from tests.words import add, at, define, k, lit, m, mul, n, program, reduce, sparse, v, within

Rows = Sequence[Sequence[int]]
Clauses = tuple[tuple[int, ...], ...]
OWN = Pattern("J", (0, 1))
F = dt.f64


def value(rows: Rows, width: int, seed: int) -> SparseValue:
    """A matrix that stores the given columns of each row; small integers, zeros among them, so that sums are exact."""
    columns = [c for row in rows for c in sorted(row)]
    values = np.random.default_rng(seed).integers(-3, 4, len(columns)).astype(np.float64)
    return SparseValue((np.repeat(np.arange(len(rows)), [len(r) for r in rows]), np.array(columns, np.int64)), values, (len(rows), width))


def merged(parts: int, clauses: Clauses, stored: bool) -> Program:
    """C = sum of 10**p * A_p along the merge, or its row sums and how many elements each row has, told by the columns' numbers."""
    names = [f"A{p}" for p in range(parts)]
    inputs: list[Input] = [sparse(name, csr(), n, m, dtype=F) for name in names]
    told = tuple(tuple(within(names[p], "s", "t") for p in clause) for clause in clauses)
    join = Join("J", TensorType(dt.bool_, (n, m), csr(), OWN), (Index("s", n), Index("t", m)), told)

    def total(i: str, j: str) -> Any:
        return add(*(mul(lit(10.0**p, F), at(name, i, j, dtype=F)) for p, name in enumerate(names)))

    if stored:
        c = Comprehension("C", TensorType(F, (n, m), None, OWN), (Index("i", n), Index("j", m)), total("i", "j"), (within("J", "i", "j"),))
        return program("merged", inputs, [join, c], "C")
    sums = define("y", {"a": n}, reduce("add", {"b": m}, total("a", "b"), within("J", "a", "b")))
    counts = define("z", {"d": n}, reduce("add", {"e": m}, add(lit(1e6, F), Cast(v("e"), F)), within("J", "d", "e")))
    return program("merged", inputs, [join, sums, counts], "y", "z")


def expected(given: Sequence[SparseValue], clauses: Clauses) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Which elements the merge has, and its values."""
    has = [np.zeros(a.shape, bool) for a in given]
    for mask, a in zip(has, given):
        mask[a.coords] = True
    kept = np.ones(given[0].shape, bool)
    for clause in clauses:
        kept &= np.any([has[p] for p in clause], axis=0)
    return kept, kept * sum(10.0**p * a.todense() for p, a in enumerate(given))


def check_merge(all_rows: Sequence[Rows], width: int, clauses: Clauses, level: str) -> None:
    given = [value(rows, width, seed) for seed, rows in enumerate(all_rows)]
    names = {f"A{p}": a for p, a in enumerate(given)}
    kept, whole = expected(given, clauses)
    for stored in (True, False):
        written = merged(len(given), clauses, stored)
        out = staged.tensors(written, names) if level == "tensor" else staged.run(written, names, level)
        if stored:
            rows, columns = np.nonzero(kept)
            np.testing.assert_array_equal(out["C"].coords[0], rows)
            np.testing.assert_array_equal(out["C"].coords[1], columns)
            np.testing.assert_array_equal(out["C"].values, whole[rows, columns])
        else:
            np.testing.assert_array_equal(out["y"], whole.sum(1))
            np.testing.assert_array_equal(out["z"], (kept * (1e6 + np.arange(width))).sum(1))


LEVELS = ["tensor", *staged.LEVELS]
MERGES: dict[str, Clauses] = {
    "A | B": ((0, 1),),
    "A & B": ((0,), (1,)),
    "A, B beside it": ((0,), (0, 1)),
    "A | B | C": ((0, 1, 2),),
    "A & B & C": ((0,), (1,), (2,)),
    "(A | B) & C": ((0, 1), (2,)),
    "A | (B & C)": ((0, 1), (0, 2)),
    "two of three": ((0, 1), (0, 2), (1, 2)),
    "five, any": ((0, 1, 2, 3, 4),),
    "five, all": ((0,), (1,), (2,), (3,), (4,)),
    "five, mixed": ((0, 1), (2, 3), (4,)),
    "five, nested": ((0, 1, 2), (0, 3, 4)),
}
SHAPES: dict[str, tuple[list[Rows], int]] = {
    "each row ends first once": ([[[0, 9], [5], [], [1, 2, 3]], [[9], [0, 5, 7], [4], []], [[0, 1, 9], [5, 7], [], [3]], [[9], [], [4], [0, 3]], [[2, 9], [5, 8], [4], [3]]], 10),
    "empty rows": ([[[], [1], []], [[], [], [2]], [[], [1], [2]], [[], [1], [2]], [[], [1], [2]]], 3),
    "nothing stored": ([[[], []]] * 5, 4),
    "the same everywhere": ([[[0, 3, 4], [1]]] * 5, 5),
    "apart": ([[[0, 1]], [[2, 3]], [[4, 5]], [[6]], [[7]]], 8),
    "no rows": ([[]] * 5, 3),
    "no columns": ([[[], []]] * 5, 0),
    "one element": ([[[0]], [[]], [[0]], [[]], [[0]]], 1),
}


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", MERGES)
def test_merges(name: str, level: str) -> None:
    clauses = MERGES[name]
    parts = 1 + max(p for clause in clauses for p in clause)
    for rows, width in SHAPES.values():
        check_merge(rows[:parts], width, clauses, level)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("parts", [2, 3, 5])
def test_random_merges(parts: int, level: str) -> None:
    """Random clauses over all parts; a part in no clause is added beside the first one, as readers are."""
    rng = np.random.default_rng(parts)
    for _ in range(3):
        picked = [tuple(sorted({int(p) for p in rng.integers(0, parts, 2)})) for _ in range(int(rng.integers(1, 4)))]
        rest = [p for p in range(parts) if not any(p in clause for clause in picked)]
        clauses = (*dict.fromkeys(picked), *(tuple(sorted({*picked[0], p})) for p in rest))
        rows = [[list(np.flatnonzero(rng.random(12) < 0.35)) for _ in range(5)] for _ in range(parts)]
        check_merge(rows, 12, clauses, level)


BROKEN = [[5, 2, 7], [2, 2, 7], [2, 7, 8], [2, 7, 2**30], [-1, 2, 7], [-(2**31), 2, 7], [2**31 - 1, 3, 4]]


@pytest.mark.parametrize("level", ["loop", "flat", "machine"])
@pytest.mark.parametrize("clauses", [((0, 1),), ((0,), (1,)), ((0, 1, 2, 3, 4),), ((0, 1), (2,))], ids=["union", "intersection", "five", "mixed"])
def test_coordinates_out_of_order_or_range_end_with_an_error(clauses: Clauses, level: str) -> None:
    """Before anything is read there: the interpreter of loops raises VerifyError for an access out of range."""
    parts = 1 + max(p for clause in clauses for p in clause)
    given = {f"A{p}": value([[2, 5, 7], [1]], 8, p) for p in range(parts)}
    for written in (merged(parts, clauses, True), gathered(parts, clauses)):
        values = {**given, "x": np.ones(8)} if len(written.inputs) > parts else given
        for wrong in BROKEN:

            def damage(number: int, arrays: dict[str, Any], wrong: list[int] = wrong) -> None:
                arrays["A1.crd1"][:3] = wrong

            with pytest.raises(staged.Refused):
                staged.run(written, values, level, damage)


def gathered(parts: int, clauses: Clauses) -> Program:
    """y[i] = sum of A_p[i, j] * x[j] along the merge: the coordinates are used as indices at once."""
    inner = merged(parts, clauses, True)
    total = add(*(at(f"A{p}", "a", "b", dtype=F) for p in range(parts)))
    y = define("y", {"a": n}, reduce("add", {"b": m}, mul(total, at("x", "b", dtype=F)), within("J", "a", "b")))
    return program("gathered", [*inner.inputs, Input("x", TensorType(F, (m,)))], [inner.body[0], y], "y")


@pytest.mark.parametrize("level", ["loop", "flat", "machine"])
@pytest.mark.parametrize("clauses", [((0, 1),), ((0,), (1,)), ((0, 1, 2, 3, 4),)], ids=["union", "intersection", "five"])
@pytest.mark.parametrize("how", ["counted", "packed"])
def test_an_operand_that_changes_between_the_phases_does_no_harm(clauses: Clauses, level: str, how: str) -> None:
    """More elements than were counted, or than the bound of a row, have no room: an error, and nothing is written beyond the room."""
    parts = 1 + max(p for clause in clauses for p in clause)
    given = {f"A{p}": value([[2, 5, 7], [1]], 8, p) for p in range(parts)}
    different = [0, 3, 4] if len(clauses) == 1 else [2, 5, 7]
    given["A1"] = value([[2, 5, 7] if len(clauses) == 1 else [0, 3, 4], [1]], 8, 1)

    def change(number: int, arrays: dict[str, Any]) -> None:
        if number == 1 and how == "counted":
            arrays["A1.crd1"][:3] = different
        elif number == 1:  # other columns have room, longer rows have not
            for p in range(parts):
                arrays[f"A{p}.pos1"][1] = 4

    with pytest.raises(staged.Refused):
        staged.run(merged(parts, clauses, True), given, level, change, how)


# --- workspaces ----------------------------------------------------------------------------------------------------------

WIDTHS = [0, 1, 63, 64, 65, 4096, 4097, 262145]


def product() -> Program:
    """C[i, j] = sum over k of A[i, k] * B[k, j], stored where some k has both."""
    type = TensorType(F, (n, m), csr(), Pattern("C", (0, 1)))
    body = mul(at("A", "i", "q", dtype=F), at("B", "q", "j", dtype=F))
    indices = (Index("i", n), Index("j", m), Index("q", k))
    step = Scatter("C", type, None, "add", indices, (v("i"), v("j")), body, (within("A", "i", "q"), within("B", "q", "j")))
    return program("product", [sparse("A", csr(), n, k, dtype=F), sparse("B", csr(), k, m, dtype=F)], [step], "C")


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("width", WIDTHS)
def test_rows_of_a_workspace_come_out_sorted(width: int, level: str) -> None:
    """Columns on both sides of each word of the bitmaps; rows that are empty, of one element, met twice, cancelled to zero."""
    near = sorted({c for edge in (0, 64, 4096, 262144, width) for c in (edge - 1, edge, edge + 1) if 0 <= c < width})
    rng = np.random.default_rng(width)
    anywhere = sorted({int(c) for c in rng.integers(0, width, 40)}) if width else []
    rows_b: list[list[int]] = [near, anywhere, [], near[-1:], near[:1]]
    rows_a = [[0, 1, 4], [], [2], [0, 3], [4], [0, 1, 2, 3, 4]]
    a, b = value(rows_a, 5, 1), value(rows_b, width, 2)
    b.values[: len(near)] = np.where(b.values[: len(near)] == 0, 1, b.values[: len(near)])
    out = (staged.tensors(product(), {"A": a, "B": b}) if level == "tensor" else staged.run(product(), {"A": a, "B": b}, level))["C"]
    wanted = [sorted({c for q in row for c in rows_b[q]}) for row in rows_a]
    np.testing.assert_array_equal(out.coords[0], np.repeat(np.arange(6), [len(w) for w in wanted]))
    np.testing.assert_array_equal(out.coords[1], [c for w in wanted for c in w])
    whole = a.todense() @ b.todense()
    np.testing.assert_array_equal(out.values, [whole[i, c] for i, w in enumerate(wanted) for c in w])


@pytest.mark.parametrize("level", [level for level in staged.LEVELS if level != "counted"])
@pytest.mark.parametrize("rows_a", [[[0, 1], [], [1, 2], [0, 1, 2], [0]], [[0, 2]], [[], []]], ids=["rows", "one row", "nothing"])
def test_new_values_along_a_known_pattern(rows_a: Rows, level: str) -> None:
    """Each row finds zeros where the rows before it stored something."""
    rows_b = [[0, 3, 64], [3, 4], []]
    pattern = staged.run(product(), {"A": value(rows_a, 3, 1), "B": value(rows_b, 70, 2)}, "counted")["C"]
    for seed in (3, 4):
        a, b = value(rows_a, 3, seed), value(rows_b, 70, seed + 10)
        out = staged.run(product(), {"A": a, "B": b}, level, how="again", kept={"C": pattern})["C"]
        np.testing.assert_array_equal(out.coords, pattern.coords)
        np.testing.assert_array_equal(out.values, (a.todense() @ b.todense())[tuple(pattern.coords)])


@pytest.mark.parametrize("level", LEVELS)
def test_what_cancels_stays_stored(level: str) -> None:
    a = SparseValue((np.array([0, 0]), np.array([0, 1])), np.array([1.0, 1.0]), (1, 2))
    b = SparseValue((np.array([0, 1]), np.array([3, 3])), np.array([2.0, -2.0]), (2, 5))
    out = (staged.tensors(product(), {"A": a, "B": b}) if level == "tensor" else staged.run(product(), {"A": a, "B": b}, level))["C"]
    assert (out.coords[1].tolist(), out.values.tolist()) == ([3], [0.0])
