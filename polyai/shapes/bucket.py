"""Buckets: which sizes share one specialised kernel. A policy is data; `bucket_of` reads it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from typing import Union, assert_never

from polyai.errors import OptionError
from polyai.shapes.dim import Dim
from polyai.term.node import node


@node
class Exact:
    """Each size has its own kernel."""


@node
class PowerOfTwo:
    """Sizes up to `least` share one kernel, then every range (2**k, 2**(k+1)] has one."""

    least: int = 16


@node
class Multiple:
    """Every range of `of` sizes ((k-1)*of, k*of] has one kernel."""

    of: int


@node
class Edges:
    """Ranges that end at the given sizes, ascending; sizes above the last edge share one kernel."""

    edges: tuple[int, ...]


@node
class Learned:
    """Edges chosen from the sizes that occur, see `best_edges`."""


@node
class Never:
    """No size has a kernel of its own."""


Bucket = Union[Exact, PowerOfTwo, Multiple, Edges]
Policy = Union[Exact, PowerOfTwo, Multiple, Edges, Learned, Never]


def bucket_of(policy: Bucket, size: int) -> tuple[int, int | None]:
    """The least and the greatest size of the bucket that `size` falls into; None if it has no greatest. Size 0 is one alone."""
    if size == 0:
        return 0, 0
    match policy:
        case Exact():
            return size, size
        case PowerOfTwo(least):
            if size <= least:
                return 1, least
            high = 1 << (size - 1).bit_length()
            return max(high // 2, least) + 1, high
        case Multiple(of):
            high = -(-size // of) * of
            return high - of + 1, high
        case Edges(edges):
            at = bisect_left(edges, size)
            low = edges[at - 1] + 1 if at else 1
            return low, edges[at] if at < len(edges) else None
        case _:
            assert_never(policy)


def narrowed(dim: Dim, policy: Bucket, size: int) -> Dim:
    """`dim` restricted to the bucket of `size`: what a specialised kernel may take for granted."""
    low, high = bucket_of(policy, size)
    tops = [h for h in (high, dim.max) if h is not None]
    return Dim(dim.name, max(low, dim.min), min(tops, default=None), dim.multiple_of)


def parse(text: str) -> Policy:
    """`none`, `learned`, `exact`, `pow2`, `pow2:64`, `multiple:32`, `ranges:16,64,512`. Raises OptionError for anything else."""
    name, _, rest = text.partition(":")
    numbers = [int(part) for part in rest.split(",")] if rest and all(p.isdigit() for p in rest.split(",")) else []
    match name, numbers:
        case "exact", [] if not rest:
            return Exact()
        case "pow2", [] if not rest:
            return PowerOfTwo()
        case "pow2", [least] if least > 0:
            return PowerOfTwo(least)
        case "multiple", [of] if of > 0:
            return Multiple(of)
        case "learned", [] if not rest:
            return Learned()
        case "none", [] if not rest:
            return Never()
        case "ranges", [_, *_] if numbers == sorted(set(numbers)) and numbers[0] > 0:
            return Edges(tuple(numbers))
        case _:
            raise OptionError(f"unknown bucket policy {text!r}", "", "use none, learned, exact, pow2, pow2:64, multiple:32 or ranges:16,64,512")


def best_edges(frequency: Mapping[int, int], seconds: Callable[[int, int], float], compile_seconds: float) -> Edges:
    """The edges with the least total time: calls plus compilations.

    `frequency[size]` counts calls; `seconds(size, high)` is the time of one call at `size` with the kernel of a bucket that
    ends at `high`. Dynamic programming over the sizes that occur: O(k**2) for k of them.
    """
    sizes: Sequence[int] = sorted(s for s in frequency if s > 0)
    best: list[tuple[float, int]] = [(0.0, 0)]  # total and start of the last bucket, for each number of sizes covered
    for end in range(1, len(sizes) + 1):
        high, inside, choices = sizes[end - 1], 0.0, []
        for start in range(end - 1, -1, -1):
            inside += frequency[sizes[start]] * seconds(sizes[start], high)
            choices.append((best[start][0] + inside + compile_seconds, start))
        best.append(min(choices))
    edges, at = [], len(sizes)
    while at:
        edges.append(sizes[at - 1])
        at = best[at][1]
    return Edges(tuple(reversed(edges)))
