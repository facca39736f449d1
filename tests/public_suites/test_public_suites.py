"""Each fact is reproduced exactly, or is refused with a remedy and named in pending.txt, which only shrinks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

import polyai as pa
from polyai.errors import PolyAIError, UnsupportedError
from polyai.sparse import pack
from tests.public_suites import levels, results, storage
from tests.public_suites.results import Result
from tests.public_suites.storage import Stored
from tests.sparse_suite import model as oracle
from tests.sparse_suite.model import Model

LIST = Path(__file__).with_name("pending.txt")
PENDING = tuple(LIST.read_text().splitlines())


def stored(text: str, shape: tuple[int, ...], coords: Any, values: Any) -> dict[str, Any]:
    """The arrays of a tensor in the format of a fact."""
    format = levels.parse(text)
    public = getattr(pa, "SparseArray", None)
    made = public.pack(format, shape, coords, values).storage if public is not None else pack.pack(format, shape, coords, values)
    return dict(made.arrays)


def same(got: dict[str, Any], wanted: dict[str, Any]) -> None:
    for name, numbers in wanted.items():
        np.testing.assert_allclose(got[name], numbers, rtol=1e-12, err_msg=name)
        assert name == "val" or (got[name] == np.array(numbers)).all()


class DenseInstead(Exception):
    """The values are right, but lie in a dense vector where the fact has a sparse one."""


def expect(name: str, run: Any) -> None:
    """Run it; what is refused or dense instead of sparse must be named in the list, and what is named must be that."""
    try:
        run()
    except UnsupportedError as error:
        assert error.remedy, f"{name}: a refusal without a remedy: {error}"
        assert name in PENDING, f"{name} is refused: {error}"
    except DenseInstead:
        assert name in PENDING, f"{name} is dense"
    else:
        assert name not in PENDING, f"{name} works now: run python -m tests.public_suites"


@pytest.mark.parametrize("fact", storage.FACTS, ids=lambda f: f.name)
def test_storage(fact: Stored) -> None:
    coords = np.nonzero(fact.tensor)
    expect(fact.name, lambda: same(stored(fact.levels, fact.tensor.shape, coords, fact.tensor[coords]), fact.arrays))


@pytest.mark.parametrize("fact", results.FACTS, ids=lambda f: f.name)
def test_results(fact: Result) -> None:
    if fact.needs and not hasattr(pa, fact.needs):
        assert fact.name in PENDING
        return
    operands = [getattr(sp, f"{fact.kind if a.ndim == 2 else 'coo'}_array")(a) for a in fact.sparse]

    def run() -> None:
        got = pa.jit(lambda *given: fact.fn(pa, *given))(*operands, *fact.dense)
        if not fact.levels:
            got = got.toarray() if sp.issparse(got) else got
            np.testing.assert_allclose(np.ravel(got), fact.arrays["val"], rtol=1e-12)
            return
        if not sp.issparse(got):
            places = np.array(fact.arrays["crd0"])
            np.testing.assert_array_equal(np.flatnonzero(got), places)
            np.testing.assert_allclose(got[places], fact.arrays["val"], rtol=1e-12)
            raise DenseInstead
        assert got.format == fact.kind or got.ndim != 2 or fact.kind != "csc", f"two {fact.kind} matrices gave {got.format}"
        plain = got.tocoo()
        same(stored(fact.levels, got.shape, plain.coords, plain.data), fact.arrays)
        if got.format == "csr" and fact.levels == results.CSR:
            same({"pos1": got.indptr, "crd1": got.indices, "val": got.data}, fact.arrays)
        if got.format == "csc" and fact.levels == results.CSC:
            same({"pos1": got.indptr, "crd1": got.indices, "val": got.data}, fact.arrays)

    expect(fact.name, run)


@pytest.mark.parametrize("fact", results.FACTS, ids=lambda f: f.name)
def test_facts_agree_with_the_oracle(fact: Result) -> None:
    """Whether or not PolyAI has the expression yet."""
    models = [Model(a, a != 0, np.dtype(np.float64)) for a in fact.sparse]
    got = fact.fn(oracle, *models, *map(Model.dense, fact.dense))
    if not fact.levels:
        np.testing.assert_allclose(np.ravel(got.values), fact.arrays["val"], rtol=1e-12)
        return
    coords = np.nonzero(got.stored)
    same(stored(fact.levels, got.values.shape, coords, got.values[coords]), fact.arrays)


def test_there_are_many_facts_and_each_has_a_name() -> None:
    names = [f.name for f in (*storage.FACTS, *results.FACTS)]
    assert len(set(names)) == len(names) >= 110
    assert set(PENDING) <= set(names)
    indexed = [f for f in (*storage.FACTS, *results.FACTS) if any(k != "val" for k in f.arrays)]
    assert len(indexed) >= 60


def test_a_wrong_fact_is_noticed() -> None:
    fact = next(f for f in storage.FACTS if f.name == "PRINT as i:dense j:compressed")
    coords = np.nonzero(fact.tensor)
    for name, numbers in fact.arrays.items():
        wrong = {**fact.arrays, name: (*numbers[:-1], numbers[-1] + 1)}
        with pytest.raises(AssertionError):
            same(stored(fact.levels, fact.tensor.shape, coords, fact.tensor[coords]), wrong)
    with pytest.raises(PolyAIError):
        levels.parse("i:dense j:unheard_of")
