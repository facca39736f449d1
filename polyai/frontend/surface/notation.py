"""Index notation, for what operators cannot say.

    i, j, k = indices("i j k")
    C = comprehension((i, j), sum(k, A[i, k] * B[k, j]))
    S = comprehension((i, j), sum(k, Q[i, k] * K[j, k]), within=A[i, j])     stored where A is
    D = comprehension((i,), where(i > 0, x[i - 1], 0.0))
    E = comprehension((i, j), table[ids[i], j])                             a gather

The extent of an index is that of the dimensions it stands in alone; an index that never stands alone is given one by
`index("i", n)`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

from polyai.errors import ShapeError, TraceError
from polyai.frontend.core import Array, Tracer, find_tracer, index_expr, to_size
from polyai.frontend.size_value import SizeValue
from polyai.frontend.surface.affine import by_coordinates
from polyai.frontend.term import Term, convert, reduced
from polyai.scalar import dtype as dt
from polyai.scalar.expr import Apply, Cast, Expr, Load, Var
from polyai.shapes.expr import Size
from polyai.tensor import nodes as tn
from polyai.tensor.nodes import Body
from polyai.term.node import map_children

_MARK = "?"


class IndexVar(Term):
    """An index variable of the user. It stands in bodies under a placeholder name until a comprehension binds it."""

    __slots__ = ("extent", "name")

    def __init__(self, name: str, extent: Any = None) -> None:
        super().__init__(Var(f"{_MARK}{name}:{id(self):x}", dt.i64), weak=True)
        self.name, self.extent = name, extent

    @property
    def placeholder(self) -> str:
        return cast(Var, self.body).name

    def __repr__(self) -> str:
        return self.name


def indices(names: str) -> tuple[IndexVar, ...]:
    """Index variables from their names, separated by spaces or commas."""
    return tuple(IndexVar(n) for n in names.replace(",", " ").split())


def index(name: str, extent: Any = None) -> IndexVar:
    """One index variable, with its extent if it cannot be seen from the accesses."""
    return IndexVar(name, extent)


def access(array: Array, key: tuple[Any, ...]) -> Term:
    """`array[i, j + 1, ids[k]]` in index notation."""
    tracer = array.tracer
    if len(key) != array.rank:
        raise ShapeError(
            f"{tracer.text(array)} has {array.rank} dimensions", f"{len(key)} indices are given in index notation", "give one index per dimension"
        )
    return tracer.read(array, [_place(tracer, k) for k in key])


def _place(tracer: Tracer, value: Any) -> Expr:
    if isinstance(value, Array):
        if value.rank:
            raise TraceError(f"{tracer.text(value)} stands as an index in index notation", "", "index it as well: x[ids[i]]")
        value = tracer.read(value, ())
    if isinstance(value, SizeValue):
        value = tracer.scalar(value)
    if isinstance(value, Term):
        if not value.dtype.is_integer:
            raise TraceError(f"an index of type {value.dtype}", "", "indices are integers: convert with .astype(int)")
        return cast(Expr, convert(value, dt.i64).body)
    return index_expr(value)


def is_reduction(first: Any) -> bool:
    """Whether `first` is what index notation reduces over."""
    return isinstance(first, IndexVar) or (isinstance(first, tuple) and bool(first) and all(isinstance(v, IndexVar) for v in first))


def reduction(monoid: str, over: Any, value: Any, within: Any = None) -> Term:
    """`monoid` of `value` over the indices `over`, at the coordinates stored in `within` if given."""
    bound = over if isinstance(over, tuple) else (over,)
    tracer = find_tracer((value, within), "a reduction in index notation")
    body = value if isinstance(value, Term) else tracer.scalar(value) if not isinstance(value, Array) else tracer.read(value, ())
    if monoid == "add" and (body.dtype.kind == "b" or body.dtype.is_integer):
        body = convert(body, dt.u64 if body.dtype.kind == "u" else dt.i64)
    withins = _withins(tracer, within)
    extents = {v.placeholder: v.extent for v in bound}
    marked = tuple(tn.Index(name, -1 if extent is None else to_size(extent, tracer)) for name, extent in extents.items())
    out = reduced(monoid, marked, body, withins)
    return Term(out.body, False, tracer)


def _withins(tracer: Tracer, within: Any) -> tuple[tn.Within, ...]:
    if within is None:
        return ()
    out = []
    for item in within if isinstance(within, (tuple, list)) else (within,):
        body = item.body if isinstance(item, Term) else None
        if not isinstance(body, Load) or not all(isinstance(i, Var) for i in body.indices) or tracer.types[body.array].pattern is None:
            raise TraceError("within needs a sparse array indexed by plain index variables", "", "write within=A[i, j]")
        pattern = tracer.types[body.array].pattern
        assert pattern is not None
        owner = [""] * len(pattern.dims)
        for d, place in zip(pattern.dims, body.indices):
            owner[d] = cast(Var, place).name
        out.append(tn.Within(pattern.owner, tuple(owner)))
    return tuple(out)


def comprehension(target: Any, body: Any, *, within: Any = None, name: str = "comprehension") -> Any:
    """The array whose element at the indices `target` is `body`. With `within=A[...]` over all of them the result is
    stored where A is. Raises TraceError for an index without an extent, ShapeError where extents differ."""
    bound: tuple[IndexVar, ...] = tuple(target) if isinstance(target, (tuple, list)) else (target,)
    tracer = find_tracer((body, within, *(v.extent for v in bound)), "comprehension")
    value = body if isinstance(body, Term) else tracer.scalar(body) if not isinstance(body, Array) else tracer.read(body, ())
    withins = _withins(tracer, within)
    scope: dict[str, tn.Index] = {}
    for v in bound:
        extent = None if v.extent is None else to_size(v.extent, tracer)
        uses = [*_uses(value.body, v.placeholder, tracer), *_uses_in(withins, v.placeholder, tracer)]
        scope[v.placeholder] = tracer.index(_extent(tracer, v.name, extent, uses), v.name)
    out = Term(_closed(tracer, value.body, scope), value.weak, tracer)
    owned = tuple(_renamed(w, scope) for w in withins)
    pattern = None
    if owned:
        order = [scope[v.placeholder].name for v in bound]
        if len(owned) != 1 or sorted(owned[0].indices) != sorted(order):
            raise TraceError("within of a comprehension names other indices than its target", "", "restrict the reduction: sum(k, ..., within=A[i, k])")
        pattern = tn.Pattern(owned[0].tensor, tuple(owned[0].indices.index(n) for n in order))
    points = [scope[v.placeholder] for v in bound]
    return tracer.emit(name, points, Term(by_coordinates(tracer, out.body, points), out.weak, tracer), owned, pattern, strong=True)


def _uses(body: Body, name: str, tracer: Tracer) -> Iterator[Size]:
    """Extents of the dimensions that the index stands in alone, reductions that bind it anew left out."""
    match body:
        case Load(array, places):
            for place, extent in zip(places, tracer.types[array].shape):
                if isinstance(place, Var) and place.name == name:
                    yield extent
                else:
                    yield from _uses(place, name, tracer)
        case Apply(_, args):
            for arg in args:
                yield from _uses(arg, name, tracer)
        case Cast(arg):
            yield from _uses(arg, name, tracer)
        case tn.Reduce():
            if all(i.name != name for i in body.over):
                yield from _uses(body.body, name, tracer)
                yield from _uses_in(body.within, name, tracer)
        case _:
            return


def _uses_in(withins: Iterable[tn.Within], name: str, tracer: Tracer) -> Iterator[Size]:
    for w in withins:
        for d, n in enumerate(w.indices):
            if n == name:
                yield tracer.types[w.tensor].shape[d]


def _extent(tracer: Tracer, name: str, given: Size | None, uses: Sequence[Size]) -> Size:
    sizes = [*([] if given is None else [given])] or list(uses)
    if not sizes:
        raise TraceError(f"index {name} has no extent", "it stands alone in no dimension", f'write index("{name}", size)')
    for other in sizes[1:]:
        if not tracer.sizes.unify(sizes[0], other, f"index {name}"):
            a, b = tracer.sizes.described(sizes[0]), tracer.sizes.described(other)
            raise ShapeError(f"index {name} runs over {a} and over {b}", "it stands in dimensions of different sizes", f'give it one: index("{name}", size)')
    return tracer.sizes.resolve(sizes[0])


def _closed(tracer: Tracer, body: Body, scope: dict[str, tn.Index]) -> Body:
    """`body` with placeholders replaced by the indices in scope; each reduction gets index variables of its own."""
    match body:
        case Var(name) if name.startswith(_MARK):
            if name not in scope:
                raise TraceError(f"index {name[1:].split(':')[0]} is neither a target nor reduced", "", "add it to the target or reduce over it")
            return Var(scope[name].name, dt.i64)
        case tn.Reduce():
            inner = dict(scope)
            for i in body.over:
                stem = i.name[1:].split(":")[0]
                uses = [*_uses(body.body, i.name, tracer), *_uses_in(body.within, i.name, tracer)]
                inner[i.name] = tracer.index(_extent(tracer, stem, None if i.extent == -1 else i.extent, uses), stem)
            over = tuple(inner[i.name] for i in body.over)
            return tn.Reduce(body.monoid, over, _closed(tracer, body.body, inner), body.dtype, tuple(_renamed(w, inner) for w in body.within))
        case _:
            return map_children(body, lambda child: _closed(tracer, child, scope))


def _renamed(within: tn.Within, scope: dict[str, tn.Index]) -> tn.Within:
    if any(n not in scope for n in within.indices):
        raise TraceError("within names an index that is neither a target nor reduced", "", "add it to the target or reduce over it")
    return tn.Within(within.tensor, tuple(scope[n].name for n in within.indices))
