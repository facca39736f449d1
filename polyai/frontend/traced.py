"""A traced function: its tensor program, where inputs and sizes come from, the guards it relies on, and the way back for its results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import TYPE_CHECKING, Any

import numpy as np

from polyai.errors import GuardError
from polyai.frontend import tree
from polyai.frontend.arguments import Leaf, take
from polyai.frontend.declare import DECLARED, outside
from polyai.frontend.sizes import Guard
from polyai.shapes import expr as sx
from polyai.shapes.dim import Dim
from polyai.shapes.expr import Size
from polyai.sparse import interop
from polyai.tensor import nodes as tn
from polyai.term.late import late
from polyai.term.node import node

if TYPE_CHECKING:
    from polyai.sparse import results as lines_of
else:
    lines_of = late("polyai.sparse.results")


@node
class InputSlot:
    """One kernel input: `name` in the program; `path` into (args, kwargs), empty for a captured array; `kind` as in Leaf. `rows`:
    the argument is converted at each call, because no kernel merges its format: "scipy", or "storage" for what is a SparseArray. `order`: of
    its dimensions then, if there are more than two."""

    name: str
    path: tuple[Any, ...]
    text: str
    kind: str
    rows: str = ""
    order: tuple[int, ...] = ()


@node
class SymbolSource:
    """Where the value of a size symbol comes from: dimension `dim` of an input, its count of stored elements, its value, the
    positions of its level `dim`.

    `what`: "extent", "nnz", "positions", "length" (of the fibres of level `dim`) or "value". `input` is the position in
    `Traced.inputs`. An extent is factor * symbol + offset.
    """

    symbol: str
    input: int
    what: str
    dim: int = 0
    factor: int = 1
    offset: int = 0


@node
class ArrayOut:
    """Output number `position` of the program. For a sparse one: the owner of its pattern and which of the owner's
    dimensions each of its dimensions is. `line`: a matrix of one row that is returned as a vector. `number`: a size, returned as an int. `fill`: what is
    not stored, of a sparse array that was given a fill value."""

    position: int
    owner: str | None = None
    dims: tuple[int, ...] = ()
    is_matrix: bool = False
    line: bool = False
    number: bool = False
    fill: bool | int | float | complex = 0


@node
class SizeOut:
    """A size that the function returns."""

    size: Size


@node
class ConstOut:
    """A value that is the same in every call: a number, a string, an array that does not depend on the arguments."""

    value: Any


@node
class Traced:
    """A traced function.

    `inputs` are in the order of `program.inputs`. `guards` hold over the values of all `symbols`; a call where one does
    not hold needs another trace. `hints` are the values of the traced call. `needs_unique` names sparse inputs whose
    coordinates must not repeat, because something not linear in the stored values is computed along their pattern. `merged`
    names those that are merged with others: they must be in order, and coordinates that repeat add up first. `decided`: the sizes that
    data decide, each with its text and its bound.
    """

    program: tn.Program
    inputs: tuple[InputSlot, ...]
    symbols: tuple[SymbolSource, ...]
    guards: tuple[Guard, ...]
    hints: dict[str, int]
    statics: tuple[Leaf, ...]
    captured: dict[str, Any]
    outputs: tuple[ArrayOut | SizeOut | ConstOut, ...]
    out_tree: tree.Tree
    needs_unique: tuple[str, ...] = ()
    merged: tuple[str, ...] = ()
    texts: dict[str, str] = field(default_factory=dict)
    dims: dict[str, Dim] = field(default_factory=dict)
    decided: tuple[tuple[str, str, str], ...] = ()

    def arguments(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The value of each input by name."""
        given = {slot.name: take(slot.path, args, kwargs) if slot.path else self.captured[slot.name] for slot in self.inputs}
        given.update((slot.name, interop.as_rows(given[slot.name], slot.order)) for slot in self.inputs if slot.rows)
        return given

    def values(self, arguments: Mapping[str, Any]) -> dict[str, int]:
        """The value of every symbol, from the inputs by name."""
        out: dict[str, int] = {}
        seen: dict[int, interop.Described] = {}
        for source in self.symbols:
            value = arguments[self.inputs[source.input].name]
            if source.what == "extent":
                extent = int(np.shape(value)[source.dim]) if not hasattr(value, "shape") else int(value.shape[source.dim])
                out[source.symbol] = (extent - source.offset) // source.factor
            elif source.what in ("nnz", "positions"):
                described = seen.get(source.input) or interop.describe(value)
                assert described is not None
                seen[source.input] = described
                out[source.symbol] = described.nnz if source.what == "nnz" else interop.positions(described, source.dim)
            elif source.what == "length":
                described = seen.get(source.input) or interop.describe(value)
                assert described is not None
                out[source.symbol] = dict(described.lengths)[f"length{source.dim}"]
            else:
                out[source.symbol] = int(value)
        return out

    def broken_guard(self, values: Mapping[str, int]) -> Guard | None:
        """The first guard that does not hold."""
        return next((g for g in self.guards if not g.holds(values)), None)

    def check(self, values: Mapping[str, int]) -> None:
        """Raises GuardError for the first guard that does not hold."""
        broken = self.broken_guard(values)
        if broken is not None:
            raise self.refusal(broken, values)

    def refusal(self, broken: Guard, values: Mapping[str, int]) -> GuardError:
        """The error for a guard that does not hold: it names the sizes, their values and the operands that gave them."""
        names, places = sorted(sx.symbols(broken.left) | sx.symbols(broken.right)), self.places()
        for name in names:
            if name in self.dims and len(names) == 1 and not self.dims[name].admits(values[name]):
                return outside(self.dims, places, name, values[name])
        given = (f" by {places[n].rstrip(',')}" if n in places and places[n] != self.texts.get(n, n) else "" for n in names)
        at_hand = ", ".join(f"{self.texts.get(n, n)} = {values[n]}{by}" for n, by in zip(names, given))
        why = "" if broken.why in ("", DECLARED) else f"; relied on by {broken.why}"
        return GuardError(f"the call breaks {broken.text}", at_hand + why, "call it with the sizes that were declared, or use jit, which serves all sizes")

    def places(self) -> dict[str, str]:
        """The place in the arguments that gives each size its value, as the user spells it: `X.shape[0]`."""
        out: dict[str, str] = {}
        for s in self.symbols:
            slot = self.inputs[s.input].text
            whole = f"{slot}.shape[{s.dim}]" if s.what == "extent" else f"{slot}.nnz" if s.what == "nnz" else slot
            if (s.factor, s.offset) != (1, 0):
                whole += f", which is {sx.show(sx.symbol(s.symbol) * s.factor + s.offset)},"
            out.setdefault(s.symbol, whole)
        return out

    def rebuild(self, results: Sequence[Any], values: Mapping[str, int]) -> Any:
        """What the function returns, from the program's outputs in order and the values of the symbols."""
        out: list[Any] = []
        for o in self.outputs:
            if isinstance(o, ArrayOut):
                found = results[o.position]
                out.append(lines_of.line(found) if o.line else int(found) if o.number else found)
            elif isinstance(o, SizeOut):
                out.append(sx.evaluate(o.size, values))
            else:
                out.append(o.value)
        return tree.rebuild(self.out_tree, out)
