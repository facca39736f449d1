"""isl's AST as plain data.

Grammar::

    Ast = Loop(iterator, depth, lower, upper, step, body)      lower <= iterator < upper; depth counts the bands above
        | Branch(condition, then, orelse)
        | Several(children)
        | Marked(mark, body)
        | Instance(statement, args)                            one value for each dim of the statement

Expressions are loop expressions over isl's own names: parameters, and iterators `c0`, `c1`, ... by depth. Quotients round
down, so they are right for negative operands too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, reduce
from typing import TYPE_CHECKING, Union, assert_never

from polyai.errors import VerifyError
from polyai.loop import build as b
from polyai.loop import nodes as lp
from polyai.term.late import late
from polyai.term.node import node

if TYPE_CHECKING:
    import islpy as isl
else:
    isl = late("islpy")


@node
class Loop:
    iterator: str
    depth: int
    lower: lp.LoopExpr
    upper: lp.LoopExpr
    step: int
    body: Ast


@node
class Branch:
    condition: lp.LoopExpr
    then: Ast
    orelse: Ast | None


@node
class Several:
    children: tuple[Ast, ...]


@node
class Marked:
    mark: str
    body: Ast


@node
class Instance:
    statement: str
    args: tuple[lp.LoopExpr, ...]


Ast = Union[Loop, Branch, Several, Marked, Instance]


def walk(at: isl.AstNode) -> Ast:
    """An isl AST node and all below it."""
    kind = at.get_type()
    if kind == isl.ast_node_type.for_:
        return _loop(at)
    if kind == isl.ast_node_type.block:
        children = at.block_get_children()
        return Several(tuple(walk(children.get_at(k)) for k in range(children.n_ast_node())))
    if kind == isl.ast_node_type.mark:
        return Marked(at.mark_get_id().get_name(), walk(at.mark_get_node()))
    if kind == isl.ast_node_type.if_:
        orelse = walk(at.if_get_else_node()) if at.if_has_else_node() else None
        return Branch(expression(at.if_get_cond()), walk(at.if_get_then_node()), orelse)
    if kind == isl.ast_node_type.user:
        call = at.user_get_expr()
        name, *args = (call.op_get_arg(k) for k in range(call.op_get_n_arg()))
        return Instance(name.id_get_id().get_name(), tuple(expression(a) for a in args))
    raise VerifyError("isl made an AST node that PolyAI does not know", str(kind))


def is_straight(ast: Ast) -> bool:
    """Whether `ast` is statements alone, one after another."""
    match ast:
        case Instance():
            return True
        case Marked(_, body):
            return is_straight(body)
        case Several(children):
            return all(map(is_straight, children))
        case Loop() | Branch():
            return False
        case _:
            assert_never(ast)


def _loop(at: isl.AstNode) -> Loop:
    iterator = at.for_get_iterator().id_get_id().get_name()
    lower = expression(at.for_get_init())
    if at.for_is_degenerate():
        return Loop(iterator, int(iterator[1:]), lower, b.add(lower, b.ONE), 1, walk(at.for_get_body()))
    condition = at.for_get_cond()
    bound = expression(condition.op_get_arg(1))
    upper = bound if condition.op_get_type() == isl.ast_expr_op_type.lt else b.add(bound, b.ONE)
    step = b.number(expression(at.for_get_inc()))
    if step is None:
        raise VerifyError("isl made a loop whose step is no number", iterator)
    return Loop(iterator, int(iterator[1:]), lower, upper, step, walk(at.for_get_body()))


def _compare(op: str) -> Callable[[lp.LoopExpr, lp.LoopExpr], lp.LoopExpr]:
    return lambda x, y: b.compare(op, x, y)


@cache
def _operations() -> dict[isl.ast_expr_op_type, Callable[[lp.LoopExpr, lp.LoopExpr], lp.LoopExpr]]:
    """The meaning of each operation of two arguments or more."""
    op = isl.ast_expr_op_type
    return {
        op.add: b.add,
        op.sub: b.sub,
        op.mul: b.mul,
        op.min: b.smallest,
        op.max: b.largest,
        op.div: b.floordiv,
        op.fdiv_q: b.floordiv,
        op.pdiv_q: b.floordiv,
        op.pdiv_r: b.mod,
        op.zdiv_r: b.mod,
        op.and_: b.both,
        op.and_then: b.both,
        op.or_: b.either,
        op.or_else: b.either,
        op.eq: _compare("eq"),
        op.le: _compare("le"),
        op.lt: _compare("lt"),
        op.ge: _compare("ge"),
        op.gt: _compare("gt"),
    }


def expression(at: isl.AstExpr) -> lp.LoopExpr:
    """An isl AST expression."""
    kind = at.get_type()
    if kind == isl.ast_expr_type.id:
        return b.var(at.id_get_id().get_name())
    if kind == isl.ast_expr_type.int:
        return b.const(at.int_get_val().to_python())
    op = at.op_get_type()
    args = [expression(at.op_get_arg(k)) for k in range(at.op_get_n_arg())]
    if op == isl.ast_expr_op_type.minus:
        return b.sub(b.ZERO, args[0])
    if op in (isl.ast_expr_op_type.cond, isl.ast_expr_op_type.select):
        return b.where(*args)
    meaning = _operations().get(op)
    if meaning is None:
        raise VerifyError("isl made an expression that PolyAI does not know", str(op))
    return reduce(meaning, args)


def children(ast: Ast) -> tuple[Ast, ...]:
    """The parts one step below."""
    match ast:
        case Instance():
            return ()
        case Loop(body=body) | Marked(_, body):
            return (body,)
        case Several(parts):
            return parts
        case Branch(_, then, orelse):
            return (then,) if orelse is None else (then, orelse)
        case _:
            assert_never(ast)


def instances(ast: Ast) -> Iterator[Instance]:
    """The statement instances in the order of the text."""
    stack = [ast]
    while stack:
        part = stack.pop()
        if isinstance(part, Instance):
            yield part
        else:
            stack.extend(children(part)[::-1])


def apart(ast: Ast) -> list[Ast]:
    """The parts that run one after another, each under the conditions around all of them."""
    match ast:
        case Several(children):
            return [part for child in children for part in apart(child)]
        case Branch(condition, then, None):
            return [Branch(condition, part, None) for part in apart(then)]
        case Marked(mark, body):
            return [Marked(mark, part) for part in apart(body)]
        case _:
            return [ast]
