from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import scipy.sparse as sp

from polyai.options import Options
from polyai.runtime import dispatch as dispatch_module
from polyai.runtime.launch import Runtime


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def runtime(cache_dir: Path) -> Iterator[Runtime]:
    made = Runtime(Options(num_threads=2, cache_dir=str(cache_dir)))
    yield made
    made.close()


@pytest.fixture(params=["native", "portable"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both call paths; each must take and refuse the same calls."""
    if request.param == "portable":
        monkeypatch.setattr(dispatch_module, "layout_holds", lambda: False)
    return str(request.param)


@pytest.fixture
def matrix() -> sp.csr_matrix:
    return sp.random(40, 30, 0.2, format="csr", random_state=1)
