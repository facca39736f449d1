"""Random programs as users of scipy.sparse write them give what they give on SciPy's arrays: values, types, which results are sparse.

Many run in the interpreter of tensor programs, some are compiled. `pytest --fuzz N tests/test_scipy_programs.py` tries N more of each.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

import polyai as pa
from polyai.errors import DTypeError, IndexOutOfRangeError, PolyAIError, ScheduleError, ShapeError, UnsupportedError, VerifyError
from polyai.frontend.trace import trace
from polyai.tensor.interp import SparseValue
from tests.frontend.helpers import interpreted
from tests.scipy_programs import Program, Scipy, full

INTERPRETED, COMPILED = 100, 8
QUIRKS = ("lil", "dok", "dia", "coo", "bsr")
"""Formats of which SciPy computes some types in ways of its own: whole numbers halved stay whole in LIL and DOK, DIA and COO count in i32."""


def text_of(program: Program, given: list[Any]) -> str:
    operands = (f"{name}: {getattr(a, 'format', '')} {a.dtype}{list(a.shape)}" for name, a in zip(program.arguments, given))
    return f"{', '.join(operands)}\n{program.text}"


def known_of(error: Exception) -> bool:
    """Whether a refusal is one of those that the documentation names."""
    if isinstance(error, (VerifyError, ScheduleError)) or "report this" in str(error):
        return False
    return isinstance(error, (DTypeError, IndexOutOfRangeError, ShapeError, UnsupportedError)) and bool(error.what)


def tolerance(program: Program, given: list[Any]) -> float:
    narrow = {np.dtype(t) for t in (np.float32, np.complex64, np.float16, np.int16, np.int8, np.uint8, np.bool_)}
    if any(a.dtype == np.float16 or a.dtype.itemsize == 1 for a in given):
        return 3e-2
    return 1e-4 if any(a.dtype in narrow for a in given) or "float32" in program.text else 1e-9


def compare(found: Any, wanted: Any, near: float, what: str) -> None:
    if isinstance(found, SparseValue):
        coords = np.stack(found.coords)
        is_sparse, array = True, found.todense()
    else:
        coords = np.stack(found.tocoo().coords) if sp.issparse(found) else np.zeros((1, 0))
        is_sparse, array = sp.issparse(found), np.asarray(full(found))
    assert len(np.unique(coords, axis=1).T) == coords.shape[1], f"a coordinate is stored twice: {what}"
    other = np.asarray(full(wanted))
    assert is_sparse == sp.issparse(wanted), f"{'sparse' if is_sparse else 'dense'}, unlike SciPy's: {what}"
    assert array.size == other.size, f"{array.shape} instead of {other.shape}: {what}"
    array = array.reshape(other.shape).astype(np.complex128)
    scale = max(1.0, float(np.abs(other[np.isfinite(other)]).max(initial=0)))
    np.testing.assert_allclose(array, other.astype(np.complex128), rtol=near, atol=near * scale, err_msg=what)


def in_order(value: Any) -> Any:
    """A copy whose rows are in order: SciPy's comparisons put a matrix in order in place, under results that share its indices."""
    copied = value.copy()
    if getattr(copied, "format", "") in ("csr", "csc", "bsr"):
        copied.has_sorted_indices = False
        copied.sort_indices()
    return copied


def attempts(first: int, count: int, run: Callable[[Any, list[Any]], Any]) -> tuple[int, list[str]]:
    """How many results of `count` programs equal SciPy's, and what was refused that SciPy computes."""
    good, refused = 0, []
    for seed in range(first, first + count):
        program, r, rng = Program(seed), random.Random(seed), np.random.default_rng(seed)
        given = program.values(r, rng)
        what = f"seed {seed}: {text_of(program, given)}"
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            try:
                wanted = program.function(Scipy)(*(in_order(a) for a in given))
                [full(w) for w in wanted]
            except Exception:  # much is missing in some of SciPy's formats
                wanted = None
            try:
                found = run(program.function(pa), given)
            except PolyAIError as error:
                assert known_of(error), f"{error}\n{what}"
                refused += [what] * (wanted is not None)
                continue
            except (TypeError, ValueError, IndexError) as error:
                assert wanted is None, f"{error!r}\n{what}"
                continue
        odd = any(getattr(a, "format", "") in QUIRKS for a in given)
        for one, other in zip(found, wanted or ()):
            if odd and ("/ 2" in program.text or "* 0.5" in program.text):
                continue
            compare(one, other, tolerance(program, given), what)
            good += 1
    return good, refused


def more(request: pytest.FixtureRequest) -> Iterator[tuple[int, int]]:
    """The first seed and the number of programs of further runs."""
    extra = int(request.config.getoption("--fuzz"))
    return iter([(1_000_000, extra)] if extra else [])


def test_programs_in_the_interpreter(request: pytest.FixtureRequest) -> None:
    def run(f: Any, given: list[Any]) -> Any:
        return interpreted(trace(f, tuple(given), {}), tuple(given), {})

    good, refused = attempts(0, INTERPRETED, run)
    assert good > INTERPRETED and len(refused) < INTERPRETED // 8, refused
    for first, count in more(request):
        attempts(first, count, run)


def test_programs_compiled(request: pytest.FixtureRequest) -> None:
    good, _ = attempts(100, COMPILED, lambda f, given: pa.jit(f)(*given))
    assert good >= COMPILED
    for first, count in more(request):
        attempts(first, count, lambda f, given: pa.jit(f)(*given))
