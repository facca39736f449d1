"""Control flow that depends on data: cond, while_loop, fori_loop, scan. Regions become programs of their own.

What a region reads from outside becomes one of its arguments; sizes are shared. The state of a loop keeps its shapes and types.
Results and states may be sparse, as values along a pattern that is known before: an argument's, or one made outside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from polyai.errors import DTypeError, ShapeError, TraceError, UnsupportedError
from polyai.frontend import tree
from polyai.frontend.core import Array, Region, Tracer, dense, find_tracer, to_size
from polyai.frontend.size_value import SizeValue
from polyai.frontend.surface.elementwise import astype
from polyai.frontend.surface.pointwise import pointwise, pointwise_stored
from polyai.frontend.term import apply, convert
from polyai.scalar import dtype as dt
from polyai.scalar.dtype import DType
from polyai.shapes.expr import symbols
from polyai.tensor import nodes as tn
from polyai.tensor.passes.sift import selections_in


class _Traced:
    """A region while it is traced: its parameters and its results."""

    def __init__(self, tracer: Tracer, name: str, types: Sequence[tn.TensorType], stems: Sequence[str], like: Sequence[Array] = ()) -> None:
        self.tracer, self.region = tracer, Region(name)
        names = [tracer.names.fresh(s) for s in stems]
        matrices = [a.is_matrix for a in like] or [False] * len(names)
        self.parameters = [tracer.array_type(tracer, self.region, n, t, is_matrix=m) for n, t, m in zip(names, types, matrices)]
        for n, t in zip(names, types):
            self.region.inputs[n] = t
            tracer.types[n] = t
        self.results: list[Array] = []
        self.shape = tree.LEAF

    def run(self, function: Callable[..., Any], arguments: Sequence[Any]) -> None:
        """Trace `function` into the region."""
        self.tracer.regions.append(self.region)
        try:
            leaves, self.shape = tree.flatten(function(*arguments))
            self.results = [_carried(self.tracer.array(v), f"a result of {self.region.name}") for v in leaves]
        finally:
            self.tracer.regions.pop()

    def convert(self, position: int, dtype: DType) -> None:
        """Convert one result inside the region."""
        self.tracer.regions.append(self.region)
        self.results[position] = astype(self.results[position], dtype)
        self.tracer.regions.pop()

    def program(self, taken: Sequence[str]) -> tn.Program:
        """The region as a program over its parameters and the names taken from outside.

        Raises UnsupportedError for results whose size data decide in the region, and where it needs such a size to be in a range."""
        sizes = self.tracer.sizes
        sizes_of_results = {s for r in self.results for e in r.extents for s in symbols(sizes.resolve(e))}
        if name := next((sizes.passing[s] for s in sizes_of_results if s in sizes.passing), ""):
            raise UnsupportedError(*selections_in(name))
        for guard in sizes.late:
            if name := next((sizes.passing[s] for s in symbols(guard.left) | symbols(guard.right) if s in sizes.passing), ""):
                raise UnsupportedError(
                    f"{guard.why} inside {name} relies on {guard.text}", "data decide that in each round", "keep the size, and give what is left out a value: max(where(mask, x, -inf))"
                )
        self.tracer.regions.append(self.region)
        outputs = tuple(self.tracer.use(r) for r in self.results)
        self.tracer.regions.pop()
        own = [p.name for p in self.parameters]
        inputs = tuple(tn.Input(n, self.region.inputs.get(n) or self.tracer.types[n]) for n in (*own, *taken))
        return tn.Program(self.region.name, inputs, tuple(self.region.steps), outputs)

    def close(self) -> None:
        self.region.open = False


def _carried(a: Array, what: str) -> Array:
    """`a`, as what enters or leaves a region: a dense array, or values along the pattern of something outside.

    Raises UnsupportedError for patterns in blocks or with gaps."""
    if not a.is_sparse:
        return a
    tracer, pattern = a.tracer, a.type.pattern
    assert pattern is not None
    form = tracer.types[pattern.owner].format
    if form is None or form.padded or form.blocked or form.name == "select":
        return dense(a, what)
    return a if pattern.owner != a.name else pointwise_stored("stored", lambda e: e, a)


def _type_of(a: Array) -> tn.TensorType:
    """The type of a copy of `a`."""
    return tn.TensorType(a.type.dtype, a.extents, None, a.type.pattern)


def _same_pattern(n: int, what: str, a: Array, b: Array) -> None:
    """Raises UnsupportedError for values along two patterns, or a sparse array beside a dense one."""
    if a.type.pattern != b.type.pattern:
        texts = [a.tracer.text(x) + ("" if x.type.pattern is None else f", stored where {a.tracer.texts.get(x.type.pattern.owner, x.type.pattern.owner)} is") for x in (a, b)]
        raise UnsupportedError(
            f"{what} {n} has two patterns: {' and '.join(texts)}",
            "its values lie along one pattern, which is known before the kernel runs",
            "make all of them dense with .toarray(), or compute all of them along one pattern",
        )


def _taken(tracer: Tracer, *regions: _Traced) -> list[str]:
    """Names that the regions read from outside, results that are outside values included."""
    for r in regions:
        tracer.regions.append(r.region)
        for result in r.results:
            tracer.use(result)
        tracer.regions.pop()
    return list(dict.fromkeys(n for r in regions for n in r.region.taken))


def _finish(tracer: Tracer, step: tn.Cond | tn.While, regions: Sequence[_Traced], types: Sequence[tn.TensorType], shape: tree.Tree) -> Any:
    for r in regions:
        r.close()
    innermost = tracer.regions[-1]
    innermost.steps.append(step)
    arrays = []
    for n, (name, type) in enumerate(zip(step.targets, types)):
        tracer.types[name] = type
        arrays.append(tracer.array_type(tracer, innermost, name, type, is_matrix=regions[-1].results[n].is_matrix))
    return tree.rebuild(shape, arrays)


def _truth(tracer: Tracer, value: Any, what: str) -> Array:
    a = tracer.array(value)
    if a.rank:
        raise TraceError(f"{what} has shape {tracer.shape_text(a)}", "it must be a scalar", "reduce it with any() or all()")
    if a.type.dtype.kind == "b":
        return a
    out: Array = pointwise("truth", lambda e: apply("ne", e, 0), a)
    return out


def cond(predicate: Any, then: Callable[..., Any], orelse: Callable[..., Any], *args: Any) -> Any:
    """then(*args) if predicate else orelse(*args); only one of them runs. Both return the same structure, shapes and types."""
    if isinstance(predicate, (bool, SizeValue)):
        return then(*args) if predicate else orelse(*args)
    tracer = find_tracer((predicate,), "cond")
    test = _truth(tracer, predicate, "the predicate of cond")
    yes, no = _Traced(tracer, "then", (), ()), _Traced(tracer, "else", (), ())
    yes.run(then, args)
    no.run(orelse, args)
    if yes.shape != no.shape:
        raise TraceError("the branches of cond return different structures", f"{yes.shape} and {no.shape}", "return the same nesting from both")
    for n, (a, b) in enumerate(zip(yes.results, no.results)):
        _same_pattern(n, "result", a, b)
        if a.rank != b.rank or not all(tracer.sizes.unify(p, q, "cond") for p, q in zip(a.extents, b.extents)):
            raise ShapeError(f"result {n} of cond has two shapes", tracer.shapes_text((a, b)), "return the same shape from both branches")
        if a.type.dtype != b.type.dtype:
            if not a.weak and not b.weak:
                raise DTypeError(
                    f"result {n} of cond has two types", f"{a.type.dtype} and {b.type.dtype}", "convert one of them with .astype(...)"
                )
            (yes if a.weak else no).convert(n, (b if a.weak else a).type.dtype)
    taken = _taken(tracer, yes, no)
    targets = tuple(tracer.names.fresh("cond") for _ in yes.results)
    types = tuple(map(_type_of, yes.results))
    step = tn.Cond(targets, types, tracer.use(test), tuple(taken), yes.program(taken), no.program(taken))
    return _finish(tracer, step, (yes, no), types, yes.shape)


def while_loop(condition: Callable[[Any], Any], body: Callable[[Any], Any], init: Any) -> Any:
    """state = init; while condition(state): state = body(state). The state keeps its structure, shapes and types."""
    leaves, shape = tree.flatten(init)
    tracer = find_tracer(tuple(leaves), "while_loop")
    state = [_carried(tracer.array(v), "the state of while_loop") for v in leaves]
    for _ in range(4):
        types = [_type_of(s) for s in state]
        stems = ["state"] * len(state)
        test, step = _Traced(tracer, "condition", types, stems, state), _Traced(tracer, "body", types, stems, state)
        step.run(body, (tree.rebuild(shape, step.parameters),))
        if step.shape != shape or len(step.results) != len(state):
            raise TraceError("the body of while_loop returns another structure than its state", "", "return the state with the same nesting")
        wider = [n for n, (s, r) in enumerate(zip(state, step.results)) if s.weak and not r.weak and r.type.dtype != s.type.dtype]
        if not wider:
            break
        for n in wider:
            state[n] = astype(state[n], step.results[n].type.dtype)
    for n, (s, r) in enumerate(zip(state, step.results)):
        _same_pattern(n, "the loop's state", s, r)
        _keeps_its_type(tracer, n, s, r)
        if r.type.dtype != s.type.dtype:
            step.convert(n, s.type.dtype)
    test.run(condition, (tree.rebuild(shape, test.parameters),))
    if len(test.results) != 1:
        raise TraceError("the condition of while_loop returns several values", "", "return one scalar bool")
    tracer.regions.append(test.region)
    test.results = [_truth(tracer, test.results[0], "the condition of while_loop")]
    tracer.regions.pop()
    taken = _taken(tracer, test, step)
    targets = tuple(tracer.names.fresh("loop") for _ in state)
    init_names = tuple(tracer.use(s) for s in state)
    types = [_type_of(s) for s in state]
    loop = tn.While(targets, tuple(types), init_names, tuple(taken), test.program(taken), step.program(taken))
    return _finish(tracer, loop, (test, step), types, shape)


def _keeps_its_type(tracer: Tracer, n: int, before: Array, after: Array) -> None:
    if before.rank != after.rank or not all(tracer.sizes.unify(p, q, "while_loop") for p, q in zip(before.extents, after.extents)):
        raise ShapeError(
            f"part {n} of the loop's state changes its shape", tracer.shapes_text((before, after)), "a state keeps its shape; make it large enough at the start"
        )
    if before.type.dtype != after.type.dtype and not after.weak:
        raise DTypeError(
            f"part {n} of the loop's state changes its type", f"{before.type.dtype} becomes {after.type.dtype}", "convert the start value or the result"
        )


def fori_loop(lower: Any, upper: Any, body: Callable[[Any, Any], Any], init: Any) -> Any:
    """for i in lower .. upper - 1: state = body(i, state)."""
    leaves, _ = tree.flatten(init)
    tracer = find_tracer((lower, upper, *leaves), "fori_loop")
    start, end = (pointwise("bound", lambda e: convert(e, dt.i64), tracer.array(b)) for b in (lower, upper))

    def step(state: Any) -> Any:
        i, value = state
        return pointwise("next", lambda e: e + 1, i), body(i, value)

    def test(state: Any) -> Any:
        return pointwise("before_end", lambda a, b: a < b, state[0], end)

    return while_loop(test, step, (start, init))[1]


def scan(f: Callable[[Any, Any], tuple[Any, Any]], init: Any, xs: Any = None, length: Any = None) -> tuple[Any, Any]:
    """carry, y = f(carry, x) for x along the leading axis of xs; returns the last carry and the stacked ys."""
    leaves, shape = tree.flatten(xs)
    tracer = find_tracer((*leaves, *tree.flatten(init)[0], length), "scan")
    arrays = [] if xs is None else [dense(tracer.array(v), "scan") for v in leaves]
    if not arrays and length is None:
        raise ShapeError("scan without xs needs a length", "", "give length=")
    n = to_size(length, tracer) if length is not None else arrays[0].extents[0]
    for a in arrays:
        tracer.sizes.require(a.extents[0], "==", n, "scan: leading sizes differ")

    def item(i: Any) -> Any:
        out = []
        for a in arrays:
            indices = tracer.indices(a.extents[1:])
            out.append(tracer.emit("item", indices, tracer.read(a, (tracer.read(i, ()), *indices))))
        return None if xs is None else tree.rebuild(shape, out)

    begun, carry_shape = tree.flatten(init)
    carried = [tracer.array(v) for v in begun]
    for _ in range(3):
        trial = _Traced(tracer, "trial", (tn.TensorType(dt.i64, ()),), ("i",))
        start = tree.rebuild(carry_shape, carried)
        trial.run(lambda i, start=start: f(start, item(i)), trial.parameters)
        trial.close()
        found = trial.results
        wider = [p for p, c in enumerate(carried) if c.weak and not found[p].weak and found[p].type.dtype != c.type.dtype]
        if not wider:
            break
        for p in wider:
            carried[p] = astype(carried[p], found[p].type.dtype)
    init = tree.rebuild(carry_shape, carried)
    made = [tn.TensorType(r.type.dtype, r.extents) for r in trial.results[len(carried) :]]
    buffers = [tracer.emit("buffer", tracer.indices((n, *t.shape)), convert(0, t.dtype)) for t in made]

    def step(i: Any, state: Any) -> Any:
        carry, before = state
        result = f(carry, item(i))
        if not isinstance(result, tuple) or len(result) != 2:
            raise TraceError("the function of scan returns no pair", "", "return (carry, y)")
        after, y = result
        ys, _ = tree.flatten(y)
        written = []
        for buffer, value in zip(before, ys if made else []):
            a = tracer.array(value)
            indices = tracer.indices(a.extents)
            at = (tracer.read(i, ()), *indices)
            written.append(tracer.scatter("write", buffer, None, indices, at, convert(tracer.read(a, indices), buffer.type.dtype)))
        return after, tuple(written)

    nested = trial.shape.children[1] if trial.shape.kind == "tuple" and len(trial.shape.children) == 2 else tree.LEAF
    carry, outputs = fori_loop(0, tracer.sizes.value(n), step, (init, tuple(buffers)))
    return carry, tree.rebuild(nested, outputs)


def unsupported(name: str, why: str, remedy: str) -> Callable[..., Any]:
    """A function of the array-API surface that is not compiled: calling it says so."""

    def function(*args: Any, **kwargs: Any) -> Any:
        raise UnsupportedError(f"{name} is not compiled", why, remedy)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"{name}: not compiled; raises UnsupportedError."
    return function


_NO_AFFINE = "it has no affine form"
searchsorted, median, quantile = (unsupported(n, _NO_AFFINE, f"call np.{n} outside the compiled function") for n in ("searchsorted", "median", "quantile"))
inv, solve, svd, qr, cholesky, eigh, det = (
    unsupported(n, "decompositions are not compiled", f"call np.linalg.{n} outside the compiled function")
    for n in ("inv", "solve", "svd", "qr", "cholesky", "eigh", "det")
)
