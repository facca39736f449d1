"""Scalar index expressions and sizes as isl text, and isl's affine expressions as scalar expressions.

What `affine` takes, isl reasons about exactly; everything else is over-approximated, and checked while the kernel runs.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from functools import reduce
from typing import TYPE_CHECKING

from polyai.errors import UnsupportedError, VerifyError
from polyai.poly.nodes import isl_name
from polyai.scalar import dtype as dt
from polyai.scalar.expr import Apply, Cast, Const, Expr, Var
from polyai.shapes.expr import FloorDiv, Largest, Mod, Size, SizeExpr, Smallest, Sym, show
from polyai.term.late import late
from polyai.term.names import Names

if TYPE_CHECKING:
    import islpy as isl
else:
    isl = late("islpy")

_COMPARE = {"eq": "=", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}


class Parameters:
    """The isl parameters of one scop, in order of first use. Products of symbols become parameters of their own."""

    def __init__(self, sizes: Iterable[tuple[str, Size]] = ()) -> None:
        self.sizes: dict[str, Size] = dict(sizes)
        self._names = Names(self.sizes)
        self._product: dict[Size, str] = {size: name for name, size in self.sizes.items()}

    def symbol(self, name: str) -> str:
        """The parameter of a symbol. Raises UnsupportedError if another size has it: expressions find it by the symbol's name."""
        size, wanted = SizeExpr((((Sym(name),), 1),)), isl_name(name)
        found = self._of(size, wanted)
        if found != wanted:
            raise UnsupportedError(f"the sizes {name} and {show(self.sizes[wanted])} have names that are too much alike", f"both are spelled {wanted}", "rename one of them")
        return found

    def text(self, size: Size) -> str:
        """`size` as isl text; quotients by numbers stay quotients."""
        if isinstance(size, int):
            return str(size)
        parts = []
        for monomial, coefficient in size.terms:
            if not monomial:
                parts.append(str(coefficient))
                continue
            atom = self._atom(monomial[0]) if len(monomial) == 1 else None
            if atom is None:
                alone = SizeExpr(((monomial, 1),))
                stem = show(alone).replace("*", "_")
                atom = self._of(alone, isl_name(stem) if stem.replace(".", "_").isidentifier() else "size")
            parts.append(atom if coefficient == 1 else f"{coefficient}*{atom}")
        return " + ".join(parts) if len(parts) == 1 else f"({' + '.join(parts)})"

    def _atom(self, atom: object) -> str | None:
        match atom:
            case Sym(name):
                return self.symbol(name)
            case FloorDiv(num, int(den)) if den > 0:
                return f"floor(({self.text(num)})/{den})"
            case Mod(num, int(den)) if den > 0:
                return f"(({self.text(num)}) mod {den})"
            case Largest(of) | Smallest(of):
                word = "max" if isinstance(atom, Largest) else "min"
                return reduce(lambda a, b: f"{word}({a}, {b})", (self.text(p) for p in of))
            case _:
                return None

    def _of(self, size: Size, name: str) -> str:
        found = self._product.get(size)
        if found is None:
            found = self._product[size] = self._names.fresh(name)
            self.sizes[found] = size
        return found


def affine(expr: Expr, names: Container[str]) -> str | None:
    """`expr` as isl text if it is quasi-affine in `names` (dims and parameters, as isl spells them), else None."""
    if expr.dtype != dt.i64:
        return None
    match expr:
        case Const(value):
            return str(int(value.real))
        case Var(name):
            safe = isl_name(name)
            return safe if safe in names else None
        case Apply("neg", (a,)):
            part = affine(a, names)
            return part and f"-({part})"
        case Apply("add" | "sub" | "min" | "max" as op, (a, b)):
            left, right = affine(a, names), affine(b, names)
            if left is None or right is None:
                return None
            return f"{op}({left}, {right})" if op in ("min", "max") else f"({left}) {'+' if op == 'add' else '-'} ({right})"
        case Apply("mul", (Const(value), a)) | Apply("mul", (a, Const(value))):
            part = affine(a, names)
            return part and f"{int(value.real)}*({part})"
        case Apply("floordiv" | "mod" as op, (a, Const(value))) if value.real > 0:
            part = affine(a, names)
            den = int(value.real)
            return part and (f"floor(({part})/{den})" if op == "floordiv" else f"(({part}) mod {den})")
        case _:
            return None


