"""One file per claim. A suite yields cases for `harness.measure`, or measures in its own way (`run`)."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from benchmarks.harness import Case, Peer, Result, Settings, Target

ALL = (
    "spmv",
    "spmm",
    "prepared_spmv",
    "prepared_spmm",
    "sddmm",
    "attention",
    "gcn",
    "mttkrp",
    "ttm",
    "gemm",
    "gemm_few_rows",
    "rowwise",
    "spgemm",
    "spgemm_reuse",
    "spgemm_masked",
    "spgemm_memory",
    "sparse_add",
    "sparse_multiply",
    "bsr_spmm",
    "spmm_transposed",
    "convert",
    "pruned",
    "dynamic",
    "ragged",
    "graph_stream",
    "call_overhead",
    "cold_start",
    "first_calls",
    "scaling",
    "checks_cost",
)


@dataclass(frozen=True)
class Limit:
    """An absolute aim: the median time of `contender` on cases whose name starts with `case` is at most `seconds`."""

    contender: str
    case: str
    seconds: float


@dataclass(frozen=True)
class Suite:
    """`peers` in the order of the report; the subject is always there. `cases` yields problems one at a time, so that at
    most one lives in memory; `wrap` may replace the loaded peers by variants of them; `run` measures everything itself; `remarks` says
    in words what else follows from the results."""

    name: str
    title: str
    peers: tuple[str, ...] = ()
    cases: Callable[[Settings], Iterable[Case]] | None = None
    targets: tuple[Target, ...] = ()
    limits: tuple[Limit, ...] = ()
    threads: tuple[int, ...] = ()
    wrap: Callable[[Sequence[Peer]], list[Peer]] | None = None
    run: Callable[[Settings], list[Result]] | None = None
    remarks: Callable[[Sequence[Result]], list[str]] | None = None


def load(name: str) -> Suite:
    """The suite called `name`."""
    suite: Suite = importlib.import_module(f"benchmarks.suites.{name}").SUITE
    return suite
