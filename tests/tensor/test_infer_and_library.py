"""Types follow from bodies; large dense products become library calls."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import polyai as pa
from polyai.errors import VerifyError
from polyai.scalar import dtype as dt
from polyai.tensor.interp import run
from polyai.tensor.nodes import Comprehension, Input, TensorType
from polyai.tensor.passes import canonical, fuse, infer, library
from polyai.tensor.show import show_step
from polyai.tensor.verify import verify
from tests.programs import PROGRAMS
from tests.words import at, c, define, dense, m, mul, n, program, reduce


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_types_of_named_programs_are_the_inferred_ones(name: str) -> None:
    given = PROGRAMS[name]().program
    for p in (given, canonical.run(given), fuse.run(canonical.run(given))):
        assert infer.run(p) == p
        infer.check(p)


def test_a_wrong_type_is_found_and_mended() -> None:
    p = PROGRAMS["softmax"]().program
    step = p.body[0]
    assert isinstance(step, Comprehension)
    wrong = dataclasses.replace(p, body=(dataclasses.replace(step, type=TensorType(dt.f64, step.type.shape)),))
    with pytest.raises(VerifyError, match=r"declared \[n, m\] f64, inferred \[n, m\] f32"):
        infer.check(wrong)
    assert infer.run(wrong) == p


LARGE = {"n": 2600, "m": 2700, "c": 2800}


@pytest.mark.parametrize("turned_x", [False, True])
@pytest.mark.parametrize("turned_w", [False, True])
@pytest.mark.parametrize("swapped", [False, True])
def test_a_large_product_becomes_a_library_call(turned_x: bool, turned_w: bool, swapped: bool) -> None:
    x = at("X", "k", "i") if turned_x else at("X", "i", "k")
    w = at("W", "j", "k") if turned_w else at("W", "k", "j")
    inputs = [Input("X", dense(*((c, n) if turned_x else (n, c)))), Input("W", dense(*((m, c) if turned_w else (c, m))))]
    p = program("p", inputs, [define("T", {"i": n, "j": m}, reduce("add", {"k": c}, mul(w, x) if swapped else mul(x, w)))], "T")
    out = library.run(p, LARGE)
    verify(out)
    assert show_step(out.body[0]) == f"T[n, m] f32 = extern blas.sgemm(X, W, op_a={int(turned_x)}, op_b={int(turned_w)})"
    rng = np.random.default_rng(0)
    arguments = {
        "X": rng.standard_normal((5, 3) if turned_x else (3, 5)).astype(np.float32),
        "W": rng.standard_normal((4, 5) if turned_w else (5, 4)).astype(np.float32),
    }
    np.testing.assert_allclose(run(out, arguments)["T"], run(p, arguments)["T"], rtol=1e-5, atol=1e-5)


def test_small_sparse_and_forbidden_products_stay() -> None:
    p = program(
        "p",
        [Input("X", dense(n, c)), Input("W", dense(c, m))],
        [define("T", {"i": n, "j": m}, reduce("add", {"k": c}, mul(at("X", "i", "k"), at("W", "k", "j"))))],
        "T",
    )
    assert library.run(p, LARGE, "never") == p
    assert library.run(p, {**LARGE, "n": 8}) == p
    assert library.run(p, {"n": 2600}) == p
    spmm = canonical.run(PROGRAMS["spmm_csr"]().program)
    assert library.run(spmm, LARGE) == spmm


def test_narrow_vectors_call_the_library_sooner() -> None:
    assert library.least_work(512) > library.least_work(256) == library.least_work(128)
    assert library.is_worth_a_call((620, 620, 620), library.least_work(256)) and not library.is_worth_a_call((620, 620, 620))
    assert not library.is_worth_a_call((8, 4096, 4096), library.least_work(256))


@pytest.mark.parametrize("first", [300, 620])
def test_the_choice_of_a_library_is_the_same_at_each_call(first: int) -> None:
    f = pa.jit(lambda a, b: a @ b)
    rng = np.random.default_rng(first)
    for rows in (first, first, 40, first, 40):
        a = rng.standard_normal((rows, rows))
        np.testing.assert_allclose(f(a, a), a @ a, atol=1e-9 * rows)
    assert len(f.report().kernels) <= 2
