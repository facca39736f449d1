from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.frontend import helpers


@pytest.fixture(params=["interp", "machine"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Tests that use it run twice: traced programs go to the interpreter, then through the whole compiler."""
    monkeypatch.setattr(helpers, "ENGINE", request.param)
    yield request.param
