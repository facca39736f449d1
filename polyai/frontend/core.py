"""The tracer: it owns the names, the sizes and the steps of one trace, and hands out arrays that stand for tensors.

Regions of control flow are traced by the same tracer: what is emitted goes to the innermost open region, and an array
from outside that is used in a region becomes one of its arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from polyai.errors import ShapeError, TraceError, UnsupportedError
from polyai.frontend.size_value import SizeValue
from polyai.frontend.sizes import Sizes
from polyai.frontend.term import Term, term
from polyai.scalar import dtype as dt
from polyai.scalar.dtype import DType
from polyai.scalar.expr import Const, Expr, Load, Var
from polyai.shapes.expr import Size
from polyai.sparse import interop
from polyai.sparse.format import Format
from polyai.tensor import nodes as tn
from polyai.tensor.bodies import from_size, in_owner
from polyai.term.late import late
from polyai.term.names import Names

if TYPE_CHECKING:
    from polyai.frontend import linearity
else:
    linearity = late("polyai.frontend.linearity")

RESERVED = (
    "exists", "and", "or", "not", "implies", "infty", "infinity", "nan", "inf", "min", "max", "mod", "floor", "ceil", "floord",
    "ceild", "lcm", "rat", "true", "false", "step", "domain", "range", "coalesce", "sum",
)  # fmt: skip
"""Words with a meaning in isl's text, never given to tensors, sizes or index variables."""

LETTERS = "ijklmnpqrs"

Shape = tuple[Size, ...]


