"""How the rows of a product are divided among register tiles of several heights.

    13 rows, tiles of at most 6    ->    1 of 5, 2 of 4        all of 6: 18 rows are computed, the last one six times
    50 rows                        ->    7 of 6, 2 of 4
    600 rows                       ->    100 of 6

A tile takes its time whether its rows are wanted or not, and a shorter one takes less, down to the height at which its few sums
wait for each other. Each height is a version of the loop, which costs code: two at most, and only where that saves something.
"""

from __future__ import annotations

from polyai.loop import build as b
from polyai.loop.nodes import LoopExpr

LEAST = 4
"""Rows that fill the pipelines: a lower tile takes the same time."""
PASS = 0.6
"""What a tile takes besides its rows, in rows: its operand passes through the registers, its sums are stored."""
WORTH = 0.04
"""What part of the time a second version has to save."""

Heights = tuple[tuple[int, int], ...]
"""(height, how many tiles) from the highest to the lowest."""


def heights(rows: int, most: int) -> Heights:
    """The tiles of `most` rows and fewer that take the least time for `rows` rows. The last one may have more rows than are left."""
    if rows <= most:
        return ((rows, 1),)
    choices: list[tuple[float, Heights]] = []
    for high in range(most, min(LEAST, most) - 1, -1):
        alone = ((high, -(-rows // high)),)
        choices.append((_cost(alone), alone))
        for low in range(LEAST, high):
            for lower in range(1, high):
                both = ((high, max(0, -(-(rows - lower * low) // high))), (low, lower))
                if both[0][1]:
                    choices.append((_cost(both) / (1 - WORTH), both))
    return min(choices)[1]


def _cost(tiles: Heights) -> float:
    return sum(count * (max(height, LEAST) + PASS) for height, count in tiles)


def each(rows: LoopExpr, most: int) -> LoopExpr:
    """How many of any number of `rows` go into each tile of at most `most`, if there are as few tiles as can be: 13 rows in tiles of 6 are
    5, 5 and 3, of which the code generator computes no more than it must."""
    count = b.floordiv(b.add(rows, b.const(most - 1)), b.const(most))
    count = b.largest(count, b.ONE)
    return b.floordiv(b.add(rows, b.sub(count, b.ONE)), count)
