"""The interpreter, construction and text of scalar expressions."""

import numpy as np
import pytest

from polyai.errors import DTypeError, IndexOutOfRangeError
from polyai.scalar import dtype as dt
from polyai.scalar.build import apply, cast, const
from polyai.scalar.expr import Load, Var
from polyai.scalar.interp import evaluate
from polyai.scalar.ops import MONOIDS, OPS, result_type
from polyai.scalar.show import show

I = Var("i", dt.i64)  # noqa: E741
X = Var("x", dt.f32)


def test_every_operation_computes_its_result_type():
    rng = np.random.default_rng(0)
    for entry in OPS.values():
        for dtype in (dt.i32, dt.f32, dt.f64, dt.c64, dt.bool_):
            types = (dt.bool_, dtype, dtype) if entry.name == "where" else (dtype,) * entry.arity
            try:
                want = result_type(entry.name, *types)
            except DTypeError:
                continue
            values = [np.abs(rng.normal(size=4)).astype(dt.to_numpy(t)) + (t.kind != "b") for t in types]
            args = [Var(f"x{n}", t) for n, t in enumerate(types)]
            got = evaluate(apply(entry.name, *args), {f"x{n}": v for n, v in enumerate(values)}, {})
            assert got.dtype == dt.to_numpy(want), entry.name
            with np.errstate(all="ignore"):
                np.testing.assert_allclose(got, entry.meaning(*values), rtol=2e-3 if want == dt.f16 else 1e-6)


INTEGERS = [d for d in dt.ALL if d.kind in "iu"]


