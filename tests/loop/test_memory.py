"""The formula for scratch memory against what a call takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

import polyai as pa
from polyai import pipeline
from polyai.calls.engine import runtime
from polyai.loop.memory import THREADS, larger, peak, show
from polyai.options import current
from polyai.runtime.arena import LEAST
from polyai.shapes import expr as sx


def x(*shape: int) -> Any:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def block(h: Any, w: Any) -> Any:
    q, k, v = h @ w, h @ (w * 2), h @ (w + 1)
    return pa.softmax(q @ k.T) @ v + h


PROGRAMS: dict[str, tuple[Callable[..., Any], Callable[[int], tuple[Any, ...]]]] = {
    "two products": (lambda a, b, c: pa.relu(a @ b) @ c, lambda n: (x(n, 64), x(64, 300), x(300, 20))),
    "attention": (block, lambda n: (x(n, 32), x(32, 32))),
    "sums of sums": (lambda a: (a / a.sum(axis=0)) / (a.sum(axis=1)[:, None] + 1), lambda n: (abs(x(n, 50)) + 1,)),
    "a loop": (lambda a: pa.fori_loop(0, 3, lambda i, s: s @ s / 100, a), lambda n: (x(n, n),)),
    "a branch": (lambda a: pa.cond(a.sum() > 0, lambda a: (a @ a.T) @ a, lambda a: a * 2, a), lambda n: (abs(x(n, 80)),)),
    "sparse": (lambda s, a: pa.softmax(s @ (a @ a.T)), lambda n: (sp.eye_array(n, format="csr", dtype=np.float32), x(n, 16))),
}


@pytest.mark.parametrize("name", list(PROGRAMS))
@pytest.mark.parametrize("threads", [1, 2])
def test_the_formula_is_what_a_call_takes(name: str, threads: int, tmp_path: Path) -> None:
    fn, make = PROGRAMS[name]
    with pa.options(cache_dir=str(tmp_path), num_threads=threads, blas="never"):
        f = pa.jit(fn)
        f(*make(130))
        variant = f._made[0]
        _, hints, _ = variant.key_for(variant.traced.program, variant.traced.hints, current())  # as the kernel was compiled
        build = pipeline.compile_program(variant.traced.program, hints, current(), pipeline.target_for(current()), until="tidy")
        formula = peak(build.loops)
        for n in (130, 257, 600):
            args = make(n)
            values = {**variant.traced.values(variant.traced.arguments(args, {})), THREADS: threads}
            runtime().arena.trim()
            f(*args)
            said, taken = sx.evaluate(formula, values), runtime().arena.held
            if said > LEAST:
                assert abs(taken - said) <= 0.02 * taken, (show(formula), said, taken)
            else:
                assert taken <= LEAST
        assert "bytes" in f.explain(*make(130))["memory"] or formula == 0


def test_the_larger_of_two_sizes() -> None:
    n, m = sx.symbol("n"), sx.symbol("m")
    assert larger(n, n + m) == n + m and larger(2 * n, n) == 2 * n
    assert larger(n, m) == sx.maximum(n, m) and larger(3, n + 3) == n + 3 and larger(n * m, 0) == n * m


def test_arrays_that_are_never_alive_together_share_memory(tmp_path: Path) -> None:
    def chain(a: Any, w: Any) -> Any:
        for _ in range(5):
            a = pa.relu(a @ w)
        return a

    def grows(a: Any, v: Any, w: Any) -> Any:
        return ((a @ v) @ v.T) @ w @ w.T

    with pa.options(cache_dir=str(tmp_path), num_threads=1, blas="never"):
        f, g = pa.jit(chain), pa.jit(grows)
        a, w = x(200, 32), x(32, 32) / 6
        want = a.astype(np.float64)
        for _ in range(5):
            want = np.maximum(want @ w, 0)
        np.testing.assert_allclose(f(a, w), want, rtol=1e-3, atol=1e-4)
        assert f.explain(a, w)["memory"].splitlines()[-1] == "at most 128*((4*a_d0*a_d1 + 63) // 64) bytes"  # two of four temporaries
        v, w = x(32, 16) / 6, x(32, 48) / 6
        np.testing.assert_allclose(g(a, v, w), a.astype(np.float64) @ v @ v.T @ w @ w.T, rtol=1e-3, atol=1e-3)
