"""Numbers under construction: LLVM values with Python's operators, of any lane count, so that formulas read as formulas.

`Num` is typed by its LLVM element (`float`, `i32`, `i1`, ...). Integer arithmetic wraps and is signed unless a method says
otherwise; comparisons of floats are false for NaN except `!=`.
"""

from __future__ import annotations

from typing import Union

from polyai.machine.build import EVEN, Function
from polyai.machine.types import bits_of, constant, mangled, vector

Operand = Union["Num", int, float]


class Num:
    """One LLVM value: a scalar (`lanes` 1) or a vector."""

    __slots__ = ("elem", "fn", "lanes", "ref")

    def __init__(self, fn: Function, elem: str, lanes: int, ref: str) -> None:
        self.fn, self.elem, self.lanes, self.ref = fn, elem, lanes, ref

    @property
    def kind(self) -> str:
        """The LLVM type."""
        return vector(self.elem, self.lanes)

    @property
    def floating(self) -> bool:
        return self.elem in ("float", "double", "half")

    def const(self, value: Operand, elem: str | None = None) -> Num:
        """`value` in this number's type (or in element type `elem`)."""
        if isinstance(value, Num):
            return value
        elem = elem or self.elem
        return Num(self.fn, elem, self.lanes, constant(value, elem, self.lanes))

    def of(self, text: str, elem: str | None = None) -> Num:
        """The result of the instruction `text`."""
        return Num(self.fn, elem or self.elem, self.lanes, self.fn.op(text))

    def _two(self, plain: str, other: Operand) -> Num:
        return self.of(f"{plain} {self.kind} {self.ref}, {self.const(other).ref}")

    def _arith(self, name: str, other: Operand) -> Num:
        return self._two("f" + name if self.floating else name, other)

    def __add__(self, other: Operand) -> Num:
        return self._arith("add", other)

    def __radd__(self, other: Operand) -> Num:
        return self.const(other)._arith("add", self)

    def __sub__(self, other: Operand) -> Num:
        return self._arith("sub", other)

    def __rsub__(self, other: Operand) -> Num:
        return self.const(other)._arith("sub", self)

    def __mul__(self, other: Operand) -> Num:
        return self._arith("mul", other)

    def __rmul__(self, other: Operand) -> Num:
        return self.const(other)._arith("mul", self)

    def __truediv__(self, other: Operand) -> Num:
        return self._two("fdiv", other)

    def __rtruediv__(self, other: Operand) -> Num:
        return self.const(other)._two("fdiv", self)

    def __neg__(self) -> Num:
        return self.of(f"fneg {self.kind} {self.ref}") if self.floating else self.const(0) - self

    def __and__(self, other: Operand) -> Num:
        return self._two("and", other)

    def __or__(self, other: Operand) -> Num:
        return self._two("or", other)

    def __xor__(self, other: Operand) -> Num:
        return self._two("xor", other)

    def __invert__(self) -> Num:
        return self ^ (1 if self.elem == "i1" else -1)

    def __lshift__(self, other: Operand) -> Num:
        return self._two("shl", other)

    def __rshift__(self, other: Operand) -> Num:
        """Arithmetic shift; `lshr` is the logical one."""
        return self._two("ashr", other)

    def lshr(self, other: Operand) -> Num:
        return self._two("lshr", other)

    def _compare(self, ordered: str, signed: str, other: Operand) -> Num:
        what = f"fcmp {ordered}" if self.floating else f"icmp {signed}"
        return self.of(f"{what} {self.kind} {self.ref}, {self.const(other).ref}", "i1")

    def lt(self, other: Operand) -> Num:
        return self._compare("olt", "slt", other)

    def le(self, other: Operand) -> Num:
        return self._compare("ole", "sle", other)

    def gt(self, other: Operand) -> Num:
        return self._compare("ogt", "sgt", other)

    def ge(self, other: Operand) -> Num:
        return self._compare("oge", "sge", other)

    def eq(self, other: Operand) -> Num:
        return self._compare("oeq", "eq", other)

    def ne(self, other: Operand) -> Num:
        return self._compare("une", "ne", other)

    def below(self, other: Operand) -> Num:
        """Unsigned less-than; of floats: less or unordered."""
        return self._compare("ult", "ult", other)

    def isnan(self) -> Num:
        return self.of(f"fcmp uno {self.kind} {self.ref}, {self.ref}", "i1")

    def where(self, a: Num, b: Num) -> Num:
        """a where this i1 is true, else b."""
        if self.lanes == 1 and a.elem in ("float", "double"):  # a select of scalars in vector registers would be a branch
            return self.where(a.bits(), b.bits()).as_float()
        even = EVEN if self.lanes == 1 else ""  # a scalar select stays one: data decides, which no branch predicts
        return Num(self.fn, a.elem, a.lanes, self.fn.op(f"select {self.kind} {self.ref}, {a.kind} {a.ref}, {b.kind} {b.ref}{even}"))

    def pick(self, a: Operand, b: Operand, like: Num) -> Num:
        """`where` with numbers allowed for a and b; `like` gives their type."""
        return self.where(like.const(a), like.const(b))

    def fma(self, factor: Operand, addend: Operand) -> Num:
        """self * factor + addend, rounded once where the target has the instruction, else rounded twice."""
        if not self.fn.module.target.fma:
            return self * factor + addend
        a, b = self.const(factor), self.const(addend)
        return Num(self.fn, self.elem, self.lanes, self.fn.same("fma", self.elem, self.lanes, self.ref, a.ref, b.ref))

    def call(self, name: str, *others: Operand) -> Num:
        """The intrinsic `llvm.NAME` of this and `others`, all of one type."""
        refs = [self.const(o).ref for o in others]
        return Num(self.fn, self.elem, self.lanes, self.fn.same(name, self.elem, self.lanes, self.ref, *refs))

    def convert(self, instruction: str, elem: str) -> Num:
        """A conversion instruction: fptosi, sitofp, zext, bitcast, ..."""
        if elem == self.elem:
            return self
        return self.of(f"{instruction} {self.kind} {self.ref} to {vector(elem, self.lanes)}", elem)

    def saturated(self, signed: bool, elem: str) -> Num:
        """A float converted to an integer: NaN gives 0, values out of range the nearest limit."""
        name = f"llvm.fpto{'s' if signed else 'u'}i.sat.{mangled(elem, self.lanes)}.{mangled(self.elem, self.lanes)}"
        result = vector(elem, self.lanes)
        return Num(self.fn, elem, self.lanes, self.fn.intrinsic(name, result, (self.kind, self.ref)))

    def resized(self, elem: str, signed: bool) -> Num:
        """An integer in another width: cut, or extended with its sign or zeros."""
        have, want = bits_of(self.elem), bits_of(elem)
        return self.convert("trunc" if want < have else "sext" if signed and self.elem != "i1" else "zext", elem)

    def bits(self) -> Num:
        """The representation of a float as an integer of its width."""
        return self.convert("bitcast", f"i{bits_of(self.elem)}")

    def as_float(self) -> Num:
        """The float with this integer's representation."""
        return self.convert("bitcast", "float" if self.elem == "i32" else "double")

    def copysign(self, sign: Num) -> Num:
        return self.call("copysign", sign)

    def widened(self, lanes: int) -> Num:
        """This scalar in `lanes` lanes."""
        if lanes == self.lanes:
            return self
        if self.ref[0] != "%":
            return Num(self.fn, self.elem, lanes, f"splat ({self.elem} {self.ref})")
        return Num(self.fn, self.elem, lanes, self.fn.splat(self.ref, self.elem, lanes))

    def lane(self, k: int) -> Num:
        return Num(self.fn, self.elem, 1, self.fn.op(f"extractelement {self.kind} {self.ref}, i64 {k}"))

    def lanes_of(self, start: int, count: int) -> Num:
        """Lanes start .. start + count - 1."""
        if count == 1:
            return self.lane(start)
        ref = self.fn.shuffle(self.kind, self.ref, "poison", list(range(start, start + count)))
        return Num(self.fn, self.elem, count, ref)

    def any(self) -> Num:
        """Whether some lane of this i1 vector is true."""
        return self if self.lanes == 1 else self._folded("or")

    def all(self) -> Num:
        """Whether every lane of this i1 vector is true."""
        return self if self.lanes == 1 else self._folded("and")

    def _folded(self, name: str) -> Num:
        suffix = mangled(self.elem, self.lanes)
        return Num(self.fn, self.elem, 1, self.fn.intrinsic(f"llvm.vector.reduce.{name}.{suffix}", self.elem, (self.kind, self.ref)))
