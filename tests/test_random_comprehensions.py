"""Random comprehensions over dense arrays and sparse matrices of every format: compiled as they are, and right to the last bit.

Values are small whole numbers and operations keep them whole, so the order of summation does not matter in f64. What is
computed may not take another way: no library call, no conversion of a format, nothing refused.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import polyai as pa
from polyai import pipeline
from polyai.options import Options
from polyai.scalar import dtype as dt
from polyai.shapes.expr import Size, symbol
from polyai.sparse.format import coo, csc, csr
from polyai.tensor.interp import SparseValue, run
from polyai.tensor.nodes import Body, Input, Program, Reduce
from polyai.tensor.verify import verify
from polyai.term.node import walk
from tests.programs import Case
from tests.strategies import Builder
from tests.test_meaning import as_code
from tests.words import define, dense, lit, op, reduce, sparse, stored

SEEDS, EACH = range(12), 40
SIZES = (0, 1, 2, 3, 4, 5, 7, 8, 9, 17)


class Mixed(Builder):
    """Bodies over several sparse matrices. Factors of one product, operands of one maximum and elements of one such reduction
    hold one of them at most: the intersection and the union of two patterns are not compiled."""

    sparse_here = True
    alone = False

    def expression(self, scope: dict[str, Size], depth: int, stored_at: tuple[str, ...] | None) -> Body:
        if depth and self.rng.random() < 0.5:
            name = self.one_of(["add", "add", "sub", "mul", "mul", "max", "min"])
            left = self.expression(scope, depth - 1, stored_at)
            kept = self.sparse_here
            if (self.alone or name not in ("add", "sub")) and self.reads_sparse(left):
                self.sparse_here = False
            right = self.expression(scope, depth - 1, stored_at)
            self.sparse_here = kept
            return op(name, left, right)
        if depth and self.rng.random() < 0.4:
            return self.reduction(scope, depth - 1, stored_at)
        if depth and self.rng.random() < 0.3:
            return op(self.one_of(["neg", "abs", "sign"]), self.expression(scope, depth - 1, stored_at))
        return self.leaf(scope, stored_at)

    def reduction(self, scope: dict[str, Size], depth: int, stored_at: tuple[str, ...] | None) -> Body:
        extent, name = self.one_of([symbol(s) for s in self.sizes]), self.index()
        monoid = self.one_of(["add", "add", "max", "min"] if self.extent(extent) else ["add"])
        kept, self.alone = self.alone, self.alone or monoid != "add"
        inner = self.expression({**scope, name: extent}, depth, stored_at)
        self.alone = kept
        return reduce(monoid, {name: extent}, inner)

    def leaf(self, scope: dict[str, Size], stored_at: tuple[str, ...] | None) -> Body:
        found = super().leaf(scope, stored_at)
        for _ in range(4):
            if self.sparse_here and not self.reads_sparse(found):
                found = super().leaf(scope, stored_at)
        while not self.sparse_here and self.reads_sparse(found):
            found = super().leaf(scope, stored_at)
        return found

    def term(self, scope: dict[str, Size]) -> Body:
        """A sum of products of one matrix's elements with something dense; its indices are in scope or summed over."""
        name, over, at_ = self.one_of(["A", "B", "S"]), {}, []
        for extent in self.tensors[name].shape:
            fits = [i for i, e in scope.items() if e == extent and i not in at_]
            if not fits or self.rng.random() < 0.3:
                over[self.index()] = extent
                fits = [list(over)[-1]]
            at_.append(self.one_of(fits))
        kept, self.sparse_here = self.sparse_here, False
        other = self.expression({**scope, **over}, 2, None)
        self.sparse_here = kept
        body = op("mul", self.at_stored(name, *at_), other)
        return reduce("add", over, body) if over else body

    def reads_sparse(self, body: Body) -> bool:
        return any(self.tensors[n.array].is_sparse for n in walk(body) if hasattr(n, "array"))


def matrix(rng: np.random.Generator, rows: int, columns: int, order: tuple[int, int], index: Any) -> SparseValue:
    """Coordinates sorted by `order`; some rows are empty, some full, some zeros are stored."""
    share = rng.choice([0.0, 0.2, 0.5, 1.0], (rows, 1))
    r, c = np.nonzero(rng.random((rows, columns)) < share)
    by = np.lexsort((r, c) if order == (1, 0) else (c, r))
    values = rng.integers(-2, 3, len(r)).astype(np.float64)
    return SparseValue((r[by].astype(index), c[by].astype(index)), values, (rows, columns))


