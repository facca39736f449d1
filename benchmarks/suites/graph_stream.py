"""A stream of small graphs of different sizes through a graph network, f32: two convolutions of 32 features and the mean over the
nodes of each graph. The graphs come one at a time, and in batches that are put together, timed, as one block-diagonal matrix.

The first call compiles; no later one does, which the suite checks. Contenders do what their users write: SciPy and NumPy a loop
over graphs; PyTorch dense products around sparse ones, and `segment_reduce` over batches that it puts together from edge lists.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

import polyai as pa
from benchmarks import peers, reference
from benchmarks.harness import SUBJECT, Result, Settings, Target, Timing, Unavailable, relative_excess
from benchmarks.suites import Suite
from benchmarks.suites.operands import normal, rng

WIDTH, COUNT = 32, 1000
BATCHES = (1, 32, 256)

Graphs = list[Any]
Pass = Callable[[], np.ndarray]


def graphs(settings: Settings) -> Graphs:
    """Adjacency matrices, both directions: real threads out of the data folder, or random trees with a few more edges."""
    count = 100 if settings.quick else COUNT
    found = next(iter(sorted(Path(settings.data).rglob("*threads_batch.npz"))), None) if settings.data is not None else None
    if found is not None:
        stored = np.load(found)
        edges, bounds, nodes = stored["edge_index"], stored["edge_ptr"], np.diff(stored["node_ptr"])
        parts = [(edges[:, bounds[n] : bounds[n + 1]], int(nodes[n])) for n in range(min(count, len(nodes)))]
    else:
        drawn = rng("graphs")
        parts = []
        for n in np.exp(drawn.normal(2.9, 0.6, count)).astype(int) + 2:
            ends = np.concatenate([np.arange(1, n), drawn.integers(0, n, n // 4)])
            parts.append((np.array([ends, np.concatenate([drawn.integers(0, np.arange(1, n)), drawn.integers(0, n, n // 4)])]), int(n)))
    out = []
    for (a, b), n in parts:
        one = sp.coo_array((np.ones(2 * len(a), np.float32), (np.concatenate([a, b]), np.concatenate([b, a]))), shape=(n, n)).tocsr()
        one.data[:] = 1
        one.indices, one.indptr = one.indices.astype(np.int32), one.indptr.astype(np.int32)
        out.append(one)
    return out


def _network(A: Any, x: Any, w1: Any, b: Any, w2: Any) -> Any:
    h = pa.relu(A @ (x @ w1) + b)
    return pa.relu(A @ (h @ w2)).mean(axis=-2 if x.ndim == 2 else 1)


def _whole(A: Any, x: np.ndarray, w1: np.ndarray, b: np.ndarray, w2: np.ndarray) -> np.ndarray:
    h = np.maximum(A @ (x @ w1) + b, 0)
    out: np.ndarray = np.maximum(A @ (h @ w2), 0).mean(0)
    return out


def by_polyai(chosen: Graphs, features: list[np.ndarray], weights: tuple[np.ndarray, ...], size: int, kept: list[Any]) -> Pass:
    network = pa.jit(_network, name="network")
    kept.append(network)

    def alone() -> np.ndarray:
        return np.stack([network(A, x, *weights) for A, x in zip(chosen, features)])

    def together() -> np.ndarray:
        found = []
        for at in range(0, len(chosen), size):
            A, offsets, _ = pa.block_diagonal(chosen[at : at + size])
            found.append(network(A, pa.ragged(np.concatenate(features[at : at + size]), offsets), *weights))
        return np.concatenate(found)

    return alone if size == 1 else together


def by_scipy(chosen: Graphs, features: list[np.ndarray], weights: tuple[np.ndarray, ...], size: int, kept: list[Any]) -> Pass:
    return lambda: np.stack([_whole(A, x, *weights) for A, x in zip(chosen, features)])


def by_torch(chosen: Graphs, features: list[np.ndarray], weights: tuple[np.ndarray, ...], size: int, kept: list[Any]) -> Pass:
    import torch

    w1, b, w2 = map(torch.from_numpy, weights)
    listed = [(torch.from_numpy(A.indptr), torch.from_numpy(A.indices), torch.from_numpy(A.data), A.shape[0]) for A in chosen]
    xs = list(map(torch.from_numpy, features))

    def network(A: Any, x: Any) -> Any:
        h = torch.relu(torch.addmm(b, A, x @ w1))
        return torch.relu(A @ (h @ w2))

    def alone() -> np.ndarray:
        with torch.inference_mode():
            return torch.stack([network(torch.sparse_csr_tensor(p, c, v, (n, n)), x).mean(0) for (p, c, v, n), x in zip(listed, xs)]).numpy()

    def together() -> np.ndarray:
        found = []
        with torch.inference_mode():
            for at in range(0, len(listed), size):
                part = listed[at : at + size]
                nodes = np.array([n for *_, n in part])
                ends = np.concatenate([[0], np.cumsum(nodes)])
                stored = np.concatenate([[0], np.cumsum([len(v) for _, _, v, _ in part])])
                pos = torch.cat([torch.zeros(1, dtype=torch.int32), *(p[1:] + int(s) for (p, *_), s in zip(part, stored))])
                crd = torch.cat([c + int(e) for (_, c, *_), e in zip(part, ends)])
                A = torch.sparse_csr_tensor(pos, crd, torch.cat([v for *_, v, _ in part]), (int(ends[-1]),) * 2)
                h = network(A, torch.cat(xs[at : at + size]))
                found.append(torch.segment_reduce(h, "mean", lengths=torch.from_numpy(nodes), axis=0))
        return torch.cat(found).numpy()

    return alone if size == 1 else together


CONTENDERS = {SUBJECT: by_polyai, "scipy": by_scipy, "torch": by_torch}


def _bounded(chosen: Graphs, features: list[np.ndarray], weights: tuple[np.ndarray, ...]) -> tuple[np.ndarray, np.ndarray]:
    """float64 results, and the bound of as many roundings as the longest chain of sums has, on sums of magnitudes."""
    w1, b, w2 = (w.astype(np.float64) for w in weights)
    values, scales = [], []
    for A, x in zip(chosen, features):
        wide, y = A.astype(np.float64), x.astype(np.float64)
        values.append(_whole(wide, y, w1, b, w2))
        h = wide @ (np.abs(y) @ np.abs(w1)) + np.abs(b)
        count = 2 * (WIDTH + int(np.diff(A.indptr).max(initial=0))) + A.shape[0] + 8
        scales.append(reference.gamma(count, np.float32) * (wide @ (h @ np.abs(w2))).mean(0))
    return np.stack(values), np.stack(scales)


def _measured(size: int, threads: int, settings: Settings) -> Result:
    chosen = graphs(settings)
    features = [normal(f"graph {n}", A.shape[0], WIDTH) for n, A in enumerate(chosen)]
    weights = (normal("w1", WIDTH, WIDTH) / np.float32(WIDTH**0.5), normal("b", WIDTH), normal("w2", WIDTH, WIDTH) / np.float32(WIDTH**0.5))
    want = _bounded(chosen, features, weights)
    nodes = [A.shape[0] for A in chosen]
    name = "one at a time" if size == 1 else f"batches of {size}"
    out = Result("graph_stream", name, threads, {}, facts={"graphs": len(chosen), "nodes": sum(nodes), "smallest": min(nodes), "largest": max(nodes)})
    ready: dict[str, Pass] = {}
    functions: list[Any] = []
    with ExitStack() as stack:
        for contender, make in CONTENDERS.items():
            timing = out.timings[contender] = Timing(contender)
            try:
                stack.enter_context(peers.load(contender).threads(threads))
                call = make(chosen, features, weights, size, functions)
                timing.error = relative_excess(call(), *want)
            except Unavailable as failure:
                timing.problem = str(failure)
                continue
            if timing.error > 1:
                timing.problem = f"wrong: error {timing.error:.3g} of the bound"
                continue
            ready[contender] = call
        order = list(ready)
        for round_ in range(settings.rounds):
            for k in range(len(order)):
                at = order[(k + round_) % len(order)]
                start = time.perf_counter()
                ready[at]()
                out.timings[at].times.append(time.perf_counter() - start)
    kernels = sum(len(f.report().kernels) for f in functions)
    out.facts["kernels"] = kernels
    if kernels != 1:
        out.timings[SUBJECT].problem = f"{kernels} kernels were made for one network"
    return out


def run(settings: Settings) -> list[Result]:
    return [_measured(size, threads, settings) for threads in settings.threads for size in BATCHES]


SUITE = Suite(
    "graph_stream",
    "Graph network over a stream of graphs, f32",
    ("scipy", "torch"),
    run=run,
    targets=(Target("scipy", 3.0), Target("torch", 1.5)),
)
