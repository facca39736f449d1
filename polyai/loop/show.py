"""Loop programs as text: Python-like, one statement a line."""

from __future__ import annotations

from typing import assert_never

from polyai.loop.nodes import (
    Alloc,
    Apply,
    Block,
    Call,
    Cast,
    Check,
    Const,
    For,
    Horizontal,
    If,
    Kernel,
    Kind,
    Let,
    Load,
    LoopExpr,
    MaskedLoad,
    Pack,
    Prefetch,
    Ramp,
    Stmt,
    Store,
    Turn,
    Var,
    While,
)
from polyai.scalar import dtype as dt

_INFIX = {
    "add": ("+", 5), "sub": ("-", 5), "mul": ("*", 6), "div": ("/", 6), "floordiv": ("//", 6), "mod": ("%", 6),
    "lt": ("<", 3), "le": ("<=", 3), "gt": (">", 3), "ge": (">=", 3), "eq": ("==", 3), "ne": ("!=", 3),
    "and": ("and", 2), "or": ("or", 1), "bitand": ("&", 4), "bitor": ("|", 4), "bitxor": ("^", 4), "shl": ("<<", 4), "shr": (">>", 4),
}  # fmt: skip


def show(kernel: Kernel) -> str:
    """The kernel as text, ending in a newline."""
    params = []
    for p in kernel.params:
        if p.extents is None:
            params.append(p.name)
        else:
            params.append(f"{p.role} {p.name}: {p.dtype}[{', '.join(show_expr(e) for e in p.extents)}]")
    lines = [f"kernel {kernel.name}({', '.join(params)}):"]
    _stmt(kernel.body, "  ", lines)
    lines += [f"site {k}: {s.error}: {s.what}" for k, s in enumerate(kernel.sites)]
    return "\n".join(lines) + "\n"


def show_stmt(stmt: Stmt) -> str:
    """One statement as text."""
    lines: list[str] = []
    _stmt(stmt, "", lines)
    return "\n".join(lines)


def _stmt(stmt: Stmt, pad: str, lines: list[str]) -> None:
    inner = pad + "  "
    match stmt:
        case Block(stmts):
            if not stmts:
                lines.append(f"{pad}pass")
            for s in stmts:
                _stmt(s, pad, lines)
        case For(var, lower, upper, body, kind, step, weight, _, jam, stretch):
            words = [f"{pad}for {var} in {show_expr(lower)}..{show_expr(upper)}"]
            if step != 1:
                words.append(f"step {step}")
            if kind is not Kind.SERIAL:
                words.append(f"{kind.value}={jam}" if kind is Kind.JAM else kind.value)
            if weight is not None:
                words.append(f"weight={weight}")
            if stretch is not None:
                words.append(f"stretch={stretch}")
            lines.append(" ".join(words) + ":")
            _stmt(body, inner, lines)
        case While(condition, body):
            lines.append(f"{pad}while {show_expr(condition)}:")
            _stmt(body, inner, lines)
        case If(condition, then, orelse):
            lines.append(f"{pad}if {show_expr(condition)}:")
            _stmt(then, inner, lines)
            if orelse is not None:
                lines.append(f"{pad}else:")
                _stmt(orelse, inner, lines)
        case Let(name, value):
            lines.append(f"{pad}let {name} = {show_expr(value)}")
        case Alloc(name, dtype, extents, space, lanes, zero):
            shape = f"[{', '.join(show_expr(e) for e in extents)}]" if extents else ""
            wide = f" x {lanes}" if lanes > 1 else ""
            lines.append(f"{pad}alloc {name}: {dtype}{wide}{shape} {space.value}{' zero' if zero else ''}")
        case Store(array, indices, value, mask):
            when = "" if mask is None else f" where {show_expr(mask)}"
            lines.append(f"{pad}{_access(array, indices)} = {show_expr(value)}{when}")
        case Check(ok, site, culprit):
            blame = "" if culprit is None else f" ({show_expr(culprit)})"
            lines.append(f"{pad}check {show_expr(ok)} else site {site}{blame}")
        case Turn(register, turns, counts, at, count):
            lines.append(f"{pad}turn {register} = {_access(turns, (at,))}; {_access(counts, (at,))} = {show_expr(count)}")
        case Prefetch(array, index):
            lines.append(f"{pad}prefetch {_access(array, (index,))}")
        case Call(function, args):
            lines.append(f"{pad}call {function}({', '.join(a if isinstance(a, str) else show_expr(a) for a in args)})")
        case _:
            assert_never(stmt)


def _access(array: str, indices: tuple[LoopExpr, ...]) -> str:
    return f"{array}[{', '.join(show_expr(i) for i in indices)}]" if indices else array


def show_expr(expr: LoopExpr, above: int = 0) -> str:
    """An expression as text, in brackets if it binds weaker than `above`."""
    match expr:
        case Const(value, dtype):
            return str(value) if dtype in (dt.i64, dt.bool_, dt.f64) or dtype.is_complex else f"{dtype}({value})"
        case Var(name, _):
            return name
        case Load(array, indices, _):
            return _access(array, indices)
        case MaskedLoad(array, indices, mask, _):
            return f"({_access(array, indices)} if {show_expr(mask)})"
        case Cast(arg, dtype):
            return f"{dtype}({show_expr(arg)})"
        case Ramp(base, stride, lanes):
            return f"ramp({show_expr(base)}, {lanes})" if stride == 1 else f"ramp({show_expr(base)}, {lanes}, {stride})"
        case Pack(values, _):
            return f"pack({', '.join(show_expr(v) for v in values)})"
        case Horizontal(monoid, value, _):
            return f"lanes_{monoid}({show_expr(value)})"
        case Apply(op, args, _):
            return _apply(op, args, above)
        case _:
            assert_never(expr)


def _apply(op: str, args: tuple[LoopExpr, ...], above: int) -> str:
    infix = _INFIX.get(op)
    if infix is None:
        return f"{op}({', '.join(show_expr(a) for a in args)})"
    sign, strength = infix
    right = args[1]
    if op == "add" and isinstance(right, Const) and right.dtype == dt.i64 and int(right.value.real) < 0:
        text = f"{show_expr(args[0], strength)} - {-int(right.value.real)}"
    else:
        text = f"{show_expr(args[0], strength)} {sign} {show_expr(right, strength + 1)}"
    return f"({text})" if strength < above else text
