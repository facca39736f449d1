"""Each error class has a page whose wrong example raises it with the message that is printed there, and whose right example runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from polyai import errors
from tools import error_pages

CLASSES = [c.__name__ for c in vars(errors).values() if isinstance(c, type) and issubclass(c, errors.PolyAIError)]


def test_every_class_has_a_page_and_every_page_a_class() -> None:
    assert sorted(CLASSES) == sorted(p.stem for p in error_pages.PAGES.glob("*.md"))


@pytest.mark.parametrize("name", CLASSES)
def test_examples(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page, namespace = error_pages.PAGES / f"{name}.md", {}  # type: tuple[Path, dict[str, Any]]
    _, shown, right = error_pages.parts(page)
    assert error_pages.message(page, namespace) == shown
    exec(right, namespace)
