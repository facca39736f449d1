"""A program as text that reads as mathematics; deterministic, used for golden tests and messages."""

from __future__ import annotations

from typing import assert_never

from polyai.scalar.expr import Apply, Cast, Const, Load, Var
from polyai.shapes.expr import show as show_size
from polyai.tensor.nodes import (
    Body,
    Comprehension,
    Cond,
    Extern,
    Index,
    Program,
    Reduce,
    Scatter,
    Step,
    TensorType,
    While,
    Within,
)

_INFIX = {
    "or": ("or", 1), "and": ("and", 2),
    "eq": ("==", 3), "ne": ("!=", 3), "lt": ("<", 3), "le": ("<=", 3), "gt": (">", 3), "ge": (">=", 3),
    "bitor": ("|", 4), "bitxor": ("^", 5), "bitand": ("&", 6), "shl": ("<<", 7), "shr": (">>", 7),
    "add": ("+", 8), "sub": ("-", 8), "mul": ("*", 9), "div": ("/", 9), "floordiv": ("//", 9), "mod": ("%", 9), "pow": ("**", 11),
}  # fmt: skip
_ASSOCIATIVE = {"or", "and", "bitor", "bitxor", "bitand", "add", "mul"}
_UPDATES = {"add": "+", "mul": "*", "or": "|", "and": "&"}
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
            at = ",".join(show_body(a) for a in step.at)
            sign = _UPDATES.get(step.monoid, step.monoid) if step.monoid else ""
            body, tail = _body_and_tail(step.body)
            scope = f"for [{_indices(step.indices, step.within)}]"
            return f"{step.target}[{at}] {step.type.dtype} {sign}= {body}   {scope} from {step.base}{tail}"
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
        return f"{_head(body, ())} {show_body(body.body, 8)}", f"   within {_withins(body.within)}"
    return show_body(body), ""


def _indices(indices: tuple[Index, ...], within: tuple[Within, ...]) -> str:
    text = ", ".join(f"{i.name}: {show_size(i.extent)}" for i in indices)
    return f"{text} within {_withins(within)}" if within else text


def _withins(within: tuple[Within, ...]) -> str:
    return ", ".join(f"{w.tensor}({','.join(w.indices)})" for w in within)


def _head(body: Reduce, within: tuple[Within, ...]) -> str:
    return f"{_REDUCTIONS[body.monoid]}({_indices(body.over, within)})"


def show_body(body: Body, above: int = 0) -> str:
    """An expression; `above` is the binding strength of what stands around it."""
    match body:
        case Const(value, dtype):
            text = _number(value)
            return f"({text})" if text.startswith("-") and above > 8 else text
        case Var(name):
            return name
        case Load(array, indices):
            return f"{array}[{','.join(show_body(i) for i in indices)}]"
        case Cast(arg, dtype):
            return f"{dtype}({show_body(arg)})"
        case Apply("neg", (arg,)):
            return _wrap(f"-{show_body(arg, 10)}", 10, above)
        case Apply(op, args) if op in _INFIX and len(args) == 2:
            sign, strength = _INFIX[op]
            left = show_body(args[0], strength + (op == "pow" or strength == 3))
            right = show_body(args[1], strength + (op not in _ASSOCIATIVE))
            if op == "mul" and isinstance(args[1], Apply) and args[1].op in ("div", "floordiv", "mod"):
                right = show_body(args[1], strength + 1)
            return _wrap(f"{left} {sign} {right}", strength, above)
        case Apply(op, args):
            return f"{op}({', '.join(show_body(a) for a in args)})"
        case Reduce():
            return _wrap(f"{_head(body, body.within)} {show_body(body.body, 8)}", 8, above + 1)
        case _:
            assert_never(body)


def _wrap(text: str, strength: int, above: int) -> str:
    return f"({text})" if strength < above else text


def _number(value: bool | int | float | complex) -> str:
    return repr(value)