class Region:
    """The steps of a program or of a region of control flow, and what it takes from outside."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.steps: list[tn.Step] = []
        self.inputs: dict[str, tn.TensorType] = {}
        self.taken: dict[str, tn.TensorType] = {}
        self.open = True


class Array:
    """A tensor of the program being traced. `weak`: its type yields as a Python number's does. `is_matrix`: SciPy's
    spmatrix, whose `*` is the matrix product."""

    __slots__ = ("is_matrix", "name", "region", "tracer", "type", "weak")

    def __init__(self, tracer: Tracer, region: Region, name: str, type: tn.TensorType, weak: bool = False, is_matrix: bool = False) -> None:
        self.tracer, self.region, self.name, self.type = tracer, region, name, type
        self.weak, self.is_matrix = weak, is_matrix

    @property
    def dtype_(self) -> DType:
        return self.type.dtype

    @property
    def extents(self) -> Shape:
        """The shape in terms of the representing symbols."""
        resolve = self.tracer.sizes.resolve
        return tuple(map(resolve, self.type.shape))

    @property
    def rank(self) -> int:
        return len(self.type.shape)

    def times(self, other: Array) -> Array | None:
        """The matrix product with `other`, if this array has a way of its own to compute it."""
        return None

    def from_left(self, other: Array) -> Array | None:
        """The matrix product `other` @ this array, if this array has a way of its own to compute it."""
        return None

    @property
    def is_sparse(self) -> bool:
        return self.type.pattern is not None


class NothingTraced(TraceError):
    """A function of arrays was given plain numbers only, outside of a trace."""


class Selected:
    """What a sparse array holds of another one: `source` entered along `dimension` by the selection `select`."""

    __slots__ = ("dimension", "select", "source")

    def __init__(self, source: Array, select: Array, dimension: int) -> None:
        self.source, self.select, self.dimension = source, select, dimension


class Composite:
    """Several arrays of a trace that act as one value. Functions say themselves what they mean on it."""

    __slots__ = ()

    @property
    def tracer(self) -> Tracer:
        raise NotImplementedError


class Tracer:
    """One trace. `array_type` is the class of the arrays handed out."""

    def __init__(self, name: str, array_type: type[Array]) -> None:
        self.names = Names(RESERVED)
        self.sizes = Sizes(self.size_array)
        self.root = Region(name)
        self.regions = [self.root]
        self.array_type = array_type
        self.texts: dict[str, str] = {}
        self.inputs: list[tn.Input] = []
        self.captured: dict[int, tuple[Array, Any]] = {}
        self.rows: Mapping[str, tuple[int, ...]] = {}  # captured sparse arrays that are converted to CSR, or to slices in an order
        self.types: dict[str, tn.TensorType] = {}
        self.along: dict[str, Array | Callable[[], Array]] = {}  # dense vectors that lie along a pattern, by name: as sparse arrays
        self.data_of: dict[int, tuple[Array, Array]] = {}  # by id: the data of a sparse array, and that array
        self.copies: dict[int, Array] = {}  # by id: what `copy` gave
        self.needs_unique: dict[str, None] = {}
        self.merged: dict[str, None] = {}
        self.copied: dict[str, str] = {}  # by pattern made: the one whose rows it copies in order
        self.lines: dict[str, Array] = {}  # by dense vector: the sparse matrix of one row that it is, returned in its place
        self.presence: dict[str, Array] = {}  # by dense array made of a sparse one: where that stores something
        self.alike: dict[str, Array] = {}  # by pattern made: the same elements along another pattern, with zeros stored
        self.selected: dict[str, Selected] = {}  # by pattern made
        self.joins: dict[object, str] = {}
        self.home: dict[str, Region] = {}  # by pattern made: the region that makes it
        self.conversions: dict[tuple[str, tuple[int, ...], int], Array] = {}
        self.meanings: dict[object, str] = {}  # by step without its names: the first array computed so
        self.same: dict[str, str] = {}  # arrays that are computed as an earlier one is
        self.compared = 0  # steps that were looked at for that
        self.selections: dict[object, tuple[Array, ...]] = {}  # lists of what data select
        self._read_sparse = False
        self.not_negative: dict[str, None] = {}
        self.scalars: dict[str, bool | int] = {}

    # -- inputs

    def add_input(self, name: str, type: tn.TensorType, text: str, weak: bool = False, is_matrix: bool = False) -> Array:
        """A new input of the program; `name` must come from `names`."""
        self.inputs.append(tn.Input(name, type))
        self.texts[name] = text
        self.types[name] = type
        return self.array_type(self, self.root, name, type, weak, is_matrix)

    def trust(self, array: Array, below: Size) -> None:
        """Note that the integers of the input `array` were found to be in 0 <= value < below and cannot change."""
        at = next(n for n, i in enumerate(self.inputs) if i.name == array.name)
        found = self.inputs[at]
        self.inputs[at] = tn.Input(found.name, found.type, found.unique, below)

    def capture(self, value: Any) -> Array:
        """An array of the surrounding Python scope as an input whose value stays the one object."""
        known = self.captured.get(id(value))
        if known is not None:
            return known[0]
        described = interop.describe(value)
        if described is not None:
            if described.format.fill_value != 0:
                raise UnsupportedError(f"a sparse array filled with {described.format.fill_value} of the scope around", "only arguments may have a fill value", "pass it as an argument")
            name = self.sparse_name("captured")
            if name in self.rows:
                described = interop.describe(interop.as_rows(value, self.rows[name]))
                assert described is not None
            self.sizes.add(tn.nnz_of(name), f"{name}.nnz", described.nnz)
            pattern = tn.Pattern(name, tuple(range(len(described.shape))))
            array = self.add_input(name, tn.TensorType(described.dtype, described.shape, described.format, pattern), name)
            array.is_matrix = described.is_matrix
        else:
            given = np.asarray(value)
            dtype = dt.from_numpy(given.dtype, "a captured array")
            name = self.names.fresh("captured")
            array = self.add_input(name, tn.TensorType(dtype, given.shape), name)
        self.captured[id(value)] = (array, value)
        return array

    def sparse_name(self, stem: str) -> str:
        """A fresh name for a sparse input; the names that derive from it are taken as well."""
        name = self.names.fresh(stem)
        for suffix in ("val", "pos0", "pos1", "crd0", "crd1", "len0", "len1", "max0", "max1", "nnz"):
            self.names.fresh(f"{name}_{suffix}")
        return name

    # -- indices and steps

    def index(self, extent: Size, stem: str = "i") -> tn.Index:
        """A new index variable over 0 <= i < extent."""
        return tn.Index(self.names.fresh(stem), extent)

    def indices(self, extents: Sequence[Size], start: int = 0) -> tuple[tn.Index, ...]:
        """New index variables, one per extent, named i, j, k, ..."""
        return tuple(tn.Index(self.names.fresh(LETTERS[min(start + n, len(LETTERS) - 1)]), e) for n, e in enumerate(extents))

    def use(self, array: Array) -> str:
        """The name of `array` for a step of the innermost region."""
        if array.tracer is not self:
            raise TraceError("arrays of two traces meet", f"{self.text(array)} was made by another call", "pass it as an argument")
        if not array.region.open:
            raise TraceError(
                f"{array.name} is used outside the {array.region.name} it was made in",
                "what a region computes is visible through its results only",
                "return it from the region",
            )
        for region in self.regions[self.regions.index(array.region) + 1 :]:
            if array.name not in region.inputs:
                if array.type.pattern is not None and array.type.pattern.owner != array.name:  # with what it lies along
                    owner = array.type.pattern.owner
                    self.use(self._owner(owner))
                region.inputs[array.name] = array.type
                region.taken[array.name] = array.type
        return array.name

    def read(self, array: Array, at: Iterable[Any]) -> Term:
        """The element of `array` at the given index expressions (indices, expressions, numbers)."""
        if array.type.pattern is not None:
            self.within(array, ())
            self._read_sparse = True
        return Term(Load(self.use(array), tuple(map(index_expr, at)), array.type.dtype), array.weak, self)

    def emit(
        self,
        stem: str,
        indices: Sequence[tn.Index],
        value: Term,
        within: tuple[tn.Within, ...] = (),
        pattern: tn.Pattern | None = None,
        is_matrix: bool = False,
        strong: bool = False,
    ) -> Array:
        """One comprehension: a new array with `value` at each point of `indices`."""
        name = self.names.fresh(stem)
        type = tn.TensorType(value.dtype, tuple(i.extent for i in indices), None, pattern)
        return self.add_step(tn.Comprehension(name, type, tuple(indices), value.body, within), value.weak and not strong, is_matrix)

    def scatter(
        self, stem: str, base: Array, monoid: str | None, indices: Sequence[tn.Index], at: Iterable[Any], value: Term, within: tuple[tn.Within, ...] = ()
    ) -> Array:
        """One scatter: a new array that starts as `base`."""
        name = self.names.fresh(stem)
        step = tn.Scatter(
            name, tn.TensorType(base.type.dtype, base.extents), self.use(base), monoid, tuple(indices), tuple(map(index_expr, at)), value.body, within
        )
        return self.add_step(step)

    def add_step(self, step: tn.Comprehension | tn.Scatter | tn.Join | tn.Select | tn.Spread | tn.Listing, weak: bool = False, is_matrix: bool = False) -> Array:
        """Append a step to the innermost region."""
        region = self.regions[-1]
        region.steps.append(step)
        self.types[step.target] = step.type
        if tn.owns_a_pattern(step):
            self.home[step.target] = region
        if not isinstance(step, (tn.Join, tn.Select, tn.Spread, tn.Listing)) and (self._read_sparse or step.within):
            found = linearity.owners_that_must_be_unique(step, self.types)
            self.needs_unique.update(dict.fromkeys(i.name for i in self.inputs if i.name in found))
            self._read_sparse = False
        return self.array_type(self, region, step.target, step.type, weak, is_matrix)

    @contextmanager
    def outside(self) -> Iterator[None]:
        """Within the block, steps go to the outermost region."""
        inner, self.regions = self.regions, self.regions[:1]
        try:
            yield
        finally:
            self.regions = inner

    def argument(self, array: Array) -> tuple[Array, tuple[int, ...]] | None:
        """The sparse argument that `array` is, or is transposed, and the order of its dimensions; None for what is computed."""
        pattern = array.type.pattern
        if pattern is None or all(i.name != pattern.owner for i in self.inputs):
            return None
        owner = self.array_type(self, self.root, pattern.owner, self.types[pattern.owner], is_matrix=array.is_matrix)
        if array.name == owner.name:
            return owner, tuple(range(owner.rank))
        steps = (s for s in array.region.steps if isinstance(s, tn.Comprehension) and s.target == array.name)
        if not any(isinstance(s.body, Load) and s.body.array == owner.name for s in steps):
            return None
        return owner, tuple(pattern.dims)

    def _owner(self, name: str) -> Array:
        """What owns a pattern: a sparse argument, or what a step made."""
        return self.array_type(self, self.home.get(name, self.root), name, self.types[name])

    def within(self, array: Array, names: Sequence[str]) -> tn.Within:
        """The stored coordinates of a sparse array, said of its pattern's owner."""
        pattern = array.type.pattern
        assert pattern is not None
        if pattern.owner != array.name and len(self.regions) > 1:
            self.use(self._owner(pattern.owner))
        return in_owner(pattern, tuple(names)) if names else tn.Within(pattern.owner, ())

    # -- values

    def array(self, value: Any) -> Array:
        """`value` as an array of this trace; numbers become scalar arrays."""
        if isinstance(value, Array):
            return value
        if isinstance(value, Composite):
            raise UnsupportedError(f"{value!r} in place of an array", "the function at hand has no meaning on it", "use its values: x.with_values(function(x.values))")
        if isinstance(value, (np.ndarray, list, tuple)):
            return self.capture(value) if isinstance(value, np.ndarray) else self.stack_of(value)
        if interop.is_sparse(value):
            return self.capture(value)
        return self.emit("const", (), self.scalar(value))

    def stack_of(self, values: Sequence[Any]) -> Array:
        """A list of plain numbers as an array. Lists that hold traced arrays are refused."""
        if any(isinstance(v, (Array, SizeValue, Term)) for v in values):
            raise TraceError("a list of traced arrays is no array", "", "join them with stack(...) or concat(...); pass a list of numbers as np.asarray(numbers)")
        return self.capture(np.asarray(values))

    def scalar(self, value: Any) -> Term:
        """A number, a size or a term as a term."""
        if isinstance(value, SizeValue):
            out = Term(from_size(value.size), weak=True, tracer=self)
        else:
            out = term(value)
        return Term(out.body, out.weak, self)

    def size_array(self, size: Size) -> Array:
        """A size as a scalar array, so that it can be divided and take part in arithmetic with floats."""
        return self.emit("size", (), Term(from_size(size), weak=True, tracer=self))

    def size_term(self, size: Size) -> Term:
        """A size as a weak integer term."""
        return Term(from_size(self.sizes.resolve(size)), weak=True, tracer=self)

    # -- texts

    def text(self, array: Array) -> str:
        """How messages call an array: the user's spelling for arguments, the operation for results."""
        return self.texts.get(array.name, f"the result of {array.name.rstrip('_0123456789')}" if array.name else "an array")

    def shape_text(self, array: Array) -> str:
        """`X: (5, 3)`."""
        hints = [self.sizes.hint(s) for s in array.type.shape]
        parts = [self.sizes.text(s) if h is None else str(h) for s, h in zip(array.type.shape, hints)]
        return f"{self.text(array)}: ({', '.join(parts)}{',' if len(parts) == 1 else ''})"

    def shapes_text(self, arrays: Iterable[Array]) -> str:
        return "; ".join(map(self.shape_text, arrays))


