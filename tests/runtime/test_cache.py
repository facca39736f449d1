from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from polyai.errors import VerifyError
from polyai.runtime import cache as cache_module
from polyai.runtime.cache import Cache, Entry, pack, unpack
from polyai.runtime.stats import Stats

HOST = "0123456789abcdef0123"


def make(directory: Path | None, limit: int = 1 << 20, host: str = HOST, memory: int = 1 << 20) -> tuple[Cache, Stats]:
    stats = Stats()
    return Cache(directory, limit, host, stats, memory), stats


def test_an_entry_comes_back_in_another_process(tmp_path):
    cache, _ = make(tmp_path)
    cache.put("k", {"a": [1, "x"]}, b"code")
    again, stats = make(tmp_path)
    assert again.get("k") == Entry({"a": [1, "x"]}, b"code")
    assert again.get("k") == Entry({"a": [1, "x"]}, b"code")
    assert stats.snapshot() == {"disk_hits": 1, "memory_hits": 1}
    assert again.get("other") is None


def test_get_or_make_makes_once(tmp_path):
    cache, stats = make(tmp_path)
    made = []

    def build():
        made.append(1)
        return {"n": 1}, b"x"

    assert cache.get_or_make("k", build) == cache.get_or_make("k", build) == Entry({"n": 1}, b"x")
    assert (len(made), stats["parts_compiled"], stats["parts_loaded"]) == (1, 1, 1)


@pytest.mark.parametrize("key", ["", "../x", "a/b", "a.b", "x" * 200, "a\0"])
def test_a_key_cannot_leave_the_directory(tmp_path, key):
    cache, _ = make(tmp_path)
    with pytest.raises(VerifyError):
        cache.put(key, {}, b"")
    with pytest.raises(VerifyError):
        cache.get(key)


def test_every_damage_is_noticed_and_the_file_removed(tmp_path):
    cache, _ = make(tmp_path)
    cache.put("k", {"name": "spmm", "sites": []}, bytes(range(256)) * 4)
    path = next((tmp_path / "objects-1").iterdir())
    good = path.read_bytes()
    rng = random.Random(3)
    damaged = [good[:n] for n in range(0, len(good), 7)] + [good + b"x", b"", b"\0" * len(good), rng.randbytes(4000)]
    for _ in range(300):
        raw = bytearray(good)
        raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
        damaged.append(bytes(raw))
    for raw in damaged:
        path.write_bytes(raw)
        os.chmod(path, 0o600)
        fresh, stats = make(tmp_path)
        assert fresh.get("k") is None
        assert stats["corrupt"] == 1 and not path.exists()
    fresh, stats = make(tmp_path)
    assert fresh.get_or_make("k", lambda: ({}, b"new")).code == b"new"
    assert make(tmp_path)[0].get("k") == Entry({}, b"new")


def test_an_entry_of_another_key_version_or_machine_is_not_taken():
    raw = pack("k", HOST, Entry({}, b"code"))
    assert unpack(raw, "k", HOST) == Entry({}, b"code")
    assert unpack(raw, "other", HOST) is None
    assert unpack(raw, "k", "another machine") is None


def test_two_machines_share_a_directory(tmp_path):
    one, _ = make(tmp_path, host="a" * 32)
    two, _ = make(tmp_path, host="b" * 32)
    one.put("k", {}, b"one")
    assert two.get("k") is None
    two.put("k", {}, b"two")
    assert make(tmp_path, host="a" * 32)[0].get("k") == Entry({}, b"one")


def test_the_directory_stays_below_its_bound_and_loses_the_least_recently_used(tmp_path):
    cache, stats = make(tmp_path, limit=10_000, memory=1)
    now = time.time()
    for k in range(8):
        cache.put(f"k{k}", {}, bytes(1000))
        os.utime(cache._path(f"k{k}"), (now - 100 + k, now - 100 + k))
    assert cache.get("k0") is not None  # used now, so no longer the oldest
    for k in range(8, 11):
        cache.put(f"k{k}", {}, bytes(1000))
    names = {e.key for e in cache.entries()}
    assert sum(e.bytes for e in cache.entries()) <= 10_000
    assert "k0" in names and "k1" not in names and "k10" in names
    assert stats["evicted"] == 11 - len(names) > 0


