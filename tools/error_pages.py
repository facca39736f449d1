"""Keeps docs/errors true: the first Python block of each page raises the page's error, the text block below it is the message.

`python -m tools.error_pages` writes the messages.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from polyai import errors

PAGES = Path(__file__).parent.parent / "docs" / "errors"
PAGE = re.compile(r"^```python\n(?P<wrong>.*?)^```\n\n```text\n(?P<message>.*?)^```\n.*?^```python\n(?P<right>.*?)^```$", re.DOTALL | re.MULTILINE)


def parts(page: Path) -> tuple[str, str, str]:
    """The wrong example, the message and the right example of a page."""
    found = PAGE.search(page.read_text())
    if found is None:
        raise ValueError(f"{page.name}: a page has a Python block, a text block and a Python block")
    return found["wrong"], found["message"], found["right"]


def message(page: Path, namespace: dict[str, Any]) -> str:
    """What the wrong example raises. Its last statement must raise the error that the page is named after, and no other must."""
    wrong, _, _ = parts(page)
    *setup, last = re.split(r"\n(?=\S)", wrong.rstrip("\n"))
    exec("\n".join(setup), namespace)
    try:
        exec(last, namespace)
    except errors.PolyAIError as error:
        if not isinstance(error, getattr(errors, page.stem)):
            raise
        return f"{error}\n"
    raise ValueError(f"{page.name}: the wrong example raises nothing")


def main() -> None:
    for page in sorted(PAGES.glob("*.md")):
        text, old = page.read_text(), parts(page)[1]
        page.write_text(text.replace(f"```text\n{old}```", f"```text\n{message(page, {})}```", 1))


if __name__ == "__main__":
    main()