def index_expr(value: Any) -> Expr:
    """An index as an expression of i64: an Index, a Term, an expression, a number."""
    if isinstance(value, tn.Index):
        return Var(value.name, dt.i64)
    if isinstance(value, Term):
        return cast(Expr, value.body)
    if isinstance(value, int):
        return Const(value, dt.i64)
    return cast(Expr, value)


def index_term(index: tn.Index) -> Term:
    """The value of an index variable, i64."""
    return Term(Var(index.name, dt.i64))


def format_of(array: Array) -> Format | None:
    """The storage format of a sparse input."""
    return array.type.format


def find_tracer(values: Iterable[Any], function: str) -> Tracer:
    """The trace that the values belong to. Raises TraceError if no value is traced."""
    found = tracer_among(values)
    if found is None:
        raise NothingTraced(
            f"{function} needs a traced array",
            "no argument belongs to a function that is being compiled",
            "pass an array, or call it inside a function decorated with jit",
        )
    return found


def tracer_among(values: Iterable[Any]) -> Tracer | None:
    """The trace that some of the values belong to; None if none does."""
    for value in values:
        if isinstance(value, (Array, Term, Composite)):
            if value.tracer is not None:
                return value.tracer
        elif isinstance(value, SizeValue):
            return cast(Tracer, value.sizes.lift.__self__)  # type: ignore[attr-defined]
        elif isinstance(value, (tuple, list)):
            inner = tracer_among(value)
            if inner is not None:
                return inner
    return None