def test_clear_removes_everything(tmp_path):
    cache, _ = make(tmp_path)
    for k in range(3):
        cache.put(f"k{k}", {}, b"x")
    assert cache.clear() == 3
    assert cache.entries() == [] and cache.get("k0") is None


def test_a_deleted_directory_is_made_again(tmp_path):
    cache, stats = make(tmp_path / "deep" / "er")
    cache.put("a", {}, b"x")
    for file in (tmp_path / "deep" / "er" / "objects-1").iterdir():
        file.unlink()
    (tmp_path / "deep" / "er" / "objects-1").rmdir()
    cache.put("b", {}, b"y")
    assert [e.key for e in cache.entries()] == ["b"] and stats.notes == ()


def test_a_place_that_cannot_be_a_directory_is_done_without(tmp_path):
    (tmp_path / "file").write_text("")
    cache, stats = make(tmp_path / "file")
    cache.put("k", {}, b"x")
    assert cache.get("k") == Entry({}, b"x") and cache.entries() == []
    assert "cannot write" in stats.notes[0]


def test_a_full_disk_is_done_without(tmp_path, monkeypatch):
    cache, stats = make(tmp_path)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(cache_module.os, "replace", full)
    cache.put("k", {}, b"x")
    assert cache.get("k") == Entry({}, b"x")
    assert "No space left" in stats.notes[0] and list((tmp_path / "objects-1").iterdir()) == []


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o722])
def test_a_directory_that_others_may_write_is_not_trusted(tmp_path, mode):
    cache, _ = make(tmp_path)
    cache.put("k", {}, b"x")
    os.chmod(tmp_path / "objects-1", mode)
    fresh, stats = make(tmp_path)
    assert fresh.get("k") is None and "not used" in stats.notes[0]
    fresh.put("new", {}, b"y")
    assert [e.key for e in fresh.entries()] == ["k"]


def test_a_directory_or_file_of_another_user_is_not_trusted(tmp_path, monkeypatch):
    cache, _ = make(tmp_path)
    cache.put("k", {}, b"x")
    monkeypatch.setattr(cache_module.os, "geteuid", lambda: 12345)
    fresh, stats = make(tmp_path)
    assert fresh.get("k") is None and "belongs to someone else" in stats.notes[0]


def test_a_file_that_others_may_write_is_not_read(tmp_path):
    cache, _ = make(tmp_path)
    cache.put("k", {}, b"x")
    os.chmod(cache._path("k"), 0o666)
    fresh, stats = make(tmp_path)
    assert fresh.get("k") is None and stats["corrupt"] == 0 and "not read" in stats.notes[0]


def test_a_symbolic_link_in_place_of_the_directory_is_not_followed(tmp_path):
    real = tmp_path / "real"
    make(real)[0].put("k", {}, b"x")
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "objects-1").symlink_to(real / "objects-1")
    assert make(tmp_path / "base")[0].get("k") is None


def test_a_bound_of_zero_keeps_nothing_on_disk(tmp_path):
    cache, _ = make(tmp_path, limit=0)
    cache.put("k", {}, b"x")
    assert cache.get("k") == Entry({}, b"x")
    assert list(tmp_path.iterdir()) == [] and cache.clear() == 0


def test_memory_is_bounded():
    cache, _ = make(None, memory=2500)
    for k in range(5):
        cache.put(f"k{k}", {}, bytes(1000))
    assert [cache.get(f"k{k}") is not None for k in range(5)] == [False, False, False, True, True]


WRITER = """
import sys
from pathlib import Path
from polyai.runtime.cache import Cache
from polyai.runtime.stats import Stats
stats = Stats()
for round in range(60):
    cache = Cache(Path(sys.argv[1]), 20_000, "h" * 20, stats, 1)
    for k in range(5):
        found = cache.get(f"k{k}")
        assert found is None or found.code == bytes([k]) * (500 + 100 * k), found
        if found is None or round % 7 == 0:
            cache.put(f"k{k}", {"k": k}, bytes([k]) * (500 + 100 * k))
    if round % 20 == 19:
        cache.clear()
assert stats["corrupt"] == 0 and stats.notes == (), (stats.snapshot(), stats.notes)
"""


def test_processes_share_a_directory_without_seeing_half_a_file(tmp_path):
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stderr=subprocess.PIPE) for _ in range(4)]
    for writer in writers:
        _, err = writer.communicate(timeout=60)
        assert writer.returncode == 0, err.decode()
