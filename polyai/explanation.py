"""Every stage of one compilation, shown: mathematics, statements, schedule tree, loops, LLVM, assembly, memory, costs, guards."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from polyai.term.node import node


@node
class Section:
    """One part of an explanation. `kind` groups sections: "summary", "stage", "code" or "table"."""

    title: str
    text: str
    kind: str = "stage"
    milliseconds: float | None = None


@node
class Explanation:
    """What the compiler did for one function and one set of argument types.

    `str(e)` is plain text; `e.html()` one self-contained page, which notebooks show; `e[title]` the text of one section.
    """

    title: str
    sections: tuple[Section, ...]

    def __getitem__(self, title: str) -> str:
        for section in self.sections:
            if section.title == title:
                return section.text
        raise KeyError(f"{title!r}; sections: {', '.join(s.title for s in self.sections)}")

    @property
    def stages(self) -> Mapping[str, str]:
        """Text of every section by title, in order."""
        return {s.title: s.text for s in self.sections}

    def __str__(self) -> str:
        parts = [self.title, "=" * len(self.title)]
        for s in self.sections:
            time = f"   [{s.milliseconds:.2f} ms]" if s.milliseconds is not None else ""
            parts += ["", f"{s.title}{time}", "-" * len(s.title), s.text.rstrip()]
        return "\n".join(parts) + "\n"

    def html(self) -> str:
        """One self-contained HTML page: no script, no outside file."""
        timed = [(s.title, s.milliseconds) for s in self.sections if s.milliseconds]
        body = [f"<h1>{escaped(self.title)}</h1>"]
        if timed:
            body.append(_timing_bars(timed))
        for s in self.sections:
            time = f" <small>{s.milliseconds:.2f} ms</small>" if s.milliseconds is not None else ""
            opened = "" if s.kind == "code" else " open"
            body.append(
                f"<details{opened}><summary>{escaped(s.title)}{time}</summary><pre>{escaped(s.text.rstrip())}</pre></details>"
            )
        return (
            "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
            f"<title>{escaped(self.title)}</title><style>{_STYLE}</style></head><body><main>\n" + "\n".join(body) + "\n</main></body></html>\n"
        )

    def _repr_html_(self) -> str:
        return f"<div><style>{_STYLE}</style>{self.html().split('<main>')[1].split('</main>')[0]}</div>"

    def save(self, path: str | Path) -> Path:
        """Write the HTML page to `path` and return it. Raises OSError if that fails."""
        target = Path(path)
        target.write_text(self.html(), encoding="utf-8")
        return target


def escaped(text: str) -> str:
    """`text` with the characters that HTML gives a meaning replaced (the standard library's `html` is slow to import)."""
    for raw, safe in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;"), ("'", "&#x27;")):
        text = text.replace(raw, safe)
    return text


_STYLE = (
    "main{font:15px/1.5 system-ui,sans-serif;max-width:1100px;margin:2rem auto;padding:0 1rem;color:#1c2430}"
    "summary{font-weight:600;cursor:pointer;padding:.35rem 0}small{color:#687385;font-weight:400}"
    "details{border-top:1px solid #d9dee6}pre{background:#f6f8fa;padding:.8rem;overflow:auto;font-size:12.5px;line-height:1.45}"
    "@media(prefers-color-scheme:dark){main{color:#dbe2ec}pre{background:#171c24}details{border-color:#333c49}body{background:#0e1217}}"
)


def _timing_bars(timed: list[tuple[str, float]]) -> str:
    """A picture of where compile time went: one bar per stage."""
    longest = max(t for _, t in timed)
    rows = []
    for n, (title, t) in enumerate(timed):
        width, y = 480.0 * t / longest, 20 * n
        rows.append(
            f"<text x='150' y='{y + 14}' text-anchor='end' font-size='12' fill='currentColor'>{escaped(title)}</text>"
            f"<rect x='158' y='{y + 3}' width='{max(width, 1):.1f}' height='14' fill='#3b7dd8'/>"
            f"<text x='{164 + width:.1f}' y='{y + 14}' font-size='12' fill='currentColor'>{t:.2f} ms</text>"
        )
    return f"<svg role='img' aria-label='time of each stage' width='720' height='{20 * len(timed)}'>{''.join(rows)}</svg>"
