"""Python's cyclic garbage collector stands still while a program is compiled.

A compile makes some hundred thousand small objects, nearly all of which are trees without cycles. The collector would walk all that
the process has loaded, over and over, to find nothing: a tenth of the time of a first call.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused() -> Iterator[None]:
    """No collection inside, and the collector as it was afterwards. May be nested."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
