"""`polyai spy` on every kind of file."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp

import polyai as pa
from polyai.command import cli, spy
from polyai.datasets import stencil
from polyai.sparse.stats import rows_of


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path) -> Iterator[None]:
    with pa.options(cache_dir=str(tmp_path / "cache")):
        yield


def written(folder: Path, kind: str) -> Path:
    matrix = sp.csr_array(sp.random_array((30, 20), density=0.2, rng=np.random.default_rng(0)))
    path = folder / f"a.{kind}"
    if kind.startswith("mtx"):
        scipy.io.mmwrite(folder / "a.mtx", matrix)
        if kind == "mtx.gz":
            import gzip

            path.write_bytes(gzip.compress((folder / "a.mtx").read_bytes()))
    elif kind == "npz":
        sp.save_npz(path, matrix)
    else:
        lines = [f"30, 20, {matrix.nnz}", " ".join(map(str, matrix.indptr)), " ".join(map(str, matrix.indices))]
        path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("kind", ["mtx", "mtx.gz", "npz", "smtx"])
def test_files_of_every_kind(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["spy", str(written(tmp_path, kind)), "--no-measure", "--html", str(tmp_path / "a.html")]) == 0
    shown = capsys.readouterr().out
    assert "30 x 20" in shown and "recommended for A @ x" in shown and shown.count("│") == 2 * 30
    page = (tmp_path / "a.html").read_text()
    assert page.startswith("<!doctype html>") and "<svg" in page and "http" not in page and "<script" not in page


def test_measured_times_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scipy.io.mmwrite(tmp_path / "s.mtx", stencil(5, (12, 12)))
    assert cli.main(["spy", str(tmp_path / "s.mtx"), "--threads", "1"]) == 0
    chosen = next(line for line in capsys.readouterr().out.splitlines() if line.endswith("<- chosen"))
    assert chosen.count(" us ") == 2


def test_a_picture_file(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert cli.main(["spy", str(written(tmp_path, "npz")), "--no-measure", "--png", str(tmp_path / "a.png")]) == 0
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("matplotlib.backends.backend_agg", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    assert cli.main(["spy", str(written(tmp_path, "npz")), "--no-measure", "--png", str(tmp_path / "a.png")]) == 1
    assert "pictures need matplotlib" in capsys.readouterr().err


def test_what_is_no_matrix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "t.tns").write_text("1 1 1 2.0\n2 1 3 1.5\n")
    (tmp_path / "broken.mtx").write_text("%%MatrixMarket matrix coordinate real general\n3 3 2\n1 1 1.0\n")
    for name, message in (("t.tns", "holds no matrix"), ("broken.mtx", "broken"), ("absent.mtx", "no such file"), ("a.xyz", "unknown kind of file")):
        assert cli.main(["spy", str(tmp_path / name)]) == 1
        assert message in capsys.readouterr().err


def test_complex_matrices_are_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scipy.io.mmwrite(tmp_path / "c.mtx", sp.csr_array(np.eye(4) * 1j))
    assert cli.main(["spy", str(tmp_path / "c.mtx"), "--no-measure"]) == 0
    assert "no layout is recommended" in capsys.readouterr().out


def test_density_counts_every_entry() -> None:
    matrix = sp.csr_array(sp.random_array((53, 41), density=0.1, rng=np.random.default_rng(2)))
    cells = spy.density(rows_of(matrix), 8, 8)
    tall = np.bincount(np.arange(53) * 8 // 53)
    wide = np.bincount(np.arange(41) * 8 // 41)
    assert (cells * np.outer(tall, wide)).sum() == pytest.approx(matrix.nnz)
    empty = rows_of(sp.csr_array((3, 0)))
    assert spy.density(empty, 8, 8).sum() == 0 and spy.picture(empty)
    dense = spy.shades(np.array([[0.0, 1.0]]), 4)
    np.testing.assert_array_equal(dense, [[0, 4]])
