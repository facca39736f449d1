"""Arguments that do not change: nested values whose matrices have panels, and such a matrix inside a trace.

    f(x, w) with w = {"w1": W, "b1": b}    ->    f(x, W, panels of W, b), and inside   x @ w["w1"]  is

        y[i, j] = sum(k: x[i, k] * panels[j // c, k, j % c])

The rows, columns and panels of such a matrix are part of the code.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, final

from polyai.errors import ShapeError
from polyai.frontend.core import Array
from polyai.frontend.lazy import LazyArray
from polyai.frontend.surface.notation import access, comprehension, index, indices, reduction
from polyai.frontend.tree import Tree, rebuild
from polyai.sparse.panels import Panels
from polyai.sparse.stands import LaidOut

HELD = "held"
"""The kind of the code of a Held."""


@final
class Held(LaidOut):
    """A nested value with Panels among its leaves; the argument of a compiled function in place of the value."""

    __slots__ = ("arrays", "choice", "code", "key", "leaves")

    def __init__(self, leaves: tuple[Any, ...], tree: Tree) -> None:
        self.leaves = leaves
        self.code = (HELD, (tree, tuple(leaf.code if type(leaf) is Panels else None for leaf in leaves)), ())
        self.arrays: tuple[Any, ...] = tuple(a for leaf in leaves for a in (leaf.arrays if type(leaf) is Panels else (leaf,)))
        self.key = None
        self.choice = "\n".join(repr(leaf) for leaf in self.leaves if type(leaf) is Panels) or "no matrix is worth panels"

    def __repr__(self) -> str:
        return f"<constant value of {len(self.leaves)} leaves>"


class PanelArray(LazyArray):
    """A matrix of `code` (rows, columns, columns of a panel) that has panels."""

    __slots__ = ("code", "panels")

    def __init__(self, array: Array, code: tuple[int, int, int], panels: Array) -> None:
        super().__init__(array.tracer, array.region, array.name, array.type, array.weak, array.is_matrix)
        self.code, self.panels = code, panels
        rows, columns, lanes = code
        for given, extents in ((array, (rows, columns)), (panels, (-(-columns // lanes), rows, lanes))):
            for size, extent in zip(given.extents, extents):
                self.tracer.sizes.unify(size, extent, "a constant matrix")

    def from_left(self, other: Array) -> Array | None:
        """`other` @ this matrix by its panels; None if `other` has another element type or is sparse."""
        rows, columns, lanes = self.code
        if other.is_sparse or other.type.dtype != self.type.dtype:
            return None
        if not self.tracer.sizes.unify(other.extents[-1], rows, "matmul"):
            raise ShapeError(
                f"matmul: {self.tracer.text(other)} has {self.tracer.sizes.described(other.extents[-1])} columns, {rows} are needed",
                self.tracer.shapes_text((other, self)),
                "the summed dimensions must have the same size",
            )
        (k,) = indices("k")
        free = indices(" ".join(f"i{n}" for n in range(other.rank - 1)))
        j = index("j", columns)
        product = access(other, (*free, k)) * access(self.panels, (j // lanes, k, j % lanes))
        out = comprehension((*free, j), reduction("add", k, product), name="matmul")
        assert isinstance(out, Array)
        return out


def rebuilt(code: Any, given: Iterator[Any]) -> Any:
    """The nested value of a Held inside a trace, from the arrays at hand."""
    tree, codes = code[1]
    leaves = [next(given) if c is None else PanelArray(next(given), c, next(given)) for c in codes]
    return rebuild(tree, leaves)


def parts_of(code: Any) -> tuple[str, ...]:
    """What the arrays of a Held are called after the argument's name, in order."""
    tree, codes = code[1]
    texts = rebuild(tree, range(len(codes)))
    names: dict[int, str] = {}

    def walk(value: Any, text: str) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                walk(item, f"{text}_{key}")
        elif isinstance(value, (tuple, list)):
            for n, item in enumerate(value):
                walk(item, f"{text}_{n}")
        else:
            names[value] = text

    walk(texts, "")
    return tuple(name for n, c in enumerate(codes) for name in ((names[n],) if c is None else (names[n], f"{names[n]}_panels")))
