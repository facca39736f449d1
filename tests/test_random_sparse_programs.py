"""Random programs over sparse matrices, against dense NumPy: such that use what they compute more than once; with control flow, in all
formats and element types, of sizes 0 and 1, one function for all of them, with handles and `out=`."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

import polyai as pa
from polyai.errors import DTypeError, PolyAIError, ShapeError, UnsupportedError, VerifyError
from tests.random_programs import Dense, Program

N = 24
OURS = {"SUM": lambda s, axis: pa.sum(s, axis=axis), "MAX": lambda s: pa.max(s, axis=1), "TANH": pa.tanh}
NUMPY = {"SUM": lambda s, axis: s.sum(axis=axis), "MAX": lambda s: s.max(axis=1), "TANH": np.tanh}
PROGRAMS, LIMIT = 60, 0
"""How many programs each seed gives, and how many of them may be refused."""
MIXED, REFUSED = 16, 6
"""The same of programs with control flow, which may be refused for what they make and store in a loop."""


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


def flat(value: Any) -> list[Any]:
    """The leaves of a nested value."""
    if isinstance(value, dict):
        return [leaf for v in value.values() for leaf in flat(v)]
    return [leaf for v in value for leaf in flat(v)] if isinstance(value, (list, tuple)) else [value]


def agree(found: Any, wanted: Any, exact: bool, what: str) -> None:
    ours, theirs = flat(found), flat(wanted)
    assert len(ours) == len(theirs), what
    for one, other in zip(ours, theirs):
        array, other = one.toarray() if hasattr(one, "toarray") else np.asarray(one), np.asarray(other)
        if array.size or other.size:
            scale = max(1.0, float(np.abs(other[np.isfinite(other)]).max(initial=0)))
            near = 1e-9 if exact else 2e-3
            np.testing.assert_allclose(array, other, rtol=near, atol=near * scale, err_msg=what)


def test_random_programs_with_control_flow(seed: int = 7) -> None:
    refused = []
    for number in range(MIXED):
        made = Program(1000 * seed + number)
        r, rng = random.Random(number), np.random.default_rng(number)
        compiled, numpy = pa.jit(made.function(pa)), made.function(Dense)
        earlier: list[tuple[list[Any], list[Any], str]] = []
        for _ in range(2):
            given, dense = made.values(r, rng)
            what = f"{[getattr(a, 'format', '') for a in given]} {[a.shape for a in dense]} {[a.dtype for a in dense]}\n{made.text}"
            try:
                with np.errstate(all="ignore"):
                    wanted = numpy(*dense)
            except (TypeError, ValueError):
                with pytest.raises((PolyAIError, TypeError, ValueError)):
                    compiled(*given)
                continue
            exact = all(a.dtype != np.float32 for a in dense)
            try:
                with pa.options(num_threads=1 + number % 2):
                    results = [compiled(*given) for _ in range(2)]
            except (DTypeError, ShapeError):  # complex numbers have no order; a branch not taken may have no value for no elements
                continue
            except UnsupportedError as error:
                refused.append((what, error.what))
                continue
            except VerifyError as error:
                raise AssertionError(what) from error
            for found in results:
                agree(found, wanted, exact, what)
            leaves = flat(results[0])
            earlier.append((leaves, [a.toarray() if hasattr(a, "toarray") else np.array(a) for a in leaves], what))
            if all(isinstance(a, np.ndarray) for a in leaves):
                outs = tuple(np.zeros_like(a) for a in leaves)
                compiled(*given, out=outs)
                agree(list(outs), wanted, exact, what)
        for live, kept, what in earlier:  # later calls write to no earlier result
            for one, other in zip(live, kept):
                np.testing.assert_array_equal(one.toarray() if hasattr(one, "toarray") else one, other, err_msg=what)
    assert len(refused) <= REFUSED, refused
