"""Wrong command lines end with a sentence and status 1 or 2, never with a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from polyai.command.cli import main

WRONG: tuple[tuple[tuple[str, ...], int, str], ...] = (
    (("explain",), 2, "required"),
    (("explain", "nofile.py:f"), 1, "no Python file"),
    (("explain", "ok.py"), 1, "names no function"),
    (("explain", "ok.py:g"), 1, "defines no function g"),
    (("explain", "ok.py:f"), 1, "does not say what to call f with"),
    (("explain", "bad.py:f"), 1, "division by zero"),
    (("explain", ":"), 1, "names no function"),
    (("spy",), 2, "required"),
    (("spy", "nothing.mtx"), 1, "nothing.mtx"),
    (("spy", "broken.mtx"), 1, "broken.mtx is broken"),
    (("spy", "ok.py"), 1, "unknown kind of file"),
    (("bench", "--rounds", "many"), 2, "invalid int value"),
    (("bench", "--rounds", "0"), 1, "--rounds 0"),
    (("bench", "extra"), 2, "unrecognized arguments"),
    (("cache", "list"), 2, "invalid choice"),
    (("cache", "import", "ok.py"), 1, "no archive"),
    (("cache", "export", "nowhere/kernels"), 1, "No such file"),
    (("unknown",), 2, "invalid choice"),
)


@pytest.mark.parametrize(("arguments", "status", "words"), WRONG)
def test_a_wrong_command_line(
    arguments: tuple[str, ...], status: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ok.py").write_text("import polyai as pa\n@pa.jit\ndef f(A, x): return A @ x\ng = 3\n")
    (tmp_path / "bad.py").write_text("1 / 0\n")
    (tmp_path / "broken.mtx").write_text("%%MatrixMarket matrix coordinate real general\n3 3 2\n1 1 x\n")
    monkeypatch.chdir(tmp_path)
    try:
        found = main(list(arguments))
    except SystemExit as end:
        found = int(end.code or 0)
    assert found == status
    said = capsys.readouterr().err
    assert words in said and "Traceback" not in said
