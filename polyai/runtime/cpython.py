"""CPython's and NumPy's C interfaces: functions by address, and a check that objects are laid out as native code expects."""

from __future__ import annotations

import ctypes
import sys
import sysconfig
from functools import lru_cache
from typing import Any

import numpy as np

from polyai.machine.capacity import installed_memory
from polyai.runtime.dispatch_code import API
from polyai.runtime.shared import Shared, address_of
from polyai.runtime.steps import ARRAY, DTYPE, OBJECT, PLAIN

_FUNCTIONS = {
    "getattr": "PyObject_GetAttr",
    "decref": "Py_DecRef",
    "incref": "Py_IncRef",
    "clear": "PyErr_Clear",
    "call": "PyObject_Vectorcall",
    "as_long": "PyLong_AsLongLong",
    "occurred": "PyErr_Occurred",
    "save": "PyEval_SaveThread",
    "restore": "PyEval_RestoreThread",
    "tuple_new": "PyTuple_New",
    "tuple_set": "PyTuple_SetItem",
    "context": "PyContextVar_Get",
}
_EMPTY = 184
"""The place of PyArray_Empty in NumPy's table of functions; places never change."""
_RESIZE = 80
SET_HANDLER = 304
"""Those of PyArray_Resize and of PyDataMem_SetHandler."""


class Text(bytes):
    """Bytes that may carry attributes: the `self` of a dispatcher, which keeps alive what its table points to."""


def _read(kind: Any, thing: object, offset: int) -> Any:
    return kind.from_address(id(thing) + offset).value


@lru_cache(maxsize=1)
def layout_holds() -> bool:
    """Whether this interpreter and this NumPy lay out their objects as the native call path assumes."""
    if sys.implementation.name != "cpython" or ctypes.sizeof(ctypes.c_void_p) != 8 or sys.byteorder != "little":
        return False
    if sysconfig.get_config_var("Py_GIL_DISABLED") or hasattr(sys, "getobjects"):
        return False
    if not all(hasattr(ctypes.pythonapi, name) for name in _FUNCTIONS.values()):
        return False
    pair, text, real = ("first", "second", "third"), Text(b"polyai12"), 1.5
    return (
        _read(ctypes.c_void_p, pair, OBJECT["type"]) == id(tuple)
        and _read(ctypes.c_ssize_t, pair, OBJECT["size"]) == 3
        and [_read(ctypes.c_void_p, pair, OBJECT["items"] + 8 * k) for k in range(3)] == [id(p) for p in pair]
        and ctypes.string_at(id(text) + OBJECT["text"], 8) == text
        and _read(ctypes.c_double, real, OBJECT["real"]) == real
        and all(_array_holds(a) for a in (np.zeros((3, 5), np.float32), np.zeros((2, 3, 4), np.int64), np.ones(7)[::2], np.zeros((0, 4))))
        and _order_holds()
    )


def _array_holds(array: np.ndarray[Any, Any]) -> bool:
    shape = _read(ctypes.c_void_p, array, ARRAY["shape"])
    flags = _read(ctypes.c_int32, array, ARRAY["flags"])
    plain = array.flags.c_contiguous and array.flags.aligned
    return bool(
        _read(ctypes.c_void_p, array, ARRAY["data"]) == array.__array_interface__["data"][0]
        and _read(ctypes.c_int32, array, ARRAY["ndim"]) == array.ndim
        and _read(ctypes.c_void_p, array, ARRAY["dtype"]) == id(array.dtype)
        and ((flags & PLAIN) == PLAIN) == plain
        and tuple((ctypes.c_ssize_t * array.ndim).from_address(shape)) == array.shape
        and _read(ctypes.c_int32, array.dtype, DTYPE["number"]) == array.dtype.num
    )


def _order_holds() -> bool:
    orders = {np.dtype("=f4"): b"=", np.dtype(">f4"): b">", np.dtype("i1"): b"|"}
    return all(_read(ctypes.c_char, dtype, DTYPE["order"]) == order for dtype, order in orders.items())


@lru_cache(maxsize=1)
def api_table() -> Shared:
    """What `dispatch_code.API` lists."""
    memory = Shared(8 * len(API))
    for name, function in _FUNCTIONS.items():
        memory.set(API[name], address_of(getattr(ctypes.pythonapi, function)))
    for name, place in (("empty", _EMPTY), ("resize", _RESIZE), ("handler", SET_HANDLER)):
        memory.set(API[name], numpy_function(place))
    for name, kind in (("ndarray", np.ndarray), ("tuple", tuple), ("int", int), ("float", float)):
        memory.set(API[name], id(kind))
    memory.set(API["memory"], installed_memory())
    return memory


def numpy_function(place: int) -> int:
    """An entry of NumPy's table of C functions."""
    core: Any = sys.modules.get("numpy._core._multiarray_umath") or sys.modules["numpy.core._multiarray_umath"]  # NumPy 2, 1
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    table: int = pointer(core._ARRAY_API, None)
    return ctypes.c_void_p.from_address(table + 8 * place).value or 0


class _MethodDef(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("code", ctypes.c_void_p), ("flags", ctypes.c_int), ("doc", ctypes.c_char_p)]


_FASTCALL_KEYWORDS = 0x80 | 0x02


def builtin(name: str, doc: str, code: int, myself: Text) -> Any:
    """A built-in function `code(self, args, nargs, kwnames)` whose `self` is `myself`, which keeps its definition alive."""
    definition = _MethodDef(name.encode(), code, _FASTCALL_KEYWORDS, doc.encode() or None)
    myself.definition = definition  # type: ignore[attr-defined]
    make = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p)(
        ("PyCFunction_NewEx", ctypes.pythonapi)
    )
    return make(ctypes.addressof(definition), myself, None)
