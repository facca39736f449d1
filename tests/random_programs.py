"""Random programs over sparse matrices, with control flow, as the text of a function over a namespace: ours or dense NumPy."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp

import polyai as pa
from polyai.sparse import format as fm
from tests.control_flow import ControlFlow

Dims = tuple[str, ...]
SIZES = (0, 1, 2, 3, 7, 16, 24)
DTYPES: tuple[Any, ...] = (*[np.float64] * 5, np.float32, np.int32, np.int64, np.complex128, np.bool_)
FORMATS = ("csr", "csr", "csr", "csc", "csc", "coo", "bsr", "dia", "lil", "ell", "dcsr", "wide", "unsorted", "zeros")


class Dense(ControlFlow):
    """The functions of the programs over dense NumPy arrays."""

    sum, max, min, mean = staticmethod(np.sum), staticmethod(np.max), staticmethod(np.min), staticmethod(np.mean)
    any, all, argmax, count_nonzero = staticmethod(np.any), staticmethod(np.all), staticmethod(np.argmax), staticmethod(np.count_nonzero)
    abs, tanh, sign, conj, sqrt = staticmethod(np.abs), staticmethod(np.tanh), staticmethod(np.sign), staticmethod(np.conj), staticmethod(np.sqrt)
    maximum, minimum, where, sort, cumsum = (staticmethod(f) for f in (np.maximum, np.minimum, np.where, np.sort, np.cumsum))
    tril, triu, diagonal, trace, vstack = (staticmethod(f) for f in (np.tril, np.triu, np.diagonal, np.trace, np.vstack))

    @staticmethod
    def toarray(x: Any) -> Any:
        return x


class Program:
    """A random program: `text`, and by name of an argument its kind (matrix, vector, rows) and its dimensions."""

    def __init__(self, seed: int) -> None:
        self.r = random.Random(seed)
        self.dims = ["n", "m"] if self.r.random() < 0.7 else ["n"]
        self.matrices = [(name, (self.r.choice(self.dims), self.r.choice(self.dims))) for name in "AB"]
        self.vectors: list[tuple[str, Dims]] = [("x" if d == "n" else "y", (d,)) for d in self.dims]
        self.dense: list[tuple[str, Dims]] = []
        self.numbers: list[tuple[str, Dims]] = []
        self.arguments: dict[str, tuple[str, Dims]] = {name: ("matrix", d) for name, d in self.matrices}
        self.arguments |= {name: ("vector", d) for name, d in self.vectors}
        self.lines: list[str] = []
        steps = (self._merge, self._map, self._scale, self._scale, self._reduce, self._multiply, self._flow, self._flow, self._pick, self._own, self._vector)
        for _ in range(self.r.randint(2, 5)):
            self.r.choice(steps)(*self._matrix())
        self.text = self._function()

    def _matrix(self) -> tuple[str, str, str]:
        name, (rows, columns) = self.r.choice(self.matrices[-3:])
        return name, rows, columns

    def _put(self, pool: list[tuple[str, Any]], dims: Dims, text: str) -> None:
        pool.append((f"t{len(self.lines)}", dims))
        self.lines.append(f"{pool[-1][0]} = {text}")

    def _merge(self, a: str, p: str, q: str) -> None:
        op = self.r.choice(("@", "@", "+", "-", "*", "P.maximum", "P.minimum"))
        wanted = [(b, d) for b, d in self.matrices if (d[0] == q if op == "@" else d == (p, q))] or [(f"{a}.T", (q, p))]
        b, d = self.r.choice(wanted)
        self._put(self.matrices, (p, d[1] if op == "@" else q), f"{op}({a}, {b})" if op[0] == "P" else f"{a} {op} {b}")

    def _map(self, a: str, p: str, q: str) -> None:
        text = self.r.choice(("{}.T", "{}.T", "P.abs({})", "{} * 2", "P.tanh({})", "-{}", "P.tril({})", "P.triu({}, 1)", "{} != 0", "P.sqrt(P.abs({}))", "P.conj({})"))
        self._put(self.matrices, (q, p) if text == "{}.T" else (p, q), text.format(a))

    def _scale(self, a: str, p: str, q: str) -> None:
        d, at = self.r.choice(((p, ":, None"), (q, "None, :")))
        v = self.r.choice([v for v, dims in self.vectors if dims == (d,)] or [f"P.sum({a}, axis={1 if d == p and at[0] == ':' else 0})"])
        self._put(self.matrices, (p, q), self.r.choice((f"{a} * {v}[{at}]", f"{a} / (1 + P.abs({v}))[{at}]")))

    def _own(self, a: str, p: str, q: str) -> None:
        text = self.r.choice(("{0} / (1 + P.abs(P.sum({0}, axis=1)))[:, None]", "{0} / (1 + P.abs(P.sum({0})))", "{0} * P.max({0}, axis=1)[:, None]"))
        self._put(self.matrices, (p, q), text.format(a))

    def _reduce(self, a: str, p: str, q: str) -> None:
        f, axis = self.r.choice(("sum", "max", "min", "mean", "any", "all", "argmax", "count_nonzero")), self.r.choice((0, 1, None))
        if axis is None:
            self._put(self.numbers, (), f"P.{f}({a})")
        else:
            self._put(self.vectors, ((p, q)[1 - axis],), f"P.{f}({a}, axis={axis})")

    def _multiply(self, a: str, p: str, q: str) -> None:
        self._put(self.vectors, (p,), self._vector_of(p))
        if self.r.random() < 0.3:
            self._put(self.dense, (p, q), f"P.toarray({a}) * 2")

    def _vector(self, a: str, p: str, q: str) -> None:
        v, d = self.r.choice(self.vectors)
        self._put(self.vectors, d, self.r.choice(("P.tanh({0})", "{0} * {0}", "P.cumsum({0})", "P.where({0} > 0.5, {0}, 0)", "P.sort({0})")).format(v))

    def _pick(self, a: str, p: str, q: str) -> None:
        if p in self.dims and self.r.random() < 0.5:
            self.arguments[f"rows_{p}"] = ("rows", (p,))
            self._put(self.matrices, (f"rows_{p}", q), f"{a}[rows_{p}]")
        else:
            self._put(self.matrices, (p, q), f"{a}[{self.r.choice(('::-1', ':, ::-1'))}]")

    def _vector_of(self, d: str, state: str = "") -> str:
        """An expression of a vector of this dimension; in a loop, of its state too."""
        known = [(state, (d,))] * 3 * bool(state) + self.vectors
        found = [v for v, dims in known if dims == (d,)]
        for a, (p, q) in self.matrices:
            found += [f"({a} @ {v})" for v, dims in known if p == d and dims == (q,)] + [f"({a}.T @ {v})" for v, dims in known if q == d and dims == (p,)]
            found += [f"P.sum({a}, axis=1)"] * (p == d) + [f"P.max({a}, axis=0)"] * (q == d)
            if state and p == d:
                found += [f"P.sum(({a} + {b}) * {a}, axis=1)" for b, other in self.matrices if other == (p, q)]
        text = self.r.choice(found)
        return f"P.tanh({text})" if self.r.random() < 0.3 else text

    def _flow(self, a: str, p: str, q: str) -> None:
        d, times = self.r.choice(self.dims), self.r.choice((0, 1, 2, 3))
        first, inner = self._vector_of(d), self._vector_of(d, "z")
        number = self.r.choice([n for n, _ in self.numbers] + [f"P.sum({v})" for v, _ in self.vectors] + [f"P.sum({a})"])
        text = self.r.choice(
            (
                f"P.cond({number} > 1, lambda: {first} * 1.0, lambda: {self._vector_of(d)} * 1.0)",
                f"P.fori_loop(0, {times}, lambda i, z: {inner} * 0.5, {first} * 1.0)",
                f"P.while_loop(lambda s: s[1] < {times}, lambda s: ((lambda z: {inner} * 0.5)(s[0]), s[1] + 1), ({first} * 1.0, 0))[0]",
            )
        )
        self._put(self.vectors, (d,), text)

    def _function(self) -> str:
        made = [name for pool in (self.matrices, self.vectors, self.dense, self.numbers) for name, _ in pool if name not in self.arguments]
        outs = self.r.sample(made, k=min(self.r.randint(1, 4), len(made)))
        back = self.r.choice((f"({', '.join(outs)},)", f"[{outs[0]}, {{'last': ({outs[-1]}, {', '.join(outs)})}}]"))
        return "\n  ".join((f"def f(P, {', '.join(self.arguments)}):", *self.lines, f"return {back}"))

    def function(self, namespace: Any) -> Callable[..., Any]:
        """The program over a namespace."""
        space: dict[str, Any] = {}
        exec(self.text, space)
        body = f"lambda {', '.join(self.arguments)}: f(P, {', '.join(self.arguments)})"
        found: Callable[..., Any] = eval(body, {"f": space["f"], "P": namespace})
        return found

    def values(self, r: random.Random, rng: np.random.Generator) -> tuple[list[Any], list[Any]]:
        """Arguments of random sizes, types and formats; the same for dense NumPy."""
        sizes = {d: r.choice(SIZES) for d in self.dims}
        dtype = r.choice(DTYPES)
        given, dense = [], []
        for kind, dims in self.arguments.values():
            shape = tuple(sizes[d] for d in dims)
            if kind == "matrix":
                one, other = sparse(rng, shape, dtype, r.choice(FORMATS), r.choice((0, 0.1, 0.3, 1.0)))
            elif kind == "rows":
                one = other = rng.integers(0, max(shape[0], 1), r.choice((0, 1, 5)) if shape[0] else 0)
            else:
                one = other = numbers(rng, shape, dtype)
            given.append(one)
            dense.append(other)
        return given, dense


def numbers(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> Any:
    """Small numbers that f32 holds exactly."""
    whole = rng.integers(-3, 4, shape)
    if np.dtype(dtype).kind == "c":
        return ((whole + 1j * rng.integers(-3, 4, shape)) / 4).astype(dtype)
    return (whole / 4 if np.dtype(dtype).kind == "f" else whole).astype(dtype)


def sparse(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any, form: str, density: float) -> tuple[Any, Any]:
    """A sparse matrix and the dense one."""
    where = rng.random(shape) < density
    dense = np.where(where, numbers(rng, shape, dtype), np.zeros((), dtype)).astype(dtype)
    if form == "zeros":
        return sp.csr_array(sp.coo_array((dense[np.nonzero(where)], np.nonzero(where)), shape=shape)), dense
    if form in ("ell", "dcsr"):
        return pa.SparseArray.from_dense(dense, fm.ell() if form == "ell" else fm.dcsr()), dense
    rows = sp.csr_array(dense)
    if form == "wide":
        rows.indices, rows.indptr = rows.indices.astype(np.int64), rows.indptr.astype(np.int64)
    elif form == "unsorted":
        for i in range(shape[0]):
            row = slice(rows.indptr[i], rows.indptr[i + 1])
            rows.indices[row], rows.data[row] = rows.indices[row][::-1].copy(), rows.data[row][::-1].copy()
        rows = sp.csr_array((rows.data, rows.indices, rows.indptr), shape=shape)
    elif form == "bsr" and min(shape):
        return sp.bsr_array(rows, blocksize=(2 - shape[0] % 2, 2 - shape[1] % 2)), dense
    elif form not in ("csr", "bsr") and min(shape):
        return rows.asformat(form), dense
    return rows, dense
