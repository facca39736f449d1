"""What the levels of a format mean to a statement: which dims walk the stored coordinates, and how arrays lie along them.

A dense level is an affine dim. A compressed level is a ragged dim, the position relative to the begin of its fibre, whose
coordinate is read from `crd`. A singleton level has no dim of its own: its coordinate stands beside the position above it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_never

from polyai.errors import UnsupportedError
from polyai.poly import nodes as poly
from polyai.poly.access import variables_in
from polyai.scalar import dtype as dt
from polyai.scalar.build import cast
from polyai.scalar.expr import Expr, Load, Var
from polyai.shapes.expr import Size, symbol
from polyai.sparse.format import Format
from polyai.sparse.level import Level
from polyai.sparse.levels.compressed import Compressed
from polyai.sparse.levels.dense import Dense
from polyai.sparse.levels.singleton import Singleton
from polyai.tensor import nodes as tn
from polyai.term.names import Names
from polyai.term.node import node


@node
class Walk:
    """How a statement visits the stored coordinates of `owner`, whose dimensions are the index variables `variables`.

    `dims` outermost first, each with the variable it stands for; `position` indexes arrays with the owner's pattern;
    `coordinates` gives each variable its value. A variable that an earlier walk gave a value has no dim here: the level that
    stores it is entered at that value.
    """

    owner: str
    variables: tuple[str, ...]
    dims: tuple[tuple[str, str], ...]
    ragged: tuple[poly.RaggedDim, ...]
    position: tuple[Expr, ...]
    coordinates: tuple[tuple[str, Expr], ...]


def walk(
    owner: str, form: Format, variables: tuple[str, ...], names: Names, values: Mapping[str, Expr] | None = None, stream: poly.Stream | None = None
) -> Walk:
    """The walk of `owner` by `variables`; `names` gives fresh dims, `values` holds the variables that earlier walks bind.

    `stream`: what the owner is, if no array lists its coordinates. Raises UnsupportedError where a list would have to be searched.
    """
    known_values = values or {}
    drains = stream.source.workspace if stream is not None and isinstance(stream.source, (poly.Drain, poly.Located)) else ""
    index_type = dt.BY_NAME[f"i{form.index_bits}"]
    dims: list[tuple[str, str]] = []
    ragged: list[poly.RaggedDim] = []
    position: tuple[Expr, ...] = ()
    coordinates: list[tuple[str, Expr]] = []
    for number, (dimension, level) in enumerate(zip(form.order, form.levels)):
        variable = variables[dimension]
        match known(level, owner):
            case Dense():
                if variable in known_values:
                    position = (*position, known_values[variable])
                    continue
                dim = names.fresh(poly.isl_name(variable))
                dims.append((dim, variable))
                position = (*position, Var(dim, dt.i64))
                coordinates.append((variable, Var(dim, dt.i64)))
                continue
            case Compressed(unique=unique):
                dim = names.fresh("q")
                parents, place = _place(position)
                ragged.append(poly.RaggedDim(dim, owner, number, parents, unique, place, stream is not None, drains))
                dims.append((dim, variable))
                position = (*position, Var(dim, dt.i64))
                if stream is not None:
                    coordinates.append((variable, Load(f"{owner}.next{number}", position, dt.i64)))
                    continue
            case Singleton():
                if stream is not None:
                    coordinates.append((variable, Load(f"{owner}.next{number}", position, dt.i64)))
                    continue
        if variable in known_values:
            raise UnsupportedError(
                f"{owner} is searched for a coordinate that another walk names",
                f"its {level.name} level lists {variable} and cannot locate one",
                f"convert {owner} to a format that stores {variable} outside, or to dense",
            )
        coordinates.append((variable, cast(Load(f"{owner}.crd{number}", position, index_type), dt.i64)))
    return Walk(owner, variables, tuple(dims), tuple(ragged), position, tuple(coordinates))


def _place(position: tuple[Expr, ...]) -> tuple[tuple[str, ...], tuple[Expr, ...]]:
    """The dims that say which fibre lies at `position`, and the position itself where it is more than these dims."""
    dims = tuple(dict.fromkeys(name for e in position for name in variables_in(e)))
    return (dims, ()) if position == tuple(Var(d, dt.i64) for d in dims) else (dims, position)


def known(level: Level, owner: str) -> Dense | Compressed | Singleton:
    """`level`, if statements can walk it. Raises UnsupportedError for other levels."""
    if isinstance(level, (Dense, Compressed, Singleton)):
        return level
    raise UnsupportedError(
        f"{owner} has a {level.name} level, which kernels cannot walk yet",
        "compiled are dense, compressed and singleton levels",
        "convert it to CSR, CSC or COO",
    )


def extents(owner: str, type_: tn.TensorType, upto: int | None = None) -> tuple[Size | poly.Ragged, ...]:
    """The logical extents of an array along the positions of level `upto` of sparse input `owner` (default: its last)."""
    form = format_of(owner, type_)
    out: list[Size | poly.Ragged] = []
    for number, (dimension, level) in enumerate(zip(form.order, form.levels)):
        match known(level, owner):
            case Dense():
                out.append(type_.shape[dimension])
            case Compressed():
                out.append(poly.Ragged(owner, number))
            case Singleton():
                pass
        if number == upto:
            break
    return tuple(out)


def arrays(name: str, type_: tn.TensorType) -> tuple[poly.Array, ...]:
    """The arrays of sparse input `name`: index arrays level by level, then its values."""
    form = format_of(name, type_)
    index_type = dt.BY_NAME[f"i{form.index_bits}"]
    last = max((n for n, level in enumerate(form.levels) if isinstance(level, Compressed)), default=-1)
    out: list[poly.Array] = []
    parents: Size = 1
    for number, (dimension, level) in enumerate(zip(form.order, form.levels)):
        kind = known(level, name)
        match kind:
            case Dense():
                positions: Size = parents * type_.shape[dimension]
            case Compressed():
                positions = symbol(tn.nnz_of(name)) if number == last else symbol(f"{tn.nnz_of(name)}{number}")
            case Singleton():
                positions = parents
            case _:
                assert_never(kind)
        for spec in level.arrays(name, number, parents, positions):
            along = (spec.length,) if spec.role == "pos" else extents(name, type_, number)
            out.append(poly.Array(spec.name, index_type, along, "input"))
        parents = positions
    out.append(poly.Array(f"{name}.val", type_.dtype, extents(name, type_), "input"))
    return tuple(out)


def format_of(name: str, type_: tn.TensorType) -> Format:
    """The format of a sparse input. Raises UnsupportedError if its storage is not chosen yet."""
    if type_.format is None:
        raise UnsupportedError(f"{name} is sparse but has no format", "its levels are unknown", "pass it as an input with a format")
    return type_.format
