"""The house's floors: imports run strictly downward, neighbours never meet, each foreign library has one owner."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import polyai

ROOT = Path(polyai.__file__).parent

FLOOR: dict[str, float] = {
    "__main__": 11,
    "command": 10,
    "": 9,
    "api": 8, "calls": 7, "pipeline": 6,
    "frontend": 5, "lower": 5, "runtime": 5, "datasets": 5,
    "tensor": 4, "poly": 4, "machine": 4,
    "sparse": 3, "loop": 3,
    "shapes": 2, "scalar": 2, "explanation": 2, "measure": 2, "progress": 2, "report": 2,
    "options": 1,
    "errors": 0, "term": 0,
}  # fmt: skip

OWNERS = {
    "sympy": ("shapes",),
    "islpy": ("poly", "lower"),
    "llvmlite": ("machine",),
    "scipy": ("sparse/interop.py", "sparse/results.py", "runtime/externs.py", "scalar/ops.py", "datasets", "command/demo.py", "machine/math"),
    "matplotlib": ("command/plot.py",),
}

MAY_IMPORT_LATE = {("calls/engine.py", "polyai.pipeline"), ("__init__.py", "polyai.datasets")}
"""Doors that open late so that `import polyai` and a call served from the cache need no compiler."""


def modules() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def room(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return "" if parts == ("__init__",) else parts[0]


def imports(path: Path) -> list[tuple[str, bool]]:
    """(module, is inside a function) for every import of the file; typing-only imports count as well."""
    tree, out = ast.parse(path.read_text()), []

    def visit(item: ast.AST, late: bool) -> None:
        for child in ast.iter_child_nodes(item):
            inner = late or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            if isinstance(child, ast.Import):
                out.extend((alias.name, late) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{path}: relative import"
                names = [f"{child.module}.{alias.name}" for alias in child.names] if child.module == "polyai" else [child.module]
                out.extend((str(name), late) for name in names)
            visit(child, inner)

    visit(tree, False)
    return out


def test_every_room_has_a_floor() -> None:
    assert {room(p) for p in modules()} <= set(FLOOR)


def test_imports_run_strictly_downward() -> None:
    wrong = []
    for path in modules():
        here = room(path)
        for name, _ in imports(path):
            if name.split(".")[0] != "polyai":
                continue
            there = name.split(".")[1] if "." in name else ""
            there = there if there in FLOOR else ""
            if there != here and FLOOR[there] >= FLOOR[here]:
                wrong.append(f"{path.relative_to(ROOT)} ({FLOOR[here]}) imports {name} ({FLOOR[there]})")
    assert not wrong, "\n".join(wrong)


def test_no_import_circle_inside_a_room() -> None:
    graph: dict[str, set[str]] = {}
    for path in modules():
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        graph[name] = {n for n, late in imports(path) if n.startswith("polyai") and not late}
    files = set(graph)
    edges = {a: {b for b in bs if b in files and b != a} for a, bs in graph.items()}
    done: set[str] = set()
    for start in edges:
        stack: list[tuple[str, tuple[str, ...]]] = [(start, ())]
        while stack:
            name, path_so_far = stack.pop()
            assert name not in path_so_far, " -> ".join((*path_so_far, name))
            if name not in done:
                stack.extend((n, (*path_so_far, name)) for n in edges[name])
        done.add(start)


def test_imports_inside_functions_are_only_of_foreign_libraries() -> None:
    wrong = []
    for path in modules():
        local = str(path.relative_to(ROOT))
        for name, late in imports(path):
            if late and name.startswith("polyai") and (local, name) not in MAY_IMPORT_LATE:
                wrong.append(f"{local}: {name}")
    assert not wrong, "\n".join(wrong)


def test_each_foreign_library_has_one_owner() -> None:
    wrong = []
    for path in modules():
        local = str(path.relative_to(ROOT))
        for name, _ in imports(path):
            owners = OWNERS.get(name.split(".")[0])
            if owners is not None and not any(local == o or local.startswith(o + "/") for o in owners):
                wrong.append(f"{local} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_importing_polyai_is_light() -> None:
    code = "import sys, polyai; print([m for m in ('sympy', 'islpy', 'llvmlite', 'scipy.sparse', 'scipy', 'matplotlib') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_every_room_has_a_short_readme() -> None:
    for folder in sorted({p.parent for p in modules() if p.parent != ROOT and p.parent.parent == ROOT}):
        readme = folder / "README.md"
        assert readme.exists(), f"{folder.name} has no README.md"
        assert len(readme.read_text().splitlines()) <= 25, f"{folder.name}/README.md is longer than 25 lines"
