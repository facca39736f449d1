from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from polyai.options import Options
from polyai.runtime.launch import Runtime


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def runtime(cache_dir: Path) -> Iterator[Runtime]:
    made = Runtime(Options(num_threads=2, cache_dir=str(cache_dir)))
    yield made
    made.close()
