"""Library functions that generated code may call, found when a kernel first needs them, each with a counter.

`blas.sgemm`, `blas.dgemm`: C = alpha * op(A) op(B) + beta * C for row-major matrices, by the BLAS that SciPy brings
(scipy.linalg.cython_blas). The record of the call, one word each::

    op_a op_b        0: as it is, 1: transposed
    m n k            op(A) is m x k, op(B) is k x n, C is m x n
    alpha            bits of an f64
    A lda            address of the first element, elements from one row to the next
    B ldb
    beta             bits of an f64
    C ldc

The result is OK, or TOO_LARGE for sizes beyond the library's 32-bit integers; then nothing was computed.
"""

from __future__ import annotations

import ctypes
import importlib
import threading
from collections.abc import Callable

from polyai.errors import UnsupportedError
from polyai.machine.load import Loaded
from polyai.runtime.cache import Cache
from polyai.runtime.native import compiled
from polyai.runtime.shared import Fields, renew_after_fork

TOO_LARGE = -2
"""A result of a library function: the sizes do not fit its integers."""

GEMM = Fields(
    **{name: 8 * k for k, name in enumerate(["op_a", "op_b", "m", "n", "k", "alpha", "a", "lda", "b", "ldb", "beta", "c", "ldc"])}
)
"""Byte offsets in the record of a matrix product."""

_ELEMENT = {"blas.sgemm": "float", "blas.dgemm": "double"}


def text(name: str) -> str:
    """The function that unpacks the record and calls the library, as LLVM IR. The library's address is kept in @cell."""
    elem = _ELEMENT[name]
    fields = "\n  ".join(f"{GEMM.at(f, 'r')}\n  %{f} = load i64, ptr %r.{f}" for f in GEMM)
    ints = ("m", "n", "k", "lda", "ldb", "ldc")
    slots = "\n  ".join(f"%{f}.i = alloca i32\n  %{f}.t = trunc i64 %{f} to i32\n  store i32 %{f}.t, ptr %{f}.i" for f in ints)
    widest = "\n  ".join(f"%over.{f} = icmp ugt i64 %{f}, 2147483647" for f in ints)
    joined, before = [], "false"
    for f in ints:
        joined.append(f"%any.{f} = or i1 {before}, %over.{f}")
        before = f"%any.{f}"

    def scalar(f: str) -> str:
        narrow = f"%{f}.v = fptrunc double %{f}.d to float" if elem == "float" else f"%{f}.v = fadd double %{f}.d, -0.0"
        return f"%{f}.d = bitcast i64 %{f} to double\n  {narrow}\n  %{f}.s = alloca {elem}\n  store {elem} %{f}.v, ptr %{f}.s"

    def letter(f: str) -> str:
        return (
            f"%{f}.is = icmp ne i64 %{f}, 0\n  %{f}.v = select i1 %{f}.is, i8 {ord('T')}, i8 {ord('N')}\n"
            f"  %{f}.s = alloca i8\n  store i8 %{f}.v, ptr %{f}.s"
        )

    return f"""
@cell = internal global [2 x i64] zeroinitializer, align 16

define ptr @cells() {{
  ret ptr @cell
}}

define i64 @call(ptr %r) {{
entry:
  {fields}
  {slots}
  {scalar("alpha")}
  {scalar("beta")}
  {letter("op_a")}
  {letter("op_b")}
  {widest}
  {chr(10).join(joined)}
  br i1 {before}, label %bad, label %good
good:
  %counter = getelementptr i8, ptr @cell, i64 8
  %count = atomicrmw add ptr %counter, i64 1 monotonic
  %blas = load ptr, ptr @cell
  %a.p = inttoptr i64 %a to ptr
  %b.p = inttoptr i64 %b to ptr
  %c.p = inttoptr i64 %c to ptr
  call void %blas(ptr %op_b.s, ptr %op_a.s, ptr %n.i, ptr %m.i, ptr %k.i, ptr %alpha.s, ptr %b.p, ptr %ldb.i, ptr %a.p, ptr %lda.i, ptr %beta.s, ptr %c.p, ptr %ldc.i)
  ret i64 0
bad:
  ret i64 {TOO_LARGE}
}}
"""


def _blas(name: str) -> int:
    """The address of a BLAS function, from SciPy's table for Cython."""
    try:
        module = importlib.import_module("scipy.linalg.cython_blas")
        capsule = module.__pyx_capi__[name]
    except (ImportError, AttributeError, KeyError) as error:
        raise UnsupportedError(
            f"the BLAS function {name} is not available", f"scipy.linalg.cython_blas: {error}", 'set the option blas="never"'
        ) from None
    named = ctypes.pythonapi.PyCapsule_GetName
    named.restype, named.argtypes = ctypes.c_char_p, [ctypes.py_object]
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    address: int = pointer(capsule, named(capsule))
    return address


FINDERS: dict[str, Callable[[], int]] = {
    "blas.sgemm": lambda: _blas("sgemm"),
    "blas.dgemm": lambda: _blas("dgemm"),
}
"""Where each function's address comes from."""


class Externs:
    """The functions one runtime has given to kernels."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._lock = threading.Lock()
        self._loaded: dict[str, tuple[Loaded, int]] = {}
        renew_after_fork(self)

    def address(self, name: str) -> int:
        """The address for a kernel's slot. Raises UnsupportedError for functions that do not exist here."""
        if name not in FINDERS:
            raise UnsupportedError(f"no library function is called {name!r}", f"known are {', '.join(FINDERS)}")
        with self._lock:
            if name not in self._loaded:
                self._loaded[name] = self._make(name)
            return self._loaded[name][0].addresses["call"]

    def calls(self) -> dict[str, int]:
        """How often each function has been called."""
        with self._lock:
            return {name: ctypes.c_int64.from_address(cell + 8).value for name, (_, cell) in sorted(self._loaded.items())}

    def after_fork(self) -> None:
        self._lock = threading.Lock()

    def _make(self, name: str) -> tuple[Loaded, int]:
        found = FINDERS[name]()
        loaded = compiled(name, text(name), ("call", "cells"), self._cache)
        cell = ctypes.CFUNCTYPE(ctypes.c_void_p)(loaded.addresses["cells"])()
        ctypes.c_int64.from_address(cell).value = found
        return loaded, cell
