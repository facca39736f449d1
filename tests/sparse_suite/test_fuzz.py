"""Random expressions and random sums of products, over matrices in random formats: at every level, and on the machine.

Values are small whole numbers, so results are exact whatever the order of summation. What is refused must say what to try
instead; how much is refused is counted, so that the tests cannot pass by refusing everything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import polyai as pa
from polyai import pipeline
from polyai.errors import UnsupportedError
from polyai.frontend.trace import trace
from polyai.options import Options
from polyai.tensor.nodes import types_of
from tests.frontend.helpers import dense, interpreted, sparse_value
from tests.programs import Case
from tests.sparse_suite import cases
from tests.sparse_suite import model as oracle
from tests.sparse_suite.data import Kind, Variant, arguments
from tests.sparse_suite.expressions import Expression
from tests.sparse_suite.model import Model
from tests.test_meaning import as_loops, as_statements

Tree = tuple[Any, ...]
SIZES = (0, 1, 2, 3, 5, 8, 9, 17)
SEEN: Counter[str] = Counter()
FUZZ = settings(deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])

UNARY: dict[str, Callable[[Any, Any], Any]] = {
    "neg": lambda lib, a: -a, "abs": lambda lib, a: abs(a), "relu": lambda lib, a: lib.relu(a), "double": lambda lib, a: a * 2.0,
    "turn": lambda lib, a: a.T, "square": lambda lib, a: a.power(2),
}  # fmt: skip
BINARY: dict[str, Callable[[Any, Any, Any], Any]] = {
    "add": lambda lib, a, b: a + b, "sub": lambda lib, a, b: a - b, "mul": lambda lib, a, b: a * b,
    "max": lambda lib, a, b: lib.maximum(a, b), "min": lambda lib, a, b: lib.minimum(a, b), "matmul": lambda lib, a, b: a @ b,
}  # fmt: skip
LAST: dict[str, Callable[[Any, Any, Any], Any]] = {
    "itself": lambda lib, a, x: a, "sum": lambda lib, a, x: a.sum(), "rows": lambda lib, a, x: a.sum(axis=1), "columns": lambda lib, a, x: a.sum(axis=0),
    "vector": lambda lib, a, x: a @ x, "dense": lambda lib, a, x: a.toarray(),
}  # fmt: skip


def meaning(tree: Tree, lib: Any, operands: dict[str, Any]) -> Any:
    """The value of a tree over the operands, with the functions of `lib`."""
    match tree:
        case (str(name),):
            return operands[name]
        case (name, a):
            return UNARY[name](lib, meaning(a, lib, operands))
        case (name, a, b):
            return BINARY[name](lib, meaning(a, lib, operands), meaning(b, lib, operands))
    raise AssertionError(tree)


def trees(names: tuple[str, ...], products: bool) -> st.SearchStrategy[Tree]:
    """Expressions over square matrices; those in lower case are dense and stand on the right of a product only."""
    leaves = st.sampled_from(names).map(lambda n: (n,))
    binary = [b for b in BINARY if products or b != "matmul"]
    return st.recursive(
        leaves,
        lambda below: st.one_of(
            st.tuples(st.sampled_from(list(UNARY)), below),
            st.tuples(st.sampled_from(binary), below, below),
            st.tuples(st.just("mul"), below, st.just(("d",))),
        ),
        max_leaves=5,
    )


@st.composite
def programs(draw: st.DrawFn, names: tuple[str, ...]) -> tuple[Tree, str, tuple[Kind, ...], int, str, int]:
    kinds = tuple(Kind(draw(st.sampled_from(["csr", "csc", "coo"])), index=draw(st.sampled_from(["i4", "i4", "i8"]))) for _ in names)
    order = draw(st.sampled_from(["sorted", "sorted", "unsorted"]))
    return draw(trees(names, True)), draw(st.sampled_from(list(LAST))), kinds, draw(st.sampled_from(SIZES)), order, draw(st.integers(0, 2**20))


def made(names: tuple[str, ...], kinds: tuple[Kind, ...], size: int, order: str, seed: int) -> tuple[list[Any], list[Model]]:
    """Matrices whose rows are empty, full or in between, then a dense matrix and a vector."""

    def rows(rng: np.random.Generator, shape: tuple[int, ...], number: int) -> Any:
        return rng.random(shape) < rng.choice([0.0, 0.3, 0.3, 1.0], (shape[0], 1))

    variant = Variant(f"random {seed}", rows, {"n": size}, order, zeros=seed % 2 == 0)
    return arguments(["nn"] * len(names), ["nn", "n"], kinds, variant, str(seed))


def attempt(names: tuple[str, ...], program: tuple[Tree, str, tuple[Kind, ...], int, str, int], deep: bool) -> None:
    tree, last, kinds, size, order, seed = program
    operands, models = made(names, kinds, size, order, seed)

    def fn(*given: Any) -> Any:
        return LAST[last](pa, meaning(tree, pa, {**dict(zip(names, given)), "d": given[-2]}), given[-1])

    wanted = LAST[last](oracle, meaning(tree, oracle, {**dict(zip(names, models)), "d": models[-2]}), models[-1])
    compare(fn, operands, wanted, order, f"{last} of {tree}, {list(map(str, kinds))}, size {size}, {order}, seed {seed}", deep)


def compare(fn: Callable[..., Any], operands: list[Any], wanted: Model, order: str, text: str, deep: bool) -> None:
    """The machine's result, and with `deep` that of each level's interpreter, is the oracle's."""
    try:
        got = pa.jit(fn)(*operands)
    except UnsupportedError as error:
        assert error.what and error.remedy, f"a refusal without a remedy: {error}"
        SEEN["refused"] += 1
        return
    SEEN["compiled"] += 1
    SEEN["sparse results"] += bool(sp.issparse(got))
    np.testing.assert_array_equal(dense(got), wanted.values, err_msg=text)
    if sp.issparse(got):
        coords = np.stack(got.tocoo().coords)
        assert len(np.unique(coords, axis=1).T) == coords.shape[1], f"a coordinate is stored twice: {text}"
        assert coords.shape[1] == wanted.stored.sum(), f"the pattern is wrong: {text}"
    if deep and order == "sorted":
        at_every_level(fn, operands, wanted, text)


