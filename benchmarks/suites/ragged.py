"""Attention over batches of rows of different lengths, f32, d = 64, 1 and 4 heads: batches drawn from real lengths (sentences,
prompts), and rows of one length. Ragged batches against the same function on padded ones, and against PyTorch: padded with a
mask, nested tensors, and one call for each row.

Padding, nesting and cutting are not timed. The results of all are compared row by row, packed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

import polyai as pa
from benchmarks import reference
from benchmarks.harness import SUBJECT, Case, Peer, Prepare, Run, Settings, Target, Unavailable
from benchmarks.suites import Suite
from benchmarks.suites.operands import normal, rng
from polyai import datasets

D, MOST = 64, 2048
PADDED, TORCH_PADDED, TORCH_NESTED, TORCH_ROWS = f"{SUBJECT} padded", "torch padded", "torch nested", "torch by rows"


def lengths(data: str | None, kind: str) -> np.ndarray:
    """Lengths from 1 to MOST: `sentences` or `prompts` out of the data folder; without one, of log-normal distributions like theirs."""
    pattern = {"sentences": "*sentence_lengths.tsv*", "prompts": "azure_llm*.tsv*"}[kind]
    for file in sorted(Path(data).rglob(pattern)) if data is not None else ():
        for column in datasets.read(file).values():
            if column.dtype.kind in "iu" and column.min() >= 1:
                return column[column <= MOST]
    centre, spread = {"sentences": (2.6, 0.9), "prompts": (6.5, 1.0)}[kind]
    drawn = np.exp(rng(kind).normal(centre, spread, 20_000)).astype(np.int64)
    return drawn[(drawn >= 1) & (drawn <= MOST)]


def batches(settings: Settings) -> Iterator[tuple[str, np.ndarray]]:
    """Names and lengths."""
    small = settings.quick
    for count in (16, 64, 256)[: 2 if small else 3]:
        yield f"sentences/{count}", rng(f"sentences {count}").choice(lengths(settings.data, "sentences"), count)
    for count in (4, 16)[: 1 if small else 2]:
        yield f"prompts/{count}", rng(f"prompts {count}").choice(lengths(settings.data, "prompts"), count)
    yield "equal/16x128", np.full(16, 128)


def wanted(offsets: np.ndarray, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """float64, row by row and head by head, with the bound of `reference.attention`."""
    values, bound = np.zeros(q.shape), np.zeros(q.shape)
    eps, scale = float(np.finfo(q.dtype).eps), D**-0.5
    for begin, end in pairwise(offsets):
        for h in range(q.shape[1]):
            a, b, c = (x[begin:end, h].astype(np.float64) for x in (q, k, v))
            score = a @ b.T * scale
            slack = reference.gamma(D + 2, q.dtype) * (np.abs(a) @ np.abs(b).T) * scale + 2 * eps * np.abs(score)
            weights = np.exp(score - score.max(1, keepdims=True))
            weights /= weights.sum(1, keepdims=True)
            relative = 2 * slack.max(1, keepdims=True) + (end - begin + 16) * eps
            values[begin:end, h], bound[begin:end, h] = weights @ c, relative * (weights @ np.abs(c))
    return values, bound


def cases(settings: Settings) -> Iterator[Case]:
    for heads in (1, 4):
        for name, chosen in batches(settings):
            offsets = np.concatenate([[0], np.cumsum(chosen)])
            q, k, v = (normal(f"{name} {t}", int(offsets[-1]), heads, D) for t in "qkv")
            pairs = heads * int((chosen.astype(np.int64) ** 2).sum())
            yield Case(
                f"{name}, {heads} heads",
                "ragged_attention",
                {"offsets": offsets, "q": q, "k": k, "v": v},
                lambda o=offsets, q=q, k=k, v=v: wanted(o, q, k, v),
                pairs * (4 * D + 4),
                16 * q.size,
                {"rows": len(chosen), "elements": int(offsets[-1]), "longest": int(chosen.max()), "padding": round(len(chosen) * int(chosen.max()) ** 2 * heads / pairs, 2)},
                compared,
            )


def padded(offsets: np.ndarray, x: np.ndarray) -> np.ndarray:
    """(rows, heads, longest, d), zero behind the end of each row."""
    return np.ascontiguousarray(pa.ragged(x, offsets).to_padded().transpose(0, 2, 1, 3))


def packed(offsets: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The rows of (rows, heads, longest, d) one after another."""
    return pa.ragged_from_padded(y.transpose(0, 2, 1, 3), np.diff(offsets)).values


