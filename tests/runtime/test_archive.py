"""Caches in one file: what is taken, what is refused, and that nothing but entries comes out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import polyai as pa
from polyai.command import cli
from polyai.errors import OptionError
from polyai.runtime import archive
from polyai.runtime.cache import Cache, Entry, pack
from polyai.runtime.stats import Stats

HOST, STAMP, CONTENTS = "h" * 32, "stamp", "contents"


def cache(folder: Path | None, host: str = HOST) -> Cache:
    return Cache(folder, 1 << 20, host, Stats())


def filled(folder: Path) -> Cache:
    made = cache(folder)
    for n in range(3):
        made.put(f"{STAMP}-k{n}", {"n": n}, b"code" * (n + 1))
    made.put("runtime-pool", {}, b"pool")
    made.put("other-k", {}, b"made by another version")
    return made


def test_what_is_written_is_read(tmp_path: Path) -> None:
    assert archive.write(tmp_path / "a", filled(tmp_path / "one"), STAMP, CONTENTS) == 4
    other = cache(tmp_path / "two")
    assert archive.read(tmp_path / "a", other, STAMP, CONTENTS) == archive.Imported(4)
    assert other.get(f"{STAMP}-k2") == Entry({"n": 2}, b"code" * 3) and other.get("runtime-pool") == Entry({}, b"pool")
    assert sorted(p.suffix for p in (tmp_path / "two").rglob("*") if p.is_file()) == [".obj"] * 4


def test_the_same_compiler_elsewhere_has_another_stamp(tmp_path: Path) -> None:
    archive.write(tmp_path / "a", filled(tmp_path / "one"), STAMP, CONTENTS)
    other = cache(tmp_path / "two")
    assert archive.read(tmp_path / "a", other, "elsewhere", CONTENTS).taken == 4
    assert other.get("elsewhere-k1") == Entry({"n": 1}, b"code" * 2) and other.get(f"{STAMP}-k1") is None


def test_another_version_and_another_machine_are_refused(tmp_path: Path) -> None:
    archive.write(tmp_path / "a", filled(tmp_path / "one"), STAMP, CONTENTS)
    assert str(archive.read(tmp_path / "a", cache(tmp_path / "two"), STAMP, "changed")) == "1 entries taken; 3 refused: made by another version of the compiler"
    assert archive.read(tmp_path / "a", cache(tmp_path / "three", "x" * 32), STAMP, CONTENTS) == archive.Imported(0, (("made for another machine", 4),))


def test_a_cache_in_memory_can_be_written(tmp_path: Path) -> None:
    made = cache(None)
    made.put(f"{STAMP}-k", {}, b"x")
    assert archive.write(tmp_path / "a", made, STAMP, CONTENTS) == 1


def test_damage_anywhere_is_refused_and_never_taken(tmp_path: Path) -> None:
    archive.write(tmp_path / "a", filled(tmp_path / "one"), STAMP, CONTENTS)
    raw = (tmp_path / "a").read_bytes()
    good = {f"{STAMP}-k{n}": b"code" * (n + 1) for n in range(3)} | {"runtime-pool": b"pool"}
    rng = np.random.default_rng(0)
    for round_ in range(150):
        at = int(rng.integers(len(raw)))
        bad = raw[:at] if round_ % 3 == 0 else raw[:at] + bytes([raw[at] ^ int(rng.integers(1, 256))]) + raw[at + 1 :]
        (tmp_path / "b").write_bytes(bad)
        into = cache(None)
        try:
            taken = archive.read(tmp_path / "b", into, STAMP, CONTENTS).taken
        except OptionError:
            continue
        assert taken <= 4
        assert all(into._memory[k].code == good[k] for k in into._memory)


@pytest.mark.parametrize("key", ["../../evil", "a/b", "/etc/passwd", "a\0b", "x" * 200, ""])
def test_keys_that_are_paths_are_refused(tmp_path: Path, key: str) -> None:
    with open(tmp_path / "a", "wb") as file:
        file.write(archive.MAGIC)
        archive._put(file, b'{"stamp": "stamp", "contents": "contents"}')
        archive._put(file, pack(key, HOST, Entry({}, b"x")))
    folder = tmp_path / "cache"
    assert archive.read(tmp_path / "a", cache(folder), STAMP, CONTENTS).taken == 0
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and p.name != "a"]


@pytest.mark.parametrize("raw", [b"", b"PK\3\4", archive.MAGIC, archive.MAGIC + b"\xff" * 20, archive.MAGIC + b"\2\0\0\0\0\0\0\0{}"])
def test_no_archive(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "a").write_bytes(raw)
    with pytest.raises(OptionError, match="is no archive"):
        archive.read(tmp_path / "a", cache(None), STAMP, CONTENTS)


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        archive.write(tmp_path / "missing" / "a", filled(tmp_path / "one"), STAMP, CONTENTS)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "kernels"
    with pa.options(cache_dir=str(tmp_path / "one")):
        pa.jit(lambda a: a * 3.0)(np.ones(3))
        assert cli.main(["cache", "export", str(file)]) == 0 and "entries written" in capsys.readouterr().out
    code = (
        "import numpy as np, polyai as pa, sys\nfrom polyai.command import cli\n"
        f"assert cli.main(['cache', 'import', {str(file)!r}]) == 0\npa.jit(lambda a: a * 3.0)(np.ones(3)); print(pa.stats()['compiles'])"
    )
    env: dict[str, Any] = {**__import__("os").environ, "POLYAI_CACHE_DIR": str(tmp_path / "two")}
    assert subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout.split()[-1] == "0"
    with pa.options(cache_dir=str(tmp_path / "one")):
        assert cli.main(["cache", "export"]) == 1 and cli.main(["cache", "import", str(tmp_path / "nothing")]) == 1