def at_every_level(fn: Callable[..., Any], operands: list[Any], wanted: Model, text: str) -> None:
    traced = trace(fn, tuple(operands), {})
    np.testing.assert_array_equal(dense(interpreted(traced, tuple(operands), {})), wanted.values, err_msg=f"tensors: {text}")
    program, raw = traced.program, traced.arguments(tuple(operands), {})
    if not program.body or not lowers_alone(program):
        return
    case = Case(program, {k: sparse_value(v) if sp.issparse(v) else np.asarray(v) for k, v in raw.items()}, {})
    options = Options(blas="never")
    ran = []

    def watch(stage: pipeline.Stage, build: pipeline.Build, milliseconds: float) -> None:
        run = {"poly": as_statements if len(build.scops) == 1 else None, "loop": as_loops}.get(stage.form)
        alone = {i.name for i in build.program.inputs} <= set(raw) and build.program.outputs == program.outputs  # not one kernel of several
        if run is not None and alone:
            (result,) = run(case, build).values()
            np.testing.assert_array_equal(result, wanted.values, err_msg=f"after {stage.name}: {text}")
            ran.append(stage.form)

    pipeline.compile_program(program, {}, options, pipeline.target_for(options), verify=True, watch=watch)
    SEEN["at every level"] += {"poly", "loop"} <= set(ran)


def lowers_alone(program: Any) -> bool:
    """Whether the results are dense or have the pattern of an argument, so that one kernel makes them."""
    types, inputs = types_of(program), {i.name for i in program.inputs}
    return all(types[n].pattern is None or types[n].pattern.owner in inputs for n in program.outputs)


@given(programs(("A",)))
@settings(FUZZ, max_examples=70)
def test_expressions_of_one_matrix(program: Any) -> None:
    attempt(("A",), program, deep=True)


@given(programs(("A", "B")))
@settings(FUZZ, max_examples=70)
def test_expressions_of_two_matrices(program: Any) -> None:
    attempt(("A", "B"), program, deep=True)