def to_size(value: Any, tracer: Tracer, what: str = "a size") -> Size:
    """A size given by a user: int, SizeValue, NumPy integer."""
    if isinstance(value, SizeValue):
        return tracer.sizes.resolve(value.size)
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return int(value)
    if isinstance(value, Array):
        return int(value)  # type: ignore[call-overload,no-any-return]
    raise TraceError(f"{value!r} is no {what}", f"its type is {type(value).__name__}", "use an int or a size taken from a shape")


def to_shape(value: Any, tracer: Tracer) -> Shape:
    """A shape given by a user: one size or a sequence of them."""
    if isinstance(value, (tuple, list)):
        return tuple(to_size(v, tracer) for v in value)
    return (to_size(value, tracer),)


def normalized_axis(axis: Any, rank: int, what: str) -> int:
    """An axis in 0 .. rank - 1. Raises ShapeError for one outside, TraceError for one that is traced."""
    if isinstance(axis, Array):
        raise TraceError(f"{what}: the axis is a traced number", "axes are needed while tracing", "mark the argument static")
    number = int(axis)
    if not -rank <= number < rank:
        raise ShapeError(f"{what}: axis {number} of an array with {rank} dimensions", "", f"use {-rank} .. {rank - 1}" if rank else "")
    return number % rank


def normalized_axes(axis: Any, rank: int, what: str) -> tuple[int, ...]:
    """Axes as a sorted tuple; None means all."""
    if axis is None:
        return tuple(range(rank))
    given = axis if isinstance(axis, (tuple, list)) else (axis,)
    out = tuple(normalized_axis(a, rank, what) for a in given)
    if len(set(out)) != len(out):
        raise ShapeError(f"{what}: an axis is named twice", f"axis={axis}")
    return tuple(sorted(out))


def dense(array: Array, what: str) -> Array:
    """`array` itself. Raises UnsupportedError if it is sparse."""
    if array.is_sparse:
        raise UnsupportedError(
            f"{what} of the sparse {array.tracer.text(array)}", "it is not compiled for sparse arrays yet", "use .toarray(), or an operation that keeps the pattern"
        )
    return array
