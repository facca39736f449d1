"""Random programs over sparse matrices that use what they compute more than once, against dense NumPy."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

import polyai as pa
from polyai.errors import UnsupportedError

N = 24
OURS = {"SUM": lambda s, axis: pa.sum(s, axis=axis), "MAX": lambda s: pa.max(s, axis=1), "TANH": pa.tanh}
NUMPY = {"SUM": lambda s, axis: s.sum(axis=axis), "MAX": lambda s: s.max(axis=1), "TANH": np.tanh}
PROGRAMS, LIMIT = 60, 3
"""How many programs each seed gives, and how many of them may be refused (a mapped value that meets two walks of its operand)."""


def program(r: random.Random) -> tuple[str, list[str]]:
    """The text of a function f(A, B, x) and the formats of A and B. Steps that nobody needs are left in."""
    sparse, dense, scalars, lines = ["A", "B"], ["x"], [], []
    for number in range(r.randint(2, 6)):
        target, s, other = f"t{number}", r.choice(sparse), r.choice(sparse)
        column = r.choice((":,None", "None,:"))
        makes, text = r.choice(
            [
                *[(sparse, f"{s} @ {other}")] * 2,
                (sparse, f"{s} + {other}"),
                (sparse, f"{s} * {other}"),
                (sparse, f"{s}.T"),
                *[(sparse, f"{s} * {r.choice(dense)}[{column}]")] * 2,
                (sparse, f"{s} / (1 + abs({r.choice(scalars or ['2.0'])}))"),
                (dense, f"SUM({s}, 0)"),
                (dense, f"SUM({s}, 1)"),
                (dense, f"MAX({s})"),
                (dense, f"TANH({r.choice(dense)})"),
                (dense, f"{s} @ {r.choice(dense)}"),
                (scalars, f"SUM({s}, None)"),
            ]
        )
        lines.append(f"  {target} = {text}")
        makes.append(target)
    made = [*sparse[2:], *dense[1:], *scalars]
    outs = r.sample(made, k=min(r.randint(1, 3), len(made)))
    formats = [r.choice(("csr", "csr", "csc", "coo")) for _ in range(2)]
    return "\n".join(["def f(A, B, x):", *lines, f"  return ({', '.join(outs)},)"]), formats


def function(text: str, names: dict[str, Callable[..., Any]]) -> Callable[..., Any]:
    space: dict[str, Any] = dict(names)
    exec(text, space)
    found: Callable[..., Any] = space["f"]
    return found


@pytest.mark.parametrize("seed", range(3))
def test_random_programs_equal_numpy(seed: int) -> None:
    refused = []
    for number in range(PROGRAMS):
        r, rng = random.Random(1000 * seed + number), np.random.default_rng(1000 * seed + number)
        text, formats = program(r)
        a, b = (sp.random_array((N, N), density=0.15, format=f, rng=rng) for f in formats)
        x = rng.random(N)
        wanted = function(text, NUMPY)(a.toarray(), b.toarray(), x)
        compiled = pa.jit(function(text, OURS))
        with pa.options(num_threads=1 + number % 2):
            try:
                results = [compiled(a, b, x) for _ in range(2)]
            except UnsupportedError as error:
                refused.append((text, error.what))
                continue
        for found in results:
            for one, other in zip(found, wanted):
                dense = one.toarray() if sp.issparse(one) else one
                np.testing.assert_allclose(dense, other, rtol=1e-9, atol=1e-9, err_msg=f"{formats}\n{text}")
    assert len(refused) <= LIMIT, refused
