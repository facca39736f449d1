"""What may be read within a join: parts that are stored at some of its coordinates only.

    C[i,j] = A[i,j] * inf + B[i,j]   within J(i,j) = A(i,j) | B(i,j)
    where(J.has0, where(J.has0, A.val[...], 0) * inf, 0) + where(J.has1, B.val[...], 0)

An element that is not stored is a structural zero: it annihilates a product, whatever the other factor is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any, cast

from polyai.lower import fibre
from polyai.poly import nodes as poly
from polyai.scalar import dtype as dt
from polyai.scalar.expr import Apply, Cast, Expr, Load
from polyai.tensor import nodes as tn
from polyai.tensor.bodies import stored_at, zero
from polyai.tensor.support import is_zero, zero_rule


class Joined:
    """Reads of parts of joins. `values` names the array that holds a tensor's stored values."""

    def __init__(
        self, types: Mapping[str, tn.TensorType], joins: Mapping[str, tn.Join], streams: Mapping[str, poly.Stream], values: Callable[[str], str]
    ) -> None:
        self.types, self.joins, self.streams, self.values = types, joins, streams, values

    def where_stored(self, walks: Sequence[fibre.Walk], item: Apply, value: Expr) -> Expr:
        """`value` where the factors of a product are stored: beside an element that is not, infinity counts as nothing."""
        rule = zero_rule(item)
        tests = [self.presence(walks, item.args[n]) for n in rule.args] if rule.how == "any" else []
        present = _all_of([t for t in tests if t is not None])
        return value if present is None else Apply("where", (present, value, cast("Expr", zero(item.dtype))), item.dtype)

    def presence(self, walks: Sequence[fibre.Walk], body: Any) -> Expr | None:
        """Whether `body` is more than a structural zero, at a point of the walks; None: always."""
        match body:
            case Load(array) if self.types[array].is_sparse:
                found = self.part(walks, body)
                return None if found is None else found[1]
            case Cast(arg):
                return self.presence(walks, arg)
            case Apply(_, args):
                rule = zero_rule(body)
                parts = [self.presence(walks, args[n]) for n in rule.args]
                if rule.how == "any":
                    return _all_of([p for p in parts if p is not None])
                if rule.how == "all":
                    return None if any(p is None for p in parts) else _any_of(parts)
                if rule.how == "where":
                    yes = _all_of([p for p in parts[:2] if p is not None])
                    others = [p for p, a in ((yes, args[1]), (parts[2], args[2])) if not is_zero(a)]
                    return None if not others or any(p is None for p in others) else _any_of(others)
                return None
            case _:
                return None

    def part(self, walks: Sequence[fibre.Walk], load: Load) -> tuple[Load, Expr | None] | None:
        """The element of a part of a join that is walked, and whether it is there (None: always)."""
        wanted = stored_at(load, self.types)
        for walk in walks:
            join = self.joins.get(walk.owner)
            names = {} if join is None else {i.name: v for i, v in zip(join.indices, walk.variables)}
            for number, part in enumerate(() if join is None else join.parts):
                if wanted != tn.Within(part.tensor, tuple(names[v] for v in part.indices)):
                    continue
                source = self.streams[walk.owner].source
                assert not isinstance(source, poly.Drain)
                if isinstance(source, poly.Located):
                    return self._located(walk, source, wanted, load), None
                at = Load(f"{walk.owner}.at{number}", walk.position, dt.i64)
                here = None if source.always(number) else Load(f"{walk.owner}.has{number}", walk.position, dt.bool_)
                return Load(self.values(load.array), (*walk.position[:-1], at), load.dtype), here
        return None

    def _located(self, walk: fibre.Walk, source: poly.Located, wanted: tn.Within, load: Load) -> Load:
        """An element of the fibre that is walked, or of the workspace that holds its coordinate."""
        if wanted.tensor != source.workspace:
            return Load(self.values(load.array), (*walk.position[:-1], Load(f"{walk.owner}.at0", walk.position, dt.i64)), load.dtype)
        coordinates = dict(walk.coordinates)
        return Load(load.array, tuple(coordinates[wanted.indices[d]] for d in fibre.format_of(wanted.tensor, self.types[wanted.tensor]).order), load.dtype)


def _all_of(tests: list[Expr]) -> Expr | None:
    return None if not tests else reduce(lambda a, c: a if a == c else Apply("and", (a, c), dt.bool_), tests)


def _any_of(tests: list[Expr | None]) -> Expr | None:
    kept = [t for t in tests if t is not None]
    return None if not kept else reduce(lambda a, c: a if a == c else Apply("or", (a, c), dt.bool_), kept)
