"""The data that comes with PolyAI. Where it is from and under which licence: datasets/README.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from polyai.datasets.files import Graph, as_matrix, read
from polyai.datasets.generate import bigbird, rmat, stencil

DATA = Path(__file__).parent.parent / "data"


def digits() -> Graph:
    """1,797 images of handwritten digits: `features` (1797, 64) uint8 pixels 0 to 16, `labels` 0 to 9, `adjacency` with the
    weight exp(-distance^2 / mean) between each image and its 10 nearest, symmetric."""
    graph = read(DATA / "digits.npz")
    assert isinstance(graph, Graph)
    return graph


def flights() -> Any:
    """How often each of 4,043 aircraft (rows) flew each of 3,843 flight numbers (columns) out of New York in 2013: CSR, uint16."""
    return as_matrix(read(DATA / "flights.npz"))


def load_demo() -> dict[str, Any]:
    """A few matrices by name, float32 CSR: real ones that are shipped and generated ones of a size worth measuring."""
    return {
        "digits": digits().adjacency,
        "flights": flights().astype("float32"),
        "rmat-14": rmat(14),
        "stencil-5": stencil(5, (300, 300), dtype="float32"),
        "bigbird-2048": bigbird(2048),
    }