def condition(expr: Expr, names: Container[str]) -> str | None:
    """A boolean expression as isl text if it compares affine expressions, else None."""
    match expr:
        case Const(value):
            return "true" if value else "false"
        case Apply(op, (a, b)) if op in _COMPARE:
            left, right = affine(a, names), affine(b, names)
            return None if left is None or right is None else f"({left}) {_COMPARE[op]} ({right})"
        case Apply("and" | "or" as op, (a, b)):
            left, right = condition(a, names), condition(b, names)
            return None if left is None or right is None else f"(({left}) {op} ({right}))"
        case Apply("not", (a,)):
            part = condition(a, names)
            return part and f"not ({part})"
        case Cast(arg, dtype) if dtype == arg.dtype:
            return condition(arg, names)
        case _:
            return None


def weakest(expr: Expr, names: Container[str]) -> str | None:
    """An affine condition that `expr` implies: its affine conjuncts. None if there is none."""
    whole = condition(expr, names)
    if whole is not None:
        return whole
    if isinstance(expr, Apply) and expr.op == "and":
        parts = [p for p in (weakest(a, names) for a in expr.args) if p is not None]
        return " and ".join(f"({p})" for p in parts) or None
    return None


def refuted(expr: Expr, names: Container[str]) -> str | None:
    """An affine condition that holds where `expr` does not: the negations of its affine disjuncts. None if there is none."""
    whole = condition(expr, names)
    if whole is not None:
        return f"not ({whole})"
    if isinstance(expr, Apply) and expr.op == "or":
        parts = [p for p in (refuted(a, names) for a in expr.args) if p is not None]
        return " and ".join(f"({p})" for p in parts) or None
    if isinstance(expr, Apply) and expr.op == "not":
        return weakest(expr.args[0], names)
    return None


def expression(aff: isl.Aff, dims: Sequence[str]) -> Expr:
    """An isl affine expression over a statement's `dims` as a scalar expression."""
    kinds = isl.dim_type
    parts: list[tuple[isl.Val, Expr]] = []
    for position, d in enumerate(dims):
        factor = aff.get_coefficient_val(kinds.in_, position)
        if not factor.is_zero():
            parts.append((factor, Var(d, dt.i64)))
    for position in range(aff.dim(kinds.param)):
        factor = aff.get_coefficient_val(kinds.param, position)
        if not factor.is_zero():
            parts.append((factor, Var(aff.get_dim_name(kinds.param, position), dt.i64)))
    for position in range(aff.dim(kinds.div)):
        factor = aff.get_coefficient_val(kinds.div, position)
        if not factor.is_zero():
            parts.append((factor, expression(aff.get_domain_local_space().get_div(position), dims)))
    common = aff.get_denominator_val().to_python()
    scale = isl.Val.int_from_si(aff.get_ctx(), common)
    terms: list[Expr] = []
    for factor, part in parts:
        whole = factor.mul(scale).to_python()
        terms.append(part if whole == 1 else Apply("mul", (Const(whole, dt.i64), part), dt.i64))
    constant = aff.get_constant_val().mul(scale).to_python()
    if constant or not terms:
        terms.append(Const(constant, dt.i64))
    total = reduce(lambda a, b: Apply("add", (a, b), dt.i64), terms)
    return total if common == 1 else Apply("floordiv", (total, Const(common, dt.i64)), dt.i64)


def expression_of(piecewise: isl.PwAff, dims: Sequence[str]) -> Expr:
    """A piecewise affine expression with one piece as a scalar expression. Raises VerifyError if it has several."""
    if piecewise.n_piece() != 1:
        raise VerifyError("a schedule is piecewise", str(piecewise))
    found: list[isl.Aff] = []
    piecewise.foreach_piece(lambda _, aff: found.append(aff))
    return expression(found[0], dims)
