"""Random programs as users of scipy.sparse write them: operators and methods of sparse arrays, run as they are on SciPy's and compiled.

A program is the text of a function over one to four sparse operands, vectors, a dense matrix and an index array. What SciPy has as
functions (stacks, products by Kronecker, control flow, einsum) is spelled `P.vstack`, over a namespace: ours, or `Scipy`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp

from tests.control_flow import ControlFlow

Dims = tuple[str, ...]
SIZES = (0, 1, 2, 3, 5, 8, 17, 24)
DTYPES: tuple[Any, ...] = (*[np.float64] * 6, *[np.float32] * 3, np.int64, np.int32, np.int16, np.int8, np.uint8, np.bool_, np.complex128, np.complex64, np.float16)
FORMATS = ("csr", "csr", "csr", "csc", "csc", "coo", "coo", "bsr", "dia", "lil", "dok", "wide", "unsorted", "zeros")


def full(x: Any) -> Any:
    """A dense array of anything."""
    return x.toarray() if sp.issparse(x) else np.asarray(x)


class Scipy(ControlFlow):
    """The functions of the programs over SciPy's arrays and NumPy's."""

    vstack, hstack, block_diag, kron, tril, triu = (staticmethod(f) for f in (sp.vstack, sp.hstack, sp.block_diag, sp.kron, sp.tril, sp.triu))
    tanh, maximum, where, sqrt = (staticmethod(f) for f in (np.tanh, np.maximum, np.where, np.sqrt))

    @staticmethod
    def einsum(text: str, *operands: Any) -> Any:
        return np.einsum(text, *map(full, operands))

    @staticmethod
    def norm(x: Any) -> Any:
        return np.linalg.norm(full(x))


MAPS = (
    "{}.T", "{}.T", "abs({})", "-{}", "{} * 2", "2 * {}", "{} / 2", "{} * 0.5", "{}.power(2)", "{}.sign()", "abs({}).sqrt()", "{}.tanh()", "{}.sin()",
    "{}.floor()", "{}.rint()", "{}.conj()", "{}.real", "{}.astype(np.float32)", "{}.astype(np.int64)", "{} != 0", "{} > 0", "{}.maximum(0)", "{}.minimum(0)",
    "P.tril({})", "P.triu({}, 1)", "{}.copy()", "{}.tocsr()", "{}.tocsc()", "np.abs({})", "{}.expm1()", "np.sqrt(abs({}))", "{}.multiply(3)",
)  # fmt: skip
BINARIES = (
    "{} + {}", "{} - {}", "{} * {}", "{}.multiply({})", "{}.maximum({})", "{}.minimum({})", "{} != {}", "{} > {}", "{} < {}", "{} + {}", "{} * {}",
)  # fmt: skip


class Program:
    """`text`, and by name of an argument its kind (matrix, vector, dense, rows, mask) and its dimensions."""

    def __init__(self, seed: int) -> None:
        self.r = random.Random(seed)
        self.dims = ["n", "m"] if self.r.random() < 0.65 else ["n"]
        count = self.r.choice((1, 2, 2, 3, 4))
        shape = (self.dims[0], self.dims[-1])
        self.matrices: list[tuple[str, Dims]] = [(name, shape if self.r.random() < 0.6 else (self._dim(), self._dim())) for name in "ABEF"[:count]]
        self.vectors: list[tuple[str, Dims]] = [("x" if d == "n" else "y", (d,)) for d in self.dims]
        self.dense: list[tuple[str, Dims]] = [("X", (self._dim(), self._dim()))] if self.r.random() < 0.5 else []
        self.numbers: list[tuple[str, Dims]] = []
        self.arguments: dict[str, tuple[str, Dims]] = {name: ("matrix", d) for name, d in self.matrices}
        self.arguments |= {name: ("vector", d) for name, d in self.vectors} | {name: ("dense", d) for name, d in self.dense}
        self.lines: list[str] = []
        steps = (
            *[self._binary] * 4, *[self._map] * 3, *[self._product] * 3, self._scale, self._scale, *[self._reduce] * 3, self._with_dense, self._pick, self._pick,
            self._join, self._flow, self._vector, self._sum,
        )  # fmt: skip
        for _ in range(self.r.randint(1, 5)):
            self.r.choice(steps)(*self._matrix())
        if not self.lines:
            self._map(*self._matrix())
        self.text = self._function()

    def _dim(self) -> str:
        return self.r.choice(self.dims)

    def _matrix(self) -> tuple[str, str, str]:
        name, (rows, columns) = self.r.choice(self.matrices[-4:])
        return name, rows, columns

    def _put(self, pool: list[tuple[str, Any]], dims: Dims, text: str) -> None:
        pool.append((f"t{len(self.lines)}", dims))
        self.lines.append(f"{pool[-1][0]} = {text}")

    def _of(self, pool: list[tuple[str, Any]], wanted: Callable[[Any], bool]) -> str | None:
        found = [name for name, d in pool if wanted(d)]
        return self.r.choice(found) if found else None

    def _binary(self, a: str, p: str, q: str) -> None:
        b = self._of(self.matrices, lambda d: d == (p, q))
        self._put(self.matrices, (p, q), self.r.choice(BINARIES).format(a, b))

    def _map(self, a: str, p: str, q: str) -> None:
        text = self.r.choice(MAPS)
        self._put(self.matrices, (q, p) if text == "{}.T" else (p, q), text.format(a))

    def _product(self, a: str, p: str, q: str) -> None:
        kind = self.r.choice("MMVVXK")
        if kind == "M":
            b, d = self.r.choice([(b, d) for b, d in self.matrices if d[0] == q] or [(f"{a}.T", (q, p))])
            self._put(self.matrices, (p, d[1]), self.r.choice(("{} @ {}", "{} @ {}", "{}.dot({})")).format(a, b))
        elif kind == "V" and (x := self._of(self.vectors, lambda d: d == (q,))):
            self._put(self.vectors, (p,), f"{a} @ {x}")
        elif kind == "V" and (x := self._of(self.vectors, lambda d: d == (p,))):
            self._put(self.vectors, (q,), self.r.choice((f"{x} @ {a}", f"{a}.T @ {x}")))
        elif kind == "X" and (found := [(x, d) for x, d in self.dense if d[0] == q]):
            x, d = self.r.choice(found)
            self._put(self.dense, (p, d[1]), f"{a} @ {x}")
        elif kind == "K" and p == q == "n" and self.r.random() < 0.3:
            self._put(self.matrices, (f"{p}{p}", f"{q}{q}"), f"P.kron({a}, {a})")
        else:
            self._map(a, p, q)

    def _scale(self, a: str, p: str, q: str) -> None:
        d, at = self.r.choice(((p, ":, None"), (q, "None, :")))
        v = self._of(self.vectors, lambda dims: dims == (d,))
        if v is None:
            self._map(a, p, q)
        else:
            self._put(self.matrices, (p, q), self.r.choice((f"{a} * {v}[{at}]", f"{a}.multiply({v}[{at}])", f"{a} / (1 + abs({v}))[{at}]", f"{v}[{at}] * {a}")))

    def _reduce(self, a: str, p: str, q: str) -> None:
        axis = self.r.choice((0, 1, None))
        f = self.r.choice(("sum", "sum", "mean", "count_nonzero", "argmax", "argmin", "getnnz", "trace", "diagonal", "max", "min"))
        if f == "trace" or (axis is None and f not in ("diagonal",)):
            self._put(self.numbers, (), f"P.norm({a})" if self.r.random() < 0.15 else f"{a}.{f}()")
        elif f == "diagonal":
            if p == q:
                self._put(self.vectors, (p,), f"{a}.diagonal()")
        elif f in ("max", "min"):
            self._put(self.vectors, ((p, q)[1 - axis],), f"{a}.{f}(axis={axis}).toarray()")
        else:
            self._put(self.vectors, ((p, q)[1 - axis],), f"{a}.{f}(axis={axis})")

    def _with_dense(self, a: str, p: str, q: str) -> None:
        x = self._of(self.dense, lambda d: d == (p, q))
        if x is None:
            self._put(self.dense, (p, q), f"{a}.toarray()")
        elif self.r.random() < 0.5:
            self._put(self.dense, (p, q), self.r.choice(("{} + {}", "{} - {}")).format(*self.r.sample((a, x), 2)))
        else:
            self._put(self.matrices, (p, q), f"{a}.multiply({x})")

    def _pick(self, a: str, p: str, q: str) -> None:
        kind = self.r.choice(("rows", "columns", "both", "mask", "slice", "row", "element", "turned", "column"))
        if kind in ("rows", "columns", "both", "mask") and (p not in self.dims or q not in self.dims):
            kind = "slice"
        if kind in ("rows", "both"):
            self.arguments[f"rows_{p}"] = ("rows", (p,))
        if kind in ("columns", "both"):
            self.arguments[f"rows_{q}"] = ("rows", (q,))
        if kind == "mask":
            self.arguments[f"mask_{p}"] = ("mask", (p,))
        text, dims = {
            "rows": (f"{a}[rows_{p}]", (f"rows_{p}", q)), "columns": (f"{a}[:, rows_{q}]", (p, f"rows_{q}")),
            "both": (f"{a}[rows_{p}][:, rows_{q}]", (f"rows_{p}", f"rows_{q}")), "mask": (f"{a}[mask_{p}]", (f"mask_{p}", q)),
            "slice": (f"{a}[1:, ::2]", (f"{p}-1", f"{q}/2")), "row": (f"{a}[0:1]", (f"{p}1", q)), "element": (f"{a}[0, -1]", ()),
            "turned": (f"{a}[::-1]", (p, q)), "column": (f"{a}[:, 0:1]", (p, f"{q}1")),
        }[kind]  # fmt: skip
        self._put(self.numbers if kind == "element" else self.matrices, dims, text)

    def _join(self, a: str, p: str, q: str) -> None:
        kind = self.r.choice(("vstack", "hstack", "block_diag"))
        b = self._of(self.matrices, lambda d: d[1] == q if kind == "vstack" else d[0] == p if kind == "hstack" else True)
        d = next(d for name, d in self.matrices if name == b)
        dims = {"vstack": (f"{p}+{d[0]}", q), "hstack": (p, f"{q}+{d[1]}"), "block_diag": (f"{p}+{d[0]}", f"{q}+{d[1]}")}[kind]
        if max(map(len, dims)) < 12:
            self._put(self.matrices, dims, f"P.{kind}([{a}, {b}]{', format=' + repr('csr') if kind != 'x' else ''})")

    def _vector(self, a: str, p: str, q: str) -> None:
        v, d = self.r.choice(self.vectors)
        self._put(self.vectors, d, self.r.choice(("P.tanh({0})", "{0} * {0}", "{0} + 1", "{0} / (1 + abs({0}))", "P.where({0} > 0, {0}, 0)")).format(v))

    def _sum(self, a: str, p: str, q: str) -> None:
        kind = self.r.choice(("row", "all", "two", "turned", "mask"))
        v = self._of(self.vectors, lambda d: d == (q,))
        b = self._of(self.matrices, lambda d: d == (p, q))
        if kind == "row" and v:
            self._put(self.vectors, (p,), f"P.einsum('ij,j->i', {a}, {v})")
        elif kind == "two":
            self._put(self.vectors, (p,), f"P.einsum('ij,ij->i', {a}, {b})")
        elif kind == "turned" and p == q:
            self._put(self.numbers, (), f"P.einsum('ij,ji->', {a}, {b})")
        else:
            self._put(self.numbers, (), f"P.einsum('ij,ij->', {a}, {b})")

    def _vector_of(self, d: str, state: str = "") -> str:
        known = [(state, (d,))] * 3 * bool(state) + self.vectors
        found = [v for v, dims in known if dims == (d,)]
        for a, (p, q) in self.matrices[:4]:
            found += [f"({a} @ {v})" for v, dims in known if p == d and dims == (q,)] + [f"({a}.T @ {v})" for v, dims in known if q == d and dims == (p,)]
            found += [f"{a}.sum(axis=1)"] * (p == d)
        return self.r.choice(found)

    def _flow(self, a: str, p: str, q: str) -> None:
        d, times = self._dim(), self.r.choice((0, 1, 2, 3))
        first, inner = self._vector_of(d), self._vector_of(d, "z")
        number = self.r.choice([n for n, _ in self.numbers] + [f"{a}.sum()", f"{self.vectors[0][0]}.sum()"])
        text = self.r.choice(
            (
                f"P.cond(abs({number}) > 1, lambda: {first} * 1.0, lambda: {self._vector_of(d)} * 1.0)",
                f"P.fori_loop(0, {times}, lambda i, z: {inner} * 0.5, {first} * 1.0)",
                f"P.while_loop(lambda s: s[1] < {times}, lambda s: ((lambda z: {inner} * 0.5)(s[0]), s[1] + 1), ({first} * 1.0, 0))[0]",
            )
        )
        self._put(self.vectors, (d,), text)

    def _function(self) -> str:
        made = [name for pool in (self.matrices, self.vectors, self.dense, self.numbers) for name, _ in pool if name not in self.arguments]
        outs = self.r.sample(made, k=min(self.r.randint(1, 3), len(made)))
        return "\n  ".join((f"def f(P, np, {', '.join(self.arguments)}):", *self.lines, f"return ({', '.join(outs)},)"))

    def function(self, namespace: Any) -> Callable[..., Any]:
        """The program over a namespace."""
        space: dict[str, Any] = {}
        exec(self.text, space)
        body = f"lambda {', '.join(self.arguments)}: f(P, np, {', '.join(self.arguments)})"
        found: Callable[..., Any] = eval(body, {"f": space["f"], "P": namespace, "np": np})
        return found

    def values(self, r: random.Random, rng: np.random.Generator, matrix: bool = False) -> list[Any]:
        """Arguments of random sizes, types and formats; `matrix`: of SciPy's old classes."""
        sizes = {d: r.choice(SIZES) for d in self.dims}
        dtype = r.choice(DTYPES)
        out: list[Any] = []
        for kind, dims in self.arguments.values():
            shape = tuple(sizes[d] for d in dims)
            mine = dtype if r.random() < 0.85 else r.choice(DTYPES)
            if kind == "matrix":
                out.append(sparse(rng, shape, mine, r.choice(FORMATS), r.choice((0, 0.1, 0.3, 0.3, 1.0)), matrix))
            elif kind == "rows":
                out.append(rng.integers(-shape[0], max(shape[0], 1), r.choice((0, 1, 5)) if shape[0] else 0))
            elif kind == "mask":
                out.append(rng.random(shape) < 0.5)
            else:
                out.append(numbers(rng, shape, mine))
        return out


