"""Adapters with one protocol (`harness.Peer`); `load` imports one, or says why it cannot.

Load in the order of ALL: PyTorch holds an MKL of its own, and binds to the other one if that is in the process first;
GraphBLAS brings an OpenMP runtime of its own.
"""

from __future__ import annotations

import importlib

from benchmarks.harness import Peer, Unavailable

ALL = ("polyai", "torch", "scipy", "mkl", "numba", "openblas", "onnxruntime", "openvino", "graphblas")


def load(name: str) -> Peer:
    """The adapter called `name`. Raises Unavailable if its library is not installed."""
    if name not in ALL:
        raise Unavailable(f"no adapter called {name!r}; known are {', '.join(ALL)}")
    try:
        module = importlib.import_module(f"benchmarks.peers.{name}_peer")
    except (ImportError, OSError) as reason:
        raise Unavailable(f"{name}: {reason}") from reason
    peer: Peer = module.PEER
    return peer
