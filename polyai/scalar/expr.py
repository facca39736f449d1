"""Scalar expressions: what a statement computes at one point of its domain.

Grammar::

    Expr = Const(value, dtype)
         | Var(name, dtype)                    an index variable, a size, or a local value
         | Load(array, indices, dtype)         one element; indices are integer expressions, possibly loads
         | Apply(op, args, dtype)              op is a key of scalar.ops.OPS ("where" is an op of three arguments)
         | Cast(arg, dtype)

The tensor level adds one node, `Reduce`. Vectors exist in the loop level only, where a `Ramp` adds lanes.
"""

from __future__ import annotations

from typing import Union

from polyai.scalar.dtype import DType
from polyai.term.node import node


@node
class Const:
    """A number. `value` is a Python bool, int, float or complex; floats keep the bits of `dtype`."""

    value: bool | int | float | complex
    dtype: DType


@node
class Var:
    """A named scalar: index variables and sizes have dtype i64."""

    name: str
    dtype: DType


@node
class Load:
    """Element `indices` of `array`. With no indices: the value of a scalar array."""

    array: str
    indices: tuple[Expr, ...]
    dtype: DType


@node
class Apply:
    """`op` of the table applied to `args`; `dtype` is the result's, the arguments' dtypes agree as the table says."""

    op: str
    args: tuple[Expr, ...]
    dtype: DType


@node
class Cast:
    """`arg` converted to `dtype` as NumPy's astype does."""

    arg: Expr
    dtype: DType


Expr = Union[Const, Var, Load, Apply, Cast]
