"""PolyAI: a compiler for sparse and dynamic-shape tensor programs around a polyhedral scheduler."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from polyai.term.collector import paused

with paused():  # nearly all modules: the collector would walk what they hold again and again, a third of the time
    for _name in ("polyai.decorator", "polyai.surface"):
        importlib.import_module(_name)
del paused, _name

from polyai import errors as errors
from polyai import surface as _surface
from polyai.api import Function as Function
from polyai.api import policy as policy
from polyai.decorator import jit as jit
from polyai.frontend import functions as _functions
from polyai.frontend import spec as _spec
from polyai.frontend.spec import *
from polyai.options import options as options

if TYPE_CHECKING:
    from polyai import datasets as datasets
    from polyai.caches import *
    from polyai.conversion import asformat as asformat
    from polyai.conversion import sparse_array as sparse_array
    from polyai.declared import compile as compile
    from polyai.declared import explain as explain
    from polyai.frontend.functions import *
    from polyai.frontend.semiring import semiring as semiring
    from polyai.frontend.spec import ceildiv as ceildiv
    from polyai.preparing import prepare as prepare
    from polyai.reuse import pattern as pattern
    from polyai.sparse.diagonal import block_diagonal as block_diagonal
    from polyai.sparse.ragged import Ragged as Ragged
    from polyai.sparse.ragged import ragged as ragged
    from polyai.sparse.ragged import ragged_from_padded as ragged_from_padded
    from polyai.sparse.tensor import SparseArray as SparseArray

__version__ = "0.1.0"

_LATE = {
    "Ragged": "sparse.ragged",
    "SparseArray": "sparse.tensor",
    "asformat": "conversion",
    "block_diagonal": "sparse.diagonal",
    "cache_clear": "caches",
    "cache_export": "caches",
    "cache_import": "caches",
    "cache_info": "caches",
    "ceildiv": "frontend.spec",
    "compile": "declared",
    "explain": "declared",
    "pattern": "reuse",
    "prepare": "preparing",
    "ragged": "sparse.ragged",
    "ragged_from_padded": "sparse.ragged",
    "semiring": "frontend.semiring",
    "sparse_array": "conversion",
    "stats": "caches",
}
"""Names that not every program uses, and the modules that are imported for them. The operators are in `frontend.functions`."""


def __dir__() -> list[str]:
    return sorted({*globals(), "datasets", *_LATE, *_functions.HOMES})


if not TYPE_CHECKING:  # checkers read the imports above, and so find names that are not there

    def __getattr__(name: str) -> Any:
        if name == "datasets":
            return importlib.import_module("polyai.datasets")
        if name in _LATE:
            found = getattr(importlib.import_module(f"polyai.{_LATE[name]}"), name)
        elif name in _functions.HOMES:
            found = _surface.operator(name)
        else:
            raise AttributeError(f"module 'polyai' has no attribute {name!r}")
        globals()[name] = found
        return found

    __all__ = ["Function", "datasets", "errors", "jit", "options", "policy", *_spec.__all__, *_LATE, *_functions.HOMES]  # noqa: PLE0604
