"""Draws docs/pipeline.svg: one program at the four levels of the compiler. `python tools/pipeline_picture.py [--check]`"""

from __future__ import annotations

import html
import sys
from pathlib import Path

TARGET = Path(__file__).parent.parent / "docs" / "pipeline.svg"

BOXES = (
    ("Python", "what you write", ("relu(A @ X + b)", "", "A  scipy.sparse CSR", "X  numpy array")),
    (
        "tensor: mathematics",
        "what is zero need not be visited",
        ("T[i,j] = sum(k: A[i,k] X[k,j])", "         within A(i,k)", "Y[i,j] = max(T[i,j] + b[j], 0)"),
    ),
    (
        "poly: geometry",
        "a schedule, checked against dependences",
        ("T[i,q,j] : 0<=i<n, 0<=q<len(i), 0<=j<m", "parallel i", "  vector j", "    q"),
    ),
    (
        "loop: steps",
        "one nest, T lives in registers",
        ("for i parallel:", "  for j vector:", "    t = 0", "    for q: t += val[q] X[crd[q], j]", "    Y[i,j] = max(t + b[j], 0)"),
    ),
    ("machine: code", "LLVM, cached on disk", ("vbroadcastss zmm4, [val + 4 q]", "vfmadd231ps  zmm0, zmm4, [X + r]", "...")),
)
WIDTH, PAD, LINE, HEAD, GAP = 460, 14, 17, 46, 26

STYLE = (
    "text{font-family:ui-monospace,SFMono-Regular,Menlo,monospace;font-size:13px;fill:#1c2430}"
    ".t{font-family:system-ui,sans-serif;font-weight:600;font-size:14px}.s{font-family:system-ui,sans-serif;font-size:12px;fill:#5a6675}"
    "rect{fill:#f6f8fa;stroke:#b8c2cf}path{stroke:#5a6675;fill:none;stroke-width:1.5}"
    "@media(prefers-color-scheme:dark){text{fill:#dbe2ec}.s{fill:#9aa7b8}rect{fill:#171c24;stroke:#465162}path{stroke:#9aa7b8}}"
)


def picture() -> str:
    """The SVG text."""
    parts, y = [], 2
    for number, (title, note, lines) in enumerate(BOXES):
        height = HEAD + LINE * len(lines) + PAD
        parts.append(f'<rect x="2" y="{y}" width="{WIDTH}" height="{height}" rx="6"/>')
        parts.append(f'<text class="t" x="{PAD + 2}" y="{y + 21}">{html.escape(title)}</text>')
        parts.append(f'<text class="s" x="{PAD + 2}" y="{y + 38}">{html.escape(note)}</text>')
        for k, line in enumerate(lines):
            parts.append(f'<text x="{PAD + 2}" y="{y + HEAD + LINE * (k + 1)}" xml:space="preserve">{html.escape(line)}</text>')
        y += height
        if number + 1 < len(BOXES):
            middle = WIDTH // 2 + 2
            parts.append(f'<path d="M{middle} {y}v{GAP - 3}m-5 -6l5 6l5 -6"/>')
            y += GAP
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH + 4}" height="{y + 2}" viewBox="0 0 {WIDTH + 4} {y + 2}" role="img" '
        f'aria-label="One program at each level of the compiler"><style>{STYLE}</style>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def main() -> int:
    if "--check" in sys.argv[1:]:
        return 0 if TARGET.exists() and TARGET.read_text() == picture() else 1
    TARGET.write_text(picture())
    print(TARGET)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
