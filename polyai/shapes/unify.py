"""Binding declared shapes to concrete ones: [n, 2*n + 1] against (3, 7) gives n = 3."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from polyai.errors import ShapeError
from polyai.shapes.dim import Dim, by_name
from polyai.shapes.expr import Size, SizeExpr, Sym, evaluate, show, substitute, symbols
from polyai.term.node import node


@node
class Operand:
    """A declared shape by the name the user knows it by."""

    name: str
    shape: tuple[Size, ...]

    def __str__(self) -> str:
        return f"{self.name}[{', '.join(show(s) for s in self.shape)}]"


@node
class Binding:
    """The value of a symbol and the place that gave it."""

    value: int
    place: str


def unify(operands: Sequence[Operand], shapes: Sequence[tuple[int, ...]], dims: Iterable[Dim] = ()) -> dict[str, int]:
    """Values of all symbols of the declared shapes, given the concrete shapes in the same order.

    Raises ShapeError that names the dimension, the values that clash and the operands that gave them: for a wrong number of
    dimensions, sizes that disagree, a size outside its declared range, a symbol that no shape determines.
    """
    bound: dict[str, Binding] = {}
    open_places: list[tuple[str, Operand, Size, int]] = []
    for operand, shape in zip(operands, shapes, strict=True):
        if len(operand.shape) != len(shape):
            raise ShapeError(
                f"{operand.name} has {len(shape)} dimensions, not {len(operand.shape)}",
                f"its shape is {tuple(shape)}, it is declared as {operand}",
                "reshape it, or change the declaration",
            )
        open_places += [(f"{operand.name}.shape[{d}]", operand, s, int(v)) for d, (s, v) in enumerate(zip(operand.shape, shape))]
    while open_places:
        later = [entry for entry in open_places if not _settle(entry, bound)]
        if len(later) == len(open_places):
            _give_up(later, bound)
        open_places = later
    _in_range(bound, by_name(dims))
    return {name: b.value for name, b in bound.items()}


def _settle(entry: tuple[str, Operand, Size, int], bound: dict[str, Binding]) -> bool:
    """Check one extent or solve it for its last unknown; False if it has more than one, or is not linear in it."""
    place, operand, declared, value = entry
    rest = substitute(declared, {name: b.value for name, b in bound.items()})
    if isinstance(rest, int):
        if rest != value:
            raise _clash(place, operand, declared, value, rest, bound)
        return True
    solved = _linear(rest)
    if solved is None:
        return False
    name, factor, constant = solved
    number, remainder = divmod(value - constant, factor)
    if remainder or number < 0:
        raise ShapeError(
            f"{place} is {value}, which no {name} explains",
            f"it is declared as {show(declared)}{_known(bound, symbols(declared))}",
            f"pass an array whose extent is {show(declared)} for some {name} >= 0",
        )
    bound[name] = Binding(number, place)
    return True


def _linear(size: SizeExpr) -> tuple[str, int, int] | None:
    """(n, a, b) if `size` is a*n + b."""
    constant, found = 0, None
    for monomial, coefficient in size.terms:
        match monomial:
            case ():
                constant = coefficient
            case (Sym(name),) if found is None:
                found = (name, coefficient)
            case _:
                return None
    return None if found is None else (*found, constant)


def _known(bound: dict[str, Binding], names: Iterable[str]) -> str:
    parts = [f"{n} = {bound[n].value} by {bound[n].place}" for n in sorted(names) if n in bound]
    return f", where {', '.join(parts)}" if parts else ""


def _clash(place: str, operand: Operand, declared: Size, value: int, expected: int, bound: dict[str, Binding]) -> ShapeError:
    if isinstance(declared, int):
        return ShapeError(f"{place} is {value}, not {expected}", f"it is declared as {operand}", f"pass an array with {expected} there")
    sources = sorted(symbols(declared))
    what = f"{place} is {value}, but {show(declared)} is {expected}"
    if len(sources) == 1 and show(declared) == sources[0]:
        what = f"dimension {sources[0]} is {expected} by {bound[sources[0]].place} and {value} by {place}"
    why = f"{place} is declared as {show(declared)}{_known(bound, sources)}"
    return ShapeError(what, why, f"make {place} equal to {expected}, or give the two dimensions different names")


def _give_up(places: list[tuple[str, Operand, Size, int]], bound: dict[str, Binding]) -> None:
    place, _, declared, value = places[0]
    missing = sorted(symbols(declared) - set(bound))
    raise ShapeError(
        f"{place} = {value} does not determine {' and '.join(missing)}",
        f"it is declared as {show(declared)}{_known(bound, symbols(declared))}",
        f"declare one array with an extent of just {missing[0]}",
    )


def _in_range(bound: dict[str, Binding], dims: dict[str, Dim]) -> None:
    for name, binding in bound.items():
        dim = dims.get(name)
        if dim is not None and not dim.admits(binding.value):
            raise ShapeError(
                f"dimension {name} is {binding.value}, outside its range",
                f"{binding.place} gave the value; declared is {dim}",
                f"pass an array within the range, or widen Dim({name!r})",
            )


def bind(declared: Size, bound: dict[str, int]) -> int:
    """The value of a declared size. Raises ShapeError naming what is not bound."""
    missing = sorted(symbols(declared) - set(bound))
    if missing:
        raise ShapeError(f"{show(declared)} has no value", f"{', '.join(missing)} is not bound by any argument", "add it to a shape")
    return evaluate(declared, bound)
