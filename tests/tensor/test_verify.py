"""Each sentence of the verifier, broken once."""

from __future__ import annotations

import dataclasses

import pytest

from polyai.errors import VerifyError
from polyai.scalar import dtype as dt
from polyai.scalar.expr import Apply, Load, Var
from polyai.shapes.expr import symbol
from polyai.sparse.format import coo, csr
from polyai.tensor.nodes import (
    Comprehension,
    Cond,
    Extern,
    Index,
    Input,
    Join,
    Listing,
    Pattern,
    Program,
    Reduce,
    Scatter,
    TensorType,
    While,
    Within,
    targets_of,
)
from polyai.tensor.verify import CANONICAL, CHECKS, verify, verify_canonical
from tests.programs import PROGRAMS
from tests.words import at, c, define, dense, lit, m, mul, n, op, program, reduce, sparse, stored, v, within

A, X, S = sparse("A", csr(), n, m), Input("X", dense(n, m)), Input("s", dense(dtype=dt.bool_))
ij = {"i": n, "j": m}
x = at("X", "i", "j")
good = define("y", ij, x)
two = Program("two", (Input("q", dense(n, m)),), (), ("q",))
none = Program("none", (), (), ())
scatter = Scatter("z", dense(n, m), "X", "add", (Index("k", n), Index("l", m)), (v("k"), v("l")), at("X", "k", "l"))


JOINED = Join("z", TensorType(dt.bool_, (n, m), csr(), Pattern("z", (0, 1))), (Index("s", n), Index("t", m)), ((within("A", "s", "t"),),))
"""A pattern that the program makes of one other."""
TOUCHED = dataclasses.replace(scatter, base=None, type=TensorType(dt.f32, (n, m), csr(), Pattern("z", (0, 1))))
where_joined = op("where", Load("z", (v("k"), v("l")), dt.bool_), at("X", "k", "l"), lit(0.0))


def stored_y(**changes: object) -> Comprehension:
    return dataclasses.replace(stored("y", ij, at("A", "i", "j"), "A", "i", "j"), **changes)


