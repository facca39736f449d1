"""Which elements are in which row, as a trace sees it: tables that become inputs of the program when something needs them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from polyai.errors import ShapeError
from polyai.frontend.core import Array, Tracer
from polyai.frontend.term import Term
from polyai.shapes.expr import Size
from polyai.sparse.ragged import BLOCK
from polyai.tensor import nodes as tn

Key = tuple[Any, ...]


class TableWanted(Exception):
    """The trace needs a table that it was not given: it starts again with one more."""

    def __init__(self, rows: int, key: Key) -> None:
        super().__init__(rows, key)
        self.rows, self.key = rows, key


class Rows:
    """The rows number `number` of a call: `pieces` says which elements each row has, `tables` holds what else was asked for."""

    def __init__(self, tracer: Tracer, number: int, tables: Mapping[Key, Array], values: Sequence[Array]) -> None:
        self.tracer, self.number, self.tables = tracer, number, dict(tables)
        self.text = " and ".join(tracer.text(v) for v in values)
        self.elements: Size = values[0].extents[0]
        sizes = tracer.sizes
        for other in values[1:]:
            sizes.unify(other.extents[0], self.elements, "rows of a ragged batch")
        pieces = self.table("pieces")
        sizes.unify(pieces.extents[1], self.elements, "rows of a ragged batch")
        self.elements = sizes.resolve(self.elements)
        self.count: Size = sizes.resolve(pieces.extents[0])
        for key, table in self.tables.items():
            self._admit(key, table)

    def _admit(self, key: Key, table: Array) -> None:
        """Say what is known of a table's sizes and numbers."""
        tracer, sizes = self.tracer, self.tracer.sizes
        match key:
            case ("row",):
                sizes.unify(table.extents[0], self.elements, "rows of a ragged batch")
                tracer.trust(table, self.count)
            case ("lengths",):
                sizes.unify(table.extents[0], self.count, "rows of a ragged batch")
            case ("order",):
                sizes.unify(table.extents[0], self.elements, "rows of a ragged batch")
                tracer.trust(table, self.elements)
            case ("blocks",):
                sizes.unify(table.extents[1], BLOCK, "blocks of a ragged batch")
                tracer.trust(table, self.elements)
            case ("places",):
                sizes.unify(table.extents[0], self.elements, "blocks of a ragged batch")
                blocks = self.tables.get(("blocks",))
                if blocks is not None:
                    tracer.trust(table, blocks.extents[0] * BLOCK)
            case ("seen", _, heads, _):
                if heads:
                    sizes.unify(table.extents[1], heads, "heads of a ragged batch")
                sizes.unify(table.extents[-1], BLOCK, "blocks of a ragged batch")
                blocks = self.tables.get(("blocks",))
                if blocks is not None:
                    sizes.unify(table.extents[0], blocks.extents[0], "blocks of a ragged batch")
            case _:
                pass

    def table(self, *key: Any) -> Array:
        """A table as an input of the program. Raises TableWanted if the call did not bring it."""
        found = self.tables.get(key)
        if found is None:
            raise TableWanted(self.number, key)
        return found

    @property
    def lengths(self) -> Array:
        return self.table("lengths")

    def within(self, b: tn.Index, t: tn.Index) -> tn.Within:
        """Element t is in row b."""
        return self.tracer.within(self.table("pieces"), (b.name, t.name))

    def of(self, t: tn.Index) -> Term:
        """The row of element t."""
        return self.tracer.read(self.table("row"), (t,))

    def alike(self, other: Rows, what: str) -> None:
        """Raise ShapeError unless `other` are the same rows."""
        if other.number != self.number:
            raise ShapeError(
                f"{what}: the ragged arrays {self.text} and {other.text} have rows of different lengths",
                "element meets element in rows of equal lengths only",
                "make both with the same offsets",
            )
