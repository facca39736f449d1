"""Do the types of a step agree with the table of operations? A check of `verify`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from polyai.errors import DTypeError
from polyai.scalar import dtype as dt
from polyai.scalar.expr import Apply, Cast, Const, Load, Var
from polyai.scalar.ops import MONOIDS, OPS, result_type
from polyai.tensor.nodes import Body, Comprehension, Reduce, Scatter, Select, Spread, Step, TensorType
from polyai.tensor.scope import Scope, roots_of
from polyai.term.late import late

if TYPE_CHECKING:
    from polyai.tensor import show
else:
    show = late("polyai.tensor.show")


def dtypes_agree_with_the_table(step: Step, scope: Scope) -> Iterator[str]:
    known = scope.visible(step)
    for root in roots_of(step):
        yield from _dtypes(root, known)
    match step:
        case Comprehension() | Scatter():
            if step.body.dtype != step.type.dtype:
                yield f"the body is {step.body.dtype}, the target {step.type.dtype}"
        case _:
            pass
    if isinstance(step, (Scatter, Select, Spread)):
        for at in step.at if isinstance(step, Scatter) else roots_of(step):
            if not at.dtype.is_integer:
                yield f"place {show.show_body(at)} is {at.dtype}, not an integer"
        if isinstance(step, Scatter) and step.monoid is not None and step.monoid not in MONOIDS:
            yield f"{step.monoid} is not a monoid"
        if isinstance(step, Scatter) and step.grouped and (step.base is not None or len(step.within) != 1 or {a.name for a in step.at if isinstance(a, Var)} != {i.name for i in step.indices}):
            yield "it is grouped, and does more than to put what one pattern stores in another order"


def _dtypes(body: Body, known: dict[str, TensorType]) -> Iterator[str]:
    match body:
        case Const():
            pass
        case Var(name, dtype):
            if dtype != dt.i64:
                yield f"variable {name} is {dtype}, not i64"
        case Load(array, indices, dtype):
            if dtype != known[array].dtype:
                yield f"{show.show_body(body)} is read as {dtype}, {array} holds {known[array].dtype}"
            for index in indices:
                if not index.dtype.is_integer:
                    yield f"index {show.show_body(index)} is {index.dtype}, not an integer"
                yield from _dtypes(index, known)
        case Cast(arg):
            yield from _dtypes(arg, known)
        case Apply():
            for arg in body.args:
                yield from _dtypes(arg, known)
            yield from _operation(body)
        case Reduce():
            if body.monoid not in MONOIDS:
                yield f"{body.monoid} is not a monoid"
            if not body.over:
                yield "a reduction over no index"
            yield from _dtypes(body.body, known)


def _operation(body: Apply) -> Iterator[str]:
    entry = OPS.get(body.op)
    if entry is None:
        yield f"{body.op} is not in the table of operations"
        return
    if len(body.args) != entry.arity:
        yield f"{body.op} takes {entry.arity} arguments, has {len(body.args)}"
        return
    given = [a.dtype for a in body.args]
    try:
        result = result_type(body.op, *given)
    except DTypeError as problem:
        yield f"{show.show_body(body)}: {problem.what}"
        return
    if result != body.dtype:
        yield f"{show.show_body(body)} is {result} by the table, the node says {body.dtype}"
    wanted = given[1:] if body.op == "where" else given
    target = body.dtype if entry.operands == "result" or body.op == "where" else wanted[0]
    if entry.operands != "each" or body.op == "where":
        for dtype in wanted:
            if dtype != target:
                yield f"{show.show_body(body)}: operands are {', '.join(map(str, given))}; {target} is expected"
