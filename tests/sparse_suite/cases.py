"""The groups and cases of the suite, how one is run, and the list of what is refused today.

A group is an expression with a kind for each sparse operand: one function, so one kernel for all sizes. A case is a group
with a variant of the data.
"""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

import polyai as pa
from polyai.errors import SparseStructureError, UnsupportedError
from tests.sparse_suite import model as oracle
from tests.sparse_suite.data import BY_NAME, VARIANTS, Kind, Variant, arguments
from tests.sparse_suite.expressions import EXPRESSIONS, Expression
from tests.sparse_suite.model import Model

REFUSED = Path(__file__).with_name("refused.txt")
Kinds = tuple[Kind, ...]

CSR, CSC, COO = Kind("csr"), Kind("csc"), Kind("coo")
CSR_T, CSC_T, COO_T = Kind("csr", True), Kind("csc", True), Kind("coo", True)
OTHERS = tuple(map(Kind, ("bsr", "dia", "lil", "dok")))
WIDE = Kind("csr", index="i8")

ONE: tuple[Kinds, ...] = ((CSR,), (CSC,), (COO,), (CSR_T,))
TWO: tuple[Kinds, ...] = ((CSR, CSR), (CSC, CSC), (COO, COO), (CSR, CSC), (COO, CSR), (CSR_T, CSR))
MORE = ((CSR, CSR, CSR), (CSC, CSC, CSC), (COO, COO, COO), (CSR, CSC, COO), (CSR_T, CSR, CSR))

ALL_ONE: tuple[Kinds, ...] = (*ONE, (CSC_T,), (COO_T,), (WIDE,), *((k,) for k in OTHERS))
ALL_TWO: tuple[Kinds, ...] = (
    *TWO, *(pair for pair in itertools.product((CSR, CSC, COO), repeat=2) if pair not in TWO),
    (CSR, CSC_T), (COO_T, COO), (CSC_T, CSR_T), (WIDE, CSR), (WIDE, WIDE), (Kind("dia"), CSR), (Kind("bsr"), Kind("bsr")),
)  # fmt: skip

USUAL_TYPES = ("f4", "?", "c16", "i4 f8")
ODD = ("nothing stored", "no rows", "size 1", "repeated")
TYPED = ("some", "one row", "no rows", "identical", "cancelling", "stored zeros", "disjoint", "across vectors")


@dataclass(frozen=True)
class Group:
    expression: Expression
    kinds: Kinds

    @property
    def formats(self) -> str:
        return ",".join(map(str, self.kinds))

    def __str__(self) -> str:
        return f"{self.expression.family}: {self.expression.name} [{self.formats}]"

    @property
    def variants(self) -> tuple[Variant, ...]:
        if any(k.dtype != "f8" for k in self.kinds):
            return tuple(BY_NAME[name] for name in TYPED)
        return VARIANTS


def _kinds(expression: Expression, full: bool) -> Iterator[Kinds]:
    count = len(expression.sparse)
    if count == 1:
        chosen = ALL_ONE if full else ONE
    elif count == 2:
        first, rest = EXPRESSIONS.index(expression) % 5, TWO[1:]
        chosen = ALL_TWO if full or expression.deep else (TWO[0], rest[first], rest[(first + 2) % 5])
    else:
        most = itertools.product((CSR, CSC, COO), repeat=count) if full else ()
        chosen = (*((*m, *m[1:])[:count] for m in (MORE if full or expression.deep else MORE[::3])), *most)
    for kinds in chosen:
        yield tuple(_of_rank(kind, len(shape)) for kind, shape in zip(kinds, expression.sparse))


def _of_rank(kind: Kind, rank: int) -> Kind:
    """Only coordinate lists have other ranks than 2."""
    if rank == 2:
        return kind
    return Kind("coo", rank > 2 and (kind.turned or kind.format == "csc"), kind.dtype, kind.index)


