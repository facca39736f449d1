"""The documentation is true: its Python blocks run, its generated parts are current, its links and names exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import polyai as pa
from tools import docs, pipeline_picture

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs" / "reference").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(path: Path) -> list[tuple[int, str]]:
    """(line, source) of each Python block."""
    text = path.read_text()
    return [(text.count("\n", 0, m.start(1)) + 1, m.group(1)) for m in BLOCK.finditer(text)]


@pytest.mark.parametrize("path", [p for p in PAGES if blocks(p)], ids=name_of)
def test_examples_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "example"}
    for line, source in blocks(path):
        exec(compile("\n" * (line - 1) + source, str(path), "exec"), namespace)


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_links_lead_somewhere(path: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text())
    missing = [t for t in targets if "://" not in t and not (path.parent / t).exists()]
    assert not missing


def test_every_public_name_is_documented() -> None:
    text = "\n".join(p.read_text() for p in PAGES)
    words = set(re.findall(r"[A-Za-z_][A-Za-z0-9_]*", " ".join(re.findall(r"`([^`\n]+)`", text))))
    assert sorted(set(pa.__all__) - words) == []


def test_every_name_in_the_documentation_exists() -> None:
    text = "\n".join(p.read_text() for p in PAGES)
    missing = {n for n in re.findall(r"\bpa\.([A-Za-z_][A-Za-z0-9_]*)", text) if not hasattr(pa, n)}
    assert missing == set()


def sources() -> list[Path]:
    return [p for folder in ("polyai", "benchmarks", "docs", "tests", "tools", "experiments", ".") for p in (ROOT / folder).glob("*" if folder == "." else "**/*")
            if p.suffix in (".py", ".md") and p.name not in ("CHANGELOG.md",)]  # fmt: skip


def test_files_that_texts_name_exist() -> None:
    """`passes/order.py` in a text is the end of a file's path; what a program writes is no file of the project."""
    written = {"results.md"}
    known = {f"/{name_of(p)}" for p in sources()}
    wrong = []
    for path in sources():
        for name in re.findall(r"`([\w./]+\.(?:py|md))`", path.read_text()):
            if name not in written and not any(k.endswith(f"/{name}") for k in known):
                wrong.append(f"{name_of(path)}: {name}")
    assert not wrong, "\n".join(wrong)


def test_generated_parts_are_current() -> None:
    stale = [name_of(p) for p, text in docs.pages().items() if p.read_text() != text]
    assert not stale, f"{', '.join(stale)}: run python -m tools.docs"


def test_the_picture_is_current() -> None:
    assert pipeline_picture.TARGET.read_text() == pipeline_picture.picture()
