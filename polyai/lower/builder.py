"""The statements of a scop while they are written: arrays that are declared, places, expressions over the dims of a statement.

    Y[i,j] = max(T[i,j] + b[j], 0)      Y[i_1,j_1]   Y[i_1,j_1] = max(T[i_1,j_1] + b[j_1], 0.0)     0 <= i_1 < n, 0 <= j_1 < m

What a sparse tensor stores is read by position, where its walk is at hand; a workspace by coordinates.
"""

from __future__ import annotations

import dataclasses
from typing import Any, cast

from polyai.errors import UnsupportedError, VerifyError
from polyai.lower import fibre
from polyai.lower.frames import Frame, Frames
from polyai.lower.joined import Joined
from polyai.lower.needs import needless_bases
from polyai.poly import nodes as poly
from polyai.poly.access import reads_of, row_of, whole_of, write_of
from polyai.poly.affine import Parameters
from polyai.scalar import dtype as dt
from polyai.scalar.build import cast as convert
from polyai.scalar.expr import Apply, Cast, Expr, Load, Var
from polyai.shapes.expr import Size
from polyai.tensor import nodes as tn
from polyai.tensor.bodies import joins_of, loads, selects_of, size_symbols, stored_at, zero
from polyai.term.names import Names
from polyai.term.node import map_children


