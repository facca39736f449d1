"""Loops that add to few vectors get more sums at once, and mean what they meant."""

from __future__ import annotations

import numpy as np
import pytest

from polyai.loop import build as b
from polyai.loop.interp import run
from polyai.loop.nodes import For, Kernel, Kind
from polyai.loop.passes.interleave import interleave
from polyai.loop.passes.order import lower_loops, passes
from polyai.loop.show import show_stmt
from polyai.loop.verify import verify
from polyai.loop.walks import all_stmts
from tests.loop import kernels


def before(kernel: Kernel) -> Kernel:
    """`kernel` as the pass finds it."""
    for name, change in passes(vector_bits=256, registers=16):
        if name == "interleave":
            return kernel
        kernel = change(kernel)
    raise AssertionError("there is no such pass")


def steps(kernel: Kernel) -> list[int]:
    return sorted({s.step for s in all_stmts(kernel.body) if isinstance(s, For) and s.kind is Kind.SERIAL})


@pytest.mark.parametrize("w", [1, 8, 16, 32, 41, 64])
@pytest.mark.parametrize(("rows", "density"), [(0, 0.5), (1, 1.0), (9, 0.0), (9, 0.3), (9, 1.0)])
def test_the_product_is_the_same(rows: int, density: float, w: int) -> None:
    rng = np.random.default_rng(w)
    a = kernels.csr(rows, 37, density, w)
    x, bias = rng.standard_normal((37, w)).astype(np.float32), rng.standard_normal(w).astype(np.float32)
    args = {**kernels.csr_args(a), "w": w, "X": x, "bias": bias}
    made = interleave(before(kernels.spmm()))
    verify(made)
    got = []
    for kernel in (kernels.spmm(), made, lower_loops(kernels.spmm(), 256, 16)):
        y = np.full((rows, w), np.nan, np.float32)
        assert run(kernel, {**args, "Y": y}) == 0
        got.append(y)
    np.testing.assert_allclose(got[1], got[0], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(got[2], got[0], rtol=1e-4, atol=1e-4)


def test_fewer_vectors_get_more_copies_and_many_none() -> None:
    text = show_stmt(interleave(before(kernels.spmm())).body)
    assert "step 4" in text and "step 2" in text
    assert text.count("step 4") >= 2  # one vector, and the rest under a mask


def test_loops_known_to_be_short_stay() -> None:
    found = before(kernels.spmm())
    lengths = {s.upper.name for s in all_stmts(found.body) if isinstance(s, For) and s.upper == b.var(getattr(s.upper, "name", ""))}
    assert len(steps(interleave(found, dict.fromkeys(lengths, 3)))) < len(steps(interleave(found, dict.fromkeys(lengths, 300))))


def test_a_bad_index_is_still_found() -> None:
    a = kernels.csr(3, 9, 1.0, 0)
    args = kernels.csr_args(a)
    args["A.crd1"] = args["A.crd1"].copy()
    args["A.crd1"][6] = 9
    x, bias, y = np.ones((9, 8), np.float32), np.zeros(8, np.float32), np.zeros((3, 8), np.float32)
    made = interleave(before(kernels.spmm()))
    given = {**args, "w": 8, "X": x, "bias": bias, "Y": y}
    assert run(made, given) == run(kernels.spmm(), given) != 0
