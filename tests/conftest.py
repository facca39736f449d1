"""Every test process has a cache of compiled code to itself, empty at the start, and kernels run on two threads."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import fields

import pytest

from polyai.options import Options

_CACHE = pytest.StashKey[str]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fuzz", type=int, default=0, metavar="N", help="also try N more random inputs in the tests that make some: test_bad_input, test_scipy_programs")
    parser.addoption("--sparse-full", action="store_true", help="run every combination of formats of tests/sparse_suite: about half an hour")
    parser.addoption("--update-golden", action="store_true", help="write tests/golden from what the compiler makes now")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_CACHE] = directory = tempfile.mkdtemp(prefix="polyai-tests-")
    for field in fields(Options):
        os.environ.pop(f"POLYAI_{field.name.upper()}", None)
    os.environ["POLYAI_CACHE_DIR"] = directory
    os.environ["POLYAI_NUM_THREADS"] = "2"


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(config.stash[_CACHE], ignore_errors=True)
