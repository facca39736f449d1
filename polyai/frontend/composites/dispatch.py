"""Functions of the surface on values that are several arrays: ragged batches, sparse arrays with fill values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from polyai.frontend.composites import filled, ragged


def call(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """`function(*args, **kwargs)` as the values among its arguments want it that are several arrays."""
    if filled.is_filled(args, kwargs):
        return filled.call(function, args, kwargs)
    if ragged.is_ragged(args, kwargs):
        return ragged.call(function, args, kwargs)
    return function(*args, **kwargs)
