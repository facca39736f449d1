"""Results that the caller gives, and arguments of any kind: what a dispatcher takes and what it hands to the slow path."""

from __future__ import annotations

import random
import sys

import numpy as np
import pytest
import scipy.sparse as sp

from polyai.runtime.dispatch import calls_of
from tests.runtime.dispatching import Sub, add_one, spmv, went_slow


def random_array(rng):
    dtype = rng.choice(["f8", "f8", "f8", "i4", "i8", ">f8", "f4", "O", "U3", "c16", "b1", "V8", "M8[s]"])
    shape = rng.choice([(30,), (40,), (41,), (), (0,), (30, 1), (1, 30), (2, 3, 4)])
    array = np.zeros(shape, dtype)
    change = rng.randrange(8)
    if change == 0 and array.ndim:
        array = array[::-1]
    elif change == 1:
        array = np.asfortranarray(array)
    elif change == 2:
        array = array.view(Sub)
    elif change == 3:
        array = np.ma.masked_array(array) if dtype not in ("V8", "O") else array
    elif change == 4:
        array.flags.writeable = False
    return array


def random_value(rng, depth=0):
    simple = [None, True, 0, -1, 1 << 65, 1.5, float("nan"), "s", b"b", (), [], {}, object(), int, np.float64(1), ..., 1j]
    kind = rng.randrange(4)
    if kind == 0:
        return rng.choice(simple)
    if kind == 1 and depth < 2:
        return tuple(random_value(rng, depth + 1) for _ in range(rng.randrange(4)))
    return random_array(rng)


def random_matrix(rng):
    a = rng.choice([*[sp.csr_array] * 6, sp.csr_matrix, sp.csc_array, sp.coo_array])(
        sp.random(rng.choice([40, 40, 40, 0, 1]), rng.choice([30, 30, 30, 1]), 0.2, random_state=rng.randrange(99))
    )
    for _ in range(rng.randrange(4)):
        name = rng.choice(["data", "indices", "indptr", "_shape", "extra"])
        old = getattr(a, name, None)
        if name == "_shape":
            old = rng.choice([(40, 30), (40, 31), (41, 30), (-1, 30), (0, 0), (1 << 66, 30), (40,), [40, 30], ("a", "b"), None, (True, 1.0)])
        elif isinstance(old, np.ndarray) and old.ndim and len(old) and rng.random() < 0.7:
            if rng.random() < 0.6 and old.dtype.kind in "if":
                old = old.copy()
                old[rng.randrange(len(old))] = rng.choice([-1, 0, 1, 29, 30, 2**31 - 1, -(2**31)])
            else:
                old = old[: rng.randrange(len(old))]
        else:
            old = random_value(rng)
        if rng.random() < 0.05:
            a.__dict__.pop(name, None)
        else:
            a.__dict__[name] = old
    return a


def test_no_malformed_argument_crashes_or_gives_a_wrong_result(runtime):
    """2,000 random calls: each either goes to the slow path or gives what a careful loop over the arrays gives."""
    rng = random.Random(20)
    a = sp.csr_array(sp.random(40, 30, 0.2, random_state=1))
    f = spmv(runtime, a)
    fast = 0
    for _ in range(2000):
        args = [random_matrix(rng) if rng.random() < 0.8 else random_value(rng), random_value(rng)]
        if rng.random() < 0.6:
            args[1] = np.arange(30.0)
        if rng.random() < 0.1:
            args = [random_value(rng) for _ in range(rng.randrange(5))]
        result = f(*args, **({"k": 1} if rng.random() < 0.03 else {}))
        if went_slow(result):
            assert len(result[1]) == len(args) and all(x is y for x, y in zip(result[1], args))
        else:
            fast += 1
            matrix, x = args
            for i in range(matrix._shape[0]):
                span = range(matrix.indptr[i], matrix.indptr[i + 1])
                assert abs(result[i] - sum(matrix.data[k] * x[matrix.indices[k]] for k in span)) < 1e-9
    assert 100 < fast < 1500
    assert calls_of(f) == (fast, 2000 - fast)


def test_a_result_array_that_fits_is_filled(runtime, way):
    f, x = add_one(runtime), np.arange(5.0)
    y = np.empty(5)
    before = sys.getrefcount(y)
    assert f(x, out=y) is y
    np.testing.assert_array_equal(y, x + 1)
    assert sys.getrefcount(y) == before
    empty = np.empty(0)
    assert f(np.zeros(0), out=empty) is empty
    assert calls_of(f) == (2, 0)


def test_a_result_array_beside_an_argument_is_apart_from_it(runtime, way):
    f, both = add_one(runtime), np.arange(10.0)
    assert f(both[:5], out=both[5:]).base is both
    np.testing.assert_array_equal(both, [0, 1, 2, 3, 4, 1, 2, 3, 4, 5])
    assert calls_of(f) == (1, 0)


def read_only():
    y = np.empty(5)
    y.flags.writeable = False
    return y


@pytest.mark.parametrize(
    "out",
    [np.empty(4), np.empty((5, 1)), np.empty(5, np.float32), np.empty(5, ">f8"), np.empty(10)[::2], read_only(), np.empty(5).view(Sub), [0.0] * 5, None, (np.empty(5),)],
    ids=["short", "rank", "f32", "swapped", "strided", "read-only", "subclass", "list", "none", "tuple"],
)  # fmt: skip
def test_another_result_array_goes_the_slow_way(runtime, way, out):
    f, x = add_one(runtime), np.arange(5.0)
    result = f(x, out=out)
    assert went_slow(result) and result[1][0] is x and result[2]["out"] is out
    assert calls_of(f) == (0, 1)


def test_a_result_array_that_overlaps_an_argument_goes_the_slow_way(runtime, way):
    f, x = add_one(runtime), np.arange(8.0)
    for given, out in ((x[:5], x[:5]), (x[:5], x[3:]), (x[3:], x[:5])):
        assert went_slow(f(given, out=out))
    np.testing.assert_array_equal(x, np.arange(8.0))


def test_a_result_array_over_the_values_of_a_matrix_goes_the_slow_way(runtime, way, matrix):
    matrix = sp.csr_matrix((np.ones(30), np.arange(30, dtype=np.int32), np.arange(31, dtype=np.int32)), shape=(30, 30))
    f = spmv(runtime, matrix)
    assert went_slow(f(matrix, np.ones(30), out=matrix.data))
    y = np.empty(30)
    assert f(matrix, np.ones(30), out=y) is y and y.sum() == 30
    assert calls_of(f) == (1, 1)


def test_other_keywords_go_the_slow_way(runtime, way):
    f, x = add_one(runtime), np.arange(5.0)
    assert went_slow(f(x, other=np.empty(5))) and went_slow(f(x, out=np.empty(5), other=1))
    assert calls_of(f) == (0, 2)
