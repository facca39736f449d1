"""A program as text that reads as mathematics; deterministic, used for golden tests and messages."""

from __future__ import annotations

from typing import assert_never

from polyai.scalar.expr import Apply
from polyai.scalar.show import INFIX
from polyai.scalar.show import show as show_expr
from polyai.shapes.expr import show as show_size
from polyai.tensor.nodes import (
    Body,
    Comprehension,
    Cond,
    Extern,
    Index,
    Join,
    Listing,
    Program,
    Reduce,
    Scatter,
    Select,
    Spread,
    Step,
    TensorType,
    While,
    Within,
)

_UPDATES = {"add": "+", "mul": "*", "or": "|", "and": "&"}
PRODUCT = INFIX["mul"][1]
_REDUCTIONS = {"add": "sum", "mul": "prod", "max": "max", "min": "min", "or": "any", "and": "all"}


def show(program: Program, indent: str = "") -> str:
    """The whole program, one step a line."""
    lines = [f"program {program.name}"]
    lines += [f"  input {i.name}{show_type(i.type)}" for i in program.inputs]
    lines += [f"  fact {show_size(f.size)} {'>= 0' if f.relation == 'nonnegative' else '== 0'}" for f in program.facts]
    for step in program.body:
        lines += [f"  {line}" for line in show_step(step).split("\n")]
    lines.append(f"  output {', '.join(program.outputs)}")
    return "\n".join(indent + line for line in lines)


def show_type(type: TensorType) -> str:
    """`[n, m] f32 csr`, or `[n, m] f32 like A` for a borrowed pattern."""
    text = f"[{', '.join(show_size(s) for s in type.shape)}] {type.dtype}"
    if type.format is not None:
        return f"{text} {type.format.name}"
    if type.pattern is not None:
        straight = type.pattern.dims == tuple(range(type.rank))
        return f"{text} like {type.pattern.owner}" + ("" if straight else f"({','.join(map(str, type.pattern.dims))})")
    return text


def show_step(step: Step) -> str:
    """One step; regions of control flow on indented lines below it."""
    match step:
        case Comprehension():
            body, tail = _body_and_tail(step.body)
            return f"{step.target}[{_indices(step.indices, step.within)}] {step.type.dtype} = {body}{tail}"
        case Scatter():
            at = ", ".join(show_body(a) for a in step.at)
            sign = _UPDATES.get(step.monoid, step.monoid) if step.monoid else ""
            body, tail = _body_and_tail(step.body)
            scope = f"for [{_indices(step.indices, step.within)}]"
            source = show_type(step.type) if step.base is None else step.base
            scope = f"grouped {scope}" if step.grouped else scope
            return f"{step.target}[{at}] {step.type.dtype} {sign}= {body}   {scope} from {source}{tail}"
        case Join():
            clauses = " & ".join(f"({c})" if len(step.clauses) > 1 and " | " in c else c for c in map(_clause, step.clauses))
            return f"{step.target}[{_indices(step.indices, ())}] {step.type.format.name if step.type.format else ''} = join {clauses}"
        case Select():
            return f"{step.target}[{_indices(step.indices, ())}] select {show_body(step.at)}"
        case Spread():
            return f"{step.target}[{_indices(step.indices, ())}] spread {show_body(step.length)}"
        case Listing():
            return f"{step.target}[{show_size(step.type.shape[0])}] {step.type.dtype} = list {step.of}"
        case Extern():
            more = "".join(f", {k}={v!r}" for k, v in step.attributes)
            return f"{_targets(step.targets, step.types)} = extern {step.function}({', '.join(step.args)}{more})"
        case Cond():
            head = f"{_targets(step.targets, step.types)} = cond {step.predicate} ({', '.join(step.args)})"
            return f"{head}\n{show(step.then, '  then ')}\n{show(step.orelse, '  else ')}"
        case While():
            head = f"{_targets(step.targets, step.types)} = while ({', '.join(step.init)}; {', '.join(step.args)})"
            return f"{head}\n{show(step.condition, '  test ')}\n{show(step.body, '  next ')}"
        case _:
            assert_never(step)


def _targets(names: tuple[str, ...], types: tuple[TensorType, ...]) -> str:
    return ", ".join(f"{n}{show_type(t)}" for n, t in zip(names, types))


def _body_and_tail(body: Body) -> tuple[str, str]:
    """The `within` of a reduction at the top goes to the end of the line."""
    if isinstance(body, Reduce) and body.within:
        return f"{_head(body, ())} {_term(body.body)}", f"   within {_withins(body.within)}"
    return show_body(body), ""


def _indices(indices: tuple[Index, ...], within: tuple[Within, ...]) -> str:
    text = ", ".join(f"{i.name}: {show_size(i.extent)}" for i in indices)
    return f"{text} within {_withins(within)}" if within else text


def _clause(parts: tuple[Within, ...]) -> str:
    return " | ".join(_withins((w,)) for w in parts)


def _withins(within: tuple[Within, ...]) -> str:
    return ", ".join(f"{w.tensor}({', '.join(w.indices)})" for w in within)


def _head(body: Reduce, within: tuple[Within, ...]) -> str:
    return f"{_REDUCTIONS.get(body.monoid, body.monoid)}({_indices(body.over, within)})"


def show_body(body: Body) -> str:
    """An expression; a reduction inside it stands in brackets."""
    return _reduction(body) if isinstance(body, Reduce) else show_expr(body, _nested)


def _nested(other: object) -> str:
    if not isinstance(other, Reduce):
        raise TypeError(f"{type(other).__name__} in a body")
    return _reduction(other)


def _reduction(body: Reduce) -> str:
    return f"{_head(body, body.within)} {_term(body.body)}"


def _term(body: Body) -> str:
    """What a reduction runs over: in brackets if it binds weaker than a product."""
    text = show_body(body)
    weak = isinstance(body, Reduce) or (isinstance(body, Apply) and len(body.args) == 2 and INFIX.get(body.op, ("", PRODUCT))[1] < PRODUCT)
    return f"({text})" if weak else text
