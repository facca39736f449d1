"""Facts about storage: what a tensor's levels hold in a format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.public_suites import tensors as t

Array = Any
Numbers = tuple[float, ...]

TACO = "TACO test/tests-storage.cpp"
MLIR = "MLIR test/Integration/Dialect/SparseTensor/CPU/"


@dataclass(frozen=True)
class Stored:
    """`arrays`: pos0, crd0, pos1, ... of the levels that have them, and val."""

    name: str
    source: str
    tensor: Array
    levels: str
    arrays: dict[str, Numbers]


def _group(source: str, tensor: str, *facts: tuple[str, dict[str, Any]]) -> list[Stored]:
    """Facts about one tensor; without values, they are its elements that are not zero, in the order of the dimensions."""
    out = []
    for levels, arrays in facts:
        array = getattr(t, tensor)
        given = {"val": tuple(array[array != 0]), **arrays}
        out.append(Stored(f"{tensor} as {levels}", source, array, levels, given))
    return out


A33 = {"val": (2, 3, 4)}
A33_COLUMNS = {"val": (3, 2, 4)}
FACTS: list[Stored] = [
    *_group(TACO, "D1A", ("i:dense", {"val": (2,)}), ("i:compressed", {"pos0": (0, 1), "crd0": (0,), "val": (2,)})),
    *_group(TACO, "D5A", ("i:dense", {"val": (0, 2, 0, 0, 3)}), ("i:compressed", {"pos0": (0, 2), "crd0": (1, 4), "val": (2, 3)})),
    *_group(TACO, "D33A",
        ("i:dense j:dense", {"val": (0, 2, 0, 0, 0, 0, 3, 0, 4)}),
        ("i:compressed j:dense", {"pos0": (0, 2), "crd0": (0, 2), "val": (0, 2, 0, 3, 0, 4)}),
        ("i:dense j:compressed", {"pos1": (0, 1, 1, 3), "crd1": (1, 0, 2), **A33}),
        ("i:compressed j:compressed", {"pos0": (0, 2), "crd0": (0, 2), "pos1": (0, 1, 3), "crd1": (1, 0, 2), **A33}),
        ("j:dense i:dense", {"val": (0, 0, 3, 2, 0, 0, 0, 0, 4)}),
        ("j:compressed i:dense", {"pos0": (0, 3), "crd0": (0, 1, 2), "val": (0, 0, 3, 2, 0, 0, 0, 0, 4)}),
        ("j:dense i:compressed", {"pos1": (0, 1, 2, 3), "crd1": (2, 0, 2), **A33_COLUMNS}),
        ("j:compressed i:compressed", {"pos0": (0, 3), "crd0": (0, 1, 2), "pos1": (0, 1, 2, 3), "crd1": (2, 0, 2), **A33_COLUMNS}),
    ),
    *_group(TACO, "D33AT", ("i:dense j:dense", {"val": (0, 0, 3, 2, 0, 0, 0, 0, 4)})),
    *_group(TACO, "D3322A", ("i:dense j:compressed k:dense l:dense", {"pos1": (0, 1, 1, 3), "crd1": (1, 0, 2)})),
    *_group(TACO, "D233A",
        ("i:dense j:dense k:dense", {"val": (2, 3, 0, 0, 0, 0, 0, 0, 4, 0, 5, 0, 0, 0, 0, 6, 0, 7)}),
        ("i:compressed j:dense k:dense", {"pos0": (0, 2), "crd0": (0, 1), "val": (2, 3, 0, 0, 0, 0, 0, 0, 4, 0, 5, 0, 0, 0, 0, 6, 0, 7)}),
        ("i:dense j:compressed k:dense", {"pos1": (0, 2, 4), "crd1": (0, 2, 0, 2), "val": (2, 3, 0, 0, 0, 4, 0, 5, 0, 6, 0, 7)}),
        ("i:compressed j:compressed k:dense",
            {"pos0": (0, 2), "crd0": (0, 1), "pos1": (0, 2, 4), "crd1": (0, 2, 0, 2), "val": (2, 3, 0, 0, 0, 4, 0, 5, 0, 6, 0, 7)}),
        ("i:dense j:dense k:compressed", {"pos2": (0, 2, 2, 3, 4, 4, 6), "crd2": (0, 1, 2, 1, 0, 2)}),
        ("i:compressed j:dense k:compressed", {"pos0": (0, 2), "crd0": (0, 1), "pos2": (0, 2, 2, 3, 4, 4, 6), "crd2": (0, 1, 2, 1, 0, 2)}),
        ("i:dense j:compressed k:compressed", {"pos1": (0, 2, 4), "crd1": (0, 2, 0, 2), "pos2": (0, 2, 3, 4, 6), "crd2": (0, 1, 2, 1, 0, 2)}),
        ("i:compressed j:compressed k:compressed",
            {"pos0": (0, 2), "crd0": (0, 1), "pos1": (0, 2, 4), "crd1": (0, 2, 0, 2), "pos2": (0, 2, 3, 4, 6), "crd2": (0, 1, 2, 1, 0, 2)}),
    ),
    *_group(f"{MLIR}sparse_print.mlir", "PRINT",
        ("j:dense i:dense", {"val": (1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0)}),
        ("i:dense j:compressed", {"pos1": (0, 2, 2, 2, 5), "crd1": (0, 2, 2, 3, 5)}),
        ("i:compressed j:compressed", {"pos0": (0, 2), "crd0": (0, 3), "pos1": (0, 2, 5), "crd1": (0, 2, 2, 3, 5)}),
        ("j:dense i:compressed", {"pos1": (0, 1, 1, 3, 4, 4, 5, 5, 5), "crd1": (0, 0, 3, 3, 3)}),
        ("j:compressed i:compressed", {"pos0": (0, 4), "crd0": (0, 2, 3, 5), "pos1": (0, 1, 3, 4, 5), "crd1": (0, 0, 3, 3, 3)}),
        ("i:compressed(nonunique) j:singleton", {"pos0": (0, 5), "crd0": (0, 0, 3, 3, 3), "crd1": (0, 2, 2, 3, 5)}),
        ("i/2:compressed j/4:compressed i%2:dense j%4:dense",
            {"pos0": (0, 2), "crd0": (0, 1), "pos1": (0, 1, 3), "crd1": (0, 0, 1),
             "val": (1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 4, 0, 0, 0, 0, 0, 5, 0, 0)}),
        ("i/2:compressed j/4:compressed j%4:dense i%2:dense",
            {"pos0": (0, 2), "crd0": (0, 1), "pos1": (0, 1, 3), "crd1": (0, 0, 1),
             "val": (1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 4, 0, 0, 0, 5, 0, 0, 0, 0)}),
        ("j/4:compressed i/2:compressed i%2:dense j%4:dense",
            {"pos0": (0, 2), "crd0": (0, 1), "pos1": (0, 2, 3), "crd1": (0, 1, 1),
             "val": (1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 4, 0, 0, 0, 0, 0, 5, 0, 0)}),
        ("j/4:compressed i/2:compressed j%4:dense i%2:dense",
            {"pos0": (0, 2), "crd0": (0, 1), "pos1": (0, 2, 3), "crd1": (0, 1, 1),
             "val": (1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 4, 0, 0, 0, 5, 0, 0, 0, 0)}),
        ("i/2:dense j/4:compressed i%2:dense j%4:dense",
            {"pos1": (0, 1, 3), "crd1": (0, 0, 1), "val": (1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 4, 0, 0, 0, 0, 0, 5, 0, 0)}),
        ("j/4:dense i/2:compressed i%2:dense j%4:dense",
            {"pos1": (0, 2, 3), "crd1": (0, 1, 1), "val": (1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 4, 0, 0, 0, 0, 0, 5, 0, 0)}),
    ),
    *_group(f"{MLIR}sparse_storage.mlir", "STORAGE",
        ("i:dense j:compressed", {"pos1": (0, 3, 3, 4, 5, 6, 9, 12, 16, 16, 17), "crd1": (0, 2, 7, 2, 3, 4, 1, 2, 7, 2, 6, 7, 1, 2, 6, 7, 6)}),
        ("i:compressed j:compressed",
            {"pos0": (0, 8), "crd0": (0, 2, 3, 4, 5, 6, 7, 9), "pos1": (0, 3, 4, 5, 6, 9, 12, 16, 17),
             "crd1": (0, 2, 7, 2, 3, 4, 1, 2, 7, 2, 6, 7, 1, 2, 6, 7, 6)}),
        ("j:dense i:compressed",
            {"pos1": (0, 1, 3, 8, 9, 10, 10, 13, 17), "crd1": (0, 5, 7, 0, 2, 5, 6, 7, 3, 4, 6, 7, 9, 0, 5, 6, 7),
             "val": (1, 7, 13, 2, 4, 8, 10, 14, 5, 6, 11, 15, 17, 3, 9, 12, 16)}),
        ("j:compressed i:compressed",
            {"pos0": (0, 7), "crd0": (0, 1, 2, 3, 4, 6, 7), "pos1": (0, 1, 3, 8, 9, 10, 13, 17),
             "crd1": (0, 5, 7, 0, 2, 5, 6, 7, 3, 4, 6, 7, 9, 0, 5, 6, 7), "val": (1, 7, 13, 2, 4, 8, 10, 14, 5, 6, 11, 15, 17, 3, 9, 12, 16)}),
        ("i:compressed j:dense",
            {"pos0": (0, 8), "crd0": (0, 2, 3, 4, 5, 6, 7, 9),
             "val": (1, 0, 2, 0, 0, 0, 0, 3, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0,
                     0, 7, 8, 0, 0, 0, 0, 9, 0, 0, 10, 0, 0, 0, 11, 12, 0, 13, 14, 0, 0, 0, 15, 16, 0, 0, 0, 0, 0, 0, 17, 0)}),
        ("j:compressed i:dense",
            {"pos0": (0, 7), "crd0": (0, 1, 2, 3, 4, 6, 7),
             "val": (1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 13, 0, 0, 2, 0, 4, 0, 0, 8, 10, 14, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0,
                     0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 11, 15, 0, 17, 3, 0, 0, 0, 0, 9, 12, 16, 0, 0)}),
    ),
    *_group(f"{MLIR}sparse_conversion_block.mlir", "BLOCKS",
        ("i/2:dense j/2:compressed i%2:dense j%2:dense", {"pos1": (0, 2), "crd1": (0, 1), "val": (1, 2, 5, 6, 3, 4, 7, 8)}),
        ("i:dense j:compressed", {"pos1": (0, 4, 8), "crd1": (0, 1, 2, 3, 0, 1, 2, 3)}),
        ("j:dense i:compressed", {"pos1": (0, 2, 4, 6, 8), "crd1": (0, 1, 0, 1, 0, 1, 0, 1), "val": (1, 5, 2, 6, 3, 7, 4, 8)}),
    ),
    *_group(f"{MLIR}sparse_conversion.mlir", "FULL3",
        ("i:compressed j:compressed k:compressed", {"crd0": (0, 1), "crd1": (0, 1, 2) * 2, "crd2": (0, 1, 2, 3) * 6}),
        ("j:compressed k:compressed i:compressed",
            {"crd0": (0, 1, 2), "crd1": (0, 1, 2, 3) * 3, "crd2": (0, 1) * 12,
             "val": (1, 13, 2, 14, 3, 15, 4, 16, 5, 17, 6, 18, 7, 19, 8, 20, 9, 21, 10, 22, 11, 23, 12, 24)}),
        ("k:compressed i:compressed j:compressed",
            {"crd0": (0, 1, 2, 3), "crd1": (0, 1) * 4, "crd2": (0, 1, 2) * 8,
             "val": (1, 5, 9, 13, 17, 21, 2, 6, 10, 14, 18, 22, 3, 7, 11, 15, 19, 23, 4, 8, 12, 16, 20, 24)}),
    ),
    *_group(f"{MLIR}sparse_ds.mlir", "DS",
        ("i:dense j:compressed", {"pos1": (0, 4, 8, 12), "crd1": (2, 3, 5, 7, 1, 2, 4, 7, 0, 2, 4, 5)}),
        ("i:dense j:loose_compressed", {"pos1": (0, 4, 4, 8, 8, 12), "crd1": (2, 3, 5, 7, 1, 2, 4, 7, 0, 2, 4, 5)}),
        ("i:dense j/4:dense j%4:block2_4", {"crd2": (2, 3, 1, 3, 1, 2, 0, 3, 0, 2, 0, 1)}),
    ),
    *_group(f"{MLIR}sparse_block3d.mlir", "BLOCK3D",
        ("i:compressed j:compressed k:compressed", {"val": (1, 5, 2, 6, 3, 7, 4, 8)}),
        ("i/2:compressed j/2:compressed k/2:compressed i%2:dense j%2:dense k%2:dense",
            {"val": (1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 5, 0, 0, 0, 6, 0, 3, 0, 0, 0, 4, 0, 0, 0, 0, 0, 7, 0, 0, 0, 8, 0)}),
    ),
]  # fmt: skip
