from __future__ import annotations

import io

from polyai.progress import WIDTH, bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_nothing_is_drawn_where_there_is_no_terminal() -> None:
    out = io.StringIO()
    assert list(bar([1, 2, 3], 3, "work", out)) == [1, 2, 3]
    assert out.getvalue() == ""


def test_a_terminal_sees_the_bar_move_to_its_end() -> None:
    out = Terminal()
    assert list(bar(iter("ab"), 2, "work", out)) == ["a", "b"]
    frames = out.getvalue().split("\r")[1:]
    assert [f.count("#") for f in frames] == [0, WIDTH // 2, WIDTH]
    assert "0/2 work a" in frames[0]
    assert frames[-1].endswith("\n")


def test_no_items_are_a_full_bar() -> None:
    out = Terminal()
    assert list(bar([], 0, "work", out)) == []
    assert "#" * WIDTH in out.getvalue()
