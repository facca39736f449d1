"""Products that only an intersection reads are not stored: the same elements, at every level down to machine code."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from polyai.machine.cpu import host
from polyai.options import Options
from polyai.pipeline import Build, compile_program
from polyai.poly import nodes as po
from polyai.scalar import dtype as dt
from polyai.sparse.format import csr
from polyai.tensor.nodes import Comprehension, Index, Join, Pattern, Program, Scatter, TensorType, nnz_of
from tests.lower import staged
from tests.lower.test_streams import F, Rows, value
from tests.poly.meaning import arguments
from tests.programs import SparseValue
from tests.words import at, k, m, mul, n, program, sparse, v, within

MASK: Rows = [[0, 2, 69], [], [5], [0, 1, 2, 3, 4], [64], [1]]
LEFT: Rows = [[0, 1], [0], [2], [0, 1, 2], [], [2, 3]]
RIGHT: Rows = [[0, 2, 64], [2, 5, 69], [0, 5], []]


def masked(also_read: bool = False) -> Program:
    """D = M * (A @ B), and the product itself if somebody else reads it."""
    inputs = [sparse("M", csr(), n, m, dtype=F), sparse("A", csr(), n, k, dtype=F), sparse("B", csr(), k, m, dtype=F)]
    own = Pattern("C", (0, 1))
    product = Scatter(
        "C", TensorType(F, (n, m), csr(), own), None, "add", (Index("i", n), Index("j", m), Index("r", k)), (v("i"), v("j")),
        mul(at("A", "i", "r", dtype=F), at("B", "r", "j", dtype=F)), (within("A", "i", "r"), within("B", "r", "j")),
    )  # fmt: skip
    join = Join("J", TensorType(dt.bool_, (n, m), csr(), Pattern("J", (0, 1))), (Index("s", n), Index("t", m)), ((within("M", "s", "t"),), (within("C", "s", "t"),)))
    body = mul(at("M", "x", "y", dtype=F), at("C", "x", "y", dtype=F))
    told = Comprehension("D", TensorType(F, (n, m), None, Pattern("J", (0, 1))), (Index("x", n), Index("y", m)), body, (within("J", "x", "y"),))
    return program("masked", inputs, [product, join, told], *(("D", "C") if also_read else ("D",)))


def operands() -> dict[str, SparseValue]:
    return {"M": value(MASK, 70, 1), "A": value(LEFT, 4, 2), "B": value(RIGHT, 70, 3)}


def expected(given: dict[str, SparseValue]) -> tuple[Any, Any]:
    has = {name: np.zeros(a.shape, bool) for name, a in given.items()}
    for name, a in given.items():
        has[name][a.coords] = True
    kept = has["M"] & (has["A"].astype(int) @ has["B"].astype(int) > 0)
    return kept, kept * given["M"].todense() * (given["A"].todense() @ given["B"].todense())


def check(out: SparseValue, given: dict[str, SparseValue]) -> None:
    kept, whole = expected(given)
    rows, columns = np.nonzero(kept)
    np.testing.assert_array_equal(out.coords[0], rows)
    np.testing.assert_array_equal(out.coords[1], columns)
    np.testing.assert_array_equal(out.values, whole[rows, columns])


def streams(build: Build) -> list[po.Stream]:
    return [s for part in build.parts for scop in part.scops for s in scop.streams]


@pytest.mark.parametrize("level", ["tensor", *staged.LEVELS])
def test_it_holds_what_both_store(level: str) -> None:
    given = operands()
    out = staged.tensors(masked(), given) if level == "tensor" else staged.run(masked(), given, level)
    check(out["D"], given)


def test_the_statements_mean_it_too() -> None:
    given = operands()
    build = compile_program(masked(), {}, Options(), host(), until="contract", verify=True)
    assert any(isinstance(s.source, po.Located) for s in streams(build))
    arrays, sizes = arguments(masked(), dict(given))
    kept, whole = expected(given)
    arrays["J.pos1"], sizes[nnz_of("J")] = np.concatenate([[0], np.cumsum(kept.sum(1))]), int(kept.sum())  # as if the bound were exact
    made = staged.by_statements(build.parts[-1], arrays, sizes)
    np.testing.assert_array_equal(made["J.crd1"], np.nonzero(kept)[1])
    np.testing.assert_array_equal(made["D"], whole[np.nonzero(kept)])


@pytest.mark.parametrize(("how", "also_read", "found"), [("packed", False, True), ("packed", True, False), ("kept", False, False), ("counted", False, False)])
def test_it_is_stored_only_where_somebody_wants_it(how: str, also_read: bool, found: bool) -> None:
    build = compile_program(masked(also_read), {}, Options(), host(), until="statements", verify=True, how=how)
    assert any(isinstance(s.source, po.Located) for s in streams(build)) is found


@pytest.mark.parametrize("level", ["loop", "flat", "machine"])
@pytest.mark.parametrize("crd", [[2, 0, 69], [0, 2, 2], [0, 2, 70], [-1, 2, 69]], ids=["order", "twice", "beyond", "negative"])
def test_a_broken_mask_ends_with_an_error(level: str, crd: list[int]) -> None:
    def damage(number: int, arrays: staged.Arrays) -> None:
        arrays["M.crd1"] = np.array([*crd, *arrays["M.crd1"][3:]], arrays["M.crd1"].dtype)

    with pytest.raises(staged.Refused):
        staged.run(masked(), operands(), level, damage)


@pytest.mark.parametrize("level", ["loop", "flat", "machine"])
def test_an_operand_that_grows_between_the_phases_does_no_harm(level: str) -> None:
    def grow(number: int, arrays: staged.Arrays) -> None:
        if number == 1:  # rows are bounded: now the first one of A names rows of B that have more
            arrays["J.pos1"] = np.minimum(arrays["J.pos1"], 1)

    with pytest.raises(staged.Refused):
        staged.run(masked(), operands(), level, grow)