class Builder:
    """Writes statements. `alias` names the array that holds a tensor which is updated in place."""

    def __init__(self, program: tn.Program) -> None:
        self.program = program
        self.types = tn.types_of(program)
        self.parameters = Parameters()
        self.names = Names()
        self.array_names = Names(self.types)
        self.arrays: dict[str, poly.Array] = {}
        self.statements: list[poly.Statement] = []
        self.alias = dict(needless_bases(program))
        self.joins = joins_of(program)
        self.streams: dict[str, poly.Stream] = {}
        self.joined = Joined(self.types, self.joins, self.streams, self._values)
        self.frames = Frames(self.types, self.parameters, size_symbols(program), selects_of(program), self.streams, self._expr)

    # --- places -----------------------------------------------------------------------------------------------------------

    def _dense_at(self, frame: Frame, indices: tuple[tn.Index, ...]) -> tuple[Expr, ...]:
        return tuple(frame.values[i.name] for i in indices)

    def _at(self, frame: Frame, indices: tuple[tn.Index, ...], type_: tn.TensorType) -> tuple[Expr, ...]:
        return frame.walks[0].position if type_.is_sparse else self._dense_at(frame, indices)

    def _outer_position(self, inner: Frame, outer: Frame) -> tuple[Expr, ...]:
        """The position of the comprehension's own walk, in the frame of its reduction."""
        mine = outer.walks[0]
        return next(w.position for w in inner.walks if (w.owner, w.variables) == (mine.owner, mine.variables))

    # --- expressions ------------------------------------------------------------------------------------------------------

    def _expr(self, frame: Frame, body: tn.Body, dtype: dt.DType | None = None) -> Expr:
        """`body` over the dims of `frame`: coordinates for variables, positions for accesses of sparse tensors."""

        def change(item: Any) -> Any:
            match item:
                case Var(name):
                    return frame.values.get(name, item)
                case tn.Reduce():
                    raise VerifyError("a reduction inside a body", "the program is not canonical", "run the pass canonical first")
                case Load(array) if self.types[array].is_sparse:
                    return self._stored(frame, item)
                case Load(array, indices, dtype):
                    return Load(self.alias.get(array, array), tuple(change(i) for i in indices), dtype)
                case Apply() if self.joins:
                    return self.joined.where_stored(frame.walks, item, map_children(item, change))
                case _:
                    return map_children(item, change)

        out = cast("Expr", change(body))
        return out if dtype is None else convert(out, dtype)

    def _stored(self, frame: Frame, load: Load) -> Expr:
        wanted = stored_at(load, self.types)
        for walk in frame.walks:
            if wanted is not None and (walk.owner, walk.variables) == (wanted.tensor, wanted.indices):
                if load.array in self.streams:  # a workspace: its elements are where their coordinates say
                    values, order = {v: e for w in frame.walks for v, e in w.coordinates}, self.frames.format(load.array).order
                    return Load(load.array, tuple(values[wanted.indices[d]] for d in order), load.dtype)
                return Load(self._values(load.array), walk.position, load.dtype)
        found = self.joined.part(frame.walks, load)
        if found is not None:
            value, here = found
            return value if here is None else Apply("where", (here, value, cast("Expr", zero(load.dtype))), load.dtype)
        raise UnsupportedError(
            f"{load.array} is sparse and read at coordinates that the statement does not walk",
            "its stored elements can only be visited in order",
            f"read {load.array}[i, j] by the index variables of its own walk, or convert it with .toarray()",
        )

    def _values(self, tensor: str) -> str:
        pattern = self.types[tensor].pattern
        own = pattern is not None and pattern.owner == tensor
        return f"{tensor}.val" if own and any(i.name == tensor for i in self.program.inputs) else tensor

    def _declare(self, name: str, type_: tn.TensorType, role: str) -> None:
        if role != "input" and name in self.arrays and self.arrays[name].role == "input":
            del self.arrays[name]  # the values of an argument's pattern, which this program makes
        if type_.pattern is None:
            self.arrays.setdefault(name, poly.Array(name, type_.dtype, type_.shape, role))
        elif type_.format is not None:
            self.arrays.update((a.name, a) for a in fibre.arrays(name, type_))
        else:
            owner = type_.pattern.owner
            self.arrays.setdefault(name, poly.Array(name, type_.dtype, fibre.extents(owner, self.types[owner]), role))

    # --- statements -------------------------------------------------------------------------------------------------------

    def _add(
        self,
        stem: str,
        frame: Frame,
        target: str,
        at: tuple[Expr, ...],
        value: Expr,
        monoid: str | None,
        pushes: tuple[tuple[str, Expr], ...] = (),
        when: Expr | None = None,
        groups: str = "",
        once: Expr | None = None,
    ) -> None:
        name = self.names.fresh(poly.isl_name(stem))
        domain = f"{{ {name}[{', '.join(frame.dims)}]{' : ' if frame.limits else ''}{' and '.join(frame.limits)} }}"
        relation = poly.Relation(target, "", False)
        bare = poly.Statement(
            name, tuple(frame.dims), frame.ragged, domain, target, at, value, monoid, relation, (), tuple(frame.extents), pushes, groups=groups, once=once, when=when
        )
        roots = bare.roots
        for root in roots:
            self._note_sizes(root, set(frame.dims))
        known = set(frame.dims) | set(self.parameters.sizes)
        head = f"{name}[{', '.join(frame.dims)}]"
        arrays = {a: self.arrays[a] for a in (target, *(load.array for root in roots for load in loads(root)), *(e.array for e in bare.entered))}
        arrays.update((r.drains, self.arrays[r.drains]) for r in frame.ragged if r.drains)
        limits = {a: tuple(self._extent(e) for e in array.extents) for a, array in arrays.items()}
        drained = tuple(row_of(head, r.drains, r.places, known, limits) for r in frame.ragged if r.drains)
        write = write_of(head, target, at, value.dtype, known, limits)
        write = dataclasses.replace(write, must=write.must and not frame.ragged and when is None)
        entered = (whole_of(head, e, known, limits) for e in bare.entered)
        reads = tuple(dict.fromkeys((*reads_of(head, roots, known, limits), *drained, *entered)))
        self.statements.append(dataclasses.replace(bare, write=write, reads=reads))

    def _note_sizes(self, expr: Expr, dims: set[str]) -> None:
        match expr:
            case Var(name) if name not in dims:
                self.parameters.symbol(name)
            case Load(_, parts) | Apply(_, parts):
                for part in parts:
                    self._note_sizes(part, dims)
            case Cast(arg):
                self._note_sizes(arg, dims)
            case _:
                pass

    def _extent(self, extent: Size | poly.Ragged) -> str:
        if isinstance(extent, poly.Ragged):
            hull = poly.hull_of(extent.tensor, extent.level)
            self.frames.hulls[hull] = None
            return hull
        return self.parameters.text(extent)