_ragged = pa.jit(lambda q, k, v: pa.attention(q, k, v), name="ragged_attention")
_masked = pa.jit(lambda q, k, v, mask: pa.attention(q, k, v, mask), name="padded_attention")


def ours(offsets: np.ndarray, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> Run:
    batch = pa.ragged(q, offsets)
    a, b, c = batch, batch.with_values(k), batch.with_values(v)
    return lambda: _ragged(a, b, c).values


def ours_padded(offsets: np.ndarray, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> Run:
    a, b, c = (padded(offsets, x) for x in (q, k, v))
    mask = (np.arange(a.shape[2]) < np.diff(offsets)[:, None])[:, None, None]
    return lambda: _masked(a, b, c, mask)


def torch_padded(offsets: np.ndarray, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> Run:
    import torch

    a, b, c = (torch.from_numpy(padded(offsets, x)) for x in (q, k, v))
    mask = torch.from_numpy((np.arange(a.shape[2]) < np.diff(offsets)[:, None])[:, None, None])
    return lambda: torch.nn.functional.scaled_dot_product_attention(a, b, c, attn_mask=mask).numpy()


def torch_nested(offsets: np.ndarray, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> Run:
    import torch

    at = torch.from_numpy(offsets)
    a, b, c = (torch.nested.nested_tensor_from_jagged(torch.from_numpy(x), at).transpose(1, 2) for x in (q, k, v))
    return lambda: torch.nn.functional.scaled_dot_product_attention(a, b, c).transpose(1, 2).values().numpy()


def torch_by_rows(offsets: np.ndarray, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> Run:
    import torch

    rows = [
        tuple(torch.from_numpy(np.ascontiguousarray(x[b:e].transpose(1, 0, 2)))[None] for x in (q, k, v)) for b, e in pairwise(offsets)
    ]
    return lambda: [torch.nn.functional.scaled_dot_product_attention(*row) for row in rows]


class Way:
    """One way of a library to do it."""

    def __init__(self, peer: Peer, name: str, prepare: Prepare, back: Callable[[np.ndarray, Any], np.ndarray]) -> None:
        self.name, self._peer, self._prepare, self._back = name, peer, prepare, back
        self.kernels: Mapping[str, Prepare] = {"ragged_attention": self._run}

    def _run(self, offsets: np.ndarray, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> Run:
        try:
            run = self._prepare(offsets, q, k, v)
            found = self._back(offsets, run())
        except (RuntimeError, NotImplementedError) as error:
            raise Unavailable(str(error).splitlines()[0]) from None
        if found.shape != q.shape:
            raise Unavailable(f"the result has the shape {found.shape}")
        return lambda: (self._back, offsets, run())

    def version(self) -> str:
        return self._peer.version()

    def threads(self, count: int) -> AbstractContextManager[None]:
        found: AbstractContextManager[None] = self._peer.threads(count)
        return found


def same(offsets: np.ndarray, y: np.ndarray) -> np.ndarray:
    return y


def joined(offsets: np.ndarray, rows: Any) -> np.ndarray:
    return np.concatenate([r[0].numpy().transpose(1, 0, 2) for r in rows])


def compared(result: Any) -> np.ndarray:
    """A contender's result, packed; untimed."""
    back, offsets, value = result
    return back(offsets, value)


def wrap(peers: Sequence[Peer]) -> list[Peer]:
    out: list[Peer] = []
    for peer in peers:
        if peer.name == SUBJECT:
            out += [Way(peer, SUBJECT, ours, same), Way(peer, PADDED, ours_padded, packed)]
        elif peer.name == "torch":
            out += [Way(peer, TORCH_PADDED, torch_padded, packed), Way(peer, TORCH_NESTED, torch_nested, same), Way(peer, TORCH_ROWS, torch_by_rows, joined)]
    return out


SUITE = Suite(
    "ragged",
    "Attention over rows of different lengths, f32, d = 64",
    ("torch",),
    cases,
    (
        Target(PADDED, 2.0, only=("sentences", "prompts")),  # rows of one length have no padding to save
        Target(f"best of {TORCH_PADDED}, {TORCH_NESTED}", 1.5),
        Target(TORCH_ROWS, 1.0),
    ),
    wrap=wrap,
)
