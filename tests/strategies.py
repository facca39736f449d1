"""Hypothesis strategies: sparse matrices in every format, and random tensor programs with arguments.

Values are small whole numbers and programs use operations that keep them whole, so that results are exact in f64 and
may be compared for equality whatever the order of summation.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st

from polyai.scalar import dtype as dt
from polyai.scalar.expr import Cast
from polyai.shapes.expr import Size, SizeExpr, symbol
from polyai.sparse.format import Format, coo, csc, csr, dcsc, dcsr
from polyai.tensor.interp import SparseValue, run
from polyai.tensor.nodes import Body, Index, Input, Pattern, Program, Scatter, TensorType, Within
from tests.programs import Case
from tests.words import at, define, dense, lit, op, reduce, sparse, stored, v, where

FORMATS = (csr, csc, coo, dcsr, dcsc)


@st.composite
def formats(draw: st.DrawFn) -> Format:
    """A format of matrices with 32-bit or 64-bit indices."""
    bits = draw(st.sampled_from([32, 64]))
    make = draw(st.sampled_from(FORMATS))
    return coo(2, bits) if make is coo else make(bits)


@st.composite
def sparse_values(
    draw: st.DrawFn, rows: int, columns: int, format: Format, dtype: Any = np.float64, low: int = -2, high: int = 2
) -> SparseValue:
    """Stored coordinates of a rows x columns matrix, sorted as `format` keeps them: often with empty and full rows, stored zeros."""
    kinds = st.sampled_from(["empty", "full", "some", "some"])
    mask = np.zeros((rows, columns), bool)
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    for row in range(rows):
        kind = draw(kinds)
        mask[row] = kind == "full" if kind != "some" else rng.random(columns) < 0.4
    order = np.nonzero(mask.T) if format.order == (1, 0) else np.nonzero(mask)
    coords = (order[1], order[0]) if format.order == (1, 0) else (order[0], order[1])
    index = np.int64 if format.index_bits == 64 else np.int32
    values = rng.integers(low, high + 1, len(coords[0])).astype(dtype)
    return SparseValue(tuple(c.astype(index) for c in coords), values, (rows, columns))


@st.composite
def sparse_matrices(draw: st.DrawFn, most: int = 6) -> tuple[Format, SparseValue]:
    """A format and a matrix in it, of any shape from 0 x 0 on."""
    format = draw(formats())
    rows, columns = draw(st.integers(0, most)), draw(st.integers(0, most))
    return format, draw(sparse_values(rows, columns, format))


@dataclass
class Builder:
    """A program that grows step by step. Every index variable has a name of its own."""

    rng: np.random.Generator
    sizes: dict[str, int]
    inputs: list[Input] = field(default_factory=list)
    arguments: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, TensorType] = field(default_factory=dict)
    body: list[Any] = field(default_factory=list)
    count: int = 0

    def index(self) -> str:
        self.count += 1
        return f"i{self.count}"

    def add_input(self, given: Input, value: Any) -> None:
        self.inputs.append(given)
        self.arguments[given.name] = value
        self.tensors[given.name] = given.type

    def add_step(self, step: Any) -> None:
        self.body.append(step)
        self.tensors[step.target] = step.type

    def one_of(self, choices: list[Any]) -> Any:
        return choices[int(self.rng.integers(len(choices)))]

    # --- bodies ---

    def expression(self, scope: dict[str, Size], depth: int, stored_at: tuple[str, ...] | None) -> Body:
        """A random f64 body. `stored_at`: index variables at which A is known to be stored; sparse reads go only there, or, if
        None, anywhere."""
        kinds = ["leaf"] if depth == 0 else ["binary", "leaf", "binary", "unary", "where", "reduce", "reduce", "index"]
        kind = self.one_of(kinds)
        below = depth - 1
        if kind == "binary":
            name = self.one_of(["add", "sub", "mul", "mul", "max", "min"])
            return op(name, self.expression(scope, below, stored_at), self.expression(scope, below, stored_at))
        if kind == "unary":
            return op(self.one_of(["neg", "abs", "sign"]), self.expression(scope, below, stored_at))
        if kind == "where":
            test = op(self.one_of(["lt", "ge", "eq", "ne"]), self.expression(scope, 0, stored_at), self.expression(scope, 0, stored_at))
            return where(test, self.expression(scope, below, stored_at), self.expression(scope, below, stored_at))
        if kind == "reduce":
            return self.reduction(scope, below, stored_at)
        if kind == "index" and scope:
            return Cast(v(self.one_of(list(scope))), dt.f64)
        return self.leaf(scope, stored_at)

    def reduction(self, scope: dict[str, Size], depth: int, stored_at: tuple[str, ...] | None) -> Body:
        extent = self.one_of([symbol(s) for s in self.sizes])
        name = self.index()
        monoids = ["add", "add"] + (["max", "min"] if self.extent(extent) else [])
        inner = self.expression({**scope, name: extent}, depth, stored_at)
        return reduce(self.one_of(monoids), {name: extent}, inner)

    def leaf(self, scope: dict[str, Size], stored_at: tuple[str, ...] | None) -> Body:
        fits = []
        for name, type in self.tensors.items():
            if type.dtype != dt.f64:
                continue
            if type.is_sparse and stored_at is not None:
                assert type.pattern is not None
                fits.append(at(name, *(stored_at[d] for d in type.pattern.dims), dtype=dt.f64))
                continue
            places = self.places(scope, type)
            if places is not None:
                fits.append(at(name, *places, dtype=dt.f64))
        if not fits or self.rng.random() < 0.15:
            return lit(float(self.rng.integers(-2, 3)), dt.f64)
        earlier = [f for f in fits if f.array.startswith("t")]
        return self.one_of(fits + 2 * earlier)

    def places(self, scope: dict[str, Size], type: TensorType) -> list[Any] | None:
        """Index variables, or gathers, that stay inside the tensor; distinct variables for a sparse one."""
        out: list[Any] = []
        for extent in type.shape:
            names = [n for n, e in scope.items() if e == extent and not (type.is_sparse and n in out)]
            gathers = [] if type.is_sparse else self.gathers(scope, extent)
            if not names and not gathers:
                return None
            out.append(self.one_of(names * 3 + gathers))
        return out

    def gathers(self, scope: dict[str, Size], extent: Size) -> list[Body]:
        """`ids_t[i]` with values below `extent`."""
        out: list[Body] = []
        for name, over in scope.items():
            ids = f"ids_{over}_{extent}"
            if ids in self.tensors:
                out.append(at(ids, name, dtype=self.tensors[ids].dtype))
        return out

    def at_stored(self, owner: str, *names: str) -> Body:
        """The element of `owner` at index variables."""
        return at(owner, *names, dtype=self.tensors[owner].dtype)

    def extent(self, size: Size) -> int:
        assert isinstance(size, SizeExpr)
        return self.sizes[str(size)]


@st.composite
def programs(draw: st.DrawFn, steps: int = 3, depth: int = 3, extents: tuple[int, ...] = (3, 4, 2, 3, 4, 1, 0)) -> Case:
    """A random program over a sparse matrix A, dense tensors and gathers, with arguments and what it means. Sizes are drawn
    from `extents`."""
    sizes = {name: draw(st.sampled_from(extents)) for name in ("n", "m", "c")}
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))  # the structure comes from one seed: shrinking it would not help
    build = Builder(rng, sizes)
    n, m, c = (symbol(s) for s in sizes)
    format = draw(formats())
    build.add_input(sparse("A", format, n, m, dtype=dt.f64), draw(sparse_values(sizes["n"], sizes["m"], format)))
    for name, shape in {"X": (m, c), "D": (n, m), "u": (n,), "w": (c,), "T": (c, n, m)}.items():
        value = rng.integers(-2, 3, tuple(sizes[str(s)] for s in shape)).astype(np.float64)
        build.add_input(Input(name, dense(*shape, dtype=dt.f64)), value)
    for over, extent in (("n", "m"), ("c", "n")):
        if sizes[extent]:
            width = draw(st.sampled_from([dt.i32, dt.i64]))
            ids = rng.integers(0, sizes[extent], sizes[over]).astype(dt.to_numpy(width))
            build.add_input(Input(f"ids_{over}_{extent}", dense(symbol(over), dtype=width)), ids)
    for number in range(draw(st.integers(1, steps))):
        _add_random_step(build, f"t{number}", depth)
    outputs = {build.body[-1].target, build.one_of(build.body).target}
    kept = tuple(s.target for s in build.body if s.target in outputs)
    program = Program("random", tuple(build.inputs), tuple(build.body), kept)
    got = run(program, build.arguments)
    return Case(program, build.arguments, {k: x.todense() if isinstance(x, SparseValue) else x for k, x in got.items()})


def _add_product(build: Builder, target: str) -> None:
    """A product of two matrices of fitting extents, one of them often the step before: chains that can be reordered."""
    if build.rng.random() < 0.5:
        _add_product(build, f"{target}p")
    matrices = [name for name, type in build.tensors.items() if type.rank == 2 and type.dtype == dt.f64]
    left = matrices[-1] if build.rng.random() < 0.7 else build.one_of(matrices)
    rows, inner = build.tensors[left].shape
    right = build.one_of([name for name in matrices if inner in build.tensors[name].shape])
    i, k, j = build.index(), build.index(), build.index()
    turned = build.tensors[right].shape[0] != inner
    columns = build.tensors[right].shape[0 if turned else 1]
    second = at(right, *((j, k) if turned else (k, j)), dtype=dt.f64)
    total = reduce("add", {k: inner}, op("mul", at(left, i, k, dtype=dt.f64), second))
    build.add_step(define(target, {i: rows, j: columns}, total))


def _add_random_step(build: Builder, target: str, depth: int) -> None:
    extents = [symbol(s) for s in build.sizes]
    kind = build.one_of(["dense", "dense", "dense", "stored", "within", "scatter", "product", "product"])
    if kind == "product":
        _add_product(build, target)
        return
    if kind == "stored":
        i, j = build.index(), build.index()
        scope: dict[str, Size] = {i: extents[0], j: extents[1]}
        straight = build.rng.random() < 0.5
        body = build.expression(scope, depth, (i, j))
        step = stored(target, scope if straight else {j: extents[1], i: extents[0]}, body, "A", i, j)
        assert isinstance(step.type.pattern, Pattern)
        build.add_step(step)
        return
    if kind == "within":
        i, k = build.index(), build.index()
        inner = build.expression({i: extents[0], k: extents[1]}, depth - 1, (i, k))
        total = reduce("add", {k: extents[1]}, inner, Within("A", (i, k)))
        build.add_step(define(target, {i: extents[0]}, op("add", total, lit(1.0, dt.f64))))
        return
    rank = int(build.rng.integers(4))
    scope = {build.index(): build.one_of(extents) for _ in range(rank)}
    if kind == "scatter":
        places = [(name, extent) for name, extent in scope.items() if build.gathers(scope, extent) or extent]
        base = define(f"{target}_base", {build.index(): e for _, e in places[:2]}, lit(1.0, dt.f64))
        build.add_step(base)
        into = tuple(build.one_of([v(name), *build.gathers(scope, extent)]) for name, extent in places[:2])
        body = build.expression(scope, depth - 1, None)
        monoid = build.one_of(["add", "max", "min"])
        build.add_step(Scatter(target, base.type, base.target, monoid, tuple(Index(k, e) for k, e in scope.items()), into, body))
        return
    build.add_step(define(target, scope, build.expression(scope, depth, None)))