BROKEN = {
    "names are defined before use": [
        [define("y", ij, at("Q", "i", "j"))],
        [define("y", {"i": n}, reduce("add", {"j": m}, x, Within("Q", ("i", "j"))))],
        [dataclasses.replace(JOINED, clauses=((within("Q", "s", "t"),),))],
        [Extern(("y",), (dense(n),), "f", ("Q",))],
        [dataclasses.replace(scatter, base="Q")],
        [define("y", ij, at("z", "i", "j")), define("z", {"k": n, "l": m}, at("X", "k", "l"))],
    ],
    "targets are unique": [[good, define("y", {"k": n, "l": m}, lit(0.0))], [define("X", ij, lit(0.0))], [define("n", ij, lit(0.0))]],
    "indices are unique": [
        [good, define("z", ij, x)],
        [define("y", {"i": n}, reduce("add", {"i": n}, at("X", "i", "i")))],
        [define("y", {"n": n}, lit(0.0))],
    ],
    "variables are bound": [
        [define("y", {"i": n}, x)],
        [define("y", {"i": n}, mul(reduce("add", {"j": m}, x), x))],
        [define("y", {"i": symbol("unknown")}, lit(0.0))],
        [define("y", {"i": n}, reduce("add", {"j": symbol("unknown")}, lit(0.0)))],
        [define("y", {"i": n}, reduce("add", {"j": m}, x, Within("A", ("i", "k"))))],
    ],
    "ranks match": [
        [dataclasses.replace(JOINED, indices=(Index("s", n), Index("t", n)))],
        [dataclasses.replace(scatter, base=None)],
        [define("y", {"i": n}, at("X", "i"))],
        [dataclasses.replace(good, type=dense(n))],
        [dataclasses.replace(good, type=dense(m, n))],
        [dataclasses.replace(scatter, at=(v("k"),))],
        [dataclasses.replace(scatter, type=dense(n, n))],
        [Extern(("y", "z"), (dense(n),), "f", ("X",))],
    ],
    "dtypes agree with the table": [
        [define("y", ij, at("X", "i", "j", dtype=dt.f64))],
        [dataclasses.replace(good, type=dense(n, m, dtype=dt.f64))],
        [define("y", ij, Apply("add", (x, lit(1.0, dt.f64)), dt.f64))],
        [define("y", ij, Apply("exp", (x,), dt.f64))],
        [define("y", ij, Apply("nothing", (x,), dt.f32))],
        [define("y", ij, Apply("add", (x,), dt.f32))],
        [define("y", ij, Apply("and", (x, Apply("mod", (op("lt", x, x), op("lt", x, x)), dt.bool_)), dt.bool_))],
        [define("y", ij, Load("X", (x, v("j")), dt.f32))],
        [define("y", ij, Var("i", dt.f32))],
        [define("y", {"i": n}, Reduce("plus", (Index("j", m),), x, dt.f32))],
        [define("y", ij, Reduce("add", (), x, dt.f32))],
        [dataclasses.replace(scatter, at=(at("X", "k", "l"), v("l")))],
        [dataclasses.replace(scatter, monoid="plus")],
    ],
    "withins name stored coordinates": [
        [dataclasses.replace(JOINED, clauses=())],
        [dataclasses.replace(JOINED, clauses=((within("A", "s", "t"),), ()))],
        [dataclasses.replace(JOINED, clauses=((within("A", "s", "s"),),))],
        [dataclasses.replace(JOINED, clauses=((within("X", "s", "t"),),))],
        [define("y", {"i": n}, reduce("add", {"j": m}, x, within("X", "i", "j")))],
        [define("y", {"i": n}, reduce("add", {"j": m}, x, within("A", "i")))],
        [define("y", {"i": n}, reduce("add", {"j": m}, x, within("A", "j", "j")))],
        [stored_y(within=(Within("A", ("i", "k")),))],
    ],
    "sparse targets are stored within their owner": [
        [dataclasses.replace(JOINED, type=dataclasses.replace(JOINED.type, format=None))],
        [dataclasses.replace(JOINED, type=dataclasses.replace(JOINED.type, pattern=Pattern("A", (0, 1))))],
        [dataclasses.replace(TOUCHED, type=dataclasses.replace(TOUCHED.type, format=coo(3)))],
        [stored_y(within=())],
        [stored_y(within=(Within("A", ("j", "i")),))],
        [stored_y(type=dense(n, m))],
        [stored_y(type=TensorType(dt.f32, (n, m), None, Pattern("X", (0, 1))))],
        [stored_y(type=TensorType(dt.f32, (n, m), None, Pattern("A", (0, 0))))],
        [dataclasses.replace(scatter, type=TensorType(dt.f32, (n, m), None, Pattern("A", (0, 1))))],
    ],
    "joins are of patterns only": [
        [JOINED, define("y", {"a": n, "b": m}, Load("z", (v("a"), v("b")), dt.bool_))],
        [JOINED, define("y", {"a": n}, reduce("or", {"b": m}, Load("z", (v("a"), v("b")), dt.bool_), within("z", "a", "b")))],
        [JOINED, dataclasses.replace(scatter, target="y", indices=(Index("k", n), Index("l", m)), body=where_joined)],
    ],
    "listings hold what a sparse tensor stores": [
        [Listing("y", dense(symbol("A.nnz")), "X")],
        [JOINED, Listing("y", dense(symbol("z.nnz"), dtype=dt.bool_), "z")],
        [Listing("y", dense(symbol("A.nnz"), dtype=dt.f64), "A")],
        [Listing("y", dense(n, m), "A")],
    ],
    "regions have the types of their step": [
        [Cond(("y",), (dense(n, m),), "X", ("X",), two, two)],
        [Cond(("y",), (dense(n, m),), "s", (), two, two)],
        [Cond(("y",), (dense(n, m, dtype=dt.f64),), "s", ("X",), two, two)],
        [While(("y",), (dense(n, m),), ("X",), (), two, two)],
    ],
    "outputs exist": [[define("other", ij, x)]],
}


