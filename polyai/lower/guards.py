"""Proofs that a load under a lazy `where` stays in its array whatever the condition says."""

from __future__ import annotations

import islpy as isl

from polyai.poly import nodes as po
from polyai.poly.affine import affine
from polyai.poly.nodes import isl_name
from polyai.scalar.expr import Expr, Var
from polyai.shapes.expr import Size, SizeExpr, Sym


class Ranges:
    """Answers, with isl, whether an access of a statement is in range at every point of its domain."""

    def __init__(self, scop: po.Scop) -> None:
        self.arrays = {a.name: a for a in scop.arrays}
        self.scop = scop
        self.texts = {size: name for name, size in scop.sizes}
        self.known: dict[tuple[str, str, tuple[Expr, ...]], bool] = {}
        self.lengths = {r.length for s in scop.statements for r in s.ragged}

    def names(self, statement: po.Statement) -> frozenset[str]:
        """What may occur in an affine index of `statement`."""
        return frozenset((*statement.dims, *self.scop.parameters))

    def hold(self, statement: po.Statement, array: str, indices: tuple[Expr, ...]) -> bool:
        """True if all `indices` are proved to be in range. Indices with loads are not: they are checked."""
        key = (statement.name, array, indices)
        if key not in self.known:
            entry = self.arrays.get(array)
            self.known[key] = entry is not None and all(self._one(statement, i, e) for i, e in zip(indices, entry.extents))
        return self.known[key]

    def _one(self, statement: po.Statement, index: Expr, extent: Size | po.Ragged) -> bool:
        if isinstance(extent, po.Ragged):
            walkers = {r.dim for r in statement.ragged if r.fibre == extent}
            return isinstance(index, Var) and index.name in walkers
        names = self.names(statement)
        text, limit = affine(index, names), self._size(extent)
        if text is None or limit is None:
            return False
        head, _, _ = statement.domain.partition("{")
        point = f"{statement.name}[{', '.join(statement.dims)}]"
        parameters = head if "[" in head else f"[{', '.join(self.scop.parameters)}] -> "
        outside = isl.Set(f"{parameters} {{ {point} : not (0 <= {text} < {limit}) }}")
        return bool(isl.Set(statement.domain).intersect(outside).intersect_params(isl.Set(self.scop.context)).is_empty())

    def _size(self, size: Size) -> str | None:
        """`size` as isl text over the parameters of the scop; None if it is not linear in them."""
        if isinstance(size, int):
            return str(size)
        if size in self.texts:
            return self.texts[size]
        parts = []
        for monomial, coefficient in size.terms:
            if not monomial:
                parts.append(str(coefficient))
                continue
            alone = SizeExpr(((monomial, 1),))
            name = self.texts.get(alone)
            if name is None and len(monomial) == 1 and isinstance(monomial[0], Sym):
                name = isl_name(monomial[0].name)
            if name is None or name not in self.scop.parameters:
                return None
            parts.append(f"{coefficient}*{name}")
        return " + ".join(parts)