@cache
def groups(full: bool = False) -> tuple[Group, ...]:
    """Every group once. `full`: over many more combinations of formats."""
    out: dict[Group, None] = {}
    for expression in EXPRESSIONS:
        for kinds in _kinds(expression, full):
            out[Group(expression, kinds)] = None
        for types in expression.types if full else [t for t in expression.types if t in USUAL_TYPES]:
            each = (types.split() * len(expression.sparse))[: len(expression.sparse)]
            group = Group(expression, tuple(Kind("csr", dtype=t) for t in each))
            if has_a_meaning(group):
                out[group] = None
    return tuple(out)


def has_a_meaning(group: Group) -> bool:
    """Whether NumPy has the operation for these element types: it subtracts no booleans."""
    expression = group.expression
    _, models = arguments(expression.sparse, expression.dense, group.kinds, BY_NAME["some"], expression.name)
    try:
        expression.fn(oracle, *models)
    except TypeError:
        return False
    return True


def missing(expression: Expression) -> str:
    """The function or keyword that PolyAI does not have; "" if it has all."""
    for need in expression.needs:
        name, _, keyword = need.partition(".")
        found = getattr(pa, name, None)
        if found is None:
            return f"there is no {name}"
        if keyword and keyword not in inspect.signature(found).parameters:
            return f"{name} has no argument {keyword}"
    return ""


def function(group: Group) -> Any:
    """The compiled function of a group."""
    expression, kinds = group.expression, group.kinds

    def program(*operands: Any) -> Any:
        turned = (x.T if n < len(kinds) and kinds[n].turned else x for n, x in enumerate(operands))
        return expression.fn(pa, *turned)

    return pa.jit(program, name="program")


def run(group: Group) -> str:
    """Run every case of a group and return why it is refused, "" if it is not.

    Raises AssertionError for a wrong result and for an error that is no refusal.
    """
    absent = missing(group.expression)
    if absent:
        return absent
    call, reason = function(group), ""
    for number, variant in enumerate(group.variants):
        if reason and variant.name not in ODD:
            continue  # a refusal depends on kinds, not on numbers: a few odd ones are tried all the same
        given, models = values(group, variant, "CF"[number % 2])
        wanted = group.expression.fn(oracle, *models)
        try:
            got = call(*given)
        except UnsupportedError as error:
            assert error.what and error.remedy, f"{group}, {variant.name}: a refusal without a remedy: {error}"
            reason = reason_of(error)
        except SparseStructureError as error:
            assert variant.order == "repeated" and "sum_duplicates" in str(error), f"{group}, {variant.name}: {error}"
        except Exception as error:
            raise AssertionError(f"{group}, {variant.name}: {type(error).__name__}: {error}") from error
        else:
            check(group, variant, got, wanted)
    return reason


def reason_of(error: UnsupportedError) -> str:
    """The reason of a refusal without the names and sizes of its operands."""
    why = error.why if error.why and not re.match(r"(operands\[|the result)", error.why) else error.what
    return re.sub(r"operands\[\d\]|the result of \w+", "an operand", why.splitlines()[0])


def values(group: Group, variant: Variant, order: str = "C") -> tuple[list[Any], list[Model]]:
    expression = group.expression
    return arguments(expression.sparse, expression.dense, group.kinds, variant, expression.name, order)


