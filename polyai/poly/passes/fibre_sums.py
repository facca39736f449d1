"""Sums along nested fibres are taken fibre by fibre, and what a fibre does not change is multiplied once for all of it.

    T_upd[i,j,q,r]   T[i,j] add= A.val[i,q,r] * B[crd1[i,q],j] * C[crd2[i,q,r],j]
    ->
    T_fib_init[i,j,q]    T_fib[i,q,j] = 0.0
    T_fib_upd[i,j,q,r]   T_fib[i,q,j] add= A.val[i,q,r] * C[crd2[i,q,r],j]
    T_upd[i,j,q]         T[i,j] add= B[crd1[i,q],j] * T_fib[i,q,j]               where the fibre of r holds something

A fibre is summed on its own where its parent is summed too and a factor is the same all along it, and where the target's
element is named by memory, so that it is touched once for a fibre and not for each of its elements. Where a fibre is empty
its factors do not count, infinite or not. Assumes that sums and products may be rounded in another order (docs: numbers).
"""

from __future__ import annotations

import dataclasses
from functools import reduce as fold
from typing import Any

from polyai.poly.access import loads_in, reads_of, variables_in, write_of
from polyai.poly.affine import Parameters
from polyai.poly.nodes import Array, Ragged, RaggedDim, Scop, Statement, hull_of
from polyai.scalar import dtype as dt
from polyai.scalar.expr import Apply, Const, Expr, Load, Var
from polyai.scalar.ops import MONOIDS
from polyai.shapes.expr import Size
from polyai.term.names import Names


def run(scop: Scop) -> Scop:
    """`scop` with its sums along nested fibres split; the same scop if there are none."""
    work = _FibreSums(scop)
    out: list[Statement] = []
    for s in scop.statements:
        parts = work.split(s)
        if len(parts) == 1:
            out.append(s)
            continue
        start = out[-1] if out else None
        if start is not None and start.target == s.target and start.monoid is None and _alike(start, s):
            out.pop()  # the sums stand before the start of their reader, so that start and update stay side by side
            out += [*parts[:-1], start, parts[-1]]
        else:
            out += parts
    if not work.arrays:
        return scop
    prefix = f"[{', '.join(scop.parameters)}] -> "
    return dataclasses.replace(scop, arrays=(*scop.arrays, *work.arrays), statements=tuple(_prefixed(s, prefix) for s in out))


def _alike(start: Statement, update: Statement) -> bool:
    """Both name the element by their dims alone."""
    return not any(True for s in (start, update) for e in s.at for _ in loads_in(e))