def random_case(seed: int) -> Case:
    """One comprehension of 1 to 4 dimensions, or one along the pattern of a matrix, with arguments."""
    rng = np.random.default_rng(seed)
    sizes = {name: int(rng.choice(SIZES)) for name in ("n", "m", "c", "d")}
    build = Mixed(rng, sizes)
    n, m, c, d = (symbol(s) for s in sizes)
    for name, (rows, columns) in {"A": (n, m), "B": (m, c), "S": (n, n)}.items():
        bits, make = int(rng.choice([32, 64])), (csr, csc, coo)[int(rng.integers(3))]
        format = coo(2, bits) if make is coo else make(bits)
        value = matrix(rng, build.extent(rows), build.extent(columns), (1, 0) if make is csc else (0, 1), np.int64 if bits == 64 else np.int32)
        build.add_input(sparse(name, format, rows, columns, dtype=dt.f64), value)
    for name, shape in {"X": (m, c), "D": (n, m), "Q": (n, d), "u": (n,), "w": (c,), "T": (c, n, m), "s": ()}.items():
        value = rng.integers(-2, 3, tuple(build.extent(s) for s in shape)).astype(np.float64)
        build.add_input(Input(name, dense(*shape, dtype=dt.f64)), value)
    for over, extent in (("n", "m"), ("c", "n"), ("d", "c")):
        if sizes[extent]:
            width = (dt.i32, dt.i64)[int(rng.integers(2))]
            ids = rng.integers(0, sizes[extent], sizes[over]).astype(dt.to_numpy(width))
            build.add_input(Input(f"ids_{over}_{extent}", dense(symbol(over), dtype=width)), ids)
    if rng.random() < 0.2:
        i, j = build.index(), build.index()
        owner, extents = build.one_of([("A", (n, m)), ("B", (m, c)), ("S", (n, n))])
        factor = build.expression(dict(zip((i, j), extents)), 2, None) if rng.random() < 0.3 else lit(2.0, dt.f64)
        build.sparse_here = False
        body = op("add", build.at_stored(owner, i, j), build.expression(dict(zip((i, j), extents)), 2, None))
        step = stored("Y", dict(zip((i, j), extents)), op("mul", body, factor) if not build.reads_sparse(factor) else body, owner, i, j)
    else:
        rank = int(rng.integers(1, 5))
        scope: dict[str, Size] = {build.index(): build.one_of([n, m, c, d]) for _ in range(rank)}
        body = build.expression(scope, 3, None)
        if rng.random() < 0.5:
            body = build.term(scope)
            for _ in range(int(rng.integers(3))):
                body = op(build.one_of(["add", "sub"]), body, build.term(scope))
        step = define("Y", scope, body)
    used = {a.array for a in walk(step.body) if hasattr(a, "array")} | {w.tensor for w in step.within}
    shown = {str(s) for i in build.inputs if i.name in used for s in i.type.shape}
    wanted = {str(e) for e in step.type.shape} | {str(i.extent) for r in walk(step.body) if isinstance(r, Reduce) for i in r.over}
    inputs = [i for i in build.inputs if i.name in used]
    for missing in sorted(wanted):  # every size is the extent of some argument
        if missing in shown:
            continue
        extra = next(i for i in build.inputs if i not in inputs and not i.type.is_sparse and missing in map(str, i.type.shape))
        inputs.append(extra)
        shown |= set(map(str, extra.type.shape))
    program = Program("random", tuple(inputs), (step,), ("Y",))
    verify(program)
    arguments = {i.name: build.arguments[i.name] for i in inputs}
    got = run(program, arguments)["Y"]
    return Case(program, arguments, {"Y": got.todense() if isinstance(got, SparseValue) else got})


@pytest.mark.parametrize("seed", SEEDS)
def test_random_comprehensions(seed: int) -> None:
    before = pa.stats()
    options = Options()
    for number in range(EACH):
        case = random_case(1000 * seed + number)
        build = pipeline.compile_program(case.program, {}, options, pipeline.target_for(options), verify=number % 5 == 0)
        got = as_code(case, build, 1 + number % 2)["Y"]
        np.testing.assert_array_equal(got, case.expected["Y"], err_msg=f"random_case({1000 * seed + number})")
    after = pa.stats()
    assert [after[k] - before[k] for k in ("externs", "conversions")] == [0, 0]


def test_the_comprehensions_are_of_many_kinds() -> None:
    """The generator keeps its promise: every rank, every format, sums in sums, gathers, several matrices."""
    ranks, formats, nested, gathers, several, sums = set(), set(), 0, 0, 0, 0
    for seed in SEEDS:
        for number in range(EACH):
            program = random_case(1000 * seed + number).program
            (step,) = program.body
            reduces = [x for x in walk(step.body) if isinstance(x, Reduce)]
            ranks.add(len(step.indices))
            sparse_ones = [i for i in program.inputs if i.type.format is not None]
            formats |= {(i.type.format.name, i.type.format.index_bits) for i in sparse_ones if i.type.format}
            nested += any(isinstance(y, Reduce) for x in reduces for y in walk(x.body))
            gathers += any(i.name.startswith("ids") for i in program.inputs)
            several += len(sparse_ones) > 1
            sums += bool(reduces)
    assert ranks == {1, 2, 3, 4} and len(formats) == 6
    assert len(SEEDS) * EACH >= 300 and nested > 40 and gathers > 40 and several > 40 and sums > 150


VARIANTS = {
    "isl": Options(scheduler="isl"), "isl in narrow vectors": Options(scheduler="isl", vector_bits=256), "scalar": Options(vector_bits=64),
    "narrow": Options(vector_bits=128),
}  # fmt: skip


@pytest.mark.parametrize("name", list(VARIANTS))
def test_other_schedules_and_widths(name: str) -> None:
    options = VARIANTS[name]
    for number in range(40):
        case = random_case(500_100 + number)
        hints = dict.fromkeys(("n", "m", "c", "d"), (3, 40, 3000)[number % 3])
        build = pipeline.compile_program(case.program, hints, options, pipeline.target_for(options), verify=True)
        np.testing.assert_array_equal(as_code(case, build, 2)["Y"], case.expected["Y"], err_msg=f"random_case({500_100 + number})")
