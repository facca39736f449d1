"""What the formulas share: polynomials, scaling by powers of two, working in double precision."""

from __future__ import annotations

from collections.abc import Callable

from polyai.machine.num import Num
from polyai.machine.types import vector


def polynomial(x: Num, coefficients: tuple[float, ...]) -> Num:
    """Horner's rule; coefficients lowest degree first."""
    out = x.const(coefficients[-1])
    for c in reversed(coefficients[:-1]):
        out = out.fma(x, c)
    return out


SHIFT = {"float": 12582912.0, "double": 6755399441055744.0}
"""1.5 times the first number beyond which floats are whole: a small one added to it stands in its lowest bits."""


def integer(n: Num) -> Num:
    """A float that is an integer as one of its width, exact below 2^22 (float) or 2^51 in size; any integer for others and NaN.
    Instructions that convert differ between targets, and where they do not saturate, LLVM goes lane by lane."""
    shift = n.const(SHIFT[n.elem])
    return (n + shift).bits() - shift.bits()


def scale(x: Num, n: Num) -> Num:
    """x 2^n for a float n that is an integer, rounded once; |n| may exceed the exponent range by as much again."""
    if _has_scalef(x):
        return _scalef(x, n)
    mantissa, bias = (23, 127) if x.elem == "float" else (52, 1023)
    whole = integer(n)
    half = whole >> 1
    first = ((half + bias) << mantissa).as_float()
    second = ((whole - half + bias) << mantissa).as_float()
    return x * first * second


def _has_scalef(x: Num) -> bool:
    target = x.fn.module.target
    wide = x.lanes * (32 if x.elem == "float" else 64)
    return target.triple.startswith("x86_64") and target.vector_bits == 512 and wide in (256, 512)


def _scalef(x: Num, n: Num) -> Num:
    """AVX-512's instruction for it."""
    wide = x.lanes * (32 if x.elem == "float" else 64)
    suffix = f"{'ps' if x.elem == 'float' else 'pd'}.{wide}"
    mask = f"i{max(8, x.lanes)}"
    args = [(x.kind, x.ref), (x.kind, n.ref), (x.kind, x.ref), (mask, "-1")]
    if wide == 512:
        args.append(("i32", "4"))
    return Num(x.fn, x.elem, x.lanes, x.fn.intrinsic(f"llvm.x86.avx512.mask.scalef.{suffix}", x.kind, *args))


def in_double(formula: Callable[..., Num], *args: Num) -> Num:
    """A float function computed by its double formula and rounded: correct to little more than half an ulp."""
    return formula(*(a.convert("fpext", "double") for a in args)).convert("fptrunc", "float")


def pick_rare(x: Num, rare: Num, usual: Num, write: Callable[[], Num]) -> Num:
    """`usual` where `rare` is false, else what `write` computes, in a branch that is seldom taken."""
    fn = x.fn
    start, odd, end = fn.at, fn.label("odd"), fn.label("even")
    fn.do(f"br i1 {rare.any().ref}, label %{odd}, label %{end}")
    fn.start(odd)
    known = fn.enter()
    other = rare.where(write(), usual)
    fn.leave(known)
    last = fn.at
    fn.do(f"br label %{end}")
    fn.start(end)
    ref, close = fn.phi(vector(x.elem, x.lanes))
    close([(usual.ref, start), (other.ref, last)])
    return Num(fn, x.elem, x.lanes, ref)
