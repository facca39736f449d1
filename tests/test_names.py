"""The public names: found when they are asked for, the same ones that checkers see, and never hidden by a module of the same name."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
import types
from pathlib import Path

import pytest

import polyai as pa
from polyai.frontend.surface import functions

ROOT = Path(pa.__file__).parent


def typed() -> dict[str, tuple[str, str]]:
    """What type checkers read in `frontend/surface/functions.py`: name -> (module, name there)."""
    tree = ast.parse((ROOT / "frontend" / "surface" / "functions.py").read_text())
    block = next(s for s in tree.body if isinstance(s, ast.If))
    out: dict[str, tuple[str, str]] = {}
    for s in block.body:
        if isinstance(s, ast.ImportFrom):
            assert s.module is not None
            out |= {a.asname or a.name: (s.module.removeprefix("polyai.frontend."), a.name) for a in s.names}
        else:
            assert isinstance(s, ast.Assign)
            names, values = (x.elts if isinstance(x, ast.Tuple) else [x] for x in (s.targets[0], s.value))
            for name, value in zip(names, values):
                assert isinstance(name, ast.Name) and isinstance(value, ast.Name)
                out[name.id] = out[value.id]
    return out


def test_checkers_and_programs_find_the_same_functions() -> None:
    assert typed() == functions.HOMES
    assert sorted(functions.__all__) == sorted(functions.HOMES)


@pytest.mark.parametrize("name", sorted(functions.HOMES))
def test_operators_are_what_the_frontend_has(name: str) -> None:
    inside, outside = getattr(functions, name), getattr(pa, name)
    assert inspect.unwrap(outside) is inspect.unwrap(inside)
    assert getattr(pa, name) is outside


def test_every_name_is_found_and_listed() -> None:
    assert len(set(pa.__all__)) == len(pa.__all__)
    assert set(pa.__all__) <= set(dir(pa))
    assert all(hasattr(pa, name) for name in pa.__all__)
    with pytest.raises(AttributeError, match="nonsense"):
        pa.nonsense  # noqa: B018
    with pytest.raises(AttributeError, match="nonsense"):
        functions.nonsense  # noqa: B018


def test_no_module_hides_a_name() -> None:
    """`import polyai.x` makes an attribute x of the package: names that are found late must not be names of modules."""
    modules = {p.stem for p in ROOT.glob("*.py")} | {p.name for p in ROOT.iterdir() if p.is_dir()}
    late = set(pa.__all__) - {"datasets", "errors", "options"}
    assert not late & modules
    assert not any(isinstance(getattr(pa, name), types.ModuleType) for name in late)


def test_a_star_import_brings_all_names() -> None:
    space: dict[str, object] = {}
    exec("from polyai import *", space)
    assert set(pa.__all__) <= set(space)


def test_an_import_loads_no_operator_and_less_than_a_hundred_modules() -> None:
    code = "import sys, polyai; print(len([m for m in sys.modules if m.startswith('polyai')]), 'polyai.api.constant' in sys.modules, 'polyai.frontend.surface.reductions' in sys.modules)"
    count, *loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert int(count) < 100 and loaded == ["False", "False"]