def check(group: Group, variant: Variant, got: Any, wanted: Model) -> None:
    """The result has the shape, type and numbers of the oracle; a sparse one its coordinates, each once and in order."""
    expression, where = group.expression, f"{group}, {variant.name}"
    sparse = bool(sp.issparse(got))
    if expression.result != "any":
        assert sparse == (expression.result == "sparse"), f"{where}: the result is a {type(got).__name__}"
    assert got.shape == wanted.values.shape, f"{where}: {got.shape} instead of {wanted.values.shape}"
    assert got.dtype == wanted.dtype, f"{where}: {got.dtype} instead of {wanted.dtype}"
    tolerance = 1e-5 if wanted.dtype in (np.float32, np.complex64) else 1e-12
    full = got.toarray() if sparse else np.asarray(got)
    numbers = wanted.values if wanted.dtype.kind not in "iu" else wanted.values.astype(np.int64).astype(wanted.dtype)
    np.testing.assert_allclose(full, numbers, rtol=tolerance, atol=tolerance, err_msg=where)
    if not sparse:
        return
    coords = [np.asarray(c) for c in got.tocoo().coords]
    found = np.zeros(got.shape, bool)
    found[tuple(coords)] = True
    merged = len(expression.sparse) > 1
    if variant.order != "repeated" or merged:
        assert len(coords[0]) == found.sum(), f"{where}: a coordinate is stored twice"
    if expression.result == "sparse":
        assert wanted.stored is not None
        if expression.between or got.format == "dia":  # SciPy leaves stored zeros of diagonals out of tocoo()
            assert not (found & ~wanted.stored).any() and found[wanted.values != 0].all(), f"{where}: the pattern is wrong"
        else:
            np.testing.assert_array_equal(found, wanted.stored, err_msg=f"{where}: the pattern is wrong")
        assert got.format in allowed(group), f"{where}: the result is {got.format}, not {allowed(group)}"
    if variant.order == "sorted" or merged:
        down = ascend(coords, got.shape) if got.format != "csc" else ascend(coords[::-1], got.shape[::-1])
        assert down or (not merged and got.format == "coo" and in_some_order(coords, got.shape)), f"{where}: coordinates are out of order"


def ascend(coords: Sequence[Any], shape: tuple[int, ...]) -> bool:
    """Whether coordinates are in lexicographic order."""
    return not len(coords[0]) or bool((np.diff(np.ravel_multi_index(tuple(coords), shape)) >= 0).all())


def in_some_order(coords: Sequence[Any], shape: tuple[int, ...]) -> bool:
    """Whether coordinates ascend once dimensions are permuted: a list whose dimensions were exchanged."""
    orders = itertools.permutations(range(len(shape)))
    return any(ascend([coords[d] for d in order], tuple(shape[d] for d in order)) for order in orders)


def allowed(group: Group) -> set[str]:
    """The formats a result may have: what was asked for, else CSR or the one all operands share, where lists share any."""
    if group.expression.format:
        return {group.expression.format}
    if group.expression.sparse[0] not in ("nm", "nn", "mk") or group.expression.family == "two vectors":
        return {"coo", "csr"}
    exchanged = {"csr": "csc", "csc": "csr"}
    own = {exchanged.get(k.format, k.format) if k.turned else k.format for k in group.kinds}
    turns = ".T" in group.expression.name or "->" in group.expression.name
    return {"csr", *(own if len(own) == 1 else own - {"coo"} if len(own - {"coo"}) == 1 else ()), *(("csc",) if turns else ())}


# --- the list of what is refused ---------------------------------------------------------------------------------------------


def refused() -> dict[str, str]:
    """The groups listed as refused, with the reason they stand under."""
    out, reason = {}, ""
    for line in REFUSED.read_text().splitlines():
        if line.startswith("# "):
            reason = line[2:]
        elif line:
            name, _, formats = line.partition(" | ")
            for each in formats.split() if formats != "all" else _formats()[name]:
                out[f"{name} [{each}]"] = reason
    return out


@cache
def _formats() -> dict[str, list[str]]:
    """All combinations of formats of each expression."""
    out: dict[str, list[str]] = {}
    for group in groups(full=True):
        out.setdefault(f"{group.expression.family}: {group.expression.name}", []).append(group.formats)
    return out


def write(found: dict[str, str]) -> None:
    """Write the list: reasons, under each the expressions, each with the formats, "all" if nothing of it works."""
    by_reason: dict[str, dict[str, list[str]]] = {}
    for group in groups(full=True):
        if str(group) in found:
            name = f"{group.expression.family}: {group.expression.name}"
            by_reason.setdefault(found[str(group)], {}).setdefault(name, []).append(group.formats)
    lines = []
    for reason, names in sorted(by_reason.items()):
        lines.append(f"# {reason}")
        for name, formats in names.items():
            lines.append(f"{name} | {'all' if formats == _formats()[name] else ' '.join(formats)}")
        lines.append("")
    REFUSED.write_text("\n".join(lines))
