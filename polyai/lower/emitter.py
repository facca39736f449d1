"""The blocks around a point of a kernel under construction, and what is known there: isl's names, fibres, values, checks."""

from __future__ import annotations

from dataclasses import field

from polyai.errors import VerifyError
from polyai.loop import build as b
from polyai.loop import nodes as lp
from polyai.lower.exprs import loads_in, rebuild
from polyai.lower.sizes import size_expr
from polyai.lower.storage import Storage
from polyai.poly import nodes as po
from polyai.scalar.expr import Expr, Load
from polyai.shapes.expr import Size, show
from polyai.tensor import nodes as tn
from polyai.term.names import Names
from polyai.term.node import record


@record
class Level:
    """The body of one loop or branch under construction."""

    stmts: list[lp.Stmt]
    branch: bool = False
    bound: dict[object, lp.Var] = field(default_factory=dict)
    checked: set[object] = field(default_factory=set)


def _reads(statement: po.Statement) -> list[Load]:
    return [n for root in statement.roots for n in loads_in(root)]


class Emitter:
    """Where statements go. A value or a check may be put further out than the statement that needs it."""

    def __init__(self, scop: po.Scop, program: tn.Program) -> None:
        self.scop, self.program = scop, program
        self.sizes = dict(scop.sizes)
        self.symbols: dict[str, None] = {}  # sizes the kernel needs, in order of first use
        self.storage = Storage(scop, program, self.size)
        self.held_back: dict[str, frozenset[Load]] = {}  # by statement: loads that only a `where` keeps in their array
        self.hidden: dict[str, frozenset[Load]] = {}  # those of them that conditions on sizes and indices do not keep there
        self.used: set[str] = set()  # arrays the kernel reads
        self.sites: dict[lp.Site, int] = {}
        self.env: dict[str, lp.LoopExpr] = {}  # isl's names
        self.begins: dict[tuple[str, int], lp.LoopExpr] = {}
        self.firsts: dict[tuple[str, int], lp.LoopExpr] = {}  # the first coordinate of the fibre at hand, where they are consecutive
        self.levels = [Level([])]
        self.home: dict[str, int] = {}  # the level that defines a local name
        self.loose: set[str] = set()  # places in parts of merges that may be exhausted there: nothing is read at them for certain
        self.virtual: dict[str, lp.LoopExpr] = {}  # what the arrays of the streams at hand mean
        self.unread = {a.name for a in scop.arrays if a.role == "workspace"} - {n.array for s in scop.statements for n in _reads(s)}
        self.hull_of = {r.hull: (r.tensor, r.level) for s in scop.statements for r in s.ragged}
        self.order = self._all_symbols()
        self.names = Names({a.name for a in scop.arrays} | set(self.hull_of) | set(self.order))

    def _all_symbols(self) -> list[str]:
        """Sizes in the order of the scop's parameters, then of the program's inputs."""
        out: dict[str, None] = {}

        def note(name: str) -> lp.Var:
            out[name] = None
            return b.var(name)

        for _, size in self.scop.sizes:
            size_expr(size, note)
        for i in self.program.inputs:
            for s in i.type.shape:
                size_expr(s, note)
            if i.type.format is not None:
                out[tn.nnz_of(i.name)] = None
        out.update(dict.fromkeys(self.program.sizes))
        out.update((tn.nnz_of(name), None) for name in self.program.assembled)
        out.update((tn.nnz_of(g.name), None) for g in self.scop.groupings)
        return list(out)

    def size(self, size: Size) -> lp.LoopExpr:
        """`size` as an expression; the kernel then takes its symbols."""
        return size_expr(size, self.symbol)

    def symbol(self, name: str) -> lp.Var:
        """The size called `name`; the kernel then takes it."""
        self.symbols[name] = None
        return b.var(name)

    def emit(self, stmt: lp.Stmt) -> None:
        """Append to the innermost block."""
        self.levels[-1].stmts.append(stmt)

    def sub(self, expr: lp.LoopExpr) -> lp.LoopExpr:
        """isl's names replaced: iterators by loop variables, parameters by sizes, lengths by those of the fibre at hand."""
        match expr:
            case lp.Var(name, _):
                found = self.env.get(name)
                if found is not None:
                    return found
                hull = self.hull_of.get(name)  # the order of a schedule holds for every hull that covers all fibres
                size = self._hull(*hull) if hull else self.sizes.get(name)
                if size is None:
                    raise VerifyError(f"a loop bound needs {name}, which is not known there")
                return self.size(size)
            case lp.Apply(op, args, dtype):
                return rebuild(op, tuple(self.sub(a) for a in args), dtype)
            case lp.Cast(arg, dtype):
                return b.convert(self.sub(arg), dtype)
            case _:
                return expr

    def _hull(self, tensor: str, level: int) -> Size:
        """A size that bounds every fibre of a level."""
        if tensor in self.storage.stored:
            return self.storage.stored[tensor].counts[level]
        stream = self.scop.stream(tensor)
        assert stream is not None
        if isinstance(stream.source, po.Drain):
            return stream.extent
        total: Size = 0
        for part, at in stream.source.parts:
            total = total + self.storage.stored[part].counts[at]
        return total

    def fixed(self, expr: lp.LoopExpr) -> bool:
        """True if `expr` reads no memory that the kernel writes: its value is the same wherever its names are known."""
        match expr:
            case lp.Load(array, indices, _):
                return self.storage.is_input(array) and all(self.fixed(i) for i in indices)
            case lp.MaskedLoad(array, indices, mask, _):
                return self.storage.is_input(array) and all(self.fixed(i) for i in (*indices, mask))
            case lp.Apply(_, args, _):
                return all(self.fixed(a) for a in args)
            case lp.Cast(arg, _):
                return self.fixed(arg)
            case _:
                return True

    def level_of(self, expr: lp.LoopExpr) -> int:
        """The innermost level that defines a name in `expr`."""
        match expr:
            case lp.Var(name, _):
                return self.home.get(name, 0)
            case lp.Const():
                return 0
            case lp.Apply(_, args, _):
                return max((self.level_of(a) for a in args), default=0)
            case lp.Load(_, args, _) if self.fixed(expr):
                return max((self.level_of(a) for a in args), default=0)
            case lp.Cast(arg, _):
                return self.level_of(arg)
            case _:
                return len(self.levels) - 1

    def let(self, stem: str, value: lp.LoopExpr, at: int | None = None) -> lp.Var:
        """A name for `value` in level `at` (default: here), shared by equal values there that nothing can change."""
        level = self.levels[-1 if at is None else at]
        fixed = self.fixed(value)
        found = level.bound.get(value) if fixed else None
        if found is None:
            name = self.names.fresh(stem.replace(".", "_"))
            found = lp.Var(name, b.dtype_of(value))
            level.stmts.append(lp.Let(name, value))
            self.home[name] = (len(self.levels) - 1) if at is None else at
            if fixed:
                level.bound[value] = found
        return found

    def hoisted(self, value: lp.LoopExpr) -> int:
        """The outermost level where `value` may be computed: below what it needs, and not outside a branch."""
        level = self.level_of(value)
        for k in range(len(self.levels) - 1, level, -1):
            if self.levels[k].branch:
                return k
        return level

    def check(self, ok: lp.LoopExpr, site: lp.Site, culprit: lp.LoopExpr, at: int) -> None:
        """Check `ok` once in level `at`."""
        if ok == b.TRUE or any((ok, site.error) in self.levels[k].checked for k in range(at + 1)):
            return
        if self.fixed(ok):
            self.levels[at].checked.add((ok, site.error))
        self.levels[at].stmts.append(lp.Check(ok, self.site(site), culprit))

    def site(self, site: lp.Site) -> int:
        return self.sites.setdefault(site, len(self.sites))

    def fibre_site(self, tensor: str, level: int) -> int:
        format_ = self.storage.stored[tensor].type.format
        part = {"csr": "row", "csc": "column", "bsr": "block row"}.get(format_.name if format_ is not None else "", "fibre")
        array = f"indptr of {tensor}" if part != "fibre" else f"the array of positions of level {level} of {tensor}"
        return self.site(
            lp.Site(
                "SparseStructureError",
                f"{array} holds {{value}}, which is out of order or out of range",
                f"each {part} must begin where the one before it ends, at most at the number of stored elements",
                f"rebuild {tensor}, for example with scipy.sparse",
            )
        )

    def order_site(self, tensor: str, level: int) -> int:
        return self.site(
            lp.Site(
                "SparseStructureError",
                f"coordinate {{value}} of level {level} of {tensor} is not larger than the one stored before it",
                "what is computed along its pattern needs every coordinate once, in order",
                f"call {tensor}.sum_duplicates(), which also sorts",
            )
        )

    def unordered_site(self, tensor: str) -> int:
        """What an element means that belongs before another one of its row."""
        return self.site(
            lp.Site(
                "SparseStructureError",
                f"coordinate {{value}} of {tensor} is stored behind a larger one of its group",
                "this kernel takes the elements of each group in the order they are stored in",
                "convert it without the promise that it is in order",
            )
        )

    def range_site(self, tensor: str, level: int, why: str = "its coordinates are merged with others") -> int:
        owner = self.storage.stored[tensor].type
        d = owner.format.order[level] if owner.format is not None else level
        word = ("row", "column")[d] if owner.rank == 2 else f"dimension {d}"
        return self.site(
            lp.Site(
                "SparseStructureError",
                f"{word} index {{value}} of {tensor} is outside 0 <= index < {show(owner.shape[d])}",
                why,
                f"rebuild {tensor}, for example with scipy.sparse",
            )
        )

    def merged_site(self, stream: str) -> int:
        """What a merge that gives no larger coordinate, or one that is too large, means to the user."""
        found = self.scop.stream(stream)
        assert found is not None and isinstance(found.source, po.Merge)
        parts = " or ".join(dict.fromkeys(tensor for tensor, _ in found.source.parts))
        return self.site(
            lp.Site(
                "SparseStructureError",
                f"a coordinate of {parts} is not larger than the one stored before it, or outside 0 <= index < {show(found.extent)}: {{value}}",
                "rows that are merged hold every coordinate once, in order",
                "call sum_duplicates(), which also sorts, or rebuild the matrix with scipy.sparse",
            )
        )

    def place_site(self, place: Expr, tensor: str, dimension: int, extent: Size) -> lp.Site:
        """What a coordinate of one matrix that is no row of another means to the user."""
        source = next(loads_in(place), None)
        owner = self.storage.levels[source.array][0] if source is not None and source.array in self.storage.levels else None
        if source is not None and owner is None:
            return lp.Site(
                "IndexOutOfRangeError",
                f"index {{value}} is out of range for dimension {dimension} of {tensor}, whose extent is {show(extent)}",
                f"it comes from {source.array}",
                "indices must lie in -extent <= index < extent",
            )
        return lp.Site(
            "SparseStructureError",
            f"index {{value}} of {owner.name if owner is not None else 'an operand'} is outside 0 <= index < {show(extent)}",
            f"it selects a fibre of {tensor}",
            f"rebuild {owner.name if owner is not None else 'it'}, for example with scipy.sparse",
        )

    def changed_site(self, tensor: str) -> int:
        return self.site(
            lp.Site(
                "SparseStructureError",
                f"a row of {tensor} holds another number of elements than when it was counted: position {{value}}",
                "an argument changed while the function ran",
                "do not change arguments while a function runs",
            )
        )

    def index_site(self, index: Expr, array: str, dimension: int) -> lp.Site:
        """What a bad index along `dimension` of `array` means to the user."""
        extent = self.storage.arrays[array].extents[dimension]
        limit = show(extent) if not isinstance(extent, po.Ragged) else extent.tensor
        source = next(loads_in(index), None)
        if source is not None and source.array in self.storage.levels:
            owner, spec = self.storage.levels[source.array]
            format_ = owner.type.format
            level = int(spec.name.rpartition("crd")[2])
            d = format_.order[level] if format_ is not None else level
            words = {"csr": ("row", "column"), "bsr": ("block row", "row", "block column", "column")}
            named = words.get("csr" if owner.type.rank == 2 else format_.name if format_ is not None else "")
            word = named[d] if named else f"dimension {d}"
            return lp.Site(
                "SparseStructureError",
                f"{word} index {{value}} of {owner.name} is outside 0 <= index < {limit}",
                f"it selects from dimension {dimension} of {array}",
                f"rebuild {owner.name}, for example with scipy.sparse",
            )
        tensor, dot, part = source.array.partition(".") if source is not None else ("", "", "")
        if dot and part.startswith("crd"):  # of padded storage, whose arrays are inputs of their own
            return lp.Site(
                "SparseStructureError",
                f"index {{value}} of {tensor} is outside 0 <= index < {limit}, and not -1",
                f"level {part.removeprefix('crd')} lists it; it selects from dimension {dimension} of {array}",
                f"rebuild {tensor}, for example with polyai.SparseArray.pack",
            )
        return lp.Site(
            "IndexOutOfRangeError",
            f"index {{value}} is out of range for dimension {dimension} of {array}, whose extent is {limit}",
            f"it comes from {source.array}" if source is not None else "",
            "indices must lie in -extent <= index < extent",
        )
