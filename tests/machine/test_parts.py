"""Long modules in parts: the same results, whatever thread compiles which part; broken bundles are refused."""

from __future__ import annotations

import dataclasses
import random
import threading
from collections.abc import Callable

import numpy as np
import pytest
from scipy.special import erf

import polyai as pa
from polyai import pipeline
from polyai.errors import VerifyError
from polyai.loop import nodes as lp
from polyai.machine import cpu, emit, jit, load, parts
from tests.machine import kernels

HOST = cpu.host()


def beside(work: Callable[[], None], name: str) -> threading.Thread:
    thread = threading.Thread(target=work, name=name)
    thread.start()
    return thread


def text_of_spmm() -> tuple[lp.Kernel, str]:
    kernel = kernels.spmm()
    return kernel, emit.emit(kernel, HOST)


def test_a_short_module_stays_whole() -> None:
    _, text = text_of_spmm()
    assert parts.split(text) == (text,)


def test_parts_hold_every_function_once(monkeypatch: pytest.MonkeyPatch) -> None:
    _, text = text_of_spmm()
    monkeypatch.setattr(parts, "LEAST", 1)
    functions, _ = parts.read(text)
    units = [f.name for f in functions if not f.helper]
    split = parts.split(text)
    assert len(split) == min(parts.MOST, len(units)) > 1
    defined = [f.name for part in split for f in parts.read(part)[0] if not f.helper]
    assert sorted(defined) == sorted(units)


def test_results_and_code_do_not_depend_on_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "LEAST", 1)
    codes = []
    old = jit.compile_object

    def compiled(text: str, target: cpu.Target, background: jit.Background | None = None, *, yielding: bool = False) -> bytes:
        made = old(text, target, background, yielding=yielding)
        if background is not None:  # a kernel, not the runtime's own code
            codes.append((made, old(text, target)))
        return made

    monkeypatch.setattr(pipeline.jit, "compile_object", compiled)
    rng = np.random.default_rng(0)
    f = pa.jit(lambda x, w, v: pa.softmax(pa.gelu(x @ w) @ v))
    for n in (40, 1, 0, 7):
        x, w, v = rng.standard_normal((n, 33)), rng.standard_normal((33, 65)), rng.standard_normal((65, 9))
        got = f(x, w, v)
        h = x @ w
        h = (h * 0.5 * (1 + erf(h / 2**0.5))) @ v
        e = np.exp(h - h.max(axis=-1, keepdims=True))
        np.testing.assert_allclose(got, e / e.sum(axis=-1, keepdims=True), rtol=1e-11)
    assert codes and all(a == b and a.startswith(load.SEVERAL) for a, b in codes)


@pytest.mark.parametrize("threads", [True, False])
def test_modules_share_threads(threads: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "LEAST", 1)
    _, text = text_of_spmm()
    short = f'target triple = "{HOST.triple}"\ndefine i64 @f() {{\n  ret i64 7\n}}\n'
    generation = jit.Generation(HOST, beside if threads else None)
    numbers = [generation.add(t) for t in (text, short, text)]
    generation.finish()
    assert [generation.code(n) for n in numbers] == [jit.compile_object(t, HOST) for t in (text, short, text)]


def test_threads_end_after_a_broken_module() -> None:
    before = threading.active_count()
    good = f'target triple = "{HOST.triple}"\ndefine i64 @f() {{\n  ret i64 7\n}}\n'
    generation = jit.Generation(dataclasses.replace(HOST, cores=4), beside)
    generation.add(good)
    with pytest.raises(VerifyError, match="invalid LLVM IR"):
        generation.add(good.replace("i64 7", "i32 7"))
    generation.finish()
    assert generation.code(0) and threading.active_count() == before


def test_the_linker_of_other_systems_takes_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, text = text_of_spmm()
    monkeypatch.setattr(parts, "LEAST", 1)
    code = jit.compile_object(text, HOST, beside)
    assert len(load.objects_of(code)) > 1
    assert load.load_by_llvm(code, (kernel.name,)).addresses[kernel.name] != 0


def test_errors_of_a_part_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "LEAST", 1)
    text = f'target triple = "{HOST.triple}"\ndefine i64 @f() {{\n  ret i64 0\n}}\ndefine i64 @g() {{\n  ret i32 0\n}}\n'
    with pytest.raises(VerifyError, match="invalid LLVM IR"):
        jit.compile_object(text, HOST, beside)


def test_broken_bundles_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, text = text_of_spmm()
    monkeypatch.setattr(parts, "LEAST", 1)
    good = jit.compile_object(text, HOST)
    assert load.load(good, (kernel.name,)).addresses[kernel.name] != 0
    objects = load.objects_of(good)
    head = len(load.SEVERAL)
    for bad in (good[:-1], good + b"\0", good[: head + 4], load.SEVERAL, load.bundle([objects[0], b"x"]), load.bundle([objects[0], objects[0][:90]])):
        with pytest.raises(load.ObjectError):
            load.load(bad, (kernel.name,))
    for some in (objects[:1], objects[1:]):  # a part is missing: either the kernel is not there, or what it calls
        with pytest.raises(load.ObjectError):
            load.load(load.bundle(some), (kernel.name,))
    random.seed(0)
    for _ in range(200):
        data = bytearray(good)
        data[random.randrange(head + 8 * (len(objects) + 1))] = random.randrange(256)
        if bytes(data) != good:
            with pytest.raises(load.ObjectError):
                load.load(bytes(data), (kernel.name,))


def test_loops_of_one_form_share_a_task() -> None:
    rng = np.random.default_rng(0)
    X, W, V = (rng.standard_normal(s) for s in ((37, 64), (64, 64), (64, 64)))
    both = pa.jit(lambda X, W, V: (X @ W, X @ V))
    first, second = both(X, W, V)
    np.testing.assert_allclose(first, X @ W)
    np.testing.assert_allclose(second, X @ V)
    text = both.explain(X, W, V)["code"]
    assert text.count("define internal i64 @pa.task") == 1 and text.count("ptr @pa.task1, ptr %context.") == 2
