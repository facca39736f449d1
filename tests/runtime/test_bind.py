from __future__ import annotations

import numpy as np
import pytest

from polyai.errors import AliasError, DTypeError, ShapeError
from polyai.runtime.bind import apart, input_array, no_overlap, output_array
from polyai.runtime.stats import Stats


@pytest.mark.parametrize(
    "value",
    [np.arange(6.0), np.zeros((0,)), np.arange(6.0)[2:4], np.ones(3)],
)
def test_what_fits_is_not_copied(value):
    stats = Stats()
    assert input_array(value, "f64", 1, "x", stats) is value and stats["copies"] == 0


def unaligned(n):
    return np.zeros(8 * n + 1, np.uint8)[1:].view(np.float64)


@pytest.mark.parametrize(
    "value", [np.arange(10.0)[::2], np.arange(5.0)[::-1], np.arange(5.0).astype(">f8"), unaligned(5), np.broadcast_to(1.0, 5)]
)
def test_what_does_not_fit_is_copied_and_counted(value):
    stats = Stats()
    copy = input_array(value, "f64", 1, "x", stats)
    np.testing.assert_array_equal(copy, value)
    assert copy.flags.c_contiguous and copy.flags.aligned and copy.dtype == np.float64 and copy.dtype.isnative
    assert stats["copies"] == 1 and not np.shares_memory(copy, value)


def test_subclasses_are_read_as_plain_arrays():
    with pytest.warns(PendingDeprecationWarning):
        matrix = np.matrix([[1.0, 2.0]])
    assert type(input_array(matrix, "f64", 2, "x", Stats())) is np.ndarray


@pytest.mark.parametrize(
    ("value", "part"),
    [
        (np.ma.masked_array([1.0], [True]), "masked"),
        (np.array([None]), "object"),
        (np.array(["a"]), "<U1"),
        (np.array([1.0], np.float32), "float32"),
        (np.array([1]), "int64"),
        (np.array([0], "M8[s]"), "datetime64"),
    ],
)
def test_other_elements_are_refused_by_name(value, part):
    with pytest.raises(DTypeError, match=r"^x ") as caught:
        input_array(value, "f64", 1, "x", Stats())
    assert part in str(caught.value)


def test_another_rank_is_refused():
    with pytest.raises(ShapeError, match="x has 2 dimensions"):
        input_array(np.zeros((2, 2)), "f64", 1, "x", Stats())


def test_c_longs_of_the_same_width_are_one_type():
    assert input_array(np.arange(3, dtype=np.longlong), "i64", 1, "x", Stats()).tolist() == [0, 1, 2]


def test_an_output_is_used_as_it_is():
    out = np.empty((2, 3))
    assert output_array(out, "f64", (2, 3)) is out


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ([1.0, 2.0], DTypeError),
        (np.ma.zeros((2, 3)), DTypeError),
        (np.empty((2, 3), np.float32), DTypeError),
        (np.empty((2, 3), ">f8"), DTypeError),
        (np.empty((3, 2)), ShapeError),
        (np.empty((3, 2)).T, ShapeError),
        (np.broadcast_to(1.0, (2, 3)), AliasError),
    ],
)
def test_an_output_that_cannot_be_written_is_refused(value, error):
    with pytest.raises(error):
        output_array(value, "f64", (2, 3))


def test_inputs_that_share_memory_with_an_output_are_copied():
    stats = Stats()
    base = np.arange(10.0)
    first, second = apart(base[:5], [base[4:], base[5:]], stats)
    assert not np.shares_memory(first, base) and second.base is base and stats["copies"] == 1


def test_outputs_must_not_share_memory():
    base = np.zeros(10)
    no_overlap([base[:5], base[5:]])
    with pytest.raises(AliasError):
        no_overlap([base[:6], base[5:]])
