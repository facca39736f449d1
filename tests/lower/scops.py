"""Programs and schedules as text for tests of `lower.poly_to_loop`: each tree is what a recipe would build."""

from __future__ import annotations

import dataclasses

import islpy as isl

from polyai.poly import nodes as po
from polyai.poly import tree as st
from polyai.scalar import dtype as dt
from polyai.scalar.dtype import DType
from polyai.scalar.expr import Apply, Const, Expr, Load, Var
from polyai.shapes.expr import Size, symbol
from polyai.sparse.format import Format, csr
from polyai.tensor import nodes as tn

n, m, w = symbol("n"), symbol("m"), symbol("w")


def v(name: str) -> Var:
    return Var(name, dt.i64)


def x(op: str, *args: Expr, dtype: DType | None = None) -> Expr:
    return Apply(op, args, dtype or args[0].dtype)


def sparse(name: str, shape: tuple[object, object], form: Format | None = None, dtype: DType = dt.f64) -> tn.Input:
    return tn.Input(name, tn.TensorType(dtype, shape, form or csr(), tn.Pattern(name, (0, 1))))  # type: ignore[arg-type]


def dense(name: str, *shape: object, dtype: DType = dt.f64) -> tn.Input:
    return tn.Input(name, tn.TensorType(dtype, shape))  # type: ignore[arg-type]


def scheduled(scop: po.Scop, tree: str) -> po.Scop:
    """`scop` with the schedule `tree`: YAML in which `P` stands for the parameters, without domain and context."""
    lengths = dict.fromkeys(r.length for s in scop.statements for r in s.ragged)
    names = ", ".join(dict.fromkeys((*scop.parameters, *lengths)))
    domain = "; ".join(s.domain[s.domain.index("{") + 1 : -1] for s in scop.statements)
    text = f'domain: "P{{ {domain} }}"\nchild:\n' + "\n".join("  " + line for line in tree.strip("\n").splitlines())
    text = text.replace('"P', f'"[{names}] -> ')
    schedule = isl.Schedule.read_from_str(isl.DEFAULT_CONTEXT, text)
    return dataclasses.replace(scop, schedule=po.Schedule(st.read(scop, schedule), lambda: schedule))


def spmm_program(columns: Size = w) -> tn.Program:
    """Y = max(A @ X + bias, 0)."""
    i, j, k = (tn.Index(s, e) for s, e in (("i", m), ("j", columns), ("k", n)))
    product = x("mul", Load("A", (v("i"), v("k")), dt.f64), Load("X", (v("k"), v("j")), dt.f64))
    t = tn.Comprehension("T", tn.TensorType(dt.f64, (m, columns)), (i, j), tn.Reduce("add", (k,), product, dt.f64, (tn.Within("A", ("i", "k")),)))
    total = x("add", Load("T", (v("i2"), v("j2")), dt.f64), Load("bias", (v("j2"),), dt.f64))
    y = tn.Comprehension(
        "Y", tn.TensorType(dt.f64, (m, columns)), (tn.Index("i2", m), tn.Index("j2", columns)), x("where", x("gt", total, Const(0.0, dt.f64), dtype=dt.bool_), total, Const(0.0, dt.f64), dtype=dt.f64)
    )  # fmt: skip
    return tn.Program("spmm", (sparse("A", (m, n)), dense("X", n, columns), dense("bias", columns)), (t, y), ("Y",))


SPMM_TREE = """
context: "P{ [] : n >= 0 and m >= 0 and A_max1 >= 0 }"
child:
  mark: "parallel"
  child:
    schedule: "P[{T_init[i,j] -> [(i)]; T_upd[i,j,q] -> [(i)]; Y[i2,j2] -> [(i2)]}]"
    child:
      mark: "bind=A.1"
      child:
        context: "P{ [c0] : 0 <= A_len1 <= A_max1 }"
        child:
          filter: "P{ T_init[i,j]; T_upd[i,j,q] : 0 <= q < A_len1; Y[i2,j2] }"
          child:
            mark: "vector"
            child:
              schedule: "P[{T_init[i,j] -> [(j)]; T_upd[i,j,q] -> [(j)]; Y[i2,j2] -> [(j2)]}]"
              child:
                sequence:
                - filter: "P{ T_init[i,j] }"
                - filter: "P{ T_upd[i,j,q] }"
                  child: { schedule: "P[{T_upd[i,j,q] -> [(q)]}]" }
                - filter: "P{ Y[i2,j2] }"
"""


def cut_tree(width: int) -> str:
    """SPMM_TREE with its vector mark on pieces of `width` columns."""
    band = next(line for line in SPMM_TREE.splitlines() if "Y[i2,j2] -> [(j2)]" in line)
    head, inner = SPMM_TREE.split(band + "\n")
    pieces = band.replace("(j)", f"(floor(j/{width}))").replace("(j2)", f"(floor(j2/{width}))")
    return f"{head}{pieces}\n{' ' * 14}child:\n" + "\n".join("  " + line for line in (band + "\n" + inner).splitlines())


def jammed_tree(copies: int) -> str:
    """SPMM_TREE with its parallel loop jammed."""
    head, inner = SPMM_TREE.split('  mark: "parallel"\n  child:\n')
    marks = f'  mark: "parallel"\n  child:\n    mark: "jam={copies}"\n    child:\n'
    return head + marks + "\n".join("  " + line for line in inner.splitlines())
