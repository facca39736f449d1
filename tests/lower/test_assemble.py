"""Programs with branches, loops of regions and library calls as one kernel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from polyai.loop import nodes as lp
from polyai.loop.interp import run
from polyai.loop.passes.order import lower_loops
from polyai.loop.verify import verify
from polyai.lower import poly_to_loop, tensor_to_poly
from polyai.lower.assemble import assemble, segments
from polyai.poly.passes.contract import run as contract
from polyai.poly.passes.schedule import scheduled
from polyai.scalar import dtype as dt
from polyai.shapes.expr import Size, symbol
from polyai.sparse.format import csr
from polyai.tensor.interp import SparseValue
from polyai.tensor.interp import run as run_program
from polyai.tensor.nodes import Cond, Extern, Input, Program, TensorType, While
from polyai.tensor.passes import canonical, restrict
from tests.lower.meaning import number
from tests.poly.meaning import arguments
from tests.words import add, at, define, dense, lit, mul, op, reduce, sparse, stored, v

n, m, c = symbol("n"), symbol("m"), symbol("c")
F = dt.f64


def kernel_of(program: Program) -> tuple[lp.Kernel, Program]:
    program = canonical.run(restrict.run(program))
    scops = [contract(scheduled(tensor_to_poly.lower(p), {})[0]) for p in segments(program)]
    kernel = assemble(program, scops, poly_to_loop.lower)
    verify(kernel)
    return kernel, program


def gemm(op_a: Any, op_b: Any, m_: Any, n_: Any, k: Any, alpha: Any, a: Any, lda: Any, b: Any, ldb: Any, beta: Any, c_: Any, ldc: Any) -> None:
    left = a.T if op_a else a
    right = b.T if op_b else b
    assert (left.shape, right.shape, c_.shape) == ((m_, k), (k, n_), (m_, n_))
    assert (lda, ldb, ldc, alpha, beta) == (a.shape[1], b.shape[1], n_, 1.0, 0.0)
    c_[...] = left @ right


def same(program: Program, given: dict[str, Any]) -> dict[str, Any]:
    """The kernel's outputs, equal to the tensor interpreter's before and after the loop passes."""
    expected = run_program(program, given)
    kernel, program = kernel_of(program)
    arrays, sizes = arguments(program, given)
    for k in (kernel, lower_loops(kernel)):
        verify(k)
        args = {name: np.array(a) for name, a in arrays.items()}
        for p in k.params:
            if p.extents is None:
                args[p.name] = sizes[p.name]
            elif p.role == "output":
                args[p.name] = np.full([number(e, sizes) for e in p.extents], 77, dt.to_numpy(p.dtype))
        assert run(k, args, externs={"blas.dgemm": gemm}) == 0
        for name in program.outputs:
            np.testing.assert_allclose(args[name], expected[name], rtol=1e-12)
    return expected


def straight(name: str, shape: tuple[Size, ...], body: Any) -> Program:
    """A region x -> r of one step over the same shape."""
    indices = {f"{name}_i{d}": s for d, s in enumerate(shape)}
    x = at("x", *indices, dtype=F)
    return Program(name, (Input("x", dense(*shape, dtype=F)),), (define("r", indices, body(x)),), ("r",))


def test_branches_and_loops_over_vectors() -> None:
    vector = dense(n, dtype=F)
    twice, minus = straight("twice", (n,), lambda x: add(x, x)), straight("minus", (n,), lambda x: op("neg", x))
    small = op("lt", reduce("max", {"q": n}, at("x", "q", dtype=F)), lit(100.0, F))
    below = Program("below", (Input("x", vector),), (define("t", {}, small),), ("t",))
    first = op("gt", reduce("add", {"p": n}, at("x", "p", dtype=F)), lit(0.0, F))
    program = Program(
        "control",
        (Input("x", vector),),
        (
            define("positive", {}, first),
            Cond(("y",), (vector,), "positive", ("x",), twice, minus),
            While(("z",), (vector,), ("y",), (), below, twice),
            define("w", {"k": n}, add(at("z", "k", dtype=F), at("y", "k", dtype=F))),
        ),
        ("y", "z", "w"),
    )
    out = same(program, {"x": np.array([3.0, -1.0, 2.0])})
    assert out["z"].tolist() == [192.0, -64.0, 128.0]
    out = same(program, {"x": np.array([-3.0, 1.0])})
    assert out["y"].tolist() == [3.0, -1.0]


def test_a_loop_whose_body_swaps_its_state_and_reads_an_argument() -> None:
    s = dense(dtype=F)
    a, b_, k = (Input(x, s) for x in ("a", "b", "k"))
    go = Program("go", (a, b_, k), (define("t", {}, op("lt", at("a", dtype=F), at("k", dtype=F))),), ("t",))
    step = Program("step", (a, b_, k), (define("sum", {}, add(at("a", dtype=F), at("b", dtype=F))),), ("b", "sum"))
    program = Program("fib", (a, b_, k), (While(("f", "g"), (s, s), ("a", "b"), ("k",), go, step),), ("f", "g"))
    out = same(program, {"a": np.array(0.0), "b": np.array(1.0), "k": np.array(50.0)})
    assert (float(out["f"]), float(out["g"])) == (55.0, 89.0)


def test_a_branch_that_returns_its_argument() -> None:
    s = dense(n, dtype=F)
    keep = Program("keep", (Input("x", s),), (), ("x",))
    program = Program(
        "maybe",
        (Input("x", s), Input("p", dense(dtype=dt.bool_))),
        (Cond(("y",), (s,), "p", ("x",), straight("twice", (n,), lambda x: add(x, x)), keep),),
        ("y",),
    )
    assert same(program, {"x": np.arange(3.0), "p": np.array(True)})["y"].tolist() == [0.0, 2.0, 4.0]
    assert same(program, {"x": np.arange(3.0), "p": np.array(False)})["y"].tolist() == [0.0, 1.0, 2.0]


@pytest.mark.parametrize(("op_a", "op_b"), [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_a_library_product_between_segments(op_a: int, op_b: int) -> None:
    a = dense(*((c, n) if op_a else (n, c)), dtype=F)
    b_ = dense(*((m, c) if op_b else (c, m)), dtype=F)
    names = tuple(zip(("i", "j"), b_.shape))
    program = Program(
        "product",
        (Input("A", a), Input("B", b_)),
        (
            define("B2", dict(names), mul(at("B", "i", "j", dtype=F), lit(2.0, F))),
            Extern(("C",), (dense(n, m, dtype=F),), "blas.dgemm", ("A", "B2"), (("op_a", op_a), ("op_b", op_b))),
            define("Y", {"r": n, "s": m}, op("max", at("C", "r", "s", dtype=F), lit(0.0, F))),
        ),
        ("Y",),
    )
    rng = np.random.default_rng(3)
    same(program, {"A": rng.standard_normal((4, 3) if op_a else (3, 4)), "B": rng.standard_normal((5, 4) if op_b else (4, 5))})


def test_a_sparse_matrix_in_a_loop() -> None:
    """Power iteration: the matrix is an argument of the region."""
    matrix, vector = sparse("A", csr(), n, n, dtype=F), dense(n, dtype=F)
    s = dense(dtype=F)
    product = reduce("add", {"k": n}, mul(at("A", "i", "k", dtype=F), at("x", "k", dtype=F)))
    inputs = (Input("x", vector), Input("t", s), matrix)
    step = Program("step", inputs, (define("ax", {"i": n}, product), define("t1", {}, add(at("t", dtype=F), lit(1.0, F)))), ("ax", "t1"))
    go = Program("go", inputs, (define("more", {}, op("lt", at("t", dtype=F), lit(3.0, F))),), ("more",))
    program = Program("power", inputs, (While(("y", "u"), (vector, s), ("x", "t"), ("A",), go, step),), ("y",))
    dense_a = np.array([[0.0, 2.0, 0.0], [1.0, 0.0, 0.0], [0.0, 3.0, 1.0]])
    where = np.nonzero(dense_a)
    given = {"A": SparseValue((where[0], where[1]), dense_a[where], (3, 3)), "x": np.ones(3), "t": np.array(0.0)}
    np.testing.assert_allclose(same(program, given)["y"], np.linalg.matrix_power(dense_a, 3) @ np.ones(3))


def test_segments_follow_the_text() -> None:
    s = dense(n, dtype=F)
    twice = straight("twice", (n,), lambda x: add(x, x))
    program = Program(
        "p", (Input("x", s), Input("p", dense(dtype=dt.bool_))), (define("a", {"i": n}, at("x", "i", dtype=F)), Cond(("y",), (s,), "p", ("x",), twice, twice)), ("y", "a")
    )  # fmt: skip
    assert [tuple(t.target for t in part.body) for part in segments(program)] == [("a",), ("r",), ("r",)]
    assert segments(twice) == (twice,)


def test_a_sparse_result_across_a_border_is_kept_as_values() -> None:
    s = TensorType(F, ())
    a = sparse("A", csr(), n, m, dtype=F)
    scaled = stored("B", {"i": n, "j": m}, mul(at("A", "i", "j", dtype=F), lit(2.0, F)), "A", "i", "j")
    keep = Program("keep", (Input("p", s),), (), ("p",))
    program = Program(
        "border",
        (a, Input("p", s), Input("t", dense(dtype=dt.bool_))),
        (scaled, Cond(("q",), (s,), "t", ("p",), keep, keep), define("y", {"r": n}, reduce("add", {"k": m}, at("B", "r", "k", dtype=F)))),
        ("y", "q"),
    )
    stored_twice = SparseValue((np.array([0, 0, 2]), np.array([1, 3, 0])), np.array([1.0, 2.0, 4.0], dt.to_numpy(F)), (3, 4))
    found = same(program, {"A": stored_twice, "p": np.array(3.0, dt.to_numpy(F)), "t": np.array(True)})
    assert found["y"].tolist() == [6.0, 0.0, 8.0] and found["q"] == 3.0


def test_an_index_variable_may_share_its_name_with_a_tensor() -> None:
    """Names of loops and of tensors are different things in a program; in a kernel they are kept apart."""
    s = dense(n, dtype=F)
    keep = Program("keep", (Input("i", s),), (define("k", {"y": n}, add(at("i", "y", dtype=F), lit(1.0, F))),), ("k",))
    program = Program(
        "names",
        (Input("i", s), Input("p", dense(dtype=dt.bool_))),
        (Cond(("y",), (s,), "p", ("i",), keep, keep), define("z", {"k": n}, add(at("y", "k", dtype=F), at("i", "k", dtype=F)))),
        ("z",),
    )
    assert v("k") is not None
    assert same(program, {"i": np.arange(2.0), "p": np.array(True)})["z"].tolist() == [1.0, 3.0]
