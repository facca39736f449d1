"""The table's result types are NumPy's, for every operation and every combination of element types."""

import itertools

import numpy as np
import pytest

from polyai.errors import DTypeError
from polyai.scalar import dtype as dt
from polyai.scalar.ops import OPS, result_type

HAVE = [d for d in dt.ALL if d != dt.bf16]
NAMES = {
    "neg": "negative", "abs": "absolute", "not": "logical_not", "sub": "subtract", "mul": "multiply", "div": "true_divide",
    "floordiv": "floor_divide", "mod": "remainder", "pow": "power", "max": "maximum", "min": "minimum", "eq": "equal",
    "ne": "not_equal", "lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal", "and": "logical_and",
    "or": "logical_or", "xor": "logical_xor", "bitand": "bitwise_and", "bitor": "bitwise_or", "bitxor": "bitwise_xor",
    "shl": "left_shift", "shr": "right_shift",
}  # fmt: skip
REFUSED_HERE = {  # what NumPy defines and this table refuses: an order of complex numbers, integer reciprocals, rounded booleans
    "max": "c", "min": "c", "lt": "c", "le": "c", "gt": "c", "ge": "c", "reciprocal": "biu", "round": "b",
}  # fmt: skip


OURS = ("erf", "where", "popcount", "ctz", "bit", "bits")
"""What NumPy has no function of this name and meaning for; `where` is one of three operands."""


@pytest.mark.parametrize("name", [n for n in OPS if n not in OURS])
def test_like_numpy(name):
    entry, function = OPS[name], getattr(np, NAMES.get(name, name))
    for args in itertools.product(HAVE, repeat=entry.arity):
        with np.errstate(all="ignore"):
            try:
                want = dt.from_numpy(function(*(np.ones(2, dt.to_numpy(a)) for a in args)).dtype)
            except TypeError:
                want = None
        if any(a.kind in REFUSED_HERE.get(name, "") for a in args):
            want = None
        try:
            got = result_type(name, *args)
        except DTypeError:
            got = None
        assert got == want, args


def test_where_and_erf():
    for a, b in itertools.product(HAVE, repeat=2):
        assert result_type("where", dt.bool_, a, b) == dt.from_numpy(np.result_type(dt.to_numpy(a), dt.to_numpy(b)))
    assert result_type("erf", dt.i32) == dt.f64
    assert result_type("erf", dt.f32) == dt.f32
    with pytest.raises(DTypeError, match="the condition of where has dtype i32"):
        result_type("where", dt.i32, dt.f32, dt.f32)


@pytest.mark.parametrize("name", ["popcount", "ctz", "bit"])
def test_operations_on_bits_take_integers_and_keep_their_type(name):
    for a in dt.ALL:
        if a.kind in "iu":
            assert result_type(name, a) == a
        else:
            with pytest.raises(DTypeError, match=f"{name} is not defined for {a}"):
                result_type(name, a)


@pytest.mark.parametrize("scalar", [True, 3, 2.5, 1j])
def test_python_scalars_are_weak(scalar):
    for a in HAVE:
        want = np.result_type(dt.to_numpy(a), type(scalar)(scalar)) if not isinstance(scalar, bool) else dt.to_numpy(a)
        assert dt.to_numpy(dt.promote_scalar(a, scalar)) == want


def test_bfloat16():
    assert dt.promote(dt.bf16, dt.f16) == dt.f32
    assert dt.promote(dt.i8, dt.bf16) == dt.bf16
    assert dt.promote(dt.bf16, dt.i32) == dt.f64
    assert dt.promote(dt.bf16, dt.c128) == dt.c128
    assert dt.compute_type(dt.bf16) == dt.f32
    for d in dt.ALL:
        assert dt.promote(dt.bf16, d) == dt.promote(d, dt.bf16)


def test_messages():
    with pytest.raises(DTypeError, match="sub is not defined for bool") as error:
        result_type("sub", dt.bool_, dt.bool_)
    assert "xor" in str(error.value)
    with pytest.raises(DTypeError, match="array has dtype object"):
        dt.from_numpy(object)


def test_the_bits_of_a_float_are_an_integer_of_its_width():
    assert [str(result_type("bits", d)) for d in (dt.f64, dt.f32, dt.f16)] == ["i64", "i32", "i32"]
    x = np.array([1.5, -0.0, np.inf])
    np.testing.assert_array_equal(OPS["bits"].meaning(x), x.view(np.int64))
    np.testing.assert_array_equal(OPS["bits"].meaning(x.astype(np.float16)), x.astype(np.float32).view(np.int32))
    with pytest.raises(DTypeError, match="bits is not defined for i64"):
        result_type("bits", dt.i64)
