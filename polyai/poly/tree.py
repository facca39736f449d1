"""The schedule tree as plain data: what passes build and read. isl's own tree is made from it as text and read back into it.

Grammar::

    Tree = Leaf                                            one statement's instance
         | Band(members, child, marks, coincident)         one loop: members maps each statement to its place in that loop
         | Sequence(children)                              each child holds its own statements, one child after another
         | Bind(tensor, level, child)                      the loops that own this fibre are above: its length is known below
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Union, assert_never

from polyai.errors import VerifyError
from polyai.poly.affine import affine, expression_of
from polyai.poly.nodes import BIND, EXTERN, Schedule, Scop, Statement, hull_of, length_of
from polyai.scalar.expr import Expr
from polyai.term.late import late
from polyai.term.node import node

if TYPE_CHECKING:
    import islpy as isl
else:
    isl = late("islpy")


@node
class Leaf:
    """`extern` names a library call that replaces the statement."""

    statement: str
    extern: str | None = None


@node
class Band:
    members: tuple[tuple[str, Expr], ...]
    child: Tree
    marks: tuple[str, ...] = ()
    coincident: bool = False

    def place(self, statement: str) -> Expr:
        """Where instances of `statement` go in this loop."""
        return next(e for s, e in self.members if s == statement)


@node
class Sequence:
    children: tuple[Tree, ...]


@node
class Bind:
    tensor: str
    level: int
    child: Tree


Tree = Union[Leaf, Band, Sequence, Bind]


def statements_of(tree: Tree) -> Iterator[str]:
    """Names of the statements below, in the order of the leaves."""
    match tree:
        case Leaf(statement):
            yield statement
        case Band(_, child) | Bind(_, _, child):
            yield from statements_of(child)
        case Sequence(children):
            for child in children:
                yield from statements_of(child)
        case _:
            assert_never(tree)


def bands_of(tree: Tree) -> Iterator[Band]:
    """The loops, outer ones first."""
    match tree:
        case Leaf():
            return
        case Band(_, child):
            yield tree
            yield from bands_of(child)
        case Bind(_, _, child):
            yield from bands_of(child)
        case Sequence(children):
            for child in children:
                yield from bands_of(child)
        case _:
            assert_never(tree)


def only(tree: Tree, names: frozenset[str]) -> Tree | None:
    """The part of `tree` that holds the statements `names`; None if there is none."""
    match tree:
        case Leaf(statement):
            return tree if statement in names else None
        case Bind(tensor, level, child):
            kept = only(child, names)
            return None if kept is None else Bind(tensor, level, kept)
        case Sequence(children):
            parts = [p for p in (only(c, names) for c in children) if p is not None]
            return None if not parts else parts[0] if len(parts) == 1 else Sequence(tuple(parts))
        case Band(members, child, marks, coincident):
            kept = only(child, names)
            return None if kept is None else Band(tuple(m for m in members if m[0] in names), kept, marks, coincident)
        case _:
            assert_never(tree)


def render(scop: Scop, tree: Tree) -> Schedule:
    """The schedule of `tree`."""
    return Schedule(tree, lambda: _rendered(scop, tree))


def _rendered(scop: Scop, tree: Tree) -> isl.Schedule:
    writer = _Writer(scop)
    domain = "; ".join(braces(s.domain) for s in scop.statements)
    lines = [
        f'domain: "{writer.parameters} -> {{ {domain} }}"',
        "child:",
        f'  context: "{writer.parameters} -> {{ [] : {condition_of(scop.context)} }}"',
    ]
    inner = writer.write(tree, 0, writer.parameters)
    if inner:
        lines += ["  child:", *("    " + line for line in inner)]
    return isl.Schedule.read_from_str(isl.DEFAULT_CONTEXT, "\n".join(lines))


def braces(text: str) -> str:
    """What stands between the braces of isl text."""
    return text[text.index("{") + 1 : text.rindex("}")].strip()


def condition_of(context: str) -> str:
    """The condition of a parameter set in isl text."""
    return braces(context).partition(":")[2].strip() or "true"


def parameter_list(scop: Scop) -> str:
    """`[n, m, A_len1]`: all parameters, the lengths that bind marks introduce included."""
    lengths = {r.length: None for s in scop.statements for r in s.fibres}
    return f"[{', '.join(dict.fromkeys((*scop.parameters, *lengths)))}]"


def band_text(parameters: str, places: str) -> str:
    """`[n] -> [{ S[i] -> [(i)] }]`. isl reads `[] -> [{ ... }]` as a band without members, so no list stands there if it is empty."""
    return f"[{{ {places} }}]" if parameters == "[]" else f"{parameters} -> [{{ {places} }}]"


class _Writer:
    def __init__(self, scop: Scop) -> None:
        self.by_name = {s.name: s for s in scop.statements}
        self.parameters = f"[{', '.join(scop.parameters)}]"
        self._known = set(scop.parameters)

    def write(self, tree: Tree, depth: int, parameters: str) -> list[str]:
        """YAML of a subtree; empty for a leaf. `depth` counts the bands above, `parameters` holds the lengths bound there.

        A length must be new to isl at its context node: isl moves conditions on what it knows already out of the mark.
        """
        match tree:
            case Leaf(_, None):
                return []
            case Leaf(_, extern):
                return [f'mark: "{EXTERN}={extern}"']
            case Band(members, child, marks, coincident):
                places = "; ".join(f"{self._tuple(s)} -> [({self._text(s, e)})]" for s, e in members)
                lines = [
                    f'schedule: "{band_text(parameters, places)}"',
                    f"coincident: [{int(coincident)}]",
                    'options: "{ atomic[x] }"',
                    *_child(self.write(child, depth + 1, parameters)),
                ]
                for mark in reversed(marks):
                    lines = [f'mark: "{mark}"', *_child(lines)]
                return lines
            case Sequence(children):
                lines = ["sequence:"]
                for child in children:
                    names = "; ".join(self._tuple(s) for s in statements_of(child))
                    lines.append(f'- filter: "{parameters} -> {{ {names} }}"')
                    lines += ["  " + line for line in _child(self.write(child, depth, parameters))]
                return lines
            case Bind(tensor, level, child):
                length, hull = length_of(tensor, level), hull_of(tensor, level)
                around = ", ".join(f"c{d}" for d in range(depth))
                limits = "; ".join(self._limited(s, tensor, level) for s in statements_of(child))
                parameters = f"{parameters[:-1]}{', ' if len(parameters) > 2 else ''}{length}]"
                lines = [f'filter: "{parameters} -> {{ {limits} }}"', *_child(self.write(child, depth, parameters))]
                lines = [f'context: "{parameters} -> {{ [{around}] : 0 <= {length} <= {hull} }}"', *_child(lines)]
                return [f'mark: "{BIND}={tensor}.{level}"', *_child(lines)]
            case _:
                assert_never(tree)

    def _tuple(self, name: str) -> str:
        return f"{name}[{', '.join(self.by_name[name].dims)}]"

    def _text(self, name: str, place: Expr) -> str:
        text = affine(place, self._known | set(self.by_name[name].dims))
        if text is None:
            raise VerifyError(f"the place of {name} in a loop is not affine", str(place))
        return text

    def _limited(self, name: str, tensor: str, level: int) -> str:
        s = self.by_name[name]
        limits = [f"0 <= {r.dim} < {r.length}" for r in s.ragged if (r.tensor, r.level) == (tensor, level)]
        limits += [f"{r.length} >= 1" for r in s.nonempty if (r.tensor, r.level) == (tensor, level)]
        return self._tuple(name) + (f" : {' and '.join(limits)}" if limits else "")


def _child(lines: list[str]) -> list[str]:
    return ["child:", *("  " + line for line in lines)] if lines else []


def read(scop: Scop, schedule: Schedule | isl.Schedule, settle: bool = False) -> Tree:
    """The tree of a schedule. Of isl's own, bands of several members become one Band each. Raises VerifyError for other node types.

    Statements in one leaf come out in arbitrary order; `settle` puts them in program order, without it they are refused.
    """
    if isinstance(schedule, Schedule):
        kept: Tree = schedule.tree
        return kept
    names = tuple(s.name for s in scop.statements)
    return _read(schedule.get_root().child(0), {s.name: s for s in scop.statements}, names, (), settle)


def _read(
    at: isl.ScheduleNode, by_name: Mapping[str, Statement], names: tuple[str, ...], marks: tuple[str, ...], settle: bool
) -> Tree:
    kind = at.get_type()
    types = isl.schedule_node_type
    if kind == types.leaf:
        if settle and len(names) > 1:
            return Sequence(tuple(Leaf(n) for n in names))
        if len(names) != 1:
            raise VerifyError("statements share a leaf of the schedule without an order", ", ".join(names))
        externs = [m.partition("=")[2] for m in marks if m.startswith(EXTERN + "=")]
        return Leaf(names[0], externs[0] if externs else None)
    if kind == types.mark:
        mark = at.mark_get_id().get_name()
        if mark.startswith(BIND + "="):
            tensor, _, level = mark.partition("=")[2].rpartition(".")
            return Bind(tensor, int(level), _read(at.child(0), by_name, names, (), settle))
        return _read(at.child(0), by_name, names, (*marks, mark), settle)
    if kind in (types.context, types.filter):
        return _read(at.child(0), by_name, names, marks, settle)
    if kind in (types.sequence, types.set):
        children = []
        for position in range(at.n_children()):
            branch = at.child(position)
            kept = _names_in(branch.filter_get_filter())
            children.append(_read(branch.child(0), by_name, tuple(n for n in names if n in kept), (), settle))
        return Sequence(tuple(children))
    if kind == types.band:
        width = at.band_n_member()
        places = [_places(at.band_get_partial_schedule().get_at(d), by_name, names) for d in range(width)]
        flags = [bool(at.band_member_get_coincident(d)) for d in range(width)]
        out = _read(at.child(0), by_name, names, (), settle)
        for members, flag in zip(reversed(places), reversed(flags), strict=True):
            out = Band(members, out, marks if members is places[0] else (), flag)
        return out
    raise VerifyError("the schedule has a node that PolyAI does not use", str(kind))


def _names_in(union: isl.UnionSet) -> set[str]:
    found: set[str] = set()
    union.foreach_set(lambda part: found.add(part.get_tuple_name()))
    return found


def _places(member: isl.UnionPwAff, by_name: Mapping[str, Statement], names: tuple[str, ...]) -> tuple[tuple[str, Expr], ...]:
    found: dict[str, Expr] = {}
    pieces: list[isl.PwAff] = []
    member.foreach_pw_aff(pieces.append)
    for piece in pieces:
        name = piece.get_tuple_id(isl.dim_type.in_).get_name()
        if name in names:
            found[name] = expression_of(piece, by_name[name].dims)
    missing = [n for n in names if n not in found]
    if missing:
        raise VerifyError(f"a band of the schedule has no place for {', '.join(missing)}", f"it has {', '.join(found)}")
    return tuple((n, found[n]) for n in names)