def numbers(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> Any:
    """Small numbers that halves and quarters hold exactly."""
    whole = rng.integers(0 if np.dtype(dtype).kind in "ub" else -3, 4, shape)
    if np.dtype(dtype).kind == "c":
        return ((whole + 1j * rng.integers(-3, 4, shape)) / 4).astype(dtype)
    return (whole / 4 if np.dtype(dtype).kind == "f" else whole).astype(dtype)


def sparse(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any, form: str, density: float, matrix: bool) -> Any:
    """A sparse matrix, of f32 for f16, which SciPy does not have; "wide": 64-bit indices, "unsorted": rows backwards, "zeros": some stored elements are zero."""
    dtype = np.float32 if dtype is np.float16 else dtype
    where = rng.random(shape) < density
    values = np.where(where, numbers(rng, shape, dtype), np.zeros((), dtype)).astype(dtype)
    kept = np.nonzero(where if form == "zeros" else values)
    kind = "matrix" if matrix else "array"
    rows = getattr(sp, f"csr_{kind}")(getattr(sp, f"coo_{kind}")((values[kept], kept), shape=shape))
    if form == "wide":
        rows.indices, rows.indptr = rows.indices.astype(np.int64), rows.indptr.astype(np.int64)
    elif form == "unsorted":
        for i in range(shape[0]):
            row = slice(rows.indptr[i], rows.indptr[i + 1])
            rows.indices[row], rows.data[row] = rows.indices[row][::-1].copy(), rows.data[row][::-1].copy()
        rows = type(rows)((rows.data, rows.indices, rows.indptr), shape=shape)
    elif form == "bsr":
        if min(shape):
            return getattr(sp, f"bsr_{kind}")(rows, blocksize=(2 - shape[0] % 2, 2 - shape[1] % 2))
    elif form not in ("csr", "zeros") and min(shape):
        return rows.asformat(form)
    return rows