@given(programs(("A", "B", "C")))
@settings(FUZZ, max_examples=70)
def test_expressions_of_three_matrices(program: Any) -> None:
    attempt(("A", "B", "C"), program, deep=False)


@st.composite
def sums(draw: st.DrawFn) -> tuple[str, tuple[Kind | None, ...], dict[str, int], int]:
    """An einsum over two or three operands of one to three dimensions, each sparse or dense, with any result."""
    letters = "ijkl"
    terms = [
        "".join(draw(st.lists(st.sampled_from(letters), min_size=1, max_size=3, unique=True))) for _ in range(draw(st.sampled_from([2, 2, 2, 3])))
    ]
    present = sorted(set("".join(terms)))
    out = "".join(draw(st.lists(st.sampled_from(present), max_size=3, unique=True)))
    kinds = tuple(
        None if draw(st.booleans()) and n else Kind(draw(st.sampled_from(["csr", "csc", "coo"])) if len(t) == 2 else "coo") for n, t in enumerate(terms)
    )
    sizes = {s: draw(st.sampled_from([0, 1, 2, 3, 4, 7])) for s in letters}
    return f"{','.join(terms)}->{out}", kinds, sizes, draw(st.integers(0, 2**20))


@given(sums())
@settings(FUZZ, max_examples=120)
def test_sums_of_products(drawn: tuple[str, tuple[Kind | None, ...], dict[str, int], int]) -> None:
    text, kinds, sizes, seed = drawn
    terms = text.split("->")[0].split(",")
    sparse = [n for n, k in enumerate(kinds) if k is not None]
    order = [*sparse, *(n for n in range(len(terms)) if n not in sparse)]
    variant = Variant(f"random {seed}", lambda rng, shape, number: rng.random(shape) < 0.4, sizes)
    shapes, rest = [terms[n] for n in sparse], [terms[n] for n in order[len(sparse) :]]
    given_, models = arguments(shapes, rest, [k for k in kinds if k is not None], variant, text)
    back = [order.index(n) for n in range(len(terms))]

    def fn(*operands: Any) -> Any:
        return pa.einsum(text, *(operands[n] for n in back))

    wanted = oracle.einsum(text, *(models[n] for n in back))
    try:
        got = pa.jit(fn)(*given_)
    except UnsupportedError as error:
        assert error.what and error.remedy, f"a refusal without a remedy: {error}"
        SEEN["sums refused"] += 1
        return
    SEEN["sums compiled"] += 1
    np.testing.assert_array_equal(dense(got), wanted.values, err_msg=f"{text} {list(map(str, kinds))} {sizes} seed {seed}")
    if sp.issparse(got):
        expression = Expression(text, "sums", tuple(shapes), tuple(rest), fn, "any")
        group = cases.Group(expression, tuple(k for k in kinds if k is not None))
        cases.check(group, variant, got, wanted)


def test_enough_was_compiled() -> None:
    """Of the tests above, when they ran in this process."""
    if SEEN["compiled"] + SEEN["refused"] >= 150:
        assert SEEN["compiled"] >= 60 and SEEN["at every level"] >= 30 and SEEN["sparse results"] >= 10, SEEN
    if SEEN["sums compiled"] + SEEN["sums refused"] >= 100:
        assert SEEN["sums compiled"] >= 20, SEEN


@pytest.mark.parametrize("out", ["ijl", "lij", "ilj"])
@pytest.mark.parametrize("n", [0, 1, 5])
def test_a_merge_below_dense_loops(n: int, out: str) -> None:
    """The loops around a merge are bound by conditions on how long it is, which is not known before it has run."""
    rng = np.random.default_rng(n)
    a, b = (sp.random_array((n,), density=0.6, format="coo", rng=rng) for _ in range(2))
    x = rng.standard_normal((2, 3))
    got = pa.jit(lambda a, x, b: pa.einsum(f"l,ij,l->{out}", a, x, b))(a, x, b)
    np.testing.assert_allclose(dense(got), np.einsum(f"l,ij,l->{out}", a.toarray(), x, b.toarray()))
