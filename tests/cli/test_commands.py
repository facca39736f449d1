"""The command as a user calls it: output, files, exit status."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp

import polyai as pa
from polyai.command import cli

SCRIPT = """
import numpy as np
import scipy.sparse as sp
import polyai as pa

def layer(A, X):
    return pa.relu(A @ X)

@pa.jit
def decorated(x):
    return x + 1.0

def example_layer():
    return sp.csr_array(np.eye(3)), np.ones((3, 4))

def example_decorated():
    return {"x": np.ones(5)}

if __name__ == "__main__":
    raise SystemExit("a script that is explained does not run as a program")
"""


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path) -> Iterator[None]:
    with pa.options(cache_dir=str(tmp_path / "cache")):
        yield


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "model.py"
    path.write_text(SCRIPT)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    out = tmp_path / "data"
    out.mkdir()
    rng = np.random.default_rng(0)
    scipy.io.mmwrite(out / "square.mtx", sp.random_array((60, 60), density=0.1, rng=rng))
    scipy.io.mmwrite(out / "wide.mtx", sp.random_array((40, 90), density=0.1, rng=rng))
    return out


def test_demo_checks_times_and_writes(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert cli.main(["demo", "--data", str(folder), "--out", str(out), "--rounds", "1"]) == 0
    shown = capsys.readouterr()
    rows = [line for line in shown.out.splitlines() if line.startswith(("SpMV", "SpMM", "SDDMM", "two-layer", "sparse attention"))]
    assert len(rows) == 2 * 3 + 2
    assert all(float(row.split()[-1]) <= 1 for row in rows)
    assert (out / "explain.html").read_text().startswith("<!doctype html>")
    assert (out / "roofline.png").read_bytes().startswith(b"\x89PNG")
    assert shown.err == ""


def test_bench_measures_every_matrix(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "--data", str(folder), "--rounds", "1", "--threads", "1"]) == 0
    assert capsys.readouterr().out.count("square") == 3


def test_a_folder_without_matrices_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "--data", str(tmp_path / "none")]) == 1
    assert "no folder" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert cli.main(["bench", "--data", str(tmp_path / "empty")]) == 1
    assert "no matrix to run on" in capsys.readouterr().err


def test_rounds_must_be_positive(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "--data", str(folder), "--rounds", "0"]) == 1
    assert "at least one round" in capsys.readouterr().err


@pytest.mark.parametrize("function", ["layer", "decorated"])
def test_explain_prints_every_stage(script: Path, function: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["explain", f"{script}:{function}"]) == 0
    text = capsys.readouterr().out
    assert all(f"\n{stage}" in text for stage in ("statements", "schedule", "loops", "code"))


def test_explain_prints_one_stage_or_writes_a_page(script: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["explain", f"{script}:layer", "--stage", "loops"]) == 0
    assert "for " in capsys.readouterr().out
    page = tmp_path / "page.html"
    assert cli.main(["explain", f"{script}:layer", "--html", str(page)]) == 0
    assert page.read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("model.py", "names no function"),
        ("{}:nothing", "defines no function nothing"),
        ("/no/file.py:f", "is no Python file"),
        ("{}:example_layer", "does not say what to call"),
    ],
)
def test_explain_says_what_is_wrong(script: Path, target: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["explain", target.format(script)]) == 1
    assert message in capsys.readouterr().err


def test_explain_lists_the_stages_there_are(script: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["explain", f"{script}:layer", "--stage", "nonsense"]) == 1
    assert "loops" in capsys.readouterr().err


def test_cache_is_shown_listed_and_cleared(script: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    @pa.jit
    def triple(x):  # type: ignore[no-untyped-def]
        return x * 3.0

    triple(np.ones(4))
    assert cli.main(["cache"]) == 0
    assert str(tmp_path / "cache") in capsys.readouterr().out
    assert cli.main(["cache", "--list"]) == 0
    entries = capsys.readouterr().out.splitlines()
    assert len(entries) == pa.cache_info()["entries"] > 0
    assert cli.main(["cache", "--clear"]) == 0
    assert capsys.readouterr().out == f"{len(entries)} entries removed\n"
    assert cli.main(["cache", "--list"]) == 0
    assert capsys.readouterr().out == ""


def test_info_names_versions_and_machine(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info"]) == 0
    text = capsys.readouterr().out
    assert pa.__version__ in text
    assert np.__version__ in text
    assert "bits" in text


def test_without_a_command_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    assert "demo" in capsys.readouterr().out


def test_the_installed_command_runs() -> None:
    done = subprocess.run([sys.executable, "-m", "polyai.command.cli", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"polyai {pa.__version__}\n"


def test_the_module_is_the_command() -> None:
    run = subprocess.run([sys.executable, "-m", "polyai", "info"], capture_output=True, text=True)
    assert run.returncode == 0 and run.stdout.startswith("polyai")
    assert subprocess.run([sys.executable, "-m", "polyai", "nonsense"], capture_output=True).returncode == 2