@pytest.mark.parametrize("sentence", BROKEN)
def test_a_broken_sentence_is_named(sentence: str) -> None:
    for number, body in enumerate(BROKEN[sentence]):
        with pytest.raises(VerifyError) as caught:
            verify(program("p", [A, X, S], body, targets_of(body[-1])[0] if isinstance(body[-1], (Scatter, Join)) else "y"))
        assert f"broken: {sentence}" in str(caught.value), number
        assert "tensor program p" in str(caught.value)


def test_every_sentence_has_a_test() -> None:
    sentences = {check.__name__.replace("_", " ") for check in CHECKS}
    assert sentences | {"outputs exist"} == set(BROKEN)


def test_what_is_not_broken_passes() -> None:
    verify(program("p", [A, X, S], [good, scatter, Cond(("w",), (dense(n, m),), "s", ("y",), two, two)], "y", "z", "w"))
    verify(program("p", [A, X], [stored_y()], "y", "A", "X"))
    verify(program("p", [A, X], [JOINED], "z"))
    verify(program("p", [A, X], [TOUCHED], "z"))


INPUTS = {
    "names of inputs are unique": ([X, X], [Input("n", dense(n))]),
    "an input that owns its pattern has a format": (
        [Input("B", TensorType(dt.f32, (n, m), None, Pattern("B", (0, 1))))],
        [Input("B", TensorType(dt.f32, (n, m), csr()))],
        [A, Input("B", TensorType(dt.f32, (n, m), csr(), Pattern("A", (0, 1))))],
    ),
    "a sparse input owns its pattern": ([Input("B", TensorType(dt.f32, (n, m), csr(), Pattern("B", (1, 0))))],),
    "ranks match": ([sparse("B", coo(3), n, m)],),
}


@pytest.mark.parametrize("sentence", INPUTS)
def test_broken_inputs(sentence: str) -> None:
    for inputs in INPUTS[sentence]:
        with pytest.raises(VerifyError, match=f"broken: {sentence}"):
            verify(program("p", list(inputs), [], inputs[0].name))


def test_a_program_needs_an_output() -> None:
    with pytest.raises(VerifyError, match="outputs exist"):
        verify(none)


def test_a_region_is_verified_and_may_use_the_sizes_around_it() -> None:
    row = Input("q", dense(c, dtype=dt.f32))
    inner = Program("inner", (row,), (define("r", {"i": c}, op("mul", at("q", "i"), lit(2.0))),), ("r",))
    outer = program("p", [Input("x", dense(c)), S], [Cond(("y",), (dense(c),), "s", ("x",), inner, inner)], "y")
    verify(outer)
    bad = dataclasses.replace(inner, body=(define("r", {"i": c}, at("x", "i")),))
    with pytest.raises(VerifyError, match="tensor program inner, step 0, r: broken: names are defined before use"):
        verify(dataclasses.replace(outer, body=(Cond(("y",), (dense(c),), "s", ("x",), inner, bad),)))


NOT_CANONICAL = {
    "a reduction stands only at the top": [
        define("y", {"i": n}, op("neg", reduce("add", {"j": m}, x))),
        define("y", {"i": n}, Reduce("add", (Index("j", m),), x, dt.f64)),
    ],
    "sparse reads are within their pattern": [
        define("y", ij, at("A", "i", "j")),
        define("y", {"i": n}, reduce("add", {"j": m}, at("A", "i", "j"))),
        stored("y", ij, at("A", "i", "i"), "A", "i", "j"),
    ],
}


@pytest.mark.parametrize("sentence", NOT_CANONICAL)
def test_the_canonical_form_is_verified(sentence: str) -> None:
    for step in NOT_CANONICAL[sentence]:
        p = program("p", [A, X], [step], "y")
        verify(p)
        with pytest.raises(VerifyError, match=f"broken: {sentence}"):
            verify_canonical(p)
    assert {check.__name__.replace("_", " ") for check in CANONICAL} == set(NOT_CANONICAL)


@pytest.mark.parametrize("name", PROGRAMS)
def test_named_programs_are_well_formed(name: str) -> None:
    verify(PROGRAMS[name]().program)
