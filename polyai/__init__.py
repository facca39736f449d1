"""PolyAI: a compiler for sparse and dynamic-shape tensor programs around a polyhedral scheduler."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from polyai.term.collector import paused

with paused():  # nearly all modules: the collector would walk what they hold again and again, a third of the time
    for _name in ("polyai.api.decorator", "polyai.api.surface"):
        importlib.import_module(_name)
del paused, _name

from polyai import errors as errors
from polyai.api import surface as _surface
from polyai.api.decorator import jit as jit
from polyai.api.function import Function as Function
from polyai.api.function import policy as policy
from polyai.frontend import spec as _spec
from polyai.frontend.spec import *
from polyai.frontend.surface import functions as _functions
from polyai.options import options as options

if TYPE_CHECKING:
    from polyai import datasets as datasets
    from polyai.api.caches import *
    from polyai.api.conversion import asformat as asformat
    from polyai.api.conversion import sparse_array as sparse_array
    from polyai.api.declared import compile as compile
    from polyai.api.declared import explain as explain
    from polyai.api.preparing import prepare as prepare
    from polyai.api.reuse import pattern as pattern
    from polyai.frontend.spec import ceildiv as ceildiv
    from polyai.frontend.surface.functions import *
    from polyai.frontend.surface.semiring import semiring as semiring
    from polyai.sparse.diagonal import block_diagonal as block_diagonal
    from polyai.sparse.ragged import Ragged as Ragged
    from polyai.sparse.ragged import ragged as ragged
    from polyai.sparse.ragged import ragged_from_padded as ragged_from_padded
    from polyai.sparse.tensor import SparseArray as SparseArray

__version__ = "0.1.0"

_LATE = {
    "Ragged": "sparse.ragged",
    "SparseArray": "sparse.tensor",
    "asformat": "api.conversion",
    "block_diagonal": "sparse.diagonal",
    "cache_clear": "api.caches",
    "cache_export": "api.caches",
    "cache_import": "api.caches",
    "cache_info": "api.caches",
    "ceildiv": "frontend.spec",
    "compile": "api.declared",
    "explain": "api.declared",
    "pattern": "api.reuse",
    "prepare": "api.preparing",
    "ragged": "sparse.ragged",
    "ragged_from_padded": "sparse.ragged",
    "semiring": "frontend.surface.semiring",
    "sparse_array": "api.conversion",
    "stats": "api.caches",
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
