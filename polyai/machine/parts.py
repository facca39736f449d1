"""A module that is long is compiled in parts, side by side.

    f calls g and @pa.task1, task1 calls g     ->     f, g, declare hidden @pa.task1     |     hidden task1, g

LLVM takes time in proportion to the code, and one thread for a module. The functions of a module hardly know one another: tasks
are entered by their address, helpers are short and go wherever they are called. Which parts there are follows from the text alone, so
the code is the same on any machine of a kind. Functions that shall be translated as they stand are a part of their own, which LLVM
takes through none of its optimisations. Proves nothing and needs no proof: a name that is missing is an error of the loader.
"""

from __future__ import annotations

import re

from polyai.term.node import node

LEAST, MOST = 400, 4
"""Lines that are worth a part, and how many parts there are at most."""

_NAME = re.compile(r'@"?([\w.$]+)')
_STRAIGHT = re.compile(r"^define .* #2 \{$", re.MULTILINE)
"""A function that `build.STRAIGHT` says is translated as it stands."""
_HELPER = re.compile(r'^define internal [^@]*@"?([\w.$]+)')
TASK = "pa.task"
"""How the names of tasks begin: they are no helpers, though other modules do not see them."""


@node
class Function:
    """The definition of a function, from its first line to the brace; `uses`: the names in it; `straight`: to be translated as it stands."""

    name: str
    text: str
    lines: int
    helper: bool
    uses: frozenset[str]
    straight: bool = False


def is_straight(text: str) -> bool:
    """Whether a part consists of functions that are translated as they stand, and what they need."""
    return _STRAIGHT.search(text) is not None


def split(text: str) -> tuple[str, ...]:
    """Modules that are `text` together; `text` alone if it is short and all of it is optimised."""
    count = min(MOST, text.count("\n") // LEAST)
    if count < 2 and not is_straight(text):
        return (text,)
    functions, rest = read(text)
    by_name = {f.name: f for f in functions}
    straight = [f for f in functions if f.straight]
    units = [f for f in functions if not f.helper and not f.straight]
    count = max(1, min(count, len(units)))
    if count < 2 and not straight:
        return (text,)
    parts: list[list[Function]] = [[] for _ in range(count)]
    for f in sorted(units, key=lambda f: (-f.lines, f.name)):
        min(parts, key=lambda part: sum(x.lines for x in part)).append(f)
    return tuple(_module(part, by_name, rest) for part in (*parts, straight) if part)


def read(text: str) -> tuple[list[Function], str]:
    """The functions that a module defines, and all else that it says."""
    functions, rest = [], []
    lines: list[str] = []
    for line in text.split("\n"):
        if line.startswith("define "):
            lines = [line]
        elif not lines:
            rest.append(line)
        else:
            lines.append(line)
            if line == "}":
                whole = "\n".join(lines)
                head = _HELPER.match(lines[0])
                found = _NAME.search(lines[0])
                assert found is not None
                helper = head is not None and not found[1].startswith(TASK)
                functions.append(Function(found[1], whole, len(lines), helper, frozenset(_NAME.findall(whole)) - {found[1]}, lines[0].endswith(" #2 {")))
                lines = []
    return functions, "\n".join(rest)


def _module(units: list[Function], by_name: dict[str, Function], rest: str) -> str:
    """A module of these functions, the helpers that they need, and declarations of others."""
    inside = {f.name: f for f in units}
    wanted = [name for f in units for name in sorted(f.uses)]
    declared: dict[str, None] = {}
    for name in wanted:  # grows
        f = by_name.get(name)
        if f is None or name in inside:
            continue
        if f.helper:
            inside[name] = f
            wanted += sorted(f.uses)
        else:
            declared[_declaration(f)] = None
    return "\n".join((rest, *(_visible(f) for f in inside.values()), *declared))


def _visible(f: Function) -> str:
    """The definition, for the other parts to find."""
    return f.text if f.helper else f.text.replace("define internal ", "define hidden ", 1)


def _declaration(f: Function) -> str:
    head = f.text[: f.text.index("\n")]
    head = re.sub(r"^define (internal |hidden )?", "declare hidden ", head)
    return re.sub(r"( #\d+)? \{$", "", head)
