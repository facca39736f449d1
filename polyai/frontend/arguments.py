"""Arguments of a call: which leaves of (args, kwargs) are kernel inputs, which are static, and what they are called."""

from __future__ import annotations

import enum
import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from polyai.errors import TraceError, UnsupportedError
from polyai.frontend.core import Array, Composite
from polyai.frontend.sizes import SizeValue
from polyai.frontend.spec import DTypeSpec, FormatSpec, Spec
from polyai.frontend.term import Term
from polyai.scalar.dtype import DType
from polyai.sparse import interop
from polyai.sparse.stands import Batch, LaidOut
from polyai.term.node import node

Path = tuple[Any, ...]


@node
class Leaf:
    """One leaf: `path` starts with a position or a keyword, then keys; `text` is the user's spelling: `params["w"][0]`.

    `kind`: array (NumPy array or NumPy scalar), sparse, ragged, scalar (Python number), spec, static.
    """

    path: Path
    text: str
    kind: str
    value: Any


STATIC = (str, bytes, type, type(None), type(Ellipsis), slice, range, np.dtype, enum.Enum, DType, DTypeSpec, FormatSpec)


@lru_cache(maxsize=1024)
def parameter_names(function: Callable[..., Any]) -> tuple[str, ...]:
    """Names of the positional parameters; the last one is `*name` if there is such a parameter."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return ()
    out = []
    for p in parameters:
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD):
            out.append(p.name)
        elif p.kind is p.VAR_POSITIONAL:
            out.append("*" + p.name)
    return tuple(out)


@lru_cache(maxsize=1024)
def keyword_names(function: Callable[..., Any]) -> tuple[str, ...]:
    """Names of the parameters that may be given by name, in the order of the definition."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return ()
    return tuple(p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY))


def in_order(function: Callable[..., Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The keywords in the order of the definition, so that another order is no other kind of call; those of `**kwargs` last."""
    return {k: kwargs[k] for k in keyword_names(function) if k in kwargs} | kwargs


def argument_name(names: tuple[str, ...], position: int) -> str:
    """The user's name for a positional argument."""
    if position < len(names) and not names[position].startswith("*"):
        return names[position]
    if names and names[-1].startswith("*"):
        return f"{names[-1][1:]}[{position - len(names) + 1}]"
    return f"argument {position}"


def leaves(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], static: frozenset[Any] = frozenset()) -> list[Leaf]:
    """All leaves in order. `static` names parameters, by name or position, that are baked in whatever they are."""
    names = parameter_names(function)
    out: list[Leaf] = []
    for n, value in enumerate(args):
        name = argument_name(names, n)
        if n in static or name in static:
            out.append(Leaf((n,), name, "static", value))
        else:
            out.extend(_walk((n,), name, value))
    for key, value in kwargs.items():
        if key in static:
            out.append(Leaf((key,), key, "static", value))
        else:
            out.extend(_walk((key,), key, value))
    return out


def _walk(path: Path, text: str, value: Any) -> Iterator[Leaf]:
    if isinstance(value, np.ma.MaskedArray):
        raise UnsupportedError(f"{text} is a masked array", "masks are not compiled", f"pass {text}.filled(value), or use where(mask, fill, values)")
    kind = kind_of(value)
    if kind:
        yield Leaf(path, text, kind, value)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _walk((*path, key), f"{text}[{key!r}]", item)
    elif isinstance(value, (tuple, list)):
        for n, item in enumerate(value):
            yield from _walk((*path, n), f"{text}[{n}]", item)
    elif isinstance(value, (Array, Composite)):
        raise TraceError(f"{text} is a traced array of another call", "", "call the function itself, not its compiled form, inside a trace")
    elif isinstance(value, LaidOut):
        raise TraceError(f"{text} is a prepared matrix inside a container", "it stands for several arrays", "pass it as an argument of its own")
    else:
        raise TraceError(
            f"{text} cannot be traced",
            f"its type is {type(value).__name__}",
            "pass arrays, numbers, and tuples, lists or dicts of them; convert with np.asarray, or mark the argument static",
        )


def kind_of(value: Any) -> str:
    """The kind of a leaf; empty for containers and for what cannot be an argument."""
    if isinstance(value, (np.ndarray, np.generic)):
        return "array"
    if isinstance(value, (bool, int, float, complex)) and not isinstance(value, enum.Enum):
        return "scalar"
    if isinstance(value, Spec):
        return "spec"
    if isinstance(value, Batch):
        return "ragged"
    if isinstance(value, STATIC) or callable(value):
        return "static"
    if isinstance(value, tuple) and value and all(type(v) is int for v in value):
        return "static"
    if interop.is_sparse(value):
        return "sparse"
    return ""


def take(path: Path, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """The leaf at `path`."""
    first, *rest = path
    value = args[first] if isinstance(first, int) else kwargs[first]
    for key in rest:
        value = value[key]
    return value


def identifier(text: str) -> str:
    """A name for the program from the user's spelling: `params["w"][0]` becomes `params_w_0`."""
    out = "".join(c if c.isalnum() and c.isascii() else "_" for c in text).strip("_")
    while "__" in out:
        out = out.replace("__", "_")
    return out if out and not out[0].isdigit() else f"x_{out}" if out else "x"


def has_traced(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether a traced array, size or term is among the arguments: the call is then part of another trace."""

    def inside(value: Any) -> bool:
        if isinstance(value, (Array, SizeValue, Term, Composite)):
            return True
        if isinstance(value, dict):
            return any(map(inside, value.values()))
        return isinstance(value, (tuple, list)) and any(map(inside, value))

    return any(map(inside, args)) or any(map(inside, kwargs.values()))


def signature(found: list[Leaf]) -> tuple[Any, ...]:
    """What a trace depends on besides sizes: paths, kinds, types, ranks, formats, and static values. Hashable if those are."""
    out: list[Any] = []
    for leaf in found:
        value = leaf.value
        if leaf.kind == "array":
            out.append((leaf.path, "array", value.dtype.str, value.ndim))
        elif leaf.kind == "sparse":
            described = interop.describe(value)
            assert described is not None
            out.append((leaf.path, "sparse", described.dtype, described.format, len(described.shape), described.is_matrix))
        elif leaf.kind == "scalar":
            out.append((leaf.path, "scalar", type(value)))
        else:
            out.append((leaf.path, leaf.kind, value))
    return tuple(out)
