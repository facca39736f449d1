"""Both ways to LLVM do the same: the same code, the same refusals."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

import polyai.machine.llvm as ways
from polyai.errors import VerifyError
from polyai.machine import emit, jit
from polyai.machine.cpu import host
from polyai.runtime import native
from tests.machine import kernels

HERE = host()
DIRECT = ways.library()
needs_direct = pytest.mark.skipif(DIRECT is None, reason="a version of llvmlite whose functions were not read")


@pytest.fixture(params=["binding", "library"])
def way(request: pytest.FixtureRequest) -> ways.Binding | ways.Library:
    if request.param == "binding":
        return ways.Binding()
    if DIRECT is None:
        pytest.skip("a version of llvmlite whose functions were not read")
    return DIRECT


def code(way: ways.Binding | ways.Library, text: str, opt: int = 2) -> bytes:
    machine = way.machine(HERE.triple, *way.host(), opt)
    return way.emit(way.read(text, machine), machine)


@needs_direct
@pytest.mark.parametrize("name", [*native.PARTS, "spmm"])
def test_the_same_code(name: str) -> None:
    assert DIRECT is not None
    text = emit.emit(kernels.spmm(), HERE) if name == "spmm" else native._key(native.PARTS[name][1]())[1]
    assert DIRECT.host() == ways.Binding().host()
    for opt in (0, 2):
        assert code(DIRECT, text, opt) == code(ways.Binding(), text, opt)


def test_broken_text_is_refused(way: ways.Binding | ways.Library) -> None:
    for text, what in (("define i64 @f() { ret i32 0 }", "result type"), ("nonsense", "top-level"), ("define void @f() {\n  %x = add i64 %x, 1\n  ret void\n}", "")):
        with pytest.raises(VerifyError, match="invalid LLVM IR") as told:
            code(way, text)
        assert what in str(told.value)


def test_assembly_is_text(way: ways.Binding | ways.Library) -> None:
    machine = way.machine(HERE.triple, *way.host(), 2)
    module = way.read("define i64 @seven() {\n  ret i64 7\n}", machine)
    assert "seven" in way.emit(module, machine, assembly=True).decode()


def test_modules_outlive_what_made_them(way: ways.Binding | ways.Library) -> None:
    machine = way.machine(HERE.triple, *way.host(), 2)
    modules = [way.read(f"define i64 @f{n}() {{\n  ret i64 {n}\n}}", machine) for n in range(20)]
    codes = [way.emit(m, machine) for m in modules[::2]]
    del modules
    gc.collect()
    assert len(set(codes)) == 10


@needs_direct
def test_a_thread_may_read_without_the_interpreter_lock() -> None:
    assert DIRECT is not None
    text, machine = emit.emit(kernels.spmm(), HERE), DIRECT.machine(HERE.triple, *DIRECT.host(), 2)
    assert DIRECT.emit(DIRECT.read(text, machine, yielding=True), machine) == code(DIRECT, text)
    with pytest.raises(VerifyError, match="invalid LLVM IR"):
        DIRECT.read("define i64 @f() { ret i32 0 }", machine, yielding=True)


def test_unknown_versions_go_by_the_binding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ways, "READ", frozenset())
    assert ways.library() is None and not jit.is_light()
    jit._llvm.cache_clear()
    jit._described.cache_clear()
    try:
        assert isinstance(jit._llvm(), ways.Binding)
        assert jit.compile_object(f'target triple = "{HERE.triple}"\ndefine i64 @f() {{\n  ret i64 1\n}}\n', HERE)
    finally:
        jit._llvm.cache_clear()
        jit._described.cache_clear()


@needs_direct
def test_first_calls_do_without_the_binding(tmp_path: object) -> None:
    script = "import sys, numpy as np, polyai as pa; pa.jit(lambda x: x + 1.0)(np.ones(3)); print('llvmlite.binding' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env={"POLYAI_CACHE_DIR": str(tmp_path)})
    assert done.stdout.strip() == "False"
