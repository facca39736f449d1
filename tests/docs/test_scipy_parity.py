"""docs/reference/scipy-parity.md is true, row by row. `pytest --update-golden tests/docs/test_scipy_parity.py` writes its tables."""

from __future__ import annotations

import warnings
from functools import cache

import numpy as np
import pytest
import scipy.sparse as sp

import polyai as pa
from polyai.errors import PolyAIError, UnsupportedError
from tests.docs import parity
from tests.docs.parity import FORMATS, ROWS, Row

IN_ROWS_ONLY = ("linalg.matrix_power(S, 2)",)
"""Works in CSR, refused in the other formats."""


@cache
def found(row: Row) -> tuple[str, str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SciPy warns of slow ways
        return parity.outcome(row), parity.eagerly(row)


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r.code)
def test_a_row_works_or_is_refused(row: Row) -> None:
    for word in found(row):
        assert not word.startswith("!"), word


@pytest.mark.parametrize("row", [r for r in ROWS if r.group not in ("Conversion", "Attributes", "In place")], ids=lambda r: r.code)
def test_a_row_is_the_same_in_other_formats(row: Row) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for format in FORMATS[1:]:
            word, here = parity.outcome(row, format), found(row)[0]
            scipy_has_less = {word, here} <= {"works", "more", "dense", "refused", "both refuse"} and parity.works(word) == parity.works(here)
            assert word == here or scipy_has_less or (row.code in IN_ROWS_ONLY and word == "refused"), f"{format}: {word}"


def test_the_page_is_current(request: pytest.FixtureRequest) -> None:
    text = parity.page((row, found(row)) for row in ROWS)
    if request.config.getoption("--update-golden"):
        parity.PAGE.write_text(text)
    assert parity.PAGE.read_text() == text, "pytest --update-golden tests/docs/test_scipy_parity.py"


def test_there_is_a_row_for_what_users_do() -> None:
    assert len(ROWS) >= 180 and len({r.code for r in ROWS}) == len(ROWS) and len({r.group for r in ROWS}) >= 10
    assert {r.code for r in ROWS} >= set(parity.EAGER)


def test_results_are_arrays_of_scipy() -> None:
    a = parity.operands("csr")["A"]
    got = pa.jit(lambda a: a * 2)(a)
    assert isinstance(got, sp.csr_array)
    np.testing.assert_array_equal((got.tocsc()[1:3] + a.tocsc()[1:3]).toarray(), 3 * a.toarray()[1:3])


@pytest.mark.parametrize("name", ["has_sorted_indices", "blocksize", "check_format", "todia"])
def test_attributes_that_are_absent_say_why(name: str) -> None:
    a = parity.operands("csr")["A"]

    def asks(a: object) -> object:
        assert not hasattr(a, name) and getattr(a, name, None) is None
        return getattr(a, name)

    with pytest.raises(UnsupportedError, match=f"{name} of a while tracing") as caught:
        pa.jit(asks)(a)
    assert isinstance(caught.value, AttributeError) and caught.value.remedy


def test_other_attributes_are_missing_as_in_python() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'no_such_thing'") as caught:
        pa.jit(lambda a: a.no_such_thing)(parity.operands("csr")["A"])
    assert not isinstance(caught.value, PolyAIError)
