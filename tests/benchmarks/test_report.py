"""What a run writes: every figure of the Markdown comes from the results, and the README's table from the JSON file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks import report
from benchmarks.harness import SUBJECT, Result, Settings, Target, Timing, judge
from benchmarks.machine import SIZES, Machine
from benchmarks.suites import Limit
from tools import measured

MACHINE = Machine("a processor", 2, 16, {"read": {"1": dict.fromkeys(SIZES, 4e10)}}, {"1": 1e11})
RESULTS = [
    Result("spmm", "a N=64", 1, {SUBJECT: Timing(SUBJECT, [1e-3] * 3), "mkl": Timing("mkl", [2e-3] * 3)}, 1e6, 1e6),
    Result("spmm", "b N=64", 1, {SUBJECT: Timing(SUBJECT, [1e-3] * 3), "mkl": Timing("mkl", problem="wrong result")}, 1e6, 1e6),
]


def entries() -> list[dict[str, object]]:
    limit = command.limit_entry("Calls", Limit(SUBJECT, "a", 2e-6), RESULTS)
    return [*(report.entry_of("SpMM", v) for v in judge(Target("mkl", 1.5, floor=0.5), RESULTS)), limit]


def test_a_run_is_written(tmp_path: Path) -> None:
    section = report.suite_markdown("SpMM", [SUBJECT, "mkl"], RESULTS, judge(Target("mkl", 1.5), RESULTS))
    settings = Settings(load=0.25, data="/a/private/folder")
    paths = report.write(tmp_path / "out", [section], RESULTS, entries(), MACHINE, {"mkl": "1.0"}, settings)
    assert {p.name for p in paths} == {"results.json", "results.md", "roofline.png"}
    text = (tmp_path / "out" / "results.md").read_text()
    assert "| a N=64 | 1 | 1 ms | 2 ms (2.00x) | 1 | 1 |" in text
    assert "| b N=64 | 1 | 1 ms | - | 1 | 1 |" in text
    assert "- mkl: wrong result" in text
    assert "Load average when the run began: 0.25" in text
    raw = (tmp_path / "out" / "results.json").read_text()
    assert "/a/private/folder" not in raw
    assert json.loads(raw)["summary"][0]["geomean"] == pytest.approx(2.0)
    assert (tmp_path / "out" / "roofline.png").read_bytes().startswith(b"\x89PNG")


def test_limits_take_the_worst_case() -> None:
    limit = entries()[-1]
    assert (limit["figure"], limit["met"], limit["cases"]) == ("1 ms", False, "1")
    assert not command.limit_entry("Calls", Limit(SUBJECT, "no such case", 1.0), RESULTS)["met"]


def test_the_readme_table_comes_from_the_results() -> None:
    text = measured.table({"summary": entries(), "machine": MACHINE.to_json()})
    assert "| SpMM | mkl | 2.00x (worst 2.00x, 1 cases) |" in text
    assert "| Calls | a | 1 ms | <= 2 us |" in text
    assert "a processor, 2 cores" in text


@pytest.mark.parametrize(("seconds", "text"), [(2.5, "2.5 s"), (1.234e-3, "1.23 ms"), (5e-6, "5 us"), (7e-8, "70 ns"), (float("nan"), "-")])
def test_times_for_people(seconds: float, text: str) -> None:
    assert report.human(seconds) == text


@pytest.mark.parametrize("argv", [["nonsense"], ["--threads", "x"], ["--threads", "0"], ["--rounds", "0"]])
def test_a_wrong_command_line_is_refused(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        command.parse(argv)
    assert stopped.value.code == 2
    assert "error" in capsys.readouterr().err