def _numbers(dtype):
    """All of 8 bits; of wider types the ends, every power of two and its neighbours, and random ones: as Python integers."""
    low, high = (-(1 << (dtype.bits - 1)), (1 << (dtype.bits - 1)) - 1) if dtype.kind == "i" else (0, (1 << dtype.bits) - 1)
    if dtype.bits == 8:
        return list(range(low, high + 1))
    near = [s * (1 << n) + d for n in range(dtype.bits) for d in (-1, 0, 1) for s in (1, -1)]
    rng = np.random.default_rng(dtype.bits)
    anything = [int.from_bytes(rng.bytes(dtype.bits // 8), "little", signed=dtype.kind == "i") for _ in range(50)]
    return sorted({x for x in (*near, *anything, low, high, 0) if low <= x <= high})


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_operations_on_bits_are_those_of_python_integers(dtype):
    width, kind = dtype.bits, dt.to_numpy(dtype)
    numbers = _numbers(dtype)
    raw = [x % (1 << width) for x in numbers]
    assert 0 in numbers and max(raw) == (1 << width) - 1

    def found(name):
        out = evaluate(apply(name, Var("x", dtype)), {"x": np.array(numbers, kind)}, {})
        assert out.dtype == kind
        return [int(v) % (1 << width) for v in out]

    assert found("popcount") == [r.bit_count() for r in raw]
    assert found("ctz") == [(r & -r).bit_length() - 1 if r else width for r in raw]
    assert found("bit") == [1 << (r % width) for r in raw]


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_the_lowest_bit_is_the_one_that_ctz_counts(dtype):
    x = Var("x", dtype)
    numbers = np.array([n for n in _numbers(dtype) if n], dt.to_numpy(dtype))
    lowest = apply("bitand", x, apply("neg", x))
    np.testing.assert_array_equal(evaluate(apply("bit", apply("ctz", x)), {"x": numbers}, {}), evaluate(lowest, {"x": numbers}, {}))


def test_operations_on_bits_keep_the_shape():
    for shape in ((), (0,), (3, 0), (2, 3)):
        for name in ("popcount", "ctz", "bit"):
            assert evaluate(apply(name, Var("x", dt.i64)), {"x": np.ones(shape, np.int64)}, {}).shape == shape


def test_where_reads_only_the_branch_it_takes():
    inside = apply("lt", I, const(3, dt.i64))
    expr = apply("where", inside, Load("a", (I,), dt.f32), const(-1.0, dt.f32))
    assert evaluate(expr, {"i": np.arange(5)}, {"a": np.arange(3, dtype="f4")}).tolist() == [0, 1, 2, -1, -1]
    with pytest.raises(IndexOutOfRangeError, match="a: index 3 in dimension 0"):
        evaluate(Load("a", (I,), dt.f32), {"i": np.arange(5)}, {"a": np.arange(3, dtype="f4")})


def test_indices_never_count_from_the_end():
    with pytest.raises(IndexOutOfRangeError, match="index -1"):
        evaluate(Load("a", (const(-1, dt.i64),), dt.f32), {}, {"a": np.zeros(3, "f4")})


def test_gathers_and_scalars():
    a, at = np.array([5.0, 6.0, 7.0]), np.array([2, 0], dtype=np.int32)
    gather = Load("a", (cast(Load("at", (I,), dt.i32), dt.i64),), dt.f64)
    assert evaluate(gather, {"i": np.arange(2)}, {"a": a, "at": at}).tolist() == [7, 5]
    assert evaluate(Load("s", (), dt.f64), {}, {"s": np.float64(3)}) == 3


def test_empty_domains():
    assert evaluate(Load("a", (I,), dt.f32), {"i": np.arange(0)}, {"a": np.zeros(0, "f4")}).shape == (0,)


def test_constants_keep_the_bits_of_their_type():
    assert const(0.1, dt.f32).value == float(np.float32(0.1))
    assert const(1e300, dt.f32).value == float("inf")
    assert const(7.0, dt.u8).value == 7
    with pytest.raises(DTypeError, match="300 cannot be u8"):
        const(300, dt.u8)
    with pytest.raises(DTypeError, match="cannot be i32"):
        const(0.5, dt.i32)
    with pytest.raises(DTypeError, match="imaginary"):
        const(1j, dt.f64)


def test_operands_are_converted_as_the_table_says():
    assert show(apply("add", I, X)) == "f64(i) + f64(x)"
    assert show(apply("div", I, I)) == "f64(i) / f64(i)"
    assert show(apply("lt", I, X)) == "f64(i) < f64(x)"
    assert show(apply("abs", X)) == "abs(x)"


@pytest.mark.parametrize(
    "text",
    ["a + b * c", "(a + b) * c", "a - (b - c)", "a - b - c", "-(a + b)", "-a * b", "(-a) ** b", "a ** -b ** c", "a / (b / c)",
     "(a < b) == (c < a)", "max(a, b)[0]", "a % b // c", "a * (b % c)"],
)  # fmt: skip
def test_text_reads_as_python(text):
    """Parse with Python, print, and evaluate both texts."""
    if "[" in text:
        expr = Load("m", (apply("add", I, const(1, dt.i64)), I), dt.f32)
        assert show(expr) == "m[i + 1, i]"
        return
    env = {n: Var(n, dt.f64) for n in "abc"}

    class Term:
        def __init__(self, expr):
            self.expr = expr

    for sign, op in (("add", "add"), ("sub", "sub"), ("mul", "mul"), ("truediv", "div"), ("floordiv", "floordiv"),
                     ("mod", "mod"), ("pow", "pow"), ("lt", "lt"), ("eq", "eq")):  # fmt: skip
        setattr(Term, f"__{sign}__", lambda p, q, op=op: Term(apply(op, p.expr, q.expr)))
    Term.__neg__ = lambda p: Term(apply("neg", p.expr))
    shown = show(eval(text, {n: Term(v) for n, v in env.items()}).expr)
    values = {"a": 2.0, "b": 3.0, "c": 5.0}
    assert eval(shown, dict(values)) == eval(text, dict(values))


def test_monoids_have_their_identity():
    for monoid in MONOIDS.values():
        kinds = (dt.bool_,) if monoid.name in ("and", "or") else (dt.i8, dt.u64, dt.f32, dt.f64, dt.bool_)
        for dtype in kinds:
            identity = np.asarray(monoid.identity(dtype)).astype(dt.to_numpy(dtype))
            for x in np.array([0, 1], dtype=dt.to_numpy(dtype)):
                assert OPS[monoid.op].meaning(identity, x) == x
    with pytest.raises(DTypeError, match="no order"):
        MONOIDS["max"].identity(dt.c64)


def test_flags_of_the_table_hold():
    for entry in OPS.values():
        if entry.name == "where":
            continue
        dtype = dt.bool_ if entry.name in ("and", "or", "xor", "not") else dt.f64 if "f" in entry.kinds else dt.i64
        zeros = [np.zeros(1, dt.to_numpy(dtype))] * entry.arity
        at_zero = entry.meaning(*zeros)
        assert entry.keeps_zero == bool(at_zero == 0), entry.name
        if entry.annihilator is not None:
            other = np.array([0, 1, 7]).astype(dt.to_numpy(dtype))
            fixed = np.full(3, entry.annihilator).astype(dt.to_numpy(dtype))
            assert (entry.meaning(fixed, other) == entry.annihilator).all()
            assert (entry.meaning(other, fixed) == entry.annihilator).all()
