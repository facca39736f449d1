"""Random kernels without carried dependences mean the same after every pass."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from polyai.loop import build as b
from polyai.loop.nodes import Alloc, Check, Const, For, If, Kernel, Kind, Let, LoopExpr, Site, Space, Stmt, Store, Var
from polyai.scalar import dtype as dt
from tests.loop.kernels import array, op, size, v
from tests.loop.test_passes import same_after_every_pass

F = dt.f64


class Writer:
    """Writes rows `i`: each writes y[i] and Z[i, :] only, reads inputs and its own row, and sums into registers."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.count = 0

    def name(self, stem: str) -> str:
        self.count += 1
        return f"{stem}{self.count}"

    def kernel(self) -> Kernel:
        body = self.row()
        kind = self.random.choice([Kind.PARALLEL, Kind.SERIAL, Kind.JAM, Kind.VECTOR])
        loop = For("i", b.ZERO, v("n"), body, kind, jam=self.random.choice([2, 3, 4]) if kind is Kind.JAM else 1)
        params = (size("m"), size("n"), array("A", F, v("n"), v("m")), array("idx", dt.i32, v("n")), array("x", F, v("n")), array("s", F))
        outputs = (array("y", F, v("n"), role="output"), array("Z", F, v("n"), v("m"), role="output"))
        return Kernel("random", (*params, *outputs), loop, (Site("IndexOutOfRangeError", "bad"),))

    def row(self) -> Stmt:
        register = self.name("R")
        out: list[Stmt] = [Alloc(register, F, (), Space.REGISTER), Store(register, (), Const(0.5, F))]
        values: list[LoopExpr] = [b.load("x", (v("i"),), F), b.load("s", (), F), b.convert(v("i"), F)]
        for _ in range(self.random.randint(1, 4)):
            out += self.random.choice([self.let, self.gather, self.columns])(values, register, "i")
        out.append(Store("y", (v("i"),), op("add", self.expr(values), b.load(register, (), F))))
        return b.block(*out)

    def expr(self, values: list[LoopExpr], depth: int = 2) -> LoopExpr:
        if depth == 0 or self.random.random() < 0.2:
            return self.random.choice([*values, Const(self.random.choice([0.25, -1.5, 2.0]), F)])
        x, y = self.expr(values, depth - 1), self.expr(values, depth - 1)
        if self.random.random() < 0.2:
            test = op("gt", self.random.choice(values[:2]), Const(0.1, F), dtype=dt.bool_)
            return b.where(test, x, y)
        return op(self.random.choice(["add", "sub", "max", "min"]), x, y)

    def let(self, values: list[LoopExpr], register: str, row: str) -> list[Stmt]:
        name = self.name("t")
        out: list[Stmt] = [Let(name, self.expr(values))]
        values.append(Var(name, F))
        return out

    def gather(self, values: list[LoopExpr], register: str, row: str) -> list[Stmt]:
        k, name = self.name("k"), self.name("g")
        index = b.convert(b.load("idx", (v(row),), dt.i32), dt.i64)
        values.append(Var(name, F))
        return [Let(k, index), Check(b.below(v(k), v("n")), 0, v(k)), Let(name, b.load("x", (v(k),), F))]

    def columns(self, values: list[LoopExpr], register: str, row: str) -> list[Stmt]:
        """A loop over j: stores into Z, sums into registers, sometimes with a loop over all rows inside."""
        j = self.name("j")
        local: list[LoopExpr] = [b.load("A", (v("i"), v(j)), F), *values]
        out: list[Stmt] = []
        kinds = ["let", "store", "sum", "branch", "inner"]
        chosen = self.random.sample(kinds, self.random.randint(1, 3))
        summed = None
        for what in chosen:
            if what == "let":
                out += self.let(local, register, row)
            elif what == "store":
                out.append(Store("Z", (v("i"), v(j)), self.expr(local)))
                local.append(b.load("Z", (v("i"), v(j)), F))
            elif what == "branch":
                test = op("gt", local[0], Const(0.0, F), dtype=dt.bool_)
                out.append(If(test, Store("Z", (v("i"), v(j)), self.expr([local[0], *values[1:]]))))
            elif what == "sum":
                summed = self.random.choice(["add", "max", "min"])
                out.append(Store(register, (), op(summed, b.load(register, (), F), self.expr(local))))
            else:
                inner, r = self.name("T"), self.name("r")
                term = op("mul", b.load("A", (v(r), v(j)), F), b.load("x", (v(r),), F))
                out += [
                    Alloc(inner, F, (), Space.REGISTER),
                    Store(inner, (), Const(0.0, F)),
                    For(r, b.ZERO, v("n"), Store(inner, (), op("add", b.load(inner, (), F), term))),
                ]
                local.append(b.load(inner, (), F))
        kind = self.random.choice([Kind.VECTOR, Kind.VECTOR, Kind.SERIAL, Kind.JAM])
        return [For(j, b.ZERO, v("m"), b.block(*out), kind, jam=3 if kind is Kind.JAM else 1)]


@settings(max_examples=120, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.sampled_from([0, 1, 3, 5, 9]), st.sampled_from([0, 1, 4, 8, 9, 21, 37]), st.sampled_from([128, 256, 512]))
def test_passes_keep_the_meaning(seed: int, n: int, m: int, bits: int) -> None:
    rng = np.random.default_rng(seed)
    args: dict[str, Any] = {
        "n": n, "m": m, "A": rng.standard_normal((n, m)), "idx": rng.integers(0, max(n, 1), n).astype(np.int32), "x": rng.standard_normal(n),
        "s": np.array(0.7), "y": np.zeros(n), "Z": np.zeros((n, m)),
    }  # fmt: skip
    same_after_every_pass(Writer(seed).kernel(), args, vector_bits=bits, rtol=1e-9)
