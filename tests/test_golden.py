"""What every stage makes of some programs, as text. `pytest --update-golden` writes the files; read the difference before it is kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from polyai import pipeline
from polyai.machine.cpu import Target
from polyai.options import Options
from tests.programs import PROGRAMS

GOLDEN = Path(__file__).parent / "golden"
STAGES = ("fuse", "statements", "schedule", "loops", "tidy")
NAMES = ("spmv", "spmm_bias_relu", "spmm_coo", "mttkrp", "sddmm", "sparse_attention", "softmax", "conv2d_padded", "cumsum", "scatter_add")
TARGET = Target("x86_64-unknown-linux-gnu", "skylake-avx512", "", vector_bits=512, registers=32, fma=True, half=True, gather=True, cores=2)
SIZES = {"n": 1024, "m": 64, "c": 1024, "p": 64, "d": 64, "h": 64, "A.nnz": 8192, "A_len1": 8, "T_len1": 4, "T_len2": 8}


@pytest.mark.parametrize("name", NAMES)
def test_stages(name: str, request: pytest.FixtureRequest) -> None:
    made: dict[str, str] = {}

    def watch(stage: pipeline.Stage, build: pipeline.Build, milliseconds: float) -> None:
        if stage.name in STAGES:
            made[stage.name] = stage.show(build).rstrip() + "\n"

    pipeline.compile_program(PROGRAMS[name]().program, SIZES, Options(), TARGET, until="tidy", watch=watch)
    assert list(made) == list(STAGES)
    for stage, text in made.items():
        file = GOLDEN / stage / f"{name}.txt"
        if request.config.getoption("--update-golden"):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        assert text == file.read_text(encoding="utf-8"), f"{stage} of {name} changed: pytest --update-golden tests/test_golden.py"


def test_no_file_is_left_over() -> None:
    assert {p.relative_to(GOLDEN).as_posix() for p in GOLDEN.rglob("*.txt")} == {f"{s}/{n}.txt" for s in STAGES for n in NAMES}
