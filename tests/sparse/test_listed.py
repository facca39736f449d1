"""BSR, DIA, LIL and DOK matrices that were changed in place behind SciPy's back: an error, or what the changed matrix means."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

import polyai as pa
from polyai.errors import PolyAIError

Change = Callable[[Any], Any]


def made(kind: str) -> Any:
    rng = np.random.default_rng(0)
    full = np.where(rng.random((6, 4)) < 0.5, np.arange(1.0, 25.0).reshape(6, 4), 0)
    full[0, 0] = full[1, 1] = 3.0
    return sp.bsr_array(full, blocksize=(2, 2)) if kind == "bsr" else getattr(sp, f"{kind}_array")(full)


def put(name: str, value: Callable[[Any], Any]) -> Change:
    return lambda a: setattr(a, name, value(a))


CHANGES: dict[str, Change] = {
    "bsr: a block column too large": lambda a: a.indices.__setitem__(0, 99),
    "bsr: a negative block column": lambda a: a.indices.__setitem__(0, -1),
    "bsr: a pointer too large": lambda a: a.indptr.__setitem__(1, 1000),
    "bsr: the last pointer too large": lambda a: a.indptr.__setitem__(-1, 1000),
    "bsr: fewer blocks than indices": put("data", lambda a: a.data[:1]),
    "bsr: flat blocks": put("data", lambda a: a.data.reshape(len(a.data), -1)),
    "bsr: blocks of another size": put("data", lambda a: np.zeros((len(a.data), 3, 2))),
    "bsr: a shape that blocks do not divide": put("_shape", lambda a: (7, 4)),
    "bsr: a larger shape": put("_shape", lambda a: (600, 4)),
    "bsr: pointers of another type": put("indptr", lambda a: a.indptr * 1.0),
    "bsr: fewer pointers": put("indptr", lambda a: a.indptr[:2]),
    "dia: fewer offsets than diagonals": put("offsets", lambda a: a.offsets[:1]),
    "dia: fewer diagonals than offsets": put("data", lambda a: a.data[:1]),
    "dia: flat diagonals": put("data", lambda a: a.data.ravel()),
    "dia: offsets in two dimensions": put("offsets", lambda a: a.offsets[None]),
    "dia: offsets of another type": put("offsets", lambda a: a.offsets * 1.5),
    "lil: a column too large": lambda a: a.rows[0].__setitem__(0, 99),
    "lil: a column far too large": lambda a: a.rows[0].__setitem__(0, 2**40),
    "lil: a negative column": lambda a: a.rows[0].__setitem__(0, -5),
    "lil: more columns than values": lambda a: a.rows[1].append(3),
    "lil: fewer values than columns": lambda a: a.data[0].clear(),
    "lil: fewer rows": put("rows", lambda a: a.rows[:2]),
    "lil: a text": lambda a: a.data[0].__setitem__(0, "x"),
    "lil: no list": lambda a: a.rows.__setitem__(0, None),
    "lil: a larger shape": put("_shape", lambda a: (60, 4)),
    "dok: a row too large": lambda a: a._dict.__setitem__((99, 0), 1.0),
    "dok: a row far too large": lambda a: a._dict.__setitem__((2**40, 0), 1.0),
    "dok: a negative row": lambda a: a._dict.__setitem__((-1, 0), 1.0),
    "dok: a key that is no pair": lambda a: a._dict.__setitem__((0, 0, 0), 1.0),
    "dok: a text as key": lambda a: a._dict.__setitem__("x", 1.0),
    "dok: a text as value": lambda a: a._dict.__setitem__((0, 0), "x"),
    "dok: a smaller shape": put("_shape", lambda a: (1, 4)),
}  # fmt: skip

GOOD: dict[str, tuple[Change, Callable[[Any], Any]]] = {
    "dia: a diagonal outside": (lambda a: a.offsets.__setitem__(0, 10**6), lambda a: sp.dia_array((a.data[1:], a.offsets[1:]), shape=a.shape).toarray()),
    "dia: longer diagonals": (put("data", lambda a: np.ones((len(a.offsets), 9))), lambda a: sp.dia_array((np.ones((len(a.offsets), 4)), a.offsets), shape=a.shape).toarray()),
    "dia: shorter diagonals": (put("data", lambda a: a.data[:, :2]), lambda a: np.where(np.arange(4) < 2, made("dia").toarray(), 0)),
    "lil: a row in reverse": (lambda a: (a.rows[0].reverse(), a.data[0].reverse()), lambda a: made("lil").toarray()),
    "dok: another value": (lambda a: a._dict.__setitem__((0, 0), 7.0), lambda a: a.toarray()),
    "bsr: other values": (lambda a: a.data.__imul__(2), lambda a: made("bsr").toarray() * 2),
}  # fmt: skip

X = np.arange(12.0).reshape(4, 3)
product, doubled = pa.jit(lambda a, x: a @ x), pa.jit(lambda a: abs(a) * 2)


@pytest.mark.parametrize("name", list(CHANGES))
def test_broken_matrices_are_refused(name: str) -> None:
    a = made(name.partition(":")[0])
    want = a.toarray() @ X
    for _ in range(2):
        np.testing.assert_allclose(product(a, X), want)
        doubled(a)
    CHANGES[name](a)
    for _ in range(2):
        with pytest.raises(PolyAIError):
            product(a, X)
        with pytest.raises(PolyAIError):
            doubled(a)


@pytest.mark.parametrize("name", list(GOOD))
def test_changes_that_keep_a_matrix_valid_are_seen(name: str) -> None:
    a = made(name.partition(":")[0])
    product(a, X)
    change, meaning = GOOD[name]
    change(a)
    np.testing.assert_allclose(product(a, X), meaning(a) @ X)


def test_a_process_survives_all_of_them() -> None:
    """Memory that SciPy's conversions corrupt shows when it is collected: in a process of its own."""
    code = (
        "from tests.sparse import test_listed as t\n"
        "for name, change in t.CHANGES.items():\n"
        "    a = t.made(name.partition(':')[0])\n"
        "    change(a)\n"
        "    try: t.product(a, t.X)\n"
        "    except t.PolyAIError: pass\n"
        "    else: raise AssertionError(name)\n"
        "import gc; gc.collect(); print('alive')\n"
    )
    run = subprocess.run([sys.executable, "-X", "faulthandler", "-c", code], capture_output=True, text=True)
    assert (run.returncode, run.stdout, run.stderr) == (0, "alive\n", "")