class _FibreSums:
    def __init__(self, scop: Scop) -> None:
        self.scop = scop
        self.arrays: list[Array] = []
        self.roles = {a.name: a.role for a in scop.arrays}
        self.sizes = Parameters(scop.sizes)
        self.names = Names(s.name for s in scop.statements)
        self.array_names = Names(a.name for a in scop.arrays)

    def split(self, s: Statement) -> list[Statement]:
        """The statements that replace `s`: sums along fibres, innermost first, and `s` over what is left."""
        if s.monoid != "add" or s.value.dtype.kind == "b" or s.groups or len({r.tensor for r in s.ragged}) != 1:
            return [s]
        if any(r.place or r.stream or r.drains for r in s.ragged) or self.roles.get(s.target) not in ("output", "temporary"):
            return [s]
        out: list[Statement] = []
        while s.ragged:
            fibre = s.ragged[-1]
            factors = _factors(s.value, s.value.dtype)
            varying = [f for f in factors if fibre.dim in set(variables_in(f))]
            fixed = [f for f in factors if f not in varying]
            if not varying:  # the sum counts: each element adds the same
                varying, fixed = fixed, []
            if not _worthwhile(s, fibre, fixed):
                break
            *start, s = self._one(s, fibre, varying, fixed)
            out += start
        return [*out, s]

    def _one(self, s: Statement, fibre: RaggedDim, varying: list[Expr], fixed: list[Expr]) -> list[Statement]:
        owners = dict.fromkeys(fibre.parents)
        used = {v for f in varying for v in variables_in(f)} | set(owners)
        dims = [d for d in s.dims if d in used and d != fibre.dim]
        named = {v for e in s.at for v in variables_in(e)}
        dims.sort(key=lambda d: d not in named)  # what the reader sums goes inside of what it does not
        extents = dict(zip(s.dims, s.extents))
        order = [d for d in dims if d in owners] + [d for d in dims if d not in owners]
        stem = s.name.removesuffix("_upd")
        dtype = s.value.dtype
        array = Array(self.array_names.fresh(f"{s.target}_fib"), dtype, tuple(extents[d] for d in order), "temporary")
        self.arrays.append(array)
        at: tuple[Expr, ...] = tuple(Var(d, dt.i64) for d in order)
        zero = Const(MONOIDS["add"].identity(dtype), dtype)
        above = tuple(r for r in s.ragged if r is not fibre)
        inner = [*dims, fibre.dim]
        whole = fold(lambda a, b: Apply("mul", (a, b), dtype), [*fixed, Load(array.name, at, dtype)])
        rest = [d for d in s.dims if d != fibre.dim]
        guard = (fibre,) if fixed else ()
        return [
            self._statement(self.names.fresh(f"{stem}_fib_init"), dims, extents, above, array.name, at, zero, None),
            self._statement(self.names.fresh(f"{stem}_fib_upd"), inner, extents, s.ragged, array.name, at, _product(varying), "add", s.nonempty),
            self._statement(s.name, rest, extents, above, s.target, s.at, whole, "add", guard),
        ]

    def _statement(
        self,
        name: str,
        dims: list[str],
        extents: dict[str, Size | Ragged],
        ragged: tuple[RaggedDim, ...],
        target: str,
        at: tuple[Expr, ...],
        value: Expr,
        monoid: str | None,
        nonempty: tuple[RaggedDim, ...] = (),
    ) -> Statement:
        head = f"{name}[{', '.join(dims)}]"
        limits = [f"0 <= {d} < {self._text(extents[d])}" for d in dims]
        known = {*dims, *self.scop.parameters}
        texts = {a.name: tuple(self._text(e) for e in a.extents) for a in (*self.scop.arrays, *self.arrays)}
        write = write_of(head, target, at, value.dtype, known, texts)
        return Statement(
            name,
            tuple(dims),
            ragged,
            f"{{ {head}{' : ' if limits else ''}{' and '.join(limits)} }}",
            target,
            at,
            value,
            monoid,
            dataclasses.replace(write, must=write.must and not ragged),
            reads_of(head, (value, *at), known, texts),
            tuple(extents[d] for d in dims),
            nonempty=nonempty,
        )

    def _text(self, extent: Size | Ragged) -> str:
        return hull_of(extent.tensor, extent.level) if isinstance(extent, Ragged) else self.sizes.text(extent)


def _worthwhile(s: Statement, fibre: RaggedDim, fixed: list[Expr]) -> bool:
    """The target does not lie along `fibre`, and the fibre's sum saves work: a factor for each element, or its place in memory."""
    named = {v for e in s.at for v in variables_in(e)}
    if fibre.dim in named or not fibre.parents:
        return False
    if any(True for e in s.at for _ in loads_in(e)):
        return True
    return bool(fixed) and any(p not in named for p in fibre.parents)


def _factors(value: Expr, dtype: Any) -> list[Expr]:
    """The factors of a product of one type, left to right."""
    match value:
        case Apply("mul", args, found) if found == dtype:
            return [f for a in args for f in _factors(a, dtype)]
        case _:
            return [value]


def _product(factors: list[Expr]) -> Expr:
    return fold(lambda a, b: Apply("mul", (a, b), b.dtype), factors)


def _prefixed(s: Statement, prefix: str) -> Statement:
    if s.domain.startswith("["):
        return s
    return dataclasses.replace(
        s,
        domain=prefix + s.domain,
        write=dataclasses.replace(s.write, text=prefix + s.write.text),
        reads=tuple(dataclasses.replace(r, text=prefix + r.text) for r in s.reads),
    )
