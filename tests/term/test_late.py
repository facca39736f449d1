"""Modules that are imported when they are used: what stands for them, and that each is known to the type checker too."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from polyai.term.late import late
from tests.test_layers import modules


def test_a_module_is_imported_when_a_name_of_it_is_used() -> None:
    code = "import sys; from polyai.term.late import late; c = late('colorsys'); a = 'colorsys' in sys.modules; c.rgb_to_hsv; print(a, 'colorsys' in sys.modules, 'rgb_to_hsv' in vars(c))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == ["False", "True", "True"]


def test_a_missing_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="colorsys"):
        _ = late("colorsys").nothing
    with pytest.raises(ModuleNotFoundError):
        _ = late("polyai.nothing").anything


def test_every_late_module_is_imported_for_the_type_checker() -> None:
    for path in modules():
        text = path.read_text()
        for name in re.findall(r'(?:late\(|, )"((?:polyai|islpy)[\w.]*)"', text) if "late(" in text and path.name != "late.py" else ():
            room, _, module = name.rpartition(".")
            known = f"import {module}" if not room else rf"from {room} import [^\n]*\b{module}\b"
            assert re.search(known, text), f"{path}: {name}"
