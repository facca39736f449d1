"""Where logical arrays live: parameters of the kernel, physical extents, positions of fibres."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from polyai.errors import UnsupportedError, VerifyError
from polyai.loop import build as b
from polyai.loop import nodes as lp
from polyai.poly import nodes as po
from polyai.scalar import dtype as dt
from polyai.scalar.dtype import DType
from polyai.scalar.expr import Apply, Cast, Const, Expr, Load
from polyai.shapes.expr import Size, symbol
from polyai.sparse.level import ArraySpec
from polyai.sparse.levels.compressed import Compressed
from polyai.sparse.levels.singleton import Singleton
from polyai.tensor import nodes as tn
from polyai.term.node import node


def index_dtype(bits: int) -> DType:
    """The element type of index arrays of `bits` bits."""
    return dt.BY_NAME[f"i{bits}"]


@node
class Stored:
    """A sparse input: its index arrays, and how many positions each level has."""

    name: str
    type: tn.TensorType
    arrays: tuple[ArraySpec, ...]
    counts: tuple[Size, ...]
    index: DType

    def parents(self, level: int) -> Size:
        """How many positions the level above has."""
        return self.counts[level - 1] if level else 1


def stored(name: str, type: tn.TensorType) -> Stored:
    """The storage of the sparse input `name`."""
    if type.format is None:
        raise VerifyError(f"{name} has no format")
    levels = type.format.levels
    last = max((k for k, level in enumerate(levels) if isinstance(level, Compressed)), default=-1)
    arrays: list[ArraySpec] = []
    counts: list[Size] = []
    above: Size = 1
    for k, level in enumerate(levels):
        if level.full:
            here: Size = above * type.shape[type.format.order[k]]
        elif isinstance(level, Singleton):
            here = above
        else:
            here = symbol(tn.nnz_of(name) if k == last else f"{tn.nnz_of(name)}{k}")
        arrays.extend(level.arrays(name, k, above, here))
        counts.append(here)
        above = here
    return Stored(name, type, tuple(arrays), tuple(counts), index_dtype(type.format.index_bits))


class Storage:
    """Physical views of the arrays of one scop. `size` makes loop expressions of sizes."""

    def __init__(self, scop: po.Scop, program: tn.Program, size: Callable[[Size], lp.LoopExpr]) -> None:
        self.size = size
        self.arrays = {a.name: a for a in scop.arrays}
        self.stored = {i.name: stored(i.name, i.type) for i in program.inputs if i.type.format is not None}
        self.levels = {spec.name: (s, spec) for s in self.stored.values() for spec in s.arrays}
        self.packed = frozenset(program.packed)  # positions that are bounds only are wide
        types = tn.types_of(program)
        for name in program.assembled:
            made = self.stored[name] = stored(name, types[name])
            self.levels.update((spec.name, (made, spec)) for spec in made.arrays if spec.role == "pos")
        self.values = {f"{name}.val": s for name, s in self.stored.items()}
        self.below = {i.name: i.below for i in program.inputs if i.below is not None}

    def dtype(self, array: str) -> DType:
        """The element type in memory."""
        if array in self.levels:
            owner, spec = self.levels[array]
            return dt.i64 if spec.role == "pos" and owner.name in self.packed else owner.index
        return self.arrays[array].dtype

    def computed(self, array: str) -> po.Ragged | None:
        """The level whose coordinates `array` names though no list of them is in memory: they follow from the positions."""
        if array not in self.levels or self.levels[array][1].role != "crd":
            return None
        owner, spec = self.levels[array]
        number = int(spec.name.rpartition("crd")[2])
        level = None if owner.type.format is None else owner.type.format.levels[number]
        return po.Ragged(owner.name, number) if isinstance(level, Compressed) and level.computed else None

    def listed(self, array: str) -> tuple[str, int, Size] | None:
        """The tensor, the level and the extent of coordinates that an argument lists: nobody has checked them. None for other arrays."""
        if array not in self.levels or self.levels[array][1].role != "crd" or self.computed(array) is not None:
            return None
        owner, spec = self.levels[array]
        form = owner.type.format
        if form is None or form.owned or form.blocked or form.padded:
            return None
        level = int(spec.name.rpartition("crd")[2])
        return owner.name, level, owner.type.shape[form.order[level]]

    def is_known_below(self, index: Expr, extent: Size) -> bool:
        """True if `index` reads an element of an array whose elements were all found to be in 0 <= value < extent, or is the
        quotient or the remainder of such an element by a number."""
        while isinstance(index, Cast):
            index = index.arg
        match index:
            case Apply("floordiv", (inner, Const(int(divisor)))) if divisor > 0:
                return self.is_known_below(inner, extent * divisor)
            case Apply("mod", (_, Const(int(divisor)))) if divisor > 0:
                return extent == divisor
            case _:
                pass
        if not isinstance(index, Load):
            return False
        if index.array in self.levels:
            owner, spec = self.levels[index.array]
            form = owner.type.format
            if form is None or not form.owned or spec.role != "crd":
                return False
            return owner.type.shape[form.order[int(spec.name.rpartition("crd")[2])]] == extent
        return self.below.get(index.array) == extent

    def is_input(self, array: str) -> bool:
        """True if the kernel only reads it."""
        return array in self.levels or (array in self.arrays and self.arrays[array].role == "input")

    def is_one_element(self, array: po.Array) -> bool:
        """True for a temporary whose dimensions all have one index: it can live in a register."""
        return array.role == "temporary" and all(e == 1 for e in array.extents)

    def fibre_at(self, array: po.Array) -> tuple[int, po.Ragged] | None:
        """The dimension that holds physical positions of a whole tensor: its fibre's dimension, below all of its parents."""
        found = [(d, e) for d, e in enumerate(array.extents) if isinstance(e, po.Ragged)]
        if not found:
            return None
        d, fibre = found[-1]
        if fibre.tensor not in self.stored:
            raise UnsupportedError(
                f"{array.name} is a sparse array made inside a branch or a loop, and stored there",
                "how much it holds is known only when the kernel runs; sums over it are compiled, and products with dense arrays",
                "compute it outside of the region, or make it dense",
            )
        levels = self.stored[fibre.tensor].type.format
        if levels is None:
            raise VerifyError(f"{fibre.tensor} has no format")
        above = sum(not isinstance(x, Singleton) for x in levels.levels[: fibre.level])
        return (d, fibre) if d == above else None

    def extents(self, name: str) -> tuple[lp.LoopExpr, ...]:
        """Extents in memory."""
        if name in self.levels:
            return (self.size(self.levels[name][1].length),)
        array = self.arrays[name]
        if self.is_one_element(array):
            return ()
        whole = self.fibre_at(array)
        if whole is None:
            return tuple(b.var(po.hull_of(e.tensor, e.level)) if isinstance(e, po.Ragged) else self.size(e) for e in array.extents)
        d, fibre = whole
        rest = array.extents[d + 1 :]
        count = self.stored[fibre.tensor].counts[fibre.level]
        return (self.size(count), *(self.size(e) for e in rest if not isinstance(e, po.Ragged)))

    def place(
        self, name: str, indices: Sequence[lp.LoopExpr], begins: Mapping[tuple[str, int], lp.LoopExpr]
    ) -> tuple[lp.LoopExpr, ...]:
        """Indices in memory of the logical `indices`, given where the fibres at hand begin."""
        if self.is_one_element(self.arrays[name]):
            return ()
        whole = self.fibre_at(self.arrays[name])
        if whole is None:
            return tuple(indices)
        d, fibre = whole
        begin = begins.get((fibre.tensor, fibre.level))
        if begin is None:
            raise VerifyError(f"{name} is accessed outside the fibre {fibre.tensor}.{fibre.level} it is stored along")
        return (b.add(begin, indices[d]), *indices[d + 1 :])

    def position(
        self, dim: po.RaggedDim, values: Mapping[str, lp.LoopExpr], begins: Mapping[tuple[str, int], lp.LoopExpr]
    ) -> lp.LoopExpr:
        """The position of the parent of the fibre that `dim` walks."""
        owner = self.stored[dim.tensor]
        at: lp.LoopExpr = b.ZERO
        parents = iter(p for p in dim.parents if p != dim.piece)
        format_ = owner.type.format
        if format_ is None:
            raise VerifyError(f"{dim.tensor} has no format")
        for k, level in enumerate(format_.levels[: dim.level]):
            if isinstance(level, Singleton):
                continue
            value = values[next(parents)]
            if level.full:
                at = b.add(b.mul(at, self.size(owner.type.shape[format_.order[k]])), value)
            else:
                at = b.add(begins[(dim.tensor, k)], value)
        return at
