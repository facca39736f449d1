"""Give a large dense product of two matrices to the BLAS library.

    T[i: n, j: m] f32 = sum(k: c) X[i, k] * W[j, k]
    ->
    T[n, m] f32 = extern blas.sgemm(X, W, op_a=0, op_b=1)

`op_a`, `op_b` are 1 where a matrix is read transposed. Only where all sizes are known to be large: small products, and
products with few rows, are faster as generated code that fuses with what stands around them. Proves legality.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping

from polyai.scalar.expr import Apply, Load, Var
from polyai.shapes.expr import Size, evaluate, symbols
from polyai.tensor.bodies import map_regions
from polyai.tensor.cost import is_plain
from polyai.tensor.nodes import Comprehension, Extern, Index, Program, Reduce, Step, TensorType, types_of

FUNCTIONS = {"f32": "blas.sgemm", "f64": "blas.dgemm"}
SMALLEST, WORK, NARROW_WORK = 256, 2560**3, 600**3
"""The least extent, and the least number of multiplications, that a library call is worth, with 32 registers of 512 bits and with
less: generated code tiles for registers and second-level caches. It falls behind a library that packs both its operands where
those outgrow the caches, and sooner where a tile is narrow."""


def least_work(vector_bits: int) -> int:
    """The least number of multiplications that a library call is worth."""
    return WORK if vector_bits >= 512 else NARROW_WORK


def run(program: Program, sizes: Mapping[str, int], blas: str = "auto", work: int = WORK) -> Program:
    """The program with library calls for products of `work` multiplications or more; `blas` "never" leaves it as it is."""
    if blas == "never":
        return program
    types = types_of(program)
    return dataclasses.replace(
        program, body=tuple(_step(map_regions(s, lambda region: run(region, sizes, blas, work)), types, sizes, work) for s in program.body)
    )


def products(program: Program) -> tuple[tuple[Size, Size, Size], ...]:
    """Rows, columns and depth of every product that was given to the library."""
    types = types_of(program)
    out = []
    for step in program.body:
        if isinstance(step, Extern) and step.function in FUNCTIONS.values():
            first = types[step.args[0]].shape
            rows, columns = step.types[0].shape
            out.append((rows, columns, first[0] if dict(step.attributes)["op_a"] else first[1]))
    return tuple(out)


def is_worth_a_call(extents: Iterable[int], work: int = WORK) -> bool:
    """Whether a product of these extents is large enough for the library."""
    sizes = tuple(extents)
    return min(sizes) >= SMALLEST and math.prod(sizes) >= work


def _step(step: Step, types: Mapping[str, TensorType], sizes: Mapping[str, int], work: int) -> Step:
    match step:
        case Comprehension(body=Reduce("add", (k,), Apply("mul", (Load() as a, Load() as b)), dtype, ()), indices=(i, j), within=()):
            if dtype.name not in FUNCTIONS or not _is_large((i, j, k), sizes, work):
                return step
            for left, right in ((a, b), (b, a)):
                op_a, op_b = _turned(left, i.name, k.name, types), _turned(right, k.name, j.name, types)
                if op_a is not None and op_b is not None and left.dtype == right.dtype == dtype:
                    return Extern(
                        (step.target,), (step.type,), FUNCTIONS[dtype.name], (left.array, right.array), (("op_a", op_a), ("op_b", op_b))
                    )
            return step
        case _:
            return step


def _is_large(indices: tuple[Index, ...], sizes: Mapping[str, int], work: int) -> bool:
    if not all(symbols(index.extent) <= sizes.keys() for index in indices):
        return False
    return is_worth_a_call((evaluate(index.extent, sizes) for index in indices), work)


def _turned(load: Load, row: str, column: str, types: Mapping[str, TensorType]) -> int | None:
    """0 if the access is [row, column], 1 if [column, row], None if it is something else or sparse."""
    if types[load.array].is_sparse or not is_plain(load):
        return None
    names = [i.name for i in load.indices if isinstance(i, Var)]
    return 0 if names == [row, column] else 1 if names == [column, row] else None
