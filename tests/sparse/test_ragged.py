"""Ragged batches and block-diagonal matrices as data: construction, conversion, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from polyai.errors import DTypeError, PolyAIError, ShapeError, SparseStructureError
from polyai.sparse.diagonal import block_diagonal
from polyai.sparse.interp import walk
from polyai.sparse.ragged import BLOCK, Offsets, ragged, ragged_from_padded

RNG = np.random.default_rng(3)


def test_from_a_list() -> None:
    x = ragged([np.arange(6.0).reshape(3, 2), np.zeros((0, 2)), np.ones((1, 2))])
    assert x.shape == (3, None, 2) and x.ndim == 3 and len(x) == 3 and x.dtype == np.float64
    assert x.offsets.tolist() == [0, 3, 3, 4] and x.lengths.tolist() == [3, 0, 1]
    assert x[-1].tolist() == [[1, 1]] and [len(r) for r in x] == [3, 0, 1]
    assert "0..3" in repr(x)


def test_from_lists_of_numbers() -> None:
    x = ragged([[1, 2], [], [3]])
    assert x.dtype == np.int64 and x.values.tolist() == [1, 2, 3]
    assert ragged([]).shape == (0, None) and ragged([[]]).lengths.tolist() == [0]


def test_values_are_borrowed_and_offsets_are_not() -> None:
    values, offsets = np.arange(4.0), np.array([0, 1, 4])
    x = ragged(values, offsets)
    offsets[1] = 3
    assert x.values is values and x.lengths.tolist() == [1, 3]
    with pytest.raises(ValueError):
        x.offsets[1] = 2


@given(st.lists(st.integers(0, 9), max_size=6), st.sampled_from([(), (2,), (2, 3)]))
def test_padding_and_back(lengths: list[int], item: tuple[int, ...]) -> None:
    x = ragged(RNG.standard_normal((sum(lengths), *item)), lengths=np.array(lengths, np.int64))
    padded = x.to_padded(-1)
    assert padded.shape == (len(lengths), max(lengths, default=0), *item)
    for row, n, wanted in zip(padded, lengths, x.to_list()):
        np.testing.assert_array_equal(row[:n], wanted)
        assert (row[n:] == -1).all()
    again = ragged_from_padded(padded, lengths)
    np.testing.assert_array_equal(again.values, x.values)
    np.testing.assert_array_equal(again.offsets, x.offsets)


@given(st.lists(st.integers(0, 40), max_size=6))
def test_every_element_has_one_place_in_the_blocks(lengths: list[int]) -> None:
    rows = Offsets(np.cumsum([0, *lengths]), sum(lengths))
    blocks, places = rows.table(("blocks",), [rows]), rows.table(("places",), [rows])
    np.testing.assert_array_equal(blocks.reshape(-1)[places], np.arange(sum(lengths)))
    assert len(blocks) == sum(-(-n // BLOCK) for n in lengths)
    row = rows.table(("row",), [rows])
    assert all(len(set(row[b])) == 1 for b in blocks)


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=4), st.integers(0, 2))
def test_blocks_see_the_row_of_the_same_number(pairs: list[tuple[int, int]], heads: int) -> None:
    mine, other = (Offsets(np.cumsum([0, *n]), sum(n)) for n in ([a for a, _ in pairs], [b for _, b in pairs]))
    seen = mine.table(("seen", 1, heads, False), [mine, other])
    named = {k: v for k, v in seen.arrays.items() if k != "val"}
    coordinates = walk(seen.format, seen.shape, named).coordinates
    blocks, row = mine.table(("blocks",), [mine]), mine.table(("row",), [mine])
    wanted = [
        (g, *h, j, r)
        for g in range(len(blocks))
        for h in ([(n,) for n in range(heads)] or [()])
        for j in range(other.ends[row[blocks[g, 0]]], other.ends[row[blocks[g, 0]] + 1])
        for r in range(BLOCK)
    ]
    assert list(zip(*(c.tolist() for c in coordinates))) == wanted


def test_tables_follow_the_other_rows() -> None:
    mine = Offsets([0, 2], 2)
    first, second = Offsets([0, 3], 3), Offsets([0, 5], 5)
    assert mine.table(("seen", 1, 0, False), [mine, first]).nnz == 3
    assert mine.table(("seen", 1, 0, False), [mine, second]).nnz == 5


BAD: list[tuple[str, Callable[[], Any], type[PolyAIError], str]] = [
    ("decreasing", lambda: ragged(np.zeros(4), [0, 3, 2, 4]), SparseStructureError, "from 3 to 2 at row 1"),
    ("first", lambda: ragged(np.zeros(4), [1, 4]), SparseStructureError, "offsets[0] is 1"),
    ("too short", lambda: ragged(np.zeros(4), [0, 3]), SparseStructureError, "there are 4 elements"),
    ("too long", lambda: ragged(np.zeros(4), [0, 5]), SparseStructureError, "there are 4 elements"),
    ("no offsets", lambda: ragged(np.zeros(0), []), ShapeError, "n + 1 numbers"),
    ("floats", lambda: ragged(np.zeros(4), [0.0, 4.0]), DTypeError, "float64"),
    ("two dimensions", lambda: ragged(np.zeros(4), [[0, 4]]), ShapeError, "(1, 2)"),
    ("both", lambda: ragged(np.zeros(4), [0, 4], lengths=[4]), ShapeError, "one of them"),
    ("neither", lambda: ragged(np.zeros(4)), ShapeError, "offsets="),
    ("a scalar", lambda: ragged(np.float64(4), [0, 1]), ShapeError, "scalar"),
    ("a negative length", lambda: ragged(np.zeros(4), lengths=[5, -1]), SparseStructureError, "row 1 is -1"),
    ("floating lengths", lambda: ragged(np.zeros(4), lengths=[2.0, 2.0]), DTypeError, "float64"),
    ("types of rows", lambda: ragged([np.zeros(2), np.zeros(2, np.float32)]), DTypeError, "row 1 float32"),
    ("shapes of rows", lambda: ragged([np.zeros((2, 3)), np.zeros((2, 4))]), ShapeError, "row 1 (2, 4)"),
    ("a row without length", lambda: ragged([np.zeros(2), np.array(3.0)]), ShapeError, "row 1 is a scalar"),
    ("other values", lambda: ragged([[1, 2]]).with_values([1]), ShapeError, "2 elements"),
    ("padded, too long", lambda: ragged_from_padded(np.zeros((2, 3)), [1, 4]), ShapeError, "row 1 is 4"),
    ("padded, rows", lambda: ragged_from_padded(np.zeros((2, 3)), [1]), ShapeError, "1 lengths"),
    ("no matrix", lambda: block_diagonal([np.zeros((2, 2))]), ShapeError, "matrices[0] is a ndarray"),
    ("types of matrices", lambda: block_diagonal([sp.eye_array(2), sp.eye_array(2, dtype=np.float32)]), DTypeError, "dtype="),
    ("one dimension", lambda: block_diagonal([sp.csr_array(np.ones(3))]), ShapeError, "1 dimensions"),
]


@pytest.mark.parametrize("name, call, error, text", BAD, ids=[b[0] for b in BAD])
def test_refused(name: str, call: Callable[[], Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error) as caught:
        call()
    assert text in str(caught.value)


def test_an_index_out_of_range() -> None:
    with pytest.raises(IndexError):
        ragged([[1]])[1]


# -- block_diagonal


@pytest.mark.parametrize("form", ["csr", "csc", "coo", "lil"])
def test_blocks_along_the_diagonal(form: str) -> None:
    parts = [sp.random_array((n, m), density=0.5, format=form, rng=RNG) for n, m in ((3, 4), (0, 2), (5, 1), (2, 0), (1, 1))]
    A, rows, columns = block_diagonal(parts)
    assert A.format == "csr" and A.indices.dtype == np.int32
    np.testing.assert_array_equal(A.toarray(), sp.block_diag(parts).toarray())
    assert rows.tolist() == [0, 3, 3, 8, 10, 11] and columns.tolist() == [0, 4, 6, 7, 7, 8]


def test_no_blocks() -> None:
    A, rows, columns = block_diagonal([], np.float32)
    assert A.shape == (0, 0) and A.dtype == np.float32 and rows.tolist() == columns.tolist() == [0]


def test_the_blocks_keep_their_arrays() -> None:
    a = sp.csr_array(np.eye(2))
    A, _, _ = block_diagonal([a])
    A.data[:] = 5
    A.indices[:] = 0
    np.testing.assert_array_equal(a.toarray(), np.eye(2))


def test_other_element_types_are_converted_if_asked() -> None:
    A, _, _ = block_diagonal([sp.eye_array(2, dtype=np.int8), sp.eye_array(1)], np.float32)
    assert A.dtype == np.float32


@pytest.mark.parametrize("part, at, value, text", [
    ("indices", 0, 3, "matrices[1]: column 3"), ("indices", 0, -1, "matrices[1]: column -1"), ("indptr", 1, 9, "matrices[1]: a row ends"),
    ("indptr", 0, 1, "do not fit"), ("indptr", -1, 99, "do not fit"),
])  # fmt: skip
def test_broken_blocks(part: str, at: int, value: int, text: str) -> None:
    bad = sp.csr_array(np.ones((3, 3)))
    getattr(bad, part)[at] = value
    with pytest.raises(SparseStructureError) as caught:
        block_diagonal([sp.csr_array(np.ones((4, 4))), bad])
    assert text in str(caught.value)
